//! How long the sweep takes over coupons that end on one day. In this process, because the clock must be moved.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use anyhow::ensure;
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::coupon::{Coupon, CouponCommand, Source};
use coupon_ledger::definition::{Definition, DefinitionCommand, IssueLimit, Offer, Terms, Validity};
use coupon_ledger::directory::{self, Member};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{Ledger, LedgerOptions, Meta};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::store::{self, StoreOptions};
use coupon_ledger::sweep::sweep;

const MEMBERS: i64 = 1_000;

/// Issues `coupons` that end on one day, goes to the day after, and sweeps.
pub async fn run(database_url: Option<String>, folder: &Path, coupons: i64) -> anyhow::Result<()> {
    let clock = Clock::manual(Clock::System.now_ms());
    let secrets = Secrets::from_root([1; 32]);
    let options = StoreOptions {
        data_dir: folder.to_owned(),
        database_url,
        secret_id: secrets.id(),
        now_ms: clock.now_ms(),
    };
    let store = store::open(&options).await?;
    let ledger = Ledger::start(LedgerOptions {
        store,
        secrets,
        zone: Zone::default(),
        clock: clock.clone(),
        capacity: 4_096,
    });
    let meta =
        Meta { caller: Caller::System, at: ledger.now(), request_id: "bench".to_owned(), receipt: None };
    for id in 1..=MEMBERS {
        directory::add_member(ledger.store(), &Member { id, ..Member::default() }, None).await?;
    }
    let offer = Offer {
        terms: Terms { title: "t".to_owned(), ..Terms::default() },
        validity: Validity::FromReceipt { starts_after_days: 0, valid_days: 30 },
        issue_limit: IssueLimit::Unlimited,
        get_limit: 0,
        level_ids: Vec::new(),
        claimable: false,
    };
    let define = DefinitionCommand::Define { offer: Box::new(offer), stock: None, employee_id: 0 };
    ledger.execute::<Definition>(1, &define, &meta).await?;
    let next = Arc::new(AtomicI64::new(1));
    let mut tasks = Vec::new();
    for _ in 0..512 {
        let (ledger, next, meta) = (ledger.clone(), next.clone(), meta.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id > coupons {
                    return anyhow::Ok(());
                }
                let member_id = id % MEMBERS + 1;
                let issue = CouponCommand::Issue {
                    definition_id: 1,
                    member_id,
                    source: Source::MassSend,
                    employee_id: 0,
                };
                ledger.execute::<Coupon>(id, &issue, &meta).await?;
            }
        }));
    }
    for task in tasks {
        task.await??;
    }
    clock.set(clock.now_ms() + 31 * 86_400_000);
    let started = Instant::now();
    let swept = sweep(&ledger).await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(swept as i64 == coupons, "{swept} of {coupons} swept");
    ensure!(sweep(&ledger).await? == 0, "swept twice");
    println!("| {coupons} coupons swept | {seconds:.1} s | {:.0} per second |", coupons as f64 / seconds);
    ledger.store().close().await;
    Ok(())
}
