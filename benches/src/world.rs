//! A ledger with a past: one shop, members who hold coupons, coupons with a history; and the server that runs on it.
//!
//! Loading goes through the product's own paths, and never while a server runs on the same ledger.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use coupon_ledger::clock::Clock;
use coupon_ledger::config;
use coupon_ledger::coupon::{Coupon, CouponEvent};
use coupon_ledger::directory::Seal;
use coupon_ledger::entity::decode;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::{Ledger, LedgerOptions};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::store::{self, BUCKET, Statement, Store, StoreOptions};

use crate::client::{self, Load, Outcome, Pace, Work};
use crate::load::{self, PAGES, PLAIN};
use crate::measure::{Cores, Round};
use crate::postgres::Postgres;
use crate::process::Memory;
use crate::server::{self, Place, Ran, Server};
use crate::work::{Owned, Reader, Redeems};

/// So many redemptions a second are provided for until it is known how fast this ledger is.
const FASTEST_PER_SECOND: f64 = 20_000.0;

/// An engine to measure on.
#[derive(Clone)]
pub enum Engine {
    /// In a folder.
    Sqlite,
    /// In a database of a server of ours.
    Postgres(Arc<Postgres>),
}

impl Engine {
    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        match self {
            Self::Sqlite => Ok(0.0),
            Self::Postgres(postgres) => postgres.cpu_seconds(),
        }
    }
}

/// A ledger, the servers on it, and what is known of what lies in it.
pub struct World {
    /// On which engine.
    pub engine: Engine,
    /// Where it lies.
    pub place: Place,
    /// How many coupons have been issued.
    pub coupons: i64,
    /// How many members there are, from 1.
    pub members: i64,
    /// Members who each hold [`load::PAGE_ROWS`] coupons that are never redeemed.
    pub readers: Arc<Vec<Reader>>,
    clock: Clock,
    secrets: Secrets,
    look: Store,
    servers: Vec<Server>,
    unused: Vec<Owned>,
    runs: u32,
    scatter: u64,
    fastest: f64,
    peak: Memory,
}

impl World {
    /// An empty ledger with a shop, the two definitions and the members.
    pub async fn create(
        engine: &Engine,
        program: &Path,
        parent: &Path,
        name: &str,
        members: i64,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let database_url = match engine {
            Engine::Sqlite => None,
            Engine::Postgres(postgres) => Some(postgres.create_database(name)?),
        };
        let folder = server::folder(parent, &format!("{name}-{}", engine.name()))?;
        let place = Place { program: program.to_owned(), folder, database_url };
        let secrets =
            config::secrets(&config::Place::default(), &place.folder, true).map_err(anyhow::Error::msg)?;
        let ledger = open(&place, &secrets, &clock).await?;
        load::found(&ledger, members).await?;
        ledger.store().close().await;
        let look = store::open_read_only(&store_options(&place, &secrets, &clock)).await?;
        Ok(Self {
            engine: engine.clone(),
            place,
            coupons: 0,
            members,
            readers: Arc::default(),
            clock,
            secrets,
            look,
            servers: Vec::new(),
            unused: Vec::new(),
            runs: 0,
            scatter: 1,
            fastest: FASTEST_PER_SECOND,
            peak: Memory::default(),
        })
    }

    /// The log's last position.
    pub async fn head(&self) -> anyhow::Result<i64> {
        let sql = "SELECT position FROM log_head WHERE bucket = $1";
        let rows = self.look.query(Statement::new(sql, [BUCKET.into()])).await?;
        Ok(rows.first().context("no head")?.int(0))
    }

    /// The ledger, seen from outside the server.
    pub fn look(&self) -> &Store {
        &self.look
    }

    /// The ledger in this process; no server runs until it is closed.
    pub async fn in_process(&mut self) -> anyhow::Result<Ledger> {
        self.stop().await?;
        open(&self.place, &self.secrets, &self.clock).await
    }

    /// The clock of what this process does from now on; servers go by the real one.
    pub fn set_clock(&mut self, clock: Clock) {
        self.clock = clock;
    }

    /// Lets the database finish what loading left behind. SQLite has nothing left: the ledger was closed.
    pub fn settle(&self) -> anyhow::Result<()> {
        match (&self.engine, &self.place.database_url) {
            (Engine::Postgres(postgres), Some(url)) => postgres.settle(url),
            _ => Ok(()),
        }
    }

    /// Exactly so many servers, started as needed.
    pub async fn serve(&mut self, count: usize) -> anyhow::Result<()> {
        while self.servers.len() > count {
            self.stop_one().await?;
        }
        while self.servers.len() < count {
            self.servers.push(Server::start(&self.place).await?);
        }
        Ok(())
    }

