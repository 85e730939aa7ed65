//! Secrets are nowhere: whatever a test makes, receives or sends of them is looked for in all that its ledger leaves behind.
//!
//! Each [`Home`](crate::harness::Home) has a [`Vault`], which is told every secret that passes by (what calls show, send and
//! are answered, what the program prints that is meant to be secret, what the key files hold), and everything that its
//! processes say on stderr or print. When the home is let go, its files, its database and what was said are searched for all
//! of them, as they are, in hexadecimal, base64 and as in a URL; what is found fails the test. So every test of the ledger is
//! a test of this. What PostgreSQL says is searched by `tests/run`, which finds the secrets of the whole run in a file.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use aho_corasick::AhoCorasick;
use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{GeneralPurpose, general_purpose::NO_PAD};
use coupon_ledger::value::hex;
use serde_json::{Value, json};
use sqlx::{Connection as _, Row as _};
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::{EMPLOYEE, Engine, FRIEND, Home, MEMBER, Server, World, postgres_url, program};

/// What is shorter would be found by chance.
const SHORTEST: usize = 10;

/// So much of a secret is looked for: more needs memory and finds nothing else.
const LONGEST: usize = 28;

/// A secret that `tests/run` plants, to see that it finds what it looks for.
const PLANTED: &str = "planted-where-it-must-be-found";

/// Fields of requests and answers whose texts are secrets.
const FIELDS: &[&str] = &[
    "password",
    "old",
    "new",
    "code",
    "totp",
    "token",
    "csrf",
    "secret",
    "revoke",
    "counter_code",
    "key",
    "url",
];

/// Files of a home that are there to hold secrets, or that a test has made of one.
fn holds_secrets(file: &Path) -> bool {
    let name = file.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let is_key = file.extension().is_some_and(|ending| ending == "key");
    is_key || name.starts_with("person.keys") || name.contains("secret")
}

/// The vaults by the folders of their homes.
static VAULTS: LazyLock<Mutex<HashMap<PathBuf, Weak<Vault>>>> = LazyLock::new(Mutex::default);

/// Secrets of every home.
static EVERYWHERE: LazyLock<Mutex<BTreeSet<String>>> =
    LazyLock::new(|| Mutex::new(BTreeSet::from(["2a".repeat(32)])));

/// Notes a secret that every home is searched for from now on.
pub fn everywhere(secret: &str) {
    if secret.len() >= SHORTEST && EVERYWHERE.lock().unwrap().insert(secret.to_owned()) {
        note_for_run(secret);
    }
}

/// The file of the run's secrets, which `tests/run` names and removes.
static RUN: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
    let path = std::env::var_os("TEST_SECRETS")?;
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).unwrap();
    writeln!(&file, "{PLANTED}").unwrap();
    Some(Mutex::new(file))
});

fn note_for_run(secret: &str) {
    if let Some(file) = RUN.as_ref()
        && !secret.contains('\n')
    {
        writeln!(file.lock().unwrap(), "{}", start(secret)).unwrap();
    }
}

fn start(secret: &str) -> &str {
    let end = secret.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST);
    &secret[..end.unwrap_or(secret.len())]
}

/// What is known of one home's secrets, and what was heard of its processes.
pub struct Vault {
    home: PathBuf,
    database_url: Option<String>,
    secrets: Mutex<BTreeSet<String>>,
    /// Codes of six digits, which are looked for where they are named as such.
    codes: Mutex<BTreeSet<String>>,
    /// What is no secret, although it was shown as one.
    public: Mutex<BTreeSet<String>>,
    heard: Mutex<Vec<(String, Vec<u8>)>>,
    /// What processes say whose stderr nobody else reads.
    said: TempDir,
}

impl Vault {
    pub fn new(home: &Path, database_url: Option<String>) -> Arc<Self> {
        let vault = Arc::new(Self {
            home: home.to_owned(),
            database_url,
            secrets: Mutex::default(),
            codes: Mutex::default(),
            public: Mutex::default(),
            heard: Mutex::default(),
            said: tempfile::tempdir().unwrap(),
        });
        VAULTS.lock().unwrap().insert(home.to_owned(), Arc::downgrade(&vault));
        vault
    }

    /// The vault of the home that a command is run in.
    fn of(command: &Command) -> Option<Arc<Self>> {
        let arguments = command.as_std().get_args().collect::<Vec<_>>();
        let place = arguments.iter().position(|argument| *argument == "--data-dir")?;
        VAULTS.lock().unwrap().get(Path::new(arguments.get(place + 1)?))?.upgrade()
    }

