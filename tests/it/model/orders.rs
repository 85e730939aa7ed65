//! Orders: what they use, what they earn, and what a cancel gives back; and the rules and groups by which they earn.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::wire::{
    cents, ensure, ids, int, int_or, joined, money, number, page_if_asked, page_of, refusal, rows, text,
    unix_seconds,
};
use super::{
    Answer, COME_ORDER_AMOUNT, COME_PARTNER, COME_PRODUCT_GROUP, Call, Check, Coupon, Data, Model,
    ModelDefinition, Origin, Redemption, Refusal, code,
};

/// What a rule of an order's amount or a group of goods grants: how many of each definition.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// From which amount on, in cents; nothing to a group.
    pub amount: i64,
    /// The goods of a group.
    pub goods: Vec<i64>,
    pub nums: BTreeMap<i64, i64>,
    /// The id of each definition's row, as the rule's page shows it.
    pub rows: BTreeMap<i64, i64>,
    pub granted_ms: i64,
}

/// The ids that the server chose where its answer does not tell them: the log does.
#[derive(Debug, Default)]
pub struct Chosen {
    /// (coupon, redemption)
    pub redemptions: BTreeMap<i64, i64>,
    /// New coupons, in the order in which they were issued.
    pub coupons: Vec<i64>,
    /// (definition, row) of what is granted from now on.
    pub grants: BTreeMap<i64, i64>,
}

pub(super) struct Order {
    member_id: i64,
    shop_id: i64,
    by: i64,
    placed_ms: i64,
    cancelled_ms: Option<i64>,
    amount: i64,
    lines: Vec<Line>,
    rule_id: i64,
    used: Vec<Used>,
    issued: Vec<i64>,
    /// `score`, `balance` in cents, `remark` and `order_no`: told to us and told again.
    told: (i64, i64, String, String),
}

struct Line {
    goods_id: i64,
    price: i64,
    state: i64,
    count: i64,
    earned: Vec<(i64, i64)>,
}

#[derive(Clone, Copy)]
struct Used {
    coupon_id: i64,
    redemption_id: i64,
    worth: i64,
}

/// What an order is to earn of one definition.
struct Earned {
    definition_id: i64,
    num: i64,
    come: i64,
    goods_id: i64,
}

impl Model {
    // The driver calls these after it did the same to the server.

    pub fn set_rule(&mut self, id: i64, grants: Grants) {
        self.rules.insert(id, grants);
    }

    pub fn delete_rule(&mut self, id: i64) {
        self.rules.remove(&id);
    }

    pub fn set_group(&mut self, id: i64, grants: Grants) {
        self.groups.insert(id, grants);
    }

    pub fn delete_group(&mut self, id: i64) {
        self.groups.remove(&id);
    }

    // What the driver asks to place orders that lead somewhere.

    pub fn rules(&self) -> &BTreeMap<i64, Grants> {
        &self.rules
    }

    pub fn groups(&self) -> &BTreeMap<i64, Grants> {
        &self.groups
    }

    /// The orders that stand and used what was taken from a partner.
    pub fn orders_with_partners(&self) -> Vec<i64> {
        let has_used = |order: &Order| order.used.iter().any(|used| self.is_partners(used.coupon_id));
        let standing =
            self.orders.iter().filter(|(_, order)| order.cancelled_ms.is_none() && has_used(order));
        standing.map(|(id, _)| *id).collect()
    }

    /// A member's coupons that could be redeemed at a shop now.
    pub fn usable_at(&self, now_ms: i64, member_id: i64, shop_id: i64) -> Vec<i64> {
        let usable = self.coupons.values().rev().filter(|coupon| {
            coupon.holder == member_id && self.counter_could_redeem(now_ms, shop_id, coupon).is_ok()
        });
        usable.map(|coupon| coupon.id).collect()
    }

