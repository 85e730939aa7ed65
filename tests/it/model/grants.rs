//! What reaching a level grants (會員等級電子券) and what a birthday does (生日提醒), and who is given it when the server looks.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Datelike as _, Days, NaiveDate};
use serde_json::{Value, json};

use super::wire::{ensure, ids, int, merged, page_of, rows, unix_seconds};
use super::{Answer, COME_BIRTHDAY, COME_LEVEL, Call, Check, Data, Model, ModelDefinition, Origin, code};

/// "days on which no server ran are made up for, 31 at most", today included.
const MADE_UP_FOR_DAYS: u64 = 31;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Level(i64),
    Birthday,
}

/// So many coupons of one definition.
#[derive(Clone, Copy)]
struct Grant {
    cause: Cause,
    definition_id: i64,
    num: i64,
    added_ms: i64,
}

/// What is granted, and who has had it.
#[derive(Default)]
pub(super) struct Granting {
    grants: BTreeMap<i64, Grant>,
    /// Every (member, level) that was reached, and whether the server has looked: "once per member and level for ever".
    reached: BTreeMap<(i64, i64), bool>,
    /// The last day whose birthdays were looked at.
    done_with: Option<NaiveDate>,
    /// Who was given something in which year.
    given: BTreeSet<(i64, i32)>,
}

/// A coupon that the server gave by itself: (member, definition, coupon).
pub type Given = (i64, i64, i64);

impl Model {
    /// A member has come to a level: "a jump grants only the level reached".
    pub(super) fn reach(&mut self, member_id: i64, level_id: i64) {
        if level_id != 0 {
            self.granting.reached.entry((member_id, level_id)).or_insert(false);
        }
    }

    /// The rows of levels.
    pub fn level_grants(&self) -> Vec<i64> {
        let of_levels = self.granting.grants.iter().filter(|(_, grant)| grant.cause != Cause::Birthday);
        of_levels.map(|(id, _)| *id).collect()
    }

    /// Whether a birthday has given a member something in this year.
    pub fn had_birthday(&self, member_id: i64, year: i32) -> bool {
        self.granting.given.contains(&(member_id, year))
    }

    /// What operators change.
    pub(super) fn change_grants(&mut self, call: &Call, route: &str) -> Answer {
        match route {
            "/memberelecoupon/add" => self.grant_to_level(call),
            "/memberelecoupon/edit" => {
                let nums: Vec<(i64, i64)> =
                    rows(call.body, "json").map(|row| (int(row, "id"), int(row, "num"))).collect();
                for (id, _) in &nums {
                    self.must_be_of_level(*id)?;
                }
                for (id, num) in nums {
                    self.granting.grants.entry(id).and_modify(|grant| grant.num = num);
                }
                Ok(Data::Exactly(json!(true)))
            }
            "/memberelecoupon/del" => {
                let id = int(call.body, "id");
                self.must_be_of_level(id)?;
                self.granting.grants.remove(&id);
                Ok(Data::Exactly(json!(1)))
            }
            _ => self.set_birthday_grants(call),
        }
    }

    fn must_be_of_level(&self, id: i64) -> Check {
        let grant = self.granting.grants.get(&id);
        ensure(grant.is_some_and(|grant| grant.cause != Cause::Birthday), code::NO_SUCH_RULE)
    }

    /// "one coupon of each, all of them or none; one that it grants already is refused".
    fn grant_to_level(&mut self, call: &Call) -> Answer {
        let cause = Cause::Level(int(call.body, "level_id"));
        let wanted = ids(call.body, "coupon_id");
        let are_there = wanted.iter().all(|id| self.definitions.contains_key(id));
        ensure(are_there, code::NO_SUCH_DEFINITION)?;
        let granted: Vec<i64> = self.granted_by(cause).into_iter().map(|(_, it)| it.definition_id).collect();
        ensure(!wanted.iter().any(|id| granted.contains(id)), code::WRONG_FIELDS)?;
        for definition_id in wanted {
            self.add_grant(call.now_ms, cause, definition_id, 1);
        }
        Ok(Data::Exactly(json!(true)))
    }

