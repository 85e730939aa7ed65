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
use crate::clock::Clock;
use crate::config::running_server;
use crate::identity::{Caller, Token};
use crate::ledger::{Ledger, LedgerOptions};
use crate::secrets::Secrets;
use crate::store::{self, OpenError};

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
                Ok(Self::Ledger(Ledger::start(options)))
            }
            Err(error @ OpenError::InUse { .. }) => match running_server(&context.folder) {
                Some(server) => {
                    eprintln!("coupon-ledger: through the server at {}", server.url);
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

/// A running server, spoken to as an operator.
pub(super) struct Remote {
    url: String,
    secrets: Secrets,
    client: Client<HttpConnector, Full<Bytes>>,
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
        Self { url: url.to_owned(), secrets: secrets.clone(), client }
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
        (content_type, body): (&str, Bytes),
        patience: Duration,
    ) -> anyhow::Result<Answer> {
        let operator = Token::new(Caller::Operator, Clock::System.now_ms(), 60).sign(&self.secrets);
        let mut request = hyper::Request::post(format!("{}{route}", self.url))
            .header("authorization", format!("Bearer {operator}"))
            .header("accept-language", "en")
            .header("content-type", content_type);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(body))?;
        let answering = async {
            let answer = self.client.request(request).await?;
            let replayed = answer.headers().contains_key("idempotency-replayed");
            anyhow::Ok((replayed, answer.into_body().collect().await?.to_bytes()))
        };
        let (replayed, body) = tokio::time::timeout(patience, answering).await.context("time out")??;
        let answer: Answer = serde_json::from_slice(&body).context("not an answer of this ledger")?;
        Ok(Answer { replayed, ..answer })
    }
}
