//! What goes through many coupons at once: bulk issue, and replay.

use std::collections::HashMap;
use std::time::Instant;

use coupon_ledger::coupon::Coupon;
use coupon_ledger::entity::{Entity as _, decode};

use crate::load::PLAIN;
use crate::measure::{Goal, Round, Rounds, Row, number};
use crate::rivals::Rivals;
use crate::rows::Settings;
use crate::world::World;

/// Events a page.
const PAGE: i64 = 10_000;

/// Parts of the bulk issue, so that the raw limit can take turns with it.
const PARTS: i64 = 4;

/// Issues a coupon to every member, in turns with the raw limit, and lays them ready with a history.
pub async fn issue(world: &mut World, settings: &Settings, mut rivals: Rivals) -> anyhow::Result<Row> {
    let members = world.members;
    let mut rounds = Rounds::default();
    let (mut issued, mut peak) = (Vec::new(), 0.0_f64);
    for part in 0..PARTS {
        let (first, last) = (members * part / PARTS + 1, members * (part + 1) / PARTS);
        let (ran, used, coupons) = world.issue(PLAIN, first, last).await?;
        let done = (last - first + 1) as u64;
        rounds.push(Round { done, seconds: ran.seconds, micros: Vec::new() }, Some(used));
        peak = peak.max(ran.memory.peak_mib);
        issued.extend(coupons);
        rivals.take_turns(settings.duration()).await?;
    }
    let name = format!("bulk issue to {} members", number(members as f64));
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("of the raw limit", row.to_raw(), 0.7));
    row.goals.push(Goal::at_most("MiB at its peak", Some(peak), 256.0));
    world.add_unused(issued).await?;
    Ok(row.announce())
}

/// Reads the log from its beginning and folds every coupon, in turns with reading the raw rows.
pub async fn replay(world: &mut World, settings: &Settings, mut rivals: Rivals) -> anyhow::Result<Row> {
    world.stop().await?;
    let wanted = settings.scaled(1_000_000);
    let (mut rounds, mut rows) = (Rounds::default(), Rounds::default());
    for _ in 0..settings.rounds {
        let begun = Instant::now();
        let mut coupons: HashMap<i64, Coupon> = HashMap::new();
        let mut position = 0;
        while position < wanted {
            let events = world.look().events_after(position, PAGE.min(wanted - position)).await?;
            let Some(last) = events.last() else { break };
            position = last.position;
            for event in events.iter().filter(|event| event.aggregate_type == "coupon") {
                let coupon = coupons.entry(event.aggregate_id.parse()?).or_default();
                coupon.evolve(&decode::<Coupon>(event)?);
            }
        }
        rounds.push_rate(position as f64 / begun.elapsed().as_secs_f64());
        let made: usize =
            coupons.iter().map(|(id, coupon)| std::hint::black_box(coupon.rows(*id)).len()).sum();
        rows.push_rate(made as f64 / begun.elapsed().as_secs_f64());
        rivals.take_turns(settings.duration()).await?;
    }
    let name = format!("replay: read and fold {} events", number(wanted as f64));
    let mut row = Row::new(name, world.engine.name(), rounds);
    (row.peers, row.raw) = rivals.rounds();
    row.goals.push(Goal::at_least("of reading the raw rows", row.to_raw(), 0.6));
    row.goals.push(Goal::at_most("rebuild of the wallet, × replay", None, 2.0));
    row.notes.push(format!("with the wallet's rows computed, not written: {} rows/s", rows.all()));
    Ok(row.announce())
}
