//! Many callers at once: nothing is used twice, nothing is sold beyond its stock, no limit gives way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coupon_ledger::clock::Zone;
use coupon_ledger::identity::Caller;
use coupon_ledger::store::Statement;
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, Engine, FRIEND, HOUR, Home, MEMBER, Reply, Server, World, definition};
use crate::outside::{Api, all_at_once, assert_gapless, count, events, tally};

/// Members without a name, in one transaction.
async fn add_members(world: &World, ids: impl Iterator<Item = i64>) {
    const ADD: &str = "
        INSERT INTO members (member_id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id,
                             birthday, card_end, joined_at_ms)
        VALUES ($1, '', '', '', '', '', 0, 0, 0, 0, 0)";
    world.store().write(ids.map(|id| Statement::new(ADD, [id.into()])).collect()).await.unwrap();
}

/// Each of these members claims from a definition, all at once.
async fn claims(world: &Arc<World>, definition: i64, members: impl Iterator<Item = i64>) -> Vec<Reply> {
    let claim = |member| {
        let world = world.clone();
        async move { world.call(Caller::Member(member), "/client/claimcoupon", json!({"id": definition})).await }
    };
    all_at_once(members.map(claim)).await
}

async fn close(world: Arc<World>) -> Home {
    Arc::into_inner(world).unwrap().close().await
}

