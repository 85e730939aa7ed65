//! Who a row is held against: peers, and the raw limit of the engine.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::client::{self, Load, Pace};
use crate::measure::{Round, Rounds};
use crate::work::{Page, Reader, Reads};

type Running = Pin<Box<dyn Future<Output = anyhow::Result<Round>> + Send>>;

/// A contestant that takes turns with the product.
pub struct Rival {
    name: String,
    run: Box<dyn Fn(Duration) -> Running + Send + Sync>,
    rounds: Rounds,
}

impl Rival {
    /// A contestant, and how it runs a round.
    pub fn new<F>(name: impl Into<String>, round: impl Fn(Duration) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<Round>> + Send + 'static,
    {
        let run = move |duration| -> Running { Box::pin(round(duration)) };
        Self { name: name.into(), run: Box::new(run), rounds: Rounds::default() }
    }

    /// A server that answers the same requests for pages.
    pub fn handler(
        name: &str,
        address: String,
        connections: usize,
        readers: Arc<Vec<Reader>>,
        page: Page,
    ) -> Self {
        Self::new(name, move |duration| {
            let load = Load { addresses: vec![address.clone()], connections, duration, pace: Pace::Closed };
            let work = Reads::new(readers.clone(), page);
            async move { Ok(client::run(load, work).await?.round) }
        })
    }
}

/// Those of one row.
#[derive(Default)]
pub struct Rivals {
    /// Other event stores, or a bare handler.
    pub peers: Vec<Rival>,
    /// The same rows by hand, the one that the goal is about first.
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
