//! Hands messages to the merchant's own sender, which knows how to reach a member: a POST each, signed as Standard Webhooks
//! has it.
//!
//! At least once, under an id that is the reason's and so the same however often: a receiver that keeps ids sends a member
//! one message. A row says when it is tried next. Whoever tries takes it by moving that time on, so several servers share the
//! work, and what a killed one had taken is tried again a minute later. The body has no name, number or openid in it. The
//! secret and the receiver's answers are never logged.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use futures::StreamExt as _;
use hyper::{Request, Uri, header};
use serde_json::json;

use super::inbox::message_columns;
use super::{MessageKind, MessageRow, Reason};
use crate::followers::{self, MESSAGES};
use crate::ledger::Ledger;
use crate::outgoing::{Limits, Outgoing, Plain, Reach};
use crate::refusal::Language;
use crate::store::{BUCKET, Cell, Row, Statement, StoreError};
use crate::webhook_signature::{parse_secret, sign};

/// How long the receiver may take over one message.
const PATIENCE: Duration = Duration::from_secs(15);

/// How much of an answer is read; what it says is of no interest.
const MAX_ANSWER_BYTES: usize = 16 << 10;

/// Messages that are taken at a time, and how many of them are under way.
const TAKEN: i64 = 32;
const UNDER_WAY: usize = 4;

/// How long what was taken is left alone: longer than all of it can take.
const TAKEN_FOR_MS: i64 = 180_000;

/// How long after a failure a message is tried again: four times as long after each one, up to an hour …
const FIRST_PAUSE_MS: i64 = 10_000;
const LONGEST_PAUSE_MS: i64 = 3_600_000;

/// … and how often in all: a day, about.
const MAX_TRIES: i64 = 28;

/// Between two looks at what waits, and how long it is left alone where nothing of it was taken by the receiver.
const TICK: Duration = Duration::from_secs(1);
const RECEIVER_AWAY: Duration = Duration::from_secs(10);

/// The merchant's own sender.
pub struct MessageWebhook {
    uri: Uri,
    secret: Vec<u8>,
    client: Outgoing,
}

/// Why there is no sender. Nothing of the secret is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Its address.
    #[error("{0:?} is no address: https://…, or http://… on this machine, without a user")]
    Address(String),
    /// The secret.
    #[error("{0}")]
    Secret(&'static str),
}

impl MessageWebhook {
    /// The sender at an address, and the secret that both hold.
    pub fn new(url: &str, secret: &str) -> Result<Self, WebhookError> {
        Self::with_patience(url, secret, PATIENCE)
    }

    /// The same, who may take so long over a message.
    pub fn with_patience(url: &str, secret: &str, patience: Duration) -> Result<Self, WebhookError> {
        let bad = || WebhookError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if host.is_empty() || has_user || !Plain::Here.allows(scheme, host) {
            return Err(bad());
        }
        let secret = parse_secret(secret).map_err(WebhookError::Secret)?;
        let client = Outgoing::new(Limits {
            patience,
            max_answer_bytes: MAX_ANSWER_BYTES,
            max_calls: UNDER_WAY,
            plain: Plain::Here,
            // The settings of the server name it.
            reach: Reach::Anywhere,
        });
        Ok(Self { uri, secret, client })
    }
}

impl fmt::Debug for MessageWebhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some put a token into the path.
        write!(f, "MessageWebhook({})", self.uri.host().unwrap_or_default())
    }
}

/// What became of messages that were taken to be handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// How many the receiver took.
    pub delivered: usize,
    /// How many are tried again later.
    pub failed: usize,
    /// How many were tried for the last time.
    pub given_up: usize,
}

/// Hands over what is due, a bounded number.
pub async fn hand_over(ledger: &Ledger, webhook: &MessageWebhook) -> Result<Handed, StoreError> {
    if followers::is_paused(ledger, &MESSAGES).await? {
        return Ok(Handed::default());
    }
    let mut handed = Handed::default();
    let mut trying = futures::stream::iter(take(ledger).await?)
        .map(async |taken| {
            let outcome = post(ledger, webhook, &taken).await;
            settle(ledger, &taken, outcome).await
        })
        .buffer_unordered(UNDER_WAY);
    while let Some(settled) = trying.next().await {
        match settled? {
            Settled::Delivered => handed.delivered += 1,
            Settled::Failed => handed.failed += 1,
            Settled::GivenUp => handed.given_up += 1,
        }
    }
    Ok(handed)
}

