//! The HTTP side: parse → execute → answer. Thin: it knows names, formats and codes, and decides nothing.
//!
//! Every route of the manual stands in one table ([`routes`]), from which the router, the OpenAPI description and
//! docs/api.md are made. The order of checks is the same everywhere: signed in (1001), allowed (1002), parameters (401),
//! then what the command says. One function, [`Failure::answer`], maps errors to the wire.

pub mod as_of;
mod client;
pub mod counter;
pub mod directory;
pub mod form;
pub mod gate;
pub mod import;
pub mod jobs;
pub mod offices;
pub mod openapi;
pub mod operator;
pub mod orders;
pub mod partners;
pub mod routes;
pub mod rules;
pub mod server;
mod signature;
mod site;
pub mod v1;
pub mod witness;

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde_json::{Value, json};

use crate::access::{self, Denied, Principal, Resource};
use crate::audit::receipt::Patience;
use crate::directory::{DirectoryKey, Employee, employee, revoked_tokens};
use crate::entity::Entity;
use crate::erasure::ErasureError;
use crate::identity::{Caller, Token};
use crate::import::MAX_FILE_BYTES;
use crate::ledger::unit::Together;
use crate::ledger::writer::WriteError;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::machine_keys;
use crate::refusal::{self, Language, Refusal, Wording, Wrong};
use crate::store::{ReceiptKey, StoreError};
use crate::value::{hex, random};
use form::Form;
use gate::GateOptions;
use routes::{Route, Run};

/// The largest body that is accepted, files excepted.
pub const MAX_BODY_BYTES: usize = 64 << 10;

/// How many times longer a file may take, to arrive and to be answered, than any other request.
const FILE_PATIENCE: u32 = 20;

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
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a receipt waits for its event to be signed and cosigned.
    pub receipts: Patience,
    /// Who may come through, and how often.
    pub gate: GateOptions,
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
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            receipts: Patience { signature: Duration::from_secs(3), witnesses: 0 },
            gate: GateOptions::default(),
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
    revoked: Arc<RwLock<HashSet<String>>>,
    /// Shops are opened one at a time, so that counting them before tells whether there is room.
    opening_shop: Arc<tokio::sync::Mutex<()>>,
    /// The whole ledger as it was is copied once at a time: each copy takes as much room as the ledger.
    copying: Arc<tokio::sync::Mutex<()>>,
}

impl App {
    /// An app on a ledger.
    #[must_use]
    pub fn new(ledger: Ledger, options: HttpOptions) -> Self {
        Self::with_options(ledger, Arc::new(options))
    }

    fn with_options(ledger: Ledger, options: Arc<HttpOptions>) -> Self {
        let (revoked, opening_shop, copying) = Default::default();
        Self { ledger, options, revoked, opening_shop, copying }
    }

    /// Reads the list of revoked tokens again; every process does so twice a minute.
    pub async fn refresh_revoked(&self) -> Result<(), StoreError> {
        let now_s = self.ledger.clock().now_ms() / 1000;
        let revoked = revoked_tokens(self.ledger.store(), now_s).await?;
        *self.revoked.write().unwrap_or_else(PoisonError::into_inner) = revoked.into_iter().collect();
        Ok(())
    }

    /// Whoever a request proves to come from: by a machine's key, or by a token.
    async fn identify(&self, headers: &HeaderMap) -> Result<(Principal, Option<Employee>), Failure> {
        let shown = shown(headers).ok_or(Failure::NotSignedIn)?;
        if machine_keys::is_key(shown) {
            let (store, now_ms) = (self.ledger.store(), self.ledger.clock().now_ms());
            let machine = machine_keys::identify(store, shown, now_ms).await?;
            return Ok((machine.ok_or(Failure::NotSignedIn)?, None));
        }
        self.principal(self.caller(headers).ok_or(Failure::NotSignedIn)?).await
    }

    /// Whose token a request shows, if it holds; what is no token needs the database to tell whose it is.
    fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let now_ms = self.ledger.clock().now_ms();
        let token = Token::verify(shown(headers)?, self.ledger.secrets(), now_ms)?;
        // A machine shows its key, never a token.
        if matches!(token.caller, Caller::Machine(_)) {
            return None;
        }
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        (!revoked.contains(&token.id)).then_some(token.caller)
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
        let mut router = Router::new().merge(api.clone());
        if !self.options.base_path.is_empty() {
            router = router.nest(&self.options.base_path, api);
        }
        let router = router
            .merge(site::router())
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
    replayed: bool,
}

impl Answer {
    /// An answer with this `data`.
    pub fn new(data: &impl Serialize) -> Result<Self, Failure> {
        let data = serde_json::to_string(data).map_err(|error| Failure::Execute(error.into()))?;
        Ok(Self { data, replayed: false })
    }

    /// The answer to a command that was run, marked where it is a replay.
    pub fn of<A: Entity>(done: &Executed<A>, data: &impl Serialize) -> Result<Self, Failure> {
        Self::new(data).map(|answer| answer.replayed(done.replayed))
    }

