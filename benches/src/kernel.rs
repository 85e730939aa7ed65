//! How many instructions the pure parts of a redeem take. Counted by callgrind, so that noise has no part in it:
//! a run of many less a run of few, over the difference.

use std::hint::black_box;
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::{Coupon, CouponCommand, Origin, Redeemer, Source};
use coupon_ledger::definition::{Definition, DefinitionCommand};
use coupon_ledger::entity::{effects, encode, fold};
use coupon_ledger::facts::{Facts, Membership};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::shop::{Shop, ShopCommand, ShopDetails};
use coupon_ledger::store::StoredEvent;

use crate::load;

/// A part of a redeem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kernel {
    /// The decision
    Decide,
    /// What the event makes of the coupon
    Evolve,
    /// The event as JSON
    Encode,
    /// Reading the coupon's two events back
    Fold,
    /// What changes in the read models
    Effects,
}

const FEW: u64 = 1_000;
const MANY: u64 = 11_000;

/// 2026-01-01 in Shanghai: what is counted must not depend on the day.
const NOW_MS: i64 = 1_767_196_800_000;

/// Does one part so many times.
pub fn run(kernel: Kernel, times: u64) -> anyhow::Result<()> {
    let zone = Zone::default();
    let mut facts = Facts::at(1, zone.moment(NOW_MS), zone, Secrets::from_root([1; 32]).gift_codes().clone());
    let offer = Box::new(load::offer(load::validity(30)));
    let define = DefinitionCommand::Define { offer, stock: None, employee_id: 0, at_most: None };
    let mut definition = Definition::default();
    for event in definition.decide(&define, &facts)? {
        definition.evolve(&event);
    }
    let details = ShopDetails { name: "總店".to_owned(), phone: String::new(), address: String::new() };
    let mut shop = Shop::default();
    for event in shop.decide(&ShopCommand::Open { details, partner: false, employee_id: 0 }, &facts)? {
        shop.evolve(&event);
    }
    facts.definition = Some(definition.into());
    facts.shop = Some(shop.into());
    facts.member = Some(Membership::default());

    let mut coupon = Coupon::default();
    let mut stream = Vec::new();
    let issue =
        CouponCommand::Issue { definition_id: 1, member_id: 7, origin: Origin::of(Source::MassSend, 0) };
    for command in [issue, CouponCommand::View { member_id: 7 }] {
        for event in coupon.decide(&command, &facts)? {
            coupon.evolve(&event);
            let encoded = encode::<Coupon>(&event)?;
            stream.push(StoredEvent {
                position: stream.len() as i64 + 1,
                aggregate_type: "coupon".to_owned(),
                aggregate_id: "1".to_owned(),
                sequence: stream.len() as i64 + 1,
                event_type: encoded.event_type,
                event_version: encoded.event_version,
                payload: encoded.payload,
                metadata: "{}".to_owned(),
                recorded_at_ms: NOW_MS,
            });
        }
    }
    let redeemer = Redeemer::Member(7);
    let redeem = CouponCommand::Redeem { redeemer, shop_id: 1, redemption_id: 1, audit_url: None };
    let redeemed = coupon.decide(&redeem, &facts)?.pop().context("nothing was decided")?;
    let mut used = coupon.clone();
    used.evolve(&redeemed);

    for _ in 0..times {
        match kernel {
            Kernel::Decide => {
                black_box(black_box(&coupon).decide(black_box(&redeem), &facts)?);
            }
            Kernel::Evolve => {
                // Emptied, not cloned: a clone would cost more than what is counted.
                used.redemptions.clear();
                black_box(&mut used).evolve(black_box(&redeemed));
            }
            Kernel::Encode => {
                black_box(encode::<Coupon>(black_box(&redeemed))?);
            }
            Kernel::Fold => {
                black_box(fold::<Coupon>(black_box(&stream))?);
            }
            Kernel::Effects => {
                black_box(effects(1, black_box(&coupon), black_box(&used)));
            }
        }
    }
    Ok(())
}

/// Counts every part under callgrind; a Markdown table, or a sentence that says why there is none.
pub fn count() -> anyhow::Result<String> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return Ok("No instruction counts: valgrind is not installed.\n".to_owned());
    }
    let mut table = String::from("| part of a redeem | instructions |\n|---|---|\n");
    for kernel in Kernel::value_variants() {
        let value = kernel.to_possible_value().context("a hidden part")?;
        let name = value.get_name();
        let each = (collected(name, MANY)? - collected(name, FEW)?) as f64 / (MANY - FEW) as f64;
        let about = value.get_help().map(ToString::to_string).unwrap_or_default();
        eprintln!("{name}: {each:.0} instructions");
        table.push_str(&format!("| {name}: {about} | {each:.0} |\n"));
    }
    Ok(table)
}

fn collected(kernel: &str, times: u64) -> anyhow::Result<u64> {
    let this = std::env::current_exe()?;
    let ran = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["kernel", kernel, &times.to_string()])
        .output()?;
    let said = String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success(), "valgrind: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    Ok(line.with_context(|| format!("valgrind says no count: {said}"))?.1.trim().parse()?)
}
