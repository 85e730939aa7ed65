//! A random sample of all that an administrator of the database can do to a log of 100,000 events, past its guards: done at
//! once, in several hundred places, and each place is named. `TAMPER_SEED=<seed>` takes the sample again that a failure names.

use std::collections::{BTreeMap, BTreeSet};

use coupon_ledger::audit::verify::{Finding, MAX_FINDINGS};
use coupon_ledger::bulk;
use coupon_ledger::coupon::{Coupon, CouponCommand, Origin, Redeemer, Source};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{Many, Meta};
use coupon_ledger::read_model::LIVE_TABLES;
use coupon_ledger::store::{Column, LiveTable, ReceiptKey, StoredEvent};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::bulk::add_members;
use crate::harness::{Engine, World};
use crate::log::{without_guards, without_guards_of};
use crate::tlog::tick;
use crate::verify::{flipped, look, quoted, with_another};

const DEFINITIONS: usize = 6;
const MEMBERS: i64 = 5_000;

/// How many of the coupons are put out as gifts, received, used; all are opened.
const GIVEN: usize = 20_000;
const RECEIVED: usize = 16_000;
const USED: usize = 8_000;

/// Leaves of a full tile.
const TILE: i64 = 256;

/// A coupon as it was issued.
#[derive(Clone, Copy)]
struct Issued {
    definition_id: i64,
    member_id: i64,
    id: i64,
}

/// Who receives what this member gives.
fn friend(member_id: i64) -> i64 {
    member_id % MEMBERS + 1
}

fn meta(world: &World, key: &str) -> Meta {
    let receipt = ReceiptKey { caller: "operator".to_owned(), operation: "/large", key: key.to_owned() };
    Meta {
        caller: Caller::Operator,
        at: world.ledger.now(),
        request_id: "large".to_owned(),
        receipt: Some((receipt, "the request".to_owned())),
        job_id: None,
    }
}

/// A log of more than 100,000 events, followed and signed as it grows.
async fn large_log(engine: Engine) -> (World, Vec<Issued>) {
    let world = World::with_people(engine).await;
    add_members(&world.home, MEMBERS).await;
    let members: Vec<i64> = (1..=MEMBERS).collect();
    let mut issued = Vec::new();
    for _ in 0..DEFINITIONS {
        let definition_id = world.define(json!({})).await;
        let chunks = members.chunks(bulk::MAX_CHUNK).map(async |members| {
            let meta = meta(&world, &format!("issue {definition_id} from {}", members[0]));
            let origin = Origin::of(Source::MassSend, 0);
            bulk::issue(&world.ledger, definition_id, origin, members, &meta).await.unwrap().issued
        });
        let chunks = futures::future::join_all(chunks).await;
        issued.extend(chunks.into_iter().flatten().map(|(member_id, id)| Issued {
            definition_id,
            member_id,
            id,
        }));
        grow(&world).await;
    }
    let gift_codes = world.secrets.gift_codes();
    let day = crate::harness::DAY;
    act(&world, "view", &issued, |of| CouponCommand::View { member_id: of.member_id }).await;
    let (given, kept) = issued.split_at(GIVEN);
    act(&world, "give", given, |of| CouponCommand::Give { member_id: of.member_id, lapse_after_ms: day })
        .await;
    act(&world, "receive", &given[..RECEIVED], |of| CouponCommand::Receive {
        member_id: friend(of.member_id),
        code: gift_codes.code(of.id, 1, &gift_codes.key_id()),
    })
    .await;
    act(&world, "use", &kept[..USED], |of| CouponCommand::Redeem {
        redeemer: Redeemer::Member(of.member_id),
        shop_id: 1,
        redemption_id: of.id,
        audit_url: None,
    })
    .await;
    (world, issued)
}

