//! The log: append-only, byte for byte, readable by others, and never silently skipped.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use chrono::NaiveDate;
use coupon_ledger::account::{Account, AccountEvent, AccountRole, SignInBy};
use coupon_ledger::allotment::{Allotment, AllotmentEvent};
use coupon_ledger::approval::{Act, Approval, ApprovalEvent, Proposal};
use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::{Coupon, CouponEvent, Issue, Past, Source};
use coupon_ledger::definition::{Definition, DefinitionEvent, IssueLimit, Kind, Offer, Terms, Validity};
use coupon_ledger::directory::seal;
use coupon_ledger::entity::{Entity, decode};
use coupon_ledger::grant::{Cause, Grant, GrantEvent};
use coupon_ledger::job::{Coupons, Job, JobEvent, Recipients, Work};
use coupon_ledger::ledger::Ledger;
use coupon_ledger::machine::{Machine, MachineEvent};
use coupon_ledger::member::{Member, MemberEvent};
use coupon_ledger::office::{Appointment, AppointmentEvent, Office, OfficeEvent};
use coupon_ledger::order::{KeptCoupon, Line, LineState, Order, OrderEvent, Placement, UsedCoupon};
use coupon_ledger::partner_key::{PartnerKey, PartnerKeyEvent};
use coupon_ledger::provenance::{ImportedFrom, Provenance, ProvenanceEvent};
use coupon_ledger::reading::{Reading, ReadingEvent};
use coupon_ledger::refusals::{Refusals, RefusalsEvent, Refused};
use coupon_ledger::rule::{GoodsGroup, GoodsGroupEvent, OrderAmount, OrderAmountEvent};
use coupon_ledger::secrets::{Purpose, review_hash};
use coupon_ledger::shop::{Shop, ShopDetails, ShopEvent};
use coupon_ledger::store::{
    Append, BUCKET, EPOCH, Effects, Entry, NewEvent, Outcome, Statement, StoredEvent, StreamAppend, StreamId,
    receipts_hash,
};
use coupon_ledger::webhook::{Webhook, WebhookEvent, Why};
use cqrs_es::persist::PersistedEventStore;
use cqrs_es::{AggregateContext as _, AggregateError, EventStore};
use postgres_es::PostgresEventRepository;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, Home, MEMBER, NOON, World};

/// The tables that are never edited.
const COLUMNS: &str = "bucket, position, aggregate_type, aggregate_id, sequence, event_type, event_version, payload, \
                       metadata, recorded_at_ms";

/// Takes the guards off the events, as only someone can who owns the database: what follows is damage.
pub async fn without_guards(home: &Home) {
    without_guards_of(home, "events").await;
}

pub async fn without_guards_of(home: &Home, table: &str) {
    match &home.database_url {
        Some(_) => {
            home.sql(&format!("ALTER TABLE {table} DISABLE TRIGGER USER")).await.unwrap();
        }
        None => {
            for trigger in ["update", "delete", "replace"] {
                home.sql(&format!("DROP TRIGGER IF EXISTS {table}_are_append_only_{trigger}")).await.unwrap();
            }
        }
    }
}

/// Puts them back.
pub async fn with_guards_of(home: &Home, table: &str) {
    if home.database_url.is_some() {
        home.sql(&format!("ALTER TABLE {table} ENABLE TRIGGER USER")).await.unwrap();
        return;
    }
    let step = include_str!("../../migrations/sqlite/0001_log.sql");
    let triggers = step.split("CREATE TRIGGER ").skip(1).filter(|trigger| trigger.starts_with(table));
    for trigger in triggers {
        let (trigger, _) = trigger.split_once("END;").unwrap();
        home.sql(&format!("CREATE TRIGGER {trigger}END")).await.unwrap();
    }
}

async fn whole_log(world: &World) -> Vec<StoredEvent> {
    world.store().events_after(0, i64::MAX).await.unwrap()
}

async fn receipts(world: &World) -> Vec<String> {
    let sql =
        "SELECT caller || '|' || operation || '|' || key || '|' || request_mac || '|' || position || '|' ||
               event_count FROM receipts ORDER BY 1";
    world.home.sql(sql).await.unwrap()
}

/// Every text of a table, row by row.
async fn rows_of(home: &Home, table: &str) -> Vec<String> {
    if home.database_url.is_some() {
        return home.sql(&format!("SELECT t::text FROM {table} t")).await.unwrap();
    }
    let columns = home.sql(&format!("SELECT name FROM pragma_table_info('{table}')")).await.unwrap();
    let texts: Vec<String> = columns.iter().map(|name| format!("CAST({name} AS TEXT)")).collect();
    home.sql(&format!("SELECT {} FROM {table}", texts.join(" || '|' || "))).await.unwrap()
}

async fn tables(home: &Home) -> Vec<String> {
    let sql = match home.database_url {
        Some(_) => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'",
        None => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'",
    };
    home.sql(sql).await.unwrap()
}

/// Whether a word stands in a text by itself: random hexadecimal around it is another word.
fn holds(text: &[u8], word: &str) -> bool {
    let word = word.as_bytes();
    let alone = |at: usize| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        let after = text.get(at + word.len());
        ![before, after].iter().any(|byte| byte.is_some_and(u8::is_ascii_alphanumeric))
    };
    text.windows(word.len()).enumerate().any(|(at, window)| window == word && alone(at))
}

/// A coupon that was issued, opened, given and taken back: four events.
async fn used_to_much(world: &World, definition: i64) -> i64 {
    let id = world.issue(definition, 439).await;
    world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
    world.give(MEMBER, id).await;
    world.call(MEMBER, "/client/withdrawcoupon", json!({"id": id})).await.ok();
    id
}

fn position_of(log: &[StoredEvent], id: i64, sequence: i64) -> i64 {
    let mut events = log.iter();
    let found = events.find(|event| {
        event.aggregate_type == "coupon" && event.aggregate_id == id.to_string() && event.sequence == sequence
    });
    found.unwrap().position
}

