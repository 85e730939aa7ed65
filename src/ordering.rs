//! Places and cancels orders: the order, the coupons it uses and the coupons it earns in one transaction, all or nothing.
//!
//! Who may be granted what is asked of the rules as they are then; what was issued never changes with them. Whatever a
//! decision rests on (rule, grants, shop, definitions, every coupon) must not have moved when it is written.

use std::collections::BTreeMap;

use crate::coupon::{Coupon, CouponCommand, Origin, Redeemer, Source};
use crate::definition::Terms;
use crate::directory;
use crate::entity::stream_of;
use crate::grant::{Cause, Grant};
use crate::ledger::unit::{Together, Unit};
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::order::{
    Fates, KeptCoupon, Line, LineState, Order, OrderCommand, Placement, UsedCoupon, amount_cents,
    counts_from, fate_of_issued, fate_of_used, may_be_combined, worths,
};
use crate::read_model::rules::{grants_of, groups_of_goods};
use crate::refusal::{Refusal, Wrong};
use crate::rule::{GoodsGroup, OrderAmount};
use crate::shop::Shop;
use crate::store::{ReceiptKey, StreamId};

/// The most coupons that one order may use and earn: it is one transaction, and others wait behind it.
pub const MAX_COUPONS: usize = 500;

/// So many coupons of a definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Earned {
    /// Of which definition.
    pub definition_id: i64,
    /// How many.
    pub num: i64,
}

/// A line with what it is to earn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sale {
    /// The goods.
    pub line: Line,
    /// What its groups are to grant.
    pub earned: Vec<Earned>,
}

/// A coupon that is to be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// The coupon.
    pub coupon_id: i64,
    /// Who takes its value.
    pub redeemer: Redeemer,
}

/// An order that is to be placed.
#[derive(Clone, Debug)]
pub struct Place {
    /// The id it will have.
    pub order_id: i64,
    /// Everything but its lines and coupons.
    pub placement: Placement,
    /// What is sold, given and returned.
    pub sales: Vec<Sale>,
    /// What the order-amount rule is to grant.
    pub earned: Vec<Earned>,
    /// The coupons that are to be used.
    pub uses: Vec<Use>,
    /// The receipt of the caller's own number, with the fingerprint of the request.
    pub once: Option<(ReceiptKey, String)>,
}

/// What is to be issued, and what is behind it.
struct ToIssue {
    earned: Earned,
    source: Source,
    source_id: i64,
    goods_id: i64,
}

impl Together for Place {
    type Primary = Order;

    fn streams(&self) -> Vec<StreamId> {
        self.uses.iter().map(|used| stream_of::<Coupon>(used.coupon_id)).collect()
    }

    fn once(&self) -> Option<(ReceiptKey, String)> {
        self.once.clone()
    }

    /// 310 2005 401, then of each coupon 2001 3004 3001 3003 4002 4001 4003 2003 3002 7005, then 5004 5005, then 2003 of an
    /// order without coupons, then of what it earns 5006 and 5003, coupon by coupon, and 5002 before 5001 over all of it.
    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Order>, ExecuteError> {
        let mut placement = self.placement.clone();
        placement.lines = self.sales.iter().map(|sale| sale.line.clone()).collect();
        placement.amount_cents = amount_cents(&placement.lines)?;
        let member = directory::membership(unit.ledger().store(), placement.member_id).await?;
        member.ok_or(Refusal::NoSuchMember)?;
        let mut to_issue = by_amount(unit, &placement, &self.earned).await?;
        for (place, sale) in self.sales.iter().enumerate() {
            to_issue.extend(by_goods(unit, place, sale).await?);
        }
        placement.used = use_coupons(unit, &placement, &self.uses).await?;
        if placement.shop_id != 0 && self.uses.is_empty() {
            let shop = unit.read::<Shop>(placement.shop_id).await?;
            shop.filter(|shop| shop.open).ok_or(Refusal::NoSuchShop)?;
        }
        for ToIssue { earned, source, source_id, goods_id } in to_issue {
            let (employee_id, order_id) = (placement.employee_id, self.order_id);
            let origin = Origin { source, source_id, employee_id, order_id, goods_id };
            for _ in 0..earned.num {
                let id = unit.ledger().next_id("coupon", false).await?;
                let (definition_id, member_id) = (earned.definition_id, placement.member_id);
                unit.run::<Coupon>(id, &CouponCommand::Issue { definition_id, member_id, origin }).await?;
                placement.issued.push(id);
            }
        }
        unit.run::<Order>(self.order_id, &OrderCommand::Place(Box::new(placement))).await
    }
}

