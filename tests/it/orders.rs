//! Orders: their coupons all or none, what they earn, what a cancel gives back; whatever conflicts or is killed meanwhile.

use coupon_ledger::coupon::Redeemer;
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{ExecuteError, Meta};
use coupon_ledger::order::Placement;
use coupon_ledger::ordering::{Place, Use};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};

use crate::commit::Behind;
use crate::harness::{DAY, EMPLOYEE, FRIEND, HOUR, Home, MEMBER, Reply, Server, World, definition};
use crate::outside::{Api, all_at_once, assert_gapless, count, events, tally, until};
use crate::proxy::Cut;
use crate::replay::assert_rows_equal_replay;

macro_rules! sample {
    ($name:literal, $reply:expr) => {{
        let reply = &$reply;
        insta::allow_duplicates! { insta::assert_json_snapshot!($name, reply.body) }
    }};
}

/// Two of goods 7 at 100.00 each for member 439, with these fields changed.
#[allow(clippy::needless_pass_by_value, reason = "callers write json!({…}) in place")]
fn order(changes: Value) -> Value {
    let mut body = json!({
        "member_id": 439, "goods": [{"goods_id": 7, "price": "100.00", "state": 1, "count": 2}], "ora_id": 0,
        "order_coupon_list": "", "use_coupon_list": "0", "score": 0, "balance": "0", "remark": "",
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn place(world: &World, changes: Value) -> Reply {
    world.call(EMPLOYEE, "/order/add", order(changes)).await
}

async fn placed(world: &World, changes: Value) -> i64 {
    place(world, changes).await.ok()["id"].as_i64().unwrap()
}

async fn cancel(world: &World, id: i64) -> Reply {
    world.call(EMPLOYEE, "/order/cancel", json!({"id": id})).await
}

/// Which of a member's coupons are in this state.
async fn coupons(world: &World, member: Caller, state: i64) -> Vec<i64> {
    let list = world.call(member, "/client/couponlist", json!({"state": state, "limit": 100})).await;
    list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// A rule by which an order of 100.00 earns two coupons of this definition.
async fn amount_rule(world: &World, definition: i64) -> i64 {
    let body = json!({"amount": 100, "json": [{"coupon_id": definition, "num": 2}]});
    world.operator("/orderamount/add", body).await.ok()["id"].as_str().unwrap().parse().unwrap()
}

/// A group that holds these goods and grants one coupon of this definition.
async fn group(world: &World, goods: &str, definition: i64) -> i64 {
    let added = world.operator("/goodsgroup/add", json!({"title": "飲品"})).await;
    let id: i64 = added.ok()["id"].to_string().trim_matches('"').parse().unwrap();
    world.operator("/goodsgroup/setgoods", json!({"id": id, "goods_ids": goods})).await.ok();
    let coupon_ids = json!([{"id": definition, "num": 1}]);
    world.operator("/goodselecoupon/add", json!({"goodsgroup_id": id, "coupon_ids": coupon_ids})).await.ok();
    id
}

on_both_engines! {
    async fn an_order_uses_its_coupons_and_issues_what_it_earned_in_one_transaction(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"use_limit": 1})).await;
        let drink = world.define(json!({"type": 2, "title": "飲品券", "deduction": "0"})).await;
        let rule = amount_rule(&world, drink).await;
        let group = group(&world, "7,8", cash).await;
        let (first, second) = (world.issue(cash, 439).await, world.issue(cash, 439).await);
        let before = count(&world.home, "SELECT position FROM log_head").await;
        let body = order(json!({
            "goods": [
                {"goods_id": 7, "price": "100.00", "state": 1, "count": 2, "coupon_list": [{"coupon_id": cash, "num": 2}]},
                {"goods_id": 9, "price": 5, "state": 0, "count": "1"},
                {"goods_id": 9, "price": "85.50", "state": -1, "count": 1},
            ],
            "ora_id": rule, "order_coupon_list": [{"coupon_id": drink, "num": 1}],
            "use_coupon_list": format!("{first},{second}"), "score": 30, "balance": "12.5", "remark": "少冰",
            "order_no": "T-1",
        }));
        let done = world.keyed(EMPLOYEE, "order-key", "/order/add", body.clone()).await;
        sample!("order_add", done);
        let id = done.ok()["id"].clone();
        // Two redemptions, three coupons and the order itself, side by side, under one append.
        let appended = world.home.sql(&format!("SELECT event_type FROM events WHERE position > {before} ORDER BY position")).await;
        assert_eq!(appended.unwrap(), ["Redeemed", "Redeemed", "Issued", "Issued", "Issued", "Placed"]);
        let appends = format!("SELECT count(DISTINCT metadata->>'append_id') FROM events WHERE position > {before}");
        assert_eq!(count(&world.home, &appends).await, 1);
        sample!("order_get", world.call(EMPLOYEE, "/order/get", json!({"id": id})).await);
        sample!("order_list", world.operator("/order/list", json!({"member_id": 439, "begin": "2026-11-23", "end": "2026-11-23"})).await);
        let earned = coupons(&world, MEMBER, 0).await;
        assert_eq!(earned.len(), 3);
        let mut born = Vec::new();
        for coupon in earned {
            let info = world.call(MEMBER, "/client/couponinfo", json!({"id": coupon})).await.ok().clone();
            born.push((info["come"].clone(), info["order_id"].clone(), info["goods_id"].clone(), info["user_id"].clone()));
        }
        let by_goods = (json!(2), id.clone(), json!(7), json!(1000));
        assert_eq!(born, [by_goods.clone(), by_goods, (json!(1), id.clone(), json!(0), json!(1000))]);
        let behind = world.home.sql("SELECT CAST(payload AS TEXT) FROM events WHERE event_type = 'Issued' ORDER BY position").await;
        let behind = behind.unwrap();
        assert!(behind[2].contains(&format!(r#""source":"order_amount","source_id":{rule}"#)), "{behind:?}");
        assert!(behind[3].contains(&format!(r#""source":"product_group","source_id":{group}"#)), "{behind:?}");

        // The same key, and the same number under another key or none: the same order, and nothing is written.
        let head = count(&world.home, "SELECT position FROM log_head").await;
        for again in [
            world.keyed(EMPLOYEE, "order-key", "/order/add", body.clone()).await,
            world.keyed(EMPLOYEE, "other-key", "/order/add", body.clone()).await,
            world.call(Caller::Operator, "/order/add", body.clone()).await,
        ] {
            assert_eq!((&again.body, again.replayed()), (&done.body, true));
        }
        let other = world.call(EMPLOYEE, "/order/add", order(json!({"order_no": "T-1"}))).await;
        assert_eq!(other.code(), 6001);
        assert_eq!(count(&world.home, "SELECT position FROM log_head").await, head);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn each_refusal_of_an_order_leaves_nothing_behind(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"use_limit": 1})).await;
        let alone = world.define(json!({"money": "0"})).await;
        let dear = world.define(json!({"money": "200.01", "use_limit": 1})).await;
        let weekend = world.define(json!({"use_week": "6,7"})).await;
        let later = world.define(json!({"start_num": "2"})).await;
        let elsewhere = world.define(json!({"shop_ids": "2"})).await;
        let short = world.define(json!({"end_num": "1"})).await;
        let scarce = world.define(json!({"num": 1})).await;
        let limited = world.define(json!({"get_limit_type": 2, "get_limit": 1})).await;
        let one_at_a_time = world.define(json!({"get_limit_type": 3})).await;
        let gold = world.define(json!({"get_limit_type": 4, "level_ids": "3"})).await;
        let off = world.define(json!({})).await;
        let mut rules = std::collections::BTreeMap::new();
        for definition in [scarce, limited, one_at_a_time, gold, off] {
            rules.insert(definition, amount_rule(&world, definition).await);
        }
        let expired = world.issue(short, 439).await;
        world.advance(2 * DAY);
        let good = world.issue(cash, 439).await;
        let issue = async |definition| world.issue(definition, 439).await;
        let used = issue(cash).await;
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": used})).await.ok();
        let voided = issue(cash).await;
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": voided, "reason": "發錯"})).await.ok();
        let given = issue(cash).await;
        world.give(MEMBER, given).await;
        world.issue(scarce, 442).await;
        issue(limited).await;
        issue(one_at_a_time).await;
        world.operator("/elecoupons/state", json!({"id": off, "state": 0})).await.ok();
        let foreign = world.issue(cash, 442).await;
        let (unstarted, at_weekend, else_where) = (issue(later).await, issue(weekend).await, issue(elsewhere).await);
        let (dear, alone) = (issue(dear).await, issue(alone).await);
        let earns = |definition: i64| json!({
            "use_coupon_list": [good], "ora_id": rules[&definition],
            "order_coupon_list": [{"coupon_id": definition, "num": 2}],
        });
        let mut cases: Vec<(i64, Value)> = vec![
            (310, json!({"member_id": 999, "use_coupon_list": [good]})),
            (2005, json!({"ora_id": 99, "use_coupon_list": [good]})),
        ];
        for (code, coupon) in [
            (2001, 9_999_999), (2001, foreign), (3004, voided), (3001, used), (3003, given), (4002, expired),
            (4001, unstarted), (4003, at_weekend), (3002, else_where), (5004, dear), (5005, alone),
        ] {
            // The good one first: it is not used either.
            cases.push((code, json!({"use_coupon_list": [good, coupon]})));
        }
        for (code, definition) in [(5001, scarce), (5002, limited), (5002, one_at_a_time), (5003, gold), (5006, off)] {
            cases.push((code, earns(definition)));
        }
        let head = count(&world.home, "SELECT position FROM log_head").await;
        for (code, changes) in cases {
            let reply = world.keyed(EMPLOYEE, "never-used", "/order/add", order(changes.clone())).await;
            assert_eq!(reply.code(), code, "{changes}: {}", reply.body);
        }
        // At a shop that is not there, and at none.
        for shop_id in [9, 0] {
            let body = order(json!({"use_coupon_list": [good], "shop_id": shop_id}));
            assert_eq!(world.operator("/order/add", body).await.code(), 2003);
        }
        assert_eq!(world.operator("/order/add", order(json!({"shop_id": 9}))).await.code(), 2003);
        assert_eq!(place(&world, json!({"shop_id": 2})).await.code(), 1002);
        assert_eq!(count(&world.home, "SELECT position FROM log_head").await, head);
        assert_eq!(events(&world.home, "Placed").await, 0);
        // None of them used the key up.
        world.keyed(EMPLOYEE, "never-used", "/order/add", order(json!({"use_coupon_list": [good]}))).await.ok();
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    /// The path of what is wrong, for what is inside a field.
    async fn bad_lists_are_told_with_their_path(engine: Engine) {
        let world = World::with_people(engine).await;
        let drink = world.define(json!({})).await;
        let rule = amount_rule(&world, drink).await;
        let line = |changes: Value| {
            let mut line = json!({"goods_id": 7, "price": "1.00", "state": 1, "count": 1});
            for (name, value) in changes.as_object().unwrap() {
                line[name] = value.clone();
            }
            json!({"goods": [{"goods_id": 7, "price": "1", "state": 1, "count": 1}, line]})
        };
        let granted = |list: Value| json!({"ora_id": rule, "order_coupon_list": list});
        let cases = [
            ("goods", json!({"goods": "[{'goods_id':7}]"}), "goods is no JSON: see character 3"),
            ("goods", json!({"goods": "{}"}), "goods must be a JSON list of objects"),
            ("goods", json!({"goods": [7]}), "goods must be a JSON list of objects"),
            ("goods", json!({"goods": ""}), "goods is required"),
            ("goods", line(json!({"price": "1.005"})), "goods[1].price must be an amount with at most two decimals"),
            ("goods", line(json!({"price": "-1"})), "goods[1].price must be an amount with at most two decimals"),
            ("goods", line(json!({"state": 2})), "goods[1].state must be between -1 and 1"),
            ("goods", line(json!({"count": -1})), "goods[1].count must be between 1 and 100000"),
            ("goods", line(json!({"coupon_list": "[{\"coupon_id\":1}]"})), "goods[1].coupon_list[0].num is required"),
            ("goods", line(json!({"coupon_list": [{"coupon_id": drink, "num": 1}]})),
                "goods[1].coupon_list[0].num is more than the rule grants"),
            ("order_coupon_list", granted(json!([{"coupon_id": drink, "num": 3}])),
                "order_coupon_list[0].num is more than the rule grants"),
            ("order_coupon_list", granted(json!([{"coupon_id": drink, "num": 1}, {"coupon_id": drink, "num": 2}])),
                "order_coupon_list[1].num is more than the rule grants"),
            ("order_coupon_list", json!({"order_coupon_list": [{"coupon_id": drink, "num": 1}]}),
                "order_coupon_list[0].num is more than the rule grants"),
            ("order_coupon_list", granted(json!([{"coupon_id": drink, "num": 501}])),
                "order_coupon_list[0].num must be between 1 and 500"),
            ("use_coupon_list", json!({"use_coupon_list": "1,1"}), "use_coupon_list has an entry twice"),
            ("balance", json!({"balance": "1.234"}), "balance must be an amount with at most two decimals"),
            ("score", json!({"score": -1}), "score must be between 0 and 9007199254740991"),
        ];
        for (field, changes, said) in cases {
            let bearer = format!("Bearer {}", world.token(EMPLOYEE));
            let headers = [("authorization", bearer.as_str()), ("accept-language", "en")];
            let reply = world.request("/order/add", &headers, &order(changes.clone()).to_string()).await;
            assert_eq!((reply.code(), &reply.body["info"]), (401, &json!({field: said})), "{changes}");
        }
        // An order below the rule's amount is granted nothing, and may still be placed.
        let small = json!([{"goods_id": 7, "price": "99.99", "state": 1, "count": 1}]);
        let asks = json!({"goods": small, "ora_id": rule, "order_coupon_list": [{"coupon_id": drink, "num": 1}]});
        assert_eq!(place(&world, asks).await.code(), 401);
        placed(&world, json!({"goods": small, "ora_id": rule})).await;
        world.close().await;
    }

    async fn json_in_a_form_is_the_same_order(engine: Engine) {
        let world = World::with_people(engine).await;
        let body = order(json!({}));
        let done = world.keyed(EMPLOYEE, "both-ways", "/order/add", body).await;
        let form = "member_id=439&goods=%5B%7B%22goods_id%22%3A%227%22%2C%22price%22%3A%22100.00%22%2C%22state%22%3A1%2C\
                    %22count%22%3A2%7D%5D&ora_id=0&order_coupon_list=&use_coupon_list=0&score=0&balance=0&remark=";
        let bearer = format!("Bearer {}", world.token(EMPLOYEE));
        let headers = [
            ("authorization", bearer.as_str()), ("idempotency-key", "both-ways"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let again = world.request("/order/add", &headers, form).await;
        assert_eq!((&again.body, again.replayed()), (&done.body, true));
        world.close().await;
    }

    async fn a_cancel_returns_what_was_used_and_voids_what_was_earned(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"use_limit": 1, "money": "0"})).await;
        let short = world.define(json!({"use_limit": 1, "money": "0", "end_num": "1"})).await;
        let drink = world.define(json!({"type": 2, "title": "飲品券", "num": 20})).await;
        let four = json!({"amount": 100, "json": [{"coupon_id": drink, "num": 4}]});
        let rule = world.operator("/orderamount/add", four).await.ok()["id"].clone();
        let (back, reversed, ended) =
            (world.issue(cash, 439).await, world.issue(cash, 439).await, world.issue(short, 439).await);
        let id = placed(&world, json!({
            "use_coupon_list": [back, reversed, ended], "ora_id": rule,
            "order_coupon_list": [{"coupon_id": drink, "num": 4}],
        })).await;
        let earned = coupons(&world, MEMBER, 0).await;
        let [unused, pending, given, used] = earned[..] else { panic!("{earned:?}") };
        world.give(MEMBER, pending).await;
        let code = world.give(MEMBER, given).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": given, "code": code})).await.ok();
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": used, "shop_id": 1})).await.ok();
        // One of them was taken back by hand already, and has been used again.
        let redemption = world.home.sql(&format!("SELECT redemption_id FROM redemptions_v1 WHERE coupon_id = {reversed}")).await.unwrap();
        world.operator("/user/reverseelecoupon", json!({"id": redemption[0], "reason": "按錯"})).await.ok();
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": reversed})).await.ok();
        world.advance(DAY + HOUR);

        let before = world.call(EMPLOYEE, "/order/cancelago", json!({"id": id})).await;
        let kept = json!([
            {"id": reversed, "code": 3012}, {"id": ended, "code": 4002}, {"id": given, "code": 3009}, {"id": used, "code": 3001},
        ]);
        let mut kept_rows: Vec<Value> = before.ok()["kept"].as_array().unwrap().clone();
        kept_rows.sort_by_key(|row| kept.as_array().unwrap().iter().position(|wanted| wanted == row));
        assert_eq!(json!(kept_rows), kept);
        assert_eq!(before.ok()["returned"], json!([back]));
        let mut voided: Vec<i64> = before.ok()["voided"].as_array().unwrap().iter().map(|id| id.as_i64().unwrap()).collect();
        voided.sort_unstable_by(|one, other| other.cmp(one));
        assert_eq!(voided, [unused, pending]);
        let done = world.keyed(EMPLOYEE, "cancel-it", "/order/cancel", json!({"id": id})).await;
        assert_eq!(done.ok(), before.ok(), "it does what it said");
        let again = world.keyed(EMPLOYEE, "cancel-it", "/order/cancel", json!({"id": id})).await;
        assert_eq!((&again.body, again.replayed()), (&done.body, true));
        for route in ["/order/cancel", "/order/cancelago"] {
            assert_eq!(world.call(EMPLOYEE, route, json!({"id": id})).await.code(), 3011);
            assert_eq!(world.call(EMPLOYEE, route, json!({"id": 999})).await.code(), 2006);
        }
        assert_eq!(coupons(&world, MEMBER, 0).await, [back]);
        assert_eq!(world.operator("/elecoupons/info", json!({"id": drink})).await.ok()["inventory"], 18);
        let row = world.call(EMPLOYEE, "/order/get", json!({"id": id})).await.ok().clone();
        assert_eq!((&row["state"], &row["cancel_time"]), (&json!(0), &json!("2026-11-24 13:00:00")));
        // What came back can be used once more.
        placed(&world, json!({"use_coupon_list": [back]})).await;
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    /// He has paid for it: that it comes back takes an operator's word.
    async fn a_partners_coupon_is_returned_by_an_operators_word_only(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"money": "0", "use_limit": 1})).await;
        let partner = json!({"shop_name": "夥伴店", "phone": "1", "address": "a"});
        let partner = world.operator("/business/add", partner).await.ok()["id"].clone();
        let allotment = json!({"business_id": partner, "coupon_id": cash, "num": 2, "end_time": "2027-12-31"});
        world.operator("/business/addattract", allotment).await.ok();
        let taken = world.call(MEMBER, "/wechat/receive", json!({"business_id": partner})).await.ok()[0]["id"].clone();
        let own = world.issue(cash, 439).await;
        let uses = json!({"use_coupon_list": [taken, own]});
        let (first, second) = (placed(&world, uses.clone()).await, placed(&world, json!({})).await);
        let left = json!({"id": first, "returned": [own], "voided": [], "kept": [{"id": taken, "code": 1002}]});
        for caller in [EMPLOYEE, Caller::Operator] {
            let ago = world.call(caller, "/order/cancelago", json!({"id": first})).await;
            assert_eq!(ago.ok(), &left, "nobody has said the word");
        }
        assert_eq!(cancel(&world, first).await.ok(), &left);
        assert_eq!(coupons(&world, MEMBER, 0).await, [own]);
        // What an order keeps stays used, and another order's cancel does not touch it.
        cancel(&world, second).await.ok();
        assert_eq!(place(&world, uses).await.code(), 3001);

        let again = world.call(FRIEND, "/wechat/receive", json!({"business_id": partner})).await.ok()[0]["id"].clone();
        let order = placed(&world, json!({"member_id": 442, "use_coupon_list": [again]})).await;
        let word = json!({"id": order, "return_partner": 1});
        let done = world.operator("/order/cancel", word).await;
        assert_eq!(done.ok(), &json!({"id": order, "returned": [again], "voided": [], "kept": []}));
        assert_eq!(json!(coupons(&world, FRIEND, 0).await), json!([again]));
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn employees_see_and_cancel_only_the_orders_of_their_shop(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/shop/add", json!({"shop_name": "二", "phone": "1", "address": "a"})).await.ok();
        world.operator("/user/add", json!({"id": 1001, "name": "他", "shop_id": 2})).await.ok();
        let id = placed(&world, json!({})).await;
        let other = Caller::Employee(1001);
        for route in ["/order/get", "/order/cancelago", "/order/cancel"] {
            assert_eq!(world.call(other, route, json!({"id": id})).await.code(), 2006, "{route}");
        }
        assert_eq!(world.call(other, "/order/list", json!({})).await.ok(), &json!([]));
        assert_eq!(world.call(other, "/order/list", json!({"shop_id": 1})).await.code(), 1002);
        assert_eq!(world.call(EMPLOYEE, "/order/list", json!({})).await.ok()[0]["id"], id);
        assert_eq!(world.call(EMPLOYEE, "/order/cancel", json!({"id": id, "return_partner": 1})).await.code(), 1002);
        for (caller, code) in [(MEMBER, 1002), (Caller::Employee(7), 310)] {
            for (route, body) in [("/order/add", order(json!({}))), ("/order/list", json!({})), ("/order/cancel", json!({"id": id}))] {
                assert_eq!(world.call(caller, route, body).await.code(), code, "{route}");
            }
        }
        cancel(&world, id).await.ok();
        world.close().await;
    }

    async fn a_till_learns_what_coupons_would_be_worth_and_redeems_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"use_limit": 1})).await;
        let alone = world.define(json!({"money": "0"})).await;
        let dear = world.define(json!({"money": "200.01"})).await;
        let drink = world.define(json!({"type": 2, "title": "飲品券", "deduction": "0"})).await;
        let mut ids = Vec::new();
        for definition in [cash, cash, alone, dear, drink] {
            ids.push(world.issue(definition, 439).await);
        }
        let used = world.issue(cash, 439).await;
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": used})).await.ok();
        ids.extend([used, 9_999, world.issue(cash, 442).await]);
        let head = count(&world.home, "SELECT position FROM log_head").await;
        let check = json!({"member_id": 439, "coupons": ids, "goods": order(json!({}))["goods"]});
        sample!("checkcoupons", world.call(EMPLOYEE, "/user/checkcoupons", check).await);
        let alone = json!({"member_id": 439, "coupons": [ids[2]], "amount": "7.50"});
        sample!("checkcoupons_of_one", world.call(EMPLOYEE, "/user/checkcoupons", alone).await);
        for (body, code) in [
            (json!({"member_id": 439, "coupons": [ids[0]]}), 401),
            (json!({"member_id": 439, "amount": "1"}), 401),
            (json!({"member_id": 439, "coupons": [1, 1], "amount": "1"}), 401),
            (json!({"member_id": 999, "coupons": [1], "amount": "1"}), 310),
        ] {
            assert_eq!(world.call(EMPLOYEE, "/user/checkcoupons", body).await.code(), code);
        }
        assert_eq!(count(&world.home, "SELECT position FROM log_head").await, head);
        let list = world.call(EMPLOYEE, "/order/elecouponlist", json!({"member_id": 439})).await;
        let listed: Vec<i64> = list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
        assert_eq!(listed, [ids[3], ids[2], ids[1], ids[0]], "cash only, newest first");
        assert_eq!(world.call(EMPLOYEE, "/order/elecouponlist", json!({"member_id": 999})).await.code(), 310);
        world.close().await;
    }

    async fn where_only_codes_count_an_order_needs_one_for_each_coupon(engine: Engine) {
        let mut world = World::with_people(engine).await;
        let options = coupon_ledger::http::HttpOptions { counter_codes_only: true, ..Default::default() };
        world.set_options(options);
        let cash = world.define(json!({"use_limit": 1, "money": "0"})).await;
        let (first, second) = (world.issue(cash, 439).await, world.issue(cash, 439).await);
        let code = async |id: i64| {
            world.call(MEMBER, "/client/auditcode", json!({"id": id})).await.ok()["code"].as_str().unwrap().to_owned()
        };
        let codes = [code(first).await, code(second).await];
        let both = |codes: &str| json!({"use_coupon_list": [first, second], "counter_codes": codes});
        for wrong in ["", &codes[0], "garbage"] {
            assert_eq!(place(&world, both(wrong)).await.code(), 7005, "{wrong}");
        }
        let body = both(&codes.join(","));
        placed(&world, body.clone()).await;
        assert_eq!(place(&world, body).await.code(), 3001, "a code is good once");
        world.close().await;
    }

    /// Three coupons, and someone else uses one of them at the same moment: all or none, whoever is first.
    async fn an_order_that_conflicts_on_one_of_three_coupons_is_whole_or_not_there(engine: Engine) {
        let world = std::sync::Arc::new(World::with_people(engine).await);
        let cash = world.define(json!({"use_limit": 1, "money": "0"})).await;
        let (mut orders, mut lost) = (0, 0);
        for _ in 0..20 {
            let mut three = Vec::new();
            for _ in 0..3 {
                three.push(world.issue(cash, 439).await);
            }
            let calls = (0..4).map(|number| {
                let (world, three) = (world.clone(), three.clone());
                async move {
                    if number == 0 {
                        let body = json!({"mem_coupon_id": three[2], "shop_id": 1});
                        world.call(MEMBER, "/client/auditcoupon", body).await
                    } else {
                        // Named in other orders: turns are taken in one.
                        let mut list = three.clone();
                        list.rotate_left(number);
                        place(&world, json!({"use_coupon_list": list})).await
                    }
                }
            });
            let replies = all_at_once(calls).await;
            assert_eq!(tally(&replies), [(0, 1), (3001, 3)].into(), "one of four has them");
            let used = format!("SELECT count(*) FROM redemptions_v1 WHERE coupon_id IN ({},{},{})", three[0], three[1], three[2]);
            let whole = replies[0].code() != 0;
            assert_eq!(count(&world.home, &used).await, if whole { 3 } else { 1 });
            if whole { orders += 1 } else { lost += 1 }
        }
        assert_eq!(events(&world.home, "Placed").await, orders);
        assert_eq!(orders + lost, 20);
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
    }

    /// HTTP refuses it before; whoever else makes a plan cannot use one coupon twice either.
    async fn a_plan_that_changes_one_stream_twice_is_not_written(engine: Engine) {
        let world = World::with_people(engine).await;
        let cash = world.define(json!({"use_limit": 1, "money": "0"})).await;
        let coupon_id = world.issue(cash, 439).await;
        let once = Use { coupon_id, redeemer: Redeemer::Employee(1000) };
        let placement = Placement { member_id: 439, shop_id: 1, ..Placement::default() };
        let place = Place { order_id: 1, placement, sales: Vec::new(), earned: Vec::new(), uses: vec![once; 2], once: None };
        let meta = Meta {
            caller: EMPLOYEE, at: world.ledger.now(), request_id: "twice".to_owned(), receipt: None, job_id: None,
        };
        let twice = world.ledger.execute_together(&place, &meta).await;
        assert!(matches!(twice, Err(ExecuteError::Conflict)), "{twice:?}");
        assert_eq!((events(&world.home, "Redeemed").await, events(&world.home, "Placed").await), (0, 0));
        world.close().await;
    }

    async fn a_number_that_comes_at_once_under_many_keys_is_one_order(engine: Engine) {
        let world = std::sync::Arc::new(World::with_people(engine).await);
        let cash = world.define(json!({"money": "0"})).await;
        let coupon = world.issue(cash, 439).await;
        let body = order(json!({"use_coupon_list": [coupon], "order_no": "T-77"}));
        let calls = (0..20).map(|number| {
            let (world, body) = (world.clone(), body.clone());
            async move { world.keyed(EMPLOYEE, &format!("key-{number:04}"), "/order/add", body).await }
        });
        let replies = all_at_once(calls).await;
        assert!(replies.iter().all(|reply| reply.body == replies[0].body && reply.code() == 0), "{replies:?}");
        assert_eq!(replies.iter().filter(|reply| !reply.replayed()).count(), 1);
        assert_eq!((events(&world.home, "Placed").await, events(&world.home, "Redeemed").await), (1, 1));
    }

    async fn an_order_survives_being_killed_at_any_instant_whole(engine: Engine) {
        const ORDERS: usize = 60;
        let home = Home::new(engine).await;
        let mut server = Some(Server::start(&home, &[]).await);
        let api = Api::new(&home, server.as_ref().unwrap());
        let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
        api.operator("/shop/add", shop).await.ok();
        api.operator("/member/add", json!({"id": 439})).await.ok();
        let offer = definition(json!({"use_limit": 1, "money": "0"}));
        let cash = api.operator("/elecoupons/add", offer).await.ok()["id"].clone();
        let rule = json!({"amount": 1, "json": [{"coupon_id": cash, "num": 2}]});
        let rule = api.operator("/orderamount/add", rule).await.ok()["id"].clone();
        let mut random = StdRng::seed_from_u64(4);
        let mut kills = 0;
        for number in 0..ORDERS {
            let mut three = Vec::new();
            let api = Api::new(&home, server.as_ref().unwrap());
            for _ in 0..3 {
                let body = json!({"coupon_id": cash, "member_id": 439});
                three.push(api.operator("/sendelecoupon/one", body).await.ok()["id"].clone());
            }
            let body = order(json!({
                "shop_id": 1, "use_coupon_list": three, "ora_id": rule, "order_no": format!("T-{number}"),
                "order_coupon_list": [{"coupon_id": cash, "num": 2}],
            }));
            let placing = tokio::spawn({
                let (api, body) = (api.clone(), body.clone());
                async move { api.try_call(Caller::Operator, None, "/order/add", &body).await }
            });
            // Within the few milliseconds that it takes.
            tokio::time::sleep(std::time::Duration::from_micros(random.random_range(0..6_000))).await;
            if number % 3 == 0 {
                server.take().unwrap().kill().await;
                kills += 1;
                let _ = placing.await.unwrap();
                server = Some(Server::start(&home, &[]).await);
            } else {
                placing.await.unwrap().unwrap().ok();
            }
            // Whatever came of it, the same number is the same order.
            let api = Api::new(&home, server.as_ref().unwrap());
            until("the order is there", async || {
                api.try_call(Caller::Operator, None, "/order/add", &body).await.is_ok_and(|reply| reply.code() == 0)
            }).await;
        }
        assert_eq!(kills, ORDERS / 3);
        let orders = ORDERS as i64;
        assert_eq!((events(&home, "Placed").await, events(&home, "Redeemed").await), (orders, 3 * orders));
        assert_eq!(count(&home, "SELECT count(*) FROM wallet_v1 WHERE order_id > 0").await, 2 * orders);
        // Each append is whole: three uses, two coupons and the order, or none of them.
        let parts = "SELECT count(*) FROM (SELECT metadata->>'append_id' AS a FROM events
                     WHERE metadata->>'append_id' IN (SELECT metadata->>'append_id' FROM events WHERE event_type = 'Placed')
                     GROUP BY metadata->>'append_id' HAVING count(*) = 6) whole";
        assert_eq!(count(&home, parts).await, orders);
        assert_gapless(&home).await;
        server.unwrap().kill().await;
    }

    /// Whatever of the append the process was at: all of it is there afterwards, or nothing.
    async fn an_order_killed_within_any_statement_of_its_append_is_whole_or_not_there(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/shop/add", json!({"shop_name": "總店", "phone": "1", "address": "a"})).await.ok();
        api.operator("/member/add", json!({"id": 439})).await.ok();
        let offer = definition(json!({"use_limit": 1, "money": "0", "get_limit_type": 2, "get_limit": 100}));
        let cash = api.operator("/elecoupons/add", offer).await.ok()["id"].clone();
        let rule = json!({"amount": 1, "json": [{"coupon_id": cash, "num": 2}]});
        let rule = api.operator("/orderamount/add", rule).await.ok()["id"].clone();
        let mut server = Some(server);
        let tables =
            ["log_head", "events", "receipts", "stock_v1", "member_counts_v1", "wallet_v1", "redemptions_v1", "orders_v1"];
        for table in tables {
            let api = Api::new(&home, server.as_ref().unwrap());
            let coupon = json!({"coupon_id": cash, "member_id": 439});
            let coupon = api.operator("/sendelecoupon/one", coupon).await.ok()["id"].clone();
            let body = order(json!({
                "shop_id": 1, "use_coupon_list": [coupon], "ora_id": rule, "order_no": table,
                "order_coupon_list": [{"coupon_id": cash, "num": 2}],
            }));
            let before = count(&home, "SELECT position FROM log_head").await;
            let obstacle = Obstacle::before(&home, table).await;
            let placing = tokio::spawn(async move { api.try_call(Caller::Operator, None, "/order/add", &body).await });
            obstacle.is_met(&home).await;
            assert!(!placing.is_finished(), "{table}");
            server.take().unwrap().kill().await;
            placing.await.unwrap().unwrap_err();
            obstacle.clear(&home).await;
            server = Some(Server::start(&home, &[]).await);
            let written = count(&home, "SELECT position FROM log_head").await - before;
            assert!([0, 4].contains(&written), "{table}: {written} events of one use, two coupons and the order");
            let api = Api::new(&home, server.as_ref().unwrap());
            let body = order(json!({
                "shop_id": 1, "use_coupon_list": [coupon], "ora_id": rule, "order_no": table,
                "order_coupon_list": [{"coupon_id": cash, "num": 2}],
            }));
            let again = api.operator("/order/add", body).await;
            assert_eq!((again.code(), again.replayed()), (0, written == 4), "{table}: {}", again.body);
            assert_eq!(count(&home, "SELECT position FROM log_head").await, before + 4, "{table}");
        }
        let orders = tables.len() as i64;
        assert_eq!((events(&home, "Placed").await, events(&home, "Redeemed").await), (orders, orders));
        assert_eq!(count(&home, "SELECT issued FROM stock_v1").await, 3 * orders);
        assert_eq!(count(&home, "SELECT count(*) FROM redemptions_v1").await, orders);
        assert_gapless(&home).await;
        server.unwrap().kill().await;
    }
}

