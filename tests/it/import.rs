//! Import from CSV: what a file may be, what each bad line is told, and that nothing is taken twice.

use std::time::Duration;

use coupon_ledger::audit::rebuild::rebuild;
use coupon_ledger::coupon::{Coupon, CouponCommand, CouponEvent, Past};
use coupon_ledger::definition::Definition;
use coupon_ledger::facts::{Facts, Membership};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use coupon_ledger::import::{self, Asked, Import, MAX_ERRORS, MAX_FILE_BYTES, What};
use coupon_ledger::ledger::ExecuteError;
use coupon_ledger::refusal::{Refusal, Wrong};
use coupon_ledger::shop::Shop;
use coupon_ledger::value::MAX_ID;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decisions::{day, facts_at, issued, issuing, redeem, voided};
use crate::harness::{DAY, FRIEND, HOUR, Home, MEMBER, NOON, Reply, Server, World, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, assert_gapless, count, events, until};
use crate::replay::assert_rows_equal_replay;
use crate::requests::{assert_envelope, property};

const COUPONS: &str = "/elecoupons/import";
const MEMBERS: &str = "/member/import";
const HEADER: &str =
    "id,coupon_id,member_id,start_date,end_date,create_date,state,use_date,shop_id,user_id\n";

/// Sends a file as the body, as it is.
async fn send(world: &World, route: &str, query: &str, key: Option<&str>, file: &[u8]) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let mut headers =
        vec![("authorization", bearer.as_str()), ("content-type", "text/csv"), ("accept-language", "en")];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    world.raw("POST", &format!("{route}?{query}"), &headers, file.to_vec()).await
}

async fn import(world: &World, route: &str, file: &str) -> Reply {
    send(world, route, "dry_run=0", None, file.as_bytes()).await
}

/// (rows, taken, bad)
fn counts(reply: &Reply) -> (i64, i64, i64) {
    let number = |name: &str| reply.ok()[name].as_i64().unwrap();
    (number("nums"), number("ok_num"), number("bad_num"))
}

/// `line field: why` of each error.
fn errors(reply: &Reply) -> Vec<String> {
    let text = |error: &Value| {
        format!("{} {}: {}", error["line"], error["field"].as_str().unwrap(), error["why"].as_str().unwrap())
    };
    reply.ok()["errors"].as_array().unwrap().iter().map(text).collect()
}

/// What is wrong with a file as a whole.
fn refused(reply: &Reply) -> String {
    assert_eq!(reply.code(), 401, "{}", reply.body);
    reply.body["info"]["csv"].as_str().unwrap().to_owned()
}

fn asked(world: &World, key: &str, dry_run: bool) -> Asked {
    Asked {
        caller: Caller::Operator,
        key: key.to_owned(),
        request_mac: world.secrets.request_mac(key),
        request_id: "test".to_owned(),
        dry_run,
    }
}

/// Every table that an import could write to, in words.
async fn everything(world: &World) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for sql in [
        "SELECT position || ' ' || CAST(payload AS TEXT) FROM events ORDER BY position",
        "SELECT key FROM receipts ORDER BY key",
        "SELECT key FROM directory_receipts ORDER BY key",
        "SELECT kind || ' ' || next_id FROM id_blocks ORDER BY kind",
        "SELECT CAST(issued AS TEXT) FROM stock_v1 ORDER BY definition_id",
        "SELECT CAST(member_id AS TEXT) FROM members ORDER BY member_id",
        "SELECT name || value FROM ledger_facts ORDER BY name",
    ] {
        found.push(world.home.sql(sql).await.unwrap());
    }
    found
}

fn table(header: &str, rows: impl Iterator<Item = String>) -> String {
    let mut lines = vec![header.to_owned()];
    lines.extend(rows);
    lines.push(String::new());
    lines.join("\n")
}

fn unused(ids: impl Iterator<Item = i64>) -> String {
    let holder = |id: i64| if id % 2 == 0 { 439 } else { 442 };
    let rows = ids.map(|id| format!("{id},1,{},2026-01-01,2026-12-31,unused", holder(id)));
    table("id,coupon_id,member_id,start_date,end_date,state", rows)
}

