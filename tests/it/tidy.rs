//! What no lint says of the sources: import direction, one clock, one random source, documents that name what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use coupon_ledger::read_model::LIVE_TABLES;
use coupon_ledger::store::Column;

use crate::docs::{read, repository};

/// Tables that are counters: moved by differences, not upserted as rows.
const COUNTERS: &[&str] = &["stock_v1", "member_counts_v1"];

const MAX_LINES: usize = 700;

/// Files of src that are longer before their tests, each with its reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// The files under a folder of the repository with one of these endings, as paths from its root.
pub fn files(folder: &str, endings: &[&str]) -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository().join(folder), &mut found);
    let relative = |path: PathBuf| path.strip_prefix(repository()).unwrap().to_str().unwrap().to_owned();
    let mut found: Vec<_> = found.into_iter().map(relative).collect();
    found.retain(|path| endings.iter().any(|ending| path.ends_with(ending)));
    found.sort();
    assert!(!found.is_empty(), "nothing in {folder}");
    found
}

/// The code of a file, line by line, without comments and without its tests.
fn code(path: &str) -> Vec<(usize, String)> {
    let text = read(path);
    let text = text.split("#[cfg(test)]").next().unwrap();
    let uncommented = |line: &str| {
        let cut = line
            .match_indices("//")
            .find(|(at, _)| !line[..*at].ends_with(':'))
            .map_or(line.len(), |(at, _)| at);
        line[..cut].to_owned()
    };
    text.lines().enumerate().map(|(number, line)| (number + 1, uncommented(line))).collect()
}

/// Where any of these words stands in the sources' code.
fn places(words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in files("src", &[".rs"]) {
        for (number, line) in code(&path) {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{path}:{number}"));
            }
        }
    }
    found
}

fn files_of(places: &[String]) -> BTreeSet<&str> {
    places.iter().map(|place| place.split(':').next().unwrap()).collect()
}

/// `src/http/form.rs` belongs to `http`.
fn module_of(path: &str) -> &str {
    path.strip_prefix("src/").unwrap().split(['/', '.']).next().unwrap()
}

/// The layer of each module, as the head of src/lib.rs draws them.
fn layers() -> BTreeMap<String, usize> {
    let text = read("src/lib.rs");
    let drawn = text.split("```").nth(1).unwrap().strip_prefix("text").unwrap().replace("//!", "");
    let mut layers = BTreeMap::new();
    for (layer, modules) in drawn.split('←').enumerate() {
        for module in modules.split(',') {
            let again = layers.insert(module.trim().to_owned(), layer);
            assert_eq!(again, None, "{module} is drawn twice");
        }
    }
    layers
}

#[test]
fn every_module_has_its_place_in_the_order_of_imports() {
    let declared = code("src/lib.rs")
        .into_iter()
        .filter_map(|(_, line)| Some(line.trim().strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()));
    let mut declared: BTreeSet<String> = declared.collect();
    declared.insert("main".to_owned());
    assert_eq!(declared, layers().into_keys().collect());
}