    /// "An order uses its coupons all or none … and issues what it earned in the same transaction."
    pub(super) fn order_add(&mut self, call: &Call, employee_id: Option<i64>) -> Answer {
        let shop_id = self.shop_of_order(call, employee_id)?;
        let member_id = int(call.body, "member_id");
        let lines: Vec<Line> = rows(call.body, "goods").map(line).collect();
        let amount = amount_of(&lines);
        let rule_id = int_or(call.body, "ora_id", 0);
        ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
        let mut earned = self.earned_by_amount(call.body, rule_id, amount)?;
        earned.extend(self.earned_by_goods(&lines)?);
        let coupons = ids_as_given(call.body, "use_coupon_list");
        for coupon_id in &coupons {
            self.could_be_used(call.now_ms, member_id, shop_id, *coupon_id)?;
        }
        let worths = self.worths(&coupons, amount)?;
        self.shop_is_open(shop_id)?;

        let order_id =
            call.answered.get("id").and_then(Value::as_i64).filter(|id| !self.orders.contains_key(id));
        let by = employee_id.unwrap_or(self.operator_user_id);
        let behind = Origin { user_id: by, order_id: order_id.unwrap_or_default(), ..Origin::default() };
        let issued = self.issue_all(call.now_ms, member_id, &earned, behind)?;
        let used = coupons.iter().zip(worths).map(|(coupon_id, worth)| {
            let redemption_id = self.chosen.redemptions.get(coupon_id).copied().unwrap_or_default();
            Used { coupon_id: *coupon_id, redemption_id, worth }
        });
        let used: Vec<Used> = used.collect();
        for used in &used {
            let Used { coupon_id, redemption_id: id, .. } = *used;
            let redemption =
                Redemption { id, coupon_id, member_id, shop_id, by, at_ms: call.now_ms, reversed_ms: None };
            self.redemptions.insert(id, redemption);
            self.change(coupon_id, |coupon| {
                coupon.used_by_redemption = Some(id);
                coupon.gift = None;
            });
        }
        let Some(order_id) = order_id else {
            return Ok(Data::Exactly(json!({ "id": "a new order's id" })));
        };
        let told = (
            int_or(call.body, "score", 0),
            money(text(call.body, "balance")),
            text(call.body, "remark").to_owned(),
            text(call.body, "order_no").to_owned(),
        );
        let (placed_ms, cancelled_ms) = (call.now_ms, None);
        let order = Order {
            member_id,
            shop_id,
            by,
            placed_ms,
            cancelled_ms,
            amount,
            lines,
            rule_id,
            used,
            issued,
            told,
        };
        self.orders.insert(order_id, order);
        Ok(Data::Exactly(json!({ "id": order_id })))
    }

    /// An employee's own shop, or the one that an operator names.
    fn shop_of_order(&self, call: &Call, employee_id: Option<i64>) -> Result<i64, Refusal> {
        let asked = int_or(call.body, "shop_id", 0);
        let Some(own) = employee_id.map(|id| self.shop_of_employee(id)).transpose()? else {
            return Ok(asked);
        };
        ensure(asked == 0 || asked == own, code::NOT_ALLOWED)?;
        Ok(own)
    }

    /// "within what the rule … grant[s] for that amount …, else 401".
    fn earned_by_amount(&self, body: &Value, rule_id: i64, amount: i64) -> Result<Vec<Earned>, Refusal> {
        let rule = self.rules.get(&rule_id);
        ensure(rule_id == 0 || rule.is_some(), code::NO_SUCH_RULE)?;
        let mut left =
            rule.filter(|rule| rule.amount <= amount).map_or_else(BTreeMap::new, |rule| rule.nums.clone());
        let mut earned = Vec::new();
        for (definition_id, num) in rows(body, "order_coupon_list").map(pair) {
            take(&mut left, definition_id, num)?;
            earned.push(Earned { definition_id, num, come: COME_ORDER_AMOUNT, goods_id: 0 });
        }
        Ok(earned)
    }

    /// What the groups of a line's goods grant, for each that is sold.
    fn earned_by_goods(&self, lines: &[Line]) -> Result<Vec<Earned>, Refusal> {
        let mut earned = Vec::new();
        for line in lines {
            let mut left = BTreeMap::new();
            for group in
                self.groups.values().filter(|group| line.state == 1 && group.goods.contains(&line.goods_id))
            {
                for (definition_id, num) in &group.nums {
                    *left.entry(*definition_id).or_default() += num * line.count;
                }
            }
            for (definition_id, num) in &line.earned {
                take(&mut left, *definition_id, *num)?;
                let (come, goods_id) = (COME_PRODUCT_GROUP, line.goods_id);
                earned.push(Earned { definition_id: *definition_id, num: *num, come, goods_id });
            }
        }
        Ok(earned)
    }

    /// 2001 for one that is not in the buyer's hand, then as at the counter.
    fn could_be_used(&self, now_ms: i64, member_id: i64, shop_id: i64, coupon_id: i64) -> Check {
        let coupon = self.coupons.get(&coupon_id).filter(|coupon| coupon.holder == member_id);
        self.counter_could_redeem(now_ms, shop_id, coupon.ok_or(refusal(code::NO_SUCH_COUPON))?)
    }

