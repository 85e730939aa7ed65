//! A walk along a log: a scratch ledger as of one position after another, each event read once.
//!
//! Where [`as_of`](super::as_of) copies the events up to one position, a walk takes those that come next, and their effects
//! with them: for who asks at many positions, or at all. What it holds is then the whole ledger as it was, and the texts of
//! reviews that still are what their events hashed.

use std::collections::BTreeMap;

use super::as_of::{AsOfError, Review, missing, review_of, take_over};
use super::at::AsOf;
use super::kinds::Kind;
use crate::directory::seal::Seal;
use crate::store::{Effects, Scratch, Store, StoreError, StoredEvent, StreamId};

/// How many events are taken at a time.
const PAGE: i64 = 500;

/// A ledger that goes along another's log.
pub struct Walk {
    source: Store,
    seal: Seal,
    scratch: Scratch,
    at: AsOf,
}

impl Walk {
    /// Begins before the first event, in memory or wherever the scratch ledger, which is empty, lies.
    #[must_use]
    pub fn begin(source: Store, seal: Seal, scratch: Scratch) -> Self {
        Self { source, seal, scratch, at: AsOf { position: 0, at_ms: 0 } }
    }

    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> AsOf {
        self.at
    }

    /// The ledger as it was there. Nothing may be written to it: what comes next would find its place taken.
    #[must_use]
    pub fn store(&self) -> Store {
        self.scratch.store()
    }

    /// Goes on to a later point.
    pub async fn go_on(&mut self, to: AsOf) -> Result<(), AsOfError> {
        while self.at.position < to.position {
            let wanted = (to.position - self.at.position).min(PAGE);
            let page = self.source.events_after(self.at.position, wanted).await?;
            let last = page.last().ok_or_else(|| missing(self.at.position + 1))?;
            if last.position != self.at.position + page.len() as i64 {
                return Err(missing(self.at.position + 1).into());
            }
            let at = AsOf { position: last.position, at_ms: last.recorded_at_ms };
            self.take(page).await?;
            self.at = at;
        }
        self.at.at_ms = to.at_ms;
        Ok(())
    }

    /// Ends it, and nothing is left of it.
    pub async fn close(self) {
        self.scratch.close().await;
    }

    async fn take(&self, page: Vec<StoredEvent>) -> Result<(), AsOfError> {
        let mut next: BTreeMap<StreamId, Vec<StoredEvent>> = BTreeMap::new();
        for event in &page {
            next.entry(stream_of(event)?).or_default().push(event.clone());
        }
        let streams: Vec<StreamId> = next.keys().copied().collect();
        let before = self.store().load(&streams).await?;
        let (mut effects, mut reviews): (Vec<Effects>, Vec<Review>) = Default::default();
        for ((stream, events), before) in next.iter().zip(before) {
            if let Some(kind) = Kind::named(stream.kind) {
                effects.push((kind.further)(stream.id, &before, events)?);
                reviews.extend(review_of(stream.id, events)?);
            }
        }
        self.scratch.put_further(page, effects).await?;
        Ok(take_over(&self.scratch, &self.source, &self.seal, &reviews).await?)
    }
}

fn stream_of(event: &StoredEvent) -> Result<StreamId, StoreError> {
    let corrupt = |column: &str, what: &str| StoreError::Corrupt {
        table: "events".to_owned(),
        column: column.to_owned(),
        what: format!("position {}: {what}", event.position),
    };
    let kind = Kind::named(&event.aggregate_type).ok_or_else(|| corrupt("aggregate_type", "no such kind"))?;
    let id = event.aggregate_id.parse().map_err(|_| corrupt("aggregate_id", "no id"))?;
    Ok(StreamId { kind: kind.name, id })
}
