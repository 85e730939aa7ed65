//! Statistics: whatever the ranges, the tables are those of one pass, and of a computation that knows nothing of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coupon_ledger::allotment::Allotment;
use coupon_ledger::audit::verify::Finding;
use coupon_ledger::clock::{Clock, Zone, day_number};
use coupon_ledger::coupon::{Coupon, CouponEvent, Source};
use coupon_ledger::entity::{Folded, decode};
use coupon_ledger::followers;
use coupon_ledger::identity::Caller;
use coupon_ledger::read_model::kind_number;
use coupon_ledger::statistics::Statistics;
use coupon_ledger::store::statistics::{Statistic, statistics};
use coupon_ledger::store::{BUCKET, Cell, Look, Statement, Store, StoredEvent, StreamId};
use coupon_ledger::sweep::sweep;
use coupon_ledger::value::money_text;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::bulk::add_members;
use crate::everything::everything;
use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, Server, World};
use crate::outside::count;
use crate::verify::{look, put_secret, told};

/// A table: each row's names and sums by column.
pub type Table = BTreeMap<Vec<i64>, Vec<i64>>;

/// Folds until nothing is left, by each of these followers in turn.
async fn fold(store: &Store, followers: &mut [Statistics]) {
    let mut idle = 0;
    for turn in 0.. {
        let turn = turn % followers.len();
        idle = if followers[turn].step(store).await.unwrap() { 0 } else { idle + 1 };
        if idle == followers.len() {
            return;
        }
    }
}

async fn begin_anew(store: &Store) {
    let sql = "DELETE FROM checkpoints WHERE bucket = $1 AND name = 'statistics'";
    store.write(vec![Statement::new(sql, [BUCKET.into()])]).await.unwrap();
}

async fn table(store: &Store, statistic: &Statistic) -> Table {
    let numbers: Vec<_> = statistic.columns.iter().filter(|column| !column.is_text).collect();
    let columns: Vec<&str> = numbers.iter().map(|column| column.name).collect();
    let sql = format!("SELECT {} FROM {}", columns.join(", "), statistic.name);
    let rows = store.look(vec![Look { sql, parameters: Vec::new() }]).await.unwrap().remove(0);
    let split = |sum: bool, cells: &[Cell]| {
        let cells = numbers.iter().zip(cells).filter(|(column, _)| column.is_sum == sum);
        cells.map(|(_, cell)| if let Cell::Int(number) = cell { *number } else { panic!("a text") }).collect()
    };
    let rows: Table = rows.iter().map(|row| (split(false, &row.0), split(true, &row.0))).collect();
    // A line of nothing but noughts says nothing: a use that was taken back leaves one in the cohorts.
    rows.into_iter().filter(|(_, sums)| sums.iter().any(|sum| *sum != 0)).collect()
}

async fn tables(store: &Store) -> BTreeMap<&'static str, Table> {
    let mut found = BTreeMap::new();
    for statistic in statistics().unwrap() {
        found.insert(statistic.name, table(store, statistic).await);
    }
    found
}

/// What the tables must hold, computed from each coupon's states one by one.
pub async fn computed(store: &Store, zone: Zone) -> BTreeMap<&'static str, Table> {
    let head = store.head().await.unwrap();
    let mut streams: BTreeMap<i64, Vec<StoredEvent>> = BTreeMap::new();
    for event in store.events_after(0, head).await.unwrap() {
        if event.aggregate_type == "coupon" {
            streams.entry(event.aggregate_id.parse().unwrap()).or_default().push(event);
        }
    }
    let mut naive = Naive { zone, tables: BTreeMap::new(), uses: Vec::new() };
    for statistic in statistics().unwrap() {
        naive.tables.insert(statistic.name, Table::new());
    }
    for (id, events) in streams {
        naive.coupon(store, id, &events).await;
    }
    naive.visits();
    let mut tables = naive.tables;
    for rows in tables.values_mut() {
        rows.retain(|_, sums| sums.iter().any(|sum| *sum != 0));
    }
    tables
}

struct Naive {
    zone: Zone,
    tables: BTreeMap<&'static str, Table>,
    uses: Vec<Visit>,
}

/// A use.
struct Visit {
    day: i64,
    definition_id: i64,
    shop_id: i64,
    member_id: i64,
    stands: bool,
}

/// Of one coupon, the same for all of its rows.
struct Dims {
    definition_id: i64,
    kind: i64,
    source: i64,
    partner_id: i64,
    issue_day: i64,
    cents: i64,
}

impl Naive {
    fn day(&self, at_ms: i64) -> i64 {
        day_number(self.zone.moment(at_ms).day)
    }

    fn add(&mut self, name: &str, key: Vec<i64>, sums: &[(&str, i64)]) {
        let statistic = statistics().unwrap().iter().find(|one| one.name == name).unwrap();
        let columns: Vec<&str> =
            statistic.columns.iter().filter(|column| column.is_sum).map(|column| column.name).collect();
        let row = self.tables.get_mut(name).unwrap().entry(key).or_insert_with(|| vec![0; columns.len()]);
        for (column, by) in sums {
            row[columns.iter().position(|name| name == column).unwrap()] += by;
        }
    }

    fn on(&mut self, dims: &Dims, day: i64, (shop_id, employee_id): (i64, i64), sums: &[(&str, i64)]) {
        let Dims { definition_id, kind, source, partner_id, .. } = *dims;
        self.add(
            "stats_days",
            vec![day, definition_id, kind, source, partner_id, shop_id, employee_id],
            sums,
        );
        self.add("stats_definitions", vec![day, definition_id, kind], sums);
        self.add("stats_months", vec![day / 100, definition_id, kind], sums);
        let cube = vec![day / 100, definition_id, kind, source, partner_id, shop_id, employee_id];
        self.add("stats_cube_months", cube, sums);
        // Nothing expires at a shop.
        let of_one_side = |name: &str| name.starts_with("outstanding") || name.starts_with("expired");
        let at_a_shop: Vec<_> = sums.iter().filter(|(name, _)| !of_one_side(name)).copied().collect();
        self.add("stats_shops", vec![day, shop_id], &at_a_shop);
        self.add("stats_shop_months", vec![day / 100, shop_id], &at_a_shop);
    }

