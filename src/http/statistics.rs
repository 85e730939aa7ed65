//! The manual's statistics (統計): by definition, by shop, by what was redeemed there, and the uses themselves.
//!
//! All of them are read from one follower's tables, so that a list and the figure above it cannot disagree. `as-of-position`
//! says which events they count.

use std::collections::{BTreeSet, HashMap};

use chrono::NaiveDate;
use serde_json::{Map, Value as Json, json};

use super::{Answer, Call, Failure};
use crate::access::Resource;
use crate::clock::day_number;
use crate::read_model::pages::{self, Slice};
use crate::read_model::partners;
use crate::refusal::Wrong;
use crate::statistics::ask::{self, Line, Measure, Question, Value};
use crate::statistics::period::Period;
use crate::statistics::uses::{self, Use, UsesOf};
use crate::store::{Store, StoreError};
use crate::value::{MAX_ID, money_text};

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// `/statistics/elecoupon`
    ByDefinition,
    /// `/statistics/audit`
    ByShop,
    /// `/statistics/audittype`
    OfShop,
    /// `/statistics/auditcoupon`
    Uses,
}

pub(super) async fn run(which: Statistics, call: Call) -> Result<Answer, Failure> {
    match which {
        Statistics::ByDefinition => by_definition(call).await,
        Statistics::ByShop => by_shop(call).await,
        Statistics::OfShop => of_shop(call).await,
        Statistics::Uses => uses(call).await,
    }
}

/// The days that are asked for, both ends in them; without any, all there are.
fn days(call: &mut Call) -> Period {
    let (start, end) = (call.form.optional_day("start"), call.form.optional_day("end"));
    if start.zip(end).is_some_and(|(start, end)| end < start) {
        call.form.wrong("end", Wrong::EndBeforeStart);
    }
    let number = |day: Option<NaiveDate>, other: i64| day.map_or(other, day_number);
    Period { start: number(start, 0), end: number(end, 99_991_231) }
}

/// A figure as the manual's pages write it.
fn json_of(value: Value) -> Json {
    match value {
        Value::Whole(number) => number.into(),
        Value::Part(part) => part.into(),
        Value::None => Json::Null,
    }
}

/// Figures of definitions, with their names there: money as the manual writes it.
const OF_DEFINITION: [(&str, &str); 21] = [
    ("issued", "issued"),
    ("claimed", "claimed"),
    ("viewed", "viewed"),
    ("given", "given"),
    ("received", "received"),
    ("redeemed", "redeemed"),
    ("reversed", "reversed"),
    ("used", "used"),
    ("expired", "expired"),
    ("voided", "voided"),
    ("reviewed", "reviewed"),
    ("average_score", "average_score"),
    ("issued_money", "issued_cents"),
    ("used_money", "used_cents"),
    ("expired_money", "expired_cents"),
    ("outstanding", "outstanding"),
    ("outstanding_money", "outstanding_cents"),
    ("redemption_rate", "redemption_rate"),
    ("median_days", "median_days"),
    ("members", "members"),
    ("returning_members", "returning_members"),
];

async fn by_definition(mut call: Call) -> Result<Answer, Failure> {
    let period = days(&mut call);
    let slice = call.form.slice();
    call.checked()?;
    let store = call.app.ledger.store();
    let definitions = pages::definitions(store, slice).await?;
    let ids: Vec<i64> = definitions.iter().map(|definition| definition.id).collect();
    let question = Question {
        measures: OF_DEFINITION.iter().filter_map(|(_, measure)| Measure::named(measure)).collect(),
        by: vec!["definition_id"],
        only: vec![("definition_id", ids)],
        periods: vec![period],
    };
    let answer = ask::ask(store, &question).await?;
    let found: HashMap<i64, &Line> =
        answer.lines.iter().filter_map(|line| Some((*line.key.first()?, line))).collect();
    let nothing = ask::nothing(&question);
    let row = |definition: &pages::DefinitionRow| {
        let mut row = Map::new();
        row.insert("id".to_owned(), definition.id.into());
        row.insert("title".to_owned(), definition.title.as_str().into());
        row.insert("type".to_owned(), definition.kind.into());
        row.insert("deduction".to_owned(), money_text(definition.deduction_cents).into());
        let values = found.get(&definition.id).map_or(&nothing, |line| &line.values);
        for ((name, _), value) in OF_DEFINITION.iter().zip(values) {
            let value = match value {
                Value::Whole(cents) if name.ends_with("_money") => money_text(*cents).into(),
                value => json_of(*value),
            };
            row.insert((*name).to_owned(), value);
        }
        row
    };
    Ok(Answer::new(&definitions.iter().map(row).collect::<Vec<_>>())?.counted_to(answer.as_of.position))
}

/// The shops whose figures the caller may see; None = all.
fn own_shop(call: &Call) -> Option<i64> {
    if call.may(Resource::Whole).is_ok() { None } else { Some(call.who.shop_id.unwrap_or_default()) }
}