/// Uses each coupon at the order's shop, and says what each took off.
async fn use_coupons(
    unit: &mut Unit<'_>,
    placement: &Placement,
    uses: &[Use],
) -> Result<Vec<UsedCoupon>, ExecuteError> {
    unit.fetch(uses.iter().map(|used| stream_of::<Coupon>(used.coupon_id)).collect()).await?;
    let mut used = Vec::with_capacity(uses.len());
    let mut terms: Vec<Terms> = Vec::with_capacity(uses.len());
    for Use { coupon_id, redeemer } in uses {
        let redemption_id = unit.ledger().next_id("redemption", false).await?;
        let (member_id, redeemer, shop_id) = (placement.member_id, *redeemer, placement.shop_id);
        let command = CouponCommand::UseInOrder { member_id, redeemer, shop_id, redemption_id };
        let done = unit.run::<Coupon>(*coupon_id, &command).await?;
        terms.extend(done.state.issue.map(|issue| issue.terms));
        used.push(UsedCoupon { coupon_id: *coupon_id, redemption_id, worth_cents: 0 });
    }
    let terms: Vec<&Terms> = terms.iter().collect();
    may_be_combined(&terms, placement.amount_cents)?;
    for (used, worth_cents) in used.iter_mut().zip(worths(&terms, placement.amount_cents)) {
        used.worth_cents = worth_cents;
    }
    Ok(used)
}

/// What the order-amount rule grants of what is asked: 2005 for no such rule, 401 beyond it.
async fn by_amount(
    unit: &mut Unit<'_>,
    placement: &Placement,
    asked: &[Earned],
) -> Result<Vec<ToIssue>, ExecuteError> {
    let rule_id = placement.rule_id;
    let mut granted = BTreeMap::new();
    if rule_id != 0 {
        let rule = unit.read::<OrderAmount>(rule_id).await?.and_then(|rule| rule.live_amount_cents());
        let from_cents = rule.ok_or(Refusal::NoSuchRule)?;
        if placement.amount_cents >= from_cents && !asked.is_empty() {
            granted = read_grants(unit, Cause::OrderAmount(rule_id), 1).await?;
        }
    }
    let mut to_issue = Vec::with_capacity(asked.len());
    for (place, earned) in asked.iter().enumerate() {
        if take(&mut granted, *earned).is_none() {
            let path = format!("order_coupon_list[{place}].num");
            return Err(not_granted("order_coupon_list", path).into());
        }
        let source = Source::OrderAmount;
        to_issue.push(ToIssue { earned: *earned, source, source_id: rule_id, goods_id: 0 });
    }
    Ok(to_issue)
}

/// What the groups of a line's goods grant of what is asked: so many for each that is sold; 401 beyond it.
async fn by_goods(unit: &mut Unit<'_>, place: usize, sale: &Sale) -> Result<Vec<ToIssue>, ExecuteError> {
    let Line { goods_id, state, count, .. } = sale.line;
    let mut granted = BTreeMap::new();
    if state == LineState::Sold && !sale.earned.is_empty() {
        for group_id in groups_of_goods(unit.ledger().store(), goods_id).await? {
            // The page may be behind by a moment: what counts is the group's stream, which must not move any more.
            let group = unit.read::<GoodsGroup>(group_id).await?;
            if group.is_some_and(|group| group.has(goods_id)) {
                for (definition_id, grants) in read_grants(unit, Cause::GoodsGroup(group_id), count).await? {
                    granted.entry(definition_id).or_insert_with(Vec::new).extend(grants);
                }
            }
        }
    }
    let mut to_issue = Vec::with_capacity(sale.earned.len());
    for (number, earned) in sale.earned.iter().enumerate() {
        let Some(parts) = take(&mut granted, *earned) else {
            let path = format!("goods[{place}].coupon_list[{number}].num");
            return Err(not_granted("goods", path).into());
        };
        for (group_id, num) in parts {
            let earned = Earned { num, ..*earned };
            to_issue.push(ToIssue { earned, source: Source::ProductGroup, source_id: group_id, goods_id });
        }
    }
    Ok(to_issue)
}

