//! The server that holds the embedded ledger, asked over its own HTTP side by commands that write.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::identity::{Caller, Token};
use crate::secrets::Secrets;

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
        let operator = Token::new(Caller::Operator, Clock::System.now_ms(), 60).sign(&self.secrets);
        let mut request = hyper::Request::post(format!("{}{route}", self.url))
            .header("authorization", format!("Bearer {operator}"))
            .header("accept-language", "en")
            .header("content-type", "application/json");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::new(Bytes::from(body.to_string())))?;
        let answering = async {
            let answer = self.client.request(request).await?;
            let replayed = answer.headers().contains_key("idempotency-replayed");
            anyhow::Ok((replayed, answer.into_body().collect().await?.to_bytes()))
        };
        let (replayed, body) =
            tokio::time::timeout(Duration::from_secs(40), answering).await.context("time out")??;
        let answer: Answer = serde_json::from_slice(&body).context("not an answer of this ledger")?;
        Ok(Answer { replayed, ..answer })
    }
}
