//! Follows the log: hashes what was appended since, and writes the tiles that it changes.
//!
//! In bounded transactions, each of which moves the follower's own checkpoint from where it was: of two processes that
//! follow at once, one finds it moved and starts over. Nothing is on the append's path. An event that cannot be read, a
//! position that is missing and a tile that does not fit are errors, and nothing is written then.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{HASH_SIZE, Hash, Tile};

use super::{FULL, HEIGHT, Place, Tiles, broken, size};
use crate::audit::leaf;
use crate::followers::{TLOG, events_after, moved};
use crate::store::{BUCKET, Statement, Store, StoreError};

/// Events of one read.
const PAGE: i64 = 1_000;

/// Reads of one transaction: sixteen full tiles, so that catching up is not one fsync for each thousand.
const PAGES: usize = 4;

/// What one transaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// How many leaves the tiles have.
    pub size: u64,
    /// How many of them are new.
    pub added: u64,
    /// Whether there may be more at once.
    pub more: bool,
}

/// Hashes some of what came since, in one transaction.
pub async fn follow(store: &Store) -> Result<Followed, StoreError> {
    let from = size(store).await?;
    let mut leaves: Vec<Hash> = Vec::new();
    let mut more = true;
    for _ in 0..PAGES {
        let after = from as i64 + leaves.len() as i64;
        let events = events_after(store, after, PAGE).await?;
        leaves.extend(events.iter().map(leaf::hash));
        more = events.len() as i64 == PAGE;
        if !more {
            break;
        }
    }
    if leaves.is_empty() {
        return Ok(Followed { size: from, added: 0, more: false });
    }
    // Where another process was faster, it starts over.
    let overtaken = Followed { size: from, added: 0, more: true };
    let mut growing = match Growing::read(store, from).await {
        Ok(growing) => growing,
        Err(_) if size(store).await? != from => return Ok(overtaken),
        Err(error) => return Err(error),
    };
    for leaf in &leaves {
        growing.push(*leaf);
    }
    if growing.write(store, from).await? {
        return Ok(Followed { size: growing.size, added: leaves.len() as u64, more });
    }
    Ok(overtaken)
}

/// A tree that leaves are added to: the right-most tile of each level, and those that were filled since.
struct Growing {
    size: u64,
    tiles: Tiles,
    changed: BTreeSet<Place>,
}

impl Growing {
    /// The right edge of the tree of this size. A tile that has nothing of it begins empty, whatever lies there: after a reset
    /// the tiles beyond are those of before.
    async fn read(store: &Store, size: u64) -> Result<Self, StoreError> {
        let hashes_of_level = |level: u8| size >> (HEIGHT * level);
        let levels = (0..8).take_while(|level| hashes_of_level(*level) > 0);
        let edge: Vec<(Place, u64)> = levels
            .map(|level| (level, hashes_of_level(level)))
            .map(|(level, hashes)| ((level, hashes / FULL), hashes % FULL))
            .filter(|(_, width)| *width > 0)
            .collect();
        let tiles = Tiles::read(store, edge.iter().map(|(place, _)| *place)).await?;
        for (place, width) in edge {
            let found = (tiles.get(place).len() / HASH_SIZE) as u64;
            if found != width {
                let what = format!("it has {found} hashes, and {width} of {size} leaves belong there");
                return Err(broken(place, &what));
            }
        }
        Ok(Self { size, tiles, changed: BTreeSet::new() })
    }

    fn push(&mut self, leaf: Hash) {
        let (mut level, mut index, mut hash) = (0, self.size, leaf);
        loop {
            let place = (level, index / FULL);
            let tile = self.tiles.entry(place);
            tile.extend_from_slice(&hash.0);
            self.changed.insert(place);
            if index % FULL != FULL - 1 {
                break;
            }
            // A tile that is full is one hash of the level above.
            hash = Tile::subtree_hash(tile);
            level += 1;
            index /= FULL;
        }
        self.size += 1;
    }

    /// Writes what changed; false where the follower's checkpoint is no longer where it was.
    async fn write(&self, store: &Store, from: u64) -> Result<bool, StoreError> {
        let moved = moved(&TLOG, from as i64, self.size as i64);
        let tile = |place: &Place| {
            let bytes = self.tiles.get(*place);
            let (level, index) = (i64::from(place.0), place.1 as i64);
            let width = (bytes.len() / HASH_SIZE) as i64;
            Statement::new(
                "INSERT INTO tlog_tiles (bucket, level, tile_index, width, hashes) VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (bucket, level, tile_index)
                 DO UPDATE SET width = excluded.width, hashes = excluded.hashes",
                [BUCKET.into(), level.into(), index.into(), width.into(), STANDARD.encode(bytes).into()],
            )
        };
        let statements = std::iter::once(moved.must_return()).chain(self.changed.iter().map(tile)).collect();
        let answers = store.write(statements).await?;
        Ok(answers.first().is_some_and(|rows| !rows.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{StoreOptions, open};

    #[tokio::test]
    async fn a_reset_is_not_undone_by_a_follower_that_was_at_work() {
        let folder = tempfile::tempdir().unwrap();
        let options = StoreOptions {
            data_dir: folder.path().to_owned(),
            database_url: None,
            secret_id: "a secret".to_owned(),
            now_ms: 0,
        };
        let store = open(&options).await.unwrap();
        let grown = async |from: u64| {
            let mut growing = Growing::read(&store, from).await.unwrap();
            growing.push(Hash([1; HASH_SIZE]));
            growing
        };
        assert!(grown(0).await.write(&store, 0).await.unwrap());
        let at_work = grown(1).await;
        let reset = "DELETE FROM checkpoints WHERE bucket = $1 AND name = $2";
        store.write(vec![Statement::new(reset, [BUCKET.into(), TLOG.name.into()])]).await.unwrap();
        assert!(!at_work.write(&store, 1).await.unwrap());
        assert_eq!(size(&store).await.unwrap(), 0);
        // Of two that begin at once, one does.
        assert!(grown(0).await.write(&store, 0).await.unwrap());
        assert!(!grown(0).await.write(&store, 0).await.unwrap());
        store.close().await;
    }
}
