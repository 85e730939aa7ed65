//! Mass send (群發), recall and extension: jobs that an operator starts, watches, pauses and cancels.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::approvals::waits;
use super::operator::definition_json;
use super::{Answer, Call, Failure};
use crate::coupon::Coupon;
use crate::directory;
use crate::job::{Coupons, Job, JobCommand, Recipients, Work};
use crate::ledger::Executed;
use crate::read_model::jobs::{self, JobRow};
use crate::read_model::kind_number;
use crate::read_model::pages::{self, DefinitionRow};
use crate::reading::Person;
use crate::refusal::{Refusal, Wrong};
use crate::runner::{self, Begun, Start};
use crate::value::{MAX_ID, list_text, money_text};

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jobs {
    /// `/sendelecoupon/add`
    SendAdd,
    /// `/sendelecoupon/getnum`
    SendGetNum,
    /// `/sendelecoupon/info`
    SendInfo,
    /// `/sendelecoupon/getlist`
    SendList,
    /// `/sendelecoupon/couponlist`
    SendCouponList,
    /// `/sendelecoupon/usercoupon`
    SendUserCoupon,
    /// `/sendelecoupon/membercouponinfo`
    SendMemberCouponInfo,
    /// `/elecoupons/recall`
    Recall,
    /// `/elecoupons/extend`
    Extend,
    /// `/job/info`
    Info,
    /// `/job/getlist`
    List,
    /// `/sendelecoupon/pause` and `/job/pause`
    Pause,
    /// `/sendelecoupon/resume` and `/job/resume`
    Resume,
    /// `/sendelecoupon/cancel` and `/job/cancel`
    Cancel,
}

pub(super) async fn run(which: Jobs, call: Call) -> Result<Answer, Failure> {
    match which {
        Jobs::SendAdd => send_add(call).await,
        Jobs::SendGetNum => send_get_num(call).await,
        Jobs::SendInfo => send_info(call).await,
        Jobs::SendList => list(call, true).await,
        Jobs::SendCouponList => send_coupon_list(call).await,
        Jobs::SendUserCoupon => send_user_coupon(call).await,
        Jobs::SendMemberCouponInfo => send_member_coupon_info(call).await,
        Jobs::Recall => recall(call).await,
        Jobs::Extend => extend(call).await,
        Jobs::Info => info(call).await,
        Jobs::List => list(call, false).await,
        Jobs::Pause => change(call, |employee_id| JobCommand::Pause { employee_id }).await,
        Jobs::Resume => change(call, |employee_id| JobCommand::Resume { employee_id }).await,
        Jobs::Cancel => change(call, |employee_id| JobCommand::Cancel { employee_id }).await,
    }
}

