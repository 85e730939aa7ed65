//! Somebody's own SQL on the SQLite file: every statement that the documents give him runs for one who can only read, beside the
//! ledger and where nobody has it open. For PostgreSQL see tests/it/roles.rs.

use coupon_ledger::identity::Caller;
use coupon_ledger::store::statistics::statistics;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use crate::docs::read;
use crate::harness::{DAY, Engine, Home, MEMBER, World};
use crate::moving::documented_tables;
use crate::sheets::Rows;
use crate::statistics::count_all;

/// The statements of a document that ask something of the statistics.
pub fn documented_selects() -> Vec<String> {
    let page = read("docs/projections.md");
    let blocks = page.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    let asks = blocks.filter(|block| block.starts_with("SELECT"));
    asks.map(|block| block.trim().trim_end_matches(';').to_owned()).collect()
}

/// What a document has `sqlite3` ask of the file, once for each table where it names none.
fn asked_by_sqlite3() -> Vec<String> {
    let page = read("docs/operations.md");
    let asked = page.split("data/ledger.db \"").skip(1).map(|rest| rest.split('"').next().unwrap());
    let of_tables = |sql: &str| match sql.split_once("$table") {
        None => vec![sql.to_owned()],
        Some((before, after)) => {
            documented_tables().iter().map(|table| format!("{before}{table}{after}")).collect()
        }
    };
    asked.flat_map(of_tables).collect()
}

fn reader_of(home: &Home) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(home.database_file(), flags).unwrap()
}

fn ask(reader: &Connection, sql: &str) -> Rows {
    let mut statement = reader.prepare(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    let columns = statement.column_count();
    let mut rows = statement.raw_query();
    let mut found = Rows::new();
    while let Some(row) = rows.next().unwrap_or_else(|error| panic!("{sql}: {error}")) {
        let cell = |column| match row.get_ref(column).unwrap() {
            ValueRef::Null => String::new(),
            ValueRef::Integer(number) => number.to_string(),
            ValueRef::Real(number) => format!("{number:.2}"),
            ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
            ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
        };
        found.push((0..columns).map(cell).collect());
    }
    found
}

/// Months, uses and amounts of a definition as the server tells them, and as of which position.
async fn told(world: &World) -> Rows {
    let query = "measures=used,used_cents&only=definition_id:1&grain=month&start=2026-11-01&end=2027-02-28";
    let page = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await.body;
    let row = |row: &Value| {
        let month = row["start"].as_str().unwrap()[..7].replace('-', "");
        let money = format!("{:.2}", row["used_cents"].as_f64().unwrap() / 100.0);
        vec![month, row["used"].to_string(), money, page["as_of"]["position"].to_string()]
    };
    page["rows"].as_array().unwrap().iter().map(row).collect()
}

fn assert_answers(home: &Home, expected: &Rows) {
    let reader = reader_of(home);
    let refused = reader.execute("UPDATE checkpoints SET value = 0", []).unwrap_err().to_string();
    assert!(refused.contains("readonly"), "{refused}");
    let selects = documented_selects();
    assert_eq!(selects.len(), 1);
    for sql in selects {
        assert_eq!(ask(&reader, &sql), *expected, "{sql}");
    }
    for statistic in statistics().unwrap() {
        let rows = ask(&reader, &format!("SELECT * FROM {}", statistic.name));
        let there = rows.iter().all(|row| row.len() == statistic.columns.len());
        assert!(there && !rows.is_empty(), "{}: {rows:?}", statistic.name);
    }
    let asked = asked_by_sqlite3();
    assert!(asked.len() > 20, "{asked:?}");
    for sql in asked {
        ask(&reader, &sql);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_can_only_read_the_file_is_answered_what_the_documents_say() {
    let world = World::with_people(Engine::Sqlite).await;
    let definition = world.define(json!({"end_num": "120"})).await;
    for use_after in [1, 2, 20, 30] {
        let coupon = world.issue(definition, 439).await;
        world.advance(use_after * DAY);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": coupon, "shop_id": 1})).await.ok();
    }
    count_all(&world).await;
    let expected = told(&world).await;
    assert!(expected.len() > 2 && expected.iter().all(|row| row[1] != "0"), "{expected:?}");
    assert_answers(&world.home, &expected);
    let home = world.close().await;
    assert_answers(&home, &expected);
}
