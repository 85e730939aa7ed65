//! What the model says after every step, and the log walked once at the end and asked for all of it.
//!
//! Where a step ends, its last position and the time make a moment, or two where the clock went on behind the position: as of
//! a position means when it was recorded, as of a time all that was recorded by then. At each moment is written down, and
//! compared on the walk:
//!
//! - how many coupons every member has in each state; what was said before stands until it can have changed, so that a
//!   change that should not be is found as well;
//! - of every coupon that an event of the step is of, or whose gift lapsed by time alone: its row in the list of each member
//!   who ever held it, its page for those and for a stranger, and its redemptions. What has not been opened stays
//!   unopened, as opening it is an event: then its row must do;
//! - what is left of the definitions and allotments behind it; the definitions, allotments, partners and orders that the
//!   step's events are of;
//! - one whole page in turn of everything that is listed.
//!
//! Positions within a step, which has several where it appends at once what belongs together, are walked one by one: there
//! every member's counts are compared whom the step does not touch, and each coupon behind its last event of the step.

use std::collections::{BTreeMap, BTreeSet};

use coupon_ledger::audit::at::AsOf;
use coupon_ledger::http::as_of::AskedWalk;
use coupon_ledger::identity::Caller;
use coupon_ledger::store::StoredEvent;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{MEMBERS, PARTNERS, Simulation, caller};
use crate::as_of::{impersonal, question, source, told};
use crate::model::{Data, Expected, Model, Who};
use crate::replay::assert_store_equals_replay;

/// How many moments lie between two whole pages.
const PAGES_EVERY: usize = 2;

const COUNT: &str = "/client/couponcount";
const INFO: &str = "/client/couponinfo";

/// A member who never has anything.
const NOBODY: i64 = 999;

/// What the model said at a point of the log.
pub(super) struct Moment {
    as_of: AsOf,
    /// How many coupons those members have in each state whose number can have changed.
    counts: BTreeMap<i64, Value>,
    said: Vec<Said>,
}

/// An answer of the model's.
struct Said {
    /// The coupon of which it tells, and nothing else.
    coupon: Option<i64>,
    caller: Caller,
    path: &'static str,
    body: Value,
    /// The data, or the code of a refusal.
    answer: Result<Value, i64>,
}

/// What the events of a step are of.
#[derive(Default)]
struct Touched {
    coupons: BTreeSet<i64>,
    definitions: BTreeSet<i64>,
    allotments: BTreeSet<i64>,
    orders: BTreeSet<i64>,
    partners: BTreeSet<i64>,
}

impl Touched {
    fn by(events: &[StoredEvent]) -> Self {
        let of = |kind: &str| {
            let of_kind = events.iter().filter(|event| event.aggregate_type == kind);
            of_kind.map(|event| event.aggregate_id.parse().unwrap()).collect()
        };
        Self {
            coupons: of("coupon"),
            definitions: of("definition"),
            allotments: of("allotment"),
            orders: of("order"),
            partners: of("shop"),
        }
    }
}

impl Simulation {
    /// Writes down what the model says now, unless nothing has happened and no time has passed since it was last done.
    pub(super) async fn write_down(&mut self) {
        let before = self.moments.last().map_or(AsOf { position: 0, at_ms: 0 }, |moment| moment.as_of);
        let events = self.world.store().events_after(before.position, 10_000).await.unwrap();
        let mut here = before;
        if let Some(last) = events.last() {
            here = AsOf { position: last.position, at_ms: last.recorded_at_ms };
            self.write_down_at(here, before, Touched::by(&events));
        }
        let now = AsOf { at_ms: self.now_ms(), ..here };
        if now != here {
            self.write_down_at(now, here, Touched::default());
        }
    }

