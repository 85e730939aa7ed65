//! Rules and what they grant: orders' amounts, groups of goods, levels, birthdays.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::operator::definition_json;
use super::{Answer, Call, Failure};
use crate::directory;
use crate::entity::Entity;
use crate::grant::{Cause, MAX_NUM};
use crate::granting;
use crate::ledger::unit::Together;
use crate::read_model::pages::{self, DefinitionRow, Slice};
use crate::read_model::rules::{self, GoodsGroupRow, GrantRow, OrderAmountRow};
use crate::refusal::{Refusal, Wrong};
use crate::rule::{GoodsGroup, GoodsGroupCommand, OrderAmount, OrderAmountCommand};
use crate::rulebook::{
    AddGrants, ChangeGrants, DefineOrderAmount, Delete, EditOrderAmount, NewGrant, On, RemoveGrant,
    SetBirthday,
};
use crate::value::{MAX_ID, list_text, money_text};

/// The highest amount of a rule: the manual has whole amounts.
pub(super) const MAX_AMOUNT: i64 = 10_000_000_000;

/// The most grants of one request.
const MAX_ROWS: usize = 500;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// `/goodsgroup/getlist`
    GroupList,
    /// `/goodsgroup/info`
    GroupInfo,
    /// `/goodsgroup/add`
    GroupAdd,
    /// `/goodsgroup/edit`
    GroupEdit,
    /// `/goodsgroup/del`
    GroupDel,
    /// `/goodsgroup/setgoods`
    GroupSetGoods,
    /// `/goodselecoupon/couponlist`
    GroupCouponList,
    /// `/goodselecoupon/add`
    GroupCouponAdd,
    /// `/goodselecoupon/edit`
    GroupCouponEdit,
    /// `/goodselecoupon/del`
    GroupCouponDel,
    /// `/goods/get`
    GoodsGet,
    /// `/goods/checkinfo`
    GoodsCheck,
    /// `/orderamount/info`
    AmountInfo,
    /// `/orderamount/getlist`
    AmountList,
    /// `/orderamount/add`
    AmountAdd,
    /// `/orderamount/edit`
    AmountEdit,
    /// `/orderamount/del`
    AmountDel,
    /// `/orderelecoupon/couponlist`
    AmountCouponList,
    /// `/orderelecoupon/getlist`
    AmountCoupons,
    /// `/orderelecoupon/add`
    AmountCouponAdd,
    /// `/orderelecoupon/del`
    AmountCouponDel,
    /// `/memberelecoupon/list`
    LevelCoupons,
    /// `/memberelecoupon/couponlist`
    LevelCouponList,
    /// `/memberelecoupon/add`
    LevelCouponAdd,
    /// `/memberelecoupon/edit`
    LevelCouponEdit,
    /// `/memberelecoupon/del`
    LevelCouponDel,
    /// `/memberlevel/checkinfo`
    LevelCheck,
    /// `/birthdaycoupon/get`
    BirthdayGet,
    /// `/birthdaycoupon/set`
    BirthdaySet,
}

pub(super) async fn run(which: Rules, call: Call) -> Result<Answer, Failure> {
    match which {
        Rules::GroupList => group_list(call).await,
        Rules::GroupInfo => group_info(call).await,
        Rules::GroupAdd => group_add(call).await,
        Rules::GroupEdit => group_edit(call).await,
        Rules::GroupDel => group_del(call).await,
        Rules::GroupSetGoods => group_set_goods(call).await,
        Rules::GroupCouponList => coupon_list(call, "goods_group_id", Cause::GoodsGroup).await,
        Rules::GroupCouponAdd => group_coupon_add(call).await,
        Rules::GroupCouponEdit => change_grants(call, On::AnyGoodsGroup).await,
        Rules::GroupCouponDel => remove_grant(call, On::AnyGoodsGroup).await,
        Rules::GoodsGet => goods_get(call).await,
        Rules::GoodsCheck => goods_check(call).await,
        Rules::AmountInfo => amount_info(call).await,
        Rules::AmountList => amount_list(call).await,
        Rules::AmountAdd => amount_add(call).await,
        Rules::AmountEdit => amount_edit(call).await,
        Rules::AmountDel => amount_del(call).await,
        Rules::AmountCouponList => coupon_list(call, "ora_id", Cause::OrderAmount).await,
        Rules::AmountCoupons => amount_coupons(call).await,
        Rules::AmountCouponAdd => add_by_id(call, ("ora_id", "coupon_ids"), Cause::OrderAmount).await,
        Rules::AmountCouponDel => remove_grant(call, On::AnyOrderAmount).await,
        Rules::LevelCoupons => level_coupons(call).await,
        Rules::LevelCouponList => coupon_list(call, "level_id", Cause::Level).await,
        Rules::LevelCouponAdd => add_by_id(call, ("level_id", "coupon_id"), Cause::Level).await,
        Rules::LevelCouponEdit => change_grants(call, On::AnyLevel).await,
        Rules::LevelCouponDel => remove_grant(call, On::AnyLevel).await,
        Rules::LevelCheck => level_check(call).await,
        Rules::BirthdayGet => birthday_get(call).await,
        Rules::BirthdaySet => birthday_set(call).await,
    }
}

