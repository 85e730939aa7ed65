//! Offices: what they open, who may give them, and how soon what was given or taken counts.

use coupon_ledger::clock::Zone;
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::Meta;
use coupon_ledger::office::{Appointment, AppointmentCommand};
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, Engine, MEMBER, Reply, World};

/// Of 標籤管理 and 員工管理 and 職務管理: docs/security.md says what they open.
const TAGS: i64 = 9;
const EMPLOYEES: i64 = 5;
const OFFICES: i64 = 6;

/// Shop 2 beside shop 1.
async fn second_shop(world: &World) {
    let shop = json!({"shop_name": "分店", "phone": "1", "address": "a"});
    assert_eq!(world.operator("/shop/add", shop).await.ok()["id"], "2");
}

async fn office(world: &World, rights: &str) -> i64 {
    let id = world.operator("/office/add", json!({"title": "職務"})).await.ok()["id"].as_i64().unwrap();
    let set = json!({"id": id, "competence_ids": rights});
    world.operator("/office/setcompetence", set).await.ok();
    id
}

async fn employ(world: &World, id: i64, shop_id: i64, more: Value) -> Caller {
    let mut body = json!({"id": id, "name": "店員", "shop_id": shop_id});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    world.operator("/user/add", body).await.ok();
    Caller::Employee(id)
}

async fn edit(world: &World, caller: Caller, id: i64, changes: Value) -> Reply {
    let mut body = changes;
    body["id"] = id.into();
    world.call(caller, "/user/edit", body).await
}

async fn add_tag(world: &World, caller: Caller) -> i64 {
    world.call(caller, "/tag/add", json!({"tag_name": "常客"})).await.code()
}

#[track_caller]
fn assert_not_allowed(reply: &Reply) {
    assert_eq!((reply.code(), reply.status.as_u16()), (1002, 403), "{}", reply.body);
    assert_eq!(reply.data(), &Value::Null);
}

