//! Honest members while thousands of connections dribble: a head or a body that never ends, or nothing at all.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use coupon_ledger::http::server::open_files;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::client::Pace;
use crate::measure::{Goal, Rounds, Row, number};
use crate::rows::Settings;
use crate::rows::statistics::caught_up;
use crate::work::Redeems;
use crate::world::World;

/// Connections that dribble.
const DRIBBLERS: usize = 2_000;

/// One address gets a quarter of the places: they come from many.
const PER_ADDRESS: usize = 100;

/// A byte of each so often.
const EVERY: Duration = Duration::from_secs(1);

/// Redemptions a second meanwhile.
const HONEST: f64 = 500.0;

/// Redemptions undisturbed and beside the dribblers, in turns.
pub async fn flood(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    ensure!(open_files() > DRIBBLERS + 500, "this process may not open enough files");
    world.stock_up((HONEST * settings.all_rounds().as_secs_f64() * 2.2) as usize + connections).await?;
    world.serve(1).await?;
    caught_up(world).await?;
    let (mut alone, mut beside) = (Rounds::default(), Rounds::default());
    let mut least = DRIBBLERS;
    for _ in 0..settings.rounds {
        round(world, settings, connections, &mut alone).await?;
        let dribblers = Dribblers::start(world).await?;
        round(world, settings, connections, &mut beside).await?;
        least = least.min(dribblers.connected());
    }
    let times = beside.p99() / alone.p99();
    let name = format!("{HONEST} redeem per second beside {} that dribble", number(DRIBBLERS as f64));
    let mut row = Row::new(name, world.engine.name(), beside);
    row.goals.push(Goal::at_most("p99 × undisturbed", Some(times), 2.0));
    row.goals.push(Goal::holds("every redemption was answered, each an event", true));
    row.notes.push(format!("undisturbed p50 {} ms, p99 {} ms", number(alone.p50()), number(alone.p99())));
    row.notes.push(format!("{least} or more were connected at the end of each round"));
    Ok(row.announce())
}

async fn round(
    world: &mut World,
    settings: &Settings,
    connections: usize,
    rounds: &mut Rounds,
) -> anyhow::Result<()> {
    let needed = (HONEST * settings.seconds * 1.1) as usize + connections;
    let (coupons, before) = (world.take(needed), world.head().await?);
    let work = Redeems::new(coupons, true);
    let (outcome, cores) =
        world.run(1, connections, settings.duration(), Pace::PerSecond(HONEST), work).await?;
    let written = world.head().await? - before;
    ensure!(
        written as u64 == outcome.round.done,
        "{} were answered, {written} events are in the log",
        outcome.round.done
    );
    world.lay_ready(outcome.work.left());
    rounds.push(outcome.round, Some(cores));
    Ok(())
}

/// Those who dribble; they go when this is dropped.
struct Dribblers {
    connected: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Dribblers {
    /// All connected when this returns. Who is let go comes again.
    async fn start(world: &World) -> anyhow::Result<Self> {
        let address = world.servers().first().context("no server")?.address.parse()?;
        let token = world.token(1);
        let head = format!(
            "POST /client/couponlist HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\n"
        );
        let (mut tasks, connected) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        for number in 0..DRIBBLERS {
            let begun = match number % 3 {
                0 => format!("{head}x: "),
                1 => format!("{head}content-length: 60000\r\n\r\n"),
                _ => String::new(),
            };
            let first = connect(number, address).await?;
            let connected = connected.clone();
            connected.fetch_add(1, Ordering::Relaxed);
            tasks.spawn(async move {
                let mut stream = Some(first);
                loop {
                    if let Some(stream) = stream.take() {
                        dribble(stream, &begun).await;
                        connected.fetch_sub(1, Ordering::Relaxed);
                    }
                    stream = connect(number, address).await.ok();
                    connected.fetch_add(usize::from(stream.is_some()), Ordering::Relaxed);
                }
            });
        }
        Ok(Self { connected, _tasks: tasks })
    }

    /// How many are connected, as far as they know.
    fn connected(&self) -> usize {
        self.connected.load(Ordering::Relaxed)
    }
}

async fn connect(number: usize, address: std::net::SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = std::net::Ipv4Addr::new(127, 0, 1, (number / PER_ADDRESS) as u8 + 1);
    socket.bind((from, 0).into())?;
    socket.connect(address).await
}

/// Until the server lets it go. Who says nothing finds that out by reading.
async fn dribble(mut stream: TcpStream, begun: &str) {
    let mut alive = stream.write_all(begun.as_bytes()).await.is_ok();
    while alive {
        tokio::time::sleep(EVERY).await;
        alive = if begun.is_empty() {
            !matches!(stream.try_read(&mut [0; 1]), Ok(0))
        } else {
            stream.write_all(b"x").await.is_ok()
        };
    }
}