    /// 5004 where a cash coupon counts from a higher amount on, 5005 where one of several may not be combined; else what
    /// each takes off, never more than what is left to pay.
    fn worths(&self, coupons: &[i64], amount: i64) -> Result<Vec<i64>, Refusal> {
        let coupons: Vec<&Coupon> = coupons.iter().filter_map(|id| self.coupons.get(id)).collect();
        ensure(coupons.iter().all(|coupon| counts_from(coupon, amount)), code::AMOUNT_TOO_LOW)?;
        let is_alone = coupons.len() < 2;
        ensure(
            is_alone || coupons.iter().all(|coupon| coupon.definition.use_limit == 1),
            code::NOT_COMBINABLE,
        )?;
        Ok(taken_off(&coupons, amount))
    }

    /// Of all of them first what can be said without counting, in their order; then limits, then stock, each counting those
    /// before it. The first refusal takes the whole order with it.
    fn issue_all(
        &mut self,
        now_ms: i64,
        member_id: i64,
        earned: &[Earned],
        behind: Origin,
    ) -> Result<Vec<i64>, Refusal> {
        let mut days = Vec::new();
        for Earned { definition_id, .. } in earned {
            days.push(self.is_eligible(now_ms, *definition_id, member_id)?);
        }
        let mut issued = Vec::new();
        let mut outcome = Ok(());
        for (Earned { definition_id, num, come, goods_id }, days) in earned.iter().zip(days) {
            for _ in 0..*num {
                if self.limit_is_reached(now_ms, *definition_id, member_id) {
                    outcome = outcome.and(Err(refusal(code::LIMIT_REACHED)));
                }
                let next = issued.len();
                let id = self.chosen.coupons.get(next).copied().unwrap_or(-1 - next as i64);
                let origin = Origin { come: *come, goods_id: *goods_id, ..behind };
                self.put_coupon(now_ms, id, *definition_id, member_id, days, origin);
                issued.push(id);
            }
        }
        let is_sold_out = |earned: &Earned| self.left_of(earned.definition_id).is_some_and(|left| left < 0);
        outcome = outcome.and(ensure(!earned.iter().any(is_sold_out), code::SOLD_OUT));
        if outcome.is_err() {
            self.coupons.retain(|id, _| !issued.contains(id));
        }
        outcome.map(|()| issued)
    }

