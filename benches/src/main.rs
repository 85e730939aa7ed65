//! Measures coupon-ledger as its users meet it: the release program, over HTTP on loopback, durability as shipped.
//!
//! `cargo build --release && cargo run --release --manifest-path benches/Cargo.toml -- redeem`
//! prints a Markdown row per round: commands per second, p50, p99. Every answer is read and checked.

mod client;
mod measure;
mod peers;
mod sweep;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use client::Connection;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::secrets::Secrets;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

#[derive(Parser)]
enum Bench {
    /// Members redeem their coupons, each its own, with an Idempotency-Key
    Redeem(Options),
    /// The sweep over coupons that end on one day
    Sweep {
        /// An empty PostgreSQL database; without it, SQLite in a temporary folder
        #[arg(long)]
        database_url: Option<String>,
        /// How many
        #[arg(long, default_value_t = 100_000)]
        coupons: i64,
    },
    /// A peer alone: postgres-es, sqlite-es, sqlite-es-default or disintegrate
    Peer(Alone),
}

#[derive(clap::Args)]
struct Alone {
    name: String,
    /// An empty database, or a folder
    at: String,
    #[arg(long, default_value_t = 20_000)]
    loaded: i64,
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Connections, or the size of a batch
    #[arg(default_values_t = [1, 8, 32, 64])]
    n: Vec<usize>,
}

fn say(name: &str, n: usize, round: measure::Round) {
    let mut micros = round.micros;
    micros.sort_unstable();
    let at = |part: f64| micros.get(((micros.len().max(1) - 1) as f64 * part) as usize).copied().unwrap_or(0);
    let (p50, p99) = (f64::from(at(0.5)) / 1e3, f64::from(at(0.99)) / 1e3);
    println!("{name} {n}: {:.0}/s, p50 {p50:.2} ms, p99 {p99:.2} ms", round.done as f64 / round.seconds);
}

async fn peer(args: Alone) -> anyhow::Result<()> {
    let duration = Duration::from_secs(args.seconds);
    let path = std::path::Path::new(&args.at);
    match args.name.as_str() {
        "postgres-es" => {
            let peer = peers::postgres_es::Peer::prepare(&args.at, args.loaded).await?;
            for n in args.n {
                say(&args.name, n, peer.round(n, duration).await?);
            }
        }
        "disintegrate" => {
            let peer = peers::disintegrate::Peer::prepare(&args.at, args.loaded).await?;
            for n in args.n {
                say(&args.name, n, peer.round(n, duration).await?);
            }
        }
        _ => {
            use peers::sqlite_es::Settings;
            let settings = if args.name == "sqlite-es-default" { Settings::DEFAULT } else { Settings::BEST };
            let peer = peers::sqlite_es::Peer::prepare(path, args.loaded, settings).await?;
            for n in args.n {
                say(&args.name, n, peer.round(n, duration).await?);
            }
        }
    }
    Ok(())
}

#[derive(clap::Args)]
struct Options {
    /// An empty PostgreSQL database; without it, SQLite in a temporary folder
    #[arg(long)]
    database_url: Option<String>,
    /// Connections, each waiting for its answer before the next request
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Length of a round
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Coupons issued before the first round, on top of what the rounds use up
    #[arg(long, default_value_t = 100_000)]
    loaded: i64,
    /// Where the SQLite data folder is made
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The program
    #[arg(long, default_value = "target/release/coupon-ledger")]
    program: PathBuf,
}

/// Members who hold the coupons.
const MEMBERS: i64 = 20_000;

struct Server {
    _child: Child,
    address: String,
    secrets: Secrets,
    now_ms: i64,
}

