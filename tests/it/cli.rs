//! The real program: its command line, what it prints, how it refuses, and what it serves beside the manual's routes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use coupon_ledger::http::routes;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::secrets::Secrets;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::harness::{Engine, Home, Server, cli_token, new_database, program};
use crate::leaks::Heard as _;
use crate::verify::put_secret;

/// What a run of the program came to.
#[derive(Debug)]
pub struct Done {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// Runs the program to its end.
pub async fn finish(mut command: Command) -> Done {
    let ending = command.stdin(Stdio::null()).heard();
    let output = tokio::time::timeout(Duration::from_secs(60), ending).await.expect("it does not end");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// The program with nothing in its environment and no options.
fn bare() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coupon-ledger"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).kill_on_drop(true);
    command
}

/// Starts a server by this very command and waits until it says where it listens.
async fn launch(mut command: Command) -> Server {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut banner = Vec::new();
    while !banner.last().is_some_and(|line: &String| line.trim_start().starts_with("try ")) {
        banner.push(lines.next_line().await.unwrap().expect("the server ended before it listened"));
    }
    let url =
        banner.iter().find_map(|line| line.trim().strip_prefix("listens on")).unwrap().trim().to_owned();
    Server { url, child, banner }
}

/// A server on this home that is expected not to start: exit code 2 and a sentence, within a deadline.
async fn refused(home: &Home, arguments: &[&str]) -> String {
    let mut command = program(home);
    command.arg("serve").args(arguments);
    if !arguments.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    let done = finish(command).await;
    assert_eq!(done.code, Some(2), "{done:?}");
    assert_eq!(done.out, "", "data goes to stdout, and there is none");
    let sentence = done.err.lines().last().unwrap().to_owned();
    assert!(sentence.starts_with("coupon-ledger: "), "{sentence}");
    sentence
}

pub async fn post(server: &Server, token: &str, route: &str, body: Value) -> (u16, Value) {
    let request =
        reqwest::Client::new().post(format!("{}{route}", server.url)).bearer_auth(token).json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// The data of a success.
async fn ok(server: &Server, token: &str, route: &str, body: Value) -> Value {
    let (_, answer) = post(server, token, route, body).await;
    assert_eq!(answer["code"], 0, "{route}: {answer}");
    answer["data"].clone()
}

async fn get(server: &Server, path: &str) -> (u16, String, String) {
    let answer = reqwest::get(format!("{}{path}", server.url)).await.unwrap();
    let kind = answer
        .headers()
        .get("content-type")
        .map(|kind| kind.to_str().unwrap().to_owned())
        .unwrap_or_default();
    (answer.status().as_u16(), kind, answer.text().await.unwrap())
}

/// Waits until a token is refused.
async fn until_refused(server: &Server, token: &str, within: Duration) {
    let deadline = Instant::now() + within;
    loop {
        let (status, answer) = post(server, token, "/client/couponcount", json!({})).await;
        if (status, answer["code"].as_i64()) == (401, Some(1001)) {
            return;
        }
        assert!(Instant::now() < deadline, "still accepted: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn asked_to_stop(server: &mut Server) -> Option<i32> {
    let signal = format!("kill -TERM {}", server.child.id().unwrap());
    assert!(Command::new("sh").args(["-c", &signal]).status().await.unwrap().success());
    let ending = tokio::time::timeout(Duration::from_secs(40), server.child.wait());
    ending.await.expect("it does not stop").unwrap().code()
}

/// A word after another in a command line.
fn after<'a>(line: &'a str, before: &str, until: char) -> &'a str {
    line.split_once(before).unwrap().1.split(until).next().unwrap()
}

on_both_engines! {
    async fn the_banner_says_where_everything_is_and_its_curl_line_works(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &["--demo"]).await;
        let line = |label: &str| {
            let line = server.banner.iter().find_map(|line| line.trim().strip_prefix(label));
            line.unwrap_or_else(|| panic!("no {label} in {:?}", server.banner)).trim().to_owned()
        };
        assert_eq!(server.banner[0], format!("coupon-ledger {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(line("data in"), std::fs::canonicalize(home.path()).unwrap().display().to_string());
        let expected = if engine == Engine::Sqlite { "SQLite 3." } else { "PostgreSQL 1" };
        assert!(line("engine").starts_with(expected), "{}", line("engine"));
        assert_eq!(line("API docs"), format!("{}/docs", server.url));
        let curl = line("try");
        let (url, token) = (after(&curl, "curl -s ", ' ').to_owned(), after(&curl, "Bearer ", '"').to_owned());
        assert_eq!(url, format!("{}/client/couponlist", server.url));
        assert_eq!(after(&curl, "-d ", ' '), "state=0");
        let request = reqwest::Client::new().post(&url).bearer_auth(&token);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body("state=0");
        let list: Value = request.send().await.unwrap().json().await.unwrap();
        let rows = list["data"].as_array().unwrap();
        assert!(!rows.is_empty() && rows.iter().all(|row| row["member_id"] == 439), "{list}");
        // The manual's sample coupon is in it: given to 442.
        let sample = ok(&server, &token, "/client/couponinfo", json!({"id": 1})).await;
        assert_eq!((&sample["receive_id"], &sample["create_date"]), (&json!(442), &json!(1_543_026_701)));
        let counted = "SELECT CAST(COUNT(*) AS TEXT) FROM events WHERE event_type IN ('Issued', 'Defined', 'Opened')";
        let (count, made) =
            (ok(&server, &token, "/client/couponcount", json!({})).await, home.sql(counted).await.unwrap());
        assert_eq!(asked_to_stop(&mut server).await, Some(0));
        // A second start keeps the data and does not load the demo twice.
        let server = Server::start(&home, &["--demo"]).await;
        assert_eq!(ok(&server, &token, "/client/couponcount", json!({})).await, count);
        assert_eq!(home.sql(counted).await.unwrap(), made);
        server.kill().await;
    }

    async fn no_subcommand_means_serve_and_an_empty_ledger_prints_no_token(engine: Engine) {
        let home = Home::new(engine).await;
        let mut command = program(&home);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut server = launch(command).await;
        let banner = server.banner.join("\n");
        assert!(!banner.contains("cl1.") && banner.contains(" token --data-dir "), "{banner}");
        assert_eq!(get(&server, "/readyz").await.0, 200);
        let operator = cli_token(&home, &["--operator"]).await;
        assert_eq!(ok(&server, &operator, "/elecoupons/getlist", json!({})).await, json!([]));
        ok(&server, &operator, "/member/add", json!({"id": 439})).await;
        // The address stands in the folder for as long as the server runs.
        assert!(home.path().join("server.json").exists());
        assert_eq!(asked_to_stop(&mut server).await, Some(0));
        assert!(!home.path().join("server.json").exists());
        let again = Server::start(&home, &[]).await;
        ok(&again, &operator, "/member/get", json!({"id": 439})).await;
        again.kill().await;
    }

    async fn where_the_ledger_is_may_be_said_before_or_after_the_subcommand_or_in_a_file(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let folder = home.path().display().to_string();
        let file = home.path().join("settings.toml");
        let mut place = vec!["--data-dir".to_owned(), folder.clone()];
        let mut text = format!("data_dir = \"{folder}\"\n");
        if let Some(url) = &home.database_url {
            place.extend(["--database-url".to_owned(), url.clone()]);
            text.push_str("database_url = \"");
            text.push_str(url);
            text.push_str("\"\n");
        }
        std::fs::write(&file, text).unwrap();
        let config = ["--config".to_owned(), file.display().to_string()];
        for place in [&place[..], &config[..]] {
            for before in [true, false] {
                let mut command = bare();
                if before {
                    command.args(place).args(["token", "--member", "7"]);
                } else {
                    command.args(["token", "--member", "7"]).args(place);
                }
                let done = finish(command).await;
                assert_eq!(done.code, Some(0), "{done:?}");
                // It looked the member up in this very ledger.
                assert!(done.err.contains("no member:7 yet"), "{done:?}");
                ok(&server, done.out.trim(), "/client/couponcount", json!({})).await;
            }
        }
        server.kill().await;
    }

    async fn token_prints_just_a_token_of_each_kind_while_the_server_runs(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        for (whose, mine, others) in [
            (&["--member", "439"][..], "/client/couponcount", "/shop/list"),
            (&["--employee", "1000"], "/shop/list", "/client/couponcount"),
            (&["--operator"], "/elecoupons/getlist", "/client/couponcount"),
            (&["--auditor"], "/elecoupons/getlist", "/shop/add"),
        ] {
            let mut command = program(&home);
            command.arg("token").args(whose).args(["--ttl", "15m"]);
            let done = finish(command).await;
            assert_eq!(done.code, Some(0), "{done:?}");
            let token = done.out.strip_suffix('\n').unwrap();
            assert!(token.starts_with("cl1.") && !token.contains(char::is_whitespace), "{token:?}");
            assert!(!done.err.contains("cl1."), "{}", done.err);
            ok(&server, token, mine, json!({})).await;
            let (status, answer) = post(&server, token, others, json!({})).await;
            assert_eq!((status, &answer["code"]), (403, &json!(1002)), "{whose:?}");
        }
        // A partner's own pages need the partner.
        let operator = cli_token(&home, &["--operator"]).await;
        let details = json!({"shop_name": "隔壁", "phone": "1", "address": "a"});
        ok(&server, &operator, "/business/add", details).await;
        let partner = cli_token(&home, &["--partner", "1"]).await;
        ok(&server, &partner, "/businesshome/get", json!({})).await;
        for wrong in [
            &[][..],
            &["--member", "0"],
            &["--member", "1", "--partner", "1"],
            &["--member", "x"],
            &["--member", "9007199254740992"],
            &["--member", "1", "--operator"],
            &["--operator", "--ttl", "5x"],
            &["--operator", "--ttl", "0s"],
            &["--operator", "--ttl", "9999999999999d"],
        ] {
            let mut command = program(&home);
            command.arg("token").args(wrong);
            let done = finish(command).await;
            assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{wrong:?}");
        }
        let short = cli_token(&home, &["--member", "439", "--ttl", "1s"]).await;
        until_refused(&server, &short, Duration::from_secs(20)).await;
        server.kill().await;
    }

    async fn a_revoked_token_ends_and_stays_ended(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let revoke = async |token: &str| {
            let mut command = program(&home);
            command.args(["token", "--revoke", token]);
            finish(command).await
        };
        let [first, second, kept] = [
            cli_token(&home, &["--member", "439"]).await,
            cli_token(&home, &["--member", "439"]).await,
            cli_token(&home, &["--member", "439"]).await,
        ];
        ok(&server, &first, "/client/couponcount", json!({})).await;
        assert_eq!(revoke(&first).await.code, Some(0));
        match engine {
            // The server itself was asked: it knows.
            Engine::Sqlite => {
                let (status, answer) = post(&server, &first, "/client/couponcount", json!({})).await;
                assert_eq!((status, &answer["code"]), (401, &json!(1001)));
            }
            Engine::Postgres => until_refused(&server, &first, Duration::from_secs(60)).await,
        }
        let changed = format!("{first}x");
        for garbage in ["", "garbage", "cl1.a.b", changed.as_str()] {
            let done = revoke(garbage).await;
            assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
        }
        // A server that was killed left its address behind: the ledger is written without it.
        server.kill().await;
        assert!(home.path().join("server.json").exists());
        assert_eq!(revoke(&second).await.code, Some(0));
        let server = Server::start(&home, &[]).await;
        for revoked in [&first, &second] {
            let (status, _) = post(&server, revoked, "/client/couponcount", json!({})).await;
            assert_eq!(status, 401);
        }
        ok(&server, &kept, "/client/couponcount", json!({})).await;
        server.kill().await;
    }

    async fn without_a_ledger_or_its_secret_there_is_no_token(engine: Engine) {
        let home = Home::new(engine).await;
        for arguments in [&["--operator"][..], &["--revoke", "cl1.a.b"]] {
            let mut command = program(&home);
            command.arg("token").args(arguments);
            let done = finish(command).await;
            assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
            assert!(done.err.contains("start the server once"), "{}", done.err);
        }
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none(), "a token left something behind");
    }

    async fn another_secret_on_the_same_ledger_is_refused(engine: Engine) {
        let home = Home::new(engine).await;
        Server::start(&home, &[]).await.kill().await;
        let file = home.path().join("secret.key");
        let secret = std::fs::read_to_string(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let other = "5e".repeat(32);
        std::fs::write(&file, &other).unwrap();
        let sentence = refused(&home, &[]).await;
        assert!(sentence.contains("started with another secret"), "{sentence}");
        assert!(!sentence.contains(secret.trim()) && !sentence.contains(&other), "{sentence}");
        std::fs::write(&file, "too short").unwrap();
        assert!(refused(&home, &[]).await.contains("64 hexadecimal digits"));
        // Given by a file or by the environment it is the same secret.
        let elsewhere = home.path().join("given.key");
        std::fs::write(&elsewhere, &secret).unwrap();
        Server::start(&home, &["--secret-file", elsewhere.to_str().unwrap()]).await.kill().await;
        let mut command = program(&home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).env("COUPON_LEDGER_SECRET", secret.trim());
        launch(command).await.kill().await;
    }

    async fn a_taken_port_is_said_clearly(engine: Engine) {
        let home = Home::new(engine).await;
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let sentence = refused(&home, &["--listen", &address]).await;
        assert!(sentence.contains(&address) && sentence.contains("taken by another program"), "{sentence}");
        assert!(std::fs::read_dir(home.path()).unwrap().next().is_none(), "it left something behind");
        assert!(refused(&home, &["--listen", "nowhere"]).await.contains("nowhere"));
    }

    async fn where_there_is_no_ledger_whoever_reads_one_says_so(engine: Engine) {
        let home = Home::new(engine).await;
        put_secret(&home);
        let out = home.path().join("out");
        let file = out.to_str().unwrap();
        for arguments in [
            vec!["history", "1"],
            vec!["as-of", "1", "--member", "439", "couponlist"],
            vec!["verify"],
            vec!["export", "--out", file],
            vec!["backup", file],
            vec!["key", "list"],
            vec!["followers", "list"],
        ] {
            let mut command = program(&home);
            command.args(&arguments);
            let done = finish(command).await;
            let said = done.err.lines().last().unwrap_or_default();
            assert!(said.starts_with("coupon-ledger: there is no ledger in "), "{arguments:?}: {done:?}");
            assert_eq!((done.code, out.exists()), (Some(2), false), "{arguments:?}: {done:?}");
        }
    }

    async fn a_ledger_from_a_newer_version_is_refused(engine: Engine) {
        let home = Home::new(engine).await;
        Server::start(&home, &[]).await.kill().await;
        home.sql("INSERT INTO schema_versions VALUES (900, 'from the future', 0)").await.unwrap();
        let sentence = refused(&home, &[]).await;
        assert!(sentence.contains("newer version") && sentence.contains("900"), "{sentence}");
        home.sql("DELETE FROM schema_versions WHERE version = 900").await.unwrap();
        Server::start(&home, &[]).await.kill().await;
    }

    async fn what_an_operator_watches_is_served(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        assert_eq!(get(&server, "/healthz").await.0, 200);
        assert_eq!(get(&server, "/readyz").await.0, 200);
        let operator = cli_token(&home, &["--operator"]).await;
        ok(&server, &operator, "/shop/add", json!({"shop_name": "a", "phone": "1", "address": "b"})).await;
        post(&server, &operator, "/shop/get", json!({"id": 9})).await;
        let (status, kind, text) = get(&server, "/metrics").await;
        assert!(status == 200 && kind.starts_with("application/openmetrics-text"), "{status} {kind}");
        for line in [
            "coupon_ledger_events_total{aggregate=\"shop\",event=\"Opened\"} 1",
            "coupon_ledger_requests_total{route=\"/shop/add\",code=\"0\"} 1",
            "coupon_ledger_requests_total{route=\"/shop/get\",code=\"2003\"} 1",
            "coupon_ledger_conflicts_total 0",
            "coupon_ledger_unknown_commits_total 0",
            "coupon_ledger_queue_depth 0",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
        }
        for name in ["batch_size_bucket", "batch_seconds_count", "request_seconds_sum"] {
            assert!(text.contains(&format!("\ncoupon_ledger_{name}")), "no {name} in\n{text}");
        }
        // Every line is a comment or a name with a number.
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(name.starts_with("coupon_ledger_") && value.parse::<f64>().is_ok(), "{line}");
        }
        let (status, kind, text) = get(&server, "/openapi.json").await;
        assert!(status == 200 && kind.starts_with("application/json"), "{status} {kind}");
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        assert!(!routes::ALL.is_empty());
        for route in routes::ALL.iter() {
            let operation = &document["paths"][route.path]["post"];
            let fields = &operation["requestBody"]["content"]["application/json"]["schema"]["properties"];
            assert!(operation["summary"].is_string() && operation["responses"]["200"].is_object(), "{}", route.path);
            for field in route.fields {
                assert!(fields[field.name].is_object(), "{} {}", route.path, field.name);
            }
        }
        for path in ["/healthz", "/readyz", "/metrics", "/openapi.json"] {
            assert!(document["paths"][path]["get"].is_object(), "{path}");
        }
        server.kill().await;
    }

    async fn logs_never_hold_tokens_codes_or_the_secret(engine: Engine) {
        for format in ["text", "json"] {
            let home = Home::new(engine).await;
            let logs = home.path().join("server.log");
            let mut command = program(&home);
            command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", format]);
            command.env("COUPON_LEDGER_LOG", "debug").stderr(std::fs::File::create(&logs).unwrap());
            let mut server = launch(command).await;
            let operator = cli_token(&home, &["--operator"]).await;
            let member = cli_token(&home, &["--member", "439"]).await;
            let friend = cli_token(&home, &["--member", "442"]).await;
            for id in [439, 442] {
                ok(&server, &operator, "/member/add", json!({"id": id})).await;
            }
            let definition = ok(&server, &operator, "/elecoupons/add", crate::harness::definition(json!({}))).await;
            let issue = json!({"coupon_id": definition["id"], "member_id": 439});
            let id = ok(&server, &operator, "/sendelecoupon/one", issue).await["id"].clone();
            let given = ok(&server, &member, "/client/givecoupon", json!({"id": id})).await;
            let code = given["code"].as_i64().unwrap();
            post(&server, &friend, "/client/getcoupon", json!({"id": id, "code": 271_828})).await;
            ok(&server, &friend, "/client/giftinfo", json!({"id": id, "code": code})).await;
            ok(&server, &friend, "/client/getcoupon", json!({"id": id, "code": code})).await;
            ok(&server, &operator, "/token/revoke", json!({"revoke": friend})).await;
            post(&server, &friend, "/client/couponcount", json!({})).await;
            // Both headers, a broken body, and a route that is not there.
            let client = reqwest::Client::new();
            let odd = client.post(format!("{}/client/couponcount", server.url)).header("token", &member);
            odd.header("content-type", "application/json").body(format!("{{\"{member}")).send().await.unwrap();
            client.get(format!("{}/nowhere", server.url)).bearer_auth(&member).send().await.unwrap();
            assert_eq!(asked_to_stop(&mut server).await, Some(0));
            let text = std::fs::read_to_string(&logs).unwrap();
            assert!(text.contains("answered") && text.contains("/client/getcoupon"), "{text}");
            let secret = std::fs::read_to_string(home.path().join("secret.key")).unwrap();
            let mut words = vec![secret.trim().to_owned(), "271828".to_owned(), code.to_string()];
            for token in [operator, member, friend] {
                words.extend(token.split('.').skip(1).map(ToOwned::to_owned));
            }
            for word in words {
                let alone = text.split(|letter: char| !(letter.is_alphanumeric() || "-_".contains(letter)));
                let found =
                    if word.len() > 6 { text.contains(&word) } else { alone.into_iter().any(|part| part == word) };
                assert!(!found, "{word} in the logs");
            }
            if format == "json" {
                for line in text.lines() {
                    serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}"));
                }
            }
        }
    }
}

/// A folder with a secret of its own: the token tells which one was used.
fn folder_with_secret(inside: &Path, name: &str, digit: &str) -> (String, Secrets) {
    let folder = inside.join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("secret.key"), digit.repeat(64)).unwrap();
    (folder.display().to_string(), Secrets::parse(&digit.repeat(64)).unwrap())
}