/// Holds up whoever writes a table, from before he does: for as long as it takes to kill him there.
enum Obstacle {
    /// A trigger that counts for minutes.
    Trigger,
    /// A lock that readers pass.
    Lock(sqlx::PgConnection),
}

impl Obstacle {
    async fn before(home: &Home, table: &str) -> Self {
        let Some(url) = &home.database_url else {
            let endless =
                "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 4000000000)
                           SELECT max(x) FROM c";
            for change in ["INSERT", "UPDATE"] {
                let trigger = format!(
                    "CREATE TRIGGER obstacle_{change} BEFORE {change} ON {table} BEGIN {endless}; END"
                );
                home.sql(&trigger).await.unwrap();
            }
            return Self::Trigger;
        };
        let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        let lock = format!("LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE");
        connection.execute(lock.as_str()).await.unwrap();
        Self::Lock(connection)
    }

    /// Waits until someone is held up.
    async fn is_met(&self, home: &Home) {
        match self {
            Self::Trigger => {
                let connection = rusqlite::Connection::open(home.database_file()).unwrap();
                connection.busy_timeout(std::time::Duration::from_millis(100)).unwrap();
                // No append of this test takes so long by itself.
                until("the writer is held up", async || {
                    connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err()
                })
                .await;
            }
            Self::Lock(_) => {
                let waiting = "SELECT count(*) FROM pg_stat_activity
                               WHERE datname = current_database() AND wait_event_type = 'Lock'";
                until("the writer is held up", async || count(home, waiting).await > 0).await;
            }
        }
    }

