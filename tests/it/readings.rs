//! Readings of personal data: each is in the log before its answer leaves, whoever reads and wherever; none of one's own is.

use std::collections::BTreeSet;

use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::directory;
use coupon_ledger::http::{App, HttpOptions};
use coupon_ledger::identity::Caller;
use coupon_ledger::read_model::pages::Slice;
use coupon_ledger::watch::SAME_READING_MS;
use serde_json::{Value, json};

use crate::accounts::account;
use crate::archive::{assert_sound, export_whole, sign_log};
use crate::cli::finish;
use crate::harness::{EMPLOYEE, FRIEND, Home, MEMBER, PARTNER, Reply, Server, World, program};
use crate::outside::Api;
use crate::replay::assert_rows_equal_replay;
use crate::routes::PAGES;
use crate::v1::lines;
use crate::verify::put_secret;

/// 2018-11-24 10:31:41 in Shanghai: long ago by any clock, so that the program on the command line can be asked about it.
const LONG_AGO: i64 = 1_543_026_701_000;

/// The readings behind a position, as `reader action members employees accounts of so many`.
async fn readings(world: &World, after: i64) -> Vec<String> {
    let events = world.store().events_after(after, i64::MAX).await.unwrap();
    let of_readings = events.iter().filter(|event| event.aggregate_type == "reading");
    let told = |payload: &str| {
        let payload: Value = serde_json::from_str(payload).unwrap();
        let read = &payload["Read"];
        let text = |name: &str| read[name].as_str().unwrap().to_owned();
        format!(
            "{} {} {} {} {} of {}",
            text("reader"),
            text("action"),
            read["member_ids"],
            read["employee_ids"],
            read["account_ids"],
            read["people"]
        )
    };
    of_readings.map(|event| told(&event.payload)).collect()
}

async fn last_position(world: &World) -> i64 {
    world.store().events_after(0, i64::MAX).await.unwrap().last().map_or(0, |event| event.position)
}

/// Member 439 with everything personal, a coupon of his that was used, reviewed and taken back, and an operator's account.
async fn people(world: &World) -> i64 {
    let edit = json!({"id": 439, "member_name": "王小明", "phone": "13800000000", "birthday": "1990-02-28"});
    world.operator("/member/edit", edit).await.ok();
    world.operator("/user/edit", json!({"id": 1000, "phone": "13900000000"})).await.ok();
    account(world, json!({"name": "boss", "role": "operator"})).await;
    let definition = world.define(json!({})).await;
    let id = world.issue(definition, 439).await;
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
    world
        .call(MEMBER, "/client/evaluacoupon", json!({"id": id, "evaluation": "好喝", "score": 5}))
        .await
        .ok();
    id
}

/// A machine's key that may read.
async fn machine(world: &World) -> String {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let path = "/v1/machine-keys?name=till&rights=read";
    let issued = world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
    issued.body["key"].as_str().unwrap().to_owned()
}

async fn by_machine(world: &World, key: &str, route: &str, body: &Value) -> Reply {
    world.request(route, &[("authorization", &format!("Bearer {key}"))], &body.to_string()).await
}

/// The ledger's own directory, every text of it that is somebody's.
async fn personal_texts(world: &World) -> BTreeSet<String> {
    let search = directory::Search::default();
    let members = directory::members(world.store(), world.ledger.seal(), &search, Slice::All).await.unwrap();
    let of_members = members
        .into_iter()
        .flat_map(|one| [one.nickname, one.headimgurl, one.member_name, one.phone, one.member_card]);
    let employees = directory::employees(world.store(), 0).await.unwrap();
    let of_employees = employees.into_iter().flat_map(|one| [one.name, one.phone, one.identity]);
    let texts = of_members.chain(of_employees).filter(|text| text.chars().count() > 1);
    texts.map(|text| Value::from(text).to_string()).collect()
}

