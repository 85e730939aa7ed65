//! The sweep writes down what time alone has done: exactly once per coupon, and without changing an answer.

use std::collections::HashMap;

use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::coupon::{Coupon, CouponCommand, CouponEvent, Origin, Source};
use coupon_ledger::identity::Caller;
use coupon_ledger::lease;
use coupon_ledger::ledger::{Ledger, LedgerOptions, Meta};
use coupon_ledger::store;
use coupon_ledger::sweep::{SETTLED_AFTER_MS, release_lease, sweep};
use futures::StreamExt as _;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, NOON, World};

/// How often each event of a kind stands in the log, by coupon.
async fn events_of(world: &World, name: &str) -> HashMap<String, usize> {
    let mut found = HashMap::new();
    let mut position = 0;
    loop {
        let page = world.store().events_after(position, 1_000).await.unwrap();
        let Some(last) = page.last() else { return found };
        position = last.position;
        for event in page.iter().filter(|event| event.event_type == name) {
            *found.entry(event.aggregate_id.clone()).or_default() += 1;
        }
    }
}

/// Sweeps until there is nothing left to sweep.
async fn sweep_all(ledger: &Ledger) -> usize {
    let mut swept = 0;
    for _ in 0..100 {
        match sweep(ledger).await.unwrap() {
            0 => return swept,
            coupons => swept += coupons,
        }
    }
    panic!("the sweep finds the same work again and again");
}

/// Issues so many coupons at once.
async fn issue_many(world: &World, definition_id: i64, count: usize) -> Vec<i64> {
    let one = async |_| {
        let id = world.ledger.next_id("coupon", false).await.unwrap();
        let issue =
            CouponCommand::Issue { definition_id, member_id: 439, origin: Origin::of(Source::MassSend, 0) };
        let meta = Meta {
            caller: Caller::System,
            at: world.ledger.now(),
            request_id: "t".to_owned(),
            receipt: None,
            job_id: None,
        };
        world.ledger.execute::<Coupon>(id, &issue, &meta).await.unwrap();
        id
    };
    futures::stream::iter(0..count).map(one).buffer_unordered(64).collect().await
}

/// Everything that the two members can see without opening anything.
async fn answers(world: &World, ids: &[i64]) -> Vec<Value> {
    let mut answers = Vec::new();
    for caller in [MEMBER, FRIEND] {
        for state in 0..3 {
            let list = world.call(caller, "/client/couponlist", json!({"state": state, "limit": 100})).await;
            answers.push(list.body);
        }
        answers.push(world.call(caller, "/client/couponcount", json!({})).await.body);
        answers.push(world.call(caller, "/client/getauditcoupon", json!({})).await.body);
        for id in ids {
            let body = json!({"mem_coupon_id": id, "shop_id": 9});
            answers.push(world.call(caller, "/client/auditcoupon", body).await.body);
            answers.push(world.call(caller, "/client/withdrawcoupon", json!({"id": id})).await.body);
        }
    }
    answers
}