    async fn coupon(&mut self, store: &Store, id: i64, events: &[StoredEvent]) {
        let mut folded = Folded::<Coupon>::default();
        let mut dims: Option<Dims> = None;
        let mut in_hand_since = 0;
        let mut first_view = None;
        for stored in events {
            let event = decode::<Coupon>(stored).unwrap();
            let before = folded.state.clone();
            folded.state.evolve(&event);
            let after = &folded.state;
            if let Some(issue) = event.birth() {
                let partner_id = if issue.source == Source::Partner {
                    let stream = StreamId { kind: "allotment", id: issue.source_id };
                    let allotted = store.load_one(stream).await.unwrap();
                    let allotted = decode::<Allotment>(&allotted[0]).unwrap();
                    let coupon_ledger::allotment::AllotmentEvent::Allotted { partner_id, .. } = allotted
                    else {
                        panic!("it begins otherwise")
                    };
                    partner_id
                } else {
                    0
                };
                dims = Some(Dims {
                    definition_id: issue.definition_id,
                    kind: kind_number(issue.terms.kind),
                    source: issue.source.come(),
                    partner_id,
                    issue_day: self.day(issue.at_ms),
                    cents: issue.terms.deduction_cents,
                });
            }
            let dims = dims.as_ref().unwrap();
            let class = |coupon: &Coupon| {
                if coupon.issue.is_none() {
                    "none"
                } else if coupon.voided_at_ms.is_some() {
                    "voided"
                } else if coupon.redemption().is_some() {
                    "used"
                } else if coupon.expiry_recorded {
                    "expired"
                } else {
                    "outstanding"
                }
            };
            let (was, is) = (class(&before), class(after));
            let cents = dims.cents;
            // Where what there is changed is counted, beside what happened.
            let (day, by, happened): (i64, (i64, i64), Vec<(&str, i64)>) = match &event {
                CouponEvent::Issued(issue) | CouponEvent::Imported { issue, .. } => {
                    let claimed = i64::from(issue.source == Source::Claimed);
                    let sums = [("issued", 1), ("issued_cents", cents), ("claimed", claimed)];
                    self.on(dims, dims.issue_day, (0, issue.employee_id), &sums);
                    in_hand_since = dims.issue_day;
                    match (after.redemptions.first(), after.voided_at_ms) {
                        (Some(used), _) => (
                            self.day(used.at_ms),
                            (used.shop_id, used.employee_id),
                            vec![("redeemed", 1), ("redeemed_cents", cents)],
                        ),
                        (None, Some(at_ms)) => {
                            (self.day(at_ms), (0, 0), vec![("voided", 1), ("voided_cents", cents)])
                        }
                        (None, None) => (dims.issue_day, (0, issue.employee_id), Vec::new()),
                    }
                }
                CouponEvent::Viewed { at_ms, .. } => {
                    first_view.get_or_insert(self.day(*at_ms));
                    (self.day(*at_ms), (0, 0), vec![("viewed", 1)])
                }
                CouponEvent::Given { at_ms, .. } => (self.day(*at_ms), (0, 0), vec![("given", 1)]),
                CouponEvent::GiftCodeRejected { at_ms, .. } => (self.day(*at_ms), (0, 0), Vec::new()),
                CouponEvent::GiftWithdrawn { at_ms, .. } => {
                    (self.day(*at_ms), (0, 0), vec![("withdrawn", 1)])
                }
                CouponEvent::GiftLapsed { at_ms, .. } => (self.day(*at_ms), (0, 0), vec![("lapsed", 1)]),
                CouponEvent::Received { at_ms, .. } => (self.day(*at_ms), (0, 0), vec![("received", 1)]),
                CouponEvent::Redeemed { shop_id, employee_id, at_ms, .. } => (
                    self.day(*at_ms),
                    (*shop_id, *employee_id),
                    vec![("redeemed", 1), ("redeemed_cents", cents)],
                ),
                CouponEvent::RedemptionReversed { redemption_id, at_ms, .. } => {
                    let used = after.redemptions.iter().find(|used| used.id == *redemption_id).unwrap();
                    let by = (used.shop_id, used.employee_id);
                    (self.day(*at_ms), by, vec![("reversed", 1), ("reversed_cents", cents)])
                }
                CouponEvent::Evaluated { score, at_ms, .. } => {
                    let used = after.redemptions.last().unwrap();
                    let by = (used.shop_id, used.employee_id);
                    (self.day(*at_ms), by, vec![("reviewed", 1), ("score", i64::from(*score))])
                }
                CouponEvent::Expired { .. } => {
                    let end = day_number(after.issue.as_ref().unwrap().end_date);
                    (end.max(in_hand_since), (0, 0), Vec::new())
                }
                CouponEvent::EndMoved { employee_id, at_ms, .. } => {
                    (self.day(*at_ms), (0, *employee_id), Vec::new())
                }
                CouponEvent::Voided { employee_id, at_ms, .. } => {
                    (self.day(*at_ms), (0, *employee_id), vec![("voided", 1), ("voided_cents", cents)])
                }
            };
            let moved = |class: &str| i64::from(is == class) - i64::from(was == class);
            let mut sums = happened;
            sums.extend([
                ("outstanding", moved("outstanding")),
                ("outstanding_cents", moved("outstanding") * cents),
                ("expired", moved("expired")),
                ("expired_cents", moved("expired") * cents),
            ]);
            self.on(dims, day, by, &sums);
            if was != "none" && moved("outstanding") == 1 {
                in_hand_since = day;
            }
        }
        self.whole(id, dims.as_ref().unwrap(), &folded.state, first_view);
    }