on_both_engines! {
    async fn what_an_office_is_given_or_loses_counts_with_the_next_request(engine: Engine) {
        let world = World::with_people(engine).await;
        assert_eq!(add_tag(&world, EMPLOYEE).await, 1002);
        let office = office(&world, "").await;
        edit(&world, Caller::Operator, 1000, json!({"office_id": office})).await.ok();
        assert_eq!(add_tag(&world, EMPLOYEE).await, 1002);
        for (rights, code) in [("9", 0), ("5,16", 1002), ("9,5", 0)] {
            let set = json!({"id": office, "competence_ids": rights});
            world.operator("/office/setcompetence", set).await.ok();
            assert_eq!(add_tag(&world, EMPLOYEE).await, code, "{rights}");
        }
        // What one right opens another does not.
        assert_not_allowed(&world.call(EMPLOYEE, "/shop/add", json!({})).await);
        edit(&world, Caller::Operator, 1000, json!({"office_id": 0})).await.ok();
        assert_eq!(add_tag(&world, EMPLOYEE).await, 1002);
        world.close().await;
    }

    async fn nobody_gives_an_office_a_right_that_he_has_not_himself(engine: Engine) {
        let world = World::with_people(engine).await;
        let (own, other) = (office(&world, "6,9").await, office(&world, "4").await);
        edit(&world, Caller::Operator, 1000, json!({"office_id": own})).await.ok();
        let set = async |id: i64, rights: &str| {
            world.call(EMPLOYEE, "/office/setcompetence", json!({"id": id, "competence_ids": rights})).await
        };
        assert_not_allowed(&set(own, "6,9,5").await);
        assert_not_allowed(&set(other, "4,5").await);
        // What it has already is left to it, what he has himself he gives, and anything may be taken.
        assert_eq!(set(other, "9,4,9").await.ok()["competence_ids"], "4,9");
        assert_eq!(set(other, "9").await.ok()["competence_ids"], "9");
        assert_not_allowed(&set(other, "4,9").await);
        assert_eq!(set(own, "9").await.ok()["competence_ids"], "9");
        assert_not_allowed(&set(own, "6,9").await);
        world.close().await;
    }

    async fn nobody_gives_anybody_an_office_with_a_right_that_he_has_not_himself(engine: Engine) {
        let world = World::with_people(engine).await;
        let (staff, tags, shops) =
            (office(&world, "5,9").await, office(&world, "9").await, office(&world, "4,9").await);
        let clerk = employ(&world, 1001, 1, json!({"office_id": staff})).await;
        let add = async |office: i64| {
            world.call(clerk, "/user/add", json!({"name": "新", "shop_id": 1, "office_id": office})).await
        };
        assert_not_allowed(&add(shops).await);
        add(tags).await.ok();
        assert_not_allowed(&edit(&world, clerk, 1000, json!({"office_id": shops})).await);
        assert_not_allowed(&edit(&world, clerk, 1001, json!({"office_id": shops})).await);
        edit(&world, clerk, 1000, json!({"office_id": tags})).await.ok();
        assert_eq!(add_tag(&world, EMPLOYEE).await, 0);
        // Whoever holds more than he has may be renamed, keeps what he has, may lose it, and may be seen off; he is not taken
        // back by him.
        edit(&world, Caller::Operator, 1000, json!({"office_id": shops})).await.ok();
        edit(&world, clerk, 1000, json!({"name": "新名", "office_id": shops, "is_manager": 0})).await.ok();
        edit(&world, clerk, 1000, json!({"state": 0})).await.ok();
        assert_not_allowed(&edit(&world, clerk, 1000, json!({"state": 1})).await);
        assert_not_allowed(&edit(&world, clerk, 1000, json!({"state": 1, "office_id": shops})).await);
        edit(&world, clerk, 1000, json!({"state": 1, "office_id": tags})).await.ok();
        edit(&world, clerk, 1000, json!({"office_id": 0})).await.ok();
        assert_eq!(add_tag(&world, EMPLOYEE).await, 1002);
        world.close().await;
    }

    async fn a_manager_manages_the_employees_of_his_own_shop_and_makes_no_managers(engine: Engine) {
        let world = World::with_people(engine).await;
        second_shop(&world).await;
        let manager = employ(&world, 1001, 1, json!({"is_manager": 1})).await;
        employ(&world, 1002, 2, json!({})).await;
        let tags = office(&world, "9").await;
        let add = async |body: Value| world.call(manager, "/user/add", body).await;
        add(json!({"id": 1003, "name": "新", "shop_id": 1})).await.ok();
        assert_not_allowed(&add(json!({"name": "新", "shop_id": 2})).await);
        assert_not_allowed(&add(json!({"name": "新", "shop_id": 999})).await);
        assert_not_allowed(&add(json!({"name": "新", "shop_id": 1, "is_manager": 1})).await);
        assert_not_allowed(&add(json!({"name": "新", "shop_id": 1, "office_id": tags})).await);
        edit(&world, manager, 1000, json!({"phone": "139"})).await.ok();
        assert_not_allowed(&edit(&world, manager, 1002, json!({"phone": "139"})).await);
        assert_not_allowed(&edit(&world, manager, 1000, json!({"shop_id": 2})).await);
        assert_not_allowed(&edit(&world, manager, 1002, json!({"shop_id": 1})).await);
        assert_not_allowed(&edit(&world, manager, 1000, json!({"is_manager": 1})).await);
        // No other way makes one either: not by an office's right, nor by moving or taking back who is one.
        let staff = office(&world, "5").await;
        let clerk = employ(&world, 1004, 1, json!({"office_id": staff})).await;
        assert_not_allowed(&edit(&world, clerk, 1000, json!({"is_manager": 1})).await);
        assert_not_allowed(&edit(&world, clerk, 1001, json!({"shop_id": 2})).await);
        edit(&world, clerk, 1001, json!({"state": 0})).await.ok();
        assert_not_allowed(&edit(&world, clerk, 1001, json!({"state": 1})).await);
        edit(&world, clerk, 1001, json!({"state": 1, "is_manager": 0})).await.ok();
        assert_not_allowed(&edit(&world, manager, 1000, json!({"phone": "138"})).await);
        edit(&world, Caller::Operator, 1001, json!({"shop_id": 2, "is_manager": 1})).await.ok();
        edit(&world, manager, 1002, json!({"phone": "139"})).await.ok();
        assert_not_allowed(&edit(&world, manager, 1000, json!({"phone": "138"})).await);
        world.close().await;
    }

    async fn an_office_that_is_held_is_not_deleted_and_a_deleted_one_opens_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let office = office(&world, "9").await;
        edit(&world, Caller::Operator, 1000, json!({"office_id": office})).await.ok();
        let held = world.operator("/office/del", json!({"id": office})).await;
        assert_eq!((held.code(), &held.body["info"]["id"]), (401, &json!("仍有員工擔任，不能刪除")));
        edit(&world, Caller::Operator, 1000, json!({"state": 0})).await.ok();
        let deleted = world.keyed(Caller::Operator, "delete-it", "/office/del", json!({"id": office})).await;
        assert_eq!(deleted.ok(), &json!(1));
        edit(&world, Caller::Operator, 1000, json!({"state": 1})).await.ok();
        // He holds it by name only, and the key still tells what it did.
        let shown = world.operator("/user/info", json!({"id": 1000})).await;
        assert_eq!((&shown.ok()["office_id"], &shown.ok()["office_title"]), (&json!(office), &json!("")));
        assert_eq!(add_tag(&world, EMPLOYEE).await, 1002);
        let again = world.keyed(Caller::Operator, "delete-it", "/office/del", json!({"id": office})).await;
        assert!(again.replayed(), "{}", again.body);
        for route in ["/office/get", "/office/del", "/office/competence"] {
            assert_eq!(world.operator(route, json!({"id": office})).await.code(), 2005, "{route}");
        }
        let set = json!({"id": office, "competence_ids": "9"});
        assert_eq!(world.operator("/office/setcompetence", set).await.code(), 2005);
        assert_eq!(edit(&world, Caller::Operator, 1000, json!({"office_id": office})).await.code(), 0);
        assert_eq!(world.operator("/office/list", json!({})).await.ok(), &json!([]));
        world.close().await;
    }

    async fn somebody_new_holds_nothing_whatever_the_log_says_of_his_id(engine: Engine) {
        let world = World::with_people(engine).await;
        let office = office(&world, "9").await;
        // A ledger that was taken over from an export knows who held what, and nobody of the directory.
        let meta = Meta {
            caller: Caller::Operator,
            at: world.ledger.now(),
            request_id: "before".to_owned(),
            receipt: None,
            job_id: None,
        };
        let appoint =
            AppointmentCommand::Appoint { office_id: Some(office), manager: Some(true), employee_id: 0 };
        world.ledger.execute::<Appointment>(1005, &appoint, &meta).await.unwrap();
        let newcomer = employ(&world, 1005, 1, json!({})).await;
        let shown = world.operator("/user/info", json!({"id": 1005})).await;
        assert_eq!((&shown.ok()["office_id"], &shown.ok()["is_manager"]), (&json!(0), &json!(0)));
        assert_eq!(add_tag(&world, newcomer).await, 1002);
        // Whoever is there already loses nothing by being asked for once more.
        edit(&world, Caller::Operator, 1005, json!({"office_id": office})).await.ok();
        let again = world.operator("/user/add", json!({"id": 1005, "name": "同號", "shop_id": 1})).await;
        assert_eq!(again.code(), 401, "{}", again.body);
        assert_eq!(add_tag(&world, newcomer).await, 0);
        world.close().await;
    }

    async fn a_repeated_request_gives_and_takes_nothing_once_more(engine: Engine) {
        let world = World::with_people(engine).await;
        let (tags, none) = (office(&world, "9").await, office(&world, "").await);
        for (id, place) in [(1005, json!({})), (1006, json!({"office_id": none}))] {
            let mut body = place;
            (body["id"], body["name"], body["shop_id"]) = (id.into(), "新".into(), 1.into());
            let key = format!("add-{id}");
            world.keyed(Caller::Operator, &key, "/user/add", body.clone()).await.ok();
            let change = json!({"id": id, "office_id": tags});
            let change_key = format!("edit-{id}");
            world.keyed(Caller::Operator, &change_key, "/user/edit", change.clone()).await.ok();
            assert!(world.keyed(Caller::Operator, &key, "/user/add", body).await.replayed());
            assert_eq!(add_tag(&world, Caller::Employee(id)).await, 0);
            edit(&world, Caller::Operator, id, json!({"office_id": 0})).await.ok();
            assert!(world.keyed(Caller::Operator, &change_key, "/user/edit", change).await.replayed());
            assert_eq!(add_tag(&world, Caller::Employee(id)).await, 1002);
        }
        world.close().await;
    }

    async fn who_gave_what_is_told_by_the_log(engine: Engine) {
        let world = World::with_people(engine).await;
        let office = office(&world, "5,9").await;
        employ(&world, 1001, 1, json!({"office_id": office})).await;
        edit(&world, Caller::Employee(1001), 1000, json!({"office_id": office})).await.ok();
        edit(&world, Caller::Operator, 1000, json!({"is_manager": 1})).await.ok();
        let told = world.get(Caller::Auditor, "/v1/streams/appointment/1000/history").await;
        let words: Vec<Value> =
            crate::v1::lines(&told).into_iter().map(|line| json!([line["caller"], line["words"]])).collect();
        assert_eq!(
            Value::from(words),
            json!([
                ["employee:1001", format!("holds office {office}, manages no shop by employee 1001")],
                ["operator", format!("holds office {office}, manages his shop")],
            ])
        );
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn an_employee_takes_back_redemptions_of_his_own_shop_only(engine: Engine) {
        let world = World::with_people(engine).await;
        second_shop(&world).await;
        let elsewhere = employ(&world, 1002, 2, json!({})).await;
        let manager = employ(&world, 1003, 2, json!({"is_manager": 1})).await;
        let definition = world.define(json!({})).await;
        let mut redeemed = Vec::new();
        for _ in 0..2 {
            let coupon = json!({"mem_coupon_id": world.issue(definition, 439).await, "shop_id": 1});
            let used = world.call(MEMBER, "/client/auditcoupon", coupon).await;
            redeemed.push(used.ok()["id"].as_str().unwrap().parse::<i64>().unwrap());
        }
        let reverse = |id: i64| json!({"id": id, "reason": "按錯"});
        let not_there = world.call(elsewhere, "/user/reverseelecoupon", reverse(999)).await;
        for caller in [elsewhere, manager] {
            let foreign = world.call(caller, "/user/reverseelecoupon", reverse(redeemed[0])).await;
            assert_eq!((foreign.code(), &foreign.body), (2004, &not_there.body));
        }
        let own = world.keyed(EMPLOYEE, "take-back", "/user/reverseelecoupon", reverse(redeemed[0])).await;
        own.ok();
        world.operator("/user/reverseelecoupon", reverse(redeemed[1])).await.ok();
        // Moved to another shop, he is still told what his key did, and that another body is another request.
        edit(&world, Caller::Operator, 1000, json!({"shop_id": 2})).await.ok();
        let again = world.keyed(EMPLOYEE, "take-back", "/user/reverseelecoupon", reverse(redeemed[0])).await;
        assert_eq!((again.replayed(), &again.body), (true, &own.body));
        let other = world.keyed(EMPLOYEE, "take-back", "/user/reverseelecoupon", reverse(redeemed[1])).await;
        assert_eq!(other.code(), 6001);
        world.close().await;
    }

    async fn what_is_no_right_and_no_office_is_refused(engine: Engine) {
        let world = World::with_people(engine).await;
        let office = office(&world, "9").await;
        for rights in ["7", "9,8", "-1", "x", "9;5", "99999999999999999999"] {
            let set = json!({"id": office, "competence_ids": rights});
            let reply = world.operator("/office/setcompetence", set).await;
            assert_eq!(reply.code(), 401, "{rights}: {}", reply.body);
            assert!(reply.body["info"].get("competence_ids").is_some(), "{rights}: {}", reply.body);
        }
        assert_eq!(world.operator("/office/setcompetence", json!({"id": office})).await.code(), 401);
        for (field, value) in [("office_id", json!(-1)), ("office_id", json!("x")), ("is_manager", json!(2))] {
            let reply = edit(&world, Caller::Operator, 1000, json!({ field: value })).await;
            assert!(reply.body["info"].get(field).is_some(), "{field}: {}", reply.body);
        }
        assert_eq!(edit(&world, Caller::Operator, 1000, json!({"office_id": 999})).await.code(), 2005);
        let held = world.operator("/office/get", json!({"id": office})).await;
        assert_eq!(held.ok()["competence_ids"], TAGS.to_string());
        world.close().await;
    }
}

