//! The inbox: every member is told once of every reason, however the log is cut, whatever is killed and whoever works on it.

use std::time::Duration;

use chrono_tz::Tz;
use coupon_ledger::clock::Zone;
use coupon_ledger::followers::{self, Order};
use coupon_ledger::granting::{grant_birthdays, grant_levels};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{Ledger, LedgerOptions};
use coupon_ledger::messages::{KEEP_READ_MS, KEEP_UNREAD_MS, follow, follow_by, forget, remind};
use coupon_ledger::store;
use coupon_ledger::sweep::sweep;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::harness::{DAY, Engine, FRIEND, HOUR, Home, INSERT_MEMBERS, MEMBER, NOON, World};
use crate::jobs::run_all;
use crate::outside::count;

/// Follows the log to its end; how many reasons there were to tell somebody something.
pub async fn tell(ledger: &Ledger) -> usize {
    let mut messages = 0;
    loop {
        let followed = follow(ledger, false).await.unwrap();
        messages += followed.messages;
        if !followed.more {
            return messages;
        }
    }
}

/// The whole table, in the order in which it was written.
async fn table(home: &Home) -> Vec<String> {
    let sql = "SELECT member_id || ' ' || kind || ' ' || subject_id || ' ' || part || ' ' || coupon_id || ' ' || other_id
                      || ' ' || created_at_ms || ' ' || read_at_ms || ' ' || next_try_at_ms || ' ' || handed_at_ms
               FROM messages ORDER BY message_id";
    home.sql(sql).await.unwrap()
}

/// (member, kind, subject, part) of every message, in order.
async fn reasons(home: &Home) -> Vec<(i64, i64, i64, i64)> {
    let reason = |row: &String| {
        let numbers: Vec<i64> = row.split(' ').map(|number| number.parse().unwrap()).collect();
        (numbers[0], numbers[1], numbers[2], numbers[3])
    };
    table(home).await.iter().map(reason).collect()
}

async fn messages(world: &World, member: Caller) -> Value {
    world.call(member, "/client/messages", json!({})).await.ok().clone()
}

/// The types of a member's messages, newest first.
async fn types(world: &World, member: Caller) -> Vec<i64> {
    let messages = messages(world, member).await;
    messages["messages"].as_array().unwrap().iter().map(|one| one["type"].as_i64().unwrap()).collect()
}

/// So many members from 1000 on, past the API: it adds one at a time.
async fn add_members(home: &Home, count: i64) {
    let member = |id: i64| format!("({id}, '', '', '', '', '', 0, 5, 0, 0, 0)");
    let members: Vec<String> = (1000..1000 + count).map(member).collect();
    home.sql(&format!("{INSERT_MEMBERS} {}", members.join(", "))).await.unwrap();
}

async fn send(world: &World, body: Value) -> i64 {
    let id = world.operator("/sendelecoupon/add", body).await.ok()["id"].as_i64().unwrap();
    run_all(world).await;
    id
}

/// A gift from hand to hand.
async fn hand_on(world: &World, id: i64, giver: Caller, receiver: Caller) {
    let code = world.give(giver, id).await;
    world.call(receiver, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
}

/// Everything that somebody is told of, and much that nobody is.
async fn history(world: &World) {
    add_members(&world.home, 40).await;
    let definition = world.define(json!({})).await;
    for (notify, shop) in [(1, 5), (0, 5), (1, 0)] {
        let body = json!({"coupon_id": definition, "is_all_send": notify, "shop_ids": shop, "confirm": 1});
        send(world, body).await;
    }
    let (there_and_back, lapsing, withdrawn) = (
        world.issue(definition, 439).await,
        world.issue(definition, 439).await,
        world.issue(definition, 442).await,
    );
    hand_on(world, there_and_back, MEMBER, FRIEND).await;
    hand_on(world, there_and_back, FRIEND, MEMBER).await;
    world.give(FRIEND, withdrawn).await;
    world.call(FRIEND, "/client/withdrawcoupon", json!({"id": withdrawn})).await.ok();
    for _ in 0..2 {
        world.give(MEMBER, lapsing).await;
        world.advance(DAY + HOUR);
        sweep(&world.ledger).await.unwrap();
    }
    // Given again before the sweep has seen the lapse: the lapse is written with it.
    world.give(MEMBER, lapsing).await;
    world.advance(DAY);
    hand_on(world, lapsing, MEMBER, FRIEND).await;
    let gift = json!({"coupon_ids": [{"id": definition, "num": 2}]});
    world.operator("/birthdaycoupon/set", gift).await.ok();
    world.operator("/memberelecoupon/add", json!({"level_id": 1, "coupon_id": [definition]})).await.ok();
    let born = world.ledger.now().day.format("1990-%m-%d").to_string();
    world.operator("/member/add", json!({"id": 500, "level_id": 1, "birthday": born})).await.ok();
    assert_eq!(grant_levels(&world.ledger).await.unwrap(), 1);
    assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(2));
    let claimed = world.define(json!({"is_claim": 1})).await;
    world.call(MEMBER, "/client/claimcoupon", json!({"id": claimed})).await.ok();
}

