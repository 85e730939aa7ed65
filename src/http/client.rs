//! The member's side: `/client/…`, the page of the manual that this product implements.

use serde::Serialize;
use serde_json::{Value, json};

use super::{Answer, Call, Failure};
use crate::clock::{Moment, Zone, parse_day};
use crate::coupon::{Coupon, CouponCommand, CouponEvent, GIFT_TRIES, Origin, Redeemer, Source, is_usable_on};
use crate::directory;
use crate::facts::Membership;
use crate::ledger::{ExecuteError, Executed};
use crate::read_model::pages::{self, DefinitionRow, ShopRow, Usability, WalletRow, WalletState};
use crate::reading::Person;
use crate::refusal::Refusal;
use crate::shop::Shop;
use crate::value::{MAX_ID, hex, money_text, random};

/// Every call of this page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// `couponlist`
    CouponList,
    /// `couponinfo`
    CouponInfo,
    /// `couponcount`
    CouponCount,
    /// `auditcoupon`
    AuditCoupon,
    /// `auditcouponinfo`
    AuditCouponInfo,
    /// `evaluacoupon`
    EvaluaCoupon,
    /// `givecoupon`
    GiveCoupon,
    /// `withdrawcoupon`
    WithdrawCoupon,
    /// `giftinfo`
    GiftInfo,
    /// `getcoupon`
    GetCoupon,
    /// `getauditcoupon`
    GetAuditCoupon,
    /// `shopid`
    ShopId,
    /// `cangetcoupon`
    CanGetCoupon,
    /// `claimcoupon`
    ClaimCoupon,
}

pub(super) async fn run(which: Client, call: Call) -> Result<Answer, Failure> {
    match which {
        Client::CouponList => coupon_list(call).await,
        Client::CouponInfo => coupon_info(call).await,
        Client::CouponCount => coupon_count(call).await,
        Client::AuditCoupon => audit_coupon(call).await,
        Client::AuditCouponInfo => audit_coupon_info(call).await,
        Client::EvaluaCoupon => evalua_coupon(call).await,
        Client::GiveCoupon => give_coupon(call).await,
        Client::WithdrawCoupon => withdraw_coupon(call).await,
        Client::GiftInfo => gift_info(call).await,
        Client::GetCoupon => get_coupon(call).await,
        Client::GetAuditCoupon => get_audit_coupon(call).await,
        Client::ShopId => shop_id(call).await,
        Client::CanGetCoupon => can_get_coupon(call).await,
        Client::ClaimCoupon => claim_coupon(call).await,
    }
}

/// 0, or the local time as the manual prints it: the manual's field has both types.
#[derive(Serialize)]
#[serde(untagged)]
enum GiveDate {
    Never(i64),
    At(String),
}

impl GiveDate {
    fn of(row: &WalletRow, now_ms: i64, zone: Zone) -> Self {
        match row.shown_given_at_ms(now_ms) {
            0 => Self::Never(0),
            at_ms => Self::At(zone.date_time(at_ms)),
        }
    }
}

/// A row of couponlist: exactly the sample's keys.
#[derive(Serialize)]
struct ListRow {
    id: i64,
    member_id: i64,
    coupon_id: i64,
    start_date: String,
    end_date: String,
    create_date: i64,
    use_date: i64,
    give_date: GiveDate,
    #[serde(rename = "type")]
    kind: i64,
    use_id: i64,
    receive_id: i64,
    evaluation: String,
    score: i64,
    evaluation_time: i64,
    is_read: i64,
    coupon_title: String,
    deduction: String,
    is_self: i64,
}

impl ListRow {
    fn of(row: WalletRow, now_ms: i64, zone: Zone) -> Self {
        Self {
            id: row.coupon_id,
            member_id: row.member_id,
            coupon_id: row.definition_id,
            create_date: row.issued_at_ms / 1000,
            use_date: row.used_at_ms / 1000,
            give_date: GiveDate::of(&row, now_ms, zone),
            kind: row.kind,
            use_id: row.used_by,
            receive_id: row.received_by,
            score: row.score,
            evaluation_time: row.evaluated_at_ms / 1000,
            is_read: i64::from(row.is_read),
            deduction: money_text(row.deduction_cents),
            is_self: i64::from(row.self_redeemable),
            start_date: row.start_date,
            end_date: row.end_date,
            evaluation: row.evaluation,
            coupon_title: row.title,
        }
    }
}

/// A row of getauditcoupon: couponlist's, and whether today is one of its days.
#[derive(Serialize)]
pub(super) struct AuditableRow {
    #[serde(flatten)]
    row: ListRow,
    use_week: String,
    is_use_week: i64,
}

