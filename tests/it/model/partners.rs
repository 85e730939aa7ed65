//! Partners (合作商家): what is set aside for them (引流券), what members take of it, and the lists that both sides settle by.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::rules::date;
use super::wire::{ensure, int, int_or, merged, page_if_asked, page_of, refusal, text, unix_seconds};
use super::{Answer, COME_PARTNER, Call, Coupon, Data, Model, Origin, Redemption, Refusal, Shop, code};

/// What a partner hands out of one definition.
pub(super) struct Allotment {
    partner_id: i64,
    definition_id: i64,
    /// The last day on which it can be taken.
    end: NaiveDate,
    user_id: i64,
    allotted_ms: i64,
    /// Every change of how many may be taken, the allotment itself being the first.
    changes: Vec<StockChange>,
}

struct StockChange {
    by: i64,
    num: i64,
    user_id: i64,
    at_ms: i64,
}

impl Allotment {
    fn num(&self) -> i64 {
        self.changes.last().map_or(0, |change| change.num)
    }
}

impl Model {
    // The driver calls these after it did the same to the server.

    /// Adds a partner, who is open. "Shops and partners share one sequence of ids."
    pub fn add_partner(&mut self, id: i64, name: &str, phone: &str, address: &str) {
        let address = Some((phone.to_owned(), address.to_owned()));
        self.shops.insert(id, Shop { name: name.to_owned(), open: true, partner: address });
    }

    // What the driver asks to choose calls that lead somewhere, and to check what is no call of the model.

    /// Every allotment, with whose it is.
    pub fn allotments(&self) -> Vec<(i64, i64)> {
        self.allotments.iter().map(|(id, allotment)| (*id, allotment.partner_id)).collect()
    }

    /// How many of each allotment may be taken, and how many are: "voided not counted".
    pub fn allotted(&self) -> BTreeMap<i64, (i64, i64)> {
        let mut allotted: BTreeMap<i64, (i64, i64)> =
            self.allotments.iter().map(|(id, allotment)| (*id, (allotment.num(), 0))).collect();
        for coupon in self.coupons.values().filter(|coupon| !coupon.voided) {
            allotted.entry(coupon.origin.allotment_id).and_modify(|(_, taken)| *taken += 1);
        }
        allotted
    }

    /// The definitions of which coupons could be issued to somebody.
    pub fn on_offer(&self, now_ms: i64) -> Vec<i64> {
        let on_offer = self.definitions.values().filter(|it| self.is_on_offer(now_ms, it));
        on_offer.map(|definition| definition.id).collect()
    }

    /// Whether a coupon was taken from a partner.
    pub fn is_partners(&self, coupon_id: i64) -> bool {
        self.coupons.get(&coupon_id).is_some_and(|coupon| coupon.origin.come == COME_PARTNER)
    }

    /// Whether something was taken under this key.
    pub fn has_taken_under(&self, key: &str) -> bool {
        self.taken.contains_key(key)
    }

    fn taken_of(&self, allotment_id: i64) -> i64 {
        let is_taken = |coupon: &&Coupon| {
            coupon.origin.come == COME_PARTNER && coupon.origin.allotment_id == allotment_id
        };
        self.coupons.values().filter(is_taken).filter(|coupon| !coupon.voided).count() as i64
    }

    /// "no such rule, group, send or partner"; one that is closed is still there.
    fn partner(&self, id: i64) -> Result<&Shop, Refusal> {
        self.shops.get(&id).filter(|shop| shop.partner.is_some()).ok_or(refusal(code::NO_SUCH_RULE))
    }

    /// 2005, then 2003.
    fn open_partner(&self, id: i64) -> Result<&Shop, Refusal> {
        let partner = self.partner(id)?;
        ensure(partner.open, code::NO_SUCH_SHOP)?;
        Ok(partner)
    }

