//! A commit whose answer is lost, a database that goes away, an append that the database rejects: what the caller is
//! told is what the log says, or that nobody can say yet.

use std::collections::BTreeMap;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use coupon_ledger::clock::Zone;
use coupon_ledger::ledger::writer::{WriteError, Writer};
use coupon_ledger::metrics::Metrics;
use coupon_ledger::read_model::WALLET;
use coupon_ledger::store::{
    Append, BUCKET, EPOCH, Effects, Entry, LiveRow, NewEvent, Outcome, ReviewText, Statement, StreamAppend,
    StreamId,
};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use crate::harness::{EMPLOYEE, Engine, FRIEND, Home, MEMBER, Reply, Server, World, definition};
use crate::outside::{Api, PATIENCE, all_at_once, assert_gapless, count, events, tally, until};
use crate::proxy::{Cut, Proxy, Release};

/// How an append goes on PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// In one statement, where nobody else has written since the last one.
    Short,
    /// In a transaction under the head's lock.
    Long,
}

/// A ledger that reaches its database through a proxy, with coupons of member 439; `direct` goes past the proxy.
pub struct Behind {
    pub proxy: Proxy,
    pub world: Arc<World>,
    pub direct: Home,
    pub coupons: Vec<i64>,
}

impl Behind {
    pub async fn proxy(coupons: usize) -> Self {
        let direct = Home::new(Engine::Postgres).await;
        let options = PgConnectOptions::from_str(direct.database_url.as_deref().unwrap()).unwrap();
        let upstream = (options.get_host().to_owned(), options.get_port());
        let upstream = tokio::net::lookup_host(upstream).await.unwrap().next().unwrap();
        let proxy = Proxy::start(upstream).await;
        let url = options.host(&proxy.addr().ip().to_string()).port(proxy.addr().port()).to_url_lossy();
        let home = Home::on(Some(url.to_string()));
        let clock = coupon_ledger::clock::Clock::manual(crate::harness::NOON);
        let world = World::open(home, clock, Zone::default()).await;
        world.add_people().await;
        let definition = world.define(json!({})).await;
        let mut issued = Vec::new();
        for _ in 0..coupons {
            issued.push(world.issue(definition, 439).await);
        }
        // The first redemption reserves ids, which commits too: from here on only the log's writer does.
        let spare = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": spare, "shop_id": 1})).await.ok();
        Self { proxy, world: Arc::new(world), direct, coupons: issued }
    }

    pub async fn somebody_else_writes(&self) {
        self.direct.sql("UPDATE log_head SET turn = turn + 1").await.unwrap();
    }

    /// Makes the next append go this way.
    async fn go(&self, way: Way) {
        if way == Way::Long {
            self.somebody_else_writes().await;
            // It finds that out with this one, and goes the long way until it has been alone for a while.
            self.world.issue(1, 439).await;
        }
    }

    fn give(&self, number: usize) -> impl Future<Output = Reply> + Send + use<> {
        let (world, id) = (self.world.clone(), self.coupons[number]);
        let key = format!("gift-{number:06}");
        async move { world.keyed(MEMBER, &key, "/client/givecoupon", json!({"id": id})).await }
    }

    /// Waits until someone waits for a lock: a resolution that has begun.
    async fn someone_waits_for_a_lock(&self) {
        let waiting = "SELECT count(*) FROM pg_stat_activity
                       WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("someone waits for the head", async || count(&self.direct, waiting).await > 0).await;
    }

    /// Takes the head's lock past the proxy, in a transaction that ends with the connection.
    pub async fn lock_head(&self) -> PgConnection {
        let mut connection =
            PgConnection::connect(self.direct.database_url.as_deref().unwrap()).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        connection.execute("SELECT position FROM log_head FOR UPDATE").await.unwrap();
        connection
    }

    pub async fn end(self) {
        assert_gapless(&self.direct).await;
        self.world.ledger.store().close().await;
    }
}

