//! A ledger to test against, on either engine: in this process with a clock that the test holds, or as the real program.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, Response, StatusCode};
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::directory::Seal;
use coupon_ledger::http::{App, HttpOptions};
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::{Ledger, LedgerOptions};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::store::{self, Store, StoreOptions};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tower::ServiceExt as _;

use crate::described;
use crate::leaks::{Heard as _, Vault, ear_of, note_banner};

/// 2026-11-23 12:00:00 in Shanghai, a Monday: when a test begins unless it says otherwise.
pub const NOON: i64 = 1_795_406_400_000;
pub const HOUR: i64 = 3_600_000;
pub const DAY: i64 = 24 * HOUR;

/// The manual's sample members.
pub const MEMBER: Caller = Caller::Member(439);
pub const FRIEND: Caller = Caller::Member(442);
pub const EMPLOYEE: Caller = Caller::Employee(1000);
/// The first partner, where shop 1 is the only shop.
pub const PARTNER: Caller = Caller::Partner(2);

/// What a row of `({id}, '', '', '', '', '', {level}, {shop}, 0, 0, 0)` goes behind, past the API: it adds one at a time.
pub const INSERT_MEMBERS: &str =
    "INSERT INTO members (member_id, nickname, headimgurl, member_name, phone, member_card,
    level_id, shop_id, birthday, card_end, joined_at_ms) VALUES";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// Makes one test of each engine out of a function that takes an [`Engine`].
#[macro_export]
macro_rules! on_both_engines {
    ($($(#[$about:meta])* async fn $name:ident($engine:ident: Engine) $body:block)*) => {$(
        $(#[$about])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs everything around it")]
            use super::*;

            async fn run($engine: $crate::harness::Engine) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                run($crate::harness::Engine::Sqlite).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                run($crate::harness::Engine::Postgres).await;
            }
        }
    )*};
}

/// The PostgreSQL that `tests/run` started.
pub fn postgres_url() -> String {
    std::env::var("TEST_POSTGRES_URL").expect("no PostgreSQL to test on: run tests/run, which starts one")
}