    /// Marks the answer as a replay.
    #[must_use]
    pub fn replayed(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }
}

/// Why a call has no answer but a refusal.
#[derive(Debug)]
pub enum Failure {
    /// 1001
    NotSignedIn,
    /// 1002
    NotAllowed,
    /// 401 on fields.
    Fields(Vec<(&'static str, Wrong)>),
    /// 401 on the body, with the HTTP status that says what is wrong with it.
    Body(StatusCode, Wrong),
    /// A code with a sentence of its own.
    Said(&'static Wording, String),
    /// A refusal that is the replay of an earlier answer.
    Replayed(Refusal),
    /// What the ledger says.
    Execute(ExecuteError),
    /// 9004: the path names nothing.
    NotThere,
    /// 9002: the erasure is in the log, and is finished by and by.
    NotErased(ErasureError),
    /// 9002: it goes on, and the same key tells later what became of it.
    TooSlow,
    /// 9001, with when to ask again, in seconds.
    TooOften(u32),
    /// 9999
    Panicked,
}

impl From<ErasureError> for Failure {
    fn from(error: ErasureError) -> Self {
        match error {
            ErasureError::Execute(error) => Self::Execute(error),
            error => Self::NotErased(error),
        }
    }
}

impl From<Denied> for Failure {
    fn from(Denied: Denied) -> Self {
        Self::NotAllowed
    }
}

impl From<ExecuteError> for Failure {
    fn from(error: ExecuteError) -> Self {
        Self::Execute(error)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Execute(refusal.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Execute(error.into())
    }
}

/// A refusal on the wire.
struct Refused {
    status: StatusCode,
    wording: &'static Wording,
    info: Option<Value>,
    data: Value,
    retry_after_s: Option<u32>,
    replayed: bool,
}

impl Refused {
    fn new(status: StatusCode, wording: &'static Wording) -> Self {
        Self { status, wording, info: None, data: Value::Null, retry_after_s: None, replayed: false }
    }

    fn unavailable() -> Self {
        Self { retry_after_s: Some(1), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, &refusal::UNAVAILABLE) }
    }

    fn business(refusal: &Refusal, language: Language) -> Self {
        let mut refused = Self::new(StatusCode::OK, refusal.wording());
        match refusal {
            Refusal::Field { field, why } => {
                refused.info = Some(json!({ *field: why.text(field, language) }));
            }
            Refusal::AlreadyUsed { redemption_id, at_ms, shop_id } => {
                refused.data = json!({"id": redemption_id, "create_date": at_ms / 1000, "shop_id": shop_id});
            }
            Refusal::WrongGiftCode { attempts_left } => {
                refused.data = json!({"attempts_left": attempts_left});
            }
            Refusal::RightNotHeld => refused.status = StatusCode::FORBIDDEN,
            Refusal::TooManyAttempts => {
                refused.status = StatusCode::TOO_MANY_REQUESTS;
                refused.retry_after_s = Some(600);
            }
            _ => {}
        }
        refused
    }
}

impl Failure {
    /// The one place where errors become answers; what is our fault is logged here, once.
    fn answer(&self, language: Language, request_id: &str) -> Refused {
        match self {
            Self::NotSignedIn => Refused::new(StatusCode::UNAUTHORIZED, &refusal::NOT_SIGNED_IN),
            Self::NotAllowed => Refused::new(StatusCode::FORBIDDEN, &refusal::NOT_ALLOWED),
            Self::NotThere => Refused::new(StatusCode::NOT_FOUND, &refusal::NO_SUCH_ROUTE),
            Self::TooSlow => Refused::unavailable(),
            Self::TooOften(retry_after_s) => Refused {
                retry_after_s: Some(*retry_after_s),
                ..Refused::new(StatusCode::TOO_MANY_REQUESTS, &refusal::TOO_MANY_REQUESTS)
            },
            Self::NotErased(error) => {
                tracing::error!(%error, request_id, "an erasure is in the log but not finished");
                Refused::unavailable()
            }
            Self::Panicked => {
                tracing::error!(request_id, "a handler panicked");
                Refused::internal(request_id)
            }
            Self::Fields(errors) => {
                let info =
                    errors.iter().map(|(field, why)| ((*field).to_owned(), why.text(field, language).into()));
                Refused {
                    info: Some(Value::Object(info.collect())),
                    ..Refused::new(StatusCode::OK, &refusal::BAD_PARAMETERS)
                }
            }
            Self::Body(status, why) => Refused {
                info: Some(json!({"body": why.text("body", language)})),
                ..Refused::new(*status, &refusal::BAD_PARAMETERS)
            },
            Self::Said(wording, sentence) => {
                Refused { info: Some(sentence.as_str().into()), ..Refused::new(StatusCode::OK, wording) }
            }
            Self::Replayed(refusal) => Refused { replayed: true, ..Refused::business(refusal, language) },
            Self::Execute(error) => match error {
                ExecuteError::Refused(refusal) => Refused::business(refusal, language),
                ExecuteError::Conflict => Refused::new(StatusCode::OK, &refusal::CHANGED_MEANWHILE),
                ExecuteError::Busy
                | ExecuteError::ShuttingDown
                | ExecuteError::Write(
                    WriteError::Unavailable(_) | WriteError::Unknown(_) | WriteError::Closed,
                ) => Refused::unavailable(),
                ExecuteError::Read(source) => {
                    tracing::error!(request_id, error = %source, "the ledger cannot be read");
                    match source.as_ref() {
                        StoreError::Corrupt { .. } => Refused::internal(request_id),
                        _ => Refused::unavailable(),
                    }
                }
                ExecuteError::Write(WriteError::Rejected(_))
                | ExecuteError::Corrupt(_)
                | ExecuteError::Encode(_) => {
                    tracing::error!(request_id, %error, "internal error");
                    Refused::internal(request_id)
                }
            },
        }
    }
}

impl Refused {
    /// What it says to people, or field by field.
    fn info(&self, language: Language) -> Value {
        self.info.clone().unwrap_or_else(|| self.wording.text(language).into())
    }

    /// The answer with what it tells clients in its head.
    fn headed(&self, mut response: Response) -> Response {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }

    fn internal(request_id: &str) -> Self {
        Self {
            data: json!({"request_id": request_id}),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, &refusal::INTERNAL)
        }
    }
}

/// What a request shows of who it comes from: the bearer's, or in the manual's own header.
fn shown(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    bearer.or_else(|| text("token"))
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
    let started = Instant::now();
    let language = language(request.headers());
    let request_id = request_id(request.headers());
    let timeout = app.options.request_timeout * patience(route);
    let metrics = app.ledger.metrics().clone();
    // A task of its own: what was accepted is finished even if the client goes away.
    let answering = tokio::spawn(answer(app, route, request, request_id.clone()));
    let outcome = match tokio::time::timeout(timeout, answering).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(Failure::Panicked),
        Err(_) => Err(Failure::TooSlow),
    };
    let (code, mut response) = match outcome {
        Ok(answer) => (0, success(&answer)),
        Err(failure) => {
            let refused = failure.answer(language, &request_id);
            (refused.wording.code, refusal_response(&refused, language))
        }
    };
    if let Ok(id) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    metrics.count_request(route.path, code, started.elapsed().as_secs_f64());
    tracing::debug!(request_id, route = route.path, code, elapsed = ?started.elapsed(), "answered");
    response
}

async fn answer(
    app: App,
    route: &'static Route,
    request: Request,
    request_id: String,
) -> Result<Answer, Failure> {
    let (who, employee, request) = signature::admit(&app, request).await?;
    let caller = who.caller;
    access::authorize(&who, route.path, Resource::Unknown)?;
    let key = if route.writes { idempotency_key(request.headers())? } else { None };
    let language = language(request.headers());
    let form = read_form(&app, route, request).await?;
    let at = app.ledger.now();
    let meta = Meta { caller, at, request_id, receipt: None, job_id: None };
    let (canonical, operation) = (String::new(), route.path);
    let call = Call { app, caller, who, employee, form, meta, key, operation, canonical, language };
    run(route, call).await
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
        Run::Offices(run) => offices::run(run, call).await,
    }
}

