//! Taking the log away and into another ledger: the same streams, the same answers, proven by digest.

use std::collections::BTreeSet;
use std::path::Path;

use coupon_ledger::audit::check::{Trusted, check_export};
use coupon_ledger::audit::export::{ExportError, Wanted, export};
use coupon_ledger::audit::takeover::{Step, TakeoverError, take_over};
use coupon_ledger::audit::{feed, leaf};
use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::Coupon;
use coupon_ledger::provenance::{ImportedFrom, Provenance};
use coupon_ledger::store::{self, Store, StoredEvent};
use serde_json::{Value, json};

use crate::archive::{
    Copy, Life, assert_sound, export_part, export_whole, full_life, sign_log, trusted, whole_log,
};
use crate::harness::{Engine, FRIEND, Home, MEMBER, World, program};
use crate::leaks::Heard as _;
use crate::replay::assert_rows_equal_replay;

fn other(engine: Engine) -> Engine {
    match engine {
        Engine::Sqlite => Engine::Postgres,
        Engine::Postgres => Engine::Sqlite,
    }
}

/// Takes an export over into a new ledger on an engine.
async fn import(engine: Engine, folder: &Path, of: &World) -> World {
    let home = Home::new(engine).await;
    let options = home.store_options(&of.secrets, of.clock.now_ms());
    let store = store::open_for_takeover(&options).await.unwrap();
    take_over(&store, folder, &trusted(of).await, of.clock.now_ms(), |_| {}).await.unwrap();
    store.close().await;
    let world = World::open(home, of.clock.clone(), Zone::default()).await;
    // The directory is not in the log.
    for (id, nickname) in [(439, "小明"), (442, "黃明波")] {
        let body = json!({"id": id, "nickname": nickname, "headimgurl": "http://p/132"});
        world.operator("/member/add", body).await.ok();
    }
    world
}

/// Begins to take an export over and is cut off as hard as can be: the future is dropped when the live tables are to be
/// written.
async fn cut_off(store: &Store, path: &Path, trust: &Trusted, now_ms: i64) {
    let (reached, cut) = tokio::sync::oneshot::channel();
    let mut reached = Some(reached);
    let importing = take_over(store, path, trust, now_ms, |step| {
        if matches!(step, Step::Written(_))
            && let Some(reached) = reached.take()
        {
            reached.send(()).unwrap();
        }
    });
    tokio::select! {
        biased;
        _ = cut => {}
        done = importing => panic!("{done:?}"),
    }
}

/// What members see of their coupons.
async fn pages(world: &World, life: &Life) -> Vec<Value> {
    let mut pages = Vec::new();
    for caller in [MEMBER, FRIEND] {
        for state in 0..3 {
            pages.push(world.call(caller, "/client/couponlist", json!({"state": state})).await.body);
        }
        pages.push(world.call(caller, "/client/couponinfo", json!({"id": life.used})).await.body);
    }
    for (route, body) in [
        ("/elecoupons/getlist", json!({})),
        ("/shop/list", json!({})),
        ("/business/list", json!({})),
        ("/order/list", json!({})),
        ("/auditelecoupon/getlist", json!({})),
        ("/statistics/getattract", json!({"business_id": 2})),
    ] {
        let reply = world.operator(route, body).await;
        assert_eq!(reply.code(), 0, "{route}: {}", reply.body);
        pages.push(reply.body);
    }
    pages.iter_mut().for_each(without_directory);
    pages
}

/// What is not in the log, and so in no export: names, and the texts of reviews.
fn without_directory(page: &mut Value) {
    match page {
        Value::Object(fields) => {
            fields.retain(|name, _| !["evaluation", "user_name"].contains(&name.as_str()));
            fields.values_mut().for_each(without_directory);
        }
        Value::Array(values) => values.iter_mut().for_each(without_directory),
        _ => {}
    }
}

/// Everything about an event but its position.
fn placeless(event: &StoredEvent) -> StoredEvent {
    StoredEvent { position: 0, ..event.clone() }
}

