//! A safe start: what `--production` refuses, all of it at once, each with how to mend it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::cli::finish;
use crate::harness::{Engine, Home, Server, World, program};
use crate::roles::{documented_grants, with_role};

/// What a start with these arguments is refused with: each line's weakness.
async fn refused(home: &Home, arguments: &[&str]) -> Vec<String> {
    let mut command = program(home);
    command.args(["serve", "--production"]).args(arguments);
    let done = finish(command).await;
    assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
    let said = done
        .err
        .split_once("--production does not start with this:\n")
        .unwrap_or_else(|| panic!("{done:?}"))
        .1;
    said.lines().filter_map(|line| line.strip_prefix("  - ")).map(ToOwned::to_owned).collect()
}

const SAFE: [&str; 6] = [
    "--listen",
    "127.0.0.1:0",
    "--public-url",
    "https://coupons.example",
    "--trusted-proxies",
    "127.0.0.1,::1",
];

/// A place that is its owner's only, as the program would make it.
async fn closed_home(engine: Engine) -> Home {
    let home = Home::new(engine).await;
    set_mode(home.path(), 0o700);
    home
}

/// The same place for a server under a role of its own.
async fn under_its_role(owner: &Home) -> Home {
    let home = with_role(owner).await;
    set_mode(home.path(), 0o700);
    home
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Every line says one of these, in order, and goes on with what to do.
#[track_caller]
fn assert_says(found: &[String], expected: &[&str]) {
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (line, start) in found.iter().zip(expected) {
        assert!(line.starts_with(start) && line.len() > start.len() + 10, "{line}\ninstead of\n{start}");
    }
}

on_both_engines! {
    async fn safe_settings_start(engine: Engine) {
        let home = closed_home(engine).await;
        let secret = coupon_ledger::value::hex(&coupon_ledger::value::random::<32>());
        let start = async |home: &Home, arguments: &[&str]| {
            let mut command = program(home);
            command.env("COUPON_LEDGER_SECRET", &secret);
            Server::launch(command, arguments).await.kill().await;
        };
        match engine {
            Engine::Sqlite => start(&home, &[&["--production"], SAFE.as_slice()].concat()).await,
            Engine::Postgres => {
                // Its tables are their owner's to make.
                start(&home, &[]).await;
                start(&under_its_role(&home).await, &[&["--production"], SAFE.as_slice()].concat()).await;
            }
        }
    }
}

#[tokio::test]
async fn everything_that_is_not_safe_is_told_at_once() {
    let home = closed_home(Engine::Sqlite).await;
    Server::start(&home, &["--demo"]).await.kill().await;
    let (secret, person_keys) = (home.path().join("secret.key"), home.person_keys_file());
    std::fs::write(&secret, "00".repeat(32)).unwrap();
    set_mode(&secret, 0o640);
    set_mode(&person_keys, 0o604);
    set_mode(home.path(), 0o755);
    let unsafe_ones = [
        "--listen",
        "0.0.0.0:0",
        "--public-url",
        "http://coupons.example",
        "--limits",
        "off",
        "--demo",
        "--cors-origins",
        "https://app.example,http://app.example",
    ];
    let found = refused(&home, &unsafe_ones).await;
    let people = person_keys.display();
    assert_says(
        &found,
        &[
            "it listens on 0.0.0.0:0 over http, and no proxy is declared: ",
            "the public URL is \"http://coupons.example\": ",
            "--limits is off: ",
            "scripts of http://app.example may call, ",
            "--demo is given: ",
            &format!(
                "the secret in {} can be read by others than its owner (mode 640): chmod 600 ",
                secret.display()
            ),
            &format!(
                "the person keys in {people} can be read by others than its owner (mode 604): chmod 600 {people}"
            ),
            &format!(
                "everybody on this machine can look into the data folder {} (mode 755): chmod 700 ",
                home.path().display()
            ),
            "the secret was not drawn at random: ",
            "the ledger holds the demo world: ",
        ],
    );
    // Nothing was made and nothing was changed: each mended, it is told no more.
    std::fs::write(&secret, coupon_ledger::value::hex(&coupon_ledger::value::random::<32>())).unwrap();
    set_mode(&secret, 0o600);
    set_mode(&person_keys, 0o600);
    set_mode(home.path(), 0o700);
    assert_says(&refused(&home, &SAFE).await, &["the ledger holds the demo world: "]);
}

#[tokio::test]
async fn behind_no_proxy_on_this_machine_it_is_not_safe_either() {
    let home = closed_home(Engine::Sqlite).await;
    let found = refused(&home, &["--listen", "[::1]:0"]).await;
    assert_says(&found, &["no proxy is declared, ", "the public URL is not given: "]);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0, "a refused start has made something");
}

