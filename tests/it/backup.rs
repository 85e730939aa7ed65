//! A backup is the ledger as of one instant, however busy it is; a restore is all of it or nothing.

use std::path::{Path, PathBuf};

use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::store::StoredEvent;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::everything::everything;
use crate::harness::{Engine, Home, MEMBER, NOON, World, new_database, program};
use crate::leaks::Heard as _;
use crate::replay::assert_rows_equal_replay;

/// What a command came to: its exit code, the JSON it printed, and behind a backup what verify found; the last thing it said.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    printed: Value,
    verified: Value,
    said: String,
}

async fn ran(mut command: Command) -> Ran {
    let output = command.heard().await;
    let said = String::from_utf8(output.stderr).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let mut printed = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    Ran {
        code: output.status.code(),
        printed: printed.next().unwrap_or_default(),
        verified: printed.next().unwrap_or_default(),
        said: said.lines().last().unwrap_or_default().to_owned(),
    }
}

async fn program_says(home: &Home, verb: &str, file: &Path) -> Ran {
    let mut command = program(home);
    command.arg(verb).arg(file);
    ran(command).await
}

/// An empty place of the same engine.
pub async fn empty(engine: Engine) -> Home {
    let home = Home::new(engine).await;
    std::fs::remove_dir(home.path()).unwrap();
    home
}

/// What is in a folder, in order.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn log(world: &World) -> Vec<StoredEvent> {
    world.store().events_after(0, i64::MAX).await.unwrap()
}

async fn reopened(home: Home, keys: &Path) -> World {
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::copy(keys, home.person_keys_file()).unwrap();
    World::open(home, Clock::manual(NOON), Zone::default()).await
}