#[test]
fn imports_go_one_way() {
    let layers = layers();
    let mut checked = 0;
    let mut wrong = Vec::new();
    for path in files("src", &[".rs"]).into_iter().filter(|path| path != "src/lib.rs") {
        let own = module_of(&path).to_owned();
        for (number, line) in code(&path) {
            let named = line.match_indices("crate::").map(|(at, word)| &line[at + word.len()..]);
            for module in
                named.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
            {
                checked += 1;
                let layer =
                    layers.get(module).unwrap_or_else(|| panic!("{path}:{number} names crate::{module}"));
                if *layer > layers[&own] {
                    wrong.push(format!("{path}:{number}: {own} imports {module}"));
                }
            }
        }
    }
    assert!(checked > 100, "only {checked} imports were found");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn the_wall_clock_is_read_in_one_place() {
    let read = places(&["SystemTime::now", "Utc::now", "Local::now", "UNIX_EPOCH"]);
    assert_eq!(files_of(&read), BTreeSet::from(["src/clock.rs"]));
}

#[test]
fn randomness_is_read_in_one_place() {
    let read = places(&["getrandom", "rand::", "thread_rng", "OsRng", "RandomState", "/dev/urandom"]);
    assert_eq!(files_of(&read), BTreeSet::from(["src/value.rs"]));
}

/// The command line asks the server on its own machine, with its own patience.
#[test]
fn the_server_speaks_out_in_one_place() {
    let spoken = places(&["HttpConnector", "legacy::Client", "TcpStream::connect"]);
    assert_eq!(files_of(&spoken), BTreeSet::from(["src/cli/remote.rs", "src/outgoing.rs"]));
}

#[test]
fn nothing_is_left_unfinished() {
    let unfinished = ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"];
    assert_eq!(places(&unfinished), Vec::<String>::new());
}

#[test]
fn long_files_have_a_reason() {
    let long = files("src", &[".rs"]).into_iter().filter(|path| code(path).len() > MAX_LINES);
    let excused: Vec<_> = LONG_FILES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(
        long.collect::<Vec<_>>(),
        excused,
        "split it, or give its reason; and no reason outlives its file"
    );
}

/// What of a backticked text is a path of the repository, if it is one.
fn path_in(text: &str) -> Option<&str> {
    let is_file = [".rs", ".sql", ".md"].iter().any(|ending| text.ends_with(ending));
    if !text.contains('/') && !is_file || text.contains(|c: char| " ={}<>*…$\"|:?".contains(c)) {
        return None;
    }
    // A route, a place that the program makes, a media type, a time zone.
    let elsewhere = ["/", "./", "~", "data/", "target/", "application/", "text/"];
    let is_elsewhere = elsewhere.iter().any(|start| text.starts_with(start));
    (!is_elsewhere && text.parse::<chrono_tz::Tz>().is_err()).then_some(text)
}

#[test]
fn only_paths_are_taken_for_paths() {
    for path in ["src/coupon.rs", "tests/run", "coupon.rs", "docs/api.md", "projections/"] {
        assert_eq!(path_in(path), Some(path));
    }
    for other in
        ["/client/getcoupon", "Asia/Shanghai", "application/json", "docs/{a,b}.md", "GET /docs", "page"]
    {
        assert_eq!(path_in(other), None);
    }
}

#[test]
fn every_path_that_a_document_names_exists() {
    let mut documents = files("docs", &[".md"]);
    documents.extend(["README.md".to_owned()].into_iter().filter(|path| repository().join(path).exists()));
    let sources = files("src", &[".rs"]);
    let mut missing = Vec::new();
    for document in documents {
        let text = read(&document);
        let prose = text.split("```").step_by(2).collect::<String>();
        for path in prose.split('`').skip(1).step_by(2).filter_map(path_in) {
            let beside = Path::new(&document).parent().unwrap().join(path);
            let bare =
                !path.contains('/') && sources.iter().any(|source| source.ends_with(&format!("/{path}")));
            if !repository().join(path).exists() && !repository().join(beside).exists() && !bare {
                missing.push(format!("{document}: {path}"));
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}

/// The table that a projection's file makes: name, columns with types, primary key.
fn table(sql: &str) -> (String, Vec<(String, String)>, Vec<String>) {
    let bare: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap().trim()).collect();
    let bare = bare.join("\n");
    let (head, rest) = bare.split_once("CREATE TABLE ").unwrap().1.split_once('(').unwrap();
    let (columns, rest) = rest.split_once("PRIMARY KEY (").unwrap();
    let columns = columns.split(',').map(str::trim).filter(|column| !column.is_empty());
    let column = |column: &str| {
        let mut words = column.split_whitespace();
        (words.next().unwrap().to_owned(), words.collect::<Vec<_>>().join(" "))
    };
    let key = rest.split_once(')').unwrap().0.split(',').map(|name| name.trim().to_owned());
    (head.trim().to_owned(), columns.map(column).collect(), key.collect())
}

#[test]
fn every_projection_is_migrated_and_is_a_live_table_or_a_counter() {
    let migrations = read("src/store/migrate.rs");
    let mut made = BTreeSet::new();
    // A statistic is no step: src/store/statistics.rs reads its file, and makes its table.
    let live = files("projections", &[".sql"]).into_iter().filter(|path| !path.contains("/stats_"));
    for path in live {
        assert!(migrations.contains(&format!("/{path}\"")), "{path} is in no migration");
        let (name, columns, _) = table(&read(&path));
        assert_eq!(columns[0], ("bucket".to_owned(), "BIGINT NOT NULL".to_owned()), "{path}");
        made.insert(name);
    }
    let known = LIVE_TABLES.iter().map(|table| table.name).chain(COUNTERS.iter().copied());
    assert_eq!(made, known.map(ToOwned::to_owned).collect());
    let sources = files("src", &[".rs"]).into_iter().filter(|path| module_of(path) == "read_model");
    let declared = sources.flat_map(|path| code(&path)).filter(|(_, line)| line.contains(": LiveTable = "));
    assert_eq!(declared.count(), LIVE_TABLES.len(), "a live table that this test does not know");
}

#[test]
fn the_columns_of_a_live_table_are_those_of_its_sql() {
    let made: BTreeMap<_, _> = files("projections", &[".sql"])
        .iter()
        .map(|path| table(&read(path)))
        .map(|(name, columns, key)| (name, (columns, key)))
        .collect();
    for live in LIVE_TABLES {
        let mut columns = vec![("bucket".to_owned(), "BIGINT NOT NULL".to_owned())];
        columns.extend(live.columns.iter().map(|column| {
            let kind = if matches!(column, Column::Int(_)) { "BIGINT NOT NULL" } else { "TEXT NOT NULL" };
            (column.name().to_owned(), kind.to_owned())
        }));
        let key = columns[..=live.key_columns].iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(made[live.name], (columns, key), "{}", live.name);
    }
}

#[test]
fn every_function_that_a_projection_names_exists() {
    let mut named = 0;
    for path in files("projections", &[".sql"]) {
        let text = read(&path).replace("\n-- ", " ");
        for place in text.split("(src/").skip(1) {
            let (file, function) = place.split_once(')').unwrap().0.split_once(", ").unwrap();
            assert!(
                read(&format!("src/{file}")).contains(&format!("pub fn {function}(")),
                "{path}: {file}, {function}"
            );
            named += 1;
        }
    }
    assert_eq!(named, LIVE_TABLES.len());
}
