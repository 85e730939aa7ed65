//! The counter: codes for one redemption, what an employee sees, and what was redeemed where and when.

use chrono::Days;
use serde_json::{Value, json};

use super::rules::{date, not_being_given, not_voided, pending_gift, still_holds, use_week};
use super::wire::{ensure, int, int_or, merged, page_of, refusal, text, unix_seconds};
use super::{Answer, Call, CounterCode, Coupon, Data, Model, Redemption, code};

/// "valid 60 s".
const CODE_LASTS_MS: i64 = 60_000;

impl Model {
    /// Whoever could use it may show it; that it has not started yet, or not today, is said at the counter.
    pub(super) fn auditcode(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon = self.coupon_of(int(call.body, "id"), member_id)?;
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        not_being_given(call.now_ms, coupon)?;
        self.not_expired(call.now_ms, coupon)?;

        let lapses_ms = call.now_ms + CODE_LASTS_MS;
        let shown = CounterCode { coupon_id: coupon.id, changes: coupon.changes, lapses_ms };
        let (answered, coupon_id) = (text(call.answered, "code"), coupon.id);
        let anothers = self.counter_codes.get(answered).is_some_and(|other| other.coupon_id != coupon_id);
        if answered.is_empty() || anothers {
            return Ok(Data::Exactly(json!({ "code": "a code of this coupon's own" })));
        }
        self.counter_codes.insert(answered.to_owned(), shown);
        Ok(Data::Exactly(json!({
            "id": coupon_id,
            "svg": call.answered.get("svg"),
            "code": answered,
            "lapse_date": self.local_time(lapses_ms),
        })))
    }

    /// "bound to the coupon's version, valid 60 s, single use": using it is a change like any other.
    pub(super) fn code_holds(&self, now_ms: i64, shown: &str, coupon: &Coupon) -> bool {
        self.counter_codes.get(shown).is_some_and(|code| {
            code.coupon_id == coupon.id && code.changes == coupon.changes && now_ms < code.lapses_ms
        })
    }

    /// A text that is no code at all is 7005 at once; else what can be said of the coupon comes first.
    pub(super) fn auditbycode(&mut self, call: &Call, employee_id: i64) -> Answer {
        let shop_id = self.shop_of_employee(employee_id)?;
        let shown = text(call.body, "code");
        let coupon = self.counter_codes.get(shown).and_then(|code| self.coupons.get(&code.coupon_id));
        let coupon = coupon.ok_or(refusal(code::WRONG_COUNTER_CODE))?;
        self.counter_could_redeem(call.now_ms, shop_id, coupon)?;
        ensure(self.code_holds(call.now_ms, shown, coupon), code::WRONG_COUNTER_CODE)?;
        Ok(self.redeem_at_counter(call, coupon.id, shop_id, employee_id))
    }

    /// "A member's coupons that could be redeemed at the employee's shop"; today's weekday is shown, not asked. An order's
    /// till sees the cash coupons among them.
    pub(super) fn auditelecouponlist(
        &self,
        call: &Call,
        employee_id: Option<i64>,
        only_cash: bool,
    ) -> Answer {
        let shop_id = employee_id.map(|id| self.shop_of_employee(id)).transpose()?;
        let member_id = int(call.body, "member_id");
        ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
        let is_usable = |coupon: &Coupon| {
            coupon.holder == member_id
                && (!only_cash || coupon.definition.kind == 1)
                && self.could_be_voided(coupon).is_ok()
                && pending_gift(coupon, call.now_ms).is_none()
                && self.not_expired(call.now_ms, coupon).is_ok()
                && self.started(call.now_ms, coupon).is_ok()
                && shop_id.is_none_or(|id| self.is_listed(id, coupon))
        };
        let usable = self.coupons.values().rev().filter(|coupon| is_usable(coupon));
        let rows = usable.filter_map(|coupon| {
            let row = coupon.rows.get(&member_id)?;
            Some(merged(
                self.list_row(call.now_ms, coupon, member_id, row),
                json!({
                    "use_week": use_week(&coupon.definition),
                    "is_use_week": i64::from(self.is_weekday_of(call.now_ms, coupon)),
                    "give_id": row.give_id,
                    "come": coupon.origin.come,
                    "user_id": coupon.origin.user_id,
                    "order_id": coupon.origin.order_id,
                    "goods_id": coupon.origin.goods_id,
                }),
            ))
        });
        Ok(Data::Exactly(Value::Array(page_of(call.body, rows.collect()))))
    }

    /// `/auditelecoupon/getlist`: "Redemptions by shop and date, newest first; an employee sees his own shop's".
    pub(super) fn redemption_list(&self, call: &Call, employee_id: Option<i64>) -> Answer {
        let asked = int_or(call.body, "shop_id", 0);
        let shop_id = match employee_id.map(|id| self.shop_of_employee(id)).transpose()? {
            Some(own) => {
                ensure(asked == 0 || asked == own, code::NOT_ALLOWED)?;
                own
            }
            None => asked,
        };
        let begin = date(text(call.body, "begin"));
        let end = date(text(call.body, "end"));
        let mut found: Vec<&Redemption> = self
            .redemptions
            .values()
            .filter(|redemption| shop_id == 0 || redemption.shop_id == shop_id)
            .filter(|redemption| begin.is_none_or(|begin| begin <= self.today(redemption.at_ms)))
            .filter(|redemption| end.is_none_or(|end| self.today(redemption.at_ms) < end + Days::new(1)))
            .collect();
        found.sort_by_key(|redemption| std::cmp::Reverse((redemption.at_ms, redemption.id)));
        let row = |redemption: &Redemption| {
            let definition = self.coupons.get(&redemption.coupon_id).map(|coupon| &coupon.definition);
            let member = self.members.get(&redemption.member_id);
            json!({
                "id": redemption.id,
                "mem_coupon_id": redemption.coupon_id,
                "coupon_id": definition.map_or(0, |definition| definition.id),
                "create_date": unix_seconds(redemption.at_ms),
                "shop_id": redemption.shop_id,
                "user_id": redemption.by,
                "member_id": redemption.member_id,
                "member_info": member.map(|member| json!({
                    "nickname": member.nickname,
                    "headimgurl": member.headimgurl,
                })),
                "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
                "reverse_date": redemption.reversed_ms.map_or(0, unix_seconds),
            })
        };
        let rows = found.into_iter().map(row).collect();
        Ok(Data::Exactly(Value::Array(page_of(call.body, rows))))
    }
}
