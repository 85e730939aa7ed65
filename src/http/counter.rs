//! The counter: what a member shows there, what an employee sees and redeems, and what is taken back.

use serde_json::{Value, json};

use super::client::{self, AuditableRow};
use super::operator::qr_svg;
use super::{Answer, Call, Failure};
use crate::access::Resource;
use crate::coupon::{CounterCode, Coupon, CouponCommand, Redeemer};
use crate::definition::Kind;
use crate::directory;
use crate::identity::Caller;
use crate::read_model::kind_number;
use crate::read_model::pages::{self, CounterRow, RedemptionRow, ShopRow};
use crate::reading::Person;
use crate::refusal::Refusal;
use crate::value::MAX_ID;

/// How long a code that a member shows is good: a picture of it is worthless by the time it is sent on.
const CODE_MS: i64 = 60_000;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// `/client/auditcode`
    Code,
    /// `/user/auditbycode`
    AuditByCode,
    /// `/user/auditelecoupon`
    AuditCoupon,
    /// `/user/auditelecouponlist`
    CouponList,
    /// `/auditelecoupon/getlist`
    RedemptionList,
    /// `/auditelecoupon/getshoplist`
    ShopList,
    /// `/user/reverseelecoupon`
    ReverseCoupon,
    /// `/user/voidelecoupon`
    VoidCoupon,
}

pub(super) async fn run(which: Counter, call: Call) -> Result<Answer, Failure> {
    match which {
        Counter::Code => code(call).await,
        Counter::AuditByCode => audit_by_code(call).await,
        Counter::AuditCoupon => audit_coupon(call).await,
        Counter::CouponList => coupon_list(call, false).await,
        Counter::RedemptionList => redemption_list(call).await,
        Counter::ShopList => shop_list(call).await,
        Counter::ReverseCoupon => reverse_coupon(call).await,
        Counter::VoidCoupon => void_coupon(call).await,
    }
}

/// Makes the code: nothing is written, and asking again makes another.
async fn code(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let ledger = &call.app.ledger;
    let (coupon, version) = ledger.load::<Coupon>(id).await?;
    coupon.may_be_shown(call.member_id(), call.now_ms())?;
    let lapses_at_ms = call.now_ms() + CODE_MS;
    let code = ledger.secrets().counter_code(id, version, lapses_at_ms);
    Answer::new(&json!({
        "id": id,
        "svg": qr_svg(&code)?,
        "code": code,
        "lapse_date": ledger.zone().date_time(lapses_at_ms),
    }))
}

/// Refuses an employee whom the directory does not know; an operator is none, and may call.
pub(super) fn refuse_unknown(call: &Call) -> Result<(), Failure> {
    if call.employee.is_none() && matches!(call.caller, Caller::Employee(_)) {
        return Err(Refusal::NoSuchMember.into());
    }
    Ok(())
}

async fn audit_by_code(mut call: Call) -> Result<Answer, Failure> {
    let text = call.form.text("code", 200);
    call.checked()?;
    let employee = call.employee.clone().ok_or(Refusal::NoSuchMember)?;
    let Some((id, code)) = read_code(&call, &text) else {
        // The key is asked first: used with another body it answers 6001.
        call.app.ledger.replay::<Coupon>(&call.meta).await?;
        return Err(Refusal::WrongCounterCode.into());
    };
    let redeemer = Redeemer::ByCode { employee_id: employee.id, code: Some(code) };
    redeem(call, id, redeemer, employee.shop_id).await
}

/// The coupon that a code names, and what it says of it.
pub(super) fn read_code(call: &Call, text: &str) -> Option<(i64, CounterCode)> {
    let (id, version, lapses_at_ms) = call.app.ledger.secrets().read_counter_code(text)?;
    Some((id, CounterCode { version, lapses_at_ms }))
}

async fn audit_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("mem_coupon_id");
    let shown = call.form.optional_text("counter_code", 200).filter(|code| !code.is_empty());
    call.checked()?;
    let employee = call.employee.clone().ok_or(Refusal::NoSuchMember)?;
    let employee_id = employee.id;
    let redeemer = match shown {
        None if !call.app.options.counter_codes_only => Redeemer::Employee(employee_id),
        shown => {
            let code = shown.and_then(|text| read_code(&call, &text)).filter(|(named, _)| *named == id);
            Redeemer::ByCode { employee_id, code: code.map(|(_, code)| code) }
        }
    };
    redeem(call, id, redeemer, employee.shop_id).await
}

async fn redeem(call: Call, id: i64, redeemer: Redeemer, shop_id: i64) -> Result<Answer, Failure> {
    let redemption_id = call.app.ledger.next_id("redemption", false).await?;
    let command = CouponCommand::Redeem { redeemer, shop_id, redemption_id, audit_url: None };
    let done = call.execute::<Coupon>(id, &command).await?;
    let member_id = done.state.redemptions.last().map_or(0, |used| used.member_id);
    Answer::of(&done, &client::redeemed(&done, Some(member_id)))
}

