//! `/v1`: what auditors and machines read and ask for, beside the manual's routes.
//!
//! Resources with paths and queries, in one table ([`ALL`]) from which the router, the OpenAPI description and docs/api.md
//! are made. An answer is the resource itself; a refusal is an HTTP status and a problem
//! (RFC 9457) with the same `{code, info, data}` in it as everywhere.
//! Thin: what is answered is computed by `audit`.

mod as_of;
mod events;
pub(crate) mod exports;
mod followers;
mod history;
mod keys;
mod machine_keys;
mod partner_keys;
pub(crate) mod rebuilds;
mod session;
mod statistics;
pub(super) mod stream;
mod tlog;
mod webhooks;

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{delete, get, post};
use serde::Serialize;

use super::form::Form;
use super::routes::{Field, Holds, optional};
use super::{
    App, Asker, Failure, Identified, Proof, idempotency_key, language, problem_response, request_id,
};
use crate::access::{self, Principal, Resource as Target};
use crate::audit::at::{self, AsOf, At, AtError};
use crate::identity::Caller;
use crate::ledger::Meta;
use crate::reading::Person;
use crate::refusal::{Language, Wording, Wrong};
use crate::store::ReceiptKey;
use crate::watch::Shown;

/// How many times longer a resource may take than a request of the manual: an auditor's question may read much of the log.
const PATIENCE: u32 = 20;

/// As of when something is asked.
const AT: Field = optional(
    "at",
    Holds::Text(at::MAX_TEXT as i64),
    "as of then: a position, a day (its end), a local time like 2018-11-24 10:31:41, or an instant of RFC 3339; default now",
);

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// `/v1/events`
    Events,
    /// `/v1/stream`
    Stream,
    /// Of the transparency log.
    Tlog(tlog::Tlog),
    /// Of the ledger's keys.
    Keys(keys::Keys),
    /// `/v1/coupons/{id}/history`, `/v1/streams/{kind}/{id}/history`
    History,
    /// `/v1/callers/{caller}/events`
    Deeds,
    /// `/v1/readers/{kind}/{id}`
    Readers,
    /// `/v1/coupons/{id}`
    CouponAsOf,
    /// `/v1/members/{id}/coupons`
    MemberAsOf,
    /// `/v1/definitions/{id}`
    DefinitionAsOf,
    /// `/v1/as-of/{manual_page}/{manual_call}`
    RouteAsOf,
    /// `/v1/exports` and what belongs to it.
    Exports(exports::Exports),
    /// `/v1/rebuilds` and what belongs to it.
    Rebuilds(rebuilds::Rebuilds),
    /// `/v1/followers`
    Followers,
    /// `/v1/followers/{name}/{order}`
    FollowerOrder,
    /// `/v1/session`
    Session,
    /// `/v1/statistics` and what belongs to it.
    Statistics(statistics::Statistics),
    /// `/v1/machine-keys` and what belongs to it.
    MachineKeys(machine_keys::MachineKeys),
    /// `/v1/partner-keys` and what belongs to it.
    PartnerKeys(partner_keys::PartnerKeys),
    /// `/v1/webhooks` and what belongs to it.
    Webhooks(webhooks::Webhooks),
}

/// What a resource is asked with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes something.
    Post,
    /// Ends something.
    Delete,
}

impl Method {
    /// Its name in HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// A resource.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// How it is asked.
    pub method: Method,
    /// Its path, with `{names}` of its parts.
    pub path: &'static str,
    /// What it is.
    pub about: &'static str,
    /// The parts of the path.
    pub parts: &'static [Field],
    /// The query.
    pub query: &'static [Field],
    /// The answer's content type.
    pub produces: &'static str,
    /// An example of an answer.
    pub example: &'static str,
    /// Which handler answers.
    pub run: Run,
}

impl Resource {
    /// The same in the table's own words; its path where it has no row.
    fn named(&self) -> &'static str {
        access::named(&self.action()).unwrap_or(self.path)
    }

    /// What the table of who may do what calls it.
    #[must_use]
    pub fn action(&self) -> String {
        format!("{} {}", self.method.name(), self.path)
    }
}

/// Every resource.
pub static ALL: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    [
        events::RESOURCES,
        stream::RESOURCES,
        history::RESOURCES,
        as_of::RESOURCES,
        tlog::RESOURCES,
        keys::RESOURCES,
        rebuilds::RESOURCES,
        followers::RESOURCES,
        session::RESOURCES,
        machine_keys::RESOURCES,
        partner_keys::RESOURCES,
        statistics::RESOURCES,
        webhooks::RESOURCES,
        &exports::resources(),
    ]
    .concat()
});

