//! Who a row is held against: peers, and the raw limit of the engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::measure::{Round, Rounds};

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<Round>> + Send + 'a>>;

/// A contestant that takes turns with the product.
pub struct Rival {
    name: String,
    run: Box<dyn Fn(Duration) -> Running<'static> + Send + Sync>,
    rounds: Rounds,
}

impl Rival {
    /// A contestant that is prepared already, and how it runs a round.
    pub fn new<P: Send + 'static>(
        name: impl Into<String>,
        prepared: P,
        round: impl for<'a> Fn(&'a mut P, Duration) -> Running<'a> + Copy + Send + Sync + 'static,
    ) -> Self {
        let prepared = Arc::new(Mutex::new(prepared));
        let run = move |duration| -> Running<'static> {
            let prepared = prepared.clone();
            Box::pin(async move { round(&mut *prepared.lock().await, duration).await })
        };
        Self { name: name.into(), run: Box::new(run), rounds: Rounds::default() }
    }
}

/// Those of one row.
#[derive(Default)]
pub struct Rivals {
    /// Other event stores.
    pub peers: Vec<Rival>,
    /// The same rows by hand.
    pub raw: Vec<Rival>,
}

impl Rivals {
    /// Everyone's turn, one after the other.
    pub async fn take_turns(&mut self, duration: Duration) -> anyhow::Result<()> {
        for rival in self.peers.iter_mut().chain(&mut self.raw) {
            rival.rounds.push((rival.run)(duration).await?, None);
        }
        Ok(())
    }

    /// Their rounds, by name: peers and raw limits.
    #[expect(clippy::type_complexity, reason = "a pair of what a row holds")]
    pub fn rounds(self) -> (Vec<(String, Rounds)>, Vec<(String, Rounds)>) {
        let named = |rivals: Vec<Rival>| rivals.into_iter().map(|rival| (rival.name, rival.rounds)).collect();
        (named(self.peers), named(self.raw))
    }
}
