//! The transparency log: every leaf is the hash of its event, every tile the roots of those below, every checkpoint signed
//! by a key that is trusted, over the tree that is there.

use tlog_tiles::{HASH_SIZE, Hash, Tile};

use super::{Finding, Totals, VerifyError, Worker};
use crate::audit::checkpoint::{BadKey, Opened, Trust, Untrusted};
use crate::audit::tlog::{self, FULL, Place, Tiles, verifier_keys};
use crate::directory::Seal;
use crate::entity::{fold, stream_of};
use crate::provenance::{LEDGER_ID, Provenance};
use crate::secrets::Secrets;
use crate::store::{BUCKET, Statement, Store, StoreError};

/// Leaves of one tile.
pub(super) const TILE_WIDTH: i64 = FULL as i64;

/// Tiles that are read at a time.
const TILES: u64 = 64;

/// What is known of the log outside the database: nobody who changes the database can change it too.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    /// Whose signatures count; None = nobody's key is at hand, and only what the notes say is held against the tree.
    pub trust: Option<Trust>,
    /// Checkpoints that somebody kept, with their names.
    pub notes: Vec<(String, String)>,
    /// Opens review texts; without it, only that there is an event for each is asked.
    pub seal: Option<Seal>,
}

impl Trusted {
    /// These keys of the log, and nothing else yet.
    pub fn keys(keys: &[String]) -> Result<Self, BadKey> {
        Ok(Self { trust: Some(Trust::new(keys, &[], 0)?), ..Self::default() })
    }

    fn open(&self, note: &str) -> Result<Opened, Untrusted> {
        self.trust.as_ref().map_or_else(|| Opened::unverified(note), |trust| trust.open(note))
    }

    /// The keys that this ledger's own secret makes, of every generation up to the one that signs.
    pub async fn of_secret(store: &Store, secrets: &Secrets) -> Result<Self, VerifyError> {
        let origin = store.origin().await?.unwrap_or_default();
        let events = store.load_one(stream_of::<Provenance>(LEDGER_ID)).await?;
        // Where its stream cannot be read that is a finding of its own, and what the first key signed still counts.
        let generation = fold::<Provenance>(&events).map_or(1, |(ledger, _)| ledger.key_generation());
        let keys = Self::keys(&verifier_keys(secrets, &origin, generation));
        Ok(keys.unwrap_or_else(|_| Self { trust: Some(Trust::default()), ..Self::default() }))
    }
}

/// How many leaves are in the tiles now.
pub(super) async fn tiled(store: &Store) -> Result<i64, StoreError> {
    Ok(tlog::size(store).await? as i64)
}

fn tile_finding((level, index): Place, what: impl Into<String>) -> Finding {
    Finding::new(0, "tlog_tiles", format!("level {level}, tile {index}"), what)
}

/// Reads tiles; one that is not what its own columns say is told and left out.
async fn read(
    store: &Store,
    level: u8,
    indexes: std::ops::Range<u64>,
    totals: &mut Totals,
) -> Result<Vec<(u64, Vec<u8>)>, StoreError> {
    let mut found = Vec::new();
    let all = Tiles::read(store, indexes.clone().map(|index| (level, index))).await;
    for index in indexes {
        let bytes = match &all {
            Ok(tiles) => tiles.get((level, index)).to_vec(),
            Err(StoreError::Corrupt { .. }) => match Tiles::read(store, [(level, index)]).await {
                Ok(tiles) => tiles.get((level, index)).to_vec(),
                Err(StoreError::Corrupt { what, .. }) => {
                    totals.find(tile_finding((level, index), what));
                    continue;
                }
                Err(error) => return Err(error),
            },
            Err(_) => return all.map(|_| found),
        };
        found.push((index, bytes));
    }
    Ok(found)
}

fn hash_at(bytes: &[u8], place: u64) -> Option<&[u8]> {
    let from = place as usize * HASH_SIZE;
    bytes.get(from..from + HASH_SIZE)
}

