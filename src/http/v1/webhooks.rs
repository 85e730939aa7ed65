//! Webhooks: where events are sent to, how each stands, and what an operator does with it.

use serde_json::json;

use super::events::{STREAM, TYPE};
use super::{Ask, Method, Page, Resource, Run};
use crate::audit::feed::Filter;
use crate::feeds::webhooks;
use crate::http::Failure;
use crate::http::routes::{Field, Holds, optional, required};
use crate::ledger::{Executed, Meta};
use crate::refusal::Refusal;
use crate::value::MAX_ID;
use crate::webhook::{Subscription, Webhook, Why};

/// The longest URL, and the longest list.
const MAX_TEXT: usize = 2_000;

/// The most events of one answer.
const MAX_DEAD: i64 = 1_000;

/// For how long a secret signs beside the next one, unless told otherwise, and at most: seconds.
const OVERLAP_S: i64 = 86_400;
const MAX_OVERLAP_S: i64 = 30 * 86_400;

const ID: Field = required("id", Holds::Id, "the webhook's id");

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Webhooks {
    /// `GET /v1/webhooks`
    List,
    /// `POST /v1/webhooks`
    Add,
    /// `POST /v1/webhooks/{id}`
    Change,
    /// `DELETE /v1/webhooks/{id}`
    Remove,
    /// `POST /v1/webhooks/{id}/pause`
    Pause,
    /// `POST /v1/webhooks/{id}/resume`
    Resume,
    /// `POST /v1/webhooks/{id}/rotate`
    Rotate,
    /// `POST /v1/webhooks/{id}/resend`
    Resend,
    /// `GET /v1/webhooks/{id}/secret`
    Secret,
    /// `GET /v1/webhooks/{id}/dead`
    Dead,
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/webhooks",
        about: "Every webhook and how it stands, the oldest first: `lag` in events, `failing` since when and why its next event is \
                not taken, `dead` how many events were given up, `resending` the ranges that are sent once more",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"webhooks":[{"id":1,"url":"https://erp.example/coupons","types":["Redeemed"],"streams":["coupon"],"state":"running","generation":1,"position":120,"lag":2,"failing":{"attempts":3,"since_ms":1543026701000,"next_at_ms":1543026722000,"error":"answered 500"},"dead":0,"resending":[{"lane":1,"position":8,"to":9,"failing":null}],"added_at_ms":1543026701000}]}"#,
        run: Run::Webhooks(Webhooks::List),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks",
        about: "Adds a webhook: events are posted there one by one, signed as Standard Webhooks (docs/feeds.md). A URL is https and \
                leads outside, unless the server's settings allow more. `secret` is what its receiver checks signatures with",
        parts: &[],
        query: &[
            required(
                "url",
                Holds::Text(MAX_TEXT as i64),
                "where to; it stands in the log, so it holds no secret",
            ),
            TYPE,
            STREAM,
            optional(
                "after",
                Holds::Int(0, MAX_ID),
                "it begins behind this position; default: with what comes",
            ),
        ],
        produces: "application/json",
        example: r#"{"id":1,"url":"https://erp.example/coupons","types":["Redeemed"],"streams":["coupon"],"state":"running","generation":1,"secret":"whsec_…"}"#,
        run: Run::Webhooks(Webhooks::Add),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks/{id}",
        about: "Changes what is sent where: what is not given stays, an empty list is all. What failed is tried at once",
        parts: &[ID],
        query: &[optional("url", Holds::Text(MAX_TEXT as i64), "where to"), TYPE, STREAM],
        produces: "application/json",
        example: r#"{"id":1,"url":"https://erp.example/v2","types":["Redeemed"],"streams":["coupon"],"state":"running","generation":1}"#,
        run: Run::Webhooks(Webhooks::Change),
    },
    Resource {
        method: Method::Delete,
        path: "/v1/webhooks/{id}",
        about: "Removes a webhook with all that it has not sent. Once more changes nothing",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: r#"{"id":1,"removed_at_ms":1543026701000}"#,
        run: Run::Webhooks(Webhooks::Remove),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks/{id}/pause",
        about: "Lets a webhook rest until it is resumed; it loses nothing",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: r#"{"id":1,"url":"https://erp.example/coupons","types":["Redeemed"],"streams":["coupon"],"state":"paused","generation":1}"#,
        run: Run::Webhooks(Webhooks::Pause),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks/{id}/resume",
        about: "Lets a webhook go on where it was, and try at once what failed; or behind another position, back or forth",
        parts: &[ID],
        query: &[optional("after", Holds::Int(0, MAX_ID), "behind this position; default: where it was")],
        produces: "application/json",
        example: r#"{"id":1,"url":"https://erp.example/coupons","types":["Redeemed"],"streams":["coupon"],"state":"running","generation":1}"#,
        run: Run::Webhooks(Webhooks::Resume),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks/{id}/rotate",
        about: "Gives a webhook another secret. For a while the one before signs as well; only the one before the newest does",
        parts: &[ID],
        query: &[optional(
            "overlap_s",
            Holds::Int(0, MAX_OVERLAP_S),
            "for how long, seconds; default a day, 0 where it has leaked",
        )],
        produces: "application/json",
        example: r#"{"id":1,"url":"https://erp.example/coupons","types":["Redeemed"],"streams":["coupon"],"state":"running","generation":2,"secret":"whsec_…"}"#,
        run: Run::Webhooks(Webhooks::Rotate),
    },
    Resource {
        method: Method::Post,
        path: "/v1/webhooks/{id}/resend",
        about: "Sends the events of a range once more, those that the webhook wants, beside what comes; at most four ranges at a time",
        parts: &[ID],
        query: &[
            required("from", Holds::Int(1, MAX_ID), "the first position"),
            required("to", Holds::Int(1, MAX_ID), "the last one"),
        ],
        produces: "application/json",
        example: r#"{"id":1,"lane":1,"from":7,"to":9}"#,
        run: Run::Webhooks(Webhooks::Resend),
    },
    Resource {
        method: Method::Get,
        path: "/v1/webhooks/{id}/secret",
        about: "The secret with which a webhook's receiver checks signatures",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: r#"{"id":1,"generation":1,"secret":"whsec_…"}"#,
        run: Run::Webhooks(Webhooks::Secret),
    },
    Resource {
        method: Method::Get,
        path: "/v1/webhooks/{id}/dead",
        about: "Events that were tried for a day and given up, in order; each goes from here once it is sent again and taken",
        parts: &[ID],
        query: &[
            optional("after", Holds::Int(0, MAX_ID), "only behind this position; default 0"),
            optional("limit", Holds::Int(1, MAX_DEAD), "at most so many; default 100"),
        ],
        produces: "application/json",
        example: r#"{"dead":[{"position":7,"stream":"coupon/439","type":"Redeemed","attempts":34,"error":"answered 500","failed_at_ms":1543026701000,"given_up_at_ms":1543113101000}]}"#,
        run: Run::Webhooks(Webhooks::Dead),
    },
];