/// What of a member's coupons could be redeemed at the employee's shop; today's weekday is told, not asked.
pub(super) async fn coupon_list(mut call: Call, only_cash: bool) -> Result<Answer, Failure> {
    let member_id = call.form.id("member_id");
    let slice = call.form.slice();
    call.checked()?;
    refuse_unknown(&call)?;
    let (ledger, at) = (&call.app.ledger, call.meta.at);
    directory::membership(ledger.store(), member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let unused = pages::unused(ledger.store(), ledger.seal(), member_id, at.ms).await?;
    let shop = match &call.employee {
        Some(employee) => pages::place(ledger.store(), employee.shop_id).await?,
        None => None,
    };
    let here = |shop_ids: &str| match &shop {
        Some(shop) => client::is_usable_at(shop_ids, shop),
        None => call.employee.is_none(),
    };
    let usable = unused.into_iter().filter(|(row, usability)| {
        let now = usability.starts_at_ms <= at.ms && !row.gift_is_pending(at.ms);
        now && here(&usability.shop_ids) && (!only_cash || row.kind == kind_number(Kind::Cash))
    });
    let row = |(row, usability): (pages::WalletRow, pages::Usability)| {
        let behind = json!({
            "give_id": usability.given_by,
            "come": usability.source,
            "user_id": usability.employee_id,
            "order_id": usability.order_id,
            "goods_id": usability.goods_id,
        });
        let mut row = serde_json::to_value(AuditableRow::of(row, usability, at, ledger.zone()))?;
        if let (Value::Object(row), Value::Object(behind)) = (&mut row, behind) {
            row.extend(behind);
        }
        Ok(row)
    };
    let page = slice.cut(usable, |(row, _)| row.coupon_id);
    // A coupon that was taken back may have a review, which is the member's own text.
    let people = client::reviewers(page.iter().map(|(row, _)| row));
    let rows: Result<Vec<Value>, serde_json::Error> = page.into_iter().map(row).collect();
    Ok(Answer::new(&rows.map_err(|error| Failure::Execute(error.into()))?)?.showing(people))
}

async fn redemption_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_of_pages();
    let (begin, end) = call.form.days();
    let asked = call.form.optional_int("shop_id", 0, MAX_ID).unwrap_or_default();
    call.checked()?;
    refuse_unknown(&call)?;
    // Where none is named an employee sees his own shop, or all where he may.
    let all = call.may(Resource::Whole).is_ok();
    let shop_id = if asked == 0 && !all { call.who.shop_id.unwrap_or_default() } else { asked };
    if shop_id != 0 {
        call.may(Resource::InShop(shop_id))?;
    }
    let zone = call.app.ledger.zone();
    let from_ms = begin.map_or(0, |day| zone.day_starts_at_ms(day));
    let until_ms = end.map_or(i64::MAX, |day| zone.day_ends_at_ms(day));
    let ledger = &call.app.ledger;
    let rows = pages::redemptions(ledger.store(), ledger.seal(), (from_ms, until_ms), shop_id, slice).await?;
    let row = |row: &CounterRow| {
        json!({
            "id": row.id,
            "mem_coupon_id": row.coupon_id,
            "coupon_id": row.definition_id,
            "create_date": row.used_at_ms / 1000,
            "shop_id": row.shop_id,
            "user_id": row.employee_id,
            "member_id": row.member_id,
            "member_info": {"nickname": row.nickname, "headimgurl": row.headimgurl},
            "coupon_title": row.title,
            "reverse_date": row.reversed_at_ms / 1000,
        })
    };
    let named = rows.iter().filter(|row| !(row.nickname.is_empty() && row.headimgurl.is_empty()));
    let people: Vec<Person> = named.map(|row| Person::Member(row.member_id)).collect();
    Ok(Answer::new(&rows.iter().map(row).collect::<Vec<_>>())?.showing(people))
}

async fn shop_list(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let shops = pages::shops(call.app.ledger.store(), pages::Slice::All).await?;
    let row = |shop: &ShopRow| json!({"id": shop.id, "shop_name": shop.name});
    Answer::new(&shops.iter().map(row).collect::<Vec<_>>())
}

async fn reverse_coupon(mut call: Call) -> Result<Answer, Failure> {
    let redemption_id = call.form.id("id");
    let reason = call.form.text("reason", 200);
    call.checked()?;
    refuse_unknown(&call)?;
    // Another shop's is as if it were not there.
    let here = |redemption: &RedemptionRow| call.may(Resource::InShop(redemption.shop_id)).is_ok();
    let found = pages::redemption(call.app.ledger.store(), redemption_id).await?.filter(here);
    let done = if let Some(redemption) = found {
        let command = CouponCommand::Reverse {
            redemption_id,
            employee_id: call.caller.employee_id(),
            reason,
            within_ms: call.app.options.reverse_within_ms,
        };
        call.execute::<Coupon>(redemption.coupon_id, &command).await?
    } else {
        // The key is asked before existence: used with another body it answers 6001, not 2004.
        call.app.ledger.replay::<Coupon>(&call.meta).await?.ok_or(Refusal::NoSuchRedemption)?
    };
    Answer::of(&done, &json!({"id": redemption_id, "mem_coupon_id": done.id}))
}

async fn void_coupon(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("mem_coupon_id");
    let reason = call.form.text("reason", 200);
    call.checked()?;
    let command = CouponCommand::Void { employee_id: call.caller.employee_id(), reason };
    let done = call.execute::<Coupon>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}
