//! Every live row is what replaying its stream gives, and every counter is the sum it stands for.

use std::collections::BTreeMap;

use coupon_ledger::account::Account;
use coupon_ledger::allotment::Allotment;
use coupon_ledger::approval::Approval;
use coupon_ledger::audit::rebuild::rebuild;
use coupon_ledger::coupon::Coupon;
use coupon_ledger::definition::Definition;
use coupon_ledger::entity::{Entity, fold};
use coupon_ledger::grant::Grant;
use coupon_ledger::job::Job;
use coupon_ledger::machine::Machine;
use coupon_ledger::member::Member;
use coupon_ledger::office::{Appointment, Office};
use coupon_ledger::order::Order;
use coupon_ledger::partner_key::PartnerKey;
use coupon_ledger::provenance::Provenance;
use coupon_ledger::read_model::LIVE_TABLES;
use coupon_ledger::reading::Reading;
use coupon_ledger::refusals::Refusals;
use coupon_ledger::rule::{GoodsGroup, OrderAmount};
use coupon_ledger::shop::Shop;
use coupon_ledger::store::{BUCKET, Cell, Column, LiveTable, Statement, Store, StoredEvent};
use coupon_ledger::webhook::Webhook;

use serde_json::json;

use crate::harness::{Engine, FRIEND, MEMBER, World};
use crate::outside::count;

