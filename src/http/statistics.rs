//! The manual's statistics (統計): by definition, by shop, by what was redeemed there, and the uses themselves; and, ours, the
//! same figures by employee, partner, source and day.
//!
//! All of them are read from one follower's tables, so that a list and the figure above it cannot disagree. `as-of-position`
//! says which events they count.

use std::collections::{BTreeSet, HashMap};

use chrono::{Days, NaiveDate};
use serde_json::{Map, Value as Json, json};

use super::{Answer, Call, Failure};
use crate::access::Resource;
use crate::clock::{day_number, day_text};
use crate::read_model::pages::{self, Slice};
use crate::read_model::partners;
use crate::refusal::Wrong;
use crate::statistics::ask::{self, Line, Measure, Question, Value};
use crate::statistics::period::{Grain, Period, periods};
use crate::statistics::uses::{self, Use, UsesOf};
use crate::store::{Store, StoreError};
use crate::value::{MAX_ID, money_text};

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// `/statistics/elecoupon`
    ByDefinition,
    /// `/statistics/elecouponby`
    By,
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
        Statistics::By => by(call).await,
        Statistics::ByShop => by_shop(call).await,
        Statistics::OfShop => of_shop(call).await,
        Statistics::Uses => uses(call).await,
    }
}

/// The first and the last day that are asked for.
fn first_and_last(call: &mut Call) -> (Option<NaiveDate>, Option<NaiveDate>) {
    let (start, end) = (call.form.optional_day("start"), call.form.optional_day("end"));
    if start.zip(end).is_some_and(|(start, end)| end < start) {
        call.form.wrong("end", Wrong::EndBeforeStart);
    }
    (start, end)
}

/// The days between, both ends in them; without any, all there are.
fn period((start, end): (Option<NaiveDate>, Option<NaiveDate>)) -> Period {
    let number = |day: Option<NaiveDate>, other: i64| day.map_or(other, day_number);
    Period { start: number(start, 0), end: number(end, 99_991_231) }
}

/// What is meant of all there is: a field of these pages, what it is called in the statistics, and its greatest number.
type Filter = (&'static str, &'static str, i64);

const OF_COUPON: Filter = ("coupon_id", "definition_id", MAX_ID);
const IN_SHOP: Filter = ("shop_id", "shop_id", MAX_ID);
const BY_USER: Filter = ("user_id", "employee_id", MAX_ID);
const OF_BUSINESS: Filter = ("business_id", "partner_id", MAX_ID);
const COME: Filter = ("come", "source", 9);