    /// What follows from what became of a coupon in the end.
    fn whole(&mut self, id: i64, dims: &Dims, coupon: &Coupon, first_view: Option<i64>) {
        let date = |day: i64| {
            chrono::NaiveDate::from_ymd_opt(
                (day / 10_000) as i32,
                (day / 100 % 100) as u32,
                (day % 100) as u32,
            )
            .unwrap()
        };
        let Dims { definition_id, kind, source, partner_id, issue_day, cents } = *dims;
        let age = |day: i64| (date(day) - date(issue_day)).num_days();
        let cohort = |day: i64| vec![day, definition_id, kind, source, partner_id, issue_day, age(day)];
        let funnel = || vec![issue_day, definition_id, kind, source, partner_id];
        self.add("stats_cohorts", cohort(issue_day), &[("issued", 1)]);
        self.add("stats_funnels", funnel(), &[("issued", 1)]);
        if let Some(day) = first_view {
            self.add("stats_cohorts", cohort(day), &[("seen", 1)]);
            self.add("stats_funnels", funnel(), &[("seen", 1)]);
        }
        for used in &coupon.redemptions {
            let day = self.day(used.at_ms);
            let stands = i64::from(used.reversed_at_ms == 0);
            let used_and_cents = [("used", stands), ("used_cents", stands * cents)];
            self.add("stats_cohorts", cohort(day), &used_and_cents);
            self.add("stats_funnels", funnel(), &[("used", stands)]);
            let ages = vec![day / 100, definition_id, kind, source, partner_id, age(day)];
            self.add("stats_ages", ages, &used_and_cents);
            self.add("stats_shop_uses", vec![day, used.shop_id, age(day)], &used_and_cents);
            self.add("stats_shop_ages", vec![day / 100, used.shop_id, age(day)], &used_and_cents);
            let key = vec![
                used.id,
                day,
                used.at_ms,
                id,
                definition_id,
                kind,
                source,
                partner_id,
                used.shop_id,
                used.employee_id,
                used.member_id,
                issue_day,
                age(day),
                cents,
            ];
            let sums = [("used", stands), ("reversed_at_ms", used.reversed_at_ms)];
            self.add("stats_uses", key, &sums);
            self.uses.push(Visit {
                day,
                definition_id,
                shop_id: used.shop_id,
                member_id: used.member_id,
                stands: stands == 1,
            });
        }
    }

    /// Who came on which days, and who of them had come before.
    fn visits(&mut self) {
        let open = self.uses.iter().map(|one| one.day).max().unwrap_or_default() / 100 * 100;
        let mut came: BTreeMap<Vec<i64>, [BTreeSet<i64>; 2]> = BTreeMap::new();
        for one in self.uses.iter().filter(|one| one.stands) {
            let first = self.uses.iter().filter(|other| other.stands && other.member_id == one.member_id);
            let again = first.map(|other| other.day).min().unwrap() < one.day;
            let part = one.member_id / 262_144 % 64;
            let mut put = |key: [i64; 4], again: bool| {
                let [members, returned] = came.entry([key.as_slice(), &[part]].concat()).or_default();
                members.insert(one.member_id);
                if again {
                    returned.insert(one.member_id);
                }
            };
            put([0, 3, 0, 0], false);
            for (what, id) in [(0, 0), (1, one.definition_id), (2, one.shop_id)] {
                put([what, 1, one.day, id], again);
                if one.day < open {
                    put([what, 2, one.day / 100 * 100, id], again);
                }
            }
        }
        for (key, [members, returned]) in came {
            let sums = [("members", members.len() as i64), ("again", returned.len() as i64)];
            self.add("stats_visits", key, &sums);
        }
    }
}

/// Holds the statistics of a ledger against a computation of their own, folded in one pass and in pieces.
pub async fn hold_against_states(store: &Store, zone: Zone, pieces: &[i64]) {
    let expected = computed(store, zone).await;
    fold(store, &mut [Statistics::new(zone).unwrap()]).await;
    let whole = tables(store).await;
    assert_eq!(whole, expected);
    let members = sets(store).await;
    for piece in pieces {
        begin_anew(store).await;
        // Two at once, each of which forgets now and then what it knew.
        let follower = |range: i64| Statistics::new(zone).unwrap().with_range(range);
        fold(store, &mut [follower(*piece), follower(piece + 1)]).await;
        assert_eq!(tables(store).await, expected, "{piece} at a time");
        assert_eq!(sets(store).await, members, "{piece} at a time");
    }
}

/// The sets of members.
async fn sets(store: &Store) -> Vec<coupon_ledger::store::Row> {
    let sql = "SELECT what, grain, day, id, part, member_set, again_set FROM stats_visits WHERE members <> 0
               ORDER BY what, grain, day, id, part";
    store.query(Statement::new(sql, [])).await.unwrap()
}

/// Lets the statistics come to the log's end.
pub async fn count_all(world: &World) {
    fold(world.store(), &mut [Statistics::new(world.ledger.zone()).unwrap()]).await;
}

/// Sees that every table holds what a computation comes to that knows nothing of it.
pub async fn assert_counted(world: &World) {
    let (store, zone) = (world.store(), world.ledger.zone());
    assert_eq!(tables(store).await, computed(store, zone).await);
}

/// Coupons of two definitions over some months, with uses taken back, gifts, ends that pass and are moved.
async fn months(world: &World) {
    let cash = world.define(json!({"end_num": "20"})).await;
    let other =
        world.define(json!({"type": 2, "deduction": "0.00", "title": "兌換券", "end_num": "40"})).await;
    world.operator("/shop/add", json!({"shop_name": "分店", "phone": "1", "address": "b"})).await.ok();
    for round in 0..6 {
        let ids = [
            world.issue(cash, 439).await,
            world.issue(cash, 442).await,
            world.issue(other, 439).await,
            world.issue(cash, 439).await,
        ];
        world.call(MEMBER, "/client/couponinfo", json!({"id": ids[0]})).await.ok();
        world.advance(3 * DAY);
        let used = json!({"mem_coupon_id": ids[0], "shop_id": 1 + round % 2});
        let used = world.call(MEMBER, "/client/auditcoupon", used).await.ok()["id"].clone();
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": ids[2]})).await.ok();
        if round % 3 == 0 {
            let reverse = json!({"id": used, "reason": "按錯了"});
            world.operator("/user/reverseelecoupon", reverse).await.ok();
        } else {
            let review = json!({"id": ids[0], "score": 1 + round % 5, "evaluation": "好"});
            world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
        }
        let code = world.give(FRIEND, ids[1]).await;
        world.call(MEMBER, "/client/getcoupon", json!({"id": ids[1], "code": code})).await.ok();
        world.advance(20 * DAY);
        sweep(&world.ledger).await.unwrap();
        if round == 4 {
            let extend = json!({"coupon_id": cash, "end_date": "2027-12-31", "reason": "延期"});
            world.operator("/elecoupons/extend", extend).await.ok();
            for job in coupon_ledger::runner::open_jobs(world.store()).await.unwrap() {
                coupon_ledger::runner::run_job(&world.ledger, job).await.unwrap();
            }
        }
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": ids[3], "reason": "測試"})).await;
    }
}

