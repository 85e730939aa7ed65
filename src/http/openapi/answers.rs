//! What answers hold: the schema of each answer's `data`, and of each refusal.
//!
//! A schema is read off the answer's own example in the tables of routes and resources, whose keys and types a test holds
//! against real answers; [`TOLD`] says by field what an example cannot: what else a field may hold. The tests' harness holds
//! every answer that it gets against these schemas.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::http::routes;
use crate::http::v1::{Method, Resource, Run};
use crate::value::MAX_ID;

/// What a field may hold that its example does not show.
#[derive(Clone, Copy)]
enum Is {
    /// Any text, whatever the example looks like.
    Text,
    /// A day, or empty.
    DayOrNothing,
    /// 0, or a time of day.
    ZeroOrTime,
    /// `1,2,3`, or empty.
    List,
    /// An integer from this one on.
    From(i64),
    /// What the example holds, or null.
    OrNull,
    /// An integer or null.
    IntOrNull,
    /// An integer, below 0 too, or null.
    SignedOrNull,
    /// A number, with a fraction or without, or null.
    NumberOrNull,
    /// A text or null.
    TextOrNull,
    /// An object of any keys.
    Open,
    /// Objects of any keys.
    OpenRows,
    /// An object of any keys, or null.
    OpenOrNull,
    /// An object of any keys with texts.
    Texts,
    /// An object whose keys are codes.
    Counts,
    /// An empty list.
    Nothing,
    /// Anything.
    Anything,
}

/// A field of answers.
struct Told {
    name: &'static str,
    /// The field that stands beside it where it is this one; empty = it is always this one.
    beside: &'static str,
    is: Is,
    about: &'static str,
}

const fn told(name: &'static str, is: Is, about: &'static str) -> Told {
    Told { name, beside: "", is, about }
}

const fn beside(beside: &'static str, name: &'static str, is: Is, about: &'static str) -> Told {
    Told { name, beside, is, about }
}