/// Holds events, by position, against the leaves of the tiles.
pub(super) async fn check_leaves(
    worker: &Worker,
    after: i64,
    until: i64,
    hashes: &[(i64, Hash)],
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let until = until.min(worker.tiled);
    if after >= until {
        return Ok(());
    }
    let (first, last) = (after as u64 / FULL, (until as u64 - 1) / FULL);
    for (index, bytes) in read(&worker.store, 0, first..last + 1, totals).await? {
        let leaves = (index * FULL)..((index + 1) * FULL).min(until as u64);
        if bytes.len() < (leaves.end - leaves.start) as usize * HASH_SIZE {
            let what =
                format!("it has {} hashes, {} were made", bytes.len() / HASH_SIZE, leaves.end - leaves.start);
            totals.find(tile_finding((0, index), what));
        }
        for (position, hash) in hashes.iter().filter(|(position, _)| leaves.contains(&(*position as u64 - 1)))
        {
            let leaf = *position as u64 - 1;
            if hash_at(&bytes, leaf % FULL).is_some_and(|stored| stored != hash.0) {
                let what = "its bytes are not those whose hash is in the transparency log";
                totals.find(Finding::new(*position, "events", format!("position {position}"), what));
            }
        }
    }
    Ok(())
}

/// Holds the tiles against each other, and against what was signed.
pub(super) async fn check(
    store: &Store,
    trusted: &Trusted,
    position: i64,
    tiled: i64,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    check_tiles(store, tiled as u64, totals).await?;
    let sql = "SELECT size, root, note FROM tlog_checkpoints WHERE bucket = $1 ORDER BY size";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    for row in &rows {
        let wrong = match trusted.open(row.text(2)) {
            Err(untrusted) => Some(untrusted.to_string()),
            Ok(opened) if opened.size as i64 != row.int(0) || opened.root.to_string() != row.text(1) => {
                Some("its columns are not what its note says".to_owned())
            }
            Ok(opened) => what_is_signed(store, position, opened.size, opened.root).await?,
        };
        if let Some(what) = wrong {
            let position = row.int(0).min(position);
            totals.find(Finding::new(position, "tlog_checkpoints", format!("size {}", row.int(0)), what));
        }
    }
    for (name, note) in &trusted.notes {
        let wrong = match trusted.open(note) {
            Ok(opened) => what_is_signed(store, position, opened.size, opened.root).await?,
            Err(untrusted) => Some(untrusted.to_string()),
        };
        if let Some(what) = wrong {
            totals.find(Finding::new(0, "events", format!("against {name}"), what));
        }
    }
    Ok(())
}

/// Why a signed tree is not the one that is there.
async fn what_is_signed(
    store: &Store,
    position: i64,
    size: u64,
    root: Hash,
) -> Result<Option<String>, VerifyError> {
    if size as i64 > position.max(super::tables::head(store).await?) {
        return Ok(Some(format!("{size} events were signed, and the log has {position}: some are gone")));
    }
    match tlog::root(store, size).await {
        Ok(Some(own)) if own == root => Ok(None),
        Ok(Some(_)) => Ok(Some("the events are not those that were signed".to_owned())),
        Ok(None) => {
            Ok(Some("it was signed, and the transparency log does not have as many leaves".to_owned()))
        }
        Err(StoreError::Corrupt { table, what, .. }) => Ok(Some(format!("{table}: {what}"))),
        Err(error) => Err(error.into()),
    }
}

/// Each full tile's root is where the tile above has it.
async fn check_tiles(store: &Store, tiled: u64, totals: &mut Totals) -> Result<(), VerifyError> {
    let mut level = 0;
    let mut hashes = tiled;
    while hashes >= FULL {
        let full = hashes / FULL;
        for first in (0..full).step_by(TILES as usize) {
            let indexes = first..(first + TILES).min(full);
            let above = read(store, level + 1, first / FULL..(indexes.end - 1) / FULL + 1, totals).await?;
            for (index, bytes) in read(store, level, indexes, totals).await? {
                if bytes.len() != FULL as usize * HASH_SIZE {
                    totals.find(tile_finding((level, index), "it is not full"));
                    continue;
                }
                let parent = above.iter().find(|(above, _)| *above == index / FULL);
                let named = parent.and_then(|(_, bytes)| hash_at(bytes, index % FULL));
                if named != Some(&Tile::subtree_hash(&bytes).0) {
                    totals.find(tile_finding((level, index), "its root is not the one in the tile above"));
                }
            }
        }
        hashes = full;
        level += 1;
    }
    // The right-most tile of each level is held against checkpoints only: it is their right edge.
    Ok(())
}
