//! The API's description, made from the table of routes: `/openapi.json` and docs/api.md.

mod answers;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::routes::{ALL, Field, Holds, Route};
use super::v1::{self, Method, Resource};
use super::wechat::{OPEN, Open};
use crate::access;
use crate::refusal::{ALL_WORDINGS, Language};
use crate::value::MAX_ID;

/// What is read without a table of its own.
struct Page {
    path: &'static str,
    about: &'static str,
    /// By HTTP status what it answers, and in which content types.
    answers: &'static [(&'static str, &'static str, &'static [&'static str])],
}

const TEXT: &[&str] = &["text/plain"];
const HTML: &[&str] = &["text/html"];
const JSON: &[&str] = &["application/json"];
const NO_PROVIDER: (&str, &str, &[&str]) = ("404", "9004: no provider is configured", JSON);
const PROVIDER_AWAY: (&str, &str, &[&str]) = ("503", "9002: the provider does not answer", JSON);

const PAGES: &[Page] = &[
    Page { path: "/healthz", about: "Whether the process runs", answers: &[("200", "it does", TEXT)] },
    Page {
        path: "/readyz",
        about: "Whether it can take commands, and how far each follower is behind",
        answers: &[
            ("200", "it can; a line for each follower", TEXT),
            ("503", "the database is away, or its clock is off", TEXT),
        ],
    },
    Page {
        path: "/metrics",
        about: "Prometheus' text format",
        answers: &[("200", "OK", &["application/openmetrics-text"])],
    },
    Page { path: "/openapi.json", about: "This document", answers: &[("200", "OK", JSON)] },
    Page {
        path: "/oidc/login",
        about: "Sends a browser to the provider of OpenID Connect, to sign in there",
        answers: &[("302", "to the provider", &[]), NO_PROVIDER, PROVIDER_AWAY],
    },
    Page {
        path: "/oidc/callback",
        about: "Where it comes back to: the session is in a cookie then, and /v1/session tells of it",
        answers: &[
            ("200", "signed in, or 1003: refused", &["text/html", "application/json"]),
            NO_PROVIDER,
            PROVIDER_AWAY,
        ],
    },
    Page {
        path: "/setup",
        about: "The page behind a one-time link, where somebody chooses his name and his password",
        answers: &[("200", "OK", HTML)],
    },
];

fn page_operation(page: &Page) -> Value {
    let mut responses = Map::new();
    for (status, about, kinds) in page.answers {
        let schema = |kind: &str| match kind {
            "application/json" if page.path == "/openapi.json" => json!({"schema": {"type": "object"}}),
            "application/json" => json!({"schema": answers::refused()}),
            "text/plain" | "text/html" => json!({"schema": {"type": "string"}}),
            _ => json!({}),
        };
        let content: Map<_, _> = kinds.iter().map(|kind| ((*kind).to_owned(), schema(kind))).collect();
        responses.insert((*status).to_owned(), json!({"description": about, "content": content}));
    }
    let too_often = "9001: asked too often; try again after Retry-After seconds";
    responses.insert("429".to_owned(), json!({"description": too_often}));
    json!({"summary": page.about, "tags": ["operations"], "security": [], "responses": responses})
}

/// The OpenAPI 3.1 document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ALL.iter() {
        paths.insert(route.path.to_owned(), json!({"post": operation(route)}));
    }
    for open in OPEN {
        let method = open.method.name().to_ascii_lowercase();
        paths.insert(open.path.to_owned(), json!({ method: open_operation(open) }));
    }
    for resource in v1::ALL.iter() {
        let method = resource.method.name().to_ascii_lowercase();
        // What follows to the end is one parameter there.
        let path = paths.entry(resource.path.replace("{*", "{")).or_insert_with(|| json!({}));
        path[method.as_str()] = resource_operation(resource);
    }
    for page in PAGES {
        paths.insert(page.path.to_owned(), json!({"get": page_operation(page)}));
    }
    let (responses, schemas) = answers::components();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "coupon-ledger",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every call of the manual is POST, with a JSON or a form body: the same fields either way, \
                integers as numbers or decimal strings, lists as JSON, as a,b,c or as repeated fields. Every answer is \
                {code, info, data}; code 0 is success and info then 成功. Refusals answer HTTP 200 with their code, \
                besides those that HTTP itself knows (401, 403, 404, 405, 408, 413, 415, 429, 503, 500). Dates are the \
                merchant's local time. Answers may get more keys in time: let those be that you do not know.",
        },
        "components": {
            "responses": responses,
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "a token, or a machine's key"},
                "signature": {
                    "type": "apiKey", "in": "header", "name": "x-signature",
                    "description": "a partner's Ed25519 signature, with x-partner-id, x-signature-time and x-signature-nonce",
                },
                "token": {"type": "apiKey", "in": "header", "name": "token"},
                "session": {"type": "apiKey", "in": "cookie", "name": "__Host-session"},
            },
        },
        "security": [{"bearer": []}, {"token": []}, {"session": []}, {"signature": []}],
        "paths": paths,
    })
}