/// Reads `[{"id":1,"num":10},…]`, each id once.
fn read_nums(call: &mut Call, field: &'static str, id: &'static str) -> Vec<(i64, i64)> {
    let rows = call.form.rows(field, MAX_ROWS, |row| (row.id(id), row.int("num", 1, MAX_NUM)));
    refuse_doubles(call, field, &rows, |place| format!("{field}[{place}].{id}"));
    rows
}

/// The same, where there must be one at least.
fn read_some_nums(call: &mut Call, field: &'static str, id: &'static str) -> Vec<(i64, i64)> {
    let rows = read_nums(call, field, id);
    if rows.is_empty() {
        call.form.wrong(field, Wrong::Required);
    }
    rows
}

/// One id twice is a slip that would cost coupons; and a stream takes one command of a change.
fn refuse_doubles(
    call: &mut Call,
    field: &'static str,
    rows: &[(i64, i64)],
    path: impl FnOnce(usize) -> String,
) {
    let mut seen = HashSet::new();
    if let Some(place) = rows.iter().position(|row| !seen.insert(row.0)) {
        call.form.wrong(field, Wrong::Within { path: path(place), why: Box::new(Wrong::Taken) });
    }
}

/// Grants that are to be, under ids of their own.
async fn new_grants(call: &Call, rows: &[(i64, i64)]) -> Result<Vec<NewGrant>, Failure> {
    let mut grants = Vec::with_capacity(rows.len());
    for (definition_id, num) in rows {
        let id = call.app.ledger.next_id("grant", true).await?;
        grants.push(NewGrant { id, definition_id: *definition_id, num: *num });
    }
    Ok(grants)
}

/// Runs a change of many grants, whose answer is always the same.
async fn change<T: Together>(call: &Call, together: &T, data: &Value) -> Result<Answer, Failure> {
    let done = call.execute_together(together).await?;
    Answer::of(&done, data)
}

async fn add_grants(
    call: Call,
    cause: Cause,
    rows: Vec<(i64, i64)>,
    field: &'static str,
) -> Result<Answer, Failure> {
    let grants = new_grants(&call, &rows).await?;
    let add = AddGrants { cause, grants, employee_id: call.caller.employee_id(), field };
    change(&call, &add, &json!(true)).await
}

/// Adds definitions by their ids, one coupon of each.
async fn add_by_id(
    mut call: Call,
    (id, coupons): (&'static str, &'static str),
    cause: fn(i64) -> Cause,
) -> Result<Answer, Failure> {
    let id = call.form.id(id);
    let rows: Vec<_> = call.form.ints(coupons, MAX_ID).into_iter().map(|id| (id, 1)).collect();
    if rows.len() > MAX_ROWS {
        call.form.wrong(coupons, Wrong::TooMany { max: MAX_ROWS });
    } else if rows.is_empty() {
        call.form.wrong(coupons, Wrong::Required);
    }
    refuse_doubles(&mut call, coupons, &rows, |place| format!("{coupons}[{place}]"));
    call.checked()?;
    add_grants(call, cause(id), rows, coupons).await
}

async fn change_grants(mut call: Call, on: On) -> Result<Answer, Failure> {
    let nums = read_some_nums(&mut call, "json", "id");
    call.checked()?;
    let edit = ChangeGrants { on, nums, employee_id: call.caller.employee_id() };
    change(&call, &edit, &json!(true)).await
}

async fn remove_grant(mut call: Call, on: On) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let remove = RemoveGrant { on, id, employee_id: call.caller.employee_id() };
    change(&call, &remove, &json!(1)).await
}