#[tokio::test]
async fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let inside = tempfile::tempdir().unwrap();
    let (flag, by_flag) = folder_with_secret(inside.path(), "flag", "a");
    let (variable, by_variable) = folder_with_secret(inside.path(), "variable", "b");
    let (line, by_file) = folder_with_secret(inside.path(), "file", "c");
    let file = inside.path().join("settings.toml");
    std::fs::write(&file, format!("data_dir = \"{line}\"\n")).unwrap();
    let base = || {
        let mut command = bare();
        command.arg("--config").arg(&file);
        command
    };
    let mut from_file = base();
    from_file.args(["token", "--operator"]);
    let mut from_environment = base();
    from_environment.env("COUPON_LEDGER_DATA_DIR", &variable).args(["token", "--operator"]);
    let mut flag_after = base();
    flag_after.env("COUPON_LEDGER_DATA_DIR", &variable).args(["token", "--operator", "--data-dir", &flag]);
    let mut flag_before = base();
    flag_before.env("COUPON_LEDGER_DATA_DIR", &variable).args(["--data-dir", &flag, "token", "--operator"]);
    let cases = [
        (from_file, &by_file),
        (from_environment, &by_variable),
        (flag_after, &by_flag),
        (flag_before, &by_flag),
    ];
    for (place, (command, secrets)) in cases.into_iter().enumerate() {
        let done = finish(command).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        let token = Token::read(&done.out, secrets)
            .unwrap_or_else(|| panic!("case {place}: another folder's secret"));
        assert_eq!(token.caller, Caller::Operator);
    }
    // The file's own name may come from the environment, too.
    let mut command = bare();
    command.env("COUPON_LEDGER_CONFIG", &file).args(["token", "--operator"]);
    assert!(Token::read(&finish(command).await.out, &by_file).is_some());
}

