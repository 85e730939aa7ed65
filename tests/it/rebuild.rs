//! Live tables made anew beside those in use: never a wrong answer meanwhile, exact through any kill, every wrong row named.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use coupon_ledger::audit::rebuild::{self, RebuildError, Report, Running, State, rebuild};
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::identity::Caller;
use coupon_ledger::read_model::LIVE_TABLES;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::harness::{
    Engine, FRIEND, Home, INSERT_MEMBERS, MEMBER, NOON, Server, World, program, program_on_a_full_disk,
};
use crate::leaks::Heard as _;
use crate::outside::count;
use crate::replay::assert_rows_equal_replay;

/// So many coupons of definition 1, each of another member, past what the tests need people for.
async fn issue_to_many(world: &World, members: i64) {
    let rows: Vec<String> =
        (1_001..=1_000 + members).map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
    world.home.sql(&format!("{INSERT_MEMBERS} {}", rows.join(", "))).await.unwrap();
    for chunk in (1_001..=1_000 + members).collect::<Vec<_>>().chunks(500) {
        let body = json!({"coupon_id": 1, "member_ids": chunk});
        world.operator("/sendelecoupon/members", body).await.ok();
    }
}

/// A coupon in each of its states: in hand, used, received, voided, put out.
async fn some_of_everything(world: &World) -> Vec<i64> {
    let definition = world.define(json!({"num": 10_000, "is_claim": 1})).await;
    assert_eq!(definition, 1);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.issue(definition, 439).await);
    }
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": ids[1], "shop_id": 1})).await.ok();
    let code = world.give(MEMBER, ids[2]).await;
    world.call(FRIEND, "/client/getcoupon", json!({"id": ids[2], "code": code})).await.ok();
    world.operator("/user/voidelecoupon", json!({"mem_coupon_id": ids[3], "reason": "x"})).await.ok();
    world.give(MEMBER, ids[4]).await;
    let partner = json!({"shop_name": "隔壁", "phone": "1", "address": "a"});
    world.operator("/business/add", partner).await.ok();
    let allot = json!({"business_id": 2, "coupon_id": definition, "num": 5, "end_time": "2026-12-31"});
    world.operator("/business/addattract", allot).await.ok();
    world.call(MEMBER, "/wechat/receive", json!({"business_id": 2})).await.ok();
    ids
}

/// Lets the program open what a world has made: their secret is the same.
fn share_secret(home: &Home) {
    std::fs::write(home.path().join("secret.key"), "2a".repeat(32)).unwrap();
}

async fn command(home: &Home, arguments: &[&str]) -> Output {
    program(home).args(arguments).heard().await
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn printed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

fn lines(report: &Report) -> Vec<String> {
    report.differences.iter().flat_map(rebuild::Difference::lines).collect()
}

/// How the live tables are made: columns, indexes, rights.
async fn made(home: &Home, engine: Engine) -> Vec<String> {
    let mut found = Vec::new();
    for table in LIVE_TABLES.iter().map(|table| table.name).chain(["stock_v1", "member_counts_v1"]) {
        let sql = match engine {
            Engine::Sqlite => format!("SELECT sql FROM sqlite_master WHERE tbl_name = '{table}' AND sql IS NOT NULL ORDER BY sql"),
            Engine::Postgres => format!(
                "SELECT what FROM (
                   SELECT indexdef AS what FROM pg_indexes WHERE tablename = '{table}'
                   UNION ALL SELECT reloptions::text FROM pg_class WHERE relname = '{table}'
                   UNION ALL SELECT relacl::text FROM pg_class WHERE relname = '{table}'
                   UNION ALL SELECT column_name || ' ' || data_type || ' ' || is_nullable FROM information_schema.columns
                             WHERE table_name = '{table}') q
                 WHERE what IS NOT NULL ORDER BY what"
            ),
        };
        for text in home.sql(&sql).await.unwrap() {
            let bare: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap()).collect();
            let bare = bare.join(" ").replace('"', "").replace("_1 ON ", " ON ");
            found.push(bare.chars().filter(|letter| !letter.is_whitespace()).collect());
        }
    }
    found
}

