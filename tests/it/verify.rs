//! Verify finds whatever an administrator of the database changes, names it, and finds nothing where nothing was changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::audit::verify::{Finding, State, Totals, Trusted, verify};
use coupon_ledger::audit::{checkpoint, leaf};
use coupon_ledger::store::{Column, StoredEvent};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::everything::everything;
use crate::harness::{Engine, FRIEND, Home, INSERT_MEMBERS, MEMBER, World, program};
use crate::leaks::Heard as _;
use crate::log::{with_guards_of, without_guards, without_guards_of};
use crate::outside::count;

/// Hashes the log into tiles and signs it, as plainly as the specifications say: level by level, all of it.
pub async fn signed(world: &World) {
    let log = world.store().events_after(0, i64::MAX).await.unwrap();
    let node = |left: &[u8], right: &[u8]| Sha256::digest([&[1], left, right].concat()).to_vec();
    let root = |hashes: &[Vec<u8>]| {
        let mut level = hashes.to_vec();
        while level.len() > 1 {
            level = level
                .chunks(2)
                .map(|pair| if let [l, r] = pair { node(l, r) } else { pair[0].clone() })
                .collect();
        }
        level.remove(0)
    };
    let leaves: Vec<Vec<u8>> = log.iter().map(|event| leaf::hash(event).0.to_vec()).collect();
    let mut insert = Vec::new();
    let (mut level, mut hashes) = (0, leaves.clone());
    while !hashes.is_empty() {
        for (index, tile) in hashes.chunks(256).enumerate() {
            let (width, bytes) = (tile.len(), STANDARD.encode(tile.concat()));
            insert.push(format!("INSERT INTO tlog_tiles VALUES (0, {level}, {index}, {width}, '{bytes}')"));
        }
        hashes = hashes.chunks_exact(256).map(root).collect();
        level += 1;
    }
    let size = leaves.len();
    insert.push(format!("INSERT INTO checkpoints VALUES (0, 'tlog', {size})"));
    let origin = world.store().origin().await.unwrap().unwrap();
    let root = tlog_tiles::Hash(root(&leaves).try_into().unwrap());
    let keys = [1, 2].map(|generation| world.secrets.checkpoint_key(generation));
    let note = checkpoint::sign(&origin, size as u64, root, &keys).unwrap().note;
    insert.push(format!("INSERT INTO tlog_checkpoints VALUES (0, {size}, '{root}', '{note}', 0)"));
    for statement in insert {
        world.home.sql(&statement).await.unwrap();
    }
}

pub async fn trusted(world: &World) -> Trusted {
    let trusted = Trusted::of_secret(world.store(), &world.secrets).await.unwrap();
    Trusted { seal: Some(world.ledger.seal().clone()), ..trusted }
}

pub async fn look(world: &World) -> Totals {
    verify(world.store(), &trusted(world).await, 2, None, |_| {}).await.unwrap()
}

/// The findings in words, but for the guards that a test took off itself.
pub fn told(totals: &Totals) -> Vec<String> {
    totals.findings.iter().filter(|finding| !is_guard(finding)).map(ToString::to_string).collect()
}

fn is_guard(finding: &Finding) -> bool {
    finding.row.starts_with("trigger ")
}

/// The tests' root secret, as a file where the program looks for it.
pub fn put_secret(home: &Home) {
    std::fs::write(home.path().join("secret.key"), "2a".repeat(32)).unwrap();
}

