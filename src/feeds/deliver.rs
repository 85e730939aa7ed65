//! Sends events to webhooks: one request an event, in order per stream, at least once, each webhook at its own pace.
//!
//! A lane is how far a webhook is: the main one follows the log, others send a range once more. What a lane takes at a time is
//! a small window of events; its streams are sent side by side and each stream's events one behind the other, so that an
//! event that fails holds back its own stream, and what lies behind the window. What the receiver has taken out of turn is
//! remembered, and forgotten when the process ends: it then comes once more. How far a lane is, what was given up and since
//! when it fails move in one transaction, from where the lane was found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use hyper::{Request, StatusCode};
use tokio::task::JoinSet;

use super::webhooks::{self, MAX_RESENDS, MAX_WEBHOOKS, WebhookPolicy};
use crate::audit::feed::{Filter, line};
use crate::followers::events_after;
use crate::followers::frame::caught;
use crate::identity::Caller;
use crate::lease;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::metrics::{DeliveryLabels, FollowerLabels, WebhookLabels};
use crate::outgoing::{Limits, Outgoing, Plain, Unanswered};
use crate::read_model::webhooks::{LaneRow, MAIN_LANE, WebhookRow, lanes};
use crate::store::{BUCKET, Statement, StoreError, StoredEvent};
use crate::value::{hex, random};
use crate::webhook::{Why, signing};
use crate::webhook_signature::sign;

/// Between two looks at what is due.
const TICK: Duration = Duration::from_millis(250);

/// How long a lane rests after an error of the ledger itself.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// What a webhook is looked through for at a time, where it does not want everything.
const PAGE: i64 = 500;

/// How many events are looked through before it is written down how far that is.
const SCAN: i64 = 5_000;

/// The first pause after a failure; each is twice as long as the one before …
const FIRST_PAUSE_MS: i64 = 5_000;

/// … up to this.
const LONGEST_PAUSE_MS: i64 = 3_600_000;

/// For how long an event is tried.
pub const GIVE_UP_AFTER_MS: i64 = 24 * 3_600_000;

/// How often at least: while our side is away nobody tries.
const FEWEST_TRIES: i64 = 10;

/// How long a process may be silent before another one sends in its place, and when it says that it is there.
const LEASE_MS: i64 = 15_000;
const RENEW_AFTER: Duration = Duration::from_secs(5);

/// The most characters of what went wrong that are kept.
const MAX_ERROR: usize = 200;

/// How webhooks are sent to.
#[derive(Clone, Debug)]
pub struct DeliveryOptions {
    /// Where they may lead.
    pub policy: WebhookPolicy,
    /// How long a receiver may take in all.
    pub patience: Duration,
    /// How many events of a lane are sent side by side, each of another stream.
    pub parallel: usize,
    /// How far an event that fails lets others go ahead.
    pub window: usize,
    /// After how long nothing more of a window is begun, and it is written down how far that is.
    pub round: Duration,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self {
            policy: WebhookPolicy::default(),
            patience: Duration::from_secs(15),
            parallel: 4,
            window: 32,
            round: Duration::from_secs(30),
        }
    }
}

/// A lane of a webhook.
type LaneKey = (i64, i64);

/// What was taken out of turn, ahead of an event that fails.
struct Ahead {
    /// Where the lane was left, how often its next event had been tried, and whose receiver it was.
    position: i64,
    attempts: i64,
    url: String,
    /// The events.
    taken: BTreeSet<i64>,
}

/// A lane that is due.
#[derive(Clone, Debug)]
struct Due {
    webhook: WebhookRow,
    lane: LaneRow,
}

impl Due {
    fn key(&self) -> LaneKey {
        (self.webhook.id, self.lane.lane)
    }
}

/// Why an event was not taken.
#[derive(Clone, Debug)]
enum Untaken {
    /// The receiver wants nothing any more.
    Gone,
    /// In words.
    Said(String),
}

/// What became of the events of one stream.
#[derive(Default)]
struct Outcome {
    taken: Vec<i64>,
    untaken: Option<(i64, Untaken)>,
}

