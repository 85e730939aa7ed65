//! What happened, in words: one plain sentence for every event, with ids for names.
//!
//! Each aggregate's events are matched one by one and field by field, so that an event without its words does not compile.
//! A sentence says what the event says and nothing else: it is no second reading of what the event meant.

mod approval;
mod webhook;

use std::fmt::Write as _;

use crate::account::{Account, AccountEvent, AccountRole, SignInBy};
use crate::allotment::{Allotment, AllotmentEvent};
use crate::clock::Zone;
use crate::coupon::{Coupon, CouponEvent, Issue, Past, Source};
use crate::definition::{Definition, DefinitionEvent, IssueLimit, Kind, Offer, Terms, Validity};
use crate::entity::Entity;
use crate::grant::{Cause, Grant, GrantEvent};
use crate::job::{Coupons, Job, JobEvent, Recipients, Work};
use crate::machine::{Machine, MachineEvent};
use crate::member::{Member, MemberEvent};
use crate::office::{Appointment, AppointmentEvent, Office, OfficeEvent};
use crate::order::{Line, LineState, Order, OrderEvent, Placement};
use crate::partner_key::{PartnerKey, PartnerKeyEvent};
use crate::provenance::{ImportedFrom, Provenance, ProvenanceEvent};
use crate::reading::{Reading, ReadingEvent};
use crate::refusals::{Refusals, RefusalsEvent, Refused};
use crate::rule::{GoodsGroup, GoodsGroupEvent, OrderAmount, OrderAmountEvent};
use crate::shop::{Shop, ShopDetails, ShopEvent};
use crate::value::money_text;

/// An aggregate whose events can be told.
pub trait Told: Entity {
    /// What this event says; times are local in `zone`.
    fn words(event: &Self::Event, zone: Zone) -> String;
}

/// ` by employee 1000`; nothing where it was an operator without an employee's id.
fn by(employee_id: i64) -> String {
    if employee_id == 0 { String::new() } else { format!(" by employee {employee_id}") }
}

/// ` (發錯)`; nothing where no reason was given. What a person typed is kept on one line.
fn because(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(" ({})", quoted(reason)) }
}

/// A text that a person typed, in quotes and with nothing in it that a terminal would act on.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        if character.is_control() {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('"');
    quoted
}

