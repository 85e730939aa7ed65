//! Figures that are more than sums (members, who came again, medians, means) against a plain count of the events: by every
//! dimension, for days, months and all at once, on the pages and in /v1, where what belongs together lies in two months.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use coupon_ledger::clock::{Zone, day_number};
use coupon_ledger::coupon::{Coupon, CouponEvent, Issue};
use coupon_ledger::entity::decode;
use coupon_ledger::identity::Caller;
use coupon_ledger::read_model::kind_number;
use coupon_ledger::value::money_text;
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, FRIEND, HOUR, MEMBER, World};
use crate::statistics::count_all;

/// What a use or a review can be told apart by.
type Dims = BTreeMap<&'static str, i64>;

struct Use {
    dims: Dims,
    redemption_id: i64,
    member_id: i64,
    day: NaiveDate,
    reversed_on: Option<NaiveDate>,
    cents: i64,
    age: i64,
}

struct Review {
    dims: Dims,
    day: NaiveDate,
    score: i32,
}

/// Everything that was used and reviewed, event by event.
#[derive(Default)]
struct Counted {
    uses: Vec<Use>,
    reviews: Vec<Review>,
}

impl Counted {
    async fn of(world: &World) -> Self {
        let day = |at_ms: i64| Zone::default().moment(at_ms).day;
        let mut counted = Self::default();
        let mut issues: BTreeMap<i64, Issue> = BTreeMap::new();
        let mut last_use: BTreeMap<i64, usize> = BTreeMap::new();
        for stored in world.store().events_after(0, i64::MAX).await.unwrap() {
            if stored.aggregate_type != "coupon" {
                continue;
            }
            let coupon_id: i64 = stored.aggregate_id.parse().unwrap();
            match decode::<Coupon>(&stored).unwrap() {
                CouponEvent::Issued(issue) => drop(issues.insert(coupon_id, *issue)),
                CouponEvent::Redeemed { redemption_id, member_id, shop_id, employee_id, at_ms } => {
                    let issue = &issues[&coupon_id];
                    let dims = Dims::from([
                        ("definition_id", issue.definition_id),
                        ("kind", kind_number(issue.terms.kind)),
                        ("source", issue.source.come()),
                        ("partner_id", 0),
                        ("shop_id", shop_id),
                        ("employee_id", employee_id),
                    ]);
                    last_use.insert(coupon_id, counted.uses.len());
                    counted.uses.push(Use {
                        dims,
                        redemption_id,
                        member_id,
                        day: day(at_ms),
                        reversed_on: None,
                        cents: issue.terms.deduction_cents,
                        age: (day(at_ms) - day(issue.at_ms)).num_days(),
                    });
                }
                CouponEvent::RedemptionReversed { redemption_id, at_ms, .. } => {
                    let mut uses = counted.uses.iter_mut();
                    uses.find(|used| used.redemption_id == redemption_id).unwrap().reversed_on =
                        Some(day(at_ms));
                }
                CouponEvent::Evaluated { score, at_ms, .. } => {
                    let dims = counted.uses[last_use[&coupon_id]].dims.clone();
                    counted.reviews.push(Review { dims, day: day(at_ms), score: i32::from(score) });
                }
                _ => {}
            }
        }
        counted
    }

    /// The figures of some days, both ends in them, of what has these numbers.
    fn figures(&self, (start, end): (NaiveDate, NaiveDate), of: &Dims) -> Value {
        let is_of = |dims: &Dims| of.iter().all(|(name, number)| dims[name] == *number);
        let within = |day: NaiveDate| (start..=end).contains(&day);
        let uses = || self.uses.iter().filter(|used| is_of(&used.dims));
        let redeemed: Vec<&Use> = uses().filter(|used| within(used.day)).collect();
        let reversed: Vec<&Use> = uses().filter(|used| used.reversed_on.is_some_and(within)).collect();
        let stand: Vec<&Use> = redeemed.iter().copied().filter(|used| used.reversed_on.is_none()).collect();
        let came_before = |used: &&&Use| {
            let mut others = self.uses.iter().filter(|other| other.reversed_on.is_none());
            others.any(|other| other.member_id == used.member_id && other.day < used.day)
        };
        let distinct = |uses: &mut dyn Iterator<Item = &&Use>| {
            uses.map(|used| used.member_id).collect::<BTreeSet<_>>().len()
        };
        let mut ages: Vec<i64> = stand.iter().map(|used| used.age).collect();
        ages.sort_unstable();
        let scores: Vec<i32> = self
            .reviews
            .iter()
            .filter(|one| is_of(&one.dims) && within(one.day))
            .map(|one| one.score)
            .collect();
        let cents = |uses: &[&Use]| uses.iter().map(|used| used.cents).sum::<i64>();
        let mean = f64::from(scores.iter().sum::<i32>()) / f64::from(scores.len() as u32);
        json!({
            "redeemed": redeemed.len(),
            "reversed": reversed.len(),
            "used": redeemed.len() as i64 - reversed.len() as i64,
            "used_cents": cents(&redeemed) - cents(&reversed),
            "members": distinct(&mut stand.iter()),
            "returning_members": distinct(&mut stand.iter().filter(came_before)),
            "median_days": ages.get(ages.len().saturating_sub(1) / 2),
            "reviewed": scores.len(),
            "average_score": if scores.is_empty() { Value::Null } else { ((mean * 100.0).round() / 100.0).into() },
        })
    }

