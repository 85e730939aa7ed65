//! What a ledger is loaded with: a shop, definitions, members, and coupons that have lived through something.

use anyhow::{Context as _, bail, ensure};
use coupon_ledger::clock::Moment;
use coupon_ledger::coupon::{Coupon, CouponCommand, Origin, Redeemer, Source};
use coupon_ledger::definition::{Definition, DefinitionCommand, IssueLimit, Offer, Terms, Validity};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{Ledger, Many, Meta};
use coupon_ledger::shop::{Shop, ShopCommand, ShopDetails};
use coupon_ledger::store::Statement;
use futures::TryStreamExt as _;

use crate::work::Owned;

/// The definition whose coupons are redeemed.
pub const PLAIN: i64 = 1;

/// The definition whose coupons fill the pages of those who read.
pub const PAGES: i64 = 2;

/// Rows of a member who reads.
pub const PAGE_ROWS: usize = 50;

/// One in so many coupons was given away and taken back.
const GIVEN_ONE_IN: usize = 10;

/// Commands in one transaction.
const CHUNK: usize = 500;

/// Chunks under way: one is written while the next is made ready.
const AT_A_TIME: usize = 2;

/// Members are written so many at a time: a statement must not take long.
const MEMBERS_AT_A_TIME: i64 = 100_000;

/// Founds the merchant: a shop, the two definitions, the members.
pub async fn found(ledger: &Ledger, members: i64) -> anyhow::Result<()> {
    open_shop(ledger).await?;
    for expected in [PLAIN, PAGES] {
        let id = define(ledger, offer(validity(30)), None).await?;
        ensure!(id == expected, "definition {id} instead of {expected}");
    }
    // Set-up, and no part of what is measured: importing members comes later.
    let sql = "INSERT INTO members (member_id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id,
                                    birthday, card_end, joined_at_ms)
               WITH RECURSIVE n (id) AS (SELECT CAST($1 AS BIGINT) UNION ALL SELECT id + 1 FROM n WHERE id < $2)
               SELECT id, '會員', 'https://example.org/p.png', '王小明', '13800000000', '', 1, 1, 0, 0, $3 FROM n";
    for first in (1..=members).step_by(MEMBERS_AT_A_TIME as usize) {
        let last = (first + MEMBERS_AT_A_TIME - 1).min(members);
        let parameters = [first.into(), last.into(), ledger.clock().now_ms().into()];
        ledger.store().write(vec![Statement::new(sql, parameters)]).await?;
    }
    Ok(())
}

/// Opens a shop more.
pub async fn open_shop(ledger: &Ledger) -> anyhow::Result<()> {
    let details = ShopDetails {
        name: "總店".to_owned(),
        phone: "020-88888888".to_owned(),
        address: "天河路1號".to_owned(),
    };
    let id = ledger.next_id("shop", true).await?;
    let open = ShopCommand::Open { details, partner: false, employee_id: 0 };
    ledger.execute::<Shop>(id, &open, &meta(ledger.now())).await?;
    Ok(())
}

/// Counted from receipt.
pub fn validity(days: u32) -> Validity {
    Validity::FromReceipt { starts_after_days: 0, valid_days: days }
}

/// An offer as merchants make them.
pub fn offer(validity: Validity) -> Offer {
    let terms = Terms {
        title: "滿一百減十元券".to_owned(),
        deduction_cents: 1_000,
        minimum_order_cents: 10_000,
        givable: true,
        self_redeemable: true,
        rules: "每單限用一張，不找零，不與其他優惠同享。".to_owned(),
        ..Terms::default()
    };
    let issue_limit = IssueLimit::Unlimited;
    Offer { terms, validity, issue_limit, get_limit: 0, level_ids: Vec::new(), claimable: false }
}

