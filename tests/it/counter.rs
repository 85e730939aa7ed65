//! The counter: a code that is worth one redemption for a minute, what employees see, and what they have redeemed.

use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, FRIEND, MEMBER, World};

async fn code_of(world: &World, member: Caller, id: i64) -> String {
    let shown = world.call(member, "/client/auditcode", json!({"id": id})).await;
    shown.ok()["code"].as_str().unwrap().to_owned()
}

async fn scan(world: &World, code: &str) -> i64 {
    world.call(EMPLOYEE, "/user/auditbycode", json!({"code": code})).await.code()
}

fn ids(list: &Value) -> Vec<i64> {
    list.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

on_both_engines! {
    async fn a_code_is_worth_one_redemption(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let shown = world.call(MEMBER, "/client/auditcode", json!({"id": id})).await;
        assert_eq!(shown.ok()["lapse_date"], "2026-11-23 12:01:00");
        assert!(shown.ok()["svg"].as_str().unwrap().contains("<svg"), "{}", shown.body);
        let code = shown.ok()["code"].as_str().unwrap().to_owned();
        let used = world.keyed(EMPLOYEE, "counter-1", "/user/auditbycode", json!({"code": code})).await;
        assert_eq!((&used.ok()["mem_coupon_id"], &used.ok()["user_id"]), (&json!(id.to_string()), &json!(1000)));
        let other = world.keyed(EMPLOYEE, "counter-1", "/user/auditbycode", json!({"code": "garbage"})).await;
        assert_eq!(other.code(), 6001);
        // The same request again is the same answer, another one meets a used coupon.
        let again = world.keyed(EMPLOYEE, "counter-1", "/user/auditbycode", json!({"code": code})).await;
        assert_eq!((again.ok(), again.replayed()), (used.ok(), true));
        assert_eq!(scan(&world, &code).await, 3001);
        // Taken back, the coupon is good again, and the code is not.
        let reverse = json!({"id": used.ok()["id"], "reason": "按錯"});
        world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
        assert_eq!(scan(&world, &code).await, 7005);
        assert_eq!(scan(&world, &code_of(&world, MEMBER, id).await).await, 0);
        world.close().await;
    }

    async fn a_code_lapses_within_a_minute_and_with_anything_that_happens_to_the_coupon(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let late = code_of(&world, MEMBER, id).await;
        world.advance(60_000);
        assert_eq!(scan(&world, &late).await, 7005);
        let opened = code_of(&world, MEMBER, id).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
        assert_eq!(scan(&world, &opened).await, 7005);
        let given = code_of(&world, MEMBER, id).await;
        world.give(MEMBER, id).await;
        assert_eq!(scan(&world, &given).await, 3003);
        world.call(MEMBER, "/client/withdrawcoupon", json!({"id": id})).await.ok();
        assert_eq!(scan(&world, &given).await, 7005);
        let just = code_of(&world, MEMBER, id).await;
        world.advance(59_999);
        assert_eq!(scan(&world, &just).await, 0);
        world.close().await;
    }

    async fn nobody_else_makes_a_code(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let (id, other) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let code = code_of(&world, MEMBER, id).await;
        for at in 0..code.len() {
            for bit in 0..8 {
                let mut forged = code.clone().into_bytes();
                forged[at] ^= 1 << bit;
                let Ok(forged) = String::from_utf8(forged) else { continue };
                let answer = scan(&world, &forged).await;
                assert!([401, 7005].contains(&answer), "{forged}: {answer}");
            }
        }
        for forged in ["cc1", "cc1.1.1.1", "cc1.1.1.1.", "....", &code[..code.len() - 1], &format!("{code}A")] {
            assert_eq!(scan(&world, forged).await, 7005, "{forged}");
        }
        // Of another coupon it says nothing.
        let body = json!({"mem_coupon_id": other, "counter_code": code});
        assert_eq!(world.call(EMPLOYEE, "/user/auditelecoupon", body).await.code(), 7005);
        // And only whoever holds a coupon that can be used shows one.
        assert_eq!(world.call(FRIEND, "/client/auditcode", json!({"id": id})).await.code(), 2001);
        assert_eq!(world.call(MEMBER, "/client/auditcode", json!({"id": 999})).await.code(), 2001);
        assert_eq!(scan(&world, &code).await, 0);
        assert_eq!(world.call(MEMBER, "/client/auditcode", json!({"id": id})).await.code(), 3001);
        world.give(MEMBER, other).await;
        assert_eq!(world.call(MEMBER, "/client/auditcode", json!({"id": other})).await.code(), 3003);
        world.close().await;
    }

    async fn where_codes_alone_redeem_an_id_is_not_enough(engine: Engine) {
        let mut world = World::with_people(engine).await;
        world.set_options(HttpOptions { counter_codes_only: true, ..HttpOptions::default() });
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let by_id = |code: Option<String>| json!({"mem_coupon_id": id, "counter_code": code});
        assert_eq!(world.call(EMPLOYEE, "/user/auditelecoupon", by_id(None)).await.code(), 7005);
        let code = code_of(&world, MEMBER, id).await;
        world.call(EMPLOYEE, "/user/auditelecoupon", by_id(Some(code))).await.ok();
        world.close().await;
    }

    async fn an_employee_sees_what_he_could_redeem(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/shop/add", json!({"shop_name": "分店", "phone": "1", "address": "a"})).await.ok();
        let plain = world.define(json!({})).await;
        let elsewhere = world.define(json!({"shop_ids": "2"})).await;
        let tuesdays = world.define(json!({"use_week": "2"})).await;
        let later = world.define(json!({"start_num": "3"})).await;
        let (first, other, tuesday) =
            (world.issue(plain, 439).await, world.issue(elsewhere, 439).await, world.issue(tuesdays, 439).await);
        world.issue(later, 439).await;
        let given = world.issue(plain, 439).await;
        world.give(MEMBER, given).await;
        let list = async |caller, body: Value| world.call(caller, "/user/auditelecouponlist", body).await;
        let seen = list(EMPLOYEE, json!({"member_id": 439})).await;
        assert_eq!(ids(seen.ok()), [tuesday, first]);
        assert_eq!((&seen.ok()[0]["is_use_week"], &seen.ok()[1]["is_use_week"]), (&json!(0), &json!(1)));
        assert_eq!((&seen.ok()[1]["come"], &seen.ok()[1]["give_id"]), (&json!(5), &json!(0)));
        let all = list(Caller::Operator, json!({"member_id": 439, "page": 2, "limit": 2})).await;
        assert_eq!(ids(all.ok()), [first]);
        assert_eq!(ids(list(Caller::Operator, json!({"member_id": 439, "before_id": tuesday})).await.ok()), [other, first]);
        assert_eq!(list(EMPLOYEE, json!({"member_id": 999})).await.code(), 310);
        assert_eq!(list(Caller::Employee(5), json!({"member_id": 439})).await.code(), 310);
        // Who has left is told so before his fields are looked at.
        world.operator("/user/add", json!({"id": 1009, "name": "前店員", "shop_id": 1, "state": 0})).await.ok();
        assert_eq!(list(Caller::Employee(1009), json!({})).await.code(), 1002);
        world.close().await;
    }

    async fn redemptions_are_listed_by_shop_and_day(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/shop/add", json!({"shop_name": "分店", "phone": "1", "address": "a"})).await.ok();
        world.operator("/user/add", json!({"id": 1002, "name": "店員", "shop_id": 2})).await.ok();
        let definition = world.define(json!({})).await;
        let use_at = async |shop: i64| {
            let id = world.issue(definition, 439).await;
            let body = json!({"mem_coupon_id": id, "shop_id": shop});
            let used = world.call(MEMBER, "/client/auditcoupon", body).await;
            used.ok()["id"].as_str().unwrap().parse::<i64>().unwrap()
        };
        let (monday, branch) = (use_at(1).await, use_at(2).await);
        world.advance(DAY);
        let tuesday = use_at(1).await;
        world.operator("/user/reverseelecoupon", json!({"id": tuesday, "reason": "按錯"})).await.ok();
        let list = async |caller, body: Value| world.call(caller, "/auditelecoupon/getlist", body).await;
        let all = list(Caller::Operator, json!({})).await;
        assert_eq!(ids(all.ok()), [tuesday, branch, monday]);
        assert_eq!(all.ok()[0]["member_info"], json!({"nickname": "小明", "headimgurl": "http://p/132"}));
        assert_ne!(all.ok()[0]["reverse_date"], 0);
        assert_eq!(ids(list(EMPLOYEE, json!({})).await.ok()), [tuesday, monday]);
        assert_eq!(ids(list(Caller::Employee(1002), json!({})).await.ok()), [branch]);
        let of = json!({"begin": "2026-11-23", "end": "2026-11-23", "shop_id": 1});
        assert_eq!(ids(list(Caller::Auditor, of.clone()).await.ok()), [monday]);
        assert_eq!(list(Caller::Employee(1002), of).await.code(), 1002);
        assert_eq!(ids(list(Caller::Operator, json!({"begin": "2026-11-24"})).await.ok()), [tuesday]);
        assert_eq!(ids(list(Caller::Operator, json!({"page": 2, "limit": 2})).await.ok()), [monday]);
        for wrong in [
            json!({"begin": "2026-11-24", "end": "2026-11-23"}), json!({"begin": "2026-02-30"}), json!({"limit": 101}),
        ] {
            assert_eq!(list(Caller::Operator, wrong).await.code(), 401);
        }
        let shops = world.call(EMPLOYEE, "/auditelecoupon/getshoplist", json!({})).await;
        assert_eq!(ids(shops.ok()), [2, 1]);
        world.close().await;
    }
}
