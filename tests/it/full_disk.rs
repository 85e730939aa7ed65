//! A disk that takes no more: whoever writes says so, ends with it, and leaves nothing that would be taken for whole. No file
//! may grow beyond some length, which holds for root too.

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::Stdio;

use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::followers::{self, Order};
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::analytics::{duckdb, files};
use crate::archive::key_of;
use crate::backup::{empty, is_untouched, names};
use crate::bulk::add_members;
use crate::cli::{Done, finish};
use crate::harness::{
    DAY, Engine, Home, NOON, Server, World, definition, on_a_full_disk, program, program_on_a_full_disk,
};
use crate::outside::{Api, PATIENCE, count, events, until};
use crate::statistics::assert_counted;
use crate::tlog::tick;
use crate::verify::{program_verifies, put_secret};
use crate::witness::{Log, launch, log_key};

/// Blocks of the longest file: none at all, and some that are enough to begin with.
const LIMITS: [u32; 2] = [0, 64];

const MEMBERS: i64 = 2_500;

/// A ledger of which no copy fits.
async fn ledger(engine: Engine) -> World {
    let world = World::with_people(engine).await;
    add_members(&world.home, MEMBERS).await;
    let definition = world.define(json!({})).await;
    let members: Vec<i64> = (1..=MEMBERS).collect();
    for members in members.chunks(500) {
        let body = json!({"coupon_id": definition, "member_ids": members});
        world.operator("/sendelecoupon/members", body).await.ok();
    }
    tick(&world).await.unwrap().unwrap();
    put_secret(&world.home);
    world
}

/// It ends with one sentence that names what could not be written.
fn assert_said(done: &Done, names: &str) {
    let last = done.err.lines().last().unwrap_or_default();
    assert_eq!(done.code, Some(2), "{done:?}");
    assert!(last.starts_with("coupon-ledger: ") && last.contains(names), "{names}: {done:?}");
    assert!(!done.err.contains("panicked"), "{done:?}");
}

