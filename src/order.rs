//! Orders (訂單): what was sold in one go, which coupons it used, and what it earned.
//!
//! An order is a stream of its own: placed once, perhaps cancelled. What it does to coupons stands in their streams,
//! written in the same transaction (`ordering.rs`). What each coupon takes off an order, which may be combined, and what a
//! cancel does to each is decided here, purely.

use serde::{Deserialize, Serialize};

use crate::coupon::{Coupon, Source};
use crate::definition::{Kind, Terms};
use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};
use crate::value::MAX_ID;

/// What became of the goods of a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineState {
    /// 售出, 1
    #[default]
    Sold,
    /// 贈送, 0: given free.
    Free,
    /// 退貨, −1: taken back.
    Returned,
}

impl LineState {
    /// The manual's number of it.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Sold => 1,
            Self::Free => 0,
            Self::Returned => -1,
        }
    }
}

/// Goods of one kind in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Which goods; the merchant's own number.
    pub goods_id: i64,
    /// What one costs, in cents.
    pub price_cents: i64,
    /// Sold, free or returned.
    pub state: LineState,
    /// How many.
    pub count: i64,
}

impl Line {
    /// What it adds to the order, in cents; None where no number holds it.
    fn amount_cents(&self) -> Option<i64> {
        let whole = self.price_cents.checked_mul(self.count)?;
        match self.state {
            LineState::Sold => Some(whole),
            LineState::Free => Some(0),
            LineState::Returned => whole.checked_neg(),
        }
    }
}

/// What these goods come to: what is sold less what is returned, in cents. Below zero where more is returned.
///
/// # Errors
/// 401 where no number that a client can read holds it.
pub fn amount_cents(lines: &[Line]) -> Result<i64, Refusal> {
    let sum = lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.amount_cents()?));
    let (min, max) = (-MAX_ID, MAX_ID);
    sum.filter(|sum| (min..=max).contains(sum))
        .ok_or_else(|| Refusal::field("goods", Wrong::OutOfRange { min, max }))
}

/// A coupon that an order used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedCoupon {
    /// The coupon.
    pub coupon_id: i64,
    /// The redemption that used it.
    pub redemption_id: i64,
    /// What it took off, in cents.
    pub worth_cents: i64,
}

/// An order as it was placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The buyer.
    pub member_id: i64,
    /// Where, 0 = nowhere in particular.
    pub shop_id: i64,
    /// Who took it, 0 for an operator without an employee's id.
    pub employee_id: i64,
    /// The caller's own number of it; empty where there is none.
    pub order_no: String,
    /// What was sold, given and returned.
    pub lines: Vec<Line>,
    /// What the lines come to, in cents.
    pub amount_cents: i64,
    /// The order-amount rule by which it earned coupons, 0 if none.
    pub rule_id: i64,
    /// The coupons it used.
    pub used: Vec<UsedCoupon>,
    /// The coupons it earned.
    pub issued: Vec<i64>,
    /// Points used; told to us, and kept elsewhere.
    pub score: i64,
    /// Account balance used, in cents; likewise.
    pub balance_cents: i64,
    /// For people at the till.
    pub remark: String,
}

impl Placement {
    /// What its coupons took off, in cents.
    #[must_use]
    pub fn deduction_cents(&self) -> i64 {
        self.used.iter().map(|used| used.worth_cents).sum()
    }
}

/// A coupon that a cancel left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCoupon {
    /// The coupon.
    pub coupon_id: i64,
    /// Why, as a code of the contract.
    pub code: i64,
}

/// What happened to an order. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderEvent {
    /// It was placed: its coupons were used and issued in the same transaction.
    Placed {
        /// The order.
        placement: Box<Placement>,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was cancelled.
    Cancelled {
        /// Coupons that are in hand again.
        returned: Vec<i64>,
        /// Coupons that were taken out of the world again.
        voided: Vec<i64>,
        /// Coupons that stay as they are.
        kept: Vec<KeptCoupon>,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderCommand {
    /// Place it.
    Place(Box<Placement>),
    /// Cancel it; what becomes of its coupons is in [`fate_of_used`] and [`fate_of_issued`].
    Cancel {
        /// What becomes of each.
        fates: Fates,
        /// Who.
        employee_id: i64,
    },
}

/// An order as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// None until it is placed.
    pub placement: Option<Box<Placement>>,
    /// When it was placed, Unix milliseconds.
    pub placed_at_ms: i64,
    /// When it was cancelled, Unix milliseconds; 0 = it stands.
    pub cancelled_at_ms: i64,
    /// What a cancel did to its coupons.
    pub fates: Fates,
}

/// What a cancel does to an order's coupons.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fates {
    /// In hand again.
    pub returned: Vec<i64>,
    /// Taken out of the world.
    pub voided: Vec<i64>,
    /// As they are.
    pub kept: Vec<KeptCoupon>,
}

