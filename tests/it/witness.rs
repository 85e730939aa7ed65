//! Witnesses: they cosign what continues the last checkpoint that they cosigned, nothing else, and they never forget.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use coupon_ledger::audit::checkpoint::{Cosigner, Signed, Trust, VerifierKey, sign, verifier_key};
use coupon_ledger::audit::receipt::Receipt;
use coupon_ledger::audit::tlog::{self, TlogOptions, run_tlog};
use coupon_ledger::audit::witness::{Said, Witness, WitnessError, request};
use coupon_ledger::clock::Clock;
use coupon_ledger::identity::Caller;
use ed25519_dalek::SigningKey;
use rand::seq::SliceRandom as _;
use serde_json::json;
use tlog_tiles::{Hash, HashReader, prove_tree, record_hash, stored_hash_index, stored_hashes, tree_hash};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::harness::{Engine, Home, NOON, Server, World, definition, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, PATIENCE, until};

const ORIGIN: &str = "coupon-ledger/0123456789abcdef";

/// A log in memory, of which there can be another that goes another way from some leaf on.
pub struct Log {
    hashes: Vec<Hash>,
    size: u64,
}

impl HashReader for Log {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, tlog_tiles::Error> {
        Ok(indexes.iter().map(|index| self.hashes[*index as usize]).collect())
    }
}

impl Log {
    /// So many leaves, of which those from one on are another history's.
    pub fn new(size: u64, other_from: u64) -> Self {
        let mut log = Self { hashes: Vec::new(), size: 0 };
        for number in 0..size {
            let leaf = if number < other_from { number.to_string() } else { format!("other {number}") };
            let more = stored_hashes(number, leaf.as_bytes(), &log).unwrap();
            assert_eq!(log.hashes.len() as u64, stored_hash_index(0, number));
            log.hashes.extend(more);
            log.size += 1;
        }
        log
    }

    fn signed_by(&self, size: u64, key: u8) -> Signed {
        let root = tree_hash(size, self).unwrap();
        sign(ORIGIN, size, root, &[SigningKey::from_bytes(&[key; 32])]).unwrap()
    }

    /// What asks a witness that has seen `old` to cosign `new`.
    pub fn asks(&self, old: u64, new: u64) -> String {
        let proof = if old == 0 { Vec::new() } else { prove_tree(new, old, self).unwrap() };
        request(old, &proof, &self.signed_by(new, 1))
    }
}

pub fn log_key(key: u8) -> String {
    verifier_key(ORIGIN, &SigningKey::from_bytes(&[key; 32]))
}

fn open(folder: &Path) -> Result<Witness, WitnessError> {
    let trust = Trust::new(&[log_key(1)], &[], 0).unwrap();
    Witness::open(folder, Some("witness.example/1"), trust, Clock::manual(NOON))
}

fn size_line(size: u64) -> Said {
    Said { status: 409, content_type: "text/x.tlog.size", body: format!("{size}\n") }
}

async fn status(witness: &Witness, body: &str) -> u16 {
    witness.add_checkpoint(body.as_bytes()).await.status
}

#[tokio::test]
async fn a_witness_cosigns_what_continues_the_last_and_says_what_it_knows_to_whoever_believes_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path()).unwrap();
    let log = Log::new(40, 40);
    assert_eq!(witness.add_checkpoint(log.asks(5, 9).as_bytes()).await, size_line(0));
    for (old, new) in [(0, 5), (5, 5), (5, 9), (9, 40)] {
        let said = witness.add_checkpoint(log.asks(old, new).as_bytes()).await;
        assert_eq!(said.status, 200, "{old} to {new}: {said:?}");
        let signed = log.signed_by(new, 1);
        let trust = Trust::new(&[log_key(1)], &[witness.verifier_key()], 1).unwrap();
        let opened = trust.open(&format!("{}{}", signed.note, said.body)).unwrap();
        assert_eq!(opened.witnesses, [("witness.example/1".to_owned(), NOON as u64 / 1_000)]);
    }
    assert_eq!(witness.add_checkpoint(log.asks(5, 9).as_bytes()).await, size_line(40));
}

