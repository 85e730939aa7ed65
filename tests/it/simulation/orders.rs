//! Orders, and the rules and groups by which they earn coupons.

use coupon_ledger::coupon::{Coupon, CouponEvent, Past};
use coupon_ledger::entity::decode;
use coupon_ledger::grant::{Grant, GrantEvent};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{EMPLOYEES, Simulation, caller};
use crate::model::{Chosen, Grants, Who};

const GOODS: std::ops::RangeInclusive<i64> = 7..=10;

/// An order that has a number of its own, and what it answered.
#[derive(Clone)]
pub(super) struct Numbered {
    body: Value,
    answered: Value,
}

impl Simulation {
    /// One step at the till.
    pub(super) async fn trade(&mut self) {
        match self.rng.random_range(0..100) {
            0..56 => self.place().await,
            56..78 => {
                let route = if self.chance(75) { "/order/cancel" } else { "/order/cancelago" };
                let (mut who, key) = (self.cashier().0, self.key());
                let with_partners = self.model.orders_with_partners();
                let of_partner = with_partners.choose(&mut self.rng).filter(|_| self.rng.random_ratio(2, 3));
                if of_partner.is_some() && self.rng.random_ratio(1, 2) {
                    who = Who::Operator;
                }
                let id = of_partner.copied().unwrap_or_else(|| self.order());
                let mut body = json!({"id": id});
                if self.chance(if who == Who::Operator { 60 } else { 5 }) {
                    body["return_partner"] = 1.into();
                }
                self.perform(who, route, body.clone(), key).await;
                if route == "/order/cancel" && self.chance(35) {
                    self.perform(who, route, body, None).await;
                }
            }
            78..83 => self.place_again().await,
            83..87 => {
                let (who, shop_id) = self.cashier();
                let member_id = self.member();
                let mut coupons = self.some_coupons(member_id, shop_id);
                coupons.push(self.coupon());
                coupons.sort_unstable();
                coupons.dedup();
                let amount = format!("{}.50", self.rng.random_range(0..150));
                let body = json!({"member_id": member_id, "coupons": joined(&coupons), "amount": amount, "shop_id": shop_id});
                self.perform(who, "/user/checkcoupons", body, None).await;
            }
            87..95 => self.see_for_order().await,
            95..97 => {
                let (who, id) = (self.cashier().0, self.order());
                self.perform(who, "/order/get", json!({"id": id}), None).await;
            }
            _ => {
                let who = self.cashier().0;
                let mut body = json!({"page": self.rng.random_range(1..=2), "limit": 4});
                if self.chance(60) {
                    body["member_id"] = self.member().into();
                }
                self.perform(who, "/order/list", body, None).await;
            }
        }
    }

    /// Who takes an order, and where.
    fn cashier(&mut self) -> (Who, i64) {
        let shop_id = if self.chance(8) { 4 } else { self.rng.random_range(1..=3) };
        if self.chance(25) {
            (Who::Operator, if self.chance(8) { 6 } else { shop_id })
        } else {
            (Who::Employee(EMPLOYEES.start() - 1 + shop_id), shop_id)
        }
    }

    fn order(&mut self) -> i64 {
        let late = if self.chance(50) { 2 } else { 8 };
        let recent = self.orders.len().saturating_sub(late);
        let order = self.orders[recent..].choose(&mut self.rng).copied();
        order.filter(|_| self.rng.random_ratio(14, 15)).unwrap_or(99_999)
    }

    /// None, one or several; mostly such as could be used.
    fn some_coupons(&mut self, member_id: i64, shop_id: i64) -> Vec<i64> {
        let usable = self.model.usable_at(self.now_ms(), member_id, shop_id);
        let count = self.rng.random_range(0..=4);
        let mut coupons: Vec<i64> = usable.iter().copied().take(8).choose_multiple(&mut self.rng, count);
        if self.chance(15) {
            coupons.push(self.coupon());
        }
        if self.chance(70) {
            coupons.extend(usable.into_iter().find(|id| self.model.is_partners(*id)));
        }
        let mut once = std::collections::BTreeSet::new();
        coupons.retain(|id| once.insert(*id));
        coupons
    }