/// Whoever sends.
pub struct Outbox {
    ledger: Ledger,
    outgoing: Outgoing,
    options: DeliveryOptions,
    /// What was taken beyond where a lane is.
    ahead: Mutex<HashMap<LaneKey, Ahead>>,
}

impl Outbox {
    /// Somebody who sends what is due when he is asked to.
    #[must_use]
    pub fn new(ledger: Ledger, options: DeliveryOptions) -> Self {
        let limits = Limits {
            patience: options.patience,
            max_answer_bytes: 64 << 10,
            // Never reached: each lane keeps to its share.
            max_calls: MAX_WEBHOOKS * (MAX_RESENDS + 1) * options.parallel,
            plain: if options.policy.allow_http { Plain::Anywhere } else { Plain::Here },
            reach: options.policy.reach(),
        };
        Self { ledger, outgoing: Outgoing::new(limits), options, ahead: Mutex::default() }
    }

    /// Sends all that is due now, and returns how many lanes that were.
    pub async fn deliver_due(&self) -> Result<usize, StoreError> {
        let due = self.due().await?;
        let working = due.iter().map(|due| self.work(due.key()));
        let done: Vec<_> = futures::future::join_all(working).await;
        done.into_iter().collect::<Result<Vec<()>, _>>()?;
        Ok(due.len())
    }

    /// Every lane that has something to send now.
    async fn due(&self) -> Result<Vec<Due>, StoreError> {
        let store = self.ledger.store();
        let webhooks = crate::read_model::webhooks::webhooks(store).await?;
        if webhooks.is_empty() {
            self.measure(&[], &[], 0);
            return Ok(Vec::new());
        }
        let (lanes, head) = (lanes(store).await?, store.head().await?);
        self.measure(&webhooks, &lanes, head);
        let now_ms = self.ledger.clock().now_ms();
        let of_lane = |lane: LaneRow| {
            let webhook = webhooks.iter().find(|webhook| webhook.id == lane.webhook_id)?.clone();
            let is_due = webhook.paused.is_none() && lane.next_at_ms <= now_ms && lane.position < head;
            is_due.then_some(Due { webhook, lane })
        };
        Ok(lanes.into_iter().filter_map(of_lane).collect())
    }

    /// Sends what a lane has to send, until it has nothing or must wait.
    async fn work(&self, key: LaneKey) -> Result<(), StoreError> {
        let (name, is_shared) = (lease_name(key), self.ledger.store().is_shared());
        loop {
            if is_shared && !lease::take(&self.ledger, &name, LEASE_MS).await? {
                return Ok(());
            }
            let Some(due) = self.due().await?.into_iter().find(|due| due.key() == key) else { break };
            tokio::select! {
                done = self.round(&due) => done?,
                lost = self.keep(&name), if is_shared => return lost,
            }
        }
        if is_shared { lease::release(&self.ledger, &name).await } else { Ok(()) }
    }

    /// Keeps a lease, until another process has it.
    async fn keep(&self, name: &str) -> Result<(), StoreError> {
        loop {
            tokio::time::sleep(RENEW_AFTER).await;
            if !lease::take(&self.ledger, name, LEASE_MS).await? {
                return Ok(());
            }
        }
    }