/// What `coupon-ledger verify` comes to: its exit code, what it found, what it said.
pub async fn program_verifies(home: &Home, more: &[&str]) -> (i32, String, String) {
    put_secret(home);
    let output = program(home).arg("verify").args(more).heard().await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Does damage, looks, and undoes it; the findings, but for guards that were taken off.
pub async fn damaged(world: &World, damage: &str, undo: &str) -> Vec<Finding> {
    world.home.sql(damage).await.unwrap_or_else(|error| panic!("{damage}: {error}"));
    let totals = look(world).await;
    assert_eq!(totals.wrong as usize, totals.findings.len(), "{damage}");
    world.home.sql(undo).await.unwrap_or_else(|error| panic!("{undo}: {error}"));
    let findings = totals.findings.into_iter();
    findings.filter(|finding| !is_guard(finding)).collect()
}

/// A text with one character replaced by another that the column can hold.
pub fn flipped(text: &str, at: usize) -> String {
    text.chars()
        .enumerate()
        .map(|(place, letter)| match letter {
            _ if place != at => letter,
            '0'..='8' | 'a'..='y' | 'A'..='Y' => char::from(letter as u8 + 1),
            '9' => '8',
            _ => 'x',
        })
        .collect()
}

/// SQL: a column's text with another character at a place.
pub fn with_another(column: &str, place: usize) -> String {
    format!(
        "substr({column}, 1, {}) || CASE substr({column}, {place}, 1) WHEN 'A' THEN 'B' ELSE 'A' END || substr({column}, {})",
        place - 1,
        place + 1
    )
}

pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

on_both_engines! {
    async fn a_ledger_in_which_everything_has_happened_is_sound(engine: Engine) {
        let world = everything(engine).await;
        let unsigned = look(&world).await;
        assert_eq!((told(&unsigned), unsigned.hashed, unsigned.signed), (Vec::new(), 0, 0));
        signed(&world).await;
        let totals = look(&world).await;
        assert_eq!((told(&totals), totals.wrong), (Vec::new(), 0));
        assert_eq!((totals.hashed, totals.signed), (totals.events, totals.events));
        // Whose signature it is nobody can tell who has no key.
        let nobody = verify(world.store(), &Trusted::default(), 1, None, |_| {}).await.unwrap();
        assert_eq!((nobody.hashed, nobody.signed), (totals.events, 0));
        let events = count(&world.home, "SELECT count(*) FROM events").await;
        let streams = "SELECT count(*) FROM (SELECT DISTINCT aggregate_type, aggregate_id FROM events) AS s";
        assert_eq!((totals.events as i64, totals.streams as i64), (events, count(&world.home, streams).await));
        assert_eq!(totals.receipts as i64, count(&world.home, "SELECT count(*) FROM receipts").await);
        world.close().await;
    }

    async fn every_changed_column_of_an_event_is_found_at_its_position(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        without_guards(&world.home).await;
        let log = world.store().events_after(0, i64::MAX).await.unwrap();
        // Every event, one column of it after the other by turns; each event's name and payload in a place that moves along.
        for (number, event) in log.iter().enumerate() {
            let StoredEvent { position, .. } = event;
            let (column, old) = match number % 6 {
                0 => ("payload", &event.payload),
                1 => ("event_type", &event.event_type),
                2 => ("metadata", &event.metadata),
                3 => ("event_version", &event.event_version),
                4 => ("aggregate_id", &event.aggregate_id),
                _ => ("aggregate_type", &event.aggregate_type),
            };
            // Inside a text or a number: PostgreSQL takes no payload that is not JSON.
            let digits: Vec<usize> =
                old.chars().enumerate().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at).collect();
            let at = if digits.is_empty() { number % old.len() } else { digits[number * 7 % digits.len()] };
            let set = |value: &str| {
                format!("UPDATE events SET {column} = {} WHERE position = {position}", quoted(value))
            };
            // Another stream's place may be taken; one that nobody has is not.
            let new = if column == "aggregate_id" { format!("{old}7") } else { flipped(old, at) };
            let found = damaged(&world, &set(&new), &set(old)).await;
            let named = found.iter().find(|finding| finding.position == *position && finding.table == "events");
            assert!(named.is_some(), "{column} of {position}: {found:?}");
        }
        for event in log.iter().step_by(9) {
            let StoredEvent { position, recorded_at_ms, sequence, .. } = event;
            for (column, old) in [("recorded_at_ms", recorded_at_ms), ("sequence", sequence)] {
                let set = |value: i64| format!("UPDATE events SET {column} = {value} WHERE position = {position}");
                let found = damaged(&world, &set(old + 1_000), &set(*old)).await;
                assert!(found.iter().any(|finding| finding.position == *position), "{column} of {position}: {found:?}");
            }
        }
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn events_that_are_gone_moved_doubled_or_invented_are_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        without_guards(&world.home).await;
        let last = count(&world.home, "SELECT position FROM log_head").await;
        let columns = "aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata, recorded_at_ms";
        let copy = |from: i64, to: &str| {
            format!("INSERT INTO events (bucket, position, {columns}) SELECT {to}, {columns} FROM events
                     WHERE bucket = 0 AND position = {from}")
        };
        let middle = last / 2;
        world.home.sql(&format!("CREATE TABLE kept AS SELECT * FROM events WHERE position IN ({middle}, {last})"))
            .await.unwrap();
        let restore = "INSERT INTO events SELECT * FROM kept WHERE position NOT IN
                       (SELECT position FROM events WHERE bucket = 0)";
        // A receipt that covers it may be named before it.
        let first = |found: &[Finding]| {
            let event = found.iter().find(|finding| finding.table == "events");
            event.map(|finding| (finding.position, finding.table.clone()))
        };
        // One in the middle, and the last with the head put back: what was signed tells.
        let gone = damaged(&world, &format!("DELETE FROM events WHERE position = {middle}"), restore).await;
        // What follows from it may be missed at an earlier event, the last that is left of its stream.
        assert!(gone.iter().any(|finding| finding.position == middle && finding.table == "events"), "{gone:?}");
        world.home.sql(&format!("DELETE FROM events WHERE position = {last}")).await.unwrap();
        let back = format!(
            "UPDATE log_head SET position = {}, last_ms = (SELECT max(recorded_at_ms) FROM events)", last - 1
        );
        let kept_ms = count(&world.home, "SELECT last_ms FROM log_head").await;
        let forth = format!("UPDATE log_head SET position = {last}, last_ms = {kept_ms}");
        let truncated = damaged(&world, &back, &forth).await;
        assert!(
            truncated.iter().any(|finding| finding.table == "tlog_checkpoints" && finding.what.contains("some are gone")),
            "{truncated:?}"
        );
        world.home.sql(restore).await.unwrap();
        // Two that have changed places.
        let swap = |one: i64, other: i64| {
            format!("UPDATE events SET position = CASE position WHEN {one} THEN {other} ELSE {one} END + 1000000
                     WHERE position IN ({one}, {other})")
        };
        world.home.sql(&swap(5, 6)).await.unwrap();
        let settle = "UPDATE events SET position = position - 1000000 WHERE position > 1000000";
        world.home.sql(settle).await.unwrap();
        let swapped = look(&world).await.findings;
        assert_eq!(first(&swapped), Some((5, "events".to_owned())), "{swapped:?}");
        world.home.sql(&swap(5, 6)).await.unwrap();
        world.home.sql(settle).await.unwrap();
        // One that was invented behind the last, without and with the head; a stream in another bucket.
        let invented = copy(last, &format!("0, {}", last + 1)).replace("sequence, event_type", "sequence + 1, event_type")
            .replacen("sequence + 1, event_type", "sequence, event_type", 1);
        let remove = format!("DELETE FROM events WHERE position > {last}");
        let beyond = damaged(&world, &invented, &remove).await;
        assert!(beyond.iter().any(|finding| finding.position == last + 1), "{beyond:?}");
        let stray = damaged(&world, &copy(middle, &format!("1, {middle}")), "DELETE FROM events WHERE bucket = 1").await;
        let words: Vec<String> = stray.iter().map(ToString::to_string).collect();
        let of_position = format!("position {middle}: events, bucket 1, position {middle}: ");
        assert!(words[0].starts_with(&of_position) && words[0].ends_with(" lies in no bucket of this ledger"), "{words:?}");
        assert_eq!(words[1..], ["events, other buckets: 1 rows lie in a bucket that this ledger does not have"]);
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn an_event_where_nobody_who_reads_by_position_meets_it_is_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        without_guards(&world.home).await;
        let born = count(&world.home, "SELECT min(position) FROM events WHERE event_type = 'Issued'").await;
        for position in [0_i64, -7, 1_000_000_000_000] {
            let forged = format!(
                "INSERT INTO events (bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version,
                                     payload, metadata, recorded_at_ms)
                 SELECT 0, {position}, 'coupon', '7777777', 1, event_type, event_version, payload, metadata, recorded_at_ms
                 FROM events WHERE bucket = 0 AND position = {born}"
            );
            let found = damaged(&world, &forged, "DELETE FROM events WHERE aggregate_id = '7777777'").await;
            let row = format!("position {position}");
            assert!(found.iter().any(|finding| finding.table == "events" && finding.row == row), "{position}: {found:?}");
            let in_stream = found.iter().any(|finding| finding.row == "coupon 7777777 event 1");
            assert_eq!(in_stream, position < 1, "{position}: {found:?}");
        }
        world.close().await;
    }

    async fn a_receipt_that_no_event_names_is_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        // Events that were written without a key, one by itself, and a place where there is none.
        let log = world.store().events_after(0, i64::MAX).await.unwrap();
        let bare = log.iter().find(|event| !event.metadata.contains("receipts_hash")).unwrap().position;
        for (operation, position) in [("order_no", bare), ("/client/claimcoupon", bare), ("order_no", 1_000_000)] {
            let forged = format!("INSERT INTO receipts VALUES (0, 'till', '{operation}', 'T-77', 'mac', {position}, 1)");
            let found = damaged(&world, &forged, "SELECT 1").await;
            let named: Vec<_> = found.iter().map(|finding| (finding.position, finding.table.as_str())).collect();
            assert_eq!(named, [(position, "receipts")], "{found:?}");
            match engine {
                Engine::Postgres => {
                    world.home.sql("ALTER TABLE receipts DISABLE TRIGGER USER").await.unwrap();
                    world.home.sql("DELETE FROM receipts WHERE caller = 'till'").await.unwrap();
                    world.home.sql("ALTER TABLE receipts ENABLE TRIGGER USER").await.unwrap();
                }
                Engine::Sqlite => {
                    let delete = "receipts_are_append_only_delete";
                    let trigger = format!("SELECT sql FROM sqlite_master WHERE name = '{delete}'");
                    let trigger = world.home.sql(&trigger).await.unwrap().remove(0);
                    world.home.sql(&format!("DROP TRIGGER {delete}")).await.unwrap();
                    world.home.sql("DELETE FROM receipts WHERE caller = 'till'").await.unwrap();
                    world.home.sql(&trigger).await.unwrap();
                }
            }
        }
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn every_live_table_counter_and_receipt_is_held_against_the_events(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        for table in coupon_ledger::read_model::LIVE_TABLES {
            for (place, column) in table.columns.iter().enumerate() {
                let (name, key) = (column.name(), place < table.key_columns);
                let other = match column {
                    coupon_ledger::store::Column::Int(_) => format!("{name} + 700"),
                    coupon_ledger::store::Column::Text(_) => format!("{name} || 'x'"),
                };
                let back = match column {
                    coupon_ledger::store::Column::Int(_) => format!("{name} - 700"),
                    coupon_ledger::store::Column::Text(_) => format!("substr({name}, 1, length({name}) - 1)"),
                };
                let one = table.columns[0].name();
                let which = format!("{one} = (SELECT max({one}) FROM {})", table.name);
                // A key that moves takes the row to another place: both places are wrong.
                let which = if key && place == 0 { "1 = 1".to_owned() } else { which };
                let damage = format!("UPDATE {} SET {name} = {other} WHERE {which}", table.name);
                let which = if key && place == 0 { "1 = 1".to_owned() } else { which };
                let undo = format!("UPDATE {} SET {name} = {back} WHERE {which}", table.name);
                let found = damaged(&world, &damage, &undo).await;
                assert!(
                    found.iter().any(|finding| finding.table == table.name
                        && (key || finding.what.contains(&format!("{name} is")))),
                    "{damage}: {found:?}"
                );
            }
        }
        for (table, damage, undo) in [
            ("stock_v1", "UPDATE stock_v1 SET issued = issued + 1", "UPDATE stock_v1 SET issued = issued - 1"),
            ("stock_v1", "UPDATE stock_v1 SET stock = stock + 2", "UPDATE stock_v1 SET stock = stock - 2"),
            ("member_counts_v1", "UPDATE member_counts_v1 SET issued = issued + 1 WHERE member_id = 439",
             "UPDATE member_counts_v1 SET issued = issued - 1 WHERE member_id = 439"),
            ("log_head", "UPDATE log_head SET last_ms = last_ms + 1", "UPDATE log_head SET last_ms = last_ms - 1"),
            ("log_head", "UPDATE log_head SET position = position + 1", "UPDATE log_head SET position = position - 1"),
            ("id_blocks", "UPDATE id_blocks SET next_id = next_id - 1000 WHERE kind = 'order'",
             "UPDATE id_blocks SET next_id = next_id + 1000 WHERE kind = 'order'"),
            ("reviews", "UPDATE reviews SET text = text || 'x'", "UPDATE reviews SET text = substr(text, 1, length(text) - 1)"),
            ("reviews", "UPDATE reviews SET salt = salt || 'x'", "UPDATE reviews SET salt = substr(salt, 1, length(salt) - 1)"),
        ] {
            let found = damaged(&world, damage, undo).await;
            assert!(found.iter().any(|finding| finding.table == table), "{damage}: {found:?}");
        }
        world.close().await;
    }

    async fn a_changed_or_lost_receipt_is_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        without_guards_of(&world.home, "receipts").await;
        for column in ["caller", "operation", "key", "request_mac"] {
            let damage = format!("UPDATE receipts SET {column} = {column} || 'x' WHERE caller = 'merchant'");
            let undo = format!(
                "UPDATE receipts SET {column} = substr({column}, 1, length({column}) - 1) WHERE caller LIKE 'merchant%'"
            );
            let found = damaged(&world, &damage, &undo).await;
            assert!(found.iter().any(|finding| finding.table == "receipts" && finding.position > 0), "{damage}: {found:?}");
        }
        for column in ["position", "event_count"] {
            let damage = format!("UPDATE receipts SET {column} = {column} + 1");
            let found = damaged(&world, &damage, &format!("UPDATE receipts SET {column} = {column} - 1")).await;
            assert!(found.iter().any(|finding| finding.table == "receipts"), "{damage}: {found:?}");
        }
        world.home.sql("CREATE TABLE kept_receipts AS SELECT * FROM receipts WHERE caller = 'merchant'").await.unwrap();
        let lost = damaged(
            &world,
            "DELETE FROM receipts WHERE caller = 'merchant'",
            "INSERT INTO receipts SELECT * FROM kept_receipts",
        )
        .await;
        let position = count(&world.home, "SELECT position FROM kept_receipts").await;
        let lost: Vec<_> = lost.iter().map(|finding| (finding.table.as_str(), finding.position)).collect();
        assert_eq!(lost, [("receipts", position)]);
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn a_changed_tile_or_checkpoint_is_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        let flip = format!("UPDATE tlog_tiles SET hashes = {}", with_another("hashes", 10));
        world.home.sql("CREATE TABLE kept_tiles AS SELECT * FROM tlog_tiles").await.unwrap();
        let undo = "UPDATE tlog_tiles SET hashes = (SELECT k.hashes FROM kept_tiles k WHERE k.level = tlog_tiles.level AND k.tile_index = tlog_tiles.tile_index)";
        let found = damaged(&world, &flip, undo).await;
        assert!(found.iter().any(|finding| finding.table == "events" && finding.position == 1), "{found:?}");
        assert!(found.iter().any(|finding| finding.table == "tlog_checkpoints"), "{found:?}");
        for (damage, undo) in [
            ("UPDATE tlog_tiles SET width = width - 1", "UPDATE tlog_tiles SET width = width + 1"),
            ("UPDATE tlog_checkpoints SET note = note || 'x'", "UPDATE tlog_checkpoints SET note = substr(note, 1, length(note) - 1)"),
            ("UPDATE tlog_checkpoints SET note = replace(note, 'coupon-ledger/', 'coupon-ledgex/')", "UPDATE tlog_checkpoints SET note = replace(note, 'coupon-ledgex/', 'coupon-ledger/')"),
            ("UPDATE tlog_checkpoints SET size = size - 1", "UPDATE tlog_checkpoints SET size = size + 1"),
        ] {
            let found = damaged(&world, damage, undo).await;
            assert!(found.iter().any(|finding| finding.table.starts_with("tlog_")), "{damage}: {found:?}");
        }
        // Without tiles there is nothing to hold it against, and it was signed.
        let found = damaged(&world, "DELETE FROM tlog_tiles", "INSERT INTO tlog_tiles SELECT * FROM kept_tiles").await;
        assert!(found.iter().any(|finding| finding.table == "tlog_tiles"), "{found:?}");
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn it_goes_on_where_it_was_and_beside_whoever_writes(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        let mut states: Vec<State> = Vec::new();
        let whole = verify(world.store(), &trusted(&world).await, 2, None, |state| states.push(state.clone())).await.unwrap();
        // It is not done before all is looked at, also what comes last.
        let done: Vec<usize> = states.iter().map(State::done).collect();
        let pieces = states[0].pieces;
        assert_eq!(done.iter().copied().collect::<std::collections::BTreeSet<_>>(), (0..=pieces).collect());
        assert_eq!(done.last(), Some(&pieces));
        // Another program, or one without the person keys, would have looked at other things.
        let mut others = serde_json::to_value(states.last().unwrap()).unwrap();
        others["totals"]["events"] = json!(7);
        let mut of_another = others.clone();
        of_another["made_by"] = json!("0.0.1 schema 3 coupon");
        let of_another: State = serde_json::from_value(of_another).unwrap();
        let with_keys: State = serde_json::from_value(others).unwrap();
        let without = Trusted { seal: None, ..trusted(&world).await };
        for (state, known) in [(of_another, trusted(&world).await), (with_keys, without)] {
            let anew = verify(world.store(), &known, 2, Some(state), |_| {}).await.unwrap();
            assert_eq!((told(&anew), anew.events), (Vec::new(), whole.events));
        }
        // From every state that there was, written down and read again, to the same end; meanwhile the ledger goes on.
        let definition = world.define(json!({})).await;
        for state in states.iter().step_by(5) {
            let id = world.issue(definition, 439).await;
            let code = world.give(MEMBER, id).await;
            world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
            let state = serde_json::from_str(&serde_json::to_string(state).unwrap()).unwrap();
            let resumed = verify(world.store(), &trusted(&world).await, 2, Some(state), |_| {}).await.unwrap();
            assert_eq!((told(&resumed), resumed.events), (Vec::new(), whole.events));
        }
        let mut ahead = states[0].clone();
        ahead.position = 1_000_000;
        let refused = verify(world.store(), &trusted(&world).await, 2, Some(ahead), |_| {}).await.unwrap_err();
        assert!(refused.to_string().contains("reaches position 1000000"), "{refused}");
        world.close().await;
    }

    async fn the_command_line_says_what_is_wrong_and_ends_with_it(engine: Engine) {
        let world = everything(engine).await;
        let definition = world.define(json!({})).await;
        for _ in 0..600 {
            world.issue(definition, 439).await;
        }
        signed(&world).await;
        let home = world.close().await;
        let run = async |more: &[&str]| program_verifies(&home, more).await;
        let (code, out, err) = run(&[]).await;
        assert_eq!(code, 0, "{out}{err}");
        assert!(out.starts_with("up to position ") && err.contains("sound"), "{out}{err}");
        let state = home.path().join("verify.state");
        let (code, out, _) = run(&["--json", "--state", state.to_str().unwrap()]).await;
        let told: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &told["findings"]), (0, &json!([])), "{told}");
        assert!(!state.exists());
        let done: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&done["hashed"], &done["signed"]), (&done["events"], &done["events"]));
        // Under another secret nothing can be said, and nothing is wrong.
        let other = home.path().join("other.key");
        std::fs::write(&other, "2b".repeat(32)).unwrap();
        let (code, out, err) = run(&["--secret-file", other.to_str().unwrap()]).await;
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("this ledger was started with another secret"), "{err}");
        // Bad input is a sentence and 2.
        std::fs::write(&state, "{}").unwrap();
        let note = home.path().join("garbage.note");
        std::fs::write(&note, "garbage").unwrap();
        for (arguments, says) in [
            (vec!["--state", state.to_str().unwrap()], "does not say how far a verification has come"),
            (vec!["--checkpoint", "/no/such/file"], "cannot read /no/such/file"),
            (vec!["--key", "garbage"], "is no verifier key"),
        ] {
            let (code, out, err) = run(&arguments).await;
            assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
            assert!(err.contains(says), "{arguments:?}: {err}");
        }
        let (code, out, err) = run(&["--checkpoint", note.to_str().unwrap()]).await;
        assert_eq!(code, 1, "{out}{err}");
        assert!(out.contains("garbage.note: it is no signed checkpoint"), "{out}");
        // Damage, in the second tile.
        home.sql("UPDATE wallet_v1 SET title = 'stolen' WHERE coupon_id = (SELECT max(coupon_id) FROM wallet_v1 WHERE coupon_id < 900000)").await.unwrap();
        without_guards(&home).await;
        home.sql("UPDATE events SET recorded_at_ms = recorded_at_ms + 1 WHERE position = 300").await.unwrap();
        let (code, out, err) = run(&[]).await;
        assert_eq!(code, 1, "{out}{err}");
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(
            lines[0],
            "position 300: events, position 300: its bytes are not those whose hash is in the transparency log"
        );
        assert!(lines.iter().any(|line| line.contains("wallet_v1, member_id 439, coupon_id")
            && line.contains("title is \"stolen\", the events give \"十元券\"")), "{out}");
        assert!(err.contains("things are wrong"), "{err}");
    }

    async fn a_database_that_fails_meanwhile_is_an_error_and_never_sound(engine: Engine) {
        let world = everything(engine).await;
        let (store, trusted) = (world.store().clone(), trusted(&world).await);
        let mut seen = 0;
        world.close().await;
        verify(&store, &trusted, 2, None, |_| seen += 1).await.unwrap_err();
        assert_eq!(seen, 0);
    }

    async fn a_ledger_of_another_version_is_not_judged(engine: Engine) {
        let world = everything(engine).await;
        world.home.sql("DELETE FROM schema_versions WHERE version > 20").await.unwrap();
        let failed = verify(world.store(), &trusted(&world).await, 2, None, |_| {}).await.unwrap_err().to_string();
        assert!(failed.starts_with("this ledger has the schema 20, and this program knows "), "{failed}");
        world.close().await;
    }

    async fn a_table_that_is_gone_is_a_finding_and_hides_no_other(engine: Engine) {
        let world = everything(engine).await;
        world.home.sql("UPDATE wallet_v1 SET title = 'stolen' WHERE coupon_id = 900001").await.unwrap();
        for table in ["member_counts_v1", "stock_v1", "orders_v1", "receipts", "reviews", "id_blocks", "tlog_tiles"] {
            world.home.sql(&format!("ALTER TABLE {table} RENAME TO gone")).await.unwrap();
            let totals = look(&world).await;
            world.home.sql(&format!("ALTER TABLE gone RENAME TO {table}")).await.unwrap();
            let told = told(&totals);
            assert!(told.contains(&format!("{table}, all rows: the table is not there")), "{table}: {told:?}");
            assert!(told.iter().any(|line| line.contains("title is \"stolen\"")), "{table}: {told:?}");
        }
        world.close().await;
    }

    async fn an_event_that_cannot_be_read_hides_no_other_stream(engine: Engine) {
        let world = everything(engine).await;
        without_guards(&world.home).await;
        world.home.sql("UPDATE wallet_v1 SET title = 'stolen' WHERE coupon_id = 900001").await.unwrap();
        let position = count(&world.home, "SELECT min(position) FROM events WHERE event_type = 'Issued'").await;
        let nothing = match engine {
            Engine::Sqlite => "CAST(x'ff' AS TEXT)",
            Engine::Postgres => {
                world.home.sql("ALTER TABLE events ALTER payload DROP NOT NULL").await.unwrap();
                "NULL"
            }
        };
        world.home.sql(&format!("UPDATE events SET payload = {nothing} WHERE position = {position}")).await.unwrap();
        let totals = look(&world).await;
        let told = told(&totals);
        assert!(told.iter().any(|line| line.starts_with(&format!("position {position}: events,"))), "{told:?}");
        assert!(told.iter().any(|line| line.contains("title is \"stolen\"")), "{told:?}");
        world.close().await;
    }

    async fn a_null_is_not_taken_for_an_empty_text(engine: Engine) {
        let world = everything(engine).await;
        let mut empty = None;
        for table in coupon_ledger::read_model::LIVE_TABLES {
            for column in table.columns.iter().copied().filter(|column| matches!(column, Column::Text(_))) {
                let (table, column) = (table.name, column.name());
                let found = count(&world.home, &format!("SELECT count(*) FROM {table} WHERE {column} = ''")).await;
                empty = empty.or((found > 0).then_some((table, column)));
            }
        }
        let (table, column) = empty.unwrap();
        match engine {
            Engine::Postgres => {
                world.home.sql(&format!("ALTER TABLE {table} ALTER {column} DROP NOT NULL")).await.unwrap();
            }
            Engine::Sqlite => {
                let file = rusqlite::Connection::open(world.home.database_file()).unwrap();
                let sql: String = file
                    .query_row("SELECT sql FROM sqlite_master WHERE name = ?1", [table], |row| row.get(0))
                    .unwrap();
                let lines: Vec<String> = sql
                    .lines()
                    .map(|line| match line.split_whitespace().next() {
                        Some(first) if first == column => line.replacen("NOT NULL", "", 1),
                        _ => line.to_owned(),
                    })
                    .collect();
                file.execute_batch("PRAGMA writable_schema = ON").unwrap();
                file.execute("UPDATE sqlite_master SET sql = ?1 WHERE name = ?2", [&lines.join("\n"), table]).unwrap();
                file.execute_batch("PRAGMA schema_version = 100000; PRAGMA writable_schema = OFF").unwrap();
            }
        }
        let free = format!("{table}, column {column}: nothing keeps it from being NULL");
        assert_eq!(told(&look(&world).await), std::slice::from_ref(&free));
        let set = format!("UPDATE {table} SET {column} = NULL WHERE {column} = ''");
        world.home.sql(&set).await.unwrap();
        let told = told(&look(&world).await);
        assert!(told.contains(&free) && told[0].ends_with("a text is NULL, which none ever is"), "{told:?}");
        world.close().await;
    }

    async fn guards_that_were_taken_off_are_found(engine: Engine) {
        let world = everything(engine).await;
        let guards = async || -> Vec<String> { look(&world).await.findings.iter().map(ToString::to_string).collect() };
        without_guards(&world.home).await;
        let off = "it is not there, or is switched off: rows can be changed and removed";
        let names: &[&str] = match engine {
            Engine::Postgres => &["events_are_append_only", "events_are_not_truncated"],
            Engine::Sqlite => &[
                "events_are_append_only_delete", "events_are_append_only_replace", "events_are_append_only_update",
            ],
        };
        let expected: Vec<String> = names.iter().map(|name| format!("events, trigger {name}: {off}")).collect();
        assert_eq!(guards().await, expected);
        with_guards_of(&world.home, "events").await;
        assert_eq!(guards().await, [] as [&str; 0]);
        // One that has the name, and keeps nothing from being changed.
        let (idle, name): (&[&str], _) = match engine {
            Engine::Postgres => (
                &["CREATE OR REPLACE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END'"],
                "events_are_append_only",
            ),
            Engine::Sqlite => (
                &["DROP TRIGGER events_are_append_only_delete",
                  "CREATE TRIGGER events_are_append_only_delete BEFORE DELETE ON events BEGIN SELECT 1; END"],
                "events_are_append_only_delete",
            ),
        };
        for sql in idle {
            world.home.sql(sql).await.unwrap();
        }
        let found = guards().await;
        let other = format!("events, trigger {name}: it is not the one that keeps rows as they were written");
        assert!(found.contains(&other), "{found:?}");
        // A key: of a live table, on PostgreSQL, where it can be taken off.
        if engine == Engine::Postgres {
            world.home.sql("ALTER TABLE events DROP CONSTRAINT events_bucket_position_key").await.unwrap();
            world.home.sql("ALTER TABLE wallet_v1 DROP CONSTRAINT wallet_v1_pkey").await.unwrap();
            let found = guards().await;
            for key in ["events, key bucket, position", "wallet_v1, key bucket, coupon_id, member_id"] {
                let free = format!("{key}: nothing keeps two rows from sharing it");
                assert!(found.contains(&free), "{free}: {found:?}");
            }
        }
        world.close().await;
    }

    async fn ids_that_could_be_handed_out_again_are_found(engine: Engine) {
        let world = everything(engine).await;
        for kind in ["coupon", "redemption", "definition"] {
            let next = count(&world.home, &format!("SELECT next_id FROM id_blocks WHERE kind = '{kind}'")).await;
            let set = |next: i64| format!("UPDATE id_blocks SET next_id = {next} WHERE kind = '{kind}'");
            let found = damaged(&world, &set(1), &set(next)).await;
            // Imported coupons have ids of their own, far above.
            if kind != "coupon" {
                assert_eq!(found.len(), 1, "{kind}: {found:?}");
                assert!(found[0].what.starts_with(&format!("next_id is 1, and {kind} ")), "{found:?}");
            }
            let found = damaged(
                &world,
                &format!("DELETE FROM id_blocks WHERE kind LIKE '%{kind}'"),
                &format!("INSERT INTO id_blocks VALUES (0, '{kind}', {next})"),
            )
            .await;
            assert_eq!(found.len(), 1, "{kind}: {found:?}");
            assert!(found[0].what.starts_with(&format!("the row is missing, and {kind} ")), "{found:?}");
            if kind == "coupon" {
                world.home.sql("INSERT INTO id_blocks VALUES (0, 'imported coupon', 900003)").await.unwrap();
            }
        }
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn a_review_without_its_text_is_found_unless_its_author_is_erased(engine: Engine) {
        let world = everything(engine).await;
        let written = "SELECT position FROM events WHERE event_type = 'Evaluated'";
        let position = count(&world.home, written).await;
        let coupon = count(&world.home, "SELECT coupon_id FROM reviews").await;
        world.home.sql("DELETE FROM reviews").await.unwrap();
        let gone = format!(
            "position {position}: reviews, coupon_id {coupon}: its text is not there, and its author was not erased"
        );
        assert_eq!(told(&look(&world).await), [gone]);
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn rows_outside_of_what_ids_can_be_are_found(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        for (table, damage, undo) in [
            ("member_counts_v1", "INSERT INTO member_counts_v1 VALUES (0, -5, 1, 3)", "DELETE FROM member_counts_v1 WHERE member_id = -5"),
            ("member_counts_v1", "INSERT INTO member_counts_v1 VALUES (0, 9223372036854775807, 1, 3)",
             "DELETE FROM member_counts_v1 WHERE member_id > 9000000000000000000"),
            ("reviews", "INSERT INTO reviews VALUES (-5, 'salt', 'text')", "DELETE FROM reviews WHERE coupon_id = -5"),
            ("tlog_tiles", "INSERT INTO tlog_tiles VALUES (0, 0, 7, 1, 'AAAA')", "DELETE FROM tlog_tiles WHERE tile_index = 7"),
            ("tlog_tiles", "INSERT INTO tlog_tiles VALUES (0, 1, 0, 1, 'AAAA')", "DELETE FROM tlog_tiles WHERE level = 1"),
            ("tlog_tiles", "INSERT INTO tlog_tiles VALUES (0, 40, 0, 1, 'AAAA')", "DELETE FROM tlog_tiles WHERE level = 40"),
            ("tlog_tiles", "INSERT INTO tlog_tiles VALUES (0, 0, -1, 1, 'AAAA')", "DELETE FROM tlog_tiles WHERE tile_index = -1"),
            ("tlog_tiles", "INSERT INTO tlog_tiles VALUES (3, 0, 0, 1, 'AAAA')", "DELETE FROM tlog_tiles WHERE bucket = 3"),
            ("id_blocks", "INSERT INTO id_blocks VALUES (-3, 'coupon', 1)", "DELETE FROM id_blocks WHERE bucket = -3"),
            ("checkpoints", "INSERT INTO checkpoints VALUES (1, 'tlog', 1)", "DELETE FROM checkpoints WHERE bucket = 1"),
        ] {
            let found = damaged(&world, damage, undo).await;
            let tables: Vec<&str> = found.iter().map(|finding| finding.table.as_str()).collect();
            assert_eq!(tables, [table], "{damage}: {found:?}");
        }
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.close().await;
    }

    async fn every_member_who_is_missing_is_counted(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"num": 1_000})).await;
        let ids: Vec<i64> = (1_001..=1_150).collect();
        let rows: Vec<String> = ids.iter().map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
        world.home.sql(&format!("{INSERT_MEMBERS} {}", rows.join(", "))).await.unwrap();
        world.operator("/sendelecoupon/members", json!({"coupon_id": definition, "member_ids": ids})).await.ok();
        assert_eq!(told(&look(&world).await), [] as [&str; 0]);
        world.home.sql("DELETE FROM members WHERE member_id > 1000").await.unwrap();
        assert_eq!(look(&world).await.wrong, 150);
        world.close().await;
    }

    async fn while_the_log_is_hashed_anew_nothing_is_said_of_its_tiles(engine: Engine) {
        let world = everything(engine).await;
        signed(&world).await;
        let mut states: Vec<State> = Vec::new();
        verify(world.store(), &trusted(&world).await, 2, None, |state| states.push(state.clone())).await.unwrap();
        // Its follower was reset, and has come as far as the third leaf.
        world.home.sql("UPDATE checkpoints SET value = 3 WHERE name = 'tlog'").await.unwrap();
        world.home.sql("UPDATE tlog_tiles SET width = 3, hashes = substr(hashes, 1, 128)").await.unwrap();
        for state in [&states[0], states.last().unwrap()] {
            let failed = verify(world.store(), &trusted(&world).await, 2, Some(state.clone()), |_| {}).await.unwrap_err();
            assert_eq!(failed.to_string(), "the transparency log is being hashed anew: verify again when it is done");
        }
        world.close().await;
    }
}

