//! Events in a stream of NATS JetStream, on a real server: each once and in order, whatever is killed.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Context};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coupon_ledger::feeds::nats::{NatsOptions, Publisher};
use coupon_ledger::followers::frame::{self, Follow as _};
use coupon_ledger::followers::{self, NATS};
use nkeys::KeyPair;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::followers::lose;
use crate::harness::{Home, Server, World};
use crate::outside::{Api, PATIENCE, count, until};
use crate::tls::{CERTIFICATE, KEY, STRANGER};

const STREAM: &str = "COUPON_LEDGER";

/// Whom a server lets in, and how it is spoken to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Whoever knows the password.
    Password,
    /// The same, over TLS alone.
    Tls,
    /// Whom an account of its operator's has signed.
    Credentials,
}

/// Debian's server with a folder of its own. Killed when it is dropped.
struct Nats {
    folder: TempDir,
    port: u16,
    child: Child,
    door: Door,
}

/// What one key says of another, as NATS has it.
fn signed(by: &KeyPair, of: &KeyPair, what: &Value) -> String {
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let (by_key, of_key) = (by.public_key(), of.public_key());
    let claims = json!({"jti": of_key, "iat": 1_700_000_000, "iss": by_key, "name": "ledger", "sub": of_key, "nats": what});
    let said = format!("{}.{}", part(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), part(&claims));
    let signature = by.sign(said.as_bytes()).unwrap();
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// A user of an account's: what is in its file.
fn credentials_of(account: &KeyPair) -> String {
    let user = KeyPair::new_user();
    let what =
        json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    let (jwt, seed) = (signed(account, &user, &what), user.seed().unwrap());
    crate::leaks::everywhere(&seed);
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// The settings of a server with an operator whose only account, beside its own, may have streams.
fn settings_for(account: &KeyPair) -> String {
    let (operator, system) = (KeyPair::new_operator(), KeyPair::new_account());
    let of_account = |account: &KeyPair, stored: i64| {
        let limits = json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
            "conn": -1, "leaf": -1, "mem_storage": stored, "disk_storage": stored, "streams": stored, "consumer": stored});
        let jwt = signed(&operator, account, &json!({"limits": limits, "type": "account", "version": 2}));
        format!("  {}: \"{jwt}\"\n", account.public_key())
    };
    format!(
        "operator: \"{}\"\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}{}}}\n",
        signed(&operator, &operator, &json!({"type": "operator", "version": 2})),
        system.public_key(),
        of_account(&system, 0),
        of_account(account, -1),
    )
}

impl Nats {
    async fn start() -> Self {
        Self::with(Door::Password).await
    }

    async fn with(door: Door) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        if door == Door::Credentials {
            let account = KeyPair::new_account();
            std::fs::write(folder.path().join("settings"), settings_for(&account)).unwrap();
            std::fs::write(folder.path().join("creds"), credentials_of(&account)).unwrap();
        }
        let child = Self::launch(&folder, port, door).await;
        Self { folder, port, child, door }
    }

    async fn launch(folder: &TempDir, port: u16, door: Door) -> Child {
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = Command::new("nats-server");
        match door {
            Door::Credentials => command.arg("-c").arg(folder.path().join("settings")),
            Door::Password => command.args(["--user", "ledger", "--pass", "s3cret"]),
            Door::Tls => {
                command.args(["--user", "ledger", "--pass", "s3cret"]);
                command.args(["--tls", "--tlscert", CERTIFICATE, "--tlskey", KEY])
            }
        };
        let child = command
            .env("PATH", path)
            .args(["-js", "-a", "127.0.0.1", "-p", &port.to_string(), "-sd"])
            .arg(folder.path().join("store"))
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("no nats-server to test on: run tests/run, which installs one");
        until("nats-server listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
        child
    }

    /// Ends it the hard way.
    async fn kill(&mut self) {
        self.child.kill().await.unwrap();
    }

    async fn start_again(&mut self) {
        self.child = Self::launch(&self.folder, self.port, self.door).await;
    }

    fn url(&self) -> String {
        let before = match self.door {
            Door::Password => "nats://ledger:s3cret@",
            Door::Tls => "tls://ledger:s3cret@",
            Door::Credentials => "nats://",
        };
        format!("{before}127.0.0.1:{}", self.port)
    }

    /// The file that lets the ledger in.
    fn creds_file(&self) -> Option<PathBuf> {
        (self.door == Door::Credentials).then(|| self.folder.path().join("creds"))
    }

    fn options(&self) -> NatsOptions {
        NatsOptions {
            url: self.url(),
            stream: STREAM.to_owned(),
            subject: "coupon_ledger.events".to_owned(),
            creds_file: self.creds_file(),
            ca_file: (self.door == Door::Tls).then(|| CERTIFICATE.into()),
        }
    }

    fn publisher(&self) -> Publisher {
        Publisher::new(self.options())
    }

    async fn context(&self) -> Context {
        let mut connect = match self.creds_file() {
            Some(file) => ConnectOptions::with_credentials_file(file).await.unwrap(),
            None => ConnectOptions::with_user_and_password("ledger".to_owned(), "s3cret".to_owned()),
        };
        if self.door == Door::Tls {
            connect = connect.add_root_certificates(CERTIFICATE.into()).require_tls(true);
        }
        jetstream::new(connect.connect(format!("127.0.0.1:{}", self.port)).await.unwrap())
    }

    async fn stream(&self) -> Stream {
        self.context().await.get_stream(STREAM).await.unwrap()
    }

    /// What the stream holds: id, subject and body of each message.
    async fn holds(&self) -> Vec<(i64, String, String)> {
        let stream = self.stream().await;
        let state = stream.cached_info().state.clone();
        let mut found = Vec::new();
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let id = message.headers.get("Nats-Msg-Id").unwrap().as_str().parse().unwrap();
            found.push((
                id,
                message.subject.to_string(),
                String::from_utf8(message.payload.to_vec()).unwrap(),
            ));
        }
        found
    }

    /// Every event from the first to the last, once and in order.
    async fn assert_holds_all_of(&self, world: &World) {
        let events = world.store().events_after(0, i64::MAX).await.unwrap();
        let expected: Vec<_> = events
            .iter()
            .map(|event| {
                let subject = format!("coupon_ledger.events.{}.{}", event.aggregate_type, event.aggregate_id);
                (event.position, subject, coupon_ledger::audit::feed::line(event).unwrap())
            })
            .collect();
        assert_eq!(self.holds().await, expected);
    }
}