/// 9002: try again with the same key. Never that it was not done.
fn assert_unavailable(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.code()), (503, 9002), "{}", reply.body);
    assert!(reply.headers.contains_key("retry-after"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_is_lost_is_a_success() {
    for way in [Way::Short, Way::Long] {
        let behind = Behind::proxy(1).await;
        behind.go(way).await;
        behind.proxy.cut_at_next_commit(Cut::AfterForwarding);
        let reply = behind.give(0).await;
        assert_eq!(behind.proxy.cut_happened().await, 1);
        assert!(reply.ok()["code"].is_i64() && !reply.replayed(), "{way:?}");
        assert_eq!(events(&behind.direct, "Given").await, 1, "{way:?}");
        assert_eq!(behind.world.ledger.metrics().unknown_commits.get(), 1);
        assert_eq!(behind.world.ledger.metrics().conflicts.get(), 0, "{way:?}: it was decided twice");
        let again = behind.give(0).await;
        assert!(again.replayed() && again.body == reply.body);
        behind.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_decided_again() {
    for way in [Way::Short, Way::Long] {
        let behind = Behind::proxy(1).await;
        behind.go(way).await;
        behind.proxy.cut_at_next_commit(Cut::BeforeForwarding);
        let reply = behind.give(0).await;
        assert_eq!(behind.proxy.cut_happened().await, 1);
        assert!(reply.ok()["code"].is_i64() && !reply.replayed(), "{way:?}");
        assert_eq!(events(&behind.direct, "Given").await, 1, "{way:?}");
        assert_eq!(behind.world.ledger.metrics().conflicts.get(), 1, "{way:?}");
        behind.end().await;
    }
}

/// The network holds the statement back until everybody has given it up: its turn has passed, and it writes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_arrives_late_writes_nothing() {
    let behind = Behind::proxy(1).await;
    behind.go(Way::Short).await;
    behind.proxy.cut_at_next_commit(Cut::HoldOpen);
    let reply = behind.give(0).await;
    assert_eq!(behind.proxy.cut_happened().await, 1);
    assert!(reply.ok()["code"].is_i64() && !reply.replayed());
    let position = "SELECT position FROM log_head";
    let head = count(&behind.direct, position).await;
    behind.proxy.release(Release::Commit).await;
    assert_eq!(count(&behind.direct, position).await, head);
    assert_eq!(events(&behind.direct, "Given").await, 1);
    behind.end().await;
}

/// The same where nothing was written instead: asking the log what became of it is what lets its turn pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_that_was_asked_about_can_no_longer_happen() {
    let behind = Behind::proxy(1).await;
    behind.go(Way::Short).await;
    behind.proxy.cut_at_next_commit(Cut::HoldOpen);
    let (before, asked) = (count(&behind.direct, "SELECT turn FROM log_head").await, behind.give(0));
    let asked = tokio::spawn(asked);
    behind.proxy.cut_happened().await;
    until("the log was asked", async || count(&behind.direct, "SELECT turn FROM log_head").await > before)
        .await;
    behind.proxy.release(Release::Commit).await;
    assert!(!asked.await.unwrap().replayed(), "what was given up was written after all");
    assert_eq!(events(&behind.direct, "Given").await, 1);
    behind.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_code_counts_though_its_commit_was_lost() {
    let behind = Behind::proxy(0).await;
    let guess =
        async || behind.world.call(FRIEND, "/client/getcoupon", json!({"id": 999, "code": 123_456})).await;
    behind.go(Way::Short).await;
    behind.proxy.cut_at_next_commit(Cut::BeforeForwarding);
    for _ in 0..10 {
        assert_eq!(guess().await.code(), 7003);
    }
    assert_eq!(behind.proxy.cut_happened().await, 1);
    assert_eq!(guess().await.code(), 9001);
    assert_eq!(count(&behind.direct, "SELECT count(*) FROM gift_attempts").await, 10);
    behind.end().await;
}

/// The resolver asks while the dead connection's transaction is still open: it must wait for that to end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_outlives_its_connection_is_waited_for() {
    for (release, conflicts) in [(Release::Commit, 0), (Release::Close, 1)] {
        let behind = Behind::proxy(1).await;
        behind.go(Way::Long).await;
        behind.proxy.cut_at_next_commit(Cut::HoldOpen);
        let giving = tokio::spawn(behind.give(0));
        assert_eq!(behind.proxy.cut_happened().await, 1);
        behind.someone_waits_for_a_lock().await;
        assert_eq!(events(&behind.direct, "Given").await, 0, "the transaction is open");
        assert!(!giving.is_finished(), "it was answered before anybody could know");
        assert_eq!(behind.proxy.release(release).await, release == Release::Commit);
        let reply = giving.await.unwrap();
        assert!(reply.ok()["code"].is_i64() && !reply.replayed(), "{release:?}");
        assert_eq!(events(&behind.direct, "Given").await, 1, "{release:?}");
        assert_eq!(behind.world.ledger.metrics().conflicts.get(), conflicts, "{release:?}");
        behind.end().await;
    }
}

/// The database goes away while the transaction is open, so nobody can ask the log what became of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outcome_that_cannot_be_known_is_9002_and_the_key_finds_it_later() {
    for release in [Release::Commit, Release::Close] {
        let behind = Behind::proxy(1).await;
        behind.go(Way::Long).await;
        behind.proxy.cut_at_next_commit(Cut::HoldOpen);
        let giving = tokio::spawn(behind.give(0));
        behind.proxy.cut_happened().await;
        behind.proxy.refuse_connections(true).await;
        assert_unavailable(&giving.await.unwrap());
        assert_eq!(behind.proxy.release(release).await, release == Release::Commit);
        behind.proxy.refuse_connections(false).await;
        until("the retry is answered", async || behind.give(0).await.code() == 0).await;
        let reply = behind.give(0).await;
        assert!(reply.ok()["code"].is_i64() && reply.replayed());
        assert_eq!(events(&behind.direct, "Given").await, 1, "{release:?}");
        behind.end().await;
    }
}

/// The head stays locked for longer than the resolver waits: first by the transaction that lost its connection, then
/// by an administrator who came in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_stays_locked_is_9002_and_the_key_finds_it_later() {
    let behind = Behind::proxy(1).await;
    behind.go(Way::Long).await;
    behind.proxy.cut_at_next_commit(Cut::HoldOpen);
    let giving = tokio::spawn(behind.give(0));
    behind.proxy.cut_happened().await;
    // It gets the lock when PostgreSQL ends the transaction that lies idle.
    let administrator = behind.lock_head();
    let (administrator, reply) = tokio::join!(administrator, giving);
    assert_unavailable(&reply.unwrap());
    assert!(!behind.proxy.release(Release::Commit).await, "the server had ended it");
    administrator.close().await.unwrap();
    let reply = behind.give(0).await;
    assert!(reply.ok()["code"].is_i64() && !reply.replayed());
    assert_eq!(events(&behind.direct, "Given").await, 1);
    behind.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_batch_with_a_cut_commit_has_one_event_for_each_command() {
    for cuts in
        [[Cut::BeforeForwarding, Cut::AfterForwarding], [Cut::BeforeForwarding, Cut::BeforeForwarding]]
    {
        let behind = Behind::proxy(50).await;
        let head = behind.lock_head().await;
        let giving = tokio::spawn(all_at_once((0..50).map(|number| behind.give(number)).collect::<Vec<_>>()));
        until("all are under way", async || behind.world.ledger.in_flight() == 50).await;
        behind.someone_waits_for_a_lock().await;
        for cut in cuts {
            behind.proxy.cut_at_next_commit(cut);
        }
        head.close().await.unwrap();
        let replies = giving.await.unwrap();
        assert_eq!(behind.proxy.cut_happened().await, 2);
        assert_eq!(tally(&replies), BTreeMap::from([(0, 50)]), "{cuts:?}");
        assert!(replies.iter().all(|reply| !reply.replayed()));
        assert_eq!(events(&behind.direct, "Given").await, 50);
        let streams = "SELECT count(DISTINCT aggregate_id) FROM events WHERE event_type = 'Given'";
        assert_eq!(count(&behind.direct, streams).await, 50);
        behind.end().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_the_answer_is_9002_and_readyz_says_so() {
    let behind = Behind::proxy(2).await;
    let readyz = async || behind.world.raw("GET", "/readyz", &[], Vec::new()).await.status.as_u16();
    assert_eq!(readyz().await, 200);
    behind.proxy.refuse_connections(true).await;
    assert_unavailable(&behind.give(0).await);
    let list = behind.world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
    assert_unavailable(&list);
    assert_eq!(readyz().await, 503);
    behind.proxy.refuse_connections(false).await;
    until("it is ready", async || readyz().await == 200).await;
    behind.give(0).await.ok();
    assert_eq!(events(&behind.direct, "Given").await, 1);
    behind.end().await;
}

/// Every connection died while nobody looked: the next calls must not pay for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_away_while_nobody_asked_is_not_noticed() {
    let behind = Behind::proxy(8).await;
    let list = |_| {
        let world = behind.world.clone();
        async move { world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await }
    };
    // Fills the pool of connections.
    let before = all_at_once((0..50).map(list)).await;
    behind.proxy.refuse_connections(true).await;
    behind.proxy.refuse_connections(false).await;
    assert_eq!(list(0).await.ok(), before[0].ok());
    let replies = all_at_once((0..8).map(|number| behind.give(number)).collect::<Vec<_>>()).await;
    assert_eq!(tally(&replies), BTreeMap::from([(0, 8)]));
    assert_eq!(events(&behind.direct, "Given").await, 8);
    // Nor by an append that has to ask first.
    for _ in 0..3 {
        behind.world.issue(1, 439).await;
    }
    behind.proxy.refuse_connections(true).await;
    behind.proxy.refuse_connections(false).await;
    behind.world.issue(1, 439).await;
    behind.end().await;
}

/// Every commit that never arrives is, to the command, a stream that has moved: it is decided again three times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_is_retried_three_times_and_then_6003() {
    for (cuts, code) in [(3, 0), (4, 6003)] {
        let behind = Behind::proxy(1).await;
        (0..cuts).for_each(|_| behind.proxy.cut_at_next_commit(Cut::BeforeForwarding));
        let reply = behind.give(0).await;
        assert_eq!(behind.proxy.cut_happened().await, cuts);
        assert_eq!(reply.code(), code, "{}", reply.body);
        assert_eq!(behind.world.ledger.metrics().conflicts.get(), cuts as u64);
        assert_eq!(events(&behind.direct, "Given").await, i64::from(code == 0));
        // 6003 used up no key: the same request goes through.
        behind.give(0).await.ok();
        assert_eq!(events(&behind.direct, "Given").await, 1);
        behind.end().await;
    }
}

/// Each ledger reads the coupon before the other has committed, sooner or later: one of them must look again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ledgers_that_race_for_one_coupon_agree_who_used_it() {
    let first = World::with_people(Engine::Postgres).await;
    let home = first.home.beside(first.home.database_url.clone().unwrap());
    let second = World::open(home, first.clock.clone(), Zone::default()).await;
    let definition = first.define(json!({})).await;
    let worlds = [&first, &second];
    let conflicts = || worlds.iter().map(|world| world.ledger.metrics().conflicts.get()).sum::<u64>();
    let mut rounds = 0;
    until("the two have met", async || {
        rounds += 1;
        let id = first.issue(definition, 439).await;
        let (one, other) = tokio::join!(
            first.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})),
            second.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": id})),
        );
        let (used, refused) = if one.code() == 0 { (one, other) } else { (other, one) };
        assert_eq!(refused.code(), 3001, "{}", refused.body);
        assert_eq!(used.ok()["id"], refused.data()["id"].to_string());
        conflicts() > 0 && rounds >= 10
    })
    .await;
    assert_eq!(events(&first.home, "Redeemed").await, rounds);
    assert_gapless(&first.home).await;
    first.close().await;
    second.close().await;
}