/// What is left of each definition's grants: (the rule's or group's id, how many).
type Granted = BTreeMap<i64, Vec<(i64, i64)>>;

/// What a rule or group grants, `times` over, by definition.
async fn read_grants(unit: &mut Unit<'_>, cause: Cause, times: i64) -> Result<Granted, ExecuteError> {
    let rule_id = match cause {
        Cause::OrderAmount(id) | Cause::GoodsGroup(id) | Cause::Level(id) => id,
        Cause::Birthday => 0,
    };
    let rows = grants_of(unit.ledger().store(), cause).await?;
    unit.fetch(rows.iter().map(|row| stream_of::<Grant>(row.id)).collect()).await?;
    let mut granted = Granted::new();
    for row in rows {
        let Some(grant) = unit.read::<Grant>(row.id).await?.filter(|grant| !grant.removed) else { continue };
        let num = grant.num.saturating_mul(times);
        granted.entry(grant.definition_id).or_default().push((rule_id, num));
    }
    Ok(granted)
}

/// Takes what is asked from what is granted: from which rules, how many of each. None where that is not enough.
fn take(granted: &mut Granted, asked: Earned) -> Option<Vec<(i64, i64)>> {
    let left = granted.get_mut(&asked.definition_id)?;
    let mut missing = asked.num;
    let mut parts = Vec::new();
    for (rule_id, num) in left {
        let part = missing.min(*num);
        if part > 0 {
            *num -= part;
            missing -= part;
            parts.push((*rule_id, part));
        }
    }
    (missing == 0).then_some(parts)
}

fn not_granted(field: &'static str, path: String) -> Refusal {
    Refusal::field(field, Wrong::Within { path, why: Box::new(Wrong::NotGranted) })
}

/// An order that is to be cancelled.
#[derive(Clone, Copy, Debug)]
pub struct Cancel {
    /// Which.
    pub order_id: i64,
    /// Who, 0 for an operator without an employee's id.
    pub employee_id: i64,
    /// At which shop it must have been placed, 0 = at any.
    pub shop_id: i64,
    /// Whether a partner's coupons are returned as well.
    pub return_partner: bool,
}

/// Why coupons of a cancelled order are taken back.
const CANCELLED: &str = "訂單取消";

impl Together for Cancel {
    type Primary = Order;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<Order>(self.order_id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Order>, ExecuteError> {
        let order = unit.read::<Order>(self.order_id).await?.unwrap_or_default();
        let fates = self.fates(unit, &order).await?;
        let (employee_id, reason) = (self.employee_id, CANCELLED.to_owned());
        let placement = order.standing()?;
        for used in placement.used.iter().filter(|used| fates.returned.contains(&used.coupon_id)) {
            let (redemption_id, reason) = (used.redemption_id, reason.clone());
            let within_ms = i64::MAX;
            let command = CouponCommand::Reverse { redemption_id, employee_id, reason, within_ms };
            unit.run::<Coupon>(used.coupon_id, &command).await?;
        }
        for id in &fates.voided {
            let reason = reason.clone();
            unit.run::<Coupon>(*id, &CouponCommand::Void { employee_id, reason }).await?;
        }
        unit.run::<Order>(self.order_id, &OrderCommand::Cancel { fates, employee_id }).await
    }
}

impl Cancel {
    /// What a cancel would do to the order's coupons now: 2006, then 3011.
    pub async fn preview(&self, ledger: &Ledger, meta: &Meta) -> Result<Fates, ExecuteError> {
        let mut unit = Unit::new(ledger, meta);
        let order = unit.read::<Order>(self.order_id).await?.unwrap_or_default();
        self.fates(&mut unit, &order).await
    }

