//! Webhooks: which rows their states have, what their events write beside, and the SELECTs that read both.

use super::WEBHOOKS;
use crate::store::{BUCKET, LiveRow, Row, Statement, Store, StoreError};
use crate::webhook::{Subscription, Webhook, WebhookEvent, Why};

/// The lane on which what comes is sent.
pub const MAIN_LANE: i64 = 0;

/// The one live row of a webhook.
#[must_use]
pub fn webhook_rows(id: i64, webhook: &Webhook) -> Vec<LiveRow> {
    let Some(subscription) = &webhook.subscription else {
        return Vec::new();
    };
    let paused: i64 = match webhook.paused {
        None => 0,
        Some(Why::Asked) => 1,
        Some(Why::Gone) => 2,
    };
    let cells = vec![
        id.into(),
        subscription.url.as_str().into(),
        subscription.types.join(",").into(),
        subscription.streams.join(",").into(),
        i64::from(webhook.generation).into(),
        webhook.previous_until_ms.into(),
        paused.into(),
        webhook.employee_id.into(),
        webhook.added_at_ms.into(),
        webhook.removed_at_ms.into(),
    ];
    vec![LiveRow { table: &WEBHOOKS, cells }]
}

/// What these events of a webhook write about its lanes, in their own transaction: where it begins, and that what failed is
/// tried at once by whoever has mended it.
#[must_use]
pub fn webhook_lanes(id: i64, events: &[WebhookEvent]) -> Vec<Statement> {
    events.iter().flat_map(|event| lanes_after(id, event)).collect()
}

fn lanes_after(id: i64, event: &WebhookEvent) -> Vec<Statement> {
    match event {
        WebhookEvent::Added { after, .. } | WebhookEvent::Resumed { after: Some(after), .. } => {
            vec![try_at_once(id), put_lane(id, MAIN_LANE, *after, 0)]
        }
        WebhookEvent::Resumed { after: None, .. } | WebhookEvent::Changed { .. } => vec![try_at_once(id)],
        WebhookEvent::Resent { lane, from, to, .. } => vec![put_lane(id, i64::from(*lane), from - 1, *to)],
        WebhookEvent::Removed { .. } => [
            "DELETE FROM webhook_lanes WHERE bucket = $1 AND webhook_id = $2",
            "DELETE FROM webhook_dead WHERE bucket = $1 AND webhook_id = $2",
        ]
        .map(|sql| Statement::new(sql, [BUCKET.into(), id.into()]))
        .into(),
        WebhookEvent::Paused { .. } | WebhookEvent::SecretRotated { .. } => Vec::new(),
    }
}

fn put_lane(id: i64, lane: i64, position: i64, until: i64) -> Statement {
    Statement::new(
        "INSERT INTO webhook_lanes (bucket, webhook_id, lane, position, until_position, attempts, failing_since_ms,
                                    next_at_ms, last_error)
         VALUES ($1, $2, $3, $4, $5, 0, 0, 0, '')
         ON CONFLICT (bucket, webhook_id, lane) DO UPDATE SET position = excluded.position, attempts = 0,
           failing_since_ms = 0, next_at_ms = 0, last_error = ''",
        [BUCKET.into(), id.into(), lane.into(), position.into(), until.into()],
    )
}

/// Whoever is at fault has a day again from now on.
fn try_at_once(id: i64) -> Statement {
    Statement::new(
        "UPDATE webhook_lanes SET attempts = 0, failing_since_ms = 0, next_at_ms = 0
         WHERE bucket = $1 AND webhook_id = $2",
        [BUCKET.into(), id.into()],
    )
}

/// A webhook that was not removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookRow {
    /// Its id.
    pub id: i64,
    /// What is sent where.
    pub subscription: Subscription,
    /// The number of the secret that signs.
    pub generation: u32,
    /// Until when the one before signs as well, Unix milliseconds; 0 = there is none.
    pub previous_until_ms: i64,
    /// Why it rests; None = it does not.
    pub paused: Option<Why>,
    /// When it was added, Unix milliseconds.
    pub added_at_ms: i64,
    /// How many of its events were given up.
    pub dead: i64,
}