/// Another server on the same ledger.
async fn beside(world: &World) -> Ledger {
    let options = world.home.store_options(&world.secrets, world.clock.now_ms());
    Ledger::start(LedgerOptions {
        store: store::open(&options).await.unwrap(),
        secrets: world.secrets.clone(),
        seal: world.ledger.seal().clone(),
        zone: world.ledger.zone(),
        clock: world.clock.clone(),
        capacity: 4_096,
    })
}

const BEGIN_ANEW: [&str; 2] = ["DELETE FROM messages", "DELETE FROM checkpoints WHERE name = 'messages'"];

on_both_engines! {
    async fn a_giver_is_told_who_received_his_gift_and_the_receiver_is_not_told_what_he_did(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        hand_on(&world, id, MEMBER, FRIEND).await;
        assert_eq!(tell(&world.ledger).await, 1);
        let told = json!({"unread": 1, "messages": [{
            "id": 1, "type": 2, "title": "贈送的電子券已被領取", "content": "黃明波已領取您贈送的電子券「十元券」。",
            "create_date": NOON / 1000, "is_read": 0, "mem_coupon_id": id, "coupon_id": definition,
            "coupon_title": "十元券", "send_id": 0,
        }]});
        assert_eq!(messages(&world, MEMBER).await, told);
        assert_eq!(messages(&world, FRIEND).await, json!({"unread": 0, "messages": []}));
        let bearer = format!("Bearer {}", world.token(MEMBER));
        for (language, title, content) in [
            ("zh-CN", "赠送的电子券已被领取", "黃明波已领取您赠送的电子券「十元券」。"),
            ("en", "Your gift was received", "黃明波 has received the coupon “十元券” that you gave."),
        ] {
            let headers = [("authorization", bearer.as_str()), ("accept-language", language)];
            let reply = world.request("/client/messages", &headers, "{}").await;
            let message = &reply.ok()["messages"][0];
            assert_eq!((&message["title"], &message["content"]), (&json!(title), &json!(content)));
        }
        world.close().await;
    }

    async fn a_gift_that_nobody_received_came_back_once_for_each_time_it_was_given(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        for gift in 1..=2 {
            world.give(MEMBER, id).await;
            world.advance(DAY);
            assert_eq!(tell(&world.ledger).await, 0, "the lapse is told when it is written");
            sweep(&world.ledger).await.unwrap();
            assert_eq!(tell(&world.ledger).await, 1);
            assert_eq!(reasons(&world.home).await.last(), Some(&(439, 3, id, gift)));
        }
        let newest = &messages(&world, MEMBER).await["messages"][0];
        assert_eq!(newest["title"], "贈送的電子券已退回");
        assert_eq!(newest["content"], "您贈送的電子券「十元券」逾時無人領取，已退回給您，有效期至2026-12-22。");
        world.close().await;
    }

    /// More than a range, and more than a chunk.
    async fn a_send_tells_each_of_its_3000_members_once_and_nobody_who_was_refused(engine: Engine) {
        let world = World::empty(engine).await;
        add_members(&world.home, 3_000).await;
        let definition = world.define(json!({"get_limit_type": 2, "get_limit": 1})).await;
        for refused in [1000, 1500] {
            world.issue(definition, refused).await;
        }
        let silent = world.define(json!({})).await;
        send(&world, json!({"coupon_id": silent})).await;
        let loud = send(&world, json!({"coupon_id": definition, "is_all_send": 1})).await;
        assert_eq!(tell(&world.ledger).await, 2_998);
        let told: Vec<_> = (1000..4000).filter(|id| ![1000, 1500].contains(id)).map(|id| (id, 1, loud, 0)).collect();
        assert_eq!(reasons(&world.home).await, told);
        assert_eq!(count(&world.home, "SELECT count(DISTINCT message_id) FROM messages").await, 2_998);
        let newest = messages(&world, Caller::Member(3_999)).await;
        let message = &newest["messages"][0];
        assert_eq!(message["content"], "您收到電子券「十元券」，有效期至2026-12-22。");
        assert_eq!((&message["send_id"], &newest["unread"]), (&json!(loud), &json!(1)));
        let held = world.call(Caller::Member(3_999), "/client/couponinfo", json!({"id": message["mem_coupon_id"]})).await;
        assert_eq!(held.ok()["coupon_id"], definition);
        world.close().await;
    }

    async fn what_comes_by_itself_is_told_and_what_one_does_or_is_handed_is_not(engine: Engine) {
        let world = World::with_people(engine).await;
        history(&world).await;
        tell(&world.ledger).await;
        assert_eq!(types(&world, Caller::Member(500)).await, [5, 5, 6]);
        assert_eq!(types(&world, MEMBER).await, [2, 3, 3, 3, 2, 1]);
        assert_eq!(types(&world, FRIEND).await, [2, 1]);
        let his = messages(&world, Caller::Member(500)).await;
        assert!(his["messages"][0]["content"].as_str().unwrap().starts_with("祝您生日快樂！送您電子券「十元券」"));
        assert!(his["messages"][2]["content"].as_str().unwrap().starts_with("您已升至新的會員等級，送您電子券「十元券」"));
        world.close().await;
    }

    async fn however_the_log_is_cut_the_inbox_is_the_same(engine: Engine) {
        let world = World::with_people(engine).await;
        history(&world).await;
        tell(&world.ledger).await;
        let whole = table(&world.home).await;
        assert!(whole.len() > 80, "{whole:?}");
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        for most in [1, 2, 9, 60] {
            world.home.sql_all(&BEGIN_ANEW.map(ToOwned::to_owned)).await.unwrap();
            while follow_by(&world.ledger, false, random.random_range(1..=most)).await.unwrap().events > 0 {}
            assert_eq!(table(&world.home).await, whole, "in ranges of up to {most} reads");
        }
        world.close().await;
    }

    /// Several that work on it at once, any of which may be gone at any moment.
    async fn whoever_works_on_it_and_is_killed_the_inbox_is_the_same(engine: Engine) {
        let world = World::with_people(engine).await;
        history(&world).await;
        tell(&world.ledger).await;
        let whole = table(&world.home).await;
        world.home.sql_all(&BEGIN_ANEW.map(ToOwned::to_owned)).await.unwrap();
        let mut ledgers = vec![world.ledger.clone(), world.ledger.clone()];
        if engine == Engine::Postgres {
            ledgers.push(beside(&world).await);
        }
        let head = count(&world.home, "SELECT position FROM log_head").await;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        loop {
            let working = ledgers.iter().map(|ledger| {
                let (ledger, page) = (ledger.clone(), random.random_range(1..4));
                tokio::spawn(async move { follow_by(&ledger, false, page).await.unwrap() })
            });
            let working: Vec<_> = working.collect();
            for work in working {
                if random.random_bool(0.3) {
                    work.abort();
                } else {
                    work.await.unwrap();
                }
            }
            if count(&world.home, "SELECT COALESCE(MAX(value), 0) FROM checkpoints WHERE name = 'messages'").await == head {
                break;
            }
        }
        assert_eq!(table(&world.home).await, whole);
        for ledger in &ledgers[2..] {
            ledger.store().close().await;
        }
        world.close().await;
    }

    async fn a_follower_that_begins_anew_tells_nobody_twice_and_keeps_what_was_read(engine: Engine) {
        let world = World::with_people(engine).await;
        history(&world).await;
        tell(&world.ledger).await;
        remind(&world.ledger, 40, false).await.unwrap();
        world.call(MEMBER, "/client/readmessage", json!({"all": 1})).await.ok();
        let before = table(&world.home).await;
        for follower in ["messages", "reminders"] {
            followers::order(&world.ledger, follower, Order::Reset).await.unwrap();
        }
        assert!(tell(&world.ledger).await > 80);
        assert_eq!(remind(&world.ledger, 40, false).await.unwrap(), Some(0));
        assert_eq!(table(&world.home).await, before);
        assert_eq!(messages(&world, MEMBER).await["unread"], 0);
        world.close().await;
    }

    async fn a_paused_follower_tells_nobody_until_it_is_resumed(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": 2})).await;
        let id = world.issue(definition, 439).await;
        for follower in ["messages", "reminders"] {
            followers::order(&world.ledger, follower, Order::Pause).await.unwrap();
        }
        hand_on(&world, id, MEMBER, FRIEND).await;
        assert_eq!(tell(&world.ledger).await, 0);
        assert_eq!(remind(&world.ledger, 3, false).await.unwrap(), None);
        for follower in ["messages", "reminders"] {
            followers::order(&world.ledger, follower, Order::Resume).await.unwrap();
        }
        assert_eq!(tell(&world.ledger).await, 1);
        assert_eq!(remind(&world.ledger, 3, false).await.unwrap(), Some(1));
        world.close().await;
    }

    async fn an_event_that_cannot_be_read_or_is_missing_stops_it_and_is_not_skipped(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let (first, second) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        hand_on(&world, first, MEMBER, FRIEND).await;
        crate::log::without_guards(&world.home).await;
        let set = async |version: &str| {
            let stream = format!("aggregate_type = 'coupon' AND aggregate_id = '{second}'");
            world.home.sql(&format!("UPDATE events SET event_version = '{version}' WHERE {stream}")).await.unwrap();
        };
        set("0.9").await;
        let why = follow(&world.ledger, false).await.unwrap_err().to_string();
        assert!(why.contains(&format!("stream coupon {second} event 1 (Issued 0.9)")), "{why}");
        assert_eq!((table(&world.home).await.len(), checkpoint(&world).await), (0, 0));
        set("1.0").await;
        assert_eq!(tell(&world.ledger).await, 1);
        let (until, id) = (checkpoint(&world).await, world.issue(definition, 439).await);
        hand_on(&world, id, MEMBER, FRIEND).await;
        world.home.sql(&format!("DELETE FROM events WHERE position = {}", until + 1)).await.unwrap();
        let why = follow(&world.ledger, false).await.unwrap_err().to_string();
        assert_eq!(why, format!("events, column position: {} is missing", until + 1));
        assert_eq!((table(&world.home).await.len(), checkpoint(&world).await), (1, until));
        world.close().await;
    }

    /// Each local day, what is in hand and ends within so many days.
    async fn a_coupon_that_ends_soon_is_told_of_once_for_each_end_from_the_first_moment_of_the_day_on(engine: Engine) {
        let world = World::with_people(engine).await;
        let of_days = async |days: i64| world.define(json!({"end_num": days})).await;
        // Today is the 23rd: these end on the 26th and the 27th.
        let (in_three, in_four) = (of_days(4).await, of_days(5).await);
        let soon = world.issue(in_three, 439).await;
        let later = world.issue(in_four, 439).await;
        let [used, voided, given_away] =
            [world.issue(in_four, 439).await, world.issue(in_four, 439).await, world.issue(in_four, 439).await];
        let told = async || remind(&world.ledger, 3, false).await.unwrap();
        assert_eq!(remind(&world.ledger, 0, false).await.unwrap(), Some(0), "0 days tell nobody");
        assert_eq!((told().await, told().await), (Some(1), Some(0)));
        assert_eq!(reasons(&world.home).await, [(439, 4, soon, 20_261_126)]);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": used, "shop_id": 1})).await.ok();
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": voided, "reason": "發錯"})).await.ok();
        world.advance(12 * HOUR - 1);
        assert_eq!(told().await, Some(0), "still the 23rd");
        world.advance(1);
        assert_eq!(told().await, Some(2));
        hand_on(&world, given_away, MEMBER, FRIEND).await;
        assert_eq!(told().await, Some(0), "once a day");
        world.advance(DAY);
        assert_eq!(told().await, Some(1), "who received it is told the day after");
        let extend = json!({"coupon_id": in_three, "end_date": "2026-12-24", "reason": "延期", "confirm": 1});
        world.operator("/elecoupons/extend", extend).await.ok();
        run_all(&world).await;
        // Nobody was there for weeks; the new end comes within the last days, the others have passed.
        world.clock.set(NOON + 30 * DAY);
        assert_eq!(told().await, Some(1));
        let expected = [
            (439, 4, soon, 20_261_126),
            (439, 4, later, 20_261_127),
            (439, 4, given_away, 20_261_127),
            (442, 4, given_away, 20_261_127),
            (439, 4, soon, 20_261_224),
        ];
        assert_eq!(reasons(&world.home).await, expected);
        let newest = &messages(&world, MEMBER).await["messages"][0];
        assert_eq!(newest["content"], "您的電子券「十元券」將於2026-12-24到期，請盡快使用。");
        world.close().await;
    }

    /// A day has 23 hours, another one no midnight; what counts is the calendar.
    async fn days_before_an_end_are_the_calendars_where_clocks_are_moved(engine: Engine) {
        for (zone, last_ms) in [
            // 2026-03-27 23:59:59.999, of an end on the 29th with its 23 hours.
            (Tz::Europe__Berlin, 1_774_652_399_999),
            // The same; the 29th begins at 01:00 there.
            (Tz::Asia__Beirut, 1_774_648_799_999),
        ] {
            let world = World::at(engine, last_ms, Zone(zone)).await;
            world.add_people().await;
            let fixed = |end: &str| json!({"validity_type": 1, "start_num": "2026-03-01", "end_num": end});
            let on_the_day = world.define(fixed("2026-03-29")).await;
            let day_after = world.define(fixed("2026-03-30")).await;
            let (first, second) = (world.issue(on_the_day, 439).await, world.issue(day_after, 439).await);
            let told = async || remind(&world.ledger, 1, false).await.unwrap();
            assert_eq!(told().await, Some(0), "{zone}: two days before");
            world.advance(1);
            assert_eq!(told().await, Some(1), "{zone}: the day before has begun");
            world.advance(DAY - 1);
            assert_eq!(told().await, Some(0), "{zone}: the last moment before it is moved");
            world.advance(1);
            assert_eq!(told().await, Some(1), "{zone}: the day of 23 hours has begun");
            world.advance(23 * HOUR - 1);
            assert_eq!(told().await, Some(0));
            assert_eq!(reasons(&world.home).await, [(439, 4, first, 20_260_329), (439, 4, second, 20_260_330)]);
            world.close().await;
        }
    }

    async fn a_thousand_coupons_that_end_soon_are_told_of_in_pieces_and_after_a_kill(engine: Engine) {
        let world = World::empty(engine).await;
        add_members(&world.home, 1_000).await;
        let definition = world.define(json!({"end_num": 3})).await;
        send(&world, json!({"coupon_id": definition})).await;
        let half_done = tokio::time::timeout(Duration::from_millis(15), remind(&world.ledger, 3, false)).await;
        println!("cut short: {}", half_done.is_err());
        // Whoever was killed has not said that the day is done with.
        while half_done.is_err() && remind(&world.ledger, 3, false).await.unwrap().is_none() {}
        let expected: Vec<_> = (1000..2000).map(|id| (id, 4)).collect();
        let mut told: Vec<_> = reasons(&world.home).await.into_iter().map(|(id, kind, ..)| (id, kind)).collect();
        told.sort_unstable();
        assert_eq!(told, expected);
        world.close().await;
    }

    async fn what_was_read_stays_read_whoever_asks_again_and_nobody_reads_for_another(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        for _ in 0..12 {
            let id = world.issue(definition, 439).await;
            hand_on(&world, id, MEMBER, FRIEND).await;
        }
        tell(&world.ledger).await;
        let ids = async |body: Value| -> (i64, Vec<i64>) {
            let reply = world.call(MEMBER, "/client/messages", body).await;
            let rows = reply.ok()["messages"].as_array().unwrap().clone();
            (reply.ok()["unread"].as_i64().unwrap(), rows.iter().map(|row| row["id"].as_i64().unwrap()).collect())
        };
        assert_eq!(ids(json!({})).await, (12, (3..=12).rev().collect()));
        assert_eq!(ids(json!({"page": 2})).await, (12, vec![2, 1]));
        assert_eq!(ids(json!({"page": 3})).await, (12, vec![]));
        assert_eq!(ids(json!({"before_id": 4, "limit": 2})).await, (12, vec![3, 2]));
        let read = async |caller: Caller, body: Value| world.call(caller, "/client/readmessage", body).await.ok().clone();
        assert_eq!(read(MEMBER, json!({"id": 5})).await, json!({"id": 5}));
        assert_eq!(ids(json!({"unread": 1, "limit": 100})).await, (11, vec![12, 11, 10, 9, 8, 7, 6, 4, 3, 2, 1]));
        for (caller, body) in [(FRIEND, json!({"id": 6})), (MEMBER, json!({"id": 999})), (MEMBER, json!({"id": 5}))] {
            assert_eq!(read(caller, body.clone()).await, body);
        }
        assert_eq!(read(FRIEND, json!({"all": 1})).await, json!({"id": 0}), "he has none");
        assert_eq!(ids(json!({"limit": 1})).await, (11, vec![12]));
        assert_eq!(read(MEMBER, json!({"id": 10, "all": 1})).await, json!({"id": 10}));
        assert_eq!(ids(json!({"unread": 1})).await, (2, vec![12, 11]));
        let key = async |body: Value| world.keyed(MEMBER, "read-all-1", "/client/readmessage", body).await;
        let first = key(json!({"all": 1})).await;
        assert_eq!((first.ok(), first.replayed()), (&json!({"id": 12}), false));
        let id = world.issue(definition, 439).await;
        hand_on(&world, id, MEMBER, FRIEND).await;
        tell(&world.ledger).await;
        let again = key(json!({"all": 1})).await;
        assert_eq!((again.ok(), again.replayed()), (&json!({"id": 12}), true), "what came since is not read by a replay");
        assert_eq!(ids(json!({"unread": 1})).await, (1, vec![13]));
        assert_eq!(key(json!({"id": 13})).await.code(), 6001);
        world.close().await;
    }

    async fn bad_input_is_told_field_by_field(engine: Engine) {
        let world = World::with_people(engine).await;
        for (route, body, field) in [
            ("/client/messages", json!({"page": 0}), "page"),
            ("/client/messages", json!({"limit": 101}), "limit"),
            ("/client/messages", json!({"limit": "ten"}), "limit"),
            ("/client/messages", json!({"page": 1, "before_id": 2}), "before_id"),
            ("/client/messages", json!({"unread": 2}), "unread"),
            ("/client/messages", json!({"before_id": 9_007_199_254_740_992_i64}), "before_id"),
            ("/client/readmessage", json!({}), "id"),
            ("/client/readmessage", json!({"all": 0}), "id"),
            ("/client/readmessage", json!({"id": 0}), "id"),
            ("/client/readmessage", json!({"id": [1]}), "id"),
            ("/client/readmessage", json!({"id": 1, "all": "yes"}), "all"),
        ] {
            let reply = world.call(MEMBER, route, body.clone()).await;
            let wrong: Vec<_> = reply.body["info"].as_object().map(|info| info.keys().cloned().collect()).unwrap_or_default();
            assert_eq!((reply.code(), wrong), (401, vec![field.to_owned()]), "{route} {body}");
        }
        world.close().await;
    }

    async fn what_was_read_goes_after_90_days_and_the_rest_after_a_year_and_neither_comes_back(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": 3_000})).await;
        for _ in 0..2 {
            let id = world.issue(definition, 439).await;
            hand_on(&world, id, MEMBER, FRIEND).await;
        }
        tell(&world.ledger).await;
        world.call(MEMBER, "/client/readmessage", json!({"id": 1})).await.ok();
        let left = async |at_ms: i64| {
            world.clock.set(at_ms);
            forget(world.store(), at_ms).await.unwrap();
            followers::order(&world.ledger, "messages", Order::Reset).await.unwrap();
            tell(&world.ledger).await;
            messages(&world, MEMBER).await["messages"].as_array().unwrap().len()
        };
        assert_eq!(left(NOON + KEEP_READ_MS).await, 2);
        assert_eq!(left(NOON + KEEP_READ_MS + 1).await, 1);
        assert_eq!(left(NOON + KEEP_UNREAD_MS).await, 1);
        assert_eq!(left(NOON + KEEP_UNREAD_MS + 1).await, 0);
        world.close().await;
    }

    async fn what_goes_goes_in_pieces(engine: Engine) {
        let world = World::with_people(engine).await;
        let row = |id: i64| format!("(0, 439, 2, {id}, 1, {id}, {id}, 442, {id}, 1, 0, 0, 0)");
        let rows: Vec<String> = (1..=1_200).map(row).collect();
        world.home.sql(&format!("INSERT INTO messages VALUES {}", rows.join(", "))).await.unwrap();
        let mut gone = Vec::new();
        loop {
            let (count, more) = forget(world.store(), NOON).await.unwrap();
            gone.push(count);
            if !more {
                break;
            }
        }
        assert_eq!(gone, [500, 500, 200]);
        world.close().await;
    }

    async fn whoever_is_erased_has_no_messages_and_is_told_nothing_any_more(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": 2})).await;
        let (told, late) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        hand_on(&world, told, MEMBER, FRIEND).await;
        tell(&world.ledger).await;
        hand_on(&world, late, MEMBER, FRIEND).await;
        let id = world.issue(definition, 439).await;
        world.give(MEMBER, id).await;
        assert_eq!(table(&world.home).await.len(), 1);
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        assert_eq!(table(&world.home).await, Vec::<String>::new());
        // Its gift was received before he was erased, another one of his lapses after it, and one ends soon.
        world.advance(DAY);
        sweep(&world.ledger).await.unwrap();
        tell(&world.ledger).await;
        remind(&world.ledger, 3, false).await.unwrap();
        let told: Vec<_> = reasons(&world.home).await.into_iter().map(|(member, kind, ..)| (member, kind)).collect();
        assert_eq!(told, [(442, 4), (442, 4)]);
        // One that was being written at that moment.
        world.home.sql("INSERT INTO messages VALUES (0, 439, 1, 7, 0, 900, 7, 0, 1, 0, 0, 0, 0)").await.unwrap();
        assert_eq!(forget(world.store(), world.clock.now_ms()).await.unwrap(), (1, false));
        // Whose name is gone is named to nobody.
        world.operator("/member/erase", json!({"id": 442, "reason": "會員要求"})).await.ok();
        world.close().await;
    }

    async fn who_received_a_gift_and_was_erased_is_not_named(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        hand_on(&world, id, MEMBER, FRIEND).await;
        tell(&world.ledger).await;
        world.operator("/member/erase", json!({"id": 442, "reason": "會員要求"})).await.ok();
        assert_eq!(messages(&world, MEMBER).await["messages"][0]["content"], "對方已領取您贈送的電子券「十元券」。");
        world.close().await;
    }

    /// What the migration does where there is a history already.
    async fn what_happened_before_there_were_messages_is_told_to_nobody(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        hand_on(&world, id, MEMBER, FRIEND).await;
        let migration = include_str!("../../migrations/0018_messages.sql");
        let notes = migration.split_once("INSERT INTO ledger_facts").unwrap().1;
        world.home.sql_all(&[format!("INSERT INTO ledger_facts{}", notes.trim_end().trim_end_matches(';'))]).await.unwrap();
        let head = count(&world.home, "SELECT position FROM log_head").await;
        assert_eq!(checkpoint(&world).await, head);
        for _ in 0..2 {
            assert_eq!(tell(&world.ledger).await, 0);
            followers::order(&world.ledger, "messages", Order::Reset).await.unwrap();
        }
        hand_on(&world, id, FRIEND, MEMBER).await;
        assert_eq!(tell(&world.ledger).await, 1);
        assert_eq!(reasons(&world.home).await, [(442, 2, id, 2)]);
        world.close().await;
    }
}

async fn checkpoint(world: &World) -> i64 {
    count(&world.home, "SELECT COALESCE(MAX(value), 0) FROM checkpoints WHERE name = 'messages'").await
}

/// Two servers that remind at once write each reason once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_that_remind_at_once_tell_everybody_once() {
    let world = World::empty(Engine::Postgres).await;
    add_members(&world.home, 900).await;
    let definition = world.define(json!({"end_num": 3})).await;
    send(&world, json!({"coupon_id": definition})).await;
    let second = beside(&world).await;
    let take_away = "DELETE FROM checkpoints WHERE name LIKE '% lease'";
    let both = async |ledger: &Ledger| {
        while remind(ledger, 3, false).await.unwrap().is_none() {
            world.home.sql(take_away).await.unwrap();
        }
    };
    tokio::join!(both(&world.ledger), both(&second));
    let mut told: Vec<_> = reasons(&world.home).await.into_iter().map(|(id, ..)| id).collect();
    told.sort_unstable();
    assert_eq!(told, (1000..1900).collect::<Vec<_>>());
    second.store().close().await;
    world.close().await;
}