#[tokio::test]
async fn the_servers_own_settings_follow_the_same_order() {
    let home = Home::new(Engine::Sqlite).await;
    let file = home.path().join("settings.toml");
    std::fs::write(&file, "listen = \"from the file\"\nbase_path = \"/file\"\n").unwrap();
    let with = |environment: Option<&str>, flag: Option<&str>| {
        let mut command = program(&home);
        command.arg("--config").arg(&file).arg("serve");
        command.envs(environment.map(|value| ("COUPON_LEDGER_LISTEN", value)));
        command.args(flag.map(|value| format!("--listen={value}")));
        command
    };
    let done = finish(with(None, None)).await;
    assert!(done.code == Some(2) && done.err.contains("from the file"), "{done:?}");
    let done = finish(with(Some("from the environment"), None)).await;
    assert!(done.code == Some(2) && done.err.contains("from the environment"), "{done:?}");
    let server = launch(with(Some("from the environment"), Some("127.0.0.1:0"))).await;
    let operator = cli_token(&home, &["--operator"]).await;
    ok(&server, &operator, "/file/shop/list", json!({})).await;
    ok(&server, &operator, "/shop/list", json!({})).await;
    server.kill().await;
    // A flag before the subcommand is a flag as well.
    let mut command = program(&home);
    command.args(["--listen", "127.0.0.1:0", "serve"]).env("COUPON_LEDGER_LISTEN", "from the environment");
    launch(command).await.kill().await;
}

