//! The HTTP side: parse → execute → answer. Thin: it knows names, formats and codes, and decides nothing.
//!
//! Every route of the manual stands in one table ([`routes`]), from which the router, the OpenAPI description and
//! docs/api.md are made. The order of checks is the same everywhere: signed in (1001), allowed (1002), parameters (401),
//! then what the command says. One function, [`Failure::answer`], maps errors to the wire.

pub mod account;
pub mod approvals;
pub mod as_of;
mod asker;
mod client;
pub mod counter;
pub mod directory;
mod failure;
pub mod form;
pub mod gate;
mod identify;
pub mod import;
pub mod jobs;
pub mod offices;
mod oidc;
pub mod openapi;
pub mod operator;
pub mod orders;
pub mod partners;
mod render;
pub mod routes;
pub mod rules;
pub mod server;
mod setup;
mod signature;
mod site;
pub mod statistics;
pub mod v1;
pub mod wechat;
pub mod witness;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};

use crate::access::{self, Principal, Resource};
use crate::approving::Limits;
use crate::audit::receipt::Patience;
use crate::directory::{DirectoryKey, Employee, employee, revoked_tokens};
use crate::entity::Entity;
use crate::exports::ExportPlace;
use crate::feeds::tail::Tail;
use crate::feeds::webhooks::WebhookPolicy;
use crate::identity::Caller;
use crate::import::MAX_FILE_BYTES;
use crate::ledger::unit::Together;
use crate::ledger::{Executed, Ledger, Meta};
use crate::oidc::{OidcOptions, Provider};
use crate::reading::Person;
use crate::refusal::{self, Language, Wrong};
use crate::sign_in::SignIn;
use crate::store::{ReceiptKey, StoreError};
use crate::value::{hex, random};
use crate::watch::{Shown, Watch};
use crate::wechat::Wechat;
use asker::Asker;
pub use failure::Failure;
use failure::Refused;
use form::Form;
use gate::GateOptions;
pub use identify::{Identified, Proof};
use render::{problem_response, refusal_response, success};
use routes::{Route, Run};
pub use v1::stream::StreamOptions;

/// The largest body that is accepted, files excepted.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// How many times longer a file may take, to arrive and to be answered, than any other request.
const FILE_PATIENCE: u32 = 20;

/// Exports that are answered at once, at a time.
const EXPORTS_AT_A_TIME: usize = 2;

/// Questions to the statistics that are answered at a time; the others wait.
const QUESTIONS_AT_A_TIME: usize = 2;

/// What the HTTP side needs to know beside the ledger.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// Under which the routes are served as well, for example `/alias/api/v1`; empty = only at the root.
    pub base_path: String,
    /// What clients put before a path: it goes into the shops' QR codes.
    pub public_url: String,
    /// How long a gift waits for its receiver.
    pub gift_lapse_ms: i64,
    /// How long after a redemption it can be reversed.
    pub reverse_within_ms: i64,
    /// Whether employees redeem only by the code that a member shows.
    pub counter_codes_only: bool,
    /// How many shops may be opened.
    pub max_shops: i64,
    /// Above which numbers one person's word is not enough.
    pub approvals: Limits,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a receipt waits for its event to be signed and cosigned.
    pub receipts: Patience,
    /// Who may come through, and how often.
    pub gate: GateOptions,
    /// Through which members sign in; None = not through WeChat.
    pub wechat: Option<Arc<Wechat>>,
    /// The provider of OpenID Connect whose word lets in.
    pub oidc: Option<OidcOptions>,
    /// How streams of events are served.
    pub streams: StreamOptions,
    /// Where webhooks may lead.
    pub webhooks: WebhookPolicy,
    /// Where files of exports lie.
    pub exports: ExportPlace,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            base_path: String::new(),
            public_url: "http://127.0.0.1:8787".to_owned(),
            gift_lapse_ms: 24 * 3_600_000,
            reverse_within_ms: 24 * 3_600_000,
            counter_codes_only: false,
            max_shops: 1_000,
            approvals: Limits::default(),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            receipts: Patience { signature: Duration::from_secs(3), witnesses: 0 },
            gate: GateOptions::default(),
            wechat: None,
            oidc: None,
            streams: StreamOptions::default(),
            webhooks: WebhookPolicy::default(),
            exports: ExportPlace::default(),
        }
    }
}