/// Deletes a rule or group with what hangs on it.
async fn delete<A: Entity>(
    mut call: Call,
    cause: fn(i64) -> Cause,
    command: fn(i64) -> A::Command,
) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let employee_id = call.caller.employee_id();
    let delete = Delete::<A> { id, command: command(employee_id), cause: cause(id), employee_id };
    change(&call, &delete, &json!(1)).await
}

/// The definitions that can be added to a rule, a group or a level: on, not ended, not sold out, not there already, and for a
/// level open to it.
async fn coupon_list(
    mut call: Call,
    field: &'static str,
    cause: fn(i64) -> Cause,
) -> Result<Answer, Failure> {
    let id = call.form.id(field);
    let slice = call.form.slice();
    call.checked()?;
    let store = call.app.ledger.store();
    let cause = cause(id);
    match cause {
        Cause::OrderAmount(id) => {
            rules::order_amount(store, id).await?.ok_or(Refusal::NoSuchRule)?;
        }
        Cause::GoodsGroup(id) => {
            rules::goods_group(store, id).await?.ok_or(Refusal::NoSuchRule)?;
        }
        Cause::Level(_) | Cause::Birthday => {}
    }
    let there = rules::grants_of(store, cause).await?;
    let today = call.meta.at.day.to_string();
    let fits = |definition: &DefinitionRow| {
        let open = match cause {
            Cause::Level(level) if definition.issue_limit == 4 => {
                definition.level_ids.split(',').any(|id| id.parse() == Ok(level))
            }
            _ => true,
        };
        open && super::jobs::can_be_sent(definition, &today)
            && !there.iter().any(|grant| grant.definition_id == definition.id)
    };
    // Which fit is not for SQL to say; a merchant's definitions are few.
    let all = pages::definitions(store, Slice::All).await?;
    let page = slice.cut(all.into_iter().filter(fits), |definition| definition.id);
    Answer::new(&page.iter().map(definition_json).collect::<Vec<_>>())
}

/// A grant with the keys of the manual's `/orderelecoupon/getlist`, under the name its page has for what it hangs on.
pub(super) fn grant_json(grant: &GrantRow) -> Map<String, Value> {
    let cause = match grant.cause {
        Cause::OrderAmount(id) => Some(("ora_id", id)),
        Cause::GoodsGroup(id) => Some(("goodsgroup_id", id)),
        Cause::Level(id) => Some(("level_id", id)),
        Cause::Birthday => None,
    };
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("id", grant.id.into());
    if let Some((name, id)) = cause {
        put(name, id.into());
    }
    put("coupon_id", grant.definition_id.into());
    put("user_id", grant.employee_id.into());
    put("create_date", (grant.added_at_ms / 1000).into());
    put("num", grant.num.into());
    put("coupon_title", grant.title.clone().into());
    put("type", grant.kind.into());
    put("deduction", money_text(grant.deduction_cents).into());
    fields
}

/// A grant with what a member would get of it now.
async fn checked_json(
    call: &Call,
    member_id: i64,
    level_id: Option<i64>,
    grant: &GrantRow,
) -> Result<Map<String, Value>, Failure> {
    let (num, why) = granting::would_give(&call.app.ledger, member_id, level_id, grant).await?;
    let mut fields = grant_json(grant);
    fields.insert("state".to_owned(), i64::from(why.is_none()).into());
    fields.insert("give_num".to_owned(), num.into());
    fields.insert("code".to_owned(), why.map_or(0, |why| why.code()).into());
    Ok(fields)
}

fn group_json(group: &GoodsGroupRow) -> Value {
    json!({
        "id": group.id,
        "title": group.title,
        "user_id": group.employee_id,
        "create_date": group.created_at_ms / 1000,
    })
}

async fn group_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let groups = rules::goods_groups(call.app.ledger.store(), slice).await?;
    Answer::new(&groups.iter().map(group_json).collect::<Vec<_>>())
}

async fn group_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let ledger = &call.app.ledger;
    let (group, _) = ledger.load::<GoodsGroup>(id).await?;
    if !group.is_live() {
        return Err(Refusal::NoSuchRule.into());
    }
    let grants = rules::grants_of(ledger.store(), Cause::GoodsGroup(id)).await?;
    Answer::new(&json!({
        "id": id,
        "title": group.title,
        "user_id": group.employee_id,
        "create_date": group.created_at_ms / 1000,
        "goods_ids": list_text(&group.goods_ids()),
        "couList": grants.iter().map(grant_json).collect::<Vec<_>>(),
    }))
}

