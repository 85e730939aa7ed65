//! Every answer that a test gets is held against /openapi.json: its status, its content type, its body, to the last key.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};

use axum::http::{HeaderMap, StatusCode, header};
use coupon_ledger::http::openapi;
use jsonschema::Validator;
use serde_json::{Map, Value, json};

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// By operation, status and code, made when first asked for.
static VALIDATORS: LazyLock<Mutex<HashMap<String, Arc<Validator>>>> = LazyLock::new(Mutex::default);

/// Whether an answer is one that the description has; Err says what of it is not. What is not described at all is none of
/// this module's business: routes.rs and docs.rs see to it that every route is.
pub fn check(
    method: &str,
    uri: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), String> {
    let path = uri.split('?').next().unwrap_or_default();
    // Under a base path that this server does not have.
    if status == StatusCode::NOT_FOUND && path.contains("/api/v1/") {
        return Ok(());
    }
    let Some((path, operation)) = operation(method, path) else { return Ok(()) };
    let code = status.as_u16().to_string();
    let Some(response) = operation["responses"].get(&code) else {
        return Err(format!("the description has no status {code}"));
    };
    let response = resolved(response);
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let Some(contents) = response["content"].as_object().filter(|contents| !contents.is_empty()) else {
        return Ok(());
    };
    let kind = kind.unwrap_or_default();
    let essence = |kind: &str| kind.split(';').next().unwrap_or_default().trim().to_owned();
    let Some((_, content)) = contents.iter().find(|(named, _)| essence(named) == essence(kind)) else {
        return Err(format!("the description has no {kind} for {code}"));
    };
    let place = format!("{method} {path} {code}");
    match (content.get("x-line-schema"), content.get("schema")) {
        (Some(schema), _) => {
            for line in body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
                validate(&place, schema, line)?;
            }
            Ok(())
        }
        (None, Some(schema)) if kind.contains("json") => validate(&place, schema, body),
        _ => Ok(()),
    }
}

fn operation(method: &str, path: &str) -> Option<(&'static str, &'static Value)> {
    // Under a base path.
    let path = path.split_once("/api/v1/").map_or(path, |(base, _)| &path[base.len() + "/api/v1".len()..]);
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let method = method.to_ascii_lowercase();
    let fitting = paths.iter().filter(|(named, at)| at.get(&method).is_some() && fits(named, path));
    // The one with the fewest parts left open.
    let (named, at) = fitting.min_by_key(|(named, _)| named.matches('{').count())?;
    Some((named.as_str(), &at[&method]))
}

/// Whether a path is one of these; the index of a tile has several parts.
fn fits(named: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for part in named.split('/') {
        match (part, parts.next()) {
            ("{index}", Some(_)) => return true,
            (open, Some(given)) if open.starts_with('{') && !given.is_empty() => {}
            (part, Some(given)) if part == given => {}
            _ => return false,
        }
    }
    parts.next().is_none()
}