on_both_engines! {
    async fn an_export_becomes_the_same_ledger_on_the_other_engine(engine: Engine) {
        let world = World::empty(engine).await;
        let life = full_life(&world).await;
        let folder = tempfile::tempdir().unwrap();
        // Looking at a coupon for the first time is an event itself.
        pages(&world, &life).await;
        let before = pages(&world, &life).await;
        let first = export_whole(&world, &folder.path().join("first")).await;

        let moved = import(other(engine), &folder.path().join("first"), &world).await;
        assert_rows_equal_replay(&moved).await;
        // Before anybody reads it: whom a page shows is told by each server for itself.
        let second = export_whole(&moved, &folder.path().join("second")).await;
        let (old, new) = (whole_log(&world).await, whole_log(&moved).await);
        assert_eq!(pages(&moved, &life).await, before);
        // A member of whom nothing is left but that he was erased: nobody else gets his number.
        let next = moved.home.sql("SELECT next_id FROM id_blocks WHERE kind = 'member'").await.unwrap();
        assert!(next[0].parse::<i64>().unwrap() > 900, "{next:?}");
        // An old key answers what it answered.
        let body = json!({"mem_coupon_id": life.used, "shop_id": 1});
        let again = moved.keyed(FRIEND, "second-use", "/client/auditcoupon", body).await;
        assert_eq!((again.replayed(), again.body), (true, life.again.clone()));

        assert_eq!(second.digest, first.digest);
        assert_eq!(second.receipts, first.receipts);
        let shifted: Vec<StoredEvent> = new[1..].iter().map(placeless).collect();
        assert_eq!(shifted, old.iter().map(placeless).collect::<Vec<_>>());
        let copies = ["first", "second"].map(|name| Copy::of(&folder.path().join(name)));
        let [lines, moved_lines] = copies.each_ref().map(|copy| copy.lines("events-1.ndjson.zst"));
        for (number, (line, event)) in (1..).zip(lines.iter().zip(&old)) {
            let behind = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap().split_once(',').unwrap().1.to_owned();
            assert_eq!(feed::line(event).unwrap().as_bytes(), line);
            assert_eq!(behind(&moved_lines[number]), behind(line));
        }

        // The first event names the source, and what it held.
        let signed = sign_log(&world).await;
        let note = moved.ledger.load::<Provenance>(2).await.unwrap().0.imported_from.unwrap();
        let expected = ImportedFrom {
            origin: first.origin.clone(),
            size: old.len() as i64,
            root: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signed.root.0),
            checkpoint: signed.note,
            digest: first.digest.clone(),
            at_ms: world.clock.now_ms(),
        };
        assert_eq!(note, expected);
        assert_ne!(second.origin, first.origin);
        assert_eq!(new[0].recorded_at_ms, old[0].recorded_at_ms);
        assert_sound(&moved).await;
        // And it lives on: new ids lie above the old ones, time does not go back.
        let definition = moved.define(json!({})).await;
        let coupon = moved.issue(definition, 439).await;
        let ids = |log: &[StoredEvent], kind: &str| -> BTreeSet<i64> {
            let of_kind = log.iter().filter(|event| event.aggregate_type == kind);
            of_kind.map(|event| event.aggregate_id.parse().unwrap()).collect()
        };
        assert!(!ids(&old, "definition").contains(&definition) && !ids(&old, "coupon").contains(&coupon));
        assert_sound(&moved).await;

        // A ledger that was imported is exported and imported like any other.
        export_whole(&moved, &folder.path().join("third")).await;
        let again = import(engine, &folder.path().join("third"), &moved).await;
        let kinds: Vec<String> =
            whole_log(&again).await[..2].iter().map(|event| format!("{} {}", event.aggregate_id, event.event_type)).collect();
        assert_eq!(kinds, ["3 ImportedFrom", "2 ImportedFrom"]);
        assert_sound(&again).await;
        // Also a part of it that begins with one of those notes.
        export_part(&again, &folder.path().join("part"), 2, None).await;
        let report = check_export(&folder.path().join("part"), &trusted(&again).await, |_| {}).unwrap();
        assert_eq!(report.findings, []);
        assert!(report.notes.contains(&"what was imported at position 2 is not counted in a part".to_owned()));
        for world in [world, moved, again] {
            world.close().await;
        }
    }

    async fn every_type_of_event_has_happened_in_the_world_that_is_tampered_with(engine: Engine) {
        let world = World::empty(engine).await;
        full_life(&world).await;
        let log = whole_log(&world).await;
        let happened: BTreeSet<(String, String)> =
            log.iter().map(|event| (event.aggregate_type.clone(), event.event_type.clone())).collect();
        let golden = std::fs::read_to_string("tests/it/golden/events.ndjson").unwrap();
        let golden: BTreeSet<(String, String)> = golden
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|line| ["aggregate_type", "event_type"].map(|name| line[name].as_str().unwrap().to_owned()).into())
            .collect();
        // That nobody approves something takes longer than this life.
        let elsewhere = |kind: &str, name: &str| kind == "ledger" || (kind, name) == ("approval", "Expired");
        let missing: Vec<_> = golden.difference(&happened).filter(|(kind, name)| !elsewhere(kind, name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_sound(&world).await;
        world.close().await;
    }

    async fn every_event_ever_written_survives_the_way(engine: Engine) {
        let world = World::empty(engine).await;
        let golden = std::fs::read_to_string("tests/it/golden/events.ndjson").unwrap();
        // The note of an import stands where an import has written it, and nowhere else.
        let lines: Vec<&str> = golden.lines().filter(|line| !line.contains("ImportedFrom")).collect();
        for (number, line) in (1..).zip(&lines) {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().replace('\'', "''");
            let metadata = json!({"append_id": format!("{number:032x}")});
            let values = format!(
                "0, {number}, '{}', '{}', 1, '{}', '{}', '{}', '{metadata}', 5",
                text("aggregate_type"), number + 100, text("event_type"), text("event_version"), text("payload"),
            );
            let insert = "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type,
                          event_version, payload, metadata, recorded_at_ms)";
            world.home.sql(&format!("{insert} VALUES ({values})")).await.unwrap();
            world.home.sql(&format!("UPDATE log_head SET position = {number}, last_ms = 5")).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        export_whole(&world, &folder.path().join("export")).await;
        let moved = import(other(engine), &folder.path().join("export"), &world).await;
        let (old, new) = (whole_log(&world).await, whole_log(&moved).await);
        assert_eq!(old.len(), lines.len());
        let shifted: Vec<StoredEvent> = new[1..].iter().map(placeless).collect();
        assert_eq!(shifted, old.iter().map(placeless).collect::<Vec<_>>());
        world.close().await;
        moved.close().await;
    }

    async fn a_part_of_the_log_is_proven_like_the_whole(engine: Engine) {
        let world = World::empty(engine).await;
        full_life(&world).await;
        let last = whole_log(&world).await.len() as i64;
        let folder = tempfile::tempdir().unwrap();
        let trusted = trusted(&world).await;
        for (number, (from, to)) in [(1, 7), (2, 2), (9, 40), (33, last), (last, last)].into_iter().enumerate() {
            let path = folder.path().join(number.to_string());
            let manifest = export_part(&world, &path, from, Some(to)).await;
            assert_eq!((manifest.from, manifest.to), (from, to));
            let report = check_export(&path, &trusted, |_| {}).unwrap();
            assert_eq!((report.findings, report.events), (vec![], to - from + 1), "{from} to {to}");
        }
        world.close().await;
    }

    async fn an_import_that_was_cut_off_is_no_ledger_until_it_is_finished(engine: Engine) {
        let world = World::empty(engine).await;
        let life = full_life(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        export_whole(&world, &path).await;
        let before = pages(&world, &life).await;

        let home = Home::new(engine).await;
        let options = home.store_options(&world.secrets, world.clock.now_ms());
        let now_ms = world.clock.now_ms();
        let store = store::open_for_takeover(&options).await.unwrap();
        let trust = trusted(&world).await;
        cut_off(&store, &path, &trust, now_ms).await;
        store.close().await;

        for refused in [store::open(&options).await, store::open_read_only(&options).await] {
            let said = refused.err().unwrap().to_string();
            assert!(said.contains("is not finished"), "{said}");
        }
        let another = folder.path().join("another");
        export_part(&world, &another, 1, Some(5)).await;
        let store = store::open_for_takeover(&options).await.unwrap();
        let refused = take_over(&store, &another, &trust, now_ms, |_| {}).await.unwrap_err();
        assert!(matches!(refused, TakeoverError::AnotherExport), "{refused}");
        let done = take_over(&store, &path, &trust, now_ms, |_| {}).await.unwrap();
        assert!(done.resumed);
        let refused = take_over(&store, &path, &trust, now_ms, |_| {}).await.unwrap_err();
        assert!(matches!(refused, TakeoverError::NotEmpty), "{refused}");
        store.close().await;

        let moved = World::open(home, world.clock.clone(), Zone::default()).await;
        for (id, nickname) in [(439, "小明"), (442, "黃明波")] {
            let body = json!({"id": id, "nickname": nickname, "headimgurl": "http://p/132"});
            moved.operator("/member/add", body).await.ok();
        }
        assert_eq!(pages(&moved, &life).await, before);
        assert_rows_equal_replay(&moved).await;
        assert_sound(&moved).await;
        world.close().await;
        moved.close().await;
    }

    async fn an_import_whose_rows_somebody_changed_while_it_was_cut_off_stays_nobodys(engine: Engine) {
        let world = World::with_people(engine).await;
        world.issue(world.define(json!({})).await, 439).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        export_whole(&world, &path).await;
        let home = Home::new(engine).await;
        let now_ms = world.clock.now_ms();
        let options = home.store_options(&world.secrets, now_ms);
        let store = store::open_for_takeover(&options).await.unwrap();
        let trust = trusted(&world).await;
        cut_off(&store, &path, &trust, now_ms).await;
        crate::log::without_guards(&home).await;
        home.sql("UPDATE events SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 4").await.unwrap();
        for _ in 0..2 {
            let refused = take_over(&store, &path, &trust, now_ms, |_| {}).await.unwrap_err();
            assert!(matches!(refused, TakeoverError::Altered), "{refused}");
        }
        store.close().await;
        let said = store::open(&options).await.err().unwrap().to_string();
        assert!(said.contains("is not finished"), "{said}");
        world.close().await;
    }

    async fn an_event_that_was_changed_after_it_was_hashed_is_named(engine: Engine) {
        let world = World::with_people(engine).await;
        world.issue(world.define(json!({})).await, 439).await;
        sign_log(&world).await;
        // One more, which is in no tile yet.
        let definition = world.define(json!({})).await;
        crate::log::without_guards(&world.home).await;
        world.home.sql("UPDATE events SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 3").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let wanted = Wanted { secrets: Some(world.secrets.clone()), ..Wanted::default() };
        export(world.store(), &wanted, &folder.path().join("signed"), |_, _| {}).await.unwrap();
        let report = check_export(&folder.path().join("signed"), &trusted(&world).await, |_| {}).unwrap();
        let found: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["position 3, coupon/1: the event is not what was signed (leaf)"]);
        let wanted = Wanted { unsigned: true, ..wanted };
        export(world.store(), &wanted, &folder.path().join("unsigned"), |_, _| {}).await.unwrap();
        let leaves = std::fs::read(folder.path().join("unsigned/leaves.bin")).unwrap();
        let last = whole_log(&world).await.pop().unwrap();
        assert_eq!((last.aggregate_id.as_str(), leaves.len()), (definition.to_string().as_str(), 4 * 32));
        assert_eq!(leaves[3 * 32..], leaf::hash(&last).0);
        world.close().await;
    }

    async fn a_server_on_a_ledger_that_is_taken_over_is_refused(engine: Engine) {
        let world = World::with_people(engine).await;
        let folder = tempfile::tempdir().unwrap();
        export_whole(&world, &folder.path().join("export")).await;
        let running = World::empty(engine).await;
        assert!(running.store().begin_takeover("an export").await.unwrap());
        let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
        assert_ne!(running.operator("/shop/add", shop).await.code(), 0);
        assert_eq!(whole_log(&running).await, []);
        // And a ledger that is in use is not taken over.
        assert!(!world.store().begin_takeover("an export").await.unwrap());
        world.issue(world.define(json!({})).await, 439).await;
        world.close().await;
        running.close().await;
    }

    async fn an_export_that_is_damaged_is_not_taken_over_and_writes_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        world.issue(world.define(json!({})).await, 439).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        export_whole(&world, &path).await;
        let copy = Copy::of(&path);
        let mut lines = copy.lines("events-1.ndjson.zst");
        let place = lines[2].len() - 40;
        lines[2][place] ^= 1;
        copy.set_lines("events-1.ndjson.zst", &lines);
        let home = Home::new(engine).await;
        let options = home.store_options(&world.secrets, world.clock.now_ms());
        let store = store::open_for_takeover(&options).await.unwrap();
        let trust = trusted(&world).await;
        let refused = take_over(&store, copy.path(), &trust, 0, |_| {}).await.unwrap_err().to_string();
        assert!(refused.contains("damaged") && refused.contains("position 3"), "{refused}");
        let part = folder.path().join("part");
        export_part(&world, &part, 2, None).await;
        let refused = take_over(&store, &part, &trust, 0, |_| {}).await.unwrap_err().to_string();
        assert_eq!(refused, "the export begins at position 2: only one from position 1 on can be taken over");
        assert_eq!((store.takeover().await.unwrap(), store.events_after(0, 9).await.unwrap()), (None, vec![]));
        store.close().await;
        world.close().await;
    }

    async fn what_cannot_be_exported_is_said_and_leaves_nothing(engine: Engine) {
        let world = World::empty(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        let attempt = async |from: Option<i64>, to: Option<i64>, unsigned: bool, path: &Path| {
            let wanted = Wanted { from, to, unsigned, secrets: None };
            let exported = export(world.store(), &wanted, path, |_, _| {}).await;
            exported.map_err(|error| error.to_string())
        };
        assert_eq!(
            attempt(None, None, false, &path).await.unwrap_err(),
            "there are no positions from 1 to 0: the log ends at 0"
        );
        world.add_people().await;
        // Where nothing was ever signed, the export goes to the end and proves nothing.
        let manifest = attempt(None, None, false, &path).await.unwrap();
        assert_eq!((manifest.to, manifest.proof), (1, None));
        let report = check_export(&path, &Trusted::default(), |_| {}).unwrap();
        assert_eq!((report.findings, report.notes), (vec![], vec!["nothing proves that the events are what was signed".to_owned()]));
        sign_log(&world).await;
        world.define(json!({})).await;
        for (from, to, unsigned, said) in [
            (None, Some(2), false, "position 2 is not signed yet: the last checkpoint covers 1; end there, or export what \
                                    nothing proves with --unsigned"),
            (Some(0), None, false, "there are no positions from 0 to 1: the log ends at 2"),
            (Some(2), Some(1), false, "there are no positions from 2 to 1: the log ends at 2"),
            (None, Some(3), true, "there are no positions from 1 to 3: the log ends at 2"),
        ] {
            let other = folder.path().join("other");
            assert_eq!(attempt(from, to, unsigned, &other).await.unwrap_err(), said);
        }
        assert_eq!(attempt(None, None, true, &folder.path().join("unsigned")).await.unwrap().to, 2);
        let there = attempt(None, None, false, &path).await.unwrap_err();
        assert_eq!(there, format!("{} is there already", path.display()));
        let nowhere = attempt(None, None, false, &folder.path().join("no/where")).await.unwrap_err();
        assert!(nowhere.starts_with("cannot write ") && nowhere.ends_with("No such file or directory (os error 2)"));
        let mut names: Vec<String> = std::fs::read_dir(folder.path()).unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        assert_eq!(names, ["export", "unsigned"]);
        world.close().await;
    }

    async fn a_log_with_a_hole_is_not_exported(engine: Engine) {
        let world = World::with_people(engine).await;
        world.issue(world.define(json!({})).await, 439).await;
        sign_log(&world).await;
        crate::log::without_guards(&world.home).await;
        world.home.sql("DELETE FROM events WHERE position = 2").await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("export");
        let refused = export(world.store(), &Wanted::default(), &path, |_, _| {}).await.unwrap_err();
        assert!(matches!(&refused, ExportError::Damaged(what) if what == "position 2 of the log is missing"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        world.close().await;
    }

    async fn the_program_exports_beside_a_running_ledger_and_imports_into_a_new_one(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        sign_log(&world).await;
        std::fs::write(world.home.path().join("secret.key"), "2a".repeat(32)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("export");
        // The ledger is open while it is exported.
        let done = program(&world.home).arg("export").arg("--out").arg(&out).heard().await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!((&told["from"], &told["to"]), (&json!(1), &json!(3)));
        let again = program(&world.home).arg("export").arg("--out").arg(&out).heard().await;
        assert_eq!(again.status.code(), Some(2));
        let said = String::from_utf8(again.stderr).unwrap();
        assert_eq!(said, format!("coupon-ledger: {} is there already\n", out.display()));

        let home = Home::new(other(engine)).await;
        std::fs::write(home.path().join("secret.key"), "2a".repeat(32)).unwrap();
        let run = async |home: &Home| program(home).args(["import", "export"]).arg(&out).heard().await;
        let done = run(&home).await;
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let told: Value = serde_json::from_slice(&done.stdout).unwrap();
        assert_eq!(told["events"], 3);
        let twice = run(&home).await;
        assert_eq!(twice.status.code(), Some(2));
        let said = String::from_utf8(twice.stderr).unwrap();
        assert_eq!(said, "coupon-ledger: this ledger is not empty: an export is taken over into a new one\n");
        let moved = World::open(home, world.clock.clone(), Zone::default()).await;
        let (coupon, _) = moved.ledger.load::<Coupon>(id).await.unwrap();
        assert_eq!(coupon.holder_id, 439);
        world.close().await;
        moved.close().await;
    }
}