/// An append of one event to a stream of its own.
fn append(id: i64, payload: &str) -> Append {
    let append_id = format!("{id:032x}");
    Append {
        metadata: json!({"append_id": append_id}).to_string().into(),
        append_id,
        epoch: EPOCH,
        entries: vec![entry(id, payload)],
        unchanged: Vec::new(),
        receipts: Vec::new(),
    }
}

fn entry(id: i64, payload: &str) -> Entry {
    let event = NewEvent {
        event_type: "Viewed".to_owned(),
        event_version: "1.0".to_owned(),
        payload: payload.to_owned(),
    };
    let stream = StreamId { kind: "coupon", id };
    let part = StreamAppend { stream, expected_version: 0, events: vec![event] };
    Entry { streams: vec![part], effects: Effects::default() }
}

const PAYLOAD: &str = r#"{"Viewed":{"member_id":439,"at_ms":1}}"#;

/// Appends that each engine rejects for a reason of its own, and one that both do.
async fn poisons(world: &World) -> Vec<(&'static str, Append)> {
    let review = "INSERT INTO reviews (coupon_id, salt, text) VALUES (77, 'salt', 'text')";
    world.store().write(vec![Statement::new(review, [])]).await.unwrap();
    let mut twice_reviewed = append(0, PAYLOAD);
    let review =
        ReviewText { coupon_id: 77, member_id: 439, salt: "salt".to_owned(), text: "again".to_owned() };
    twice_reviewed.entries[0].effects.review = Some(review);
    let own = if world.store().is_shared() {
        ("a NUL in the payload", append(0, "{\"Viewed\":\"\0\"}"))
    } else {
        let mut row = append(0, PAYLOAD);
        let cells = WALLET.columns.iter().map(|_| "a text".into()).collect();
        row.entries[0].effects.rows = vec![LiveRow { table: &WALLET, cells }];
        ("a text in a column of numbers", row)
    };
    vec![("a second review", twice_reviewed), own]
}