/// The fields of a body, and the names of those that are required.
fn body_schema(fields: &[Field]) -> (Value, Vec<&'static str>) {
    let properties: Map<_, _> = fields.iter().map(|field| (field.name.to_owned(), schema(field))).collect();
    let required: Vec<_> = fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    (json!({"type": "object", "properties": properties, "required": required}), required)
}

/// A route that is asked without a token.
fn open_operation(open: &Open) -> Value {
    let codes = crate::value::list_text(open.refusals).replace(',', " ");
    let mut responses = answers::statuses(open.method);
    let mut operation = Map::new();
    let mut put = |name: &str, value: Value| operation.insert(name.to_owned(), value);
    put("summary", open.about.into());
    put("description", format!("Callers: anybody. Refusals in order of precedence: {codes}.").into());
    put("operationId", open.path.trim_start_matches('/').replace('/', "_").into());
    put("tags", json!(["wechat"]));
    match open.method {
        Method::Post | Method::Delete => {
            let (schema, _) = body_schema(open.fields);
            let example: Value = serde_json::from_str(open.request).unwrap_or_default();
            put("security", json!([{}, {"bearer": []}, {"token": []}]));
            let content = json!({
                "application/json": {"schema": schema, "example": example},
                "application/x-www-form-urlencoded": {"schema": schema},
            });
            put("requestBody", json!({"required": true, "content": content}));
        }
        Method::Get => {
            put("security", json!([]));
            put("parameters", open.fields.iter().map(|field| parameter("query", field)).collect());
            responses.insert("302".to_owned(), json!({"description": open.answer}));
        }
    }
    let data = open.signed_in();
    let schema = answers::answered(data.map(|data| answers::of_route(open.path, data)), open.refusals, false);
    responses.insert("200".to_owned(), answered(&schema, data));
    put("responses", Value::Object(responses));
    Value::Object(operation)
}

/// What comes with status 200, with an example of a success.
fn answered(schema: &Value, data: Option<&str>) -> Value {
    let mut content = Map::from_iter([("schema".to_owned(), schema.clone())]);
    if let Some(data) = data {
        let data: Value = serde_json::from_str(data).unwrap_or_default();
        content.insert("example".to_owned(), json!({"code": 0, "info": "成功", "data": data}));
    }
    json!({
        "description": "success (code 0), or a refusal with its code",
        "content": {"application/json": content},
    })
}

fn operation(route: &Route) -> Value {
    let (schema, required) = body_schema(route.fields);
    let request: Value = serde_json::from_str(route.request).unwrap_or_default();
    let data = answers::of_route(route.path, route.data);
    let mut responses = answers::statuses(Method::Post);
    let codes = answers::codes_of(route.path, route.refusals);
    let answer = answers::answered(Some(data), &codes, route.writes);
    responses.insert("200".to_owned(), answered(&answer, Some(route.data)));
    let mut content = Map::from_iter([
        ("application/json".to_owned(), json!({"schema": schema, "example": request})),
        ("application/x-www-form-urlencoded".to_owned(), json!({"schema": schema})),
    ]);
    if route.takes_a_file() {
        let about = "the file as it is; the other fields stand in the query then";
        let schema = json!({"type": "string", "format": "binary", "description": about});
        content.insert("text/csv".to_owned(), json!({"schema": schema}));
    }
    let mut parameters = vec![json!({
        "name": "Accept-Language", "in": "header", "schema": {"type": "string", "enum": ["zh-TW", "zh-CN", "en"]},
        "description": "the language of a refusal's info; Traditional Chinese by default",
    })];
    if route.writes {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{6,64}$"},
            "description": "the same key with the same body answers the same again, with Idempotency-Replayed: true",
        }));
    }
    let callers = access::names_of_roles(route.path);
    let mut operation = json!({
        "summary": route.about,
        "description": format!("Callers: {}. Refusals in order of precedence: {}.", callers, refusals(route)),
        "operationId": route.path.trim_start_matches('/').replace('/', "_"),
        "tags": [route.path.split('/').nth(1).unwrap_or_default()],
        "parameters": parameters,
        "requestBody": {
            "required": !required.is_empty(),
            "content": content,
        },
        "responses": responses,
    });
    if let (true, Value::Object(operation)) = (access::is_open(route.path), &mut operation) {
        operation.insert("security".to_owned(), json!([]));
    }
    operation
}