/// Defines an offer, with a stock or without; returns its id.
pub async fn define(ledger: &Ledger, offer: Offer, stock: Option<i64>) -> anyhow::Result<i64> {
    let id = ledger.next_id("definition", true).await?;
    let define = DefinitionCommand::Define { offer: Box::new(offer), stock, employee_id: 0, at_most: None };
    ledger.execute::<Definition>(id, &define, &meta(ledger.now())).await?;
    Ok(id)
}

/// Issues a coupon to each of these members in this process, for ledgers whose clock does not show today.
pub async fn issue_in_process(
    ledger: &Ledger,
    definition_id: i64,
    members: impl Iterator<Item = i64>,
) -> anyhow::Result<Vec<Owned>> {
    let mut issued = Vec::new();
    let mut commands = Vec::new();
    for member_id in members {
        let id = ledger.next_id("coupon", false).await?;
        let origin = Origin::of(Source::MassSend, 0);
        commands.push((id, CouponCommand::Issue { definition_id, member_id, origin }));
        issued.push((u32::try_from(id)?, u32::try_from(member_id)?));
    }
    run_all(ledger, commands.into_iter()).await?;
    Ok(issued)
}

/// Every coupon is opened by its holder.
pub async fn view(ledger: &Ledger, coupons: &[Owned]) -> anyhow::Result<()> {
    let view = coupons
        .iter()
        .map(|(id, member)| (i64::from(*id), CouponCommand::View { member_id: (*member).into() }));
    run_all(ledger, view).await
}

/// Every coupon is used by its holder, in one of so many shops.
pub async fn redeem(ledger: &Ledger, coupons: &[Owned], shops: i64) -> anyhow::Result<()> {
    let mut commands = Vec::with_capacity(coupons.len());
    for (id, member) in coupons {
        commands.push((
            i64::from(*id),
            CouponCommand::Redeem {
                redeemer: Redeemer::Member((*member).into()),
                // Every third coupon is never used: shops take turns among the others.
                shop_id: i64::from(*id) / 3 % shops + 1,
                redemption_id: ledger.next_id("redemption", false).await?,
                audit_url: None,
            },
        ));
    }
    run_all(ledger, commands.into_iter()).await
}

/// Every coupon is opened by its holder; some are put out as gifts and taken back.
pub async fn live_through(ledger: &Ledger, coupons: &[Owned]) -> anyhow::Result<()> {
    view(ledger, coupons).await?;
    let given =
        || coupons.iter().step_by(GIVEN_ONE_IN).map(|(id, member)| (i64::from(*id), i64::from(*member)));
    let lapse_after_ms = 3_600_000;
    let give = given().map(|(id, member_id)| (id, CouponCommand::Give { member_id, lapse_after_ms }));
    run_all(ledger, give).await?;
    let withdraw = given().map(|(id, member_id)| (id, CouponCommand::Withdraw { member_id }));
    run_all(ledger, withdraw).await
}

/// Runs commands on different streams, chunk by chunk; each must do something.
async fn run_all(
    ledger: &Ledger,
    commands: impl Iterator<Item = (i64, CouponCommand)>,
) -> anyhow::Result<()> {
    let meta = meta(ledger.now());
    let mut commands = commands.peekable();
    let chunks = std::iter::from_fn(|| {
        commands.peek().is_some().then(|| commands.by_ref().take(CHUNK).collect::<Vec<_>>())
    });
    futures::stream::iter(chunks.map(Ok))
        .try_for_each_concurrent(AT_A_TIME, |chunk| run_chunk(ledger, chunk, &meta))
        .await
        .context("loading")
}

async fn run_chunk(ledger: &Ledger, chunk: Vec<(i64, CouponCommand)>, meta: &Meta) -> anyhow::Result<()> {
    let Many::Done(outcomes) = ledger.execute_many::<Coupon>(chunk, meta).await? else {
        bail!("no key, and yet a replay");
    };
    for done in outcomes {
        ensure!(!done?.events.is_empty(), "a command changed nothing");
    }
    Ok(())
}

fn meta(at: Moment) -> Meta {
    Meta { caller: Caller::System, at, request_id: "load".to_owned(), receipt: None, job_id: None }
}
