//! Midnight, month end, leap day, and zones whose days have 23 or 25 hours or no midnight.
//!
//! Instants are written in UTC, so that the program's own calendar is not what it is measured by.

use chrono::DateTime;
use chrono_tz::{America, Asia, Europe, Tz};
use coupon_ledger::clock::Zone;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, NOON, Reply, World};
use crate::replay::assert_rows_equal_replay;

fn utc(text: &str) -> i64 {
    DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis()
}

async fn world_in(engine: Engine, zone: Tz, now_ms: i64) -> World {
    let world = World::at(engine, now_ms, Zone(zone)).await;
    world.add_people().await;
    world
}

async fn redeem(world: &World, id: i64) -> Reply {
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await
}

/// The ids that couponlist shows to a member in states 0, 1 and 2.
async fn lists(world: &World, member: Caller) -> [Vec<i64>; 3] {
    let mut lists = [Vec::new(), Vec::new(), Vec::new()];
    for (state, list) in lists.iter_mut().enumerate() {
        let reply = world.call(member, "/client/couponlist", json!({"state": state, "limit": 100})).await;
        *list = reply.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
    }
    lists
}

async fn row(world: &World, id: i64) -> Value {
    world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok().clone()
}

/// Coupons counted from receipt: when they are received, their days, and their first and last instant.
struct Case {
    received: &'static str,
    start_num: i64,
    end_num: i64,
    start_date: &'static str,
    end_date: &'static str,
    first: &'static str,
    last: &'static str,
}

/// Walks the clock over the bounds of each coupon, in steps of a millisecond where it matters.
async fn hold_to_their_days(engine: Engine, zone: Tz, cases: &[Case]) {
    let world = world_in(engine, zone, utc(cases[0].received)).await;
    for case in cases {
        world.clock.set(utc(case.received));
        let definition = world.define(json!({"start_num": case.start_num, "end_num": case.end_num})).await;
        let [early, late, last] = [(); 3].map(|()| world.issue(definition, 439));
        let (early, late, last) = (early.await, late.await, last.await);
        let [_, gone, expired] = lists(&world, MEMBER).await;
        let info = row(&world, early).await;
        let dates = (info["start_date"].as_str().unwrap(), info["end_date"].as_str().unwrap());
        assert_eq!(dates, (case.start_date, case.end_date), "received {}", case.received);

        if utc(case.first) > utc(case.received) {
            world.clock.set(utc(case.first) - 1);
            assert_eq!(redeem(&world, early).await.code(), 4001, "before {}", case.first);
        }
        world.clock.set(utc(case.first).max(utc(case.received)));
        redeem(&world, early).await.ok();

        world.clock.set(utc(case.last));
        let used = [&[early], gone.as_slice()].concat();
        assert_eq!(
            lists(&world, MEMBER).await,
            [vec![last, late], used, expired.clone()],
            "at {}",
            case.last
        );
        redeem(&world, last).await.ok();

        world.clock.set(utc(case.last) + 1);
        assert_eq!(redeem(&world, late).await.code(), 4002, "after {}", case.last);
        let at_counter = world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": late})).await;
        assert_eq!(at_counter.code(), 4002, "after {}", case.last);
        let used = [&[last, early], gone.as_slice()].concat();
        let over = [&[late], expired.as_slice()].concat();
        assert_eq!(lists(&world, MEMBER).await, [vec![], used, over], "after {}", case.last);
    }
    world.close().await;
}

