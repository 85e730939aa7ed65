//! What an operator can watch, in Prometheus' text format.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use cqrs_es::DomainEvent as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::entity::Entity;
use crate::store::Phases;

/// One event type of one aggregate.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct EventLabels {
    aggregate: &'static str,
    event: String,
}

/// One route and the code it answered.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct RequestLabels {
    route: &'static str,
    code: i64,
}

/// What was asked for too often.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct LimitedLabels {
    class: &'static str,
}

/// One part of what the writer does with a batch.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// A job that follows the log or the calendar.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct FollowerLabels {
    /// Its name.
    pub follower: &'static str,
}

/// What became of a message that was to be handed to the webhook.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct MessageLabels {
    outcome: &'static str,
}

/// A witness of the transparency log.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WitnessLabels {
    /// Its name.
    pub witness: String,
}

/// A webhook.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct WebhookLabels {
    /// Its id.
    pub webhook: i64,
}

/// What became of what was sent to a webhook.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct DeliveryLabels {
    /// Its id.
    pub webhook: i64,
    /// `taken` or `failed`.
    pub outcome: &'static str,
}

/// Where the writer's time goes, batch by batch.
#[derive(Debug)]
pub struct WriterPhases {
    family: Family<PhaseLabels, Histogram, fn() -> Histogram>,
}

impl WriterPhases {
    fn of(&self, phase: &'static str, seconds: f64) {
        self.family.get_or_create(&PhaseLabels { phase }).observe(seconds);
    }

    /// How long a batch's first append waited for the batch before.
    pub fn gathered(&self, waited: Duration) {
        self.of("gather", waited.as_secs_f64());
    }

