//! The manual's pages of statistics, and /v1 beside them, against a plain count of the coupons' states: by everything that
//! they can be told apart and chosen by, where what belongs together lies in two months, in a zone whose clocks are moved.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use coupon_ledger::clock::{Zone, day_number, day_text};
use coupon_ledger::identity::Caller;
use coupon_ledger::store::statistics::statistics;
use coupon_ledger::sweep::sweep;
use coupon_ledger::value::money_text;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, World};
use crate::sheets;
use crate::statistics::{computed, count_all};

const MINUTE: i64 = HOUR / 60;

/// The clocks go back at 2:00 on 1 November 2026: that day has 25 hours.
const ZONE: Zone = Zone(chrono_tz::America::New_York);

fn date(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

/// An autumn of two definitions, shops 1 and 2, and partner 3. Of what began in one month much ends in another: uses are taken
/// back, a gift is received, ends pass and are heard of late, one that passed is moved, a coupon is voided.
async fn autumn(engine: Engine) -> World {
    let day = |text: &str| ZONE.day_starts_at_ms(date(text));
    let world = World::at(engine, day("2026-10-20") + 12 * HOUR, ZONE).await;
    world.add_people().await;
    let place = json!({"shop_name": "分店", "phone": "1", "address": "b"});
    world.operator("/shop/add", place).await.ok();
    world.operator("/user/add", json!({"id": 1001, "name": "分店店員", "shop_id": 2})).await.ok();
    let place = json!({"shop_name": "隔壁咖啡", "phone": "1", "address": "c"});
    assert_eq!(world.operator("/business/add", place).await.ok()["id"], "3");
    let cash = world.define(json!({"end_num": "20"})).await;
    let other =
        json!({"type": 2, "deduction": "0.00", "title": "兌換券", "end_num": "40", "is_claim": 1, "num": 9});
    let other = world.define(other).await;
    let long = world.define(json!({"title": "長期券", "deduction": "7.50", "end_num": "90"})).await;
    let allot = json!({"business_id": 3, "coupon_id": long, "num": 10, "end_time": "2026-12-31"});
    world.operator("/business/addattract", allot).await.ok();
    let redeem = async |who: Caller, coupon: i64, shop: i64| {
        let body = json!({"mem_coupon_id": coupon, "shop_id": shop});
        world.call(who, "/client/auditcoupon", body).await.ok()["id"].clone()
    };
    let take_back = async |redemption: Value| {
        let body = json!({"id": redemption, "reason": "按錯了"});
        world.operator("/user/reverseelecoupon", body).await.ok();
    };
    let at_the_counter = async |employee: Caller, coupon: i64| {
        world.call(employee, "/user/auditelecoupon", json!({"mem_coupon_id": coupon})).await.ok();
    };
    let review = async |who: Caller, coupon: i64, score: i64| {
        let body = json!({"id": coupon, "score": score, "evaluation": "好"});
        world.call(who, "/client/evaluacoupon", body).await.ok();
    };
    let mine = [world.issue(cash, 439).await, world.issue(cash, 439).await, world.issue(cash, 439).await];
    let his = world.issue(cash, 442).await;
    let exchange = [world.issue(other, 439).await, world.issue(other, 439).await];
    world.call(FRIEND, "/client/claimcoupon", json!({"id": other})).await.ok();
    let mut taken = Vec::new();
    for who in [MEMBER, FRIEND] {
        let rows = world.call(who, "/wechat/receive", json!({"business_id": 3})).await;
        taken.push(rows.ok()[0]["id"].as_i64().unwrap());
    }
    world.call(MEMBER, "/client/couponinfo", json!({"id": mine[0]})).await.ok();
    // In the last hour of October.
    world.clock.set(day("2026-11-01") - 30 * MINUTE);
    let used = redeem(MEMBER, mine[0], 1).await;
    at_the_counter(EMPLOYEE, exchange[0]).await;
    redeem(FRIEND, taken[1], 2).await;
    let code = world.give(MEMBER, mine[2]).await;
    // In its second 1:30, then in its twenty-fifth hour, then after it.
    world.clock.set(day("2026-11-01") + 150 * MINUTE);
    world.call(FRIEND, "/client/getcoupon", json!({"id": mine[2], "code": code})).await.ok();
    take_back(used).await;
    world.clock.set(day("2026-11-01") + 24 * HOUR + 30 * MINUTE);
    at_the_counter(Caller::Employee(1001), exchange[1]).await;
    world.clock.set(day("2026-11-01") + 25 * HOUR + 15 * MINUTE);
    redeem(FRIEND, mine[2], 1).await;
    review(FRIEND, mine[2], 4).await;
    review(MEMBER, exchange[0], 5).await;
    // Used on the last of November, taken back on the first of December.
    world.clock.set(day("2026-12-01") - 10 * MINUTE);
    let used = redeem(MEMBER, taken[0], 2).await;
    world.clock.set(day("2026-12-01") + 10 * MINUTE);
    take_back(used).await;
    // Ends that passed in November are written down now, and moved.
    world.clock.set(day("2026-12-03") + HOUR);
    sweep(&world.ledger).await.unwrap();
    let extend = json!({"coupon_id": cash, "end_date": "2027-12-31", "reason": "延期"});
    world.operator("/elecoupons/extend", extend).await.ok();
    for job in coupon_ledger::runner::open_jobs(world.store()).await.unwrap() {
        coupon_ledger::runner::run_job(&world.ledger, job).await.unwrap();
    }
    world.advance(DAY);
    world.operator("/user/voidelecoupon", json!({"mem_coupon_id": his, "reason": "發錯"})).await.ok();
    count_all(&world).await;
    world
}

type Numbers = BTreeMap<&'static str, i64>;

/// What there is by a count that knows nothing of the statistics.
struct Counted {
    /// By day and everything.
    days: Vec<Numbers>,
    uses: Vec<Numbers>,
    cohorts: Vec<Numbers>,
}

impl Counted {
    async fn of(world: &World) -> Self {
        let tables = computed(world.store(), ZONE).await;
        let rows = |table: &str| {
            let statistic = statistics().unwrap().iter().find(|one| one.name == table).unwrap();
            let columns = |sums: bool| {
                let columns = statistic.columns.iter().filter(move |column| column.is_sum == sums);
                columns.map(|column| column.name)
            };
            let row = |(key, sums): (&Vec<i64>, &Vec<i64>)| {
                let (key, sums) = (key.iter().copied(), sums.iter().copied());
                columns(false).zip(key).chain(columns(true).zip(sums)).collect()
            };
            tables[table].iter().map(row).collect()
        };
        Self { days: rows("stats_days"), uses: rows("stats_uses"), cohorts: rows("stats_cohorts") }
    }

    /// Every figure of some days, both ends in them, of what has these numbers.
    fn figures(&self, (first, last): (i64, i64), of: &Numbers) -> Value {
        let is_of = |row: &&Numbers| of.iter().all(|(name, number)| row[name] == *number);
        let within = |row: &&Numbers| (first..=last).contains(&row["day"]);
        let days: Vec<&Numbers> = self.days.iter().filter(is_of).collect();
        let sum = |name: &str| days.iter().copied().filter(within).map(|row| row[name]).sum::<i64>();
        let level =
            |name: &str| days.iter().filter(|row| row["day"] <= last).map(|row| row[name]).sum::<i64>();
        let stand = |row: &&Numbers| row["used"] == 1;
        let uses: Vec<&Numbers> = self.uses.iter().filter(stand).filter(is_of).filter(within).collect();
        let came_before = |used: &Numbers| {
            let mut others = self.uses.iter().filter(stand);
            others.any(|other| other["member_id"] == used["member_id"] && other["day"] < used["day"])
        };
        let members: BTreeSet<i64> = uses.iter().map(|used| used["member_id"]).collect();
        let returned = uses.iter().filter(|used| came_before(used));
        let returned: BTreeSet<i64> = returned.map(|used| used["member_id"]).collect();
        let mut ages: Vec<i64> = uses.iter().map(|used| used["age_days"]).collect();
        ages.sort_unstable();
        let part = |of: i64, all: i64, scale: f64| {
            if all == 0 {
                return Value::Null;
            }
            let share = f64::from(of as i32) / f64::from(all as i32);
            ((share * scale).round() / scale).into()
        };
        let mut figures = json!({
            "used": sum("redeemed") - sum("reversed"),
            "used_cents": sum("redeemed_cents") - sum("reversed_cents"),
            "average_score": part(sum("score"), sum("reviewed"), 100.0),
            "outstanding": level("outstanding"),
            "outstanding_cents": level("outstanding_cents"),
            "redemption_rate": part(sum("redeemed") - sum("reversed"), sum("issued"), 10_000.0),
            "median_days": ages.get(ages.len().saturating_sub(1) / 2),
            "members": members.len(),
            "returning_members": returned.len(),
        });
        for name in [
            "issued",
            "claimed",
            "viewed",
            "given",
            "received",
            "redeemed",
            "reversed",
            "expired",
            "voided",
            "reviewed",
            "issued_cents",
            "redeemed_cents",
            "reversed_cents",
            "expired_cents",
        ] {
            figures[name] = sum(name).into();
        }
        // A coupon is issued at no shop and expires at none.
        if of.contains_key("shop_id") || of.contains_key("employee_id") {
            for name in OF_BOTH {
                figures[name] = Value::Null;
            }
        }
        figures
    }

    /// Every number that something has there.
    fn numbers(&self, column: &str) -> BTreeSet<i64> {
        self.days.iter().map(|row| row[column]).collect()
    }
}

const OF_BOTH: [&str; 5] =
    ["outstanding", "outstanding_cents", "expired", "expired_cents", "redemption_rate"];

/// The figures of a page's row, and what they are called where they are measured.
const FIGURES: [(&str, &str); 21] = [
    ("issued", "issued"),
    ("claimed", "claimed"),
    ("viewed", "viewed"),
    ("given", "given"),
    ("received", "received"),
    ("redeemed", "redeemed"),
    ("reversed", "reversed"),
    ("used", "used"),
    ("expired", "expired"),
    ("voided", "voided"),
    ("reviewed", "reviewed"),
    ("average_score", "average_score"),
    ("issued_money", "issued_cents"),
    ("used_money", "used_cents"),
    ("expired_money", "expired_cents"),
    ("outstanding", "outstanding"),
    ("outstanding_money", "outstanding_cents"),
    ("redemption_rate", "redemption_rate"),
    ("median_days", "median_days"),
    ("members", "members"),
    ("returning_members", "returning_members"),
];

const OF_SHOP: [(&str, &str); 11] = [
    ("num", "used"),
    ("money", "used_cents"),
    ("redeemed", "redeemed"),
    ("reversed", "reversed"),
    ("redeemed_money", "redeemed_cents"),
    ("reversed_money", "reversed_cents"),
    ("members", "members"),
    ("returning_members", "returning_members"),
    ("reviewed", "reviewed"),
    ("average_score", "average_score"),
    ("median_days", "median_days"),
];

/// A row is what was counted, figure by figure.
fn assert_figures(row: &Value, figures: &[(&str, &str)], expected: &Value, of: &str) {
    for (name, measure) in figures {
        let shown = match expected[measure].as_i64() {
            Some(cents) if measure.ends_with("_cents") => money_text(cents).into(),
            _ => expected[measure].clone(),
        };
        assert_eq!(row[name], shown, "{name} of {of}: {row}");
    }
}

/// October, November, December, all three, what is cut on both sides, and the day of 25 hours.
const RANGES: [(&str, &str); 6] = [
    ("2026-10-01", "2026-10-31"),
    ("2026-11-01", "2026-11-30"),
    ("2026-12-01", "2026-12-31"),
    ("2026-10-01", "2026-12-31"),
    ("2026-10-31", "2026-12-03"),
    ("2026-11-01", "2026-11-01"),
];

/// What the pages call it, and the statistics.
const BY: [(&str, &str); 4] =
    [("shop", "shop_id"), ("user", "employee_id"), ("business", "partner_id"), ("come", "source")];

/// What is chosen, as a page's fields and as it is counted.
fn choices() -> Vec<(Value, Numbers)> {
    vec![
        (json!({}), Numbers::new()),
        (json!({"user_id": 0}), Numbers::from([("employee_id", 0)])),
        (json!({"user_id": 1001, "business_id": ""}), Numbers::from([("employee_id", 1001)])),
        (json!({"business_id": 3}), Numbers::from([("partner_id", 3)])),
        (json!({"come": 5, "business_id": "0"}), Numbers::from([("source", 5), ("partner_id", 0)])),
    ]
}

fn with(of: &Value, more: &Value) -> Value {
    let mut body = of.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn rows(world: &World, route: &str, body: &Value) -> Vec<Value> {
    let page = world.operator(route, body.clone()).await;
    let rows = page.ok().as_array().unwrap().clone();
    assert_eq!(
        page.headers["as-of-position"],
        world.store().head().await.unwrap().to_string(),
        "{route} {body}"
    );
    rows
}

async fn figures(world: &World, query: &str) -> Vec<Value> {
    let reply = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await;
    assert_eq!(reply.status, 200, "{query}: {}", reply.body);
    reply.body["rows"].as_array().unwrap().clone()
}

/// The same choice as /v1 has it.
fn only(of: &Numbers) -> String {
    let one = |(column, number): (&&str, &i64)| format!("{column}:{number}");
    of.iter().map(one).collect::<Vec<_>>().join(";")
}

/// Rows by whatever they are told apart by: each is as counted, and what has no row has nothing to tell.
fn assert_rows(
    rows: &[Value],
    counted: &Counted,
    (days, of): ((i64, i64), &Numbers),
    by: (&str, &'static str),
) {
    let (id, column) = by;
    let nothing = counted.figures((0, 0), &with_number(of, column, 0));
    let mut left = rows.to_vec();
    for number in counted.numbers(column) {
        let key = with_number(of, column, number);
        let chosen_otherwise = of.get(column).is_some_and(|chosen| *chosen != number);
        let expected = if chosen_otherwise { nothing.clone() } else { counted.figures(days, &key) };
        match left.iter().position(|row| row[id] == number) {
            Some(place) => {
                assert_figures(&left.remove(place), &FIGURES, &expected, &format!("{key:?} {days:?}"));
            }
            None => assert_eq!(expected, nothing, "no row of {key:?} in {days:?}"),
        }
    }
    assert_eq!(left, Vec::<Value>::new(), "rows that nothing happened to");
    let ids: Vec<i64> = rows.iter().map(|row| row[id].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|one, other| one > other), "{ids:?}");
}

fn with_number(of: &Numbers, column: &'static str, number: i64) -> Numbers {
    let mut of = of.clone();
    of.insert(column, number);
    of
}

/// A list page by page, and behind each of its ids, is the list.
async fn assert_cut(world: &World, route: &str, body: &Value, id: &str) {
    let whole = rows(world, route, &with(body, &json!({"limit": 100}))).await;
    assert!(whole.len() > 1, "{route} {body} has one page alone: {whole:?}");
    for limit in [1, 2] {
        let mut pages = Vec::new();
        for page in 1..=whole.len() + 1 {
            let part = rows(world, route, &with(body, &json!({"page": page, "limit": limit}))).await;
            assert!(part.len() <= limit, "{route} {body}");
            pages.extend(part);
        }
        assert_eq!(pages, whole, "{route} {body} by pages of {limit}");
        let mut behind = rows(world, route, &with(body, &json!({"page": 1, "limit": limit}))).await;
        while let Some(last) = behind.last().map(|row| row[id].clone()).filter(|last| *last != 0) {
            let part = rows(world, route, &with(body, &json!({"before_id": last, "limit": limit}))).await;
            if part.is_empty() {
                break;
            }
            behind.extend(part);
        }
        assert_eq!(behind, whole, "{route} {body} by ids, {limit} at a time");
    }
    let both = world.operator(route, with(body, &json!({"page": 1, "before_id": 9}))).await;
    assert_eq!(both.code(), 401, "{route}");
}

on_both_engines! {
    async fn pages_and_v1_are_a_plain_count_by_whatever_they_are_told_apart_and_chosen(engine: Engine) {
        let world = autumn(engine).await;
        let counted = Counted::of(&world).await;
        let names = |one: fn(&Value) -> bool, rows: &[Value]| rows.iter().any(one);
        let (mut below, mut unexpired) = (false, false);
        for (start, end) in RANGES {
            let days = (day_number(date(start)), day_number(date(end)));
            for (fields, of) in choices() {
                let body = with(&fields, &json!({"start": start, "end": end, "limit": 100}));
                let told = rows(&world, "/statistics/elecoupon", &body).await;
                assert_eq!(told.len(), 3);
                for row in &told {
                    let of = with_number(&of, "definition_id", row["id"].as_i64().unwrap());
                    assert_figures(row, &FIGURES, &counted.figures(days, &of), &format!("{of:?} {days:?}"));
                }
                let told = rows(&world, "/statistics/audit", &body).await;
                let shops: Vec<_> = told.iter().map(|row| [row["shop_id"].clone(), row["shop_type"].clone()]).collect();
                assert_eq!(json!(shops), json!([[3, 1], [2, 0], [1, 0]]));
                for row in &told {
                    let of = with_number(&of, "shop_id", row["shop_id"].as_i64().unwrap());
                    assert_figures(row, &OF_SHOP, &counted.figures(days, &of), &format!("{of:?} {days:?}"));
                }
                below |= names(|row| row["num"].as_i64() < Some(0), &told);
                for (name, column) in BY {
                    let told = rows(&world, "/statistics/elecouponby", &with(&body, &json!({"by": name}))).await;
                    assert_rows(&told, &counted, (days, &of), ("id", column));
                    unexpired |= names(|row| row["expired"].as_i64().is_some_and(|expired| expired < 0), &told);
                    // The same from /v1, as far as it is measured there.
                    let one_sided = [column].iter().chain(of.keys()).any(|column| ["shop_id", "employee_id"].contains(column));
                    let measures = FIGURES.iter().map(|(_, measure)| *measure);
                    let measures: Vec<_> = measures.filter(|name| !one_sided || !OF_BOTH.contains(name)).collect();
                    let measured = figures(&world, &format!(
                        "by={column}&start={start}&end={end}&only={}&measures={}", only(&of), measures.join(","),
                    )).await;
                    assert_eq!(measured.len(), told.len(), "{column} {of:?}");
                    for (line, row) in measured.iter().rev().zip(&told) {
                        assert_eq!(line[column], row["id"]);
                        let called = |measure: &str| FIGURES.iter().find(|(_, of)| *of == measure).unwrap().0;
                        for measure in &measures {
                            let shown = match line[measure].as_i64() {
                                Some(cents) if measure.ends_with("_cents") => money_text(cents).into(),
                                _ => line[measure].clone(),
                            };
                            assert_eq!(row[called(measure)], shown, "{measure} of {line}");
                        }
                    }
                }
            }
        }
        assert!(below && unexpired, "nothing was taken back or moved in a month of its own");
        world.close().await;
    }

    async fn each_day_is_told_whether_or_not_something_happened(engine: Engine) {
        let world = autumn(engine).await;
        let counted = Counted::of(&world).await;
        for (fields, of) in choices().into_iter().chain([(json!({"shop_id": 1, "coupon_id": 1}), Numbers::from([("shop_id", 1), ("definition_id", 1)]))]) {
            let body = with(&fields, &json!({"by": "day", "start": "2026-10-18", "end": "2026-12-10", "limit": 100}));
            let told = rows(&world, "/statistics/elecouponby", &body).await;
            let days: Vec<NaiveDate> = (0..54).map(|ago| date("2026-12-10") - Days::new(ago)).collect();
            assert_eq!(told.len(), days.len());
            for (row, day) in told.iter().zip(days) {
                let number = day_number(day);
                assert_eq!((&row["id"], &row["name"]), (&json!(number), &json!(day.to_string())));
                assert_figures(row, &FIGURES, &counted.figures((number, number), &of), &format!("{of:?} {day}"));
            }
        }
        // Thirty days up to today, unless it is said since when or until when: today is 4 December.
        let span = async |fields: Value| {
            let told = rows(&world, "/statistics/elecouponby", &with(&fields, &json!({"by": "day", "limit": 100}))).await;
            [told.last().unwrap()["name"].clone(), told[0]["name"].clone(), told.len().into()]
        };
        assert_eq!(json!(span(json!({})).await), json!(["2026-11-05", "2026-12-04", 30]));
        assert_eq!(json!(span(json!({"end": "2026-11-01"})).await), json!(["2026-10-03", "2026-11-01", 30]));
        assert_eq!(json!(span(json!({"start": "2026-12-03"})).await), json!(["2026-12-03", "2026-12-04", 2]));
        assert_eq!(json!(span(json!({"start": "2027-01-01"})).await), json!(["2027-01-01", "2027-01-01", 1]));
        world.close().await;
    }

    /// What happens at no shop is told under shop 0: issues, claims, views, gifts and voids.
    async fn what_is_issued_claimed_and_viewed_falls_under_shop_0(engine: Engine) {
        let world = autumn(engine).await;
        let days = "start=2026-10-01&end=2026-12-31";
        let at_no_shop = "issued,claimed,viewed,given,received,voided";
        let told = figures(&world, &format!("by=shop_id&measures={at_no_shop}&{days}")).await;
        let of_shop = |shop: i64, numbers: [i64; 6]| {
            let mut row = json!({"start": "2026-10-01", "end": "2026-12-31", "shop_id": shop});
            for (name, number) in at_no_shop.split(',').zip(numbers) {
                row[name] = number.into();
            }
            row
        };
        assert_eq!(told, [of_shop(0, [9, 1, 1, 1, 1, 1]), of_shop(1, [0; 6]), of_shop(2, [0; 6])]);
        let page = rows(&world, "/statistics/elecouponby", &json!({"by": "shop"})).await;
        for (row, line) in page.iter().zip(told.iter().rev()) {
            for name in at_no_shop.split(',') {
                assert_eq!(row[name], line[name], "{name} of {row}");
            }
        }
        let names: Vec<_> = page.iter().map(|row| json!([row["id"], row["name"]])).collect();
        assert_eq!(json!(names), json!([[2, "分店"], [1, "總店"], [0, ""]]));
        assert_eq!(page[2]["redeemed"], 0, "nothing is used at no shop");
        let names = rows(&world, "/statistics/elecouponby", &json!({"by": "business"})).await;
        let names: Vec<_> = names.iter().map(|row| json!([row["id"], row["name"]])).collect();
        assert_eq!(json!(names), json!([[3, "隔壁咖啡"], [0, ""]]));
        world.close().await;
    }

    async fn every_page_is_cut_into_pages_and_behind_an_id(engine: Engine) {
        let world = autumn(engine).await;
        for (route, body, id) in [
            ("/statistics/elecoupon", json!({}), "id"),
            ("/statistics/elecoupon", json!({"business_id": 3, "start": "2026-11-01"}), "id"),
            ("/statistics/elecouponby", json!({"by": "shop"}), "id"),
            ("/statistics/elecouponby", json!({"by": "user", "come": 5}), "id"),
            ("/statistics/elecouponby", json!({"by": "business"}), "id"),
            ("/statistics/elecouponby", json!({"by": "come"}), "id"),
            ("/statistics/elecouponby", json!({"by": "day", "start": "2026-10-30", "end": "2026-11-02"}), "id"),
            ("/statistics/audit", json!({}), "shop_id"),
            ("/statistics/audit", json!({"come": 7, "end": "2026-11-15"}), "shop_id"),
            ("/statistics/audittype", json!({"shop_id": "", "type": 1, "shop_type": 0}), "coupon_id"),
            ("/statistics/auditcoupon", json!({"shop_id": "", "coupon_id": 2, "shop_type": 0}), "id"),
        ] {
            assert_cut(&world, route, &body, id).await;
        }
        // A page that names no page is all of it only where the manual has none.
        assert_eq!(rows(&world, "/statistics/audit", &json!({})).await.len(), 3);
        assert_eq!(rows(&world, "/statistics/audit", &json!({"page": 2, "limit": 2})).await.len(), 1);
        world.close().await;
    }

    /// A figure, what it is of, and the uses themselves: the employee's, the partner's, those of a source.
    async fn from_a_figure_down_to_its_uses_the_choice_is_the_same(engine: Engine) {
        let world = autumn(engine).await;
        let counted = Counted::of(&world).await;
        let whole = json!({"start": "2026-10-01", "end": "2026-12-31", "limit": 100});
        let mut listed = 0;
        for (fields, of) in choices() {
            let body = with(&whole, &fields);
            for shop in rows(&world, "/statistics/audit", &body).await {
                let mut num = 0;
                for kind in [1, 2] {
                    let of_kind = json!({"shop_id": shop["shop_id"], "type": kind, "shop_type": 0});
                    for row in rows(&world, "/statistics/audittype", &with(&body, &of_kind)).await {
                        num += row["num"].as_i64().unwrap();
                        let of_coupon = json!({"shop_id": shop["shop_id"], "coupon_id": row["coupon_id"], "shop_type": 0});
                        let uses = rows(&world, "/statistics/auditcoupon", &with(&body, &of_coupon)).await;
                        let key = with_number(&of, "shop_id", shop["shop_id"].as_i64().unwrap());
                        let key = with_number(&key, "definition_id", row["coupon_id"].as_i64().unwrap());
                        let stand = counted.uses.iter().filter(|used| used["used"] == 1);
                        let stand = stand.filter(|used| key.iter().all(|(name, number)| used[name] == *number));
                        let mut ids: Vec<i64> = stand.map(|used| used["redemption_id"]).collect();
                        ids.sort_unstable_by(|one, other| other.cmp(one));
                        assert_eq!(uses.iter().map(|used| used["id"].as_i64().unwrap()).collect::<Vec<_>>(), ids);
                        for told in &uses {
                            let used = counted.uses.iter().find(|used| told["id"] == used["redemption_id"]).unwrap();
                            for (name, column) in [("mem_coupon_id", "coupon_id"), ("coupon_id", "definition_id"), ("shop_id", "shop_id"),
                                                   ("user_id", "employee_id"), ("member_id", "member_id"), ("come", "source")] {
                                assert_eq!(told[name], used[column], "{name} of {told}");
                            }
                            assert_eq!(told["deduction"], money_text(used["value_cents"]));
                            assert_eq!((&told["create_date"], &told["shop_name"]), (&json!(used["used_at_ms"] / 1_000), &shop["shop_name"]));
                        }
                        assert_eq!(row["num"], uses.len(), "{key:?}");
                        listed += uses.len();
                    }
                }
                assert_eq!(shop["num"], num, "{fields} {shop}");
            }
        }
        assert!(listed > 6, "{listed}");
        // Used on the one day and taken back on the other: in both together there is nothing to tell.
        let both_days = json!({"start": "2026-10-31", "end": "2026-11-01", "shop_id": 1, "type": 1});
        assert_eq!(rows(&world, "/statistics/audittype", &both_days).await, Vec::<Value>::new());
        // Taken back on another day: the use is gone from the list, and its own month's figure stays.
        let november = json!({"start": "2026-11-01", "end": "2026-11-30", "shop_id": 2, "shop_type": 0, "business_id": 3});
        let of_type = rows(&world, "/statistics/audittype", &with(&november, &json!({"type": 1}))).await;
        assert_eq!(json!(of_type), json!([{"coupon_id": 3, "coupon_title": "長期券", "type": 1, "deduction": "7.50",
                                           "num": 1, "money": "7.50", "redeemed": 1, "reversed": 0}]));
        assert_eq!(rows(&world, "/statistics/auditcoupon", &with(&november, &json!({"coupon_id": 3}))).await, Vec::<Value>::new());
        let december = with(&november, &json!({"start": "2026-12-01", "end": "2026-12-31", "type": 1}));
        assert_eq!(json!(rows(&world, "/statistics/audittype", &december).await), json!([{
            "coupon_id": 3, "coupon_title": "長期券", "type": 1, "deduction": "7.50",
            "num": -1, "money": "-7.50", "redeemed": 0, "reversed": 1,
        }]));
        world.close().await;
    }

    /// By how long it took no reversal is kept: a use that was taken back is none on its own day.
    async fn uses_are_told_by_the_days_since_the_issue(engine: Engine) {
        let world = autumn(engine).await;
        let counted = Counted::of(&world).await;
        let by_age = |days: (i64, i64), of: &Numbers| {
            let mut ages: BTreeMap<i64, [i64; 2]> = BTreeMap::new();
            let is_of = |used: &&Numbers| of.iter().all(|(name, number)| used[name] == *number);
            let uses = counted.uses.iter().filter(|used| used["used"] == 1 && (days.0..=days.1).contains(&used["day"]));
            for used in uses.filter(is_of) {
                let [number, cents] = ages.entry(used["age_days"]).or_default();
                (*number, *cents) = (*number + 1, *cents + used["value_cents"]);
            }
            ages
        };
        let mut told_ages = 0;
        for (start, end) in RANGES {
            let days = (day_number(date(start)), day_number(date(end)));
            for of in [Numbers::new(), Numbers::from([("partner_id", 3)]), Numbers::from([("shop_id", 1)]), Numbers::from([("employee_id", 0)])] {
                // Of an employee's, only the uses themselves tell it, and no deductions added up.
                let by_use = of.contains_key("employee_id");
                let measures = if by_use { "used" } else { "used,used_cents" };
                let query = format!("by=age_days&measures={measures}&start={start}&end={end}&only={}", only(&of));
                let told = figures(&world, &query).await;
                let mut expected = by_age(days, &of);
                for row in &told {
                    let [number, cents] = expected.remove(&row["age_days"].as_i64().unwrap()).unwrap_or_default();
                    assert_eq!(row["used"], number, "{query}: {row}");
                    assert!(by_use || row["used_cents"] == cents, "{query}: {row}");
                    told_ages += 1;
                }
                assert_eq!(expected, BTreeMap::new(), "{query}");
            }
        }
        assert!(told_ages > 6, "{told_ages}");
        let of_one_age = figures(&world, "measures=used&only=age_days:11&start=2026-10-01&end=2026-12-31").await;
        assert_eq!(json!(of_one_age), json!([{"start": "2026-10-01", "end": "2026-12-31", "used": 2}]));
        for query in ["by=age_days,employee_id&measures=used_cents", "by=age_days&measures=redeemed", "by=age_days&measures=used,redemption_rate"] {
            let refused = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await;
            assert_eq!((refused.status.as_u16(), refused.code()), (400, 401), "{query}");
            assert!(refused.body["info"].to_string().contains("no statistic has age_days, "), "{}", refused.body);
        }
        world.close().await;
    }

    /// Of all that was issued and opened, what was used there.
    async fn cohorts_and_funnels_of_a_shop_count_the_uses_there(engine: Engine) {
        let world = autumn(engine).await;
        let counted = Counted::of(&world).await;
        let sum = |rows: &[&Numbers], name: &str| rows.iter().map(|row| row[name]).sum::<i64>();
        let mut used_somewhere = 0;
        for (filter, of_coupons, of_uses) in [
            ("", Numbers::new(), Numbers::new()),
            ("shop_id:1", Numbers::new(), Numbers::from([("shop_id", 1)])),
            ("shop_id:2", Numbers::new(), Numbers::from([("shop_id", 2)])),
            ("employee_id:0", Numbers::new(), Numbers::from([("employee_id", 0)])),
            ("shop_id:2;partner_id:3", Numbers::from([("partner_id", 3)]), Numbers::from([("shop_id", 2)])),
            ("definition_id:2;employee_id:1000", Numbers::from([("definition_id", 2)]), Numbers::from([("employee_id", 1000)])),
        ] {
            let is_of = |row: &Numbers, of: &Numbers| of.iter().all(|(name, number)| row[name] == *number);
            let cohort: Vec<&Numbers> = counted.cohorts.iter().filter(|row| is_of(row, &of_coupons)).collect();
            let uses: Vec<&Numbers> = counted.uses.iter().filter(|row| {
                row["used"] == 1 && is_of(row, &of_coupons) && is_of(row, &of_uses)
            }).collect();
            let query = format!("start=2026-10-19&end=2026-12-13&until=2026-12-31&issued=week&used=day&only={filter}");
            let reply = world.get(Caller::Auditor, &format!("/v1/statistics/cohorts?{query}")).await;
            assert_eq!(reply.body["as_of"]["position"], world.store().head().await.unwrap(), "{}", reply.body);
            let told = reply.body["cohorts"].as_array().unwrap();
            assert_eq!(told.len(), 8);
            let number = |day: &Value| day_number(date(day.as_str().unwrap()));
            for one in told {
                let of_cohort = |row: &&&Numbers| (number(&one["start"])..=number(&one["end"])).contains(&row["issue_day"]);
                let cohort: Vec<&Numbers> = cohort.iter().filter(of_cohort).copied().collect();
                let uses: Vec<&Numbers> = uses.iter().filter(of_cohort).copied().collect();
                assert_eq!(one["issued"], sum(&cohort, "issued"), "{filter} {one}");
                for period in one["periods"].as_array().unwrap() {
                    let day = number(&period["start"]);
                    let on = |rows: &[&Numbers], name: &str, so_far: bool| {
                        let is_in = |row: &&&Numbers| row["day"] == day || so_far && row["day"] < day;
                        sum(&rows.iter().filter(is_in).copied().collect::<Vec<_>>(), name)
                    };
                    let expected = [
                        ("seen", on(&cohort, "seen", false)), ("used", on(&uses, "used", false)),
                        ("seen_so_far", on(&cohort, "seen", true)), ("used_so_far", on(&uses, "used", true)),
                    ];
                    for (name, number) in expected {
                        assert_eq!(period[name], number, "{name} of {filter} on {}", day_text(day));
                    }
                    used_somewhere += i64::from(!filter.is_empty()) * period["used"].as_i64().unwrap();
                }
            }
            let funnel = format!("/v1/statistics/funnel?start=2026-10-01&end=2026-12-31&only={filter}");
            let funnel = world.get(Caller::Auditor, &funnel).await.body;
            let numbers = [&funnel["issued"], &funnel["seen"], &funnel["used"]].map(|one| one.as_i64().unwrap());
            assert_eq!(numbers, [sum(&cohort, "issued"), sum(&cohort, "seen"), sum(&uses, "used")], "{filter}");
            // All were issued on 20 October.
            for (days, is_theirs) in [("start=2026-10-20&end=2026-10-20", 1), ("start=2026-10-01&end=2026-10-19", 0), ("start=2026-10-21&end=2026-12-31", 0)] {
                let funnel = world.get(Caller::Auditor, &format!("/v1/statistics/funnel?{days}&only={filter}")).await.body;
                let numbers = [&funnel["issued"], &funnel["seen"], &funnel["used"]].map(|one| one.as_i64().unwrap());
                assert_eq!(numbers, [sum(&cohort, "issued"), sum(&cohort, "seen"), sum(&uses, "used")].map(|all| all * is_theirs), "{days} {filter}");
            }
            let late = format!("/v1/statistics/cohorts?start=2026-10-21&end=2026-12-13&until=2026-12-31&only={filter}");
            for cohort in world.get(Caller::Auditor, &late).await.body["cohorts"].as_array().unwrap() {
                let periods = cohort["periods"].as_array().unwrap();
                assert!(cohort["issued"] == 0 && periods.iter().all(|one| one["used_so_far"] == 0), "{cohort}");
            }
        }
        // How many were issued is told of all of a cohort's days, wherever what happened to them is cut off.
        let early = "/v1/statistics/cohorts?start=2026-10-01&end=2026-10-31&until=2026-10-15&issued=month&used=day";
        let early = world.get(Caller::Auditor, early).await.body;
        assert_eq!(early["cohorts"][0]["issued"], counted.cohorts.iter().map(|row| row["issued"]).sum::<i64>());
        assert_eq!(early["cohorts"][0]["periods"].as_array().unwrap().len(), 15);
        assert!(used_somewhere > 4, "{used_somewhere}");
        world.close().await;
    }

    /// A list of redemptions is told at once, as of a position: what is counted up to there is the same.
    async fn what_both_sides_settle_by_is_what_is_counted_at_its_position(engine: Engine) {
        let world = autumn(engine).await;
        let taken = world.call(MEMBER, "/wechat/receive", json!({"business_id": 3})).await.ok()[0]["id"].clone();
        let used = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": taken, "shop_id": 1})).await;
        let body = json!({"business_id": 3, "strar": "2026-10-01", "end": "2026-12-31", "limit": 100});
        // Before it is counted it stands there, and says so.
        let page = world.operator("/statistics/getattract", body.clone()).await;
        let head = world.store().head().await.unwrap();
        assert_eq!(page.headers["as-of-position"], head.to_string());
        assert_eq!(page.ok()[0]["id"].to_string(), used.ok()["id"].as_str().unwrap());
        let behind = world.get(Caller::Auditor, "/v1/statistics/figures").await;
        assert!(behind.body["as_of"]["position"].as_i64().unwrap() < head, "{}", behind.body);
        count_all(&world).await;
        let theirs = world.call(Caller::Partner(3), "/businesshome/auditcoupon", body.clone()).await;
        assert_eq!(theirs.headers.get("as-of-position"), None, "how much happens is none of his business");
        for rows in [page.ok(), theirs.ok()] {
            let rows = rows.as_array().unwrap();
            let cents = rows.len() as i64 * 750;
            let query = "measures=used,used_cents&only=partner_id:3&start=2026-10-01&end=2026-12-31";
            let counted = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await.body;
            assert_eq!(page.headers["as-of-position"], counted["as_of"]["position"].to_string());
            let line = &counted["rows"][0];
            assert_eq!((&line["used"], &line["used_cents"]), (&json!(rows.len()), &json!(cents)));
            let by = json!({"by": "business", "start": "2026-10-01", "end": "2026-12-31", "business_id": 3});
            let counted = &self::rows(&world, "/statistics/elecouponby", &by).await[0];
            assert_eq!((&counted["used"], &counted["used_money"]), (&json!(rows.len()), &json!(money_text(cents))));
            let sheet = sheets::table(&world, "settlements", "").await;
            let settled: BTreeSet<String> = sheet.iter().map(|row| row["redemption_id"].as_str().unwrap().to_owned()).collect();
            let mut listed: BTreeSet<String> = rows.iter().map(|row| row["id"].to_string()).collect();
            assert_eq!(listed.len(), 2);
            // Of what is not used the sheet has a row too.
            listed.extend(settled.iter().filter(|id| ["", "0"].contains(&id.as_str())).cloned());
            assert_eq!(settled, listed);
        }
        let mut pages = Vec::new();
        for page in 1..=3 {
            let part = world.operator("/statistics/getattract", with(&body, &json!({"page": page, "limit": 1}))).await;
            pages.extend(part.ok().as_array().unwrap().clone());
        }
        assert_eq!(json!(pages), *page.ok());
        world.close().await;
    }

    /// Of every page and every resource, its files among them.
    async fn what_is_asked_wrongly_is_refused_by_every_page_and_by_v1(engine: Engine) {
        let world = World::with_people(engine).await;
        let partner = json!({"shop_name": "隔壁咖啡", "phone": "1", "address": "c"});
        world.operator("/business/add", partner).await.ok();
        count_all(&world).await;
        for (route, good, choices) in [
            ("/statistics/elecoupon", json!({}), "user_id,business_id,come"),
            ("/statistics/elecouponby", json!({"by": "come"}), "coupon_id,shop_id,user_id,business_id,come"),
            ("/statistics/elecouponby", json!({"by": "day"}), "coupon_id,shop_id,user_id,business_id,come"),
            ("/statistics/audit", json!({}), "coupon_id,user_id,business_id,come"),
            ("/statistics/audittype", json!({"type": 1}), "shop_id,user_id,business_id,come"),
            ("/statistics/auditcoupon", json!({"coupon_id": 1}), "shop_id,user_id,business_id,come"),
            ("/statistics/getattract", json!({"business_id": 2}), ""),
            ("/businesshome/auditcoupon", json!({}), ""),
            ("/businesshome/attractcoupon", json!({}), ""),
        ] {
            let caller = if route.starts_with("/businesshome") { Caller::Partner(2) } else { Caller::Operator };
            let by_page = choices.is_empty();
            assert_eq!(world.call(caller, route, good.clone()).await.code(), 0, "{route}");
            let wrong = [
                (json!({"start": "2026-11-30", "end": "2026-11-01"}), "end"),
                (json!({"start": "2026-02-30"}), "start"),
                (json!({"end": "2026-13-01"}), "end"),
                (json!({"end": "tomorrow"}), "end"),
                (json!({"start": 20_261_101}), "start"),
                (json!({"page": 0}), "page"),
                (json!({"limit": 101}), "limit"),
                (json!({"page": 1, "before_id": 3}), "before_id"),
                (json!({"before_id": 0}), "before_id"),
            ];
            let of_choices = choices.split(',').filter(|name| !name.is_empty());
            let of_choices = of_choices.flat_map(|name| [json!(-1), json!("x"), json!("1,2")].map(|value| (json!({name: value}), name)));
            for (fields, named) in wrong.into_iter().chain(of_choices) {
                if by_page && fields.get("before_id").is_some() {
                    continue;
                }
                let reply = world.call(caller, route, with(&good, &fields)).await;
                assert_eq!((reply.code(), reply.data()), (401, &Value::Null), "{route} {fields}");
                let named_in: Vec<_> = reply.body["info"].as_object().unwrap().keys().collect();
                assert_eq!(named_in, [named], "{route} {fields}");
            }
        }
        for (route, body, named) in [
            ("/statistics/elecouponby", json!({}), "by"),
            ("/statistics/elecouponby", json!({"by": "colour"}), "by"),
            ("/statistics/elecouponby", json!({"by": "age_days"}), "by"),
            ("/statistics/elecouponby", json!({"by": "day", "start": "2020-01-01", "end": "2022-12-31"}), "start"),
            ("/statistics/elecoupon", json!({"come": 10}), "come"),
            ("/statistics/audittype", json!({}), "type"),
            ("/statistics/audittype", json!({"type": 3}), "type"),
            ("/statistics/audittype", json!({"type": 1, "shop_type": 2}), "shop_type"),
            ("/statistics/auditcoupon", json!({}), "coupon_id"),
            ("/statistics/getattract", json!({}), "business_id"),
        ] {
            let reply = world.operator(route, body.clone()).await;
            assert_eq!(reply.code(), 401, "{route} {body}");
            let named_in: Vec<_> = reply.body["info"].as_object().unwrap().keys().collect();
            assert_eq!(named_in, [named], "{route} {body}");
        }
        let days = [
            ("start=2026-11-30&end=2026-11-01", "end"),
            ("start=2026-02-30", "start"),
            ("end=2026-11-31", "end"),
            ("end=yesterday", "end"),
        ];
        let asked = [("only=colour:1", "nothing is told apart by colour"), ("only=source:x", "only is shop_id:1,2"), ("only=source:", "only is shop_id:1,2")];
        let finer = |name: &str| format!("{name}=hour");
        for (report, own) in [
            ("figures", vec![
                (finer("grain"), "grain"), ("measures=joy".to_owned(), "joy is not measured"), ("by=colour".to_owned(), "nothing is told apart by colour"),
                ("by=day".to_owned(), "nothing is told apart by day"), ("sort=colour".to_owned(), "none of the measures"), ("limit=10001".to_owned(), "limit"),
                ("offset=-1".to_owned(), "offset"), ("grain=day&start=2000-01-01".to_owned(), "more than 1000 periods"),
            ]),
            ("cohorts", vec![(finer("issued"), "issued"), (finer("used"), "used"), ("until=2026-02-30".to_owned(), "until")]),
            ("funnel", Vec::new()),
        ] {
            let paths = [format!("/v1/statistics/{report}"), format!("/v1/exports/{report}.csv")];
            for path in paths {
                let all = days.iter().chain(&asked).map(|(query, said)| ((*query).to_owned(), *said)).chain(own.clone());
                for (query, said) in all {
                    let reply = world.get(Caller::Auditor, &format!("{path}?{query}")).await;
                    assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}?{query}: {}", reply.body);
                    assert_eq!(reply.headers["content-type"], "application/problem+json", "{path}?{query}");
                    assert!(reply.body["info"].to_string().contains(said), "{path}?{query}: {}", reply.body);
                }
            }
        }
        world.close().await;
    }
}
