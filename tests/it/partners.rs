//! Partners: what is taken from them is never more than was set aside, and both sides settle by the same lines.

use std::collections::BTreeMap;

use coupon_ledger::audit::rebuild::rebuild;
use coupon_ledger::coupon::{Coupon, Source};
use coupon_ledger::entity::fold;
use coupon_ledger::identity::Caller;
use coupon_ledger::store::StoredEvent;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::harness::{DAY, Engine, FRIEND, HOUR, MEMBER, PARTNER, Reply, World};
use crate::replay::assert_rows_equal_replay;

/// People, shop 1, and partner 2.
async fn with_partner(engine: Engine) -> World {
    let world = World::with_people(engine).await;
    assert_eq!(add_partner(&world).await, 2);
    world
}

async fn add_partner(world: &World) -> i64 {
    let body = json!({"shop_name": "隔壁咖啡", "phone": "1", "address": "a"});
    world.operator("/business/add", body).await.ok()["id"].as_str().unwrap().parse().unwrap()
}

async fn allot(world: &World, partner: i64, definition: i64, num: i64, end: &str) -> i64 {
    let body = json!({"business_id": partner, "coupon_id": definition, "num": num, "end_time": end});
    world.operator("/business/addattract", body).await.ok()["id"].as_i64().unwrap()
}

async fn take(world: &World, member: Caller) -> Reply {
    world.call(member, "/wechat/receive", json!({"business_id": 2})).await
}

/// The codes of what was taken, newest allotment first.
#[track_caller]
fn codes(taken: &Reply) -> Vec<i64> {
    taken.ok().as_array().unwrap().iter().map(|row| row["code"].as_i64().unwrap()).collect()
}

async fn redeem(world: &World, member: Caller, coupon: &Value, shop: i64) -> Reply {
    world.call(member, "/client/auditcoupon", json!({"mem_coupon_id": coupon, "shop_id": shop})).await
}

async fn left(world: &World, allotment: i64) -> i64 {
    let rows = world.operator("/business/getattract", json!({"id": 2})).await;
    let rows = rows.ok().as_array().unwrap().clone();
    rows.iter().find(|row| row["id"] == allotment).unwrap()["inventory"].as_i64().unwrap()
}

