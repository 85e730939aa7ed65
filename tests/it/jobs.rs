//! Jobs: everyone exactly once, whatever happens meanwhile; paused, resumed and cancelled at once; recalls and extensions.

use std::collections::BTreeMap;
use std::time::Duration;

use coupon_ledger::identity::Caller;
use coupon_ledger::runner::{open_jobs, run_job};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::harness::{
    DAY, EMPLOYEE, Engine, FRIEND, Home, INSERT_MEMBERS, MEMBER, Server, World, definition,
};
use crate::outside::{Api, assert_gapless, count, until};
use crate::replay::assert_rows_equal_replay;

/// So many members from 1 on, past the API: it adds one at a time. Every third is of shop 2, every fifth of level 7, and
/// every seventh has tag 9.
async fn add_members(home: &Home, count: i64) {
    let flag = |yes: bool, id: i64| if yes { id } else { 1 };
    let member = |id: i64| {
        let (level, shop) = (flag(id % 5 == 0, 7), flag(id % 3 == 0, 2));
        format!("({id}, '', '', '', '', '', {level}, {shop}, 0, 0, 0)")
    };
    let members: Vec<String> = (1..=count).map(member).collect();
    home.sql(&format!("{INSERT_MEMBERS} {}", members.join(", "))).await.unwrap();
    let tags: Vec<String> = (1..=count).filter(|id| id % 7 == 0).map(|id| format!("({id}, 9)")).collect();
    home.sql(&format!("INSERT INTO member_tags VALUES {}", tags.join(", "))).await.unwrap();
}

/// Works on every open job until nothing more can be done.
pub async fn run_all(world: &World) {
    for job_id in open_jobs(world.store()).await.unwrap() {
        run_job(&world.ledger, job_id).await.unwrap();
    }
}

async fn send(world: &World, body: Value) -> i64 {
    world.operator("/sendelecoupon/add", body).await.ok()["id"].as_i64().unwrap()
}

async fn info(world: &World, id: i64) -> Value {
    world.operator("/sendelecoupon/info", json!({"id": id})).await.ok().clone()
}

async fn job(world: &World, id: i64) -> Value {
    world.operator("/job/info", json!({"id": id})).await.ok().clone()
}

/// How many coupons each member was issued.
async fn issued(home: &Home) -> BTreeMap<i64, i64> {
    let rows = home.sql("SELECT issued_to FROM wallet_v1 WHERE member_id = issued_to").await.unwrap();
    let mut issued = BTreeMap::new();
    for member in rows {
        *issued.entry(member.parse().unwrap()).or_default() += 1;
    }
    issued
}

