//! Partners (合作商家): what the merchant sets aside for them, what members take from it, and what both sides settle by.
//!
//! The settlement list is one function of the same rows for the merchant and for the partner; a partner sees nothing but
//! his own.

use std::collections::HashSet;

use futures::future::join_all;
use serde_json::{Value, json};

use super::client;
use super::operator::{definition_json, edit_shop, open_shop, qr_svg, shop_json, shop_qr};
use super::{Answer, Call, Failure};
use crate::allotment::{Allotment, AllotmentCommand, MAX_OPEN};
use crate::approval::Act;
use crate::clock::day_number;
use crate::coupon::{Coupon, CouponCommand, Origin, Source};
use crate::directory;
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Executed};
use crate::read_model::pages::{ShopRow, Slice};
use crate::read_model::partners::{self, AllotmentRow, OfferedRow, SettledRow, Span, StockLogRow};
use crate::refusal::{self, Refusal, Wrong};
use crate::store::ReceiptKey;
use crate::value::{MAX_ID, money_text};

/// What stands between a request's key and the allotment's id. No client's own key has it.
const KEY_SEPARATOR: char = ':';

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partners {
    /// `/business/list`
    List,
    /// `/business/get`
    Get,
    /// `/business/add`
    Add,
    /// `/business/edit`
    Edit,
    /// `/business/couponlist`
    CouponList,
    /// `/business/addattract`
    AddAttract,
    /// `/business/editattract`
    EditAttract,
    /// `/business/getattract`
    GetAttract,
    /// `/business/inventory`
    Inventory,
    /// `/business/invenlist`
    InvenList,
    /// `/businesshome/get`
    Home,
    /// `/businesshome/giveqrcode`
    HomeGiveQrCode,
    /// `/businesshome/auditqrcode`
    HomeAuditQrCode,
    /// `/businesshome/auditcoupon`
    HomeAuditCoupon,
    /// `/businesshome/attractcoupon`
    HomeAttractCoupon,
    /// `/statistics/getattract`
    StatisticsAttract,
    /// `/wechat/businesscoupon`
    MemberCoupons,
    /// `/wechat/getattract`
    MemberAttract,
    /// `/wechat/receive`
    Receive,
    /// `/wechat/auditlist`
    MemberAuditList,
}

pub(super) async fn run(which: Partners, call: Call) -> Result<Answer, Failure> {
    match which {
        Partners::List => list(call).await,
        Partners::Get => get(call).await,
        Partners::Add => open_shop(call, true).await,
        Partners::Edit => edit_shop(call, true).await,
        Partners::CouponList => coupon_list(call).await,
        Partners::AddAttract => add_attract(call).await,
        Partners::EditAttract => edit_attract(call).await,
        Partners::GetAttract => get_attract(call).await,
        Partners::Inventory => inventory(call).await,
        Partners::InvenList => inven_list(call).await,
        Partners::Home => home(call).await,
        Partners::HomeGiveQrCode => home_give_qr_code(call).await,
        Partners::HomeAuditQrCode => home_audit_qr_code(call).await,
        Partners::HomeAuditCoupon => home_audit_coupon(call).await,
        Partners::HomeAttractCoupon => home_attract_coupon(call).await,
        Partners::StatisticsAttract => statistics_attract(call).await,
        Partners::MemberCoupons => member_coupons(call).await,
        Partners::MemberAttract => member_attract(call).await,
        Partners::Receive => receive(call).await,
        Partners::MemberAuditList => member_audit_list(call).await,
    }
}

/// A partner, open or closed, or 2005.
async fn partner(call: &Call, id: i64) -> Result<ShopRow, Failure> {
    let found = partners::partner(call.app.ledger.store(), id).await?;
    Ok(found.ok_or(Refusal::NoSuchRule)?)
}

/// A partner who is open: 2005, then 2003.
async fn open_partner(call: &Call, id: i64) -> Result<ShopRow, Failure> {
    let found = partner(call, id).await?;
    if found.open { Ok(found) } else { Err(Refusal::NoSuchShop.into()) }
}

/// The partner who calls; the route's list of callers has seen to it that it is one.
fn own_id(call: &Call) -> i64 {
    match call.caller {
        Caller::Partner(id) => id,
        _ => 0,
    }
}

async fn list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let rows = partners::partners(call.app.ledger.store(), slice).await?;
    Answer::new(&rows.iter().map(shop_json).collect::<Vec<_>>())
}

async fn get(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    Answer::new(&shop_json(&partner(&call, id).await?))
}

async fn coupon_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let today = day_number(call.meta.at.day);
    let rows = partners::allottable(call.app.ledger.store(), today, slice).await?;
    Answer::new(&rows.iter().map(definition_json).collect::<Vec<_>>())
}