/// One question, on its way to a handler.
pub(super) struct Ask {
    /// Everything it may touch.
    pub(super) app: App,
    /// Who asks.
    pub(super) caller: Caller,
    /// By what he has proved who he is.
    pub(super) proof: Proof,
    /// The same, with his role and what he was given.
    pub(super) who: Principal,
    /// What it came with.
    pub(super) headers: HeaderMap,
    /// Names the request in logs and in the events it causes.
    pub(super) request_id: String,
    /// The idempotency key, where something is changed.
    pub(super) key: Option<String>,
    /// The parts of the path and the query, as fields.
    pub(super) form: Form,
    /// The language of a refusal.
    pub(super) language: Language,
}

impl Ask {
    /// Reads as of when something is asked; None = as of now.
    fn at(&mut self) -> Option<At> {
        let text = self.form.optional_text("at", at::MAX_TEXT).filter(|text| !text.is_empty())?;
        let read = At::parse(&text, self.app.ledger.zone());
        read.map_err(|why| self.form.wrong("at", why)).ok()
    }

    /// The point of the log that is meant.
    async fn as_of(&self, at: Option<At>) -> Result<AsOf, Failure> {
        let ledger = &self.app.ledger;
        let now_ms = ledger.clock().now_ms();
        let found = match at {
            Some(at) => at.resolve(ledger.store(), ledger.zone(), now_ms).await,
            None => AsOf::now(ledger.store(), now_ms).await,
        };
        found.map_err(|error| match error {
            AtError::Wrong(why) => Failure::Fields(vec![("at", why)]),
            AtError::Store(error) => error.into(),
        })
    }

    /// What a command is given with; under the request's key, if it has one.
    fn meta(&self, operation: &'static str, canonical: &str) -> Meta {
        let ledger = &self.app.ledger;
        let caller = self.caller.to_string();
        let receipt = |key| (ReceiptKey { caller, operation, key }, ledger.secrets().request_mac(canonical));
        Meta {
            caller: self.caller,
            at: ledger.now(),
            request_id: self.request_id.clone(),
            receipt: self.key.clone().map(receipt),
            job_id: None,
        }
    }

    /// Ends the reading of fields.
    fn checked(&mut self) -> Result<(), Failure> {
        self.form.finish().map(drop).map_err(Failure::Fields)
    }
}

/// What a question is answered.
pub(super) struct Page {
    content_type: &'static str,
    body: Body,
    headers: Vec<(HeaderName, HeaderValue)>,
    people: Vec<Person>,
}

impl Page {
    /// An answer of a type.
    pub(super) fn new(content_type: &'static str, body: impl Into<Body>) -> Self {
        Self { content_type, body: body.into(), headers: Vec::new(), people: Vec::new() }
    }

    /// An answer in JSON.
    pub(super) fn json(value: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_string(value).map_err(|error| Failure::Execute(error.into()))?;
        Ok(Self::new("application/json", body))
    }

    /// The same, where it holds personal data of these people, see [`super::Answer::showing`].
    pub(super) fn showing(mut self, people: Vec<Person>) -> Self {
        self.people = people;
        self
    }

    /// The same with one more header.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<HeaderValue>) -> Self {
        self.headers.push((HeaderName::from_static(name), value.into()));
        self
    }

    /// The same with a header whose value is always this one.
    pub(super) fn with_text(self, name: &'static str, value: &'static str) -> Self {
        self.with(name, HeaderValue::from_static(value))
    }
}

pub(super) fn router() -> Router<App> {
    ALL.iter().fold(Router::new(), |router, resource| {
        let answer = move |State(app): State<App>,
                           Path(parts): Path<HashMap<String, String>>,
                           request: Request| serve(app, resource, parts, request);
        let method = match resource.method {
            Method::Get => get(answer),
            Method::Post => post(answer),
            Method::Delete => delete(answer),
        };
        router.route(resource.path, method)
    })
}