on_both_engines! {
    async fn coupons_come_with_their_ids_dates_holders_and_states(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({"num": 10, "title": "舊券", "rules": "規則", "get_limit_type": 2, "get_limit": 1})).await;
        // Limits and the switch bind what is issued here, not what was issued elsewhere.
        world.operator("/elecoupons/state", json!({"id": 1, "state": 0})).await.ok();
        let file = format!("{HEADER}\
            5001,1,439,2026-01-01,2026-12-31,2025-12-30 08:15:00,unused,,,\n\
            5002,1,439,2026-01-01,2026-12-31,,已使用,2026-03-01 10:31:41,1,1000\n\
            5003,1,439,2026-01-01,2026-12-31,2026-01-02,1,2026-03-02,1,0\n\
            5004,1,442,2026-01-01,2026-12-31,,已作废,2026-04-01,,\n\
            5005,1,442,2026-01-01,2026-03-31,,未使用,0,0,0\n\
            5006,1,442,2027-01-01,2027-12-31,,0,,,\n");
        let done = import(&world, COUPONS, &file).await;
        assert_eq!((counts(&done), errors(&done)), ((6, 6, 0), vec![]));
        let list = async |caller, state| {
            let list = world.call(caller, "/client/couponlist", json!({"state": state})).await;
            list.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((list(MEMBER, 0).await, list(MEMBER, 1).await), (vec![5001], vec![5003, 5002]));
        assert_eq!((list(FRIEND, 0).await, list(FRIEND, 1).await), (vec![5006], vec![5004]));
        assert_eq!(list(FRIEND, 2).await, [5005]);
        let info = world.call(MEMBER, "/client/couponinfo", json!({"id": 5001})).await;
        insta::allow_duplicates! { insta::assert_json_snapshot!("couponinfo_of_an_imported_coupon", info.ok()); }
        let used = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": 5002, "shop_id": 1})).await;
        assert_eq!((used.code(), &used.data()["shop_id"]), (3001, &json!(1)));
        let redemption = used.data()["id"].clone();
        let shown = world.call(MEMBER, "/client/auditcouponinfo", json!({"id": redemption})).await;
        assert_eq!(shown.ok()["create_date"], "2026年03月01 10:31:41");
        assert_eq!(events(&world.home, "Expired").await, 1);
        // What was voided there takes no stock here.
        let row = world.operator("/elecoupons/info", json!({"id": 1})).await;
        assert_eq!(row.ok()["inventory"], 5);
        assert_rows_equal_replay(&world).await;
        rebuild(&world.ledger, "all").await.unwrap();
        assert_rows_equal_replay(&world).await;
        // They are coupons like any other: given, used, recalled with their definition.
        let code = world.give(MEMBER, 5001).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": 5001, "code": code})).await.ok();
        world.call(FRIEND, "/client/auditcoupon", json!({"mem_coupon_id": 5001, "shop_id": 1})).await.ok();
        world.operator("/elecoupons/recall", json!({"coupon_id": 1, "reason": "x"})).await.ok();
        for job_id in coupon_ledger::runner::open_jobs(world.store()).await.unwrap() {
            coupon_ledger::runner::run_job(&world.ledger, job_id).await.unwrap();
        }
        assert_eq!(list(FRIEND, 0).await, Vec::<i64>::new());
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn each_bad_line_is_told_with_its_reason_and_stops_nothing_else(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({"num": 3})).await;
        world.issue(1, 439).await;
        let good = "2026-01-01,2026-12-31,,unused,,,";
        let file = format!("{HEADER}\
            9000001,1,439,{good}\n\
            x,1,439,{good}\n\
            0,1,439,{good}\n\
            9007199254740992,1,439,{good}\n\
            9000002,,439,{good}\n\
            9000003,1,439,2026-02-29,2026-12-31,,unused,,,\n\
            9000004,1,439,2026-12-31,2026-01-01,,unused,,,\n\
            9000005,1,439,,2026-12-31,,unused,,,\n\
            9000006,1,439,2026-01-01,2026-12-31,2026/01/01,unused,,,\n\
            9000007,1,439,2026-01-01,2026-12-31,2026-11-24,unused,,,\n\
            9000008,1,439,2026-01-01,2026-12-31,,lost,,,\n\
            9000009,1,439,2026-01-01,2026-12-31,,,,,\n\
            9000010,1,439,2026-01-01,2026-12-31,,used,,1,\n\
            9000011,1,439,2026-01-01,2026-12-31,,used,2026-03-01,,\n\
            9000012,1,439,2026-01-01,2026-12-31,,used,2026-12-01,1,\n\
            9000013,1,439,2026-01-01,2026-12-31,,unused,2026-03-01,,\n\
            9000014,1,439,2026-01-01,2026-12-31,,used,2026-03-01 25:00:00,1,\n\
            9000015,1,439\n\
            9000016,7,439,{good}\n\
            9000017,1,7,{good}\n\
            9000018,1,439,2026-01-01,2026-12-31,,used,2026-03-01,7,\n\
            9000001,1,439,{good}\n\
            999,1,439,{good}\n\
            1,1,439,{good}\n\
            9000019,1,439,\"2026-01-01\n\",2026-12-31,,unused,,,\n\
            9000020,1,442,{good}\n");
        let expected = [
            "3 id: id must be a whole number",
            "4 id: id must be between 1 and 9007199254740991",
            "5 id: id must be between 1 and 9007199254740991",
            "6 coupon_id: coupon_id is required",
            "7 start_date: start_date must be a day like 2018-11-01",
            "8 end_date: end_date must not be before the start",
            "9 start_date: start_date is required",
            "10 create_date: create_date must be a day or a time like 2018-11-01 10:31:41",
            "11 create_date: create_date must not lie in the future",
            "12 state: state must be unused, used or voided",
            "13 state: state is required",
            "14 use_date: use_date is required",
            "15 shop_id: shop_id is required",
            "16 use_date: use_date must not lie in the future",
            "17 use_date: use_date cannot be given together with state",
            "18 use_date: use_date must be a day or a time like 2018-11-01 10:31:41",
            "19 csv: the line must have 10 cells",
            "20 coupon_id: no such coupon definition",
            "21 member_id: no such member or employee",
            "22 shop_id: no such shop, shop closed, or not our QR",
            "23 id: id is in the file twice",
            "24 id: ids below 1001 are this ledger's own",
            "25 id: id is taken",
            "28 coupon_id: sold out",
        ];
        let before = everything(&world).await;
        let dry = send(&world, COUPONS, "", None, file.as_bytes()).await;
        assert_eq!((counts(&dry), errors(&dry)), ((26, 2, 24), expected.map(ToOwned::to_owned).to_vec()));
        assert_eq!(dry.ok()["dry_run"], 1);
        assert_eq!(everything(&world).await, before, "a dry run writes nothing");
        let done = import(&world, COUPONS, &file).await;
        assert_eq!((counts(&done), errors(&done)), (counts(&dry), errors(&dry)));
        assert_eq!(events(&world.home, "Imported").await, 2);
        assert_rows_equal_replay(&world).await;
        // Under another key what is there is told as what it is.
        let again = send(&world, COUPONS, "dry_run=0", Some("another-key"), file.as_bytes()).await;
        assert_eq!(counts(&again), (26, 0, 26));
        assert_eq!(errors(&again)[0], "2 id: id was imported already");
        // In the caller's language.
        let chinese = world.operator(COUPONS, json!({"csv": format!("{HEADER}x,1,439,{good}\n")})).await;
        assert_eq!(errors(&chinese), ["2 id: id必須是數字"]);
        world.close().await;
    }

    async fn a_file_may_come_in_each_encoding_and_each_way(engine: Engine) {
        let world = World::with_people(engine).await;
        let text = "id,nickname,member_name\n600,联通,黃明波\n";
        let (gbk, _, unmapped) = encoding_rs::GBK.encode(text);
        assert!(!unmapped);
        let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let files = [
            text.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            [b"\xff\xfe".to_vec(), utf16].concat(),
            gbk.into_owned(),
            text.replace('\n', "\r\n").into_bytes(),
            b"\"nickname\",\"id\",\"member_name\"\n\"\xe8\x81\x94\xe9\x80\x9a\",\"600\",\"\xe9\xbb\x83\xe6\x98\x8e\xe6\xb3\xa2\"\n\n\n,,\n".to_vec(),
        ];
        for (place, file) in (600..).zip(files) {
            let id = place.to_string();
            let file = if file.starts_with(b"\xff\xfe") {
                let wide = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
                replaced(&file, &wide("600"), &wide(&id))
            } else {
                replaced(&file, b"600", id.as_bytes())
            };
            let done = send(&world, MEMBERS, "dry_run=0", None, &file).await;
            assert_eq!((counts(&done), errors(&done)), ((1, 1, 0), vec![]), "{place}");
            let member = world.operator("/member/get", json!({"id": place})).await;
            let names = (&member.ok()["wechat_user"]["nickname"], &member.ok()["member_name"]);
            assert_eq!(names, (&json!("联通"), &json!("黃明波")), "{place}");
        }
        // The same file in a field, under the same key: it is the same request.
        let body = json!({"csv": "id\n700\n", "dry_run": 0});
        let first = world.keyed(Caller::Operator, "one-file", MEMBERS, body.clone()).await;
        let second = send(&world, MEMBERS, "dry_run=0", Some("one-file"), b"id\n700\n").await;
        assert_eq!((first.replayed(), second.replayed(), first.ok()), (false, true, second.ok()));
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let form = [("authorization", bearer.as_str()), ("content-type", "application/x-www-form-urlencoded"), ("idempotency-key", "one-file")];
        let third = world.request(MEMBERS, &form, "csv=id%0A700%0A&dry_run=0").await;
        assert_eq!((third.replayed(), third.ok()), (true, first.ok()));
        let other = world.keyed(Caller::Operator, "one-file", MEMBERS, json!({"csv": "id\n701\n", "dry_run": 0})).await;
        assert_eq!(other.code(), 6001);
        world.close().await;
    }

    async fn what_is_no_such_table_is_refused_as_a_whole(engine: Engine) {
        let world = World::with_people(engine).await;
        let before = everything(&world).await;
        for (file, why) in [
            (b"PK\x03\x04\x14\x00\x06\x00".as_slice(), "csv is not a text in UTF-8, UTF-16 or GBK"),
            (b"\x89PNG\r\n\x1a\n\xff\xff", "csv is not a text in UTF-8, UTF-16 or GBK"),
            (b"\xef\xbb\xbfid\n\xff\n", "csv is not a text in UTF-8, UTF-16 or GBK"),
            (b"id,colour\n1,2\n", "csv has an unknown column: colour"),
            (b"id,coupon_id,member_id,start_date,state\n", "csv has no column end_date"),
            (b"id,id\n1,2\n", "csv has the column id twice"),
            (b"", "csv is required"),
            (b"\n \r\n", "csv is required"),
        ] {
            for query in ["dry_run=0", "dry_run=1"] {
                assert_eq!(refused(&send(&world, COUPONS, query, None, file).await), why);
            }
        }
        let wrong = send(&world, COUPONS, "dry_run=2", None, HEADER.as_bytes()).await;
        assert_eq!(wrong.body["info"], json!({"dry_run": "dry_run must be between 0 and 1"}));
        let unreadable = send(&world, COUPONS, "dry_run=%ff", None, HEADER.as_bytes()).await;
        assert_eq!(unreadable.body["info"], json!({"body": "the body cannot be read"}));
        let large = send(&world, COUPONS, "", None, &vec![b'x'; MAX_FILE_BYTES + 1]).await;
        assert_eq!((large.status.as_u16(), large.code()), (413, 401));
        // Only these routes take files, and only operators may send them.
        let elsewhere = send(&world, "/member/add", "", None, b"id\n1\n").await;
        assert_eq!((elsewhere.status.as_u16(), elsewhere.code()), (415, 401));
        assert_eq!(world.call(MEMBER, COUPONS, json!({})).await.code(), 1002);
        // A header alone is a table without rows.
        assert_eq!(counts(&import(&world, COUPONS, HEADER).await), (0, 0, 0));
        assert_eq!(everything(&world).await, before);
        world.close().await;
    }

    async fn a_file_is_taken_once_however_often_it_comes(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({"num": 2_000})).await;
        let file = unused(5_001..=5_900);
        let first = import(&world, COUPONS, &file).await;
        assert_eq!((counts(&first), first.replayed()), ((900, 900, 0), false));
        let after = everything(&world).await;
        let second = import(&world, COUPONS, &file).await;
        assert_eq!((second.ok(), second.replayed()), (first.ok(), true));
        assert_eq!(everything(&world).await[0], after[0]);
        let people = table("nickname,tag_ids", (0..150).map(|number| format!("名{number},1;2")));
        let first = import(&world, MEMBERS, &people).await;
        assert_eq!((counts(&first), first.replayed()), ((150, 150, 0), false));
        let after = everything(&world).await;
        let second = import(&world, MEMBERS, &people).await;
        assert_eq!((second.ok(), second.replayed()), (first.ok(), true));
        assert_eq!(everything(&world).await, after);
        // Who means them to be others says so with a key.
        assert_eq!(counts(&send(&world, MEMBERS, "dry_run=0", Some("others"), people.as_bytes()).await), (150, 150, 0));
        assert_eq!(count(&world.home, "SELECT count(*) FROM members").await, 302);
        assert_eq!(count(&world.home, "SELECT count(*) FROM member_tags").await, 600);
        world.close().await;
    }

    async fn a_line_that_came_in_later_under_a_key_is_taken_for_ever(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({"num": 1})).await;
        let file = unused(5001..5003);
        let again = async || send(&world, COUPONS, "dry_run=0", Some("old-system"), file.as_bytes()).await;
        assert_eq!(errors(&again().await), ["3 coupon_id: sold out"]);
        world.operator("/elecoupons/inventory", json!({"id": 1, "num": 1, "type": 1})).await.ok();
        let second = again().await;
        assert_eq!((counts(&second), errors(&second), second.replayed()), ((2, 2, 0), vec![], false));
        let third = again().await;
        assert_eq!((third.ok(), third.replayed()), (second.ok(), true));
        world.close().await;
    }

    async fn a_killed_import_goes_on_and_doubles_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let mut file = unused(5_001..=6_000);
        file.push_str("7000,1,999,2026-01-01,2026-12-31,unused\n");
        let coupons = asked(&world, "killed-coupons", false);
        let mut people: String = "id,nickname\n".to_owned();
        people.extend((0..130).map(|number| if number % 3 == 0 { format!("{},名\n", 700 + number) } else { ",名\n".to_owned() }));
        people.push_str("439,名\n");
        let members = asked(&world, "killed-members", false);
        // Killed between two chunks.
        let mut one = Import::begin(&world.ledger, What::Coupons, &file, &coupons).await.unwrap();
        assert!(one.step().await.unwrap());
        let mut other = Import::begin(&world.ledger, What::Members, &people, &members).await.unwrap();
        assert!(other.step().await.unwrap());
        drop((one, other));
        assert_eq!(events(&world.home, "Imported").await, 400);
        let clock = world.clock.clone();
        let zone = world.ledger.zone();
        let world = World::open(world.close().await, clock, zone).await;
        let report = import::run(&world.ledger, What::Coupons, file.as_bytes(), &coupons).await.unwrap();
        assert_eq!((report.rows, report.ok, report.bad, report.replayed), (1_001, 1_000, 1, false));
        assert_eq!((report.errors[0].line, &report.errors[0].refusal), (1_002, &Refusal::NoSuchMember));
        assert_eq!(events(&world.home, "Imported").await, 1_000);
        let report = import::run(&world.ledger, What::Members, people.as_bytes(), &members).await.unwrap();
        assert_eq!((report.rows, report.ok, report.bad, report.replayed), (131, 130, 1, false));
        assert_eq!(count(&world.home, "SELECT count(*) FROM members").await, 132);
        // What was refused for a reason that has gone comes with the next try; what is told stays true.
        world.operator("/member/add", json!({"id": 999})).await.ok();
        let report = import::run(&world.ledger, What::Coupons, file.as_bytes(), &coupons).await.unwrap();
        assert_eq!((report.ok, report.bad, report.replayed), (1_001, 0, false));
        let members = import::run(&world.ledger, What::Members, people.as_bytes(), &members).await.unwrap();
        assert_eq!((members.ok, members.bad, members.replayed), (130, 1, true));
        assert_eq!((members.errors[0].line, members.errors[0].field()), (132, "id"));
        // The key stands for this file.
        let other = Asked { request_mac: "another".to_owned(), ..coupons };
        for (what, file) in [(What::Coupons, unused(9_000..=9_001)), (What::Members, "id\n9000\n".to_owned())] {
            let other = if what == What::Members { Asked { key: "killed-members".to_owned(), ..other.clone() } } else { other.clone() };
            let refused = import::run(&world.ledger, what, file.as_bytes(), &other).await;
            assert!(matches!(refused, Err(ExecuteError::Refused(Refusal::KeyReused))), "{refused:?}");
        }
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn an_import_that_outlives_its_request_is_told_under_its_key(engine: Engine) {
        let mut world = World::with_people(engine).await;
        world.define(json!({})).await;
        let file = unused(5_001..=6_200);
        world.set_options(HttpOptions { request_timeout: Duration::ZERO, ..HttpOptions::default() });
        let late = send(&world, COUPONS, "dry_run=0", Some("a-long-one"), file.as_bytes()).await;
        assert_eq!((late.status.as_u16(), late.code()), (503, 9002));
        until("it is done", async || events(&world.home, "Imported").await == 1_200).await;
        world.set_options(HttpOptions::default());
        let told = send(&world, COUPONS, "dry_run=0", Some("a-long-one"), file.as_bytes()).await;
        assert_eq!((counts(&told), told.replayed()), ((1_200, 1_200, 0), true));
        world.close().await;
    }

    async fn the_same_import_twice_at_once_is_one(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let file = unused(5_001..=6_200);
        let people: String = (0..200).map(|_| "名\n").collect();
        let people = format!("nickname\n{people}");
        let (one, two, three, four) = tokio::join!(
            import(&world, COUPONS, &file),
            import(&world, COUPONS, &file),
            import(&world, MEMBERS, &people),
            import(&world, MEMBERS, &people),
        );
        assert_eq!((counts(&one), counts(&two)), ((1_200, 1_200, 0), (1_200, 1_200, 0)));
        assert_eq!((counts(&three), counts(&four)), ((200, 200, 0), (200, 200, 0)));
        assert_eq!(events(&world.home, "Imported").await, 1_200);
        assert_eq!(count(&world.home, "SELECT count(*) FROM members").await, 202);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn imported_ids_and_the_ledgers_own_never_meet(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        // Ids that no block has yet reached, in any order and any number of files.
        assert_eq!(counts(&import(&world, COUPONS, &unused((1..=2_500).rev().step_by(3))).await), (834, 834, 0));
        assert_eq!(counts(&import(&world, COUPONS, &unused([MAX_ID, 1_002, 3].into_iter())).await), (3, 3, 0));
        let mut issued = Vec::new();
        for _ in 0..4 {
            let body = json!({"coupon_id": 1, "member_ids": vec![439; 450]});
            let done = world.operator("/sendelecoupon/members", body).await;
            assert_eq!(done.ok()["refused_num"], 0);
            issued.extend(done.ok()["issued"].as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()));
        }
        let imported: std::collections::BTreeSet<i64> =
            (1..=2_500).rev().step_by(3).chain([1_002, 3]).collect();
        assert!(issued.iter().all(|id| !imported.contains(id)) && issued.is_sorted());
        let free: Vec<i64> = (1..).filter(|id| !imported.contains(id)).take(issued.len()).collect();
        assert_eq!(issued, free);
        // From now on these ids are the ledger's own.
        let late = import(&world, COUPONS, &unused([2_999, 5_000].into_iter())).await;
        assert_eq!(errors(&late), ["2 id: ids below 3001 are this ledger's own"]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    /// The race that is left: a block was taken while an import of its ids was being written.
    async fn a_chosen_id_that_turns_out_taken_is_a_conflict_and_no_bad_parameter(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let first = world.issue(1, 439).await;
        world.home.sql(&format!("UPDATE id_blocks SET next_id = {first} WHERE kind = 'coupon'")).await.unwrap();
        import(&world, COUPONS, &unused([first + 1].into_iter())).await.ok();
        let one = world.operator("/sendelecoupon/one", json!({"coupon_id": 1, "member_id": 439})).await;
        assert_eq!(one.code(), 6003, "{}", one.body);
        world.issue(1, 439).await;
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_hundred_thousand_coupons_with_one_bad_in_a_hundred(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({"num": 200_000})).await;
        let row = |number: i64| {
            let id = 2_000_000 + number;
            let member = if number % 2 == 0 { 439 } else { 442 };
            match number % 100 {
                50 => format!("{id},1,{member},2026-01-01,2026-02-30,unused,,"),
                51 => format!("{id},1,{member},2026-01-01,2026-12-31,used,2026-05-01 12:00:00,1"),
                52 => format!("{id},1,{member},2026-01-01,2026-06-30,voided,,"),
                _ => format!("{id},1,{member},2026-01-01,2026-12-31,unused,,"),
            }
        };
        let header = "id,coupon_id,member_id,start_date,end_date,state,use_date,shop_id";
        let file = table(header, (0..100_000).map(row));
        let done = import(&world, COUPONS, &file).await;
        assert_eq!(counts(&done), (100_000, 99_000, 1_000));
        assert_eq!(errors(&done).len(), MAX_ERRORS);
        assert_eq!(errors(&done)[999], "99952 end_date: end_date must be a day like 2018-11-01");
        assert_eq!(events(&world.home, "Imported").await, 99_000);
        let row = world.operator("/elecoupons/info", json!({"id": 1})).await;
        assert_eq!(row.ok()["inventory"], 200_000 - 98_000);
        assert_eq!(count(&world.home, "SELECT count(*) FROM redemptions_v1").await, 1_000);
        world.close().await;
    }

    async fn members_come_by_the_thousand(engine: Engine) {
        let world = World::with_people(engine).await;
        let row = |number: i64| {
            let id = if number % 2 == 0 { String::new() } else { (10_000 + number).to_string() };
            match number % 100 {
                10 => format!("{id},名,,,,,x,,,,"),
                11 => "439,名,,,,,,,,,".to_owned(),
                12 => format!("{id},名,,,,,,,1;x,,"),
                13 => format!("{id},名,,,,,,,,1990-02-30,"),
                14 => format!("{id},{},,,,,,,,,", "長".repeat(101)),
                15 => format!("{id},\"a\u{1b}\",,,,,,,,,"),
                16 => format!("{id},名"),
                _ => format!("{id},名{number},http://p/1,王,1380000,C{number},2,1,\"3,1;1\",1990-02-28,2027-01-31"),
            }
        };
        let header = "id,nickname,headimgurl,member_name,phone,member_card,level_id,shop_id,tag_ids,birthday,card_end";
        let file = table(header, (0..4_000).map(row));
        let dry = send(&world, MEMBERS, "", None, file.as_bytes()).await;
        assert_eq!(counts(&dry), (4_000, 3_720, 280));
        let done = import(&world, MEMBERS, &file).await;
        assert_eq!((counts(&done), errors(&done)), (counts(&dry), errors(&dry)));
        assert_eq!(errors(&done)[..8], [
            "12 level_id: level_id must be a whole number",
            "13 id: id is taken",
            "14 tag_ids: tag_ids must be a list of whole numbers",
            "15 birthday: birthday must be a day like 2018-11-01",
            "16 nickname: nickname must not be longer than 100 characters",
            "17 nickname: nickname contains control characters",
            "18 csv: the line must have 11 cells",
            "112 level_id: level_id must be a whole number",
        ]);
        assert_eq!(errors(&done)[8], "113 id: id is in the file twice");
        assert_eq!(count(&world.home, "SELECT count(*) FROM members").await, 3_722);
        let member = world.operator("/member/get", json!({"id": 10_001})).await;
        insta::allow_duplicates! { insta::assert_json_snapshot!("an_imported_member", member.ok()); }
        // Ids given by hand move where the next ones are taken from.
        let next = world.operator("/member/add", json!({"nickname": "下一個"})).await;
        assert!(next.ok()["id"].as_i64().unwrap() > 13_999, "{}", next.body);
        world.close().await;
    }

    async fn the_command_line_imports_while_the_server_runs_and_without_it(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/elecoupons/add", crate::harness::definition(json!({}))).await.ok();
        let file = |name: &str, content: &[u8]| {
            let path = home.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let run = async |arguments: &[&str]| {
            let done = program(&home).arg("import").args(arguments).heard().await;
            let told = serde_json::from_slice(&done.stdout).unwrap_or(Value::Null);
            (done.status.code(), told, String::from_utf8_lossy(&done.stderr).into_owned())
        };
        let people = file("people.csv", &encoding_rs::GBK.encode("id,nickname\n439,黃明波\n442,联通\n").0);
        let coupons = file("coupons.csv", format!("{}5004,1,7,2026-01-01,2026-12-31,unused\n", unused(5_001..=5_003)).as_bytes());
        let told = |ok: i64, bad: i64, dry_run: i64, replayed: bool| {
            json!({"nums": ok + bad, "ok_num": ok, "bad_num": bad, "dry_run": dry_run, "replayed": replayed})
        };
        let (code, out, err) = run(&["members", &people]).await;
        assert_eq!((code, out), (Some(0), told(2, 0, 0, false)), "{err}");
        let (code, out, err) = run(&["coupons", &coupons, "--dry-run"]).await;
        assert_eq!((code, out, events(&home, "Imported").await), (Some(1), told(3, 1, 1, false), 0), "{err}");
        let (code, out, err) = run(&["coupons", &coupons]).await;
        assert_eq!((code, out), (Some(1), told(3, 1, 0, false)));
        assert!(err.contains("line 5, member_id: no such member or employee") && err.contains("1 lines are bad"), "{err}");
        server.kill().await;
        // The same file is the same import, whoever takes it.
        let (code, out, err) = run(&["coupons", &coupons]).await;
        assert_eq!((code, out, events(&home, "Imported").await), (Some(1), told(3, 1, 0, true), 3), "{err}");
        let (code, out, err) = run(&["coupons", &coupons, "--dry-run"]).await;
        assert_eq!((code, out), (Some(1), told(0, 4, 1, false)), "{err}");
        let more = file("more.csv", unused(6_000..=6_001).as_bytes());
        assert_eq!(run(&["coupons", &more, "--run", "spring-2026"]).await.1, told(2, 0, 0, false));
        let (code, _, err) = run(&["coupons", &coupons, "--run", "spring-2026"]).await;
        assert!(code == Some(1) && err.contains("6001"), "{err}");
        for (content, why) in [(&b"PK\x03\x04\0\0"[..], "csv is not a text"), (b"", "csv is required"), (b"id,x", "unknown column: x")] {
            let (code, _, err) = run(&["members", &file("bad.csv", content)]).await;
            assert!(code == Some(1) && err.contains(why), "{err}");
        }
        let nowhere = home.path().join("nowhere.csv");
        let (code, _, err) = run(&["members", nowhere.to_str().unwrap()]).await;
        assert!(code == Some(2) && err.contains("cannot read"), "{err}");
        assert_eq!(run(&["members", &people, "--run", "a b"]).await.0, Some(2));
        assert_eq!(count(&home, "SELECT count(*) FROM members").await, 2);
    }

    async fn a_program_killed_in_an_import_goes_on_and_doubles_nothing(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/elecoupons/add", crate::harness::definition(json!({}))).await.ok();
        for id in [439, 442] {
            api.operator("/member/add", json!({"id": id})).await.ok();
        }
        server.kill().await;
        let coupons = home.path().join("coupons.csv");
        std::fs::write(&coupons, unused(5_001..=13_000)).unwrap();
        let people = home.path().join("people.csv");
        std::fs::write(&people, table("nickname", (0..3_000).map(|number| format!("名{number}")))).unwrap();
        let imported = "SELECT count(*) FROM events WHERE event_type = 'Imported'";
        let added = "SELECT count(*) - 2 FROM members";
        for (what, file, counted, rows) in [("coupons", coupons, imported, 8_000), ("members", people, added, 3_000)] {
            let run = || {
                let mut command = program(&home);
                command.args(["import", what]).arg(&file);
                command
            };
            for _ in 0..3 {
                let before = count(&home, counted).await;
                let mut child = run().spawn().unwrap();
                // Killed once it has got somewhere.
                until("it gets on", async || {
                    count(&home, counted).await > before || child.try_wait().unwrap().is_some()
                })
                .await;
                child.kill().await.unwrap();
            }
            let done = run().heard().await;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            let told: Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!((&told["nums"], &told["ok_num"]), (&json!(rows), &json!(rows)));
            assert_eq!(count(&home, counted).await, rows);
        }
        assert_gapless(&home).await;
    }

    async fn any_file_is_answered_and_a_dry_run_writes_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let before = everything(&world).await;
        let cell = "(1|439|900[0-9]{4}|2026-0[1-9]-0[1-9]|unused|used|3|0|-1|,|\"|\"\"|x|電|\\r|[\\x00-\\x20])?";
        let table = prop::collection::vec(cell, 0..30).prop_map(|cells| cells.join(",").replace("3,", "3\n"));
        let headed = (0..2_usize, table).prop_map(|(which, rows)| {
            (which, format!("{}{rows}", [HEADER, "id,nickname,tag_ids\n"][which]).into_bytes())
        });
        let bytes = (0..2_usize, prop::collection::vec(any::<u8>(), 0..200));
        property(200, prop_oneof![headed, bytes], async |(which, file)| {
            let reply = send(&world, [COUPONS, MEMBERS][which], "dry_run=1", None, &file).await;
            assert_envelope(&reply);
            if reply.code() == 0 {
                let (rows, ok, bad) = counts(&reply);
                assert_eq!(rows, ok + bad);
            }
        });
        assert_eq!(everything(&world).await, before);
        world.close().await;
    }
}

fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

fn taken_over(past: Past) -> CouponCommand {
    CouponCommand::Import {
        definition_id: 1,
        member_id: 439,
        days: (day("2026-01-01"), day("2026-11-23")),
        born_at_ms: NOON - 300 * DAY,
        past,
        employee_id: 0,
    }
}

/// Everything is there that an import needs.
fn facts(now_ms: i64) -> Facts {
    let mut facts = facts_at(now_ms);
    facts.definition =
        Some(Definition { offer: Some(Box::new(issuing::offer())), ..Definition::default() }.into());
    facts.member = Some(Membership::default());
    facts
}

fn decide(
    given: &[CouponEvent],
    command: &CouponCommand,
    facts: &Facts,
) -> Result<Vec<CouponEvent>, Refusal> {
    let mut coupon = Coupon::default();
    for event in given {
        coupon.evolve(event);
    }
    coupon.decide(command, facts)
}

#[test]
fn an_import_is_refused_in_the_order_of_the_contract() {
    let used = Past::Used { redemption_id: 1, shop_id: 3, employee_id: 0, at_ms: NOON - DAY };
    let field = |name, why| Err(Refusal::field(name, why));
    let mut bare = facts(NOON);
    (bare.definition, bare.member, bare.shop) = (None, None, None);
    assert_eq!(decide(&[], &taken_over(used), &bare), Err(Refusal::NoSuchDefinition));
    bare.definition = facts(NOON).definition;
    assert_eq!(decide(&[], &taken_over(used), &bare), Err(Refusal::NoSuchMember));
    bare.member = Some(Membership::default());
    assert_eq!(decide(&[], &taken_over(used), &bare), Err(Refusal::NoSuchShop));
    assert!(decide(&[], &taken_over(Past::Unused), &bare).is_ok());
    // A shop that has closed since was a shop.
    let mut closed = facts(NOON);
    closed.shop = Some(Shop { open: false, ..closed.shop.as_deref().unwrap().clone() }.into());
    assert!(decide(&[], &taken_over(used), &closed).is_ok());
    let late = Past::Used { redemption_id: 1, shop_id: 3, employee_id: 0, at_ms: NOON + 1 };
    assert_eq!(decide(&[], &taken_over(late), &facts(NOON)), field("use_date", Wrong::InTheFuture));
    let late = Past::Voided { at_ms: NOON + 1 };
    assert_eq!(decide(&[], &taken_over(late), &facts(NOON)), field("use_date", Wrong::InTheFuture));
    assert_eq!(decide(&[issued(|_| {})], &taken_over(used), &facts(NOON)), field("id", Wrong::Taken));
    let imported = decide(&[], &taken_over(used), &facts(NOON)).unwrap();
    assert_eq!(decide(&imported, &taken_over(used), &facts(NOON)), field("id", Wrong::ImportedAlready));
}

#[test]
fn an_imported_coupon_that_has_ended_unused_expires_at_once() {
    let names = |past, now_ms| {
        let events = decide(&[], &taken_over(past), &facts(now_ms)).unwrap();
        events.iter().map(|event| matches!(event, CouponEvent::Expired { .. })).collect::<Vec<_>>()
    };
    // It ends with the 23rd.
    assert_eq!(names(Past::Unused, NOON + 12 * HOUR - 1), [false]);
    assert_eq!(names(Past::Unused, NOON + 12 * HOUR), [false, true]);
    assert_eq!(names(Past::Voided { at_ms: NOON }, NOON + DAY), [false]);
}

#[test]
fn a_use_elsewhere_can_be_reversed_here_and_what_was_voided_stays_so() {
    let used = Past::Used { redemption_id: 9, shop_id: 3, employee_id: 0, at_ms: NOON - HOUR };
    let imported = decide(&[], &taken_over(used), &facts(NOON)).unwrap();
    let reverse =
        CouponCommand::Reverse { redemption_id: 9, employee_id: 0, reason: "x".to_owned(), within_ms: DAY };
    assert_eq!(decide(&imported, &reverse, &facts(NOON)).unwrap().len(), 1);
    assert!(matches!(
        decide(&imported, &redeem(439), &facts(NOON)),
        Err(Refusal::AlreadyUsed { redemption_id: 9, .. })
    ));
    let void = decide(&[], &taken_over(Past::Voided { at_ms: NOON - DAY }), &facts(NOON)).unwrap();
    assert_eq!(decide(&void, &redeem(439), &facts(NOON)), Err(Refusal::Voided));
    // Total on any event: birth after an end changes nothing that decides.
    let mut coupon = Coupon::default();
    for event in [&[voided()][..], &imported].concat() {
        coupon.evolve(&event);
    }
    assert_eq!((coupon.redemptions.len(), coupon.voided_at_ms), (1, Some(NOON)));
}
