//! What operators do beside issuing.

use std::collections::BTreeSet;

use chrono::Days;
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{PARTNERS, SHOPS, Simulation};
use crate::model::ModelDefinition;

impl Simulation {
    /// What operators do beside issuing.
    pub(super) async fn administer(&mut self) {
        let id = *self.definitions.choose(&mut self.rng).unwrap();
        match self.rng.random_range(0..100) {
            0..20 => {
                let (shop_id, open) = (SHOPS.choose(&mut self.rng).unwrap(), self.rng.random_ratio(2, 3));
                let mut body = shop(shop_id);
                (body["id"], body["state"]) = (shop_id.into(), i64::from(open).into());
                self.operate("/shop/edit", body, 0).await;
                self.model.set_shop_open(shop_id, open);
            }
            20..30 => {
                let shop_id = SHOPS.choose(&mut self.rng).unwrap();
                let reply = self.operate("/shop/rotateauditkey", json!({"id": shop_id}), 0).await;
                self.take_url(shop_id, reply["url"].as_str().unwrap());
            }
            30..50 => {
                let on = self.chance(85);
                self.operate("/elecoupons/state", json!({"id": id, "state": i64::from(on)}), 0).await;
                self.model.set_definition_on(id, on);
            }
            50..70 => {
                let (num, more) = (self.rng.random_range(1..6), self.chance(60));
                let (stock, issued) = (self.stock[&id], self.model.issued(id));
                let changed = if more { stock + num } else { stock - num };
                if changed == 0 {
                    return;
                }
                let code = if changed < issued || (stock == 0 && !more) { 401 } else { 0 };
                let body = json!({"id": id, "num": num, "type": i64::from(more)});
                let data = self.operate("/elecoupons/inventory", body, code).await;
                if code == 0 {
                    assert_eq!(data, json!({"id": id, "num": changed}));
                    self.stock.insert(id, changed);
                    self.model.change_stock(id, changed);
                }
            }
            70..75 => self.edit().await,
            75..78 => self.regulate().await,
            78..84 => self.edit_member().await,
            _ => {
                let (validity_type, limit_type) =
                    (self.rng.random_range(1..=3), self.rng.random_range(1..=4));
                self.define(validity_type, limit_type).await;
            }
        }
    }

    pub(super) async fn operate(&mut self, route: &str, body: Value, code: i64) -> Value {
        let reply = self.world.operator(route, body.clone()).await;
        self.history.note(format!("{} operator {route} {body} → {}", self.now_ms(), reply.body));
        assert_eq!(reply.code(), code, "{route} {body}");
        reply.data().clone()
    }

    pub(super) async fn define(&mut self, validity_type: i64, get_limit_type: i64) {
        let definition = self.some_definition(validity_type, get_limit_type);
        self.define_this(definition).await;
    }

    pub(super) async fn define_this(&mut self, mut definition: ModelDefinition) -> i64 {
        let mut body = offer(&definition);
        body["num"] = definition.num.into();
        let data = self.operate("/elecoupons/add", body, 0).await;
        definition.id = data["id"].as_i64().unwrap();
        self.definitions.push(definition.id);
        self.stock.insert(definition.id, definition.num);
        let limit = (definition.get_limit_type, definition.get_limit);
        self.limits.insert(definition.id, BTreeSet::from([limit]));
        let id = definition.id;
        self.model.add_definition(definition);
        id
    }

    /// Replaces everything of a definition but its stock and its switch.
    async fn edit(&mut self) {
        let recent = self.definitions.len().saturating_sub(12);
        let id = *self.definitions[recent..].choose(&mut self.rng).unwrap();
        let (validity_type, get_limit_type) = (self.rng.random_range(1..=3), self.rng.random_range(1..=4));
        let mut definition = self.some_definition(validity_type, get_limit_type);
        definition.id = id;
        definition.title.push_str(" 改");
        let mut body = offer(&definition);
        body["id"] = id.into();
        assert_eq!(self.operate("/elecoupons/edit", body, 0).await, json!({"id": id}));
        self.limits.entry(id).or_default().insert((get_limit_type, definition.get_limit));
        self.model.edit_definition(definition);
    }

    pub(super) fn some_definition(&mut self, validity_type: i64, get_limit_type: i64) -> ModelDefinition {
        let today = self.today();
        let kind = self.rng.random_range(1..=2);
        let (start_num, end_num) = match validity_type {
            1 => {
                let start = today - Days::new(3) + Days::new(self.rng.random_range(0..7));
                (start.to_string(), (start + Days::new(self.rng.random_range(0..15))).to_string())
            }
            2 => (self.rng.random_range(0..3).to_string(), self.rng.random_range(1..20).to_string()),
            _ => (String::new(), String::new()),
        };
        let deduction = if kind == 1 || self.chance(30) { "10.00" } else { "" };
        let weekdays = self.rng.random_range(1..=5);
        let shops = self.rng.random_range(1..=2);
        let use_week = if self.chance(60) { Vec::new() } else { self.some_of(1..=7, weekdays) };
        let mut shop_ids = if self.chance(60) { Vec::new() } else { self.some_of(SHOPS, shops) };
        if self.chance(25) {
            shop_ids.extend(self.some_of(PARTNERS, 1));
        }
        ModelDefinition {
            id: 0,
            kind,
            title: format!("電子券 {}", self.definitions.len()),
            deduction: deduction.to_owned(),
            validity_type,
            start_num,
            end_num,
            use_week: use_week.into_iter().map(|day| day as u8).collect(),
            is_giving: self.chance(75),
            get_limit_type,
            get_limit: if get_limit_type == 2 { self.rng.random_range(1..5) } else { 0 },
            level_ids: if get_limit_type == 4 { self.some_of(1..=3, 2) } else { Vec::new() },
            use_limit: i64::from(self.chance(60)),
            money: if self.chance(40) { 0 } else { 100 * self.rng.random_range(1..250) },
            rules: "我是使用規則".to_owned(),
            shop_ids,
            is_self: self.chance(80),
            is_claim: self.chance(65),
            need_scan: self.scanning || self.chance(15),
            num: if self.chance(60) { 0 } else { self.rng.random_range(2..30) },
            on: true,
        }
    }

    pub(super) fn some_of(&mut self, range: std::ops::RangeInclusive<i64>, count: usize) -> Vec<i64> {
        let mut some = range.choose_multiple(&mut self.rng, count);
        some.sort_unstable();
        some
    }
}

pub(super) fn shop(id: i64) -> Value {
    json!({"shop_name": format!("門店{id}"), "phone": "020-88888888", "address": "人民路1號"})
}

/// The fields that `/elecoupons/add` and `/elecoupons/edit` have in common.
fn offer(definition: &ModelDefinition) -> Value {
    let mut body = json!({
        "type": definition.kind,
        "title": definition.title,
        "deduction": definition.deduction,
        "validity_type": definition.validity_type,
        "start_num": definition.start_num,
        "end_num": definition.end_num,
        "use_week": definition.use_week,
        "is_giving": i64::from(definition.is_giving),
        "get_limit_type": definition.get_limit_type,
        "get_limit": definition.get_limit,
        "level_ids": definition.level_ids,
        "rules": definition.rules,
        "shop_ids": definition.shop_ids,
        "is_self": i64::from(definition.is_self),
        "is_claim": i64::from(definition.is_claim),
        "need_scan": i64::from(definition.need_scan),
        "use_limit": definition.use_limit,
        "money": format!("{}.{:02}", definition.money / 100, definition.money % 100),
    });
    if definition.deduction.is_empty() {
        body["deduction"] = Value::Null;
    }
    body
}
