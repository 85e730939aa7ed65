//! Redeeming, reversing, voiding, reviewing.

use serde_json::{Value, json};

use super::rules::{not_being_given, not_voided, still_holds};
use super::wire::{ensure, int, number, refusal, text, unix_seconds};
use super::{Answer, Call, Check, Coupon, Data, Model, REVERSIBLE_FOR_MS, Redemption, Refusal, Review, code};

impl Model {
    /// Redeem by member: 3009 3004 3001 3003 4002 3007 4001 4003 2003 3002 3010.
    pub(super) fn auditcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let shop_id = int(call.body, "shop_id");
        let coupon = self.coupon_of(int(call.body, "mem_coupon_id"), member_id)?;
        self.member_could_redeem(call.now_ms, member_id, coupon)?;
        self.shop_takes(shop_id, coupon)?;
        self.shop_was_scanned(shop_id, coupon, text(call.body, "audit_url"))?;
        let (coupon_id, definition_id) = (coupon.id, coupon.definition.id);

        let redemption_id = self.redeem(call, coupon_id, member_id, shop_id, 0);
        Ok(Data::Exactly(json!({
            "mem_coupon_id": coupon_id.to_string(),
            "user_id": 0,
            "create_date": unix_seconds(call.now_ms),
            "coupon_id": definition_id,
            "id": redemption_id,
        })))
    }

    /// The part of the member's table that comes before the shop: 3009 3004 3001 3003 4002 3007 4001 4003.
    pub(super) fn member_could_redeem(&self, now_ms: i64, member_id: i64, coupon: &Coupon) -> Check {
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        not_being_given(now_ms, coupon)?;
        self.not_expired(now_ms, coupon)?;
        ensure(coupon.definition.is_self, code::NOT_SELF_REDEEMABLE)?;
        self.started(now_ms, coupon)?;
        ensure(self.is_weekday_of(now_ms, coupon), code::WRONG_WEEKDAY)
    }

    /// Redeem by employee. "no `shop_id` parameter; shop comes from the employee".
    pub(super) fn auditelecoupon(&mut self, call: &Call, employee_id: i64) -> Answer {
        let shop_id = self.shop_of_employee(employee_id)?;
        let coupon_id = int(call.body, "mem_coupon_id");
        let coupon = self.coupons.get(&coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        self.counter_could_redeem(call.now_ms, shop_id, coupon)?;
        // Where a code is sent along, it must be one of this coupon.
        let shown = text(call.body, "counter_code");
        ensure(shown.is_empty() || self.code_holds(call.now_ms, shown, coupon), code::WRONG_COUNTER_CODE)?;
        Ok(self.redeem_at_counter(call, coupon_id, shop_id, employee_id))
    }

    pub(super) fn shop_of_employee(&self, employee_id: i64) -> Result<i64, Refusal> {
        self.employees.get(&employee_id).copied().ok_or(refusal(code::NO_SUCH_PERSON))
    }

    /// Redeem by employee: 3004 3001 3003 4002 4001 4003 2003 3002, and 7005 last.
    pub(super) fn counter_could_redeem(&self, now_ms: i64, shop_id: i64, coupon: &Coupon) -> Check {
        not_voided(coupon)?;
        self.not_used(coupon)?;
        not_being_given(now_ms, coupon)?;
        self.not_expired(now_ms, coupon)?;
        self.started(now_ms, coupon)?;
        ensure(self.is_weekday_of(now_ms, coupon), code::WRONG_WEEKDAY)?;
        self.shop_takes(shop_id, coupon)
    }

    pub(super) fn redeem_at_counter(
        &mut self,
        call: &Call,
        coupon_id: i64,
        shop_id: i64,
        employee_id: i64,
    ) -> Data {
        let coupon = self.coupons.get(&coupon_id);
        let (member_id, definition_id) =
            coupon.map_or((0, 0), |coupon| (coupon.holder, coupon.definition.id));
        let redemption_id = self.redeem(call, coupon_id, member_id, shop_id, employee_id);
        Data::Exactly(json!({
            "mem_coupon_id": coupon_id.to_string(),
            "user_id": employee_id,
            "create_date": unix_seconds(call.now_ms),
            "coupon_id": definition_id,
            "member_id": member_id,
            "id": redemption_id,
        }))
    }

    /// Records the use and returns the redemption's id as the answer shows it: a string.
    pub(super) fn redeem(
        &mut self,
        call: &Call,
        coupon_id: i64,
        member_id: i64,
        shop_id: i64,
        by: i64,
    ) -> Value {
        let answered_id = call.answered.get("id").and_then(number);
        let Some(id) = answered_id.filter(|id| !self.redemptions.contains_key(id)) else {
            return json!("a new redemption id");
        };
        let redemption =
            Redemption { id, coupon_id, member_id, shop_id, by, at_ms: call.now_ms, reversed_ms: None };
        self.redemptions.insert(id, redemption);
        self.change(coupon_id, |coupon| {
            coupon.used_by_redemption = Some(id);
            coupon.gift = None;
        });
        json!(id.to_string())
    }

    /// "as the sample; `create_date` there is 2018年11月27 11:44:03. Stays readable after a reversal." It belongs to
    /// the member whose coupon it was, whoever redeemed it.
    pub(super) fn auditcouponinfo(&self, call: &Call, member_id: i64) -> Answer {
        let redemption = self
            .redemptions
            .get(&int(call.body, "id"))
            .filter(|redemption| redemption.member_id == member_id)
            .ok_or(refusal(code::NO_SUCH_REDEMPTION))?;
        let definition = self.coupons.get(&redemption.coupon_id).map(|coupon| &coupon.definition);
        let shop = self.shops.get(&redemption.shop_id);
        Ok(Data::Exactly(json!({
            "id": redemption.id,
            "mem_coupon_id": redemption.coupon_id,
            "coupon_id": definition.map_or(0, |definition| definition.id),
            "create_date": self.local(redemption.at_ms).format("%Y年%m月%d %H:%M:%S").to_string(),
            "shop_id": redemption.shop_id,
            "user_id": redemption.by,
            "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            "shop_name": shop.map_or("", |shop| shop.name.as_str()),
        })))
    }

    /// Reverse: 2004 3012. "A reversal puts the coupon back in hand (`use_date`, `use_id` 0); a review stays". An
    /// employee finds his own shop's only.
    pub(super) fn reverseelecoupon(&mut self, call: &Call, employee_id: Option<i64>) -> Answer {
        let own_shop = employee_id.map(|id| self.shop_of_employee(id)).transpose()?;
        let redemption =
            self.redemptions.get_mut(&int(call.body, "id")).ok_or(refusal(code::NO_SUCH_REDEMPTION))?;
        ensure(own_shop.is_none_or(|shop| shop == redemption.shop_id), code::NO_SUCH_REDEMPTION)?;
        let is_too_late = call.now_ms - redemption.at_ms > REVERSIBLE_FOR_MS;
        ensure(redemption.reversed_ms.is_none() && !is_too_late, code::NOT_REVERSIBLE)?;

        redemption.reversed_ms = Some(call.now_ms);
        let coupon_id = redemption.coupon_id;
        self.change(coupon_id, |coupon| coupon.used_by_redemption = None);
        Ok(Data::Unpredictable)
    }

    /// Void: 2001 3004 3001. A pending gift ends with it.
    pub(super) fn voidelecoupon(&mut self, call: &Call) -> Answer {
        let coupon_id = int(call.body, "mem_coupon_id");
        let coupon = self.coupons.get(&coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        self.could_be_voided(coupon)?;

        self.void(coupon_id);
        Ok(Data::Unpredictable)
    }

    pub(super) fn could_be_voided(&self, coupon: &Coupon) -> Check {
        not_voided(coupon)?;
        self.not_used(coupon)
    }

    pub(super) fn void(&mut self, coupon_id: i64) {
        self.change(coupon_id, |coupon| {
            coupon.voided = true;
            coupon.gift = None;
        });
    }

    /// Review: 3009 3004 3006 3005. "once, after use, by its user"; "a review stays and cannot be repeated".
    pub(super) fn evaluacoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        let coupon = self.coupon_of(coupon_id, member_id)?;
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        ensure(coupon.used_by_redemption.is_some(), code::NOT_USED_YET)?;
        ensure(coupon.review.is_none(), code::ALREADY_REVIEWED)?;

        let evaluation = text(call.body, "evaluation").to_owned();
        let score = int(call.body, "score");
        let answer = json!({
            "id": coupon_id.to_string(),
            "evaluation": evaluation,
            "score": score.to_string(),
            "evaluation_time": unix_seconds(call.now_ms),
        });
        let review = Review { member_id, text: evaluation, score, at_ms: call.now_ms };
        self.change(coupon_id, |coupon| coupon.review = Some(review));
        Ok(Data::Exactly(answer))
    }
}
