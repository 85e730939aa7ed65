//! The log as Parquet: whole, in closed ranges that are never written again, and what other programs reckon from it is what the
//! server answers.

use std::collections::BTreeMap;
use std::path::Path;

use coupon_ledger::clock::Zone;
use coupon_ledger::exports::{LogFiles, write_log_files};
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::archive::full_life;
use crate::docs::{read, repository};
use crate::harness::{DAY, MEMBER, World, program, program_on_a_full_disk};
use crate::sheets::{Rows, read_with, table};
use crate::statistics::count_all;
use crate::v1::lines;

async fn write(world: &World, folder: &Path, to: Option<i64>) -> Result<LogFiles, String> {
    let written = write_log_files(world.store(), Zone::default(), folder, to, |_, _| {}).await;
    written.map_err(|error| error.to_string())
}

/// The file that has every column and no event.
const EMPTY: &str = "day=1970-01-01/empty.parquet";

/// Every file under a folder with its bytes, locks left out.
pub fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else if name != "manifest.ndjson.lock" {
            found.insert(name, std::fs::read(&path).unwrap());
        }
    }
    found
}

fn names(folder: &Path) -> Vec<String> {
    files(folder).into_keys().collect()
}

fn day_of(at_ms: i64) -> String {
    Zone::default().date_time(at_ms)[..10].to_owned()
}

/// Statements as DuckDB answers them in a folder.
pub fn duckdb(folder: &Path, statements: &[&str]) -> Vec<Rows> {
    let document = folder.join("statements.md");
    let blocks: Vec<String> = statements.iter().map(|sql| format!("```sql\n{sql}\n```\n")).collect();
    std::fs::write(&document, blocks.concat()).unwrap();
    serde_json::from_value(read_with("sql", &document, folder)).unwrap()
}

