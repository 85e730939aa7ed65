//! What levels and birthdays grant, and the server that looks who has earned it.

use chrono::{Datelike as _, Days, NaiveDate};
use coupon_ledger::coupon::{Coupon, CouponEvent};
use coupon_ledger::entity::decode;
use coupon_ledger::granting::{grant_birthdays, grant_levels};
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{EMPLOYEES, MEMBERS, Simulation};
use crate::harness::HOUR;
use crate::model::{Given, Who};

const LEVELS: std::ops::RangeInclusive<i64> = 1..=4;

impl Simulation {
    /// One step of an operator who decides what is granted, or of the server that gives it.
    pub(super) async fn grant(&mut self) {
        match self.rng.random_range(0..100) {
            0..22 => {
                let level_id = self.rng.random_range(LEVELS);
                let definitions = self.some_on_offer(2);
                let body = json!({"level_id": level_id, "coupon_id": joined(&definitions)});
                let key = self.key();
                self.perform(Who::Operator, "/memberelecoupon/add", body, key).await;
            }
            22..30 => {
                let row = json!([{"id": self.level_grant(), "num": self.rng.random_range(1..=3)}]);
                let key = self.key();
                self.perform(Who::Operator, "/memberelecoupon/edit", json!({"json": row}), key).await;
            }
            30..35 => {
                let (id, key) = (self.level_grant(), self.key());
                self.perform(Who::Operator, "/memberelecoupon/del", json!({"id": id}), key).await;
            }
            35..45 => {
                let definitions = self.some_on_offer(3);
                let row = |id: &i64| json!({"id": id, "num": self.rng.random_range(1..=2)});
                let rows: Vec<Value> = definitions.iter().map(row).collect();
                let key = self.key();
                self.perform(Who::Operator, "/birthdaycoupon/set", json!({"coupon_ids": rows}), key).await;
            }
            45..65 => self.read_grants().await,
            65..75 => self.edit_member().await,
            75..88 => self.give_for_levels().await,
            _ => self.give_for_birthdays().await,
        }
    }

    /// Mostly such as could be issued; in order, each once.
    fn some_on_offer(&mut self, most: usize) -> Vec<i64> {
        let count = self.rng.random_range(1..=most);
        let on_offer = self.model.on_offer(self.now_ms());
        let mut some = on_offer.into_iter().rev().take(12).choose_multiple(&mut self.rng, count);
        if self.chance(10) {
            some.push(self.definition());
        }
        some.sort_unstable();
        some.dedup();
        if some.is_empty() { vec![5_555] } else { some }
    }

    fn level_grant(&mut self) -> i64 {
        let known = self.model.level_grants();
        known.choose(&mut self.rng).filter(|_| self.rng.random_ratio(9, 10)).copied().unwrap_or(99_999)
    }

    async fn read_grants(&mut self) {
        let who = if self.chance(50) { Who::Operator } else { Who::Employee(*EMPLOYEES.start()) };
        let level_id = self.rng.random_range(LEVELS);
        let (route, body) = match self.rng.random_range(0..6) {
            0 => ("/memberelecoupon/list", json!({"level_id": level_id})),
            1 => ("/memberelecoupon/couponlist", json!({"level_id": level_id, "limit": 30})),
            2 => ("/birthdaycoupon/get", json!({})),
            _ => {
                let member_id = if self.chance(5) { 999 } else { self.member() };
                ("/memberlevel/checkinfo", json!({"id": level_id, "member_id": member_id}))
            }
        };
        self.perform(who, route, body, None).await;
    }