on_both_engines! {
    async fn events_and_receipts_cannot_be_changed_removed_or_replaced(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = used_to_much(&world, definition).await;
        let body = json!({"mem_coupon_id": id, "shop_id": 1});
        world.keyed(MEMBER, "append-only", "/client/auditcoupon", body).await.ok();
        let before = (whole_log(&world).await, receipts(&world).await);
        assert_eq!(before.1.len(), 1);
        let top = before.0.len();
        let again = |position: usize, aggregate: &str, sequence: i64| {
            let event = format!("'coupon', '{aggregate}', {sequence}, 'Voided', '1.0', '{{}}', '{{}}', 0");
            format!("INTO events ({COLUMNS}) VALUES (0, {position}, {event})")
        };
        let receipt = "INTO receipts (bucket, caller, operation, key, request_mac, position, event_count)
                       SELECT bucket, caller, operation, key, 'other', 1, 1 FROM receipts";
        let on_conflict = "ON CONFLICT (bucket, caller, operation, key) DO UPDATE SET position = 1";
        let mut attempts = vec![
            "UPDATE events SET payload = '{}'".to_owned(),
            "UPDATE events SET recorded_at_ms = 0 WHERE position = 1".to_owned(),
            format!("UPDATE events SET position = position + {top}"),
            "DELETE FROM events".to_owned(),
            format!("DELETE FROM events WHERE position = {top}"),
            format!("INSERT {}", again(1, "999", 1)),
            format!("INSERT {}", again(top + 1, &id.to_string(), 1)),
            format!("INSERT {} ON CONFLICT (bucket, position) DO UPDATE SET payload = '{{}}'", again(1, "999", 1)),
            "UPDATE receipts SET request_mac = ''".to_owned(),
            "DELETE FROM receipts".to_owned(),
            format!("INSERT {receipt}"),
            format!("INSERT {receipt} WHERE true {on_conflict}"),
        ];
        match engine {
            Engine::Postgres => attempts.extend(
                ["events", "events CASCADE", "receipts", "log_head, events, receipts"]
                    .map(|tables| format!("TRUNCATE {tables}")),
            ),
            Engine::Sqlite => attempts.extend([
                format!("INSERT OR REPLACE {}", again(1, "999", 1)),
                format!("REPLACE {}", again(top + 1, &id.to_string(), 1)),
                // The hidden row number is a third key by which a row could be replaced.
                format!("INSERT OR REPLACE {}", again(top + 1, "999", 1))
                    .replace("events (", "events (rowid, ")
                    .replace("VALUES (", "VALUES (1, "),
                format!("UPDATE OR REPLACE events SET position = 1 WHERE position = {top}"),
                format!("INSERT OR REPLACE {receipt}"),
            ]),
        }
        for attempt in attempts {
            assert!(world.home.sql(&attempt).await.is_err(), "accepted: {attempt}");
            assert_eq!((whole_log(&world).await, receipts(&world).await), before, "{attempt}");
        }
        // The guards are not in the way of the ledger itself.
        used_to_much(&world, definition).await;
        world.close().await;
    }

    async fn payload_and_metadata_come_back_byte_for_byte(engine: Engine) {
        let world = World::empty(engine).await;
        let awkward = [
            r#"{"b":1.0,"a":1,"c":1.10,"d":-0,"e":1e2,"f":1E+2,"g":12345678901234567890}"#,
            "{\"z\": 1,  \"a\" : [ 1 ,\t2 ],\"a\":2, \"tab\":\"\\t\"\n }",
            r#"{"quotes":"\" ' \\ \/ / $1 ? ; -- %s","escapes":"\u0000\u00e9\n\t\ud83d\ude00"}"#,
            "{\"text\":\"😀 𠮷 e\u{301} é \u{2028}\u{2029}\u{feff}\u{202e} \u{7f}  two  spaces \"}",
            "\"just a text\"",
        ];
        let awkward = awkward.map(ToOwned::to_owned);
        let event = |payload: &String| NewEvent {
            event_type: "Odd '\"\\ 😀".to_owned(),
            event_version: "1.0".to_owned(),
            payload: payload.clone(),
        };
        let stream = StreamId { kind: "coupon", id: 1 };
        let mut appender = world.store().appender();
        for (version, text) in (0..).zip(&awkward) {
            let part = StreamAppend { stream, expected_version: version, events: vec![event(text)] };
            let append = Append {
                append_id: format!("{version:032x}"),
                epoch: EPOCH,
                entries: vec![Entry { streams: vec![part], effects: Effects::default() }],
                unchanged: Vec::new(),
                receipts: Vec::new(),
                metadata: text.as_str().into(),
            };
            let appended = appender.append(move || Arc::from([append]), &world.clock).await.unwrap();
            let outcomes = appended.outcomes;
            assert!(matches!(outcomes[..], [Outcome::Committed { .. }]), "{outcomes:?}");
        }
        let log = whole_log(&world).await;
        assert_eq!(world.store().load(&[stream]).await.unwrap()[0], log);
        assert_eq!(log.len(), awkward.len());
        for (stored, text) in log.iter().zip(&awkward) {
            assert_eq!((&stored.payload, &stored.metadata), (text, text));
            assert_eq!(stored.event_type, "Odd '\"\\ 😀");
        }
        world.close().await;
    }

    async fn awkward_texts_go_through_the_ledger_unchanged(engine: Engine) {
        let world = World::empty(engine).await;
        let text = "a  b \"q\" \\ / 😀 𠮷 e\u{301} \u{2028} ' ; -- <b>&amp;";
        let shop = json!({"shop_name": text, "phone": "1.0", "address": text});
        world.operator("/shop/add", shop).await.ok();
        let details = ShopDetails { name: text.to_owned(), phone: "1.0".to_owned(), address: text.to_owned() };
        let event = ShopEvent::Opened { details, partner: false, employee_id: 0, at_ms: NOON };
        assert_eq!(whole_log(&world).await[0].payload, serde_json::to_string(&event).unwrap());
        let read = world.operator("/shop/get", json!({"id": 1})).await;
        assert_eq!((&read.ok()["shop_name"], &read.ok()["phone"]), (&json!(text), &json!("1.0")));
        world.close().await;
    }

    async fn a_damaged_stream_is_an_error_that_names_its_place_and_never_a_skip(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let damages = [
            ("a payload of another shape", "UPDATE events SET payload = '{\"Viewed\":{}}'", 2, 2),
            ("a payload that is no event", "UPDATE events SET payload = '[]'", 2, 2),
            ("a payload of another event", "UPDATE events SET payload = '{\"Expired\":{\"at_ms\":1}}'", 2, 2),
            ("an unknown type", "UPDATE events SET event_type = 'Exploded', payload = '{\"Exploded\":{}}'", 2, 2),
            ("an unknown type of a known shape", "UPDATE events SET event_type = 'Exploded'", 2, 2),
            ("an unknown version", "UPDATE events SET event_version = '2.0'", 2, 2),
            ("a hole", "DELETE FROM events", 2, 3),
            ("a hole at the beginning", "DELETE FROM events", 1, 2),
            ("a corrupt last event", "UPDATE events SET payload = '{}'", 4, 4),
        ];
        let mut ids = Vec::new();
        for _ in damages {
            ids.push(used_to_much(&world, definition).await);
        }
        let whole = used_to_much(&world, definition).await;
        let log = whole_log(&world).await;
        without_guards(&world.home).await;
        for ((what, damage, sequence, named), id) in damages.into_iter().zip(&ids) {
            let place =
                format!("WHERE aggregate_type = 'coupon' AND aggregate_id = '{id}' AND sequence = {sequence}");
            world.home.sql(&format!("{damage} {place}")).await.unwrap();
            let error = world.ledger.load::<Coupon>(*id).await.unwrap_err().to_string();
            let position = position_of(&log, *id, named);
            let names = format!("position {position}, stream coupon {id} event {named}");
            assert!(error.contains(&names), "{what}: {error}");
            let reply = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (500, 9999), "{what}");
            let request_id = reply.headers["x-request-id"].to_str().unwrap();
            assert_eq!(reply.data(), &json!({"request_id": request_id}), "{what}");
        }
        // The first event holds what couponinfo shows: without it there is no page, but not no coupon.
        let holed = world.call(MEMBER, "/client/couponinfo", json!({"id": ids[7]})).await;
        assert_eq!((holed.status.as_u16(), holed.code()), (500, 9999));
        let used = json!({"mem_coupon_id": whole, "shop_id": 1});
        world.call(MEMBER, "/client/auditcoupon", used).await.ok();
        world.close().await;
    }

    async fn opening_a_damaged_coupon_is_an_error_too(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.give(MEMBER, id).await;
        without_guards(&world.home).await;
        world.home.sql("UPDATE events SET event_version = '9' WHERE event_type = 'Given'").await.unwrap();
        let reply = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (500, 9999));
        world.close().await;
    }

    async fn a_damaged_definition_or_shop_stops_what_rests_on_it(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        without_guards(&world.home).await;
        world.home.sql("UPDATE events SET event_version = '9' WHERE aggregate_type <> 'coupon'").await.unwrap();
        let clock = world.clock.clone();
        let world = World::open(world.close().await, clock, Zone::default()).await;
        let issue = world.operator("/sendelecoupon/one", json!({"coupon_id": definition, "member_id": 439})).await;
        assert_eq!((issue.status.as_u16(), issue.code()), (500, 9999));
        let used = world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await;
        assert_eq!((used.status.as_u16(), used.code()), (500, 9999));
        world.close().await;
    }

    async fn positions_are_gapless_and_recorded_time_never_goes_back(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        futures::future::join_all((0..40).map(|_| used_to_much(&world, definition))).await;
        world.clock.set(NOON - HOUR);
        let early = used_to_much(&world, definition).await;
        let clock = world.clock.clone();
        let world = World::open(world.close().await, clock, Zone::default()).await;
        used_to_much(&world, definition).await;
        world.clock.set(NOON + HOUR);
        used_to_much(&world, definition).await;
        let log = whole_log(&world).await;
        let positions: Vec<i64> = log.iter().map(|event| event.position).collect();
        assert_eq!(positions, (1..=log.len() as i64).collect::<Vec<_>>());
        assert!(log.is_sorted_by_key(|event| event.recorded_at_ms));
        assert_eq!((log[0].recorded_at_ms, log[log.len() - 1].recorded_at_ms), (NOON, NOON + HOUR));
        // Rules go by the command's own time, and that is what the event says.
        let (coupon, _) = world.ledger.load::<Coupon>(early).await.unwrap();
        assert_eq!(coupon.issue.unwrap().at_ms, NOON - HOUR);
        let head = world.home.sql("SELECT CAST(position AS TEXT) FROM log_head").await.unwrap();
        assert_eq!(head, [log.len().to_string()]);
        // A refusal or an answer that changes nothing takes no position.
        assert_eq!(world.call(FRIEND, "/client/givecoupon", json!({"id": early})).await.code(), 2001);
        world.call(MEMBER, "/client/couponinfo", json!({"id": early})).await.ok();
        assert_eq!(whole_log(&world).await.len(), log.len());
        world.close().await;
    }

    async fn metadata_is_a_flat_map_of_strings_that_tells_who_and_why(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.give(MEMBER, id).await;
        world.advance(DAY);
        let bearer = format!("Bearer {}", world.token(MEMBER));
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "my-key_1"), ("x-request-id", "r.1")];
        let body = json!({"mem_coupon_id": id, "shop_id": 1}).to_string();
        world.request("/client/auditcoupon", &headers, &body).await.ok();
        let log = whole_log(&world).await;
        let maps: Vec<HashMap<String, String>> =
            log.iter().map(|event| serde_json::from_str(&event.metadata).unwrap()).collect();
        let always = ["append_id", "caller", "caller_kind", "causation_id", "correlation_id", "request_id"];
        for (event, map) in log.iter().zip(&maps) {
            let names = map.keys().map(String::as_str);
            let mut names: Vec<&str> = names.filter(|name| !["idempotency_key", "receipts_hash"].contains(name)).collect();
            names.sort_unstable();
            assert_eq!(names, always, "{}", event.event_type);
            assert!(map["append_id"].len() == 32 && map["append_id"].bytes().all(|byte| byte.is_ascii_hexdigit()));
        }
        // The use of a coupon whose gift had lapsed: two events of one append.
        let [lapsed, used] = &maps[maps.len() - 2..] else { panic!("too few events") };
        assert_eq!(lapsed, used);
        assert_eq!((used["caller"].as_str(), used["caller_kind"].as_str()), ("member:439", "member"));
        assert_eq!((used["request_id"].as_str(), used["idempotency_key"].as_str()), ("r.1", "my-key_1"));
        let receipt = "SELECT caller, operation, key, request_mac FROM receipts WHERE bucket = $1 AND key = 'my-key_1'";
        let receipt = world.store().query(Statement::new(receipt, [BUCKET.into()])).await.unwrap().remove(0);
        let columns = [receipt.text(0), receipt.text(1), receipt.text(2), receipt.text(3)];
        assert_eq!(used["receipts_hash"], receipts_hash(std::iter::once(columns)));
        assert_eq!((used["causation_id"].as_str(), used["correlation_id"].as_str()), ("r.1", "r.1"));
        let issued = &maps[maps.len() - 4];
        assert_eq!((issued["caller"].as_str(), issued.get("receipts_hash")), ("operator", None));
        let appends: BTreeSet<&String> = maps.iter().map(|map| &map["append_id"]).collect();
        assert_eq!(appends.len(), maps.len() - 1);
        world.close().await;
    }

    async fn no_gift_code_token_or_secret_is_in_the_database_and_receipts_hold_no_answers(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let mut words = vec!["2a".repeat(32)];
        for place in 0..3 {
            let id = world.issue(definition, 439).await;
            let key = format!("give-{place}");
            let given = world.keyed(MEMBER, &key, "/client/givecoupon", json!({"id": id})).await;
            let code = given.ok()["code"].as_i64().unwrap();
            words.push(code.to_string());
            if place > 0 {
                world.keyed(FRIEND, &key, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
            } else {
                // What was tried in vain is not kept either: it may be another gift's code.
                world.keyed(FRIEND, &key, "/client/getcoupon", json!({"id": id, "code": 271_828})).await;
                words.push("271828".to_owned());
            }
        }
        let token = world.token(FRIEND);
        world.operator("/token/revoke", json!({"revoke": token})).await.ok();
        words.extend(token.split('.').skip(1).map(ToOwned::to_owned));
        words.push(token);
        for table in tables(&world.home).await {
            for row in rows_of(&world.home, &table).await {
                for word in &words {
                    assert!(!holds(row.as_bytes(), word), "{word} in {table}: {row}");
                }
            }
        }
        let receipts = receipts(&world).await;
        assert_eq!(receipts.len(), 6);
        for receipt in receipts {
            let parts: Vec<&str> = receipt.split('|').collect();
            let [caller, operation, key, mac, _, count] = parts[..] else { panic!("{receipt}") };
            assert!(caller.starts_with("member:") && operation.starts_with("/client/") && key.starts_with("give-"));
            assert!(mac.len() == 64 && mac.bytes().all(|byte| byte.is_ascii_hexdigit()), "{mac}");
            assert_eq!(count, "1");
        }
        if engine == Engine::Sqlite {
            for file in ["ledger.db", "ledger.db-wal"] {
                let bytes = std::fs::read(world.home.path().join(file)).unwrap();
                for word in &words {
                    assert!(!holds(&bytes, word), "{word} in {file}");
                }
            }
        }
        world.close().await;
    }

    async fn a_reviews_text_is_kept_apart_and_its_salted_hash_is_in_the_event(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let text = "非常給力 😀 \"真的\"  好";
        let mut salts = BTreeSet::new();
        for _ in 0..2 {
            let id = world.issue(definition, 439).await;
            world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
            let body = json!({"id": id, "evaluation": text, "score": 5});
            world.keyed(MEMBER, &format!("review-{id}"), "/client/evaluacoupon", body).await.ok();
            let kept = format!("SELECT salt || '|' || text FROM reviews WHERE coupon_id = {id}");
            let kept = world.home.sql(&kept).await.unwrap();
            let (salt, kept_text) = kept[0].split_once('|').unwrap();
            let person = world.ledger.seal().person(439);
            let salt = person.open(seal::REVIEW_SALT, salt).unwrap();
            assert_eq!((kept.len(), person.open(seal::REVIEW_TEXT, kept_text).unwrap().as_str()), (1, text));
            salts.insert(salt.clone());
            let payload = whole_log(&world).await.pop().unwrap().payload;
            let event: CouponEvent = serde_json::from_str(&payload).unwrap();
            let CouponEvent::Evaluated { text_hash, .. } = event else { panic!("{payload}") };
            assert_eq!(text_hash, review_hash(&salt, text));
        }
        assert_eq!(salts.len(), 2, "a salt is used twice");
        for table in tables(&world.home).await {
            let found = rows_of(&world.home, &table).await.iter().any(|row| row.contains("非常給力"));
            assert!(!found, "{table}");
        }
        // Erased, the log still reads, and the page shows none.
        world.home.sql("DELETE FROM reviews").await.unwrap();
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await;
        assert_eq!((&list.ok()[0]["evaluation"], &list.ok()[0]["score"]), (&json!(""), &json!(5)));
        world.close().await;
    }

    async fn the_ledger_is_a_cqrs_event_store_that_writes_rows_and_counters_too(engine: Engine) {
        let world = World::with_people(engine).await;
        let ledger = &world.ledger;
        // A definition of one coupon, made through the store alone.
        let defined = DefinitionEvent::Defined { offer: Box::new(offer()), stock: Some(1), employee_id: 0, at_ms: NOON };
        let context = EventStore::<Definition>::load_aggregate(ledger, "7").await.unwrap();
        EventStore::<Definition>::commit(ledger, vec![defined], context, HashMap::new()).await.unwrap();
        let row = world.operator("/elecoupons/info", json!({"id": 7})).await;
        assert_eq!((&row.ok()["num"], &row.ok()["inventory"]), (&json!(1), &json!(1)));
        // A coupon of it.
        let issued = CouponEvent::Issued(Box::new(issue()));
        let context = EventStore::<Coupon>::load_aggregate(ledger, "5").await.unwrap();
        let metadata = HashMap::from([("caller".to_owned(), "import".to_owned())]);
        let envelopes = EventStore::<Coupon>::commit(ledger, vec![issued.clone()], context, metadata).await.unwrap();
        assert_eq!((envelopes[0].sequence, &envelopes[0].payload), (1, &issued));
        assert_eq!(envelopes[0].metadata["caller"], "import");
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        assert_eq!((list.ok().as_array().unwrap().len(), &list.ok()[0]["id"]), (1, &json!(5)));
        let row = world.operator("/elecoupons/info", json!({"id": 7})).await;
        assert_eq!(row.ok()["inventory"], 0);
        let counted = "SELECT CAST(issued AS TEXT) FROM member_counts_v1 WHERE member_id = 439 AND definition_id = 7";
        assert_eq!(world.home.sql(counted).await.unwrap(), ["1"]);
        // The counter guards this way in as well.
        let context = EventStore::<Coupon>::load_aggregate(ledger, "6").await.unwrap();
        let refused = EventStore::<Coupon>::commit(ledger, vec![issued], context, HashMap::new()).await;
        assert!(matches!(refused, Err(AggregateError::UserError(refusal)) if refusal.code() == 5001));
        // What was read before someone else wrote is stale.
        let mut first = EventStore::<Coupon>::load_aggregate(ledger, "5").await.unwrap();
        assert_eq!(first.aggregate().holder_id, 439);
        let second = EventStore::<Coupon>::load_aggregate(ledger, "5").await.unwrap();
        let viewed = vec![CouponEvent::Viewed { member_id: 439, at_ms: NOON }];
        EventStore::<Coupon>::commit(ledger, viewed.clone(), first, HashMap::new()).await.unwrap();
        let stale = EventStore::<Coupon>::commit(ledger, viewed, second, HashMap::new()).await;
        assert!(matches!(stale, Err(AggregateError::AggregateConflict)));
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        assert_eq!(list.ok()[0]["is_read"], 1);
        let events = EventStore::<Coupon>::load_events(ledger, "5").await.unwrap();
        assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2]);
        assert!(EventStore::<Coupon>::load_events(ledger, "no number").await.is_err());
        world.close().await;
    }
}