    /// 2005 2003 2002 5006, then 401 for a last day that has passed.
    pub(super) fn allot(&mut self, call: &Call) -> Answer {
        let (partner_id, definition_id) = (int(call.body, "business_id"), int(call.body, "coupon_id"));
        let num = int(call.body, "num");
        let end = date(text(call.body, "end_time")).ok_or(refusal(code::WRONG_FIELDS))?;
        self.open_partner(partner_id)?;
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        ensure(self.is_on_offer(call.now_ms, definition), code::NOT_ON_OFFER)?;
        ensure(self.today(call.now_ms) <= end, code::WRONG_FIELDS)?;

        let answered_id = call.answered.get("id").and_then(Value::as_i64);
        let Some(id) = answered_id.filter(|id| !self.allotments.contains_key(id)) else {
            return Ok(Data::Exactly(json!({ "id": "a new allotment's id" })));
        };
        let (user_id, at_ms) = (self.operator_user_id, call.now_ms);
        let changes = vec![StockChange { by: num, num, user_id, at_ms }];
        let allotment = Allotment { partner_id, definition_id, end, user_id, allotted_ms: at_ms, changes };
        self.allotments.insert(id, allotment);
        Ok(Data::Exactly(json!({
            "id": id,
            "business_id": partner_id,
            "coupon_id": definition_id,
            "num": num,
            "end_time": end.to_string(),
        })))
    }