#[tokio::test]
async fn an_empty_database_url_means_none() {
    let home = Home::new(Engine::Sqlite).await;
    let mut command = program(&home);
    command.args(["serve", "--listen", "127.0.0.1:0"]).env("DATABASE_URL", "");
    let server = launch(command).await;
    let token = cli_token(&home, &["--member", "439"]).await;
    let mut command = program(&home);
    command.args(["token", "--revoke", &token]).env("DATABASE_URL", "");
    let done = finish(command).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    until_refused(&server, &token, Duration::from_secs(1)).await;
    server.kill().await;
}

#[tokio::test]
async fn a_setting_that_is_not_known_or_not_right_is_named() {
    let home = Home::new(Engine::Sqlite).await;
    let file = home.path().join("settings.toml");
    for (text, named) in [
        ("lisen = \"127.0.0.1:0\"\n", "lisen"),
        ("[server]\nlisten = \"127.0.0.1:0\"\n", "server"),
        ("gift_lapse_hours = \"soon\"\n", "settings.toml"),
        ("listen = \n", "settings.toml"),
    ] {
        std::fs::write(&file, text).unwrap();
        for command in [&["serve"][..], &["token", "--operator"]] {
            let mut started = program(&home);
            started.arg("--config").arg(&file).args(command);
            let done = finish(started).await;
            assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
            assert!(done.err.contains(named), "{}", done.err);
        }
    }
    assert!(refused(&home, &["--config", "/no/such/file"]).await.contains("/no/such/file"));
    assert!(refused(&home, &["--timezone", "Moon/Base"]).await.contains("Moon/Base"));
    assert!(refused(&home, &["--log-format", "loud"]).await.contains("loud"));
    assert!(refused(&home, &["--gift-lapse-hours", "0"]).await.contains("--gift-lapse-hours"));
    assert!(refused(&home, &["--base-path", "no-slash"]).await.contains("--base-path"));
}