fn ids(ids: &[i64]) -> String {
    ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `1 day`, `30 days`.
fn counted(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// `coupons 1, 2`, `coupon 1`, or `no coupons`.
fn named(what: &str, numbers: &[i64]) -> String {
    match numbers {
        [] => format!("no {what}s"),
        [one] => format!("{what} {one}"),
        many => format!("{what}s {}", ids(many)),
    }
}

/// `raised by 5 to 20`, `lowered by 5 to 15`.
fn moved(by: i64, to: i64) -> String {
    let how = if by < 0 { "lowered" } else { "raised" };
    format!("{how} by {} to {to}", by.unsigned_abs())
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Cash => "cash coupon",
        Kind::Exchange => "exchange coupon",
    }
}

/// How a coupon was born, and what is behind it.
fn source(issue: &Issue) -> String {
    let Issue { source_id, order_id, goods_id, .. } = issue;
    match issue.source {
        Source::MassSend if *source_id == 0 => "mass send".to_owned(),
        Source::MassSend => format!("mass send {source_id}"),
        Source::OrderAmount => format!("the amount of order {order_id}, rule {source_id}"),
        Source::ProductGroup => format!("goods {goods_id} in order {order_id}, group {source_id}"),
        Source::MemberLevel => format!("reaching a level, grant {source_id}"),
        Source::OneToOne => "one to one".to_owned(),
        Source::Birthday => format!("birthday, grant {source_id}"),
        Source::Partner => format!("allotment {source_id} of a partner"),
        Source::Claimed => "claimed by the member".to_owned(),
        Source::Imported => "imported".to_owned(),
    }
}

impl Told for Coupon {
    fn words(event: &CouponEvent, zone: Zone) -> String {
        match event {
            CouponEvent::Issued(issue) => {
                let Issue { definition_id, member_id, start_date, end_date, employee_id, .. } = &**issue;
                format!(
                    "issued to member {member_id} from definition {definition_id}{} ({}), valid {start_date} to {end_date}",
                    by(*employee_id),
                    source(issue)
                )
            }
            CouponEvent::Imported { issue, past, at_ms: _ } => imported(issue, *past, zone),
            CouponEvent::Viewed { member_id, at_ms: _ } => {
                format!("opened by member {member_id} for the first time")
            }
            CouponEvent::Given { gift, member_id, code_key: _, lapses_at_ms, at_ms: _ } => format!(
                "put out as gift {gift} by member {member_id}, to be received before {}",
                zone.date_time(*lapses_at_ms)
            ),
            CouponEvent::GiftCodeRejected { gift, member_id, at_ms: _ } => {
                format!("a wrong code for gift {gift} was tried by member {member_id}")
            }
            CouponEvent::GiftWithdrawn { gift, at_ms: _ } => format!("gift {gift} taken back by its giver"),
            CouponEvent::GiftLapsed { gift, at_ms: _ } => {
                format!("gift {gift} lapsed: nobody had received it")
            }
            CouponEvent::Received { gift, giver_id, member_id, at_ms: _ } => {
                format!("gift {gift} received by member {member_id} from member {giver_id}")
            }
            CouponEvent::Redeemed { redemption_id, member_id, shop_id, employee_id, at_ms: _ } => {
                let who = if *employee_id == 0 { " by himself".to_owned() } else { by(*employee_id) };
                format!("used by member {member_id} at shop {shop_id}{who}, redemption {redemption_id}")
            }
            CouponEvent::RedemptionReversed { redemption_id, employee_id, reason, at_ms: _ } => format!(
                "redemption {redemption_id} taken back{}{}: in hand again",
                by(*employee_id),
                because(reason)
            ),
            CouponEvent::Evaluated { member_id, score, text_hash: _, at_ms: _ } => {
                format!("reviewed by member {member_id} with {score} of 5")
            }
            CouponEvent::Expired { at_ms: _ } => "its end passed while it was in hand".to_owned(),
            CouponEvent::EndMoved { end_date, ends_at_ms: _, employee_id, reason, at_ms: _ } => {
                format!("end moved to {end_date}{}{}", by(*employee_id), because(reason))
            }
            CouponEvent::Voided { employee_id, reason, at_ms: _ } => {
                format!("voided{}{}", by(*employee_id), because(reason))
            }
        }
    }
}

fn imported(issue: &Issue, past: Past, zone: Zone) -> String {
    let Issue { definition_id, member_id, start_date, end_date, employee_id, at_ms, .. } = issue;
    let past = match past {
        Past::Unused => "unused".to_owned(),
        Past::Used { redemption_id, shop_id, employee_id, at_ms } => format!(
            "used at shop {shop_id}{} at {}, redemption {redemption_id}",
            by(employee_id),
            zone.date_time(at_ms)
        ),
        Past::Voided { at_ms } => format!("voided at {}", zone.date_time(at_ms)),
    };
    format!(
        "taken over from another system{} for member {member_id} under definition {definition_id}, born {}, valid \
         {start_date} to {end_date}, {past}",
        by(*employee_id),
        zone.date_time(*at_ms)
    )
}

/// `cash coupon "十元券" of 10.00 from an order of 100.00 on`, then when, where and who.
fn offered(offer: &Offer) -> String {
    let Offer { terms, validity, issue_limit, get_limit, level_ids, claimable } = offer;
    let mut text = self::terms(terms);
    let _ = match validity {
        Validity::Fixed { start, end } => write!(text, ", valid {start} to {end}"),
        Validity::FromReceipt { starts_after_days, valid_days } => {
            let (days, wait) = (counted(*valid_days, "day"), counted(*starts_after_days, "day"));
            write!(text, ", valid for {days}, beginning {wait} after receipt")
        }
        Validity::MemberCard => write!(text, ", valid until the member's card ends"),
    };
    let _ = match issue_limit {
        IssueLimit::Unlimited => Ok(()),
        IssueLimit::PerMember => write!(text, ", at most {get_limit} a member"),
        IssueLimit::OneAtATime => write!(text, ", one at a time"),
        IssueLimit::Levels => write!(text, ", for {}", named("level", level_ids)),
    };
    if *claimable {
        text.push_str(", members may claim it");
    }
    text
}

fn terms(terms: &Terms) -> String {
    let Terms { kind: of, title, deduction_cents, minimum_order_cents, .. } = terms;
    let Terms { weekdays, givable, stackable, rules: _, shop_ids, self_redeemable, scan_required, .. } =
        terms;
    let mut text = format!("{} {}", kind(*of), quoted(title));
    if *of == Kind::Cash {
        let _ = write!(text, " of {}", money_text(*deduction_cents));
    }
    if *minimum_order_cents > 0 {
        let _ = write!(text, " from an order of {} on", money_text(*minimum_order_cents));
    }
    if !weekdays.is_empty() {
        let _ = write!(text, ", on weekdays {}", crate::value::list_text(weekdays));
    }
    if !shop_ids.is_empty() {
        let _ = write!(text, ", at {}", named("shop", shop_ids));
    }
    let may = [
        (*givable, "may be given away", "may not be given away"),
        (*stackable, "may be combined", "may not be combined"),
        (*self_redeemable, "may be redeemed by the member himself", "redeemed by staff only"),
        (*scan_required, "the shop's QR must be scanned", ""),
    ];
    for (yes, if_so, if_not) in may {
        let said = if yes { if_so } else { if_not };
        if !said.is_empty() {
            let _ = write!(text, ", {said}");
        }
    }
    text
}

impl Told for Definition {
    fn words(event: &DefinitionEvent, _zone: Zone) -> String {
        match event {
            DefinitionEvent::Defined { offer, stock, employee_id, at_ms: _ } => {
                let stock = stock.map_or("unlimited".to_owned(), |stock| stock.to_string());
                format!("defined{}, stock {stock}: {}", by(*employee_id), offered(offer))
            }
            DefinitionEvent::Edited { offer, employee_id, at_ms: _ } => {
                format!("edited{}, for what is issued from now on: {}", by(*employee_id), offered(offer))
            }
            DefinitionEvent::StockChanged { by: more, stock, employee_id, at_ms: _ } => {
                format!("stock {}{}", moved(*more, *stock), by(*employee_id))
            }
            DefinitionEvent::StateChanged { on, employee_id, at_ms: _ } => {
                format!("switched {}{}", if *on { "on" } else { "off" }, by(*employee_id))
            }
        }
    }
}

fn details(details: &ShopDetails) -> String {
    let ShopDetails { name, phone, address } = details;
    format!("{}, telephone {}, address {}", quoted(name), quoted(phone), quoted(address))
}

impl Told for Shop {
    fn words(event: &ShopEvent, _zone: Zone) -> String {
        match event {
            ShopEvent::Opened { details: of, partner, employee_id, at_ms: _ } => {
                let what = if *partner { "partner taken on" } else { "shop opened" };
                format!("{what}{}: {}", by(*employee_id), details(of))
            }
            ShopEvent::Edited { details: of, employee_id, at_ms: _ } => {
                format!("details changed{}: {}", by(*employee_id), details(of))
            }
            ShopEvent::Closed { employee_id, at_ms: _ } => format!("closed{}", by(*employee_id)),
            ShopEvent::Reopened { employee_id, at_ms: _ } => format!("opened again{}", by(*employee_id)),
            ShopEvent::AuditKeyRotated { audit_key, employee_id, at_ms: _ } => {
                format!(
                    "QR codes printed before made worthless{}, key {audit_key} from now on",
                    by(*employee_id)
                )
            }
        }
    }
}

impl Told for Allotment {
    fn words(event: &AllotmentEvent, _zone: Zone) -> String {
        match event {
            AllotmentEvent::Allotted { partner_id, definition_id, num, end_date, employee_id, at_ms: _ } => {
                format!(
                    "{num} of definition {definition_id} set aside for partner {partner_id}{}, to be taken until {end_date}",
                    by(*employee_id)
                )
            }
            AllotmentEvent::EndChanged { end_date, employee_id, at_ms: _ } => {
                format!("last day moved to {end_date}{}", by(*employee_id))
            }
            AllotmentEvent::StockChanged { by: more, num, employee_id, at_ms: _ } => {
                format!("number {}{}", moved(*more, *num), by(*employee_id))
            }
        }
    }
}

fn meant(which: Coupons) -> String {
    match which {
        Coupons::OfDefinition(id) => format!("definition {id}"),
        Coupons::OfSend(id) => format!("mass send {id}"),
    }
}

fn recipients(recipients: &Recipients) -> String {
    let Recipients { shop_ids, tag_ids, level_ids } = recipients;
    let parts = [("shop", shop_ids), ("tag", tag_ids), ("level", level_ids)];
    let parts = parts.iter().filter(|(_, of)| !of.is_empty()).map(|(name, of)| named(name, of));
    let parts = parts.collect::<Vec<_>>().join(" and ");
    if parts.is_empty() { "every member".to_owned() } else { format!("members of {parts}") }
}

/// What a job that waits is to do.
fn job_words(work: &Work, targeted: i64, until_position: i64) -> String {
    match work {
        Work::Send { definition_id, recipients: to, notify } => format!(
            "mass send of definition {definition_id} to {}, {targeted} in all{}",
            recipients(to),
            if *notify { ", who are told" } else { "" }
        ),
        Work::SendTo { definition_id, member_ids } => {
            let to = named("member", member_ids);
            format!("mass send of definition {definition_id} to {to}, {targeted} in all")
        }
        Work::Recall { coupons } => format!(
            "recall of what is unused of {}, of {targeted} issued up to position {until_position}",
            meant(*coupons)
        ),
        Work::Extend { coupons, end_date } => format!(
            "extension to {end_date} of what is unused of {}, of {targeted} issued up to position {until_position}",
            meant(*coupons)
        ),
    }
}

impl Told for Job {
    fn words(event: &JobEvent, _zone: Zone) -> String {
        match event {
            JobEvent::Proposed {
                approval_id,
                work,
                targeted,
                until_position,
                reason,
                employee_id,
                at_ms: _,
            } => format!(
                "{}: proposed{}{}, waits for approval {approval_id}",
                job_words(work, *targeted, *until_position),
                by(*employee_id),
                because(reason)
            ),
            JobEvent::Started { work, targeted, until_position, reason, employee_id, at_ms: _ } => {
                let (by, why) = (by(*employee_id), because(reason));
                match work {
                    Work::Send { definition_id, recipients: to, notify } => format!(
                        "mass send of definition {definition_id} started{by}{why} for {}, {targeted} in all{}",
                        recipients(to),
                        if *notify { ", who are told" } else { "" }
                    ),
                    Work::SendTo { definition_id, member_ids } => format!(
                        "mass send of definition {definition_id} started{by}{why} for {}, {targeted} in all",
                        named("member", member_ids)
                    ),
                    Work::Recall { coupons } => format!(
                        "recall started{by}{why}: what is unused of {}, of {targeted} issued up to position {until_position}",
                        meant(*coupons)
                    ),
                    Work::Extend { coupons, end_date } => format!(
                        "extension to {end_date} started{by}{why}: what is unused of {}, of {targeted} issued up to \
                         position {until_position}",
                        meant(*coupons)
                    ),
                }
            }
            JobEvent::Paused { employee_id, at_ms: _ } => format!("paused{}", by(*employee_id)),
            JobEvent::Resumed { employee_id, at_ms: _ } => format!("resumed{}", by(*employee_id)),
            JobEvent::Cancelled { employee_id, at_ms: _ } => {
                format!("cancelled{}: what it had done stays done", by(*employee_id))
            }
            JobEvent::Finished { done, refused, at_ms: _ } => {
                let refused = refused.iter().map(|(code, count)| format!("{count} with {code}"));
                let refused = refused.collect::<Vec<_>>().join(", ");
                let refused = if refused.is_empty() { "none".to_owned() } else { refused };
                format!("finished: {done} done, refused {refused}")
            }
        }
    }
}

fn line(line: &Line) -> String {
    let Line { goods_id, price_cents, state, count } = line;
    let state = match state {
        LineState::Sold => "",
        LineState::Free => " given free",
        LineState::Returned => " taken back",
    };
    format!("{count} of goods {goods_id} at {}{state}", money_text(*price_cents))
}

fn placed(placement: &Placement) -> String {
    let Placement { member_id, shop_id, employee_id, order_no, lines, amount_cents, rule_id, .. } = placement;
    let Placement { used, issued, score, balance_cents, remark, .. } = placement;
    let mut text = format!("placed by member {member_id}");
    if *shop_id != 0 {
        let _ = write!(text, " at shop {shop_id}");
    }
    if *employee_id != 0 {
        let _ = write!(text, ", taken{}", by(*employee_id));
    }
    if !order_no.is_empty() {
        let _ = write!(text, ", number {}", quoted(order_no));
    }
    let lines: Vec<String> = lines.iter().map(line).collect();
    let _ = write!(text, ": {}, {} in all", lines.join(", "), money_text(*amount_cents));
    if !used.is_empty() {
        let worth = |used: &crate::order::UsedCoupon| {
            let (coupon, redemption) = (used.coupon_id, used.redemption_id);
            format!("coupon {coupon} for {} (redemption {redemption})", money_text(used.worth_cents))
        };
        let _ = write!(text, "; used {}", used.iter().map(worth).collect::<Vec<_>>().join(", "));
    }
    if !issued.is_empty() {
        let _ = write!(text, "; earned {}", named("coupon", issued));
        if *rule_id != 0 {
            let _ = write!(text, " (rule {rule_id})");
        }
    }
    if *score != 0 || *balance_cents != 0 {
        let _ = write!(text, "; points {score}, balance {}", money_text(*balance_cents));
    }
    text.push_str(&because(remark));
    text
}

impl Told for Order {
    fn words(event: &OrderEvent, _zone: Zone) -> String {
        match event {
            OrderEvent::Placed { placement, at_ms: _ } => placed(placement),
            OrderEvent::Cancelled { returned, voided, kept, employee_id, at_ms: _ } => {
                let kept = kept.iter().map(|kept| format!("coupon {} ({})", kept.coupon_id, kept.code));
                let kept = kept.collect::<Vec<_>>().join(", ");
                let kept = if kept.is_empty() { String::new() } else { format!("; left as it was: {kept}") };
                format!(
                    "cancelled{}: {} in hand again, {} voided{kept}",
                    by(*employee_id),
                    named("coupon", returned),
                    named("coupon", voided)
                )
            }
        }
    }
}

impl Told for Grant {
    fn words(event: &GrantEvent, _zone: Zone) -> String {
        match event {
            GrantEvent::Added { cause, definition_id, num, employee_id, at_ms: _ } => {
                let cause = match cause {
                    Cause::OrderAmount(id) => format!("an order that reaches the amount of rule {id}"),
                    Cause::GoodsGroup(id) => format!("goods of group {id} in an order"),
                    Cause::Level(id) => format!("reaching level {id}"),
                    Cause::Birthday => "a birthday".to_owned(),
                };
                format!("{num} of definition {definition_id} granted for {cause}{}", by(*employee_id))
            }
            GrantEvent::Changed { num, employee_id, at_ms: _ } => {
                format!("number changed to {num}{}", by(*employee_id))
            }
            GrantEvent::Removed { employee_id, at_ms: _ } => {
                format!("removed{}: it grants nothing any more", by(*employee_id))
            }
        }
    }
}

impl Told for OrderAmount {
    fn words(event: &OrderAmountEvent, _zone: Zone) -> String {
        match event {
            OrderAmountEvent::Defined { amount_cents, employee_id, at_ms: _ } => {
                format!(
                    "rule defined for orders of {} and more{}",
                    money_text(*amount_cents),
                    by(*employee_id)
                )
            }
            OrderAmountEvent::Changed { amount_cents, employee_id, at_ms: _ } => {
                format!("edited{}: for orders of {} and more", by(*employee_id), money_text(*amount_cents))
            }
            OrderAmountEvent::Deleted { employee_id, at_ms: _ } => {
                format!("deleted with its grants{}", by(*employee_id))
            }
        }
    }
}

impl Told for Member {
    fn words(event: &MemberEvent, _zone: Zone) -> String {
        match event {
            MemberEvent::Erased { reason, employee_id, at_ms: _ } => {
                format!("personal data erased{}{}", by(*employee_id), because(reason))
            }
            MemberEvent::SignedIn { appid, first, at_ms: _ } => {
                let how = if *first { " for the first time" } else { "" };
                format!("signed in through WeChat{how}, app {}", quoted(appid))
            }
            MemberEvent::WechatUnbound { employee_id, at_ms: _ } => {
                format!("unbound from WeChat{}", by(*employee_id))
            }
        }
    }
}

impl Told for Account {
    fn words(event: &AccountEvent, zone: Zone) -> String {
        match event {
            AccountEvent::Created { role, at_ms: _ } => match role {
                AccountRole::Employee(id) => format!("account created for employee {id}"),
                AccountRole::Operator | AccountRole::Auditor => format!("{}'s account created", role.name()),
            },
            AccountEvent::CodeGiven { number, lapses_at_ms, at_ms: _ } => {
                format!(
                    "code {number} given out to choose a password until {}",
                    zone.date_time(*lapses_at_ms)
                )
            }
            AccountEvent::PasswordSet { by_code, at_ms: _ } => {
                let by = if *by_code { "by a code" } else { "by who knew the old one" };
                format!("password chosen {by}; every session ended")
            }
            AccountEvent::SignedIn { by, totp_step, at_ms: _ } => {
                let by = match by {
                    SignInBy::Password => "by password",
                    SignInBy::Provider => "by the provider's word",
                };
                let factor = if *totp_step == 0 { "" } else { " and second factor" };
                format!("signed in {by}{factor}")
            }
            AccountEvent::Locked { until_ms, at_ms: _ } => {
                format!("locked after wrong tries until {}", zone.date_time(*until_ms))
            }
            AccountEvent::TotpEnabled { number, totp_step: _, at_ms: _ } => {
                format!("second factor {number} is asked from now on")
            }
            AccountEvent::TotpDisabled { at_ms: _ } => "no second factor is asked any more".to_owned(),
            AccountEvent::SubjectLinked { number, at_ms: _ } => {
                format!("link {number} to whom the provider names lets in from now on")
            }
            AccountEvent::SubjectUnlinked { at_ms: _ } => {
                "nobody whom the provider names is let in any more; every session ended".to_owned()
            }
            AccountEvent::SignedOutEverywhere { at_ms: _ } => "every session ended".to_owned(),
            AccountEvent::Disabled { at_ms: _ } => "disabled; every session ended".to_owned(),
            AccountEvent::Enabled { at_ms: _ } => "enabled again".to_owned(),
        }
    }
}

impl Told for Office {
    fn words(event: &OfficeEvent, _zone: Zone) -> String {
        match event {
            OfficeEvent::Added { title, employee_id, at_ms: _ } => {
                format!("office {} added{}", quoted(title), by(*employee_id))
            }
            OfficeEvent::Edited { title, employee_id, at_ms: _ } => {
                format!("renamed to {}{}", quoted(title), by(*employee_id))
            }
            OfficeEvent::RightsSet { rights, employee_id, at_ms: _ } => {
                let rights = if rights.is_empty() { "none".to_owned() } else { ids(rights) };
                format!("rights set to {rights}{}", by(*employee_id))
            }
            OfficeEvent::Deleted { employee_id, at_ms: _ } => {
                format!("deleted with its rights{}", by(*employee_id))
            }
        }
    }
}

impl Told for Appointment {
    fn words(event: &AppointmentEvent, _zone: Zone) -> String {
        let AppointmentEvent::Appointed { office_id, manager, employee_id, at_ms: _ } = event;
        let office = if *office_id == 0 { "no office".to_owned() } else { format!("office {office_id}") };
        let manager = if *manager { ", manages his shop" } else { ", manages no shop" };
        format!("holds {office}{manager}{}", by(*employee_id))
    }
}

impl Told for Machine {
    fn words(event: &MachineEvent, zone: Zone) -> String {
        match event {
            MachineEvent::Issued { name, rights, expires_at_ms, employee_id, at_ms: _ } => {
                let until = match expires_at_ms {
                    0 => String::new(),
                    at_ms => format!(", until {}", zone.date_time(*at_ms)),
                };
                let (name, rights) = (quoted(name), named("right", rights));
                format!("key issued to machine {name} with {rights}{until}{}", by(*employee_id))
            }
            MachineEvent::Revoked { employee_id, at_ms: _ } => format!("key revoked{}", by(*employee_id)),
        }
    }
}

impl Told for PartnerKey {
    fn words(event: &PartnerKeyEvent, _zone: Zone) -> String {
        match event {
            PartnerKeyEvent::Registered { partner_id, public_key, employee_id, at_ms: _ } => {
                let (key, by) = (quoted(public_key), by(*employee_id));
                format!("public key {key} registered for partner {partner_id}{by}")
            }
            PartnerKeyEvent::Revoked { employee_id, at_ms: _ } => {
                format!("public key revoked{}", by(*employee_id))
            }
        }
    }
}

impl Told for Reading {
    fn words(event: &ReadingEvent, _zone: Zone) -> String {
        let ReadingEvent::Read { reader, action, member_ids, employee_ids, account_ids, people, at_ms: _ } =
            event;
        let whose = [("member", member_ids), ("employee", employee_ids), ("account", account_ids)];
        let whose = whose.into_iter().filter(|(_, ids)| !ids.is_empty());
        let whose: Vec<String> = whose.map(|(what, ids)| named(what, ids)).collect();
        let whose = whose.join(" and ");
        format!("{reader} read personal data of {whose} through {action}, an answer with {people} in all")
    }
}

impl Told for Refusals {
    fn words(event: &RefusalsEvent, zone: Zone) -> String {
        let RefusalsEvent::Gathered { from_ms, refused, others, at_ms } = event;
        let one = |Refused { caller, action, code, count }: &Refused| {
            format!(
                "{caller} {code} at {action}, {}",
                counted((*count).try_into().unwrap_or_default(), "time")
            )
        };
        let mut each: Vec<String> = refused.iter().map(one).collect();
        if *others > 0 {
            each.push(format!("{others} more"));
        }
        let (from, until) = (zone.date_time(*from_ms), zone.date_time(*at_ms));
        format!("refused between {from} and {until}: {}", each.join("; "))
    }
}

impl Told for Provenance {
    fn words(event: &ProvenanceEvent, _zone: Zone) -> String {
        match event {
            ProvenanceEvent::ImportedFrom(ImportedFrom {
                origin,
                size,
                root,
                checkpoint,
                digest,
                at_ms: _,
            }) => {
                let signed = if checkpoint.is_empty() { "unsigned" } else { "signed" };
                format!("imported from {origin}: {size} events, root {root} ({signed}), digest {digest}")
            }
            ProvenanceEvent::CheckpointKeyRotated { generation, verifier_key, at_ms: _, employee_id } => {
                format!("checkpoint key {generation} signs from now on{}: {verifier_key}", by(*employee_id))
            }
            ProvenanceEvent::KeyRotated { key, generation, key_id, overlap_ms, at_ms: _, employee_id } => {
                format!(
                    "{} key {generation} ({key_id}) is used from now on{}; the one before is good for {} more minutes",
                    key.name(),
                    by(*employee_id),
                    overlap_ms / 60_000
                )
            }
        }
    }
}

impl Told for GoodsGroup {
    fn words(event: &GoodsGroupEvent, _zone: Zone) -> String {
        match event {
            GoodsGroupEvent::Created { title, employee_id, at_ms: _ } => {
                format!("group {} created{}", quoted(title), by(*employee_id))
            }
            GoodsGroupEvent::Renamed { title, employee_id, at_ms: _ } => {
                format!("renamed to {}{}", quoted(title), by(*employee_id))
            }
            GoodsGroupEvent::GoodsSet { goods_ids, employee_id, at_ms: _ } => {
                let goods = if goods_ids.is_empty() { "none".to_owned() } else { ids(goods_ids) };
                format!("goods set to {goods}{}", by(*employee_id))
            }
            GoodsGroupEvent::Deleted { employee_id, at_ms: _ } => {
                format!("deleted with its grants{}", by(*employee_id))
            }
        }
    }
}