async fn add_attract(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let (partner_id, definition_id) = (form.id("business_id"), form.id("coupon_id"));
    let (num, end_date) = (form.int("num", 1, MAX_ID), form.day("end_time"));
    call.checked()?;
    let done = if let Some(done) = call.app.ledger.replay::<Allotment>(&call.meta).await? {
        done
    } else {
        call.refuse_proposed().await?;
        refuse_more_open(&call, partner_id).await?;
        let (employee_id, limits) = (call.caller.employee_id(), call.app.options.approvals);
        let at_most = limits.stock_at_most();
        let command =
            AllotmentCommand::Allot { partner_id, definition_id, num, end_date, employee_id, at_most };
        let id = call.app.ledger.next_id("allotment", true).await?;
        match call.execute::<Allotment>(id, &command).await {
            Err(Failure::Execute(ExecuteError::Refused(Refusal::NeedsApproval))) => {
                let act = Act::Allot { allotment_id: id, partner_id, definition_id, num, end_date };
                return call.propose(act, limits.stock).await;
            }
            done => done?,
        }
    };
    Answer::of(
        &done,
        &json!({
            "id": done.id,
            "business_id": done.state.partner_id,
            "coupon_id": done.state.definition_id,
            "num": done.state.num().unwrap_or_default(),
            "end_time": done.state.end_date.to_string(),
        }),
    )
}

/// A member takes every open allotment in one call, so there are not too many of them.
async fn refuse_more_open(call: &Call, partner_id: i64) -> Result<(), Failure> {
    let today = day_number(call.meta.at.day);
    let open = partners::open_allotments(call.app.ledger.store(), partner_id, today).await?;
    if open.len() < MAX_OPEN {
        return Ok(());
    }
    Err(Failure::Fields(vec![("business_id", Wrong::TooMany { max: MAX_OPEN })]))
}

async fn edit_attract(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let end_date = call.form.day("end_time");
    call.checked()?;
    let done = if let Some(done) = call.app.ledger.replay::<Allotment>(&call.meta).await? {
        done
    } else {
        let (allotment, _) = call.app.ledger.load::<Allotment>(id).await?;
        let today = call.meta.at.day;
        if allotment.num().is_some() && allotment.has_ended(today) && end_date >= today {
            refuse_more_open(&call, allotment.partner_id).await?;
        }
        let employee_id = call.caller.employee_id();
        call.execute::<Allotment>(id, &AllotmentCommand::ChangeEnd { end_date, employee_id }).await?
    };
    Answer::of(&done, &json!({"id": done.id, "end_time": done.state.end_date.to_string()}))
}

async fn get_attract(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("id");
    let slice = call.form.slice_if_asked();
    call.checked()?;
    partner(&call, partner_id).await?;
    let rows = partners::allotments(call.app.ledger.store(), partner_id, slice).await?;
    let row = |row: &AllotmentRow| {
        json!({
            "id": row.id,
            "business_id": row.partner_id,
            "coupon_id": row.definition_id,
            "coupon_title": row.title,
            "num": row.num,
            "inventory": row.left(),
            "end_time": row.end_date,
            "user_id": row.employee_id,
            "create_date": row.allotted_at_ms / 1000,
        })
    };
    Answer::new(&rows.iter().map(row).collect::<Vec<_>>())
}

async fn inventory(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("bc_id");
    let num = call.form.int("num", 1, MAX_ID);
    let more = call.form.int("type", 0, 1) == 1;
    call.checked()?;
    let by = if more { num } else { -num };
    let (employee_id, limits) = (call.caller.employee_id(), call.app.options.approvals);
    call.refuse_proposed().await?;
    let command = AllotmentCommand::ChangeStock { by, employee_id, at_most: limits.stock_at_most() };
    let done = match call.execute::<Allotment>(id, &command).await {
        Err(Failure::Execute(ExecuteError::Refused(Refusal::NeedsApproval))) => {
            let (allotment, _) = call.app.ledger.load::<Allotment>(id).await?;
            let num = allotment.num().unwrap_or_default().saturating_add(by);
            return call.propose(Act::RaiseAllotment { allotment_id: id, by, num }, limits.stock).await;
        }
        done => done?,
    };
    Answer::of(&done, &json!({"bc_id": done.id, "num": done.state.num().unwrap_or_default()}))
}