    /// A secret. Of a token, a key, a code that was signed, the last part is what makes it one.
    pub fn note(&self, secret: &str) {
        let secret = secret.trim();
        if secret.len() == 6 && secret.bytes().all(|byte| byte.is_ascii_digit()) {
            self.codes.lock().unwrap().insert(secret.to_owned());
            return;
        }
        let prefixed =
            ["cl1.", "cs1.", "ck1.", "cc1.", "ac1.", "su1."].iter().any(|kind| secret.starts_with(kind));
        let secret = if prefixed { secret.rsplit('.').next().unwrap() } else { secret };
        if secret.len() >= SHORTEST && self.secrets.lock().unwrap().insert(secret.to_owned()) {
            note_for_run(secret);
        }
    }

    /// What is shown as a secret and is none: it may lie where it likes.
    pub fn forget(&self, text: &str) {
        self.public.lock().unwrap().insert(text.to_owned());
    }

    /// What a request shows of whoever sends it.
    pub fn note_headers<'a>(&self, headers: impl IntoIterator<Item = (&'a str, &'a str)>) {
        for (name, value) in headers {
            match name.to_ascii_lowercase().as_str() {
                "authorization" => self.note(value.split_once(' ').map_or(value, |(_, token)| token)),
                "token" | "x-csrf-token" => self.note(value),
                "cookie" | "set-cookie" => {
                    for cookie in value.split(';') {
                        self.note(cookie.split_once('=').map_or("", |(_, value)| value));
                    }
                }
                _ => {}
            }
        }
    }

    /// The secrets of a request's or an answer's fields.
    pub fn note_fields(&self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.note_fields(value)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        Value::String(text) if FIELDS.contains(&name.as_str()) => self.note_field(name, text),
                        Value::Number(code) if name == "code" => self.note(&code.to_string()),
                        other => self.note_fields(other),
                    }
                }
            }
            _ => {}
        }
    }

    fn note_field(&self, name: &str, text: &str) {
        match name {
            // The public half of a key is a key as well, and only what follows # is secret in a link.
            "key" if !text.starts_with("ck1.") => {}
            "url" => self.note(text.split_once('#').map_or("", |(_, code)| code)),
            _ => self.note(text),
        }
    }

    /// The secrets of a body, in either encoding.
    pub fn note_body(&self, body: &[u8]) {
        if let Ok(value) = serde_json::from_slice(body) {
            self.note_fields(&value);
        } else {
            for (name, value) in form_urlencoded::parse(body) {
                self.note_fields(&json!({name: value}));
            }
        }
    }

    /// What a process has said or printed.
    pub fn hear(&self, what: &str, bytes: &[u8]) {
        self.heard.lock().unwrap().push((what.to_owned(), bytes.to_vec()));
    }

    /// A new file for what a process has to say.
    pub fn ear(&self) -> std::fs::File {
        tempfile::Builder::new().tempfile_in(self.said.path()).unwrap().keep().unwrap().0
    }

    /// Where secrets were found.
    pub fn leaks(&self) -> Vec<String> {
        let mut secrets = self.secrets.lock().unwrap().clone();
        secrets.extend(EVERYWHERE.lock().unwrap().iter().cloned());
        let files = files(&self.home);
        for file in files.iter().filter(|file| holds_secrets(file)) {
            let bytes = std::fs::read(file).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            secrets.extend(text.split_whitespace().filter(|word| word.len() >= 32).map(ToOwned::to_owned));
        }
        secrets.retain(|secret| !self.public.lock().unwrap().contains(secret));
        let needles = Needles::new(&secrets, &self.codes.lock().unwrap());
        let mut found = Vec::new();
        let ears = self::files(self.said.path());
        for file in files.iter().filter(|file| !holds_secrets(file)).chain(&ears) {
            needles.find(&file.display().to_string(), &std::fs::read(file).unwrap_or_default(), &mut found);
        }
        for (what, bytes) in self.heard.lock().unwrap().iter() {
            needles.find(what, bytes, &mut found);
        }
        if let Some(url) = &self.database_url {
            for row in rows_of(url) {
                needles.find("the database", row.as_bytes(), &mut found);
            }
        }
        found
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        VAULTS.lock().unwrap().remove(&self.home);
        // A test that has failed already says why.
        if !std::thread::panicking() {
            let found = self.leaks();
            assert!(found.is_empty(), "secrets are where they must not be:\n{}", found.join("\n"));
        }
    }
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir(folder) else { return found };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Every row of a PostgreSQL database as text; none where the database is gone.
fn rows_of(url: &str) -> Vec<String> {
    let name = url.rsplit_once('/').unwrap().1.split('?').next().unwrap();
    let admin = format!("{}/{name}", postgres_url().rsplit_once('/').unwrap().0);
    // Whoever lets a home go may be in the middle of a runtime of his own.
    let reading = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut connection = match sqlx::PgConnection::connect(&admin).await {
                Ok(connection) => connection,
                Err(error)
                    if error
                        .as_database_error()
                        .is_some_and(|error| error.code().as_deref() == Some("3D000")) =>
                {
                    return Vec::new();
                }
                Err(error) => panic!("{admin}: {error}"),
            };
            let tables = "SELECT format('SELECT t::text FROM %I.%I t', schemaname, tablename) FROM pg_tables
                          WHERE schemaname NOT IN ('pg_catalog', 'information_schema')";
            let tables = sqlx::query(tables).fetch_all(&mut connection).await.unwrap();
            let selects = tables.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>();
            if selects.is_empty() {
                return Vec::new();
            }
            let all = selects.join(" UNION ALL ");
            let rows = sqlx::raw_sql(&all).fetch_all(&mut connection).await.unwrap();
            let rows = rows.iter().map(|row| row.get::<String, _>(0)).collect();
            connection.close().await.unwrap();
            rows
        })
    });
    reading.join().unwrap()
}

