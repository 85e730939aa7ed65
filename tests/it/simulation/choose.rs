//! Which call comes next: one that leads somewhere more often than not.

use chrono::Days;
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{EMPLOYEES, MEMBERS, Simulation};
use crate::model::Who;

impl Simulation {
    /// A call that leads somewhere more often than not.
    pub(super) fn choose(&mut self) -> (Who, &'static str, Value) {
        let id = self.coupon();
        let member = self.member_of(id);
        let employee = self.employee();
        match self.rng.random_range(0..100) {
            0..11 => {
                let coupon_id = self.definition();
                let member_id = if self.chance(8) { 999 } else { self.member() };
                let who = if self.chance(70) { Who::Operator } else { employee };
                (who, "/sendelecoupon/one", json!({"coupon_id": coupon_id, "member_id": member_id}))
            }
            11..22 => {
                let definition = self.definition();
                (Who::Member(self.member()), "/client/claimcoupon", json!({"id": definition}))
            }
            22..36 => {
                let shop_id = self.shop();
                let mut body = json!({"mem_coupon_id": id, "shop_id": shop_id});
                if self.chance(50) {
                    let shops_own = self.urls.iter().rev().find(|url| url.0 == shop_id).cloned();
                    let url =
                        if self.chance(70) { shops_own } else { self.urls.choose(&mut self.rng).cloned() };
                    body["audit_url"] =
                        url.map_or_else(|| "http://other/qr/1/1/AAAA".to_owned(), |url| url.1).into();
                }
                (member, "/client/auditcoupon", body)
            }
            36..45 => (employee, "/user/auditelecoupon", json!({"mem_coupon_id": id})),
            45..48 => {
                let who = if self.chance(50) { Who::Operator } else { employee };
                (who, "/user/reverseelecoupon", json!({"id": self.redemption(), "reason": "按錯"}))
            }
            48 => (Who::Operator, "/user/voidelecoupon", json!({"mem_coupon_id": id, "reason": "發錯"})),
            49..56 => {
                let recent = self.redemptions.len().saturating_sub(5);
                let used = self.redemptions[recent..].choose(&mut self.rng).map(|used| used.1);
                let id = used.filter(|_| self.rng.random_ratio(2, 3)).unwrap_or(id);
                let member = self.member_of(id);
                let text = format!("評價 {id} 非常給力");
                let score = self.rng.random_range(1..=5);
                (member, "/client/evaluacoupon", json!({"id": id, "evaluation": text, "score": score}))
            }
            56..68 => (member, "/client/givecoupon", json!({"id": id})),
            68..71 => (member, "/client/withdrawcoupon", json!({"id": id})),
            71..86 => self.choose_gift(id),
            86..92 => (member, "/client/couponinfo", json!({"id": id})),
            92..95 => (member, "/client/auditcouponinfo", json!({"id": self.redemption()})),
            95..98 => {
                let body = match self.rng.random_range(0..3) {
                    0 => json!({}),
                    1 => json!({"shop_id": self.shop()}),
                    _ => json!({"page": self.rng.random_range(1..=2), "limit": 2}),
                };
                (member, "/client/getauditcoupon", body)
            }
            98 if self.chance(50) => (member, "/client/couponcount", json!({})),
            98 => self.choose_list(),
            _ => (Who::Employee(1001), "/client/couponlist", json!({"state": 0})),
        }
    }

    /// Somebody tries to receive one of the last gifts, or to look at it.
    fn choose_gift(&mut self, id: i64) -> (Who, &'static str, Value) {
        let recent = self.gifts.len().saturating_sub(3)..self.gifts.len();
        let (id, right) = match recent.choose(&mut self.rng) {
            Some(number) if self.rng.random_ratio(19, 20) => (self.gifts[number].0, self.gifts[number].1),
            _ => (id, 123_456),
        };
        let code = if self.chance(30) { right } else { right ^ 1 };
        let route = if self.chance(75) { "/client/getcoupon" } else { "/client/giftinfo" };
        // One of them guesses more than the others, and at times the giver tries it himself.
        let receiver = match self.rng.random_range(0..100) {
            0..20 => *MEMBERS.start(),
            20..27 => self.model.holder(id).unwrap_or_else(|| self.member()),
            _ => self.member(),
        };
        (Who::Member(receiver), route, json!({"id": id, "code": code}))
    }