fn validate(place: &str, schema: &Value, body: &[u8]) -> Result<(), String> {
    let body: Value = serde_json::from_slice(body).map_err(|error| format!("it is no JSON: {error}"))?;
    let code = body.get("code").cloned().unwrap_or_default();
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap();
        let key = format!("{place} {code}");
        Arc::clone(validators.entry(key).or_insert_with(|| Arc::new(validator(&strict(schema), &code))))
    };
    let wrong: Vec<_> =
        validator.iter_errors(&body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Of the alternatives of an envelope the one with this code: what is wrong is then told by field.
fn validator(schema: &Value, code: &Value) -> Validator {
    let has = |kind: &&Value| {
        let codes = &kind["properties"]["code"];
        let within = codes["enum"].as_array().is_some_and(|codes| codes.contains(code));
        codes["const"] == *code || within
    };
    let schema = match schema["oneOf"].as_array() {
        Some(kinds) if !code.is_null() => kinds.iter().find(has).unwrap_or(schema),
        _ => schema,
    };
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

fn resolved(value: &'static Value) -> &'static Value {
    match value.get("$ref").and_then(Value::as_str) {
        Some(place) => DOCUMENT.pointer(place.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// The schema with what it refers to in place, and without room for keys that it does not name.
fn strict(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            if let Some(place) = fields.get("$ref").and_then(Value::as_str) {
                return strict(DOCUMENT.pointer(place.trim_start_matches('#')).unwrap());
            }
            let mut strict: Map<_, _> =
                fields.iter().map(|(name, value)| (name.clone(), self::strict(value))).collect();
            if fields.contains_key("properties") && fields.get("type").is_some_and(|kind| *kind == "object") {
                strict.entry("additionalProperties").or_insert(json!(false));
            }
            Value::Object(strict)
        }
        Value::Array(rows) => rows.iter().map(strict).collect(),
        other => other.clone(),
    }
}

/// How an answer with this body would be found.
fn found(path: &str, body: &Value) -> Result<(), String> {
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, "application/json".parse().unwrap())]);
    check("POST", path, StatusCode::OK, &headers, body.to_string().as_bytes())
}

#[test]
fn an_answer_that_is_not_as_described_is_found() {
    let good = json!({"code": 0, "info": "成功", "data": {"unused": 3, "used": 1, "expired": 0}});
    assert_eq!(found("/client/couponcount", &good), Ok(()));
    for (place, value) in [
        ("/data/unused", json!("3")),
        ("/data/unused", json!(-1)),
        ("/data/unused", Value::Null),
        ("/data", json!({"unused": 3, "used": 1})),
        ("/data", json!({"unused": 3, "used": 1, "expired": 0, "more": 1})),
        ("/data", json!([])),
        ("/info", json!("ok")),
        ("/code", json!(9_998)),
        ("", json!({"code": 0, "info": "成功", "data": {"unused": 3, "used": 1, "expired": 0}, "more": 1})),
    ] {
        let mut bad = good.clone();
        *bad.pointer_mut(place).unwrap() = value;
        assert!(found("/client/couponcount", &bad).is_err(), "{bad}");
    }
    let refused = json!({"code": 3001, "info": "已使用", "data": {"id": 2, "create_date": 1, "shop_id": 1}});
    assert_eq!(found("/client/auditcoupon", &refused), Ok(()));
    assert!(found("/client/couponcount", &refused).is_err(), "it does not have this code");
    let empty = json!({"code": 3001, "info": "已使用", "data": null});
    assert!(found("/client/auditcoupon", &empty).is_err(), "it says by what it was used");
    assert!(check("POST", "/client/couponcount", StatusCode::CREATED, &HeaderMap::new(), b"").is_err());
}

#[test]
fn every_example_is_as_described() {
    let mut seen = 0;
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for (kind, content) in operation["responses"]["200"]["content"].as_object().into_iter().flatten()
            {
                let Some(example) = content.get("example") else { continue };
                let text = example.as_str().map_or_else(|| example.to_string(), ToOwned::to_owned);
                let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
                let found = check(method, path, StatusCode::OK, &headers, text.as_bytes());
                // What was asked as of a point in time has the data of another route, and shows a part of it.
                let is_part =
                    text.contains(r#""at":"2018-11-24 10:31:41","data""#) && !path.contains("/as-of/");
                assert_eq!(found.is_ok(), !is_part, "{method} {path}: {found:?}");
                seen += 1;
            }
        }
    }
    assert!(seen > 150, "{seen} examples");
}

/// Every success says what its data is: no schema under it is empty unless a sentence says why.
#[test]
fn every_field_of_every_answer_has_a_type() {
    fn untyped(schema: &Value, place: &str, found: &mut Vec<String>) {
        let typed =
            ["type", "oneOf", "const", "enum", "description"].iter().any(|word| schema.get(word).is_some());
        if !typed {
            found.push(place.to_owned());
        }
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            untyped(field, &format!("{place}/{name}"), found);
        }
        for kind in schema["oneOf"].as_array().into_iter().flatten() {
            untyped(kind, place, found);
        }
        if let Some(rows) = schema.get("items").filter(|_| schema["maxItems"] != 0) {
            untyped(rows, &format!("{place}[]"), found);
        }
    }
    let mut found = Vec::new();
    for (path, methods) in DOCUMENT["paths"].as_object().unwrap() {
        for operation in methods.as_object().unwrap().values() {
            for (kind, content) in operation["responses"]["200"]["content"].as_object().into_iter().flatten()
            {
                if kind.contains("json") {
                    let schema = content.get("x-line-schema").unwrap_or(&content["schema"]);
                    untyped(&strict(schema), path, &mut found);
                }
            }
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