    async fn place(&mut self) {
        let (mut who, mut shop_id) = self.cashier();
        // Mostly one who has something to use.
        let taken = self.taken_coupon().filter(|_| self.rng.random_ratio(2, 5));
        let coupon = taken.unwrap_or_else(|| self.coupon());
        let member_id = match self.rng.random_range(0..100) {
            0..3 => 999,
            3..70 => self.model.holder(coupon).unwrap_or_else(|| self.member()),
            _ => self.member(),
        };
        if let Some(taken) = taken {
            let usable = |shop_id| self.model.usable_at(self.now_ms(), member_id, shop_id).contains(&taken);
            shop_id = (1..=4).find(|shop_id| usable(*shop_id)).unwrap_or(shop_id);
            who =
                if self.chance(40) { Who::Operator } else { Who::Employee(EMPLOYEES.start() - 1 + shop_id) };
        }
        let goods: Vec<Value> = (0..self.rng.random_range(1..=3)).map(|_| self.some_goods()).collect();
        let coupons = self.some_coupons(member_id, shop_id);
        let mut body = json!({
            "member_id": member_id, "goods": goods, "ora_id": 0, "order_coupon_list": [],
            "use_coupon_list": if coupons.is_empty() { "0".to_owned() } else { joined(&coupons) },
            "score": self.rng.random_range(0..50), "balance": "2.50", "remark": "少冰",
        });
        if who == Who::Operator || self.chance(10) {
            body["shop_id"] = shop_id.into();
        }
        if self.chance(40) {
            let rules = self.model.rules().iter().map(|(id, rule)| (*id, rule.clone()));
            let (id, rule) = rules.choose(&mut self.rng).unwrap_or((99_999, Grants::default()));
            body["ora_id"] = if self.chance(12) { 88_888 } else { id }.into();
            body["order_coupon_list"] = self.some_of_granted(&rule, 1);
        }
        if self.chance(40) {
            body["order_no"] = format!("T-{}", self.keys).into();
        }
        let key = self.key();
        self.place_this(who, body, key).await;
    }

    fn some_goods(&mut self) -> Value {
        let goods_id = GOODS.choose(&mut self.rng).unwrap();
        let (state, count) = match self.rng.random_range(0..10) {
            0 => (0, 1),
            1 => (-1, 1),
            _ => (1, self.rng.random_range(1..=3)),
        };
        let price = format!("{}.{:02}", self.rng.random_range(5..50), self.rng.random_range(0..100));
        let mut earned = json!([]);
        if self.chance(25) {
            let group = self.model.groups().values().find(|group| group.goods.contains(&goods_id)).cloned();
            earned = self.some_of_granted(&group.unwrap_or_default(), count);
        }
        json!({"goods_id": goods_id, "price": price, "state": state, "count": count, "coupon_list": earned})
    }

    /// A definition that is granted, and how many times; sometimes one too many.
    fn some_of_granted(&mut self, grants: &Grants, times: i64) -> Value {
        let Some((definition, num)) = grants.nums.iter().choose(&mut self.rng) else {
            return json!([]);
        };
        let most = num * times + i64::from(self.chance(8));
        json!([{"coupon_id": definition, "num": self.rng.random_range(1..=most.max(1))}])
    }

    async fn place_this(&mut self, who: Who, body: Value, key: Option<String>) {
        let orders = self.orders.len();
        self.perform(who, "/order/add", body.clone(), key).await;
        if self.orders.len() > orders && body["order_no"].is_string() {
            let answered = json!({"id": self.orders.last()});
            self.numbered.push(Numbered { body, answered });
        }
    }

    /// What a member could use in an order, and what it would earn.
    async fn see_for_order(&mut self) {
        let who = self.cashier().0;
        if self.chance(60) {
            let amount = format!("{}.{:02}", self.rng.random_range(0..150), self.rng.random_range(0..100));
            let mut body = json!({"amount": amount});
            if self.chance(20) {
                (body["page"], body["limit"]) = (self.rng.random_range(1..=2).into(), 1.into());
            }
            return self.perform(who, "/order/getorderelecoupon", body, None).await;
        }
        let member_id = if self.chance(8) { 999 } else { self.member() };
        let mut body = json!({"member_id": member_id, "limit": 50});
        if self.chance(30) {
            body = json!({"member_id": member_id, "before_id": self.coupon(), "limit": 3});
        }
        self.perform(who, "/order/elecouponlist", body, None).await;
    }

    /// Counts what a cancel did with partners' coupons.
    pub(super) fn note_cancelled(&mut self, body: &Value, fates: &Value) {
        let kept = fates["kept"].as_array().unwrap();
        if kept.iter().any(|kept| kept["code"] == 1002) {
            self.happens("a partner's coupon kept by a cancel");
        }
        let mut returned = fates["returned"].as_array().unwrap().iter().filter_map(Value::as_i64);
        if body["return_partner"] == 1 && returned.any(|id| self.model.is_partners(id)) {
            self.happens("a partner's coupon returned by a cancel");
        }
    }

    /// Compares so many pages of orders, as operators and as one employee see them.
    pub(super) async fn compare_orders(&mut self, pages: usize) {
        for page in (1..=self.orders.len().div_ceil(10)).take(pages) {
            for who in [Who::Operator, Who::Employee(*EMPLOYEES.start())] {
                self.perform(who, "/order/list", json!({"page": page}), None).await;
            }
        }
    }