/// One command for each of these coupons.
async fn act(world: &World, name: &str, coupons: &[Issued], command: impl Fn(&Issued) -> CouponCommand) {
    let chunks = coupons.chunks(bulk::MAX_CHUNK).map(async |coupons| {
        let commands = coupons.iter().map(|of| (of.id, command(of))).collect();
        let meta = meta(world, &format!("{name} from {}", coupons[0].id));
        match world.ledger.execute_many::<Coupon>(commands, &meta).await.unwrap() {
            Many::Done(outcomes) => outcomes.into_iter().for_each(|outcome| drop(outcome.unwrap())),
            Many::Replayed(_) => panic!("{name}: done already"),
        }
    });
    futures::future::join_all(chunks).await;
    grow(world).await;
}

async fn grow(world: &World) {
    tick(world).await.unwrap().unwrap();
    world.advance(1_000);
}

/// Where something must be found: the position, the table, and the row as findings name it.
type Place = (i64, &'static str, String);

fn at(position: i64) -> Place {
    (position, "events", format!("position {position}"))
}

/// What is done to a ledger, and where it must be found.
struct Sample {
    random: StdRng,
    /// The events of coupons that nothing is done to yet, in random order.
    coupons: Vec<Vec<StoredEvent>>,
    issued: BTreeMap<i64, Issued>,
    sql: Vec<String>,
    places: Vec<Place>,
    /// Positions that findings may name.
    touched: BTreeSet<i64>,
}

impl Sample {
    async fn of(world: &World, issued: &[Issued], seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let log = world.store().events_after(0, i64::MAX).await.unwrap();
        assert!(log.len() > 100_000, "{}", log.len());
        let mut coupons: BTreeMap<String, Vec<StoredEvent>> = BTreeMap::new();
        for event in log.into_iter().filter(|event| event.aggregate_type == "coupon") {
            coupons.entry(event.aggregate_id.clone()).or_default().push(event);
        }
        let mut coupons: Vec<_> = coupons.into_values().collect();
        coupons.shuffle(&mut random);
        let issued = issued.iter().map(|of| (of.id, *of)).collect();
        Self { random, coupons, issued, sql: Vec::new(), places: Vec::new(), touched: BTreeSet::new() }
    }

    /// The events of a coupon that nothing was done to yet. What is wrong with one may show at the event behind it.
    fn coupon(&mut self) -> Vec<StoredEvent> {
        let events = self.coupons.pop().unwrap();
        self.touched.extend(events.iter().flat_map(|event| [event.position, event.position + 1]));
        events
    }

    fn event(&mut self) -> StoredEvent {
        self.coupon().choose(&mut self.random).unwrap().clone()
    }

    /// A coupon as it was issued, and the position of its last event.
    fn issued(&mut self) -> (Issued, i64) {
        let events = self.coupon();
        let id: i64 = events[0].aggregate_id.parse().unwrap();
        (self.issued[&id], events.last().unwrap().position)
    }

    fn does(&mut self, sql: String, places: impl IntoIterator<Item = Place>) {
        self.sql.push(sql);
        self.places.extend(places);
    }

    /// A column's text with one character changed, of JSON into other JSON: PostgreSQL takes nothing else.
    fn flip(&mut self, text: &str, is_json: bool) -> String {
        loop {
            let place = self.random.random_range(0..text.chars().count());
            let other = flipped(text, place);
            if !is_json || serde_json::from_str::<Value>(&other).is_ok() {
                return other;
            }
        }
    }

    fn change_events(&mut self) {
        for _ in 0..10 {
            for column in
                ["payload", "metadata", "event_type", "event_version", "aggregate_type", "aggregate_id"]
            {
                let event = self.event();
                let value = match column {
                    "payload" => self.flip(&event.payload, true),
                    "metadata" => self.flip(&event.metadata, true),
                    "event_type" => self.flip(&event.event_type, false),
                    "event_version" => self.flip(&event.event_version, false),
                    "aggregate_type" => self.flip(&event.aggregate_type, false),
                    // Another number may be another coupon's, whose place is taken.
                    _ => format!("x{}", &event.aggregate_id[1..]),
                };
                self.change_event(&event, column, &quoted(&value));
            }
            let (event, bit) = (self.event(), 1 << self.random.random_range(4..30));
            self.change_event(&event, "sequence", &(event.sequence ^ bit).to_string());
            let (earlier, later) = (self.event(), self.event());
            let ms = self.random.random_range(1..5_000);
            self.change_event(&earlier, "recorded_at_ms", &(earlier.recorded_at_ms - ms).to_string());
            self.change_event(&later, "recorded_at_ms", &(later.recorded_at_ms + ms).to_string());
        }
    }

    fn change_event(&mut self, event: &StoredEvent, column: &str, value: &str) {
        let position = event.position;
        let sql = format!("UPDATE events SET {column} = {value} WHERE bucket = 0 AND position = {position}");
        self.does(sql, [at(position)]);
    }

    fn remove_and_swap_events(&mut self) {
        for _ in 0..20 {
            let StoredEvent { position, .. } = self.event();
            self.does(
                format!("DELETE FROM events WHERE bucket = 0 AND position = {position}"),
                [at(position)],
            );
        }
        for _ in 0..10 {
            let (one, other) = (self.event().position, self.event().position);
            for (from, to) in [(one, -one), (other, one), (-one, other)] {
                self.sql.push(format!(
                    "UPDATE events SET position = {to} WHERE bucket = 0 AND position = {from}"
                ));
            }
            self.places.extend([at(one), at(other)]);
        }
    }

    /// To a bucket that is none: copies of whole streams, and streams that are gone from where they were.
    fn carry_streams_away(&mut self) {
        let columns =
            "position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, metadata,
                       recorded_at_ms";
        for number in 0..12 {
            let events = self.coupon();
            let which = format!("aggregate_type = 'coupon' AND aggregate_id = '{}'", events[0].aggregate_id);
            let there = |event: &StoredEvent| {
                (event.position, "events", format!("bucket 1, position {}", event.position))
            };
            let copied: Vec<Place> = events.iter().map(there).collect();
            self.does(
                format!(
                    "INSERT INTO events (bucket, {columns}) SELECT 1, {columns} FROM events WHERE {which}"
                ),
                copied,
            );
            if number % 2 == 0 {
                let gone: Vec<Place> = events.iter().map(|event| at(event.position)).collect();
                self.does(format!("DELETE FROM events WHERE {which} AND bucket = 0"), gone);
            }
        }
    }

    fn change_live_rows(&mut self) {
        let table = |name: &str| -> &'static LiveTable {
            LIVE_TABLES.iter().find(|table| table.name == name).unwrap()
        };
        let (wallet, redemptions) = (table("wallet_v1"), table("redemptions_v1"));
        let row = |last: i64, member_id: i64, id: i64| {
            (last, wallet.name, format!("member_id {member_id}, coupon_id {id}"))
        };
        for _ in 0..40 {
            let (Issued { member_id, id, .. }, last) = self.issued();
            let set = self.another_value(wallet);
            let sql =
                format!("UPDATE wallet_v1 SET {set} WHERE member_id = {member_id} AND coupon_id = {id}");
            self.does(sql, [row(last, member_id, id)]);
        }
        for _ in 0..10 {
            let (Issued { member_id, id, .. }, last) = self.issued();
            let sql = format!("DELETE FROM wallet_v1 WHERE member_id = {member_id} AND coupon_id = {id}");
            self.does(sql, [row(last, member_id, id)]);
            // As many are slipped in as are gone, of coupons that there are none of.
            let (Issued { member_id, id, .. }, _) = self.issued();
            let names: Vec<&str> = wallet.columns.iter().copied().map(Column::name).skip(2).collect();
            let names = names.join(", ");
            let sql = format!(
                "INSERT INTO wallet_v1 (bucket, member_id, coupon_id, {names})
                 SELECT 0, member_id, coupon_id + 10000000, {names} FROM wallet_v1
                 WHERE member_id = {member_id} AND coupon_id = {id}"
            );
            self.does(sql, [row(0, member_id, id + 10_000_000)]);
            // And some come into other hands.
            let (Issued { member_id, id, .. }, last) = self.issued();
            let thief = friend(friend(member_id));
            let sql = format!(
                "UPDATE wallet_v1 SET member_id = {thief} WHERE member_id = {member_id} AND coupon_id = {id}"
            );
            self.does(sql, [row(last, member_id, id), row(last, thief, id)]);
        }
        let (mut used, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.coupons)
            .into_iter()
            .partition(|events| events.last().is_some_and(|event| event.event_type == "Redeemed"));
        self.coupons = used.split_off(10);
        self.coupons.extend(others);
        for events in used {
            self.touched.extend(events.iter().map(|event| event.position));
            let set = self.another_value(redemptions);
            let StoredEvent { aggregate_id: id, position, .. } = events.last().unwrap();
            let sql = format!("UPDATE redemptions_v1 SET {set} WHERE redemption_id = {id}");
            self.does(sql, [(*position, redemptions.name, format!("redemption_id {id}"))]);
        }
    }

    /// A column behind the key, and another value for it.
    fn another_value(&mut self, table: &LiveTable) -> String {
        match table.columns[table.key_columns..].choose(&mut self.random).unwrap() {
            Column::Int(name) => format!("{name} = {name} + {}", self.random.random_range(1..100)),
            Column::Text(name) => format!("{name} = {name} || '1'"),
        }
    }

    /// By more than what else is done can make up for.
    fn change_counters(&mut self) {
        for number in 0..10 {
            let (Issued { definition_id, member_id, .. }, _) = self.issued();
            let which = format!("definition_id = {definition_id}");
            if number < 3 {
                let sql = format!("UPDATE stock_v1 SET issued = issued + 1000 WHERE {which}");
                self.does(sql, [(0, "stock_v1", format!("definition {definition_id}"))]);
            }
            let which = format!("{which} AND member_id = {member_id}");
            let row = format!("member_id {member_id}, definition_id {definition_id}");
            let sql = format!("UPDATE member_counts_v1 SET issued = issued + 1000 WHERE {which}");
            self.does(sql, [(0, "member_counts_v1", row)]);
        }
    }

    /// Of appends to whose events nothing is done: that would show at the receipt too.
    async fn change_receipts(&mut self, world: &World) {
        let sql = "SELECT position || ' ' || event_count || ' ' || key FROM receipts WHERE operation = '/large' ORDER BY position";
        let mut receipts = world.home.sql(sql).await.unwrap();
        receipts.shuffle(&mut self.random);
        let mut receipts = receipts.into_iter();
        let changes = ["request_mac", "key", "position", "event_count", "gone"];
        for change in changes.iter().cycle().take(15) {
            let receipt = receipts.next().unwrap();
            let [position, count, key] = receipt.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{receipt}")
            };
            let (position, count): (i64, i64) = (position.parse().unwrap(), count.parse().unwrap());
            let events = position..position + count;
            self.coupons.retain(|coupon| !coupon.iter().any(|event| events.contains(&event.position)));
            let which = format!(
                "WHERE bucket = 0 AND caller = 'operator' AND operation = '/large' AND key = '{key}'"
            );
            let row = (position, "receipts", format!("operator /large {key}"));
            let moved = (position + 1, "receipts", format!("operator /large {key}"));
            let renamed = (position, "receipts", format!("operator /large {key}x"));
            let lost = (position, "receipts", format!("of position {position}"));
            let (sql, places) = match *change {
                "gone" => (format!("DELETE FROM receipts {which}"), vec![lost]),
                "key" => (format!("UPDATE receipts SET key = key || 'x' {which}"), vec![renamed, lost]),
                "request_mac" => {
                    let other = with_another("request_mac", 4);
                    (format!("UPDATE receipts SET request_mac = {other} {which}"), vec![row, lost])
                }
                "position" => (format!("UPDATE receipts SET position = position + 1 {which}"), vec![moved]),
                _ => (format!("UPDATE receipts SET event_count = event_count + 1 {which}"), vec![row]),
            };
            self.does(sql, places);
        }
    }

    /// Full tiles without anything else in them, and not at the edge of a tree that was signed.
    async fn change_tiles_and_checkpoints(&mut self, world: &World) {
        let sizes = world.home.sql("SELECT size FROM tlog_checkpoints ORDER BY size").await.unwrap();
        let mut sizes: Vec<i64> = sizes.iter().map(|size| size.parse().unwrap()).collect();
        let last = *sizes.last().unwrap();
        let mut tiles: Vec<i64> = (0..last / TILE).collect();
        let spoilt = |tile: &i64| (tile * TILE + 1)..=((tile + 1) * TILE);
        tiles.retain(|tile| self.touched.range(spoilt(tile)).next().is_none());
        tiles.retain(|tile| !sizes.iter().any(|size| size / TILE == *tile));
        for (number, tile) in tiles.choose_multiple(&mut self.random, 12).copied().enumerate() {
            let which = format!("WHERE bucket = 0 AND level = 0 AND tile_index = {tile}");
            let mut places = vec![(0, "tlog_tiles", format!("level 0, tile {tile}"))];
            let sql = match number % 3 {
                0 => format!("DELETE FROM tlog_tiles {which}"),
                1 => format!("UPDATE tlog_tiles SET width = width - 1 {which}"),
                _ => {
                    // Two characters of base64 lie in this hash, whatever lies around it.
                    let hash = self.random.random_range(0..TILE);
                    let letter = (hash * 32 * 4 / 3 + 4) as usize;
                    places.push(at(tile * TILE + hash + 1));
                    self.touched.insert(tile * TILE + hash + 1);
                    format!("UPDATE tlog_tiles SET hashes = {} {which}", with_another("hashes", letter))
                }
            };
            self.does(sql, places);
        }
        sizes.pop();
        let changes = [with_another("note", 20), with_another("root", 5), "size + 1".to_owned()];
        for ((size, column), value) in
            sizes.choose_multiple(&mut self.random, 3).zip(["note", "root", "size"]).zip(changes)
        {
            let named = if column == "size" { size + 1 } else { *size };
            self.touched.insert(named);
            let sql =
                format!("UPDATE tlog_checkpoints SET {column} = {value} WHERE bucket = 0 AND size = {size}");
            self.does(sql, [(named, "tlog_checkpoints", format!("size {named}"))]);
        }
    }
}

