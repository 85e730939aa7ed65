//! Partners' public keys: registered, listed and revoked by an operator.

use serde_json::json;

use super::{Ask, Method, Page, Resource, Run};
use crate::http::Failure;
use crate::http::routes::{Holds, optional, required};
use crate::read_model::partner_keys;
use crate::refusal::Wrong;
use crate::signed_request;
use crate::value::MAX_ID;

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartnerKeys {
    /// `GET /v1/partner-keys`
    List,
    /// `POST /v1/partner-keys`
    Register,
    /// `DELETE /v1/partner-keys/{id}`
    Revoke,
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/partner-keys",
        about: "The public keys by which partners sign their requests, newest first",
        parts: &[],
        query: &[optional("partner_id", Holds::Int(0, MAX_ID), "of this partner only; 0 = of all")],
        produces: "application/json",
        example: r#"{"keys":[{"id":1,"partner_id":2,"public_key":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=","registered_at_ms":1543026701000,"revoked_at_ms":null}]}"#,
        run: Run::PartnerKeys(PartnerKeys::List),
    },
    Resource {
        method: Method::Post,
        path: "/v1/partner-keys",
        about: "Registers a partner's Ed25519 public key: what is signed with it is his. At most four at a time, so that one \
                can follow another without a gap",
        parts: &[],
        query: &[
            required("partner_id", Holds::Id, "whose it is"),
            required("public_key", Holds::Text(64), "32 bytes, in base64 or as hexadecimal digits"),
        ],
        produces: "application/json",
        example: r#"{"id":1,"partner_id":2,"public_key":"A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="}"#,
        run: Run::PartnerKeys(PartnerKeys::Register),
    },
    Resource {
        method: Method::Delete,
        path: "/v1/partner-keys/{id}",
        about: "Revokes a partner's key: what it signs is nobody's from the next request on. Once more changes nothing",
        parts: &[required("id", Holds::Id, "the key's id")],
        query: &[],
        produces: "application/json",
        example: r#"{"id":1,"revoked_at_ms":1543026701000}"#,
        run: Run::PartnerKeys(PartnerKeys::Revoke),
    },
];

pub(super) async fn run(run: PartnerKeys, ask: Ask) -> Result<Page, Failure> {
    match run {
        PartnerKeys::List => list(ask).await,
        PartnerKeys::Register => register(ask).await,
        PartnerKeys::Revoke => revoke(ask).await,
    }
}

async fn list(mut ask: Ask) -> Result<Page, Failure> {
    let partner_id = ask.form.optional_int("partner_id", 0, MAX_ID).unwrap_or_default();
    ask.checked()?;
    let rows = partner_keys::partner_keys(ask.app.ledger.store(), partner_id).await?;
    let keys: Vec<_> = rows.iter().map(signed_request::listed_json).collect();
    Page::json(&json!({ "keys": keys }))
}

async fn register(mut ask: Ask) -> Result<Page, Failure> {
    let partner_id = ask.form.id("partner_id");
    let key = signed_request::read_public_key(&ask.form.text("public_key", 64));
    if key.is_none() {
        ask.form.wrong("public_key", Wrong::NotAPublicKey);
    }
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    // What is no key is refused above.
    let key = key.ok_or(Failure::NotThere)?;
    let meta = ask.meta("/v1/partner-keys", &canonical);
    let done = signed_request::register(&ask.app.ledger, partner_id, &key, &meta).await?;
    let page = Page::json(&signed_request::registered_json(done.id, &done.state))?;
    Ok(if done.replayed { page.with_text("idempotency-replayed", "true") } else { page })
}

async fn revoke(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    let meta = ask.meta("/v1/partner-keys/revoke", &canonical);
    let done = signed_request::revoke(&ask.app.ledger, id, &meta).await?;
    Page::json(&json!({"id": id, "revoked_at_ms": done.state.revoked_at_ms}))
}
