//! The walk of docs/operations.md from SQLite to PostgreSQL, step by step: everybody finds everything where it was.

use coupon_ledger::clock::Zone;
use coupon_ledger::directory::{Seal, SealError};
use coupon_ledger::person_keys::PersonKeysError;
use coupon_ledger::store;
use serde_json::{Value, json};

use crate::everything::everything;
use crate::harness::{Engine, FRIEND, Home, MEMBER, World, program};
use crate::leaks::Heard as _;

/// The tables of step 5, in its order.
pub fn documented_tables() -> Vec<String> {
    let text = std::fs::read_to_string("docs/operations.md").unwrap();
    let (_, rest) = text.split_once("for table in ").unwrap();
    let (tables, _) = rest.split_once("; do").unwrap();
    tables.split_whitespace().filter(|word| *word != "\\").map(ToOwned::to_owned).collect()
}

/// What the loop of step 5 does with `sqlite3` and `psql`, which are not on every machine.
async fn copy_table(from: &Home, to: &Home, table: &str) {
    let columns = from.sql(&format!("SELECT name FROM pragma_table_info('{table}')")).await.unwrap();
    let quoted: Vec<String> = columns.iter().map(|column| format!("quote({column})")).collect();
    let select = format!("SELECT {} FROM {table}", quoted.join(" || ', ' || "));
    to.sql(&format!("DELETE FROM {table}")).await.unwrap();
    for values in from.sql(&select).await.unwrap() {
        to.sql(&format!("INSERT INTO {table} ({}) VALUES ({values})", columns.join(", "))).await.unwrap();
    }
}

async fn runs(home: &Home, arguments: &[&str]) {
    let output = program(home).args(arguments).heard().await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What shows members, and what finds them.
async fn pages(world: &World) -> Vec<Value> {
    let mut pages = Vec::new();
    for body in [
        json!({"limit": 100}),
        json!({"phone": "13812345678"}),
        json!({"phone": "1381"}),
        json!({"name": "王小"}),
    ] {
        pages.push(world.operator("/member/list", body).await.ok().clone());
    }
    pages.push(world.operator("/memberlevel/list", json!({})).await.body);
    pages
        .push(world.operator("/auditelecoupon/getlist", json!({"page": 1, "limit": 100})).await.ok().clone());
    for caller in [MEMBER, FRIEND] {
        pages.push(world.call(caller, "/client/messages", json!({})).await.ok().clone());
        for state in 0..3 {
            pages.push(world.call(caller, "/client/couponlist", json!({"state": state})).await.ok().clone());
        }
    }
    pages
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_and_coupons_move_from_sqlite_to_postgres() {
    let world = everything(Engine::Sqlite).await;
    let edit = json!({"id": 439, "phone": "13812345678", "member_name": "王小明"});
    world.operator("/member/edit", edit).await.ok();
    crate::messages::tell(&world.ledger).await;
    world.call(MEMBER, "/client/readmessage", json!({"all": 1})).await.ok();
    let before = pages(&world).await;
    assert_eq!(before[1], before[2], "found by all of his number and by its beginning");
    assert_eq!(before[1].as_array().unwrap().len(), 1);
    let (clock, secrets) = (world.clock.clone(), world.secrets.clone());
    let old = world.close().await;
    std::fs::write(old.path().join("secret.key"), "2a".repeat(32)).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let moving = folder.path().join("moving");
    let moving = moving.to_str().unwrap();
    runs(&old, &["export", "--unsigned", "--out", moving]).await;
    runs(&old, &["check", moving, "--unsigned"]).await;
    let new = Home::new(Engine::Postgres).await;
    std::fs::copy(old.path().join("secret.key"), new.path().join("secret.key")).unwrap();
    runs(&new, &["import", "export", moving]).await;
    for table in documented_tables() {
        copy_table(&old, &new, &table).await;
    }

    // Who forgets the keys, or takes another's, is told before anything is written under new ones.
    let store = store::open(&new.store_options(&secrets, clock.now_ms())).await.unwrap();
    let keys = new.person_keys_file();
    let refused = Seal::open(&store, &secrets, &keys).await.unwrap_err();
    assert!(matches!(refused, SealError::Keys(PersonKeysError::Missing { .. })), "{refused}");
    coupon_ledger::person_keys::PersonKeys::make(&keys).unwrap();
    let refused = Seal::open(&store, &secrets, &keys).await.unwrap_err();
    assert!(matches!(refused, SealError::Keys(PersonKeysError::OpensNothing { .. })), "{refused}");
    store.close().await;

    std::fs::copy(old.person_keys_file(), &keys).unwrap();
    let fact = "SELECT value FROM ledger_facts WHERE name = 'person_keys_id'";
    let id = &old.sql(fact).await.unwrap()[0];
    new.sql(&format!("INSERT INTO ledger_facts (name, value) VALUES ('person_keys_id', '{id}')"))
        .await
        .unwrap();
    runs(&new, &["verify"]).await;
    let world = World::open(new, clock, Zone::default()).await;
    assert!(crate::messages::tell(&world.ledger).await > 0, "looked at again, and told nobody again");
    assert_eq!(pages(&world).await, before);
    world.operator("/member/add", json!({"nickname": "新"})).await.ok();
    world.close().await;
}