    /// The servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Ends every server.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.serve(0).await
    }

    async fn stop_one(&mut self) -> anyhow::Result<()> {
        if let Some(server) = self.servers.pop() {
            self.note_memory(server.memory()?);
            server.stop().await?;
        }
        Ok(())
    }

    /// What the running servers hold, and the most that any server of this ledger ever held.
    pub fn memory(&self) -> anyhow::Result<Memory> {
        let mut memory = Memory { resident_mib: 0.0, ..self.peak };
        for server in &self.servers {
            let seen = server.memory()?;
            memory.resident_mib += seen.resident_mib;
            memory.peak_mib = memory.peak_mib.max(seen.peak_mib);
        }
        Ok(memory)
    }

    fn note_memory(&mut self, seen: Memory) {
        self.peak.resident_mib = self.peak.resident_mib.max(seen.resident_mib);
        self.peak.peak_mib = self.peak.peak_mib.max(seen.peak_mib);
    }

    /// A token of a member's.
    pub fn token(&self, member_id: i64) -> String {
        let now_ms = Clock::System.now_ms();
        Token::new(Caller::Member(member_id), now_ms, 86_400).sign(&self.secrets)
    }

    /// An operator's token.
    pub fn operator(&self) -> String {
        Token::new(Caller::Operator, Clock::System.now_ms(), 86_400).sign(&self.secrets)
    }

    /// Issues a coupon of a definition to each of these members, with the program's own command.
    pub async fn issue(
        &mut self,
        definition_id: i64,
        first: i64,
        last: i64,
    ) -> anyhow::Result<(Ran, Cores, Vec<Owned>)> {
        self.stop().await?;
        self.runs += 1;
        let before = self.head().await?;
        let (definition, members) = (definition_id.to_string(), format!("{first}..{last}"));
        let run = format!("load-{}", self.runs);
        let arguments = ["issue", "--definition", &definition, "--members", &members, "--run", &run];
        let database = self.engine.cpu_seconds()?;
        let ran = server::run(&self.place, &arguments).await?;
        let database = (self.engine.cpu_seconds()? - database) / ran.seconds;
        let cores = Cores { server: ran.cpu_seconds / ran.seconds, database, client: 0.0 };
        let issued = self.issued_after(before).await?;
        ensure!(issued.len() as i64 == last - first + 1, "{} issued to {members}", issued.len());
        self.coupons += issued.len() as i64;
        Ok((ran, cores, issued))
    }

    /// The coupons that were issued behind a position, with their holders.
    async fn issued_after(&self, mut position: i64) -> anyhow::Result<Vec<Owned>> {
        let mut issued = Vec::new();
        loop {
            let events = self.look.events_after(position, 10_000).await?;
            let Some(last) = events.last() else { return Ok(issued) };
            position = last.position;
            for event in events.iter().filter(|event| event.event_type == "Issued") {
                let CouponEvent::Issued(issue) = decode::<Coupon>(event)? else { continue };
                issued.push((event.aggregate_id.parse()?, u32::try_from(issue.member_id)?));
            }
        }
    }

    /// Gives coupons a history, and lays them ready to be redeemed.
    pub async fn add_unused(&mut self, issued: Vec<Owned>) -> anyhow::Result<()> {
        let ledger = self.in_process().await?;
        load::live_through(&ledger, &issued).await?;
        ledger.store().close().await;
        self.lay_ready(issued);
        Ok(())
    }

    /// Lays coupons ready to be redeemed, in an order that has nothing to do with that on disk.
    pub fn lay_ready(&mut self, coupons: impl IntoIterator<Item = Owned>) {
        self.unused.extend(coupons);
        for place in (1..self.unused.len()).rev() {
            // Knuth's MMIX generator: the same order in every run.
            self.scatter =
                self.scatter.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.unused.swap(place, (self.scatter >> 33) as usize % (place + 1));
        }
    }

    /// Fills the members `first..=last` with rows for reading.
    pub async fn add_readers(&mut self, first: i64, last: i64) -> anyhow::Result<()> {
        let mut newest = Vec::new();
        for _ in 0..load::PAGE_ROWS {
            let (.., issued) = self.issue(PAGES, first, last).await?;
            let ledger = self.in_process().await?;
            load::live_through(&ledger, &issued).await?;
            ledger.store().close().await;
            newest = issued;
        }
        let mut readers = std::mem::take(Arc::get_mut(&mut self.readers).context("the readers are in use")?);
        for (coupon, member) in newest {
            readers.push(Reader { token: self.token(member.into()), coupon });
        }
        self.readers = Arc::new(readers);
        Ok(())
    }

    /// So many coupons last for a time at so many connections: one that waits for a commit each time needs few.
    pub fn enough(&self, time: Duration, connections: usize) -> usize {
        let per_second = self.fastest.min(3_000.0 * connections as f64);
        (per_second * time.as_secs_f64()) as usize + connections
    }

    /// Makes sure that so many coupons are laid ready.
    pub async fn stock_up(&mut self, needed: usize) -> anyhow::Result<()> {
        while self.unused.len() < needed {
            let last = self.members.min((needed - self.unused.len()) as i64);
            eprintln!("  issuing {last} more coupons");
            let (.., issued) = self.issue(PLAIN, 1, last).await?;
            self.add_unused(issued).await?;
        }
        Ok(())
    }

    /// Takes up to so many coupons, with their holders' tokens.
    pub fn take(&mut self, count: usize) -> Vec<(Owned, String)> {
        let first = self.unused.len().saturating_sub(count);
        let taken = self.unused.split_off(first);
        taken.into_iter().map(|owned| (owned, self.token(owned.1.into()))).collect()
    }

    /// CPU seconds so far, of the first servers and of the database.
    pub fn cpu_seconds(&self, servers: usize) -> anyhow::Result<(f64, f64)> {
        let asked = self.servers.iter().take(servers).map(Server::cpu_seconds);
        Ok((asked.sum::<anyhow::Result<f64>>()?, self.engine.cpu_seconds()?))
    }

    /// Runs work against the first servers, and sees what CPU it takes.
    pub async fn run<W: Work>(
        &self,
        servers: usize,
        connections: usize,
        duration: Duration,
        pace: Pace,
        work: W,
    ) -> anyhow::Result<(Outcome<W>, Cores)> {
        let asked = self.servers.iter().take(servers);
        let addresses = asked.map(|server| server.address.clone()).collect();
        let before = self.cpu_seconds(servers)?;
        let outcome = client::run(Load { addresses, connections, duration, pace }, work).await?;
        let after = self.cpu_seconds(servers)?;
        let seconds = outcome.round.seconds;
        let cores = Cores {
            server: (after.0 - before.0) / seconds,
            database: (after.1 - before.1) / seconds,
            client: outcome.cpu_seconds / seconds,
        };
        Ok((outcome, cores))
    }

    /// One round of redeeming on the first servers. Each answer is one event in the log, or the round fails.
    pub async fn redeem(
        &mut self,
        servers: usize,
        connections: usize,
        duration: Duration,
        keys: bool,
    ) -> anyhow::Result<(Round, Cores, Vec<u64>)> {
        let work = Redeems::new(self.take(self.enough(duration, connections)), keys);
        let before = self.head().await?;
        let (outcome, cores) = self.run(servers, connections, duration, Pace::Closed, work).await?;
        let written = self.head().await? - before;
        let done = outcome.round.done;
        ensure!(
            written as u64 == done,
            "{done} redemptions were answered, but {written} events are in the log"
        );
        if outcome.round.seconds < 0.9 * duration.as_secs_f64() {
            eprintln!("  the coupons ran out after {:.1} s: the round is shorter", outcome.round.seconds);
        }
        // Beyond the fastest round of many connections there is room for one that is faster still.
        if connections >= 64 {
            let rate = done as f64 / outcome.round.seconds;
            let seen = if self.fastest == FASTEST_PER_SECOND { 0.0 } else { self.fastest };
            self.fastest = seen.max(rate * 1.4);
        }
        self.unused.extend(outcome.work.left());
        Ok((outcome.round, cores, outcome.shares))
    }
}

async fn open(place: &Place, secrets: &Secrets, clock: &Clock) -> anyhow::Result<Ledger> {
    let store = store::open(&store_options(place, secrets, clock)).await?;
    let seal = Seal::open(&store, secrets, &place.folder.join("person.keys")).await?;
    Ok(Ledger::start(LedgerOptions {
        store,
        seal,
        secrets: secrets.clone(),
        zone: coupon_ledger::clock::Zone::default(),
        clock: clock.clone(),
        capacity: 4_096,
    }))
}

fn store_options(place: &Place, secrets: &Secrets, clock: &Clock) -> StoreOptions {
    StoreOptions {
        data_dir: place.folder.clone(),
        database_url: place.database_url.clone(),
        secret_id: secrets.id(),
        now_ms: clock.now_ms(),
    }
}
