//! The transparency log: an RFC 6962 tree over the exact bytes of every event, kept as tiles (c2sp.org/tlog-tiles).
//!
//! Leaf n is the event at position n + 1. Here it is read: tiles, roots, proofs and what was signed. A tile that is not
//! there, or not what its size says, is an error that names it: never a shorter answer.

mod follow;
mod run;
mod sign;
mod witnesses;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tlog_tiles::{
    EMPTY_HASH, Error, HASH_SIZE, Hash, HashReader, Tile, prove_record, prove_tree, stored_hash_index,
    tree_hash,
};

pub use follow::{Followed, follow};
pub use run::{TlogOptions, run_tlog};
pub use sign::{
    ROTATE_KEY, Refused, SignError, Signer, remembered, rotate_key, verifier_key_of, verifier_keys,
};
pub use witnesses::Witness;

use super::checkpoint::{Signed, cosignatures};
use super::leaf;
use super::merkle::cover;
use crate::followers::{TLOG, checkpoint};
use crate::store::{BUCKET, Row, Statement, Store, StoreError, StoredEvent};

/// The height of every tile.
pub const HEIGHT: u8 = 8;

/// The hashes of a full tile.
pub const FULL: u64 = 1 << HEIGHT;

/// Checkpoints of one read, where a certain one is looked for.
const NOTES: i64 = 500;

/// The follower's name.
pub const FOLLOWER: &str = TLOG.name;

/// The level of a tile and its index there.
pub type Place = (u8, u64);

/// Tiles in memory, from which hashes are read.
#[derive(Clone, Debug, Default)]
pub struct Tiles {
    tiles: BTreeMap<Place, Vec<u8>>,
}

impl Tiles {
    /// Reads these tiles; one that nobody wrote is not among them.
    pub async fn read(store: &Store, places: impl IntoIterator<Item = Place>) -> Result<Self, StoreError> {
        let places: Vec<Place> = places.into_iter().collect();
        let sql = "SELECT width, hashes FROM tlog_tiles WHERE bucket = $1 AND level = $2 AND tile_index = $3";
        let parameters =
            |(level, index): &Place| vec![BUCKET.into(), i64::from(*level).into(), (*index as i64).into()];
        let found = store.query_each(sql, places.iter().map(parameters).collect()).await?;
        let mut tiles = BTreeMap::new();
        for (place, rows) in places.into_iter().zip(found) {
            if let Some(row) = rows.first() {
                tiles.insert(place, hashes(place, row)?);
            }
        }
        Ok(Self { tiles })
    }

    /// A tile's bytes; empty where it is not here.
    #[must_use]
    pub fn get(&self, place: Place) -> &[u8] {
        self.tiles.get(&place).map(Vec::as_slice).unwrap_or_default()
    }

    /// A leaf; None where its tile is not here, or has not so many.
    #[must_use]
    fn leaf(&self, index: u64) -> Option<Hash> {
        self.read_hashes(&[stored_hash_index(0, index)]).ok()?.first().copied()
    }

    /// The bytes of a tile, to be added to.
    pub(super) fn entry(&mut self, place: Place) -> &mut Vec<u8> {
        self.tiles.entry(place).or_default()
    }
}

impl HashReader for Tiles {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let hash = |index: &u64| {
            let wanted = Tile::from_index(HEIGHT, *index);
            let (level, tile_index) = (wanted.level(), wanted.level_index());
            let bytes = self.get((level, tile_index));
            let width = (bytes.len() / HASH_SIZE) as u32;
            if width < wanted.width() {
                return Err(Error::InvalidTile);
            }
            Tile::new(HEIGHT, level, tile_index, width, false).hash_at_index(bytes, *index)
        };
        indexes.iter().map(hash).collect()
    }
}

/// The bytes of a row of tiles.
fn hashes(place: Place, row: &Row) -> Result<Vec<u8>, StoreError> {
    let width = row.int(0);
    let bytes = STANDARD.decode(row.text(1)).unwrap_or_default();
    if (1..=FULL as i64).contains(&width) && bytes.len() as i64 == width * HASH_SIZE as i64 {
        return Ok(bytes);
    }
    Err(broken(place, "its hashes are not as many as its width says"))
}

pub(super) fn broken((level, index): Place, what: &str) -> StoreError {
    StoreError::Corrupt {
        table: format!("tlog_tiles, level {level}, tile {index}"),
        column: "hashes".to_owned(),
        what: what.to_owned(),
    }
}

/// What is asked of a tree.
#[derive(Clone, Copy)]
enum Question {
    Root { size: u64 },
    Inclusion { index: u64, size: u64 },
    Consistency { from: u64, to: u64 },
    Cover { from: u64, until: u64 },
}

