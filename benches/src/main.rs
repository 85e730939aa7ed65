//! Measures coupon-ledger as its users meet it: the release program, over HTTP on loopback, durability as shipped, in
//! turns with its peers and with the raw limit of the engine.
//!
//! `cargo build --release && cargo run --release --manifest-path benches/Cargo.toml -- all` prints a Markdown table;
//! progress goes to stderr. Every answer is read and checked, and the log is counted afterwards.

mod client;
mod field;
mod kernel;
mod load;
mod machine;
mod measure;
mod peers;
mod plan;
mod postgres;
mod process;
mod raw;
mod rivals;
mod rows;
mod server;
mod work;
mod world;

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use kernel::Kernel;
use measure::Row;
use plan::{RowName, Which};
use rows::Settings;

/// Measures coupon-ledger.
#[derive(Parser)]
#[command(name = "coupon-ledger-benches")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Options {
    /// On which engine
    #[arg(long, global = true, value_enum, default_value_t = Which::Both)]
    engine: Which,
    /// Connections, instead of each row's own
    #[arg(long, global = true)]
    connections: Option<usize>,
    /// Length of a round
    #[arg(long, global = true, default_value_t = 10.0)]
    seconds: f64,
    /// Rounds of each contestant
    #[arg(long, global = true, default_value_t = 3)]
    rounds: usize,
    /// How much of the full load: 0.01 for a quick look, whose figures mean nothing
    #[arg(long, global = true, default_value_t = 1.0)]
    scale: f64,
    /// Commands in a batch of the raw limits: longer ones gain little and keep callers waiting
    #[arg(long, global = true, default_value_t = 500)]
    raw_batch: usize,
    /// The program
    #[arg(long, global = true, default_value = "target/release/coupon-ledger")]
    program: PathBuf,
    /// Where ledgers are made, instead of the system's temporary folder
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Every row, or some of them on one load
    All {
        /// Which rows
        #[arg(long, value_enum, value_delimiter = ',')]
        rows: Vec<RowName>,
    },
    /// Redeem at 64, 256 and 8 connections, and at 64 without keys
    Redeem,
    /// Redeem at one connection
    Latency,
    /// Two server processes on one PostgreSQL
    Processes,
    /// Bulk issue to every member
    Issue,
    /// Claims on one definition
    Hot,
    /// A mass send to every member
    Send,
    /// The sweep, alone and while members redeem
    Sweep,
    /// Members redeem beside thousands of connections that dribble
    Flood,
    /// Members redeem while the statistics rest and while they count
    Statistics,
    /// Every page of statistics on a ledger of two years
    Pages,
    /// Every coupon as CSV, workbook and Parquet, and the log as Parquet
    Export,
    /// A member's list
    Couponlist,
    /// One coupon
    Couponinfo,
    /// 90 % reads, 10 % redeems
    Mixed,
    /// Read the log and fold it
    Replay,
    /// The same rates on a small ledger and on a large one
    Growth,
    /// What the server holds after reads and commands
    Memory,
    /// From exec to ready
    Start,
    /// Redeem with several builds of the program in turns, on one ledger
    Compare {
        /// The builds
        #[arg(required = true)]
        programs: Vec<PathBuf>,
    },
    /// Instructions of the pure parts, counted by callgrind
    Instructions,
    /// Do one pure part so many times: what callgrind counts
    #[command(hide = true)]
    Kernel {
        /// Which
        kernel: Kernel,
        /// How often
        times: u64,
    },
    /// Answer pages with bare SELECTs: what the rows of pages are held against
    #[command(hide = true)]
    Handler {
        /// PostgreSQL
        #[arg(long)]
        database_url: Option<String>,
        /// SQLite
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

impl Command {
    fn rows(&self) -> Vec<RowName> {
        let one = match self {
            Self::All { rows } if rows.is_empty() => return RowName::value_variants().to_vec(),
            Self::All { rows } => return rows.clone(),
            Self::Redeem => RowName::Redeem,
            Self::Latency => RowName::Latency,
            Self::Processes => RowName::Processes,
            Self::Issue => RowName::Issue,
            Self::Hot => RowName::Hot,
            Self::Send => RowName::Send,
            Self::Sweep => RowName::Sweep,
            Self::Flood => RowName::Flood,
            Self::Statistics => RowName::Statistics,
            Self::Pages => RowName::Pages,
            Self::Export => RowName::Export,
            Self::Couponlist => RowName::Couponlist,
            Self::Couponinfo => RowName::Couponinfo,
            Self::Mixed => RowName::Mixed,
            Self::Replay => RowName::Replay,
            Self::Growth => RowName::Growth,
            Self::Memory => RowName::Memory,
            Self::Start => RowName::Start,
            Self::Compare { .. } | Self::Instructions | Self::Kernel { .. } | Self::Handler { .. } => {
                return Vec::new();
            }
        };
        vec![one]
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.command {
        Command::Kernel { kernel, times } => return kernel::run(kernel, times),
        Command::Instructions => {
            print!("{}", kernel::count()?);
            return Ok(());
        }
        Command::Handler { database_url, file } => {
            return raw::handler::serve(database_url.as_deref(), file.as_deref()).await;
        }
        _ => {}
    }
    let mut rows = Vec::new();
    // Whatever ends the run drops it, and with it every server and folder that it made.
    let outcome = tokio::select! {
        measured = measure(cli, &mut rows) => measured,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if !rows.is_empty() {
        println!("\n{}", measure::table(&rows));
    }
    outcome
}

async fn measure(cli: Cli, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    let options = cli.options;
    ensure!(
        options.rounds > 0 && options.seconds > 0.0 && options.scale > 0.0 && options.raw_batch > 0,
        "nothing to measure"
    );
    let program = options.program.canonicalize();
    let Ok(program) = program else {
        bail!(
            "there is no {}: cargo build --release, or say where with --program",
            options.program.display()
        );
    };
    let prefix = "coupon-ledger-bench.";
    let mut made = tempfile::Builder::new();
    let folder = match &options.folder {
        Some(parent) => made.prefix(prefix).tempdir_in(parent)?,
        None => made.prefix(prefix).tempdir()?,
    };
    let settings = Settings {
        connections: options.connections,
        seconds: options.seconds,
        rounds: options.rounds,
        scale: options.scale,
        raw_batch: options.raw_batch,
        program,
        folder,
    };
    print!("{}", machine::describe(&settings));
    if let Command::Compare { programs } = &cli.command {
        let programs =
            programs.iter().map(|program| program.canonicalize()).collect::<Result<Vec<_>, _>>()?;
        return plan::compare(&settings, options.engine, &programs, rows).await;
    }
    plan::run(&settings, options.engine, &cli.command.rows(), rows).await
}

async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminated) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}