on_both_engines! {
    async fn each_of_hundreds_of_changes_to_a_log_of_100_000_events_is_named(engine: Engine) {
        let seed = std::env::var("TAMPER_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
        println!("TAMPER_SEED={seed}");
        let (world, issued) = large_log(engine).await;
        let mut sample = Sample::of(&world, &issued, seed).await;
        sample.change_receipts(&world).await;
        sample.change_events();
        sample.remove_and_swap_events();
        sample.carry_streams_away();
        sample.change_live_rows();
        sample.change_counters();
        sample.change_tiles_and_checkpoints(&world).await;
        without_guards(&world.home).await;
        without_guards_of(&world.home, "receipts").await;
        world.home.sql_all(&sample.sql).await.unwrap();

        let totals = look(&world).await;
        assert!(totals.wrong as usize <= MAX_FINDINGS, "not all are told: {}", totals.wrong);
        let place = |finding: &Finding| (finding.position, finding.table.clone(), finding.row.clone());
        let told = |(position, table, row): Place| (position, table.to_owned(), row);
        let places: BTreeSet<_> = sample.places.into_iter().map(told).collect();
        let named: BTreeSet<_> = totals.findings.iter().map(place).collect();
        assert!(places.len() > 300, "{}", places.len());
        assert_eq!(places.difference(&named).collect::<Vec<_>>(), Vec::<&(i64, String, String)>::new());
        // And nobody else's. What is done to an event shows at the receipt of its whole append as well, and a row that was
        // given to another coupon shows at that one's last event too.
        let rows: BTreeSet<_> = places.iter().map(|(_, table, row)| (table, row)).collect();
        let innocent = |finding: &&Finding| {
            finding.position > 0
                && finding.table != "receipts"
                && !sample.touched.contains(&finding.position)
                && !rows.contains(&(&finding.table, &finding.row))
        };
        let accused: Vec<String> = totals.findings.iter().filter(innocent).map(ToString::to_string).collect();
        assert_eq!(accused, Vec::<String>::new());
        world.close().await;
    }
}