fn ids(reply: &Reply) -> Vec<i64> {
    reply.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

async fn edit(world: &World, id: i64, state: i64) {
    let body = json!({"id": id, "shop_name": "隔壁咖啡", "phone": "1", "address": "a", "state": state});
    world.operator("/business/edit", body).await.ok();
}

/// The settlement list of these allotments as the log alone gives it, newest first.
async fn settled_by_the_log(world: &World, allotments: &[i64]) -> Vec<Value> {
    let mut streams: BTreeMap<i64, Vec<StoredEvent>> = BTreeMap::new();
    for event in world.store().events_after(0, 10_000).await.unwrap() {
        if event.aggregate_type == "coupon" {
            streams.entry(event.aggregate_id.parse().unwrap()).or_default().push(event);
        }
    }
    let mut lines = Vec::new();
    for (id, events) in streams {
        let (coupon, _) = fold::<Coupon>(&events).unwrap();
        let issue = coupon.issue.clone().unwrap();
        if issue.source != Source::Partner || !allotments.contains(&issue.source_id) {
            continue;
        }
        lines.extend(coupon.redemptions.iter().filter(|used| used.reversed_at_ms == 0).map(|used| {
            let line = json!({
                "id": used.id, "mem_coupon_id": id, "bc_id": issue.source_id, "coupon_id": issue.definition_id,
                "coupon_title": issue.terms.title, "deduction": "10.00", "create_date": used.at_ms / 1000,
                "shop_id": used.shop_id, "shop_name": if used.shop_id == 1 { "總店" } else { "隔壁咖啡" },
                "user_id": used.employee_id, "member_id": used.member_id,
            });
            ((used.at_ms, used.id), line)
        }));
    }
    lines.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    lines.into_iter().map(|(_, line)| line).collect()
}

on_both_engines! {
    async fn both_sides_settle_by_the_lines_that_the_log_gives(engine: Engine) {
        let world = with_partner(engine).await;
        let other = add_partner(&world).await;
        let definition = world.define(json!({"shop_ids": "1,2"})).await;
        let (first, second) =
            (allot(&world, 2, definition, 10, "2026-12-31").await, allot(&world, 2, definition, 10, "2026-12-31").await);
        let his = allot(&world, other, definition, 10, "2026-12-31").await;
        let mut coupons = Vec::new();
        for member in [MEMBER, FRIEND] {
            let taken = take(&world, member).await;
            coupons.extend(taken.ok().as_array().unwrap().iter().map(|row| (member, row["id"].clone())));
        }
        let elsewhere = world.call(MEMBER, "/wechat/receive", json!({"business_id": other})).await;
        redeem(&world, MEMBER, &elsewhere.ok()[0]["id"], 1).await.ok();
        redeem(&world, MEMBER, &world.issue(definition, 439).await.into(), 2).await.ok();
        redeem(&world, MEMBER, &coupons[0].1, 1).await.ok();
        redeem(&world, FRIEND, &coupons[2].1, 2).await.ok();
        // One given on and used by who received it the day after, and one whose use was taken back.
        let code = world.give(MEMBER, coupons[1].1.as_i64().unwrap()).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": coupons[1].1, "code": code})).await.ok();
        world.advance(DAY);
        redeem(&world, FRIEND, &coupons[1].1, 1).await.ok();
        let used = redeem(&world, FRIEND, &coupons[3].1, 1).await;
        let reverse = json!({"id": used.ok()["id"], "reason": "按錯"});
        let both = async |body: Value| {
            let mut merchants = body.clone();
            merchants["business_id"] = 2.into();
            let theirs = world.call(PARTNER, "/businesshome/auditcoupon", body).await;
            for merchant in [Caller::Operator, Caller::Auditor] {
                let ours = world.call(merchant, "/statistics/getattract", merchants.clone()).await;
                assert_eq!(ours.ok(), theirs.ok());
            }
            theirs
        };
        assert_eq!(both(json!({})).await.ok(), &json!(settled_by_the_log(&world, &[first, second]).await));
        assert_eq!(ids(&both(json!({})).await).len(), 4);
        world.operator("/user/reverseelecoupon", reverse).await.ok();
        let lines = settled_by_the_log(&world, &[first, second]).await;
        assert_eq!(both(json!({})).await.ok(), &json!(lines));
        assert_eq!(lines.len(), 3);
        // By days, as the manual spells it and as one would, and by pages.
        for name in ["start", "strar"] {
            assert_eq!(both(json!({name: "2026-11-24"})).await.ok(), &json!(lines[..1]), "{name}");
        }
        assert_eq!(both(json!({"end": "2026-11-23"})).await.ok(), &json!(lines[1..]));
        assert_eq!(both(json!({"page": 2, "limit": 2})).await.ok(), &json!(lines[2..]));
        let wrong = json!({"start": "2026-11-24", "end": "2026-11-23"});
        assert_eq!(world.call(PARTNER, "/businesshome/auditcoupon", wrong).await.code(), 401);
        // The other partner has his own lines, and of what was redeemed at his place none.
        let theirs = world.call(Caller::Partner(other), "/businesshome/auditcoupon", json!({})).await;
        assert_eq!(theirs.ok(), &json!(settled_by_the_log(&world, &[his]).await));
        let at_his = world.call(Caller::Partner(other), "/businesshome/attractcoupon", json!({})).await;
        assert_eq!(at_his.ok(), &json!([]));
        let at_ours = world.call(PARTNER, "/businesshome/attractcoupon", json!({})).await;
        let from: Vec<_> = at_ours.ok().as_array().unwrap().iter().map(|row| row["bc_id"].clone()).collect();
        assert_eq!(from, [json!(second), json!(0)]);
        // A closed partner still sees what he is owed.
        edit(&world, 2, 0).await;
        assert_eq!(both(json!({})).await.ok(), &json!(lines));
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn fifty_who_take_at_once_share_the_ten_that_are_left(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({"num": 100})).await;
        let allotment = allot(&world, 2, definition, 10, "2026-12-31").await;
        for id in 1000..1050 {
            world.operator("/member/add", json!({"id": id})).await.ok();
        }
        let taken = join_all((1000..1050).map(|id| take(&world, Caller::Member(id)))).await;
        let taken: Vec<i64> = taken.iter().flat_map(codes).collect();
        assert_eq!(taken.iter().filter(|code| **code == 0).count(), 10);
        assert_eq!(taken.iter().filter(|code| **code == 5001).count(), 40);
        assert_eq!(left(&world, allotment).await, 0);
        // The definition's own stock moved with it.
        assert_eq!(world.operator("/elecoupons/info", json!({"id": definition})).await.ok()["inventory"], 90);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn what_is_voided_can_be_taken_again_and_the_number_stays_above_what_was_taken(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({})).await;
        let allotment = allot(&world, 2, definition, 1, "2026-12-31").await;
        let mine = take(&world, MEMBER).await;
        assert_eq!(codes(&mine), [0]);
        assert_eq!(codes(&take(&world, FRIEND).await), [5001]);
        let change = async |num: i64, more: i64| {
            world.operator("/business/inventory", json!({"bc_id": allotment, "num": num, "type": more})).await
        };
        let refused = change(1, 0).await;
        assert_eq!((refused.code(), refused.body["info"]["num"].is_string()), (401, true), "{}", refused.body);
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": mine.ok()[0]["id"], "reason": "發錯"})).await.ok();
        assert_eq!(left(&world, allotment).await, 1);
        assert_eq!(codes(&take(&world, FRIEND).await), [0]);
        assert_eq!(change(3, 1).await.ok(), &json!({"bc_id": allotment, "num": 4}));
        assert_eq!(change(2, 0).await.ok(), &json!({"bc_id": allotment, "num": 2}));
        let log = world.operator("/business/invenlist", json!({"bc_id": allotment})).await;
        let log: Vec<_> = log.ok().as_array().unwrap().iter().map(|row| [&row["num"], &row["type"], &row["total"]].map(Value::to_string)).collect();
        assert_eq!(log, [["2", "0", "2"], ["3", "1", "4"], ["1", "1", "1"]]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn an_allotment_ends_with_its_last_day_in_the_merchants_zone(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({})).await;
        let allotment = allot(&world, 2, definition, 10, "2026-11-23").await;
        // The last millisecond of the day in Shanghai.
        world.advance(12 * HOUR - 1);
        assert_eq!(codes(&take(&world, MEMBER).await), [0]);
        world.advance(1);
        assert_eq!(codes(&take(&world, MEMBER).await), [0; 0]);
        let shown = async || ids(&world.call(MEMBER, "/wechat/getattract", json!({"business_id": 2})).await);
        assert_eq!(shown().await, [0_i64; 0]);
        let end = async |day: &str| {
            world.operator("/business/editattract", json!({"id": allotment, "end_time": day})).await.ok();
        };
        end("2026-11-24").await;
        assert_eq!(shown().await, [allotment]);
        assert_eq!(codes(&take(&world, MEMBER).await), [0]);
        end("2026-11-01").await;
        assert_eq!(codes(&take(&world, MEMBER).await), [0; 0]);
        let past = json!({"business_id": 2, "coupon_id": definition, "num": 1, "end_time": "2026-11-23"});
        let refused = world.operator("/business/addattract", past).await;
        assert_eq!((refused.code(), refused.body["info"]["end_time"].is_string()), (401, true), "{}", refused.body);
        world.close().await;
    }

    async fn a_key_repeats_what_was_taken_and_asks_the_rest_afresh(engine: Engine) {
        let world = with_partner(engine).await;
        let other = add_partner(&world).await;
        let definition = world.define(json!({})).await;
        let scarce = allot(&world, 2, definition, 1, "2026-11-30").await;
        assert_eq!(codes(&take(&world, FRIEND).await), [0]);
        allot(&world, 2, definition, 10, "2026-11-23").await;
        let again = async || world.keyed(MEMBER, "take-all", "/wechat/receive", json!({"business_id": 2})).await;
        let first = again().await;
        assert_eq!((codes(&first), first.replayed()), (vec![0, 5001], false));
        assert_eq!((again().await.ok(), again().await.replayed()), (first.ok(), true));
        world.operator("/business/inventory", json!({"bc_id": scarce, "num": 1, "type": 1})).await.ok();
        let second = again().await;
        assert_eq!((codes(&second), second.replayed()), (vec![0, 0], false));
        assert_eq!(second.ok()[0], first.ok()[0]);
        let reused = world.keyed(MEMBER, "take-all", "/wechat/receive", json!({"business_id": other})).await;
        assert_eq!(reused.code(), 6001);
        // Ended and closed, it stays what it was; under another key there is nothing more.
        world.advance(30 * DAY);
        edit(&world, 2, 0).await;
        let third = again().await;
        assert_eq!((third.ok(), third.replayed()), (second.ok(), true));
        assert_eq!(world.keyed(MEMBER, "take-more", "/wechat/receive", json!({"business_id": 2})).await.code(), 2003);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn one_request_that_comes_many_times_at_once_takes_one_of_each(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({})).await;
        let allotments =
            [allot(&world, 2, definition, 9, "2026-12-31").await, allot(&world, 2, definition, 9, "2026-12-31").await];
        let again = || world.keyed(MEMBER, "take-all", "/wechat/receive", json!({"business_id": 2}));
        let replies = join_all((0..20).map(|_| again())).await;
        for reply in &replies {
            assert_eq!((codes(reply), reply.ok()), (vec![0, 0], replies[0].ok()));
        }
        for allotment in allotments {
            assert_eq!(left(&world, allotment).await, 8);
        }
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn each_allotment_is_taken_or_refused_by_the_rules_of_its_own_definition(engine: Engine) {
        let world = with_partner(engine).await;
        let once = world.define(json!({"get_limit_type": 2, "get_limit": 1})).await;
        let levels = world.define(json!({"get_limit_type": 4, "level_ids": "7"})).await;
        let off = world.define(json!({})).await;
        let free = world.define(json!({})).await;
        for definition in [once, levels, off, free] {
            allot(&world, 2, definition, 5, "2026-12-31").await;
        }
        world.operator("/elecoupons/state", json!({"id": off, "state": 0})).await.ok();
        let may = async || -> Vec<Value> {
            let shown = world.call(MEMBER, "/wechat/getattract", json!({"business_id": 2})).await;
            shown.ok().as_array().unwrap().iter().map(|row| row["is_get"].clone()).collect()
        };
        assert_eq!(may().await, [1, 0, 0, 1]);
        assert_eq!(codes(&take(&world, MEMBER).await), [0, 5006, 5003, 0]);
        assert_eq!(may().await, [1, 0, 0, 0]);
        assert_eq!(codes(&take(&world, MEMBER).await), [0, 5006, 5003, 5002]);
        let listed = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        let id = listed.ok()[0]["id"].clone();
        assert_eq!(world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok()["come"], 7);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_partner_is_a_shop_in_what_is_done_there_and_none_in_what_is_listed(engine: Engine) {
        let world = with_partner(engine).await;
        assert_eq!(ids(&world.operator("/shop/list", json!({})).await), [1]);
        assert_eq!(ids(&world.operator("/business/list", json!({})).await), [2]);
        assert_eq!(world.operator("/shop/get", json!({"id": 2})).await.code(), 2003);
        let edited = json!({"id": 2, "shop_name": "店", "phone": "1", "address": "a", "state": 0});
        assert_eq!(world.operator("/shop/edit", edited).await.code(), 2003);
        world.operator("/user/add", json!({"id": 1002, "name": "店員", "shop_id": 2})).await.ok();
        assert_eq!(world.operator("/user/info", json!({"id": 1002})).await.ok()["shop_name"], "隔壁咖啡");
        let employee = Caller::Employee(1002);
        // For every own shop: not here. Listed: here, by himself with the QR, or at the counter.
        let anywhere = world.define(json!({})).await;
        let here = world.define(json!({"shop_ids": "2", "need_scan": 1})).await;
        let own = world.issue(anywhere, 439).await;
        assert_eq!(redeem(&world, MEMBER, &own.into(), 2).await.code(), 3002);
        let counter = async |id: i64| world.call(employee, "/user/auditelecoupon", json!({"mem_coupon_id": id})).await;
        assert_eq!(counter(own).await.code(), 3002);
        let (scanned, shown) = (world.issue(here, 439).await, world.issue(here, 439).await);
        let usable = world.call(MEMBER, "/client/getauditcoupon", json!({"shop_id": 2})).await;
        assert_eq!(ids(&usable), [shown, scanned]);
        let seen = world.call(employee, "/user/auditelecouponlist", json!({"member_id": 439})).await;
        assert_eq!(ids(&seen), [shown, scanned]);
        let qr = world.call(PARTNER, "/businesshome/auditqrcode", json!({})).await;
        assert_eq!(qr.ok(), world.operator("/shop/auditqrcode", json!({"id": 2})).await.ok());
        assert_eq!(world.call(MEMBER, "/client/shopid", json!({"audit_url": qr.ok()["url"]})).await.ok(), 2);
        let with_qr = json!({"mem_coupon_id": scanned, "shop_id": 2, "audit_url": qr.ok()["url"]});
        let used = world.call(MEMBER, "/client/auditcoupon", with_qr).await.ok()["id"].clone();
        assert_eq!(world.call(MEMBER, "/client/auditcouponinfo", json!({"id": used})).await.ok()["shop_name"], "隔壁咖啡");
        counter(shown).await.ok();
        let offers = world.call(MEMBER, "/wechat/businesscoupon", json!({"business_id": 2})).await;
        assert_eq!(ids(&offers), [here]);
        // What a member used there on one local day, and nobody else.
        let days = async |caller, date: &str| {
            world.call(caller, "/wechat/auditlist", json!({"business_id": 2, "date": date})).await.ok().as_array().unwrap().len()
        };
        assert_eq!([days(MEMBER, "2026-11-23").await, days(MEMBER, "2026-11-24").await, days(FRIEND, "2026-11-23").await], [2, 0, 0]);
        // Closed, nothing is redeemed there.
        let last = world.issue(here, 439).await;
        edit(&world, 2, 0).await;
        assert_eq!(counter(last).await.code(), 2003);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn the_page_behind_a_partners_qr_shows_what_can_be_taken_from_him(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({"title": "咖啡<券>"})).await;
        allot(&world, 2, definition, 1, "2026-12-31").await;
        let url = world.call(PARTNER, "/businesshome/giveqrcode", json!({})).await.ok()["url"].as_str().unwrap().to_owned();
        let path = url.strip_prefix("http://127.0.0.1:8787").unwrap().to_owned();
        let page = async |path: &str| {
            let reply = world.raw("GET", path, &[], Vec::new()).await;
            (reply.status.as_u16(), reply.body.as_str().unwrap().to_owned())
        };
        let (status, text) = page(&path).await;
        assert_eq!(status, 200);
        assert!(text.contains("<h1>隔壁咖啡</h1><p>咖啡&lt;券&gt;</p>"), "{text}");
        take(&world, MEMBER).await.ok();
        assert!(!page(&path).await.1.contains("<p>"));
        assert_eq!(page(&path.replace("/2/", "/1/")).await.0, 404);
        edit(&world, 2, 0).await;
        assert_eq!(page(&path).await.0, 404);
        world.close().await;
    }

    async fn no_partner_has_more_open_allotments_than_one_call_takes(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({})).await;
        for _ in 0..100 {
            allot(&world, 2, definition, 1, "2026-11-23").await;
        }
        let one_more = json!({"business_id": 2, "coupon_id": definition, "num": 1, "end_time": "2026-11-24"});
        assert_eq!(world.operator("/business/addattract", one_more.clone()).await.code(), 401);
        assert_eq!(codes(&take(&world, MEMBER).await), [0; 100]);
        // Once they have ended there is room, and none for one of them to be opened again.
        world.advance(DAY);
        for _ in 0..100 {
            allot(&world, 2, definition, 1, "2026-11-24").await;
        }
        let reopen = json!({"id": 1, "end_time": "2026-11-24"});
        assert_eq!(world.operator("/business/editattract", reopen).await.code(), 401);
        world.close().await;
    }

    async fn a_rebuild_counts_what_was_taken(engine: Engine) {
        let world = with_partner(engine).await;
        let definition = world.define(json!({"num": 20, "shop_ids": "1"})).await;
        let allotment = allot(&world, 2, definition, 2, "2026-12-31").await;
        let (mine, voided) = (take(&world, MEMBER).await, take(&world, FRIEND).await);
        redeem(&world, MEMBER, &mine.ok()[0]["id"], 1).await.ok();
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": voided.ok()[0]["id"], "reason": "x"})).await.ok();
        let lines = world.call(PARTNER, "/businesshome/auditcoupon", json!({})).await.body;
        for damage in [
            "DELETE FROM partners_v1",
            "DELETE FROM partner_coupons_v1",
            "DELETE FROM allotment_changes_v1",
            "UPDATE allotments_v1 SET num = 99",
            "UPDATE stock_v1 SET issued = 0",
        ] {
            world.home.sql(damage).await.unwrap();
        }
        rebuild(&world.ledger, "all").await.unwrap();
        assert_rows_equal_replay(&world).await;
        assert_eq!(world.call(PARTNER, "/businesshome/auditcoupon", json!({})).await.body, lines);
        assert_eq!(left(&world, allotment).await, 1);
        assert_eq!([codes(&take(&world, FRIEND).await), codes(&take(&world, FRIEND).await)], [[0], [5001]]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }
}