impl AuditableRow {
    pub(super) fn of(row: WalletRow, usability: Usability, at: Moment, zone: Zone) -> Self {
        Self {
            is_use_week: i64::from(is_usable_on(&days(&usability.weekdays), at.weekday)),
            use_week: usability.weekdays,
            row: ListRow::of(row, at.ms, zone),
        }
    }
}

/// The members whose reviews are shown with these rows.
pub(super) fn reviewers<'a>(rows: impl Iterator<Item = &'a WalletRow>) -> Vec<Person> {
    let with_text = rows.filter(|row| !row.evaluation.is_empty());
    with_text.map(|row| Person::Member(row.member_id)).collect()
}

async fn coupon_list(mut call: Call) -> Result<Answer, Failure> {
    let state = match call.form.int("state", 0, 2) {
        0 => WalletState::Unused,
        1 => WalletState::Gone,
        _ => WalletState::Expired,
    };
    let slice = call.form.slice();
    call.checked()?;
    let (now_ms, zone) = (call.now_ms(), call.app.ledger.zone());
    let ledger = &call.app.ledger;
    let rows = pages::wallet(ledger.store(), ledger.seal(), call.member_id(), state, now_ms, slice).await?;
    let people = reviewers(rows.iter());
    let rows: Vec<ListRow> = rows.into_iter().map(|row| ListRow::of(row, now_ms, zone)).collect();
    Ok(Answer::new(&rows)?.showing(people))
}

async fn coupon_count(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let [unused, used, expired] =
        pages::wallet_counts(call.app.ledger.store(), call.member_id(), call.now_ms()).await?;
    Answer::new(&json!({"unused": unused, "used": used, "expired": expired}))
}

async fn coupon_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let (member_id, now_ms, zone) = (call.member_id(), call.now_ms(), call.app.ledger.zone());
    let ledger = &call.app.ledger;
    let detail = pages::wallet_detail(ledger.store(), ledger.seal(), member_id, id).await?;
    let Some(detail) = detail else {
        return Err(Refusal::NoSuchCoupon.into());
    };
    let pages::WalletDetail { mut row, terms, receiver, .. } = detail;
    if !row.is_read && row.received_by == 0 {
        // A writer too busy for the event does not refuse the page: the next opening writes it.
        row.is_read = match call.execute::<Coupon>(id, &CouponCommand::View { member_id }).await {
            Ok(_) => true,
            Err(error @ Failure::Execute(ExecuteError::Corrupt(_))) => return Err(error),
            Err(_) => false,
        };
    }
    // What a giver sees of the receiver came with the gift.
    let people = reviewers(std::iter::once(&row));
    let receiver =
        receiver.map(|(nickname, headimgurl)| json!({"nickname": nickname, "headimgurl": headimgurl}));
    Answer::new(&json!({
        "id": row.coupon_id,
        "member_id": row.member_id,
        "coupon_id": row.definition_id,
        "start_date": row.start_date,
        "end_date": row.end_date,
        "create_date": row.issued_at_ms / 1000,
        "use_date": row.used_at_ms / 1000,
        "give_date": GiveDate::of(&row, now_ms, zone),
        "type": 0,
        "use_id": row.used_by,
        "give_id": detail.given_by,
        "receive_id": row.received_by,
        "evaluation": row.evaluation,
        "score": row.score,
        "evaluation_time": row.evaluated_at_ms / 1000,
        "is_read": i64::from(row.is_read),
        "come": detail.source,
        "user_id": detail.employee_id,
        "order_id": detail.order_id,
        "goods_id": detail.goods_id,
        "receive_member_info": receiver,
        "couponInfo": {
            "title": row.title,
            "type": row.kind,
            "code": 0,
            "use_week": detail.weekdays,
            "is_self": i64::from(row.self_redeemable),
            "is_giving": i64::from(terms.givable),
            "rules": terms.rules,
        },
    }))
    .map(|answer| answer.showing(people))
}

async fn audit_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("mem_coupon_id");
    let shop_id = call.form.id("shop_id");
    let audit_url = call.form.optional_text("audit_url", 500);
    call.checked()?;
    let redemption_id = call.app.ledger.next_id("redemption", false).await?;
    let redeemer = Redeemer::Member(call.member_id());
    let command = CouponCommand::Redeem { redeemer, shop_id, redemption_id, audit_url };
    let done = call.execute::<Coupon>(id, &command).await?;
    Answer::of(&done, &redeemed(&done, None))
}

