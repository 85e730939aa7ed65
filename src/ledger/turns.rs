//! Turns: commands on one stream queue behind each other inside a process, so that many callers on one coupon do not
//! burn retries on version conflicts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::store::StreamId;

type Gate = Arc<tokio::sync::Mutex<()>>;

/// One gate per stream that is being worked on; none for the others.
#[derive(Clone, Default)]
pub struct Turns {
    gates: Arc<Mutex<HashMap<StreamId, Gate>>>,
}

/// A stream's turn; the next in line goes on when it is dropped.
pub struct Turn {
    turns: Turns,
    stream: StreamId,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until this stream is free.
    pub async fn wait(&self, stream: StreamId) -> Turn {
        let gate =
            self.gates.lock().unwrap_or_else(PoisonError::into_inner).entry(stream).or_default().clone();
        // Made before the wait: whoever gives up waiting must not leave the gate behind.
        let mut turn = Turn { turns: self.clone(), stream, guard: None };
        turn.guard = Some(gate.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.guard = None;
        let mut gates = self.turns.gates.lock().unwrap_or_else(PoisonError::into_inner);
        // Only the map itself still knows the gate: nobody waits.
        if gates.get(&self.stream).is_some_and(|gate| Arc::strong_count(gate) == 1) {
            gates.remove(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stream_is_worked_on_by_one_at_a_time_and_leaves_nothing_behind() {
        let turns = Turns::default();
        let stream = StreamId { kind: "coupon", id: 1 };
        let first = turns.wait(stream).await;
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), turns.wait(stream)).await;
        assert!(second.is_err(), "the stream was free");
        drop(first);
        drop(turns.wait(stream).await);
        assert!(turns.gates.lock().unwrap().is_empty());
    }
}