/// Hands over for as long as the server runs.
pub(super) async fn run_hand_over(ledger: &Ledger, webhook: &MessageWebhook) {
    loop {
        let pause = match hand_over(ledger, webhook).await {
            Ok(Handed { delivered: 1.., .. }) => continue,
            Ok(Handed { failed: 0, given_up: 0, .. }) => TICK,
            Ok(_) => RECEIVER_AWAY,
            Err(error) => {
                tracing::warn!(%error, "messages could not be handed over");
                RECEIVER_AWAY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// A message that nobody else hands over meanwhile.
struct Taken {
    reason: Reason,
    message: MessageRow,
    /// How often it was tried, this time included.
    tries: i64,
    /// Until when it is left to whoever took it.
    until_ms: i64,
}

impl Taken {
    /// The same for a reason however often it is tried, and whatever becomes of the table.
    fn id(&self) -> String {
        let Reason { member_id, kind, subject_id, part } = self.reason;
        format!("{}-{member_id}-{subject_id}-{part}", kind.name())
    }

    fn body(&self, ledger: &Ledger) -> String {
        let message = &self.message;
        let language = Language::default();
        let at = DateTime::from_timestamp_millis(message.created_at_ms).unwrap_or_default();
        json!({
            "type": format!("message.{}", message.kind.name()),
            "timestamp": at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "data": {
                "id": message.id,
                "member_id": self.reason.member_id,
                "title": message.title(language),
                "content": message.content(language),
                "create_date": message.created_at_ms / 1_000,
                "create_time": ledger.zone().date_time(message.created_at_ms),
                "mem_coupon_id": message.coupon_id,
                "coupon_id": message.definition_id,
                "coupon_title": message.coupon_title,
                "send_id": message.send_id,
            },
        })
        .to_string()
    }
}

/// Takes what has waited longest.
async fn take(ledger: &Ledger) -> Result<Vec<Taken>, StoreError> {
    let due = concat!(
        "SELECT m.member_id, ",
        message_columns!(),
        ", m.next_try_at_ms, m.tries FROM messages m
         WHERE m.bucket = $1 AND m.next_try_at_ms > 0 AND m.next_try_at_ms <= $2
         ORDER BY m.bucket, m.next_try_at_ms, m.message_id LIMIT $3"
    );
    let mine = "UPDATE messages SET next_try_at_ms = $7, tries = tries + 1
                WHERE bucket = $1 AND member_id = $2 AND kind = $3 AND subject_id = $4 AND part = $5
                  AND next_try_at_ms = $6 RETURNING message_id";
    let now_ms = ledger.clock().now_ms();
    let until_ms = now_ms + TAKEN_FOR_MS;
    let due = Statement::new(due, [BUCKET, now_ms, TAKEN].map(Cell::from));
    let mut rows = ledger.store().query(due).await?;
    // In the order in which a member's own are marked as read: whoever does so meanwhile waits, and is not waited for.
    rows.sort_by_key(|row| row.int(1));
    let reason = |row: &Row| {
        let kind = MessageKind::numbered(row.int(2))?;
        Ok(Reason { member_id: row.int(0), kind, subject_id: row.int(3), part: row.int(4) })
    };
    let reasons: Vec<Reason> = rows.iter().map(reason).collect::<Result<_, StoreError>>()?;
    if reasons.is_empty() {
        return Ok(Vec::new());
    }
    let claim = |(reason, row): (&Reason, &Row)| {
        let times = [row.int(13), until_ms].map(Cell::from);
        Statement::new(mine, reason.cells().into_iter().chain(times))
    };
    let claimed = ledger.store().write(reasons.iter().zip(&rows).map(claim).collect()).await?;
    let mut taken = Vec::with_capacity(rows.len());
    for ((reason, row), claimed) in reasons.into_iter().zip(&rows).zip(claimed) {
        // Another server was faster, or the member has been erased.
        if !claimed.is_empty() {
            let message = MessageRow::read(row, None)?;
            taken.push(Taken { reason, message, tries: row.int(14) + 1, until_ms });
        }
    }
    Ok(taken)
}

/// Whether the receiver took it; else why not.
async fn post(ledger: &Ledger, webhook: &MessageWebhook, taken: &Taken) -> Result<(), String> {
    let (id, body) = (taken.id(), taken.body(ledger));
    let at_s = ledger.clock().now_ms() / 1_000;
    let request = Request::post(webhook.uri.clone())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("coupon-ledger/", env!("CARGO_PKG_VERSION")))
        .header("webhook-id", &id)
        .header("webhook-timestamp", at_s)
        .header("webhook-signature", sign(&webhook.secret, &id, at_s, body.as_bytes()))
        .body(Bytes::from(body))
        .map_err(|_| "it cannot be asked".to_owned())?;
    let answer = webhook.client.ask(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    // A redirect is no success either: nothing is sent where nobody said that it may go.
    if status.is_success() { Ok(()) } else { Err(format!("it answers {}", status.as_u16())) }
}

enum Settled {
    Delivered,
    Failed,
    GivenUp,
}

/// Writes down what became of a message that was taken, unless it was taken again meanwhile.
async fn settle(ledger: &Ledger, taken: &Taken, outcome: Result<(), String>) -> Result<Settled, StoreError> {
    let now_ms = ledger.clock().now_ms();
    let (settled, next_try_at_ms, handed_at_ms) = match &outcome {
        Ok(()) => (Settled::Delivered, 0, now_ms),
        Err(_) if taken.tries >= MAX_TRIES => (Settled::GivenUp, 0, -1),
        Err(_) => (Settled::Failed, now_ms + pause_ms(taken.tries), 0),
    };
    let id = taken.message.id;
    match (&settled, &outcome) {
        (Settled::GivenUp, Err(why)) => tracing::error!(message = id, why, "a message is given up"),
        (_, Err(why)) => tracing::warn!(message = id, tries = taken.tries, why, "not handed over"),
        _ => {}
    }
    ledger.metrics().count_message(match settled {
        Settled::Delivered => "delivered",
        Settled::Failed => "failed",
        Settled::GivenUp => "given_up",
    });
    let sql = "UPDATE messages SET next_try_at_ms = $7, handed_at_ms = $8
               WHERE bucket = $1 AND member_id = $2 AND kind = $3 AND subject_id = $4 AND part = $5
                 AND next_try_at_ms = $6";
    let times = [taken.until_ms, next_try_at_ms, handed_at_ms].map(Cell::from);
    let cells = taken.reason.cells().into_iter().chain(times);
    ledger.store().write(vec![Statement::new(sql, cells)]).await?;
    Ok(settled)
}

/// How long after so many failed tries the next one comes.
fn pause_ms(tries: i64) -> i64 {
    let times = u32::try_from(tries - 1).unwrap_or(u32::MAX).min(10);
    (FIRST_PAUSE_MS * 4_i64.pow(times)).min(LONGEST_PAUSE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_message_is_tried_for_a_day() {
        let pauses: Vec<i64> = (1..=6).map(|tries| pause_ms(tries) / 1_000).collect();
        assert_eq!(pauses, [10, 40, 160, 640, 2_560, 3_600]);
        let hours = (1..MAX_TRIES).map(pause_ms).sum::<i64>() / 3_600_000;
        assert_eq!(hours, 22);
        assert!(pause_ms(i64::MAX) == LONGEST_PAUSE_MS && pause_ms(0) > 0);
    }

    #[test]
    fn a_sender_is_spoken_to_over_tls_or_on_this_machine_and_its_secret_is_not_shown() {
        for url in ["https://sender.example/messages?of=1", "http://127.0.0.1:9/a", "http://localhost:9"] {
            let webhook = MessageWebhook::new(url, SECRET).unwrap();
            assert!(!format!("{webhook:?}").contains("MfKQ"), "{webhook:?}");
        }
        for url in ["", "/a", "sender.example", "http://sender.example/", "ftp://a/", "https://u:p@a/"] {
            assert_eq!(MessageWebhook::new(url, SECRET).unwrap_err(), WebhookError::Address(url.to_owned()));
        }
        assert!(matches!(MessageWebhook::new("https://a/", "5ecre7"), Err(WebhookError::Secret(_))));
    }
}
