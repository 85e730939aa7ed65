//! What grants of orders hang on: rules of an order's amount (訂單滿額) and groups of goods (商品組).
//!
//! Both say when; how many coupons of what is in their grants. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::{Refusal, Wrong};

/// What happened to a rule of an order's amount. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OrderAmountEvent {
    /// It was defined.
    Defined {
        /// From which amount on it holds.
        amount_cents: i64,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was edited: its amount, or the numbers of its grants in the same append.
    Changed {
        /// From which amount on it holds now.
        amount_cents: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was deleted, with its grants.
    Deleted {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a rule of an order's amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderAmountCommand {
    /// Define it.
    Define {
        /// From which amount on it holds.
        amount_cents: i64,
        /// Who.
        employee_id: i64,
    },
    /// Edit it.
    Change {
        /// From which amount on it holds.
        amount_cents: i64,
        /// Whether its grants change in the same append: then the rule's own history tells so.
        grants_change: bool,
        /// Who.
        employee_id: i64,
    },
    /// Delete it.
    Delete {
        /// Who.
        employee_id: i64,
    },
}

/// A rule of an order's amount as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderAmount {
    /// None until it is defined.
    pub amount_cents: Option<i64>,
    /// Who defined it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub defined_at_ms: i64,
    /// Whether it holds no more.
    pub deleted: bool,
}

impl OrderAmount {
    /// From which amount on it holds; None where it holds no more.
    #[must_use]
    pub fn live_amount_cents(&self) -> Option<i64> {
        self.amount_cents.filter(|_| !self.deleted)
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &OrderAmountEvent) {
        match event {
            OrderAmountEvent::Defined { amount_cents, employee_id, at_ms } => {
                *self = Self {
                    amount_cents: Some(*amount_cents),
                    employee_id: *employee_id,
                    defined_at_ms: *at_ms,
                    deleted: false,
                };
            }
            OrderAmountEvent::Changed { amount_cents, .. } => self.amount_cents = Some(*amount_cents),
            OrderAmountEvent::Deleted { .. } => self.deleted = true,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &OrderAmountCommand,
        facts: &Facts,
    ) -> Result<Vec<OrderAmountEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let OrderAmountCommand::Define { amount_cents, employee_id } = command {
            if self.amount_cents.is_some() {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            let (amount_cents, employee_id) = (*amount_cents, *employee_id);
            return Ok(vec![OrderAmountEvent::Defined { amount_cents, employee_id, at_ms }]);
        }
        let current = self.live_amount_cents().ok_or(Refusal::NoSuchRule)?;
        match command {
            OrderAmountCommand::Change { amount_cents, grants_change: false, .. }
                if *amount_cents == current =>
            {
                Ok(Vec::new())
            }
            OrderAmountCommand::Change { amount_cents, employee_id, .. } => {
                let (amount_cents, employee_id) = (*amount_cents, *employee_id);
                Ok(vec![OrderAmountEvent::Changed { amount_cents, employee_id, at_ms }])
            }
            OrderAmountCommand::Delete { employee_id } => {
                Ok(vec![OrderAmountEvent::Deleted { employee_id: *employee_id, at_ms }])
            }
            OrderAmountCommand::Define { .. } => Err(Refusal::NoSuchRule),
        }
    }
}

/// What happened to a group of goods. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GoodsGroupEvent {
    /// It was created, with no goods.
    Created {
        /// Its title.
        title: String,
        /// Who, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It has another title.
    Renamed {
        /// From now on.
        title: String,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Other goods belong to it.
    GoodsSet {
        /// All of them, in order.
        goods_ids: Vec<i64>,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It was deleted, with its grants.
    Deleted {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a group of goods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GoodsGroupCommand {
    /// Create it.
    Create {
        /// Its title.
        title: String,
        /// Who.
        employee_id: i64,
    },
    /// Give it another title.
    Rename {
        /// The title.
        title: String,
        /// Who.
        employee_id: i64,
    },
    /// Say which goods belong to it.
    SetGoods {
        /// All of them.
        goods_ids: Vec<i64>,
        /// Who.
        employee_id: i64,
    },
    /// Delete it.
    Delete {
        /// Who.
        employee_id: i64,
    },
}

/// A group of goods as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoodsGroup {
    /// None until it is created.
    pub title: Option<String>,
    /// Goods that have ever belonged to it, and whether they do: each has a live row, and no row is ever deleted.
    pub goods: BTreeMap<i64, bool>,
    /// Who created it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub created_at_ms: i64,
    /// Whether it is gone.
    pub deleted: bool,
}

impl GoodsGroup {
    /// Whether it is there.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.title.is_some() && !self.deleted
    }

    /// Whether these goods belong to it.
    #[must_use]
    pub fn has(&self, goods_id: i64) -> bool {
        self.is_live() && self.goods.get(&goods_id).copied().unwrap_or_default()
    }

    /// The goods that belong to it, in order.
    #[must_use]
    pub fn goods_ids(&self) -> Vec<i64> {
        self.goods.iter().filter(|(_, belongs)| **belongs).map(|(id, _)| *id).collect()
    }

    fn set_goods(&mut self, goods_ids: &[i64]) {
        self.goods.values_mut().for_each(|belongs| *belongs = false);
        self.goods.extend(goods_ids.iter().map(|id| (*id, true)));
    }

    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &GoodsGroupEvent) {
        match event {
            GoodsGroupEvent::Created { title, employee_id, at_ms } => {
                *self = Self {
                    title: Some(title.clone()),
                    employee_id: *employee_id,
                    created_at_ms: *at_ms,
                    ..Self::default()
                };
            }
            GoodsGroupEvent::Renamed { title, .. } => self.title = Some(title.clone()),
            GoodsGroupEvent::GoodsSet { goods_ids, .. } => self.set_goods(goods_ids),
            GoodsGroupEvent::Deleted { .. } => {
                self.set_goods(&[]);
                self.deleted = true;
            }
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(
        &self,
        command: &GoodsGroupCommand,
        facts: &Facts,
    ) -> Result<Vec<GoodsGroupEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let GoodsGroupCommand::Create { title, employee_id } = command {
            if self.title.is_some() {
                return Err(Refusal::field("id", Wrong::Taken));
            }
            let (title, employee_id) = (title.clone(), *employee_id);
            return Ok(vec![GoodsGroupEvent::Created { title, employee_id, at_ms }]);
        }
        if !self.is_live() {
            return Err(Refusal::NoSuchRule);
        }
        match command {
            GoodsGroupCommand::Rename { title, .. } if Some(title) == self.title.as_ref() => Ok(Vec::new()),
            GoodsGroupCommand::Rename { title, employee_id } => {
                let (title, employee_id) = (title.clone(), *employee_id);
                Ok(vec![GoodsGroupEvent::Renamed { title, employee_id, at_ms }])
            }
            GoodsGroupCommand::SetGoods { goods_ids, employee_id } => {
                let mut goods_ids = goods_ids.clone();
                goods_ids.sort_unstable();
                goods_ids.dedup();
                if goods_ids == self.goods_ids() {
                    return Ok(Vec::new());
                }
                Ok(vec![GoodsGroupEvent::GoodsSet { goods_ids, employee_id: *employee_id, at_ms }])
            }
            GoodsGroupCommand::Delete { employee_id } => {
                Ok(vec![GoodsGroupEvent::Deleted { employee_id: *employee_id, at_ms }])
            }
            GoodsGroupCommand::Create { .. } => Err(Refusal::NoSuchRule),
        }
    }
}