on_both_engines! {
    async fn a_process_that_ends_gives_its_own_lease_back_and_nobody_elses(engine: Engine) {
        let world = World::with_people(engine).await;
        sweep(&world.ledger).await.unwrap();
        let (own, other) = (lease::holder(), (lease::holder() + 1) % lease::HOLDERS);
        let until = (NOON + HOUR) / 1_000 * lease::HOLDERS;
        for (holder, left) in [(own, Vec::new()), (other, vec![(until + other).to_string()])] {
            let take = format!("INSERT INTO checkpoints VALUES (0, 'sweep lease', {})", until + holder);
            world.home.sql(&take).await.unwrap();
            release_lease(&world.ledger).await.unwrap();
            let value = world.home.sql("SELECT value FROM checkpoints WHERE name = 'sweep lease'").await.unwrap();
            assert_eq!(value, left);
        }
        world.close().await;
    }

    async fn a_lease_is_anothers_to_its_last_second_and_then_whoevers(engine: Engine) {
        let world = World::with_people(engine).await;
        let name = "nobodys lease";
        // Of another whose number ends like ours.
        let (own, other) = (lease::holder(), (lease::holder() + 1_000) % lease::HOLDERS);
        let end_s = NOON / 1_000 + 60;
        let take = format!("INSERT INTO checkpoints VALUES (0, '{name}', {})", end_s * lease::HOLDERS + other);
        world.home.sql(&take).await.unwrap();
        world.clock.set(end_s * 1_000 - 1);
        assert!(!lease::take(&world.ledger, name, 10_000).await.unwrap());
        lease::release(&world.ledger, name).await.unwrap();
        assert!(!lease::take(&world.ledger, name, 10_000).await.unwrap());
        world.advance(1);
        for _ in 0..2 {
            assert!(lease::take(&world.ledger, name, 10_000).await.unwrap());
        }
        let value = world.home.sql("SELECT value FROM checkpoints WHERE name LIKE 'nobody%'").await.unwrap();
        assert_eq!(value, [((end_s + 10) * lease::HOLDERS + own).to_string()]);
        world.close().await;
    }

    async fn a_passed_end_is_written_once_however_often_it_is_swept(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let id = world.issue(definition, 439).await;
        assert_eq!(sweep_all(&world.ledger).await, 0);
        // Its end is the next midnight, twelve hours from noon; a moment later nothing may be under way any more.
        world.advance(12 * HOUR + SETTLED_AFTER_MS - 1);
        assert_eq!(sweep_all(&world.ledger).await, 0);
        world.advance(1);
        assert_eq!(sweep_all(&world.ledger).await, 1);
        world.advance(DAY);
        assert_eq!(sweep_all(&world.ledger).await, 0);
        assert_eq!(events_of(&world, "Expired").await, HashMap::from([(id.to_string(), 1)]));
        world.close().await;
    }

    async fn the_sweep_changes_no_answer(engine: Engine) {
        let world = World::with_people(engine).await;
        let short = world.define(json!({"end_num": "1"})).await;
        let long = world.define(json!({})).await;
        let mut ids = Vec::new();
        for definition in [short, long, short, long, short, long] {
            ids.push(world.issue(definition, 439).await);
        }
        // 0 and 1 stay in hand, 2 and 3 are given, 4 and 5 are used.
        world.give(MEMBER, ids[2]).await;
        world.give(MEMBER, ids[3]).await;
        for id in &ids[4..] {
            world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        }
        for id in &ids {
            world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
        }
        world.advance(2 * DAY);
        let before = answers(&world, &ids).await;
        assert_eq!(sweep_all(&world.ledger).await, 3);
        assert_eq!(answers(&world, &ids).await, before);
        let once = |ids: &[i64]| ids.iter().map(|id| (id.to_string(), 1)).collect::<HashMap<_, _>>();
        assert_eq!(events_of(&world, "Expired").await, once(&[ids[0], ids[2]]));
        assert_eq!(events_of(&world, "GiftLapsed").await, once(&[ids[2], ids[3]]));
        world.close().await;
    }

    async fn a_coupon_reversed_after_its_end_expires_with_the_reversal(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let id = world.issue(definition, 439).await;
        world.advance(6 * HOUR);
        let used = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await;
        let redemption: i64 = used.ok()["id"].as_str().unwrap().parse().unwrap();
        world.advance(7 * HOUR);
        assert_eq!(sweep_all(&world.ledger).await, 0, "a used coupon does not expire");
        let back = json!({"id": redemption, "reason": "按錯"});
        world.call(EMPLOYEE, "/user/reverseelecoupon", back).await.ok();
        let last: Vec<String> = world.store().events_after(0, 1_000).await.unwrap().into_iter()
            .rev().take(2).map(|event| event.event_type).collect();
        assert_eq!(last, ["Expired", "RedemptionReversed"]);
        assert_eq!(sweep_all(&world.ledger).await, 0);
        assert_eq!(events_of(&world, "Expired").await, HashMap::from([(id.to_string(), 1)]));
        let expired = world.call(MEMBER, "/client/couponlist", json!({"state": 2})).await;
        assert_eq!(expired.ok()[0]["id"], id);
        world.close().await;
    }

    async fn two_thousand_coupons_that_end_on_one_day_each_expire_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let ids = issue_many(&world, definition, 2_000).await;
        world.advance(DAY);
        assert_eq!(sweep_all(&world.ledger).await, 2_000);
        let expected: HashMap<_, _> = ids.iter().map(|id| (id.to_string(), 1)).collect();
        assert_eq!(events_of(&world, "Expired").await, expected);
        let count = world.call(MEMBER, "/client/couponcount", json!({})).await;
        assert_eq!(count.ok(), &json!({"unused": 0, "used": 0, "expired": 2_000}));
        world.close().await;
    }

    async fn a_gift_that_lapsed_and_is_given_again_has_a_new_code(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let (swept, unswept) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let first = [world.give(MEMBER, swept).await, world.give(MEMBER, unswept).await];
        world.advance(DAY);
        let id = swept;
        world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": first[0]})).await;
        // One is given again behind the sweep, the other before it: the lapse is written either way, once.
        let second_unswept = world.give(MEMBER, unswept).await;
        assert_eq!(sweep_all(&world.ledger).await, 1);
        let second = [world.give(MEMBER, swept).await, second_unswept];
        for (id, first, second) in [(swept, first[0], second[0]), (unswept, first[1], second[1])] {
            assert_ne!(first, second);
            let old = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": first})).await;
            assert_eq!((old.code(), old.data()), (7001, &json!({"attempts_left": 4})));
            world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": second})).await.ok();
        }
        let once = HashMap::from([(swept.to_string(), 1), (unswept.to_string(), 1)]);
        assert_eq!(events_of(&world, "GiftLapsed").await, once);
        world.close().await;
    }

    /// What cannot be swept today is not given up: the checkpoint does not pass it.
    async fn a_coupon_that_could_not_be_swept_is_swept_when_it_can_be(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let (broken, whole) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        crate::log::without_guards(&world.home).await;
        let set = async |version: &str| {
            let stream = format!("aggregate_type = 'coupon' AND aggregate_id = '{broken}'");
            let sql = format!("UPDATE events SET event_version = '{version}' WHERE {stream}");
            world.home.sql(&sql).await.unwrap();
        };
        set("0.9").await;
        world.advance(DAY);
        assert_eq!(sweep_all(&world.ledger).await, 1);
        set("1.0").await;
        world.advance(HOUR);
        assert_eq!(sweep_all(&world.ledger).await, 1);
        let once = HashMap::from([(broken.to_string(), 1), (whole.to_string(), 1)]);
        assert_eq!(events_of(&world, "Expired").await, once);
        world.close().await;
    }
}