async fn group_add(mut call: Call) -> Result<Answer, Failure> {
    let title = call.form.text("title", 100);
    call.checked()?;
    let id = call.app.ledger.next_id("goods_group", true).await?;
    let command = GoodsGroupCommand::Create { title, employee_id: call.caller.employee_id() };
    group_answer(&call, id, &command).await
}

async fn group_edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let title = call.form.text("title", 100);
    call.checked()?;
    let command = GoodsGroupCommand::Rename { title, employee_id: call.caller.employee_id() };
    group_answer(&call, id, &command).await
}

async fn group_answer(call: &Call, id: i64, command: &GoodsGroupCommand) -> Result<Answer, Failure> {
    let done = call.execute::<GoodsGroup>(id, command).await?;
    Answer::of(&done, &json!({"title": done.state.title, "id": done.id.to_string()}))
}

async fn group_del(call: Call) -> Result<Answer, Failure> {
    let command = |employee_id| GoodsGroupCommand::Delete { employee_id };
    delete::<GoodsGroup>(call, Cause::GoodsGroup, command).await
}

async fn group_set_goods(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let goods_ids = call.form.ints("goods_ids", MAX_ID);
    call.checked()?;
    let command = GoodsGroupCommand::SetGoods { goods_ids, employee_id: call.caller.employee_id() };
    let done = call.execute::<GoodsGroup>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id, "goods_ids": list_text(&done.state.goods_ids())}))
}

async fn group_coupon_add(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("goodsgroup_id");
    let rows = read_some_nums(&mut call, "coupon_ids", "id");
    call.checked()?;
    add_grants(call, Cause::GoodsGroup(id), rows, "coupon_ids").await
}

/// What is granted for goods, group by group.
async fn grants_of_goods(call: &Call, goods_id: i64) -> Result<Vec<(GoodsGroupRow, Vec<GrantRow>)>, Failure> {
    let store = call.app.ledger.store();
    let mut groups = Vec::new();
    for id in rules::groups_of_goods(store, goods_id).await? {
        if let Some(group) = rules::goods_group(store, id).await? {
            groups.push((group, rules::grants_of(store, Cause::GoodsGroup(id)).await?));
        }
    }
    Ok(groups)
}

async fn goods_get(mut call: Call) -> Result<Answer, Failure> {
    let goods_id = call.form.id("id");
    call.checked()?;
    let groups = grants_of_goods(&call, goods_id).await?;
    Answer::new(&json!({
        "id": goods_id,
        "groupList": groups.iter().map(|(group, _)| json!({"id": group.id, "title": group.title})).collect::<Vec<_>>(),
        "couList": groups.iter().flat_map(|(_, grants)| grants).map(grant_json).collect::<Vec<_>>(),
    }))
}

async fn goods_check(mut call: Call) -> Result<Answer, Failure> {
    let goods_id = call.form.id("id");
    let member_id = call.form.id("member_id");
    call.checked()?;
    directory::membership(call.app.ledger.store(), member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let mut rows = Vec::new();
    for grant in grants_of_goods(&call, goods_id).await?.iter().flat_map(|(_, grants)| grants) {
        rows.push(checked_json(&call, member_id, None, grant).await?);
    }
    Answer::new(&rows)
}

/// The manual's amount is whole; an amount that is not can only come from elsewhere, and is shown rounded down.
fn amount(rule: &OrderAmountRow) -> i64 {
    rule.amount_cents / 100
}

async fn amount_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let store = call.app.ledger.store();
    let rule = rules::order_amount(store, id).await?.ok_or(Refusal::NoSuchRule)?;
    let grants = rules::grants_of(store, Cause::OrderAmount(id)).await?;
    let mut data = amount_json(&rule);
    data.insert("couList".to_owned(), grants.iter().map(grant_json).collect::<Vec<_>>().into());
    Answer::new(&data)
}

fn amount_json(rule: &OrderAmountRow) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("id".to_owned(), rule.id.into());
    fields.insert("amount".to_owned(), amount(rule).into());
    fields.insert("user_id".to_owned(), rule.employee_id.into());
    fields.insert("create_date".to_owned(), (rule.defined_at_ms / 1000).into());
    fields
}