impl Question {
    fn answer<R: HashReader>(self, reader: &R) -> Result<Vec<Hash>, Error> {
        match self {
            Self::Root { size } => Ok(vec![tree_hash(size, reader)?]),
            Self::Inclusion { index, size } => prove_record(size, index, reader),
            Self::Consistency { from, to } => prove_tree(to, from, reader),
            Self::Cover { from, until } => {
                let indexes = cover(from, until);
                let indexes: Vec<u64> =
                    indexes.iter().map(|node| stored_hash_index(node.level, node.index)).collect();
                reader.read_hashes(&indexes)
            }
        }
    }

    /// Reads the tiles that the answer rests on, and only those.
    async fn ask(self, store: &Store) -> Result<Vec<Hash>, StoreError> {
        let places = {
            let noting = Noting::default();
            // Its hashes are of no use; which ones it asked for is.
            let _ = self.answer(&noting);
            noting.places.into_inner()
        };
        let tiles = Tiles::read(store, places.iter().copied()).await?;
        self.answer(&tiles).map_err(|error| {
            let missing = places.iter().copied().find(|place| tiles.get(*place).is_empty());
            broken(missing.or(places.first().copied()).unwrap_or_default(), &error.to_string())
        })
    }
}

/// Notes which tiles are asked for.
#[derive(Default)]
struct Noting {
    places: RefCell<BTreeSet<Place>>,
}

impl HashReader for Noting {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let tiles = indexes.iter().map(|index| Tile::from_index(HEIGHT, *index));
        self.places.borrow_mut().extend(tiles.map(|tile| (tile.level(), tile.level_index())));
        Ok(vec![EMPTY_HASH; indexes.len()])
    }
}

/// How many leaves are in the tiles.
pub async fn size(store: &Store) -> Result<u64, StoreError> {
    Ok(checkpoint(store, &TLOG).await? as u64)
}

/// The root of the tree of the first `size` leaves; None where the tiles have not that many.
pub async fn root(store: &Store, size: u64) -> Result<Option<Hash>, StoreError> {
    if size > self::size(store).await? {
        return Ok(None);
    }
    Ok(Question::Root { size }.ask(store).await?.first().copied())
}

