//! Issuing.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::rules::{date, use_week, validity};
use super::wire::{cents, ensure, int, joined, refusal};
use super::{
    Answer, COME_CLAIMED, COME_ONE_TO_ONE, Call, Coupon, Data, Model, ModelDefinition, Origin, Refusal, Row,
    code,
};

impl ModelDefinition {
    /// `0.00` where an exchange coupon has none.
    pub(super) fn deduction_or_zero(&self) -> &str {
        if self.deduction.is_empty() { "0.00" } else { &self.deduction }
    }
}

/// The first and the last day.
type Days = (NaiveDate, NaiveDate);

impl Model {
    pub(super) fn sendelecoupon_one(&mut self, call: &Call, user_id: i64) -> Answer {
        let definition_id = int(call.body, "coupon_id");
        let member_id = int(call.body, "member_id");
        self.issue(
            call,
            definition_id,
            member_id,
            Origin { come: COME_ONE_TO_ONE, user_id, ..Origin::default() },
        )
    }

    /// "only definitions with `is_claim`=1": the others are not on offer to members.
    pub(super) fn claimcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let definition_id = int(call.body, "id");
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        ensure(definition.is_claim, code::NOT_ON_OFFER)?;
        self.issue(call, definition_id, member_id, Origin { come: COME_CLAIMED, ..Origin::default() })
    }

    /// Issue, claim: 2002 5006 310 5003 5002 5001. Answers the first and last day.
    pub(super) fn can_issue(&self, now_ms: i64, definition_id: i64, member_id: i64) -> Result<Days, Refusal> {
        let days = self.is_eligible(now_ms, definition_id, member_id)?;
        ensure(!self.limit_is_reached(now_ms, definition_id, member_id), code::LIMIT_REACHED)?;
        ensure(self.left_of(definition_id).is_none_or(|left| left > 0), code::SOLD_OUT)?;
        Ok(days)
    }

    /// What can be said without counting: 2002 5006 310 5003.
    pub(super) fn is_eligible(
        &self,
        now_ms: i64,
        definition_id: i64,
        member_id: i64,
    ) -> Result<Days, Refusal> {
        self.is_eligible_at(now_ms, definition_id, member_id, None)
    }

    /// The same for a member who had come to this level.
    pub(super) fn is_eligible_at(
        &self,
        now_ms: i64,
        definition_id: i64,
        member_id: i64,
        level_id: Option<i64>,
    ) -> Result<Days, Refusal> {
        let today = self.today(now_ms);
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        ensure(self.is_on_offer(now_ms, definition), code::NOT_ON_OFFER)?;
        let member = self.members.get(&member_id).ok_or(refusal(code::NO_SUCH_PERSON))?;
        // "no card end" is 5006 too, but can only be said of a member who is there.
        let days = validity(definition, member, today).ok_or(refusal(code::NOT_ON_OFFER))?;
        let is_eligible = definition.get_limit_type != 4
            || definition.level_ids.contains(&level_id.unwrap_or(member.level_id));
        ensure(is_eligible, code::LEVEL_NOT_ELIGIBLE)?;
        Ok(days)
    }

    /// How many more may be issued, none = any number.
    pub(super) fn left_of(&self, definition_id: i64) -> Option<i64> {
        let num = self.definitions.get(&definition_id)?.num;
        (num != 0).then(|| num - self.issued(definition_id))
    }

    /// A definition as its pages show it: "`inventory` is what is left of `num`, −1 when unlimited", and "`start_date`,
    /// `end_date` of a definition are empty unless type 1".
    pub(super) fn definition_row(&self, definition: &ModelDefinition) -> Value {
        let is_fixed = definition.validity_type == 1;
        let day = |day: &str| if is_fixed { day.to_owned() } else { String::new() };
        let validity =
            if definition.validity_type == 2 { definition.end_num.parse().unwrap_or(0) } else { 0_i64 };
        json!({
            "id": definition.id,
            "type": definition.kind,
            "title": definition.title,
            "num": definition.num,
            "inventory": self.left_of(definition.id).unwrap_or(-1),
            "code": 0,
            "deduction": definition.deduction_or_zero(),
            "money": cents(definition.money),
            "validity_type": definition.validity_type,
            "validity": validity,
            "start_date": day(&definition.start_num),
            "end_date": day(&definition.end_num),
            "use_week": use_week(definition),
            "is_giving": i64::from(definition.is_giving),
            "get_limit_type": definition.get_limit_type,
            "get_limit": definition.get_limit,
            "use_limit": definition.use_limit,
            "rules": definition.rules,
            "user_id": self.operator_user_id,
            "start_num": definition.start_num,
            "end_num": definition.end_num,
            "is_self": i64::from(definition.is_self),
            "is_claim": i64::from(definition.is_claim),
            "need_scan": i64::from(definition.need_scan),
            "shop_ids": joined(&definition.shop_ids),
            "level_ids": joined(&definition.level_ids),
            "state": i64::from(definition.on),
        })
    }

    /// "not on offer (switched off, ended …)".
    pub(super) fn is_on_offer(&self, now_ms: i64, definition: &ModelDefinition) -> bool {
        let today = self.today(now_ms);
        let has_ended =
            definition.validity_type == 1 && date(&definition.end_num).is_none_or(|end| end < today);
        definition.on && !has_ended
    }

    fn issue(&mut self, call: &Call, definition_id: i64, member_id: i64, origin: Origin) -> Answer {
        let days = self.can_issue(call.now_ms, definition_id, member_id)?;
        let answered_id = call.answered.get("id").and_then(Value::as_i64);
        let Some(id) = answered_id.filter(|id| !self.coupons.contains_key(id)) else {
            return Ok(Data::Exactly(json!({ "id": "a new member coupon id" })));
        };
        self.put_coupon(call.now_ms, id, definition_id, member_id, days, origin);
        Ok(Data::Exactly(json!({ "id": id })))
    }

    /// Puts a new coupon into the member's hand, under the terms of today.
    pub(super) fn put_coupon(
        &mut self,
        now_ms: i64,
        id: i64,
        definition_id: i64,
        member_id: i64,
        (start, end): Days,
        origin: Origin,
    ) {
        let Some(definition) = self.definitions.get(&definition_id).cloned() else {
            return;
        };
        let first_row = Row { give_id: 0, is_read: false, passed_on: None };
        let coupon = Coupon {
            id,
            definition,
            start,
            end,
            issued_ms: now_ms,
            issued_to: member_id,
            origin,
            holder: member_id,
            rows: BTreeMap::from([(member_id, first_row)]),
            used_by_redemption: None,
            voided: false,
            gift: None,
            received_with_code: None,
            review: None,
            changes: 0,
        };
        self.coupons.insert(id, coupon);
    }

    /// `get_limit_type` "2 at most `get_limit` issued per member (gifts not counted, voided not counted); 3 one at a
    /// time until its end date, used or not". What was issued to him counts, wherever it is now.
    pub(super) fn limit_is_reached(&self, now_ms: i64, definition_id: i64, member_id: i64) -> bool {
        self.limit_is_reached_with(now_ms, definition_id, member_id, 0)
    }

    /// The same for a member who had been issued so many more today.
    pub(super) fn limit_is_reached_with(
        &self,
        now_ms: i64,
        definition_id: i64,
        member_id: i64,
        more: i64,
    ) -> bool {
        let Some(definition) = self.definitions.get(&definition_id) else {
            return false;
        };
        let today = self.today(now_ms);
        let mut issued_to_him = self.issued_of(definition.id).filter(|coupon| coupon.issued_to == member_id);
        match definition.get_limit_type {
            2 => issued_to_him.count() as i64 + more >= definition.get_limit,
            3 => more > 0 || issued_to_him.any(|coupon| today <= coupon.end),
            _ => false,
        }
    }

    /// The coupons that count as issued: "voided not counted".
    pub(super) fn issued_of(&self, definition_id: i64) -> impl Iterator<Item = &Coupon> {
        self.coupons.values().filter(move |coupon| coupon.definition.id == definition_id && !coupon.voided)
    }
}
