//! What happened to one stream, and what somebody did.

use std::fmt::Write as _;

use super::{AT, Ask, Method, Page, Resource, Run};
use crate::audit::history::{Entry, HistoryError, Span, of_caller, of_readers, of_stream};
use crate::audit::kinds::Kind;
use crate::entity::KINDS;
use crate::http::Failure;
use crate::http::routes::{Field, Holds, optional, required};
use crate::identity::Caller;
use crate::ledger::ExecuteError;
use crate::reading::{PEOPLE, Person};
use crate::refusal::{Refusal, Wrong};
use crate::value::MAX_ID;

/// The most events of one answer.
const MAX_ENTRIES: i64 = 1_000;

/// The most positions that one answer looks at.
const LOOK_AT: i64 = 100_000;

const AFTER: Field = optional(
    "after",
    Holds::Int(0, MAX_ID),
    "the last position already seen; default 0: from the first event",
);
const LIMIT: Field = optional("limit", Holds::Int(1, MAX_ENTRIES), "at most so many events; default 100");

macro_rules! entry {
    () => {
        r#"{"position":9,"stream":"coupon/439","sequence":2,"type":"Viewed","version":"1.0","recorded_at_ms":1543026701000,"recorded_at":"2018-11-24 10:31:41","caller":"member:431","request_id":"5d1f0c9b8a7e6d3c","idempotency_key":null,"causation_id":"5d1f0c9b8a7e6d3c","correlation_id":"5d1f0c9b8a7e6d3c","words":"opened by member 431 for the first time","changes":[{"path":"holdings.431.read","before":false,"after":true}],"before":{"holder_id":431},"after":{"holder_id":431}}"#
    };
}

macro_rules! reading {
    () => {
        r#"{"position":12,"stream":"reading/3","sequence":1,"type":"Read","version":"1.0","recorded_at_ms":1543026701000,"recorded_at":"2018-11-24 10:31:41","caller":"employee:1000","request_id":"5d1f0c9b8a7e6d3c","idempotency_key":null,"causation_id":"5d1f0c9b8a7e6d3c","correlation_id":"5d1f0c9b8a7e6d3c","words":"employee:1000 read personal data of member 431 through /member/get, an answer with 1 in all","changes":[],"before":null,"after":{"reader":"employee:1000","action":"/member/get","member_ids":[431],"employee_ids":[],"account_ids":[],"people":1,"at_ms":1543026701000}}"#
    };
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/coupons/{id}/history",
        about: "What happened to a coupon: one JSON object a line for each event, with who, through what, the event in \
                words, and the coupon before and after; before is null and changes empty for the first event, which made \
                everything. The header next-after is where to go on",
        parts: &[required("id", Holds::Id, "會員電子券ID")],
        query: &[AT, AFTER, LIMIT],
        produces: "application/x-ndjson",
        example: entry!(),
        run: Run::History,
    },
    Resource {
        method: Method::Get,
        path: "/v1/streams/{kind}/{id}/history",
        about: "The same of any stream",
        parts: &[
            required("kind", Holds::OneOf(KINDS), "which kind of stream; a partner is a shop"),
            required("id", Holds::Id, "its id"),
        ],
        query: &[AT, AFTER, LIMIT],
        produces: "application/x-ndjson",
        example: entry!(),
        run: Run::History,
    },
    Resource {
        method: Method::Get,
        path: "/v1/callers/{caller}/events",
        about: "What somebody did: the same lines for every event that he caused, in order. An answer looks at 100,000 \
                positions at most, so that it may be empty before the log ends: go on at the header next-after until it \
                stays what it was",
        parts: &[required(
            "caller",
            Holds::Text(40),
            "`member:431`, `employee:1000`, `partner:2`, `operator:7`, `auditor:8`, `operator`, `auditor` or `system`",
        )],
        query: &[AT, AFTER, LIMIT],
        produces: "application/x-ndjson",
        example: entry!(),
        run: Run::Deeds,
    },
    Resource {
        method: Method::Get,
        path: "/v1/readers/{kind}/{id}",
        about: "Who has read the personal data of a member, an employee or the holder of an account: one line for each reading, \
                in order, as in a history. The log is not walked for it. docs/security.md says which readings are told",
        parts: &[required("kind", Holds::OneOf(PEOPLE), "whose data"), required("id", Holds::Id, "his id")],
        query: &[AT, AFTER, LIMIT],
        produces: "application/x-ndjson",
        example: reading!(),
        run: Run::Readers,
    },
];