fn patience(route: &Route) -> u32 {
    if route.takes_a_file() { FILE_PATIENCE } else { 1 }
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

async fn read_form(app: &App, route: &Route, request: Request) -> Result<Form, Failure> {
    let content_type =
        request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("?").to_owned());
    let limit = if route.takes_a_file() { MAX_FILE_BYTES } else { MAX_BODY_BYTES };
    let (parts, body) = request.into_parts();
    let query = parts.uri.query().unwrap_or_default();
    let body = read_body(app, (limit, patience(route)), &parts.headers, body).await?;
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
        "text/csv" if route.takes_a_file() => Form::from_file(query, body),
        _ => return Err(Failure::Body(StatusCode::UNSUPPORTED_MEDIA_TYPE, Wrong::BodyType)),
    };
    form.map_err(|why| Failure::Fields(vec![("body", why)]))
}

fn no_such_route(status: StatusCode, headers: &HeaderMap) -> Response {
    refusal_response(&Refused::new(status, &refusal::NO_SUCH_ROUTE), language(headers))
}

fn success(answer: &Answer) -> Response {
    let body = format!(r#"{{"code":0,"info":"成功","data":{}}}"#, answer.data);
    let mut response = json_response(StatusCode::OK, body);
    if answer.replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn refusal_response(refused: &Refused, language: Language) -> Response {
    let body = json!({"code": refused.wording.code, "info": refused.info(language), "data": refused.data});
    refused.headed(json_response(refused.status, body.to_string()))
}

/// The same as a problem (RFC 9457): what the envelope says stands beside the standard's members.
fn problem_response(refused: &Refused, language: Language) -> Response {
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