on_both_engines! {
    /// Reads that wait for each other are answered together; these have no parameter by which they could differ.
    async fn many_who_ask_the_same_at_once_all_get_the_answer(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let origin = world.store().origin().await.unwrap();
        assert!(origin.is_some());
        let ask = |_: i64| {
            let world = world.clone();
            async move { world.store().origin().await.unwrap() }
        };
        assert_eq!(all_at_once((0..50).map(ask)).await, vec![origin; 50]);
        close(world).await;
    }

    /// Half of them are the member himself, half the employees of two shops.
    async fn of_200_simultaneous_redeemers_exactly_one_succeeds(engine: Engine) {
        const ROUNDS: i64 = 15;
        let home = Home::new(engine).await;
        // Nobody asks so often who is no flood.
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/member/add", json!({"id": 439})).await.ok();
        for shop in 1..=2 {
            let details = json!({"shop_name": format!("{shop}店"), "phone": "1", "address": "a"});
            assert_eq!(api.operator("/shop/add", details).await.ok()["id"], shop.to_string());
            let employee = json!({"id": 1000 + shop, "name": "店員", "shop_id": shop});
            api.operator("/user/add", employee).await.ok();
        }
        let coupon = json!({"coupon_id": 1, "member_id": 439});
        assert_eq!(api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"], 1);
        for _ in 0..ROUNDS {
            let id = api.operator("/sendelecoupon/one", coupon.clone()).await.ok()["id"].as_i64().unwrap();
            let redeem = |number: i64| {
                let api = api.clone();
                async move {
                    match number % 4 {
                        0 | 1 => {
                            let body = json!({"mem_coupon_id": id, "shop_id": number % 2 + 1});
                            api.call(MEMBER, "/client/auditcoupon", body).await
                        }
                        shop => {
                            let employee = Caller::Employee(999 + shop);
                            api.call(employee, "/user/auditelecoupon", json!({"mem_coupon_id": id})).await
                        }
                    }
                }
            };
            let replies = all_at_once((0..200).map(redeem)).await;
            assert_eq!(tally(&replies), BTreeMap::from([(0, 1), (3001, 199)]), "coupon {id}");
            let used = replies.iter().find(|reply| reply.code() == 0).unwrap().data();
            assert_eq!(used["mem_coupon_id"], id.to_string());
            let redemption: i64 = used["id"].as_str().unwrap().parse().unwrap();
            for refused in replies.iter().filter(|reply| reply.code() != 0) {
                assert_eq!(refused.data()["id"], redemption);
                assert_eq!(refused.data()["create_date"], used["create_date"]);
            }
        }
        assert_eq!(events(&home, "Redeemed").await, ROUNDS);
        assert_eq!(count(&home, "SELECT count(*) FROM redemptions_v1").await, ROUNDS);
        assert_gapless(&home).await;
        server.kill().await;
    }

    async fn of_1000_claimers_exactly_the_stock_of_100_succeed(engine: Engine) {
        let world = Arc::new(World::empty(engine).await);
        add_members(&world, 1..=1000).await;
        let definition = world.define(json!({"is_claim": 1, "num": 100})).await;
        let replies = claims(&world, definition, 1..=1000).await;
        assert_eq!(tally(&replies), BTreeMap::from([(0, 100), (5001, 900)]));
        let ids: BTreeSet<i64> = replies.iter().filter_map(|reply| reply.data()["id"].as_i64()).collect();
        assert_eq!(ids.len(), 100, "a coupon was issued twice");
        let info = world.operator("/elecoupons/info", json!({"id": definition})).await;
        assert_eq!((&info.ok()["num"], &info.data()["inventory"]), (&json!(100), &json!(0)));
        assert_eq!(count(&world.home, "SELECT issued FROM stock_v1").await, 100);
        assert_eq!(events(&world.home, "Issued").await, 100);
        assert_gapless(&world.home).await;
        close(world).await;
    }

    async fn a_member_limit_of_two_holds_under_50_parallel_claims(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let definition = world.define(json!({"is_claim": 1, "get_limit_type": 2, "get_limit": 2})).await;
        let replies = claims(&world, definition, std::iter::repeat_n(439, 50)).await;
        assert_eq!(tally(&replies), BTreeMap::from([(0, 2), (5002, 48)]));
        // The limit is each member's own.
        let replies = claims(&world, definition, std::iter::repeat_n(442, 3)).await;
        assert_eq!(tally(&replies), BTreeMap::from([(0, 2), (5002, 1)]));
        let counted = count(&world.home, "SELECT issued FROM member_counts_v1 WHERE member_id = 439").await;
        assert_eq!(counted, 2);
        assert_eq!(events(&world.home, "Issued").await, 4);
        close(world).await;
    }

    async fn one_at_a_time_holds_under_50_parallel_claims(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let definition = world.define(json!({"is_claim": 1, "get_limit_type": 3})).await;
        let replies = claims(&world, definition, std::iter::repeat_n(439, 50)).await;
        assert_eq!(tally(&replies), BTreeMap::from([(0, 1), (5002, 49)]));
        assert_eq!(events(&world.home, "Issued").await, 1);
        close(world).await;
    }

    /// 20 members guess five times each: fewer than the ten that would end their own hour.
    async fn a_gift_takes_five_wrong_codes_from_100_parallel_guesses_and_locks(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let code = world.give(MEMBER, id).await;
        let guess = |number: i64| {
            let world = world.clone();
            let body = json!({"id": id, "code": code + 1 + number});
            async move { world.call(Caller::Member(500 + number % 20), "/client/getcoupon", body).await }
        };
        let replies = all_at_once((0..100).map(guess)).await;
        assert_eq!(tally(&replies), BTreeMap::from([(7001, 5), (7002, 95)]));
        let wrong = replies.iter().filter(|reply| reply.code() == 7001);
        let left: BTreeSet<i64> = wrong.map(|reply| reply.data()["attempts_left"].as_i64().unwrap()).collect();
        assert_eq!(left, (0..5).collect(), "each number of tries left is told once");
        assert_eq!(events(&world.home, "GiftCodeRejected").await, 5);

        let locked = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await;
        assert_eq!(locked.code(), 7002, "the right code comes too late");
        world.call(MEMBER, "/client/withdrawcoupon", json!({"id": id})).await.ok();
        let again = world.give(MEMBER, id).await;
        assert_ne!(again, code, "a new gift has a new code");
        let received = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": again})).await;
        assert_eq!(received.ok(), &json!({"id": id}));
        close(world).await;
    }

    async fn ten_failed_codes_an_hour_hold_under_50_parallel_guesses_and_a_restart(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let guess = |number: i64| {
            let world = world.clone();
            let body = json!({"id": 100_000 + number, "code": 482_913});
            async move { world.call(FRIEND, "/client/getcoupon", body).await }
        };
        let replies = all_at_once((0..50).map(guess)).await;
        assert_eq!(tally(&replies), BTreeMap::from([(7003, 10), (9001, 40)]));
        for refused in replies.iter().filter(|reply| reply.code() == 9001) {
            assert_eq!(refused.status, 429);
            assert!(refused.headers.contains_key("retry-after"));
        }
        assert_eq!(count(&world.home, "SELECT count(*) FROM gift_attempts").await, 10);

        let clock = world.clock.clone();
        let world = World::open(close(world).await, clock, Zone::default()).await;
        let one_more = async || world.call(FRIEND, "/client/getcoupon", json!({"id": 99_999, "code": 1})).await.code();
        assert_eq!(one_more().await, 9001, "a restart forgot the failures");
        world.advance(HOUR - 1);
        assert_eq!(one_more().await, 9001);
        world.advance(1);
        assert_eq!(one_more().await, 7003, "an hour later the failures count no more");
        world.close().await;
    }

    /// Judged from the log itself: at no position has more been issued than there is stock.
    async fn operators_who_change_the_stock_during_claims_never_end_below_what_is_issued(engine: Engine) {
        let world = Arc::new(World::empty(engine).await);
        add_members(&world, 1..=200).await;
        let definition = world.define(json!({"is_claim": 1, "num": 40})).await;
        let operator = |changes: &'static [(i64, i64)]| {
            let world = world.clone();
            async move {
                let mut replies = Vec::new();
                for (kind, num) in changes.iter().cycle().take(60) {
                    let body = json!({"id": definition, "type": kind, "num": num});
                    replies.push(world.operator("/elecoupons/inventory", body).await);
                }
                replies
            }
        };
        // Before the first claim there are never less than ten.
        let first = tokio::spawn(operator(&[(1, 5), (0, 5)]));
        let second = tokio::spawn(operator(&[(0, 30), (1, 30), (0, 4), (1, 4)]));
        let claim = |member| {
            let world = world.clone();
            async move {
                loop {
                    let body = json!({"id": definition});
                    let reply = world.call(Caller::Member(member), "/client/claimcoupon", body).await;
                    // The stock moved under the claim again and again: the caller tries again.
                    if reply.code() != 6003 {
                        return reply;
                    }
                }
            }
        };
        let claimed = all_at_once((1..=200).map(claim)).await;
        let changed = [first.await.unwrap(), second.await.unwrap()].concat();

        // 401 where it would fall below what is issued.
        let codes = tally(&changed);
        assert!(codes.keys().all(|code| [0, 401].contains(code)), "{codes:?}");
        let codes = tally(&claimed);
        assert!(codes.keys().all(|code| [0, 5001].contains(code)), "{codes:?}");

        let (mut stock, mut issued) = (0, 0);
        for event in world.store().events_after(0, 10_000).await.unwrap() {
            let payload: Value = serde_json::from_str(&event.payload).unwrap();
            match event.event_type.as_str() {
                "Issued" => issued += 1,
                "Defined" => stock = payload["Defined"]["stock"].as_i64().unwrap(),
                "StockChanged" => stock = payload["StockChanged"]["stock"].as_i64().unwrap(),
                other => panic!("nobody did {other}"),
            }
            assert!(issued <= stock, "{issued} of {stock} at position {}", event.position);
        }
        assert!(issued >= 10, "{issued} were issued");
        assert_eq!(issued, codes[&0] as i64);
        let row = format!("SELECT stock * 1000 + issued FROM stock_v1 WHERE definition_id = {definition}");
        assert_eq!(count(&world.home, &row).await, stock * 1000 + issued, "the counter and the log differ");
        close(world).await;
    }

    async fn of_100_parallel_requests_with_one_key_one_acts_and_all_answer_the_same(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let definition = world.define(json!({"is_claim": 1})).await;
        let id = world.issue(definition, 439).await;
        // One command on one stream, and one that tries another stream with every request.
        let commands = [
            ("/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1}), "Redeemed", 1),
            ("/client/claimcoupon", json!({"id": definition}), "Issued", 2),
        ];
        for (route, body, event, in_log) in commands {
            let request = |_| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.keyed(MEMBER, "the-one-key", route, body).await }
            };
            let replies = all_at_once((0..100).map(request)).await;
            for reply in &replies {
                reply.ok();
                assert_eq!(reply.body, replies[0].body, "{route}");
            }
            let acted = replies.iter().filter(|reply| !reply.replayed()).count();
            assert_eq!(acted, 1, "{route}: all but one are replays");
            assert_eq!(events(&world.home, event).await, in_log);
        }
        close(world).await;
    }
}

