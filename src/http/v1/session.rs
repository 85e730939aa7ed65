//! Who one is: what a page asks that has nothing but its cookie.

use serde_json::json;

use super::{Ask, Method, Page, Resource, Run};
use crate::access::Principal;
use crate::http::{Failure, Proof};

pub(super) const RESOURCES: &[Resource] = &[Resource {
    method: Method::Get,
    path: "/v1/session",
    about: "Who one is, and what a page sends as x-csrf-token with every POST of its session; empty where it is no session \
            but a token",
    parts: &[],
    query: &[],
    produces: "application/json",
    example: r#"{"caller":"operator:7","role":"operator","user_id":0,"csrf":"AAAAAAAAAAAAAAAAAAAAAA"}"#,
    run: Run::Session,
}];

pub(super) fn session(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    let csrf = match &ask.proof {
        Proof::Session(session) => ask.app.ledger.secrets().csrf_token(&session.id),
        Proof::Token(_) | Proof::MachineKey | Proof::Signature => String::new(),
    };
    Page::json(&json!({
        "caller": ask.caller.to_string(),
        "role": Principal::plain(ask.caller).role.name(),
        "user_id": ask.caller.employee_id(),
        "csrf": csrf,
    }))
}
