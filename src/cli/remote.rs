//! Where commands that write go: into the ledger, or to the server that holds the embedded one, over its own HTTP side.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use super::Failed;
use crate::access::{self, Principal, Resource};
use crate::clock::Clock;
use crate::config::running_server;
use crate::identity::{Caller, Token};
use crate::ledger::{ExecuteError, Ledger, LedgerOptions, Meta, keys};
use crate::secrets::Secrets;
use crate::store::{self, OpenError};
use crate::value::{hex, random};

/// How long a resource of `/v1` may take.
const PATIENCE: Duration = Duration::from_secs(900);

/// Whoever takes what a command writes.
pub(super) enum Holder {
    /// The ledger, opened here.
    Ledger(Ledger),
    /// The server that holds it.
    Server(Box<Remote>),
}

impl Holder {
    /// Opens the ledger, or finds the server that has it open.
    pub(super) async fn find(context: &super::Context, secrets: Secrets) -> Result<Self, Failed> {
        let clock = Clock::System;
        match store::open(&context.store_options(&secrets, clock.now_ms())).await {
            Ok(store) => {
                let seal = context.seal(&store, &secrets).await?;
                let zone = context.zone;
                let options = LedgerOptions { store, secrets, seal, zone, clock, capacity: 64 };
                let ledger = Ledger::start(options);
                keys::follow(&ledger).await?;
                Ok(Self::Ledger(ledger))
            }
            Err(error @ OpenError::InUse { .. }) => match running_server(&context.folder) {
                Some(server) => {
                    eprintln!("coupon-ledger: through the server at {}", server.url);
                    context.learn_keys(&secrets).await;
                    Ok(Self::Server(Box::new(Remote::new(&server.url, &secrets))))
                }
                None => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn close(&self) {
        if let Self::Ledger(ledger) = self {
            ledger.store().close().await;
        }
    }
}

/// Whoever runs a command on the machine of a ledger is an operator there: he, if the table of who may do what lets
/// operators do this action to all there is.
pub(super) fn as_operator(action: &str) -> Result<Caller, Failed> {
    let who = Principal::plain(Caller::Operator);
    access::authorize(&who, action, Resource::Whole).map_err(|denied| Failed::Refused(denied.into()))?;
    Ok(who.caller)
}

/// The metadata of what an operator does on the ledger's own machine.
pub(super) fn meta_of_operator(ledger: &Ledger, action: &str) -> Result<Meta, Failed> {
    let caller = as_operator(action)?;
    Ok(Meta { caller, at: ledger.now(), request_id: hex(&random::<8>()), receipt: None, job_id: None })
}

/// What the ledger says no to is a refusal; everything else could not run.
pub(super) fn refused_or_failed(error: ExecuteError) -> Failed {
    match error {
        ExecuteError::Refused(_) => Failed::Refused(error.into()),
        error => error.into(),
    }
}

/// A running server, spoken to as an operator.
pub(super) struct Remote {
    url: String,
    secrets: Secrets,
    client: Client<HttpConnector, Full<Bytes>>,
    /// The session of whoever has signed in; None = as an operator without a name.
    session: Option<String>,
}

/// What it answered.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    /// 0 = done.
    pub(super) code: i64,
    /// In words, or by field.
    #[serde(default)]
    pub(super) info: Value,
    /// What was asked for.
    #[serde(default)]
    pub(super) data: Value,
    /// Whether the key had been used, and this is what it did then.
    #[serde(skip)]
    pub(super) replayed: bool,
}

impl Remote {
    pub(super) fn new(url: &str, secrets: &Secrets) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { url: url.to_owned(), secrets: secrets.clone(), client, session: None }
    }

    /// The same server, spoken to as whoever has this session.
    pub(super) fn signed_in(&self, session: &str) -> Self {
        Self { session: Some(session.to_owned()), ..Self::new(&self.url, &self.secrets) }
    }

    fn bearer(&self) -> String {
        let operator = || Token::new(Caller::Operator, Clock::System.now_ms(), 60).sign(&self.secrets);
        format!("Bearer {}", self.session.clone().unwrap_or_else(operator))
    }

    /// Asks a resource of `/v1`; what the ledger says no to is a refusal.
    pub(super) async fn ask(&self, method: hyper::Method, path: &str) -> Result<Value, Failed> {
        self.ask_with(self.bearer(), method, path).await
    }

    /// The same as somebody else.
    pub(super) async fn ask_as(
        &self,
        caller: Caller,
        method: hyper::Method,
        path: &str,
    ) -> Result<Value, Failed> {
        let token = Token::new(caller, Clock::System.now_ms(), 60).sign(&self.secrets);
        self.ask_with(format!("Bearer {token}"), method, path).await
    }

    async fn ask_with(&self, bearer: String, method: hyper::Method, path: &str) -> Result<Value, Failed> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", bearer)
            .header("accept-language", "en")
            .body(Full::default())?;
        let answering = async {
            let answer = self.client.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        };
        let (status, body) =
            tokio::time::timeout(PATIENCE, answering).await.context("the server does not answer")??;
        let value: Value = serde_json::from_slice(&body).context("not an answer of this ledger")?;
        if status.is_success() {
            return Ok(value);
        }
        let info = value.get("info").cloned().unwrap_or_default();
        let info = info.as_str().map_or_else(|| info.to_string(), ToOwned::to_owned);
        if status.is_server_error() {
            return Err(anyhow::anyhow!("the server answers: {info}").into());
        }
        Err(Failed::Refused(anyhow::anyhow!(info)))
    }

    /// Posts to a route; an error means that nobody answered, or not as a ledger does.
    pub(super) async fn call(&self, route: &str, key: Option<&str>, body: &Value) -> anyhow::Result<Answer> {
        let body = Bytes::from(body.to_string());
        self.post(route, key, ("application/json", body), Duration::from_secs(40)).await
    }

    /// The same with any body, and with a patience of its own.
    pub(super) async fn post(
        &self,
        route: &str,
        key: Option<&str>,
        body: (&str, Bytes),
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let (_, replayed, body) = self.send(route, key, body, patience).await?;
        let answer: Answer = serde_json::from_slice(&body).context("not an answer of this ledger")?;
        Ok(Answer { replayed, ..answer })
    }

    /// Posts to a resource under /v1 and returns the HTTP status with what it answers.
    pub(super) async fn post_resource(&self, path: &str, key: &str) -> anyhow::Result<(u16, Value)> {
        let nothing = ("application/json", Bytes::new());
        let (status, _, body) = self.send(path, Some(key), nothing, Duration::from_secs(40)).await?;
        Ok((status, serde_json::from_slice(&body).context("not an answer of this ledger")?))
    }

    /// Its HTTP status, whether it is a replay, and its body.
    async fn send(
        &self,
        route: &str,
        key: Option<&str>,
        (content_type, body): (&str, Bytes),
        patience: Duration,
    ) -> anyhow::Result<(u16, bool, Bytes)> {
        let mut request = hyper::Request::post(format!("{}{route}", self.url))
            .header("authorization", self.bearer())
            .header("accept-language", "en")
            .header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(body))?;
        let answering = async {
            let answer = self.client.request(request).await?;
            let replayed = answer.headers().contains_key("idempotency-replayed");
            anyhow::Ok((answer.status().as_u16(), replayed, answer.into_body().collect().await?.to_bytes()))
        };
        tokio::time::timeout(patience, answering).await.context("time out")?
    }
}