    /// What is seen at the counter.
    fn choose_list(&mut self) -> (Who, &'static str, Value) {
        let who = if self.chance(40) { Who::Operator } else { self.employee() };
        if self.chance(50) {
            let member_id = if self.chance(20) { 999 } else { self.member() };
            let body = if self.chance(50) {
                json!({"member_id": member_id, "page": self.rng.random_range(1..=2), "limit": 3})
            } else {
                json!({"member_id": member_id, "before_id": self.coupon()})
            };
            return (who, "/user/auditelecouponlist", body);
        }
        let begin = self.today() - Days::new(self.rng.random_range(0..4));
        let end = begin + Days::new(self.rng.random_range(0..4));
        let mut body = json!({"page": self.rng.random_range(1..=3), "limit": self.rng.random_range(1..=20)});
        if self.chance(70) {
            body["begin"] = begin.to_string().into();
        }
        if self.chance(50) {
            body["end"] = if body["begin"].is_null() { self.today() } else { end }.to_string().into();
        }
        if self.chance(40) {
            body["shop_id"] = self.rng.random_range(0..=5).into();
        }
        (who, "/auditelecoupon/getlist", body)
    }

    /// A member shows a code at the counter; sometimes something else happens first, or it is shown again.
    pub(super) async fn scan(&mut self) {
        let id = self.coupon();
        let member = self.member_of(id);
        self.perform(member, "/client/auditcode", json!({"id": id}), None).await;
        for _ in 0..self.rng.random_range(1..=2) {
            match self.rng.random_range(0..10) {
                0..5 => {}
                5 => self.perform(member, "/client/couponinfo", json!({"id": id}), None).await,
                6 => self.perform(member, "/client/givecoupon", json!({"id": id}), None).await,
                7 => self.perform(member, "/client/withdrawcoupon", json!({"id": id}), None).await,
                8 => self.sweep().await,
                _ => self.world.advance(self.rng.random_range(59_998..=60_001)),
            }
            let shown = self.counter_codes.iter().take(2).choose(&mut self.rng).cloned();
            let code = shown
                .filter(|_| self.rng.random_ratio(19, 20))
                .unwrap_or_else(|| "cc1.1.2.3.AAAA".to_owned());
            let employee = self.employee();
            let key = self.key();
            if self.chance(75) {
                self.perform(employee, "/user/auditbycode", json!({"code": code}), key).await;
            } else {
                let body = json!({"mem_coupon_id": id, "counter_code": code});
                self.perform(employee, "/user/auditelecoupon", body, key).await;
            }
        }
    }

    /// Mostly one with which something can still be done.
    pub(super) fn coupon(&mut self) -> i64 {
        let now_ms = self.now_ms();
        let coupon = match self.rng.random_range(0..100) {
            0..2 => None,
            2..12 => self.coupons.choose(&mut self.rng),
            12..35 => self.coupons[self.coupons.len().saturating_sub(20)..].choose(&mut self.rng),
            _ => {
                let fresh = self.coupons.iter().rev().filter(|id| self.model.is_fresh(now_ms, **id)).take(25);
                fresh.choose(&mut self.rng)
            }
        };
        coupon.copied().unwrap_or(77_777)
    }

    /// Mostly of an own shop, at times of a partner's.
    pub(super) fn employee(&mut self) -> Who {
        let own = EMPLOYEES.start() + self.rng.random_range(0..=2);
        Who::Employee(if self.chance(10) { *EMPLOYEES.end() } else { own })
    }

    /// Mostly an own shop, at times a partner or none.
    fn shop(&mut self) -> i64 {
        match self.rng.random_range(0..100) {
            0..75 => self.rng.random_range(1..=3),
            75..93 => self.rng.random_range(4..=5),
            _ => 6,
        }
    }

    pub(super) fn member(&mut self) -> i64 {
        MEMBERS.choose(&mut self.rng).unwrap()
    }

    /// Mostly the member in whose hand it is, or one who had it.
    pub(super) fn member_of(&mut self, coupon_id: i64) -> Who {
        let holder = self.model.holder(coupon_id);
        let member = match self.rng.random_range(0..100) {
            0..70 => holder,
            70..85 => self.model.holders(coupon_id).choose(&mut self.rng).copied(),
            _ => None,
        };
        Who::Member(member.unwrap_or_else(|| self.member()))
    }

    pub(super) fn definition(&mut self) -> i64 {
        let recent = self.definitions.len().saturating_sub(12);
        if self.chance(5) { 5_555 } else { *self.definitions[recent..].choose(&mut self.rng).unwrap() }
    }

    pub(super) fn redemption(&mut self) -> i64 {
        let recent = self.redemptions.len().saturating_sub(5);
        let used = self.redemptions[recent..].choose(&mut self.rng);
        used.filter(|_| self.rng.random_ratio(19, 20)).map_or(66_666, |used| used.0)
    }
}