on_both_engines! {
    async fn one_append_that_the_database_rejects_does_not_fail_its_batch(engine: Engine) {
        let world = World::empty(engine).await;
        let mut next = 1;
        for (what, poison) in poisons(&world).await {
            let metrics = Arc::new(Metrics::default());
            let writer = Writer::start(world.store().clone(), world.clock.clone(), metrics.clone(), 100);
            // Whether all are gathered in one batch is the writer's affair; it does so at most of the tries.
            until("a batch was halved", async || {
                let good: Vec<i64> = (next..next + 20).collect();
                next += 21;
                let mut appends: Vec<Append> = good.iter().map(|id| append(*id, PAYLOAD)).collect();
                let mut bad = poison.clone();
                bad.append_id = format!("{:032x}", next - 1);
                bad.entries[0].streams[0].stream.id = next - 1;
                appends.insert(7, bad);
                let mut outcomes = join_all(appends.into_iter().map(|append| writer.submit(append))).await;
                let rejected = outcomes.remove(7);
                assert!(matches!(rejected, Err(WriteError::Rejected(_))), "{what}: {rejected:?}");
                for outcome in outcomes {
                    assert!(matches!(outcome, Ok(Outcome::Committed { .. })), "{what}: {outcome:?}");
                }
                let streams = good.into_iter().chain([next - 1]).map(|id| StreamId { kind: "coupon", id });
                let loaded = world.store().load(&streams.collect::<Vec<_>>()).await.unwrap();
                let lengths: Vec<usize> = loaded.iter().map(Vec::len).collect();
                assert_eq!(lengths, [[1; 20].as_slice(), &[0]].concat(), "{what}");
                metrics.halved_batches.get() > 0
            })
            .await;
        }
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn commands_beyond_the_capacity_answer_9002_and_lose_nothing(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &["--max-commands", "1"]).await;
        let api = Api::new(&home, &server);
        api.operator("/member/add", json!({"id": 439})).await.ok();
        let definition = api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"].clone();
        let mut coupons = Vec::new();
        for _ in 0..100 {
            let body = json!({"coupon_id": definition, "member_id": 439});
            coupons.push(api.operator("/sendelecoupon/one", body).await.ok()["id"].clone());
        }
        let give = |id: &Value| {
            let (api, key, body) = (api.clone(), format!("give-{id:0>6}"), json!({"id": id}));
            async move { api.keyed(MEMBER, &key, "/client/givecoupon", body).await }
        };
        let replies = all_at_once(coupons.iter().map(give)).await;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.code() != 0).collect();
        assert!(!refused.is_empty(), "100 commands at once went through a queue of one");
        refused.into_iter().for_each(assert_unavailable);
        // 9002 of a full queue means what it says: nothing was written. The same key goes through later.
        assert_eq!(events(&home, "Given").await, tally(&replies)[&0] as i64);
        for (id, first) in coupons.iter().zip(&replies) {
            let again = give(id).await;
            assert!(again.ok()["code"].is_i64());
            assert_eq!(again.replayed(), first.code() == 0);
        }
        assert_eq!(events(&home, "Given").await, 100);
        assert_gapless(&home).await;
        server.kill().await;
    }

    async fn a_ledger_whose_epoch_has_moved_on_is_not_written_any_more(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let before = count(&world.home, "SELECT count(*) FROM events").await;
        let early = tokio::time::timeout(Duration::from_millis(1), world.ledger.stopped()).await;
        assert!(early.is_err(), "it stopped for no reason");
        world.home.sql(&format!("UPDATE log_head SET epoch = 2 WHERE bucket = {BUCKET}")).await.unwrap();
        assert_unavailable(&world.call(MEMBER, "/client/givecoupon", json!({"id": id})).await);
        let why = tokio::time::timeout(PATIENCE, world.ledger.stopped()).await.expect("it did not stop");
        assert_eq!(why, "the ledger is at epoch 2, this program writes epoch 1");
        assert_unavailable(&world.call(MEMBER, "/client/givecoupon", json!({"id": id})).await);
        assert_eq!(count(&world.home, "SELECT count(*) FROM events").await, before);
        // What is there can still be read.
        assert_eq!(world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.ok()[0]["id"], id);
        world.close().await;
    }

    async fn a_server_whose_epoch_has_moved_on_exits_with_2(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        home.sql("UPDATE log_head SET epoch = 2").await.unwrap();
        let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
        assert_unavailable(&api.operator("/shop/add", shop).await);
        let exit = tokio::time::timeout(PATIENCE, server.child.wait()).await.expect("it went on").unwrap();
        assert_eq!(exit.code(), Some(2));
    }
}