/// How far one lane of a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneRow {
    /// Whose it is.
    pub webhook_id: i64,
    /// Its number; [`MAIN_LANE`] or a range that is sent once more.
    pub lane: i64,
    /// All up to it was taken or given up.
    pub position: i64,
    /// The last of the range; 0 = there is no last.
    pub until: i64,
    /// How often the next event was tried in vain.
    pub attempts: i64,
    /// Since when, Unix milliseconds.
    pub failing_since_ms: i64,
    /// Not before then, Unix milliseconds.
    pub next_at_ms: i64,
    /// What went wrong last.
    pub last_error: String,
}

/// An event that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// Which.
    pub position: i64,
    /// Of which stream, `coupon/439`.
    pub stream: String,
    /// Its name.
    pub event_type: String,
    /// How often it was tried.
    pub attempts: i64,
    /// What went wrong last.
    pub last_error: String,
    /// When it was first tried in vain, Unix milliseconds.
    pub failed_at_ms: i64,
    /// When it was given up, Unix milliseconds.
    pub given_up_at_ms: i64,
}

fn list(text: &str) -> Vec<String> {
    text.split(',').filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

fn read(row: &Row) -> WebhookRow {
    WebhookRow {
        id: row.int(0),
        subscription: Subscription {
            url: row.text(1).to_owned(),
            types: list(row.text(2)),
            streams: list(row.text(3)),
        },
        generation: u32::try_from(row.int(4)).unwrap_or(1),
        previous_until_ms: row.int(5),
        paused: match row.int(6) {
            0 => None,
            2 => Some(Why::Gone),
            _ => Some(Why::Asked),
        },
        added_at_ms: row.int(7),
        dead: row.int(8),
    }
}

macro_rules! webhooks {
    ($more:literal) => {
        concat!(
            "SELECT webhook_id, url, types, streams, generation, previous_until_ms, paused, added_at_ms,
                    (SELECT count(*) FROM webhook_dead d
                     WHERE d.bucket = w.bucket AND d.webhook_id = w.webhook_id)
             FROM webhooks_v1 w WHERE bucket = $1 AND removed_at_ms = 0",
            $more
        )
    };
}

/// Every webhook that was not removed, the oldest first. They are few.
pub async fn webhooks(store: &Store) -> Result<Vec<WebhookRow>, StoreError> {
    let sql = webhooks!(" ORDER BY webhook_id");
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.iter().map(read).collect())
}

/// One of them.
pub async fn webhook(store: &Store, id: i64) -> Result<Option<WebhookRow>, StoreError> {
    let sql = webhooks!(" AND webhook_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read))
}

/// Every lane, by webhook and number.
pub async fn lanes(store: &Store) -> Result<Vec<LaneRow>, StoreError> {
    let sql = "SELECT webhook_id, lane, position, until_position, attempts, failing_since_ms, next_at_ms, last_error
               FROM webhook_lanes WHERE bucket = $1 ORDER BY webhook_id, lane";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    let read = |row: &Row| LaneRow {
        webhook_id: row.int(0),
        lane: row.int(1),
        position: row.int(2),
        until: row.int(3),
        attempts: row.int(4),
        failing_since_ms: row.int(5),
        next_at_ms: row.int(6),
        last_error: row.text(7).to_owned(),
    };
    Ok(rows.iter().map(read).collect())
}

/// Events of a webhook that were given up, behind a position, in order.
pub async fn dead(store: &Store, id: i64, after: i64, limit: i64) -> Result<Vec<DeadRow>, StoreError> {
    let sql = "SELECT position, stream, event_type, attempts, last_error, failed_at_ms, given_up_at_ms FROM webhook_dead
               WHERE bucket = $1 AND webhook_id = $2 AND position > $3 ORDER BY position LIMIT $4";
    let parameters = [BUCKET.into(), id.into(), after.into(), limit.into()];
    let rows = store.query(Statement::new(sql, parameters)).await?;
    let read = |row: &Row| DeadRow {
        position: row.int(0),
        stream: row.text(1).to_owned(),
        event_type: row.text(2).to_owned(),
        attempts: row.int(3),
        last_error: row.text(4).to_owned(),
        failed_at_ms: row.int(5),
        given_up_at_ms: row.int(6),
    };
    Ok(rows.iter().map(read).collect())
}