async fn inven_list(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("bc_id");
    let slice = call.form.slice();
    call.checked()?;
    let store = call.app.ledger.store();
    partners::allotment(store, id).await?.ok_or(Refusal::NoSuchRule)?;
    let rows = partners::stock_log(store, id, slice).await?;
    let row = |row: &StockLogRow| {
        json!({
            "id": row.number,
            "bc_id": id,
            "num": row.by.abs(),
            "type": i64::from(row.by >= 0),
            "total": row.num,
            "user_id": row.employee_id,
            "create_date": row.at_ms / 1000,
        })
    };
    Answer::new(&rows.iter().map(row).collect::<Vec<_>>())
}

async fn home(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    Answer::new(&shop_json(&partner(&call, own_id(&call)).await?))
}

async fn home_give_qr_code(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let own = partner(&call, own_id(&call)).await?;
    let url = call.app.ledger.secrets().partner_url(&call.app.options.public_url, own.id);
    Answer::new(&json!({"svg": qr_svg(&url)?, "url": url}))
}

async fn home_audit_qr_code(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let own = partner(&call, own_id(&call)).await?;
    Answer::new(&shop_qr(&call, own.id, own.audit_key)?)
}

/// Which page of which days: whole local days from `start`, or the manual's `strar`, to `end`.
fn read_span(call: &mut Call) -> (Span, Slice) {
    let slice = call.form.slice_of_pages();
    let (start, strar) = (call.form.optional_day("start"), call.form.optional_day("strar"));
    let (start, end) = (start.or(strar), call.form.optional_day("end"));
    if start.zip(end).is_some_and(|(start, end)| end < start) {
        call.form.wrong("end", Wrong::EndBeforeStart);
    }
    let zone = call.app.ledger.zone();
    let from_ms = start.map_or(0, |day| zone.day_starts_at_ms(day));
    let until_ms = end.map_or(i64::MAX, |day| zone.day_ends_at_ms(day));
    (Span { from_ms, until_ms }, slice)
}

fn settled_json(row: &SettledRow) -> Value {
    json!({
        "id": row.id,
        "mem_coupon_id": row.coupon_id,
        "bc_id": row.allotment_id,
        "coupon_id": row.definition_id,
        "coupon_title": row.title,
        "deduction": money_text(row.deduction_cents),
        "create_date": row.used_at_ms / 1000,
        "shop_id": row.shop_id,
        "shop_name": row.shop_name,
        "user_id": row.employee_id,
        "member_id": row.member_id,
    })
}

/// What was redeemed of a partner's allotments, and the position that it is as of: the one answer for the merchant and for the
/// partner.
async fn settlement(
    call: &Call,
    partner_id: i64,
    (span, slice): (Span, Slice),
) -> Result<(i64, Answer), Failure> {
    partner(call, partner_id).await?;
    let (position, rows) = partners::settled(call.app.ledger.store(), partner_id, span, slice).await?;
    Ok((position, Answer::new(&rows.iter().map(settled_json).collect::<Vec<_>>())?))
}

async fn home_audit_coupon(mut call: Call) -> Result<Answer, Failure> {
    let asked = read_span(&mut call);
    call.checked()?;
    // How much happens in the ledger is no partner's business.
    let (_, answer) = settlement(&call, own_id(&call), asked).await?;
    Ok(answer)
}

async fn statistics_attract(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("business_id");
    let asked = read_span(&mut call);
    call.checked()?;
    let (position, answer) = settlement(&call, partner_id, asked).await?;
    Ok(answer.counted_to(position))
}

async fn home_attract_coupon(mut call: Call) -> Result<Answer, Failure> {
    let (span, slice) = read_span(&mut call);
    call.checked()?;
    let own = partner(&call, own_id(&call)).await?;
    let rows = partners::redeemed_at(call.app.ledger.store(), (own.id, 0), span, slice).await?;
    Answer::new(&rows.iter().map(settled_json).collect::<Vec<_>>())
}

async fn member_coupons(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("business_id");
    let slice = call.form.slice();
    call.checked()?;
    open_partner(&call, partner_id).await?;
    let rows = partners::redeemable_at(call.app.ledger.store(), partner_id, slice).await?;
    Answer::new(&rows.iter().map(definition_json).collect::<Vec<_>>())
}

