//! Partners: what is set aside for them, what members take, and the lists by which both sides settle.

use chrono::Days;
use rand::Rng as _;
use rand::seq::IteratorRandom as _;
use serde_json::{Value, json};

use super::{MEMBERS, PARTNERS, Simulation, caller};
use crate::model::Who;

/// Taking all that a partner has, under a key: again it is the same for what was taken, and asked afresh for the rest.
#[derive(Clone)]
pub(super) struct Taken {
    key: String,
    member_id: i64,
    partner_id: i64,
}

impl Simulation {
    /// One step of an operator who sets coupons aside, or of somebody who takes them and looks at them.
    pub(super) async fn partner(&mut self) {
        let partner_id = self.some_partner();
        match self.rng.random_range(0..100) {
            0..14 => self.allot(partner_id).await,
            14..20 => {
                let (id, end, key) = (self.allotment(), self.some_end(), self.key());
                let body = json!({"id": id, "end_time": end});
                self.perform(Who::Operator, "/business/editattract", body, key).await;
            }
            20..30 => {
                let (num, is_more) = (self.rng.random_range(1..=4), self.chance(50));
                let body = json!({"bc_id": self.allotment(), "num": num, "type": i64::from(is_more)});
                let key = self.key();
                self.perform(Who::Operator, "/business/inventory", body, key).await;
            }
            30..33 => {
                // Mostly open: a closed one is soon open again.
                let open = self.chance(70);
                let id = PARTNERS.choose(&mut self.rng).unwrap();
                let mut body = partner(id);
                body["state"] = i64::from(open).into();
                self.operate("/business/edit", body, 0).await;
                self.model.set_shop_open(id, open);
            }
            33..54 => self.take(partner_id).await,
            54..70 => self.take_again().await,
            70..83 => self.sell_and_regret().await,
            83..92 => self.look_as_member(partner_id).await,
            _ => self.look_at_partner(partner_id).await,
        }
    }

    pub(super) async fn allot(&mut self, partner_id: i64) {
        let on_offer = self.model.on_offer(self.now_ms());
        let late = on_offer.iter().rev().take(12).choose(&mut self.rng).copied();
        let definition = late.filter(|_| self.rng.random_ratio(5, 6)).unwrap_or_else(|| self.definition());
        let body = json!({
            "business_id": partner_id, "coupon_id": definition, "num": self.rng.random_range(1..=8),
            "end_time": self.some_end(),
        });
        let key = self.key();
        self.perform(Who::Operator, "/business/addattract", body, key).await;
    }

    fn some_partner(&mut self) -> i64 {
        if self.chance(4) { 99 } else { PARTNERS.choose(&mut self.rng).unwrap() }
    }

    /// A last day, mostly one that is to come.
    fn some_end(&mut self) -> String {
        (self.today() - Days::new(1) + Days::new(self.rng.random_range(0..40))).to_string()
    }

    fn allotment(&mut self) -> i64 {
        let all = self.model.allotments();
        let recent = all.iter().rev().take(8).choose(&mut self.rng);
        recent.filter(|_| self.rng.random_ratio(14, 15)).map_or(99_999, |(id, _)| *id)
    }

    async fn take(&mut self, partner_id: i64) {
        let member_id = if self.chance(4) { 999 } else { self.member() };
        let key = self.chance(75).then(|| format!("take-{:05}", self.keys));
        self.keys += 1;
        if let Some(key) = &key {
            self.taken.push(Taken { key: key.clone(), member_id, partner_id });
        }
        self.perform(Who::Member(member_id), "/wechat/receive", json!({"business_id": partner_id}), key)
            .await;
    }

    async fn take_again(&mut self) {
        let wants_taken = self.chance(75);
        let late = self.taken.iter().rev().filter(|it| !wants_taken || self.model.has_taken_under(&it.key));
        let Some(Taken { key, member_id, partner_id }) = late.take(4).choose(&mut self.rng).cloned() else {
            return;
        };
        if self.chance(65) {
            self.allot(partner_id).await;
        }
        let (before, had_taken) = (self.head().await, self.model.has_taken_under(&key));
        let (who, route) = (Who::Member(member_id), "/wechat/receive");
        if had_taken && self.chance(25) {
            let other = json!({"business_id": 88_888});
            let reply = self.world.keyed(caller(who), &key, route, other).await;
            assert_eq!((reply.code(), reply.data()), (6001, &Value::Null), "{key} for another partner");
            return;
        }
        let body = json!({"business_id": partner_id});
        let reply = self.world.keyed(caller(who), &key, route, body.clone()).await;
        self.model.key = Some(key.clone());
        self.compare(who, route, &body, &reply);
        let wrote = self.head().await > before;
        assert_eq!(reply.replayed(), had_taken && !wrote, "{key} again");
        if had_taken {
            self.happens(if wrote { "taken later under the same key" } else { "taken once under a key" });
        }
    }

    /// An order uses what was taken from a partner, and is looked at and cancelled soon after.
    async fn sell_and_regret(&mut self) {
        let now_ms = self.now_ms();
        let taken = self.coupons.iter().rev().filter(|id| self.model.is_partners(**id)).take(40);
        let usable = taken.filter_map(|id| {
            let member_id = self.model.holder(*id)?;
            let is_usable = |shop_id: &i64| self.model.usable_at(now_ms, member_id, *shop_id).contains(id);
            Some((*id, member_id, (1..=5).find(is_usable)?))
        });
        let Some((coupon_id, member_id, shop_id)) = usable.choose(&mut self.rng) else { return };
        let goods = json!([{"goods_id": 7, "price": "300.00", "state": 1, "count": 1, "coupon_list": []}]);
        let body = json!({
            "member_id": member_id, "goods": goods, "use_coupon_list": coupon_id.to_string(), "shop_id": shop_id,
        });
        let orders = self.orders.len();
        self.perform(Who::Operator, "/order/add", body, None).await;
        let Some(id) = self.orders.get(orders).copied() else { return };
        let mut body = json!({"id": id});
        for return_partner in [0, 1] {
            body["return_partner"] = return_partner.into();
            self.perform(Who::Operator, "/order/cancelago", body.clone(), None).await;
        }
        if self.chance(90) {
            self.pass_time();
            body["return_partner"] = i64::from(self.chance(50)).into();
            let key = self.key();
            self.perform(Who::Operator, "/order/cancel", body, key).await;
        }
    }