/// A library that knows nothing of this program reads its streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_postgres_repository_reads_our_streams() {
    let world = World::with_people(Engine::Postgres).await;
    let definition = world.define(json!({"rules": "a  b \"😀\" \u{2028}"})).await;
    let id = used_to_much(&world, definition).await;
    let used = world
        .keyed(MEMBER, "stock-1", "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1}))
        .await;
    let redemption: i64 = used.ok()["id"].as_str().unwrap().parse().unwrap();
    world.call(EMPLOYEE, "/user/reverseelecoupon", json!({"id": redemption, "reason": "按錯"})).await.ok();
    let pool = sqlx::PgPool::connect(world.home.database_url.as_ref().unwrap()).await.unwrap();
    assert_reads_the_same::<Coupon>(&world.ledger, &pool, id, 6).await;
    assert_reads_the_same::<Definition>(&world.ledger, &pool, definition, 1).await;
    assert_reads_the_same::<Shop>(&world.ledger, &pool, 1, 1).await;
    pool.close().await;
    world.close().await;
}

async fn assert_reads_the_same<A: Entity + std::fmt::Debug>(
    ledger: &Ledger,
    pool: &sqlx::PgPool,
    id: i64,
    count: usize,
) where
    A::Event: std::fmt::Debug + PartialEq,
{
    let repository = PostgresEventRepository::new(pool.clone());
    let stock = PersistedEventStore::<_, A>::new_event_store(repository);
    let theirs = stock.load_events(&id.to_string()).await.unwrap();
    let ours = EventStore::<A>::load_events(ledger, &id.to_string()).await.unwrap();
    assert_eq!(theirs.len(), count);
    for (theirs, ours) in theirs.iter().zip(&ours) {
        assert_eq!((&theirs.aggregate_id, theirs.sequence), (&ours.aggregate_id, ours.sequence));
        assert_eq!((&theirs.payload, &theirs.metadata), (&ours.payload, &ours.metadata));
    }
    assert_eq!(theirs.len(), ours.len());
    let mut context = stock.load_aggregate(&id.to_string()).await.unwrap();
    let (state, version) = ledger.load::<A>(id).await.unwrap();
    assert_eq!((context.aggregate(), version), (&mut state.clone(), count as i64));
}

