//! Whose personal data was read: which rows a reading has, and the SELECT that finds somebody's readings.

use super::READINGS;
use crate::reading::{Person, Reading};
use crate::store::{BUCKET, LiveRow, Statement, Store, StoreError};

/// The live rows of a reading: one for each person.
#[must_use]
pub fn reading_rows(id: i64, reading: &Reading) -> Vec<LiveRow> {
    let row = |person: Person| {
        let (kind, person_id) = person.columns();
        LiveRow {
            table: &READINGS,
            cells: vec![kind.into(), person_id.into(), id.into(), reading.at_ms.into()],
        }
    };
    reading.people().map(row).collect()
}

/// The readings of a person that lie behind one position and up to another, with their positions and in their order.
pub async fn readings_of(
    store: &Store,
    person: Person,
    (after, until): (i64, i64),
    limit: i64,
) -> Result<Vec<(i64, i64)>, StoreError> {
    // The plus: from his readings to the log, not through the log to his readings.
    let sql = "SELECT e.position, r.reading_id
               FROM readings_v1 r
               JOIN events e ON e.bucket = $1 AND e.aggregate_type = 'reading' AND e.sequence = 1
                AND e.aggregate_id = CAST(r.reading_id AS TEXT)
               WHERE r.bucket = $1 AND r.person_kind = $2 AND r.person_id = $3 AND +e.position > $4
                 AND +e.position <= $5
               ORDER BY e.position LIMIT $6";
    let (kind, id) = person.columns();
    let parameters = [BUCKET, kind, id, after, until, limit].map(Into::into);
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(|row| (row.int(0), row.int(1))).collect())
}
