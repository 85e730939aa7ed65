//! What guards the tables: keys, columns that are never NULL, and the triggers that keep the log append-only.
//!
//! Whoever owns the database can take them off, do what they forbid, and put other rows in the place of those that were
//! there. What tables must have is not written down a second time here: it is read from an empty ledger that this program
//! makes in memory.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Totals, VerifyError};
use crate::store::{OpenError, Row, SCHEMA_VERSION, Scratch, Statement, Store, StoreError};

/// Every table, and of each the columns of its keys (by a name that tells them apart), its columns that are NOT NULL, and
/// its triggers with what they do.
const SQLITE: &str = "SELECT 'table', name, '', '' FROM sqlite_master WHERE type = 'table'
     UNION ALL
     SELECT 'key', m.name, '', c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c
     WHERE m.type = 'table' AND c.pk > 0
     UNION ALL
     SELECT 'key', m.name, l.name, c.name FROM sqlite_master m JOIN pragma_index_list(m.name) l
     JOIN pragma_index_info(l.name) c
     WHERE m.type = 'table' AND l.\"unique\" = 1 AND l.origin <> 'pk' AND l.partial = 0
     UNION ALL
     SELECT 'column', m.name, c.name, '' FROM sqlite_master m JOIN pragma_table_info(m.name) c
     WHERE m.type = 'table' AND c.\"notnull\" = 1
     UNION ALL
     SELECT 'trigger', tbl_name, name, sql FROM sqlite_master WHERE type = 'trigger'";

const POSTGRES: &str =
    "WITH own AS (SELECT oid, relname FROM pg_class WHERE relkind = 'r' AND pg_table_is_visible(oid))
     SELECT 'table', relname::text, '', '' FROM own
     UNION ALL
     SELECT 'key', own.relname::text, i.indexrelid::bigint::text, a.attname::text
     FROM own JOIN pg_index i ON i.indrelid = own.oid
     JOIN pg_attribute a ON a.attrelid = own.oid AND a.attnum = ANY (i.indkey)
     WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
     UNION ALL
     SELECT 'column', own.relname::text, a.attname::text, ''
     FROM own JOIN pg_attribute a ON a.attrelid = own.oid AND a.attnum > 0 AND a.attnotnull
     UNION ALL
     SELECT 'trigger', own.relname::text, t.tgname::text, t.tgtype::bigint::text || ' ' || p.prosrc
     FROM own JOIN pg_trigger t ON t.tgrelid = own.oid JOIN pg_proc p ON p.oid = t.tgfoid
     WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgqual IS NULL";

/// The triggers of PostgreSQL: each with the table, and when it fires, as `pg_trigger.tgtype` says it (1 for each row, 2
/// before, 8 DELETE, 16 UPDATE, 32 TRUNCATE). Each is to run the function that the first step made.
const POSTGRES_TRIGGERS: [(&str, &str, i64); 4] = [
    ("events", "events_are_append_only", 1 + 2 + 8 + 16),
    ("events", "events_are_not_truncated", 2 + 32),
    ("receipts", "receipts_are_append_only", 1 + 2 + 8 + 16),
    ("receipts", "receipts_are_not_truncated", 2 + 32),
];

/// What is there, or must be.
#[derive(Debug, Default)]
struct Guards {
    tables: BTreeSet<String>,
    /// By table, the columns of each key.
    keys: BTreeMap<String, BTreeSet<BTreeSet<String>>>,
    /// By table and column.
    not_null: BTreeSet<(String, String)>,
    /// By table and name, what it does.
    triggers: BTreeMap<(String, String), String>,
}

impl Guards {
    fn of(rows: Vec<Row>) -> Self {
        let mut guards = Self::default();
        let mut keys: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
        for mut row in rows {
            let [what, table, name, rest] = [0, 1, 2, 3].map(|column| row.take_text(column));
            match what.as_str() {
                "table" => drop(guards.tables.insert(table)),
                "key" => drop(keys.entry((table, name)).or_default().insert(rest)),
                "column" => drop(guards.not_null.insert((table, name))),
                _ => drop(guards.triggers.insert((table, name), rest)),
            }
        }
        for ((table, _), columns) in keys {
            guards.keys.entry(table).or_default().insert(columns);
        }
        guards
    }

