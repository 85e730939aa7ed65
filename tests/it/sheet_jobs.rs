//! Files that are made in the background: how far they are told to be, cut off and gone on with, cancelled and resumed,
//! downloaded by a link that ends, and taken away.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use coupon_ledger::clock::Zone;
use coupon_ledger::exports::{ExportPlace, Sheet, tick};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::harness::{DAY, EMPLOYEE, Engine, HOUR, Home, INSERT_MEMBERS, MEMBER, Reply, Server, World};
use crate::outside::{Api, until};
use crate::sheets::{Rows, csv_rows, file, header, read_with, rows_of};
use crate::v1::lines;
use crate::verify::put_secret;

/// A world whose exports lie in its data folder.
async fn world(engine: Engine) -> (World, ExportPlace) {
    let mut world = World::with_people(engine).await;
    let place = serve_from(&mut world, "exports");
    // The folder is the ledger's from here on, whatever a test puts into it.
    tick(&world.ledger, &place).await.unwrap();
    (world, place)
}

fn serve_from(world: &mut World, folder: &str) -> ExportPlace {
    let folder = world.home.path().join(folder);
    let exports = ExportPlace {
        folder,
        server: format!("http://{}", world.home.path().display()),
        ..ExportPlace::default()
    };
    world.set_options(HttpOptions { exports: exports.clone(), ..HttpOptions::default() });
    exports
}

/// Members from 1 on, each with a coupon of a new definition.
async fn issue_many(world: &World, members: i64) {
    let all: Vec<i64> = (1..=members).collect();
    for ids in all.chunks(5_000) {
        let rows: Vec<String> =
            ids.iter().map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
        let sql = format!("{INSERT_MEMBERS} {} ON CONFLICT DO NOTHING", rows.join(", "));
        world.home.sql(&sql).await.unwrap();
    }
    let definition = world.define(json!({})).await;
    for members in all.chunks(500) {
        let body = json!({"coupon_id": definition, "member_ids": members});
        world.operator("/sendelecoupon/members", body).await.ok();
    }
}

async fn post(world: &World, caller: Caller, path: &str, key: Option<&str>) -> Reply {
    let bearer = format!("Bearer {}", world.token(caller));
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(key.map(|key| ("idempotency-key", key)));
    world.raw("POST", path, &headers, Vec::new()).await
}

async fn ask(world: &World, query: &str) -> Value {
    let reply = post(world, Caller::Operator, &format!("/v1/exports?{query}"), None).await;
    assert_eq!((reply.status.as_u16(), &reply.body["state"]), (200, &json!("waiting")), "{}", reply.body);
    reply.body
}

async fn look(world: &World, id: i64) -> Value {
    world.get(Caller::Operator, &format!("/v1/exports/{id}")).await.body
}

/// What a link leads to, followed by somebody without a token.
async fn follow(world: &World, link: &str) -> (u16, Vec<u8>) {
    let (status, _, bytes) = world.bytes("GET", link, &[], Vec::new()).await;
    (status.as_u16(), bytes.to_vec())
}

fn link_of(export: &Value) -> &str {
    export["file"].as_str().unwrap_or_else(|| panic!("no link in {export}"))
}

/// The names in a folder, without those that are always there.
fn left(folder: &Path) -> Vec<String> {
    let names = crate::backup::names(folder);
    names.into_iter().filter(|name| !["home", "lock"].contains(&name.as_str())).collect()
}