    async fn fates(&self, unit: &mut Unit<'_>, order: &Order) -> Result<Fates, ExecuteError> {
        let placement = order.placement.as_ref().ok_or(Refusal::NoSuchOrder)?;
        if self.shop_id != 0 && placement.shop_id != self.shop_id {
            return Err(Refusal::NoSuchOrder.into());
        }
        let placement = order.standing()?;
        let coupons =
            placement.used.iter().map(|used| used.coupon_id).chain(placement.issued.iter().copied());
        unit.fetch(coupons.map(stream_of::<Coupon>).collect()).await?;
        let now_ms = unit.meta().at.ms;
        let mut fates = Fates::default();
        for UsedCoupon { coupon_id, redemption_id, .. } in placement.used.iter().copied() {
            let coupon = unit.read::<Coupon>(coupon_id).await?.unwrap_or_default();
            match fate_of_used(&coupon, redemption_id, self.return_partner, now_ms) {
                None => fates.returned.push(coupon_id),
                Some(why) => fates.kept.push(KeptCoupon { coupon_id, code: why.code() }),
            }
        }
        for coupon_id in placement.issued.iter().copied() {
            let coupon = unit.read::<Coupon>(coupon_id).await?.unwrap_or_default();
            match fate_of_issued(&coupon, placement.member_id) {
                None => fates.voided.push(coupon_id),
                Some(why) => fates.kept.push(KeptCoupon { coupon_id, code: why.code() }),
            }
        }
        Ok(fates)
    }
}

/// What a coupon would be worth in an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Valued {
    /// The coupon.
    pub coupon_id: i64,
    /// Its terms, where it is this member's.
    pub terms: Option<Terms>,
    /// What it would take off, in cents, or why it would not count.
    pub worth: Result<i64, Refusal>,
}

/// What these coupons would take off an order of this amount at this shop, each with the reason where it would not count.
/// Nothing is written, and nothing is promised.
pub async fn value(
    ledger: &Ledger,
    meta: &Meta,
    placement: &Placement,
    uses: &[Use],
) -> Result<Vec<Valued>, ExecuteError> {
    let mut unit = Unit::new(ledger, meta);
    unit.fetch(uses.iter().map(|used| stream_of::<Coupon>(used.coupon_id)).collect()).await?;
    let mut valued = Vec::with_capacity(uses.len());
    for Use { coupon_id, redeemer } in uses {
        let (member_id, redeemer, shop_id) = (placement.member_id, *redeemer, placement.shop_id);
        let command = CouponCommand::UseInOrder { member_id, redeemer, shop_id, redemption_id: 0 };
        let coupon = unit.read::<Coupon>(*coupon_id).await?.unwrap_or_default();
        let holds = coupon.holder_id == placement.member_id;
        let terms = coupon.issue.filter(|_| holds).map(|issue| issue.terms);
        let worth = match (unit.run::<Coupon>(*coupon_id, &command).await, &terms) {
            (Ok(_), Some(terms)) if !counts_from(terms, placement.amount_cents) => Err(Refusal::AmountTooLow),
            (Ok(_), _) => Ok(0),
            (Err(ExecuteError::Refused(why)), _) => Err(why),
            (Err(error), _) => return Err(error),
        };
        valued.push(Valued { coupon_id: *coupon_id, terms, worth });
    }
    let several = valued.iter().filter(|coupon| coupon.worth.is_ok()).count() > 1;
    for coupon in valued.iter_mut().filter(|coupon| several && coupon.worth.is_ok()) {
        if coupon.terms.as_ref().is_some_and(|terms| !terms.stackable) {
            coupon.worth = Err(Refusal::NotCombinable);
        }
    }
    let counting: Vec<&Terms> = valued
        .iter()
        .filter(|coupon| coupon.worth.is_ok())
        .filter_map(|coupon| coupon.terms.as_ref())
        .collect();
    let worths = worths(&counting, placement.amount_cents);
    for (coupon, worth) in valued.iter_mut().filter(|coupon| coupon.worth.is_ok()).zip(worths) {
        coupon.worth = Ok(worth);
    }
    Ok(valued)
}
