//! The feed as server-sent events: what is there already, and then what comes, for as long as the reader reads.
//!
//! Nothing is read ahead: the next page of the log is read when the last one is sent, so a reader who reads nothing costs a
//! page until the socket's patience ends. An answer that never ends asks again and again whether its reader may still read.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::events::{STREAM, TYPE, filter};
use super::{Ask, Method, Page, Resource, Run};
use crate::access::{self, Resource as Target};
use crate::audit::feed::{Filter, line};
use crate::followers::events_after;
use crate::http::asker::Asker;
use crate::http::routes::{Holds, optional};
use crate::http::{App, Failure};
use crate::ledger::ExecuteError;
use crate::refusal::Wrong;
use crate::store::StoreError;
use crate::value::{MAX_ID, parse_int};

/// Events of one read.
const PAGE: i64 = 100;

/// After how long a reader whose stream has ended shall ask again, milliseconds.
const RETRY_MS: u32 = 1_000;

/// The same where it has ended because the next event is missing or cannot be read: somebody has to mend that first.
const RETRY_AFTER_ERROR_MS: u32 = 60_000;

/// The header by which a reader says where he was.
const LAST_EVENT_ID: &str = "last-event-id";

/// How streams of events are served.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// At most so many at a time.
    pub max: usize,
    /// How long nothing is said at most: proxies let go of who is silent.
    pub heartbeat: Duration,
    /// How often it is asked whether the reader may still read.
    pub recheck: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { max: 256, heartbeat: Duration::from_secs(15), recheck: Duration::from_secs(20) }
    }
}

pub(super) const RESOURCES: &[Resource] = &[Resource {
    method: Method::Get,
    path: "/v1/stream",
    about: "The same events as server-sent events, as they come, without an end: `id` is the position, `data` the line. With \
            `Last-Event-ID`, which wins over `after`, it goes on behind that position; one that the log has not come to yet is \
            refused (400). A block with an id and no data says how far was looked. 503 where there are too many readers",
    parts: &[],
    query: &[
        optional(
            "after",
            Holds::Int(0, MAX_ID),
            "the last position already seen; default 0: from the first event",
        ),
        TYPE,
        STREAM,
    ],
    produces: "text/event-stream",
    example: "id: 7\ndata: {\"position\":7,\"stream\":\"coupon/439\",\"sequence\":1,\"type\":\"Issued\",\"version\":\"1.0\",\"recorded_at_ms\":1543026701000,\"payload\":{\"Issued\":{\"definition_id\":1,\"member_id\":431}},\"metadata\":{\"caller\":\"operator\"}}\n",
    run: Run::Stream,
}];

pub(super) async fn stream(mut ask: Ask, action: String) -> Result<Page, Failure> {
    let after = ask.form.optional_int("after", 0, MAX_ID).unwrap_or_default();
    let filter = filter(&mut ask.form);
    ask.checked()?;
    let (field, seen) = last_event_id(&ask.headers)?.map_or(("after", after), |id| ("Last-Event-ID", id));
    let last = ask.app.ledger.store().head().await?;
    // Who has seen more than there is has read another log than this one: to let him wait would hide that.
    if seen > last {
        return Err(Failure::Fields(vec![(field, Wrong::NoSuchPosition { last })]));
    }
    let place = ask.app.stream_places.clone().try_acquire_owned();
    let place = place.map_err(|_| Failure::Execute(ExecuteError::Busy))?;
    let now = Instant::now();
    let reader = Reader {
        closing: ask.app.closing.subscribe(),
        app: ask.app,
        headers: ask.headers,
        action,
        filter,
        seen,
        told: seen,
        begun: false,
        ended: false,
        spoke: now,
        checked: now,
        _place: place,
    };
    let body = futures::stream::unfold(reader, |mut reader| async move {
        let said = reader.next().await?;
        Some((Ok::<_, std::convert::Infallible>(said), reader))
    });
    // Proxies that gather answers before they pass them on are asked not to.
    let page = Page::new("text/event-stream", Body::from_stream(body));
    Ok(page.with("x-accel-buffering", HeaderValue::from_static("no")))
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Failure> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = id.to_str().unwrap_or("?");
    let id = parse_int(id, 0, MAX_ID).and_then(|id| {
        if (0..=MAX_ID).contains(&id) { Ok(id) } else { Err(Wrong::OutOfRange { min: 0, max: MAX_ID }) }
    });
    id.map(Some).map_err(|why| Failure::Fields(vec![("Last-Event-ID", why)]))
}

/// Somebody who reads a stream.
struct Reader {
    app: App,
    /// By what he has proved who he is: asked again.
    headers: HeaderMap,
    action: String,
    filter: Filter,
    /// The last position that was looked at.
    seen: i64,
    /// The last that he was told.
    told: i64,
    begun: bool,
    /// Whether what comes next could not be read.
    ended: bool,
    spoke: Instant,
    checked: Instant,
    closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// What he is told next; None = nothing any more.
    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some(format!("retry: {RETRY_MS}\n\n").into());
        }
        loop {
            if self.ended || *self.closing.borrow() || !self.may_still().await {
                return None;
            }
            let said = match self.look().await {
                Ok(said) => said,
                Err(error) => {
                    tracing::error!(%error, after = self.seen, "a stream of events has ended");
                    self.ended = true;
                    return Some(format!("retry: {RETRY_AFTER_ERROR_MS}\n\n").into());
                }
            };
            if !said.is_empty() {
                self.spoke = Instant::now();
                return Some(said.into());
            }
        }
    }

    /// What there is behind what he has seen, or that there is nothing; nothing to say yet = empty.
    async fn look(&mut self) -> Result<String, StoreError> {
        let heartbeat = self.app.options.streams.heartbeat;
        let store = self.app.ledger.store();
        let events = events_after(store, self.seen, PAGE).await?;
        let mut said = String::new();
        for event in &events {
            self.seen = event.position;
            if self.filter.wants(event) {
                let _ = write!(said, "id: {}\ndata: {}\n\n", event.position, line(event)?);
                self.told = event.position;
            }
        }
        if said.is_empty() && events.is_empty() {
            let until = heartbeat.saturating_sub(self.spoke.elapsed()).min(self.app.options.streams.recheck);
            tokio::select! {
                found = self.app.tail.beyond(self.seen) => found?,
                _ = self.closing.wait_for(|closing| *closing) => {}
                () = tokio::time::sleep(until) => {}
            }
        }
        if said.is_empty() && self.spoke.elapsed() >= heartbeat {
            // Where his filter lets nothing through, he need not look through all of it again.
            said = if self.told < self.seen { format!("id: {}\n\n", self.seen) } else { ":\n\n".to_owned() };
            self.told = self.seen;
        }
        Ok(said)
    }

    /// Whether what he has shown still lets him read.
    async fn may_still(&mut self) -> bool {
        if self.checked.elapsed() < self.app.options.streams.recheck {
            return true;
        }
        self.checked = Instant::now();
        let asker = Asker::of(&self.app, &self.headers);
        match self.app.identify(&self.headers, false, &asker).await {
            Ok(found) => access::authorize(&found.who, &self.action, Target::Unknown).is_ok(),
            Err(_) => false,
        }
    }
}