    /// Sends a window of a lane, and writes down what became of it.
    async fn round(&self, due: &Due) -> Result<(), StoreError> {
        let (events, end) = self.window(due).await?;
        let mut taken = self.remembered(due);
        let mut streams: BTreeMap<(&str, &str), Vec<StoredEvent>> = BTreeMap::new();
        for event in events.iter().filter(|event| !taken.contains(&event.position)) {
            streams.entry((&event.aggregate_type, &event.aggregate_id)).or_default().push(event.clone());
        }
        // The oldest first: it is what holds back the others.
        let mut streams: Vec<_> = streams.into_values().collect();
        streams.sort_by_key(|events| events.first().map(|event| event.position));
        let until = Instant::now() + self.options.round;
        let sending = streams.into_iter().map(|events| self.send_stream(&due.webhook, events, until));
        let outcomes: Vec<Result<Outcome, StoreError>> =
            futures::stream::iter(sending).buffer_unordered(self.options.parallel).collect().await;
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        let newly: Vec<i64> = outcomes.iter().flat_map(|outcome| outcome.taken.iter().copied()).collect();
        taken.extend(&newly);
        let failures = || outcomes.iter().filter_map(|outcome| outcome.untaken.as_ref());
        let first = events.iter().find(|event| !taken.contains(&event.position));
        let failed = first.and_then(|first| failures().find(|(position, _)| *position == first.position));
        let step = Step {
            to: first.map_or(end, |first| first.position - 1),
            failed: first.zip(failed.map(|(_, why)| why.clone())),
            newly: &newly,
        };
        let (position, attempts) = self.write_down(due, &step).await?;
        let taken = taken.into_iter().filter(|taken| *taken > position).collect();
        let url = due.webhook.subscription.url.clone();
        self.remember(due.key(), Ahead { position, attempts, url, taken });
        if failures().any(|(_, why)| matches!(why, Untaken::Gone)) {
            self.pause(due.webhook.id).await?;
        }
        Ok(())
    }

    /// The next events that a lane wants, and how far it has looked for them.
    async fn window(&self, due: &Due) -> Result<(Vec<StoredEvent>, i64), StoreError> {
        let Due { webhook, lane } = due;
        let filter = Filter {
            types: webhook.subscription.types.clone(),
            streams: webhook.subscription.streams.clone(),
        };
        let limit = if filter == Filter::default() { self.options.window as i64 } else { PAGE };
        let mut end = lane.position;
        let mut events = Vec::new();
        while end - lane.position < SCAN {
            let page = match events_after(self.ledger.store(), end, limit).await {
                // What comes before is sent before it stops there.
                Err(_) if end > lane.position => break,
                page => page?,
            };
            let is_last = (page.len() as i64) < limit;
            for event in page {
                if lane.until > 0 && event.position > lane.until {
                    return Ok((events, end));
                }
                end = event.position;
                if filter.wants(&event) {
                    events.push(event);
                }
                if events.len() == self.options.window {
                    return Ok((events, end));
                }
            }
            if is_last {
                break;
            }
        }
        Ok((events, end))
    }

