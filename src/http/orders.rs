//! Orders (訂單), and what coupons would be worth in one.

use serde_json::{Value, json};

use super::counter::{coupon_list, read_code, refuse_unknown};
use super::form::Form;
use super::rules::grant_json;
use super::{Answer, Call, Failure};
use crate::access::{Resource, Role};
use crate::coupon::Redeemer;
use crate::directory;
use crate::grant::Cause;
use crate::order::{Fates, Line, LineState, Order, Placement, amount_cents};
use crate::ordering::{self, Cancel, Earned, MAX_COUPONS, Place, Sale, Use, Valued};
use crate::read_model::kind_number;
use crate::read_model::orders::{self as pages, OrderFilter, OrderRow};
use crate::read_model::rules;
use crate::refusal::{Refusal, Wrong};
use crate::store::ReceiptKey;
use crate::value::{MAX_ID, money_text};

/// The most lines of one order.
const MAX_LINES: usize = 1_000;

/// The most of one kind of goods on a line.
const MAX_COUNT: i64 = 100_000;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orders {
    /// `/order/add`
    Add,
    /// `/order/cancelago`
    CancelAgo,
    /// `/order/cancel`
    Cancel,
    /// `/order/get`
    Get,
    /// `/order/list`
    List,
    /// `/order/elecouponlist`
    CouponList,
    /// `/order/getorderelecoupon`
    Granted,
    /// `/user/checkcoupons`
    CheckCoupons,
}

pub(super) async fn run(which: Orders, call: Call) -> Result<Answer, Failure> {
    match which {
        Orders::Add => add(call).await,
        Orders::CancelAgo => cancel_ago(call).await,
        Orders::Cancel => cancel(call).await,
        Orders::Get => get(call).await,
        Orders::List => list(call).await,
        Orders::CouponList => coupon_list(call, true).await,
        Orders::Granted => granted(call).await,
        Orders::CheckCoupons => check_coupons(call).await,
    }
}

fn read_earned(form: &mut Form, name: &'static str) -> Vec<Earned> {
    form.rows(name, MAX_COUPONS, |row| Earned {
        definition_id: row.id("coupon_id"),
        num: row.int("num", 1, MAX_COUPONS as i64),
    })
}

fn read_sales(form: &mut Form) -> Vec<Sale> {
    form.rows("goods", MAX_LINES, |row| {
        let goods_id = row.id("goods_id");
        let price_cents = row.money("price");
        let state = match row.int("state", -1, 1) {
            0 => LineState::Free,
            1 => LineState::Sold,
            _ => LineState::Returned,
        };
        let count = row.int("count", 1, MAX_COUNT);
        let earned = read_earned(row, "coupon_list");
        Sale { line: Line { goods_id, price_cents, state, count }, earned }
    })
}

/// Coupons by their ids, each once.
fn read_coupons(form: &mut Form, name: &'static str) -> Vec<i64> {
    let coupons = form.ints(name, MAX_ID);
    let mut once = coupons.clone();
    once.sort_unstable();
    once.dedup();
    if once.len() < coupons.len() {
        form.wrong(name, Wrong::Twice);
    } else if coupons.len() > MAX_COUPONS {
        form.wrong(name, Wrong::TooMany { max: MAX_COUPONS });
    }
    coupons
}

/// The shop of an order: the employee's own where none is named.
fn shop_of(call: &Call, asked: i64) -> Result<i64, Failure> {
    let shop_id = if asked == 0 { call.who.shop_id.unwrap_or_default() } else { asked };
    call.may(Resource::InShop(shop_id))?;
    Ok(shop_id)
}

/// The coupons with who takes their value; by their codes, where the till has scanned them or only codes count.
fn uses(call: &Call, coupons: &[i64], codes: &str) -> Vec<Use> {
    let employee_id = call.caller.employee_id();
    let shown: Vec<_> =
        codes.split(',').filter(|code| !code.is_empty()).map(|code| read_code(call, code)).collect();
    let redeemer = |coupon_id: i64| {
        if shown.is_empty() && !call.app.options.counter_codes_only {
            return Redeemer::Employee(employee_id);
        }
        let code = shown.iter().flatten().find(|(named, _)| *named == coupon_id).map(|(_, code)| *code);
        Redeemer::ByCode { employee_id, code }
    };
    coupons.iter().map(|id| Use { coupon_id: *id, redeemer: redeemer(*id) }).collect()
}

