//! History: what happened to a stream, and what somebody did, in words and as JSON.

use std::collections::BTreeSet;

use coupon_ledger::account::Account;
use coupon_ledger::allotment::Allotment;
use coupon_ledger::approval::Approval;
use coupon_ledger::audit::words::Told;
use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::Coupon;
use coupon_ledger::definition::Definition;
use coupon_ledger::entity::KINDS;
use coupon_ledger::entity::decode;
use coupon_ledger::grant::Grant;
use coupon_ledger::identity::Caller;
use coupon_ledger::job::Job;
use coupon_ledger::machine::Machine;
use coupon_ledger::member::Member;
use coupon_ledger::office::{Appointment, Office};
use coupon_ledger::order::Order;
use coupon_ledger::partner_key::PartnerKey;
use coupon_ledger::provenance::Provenance;
use coupon_ledger::reading::Reading;
use coupon_ledger::refusals::Refusals;
use coupon_ledger::rule::{GoodsGroup, OrderAmount};
use coupon_ledger::shop::Shop;
use coupon_ledger::store::StoredEvent;
use coupon_ledger::webhook::Webhook;
use serde_json::{Value, json};

use crate::cli::{Done, finish};
use crate::harness::{EMPLOYEE, Engine, FRIEND, HOUR, Home, MEMBER, World, program};
use crate::log::{golden_lines, without_guards};
use crate::v1::lines;

/// 2018-11-24 10:31:41 in Shanghai: long ago by any clock, so that the program on the command line can be asked about it.
const LONG_AGO: i64 = 1_543_026_701_000;

fn words(event: &StoredEvent) -> String {
    fn of<A: Told>(event: &StoredEvent) -> String {
        A::words(&decode::<A>(event).unwrap(), Zone::default())
    }
    match event.aggregate_type.as_str() {
        "coupon" => of::<Coupon>(event),
        "definition" => of::<Definition>(event),
        "shop" => of::<Shop>(event),
        "allotment" => of::<Allotment>(event),
        "job" => of::<Job>(event),
        "order" => of::<Order>(event),
        "grant" => of::<Grant>(event),
        "order_amount" => of::<OrderAmount>(event),
        "goods_group" => of::<GoodsGroup>(event),
        "ledger" => of::<Provenance>(event),
        "member" => of::<Member>(event),
        "account" => of::<Account>(event),
        "office" => of::<Office>(event),
        "appointment" => of::<Appointment>(event),
        "machine_key" => of::<Machine>(event),
        "partner_key" => of::<PartnerKey>(event),
        "reading" => of::<Reading>(event),
        "refusals" => of::<Refusals>(event),
        "approval" => of::<Approval>(event),
        "webhook" => of::<Webhook>(event),
        other => panic!("a kind of stream without words: {other}"),
    }
}