    /// What a call has written whose answer does not tell it: the model takes the ids from it.
    pub(super) async fn chosen_since(&mut self, position: i64) -> Chosen {
        let mut chosen = Chosen::default();
        for stored in self.world.store().events_after(position, 10_000).await.unwrap() {
            if stored.aggregate_type == "grant"
                && let GrantEvent::Added { definition_id, .. } = decode::<Grant>(&stored).unwrap()
            {
                chosen.grants.insert(definition_id, stored.aggregate_id.parse().unwrap());
            }
            if stored.aggregate_type != "coupon" {
                continue;
            }
            let id = stored.aggregate_id.parse().unwrap();
            match decode::<Coupon>(&stored).unwrap() {
                CouponEvent::Issued(_) => chosen.coupons.push(id),
                CouponEvent::Imported { past, .. } => {
                    chosen.coupons.push(id);
                    if let Past::Used { redemption_id, .. } = past {
                        chosen.redemptions.insert(id, redemption_id);
                    }
                }
                CouponEvent::Redeemed { redemption_id, .. } => {
                    chosen.redemptions.insert(id, redemption_id);
                }
                _ => {}
            }
        }
        self.touched.extend(chosen.redemptions.keys());
        self.touched.extend(&chosen.coupons);
        self.coupons.extend(&chosen.coupons);
        self.redemptions.extend(chosen.redemptions.iter().map(|(coupon, redemption)| (*redemption, *coupon)));
        chosen
    }

    /// The same number again: the same order, whoever asks; another body under it is refused.
    async fn place_again(&mut self) {
        let recent = self.numbered.len().saturating_sub(20)..self.numbered.len();
        let Some(number) = recent.choose(&mut self.rng) else { return };
        let Numbered { mut body, answered } = self.numbered[number].clone();
        let other = self.chance(30);
        if other {
            body["remark"] = "去冰".into();
        }
        let before = self.head().await;
        // An employee's shop is his own, so that the order of another shop is for an operator to repeat.
        let who = Who::Operator;
        let reply = self.world.call(caller(who), "/order/add", body.clone()).await;
        self.history.note(format!("{who:?} /order/add again {body} → {}", reply.body));
        if other {
            assert_eq!((reply.code(), reply.data()), (6001, &Value::Null), "{body}");
        } else {
            assert_eq!((reply.data(), reply.replayed()), (&answered, true), "{body}");
        }
        assert_eq!(self.head().await, before, "a repeated order wrote something");
    }

    /// Rules come and go, and so do groups and what belongs to them.
    pub(super) async fn regulate(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.add_rule().await,
            4 => {
                let Some(id) = self.model.rules().keys().next().copied() else { return };
                self.operate("/orderamount/del", json!({"id": id}), 0).await;
                self.model.delete_rule(id);
            }
            5..8 => {
                let data = self.operate("/goodsgroup/add", json!({"title": "飲品"}), 0).await;
                let (id, goods, nums) = (id_of(&data), self.some_of(GOODS, 2), self.some_grants());
                self.operate("/goodsgroup/setgoods", json!({"id": id, "goods_ids": joined(&goods)}), 0).await;
                let grants: Vec<Value> = nums.iter().map(|(id, num)| json!({"id": id, "num": num})).collect();
                self.operate("/goodselecoupon/add", json!({"goodsgroup_id": id, "coupon_ids": grants}), 0)
                    .await;
                self.model.set_group(id, Grants { goods, nums, ..Grants::default() });
            }
            8 => {
                let groups = self.model.groups().iter().map(|(id, group)| (*id, group.clone()));
                let Some((id, group)) = groups.choose(&mut self.rng) else { return };
                let goods = self.some_of(GOODS, 2);
                self.operate("/goodsgroup/setgoods", json!({"id": id, "goods_ids": joined(&goods)}), 0).await;
                self.model.set_group(id, Grants { goods, ..group });
            }
            _ => {
                let Some(id) = self.model.groups().keys().next().copied() else { return };
                self.operate("/goodsgroup/del", json!({"id": id}), 0).await;
                self.model.delete_group(id);
            }
        }
    }

    pub(super) async fn add_rule(&mut self) {
        let nums = self.some_grants();
        let amount = self.rng.random_range(1..=120);
        let grants: Vec<Value> = nums.iter().map(|(id, num)| json!({"coupon_id": id, "num": num})).collect();
        let data = self.operate("/orderamount/add", json!({"amount": amount, "json": grants}), 0).await;
        let id = id_of(&data);
        let shown = self.operate("/orderamount/info", json!({"id": id}), 0).await;
        let row = |row: &Value| (row["coupon_id"].as_i64().unwrap(), row["id"].as_i64().unwrap());
        let rows = shown["couList"].as_array().unwrap().iter().map(row).collect();
        let (amount, granted_ms) = (amount * 100, self.now_ms());
        self.model.set_rule(id, Grants { amount, nums, rows, granted_ms, ..Grants::default() });
    }

    fn some_grants(&mut self) -> std::collections::BTreeMap<i64, i64> {
        let recent = self.definitions.len().saturating_sub(12);
        let some: Vec<i64> = self.definitions[recent..].choose_multiple(&mut self.rng, 2).copied().collect();
        some.into_iter().map(|id| (id, self.rng.random_range(1..=2))).collect()
    }
}

/// "read both": a string where the manual shows one, else a number.
fn id_of(data: &Value) -> i64 {
    data["id"].as_i64().unwrap_or_else(|| data["id"].as_str().unwrap().parse().unwrap())
}

fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
