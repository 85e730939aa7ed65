//! The ledger from outside: the real program over HTTP, its log by SQL, and many callers at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use coupon_ledger::clock::Clock;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::secrets::Secrets;
use serde_json::Value;
use tokio::sync::Barrier;

use crate::harness::{Home, Reply, Server};
use crate::leaks::Vault;

/// No test waits longer than this for a condition.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A client of a server, with tokens that it signs itself. Clones share their connections.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    url: String,
    secrets: Secrets,
    vault: Weak<Vault>,
}

impl Api {
    pub fn new(home: &Home, server: &Server) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let secret = std::fs::read_to_string(home.path().join("secret.key")).unwrap();
        Self {
            http,
            url: server.url.clone(),
            secrets: Secrets::parse(&secret).unwrap(),
            vault: Arc::downgrade(&home.vault),
        }
    }

    /// A call; an error when no whole answer came.
    pub async fn try_call(
        &self,
        caller: Caller,
        key: Option<&str>,
        route: &str,
        body: &Value,
    ) -> Result<Reply, reqwest::Error> {
        let token = self.token(caller);
        self.note(|vault| vault.note_fields(body));
        let mut request = self.http.post(format!("{}{route}", self.url)).bearer_auth(token);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let response = request.json(body).send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.json().await?;
        self.note(|vault| vault.note_fields(&body));
        Ok(Reply { status, headers, body })
    }

    fn token(&self, caller: Caller) -> String {
        let token = Token::new(caller, Clock::System.now_ms(), 86_400).sign(&self.secrets);
        self.note(|vault| vault.note(&token));
        token
    }

    fn note(&self, note: impl FnOnce(&Vault)) {
        if let Some(vault) = self.vault.upgrade() {
            note(&vault);
        }
    }

    pub async fn call(&self, caller: Caller, route: &str, body: Value) -> Reply {
        self.try_call(caller, None, route, &body).await.unwrap()
    }

    pub async fn keyed(&self, caller: Caller, key: &str, route: &str, body: Value) -> Reply {
        self.try_call(caller, Some(key), route, &body).await.unwrap()
    }

    pub async fn operator(&self, route: &str, body: Value) -> Reply {
        self.call(Caller::Operator, route, body).await
    }

    /// A GET; an error when no whole answer came.
    pub async fn try_get(&self, caller: Caller, path: &str) -> Result<(u16, String), reqwest::Error> {
        let token = self.token(caller);
        let response = self.http.get(format!("{}{path}", self.url)).bearer_auth(token).send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    pub async fn get(&self, caller: Caller, path: &str) -> (u16, String) {
        self.try_get(caller, path).await.unwrap()
    }
}

/// The number that a query answers.
pub async fn count(home: &Home, sql: &str) -> i64 {
    home.sql(sql).await.unwrap()[0].parse().unwrap()
}

/// How many events of a type the log holds.
pub async fn events(home: &Home, event_type: &str) -> i64 {
    count(home, &format!("SELECT count(*) FROM events WHERE event_type = '{event_type}'")).await
}

/// Positions run from 1 to the head's, and every stream's sequence from 1 to its length.
pub async fn assert_gapless(home: &Home) {
    let events = count(home, "SELECT count(*) FROM events").await;
    let first = count(home, "SELECT min(position) FROM events").await;
    let last = count(home, "SELECT max(position) FROM events").await;
    let head = count(home, "SELECT position FROM log_head").await;
    assert_eq!((first, last, head), (1, events, events), "a position is missing among {events} events");
    let broken = home
        .sql(
            "SELECT aggregate_id FROM events GROUP BY aggregate_type, aggregate_id
             HAVING min(sequence) <> 1 OR max(sequence) <> count(*)",
        )
        .await;
    assert_eq!(broken.unwrap(), Vec::<String>::new(), "streams with a gap");
}

/// Runs all of these, each on a task of its own, from the same moment on.
pub async fn all_at_once<T: Send + 'static>(
    calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let calls: Vec<_> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len()));
    let waiting = calls.into_iter().map(|call| {
        let start = start.clone();
        tokio::spawn(async move {
            start.wait().await;
            call.await
        })
    });
    let waiting: Vec<_> = waiting.collect();
    let mut answers = Vec::new();
    for task in waiting {
        answers.push(task.await.unwrap());
    }
    answers
}

/// How many answers have each code.
pub fn tally<'a>(replies: impl IntoIterator<Item = &'a Reply>) -> BTreeMap<i64, usize> {
    let mut codes = BTreeMap::new();
    for reply in replies {
        *codes.entry(reply.code()).or_default() += 1;
    }
    codes
}

/// Polls until it is so.
pub async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