/// A field in a path or a query.
fn parameter(place: &str, field: &Field) -> Value {
    json!({
        "name": field.name, "in": place, "required": field.required, "schema": schema(field),
        "description": field.about,
    })
}

fn resource_operation(resource: &Resource) -> Value {
    let parts = resource.parts.iter().map(|field| parameter("path", field));
    let parameters: Vec<_> =
        parts.chain(resource.query.iter().map(|field| parameter("query", field))).collect();
    let callers = access::names_of_roles(&resource.action());
    let read = || -> Value { serde_json::from_str(resource.example).unwrap_or_default() };
    let content = match resource.produces {
        "application/json" => json!({"schema": answers::of_resource(resource), "example": read()}),
        // OpenAPI 3.1 has no word for the lines of a stream; x-line-schema is the schema of each.
        "application/x-ndjson" => json!({
            "schema": {"type": "string", "description": "a JSON object a line"},
            "x-line-schema": answers::of_resource(resource), "example": resource.example,
        }),
        "text/plain; charset=utf-8" => json!({"schema": {"type": "string"}, "example": resource.example}),
        _ => json!({"example": resource.example}),
    };
    let problem = |status: u16, about: &str| (status.to_string(), answers::problem(status, about));
    let mut responses = Map::from_iter([
        problem(400, "401: a parameter is wrong; info says which"),
        problem(401, "1001: no token, not ours, or expired"),
        problem(403, "1002: not for this kind of caller"),
        problem(404, "310, 2001 …: there is no such thing"),
        problem(409, "every other code: it is not possible now"),
        problem(429, "9001: asked too often; try again after Retry-After seconds"),
        problem(500, "9999: our fault; the log has more under the request's id"),
        problem(503, "9002: try again after Retry-After seconds"),
    ]);
    let answer = json!({"description": "OK", "content": {resource.produces: content}});
    responses.insert("200".to_owned(), answer);
    if matches!(resource.run, v1::Run::Statistics(_)) {
        let same = json!({"description": "The client has it already: If-None-Match names its ETag"});
        responses.insert("304".to_owned(), same);
    }
    json!({
        "summary": resource.about,
        "description": format!("Callers: {}.", callers),
        "operationId": operation_id(resource),
        "tags": ["v1"],
        "parameters": parameters,
        "responses": responses,
    })
}

/// Unique among all operations: with its method where a path has several.
fn operation_id(resource: &Resource) -> String {
    let id = resource.path.trim_start_matches('/').replace(['/', '{', '}', '*'], "_");
    match v1::ALL.iter().filter(|other| other.path == resource.path).count() {
        1 => id,
        _ => format!("{}_{id}", resource.method.name().to_ascii_lowercase()),
    }
}

fn refusals(route: &Route) -> String {
    let mut codes = if access::is_open(route.path) { vec![401] } else { vec![1001, 1002, 401] };
    if route.writes {
        codes.push(6001);
    }
    codes.extend(route.refusals);
    crate::value::list_text(&codes).replace(',', " ")
}

