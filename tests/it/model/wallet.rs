//! What a member sees: the lists and the pages of his coupons.

use serde_json::{Value, json};

use super::rules::{pending_gift, use_week};
use super::wire::{int, int_or, merged, optional_int, page_if_asked, page_of, refusal, unix_seconds};
use super::{Answer, Call, Coupon, Data, Model, Row, code};

impl Model {
    /// "Lists are bare arrays, newest id first"; `page` from 1, `limit` 10 unless sent, or `before_id` for `page`.
    pub(super) fn couponlist(&self, call: &Call, member_id: i64) -> Data {
        let state = int_or(call.body, "state", 0);
        let rows = self
            .coupons
            .values()
            .rev()
            .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
            .filter(|(coupon, row)| self.list_state(call.now_ms, coupon, row) == state)
            .map(|(coupon, row)| self.list_row(call.now_ms, coupon, member_id, row));
        Data::Exactly(Value::Array(page_of(call.body, rows.collect())))
    }

    /// "how many in each state".
    pub(super) fn couponcount(&self, call: &Call, member_id: i64) -> Data {
        let in_state = |state| {
            self.coupons
                .values()
                .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
                .filter(|(coupon, row)| self.list_state(call.now_ms, coupon, row) == state)
                .count()
        };
        Data::Exactly(json!({ "unused": in_state(0), "used": in_state(1), "expired": in_state(2) }))
    }

    /// "0 in hand and not past its end date (not-yet-started and being-given included); 1 used by this member, given
    /// away and received, or voided; 2 in hand but past its end date, whether or not the expiry event has been
    /// written yet."
    pub(super) fn list_state(&self, now_ms: i64, coupon: &Coupon, row: &Row) -> i64 {
        if row.passed_on.is_some() || coupon.used_by_redemption.is_some() || coupon.voided {
            1
        } else if self.today(now_ms) <= coupon.end {
            0
        } else {
            2
        }
    }

    /// "Rows of couponlist carry exactly" these keys.
    pub(super) fn list_row(&self, now_ms: i64, coupon: &Coupon, member_id: i64, row: &Row) -> Value {
        let definition = &coupon.definition;
        merged(
            self.shared_fields(now_ms, coupon, member_id, row),
            json!({
                "type": definition.kind,
                "coupon_title": definition.title,
                "deduction": definition.deduction_or_zero(),
                "is_self": i64::from(definition.is_self),
            }),
        )
    }

    /// The fields that a row of couponlist and couponinfo have in common.
    pub(super) fn shared_fields(&self, now_ms: i64, coupon: &Coupon, member_id: i64, row: &Row) -> Value {
        // A former giver's row is frozen: later uses and gifts do not show in it.
        let (mut use_date, mut use_id, mut give_date, mut receive_id) = (0, 0, json!(0), 0);
        if let Some(passed_on) = &row.passed_on {
            // "use_id: who took it out of this row: the redeemer, or the giver once it was received".
            use_id = member_id;
            give_date = json!(self.local_time(passed_on.given_ms));
            receive_id = passed_on.receive_id;
        } else if let Some(redemption) = self.standing_redemption(coupon) {
            use_date = unix_seconds(redemption.at_ms);
            use_id = if redemption.by == 0 { redemption.member_id } else { redemption.by };
        } else if let Some(gift) = pending_gift(coupon, now_ms) {
            give_date = json!(self.local_time(gift.given_ms));
        }
        // A review shows in the row of the member who used the coupon, and stays there after a reversal.
        let review = coupon.review.as_ref().filter(|review| review.member_id == member_id);
        json!({
            "id": coupon.id,
            "member_id": member_id,
            "coupon_id": coupon.definition.id,
            "start_date": coupon.start.to_string(),
            "end_date": coupon.end.to_string(),
            "create_date": unix_seconds(coupon.issued_ms),
            "use_date": use_date,
            "give_date": give_date,
            "use_id": use_id,
            "receive_id": receive_id,
            "evaluation": review.map_or("", |review| review.text.as_str()),
            "score": review.map_or(0, |review| review.score),
            "evaluation_time": review.map_or(0, |review| unix_seconds(review.at_ms)),
            "is_read": i64::from(row.is_read),
        })
    }

    /// "couponinfo carries exactly the keys of the sample"; "Ids of others answer 2001; a former giver still sees
    /// his row."
    pub(super) fn couponinfo(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        self.coupon_of(coupon_id, member_id)?;
        self.mark_read(coupon_id, member_id);
        let coupon = self.coupon_of(coupon_id, member_id)?;
        let row = coupon.rows.get(&member_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        let definition = &coupon.definition;
        let receiver = row.passed_on.as_ref().and_then(|passed_on| self.members.get(&passed_on.receive_id));
        let receive_member_info = receiver
            .map(|member| json!({ "nickname": member.nickname, "headimgurl": member.headimgurl }))
            .unwrap_or_default();
        Ok(Data::Exactly(merged(
            self.shared_fields(call.now_ms, coupon, member_id, row),
            json!({
                // "at the top of couponinfo: 0", as in the sample.
                "type": 0,
                "give_id": row.give_id,
                "come": coupon.origin.come,
                "user_id": coupon.origin.user_id,
                "order_id": coupon.origin.order_id,
                "goods_id": coupon.origin.goods_id,
                "receive_member_info": receive_member_info,
                "couponInfo": {
                    "title": definition.title,
                    "type": definition.kind,
                    "code": 0,
                    "use_week": use_week(definition),
                    "is_self": i64::from(definition.is_self),
                    "is_giving": i64::from(definition.is_giving),
                    "rules": definition.rules,
                },
            }),
        )))
    }

    /// "0 until the holder opens couponinfo, 1 from that first answer on". A frozen row keeps what it had.
    pub(super) fn mark_read(&mut self, coupon_id: i64, member_id: i64) {
        let row = self.coupons.get(&coupon_id).and_then(|coupon| coupon.rows.get(&member_id));
        if row.is_some_and(|row| row.passed_on.is_none() && !row.is_read) {
            self.change(coupon_id, |coupon| {
                if let Some(row) = coupon.rows.get_mut(&member_id) {
                    row.is_read = true;
                }
            });
        }
    }

    /// "the coupons that this member could redeem himself now (there); rows as couponlist plus `use_week`,
    /// `is_use_week`". Everything comes back unless `page` or `limit` is sent. A scan that is still to come keeps no
    /// coupon off the list.
    pub(super) fn getauditcoupon(&self, call: &Call, member_id: i64) -> Answer {
        let shop_id = optional_int(call.body, "shop_id");
        if let Some(shop_id) = shop_id {
            self.shop_is_open(shop_id)?;
        }
        let rows = self
            .coupons
            .values()
            .rev()
            .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
            .filter(|(coupon, _)| self.member_could_redeem(call.now_ms, member_id, coupon).is_ok())
            .filter(|(coupon, _)| shop_id.is_none_or(|shop_id| self.shop_takes(shop_id, coupon).is_ok()))
            .map(|(coupon, row)| {
                merged(
                    self.list_row(call.now_ms, coupon, member_id, row),
                    json!({
                        "use_week": use_week(&coupon.definition),
                        "is_use_week": i64::from(self.is_weekday_of(call.now_ms, coupon)),
                    }),
                )
            })
            .collect();
        Ok(Data::Exactly(Value::Array(page_if_asked(call.body, rows))))
    }
}