/// Everything that is looked for, with what it is.
struct Needles {
    all: AhoCorasick,
    what: Vec<String>,
}

impl Needles {
    fn new(secrets: &BTreeSet<String>, codes: &BTreeSet<String>) -> Self {
        let mut needles: Vec<(Vec<u8>, String)> = Vec::new();
        for secret in secrets {
            let part = start(secret).as_bytes();
            let mut put =
                |needle: Vec<u8>, how: &str| needles.push((needle, format!("{:?} {how}", start(secret))));
            put(part.to_vec(), "as it is");
            put(hex(part).into_bytes(), "in hexadecimal");
            put(hex(part).to_uppercase().into_bytes(), "in hexadecimal");
            for alphabet in [&STANDARD, &URL_SAFE] {
                for needle in in_base64(part, &GeneralPurpose::new(alphabet, NO_PAD)) {
                    put(needle, "in base64");
                }
            }
            let in_url: String = form_urlencoded::byte_serialize(part).collect();
            put(in_url.replace('+', "%20").into_bytes(), "as in a URL");
            put(in_url.into_bytes(), "as in a form");
        }
        for code in codes {
            for name in ["code", "totp"] {
                for between in ["=", ":", ": ", "\":", "\": ", "\":\"", "\": \"", " ", "=\"", "%3D"] {
                    needles
                        .push((format!("{name}{between}{code}").into_bytes(), format!("{code} as a {name}")));
                }
            }
        }
        let (patterns, what): (Vec<_>, Vec<_>) = needles.into_iter().unzip();
        Self { all: AhoCorasick::new(patterns).unwrap(), what }
    }

    fn find(&self, place: &str, bytes: &[u8], found: &mut Vec<String>) {
        let matches = self.all.find_iter(bytes).map(|found| &self.what[found.pattern().as_usize()]);
        found
            .extend(matches.collect::<BTreeSet<_>>().into_iter().map(|what| format!("{what} is in {place}")));
    }
}

/// A secret in the middle of something longer in base64 begins at any of three places in its groups: what stands there
/// whatever is before and behind it.
fn in_base64(secret: &[u8], engine: &GeneralPurpose) -> Vec<Vec<u8>> {
    let at = |offset: usize| {
        let text = engine.encode([&vec![0; offset], secret].concat());
        let (from, bits) = ([0, 2, 3][offset], (offset + secret.len()) * 8);
        text.as_bytes()[from..bits / 6].to_vec()
    };
    (0..3).map(at).collect()
}

/// Running a program to its end, with everything that it has to say heard.
pub trait Heard {
    /// What it printed and said, and how it ended.
    async fn heard(&mut self) -> Output;
}

impl Heard for Command {
    async fn heard(&mut self) -> Output {
        let output = self.output().await.unwrap();
        hear(self, &output);
        output
    }
}

/// Hears what a command has come to. What prints secrets is meant to: they are noted and not held against it.
pub fn hear(command: &Command, output: &Output) {
    let Some(vault) = Vault::of(command) else { return };
    let name = command
        .as_std()
        .get_args()
        .map(|one| one.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    vault.hear(&format!("what {name} says"), &output.stderr);
    let words: Vec<&str> = name.split(' ').collect();
    if words.contains(&"token")
        || words.contains(&"machine")
        || words.contains(&"webhook")
        || words.contains(&"serve")
    {
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            vault.note(line);
            vault.note_body(line.as_bytes());
        }
    } else {
        vault.hear(&format!("what {name} prints"), &output.stdout);
    }
}

/// Notes what a server prints when it starts that is secret: the link that sets it up, and a demo's token.
pub fn note_banner(command: &Command, banner: &[String]) {
    let Some(vault) = Vault::of(command) else { return };
    for line in banner {
        if let Some((_, code)) = line.split_once("/setup#") {
            vault.note(code);
        }
        if let Some((_, token)) = line.split_once("Bearer ") {
            vault.note(token.split('"').next().unwrap());
        }
    }
}