/// Everything a request may touch. Cheap to clone.
#[derive(Clone)]
pub struct App {
    /// The ledger.
    pub ledger: Ledger,
    /// Settings.
    pub options: Arc<HttpOptions>,
    /// Who lets people in.
    pub sign_in: Arc<SignIn>,
    /// What is told of: who reads personal data, and who is refused.
    pub watch: Arc<Watch>,
    /// The provider of OpenID Connect whose word lets in.
    provider: Option<Arc<Provider>>,
    revoked: Arc<RwLock<HashSet<String>>>,
    /// Shops are opened one at a time, so that counting them before tells whether there is room.
    opening_shop: Arc<tokio::sync::Mutex<()>>,
    /// The whole ledger as it was is copied once at a time: each copy takes as much room as the ledger.
    copying: Arc<tokio::sync::Mutex<()>>,
    /// The log's end, for those who wait for what comes.
    tail: Arc<Tail>,
    stream_places: Arc<Semaphore>,
    /// Whether streams are to end.
    closing: watch::Sender<bool>,
    /// Exports that are answered at once take turns.
    exporting: Arc<Semaphore>,
    /// Questions to the statistics take turns: each may read much.
    asking: Arc<Semaphore>,
}

impl App {
    /// An app on a ledger.
    #[must_use]
    pub fn new(ledger: Ledger, options: HttpOptions) -> Self {
        Self::with_options(ledger, Arc::new(options))
    }

    fn with_options(ledger: Ledger, options: Arc<HttpOptions>) -> Self {
        let (revoked, opening_shop, copying, watch) = Default::default();
        let sign_in = Arc::new(SignIn::new(ledger.clone()));
        let provider = options.oidc.clone().map(|options| Arc::new(Provider::new(options)));
        let tail = Arc::new(Tail::new(ledger.store().clone()));
        let stream_places = Arc::new(Semaphore::new(options.streams.max));
        let closing = watch::Sender::new(false);
        let exporting = Arc::new(Semaphore::new(EXPORTS_AT_A_TIME));
        let asking = Arc::new(Semaphore::new(QUESTIONS_AT_A_TIME));
        Self {
            ledger,
            options,
            sign_in,
            watch,
            provider,
            revoked,
            opening_shop,
            copying,
            tail,
            stream_places,
            closing,
            exporting,
            asking,
        }
    }

    /// Ends every stream of events: each would outlast a shutdown.
    pub fn end_streams(&self) {
        self.closing.send_replace(true);
    }

    /// Reads the list of revoked tokens again; every process does so twice a minute.
    pub async fn refresh_revoked(&self) -> Result<(), StoreError> {
        let now_s = self.ledger.clock().now_ms() / 1000;
        let revoked = revoked_tokens(self.ledger.store(), now_s).await?;
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked.into_iter().collect();
        Ok(())
    }

    /// Whoever calls, with what he was given, and what the directory knows of an employee. That he has left is part of who
    /// may call, on every route and before anything else is asked: his token may hold for long. That the directory does
    /// not know him is asked with what exists. Read anew with every request, so that what is given or taken counts with the
    /// next one on every server.
    async fn principal(&self, caller: Caller) -> Result<(Principal, Option<Employee>), Failure> {
        let Caller::Employee(id) = caller else { return Ok((Principal::plain(caller), None)) };
        let Some(employee) = employee(self.ledger.store(), id).await? else {
            return Ok((Principal::plain(caller), None));
        };
        if !employee.active {
            return Err(Failure::NotAllowed);
        }
        let place = &employee.place;
        let who = Principal::employee(id, employee.shop_id, place.manager, place.rights.clone());
        Ok((who, Some(employee)))
    }

