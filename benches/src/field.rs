//! Who is in the field of each row: the one place where rivals are prepared, once, and handed to the rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::measure::Round;
use crate::peers::{disintegrate, postgres_es, sqlite_es};
use crate::raw::handler::Handler;
use crate::raw::{self, Kind};
use crate::rivals::{Rival, Rivals};
use crate::rows::Settings;
use crate::work::Page;
use crate::world::{Engine, World};

/// Connections at which the peers are tried: the best one counts, so a peer is never asked for more than suits it.
const PEER_CONNECTIONS: [usize; 2] = [32, 64];

/// Connections of single statements.
const SINGLE_CONNECTIONS: usize = 32;

/// Coupons in the rivals' databases at full scale: as many as the product has at these rows.
const LOADED: i64 = 1_000_000;

/// Rows of a log that are read, at full scale.
const READ: i64 = 1_000_000;

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

/// The rivals on one engine. Each is prepared when it is first wanted, and serves every row after that.
pub struct Field<'a> {
    engine: Engine,
    settings: &'a Settings,
    raw: Option<Raw>,
    peers: Option<Peers>,
    handler: Option<Handler>,
}

/// The raw limit of an engine.
#[derive(Clone)]
enum Raw {
    Postgres(Arc<raw::postgres::Raw>),
    Sqlite(raw::sqlite::Raw),
}

/// The peers on an engine.
#[derive(Clone)]
enum Peers {
    Postgres { postgres_es: Arc<postgres_es::Peer>, disintegrate: Arc<disintegrate::Peer> },
    Sqlite { best: Arc<sqlite_es::Peer>, shipped: Arc<sqlite_es::Peer> },
}

impl<'a> Field<'a> {
    /// Nobody yet.
    pub fn new(engine: Engine, settings: &'a Settings) -> Self {
        Self { engine, settings, raw: None, peers: None, handler: None }
    }

    /// The rivals of a row.
    pub async fn rivals(&mut self, of: Of<'_>) -> anyhow::Result<Rivals> {
        match of {
            Of::Redeem { connections: 1, .. } => {
                let raw = self.raw().await?.one_at_a_time();
                Ok(Rivals { peers: self.peers().await?.redeem(&[1]), raw: vec![raw] })
            }
            Of::Redeem { connections, keys } => {
                let raw = self.raw().await?;
                let mut rivals = Rivals {
                    peers: Vec::new(),
                    raw: vec![raw.batches(Kind::Redeem, self.settings.raw_batch)],
                };
                // The peers are asked where a goal is about them, and so is what explains the raw limit.
                if keys && connections >= 64 {
                    rivals.peers = self.peers().await?.redeem(&PEER_CONNECTIONS);
                }
                if keys && connections >= 256 {
                    rivals.raw.push(raw.batches(Kind::TwoRows, self.settings.raw_batch));
                    rivals.raw.extend(raw.single_statements());
                }
                Ok(rivals)
            }
            // It begins on empty tables, as the product does.
            Of::Issue => Ok(Rivals {
                peers: Vec::new(),
                raw: vec![self.load_raw("raw_issue", 0).await?.batches(Kind::Issue, self.settings.raw_batch)],
            }),
            Of::Sweep => Ok(Rivals {
                peers: Vec::new(),
                raw: vec![self.raw().await?.batches(Kind::Expire, self.settings.raw_batch)],
            }),
            Of::Replay(world) => Ok(Rivals {
                peers: Vec::new(),
                raw: vec![read_rows(world, self.settings.scaled(READ)).await?],
            }),
            Of::Page { world, page, connections } => {
                if self.handler.is_none() {
                    self.handler = Some(Handler::start(&world.place).await?);
                }
                let address = self.handler.as_ref().context("no handler")?.address.clone();
                let readers = world.readers.clone();
                let bare = Rival::handler("bare axum + sqlx", address, connections, readers, page);
                Ok(Rivals { peers: vec![bare], raw: Vec::new() })
            }
        }
    }

    async fn raw(&mut self) -> anyhow::Result<Raw> {
        if let Some(raw) = &self.raw {
            return Ok(raw.clone());
        }
        eprintln!("{}: loading the raw limit's coupons", self.engine.name());
        let raw = self.load_raw("raw", self.settings.scaled(LOADED)).await?;
        Ok(self.raw.insert(raw).clone())
    }

    async fn load_raw(&self, name: &str, loaded: i64) -> anyhow::Result<Raw> {
        Ok(match &self.engine {
            Engine::Postgres(postgres) => {
                let url = postgres.create_database(name)?;
                Raw::Postgres(Arc::new(raw::postgres::Raw::prepare(&url, loaded).await?))
            }
            Engine::Sqlite => Raw::Sqlite(raw::sqlite::Raw::prepare(&self.folder(name)?, loaded).await?),
        })
    }

