//! What files say of themselves and of their cells: dates are dates and numbers numbers to whoever opens one, of nothing there are
//! heads, and by what a file is filtered stands in it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use coupon_ledger::exports::{Format, Kind, SHEETS};
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::harness::World;
use crate::sheets::{csv_rows, file, header, life, read_all_with, read_with, rows_of};
use crate::statistics::count_all;

/// What a cell is to openpyxl: its type (s text, n number, d date, b yes or no) and how it is shown.
fn in_workbook(kind: Kind) -> &'static str {
    match kind {
        Kind::Id | Kind::Int => "n 0",
        Kind::Hundredths => "n 0.00",
        Kind::Share => "n 0.00%",
        Kind::Text => "s @",
        Kind::Day => r"d yyyy\-mm\-dd",
        Kind::Instant => r"d yyyy\-mm\-dd\ hh:mm:ss",
        Kind::Flag => "b General",
    }
}

/// What a column is to DuckDB.
fn in_parquet(kind: Kind) -> &'static str {
    match kind {
        Kind::Id | Kind::Int => "BIGINT",
        Kind::Hundredths => "DECIMAL(18,2)",
        Kind::Share => "DECIMAL(18,4)",
        Kind::Text => "VARCHAR",
        Kind::Day => "DATE",
        Kind::Instant => "TIMESTAMP WITH TIME ZONE",
        Kind::Flag => "BOOLEAN",
    }
}

/// The types that a worksheet's columns must have under a head of texts; which kinds had something in them.
fn assert_cells(worksheet: &Value, kinds: &[Kind], of: &str) -> BTreeSet<String> {
    assert_eq!(worksheet["frozen"], "A2", "{of}");
    let rows = rows_of(&worksheet["rows"]);
    assert_eq!(rows[0], vec!["s @"; kinds.len()], "the head of {of}");
    let mut met = BTreeSet::new();
    for row in &rows[1..] {
        for (number, (cell, kind)) in
            row.iter().zip(kinds).enumerate().filter(|(_, (cell, _))| !cell.is_empty())
        {
            assert_eq!(cell, in_workbook(*kind), "column {number} of {of}");
            met.insert(format!("{kind:?}"));
        }
    }
    met
}

/// Puts what these paths answer into a folder, each file under a name of its own.
async fn put(world: &World, folder: &Path, asked: &[(String, Format)]) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for (number, (asked, format)) in asked.iter().enumerate() {
        let (_, bytes) = file(world, Caller::Auditor, asked).await;
        let path = folder.join(format!("{number}.{}", format.name()));
        std::fs::write(&path, bytes).unwrap();
        paths.push(path);
    }
    paths
}