#[tokio::test]
async fn a_witness_refuses_a_fork_and_a_rollback_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (log, fork) = (Log::new(40, 40), Log::new(40, 7));
    let witness = open(folder.path()).unwrap();
    assert_eq!(status(&witness, &log.asks(0, 20)).await, 200);
    let key = witness.verifier_key();
    drop(witness);
    let witness = open(folder.path()).unwrap();
    assert_eq!((witness.verifier_key(), witness.size().await), (key, 20));
    // The same size with another root; a larger one whose proof is the fork's own; the true proof under the fork's root.
    assert_eq!(witness.add_checkpoint(fork.asks(20, 20).as_bytes()).await, size_line(20));
    assert_eq!(status(&witness, &fork.asks(20, 30)).await, 422);
    let proof = prove_tree(30, 20, &log).unwrap();
    assert_eq!(status(&witness, &request(20, &proof, &fork.signed_by(30, 1))).await, 422);
    assert_eq!(status(&witness, &request(20, &[], &log.signed_by(30, 1))).await, 422);
    // Back: with what the witness knows, and with what the log would like it to know.
    assert_eq!(status(&witness, &request(20, &[], &log.signed_by(10, 1))).await, 400);
    assert_eq!(witness.add_checkpoint(log.asks(10, 10).as_bytes()).await, size_line(20));
    assert_eq!(witness.add_checkpoint(log.asks(0, 10).as_bytes()).await, size_line(20));
    assert_eq!(witness.size().await, 20);
    assert_eq!(status(&witness, &log.asks(20, 30)).await, 200);
}

#[tokio::test]
async fn a_witness_refuses_what_is_no_request_or_another_logs() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path()).unwrap();
    let state = || std::fs::read(folder.path().join("witness.state")).unwrap();
    let before = state();
    let log = Log::new(9, 9);
    let good = log.asks(0, 9);
    let note = log.signed_by(9, 1).note;
    let hash = "1ai2lpFCj9lGdPT9aTKbVaXGT8HMQoNZKdH/xcrZAYU=";
    let other =
        sign("coupon-ledger/other", 9, record_hash(b"x"), &[SigningKey::from_bytes(&[1; 32])]).unwrap();
    for (body, expected) in [
        (String::new(), 400),
        ("old 0\n".to_owned(), 400),
        (note.clone(), 400),
        (good.replace("old 0", "old 00"), 400),
        (good.replace("old 0", "old -1"), 400),
        (good.replace("old 0", "old  0"), 400),
        (good.replace("old 0", "new 0"), 400),
        (format!("old 0\nnot a hash\n\n{note}"), 400),
        (format!("old 0\n{}\n{note}", format!("{hash}\n").repeat(64)), 400),
        (format!("old 0\n{hash}\n\n{note}"), 422),
        (request(0, &[], &other), 404),
        (request(0, &[], &log.signed_by(9, 2)), 403),
        (good.replace("\n9\n", "\n8\n"), 403),
        (request(10, &[], &log.signed_by(9, 1)), 400),
    ] {
        let said = witness.add_checkpoint(body.as_bytes()).await;
        assert_eq!(said.status, expected, "{body}: {said:?}");
    }
    assert_eq!(witness.add_checkpoint(&[0xff; 300]).await.status, 400);
    assert_eq!(witness.size().await, 0);
    assert_eq!(state(), before, "nothing was remembered");
}