async fn member_attract(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("business_id");
    let slice = call.form.slice();
    call.checked()?;
    open_partner(&call, partner_id).await?;
    let (store, at, member_id) = (call.app.ledger.store(), call.meta.at, call.member_id());
    let member = directory::membership(store, member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let rows = partners::offered(store, (partner_id, day_number(at.day)), member_id, slice).await?;
    let row = |row: &OfferedRow| {
        let definition = &row.definition;
        let left = match definition.inventory() {
            -1 => row.allotment.left(),
            inventory => inventory.min(row.allotment.left()),
        };
        let may = client::may_be_issued(definition, (row.has, row.latest_end_ms), &member, at);
        json!({
            "id": row.allotment.id,
            "coupon_id": definition.id,
            "coupon_title": definition.title,
            "type": definition.kind,
            "deduction": money_text(definition.deduction_cents),
            "money": money_text(definition.minimum_order_cents),
            "validity_type": definition.validity_type,
            "validity": definition.valid_days,
            "start_date": definition.start_date,
            "end_date": definition.end_date,
            "use_week": definition.weekdays,
            "rules": definition.rules,
            "inventory": left,
            "end_time": row.allotment.end_date,
            "is_get": i64::from(may && left > 0),
        })
    };
    Answer::new(&rows.iter().map(row).collect::<Vec<_>>())
}

/// Takes one coupon of each open allotment, each as a command of its own: who has one of them already, or finds one sold
/// out, still gets the others. Under the same key what was taken is answered again, and the rest is asked afresh.
async fn receive(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("business_id");
    call.checked()?;
    let mut allotments = taken_before(&call, partner_id).await?;
    let repeated = !allotments.is_empty();
    let store = call.app.ledger.store();
    if !repeated {
        open_partner(&call, partner_id).await?;
        directory::membership(store, call.member_id()).await?.ok_or(Refusal::NoSuchMember)?;
    }
    let today = day_number(call.meta.at.day);
    let open = partners::open_allotments(store, partner_id, today).await?;
    let new: Vec<_> = open.into_iter().filter(|row| allotments.iter().all(|own| own.id != row.id)).collect();
    allotments.extend(new);
    allotments.sort_by_key(|row| std::cmp::Reverse(row.id));
    let (mut rows, mut written) = (Vec::with_capacity(allotments.len()), false);
    let taken = join_all(allotments.iter().map(|row| take(&call, row))).await;
    for (row, taken) in allotments.iter().zip(taken) {
        let (id, code) = match taken {
            Ok(done) => {
                written |= !done.replayed;
                (done.id, 0)
            }
            Err(ExecuteError::Refused(refusal)) => (0, refusal.wording().code),
            Err(ExecuteError::Conflict) => (0, refusal::CHANGED_MEANWHILE.code),
            // What was taken meanwhile is answered when the same key comes again.
            Err(error) => return Err(error.into()),
        };
        rows.push(json!({"coupon_id": row.definition_id, "id": id, "code": code}));
    }
    Answer::new(&rows).map(|answer| answer.replayed(repeated && !written))
}

/// The allotments that were taken from under this key, ended or not; 6001 where it came with another body.
async fn taken_before(call: &Call, partner_id: i64) -> Result<Vec<AllotmentRow>, Failure> {
    let Some((key, request_mac)) = &call.meta.receipt else {
        return Ok(Vec::new());
    };
    let store = call.app.ledger.store();
    let under = store.receipts_under(key, KEY_SEPARATOR).await?;
    if under.is_empty() {
        return Ok(Vec::new());
    }
    if under.iter().any(|(_, mac)| mac != request_mac) {
        return Err(Refusal::KeyReused.into());
    }
    let ids: HashSet<String> = under.into_iter().map(|(allotment_id, _)| allotment_id).collect();
    let mut taken = partners::allotments(store, partner_id, Slice::All).await?;
    taken.retain(|row| ids.contains(&row.id.to_string()));
    Ok(taken)
}

async fn take(call: &Call, from: &AllotmentRow) -> Result<Executed<Coupon>, ExecuteError> {
    let ledger = &call.app.ledger;
    let id = ledger.next_id("coupon", false).await?;
    let origin = Origin { source_id: from.id, ..Origin::of(Source::Partner, 0) };
    let command =
        CouponCommand::Issue { definition_id: from.definition_id, member_id: call.member_id(), origin };
    let mut meta = call.meta.clone();
    meta.receipt = meta.receipt.map(|(whole, request_mac)| {
        let key = format!("{}{KEY_SEPARATOR}{}", whole.key, from.id);
        (ReceiptKey { key, ..whole }, request_mac)
    });
    ledger.execute::<Coupon>(id, &command, &meta).await
}

async fn member_audit_list(mut call: Call) -> Result<Answer, Failure> {
    let partner_id = call.form.id("business_id");
    let date = call.form.day("date");
    let slice = call.form.slice_of_pages();
    call.checked()?;
    partner(&call, partner_id).await?;
    let zone = call.app.ledger.zone();
    let span = Span { from_ms: zone.day_starts_at_ms(date), until_ms: zone.day_ends_at_ms(date) };
    let whose = (partner_id, call.member_id());
    let rows = partners::redeemed_at(call.app.ledger.store(), whose, span, slice).await?;
    Answer::new(&rows.iter().map(settled_json).collect::<Vec<_>>())
}
