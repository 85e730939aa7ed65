//! History that was rewritten, cut short or put back as a whole, with the rest of the database made to fit: nothing in it is
//! wrong by itself any more. What was signed tells, where an administrator of the database cannot reach it.

use std::path::{Path, PathBuf};

use coupon_ledger::clock::{Clock, Zone};
use serde_json::{Value, json};

use crate::archive::{key_of, whole_log};
use crate::harness::{Engine, FRIEND, HOUR, Home, MEMBER, NOON, World, new_database, program};
use crate::leaks::Heard as _;
use crate::log::{with_guards_of, without_guards, without_guards_of};
use crate::outside::count;
use crate::tlog::{follow_all, tick};
use crate::verify::{look, program_verifies, put_secret, quoted, told};

/// What a server that signs has left in its data folder.
fn note_in(home: &Home) -> PathBuf {
    let files = std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut notes = files.filter(|path| path.extension().is_some_and(|ending| ending == "note"));
    notes.next().unwrap()
}

/// A checkpoint that somebody has kept, away from the ledger.
struct Kept(tempfile::TempDir);

impl Kept {
    fn of(home: &Home) -> Self {
        let kept = Self(tempfile::tempdir().unwrap());
        std::fs::copy(note_in(home), kept.path()).unwrap();
        kept
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("kept.note")
    }
}

/// Against the kept checkpoint there is one finding, and this is it.
async fn the_kept_checkpoint_tells(home: &Home, kept: &Kept, says: &str) {
    let kept = kept.path().display().to_string();
    let (code, out, err) = program_verifies(home, &["--checkpoint", &kept]).await;
    let told: Vec<&str> = out.lines().filter(|line| !line.starts_with("up to position ")).collect();
    assert_eq!((code, told), (1, vec![format!("events, against {kept}: {says}").as_str()]), "{err}");
}

async fn nothing_is_found(home: &Home) {
    let (code, out, err) = program_verifies(home, &[]).await;
    assert_eq!((code, out.lines().count()), (0, 1), "{out}{err}");
    let alone = "no checkpoint is known from elsewhere: the database is held against itself only";
    assert!(err.contains(alone), "{err}");
}

/// The data folder's own note tells; without it nothing does, but a checkpoint that somebody has kept.
async fn only_what_was_signed_tells(home: &Home, says: &str) {
    let (code, out, err) = program_verifies(home, &[]).await;
    let told: Vec<&str> = out.lines().filter(|line| !line.starts_with("up to position ")).collect();
    let finding = format!("events, against what was signed last: {says}");
    assert_eq!((code, told), (1, vec![finding.as_str()]), "{err}");
    let (note, kept) = (note_in(home), Kept::of(home));
    std::fs::remove_file(&note).unwrap();
    nothing_is_found(home).await;
    the_kept_checkpoint_tells(home, &kept, says).await;
    std::fs::copy(kept.path(), note).unwrap();
}

/// Makes every tile anew of the events as they are, and leaves no checkpoint that contradicts them.
async fn make_the_tree_fit(world: &World, signed_from: i64) {
    let forget = format!("DELETE FROM tlog_checkpoints WHERE size >= {signed_from}");
    for sql in ["DELETE FROM tlog_tiles", "DELETE FROM checkpoints WHERE name = 'tlog'", &forget] {
        world.home.sql(sql).await.unwrap();
    }
    follow_all(world.store()).await;
    assert_eq!(told(&look(world).await), [] as [&str; 0]);
}

/// What `check` says of an export of this ledger: its exit code, and the rules that are broken.
async fn an_export_is_checked(home: &Home, key: &str, kept: &Kept) -> (Option<i32>, Vec<(Value, Value)>) {
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("export");
    let done = program(home).arg("export").arg("--out").arg(&export).heard().await;
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut check = program(home);
    check.arg("check").arg(&export).args(["--json", "--key", key, "--checkpoint"]).arg(kept.path());
    let done = check.heard().await;
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    (
        done.status.code(),
        findings.map(|finding| (finding["rule"].clone(), finding["position"].clone())).collect(),
    )
}

/// The exit code of a backup or restore, and what is found afterwards.
async fn program_does(home: &Home, verb: &str, file: &Path) -> (Option<i32>, Vec<String>) {
    let done = program(home).arg(verb).arg(file).heard().await;
    let told = String::from_utf8(done.stdout).unwrap();
    let report: Value = serde_json::from_str(told.lines().last().unwrap()).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let words = |finding: &Value| format!("{}: {}", finding["row"], finding["what"]).replace('"', "");
    (done.status.code(), findings.map(words).collect())
}

async fn reopened(home: Home) -> World {
    World::open(home, Clock::manual(NOON + HOUR), Zone::default()).await
}