    /// "Moves the last day on which an allotment can be taken; a day that has passed ends it."
    pub(super) fn edit_allotment(&mut self, call: &Call) -> Answer {
        let id = int(call.body, "id");
        let end = date(text(call.body, "end_time")).ok_or(refusal(code::WRONG_FIELDS))?;
        let allotment = self.allotments.get_mut(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
        allotment.end = end;
        Ok(Data::Exactly(json!({ "id": id, "end_time": end.to_string() })))
    }

    /// "Changes how many of an allotment may be taken, never below what was."
    pub(super) fn change_allotment(&mut self, call: &Call) -> Answer {
        let id = int(call.body, "bc_id");
        let (user_id, at_ms) = (self.operator_user_id, call.now_ms);
        let taken = self.taken_of(id);
        let allotment = self.allotments.get_mut(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
        let is_more = int(call.body, "type") == 1;
        let by = if is_more { int(call.body, "num") } else { -int(call.body, "num") };
        let num = allotment.num() + by;
        ensure(num >= taken, code::WRONG_FIELDS)?;
        allotment.changes.push(StockChange { by, num, user_id, at_ms });
        Ok(Data::Exactly(json!({ "bc_id": id, "num": num })))
    }

    /// What operators read of partners.
    pub(super) fn read_partners(&self, call: &Call, route: &str) -> Answer {
        let rows = match route {
            "/business/list" => {
                let partners = self.shops.iter().rev().filter(|(_, shop)| shop.partner.is_some());
                page_if_asked(call.body, partners.map(|(id, shop)| self.partner_row(*id, shop)).collect())
            }
            "/business/get" => {
                let id = int(call.body, "id");
                return Ok(Data::Exactly(self.partner_row(id, self.partner(id)?)));
            }
            "/business/couponlist" => {
                let can_be_allotted =
                    self.definitions.values().rev().filter(|it| self.is_on_offer(call.now_ms, it));
                page_of(call.body, can_be_allotted.map(|it| self.definition_row(it)).collect())
            }
            "/business/getattract" => {
                let partner_id = int(call.body, "id");
                self.partner(partner_id)?;
                let his = self.allotments.iter().rev().filter(|(_, it)| it.partner_id == partner_id);
                page_if_asked(call.body, his.map(|(id, it)| self.allotment_row(*id, it)).collect())
            }
            "/business/invenlist" => {
                let id = int(call.body, "bc_id");
                let allotment = self.allotments.get(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
                let mut rows: Vec<Value> =
                    (1..).zip(&allotment.changes).map(|(number, it)| stock_row(id, number, it)).collect();
                rows.reverse();
                page_of(call.body, rows)
            }
            "/statistics/getattract" => return self.settlement(call, int(call.body, "business_id")),
            _ => return Err(refusal(code::NOT_ALLOWED)),
        };
        Ok(Data::Exactly(Value::Array(rows)))
    }

    /// What a partner reads: only what is his.
    pub(super) fn call_of_partner(&self, call: &Call, partner_id: i64, route: &str) -> Answer {
        match route {
            "/businesshome/get" => Ok(Data::Exactly(self.partner_row(partner_id, self.partner(partner_id)?))),
            "/businesshome/auditqrcode" => {
                self.partner(partner_id)?;
                let url = self.shop_urls.iter().find(|(_, shop)| **shop == partner_id).map(|(url, _)| url);
                Ok(Data::Exactly(json!({ "url": url, "svg": call.answered.get("svg") })))
            }
            "/businesshome/auditcoupon" => self.settlement(call, partner_id),
            "/businesshome/attractcoupon" => {
                self.partner(partner_id)?;
                Ok(self.settled(call, |redemption, _| redemption.shop_id == partner_id))
            }
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }

    /// "redemptions that stand of coupons taken from the allotments of the partner …, wherever they were redeemed": the
    /// same rows whoever asks.
    fn settlement(&self, call: &Call, partner_id: i64) -> Answer {
        self.partner(partner_id)?;
        Ok(self.settled(call, |_, coupon| {
            let from = self.allotments.get(&coupon.origin.allotment_id);
            from.is_some_and(|allotment| allotment.partner_id == partner_id)
        }))
    }

    /// Redemptions that stand, newest first, of the days that are asked for; "the manual's `strar` is accepted beside
    /// `start`".
    fn settled(&self, call: &Call, is_meant: impl Fn(&Redemption, &Coupon) -> bool) -> Data {
        let day = |name: &str| date(text(call.body, name));
        let (start, end) = (day("start").or(day("strar")), day("end"));
        let mut found: Vec<(&Redemption, &Coupon)> = self
            .redemptions
            .values()
            .filter(|redemption| redemption.reversed_ms.is_none())
            .filter_map(|redemption| Some((redemption, self.coupons.get(&redemption.coupon_id)?)))
            .filter(|(redemption, coupon)| is_meant(redemption, coupon))
            .filter(|(redemption, _)| start.is_none_or(|start| start <= self.today(redemption.at_ms)))
            .filter(|(redemption, _)| end.is_none_or(|end| self.today(redemption.at_ms) <= end))
            .collect();
        found.sort_by_key(|(redemption, _)| std::cmp::Reverse((redemption.at_ms, redemption.id)));
        let rows = found.into_iter().map(|(redemption, coupon)| self.settled_row(redemption, coupon));
        Data::Exactly(Value::Array(page_of(call.body, rows.collect())))
    }

    fn settled_row(&self, redemption: &Redemption, coupon: &Coupon) -> Value {
        let definition = &coupon.definition;
        json!({
            "id": redemption.id,
            "mem_coupon_id": coupon.id,
            "bc_id": coupon.origin.allotment_id,
            "coupon_id": definition.id,
            "coupon_title": definition.title,
            "deduction": definition.deduction_or_zero(),
            "create_date": unix_seconds(redemption.at_ms),
            "shop_id": redemption.shop_id,
            "shop_name": self.shops.get(&redemption.shop_id).map_or("", |shop| shop.name.as_str()),
            "user_id": redemption.by,
            "member_id": redemption.member_id,
        })
    }

    fn partner_row(&self, id: i64, shop: &Shop) -> Value {
        let (phone, address) = shop.partner.clone().unwrap_or_default();
        json!({
            "id": id,
            "shop_name": shop.name,
            "title": "",
            "address": address,
            "phone": phone,
            "state": i64::from(shop.open),
            "user_id": self.operator_user_id,
        })
    }

    /// "of `num`, `inventory` are left".
    fn allotment_row(&self, id: i64, allotment: &Allotment) -> Value {
        let definition = self.definitions.get(&allotment.definition_id);
        json!({
            "id": id,
            "business_id": allotment.partner_id,
            "coupon_id": allotment.definition_id,
            "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            "num": allotment.num(),
            "inventory": allotment.num() - self.taken_of(id),
            "end_time": allotment.end.to_string(),
            "user_id": allotment.user_id,
            "create_date": unix_seconds(allotment.allotted_ms),
        })
    }
}

/// What members see of partners and take from them.
impl Model {
    pub(super) fn read_partner_as_member(&self, call: &Call, member_id: i64, route: &str) -> Answer {
        let partner_id = int(call.body, "business_id");
        let rows = match route {
            "/wechat/businesscoupon" => {
                self.open_partner(partner_id)?;
                let there = self.definitions.values().rev();
                let there = there.filter(|it| it.on && it.shop_ids.contains(&partner_id));
                page_of(call.body, there.map(|it| self.definition_row(it)).collect())
            }
            "/wechat/getattract" => {
                self.open_partner(partner_id)?;
                ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
                let open = self.open_allotments(call.now_ms, partner_id).into_iter();
                let rows = open.filter_map(|id| self.offered_row(call.now_ms, member_id, id));
                page_of(call.body, rows.collect())
            }
            _ => {
                self.partner(partner_id)?;
                let day = text(call.body, "date");
                let of_day =
                    Call { body: &merged(call.body.clone(), json!({ "start": day, "end": day })), ..*call };
                return Ok(self.settled(&of_day, |redemption, _| {
                    redemption.shop_id == partner_id && redemption.member_id == member_id
                }));
            }
        };
        Ok(Data::Exactly(Value::Array(rows)))
    }

    /// Newest id first.
    fn open_allotments(&self, now_ms: i64, partner_id: i64) -> Vec<i64> {
        let today = self.today(now_ms);
        let open = self.allotments.iter().rev();
        open.filter(|(_, it)| it.partner_id == partner_id && today <= it.end).map(|(id, _)| *id).collect()
    }

    /// "inventory is what is left, `is_get` 1 where this member may take one now".
    fn offered_row(&self, now_ms: i64, member_id: i64, allotment_id: i64) -> Option<Value> {
        let allotment = self.allotments.get(&allotment_id)?;
        let definition = self.definitions.get(&allotment.definition_id)?;
        let row = self.definition_row(definition);
        let left = allotment.num() - self.taken_of(allotment_id);
        let left = self.left_of(definition.id).map_or(left, |of_all| of_all.min(left));
        let mut offered = json!({
            "id": allotment_id,
            "coupon_id": definition.id,
            "coupon_title": definition.title,
            "inventory": left,
            "end_time": allotment.end.to_string(),
            "is_get": i64::from(self.can_take(now_ms, allotment_id, member_id).is_ok()),
        });
        for field in [
            "type",
            "deduction",
            "money",
            "validity_type",
            "validity",
            "start_date",
            "end_date",
            "use_week",
            "rules",
        ] {
            offered[field] = row[field].clone();
        }
        Some(offered)
    }

    /// As any other issue, with the allotment's own stock beside the definition's. A closed partner is 2003, which only who
    /// repeats a key can meet.
    fn can_take(
        &self,
        now_ms: i64,
        allotment_id: i64,
        member_id: i64,
    ) -> Result<(NaiveDate, NaiveDate), Refusal> {
        let allotment = self.allotments.get(&allotment_id).ok_or(refusal(code::NO_SUCH_RULE))?;
        self.open_partner(allotment.partner_id)?;
        let days = self.can_issue(now_ms, allotment.definition_id, member_id)?;
        ensure(self.taken_of(allotment_id) < allotment.num(), code::SOLD_OUT)?;
        Ok(days)
    }

    /// "takes one coupon of each open allotment of a partner; code says what became of each, 0 = taken. Under the same key
    /// what was taken is answered again and the rest asked afresh."
    pub(super) fn receive(&mut self, call: &Call, member_id: i64) -> Answer {
        let partner_id = int(call.body, "business_id");
        let key = self.key.clone().unwrap_or_default();
        let before = self.taken.get(&key).cloned().unwrap_or_default();
        if before.is_empty() {
            self.open_partner(partner_id)?;
            ensure(self.members.contains_key(&member_id), code::NO_SUCH_PERSON)?;
        }
        let mut asked = self.open_allotments(call.now_ms, partner_id);
        asked.extend(before.keys().filter(|id| !asked.contains(id)).copied().collect::<Vec<_>>());
        asked.sort_unstable_by_key(|id| std::cmp::Reverse(*id));

        let mut rows = BTreeMap::new();
        let mut left: Vec<(usize, i64)> = Vec::new();
        for (place, id) in asked.into_iter().enumerate() {
            match before.get(&id) {
                Some(coupon_id) => drop(rows.insert(place, self.taken_row(id, &json!(coupon_id), 0))),
                None => left.push((place, id)),
            }
        }
        while !left.is_empty() {
            let (place, id) = left.remove(self.next_of(call, member_id, &left));
            let row = match self.can_take(call.now_ms, id, member_id) {
                Ok(days) => {
                    let coupon_id = self.take(call, place, (id, member_id), days);
                    self.taken_row(id, &coupon_id, 0)
                }
                Err(why) => self.taken_row(id, &json!(0), why.code),
            };
            rows.insert(place, row);
        }
        Ok(Data::Exactly(Value::Array(rows.into_values().collect())))
    }

    /// Which of these is asked next. Where two allotments share a definition the contract does not say which comes first, so
    /// the server may choose: first those that it refused and that are refused now, as they change nothing for the others,
    /// then one that it gave and that can be taken.
    fn next_of(&self, call: &Call, member_id: i64, left: &[(usize, i64)]) -> usize {
        let said = |place: usize| call.answered.get(place).map_or(0, |row| int_or(row, "code", 0));
        let code_of = |id: i64| self.can_take(call.now_ms, id, member_id).err().map_or(0, |why| why.code);
        let fitting = left.iter().map(|(place, id)| said(*place) == code_of(*id)).collect::<Vec<_>>();
        let refused = (0..left.len()).find(|next| fitting[*next] && said(left[*next].0) != 0);
        refused.or_else(|| fitting.iter().position(|fits| *fits)).unwrap_or_default()
    }

    fn take(
        &mut self,
        call: &Call,
        place: usize,
        (allotment_id, member_id): (i64, i64),
        days: (NaiveDate, NaiveDate),
    ) -> Value {
        let answered_id = call.answered.get(place).and_then(|row| row.get("id")).and_then(Value::as_i64);
        let Some(id) = answered_id.filter(|id| *id != 0 && !self.coupons.contains_key(id)) else {
            return json!("a new member coupon id");
        };
        let definition_id = self.allotments.get(&allotment_id).map_or(0, |allotment| allotment.definition_id);
        let origin = Origin { come: COME_PARTNER, allotment_id, ..Origin::default() };
        self.put_coupon(call.now_ms, id, definition_id, member_id, days, origin);
        if let Some(key) = &self.key {
            self.taken.entry(key.clone()).or_default().insert(allotment_id, id);
        }
        json!(id)
    }

    fn taken_row(&self, allotment_id: i64, coupon_id: &Value, code: i64) -> Value {
        let definition_id = self.allotments.get(&allotment_id).map_or(0, |allotment| allotment.definition_id);
        json!({ "coupon_id": definition_id, "id": coupon_id, "code": code })
    }
}

fn stock_row(allotment_id: i64, number: i64, change: &StockChange) -> Value {
    json!({
        "id": number,
        "bc_id": allotment_id,
        "num": change.by.abs(),
        "type": i64::from(change.by >= 0),
        "total": change.num,
        "user_id": change.user_id,
        "create_date": unix_seconds(change.at_ms),
    })
}
