//! Every coupon as CSV, workbook and Parquet: jobs of the server's own, and the log as Parquet by the command line.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use coupon_ledger::store::Statement;

use crate::measure::{Cores, Goal, Round, Rounds, Row, number};
use crate::rows::Settings;
use crate::server::run;
use crate::world::World;

/// How often the job is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// An export that takes longer is broken.
const LONGEST: Duration = Duration::from_secs(600);

/// Exports the ledger as it is, in each format, each by a server that has done nothing else.
pub async fn export(world: &mut World, settings: &Settings) -> anyhow::Result<Vec<Row>> {
    world.settle()?;
    let mut rows = Vec::new();
    for format in ["csv", "xlsx", "parquet"] {
        let (mut rounds, mut lines, mut bytes, mut peak_mib) = (Rounds::default(), 0, 0, 0.0_f64);
        for _ in 0..settings.rounds {
            world.stop().await?;
            world.serve(1).await?;
            let cpu = world.cpu_seconds(1)?;
            let begun = Instant::now();
            let server = world.servers().first().context("no server")?;
            let route = format!("/v1/exports?sheet=coupons&format={format}");
            let answer = server.post(&route, &world.operator(), "").await?;
            ensure!(answer.contains("\"state\":\"waiting\""), "the export was not begun: {answer}");
            (lines, bytes) = loop {
                ensure!(begun.elapsed() < LONGEST, "the export is not done after {LONGEST:?}");
                tokio::time::sleep(LOOK).await;
                if let Some(done) = done(world).await? {
                    break done;
                }
            };
            let seconds = begun.elapsed().as_secs_f64();
            ensure!(lines >= world.coupons, "{lines} rows of {} coupons", world.coupons);
            let after = world.cpu_seconds(1)?;
            let cores = Cores {
                server: (after.0 - cpu.0) / seconds,
                database: (after.1 - cpu.1) / seconds,
                client: 0.0,
            };
            rounds.push(Round { done: lines as u64, seconds, micros: Vec::new() }, Some(cores));
            peak_mib = peak_mib.max(server.memory()?.peak_mib);
        }
        let per_million = 1_000_000.0 / rounds.rate();
        let mut row = Row::new(
            format!("export {} rows as {format}", number(lines as f64)),
            world.engine.name(),
            rounds,
        );
        row.goals.push(Goal::at_most("s per 1,000,000", Some(per_million), 60.0));
        row.goals.push(Goal::at_most("MiB at its peak", Some(peak_mib), 256.0));
        row.notes.push(format!("{} MB", number(bytes as f64 / 1e6)));
        rows.push(row.announce());
    }
    rows.push(log_files(world, settings).await?);
    Ok(rows)
}

/// Rows and bytes of the last export, once it is done.
async fn done(world: &World) -> anyhow::Result<Option<(i64, i64)>> {
    let sql = "SELECT state, written, bytes, reason FROM exports ORDER BY export_id DESC LIMIT 1";
    let rows = world.look().query(Statement::new(sql, [])).await?;
    let row = rows.first().context("the export is gone")?;
    ensure!(row.int(0) <= 2, "the export has failed: {}", row.text(3));
    Ok((row.int(0) == 2).then(|| (row.int(1), row.int(2))))
}

/// The whole log as Parquet, beside an idle server.
async fn log_files(world: &World, settings: &Settings) -> anyhow::Result<Row> {
    let events = world.head().await?;
    let (mut rounds, mut peak_mib) = (Rounds::default(), 0.0_f64);
    for round in 0..settings.rounds {
        let folder = settings.folder().join(format!("analytics-{}-{round}", world.engine.name()));
        let path = folder.to_str().context("a folder without a name")?;
        let ran = run(&world.place, &["export", "--parquet", path]).await?;
        std::fs::remove_dir_all(&folder)?;
        rounds.push(Round { done: events as u64, seconds: ran.seconds, micros: Vec::new() }, None);
        peak_mib = peak_mib.max(ran.memory.peak_mib);
    }
    let name = format!("the log of {} events as Parquet", number(events as f64));
    let mut row = Row::new(name, world.engine.name(), rounds);
    row.goals.push(Goal::at_most("MiB at its peak", Some(peak_mib), 256.0));
    Ok(row.announce())
}