fn day(year: i32, month: u32, day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(year, month, day).unwrap()
}

fn terms() -> Terms {
    Terms {
        kind: Kind::Exchange,
        title: "測試電子券測試電子券測試".to_owned(),
        deduction_cents: 1_000,
        minimum_order_cents: 10_000,
        weekdays: vec![1, 2, 3],
        givable: true,
        stackable: false,
        rules: "我是\"使用\"規則\\ 😀\u{2028}".to_owned(),
        shop_ids: vec![1, 12],
        self_redeemable: true,
        scan_required: false,
    }
}

fn offer() -> Offer {
    Offer {
        terms: terms(),
        validity: Validity::Fixed { start: day(2018, 11, 2), end: day(2028, 11, 24) },
        issue_limit: IssueLimit::Levels,
        get_limit: 2,
        level_ids: vec![3, 4],
        claimable: true,
    }
}

fn issue() -> Issue {
    Issue {
        definition_id: 7,
        terms: terms(),
        member_id: 439,
        start_date: day(2018, 11, 2),
        end_date: day(2028, 11, 24),
        starts_at_ms: 1_541_088_000_000,
        ends_at_ms: 1_858_694_400_000,
        source: Source::OneToOne,
        source_id: 0,
        employee_id: 1000,
        order_id: 0,
        goods_id: 0,
        at_ms: 1_543_026_701_000,
    }
}

