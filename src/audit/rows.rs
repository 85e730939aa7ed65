//! Live rows as they were right after a position, from events alone: stream by stream, in ranges that can be held.

use futures::{Stream, StreamExt as _};

use super::kinds::Kind;
use crate::replay::ReplayError;
use crate::store::{BUCKET, LiveRow, Statement, Store, StoreError};

/// How many ranges are folded while one is taken.
const RANGES_AHEAD: usize = 2;

/// What the streams of a range of ids have in the live tables.
#[derive(Debug)]
pub struct RowsOfRange {
    /// Where the next range begins.
    pub until: String,
    /// How many streams there were.
    pub streams: i64,
    /// Their rows in all live tables, stream by stream.
    pub rows: Vec<LiveRow>,
    /// The stock of each of them that has one: its id, and how many there are in all.
    pub stock: Vec<(i64, Option<i64>)>,
}

/// The live rows of every stream of a kind right after a position, from the id `from` on ("" = the first), range by range.
/// What happens meanwhile changes none of them; each range is a read of its own.
pub fn rows_at(
    store: &Store,
    kind: &'static str,
    from: &str,
    position: i64,
) -> impl Stream<Item = Result<RowsOfRange, ReplayError>> + Send + use<> {
    let fold = Kind::named(kind).map(|kind| kind.scan);
    let (store, ranges) = (store.clone(), store.ranges_from(kind, from));
    ranges
        .map(move |range| {
            let store = store.clone();
            async move {
                let (range, fold) = (range?, fold.ok_or(StoreError::Closed)?);
                let until = range.until.clone();
                let mut found = RowsOfRange { until, streams: 0, rows: Vec::new(), stock: Vec::new() };
                for stream in fold(store, range, position).await? {
                    found.streams += 1;
                    found.rows.extend(stream.written.rows);
                    found.stock.extend(stream.written.stock.map(|(of, stock)| (of.key(), stock)));
                }
                Ok(found)
            }
        })
        .buffered(RANGES_AHEAD)
}

/// How many streams of a kind had begun by a position.
pub async fn count_streams(store: &Store, kind: &'static str, position: i64) -> Result<i64, StoreError> {
    // The plus: by their streams, not through the log.
    let sql = "SELECT COUNT(*) FROM events
               WHERE aggregate_type = $1 AND sequence = 1 AND +bucket = $2 AND +position <= $3";
    let statement = Statement::new(sql, [kind.into(), BUCKET.into(), position.into()]);
    Ok(store.query_whole(statement).await?.first().map_or(0, |row| row.int(0)))
}