fn schema(field: &Field) -> Value {
    let mut schema = match field.holds {
        Holds::Id => json!({"type": "integer", "minimum": 1, "maximum": MAX_ID}),
        Holds::Int(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Holds::IntOrBlank(min, max) => {
            json!({"oneOf": [{"type": "integer", "minimum": min, "maximum": max}, {"const": ""}]})
        }
        Holds::Flag => json!({"type": "integer", "enum": [0, 1]}),
        Holds::Text(max) => json!({"type": "string", "maxLength": max}),
        Holds::Day => json!({"type": "string", "format": "date"}),
        Holds::Money => json!({"type": "string", "pattern": "^[0-9]{1,12}(\\.[0-9]{1,2})?$"}),
        Holds::Ints(_) => json!({"type": "string", "description": "1,2,3"}),
        Holds::DayOrDays => json!({"type": ["string", "integer"]}),
        Holds::Rows => json!({"type": ["array", "string"], "items": {"type": "object"}}),
        Holds::Csv => json!({"type": "string"}),
        Holds::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".to_owned(), field.about.into());
    }
    schema
}

fn holds(field: &Field) -> String {
    match field.holds {
        Holds::Id => "id".to_owned(),
        Holds::Int(min, MAX_ID) => format!("integer from {min}"),
        Holds::Int(min, max) => format!("integer {min} to {max}"),
        Holds::IntOrBlank(min, _) => format!("integer from {min}, or empty"),
        Holds::Flag => "0 or 1".to_owned(),
        Holds::Text(max) => format!("text, at most {max} characters"),
        Holds::Day => "day, `2018-11-01`".to_owned(),
        Holds::Money => "money, `10.00`".to_owned(),
        Holds::Ints(MAX_ID) => "list of ids".to_owned(),
        Holds::Ints(max) => format!("list of integers up to {max}"),
        Holds::DayOrDays => "day or number of days".to_owned(),
        Holds::Rows => "JSON list of objects, also as a text".to_owned(),
        Holds::Csv => "table as CSV".to_owned(),
        Holds::OneOf(words) => words.join(", "),
    }
}

fn write_fields<'a>(text: &mut String, fields: impl IntoIterator<Item = &'a Field>) {
    let mut fields = fields.into_iter().peekable();
    if fields.peek().is_some() {
        text.push_str("| field | holds | |\n|---|---|---|\n");
    }
    for field in fields {
        let star = if field.required { "\\*" } else { "" };
        let _ = writeln!(text, "| {star}{} | {} | {} |", field.name, holds(field), field.about);
    }
}

/// The part of docs/api.md that follows from the tables: codes and routes. A test keeps the file equal to it.
#[must_use]
pub fn markdown() -> String {
    let mut text =
        String::from("## Codes\n\n| code | info | 简体 | English |\n|---|---|---|---|\n| 0 | 成功 | | |\n");
    for wording in ALL_WORDINGS {
        let words = [Language::Traditional, Language::Simplified, Language::English].map(|l| wording.text(l));
        let _ = writeln!(text, "| {} | {} |", wording.code, words.join(" | "));
    }
    answers::write_markdown(&mut text);
    text.push_str("\n## Routes\n");
    for route in ALL.iter() {
        let callers = access::names_of_roles(route.path);
        let key = if route.writes { " Takes an `Idempotency-Key`." } else { "" };
        let _ = write!(
            text,
            "\n### POST {}\n\n{}. Callers: {}.{key}\n\nRefusals in order: {}.\n\n",
            route.path,
            route.about,
            callers,
            refusals(route)
        );
        write_fields(&mut text, route.fields);
        let _ = write!(text, "\n```json\n{}\n{}\n```\n", route.request, route.data);
    }
    text.push_str("\n## Without a token\n");
    for open in OPEN {
        let method = open.method.name();
        let codes = crate::value::list_text(open.refusals).replace(',', " ");
        let _ = write!(
            text,
            "\n### {method} {}\n\n{}. Callers: anybody.\n\nRefusals in order: {codes}.\n\n",
            open.path, open.about
        );
        write_fields(&mut text, open.fields);
        let _ = write!(text, "\n```\n{}\n{}\n```\n", open.request, open.answer);
    }
    text.push_str("\n## Resources\n");
    for resource in v1::ALL.iter() {
        let callers = access::names_of_roles(&resource.action());
        let method = resource.method.name();
        let _ = write!(
            text,
            "\n### {method} {}\n\n{}. Callers: {}. Answers `{}`.\n\n",
            resource.path, resource.about, callers, resource.produces
        );
        write_fields(&mut text, resource.parts.iter().chain(resource.query));
        let _ = write!(text, "\n```\n{}\n```\n", resource.example.trim_end());
    }
    text
}
