//! What the events of a coupon are to the statistics: facts, each with everything that it can be told apart by.
//!
//! Pure and total. An event alone does not say of which definition the coupon is, or whether an end that passed is one that
//! counts: a coupon's [`Life`] is what must be known of its past for that, and much less than the coupon.

use crate::clock::{Zone, day_number, day_numbered};
use crate::coupon::{CouponEvent, Issue, Past, Source};
use crate::read_model::kind_number;
use crate::store::Cell;

/// The columns of `facts`, in the order of [`Fact::cells`]. docs/projections.md says what each is.
pub const COLUMNS: [&str; 25] = [
    "event",
    "position",
    "at_ms",
    "day",
    "coupon_id",
    "definition_id",
    "kind",
    "source",
    "source_id",
    "partner_id",
    "issue_day",
    "member_id",
    "shop_id",
    "employee_id",
    "redemption_id",
    "use_day",
    "used_at_ms",
    "age_days",
    "score",
    "value_cents",
    "first_view",
    "outstanding",
    "used",
    "expired",
    "voided",
];

/// Something that happened to a coupon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fact {
    /// What.
    pub event: &'static str,
    /// The event's position.
    pub position: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// The local day on which it counts.
    pub day: i64,
    /// Which coupon.
    pub coupon_id: i64,
    /// As it was born.
    pub born: Born,
    /// In whose hand it is, who received it, who used it.
    pub member_id: i64,
    /// Where it was used, of uses and reviews.
    pub shop_id: i64,
    /// Whose deed it was; of uses that are taken back, whose use.
    pub employee_id: i64,
    /// The use, of uses and of those taken back; 0 = it is about none.
    pub redemption_id: i64,
    /// When that was.
    pub used_at_ms: i64,
    /// And on which local day.
    pub use_day: i64,
    /// Of a review.
    pub score: i64,
    /// 1: nobody had opened it before.
    pub first_view: i64,
    /// What it changed of what there is.
    pub change: Count,
}

/// A coupon is one of four: each event moves it at most from one to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// In somebody's hand, its end not recorded.
    pub outstanding: i64,
    /// Used, and the use stands.
    pub used: i64,
    /// In somebody's hand, and its end was recorded.
    pub expired: i64,
    /// Taken out of the world.
    pub voided: i64,
}

/// A coupon as it was born.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Born {
    /// Its definition.
    pub definition_id: i64,
    /// 1 cash, 2 exchange.
    pub kind: i64,
    /// The manual's `come`.
    pub source: i64,
    /// The send, rule, group, grant or allotment behind it.
    pub source_id: i64,
    /// From whose allotment it is; 0 = nobody's.
    pub partner_id: i64,
    /// The local day.
    pub issue_day: i64,
    /// What it takes off.
    pub value_cents: i64,
}

impl Fact {
    /// Local days from the issue to the use that it is about, or to its own day.
    fn age_days(&self) -> i64 {
        let day = if self.redemption_id == 0 { self.day } else { self.use_day };
        day_numbered(day)
            .zip(day_numbered(self.born.issue_day))
            .map_or(0, |(day, issued)| (day - issued).num_days())
    }

    /// Its cells, in the order of [`COLUMNS`].
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        let Self { born, change, .. } = self;
        let numbers = [
            self.position,
            self.at_ms,
            self.day,
            self.coupon_id,
            born.definition_id,
            born.kind,
            born.source,
            born.source_id,
            born.partner_id,
            born.issue_day,
            self.member_id,
            self.shop_id,
            self.employee_id,
            self.redemption_id,
            self.use_day,
            self.used_at_ms,
            self.age_days(),
            self.score,
            born.value_cents,
            self.first_view,
            change.outstanding,
            change.used,
            change.expired,
            change.voided,
        ];
        std::iter::once(self.event.into()).chain(numbers.map(Cell::Int)).collect()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Use {
    redemption_id: i64,
    member_id: i64,
    shop_id: i64,
    employee_id: i64,
    at_ms: i64,
    stands: bool,
}

/// What must be known of a coupon's past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    born: Option<Born>,
    holder_id: i64,
    end_day: i64,
    viewed: bool,
    last_use: Option<Use>,
    voided: bool,
    expired: bool,
    /// Since which local day it is in hand: an end that lies before it passed on it.
    in_hand_since: i64,
}

impl Life {
    /// Which of the four it is; none before it is born.
    fn count(&self) -> Count {
        let mut count = Count::default();
        if self.born.is_none() {
            return count;
        }
        let is_used = self.last_use.as_ref().is_some_and(|last| last.stands);
        if self.voided {
            count.voided = 1;
        } else if is_used {
            count.used = 1;
        } else if self.expired {
            count.expired = 1;
        } else {
            count.outstanding = 1;
        }
        count
    }

    /// The facts that an event is. `partner_of` knows whose an allotment is.
    pub fn advance(&mut self, event: &CouponEvent, zone: Zone, partner_of: impl Fn(i64) -> i64) -> Vec<Fact> {
        let before = self.count();
        let mut facts = self.told(event, zone, &partner_of);
        if let Some(last) = facts.last_mut() {
            // What one event changes is said once, by its last fact: the use of one that was taken over used.
            let after = self.count();
            last.change = Count {
                outstanding: after.outstanding - before.outstanding,
                used: after.used - before.used,
                expired: after.expired - before.expired,
                voided: after.voided - before.voided,
            };
            if last.change.outstanding == 1 && before != Count::default() {
                self.in_hand_since = last.day;
            }
        }
        facts
    }

