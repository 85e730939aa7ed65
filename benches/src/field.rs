//! Who is in the field of each row: the one place where rivals are prepared.

use crate::rivals::Rivals;
use crate::work::Page;
use crate::world::{Engine, World};

/// What rivals are wanted for.
pub enum Of<'a> {
    /// Redeeming: other event stores, and the raw limit; with one connection, a bare load and transaction.
    Redeem {
        /// The product's connections.
        connections: usize,
        /// Whether it takes idempotency keys: the rivals leave none.
        keys: bool,
    },
    /// Bulk issue: the raw limit.
    Issue,
    /// The sweep: the raw limit.
    Sweep,
    /// Replay: reading the rows of this ledger's log.
    Replay(&'a World),
    /// A page: a bare handler on this ledger's database.
    Page {
        /// The ledger.
        world: &'a World,
        /// Which page.
        page: Page,
        /// How many ask.
        connections: usize,
    },
}

/// The rivals of a row on an engine, prepared in databases of their own; nobody yet.
pub async fn rivals(_of: Of<'_>, _engine: &Engine) -> anyhow::Result<Rivals> {
    Ok(Rivals::default())
}