/// The first that fits a field counts.
const TOLD: &[Told] = &[
    told(
        "give_date",
        Is::ZeroOrTime,
        "when it was put out, as long as the gift is pending, and for ever in the row of a giver whose gift was received; else 0",
    ),
    told(
        "receive_member_info",
        Is::OrNull,
        "who received it, in the giver's row once it was received; else null",
    ),
    told("cancel_time", Is::ZeroOrTime, "when the order was cancelled; else 0"),
    told("inventory", Is::From(-1), "how many are left; -1 = unlimited"),
    told("use_week", Is::List, "weekdays, 1 = Monday to 7 = Sunday; empty = every day"),
    told("shop_ids", Is::List, "ids of shops; 0 or empty = all"),
    told("tag_ids", Is::List, "ids of tags"),
    told("level_ids", Is::List, "ids of levels; 0 or empty = all"),
    told("goods_ids", Is::List, "ids of goods"),
    told("competence_ids", Is::List, "ids of rights"),
    told("use_coupon_list", Is::List, "ids of the member coupons that the order used"),
    beside("order_no", "coupon_list", Is::List, "ids of the member coupons that the order earned"),
    beside("goods_id", "state", Is::From(-1), "1 sold, 0 given free, -1 returned"),
    beside("validity_type", "start_date", Is::DayOrNothing, "the first day of validity_type 1; else empty"),
    beside("validity_type", "end_date", Is::DayOrNothing, "the last day of validity_type 1; else empty"),
    told(
        "start_num",
        Is::Text,
        "validity_type 1: the first day; 2: how many days after receipt it starts; 3: empty",
    ),
    told("end_num", Is::Text, "validity_type 1: the last day; 2: for how many days it is valid; 3: empty"),
    beside("send_id", "end_date", Is::DayOrNothing, "the new last day, of an extension; else empty"),
    beside("refused_num", "refused", Is::Counts, "how many were refused, by code"),
    told("birthday", Is::DayOrNothing, "empty where it is not known"),
    told("card_end", Is::DayOrNothing, "the card's last day; empty where there is none"),
    told("entry_date", Is::DayOrNothing, "the first day; empty where it is not known"),
    told("leave_date", Is::DayOrNothing, "the last day; empty where it is not known"),
    beside(
        "give_member_info",
        "lapse_date",
        Is::Text,
        "until when it can be received, or was pending; empty once it was received",
    ),
    told("phone", Is::Text, ""),
    told("member_card", Is::Text, ""),
    told("order_no", Is::Text, "the caller's own number; empty where there is none"),
    told("powerList", Is::Nothing, ""),
    told("payload", Is::Open, "the event as docs/events.md has it"),
    told("metadata", Is::Texts, "who, through what, in which request"),
    beside("words", "caller", Is::TextOrNull, "who caused it"),
    beside("words", "request_id", Is::TextOrNull, "the request that it came with"),
    told("idempotency_key", Is::TextOrNull, "the key under which it was asked for"),
    told("causation_id", Is::TextOrNull, "what caused it: a request, or a job"),
    told("correlation_id", Is::TextOrNull, "what it all belongs to"),
    beside("words", "before", Is::OpenOrNull, "the stream's state before; null before its first event"),
    beside("words", "after", Is::Open, "the stream's state after"),
    beside("path", "before", Is::Anything, "null = it was not there"),
    beside("path", "after", Is::Anything, "null = it is there no more"),
    told("accepted_until_ms", Is::IntOrNull, "Unix milliseconds; null = without an end"),
    told("expires_at_ms", Is::IntOrNull, "Unix milliseconds; null = until it is revoked"),
    beside("issued_at_ms", "revoked_at_ms", Is::IntOrNull, "Unix milliseconds; null = it is not revoked"),
    beside("registered_at_ms", "revoked_at_ms", Is::IntOrNull, "Unix milliseconds; null = it is not revoked"),
    told("last_used_at_ms", Is::IntOrNull, "Unix milliseconds; null = never"),
    beside("rights", "key", Is::TextOrNull, "shown once; null when it is asked for again"),
    beside("wrong", "key", Is::Open, "the row's key, by column"),
    beside("sheet", "bytes", Is::IntOrNull, "the file's size; null = it is not there yet"),
    beside("sheet", "sha256", Is::TextOrNull, "the file's digest; null = it is not there yet"),
    beside("sheet", "reason", Is::TextOrNull, "why it failed, or why its file is gone"),
    beside("sheet", "ended_at_ms", Is::IntOrNull, "Unix milliseconds; null = it is under way"),
    beside(
        "sheet",
        "lapses_at_ms",
        Is::IntOrNull,
        "when its file goes, Unix milliseconds; null = there is none",
    ),
    beside("sheet", "server", Is::TextOrNull, "which server makes it or has it; null = none yet"),
    beside(
        "sheet",
        "file",
        Is::TextOrNull,
        "a link that downloads it, for an hour; null = there is no file, or it holds people's data and another asked for it",
    ),
    beside("column", "old", Is::Anything, "what stood there"),
    beside("column", "new", Is::Anything, "what stands there now"),
    told(
        "lag",
        Is::IntOrNull,
        "how far it is behind, in seconds; of one that follows positions, in events; null = it has never begun",
    ),
    beside(
        "reversed",
        "num",
        Is::From(-MAX_ID),
        "redeemed − reversed: below 0 where more was taken back than used",
    ),
    beside(
        "redeemed",
        "used",
        Is::From(-MAX_ID),
        "redeemed − reversed: below 0 where more was taken back than used",
    ),
    beside(
        "redeemed",
        "expired",
        Is::SignedOrNull,
        "below 0 where ends that had passed were moved; null where told by shop or employee",
    ),
    beside("redeemed", "expired_money", Is::OrNull, "null where told by shop or employee"),
    beside("redeemed", "outstanding", Is::SignedOrNull, "null where told by shop or employee"),
    beside("redeemed", "outstanding_money", Is::OrNull, "null where told by shop or employee"),
    told("average_score", Is::NumberOrNull, "null where nothing was reviewed"),
    told("redemption_rate", Is::NumberOrNull, "null where nothing was issued"),
    told("median_days", Is::IntOrNull, "null where nothing was used"),
    beside(
        "grain",
        "rows",
        Is::OpenRows,
        "first and last day of the period, what it is told apart by, and each measure",
    ),
    beside("columns", "position", Is::IntOrNull, "null = it has not begun to be counted"),
    beside("above", "nums", Is::From(-1), "how many it is about; -1 = unlimited"),
    told("act", Is::Open, "what is proposed, as docs/events.md has it"),
    told("failing", Is::OpenOrNull, "since when, how often and why the next event is not taken; else null"),
    beside(
        "generation",
        "position",
        Is::IntOrNull,
        "all up to it was taken or given up; null = from where is not said yet",
    ),
    told("failed", Is::TextOrNull, "why it stopped; else null"),
    told("report", Is::OrNull, "what it came to; null until it has come to something"),
];