/// Where a command's stderr goes unless it is read by the test.
pub fn ear_of(command: &mut Command) {
    if let Some(vault) = Vault::of(command) {
        command.stderr(vault.ear());
    }
}

/// Why a home cannot be let go.
async fn let_go(home: Home) -> String {
    let failed = tokio::task::spawn_blocking(move || drop(home)).await;
    *failed.unwrap_err().into_panic().downcast::<String>().unwrap()
}

fn found_in(home: &Home, what: &str) -> Vec<String> {
    let found = home.vault.leaks();
    assert!(!found.is_empty(), "{what} was planted and not found");
    found
}

on_both_engines! {
    async fn what_is_planted_is_found_wherever_and_however_it_is_written(engine: Engine) {
        let world = World::with_people(engine).await;
        let token = world.token(MEMBER);
        world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.ok();
        let gift = world.define(json!({})).await;
        let gift = world.issue(gift, 439).await;
        let code = world.give(MEMBER, gift).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": gift, "code": code ^ 1})).await;
        world.call(EMPLOYEE, "/user/login", json!({"name": "boss", "password": "wrong horse battery"})).await;
        world.request("/shop/list", &[("cookie", "session=cs1.0123456789abcdef.a-secret-of-a-session")], "{}").await;
        world.home.vault.note(&token);
        assert_eq!(world.home.vault.leaks(), Vec::<String>::new());
        let signature = token.rsplit('.').next().unwrap().to_owned();
        let password = "wrong horse battery";
        let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        for (what, written) in [
            ("a token", token.clone()),
            ("a token's secret in base64", base64(&format!("{{\"t\":\"{signature}\"}}"))),
            ("the same one byte on", base64(&format!("{{\"to\":\"{signature}\"}}"))),
            ("a password", format!("x{password}x")),
            ("a password in hexadecimal", hex(password.as_bytes())),
            ("a password in a form", "a=b&password=wrong+horse+battery".to_owned()),
            ("a password in a URL", "/login?password=wrong%20horse%20battery".to_owned()),
            ("a session", "a-secret-of-a-session".to_owned()),
            ("a gift's code", format!("{{\"id\":1,\"code\":{code}}}")),
            ("a tried code", format!("code={}", code ^ 1)),
            ("the root secret", "2a".repeat(32)),
        ] {
            let file = world.home.path().join("notes.txt");
            std::fs::write(&file, &written).unwrap();
            let found = found_in(&world.home, &format!("{what} in a file"));
            assert!(found.iter().any(|found| found.contains("notes.txt")), "{found:?}");
            std::fs::remove_file(file).unwrap();
            world.home.vault.hear("a log", written.as_bytes());
            let found = found_in(&world.home, &format!("{what} in a log"));
            assert!(found.iter().any(|found| found.ends_with("a log")), "{found:?}");
            world.home.vault.heard.lock().unwrap().clear();
        }
        assert_eq!(world.home.vault.leaks(), Vec::<String>::new());
        let planted = format!("INSERT INTO ledger_facts (name, value) VALUES ('planted', '{token}')");
        world.home.sql(&planted).await.unwrap();
        let found = found_in(&world.home, "a token in the database");
        let place = if engine == Engine::Sqlite { "ledger.db" } else { "the database" };
        assert!(found.iter().any(|found| found.contains(place)), "{found:?}");
        assert!(let_go(world.close().await).await.starts_with("secrets are where they must not be:\n"));
    }

    async fn a_home_that_is_let_go_with_a_secret_in_it_fails(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let token = crate::harness::cli_token(&home, &["--auditor"]).await;
        let printed = program(&home).args(["history", "operator"]).heard().await;
        assert!(printed.status.success());
        server.kill().await;
        let mut log = home.vault.ear();
        writeln!(log, "asked with {token}").unwrap();
        let why = let_go(home).await;
        assert!(why.contains("as it is is in "), "{why}");
    }
}

#[test]
fn a_secret_is_found_wherever_it_begins_in_base64() {
    let secret = "a secret of some length";
    let engine = GeneralPurpose::new(&STANDARD, NO_PAD);
    let needles = Needles::new(&BTreeSet::from([secret.to_owned()]), &BTreeSet::new());
    for before in 0..7 {
        for behind in 0..4 {
            let text = engine.encode(format!("{}{secret}{}", "x".repeat(before), "y".repeat(behind)));
            let mut found = Vec::new();
            needles.find("here", text.as_bytes(), &mut found);
            assert_eq!(found, [format!("{secret:?} in base64 is in here")], "{before} {behind}");
        }
    }
    let mut found = Vec::new();
    needles.find("here", engine.encode("another secret of this length").as_bytes(), &mut found);
    assert_eq!(found, Vec::<String>::new());
}