    /// Every route, at the root and under the base path.
    pub fn router(&self) -> Router {
        let api = routes::ALL.iter().fold(Router::new(), |router, route| {
            let serve = move |State(app): State<Self>, request: Request| serve(app, route, request);
            router.route(route.path, post(serve))
        });
        let api = api.merge(wechat::router());
        let mut router = Router::new().merge(api.clone());
        if !self.options.base_path.is_empty() {
            router = router.nest(&self.options.base_path, api);
        }
        let router = router
            .merge(site::router())
            .merge(setup::router())
            .merge(oidc::router())
            .merge(v1::router())
            .fallback(|headers: HeaderMap| async move { no_such_route(StatusCode::NOT_FOUND, &headers) })
            .method_not_allowed_fallback(|headers: HeaderMap| async move {
                no_such_route(StatusCode::METHOD_NOT_ALLOWED, &headers)
            })
            .with_state(self.clone())
            .merge(site::docs());
        gate::closed(router, self)
    }
}

/// One request, on its way to a handler.
pub struct Call {
    /// Everything it may touch.
    pub app: App,
    /// Who calls.
    pub caller: Caller,
    /// The same, with his role, where he works, and what he was given.
    pub who: Principal,
    /// By what he has proved who he is; None where the past is asked in his name.
    pub proof: Option<Proof>,
    /// The employee who calls, where one does and the directory knows him.
    pub employee: Option<Employee>,
    /// Its fields.
    pub form: Form,
    meta: Meta,
    key: Option<String>,
    operation: &'static str,
    canonical: String,
    language: Language,
}

impl Call {
    /// Whether the caller may do this to that.
    fn may(&self, resource: Resource) -> Result<(), Failure> {
        Ok(access::authorize(&self.who, self.operation, resource)?)
    }

    /// The member who calls; the table has seen to it that it is one.
    fn member_id(&self) -> i64 {
        match self.caller {
            Caller::Member(id) => id,
            _ => 0,
        }
    }

    /// Now, in milliseconds.
    fn now_ms(&self) -> i64 {
        self.meta.at.ms
    }

    /// Ends the reading of fields: errors answer 401; otherwise the request's fingerprint joins its key.
    fn checked(&mut self) -> Result<(), Failure> {
        self.canonical = self.form.finish().map_err(Failure::Fields)?;
        let (caller, operation) = (self.caller.to_string(), self.operation);
        let receipt = |key| (ReceiptKey { caller, operation, key }, self.request_mac());
        self.meta.receipt = self.key.clone().map(receipt);
        Ok(())
    }

    /// The fingerprint of the request's fields.
    fn request_mac(&self) -> String {
        self.app.ledger.secrets().request_mac(&self.canonical)
    }

    /// Runs a command on a stream.
    async fn execute<A: Entity>(&self, id: i64, command: &A::Command) -> Result<Executed<A>, Failure> {
        Ok(self.app.ledger.execute::<A>(id, command, &self.meta).await?)
    }

    /// Runs a command that changes several streams.
    async fn execute_together<T: Together>(&self, together: &T) -> Result<Executed<T::Primary>, Failure> {
        Ok(self.app.ledger.execute_together(together, &self.meta).await?)
    }

    /// The receipt key of a write to the directory.
    fn directory_key(&self) -> Option<DirectoryKey> {
        self.meta.receipt.as_ref().map(|(key, request_mac)| DirectoryKey {
            caller: key.caller.clone(),
            operation: key.operation,
            key: key.key.clone(),
            request_mac: request_mac.clone(),
        })
    }
}

/// What a call answers.
#[derive(Debug)]
pub struct Answer {
    data: String,
    people: Vec<Person>,
    replayed: bool,
    cookie: Option<HeaderValue>,
    as_of: Option<i64>,
}

impl Answer {
    /// An answer with this `data`.
    pub fn new(data: &impl Serialize) -> Result<Self, Failure> {
        let data = serde_json::to_string(data).map_err(|error| Failure::Execute(error.into()))?;
        Ok(Self { data, people: Vec::new(), replayed: false, cookie: None, as_of: None })
    }