    /// What must be, on this engine.
    async fn expected(store: &Store) -> Result<Self, VerifyError> {
        let scratch = Scratch::in_memory().await.map_err(|error| match error {
            OpenError::Store(error) => VerifyError::Store(error),
            error => VerifyError::Store(StoreError::Corrupt {
                table: "an empty ledger in memory".to_owned(),
                column: String::new(),
                what: error.to_string(),
            }),
        })?;
        let rows = scratch.store().query(Statement::new(SQLITE, [])).await;
        scratch.close().await;
        let mut guards = Self::of(rows?);
        if let Store::Postgres(_) = store {
            let own = |(table, name, kind): (&str, &str, i64)| {
                ((table.to_owned(), name.to_owned()), kind.to_string())
            };
            guards.triggers = POSTGRES_TRIGGERS.into_iter().map(own).collect();
        }
        Ok(guards)
    }

    async fn found(store: &Store) -> Result<Self, StoreError> {
        let sql = if let Store::Postgres(_) = store { POSTGRES } else { SQLITE };
        Ok(Self::of(store.query_whole(Statement::new(sql, [])).await?))
    }
}

/// Whether a trigger does what it must.
fn is_same_trigger(store: &Store, expected: &str, found: &str) -> bool {
    const MADE_BY: &str = include_str!("../../../migrations/postgres/0001_log.sql");
    match store {
        Store::Sqlite(_) => expected == found,
        Store::Postgres(_) => found.split_once(' ').is_some_and(|(kind, body)| {
            // Whatever the function is called, its body is the one that was written there.
            kind == expected && body.contains("RAISE EXCEPTION") && MADE_BY.contains(body)
        }),
    }
}

/// Only tables of this program's own version can be held against what it knows.
pub(super) async fn refuse_other(store: &Store) -> Result<(), VerifyError> {
    let sql = "SELECT COALESCE(MAX(version), 0) FROM schema_versions";
    match store.query(Statement::new(sql, [])).await {
        // That the table is gone is told with all others.
        Err(error) if error.is_about_data() => Ok(()),
        rows => match rows?.first().map_or(0, |row| row.int(0)) {
            SCHEMA_VERSION => Ok(()),
            found => Err(VerifyError::OtherSchema { found }),
        },
    }
}

/// Tells what is missing.
pub(super) async fn check(store: &Store, totals: &mut Totals) -> Result<(), VerifyError> {
    let (expected, found) = (Guards::expected(store).await?, Guards::found(store).await?);
    for table in expected.tables.difference(&found.tables) {
        totals.find(Finding::new(0, table, "all rows", "the table is not there"));
    }
    let is_there = |table: &str| found.tables.contains(table);
    for (table, keys) in expected.keys.iter().filter(|(table, _)| is_there(table)) {
        let own = found.keys.get(table);
        for key in keys.iter().filter(|key| own.is_none_or(|own| !own.contains(*key))) {
            let columns = key.iter().cloned().collect::<Vec<_>>().join(", ");
            totals.find(Finding::new(
                0,
                table,
                format!("key {columns}"),
                "nothing keeps two rows from sharing it",
            ));
        }
    }
    for (table, column) in expected.not_null.difference(&found.not_null).filter(|(table, _)| is_there(table))
    {
        totals.find(Finding::new(0, table, format!("column {column}"), "nothing keeps it from being NULL"));
    }
    for (place, does) in expected.triggers.iter().filter(|((table, _), _)| is_there(table)) {
        let (table, name) = place;
        let what = match found.triggers.get(place) {
            Some(found) if is_same_trigger(store, does, found) => continue,
            Some(_) => "it is not the one that keeps rows as they were written",
            None => "it is not there, or is switched off: rows can be changed and removed",
        };
        totals.find(Finding::new(0, table, format!("trigger {name}"), what));
    }
    Ok(())
}