/// What each golden line means, in its order.
fn golden_coupons() -> Vec<CouponEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        CouponEvent::Issued(Box::new(issue())),
        CouponEvent::Viewed { member_id: 439, at_ms },
        CouponEvent::Given {
            gift: 1,
            member_id: 439,
            code_key: "1f2e3d4c".to_owned(),
            lapses_at_ms: at_ms + DAY,
            at_ms,
        },
        CouponEvent::GiftCodeRejected { gift: 1, member_id: 442, at_ms },
        CouponEvent::GiftWithdrawn { gift: 1, at_ms },
        CouponEvent::GiftLapsed { gift: 2, at_ms: at_ms + DAY },
        CouponEvent::Received { gift: 3, giver_id: 439, member_id: 442, at_ms },
        CouponEvent::Redeemed { redemption_id: 2, member_id: 442, shop_id: 1, employee_id: 1000, at_ms },
        CouponEvent::RedemptionReversed {
            redemption_id: 2,
            employee_id: 1000,
            reason: "按錯".to_owned(),
            at_ms,
        },
        CouponEvent::Evaluated { member_id: 442, score: 5, text_hash: "ab".repeat(32), at_ms },
        CouponEvent::Expired { at_ms },
        CouponEvent::Voided { employee_id: 0, reason: "發錯".to_owned(), at_ms },
        CouponEvent::Issued(Box::new(Issue { source: Source::MassSend, source_id: 7, ..issue() })),
        CouponEvent::EndMoved {
            end_date: day(2028, 12, 31),
            ends_at_ms: 1_861_891_200_000,
            employee_id: 1000,
            reason: "延期".to_owned(),
            at_ms,
        },
        imported(Past::Unused),
        imported(Past::Used { redemption_id: 9, shop_id: 1, employee_id: 1000, at_ms }),
        imported(Past::Voided { at_ms }),
    ]
}