/// Whatever a rebuild leaves beside the live tables.
async fn beside(world: &World) -> Vec<String> {
    let names: Vec<String> = LIVE_TABLES
        .iter()
        .map(|table| table.name)
        .chain(["stock_v1", "member_counts_v1"])
        .flat_map(|name| [format!("{name}_new"), format!("{name}_old")])
        .collect();
    world.store().tables_among(&names).await.unwrap()
}

on_both_engines! {
    async fn rows_are_equal_after_rebuilds_under_load_and_every_page_meanwhile_is_right(engine: Engine) {
        let world = World::with_people(engine).await;
        let ids = some_of_everything(&world).await;
        issue_to_many(&world, 600).await;
        let done = AtomicBool::new(false);
        let claims = async {
            let mut claimed = 0;
            while !done.load(Ordering::SeqCst) {
                let id = world.call(FRIEND, "/client/claimcoupon", json!({"id": 1})).await.ok()["id"].as_i64().unwrap();
                claimed += 1;
                match claimed % 3 {
                    0 => {
                        let used = json!({"mem_coupon_id": id, "shop_id": 1});
                        world.call(FRIEND, "/client/auditcoupon", used).await.ok();
                    }
                    1 => {
                        let code = world.give(FRIEND, id).await;
                        world.call(MEMBER, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
                    }
                    _ => {
                        let void = json!({"mem_coupon_id": id, "reason": "x"});
                        world.operator("/user/voidelecoupon", void).await.ok();
                    }
                }
            }
            claimed
        };
        let pages = async {
            let mut asked = 0;
            let first = world.call(Caller::Member(1_001), "/client/couponlist", json!({"state": 0})).await.ok().clone();
            assert_eq!(first["data"].as_array().or(first.as_array()).map(Vec::len), Some(1), "{first}");
            while !done.load(Ordering::SeqCst) {
                let page = world.call(Caller::Member(1_001), "/client/couponlist", json!({"state": 0})).await;
                assert_eq!(page.ok(), &first);
                let info = world.call(MEMBER, "/client/couponinfo", json!({"id": ids[0]})).await;
                assert_eq!(info.ok()["id"], ids[0]);
                let shops = world.operator("/shop/list", json!({})).await;
                assert_eq!(shops.ok()["data"].as_array().or(shops.ok().as_array()).map(Vec::len), Some(1));
                asked += 1;
            }
            asked
        };
        let rebuilds = async {
            for models in ["all", "wallet,stock", "all"] {
                let report = rebuild(&world.ledger, models).await.unwrap();
                assert_eq!((report.difference_count, lines(&report)), (0, vec![]), "{models}");
                for table in &report.tables {
                    assert_eq!(table.old_digest, table.new_digest, "{}", table.table);
                }
            }
            done.store(true, Ordering::SeqCst);
        };
        let (claimed, asked, ()) = futures::join!(claims, pages, rebuilds);
        assert!(claimed > 0 && asked > 0, "{claimed} claims and {asked} pages beside three rebuilds");
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn killed_at_any_instant_a_rebuild_goes_on_in_another_process_and_names_each_wrong_row_once(engine: Engine) {
        const KILLS: u32 = 20;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::with_people(engine).await;
        some_of_everything(&world).await;
        issue_to_many(&world, 2_000).await;
        let home = world.close().await;
        share_secret(&home);
        home.sql("UPDATE wallet_v1 SET title = 'damaged' WHERE member_id = 1100").await.unwrap();
        home.sql("UPDATE member_counts_v1 SET issued = 7 WHERE member_id = 1200").await.unwrap();
        let (mut differences, mut ends, mut resumed) = (Vec::new(), 0, 0);
        let mut kills = 0;
        loop {
            let mut rebuilding = program(&home);
            rebuilding.args(["rebuild", "all", "--drop-old", "--json"]);
            rebuilding.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
            let rebuilding = rebuilding.spawn().unwrap();
            let last = kills == KILLS;
            let patience = Duration::from_millis(if last { 120_000 } else { random.random_range(0..2_500) });
            // Dropped unfinished, it is killed.
            let Ok(ended) = tokio::time::timeout(patience, rebuilding.wait_with_output()).await else {
                kills += 1;
                continue;
            };
            let ended = ended.unwrap();
            // Nobody has noticed yet that the one before was killed.
            if said(&ended).contains("another rebuild") || said(&ended).contains("is in use") {
                continue;
            }
            assert!(ended.status.code().is_some_and(|code| code < 2), "{}", said(&ended));
            resumed += u32::from(said(&ended).contains("goes on"));
            ends += 1;
            differences.extend(printed(&ended)["differences"].as_array().unwrap().clone());
            if last {
                break;
            }
        }
        println!("{ends} ends, {resumed} of them resumed");
        assert!(resumed > 0, "no kill left anything to go on with: this test has tested nothing");
        // The one who swapped may have been killed before it said so: what was found is written down with the swap.
        let written = home.sql("SELECT report FROM rebuilds WHERE state IN (2, 3)").await.unwrap();
        let reports = written.iter().map(|report| serde_json::from_str::<Value>(report).unwrap());
        let found: Vec<Value> = reports.flat_map(|report| report["differences"].as_array().unwrap().clone()).collect();
        let wrong = |found: &[Value], table: &str| found.iter().filter(|row| row["table"] == table).count();
        assert_eq!((wrong(&found, "wallet_v1"), wrong(&found, "member_counts_v1"), found.len()), (1, 1, 2), "{found:?}");
        assert!(differences.iter().all(|row| found.contains(row)), "{differences:?}");
        let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
        assert_rows_equal_replay(&world).await;
        let report = rebuild(&world.ledger, "all").await.unwrap();
        assert_eq!((report.difference_count, lines(&report)), (0, vec![]));
        world.close().await;
    }

    async fn every_wrong_row_is_named_with_key_and_column_and_is_right_afterwards(engine: Engine) {
        let world = World::with_people(engine).await;
        let ids = some_of_everything(&world).await;
        let sound = rebuild(&world.ledger, "all").await.unwrap();
        for damage in [
            format!("UPDATE wallet_v1 SET title = 'stolen', in_hand = 0 WHERE coupon_id = {}", ids[0]),
            format!("DELETE FROM wallet_v1 WHERE coupon_id = {} AND member_id = 442", ids[2]),
            "DELETE FROM redemptions_v1".to_owned(),
            "INSERT INTO shops_v1 (bucket, shop_id, is_open, audit_key, name, phone, address, employee_id)
             VALUES (0, 99, 1, 1, 'nowhere', '', '', 0)".to_owned(),
            "UPDATE stock_v1 SET issued = issued + 3 WHERE definition_id = 1".to_owned(),
            "DELETE FROM member_counts_v1".to_owned(),
            "UPDATE definitions_v1 SET is_on = 0".to_owned(),
        ] {
            world.home.sql(&damage).await.unwrap();
        }
        let report = rebuild(&world.ledger, "all").await.unwrap();
        let redemption = count(&world.home, "SELECT redemption_id FROM redemptions_v1").await;
        let mut expected = vec![
            format!("wallet_v1 member_id=439 coupon_id={} in_hand: 0 → 1", ids[0]),
            format!("wallet_v1 member_id=439 coupon_id={} title: \"stolen\" → \"十元券\"", ids[0]),
            format!("wallet_v1 member_id=442 coupon_id={}: was missing", ids[2]),
            format!("redemptions_v1 redemption_id={redemption}: was missing"),
            "definitions_v1 definition_id=1 is_on: 0 → 1".to_owned(),
            "shops_v1 shop_id=99: nothing in the log gives this row".to_owned(),
            "stock_v1 definition_id=1 issued: 8 → 5".to_owned(),
            "member_counts_v1 member_id=439 definition_id=1: was missing".to_owned(),
        ];
        let mut found = lines(&report);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(report.difference_count, 7);
        let damaged: Vec<_> =
            report.tables.iter().filter(|table| table.old_digest != table.new_digest).map(|table| table.table.as_str()).collect();
        let mut expected = ["wallet_v1", "redemptions_v1", "definitions_v1", "shops_v1", "stock_v1", "member_counts_v1"];
        expected.sort_unstable();
        let mut damaged_sorted = damaged.clone();
        damaged_sorted.sort_unstable();
        assert_eq!(damaged_sorted, expected);
        // The log has not moved: it gives what it gave.
        let digests = |report: &Report| report.tables.iter().map(|table| table.new_digest.clone()).collect::<Vec<_>>();
        assert_eq!(digests(&report), digests(&sound));
        assert_rows_equal_replay(&world).await;
        world.issue(1, 442).await;
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn the_new_tables_are_made_as_the_old_and_the_old_are_kept_until_told(engine: Engine) {
        let world = World::with_people(engine).await;
        some_of_everything(&world).await;
        if engine == Engine::Postgres {
            world.home.sql("GRANT SELECT ON wallet_v1, stock_v1 TO PUBLIC").await.unwrap();
        }
        let before = made(&world.home, engine).await;
        let wallet = count(&world.home, "SELECT count(*) FROM wallet_v1").await;
        let one = Running::begin(world.store(), world.ledger.clock(), "all", false).await.unwrap();
        assert_eq!((one.id(), one.resumed), (1, false));
        one.run().await.unwrap();
        assert_eq!(made(&world.home, engine).await, before);
        assert_eq!(count(&world.home, "SELECT count(*) FROM wallet_v1_old").await, wallet);
        assert!(beside(&world).await.iter().all(|name| name.ends_with("_old")));
        let (kept, running) = rebuild::look(world.store(), 1).await.unwrap().unwrap();
        assert_eq!((kept.state, running), (State::Swapped, false));
        let again = Running::begin(world.store(), world.ledger.clock(), "wallet", false).await.err().unwrap();
        assert!(matches!(again, RebuildError::OldKept(_)));
        assert_eq!(
            again.to_string(),
            "what an earlier rebuild replaced is still kept (wallet_v1_old): look at it, then drop it with --drop-old"
        );
        let dropped = rebuild::drop_old(world.store()).await.unwrap();
        assert_eq!(dropped.len(), LIVE_TABLES.len() + 2);
        assert_eq!(beside(&world).await, Vec::<String>::new());
        assert_eq!(rebuild::look(world.store(), 1).await.unwrap().unwrap().0.state, State::Done);
        assert_eq!(rebuild::drop_old(world.store()).await.unwrap(), Vec::<String>::new());
        world.close().await;
    }

    async fn a_dropped_table_comes_back_whole(engine: Engine) {
        let world = World::with_people(engine).await;
        let ids = some_of_everything(&world).await;
        let before = made(&world.home, engine).await;
        world.home.sql("DROP TABLE redemptions_v1").await.unwrap();
        let report = rebuild(&world.ledger, "redemptions").await.unwrap();
        assert_eq!((report.difference_count, report.differences[0].wrong), (1, rebuild::Wrong::Missing));
        assert_eq!(made(&world.home, engine).await, before);
        assert_rows_equal_replay(&world).await;
        let again = json!({"mem_coupon_id": ids[1], "shop_id": 1});
        assert_eq!(world.call(MEMBER, "/client/auditcoupon", again).await.code(), 3001);
        world.close().await;
    }

    async fn one_coupons_rows_are_mended_alone(engine: Engine) {
        let world = World::with_people(engine).await;
        let ids = some_of_everything(&world).await;
        let sound = rebuild::repair_coupon(world.store(), ids[2]).await.unwrap();
        assert_eq!((sound.rows, sound.differences.len()), (2, 0));
        for damage in [
            format!("UPDATE wallet_v1 SET score = 5 WHERE coupon_id = {} AND member_id = 439", ids[2]),
            format!("DELETE FROM wallet_v1 WHERE coupon_id = {} AND member_id = 442", ids[2]),
            format!("UPDATE wallet_v1 SET member_id = 443 WHERE coupon_id = {}", ids[0]),
            "UPDATE stock_v1 SET issued = 99 WHERE definition_id = 1".to_owned(),
        ] {
            world.home.sql(&damage).await.unwrap();
        }
        let mended = rebuild::repair_coupon(world.store(), ids[2]).await.unwrap();
        let said: Vec<_> = mended.differences.iter().flat_map(rebuild::Difference::lines).collect();
        let coupon = format!("coupon_id={}", ids[2]);
        let mut expected = vec![
            format!("wallet_v1 member_id=439 {coupon} score: 5 → 0"),
            format!("wallet_v1 member_id=442 {coupon}: was missing"),
        ];
        expected.sort();
        assert_eq!((said, mended.rows), (expected, 2));
        // However little of a table is read at a time.
        let moved = rebuild::repair_coupon_reading(world.store(), ids[0], 1).await.unwrap();
        let said: Vec<_> = moved.differences.iter().flat_map(rebuild::Difference::lines).collect();
        let coupon = format!("coupon_id={}", ids[0]);
        let expected = [
            format!("wallet_v1 member_id=439 {coupon}: was missing"),
            format!("wallet_v1 member_id=443 {coupon}: nothing in the log gives this row"),
        ];
        assert_eq!(said, expected);
        // A counter is the sum of many.
        let left = rebuild(&world.ledger, "all").await.unwrap();
        assert_eq!(lines(&left), ["stock_v1 definition_id=1 issued: 99 → 5"]);
        let none = rebuild::repair_coupon(world.store(), 999).await.unwrap_err();
        assert_eq!(none.to_string(), "the log has no coupon 999");
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn one_rebuilds_at_a_time_and_an_error_of_the_database_leaves_everything_as_it_was(engine: Engine) {
        let world = World::with_people(engine).await;
        some_of_everything(&world).await;
        let before = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.body;
        let (store, clock) = (world.store(), world.ledger.clock());
        let first = Running::begin(store, clock, "all", false).await.unwrap();
        assert!(matches!(Running::begin(store, clock, "shops", false).await, Err(RebuildError::Busy)));
        assert!(matches!(rebuild::drop_old(store).await, Err(RebuildError::Busy)));
        assert!(rebuild::look(store, 1).await.unwrap().unwrap().1);
        // It has nowhere to write to in the middle of its work.
        world.home.sql("DROP TABLE redemptions_v1_new").await.unwrap();
        let failed = first.run().await.unwrap_err().to_string();
        assert!(failed.contains("redemptions_v1_new"), "{failed}");
        let (stopped, running) = rebuild::look(store, 1).await.unwrap().unwrap();
        assert_eq!((stopped.state, running, stopped.failed), (State::Filling, false, Some(failed)));
        assert_eq!(world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.body, before);
        assert_rows_equal_replay(&world).await;
        // What is left of it is of no use: the next begins anew.
        let next = Running::begin(store, clock, "all", false).await.unwrap();
        assert_eq!((next.id(), next.resumed), (2, false));
        assert_eq!(next.run().await.unwrap().difference_count, 0);
        world.close().await;
    }

    async fn what_a_program_with_other_kinds_of_streams_has_begun_is_begun_anew(engine: Engine) {
        let world = World::with_people(engine).await;
        let (store, clock) = (world.store(), world.ledger.clock());
        drop(Running::begin(store, clock, "all", false).await.unwrap());
        crate::outside::until("nobody is at it", async || !store.is_rebuilding().await.unwrap()).await;
        let made_by = world.home.sql("SELECT made_by FROM rebuilds").await.unwrap().remove(0);
        let (program, kinds) = made_by.rsplit_once(' ').unwrap();
        let mut kinds: Vec<&str> = kinds.split(',').collect();
        kinds.swap(0, 1);
        let other = format!("UPDATE rebuilds SET made_by = '{program} {}', kind = 3", kinds.join(","));
        world.home.sql(&other).await.unwrap();
        let next = Running::begin(store, clock, "all", false).await.unwrap();
        assert_eq!((next.id(), next.resumed), (2, false));
        assert_eq!(next.run().await.unwrap().difference_count, 0);
        world.close().await;
    }

    async fn an_index_of_somebody_else_does_not_stand_in_the_way(engine: Engine) {
        let world = World::with_people(engine).await;
        some_of_everything(&world).await;
        world.home.sql("CREATE INDEX mine ON wallet_v1 (title)").await.unwrap();
        for _ in 0..2 {
            assert_eq!(rebuild(&world.ledger, "all").await.unwrap().difference_count, 0);
        }
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_rebuild_is_done_when_its_own_old_tables_are_gone(engine: Engine) {
        let world = World::with_people(engine).await;
        let (store, clock) = (world.store(), world.ledger.clock());
        for models in ["shops,wallet", "definitions"] {
            Running::begin(store, clock, models, false).await.unwrap().run().await.unwrap();
        }
        let states = async || {
            let mut states = Vec::new();
            for id in [1, 2] {
                states.push(rebuild::look(store, id).await.unwrap().unwrap().0.state);
            }
            states
        };
        assert_eq!(states().await, [State::Swapped, State::Swapped]);
        Running::begin(store, clock, "wallet", true).await.unwrap().run().await.unwrap();
        assert_eq!(states().await, [State::Swapped, State::Swapped], "shops_v1_old and definitions_v1_old are kept");
        Running::begin(store, clock, "definitions", true).await.unwrap().run().await.unwrap();
        assert_eq!(states().await, [State::Swapped, State::Done]);
        rebuild::drop_old(store).await.unwrap();
        assert_eq!(states().await, [State::Done, State::Done]);
        world.close().await;
    }

    async fn a_stream_whose_id_is_no_number_stops_a_rebuild(engine: Engine) {
        let world = World::with_people(engine).await;
        let head = count(&world.home, "SELECT position FROM log_head").await;
        let forged = |position: i64, id: &str| format!(
            "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                                 metadata, recorded_at_ms)
             SELECT 0, {position}, aggregate_type, '{id}', 1, event_type, event_version, payload, metadata, recorded_at_ms
             FROM events WHERE aggregate_type = 'shop' AND sequence = 1"
        );
        // One that comes while it runs, and one that it begins with.
        let running = Running::begin(world.store(), world.ledger.clock(), "all", false).await.unwrap();
        world.home.sql(&forged(head + 1, "0x7")).await.unwrap();
        world.home.sql("UPDATE log_head SET position = position + 1").await.unwrap();
        let says = format!("corrupt event: position {}, stream shop 0x7 event 1", head + 1);
        let stopped = running.run().await.unwrap_err().to_string();
        assert!(stopped.starts_with(&says) && stopped.ends_with("0x7 is no id of a stream"), "{stopped}");
        rebuild::drop_old(world.store()).await.unwrap();
        let stopped = rebuild(&world.ledger, "all").await.unwrap_err().to_string();
        assert!(stopped.starts_with(&says), "{stopped}");
        world.close().await;
    }

    async fn an_event_of_an_unknown_kind_stops_a_rebuild(engine: Engine) {
        let world = World::with_people(engine).await;
        let running = Running::begin(world.store(), world.ledger.clock(), "all", false).await.unwrap();
        let head = count(&world.home, "SELECT position FROM log_head").await;
        world.home.sql(&format!(
            "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload,
                                 metadata, recorded_at_ms)
             VALUES (0, {}, 'voucher', '1', 1, 'Made', '1.0', '{{}}', '{{}}', 0)",
            head + 1
        )).await.unwrap();
        world.home.sql("UPDATE log_head SET position = position + 1").await.unwrap();
        let stopped = running.run().await.unwrap_err().to_string();
        let expected = format!(
            "position {} belongs to a stream of an unknown kind, voucher: a newer program wrote it",
            head + 1
        );
        assert_eq!(stopped, expected);
        world.close().await;
    }

    async fn the_command_line_rebuilds_beside_a_running_server(engine: Engine) {
        let world = World::with_people(engine).await;
        let ids = some_of_everything(&world).await;
        let home = world.close().await;
        share_secret(&home);
        let server = Server::start(&home, &[]).await;
        let sound = command(&home, &["rebuild", "all", "--json"]).await;
        assert_eq!(sound.status.code(), Some(0), "{}", said(&sound));
        assert_eq!(printed(&sound)["difference_count"], 0);
        assert!(said(&sound).contains("rebuild 1 begins"), "{}", said(&sound));
        assert_eq!(said(&sound).contains("through the server"), engine == Engine::Sqlite);
        let kept = command(&home, &["rebuild", "wallet"]).await;
        assert_eq!(kept.status.code(), Some(1));
        assert!(said(&kept).contains("still kept (wallet_v1_old)"), "{}", said(&kept));
        home.sql(&format!("UPDATE wallet_v1 SET score = 9 WHERE coupon_id = {}", ids[0])).await.unwrap();
        let found = command(&home, &["rebuild", "wallet", "--drop-old"]).await;
        assert_eq!(found.status.code(), Some(1));
        let text = String::from_utf8_lossy(&found.stdout);
        assert!(text.ends_with(&format!("wallet_v1 member_id=439 coupon_id={} score: 9 → 0\n", ids[0])), "{text}");
        assert!(said(&found).ends_with("coupon-ledger: 1 rows were not what the log gives; they are now\n"));
        home.sql(&format!("DELETE FROM wallet_v1 WHERE coupon_id = {}", ids[0])).await.unwrap();
        let coupon = command(&home, &["rebuild", "--coupon", &ids[0].to_string()]).await;
        assert_eq!(coupon.status.code(), Some(1));
        let expected = format!("coupon {0}: 1 rows\nwallet_v1 member_id=439 coupon_id={0}: was missing\n", ids[0]);
        assert_eq!(String::from_utf8_lossy(&coupon.stdout), expected);
        let none = command(&home, &["rebuild", "--coupon", "999"]).await;
        assert_eq!(none.status.code(), Some(1));
        assert!(said(&none).ends_with("coupon-ledger: the log has no coupon 999\n"), "{}", said(&none));
        let dropped = command(&home, &["rebuild", "--drop-old", "--json"]).await;
        assert_eq!(dropped.status.code(), Some(0), "{}", said(&dropped));
        assert_eq!(printed(&dropped)["dropped"].as_array().map(Vec::len), Some(LIVE_TABLES.len() + 2));
        server.kill().await;
        let unknown = command(&home, &["rebuild", "walet"]).await;
        assert_eq!(unknown.status.code(), Some(2));
        assert!(said(&unknown).contains("there is no read model walet: all, or one of wallet_v1,"));
        assert_eq!(command(&home, &["rebuild"]).await.status.code(), Some(2));
        let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn over_http_a_rebuild_is_begun_by_an_operator_and_looked_at_by_an_auditor(engine: Engine) {
        let world = World::with_people(engine).await;
        some_of_everything(&world).await;
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let post = async |path: &str| world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
        let begun = post("/v1/rebuilds?models=wallet,stock").await;
        assert_eq!(begun.body, json!({"rebuild_id": 1, "resumed": false}));
        let mut standing = Value::Null;
        crate::outside::until("it is done", async || {
            standing = world.get(Caller::Auditor, "/v1/rebuilds/1").await.body;
            assert!(standing["failed"].is_null(), "{standing}");
            standing["running"] == false
        }).await;
        assert!(standing["report"]["held_us"].as_u64() > Some(0), "{standing}");
        assert_eq!(standing["state"], "swapped");
        assert_eq!(standing["tables"], json!(["stock_v1", "wallet_v1"]));
        assert_eq!(standing["report"]["difference_count"], 0);
        assert_eq!(standing["report"]["position"], standing["position"]);
        crate::outside::until("others may", async || !world.store().is_rebuilding().await.unwrap()).await;
        for (path, status, code) in [
            ("/v1/rebuilds?models=walet", 400, 401),
            ("/v1/rebuilds?models=wallet", 409, 6003),
            ("/v1/rebuilds?drop_old=2", 400, 401),
            ("/v1/coupons/999/rebuild", 404, 2001),
            ("/v1/coupons/x/rebuild", 400, 401),
        ] {
            let reply = post(path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{path}: {}", reply.body);
        }
        let none = world.get(Caller::Auditor, "/v1/rebuilds/7").await;
        assert_eq!((none.status.as_u16(), &none.body["info"]), (404, &json!("there is no rebuild 7")));
        assert_eq!(post("/v1/rebuilds/drop-old").await.body, json!({"dropped": ["wallet_v1_old", "stock_v1_old"]}));
        world.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_more_can_be_written_a_rebuild_says_so_and_goes_on_later() {
    let world = World::with_people(Engine::Sqlite).await;
    some_of_everything(&world).await;
    issue_to_many(&world, 1_000).await;
    let home = world.close().await;
    share_secret(&home);
    let stopped = program_on_a_full_disk(&home, 400).args(["rebuild", "all"]).heard().await;
    assert_eq!(stopped.status.code(), Some(2), "{}", said(&stopped));
    assert!(said(&stopped).contains("the database cannot be written"), "{}", said(&stopped));
    let done = command(&home, &["rebuild", "all", "--json"]).await;
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("goes on"), "{}", said(&done));
    let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
    assert_rows_equal_replay(&world).await;
    world.close().await;
}