    fn told(&mut self, event: &CouponEvent, zone: Zone, partner_of: &impl Fn(i64) -> i64) -> Vec<Fact> {
        let day_of = |at_ms: i64| day_number(zone.moment(at_ms).day);
        if let Some(issue) = event.birth() {
            return self.begin(event, issue, zone, partner_of);
        }
        let Some(born) = self.born.clone() else { return Vec::new() };
        let fact = |event: &'static str, at_ms: i64| Fact {
            event,
            at_ms,
            day: day_of(at_ms),
            born: born.clone(),
            member_id: self.holder_id,
            ..Fact::default()
        };
        let told = match event {
            CouponEvent::Issued(_) | CouponEvent::Imported { .. } | CouponEvent::GiftCodeRejected { .. } => {
                return Vec::new();
            }
            CouponEvent::Viewed { member_id, at_ms } => {
                let first_view = i64::from(!std::mem::replace(&mut self.viewed, true));
                Fact { member_id: *member_id, first_view, ..fact("viewed", *at_ms) }
            }
            CouponEvent::Given { member_id, at_ms, .. } => {
                Fact { member_id: *member_id, ..fact("given", *at_ms) }
            }
            CouponEvent::GiftWithdrawn { at_ms, .. } => fact("withdrawn", *at_ms),
            CouponEvent::GiftLapsed { at_ms, .. } => fact("lapsed", *at_ms),
            CouponEvent::Received { member_id, at_ms, .. } => {
                let received = Fact { member_id: *member_id, ..fact("received", *at_ms) };
                self.holder_id = *member_id;
                received
            }
            CouponEvent::Redeemed { redemption_id, member_id, shop_id, employee_id, at_ms } => {
                let redeemed = fact("redeemed", *at_ms);
                let used = Use {
                    redemption_id: *redemption_id,
                    member_id: *member_id,
                    shop_id: *shop_id,
                    employee_id: *employee_id,
                    at_ms: *at_ms,
                    stands: true,
                };
                let told = of_use(redeemed, &used, day_of(*at_ms));
                self.last_use = Some(used);
                told
            }
            CouponEvent::RedemptionReversed { redemption_id, at_ms, .. } => {
                let reversed = fact("reversed", *at_ms);
                let last = self.last_use.as_mut().filter(|last| last.redemption_id == *redemption_id);
                let Some(last) = last.filter(|last| last.stands) else { return Vec::new() };
                last.stands = false;
                of_use(reversed, last, day_of(last.at_ms))
            }
            CouponEvent::Evaluated { member_id, score, at_ms, .. } => {
                let (shop_id, employee_id) =
                    self.last_use.as_ref().map_or((0, 0), |last| (last.shop_id, last.employee_id));
                let reviewed = fact("reviewed", *at_ms);
                Fact { member_id: *member_id, shop_id, employee_id, score: i64::from(*score), ..reviewed }
            }
            CouponEvent::Expired { at_ms } => {
                self.expired = true;
                // It is written some time afterwards: what ended is the coupon's last day.
                Fact { day: self.end_day.max(self.in_hand_since), ..fact("expired", *at_ms) }
            }
            CouponEvent::EndMoved { end_date, employee_id, at_ms, .. } => {
                let moved = Fact { employee_id: *employee_id, ..fact("end_moved", *at_ms) };
                self.end_day = day_number(*end_date);
                self.expired = false;
                moved
            }
            CouponEvent::Voided { employee_id, at_ms, .. } => {
                self.voided = true;
                Fact { employee_id: *employee_id, ..fact("voided", *at_ms) }
            }
        };
        vec![told]
    }

    fn begin(
        &mut self,
        event: &CouponEvent,
        issue: &Issue,
        zone: Zone,
        partner_of: impl Fn(i64) -> i64,
    ) -> Vec<Fact> {
        let day_of = |at_ms: i64| day_number(zone.moment(at_ms).day);
        let partner_id = if issue.source == Source::Partner { partner_of(issue.source_id) } else { 0 };
        let issue_day = day_of(issue.at_ms);
        let born = Born {
            definition_id: issue.definition_id,
            kind: kind_number(issue.terms.kind),
            source: issue.source.come(),
            source_id: issue.source_id,
            partner_id,
            issue_day,
            value_cents: issue.terms.deduction_cents,
        };
        *self = Self {
            born: Some(born.clone()),
            holder_id: issue.member_id,
            end_day: day_number(issue.end_date),
            in_hand_since: issue_day,
            ..Self::default()
        };
        let fact = |event: &'static str, at_ms: i64| Fact {
            event,
            at_ms,
            day: day_of(at_ms),
            born: born.clone(),
            member_id: issue.member_id,
            ..Fact::default()
        };
        let issued = Fact { employee_id: issue.employee_id, ..fact("issued", issue.at_ms) };
        let past = match event {
            CouponEvent::Imported { past, .. } => *past,
            _ => Past::Unused,
        };
        match past {
            Past::Unused => vec![issued],
            Past::Used { redemption_id, shop_id, employee_id, at_ms } => {
                let member_id = issue.member_id;
                let used = Use { redemption_id, member_id, shop_id, employee_id, at_ms, stands: true };
                let redeemed = of_use(fact("redeemed", at_ms), &used, day_of(at_ms));
                self.last_use = Some(used);
                vec![issued, redeemed]
            }
            Past::Voided { at_ms } => {
                self.voided = true;
                vec![issued, fact("voided", at_ms)]
            }
        }
    }
}

/// A fact about a use: all of them say the same of it, so that what was taken back is subtracted where it was added.
fn of_use(fact: Fact, used: &Use, use_day: i64) -> Fact {
    Fact {
        member_id: used.member_id,
        shop_id: used.shop_id,
        employee_id: used.employee_id,
        redemption_id: used.redemption_id,
        used_at_ms: used.at_ms,
        use_day,
        ..fact
    }
}