on_both_engines! {
    async fn dates_are_dates_and_numbers_numbers_to_whoever_opens_a_list(engine: Engine) {
        let world = life(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let asked = SHEETS.iter().flat_map(|sheet| {
            let path = |format: Format, lang| (format!("/v1/exports/{}.{}?lang={lang}", sheet.name, format.name()), format);
            [path(Format::Xlsx, "zh-TW"), path(Format::Xlsx, "zh-CN"), path(Format::Parquet, "zh-TW")]
        });
        let paths = put(&world, folder.path(), &asked.collect::<Vec<_>>()).await;
        let read = read_all_with("types", &paths, folder.path());
        let mut met = BTreeSet::new();
        for (sheet, files) in SHEETS.iter().zip(read.as_array().unwrap().chunks(3)) {
            let [traditional, simplified, parquet] = files else { panic!("{files:?}") };
            let kinds: Vec<Kind> = sheet.columns.iter().map(|column| column.kind).collect();
            for (workbook, name, about) in
                [(traditional, sheet.words[0], "說明"), (simplified, sheet.words[1], "说明")]
            {
                assert_eq!((&workbook[0]["name"], &workbook[1]["name"]), (&json!(name), &json!(about)));
                met.extend(assert_cells(&workbook[0], &kinds, name));
            }
            let columns: Vec<_> = sheet.columns.iter().map(|column| json!([column.name, in_parquet(column.kind)])).collect();
            assert_eq!(*parquet, json!(columns), "{}", sheet.name);
        }
        // No list has a share in it; statistics do.
        assert_eq!(Vec::from_iter(met), ["Day", "Flag", "Hundredths", "Id", "Instant", "Int", "Text"]);
        world.close().await;
    }

    async fn they_are_to_whoever_opens_a_statistic(engine: Engine) {
        use Kind::{Day, Hundredths, Id, Int, Share};
        let world = life(engine).await;
        count_all(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let days = "start=2026-01-01&end=2027-12-31";
        let measures = "issued,used_cents,average_score,redemption_rate,median_days";
        let of_figures = format!("{days}&by=definition_id,source&grain=month&measures={measures}");
        let reports = [
            ("figures", of_figures.as_str(), "統計", vec![
                ("start", Day), ("end", Day), ("definition_id", Id), ("source", Int), ("issued", Int), ("used_value", Hundredths),
                ("average_score", Hundredths), ("redemption_rate", Share), ("median_days", Int),
            ]),
            ("cohorts", "start=2026-11-01&issued=day&used=week", "發放批次追蹤", vec![
                ("cohort_start", Day), ("cohort_end", Day), ("issued", Int), ("start", Day), ("end", Day), ("seen", Int),
                ("used", Int), ("seen_so_far", Int), ("used_so_far", Int),
            ]),
            ("funnel", days, "轉化漏斗", vec![("start", Day), ("end", Day), ("issued", Int), ("seen", Int), ("used", Int)]),
        ];
        let asked = reports.iter().flat_map(|(report, query, ..)| {
            let path = |format: Format| (format!("/v1/exports/{report}.{}?{query}&lang=zh-TW", format.name()), format);
            [path(Format::Xlsx), path(Format::Parquet)]
        });
        let paths = put(&world, folder.path(), &asked.collect::<Vec<_>>()).await;
        let read = read_all_with("types", &paths, folder.path());
        for ((report, _, name, columns), files) in reports.iter().zip(read.as_array().unwrap().chunks(2)) {
            let [workbook, parquet] = files else { panic!("{files:?}") };
            let kinds: Vec<Kind> = columns.iter().map(|(_, kind)| *kind).collect();
            assert_eq!(workbook[0]["name"], *name);
            let met = assert_cells(&workbook[0], &kinds, report);
            let all: BTreeSet<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
            assert_eq!(met, all, "a kind of {report} has nothing in it");
            let columns: Vec<_> = columns.iter().map(|(name, kind)| json!([name, in_parquet(*kind)])).collect();
            assert_eq!(*parquet, json!(columns), "{report}");
        }
        world.close().await;
    }

    async fn a_statistic_of_nothing_is_a_file_with_heads(engine: Engine) {
        let world = World::empty(engine).await;
        count_all(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let day = "start=2026-11-23&end=2026-11-23";
        let nothing = Vec::<Vec<String>>::new();
        let noughts = vec![["2026-11-23", "2026-11-23", "0", "0", "0"].map(ToOwned::to_owned).to_vec()];
        let of_day: Vec<String> = "2026-11-23,2026-11-23,0,2026-11-23,2026-11-23,0,0,0,0".split(',').map(ToOwned::to_owned).collect();
        for (report, query, head, names, rows) in [
            ("figures", format!("{day}&by=shop_id&measures=issued,used_cents"), "起始日,結束日,門店ID,發放,已使用金額",
             "start,end,shop_id,issued,used_value", &nothing),
            ("cohorts", format!("{day}&issued=day&used=day"), "發放起始日,發放結束日,發放,起始日,結束日,已查看,已使用,累計查看,累計使用",
             "cohort_start,cohort_end,issued,start,end,seen,used,seen_so_far,used_so_far", &vec![of_day]),
            ("funnel", day.to_owned(), "起始日,結束日,發放,已查看,已使用", "start,end,issued,seen,used", &noughts),
        ] {
            let head: Vec<&str> = head.split(',').collect();
            for format in Format::ALL {
                let path = format!("/v1/exports/{report}.{}?{query}&lang=zh-TW", format.name());
                let (headers, bytes) = file(&world, Caller::Auditor, &path).await;
                assert_eq!(header(&headers, "x-export-rows"), rows.len().to_string());
                let at = folder.path().join(format!("file.{}", format.name()));
                std::fs::write(&at, &bytes).unwrap();
                let (first, rest) = match format {
                    Format::Csv => {
                        let mut rows = csv_rows(&bytes);
                        (json!(rows.remove(0)), json!(rows))
                    }
                    Format::Xlsx => {
                        let mut rows = rows_of(&read_with("rows", &at, folder.path())[0]["rows"]);
                        (json!(rows.remove(0)), json!(rows))
                    }
                    Format::Parquet => {
                        let read = read_with("rows", &at, folder.path());
                        assert_eq!(read["columns"], json!(names.split(',').collect::<Vec<_>>()));
                        (json!(head), read["rows"].clone())
                    }
                };
                assert_eq!((first, rest), (json!(head), json!(rows)), "{report} as {}", format.name());
            }
        }
        world.close().await;
    }

    /// A page is told how many there are in all; a file is what there is.
    async fn a_file_of_figures_has_all_of_them_unless_it_is_asked_for_fewer(engine: Engine) {
        let world = World::with_people(engine).await;
        count_all(&world).await;
        let rows: Vec<String> = (1..=1_500).map(|shop| format!("(0, 20261123, {shop}, 1)")).collect();
        let sql = format!("INSERT INTO stats_shops_v1 (bucket, day, shop_id, redeemed) VALUES {}", rows.join(", "));
        world.home.sql(&sql).await.unwrap();
        let query = "by=shop_id&measures=redeemed&start=2026-11-23&end=2026-11-23";
        let page = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await.body;
        assert_eq!((&page["total"], page["rows"].as_array().unwrap().len()), (&json!(1_500), 1_000));
        let behind = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}&offset=1000")).await.body;
        let shops: Vec<i64> = behind["rows"].as_array().unwrap().iter().map(|row| row["shop_id"].as_i64().unwrap()).collect();
        assert_eq!(shops, (1_001..=1_500).collect::<Vec<_>>());
        for (query, rows) in [(query.to_owned(), 1_500), (format!("{query}&limit=7&offset=1"), 7)] {
            let (headers, bytes) = file(&world, Caller::Auditor, &format!("/v1/exports/figures.csv?{query}")).await;
            let shops: Vec<String> = csv_rows(&bytes).into_iter().skip(1).map(|row| row[2].clone()).collect();
            let first = if rows == 7 { 2 } else { 1 };
            assert_eq!(shops, (first..first + rows).map(|shop| shop.to_string()).collect::<Vec<_>>());
            assert_eq!(header(&headers, "x-export-rows"), rows.to_string());
        }
        world.close().await;
    }

    async fn by_what_a_file_is_filtered_stands_in_its_name_its_head_and_itself(engine: Engine) {
        let world = life(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let asked = "begin=2026-11-01&end=2027-12-31&member_id=442&state=used";
        let position = world.store().head().await.unwrap().to_string();
        for format in Format::ALL {
            // However it is asked for, it stands there in one order.
            let query = "end=2027-12-31&state=used&begin=2026-11-01&member_id=442&definition_id=&lang=zh-CN";
            let path = format!("/v1/exports/coupons.{}?{query}&at={position}", format.name());
            let (headers, bytes) = file(&world, Caller::Auditor, &path).await;
            let name = format!("coupons-{position}-begin-2026-11-01-end-2027-12-31-member_id-442-state-used.{}", format.name());
            assert_eq!(header(&headers, "content-disposition"), format!("attachment; filename=\"{name}\""));
            assert_eq!((header(&headers, "x-export-filter"), header(&headers, "x-export-position")), (asked, position.as_str()));
            assert_ne!(header(&headers, "x-export-rows"), "0");
            let at = folder.path().join(format!("file.{}", format.name()));
            std::fs::write(&at, &bytes).unwrap();
            match format {
                Format::Csv => {
                    let rows = csv_rows(&bytes);
                    assert!(rows[1..].iter().all(|row| row[1] == "442" && row[6] == "used"), "{rows:?}");
                }
                Format::Xlsx => {
                    let about = rows_of(&read_with("rows", &at, folder.path())[1]["rows"]);
                    for (fact, value) in [("报表", "coupons"), ("日志位置", position.as_str()), ("筛选条件", asked)] {
                        assert!(about.contains(&vec![fact.to_owned(), value.to_owned()]), "{fact} in {about:?}");
                    }
                }
                Format::Parquet => {
                    let facts = read_with("facts", &at, folder.path());
                    assert_eq!(
                        [&facts["coupon-ledger.sheet"], &facts["coupon-ledger.position"], &facts["coupon-ledger.filter"]],
                        ["coupons", position.as_str(), asked]
                    );
                }
            }
        }
        world.close().await;
    }
}