impl From<HistoryError> for Failure {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Store(error) => error.into(),
            HistoryError::Corrupt(corrupt) => Self::Execute(ExecuteError::Corrupt(corrupt)),
        }
    }
}

/// The refusal where a kind has no such stream.
fn no_such(kind: &Kind) -> Refusal {
    match kind.name {
        "coupon" => Refusal::NoSuchCoupon,
        "definition" => Refusal::NoSuchDefinition,
        "shop" => Refusal::NoSuchShop,
        "order" => Refusal::NoSuchOrder,
        "account" => Refusal::NoSuchMember,
        _ => Refusal::NoSuchRule,
    }
}

pub(super) async fn history(mut ask: Ask) -> Result<Page, Failure> {
    let form = &mut ask.form;
    let kind = form.one_of("kind", KINDS).unwrap_or("coupon");
    let id = form.id("id");
    let (after, limit) = paging(&mut ask);
    let at = ask.at();
    ask.checked()?;
    let until = ask.as_of(at).await?.position;
    let ledger = &ask.app.ledger;
    let kind = Kind::named(kind).ok_or(Refusal::NoSuchRule)?;
    let span = Span { after, until };
    let entries = of_stream(ledger.store(), (kind, id), span, limit, ledger.zone()).await?;
    if entries.is_empty() && after == 0 {
        return Err(no_such(kind).into());
    }
    let next_after = entries.last().map_or(after, |entry| entry.position);
    page(&entries, next_after)
}

pub(super) async fn deeds(mut ask: Ask) -> Result<Page, Failure> {
    let text = ask.form.text("caller", 40);
    let caller = Caller::parse(&text);
    if caller.is_none() {
        ask.form.wrong("caller", Wrong::NotACaller);
    }
    let (after, limit) = paging(&mut ask);
    let at = ask.at();
    ask.checked()?;
    let until = ask.as_of(at).await?.position;
    let caller = caller.map(|caller| caller.to_string()).unwrap_or_default();
    let (ledger, span) = (&ask.app.ledger, Span { after, until });
    let deeds = of_caller(ledger.store(), &caller, span, (limit, LOOK_AT), ledger.zone()).await?;
    page(&deeds.entries, deeds.next_after)
}

pub(super) async fn readers(mut ask: Ask) -> Result<Page, Failure> {
    let kind = ask.form.one_of("kind", PEOPLE).unwrap_or("member");
    let id = ask.form.id("id");
    let (after, limit) = paging(&mut ask);
    let at = ask.at();
    ask.checked()?;
    let until = ask.as_of(at).await?.position;
    let person = Person::named(kind, id).ok_or(Refusal::NoSuchMember)?;
    let (ledger, span) = (&ask.app.ledger, Span { after, until });
    let entries = of_readers(ledger.store(), person, span, limit, ledger.zone()).await?;
    let next_after = entries.last().map_or(after, |entry| entry.position);
    page(&entries, next_after)
}

fn paging(ask: &mut Ask) -> (i64, usize) {
    let after = ask.form.optional_int("after", 0, MAX_ID).unwrap_or_default();
    let limit = ask.form.optional_int("limit", 1, MAX_ENTRIES).unwrap_or(100);
    (after, usize::try_from(limit).unwrap_or(1))
}

fn page(entries: &[Entry], next_after: i64) -> Result<Page, Failure> {
    let mut lines = String::new();
    for entry in entries {
        let line = serde_json::to_string(entry).map_err(|error| Failure::Execute(error.into()))?;
        let _ = writeln!(lines, "{line}");
    }
    Ok(Page::new("application/x-ndjson", lines).with("next-after", next_after))
}