async fn publish(world: &World, publisher: &mut Publisher) {
    while publisher.step(&world.ledger).await.unwrap() {}
}

/// So many coupons.
async fn issue(world: &World, definition: i64, number: usize) {
    let members = json!({"coupon_id": definition, "member_ids": "439,442"});
    for _ in 0..number {
        world.operator("/sendelecoupon/members", members.clone()).await.ok();
    }
}

on_both_engines! {
    async fn the_stream_holds_every_event_once_and_in_order(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        issue(&world, definition, 200).await;
        let mut publisher = nats.publisher();
        publish(&world, &mut publisher).await;
        nats.assert_holds_all_of(&world).await;
        let head = world.store().head().await.unwrap();
        assert_eq!(followers::checkpoint(world.store(), &NATS).await.unwrap(), head);
        issue(&world, definition, 3).await;
        publish(&world, &mut publisher).await;
        nats.assert_holds_all_of(&world).await;
        // It stands among the followers now that it has begun.
        let followers = world.get(coupon_ledger::identity::Caller::Auditor, "/v1/followers").await;
        let last = followers.body["followers"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&last["name"], &last["lag"]), (&json!("nats"), &json!(0)));
        world.close().await;
    }

    async fn whatever_is_lost_of_how_far_it_is_nothing_is_doubled(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        issue(&world, definition, 10).await;
        publish(&world, &mut nats.publisher()).await;
        for spoil in ["UPDATE checkpoints SET value = 3 WHERE name = 'nats'", "DELETE FROM checkpoints WHERE name = 'nats'"] {
            world.home.sql(spoil).await.unwrap();
            issue(&world, definition, 2).await;
            publish(&world, &mut nats.publisher()).await;
            nats.assert_holds_all_of(&world).await;
            let head = world.store().head().await.unwrap();
            assert_eq!(followers::checkpoint(world.store(), &NATS).await.unwrap(), head);
        }
        world.close().await;
    }

    async fn two_that_publish_at_once_double_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        issue(&world, definition, 400).await;
        let head = world.store().head().await.unwrap();
        let work = async || {
            let mut publisher = nats.publisher();
            // What one is refused because of the other it does again.
            while followers::checkpoint(world.store(), &NATS).await.unwrap() < head {
                let _ = publisher.step(&world.ledger).await;
            }
        };
        let both = Box::pin(async { tokio::join!(work(), work()) });
        tokio::time::timeout(PATIENCE, both).await.expect("they keep each other from it");
        nats.assert_holds_all_of(&world).await;
        world.close().await;
    }

    async fn a_server_that_is_killed_again_and_again_loses_and_doubles_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let mut nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        let publishing = tokio::spawn(frame::run(world.ledger.clone(), nats.publisher()));
        for round in 1..=3 {
            issue(&world, definition, 150).await;
            let before = followers::checkpoint(world.store(), &NATS).await.unwrap();
            until("it publishes", async || followers::checkpoint(world.store(), &NATS).await.unwrap() > before).await;
            nats.kill().await;
            issue(&world, definition, 20).await;
            if round == 2 {
                until("it says that it stands still", async || {
                    world.ledger.metrics().text().contains("coupon_ledger_follower_failed{follower=\"nats\"} 1")
                })
                .await;
            }
            nats.start_again().await;
        }
        let head = world.store().head().await.unwrap();
        until("all is published", async || followers::checkpoint(world.store(), &NATS).await.unwrap() == head).await;
        publishing.abort();
        let _ = publishing.await;
        nats.assert_holds_all_of(&world).await;
        world.close().await;
    }

    async fn over_tls_a_server_must_show_a_certificate_that_is_trusted(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::with(Door::Tls).await;
        let stranger = NatsOptions { ca_file: Some(STRANGER.into()), ..nats.options() };
        for options in [NatsOptions { ca_file: None, ..nats.options() }, stranger] {
            let refused = Publisher::new(options).step(&world.ledger).await.unwrap_err().to_string();
            assert!(refused.contains("invalid peer certificate") && !refused.contains("s3cret"), "{refused}");
        }
        publish(&world, &mut nats.publisher()).await;
        nats.assert_holds_all_of(&world).await;
        world.close().await;
    }

    async fn whoever_has_credentials_of_its_account_is_let_in_and_a_stranger_is_not(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::with(Door::Credentials).await;
        let stranger = nats.folder.path().join("stranger");
        std::fs::write(&stranger, credentials_of(&KeyPair::new_account())).unwrap();
        for creds_file in [None, Some(stranger)] {
            let refused = Publisher::new(NatsOptions { creds_file, ..nats.options() }).step(&world.ledger).await;
            let refused = refused.unwrap_err().to_string();
            assert!(refused.starts_with("NATS: ") && refused.contains("authorization violation"), "{refused}");
        }
        let definition = world.define(json!({})).await;
        issue(&world, definition, 3).await;
        publish(&world, &mut nats.publisher()).await;
        nats.assert_holds_all_of(&world).await;
        world.close().await;
    }

    async fn a_stream_that_cannot_be_this_ledgers_is_not_published_into(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let mut publisher = nats.publisher();
        publish(&world, &mut publisher).await;
        // One that is ahead: the ledger was rolled back, or is another.
        let other = World::empty(engine).await;
        let refused = nats.publisher().step(&other.ledger).await.unwrap_err().to_string();
        assert!(refused.starts_with("the stream COUPON_LEDGER is at position 1, and the ledger ends at 0: "), "{refused}");
        other.close().await;
        // One that others publish into.
        let context = nats.context().await;
        context.publish("coupon_ledger.events.coupon.1", "no event".into()).await.unwrap().await.unwrap();
        world.define(json!({})).await;
        for mut publisher in [publisher, nats.publisher()] {
            let mut said = String::new();
            for _ in 0..2 {
                said = publisher.step(&world.ledger).await.unwrap_err().to_string();
            }
            assert!(said.contains("holds messages that are not this ledger's"), "{said}");
        }
        world.close().await;
    }

    async fn an_event_that_is_missing_stops_it_before_what_follows_until_it_is_back(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        let mut publisher = nats.publisher();
        publish(&world, &mut publisher).await;
        issue(&world, definition, 2).await;
        let mend = lose(&world.home, 4).await;
        assert!(!publisher.step(&world.ledger).await.unwrap());
        let stopped = publisher.step(&world.ledger).await.unwrap_err().to_string();
        assert!(stopped.contains("position: 4 is missing"), "{stopped}");
        let ids: Vec<i64> = nats.holds().await.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, [1, 2, 3]);
        world.home.sql_all(&mend).await.unwrap();
        publish(&world, &mut publisher).await;
        nats.assert_holds_all_of(&world).await;
        world.close().await;
    }

    async fn a_stream_whose_messages_aged_away_goes_on_and_a_new_one_gets_everything(engine: Engine) {
        let world = World::with_people(engine).await;
        let nats = Nats::start().await;
        let definition = world.define(json!({})).await;
        issue(&world, definition, 2).await;
        publish(&world, &mut nats.publisher()).await;
        nats.stream().await.purge().await.unwrap();
        let before = world.store().head().await.unwrap();
        issue(&world, definition, 2).await;
        publish(&world, &mut nats.publisher()).await;
        let ids: Vec<i64> = nats.holds().await.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, (before + 1..=before + 4).collect::<Vec<_>>());
        nats.context().await.delete_stream(STREAM).await.unwrap();
        publish(&world, &mut nats.publisher()).await;
        nats.assert_holds_all_of(&world).await;
        let refused = followers::order(&world.ledger, "nats", followers::Order::Reset).await.unwrap_err();
        assert!(refused.to_string().starts_with("nats cannot be reset: the stream itself says"), "{refused}");
        world.close().await;
    }

    async fn the_server_publishes_by_itself_and_a_killed_one_goes_on(engine: Engine) {
        let home = Home::new(engine).await;
        let nats = Nats::start().await;
        let url = nats.url();
        let arguments = ["--nats-url", url.as_str()];
        let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
        let mut server = Server::start(&home, &arguments).await;
        for round in 1..=2 {
            let api = Api::new(&home, &server);
            for _ in 0..20 {
                api.operator("/shop/add", shop.clone()).await.ok();
            }
            // On PostgreSQL the turn of the one that was killed must be over first.
            let published = "SELECT COALESCE(MAX(value), 0) FROM checkpoints WHERE name = 'nats'";
            until("all is published", async || count(&home, published).await == round * 20).await;
            server.kill().await;
            server = Server::start(&home, &arguments).await;
        }
        let ids: Vec<i64> = nats.holds().await.into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, (1..=40).collect::<Vec<_>>());
        server.kill().await;
    }
}