/// A caller's figures: the rows alone.
async fn figures(world: &World, query: &str) -> Value {
    let reply = world.get(Caller::Auditor, &format!("/v1/statistics/figures?{query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body["rows"].clone()
}

/// What a column of one of the naive tables comes to.
fn total(
    tables: &BTreeMap<&'static str, Table>,
    name: &str,
    column: &str,
    of: impl Fn(&[i64]) -> bool,
) -> i64 {
    let statistic = statistics().unwrap().iter().find(|one| one.name == name).unwrap();
    let mut sums = statistic.columns.iter().filter(|column| column.is_sum);
    let place = sums.position(|sum| sum.name == column).unwrap();
    tables[name].iter().filter(|(key, _)| of(key)).map(|(_, sums)| sums[place]).sum()
}

on_both_engines! {
    async fn verify_counts_them_anew_and_names_what_is_not_so(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let found = async || {
            let totals = look(&world).await;
            let of_statistics = |finding: &&Finding| finding.table.starts_with("stat");
            totals.findings.iter().filter(of_statistics).map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found().await, Vec::<String>::new(), "nothing is counted yet");
        let mut counting = Statistics::new(world.ledger.zone()).unwrap().with_range(20);
        for _ in 0..3 {
            counting.step(world.store()).await.unwrap();
            assert_eq!(found().await, Vec::<String>::new(), "on the way");
        }
        for (damage, said) in [
            ("UPDATE stats_days_v1 SET redeemed = redeemed + 1 WHERE shop_id = 1", "redeemed is 2, and the events up to position"),
            ("UPDATE stats_uses_v2 SET value_cents = 1 WHERE redemption_id = 1", "value_cents is 1, and the events up to position"),
            ("DELETE FROM stats_uses_v2 WHERE redemption_id = 2", "redemption_id 2: it is missing as of position"),
            ("INSERT INTO stats_definitions_v1 (bucket, day, definition_id, kind, issued) VALUES (0, 20260101, 99, 1, 5)",
             "definition_id 99, kind 1: no event up to position"),
            ("UPDATE stats_visits_v1 SET again = again + 1 WHERE what = 1", "again is 1, and the events up to position"),
            ("UPDATE stats_visits_v1 SET member_set = again_set WHERE grain = 3", "grain 3, day 0, id 0, part 0: member_set is not what the events up to position"),
            ("UPDATE checkpoints SET value = value + 1000 WHERE name = 'stats_days_v1'", "and the log ends at"),
            ("UPDATE checkpoints SET value = 1 WHERE name = 'stats_cohorts_v1'", "no event up to position 1 gives it"),
        ] {
            begin_anew(world.store()).await;
            count_all(&world).await;
            assert_eq!(found().await, Vec::<String>::new(), "before {damage}");
            world.home.sql(damage).await.unwrap();
            let told = found().await;
            assert!(!told.is_empty() && told.iter().any(|one| one.contains(said)), "{damage}: {told:?}");
        }
        world.close().await;
    }

    async fn verify_beside_the_follower_finds_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let counting = async {
            let mut counting = Statistics::new(world.ledger.zone()).unwrap().with_range(5);
            while counting.step(world.store()).await.unwrap() {}
        };
        let looking = async {
            for _ in 0..3 {
                assert_eq!(told(&look(&world).await), Vec::<String>::new());
            }
        };
        tokio::join!(counting, looking);
        world.close().await;
    }

    async fn statistics_are_what_the_states_of_the_coupons_say_however_the_log_is_cut(engine: Engine) {
        let world = everything(engine).await;
        hold_against_states(world.store(), world.ledger.zone(), &[1, 2, 7, 50]).await;
    }

    async fn months_of_uses_and_of_uses_taken_back_are_counted_on_their_days(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        hold_against_states(world.store(), world.ledger.zone(), &[3, 20]).await;
    }

    async fn uses_of_another_value_that_make_up_for_others_are_added_up_all_the_same(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"deduction": "5.00"})).await;
        let first = world.issue(definition, 439).await;
        let edited = crate::harness::definition(json!({"id": definition, "deduction": "3.00"}));
        world.operator("/elecoupons/edit", edited).await.ok();
        let second = world.issue(definition, 439).await;
        let redeem = async |coupon: i64| {
            let body = json!({"mem_coupon_id": coupon, "shop_id": 1});
            world.call(MEMBER, "/client/auditcoupon", body).await.ok()["id"].clone()
        };
        let taken_back = redeem(first).await;
        redeem(second).await;
        world.operator("/user/reverseelecoupon", json!({"id": taken_back, "reason": "按錯了"})).await.ok();
        hold_against_states(world.store(), world.ledger.zone(), &[1, 2, 3]).await;
        let cents = world.home.sql("SELECT CAST(used_cents AS TEXT) FROM stats_ages").await.unwrap();
        assert_eq!(cents, ["300"]);
        world.close().await;
    }

    async fn uses_that_are_heard_of_late_are_told_on_their_days(engine: Engine) {
        let zone = Zone::default();
        let start = zone.day_starts_at_ms(chrono::NaiveDate::from_ymd_opt(2026, 11, 1).unwrap());
        let world = World::at(engine, start + 11 * HOUR, zone).await;
        world.add_people().await;
        world.define(json!({"num": 100})).await;
        let import = async |uses: &[(i64, i64, &str)]| {
            let header = "id,coupon_id,member_id,start_date,end_date,state,use_date,shop_id\n".to_owned();
            let row = |(id, member, date): &(i64, i64, &str)| {
                format!("{id},1,{member},2026-01-01,2027-12-31,used,{date},1\n")
            };
            let file = header + &uses.iter().map(row).collect::<String>();
            let bearer = format!("Bearer {}", world.token(Caller::Operator));
            let headers = [("authorization", bearer.as_str()), ("content-type", "text/csv")];
            world.raw("POST", "/elecoupons/import?dry_run=0", &headers, file.into()).await.ok();
            hold_against_states(world.store(), zone, &[1, 2, 5]).await;
        };
        import(&[(5001, 439, "2026-10-31 13:00:00"), (5002, 442, "2026-10-31 14:00:00"), (5003, 439, "2026-11-01 10:00:00")]).await;
        // Of a month that is over, and his first.
        let first = world.home.sql("SELECT CAST(redemption_id AS TEXT) FROM redemptions_v1 WHERE coupon_id = 5001").await.unwrap();
        let reverse = json!({"id": first[0], "reason": "按錯了"});
        world.operator("/user/reverseelecoupon", reverse).await.ok();
        hold_against_states(world.store(), zone, &[1]).await;
        import(&[(5004, 439, "2026-03-02"), (5005, 442, "2026-03-01"), (5006, 439, "2026-01-15"), (5007, 442, "2026-02-28")]).await;
        let figures = figures(&world, "measures=members,returning_members&grain=month&start=2026-01-01&end=2026-11-30").await;
        let month = |start: &str, end: &str, members: i64, again: i64| json!({"start": start, "end": end, "members": members, "returning_members": again});
        assert_eq!(figures, json!([
            month("2026-01-01", "2026-01-31", 1, 0),
            month("2026-02-01", "2026-02-28", 1, 0),
            month("2026-03-01", "2026-03-31", 2, 2),
            month("2026-10-01", "2026-10-31", 1, 1),
            month("2026-11-01", "2026-11-30", 1, 1),
        ]));
        world.close().await;
    }

    async fn days_are_the_merchants_where_clocks_are_moved(engine: Engine) {
        // In New York the clocks go back at 2:00 on 1 November 2026: that day has 25 hours.
        let zone = Zone(chrono_tz::America::New_York);
        let start = zone.day_starts_at_ms(chrono::NaiveDate::from_ymd_opt(2026, 11, 1).unwrap());
        let world = World::at(engine, start, zone).await;
        world.add_people().await;
        let definition = world.define(json!({})).await;
        for hours in [0, 24, 25] {
            world.clock.set(start + hours * HOUR);
            world.issue(definition, 439).await;
        }
        count_all(&world).await;
        let issued = figures(&world, "measures=issued&grain=day&start=2026-10-31&end=2026-11-03").await;
        let day = |day: &str, issued: i64| json!({"start": day, "end": day, "issued": issued});
        assert_eq!(issued, json!([day("2026-11-01", 2), day("2026-11-02", 1)]));
    }

    async fn the_manuals_pages_and_v1_say_the_same(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        count_all(&world).await;
        let expected = computed(world.store(), world.ledger.zone()).await;
        let all = json!({"page": 1, "limit": 100});
        let page = world.operator("/statistics/elecoupon", all).await;
        let position = page.headers["as-of-position"].to_str().unwrap().parse::<i64>().unwrap();
        assert_eq!(position, world.store().head().await.unwrap());
        let rows = page.ok().as_array().unwrap();
        assert_eq!(rows.len(), 2);
        let query = "by=definition_id&start=1900-01-01&end=9999-12-31&measures=\
                     issued,claimed,viewed,given,received,redeemed,reversed,used,expired,voided,reviewed,average_score,\
                     outstanding,redemption_rate,median_days,members,returning_members,used_cents";
        let lines = figures(&world, query).await;
        for row in rows {
            let line = lines.as_array().unwrap().iter().find(|line| line["definition_id"] == row["id"]).unwrap();
            for (name, value) in line.as_object().unwrap() {
                match name.as_str() {
                    "start" | "end" | "definition_id" => {}
                    "used_cents" => assert_eq!(row["used_money"], money_text(value.as_i64().unwrap())),
                    name => assert_eq!(row[name], *value, "{name}"),
                }
            }
            let id = row["id"].as_i64().unwrap();
            for name in ["issued", "viewed", "given", "received", "redeemed", "reversed", "expired", "voided", "outstanding"] {
                let sum = total(&expected, "stats_days", name, |key| key[1] == id);
                assert_eq!(row[name], sum, "{name} of {id}");
            }
            assert!(row["issued"].as_i64().unwrap() > 0 && row["expired"].as_i64().unwrap() >= 0, "{row}");
        }
        // Everything that was issued is one of four.
        for line in lines.as_array().unwrap() {
            let number = |name: &str| line[name].as_i64().unwrap();
            assert_eq!(number("issued"), number("outstanding") + number("used") + number("expired") + number("voided"));
        }
        let shops = world.operator("/statistics/audit", json!({})).await;
        let used: i64 = shops.ok().as_array().unwrap().iter().map(|shop| shop["num"].as_i64().unwrap()).sum();
        assert_eq!(used, total(&expected, "stats_uses", "used", |_| true));
        let mut listed = 0;
        for kind in [1, 2] {
            let of = json!({"shop_id": "", "type": kind, "shop_type": 0, "limit": 100});
            for row in world.operator("/statistics/audittype", of).await.ok().as_array().unwrap() {
                let of = json!({"shop_id": "", "coupon_id": row["coupon_id"], "shop_type": 0, "limit": 100});
                let uses = world.operator("/statistics/auditcoupon", of).await;
                assert_eq!(row["num"], uses.ok().as_array().unwrap().len());
                listed += row["num"].as_i64().unwrap();
            }
        }
        assert_eq!(listed, used);
        let none = json!({"shop_id": "", "type": 1, "shop_type": 1});
        assert_eq!(*world.operator("/statistics/audittype", none).await.ok(), json!([]));
    }

    async fn periods_levels_cohorts_and_funnels_add_up(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": "60"})).await;
        // Two issued on 23 November; one is seen and used nine days later, given back by none; one more in December.
        let first = world.issue(definition, 439).await;
        world.issue(definition, 442).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": first})).await.ok();
        world.advance(9 * DAY);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": first, "shop_id": 1})).await.ok();
        let again = world.issue(definition, 439).await;
        world.advance(DAY);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": again, "shop_id": 1})).await.ok();
        count_all(&world).await;
        let of = "&start=2026-11-01&end=2027-01-31";
        let months = figures(&world, &format!("measures=issued,used,outstanding,outstanding_cents,members,returning_members,median_days,redemption_rate&grain=month{of}")).await;
        assert_eq!(months, json!([
            {"start": "2026-11-01", "end": "2026-11-30", "issued": 2, "used": 0, "outstanding": 2, "outstanding_cents": 2000,
             "members": 0, "returning_members": 0, "median_days": null, "redemption_rate": 0.0},
            {"start": "2026-12-01", "end": "2026-12-31", "issued": 1, "used": 2, "outstanding": 1, "outstanding_cents": 1000,
             "members": 1, "returning_members": 1, "median_days": 1, "redemption_rate": 2.0},
            {"start": "2027-01-01", "end": "2027-01-31", "issued": 0, "used": 0, "outstanding": 1, "outstanding_cents": 1000,
             "members": 0, "returning_members": 0, "median_days": null, "redemption_rate": null},
        ]));
        let of = "start=2026-11-23&end=2026-12-06&until=2026-12-06";
        let reply = world.get(Caller::Auditor, &format!("/v1/statistics/cohorts?{of}")).await;
        let week = |start: &str, end: &str, (seen, used): (i64, i64), (so_seen, so_used): (i64, i64)| {
            json!({"start": start, "end": end, "seen": seen, "used": used, "seen_so_far": so_seen, "used_so_far": so_used})
        };
        let (first, second) = (("2026-11-23", "2026-11-29"), ("2026-11-30", "2026-12-06"));
        assert_eq!(reply.body["cohorts"], json!([
            {"start": first.0, "end": first.1, "issued": 2,
             "periods": [week(first.0, first.1, (1, 0), (1, 0)), week(second.0, second.1, (0, 1), (1, 1))]},
            {"start": second.0, "end": second.1, "issued": 1, "periods": [week(second.0, second.1, (0, 1), (0, 1))]},
        ]));
        let reply = world.get(Caller::Auditor, "/v1/statistics/funnel?start=2026-11-23&end=2026-11-23").await;
        let head = world.store().head().await.unwrap();
        assert_eq!(reply.body["as_of"]["position"], head);
        let funnel = [&reply.body["issued"], &reply.body["seen"], &reply.body["used"]].map(|one| one.as_i64().unwrap());
        assert_eq!(funnel, [2, 1, 1]);
        let sorted = figures(&world, "measures=issued&by=source&grain=day&start=2026-11-01&end=2026-12-31&sort=-issued&limit=1").await;
        assert_eq!(sorted, json!([{"start": "2026-11-23", "end": "2026-11-23", "source": 5, "issued": 2}]));
        let of = "measures=issued,used,median_days&grain=day&start=2026-11-01&end=2026-12-31";
        let days_sorted = async |sort: &str| {
            let rows = figures(&world, &format!("{of}&sort={sort}")).await;
            rows.as_array().unwrap().iter().map(|row| row["start"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(days_sorted("issued").await, ["2026-12-03", "2026-12-02", "2026-11-23"]);
        assert_eq!(days_sorted("-median_days").await, ["2026-12-02", "2026-12-03", "2026-11-23"], "what has none is last");
    }

    async fn what_cannot_be_asked_is_refused_with_what_can(engine: Engine) {
        let world = World::with_people(engine).await;
        // Told to begin anew, they are not asked until they have begun.
        followers::order(&world.ledger, "statistics", followers::Order::Reset).await.unwrap();
        assert!(Statistics::new(world.ledger.zone()).unwrap().step(world.store()).await.unwrap());
        let early = world.get(Caller::Auditor, "/v1/statistics/figures").await;
        assert_eq!((early.status.as_u16(), early.code()), (503, 9002), "{}", early.body);
        assert_eq!(world.operator("/statistics/elecoupon", json!({})).await.code(), 9002);
        count_all(&world).await;
        for (query, said) in [
            ("figures?start=2026-11-30&end=2026-11-01", "end"),
            ("figures?start=2026-02-30", "start"),
            ("figures?measures=issued,profit", "profit is not measured, but average_score"),
            ("figures?measures=issued,issued", "a name is there twice"),
            ("figures?by=colour", "nothing is told apart by colour, but by"),
            ("figures?by=day", "nothing is told apart by day"),
            ("figures?grain=minute", "grain"),
            ("figures?measures=outstanding&by=shop_id", "is issued at no shop"),
            ("figures?measures=expired&by=employee_id", "expires at none"),
            ("cohorts?start=2026-11-23&until=2026-11-01", "until"),
            ("cohorts?start=2026-11-23&until=2026-11-31", "until"),
            ("funnel?start=2026-11-30&end=2026-11-01", "end"),
            ("figures?measures=redemption_rate&only=employee_id:1000", "is issued at no shop"),
            ("figures?measures=seen&by=shop_id", "no statistic has"),
            ("figures?grain=day&start=1900-01-01", "more than 1000 periods"),
            ("figures?only=shop_id", "only is shop_id:1,2;source:8"),
            ("figures?only=shop_id:9007199254740992", "only is shop_id:1,2;source:8"),
            ("figures?only=shop_id:-1", "only is shop_id:1,2;source:8"),
            ("figures?only=shop_id:1;shop_id:2", "only is shop_id:1,2;source:8"),
            ("figures?only=shop_id:1%20OR%201=1", "only is shop_id:1,2;source:8"),
            ("figures?only=shop_id%3D1)--:1", "nothing is told apart by"),
            ("figures?sort=redeemed&measures=issued", "none of the measures"),
            ("figures?limit=0", "limit"),
            ("cohorts?issued=decade", "issued"),
            ("cohorts?issued=day&used=day&start=2024-06-01&end=2026-11-20", "ask for fewer periods"),
        ] {
            let reply = world.get(Caller::Auditor, &format!("/v1/statistics/{query}")).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{query}: {}", reply.body);
            assert!(reply.body["info"].to_string().contains(said), "{query}: {}", reply.body);
        }
        for (route, body) in [
            ("/statistics/elecoupon", json!({"start": "2026-11-30", "end": "2026-11-01"})),
            ("/statistics/audit", json!({"start": "2026-02-30"})),
            ("/statistics/audittype", json!({"type": 3})),
            ("/statistics/auditcoupon", json!({"shop_id": 1})),
        ] {
            assert_eq!(world.operator(route, body).await.code(), 401, "{route}");
        }
    }

    async fn an_answer_that_the_client_has_is_not_sent_again(engine: Engine) {
        let world = World::with_people(engine).await;
        count_all(&world).await;
        let bearer = format!("Bearer {}", world.token(Caller::Auditor));
        let ask = async |path: &str, tag: &str| {
            let headers = [("authorization", bearer.as_str()), ("if-none-match", tag)];
            world.raw("GET", path, &headers, Vec::new()).await
        };
        let mut tags = Vec::new();
        for path in ["/v1/statistics", "/v1/statistics/figures", "/v1/statistics/cohorts", "/v1/statistics/funnel"] {
            let first = world.get(Caller::Auditor, path).await;
            assert_eq!(first.body["as_of"]["position"], world.store().head().await.unwrap(), "{path}");
            let tag = first.headers["etag"].to_str().unwrap().to_owned();
            let same = ask(path, &tag).await;
            assert_eq!((same.status.as_u16(), same.body.as_str()), (304, Some("")), "{path}");
            assert_eq!(same.headers["etag"], tag.as_str());
            tags.push((path, tag));
        }
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        count_all(&world).await;
        for (path, tag) in tags {
            assert_eq!(ask(path, &tag).await.status, 200, "{path}");
        }
        // Tomorrow the same words ask for other days.
        let today = world.get(Caller::Auditor, "/v1/statistics/figures").await;
        assert_eq!(today.headers["cache-control"], "private, no-cache");
        world.advance(DAY);
        let bearer = format!("Bearer {}", world.token(Caller::Auditor));
        let headers = [("authorization", bearer.as_str()), ("if-none-match", today.headers["etag"].to_str().unwrap())];
        assert_eq!(world.raw("GET", "/v1/statistics/figures", &headers, Vec::new()).await.status, 200);
    }

    async fn what_is_not_said_is_the_last_thirty_days_until_today(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        // Half past midnight, where in UTC it is yesterday still.
        world.advance(12 * HOUR + HOUR / 2);
        let coupon = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": coupon, "shop_id": 1})).await.ok();
        count_all(&world).await;
        let reply = world.get(Caller::Auditor, "/v1/statistics/figures").await.body;
        assert_eq!((&reply["start"], &reply["end"]), (&json!("2026-10-26"), &json!("2026-11-24")));
        assert_eq!(reply["rows"], json!([{"start": "2026-10-26", "end": "2026-11-24", "issued": 1, "redeemed": 1, "reversed": 0,
                                          "expired": 0, "voided": 0, "outstanding": 0}]));
        let head = world.store().head().await.unwrap();
        let last = world.store().events_after(head - 1, 1).await.unwrap().remove(0);
        assert_eq!(reply["as_of"], json!({"position": head, "recorded_at_ms": last.recorded_at_ms}));
        world.advance(2 * DAY);
        let of_a_day = "/v1/statistics/cohorts?start=2026-11-24&end=2026-11-24&issued=day&used=day";
        let cohorts = world.get(Caller::Auditor, of_a_day).await.body["cohorts"].clone();
        let periods = cohorts[0]["periods"].as_array().unwrap();
        assert_eq!(periods.iter().map(|one| &one["used_so_far"]).collect::<Vec<_>>(), [1, 1, 1]);
        // A day to come is a range of its own.
        let to_come = world.get(Caller::Auditor, "/v1/statistics/figures?start=2026-12-24").await.body;
        assert_eq!([&to_come["start"], &to_come["end"]], ["2026-12-24", "2026-12-24"]);
    }

    async fn an_employee_sees_the_figures_of_his_own_shop(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        count_all(&world).await;
        let page = world.call(EMPLOYEE, "/statistics/audit", json!({})).await;
        let shops: Vec<_> = page.ok().as_array().unwrap().iter().map(|shop| shop["shop_id"].clone()).collect();
        assert_eq!(shops, [1]);
        let whole = world.operator("/statistics/audit", json!({})).await;
        let own = whole.ok().as_array().unwrap().iter().find(|shop| shop["shop_id"] == 1).unwrap().clone();
        assert_eq!(page.ok()[0], own);
        let of = |shop: &str| json!({"shop_id": shop, "type": 1, "shop_type": 0});
        let everywhere = world.call(EMPLOYEE, "/statistics/audittype", of("")).await;
        assert_eq!(everywhere.ok(), world.operator("/statistics/audittype", of("1")).await.ok());
        assert_eq!(world.call(EMPLOYEE, "/statistics/audittype", of("2")).await.code(), 1002);
        let uses_in = |shop: &str, partners: i64| json!({"shop_id": shop, "coupon_id": 1, "shop_type": partners, "limit": 100});
        let own = world.call(EMPLOYEE, "/statistics/auditcoupon", uses_in("", 0)).await;
        assert_eq!(own.ok(), world.operator("/statistics/auditcoupon", uses_in("1", 0)).await.ok());
        assert_eq!(world.call(EMPLOYEE, "/statistics/auditcoupon", uses_in("2", 0)).await.code(), 1002);
        assert_eq!(*world.operator("/statistics/auditcoupon", uses_in("", 1)).await.ok(), json!([]));
        // With the right to read he sees them all.
        let office = world.operator("/office/add", json!({"title": "會計"})).await.ok()["id"].clone();
        world.operator("/office/setcompetence", json!({"id": office, "competence_ids": "38"})).await.ok();
        world.operator("/user/edit", json!({"id": 1000, "office_id": office})).await.ok();
        assert_eq!(world.call(EMPLOYEE, "/statistics/audit", json!({})).await.ok(), whole.ok());
    }

    async fn a_new_file_covers_history_from_its_first_day_and_then_goes_with_the_others(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        count_all(&world).await;
        let store = world.store();
        // The page's own example.
        let page = Box::leak(std::fs::read_to_string("docs/projections.md").unwrap().into_boxed_str());
        let file = page.split("```text\n").find(|block| block.contains("CREATE TABLE stats_hours_v1")).unwrap();
        let file = file.split("```").next().unwrap();
        let new: &'static Statistic = Box::leak(Box::new(Statistic::parse("stats_hours", file).unwrap()));
        let made = file.split("-- fold:").next().unwrap();
        let made = if world.home.database_url.is_none() { made.replace("-- sqlite: ", "").replace("BIGINT", "INTEGER") } else { made.to_owned() };
        let view = "CREATE VIEW stats_hours AS SELECT day, hour, uses FROM stats_hours_v1";
        world.home.sql_all(&[made.trim_end().trim_end_matches(';').to_owned(), view.to_owned()]).await.unwrap();
        let every: Vec<&'static Statistic> = statistics().unwrap().iter().chain([new]).collect();
        let zone = world.ledger.zone();
        // What happens while it catches up waits until it has.
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        fold(store, &mut [Statistics::of(every, zone).with_range(7)]).await;
        let expected = computed(store, zone).await;
        assert_eq!(tables(store).await, expected);
        let uses = statistics().unwrap().iter().find(|one| one.name == "stats_uses").unwrap();
        let place = |name: &str| {
            let mut named = uses.columns.iter().filter(|column| !column.is_sum);
            named.position(|column| column.name == name).unwrap()
        };
        let (day, used_at_ms) = (place("day"), place("used_at_ms"));
        let mut by_hour = Table::new();
        for (key, sums) in &expected["stats_uses"] {
            let hour = key[used_at_ms] / 3_600_000 % 24;
            by_hour.entry(vec![key[day], hour]).or_insert_with(|| vec![0])[0] += sums[0];
        }
        by_hour.retain(|_, sums| sums[0] != 0);
        assert!(by_hour.len() > 2, "{by_hour:?}");
        assert_eq!(table(store, new).await, by_hour);
    }

    /// What was remembered of coupons must not be further than the tables.
    async fn a_write_that_fails_loses_nothing_and_doubles_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        let (refuse, take) = match engine {
            Engine::Sqlite => (
                "CREATE TRIGGER no BEFORE INSERT ON stats_uses_v2 BEGIN SELECT RAISE(ABORT, 'no'); END",
                "DROP TRIGGER no",
            ),
            Engine::Postgres => (
                "ALTER TABLE stats_uses_v2 ADD CONSTRAINT no CHECK (bucket < 0) NOT VALID",
                "ALTER TABLE stats_uses_v2 DROP CONSTRAINT no",
            ),
        };
        let mut counting = Statistics::new(world.ledger.zone()).unwrap().with_range(7);
        let mut failed = 0;
        loop {
            world.home.sql(refuse).await.unwrap();
            for _ in 0..2 {
                failed += i32::from(counting.step(world.store()).await.is_err());
            }
            world.home.sql(take).await.unwrap();
            if !counting.step(world.store()).await.unwrap() {
                break;
            }
        }
        assert!(failed > 3, "{failed} writes failed");
        assert_eq!(tables(world.store()).await, computed(world.store(), world.ledger.zone()).await);
        assert_eq!(told(&look(&world).await), Vec::<String>::new());
        world.close().await;
    }

    async fn killed_again_and_again_several_processes_come_to_the_same(engine: Engine) {
        const MEMBERS: i64 = 5_000;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let world = World::with_people(engine).await;
        add_members(&world.home, MEMBERS).await;
        let definition = world.define(json!({})).await;
        for _ in 0..4 {
            world.operator("/sendelecoupon/add", json!({"coupon_id": definition, "confirm": 1})).await.ok();
            for job in coupon_ledger::runner::open_jobs(world.store()).await.unwrap() {
                coupon_ledger::runner::run_job(&world.ledger, job).await.unwrap();
            }
            for _ in 0..20 {
                let id = world.issue(definition, 439).await;
                let used = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await;
                world.operator("/user/reverseelecoupon", json!({"id": used.ok()["id"], "reason": "按錯了"})).await.ok();
                world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": id})).await.ok();
            }
        }
        let head = world.store().head().await.unwrap();
        let mut homes = vec![world.close().await];
        if let Some(url) = homes[0].database_url.clone() {
            homes.push(homes[0].beside(url));
        }
        homes.iter().for_each(put_secret);
        let reached = "SELECT COALESCE(MAX(value), 0) FROM checkpoints WHERE name = 'statistics'";
        let mut on_the_way = BTreeSet::new();
        for _ in 0..40 {
            let mut servers = Vec::new();
            for home in &homes {
                servers.push(Server::start(home, &[]).await);
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            for server in servers {
                server.kill().await;
            }
            // Who was killed has no turn any more, as if its time had passed.
            homes[0].sql("DELETE FROM checkpoints WHERE name LIKE '% lease'").await.unwrap();
            let position = count(&homes[0], reached).await;
            if position >= head {
                break;
            }
            on_the_way.insert(position);
        }
        assert!(on_the_way.len() > 1, "no kill met them at work: {on_the_way:?} of {head}");
        let world = World::open(homes.remove(0), Clock::System, Zone::default()).await;
        count_all(&world).await;
        assert_eq!(tables(world.store()).await, computed(world.store(), world.ledger.zone()).await);
        world.close().await;
    }

    async fn a_table_that_is_no_statistic_any_more_holds_nothing_back(engine: Engine) {
        let world = World::with_people(engine).await;
        world.home.sql("INSERT INTO checkpoints (bucket, name, value) VALUES (0, 'stats_gone_v1', 3)").await.unwrap();
        months(&world).await;
        count_all(&world).await;
        let reached = followers::checkpoint(world.store(), &followers::STATISTICS).await.unwrap();
        assert_eq!(reached, world.store().head().await.unwrap());
        world.close().await;
    }

    async fn another_time_zone_stops_them_until_they_are_told_to_count_anew(engine: Engine) {
        let world = World::with_people(engine).await;
        months(&world).await;
        count_all(&world).await;
        let tokyo = Zone(chrono_tz::America::New_York);
        let mut moved = Statistics::new(tokyo).unwrap();
        let stopped = moved.step(world.store()).await.unwrap_err().to_string();
        assert!(stopped.starts_with("days were counted in Asia/Shanghai so far"), "{stopped}");
        followers::order(&world.ledger, "statistics", followers::Order::Reset).await.unwrap();
        fold(world.store(), &mut [moved]).await;
        assert_eq!(tables(world.store()).await, computed(world.store(), tokyo).await);
    }

    async fn an_event_that_cannot_be_read_stops_them_and_says_where(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        count_all(&world).await;
        let reached = world.store().head().await.unwrap();
        world.issue(definition, 439).await;
        let at = world.store().head().await.unwrap();
        let lift = match engine {
            Engine::Sqlite => "DROP TRIGGER events_are_append_only_update",
            Engine::Postgres => "ALTER TABLE events DISABLE TRIGGER USER",
        };
        let change = format!("UPDATE events SET payload = '{{\"Issued\":7}}' WHERE position = {at}");
        world.home.sql_all(&[lift.to_owned(), change]).await.unwrap();
        let mut follower = Statistics::new(world.ledger.zone()).unwrap();
        let stopped = follower.step(world.store()).await.unwrap_err().to_string();
        assert!(stopped.contains(&format!("position {at}")), "{stopped}");
        let standing = followers::standings(world.store(), &world.clock, world.ledger.now().day).await.unwrap();
        let standing = standing.iter().find(|one| one.name == "statistics").unwrap();
        assert_eq!((standing.checkpoint, standing.lag), (reached, Some(at - reached)));
    }
}