    /// "Sets all that a birthday gives: what is not named goes." What is named stays the row that it was.
    fn set_birthday_grants(&mut self, call: &Call) -> Answer {
        let mut wanted: BTreeMap<i64, i64> =
            rows(call.body, "coupon_ids").map(|row| (int(row, "id"), int(row, "num"))).collect();
        let are_there = wanted.keys().all(|id| self.definitions.contains_key(id));
        ensure(are_there, code::NO_SUCH_DEFINITION)?;
        self.granting.grants.retain(|_, grant| {
            if grant.cause != Cause::Birthday {
                return true;
            }
            let named = wanted.remove(&grant.definition_id);
            grant.num = named.unwrap_or_default();
            named.is_some()
        });
        for (definition_id, num) in wanted {
            self.add_grant(call.now_ms, Cause::Birthday, definition_id, num);
        }
        Ok(Data::Exactly(json!(true)))
    }

    fn add_grant(&mut self, added_ms: i64, cause: Cause, definition_id: i64, num: i64) {
        let id = self.chosen.grants.get(&definition_id).copied().unwrap_or(-definition_id);
        self.granting.grants.insert(id, Grant { cause, definition_id, num, added_ms });
    }

    /// Newest id first.
    fn granted_by(&self, cause: Cause) -> Vec<(i64, Grant)> {
        let granted = self.granting.grants.iter().rev().filter(|(_, grant)| grant.cause == cause);
        granted.map(|(id, grant)| (*id, *grant)).collect()
    }

    /// What operators and employees read.
    pub(super) fn read_grants(&self, call: &Call, route: &str) -> Answer {
        let level_id = int(call.body, "level_id");
        let shown = match route {
            "/memberelecoupon/list" => {
                let rows = self.granted_by(Cause::Level(level_id)).into_iter().map(|(id, grant)| {
                    let mut row = self.grant_row(id, grant);
                    row.as_object_mut().map(|row| (row.remove("user_id"), row.remove("create_date")));
                    row
                });
                page_of(call.body, rows.collect())
            }
            "/memberelecoupon/couponlist" => {
                let there = self.granted_by(Cause::Level(level_id));
                let can_be_added = |it: &&ModelDefinition| {
                    self.is_on_offer(call.now_ms, it)
                        && self.left_of(it.id) != Some(0)
                        && (it.get_limit_type != 4 || it.level_ids.contains(&level_id))
                        && !there.iter().any(|(_, grant)| grant.definition_id == it.id)
                };
                let definitions = self.definitions.values().rev().filter(can_be_added);
                page_of(call.body, definitions.map(|it| self.definition_row(it)).collect())
            }
            "/memberlevel/checkinfo" => return self.check_level(call),
            _ => self
                .granted_by(Cause::Birthday)
                .into_iter()
                .map(|(id, grant)| self.grant_row(id, grant))
                .collect(),
        };
        Ok(Data::Exactly(Value::Array(shown)))
    }

    fn grant_row(&self, id: i64, grant: Grant) -> Value {
        let definition = self.definitions.get(&grant.definition_id);
        let mut row = json!({
            "id": id,
            "coupon_id": grant.definition_id,
            "user_id": self.operator_user_id,
            "create_date": unix_seconds(grant.added_ms),
            "num": grant.num,
            "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            "type": definition.map_or(0, |definition| definition.kind),
            "deduction": definition.map_or("0.00", ModelDefinition::deduction_or_zero),
        });
        if let Cause::Level(level_id) = grant.cause {
            row["level_id"] = level_id.into();
        }
        row
    }

    /// "What the member would be issued on reaching this level now: `give_num` of `num`, and the code that stops the rest;
    /// each row by itself. 5002 throughout where he has reached it before."
    fn check_level(&self, call: &Call) -> Answer {
        let (level_id, member_id) = (int(call.body, "id"), int(call.body, "member_id"));
        ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
        let has_reached = self.granting.reached.contains_key(&(member_id, level_id));
        let row = |(id, grant): (i64, Grant)| {
            let (give_num, code) = if has_reached {
                (0, code::LIMIT_REACHED)
            } else {
                self.would_give(call.now_ms, member_id, level_id, grant)
            };
            let told = json!({ "state": i64::from(code == 0), "give_num": give_num, "code": code });
            merged(self.grant_row(id, grant), told)
        };
        let rows = self.granted_by(Cause::Level(level_id)).into_iter().map(row).collect();
        Ok(Data::Exactly(Value::Array(rows)))
    }