    /// The answer to a command that was run, marked where it is a replay.
    pub fn of<A: Entity>(done: &Executed<A>, data: &impl Serialize) -> Result<Self, Failure> {
        Self::new(data).map(|answer| answer.replayed(done.replayed))
    }

    /// The same, where it holds personal data of these people: that somebody else has read it is told before it leaves. Personal
    /// is what an erasure takes of a member, and what the directory knows of an employee.
    #[must_use]
    pub fn showing(mut self, people: impl IntoIterator<Item = Person>) -> Self {
        self.people.extend(people);
        self
    }

    /// The same, with a cookie for browsers.
    #[must_use]
    fn with_cookie(mut self, cookie: &str) -> Self {
        self.cookie = HeaderValue::from_str(cookie).ok();
        self
    }

    /// The same, with the last position that its figures count.
    #[must_use]
    fn counted_to(self, position: i64) -> Self {
        Self { as_of: Some(position), ..self }
    }

    /// Marks the answer as a replay.
    #[must_use]
    pub fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }
}

fn language(headers: &HeaderMap) -> Language {
    let wanted =
        headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = wanted.split([',', ';']).next().unwrap_or_default().trim().to_ascii_lowercase();
    match first.as_str() {
        "zh" | "zh-cn" | "zh-sg" | "zh-hans" | "zh-hans-cn" => Language::Simplified,
        first if first == "en" || first.starts_with("en-") => Language::English,
        _ => Language::Traditional,
    }
}

/// A client's own id for the request if it has a sane shape, or one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let theirs = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        (1..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    theirs.filter(sane).map_or_else(|| hex(&random::<8>()), ToOwned::to_owned)
}

async fn serve(app: App, route: &'static Route, request: Request) -> Response {
    let (language, request_id) = (language(request.headers()), request_id(request.headers()));
    let timeout = app.options.request_timeout * patience(route.takes_a_file());
    let asker = Asker::of(&app, request.headers());
    let answering = Box::pin(answer(app.clone(), route, request, (request_id.clone(), asker.clone())));
    let answering = async move { answering.await.map(|answer| success(&answer)) };
    respond((&app, &asker), route.path, (language, request_id), timeout, answering).await
}

/// Puts on the wire what a call comes to.
async fn respond(
    (app, asker): (&App, &Asker),
    path: &'static str,
    (language, request_id): (Language, String),
    timeout: Duration,
    answering: impl Future<Output = Result<Response, Failure>> + Send + 'static,
) -> Response {
    let started = Instant::now();
    // A task of its own: what was accepted is finished even if the client goes away.
    let answering = tokio::spawn(answering);
    let outcome = match tokio::time::timeout(timeout, answering).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::Panicked),
        Err(_) => Err(Failure::TooSlow),
    };
    let (code, mut response) = match outcome {
        Ok(response) => (0, response),
        Err(failure) => {
            let refused = failure.answer(language, &request_id);
            asker.refused(app, path, refused.wording.code);
            refused.wait_until_due(started).await;
            (refused.wording.code, refusal_response(&refused, language))
        }
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    app.ledger.metrics().count_request(path, code, started.elapsed().as_secs_f64());
    tracing::debug!(request_id, route = path, code, elapsed = ?started.elapsed(), "answered");
    response
}