    /// Sends events of one stream one behind the other, until one is not taken.
    async fn send_stream(
        &self,
        webhook: &WebhookRow,
        events: Vec<StoredEvent>,
        until: Instant,
    ) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        for event in &events {
            if Instant::now() >= until {
                break;
            }
            let sent = self.send(webhook, event).await?;
            let outcome_name = if sent.is_ok() { "taken" } else { "failed" };
            let labels = DeliveryLabels { webhook: webhook.id, outcome: outcome_name };
            self.ledger.metrics().webhook_deliveries.get_or_create(&labels).inc();
            match sent {
                Ok(()) => outcome.taken.push(event.position),
                Err(why) => {
                    outcome.untaken = Some((event.position, why));
                    break;
                }
            }
        }
        Ok(outcome)
    }

    async fn send(
        &self,
        webhook: &WebhookRow,
        event: &StoredEvent,
    ) -> Result<Result<(), Untaken>, StoreError> {
        let body = Bytes::from(line(event)?);
        let (id, now_ms) = (event.position.to_string(), self.ledger.clock().now_ms());
        let at_s = now_ms.div_euclid(1_000);
        // While a secret is being replaced both sign.
        let signatures: Vec<String> = signing(webhook.generation, webhook.previous_until_ms, now_ms)
            .into_iter()
            .map(|generation| self.ledger.secrets().webhook_secret(webhook.id, generation))
            .map(|secret| sign(&secret, &id, at_s, &body))
            .collect();
        let request = Request::post(&webhook.subscription.url)
            .header("content-type", "application/json")
            .header("user-agent", concat!("coupon-ledger/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", id)
            .header("webhook-timestamp", at_s)
            .header("webhook-signature", signatures.join(" "))
            .body(body);
        let answer = match request {
            Ok(request) => self.outgoing.ask(request).await.map(|answer| answer.status()),
            Err(error) => return Ok(Err(Untaken::Said(error.to_string()))),
        };
        Ok(match answer {
            // What it answers beside its status is not read to the end, nor kept.
            Ok(status) | Err(Unanswered::Unread(status)) => judged(status),
            Err(error) => Err(Untaken::Said(error.to_string().chars().take(MAX_ERROR).collect())),
        })
    }

    /// Moves a lane, unless it was moved meanwhile; where to, and how often its next event was tried.
    async fn write_down(&self, due: &Due, step: &Step<'_>) -> Result<(i64, i64), StoreError> {
        let Due { webhook, lane } = due;
        let now_ms = self.ledger.clock().now_ms();
        let is_again = step.to == lane.position && lane.attempts > 0;
        let (attempts, since_ms) =
            if is_again { (lane.attempts + 1, lane.failing_since_ms) } else { (1, now_ms) };
        let mut beside: Vec<Statement> = Vec::new();
        if webhook.dead > 0 {
            beside.extend(step.newly.iter().map(|position| taken_after_all(webhook.id, *position)));
        }
        let (to, failing) = match &step.failed {
            None => (step.to, None),
            Some((event, Untaken::Said(why)))
                if now_ms - since_ms >= GIVE_UP_AFTER_MS && attempts >= FEWEST_TRIES =>
            {
                tracing::warn!(webhook = webhook.id, position = event.position, why, "an event was given up");
                let tried = Tried { attempts, since_ms, why };
                beside.push(given_up(webhook.id, event, &tried, now_ms));
                (event.position, None)
            }
            Some((_, why)) => {
                let why = match why {
                    Untaken::Gone => "answered 410: gone",
                    Untaken::Said(why) => why,
                };
                (step.to, Some(Tried { attempts, since_ms, why }))
            }
        };
        let tried = failing.as_ref().map_or(0, |tried| tried.attempts);
        let moved = match failing {
            None if lane.until > 0 && to >= lane.until => Statement::new(
                "DELETE FROM webhook_lanes WHERE bucket = $1 AND webhook_id = $2 AND lane = $3 AND position = $4
                 RETURNING position",
                [BUCKET.into(), webhook.id.into(), lane.lane.into(), lane.position.into()],
            ),
            failing => {
                let next_at_ms = failing.as_ref().map_or(0, |tried| next_try(tried, now_ms));
                let Tried { attempts, since_ms, why } = failing.unwrap_or(Tried { attempts: 0, since_ms: 0, why: "" });
                Statement::new(
                    "UPDATE webhook_lanes SET position = $5, attempts = $6, failing_since_ms = $7, next_at_ms = $8,
                       last_error = $9
                     WHERE bucket = $1 AND webhook_id = $2 AND lane = $3 AND position = $4 RETURNING position",
                    [
                        BUCKET.into(),
                        webhook.id.into(),
                        lane.lane.into(),
                        lane.position.into(),
                        to.into(),
                        attempts.into(),
                        since_ms.into(),
                        next_at_ms.into(),
                        why.into(),
                    ],
                )
            }
        };
        let statements = std::iter::once(moved.must_return()).chain(beside).collect();
        self.ledger.store().write(statements).await?;
        Ok((to, tried))
    }

    /// A receiver that is gone is not asked again, until somebody resumes it.
    async fn pause(&self, id: i64) -> Result<(), StoreError> {
        let meta = Meta {
            caller: Caller::System,
            at: self.ledger.now(),
            request_id: hex(&random::<8>()),
            receipt: None,
            job_id: None,
        };
        match webhooks::pause(&self.ledger, id, Why::Gone, &meta).await {
            Ok(_) => tracing::warn!(webhook = id, "paused: the receiver answered 410"),
            Err(ExecuteError::Refused(_)) => {}
            // It is asked again after its pause, answers the same, and is paused then.
            Err(error) => {
                tracing::warn!(webhook = id, %error, "a receiver is gone, and its webhook not paused");
            }
        }
        Ok(())
    }

    /// What was taken ahead of a lane that is as it was left: not of one that somebody has sent elsewhere since.
    fn remembered(&self, Due { webhook, lane }: &Due) -> BTreeSet<i64> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let is_as_left = |ahead: &&Ahead| {
            let left = (ahead.position, ahead.attempts, ahead.url.as_str());
            left == (lane.position, lane.attempts, webhook.subscription.url.as_str())
        };
        let ahead = ahead.get(&(webhook.id, lane.lane)).filter(is_as_left);
        ahead.map(|ahead| ahead.taken.clone()).unwrap_or_default()
    }

    fn remember(&self, key: LaneKey, left: Ahead) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if left.taken.is_empty() {
            ahead.remove(&key);
        } else {
            ahead.insert(key, left);
        }
    }

    fn measure(&self, webhooks: &[WebhookRow], lanes: &[LaneRow], head: i64) {
        let metrics = self.ledger.metrics();
        // Those that were removed are shown no more.
        metrics.webhook_lag.clear();
        metrics.webhook_dead.clear();
        metrics.webhook_failing.clear();
        for webhook in webhooks {
            let labels = WebhookLabels { webhook: webhook.id };
            let main = lanes.iter().find(|lane| lane.webhook_id == webhook.id && lane.lane == MAIN_LANE);
            let lag = main.map_or(0, |lane| (head - lane.position).max(0));
            metrics.webhook_lag.get_or_create(&labels).set(lag);
            metrics.webhook_dead.get_or_create(&labels).set(webhook.dead);
            let is_failing = main.is_some_and(|lane| lane.attempts > 0);
            metrics.webhook_failing.get_or_create(&labels).set(i64::from(is_failing));
        }
    }
}