impl Server {
    async fn start(options: &Options, folder: &std::path::Path) -> anyhow::Result<Self> {
        let mut command = Command::new(&options.program);
        command
            .arg("--data-dir")
            .arg(folder)
            .arg("serve")
            .args(["--listen", "127.0.0.1:0"])
            .kill_on_drop(true);
        if let Some(url) = &options.database_url {
            command.arg("--database-url").arg(url);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start the program")?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let address = loop {
            let line = lines.next_line().await?.context("the server ended")?;
            if let Some(url) = line.trim().strip_prefix("listens on") {
                break url.trim().trim_start_matches("http://").to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let secrets = Secrets::parse(&std::fs::read_to_string(folder.join("secret.key"))?)
            .map_err(anyhow::Error::msg)?;
        Ok(Self { _child: child, address, secrets, now_ms: coupon_ledger::clock::Clock::System.now_ms() })
    }

    fn token(&self, caller: Caller) -> String {
        Token::new(caller, self.now_ms, 86_400).sign(&self.secrets)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    match Bench::parse() {
        Bench::Redeem(options) => redeem_rounds(options, temporary.path()).await,
        Bench::Sweep { database_url, coupons } => sweep::run(database_url, temporary.path(), coupons).await,
        Bench::Peer(args) => peer(args).await,
    }
}

async fn redeem_rounds(options: Options, temporary: &std::path::Path) -> anyhow::Result<()> {
    let folder = options.folder.clone().unwrap_or_else(|| temporary.to_owned());
    let server = Arc::new(Server::start(&options, &folder).await?);
    let operator = server.token(Caller::Operator);
    let mut connection = Connection::open(&server.address).await?;
    for (route, body) in [
        ("/shop/add", "shop_name=s&phone=1&address=a"),
        (
            "/elecoupons/add",
            "type=1&title=t&deduction=10.00&validity_type=2&start_num=0&end_num=30&is_giving=1&get_limit_type=1&num=100000000",
        ),
    ] {
        let answer = connection.post(route, &operator, None, body).await?;
        ensure!(answer.contains("\"code\":0,"), "{route}: {answer}");
    }
    eprintln!("adding {MEMBERS} members");
    parallel(64, MEMBERS, &server, |server, connection, place| async move {
        let token = server.token(Caller::Operator);
        let mut connection = connection;
        let answer = connection.post("/member/add", &token, None, &format!("id={}", place + 1)).await;
        (connection, answer)
    })
    .await?;
    // A guess at the rate decides how many are issued; a round that runs out says so.
    let coupons = options.loaded + (options.seconds * options.rounds as u64) as i64 * 15_000;
    eprintln!("issuing {coupons} coupons");
    let started = Instant::now();
    parallel(256, coupons, &server, |server, connection, place| async move {
        let token = server.token(Caller::Operator);
        let mut connection = connection;
        let body = format!("coupon_id=1&member_id={}", place % MEMBERS + 1);
        let answer = connection.post("/sendelecoupon/one", &token, None, &body).await;
        (connection, answer)
    })
    .await?;
    let issued_per_s = coupons as f64 / started.elapsed().as_secs_f64();
    eprintln!("issued {issued_per_s:.0} per second over HTTP, 256 connections");
    let owners = Arc::new(owners(&server).await?);
    println!("| round | commands/s | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|");
    let next = Arc::new(AtomicI64::new(0));
    let tokens: Arc<Vec<String>> =
        Arc::new((0..=MEMBERS).map(|id| server.token(Caller::Member(id))).collect());
    for round in 1..=options.rounds {
        let mut millis = redeem(&server, &options, &owners, &tokens, &next).await?;
        millis.sort_by(f64::total_cmp);
        let at = |part: f64| millis[((millis.len() - 1) as f64 * part) as usize];
        let rate = millis.len() as f64 / options.seconds as f64;
        println!("| {round} | {rate:.0} | {:.1} | {:.1} | {:.1} |", at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

/// Runs `count` calls over some connections; every answer must be a success.
async fn parallel<F>(
    connections: usize,
    count: i64,
    server: &Arc<Server>,
    call: impl Fn(Arc<Server>, Connection, i64) -> F + Copy + Send + 'static,
) -> anyhow::Result<()>
where
    F: Future<Output = (Connection, anyhow::Result<String>)> + Send,
{
    let next = Arc::new(AtomicI64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..connections {
        let (next, server) = (next.clone(), server.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&server.address).await?;
            loop {
                let place = next.fetch_add(1, Ordering::Relaxed);
                if place >= count {
                    return Ok(());
                }
                let (used, answer) = call(server.clone(), connection, place).await;
                connection = used;
                let answer = answer?;
                ensure!(answer.contains("\"code\":0,"), "{answer}");
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Every coupon with its holder, through the members' own lists.
async fn owners(server: &Arc<Server>) -> anyhow::Result<Vec<(i64, i64)>> {
    let (found, mut owners) = tokio::sync::mpsc::unbounded_channel();
    let next = Arc::new(AtomicI64::new(1));
    let mut tasks = Vec::new();
    for _ in 0..16 {
        let (next, server, found) = (next.clone(), server.clone(), found.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&server.address).await?;
            loop {
                let member = next.fetch_add(1, Ordering::Relaxed);
                if member > MEMBERS {
                    return anyhow::Ok(());
                }
                let token = server.token(Caller::Member(member));
                let mut page = 1;
                loop {
                    let body = format!("state=0&limit=100&page={page}");
                    let answer = connection.post("/client/couponlist", &token, None, &body).await?;
                    let ids: Vec<i64> = answer
                        .split("{\"id\":")
                        .skip(1)
                        .filter_map(|row| row.split(',').next()?.parse().ok())
                        .collect();
                    for id in &ids {
                        found.send((*id, member))?;
                    }
                    if ids.len() < 100 {
                        break;
                    }
                    page += 1;
                }
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    drop(found);
    let mut all = Vec::new();
    while let Some(owner) = owners.recv().await {
        all.push(owner);
    }
    all.sort_unstable();
    Ok(all)
}

/// One round: every connection redeems coupons of its own until the time is up. Returns each command's milliseconds.
async fn redeem(
    server: &Arc<Server>,
    options: &Options,
    owners: &Arc<Vec<(i64, i64)>>,
    tokens: &Arc<Vec<String>>,
    next: &Arc<AtomicI64>,
) -> anyhow::Result<Vec<f64>> {
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let mut tasks = Vec::new();
    for _ in 0..options.connections {
        let (server, owners, tokens, next) = (server.clone(), owners.clone(), tokens.clone(), next.clone());
        tasks.push(tokio::spawn(async move {
            let mut connection = Connection::open(&server.address).await?;
            let mut millis = Vec::new();
            while Instant::now() < until {
                let place = next.fetch_add(1, Ordering::Relaxed);
                // A stride, so that neighbours in time are not neighbours on disk.
                let place = (place as usize).wrapping_mul(7_919) % owners.len();
                let Some((coupon, member)) = owners.get(place) else { bail!("out of coupons") };
                let body = format!("mem_coupon_id={coupon}&shop_id=1");
                let key = format!("redeem-{coupon}");
                let started = Instant::now();
                let answer = connection
                    .post("/client/auditcoupon", &tokens[*member as usize], Some(&key), &body)
                    .await?;
                millis.push(started.elapsed().as_secs_f64() * 1e3);
                ensure!(
                    answer.contains("\"code\":0,") && !answer.contains("idempotency-replayed"),
                    "{answer}"
                );
            }
            Ok(millis)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    Ok(all)
}
