//! The offline verifier: what was tampered with is found and named, and a log that breaks a rule is caught though every
//! signature of it is right.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::audit::check::{Finding, Report, Trusted, check_export, check_proof};
use coupon_ledger::audit::checkpoint::{Cosigner, with_cosignatures};
use coupon_ledger::audit::{leaf, tlog};
use coupon_ledger::store::{Append, EPOCH, Effects, Entry, NewEvent, Outcome, StreamAppend, StreamId};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json};

use crate::archive::{Copy, export_part, export_whole, full_life, key_of, sign_log, trusted, whole_log};
use crate::harness::{DAY, Engine, HOUR, NOON, World};

const EVENTS: &str = "events-1.ndjson.zst";
const RECEIPTS: &str = "receipts.ndjson.zst";

fn check(folder: &Path, trusted: &Trusted) -> Report {
    check_export(folder, trusted, |_| {}).unwrap()
}

/// The positions that findings name.
fn named(report: &Report) -> Vec<i64> {
    let mut positions: Vec<i64> = report.findings.iter().filter_map(|finding| finding.position).collect();
    positions.dedup();
    positions
}

fn rules(report: &Report) -> Vec<(&'static str, Option<i64>)> {
    report.findings.iter().map(|finding| (finding.rule, finding.position)).collect()
}