/// What a question is about.
type Only = Vec<(&'static str, Vec<i64>)>;

/// Only what these fields say; one that is missing or empty says nothing.
fn only(call: &mut Call, filters: &[Filter]) -> Only {
    let mut one =
        |(field, column, most): &Filter| Some((*column, vec![call.form.int_or_blank(field, 0, *most)?]));
    filters.iter().filter_map(&mut one).collect()
}

/// A figure as the manual's pages write it.
fn json_of(value: Value) -> Json {
    match value {
        Value::Whole(number) => number.into(),
        Value::Part(part) => part.into(),
        Value::None => Json::Null,
    }
}

/// Figures of what was issued and used, with their names there: money as the manual writes it.
const FIGURES: [(&str, &str); 21] = [
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

/// Figures of a shop.
const OF_SHOP: [(&str, &str); 11] = [
    ("num", "used"),
    ("money", "used_cents"),
    ("redeemed", "redeemed"),
    ("reversed", "reversed"),
    ("redeemed_money", "redeemed_cents"),
    ("reversed_money", "reversed_cents"),
    ("members", "members"),
    ("returning_members", "returning_members"),
    ("reviewed", "reviewed"),
    ("average_score", "average_score"),
    ("median_days", "median_days"),
];

/// Asks for figures; those that have no meaning there are not asked for. Where members are counted one by one, questions take
/// turns, as those of /v1 do.
async fn ask_for(
    figures: &[(&str, &str)],
    call: &Call,
    mut question: Question,
) -> Result<(Question, ask::Answer), Failure> {
    let measures = figures.iter().filter_map(|(_, measure)| Measure::named(measure));
    question.measures = measures.filter(|measure| question.has_meaning(*measure)).collect();
    let _turn = if question.counts_uses_one_by_one() {
        Some(call.app.asking.clone().acquire_owned().await.map_err(|_| Failure::TooSlow)?)
    } else {
        None
    };
    let answer = ask::ask(call.app.ledger.store(), &question).await?;
    Ok((question, answer))
}

/// Puts figures into a row, null where they have no meaning.
fn put(row: &mut Map<String, Json>, figures: &[(&str, &str)], question: &Question, values: &[Value]) {
    for (name, measure) in figures {
        let asked = question.measures.iter().position(|asked| asked.name() == *measure);
        let value = match asked.and_then(|place| values.get(place)) {
            Some(Value::Whole(cents)) if measure.ends_with("_cents") => money_text(*cents).into(),
            value => value.map_or(Json::Null, |value| json_of(*value)),
        };
        row.insert((*name).to_owned(), value);
    }
}

/// The lines of an answer in one period, by the one thing that they are told apart by.
fn by_id(answer: &ask::Answer) -> HashMap<i64, &Line> {
    answer.lines.iter().filter_map(|line| Some((*line.key.first()?, line))).collect()
}

async fn by_definition(mut call: Call) -> Result<Answer, Failure> {
    let period = period(first_and_last(&mut call));
    let mut only = only(&mut call, &[BY_USER, OF_BUSINESS, COME]);
    let slice = call.form.slice();
    call.checked()?;
    let store = call.app.ledger.store();
    let definitions = pages::definitions(store, slice).await?;
    only.push(("definition_id", definitions.iter().map(|definition| definition.id).collect()));
    let question = Question { by: vec!["definition_id"], only, periods: vec![period], ..Question::default() };
    let (question, answer) = ask_for(&FIGURES, &call, question).await?;
    let found = by_id(&answer);
    let nothing = ask::nothing(&question);
    let row = |definition: &pages::DefinitionRow| {
        let mut row = Map::new();
        row.insert("id".to_owned(), definition.id.into());
        row.insert("title".to_owned(), definition.title.as_str().into());
        row.insert("type".to_owned(), definition.kind.into());
        row.insert("deduction".to_owned(), money_text(definition.deduction_cents).into());
        put(&mut row, &FIGURES, &question, found.get(&definition.id).map_or(&nothing, |line| &line.values));
        row
    };
    Ok(Answer::new(&definitions.iter().map(row).collect::<Vec<_>>())?.counted_to(answer.as_of.position))
}

/// What a page's figures can be told apart by, and what that is called in the statistics.
const BY: [(&str, &str); 5] = [
    ("shop", "shop_id"),
    ("user", "employee_id"),
    ("business", "partner_id"),
    ("come", "source"),
    ("day", "day"),
];

/// The names of that.
pub(super) const BY_NAMES: &[&str] = &["shop", "user", "business", "come", "day"];

/// The most days of one question.
const MAX_DAYS: usize = 1_000;

/// Days that are told where nobody says since which.
const DAYS: u64 = 30;

async fn by(mut call: Call) -> Result<Answer, Failure> {
    let (first, last) = first_and_last(&mut call);
    let by = call.form.word("by", BY_NAMES);
    let only = only(&mut call, &[OF_COUPON, IN_SHOP, BY_USER, OF_BUSINESS, COME]);
    let slice = call.form.slice();
    let column = BY.iter().find(|(name, _)| *name == by).map_or("", |(_, column)| column);
    let days = if column == "day" { days_of(&mut call, (first, last)) } else { Vec::new() };
    call.checked()?;
    let question = Question { only, ..Question::default() };
    if column == "day" {
        return by_day(&call, question, days, slice).await;
    }
    let question = Question { by: vec![column], periods: vec![period((first, last))], ..question };
    let store = call.app.ledger.store();
    let (question, answer) = ask_for(&FIGURES, &call, question).await?;
    let id = |line: &&Line| line.key.first().copied().unwrap_or_default();
    let mut rows = Vec::new();
    for line in slice.cut(answer.lines.iter().rev(), id) {
        let id = id(&line);
        let place = match column {
            "shop_id" | "partner_id" => pages::place(store, id).await?,
            _ => None,
        };
        let mut row = Map::new();
        row.insert("id".to_owned(), id.into());
        row.insert("name".to_owned(), place.map(|place| place.name).unwrap_or_default().into());
        put(&mut row, &FIGURES, &question, &line.values);
        rows.push(row);
    }
    Ok(Answer::new(&rows)?.counted_to(answer.as_of.position))
}

/// Each day that is asked for, newest first.
fn days_of(call: &mut Call, (first, last): (Option<NaiveDate>, Option<NaiveDate>)) -> Vec<Period> {
    let last = last.unwrap_or_else(|| first.unwrap_or_default().max(call.meta.at.day));
    let first = first.unwrap_or_else(|| last.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(last));
    let Some(mut days) = periods((first, last), Grain::Day, MAX_DAYS) else {
        call.form.wrong("start", Wrong::TooMany { max: MAX_DAYS });
        return Vec::new();
    };
    days.reverse();
    days
}

/// A row for each day, whether or not something happened on it.
async fn by_day(call: &Call, question: Question, days: Vec<Period>, slice: Slice) -> Result<Answer, Failure> {
    let days = slice.cut(days.into_iter(), |day| day.start);
    if days.is_empty() {
        let (as_of, _) = ask::tables(call.app.ledger.store()).await?;
        return Ok(Answer::new(&Vec::<Json>::new())?.counted_to(as_of.position));
    }
    let periods = days.iter().rev().copied().collect();
    let (question, answer) = ask_for(&FIGURES, call, Question { periods, ..question }).await?;
    let found: HashMap<usize, &Line> = answer.lines.iter().map(|line| (line.period, line)).collect();
    let nothing = ask::nothing(&question);
    let row = |(place, day): (usize, &Period)| {
        let mut row = Map::new();
        row.insert("id".to_owned(), day.start.into());
        row.insert("name".to_owned(), day_text(day.start).into());
        let line = found.get(&(days.len() - 1 - place));
        put(&mut row, &FIGURES, &question, line.map_or(&nothing, |line| &line.values));
        row
    };
    let rows: Vec<_> = days.iter().enumerate().map(row).collect();
    Ok(Answer::new(&rows)?.counted_to(answer.as_of.position))
}

/// The shops whose figures the caller may see; None = all.
fn own_shop(call: &Call) -> Option<i64> {
    if call.may(Resource::Whole).is_ok() { None } else { Some(call.who.shop_id.unwrap_or_default()) }
}

async fn by_shop(mut call: Call) -> Result<Answer, Failure> {
    let period = period(first_and_last(&mut call));
    let mut only = only(&mut call, &[OF_COUPON, BY_USER, OF_BUSINESS, COME]);
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let own = own_shop(&call);
    let store = call.app.ledger.store();
    let places = places(store).await?.into_iter().filter(|place| own.is_none_or(|own| own == place.id));
    let places = slice.cut(places, |place| place.id);
    if own.is_some() || slice != Slice::All {
        only.push(("shop_id", places.iter().map(|place| place.id).collect()));
    }
    let question = Question { by: vec!["shop_id"], only, periods: vec![period], ..Question::default() };
    let (question, answer) = ask_for(&OF_SHOP, &call, question).await?;
    let found = by_id(&answer);
    let nothing = ask::nothing(&question);
    let row = |place: &pages::ShopRow| {
        let mut row = Map::new();
        row.insert("shop_id".to_owned(), place.id.into());
        row.insert("shop_name".to_owned(), place.name.as_str().into());
        row.insert("shop_type".to_owned(), i64::from(place.partner).into());
        put(&mut row, &OF_SHOP, &question, found.get(&place.id).map_or(&nothing, |line| &line.values));
        row
    };
    Ok(Answer::new(&places.iter().map(row).collect::<Vec<_>>())?.counted_to(answer.as_of.position))
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
    let period = period(first_and_last(&mut call));
    let shop_id = call.form.int_or_blank("shop_id", 0, MAX_ID);
    let kind = call.form.int("type", 1, 2);
    let partners = call.form.flag("shop_type", false);
    let mut only = only(&mut call, &[BY_USER, OF_BUSINESS, COME]);
    let slice = call.form.slice();
    call.checked()?;
    only.extend([("shop_id", shops(&call, shop_id, partners).await?), ("kind", vec![kind])]);
    let store = call.app.ledger.store();
    let question = Question {
        measures: vec![Measure::Used, Measure::UsedCents, Measure::Sum("redeemed"), Measure::Sum("reversed")],
        by: vec!["definition_id"],
        only,
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
        let number = |place: usize| line.values.get(place).copied().map_or(Json::Null, json_of);
        let cents = if let Some(Value::Whole(cents)) = line.values.get(1) { *cents } else { 0 };
        rows.push(json!({
            "coupon_id": id,
            "coupon_title": definition.as_ref().map(|definition| definition.title.as_str()).unwrap_or_default(),
            "type": kind,
            "deduction": money_text(definition.map_or(0, |definition| definition.deduction_cents)),
            "num": number(0),
            "money": money_text(cents),
            "redeemed": number(2),
            "reversed": number(3),
        }));
    }
    Ok(Answer::new(&rows)?.counted_to(answer.as_of.position))
}

async fn uses(mut call: Call) -> Result<Answer, Failure> {
    let period = period(first_and_last(&mut call));
    let shop_id = call.form.int_or_blank("shop_id", 0, MAX_ID);
    let definition_id = call.form.id("coupon_id");
    let partners = call.form.flag("shop_type", false);
    let mut only = only(&mut call, &[BY_USER, OF_BUSINESS, COME]);
    let slice = call.form.slice();
    call.checked()?;
    only.push(("shop_id", shops(&call, shop_id, partners).await?));
    let ledger = &call.app.ledger;
    let of = UsesOf { definition_id, only, period, slice };
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