/// A database of its own on the tests' PostgreSQL.
pub async fn new_database() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let base = postgres_url();
    let name = format!("t{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = sqlx::PgConnection::connect(&base).await.unwrap();
    admin.execute(format!("CREATE DATABASE {name}").as_str()).await.unwrap();
    admin.close().await.unwrap();
    let (server, _) = base.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

/// Where a ledger lies: a data folder, and a database of its own on PostgreSQL. Let go, it must hold no secret.
pub struct Home {
    /// Before the folder, which it looks through at the end.
    pub vault: Arc<Vault>,
    pub folder: TempDir,
    pub database_url: Option<String>,
}

impl Home {
    pub async fn new(engine: Engine) -> Self {
        let database_url = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(new_database().await),
        };
        Self::on(database_url)
    }

    /// A new folder for a ledger in a database, or in the folder itself.
    pub fn on(database_url: Option<String>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { vault: Vault::new(folder.path(), database_url.clone()), folder, database_url }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Another server's place on the same database, with a copy of the person keys.
    pub fn beside(&self, database_url: String) -> Self {
        let home = Self::on(Some(database_url));
        std::fs::copy(self.person_keys_file(), home.person_keys_file()).unwrap();
        home
    }

    pub fn database_file(&self) -> PathBuf {
        self.path().join("ledger.db")
    }

    pub fn person_keys_file(&self) -> PathBuf {
        self.path().join("person.keys")
    }

    pub fn store_options(&self, secrets: &Secrets, now_ms: i64) -> StoreOptions {
        StoreOptions {
            data_dir: self.path().to_owned(),
            database_url: self.database_url.clone(),
            secret_id: secrets.id(),
            now_ms,
        }
    }

    /// Runs SQL as an administrator could, beside the program, and returns the first column's texts.
    /// On SQLite the triggers are those of any connection; `recursive_triggers` stays off, as by default.
    pub async fn sql(&self, sql: &str) -> Result<Vec<String>, String> {
        match &self.database_url {
            None => {
                let connection =
                    rusqlite::Connection::open(self.database_file()).map_err(|e| e.to_string())?;
                connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(|e| e.to_string())?;
                let mut statement = connection.prepare(sql).map_err(|e| e.to_string())?;
                let columns = statement.column_count();
                let mut rows = statement.raw_query();
                let mut found = Vec::new();
                while let Some(row) = rows.next().map_err(|e| e.to_string())? {
                    if columns == 0 {
                        continue;
                    }
                    found.push(match row.get_ref(0).map_err(|e| e.to_string())? {
                        rusqlite::types::ValueRef::Integer(number) => number.to_string(),
                        rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                        other => format!("{other:?}"),
                    });
                }
                Ok(found)
            }
            Some(url) => {
                use sqlx::Row as _;
                let mut connection = sqlx::PgConnection::connect(url).await.map_err(|e| e.to_string())?;
                let rows = sqlx::raw_sql(sql).fetch_all(&mut connection).await.map_err(|e| e.to_string())?;
                let text = |row: &sqlx::postgres::PgRow| {
                    if row.is_empty() {
                        return String::new();
                    }
                    row.try_get_raw(0).unwrap().as_str().unwrap_or_default().to_owned()
                };
                let found = rows.iter().map(text).collect();
                connection.close().await.map_err(|e| e.to_string())?;
                Ok(found)
            }
        }
    }

    /// Runs many statements at once, in one transaction.
    pub async fn sql_all(&self, statements: &[String]) -> Result<(), String> {
        let script = format!("BEGIN;\n{};\nCOMMIT", statements.join(";\n"));
        match &self.database_url {
            None => {
                let connection =
                    rusqlite::Connection::open(self.database_file()).map_err(|e| e.to_string())?;
                connection.busy_timeout(std::time::Duration::from_secs(5)).map_err(|e| e.to_string())?;
                connection.execute_batch(&script).map_err(|e| e.to_string())
            }
            Some(_) => self.sql(&script).await.map(drop),
        }
    }
}

/// A ledger in this process, with its routes and a clock that stands still until the test moves it.
pub struct World {
    pub home: Home,
    pub app: App,
    pub ledger: Ledger,
    pub clock: Clock,
    pub secrets: Secrets,
    router: Router,
}

/// What a call answered.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Reply {
    pub fn code(&self) -> i64 {
        self.body["code"].as_i64().unwrap_or_else(|| panic!("no code in {}", self.body))
    }

    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    pub fn replayed(&self) -> bool {
        self.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
    }

    /// The data of a success.
    #[track_caller]
    pub fn ok(&self) -> &Value {
        assert_eq!(self.code(), 0, "{}", self.body);
        self.data()
    }
}

impl World {
    /// An empty ledger at [`NOON`] in Shanghai.
    pub async fn empty(engine: Engine) -> Self {
        Self::at(engine, NOON, Zone::default()).await
    }

    /// An empty ledger at an instant in a zone.
    pub async fn at(engine: Engine, now_ms: i64, zone: Zone) -> Self {
        Self::open(Home::new(engine).await, Clock::manual(now_ms), zone).await
    }

    /// A ledger on what lies there already.
    pub async fn open(home: Home, clock: Clock, zone: Zone) -> Self {
        let secrets = Secrets::from_root([42; 32]);
        let store = store::open(&home.store_options(&secrets, clock.now_ms())).await.unwrap();
        let seal = Seal::open(&store, &secrets, &home.person_keys_file()).await.unwrap();
        let ledger = Ledger::start(LedgerOptions {
            store,
            secrets: secrets.clone(),
            seal,
            zone,
            clock: clock.clone(),
            capacity: 4_096,
        });
        let app = App::new(ledger.clone(), HttpOptions::default());
        let router = app.router();
        Self { home, app, ledger, clock, secrets, router }
    }