    fn write_down_at(&mut self, as_of: AsOf, before: AsOf, mut touched: Touched) {
        let zone = self.world.ledger.zone();
        let is_new_day = zone.moment(as_of.at_ms).day != zone.moment(before.at_ms).day;
        let page = self.moments.len().is_multiple_of(PAGES_EVERY).then(|| self.page_in_turn(as_of.at_ms));
        let mut writing = Writing { model: &mut self.model, at_ms: as_of.at_ms, said: Vec::new() };
        let mut changed = BTreeSet::new();
        touched.coupons.extend(writing.model.lapsing(before.at_ms, as_of.at_ms));
        for id in &touched.coupons {
            let (definition, allotment) = writing.model.born_of(*id).unwrap();
            touched.definitions.insert(definition);
            touched.allotments.insert(allotment);
            changed.extend(writing.model.holders(*id));
            writing.coupon(*id);
        }
        writing.all_but_coupons(&touched);
        if let Some((who, path, body)) = page {
            writing.ask(None, who, path, body);
        }
        let said = writing.said;
        let counted = MEMBERS.filter(|member| is_new_day || changed.contains(member));
        let counts = counted.map(|member| (member, self.count_of(member, as_of.at_ms))).collect();
        self.moments.push(Moment { as_of, counts, said });
    }

    fn count_of(&mut self, member: i64, at_ms: i64) -> Value {
        let expected = self.model.call(at_ms, &Who::Member(member), COUNT, &json!({}), &Value::Null);
        answer_of(expected).unwrap().unwrap()
    }

    /// Each time another of everything that is listed.
    fn page_in_turn(&self, at_ms: i64) -> (Who, &'static str, Value) {
        let day = self.world.ledger.zone().moment(at_ms).day.to_string();
        let whole = json!({"limit": 100});
        let mut pages = Vec::new();
        for member in MEMBERS {
            for state in 0..=2 {
                let body = json!({"state": state, "limit": 100});
                pages.push((Who::Member(member), "/client/couponlist", body));
            }
            pages.push((Who::Member(member), "/client/getauditcoupon", json!({"shop_id": member % 3 + 1})));
        }
        for path in [
            "/elecoupons/getlist",
            "/auditelecoupon/getlist",
            "/order/list",
            "/business/list",
            "/business/couponlist",
        ] {
            pages.push((Who::Operator, path, whole.clone()));
        }
        for amount in ["20.00", "120.00"] {
            pages.push((Who::Operator, "/order/getorderelecoupon", json!({"amount": amount})));
        }
        for id in PARTNERS {
            let member = Who::Member(MEMBERS.start() + id);
            let of_partner = json!({"business_id": id, "limit": 100});
            pages.push((Who::Partner(id), "/businesshome/get", json!({})));
            pages.push((Who::Partner(id), "/businesshome/auditcoupon", whole.clone()));
            pages.push((Who::Partner(id), "/businesshome/attractcoupon", whole.clone()));
            pages.push((Who::Operator, "/business/getattract", json!({"id": id, "limit": 100})));
            pages.push((Who::Operator, "/statistics/getattract", of_partner.clone()));
            pages.push((member, "/wechat/businesscoupon", of_partner));
            pages.push((member, "/wechat/auditlist", json!({"business_id": id, "date": day})));
        }
        pages.swap_remove(self.moments.len() / PAGES_EVERY % pages.len())
    }

    /// Walks the log once and compares what the server's own handlers answer on the way with what was written down.
    pub(super) async fn walk_along(&mut self) {
        let log = self.world.store().events_after(0, 1_000_000).await.unwrap();
        let mut walk = AskedWalk::begin(source(&self.world)).await.unwrap();
        let mut counts = BTreeMap::new();
        let mut passed = 0;
        for Moment { as_of, counts: counted, said } in std::mem::take(&mut self.moments) {
            let step = &log[passed..as_of.position as usize];
            passed = as_of.position as usize;
            counts.retain(|member, _| !counted.contains_key(member));
            for (number, event) in step.iter().enumerate().take(step.len().saturating_sub(1)) {
                let here = AsOf { position: event.position, at_ms: event.recorded_at_ms };
                walk.go_on(here).await.unwrap();
                let coupon = last_of_its_coupon(number, step).filter(|_| here.at_ms == as_of.at_ms);
                let of_coupon = said.iter().filter(|said| said.coupon.is_some() && said.coupon == coupon);
                compare(&walk, here, &counts, of_coupon).await;
            }
            walk.go_on(as_of).await.unwrap();
            counts.extend(counted);
            compare(&walk, as_of, &counts, said.iter()).await;
        }
        assert_eq!(passed, log.len(), "what was written last was not compared");
        assert_store_equals_replay(&walk.store()).await;
        walk.close().await;
    }
}