#[test]
fn every_event_ever_written_has_its_words() {
    let golden = golden_lines(None);
    let kinds: BTreeSet<&str> = golden.iter().map(|event| event.aggregate_type.as_str()).collect();
    assert_eq!(kinds, KINDS.iter().copied().collect());
    let told =
        golden.iter().map(|event| format!("{} {}: {}", event.aggregate_type, event.event_type, words(event)));
    insta::assert_snapshot!("every_event_in_words", told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn what_a_person_typed_stays_on_its_line() {
    let event = coupon_ledger::coupon::CouponEvent::Voided {
        employee_id: 1000,
        reason: "a\nb \u{1b}[31m\"c\"".to_owned(),
        at_ms: 0,
    };
    assert_eq!(Coupon::words(&event, Zone::default()), r#"voided by employee 1000 ("a\nb \u{1b}[31m"c"")"#);
}

/// One coupon's life: issued, opened, given, a wrong code, received, used at the counter under a key, taken back, used by
/// an order's till, reviewed; then its definition, its shop and a second coupon. Returns the coupon's id.
async fn live(world: &World) -> i64 {
    world.add_people().await;
    let definition = world.define(json!({"num": 20, "use_week": "1,2,3,4,5,6,7"})).await;
    let id = world.issue(definition, 439).await;
    world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
    world.advance(HOUR);
    let code = world.give(MEMBER, id).await;
    let wrong = json!({"id": id, "code": code ^ 1});
    assert_eq!(world.call(FRIEND, "/client/getcoupon", wrong).await.code(), 7001);
    world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
    let used = json!({"mem_coupon_id": id});
    let used = world.keyed(EMPLOYEE, "till-1-0001", "/user/auditelecoupon", used).await;
    world.advance(HOUR);
    let reverse = json!({"id": used.ok()["id"], "reason": "按錯"});
    world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
    world.call(FRIEND, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
    let review = json!({"id": id, "evaluation": "好喝", "score": 5});
    world.call(FRIEND, "/client/evaluacoupon", review).await.ok();
    world.operator("/elecoupons/inventory", json!({"id": definition, "num": 5, "type": 1})).await.ok();
    let shop = json!({"id": 1, "shop_name": "總店", "phone": "1", "address": "b", "state": 0});
    world.operator("/shop/edit", shop).await.ok();
    world.issue(definition, 439).await;
    id
}

/// Ids of requests are random: each is there, is its own cause, and is left out of what is compared.
fn without_ids(mut entries: Vec<Value>) -> Vec<Value> {
    for entry in &mut entries {
        let request = entry["request_id"].as_str().unwrap().to_owned();
        assert_eq!(request.len(), 16, "{entry}");
        for name in ["request_id", "causation_id", "correlation_id"] {
            assert_eq!(entry[name], request, "{entry}");
            entry[name] = "…".into();
        }
    }
    entries
}

async fn get(world: &World, path: &str) -> Vec<Value> {
    let reply = world.get(Caller::Auditor, path).await;
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/x-ndjson");
    lines(&reply)
}

fn positions(entries: &[Value]) -> Vec<i64> {
    entries.iter().map(|entry| entry["position"].as_i64().unwrap()).collect()
}

async fn cli(home: &Home, arguments: &[&str]) -> Done {
    let mut command = program(home);
    command.arg("history").args(arguments);
    finish(command).await
}

async fn told(home: &Home, arguments: &[&str]) -> String {
    let done = cli(home, arguments).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(done.err, "", "{done:?}");
    done.out
}

/// Why it was not told: the exit code, and the last line on stderr.
async fn refused(home: &Home, arguments: &[&str]) -> (i32, String) {
    let done = cli(home, arguments).await;
    assert_eq!(done.out, "", "{done:?}");
    (done.code.unwrap(), done.err.lines().last().unwrap_or_default().to_owned())
}

on_both_engines! {
    async fn a_coupons_life_is_told_event_by_event(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        let id = live(&world).await;
        let entries = without_ids(get(&world, &format!("/v1/coupons/{id}/history")).await);
        insta::allow_duplicates! { insta::assert_json_snapshot!("a_coupons_life", entries); }
        // Each event begins with what the one before it left.
        for pair in entries.windows(2) {
            assert_eq!(pair[0]["after"], pair[1]["before"]);
        }
        // The same stream by its kind; a page of it, and where to go on.
        let path = format!("/v1/streams/coupon/{id}/history");
        assert_eq!(without_ids(get(&world, &path).await), entries);
        let page = world.get(Caller::Auditor, &format!("{path}?after=3&limit=2")).await;
        assert_eq!(without_ids(lines(&page)), entries[1..3]);
        assert_eq!(page.headers["next-after"], "5");
        let end = world.get(Caller::Auditor, &format!("{path}?after=99")).await;
        assert_eq!((end.body.as_str(), &end.headers["next-after"]), (Some(""), &"99".parse().unwrap()));
        // As of a position, and as of times: what is named is named whole.
        for (at, until) in [("5", 5), ("2018-11-24", 11), ("2018-11-24%2010:31:41", 4), ("2018-11-24T03:31:41Z", 8)] {
            let then = without_ids(get(&world, &format!("{path}?at={at}")).await);
            let expected: Vec<&Value> =
                entries.iter().filter(|entry| entry["position"].as_i64().unwrap() <= until).collect();
            assert_eq!(then.iter().collect::<Vec<_>>(), expected, "{at}");
        }
        world.close().await;
    }

    async fn what_somebody_did_is_found_through_the_whole_log(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        live(&world).await;
        let of = async |caller: &str| get(&world, &format!("/v1/callers/{caller}/events")).await;
        let told = |entries: &[Value]| entries
            .iter()
            .map(|entry| format!("{} {} {}", entry["position"], entry["stream"].as_str().unwrap(), entry["words"].as_str().unwrap()))
            .collect::<Vec<_>>();
        assert_eq!(told(&of("employee:1000").await), [
            "8 coupon/1 used by member 442 at shop 1 by employee 1000, redemption 1",
            "9 coupon/1 redemption 1 taken back by employee 1000 (\"按錯\"): in hand again",
        ]);
        assert_eq!(told(&of("member:442").await), [
            "6 coupon/1 a wrong code for gift 1 was tried by member 442",
            "7 coupon/1 gift 1 received by member 442 from member 439",
            "10 coupon/1 used by member 442 at shop 1 by himself, redemption 2",
            "11 coupon/1 reviewed by member 442 with 5 of 5",
        ]);
        assert_eq!(positions(&of("operator").await), [1, 2, 3, 12, 13, 14, 15]);
        // Whose number only begins the same did nothing.
        for nobody in ["member:44", "member:4", "member:4422", "employee:100", "partner:442", "auditor"] {
            assert_eq!(of(nobody).await, Vec::<Value>::new(), "{nobody}");
        }
        // Each entry is the one that its stream tells.
        let of_coupon = get(&world, "/v1/coupons/1/history").await;
        let of_member = of("member:439").await;
        assert_eq!(of_member, [of_coupon[1].clone(), of_coupon[2].clone()]);
        // Page by page until the cursor stays.
        let (mut after, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let path = format!("/v1/callers/operator/events?limit=2&after={after}&at=14");
            let page = world.get(Caller::Auditor, &path).await;
            let next = page.headers["next-after"].to_str().unwrap().to_owned();
            found.extend(positions(&lines(&page)));
            if next == after {
                break;
            }
            after = next;
        }
        assert_eq!((found, after.as_str()), (vec![1, 2, 3, 12, 13, 14], "14"));
        world.close().await;
    }

    async fn the_command_line_tells_it_while_the_ledger_is_open_and_when_it_is_not(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        let id = live(&world).await;
        let coupon = id.to_string();
        let json_of = async |home: &Home, arguments: &[&str]| {
            let told = told(home, &[arguments, &["--json"]].concat()).await;
            told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>()
        };
        let served = get(&world, &format!("/v1/coupons/{id}/history")).await;
        assert_eq!(json_of(&world.home, &[&coupon]).await, served);
        assert_eq!(json_of(&world.home, &[&format!("coupon/{id}"), "--from", "5", "--to", "7"]).await, served[2..5]);
        assert_eq!(json_of(&world.home, &[&coupon, "--at", "2018-11-24 10:31:41"]).await, served[..2]);
        assert_eq!(json_of(&world.home, &[&coupon, "--at", "5", "--to", "3"]).await, served[..1]);
        let home = world.close().await;
        assert_eq!(json_of(&home, &[&coupon]).await, served);
        let deeds = json_of(&home, &["member/439"]).await;
        assert_eq!(deeds, served[1..3]);
        assert_eq!(json_of(&home, &["member:439", "--from", "5"]).await, served[2..3]);
        let text = told(&home, &[&coupon]).await;
        // The ids of requests are random.
        let text: Vec<String> = text.lines().map(|line| match line.split_once("request ") {
            Some((before, after)) => format!("{before}request …{}", &after[16..]),
            None => line.to_owned(),
        }).collect();
        insta::allow_duplicates! { insta::assert_snapshot!("a_coupons_life_on_the_command_line", text.join("\n")); }
        for (subject, words) in [("definition/1", "    stock raised by 5 to 25"), ("shop/1", "    closed")] {
            assert!(told(&home, &[subject]).await.lines().any(|line| line == words), "{subject}");
        }
        let nothing = cli(&home, &["member/7"]).await;
        assert_eq!((nothing.code, nothing.out.as_str()), (Some(0), ""));
        assert_eq!(nothing.err.trim_end(), "coupon-ledger: member:7 has caused no events in this part of the log");
    }

    async fn a_wrong_question_is_answered_with_a_sentence(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        live(&world).await;
        for (path, status, code, field) in [
            ("/v1/coupons/99/history", 404, 2001, None),
            ("/v1/streams/definition/99/history", 404, 2002, None),
            ("/v1/streams/shop/99/history", 404, 2003, None),
            ("/v1/streams/order/99/history", 404, 2006, None),
            ("/v1/streams/job/99/history", 404, 2005, None),
            // Not yet.
            ("/v1/coupons/1/history?at=2", 404, 2001, None),
            ("/v1/coupons/0/history", 400, 401, Some("id")),
            ("/v1/streams/wallet/1/history", 400, 401, Some("kind")),
            ("/v1/callers/member/events", 400, 401, Some("caller")),
            ("/v1/callers/shop:1/events", 400, 401, Some("caller")),
            ("/v1/coupons/1/history?at=soon", 400, 401, Some("at")),
            ("/v1/coupons/1/history?at=0", 400, 401, Some("at")),
            ("/v1/coupons/1/history?at=16", 400, 401, Some("at")),
            ("/v1/coupons/1/history?at=2018-11-23", 400, 401, Some("at")),
            ("/v1/coupons/1/history?at=2018-11-26", 400, 401, Some("at")),
            ("/v1/coupons/1/history?limit=0", 400, 401, Some("limit")),
        ] {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{path}: {}", reply.body);
            if let Some(field) = field {
                assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
            }
        }
        let home = world.close().await;
        let sentences = [
            (&["99"][..], 1, "coupon 99 has no events in this part of the log"),
            (&["1", "--at", "2"], 1, "coupon 1 has no events in this part of the log"),
            (&["1", "--at", "16"], 2, "\"16\" names no event: the log ends at position 15"),
            (&["1", "--at", "0"], 2, "\"0\" must be between 1 and 9007199254740991"),
            (&["1", "--at", "yesterday"], 2, "\"yesterday\" must be a position, a day or a time, like 1200, 2018-11-24 or 2018-11-24 10:31:41"),
            (&["1", "--at", "2018-11-23"], 2, "\"2018-11-23\" lies before the first event, which was recorded at 2018-11-24 10:31:41"),
            (&["1", "--at", "9999-12-31"], 2, "\"9999-12-31\" must not lie in the future"),
            (&["1", "--from", "5", "--to", "4"], 2, "--to lies before --from: there is nothing between them"),
        ];
        for (arguments, code, sentence) in sentences {
            assert_eq!(refused(&home, arguments).await, (code, format!("coupon-ledger: {sentence}")), "{arguments:?}");
        }
        for subject in ["", "wallet/1", "coupon/0", "coupon/x", "member/", "-7", "1/2"] {
            assert_eq!(refused(&home, &["--json", "--", subject]).await.0, 2, "{subject}");
        }
        let (code, sentence) = refused(&Home::new(Engine::Sqlite).await, &["1"]).await;
        assert_eq!(code, 2);
        assert!(sentence.starts_with("coupon-ledger: there is no ledger in "), "{sentence}");
    }

    async fn an_event_that_cannot_be_read_is_named_and_never_left_out(engine: Engine) {
        let world = World::at(engine, LONG_AGO, Zone::default()).await;
        live(&world).await;
        without_guards(&world.home).await;
        world.home.sql("UPDATE events SET payload = '{\"Viewed\":{}}' WHERE position = 4").await.unwrap();
        for path in ["/v1/coupons/1/history", "/v1/callers/member:442/events"] {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (500, 9999), "{path}");
        }
        // What does not rest on it is told.
        assert_eq!(get(&world, "/v1/coupons/1/history?at=3").await.len(), 1);
        let home = world.close().await;
        let (code, sentence) = refused(&home, &["1"]).await;
        assert_eq!(code, 2);
        let named = "coupon-ledger: corrupt event: position 4, stream coupon 1 event 2 (Viewed 1.0): ";
        assert!(sentence.starts_with(named), "{sentence}");
    }
}
