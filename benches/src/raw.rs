//! The raw limits: the best that hand-written code on one connection reaches, with the product's own tables, rows and
//! indexes, and durability as the product has it. Nothing is loaded, decided or checked on the way, and nobody is asked
//! who he is: what the product takes beyond this is the price of being a ledger.

pub mod handler;
pub mod postgres;
mod sample;
pub mod sqlite;

use std::path::Path;

use coupon_ledger::clock::Clock;
use coupon_ledger::store::{self, StoreOptions};

use crate::measure::Round;

/// What is written, command by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Event, wallet row, redemption, receipt: what a redeem with a key leaves. Coupons in a scattered order.
    Redeem,
    /// Event, wallet row, member count; stock and one receipt a batch: what bulk issue leaves.
    Issue,
    /// Event and wallet row, coupons in order: what the sweep leaves.
    Expire,
    /// Event and one upsert of a narrow row: less than any ledger with read models.
    TwoRows,
}

/// The WAL is written back when it is longer than this: the product's own bound.
const MAX_WAL_BYTES: u64 = 192 << 20;

/// Makes the tables with the product's own migrations, and lets go of them.
async fn migrate(folder: &Path, database_url: Option<&str>) -> anyhow::Result<()> {
    let options = StoreOptions {
        data_dir: folder.to_owned(),
        database_url: database_url.map(str::to_owned),
        secret_id: "raw".to_owned(),
        now_ms: Clock::System.now_ms(),
    };
    store::open(&options).await?.close().await;
    Ok(())
}

/// Rows of a table of its own, beside the log.
const NARROW: &str = "CREATE TABLE IF NOT EXISTS narrow (
    bucket BIGINT NOT NULL, coupon_id BIGINT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (bucket, coupon_id))";

/// A batch's coupons and where they go in the log.
struct Slots {
    /// Of the first event.
    position: i64,
    /// Coupon and its event's number in its stream.
    streams: Vec<(i64, i64)>,
}

/// Which coupon's turn it is. Each kind has its own sequences, and goes round when all coupons have had their turn.
#[derive(Default)]
struct Turns {
    redeem: i64,
    issue: i64,
    expire: i64,
    two_rows: i64,
}

impl Turns {
    /// The next ones of a kind, of so many loaded coupons.
    fn take(
        &mut self,
        kind: Kind,
        scattered: &crate::peers::Scattered,
        loaded: i64,
        count: usize,
    ) -> Vec<(i64, i64)> {
        let (turn, first_sequence) = match kind {
            Kind::Redeem => (&mut self.redeem, 3),
            Kind::Issue => (&mut self.issue, 1),
            Kind::Expire => (&mut self.expire, 4),
            Kind::TwoRows => (&mut self.two_rows, 5),
        };
        let first = *turn;
        *turn += count as i64;
        let stream = |turn: i64| match kind {
            Kind::Issue => (loaded + turn + 1, first_sequence),
            Kind::Expire => (turn % loaded + 1, first_sequence + turn / loaded * 3),
            Kind::Redeem | Kind::TwoRows => (scattered.at(turn), first_sequence + turn / loaded * 3),
        };
        (first..*turn).map(stream).collect()
    }
}

fn round(done: usize, started: std::time::Instant, micros: Vec<u32>) -> Round {
    Round { done: done as u64, seconds: started.elapsed().as_secs_f64(), micros }
}