async fn answer(
    app: App,
    route: &'static Route,
    request: Request,
    (request_id, asker): (String, Asker),
) -> Result<Answer, Failure> {
    if access::is_open(route.path) {
        return account::answer_open(app, route, request, request_id).await;
    }
    let (Identified { who, employee, proof }, request) = signature::admit(&app, request, &asker).await?;
    let caller = who.caller;
    access::authorize(&who, route.path, Resource::Unknown)?;
    let key = if route.writes { idempotency_key(request.headers())? } else { None };
    let language = language(request.headers());
    let form = read_form(&app, request, route.takes_a_file()).await?;
    let at = app.ledger.now();
    let meta = Meta { caller, at, request_id: request_id.clone(), receipt: None, job_id: None };
    let (canonical, operation) = (String::new(), route.path);
    let proof = Some(proof);
    let asked = app.clone();
    let call = Call { app, caller, who, proof, employee, form, meta, key, operation, canonical, language };
    let answer = run(route, call).await?;
    let shown = Shown { reader: caller, action: route.path, people: &answer.people, request_id: &request_id };
    asked.watch.tell(&asked.ledger, shown).await?;
    Ok(answer)
}

/// Hands a call to the handler of its route.
async fn run(route: &Route, call: Call) -> Result<Answer, Failure> {
    match route.run {
        Run::Client(run) => client::run(run, call).await,
        Run::Operator(run) => operator::run(run, call).await,
        Run::Jobs(run) => jobs::run(run, call).await,
        Run::Counter(run) => counter::run(run, call).await,
        Run::Orders(run) => orders::run(run, call).await,
        Run::Import(run) => import::run(run, call).await,
        Run::Directory(run) => directory::run(run, call).await,
        Run::Rules(run) => rules::run(run, call).await,
        Run::Partners(run) => partners::run(run, call).await,
        Run::Account(run) => account::run(run, call).await,
        // The table says who may call these, and it is whoever asks.
        Run::Open(_) => Err(Failure::NotAllowed),
        Run::Offices(run) => offices::run(run, call).await,
        Run::Statistics(run) => statistics::run(run, call).await,
        Run::Approvals(run) => approvals::run(run, call).await,
    }
}

fn patience(takes_a_file: bool) -> u32 {
    if takes_a_file { FILE_PATIENCE } else { 1 }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    match key.to_str() {
        Ok(key) if (6..=64).contains(&key.len()) && key.bytes().all(allowed) => Ok(Some(key.to_owned())),
        _ => Err(Failure::Fields(vec![("Idempotency-Key", Wrong::NotAKey)])),
    }
}

/// Reads a body that may have so many bytes, and take so many times as long as any.
async fn read_body(
    app: &App,
    (limit, patience): (usize, u32),
    headers: &HeaderMap,
    body: Body,
) -> Result<Bytes, Failure> {
    let too_large = || Failure::Body(StatusCode::PAYLOAD_TOO_LARGE, Wrong::BodyTooLarge);
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > limit as u64) {
        return Err(too_large());
    }
    let reading = Limited::new(body, limit).collect();
    match tokio::time::timeout(app.options.body_timeout * patience, reading).await {
        Err(_) => Err(Failure::Body(StatusCode::REQUEST_TIMEOUT, Wrong::BodyTooSlow)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Failure::Body(StatusCode::BAD_REQUEST, Wrong::BodyUnreadable)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
    }
}

async fn read_form(app: &App, request: Request, takes_a_file: bool) -> Result<Form, Failure> {
    let content_type =
        request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?").to_owned());
    let limit = if takes_a_file { MAX_FILE_BYTES } else { MAX_BODY_BYTES };
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let body = read_body(app, (limit, patience(takes_a_file)), &parts.headers, body).await?;
    let Some(content_type) = content_type else {
        // No body needs no type: routes without required fields may be called bare.
        return if body.is_empty() {
            Ok(Form::default())
        } else {
            Err(Failure::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, Wrong::BodyType))
        };
    };
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let form = match essence.as_str() {
        "application/json" => Form::from_json(&body),
        "application/x-www-form-urlencoded" => Form::from_form(&body),
        "text/csv" if takes_a_file => Form::from_file(query, body),
        _ => return Err(Failure::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, Wrong::BodyType)),
    };
    form.map_err(|why| Failure::Fields(vec![("body", why)]))
}

fn no_such_route(status: StatusCode, headers: &HeaderMap) -> Response {
    refusal_response(&Refused::new(status, &refusal::NO_SUCH_ROUTE), language(headers))
}