    fn would_give(&self, now_ms: i64, member_id: i64, level_id: i64, grant: Grant) -> (i64, i64) {
        let Grant { definition_id, num, .. } = grant;
        if let Err(why) = self.is_eligible_at(now_ms, definition_id, member_id, Some(level_id)) {
            return (0, why.code);
        }
        for given in 0..num {
            if self.limit_is_reached_with(now_ms, definition_id, member_id, given) {
                return (given, code::LIMIT_REACHED);
            }
            if self.left_of(definition_id).is_some_and(|left| left <= given) {
                return (given, code::SOLD_OUT);
            }
        }
        (num, 0)
    }
}

/// Giving it. No call answers this: the driver lets the server look, and tells the model what the log says of it.
impl Model {
    /// Gives everyone what the levels earn that he has reached. `wrote` is every coupon that the server gave, and what it must
    /// have given comes back.
    pub fn give_for_levels(&mut self, now_ms: i64, wrote: &[Given]) -> Vec<Given> {
        let mut given = Vec::new();
        let reached = self.granting.reached.iter().filter(|(_, is_done)| !**is_done);
        for (member_id, level_id) in reached.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.granting.reached.insert((member_id, level_id), true);
            self.give(now_ms, member_id, Cause::Level(level_id), wrote, &mut given);
        }
        given
    }

    /// Gives everyone what his birthday earns, for every day that was not looked at; the first time ever begins with today.
    pub fn give_for_birthdays(&mut self, now_ms: i64, wrote: &[Given]) -> Vec<Given> {
        let mut given = Vec::new();
        let today = self.today(now_ms);
        let earliest = today - Days::new(MADE_UP_FOR_DAYS - 1);
        let first = self.granting.done_with.map_or(today, |day| (day + Days::new(1)).max(earliest));
        for day in first.iter_days().take_while(|day| *day <= today) {
            for member_id in self.born_on(day) {
                let year = (member_id, day.year());
                let count = given.len();
                if !self.granting.given.contains(&year) {
                    self.give(now_ms, member_id, Cause::Birthday, wrote, &mut given);
                }
                if given.len() > count {
                    self.granting.given.insert(year);
                }
            }
        }
        self.granting.done_with = self.granting.done_with.max(Some(today));
        given
    }

    /// Whose birthday a day is: on 28 February of a common year also theirs who were born on the 29th.
    fn born_on(&self, day: NaiveDate) -> Vec<i64> {
        let born = |month_day: (u32, u32)| {
            let is_his = move |birthday: NaiveDate| (birthday.month(), birthday.day()) == month_day;
            self.members.iter().filter(move |(_, member)| member.birthday.is_some_and(is_his))
        };
        let month_day = (day.month(), day.day());
        let on_29 = (month_day == (2, 28) && !day.leap_year()).then_some((2, 29));
        let days = [Some(month_day), on_29].into_iter().flatten();
        days.flat_map(|month_day| born(month_day).map(|(id, _)| *id)).collect()
    }

    /// Each coupon under the rules of a single issue; what is refused is not made up for.
    fn give(&mut self, now_ms: i64, member_id: i64, cause: Cause, wrote: &[Given], given: &mut Vec<Given>) {
        let come = if cause == Cause::Birthday { COME_BIRTHDAY } else { COME_LEVEL };
        for (_, Grant { definition_id, num, .. }) in self.granted_by(cause) {
            for _ in 0..num {
                let Ok(days) = self.can_issue(now_ms, definition_id, member_id) else { continue };
                let is_next = |it: &&Given| (it.0, it.1) == (member_id, definition_id) && !given.contains(it);
                let id = wrote.iter().find(is_next).map_or(-1 - given.len() as i64, |it| it.2);
                let origin = Origin { come, ..Origin::default() };
                self.put_coupon(now_ms, id, definition_id, member_id, days, origin);
                given.push((member_id, definition_id, id));
            }
        }
    }
}