    /// A member comes to another level, shop or tag, or says another birthday, mostly one that is near.
    pub(super) async fn edit_member(&mut self) {
        let (member_id, shop_id) = (self.member(), self.rng.random_range(1..=3));
        let (level_id, tag_ids) = (self.rng.random_range(0..=4), self.some_of(1..=3, 1));
        let mut body = json!({"id": member_id, "shop_id": shop_id, "level_id": level_id, "tag_ids": tag_ids});
        if self.chance(30) {
            let near = self.today() + Days::new(self.rng.random_range(0..8));
            let birthday = Some(born(near)).filter(|_| self.rng.random_ratio(9, 10));
            body["birthday"] = birthday.map_or_else(String::new, |day| day.to_string()).into();
            self.model.set_birthday(member_id, birthday);
        }
        self.operate("/member/edit", body, 0).await;
        self.model.move_member(member_id, shop_id, level_id, tag_ids);
    }

    pub(super) async fn give_for_levels(&mut self) {
        let before = self.head().await;
        let count = grant_levels(&self.world.ledger).await.unwrap();
        let wrote = self.given_since(before).await;
        let expected = self.model.give_for_levels(self.now_ms(), &wrote);
        self.note_given("given for a level", wrote, expected, count);
    }

    pub(super) async fn give_for_birthdays(&mut self) {
        let before = self.head().await;
        let count = grant_birthdays(&self.world.ledger).await.unwrap().expect("nobody else gives");
        let wrote = self.given_since(before).await;
        let expected = self.model.give_for_birthdays(self.now_ms(), &wrote);
        self.note_given("given for a birthday", wrote, expected, count);
    }

    fn note_given(
        &mut self,
        what: &'static str,
        mut wrote: Vec<Given>,
        mut expected: Vec<Given>,
        count: usize,
    ) {
        self.history.note(format!("{} {what}: {wrote:?}", self.now_ms()));
        wrote.sort_unstable();
        expected.sort_unstable();
        assert_eq!(wrote, expected, "{what}");
        assert_eq!(count, wrote.len(), "{what}");
        for (_, _, coupon_id) in wrote {
            self.happens(what);
            self.coupons.push(coupon_id);
            self.touched.insert(coupon_id);
        }
    }

    async fn given_since(&mut self, position: i64) -> Vec<Given> {
        let mut given = Vec::new();
        for stored in self.world.store().events_after(position, 10_000).await.unwrap() {
            if stored.aggregate_type != "coupon" {
                continue;
            }
            if let CouponEvent::Issued(issue) = decode::<Coupon>(&stored).unwrap() {
                given.push((issue.member_id, issue.definition_id, stored.aggregate_id.parse().unwrap()));
            }
        }
        given
    }

    /// Goes through the end of the next February day by day, where one member was born on its 29th.
    pub(super) async fn pass_february(&mut self) {
        let mut definition = self.some_definition(2, 1);
        definition.num = 0;
        let id = self.define_this(definition).await;
        self.operate_grants(id).await;
        let year = self.today().year() + i32::from(self.today().ordinal() > 57);
        let member_id = MEMBERS.rev().find(|id| !self.model.had_birthday(*id, year)).unwrap();
        let birthday = NaiveDate::from_ymd_opt(1992, 2, 29);
        self.operate("/member/edit", json!({"id": member_id, "birthday": "1992-02-29"}), 0).await;
        self.model.set_birthday(member_id, birthday);
        for day in NaiveDate::from_ymd_opt(year, 2, 27).unwrap().iter_days().take(4) {
            self.world.clock.set(self.world.ledger.zone().day_ends_at_ms(day) - HOUR);
            self.give_for_birthdays().await;
            self.check_counters().await;
        }
        assert!(self.model.had_birthday(member_id, year), "{member_id} was born on 29 February");
    }

    async fn operate_grants(&mut self, definition_id: i64) {
        let rows = json!([{"id": definition_id, "num": 1}]);
        self.perform(Who::Operator, "/birthdaycoupon/set", json!({"coupon_ids": rows}), None).await;
    }
}

/// Somebody's day of birth whose birthday this is.
pub(super) fn born(birthday: NaiveDate) -> NaiveDate {
    birthday.with_year(1992).unwrap()
}

fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