on_both_engines! {
    async fn a_send_goes_to_whoever_its_filters_meant_when_it_was_added(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, 210).await;
        let definition = world.define(json!({})).await;
        // Within one filter either value will do; all three must hold.
        let filters = json!({"shop_ids": "2,3", "tag_ids": "9", "level_ids": "7,8", "coupon_id": definition});
        let meant: Vec<i64> = (1..=210).filter(|id| id % 3 == 0 && id % 5 == 0 && id % 7 == 0).collect();
        let num = world.operator("/sendelecoupon/getnum", filters.clone()).await;
        assert_eq!(num.ok()["num"], meant.len());
        assert_eq!(num.ok()["shopList"], "2,3");
        let id = send(&world, filters).await;
        assert_eq!(info(&world, id).await["nums"], meant.len());
        // Who comes to fit later is not meant, and who has left his shop still is.
        world.operator("/member/add", json!({"id": 900, "shop_id": 2, "level_id": 7, "tag_ids": "9"})).await.ok();
        world.home.sql("UPDATE members SET shop_id = 1 WHERE member_id = 105").await.unwrap();
        run_all(&world).await;
        assert_eq!(issued(&world.home).await, meant.iter().map(|id| (*id, 1)).collect());
        let done = info(&world, id).await;
        assert_eq!((&done["state"], &done["send_num"], &done["refused_num"]), (&json!(1), &json!(meant.len()), &json!(0)));
        assert_eq!(count(&world.home, "SELECT count(*) FROM job_items").await, 0);
        assert_rows_equal_replay(&world).await;
        // Each coupon names the send behind it.
        let behind = world.home.sql(&format!(
            "SELECT count(*) FROM events WHERE event_type = 'Issued' AND CAST(payload AS TEXT) LIKE '%\"source\":\"mass_send\",\"source_id\":{id},%'
             AND CAST(metadata AS TEXT) LIKE '%\"causation_id\":\"job-{id}\"%'"
        )).await.unwrap();
        assert_eq!(behind, [meant.len().to_string()]);
        world.close().await;
    }

    async fn members_who_are_refused_are_counted_by_reason_and_stop_nobody(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, 30).await;
        let limited = world.define(json!({"get_limit_type": 2, "get_limit": 1})).await;
        for member in [3, 4, 5] {
            world.issue(limited, member).await;
        }
        let id = send(&world, json!({"coupon_id": limited})).await;
        // Erased between being meant and being reached.
        world.home.sql("DELETE FROM members WHERE member_id = 7").await.unwrap();
        run_all(&world).await;
        let done = info(&world, id).await;
        assert_eq!((&done["nums"], &done["send_num"]), (&json!(32), &json!(28)));
        assert_eq!(done["refused"], json!({"310": 1, "5002": 3}));
        let finished = world.home.sql("SELECT payload FROM events WHERE event_type = 'Finished'").await.unwrap();
        assert!(finished[0].contains(r#""done":28,"refused":{"310":1,"5002":3}"#), "{finished:?}");
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_member_without_a_card_gives_nobody_else_his_reason(engine: Engine) {
        let world = World::with_people(engine).await;
        // Behind the two who have no card.
        world.operator("/member/add", json!({"id": 900, "card_end": "2027-01-31"})).await.ok();
        let changes = json!({"validity_type": 3, "get_limit_type": 2, "get_limit": 1});
        let definition = world.define(changes).await;
        world.issue(definition, 900).await;
        let id = send(&world, json!({"coupon_id": definition})).await;
        run_all(&world).await;
        let done = info(&world, id).await;
        assert_eq!((&done["send_num"], &done["refused"]), (&json!(0), &json!({"5002": 1, "5006": 2})));
        let body = json!({"coupon_id": definition, "member_ids": [439, 900]});
        let chunk = world.operator("/sendelecoupon/members", body).await;
        assert_eq!((&chunk.ok()["send_num"], &chunk.ok()["refused"]), (&json!(0), &json!([439, 900])));
        world.close().await;
    }

    async fn what_cannot_be_sent_is_refused_at_once_and_leaves_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let scarce = world.define(json!({"num": 1})).await;
        let off = world.define(json!({})).await;
        world.operator("/elecoupons/state", json!({"id": off, "state": 0})).await.ok();
        let ended = world.define(json!({"validity_type": 1, "start_num": "2026-01-01", "end_num": "2026-01-31"})).await;
        for (definition, code) in [(99, 2002), (off, 5006), (ended, 5006), (scarce, 5001)] {
            let reply = world.operator("/sendelecoupon/add", json!({"coupon_id": definition})).await;
            assert_eq!(reply.code(), code, "{}", reply.body);
        }
        for body in [json!({"coupon_id": 99, "reason": "r"}), json!({"send_id": 99, "reason": "r"})] {
            let expected = if body["send_id"].is_null() { 2002 } else { 2005 };
            assert_eq!(world.operator("/elecoupons/recall", body).await.code(), expected);
        }
        for route in ["/sendelecoupon/info", "/job/info", "/sendelecoupon/pause", "/job/cancel", "/job/resume"] {
            assert_eq!(world.operator(route, json!({"id": 99})).await.code(), 2005, "{route}");
        }
        let both = json!({"coupon_id": scarce, "send_id": 1, "reason": "r"});
        assert_eq!(world.operator("/elecoupons/recall", both).await.code(), 401);
        assert_eq!(world.operator("/elecoupons/recall", json!({"reason": "r"})).await.code(), 401);
        assert_eq!(count(&world.home, "SELECT count(*) FROM job_items").await, 0);
        assert_eq!(count(&world.home, "SELECT count(*) FROM job_progress").await, 0);
        assert_eq!(count(&world.home, "SELECT count(*) FROM jobs_v1").await, 0);
        world.close().await;
    }

    async fn the_same_send_again_needs_to_be_confirmed_unless_it_is_the_same_request(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let body = json!({"coupon_id": definition, "shop_ids": "0"});
        let route = "/sendelecoupon/add";
        let first = world.keyed(Caller::Operator, "send-once", route, body.clone()).await;
        let again = world.keyed(Caller::Operator, "send-once", route, body.clone()).await;
        assert_eq!((first.ok(), again.replayed()), (again.ok(), true));
        let other = world.keyed(Caller::Operator, "send-twice", route, body.clone()).await;
        assert_eq!(other.code(), 401);
        assert!(other.body["info"]["confirm"].is_string(), "{}", other.body);
        let mut confirmed = body.clone();
        confirmed["confirm"] = 1.into();
        let second = world.keyed(Caller::Operator, "send-twice", route, confirmed).await;
        assert_ne!(second.ok()["id"], first.ok()["id"]);
        // Another filter is another send, and after ten minutes it is another send as well.
        world.operator(route, json!({"coupon_id": definition, "shop_ids": "1"})).await.code();
        world.advance(600_000);
        world.operator(route, body).await.ok();
        run_all(&world).await;
        assert_eq!(issued(&world.home).await, BTreeMap::from([(439, 3), (442, 3)]));
        world.close().await;
    }

    async fn a_job_waits_goes_on_and_ends_as_it_is_told(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, 20).await;
        let definition = world.define(json!({})).await;
        let id = send(&world, json!({"coupon_id": definition})).await;
        let state = async |route: &str| {
            let reply = world.operator(route, json!({"id": id})).await;
            if reply.code() == 0 { reply.data()["state"].as_i64().unwrap() } else { reply.code() }
        };
        assert_eq!([state("/sendelecoupon/pause").await, state("/job/pause").await], [2, 2]);
        run_all(&world).await;
        assert_eq!(issued(&world.home).await, BTreeMap::new());
        assert_eq!([state("/sendelecoupon/resume").await, state("/job/resume").await], [0, 0]);
        run_all(&world).await;
        assert_eq!(issued(&world.home).await.len(), 22);
        // What is done cannot be stopped any more.
        assert_eq!([state("/job/pause").await, state("/job/cancel").await, state("/job/resume").await], [401; 3]);

        let cancelled = send(&world, json!({"coupon_id": definition, "shop_ids": "2"})).await;
        world.operator("/sendelecoupon/cancel", json!({"id": cancelled})).await.ok();
        run_all(&world).await;
        assert_eq!(issued(&world.home).await.values().sum::<i64>(), 22);
        assert_eq!(info(&world, cancelled).await["state"], 3);
        assert!(open_jobs(world.store()).await.unwrap().is_empty());
        assert_eq!(count(&world.home, "SELECT count(*) FROM job_items").await, 0);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_recall_voids_what_is_unused_and_says_why_not_the_rest(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, 10).await;
        let definition = world.define(json!({"num": 20})).await;
        let sent = send(&world, json!({"coupon_id": definition, "shop_ids": "2"})).await;
        run_all(&world).await;
        let other = world.issue(definition, 439).await;
        let used = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": used, "shop_id": 1})).await.ok();
        // A coupon that is being given away, and one that has changed hands.
        let (pending, given) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        world.give(MEMBER, pending).await;
        let code = world.give(MEMBER, given).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": given, "code": code})).await.ok();

        let recall = |body: Value| async { world.operator("/elecoupons/recall", body).await.ok()["id"].as_i64().unwrap() };
        let of_send = recall(json!({"send_id": sent, "reason": "發錯"})).await;
        run_all(&world).await;
        let done = job(&world, of_send).await;
        assert_eq!([&done["nums"], &done["done_num"], &done["refused_num"], &done["state"]], [3, 3, 0, 1]);
        assert_eq!(count(&world.home, "SELECT count(*) FROM wallet_v1 WHERE voided = 1").await, 3);

        let of_all = recall(json!({"coupon_id": definition, "reason": "發錯"})).await;
        // Issued behind its start: not meant.
        let later = world.issue(definition, 442).await;
        run_all(&world).await;
        let done = job(&world, of_all).await;
        assert_eq!(done["refused"], json!({"3001": 1, "3004": 3}));
        assert_eq!(done["done_num"], 3);
        for (caller, id, code) in [(MEMBER, other, 3004), (MEMBER, pending, 3004), (FRIEND, given, 3004), (FRIEND, later, 0)] {
            let reply = world.call(caller, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await;
            assert_eq!(reply.code(), code, "coupon {id}");
        }
        // Its stock is free again.
        let left = world.operator("/elecoupons/info", json!({"id": definition})).await.ok()["inventory"].clone();
        assert_eq!(left, 18);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn an_extension_moves_the_end_for_everyone_who_holds_one(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "2"})).await;
        let (first, ended, used) =
            (world.issue(definition, 439).await, world.issue(definition, 442).await, world.issue(definition, 439).await);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": used, "shop_id": 1})).await.ok();
        world.advance(3 * DAY);
        coupon_ledger::sweep::sweep(&world.ledger).await.unwrap();
        let redeem = async |caller, id: i64| {
            world.call(caller, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.code()
        };
        assert_eq!(redeem(MEMBER, first).await, 4002);
        let extend = async |end: &str| {
            let body = json!({"coupon_id": definition, "end_date": end, "reason": "延期"});
            let id = world.operator("/elecoupons/extend", body).await.ok()["id"].as_i64().unwrap();
            run_all(&world).await;
            job(&world, id).await
        };
        let done = extend("2026-11-30").await;
        assert_eq!((&done["done_num"], &done["refused"]), (&json!(2), &json!({"3001": 1})));
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        assert_eq!((&list.ok()[0]["id"], &list.ok()[0]["end_date"]), (&json!(first), &json!("2026-11-30")));
        assert_eq!(redeem(MEMBER, first).await, 0);
        // Into the past: it expires there and then, and a gift that waits lapses with it.
        world.give(FRIEND, ended).await;
        extend("2026-11-25").await;
        let gone = world.call(FRIEND, "/client/couponlist", json!({"state": 2})).await;
        assert_eq!((&gone.ok()[0]["id"], &gone.ok()[0]["give_date"]), (&json!(ended), &json!(0)));
        assert_eq!(redeem(FRIEND, ended).await, 4002);
        // Before it starts: refused, coupon by coupon.
        assert_eq!(extend("2026-11-01").await["refused"], json!({"3001": 2, "401": 1}));
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
        world.close().await;
    }

    /// What a server that died in the middle leaves behind is told by the log.
    async fn progress_that_was_lost_is_found_again(engine: Engine) {
        let world = World::empty(engine).await;
        add_members(&world.home, 900).await;
        let limited = world.define(json!({"get_limit_type": 2, "get_limit": 1})).await;
        for member in [10, 500] {
            world.issue(limited, member).await;
        }
        let id = send(&world, json!({"coupon_id": limited})).await;
        world.home.sql("UPDATE job_progress SET chunk = 300").await.unwrap();
        // The first chunk is written, and what it came to is not.
        let (refuse, allow) = match engine {
            Engine::Sqlite => (
                "CREATE TRIGGER dead BEFORE UPDATE ON job_progress BEGIN SELECT RAISE(ABORT, 'dead'); END",
                "DROP TRIGGER dead",
            ),
            Engine::Postgres => (
                "CREATE TRIGGER dead BEFORE UPDATE ON job_progress FOR EACH ROW EXECUTE FUNCTION refuse_change()",
                "DROP TRIGGER dead ON job_progress",
            ),
        };
        world.home.sql(refuse).await.unwrap();
        run_job(&world.ledger, id).await.unwrap_err();
        assert_eq!(issued(&world.home).await.len(), 301, "of 300 members one had his, and so has another");
        assert_eq!(info(&world, id).await["send_num"], 0);
        world.home.sql(allow).await.unwrap();
        run_all(&world).await;
        let once = issued(&world.home).await;
        assert_eq!((once.len(), once.values().max()), (900, Some(&1)));
        let done = info(&world, id).await;
        assert_eq!((&done["send_num"], &done["refused"]), (&json!(898), &json!({"5002": 2})));

        // Cancelled in that very state: what was written counts, and nothing more is.
        let unlimited = world.define(json!({})).await;
        let lost = send(&world, json!({"coupon_id": unlimited})).await;
        world.home.sql(refuse).await.unwrap();
        run_job(&world.ledger, lost).await.unwrap_err();
        world.operator("/job/cancel", json!({"id": lost})).await.ok();
        world.home.sql(allow).await.unwrap();
        run_all(&world).await;
        let done = info(&world, lost).await;
        assert_eq!((&done["state"], &done["send_num"]), (&json!(3), &json!(400)));
        assert_eq!(issued(&world.home).await.values().sum::<i64>(), 900 + 400);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn employees_look_and_operators_start(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"num": 5})).await;
        let silver = world.define(json!({"title": "銀卡券", "get_limit_type": 4, "level_ids": "2"})).await;
        let sold_out = world.define(json!({"num": 1})).await;
        world.issue(sold_out, 439).await;
        let offered = world.call(EMPLOYEE, "/sendelecoupon/usercoupon", json!({})).await;
        let ids: Vec<&Value> = offered.ok().as_array().unwrap().iter().map(|row| &row["id"]).collect();
        assert_eq!(ids, [&json!(silver), &json!(cash)]);
        for (levels, expected) in [("0", vec![silver, cash]), ("2,3", vec![silver, cash]), ("3", vec![cash])] {
            let list = world.operator("/sendelecoupon/couponlist", json!({"level_ids": levels})).await;
            let ids: Vec<i64> = list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
            assert_eq!(ids, expected, "{levels}");
        }
        let coupon = world.issue(cash, 439).await;
        let shown = world.call(EMPLOYEE, "/sendelecoupon/membercouponinfo", json!({"id": coupon})).await;
        assert_eq!((&shown.ok()["memberInfo"]["nickname"], &shown.ok()["couponInfo"]["type"]), (&json!("小明"), &json!(1)));
        assert_eq!(world.call(EMPLOYEE, "/sendelecoupon/membercouponinfo", json!({"id": 999})).await.code(), 2001);
        assert_eq!(world.call(EMPLOYEE, "/sendelecoupon/add", json!({"coupon_id": cash})).await.code(), 1002);
        for _ in 0..2 {
            send(&world, json!({"coupon_id": cash, "shop_ids": "1", "confirm": 1})).await;
        }
        world.operator("/elecoupons/recall", json!({"coupon_id": cash, "reason": "r"})).await.ok();
        let ids = async |route: &str, body: Value| -> Vec<i64> {
            let list = world.call(EMPLOYEE, route, body).await;
            list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
        };
        assert_eq!(ids("/sendelecoupon/getlist", json!({})).await, [2, 1]);
        assert_eq!(ids("/job/getlist", json!({"page": 2, "limit": 2})).await, [1]);
        assert_eq!(ids("/job/getlist", json!({"before_id": 3})).await, [2, 1]);
        world.close().await;
    }

    async fn a_send_survives_being_killed_again_and_again(engine: Engine) {
        const MEMBERS: i64 = 10_000;
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        let offer = definition(json!({"get_limit_type": 2, "get_limit": 1}));
        let definition = api.operator("/elecoupons/add", offer).await.ok()["id"].clone();
        server.kill().await;
        add_members(&home, MEMBERS).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        // One who has his already: he is refused, and counted once.
        api.operator("/sendelecoupon/one", json!({"coupon_id": definition, "member_id": 77})).await.ok();
        let id = api.operator("/sendelecoupon/add", json!({"coupon_id": definition})).await.ok()["id"].clone();
        let mut rng = StdRng::seed_from_u64(50);
        let mut server = Some(server);
        let far = async || count(&home, "SELECT COALESCE(MAX(position), 0) FROM job_progress WHERE ended = 0").await;
        let is_open = async || count(&home, "SELECT count(*) FROM job_progress WHERE ended = 0").await > 0;
        let (mut killed_at_work, mut before) = (0, 0);
        for round in 0..25 {
            // Every third is let get something done, however slow the machine is; the others may be met before they begin.
            if round % 3 == 0 {
                until("the send goes on", async || far().await > before || !is_open().await).await;
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..40))).await;
            } else {
                tokio::time::sleep(Duration::from_millis(rng.random_range(0..120))).await;
            }
            if let Some(server) = server.take() {
                server.kill().await;
            }
            let far = far().await;
            if far > before {
                killed_at_work += 1;
                before = far;
            }
            // What the lease would keep back for a quarter of a minute is let go, as if the time had passed.
            home.sql("DELETE FROM checkpoints").await.unwrap();
            server = Some(Server::start(&home, &[]).await);
        }
        let server = server.unwrap();
        let api = Api::new(&home, &server);
        until("the send is done", async || api.operator("/sendelecoupon/info", json!({"id": id})).await.ok()["state"] == 1).await;
        let done = api.operator("/sendelecoupon/info", json!({"id": id})).await.ok().clone();
        assert_eq!((&done["nums"], &done["send_num"]), (&json!(MEMBERS), &json!(MEMBERS - 1)));
        assert_eq!(done["refused"], json!({"5002": 1}));
        assert!(killed_at_work > 5, "only {killed_at_work} kills met it at work");
        let issued = issued(&home).await;
        assert_eq!((issued.len() as i64, issued.values().max()), (MEMBERS, Some(&1)));
        assert_gapless(&home).await;
        server.kill().await;
    }
}
