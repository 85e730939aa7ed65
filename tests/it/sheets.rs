//! Lists as files: the same rows as pages, CSV, workbook and Parquet show them, each read by a program it is made for, all as
//! of one position.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use axum::http::HeaderMap;
use coupon_ledger::clock::Zone;
use coupon_ledger::exports::{ExportPlace, Format, SHEETS, Sheet};
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use coupon_ledger::value::money_text;
use serde_json::{Value, json};

use crate::archive::full_life;
use crate::docs::repository;
use crate::harness::{EMPLOYEE, Engine, FRIEND, INSERT_MEMBERS, MEMBER, World};
use crate::statistics::count_all;

/// What a file holds, as a program reads it that it is made for (tests/reader.py).
pub fn read_with(what: &str, path: &Path, folder: &Path) -> Value {
    read_all_with(what, &[path.to_owned()], folder)
}

/// The same of several files at once, where the reader takes them.
pub fn read_all_with(what: &str, paths: &[PathBuf], folder: &Path) -> Value {
    let mut reader = Command::new(repository().join("tests/python"));
    reader.arg(repository().join("tests/reader.py")).arg(what).args(paths).current_dir(folder);
    let output = reader.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub type Rows = Vec<Vec<String>>;

/// The records of a CSV.
pub fn csv_rows(bytes: &[u8]) -> Rows {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(bytes);
    reader.records().map(|record| record.unwrap().iter().map(ToOwned::to_owned).collect()).collect()
}

/// Without the apostrophe before what would be a formula.
fn as_meant(rows: Rows) -> Rows {
    let meant = |cell: String| match cell.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '+', '-', '@']) => rest.to_owned(),
        _ => cell,
    };
    rows.into_iter().map(|row| row.into_iter().map(meant).collect()).collect()
}

/// The same of one cell.
pub fn as_shown(cell: &Value) -> Value {
    as_meant(vec![vec![cell.as_str().unwrap().to_owned()]]).concat().remove(0).into()
}

pub fn rows_of(value: &Value) -> Rows {
    serde_json::from_value(value.clone()).unwrap()
}

/// A file that is answered at once.
pub async fn file(world: &World, caller: Caller, path: &str) -> (HeaderMap, Vec<u8>) {
    let bearer = format!("Bearer {}", world.token(caller));
    let (status, headers, bytes) = world.bytes("GET", path, &[("authorization", &bearer)], Vec::new()).await;
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&bytes));
    (headers, bytes.to_vec())
}