/// What a round has come to.
struct Step<'a> {
    /// All up to it was taken.
    to: i64,
    /// The event behind it, where it was tried in vain.
    failed: Option<(&'a StoredEvent, Untaken)>,
    /// What was taken in this round.
    newly: &'a [i64],
}

/// How an event was tried in vain.
struct Tried<'a> {
    attempts: i64,
    since_ms: i64,
    why: &'a str,
}

fn judged(status: StatusCode) -> Result<(), Untaken> {
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::GONE => Err(Untaken::Gone),
        status if status.is_redirection() => {
            Err(Untaken::Said(format!("answered {}: redirects are not followed", status.as_u16())))
        }
        status => Err(Untaken::Said(format!("answered {}", status.as_u16()))),
    }
}

/// When an event is tried again: up to a fifth later than its turn, so that what failed together does not come back together,
/// and for the last time when its day is over.
fn next_try(tried: &Tried<'_>, now_ms: i64) -> i64 {
    let doublings = u32::try_from(tried.attempts - 1).unwrap_or(0).min(20);
    let pause_ms = (FIRST_PAUSE_MS << doublings).min(LONGEST_PAUSE_MS);
    let jitter_ms = i64::from(u16::from_le_bytes(random())) * pause_ms / 5 / i64::from(u16::MAX);
    let next_ms = now_ms + pause_ms + jitter_ms;
    let last_ms = tried.since_ms + GIVE_UP_AFTER_MS;
    // It is tried after its day only where our side was away for a part of that.
    if last_ms > now_ms { next_ms.min(last_ms) } else { next_ms }
}

fn given_up(id: i64, event: &StoredEvent, tried: &Tried<'_>, now_ms: i64) -> Statement {
    Statement::new(
        "INSERT INTO webhook_dead (bucket, webhook_id, position, stream, event_type, attempts, last_error, failed_at_ms,
                                   given_up_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (bucket, webhook_id, position) DO UPDATE SET attempts = excluded.attempts,
           last_error = excluded.last_error, failed_at_ms = excluded.failed_at_ms,
           given_up_at_ms = excluded.given_up_at_ms",
        [
            BUCKET.into(),
            id.into(),
            event.position.into(),
            format!("{}/{}", event.aggregate_type, event.aggregate_id).into(),
            event.event_type.as_str().into(),
            tried.attempts.into(),
            tried.why.into(),
            tried.since_ms.into(),
            now_ms.into(),
        ],
    )
}

