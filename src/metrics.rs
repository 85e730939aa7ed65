//! What an operator can watch, in Prometheus' text format.

use std::sync::atomic::{AtomicI64, AtomicU64};

use cqrs_es::DomainEvent as _;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::entity::Entity;

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

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Appends that wait for the next batch.
    pub queue_depth: Gauge<i64, AtomicI64>,
    /// Appends per batch.
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
    events: Family<EventLabels, Counter>,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("coupon_ledger");
        let seconds = || Histogram::new(exponential_buckets(0.000_5, 2.0, 14));
        let metrics = Self {
            queue_depth: Gauge::default(),
            batch_size: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            batch_seconds: seconds(),
            halved_batches: Counter::default(),
            unknown_commits: Counter::default(),
            conflicts: Counter::default(),
            busy: Counter::default(),
            clock_skew_ms: Gauge::default(),
            events: Family::default(),
            requests: Family::default(),
            request_seconds: seconds(),
            registry: Registry::default(),
        };
        registry.register("queue_depth", "Appends that wait for the next batch", metrics.queue_depth.clone());
        registry.register("batch_size", "Appends per batch", metrics.batch_size.clone());
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
        registry.register("events", "Events appended by this process", metrics.events.clone());
        registry.register("requests", "Requests by route and code", metrics.requests.clone());
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