/// On SQLite one process serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_on_the_ledger_knows_at_once() {
    let world = World::with_people(Engine::Postgres).await;
    let office = office(&world, "9").await;
    let home = world.home.beside(world.home.database_url.clone().unwrap());
    let other = World::open(home, world.clock.clone(), Zone::default()).await;
    assert_eq!(add_tag(&other, EMPLOYEE).await, 1002);
    edit(&world, Caller::Operator, 1000, json!({"office_id": office})).await.ok();
    assert_eq!(add_tag(&other, EMPLOYEE).await, 0);
    world.operator("/office/setcompetence", json!({"id": office, "competence_ids": ""})).await.ok();
    assert_eq!(add_tag(&other, EMPLOYEE).await, 1002);
    edit(&world, Caller::Operator, 1000, json!({"state": 0})).await.ok();
    assert_not_allowed(&other.call(EMPLOYEE, "/shop/list", json!({})).await);
    other.close().await;
    world.close().await;
}

#[test]
fn the_numbers_of_rights_are_the_manuals() {
    let number = |name: &str| {
        coupon_ledger::access::RIGHTS.iter().find(|right| right.name == name).map(|right| right.id)
    };
    assert_eq!(
        [number("tags"), number("employees"), number("offices")],
        [TAGS, EMPLOYEES, OFFICES].map(Some)
    );
}