#[tokio::test]
async fn a_witness_that_cannot_remember_does_not_cosign() {
    let folder = tempfile::tempdir().unwrap();
    let witness = open(folder.path()).unwrap();
    let log = Log::new(9, 9);
    // In the way of the file that it would write.
    std::fs::remove_file(folder.path().join("witness.state")).unwrap();
    std::fs::create_dir(folder.path().join("witness.state")).unwrap();
    let said = witness.add_checkpoint(log.asks(0, 9).as_bytes()).await;
    assert_eq!((said.status, said.body.contains('—')), (500, false));
    assert_eq!(witness.size().await, 0);
    std::fs::remove_dir(folder.path().join("witness.state")).unwrap();
    assert_eq!(status(&witness, &log.asks(0, 5)).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_ask_at_once_each_is_cosigned_that_continues_what_was_remembered_then() {
    let folder = tempfile::tempdir().unwrap();
    let witness = Arc::new(open(folder.path()).unwrap());
    let log = Arc::new(Log::new(60, 60));
    let mut sizes: Vec<u64> = (1..=60).collect();
    sizes.shuffle(&mut rand::rng());
    let asking = sizes.into_iter().map(|new| {
        let (witness, log) = (witness.clone(), log.clone());
        tokio::spawn(async move {
            let mut old = 0;
            loop {
                let said = witness.add_checkpoint(log.asks(old, new).as_bytes()).await;
                match said.status {
                    200 => return (old, new),
                    409 => old = said.body.trim().parse().unwrap(),
                    _ => panic!("{said:?}"),
                }
                if old > new {
                    return (old, old);
                }
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut steps = Vec::new();
    for task in asking {
        steps.push(task.await.unwrap());
    }
    steps.retain(|(old, new)| old < new);
    steps.sort_unstable();
    assert_eq!(steps.first().map(|step| step.0), Some(0));
    assert!(steps.windows(2).all(|pair| pair[0].1 == pair[1].0), "no chain: {steps:?}");
    assert_eq!(witness.size().await, 60);
}

#[tokio::test]
async fn a_witness_whose_files_are_not_its_own_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    assert!(matches!(open(folder.path()), Err(WitnessError::InUse(_))));
    assert_eq!(status(&first, &Log::new(9, 9).asks(0, 9)).await, 200);
    drop(first);
    let state = folder.path().join("witness.state");
    let note = std::fs::read_to_string(&state).unwrap();
    for (path, spoilt) in
        [(state.clone(), note.replace("\n9\n", "\n8\n")), (folder.path().join("witness.key"), "x".into())]
    {
        let before = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, spoilt).unwrap();
        assert!(matches!(open(folder.path()), Err(WitnessError::Spoilt { .. })), "{}", path.display());
        std::fs::write(&path, before).unwrap();
    }
    let trust = Trust::new(&[log_key(1)], &[], 0).unwrap();
    let named = Witness::open(folder.path(), Some("a b"), trust, Clock::manual(NOON));
    assert!(matches!(named, Err(WitnessError::Name(_))));
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn a_witness_that_has_lost_what_it_cosigned_does_not_begin() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("witness.state");
    let log = Log::new(9, 9);
    // Also one that had cosigned nothing yet: whoever looks at the key alone cannot tell.
    for cosigned in [false, true] {
        let witness = open(folder.path()).unwrap();
        if cosigned {
            assert_eq!(status(&witness, &log.asks(0, 9)).await, 200);
        }
        drop(witness);
        let note = std::fs::read(&state).unwrap();
        std::fs::remove_file(&state).unwrap();
        assert!(
            matches!(open(folder.path()), Err(WitnessError::Forgotten(path)) if path == state.display().to_string())
        );
        std::fs::write(&state, "").unwrap();
        assert!(matches!(open(folder.path()), Err(WitnessError::Spoilt { .. })));
        std::fs::write(&state, note).unwrap();
    }
    let witness = open(folder.path()).unwrap();
    assert_eq!(witness.size().await, 9);
    let key = witness.verifier_key();
    drop(witness);
    // Begun anew it is another.
    std::fs::remove_file(&state).unwrap();
    std::fs::remove_file(folder.path().join("witness.key")).unwrap();
    assert_ne!(open(folder.path()).unwrap().verifier_key(), key);
}

/// Something that calls itself a witness and names these sizes in turn, whatever it is asked; where it answers.
async fn pretender(sizes: &'static [u64]) -> String {
    use axum::http::{StatusCode, header};
    use std::sync::atomic::{AtomicUsize, Ordering};
    let asked = AtomicUsize::new(0);
    let answer = move || {
        let size = sizes[asked.fetch_add(1, Ordering::Relaxed) % sizes.len()];
        let answer =
            (StatusCode::CONFLICT, [(header::CONTENT_TYPE, "text/x.tlog.size")], format!("{size}\n"));
        async move { answer }
    };
    let answer = Arc::new(answer);
    let router = axum::Router::new().route("/add-checkpoint", axum::routing::post(move || answer()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The real program as a witness.
pub struct Running {
    pub url: String,
    key: String,
    pub child: Child,
}

async fn start(folder: &Path, listen: &str, log: &str, name: &str) -> Running {
    launch(Command::new(env!("CARGO_BIN_EXE_coupon-ledger")), folder, listen, log, name).await
}

pub async fn launch(mut command: Command, folder: &Path, listen: &str, log: &str, name: &str) -> Running {
    command
        .env_clear()
        .kill_on_drop(true)
        .args(["witness", "--listen", listen, "--log", log, "--name", name]);
    command.arg("--state").arg(folder).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while !said.last().is_some_and(|line: &String| line.trim_start().starts_with("its key")) {
        said.push(lines.next_line().await.unwrap().expect("the witness ended before it listened"));
    }
    let value =
        |name: &str| said.iter().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim().to_owned();
    Running { url: value("listens on"), key: value("its key"), child }
}

async fn key_of_log(home: &Home) -> String {
    let listed = program(home).args(["key", "list"]).heard().await;
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    String::from_utf8(listed.stdout).unwrap().trim().to_owned()
}

on_both_engines! {
    /// Either it knows what this ledger has lost, or it says now this and now that. In no case has it cosigned.
    async fn a_witness_that_knows_more_than_was_signed_or_contradicts_itself_is_told_as_failing(engine: Engine) {
        let world = World::with_people(engine).await;
        world.define(json!({})).await;
        let mut witnesses = Vec::new();
        for (number, sizes) in [(7, [1_000].as_slice()), (8, &[1, 0])] {
            let key = Cosigner::new(&format!("witness.example/{number}"), SigningKey::from_bytes(&[number; 32]), 0);
            let key = VerifierKey::parse(&key.unwrap().verifier_key()).unwrap();
            witnesses.push(tlog::Witness { url: pretender(sizes).await, key });
        }
        let options = TlogOptions { folder: world.home.path().to_owned(), witnesses };
        let running = tokio::spawn(run_tlog(world.ledger.clone(), options));
        let metrics = || world.ledger.metrics().text();
        for number in [7, 8] {
            let failed = format!("coupon_ledger_witness_failed{{witness=\"witness.example/{number}\"}} 1\n");
            until("it is told as failing", async || metrics().contains(&failed)).await;
        }
        assert!(!metrics().contains("coupon_ledger_witness_size{"), "{}", metrics());
        running.abort();
        let _ = running.await;
        world.close().await;
    }

    async fn a_server_gathers_cosignatures_and_a_witness_that_is_away_keeps_nobody_waiting(engine: Engine) {
        let home = Home::new(engine).await;
        Server::start(&home, &[]).await.kill().await;
        let log = key_of_log(&home).await;
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let first = start(folders[0].path(), "127.0.0.1:0", &log, "witness.example/1").await;
        let mut second = start(folders[1].path(), "127.0.0.1:0", &log, "witness.example/2").await;
        let witnesses = [&first, &second].map(|witness| format!("{}={}", witness.url, witness.key));
        let arguments = ["--witness", &witnesses[0], "--witness", &witnesses[1]];
        let server = Server::start(&home, &arguments).await;
        let api = Api::new(&home, &server);
        api.operator("/elecoupons/add", definition(json!({}))).await.ok();
        let keys = [first.key.clone(), second.key.clone()];
        let trust = |needed| Trust::new(std::slice::from_ref(&log), &keys, needed).unwrap();
        let checkpoint = async |witnesses: usize| {
            let (status, note) = api.get(Caller::Auditor, &format!("/v1/checkpoint?witnesses={witnesses}")).await;
            (status == 200).then(|| trust(witnesses).open(&note).unwrap().size)
        };
        until("both have cosigned", async || checkpoint(2).await == Some(1)).await;
        let (_, receipt) = api.get(Caller::Auditor, "/v1/streams/definition/1/receipt").await;
        let (event, opened) = Receipt::parse(&receipt).unwrap().open(&trust(2)).unwrap();
        assert_eq!((event.event_type.as_str(), opened.witnesses.len()), ("Defined", 2));

        // One goes away: the other's signature comes all the same, and so does the receipt.
        second.child.kill().await.unwrap();
        let address = second.url.strip_prefix("http://").unwrap().to_owned();
        api.operator("/elecoupons/add", definition(json!({}))).await.ok();
        until("one has cosigned", async || checkpoint(1).await == Some(2)).await;
        let (status, receipt) = api.get(Caller::Auditor, "/v1/streams/definition/2/receipt").await;
        assert_eq!(status, 200, "{receipt}");
        assert_eq!(checkpoint(0).await, Some(2));

        // Back again, it goes on from what it knows.
        let back = start(folders[1].path(), &address, &log, "witness.example/2").await;
        assert_eq!(back.key, second.key);
        until("both have cosigned again", async || checkpoint(2).await == Some(2)).await;
        let (_, metrics) = api.get(Caller::Auditor, "/metrics").await;
        for name in ["witness.example/1", "witness.example/2"] {
            assert!(metrics.contains(&format!("coupon_ledger_witness_size{{witness=\"{name}\"}} 2\n")), "{metrics}");
            assert!(metrics.contains(&format!("coupon_ledger_witness_failed{{witness=\"{name}\"}} 0\n")), "{metrics}");
        }
        server.kill().await;
    }

    async fn a_key_is_listed_and_rotated_from_the_command_line_whether_or_not_a_server_runs(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let first = key_of_log(&home).await;
        let rotate = async || {
            let done = program(&home).args(["key", "rotate", "checkpoint"]).heard().await;
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
            String::from_utf8(done.stdout).unwrap().trim().to_owned()
        };
        let second = rotate().await;
        assert_eq!(key_of_log(&home).await, format!("{first}\n{second}"));
        let api = Api::new(&home, &server);
        let trust = Trust::new(&[&second], &[], 0).unwrap();
        until("the new key signs", async || {
            let (status, note) = api.get(Caller::Auditor, "/v1/checkpoint").await;
            status == 200 && trust.open(&note).is_ok()
        }).await;
        // Whoever had no answer asks again, and means the same rotation.
        assert_eq!(rotate().await, second);
        server.kill().await;
        assert_eq!(rotate().await, second);
        assert_eq!(key_of_log(&home).await, format!("{first}\n{second}"));
        let unknown = program(&home).args(["key", "rotate", "tokens"]).heard().await;
        assert_eq!(unknown.status.code(), Some(2));
    }
}

#[tokio::test]
async fn a_witness_that_cannot_be_asked_is_said_before_the_server_listens() {
    let home = Home::new(Engine::Sqlite).await;
    let key = open(home.path()).unwrap().verifier_key();
    for (given, said) in [
        ("http://127.0.0.1:1".to_owned(), "a witness is given as URL=VKEY"),
        (format!("https://witness.example={key}"), "witnesses are asked over http://"),
        (format!("http://127.0.0.1:1={}", log_key(1)), "is a log's key, not a witness's"),
        ("http://127.0.0.1:1=a+b+c".to_owned(), "is no verifier key"),
    ] {
        let mut command = program(&home);
        let done = command.args(["serve", "--listen", "127.0.0.1:0", "--witness", &given]).heard().await;
        let err = String::from_utf8(done.stderr).unwrap();
        assert_eq!((done.status.code(), err.contains(said)), (Some(2), true), "{given}: {err}");
    }
    let mut command = program(&home);
    let twice = [format!("http://127.0.0.1:1={key}"), format!("http://127.0.0.1:2={key}")];
    let twice = ["--witness", &twice[0], "--witness", &twice[1]];
    let done = command.args(["serve", "--listen", "127.0.0.1:0"]).args(twice).heard();
    let done = tokio::time::timeout(PATIENCE, done).await.expect("it serves");
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!(
        (done.status.code(), err.contains(&format!("{key} is given twice"))),
        (Some(2), true),
        "{err}"
    );
    let folder = tempfile::tempdir().unwrap();
    let witness = |log: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coupon-ledger"));
        command.env_clear().args(["witness", "--log", log, "--state"]).arg(folder.path());
        command
    };
    let done = witness("nonsense").heard().await;
    let err = String::from_utf8(done.stderr).unwrap();
    assert_eq!((done.status.code(), err.contains("nonsense is no verifier key")), (Some(2), true), "{err}");
}