    /// What the engine did.
    pub fn committed(&self, phases: &Phases) {
        self.of("lock", phases.lock.as_secs_f64());
        self.of("check", phases.check.as_secs_f64());
        self.of("write", phases.write.as_secs_f64());
        self.of("commit", phases.commit.as_secs_f64());
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Where the writer's time goes.
    pub writer_phases: WriterPhases,
    /// How far behind each follower is, in seconds.
    pub follower_lag: Family<FollowerLabels, Gauge<i64, AtomicI64>>,
    /// Whether each follower is stopped by something that somebody must mend: 0 or 1.
    pub follower_failed: Family<FollowerLabels, Gauge<i64, AtomicI64>>,
    /// Leaves of the last tree that is known to be signed.
    pub checkpoint_size: Gauge<i64, AtomicI64>,
    /// Leaves of the last tree that each witness has cosigned.
    pub witness_size: Family<WitnessLabels, Gauge<i64, AtomicI64>>,
    /// Whether each witness refuses, is away or knows more than this ledger: 0 or 1.
    pub witness_failed: Family<WitnessLabels, Gauge<i64, AtomicI64>>,
    /// Whether each follower rests.
    pub follower_paused: Family<FollowerLabels, Gauge<i64, AtomicI64>>,
    /// How many events each webhook is behind.
    pub webhook_lag: Family<WebhookLabels, Gauge<i64, AtomicI64>>,
    /// Whether each webhook's next event was tried in vain: 0 or 1.
    pub webhook_failing: Family<WebhookLabels, Gauge<i64, AtomicI64>>,
    /// How many events of each webhook were given up.
    pub webhook_dead: Family<WebhookLabels, Gauge<i64, AtomicI64>>,
    /// What was sent to each webhook.
    pub webhook_deliveries: Family<DeliveryLabels, Counter>,
    /// Appends that wait for the next batch.
    pub queue_depth: Gauge<i64, AtomicI64>,
    /// Entries per batch: one for a member's command, many for a chunk of a bulk job.
    pub batch_size: Histogram,
    /// From the batch's start to its outcomes.
    pub batch_seconds: Histogram,
    /// Batches that the database rejected and that were retried in halves.
    pub halved_batches: Counter<u64, AtomicU64>,
    /// Commits that were not answered.
    pub unknown_commits: Counter<u64, AtomicU64>,
    /// Commands whose stream moved under them.
    pub conflicts: Counter<u64, AtomicU64>,
    /// Commands refused because too many were under way.
    pub busy: Counter<u64, AtomicU64>,
    /// How far this process's clock is ahead of the database's.
    pub clock_skew_ms: Gauge<i64, AtomicI64>,
    /// What the last verification of this process found wrong.
    pub verify_findings: Gauge<i64, AtomicI64>,
    /// The last event that it looked at; 0 = there was none yet.
    pub verified_position: Gauge<i64, AtomicI64>,
    /// When it ended, Unix seconds.
    pub verified_at_seconds: Gauge<i64, AtomicI64>,
    events: Family<EventLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    limited: Family<LimitedLabels, Counter>,
    messages: Family<MessageLabels, Counter>,
    request_seconds: Histogram,
}

impl Default for Metrics {
    #[expect(clippy::too_many_lines, reason = "one table: each metric with its name and what it tells")]
    fn default() -> Self {
        let mut registry = Registry::with_prefix("coupon_ledger");
        let metrics = Self {
            writer_phases: WriterPhases { family: Family::new_with_constructor(seconds) },
            follower_lag: Family::default(),
            follower_failed: Family::default(),
            checkpoint_size: Gauge::default(),
            witness_size: Family::default(),
            witness_failed: Family::default(),
            follower_paused: Family::default(),
            webhook_lag: Family::default(),
            webhook_failing: Family::default(),
            webhook_dead: Family::default(),
            webhook_deliveries: Family::default(),
            queue_depth: Gauge::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            batch_seconds: seconds(),
            halved_batches: Counter::default(),
            unknown_commits: Counter::default(),
            conflicts: Counter::default(),
            busy: Counter::default(),
            clock_skew_ms: Gauge::default(),
            verify_findings: Gauge::default(),
            verified_position: Gauge::default(),
            verified_at_seconds: Gauge::default(),
            events: Family::default(),
            requests: Family::default(),
            limited: Family::default(),
            messages: Family::default(),
            request_seconds: seconds(),
            registry: Registry::default(),
        };
        registry.register("queue_depth", "Appends that wait for the next batch", metrics.queue_depth.clone());
        registry.register_with_unit(
            "writer_phase",
            "Where the writer's time goes, batch by batch: gather, lock, check, write, commit",
            Unit::Seconds,
            metrics.writer_phases.family.clone(),
        );
        registry.register_with_unit(
            "follower_lag",
            "How far behind each follower is",
            Unit::Seconds,
            metrics.follower_lag.clone(),
        );
        registry.register(
            "follower_failed",
            "1 while something must be mended before the follower goes on",
            metrics.follower_failed.clone(),
        );
        registry.register(
            "checkpoint_size",
            "Leaves of the last tree that was signed",
            metrics.checkpoint_size.clone(),
        );
        registry.register(
            "witness_size",
            "Leaves of the last tree that each witness has cosigned",
            metrics.witness_size.clone(),
        );
        registry.register(
            "witness_failed",
            "Whether each witness refuses, is away or knows more than this ledger",
            metrics.witness_failed.clone(),
        );
        registry.register("follower_paused", "1 while a follower rests", metrics.follower_paused.clone());
        registry.register("webhook_lag", "Events that each webhook is behind", metrics.webhook_lag.clone());
        registry.register(
            "webhook_failing",
            "1 while a webhook's next event is tried in vain",
            metrics.webhook_failing.clone(),
        );
        registry.register(
            "webhook_dead",
            "Events of each webhook that were given up",
            metrics.webhook_dead.clone(),
        );
        registry.register(
            "webhook_deliveries",
            "What this process sent to each webhook, taken or failed",
            metrics.webhook_deliveries.clone(),
        );
        registry.register("batch_size", "Entries per batch", metrics.batch_size.clone());
        registry.register_with_unit(
            "batch",
            "Time from a batch's start to its outcomes",
            Unit::Seconds,
            metrics.batch_seconds.clone(),
        );
        registry.register("halved_batches", "Batches retried in halves", metrics.halved_batches.clone());
        registry.register(
            "unknown_commits",
            "Commits that were not answered",
            metrics.unknown_commits.clone(),
        );
        registry.register("conflicts", "Commands whose stream moved", metrics.conflicts.clone());
        registry.register("busy", "Commands refused because too many were under way", metrics.busy.clone());
        registry.register(
            "clock_skew_ms",
            "Milliseconds this clock is ahead of the database's",
            metrics.clock_skew_ms.clone(),
        );
        registry.register(
            "verify_findings",
            "What the last verification by this process found wrong",
            metrics.verify_findings.clone(),
        );
        registry.register(
            "verified_position",
            "The last event that this process has verified; 0 = none yet",
            metrics.verified_position.clone(),
        );
        registry.register(
            "verified_at_seconds",
            "When the last verification by this process ended, Unix seconds",
            metrics.verified_at_seconds.clone(),
        );
        registry.register("events", "Events appended by this process", metrics.events.clone());
        registry.register("requests", "Requests by route and code", metrics.requests.clone());
        registry.register(
            "limited",
            "Requests of callers and addresses that asked too often, by what they asked for",
            metrics.limited.clone(),
        );
        registry.register(
            "message_webhook",
            "Messages that the webhook was asked to take: delivered, failed (tried again) or given_up",
            metrics.messages.clone(),
        );
        registry.register_with_unit(
            "request",
            "Time to answer",
            Unit::Seconds,
            metrics.request_seconds.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// Counts appended events.
    pub fn count_events<A: Entity>(&self, events: &[A::Event]) {
        for event in events {
            self.events.get_or_create(&EventLabels { aggregate: A::TYPE, event: event.event_type() }).inc();
        }
    }

    /// Counts an answered request.
    pub fn count_request(&self, route: &'static str, code: i64, seconds: f64) {
        self.requests.get_or_create(&RequestLabels { route, code }).inc();
        self.request_seconds.observe(seconds);
    }

    /// Counts a request that was one too many.
    pub fn count_limited(&self, class: &'static str) {
        self.limited.get_or_create(&LimitedLabels { class }).inc();
    }

    /// Counts a message that the webhook was asked to take.
    pub fn count_message(&self, outcome: &'static str) {
        self.messages.get_or_create(&MessageLabels { outcome }).inc();
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