/// The answer of a redemption, rendered from the coupon right after it. The two ids are strings, as the manual has them.
pub(super) fn redeemed(done: &Executed<Coupon>, member_id: Option<i64>) -> Value {
    let used = done.state.redemptions.last().cloned().unwrap_or_default();
    let mut data = json!({
        "mem_coupon_id": done.id.to_string(),
        "user_id": used.employee_id,
        "create_date": used.at_ms / 1000,
        "coupon_id": done.state.issue.as_ref().map_or(0, |issue| issue.definition_id),
    });
    if let Value::Object(data) = &mut data {
        data.extend(member_id.map(|member_id| ("member_id".to_owned(), member_id.into())));
        data.insert("id".to_owned(), used.id.to_string().into());
    }
    data
}

async fn audit_coupon_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let found = pages::redemption(call.app.ledger.store(), id).await?;
    let used = found.filter(|used| used.member_id == call.member_id()).ok_or(Refusal::NoSuchRedemption)?;
    Answer::new(&json!({
        "id": used.id,
        "mem_coupon_id": used.coupon_id,
        "coupon_id": used.definition_id,
        "create_date": call.app.ledger.zone().date_time_chinese(used.used_at_ms),
        "shop_id": used.shop_id,
        "user_id": used.employee_id,
        "coupon_title": used.title,
        "shop_name": used.shop_name,
    }))
}

async fn evalua_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let text = call.form.text("evaluation", 500);
    let score = call.form.int("score", 1, 5);
    call.checked()?;
    let command = CouponCommand::Evaluate {
        member_id: call.member_id(),
        score: score as u8,
        text: text.clone(),
        salt: hex(&random::<16>()),
    };
    let done = call.execute::<Coupon>(id, &command).await?;
    let review = done.state.review.clone().unwrap_or_default();
    Answer::of(
        &done,
        &json!({
            "id": done.id.to_string(),
            "evaluation": text,
            "score": review.score.to_string(),
            "evaluation_time": review.at_ms / 1000,
        }),
    )
}

async fn give_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let command =
        CouponCommand::Give { member_id: call.member_id(), lapse_after_ms: call.app.options.gift_lapse_ms };
    let done = call.execute::<Coupon>(id, &command).await?;
    let gift = done.state.gift.clone().unwrap_or_default();
    let ledger = &call.app.ledger;
    Answer::of(
        &done,
        &json!({
            "id": done.id,
            "code": ledger.secrets().gift_codes().code(done.id, gift.number, &gift.code_key),
            "lapse_date": ledger.zone().date_time(gift.lapses_at_ms),
        }),
    )
}

async fn withdraw_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let done = call.execute::<Coupon>(id, &CouponCommand::Withdraw { member_id: call.member_id() }).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

async fn get_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let code = call.form.int("code", 0, MAX_ID);
    call.checked()?;
    let done =
        call.execute::<Coupon>(id, &CouponCommand::Receive { member_id: call.member_id(), code }).await?;
    refuse_wrong_code(&done)?;
    Answer::of(&done, &json!({"id": done.id}))
}

async fn gift_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let code = call.form.int("code", 0, MAX_ID);
    call.checked()?;
    let done = call.execute::<Coupon>(id, &CouponCommand::Peek { member_id: call.member_id(), code }).await?;
    refuse_wrong_code(&done)?;
    let issue = done.state.issue.clone().unwrap_or_default();
    let ledger = &call.app.ledger;
    let giver_id = match done.state.holdings.get(&done.state.holder_id) {
        // Asked again by the one who received it.
        Some(holding) if done.state.holder_id == call.member_id() => holding.given_by,
        _ => done.state.holder_id,
    };
    let giver = directory::member(ledger.store(), ledger.seal(), giver_id).await?.unwrap_or_default();
    let lapses_at_ms = done.state.gift.as_ref().map_or(0, |gift| gift.lapses_at_ms);
    Answer::new(&json!({
        "id": done.id,
        "coupon_id": issue.definition_id,
        "coupon_title": issue.terms.title,
        "type": crate::read_model::kind_number(issue.terms.kind),
        "deduction": money_text(issue.terms.deduction_cents),
        "start_date": issue.start_date.to_string(),
        "end_date": issue.end_date.to_string(),
        "use_week": crate::value::list_text(&issue.terms.weekdays),
        "rules": issue.terms.rules,
        "lapse_date": if lapses_at_ms == 0 { String::new() } else { ledger.zone().date_time(lapses_at_ms) },
        "give_member_info": {"nickname": giver.nickname, "headimgurl": giver.headimgurl},
    }))
}

/// A wrong code is an event, and still a refusal; so is its replay.
fn refuse_wrong_code(done: &Executed<Coupon>) -> Result<(), Failure> {
    if !done.events.iter().any(|event| matches!(event, CouponEvent::GiftCodeRejected { .. })) {
        return Ok(());
    }
    let tried = done.state.gift.as_ref().map_or(GIFT_TRIES, |gift| gift.wrong_codes);
    let refusal = Refusal::WrongGiftCode { attempts_left: GIFT_TRIES.saturating_sub(tried) };
    Err(if done.replayed { Failure::Replayed(refusal) } else { refusal.into() })
}