/// The proof that a leaf is in the tree of this size; None where it is not.
pub async fn inclusion(store: &Store, index: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreError> {
    if index >= size || size > self::size(store).await? {
        return Ok(None);
    }
    Question::Inclusion { index, size }.ask(store).await.map(Some)
}

/// The proof that the tree of one size begins the tree of another; None where there are no such trees. It is empty where
/// the first is empty.
pub async fn consistency(store: &Store, from: u64, to: u64) -> Result<Option<Vec<Hash>>, StoreError> {
    if from > to || to > self::size(store).await? {
        return Ok(None);
    }
    if from == 0 {
        return Ok(Some(Vec::new()));
    }
    Question::Consistency { from, to }.ask(store).await.map(Some)
}

/// The hashes of the [`cover`] of a range of leaves.
pub async fn subtrees(store: &Store, from: u64, until: u64) -> Result<Vec<Hash>, StoreError> {
    Question::Cover { from, until }.ask(store).await
}

/// The leaves of events as they were hashed when the events came, which also tells those that were changed since; of those
/// that are not among the `hashed` first, as they are.
pub async fn leaves(store: &Store, events: &[StoredEvent], hashed: u64) -> Result<Vec<Hash>, StoreError> {
    let index = |event: &StoredEvent| (event.position as u64).saturating_sub(1);
    let kept = events.iter().map(index).filter(|index| *index < hashed);
    let tiles = Tiles::read(store, kept.map(|index| (0, index / FULL)).collect::<BTreeSet<Place>>()).await?;
    let leaf = |event: &StoredEvent| match index(event) {
        kept if kept < hashed => {
            tiles.leaf(kept).ok_or_else(|| broken((0, kept / FULL), &format!("leaf {kept} is missing")))
        }
        _ => Ok(leaf::hash(event)),
    };
    events.iter().map(leaf).collect()
}

/// The first `width` hashes of a tile; None where it has not that many.
pub async fn tile(store: &Store, place: Place, width: u64) -> Result<Option<Vec<u8>>, StoreError> {
    let mut tiles = Tiles::read(store, [place]).await?;
    let mut bytes = tiles.tiles.remove(&place).unwrap_or_default();
    let wanted = width as usize * HASH_SIZE;
    bytes.truncate(wanted);
    Ok((bytes.len() == wanted && wanted > 0).then_some(bytes))
}

/// The tile that a path names behind its level (`x001/x234/067.p/8`), and how many of its hashes; None where no path is
/// written so.
#[must_use]
pub fn tile_of_path(level: &str, path: &str) -> Option<(Place, u64)> {
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let level = number(level).filter(|level| *level < 64)? as u8;
    let (path, width) = match path.split_once(".p/") {
        Some((path, width)) => (path, number(width).filter(|width| (1..FULL).contains(width))?),
        None => (path, FULL),
    };
    let mut index: u64 = 0;
    for digits in path.split('/').map(|part| part.strip_prefix('x').unwrap_or(part)) {
        if digits.len() != 3 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        index = index.checked_mul(1_000)?.checked_add(digits.parse().ok()?)?;
    }
    // There is one way to write it, and no tile beyond what a database can number.
    let is_written_so = i64::try_from(index).is_ok() && path == path_of(index);
    is_written_so.then_some(((level, index), width))
}

fn path_of(index: u64) -> String {
    let mut path = format!("{:03}", index % 1_000);
    let mut rest = index / 1_000;
    while rest > 0 {
        path = format!("x{:03}/{path}", rest % 1_000);
        rest /= 1_000;
    }
    path
}

/// The last checkpoint that was signed.
pub async fn latest(store: &Store) -> Result<Option<Signed>, StoreError> {
    let sql = "SELECT size, root, note FROM tlog_checkpoints WHERE bucket = $1 ORDER BY size DESC LIMIT 1";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    rows.first().map(signed).transpose()
}

/// The last checkpoints that were signed over this leaf, the last one first.
pub async fn covering(store: &Store, index: u64) -> Result<Vec<Signed>, StoreError> {
    let sql = "SELECT size, root, note FROM tlog_checkpoints WHERE bucket = $1 AND size > $2
               ORDER BY size DESC LIMIT 20";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), (index as i64).into()])).await?;
    rows.iter().map(signed).collect()
}

/// The last checkpoint that so many witnesses have cosigned.
pub async fn cosigned(store: &Store, witnesses: usize) -> Result<Option<Signed>, StoreError> {
    let sql = "SELECT size, root, note FROM tlog_checkpoints WHERE bucket = $1 AND size < $2
               ORDER BY size DESC LIMIT $3";
    let mut before = i64::MAX;
    loop {
        let rows = store.query(Statement::new(sql, [BUCKET.into(), before.into(), NOTES.into()])).await?;
        if let Some(row) = rows.iter().find(|row| cosignatures(row.text(2)) >= witnesses) {
            return signed(row).map(Some);
        }
        match rows.last() {
            Some(last) if rows.len() as i64 == NOTES => before = last.int(0),
            _ => return Ok(None),
        }
    }
}

/// A row of checkpoints. Its columns beside the note are for the database; whoever trusts one opens the note.
fn signed(row: &Row) -> Result<Signed, StoreError> {
    let corrupt = |_| StoreError::Corrupt {
        table: format!("tlog_checkpoints, size {}", row.int(0)),
        column: "root".to_owned(),
        what: "no hash".to_owned(),
    };
    let root = Hash::parse_hash(row.text(1)).map_err(corrupt)?;
    Ok(Signed { size: row.int(0) as u64, root, note: row.text(2).to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tiles_path_is_written_in_one_way() {
        for (level, path, place, width) in [
            ("0", "000", (0, 0), 256),
            ("3", "x001/x234/067", (3, 1_234_067), 256),
            ("63", "x001/000.p/255", (63, 1_000), 255),
            ("0", "999.p/1", (0, 999), 1),
        ] {
            assert_eq!(tile_of_path(level, path), Some((place, width)), "{level}/{path}");
            let name = format!("tile/8/{level}/{path}");
            let other = Tile::from_path(&name).unwrap();
            assert_eq!(
                (other.level(), other.level_index(), u64::from(other.width())),
                (place.0, place.1, width)
            );
        }
        for (level, path) in [
            ("00", "000"),
            ("64", "000"),
            ("-1", "000"),
            ("data", "000"),
            ("0", ""),
            ("0", "0"),
            ("0", "0000"),
            ("0", "x000/001"),
            ("0", "001/001"),
            ("0", "x001"),
            ("0", "x001/x001"),
            ("0", "000.p/0"),
            ("0", "000.p/256"),
            ("0", "000.p/01"),
            ("0", "000.p/"),
            ("0", "000.p/1/1"),
            ("0", "+01"),
            ("0", "000/"),
            ("0", "x009/x999/x999/x999/x999/x999/999"),
            ("0", "x999/x999/x999/x999/x999/x999/x999/999"),
        ] {
            assert_eq!(tile_of_path(level, path), None, "{level}/{path}");
        }
    }
}