async fn by_shop(mut call: Call) -> Result<Answer, Failure> {
    let period = days(&mut call);
    call.checked()?;
    let own = own_shop(&call);
    let store = call.app.ledger.store();
    let question = Question {
        measures: [
            Measure::Used,
            Measure::UsedCents,
            Measure::Sum("redeemed"),
            Measure::Sum("reversed"),
            Measure::Members,
        ]
        .into(),
        by: vec!["shop_id"],
        only: own.iter().map(|shop| ("shop_id", vec![*shop])).collect(),
        periods: vec![period],
    };
    let answer = ask::ask(store, &question).await?;
    let found: HashMap<i64, &Line> =
        answer.lines.iter().filter_map(|line| Some((*line.key.first()?, line))).collect();
    let nothing = ask::nothing(&question);
    let places = places(store).await?;
    let places = places.into_iter().filter(|place| own.is_none_or(|own| own == place.id));
    let row = |place: pages::ShopRow| {
        let values = found.get(&place.id).map_or(&nothing, |line| &line.values);
        let value = |at: usize| values.get(at).copied().unwrap_or(Value::None);
        let cents = if let Value::Whole(cents) = value(1) { cents } else { 0 };
        json!({
            "shop_id": place.id,
            "shop_name": place.name,
            "shop_type": i64::from(place.partner),
            "num": json_of(value(0)),
            "money": money_text(cents),
            "redeemed": json_of(value(2)),
            "reversed": json_of(value(3)),
            "members": json_of(value(4)),
        })
    };
    Ok(Answer::new(&places.map(row).collect::<Vec<_>>())?.counted_to(answer.as_of.position))
}

/// Every shop and every partner, newest id first: they share one sequence.
async fn places(store: &Store) -> Result<Vec<pages::ShopRow>, StoreError> {
    let mut places = pages::shops(store, Slice::All).await?;
    places.extend(partners::partners(store, Slice::All).await?);
    places.sort_by_key(|place| std::cmp::Reverse(place.id));
    Ok(places)
}

/// Which shops' uses are meant: one, or all of a kind; of a bought coupon there is no shop.
async fn shops(call: &Call, asked: Option<i64>, partners: bool) -> Result<Vec<i64>, Failure> {
    if let Some(shop_id) = asked {
        call.may(Resource::InShop(shop_id))?;
        return Ok(vec![shop_id]);
    }
    if let Some(own) = own_shop(call) {
        return Ok(vec![own]);
    }
    let places = places(call.app.ledger.store()).await?;
    Ok(places.iter().filter(|place| place.partner == partners).map(|place| place.id).collect())
}

async fn of_shop(mut call: Call) -> Result<Answer, Failure> {
    let period = days(&mut call);
    let shop_id = call.form.int_or_blank("shop_id", 0, MAX_ID);
    let kind = call.form.int("type", 1, 2);
    let partners = call.form.flag("shop_type", false);
    let slice = call.form.slice();
    call.checked()?;
    let shops = shops(&call, shop_id, partners).await?;
    let store = call.app.ledger.store();
    let question = Question {
        measures: vec![Measure::Used, Measure::UsedCents],
        by: vec!["definition_id"],
        only: vec![("shop_id", shops), ("kind", vec![kind])],
        periods: vec![period],
    };
    let answer = ask::ask(store, &question).await?;
    // One whose every use was taken back has none.
    let used = answer.lines.iter().rev().filter(|line| line.values.first() != Some(&Value::Whole(0)));
    let lines = slice.cut(used, |line| line.key.first().copied().unwrap_or_default());
    let mut rows = Vec::with_capacity(lines.len());
    for line in lines {
        let id = line.key.first().copied().unwrap_or_default();
        let definition = pages::definition(store, id).await?;
        let cents = if let Some(Value::Whole(cents)) = line.values.get(1) { *cents } else { 0 };
        rows.push(json!({
            "coupon_id": id,
            "coupon_title": definition.as_ref().map(|definition| definition.title.as_str()).unwrap_or_default(),
            "type": kind,
            "deduction": money_text(definition.map_or(0, |definition| definition.deduction_cents)),
            "num": line.values.first().copied().map_or(Json::Null, json_of),
            "money": money_text(cents),
        }));
    }
    Ok(Answer::new(&rows)?.counted_to(answer.as_of.position))
}

async fn uses(mut call: Call) -> Result<Answer, Failure> {
    let period = days(&mut call);
    let shop_id = call.form.int_or_blank("shop_id", 0, MAX_ID);
    let definition_id = call.form.id("coupon_id");
    let partners = call.form.flag("shop_type", false);
    let slice: Slice = call.form.slice();
    call.checked()?;
    let shops = shops(&call, shop_id, partners).await?;
    let ledger = &call.app.ledger;
    let of = UsesOf { definition_id, shops, period, slice };
    let (as_of, uses) = uses::uses(ledger.store(), &of).await?;
    let title = pages::definition(ledger.store(), definition_id).await?.map(|definition| definition.title);
    let ids: BTreeSet<i64> = uses.iter().map(|used| used.shop_id).collect();
    let mut names = HashMap::new();
    for id in ids {
        let place = pages::place(ledger.store(), id).await?;
        names.insert(id, place.map(|place| place.name).unwrap_or_default());
    }
    let row = |used: &Use| {
        json!({
            "id": used.redemption_id,
            "mem_coupon_id": used.coupon_id,
            "coupon_id": definition_id,
            "coupon_title": title.as_deref().unwrap_or_default(),
            "deduction": money_text(used.value_cents),
            "create_date": used.used_at_ms / 1_000,
            "shop_id": used.shop_id,
            "shop_name": names.get(&used.shop_id).map(String::as_str).unwrap_or_default(),
            "user_id": used.employee_id,
            "member_id": used.member_id,
            "come": used.source,
        })
    };
    Ok(Answer::new(&uses.iter().map(row).collect::<Vec<_>>())?.counted_to(as_of.position))
}