async fn get_audit_coupon(mut call: Call) -> Result<Answer, Failure> {
    let shop_id = call.form.optional_int("shop_id", 0, MAX_ID).filter(|id| *id != 0);
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let (ledger, at) = (&call.app.ledger, call.meta.at);
    let mut shop = None;
    if let Some(shop_id) = shop_id {
        let found = pages::place(ledger.store(), shop_id).await?;
        shop = Some(found.filter(|shop| shop.open).ok_or(Refusal::NoSuchShop)?);
    }
    let unused = pages::unused(ledger.store(), ledger.seal(), call.member_id(), at.ms).await?;
    let usable = unused.into_iter().filter(|(row, Usability { starts_at_ms, weekdays, shop_ids, .. })| {
        row.self_redeemable
            && *starts_at_ms <= at.ms
            && !row.gift_is_pending(at.ms)
            && is_usable_on(&days(weekdays), at.weekday)
            && shop.as_ref().is_none_or(|shop| is_usable_at(shop_ids, shop))
    });
    // Which rows qualify is not for SQL to say, so the page is cut here; a member's open coupons are few.
    let usable = slice.cut(usable, |(row, _)| row.coupon_id);
    let people = reviewers(usable.iter().map(|(row, _)| row));
    let row = |(row, usability)| AuditableRow::of(row, usability, at, ledger.zone());
    Ok(Answer::new(&usable.into_iter().map(row).collect::<Vec<_>>())?.showing(people))
}

fn days(text: &str) -> Vec<u8> {
    text.split(',').filter_map(|day| day.parse().ok()).collect()
}

/// Whether a coupon with this list of shops can be used at this one: nothing listed = every own shop and no partner.
pub(super) fn is_usable_at(shop_ids: &str, shop: &ShopRow) -> bool {
    if shop_ids.is_empty() { !shop.partner } else { lists(shop_ids, shop.id) }
}

pub(super) fn lists(text: &str, id: i64) -> bool {
    text.split(',').any(|entry| entry.parse() == Ok(id))
}

async fn shop_id(mut call: Call) -> Result<Answer, Failure> {
    let audit_url = call.form.text("audit_url", 500);
    call.checked()?;
    let ledger = &call.app.ledger;
    let (shop_id, audit_key) = ledger.secrets().signed_shop(&audit_url).ok_or(Refusal::NoSuchShop)?;
    let (shop, _) = ledger.load::<Shop>(shop_id).await?;
    if !shop.open || shop.audit_key != audit_key {
        return Err(Refusal::NoSuchShop.into());
    }
    Answer::new(&shop_id)
}

async fn can_get_coupon(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let (ledger, at) = (&call.app.ledger, call.meta.at);
    let member_id = call.member_id();
    let member = directory::membership(ledger.store(), member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let offered = pages::claimable(ledger.store(), member_id).await?;
    // The same rules as claiming, in the same order; claiming asks again under the lock.
    let open = offered.into_iter().filter(|(definition, has, latest_end_ms)| {
        may_be_issued(definition, (*has, *latest_end_ms), &member, at)
    });
    let row = |(definition, ..): (DefinitionRow, i64, i64)| super::operator::definition_json(&definition);
    Answer::new(&open.map(row).collect::<Vec<_>>())
}

/// Whether a member may be issued one now, who has so many of them and whose last one ends then.
pub(super) fn may_be_issued(
    definition: &DefinitionRow,
    (has, latest_end_ms): (i64, i64),
    member: &Membership,
    at: Moment,
) -> bool {
    let ended = match definition.validity_type {
        1 => parse_day(&definition.end_date).is_none_or(|end| end < at.day),
        3 => member.card_end.is_none_or(|end| end < at.day),
        _ => false,
    };
    let allowed = match definition.issue_limit {
        2 => has < definition.get_limit,
        3 => latest_end_ms <= at.ms,
        4 => lists(&definition.level_ids, member.level_id),
        _ => true,
    };
    definition.on && !ended && allowed && definition.inventory() != 0
}

async fn claim_coupon(mut call: Call) -> Result<Answer, Failure> {
    let definition_id = call.form.id("id");
    call.checked()?;
    let id = call.app.ledger.next_id("coupon", false).await?;
    let command = CouponCommand::Issue {
        definition_id,
        member_id: call.member_id(),
        origin: Origin::of(Source::Claimed, 0),
    };
    let done = call.execute::<Coupon>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}