/// Claims, gives and redemptions go to both at once; some coupons are fought over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_on_one_postgres_work_side_by_side() {
    const CLAIMS: i64 = 200;
    const STOCK: i64 = 150;
    let home = Home::new(Engine::Postgres).await;
    let servers = [Server::start(&home, &[]).await, Server::start(&home, &[]).await];
    let apis = [Api::new(&home, &servers[0]), Api::new(&home, &servers[1])];
    let [first, second] = &apis;
    let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
    assert_eq!(first.operator("/shop/add", shop).await.ok()["id"], "1");
    second.operator("/member/add", json!({"id": 439})).await.ok();
    first.operator("/user/add", json!({"id": 1000, "name": "店員", "shop_id": 1})).await.ok();
    let offer = definition(json!({"is_claim": 1, "num": STOCK}));
    assert_eq!(second.operator("/elecoupons/add", offer).await.ok()["id"], 1);

    let claim = |number: i64| {
        let api = apis[(number % 2) as usize].clone();
        async move { (number % 2, api.call(MEMBER, "/client/claimcoupon", json!({"id": 1})).await) }
    };
    let claimed = all_at_once((0..CLAIMS).map(claim)).await;
    let codes = tally(claimed.iter().map(|(_, reply)| reply));
    assert_eq!(codes, BTreeMap::from([(0, STOCK as usize), (5001, (CLAIMS - STOCK) as usize)]));
    for server in 0..2 {
        let wins = claimed.iter().filter(|(by, reply)| *by == server && reply.code() == 0).count();
        // Each was asked 100 times and 150 were to be had.
        assert!(wins >= 50, "server {server} issued {wins}");
    }
    let ids: BTreeSet<i64> = claimed.iter().filter_map(|(_, reply)| reply.data()["id"].as_i64()).collect();
    assert_eq!(ids.len() as i64, STOCK, "two coupons have one id");

    // A third of the coupons is given on both, the rest redeemed on both: by the member here, an employee there.
    let ids: Vec<i64> = ids.into_iter().collect();
    let act = |number: usize| {
        let (id, by) = (ids[number / 2], number % 2);
        let api = apis[by].clone();
        async move {
            let reply = match (number / 2 % 3, by) {
                (0, _) => api.call(MEMBER, "/client/givecoupon", json!({"id": id})).await,
                (_, 0) => {
                    api.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await
                }
                _ => api.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": id})).await,
            };
            (by, reply)
        }
    };
    let acted = all_at_once((0..ids.len() * 2).map(act)).await;
    let mut redemptions = BTreeSet::new();
    for (number, pair) in acted.chunks(2).enumerate() {
        let replies = [&pair[0].1, &pair[1].1];
        if number % 3 == 0 {
            assert_eq!(replies[0].ok(), replies[1].ok(), "one gift, one code");
            continue;
        }
        assert_eq!(tally(replies), BTreeMap::from([(0, 1), (3001, 1)]), "coupon {}", ids[number]);
        let used =
            replies.into_iter().find(|reply| reply.code() == 0).unwrap().data()["id"].as_str().unwrap();
        let refused = replies.into_iter().find(|reply| reply.code() == 3001).unwrap();
        assert_eq!(refused.data()["id"].to_string(), used);
        assert!(redemptions.insert(used.to_owned()), "two redemptions have the id {used}");
    }
    assert_eq!(events(&home, "Issued").await, STOCK);
    assert_eq!(events(&home, "Given").await, STOCK / 3);
    assert_eq!(events(&home, "Redeemed").await, STOCK - STOCK / 3);
    assert_gapless(&home).await;
    for server in servers {
        server.kill().await;
    }
}