    /// Serves with other settings from now on.
    pub fn set_options(&mut self, options: HttpOptions) {
        self.app = App::new(self.ledger.clone(), options);
        self.router = self.app.router();
    }

    /// Members 439 and 442, shop 1 (open), employee 1000 in it.
    pub async fn with_people(engine: Engine) -> Self {
        let world = Self::empty(engine).await;
        world.add_people().await;
        world
    }

    pub async fn add_people(&self) {
        for (id, nickname) in [(439, "小明"), (442, "黃明波")] {
            self.operator(
                "/member/add",
                json!({"id": id, "nickname": nickname, "headimgurl": "http://p/132"}),
            )
            .await
            .ok();
        }
        let shop =
            self.operator("/shop/add", json!({"shop_name": "總店", "phone": "1", "address": "a"})).await;
        assert_eq!(shop.ok()["id"], "1");
        self.operator("/user/add", json!({"id": 1000, "name": "店員", "shop_id": 1})).await.ok();
    }

    /// Ends the ledger and hands back where it lies.
    pub async fn close(self) -> Home {
        let Self { home, app, ledger, router, .. } = self;
        ledger.store().close().await;
        drop((app, ledger, router));
        home
    }

    pub fn store(&self) -> &Store {
        self.ledger.store()
    }

    pub fn advance(&self, ms: i64) {
        self.clock.set(self.clock.now_ms() + ms);
    }

    pub fn token(&self, caller: Caller) -> String {
        Token::new(caller, self.clock.now_ms(), 86_400).sign(&self.secrets)
    }

    /// A call with a JSON body.
    pub async fn call(&self, caller: Caller, route: &str, body: Value) -> Reply {
        self.request(
            route,
            &[("authorization", &format!("Bearer {}", self.token(caller)))],
            &body.to_string(),
        )
        .await
    }

    /// A call with an idempotency key.
    pub async fn keyed(&self, caller: Caller, key: &str, route: &str, body: Value) -> Reply {
        let bearer = format!("Bearer {}", self.token(caller));
        self.request(route, &[("authorization", &bearer), ("idempotency-key", key)], &body.to_string()).await
    }

    pub async fn operator(&self, route: &str, body: Value) -> Reply {
        self.call(Caller::Operator, route, body).await
    }

    /// Any POST; the content type is JSON unless a header says otherwise.
    pub async fn request(&self, route: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        self.raw("POST", route, headers, body.as_bytes().to_vec()).await
    }

    /// A GET, as a kind of caller.
    pub async fn get(&self, caller: Caller, path: &str) -> Reply {
        let bearer = format!("Bearer {}", self.token(caller));
        self.raw("GET", path, &[("authorization", &bearer)], Vec::new()).await
    }

    pub async fn raw(&self, method: &str, route: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
        let (status, headers, bytes) = self.bytes(method, route, headers, body).await;
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        self.home.vault.note_fields(&body);
        Reply { status, headers, body }
    }

    /// The same, as it comes.
    pub async fn bytes(
        &self,
        method: &str,
        route: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let (parts, body) = self.respond(method, route, headers, body).await.into_parts();
        // What never ends is not waited for.
        let is_endless = parts.headers.get("content-type").is_some_and(|kind| kind == "text/event-stream");
        let bytes = if is_endless { Bytes::new() } else { body.collect().await.unwrap().to_bytes() };
        let described = described::check(method, route, parts.status, &parts.headers, &bytes);
        described.unwrap_or_else(|wrong| {
            panic!("{method} {route} answers {}\n{wrong}", String::from_utf8_lossy(&bytes))
        });
        let cookies = parts.headers.get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
        self.home.vault.note_headers(cookies.map(|cookie| ("set-cookie", cookie)));
        (parts.status, parts.headers, bytes)
    }

    /// The answer before its body has come.
    pub async fn respond(
        &self,
        method: &str,
        route: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Response<Body> {
        self.home.vault.note_headers(headers.iter().copied());
        self.home.vault.note_body(&body);
        let mut request = Request::builder().method(method).uri(route);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
            request = request.header("content-type", "application/json");
        }
        self.router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap()
    }