fn read_recipients(call: &mut Call) -> Recipients {
    let form = &mut call.form;
    let mut ids = |name| {
        let mut ids = form.ints(name, MAX_ID);
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    Recipients { shop_ids: ids("shop_ids"), tag_ids: ids("tag_ids"), level_ids: ids("level_ids") }
}

/// A list of ids as these pages show it: 0 = all.
fn or_all(ids: &str) -> &str {
    if ids.is_empty() { "0" } else { ids }
}

async fn send_add(mut call: Call) -> Result<Answer, Failure> {
    let recipients = read_recipients(&mut call);
    let definition_id = call.form.id("coupon_id");
    let notify = call.form.flag("is_all_send", false);
    let confirmed = call.form.flag("confirm", false);
    call.checked()?;
    let work = Work::Send { definition_id, recipients, notify };
    let above = call.app.options.approvals.sends;
    let Executed { id, state: job, replayed, .. } =
        begin(&call, work, String::new(), (confirmed, above)).await?;
    let Some(Work::Send { definition_id, recipients, .. }) = &job.work else {
        return Err(Refusal::NoSuchRule.into());
    };
    Answer::new(&json!({
        "shop_ids": or_all(&list_text(&recipients.shop_ids)),
        "tag_ids": or_all(&list_text(&recipients.tag_ids)),
        "level_ids": or_all(&list_text(&recipients.level_ids)),
        "coupon_id": definition_id,
        "nums": job.targeted,
        "user_id": job.employee_id,
        "create_date": job.started_at_ms / 1000,
        "id": id,
    }))
    .map(|answer| answer.replayed(replayed))
}

/// Starts a job, or answers that it waits where it is about more than one person decides.
pub(super) async fn begin(
    call: &Call,
    work: Work,
    reason: String,
    (confirmed, above): (bool, i64),
) -> Result<Executed<Job>, Failure> {
    let (employee_id, rule) = (call.caller.employee_id(), call.rule(above).await?);
    let start = Start { work, reason, employee_id, confirmed, rule };
    match runner::start(&call.app.ledger, &start, &call.meta).await? {
        Begun::Started(done) => Ok(done),
        Begun::Waits(proposed) => Err(waits(&proposed)),
    }
}

/// Whom a send is for, in words.
struct RecipientNames {
    shops: String,
    tags: String,
    levels: String,
}

/// The shops, tags and levels of a send by their names, by their ids where they have none.
async fn recipient_names(
    call: &Call,
    shop_ids: &str,
    tag_ids: &str,
    level_ids: &str,
) -> Result<RecipientNames, Failure> {
    let store = call.app.ledger.store();
    let read = |ids: &str| ids.split(',').filter_map(|id| id.parse().ok()).collect::<Vec<i64>>();
    let shops = if shop_ids.is_empty() { Vec::new() } else { pages::shops(store, pages::Slice::All).await? };
    let tags = directory::tags_by_id(store, &read(tag_ids)).await?;
    let levels = directory::levels_by_id(store, &read(level_ids)).await?;
    Ok(RecipientNames {
        shops: in_words(shop_ids, &shops.into_iter().map(|shop| (shop.id, shop.name)).collect()),
        tags: in_words(tag_ids, &tags.into_iter().map(|(id, tag)| (id, tag.name)).collect()),
        levels: in_words(level_ids, &levels.into_iter().map(|(id, level)| (id, level.name)).collect()),
    })
}

fn in_words(ids: &str, names: &HashMap<i64, String>) -> String {
    if ids.is_empty() {
        return "全部".to_owned();
    }
    let name = |id: &str| id.parse().ok().and_then(|id: i64| names.get(&id).cloned());
    ids.split(',').map(|id| name(id).unwrap_or_else(|| id.to_owned())).collect::<Vec<_>>().join(",")
}

async fn send_get_num(mut call: Call) -> Result<Answer, Failure> {
    let recipients = read_recipients(&mut call);
    call.checked()?;
    let num = runner::count_recipients(call.app.ledger.store(), &recipients).await?;
    let [shops, tags, levels] =
        [&recipients.shop_ids, &recipients.tag_ids, &recipients.level_ids].map(|ids| list_text(ids));
    let names = recipient_names(&call, &shops, &tags, &levels).await?;
    Answer::new(&json!({
        "num": num,
        "shopList": names.shops,
        "tagList": names.tags,
        "levelList": names.levels,
    }))
}

/// A send with the keys of the manual's `/sendelecoupon/getlist`, then ours.
fn send_json(row: &JobRow, now_ms: i64) -> serde_json::Map<String, Value> {
    let value = json!({
        "id": row.id,
        "nums": row.targeted,
        "user_id": row.employee_id,
        "create_date": row.started_at_ms / 1000,
        "coupon_id": row.definition_id,
        "state": row.state_at(now_ms),
        "shop_ids": or_all(&row.shop_ids),
        "tag_ids": or_all(&row.tag_ids),
        "level_ids": or_all(&row.level_ids),
        "send_num": row.done,
        "refused_num": row.refused_count(),
        "is_all_send": i64::from(row.notify),
        "coupon_title": row.title,
    });
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

async fn send_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let store = call.app.ledger.store();
    let row = jobs::job(store, id).await?.filter(|job| job.kind == 0).ok_or(Refusal::NoSuchRule)?;
    let employee = directory::employee(store, row.employee_id).await?.unwrap_or_default();
    let mut send = send_json(&row, call.now_ms());
    send.insert("refused".to_owned(), json!(row.refused));
    let names = recipient_names(&call, &row.shop_ids, &row.tag_ids, &row.level_ids).await?;
    send.insert("shopList".to_owned(), names.shops.into());
    send.insert("tagList".to_owned(), names.tags.into());
    send.insert("levelList".to_owned(), names.levels.into());
    let people = (!employee.name.is_empty()).then_some(Person::Employee(row.employee_id));
    send.insert("user_name".to_owned(), employee.name.into());
    Ok(Answer::new(&send)?.showing(people))
}

fn job_json(row: &JobRow, now_ms: i64) -> Value {
    json!({
        "id": row.id,
        "type": row.kind,
        "state": row.state_at(now_ms),
        "coupon_id": row.definition_id,
        "send_id": row.send_id,
        "end_date": row.end_date,
        "nums": row.targeted,
        "done_num": row.done,
        "refused_num": row.refused_count(),
        "refused": row.refused,
        "reason": row.reason,
        "user_id": row.employee_id,
        "create_date": row.started_at_ms / 1000,
        "end_time": row.ended_at_ms / 1000,
    })
}

async fn info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let row = jobs::job(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchRule)?;
    Answer::new(&job_json(&row, call.now_ms()))
}

async fn list(mut call: Call, only_sends: bool) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let rows = jobs::jobs(call.app.ledger.store(), only_sends, slice).await?;
    let now_ms = call.now_ms();
    if only_sends {
        return Answer::new(&rows.iter().map(|row| send_json(row, now_ms)).collect::<Vec<_>>());
    }
    Answer::new(&rows.iter().map(|row| job_json(row, now_ms)).collect::<Vec<_>>())
}