/// The coupon that this event of a step is of, if it is the step's last one of it.
fn last_of_its_coupon(number: usize, step: &[StoredEvent]) -> Option<i64> {
    let of =
        |event: &StoredEvent| (event.aggregate_type == "coupon").then(|| event.aggregate_id.parse().unwrap());
    let coupon = of(&step[number])?;
    step[number + 1..].iter().all(|event| of(event) != Some(coupon)).then_some(coupon)
}

async fn compare(
    walk: &AskedWalk,
    as_of: AsOf,
    counts: &BTreeMap<i64, Value>,
    said: impl Iterator<Item = &Said>,
) {
    let counted = counts.iter().map(|(member, count)| async move {
        let asked = question(Caller::Member(*member), COUNT, &json!({}));
        let then = told(walk.answer(asked).await);
        assert_eq!(then.as_ref(), Ok(count), "how many coupons member {member} had, {as_of:?}");
    });
    let compared = said.map(|Said { caller, path, body, answer, .. }| async move {
        let then = told(walk.answer(question(*caller, path, body)).await);
        assert_eq!(then.map(impersonal), *answer, "{path} {body} as {caller}, {as_of:?}");
    });
    join_all(counted).await;
    join_all(compared).await;
}

/// The model, asked as of one time.
struct Writing<'a> {
    model: &'a mut Model,
    at_ms: i64,
    said: Vec<Said>,
}

impl Writing<'_> {
    /// What those see of a coupon who ever held it, and who did not.
    fn coupon(&mut self, id: i64) {
        for member in self.model.holders(id) {
            let (state, row) = self.model.listed(self.at_ms, id, member).unwrap();
            let body = json!({"state": state, "before_id": id + 1, "limit": 1});
            self.put(Some(id), Who::Member(member), "/client/couponlist", body, json!([row]));
            if self.model.has_opened(id, member) {
                self.ask(Some(id), Who::Member(member), INFO, json!({"id": id}));
            }
        }
        self.ask(Some(id), Who::Member(NOBODY), INFO, json!({"id": id}));
        for (redemption, member) in self.model.redemptions_of(id) {
            let body = json!({"id": redemption});
            self.ask(Some(id), Who::Member(member), "/client/auditcouponinfo", body);
        }
    }

    /// What operators see of everything else that a step touches.
    fn all_but_coupons(&mut self, touched: &Touched) {
        for id in &touched.definitions {
            let (body, row) = (json!({"before_id": id + 1, "limit": 1}), self.model.defined(*id).unwrap());
            self.put(None, Who::Operator, "/elecoupons/getlist", body, json!([row]));
        }
        let partner_of: BTreeMap<i64, i64> = self.model.allotments().into_iter().collect();
        for id in &touched.allotments {
            let Some(partner) = partner_of.get(id) else { continue };
            let body = json!({"id": partner, "before_id": id + 1, "limit": 1});
            self.ask(None, Who::Operator, "/business/getattract", body);
            self.ask(None, Who::Operator, "/business/invenlist", json!({"bc_id": id, "limit": 3}));
        }
        for id in touched.partners.iter().filter(|id| PARTNERS.contains(id)) {
            self.ask(None, Who::Operator, "/business/get", json!({"id": id}));
        }
        for id in &touched.orders {
            self.ask(None, Who::Operator, "/order/get", json!({"id": id}));
            self.ask(None, Who::Operator, "/order/cancelago", json!({"id": id}));
        }
    }

    fn ask(&mut self, coupon: Option<i64>, who: Who, path: &'static str, body: Value) {
        let expected = self.model.call(self.at_ms, &who, path, &body, &Value::Null);
        if let Some(answer) = answer_of(expected) {
            self.said.push(Said { coupon, caller: caller(who), path, body, answer });
        }
    }

    fn put(&mut self, coupon: Option<i64>, who: Who, path: &'static str, body: Value, data: Value) {
        let answer = Ok(impersonal(data));
        self.said.push(Said { coupon, caller: caller(who), path, body, answer });
    }
}

/// None where the contract leaves it open.
fn answer_of(expected: Expected) -> Option<Result<Value, i64>> {
    match expected {
        Expected { code: 0, data: Data::Exactly(data) } => Some(Ok(impersonal(data))),
        Expected { code: 0, data: Data::Unpredictable } => None,
        Expected { code, .. } => Some(Err(code)),
    }
}
