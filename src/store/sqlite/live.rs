//! Rows of live tables, written whole, but for indexes that would say the same again: SQLite writes an index anew whenever one
//! of its columns is set, to whatever it was, and that is a page somewhere in the file for each row.

use rusqlite::{Connection, Error};

use super::super::{BUCKET, Column, LiveRow, LiveTable};
use super::bind;

/// Writes rows into a live table, or into one beside it that has another name and the same columns.
pub(super) fn upsert(
    connection: &Connection,
    name: &str,
    table: &LiveTable,
    rows: &[&LiveRow],
) -> Result<(), Error> {
    let mut leave_indexes = connection.prepare_cached(&upsert_sql(name, table, table.indexed))?;
    for row in rows {
        leave_indexes.raw_bind_parameter(1, BUCKET)?;
        bind(&mut leave_indexes, 2, &row.cells)?;
        // It is there, and an index must be told.
        if leave_indexes.raw_execute()? == 0 {
            let mut all = connection.prepare_cached(&upsert_sql(name, table, &[]))?;
            all.raw_bind_parameter(1, BUCKET)?;
            bind(&mut all, 2, &row.cells)?;
            all.raw_execute()?;
        }
    }
    Ok(())
}

/// `INSERT … ON CONFLICT DO UPDATE` of a whole row, which changes no row where one of these columns would change.
fn upsert_sql(name: &str, table: &LiveTable, unchanged: &[&str]) -> String {
    let names: Vec<_> = table.columns.iter().copied().map(Column::name).collect();
    let places: Vec<_> = (1..=names.len() + 1).map(|place| format!("?{place}")).collect();
    let (keys, rest) = names.split_at(table.key_columns.min(names.len()));
    let set: Vec<_> = rest.iter().filter(|name| !unchanged.contains(name)).collect();
    let set: Vec<_> = set.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    let same: Vec<_> = unchanged.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO {name} (bucket, {}) VALUES ({}) ON CONFLICT (bucket, {}) DO UPDATE SET {}{}{}",
        names.join(", "),
        places.join(", "),
        keys.join(", "),
        set.join(", "),
        if same.is_empty() { "" } else { " WHERE " },
        same.join(" AND ")
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::super::{Cell, migrate};
    use super::super::{READ_WRITE, connect};
    use super::*;
    use crate::read_model::{LIVE_TABLES, REDEMPTIONS};

    fn ledger() -> Connection {
        let mut connection = connect(":memory:", READ_WRITE).unwrap();
        migrate::sqlite(&mut connection, 0).unwrap();
        connection
    }

    #[test]
    fn every_table_names_what_its_indexes_hold() {
        for table in LIVE_TABLES {
            let indexes = migrate::definition(table.name, true, str::to_owned);
            let indexes = indexes.iter().filter(|sql| sql.trim_start().starts_with("CREATE INDEX"));
            let text = indexes.filter_map(|sql| sql.split_once(table.name)?.1.split_once(table.name));
            let text: Vec<&str> = text.map(|(_, columns)| columns).collect();
            let words: BTreeSet<&str> = text
                .iter()
                .flat_map(|text| text.split(|letter: char| !letter.is_alphanumeric() && letter != '_'))
                .collect();
            let rest = table.columns.iter().skip(table.key_columns).map(|column| column.name());
            let held: Vec<&str> = rest.filter(|name| words.contains(name)).collect();
            assert_eq!(held, table.indexed, "{}", table.name);
        }
    }

    #[test]
    fn a_row_is_written_whole_and_an_index_where_it_must_be() {
        let connection = ledger();
        let row = |used_at_ms: i64, reversed_at_ms: i64, title: &str| {
            let mut cells: Vec<Cell> = vec![Cell::Int(7); REDEMPTIONS.columns.len() - 1];
            cells.push(title.into());
            let place =
                |name: &str| REDEMPTIONS.columns.iter().position(|column| column.name() == name).unwrap();
            cells[place("used_at_ms")] = used_at_ms.into();
            cells[place("reversed_at_ms")] = reversed_at_ms.into();
            LiveRow { table: &REDEMPTIONS, cells }
        };
        let found = |index: &str| -> Vec<(i64, i64, String)> {
            let sql = format!(
                "SELECT used_at_ms, reversed_at_ms, title FROM redemptions_v1 {index} WHERE bucket = 0"
            );
            let mut select = connection.prepare(&sql).unwrap();
            let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
            rows.map(Result::unwrap).collect()
        };
        for (used_at_ms, reversed_at_ms, title) in [(1, 0, "a"), (1, 5, "b"), (2, 0, "c"), (2, 0, "c")] {
            upsert(&connection, "redemptions_v1", &REDEMPTIONS, &[&row(used_at_ms, reversed_at_ms, title)])
                .unwrap();
            let expected = [(used_at_ms, reversed_at_ms, title.to_owned())];
            assert_eq!(found("INDEXED BY redemptions_v1_by_time"), expected);
            assert_eq!(found("NOT INDEXED"), expected);
        }
        let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(sound, "ok");
    }
}