fn imported(past: Past) -> CouponEvent {
    let issue = Box::new(Issue { source: Source::Imported, employee_id: 0, ..issue() });
    CouponEvent::Imported { issue, past, at_ms: 1_795_406_400_000 }
}

fn golden_jobs() -> Vec<JobEvent> {
    let at_ms = 1_543_026_701_000;
    let started = |work: Work, targeted: i64, reason: &str, employee_id: i64| JobEvent::Started {
        work,
        targeted,
        until_position: 1_200,
        reason: reason.to_owned(),
        employee_id,
        at_ms,
    };
    let recipients = Recipients { shop_ids: vec![1], tag_ids: Vec::new(), level_ids: vec![2, 3] };
    let end_date = day(2028, 12, 31);
    let send = Work::Send { definition_id: 7, recipients, notify: true };
    vec![
        started(send.clone(), 460, "", 1000),
        started(Work::Recall { coupons: Coupons::OfDefinition(7) }, 9, "發錯", 0),
        started(Work::Extend { coupons: Coupons::OfSend(3), end_date }, 9, "延期", 0),
        JobEvent::Paused { employee_id: 0, at_ms },
        JobEvent::Resumed { employee_id: 1000, at_ms },
        JobEvent::Cancelled { employee_id: 0, at_ms },
        JobEvent::Finished { done: 455, refused: [(310, 1), (5002, 4)].into(), at_ms },
        JobEvent::Proposed {
            approval_id: 3,
            work: send,
            targeted: 460,
            until_position: 1_200,
            reason: String::new(),
            employee_id: 1000,
            at_ms,
        },
        started(Work::SendTo { definition_id: 7, member_ids: vec![431, 439] }, 2, "", 1000),
    ]
}

fn golden_orders() -> Vec<OrderEvent> {
    let at_ms = 1_543_026_701_000;
    let placement = Placement {
        member_id: 439,
        shop_id: 1,
        employee_id: 1000,
        order_no: "T-1".to_owned(),
        lines: vec![
            Line { goods_id: 7, price_cents: 10_000, state: LineState::Sold, count: 2 },
            Line { goods_id: 9, price_cents: 500, state: LineState::Free, count: 1 },
            Line { goods_id: 9, price_cents: 500, state: LineState::Returned, count: 1 },
        ],
        amount_cents: 19_500,
        rule_id: 3,
        used: vec![UsedCoupon { coupon_id: 12, redemption_id: 4, worth_cents: 1_000 }],
        issued: vec![1001, 1002],
        score: 30,
        balance_cents: 1_250,
        remark: "少冰".to_owned(),
    };
    vec![
        OrderEvent::Placed { placement: Box::new(placement), at_ms },
        OrderEvent::Cancelled {
            returned: vec![12],
            voided: vec![1001],
            kept: vec![KeptCoupon { coupon_id: 1002, code: 3001 }],
            employee_id: 1000,
            at_ms,
        },
    ]
}

fn golden_definitions() -> Vec<DefinitionEvent> {
    let at_ms = 1_543_026_701_000;
    let counted = Offer {
        validity: Validity::FromReceipt { starts_after_days: 1, valid_days: 30 },
        issue_limit: IssueLimit::PerMember,
        ..offer()
    };
    let card = Offer { validity: Validity::MemberCard, issue_limit: IssueLimit::OneAtATime, ..offer() };
    vec![
        DefinitionEvent::Defined { offer: Box::new(offer()), stock: Some(20), employee_id: 1000, at_ms },
        DefinitionEvent::Defined { offer: Box::new(card), stock: None, employee_id: 0, at_ms },
        DefinitionEvent::Edited { offer: Box::new(counted), employee_id: 1000, at_ms },
        DefinitionEvent::StockChanged { by: -5, stock: 15, employee_id: 1000, at_ms },
        DefinitionEvent::StateChanged { on: false, employee_id: 1000, at_ms },
    ]
}

fn golden_shops() -> Vec<ShopEvent> {
    let at_ms = 1_543_026_701_000;
    let details = ShopDetails {
        name: "總店".to_owned(),
        phone: "020-88888888".to_owned(),
        address: "天河路1號".to_owned(),
    };
    vec![
        ShopEvent::Opened { details: details.clone(), partner: false, employee_id: 1000, at_ms },
        ShopEvent::Edited { details: details.clone(), employee_id: 1000, at_ms },
        ShopEvent::Closed { employee_id: 1000, at_ms },
        ShopEvent::Reopened { employee_id: 1000, at_ms },
        ShopEvent::AuditKeyRotated { audit_key: 2, employee_id: 1000, at_ms },
        ShopEvent::Opened { details, partner: true, employee_id: 0, at_ms },
    ]
}

fn golden_allotments() -> Vec<AllotmentEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        AllotmentEvent::Allotted {
            partner_id: 3,
            definition_id: 7,
            num: 10,
            end_date: day(2018, 12, 31),
            employee_id: 1000,
            at_ms,
        },
        AllotmentEvent::EndChanged { end_date: day(2028, 2, 29), employee_id: 0, at_ms },
        AllotmentEvent::StockChanged { by: -4, num: 6, employee_id: 1000, at_ms },
    ]
}

fn golden_grants() -> Vec<GrantEvent> {
    let at_ms = 1_543_026_701_000;
    let added = |cause| GrantEvent::Added { cause, definition_id: 7, num: 10, employee_id: 1000, at_ms };
    vec![
        added(Cause::OrderAmount(3)),
        added(Cause::GoodsGroup(4)),
        added(Cause::Level(2)),
        added(Cause::Birthday),
        GrantEvent::Changed { num: 5, employee_id: 0, at_ms },
        GrantEvent::Removed { employee_id: 0, at_ms },
    ]
}

fn golden_order_amounts() -> Vec<OrderAmountEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        OrderAmountEvent::Defined { amount_cents: 10_000, employee_id: 1000, at_ms },
        OrderAmountEvent::Changed { amount_cents: 20_000, employee_id: 0, at_ms },
        OrderAmountEvent::Deleted { employee_id: 0, at_ms },
    ]
}

fn golden_members() -> Vec<MemberEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        MemberEvent::Erased { reason: "會員要求".to_owned(), employee_id: 1000, at_ms },
        MemberEvent::SignedIn { appid: "wx0123456789abcdef".to_owned(), first: true, at_ms },
        MemberEvent::WechatUnbound { employee_id: 1000, at_ms },
    ]
}