    async fn clear(self, home: &Home) {
        match self {
            Self::Trigger => {
                for change in ["INSERT", "UPDATE"] {
                    home.sql(&format!("DROP TRIGGER obstacle_{change}")).await.unwrap();
                }
            }
            Self::Lock(connection) => {
                connection.close().await.unwrap();
                // What was held up goes on to its end, whoever is gone: it is either whole or rolled back then.
                let working = "SELECT count(*) FROM pg_stat_activity
                               WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'";
                until("the killed server's statements have ended", async || count(home, working).await == 0)
                    .await;
            }
        }
    }
}

/// The connection dies before, within and behind the statements of an append to four streams, on both ways: all of them or
/// none, and the same key says which.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_whose_commit_is_cut_is_whole_or_not_there() {
    for cut in [Cut::BeforeForwarding, Cut::AfterForwarding] {
        for somebody_else in [false, true] {
            let behind = Behind::proxy(3).await;
            let world = behind.world.clone();
            // Ids are reserved beforehand: from here on only the order commits.
            placed(&world, json!({})).await;
            if somebody_else {
                behind.somebody_else_writes().await;
            }
            let body = json!({"use_coupon_list": behind.coupons[..1], "order_no": "T-1"});
            behind.proxy.cut_at_next_commit(cut);
            let first = place(&world, body.clone()).await;
            assert_eq!(behind.proxy.cut_happened().await, 1);
            assert!([0, 9002].contains(&first.code()), "{}", first.body);
            let again = place(&world, body).await;
            assert_eq!(again.code(), 0, "{cut:?}: {}", again.body);
            assert_eq!(events(&behind.direct, "Placed").await, 2);
            assert_eq!(
                count(&behind.direct, "SELECT count(*) FROM redemptions_v1 WHERE coupon_id <= 3").await,
                1
            );
            assert_rows_equal_replay(&world).await;
            behind.end().await;
        }
    }
}