async fn add(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let member_id = form.id("member_id");
    let sales = read_sales(form);
    if sales.is_empty() {
        form.wrong("goods", Wrong::Required);
    }
    let rule_id = form.optional_int("ora_id", 0, MAX_ID).unwrap_or_default();
    let earned = read_earned(form, "order_coupon_list");
    let coupons = read_coupons(form, "use_coupon_list");
    let codes = form.optional_text("counter_codes", 5_000).unwrap_or_default();
    let score = form.optional_int("score", 0, MAX_ID).unwrap_or_default();
    let balance_cents = form.optional_money("balance").unwrap_or_default();
    let remark = form.optional_text("remark", 200).unwrap_or_default();
    let asked_shop = form.optional_int("shop_id", 0, MAX_ID).unwrap_or_default();
    let order_no = form.optional_text("order_no", 64).unwrap_or_default();
    let all = sales.iter().flat_map(|sale| &sale.earned).chain(&earned);
    if all.map(|earned| earned.num).sum::<i64>() + coupons.len() as i64 > MAX_COUPONS as i64 {
        form.wrong("order_coupon_list", Wrong::TooMany { max: MAX_COUPONS });
    }
    call.checked()?;
    refuse_unknown(&call)?;
    let shop_id = shop_of(&call, asked_shop)?;
    let once = (!order_no.is_empty()).then(|| {
        let key = ReceiptKey { caller: "merchant".to_owned(), operation: "order_no", key: order_no.clone() };
        (key, call.request_mac())
    });
    let employee_id = call.caller.employee_id();
    let placement = Placement {
        member_id,
        shop_id,
        employee_id,
        order_no,
        rule_id,
        score,
        balance_cents,
        remark,
        ..Placement::default()
    };
    let order_id = call.app.ledger.next_id("order", false).await?;
    let place = Place { order_id, placement, sales, earned, uses: uses(&call, &coupons, &codes), once };
    let done = call.execute_together(&place).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

fn fates_json(id: i64, fates: &Fates) -> Value {
    let kept: Vec<Value> =
        fates.kept.iter().map(|kept| json!({"id": kept.coupon_id, "code": kept.code})).collect();
    json!({"id": id, "returned": fates.returned, "voided": fates.voided, "kept": kept})
}

/// Reads what a cancel and the look before it have in common.
fn read_cancel(call: &mut Call) -> Result<Cancel, Failure> {
    let order_id = call.form.id("id");
    let return_partner = call.form.flag("return_partner", false);
    call.checked()?;
    if return_partner && call.who.role != Role::Operator {
        return Err(Failure::NotAllowed);
    }
    refuse_unknown(call)?;
    // 0 = any shop's.
    let all = call.may(Resource::Whole).is_ok();
    let shop_id = if all { 0 } else { call.who.shop_id.unwrap_or_default() };
    Ok(Cancel { order_id, employee_id: call.caller.employee_id(), shop_id, return_partner })
}

async fn cancel_ago(mut call: Call) -> Result<Answer, Failure> {
    let cancel = read_cancel(&mut call)?;
    let fates = cancel.preview(&call.app.ledger, &call.meta).await?;
    Answer::new(&fates_json(cancel.order_id, &fates))
}

async fn cancel(mut call: Call) -> Result<Answer, Failure> {
    let cancel = read_cancel(&mut call)?;
    let done = call.execute_together(&cancel).await?;
    let Order { fates, .. } = &done.state;
    Answer::of(&done, &fates_json(done.id, fates))
}

/// An order with the keys of the manual's lists, then ours.
fn order_json(call: &Call, row: &OrderRow) -> Result<Value, Failure> {
    let zone = call.app.ledger.zone();
    let details: Value =
        serde_json::from_str(&row.details).map_err(|error| Failure::Execute(error.into()))?;
    let count: i64 = details
        .as_array()
        .map_or(0, |lines| lines.iter().filter_map(|line| line.get("count")?.as_i64()).sum());
    let cancel_time: Value = match row.cancelled_at_ms {
        0 => 0.into(),
        at_ms => zone.date_time(at_ms).into(),
    };
    Ok(json!({
        "id": row.id,
        "user_id": row.employee_id,
        "create_time": zone.date_time(row.placed_at_ms),
        "cancel_time": cancel_time,
        "shop_id": row.shop_id,
        "count": count,
        "price": money_text(row.amount_cents),
        "state": i64::from(row.cancelled_at_ms == 0),
        "member_id": row.member_id,
        "evaluation": "",
        "score": 0,
        "evaluation_time": 0,
        "order_detail": details,
        "deduction": money_text(row.deduction_cents),
        "pay": money_text(row.amount_cents - row.deduction_cents),
        "use_score": row.score,
        "balance": money_text(row.balance_cents),
        "remark": row.remark,
        "order_no": row.order_no,
        "ora_id": row.rule_id,
        "use_coupon_list": row.used,
        "coupon_list": row.issued,
    }))
}

async fn get(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    refuse_unknown(&call)?;
    let row = pages::order(call.app.ledger.store(), id).await?;
    let here = |row: &OrderRow| call.may(Resource::InShop(row.shop_id)).is_ok();
    let row = row.filter(here).ok_or(Refusal::NoSuchOrder)?;
    Answer::new(&order_json(&call, &row)?)
}

async fn list(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let slice = form.slice();
    let member_id = form.optional_int("member_id", 0, MAX_ID).unwrap_or_default();
    let asked_shop = form.optional_int("shop_id", 0, MAX_ID).unwrap_or_default();
    let (begin, end) = form.days();
    call.checked()?;
    refuse_unknown(&call)?;
    // An employee sees his own shop.
    let shop_id = shop_of(&call, asked_shop)?;
    let zone = call.app.ledger.zone();
    let filter = OrderFilter {
        member_id,
        shop_id,
        from_ms: begin.map_or(0, |day| zone.day_starts_at_ms(day)),
        until_ms: end.map_or(i64::MAX, |day| zone.day_ends_at_ms(day)),
    };
    let rows = pages::orders(call.app.ledger.store(), filter, slice).await?;
    let rows: Result<Vec<Value>, Failure> = rows.iter().map(|row| order_json(&call, row)).collect();
    Answer::new(&rows?)
}

/// What an order of this amount would be granted: the highest rule at or below it, null where there is none.
async fn granted(mut call: Call) -> Result<Answer, Failure> {
    let amount = call.form.money("amount");
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let store = call.app.ledger.store();
    let Some(rule) = rules::best_order_amount(store, amount).await? else {
        return Answer::new(&Value::Null);
    };
    let grants = rules::grants_of(store, Cause::OrderAmount(rule.id)).await?;
    let grants = slice.cut(grants.into_iter(), |grant| grant.id);
    let coupons: Vec<_> = grants.iter().map(grant_json).collect();
    Answer::new(&json!({"id": rule.id, "amount": rule.amount_cents / 100, "coupon_list": coupons}))
}

fn valued_json(coupon: &Valued) -> Value {
    let (worth, code) = match &coupon.worth {
        Ok(worth) => (*worth, 0),
        Err(why) => (0, why.code()),
    };
    let terms = coupon.terms.as_ref();
    json!({
        "id": coupon.coupon_id,
        "coupon_title": terms.map(|terms| terms.title.as_str()).unwrap_or_default(),
        "type": terms.map_or(0, |terms| kind_number(terms.kind)),
        "deduction": money_text(terms.map_or(0, |terms| terms.deduction_cents)),
        "worth": money_text(worth),
        "code": code,
    })
}

/// What coupons would be worth in an order, and why not: nothing is redeemed.
async fn check_coupons(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let member_id = form.id("member_id");
    let coupons = read_coupons(form, "coupons");
    if coupons.is_empty() {
        form.wrong("coupons", Wrong::Required);
    }
    let asked = form.optional_money("amount");
    let sales = read_sales(form);
    let codes = form.optional_text("counter_codes", 5_000).unwrap_or_default();
    let asked_shop = form.optional_int("shop_id", 0, MAX_ID).unwrap_or_default();
    // One of the two is needed; a field that is wrong or missing is told first.
    if asked.is_none() && sales.is_empty() && !form.has_errors() {
        form.wrong("amount", Wrong::Required);
    }
    call.checked()?;
    refuse_unknown(&call)?;
    let shop_id = shop_of(&call, asked_shop)?;
    let lines: Vec<Line> = sales.into_iter().map(|sale| sale.line).collect();
    let amount = match asked {
        Some(amount) => amount,
        None => amount_cents(&lines)?,
    };
    directory::membership(call.app.ledger.store(), member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let placement = Placement { member_id, shop_id, amount_cents: amount, ..Placement::default() };
    let uses = uses(&call, &coupons, &codes);
    let valued = ordering::value(&call.app.ledger, &call.meta, &placement, &uses).await?;
    let deduction: i64 = valued.iter().filter_map(|coupon| coupon.worth.as_ref().ok()).sum();
    Answer::new(&json!({
        "amount": money_text(amount),
        "deduction": money_text(deduction),
        "pay": money_text(amount - deduction),
        "coupons": valued.iter().map(valued_json).collect::<Vec<_>>(),
    }))
}