impl Order {
    /// The order, if it stands: 2006, then 3011.
    pub fn standing(&self) -> Result<&Placement, Refusal> {
        match &self.placement {
            None => Err(Refusal::NoSuchOrder),
            Some(_) if self.cancelled_at_ms != 0 => Err(Refusal::OrderCancelled),
            Some(placement) => Ok(placement),
        }
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &OrderEvent) {
        match event {
            OrderEvent::Placed { placement, at_ms } => {
                *self = Self { placement: Some(placement.clone()), placed_at_ms: *at_ms, ..Self::default() };
            }
            OrderEvent::Cancelled { returned, voided, kept, at_ms, .. } => {
                self.cancelled_at_ms = *at_ms;
                self.fates = Fates { returned: returned.clone(), voided: voided.clone(), kept: kept.clone() };
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &OrderCommand, facts: &Facts) -> Result<Vec<OrderEvent>, Refusal> {
        let at_ms = facts.at.ms;
        match command {
            OrderCommand::Place(_) if self.placement.is_some() => Err(Refusal::field("id", Wrong::Taken)),
            OrderCommand::Place(placement) => {
                Ok(vec![OrderEvent::Placed { placement: placement.clone(), at_ms }])
            }
            OrderCommand::Cancel { fates, employee_id } => {
                self.standing()?;
                let Fates { returned, voided, kept } = fates.clone();
                let employee_id = *employee_id;
                Ok(vec![OrderEvent::Cancelled { returned, voided, kept, employee_id, at_ms }])
            }
        }
    }
}

/// Whether these coupons may count in one order of this amount: 5004 for the first that needs more, then 5005.
pub fn may_be_combined(terms: &[&Terms], amount_cents: i64) -> Result<(), Refusal> {
    if terms.iter().any(|terms| !counts_from(terms, amount_cents)) {
        return Err(Refusal::AmountTooLow);
    }
    if terms.len() > 1 && terms.iter().any(|terms| !terms.stackable) {
        return Err(Refusal::NotCombinable);
    }
    Ok(())
}

/// Whether a coupon counts in an order of this amount; only cash coupons ask for one.
#[must_use]
pub fn counts_from(terms: &Terms, amount_cents: i64) -> bool {
    terms.kind != Kind::Cash || amount_cents >= terms.minimum_order_cents
}

/// What each coupon takes off an order, in their order: never more than what is left to pay, in cents.
#[must_use]
pub fn worths(terms: &[&Terms], amount_cents: i64) -> Vec<i64> {
    let mut left = amount_cents.max(0);
    let worth = |terms: &&Terms| {
        let worth = terms.deduction_cents.clamp(0, left);
        left -= worth;
        worth
    };
    terms.iter().map(worth).collect()
}

/// Why a coupon that an order used is not returned by a cancel; None = it is. A partner's coupon is paid for by him, so
/// that it takes an operator's word.
#[must_use]
pub fn fate_of_used(
    coupon: &Coupon,
    redemption_id: i64,
    return_partner: bool,
    now_ms: i64,
) -> Option<Refusal> {
    let stands = coupon.redemption().is_some_and(|redemption| redemption.id == redemption_id);
    let issue = coupon.issue.as_ref();
    if !stands {
        return Some(Refusal::NotReversible);
    }
    if issue.is_none_or(|issue| issue.ends_at_ms <= now_ms) {
        return Some(Refusal::Expired);
    }
    let of_partner = issue.is_some_and(|issue| issue.source == Source::Partner);
    (of_partner && !return_partner).then_some(Refusal::ReturnNotAllowed)
}

/// Why a coupon that an order earned is not voided by a cancel; None = it is.
#[must_use]
pub fn fate_of_issued(coupon: &Coupon, buyer_id: i64) -> Option<Refusal> {
    if coupon.voided_at_ms.is_some() {
        return Some(Refusal::Voided);
    }
    if let Some(used) = coupon.redemption() {
        let (redemption_id, at_ms, shop_id) = (used.id, used.at_ms, used.shop_id);
        return Some(Refusal::AlreadyUsed { redemption_id, at_ms, shop_id });
    }
    (coupon.holder_id != buyer_id).then_some(Refusal::GivenAway)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(price_cents: i64, state: LineState, count: i64) -> Line {
        Line { goods_id: 1, price_cents, state, count }
    }

    fn cash(deduction_cents: i64, minimum_order_cents: i64, stackable: bool) -> Terms {
        Terms { deduction_cents, minimum_order_cents, stackable, ..Terms::default() }
    }

    #[test]
    fn an_order_comes_to_what_is_sold_less_what_is_returned() {
        let lines = [
            line(1_050, LineState::Sold, 2),
            line(999_999, LineState::Free, 3),
            line(100, LineState::Returned, 4),
        ];
        assert_eq!(amount_cents(&lines), Ok(1_700));
        assert_eq!(amount_cents(&lines[2..]), Ok(-400));
        assert!(amount_cents(&[line(i64::MAX, LineState::Sold, 2)]).is_err());
        assert!(amount_cents(&[line(MAX_ID, LineState::Sold, 1), line(1, LineState::Sold, 1)]).is_err());
    }

    #[test]
    fn coupons_take_off_no_more_than_is_left_to_pay() {
        let (ten, five) = (cash(1_000, 0, true), cash(500, 0, true));
        assert_eq!(worths(&[&ten, &five, &five], 1_200), [1_000, 200, 0]);
        assert_eq!(worths(&[&ten], -400), [0]);
    }

    #[test]
    fn an_amount_too_low_is_told_before_what_may_not_be_combined() {
        let (alone, together, dear) = (cash(1, 0, false), cash(1, 0, true), cash(1, 10_000, false));
        assert_eq!(may_be_combined(&[&alone], 0), Ok(()));
        assert_eq!(may_be_combined(&[&together, &together], 0), Ok(()));
        assert_eq!(may_be_combined(&[&together, &alone], 0), Err(Refusal::NotCombinable));
        assert_eq!(may_be_combined(&[&together, &dear], 9_999), Err(Refusal::AmountTooLow));
        assert_eq!(may_be_combined(&[&dear], 10_000), Ok(()));
        let exchange = Terms { kind: Kind::Exchange, ..dear };
        assert_eq!(may_be_combined(&[&exchange], 0), Ok(()));
    }
}