/// A place where nothing was restored.
pub async fn is_untouched(home: &Home) -> bool {
    match &home.database_url {
        None => names(home.path()).iter().all(|name| name == "ledger.lock"),
        Some(_) => home
            .sql("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .await
            .unwrap()
            .is_empty(),
    }
}

on_both_engines! {
    async fn a_backup_under_load_is_the_log_up_to_its_head(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.operator("/member/edit", json!({"id": 439, "phone": "13812345678"})).await.ok();
        world.issue(definition, 442).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
        let busy = async {
            let mut issued = 0;
            while stopped.try_recv().is_err() {
                let id = world.issue(definition, 439).await;
                world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
                issued += 1;
            }
            issued
        };
        let backing_up = async {
            let ran = program_says(&world.home, "backup", &file).await;
            stop.send(()).unwrap();
            ran
        };
        let (issued, done) = tokio::join!(busy, backing_up);
        assert_eq!(done.code, Some(0), "{done:?}");
        assert!(issued > 0, "{done:?}");
        assert_eq!(done.printed["bytes"], std::fs::metadata(&file).unwrap().len());
        let position = done.printed["position"].as_i64().unwrap();
        assert!(position >= 3, "{done:?}");
        let whole = log(&world).await;

        let home = empty(engine).await;
        let restored = program_says(&home, "restore", &file).await;
        assert_eq!((restored.code, &restored.printed["findings"]), (Some(0), &json!([])), "{restored:?}");
        assert_eq!((&done.verified["findings"], done.said.as_str()), (&json!([]), "coupon-ledger: sound"));
        let again = reopened(home, &world.home.person_keys_file()).await;
        let restored_log = log(&again).await;
        assert!(restored_log.len() as i64 >= position);
        assert_eq!(restored_log[..], whole[..restored_log.len()]);
        assert_eq!(restored.printed["position"], restored_log.len());
        assert_rows_equal_replay(&again).await;
        let member = again.operator("/member/list", json!({"phone": "1381234"})).await;
        assert_eq!(member.ok()[0]["phone"], "13812345678");
        again.issue(definition, 442).await;
        again.close().await;
        world.close().await;
    }

    async fn a_ledger_in_which_everything_has_happened_is_sound_when_it_is_restored(engine: Engine) {
        let world = everything(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        let backed_up = program_says(&world.home, "backup", &file).await;
        assert_eq!((backed_up.code, backed_up.said.as_str()), (Some(0), "coupon-ledger: sound"), "{backed_up:?}");
        let home = empty(engine).await;
        let restored = program_says(&home, "restore", &file).await;
        assert_eq!((restored.code, restored.said.as_str()), (Some(0), "coupon-ledger: sound"), "{restored:?}");
        assert_eq!(restored.printed["position"], log(&world).await.len());
        world.close().await;
    }

    async fn an_erased_member_does_not_come_back_with_an_old_backup(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/member/edit", json!({"id": 439, "phone": "13812345678"})).await.ok();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        assert_eq!(program_says(&world.home, "backup", &file).await.code, Some(0));
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        let home = empty(engine).await;
        assert_eq!(program_says(&home, "restore", &file).await.code, Some(0));
        let again = reopened(home, &world.home.person_keys_file()).await;
        coupon_ledger::erasure::begin(&again.ledger).await.unwrap();
        let row = again.operator("/member/get", json!({"id": 439})).await;
        assert_eq!((&row.ok()["state"], &row.ok()["phone"]), (&json!(0), &json!("")));
        assert_rows_equal_replay(&again).await;
        again.close().await;
        world.close().await;
    }

    async fn nothing_is_written_over_and_nothing_is_left_half_written(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        assert_eq!(program_says(&world.home, "backup", &file).await.code, Some(0));
        let whole = std::fs::read(&file).unwrap();
        let name = file.display().to_string();

        let again = program_says(&world.home, "backup", &file).await;
        let said = format!("coupon-ledger: {name} is there already: nothing is written over; name another file");
        assert_eq!((again.code, again.said), (Some(2), said));
        let nowhere = program_says(&world.home, "backup", &folder.path().join("no/such.backup")).await;
        assert_eq!(nowhere.code, Some(2));
        assert!(nowhere.said.contains("no/such.backup: No such file or directory"), "{nowhere:?}");
        let full = program_says(&world.home, "backup", Path::new("/proc/ledger.backup")).await;
        assert_eq!(full.code, Some(2), "{full:?}");
        assert!(full.said.starts_with("coupon-ledger: cannot write /proc/ledger.backup: "), "{full:?}");
        assert_eq!(names(folder.path()), ["ledger.backup"]);
        assert_eq!(std::fs::read(&file).unwrap(), whole);

        let full = program_says(&world.home, "restore", &file).await;
        let place = match engine {
            Engine::Sqlite => world.home.path().display().to_string(),
            Engine::Postgres => "the database".to_owned(),
        };
        if engine == Engine::Postgres {
            let said = format!("coupon-ledger: {place} is not empty: a backup is restored into an empty place only");
            assert_eq!((full.code, full.said), (Some(2), said));
        } else {
            // The test's own ledger holds the folder.
            assert_eq!((full.code, full.said.contains("is in use")), (Some(2), true));
        }
        let home = world.close().await;
        if engine == Engine::Sqlite {
            let full = program_says(&home, "restore", &file).await;
            let said = format!("coupon-ledger: {place} is not empty: a backup is restored into an empty place only");
            assert_eq!((full.code, full.said), (Some(2), said));
        }
    }

    async fn what_is_no_whole_backup_is_refused_and_leaves_the_place_empty(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        for _ in 0..20 {
            world.issue(definition, 439).await;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        assert_eq!(program_says(&world.home, "backup", &file).await.code, Some(0));
        let whole = std::fs::read(&file).unwrap();
        let home = empty(engine).await;
        // What is cut off behind its table of contents pg_restore finds out, in its own words.
        let says = ["bad.backup is not a whole backup of a ledger: ", "pg_restore failed: "];
        let refused = async |what: &str, bytes: &[u8]| {
            let bad = folder.path().join("bad.backup");
            std::fs::write(&bad, bytes).unwrap();
            let ran = program_says(&home, "restore", &bad).await;
            assert_eq!(ran.code, Some(2), "{what}: {ran:?}");
            assert!(says.iter().any(|says| ran.said.contains(says)), "{what}: {ran:?}");
            assert!(is_untouched(&home).await, "{what}");
        };
        refused("empty", b"").await;
        refused("garbage", &[7; 5_000]).await;
        refused("cut off at half", &whole[..whole.len() / 2]).await;
        refused("cut off at its head", &whole[..100]).await;
        let missing = program_says(&home, "restore", &folder.path().join("none")).await;
        assert_eq!((missing.code, missing.said.contains("cannot read")), (Some(2), true), "{missing:?}");
        let other = match engine {
            Engine::Sqlite => Home::new(Engine::Postgres).await,
            Engine::Postgres => Home::new(Engine::Sqlite).await,
        };
        let wrong = program_says(&other, "restore", &file).await;
        assert_eq!((wrong.code, wrong.said.contains("is a backup of a ledger on")), (Some(2), true), "{wrong:?}");
        assert!(is_untouched(&other).await);
        // And the whole one is taken there after all.
        assert_eq!(program_says(&home, "restore", &file).await.code, Some(0));
        world.close().await;
    }

    async fn what_no_event_gives_is_found_when_it_is_backed_up_and_when_it_is_restored(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        world.home.sql("UPDATE wallet_v1 SET title = 'other'").await.unwrap();
        world.home.sql("DELETE FROM shops_v1").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.backup");
        let backed_up = program_says(&world.home, "backup", &file).await;
        let home = empty(engine).await;
        let restored = program_says(&home, "restore", &file).await;
        for (ran, findings) in
            [(&backed_up, &backed_up.verified["findings"]), (&restored, &restored.printed["findings"])]
        {
            let tables: Vec<_> = findings.as_array().unwrap().iter().map(|finding| &finding["table"]).collect();
            assert!(tables.contains(&&json!("wallet_v1")) && tables.contains(&&json!("shops_v1")), "{ran:?}");
            assert_eq!((ran.code, ran.said.ends_with("things are wrong")), (Some(1), true), "{ran:?}");
        }
        world.close().await;
    }
}

/// A program that stands for PostgreSQL's, in a folder of its own.
fn stand_in(folder: &Path, name: &str, script: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = folder.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_fitting_client_programs_a_backup_is_refused() {
    let home = World::with_people(Engine::Postgres).await.close().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.backup");
    let tools = tempfile::tempdir().unwrap();
    let attempt = async || {
        let mut command = program(&home);
        command.arg("backup").arg(&file).arg("--postgres-tools").arg(tools.path());
        let ran = ran(command).await;
        assert_eq!((ran.code, names(folder.path())), (Some(2), Vec::new()), "{ran:?}");
        ran.said
    };
    let said = attempt().await;
    assert!(said.starts_with("coupon-ledger: pg_dump is not installed here: "), "{said}");
    stand_in(tools.path(), "pg_dump", "echo 'pg_dump (PostgreSQL) 9.6.24'");
    let said = attempt().await;
    assert!(
        said.starts_with("coupon-ledger: pg_dump is of version 9 and the server runs PostgreSQL "),
        "{said}"
    );
    let version = &home.sql("SHOW server_version").await.unwrap()[0];
    let fails = format!(
        "[ \"$1\" = --version ] && exec echo 'pg_dump (PostgreSQL) {version}'; echo 'pg_dump: error: no room' >&2; exit 1"
    );
    stand_in(tools.path(), "pg_dump", &fails);
    assert_eq!(attempt().await, "coupon-ledger: pg_dump failed: error: no room");
    stand_in(tools.path(), "pg_dump", "echo 'pg_dump (PostgreSQL) 99.1'");
    let said = attempt().await;
    assert!(
        said.starts_with("coupon-ledger: pg_dump is of version 99 and the server runs PostgreSQL "),
        "{said}"
    );
    // A database without a ledger.
    let bare = Home::on(Some(new_database().await));
    let ran = program_says(&bare, "backup", &file).await;
    let said = "coupon-ledger: there is no ledger in this database: start the server once";
    assert_eq!((ran.code, ran.said.as_str()), (Some(2), said));
    let bare = Home::on(None);
    let ran = program_says(&bare, "backup", &file).await;
    assert_eq!((ran.code, ran.said.contains("there is no ledger in")), (Some(2), true), "{ran:?}");
    assert_eq!(names(folder.path()), Vec::<String>::new());
}