on_both_engines! {
    async fn an_event_that_was_rewritten_with_row_tiles_and_checkpoints_is_found_by_what_was_signed(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.issue(definition, 442).await;
        tick(&world).await.unwrap().unwrap();
        let (key, signed) = (key_of(&world).await, whole_log(&world).await.len() as i64);
        // Ten dollars become a thousand, in the coupon and on the member's page.
        let log = whole_log(&world).await;
        let event = log.iter().find(|event| event.aggregate_id == id.to_string() && event.event_type == "Issued").unwrap();
        let payload = event.payload.replace("\"deduction_cents\":1000,", "\"deduction_cents\":100000,");
        assert_ne!(payload, event.payload);
        without_guards(&world.home).await;
        for sql in [
            format!("UPDATE events SET payload = {} WHERE position = {}", quoted(&payload), event.position),
            format!("UPDATE wallet_v1 SET deduction_cents = 100000 WHERE coupon_id = {id}"),
        ] {
            world.home.sql(&sql).await.unwrap();
        }
        with_guards_of(&world.home, "events").await;
        make_the_tree_fit(&world, 0).await;
        let home = world.close().await;
        let kept = Kept::of(&home);
        only_what_was_signed_tells(&home, "the events are not those that were signed").await;
        // And nobody but the server's secret can sign the fork: there is no checkpoint of it.
        let other = (json!("consistency"), json!(signed));
        let unsigned = (json!("signature"), Value::Null);
        let checked = an_export_is_checked(&home, &key, &kept).await;
        assert_eq!(checked, (Some(1), vec![other.clone(), unsigned]));

        // Whoever holds the server as well can have the fork signed. Then only who kept something knows.
        std::fs::remove_file(note_in(&home)).unwrap();
        let world = reopened(home).await;
        world.issue(definition, 439).await;
        tick(&world).await.unwrap().unwrap();
        let home = world.close().await;
        let (code, out, err) = program_verifies(&home, &[]).await;
        assert_eq!((code, out.lines().count()), (0, 1), "{out}{err}");
        the_kept_checkpoint_tells(&home, &kept, "the events are not those that were signed").await;
        assert_eq!(an_export_is_checked(&home, &key, &kept).await, (Some(1), vec![other]));
    }

    async fn a_use_that_was_cut_off_the_end_without_a_trace_is_found_by_what_was_signed(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        tick(&world).await.unwrap().unwrap();
        world.home.sql("CREATE TABLE as_it_was AS SELECT * FROM wallet_v1").await.unwrap();
        let use_it = json!({"mem_coupon_id": id, "shop_id": 1});
        world.keyed(MEMBER, "use-it-1", "/client/auditcoupon", use_it).await.ok();
        tick(&world).await.unwrap().unwrap();
        let last = count(&world.home, "SELECT position FROM log_head").await;
        without_guards(&world.home).await;
        without_guards_of(&world.home, "receipts").await;
        for sql in [
            format!("DELETE FROM events WHERE position = {last}"),
            "UPDATE log_head SET position = position - 1, last_ms = (SELECT max(recorded_at_ms) FROM events)".to_owned(),
            format!("DELETE FROM receipts WHERE position = {last}"),
            "DELETE FROM redemptions_v1".to_owned(),
            "DELETE FROM wallet_v1".to_owned(),
            "INSERT INTO wallet_v1 SELECT * FROM as_it_was".to_owned(),
        ] {
            world.home.sql(&sql).await.unwrap();
        }
        with_guards_of(&world.home, "events").await;
        with_guards_of(&world.home, "receipts").await;
        make_the_tree_fit(&world, last).await;
        let home = world.close().await;
        let says = format!("{last} events were signed, and the log has {}: some are gone", last - 1);
        only_what_was_signed_tells(&home, &says).await;
    }

    async fn an_old_backup_in_the_place_of_the_ledger_is_found_by_what_was_signed_since(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        let old = tick(&world).await.unwrap().unwrap().size;
        let folder = tempfile::tempdir().unwrap();
        let backup = folder.path().join("ledger.backup");
        assert_eq!(program_does(&world.home, "backup", &backup).await, (Some(0), Vec::new()));
        let old_note = Kept::of(&world.home);
        for _ in 0..3 {
            let id = world.issue(definition, 439).await;
            let code = world.give(MEMBER, id).await;
            world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        }
        let size = tick(&world).await.unwrap().unwrap().size;
        let home = world.close().await;
        let (name, kept) = (note_in(&home), Kept::of(&home));
        let gone = format!("{size} events were signed, and the log has {old}: some are gone");

        // The database alone is old.
        let home = match engine {
            Engine::Sqlite => {
                for ending in ["", "-wal", "-shm"] {
                    let _ = std::fs::remove_file(home.path().join(format!("ledger.db{ending}")));
                }
                home
            }
            Engine::Postgres => Home { database_url: Some(new_database().await), ..home },
        };
        // Whoever restores it is told at once.
        let told = vec![format!("against what was signed last: {gone}")];
        assert_eq!(program_does(&home, "restore", &backup).await, (Some(1), told));
        only_what_was_signed_tells(&home, &gone).await;
        // Nor when it has grown beyond, by another history.
        let world = reopened(home).await;
        for _ in old..=size {
            world.issue(definition, 442).await;
        }
        follow_all(world.store()).await;
        let home = world.close().await;
        only_what_was_signed_tells(&home, "the events are not those that were signed").await;

        // All of it is old, with what was signed last by then: only who has kept something newer knows.
        let elsewhere = Home::new(engine).await;
        put_secret(&elsewhere);
        assert_eq!(program_does(&elsewhere, "restore", &backup).await, (Some(0), Vec::new()));
        std::fs::copy(home.person_keys_file(), elsewhere.person_keys_file()).unwrap();
        std::fs::copy(old_note.path(), elsewhere.path().join(name.file_name().unwrap())).unwrap();
        let (code, out, err) = program_verifies(&elsewhere, &[]).await;
        assert_eq!((code, out.lines().count()), (0, 1), "{out}{err}");
        the_kept_checkpoint_tells(&elsewhere, &kept, &gone).await;
    }
}
