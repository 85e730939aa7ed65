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
    for (index, mut bytes) in read(&worker.store, 0, first..last + 1, totals).await? {
        let leaves = (index * FULL)..((index + 1) * FULL).min(until as u64);
        let wanted = (leaves.end - leaves.start) as usize * HASH_SIZE;
        if bytes.len() < wanted {
            refuse_hashed_anew(&worker.store, worker.tiled).await?;
            // It may have been, and be whole again.
            bytes = read(&worker.store, 0, index..index + 1, totals).await?.pop().unwrap_or_default().1;
        }
        if bytes.len() < wanted {
            let what =
                format!("it has {} hashes, {} were made", bytes.len() / HASH_SIZE, leaves.end - leaves.start);
            totals.find(tile_finding((0, index), what));
        }
        for (position, hash) in hashes.iter().filter(|(position, _)| leaves.contains(&(*position as u64 - 1)))
        {
            let leaf = *position as u64 - 1;
            let stored = hash_at(&bytes, leaf % FULL);
            totals.hashed += u64::from(stored.is_some());
            if stored.is_some_and(|stored| stored != hash.0) {
                let what = "its bytes are not those whose hash is in the transparency log";
                totals.find(Finding::new(*position, "events", format!("position {position}"), what));
            }
        }
    }
    Ok(())
}

/// Ends where the log has fewer leaves than when this began: they are being hashed anew, and nothing can be said of them.
async fn refuse_hashed_anew(store: &Store, tiled_before: i64) -> Result<(), VerifyError> {
    if tiled(store).await? < tiled_before { Err(VerifyError::HashedAnew) } else { Ok(()) }
}

/// Holds the tree against what was signed.
pub(super) async fn check_signed(
    store: &Store,
    trusted: &Trusted,
    position: i64,
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let sql = "SELECT size, root, note FROM tlog_checkpoints WHERE bucket = $1 ORDER BY size";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    for row in &rows {
        let wrong = match trusted.open(row.text(2)) {
            Err(untrusted) => Some(untrusted.to_string()),
            Ok(opened) if opened.size as i64 != row.int(0) || opened.root.to_string() != row.text(1) => {
                Some("its columns are not what its note says".to_owned())
            }
            Ok(opened) => what_is_signed(store, trusted, position, &opened, totals).await?,
        };
        if let Some(what) = wrong {
            let position = row.int(0).min(position);
            totals.find(Finding::new(position, "tlog_checkpoints", format!("size {}", row.int(0)), what));
        }
    }
    for (name, note) in &trusted.notes {
        let wrong = match trusted.open(note) {
            Ok(opened) => what_is_signed(store, trusted, position, &opened, totals).await?,
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
    trusted: &Trusted,
    position: i64,
    Opened { size, root, .. }: &Opened,
    totals: &mut Totals,
) -> Result<Option<String>, VerifyError> {
    if *size as i64 > position.max(store.head().await?) {
        return Ok(Some(format!("{size} events were signed, and the log has {position}: some are gone")));
    }
    match tlog::root(store, *size).await {
        Ok(Some(own)) if own == *root => {
            // Nobody vouches for what only a note says of itself.
            if trusted.trust.is_some() {
                totals.signed = totals.signed.max(*size);
            }
            Ok(None)
        }
        Ok(Some(_)) => Ok(Some("the events are not those that were signed".to_owned())),
        Ok(None) => {
            Ok(Some("it was signed, and the transparency log does not have as many leaves".to_owned()))
        }
        Err(StoreError::Corrupt { table, what, .. }) => Ok(Some(format!("{table}: {what}"))),
        Err(error) => Err(error.into()),
    }
}

/// Each full tile's root is where the tile above has it, and nothing lies beyond the tree.
pub(super) async fn check_tiles(store: &Store, tiled: u64, totals: &mut Totals) -> Result<(), VerifyError> {
    refuse_hashed_anew(store, tiled as i64).await?;
    let mut found = Totals::default();
    let (mut level, mut hashes) = (0, tiled);
    while hashes >= FULL {
        let full = hashes / FULL;
        for first in (0..full).step_by(TILES as usize) {
            let indexes = first..(first + TILES).min(full);
            let above =
                read(store, level + 1, first / FULL..(indexes.end - 1) / FULL + 1, &mut found).await?;
            for (index, bytes) in read(store, level, indexes, &mut found).await? {
                if bytes.len() != FULL as usize * HASH_SIZE {
                    found.find(tile_finding((level, index), "it is not full"));
                    continue;
                }
                let parent = above.iter().find(|(above, _)| *above == index / FULL);
                let named = parent.and_then(|(_, bytes)| hash_at(bytes, index % FULL));
                if named != Some(&Tile::subtree_hash(&bytes).0) {
                    found.find(tile_finding((level, index), "its root is not the one in the tile above"));
                }
            }
        }
        hashes = full;
        level += 1;
    }
    // The right-most tile of each level is held against checkpoints only: it is their right edge.
    check_beyond(store, &mut found).await?;
    if found.wrong > 0 {
        refuse_hashed_anew(store, tiled as i64).await?;
    }
    totals.add(found);
    Ok(())
}

/// Tiles that no leaf of the tree lies below.
async fn check_beyond(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    // How far the tree reaches is read in the same instant: it grows meanwhile. $2 leaves lie below a hash of the level.
    let sql = "SELECT t.tile_index, t.width, s.size FROM
                 (SELECT COALESCE((SELECT value FROM checkpoints WHERE bucket = $1 AND name = $5), 0) AS size) s
               JOIN tlog_tiles t ON t.bucket = $1 AND t.level = $2 AND t.tile_index >= s.size / $3 / $4
               ORDER BY t.tile_index";
    let (mut level, mut below) = (0_i64, 1_i64);
    while let Some(above) = below.checked_mul(FULL as i64) {
        let parameters =
            [BUCKET.into(), level.into(), below.into(), TILE_WIDTH.into(), tlog::FOLLOWER.into()];
        for row in store.query_whole(Statement::new(sql, parameters)).await? {
            let (index, width, hashes) = (row.int(0), row.int(1), row.int(2) / below);
            if index > hashes / TILE_WIDTH || width > hashes % TILE_WIDTH {
                let what =
                    format!("it has {width} hashes, and the tree of {} leaves ends before", row.int(2));
                totals.find(Finding::new(0, "tlog_tiles", format!("level {level}, tile {index}"), what));
            }
        }
        (level, below) = (level + 1, above);
    }
    let sql = "SELECT level, tile_index FROM tlog_tiles
               WHERE bucket = $1 AND (level < 0 OR level >= $2 OR tile_index < 0) ORDER BY level, tile_index";
    for row in store.query_whole(Statement::new(sql, [BUCKET.into(), level.into()])).await? {
        let place = format!("level {}, tile {}", row.int(0), row.int(1));
        totals.find(Finding::new(0, "tlog_tiles", place, "no tree has such a tile"));
    }
    Ok(())
}