async fn does(mut command: Command, arguments: &[&str]) -> Done {
    command.args(arguments);
    finish(command).await
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

on_both_engines! {
    async fn no_half_export_backup_or_copy_is_left_behind(engine: Engine) {
        let world = ledger(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("copy");
        let path = text(&file);
        for limit in LIMITS {
            let names_file = format!("cannot write {path}");
            let was_not = format!("{path} was not written: ");
            let tools = "pg_dump failed: error: could not write to output file: File too large".to_owned();
            let backup = if engine == Engine::Sqlite { &names_file } else { &tools };
            for (arguments, names_it) in [
                (vec!["export", "--out", &path], &names_file),
                (vec!["backup", &path], backup),
                (vec!["as-of", "2000", "--into", &path], &was_not),
            ] {
                let done = does(program_on_a_full_disk(&world.home, limit), &arguments).await;
                assert_said(&done, names_it);
                assert_eq!((done.out.as_str(), names(folder.path())), ("", Vec::new()), "{arguments:?}");
            }
        }
        // With room it goes on as if nothing had been.
        assert_eq!(does(program(&world.home), &["backup", &path]).await.code, Some(0));
        if engine == Engine::Sqlite {
            for limit in LIMITS {
                let home = empty(engine).await;
                assert_said(&does(program_on_a_full_disk(&home, limit), &["restore", &path]).await, &path);
                assert!(is_untouched(&home).await, "{:?}", names(home.path()));
            }
        }
        world.close().await;
    }

    async fn a_log_as_parquet_ends_with_its_last_whole_file_and_is_gone_on_with(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, MEMBERS).await;
        let definition = world.define(json!({})).await;
        let first_day = count(&world.home, "SELECT position FROM log_head").await;
        world.advance(DAY);
        for members in (1..=MEMBERS).collect::<Vec<i64>>().chunks(500) {
            let body = json!({"coupon_id": definition, "member_ids": members});
            world.operator("/sendelecoupon/members", body).await.ok();
        }
        let place = tempfile::tempdir().unwrap();
        let (whole, folder) = (place.path().join("whole"), place.path().join("analytics"));
        let (whole_path, path) = (text(&whole), text(&folder));
        assert_eq!(does(program(&world.home), &["export", "--parquet", &whole_path]).await.code, Some(0));
        let whole = files(&whole);
        let day = |day: &str| whole.iter().find(|(name, _)| name.contains(day)).unwrap();
        // As large as what fits, and a little more.
        let ((fits, first), (_, second)) = (day("2026-11-23"), day("2026-11-24"));
        let room = first.len() + 2_048;
        assert!(second.len() > room, "{} bytes would fit", second.len());
        let events = "SELECT count(*), max(position) FROM read_parquet('analytics/day=*/*.parquet')";
        for _ in 0..2 {
            let done = does(program_on_a_full_disk(&world.home, room as u32 / 512), &["export", "--parquet", &path]).await;
            assert_said(&done, &format!("cannot write {path}/day=2026-11-24/events.draft"));
            assert_eq!(done.out, "");
            let there: Vec<String> = files(&folder).into_keys().filter(|name| name.contains("events-")).collect();
            assert_eq!(there, std::slice::from_ref(fits));
            assert_eq!(duckdb(place.path(), &[events]).remove(0), [[first_day.to_string(), first_day.to_string()]]);
        }
        // With room it goes on behind what is there.
        let done = does(program(&world.home), &["export", "--parquet", &path]).await;
        let told: Value = serde_json::from_str(&done.out).unwrap();
        assert_eq!((&told["from"], &told["files"]), (&json!(first_day + 1), &json!(1)), "{done:?}");
        assert!(files(&folder) == whole, "it is not as if nothing had been");
        world.close().await;
    }

    async fn a_verification_that_cannot_be_written_down_does_not_begin_and_spoils_none(engine: Engine) {
        let world = ledger(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let path = text(&state);
        let verify = ["verify", "--state", &path];
        assert_said(&does(program_on_a_full_disk(&world.home, 0), &verify).await, &path);
        assert_eq!(names(folder.path()), Vec::<String>::new());
        let nowhere = text(&folder.path().join("nowhere").join("state"));
        assert_said(&does(program(&world.home), &["verify", "--state", &nowhere]).await, &nowhere);
        // What an earlier one wrote down is as it was, and can be gone on with.
        let origin = world.store().origin().await.unwrap();
        let earlier = json!({"origin": origin, "state": null}).to_string();
        std::fs::write(&state, &earlier).unwrap();
        assert_said(&does(program_on_a_full_disk(&world.home, 0), &verify).await, &path);
        assert_eq!(names(folder.path()), ["state"]);
        assert_eq!(std::fs::read_to_string(&state).unwrap(), earlier);
        let done = does(program(&world.home), &verify).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(names(folder.path()), Vec::<String>::new());
        world.close().await;
    }

    async fn what_cannot_be_told_is_no_success(engine: Engine) {
        let world = ledger(engine).await;
        let coupon = format!("coupon:{}", count(&world.home, "SELECT MIN(coupon_id) FROM wallet_v1").await);
        let key = key_of(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let [export, backup] = ["export", "backup"].map(|name| text(&folder.path().join(name)));
        for arguments in [
            vec!["export", "--out", &export],
            vec!["check", &export, "--key", &key],
            vec!["check", &export, "--key", &key, "--json"],
            vec!["backup", &backup],
            vec!["verify"],
            vec!["verify", "--json"],
            vec!["token", "--auditor"],
            vec!["key", "list"],
            vec!["followers", "list"],
            vec!["history", &coupon],
            vec!["as-of", "2000", "--member", "439", "couponlist", "state=0"],
        ] {
            let mut command = program(&world.home);
            let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
            command.args(&arguments).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
            let output = command.spawn().unwrap().wait_with_output().await.unwrap();
            let err = String::from_utf8(output.stderr).unwrap();
            let done = Done { code: output.status.code(), out: String::new(), err };
            assert_said(&done, "cannot write to stdout: No space left on device");
        }
        world.close().await;
    }
}

/// A log file that cannot grow beyond so many blocks, as long as that.
fn full_log(folder: &Path, blocks: u32) -> File {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    log.set_len(u64::from(blocks) * 512).unwrap();
    log
}

/// On PostgreSQL it is the database's own disk that matters, and its own affair.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_disk_is_full_ends_though_its_log_lies_there_too_and_loses_nothing_acknowledged() {
    let home = Home::new(Engine::Sqlite).await;
    Server::start(&home, &[]).await.kill().await;
    let blocks = 2_000;
    let mut command = program_on_a_full_disk(&home, blocks);
    command.stderr(full_log(home.path(), blocks));
    let mut server = Server::launch(command, &[]).await;
    let api = Api::new(&home, &server);
    let mut acknowledged = 0;
    while let Ok(reply) =
        api.try_call(Caller::Operator, None, "/elecoupons/add", &definition(json!({}))).await
    {
        reply.ok();
        acknowledged += 1;
    }
    let ended = tokio::time::timeout(PATIENCE, server.child.wait()).await.expect("it does not end");
    assert_eq!(ended.unwrap().code(), Some(2));
    assert!(acknowledged > 0);
    let there = events(&home, "Defined").await;
    assert!((acknowledged..=acknowledged + 1).contains(&there), "{there} of {acknowledged}");
}

/// A ledger of which nothing is counted yet, and whose followers rest.
async fn uncounted(engine: Engine) -> Home {
    let world = ledger(engine).await;
    let uses = (1..=MEMBERS).step_by(4).map(|id| {
        world.call(Caller::Member(id), "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1}))
    });
    for reply in futures::future::join_all(uses).await {
        reply.ok();
    }
    for follower in followers::ALL.iter().filter(|follower| follower.name != "nats") {
        followers::order(&world.ledger, follower.name, Order::Pause).await.unwrap();
    }
    world.close().await
}

/// How far the statistics are counted, and how far the log goes.
async fn counted(home: &Home) -> (i64, i64) {
    let counted = "SELECT COALESCE(MAX(value), 0) FROM checkpoints WHERE name = 'statistics'";
    (count(home, counted).await, count(home, "SELECT position FROM log_head").await)
}

/// Sees that it came to a stop on the way, and that what is counted is whole as of its position.
async fn assert_whole_so_far(home: &Home) {
    let (counted, head) = counted(home).await;
    assert!(0 < counted && counted < head, "{counted} of {head}");
    let (code, found, said) = program_verifies(home, &[]).await;
    assert_eq!(code, 0, "{found} {said}");
}

/// Sees that the statistics, once they are counted as far as the log goes, are what a plain count comes to.
async fn assert_counted_by(server: Server, home: Home) {
    until("everything is counted", async || {
        let (counted, head) = counted(&home).await;
        counted == head
    })
    .await;
    server.kill().await;
    let world = World::open(home, Clock::manual(NOON + DAY), Zone::default()).await;
    assert_counted(&world).await;
    world.close().await;
}

/// The embedded ledger: nobody knows what is on a disk that has refused a write, so that the server ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_on_a_full_disk_end_the_server_and_are_counted_on_from_where_they_were() {
    let home = uncounted(Engine::Sqlite).await;
    let mut command = program_on_a_full_disk(&home, 160);
    let log = home.path().join("log");
    command.stderr(File::create(&log).unwrap());
    let mut server = Server::launch(command, &["--verify-every-hours", "0"]).await;
    let api = Api::new(&home, &server);
    // While nobody counts it serves.
    assert_eq!(api.get(Caller::Operator, "/readyz").await.0, 200);
    let _ = api.try_call(Caller::Operator, None, "/v1/followers/statistics/resume", &json!({})).await;
    let ended = tokio::time::timeout(PATIENCE, server.child.wait()).await.expect("it does not end");
    assert_eq!(ended.unwrap().code(), Some(2));
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the database cannot be written; the server ends"), "{said}");
    assert_whole_so_far(&home).await;
    home.sql("UPDATE followers SET paused = 0 WHERE name = 'statistics'").await.unwrap();
    let server = Server::start(&home, &["--verify-every-hours", "0"]).await;
    assert_counted_by(server, home).await;
}

/// On PostgreSQL the disk is the database's: it says so, and the server goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statistics_whose_database_has_no_room_stand_still_loudly_and_go_on_once_it_has() {
    let home = uncounted(Engine::Postgres).await;
    home.sql(
        "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS
         $$BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END$$;
         CREATE TRIGGER no_room BEFORE INSERT ON stats_uses_v2 FOR EACH ROW EXECUTE FUNCTION no_room();
         UPDATE followers SET paused = 0 WHERE name = 'statistics'",
    )
    .await
    .unwrap();
    let log = home.path().join("log");
    let mut command = program(&home);
    command.stderr(File::create(&log).unwrap());
    let server = Server::launch(command, &["--verify-every-hours", "0"]).await;
    let api = Api::new(&home, &server);
    let stands = async || -> Value {
        let followers = api.get(Caller::Auditor, "/v1/followers").await.1;
        let followers: Value = serde_json::from_str(&followers).unwrap();
        let all = followers["followers"].as_array().unwrap();
        all.iter().find(|follower| follower["name"] == "statistics").unwrap().clone()
    };
    until("it says so", async || {
        stands().await["last_error"].to_string().contains("No space left on device")
    })
    .await;
    let (_, metrics) = api.get(Caller::Auditor, "/metrics").await;
    assert!(metrics.contains("coupon_ledger_follower_failed{follower=\"statistics\"} 1\n"), "{metrics}");
    let (ready, lines) = api.get(Caller::Auditor, "/readyz").await;
    assert!(
        ready == 200
            && lines
                .lines()
                .any(|line| line.starts_with("statistics: ") && line.ends_with("stopped by an error")),
        "{lines}"
    );
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(said.contains("the follower stands still") && said.contains("No space left on device"), "{said}");
    assert_whole_so_far(&home).await;
    // Commands go on.
    api.operator("/elecoupons/add", definition(json!({}))).await.ok();
    home.sql("DROP TRIGGER no_room ON stats_uses_v2").await.unwrap();
    until("it goes on", async || stands().await["last_error"] == "").await;
    assert_counted_by(server, home).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_cosigns_nothing_that_its_disk_does_not_take() {
    let folder = tempfile::tempdir().unwrap();
    let (log, key) = (Log::new(20, 20), log_key(1));
    let started =
        async |command| launch(command, folder.path(), "127.0.0.1:0", &key, "witness.example/1").await;
    let ask = async |url: &str, old, new| {
        let asking = reqwest::Client::new().post(format!("{url}/add-checkpoint")).body(log.asks(old, new));
        let answer = asking.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    // Where there is no room for its key it does not begin.
    let mut command = on_a_full_disk(0);
    command.args(["witness", "--listen", "127.0.0.1:0", "--log", &key, "--state"]).arg(folder.path());
    assert_said(&finish(command).await, &text(folder.path()));
    let left = names(folder.path());
    assert!(!left.iter().any(|name| name.contains("key") || name.contains("draft")), "{left:?}");

    let mut running = started(Command::new(env!("CARGO_BIN_EXE_coupon-ledger"))).await;
    assert_eq!(ask(&running.url, 0, 9).await.0, 200);
    running.child.kill().await.unwrap();
    full_log(folder.path(), 0);
    let whole = (names(folder.path()), std::fs::read(folder.path().join("witness.state")).unwrap());
    // Its log has no room either.
    let mut command = on_a_full_disk(0);
    command.stderr(full_log(folder.path(), 0));
    let mut running = started(command).await;
    let told = "the witness cannot remember this checkpoint\n".to_owned();
    assert_eq!(ask(&running.url, 9, 20).await, (500, told));
    running.child.kill().await.unwrap();
    let left = (names(folder.path()), std::fs::read(folder.path().join("witness.state")).unwrap());
    assert_eq!(left, whole);
    // It still is at what it cosigned, and goes on from there.
    let mut running = started(Command::new(env!("CARGO_BIN_EXE_coupon-ledger"))).await;
    assert_eq!(ask(&running.url, 5, 20).await, (409, "9\n".to_owned()));
    assert_eq!(ask(&running.url, 9, 20).await.0, 200);
    running.child.kill().await.unwrap();
}