#[tokio::test]
async fn a_data_folder_in_use_is_refused_and_its_holder_named() {
    let home = Home::new(Engine::Sqlite).await;
    let server = Server::start(&home, &[]).await;
    let sentence = refused(&home, &[]).await;
    assert!(sentence.contains("is in use by the server at") && sentence.contains(&server.url), "{sentence}");
    // The one that was refused has not taken the other's address away.
    assert!(home.path().join("server.json").exists());
    assert_eq!(get(&server, "/readyz").await.0, 200);
    server.kill().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_refused_without_its_password() {
    let mut home = Home::new(Engine::Sqlite).await;
    let reachable = new_database().await;
    let (server, _) = reachable.rsplit_once('/').unwrap();
    let host = server.rsplit_once('@').unwrap().1;
    for (url, named) in [
        ("postgres://u:hunter2@127.0.0.1:1/ledger".to_owned(), "cannot reach the database at 127.0.0.1:1"),
        ("postgres://u:hunter2@no-such-host.invalid/ledger".to_owned(), "no-such-host.invalid"),
        (format!("postgres://postgres:hunter2@{host}/no_such_database"), "cannot reach the database"),
        ("postgres://u:hunter2@one,two/ledger".to_owned(), "several hosts"),
        ("postgres://u:hunter2@one:1,two:2/ledger?sslmode=disable".to_owned(), "several hosts"),
        (
            format!("postgres://postgres:hunter2@{host}/x?target_session_attrs=read-write"),
            "target_session_attrs",
        ),
        ("mysql://u:hunter2@127.0.0.1/ledger".to_owned(), "must begin with postgres://"),
        ("postgres://u:hunter2@127.0.0.1:port/ledger".to_owned(), "the database URL cannot be used"),
    ] {
        home.database_url = Some(url.clone());
        let sentence = refused(&home, &[]).await;
        assert!(sentence.contains(named), "{url}: {sentence}");
        assert!(!sentence.contains("hunter2"), "{sentence}");
    }
}

#[tokio::test]
async fn a_database_that_would_lose_what_it_acknowledged_is_refused() {
    let home = Home::new(Engine::Postgres).await;
    let name = home.database_url.as_ref().unwrap().rsplit_once('/').unwrap().1.to_owned();
    home.sql(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await.unwrap();
    let sentence = refused(&home, &[]).await;
    assert!(sentence.contains("synchronous_commit=off"), "{sentence}");
    home.sql(&format!("ALTER DATABASE {name} RESET synchronous_commit")).await.unwrap();
    Server::start(&home, &[]).await.kill().await;
}

/// Whatever the page loads comes from the server itself: it works without a network.
#[tokio::test]
async fn the_docs_need_no_network() {
    let home = Home::new(Engine::Sqlite).await;
    let server = Server::start(&home, &[]).await;
    let (status, kind, page) = get(&server, "/docs").await;
    assert!(status == 200 && kind.starts_with("text/html"), "{status} {kind}");
    let mut assets = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        assets.extend(page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()));
    }
    assert!(assets.len() >= 4, "{page}");
    assert!(!page.contains("://"), "{page}");
    for asset in assets {
        let path = format!("/docs/{}", asset.trim_start_matches("./"));
        let (status, kind, text) = get(&server, &path).await;
        assert_eq!(status, 200, "{path}");
        if kind.contains("css") {
            assert!(
                !text.contains("@import") && !text.contains("url(http") && !text.contains("url(//"),
                "{path}"
            );
        }
        if path.contains("initializer") {
            assert!(text.contains("/openapi.json") && !text.contains("://"), "{text}");
            // Swagger UI asks a validator on the internet unless it is told not to.
            assert!(
                text.contains("\"validatorUrl\": \"none\"") || text.contains("\"validatorUrl\":\"none\""),
                "{text}"
            );
        }
    }
    server.kill().await;
}
