//! What stands before every route: how often anybody may ask, and what every answer tells a browser.
//!
//! It hides where a request came from behind proxies, counts in memory, and knows no route's meaning. What must survive a
//! restart or hold over several servers (failed gift codes) is counted in the database, not here.

pub mod address;
pub mod hygiene;
pub mod limits;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;

use super::asker::action_at;
use super::server::Peer;
use super::{App, Asker, Failure, language, problem_response, refusal_response, request_id};
use address::{Proxies, network};
use hygiene::Origin;
use limits::{Class, LimitTable, Limiter, TooOften, Who};

/// Who may come through, and how often.
#[derive(Clone, Debug, Default)]
pub struct GateOptions {
    /// How often anybody may ask; None = as often as he likes.
    pub limits: Option<LimitTable>,
    /// Whose word is taken for where a request came from.
    pub proxies: Proxies,
    /// The sites whose scripts may call.
    pub cors_origins: Vec<Origin>,
}

/// The counting of one router.
struct Gate {
    app: App,
    limiter: Limiter,
    began: Instant,
}

/// The router behind its gate. The order from outside: what every answer carries, other sites' preflights, limits.
pub(super) fn closed(router: Router, app: &App) -> Router {
    let options = &app.options.gate;
    let mut router = router;
    if let Some(table) = &options.limits {
        let (limiter, began) = (Limiter::new(table.clone()), Instant::now());
        let gate = Arc::new(Gate { app: app.clone(), limiter, began });
        router = router.layer(from_fn_with_state(gate, limit));
    }
    if let Some(cors) = hygiene::cors(&options.cors_origins) {
        router = router.layer(cors);
    }
    let is_https = app.options.public_url.starts_with("https://");
    router.layer(from_fn_with_state(is_https, hygiene::dress))
}

async fn limit(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.admit(&request) {
        Ok(()) => next.run(request).await,
        Err((too_often, who)) => gate.refuse(&request, &too_often, who),
    }
}

impl Gate {
    /// The path as the table of routes has it.
    fn path<'a>(&self, request: &'a Request) -> &'a str {
        let path = request.uri().path();
        let below = path.strip_prefix(&self.app.options.base_path);
        below.filter(|below| below.starts_with('/')).unwrap_or(path)
    }

    /// The address first: a flood from one place costs nobody a look at its tokens.
    fn admit(&self, request: &Request) -> Result<(), (TooOften, Option<Who>)> {
        let (class, now) = (Class::of(self.path(request)), self.began.elapsed());
        let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
        if let Some(address) = self.app.options.gate.proxies.client(peer, request.headers()) {
            self.limiter.take(class, Who::Address(network(address)), now).map_err(|often| (often, None))?;
        }
        match self.app.who(request.headers()) {
            Some(who) => self.limiter.take(class, who, now).map_err(|often| (often, Some(who))),
            None => Ok(()),
        }
    }

    fn refuse(&self, request: &Request, too_often: &TooOften, who: Option<Who>) -> Response {
        let (language, request_id) = (language(request.headers()), request_id(request.headers()));
        self.app.ledger.metrics().count_limited(too_often.class.name());
        tracing::debug!(request_id, class = too_often.class.name(), "asked too often");
        let refused = Failure::TooOften(too_often.retry_after_s()).answer(language, &request_id);
        let asker = Asker::default();
        if let Some(Who::Caller(caller)) = who {
            asker.is(caller);
        }
        asker.refused(&self.app, action_at(self.path(request)), refused.wording.code);
        let mut response = if self.path(request).starts_with("/v1/") {
            problem_response(&refused, language)
        } else {
            refusal_response(&refused, language)
        };
        if let Ok(id) = HeaderValue::from_str(&request_id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response
    }
}