fn golden_accounts() -> Vec<AccountEvent> {
    let at_ms = 1_543_026_701_000;
    let created = |role| AccountEvent::Created { role, at_ms };
    vec![
        created(AccountRole::Operator),
        created(AccountRole::Auditor),
        created(AccountRole::Employee(1000)),
        AccountEvent::CodeGiven { number: 1, lapses_at_ms: at_ms + 1_800_000, at_ms },
        AccountEvent::PasswordSet { by_code: true, at_ms },
        AccountEvent::PasswordSet { by_code: false, at_ms },
        AccountEvent::SignedIn { by: SignInBy::Password, totp_step: 0, at_ms },
        AccountEvent::SignedIn { by: SignInBy::Password, totp_step: 51_434_223, at_ms },
        AccountEvent::Locked { until_ms: at_ms + 60_000, at_ms },
        AccountEvent::TotpEnabled { number: 1, totp_step: 51_434_223, at_ms },
        AccountEvent::TotpDisabled { at_ms },
        AccountEvent::SignedOutEverywhere { at_ms },
        AccountEvent::Disabled { at_ms },
        AccountEvent::Enabled { at_ms },
        AccountEvent::SignedIn { by: SignInBy::Provider, totp_step: 0, at_ms },
        AccountEvent::SubjectLinked { number: 1, at_ms },
        AccountEvent::SubjectUnlinked { at_ms },
    ]
}

fn golden_offices() -> Vec<OfficeEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        OfficeEvent::Added { title: "店長".to_owned(), employee_id: 0, at_ms },
        OfficeEvent::Edited { title: "副店長".to_owned(), employee_id: 1000, at_ms },
        OfficeEvent::RightsSet { rights: vec![5, 9], employee_id: 0, at_ms },
        OfficeEvent::Deleted { employee_id: 0, at_ms },
    ]
}

fn golden_appointments() -> Vec<AppointmentEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        AppointmentEvent::Appointed { office_id: 1, manager: true, employee_id: 0, at_ms },
        AppointmentEvent::Appointed { office_id: 0, manager: false, employee_id: 1000, at_ms },
    ]
}

fn golden_machines() -> Vec<MachineEvent> {
    let at_ms = 1_543_026_701_000;
    let expires_at_ms = 1_574_562_701_000;
    let (name, rights) = ("收銀機3".to_owned(), vec![35, 38]);
    vec![
        MachineEvent::Issued { name, rights, expires_at_ms, employee_id: 0, at_ms },
        MachineEvent::Revoked { employee_id: 0, at_ms },
    ]
}

fn golden_approvals() -> Vec<ApprovalEvent> {
    let at_ms = 1_543_026_701_000;
    let proposed = |act: Act, action: &str, behind: &[&str], employee_id: i64| {
        ApprovalEvent::Proposed(Box::new(Proposal {
            act,
            action: action.to_owned(),
            above: 100,
            proposed_by: behind[0].to_owned(),
            behind: behind.iter().copied().map(ToOwned::to_owned).collect(),
            employee_id,
            lapses_at_ms: 1_543_631_501_000,
            at_ms,
        }))
    };
    let recipients = Recipients { shop_ids: vec![1], tag_ids: Vec::new(), level_ids: vec![2, 3] };
    let work = Work::Send { definition_id: 7, recipients, notify: true };
    let send = Act::Job { job_id: 7, work, targeted: 460, until_position: 1_200, reason: String::new() };
    let end_date = day(2018, 12, 31);
    let allot = Act::Allot { allotment_id: 4, partner_id: 3, definition_id: 7, num: 200, end_date };
    let (offer, by) = (Box::new(offer()), "operator:7".to_owned());
    vec![
        proposed(send, "/sendelecoupon/add", &["employee:1000", "operator"], 1000),
        proposed(
            Act::Define { definition_id: 8, offer, stock: None },
            "/elecoupons/add",
            &["operator:7", "operator"],
            0,
        ),
        proposed(
            Act::RaiseStock { definition_id: 8, by: 50, stock: 150 },
            "/elecoupons/inventory",
            &["machine:3", "operator:7", "operator"],
            0,
        ),
        proposed(allot, "/business/addattract", &["operator"], 0),
        proposed(
            Act::RaiseAllotment { allotment_id: 4, by: 50, num: 250 },
            "/business/inventory",
            &["employee:1000"],
            1000,
        ),
        proposed(
            Act::Import { sha256: "ab".repeat(32), rows: 5_000 },
            "/elecoupons/import",
            &["operator"],
            0,
        ),
        ApprovalEvent::Approved { by, at_ms },
        ApprovalEvent::Refused { by: "operator".to_owned(), reason: "數量有誤".to_owned(), at_ms },
        ApprovalEvent::Withdrawn { by: "employee:1000".to_owned(), at_ms },
        ApprovalEvent::Expired { at_ms },
    ]
}

fn golden_partner_keys() -> Vec<PartnerKeyEvent> {
    let at_ms = 1_543_026_701_000;
    let public_key = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=".to_owned();
    vec![
        PartnerKeyEvent::Registered { partner_id: 2, public_key, employee_id: 0, at_ms },
        PartnerKeyEvent::Revoked { employee_id: 0, at_ms },
    ]
}

fn golden_readings() -> Vec<ReadingEvent> {
    let (reader, action) = ("employee:1000".to_owned(), "/member/list".to_owned());
    let (member_ids, employee_ids, account_ids) = (vec![431, 439], vec![1001], vec![7]);
    let at_ms = 1_543_026_701_000;
    vec![ReadingEvent::Read { reader, action, member_ids, employee_ids, account_ids, people: 5, at_ms }]
}

fn golden_refusals() -> Vec<RefusalsEvent> {
    let one = |caller: &str, action: &str, code, count| {
        let (caller, action) = (caller.to_owned(), action.to_owned());
        Refused { caller, action, code, count }
    };
    let refused =
        vec![one("employee:1000", "/shop/add", 1002, 1), one("nobody", "/client/couponlist", 1001, 1_700)];
    vec![RefusalsEvent::Gathered {
        from_ms: 1_543_026_701_000,
        refused,
        others: 12,
        at_ms: 1_543_026_761_000,
    }]
}

