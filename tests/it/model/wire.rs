//! The shape of requests and answers.

use serde_json::Value;

use super::{Check, Refusal};

pub(super) fn unix_seconds(at_ms: i64) -> i64 {
    at_ms.div_euclid(1000)
}

/// "data null or an object with what the client needs to act": null but for 3001 and 7001.
pub(super) fn refusal(code: i64) -> Refusal {
    Refusal { code, data: Value::Null }
}

pub(super) fn ensure(holds: bool, code: i64) -> Check {
    if holds { Ok(()) } else { Err(refusal(code)) }
}

/// The rows of the page that the body asks for, of rows that come newest id first.
pub(super) fn page_of(body: &Value, rows: Vec<Value>) -> Vec<Value> {
    let limit = int_or(body, "limit", 10).max(0) as usize;
    if let Some(before_id) = optional_int(body, "before_id") {
        // "before_id instead of page: rows with smaller ids".
        let is_smaller = |row: &Value| int(row, "id") < before_id;
        return rows.into_iter().filter(is_smaller).take(limit).collect();
    }
    let pages_before = (int_or(body, "page", 1) - 1).max(0) as usize;
    rows.into_iter().skip(pages_before.saturating_mul(limit)).take(limit).collect()
}

/// "Where the manual names none, everything comes back unless they are sent."
pub(super) fn page_if_asked(body: &Value, rows: Vec<Value>) -> Vec<Value> {
    let is_asked = ["page", "limit", "before_id"].iter().any(|key| body.get(key).is_some());
    if is_asked { page_of(body, rows) } else { rows }
}

/// "an integer may arrive as a number or as a decimal string".
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) fn optional_int(body: &Value, key: &str) -> Option<i64> {
    body.get(key).and_then(number)
}

pub(super) fn int_or(body: &Value, key: &str, default: i64) -> i64 {
    optional_int(body, key).unwrap_or(default)
}

/// A required integer. The driver always sends it; were it missing, −1 is the id of nothing.
pub(super) fn int(body: &Value, key: &str) -> i64 {
    int_or(body, key, -1)
}

pub(super) fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// A list of objects.
pub(super) fn rows<'a>(body: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    body.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// A list of ids as `1,2,3`, in order and each once; "`0` where a list is meant is the empty list".
pub(super) fn ids(body: &Value, key: &str) -> Vec<i64> {
    let mut ids: Vec<i64> = text(body, key).split(',').filter_map(|id| id.parse().ok()).collect();
    ids.retain(|id| *id != 0);
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// `12.50` in cents; nothing is 0.
pub(super) fn money(amount: &str) -> i64 {
    let (whole, cents) = amount.split_once('.').unwrap_or((amount, "00"));
    whole.parse().map_or(0, |whole: i64| whole * 100) + cents.parse().unwrap_or(0)
}

/// `-12.50`
pub(super) fn cents(amount: i64) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", amount.abs() / 100, amount.abs() % 100)
}

pub(super) fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}

/// The fields of two objects in one.
pub(super) fn merged(mut fields: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}
