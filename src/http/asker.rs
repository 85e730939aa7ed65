//! Who asks, as far as it has come out by the time that he is answered: what refusals are told of.

use std::sync::{Arc, OnceLock};

use axum::http::HeaderMap;

use super::{App, identify, routes, v1, wechat};
use crate::identity::Caller;

/// What paths that are none of ours go by, and pages that nobody signs in for.
const ELSEWHERE: &str = "elsewhere";

/// What everything under `/v1` goes by that was held back before anybody looked at its path.
const RESOURCES: &str = "/v1";

/// Whoever asks. Cheap to clone, and each clone learns what any of them does.
#[derive(Clone, Debug, Default)]
pub(super) struct Asker {
    /// Whether he has shown anything to say who he is.
    shows: bool,
    caller: Arc<OnceLock<Caller>>,
}

impl Asker {
    /// Somebody of whom nothing is known but whether he shows something.
    pub(super) fn of(app: &App, headers: &HeaderMap) -> Self {
        let by_header =
            ["authorization", "token", "x-signature"].iter().any(|name| headers.contains_key(*name));
        let shows = by_header || identify::cookie(headers, app.cookie_name()).is_some();
        Self { shows, caller: Arc::default() }
    }

    /// He has proved that he is this one.
    pub(super) fn is(&self, caller: Caller) {
        let _ = self.caller.set(caller);
    }

    /// Counts what he was answered, if it is a refusal of access. Whoever shows nothing has tried nothing.
    pub(super) fn refused(&self, app: &App, action: &'static str, code: i64) {
        let is_told = match code {
            1001 => self.shows,
            1002 | 1003 | 9001 => true,
            _ => false,
        };
        if is_told {
            let now_ms = app.ledger.clock().now_ms();
            app.watch.refused(self.caller.get().copied(), action, code, now_ms);
        }
    }
}

/// Our name for what is at a path: never the path itself, which a caller can make up.
pub(super) fn action_at(path: &str) -> &'static str {
    let of_manual = routes::ALL.iter().map(|route| route.path);
    let of_wechat = wechat::OPEN.iter().map(|open| open.path);
    let others = ["/setup", "/oidc/login", "/oidc/callback"];
    let mut known =
        of_manual.chain(of_wechat).chain(v1::ALL.iter().map(|resource| resource.path)).chain(others);
    known.find(|known| *known == path).unwrap_or(if path.starts_with("/v1/") { RESOURCES } else { ELSEWHERE })
}