    /// "Cancelling returns the used coupons (unless past their end), voids the issued ones that are unused and still with
    /// the buyer, and lists the others; `cancelago` lists them beforehand."
    pub(super) fn order_cancel(&mut self, call: &Call, employee_id: Option<i64>, carry_out: bool) -> Answer {
        let order_id = int(call.body, "id");
        let shop_id = employee_id.map(|id| self.shop_of_employee(id)).transpose()?;
        let return_partners = int_or(call.body, "return_partner", 0) == 1;
        ensure(!return_partners || employee_id.is_none(), code::NOT_ALLOWED)?;
        let order = self.orders.get(&order_id).filter(|order| shop_id.is_none_or(|id| id == order.shop_id));
        let order = order.ok_or(refusal(code::NO_SUCH_ORDER))?;
        ensure(order.cancelled_ms.is_none(), code::ORDER_CANCELLED)?;

        let (mut returned, mut voided, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let mut reversed = Vec::new();
        for used in &order.used {
            match self.could_be_returned(call.now_ms, *used, return_partners) {
                Ok(()) => {
                    returned.push(used.coupon_id);
                    reversed.push(used.redemption_id);
                }
                Err(why) => kept.push(json!({ "id": used.coupon_id, "code": why.code })),
            }
        }
        for coupon_id in &order.issued {
            match self.could_be_taken_back(order.member_id, *coupon_id) {
                Ok(()) => voided.push(*coupon_id),
                Err(why) => kept.push(json!({ "id": coupon_id, "code": why.code })),
            }
        }
        if carry_out {
            for (coupon_id, redemption_id) in returned.iter().zip(reversed) {
                if let Some(redemption) = self.redemptions.get_mut(&redemption_id) {
                    redemption.reversed_ms = Some(call.now_ms);
                }
                self.change(*coupon_id, |coupon| coupon.used_by_redemption = None);
            }
            for coupon_id in &voided {
                self.void(*coupon_id);
            }
            if let Some(order) = self.orders.get_mut(&order_id) {
                order.cancelled_ms = Some(call.now_ms);
            }
        }
        Ok(Data::Exactly(json!({ "id": order_id, "returned": returned, "voided": voided, "kept": kept })))
    }

    /// A use that was reversed already stays as it is, and so does one of a coupon that is past its end. "A partner's coupon
    /// is returned only with `return_partner`=1 by an operator."
    fn could_be_returned(&self, now_ms: i64, used: Used, return_partners: bool) -> Check {
        let coupon = self.coupons.get(&used.coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        ensure(coupon.used_by_redemption == Some(used.redemption_id), code::NOT_REVERSIBLE)?;
        self.not_expired(now_ms, coupon)?;
        ensure(return_partners || coupon.origin.come != COME_PARTNER, code::NOT_ALLOWED)
    }

    fn could_be_taken_back(&self, buyer_id: i64, coupon_id: i64) -> Check {
        let coupon = self.coupons.get(&coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        self.could_be_voided(coupon)?;
        ensure(coupon.holder == buyer_id, code::GIVEN_AWAY)
    }

    /// What employees (of their shop) and operators read of orders.
    pub(super) fn read_order(&self, call: &Call, employee_id: Option<i64>, route: &str) -> Answer {
        match route {
            "/order/get" => {
                let id = int(call.body, "id");
                let own = employee_id.map(|id| self.shop_of_employee(id)).transpose()?;
                let order = self.orders.get(&id).filter(|order| own.is_none_or(|own| own == order.shop_id));
                Ok(Data::Exactly(self.order_row(id, order.ok_or(refusal(code::NO_SUCH_ORDER))?)))
            }
            "/order/list" => {
                let shop_id = self.shop_of_order(call, employee_id)?;
                let member_id = int_or(call.body, "member_id", 0);
                let listed = self.orders.iter().rev().filter(|(_, order)| {
                    (shop_id == 0 || order.shop_id == shop_id)
                        && (member_id == 0 || order.member_id == member_id)
                });
                let rows = listed.map(|(id, order)| self.order_row(*id, order)).collect();
                Ok(Data::Exactly(Value::Array(page_of(call.body, rows))))
            }
            "/user/checkcoupons" => self.check_coupons(call, employee_id),
            "/order/elecouponlist" => self.auditelecouponlist(call, employee_id, true),
            "/order/getorderelecoupon" => Ok(Data::Exactly(self.granted_by_amount(call.body))),
            _ if route.starts_with("/member") || route == "/birthdaycoupon/get" => {
                self.read_grants(call, route)
            }
            _ => self.read_job(call, route),
        }
    }

    /// "What an order of this amount is granted: the highest rule at or below it, null where there is none"; of two with the
    /// same amount the newer.
    fn granted_by_amount(&self, body: &Value) -> Value {
        let amount = money(text(body, "amount"));
        let reached = self.rules.iter().filter(|(_, rule)| rule.amount <= amount);
        let Some((rule_id, rule)) = reached.max_by_key(|(id, rule)| (rule.amount, **id)) else {
            return Value::Null;
        };
        let mut rows: Vec<Value> =
            rule.nums.iter().map(|(id, num)| self.granted_row(*rule_id, rule, (*id, *num))).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(int(row, "id")));
        json!({ "id": rule_id, "amount": rule.amount / 100, "coupon_list": page_if_asked(body, rows) })
    }

    fn granted_row(&self, rule_id: i64, rule: &Grants, (definition_id, num): (i64, i64)) -> Value {
        let definition = self.definitions.get(&definition_id);
        json!({
            "id": rule.rows.get(&definition_id),
            "ora_id": rule_id,
            "coupon_id": definition_id,
            "user_id": self.operator_user_id,
            "create_date": unix_seconds(rule.granted_ms),
            "num": num,
            "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            "type": definition.map_or(0, |definition| definition.kind),
            "deduction": definition.map_or("0.00", ModelDefinition::deduction_or_zero),
        })
    }

    fn order_row(&self, id: i64, order: &Order) -> Value {
        let detail = |(number, line): (i64, &Line)| {
            json!({
                "id": number,
                "order_id": id,
                "goods_id": line.goods_id,
                "price": cents(line.price),
                "count": line.count,
                "state": line.state,
            })
        };
        let (score, balance, remark, order_no) = &order.told;
        let deduction: i64 = order.used.iter().map(|used| used.worth).sum();
        let used: Vec<i64> = order.used.iter().map(|used| used.coupon_id).collect();
        json!({
            "id": id,
            "user_id": order.by,
            "create_time": self.local_time(order.placed_ms),
            "cancel_time": order.cancelled_ms.map_or(json!(0), |at_ms| json!(self.local_time(at_ms))),
            "shop_id": order.shop_id,
            "count": order.lines.iter().map(|line| line.count).sum::<i64>(),
            "price": cents(order.amount),
            "state": i64::from(order.cancelled_ms.is_none()),
            "member_id": order.member_id,
            "evaluation": "",
            "score": 0,
            "evaluation_time": 0,
            "order_detail": (1..).zip(&order.lines).map(detail).collect::<Vec<_>>(),
            "deduction": cents(deduction),
            "pay": cents(order.amount - deduction),
            "use_score": score,
            "balance": cents(*balance),
            "remark": remark,
            "order_no": order_no,
            "ora_id": order.rule_id,
            "use_coupon_list": joined(&used),
            "coupon_list": joined(&order.issued),
        })
    }

    /// "what each would be worth and why not": as an order of this amount would have it, each coupon by itself but for 5005.
    fn check_coupons(&self, call: &Call, employee_id: Option<i64>) -> Answer {
        let shop_id = self.shop_of_order(call, employee_id)?;
        let member_id = int(call.body, "member_id");
        ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
        let amount = money(text(call.body, "amount"));
        let coupons = ids_as_given(call.body, "coupons");
        let mut codes: Vec<i64> = Vec::new();
        for id in &coupons {
            let usable = self.could_be_used(call.now_ms, member_id, shop_id, *id);
            let counts = self.coupons.get(id).is_none_or(|coupon| counts_from(coupon, amount));
            let outcome = usable.and(ensure(counts, code::AMOUNT_TOO_LOW));
            codes.push(outcome.err().map_or(0, |why| why.code));
        }
        if codes.iter().filter(|code| **code == 0).count() > 1 {
            for (id, code) in coupons.iter().zip(&mut codes).filter(|(_, code)| **code == 0) {
                if self.coupons.get(id).is_some_and(|coupon| coupon.definition.use_limit == 0) {
                    *code = code::NOT_COMBINABLE;
                }
            }
        }
        let counting = coupons.iter().zip(&codes).filter(|(_, code)| **code == 0);
        let counting: Vec<&Coupon> = counting.filter_map(|(id, _)| self.coupons.get(id)).collect();
        let worths: BTreeMap<i64, i64> =
            counting.iter().map(|coupon| coupon.id).zip(taken_off(&counting, amount)).collect();
        let row = |(id, code): (&i64, &i64)| {
            // Of a coupon that is not his nothing is said.
            let his = self.coupons.get(id).filter(|coupon| coupon.holder == member_id);
            json!({
                "id": id,
                "coupon_title": his.map_or("", |coupon| coupon.definition.title.as_str()),
                "type": his.map_or(0, |coupon| coupon.definition.kind),
                "deduction": cents(his.map_or(0, |coupon| money(&coupon.definition.deduction))),
                "worth": cents(worths.get(id).copied().unwrap_or_default()),
                "code": code,
            })
        };
        let deduction: i64 = worths.values().sum();
        Ok(Data::Exactly(json!({
            "amount": cents(amount),
            "deduction": cents(deduction),
            "pay": cents(amount - deduction),
            "coupons": coupons.iter().zip(&codes).map(row).collect::<Vec<_>>(),
        })))
    }
}

/// "`money` is the order amount from which a cash coupon counts".
fn counts_from(coupon: &Coupon, amount: i64) -> bool {
    coupon.definition.kind != 1 || coupon.definition.money <= amount
}

fn taken_off(coupons: &[&Coupon], amount: i64) -> Vec<i64> {
    let mut left = amount.max(0);
    let mut taken_off = Vec::new();
    for coupon in coupons {
        let worth = money(&coupon.definition.deduction).min(left);
        left -= worth;
        taken_off.push(worth);
    }
    taken_off
}

/// "amount = sum of price*count of sold minus that of returned lines".
fn amount_of(lines: &[Line]) -> i64 {
    lines.iter().map(|line| line.price * line.count * line.state).sum()
}

fn line(row: &Value) -> Line {
    Line {
        goods_id: int(row, "goods_id"),
        price: money(text(row, "price")),
        state: row.get("state").and_then(number).unwrap_or_default(),
        count: int(row, "count"),
        earned: rows(row, "coupon_list").map(pair).collect(),
    }
}

fn pair(row: &Value) -> (i64, i64) {
    (int(row, "coupon_id"), int(row, "num"))
}

/// In the order in which they were given: "The first refusal in the order of the list is the answer".
fn ids_as_given(body: &Value, key: &str) -> Vec<i64> {
    let known = ids(body, key);
    let given = text(body, key).split(',').filter_map(|id| id.parse().ok());
    given.filter(|id| known.contains(id)).collect()
}

fn take(left: &mut BTreeMap<i64, i64>, definition_id: i64, num: i64) -> Check {
    let left = left.entry(definition_id).or_default();
    ensure(num <= *left, code::WRONG_FIELDS)?;
    *left -= num;
    Ok(())
}