    /// Defines a coupon: a cash coupon of 10.00, valid for 30 days from receipt, that may be given and self-redeemed,
    /// with these fields changed.
    pub async fn define(&self, changes: Value) -> i64 {
        let reply = self.operator("/elecoupons/add", definition(changes)).await;
        reply.ok()["id"].as_i64().unwrap()
    }

    pub async fn issue(&self, definition_id: i64, member_id: i64) -> i64 {
        let body = json!({"coupon_id": definition_id, "member_id": member_id});
        self.operator("/sendelecoupon/one", body).await.ok()["id"].as_i64().unwrap()
    }

    /// Puts a coupon out and returns its code.
    pub async fn give(&self, giver: Caller, id: i64) -> i64 {
        self.call(giver, "/client/givecoupon", json!({"id": id})).await.ok()["code"].as_i64().unwrap()
    }
}

/// The fields of `/elecoupons/add` with changes.
#[allow(clippy::needless_pass_by_value, reason = "callers write json!({…}) in place")]
pub fn definition(changes: Value) -> Value {
    let mut body = json!({
        "type": 1, "title": "十元券", "deduction": "10.00", "money": "100.00", "validity_type": 2, "start_num": "0",
        "end_num": "30", "use_week": "", "is_giving": 1, "get_limit_type": 1, "rules": "我是使用規則",
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The real program, serving. Killed when it is dropped.
pub struct Server {
    pub url: String,
    pub child: Child,
    pub banner: Vec<String>,
}

/// The program with a home's options.
pub fn program(home: &Home) -> Command {
    at_home(Command::new(env!("CARGO_BIN_EXE_coupon-ledger")), home)
}

/// The program where no file can grow beyond so many blocks of 512 bytes: what a full disk is to it.
pub fn on_a_full_disk(blocks: u32) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; ulimit -f "$1"; shift; exec "$0" "$@""#]);
    command.arg(env!("CARGO_BIN_EXE_coupon-ledger")).arg(blocks.to_string());
    command
}

/// The same with a home's options.
pub fn program_on_a_full_disk(home: &Home, blocks: u32) -> Command {
    at_home(on_a_full_disk(blocks), home)
}

fn at_home(mut command: Command, home: &Home) -> Command {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).kill_on_drop(true);
    command.arg("--data-dir").arg(home.path());
    if let Some(url) = &home.database_url {
        command.arg("--database-url").arg(url);
    }
    ear_of(&mut command);
    command
}

impl Server {
    /// Starts the program on a free port and waits until it says where it listens.
    /// Tests ask more often than anybody who means well, and are not to depend on how fast the machine is.
    pub async fn start(home: &Home, arguments: &[&str]) -> Self {
        Self::launch(program(home), &[arguments, &["--limits", "off"]].concat()).await
    }

    /// The same, with everything that it has to say in a file.
    pub async fn start_talkative(home: &Home, log: &Path) -> Self {
        let mut command = program(home);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.env("COUPON_LEDGER_LOG", "trace").stderr(log);
        Self::launch(command, &[]).await
    }

    pub async fn launch(mut command: Command, arguments: &[&str]) -> Self {
        command.arg("serve").args(arguments);
        if !arguments.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut banner = Vec::new();
        loop {
            let line = lines.next_line().await.unwrap().expect("the server ended before it listened");
            let last = line.trim_start().starts_with("try ");
            banner.push(line);
            if last {
                break;
            }
        }
        note_banner(&command, &banner);
        let listens = banner.iter().find_map(|line| line.trim().strip_prefix("listens on")).unwrap();
        Self { url: listens.trim().to_owned(), child, banner }
    }

    /// Ends it the hard way.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// A token from the command line.
pub async fn cli_token(home: &Home, arguments: &[&str]) -> String {
    let output = program(home).arg("token").args(arguments).heard().await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