/// The rows of a sheet as CSV with English heads, each row by column.
pub async fn table(world: &World, sheet: &str, query: &str) -> Vec<Value> {
    let (_, bytes) = file(world, Caller::Operator, &format!("/v1/exports/{sheet}.csv?lang=en&{query}")).await;
    let names = Sheet::named(sheet).unwrap().columns.iter().map(|column| column.name);
    let named = |row: Vec<String>| {
        names.clone().zip(row).map(|(name, cell)| (name.to_owned(), cell.into())).collect()
    };
    csv_rows(&bytes).into_iter().skip(1).map(|row| Value::Object(named(row))).collect()
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

/// Unix seconds as files show them.
fn instant(seconds: &Value) -> Value {
    // Some pages show the time itself.
    let Some(seconds) = seconds.as_i64() else { return seconds.clone() };
    let at_ms = seconds * 1_000;
    if at_ms == 0 { "".into() } else { Zone::default().date_time(at_ms).into() }
}

/// A number as files show it; none for 0.
fn id(number: &Value) -> Value {
    match number.as_i64() {
        Some(0) => "".into(),
        Some(number) => number.to_string().into(),
        None => number.clone(),
    }
}

fn pick(row: &Value, columns: &[&str]) -> Value {
    columns.iter().map(|column| row[column].clone()).collect()
}

fn by_first(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_key(|row| row[0].as_str().unwrap().parse::<i64>().unwrap());
    rows
}

/// A ledger in which everything has happened, with titles and names that spreadsheets would run.
pub async fn life(engine: Engine) -> World {
    let world = World::empty(engine).await;
    full_life(&world).await;
    let title = "=HYPERLINK(\"http://evil\",\"券\")";
    let definition = world.define(json!({"title": title, "rules": "第一行\n<&\"'>_末行"})).await;
    world.issue(definition, 439).await;
    let danger =
        json!({"id": 443, "nickname": "@SUM(A1)", "phone": "+886912345678", "birthday": "1990-02-28"});
    world.operator("/member/add", danger).await.ok();
    let body = json!({"member_id": 442, "goods": [{"goods_id": 7, "price": "33.33", "state": 1, "count": 1}],
                      "remark": "-1+1"});
    world.call(EMPLOYEE, "/order/add", body).await.ok();
    for (route, body) in [
        ("/memberlevel/add", json!({"name": "金卡", "remark": "-1"})),
        ("/tag/add", json!({"tag_name": "常客", "color": "#fa0"})),
        ("/office/add", json!({"title": "店長"})),
        ("/office/setcompetence", json!({"id": 2, "competence_ids": "5,9"})),
        ("/user/edit", json!({"id": 1000, "office_id": 2})),
    ] {
        world.operator(route, body).await.ok();
    }
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    for path in
        ["/v1/machine-keys?name=till&rights=read,orders", "/v1/webhooks?url=https://1.1.1.1/x&stream=coupon"]
    {
        let reply = world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
    world
}

/// A cell of a statistic's page as files show it.
fn shown(name: &str, cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        cell if name.ends_with("_cents") => money_text(cell.as_i64().unwrap()),
        cell if name == "redemption_rate" => format!("{:.4}", cell.as_f64().unwrap()),
        cell if name == "average_score" => format!("{:.2}", cell.as_f64().unwrap()),
        cell => cell.to_string(),
    }
}

on_both_engines! {
    async fn statistics_are_the_same_as_page_csv_workbook_and_parquet(engine: Engine) {
        let world = life(engine).await;
        count_all(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let (days, only_some) = ("start=2026-01-01&end=2027-12-31", "&only=source:0,5,8");
        let of_both = "redeemed,reversed,reviewed,score,redeemed_cents,reversed_cents,\
                       average_score,median_days,members,returning_members,used,used_cents";
        let measures = format!("{of_both},issued,claimed,viewed,given,withdrawn,lapsed,received,expired,voided,outstanding,\
                       issued_cents,expired_cents,voided_cents,outstanding_cents,redemption_rate");
        let names = format!("start,end,definition_id,source,{measures}");
        let by_shop = format!("{days}&measures={of_both}&by=shop_id,employee_id,partner_id&grain=week");
        let names_by_shop = format!("start,end,shop_id,employee_id,partner_id,{of_both}");
        let figures = format!("{days}&measures={measures}&by=definition_id,source&grain=month{only_some}");
        for (report, query, names) in [
            ("figures", figures.as_str(), names.as_str()),
            ("figures", by_shop.as_str(), names_by_shop.as_str()),
            ("cohorts", "start=2026-11-01&issued=day&used=week", "start,end,issued"),
            ("funnel", days, "start,end,issued,seen,used"),
        ] {
            let page = world.get(Caller::Auditor, &format!("/v1/statistics/{report}?{query}")).await;
            let page = &page.body;
            let cells = |row: &Value, names: &str| -> Vec<String> {
                names.split(',').map(|name| shown(name, &row[name])).collect()
            };
            let expected: Rows = match report {
                "figures" => page["rows"].as_array().unwrap().iter().map(|row| cells(row, names)).collect(),
                "cohorts" => {
                    let cohorts = page["cohorts"].as_array().unwrap().iter();
                    let periods = |cohort: &Value| -> Rows {
                        let of_cohort = cells(cohort, names);
                        let periods = cohort["periods"].as_array().unwrap().iter();
                        periods.map(|period| {
                            let of_period = cells(period, "start,end,seen,used,seen_so_far,used_so_far");
                            [of_cohort.clone(), of_period].concat()
                        }).collect()
                    };
                    cohorts.flat_map(periods).collect()
                }
                _ => vec![cells(page, names)],
            };
            assert!(expected.len() > usize::from(report != "funnel"), "{report} has no rows");
            let position = page["as_of"]["position"].to_string();
            for format in Format::ALL {
                let path = format!("/v1/exports/{report}.{}?{query}&lang=en", format.name());
                let (headers, bytes) = file(&world, Caller::Auditor, &path).await;
                assert_eq!(header(&headers, "x-export-position"), position);
                let recorded_at_ms = page["as_of"]["recorded_at_ms"].as_i64().unwrap();
                assert_eq!(header(&headers, "x-export-at-ms"), recorded_at_ms.to_string());
                assert_eq!(header(&headers, "x-export-rows"), expected.len().to_string());
                let asked = header(&headers, "x-export-filter");
                let only = asked.ends_with(only_some);
                assert!(asked.starts_with("start=2026-") && only == query.ends_with(only_some), "{asked}");
                let at = folder.path().join(format!("file.{}", format.name()));
                std::fs::write(&at, &bytes).unwrap();
                let rows = match format {
                    Format::Csv => csv_rows(&bytes)[1..].to_vec(),
                    Format::Xlsx => {
                        let read = read_with("rows", &at, folder.path());
                        assert_eq!(&read[0]["frozen"], &json!("A2"));
                        let about = rows_of(&read[1]["rows"]);
                        assert!(about.contains(&vec!["Position of the log".to_owned(), position.clone()]), "{about:?}");
                        assert!(about.contains(&vec!["Filter".to_owned(), asked.to_owned()]), "{about:?}");
                        let instant = Zone::default().date_time(recorded_at_ms);
                        assert!(about.contains(&vec!["As of".to_owned(), instant.clone()]), "{instant} in {about:?}");
                        rows_of(&read[0]["rows"])[1..].to_vec()
                    }
                    Format::Parquet => {
                        let facts = read_with("facts", &at, folder.path());
                        assert_eq!(&facts["coupon-ledger.position"], &json!(position));
                        rows_of(&read_with("rows", &at, folder.path())["rows"])
                    }
                };
                assert_eq!(rows, expected, "{report} as {}", format.name());
            }
        }
        // In another language, and of nothing: heads alone.
        let nothing = "/v1/exports/figures.csv?lang=zh-TW&measures=issued,used_cents&by=shop_id&only=shop_id:9007199254740991";
        let (_, bytes) = file(&world, Caller::Auditor, nothing).await;
        assert_eq!(String::from_utf8(bytes).unwrap(), "起始日,結束日,門店ID,發放,已使用金額\r\n");
        for wrong in ["by=colour", "measures=joy", "start=2026-11-30&end=2026-11-01", "start=2026-02-30", "grain=hour",
                      "grain=day&start=1900-01-01", "only=shop_id", "lang=klingon", "sort=voided&measures=issued"] {
            let refused = world.get(Caller::Auditor, &format!("/v1/exports/figures.csv?{wrong}")).await;
            assert_eq!((refused.status.as_u16(), &refused.body["code"]), (400, &json!(401)), "{wrong}: {}", refused.body);
        }
        world.close().await;
    }

    async fn every_sheet_is_the_same_as_csv_workbook_and_parquet(engine: Engine) {
        let world = life(engine).await;
        let folder = tempfile::tempdir().unwrap();
        for sheet in SHEETS {
            let [mut csv, mut workbook, mut parquet] = [const { Vec::new() }; 3];
            let mut positions = Vec::new();
            for (format, bytes) in Format::ALL.into_iter().zip([&mut csv, &mut workbook, &mut parquet]) {
                let path = format!("/v1/exports/{}.{}?lang=en", sheet.name, format.name());
                // Who reads personal data moves it on.
                let position = world.store().head().await.unwrap().to_string();
                let (headers, answered) = file(&world, Caller::Auditor, &path).await;
                *bytes = answered;
                assert_eq!(header(&headers, "content-type"), format.media_type());
                let name = format!("attachment; filename=\"{}-{position}.{}\"", sheet.name, format.name());
                assert_eq!(header(&headers, "content-disposition"), name);
                assert_eq!((header(&headers, "x-export-position"), header(&headers, "x-export-filter")), (position.as_str(), ""));
                std::fs::write(folder.path().join(format!("file.{}", format.name())), bytes).unwrap();
                positions.push(position);
            }
            let csv = csv_rows(&csv);
            let words: Vec<&str> = sheet.columns.iter().map(|column| column.words[2]).collect();
            assert_eq!(csv[0], words, "{}", sheet.name);
            assert!(csv.len() > 1, "{} is empty", sheet.name);
            let csv = as_meant(csv);

            let read = read_with("rows", &folder.path().join("file.xlsx"), folder.path());
            assert_eq!((&read[0]["name"], &read[0]["frozen"], &read[0]["formulas"]),
                       (&json!(sheet.words[2]), &json!("A2"), &json!([])), "{}", sheet.name);
            assert_eq!(rows_of(&read[0]["rows"]), csv, "{}", sheet.name);
            assert_eq!(read[1]["name"], "About");
            let said = rows_of(&read[1]["rows"]);
            assert!(said.contains(&vec!["Position of the log".to_owned(), positions[1].clone()]), "{said:?}");

            let read = read_with("rows", &folder.path().join("file.parquet"), folder.path());
            let names: Vec<&str> = sheet.columns.iter().map(|column| column.name).collect();
            assert_eq!(read["columns"], json!(names));
            assert_eq!(rows_of(&read["rows"]), csv[1..], "{}", sheet.name);
            let facts = read_with("facts", &folder.path().join("file.parquet"), folder.path());
            assert_eq!((&facts["coupon-ledger.position"], &facts["coupon-ledger.filter"]), (&json!(positions[2]), &json!("")));
        }
        world.close().await;
    }

    async fn a_text_that_begins_like_a_formula_is_one_nowhere(engine: Engine) {
        let world = life(engine).await;
        let texts = async |path: &str| csv_rows(&file(&world, Caller::Operator, path).await.1).concat();
        let all = [
            texts("/v1/exports/definitions.csv").await,
            texts("/v1/exports/members.csv").await,
            texts("/v1/exports/orders.csv").await,
        ];
        for (texts, formula) in all.iter().zip(["'=HYPERLINK(\"http://evil\",\"券\")", "'+886912345678", "'-1+1"]) {
            assert!(texts.iter().any(|text| text == formula), "{texts:?}");
        }
        let formulas = all.iter().flatten().filter(|text| text.starts_with(['=', '+', '-', '@', '\t', '\r']));
        assert_eq!(formulas.collect::<Vec<_>>(), Vec::<&String>::new());
        world.close().await;
    }

    /// The other lists are in `tests/it/sheet_pages.rs`.
    async fn a_file_of_coupons_shows_what_members_see(engine: Engine) {
        let world = life(engine).await;
        for (member, name) in [(439, MEMBER), (442, FRIEND)] {
            let mut pages = Vec::new();
            for (state, words) in [(0, ["unused", "pending"].as_slice()), (1, &["used", "given", "voided"]), (2, &["expired"])] {
                let body = json!({"state": state, "limit": 100});
                let page = world.call(name, "/client/couponlist", body).await.ok().as_array().unwrap().clone();
                let ids: BTreeSet<String> = page.iter().map(|row| row["id"].to_string()).collect();
                let mut in_file = BTreeSet::new();
                for word in words {
                    let rows = table(&world, "coupons", &format!("member_id={member}&state={word}")).await;
                    in_file.extend(rows.iter().map(|row| row["coupon_id"].as_str().unwrap().to_owned()));
                }
                assert_eq!(in_file, ids, "state {state} of {member}");
                pages.extend(page);
            }
            let page = pages.iter().map(|row| json!([
                id(&row["id"]), id(&row["coupon_id"]), row["start_date"], row["end_date"], instant(&row["create_date"]),
                instant(&row["use_date"]), instant(&row["give_date"]), id(&row["use_id"]), id(&row["receive_id"]),
                row["is_read"].to_string(), row["deduction"],
            ]));
            let columns = ["coupon_id", "definition_id", "start_date", "end_date", "issued_at", "used_at", "given_at",
                           "used_by", "received_by", "is_read", "deduction"];
            let rows = table(&world, "coupons", &format!("member_id={member}")).await;
            let rows: Vec<Value> = rows.iter().map(|row| pick(row, &columns)).collect();
            assert_eq!(by_first(page.collect()), rows, "{member}");
        }
        // Each word means one thing, as the row itself shows it.
        let today = world.ledger.now().day.to_string();
        let mut seen = BTreeSet::new();
        for row in table(&world, "coupons", "").await {
            let has = |column: &str| row[column] != "";
            let word = match (has("received_by"), has("used_at"), row["start_date"].as_str().unwrap() > today.as_str()) {
                (true, _, _) => ["given"].as_slice(),
                (false, true, _) => &["used"],
                (false, false, _) if has("given_at") => &["pending", "voided"],
                (false, false, _) if row["end_date"].as_str().unwrap() < today.as_str() => &["expired", "voided"],
                (false, false, _) => &["unused", "voided"],
            };
            let told = row["state"].as_str().unwrap();
            assert!(word.contains(&told), "{row}");
            seen.insert(told.to_owned());
        }
        let all: BTreeSet<String> = ["unused", "expired", "pending", "used", "given", "voided"].map(str::to_owned).into();
        assert_eq!(seen, all);
        let voided = table(&world, "coupons", "state=voided").await;
        let in_log = "SELECT aggregate_id FROM events WHERE aggregate_type = 'coupon' AND event_type = 'Voided' ORDER BY 1";
        let ids: BTreeSet<&str> = voided.iter().map(|row| row["coupon_id"].as_str().unwrap()).collect();
        assert_eq!(ids.into_iter().collect::<Vec<_>>(), world.home.sql(in_log).await.unwrap());

        let redemptions = table(&world, "redemptions", "").await;
        assert!(!redemptions.is_empty() && redemptions.iter().all(|row| row["shop_name"] == "新店"), "{redemptions:?}");
        world.close().await;
    }

    async fn a_file_of_settings_names_rights_and_tells_what_was_removed(engine: Engine) {
        let world = life(engine).await;
        let offices = table(&world, "offices", "").await;
        let rights: Vec<_> = offices.iter().map(|row| (&row["office_id"], &row["rights"], &row["deleted"])).collect();
        let [gone, held] = rights[..] else { panic!("{rights:?}") };
        assert_eq!((gone.0, gone.2), (&json!("1"), &json!("1")));
        assert_eq!(held, (&json!("2"), &json!("employees,tags"), &json!("0")));
        let appointments = table(&world, "appointments", "office_id=2").await;
        assert_eq!(appointments, [json!({"employee_id": "1000", "office_id": "2", "manager": "0"})]);
        let second_factors = table(&world, "accounts", "role=operator").await;
        assert!(!second_factors.is_empty() && second_factors.iter().all(|row| row["second_factor"] == "0"));
        assert_eq!(table(&world, "webhooks", "").await[0]["state"], "removed");
        let revoked = table(&world, "machine-keys", "").await;
        assert!(revoked[0]["revoked_at"] != "" && revoked[1]["revoked_at"] == "", "{revoked:?}");
        world.close().await;
    }

    async fn a_file_is_as_of_its_position_whatever_is_written_behind_it(engine: Engine) {
        let world = life(engine).await;
        let position = world.store().head().await.unwrap();
        let sheets = SHEETS.iter().filter(|sheet| sheet.is_from_log());
        let paths: Vec<String> =
            sheets.map(|sheet| format!("/v1/exports/{}.parquet?at={position}", sheet.name)).collect();
        let mut before = Vec::new();
        for path in &paths {
            before.push(file(&world, Caller::Auditor, path).await.1);
        }
        let definition = world.define(json!({})).await;
        let coupon = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": coupon, "shop_id": 1})).await.ok();
        world.operator("/shop/edit", json!({"id": 1, "shop_name": "改名", "phone": "1", "address": "a", "state": 1})).await.ok();
        for (path, before) in paths.iter().zip(before) {
            assert!(file(&world, Caller::Auditor, path).await.1 == before, "{path} has changed");
        }
        let now = table(&world, "redemptions", &format!("definition_id={definition}")).await;
        assert_eq!((now.len(), &now[0]["shop_name"]), (1, &json!("改名")));
        // What has an end is told as of the position's time, not as of when it is asked.
        let short = world.define(json!({"end_num": "1"})).await;
        world.issue(short, 439).await;
        let position = world.store().head().await.unwrap();
        world.advance(3 * 24 * crate::harness::HOUR);
        for (at, state) in [(format!("at={position}"), "unused"), (String::new(), "expired")] {
            let rows = table(&world, "coupons", &format!("definition_id={short}&{at}")).await;
            assert_eq!((rows.len(), &rows[0]["state"]), (1, &json!(state)), "{at}");
        }
        world.close().await;
    }

    async fn days_and_ids_choose_rows(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let first = world.issue(definition, 439).await;
        world.issue(definition, 442).await;
        // Half an hour before midnight and half an hour after it, where in UTC both are the same day.
        world.advance(12 * crate::harness::HOUR - crate::harness::HOUR / 2);
        let late = world.issue(definition, 439).await;
        world.advance(crate::harness::HOUR);
        let last = world.issue(definition, 439).await;
        let ids = async |query: &str| {
            let rows = table(&world, "coupons", query).await;
            rows.iter().map(|row| row["coupon_id"].as_str().unwrap().parse().unwrap()).collect::<Vec<i64>>()
        };
        assert_eq!(ids("member_id=439").await, [first, late, last]);
        assert_eq!(ids("begin=2026-11-24").await, [last]);
        assert_eq!(ids("member_id=439&begin=2026-11-23&end=2026-11-23").await, [first, late]);
        assert_eq!(ids("end=2026-11-22").await, Vec::<i64>::new());
        assert_eq!(ids("member_id=&begin=").await.len(), 4, "what is empty asks for nothing");
        world.close().await;
    }

    async fn the_days_of_a_sheet_are_those_of_what_it_lists(engine: Engine) {
        let world = life(engine).await;
        let days = [("coupons", "issued_at"), ("redemptions", "used_at"), ("orders", "placed_at"), ("jobs", "started_at")];
        for (sheet, column) in days {
            let all = table(&world, sheet, "").await;
            let on = |row: &Value| row[column].as_str().unwrap().split(' ').next().unwrap().to_owned();
            let found: BTreeSet<String> = all.iter().map(on).collect();
            assert!(!found.is_empty() && !found.contains(""), "{sheet}");
            for day in &found {
                let expected: Vec<&Value> = all.iter().filter(|row| on(row) == *day).collect();
                let told = table(&world, sheet, &format!("begin={day}&end={day}")).await;
                assert_eq!(told.iter().collect::<Vec<_>>(), expected, "{sheet} on {day}");
            }
        }
        world.close().await;
    }

    async fn an_export_of_nothing_is_a_file_with_heads(engine: Engine) {
        let world = World::with_people(engine).await;
        let folder = tempfile::tempdir().unwrap();
        for sheet in SHEETS {
            let nothing = match sheet.days {
                Some(_) => "begin=2000-01-01&end=2000-01-01".to_owned(),
                None => format!("{}=999999", sheet.filters[0].name),
            };
            for format in Format::ALL {
                let path = format!("/v1/exports/{}.{}?lang=zh-TW&{nothing}", sheet.name, format.name());
                let (headers, bytes) = file(&world, Caller::Operator, &path).await;
                assert_eq!(header(&headers, "x-export-rows"), "0");
                let path = folder.path().join(format!("file.{}", format.name()));
                std::fs::write(&path, &bytes).unwrap();
                let words: Vec<&str> = sheet.columns.iter().map(|column| column.words[0]).collect();
                match format {
                    Format::Csv => assert_eq!(csv_rows(&bytes), [words]),
                    Format::Xlsx => {
                        let read = read_with("rows", &path, folder.path());
                        assert_eq!((&read[0]["name"], &read[0]["rows"]), (&json!(sheet.words[0]), &json!([words])));
                        assert_eq!(read[1]["name"], "說明");
                    }
                    Format::Parquet => {
                        let read = read_with("rows", &path, folder.path());
                        assert_eq!((read["columns"].as_array().unwrap().len(), &read["rows"]), (words.len(), &json!([])));
                    }
                }
            }
        }
        world.close().await;
    }

    async fn columns_are_named_in_the_language_that_is_asked_for(engine: Engine) {
        let world = World::with_people(engine).await;
        let head = async |query: &str, accept: &str| {
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [("authorization", bearer.as_str()), ("accept-language", accept)];
            let path = format!("/v1/exports/redemptions.csv?{query}");
            let (_, _, bytes) = world.bytes("GET", &path, &headers, Vec::new()).await;
            String::from_utf8(bytes.to_vec()).unwrap().split(',').next().unwrap().to_owned()
        };
        assert_eq!(head("lang=zh-TW", "en").await, "核銷ID");
        assert_eq!(head("lang=zh-CN", "en").await, "核销ID");
        assert_eq!(head("", "en").await, "Redemption ID");
        assert_eq!(head("", "").await, "核銷ID");
        assert_eq!(head("bom=1", "").await, "\u{feff}核銷ID");
        world.close().await;
    }

    async fn a_wrong_question_is_told_what_is_wrong(engine: Engine) {
        let world = World::with_people(engine).await;
        for (path, field, about) in [
            ("coupons.csv?begin=2026-02-30", "begin", "begin must be a day like 2018-11-01"),
            ("coupons.csv?begin=2026-11-02&end=2026-11-01", "end", "end must not be before the start"),
            ("coupons.xlsx?member_id=0", "member_id", "member_id must be between 1 and 9007199254740991"),
            ("coupons.parquet?member_id=x", "member_id", "member_id must be a whole number"),
            ("coupons.csv?state=open", "state", "state must be one of: unused, expired, pending, used, given, voided"),
            ("coupons.csv?at=2026-13-01", "at", "at must be a position, a day or a time, like 1200, 2018-11-24 or 2018-11-24 10:31:41"),
            ("coupons.csv?lang=fr", "lang", "lang must be one of: zh-TW, zh-CN, en"),
            ("coupons.csv?bom=2", "bom", "bom must be between 0 and 1"),
        ] {
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [("authorization", bearer.as_str()), ("accept-language", "en")];
            let reply = world.raw("GET", &format!("/v1/exports/{path}"), &headers, Vec::new()).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}: {}", reply.body);
            assert_eq!(reply.body["info"], json!({field: about}), "{path}");
        }
        // Members are not in the log: there is no earlier state of them, and the field is none of theirs.
        let reply = world.get(Caller::Operator, "/v1/exports/members.csv?at=1").await;
        assert_eq!((reply.status.as_u16(), reply.code()), (400, 401));
        assert_eq!(world.get(Caller::Operator, "/v1/exports/nothing.csv").await.status, 400);
        world.close().await;
    }

    async fn more_rows_than_are_answered_at_once_are_a_job(engine: Engine) {
        let mut world = World::with_people(engine).await;
        let exports = ExportPlace { rows_at_once: 2, ..ExportPlace::default() };
        world.set_options(HttpOptions { exports, ..HttpOptions::default() });
        let definition = world.define(json!({})).await;
        for _ in 0..2 {
            world.issue(definition, 439).await;
        }
        assert_eq!(table(&world, "coupons", "").await.len(), 2);
        world.issue(definition, 442).await;
        let reply = world.get(Caller::Operator, "/v1/exports/coupons.csv").await;
        assert_eq!((reply.status.as_u16(), reply.code()), (409, 6003));
        assert_eq!(reply.body["info"], "more than 2 rows: narrow the filter, or POST /v1/exports");
        assert_eq!(table(&world, "coupons", "member_id=439").await.len(), 2);
        world.close().await;
    }

    async fn members_who_are_there_all_the_while_stand_in_a_file_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let members: Vec<String> = (1..=1_700).map(|id| format!("({}, '', '', '', '', '', 0, 0, 0, 0, 0)", 1_000 + 2 * id)).collect();
        world.home.sql(&format!("{INSERT_MEMBERS} {}", members.join(", "))).await.unwrap();
        let writing = async {
            for id in 0..60 {
                let new = json!({"id": 1_001 + 50 * id, "nickname": "新"});
                world.operator("/member/add", new).await.ok();
                let body = json!({"id": 1_002 + 50 * id, "nickname": "改"});
                world.operator("/member/edit", body).await.ok();
            }
        };
        let (rows, ()) = futures::join!(table(&world, "members", ""), writing);
        let ids: Vec<i64> = rows.iter().map(|row| row["member_id"].as_str().unwrap().parse().unwrap()).collect();
        let mut sorted = ids.clone();
        sorted.dedup();
        sorted.sort_unstable();
        assert_eq!(ids, sorted, "in order, and nobody twice");
        assert!((1..=1_700).all(|id| ids.binary_search(&(1_000 + 2 * id)).is_ok()), "somebody is missing");
        world.close().await;
    }
}
