//! Rules and what they grant: orders' amounts, groups of goods, levels, birthdays. A change is whole or not at all, and never
//! touches what was issued.

use chrono_tz::Tz;
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::coupon::Coupon;
use coupon_ledger::grant::Cause;
use coupon_ledger::granting::{grant_birthdays, grant_levels};
use coupon_ledger::identity::Caller;
use coupon_ledger::read_model::rules::{best_order_amount, grants_of, groups_of_goods, order_amount};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, HOUR, Home, NOON, World};
use crate::outside::{assert_gapless, count};
use crate::replay::assert_rows_equal_replay;

/// The data of a reader's call.
async fn read(world: &World, route: &str, body: Value) -> Value {
    world.call(EMPLOYEE, route, body).await.ok().clone()
}

async fn code(world: &World, route: &str, body: Value) -> i64 {
    world.operator(route, body).await.code()
}

/// Calls in order, each with its whole answer.
async fn answers(world: &World, calls: Vec<(&str, Value)>) -> Vec<(String, Value)> {
    let mut answers = Vec::new();
    for (route, body) in calls {
        let reply = world.operator(route, body.clone()).await;
        answers.push((format!("{route} {body}"), reply.body));
    }
    answers
}

/// (member, definition, come, the grant behind it) of every coupon there is, in the order they were issued.
async fn issued(world: &World) -> Vec<(i64, i64, i64, i64)> {
    let mut found = Vec::new();
    let ids = world
        .home
        .sql("SELECT coupon_id FROM wallet_v1 WHERE member_id = issued_to ORDER BY coupon_id")
        .await;
    for id in ids.unwrap() {
        let (coupon, _) = world.ledger.load::<Coupon>(id.parse().unwrap()).await.unwrap();
        let issue = coupon.issue.unwrap();
        found.push((issue.member_id, issue.definition_id, issue.source.come(), issue.source_id));
    }
    found
}

async fn head(home: &Home) -> i64 {
    count(home, "SELECT position FROM log_head").await
}

/// Takes no such row from now on, as if the server had died before it could be written; [`allow`] undoes that.
async fn refuse(engine: Engine, home: &Home, (when, table): (&str, &str), row: &str) {
    let before = format!("CREATE TRIGGER dead BEFORE {when} ON {table}");
    let sql = match engine {
        Engine::Sqlite => format!("{before} WHEN {row} BEGIN SELECT RAISE(ABORT, 'dead'); END"),
        Engine::Postgres => {
            format!("{before} FOR EACH ROW WHEN ({row}) EXECUTE FUNCTION refuse_change()")
        }
    };
    home.sql(&sql).await.unwrap();
}

async fn allow(engine: Engine, home: &Home, table: &str) {
    let sql = match engine {
        Engine::Sqlite => "DROP TRIGGER dead".to_owned(),
        Engine::Postgres => format!("DROP TRIGGER dead ON {table}"),
    };
    home.sql(&sql).await.unwrap();
}