/// Rows by table and key; the key is its cells in words.
type Rows = BTreeMap<(&'static str, String), Vec<Cell>>;

/// Replays the whole log and compares what it gives with what is stored: every row of every live table, and
/// the counters of stock and of members.
pub async fn assert_rows_equal_replay(world: &World) {
    assert_store_equals_replay(world.store()).await;
}

/// The same of a ledger that nobody serves.
pub async fn assert_store_equals_replay(store: &Store) {
    let replayed = replayed_rows(&streams(store).await);
    let mut stored = Rows::new();
    for table in LIVE_TABLES {
        let columns: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
        let sql = format!("SELECT {} FROM {} WHERE bucket = $1", columns.join(", "), table.name);
        put(&mut stored, table, select(store, sql).await);
    }
    // A member's count of 0 may be written down or not.
    let counters = [
        ("stock_v1", 1, "SELECT definition_id, stock, issued FROM stock_v1 WHERE bucket = $1"),
        (
            "member_counts_v1",
            2,
            "SELECT member_id, definition_id, issued FROM member_counts_v1 WHERE bucket = $1 AND issued <> 0",
        ),
    ];
    for (name, key_columns, sql) in counters {
        for cells in select(store, sql.to_owned()).await {
            stored.insert((name, format!("{:?}", &cells[..key_columns])), cells);
        }
    }

    let keys = replayed.keys().chain(stored.keys().filter(|key| !replayed.contains_key(*key)));
    let differences: Vec<String> = keys
        .filter(|key| replayed.get(*key) != stored.get(*key))
        .map(|key| format!("{key:?}\n  replay: {:?}\n  stored: {:?}", replayed.get(key), stored.get(key)))
        .collect();
    assert!(
        differences.is_empty(),
        "the live tables are not what the log gives:\n{}",
        differences.join("\n")
    );
}

/// Every stream of the log, read by position; positions have no gaps and the head is the last of them.
async fn streams(store: &Store) -> BTreeMap<(String, i64), Vec<StoredEvent>> {
    let mut streams: BTreeMap<(String, i64), Vec<StoredEvent>> = BTreeMap::new();
    let mut position = 0;
    loop {
        let page = store.events_after(position, 500).await.unwrap();
        if page.is_empty() {
            break;
        }
        for event in page {
            assert_eq!(event.position, position + 1, "a gap in the log");
            position = event.position;
            let key = (event.aggregate_type.clone(), event.aggregate_id.parse().unwrap());
            streams.entry(key).or_default().push(event);
        }
    }
    let head = select(store, "SELECT position FROM log_head WHERE bucket = $1".to_owned()).await;
    assert_eq!(head, [[Cell::Int(position)]], "the head is not the last position");
    streams
}

fn replayed_rows(streams: &BTreeMap<(String, i64), Vec<StoredEvent>>) -> Rows {
    let mut rows = Rows::new();
    let mut stock = BTreeMap::new();
    let mut issued_of: BTreeMap<i64, i64> = BTreeMap::new();
    let mut issued_to: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    for ((kind, id), events) in streams {
        match kind.as_str() {
            "coupon" => {
                let coupon = rows_of::<Coupon>(*id, events, &mut rows);
                let counts = coupon.counts().unwrap();
                *issued_of.entry(counts.definition_id).or_default() += counts.issued;
                // An allotment's counter has the negative of its id.
                if let Some(allotment_id) = counts.allotment_id {
                    *issued_of.entry(-allotment_id).or_default() += counts.issued;
                }
                *issued_to.entry((counts.member_id, counts.definition_id)).or_default() += counts.issued;
            }
            "definition" => {
                let definition = rows_of::<Definition>(*id, events, &mut rows);
                stock.insert(*id, definition.stock.unwrap_or(-1));
            }
            "shop" => {
                rows_of::<Shop>(*id, events, &mut rows);
            }
            "allotment" => {
                let allotment = rows_of::<Allotment>(*id, events, &mut rows);
                stock.insert(-id, allotment.num().unwrap());
            }
            "job" => {
                rows_of::<Job>(*id, events, &mut rows);
            }
            "order" => {
                rows_of::<Order>(*id, events, &mut rows);
            }
            "grant" => {
                rows_of::<Grant>(*id, events, &mut rows);
            }
            "order_amount" => {
                rows_of::<OrderAmount>(*id, events, &mut rows);
            }
            "goods_group" => {
                rows_of::<GoodsGroup>(*id, events, &mut rows);
            }
            "ledger" => {
                rows_of::<Provenance>(*id, events, &mut rows);
            }
            "member" => {
                rows_of::<Member>(*id, events, &mut rows);
            }
            "account" => {
                rows_of::<Account>(*id, events, &mut rows);
            }
            "office" => {
                rows_of::<Office>(*id, events, &mut rows);
            }
            "partner_key" => {
                rows_of::<PartnerKey>(*id, events, &mut rows);
            }
            "webhook" => {
                rows_of::<Webhook>(*id, events, &mut rows);
            }
            "machine_key" => {
                rows_of::<Machine>(*id, events, &mut rows);
            }
            "approval" => {
                rows_of::<Approval>(*id, events, &mut rows);
            }
            "appointment" => {
                rows_of::<Appointment>(*id, events, &mut rows);
            }
            "reading" => {
                rows_of::<Reading>(*id, events, &mut rows);
            }
            "refusals" => {
                rows_of::<Refusals>(*id, events, &mut rows);
            }
            other => panic!("a stream of an unknown type: {other} {id}"),
        }
    }
    for (id, stock) in stock {
        let issued = issued_of.get(&id).copied().unwrap_or_default();
        let cells = [id, stock, issued].map(Cell::Int).to_vec();
        rows.insert(("stock_v1", format!("{:?}", &cells[..1])), cells);
    }
    for ((member_id, definition_id), issued) in issued_to.into_iter().filter(|(_, issued)| *issued != 0) {
        let cells = [member_id, definition_id, issued].map(Cell::Int).to_vec();
        rows.insert(("member_counts_v1", format!("{:?}", &cells[..2])), cells);
    }
    rows
}

/// Folds a stream, puts its rows to the others and returns its state.
fn rows_of<A: Entity>(id: i64, events: &[StoredEvent], rows: &mut Rows) -> A {
    let (state, _) = fold::<A>(events).unwrap();
    for row in state.rows(id) {
        put(rows, row.table, vec![row.cells]);
    }
    state
}

fn put(rows: &mut Rows, table: &LiveTable, found: Vec<Vec<Cell>>) {
    for cells in found {
        let key = format!("{:?}", &cells[..table.key_columns]);
        assert!(rows.insert((table.name, key), cells).is_none(), "two rows of one key in {}", table.name);
    }
}

async fn select(store: &Store, sql: String) -> Vec<Vec<Cell>> {
    // The program's statements are all fixed texts; these few are made here and live as long as the test.
    let statement = Statement::new(Box::leak(sql.into_boxed_str()), [BUCKET.into()]);
    store.query(statement).await.unwrap().into_iter().map(|row| row.0).collect()
}

on_both_engines! {
    async fn a_rebuild_writes_every_live_table_anew_from_the_log(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"num": 20, "title": "a\tb \\N \"c\" 😀"})).await;
        let mut ids = Vec::new();
        for _ in 0..4 {
            ids.push(world.issue(definition, 439).await);
        }
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": ids[0], "shop_id": 1})).await.ok();
        let code = world.give(MEMBER, ids[1]).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": ids[1], "code": code})).await.ok();
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": ids[2], "reason": "x"})).await.ok();
        assert_rows_equal_replay(&world).await;
        let list = async || world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.body;
        let before = list().await;
        for damage in [
            "UPDATE wallet_v1 SET title = 'stolen', in_hand = 1, used_at_ms = 0",
            "DELETE FROM redemptions_v1",
            "UPDATE stock_v1 SET issued = 0",
            "DELETE FROM member_counts_v1",
            "UPDATE definitions_v1 SET is_on = 0",
            "DELETE FROM shops_v1",
        ] {
            world.home.sql(damage).await.unwrap();
        }
        assert_ne!(list().await, before);
        let rebuilt = rebuild(&world.ledger, "all").await.unwrap();
        let events = count(&world.home, "SELECT count(*) FROM events").await;
        assert_eq!((rebuilt.events, rebuilt.streams), (events, 6));
        assert_rows_equal_replay(&world).await;
        assert_eq!(list().await, before);
        let index = match engine {
            Engine::Sqlite => "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'wallet_v1' AND sql IS NOT NULL ORDER BY name",
            Engine::Postgres => "SELECT indexname::text FROM pg_indexes WHERE tablename = 'wallet_v1' AND indexname LIKE '%by%' ORDER BY 1",
        };
        // SQLite cannot give an index another name: theirs end with the number of the rebuild.
        let indexes = match engine {
            Engine::Sqlite => ["wallet_v1_by_end_1", "wallet_v1_by_lapse_1"],
            Engine::Postgres => ["wallet_v1_by_end", "wallet_v1_by_lapse"],
        };
        assert_eq!(world.home.sql(index).await.unwrap(), indexes);
        // The ledger goes on.
        world.issue(definition, 442).await;
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_rebuild_that_meets_a_corrupt_event_changes_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.home.sql("UPDATE wallet_v1 SET title = 'damaged'").await.unwrap();
        let head = count(&world.home, "SELECT position FROM log_head").await;
        let columns = "bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                       metadata, recorded_at_ms";
        let corrupt = format!(
            "INSERT INTO events ({columns}) VALUES (0, {}, 'coupon', '{id}', 2, 'Viewed', '1.0', '{{\"x\":1}}', '{{}}', 0)",
            head + 1
        );
        world.home.sql(&corrupt).await.unwrap();
        world.home.sql("UPDATE log_head SET position = position + 1").await.unwrap();
        let failed = rebuild(&world.ledger, "all").await.unwrap_err().to_string();
        assert!(failed.contains(&format!("position {}", head + 1)), "{failed}");
        assert_eq!(world.home.sql("SELECT title FROM wallet_v1").await.unwrap(), ["damaged"]);
        // Nothing is left open: others can write.
        world.issue(definition, 442).await;
        world.close().await;
    }
}
