//! How answers and refusals are written: the envelope, and problems under `/v1`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::{Answer, Refused};
use crate::refusal::Language;

/// Says of figures which events they count: up to this position.
pub(super) const AS_OF: HeaderName = HeaderName::from_static("as-of-position");

pub(super) fn success(answer: &Answer) -> Response {
    let body = format!(r#"{{"code":0,"info":"成功","data":{}}}"#, answer.data);
    let mut response = json_response(StatusCode::OK, body);
    if answer.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    if let Some(position) = answer.as_of {
        response.headers_mut().insert(AS_OF, position.into());
    }
    if let Some(cookie) = &answer.cookie {
        response.headers_mut().insert(header::SET_COOKIE, cookie.clone());
    }
    response
}

pub(super) fn refusal_response(refused: &Refused, language: Language) -> Response {
    let body = json!({"code": refused.wording.code, "info": refused.info(language), "data": refused.data});
    refused.headed(json_response(refused.status, body.to_string()))
}

/// The same as a problem (RFC 9457): what the envelope says stands beside the standard's members.
pub(super) fn problem_response(refused: &Refused, language: Language) -> Response {
    let body = json!({
        "type": "about:blank",
        "title": refused.wording.text(language),
        "status": refused.status.as_u16(),
        "code": refused.wording.code,
        "info": refused.info(language),
        "data": refused.data,
    });
    let mut response = json_response(refused.status, body.to_string());
    let problem = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, problem);
    refused.headed(response)
}

fn json_response(status: StatusCode, body: String) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, Body::from(body)).into_response()
}