on_both_engines! {
    async fn a_coupon_is_valid_through_the_whole_of_its_end_date(engine: Engine) {
        hold_to_their_days(
            engine,
            Asia::Shanghai,
            &[
                // One day, received at its last millisecond but one.
                Case {
                    received: "2026-11-23T15:59:59.998Z",
                    start_num: 0,
                    end_num: 1,
                    start_date: "2026-11-23",
                    end_date: "2026-11-23",
                    first: "2026-11-22T16:00:00Z",
                    last: "2026-11-23T15:59:59.999Z",
                },
                // Over the year's end.
                Case {
                    received: "2026-12-30T04:00:00Z",
                    start_num: 1,
                    end_num: 2,
                    start_date: "2026-12-31",
                    end_date: "2027-01-01",
                    first: "2026-12-30T16:00:00Z",
                    last: "2027-01-01T15:59:59.999Z",
                },
                // Over the end of a short February.
                Case {
                    received: "2027-02-27T04:00:00Z",
                    start_num: 1,
                    end_num: 2,
                    start_date: "2027-02-28",
                    end_date: "2027-03-01",
                    first: "2027-02-27T16:00:00Z",
                    last: "2027-03-01T15:59:59.999Z",
                },
                // To a leap day, and from it.
                Case {
                    received: "2028-02-28T04:00:00Z",
                    start_num: 0,
                    end_num: 2,
                    start_date: "2028-02-28",
                    end_date: "2028-02-29",
                    first: "2028-02-27T16:00:00Z",
                    last: "2028-02-29T15:59:59.999Z",
                },
                Case {
                    received: "2028-02-29T16:00:00Z",
                    start_num: 365,
                    end_num: 1,
                    start_date: "2029-03-01",
                    end_date: "2029-03-01",
                    first: "2029-02-28T16:00:00Z",
                    last: "2029-03-01T15:59:59.999Z",
                },
            ],
        )
        .await;
    }

    async fn a_day_of_23_or_25_hours_counts_as_one_day(engine: Engine) {
        hold_to_their_days(
            engine,
            Europe::Berlin,
            &[
                // Clocks go from 02:00 to 03:00 on the end date.
                Case {
                    received: "2026-03-28T11:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-03-29",
                    end_date: "2026-03-29",
                    first: "2026-03-28T23:00:00Z",
                    last: "2026-03-29T21:59:59.999Z",
                },
                // And back from 03:00 to 02:00.
                Case {
                    received: "2026-10-24T10:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-10-25",
                    end_date: "2026-10-25",
                    first: "2026-10-24T22:00:00Z",
                    last: "2026-10-25T22:59:59.999Z",
                },
            ],
        )
        .await;
    }

    async fn where_midnight_does_not_exist_the_day_begins_with_its_first_instant(engine: Engine) {
        hold_to_their_days(
            engine,
            Asia::Beirut,
            &[
                // On 2026-03-29 clocks go from 00:00 to 01:00.
                Case {
                    received: "2026-03-27T10:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-03-28",
                    end_date: "2026-03-28",
                    first: "2026-03-27T22:00:00Z",
                    last: "2026-03-28T21:59:59.999Z",
                },
            ],
        )
        .await;
        hold_to_their_days(
            engine,
            America::Santiago,
            &[
                // On 2026-04-04 clocks go from 24:00 back to 23:00: the last hour comes twice.
                Case {
                    received: "2026-04-03T12:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-04-04",
                    end_date: "2026-04-04",
                    first: "2026-04-04T03:00:00Z",
                    last: "2026-04-05T03:59:59.999Z",
                },
                // On 2026-09-06 they go from 00:00 to 01:00.
                Case {
                    received: "2026-09-05T12:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-09-06",
                    end_date: "2026-09-06",
                    first: "2026-09-06T04:00:00Z",
                    last: "2026-09-07T02:59:59.999Z",
                },
            ],
        )
        .await;
    }

    async fn where_midnight_comes_twice_the_day_begins_with_the_first(engine: Engine) {
        hold_to_their_days(
            engine,
            America::Havana,
            &[
                // On 2026-11-01 clocks go from 01:00 back to 00:00.
                Case {
                    received: "2026-10-30T12:00:00Z",
                    start_num: 1,
                    end_num: 1,
                    start_date: "2026-10-31",
                    end_date: "2026-10-31",
                    first: "2026-10-31T04:00:00Z",
                    last: "2026-11-01T03:59:59.999Z",
                },
                Case {
                    received: "2026-11-01T04:30:00Z",
                    start_num: 0,
                    end_num: 1,
                    start_date: "2026-11-01",
                    end_date: "2026-11-01",
                    first: "2026-11-01T04:00:00Z",
                    last: "2026-11-02T04:59:59.999Z",
                },
            ],
        )
        .await;
    }

    async fn fixed_dates_bound_both_the_issue_and_the_use(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, NOON).await;
        let fixed = json!({"validity_type": 1, "start_num": "2026-11-25", "end_num": "2026-11-30"});
        let definition = world.define(fixed).await;
        let id = world.issue(definition, 439).await;
        world.clock.set(utc("2026-11-24T15:59:59.999Z"));
        assert_eq!(redeem(&world, id).await.code(), 4001);
        world.clock.set(utc("2026-11-24T16:00:00Z"));
        redeem(&world, id).await.ok();

        let one = json!({"coupon_id": definition, "member_id": 439});
        world.clock.set(utc("2026-11-30T15:59:59.999Z"));
        let last = world.operator("/sendelecoupon/one", one.clone()).await.ok()["id"].as_i64().unwrap();
        let info = row(&world, last).await;
        assert_eq!((&info["start_date"], &info["end_date"]), (&json!("2026-11-25"), &json!("2026-11-30")));
        world.clock.set(utc("2026-11-30T16:00:00Z"));
        assert_eq!(world.operator("/sendelecoupon/one", one).await.code(), 5006);
        assert_eq!(redeem(&world, last).await.code(), 4002);
        world.close().await;
    }

    async fn a_coupon_until_the_card_ends_is_valid_through_the_cards_last_day(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, utc("2028-02-28T04:00:00Z")).await;
        for (id, card_end) in [(1, "2028-02-29"), (2, "2028-02-27"), (3, "2028-02-28")] {
            world.operator("/member/add", json!({"id": id, "card_end": card_end})).await.ok();
        }
        let definition = world.define(json!({"validity_type": 3})).await;
        let issue = async |member: i64| {
            world.operator("/sendelecoupon/one", json!({"coupon_id": definition, "member_id": member})).await
        };
        // 439 has no card, and that of 2 ended yesterday.
        assert_eq!((issue(439).await.code(), issue(2).await.code()), (5006, 5006));
        let id = issue(1).await.ok()["id"].as_i64().unwrap();
        issue(3).await.ok();
        let holder = Caller::Member(1);
        let info = world.call(holder, "/client/couponinfo", json!({"id": id})).await.ok().clone();
        assert_eq!((&info["start_date"], &info["end_date"]), (&json!("2028-02-28"), &json!("2028-02-29")));
        world.clock.set(utc("2028-02-29T15:59:59.999Z"));
        assert_eq!(lists(&world, holder).await, [vec![id], vec![], vec![]]);
        world.advance(1);
        assert_eq!(lists(&world, holder).await, [vec![], vec![], vec![id]]);
        assert_eq!(issue(1).await.code(), 5006);
        world.close().await;
    }

    async fn a_weekday_begins_and_ends_at_local_midnight(engine: Engine) {
        // From Saturday to Monday over the Sunday of 23 hours.
        let world = world_in(engine, Europe::Berlin, utc("2026-03-28T11:00:00Z")).await;
        let sundays = world.define(json!({"use_week": "7"})).await;
        let weekdays = world.define(json!({"use_week": "1,2,3,4,5,6"})).await;
        let (first, last, other) = (
            world.issue(sundays, 439).await,
            world.issue(sundays, 439).await,
            world.issue(weekdays, 439).await,
        );
        let usable = async || {
            let reply = world.call(MEMBER, "/client/getauditcoupon", json!({})).await;
            let ids = reply.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap());
            ids.collect::<Vec<_>>()
        };
        world.clock.set(utc("2026-03-28T22:59:59.999Z"));
        assert_eq!((redeem(&world, first).await.code(), usable().await), (4003, vec![other]));
        world.advance(1);
        assert_eq!((redeem(&world, other).await.code(), usable().await), (4003, vec![last, first]));
        redeem(&world, first).await.ok();
        world.clock.set(utc("2026-03-29T21:59:59.999Z"));
        assert_eq!(usable().await, [last]);
        world.advance(1);
        assert_eq!((redeem(&world, last).await.code(), usable().await), (4003, vec![other]));
        redeem(&world, other).await.ok();
        world.close().await;
    }

    async fn a_gift_lapses_after_24_hours_to_the_millisecond(engine: Engine) {
        // The night between has 23 hours: 24 hours later it is one o'clock.
        let world = world_in(engine, Europe::Berlin, utc("2026-03-28T11:00:00Z")).await;
        let definition = world.define(json!({})).await;
        let (first, second) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let given = world.call(MEMBER, "/client/givecoupon", json!({"id": first})).await;
        assert_eq!(given.ok()["lapse_date"], "2026-03-29 13:00:00");
        let codes = (given.ok()["code"].as_i64().unwrap(), world.give(MEMBER, second).await);
        let receive = async |id: i64, code: i64| {
            world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.code()
        };
        world.advance(24 * HOUR - 1);
        assert_eq!(redeem(&world, second).await.code(), 3003);
        assert_eq!(row(&world, second).await["give_date"], "2026-03-28 12:00:00");
        assert_eq!(receive(first, codes.0).await, 0);
        world.advance(1);
        assert_eq!(receive(second, codes.1).await, 7003);
        assert_eq!(row(&world, second).await["give_date"], 0);
        let taken_back = world.call(MEMBER, "/client/withdrawcoupon", json!({"id": second})).await;
        assert_eq!(taken_back.code(), 7003);
        // Given again it has another code, and another day.
        let again = world.call(MEMBER, "/client/givecoupon", json!({"id": second})).await;
        assert_eq!(again.ok()["lapse_date"], "2026-03-30 13:00:00");
        assert_ne!(again.ok()["code"], codes.1);
        world.advance(24 * HOUR);
        redeem(&world, second).await.ok();
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_gift_lapses_with_its_coupon_where_that_is_sooner(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, NOON).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let (first, second) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let given = world.call(MEMBER, "/client/givecoupon", json!({"id": first})).await;
        assert_eq!(given.ok()["lapse_date"], "2026-11-24 00:00:00");
        let (code, other) = (given.ok()["code"].as_i64().unwrap(), world.give(MEMBER, second).await);
        world.clock.set(utc("2026-11-23T15:59:59.999Z"));
        world.call(FRIEND, "/client/getcoupon", json!({"id": first, "code": code})).await.ok();
        assert_eq!(lists(&world, FRIEND).await, [vec![first], vec![], vec![]]);
        world.advance(1);
        let late = world.call(FRIEND, "/client/getcoupon", json!({"id": second, "code": other})).await;
        assert_eq!(late.code(), 7003);
        assert_eq!(world.call(MEMBER, "/client/givecoupon", json!({"id": second})).await.code(), 4002);
        assert_eq!(lists(&world, MEMBER).await, [vec![], vec![first], vec![second]]);
        assert_eq!(lists(&world, FRIEND).await, [vec![], vec![], vec![first]]);
        world.close().await;
    }

    async fn a_redemption_can_be_reversed_for_24_hours(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, NOON).await;
        let definition = world.define(json!({"end_num": "1"})).await;
        let (first, second) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let id = |reply: &Reply| reply.ok()["id"].as_str().unwrap().to_owned();
        let (used_first, used_second) = (id(&redeem(&world, first).await), id(&redeem(&world, second).await));
        let reverse = async |id: &str| {
            world.call(EMPLOYEE, "/user/reverseelecoupon", json!({"id": id, "reason": "按錯"})).await
        };
        world.advance(24 * HOUR);
        reverse(&used_first).await.ok();
        assert_eq!(reverse(&used_first).await.code(), 3012);
        world.advance(1);
        assert_eq!(reverse(&used_second).await.code(), 3012);
        // It is in hand again, and its end date has passed meanwhile.
        assert_eq!(lists(&world, MEMBER).await, [vec![], vec![second], vec![first]]);
        assert_eq!(redeem(&world, first).await.code(), 4002);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn one_at_a_time_is_free_again_at_the_first_instant_after_the_end_date(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, NOON).await;
        let definition = world.define(json!({"end_num": "2", "get_limit_type": 3, "is_claim": 1})).await;
        let claim = async || world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await;
        let offered = async || {
            let reply = world.call(MEMBER, "/client/cangetcoupon", json!({})).await;
            reply.ok().as_array().unwrap().len()
        };
        let id = claim().await.ok()["id"].as_i64().unwrap();
        // Used or not.
        redeem(&world, id).await.ok();
        world.clock.set(utc("2026-11-24T15:59:59.999Z"));
        assert_eq!((claim().await.code(), offered().await), (5002, 0));
        world.advance(1);
        assert_eq!((offered().await, claim().await.code(), offered().await), (1, 0, 0));
        world.close().await;
    }

    async fn the_sweep_writes_down_what_the_dates_have_decided_and_changes_no_answer(engine: Engine) {
        let world = world_in(engine, Asia::Shanghai, NOON).await;
        let short = world.define(json!({"end_num": "1"})).await;
        let long = world.define(json!({})).await;
        let (ended, given, used, kept) = (
            world.issue(short, 439).await,
            world.issue(long, 439).await,
            world.issue(short, 439).await,
            world.issue(long, 439).await,
        );
        world.give(MEMBER, given).await;
        redeem(&world, used).await.ok();
        let answers = async || {
            let mut answers = Vec::new();
            for state in 0..3 {
                answers.push(world.call(MEMBER, "/client/couponlist", json!({"state": state})).await.body);
            }
            for id in [ended, given, used, kept] {
                answers.push(world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.body);
            }
            answers
        };
        answers().await;
        world.advance(2 * DAY);
        let before = answers().await;
        assert_eq!(lists(&world, MEMBER).await, [vec![kept, given], vec![used], vec![ended]]);
        // The one that ended and the gift that lapsed; and a second time nothing.
        assert_eq!(coupon_ledger::sweep::sweep(&world.ledger).await.unwrap(), 2);
        assert_eq!(coupon_ledger::sweep::sweep(&world.ledger).await.unwrap(), 0);
        assert_eq!(answers().await, before);
        let events = world.store().events_after(0, 100).await.unwrap();
        let written: Vec<_> =
            events.iter().map(|event| event.event_type.as_str()).skip(events.len() - 2).collect();
        assert_eq!(written, ["GiftLapsed", "Expired"]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn dates_are_printed_in_the_merchants_time_of_that_day(engine: Engine) {
        let world = world_in(engine, Europe::Berlin, utc("2026-03-29T00:59:59Z")).await;
        let definition = world.define(json!({})).await;
        let (winter, summer) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let printed = async |used: Reply| {
            let id = used.ok()["id"].clone();
            let info = world.call(MEMBER, "/client/auditcouponinfo", json!({"id": id})).await;
            info.ok()["create_date"].clone()
        };
        assert_eq!(printed(redeem(&world, winter).await).await, "2026年03月29 01:59:59");
        world.advance(1_000);
        assert_eq!(printed(redeem(&world, summer).await).await, "2026年03月29 03:00:00");
        world.close().await;
    }
}