pub(super) async fn run(run: Webhooks, ask: Ask) -> Result<Page, Failure> {
    match run {
        Webhooks::List => list(ask).await,
        Webhooks::Add => add(ask).await,
        Webhooks::Change => change(ask).await,
        Webhooks::Remove => remove(ask).await,
        Webhooks::Pause => pause(ask).await,
        Webhooks::Resume => resume(ask).await,
        Webhooks::Rotate => rotate(ask).await,
        Webhooks::Resend => resend(ask).await,
        Webhooks::Secret => secret(ask).await,
        Webhooks::Dead => dead(ask).await,
    }
}

async fn list(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    Page::json(&json!({"webhooks": webhooks::list(ask.app.ledger.store()).await?}))
}

async fn add(mut ask: Ask) -> Result<Page, Failure> {
    let url = ask.form.text("url", MAX_TEXT);
    let mut list = |name| ask.form.optional_text(name, MAX_TEXT).unwrap_or_default();
    let Filter { types, streams } = Filter::parse(&list("type"), &list("stream"));
    let after = ask.form.optional_int("after", 0, MAX_ID);
    let meta = written(&mut ask, "/v1/webhooks")?;
    let (ledger, policy) = (&ask.app.ledger, &ask.app.options.webhooks);
    let done = webhooks::add(ledger, policy, Subscription { url, types, streams }, after, &meta).await?;
    Ok(answered(&done, Page::json(&webhooks::told_json_with_secret(ledger, &done))?))
}