/// Routes whose whole `data` may be null.
const MAY_BE_NULL: &[&str] = &["/order/getorderelecoupon"];

/// What some refusals carry in `data`, by code; all others carry null.
const CARRIED: &[(i64, &str)] = &[
    (WAITS, r#"{"approval_id":3,"id":7,"nums":2000,"above":1000,"lapse_date":1543631501}"#),
    (3001, r#"{"id":2,"create_date":1543290243,"shop_id":1}"#),
    (7001, r#"{"attempts_left":3}"#),
];

/// It waits for somebody else's approval.
const WAITS: i64 = 1004;

/// Routes that answer so where a limit is set, which is off by default.
const MAY_WAIT: &[&str] = &[
    "/sendelecoupon/add",
    "/sendelecoupon/members",
    "/sendelecoupon/pause",
    "/sendelecoupon/resume",
    "/sendelecoupon/cancel",
    "/job/pause",
    "/job/resume",
    "/job/cancel",
    "/elecoupons/add",
    "/elecoupons/inventory",
    "/elecoupons/recall",
    "/elecoupons/extend",
    "/elecoupons/import",
    "/business/addattract",
    "/business/inventory",
];

/// The statuses that an envelope comes with beside 200: name, code, and what it is.
const STATUSES: &[(&str, &str, i64, &str)] = &[
    ("400", "QueryUnreadable", 401, "401: the query cannot be read"),
    ("401", "NotSignedIn", 1001, "1001: no token, not ours, or expired"),
    ("403", "NotAllowed", 1002, "1002: not for this kind of caller"),
    ("408", "BodyTooSlow", 401, "401: the body came too slowly"),
    ("413", "BodyTooLarge", 401, "401: the body is too large"),
    ("415", "BodyOfAnotherType", 401, "401: the body is of another type"),
    ("429", "TooOften", 9001, "9001: asked too often; try again after Retry-After seconds"),
    ("500", "OurFault", 9999, "9999: our fault; the log has more under the request's id"),
    ("503", "NotNow", 9002, "9002: try again with the same key after Retry-After seconds"),
];

/// The responses and the schemas that the document keeps for all of its operations.
pub(super) fn components() -> (Value, Value) {
    let mut responses = Map::new();
    for (_, name, code, about) in STATUSES {
        let data = match code {
            9999 => {
                json!({"type": "object", "properties": {"request_id": {"type": "string"}}, "required": ["request_id"]})
            }
            _ => json!({"type": "null"}),
        };
        let info = if *code == 401 { reasons() } else { json!({"type": "string"}) };
        let schema = envelope(json!({"const": code}), info, data);
        let content = json!({"application/json": {"schema": schema}});
        responses.insert((*name).to_owned(), json!({"description": about, "content": content}));
    }
    let mut schemas = Map::new();
    let wrong = envelope(json!({"const": 401}), reasons(), json!({"type": "null"}));
    schemas.insert("Refused401".to_owned(), wrong);
    for (code, example) in CARRIED {
        // What waits already is told without saying once more where.
        let data = if *code == WAITS { or_null(&read(example)) } else { read(example) };
        let schema = envelope(json!({"const": code}), json!({"type": "string"}), data);
        schemas.insert(format!("Refused{code}"), schema);
    }
    (responses.into(), schemas.into())
}

/// The responses of an operation that answers envelopes, but for 200. What is wrong with a body can be so where there is one,
/// and what is wrong with a query likewise.
pub(super) fn statuses(method: Method) -> Map<String, Value> {
    let can_be = |status: &str| match status {
        "400" => method == Method::Get,
        "408" | "413" | "415" => method != Method::Get,
        _ => true,
    };
    let each = STATUSES.iter().filter(|(status, ..)| can_be(status)).map(|(status, name, ..)| {
        ((*status).to_owned(), json!({"$ref": format!("#/components/responses/{name}")}))
    });
    each.collect()
}

/// The codes that a route's refusals can have.
pub(super) fn codes_of(path: &str, refusals: &[i64]) -> Vec<i64> {
    let mut codes = refusals.to_vec();
    if MAY_WAIT.contains(&path) {
        codes.push(WAITS);
    }
    if path == "/approval/approve" {
        // What was proposed is refused as its own route would refuse it.
        let proposed = routes::ALL.iter().filter(|route| MAY_WAIT.contains(&route.path));
        codes.extend(proposed.flat_map(|route| route.refusals));
        codes.sort_unstable();
        codes.dedup();
    }
    codes
}

/// What comes with status 200: a success, or a refusal with one of these codes.
pub(super) fn answered(data: Option<Value>, refusals: &[i64], writes: bool) -> Value {
    let success = data.map(|data| envelope(json!({"const": 0}), json!({"const": "成功"}), data));
    let mut kinds: Vec<Value> = success.into_iter().collect();
    let component = |code: &i64| json!({"$ref": format!("#/components/schemas/Refused{code}")});
    let is_carried = |code: &i64| CARRIED.iter().any(|(carried, _)| carried == code);
    kinds.push(component(&401));
    kinds.extend(refusals.iter().filter(|code| is_carried(code)).map(component));
    let by_status = |code: &i64| STATUSES.iter().any(|(_, _, by_status, _)| by_status == code);
    let mut others: Vec<i64> =
        refusals.iter().copied().filter(|code| !is_carried(code) && !by_status(code)).collect();
    if writes {
        others.extend([6001, 6003]);
    }
    if !others.is_empty() {
        kinds.push(envelope(json!({"enum": others}), json!({"type": "string"}), json!({"type": "null"})));
    }
    json!({"oneOf": kinds})
}

/// Any refusal that carries nothing.
pub(super) fn refused() -> Value {
    let code = json!({"type": "integer", "minimum": 1});
    envelope(code, json!({"type": "string"}), json!({"type": "null"}))
}

/// The schema of a route's `data`.
pub(super) fn of_route(path: &str, example: &str) -> Value {
    let schema = read(example);
    if MAY_BE_NULL.contains(&path) { or_null(&schema) } else { schema }
}

/// The schema of what a resource answers, or of each of its lines.
pub(super) fn of_resource(resource: &Resource) -> Value {
    let shown_as = |path: &str| {
        let route = routes::ALL.iter().find(|route| route.path == path);
        route.map(|route| of_route(route.path, route.data)).unwrap_or_default()
    };
    let mut schema = read(resource.example);
    let data = match resource.run {
        Run::CouponAsOf => shown_as("/client/couponinfo"),
        Run::MemberAsOf => shown_as("/client/couponlist"),
        Run::DefinitionAsOf => shown_as("/elecoupons/info"),
        Run::RouteAsOf => json!({"description": "the data that the route answers"}),
        _ => return schema,
    };
    if let Some(place) = schema.pointer_mut("/properties/data") {
        *place = data;
    }
    schema
}

/// A refusal of a resource (RFC 9457).
pub(super) fn problem(status: u16, about: &str) -> Value {
    let schema = object(&[
        ("type", json!({"const": "about:blank"})),
        ("title", json!({"type": "string"})),
        ("status", json!({"const": status})),
        ("code", json!({"type": "integer"})),
        (
            "info",
            json!({
                "type": ["string", "object"], "additionalProperties": {"type": "string"},
                "description": "a text; with code 401 an object {field: why}",
            }),
        ),
        ("data", json!({"type": ["object", "null"], "additionalProperties": true})),
    ]);
    json!({"description": about, "content": {"application/problem+json": {"schema": schema}}})
}

/// The part of docs/api.md that says what the examples do not.
pub(super) fn write_markdown(text: &mut String) {
    text.push_str("\n## Fields of answers\n\n");
    text.push_str("What a field may hold that the examples of the routes do not show.\n\n| field | holds |\n|---|---|\n");
    for told in TOLD.iter().filter(|told| !told.about.is_empty()) {
        let place =
            if told.beside.is_empty() { String::new() } else { format!(", beside `{}`", told.beside) };
        let _ = writeln!(text, "| `{}`{place} | {} |", told.name, told.about);
    }
}

fn envelope(code: Value, info: Value, data: Value) -> Value {
    object(&[("code", code), ("info", info), ("data", data)])
}

fn object(fields: &[(&str, Value)]) -> Value {
    let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
    let fields: Map<_, _> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "properties": fields, "required": names})
}

/// Field by field what is wrong.
fn reasons() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

fn read(example: &str) -> Value {
    schema(&serde_json::from_str(example).unwrap_or_default())
}

/// The schema of which this is an example.
fn schema(example: &Value) -> Value {
    match example {
        Value::Null => json!({"type": "null"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(_) => integer(0),
        Value::String(text) => text_like(text),
        Value::Array(rows) => match rows.first() {
            Some(row) => json!({"type": "array", "items": schema(row)}),
            None => json!({"type": "array", "items": {}, "maxItems": 0}),
        },
        Value::Object(fields) => {
            let all: Vec<_> =
                fields.iter().map(|(name, value)| (name.as_str(), field(fields, name, value))).collect();
            object(&all)
        }
    }
}

fn field(all: &Map<String, Value>, name: &str, example: &Value) -> Value {
    let fits = |told: &&Told| {
        // A list of rows that is called like a list of ids is what it looks like.
        let looks = !matches!(told.is, Is::List | Is::Counts) || !example.is_array();
        told.name == name && (told.beside.is_empty() || all.contains_key(told.beside)) && looks
    };
    let Some(told) = TOLD.iter().find(fits) else {
        return match example {
            Value::Number(_) if name.starts_with("is_") => json!({"type": "integer", "enum": [0, 1]}),
            _ => schema(example),
        };
    };
    let mut schema = match told.is {
        Is::Text => json!({"type": "string"}),
        Is::DayOrNothing => json!({"type": "string", "pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2})?$"}),
        Is::ZeroOrTime => {
            json!({"oneOf": [{"type": "integer", "const": 0}, text_like("2018-11-24 10:31:41")]})
        }
        Is::List => json!({"type": "string", "pattern": "^([0-9]+(,[0-9]+)*)?$"}),
        Is::From(min) => integer(min),
        Is::OrNull => or_null(&schema(example)),
        Is::IntOrNull => {
            json!({"type": ["integer", "null"], "format": "int64", "minimum": 0, "maximum": MAX_ID})
        }
        Is::SignedOrNull => or_null(&integer(-MAX_ID)),
        Is::NumberOrNull => json!({"type": ["number", "null"]}),
        Is::TextOrNull => json!({"type": ["string", "null"]}),
        Is::Open => json!({"type": "object", "additionalProperties": true}),
        Is::OpenRows => json!({"type": "array", "items": {"type": "object", "additionalProperties": true}}),
        Is::OpenOrNull => json!({"type": ["object", "null"], "additionalProperties": true}),
        Is::Texts => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Is::Counts => json!({"type": "object", "additionalProperties": integer(0)}),
        Is::Nothing => json!({"type": "array", "items": {}, "maxItems": 0}),
        Is::Anything => json!({}),
    };
    if let (false, Value::Object(schema)) = (told.about.is_empty(), &mut schema) {
        schema.insert("description".to_owned(), told.about.into());
    }
    schema
}

fn integer(min: i64) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": min, "maximum": MAX_ID})
}

fn or_null(schema: &Value) -> Value {
    json!({"oneOf": [schema, {"type": "null"}]})
}

/// A text that looks like a day, a time, money or a number is always one; any other is any text.
fn text_like(text: &str) -> Value {
    let looks: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let pattern = match looks.as_str() {
        "0000-00-00" => return json!({"type": "string", "format": "date"}),
        "0000-00-00 00:00:00" => "^[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$",
        "0000年00月00 00:00:00" => "^[0-9]{4}年[0-9]{2}月[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}$",
        digits if !digits.is_empty() && digits.bytes().all(|byte| byte == b'0') => "^[0-9]+$",
        money
            if money.split_once('.').is_some_and(|(whole, cents)| {
                !whole.is_empty() && whole.bytes().all(|byte| byte == b'0') && cents == "00"
            }) =>
        {
            "^-?[0-9]+\\.[0-9]{2}$"
        }
        _ => return json!({"type": "string"}),
    };
    json!({"type": "string", "pattern": pattern})
}