/// Which definitions can be sent now: on, not ended, not sold out.
pub(super) fn can_be_sent(definition: &DefinitionRow, today: &str) -> bool {
    let ended = definition.validity_type == 1 && definition.end_date.as_str() < today;
    definition.on && !ended && definition.inventory() != 0
}

async fn send_coupon_list(mut call: Call) -> Result<Answer, Failure> {
    let level_ids = call.form.ints("level_ids", MAX_ID);
    let slice = call.form.slice();
    call.checked()?;
    let today = call.meta.at.day.to_string();
    let fits = |definition: &DefinitionRow| {
        let levels = definition.level_ids.split(',').filter_map(|id| id.parse().ok());
        let limited = definition.issue_limit == 4 && !level_ids.is_empty();
        can_be_sent(definition, &today)
            && (!limited || levels.into_iter().any(|id: i64| level_ids.contains(&id)))
    };
    // Which fit is not for SQL to say; a merchant's definitions are few.
    let all = pages::definitions(call.app.ledger.store(), pages::Slice::All).await?;
    let page = slice.cut(all.into_iter().filter(fits), |definition| definition.id);
    Answer::new(&page.iter().map(definition_json).collect::<Vec<_>>())
}

async fn send_user_coupon(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let today = call.meta.at.day.to_string();
    let all = pages::definitions(call.app.ledger.store(), pages::Slice::All).await?;
    let row = |definition: DefinitionRow| {
        json!({
            "id": definition.id,
            "type": definition.kind,
            "title": definition.title,
            "inventory": definition.inventory(),
            "code": 0,
            "deduction": money_text(definition.deduction_cents),
        })
    };
    let fitting = all.into_iter().filter(|definition| can_be_sent(definition, &today));
    Answer::new(&fitting.map(row).collect::<Vec<_>>())
}

async fn send_member_coupon_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let (coupon, _) = call.app.ledger.load::<Coupon>(id).await?;
    let issue = coupon.issue.as_ref().ok_or(Refusal::NoSuchCoupon)?;
    let ledger = &call.app.ledger;
    let member =
        directory::member(ledger.store(), ledger.seal(), coupon.holder_id).await?.unwrap_or_default();
    let people = (member.erased_at_ms == 0).then_some(Person::Member(coupon.holder_id));
    let answer = Answer::new(&json!({
        "id": id,
        "member_id": coupon.holder_id,
        "coupon_id": issue.definition_id,
        "start_date": issue.start_date.to_string(),
        "end_date": issue.end_date.to_string(),
        "memberInfo": {
            "member_name": member.member_name,
            "phone": member.phone,
            "member_card": member.member_card,
            "nickname": member.nickname,
        },
        "couponInfo": {
            "title": issue.terms.title,
            "type": kind_number(issue.terms.kind),
            "code": 0,
            "use_week": list_text(&issue.terms.weekdays),
        },
    }))?;
    Ok(answer.showing(people))
}

async fn recall(call: Call) -> Result<Answer, Failure> {
    start(call, |coupons| Work::Recall { coupons }).await
}

async fn extend(mut call: Call) -> Result<Answer, Failure> {
    let end_date = call.form.day("end_date");
    start(call, |coupons| Work::Extend { coupons, end_date }).await
}

/// Starts what is to be done to the coupons of a definition, or of one send.
async fn start(mut call: Call, work: impl FnOnce(Coupons) -> Work) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let reason = form.text("reason", 200);
    let confirmed = form.flag("confirm", false);
    let definition_id = form.optional_int("coupon_id", 0, MAX_ID).filter(|id| *id != 0);
    let send_id = form.optional_int("send_id", 0, MAX_ID).filter(|id| *id != 0);
    let coupons = match (definition_id, send_id) {
        (Some(_), Some(_)) => {
            form.wrong("send_id", Wrong::NotTogetherWith("coupon_id"));
            Coupons::OfSend(0)
        }
        (Some(id), None) => Coupons::OfDefinition(id),
        (None, Some(id)) => Coupons::OfSend(id),
        (None, None) => {
            // One of the two is needed; a field that is wrong or missing is told first.
            if !form.has_errors() {
                form.wrong("coupon_id", Wrong::Required);
            }
            Coupons::OfDefinition(0)
        }
    };
    call.checked()?;
    let work = work(coupons);
    let above = call.app.options.approvals.recalls;
    let done = begin(&call, work, reason, (confirmed, above)).await?;
    Answer::of(&done, &json!({"id": done.id, "nums": done.state.targeted}))
}

async fn change(mut call: Call, command: impl FnOnce(i64) -> JobCommand) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let done = call.execute::<Job>(id, &command(call.caller.employee_id())).await?;
    Answer::of(&done, &json!({"id": done.id, "state": done.state.state.number()}))
}
