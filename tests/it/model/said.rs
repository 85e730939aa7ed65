//! What the model says piece by piece, for a driver that writes it down after every step: what one step cannot have changed
//! need not be said again.

use serde_json::Value;

use super::Model;

impl Model {
    /// A member's row of a coupon, with the state of the list in which it stands.
    pub fn listed(&self, now_ms: i64, coupon_id: i64, member_id: i64) -> Option<(i64, Value)> {
        let coupon = self.coupons.get(&coupon_id)?;
        let row = coupon.rows.get(&member_id)?;
        Some((self.list_state(now_ms, coupon, row), self.list_row(now_ms, coupon, member_id, row)))
    }

    /// Whether a member can open his coupon once more without anything happening.
    pub fn has_opened(&self, coupon_id: i64, member_id: i64) -> bool {
        let row = self.coupons.get(&coupon_id).and_then(|coupon| coupon.rows.get(&member_id));
        row.is_some_and(|row| row.is_read || row.passed_on.is_some())
    }

    /// The coupons whose gifts lapse behind the one time and by the other.
    pub fn lapsing(&self, after_ms: i64, by_ms: i64) -> Vec<i64> {
        let lapses = |lapses_ms: i64| after_ms < lapses_ms && lapses_ms <= by_ms;
        let coupons =
            self.coupons.values().filter(|it| it.gift.as_ref().is_some_and(|it| lapses(it.lapses_ms)));
        coupons.map(|coupon| coupon.id).collect()
    }

    /// The definition of a coupon and the partner's allotment from which it was taken, 0 where it was not.
    pub fn born_of(&self, coupon_id: i64) -> Option<(i64, i64)> {
        let coupon = self.coupons.get(&coupon_id)?;
        Some((coupon.definition.id, coupon.origin.allotment_id))
    }

    /// Every redemption of a coupon, with the member whose coupon it was.
    pub fn redemptions_of(&self, coupon_id: i64) -> Vec<(i64, i64)> {
        let of_coupon = self.redemptions.values().filter(|redemption| redemption.coupon_id == coupon_id);
        of_coupon.map(|redemption| (redemption.id, redemption.member_id)).collect()
    }

    /// A definition as its list shows it.
    pub fn defined(&self, definition_id: i64) -> Option<Value> {
        Some(self.definition_row(self.definitions.get(&definition_id)?))
    }
}
