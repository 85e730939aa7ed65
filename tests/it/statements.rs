//! How many statements and transactions a call costs: not a matter of speed here, but of nobody slipping a query into a
//! loop. On PostgreSQL a proxy counts what is executed; on SQLite the index of the WAL counts transactions.

use coupon_ledger::identity::Caller;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::accounts::{PASSWORD, account, sign_in};
use crate::commit::Behind;
use crate::harness::{Engine, INSERT_MEMBERS, MEMBER, World};
use crate::outside::until;

/// Where nobody else writes: everything in one statement, which commits.
const SHORT_APPEND: usize = 1;

/// Where somebody may: the head with its lock in one, what must be known, everything that is written, COMMIT.
const LONG_APPEND: usize = 4;

async fn cost(behind: &Behind, call: impl AsyncFn()) -> (usize, usize) {
    let before = behind.proxy.traffic();
    call().await;
    let after = behind.proxy.traffic();
    (after.0 - before.0, after.1 - before.1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_call_has_its_number_of_statements() {
    let behind = Behind::proxy(8).await;
    let world = &behind.world;
    let coupon = |number: usize| behind.coupons[number];
    let redeem = async |number: usize, key: &str| {
        let body = json!({"mem_coupon_id": coupon(number), "shop_id": 1});
        world.keyed(MEMBER, key, "/client/auditcoupon", body).await.ok();
    };
    let open = async |number: usize| {
        world.call(MEMBER, "/client/couponinfo", json!({"id": coupon(number)})).await.ok();
    };
    redeem(0, "warm-up").await;
    open(1).await;
    // Its stream, and the append.
    assert_eq!(cost(&behind, async || redeem(2, "the-key-1").await).await, (1 + SHORT_APPEND, 1));
    // Somebody else has written: the statement that finds out, and the whole append.
    behind.somebody_else_writes().await;
    let after_somebody = cost(&behind, async || redeem(4, "the-key-2").await).await;
    assert_eq!(after_somebody, (1 + SHORT_APPEND + LONG_APPEND, 2));
    // He may go on.
    assert_eq!(cost(&behind, async || redeem(5, "the-key-3").await).await, (1 + LONG_APPEND, 1));
    assert_eq!(cost(&behind, async || redeem(6, "the-key-4").await).await, (1 + SHORT_APPEND + 1, 1));
    // Refused: once more, with the shop read and not remembered; then the receipt, its events and their stream.
    assert_eq!(cost(&behind, async || redeem(2, "the-key-1").await).await, (1 + 2 + 3, 0));
    // The page, and the first time the View.
    assert_eq!(cost(&behind, async || open(3).await).await, (1 + 1 + SHORT_APPEND, 1));
    assert_eq!(cost(&behind, async || open(3).await).await, (1, 0));
    let list = async || {
        world.call(MEMBER, "/client/couponlist", json!({"state": 0, "limit": 100})).await.ok();
    };
    assert_eq!(cost(&behind, list).await, (1, 0));
    let inbox = async || {
        world.call(MEMBER, "/client/messages", json!({"limit": 100})).await.ok();
    };
    assert_eq!(cost(&behind, inbox).await, (1, 0));
    // The member; the definition is remembered, and a new stream needs no reading. Stock and count are asked for.
    let issue = async || {
        world.issue(1, 439).await;
    };
    issue().await;
    assert_eq!(cost(&behind, issue).await, (1 + 1 + SHORT_APPEND, 1));
    behind.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_costs_one_read_and_a_token_none() {
    let behind = Behind::proxy(1).await;
    let world = &behind.world;
    account(world, json!({"name": "boss", "role": "operator"})).await;
    let session = sign_in(world, "boss", PASSWORD).await.ok()["token"].as_str().unwrap().to_owned();
    let token = world.token(Caller::Operator);
    let list = async |token: &str| {
        world.request("/shop/list", &[("token", token)], "{}").await.ok();
    };
    list(&session).await;
    assert_eq!(cost(&behind, async || list(&token).await).await, (1, 0));
    assert_eq!(cost(&behind, async || list(&session).await).await, (2, 0));
    behind.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_costs_no_more_than_a_single_issue() {
    let behind = Behind::proxy(1).await;
    let members: Vec<i64> = (1..=400).collect();
    let values: Vec<String> =
        members.iter().map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
    let others = values.iter().filter(|row| !row.starts_with("(439,") && !row.starts_with("(442,"));
    let others: Vec<&str> = others.map(String::as_str).collect();
    behind.direct.sql(&format!("{INSERT_MEMBERS} {}", others.join(", "))).await.unwrap();
    let chunk = async || {
        let body = json!({"coupon_id": 1, "member_ids": members});
        let sent = behind.world.operator("/sendelecoupon/members", body).await;
        assert_eq!(sent.ok()["send_num"], 400);
    };
    chunk().await;
    // The definition and the members, what must be known, the append; a new block of ids now and then.
    let (statements, commits) = cost(&behind, chunk).await;
    let least = 2 + 1 + SHORT_APPEND;
    assert!(
        (least..=least + 3).contains(&statements) && (1..=2).contains(&commits),
        "{statements}, {commits}"
    );
    behind.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_costs_as_much_as_one_command() {
    let behind = Behind::proxy(60).await;
    let holding = behind.lock_head().await;
    let before = behind.proxy.traffic();
    let redeeming = behind.coupons.iter().map(|id| {
        let (world, id) = (behind.world.clone(), *id);
        tokio::spawn(async move {
            world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await
        })
    });
    let redeeming: Vec<_> = redeeming.collect();
    until("all have been read and wait", async || behind.world.ledger.in_flight() == 60).await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    drop(holding);
    for reply in join_all(redeeming).await {
        reply.unwrap().ok();
    }
    let after = behind.proxy.traffic();
    let (statements, commits) = (after.0 - before.0, after.1 - before.1);
    // Streams are read in groups as they come; one by one all 60 would be 300 statements.
    assert!(commits <= 2 && statements <= 60 + 2 * LONG_APPEND, "{statements} statements, {commits} commits");
    behind.end().await;
}

/// `iChange`, which every transaction that writes moves by one.
fn transactions(world: &World) -> u32 {
    let index = std::fs::read(world.home.path().join("ledger.db-shm")).unwrap();
    u32::from_ne_bytes(index[8..12].try_into().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_sqlite_too_a_command_is_one_transaction_and_a_page_none() {
    let world = World::with_people(Engine::Sqlite).await;
    let definition = world.define(json!({})).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(world.issue(definition, 439).await);
    }
    let redeem = |id: i64| json!({"mem_coupon_id": id, "shop_id": 1});
    let cost = async |route: &str, body: Value, code: i64| {
        let before = transactions(&world);
        assert_eq!(world.call(MEMBER, route, body).await.code(), code);
        transactions(&world) - before
    };
    cost("/client/auditcoupon", redeem(ids[0]), 0).await;
    assert_eq!(cost("/client/auditcoupon", redeem(ids[1]), 0).await, 1);
    assert_eq!(cost("/client/auditcoupon", redeem(ids[1]), 3001).await, 0);
    assert_eq!(cost("/client/couponlist", json!({"state": 0}), 0).await, 0);
    assert_eq!(cost("/client/couponinfo", json!({"id": ids[2]}), 0).await, 1, "the first time it is seen");
    assert_eq!(cost("/client/couponinfo", json!({"id": ids[2]}), 0).await, 0);
    world.close().await;
}
