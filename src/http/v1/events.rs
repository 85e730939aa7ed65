//! The feed: every event by position.

use super::{Ask, Method, Page, Resource, Run};
use crate::audit::feed::{Asked, Filter, feed};
use crate::http::Failure;
use crate::http::form::Form;
use crate::http::routes::{Field, Holds, optional};
use crate::value::MAX_ID;

/// The most events of one answer.
const MAX_EVENTS: i64 = 1_000;

/// The longest list of names or streams.
const MAX_LIST: usize = 1_000;

/// Which events by their names.
pub(super) const TYPE: Field =
    optional("type", Holds::Text(MAX_LIST as i64), "only events of these names, as Redeemed,Issued");

/// Which events by their streams.
pub(super) const STREAM: Field = optional(
    "stream",
    Holds::Text(MAX_LIST as i64),
    "only of these kinds of streams or streams, as coupon,order/7",
);

pub(super) const RESOURCES: &[Resource] = &[Resource {
    method: Method::Get,
    path: "/v1/events",
    about: "Events behind a position, in order, one JSON object a line; the header next-after is where to go on. A \
            position names the same event for ever",
    parts: &[],
    query: &[
        optional(
            "after",
            Holds::Int(0, MAX_ID),
            "the last position already seen; default 0: from the first event",
        ),
        optional("limit", Holds::Int(1, MAX_EVENTS), "at most so many positions are looked at; default 100"),
        TYPE,
        STREAM,
    ],
    produces: "application/x-ndjson",
    example: r#"{"position":7,"stream":"coupon/439","sequence":1,"type":"Issued","version":"1.0","recorded_at_ms":1543026701000,"payload":{"Issued":{"definition_id":1,"member_id":431}},"metadata":{"caller":"operator"}}"#,
    run: Run::Events,
}];

pub(super) async fn events(mut ask: Ask) -> Result<Page, Failure> {
    let form = &mut ask.form;
    let asked = Asked {
        after: form.optional_int("after", 0, MAX_ID).unwrap_or_default(),
        limit: form.optional_int("limit", 1, MAX_EVENTS).unwrap_or(100),
        filter: filter(form),
    };
    ask.checked()?;
    let page = feed(ask.app.ledger.store(), &asked).await?;
    Ok(Page::new("application/x-ndjson", page.lines).with("next-after", page.next_after))
}

/// Which events are wanted, as a query says.
pub(super) fn filter(form: &mut Form) -> Filter {
    let mut list = |name| form.optional_text(name, MAX_LIST).unwrap_or_default();
    Filter::parse(&list("type"), &list("stream"))
}
