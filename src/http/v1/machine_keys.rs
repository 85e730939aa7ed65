//! Machines' keys: issued, listed and revoked by an operator.

use serde_json::json;

use super::{Ask, Method, Page, Resource, Run};
use crate::http::Failure;
use crate::http::routes::{Holds, optional, required};
use crate::machine_keys::{self, NewKey};
use crate::read_model::machines;
use crate::refusal::Wrong;

/// The shortest time for which a key is issued, seconds.
const MIN_TTL_S: i64 = 60;

/// The longest: ten years.
const MAX_TTL_S: i64 = 3_650 * 86_400;

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MachineKeys {
    /// `GET /v1/machine-keys`
    List,
    /// `POST /v1/machine-keys`
    Issue,
    /// `DELETE /v1/machine-keys/{id}`
    Revoke,
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/machine-keys",
        about: "Every machine's key, newest id first, without its secret: `holds` whether it opens anything now, `last_used_at_ms` \
                to the minute; null where there is no such time",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"keys":[{"id":1,"name":"till 3","rights":["orders","read"],"holds":true,"issued_at_ms":1543026701000,"expires_at_ms":null,"revoked_at_ms":null,"last_used_at_ms":1543026701000}]}"#,
        run: Run::MachineKeys(MachineKeys::List),
    },
    Resource {
        method: Method::Post,
        path: "/v1/machine-keys",
        about: "Issues a key to a machine. `key` is shown this once: the same request under the same `Idempotency-Key` answers \
                null there. Nobody gives it a right that he has not himself (1002)",
        parts: &[],
        query: &[
            required("name", Holds::Text(100), "what the machine is called"),
            required(
                "rights",
                Holds::Text(500),
                "its rights, as `orders,read`: names of docs/security.md or numbers of `/competence/list`",
            ),
            optional(
                "ttl_s",
                Holds::Int(MIN_TTL_S, MAX_TTL_S),
                "for how many seconds it holds; default until it is revoked",
            ),
        ],
        produces: "application/json",
        example: r#"{"id":1,"name":"till 3","rights":["orders","read"],"expires_at_ms":null,"key":"ck1.1.…"}"#,
        run: Run::MachineKeys(MachineKeys::Issue),
    },
    Resource {
        method: Method::Delete,
        path: "/v1/machine-keys/{id}",
        about: "Revokes a machine's key: it opens nothing from the next request on. Once more changes nothing",
        parts: &[required("id", Holds::Id, "the key's id")],
        query: &[],
        produces: "application/json",
        example: r#"{"id":1,"revoked_at_ms":1543026701000}"#,
        run: Run::MachineKeys(MachineKeys::Revoke),
    },
];

pub(super) async fn run(run: MachineKeys, ask: Ask) -> Result<Page, Failure> {
    match run {
        MachineKeys::List => list(ask).await,
        MachineKeys::Issue => issue(ask).await,
        MachineKeys::Revoke => revoke(ask).await,
    }
}

async fn list(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    let now_ms = ask.app.ledger.clock().now_ms();
    let rows = machines::machines(ask.app.ledger.store()).await?;
    let keys: Vec<_> = rows.iter().map(|row| machine_keys::listed_json(row, now_ms)).collect();
    Page::json(&json!({ "keys": keys }))
}

async fn issue(mut ask: Ask) -> Result<Page, Failure> {
    let name = ask.form.text("name", 100);
    let rights = machine_keys::parse_rights(&ask.form.text("rights", 500));
    let ttl_s = ask.form.optional_int("ttl_s", MIN_TTL_S, MAX_TTL_S);
    if rights.is_none() {
        ask.form.wrong("rights", Wrong::NotARight);
    }
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    let meta = ask.meta("/v1/machine-keys", &canonical);
    let new = NewKey { name, rights: rights.unwrap_or_default(), ttl_s };
    let issued = machine_keys::issue(&ask.app.ledger, &ask.who, new, &meta).await?;
    let page = Page::json(&machine_keys::issued_json(&issued))?;
    Ok(if issued.key.is_none() { page.with_text("idempotency-replayed", "true") } else { page })
}

async fn revoke(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    let meta = ask.meta("/v1/machine-keys/revoke", &canonical);
    let machine = machine_keys::revoke(&ask.app.ledger, id, &meta).await?;
    Page::json(&json!({"id": id, "revoked_at_ms": machine.revoked_at_ms}))
}