on_both_engines! {
    async fn a_job_makes_the_file_that_is_answered_at_once(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 7).await;
        for format in ["csv", "xlsx", "parquet"] {
            let filter = "begin=2026-11-01&lang=zh-CN&bom=1";
            let asked = ask(&world, &format!("sheet=coupons&format={format}&{filter}")).await;
            let id = asked["id"].as_i64().unwrap();
            // What is written behind its position is not in it.
            let definition = world.define(json!({})).await;
            world.issue(definition, 439).await;
            assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
            let done = look(&world, id).await;
            assert_eq!(
                [&done["state"], &done["filter"], &done["seen"], &done["rows"], &done["written"], &done["asked_by"]],
                [&json!("done"), &json!("begin=2026-11-01"), &done["total"], &done["written"], &done["rows"], &json!("operator")],
                "{done}"
            );
            let at = format!("/v1/exports/coupons.{format}?{filter}&at={}", asked["position"]);
            let (_, at_once) = file(&world, Caller::Operator, &at).await;
            let (status, headers, bytes) = world.bytes("GET", link_of(&done), &[], Vec::new()).await;
            assert!((status.as_u16(), bytes.len() as i64) == (200, done["bytes"].as_i64().unwrap()) && bytes == at_once, "{format}");
            assert!(format != "csv" || bytes.starts_with("\u{feff}会员电子券ID,".as_bytes()));
            let name = format!("attachment; filename=\"coupons-{}-begin-2026-11-01.{format}\"", asked["position"]);
            assert_eq!(header(&headers, "content-disposition"), name);
            assert_eq!(header(&headers, "content-length"), bytes.len().to_string());
            let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
            assert_eq!(done["sha256"], coupon_ledger::value::hex(&digest));
            assert_eq!(left(&place.folder).iter().filter(|name| name.contains("draft")).count(), 0);
        }
        world.close().await;
    }

    async fn a_job_of_nothing_makes_a_file_with_heads(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 2).await;
        let coupons = Sheet::named("coupons").unwrap();
        let heads = json!([coupons.columns.iter().map(|column| column.words[0]).collect::<Vec<_>>()]);
        for format in ["csv", "xlsx", "parquet"] {
            let asked = ask(&world, &format!("sheet=coupons&format={format}&member_id=999999&lang=zh-TW")).await;
            assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
            let done = look(&world, asked["id"].as_i64().unwrap()).await;
            assert_eq!(
                [&done["state"], &done["filter"], &done["rows"], &done["written"]],
                [&json!("done"), &json!("member_id=999999"), &json!(0), &json!(0)]
            );
            let path = world.home.path().join(format!("nothing.{format}"));
            let (_, bytes) = follow(&world, link_of(&done)).await;
            std::fs::write(&path, &bytes).unwrap();
            match format {
                "csv" => assert_eq!(json!(csv_rows(&bytes)), heads),
                "xlsx" => {
                    let read = read_with("rows", &path, world.home.path());
                    assert_eq!((&read[0]["name"], &read[0]["rows"]), (&json!("會員電子券"), &heads));
                    let filter = json!(["篩選條件", "member_id=999999"]);
                    assert!(read[1]["rows"].as_array().unwrap().contains(&filter), "{read}");
                }
                _ => {
                    let read = read_with("rows", &path, world.home.path());
                    let names: Vec<&str> = coupons.columns.iter().map(|column| column.name).collect();
                    assert_eq!((&read["columns"], &read["rows"]), (&json!(names), &json!([])));
                    let facts = read_with("facts", &path, world.home.path());
                    assert_eq!(facts["coupon-ledger.filter"], "member_id=999999");
                }
            }
        }
        world.close().await;
    }

    async fn writes_beside_a_job_change_none_of_its_rows(engine: Engine) {
        let (world, place) = world(engine).await;
        let place = ExportPlace { part_rows: 100, ..place };
        issue_many(&world, 4_500).await;
        let asked = ask(&world, "sheet=coupons&format=csv&lang=en").await;
        let (_, before) = file(&world, Caller::Operator, "/v1/exports/coupons.csv?lang=en").await;
        let writing = async {
            for id in 1..=60 {
                let body = json!({"mem_coupon_id": id * 70, "shop_id": 1});
                world.call(Caller::Member(id * 70), "/client/auditcoupon", body).await;
            }
        };
        let (made, ()) = futures::join!(tick(&world.ledger, &place), writing);
        assert_eq!(made.unwrap(), 1);
        let done = look(&world, asked["id"].as_i64().unwrap()).await;
        let (_, bytes) = follow(&world, link_of(&done)).await;
        assert!(bytes == before, "a row has changed");
        assert_eq!(csv_rows(&bytes).len(), 4_501);
        world.close().await;
    }

    async fn a_key_asks_once(engine: Engine) {
        let (world, _) = world(engine).await;
        let path = "/v1/exports?sheet=coupons&format=csv";
        let first = post(&world, Caller::Operator, path, Some("nightly-1")).await;
        let again = post(&world, Caller::Operator, path, Some("nightly-1")).await;
        assert_eq!((again.replayed(), &again.body), (true, &first.body));
        let other = post(&world, Caller::Operator, "/v1/exports?sheet=orders&format=csv", Some("nightly-1")).await;
        assert_eq!((other.status.as_u16(), other.code()), (409, 6001));
        let anothers = post(&world, Caller::Auditor, path, Some("nightly-1")).await;
        assert_ne!(anothers.body["id"], first.body["id"]);
        world.close().await;
    }

    async fn what_waits_can_be_cancelled_and_what_was_cancelled_resumed_as_of_then(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 3).await;
        let asked = ask(&world, "sheet=coupons&format=csv").await;
        let id = asked["id"].as_i64().unwrap();
        let order = async |order: &str| post(&world, Caller::Operator, &format!("/v1/exports/{id}/{order}"), None).await;
        assert_eq!(order("resume").await.code(), 6003);
        assert_eq!(order("cancel").await.body["state"], "cancelled");
        assert_eq!(order("cancel").await.code(), 6003);
        assert_eq!(tick(&world.ledger, &place).await.unwrap(), 0);
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        assert_eq!(order("resume").await.body["state"], "waiting");
        assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
        let done = look(&world, id).await;
        assert_eq!([&done["state"], &done["rows"], &done["position"]], [&json!("done"), &json!(3), &asked["position"]]);
        assert_eq!(order("cancel").await.code(), 6003);
        assert_eq!(order("resume").await.code(), 6003, "what is done stays so");
        let none = post(&world, Caller::Operator, "/v1/exports/99/cancel", None).await;
        assert_eq!((none.status.as_u16(), none.code()), (404, 2005));
        world.close().await;
    }

    async fn what_is_under_way_can_be_cancelled_and_leaves_nothing(engine: Engine) {
        let (world, place) = world(engine).await;
        let place = ExportPlace { part_rows: 1, ..place };
        issue_many(&world, 2_100).await;
        ask(&world, "sheet=coupons&format=csv").await;
        // Behind the first part it waits for somebody to read the second one.
        let draft = place.folder.join("1.draft");
        std::fs::create_dir_all(&draft).unwrap();
        let stuck = draft.join("part-000002.zst");
        assert!(std::process::Command::new("mkfifo").arg(&stuck).status().unwrap().success());
        let making = tokio::spawn({
            let (ledger, place) = (world.ledger.clone(), place.clone());
            async move { tick(&ledger, &place).await }
        });
        until("the first part is written", async || look(&world, 1).await["rows"] == 2_000).await;
        let running = look(&world, 1).await;
        assert_eq!([&running["state"], &running["seen"], &running["total"]], [&json!("running"), &json!(2_000), &json!(2_100)]);
        let cancelled = post(&world, Caller::Operator, "/v1/exports/1/cancel", None).await;
        assert_eq!(cancelled.body["state"], "cancelled");
        tokio::task::spawn_blocking(move || std::fs::read(stuck)).await.unwrap().unwrap();
        assert_eq!(making.await.unwrap().unwrap(), 1);
        let ended = look(&world, 1).await;
        assert_eq!([&ended["state"], &ended["reason"]], [&json!("cancelled"), &Value::Null]);
        assert_eq!(left(&place.folder), Vec::<String>::new());
        // Resumed it begins anew: what it had read is gone.
        assert_eq!(post(&world, Caller::Operator, "/v1/exports/1/resume", None).await.body["state"], "waiting");
        assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
        let done = look(&world, 1).await;
        assert_eq!([&done["state"], &done["rows"], &done["written"]], [&json!("done"), &json!(2_100), &json!(2_100)]);
        assert_eq!(csv_rows(&follow(&world, link_of(&done)).await.1).len(), 2_101);
        world.close().await;
    }

    async fn a_disk_that_is_full_fails_the_job_and_leaves_nothing(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 3).await;
        for (format, name) in [("csv", "file"), ("xlsx", "file"), ("parquet", "file"), ("csv", "part-000001.zst")] {
            let asked = ask(&world, &format!("sheet=coupons&format={format}")).await;
            let id = asked["id"].as_i64().unwrap();
            // Where the job will write, every byte meets a full disk.
            let draft = place.folder.join(format!("{id}.draft"));
            std::fs::create_dir_all(&draft).unwrap();
            std::os::unix::fs::symlink("/dev/full", draft.join(name)).unwrap();
            assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
            let failed = look(&world, id).await;
            assert_eq!([&failed["state"], &failed["reason"], &failed["file"]],
                       [&json!("failed"), &json!("the server's disk is full"), &Value::Null], "{failed}");
            assert_eq!(left(&place.folder), Vec::<String>::new(), "{format}");
            // With room it goes on as if nothing had been.
            let resumed = post(&world, Caller::Operator, &format!("/v1/exports/{id}/resume"), None).await;
            assert_eq!(resumed.body["state"], "waiting");
            assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
            let done = look(&world, id).await;
            assert_eq!([&done["state"], &done["rows"], &done["written"], &done["reason"]],
                       [&json!("done"), &json!(3), &json!(3), &Value::Null], "{done}");
            let at_once = format!("/v1/exports/coupons.{format}?at={}", asked["position"]);
            assert!(follow(&world, link_of(&done)).await.1 == file(&world, Caller::Operator, &at_once).await.1, "{format}");
            std::fs::remove_file(place.folder.join(format!("{id}.{format}"))).unwrap();
        }
        world.close().await;
    }

    async fn a_link_holds_for_an_hour_and_only_as_it_was_given(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 1).await;
        for _ in 0..2 {
            ask(&world, "sheet=coupons&format=csv").await;
        }
        tick(&world.ledger, &place).await.unwrap();
        let (one, two) = (look(&world, 1).await, look(&world, 2).await);
        let link = link_of(&one);
        assert_eq!(follow(&world, link).await.0, 200);
        let (until, signature) = link.split_once("until=").unwrap().1.split_once("&signature=").unwrap();
        let later = until.parse::<i64>().unwrap() + 1;
        for changed in [
            format!("/v1/exports/2/file?until={until}&signature={signature}"),
            format!("/v1/exports/1/file?until={later}&signature={signature}"),
            format!("/v1/exports/1/file?until={until}&signature={}", &signature[1..]),
            format!("/v1/exports/1/file?until={until}&signature=AAAAAAAAAAAAAAAAAAAAAA"),
        ] {
            let (status, bytes) = follow(&world, &changed).await;
            let said: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!((status, &said["code"]), (404, &json!(2005)), "{changed}");
        }
        assert_eq!(follow(&world, &format!("/v1/exports/1/file?until={until}")).await.0, 400);
        world.advance(HOUR);
        assert_eq!(follow(&world, link).await.0, 404, "an hour later");
        assert_eq!(follow(&world, link_of(&look(&world, 1).await)).await.0, 200, "another link, the same file");
        assert_ne!(link_of(&one), link_of(&two));
        world.close().await;
    }

    async fn files_go_when_their_time_is_over(engine: Engine) {
        let (world, place) = world(engine).await;
        ask(&world, "sheet=coupons&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        world.advance(7 * DAY - 1);
        tick(&world.ledger, &place).await.unwrap();
        let link = look(&world, 1).await;
        assert_eq!(left(&place.folder), ["1.csv"]);
        world.advance(1);
        assert_eq!(follow(&world, link_of(&link)).await.0, 404);
        std::fs::create_dir(place.folder.join("77.draft")).unwrap();
        std::fs::write(place.folder.join("78.csv"), "nobody's").unwrap();
        tick(&world.ledger, &place).await.unwrap();
        let removed = look(&world, 1).await;
        assert_eq!([&removed["state"], &removed["reason"], &removed["file"]],
                   [&json!("removed"), &json!("its time is over"), &Value::Null]);
        assert_eq!(left(&place.folder), Vec::<String>::new());
        world.close().await;
    }

    async fn an_erasure_ends_every_file_of_members_and_no_other(engine: Engine) {
        let (world, place) = world(engine).await;
        world.operator("/member/add", json!({"id": 900, "nickname": "老王"})).await.ok();
        ask(&world, "sheet=members&format=csv").await;
        ask(&world, "sheet=coupons&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        let (members, coupons) = (look(&world, 1).await, look(&world, 2).await);
        assert!(String::from_utf8(follow(&world, link_of(&members)).await.1).unwrap().contains("老王"));
        // One that is asked for before an erasure, and made after it.
        ask(&world, "sheet=members&format=csv").await;
        world.operator("/member/erase", json!({"id": 900, "reason": "會員要求"})).await.ok();
        assert_eq!(follow(&world, link_of(&members)).await.0, 404, "at once");
        tick(&world.ledger, &place).await.unwrap();
        assert_eq!(left(&place.folder), ["2.csv"]);
        let (first, late) = (look(&world, 1).await, look(&world, 3).await);
        assert_eq!([&first["state"], &first["reason"]], [&json!("removed"), &json!("a member's data was erased")]);
        assert_eq!([&late["state"], &late["reason"]],
                   [&json!("failed"), &json!("a member's data was erased meanwhile: ask again")]);
        assert_eq!(follow(&world, link_of(&coupons)).await.0, 200);
        world.close().await;
    }

    async fn who_may_not_have_members_learns_of_no_file_of_them(engine: Engine) {
        let (world, place) = world(engine).await;
        let office = world.operator("/office/add", json!({"title": "會計"})).await.ok()["id"].clone();
        let set = async |rights: &str| {
            world.operator("/office/setcompetence", json!({"id": office, "competence_ids": rights})).await.ok();
        };
        world.operator("/user/edit", json!({"id": 1000, "office_id": office})).await.ok();
        ask(&world, "sheet=members&format=csv").await;
        ask(&world, "sheet=coupons&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        let members = "/v1/exports?sheet=members&format=csv";
        assert_eq!(post(&world, EMPLOYEE, members, None).await.status, 403);
        set("46").await;
        assert_eq!(post(&world, EMPLOYEE, members, None).await.status, 403);
        assert_eq!(world.get(EMPLOYEE, "/v1/exports/members.csv").await.status, 403);
        assert_eq!(world.get(EMPLOYEE, "/v1/exports/1").await.status, 404);
        assert_eq!(post(&world, EMPLOYEE, "/v1/exports/1/cancel", None).await.status, 404);
        assert_eq!(world.get(EMPLOYEE, "/v1/exports/2").await.body["state"], "done");
        // However many newer ones are none of his.
        ask(&world, "sheet=members&format=csv").await;
        for list in ["/v1/exports", "/v1/exports?limit=1"] {
            let listed = world.get(EMPLOYEE, list).await.body["exports"].clone();
            assert_eq!(listed.as_array().unwrap().iter().map(|one| &one["id"]).collect::<Vec<_>>(), [2], "{list}");
        }
        set("46,47").await;
        assert_eq!(post(&world, EMPLOYEE, members, None).await.status, 200);
        assert_eq!(world.get(EMPLOYEE, "/v1/exports/members.csv").await.status, 200);
        assert_eq!(world.get(MEMBER, "/v1/exports").await.status, 403);
        world.close().await;
    }

    async fn every_export_is_on_record_those_that_were_answered_at_once_too(engine: Engine) {
        let (world, place) = world(engine).await;
        issue_many(&world, 2).await;
        file(&world, Caller::Auditor, "/v1/exports/members.xlsx?shop_id=1").await;
        ask(&world, "sheet=coupons&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        let listed = world.get(Caller::Auditor, "/v1/exports").await.body["exports"].clone();
        let told: Vec<Value> = listed.as_array().unwrap().iter().map(|export| {
            json!([export["id"], export["sheet"], export["format"], export["filter"], export["state"], export["rows"],
                   export["asked_by"]])
        }).collect();
        assert_eq!(told, [
            json!([2, "coupons", "csv", "", "done", 2, "operator"]),
            json!([1, "members", "xlsx", "shop_id=1", "answered", 0, "auditor"]),
        ]);
        let earlier = world.get(Caller::Auditor, "/v1/exports?before=2&limit=1").await.body["exports"].clone();
        assert_eq!(earlier[0]["id"], 1);
        let newest = world.get(Caller::Auditor, "/v1/exports?limit=1").await.body["exports"].clone();
        assert_eq!((newest.as_array().unwrap().len(), &newest[0]["id"]), (1, &json!(2)));
        world.close().await;
    }

    async fn whose_data_a_file_holds_is_written_down_at_once_and_by_a_job(engine: Engine) {
        let (world, place) = world(engine).await;
        file(&world, Caller::Auditor, "/v1/exports/members.xlsx").await;
        file(&world, Caller::Auditor, "/v1/exports/employees.csv").await;
        file(&world, Caller::Auditor, "/v1/exports/coupons.csv").await;
        ask(&world, "sheet=members&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        let readers = async |person: &str| -> Vec<String> {
            let reply = world.get(Caller::Auditor, &format!("/v1/readers/{person}")).await;
            lines(&reply).iter().map(|line| line["words"].as_str().unwrap().to_owned()).collect()
        };
        let members = "read personal data of members 439, 442";
        assert_eq!(readers("member/439").await, [
            format!("auditor {members} through GET /v1/exports/members.xlsx, an answer with 2 in all"),
            format!("operator {members} through POST /v1/exports, an answer with 2 in all"),
        ]);
        // Another who may have members sees that it is there, and gets his own only by asking.
        let job = world.get(Caller::Operator, "/v1/exports").await.body["exports"][0].clone();
        let of_another = world.get(Caller::Auditor, &format!("/v1/exports/{}", job["id"])).await.body;
        assert_eq!((&job["state"], &of_another["state"]), (&json!("done"), &json!("done")));
        assert!(job["file"].is_string() && of_another["file"].is_null(), "{of_another}");
        let employee = readers("employee/1000").await;
        assert!(employee[0].contains("through GET /v1/exports/employees.csv"), "{employee:?}");
        world.close().await;
    }

    async fn a_folder_that_is_somebodys_is_refused_and_left_as_it_is(engine: Engine) {
        use std::os::unix::fs::PermissionsExt as _;
        let (world, place) = world(engine).await;
        let place = ExportPlace { folder: world.home.path().join("theirs"), ..place };
        std::fs::create_dir_all(place.folder.join("2024")).unwrap();
        std::fs::write(place.folder.join("20261129.csv"), "theirs").unwrap();
        ask(&world, "sheet=coupons&format=csv").await;
        let refused = tick(&world.ledger, &place).await.unwrap_err().to_string();
        assert!(refused.contains("exports need one of their own"), "{refused}");
        assert_eq!(left(&place.folder), ["2024", "20261129.csv"]);
        let elsewhere = ExportPlace { folder: world.home.path().join("others"), ..place };
        std::fs::create_dir_all(&elsewhere.folder).unwrap();
        std::fs::write(elsewhere.folder.join("home"), "0011223344556677 coupon-ledger/another").unwrap();
        let refused = tick(&world.ledger, &elsewhere).await.unwrap_err().to_string();
        assert!(refused.contains("is of another ledger: coupon-ledger/another"), "{refused}");
        // In its own it leaves what is called otherwise than its files, and nobody else may read those.
        let own = ExportPlace { folder: world.home.path().join("own"), ..elsewhere };
        tick(&world.ledger, &own).await.unwrap();
        for theirs in ["7.txt", "007.csv", "2023"] {
            std::fs::create_dir_all(own.folder.join(theirs)).unwrap();
        }
        tick(&world.ledger, &own).await.unwrap();
        assert_eq!(left(&own.folder), ["007.csv", "1.csv", "2023", "7.txt"]);
        let mode = std::fs::metadata(own.folder.join("1.csv")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        world.close().await;
    }

    async fn so_many_exports_are_under_way_at_most(engine: Engine) {
        let (world, place) = world(engine).await;
        for _ in 0..20 {
            ask(&world, "sheet=coupons&format=csv").await;
        }
        let more = "/v1/exports?sheet=coupons&format=csv";
        let refused = post(&world, Caller::Operator, more, None).await;
        assert_eq!((refused.status.as_u16(), &refused.body["code"]), (409, &json!(6003)), "{}", refused.body);
        assert_eq!(post(&world, Caller::Operator, "/v1/exports/3/cancel", None).await.status, 200);
        ask(&world, "sheet=coupons&format=csv").await;
        tick(&world.ledger, &place).await.unwrap();
        ask(&world, "sheet=coupons&format=csv").await;
        world.close().await;
    }

    /// The real program, killed while it waits for a disk that does not answer, behind the first of its parts.
    async fn a_job_that_was_killed_goes_on_behind_its_last_part(engine: Engine) {
        let world = World::with_people(engine).await;
        issue_many(&world, 30_000).await;
        put_secret(&world.home);
        let folder = world.home.path().join("exports");
        let place = ExportPlace { folder: folder.clone(), ..ExportPlace::default() };
        tick(&world.ledger, &place).await.unwrap();
        let home = world.close().await;
        let mut server = Server::start(&home, &["--verify-every-hours", "0"]).await;
        // One that is read from the log, and one from pages of its list.
        for (id, sheet) in [(1, "coupons"), (2, "members")] {
            // While this test is the folder's worker the server is not.
            let lock = File::options().create(true).truncate(false).write(true).open(folder.join("lock")).unwrap();
            lock.lock().unwrap();
            let query = format!("/v1/exports?sheet={sheet}&format=csv&lang=en");
            let asked = outside_post(&home, &server, &query).await;
            assert_eq!((&asked["id"], &asked["state"]), (&json!(id), &json!("waiting")), "{asked}");
            let draft = folder.join(format!("{id}.draft"));
            std::fs::create_dir_all(&draft).unwrap();
            let stuck = draft.join("part-000002.zst");
            assert!(std::process::Command::new("mkfifo").arg(&stuck).status().unwrap().success());
            drop(lock);
            let look = async |server: &Server| outside_look(&home, server, id).await;
            until("the first part is written", async || look(&server).await["rows"].as_i64() > Some(0)).await;
            let killed = look(&server).await;
            assert_eq!(killed["state"], "running", "{killed}");
            server.kill().await;
            std::fs::remove_file(&stuck).unwrap();
            // By this the rows of the first part are known again.
            let marked = if sheet == "coupons" { mark(&draft.join("part-000001.zst")) } else { 0 };
            assert!([0, killed["rows"].as_u64().unwrap()].contains(&(marked as u64)), "{killed}");

            server = Server::start(&home, &["--verify-every-hours", "0"]).await;
            until("it is done", async || look(&server).await["state"] == "done").await;
            let done = look(&server).await;
            assert_eq!((&done["rows"], &done["written"], &done["seen"]), (&json!(30_000), &json!(30_000), &json!(30_000)), "{done}");
            let rows: Rows = csv_rows(&outside_follow(&server, &done).await);
            let mut ids: Vec<i64> = rows[1..].iter().map(|row| row[0].parse().unwrap()).collect();
            ids.dedup();
            assert!(ids.is_sorted() || ids.is_sorted_by(|one, next| one > next), "in order");
            assert_eq!((ids.len(), rows.iter().filter(|row| row[3] == "甲").count()), (30_000, marked), "{sheet}");
        }
        until("nothing else is left", async || left(&folder) == ["1.csv", "2.csv"]).await;
        server.kill().await;
    }

    /// The real program, killed in the middle of the file: it is begun anew, from the rows that were read already.
    async fn a_workbook_and_a_parquet_file_that_were_cut_off_are_written_anew_from_their_parts(engine: Engine) {
        let world = World::with_people(engine).await;
        issue_many(&world, 3_000).await;
        put_secret(&world.home);
        let folder = world.home.path().join("exports");
        tick(&world.ledger, &ExportPlace { folder: folder.clone(), ..ExportPlace::default() }).await.unwrap();
        let home = world.close().await;
        let mut server = Server::start(&home, &["--verify-every-hours", "0"]).await;
        for (id, format) in [(1, "xlsx"), (2, "parquet")] {
            let lock = File::options().write(true).open(folder.join("lock")).unwrap();
            lock.lock().unwrap();
            outside_post(&home, &server, &format!("/v1/exports?sheet=coupons&format={format}&lang=en")).await;
            let draft = folder.join(format!("{id}.draft"));
            std::fs::create_dir_all(&draft).unwrap();
            let reader = NarrowPipe::make(&draft.join("file")).await;
            drop(lock);
            until("the file is being written", async || outside_look(&home, &server, id).await["written"].as_i64() > Some(0)).await;
            let killed = outside_look(&home, &server, id).await;
            assert_eq!([&killed["state"], &killed["rows"], &killed["file"]], [&json!("running"), &json!(3_000), &Value::Null], "{killed}");
            server.kill().await;
            reader.end().await;
            let parts = std::fs::read_dir(&draft).unwrap().map(|entry| entry.unwrap().path());
            let marked: usize = parts.filter(|path| path.extension().is_some_and(|kind| kind == "zst")).map(|path| mark(&path)).sum();
            assert_eq!(marked, 3_000);

            server = Server::start(&home, &["--verify-every-hours", "0"]).await;
            until("it is done", async || outside_look(&home, &server, id).await["state"] == "done").await;
            let done = outside_look(&home, &server, id).await;
            assert_eq!((&done["rows"], &done["written"]), (&json!(3_000), &json!(3_000)), "{done}");
            let path = home.path().join(format!("file.{format}"));
            std::fs::write(&path, outside_follow(&server, &done).await).unwrap();
            let read = read_with("rows", &path, home.path());
            let rows = if format == "xlsx" { rows_of(&read[0]["rows"])[1..].to_vec() } else { rows_of(&read["rows"]) };
            let ids: Vec<i64> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
            assert!(ids.windows(2).all(|pair| pair[0] < pair[1]), "in order, and none twice");
            assert_eq!((ids.len(), rows.iter().filter(|row| row[3] == "甲").count()), (3_000, 3_000), "{format}");
        }
        until("nothing else is left", async || left(&folder) == ["1.xlsx", "2.parquet"]).await;
        server.kill().await;
    }
}

/// In a file's place, a pipe that takes a few kilobytes, and somebody who has it open and never reads: who writes stands still in
/// the middle.
struct NarrowPipe {
    path: PathBuf,
    reader: tokio::process::Child,
}

impl NarrowPipe {
    async fn make(path: &Path) -> Self {
        // 1031 is F_SETPIPE_SZ. Open for both, it waits for nobody.
        const HOLD: &str = "import fcntl, os, sys\n\
            pipe = os.open(sys.argv[1], os.O_RDWR)\n\
            fcntl.fcntl(pipe, 1031, 4096)\n\
            print('open', flush=True)\n\
            sys.stdin.read()";
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let mut reader = tokio::process::Command::new("python3");
        reader.args(["-c", HOLD]).arg(path).kill_on_drop(true);
        let mut reader = reader.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(reader.stdout.take().unwrap()).lines().next_line().await.unwrap();
        assert_eq!(said.as_deref(), Some("open"));
        Self { path: path.to_owned(), reader }
    }

    async fn end(mut self) {
        self.reader.kill().await.unwrap();
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// Gives every row of a part another title; how many there are.
fn mark(part: &Path) -> usize {
    let text = String::from_utf8(zstd::decode_all(File::open(part).unwrap()).unwrap()).unwrap();
    assert_eq!(text.matches("十元券").count(), text.lines().count());
    std::fs::write(part, zstd::encode_all(text.replace("十元券", "甲").as_bytes(), 1).unwrap()).unwrap();
    text.lines().count()
}

async fn outside_post(home: &Home, server: &Server, path: &str) -> Value {
    Api::new(home, server).call(Caller::Operator, path, json!({})).await.body
}

async fn outside_look(home: &Home, server: &Server, id: i64) -> Value {
    let (_, text) = Api::new(home, server).get(Caller::Operator, &format!("/v1/exports/{id}")).await;
    serde_json::from_str(&text).unwrap()
}

/// What an export's link leads to.
async fn outside_follow(server: &Server, export: &Value) -> Vec<u8> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let file = client.get(format!("{}{}", server.url, link_of(export))).send().await.unwrap();
    assert_eq!(file.status(), 200);
    file.bytes().await.unwrap().to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_server_says_where_the_file_lies_and_one_that_shares_the_folder_has_it() {
    let (first, place) = world(Engine::Postgres).await;
    let home = first.home.beside(first.home.database_url.clone().unwrap());
    let mut second = World::open(home, first.clock.clone(), Zone::default()).await;
    let other = serve_from(&mut second, "exports");
    issue_many(&first, 2).await;
    ask(&first, "sheet=coupons&format=csv").await;
    // Whoever comes first makes it, once.
    assert_eq!(tick(&second.ledger, &other).await.unwrap(), 1);
    assert_eq!(tick(&first.ledger, &place).await.unwrap(), 0);
    let told = look(&first, 1).await;
    assert_eq!([&told["state"], &told["server"]], [&json!("done"), &json!(other.server)]);
    assert_eq!(follow(&second, link_of(&told)).await.0, 200);
    let (status, bytes) = follow(&first, link_of(&told)).await;
    let said: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!((status, &said["code"]), (404, &json!(2005)));
    assert_eq!(said["info"], format!("the file of export 1 lies with the server {}", other.server));
    // Nobody takes away what is another's.
    tick(&first.ledger, &place).await.unwrap();
    assert_eq!(follow(&second, link_of(&told)).await.0, 200);

    let mut first = first;
    let shared = ExportPlace { folder: other.folder.clone(), ..place };
    first.set_options(HttpOptions { exports: shared.clone(), ..HttpOptions::default() });
    assert_eq!(follow(&first, link_of(&told)).await.0, 200);
    // One of them is the folder's worker at a time.
    let lock = File::options().write(true).open(shared.folder.join("lock")).unwrap();
    lock.lock().unwrap();
    ask(&first, "sheet=orders&format=csv").await;
    assert_eq!(tick(&first.ledger, &shared).await.unwrap(), 0);
    drop(lock);
    assert_eq!(tick(&second.ledger, &other).await.unwrap(), 1);
    assert_eq!(follow(&first, link_of(&look(&first, 2).await)).await.0, 200);
    second.close().await;
    first.close().await;
}