async fn change(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let url = ask.form.sent_text("url", MAX_TEXT);
    let types = ask.form.optional_text("type", MAX_TEXT).map(|text| Filter::parse(&text, "").types);
    let streams = ask.form.optional_text("stream", MAX_TEXT).map(|text| Filter::parse("", &text).streams);
    let meta = written(&mut ask, "/v1/webhooks/change")?;
    let (ledger, policy) = (&ask.app.ledger, &ask.app.options.webhooks);
    let done = webhooks::change(ledger, policy, id, (url, types, streams), &meta).await?;
    told(&done)
}

async fn remove(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let meta = written(&mut ask, "/v1/webhooks/remove")?;
    let done = webhooks::remove(&ask.app.ledger, id, &meta).await?;
    Ok(answered(&done, Page::json(&json!({"id": id, "removed_at_ms": done.state.removed_at_ms}))?))
}

async fn pause(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let meta = written(&mut ask, "/v1/webhooks/pause")?;
    told(&webhooks::pause(&ask.app.ledger, id, Why::Asked, &meta).await?)
}

async fn resume(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let after = ask.form.optional_int("after", 0, MAX_ID);
    let meta = written(&mut ask, "/v1/webhooks/resume")?;
    told(&webhooks::resume(&ask.app.ledger, id, after, &meta).await?)
}

async fn rotate(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let overlap_s = ask.form.optional_int("overlap_s", 0, MAX_OVERLAP_S).unwrap_or(OVERLAP_S);
    let meta = written(&mut ask, "/v1/webhooks/rotate")?;
    let done = webhooks::rotate(&ask.app.ledger, id, overlap_s * 1_000, &meta).await?;
    Ok(answered(&done, Page::json(&webhooks::told_json_with_secret(&ask.app.ledger, &done))?))
}

async fn resend(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let (from, to) = (ask.form.int("from", 1, MAX_ID), ask.form.int("to", 1, MAX_ID));
    let meta = written(&mut ask, "/v1/webhooks/resend")?;
    let done = webhooks::resend(&ask.app.ledger, id, (from, to), &meta).await?;
    Ok(answered(&done, Page::json(&json!({"id": id, "lane": done.state.resends, "from": from, "to": to}))?))
}

async fn secret(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    ask.checked()?;
    Page::json(&webhooks::secret(&ask.app.ledger, id).await?)
}

async fn dead(mut ask: Ask) -> Result<Page, Failure> {
    let id = ask.form.id("id");
    let after = ask.form.optional_int("after", 0, MAX_ID).unwrap_or_default();
    let limit = ask.form.optional_int("limit", 1, MAX_DEAD).unwrap_or(100);
    ask.checked()?;
    let dead = webhooks::dead(ask.app.ledger.store(), id, after, limit).await?;
    Page::json(&json!({"dead": dead.ok_or(Refusal::NoSuchRule)?}))
}

/// Ends the reading of fields of a write.
fn written(ask: &mut Ask, operation: &'static str) -> Result<Meta, Failure> {
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    Ok(ask.meta(operation, &canonical))
}

fn told(done: &Executed<Webhook>) -> Result<Page, Failure> {
    Ok(answered(done, Page::json(&webhooks::told_json(done))?))
}

fn answered(done: &Executed<Webhook>, page: Page) -> Page {
    if done.replayed { page.with_text("idempotency-replayed", "true") } else { page }
}