on_both_engines! {
    async fn the_files_hold_the_log_and_a_further_run_only_adds(engine: Engine) {
        let world = World::empty(engine).await;
        full_life(&world).await;
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("analytics");
        let head = world.store().head().await.unwrap();
        let first = write(&world, &folder, Some(10)).await.unwrap();
        assert_eq!((first.from, first.to, first.files), (1, 10, 1));
        let before = files(&folder);
        assert_eq!(before.keys().collect::<Vec<_>>(),
                   [EMPTY, "day=2026-11-23/events-000000000001-000000000010.parquet", "manifest.ndjson"]);
        let rest = write(&world, &folder, None).await.unwrap();
        assert_eq!((rest.from, rest.to), (11, head));
        // One file a day, but for the first run's end.
        let events = world.store().events_after(10, i64::MAX).await.unwrap();
        let mut days: Vec<String> = events.iter().map(|event| day_of(event.recorded_at_ms)).collect();
        days.dedup();
        assert!(days.len() > 1, "all on one day");
        days.insert(0, day_of(crate::harness::NOON));
        let written = names(&folder).into_iter().filter(|name| name != EMPTY);
        let written: Vec<String> = written.filter_map(|name| Some(name[4..].split_once('/')?.0.to_owned())).collect();
        assert_eq!(written, days);
        let nothing = write(&world, &folder, None).await.unwrap();
        assert_eq!((nothing.from, nothing.to, nothing.files), (head + 1, head, 0));
        world.advance(DAY);
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        let more = write(&world, &folder, None).await.unwrap();
        assert_eq!((more.from, more.files), (head + 1, 1));
        let after = files(&folder);
        for (name, bytes) in before.iter().filter(|(name, _)| *name != "manifest.ndjson") {
            assert!(after[name] == *bytes, "{name} was written again");
        }
        assert!(after["manifest.ndjson"].starts_with(&before["manifest.ndjson"]), "the manifest was written again");

        let sql = "SELECT bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                          recorded_at_ms, epoch_ms(recorded_at), day
                   FROM read_parquet('analytics/day=*/*.parquet', hive_partitioning = true) ORDER BY position";
        let rows = duckdb(place.path(), &[sql]).remove(0);
        let log = world.store().events_after(0, i64::MAX).await.unwrap();
        assert_eq!(rows.len(), log.len());
        for (row, event) in rows.into_iter().zip(log) {
            let at_ms = event.recorded_at_ms.to_string();
            let day = day_of(event.recorded_at_ms);
            assert_eq!(row, ["0".to_owned(), event.position.to_string(), event.aggregate_type, event.aggregate_id,
                             event.sequence.to_string(), event.event_type, event.event_version, event.payload,
                             event.metadata, at_ms.clone(), at_ms, day]);
        }
        // Each line of the manifest is a file as it lies there.
        let manifest = String::from_utf8(after["manifest.ndjson"].clone()).unwrap();
        let mut expected = 1;
        for line in manifest.lines().skip(1) {
            let entry: Value = serde_json::from_str(line).unwrap();
            let bytes = &after[entry["file"].as_str().unwrap()];
            let digest = coupon_ledger::value::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes));
            assert_eq!((&entry["bytes"], &entry["sha256"], &entry["from"]), (&json!(bytes.len()), &json!(digest), &json!(expected)));
            expected = entry["to"].as_i64().unwrap() + 1;
        }
        // All but the one of no position, and the manifest has a line of its own.
        assert_eq!((expected, manifest.lines().count()), (more.to + 1, after.len() - 1));
        world.close().await;
    }

    async fn a_log_in_which_nothing_has_happened_is_read_like_any_other(engine: Engine) {
        let world = World::empty(engine).await;
        assert_eq!(world.store().head().await.unwrap(), 0);
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("analytics");
        let output = program(&world.home).arg("export").arg("--parquet").arg(&folder).output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&told["from"], &told["to"], &told["files"]), (&json!(1), &json!(0), &json!(0)));
        let nothing = files(&folder);
        assert_eq!(names(&folder), [EMPTY, "manifest.ndjson"]);
        let document = repository().join("docs/analytics.md");
        let asked = || serde_json::from_value::<Vec<Rows>>(read_with("sql", &document, place.path())).unwrap();
        assert_eq!(asked()[1..], vec![Rows::new(); 4]);
        let columns = |file: &str| {
            let from = format!("read_parquet('analytics/{file}', hive_partitioning = true, hive_types = {{'day': DATE}})");
            duckdb(place.path(), &[&format!("SELECT column_name, column_type FROM (DESCRIBE FROM {from})")]).remove(0)
        };
        let of_none = columns("day=*/*.parquet");
        assert_eq!((of_none.len(), &of_none[10], of_none.last().unwrap()),
                   (20, &["recorded_at", "TIMESTAMP WITH TIME ZONE"].map(ToOwned::to_owned).to_vec(),
                    &["day", "DATE"].map(ToOwned::to_owned).to_vec()));

        // Nothing comes of nothing, and what happens later stands beside it.
        write(&world, &folder, None).await.unwrap();
        assert!(files(&folder) == nothing);
        world.add_people().await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        write(&world, &folder, Some(0)).await.unwrap();
        assert!(files(&folder) == nothing, "a range of nothing");
        let head = world.store().head().await.unwrap();
        let written = write(&world, &folder, None).await.unwrap();
        assert_eq!((written.from, written.to, written.files), (1, head, 1));
        let after = files(&folder);
        assert!(after[EMPTY] == nothing[EMPTY], "it was written again");
        let written = names(&folder).into_iter().find(|name| name.contains("events-")).unwrap();
        assert_eq!(columns(&written), of_none);
        assert_eq!(asked()[3], [[definition.to_string(), "1".to_owned(), "0".to_owned()]]);
        let events = "SELECT count(*), min(day) = max(day) FROM read_parquet('analytics/day=*/*.parquet')";
        assert_eq!(duckdb(place.path(), &[events]).remove(0), [[head.to_string(), "1".to_owned()]]);

        // A folder that a run has just begun is one already, and one in which events lie needs none.
        let begun = tempfile::tempdir().unwrap();
        std::fs::write(begun.path().join("manifest.ndjson"), &nothing["manifest.ndjson"]).unwrap();
        write(&world, begun.path(), Some(0)).await.unwrap();
        assert!(files(begun.path()) == nothing);
        std::fs::remove_dir_all(folder.join("day=1970-01-01")).unwrap();
        write(&world, &folder, None).await.unwrap();
        assert!(!names(&folder).contains(&EMPTY.to_owned()));
        world.close().await;
    }

    async fn a_run_that_was_cut_off_is_gone_on_with(engine: Engine) {
        let world = World::empty(engine).await;
        full_life(&world).await;
        let whole = tempfile::tempdir().unwrap();
        write(&world, whole.path(), Some(10)).await.unwrap();
        write(&world, whole.path(), None).await.unwrap();
        let whole = files(whole.path());
        let last = whole.keys().filter(|name| name.starts_with("day=")).max().unwrap();

        // In the manifest, but without its name.
        let place = tempfile::tempdir().unwrap();
        write(&world, place.path(), Some(10)).await.unwrap();
        write(&world, place.path(), None).await.unwrap();
        std::fs::rename(place.path().join(last), place.path().join(last).with_file_name("events.draft")).unwrap();
        assert_eq!(write(&world, place.path(), None).await.unwrap().files, 0);
        assert!(files(place.path()) == whole);

        // A draft, and half a line of the manifest.
        let place = tempfile::tempdir().unwrap();
        write(&world, place.path(), Some(10)).await.unwrap();
        std::fs::write(place.path().join("day=2026-11-23/events.draft"), "PAR1 and").unwrap();
        let manifest = place.path().join("manifest.ndjson");
        let torn = [std::fs::read(&manifest).unwrap(), b"{\"file\":\"day=2026-11-2".to_vec()].concat();
        std::fs::write(&manifest, torn).unwrap();
        write(&world, place.path(), None).await.unwrap();
        assert!(files(place.path()) == whole);

        // What cannot be found any more is told, never written anew.
        std::fs::remove_file(place.path().join(last)).unwrap();
        let said = write(&world, place.path(), None).await.unwrap_err();
        assert!(said.ends_with("is missing"), "{said}");
        world.close().await;
    }

    async fn a_folder_of_another_log_or_zone_is_refused_and_a_position_that_is_none(engine: Engine) {
        let world = World::with_people(engine).await;
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("analytics");
        let head = world.store().head().await.unwrap();
        let said = write(&world, &folder, Some(head + 1)).await.unwrap_err();
        assert_eq!(said, format!("there is no position {}: the log ends at {head}", head + 1));
        write(&world, &folder, None).await.unwrap();
        let other = World::with_people(engine).await;
        let said = write(&other, &folder, None).await.unwrap_err();
        assert!(said.starts_with("the folder is of coupon-ledger/"), "{said}");
        let zone = Zone("Europe/Berlin".parse().unwrap());
        let said = write_log_files(world.store(), zone, &folder, None, |_, _| {}).await.unwrap_err().to_string();
        assert!(said.contains("Asia/Shanghai") && said.contains("Europe/Berlin"), "{said}");
        // The same ledger with another history, as after a restored backup.
        let manifest = folder.join("manifest.ndjson");
        let mut text = std::fs::read_to_string(&manifest).unwrap();
        let leaf = text.rfind("\"last_leaf\":\"").unwrap() + 13;
        text.replace_range(leaf..leaf + 2, if text[leaf..].starts_with("00") { "11" } else { "00" });
        std::fs::write(&manifest, text).unwrap();
        let said = write(&world, &folder, None).await.unwrap_err();
        assert_eq!(said, format!("the folder holds another log: position {head} is not the same event"));
        // Somebody else's folder.
        let theirs = place.path().join("theirs");
        std::fs::create_dir_all(theirs.join("photos")).unwrap();
        let said = write(&world, &theirs, None).await.unwrap_err();
        assert!(said.contains("is no folder of ours"), "{said}");
        for world in [world, other] {
            world.close().await;
        }
    }

    async fn the_command_line_writes_them_and_a_full_disk_is_told(engine: Engine) {
        let world = World::with_people(engine).await;
        let head = world.store().head().await.unwrap();
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("analytics");
        let run = async |mut command: tokio::process::Command, more: &[&str]| {
            command.arg("export").arg("--parquet").arg(&folder).args(more);
            let output = command.output().await.unwrap();
            let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
            (output.status.code(), text(output.stdout), text(output.stderr))
        };
        let (code, out, err) = run(program_on_a_full_disk(&world.home, 0), &[]).await;
        assert_eq!((code, out.as_str()), (Some(2), ""));
        assert!(err.contains("coupon-ledger: cannot write ") && !err.contains("panicked"), "{err}");
        let (code, out, err) = run(program(&world.home), &[]).await;
        assert_eq!(code, Some(0), "{err}");
        let told: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((&told["from"], &told["to"], &told["files"]), (&json!(1), &json!(head), &json!(1)));
        for (more, said) in [
            (vec!["--out", "elsewhere"], "cannot be used with"),
            (vec!["--to", "99"], "there is no position 99"),
        ] {
            let (code, _, err) = run(program(&world.home), &more).await;
            assert_eq!(code, Some(2));
            assert!(err.contains(said), "{err}");
        }
        world.close().await;
    }

    /// The questions of docs/analytics.md, as they stand there.
    async fn what_duckdb_reckons_is_what_the_server_answers(engine: Engine) {
        let world = World::empty(engine).await;
        full_life(&world).await;
        let definition = world.define(json!({})).await;
        for member in [439, 442, 439] {
            let coupon = world.issue(definition, member).await;
            let body = json!({"mem_coupon_id": coupon, "shop_id": 1});
            world.call(Caller::Member(member), "/client/auditcoupon", body).await.ok();
        }
        let place = tempfile::tempdir().unwrap();
        write(&world, &place.path().join("analytics"), None).await.unwrap();
        let document = repository().join("docs/analytics.md");
        let answers: Vec<Rows> = serde_json::from_value(read_with("sql", &document, place.path())).unwrap();
        assert_eq!(answers.len(), read("docs/analytics.md").matches("```sql\n").count());
        let [_, by_day, by_shop, by_definition, deeds] = answers.try_into().unwrap();
        count_all(&world).await;
        let figures = async |query: &str, columns: &[&str]| {
            let days = "start=2026-01-01&end=2027-12-31&limit=10000";
            let path = format!("/v1/statistics/figures?{days}&{query}");
            let answer = world.get(Caller::Auditor, &path).await;
            let shown = |cell: &Value| cell.as_str().map_or_else(|| cell.to_string(), ToOwned::to_owned);
            let row = |row: &Value| columns.iter().map(|column| shown(&row[*column])).collect();
            answer.body["rows"].as_array().unwrap().iter().map(row).collect::<Rows>()
        };
        let told = figures("measures=redeemed,reversed&by=shop_id&grain=day", &["start", "shop_id", "redeemed", "reversed"]);
        let told: Rows = told.await.into_iter().filter(|row| row[2..] != ["0", "0"]).collect();
        assert!(told.iter().any(|row| row[3] != "0"), "nothing was taken back");
        assert_eq!(by_day, told);
        assert_eq!(by_definition, figures("measures=issued,used&by=definition_id", &["definition_id", "issued", "used"]).await);

        let text = |cell: &Value| cell.as_str().unwrap().to_owned();
        let mut redemptions: BTreeMap<(String, String), i64> = BTreeMap::new();
        for row in table(&world, "redemptions", "").await.iter().filter(|row| row["reversed_at"] == "") {
            *redemptions.entry((text(&row["used_at"])[..10].to_owned(), text(&row["shop_id"]))).or_default() += 1;
        }
        let redemptions: Rows = redemptions.into_iter().map(|((day, shop), count)| vec![day, shop, count.to_string()]).collect();
        assert_eq!(by_shop, redemptions);
        // And as the page tells it, whose rows are redemptions of all days.
        let page = world.operator("/auditelecoupon/getlist", json!({"limit": 100})).await;
        let standing = page.ok().as_array().unwrap().iter().filter(|row| row["reverse_date"] == 0).count();
        assert_eq!(by_shop.iter().map(|row| row[2].parse::<usize>().unwrap()).sum::<usize>(), standing);

        let mut issued: BTreeMap<i64, (std::collections::BTreeSet<String>, i64)> = BTreeMap::new();
        for row in table(&world, "coupons", "").await {
            let (coupons, used) = issued.entry(text(&row["definition_id"]).parse().unwrap()).or_default();
            coupons.insert(text(&row["coupon_id"]));
            *used += i64::from(row["used_at"] != "");
        }
        let issued = issued.into_iter().map(|(definition, (coupons, used))| {
            vec![definition.to_string(), coupons.len().to_string(), used.to_string()]
        });
        assert_eq!(by_definition, issued.collect::<Rows>());

        let done = world.get(Caller::Auditor, &format!("/v1/callers/{MEMBER}/events?limit=1000")).await;
        let told = lines(&done).into_iter().map(|event| {
            let kind = event["stream"].as_str().unwrap().split('/').next().unwrap().to_owned();
            vec![event["position"].to_string(), kind, text(&event["type"])]
        });
        let told = told.filter(|event| event[1] != "refusals");
        assert_eq!(deeds, told.collect::<Rows>());
        world.close().await;
    }
}