    /// One that was taken and can still be used, or none.
    pub(super) fn taken_coupon(&mut self) -> Option<i64> {
        let now_ms = self.now_ms();
        let is_usable = |id: &&i64| self.model.is_partners(**id) && self.model.is_fresh(now_ms, **id);
        self.coupons.iter().rev().filter(is_usable).take(6).choose(&mut self.rng).copied()
    }

    /// What was taken is a coupon like any other from now on.
    pub(super) fn note_taken(&mut self, rows: &Value) {
        let rows = rows.as_array().unwrap();
        for code in rows.iter().map(|row| row["code"].as_i64().unwrap()) {
            *self.answers.entry(code).or_default() += 1;
        }
        for id in rows.iter().map(|row| row["id"].as_i64().unwrap()).filter(|id| *id != 0) {
            if !self.coupons.contains(&id) {
                self.coupons.push(id);
                self.happens("taken from a partner");
            }
            self.touched.insert(id);
        }
        if rows.iter().filter(|row| row["code"] == 0).count() > 1 {
            self.happens("several taken at once");
        }
    }

    async fn look_as_member(&mut self, partner_id: i64) {
        let who = Who::Member(self.member());
        let mut body = json!({"business_id": partner_id});
        let route = match self.rng.random_range(0..4) {
            0 => "/wechat/businesscoupon",
            1 => {
                let day = self.today() - Days::new(self.rng.random_range(0..2));
                body["date"] = day.to_string().into();
                "/wechat/auditlist"
            }
            _ => "/wechat/getattract",
        };
        if self.chance(50) {
            (body["page"], body["limit"]) = (self.rng.random_range(1..=2).into(), 3.into());
        }
        self.perform(who, route, body, None).await;
    }

    async fn look_at_partner(&mut self, partner_id: i64) {
        let (who, route, mut body) = match self.rng.random_range(0..8) {
            0 => (Who::Operator, "/business/list", json!({})),
            1 => (Who::Operator, "/business/get", json!({"id": partner_id})),
            2 => (Who::Operator, "/business/couponlist", json!({"limit": 20})),
            3 => (Who::Partner(partner_id), "/businesshome/get", json!({})),
            4 => (Who::Partner(partner_id), "/businesshome/auditqrcode", json!({})),
            5 => (Who::Partner(partner_id), "/businesshome/attractcoupon", json!({})),
            6 => (Who::Operator, "/statistics/getattract", json!({"business_id": partner_id})),
            _ => (Who::Partner(partner_id), "/businesshome/auditcoupon", json!({})),
        };
        if route.ends_with("attract") || route.ends_with("coupon") {
            let start = self.today() - Days::new(self.rng.random_range(0..6));
            let name = if self.chance(50) { "start" } else { "strar" };
            if self.chance(60) {
                body[name] = start.to_string().into();
            }
            if self.chance(40) {
                body["end"] = (start + Days::new(self.rng.random_range(0..4))).to_string().into();
            }
            (body["page"], body["limit"]) = (self.rng.random_range(1..=2).into(), 4.into());
        }
        self.perform(who, route, body, None).await;
    }

    /// What is left of every allotment, its log, and the lines by which the merchant and the partner settle: the same.
    pub(super) async fn compare_partners(&mut self, whole: bool) {
        for partner_id in PARTNERS {
            self.perform(Who::Operator, "/business/getattract", json!({"id": partner_id}), None).await;
            let pages = if whole { 1 + self.redemptions.len() / 100 } else { 1 };
            for page in 1..=pages {
                let body = json!({"page": page, "limit": 100});
                let theirs = self.world.call(
                    caller(Who::Partner(partner_id)),
                    "/businesshome/auditcoupon",
                    body.clone(),
                );
                let theirs = theirs.await;
                let mut merchants = body.clone();
                merchants["business_id"] = partner_id.into();
                let ours = self.world.operator("/statistics/getattract", merchants.clone()).await;
                assert_eq!(
                    ours.ok(),
                    theirs.ok(),
                    "partner {partner_id} and the merchant settle differently"
                );
                self.compare(Who::Partner(partner_id), "/businesshome/auditcoupon", &body, &theirs);
                if !ours.ok().as_array().unwrap().is_empty() {
                    self.happens("settled");
                }
                self.perform(Who::Partner(partner_id), "/businesshome/attractcoupon", body, None).await;
            }
        }
        for (id, _) in self.model.allotments().into_iter().rev().take(if whole { 100 } else { 3 }) {
            let body = json!({"bc_id": id, "limit": 100});
            self.perform(Who::Operator, "/business/invenlist", body, None).await;
        }
        for member_id in MEMBERS.filter(|id| whole || id % 4 == 0) {
            let body = json!({"business_id": PARTNERS.start(), "limit": 100});
            self.perform(Who::Member(member_id), "/wechat/getattract", body, None).await;
        }
    }
}

/// The fields of `/business/add` and `/business/edit`, where only the second has an id.
pub(super) fn partner(id: i64) -> Value {
    json!({"id": id, "shop_name": format!("商家{id}"), "phone": "020-66666666", "address": format!("人民路{id}號")})
}