    /// Every combination of numbers that something has.
    fn keys(&self, by: &[&'static str]) -> BTreeSet<Vec<i64>> {
        let dims =
            self.uses.iter().map(|used| &used.dims).chain(self.reviews.iter().map(|review| &review.dims));
        dims.map(|dims| by.iter().map(|name| dims[name]).collect()).collect()
    }
}

const MEASURES: &str =
    "redeemed,reversed,used,used_cents,members,returning_members,median_days,reviewed,average_score";

/// Three months with uses in two shops by hand and at the counter; what was used on the last day of November is taken back on
/// the first of December, a gift is given and received in the same two days.
async fn months(world: &World) {
    let cash = world.define(json!({"end_num": "90"})).await;
    let other =
        world.define(json!({"type": 2, "deduction": "0.00", "title": "兌換券", "end_num": "90"})).await;
    world.operator("/shop/add", json!({"shop_name": "分店", "phone": "1", "address": "b"})).await.ok();
    let at = |day: &str, hour: i64| {
        world.clock.set(Zone::default().day_starts_at_ms(day.parse().unwrap()) + hour * HOUR);
    };
    let by_hand = async |who: Caller, coupon: i64, shop: i64| {
        let body = json!({"mem_coupon_id": coupon, "shop_id": shop});
        world.call(who, "/client/auditcoupon", body).await.ok()["id"].clone()
    };
    let at_the_counter = async |coupon: i64| {
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": coupon})).await.ok();
    };
    at("2026-11-24", 9);
    let mine = [world.issue(cash, 439).await, world.issue(cash, 439).await, world.issue(cash, 439).await];
    let his = [world.issue(cash, 442).await, world.issue(other, 442).await];
    let exchange = world.issue(other, 439).await;
    at("2026-11-25", 10);
    by_hand(MEMBER, mine[0], 1).await;
    by_hand(FRIEND, his[1], 2).await;
    at("2026-11-30", 23);
    let taken_back = by_hand(MEMBER, mine[1], 2).await;
    at_the_counter(exchange).await;
    let code = world.give(MEMBER, mine[2]).await;
    at("2026-12-01", 1);
    world.operator("/user/reverseelecoupon", json!({"id": taken_back, "reason": "按錯了"})).await.ok();
    world.call(FRIEND, "/client/getcoupon", json!({"id": mine[2], "code": code})).await.ok();
    at("2026-12-05", 12);
    at_the_counter(mine[2]).await;
    by_hand(MEMBER, mine[1], 2).await;
    for (who, coupon, score) in [(FRIEND, mine[2], 4), (MEMBER, mine[1], 1), (MEMBER, exchange, 4)] {
        let review = json!({"id": coupon, "score": score, "evaluation": "好"});
        world.call(who, "/client/evaluacoupon", review).await.ok();
    }
    at("2027-01-10", 12);
    by_hand(FRIEND, his[0], 1).await;
    count_all(world).await;
}

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// The periods of a grain from 1 November to 31 January.
fn periods(grain: &str) -> Vec<(NaiveDate, NaiveDate)> {
    let (start, end) = (date("2026-11-01"), date("2027-01-31"));
    match grain {
        "all" => vec![(start, end)],
        "month" => vec![
            (start, date("2026-11-30")),
            (date("2026-12-01"), date("2026-12-31")),
            (date("2027-01-01"), end),
        ],
        _ => (0..92).map(|day| start + Days::new(day)).map(|day| (day, day)).collect(),
    }
}

on_both_engines! {
    async fn they_are_those_of_a_plain_count_by_whatever_they_are_told_apart(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let counted = Counted::of(&world).await;
        let by: [&[&'static str]; 9] = [
            &[], &["definition_id"], &["kind"], &["source"], &["partner_id"], &["shop_id"], &["employee_id"],
            &["definition_id", "shop_id"], &["shop_id", "employee_id"],
        ];
        for (grain, by) in ["all", "month", "day"].into_iter().flat_map(|grain| by.map(|by| (grain, by))) {
            let query = format!("measures={MEASURES}&grain={grain}&by={}&start=2026-11-01&end=2027-01-31", by.join(","));
            let reply = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await;
            assert_eq!(reply.status, 200, "{query}: {}", reply.body);
            let mut rows = reply.body["rows"].as_array().unwrap().clone();
            for (start, end) in periods(grain) {
                for key in counted.keys(by) {
                    let of: Dims = by.iter().copied().zip(key).collect();
                    let expected = counted.figures((start, end), &of);
                    let place = rows.iter().position(|row| {
                        row["start"] == start.to_string() && of.iter().all(|(name, number)| row[*name] == *number)
                    });
                    let Some(place) = place else {
                        let nothing = counted.figures((date("2020-01-01"), date("2020-01-01")), &of);
                        assert_eq!(expected, nothing, "{query}: no line of {start} {of:?}");
                        continue;
                    };
                    let row = rows.remove(place);
                    for (name, value) in expected.as_object().unwrap() {
                        assert_eq!(row[name], *value, "{query}: {name} of {start} {of:?}");
                    }
                }
            }
            // What is left is of what was issued and not used.
            for row in rows {
                assert_eq!((&row["redeemed"], &row["reversed"], &row["members"]), (&json!(0), &json!(0), &json!(0)), "{row}");
            }
        }
        let both = counted.figures((date("2026-11-01"), date("2027-01-31")), &Dims::new());
        assert_eq!((&both["returning_members"], &both["median_days"], &both["average_score"]), (&json!(2), &json!(6), &json!(3.0)));
        world.close().await;
    }

    async fn only_some_are_those_of_a_plain_count_too(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let counted = Counted::of(&world).await;
        let december = (date("2026-12-01"), date("2026-12-31"));
        for (name, number) in [("definition_id", 1), ("kind", 2), ("source", 5), ("partner_id", 0), ("shop_id", 2), ("employee_id", 1000)] {
            let query = format!("measures={MEASURES}&only={name}:{number}&start=2026-12-01&end=2026-12-31");
            let reply = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await;
            let expected = counted.figures(december, &Dims::from([(name, number)]));
            for (name, value) in expected.as_object().unwrap() {
                assert_eq!(reply.body["rows"][0][name], *value, "{query}: {name}");
            }
        }
        world.close().await;
    }

    async fn a_page_of_some_days_counts_what_happened_on_them(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let counted = Counted::of(&world).await;
        for (start, end) in periods("month") {
            let days = json!({"start": start.to_string(), "end": end.to_string(), "limit": 100});
            let page = world.operator("/statistics/elecoupon", days.clone()).await;
            assert_eq!(page.headers["as-of-position"], world.store().head().await.unwrap().to_string());
            let rows = page.ok().as_array().unwrap();
            assert_eq!(rows.len(), 2);
            for row in rows {
                let of = Dims::from([("definition_id", row["id"].as_i64().unwrap())]);
                let expected = counted.figures((start, end), &of);
                for name in MEASURES.split(',').filter(|name| *name != "used_cents") {
                    assert_eq!(row[name], expected[name], "{name} of {of:?} from {start}");
                }
                assert_eq!(row["used_money"], money_text(expected["used_cents"].as_i64().unwrap()));
            }
            let page = world.operator("/statistics/audit", days.clone()).await;
            assert_eq!(page.headers["as-of-position"], world.store().head().await.unwrap().to_string());
            let rows = page.ok().as_array().unwrap();
            assert_eq!(rows.len(), 2);
            for row in rows {
                let of = Dims::from([("shop_id", row["shop_id"].as_i64().unwrap())]);
                let expected = counted.figures((start, end), &of);
                for (name, measure) in [("num", "used"), ("redeemed", "redeemed"), ("reversed", "reversed"), ("members", "members")] {
                    assert_eq!(row[name], expected[measure], "{name} of {of:?} from {start}");
                }
                assert_eq!(row["money"], money_text(expected["used_cents"].as_i64().unwrap()));
            }
            // The uses behind a figure, a page of two at a time.
            for shop_id in [1, 2] {
                let mut listed = BTreeSet::new();
                for page in 1..=4 {
                    let body = json!({"shop_id": shop_id, "coupon_id": 1, "shop_type": 0, "start": days["start"], "end": days["end"],
                                      "page": page, "limit": 2});
                    let rows = world.operator("/statistics/auditcoupon", body).await;
                    assert_eq!(rows.headers["as-of-position"], world.store().head().await.unwrap().to_string());
                    listed.extend(rows.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()));
                }
                let stand = counted.uses.iter().filter(|used| {
                    used.reversed_on.is_none() && (start..=end).contains(&used.day)
                        && (used.dims["shop_id"], used.dims["definition_id"]) == (shop_id, 1)
                });
                assert_eq!(listed, stand.map(|used| used.redemption_id).collect(), "{shop_id} from {start}");
            }
        }
        assert_eq!(day_number(date("2026-12-01")), 20_261_201);
        world.close().await;
    }
}