async fn amount_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let all = rules::order_amounts(call.app.ledger.store(), slice).await?;
    Answer::new(&all.iter().map(amount_json).collect::<Vec<_>>())
}

/// The amount of the state right after the events, as `add` and `edit` answer it: a text.
fn amount_text(rule: &OrderAmount) -> String {
    (rule.amount_cents.unwrap_or_default() / 100).to_string()
}

async fn amount_add(mut call: Call) -> Result<Answer, Failure> {
    let amount_cents = call.form.int("amount", 1, MAX_AMOUNT) * 100;
    let rows = read_nums(&mut call, "json", "coupon_id");
    call.checked()?;
    let grants = new_grants(&call, &rows).await?;
    let id = call.app.ledger.next_id("order_amount", true).await?;
    let define = DefineOrderAmount { id, amount_cents, grants, employee_id: call.caller.employee_id() };
    let done = call.execute_together(&define).await?;
    Answer::of(
        &done,
        &json!({
            "amount": amount_text(&done.state),
            "user_id": done.state.employee_id,
            "create_date": done.state.defined_at_ms / 1000,
            "id": done.id.to_string(),
        }),
    )
}

async fn amount_edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let amount_cents = call.form.int("amount", 1, MAX_AMOUNT) * 100;
    let nums = read_nums(&mut call, "json", "id");
    call.checked()?;
    let edit = EditOrderAmount { id, amount_cents, nums, employee_id: call.caller.employee_id() };
    let done = call.execute_together(&edit).await?;
    Answer::of(&done, &json!({"id": done.id.to_string(), "amount": amount_text(&done.state)}))
}

async fn amount_del(call: Call) -> Result<Answer, Failure> {
    let command = |employee_id| OrderAmountCommand::Delete { employee_id };
    delete::<OrderAmount>(call, Cause::OrderAmount, command).await
}

async fn amount_coupons(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("ora_id");
    let slice = call.form.slice();
    call.checked()?;
    let store = call.app.ledger.store();
    rules::order_amount(store, id).await?.ok_or(Refusal::NoSuchRule)?;
    let grants = rules::grants(store, Cause::OrderAmount(id), slice).await?;
    Answer::new(&grants.iter().map(grant_json).collect::<Vec<_>>())
}

async fn level_coupons(mut call: Call) -> Result<Answer, Failure> {
    let level_id = call.form.id("level_id");
    let slice = call.form.slice();
    call.checked()?;
    let grants = rules::grants(call.app.ledger.store(), Cause::Level(level_id), slice).await?;
    // The manual's page has fewer keys than its sisters, in an order of its own.
    let row = |grant: &GrantRow| {
        json!({
            "id": grant.id,
            "coupon_id": grant.definition_id,
            "num": grant.num,
            "level_id": level_id,
            "coupon_title": grant.title,
            "type": grant.kind,
            "deduction": money_text(grant.deduction_cents),
        })
    };
    Answer::new(&grants.iter().map(row).collect::<Vec<_>>())
}

async fn level_check(mut call: Call) -> Result<Answer, Failure> {
    let level_id = call.form.id("id");
    let member_id = call.form.id("member_id");
    call.checked()?;
    let store = call.app.ledger.store();
    directory::membership(store, member_id).await?.ok_or(Refusal::NoSuchMember)?;
    let had_it = directory::has_reached(store, member_id, level_id).await?;
    let mut rows = Vec::new();
    for grant in &rules::grants_of(store, Cause::Level(level_id)).await? {
        let mut fields = checked_json(&call, member_id, Some(level_id), grant).await?;
        if had_it {
            // Once per member and level for ever.
            fields.insert("state".to_owned(), 0.into());
            fields.insert("give_num".to_owned(), 0.into());
            fields.insert("code".to_owned(), Refusal::LimitReached.code().into());
        }
        rows.push(fields);
    }
    Answer::new(&rows)
}

async fn birthday_get(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let grants = rules::grants_of(call.app.ledger.store(), Cause::Birthday).await?;
    Answer::new(&grants.iter().map(grant_json).collect::<Vec<_>>())
}

async fn birthday_set(mut call: Call) -> Result<Answer, Failure> {
    let rows = read_nums(&mut call, "coupon_ids", "id");
    call.checked()?;
    let grants = new_grants(&call, &rows).await?;
    let set = SetBirthday { grants, employee_id: call.caller.employee_id() };
    change(&call, &set, &json!(true)).await
}
