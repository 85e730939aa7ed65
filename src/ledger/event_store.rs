//! The ledger as a `cqrs_es` event store: what it commits goes through the same writer, rows and counters included.

use std::collections::HashMap;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore};

use super::{ExecuteError, Ledger};
use crate::entity::{Entity, decode, effects, encode, stream_of};
use crate::refusal::{Refusal, Wrong};
use crate::store::{Append, EPOCH, Entry, Outcome, StoredEvent, StreamAppend};
use crate::value::{hex, random};

/// A stream's state as `cqrs_es` hands it around: the aggregate, and what committing on it needs.
pub struct Loaded<A> {
    aggregate: A,
    before: A,
    id: i64,
    version: i64,
}

impl<A: Entity> AggregateContext<A> for Loaded<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

fn foreign(error: ExecuteError) -> AggregateError<Refusal> {
    match error {
        ExecuteError::Refused(refusal) => AggregateError::UserError(refusal),
        ExecuteError::Conflict => AggregateError::AggregateConflict,
        ExecuteError::Corrupt(error) => AggregateError::DeserializationError(error),
        other => AggregateError::UnexpectedError(Box::new(other)),
    }
}

fn numeric(aggregate_id: &str) -> Result<i64, AggregateError<Refusal>> {
    aggregate_id.parse().map_err(|_| foreign(Refusal::field("id", Wrong::NotANumber).into()))
}

impl<A: Entity> EventStore<A> for Ledger {
    type AC = Loaded<A>;

    async fn load_events(
        &self,
        aggregate_id: &str,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<Refusal>> {
        let stream = stream_of::<A>(numeric(aggregate_id)?);
        let stored = self.inner.store.load_one(stream).await.map_err(|error| foreign(error.into()))?;
        let envelope = |event: &StoredEvent| {
            Ok(EventEnvelope {
                aggregate_id: event.aggregate_id.clone(),
                sequence: usize::try_from(event.sequence).unwrap_or_default(),
                payload: decode::<A>(event).map_err(|error| foreign(error.into()))?,
                metadata: serde_json::from_str(&event.metadata).unwrap_or_default(),
            })
        };
        stored.iter().map(envelope).collect()
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Loaded<A>, AggregateError<Refusal>> {
        let id = numeric(aggregate_id)?;
        let (aggregate, version) = self.load::<A>(id).await.map_err(foreign)?;
        Ok(Loaded { before: aggregate.clone(), aggregate, id, version })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Loaded<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<Refusal>> {
        let Loaded { before, id, version, .. } = context;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let mut after = before.clone();
        for event in &events {
            after.evolve(event);
        }
        let encoded = events.iter().map(encode::<A>).collect::<Result<_, _>>();
        let encoded = encoded.map_err(|error| foreign(error.into()))?;
        let part = StreamAppend { stream: stream_of::<A>(id), expected_version: version, events: encoded };
        let mut append = Append {
            append_id: hex(&random::<16>()),
            epoch: EPOCH,
            entries: vec![Entry { streams: vec![part], effects: effects(id, &before, &after) }],
            unchanged: Vec::new(),
            receipts: Vec::new(),
            metadata: "{}".into(),
        };
        let mut described = metadata.clone();
        described.insert("append_id".to_owned(), append.append_id.clone());
        append.metadata = serde_json::to_string(&described).map_err(|error| foreign(error.into()))?.into();
        match self.inner.writer.submit(append).await {
            Ok(Outcome::Committed { .. }) => {}
            Ok(Outcome::Refused(refusal)) => return Err(AggregateError::UserError(refusal)),
            Ok(Outcome::Conflict | Outcome::ReceiptExists) => return Err(AggregateError::AggregateConflict),
            Err(error) => return Err(foreign(error.into())),
        }
        let first = usize::try_from(version).unwrap_or_default() + 1;
        let envelope = |(offset, payload)| EventEnvelope {
            aggregate_id: id.to_string(),
            sequence: first + offset,
            payload,
            metadata: described.clone(),
        };
        Ok(events.into_iter().enumerate().map(envelope).collect())
    }
}