#[test]
fn settings_that_cannot_be_are_told_without_their_secrets() {
    let good = NatsOptions {
        url: "nats://a:4222, tls://user:secret@b".to_owned(),
        stream: STREAM.to_owned(),
        subject: "a.b-c.d_e".to_owned(),
        creds_file: None,
        ca_file: None,
    };
    assert_eq!(good.check(), Ok(()));
    for wrong in [
        NatsOptions { url: String::new(), ..good.clone() },
        NatsOptions { url: "http://user:secret@a".to_owned(), ..good.clone() },
        NatsOptions { stream: String::new(), ..good.clone() },
        NatsOptions { stream: "a.b".to_owned(), ..good.clone() },
        NatsOptions { subject: String::new(), ..good.clone() },
        NatsOptions { subject: "a.>".to_owned(), ..good.clone() },
        NatsOptions { subject: "a..b".to_owned(), ..good.clone() },
    ] {
        let said = wrong.check().unwrap_err();
        assert!(said.starts_with("--nats-") && !said.contains("secret"), "{said}");
    }
}

#[tokio::test]
async fn credentials_that_are_not_there_or_are_none_are_told_without_the_seed() {
    let world = World::empty(crate::harness::Engine::Sqlite).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.creds");
    let options = NatsOptions {
        url: "nats://127.0.0.1:1".to_owned(),
        stream: STREAM.to_owned(),
        subject: "coupon_ledger.events".to_owned(),
        creds_file: Some(file.clone()),
        ca_file: None,
    };
    let told = async || Publisher::new(options.clone()).step(&world.ledger).await.unwrap_err().to_string();
    let missing =
        format!("NATS: loading creds file '{}': No such file or directory (os error 2)", file.display());
    assert_eq!(told().await, missing);
    let whole = credentials_of(&KeyPair::new_account());
    let seed = whole.lines().nth(5).unwrap();
    assert!(seed.starts_with("SU"), "{whole}");
    let (jwt, _) = whole.split_once("-----BEGIN USER").unwrap();
    for (content, said) in [
        (seed.to_owned(), "cannot parse user JWT from the credentials file"),
        (jwt.to_owned(), "cannot parse nkey from the credentials file"),
        (whole.replace(seed, &seed.to_lowercase()), "NATS: "),
    ] {
        std::fs::write(&file, content).unwrap();
        let told = told().await;
        assert!(told.contains(said) && !told.to_lowercase().contains(&seed.to_lowercase()), "{told}");
        assert!(!told.contains("Connection refused"), "{told}");
    }
    world.close().await;
}

/// No longer than a test waits.
#[tokio::test]
async fn a_server_that_is_not_there_is_told_soon() {
    let world = World::empty(crate::harness::Engine::Sqlite).await;
    let mut nats = Nats::start().await;
    nats.kill().await;
    let mut publisher = nats.publisher();
    let told = tokio::time::timeout(Duration::from_secs(20), publisher.step(&world.ledger)).await.unwrap();
    assert!(told.unwrap_err().to_string().starts_with("NATS: "));
    world.close().await;
}
