//! Giving and receiving.

use serde_json::{Value, json};

use super::rules::{not_voided, pending_gift, still_holds};
use super::wire::{ensure, int, refusal};
use super::{
    Answer, Call, Check, Data, FAILURES_PER_HOUR, GIFT_CODES, GIFT_LAPSES_AFTER_MS, Gift, HOUR_MS, Model,
    PassedOn, Refusal, Row, WRONG_CODES_PER_GIFT, code,
};

impl Model {
    /// Give: 3009 3004 3001 4002 3008. "one pending gift per coupon; asking again while pending gives the same
    /// answer".
    pub(super) fn givecoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        let coupon = self.coupon_of(coupon_id, member_id)?;
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        self.not_expired(call.now_ms, coupon)?;
        ensure(coupon.definition.is_giving, code::NOT_GIVABLE)?;
        if let Some(gift) = pending_gift(coupon, call.now_ms) {
            return Ok(self.gift_answer(coupon_id, &json!(gift.code), gift.lapses_ms));
        }

        // "It lapses after 24 h (configurable) or at the end date": the end date itself is still whole.
        let lapses_ms = (call.now_ms + GIFT_LAPSES_AFTER_MS).min(self.first_instant_after(coupon.end));
        let answered_code = call.answered.get("code").and_then(Value::as_i64);
        let Some(code) = answered_code.filter(|code| GIFT_CODES.contains(code)) else {
            return Ok(self.gift_answer(coupon_id, &json!("a number 100000–999999"), lapses_ms));
        };
        self.change(coupon_id, |coupon| {
            coupon.gift = Some(Gift { code, given_ms: call.now_ms, lapses_ms, wrong_codes: 0 });
        });
        Ok(self.gift_answer(coupon_id, &json!(code), lapses_ms))
    }

    pub(super) fn gift_answer(&self, coupon_id: i64, code: &Value, lapses_ms: i64) -> Data {
        Data::Exactly(json!({ "id": coupon_id, "code": code, "lapse_date": self.local_time(lapses_ms) }))
    }

    /// Withdraw: 7003. "the giver takes a pending gift back".
    pub(super) fn withdrawcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon = self.coupon_of(int(call.body, "id"), member_id)?;
        let is_his_gift = coupon.holder == member_id && pending_gift(coupon, call.now_ms).is_some();
        ensure(is_his_gift, code::NOTHING_TO_RECEIVE)?;

        let coupon_id = coupon.id;
        self.change(coupon_id, |coupon| coupon.gift = None);
        Ok(Data::Unpredictable)
    }

    /// "the caller becomes the holder; the end date never moves; limits and levels do not bind the receiver".
    pub(super) fn getcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        if self.has_received(call, member_id) {
            return Ok(Data::Exactly(json!({ "id": coupon_id })));
        }
        self.try_gift_code(call, member_id)?;

        self.change(coupon_id, |coupon| {
            let Some(gift) = coupon.gift.take() else { return };
            let giver_id = coupon.holder;
            if let Some(row) = coupon.rows.get_mut(&giver_id) {
                row.passed_on = Some(PassedOn { given_ms: gift.given_ms, receive_id: member_id });
            }
            // "A coupon back with an earlier holder: that row is in hand again", so an old row of his is replaced.
            coupon.rows.insert(member_id, Row { give_id: giver_id, is_read: false, passed_on: None });
            coupon.holder = member_id;
            coupon.received_with_code = Some(gift.code);
        });
        Ok(Data::Exactly(json!({ "id": coupon_id })))
    }

    /// "what would be received, counting a wrong code like getcoupon".
    pub(super) fn giftinfo(&mut self, call: &Call, member_id: i64) -> Answer {
        if !self.has_received(call, member_id) {
            self.try_gift_code(call, member_id)?;
        }
        Ok(Data::Unpredictable)
    }

    /// "the receiver repeating the right code gets {"id":1} again". This is no try: it opens nothing, so it neither
    /// counts nor is it counted against him.
    pub(super) fn has_received(&self, call: &Call, member_id: i64) -> bool {
        self.coupons.get(&int(call.body, "id")).is_some_and(|coupon| {
            coupon.holder == member_id
                && pending_gift(coupon, call.now_ms).is_none()
                && coupon.received_with_code == Some(int(call.body, "code"))
        })
    }

    /// "every failure counts toward at most ten per caller and hour (then 9001)": the last hour, sliding. An answer
    /// of 9001 does not count itself, and is no wrong code for the gift.
    pub(super) fn try_gift_code(&mut self, call: &Call, member_id: i64) -> Check {
        let failures_ms = self.gift_failures_ms.entry(member_id).or_default();
        failures_ms.retain(|failed_ms| call.now_ms - failed_ms < HOUR_MS);
        ensure(failures_ms.len() < FAILURES_PER_HOUR, code::TOO_MANY_REQUESTS)?;

        let outcome = self.check_gift_code(call, member_id);
        if outcome.is_err() {
            self.gift_failures_ms.entry(member_id).or_default().push(call.now_ms);
        }
        outcome
    }

    /// Receive: 7004 7003 7002 7001. "the fifth answers 7001 with `attempts_left` 0, later ones 7002".
    pub(super) fn check_gift_code(&mut self, call: &Call, member_id: i64) -> Check {
        let coupon = self
            .coupons
            .get_mut(&int(call.body, "id"))
            .filter(|coupon| pending_gift(coupon, call.now_ms).is_some())
            .ok_or(refusal(code::NOTHING_TO_RECEIVE))?;
        // 7004 stands before 7003 in the table, but only a pending gift can be one's own.
        ensure(coupon.holder != member_id, code::OWN_GIFT)?;
        let Some(gift) = &mut coupon.gift else {
            return Err(refusal(code::NOTHING_TO_RECEIVE));
        };
        ensure(gift.wrong_codes < WRONG_CODES_PER_GIFT, code::GIFT_LOCKED)?;
        if gift.code == int(call.body, "code") {
            return Ok(());
        }
        gift.wrong_codes += 1;
        let attempts_left = WRONG_CODES_PER_GIFT - gift.wrong_codes;
        coupon.changes += 1;
        Err(Refusal { code: code::WRONG_GIFT_CODE, data: json!({ "attempts_left": attempts_left }) })
    }
}
