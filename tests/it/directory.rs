//! The directory: who is found, what an edit changes and what it leaves, what erasing takes and what it leaves, levels and
//! tags by name, employees, and how many shops there may be. Every write happens once under its key.

use std::sync::Arc;

use coupon_ledger::directory::{self, Edited, MemberEdit, Written};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use coupon_ledger::store::Statement;
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, FRIEND, INSERT_MEMBERS, MEMBER, World};
use crate::outside::all_at_once;

/// One snapshot of a whole answer for both engines.
macro_rules! sample {
    ($name:literal, $reply:expr) => {{
        let reply = &$reply;
        insta::allow_duplicates! { insta::assert_json_snapshot!($name, reply.body) }
    }};
}

async fn member(world: &World, id: i64) -> Value {
    world.operator("/member/get", json!({"id": id})).await.ok().clone()
}

/// The ids that a list shows.
async fn found(world: &World, search: Value) -> Vec<i64> {
    let reply = world.operator("/member/list", search).await;
    reply.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect()
}

/// What a body's fields are as a form.
fn as_form(body: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in body.as_object().unwrap() {
        form.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
    }
    form.finish()
}

/// The key of all writes below: a key counts for its route.
const ONE_KEY: &str = "one-key-for-all";

/// Sends all writes, then each again, as a form, and with another body.
async fn done_once(world: &World, writes: &[(&str, Value, Value)]) {
    for (route, body, answer) in writes {
        let first = world.keyed(Caller::Operator, ONE_KEY, route, body.clone()).await;
        assert_eq!((first.ok(), first.replayed()), (answer, false), "{route}");
    }
    world.advance(1_000);
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    for (route, body, answer) in writes {
        let again = world.keyed(Caller::Operator, ONE_KEY, route, body.clone()).await;
        assert_eq!((again.ok(), again.replayed()), (answer, true), "{route}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("idempotency-key", ONE_KEY),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        let form = world.request(route, &headers, &as_form(body)).await;
        assert_eq!((form.ok(), form.replayed()), (answer, true), "{route} as a form");
        // What the key says comes before what is there: most of it is gone by now.
        let mut other = body.clone();
        other[if route.contains("/add") { "id" } else { "reason" }] = json!(4_711);
        other["tag_name"] = "別的".into();
        other["name"] = "別的".into();
        other["level"] = 9.into();
        other["id"] = 4_711.into();
        let reused = world.keyed(Caller::Operator, ONE_KEY, route, other).await;
        assert_eq!(reused.code(), 6001, "{route}: {}", reused.body);
    }
}

on_both_engines! {
    async fn every_write_is_done_once_under_its_key_in_either_encoding(engine: Engine) {
        let world = World::with_people(engine).await;
        // In this order: later writes change what earlier ones made.
        let writes = [
            ("/memberlevel/add", json!({"name": "金卡", "remark": "滿千"}), json!({"id": 1})),
            ("/memberlevel/edit", json!({"id": 1, "name": "白金卡"}), json!({"id": 1})),
            ("/tag/add", json!({"tag_name": "常客"}), json!({"id": 1})),
            ("/tag/edit", json!({"id": 1, "color": "紅"}), json!({"id": 1})),
            ("/member/add", json!({"nickname": "新", "sex": 2, "tag_ids": "1"}), json!({"id": 443})),
            ("/member/edit", json!({"id": 443, "phone": "020", "birthday": ""}), json!({"id": 443})),
            ("/tag/del", json!({"id": 1}), json!(1)),
            ("/memberlevel/del", json!({"id": 1}), json!(1)),
            ("/user/add", json!({"name": "小李", "shop_id": 1, "entry_date": "2026-11-01"}), json!({"id": 1001})),
            ("/user/edit", json!({"id": 1001, "state": 0, "leave_date": "2026-12-31"}), json!({"id": 1001})),
        ];
        done_once(&world, &writes).await;
        let erased = json!({"id": 443, "create_date": world.clock.now_ms() / 1000, "reason": "會員要求"});
        done_once(&world, &[("/member/erase", json!({"id": 443, "reason": "會員要求"}), erased)]).await;
        // What was said of him then cannot be compared any more: his keys stay used up.
        for (route, body, _) in writes.iter().filter(|(route, ..)| route.starts_with("/member/")) {
            assert_eq!(world.keyed(Caller::Operator, ONE_KEY, route, body.clone()).await.code(), 6001, "{route}");
        }
        world.close().await;
    }

    async fn requests_that_come_at_once_under_one_key_are_one(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        world.operator("/memberlevel/add", json!({"name": "金卡", "remark": "滿千"})).await.ok();
        world.operator("/tag/add", json!({"tag_name": "常客"})).await.ok();
        for (route, body) in [
            ("/member/edit", json!({"id": 439, "level": 2, "phone": "138"})),
            ("/member/erase", json!({"id": 442, "reason": "會員要求"})),
            ("/user/edit", json!({"id": 1000, "name": "小李"})),
            // Who comes second finds nothing to delete, and is answered as the first all the same.
            ("/memberlevel/del", json!({"id": 1})),
            ("/tag/del", json!({"id": 1})),
        ] {
            let calls = (0..6).map(|_| {
                let (world, body) = (world.clone(), body.clone());
                async move { world.keyed(Caller::Operator, "key-at-once", route, body).await }
            });
            let replies = all_at_once(calls).await;
            assert!(replies.iter().all(|reply| reply.ok() == replies[0].ok()), "{route}: {replies:?}");
            assert_eq!(replies.iter().filter(|reply| !reply.replayed()).count(), 1, "{route}");
        }
        Arc::into_inner(world).unwrap().close().await;
    }

    async fn an_edit_changes_what_is_sent_and_nothing_else(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/memberlevel/add", json!({"name": "金卡", "url": "http://p/gold", "remark": "滿千"})).await.ok();
        for (name, color) in [("常客", "red"), ("生日", "")] {
            world.operator("/tag/add", json!({"tag_name": name, "color": color})).await.ok();
        }
        let whole = json!({
            "id": 500, "nickname": "阿芳", "headimgurl": "http://p/500", "member_name": "陳芳", "phone": "02088888888",
            "member_card": "007", "level_id": 1, "shop_id": 1, "tag_ids": "2,1,9", "birthday": "1992-02-29",
            "card_end": "2027-06-30", "sex": 2, "user_id": 1000,
        });
        world.operator("/member/add", whole).await.ok();
        let before = world.operator("/member/get", json!({"id": 500})).await;
        sample!("member_get", before);
        sample!("member_info", world.operator("/member/info", json!({"member_id": 500})).await);
        world.operator("/member/edit", json!({"id": 500})).await.ok();
        assert_eq!(world.operator("/member/get", json!({"id": 500})).await.body, before.body);
        for (field, sent, shown, value) in [
            ("nickname", json!("芳芳"), "/wechat_user/nickname", json!("芳芳")),
            ("headimgurl", json!(""), "/wechat_user/headimgurl", json!("")),
            ("member_name", json!(""), "/member_name", json!("")),
            ("phone", json!("0911"), "/phone", json!("0911")),
            ("member_card", json!(7), "/member_card", json!("7")),
            ("level_id", json!(3), "/level", json!({"id": 3, "name": "", "url": ""})),
            ("level", json!(0), "/level", json!({"id": 0, "name": "", "url": ""})),
            ("shop_id", json!(0), "/shop_id", json!(0)),
            ("card_end", json!("2028-01-01"), "/card_end", json!("2028-01-01")),
            ("card_end", json!(""), "/card_end", json!("")),
            ("sex", json!(0), "/sex", json!(0)),
            ("user_id", json!(0), "/user_id", json!(0)),
        ] {
            let mut expected = member(&world, 500).await;
            *expected.pointer_mut(shown).unwrap() = value;
            world.operator("/member/edit", json!({"id": 500, field: sent})).await.ok();
            assert_eq!(member(&world, 500).await, expected, "{field}");
        }
        world.operator("/member/edit", json!({"id": 500, "birthday": "", "tag_ids": "2"})).await.ok();
        let edited = member(&world, 500).await;
        assert_eq!((&edited["birthday"], &edited["age"]), (&json!(""), &json!(0)));
        assert_eq!(edited["members_tags"], json!([{"id": 2, "tag_name": "生日", "color": ""}]));
        world.operator("/member/edit", json!({"id": 500, "tag_ids": ""})).await.ok();
        assert_eq!(member(&world, 500).await["tag_ids"], "");

        assert_eq!(world.operator("/member/edit", json!({"id": 501, "sex": 1})).await.code(), 310);
        assert_eq!(world.operator("/member/info", json!({"member_id": 501})).await.code(), 310);
        let both = world.operator("/member/edit", json!({"id": 500, "level": 1, "level_id": 1})).await;
        sample!("member_edit_with_level_twice", both);
        let tags: Vec<i64> = (1..=501).collect();
        let many = world.operator("/member/edit", json!({"id": 500, "tag_ids": tags})).await;
        assert_eq!(many.body["info"], json!({"tag_ids": "tag_ids不能超過500項"}));
        world.close().await;
    }

    async fn edits_of_different_fields_at_once_all_stand(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let edits = [("phone", json!("139")), ("member_name", json!("王小明")), ("level_id", json!(2)), ("sex", json!(1)),
            ("tag_ids", json!("5,6")), ("member_card", json!("8"))];
        let calls = edits.map(|(field, value)| {
            let world = world.clone();
            async move { world.operator("/member/edit", json!({"id": 439, field: value})).await }
        });
        for reply in all_at_once(calls).await {
            reply.ok();
        }
        let after = member(&world, 439).await;
        assert_eq!(
            ["phone", "member_name", "sex", "tag_ids", "member_card"].map(|field| after[field].clone()),
            [json!("139"), json!("王小明"), json!(1), json!("5,6"), json!("8")]
        );
        assert_eq!((&after["level"]["id"], &after["wechat_user"]["nickname"]), (&json!(2), &json!("小明")));
        Arc::into_inner(world).unwrap().close().await;
    }

    /// What reaching a level grants hangs on this mark, which stands or falls with the change of level.
    async fn a_level_that_is_reached_is_marked_once_and_for_ever(engine: Engine) {
        let world = World::with_people(engine).await;
        let marks = async || {
            let sql = "SELECT member_id, level_id FROM level_reached ORDER BY member_id, level_id";
            let rows = world.store().query(Statement::new(sql, [])).await.unwrap();
            rows.iter().map(|row| (row.int(0), row.int(1))).collect::<Vec<_>>()
        };
        let new = directory::Member { id: 700, level_id: 4, ..directory::Member::default() };
        assert_eq!(directory::add_member(world.store(), world.ledger.seal(), &new, None).await.unwrap(), Written::Done);
        assert_eq!(directory::add_member(world.store(), world.ledger.seal(), &new, None).await.unwrap(), Written::Unmet);
        let without = directory::Member { id: 701, ..directory::Member::default() };
        assert_eq!(directory::add_member(world.store(), world.ledger.seal(), &without, None).await.unwrap(), Written::Done);
        assert_eq!(marks().await, [(700, 4)]);
        let key = directory::DirectoryKey {
            caller: "operator".to_owned(), operation: "/member/edit", key: "key-level".to_owned(),
            request_mac: "mac".to_owned(),
        };
        let to = |level_id| MemberEdit { level_id: Some(level_id), ..MemberEdit::default() };
        let edit = async |level_id, key| {
            directory::edit_member(world.store(), world.ledger.seal(), 700, &to(level_id), 1_000, key).await.unwrap()
        };
        assert_eq!(edit(5, Some(&key)).await, Edited::Done);
        assert_eq!(edit(6, Some(&key)).await, Edited::KeyUsed);
        assert_eq!(edit(5, None).await, Edited::Done);
        // Down and up again, and to none.
        for level in [4, 5, 0] {
            assert_eq!(edit(level, None).await, Edited::Done);
        }
        assert_eq!(marks().await, [(700, 4), (700, 5)]);
        // Nothing of an edit stands whose mark cannot be written.
        world.home.sql("DROP TABLE level_reached").await.unwrap();
        directory::edit_member(world.store(), world.ledger.seal(), 700, &to(7), 1_000, None).await.unwrap_err();
        assert_eq!(member(&world, 700).await["level"]["id"], 0);
        world.close().await;
    }

    async fn members_are_found_by_how_their_texts_begin(engine: Engine) {
        let world = World::empty(engine).await;
        for (id, phone, card, name, nickname) in [
            (1, "13800000001", "VIP-001", "王小明", "明明"),
            (2, "13800000002", "VIP-002", "王小", "小王"),
            (3, "13900000003", "vip-003", "王大明", "王小二"),
            (4, "02088888888", "100%_4", "歐陽鋒", "西毒"),
            (5, "0208", "100%_", "𠮷野家", "Yoshi"),
            (6, "", "", "李%", "_"),
            (7, "208", "10", "", "小明的媽媽"),
        ] {
            let body = json!({"id": id, "phone": phone, "member_card": card, "member_name": name, "nickname": nickname,
                "level_id": id % 2 + 1, "shop_id": id % 3, "tag_ids": if id > 4 { "8" } else { "7,9" }});
            world.operator("/member/add", body).await.ok();
        }
        for (search, ids) in [
            (json!({}), vec![7, 6, 5, 4, 3, 2, 1]),
            (json!({"phone": "13800000001"}), vec![1]),
            (json!({"phone": "138"}), vec![2, 1]),
            (json!({"phone": "13800"}), vec![2, 1]),
            (json!({"phone": 1_380}), vec![2, 1]),
            (json!({"phone": "0208"}), vec![5, 4]),
            (json!({"phone": "208"}), vec![7]),
            (json!({"phone": "000000001"}), vec![]),
            (json!({"member_card": "VIP-00"}), vec![2, 1]),
            (json!({"member_card": "100%_"}), vec![5, 4]),
            (json!({"member_card": "10"}), vec![7, 5, 4]),
            (json!({"name": "王"}), vec![3, 2, 1]),
            (json!({"name": "王小"}), vec![3, 2, 1]),
            (json!({"name": "王小明"}), vec![1]),
            (json!({"name": "小明"}), vec![7]),
            (json!({"name": "歐陽"}), vec![4]),
            (json!({"name": "𠮷"}), vec![5]),
            (json!({"name": "𠮷野"}), vec![5]),
            (json!({"name": "%"}), vec![]),
            (json!({"name": "李%"}), vec![6]),
            (json!({"name": "_"}), vec![6]),
            (json!({"name": ""}), vec![7, 6, 5, 4, 3, 2, 1]),
            (json!({"level_id": 1}), vec![6, 4, 2]),
            (json!({"shop_id": 1}), vec![7, 4, 1]),
            (json!({"tag_id": 7}), vec![4, 3, 2, 1]),
            (json!({"tag_id": 7, "level_id": 1}), vec![4, 2]),
            (json!({"tag_id": 7, "level_id": 1, "shop_id": 2, "name": "王小", "phone": "1380000"}), vec![2]),
            (json!({"phone": "13800000001", "name": "李"}), vec![]),
            (json!({"name": "王", "page": 2, "limit": 2}), vec![1]),
            (json!({"name": "王小", "before_id": 3, "limit": 1}), vec![2]),
            (json!({"tag_id": 8, "before_id": 6}), vec![5]),
            (json!({"level_id": 2, "limit": 2, "page": 2}), vec![3, 1]),
        ] {
            assert_eq!(found(&world, search.clone()).await, ids, "{search}");
        }
        sample!("member_list", world.operator("/member/list", json!({"phone": "13800000001"})).await);
        let reply = world.call(EMPLOYEE, "/member/list", json!({"limit": 1})).await;
        assert_eq!(reply.ok()[0]["id"], 7);
        assert_eq!(world.call(MEMBER, "/member/list", json!({})).await.code(), 1002);
        world.close().await;
    }

    async fn erasing_takes_personal_data_and_leaves_the_ledger_whole(engine: Engine) {
        let world = World::with_people(engine).await;
        let whole = json!({"id": 439, "member_name": "王小明", "phone": "138", "member_card": "8", "level_id": 2, "shop_id": 1,
            "tag_ids": "4", "birthday": "1990-01-01", "card_end": "2027-06-30", "sex": 1});
        world.operator("/member/edit", whole).await.ok();
        let definition = world.define(json!({})).await;
        let (mine, passed, his) =
            (world.issue(definition, 439).await, world.issue(definition, 442).await, world.issue(definition, 442).await);
        let code = world.give(FRIEND, passed).await;
        world.call(MEMBER, "/client/getcoupon", json!({"id": passed, "code": code})).await.ok();
        for (caller, id) in [(MEMBER, mine), (MEMBER, passed), (FRIEND, his)] {
            world.call(caller, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
            let review = json!({"id": id, "evaluation": format!("我的電話是138-{id}"), "score": 5});
            world.call(caller, "/client/evaluacoupon", review).await.ok();
        }
        let events = world.store().events_after(0, 1_000).await.unwrap();

        let erase = json!({"id": 439, "reason": "會員要求"});
        for caller in [EMPLOYEE, MEMBER, Caller::Auditor] {
            assert_eq!(world.call(caller, "/member/erase", erase.clone()).await.code(), 1002);
        }
        assert_eq!(world.operator("/member/erase", json!({"id": 1, "reason": "x"})).await.code(), 310);
        let first = world.operator("/member/erase", erase).await;
        sample!("member_erase", first);
        sample!("member_get_of_an_erased_member", world.operator("/member/get", json!({"id": 439})).await);
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await;
        let shown: Vec<_> = list.ok().as_array().unwrap().iter().map(|row| (&row["score"], &row["evaluation"])).collect();
        assert_eq!(shown, [(&json!(5), &json!("")); 2]);
        let kept = Statement::new("SELECT coupon_id FROM reviews", []);
        assert_eq!(world.store().query(kept).await.unwrap().iter().map(|row| row.int(0)).collect::<Vec<_>>(), [his]);
        let log = world.store().events_after(0, 1_000).await.unwrap();
        assert_eq!(log[..events.len()], events, "what was in the log is as it was");
        let [erased] = &log[events.len()..] else { panic!("{log:?}") };
        assert_eq!((erased.aggregate_type.as_str(), erased.aggregate_id.as_str()), ("member", "439"));
        let payload = format!(r#"{{"Erased":{{"reason":"會員要求","employee_id":0,"at_ms":{}}}}}"#, world.clock.now_ms());
        assert_eq!(erased.payload, payload);
        for text in ["小明", "王小明", "138"] {
            assert!(found(&world, json!({"name": text})).await.is_empty() && found(&world, json!({"phone": text})).await.is_empty());
        }
        assert_eq!(found(&world, json!({"level_id": 2, "shop_id": 1})).await, [439], "he still counts");

        // Again, by whomever: the first one stands, and nobody puts data back.
        world.advance(5_000);
        let again = world.operator("/member/erase", json!({"id": 439, "reason": "再一次"})).await;
        assert_eq!(again.ok(), first.ok());
        assert_eq!(world.store().events_after(0, 1_000).await.unwrap(), log);
        sample!("member_edit_of_an_erased_member", world.operator("/member/edit", json!({"id": 439, "phone": "138"})).await);
        world.close().await;
    }

    async fn what_is_edited_while_it_is_erased_is_gone_as_well(engine: Engine) {
        let world = Arc::new(World::with_people(engine).await);
        let calls = (0..12).map(|number| {
            let world = world.clone();
            async move {
                if number == 6 {
                    world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await
                } else {
                    let edit = json!({"id": 439, "phone": format!("138{number}"), "tag_ids": format!("{}", number + 1)});
                    world.operator("/member/edit", edit).await
                }
            }
        });
        for reply in all_at_once(calls).await {
            assert!([0, 401].contains(&reply.code()), "{}", reply.body);
        }
        let after = member(&world, 439).await;
        assert_eq!((&after["phone"], &after["tag_ids"], &after["state"]), (&json!(""), &json!(""), &json!(0)));
        Arc::into_inner(world).unwrap().close().await;
    }

    async fn levels_are_kept_and_not_deleted_while_members_have_them(engine: Engine) {
        let world = World::with_people(engine).await;
        sample!("level_add", world.operator("/memberlevel/add", json!({"name": "普通", "url": "u", "remark": "註冊"})).await);
        world.operator("/memberlevel/add", json!({"id": 7, "name": "金卡", "remark": "滿千"})).await.ok();
        let taken = world.operator("/memberlevel/add", json!({"id": 7, "name": "銀卡", "remark": "滿百"})).await;
        assert_eq!((taken.code(), &taken.body["info"]), (401, &json!({"id": "id已存在"})));
        assert_eq!(world.operator("/memberlevel/add", json!({"name": "鑽石", "remark": "滿萬"})).await.ok()["id"], 8);
        world.operator("/memberlevel/edit", json!({"id": 7, "name": "白金卡"})).await.ok();
        world.operator("/memberlevel/edit", json!({"id": 1, "name": "普通會員", "url": "", "remark": "人人"})).await.ok();
        sample!("level_list", world.call(EMPLOYEE, "/memberlevel/getlist", json!({"page": 1, "limit": 10})).await);
        sample!("level_info", world.operator("/memberlevel/info", json!({"id": 7})).await);
        let older = world.operator("/memberlevel/getlist", json!({"before_id": 7, "limit": 1})).await;
        assert_eq!(older.ok()[0]["id"], 1);

        world.operator("/member/edit", json!({"id": 439, "level": 7})).await.ok();
        sample!("level_del_while_a_member_has_it", world.operator("/memberlevel/del", json!({"id": 7})).await);
        world.operator("/member/edit", json!({"id": 439, "level": 8})).await.ok();
        assert_eq!(world.operator("/memberlevel/del", json!({"id": 7})).await.ok(), &json!(1));
        for (route, body) in [
            ("/memberlevel/info", json!({"id": 7})),
            ("/memberlevel/edit", json!({"id": 7, "name": "無"})),
            ("/memberlevel/del", json!({"id": 7})),
        ] {
            assert_eq!(world.operator(route, body).await.code(), 2005, "{route}");
        }
        world.close().await;
    }

    async fn a_deleted_tag_is_taken_from_all_its_members(engine: Engine) {
        let world = World::with_people(engine).await;
        for (name, color) in [("常客", "#f00"), ("生日", "")] {
            world.operator("/tag/add", json!({"tag_name": name, "color": color})).await.ok();
        }
        world.operator("/tag/edit", json!({"id": 2, "color": "green"})).await.ok();
        world.operator("/tag/edit", json!({"id": 1, "tag_name": "老友"})).await.ok();
        sample!("tag_list", world.call(EMPLOYEE, "/tag/getlist", json!({})).await);
        let blank = world.operator("/tag/edit", json!({"id": 1, "tag_name": " "})).await;
        assert_eq!(blank.body["info"], json!({"tag_name": "tag_name不能為空"}));
        let taken = world.operator("/tag/add", json!({"id": 2, "tag_name": "又"})).await;
        assert_eq!((taken.code(), &taken.body["info"]), (401, &json!({"id": "id已存在"})));

        // More members than one chunk takes.
        let ids = 1_001..=2_203;
        let rows: Vec<_> = ids.clone().map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
        world.home.sql(&format!("{INSERT_MEMBERS} {}", rows.join(", "))).await.unwrap();
        let tags: Vec<_> = ids.flat_map(|id| [format!("({id}, 1)"), format!("({id}, 2)")]).collect();
        world.home.sql(&format!("INSERT INTO member_tags (member_id, tag_id) VALUES {}", tags.join(", "))).await.unwrap();
        assert_eq!(world.operator("/tag/del", json!({"id": 1})).await.ok(), &json!(1));
        let left = "SELECT COUNT(*) FILTER (WHERE tag_id = 1), COUNT(*) FILTER (WHERE tag_id = 2) FROM member_tags";
        let left = world.store().query(Statement::new(left, [])).await.unwrap();
        assert_eq!((left[0].int(0), left[0].int(1)), (0, 1_203));
        for (route, body) in [("/tag/edit", json!({"id": 1, "color": "x"})), ("/tag/del", json!({"id": 1}))] {
            assert_eq!(world.operator(route, body).await.code(), 2005, "{route}");
        }
        world.close().await;
    }

    async fn a_send_is_told_by_the_names_of_whom_it_is_for(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/memberlevel/add", json!({"id": 2, "name": "金卡", "remark": "滿千"})).await.ok();
        world.operator("/tag/add", json!({"id": 4, "tag_name": "常客"})).await.ok();
        world.operator("/member/edit", json!({"id": 439, "level_id": 2, "tag_ids": "4", "shop_id": 1})).await.ok();
        let whom = json!({"shop_ids": "1,9", "tag_ids": "4,5", "level_ids": "1,2"});
        sample!("sendelecoupon_getnum", world.operator("/sendelecoupon/getnum", whom.clone()).await);
        let mut send = whom;
        send["coupon_id"] = world.define(json!({})).await.into();
        let id = world.operator("/sendelecoupon/add", send).await.ok()["id"].clone();
        let info = world.operator("/sendelecoupon/info", json!({"id": id})).await;
        assert_eq!(
            ["shopList", "tagList", "levelList"].map(|list| info.ok()[list].clone()),
            ["總店,9", "常客,5", "1,金卡"].map(Value::from)
        );
        let all = world.operator("/sendelecoupon/getnum", json!({"shop_ids": 0, "tag_ids": "0"})).await;
        assert_eq!(all.ok(), &json!({"num": 2, "shopList": "全部", "tagList": "全部", "levelList": "全部"}));
        world.close().await;
    }

    async fn employees_are_edited_listed_and_sorted(engine: Engine) {
        let world = World::with_people(engine).await;
        let second = json!({"shop_name": "分店", "phone": "2", "address": "b"});
        world.operator("/shop/add", second).await.ok();
        for (id, name, shop_id, phone) in [(1001, "乙", 1, "3"), (1002, "甲", 2, "2"), (1003, "丙", 1, "1")] {
            world.operator("/user/add", json!({"id": id, "name": name, "shop_id": shop_id, "phone": phone})).await.ok();
        }
        let edit = json!({"id": 1001, "identity": "440100199001011234", "entry_date": "2020-05-01", "leave_date": "2026-12-31"});
        assert_eq!(world.operator("/user/edit", edit).await.ok(), &json!({"id": 1001}));
        sample!("user_info", world.operator("/user/info", json!({"id": 1001})).await);
        world.operator("/user/edit", json!({"id": 1001, "leave_date": "", "shop_id": 2, "name": "小乙"})).await.ok();
        world.operator("/user/edit", json!({"id": 1003, "state": 0})).await.ok();
        let info = world.operator("/user/info", json!({"id": 1001})).await;
        assert_eq!(
            ["name", "identity", "leave_date", "shop_name"].map(|key| info.ok()[key].clone()),
            ["小乙", "440100199001011234", "2099-01-01", "分店"].map(Value::from)
        );
        for (body, code) in [(json!({"id": 9, "shop_id": 9}), 310), (json!({"id": 1001, "shop_id": 9}), 2003)] {
            assert_eq!(world.operator("/user/edit", body).await.code(), code);
        }
        assert_eq!(world.operator("/user/add", json!({"name": "丁", "shop_id": 9})).await.code(), 2003);
        let blank = world.operator("/user/edit", json!({"id": 1001, "name": ""})).await;
        assert_eq!(blank.body["info"], json!({"name": "name不能為空"}));

        for (body, ids) in [
            (json!({"shop_id": 0}), vec![1003, 1002, 1001, 1000]),
            (json!({"shop_id": 1}), vec![1003, 1000]),
            (json!({"shop_id": 2, "key": "id", "order": "normal"}), vec![1002, 1001]),
            (json!({"shop_id": 0, "key": "phone", "order": "asc"}), vec![1000, 1003, 1002, 1001]),
            (json!({"shop_id": 0, "key": "state", "order": "desc"}), vec![1002, 1001, 1000, 1003]),
            (json!({"shop_id": 0, "order": "asc", "limit": 3}), vec![1000, 1001, 1002]),
            (json!({"shop_id": 0, "order": "asc", "limit": 3, "page": 2}), vec![1003]),
        ] {
            let list = world.operator("/user/list", body.clone()).await;
            let rows = list.ok().as_array().unwrap();
            assert_eq!(rows.iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>(), ids, "{body}");
        }
        sample!("user_list", world.operator("/user/list", json!({"shop_id": 2, "limit": 1})).await);
        sample!("user_getlist", world.call(EMPLOYEE, "/user/getlist", json!({})).await);
        let sorted = world.operator("/user/shoplist", json!({"key": "address", "order": "asc"})).await;
        sample!("user_shoplist", sorted);
        let wrong = world.operator("/user/shoplist", json!({"key": "audit_key", "order": "up"})).await;
        sample!("user_shoplist_in_an_unknown_order", wrong);
        world.close().await;
    }

    async fn no_more_shops_are_opened_than_may_be_even_at_once(engine: Engine) {
        let mut world = World::with_people(engine).await;
        world.set_options(HttpOptions { max_shops: 4, ..HttpOptions::default() });
        assert_eq!(world.operator("/shop/num", json!({})).await.ok(), &json!(3));
        // A closed shop may be opened again: it counts.
        let close = json!({"id": 1, "shop_name": "總店", "phone": "1", "address": "a", "state": 0});
        world.operator("/shop/edit", close).await.ok();
        let add = json!({"shop_name": "新", "phone": "1", "address": "a"});
        let kept = world.keyed(Caller::Operator, "key-shop", "/shop/add", add.clone()).await;
        let world = Arc::new(world);
        let calls = (0..6).map(|_| {
            let (world, add) = (world.clone(), add.clone());
            async move { world.operator("/shop/add", add).await }
        });
        let codes: Vec<_> = all_at_once(calls).await.iter().map(crate::harness::Reply::code).collect();
        assert_eq!((codes.iter().filter(|code| **code == 0).count(), codes.iter().filter(|code| **code == 401).count()), (2, 4));
        assert_eq!(world.operator("/shop/num", json!({})).await.ok(), &json!(0));
        sample!("shop_add_over_the_limit", world.operator("/shop/add", add.clone()).await);
        let again = world.keyed(Caller::Operator, "key-shop", "/shop/add", add).await;
        assert_eq!((&again.body, again.replayed()), (&kept.body, true));
        Arc::into_inner(world).unwrap().close().await;
    }
}