/// The export of a log in which everything has happened, and what its auditor trusts.
async fn full_export() -> (World, tempfile::TempDir, Trusted) {
    let world = World::empty(Engine::Sqlite).await;
    full_life(&world).await;
    let folder = tempfile::tempdir().unwrap();
    export_whole(&world, &folder.path().join("export")).await;
    let trusted = trusted(&world).await;
    (world, folder, trusted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_every_event_is_vouched_for() {
    let (world, folder, trusted) = full_export().await;
    let copy = Copy::of(&folder.path().join("export"));
    assert_eq!(check(copy.path(), &trusted).findings, []);
    let lines = copy.lines(EVENTS);
    // Up to the position a line by itself, because one that says another position moves those behind it: each place of every
    // third line, another third for the next place. Then the same byte of all lines at once. All digests are made right
    // again, as whoever tampers would.
    let behind_position = r#"{"position":12,"#.len();
    for place in 0..behind_position {
        for (number, line) in lines.iter().enumerate().skip(place % 3).step_by(3) {
            let mut tampered = lines.clone();
            tampered[number][place] = line[place] ^ 1;
            copy.set_lines(EVENTS, &tampered);
            let report = check(copy.path(), &trusted);
            let position = number as i64 + 1;
            assert!(named(&report).contains(&position), "byte {place} of {position}: {:?}", report.findings);
        }
    }
    let longest = lines.iter().map(Vec::len).max().unwrap();
    for place in behind_position..longest {
        let mut tampered = lines.clone();
        let mut expected = Vec::new();
        for (position, line) in (1_i64..).zip(&mut tampered) {
            if let Some(byte) = line.get_mut(place) {
                *byte ^= 1;
                expected.push(position);
            }
        }
        copy.set_lines(EVENTS, &tampered);
        let report = check(copy.path(), &trusted);
        let found = named(&report);
        let missed: Vec<_> = expected.iter().filter(|position| !found.contains(position)).collect();
        assert!(missed.is_empty(), "byte {place} of {missed:?}: {:?}", report.findings);
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_byte_of_the_other_files_is_vouched_for() {
    let (world, folder, trusted) = full_export().await;
    let copy = Copy::of(&folder.path().join("export"));
    let manifest = std::fs::read(copy.file("manifest.json")).unwrap();
    for place in 0..manifest.len() {
        let mut tampered = manifest.clone();
        tampered[place] ^= 1;
        std::fs::write(copy.file("manifest.json"), &tampered).unwrap();
        let report = check(copy.path(), &trusted);
        assert!(!report.is_sound(), "byte {place} of the manifest");
        assert_eq!(report.findings[0].file.as_deref(), Some("manifest.json"));
    }
    std::fs::write(copy.file("manifest.json"), &manifest).unwrap();

    let receipts = copy.lines(RECEIPTS);
    assert!(receipts.len() >= 4, "{}", receipts.len());
    for (number, line) in receipts.iter().enumerate() {
        for place in (number % 3..line.len()).step_by(3) {
            let mut tampered = receipts.clone();
            tampered[number][place] ^= 1;
            copy.set_lines(RECEIPTS, &tampered);
            let report = check(copy.path(), &trusted);
            let rules: Vec<_> = report.findings.iter().map(|finding| finding.rule).collect();
            assert!(rules.contains(&"receipts") || rules.contains(&"file"), "byte {place}: {rules:?}");
        }
    }
    copy.set_lines(RECEIPTS, &receipts);

    let leaves = std::fs::read(copy.file("leaves.bin")).unwrap();
    for place in (0..leaves.len()).step_by(11) {
        let mut tampered = leaves.clone();
        tampered[place] ^= 1;
        copy.set_file("leaves.bin", &tampered);
        let report = check(copy.path(), &trusted);
        assert_eq!(rules(&report), [("leaf", Some(place as i64 / 32 + 1))]);
        assert!(report.findings[0].what.contains("which is as it was signed"));
    }
    copy.set_file("leaves.bin", &leaves);
    assert_eq!(check(copy.path(), &trusted).findings, []);

    // What lies there compressed, without making anything right again.
    for name in [EVENTS, RECEIPTS] {
        let whole = std::fs::read(copy.file(name)).unwrap();
        for place in (0..whole.len()).step_by(23) {
            let mut tampered = whole.clone();
            tampered[place] ^= 1;
            std::fs::write(copy.file(name), &tampered).unwrap();
            let report = check(copy.path(), &trusted);
            let names = |finding: &Finding| finding.file.as_deref() == Some(name);
            assert!(report.findings.iter().any(names), "byte {place} of {name}");
        }
        std::fs::write(copy.file(name), &whole).unwrap();
    }
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_are_missing_moved_doubled_or_made_up_are_named() {
    let (world, folder, trusted) = full_export().await;
    let copy = Copy::of(&folder.path().join("export"));
    let lines = copy.lines(EVENTS);
    let last = lines.len() as i64;
    let edited = |edit: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut tampered = lines.clone();
        edit(&mut tampered);
        copy.set_lines(EVENTS, &tampered);
        check(copy.path(), &trusted)
    };
    for place in 0..lines.len() {
        let position = place as i64 + 1;
        let deleted = edited(&|lines| drop(lines.remove(place)));
        assert!(named(&deleted).contains(&position), "{position}: {:?}", deleted.findings);
        let doubled = edited(&|lines| lines.insert(place, lines[place].clone()));
        assert!(named(&doubled).contains(&(position + 1)), "{position}: {:?}", doubled.findings);
        if position < last {
            let swapped = edited(&|lines| lines.swap(place, place + 1));
            assert!(named(&swapped).contains(&position), "{position}: {:?}", swapped.findings);
        }
        let cut = edited(&|lines| lines[place].truncate(60));
        assert!(named(&cut).contains(&position), "{position}: {:?}", cut.findings);
        let empty = edited(&|lines| lines[place].clear());
        assert!(named(&empty).contains(&position), "{position}: {:?}", empty.findings);
    }
    let short = edited(&|lines| lines.truncate(20));
    assert!(named(&short).contains(&21), "{:?}", short.findings);
    copy.set_lines(EVENTS, &lines);

    let receipts = copy.lines(RECEIPTS);
    for place in 0..receipts.len() {
        let mut fewer = receipts.clone();
        let removed: Value = serde_json::from_slice(&fewer.remove(place)).unwrap();
        copy.set_lines(RECEIPTS, &fewer);
        let report = check(copy.path(), &trusted);
        assert!(
            rules(&report).contains(&("receipts", removed["position"].as_i64())),
            "{:?}",
            report.findings
        );
        let mut more = receipts.clone();
        more.push(receipts[place].clone());
        copy.set_lines(RECEIPTS, &more);
        let report = check(copy.path(), &trusted);
        assert!(
            rules(&report).contains(&("receipts", removed["position"].as_i64())),
            "{:?}",
            report.findings
        );
    }
    copy.set_lines(RECEIPTS, &receipts);

    for name in [EVENTS, RECEIPTS, "leaves.bin"] {
        let whole = std::fs::read(copy.file(name)).unwrap();
        for kept in [0, 1, whole.len() / 2, whole.len() - 1] {
            std::fs::write(copy.file(name), &whole[..kept]).unwrap();
            let report = check(copy.path(), &trusted);
            let names = |finding: &Finding| finding.file.as_deref() == Some(name);
            assert!(report.findings.iter().any(names), "{kept} bytes of {name}: {:?}", report.findings);
        }
        std::fs::remove_file(copy.file(name)).unwrap();
        let report = check(copy.path(), &trusted);
        assert!(report.findings.iter().any(|finding| finding.what == "the file is missing"), "{name}");
        std::fs::write(copy.file(name), &whole).unwrap();
    }
    assert_eq!(check(copy.path(), &trusted).findings, []);
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_is_believed_in_nothing() {
    let (world, folder, trusted) = full_export().await;
    let copy = Copy::of(&folder.path().join("export"));
    let manifest = copy.manifest();
    let changed = |edit: &dyn Fn(&mut Value)| {
        let mut other = manifest.clone();
        edit(&mut other);
        copy.set_manifest(other);
        rules(&check(copy.path(), &trusted)).first().map(|(rule, _)| *rule)
    };
    let note = manifest["proof"]["checkpoint"].as_str().unwrap().to_owned();
    let others = [
        changed(&|manifest| manifest["origin"] = "coupon-ledger/0000000000000000".into()),
        changed(&|manifest| manifest["digest"] = "00".into()),
        changed(&|manifest| manifest["receipts"] = 1.into()),
        changed(&|manifest| manifest["recorded_to_ms"] = 1.into()),
        changed(&|manifest| manifest["events"]["coupon/Issued"] = 1.into()),
        changed(&|manifest| manifest["files"][0]["sha256"] = "00".into()),
        changed(&|manifest| manifest["files"][0]["name"] = "/etc/passwd".into()),
        changed(&|manifest| manifest["to"] = 1.into()),
        changed(&|manifest| manifest["format"] = "coupon-ledger export 2".into()),
        changed(&|manifest| manifest["proof"]["before"] = json!([STANDARD.encode([0; 32])])),
        changed(&|manifest| manifest["proof"]["after"] = json!([STANDARD.encode([0; 32])])),
        changed(&|manifest| manifest["proof"] = Value::Null),
        changed(&|manifest| manifest["proof"]["checkpoint"] = note.replace("=\n\n", "=\nmore\n\n").into()),
        changed(&|manifest| manifest["proof"]["checkpoint"] = "no note".into()),
    ];
    let expected = [
        "origin",
        "manifest",
        "receipts",
        "manifest",
        "manifest",
        "file",
        "file",
        "file",
        "file",
        "root",
        "root",
        "signature",
        "signature",
        "signature",
    ];
    assert_eq!(others, expected.map(Some));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_forked_or_rolled_back_is_caught_by_a_checkpoint_that_somebody_kept() {
    let world = World::with_people(Engine::Sqlite).await;
    let definition = world.define(json!({})).await;
    world.issue(definition, 439).await;
    let early = sign_log(&world).await;
    let folder = tempfile::tempdir().unwrap();
    world.issue(definition, 439).await;
    let kept = sign_log(&world).await;
    export_whole(&world, &folder.path().join("then")).await;
    let key = trusted(&world).await;
    let with = |notes: &[&str]| {
        notes.iter().fold(key.clone(), |trusted, note| trusted.and_checkpoint("kept.txt", note))
    };
    // The log goes on: both checkpoints are of its past.
    world.issue(definition, 442).await;
    export_whole(&world, &folder.path().join("now")).await;
    export_part(&world, &folder.path().join("part"), 4, None).await;
    let honest = with(&[&early.note, &kept.note]);
    assert_eq!(check(&folder.path().join("now"), &honest).findings, []);
    assert_eq!(check(&folder.path().join("part"), &honest).findings, []);
    // A checkpoint that is newer than the export says nothing of it.
    let newest = sign_log(&world).await;
    let refused = check_export(&folder.path().join("then"), &with(&[&newest.note]), |_| {}).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "kept.txt covers 5 positions, and the export has the positions 1 to 4: they cannot be compared"
    );

    // An administrator rewrites the last event that was signed, and signs again with the stolen key.
    crate::log::without_guards(&world.home).await;
    world
        .home
        .sql("UPDATE events SET payload = replace(payload, '439', '440') WHERE position = 4")
        .await
        .unwrap();
    export_whole(&world, &folder.path().join("forked")).await;
    let forked = check(&folder.path().join("forked"), &with(&[&early.note, &kept.note]));
    assert_eq!(rules(&forked), [("consistency", Some(4))]);
    assert_eq!(check(&folder.path().join("forked"), &with(&[&early.note])).findings, []);

    // Checkpoints that are no use: of another ledger, not signed, no checkpoint at all.
    let other = World::with_people(Engine::Sqlite).await;
    let foreign = sign_log(&other).await.note;
    for (note, said) in [
        (foreign.as_str(), "kept.txt cannot be used: it is a checkpoint of coupon-ledger/"),
        ("no note", "kept.txt cannot be used: it is no signed checkpoint"),
    ] {
        let refused =
            check_export(&folder.path().join("now"), &with(&[note]), |_| {}).unwrap_err().to_string();
        assert!(refused.starts_with(said), "{refused}");
    }
    let (text, signature) = kept.note.split_once("\n\n").unwrap();
    let unsigned = format!("{text}\nmore\n\n{signature}");
    assert_eq!(rules(&check(&folder.path().join("now"), &with(&[&unsigned]))), [("signature", None)]);
    // Another ledger's key, and one that is none.
    let wrong = trusted(&other).await;
    assert_eq!(rules(&check(&folder.path().join("now"), &wrong)), [("signature", None)]);
    assert!(Trusted::new(&["no key".to_owned()], &[]).is_err());
    world.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_witness_who_is_trusted_must_have_cosigned() {
    let world = World::with_people(Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    export_whole(&world, &folder.path().join("export")).await;
    let copy = Copy::of(&folder.path().join("export"));
    let witness =
        Cosigner::new("witness.example/1", SigningKey::from_bytes(&[7; 32]), 1_795_406_400).unwrap();
    // Whoever is named twice signs once.
    let twice = [witness.verifier_key(), witness.verifier_key()];
    let trusted = Trusted::new(&[key_of(&world).await], &twice).unwrap();
    assert_eq!(rules(&check(copy.path(), &trusted)), [("witnesses", None)]);
    let mut manifest = copy.manifest();
    let note = manifest["proof"]["checkpoint"].as_str().unwrap().to_owned();
    let key = coupon_ledger::audit::checkpoint::VerifierKey::parse(&witness.verifier_key()).unwrap();
    let cosigned = with_cosignatures(&note, &witness.cosign(&note).unwrap(), &key).unwrap();
    manifest["proof"]["checkpoint"] = cosigned.into();
    copy.set_manifest(manifest);
    let report = check(copy.path(), &trusted);
    assert_eq!((report.findings, report.witnesses), (vec![], vec!["witness.example/1".to_owned()]));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_proves_its_event_and_nothing_else() {
    let world = World::with_people(Engine::Sqlite).await;
    world.issue(world.define(json!({})).await, 439).await;
    let signed = sign_log(&world).await;
    let event = whole_log(&world).await[2].clone();
    let hashes = tlog::inclusion(world.store(), 2, 3).await.unwrap().unwrap();
    let hashes: Vec<String> = hashes.iter().map(|hash| STANDARD.encode(hash.0)).collect();
    let extra = STANDARD.encode(leaf::bytes(&event));
    let receipt =
        format!("c2sp.org/tlog-proof@v1\nextra {extra}\nindex 2\n{}\n\n{}", hashes.join("\n"), signed.note);
    let trust = trusted(&world).await;
    let report = check_proof(&receipt, &trust).unwrap();
    assert_eq!(report.findings, []);
    assert_eq!(report.notes, [coupon_ledger::audit::feed::line(&event).unwrap()]);
    // Every byte of it counts.
    for place in 0..receipt.len() {
        let mut tampered = receipt.clone().into_bytes();
        tampered[place] ^= 1;
        let Ok(tampered) = String::from_utf8(tampered) else { continue };
        let sound = check_proof(&tampered, &trust).is_ok_and(|report| report.is_sound());
        assert!(!sound, "byte {place}");
    }
    assert!(check_proof("c2sp.org/tlog-proof@v1\n", &trust).is_err());
    world.close().await;
}

/// Writes events that no command would give, past every decision.
pub async fn force(world: &World, kind: &'static str, id: i64, version: i64, events: &[Value]) {
    let event = |event: &Value| NewEvent {
        event_type: event.as_object().unwrap().keys().next().unwrap().clone(),
        event_version: "1.0".to_owned(),
        payload: event.to_string(),
    };
    let stream = StreamId { kind, id };
    let part = StreamAppend { stream, expected_version: version, events: events.iter().map(event).collect() };
    let append_id = format!("{:032x}", rand::random::<u128>());
    let append = Append {
        metadata: json!({"append_id": append_id}).to_string().into(),
        append_id,
        epoch: EPOCH,
        entries: vec![Entry { streams: vec![part], effects: Effects::default() }],
        unchanged: Vec::new(),
        receipts: Vec::new(),
    };
    let appended = world.store().appender().append(move || Arc::from([append]), &world.clock).await.unwrap();
    assert!(matches!(appended.outcomes[..], [Outcome::Committed { .. }]), "{:?}", appended.outcomes);
}

fn born(member_id: i64) -> Value {
    json!({"definition_id": 1, "terms": {"kind": "cash", "title": "十元券", "deduction_cents": 1000,
        "minimum_order_cents": 0, "weekdays": [], "givable": true, "stackable": true, "rules": "", "shop_ids": [],
        "self_redeemable": true, "scan_required": false}, "member_id": member_id, "start_date": "2026-11-22",
        "end_date": "2026-11-24", "starts_at_ms": NOON - HOUR, "ends_at_ms": NOON + HOUR, "source": "one_to_one",
        "employee_id": 0, "order_id": 0, "goods_id": 0, "at_ms": NOON})
}

/// What is wrong with a log whose coupon 7 has these events, from position 3 on; definition 1 may issue two.
async fn judged(coupon: &[Value]) -> Vec<(&'static str, Option<i64>)> {
    let world = World::with_people(Engine::Sqlite).await;
    world.define(json!({"num": 2})).await;
    force(&world, "coupon", 7, 0, coupon).await;
    let folder = tempfile::tempdir().unwrap();
    export_whole(&world, &folder.path().join("export")).await;
    let report = check(&folder.path().join("export"), &trusted(&world).await);
    world.close().await;
    rules(&report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coupon_that_breaks_a_rule_is_caught_by_rule_and_position() {
    let issued = json!({"Issued": born(439)});
    let given_as = |gift: u32| json!({"Given": {"gift": gift, "member_id": 439, "code_key": "k", "lapses_at_ms": NOON + HOUR, "at_ms": NOON}});
    let given = given_as(1);
    let received = |gift: i64, giver: i64, member: i64, at_ms: i64| json!({"Received": {"gift": gift, "giver_id": giver, "member_id": member, "at_ms": at_ms}});
    let redeemed = |id: i64, member: i64, at_ms: i64| json!({"Redeemed": {"redemption_id": id, "member_id": member, "shop_id": 1, "employee_id": 0, "at_ms": at_ms}});
    let reversed = |id: i64| json!({"RedemptionReversed": {"redemption_id": id, "employee_id": 0, "reason": "r", "at_ms": NOON}});
    let voided = json!({"Voided": {"employee_id": 0, "reason": "r", "at_ms": NOON}});
    let expired = |at_ms: i64| json!({"Expired": {"at_ms": at_ms}});
    let wrong = json!({"GiftCodeRejected": {"gift": 1, "member_id": 442, "at_ms": NOON}});
    let viewed = |member: i64| json!({"Viewed": {"member_id": member, "at_ms": NOON}});
    let review = |score: i64| json!({"Evaluated": {"member_id": 439, "score": score, "text_hash": "h", "at_ms": NOON}});
    let moved = |ends: i64| json!({"EndMoved": {"end_date": "2026-11-23", "ends_at_ms": ends, "employee_id": 0, "reason": "r", "at_ms": NOON}});
    let lapsed = json!({"GiftLapsed": {"gift": 1, "at_ms": NOON}});
    let withdrawn = |gift: u32| json!({"GiftWithdrawn": {"gift": gift, "at_ms": NOON}});
    let use_at = |at_ms: i64| redeemed(1, 439, at_ms);

    let sound: &[&[Value]] = &[
        &[
            issued.clone(),
            viewed(439),
            given.clone(),
            wrong.clone(),
            received(1, 439, 442, NOON),
            viewed(442),
        ],
        &[issued.clone(), use_at(NOON), reversed(1), redeemed(2, 439, NOON), review(5)],
        &[issued.clone(), moved(NOON - 1), expired(NOON), moved(NOON + HOUR), voided.clone()],
    ];
    for events in sound {
        assert_eq!(judged(events).await, [], "{events:?}");
    }
    let broken: &[(&[Value], &str, i64)] = &[
        (&[use_at(NOON)], "issued once", 3),
        (&[issued.clone(), issued.clone()], "issued once", 4),
        (&[issued.clone(), use_at(NOON), redeemed(2, 439, NOON)], "used once", 5),
        (&[issued.clone(), redeemed(1, 442, NOON)], "holder", 4),
        (&[issued.clone(), use_at(NOON - 2 * HOUR)], "used within its dates", 4),
        (&[issued.clone(), moved(NOON), use_at(NOON)], "used within its dates", 5),
        (&[issued.clone(), given.clone(), use_at(NOON)], "used by its holder", 5),
        (&[issued.clone(), voided.clone(), use_at(NOON)], "voided", 5),
        (&[issued.clone(), use_at(NOON), voided.clone()], "used once", 5),
        (&[issued.clone(), use_at(NOON), reversed(2)], "reversed", 5),
        (&[issued.clone(), reversed(0)], "reversed", 4),
        (&[issued.clone(), received(1, 439, 442, NOON)], "received", 4),
        (&[issued.clone(), given.clone(), received(2, 439, 442, NOON)], "received", 5),
        (&[issued.clone(), given.clone(), received(1, 439, 439, NOON)], "received", 5),
        (&[issued.clone(), given.clone(), received(1, 442, 443, NOON)], "holder", 5),
        (
            &[issued.clone(), given.clone(), received(1, 439, 442, NOON), received(1, 442, 443, NOON)],
            "received",
            6,
        ),
        (&[issued.clone(), given.clone(), received(1, 439, 442, NOON), use_at(NOON)], "holder", 6),
        (&[issued.clone(), given.clone(), given.clone()], "given", 5),
        (&[issued.clone(), given.clone(), lapsed.clone()], "given", 5),
        (&[issued.clone(), withdrawn(1)], "received", 4),
        (&[issued.clone(), viewed(442)], "holder", 4),
        (&[issued.clone(), viewed(439), viewed(439)], "viewed once", 5),
        (&[issued.clone(), expired(NOON)], "expired", 4),
        (&[issued.clone(), moved(NOON - 2 * HOUR)], "dates", 4),
        (&[issued.clone(), review(5)], "reviewed", 4),
        (&[issued.clone(), use_at(NOON), review(6)], "reviewed", 5),
        (&[issued.clone(), given_as(u32::MAX), withdrawn(u32::MAX), given_as(0)], "given", 4),
        (&[issued.clone(), viewed(439), json!({"Exploded": {"at_ms": NOON}})], "event", 5),
        (&[issued.clone(), json!({"Viewed": {"member_id": "439"}})], "event", 4),
        (&[issued.clone(), json!({"Viewed": {"member_id": 439, "at_ms": NOON + DAY}})], "command time", 4),
    ];
    for (events, rule, position) in broken {
        assert_eq!(judged(events).await.first(), Some(&(*rule, Some(*position))), "{events:?}");
    }
    let locked =
        [&[issued.clone(), given.clone()], vec![wrong; 5].as_slice(), &[received(1, 439, 442, NOON)]]
            .concat();
    assert_eq!(judged(&locked).await, [("received", Some(10))]);
}

/// Ids count from 1 on. A forged 0 is told, and must not pass for "not used" or "not born" besides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_there_cannot_be_hides_no_second_use_and_no_second_issue() {
    let issued = |member: i64| json!({"Issued": born(member)});
    let redeemed = |id: i64, member: i64| json!({"Redeemed": {"redemption_id": id, "member_id": member, "shop_id": 1, "employee_id": 0, "at_ms": NOON}});
    let reversed = |id: i64| json!({"RedemptionReversed": {"redemption_id": id, "employee_id": 0, "reason": "r", "at_ms": NOON}});
    let given = json!({"Given": {"gift": 1, "member_id": 439, "code_key": "k", "lapses_at_ms": NOON + HOUR, "at_ms": NOON}});
    let received = json!({"Received": {"gift": 1, "giver_id": 439, "member_id": 0, "at_ms": NOON}});
    let imported = json!({"Imported": {"issue": born(439), "past": {"used": {"redemption_id": 0, "shop_id": 1, "employee_id": 0, "at_ms": NOON}}, "at_ms": NOON}});
    for (events, expected) in [
        (vec![issued(439), redeemed(0, 439), redeemed(2, 439)], vec![("ids", 4), ("used once", 5)]),
        (vec![imported, redeemed(2, 439)], vec![("ids", 3), ("used once", 4)]),
        (vec![issued(439), redeemed(0, 439), reversed(0), redeemed(2, 439)], vec![("ids", 4)]),
        (vec![issued(439), given, received, issued(439)], vec![("ids", 5), ("issued once", 6)]),
        (vec![issued(0), issued(439)], vec![("ids", 3), ("issued once", 4)]),
        (vec![issued(-1)], vec![("ids", 3)]),
    ] {
        let expected: Vec<_> = expected.into_iter().map(|(rule, position)| (rule, Some(position))).collect();
        assert_eq!(judged(&events).await, expected, "{events:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_numbered_one_after_the_other_and_notes_of_imports_stand_first() {
    let world = World::with_people(Engine::Sqlite).await;
    let rotated = |generation: u32| json!({"CheckpointKeyRotated": {"generation": generation, "verifier_key": "", "at_ms": NOON, "employee_id": 0}});
    let note = json!({"ImportedFrom": {"origin": "x", "size": i64::MAX, "root": "", "checkpoint": "", "digest": "", "at_ms": NOON}});
    // Positions 2 to 6: the one at 3 is forged, and the one at 6 is in no stream that rotates keys.
    force(&world, "ledger", 1, 0, &[rotated(2), rotated(u32::MAX)]).await;
    force(&world, "ledger", 3, 0, &[note]).await;
    force(&world, "ledger", 1, 2, &[rotated(4)]).await;
    force(&world, "ledger", 4, 0, &[rotated(3)]).await;
    let folder = tempfile::tempdir().unwrap();
    let trusted = trusted(&world).await;
    let found = async |from: i64| {
        let path = folder.path().join(from.to_string());
        export_part(&world, &path, from, None).await;
        rules(&check(&path, &trusted))
    };
    assert_eq!(found(1).await, [("keys", Some(3)), ("import", Some(4)), ("keys", Some(6))]);
    // A part that begins later cannot know how many keys or notes there were before it; then it counts on.
    assert_eq!(found(2).await, [("keys", Some(3)), ("import", Some(4)), ("keys", Some(6))]);
    assert_eq!(found(4).await, [("keys", Some(6))]);
    world.close().await;
}

/// Numbers at the ends of their range are findings like others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_without_measure_are_findings_and_no_crash() {
    let world = World::with_people(Engine::Sqlite).await;
    let id = world.issue(world.define(json!({})).await, 439).await;
    world.call(crate::harness::MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
    let (least, most) = (i64::MIN, i64::MAX);
    let stock = |by: i64, stock: i64| json!({"StockChanged": {"by": by, "stock": stock, "employee_id": 0, "at_ms": most}});
    force(&world, "definition", 1, 1, &[stock(least, most), stock(most, least)]).await;
    crate::log::without_guards(&world.home).await;
    let sequence = format!("UPDATE events SET sequence = {most} WHERE position = 3");
    let metadata = format!(
        "UPDATE events SET metadata = '{{\"append_id\":\"x\",\"receipts_hash\":\"{}\"}}' WHERE position = 1",
        "0".repeat(32)
    );
    for sql in [sequence, metadata] {
        world.home.sql(&sql).await.unwrap();
    }
    let receipt = format!("INSERT INTO receipts VALUES (0, 'c', 'o', 'k', 'm', 1, {most})");
    world.home.sql(&receipt).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    export_whole(&world, &folder.path().join("export")).await;
    let copy = Copy::of(&folder.path().join("export"));
    let report = check(copy.path(), &trusted(&world).await);
    assert_eq!(
        rules(&report),
        [
            ("receipts", Some(1)),
            ("receipts", Some(1)),
            ("receipts", Some(1)),
            ("sequence", Some(3)),
            ("sequence", Some(4)),
            ("stock", Some(5)),
            ("stock", Some(6)),
        ],
        "{:#?}",
        report.findings
    );
    let mut manifest = copy.manifest();
    manifest["to"] = most.into();
    copy.set_manifest(manifest);
    assert_eq!(rules(&check(copy.path(), &trusted(&world).await)), [("file", None)]);
    world.close().await;
}

/// A few bytes of a compressed file can be lines without end, and a manifest can name keys without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_export_that_is_made_to_fill_the_memory_only_so_much_is_read() {
    let (world, folder, trusted) = full_export().await;
    let copy = Copy::of(&folder.path().join("export"));
    for name in [EVENTS, RECEIPTS] {
        let lines = copy.lines(name);
        let mut more = lines.clone();
        more.extend(vec![b"{}".to_vec(); 5_000]);
        copy.set_lines(name, &more);
        let report = check(copy.path(), &trusted);
        let said = format!("it has more lines than the {} that the manifest says", lines.len());
        assert!(report.findings.iter().any(|finding| finding.what == said), "{:#?}", report.findings);
        assert_eq!((report.findings.len(), report.findings_left_out), (2, 0), "{:#?}", report.findings);
        copy.set_lines(name, &lines);
    }
    let mut manifest = copy.manifest();
    let key = manifest["proof"]["keys"][0].clone();
    manifest["proof"]["keys"] = vec![key; 1_001].into();
    copy.set_manifest(manifest);
    assert!(rules(&check(copy.path(), &trusted)).contains(&("manifest", None)));
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stock_sequences_and_times_are_checked_across_streams() {
    let world = World::with_people(Engine::Sqlite).await;
    world.define(json!({"num": 2})).await;
    let issued = |definition: i64| {
        let mut birth = born(439);
        birth["definition_id"] = definition.into();
        json!({"Issued": birth})
    };
    // Positions 3 to 6: the third is one too many; one of a definition that there is not.
    for (id, definition) in [(11, 1), (12, 1), (13, 1), (14, 9)] {
        force(&world, "coupon", id, 0, &[issued(definition)]).await;
    }
    // 7 to 10: a voided one makes room for another, a stock that does not add up, one below what is issued, switched off.
    force(&world, "coupon", 13, 1, &[json!({"Voided": {"employee_id": 0, "reason": "r", "at_ms": NOON}})])
        .await;
    force(
        &world,
        "definition",
        1,
        1,
        &[json!({"StockChanged": {"by": 1, "stock": 9, "employee_id": 0, "at_ms": NOON}})],
    )
    .await;
    force(
        &world,
        "definition",
        1,
        2,
        &[json!({"StockChanged": {"by": -8, "stock": 1, "employee_id": 0, "at_ms": NOON}})],
    )
    .await;
    force(
        &world,
        "definition",
        1,
        3,
        &[json!({"StateChanged": {"on": false, "employee_id": 0, "at_ms": NOON}})],
    )
    .await;
    // 11 and 12: from an allotment that there is not, and an id that is none.
    let mut birth = born(439);
    birth["source"] = "partner".into();
    birth["source_id"] = 5.into();
    force(&world, "coupon", 15, 0, &[json!({"Issued": birth})]).await;
    force(&world, "shop", 1, 1, &[json!({"Closed": {"employee_id": 0, "at_ms": NOON}})]).await;
    crate::log::without_guards(&world.home).await;
    world.home.sql("UPDATE events SET sequence = 7 WHERE position = 12").await.unwrap();
    world.home.sql("UPDATE events SET recorded_at_ms = 1 WHERE position = 10").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    export_whole(&world, &folder.path().join("export")).await;
    let report = check(&folder.path().join("export"), &trusted(&world).await);
    assert_eq!(
        rules(&report),
        [
            ("stock", Some(5)),
            ("stock", Some(6)),
            ("stock", Some(8)),
            ("stock", Some(9)),
            ("recorded time", Some(10)),
            ("command time", Some(10)),
            ("stock", Some(11)),
            ("sequence", Some(12)),
        ],
        "{:#?}",
        report.findings
    );
    world.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_checks_without_a_ledger_and_says_in_words_what_it_cannot() {
    let world = World::with_people(Engine::Sqlite).await;
    world.issue(world.define(json!({})).await, 439).await;
    let folder = tempfile::tempdir().unwrap();
    let export = folder.path().join("export");
    export_whole(&world, &export).await;
    let key = key_of(&world).await;
    let run = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_coupon-ledger"));
        // Nothing but the export is there.
        let done = command
            .env_clear()
            .current_dir(folder.path())
            .arg("check")
            .args(arguments)
            .output()
            .await
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code(), text(done.stdout), text(done.stderr))
    };
    let (code, out, err) = run(&["export", "--key", &key]).await;
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(
        out.starts_with("sound: coupon-ledger/") && out.contains("positions 1 to 3: 3 events, 0 receipts"),
        "{out}"
    );
    assert!(out.contains("as signed for 3 positions"), "{out}");
    let (code, out, _) = run(&["export", "--key", &key, "--json"]).await;
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["findings"], &report["signed_size"]), (Some(0), &json!([]), &json!(3)));
    // What the export says of its own keys is no signature.
    let (code, out, _) = run(&["export", "--unsigned"]).await;
    assert_eq!((code, out.contains("signed for")), (Some(0), false), "{out}");

    let copy = Copy::of(&export);
    let mut lines = copy.lines(EVENTS);
    let place = lines[2].len() - 40;
    lines[2][place] ^= 1;
    copy.set_lines(EVENTS, &lines);
    let tampered = copy.path().display().to_string();
    let (code, out, err) = run(&[&tampered, "--key", &key]).await;
    assert_eq!(code, Some(1));
    assert!(out.contains("position 3, coupon/1: the event is not what was signed (leaf)"), "{out}");
    assert!(err.ends_with("findings\n"), "{err}");

    std::fs::write(folder.path().join("odd.txt"), "hello").unwrap();
    for (arguments, said) in [
        (&["nowhere", "--key", &key][..], "cannot read nowhere: No such file or directory (os error 2)"),
        (&[".", "--key", &key], "there is no export in .: it has no manifest.json"),
        (&["odd.txt", "--key", &key], "odd.txt is neither the folder of an export nor a receipt"),
        (&["export", "--key", "nonsense"], "nonsense is no verifier key: "),
        (
            &["export", "--key", &key, "--checkpoint", "nowhere"],
            "cannot read nowhere: No such file or directory (os error 2)",
        ),
        (
            &["export", "--key", &key, "--checkpoint", "odd.txt"],
            "odd.txt cannot be used: it is no signed checkpoint",
        ),
    ] {
        let (code, _, err) = run(arguments).await;
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(err.starts_with(&format!("coupon-ledger: {said}")), "{arguments:?}: {err}");
    }
    assert_eq!(run(&["export"]).await.0, Some(2));
    world.close().await;
}