fn taken_after_all(id: i64, position: i64) -> Statement {
    let sql = "DELETE FROM webhook_dead WHERE bucket = $1 AND webhook_id = $2 AND position = $3";
    Statement::new(sql, [BUCKET.into(), id.into(), position.into()])
}

fn lease_name((webhook_id, lane): LaneKey) -> String {
    format!("webhook {webhook_id} {lane} lease")
}

/// Lets other servers go on at once with what this one sends.
pub async fn release_leases(ledger: &Ledger) -> Result<(), StoreError> {
    if ledger.store().is_shared() { lease::release(ledger, "webhook % lease").await } else { Ok(()) }
}

/// Sends for as long as the server runs, each lane on a task of its own.
pub async fn run_webhooks(ledger: Ledger, options: DeliveryOptions) {
    let outbox = Arc::new(Outbox::new(ledger, options));
    let mut working = JoinSet::new();
    let mut busy: HashSet<LaneKey> = HashSet::new();
    // What our own side keeps from going on, as long as it is due, and when it was last tried.
    let mut standing: HashMap<LaneKey, Instant> = HashMap::new();
    loop {
        while let Some(Ok((key, stands))) = working.try_join_next() {
            busy.remove(&key);
            if stands {
                standing.insert(key, Instant::now())
            } else {
                standing.remove(&key)
            };
        }
        match outbox.due().await {
            Ok(due) => {
                let due: HashSet<LaneKey> = due.iter().map(Due::key).collect();
                standing.retain(|key, _| due.contains(key));
                let rests = |key: &LaneKey| standing.get(key).is_some_and(|at| at.elapsed() < AFTER_ERROR);
                for key in due.into_iter().filter(|key| !rests(key) && busy.insert(*key)) {
                    let outbox = outbox.clone();
                    working.spawn(async move {
                        let worked = caught(outbox.work(key)).await;
                        if let Err(error) = &worked {
                            tracing::error!(webhook = key.0, lane = key.1, error, "a webhook stands still");
                        }
                        (key, worked.is_err())
                    });
                }
            }
            Err(error) => tracing::warn!(%error, "which webhooks are due could not be read"),
        }
        let labels = FollowerLabels { follower: "webhooks" };
        let metrics = outbox.ledger.metrics();
        metrics.follower_failed.get_or_create(&labels).set(i64::from(!standing.is_empty()));
        tokio::time::sleep(TICK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour_and_end_with_the_day() {
        let next =
            |attempts, since_ms, now_ms| next_try(&Tried { attempts, since_ms, why: "" }, now_ms) - now_ms;
        for (attempts, pause_ms) in [(1, 5_000), (2, 10_000), (5, 80_000), (11, 3_600_000), (40, 3_600_000)] {
            for _ in 0..100 {
                let next = next(attempts, 0, 1_000);
                assert!((pause_ms..=pause_ms + pause_ms / 5).contains(&next), "{attempts}: {next}");
            }
        }
        assert_eq!(next(30, 0, GIVE_UP_AFTER_MS - 60_000), 60_000);
        assert_eq!(next(30, 0, GIVE_UP_AFTER_MS - 1), 1);
    }

    #[test]
    fn only_what_says_that_it_was_taken_was_taken() {
        let said = |status| match judged(StatusCode::from_u16(status).unwrap()) {
            Ok(()) => "taken".to_owned(),
            Err(Untaken::Gone) => "gone".to_owned(),
            Err(Untaken::Said(why)) => why,
        };
        assert_eq!([200, 201, 202, 204].map(said), ["taken"; 4]);
        assert_eq!(said(410), "gone");
        assert_eq!(said(302), "answered 302: redirects are not followed");
        assert_eq!(
            [400, 404, 429, 500, 503].map(said),
            [400, 404, 429, 500, 503].map(|status| format!("answered {status}"))
        );
    }
}