on_both_engines! {
    async fn a_rule_of_an_orders_amount_lives_and_dies_with_its_grants(engine: Engine) {
        let world = World::with_people(engine).await;
        let (one, two) = (world.define(json!({})).await, world.define(json!({"type": 2, "title": "二"})).await);
        let said = answers(&world, vec![
            ("/orderamount/add", json!({"amount": 100, "json": [{"coupon_id": one, "num": 2}]})),
            ("/orderamount/add", json!({"amount": "200"})),
            ("/orderelecoupon/couponlist", json!({"ora_id": 1})),
            ("/orderelecoupon/add", json!({"ora_id": 1, "coupon_ids": two.to_string()})),
            ("/orderelecoupon/add", json!({"ora_id": 1, "coupon_ids": [two]})),
            ("/orderamount/edit", json!({"id": 1, "amount": 150, "json": [{"id": 1, "num": 3}]})),
            ("/orderamount/edit", json!({"id": 1, "amount": 150, "json": [{"id": 1, "num": 3}]})),
            ("/orderamount/info", json!({"id": 1})),
            ("/orderamount/getlist", json!({})),
            ("/orderamount/getlist", json!({"page": 2, "limit": 1})),
            ("/orderelecoupon/getlist", json!({"ora_id": 1, "before_id": 2})),
            ("/orderelecoupon/del", json!({"id": 2})),
            ("/orderelecoupon/del", json!({"id": 2})),
            ("/orderelecoupon/getlist", json!({"ora_id": 1})),
        ]).await;
        assert_json_snapshot!("an_orders_amount", said);

        let store = world.store();
        let best = async |cents: i64| best_order_amount(store, cents).await.unwrap().map(|rule| rule.id);
        assert_eq!((best(14_999).await, best(15_000).await), (None, Some(1)));
        assert_eq!((best(20_000).await, best(i64::MAX).await), (Some(2), Some(2)));
        // Of two rules of one amount the later one holds.
        world.operator("/orderamount/add", json!({"amount": 200})).await.ok();
        assert_eq!(best(20_000).await, Some(3));
        assert_eq!(world.operator("/orderamount/del", json!({"id": 3})).await.ok(), &json!(1));
        assert_eq!(best(20_000).await, Some(2));
        world.operator("/orderamount/del", json!({"id": 1})).await.ok();
        assert_eq!((best(15_000).await, order_amount(store, 1).await.unwrap()), (None, None));
        assert!(grants_of(store, Cause::OrderAmount(1)).await.unwrap().is_empty());
        assert_eq!(read(&world, "/orderamount/getlist", json!({})).await.as_array().unwrap().len(), 1);
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn goods_belong_to_any_number_of_groups(engine: Engine) {
        let world = World::with_people(engine).await;
        let (one, two) = (world.define(json!({})).await, world.define(json!({"title": "二"})).await);
        let said = answers(&world, vec![
            ("/goodsgroup/add", json!({"title": "飲料"})),
            ("/goodsgroup/add", json!({"title": "甜點"})),
            ("/goodsgroup/edit", json!({"id": 1, "title": "熱飲"})),
            ("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "8,7,8"})),
            ("/goodsgroup/setgoods", json!({"id": 2, "goods_ids": [8, 9]})),
            ("/goodselecoupon/add", json!({"goodsgroup_id": 1, "coupon_ids": [{"id": one, "num": 2}, {"id": two, "num": "1"}]})),
            ("/goodselecoupon/add", json!({"goodsgroup_id": 2, "coupon_ids": format!("[{{\"id\":{one},\"num\":3}}]")})),
            ("/goodselecoupon/couponlist", json!({"goods_group_id": 2})),
            ("/goodselecoupon/edit", json!({"json": [{"id": 1, "num": 5}, {"id": 3, "num": 3}]})),
            ("/goodselecoupon/del", json!({"id": 2})),
            ("/goodsgroup/getlist", json!({})),
            ("/goodsgroup/info", json!({"id": 1})),
            ("/goods/get", json!({"id": 8})),
            ("/goods/get", json!({"id": 1})),
        ]).await;
        assert_json_snapshot!("groups_of_goods", said);

        let groups = async |goods: i64| groups_of_goods(world.store(), goods).await.unwrap();
        assert_eq!((groups(7).await, groups(8).await, groups(9).await), (vec![1], vec![1, 2], vec![2]));
        world.operator("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7"})).await.ok();
        assert_eq!(groups(8).await, [2]);
        world.operator("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "8"})).await.ok();
        assert_eq!((groups(7).await, groups(8).await), (vec![], vec![1, 2]));
        assert_eq!(world.operator("/goodsgroup/del", json!({"id": 2})).await.ok(), &json!(1));
        assert_eq!((groups(8).await, groups(9).await), (vec![1], vec![]));
        assert!(grants_of(world.store(), Cause::GoodsGroup(2)).await.unwrap().is_empty());
        assert_eq!(code(&world, "/goodsgroup/info", json!({"id": 2})).await, 2005);
        assert_rows_equal_replay(&world).await;
        coupon_ledger::audit::rebuild::rebuild(&world.ledger, "all").await.unwrap();
        assert_rows_equal_replay(&world).await;
        assert_eq!(groups(8).await, [1]);
        world.close().await;
    }

    async fn levels_and_birthdays_have_their_pages(engine: Engine) {
        let world = World::with_people(engine).await;
        let one = world.define(json!({})).await;
        let silver = world.define(json!({"get_limit_type": 4, "level_ids": "2"})).await;
        world.operator("/elecoupons/state", json!({"id": world.define(json!({})).await, "state": 0})).await.ok();
        let said = answers(&world, vec![
            ("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": format!("{one},{silver}")})),
            ("/memberelecoupon/edit", json!({"json": "[{\"id\":2,\"num\":4}]"})),
            ("/memberelecoupon/list", json!({"level_id": 2})),
            ("/memberelecoupon/list", json!({"level_id": 3})),
            ("/memberelecoupon/del", json!({"id": 1})),
            ("/birthdaycoupon/set", json!({"coupon_ids": [{"id": one, "num": 1}, {"id": silver, "num": 1}]})),
            ("/birthdaycoupon/set", json!({"coupon_ids": [{"id": one, "num": 2}]})),
            ("/birthdaycoupon/get", json!({})),
            ("/birthdaycoupon/set", json!({})),
            ("/birthdaycoupon/get", json!({})),
        ]).await;
        assert_json_snapshot!("levels_and_birthdays", said);
        for (level, expected) in [(2, vec![one]), (3, vec![one])] {
            let list = read(&world, "/memberelecoupon/couponlist", json!({"level_id": level})).await;
            let ids: Vec<i64> = list.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
            assert_eq!(ids, expected, "level {level}");
        }
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn every_refusal_is_told_and_writes_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let one = world.define(json!({})).await;
        world.operator("/orderamount/add", json!({"amount": 100, "json": [{"coupon_id": one, "num": 1}]})).await.ok();
        world.operator("/goodsgroup/add", json!({"title": "飲料"})).await.ok();
        world.operator("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": [one]})).await.ok();
        let before = head(&world.home).await;
        let id = json!({"id": 99});
        for (route, body, expected) in [
            ("/goodsgroup/info", id.clone(), 2005),
            ("/goodsgroup/edit", json!({"id": 99, "title": "x"}), 2005),
            ("/goodsgroup/del", id.clone(), 2005),
            ("/goodsgroup/setgoods", json!({"id": 99, "goods_ids": "1"}), 2005),
            ("/goodselecoupon/couponlist", json!({"goods_group_id": 99}), 2005),
            ("/goodselecoupon/add", json!({"goodsgroup_id": 99, "coupon_ids": [{"id": 99, "num": 1}]}), 2005),
            ("/goodselecoupon/add", json!({"goodsgroup_id": 1, "coupon_ids": [{"id": one, "num": 1}, {"id": 99, "num": 1}]}), 2002),
            ("/goodselecoupon/edit", json!({"json": [{"id": 99, "num": 1}]}), 2005),
            ("/goodselecoupon/del", id.clone(), 2005),
            ("/goods/checkinfo", json!({"id": 7, "member_id": 99}), 310),
            ("/orderamount/info", id.clone(), 2005),
            ("/orderamount/add", json!({"amount": 1, "json": [{"coupon_id": one, "num": 1}, {"coupon_id": 99, "num": 1}]}), 2002),
            ("/orderamount/edit", json!({"id": 99, "amount": 1}), 2005),
            ("/orderamount/edit", json!({"id": 1, "amount": 1, "json": [{"id": 1, "num": 9}, {"id": 99, "num": 1}]}), 2005),
            ("/orderamount/del", id.clone(), 2005),
            ("/orderelecoupon/couponlist", json!({"ora_id": 99}), 2005),
            ("/orderelecoupon/getlist", json!({"ora_id": 99}), 2005),
            ("/orderelecoupon/add", json!({"ora_id": 99, "coupon_ids": [one]}), 2005),
            ("/orderelecoupon/add", json!({"ora_id": 1, "coupon_ids": [99]}), 2002),
            ("/orderelecoupon/del", id.clone(), 2005),
            ("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": [99]}), 2002),
            ("/memberelecoupon/edit", json!({"json": [{"id": 99, "num": 1}]}), 2005),
            ("/memberelecoupon/del", id.clone(), 2005),
            ("/memberlevel/checkinfo", json!({"id": 2, "member_id": 99}), 310),
            ("/birthdaycoupon/set", json!({"coupon_ids": [{"id": one, "num": 1}, {"id": 99, "num": 1}]}), 2002),
            // A row of another page is as good as none: the order's is 1, the level's 2.
            ("/orderamount/edit", json!({"id": 1, "amount": 1, "json": [{"id": 2, "num": 9}]}), 2005),
            ("/goodselecoupon/edit", json!({"json": [{"id": 2, "num": 9}]}), 2005),
            ("/memberelecoupon/edit", json!({"json": [{"id": 2, "num": 9}, {"id": 1, "num": 9}]}), 2005),
            ("/orderelecoupon/del", json!({"id": 2}), 2005),
            ("/memberelecoupon/del", json!({"id": 1}), 2005),
        ] {
            assert_eq!(code(&world, route, body.clone()).await, expected, "{route} {body}");
        }
        for (route, body, field, why) in [
            ("/orderelecoupon/add", json!({"ora_id": 1, "coupon_ids": [one]}), "coupon_ids", "coupon_ids is taken"),
            ("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": [one]}), "coupon_id", "coupon_id is taken"),
            ("/memberelecoupon/add", json!({"level_id": 3, "coupon_id": [one, one]}), "coupon_id", "coupon_id[1] is taken"),
            ("/birthdaycoupon/set", json!({"coupon_ids": [{"id": 1, "num": 1}, {"id": 1, "num": 2}]}), "coupon_ids", "coupon_ids[1].id is taken"),
            ("/orderamount/edit", json!({"id": 1, "amount": 1, "json": [{"id": 1, "num": 0}]}), "json", "json[0].num must be between 1 and 10000"),
            ("/orderamount/add", json!({"amount": 1, "json": "[{'coupon_id':1}]"}), "json", "json is no JSON: see character 3"),
            ("/orderamount/add", json!({"amount": "100.50"}), "amount", "amount must be a whole number"),
            ("/goodselecoupon/edit", json!({"json": "[]"}), "json", "json is required"),
        ] {
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [("authorization", bearer.as_str()), ("accept-language", "en")];
            let reply = world.request(route, &headers, &body.to_string()).await;
            assert_eq!(reply.body["info"], json!({field: why}), "{route} {body}");
        }
        assert_eq!(head(&world.home).await, before);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    /// The same key and body, as JSON and as a form, answers the same again and writes once; another body is refused.
    async fn every_change_is_made_once_under_a_key(engine: Engine) {
        let world = World::with_people(engine).await;
        for _ in 0..3 {
            world.define(json!({})).await;
        }
        for (number, (route, body, other)) in [
            ("/goodsgroup/add", json!({"title": "a"}), json!({"title": "b"})),
            ("/goodsgroup/edit", json!({"id": 1, "title": "b"}), json!({"id": 1, "title": "c"})),
            ("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7,8"}), json!({"id": 1, "goods_ids": "7"})),
            ("/goodselecoupon/add", json!({"goodsgroup_id": 1, "coupon_ids": "[{\"id\":1,\"num\":2},{\"id\":2,\"num\":1}]"}),
                json!({"goodsgroup_id": 1, "coupon_ids": "[{\"id\":3,\"num\":2}]"})),
            ("/goodselecoupon/edit", json!({"json": "[{\"id\":777,\"num\":3}]"}), json!({"json": "[{\"id\":1,\"num\":4}]"})),
            ("/goodselecoupon/del", json!({"id": 777}), json!({"id": 1})),
            ("/goodsgroup/del", json!({"id": 1}), json!({"id": 2})),
            ("/orderamount/add", json!({"amount": 100, "json": "[{\"coupon_id\":1,\"num\":2}]"}), json!({"amount": 101})),
            // The amount stays, and only a row changes.
            ("/orderamount/edit", json!({"id": 1, "amount": 100, "json": "[{\"id\":777,\"num\":7}]"}), json!({"id": 1, "amount": 101})),
            ("/orderelecoupon/add", json!({"ora_id": 1, "coupon_ids": "2,3"}), json!({"ora_id": 1, "coupon_ids": "3"})),
            ("/orderelecoupon/del", json!({"id": 777}), json!({"id": 1})),
            ("/orderamount/del", json!({"id": 1}), json!({"id": 2})),
            ("/memberelecoupon/add", json!({"level_id": 1, "coupon_id": "1,2"}), json!({"level_id": 2, "coupon_id": "1"})),
            ("/memberelecoupon/edit", json!({"json": "[{\"id\":777,\"num\":3}]"}), json!({"json": "[{\"id\":11,\"num\":4}]"})),
            ("/memberelecoupon/del", json!({"id": 777}), json!({"id": 1})),
            ("/birthdaycoupon/set", json!({"coupon_ids": "[{\"id\":1,\"num\":2}]"}), json!({"coupon_ids": "[]"})),
        ].into_iter().enumerate() {
            // 777 stands for the newest grant: ids go on with every try.
            let newest = count(&world.home, "SELECT COALESCE(MAX(grant_id), 0) FROM grants_v1 WHERE removed = 0").await;
            let body: Value = serde_json::from_str(&body.to_string().replace("777", &newest.to_string())).unwrap();
            let key = format!("rule-key-{number}");
            let first = world.keyed(Caller::Operator, &key, route, body.clone()).await;
            first.ok();
            assert!(!first.replayed(), "{route}");
            let after = head(&world.home).await;
            let again = world.keyed(Caller::Operator, &key, route, body.clone()).await;
            assert_eq!((&again.body, again.replayed()), (&first.body, true), "{route}");
            let form = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(body.as_object().unwrap().iter().map(|(name, value)| {
                    (name, value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
                }))
                .finish();
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [
                ("authorization", bearer.as_str()),
                ("idempotency-key", key.as_str()),
                ("content-type", "application/x-www-form-urlencoded"),
            ];
            let as_form = world.request(route, &headers, &form).await;
            assert_eq!((&as_form.body, as_form.replayed()), (&first.body, true), "{route}");
            assert_eq!(world.keyed(Caller::Operator, &key, route, other).await.code(), 6001, "{route}");
            assert_eq!(head(&world.home).await, after, "{route}");
        }
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn what_could_be_given_is_told_without_giving_it(engine: Engine) {
        let world = World::with_people(engine).await;
        let scarce = world.define(json!({"num": 3})).await;
        let twice = world.define(json!({"get_limit_type": 2, "get_limit": 2})).await;
        let once = world.define(json!({"get_limit_type": 3})).await;
        let gold = world.define(json!({"get_limit_type": 4, "level_ids": "3"})).await;
        let off = world.define(json!({})).await;
        for definition in [twice, once] {
            world.issue(definition, 439).await;
        }
        world.operator("/elecoupons/state", json!({"id": off, "state": 0})).await.ok();
        let all = [scarce, twice, once, gold, off];
        world.operator("/goodsgroup/add", json!({"title": "a"})).await.ok();
        world.operator("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7"})).await.ok();
        let rows: Vec<Value> = all.iter().map(|id| json!({"id": id, "num": 4})).collect();
        world.operator("/goodselecoupon/add", json!({"goodsgroup_id": 1, "coupon_ids": rows})).await.ok();
        world.operator("/memberelecoupon/add", json!({"level_id": 3, "coupon_id": all})).await.ok();
        let before = head(&world.home).await;
        let told = async |route: &str, body: Value| -> Vec<(i64, i64, i64)> {
            let rows = read(&world, route, body).await;
            let row = |row: &Value| {
                assert_eq!(row["state"] == 1, row["code"] == 0, "{row}");
                let number = |name: &str| row[name].as_i64().unwrap();
                (number("coupon_id"), number("give_num"), number("code"))
            };
            rows.as_array().unwrap().iter().map(row).collect()
        };
        let of_goods = told("/goods/checkinfo", json!({"id": 7, "member_id": 439})).await;
        assert_eq!(of_goods, [(off, 0, 5006), (gold, 0, 5003), (once, 0, 5002), (twice, 1, 5002), (scarce, 3, 5001)]);
        let of_others = told("/goods/checkinfo", json!({"id": 7, "member_id": 442})).await;
        assert_eq!(of_others, [(off, 0, 5006), (gold, 0, 5003), (once, 1, 5002), (twice, 2, 5002), (scarce, 3, 5001)]);
        assert!(told("/goods/checkinfo", json!({"id": 8, "member_id": 439})).await.is_empty());
        // As a member of that level.
        let of_level = told("/memberlevel/checkinfo", json!({"id": 3, "member_id": 439})).await;
        assert_eq!(of_level, [(off, 0, 5006), (gold, 1, 0), (once, 0, 5002), (twice, 1, 0), (scarce, 1, 0)]);
        world.operator("/member/add", json!({"id": 500, "level_id": 3})).await.ok();
        let had_it = told("/memberlevel/checkinfo", json!({"id": 3, "member_id": 500})).await;
        assert_eq!(had_it, all.iter().rev().map(|id| (*id, 0, 5002)).collect::<Vec<_>>());
        assert_eq!(head(&world.home).await, before);
        world.close().await;
    }

    async fn reaching_a_level_is_given_for_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let (silver, gold) = (world.define(json!({})).await, world.define(json!({"num": 1})).await);
        world.operator("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": [silver]})).await.ok();
        world.operator("/memberelecoupon/add", json!({"level_id": 3, "coupon_id": [gold, silver]})).await.ok();
        world.operator("/memberelecoupon/edit", json!({"json": [{"id": 1, "num": 2}]})).await.ok();
        for (id, level) in [(500, 2), (501, 3), (502, 3), (503, 0), (504, 9)] {
            world.operator("/member/add", json!({"id": id, "level_id": level})).await.ok();
        }
        assert_eq!(grant_levels(&world.ledger).await.unwrap(), 2 + 2 + 1);
        let given = [(500, silver, 3, 1), (500, silver, 3, 1), (501, silver, 3, 3), (501, gold, 3, 2), (502, silver, 3, 3)];
        assert_eq!(issued(&world).await, given);
        assert_eq!(count(&world.home, "SELECT count(*) FROM level_reached WHERE state = 0").await, 0);
        assert_eq!(grant_levels(&world.ledger).await.unwrap(), 0);
        // A level that was reached before is not reached again, a level passed over on the way up not at all.
        let reach = async |member: i64, level: i64| {
            let reached = coupon_ledger::directory::level_reached_statement(member, level, world.clock.now_ms());
            world.store().write(vec![reached]).await.unwrap();
            grant_levels(&world.ledger).await.unwrap()
        };
        assert_eq!((reach(500, 2).await, reach(501, 3).await, reach(503, 3).await), (0, 0, 1));
        // A change of the rule is for later, and alters nothing that was issued.
        let was = issued(&world).await;
        world.operator("/memberelecoupon/edit", json!({"json": [{"id": 3, "num": 3}]})).await.ok();
        world.operator("/memberelecoupon/del", json!({"id": 1})).await.ok();
        assert_eq!((grant_levels(&world.ledger).await.unwrap(), issued(&world).await), (0, was));
        assert_eq!((reach(503, 2).await, reach(442, 3).await), (0, 3));
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
        world.close().await;
    }

    /// What a server gave before it died is given, though it could not write that down any more.
    async fn a_level_is_given_once_though_the_server_dies_in_between(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.operator("/memberelecoupon/add", json!({"level_id": 2, "coupon_id": [definition]})).await.ok();
        for id in 500..510 {
            world.operator("/member/add", json!({"id": id, "level_id": 2})).await.ok();
        }
        refuse(engine, &world.home, ("UPDATE", "level_reached"), "NEW.state = 1").await;
        grant_levels(&world.ledger).await.unwrap_err();
        let given = issued(&world).await;
        assert_eq!(given.len(), 10);
        allow(engine, &world.home, "level_reached").await;
        let world = World::open(world.close().await, Clock::manual(NOON), Zone::default()).await;
        assert_eq!(grant_levels(&world.ledger).await.unwrap(), 0);
        assert_eq!(issued(&world).await, given);
        assert_eq!(count(&world.home, "SELECT count(*) FROM level_reached WHERE state = 0").await, 0);
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn a_birthday_is_given_for_once_a_year_also_on_29_february(engine: Engine) {
        let zone = Zone(Tz::Asia__Shanghai);
        let at = |day: &str| zone.day_starts_at_ms(day.parse().unwrap());
        let world = World::at(engine, at("2027-02-27") + 12 * HOUR, zone).await;
        let definition = world.define(json!({})).await;
        world.operator("/birthdaycoupon/set", json!({"coupon_ids": [{"id": definition, "num": 1}]})).await.ok();
        for (id, birthday) in [(1, "1990-02-27"), (2, "1991-02-28"), (3, "1992-02-29"), (4, "1992-03-01"), (5, "")] {
            world.operator("/member/add", json!({"id": id, "birthday": birthday})).await.ok();
        }
        // The first time ever begins with its own day.
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(1));
        let since = async |from: usize| -> Vec<i64> {
            issued(&world).await[from..].iter().map(|(member, ..)| *member).collect()
        };
        assert_eq!(issued(&world).await, [(1, definition, 6, 1)]);
        world.clock.set(at("2027-02-28") + 1);
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(2));
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(0));
        assert_eq!(since(1).await, [2, 3]);
        world.clock.set(at("2027-03-01"));
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(1));
        // Whose birthday is moved has had it.
        world.home.sql("UPDATE members SET birthday = 19900315 WHERE member_id = 1").await.unwrap();
        world.clock.set(at("2027-03-16"));
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(0));
        // A leap year; nobody was there for some days.
        world.clock.set(at("2028-02-20"));
        grant_birthdays(&world.ledger).await.unwrap();
        world.clock.set(at("2028-02-28"));
        assert_eq!((grant_birthdays(&world.ledger).await.unwrap(), since(4).await), (Some(1), vec![2]));
        world.clock.set(at("2028-03-02"));
        assert_eq!((grant_birthdays(&world.ledger).await.unwrap(), since(5).await), (Some(2), vec![3, 4]));
        // Longer than is made up for: 15 March is not 31 days back.
        world.clock.set(at("2028-05-01"));
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(0));
        assert_rows_equal_replay(&world).await;
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn a_birthday_begins_with_the_merchants_midnight(engine: Engine) {
        for (zone, born) in [(Tz::Pacific__Kiritimati, "1990-11-24"), (Tz::Pacific__Pago_Pago, "1990-11-23"), (Tz::America__Sao_Paulo, "1990-11-23")] {
            // 2026-11-23 12:00 UTC
            let world = World::at(engine, NOON + 8 * HOUR, Zone(zone)).await;
            let definition = world.define(json!({})).await;
            world.operator("/birthdaycoupon/set", json!({"coupon_ids": [{"id": definition, "num": 1}]})).await.ok();
            for (id, birthday) in [(1, "1990-11-22"), (2, "1990-11-23"), (3, "1990-11-24"), (4, "1990-11-25")] {
                world.operator("/member/add", json!({"id": id, "birthday": birthday})).await.ok();
            }
            grant_birthdays(&world.ledger).await.unwrap();
            let first = i64::from(born == "1990-11-24") + 2;
            assert_eq!(issued(&world).await, [(first, definition, 6, 1)], "{zone}");
            world.advance(DAY);
            grant_birthdays(&world.ledger).await.unwrap();
            assert_eq!(issued(&world).await.len(), 2, "{zone}");
            world.close().await;
        }
    }

    async fn a_birthday_is_given_once_though_the_server_dies_between_two_members(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        for id in 500..505 {
            world.operator("/member/add", json!({"id": id, "birthday": "1990-11-23"})).await.ok();
        }
        world.operator("/birthdaycoupon/set", json!({"coupon_ids": [{"id": definition, "num": 2}]})).await.ok();
        // Two of five have theirs when it ends.
        refuse(engine, &world.home, ("INSERT", "wallet_v1"), "NEW.member_id > 501").await;
        grant_birthdays(&world.ledger).await.unwrap_err();
        assert_eq!(issued(&world).await.len(), 4);
        allow(engine, &world.home, "wallet_v1").await;
        let world = World::open(world.close().await, Clock::manual(NOON), Zone::default()).await;
        grant_birthdays(&world.ledger).await.unwrap();
        let members: Vec<i64> = issued(&world).await.iter().map(|(member, ..)| *member).collect();
        assert_eq!(members, (500..505).flat_map(|id| [id, id]).collect::<Vec<_>>());
        assert_gapless(&world.home).await;
        world.close().await;
    }
}
