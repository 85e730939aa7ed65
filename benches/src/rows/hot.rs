//! Many claims on one definition whose stock does for half of them, against as many on definitions of their own.

use std::sync::Arc;

use anyhow::ensure;
use coupon_ledger::definition::{IssueLimit, Offer};
use coupon_ledger::ledger::Ledger;
use coupon_ledger::store::{BUCKET, Statement};

use crate::client::Pace;
use crate::load;
use crate::measure::{Cores, Goal, Round, Rounds, Row, number};
use crate::rows::Settings;
use crate::work::Claims;
use crate::world::World;

/// Members who claim, once each.
const CLAIMS: i64 = 10_000;

/// Definitions over which the same claims are spread.
const COLD: i64 = 1_000;

/// Nobody waits so long: a round ends with the last claim.
const LONG: std::time::Duration = std::time::Duration::from_secs(600);

/// Claims on one definition and on many, in turns; the stock does for half in either.
pub async fn claims(world: &mut World, settings: &Settings, connections: usize) -> anyhow::Result<Row> {
    let claims = CLAIMS.min(world.members);
    let cold_count = COLD.min(claims / 10);
    let ledger = world.in_process().await?;
    let mut definitions = Vec::new();
    for _ in 0..settings.rounds {
        let hot = define(&ledger, claims / 2).await?;
        let mut cold = Vec::new();
        for _ in 0..cold_count {
            cold.push(define(&ledger, claims / cold_count / 2).await?);
        }
        definitions.push((vec![hot], cold));
    }
    ledger.store().close().await;
    let tokens: Arc<Vec<String>> = Arc::new((1..=claims).map(|member| world.token(member)).collect());
    world.serve(1).await?;
    let (mut hot, mut cold) = (Rounds::default(), Rounds::default());
    for (one, many) in definitions {
        let (round, cores) = round(world, connections, &tokens, one).await?;
        hot.push(round, Some(cores));
        let (round, _) = self::round(world, connections, &tokens, many).await?;
        cold.push(round, None);
    }
    let (part, half) = (hot.rate() / cold.rate(), claims / 2);
    let name = format!(
        "hot definition: {} claims on {}, {connections} connections",
        number(claims as f64),
        number(half as f64)
    );
    let mut row = Row::new(name, world.engine.name(), hot);
    row.goals.push(Goal::holds("granted exactly the stock, each an event, and the counter says so", true));
    row.goals.push(Goal::at_least("× cold definitions", Some(part), 0.7));
    row.notes.push(format!("spread over {cold_count} definitions: {}", cold.all()));
    Ok(row.announce())
}

/// All claims on these definitions; fails unless exactly half were granted.
async fn round(
    world: &World,
    connections: usize,
    tokens: &Arc<Vec<String>>,
    definitions: Vec<i64>,
) -> anyhow::Result<(Round, Cores)> {
    let half = tokens.len() as i64 / 2;
    let before = world.head().await?;
    let work = Claims::new(tokens.clone(), definitions.clone());
    let (outcome, cores) = world.run(1, connections, LONG, Pace::Closed, work).await?;
    let (granted, sold_out) = (outcome.work.granted as i64, outcome.work.sold_out as i64);
    ensure!(
        granted == half && sold_out == tokens.len() as i64 - half,
        "{granted} granted, {sold_out} sold out"
    );
    let written = world.head().await? - before;
    ensure!(written == granted, "{granted} were granted, {written} events are in the log");
    for definition in definitions {
        let sql = "SELECT stock, issued FROM stock_v1 WHERE bucket = $1 AND definition_id = $2";
        let rows = world.look().query(Statement::new(sql, [BUCKET.into(), definition.into()])).await?;
        let counted = rows.first().map(|row| (row.int(0), row.int(1)));
        ensure!(
            counted.is_some_and(|(stock, issued)| stock == issued),
            "definition {definition}: {counted:?}"
        );
    }
    Ok((outcome.round, cores))
}

async fn define(ledger: &Ledger, stock: i64) -> anyhow::Result<i64> {
    let offer = load::offer(load::validity(30));
    let offer = Offer { claimable: true, issue_limit: IssueLimit::PerMember, get_limit: 1, ..offer };
    load::define(ledger, offer, Some(stock)).await
}