/// Every byte of every column, in memory: no two events share a leaf.
#[test]
fn every_flipped_byte_makes_another_leaf() {
    let golden = include_str!("golden/events.ndjson");
    for (position, line) in (1..).zip(golden.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        let event = StoredEvent {
            position,
            aggregate_type: text("aggregate_type"),
            aggregate_id: "439".to_owned(),
            sequence: 2,
            event_type: text("event_type"),
            event_version: text("event_version"),
            payload: text("payload"),
            metadata: r#"{"append_id":"0123456789abcdef0123456789abcdef","caller":"member:439"}"#.to_owned(),
            recorded_at_ms: 1_543_026_701_000,
        };
        let hash = leaf::hash(&event);
        let columns: [fn(&mut StoredEvent) -> &mut String; 6] = [
            |event| &mut event.aggregate_type,
            |event| &mut event.aggregate_id,
            |event| &mut event.event_type,
            |event| &mut event.event_version,
            |event| &mut event.payload,
            |event| &mut event.metadata,
        ];
        for column in columns {
            let mut other = event.clone();
            let old = column(&mut other).clone();
            for (at, letter) in old.char_indices() {
                let flip = char::from_u32(letter as u32 ^ 1).unwrap();
                let mut new = old.clone();
                new.replace_range(at..at + letter.len_utf8(), flip.encode_utf8(&mut [0; 4]));
                *column(&mut other) = new;
                assert_ne!(leaf::hash(&other), hash);
            }
        }
        for bit in 0..63 {
            let numbers: [fn(&mut StoredEvent) -> &mut i64; 3] =
                [|event| &mut event.position, |event| &mut event.sequence, |event| &mut event.recorded_at_ms];
            for number in numbers {
                let mut other = event.clone();
                *number(&mut other) ^= 1 << bit;
                assert_ne!(leaf::hash(&other), hash);
            }
        }
    }
}