    async fn peers(&mut self) -> anyhow::Result<Peers> {
        if let Some(peers) = &self.peers {
            return Ok(peers.clone());
        }
        eprintln!("{}: loading the peers' coupons", self.engine.name());
        // A quick look must not run out of streams either: each is redeemed once.
        let loaded = self.settings.scaled(LOADED).max(50_000);
        let peers = match &self.engine {
            Engine::Postgres(postgres) => {
                let url = postgres.create_database("postgres_es")?;
                let postgres_es = Arc::new(postgres_es::Peer::prepare(&url, loaded).await?);
                let url = postgres.create_database("disintegrate")?;
                let disintegrate = Arc::new(disintegrate::Peer::prepare(&url, loaded).await?);
                Peers::Postgres { postgres_es, disintegrate }
            }
            Engine::Sqlite => {
                let (best, shipped) = (self.folder("sqlite-es-best")?, self.folder("sqlite-es-shipped")?);
                let best = sqlite_es::Peer::prepare(&best, loaded, sqlite_es::Settings::BEST).await?;
                let shipped =
                    sqlite_es::Peer::prepare(&shipped, loaded, sqlite_es::Settings::DEFAULT).await?;
                Peers::Sqlite { best: Arc::new(best), shipped: Arc::new(shipped) }
            }
        };
        Ok(self.peers.insert(peers).clone())
    }

    fn folder(&self, name: &str) -> anyhow::Result<std::path::PathBuf> {
        let folder: &Path = self.settings.folder();
        crate::server::folder(folder, name)
    }
}

impl Raw {
    fn batches(&self, kind: Kind, batch: usize) -> Rival {
        let what = match kind {
            Kind::Redeem => "the same rows",
            Kind::Issue => "the same rows of an issue",
            Kind::Expire => "the same rows of an expiry",
            Kind::TwoRows => "two rows",
        };
        let (name, raw) = (format!("raw, {what}, {batch} a batch"), self.clone());
        Rival::new(name, move |duration| {
            let raw = raw.clone();
            async move {
                match raw {
                    Self::Postgres(raw) => raw.round(kind, batch, duration).await,
                    Self::Sqlite(raw) => raw.round(kind, batch, duration).await,
                }
            }
        })
    }

    fn one_at_a_time(&self) -> Rival {
        let raw = self.clone();
        Rival::new("raw, load and one transaction", move |duration| {
            let raw = raw.clone();
            async move {
                match raw {
                    Self::Postgres(raw) => raw.load_and_write(duration).await,
                    Self::Sqlite(raw) => raw.load_and_write(duration).await,
                }
            }
        })
    }

    /// Only PostgreSQL takes them from many connections at a time.
    fn single_statements(&self) -> Option<Rival> {
        let Self::Postgres(raw) = self.clone() else { return None };
        let name = format!("raw, one INSERT a transaction, {SINGLE_CONNECTIONS} connections");
        Some(Rival::new(name, move |duration| {
            let raw = raw.clone();
            async move { raw.single_statements(SINGLE_CONNECTIONS, duration).await }
        }))
    }
}

impl Peers {
    /// Redeeming at these connections, each a contestant of its own.
    fn redeem(&self, connections: &[usize]) -> Vec<Rival> {
        let most = connections.iter().copied().max().unwrap_or(1);
        match self {
            Self::Postgres { postgres_es, disintegrate } => {
                let callers = |callers: &usize| peer("postgres-es", postgres_es.clone(), *callers);
                let mut peers: Vec<Rival> = connections.iter().map(callers).collect();
                peers.push(peer("disintegrate, no view", disintegrate.clone(), most));
                peers
            }
            Self::Sqlite { best, shipped } => vec![
                peer("sqlite-es FULL, one connection", best.clone(), most),
                peer("sqlite-es FULL, its own pool", shipped.clone(), most),
            ],
        }
    }
}

/// What every peer can do.
trait Redeem: Send + Sync + 'static {
    fn redeem(&self, callers: usize, time: Duration) -> impl Future<Output = anyhow::Result<Round>> + Send;
}

impl Redeem for postgres_es::Peer {
    async fn redeem(&self, callers: usize, time: Duration) -> anyhow::Result<Round> {
        self.round(callers, time).await
    }
}

impl Redeem for disintegrate::Peer {
    async fn redeem(&self, callers: usize, time: Duration) -> anyhow::Result<Round> {
        self.round(callers, time).await
    }
}

impl Redeem for sqlite_es::Peer {
    async fn redeem(&self, callers: usize, time: Duration) -> anyhow::Result<Round> {
        self.round(callers, time).await
    }
}

fn peer(name: &str, peer: Arc<impl Redeem>, callers: usize) -> Rival {
    Rival::new(format!("{name}, {callers} callers"), move |duration| {
        let peer = peer.clone();
        async move { peer.redeem(callers, duration).await }
    })
}

async fn read_rows(world: &World, limit: i64) -> anyhow::Result<Rival> {
    let Some(url) = &world.place.database_url else {
        let path = world.place.folder.join("ledger.db");
        return Ok(Rival::new("raw, rows in order", move |_| raw::sqlite::read_rows(path.clone(), limit)));
    };
    let rows = Arc::new(raw::postgres::ReadRows::prepare(url, limit).await?);
    Ok(Rival::new("raw, rows in order", move |_| {
        let rows = rows.clone();
        async move { rows.round().await }
    }))
}