#[tokio::test]
async fn production_can_be_asked_for_in_the_environment_and_in_the_file() {
    let home = closed_home(Engine::Sqlite).await;
    let mut command = program(&home);
    command.arg("serve").env("COUPON_LEDGER_PRODUCTION", "true");
    let done = finish(command).await;
    assert!(done.code == Some(2) && done.err.contains("--production does not start"), "{done:?}");
    let file = home.path().join("settings.toml");
    let settings = "production = true\nlisten = \"127.0.0.1:0\"\ntrusted_proxies = [\"10.0.0.0/8\"]\nlimits = [\"off\"]\n\
                    cors_origins = [\"https://app.example\"]\npublic_url = \"https://coupons.example\"\n";
    std::fs::write(&file, settings).unwrap();
    let mut command = program(&home);
    command.arg("serve").arg("--config").arg(&file);
    let done = finish(command).await;
    let lines: Vec<_> = done.err.lines().filter(|line| line.starts_with("  - ")).collect();
    assert!(done.code == Some(2) && lines.len() == 1 && lines[0].contains("--limits is off"), "{done:?}");
}

#[tokio::test]
async fn a_database_role_that_could_change_the_log_does_not_serve_in_production() {
    let world = World::with_people(Engine::Postgres).await;
    let owner = world.close().await;
    set_mode(owner.path(), 0o700);
    assert_says(&refused(&owner, &SAFE).await, &["the database role postgres is a superuser: serve as "]);
    let server = under_its_role(&owner).await;
    let role = server
        .database_url
        .as_ref()
        .unwrap()
        .split_once("//")
        .unwrap()
        .1
        .split_once('@')
        .unwrap()
        .0
        .to_owned();
    owner.sql(&format!("GRANT UPDATE (payload), DELETE, TRUNCATE ON events TO {role}")).await.unwrap();
    owner.sql(&format!("GRANT SET ON PARAMETER session_replication_role TO {role}")).await.unwrap();
    owner.sql(&format!("ALTER ROLE {role} CREATEROLE")).await.unwrap();
    let found = refused(&server, &SAFE).await;
    let says = |right: &str| format!("the database role {role} {right}: serve as ");
    let expected = [
        "may create roles, and so become another",
        "may switch triggers off (session_replication_role)",
        "may UPDATE the log",
        "may DELETE from the log",
        "may TRUNCATE the log",
    ];
    assert_says(&found, &expected.map(says).iter().map(String::as_str).collect::<Vec<_>>());
    owner.sql(&format!("ALTER ROLE {role} NOCREATEROLE; REVOKE ALL ON events FROM {role}; REVOKE SET ON PARAMETER session_replication_role FROM {role}")).await.unwrap();
    owner.sql(&documented_grants().replace("coupon_server", &role)).await.unwrap();
    owner.sql(&format!("ALTER TABLE events OWNER TO {role}")).await.unwrap();
    let found = refused(&server, &SAFE).await;
    assert!(found[0].starts_with(&says("owns the log, or would")), "{found:?}");
    owner
        .sql(&format!("ALTER TABLE events OWNER TO postgres; DROP OWNED BY {role}; DROP ROLE {role}"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_database_across_a_network_needs_tls_in_production() {
    let mut home = closed_home(Engine::Sqlite).await;
    for (parameters, expected) in [
        ("", 2),
        ("?sslmode=disable", 2),
        ("?sslmode=prefer", 2),
        ("?sslmode=require", 1),
        ("?sslmode=verify-full", 1),
    ] {
        home.database_url = Some(format!("postgres://server:hidden@database.invalid/coupons{parameters}"));
        let found = refused(&home, &[SAFE.as_slice(), &["--limits", "off"]].concat()).await;
        let crossing = "the connection to the database crosses a network without TLS";
        let crosses = found.iter().filter(|line| line.starts_with(crossing)).count();
        assert_eq!(crosses, expected - 1, "{parameters}: {found:?}");
        assert!(
            found.last().unwrap().starts_with("what the database role may do could not be asked"),
            "{found:?}"
        );
        assert!(!found.concat().contains("hidden"), "{found:?}");
    }
}

#[tokio::test]
async fn a_server_that_others_can_reach_warns_and_one_of_this_machine_says_nothing() {
    let home = closed_home(Engine::Sqlite).await;
    let log = home.path().join("log");
    for (listen, warns) in [("0.0.0.0:0", true), ("127.0.0.1:0", false)] {
        let mut command = program(&home);
        command.stderr(std::fs::File::create(&log).unwrap());
        Server::launch(command, &["--listen", listen, "--limits", "off"]).await.kill().await;
        let said = std::fs::read_to_string(&log).unwrap();
        for weakness in
            ["over http, and no proxy is declared", "--limits is off", "the public URL is not given"]
        {
            assert_eq!(said.contains(weakness), warns, "{listen}: {said}");
        }
    }
}

#[tokio::test]
async fn without_being_told_it_listens_on_this_machine_only() {
    let home = closed_home(Engine::Sqlite).await;
    let mut command = program(&home);
    let done = finish({
        command.args(["serve", "--help"]);
        command
    })
    .await;
    assert!(done.out.contains("127.0.0.1:8787"), "{}", done.out);
    let server = Server::start(&home, &[]).await;
    assert!(server.url.starts_with("http://127.0.0.1:"), "{}", server.url);
    server.kill().await;
}

#[tokio::test]
async fn settings_that_are_garbage_are_refused_with_a_sentence() {
    let home = closed_home(Engine::Sqlite).await;
    for (arguments, says) in [
        (
            ["--trusted-proxies", "10.0.0.0/33"],
            "--trusted-proxies: \"10.0.0.0/33\" is no address and no range",
        ),
        (
            ["--trusted-proxies", "127.0.0.1,proxy.example"],
            "--trusted-proxies: \"proxy.example\" is no address",
        ),
        (["--trusted-proxies", "0.0.0.0/0"], "--trusted-proxies: 0.0.0.0/0 is everybody"),
        (["--forwarded-header", "via"], "--forwarded-header is x-forwarded-for or forwarded, not \"via\""),
        (["--cors-origins", "*"], "--cors-origins: \"*\" is no origin"),
        (["--cors-origins", "https://app.example,null"], "--cors-origins: \"null\" is no origin"),
        (["--cors-origins", "https://app.example/"], "--cors-origins: \"https://app.example/\" is no origin"),
        (["--limits", "gift"], "--limits: \"gift\" is not understood"),
        (["--limits", "gift=0/m"], "--limits: \"gift=0/m\" is not understood"),
        (["--limits", "off,gift=1/m"], "--limits: off stands alone"),
    ] {
        let mut command = program(&home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(arguments);
        let done = finish(command).await;
        assert!(
            done.code == Some(2) && done.err.contains(&format!("coupon-ledger: {says}")),
            "{arguments:?}: {done:?}"
        );
    }
}