on_both_engines! {
    async fn each_reading_is_told_with_who_read_whom_through_what(engine: Engine) {
        let world = World::with_people(engine).await;
        let coupon = people(&world).await;
        let key = machine(&world).await;
        world.operator("/user/add", json!({"id": 1001, "name": "店長", "shop_id": 1, "is_manager": 1})).await.ok();
        let manager = Caller::Employee(1001);
        for (reader, route, body, told) in [
            (EMPLOYEE, "/member/get", json!({"id": 439}), "employee:1000 /member/get [439] [] [] of 1"),
            (manager, "/member/info", json!({"member_id": 439}), "employee:1001 /member/info [439] [] [] of 1"),
            (Caller::Operator, "/member/list", json!({}), "operator /member/list [439,442] [] [] of 2"),
            (Caller::Auditor, "/auditelecoupon/getlist", json!({}), "auditor /auditelecoupon/getlist [439] [] [] of 1"),
            (EMPLOYEE, "/sendelecoupon/membercouponinfo", json!({"id": coupon}),
             "employee:1000 /sendelecoupon/membercouponinfo [439] [] [] of 1"),
            (Caller::Operator, "/user/info", json!({"id": 1000}), "operator /user/info [] [1000] [] of 1"),
            (Caller::Auditor, "/user/list", json!({"shop_id": 1}), "auditor /user/list [] [1000,1001] [] of 2"),
            // His own is no reading.
            (EMPLOYEE, "/user/getlist", json!({}), "employee:1000 /user/getlist [] [1001] [] of 2"),
            (Caller::OperatorAccount(1), "/user/info", json!({"id": 1000}), "operator:1 /user/info [] [1000] [] of 1"),
            (Caller::Auditor, "/account/list", json!({}), "auditor /account/list [] [] [1] of 1"),
        ] {
            let before = last_position(&world).await;
            world.call(reader, route, body).await.ok();
            assert_eq!(readings(&world, before).await, [told]);
        }
        let before = last_position(&world).await;
        by_machine(&world, &key, "/member/get", &json!({"id": 442})).await.ok();
        assert_eq!(readings(&world, before).await, ["machine:1 /member/get [442] [] [] of 1"]);

        // At the counter: a coupon that was taken back shows what its member wrote of it.
        let before = last_position(&world).await;
        let list = async || world.call(EMPLOYEE, "/user/auditelecouponlist", json!({"member_id": 439})).await;
        assert_eq!(list().await.ok(), &json!([]));
        assert_eq!(readings(&world, before).await, Vec::<String>::new());
        let redemption = world.operator("/auditelecoupon/getlist", json!({})).await.ok()[0]["id"].clone();
        let reverse = json!({"id": redemption, "reason": "按錯"});
        world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
        let before = last_position(&world).await;
        assert_eq!(list().await.ok()[0]["evaluation"], "好喝");
        assert_eq!(readings(&world, before).await, ["employee:1000 /user/auditelecouponlist [439] [] [] of 1"]);
        assert_rows_equal_replay(&world).await;
        assert_sound(&world).await;
        world.close().await;
    }

    async fn whoever_reads_his_own_or_nobodys_writes_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let coupon = people(&world).await;
        let before = last_position(&world).await;
        for (caller, route, body) in [
            (MEMBER, "/client/couponlist", json!({"state": 1})),
            (MEMBER, "/client/couponcount", json!({})),
            (MEMBER, "/client/getauditcoupon", json!({})),
            (MEMBER, "/wechat/openid", json!({})),
            (EMPLOYEE, "/user/info", json!({"id": 1000})),
            (EMPLOYEE, "/order/list", json!({"shop_id": 1})),
            (EMPLOYEE, "/shop/list", json!({})),
            (Caller::OperatorAccount(1), "/account/list", json!({})),
            (Caller::Operator, "/elecoupons/getlist", json!({})),
            (Caller::Operator, "/member/list", json!({"phone": "1999"})),
        ] {
            world.call(caller, route, body).await.ok();
        }
        assert_eq!(world.operator("/member/get", json!({"id": 999})).await.code(), 310);
        assert_eq!(world.call(MEMBER, "/member/get", json!({"id": 442})).await.code(), 1002);
        // Of whom everything is erased nothing is read.
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        world.operator("/member/get", json!({"id": 439})).await.ok();
        world.call(EMPLOYEE, "/sendelecoupon/membercouponinfo", json!({"id": coupon})).await.ok();
        assert_eq!(readings(&world, before).await, Vec::<String>::new());
        world.close().await;
    }

    async fn the_same_reading_is_one_for_ten_minutes_and_each_server_has_its_own_memory(engine: Engine) {
        let mut world = World::with_people(engine).await;
        let before = last_position(&world).await;
        let read = async |world: &World, reader, route, body| {
            world.call(reader, route, body).await.ok();
            readings(world, before).await.len()
        };
        for _ in 0..3 {
            assert_eq!(read(&world, EMPLOYEE, "/member/get", json!({"id": 439})).await, 1);
            world.advance(SAME_READING_MS / 4);
        }
        // Another reader, another call, another person.
        assert_eq!(read(&world, Caller::Operator, "/member/get", json!({"id": 439})).await, 2);
        assert_eq!(read(&world, EMPLOYEE, "/member/info", json!({"member_id": 439})).await, 3);
        assert_eq!(read(&world, EMPLOYEE, "/member/get", json!({"id": 442})).await, 4);
        world.advance(SAME_READING_MS / 4);
        assert_eq!(read(&world, EMPLOYEE, "/member/get", json!({"id": 439})).await, 5);
        // Of a page only those are told whom he has not read just now; how many there were is told.
        assert_eq!(read(&world, EMPLOYEE, "/member/list", json!({"limit": 1})).await, 6);
        assert_eq!(read(&world, EMPLOYEE, "/member/list", json!({})).await, 7);
        let told = readings(&world, before).await;
        let pages = told.iter().filter(|told| told.contains("/member/list")).collect::<Vec<_>>();
        assert_eq!(pages, ["employee:1000 /member/list [442] [] [] of 1", "employee:1000 /member/list [439] [] [] of 2"]);
        // As after a restart, or on another server.
        world.set_options(HttpOptions::default());
        assert_eq!(read(&world, EMPLOYEE, "/member/get", json!({"id": 439})).await, 8);
        world.close().await;
    }

    async fn of_a_list_of_many_everybody_is_told(engine: Engine) {
        let world = World::with_people(engine).await;
        let each = (2_000..3_100).map(|id| format!("({id}, '店員{id}', '', 1, 1)")).collect::<Vec<_>>().join(",");
        world.home.sql(&format!("INSERT INTO employees (employee_id, name, phone, shop_id, active) VALUES {each}")).await.unwrap();
        let before = last_position(&world).await;
        world.operator("/user/getlist", json!({})).await.ok();
        let events = world.store().events_after(before, i64::MAX).await.unwrap();
        let mut told: Vec<i64> = Vec::new();
        for event in &events {
            let payload: Value = serde_json::from_str(&event.payload).unwrap();
            let ids: Vec<i64> = serde_json::from_value(payload["Read"]["employee_ids"].clone()).unwrap();
            assert_eq!(payload["Read"]["people"], 1_101);
            told.extend(ids);
        }
        told.sort_unstable();
        assert_eq!(told, std::iter::once(1_000).chain(2_000..3_100).collect::<Vec<_>>());
        assert_eq!(events.len(), 3);
        let last = world.get(Caller::Auditor, "/v1/readers/employee/3099").await;
        assert_eq!(lines(&last).len(), 1);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn nothing_is_shown_whose_reading_cannot_be_written_down(engine: Engine) {
        let world = World::with_people(engine).await;
        people(&world).await;
        // Another program has the ledger: it can be read, and takes nothing any more.
        world.home.sql("UPDATE log_head SET epoch = 2").await.unwrap();
        for (caller, route, body) in [
            (Caller::Operator, "/member/get", json!({"id": 439})),
            (Caller::Operator, "/member/list", json!({})),
            (EMPLOYEE, "/auditelecoupon/getlist", json!({})),
            (Caller::Auditor, "/user/info", json!({"id": 1000})),
            (Caller::Auditor, "/account/list", json!({})),
        ] {
            let reply = world.call(caller, route, body).await;
            assert_eq!((reply.code(), reply.status.as_u16(), reply.data()), (9002, 503, &Value::Null), "{route}");
        }
        let as_of = world.get(Caller::Auditor, "/v1/members/439/coupons?state=1").await;
        assert_eq!((as_of.code(), as_of.status.as_u16(), as_of.data()), (9002, 503, &Value::Null));
        assert!(!as_of.body.to_string().contains("好喝"));
        // One's own, and what is nobody's, is shown.
        world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await.ok();
        world.operator("/shop/list", json!({})).await.ok();
        world.close().await;
    }

    async fn an_auditor_finds_who_has_read_somebody(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        world.add_people().await;
        world.call(EMPLOYEE, "/member/get", json!({"id": 439})).await.ok();
        let at = last_position(&world).await;
        world.operator("/member/list", json!({})).await.ok();
        world.operator("/user/info", json!({"id": 1000})).await.ok();
        world.call(EMPLOYEE, "/member/get", json!({"id": 442})).await.ok();
        let ask = async |path: &str| {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!(reply.status, 200, "{}", reply.body);
            let lines = lines(&reply);
            let words = lines.iter().map(|line| line["words"].as_str().unwrap().to_owned());
            (words.collect::<Vec<_>>(), reply.headers["next-after"].to_str().unwrap().to_owned())
        };
        let by_employee = "employee:1000 read personal data of member 439 through /member/get, an answer with 1 in all";
        let by_operator = "operator read personal data of members 439, 442 through /member/list, an answer with 2 in all";
        let both = vec![by_employee.to_owned(), by_operator.to_owned()];
        assert_eq!(ask("/v1/readers/member/439").await, (both.clone(), (at + 1).to_string()));
        assert_eq!(ask("/v1/readers/member/439?limit=1").await, (both[..1].to_vec(), at.to_string()));
        assert_eq!(ask(&format!("/v1/readers/member/439?after={at}")).await.0, both[1..]);
        assert_eq!(ask(&format!("/v1/readers/member/439?at={at}")).await.0, both[..1]);
        assert_eq!(ask("/v1/readers/member/999").await, (Vec::new(), "0".to_owned()));
        assert_eq!(ask("/v1/readers/employee/1000").await.0.len(), 1);
        assert_eq!(ask("/v1/readers/account/1").await.0.len(), 0);
        // What somebody did tells whom he read.
        let deeds = ask("/v1/callers/employee:1000/events").await.0;
        assert_eq!((deeds.len(), &deeds[0]), (2, &by_employee.to_owned()));
        for (path, field) in [("/v1/readers/shop/1", "kind"), ("/v1/readers/member/0", "id"), ("/v1/readers/member/x", "id")] {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}: {}", reply.body);
            assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
        }
        let home = world.close().await;
        let cli = async |arguments: &[&str]| {
            let mut command = program(&home);
            command.arg("history").args(arguments);
            finish(command).await
        };
        let told = cli(&["member/439", "--readers"]).await;
        assert_eq!(told.code, Some(0), "{}", told.err);
        assert!(told.out.contains(by_employee) && told.out.contains(by_operator), "{}", told.out);
        assert_eq!(told.out.matches('#').count(), 2, "{}", told.out);
        let json = cli(&["employee/1000", "--readers", "--json"]).await;
        assert_eq!(json.out.lines().count(), 1, "{}", json.out);
        let nobody = cli(&["member/999", "--readers"]).await;
        assert_eq!((nobody.code, nobody.out.as_str()), (Some(0), ""), "{}", nobody.err);
        assert!(nobody.err.contains("nobody has read member 999"), "{}", nobody.err);
        let wrong = cli(&["shop/1", "--readers"]).await;
        assert_eq!(wrong.code, Some(2));
        assert!(wrong.err.contains("--readers: give a person"), "{}", wrong.err);
    }

    async fn reviews_of_the_past_are_read_like_those_of_today(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        world.add_people().await;
        let coupon = people(&world).await;
        let at = last_position(&world).await;
        for (path, action) in [
            ("/v1/members/439/coupons?state=1".to_owned(), "GET /v1/members/{id}/coupons"),
            (format!("/v1/coupons/{coupon}"), "GET /v1/coupons/{id}"),
            ("/v1/as-of/client/couponlist?caller=member:439&state=1".to_owned(),
             "GET /v1/as-of/{manual_page}/{manual_call}"),
        ] {
            let before = last_position(&world).await;
            let shown = world.get(Caller::Auditor, &path).await;
            assert!(shown.body.to_string().contains("好喝"), "{}", shown.body);
            assert_eq!(readings(&world, before).await, [format!("auditor {action} [439] [] [] of 1")]);
        }
        // As of before the review nothing personal is in the answer.
        let before = last_position(&world).await;
        world.get(Caller::Auditor, &format!("/v1/members/439/coupons?state=1&at={}", at - 1)).await;
        assert_eq!(readings(&world, before).await, Vec::<String>::new());

        // On the command line by the operator of the machine; where it cannot be told, without the texts.
        let clock = world.clock.clone();
        let home = world.close().await;
        put_secret(&home);
        let cli = async |home: &Home, more: &[&str]| {
            let mut command = program(home);
            let (at, asked) = (at.to_string(), ["--member", "439", "couponlist", "state=1"]);
            command.args(["as-of", &at]).args(asked).args(more);
            finish(command).await
        };
        let shown = cli(&home, &[]).await;
        assert_eq!(shown.code, Some(0), "{}", shown.err);
        assert!(shown.out.contains("好喝"), "{}", shown.out);
        let world = World::open(home, clock, Zone::default()).await;
        let told = readings(&world, 0).await;
        assert_eq!(told.last().unwrap(), "operator coupon-ledger as-of [439] [] [] of 1");
        let before = last_position(&world).await;
        if world.home.database_url.is_none() {
            // This process holds the ledger and is no server that could be asked.
            let shown = cli(&world.home, &[]).await;
            assert_eq!(shown.code, Some(0), "{}", shown.err);
            assert!(!shown.out.contains("好喝") && shown.out.contains("\"evaluation\":\"\""), "{}", shown.out);
            assert!(shown.err.contains("without the texts of reviews"), "{}", shown.err);
            assert_eq!(readings(&world, before).await, Vec::<String>::new());
        }
        let home = world.close().await;
        let server = Server::start(&home, &[]).await;
        let shown = cli(&home, &[]).await;
        assert!(shown.out.contains("好喝"), "{} {}", shown.out, shown.err);
        let api = Api::new(&home, &server);
        let (status, told) = api.get(Caller::Auditor, &format!("/v1/readers/member/439?after={before}")).await;
        assert_eq!(status, 200, "{told}");
        assert!(told.contains("through coupon-ledger as-of") || told.contains("through GET /v1/as-of/"), "{told}");
        server.kill().await;
    }

    async fn every_page_that_shows_anything_personal_tells_who_read_it(engine: Engine) {
        let mut showing = BTreeSet::new();
        for page in PAGES {
            let world = World::with_people(engine).await;
            for case in (page.cases)(&world).await {
                for reader in [case.caller, Caller::Operator, Caller::Auditor] {
                    let texts = personal_texts(&world).await;
                    let reply = world.call(reader, case.path, case.body.clone()).await;
                    let body = reply.body.to_string();
                    // What members see of each other came with a gift.
                    let others = !matches!(reader, Caller::Member(_)) && reply.code() == 0;
                    if others && texts.iter().any(|text| body.contains(text)) {
                        let told = readings(&world, 0).await;
                        let by = format!("{reader} {} ", case.path);
                        assert!(told.iter().any(|told| told.starts_with(&by)), "{by}: {body}");
                        showing.insert(case.path);
                    }
                }
            }
            world.close().await;
        }
        let expected = ["/auditelecoupon/getlist", "/member/get", "/member/info", "/member/list", "/user/getlist", "/user/list"];
        assert!(expected.iter().all(|path| showing.contains(path)), "{showing:?}");
    }

    async fn readings_are_taken_along_into_another_ledger(engine: Engine) {
        let world = World::with_people(engine).await;
        world.call(EMPLOYEE, "/member/get", json!({"id": 439})).await.ok();
        world.call(FRIEND, "/shop/add", json!({})).await;
        world.app.watch.write_down(&world.ledger).await.unwrap();
        sign_log(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let export = folder.path().join("export");
        export_whole(&world, &export).await;
        let home = world.close().await;
        let other = Home::new(engine).await;
        put_secret(&other);
        std::fs::copy(home.person_keys_file(), other.person_keys_file()).unwrap();
        let mut command = program(&other);
        command.args(["import", "export"]).arg(&export);
        let done = finish(command).await;
        assert_eq!(done.code, Some(0), "{}", done.err);
        let world = World::open(other, Clock::manual(crate::harness::NOON), Zone::default()).await;
        assert_eq!(lines(&world.get(Caller::Auditor, "/v1/readers/member/439").await).len(), 1);
        let refused = world.get(Caller::Auditor, "/v1/callers/member:442/events").await;
        assert_eq!(lines(&refused)[0]["type"], "Gathered");
        // Ids go on behind those that came along.
        world.call(PARTNER, "/businesshome/get", json!({})).await;
        world.operator("/user/add", json!({"id": 1000, "name": "店員", "shop_id": 1})).await.ok();
        world.operator("/user/info", json!({"id": 1000})).await.ok();
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_apps_of_one_process_remember_apart() {
    let world = World::with_people(crate::harness::Engine::Sqlite).await;
    let other = App::new(world.ledger.clone(), HttpOptions::default());
    world.operator("/member/get", json!({"id": 439})).await.ok();
    let shown = coupon_ledger::watch::Shown {
        reader: Caller::Operator,
        action: "/member/get",
        people: &[coupon_ledger::reading::Person::Member(439)],
        request_id: "r",
    };
    world.app.watch.tell(&world.ledger, shown).await.unwrap();
    assert_eq!(readings(&world, 0).await.len(), 1);
    other.watch.tell(&world.ledger, shown).await.unwrap();
    assert_eq!(readings(&world, 0).await.len(), 2);
    world.close().await;
}