fn golden_webhooks() -> Vec<WebhookEvent> {
    let at_ms = 1_543_026_701_000;
    let (url, list) = ("https://erp.example/coupons".to_owned(), |text: &str| vec![text.to_owned()]);
    vec![
        WebhookEvent::Added {
            url: url.clone(),
            types: list("Redeemed"),
            streams: list("coupon"),
            after: 7,
            employee_id: 0,
            at_ms,
        },
        WebhookEvent::Changed { url, types: Vec::new(), streams: list("order/7"), employee_id: 0, at_ms },
        WebhookEvent::SecretRotated {
            generation: 2,
            previous_until_ms: at_ms + 86_400_000,
            employee_id: 1000,
            at_ms,
        },
        WebhookEvent::Paused { why: Why::Asked, employee_id: 0, at_ms },
        WebhookEvent::Paused { why: Why::Gone, employee_id: 0, at_ms },
        WebhookEvent::Resumed { after: None, employee_id: 0, at_ms },
        WebhookEvent::Resumed { after: Some(3), employee_id: 0, at_ms },
        WebhookEvent::Resent { lane: 1, from: 7, to: 9, employee_id: 0, at_ms },
        WebhookEvent::Removed { employee_id: 0, at_ms },
    ]
}

fn golden_goods_groups() -> Vec<GoodsGroupEvent> {
    let at_ms = 1_543_026_701_000;
    vec![
        GoodsGroupEvent::Created { title: "飲料".to_owned(), employee_id: 1000, at_ms },
        GoodsGroupEvent::Renamed { title: "熱飲".to_owned(), employee_id: 0, at_ms },
        GoodsGroupEvent::GoodsSet { goods_ids: vec![7, 8], employee_id: 0, at_ms },
        GoodsGroupEvent::Deleted { employee_id: 0, at_ms },
    ]
}

fn golden_provenance() -> Vec<ProvenanceEvent> {
    let at_ms = 1_543_026_701_000;
    let verifier_key =
        "coupon-ledger/0123456789abcdef+5c2c1bd1+AQgjhTMDVYrkZmGRsCQmiLUdzuqt/tWvQR2z1R7ZiPQ7".to_owned();
    vec![
        ProvenanceEvent::ImportedFrom(ImportedFrom {
            origin: "coupon-ledger/0123456789abcdef".to_owned(),
            size: 7,
            root: "1ai2lpFCj9lGdPT9aTKbVaXGT8HMQoNZKdH/xcrZAYU=".to_owned(),
            checkpoint: String::new(),
            digest: "sha256:00".to_owned(),
            at_ms,
        }),
        ProvenanceEvent::CheckpointKeyRotated { generation: 2, verifier_key, at_ms, employee_id: 1000 },
        ProvenanceEvent::KeyRotated {
            key: Purpose::Token,
            generation: 2,
            key_id: "5b6a7988".to_owned(),
            overlap_ms: 30 * 86_400_000,
            at_ms,
            employee_id: 1000,
        },
    ]
}

/// The golden lines, of one aggregate or of all, as they would lie in the log.
pub fn golden_lines(kind: Option<&str>) -> Vec<StoredEvent> {
    let lines = include_str!("golden/events.ndjson").lines();
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    lines
        .filter(|line| kind.is_none_or(|kind| line["aggregate_type"] == kind))
        .map(|line| StoredEvent {
            position: 1,
            aggregate_type: text(&line, "aggregate_type"),
            aggregate_id: "1".to_owned(),
            sequence: 1,
            event_type: text(&line, "event_type"),
            event_version: text(&line, "event_version"),
            payload: text(&line, "payload"),
            metadata: "{}".to_owned(),
            recorded_at_ms: 0,
        })
        .collect()
}

/// Events once written are read for ever: never change a line of `golden/events.ndjson`, only add new ones.
fn assert_golden<A: Entity>(expected: &[A::Event], names: &[&str])
where
    A::Event: std::fmt::Debug + PartialEq,
{
    let lines = golden_lines(Some(A::TYPE));
    assert_eq!(lines.len(), expected.len());
    for (line, expected) in lines.iter().zip(expected) {
        let event = decode::<A>(line).unwrap();
        assert_eq!(&event, expected);
        if line.event_version == A::EVENT_VERSION {
            assert_eq!(serde_json::to_string(&event).unwrap(), line.payload);
        }
    }
    let golden: BTreeSet<&str> = lines.iter().map(|line| line.event_type.as_str()).collect();
    assert_eq!(golden, names.iter().copied().collect(), "an event of a {} has no golden line", A::TYPE);
}

#[test]
fn every_event_ever_written_is_read_as_what_it_meant() {
    assert_golden::<Coupon>(&golden_coupons(), CouponEvent::NAMES);
    assert_golden::<Definition>(&golden_definitions(), DefinitionEvent::NAMES);
    assert_golden::<Shop>(&golden_shops(), ShopEvent::NAMES);
    assert_golden::<Allotment>(&golden_allotments(), AllotmentEvent::NAMES);
    assert_golden::<Job>(&golden_jobs(), JobEvent::NAMES);
    assert_golden::<Order>(&golden_orders(), OrderEvent::NAMES);
    assert_golden::<Grant>(&golden_grants(), GrantEvent::NAMES);
    assert_golden::<OrderAmount>(&golden_order_amounts(), OrderAmountEvent::NAMES);
    assert_golden::<GoodsGroup>(&golden_goods_groups(), GoodsGroupEvent::NAMES);
    assert_golden::<Provenance>(&golden_provenance(), ProvenanceEvent::NAMES);
    assert_golden::<Member>(&golden_members(), MemberEvent::NAMES);
    assert_golden::<Account>(&golden_accounts(), AccountEvent::NAMES);
    assert_golden::<Office>(&golden_offices(), OfficeEvent::NAMES);
    assert_golden::<PartnerKey>(&golden_partner_keys(), PartnerKeyEvent::NAMES);
    assert_golden::<Reading>(&golden_readings(), ReadingEvent::NAMES);
    assert_golden::<Refusals>(&golden_refusals(), RefusalsEvent::NAMES);
    assert_golden::<Webhook>(&golden_webhooks(), WebhookEvent::NAMES);
    assert_golden::<Machine>(&golden_machines(), MachineEvent::NAMES);
    assert_golden::<Approval>(&golden_approvals(), ApprovalEvent::NAMES);
    assert_golden::<Appointment>(&golden_appointments(), AppointmentEvent::NAMES);
}