/// Two processes on one PostgreSQL sweep the same coupons at once: each event is written once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_ledgers_that_sweep_at_once_write_everything_once() {
    let world = World::with_people(Engine::Postgres).await;
    let definition = world.define(json!({"end_num": "1"})).await;
    let lasting = world.define(json!({})).await;
    let ended = issue_many(&world, definition, 300).await;
    let given = issue_many(&world, lasting, 100).await;
    for id in &given {
        world.give(MEMBER, *id).await;
    }
    world.advance(2 * DAY);
    let options = world.home.store_options(&world.secrets, world.clock.now_ms());
    let second = Ledger::start(LedgerOptions {
        store: store::open(&options).await.unwrap(),
        secrets: world.secrets.clone(),
        seal: world.ledger.seal().clone(),
        zone: Zone::default(),
        clock: Clock::manual(world.clock.now_ms()),
        capacity: 4_096,
    });
    let (mine, theirs) = tokio::join!(sweep(&world.ledger), sweep(&second));
    let (mine, theirs) = (mine.unwrap(), theirs.unwrap());
    let left = sweep_all(&world.ledger).await;
    assert_eq!(mine + theirs + left, 400, "{mine} + {theirs} + {left}");
    let once = |ids: &[i64]| ids.iter().map(|id| (id.to_string(), 1)).collect::<HashMap<_, _>>();
    assert_eq!(events_of(&world, "Expired").await, once(&ended));
    assert_eq!(events_of(&world, "GiftLapsed").await, once(&given));
    // The settling command is harmless by itself, too.
    let meta = Meta {
        caller: Caller::System,
        at: second.now(),
        request_id: "t".to_owned(),
        receipt: None,
        job_id: None,
    };
    let again = second.execute::<Coupon>(ended[0], &CouponCommand::Settle, &meta).await.unwrap();
    assert_eq!(again.events, Vec::<CouponEvent>::new());
    second.store().close().await;
    world.close().await;
}