async fn serve(
    app: App,
    resource: &'static Resource,
    parts: HashMap<String, String>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let (language, request_id) = (language(request.headers()), request_id(request.headers()));
    let (timeout, metrics) = (app.options.request_timeout * PATIENCE, app.ledger.metrics().clone());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asker = Asker::of(&app, request.headers());
    let asked = (query, request.headers().clone(), request_id.clone());
    let seen = request.headers().get(header::IF_NONE_MATCH).cloned();
    let mut answering = tokio::spawn(answer(app.clone(), resource, parts, asked, asker.clone()));
    let outcome = match tokio::time::timeout(timeout, &mut answering).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::Panicked),
        Err(_) => {
            // A copy of the ledger that nobody waits for would hold up those who ask next. What was begun is finished.
            if matches!(resource.method, Method::Get) {
                answering.abort();
            }
            Err(Failure::TooSlow)
        }
    };
    let (code, mut response) = match outcome {
        Ok(Page { headers, .. }) if has(&headers, seen.as_ref()) => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            response.headers_mut().extend(headers);
            (0, response)
        }
        Ok(Page { content_type, body, headers, .. }) => {
            let mut response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
            response.headers_mut().extend(headers);
            (0, response)
        }
        Err(failure) => {
            let mut refused = failure.answer(language, &request_id);
            if refused.status == StatusCode::OK {
                refused.status = status_of(refused.wording);
            }
            asker.refused(&app, resource.named(), refused.wording.code);
            refused.wait_until_due(started).await;
            (refused.wording.code, problem_response(&refused, language))
        }
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    metrics.count_request(resource.path, code, started.elapsed().as_secs_f64());
    response
}

/// Whether an answer is one that the client has already, by its tag.
fn has(headers: &[(HeaderName, HeaderValue)], seen: Option<&HeaderValue>) -> bool {
    let seen = seen.and_then(|seen| seen.to_str().ok()).unwrap_or_default();
    let tag = headers.iter().find(|(name, _)| *name == header::ETAG).and_then(|(_, tag)| tag.to_str().ok());
    tag.is_some_and(|tag| {
        seen.split(',').map(|one| one.trim().trim_start_matches("W/")).any(|one| one == tag)
    })
}

/// The HTTP status of a refusal: 400 for what was asked wrongly, 404 for what is not there, 409 for the rest.
fn status_of(wording: &Wording) -> StatusCode {
    match wording.code {
        401 => StatusCode::BAD_REQUEST,
        _ if wording.is_absence() => StatusCode::NOT_FOUND,
        _ => StatusCode::CONFLICT,
    }
}

async fn answer(
    app: App,
    resource: &'static Resource,
    parts: HashMap<String, String>,
    (query, headers, request_id): (String, HeaderMap, String),
    asker: Asker,
) -> Result<Page, Failure> {
    let read_form = || {
        let form = Form::from_form(query.as_bytes());
        let mut form = form.map_err(|_| Failure::Body(StatusCode::BAD_REQUEST, Wrong::BodyUnreadable))?;
        form.put_all(parts);
        Ok::<_, Failure>(form)
    };
    if access::is_open(&resource.action()) {
        // A link: what it shows is all that is asked, whoever follows it.
        return exports::file(app, read_form()?).await;
    }
    let Identified { who, proof, .. } =
        app.identify(&headers, resource.method != Method::Get, &asker).await?;
    let caller = who.caller;
    access::authorize(&who, &resource.action(), Target::Unknown)?;
    let form = read_form()?;
    let key = if resource.method == Method::Get { None } else { idempotency_key(&headers)? };
    let language = language(&headers);
    let (asked, id) = (app.clone(), request_id.clone());
    let ask = Ask { app, caller, proof, who, headers, request_id, key, form, language };
    let action = resource.action();
    let page = run(resource.run, ask, action).await?;
    let shown = Shown { reader: caller, action: resource.named(), people: &page.people, request_id: &id };
    asked.watch.tell(&asked.ledger, shown).await?;
    Ok(page)
}

/// Hands a question to its handler.
async fn run(run: Run, ask: Ask, action: String) -> Result<Page, Failure> {
    match run {
        Run::Events => events::events(ask).await,
        Run::Stream => stream::stream(ask, action).await,
        Run::Tlog(tlog) => tlog::run(tlog, ask).await,
        Run::Keys(keys) => keys::run(keys, ask).await,
        Run::History => history::history(ask).await,
        Run::Deeds => history::deeds(ask).await,
        Run::Readers => history::readers(ask).await,
        Run::CouponAsOf => as_of::coupon_as_of(ask).await,
        Run::MemberAsOf => as_of::member_as_of(ask).await,
        Run::DefinitionAsOf => as_of::definition_as_of(ask).await,
        Run::RouteAsOf => as_of::route_as_of(ask).await,
        Run::Exports(run) => exports::run(run, ask).await,
        Run::Rebuilds(run) => rebuilds::run(run, ask).await,
        Run::Followers => followers::list(ask).await,
        Run::FollowerOrder => followers::order(ask).await,
        Run::Session => session::session(ask),
        Run::Statistics(run) => statistics::run(run, ask).await,
        Run::MachineKeys(run) => machine_keys::run(run, ask).await,
        Run::PartnerKeys(run) => partner_keys::run(run, ask).await,
        Run::Webhooks(run) => webhooks::run(run, ask).await,
    }
}
