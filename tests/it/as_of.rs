//! As-of: what was shown then, from events alone, is what was answered then.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use coupon_ledger::audit::at::{AsOf, At};
use coupon_ledger::coupon::{Coupon, CouponCommand, CouponEvent};
use coupon_ledger::http::as_of::{AskedWalk, Question, Source, answer, may_call, route, routes};
use coupon_ledger::http::form::Form;
use coupon_ledger::http::{Failure, HttpOptions};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{ExecuteError, Meta};
use coupon_ledger::refusal::Language;
use coupon_ledger::store::{self, StoreOptions};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use crate::access::may;
use crate::cli::finish;
use crate::harness::{DAY, EMPLOYEE, FRIEND, HOUR, Home, MEMBER, World, program, program_on_a_full_disk};
use crate::outside::events;
use crate::replay::assert_store_equals_replay;
use crate::routes::PAGES;

/// 2018-11-24 10:31:41 in Shanghai: long ago by any clock, so that the program on the command line can be asked about it.
const LONG_AGO: i64 = 1_543_026_701_000;

/// An answer that was given: to whom, to what, and when.
pub struct Given {
    at: String,
    pub caller: Caller,
    path: &'static str,
    body: Value,
    /// The data, or the code of a refusal.
    answer: Result<Value, i64>,
}

/// As of now in words: the last position, where it was recorded at this very time; else the time.
async fn now(world: &World) -> String {
    let last = AsOf::now(world.store(), 0).await.unwrap();
    let now_ms = world.clock.now_ms();
    if last.at_ms == now_ms {
        return last.position.to_string();
    }
    chrono::DateTime::from_timestamp_millis(now_ms).unwrap().format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// What the server answers now. A time means all that was recorded by then, so that it is over when it was named.
async fn given(world: &World, caller: Caller, path: &'static str, body: Value) -> Given {
    let at = now(world).await;
    let reply = world.call(caller, path, body.clone()).await;
    if at.contains('T') {
        world.advance(1);
    }
    let answer = if reply.code() == 0 { Ok(impersonal(reply.data().clone())) } else { Err(reply.code()) };
    Given { at, caller, path, body, answer }
}

/// The same where the last event was recorded at this very time: then its position says when that was, and nobody has to
/// move the clock.
pub async fn given_here(world: &World, caller: Caller, path: &'static str, body: Value) -> Option<Given> {
    let here = now(world).await;
    if here.contains('T') {
        return None;
    }
    let given = given(world, caller, path, body).await;
    // What wrote something is as of its own event, which this cannot name.
    (now(world).await == here).then_some(given)
}

/// An answer without what the directory knows of people today.
pub fn impersonal(mut answer: Value) -> Value {
    match &mut answer {
        Value::Array(rows) => rows.iter_mut().for_each(|row| *row = impersonal(row.take())),
        Value::Object(fields) => {
            for (name, value) in fields {
                *value = match name.as_str() {
                    "nickname" | "headimgurl" | "member_name" => "".into(),
                    _ => impersonal(value.take()),
                };
            }
        }
        _ => {}
    }
    answer
}

/// What as-of is asked of.
pub fn source(world: &World) -> Source {
    Source {
        store: world.store().clone(),
        secrets: world.secrets.clone(),
        seal: world.ledger.seal().clone(),
        zone: world.ledger.zone(),
        options: Arc::new(HttpOptions::default()),
    }
}

pub fn question(caller: Caller, path: &str, body: &Value) -> Question {
    let route = route(path).unwrap();
    may_call(route, caller).unwrap();
    let form = Form::from_json(body.to_string().as_bytes()).unwrap();
    Question { route, caller, form, language: Language::English }
}

/// The data, or the code of a refusal.
pub fn told(answered: Result<String, Failure>) -> Result<Value, i64> {
    match answered {
        Ok(data) => Ok(serde_json::from_str(&data).unwrap()),
        Err(Failure::Execute(ExecuteError::Refused(refusal))) => Err(refusal.code()),
        Err(other) => panic!("{other:?}"),
    }
}

/// The point that is meant.
async fn resolved(world: &World, at: &str) -> AsOf {
    let zone = world.ledger.zone();
    let at = At::parse(at, zone).unwrap();
    at.resolve(world.store(), zone, world.clock.now_ms()).await.unwrap()
}

/// What events alone say was answered then.
async fn asked_then(world: &World, given: &Given) -> Result<Value, i64> {
    let (source, as_of) = (source(world), resolved(world, &given.at).await);
    let asked = question(given.caller, given.path, &given.body);
    let mut shown = told(answer(&source, as_of, asked).await.map(|answered| answered.text))?;
    assert_eq!((&shown["position"], &shown["at_ms"]), (&as_of.position.into(), &as_of.at_ms.into()));
    assert_eq!(shown["at"], source.zone.date_time(as_of.at_ms));
    Ok(impersonal(shown["data"].take()))
}

/// Asks what was answered again, from events alone.
pub async fn assert_as_given(world: &World, given: &Given) {
    let then = asked_then(world, given).await;
    let Given { at, caller, path, body, answer } = given;
    assert_eq!(then, *answer, "{path} {body} as {caller}, as of {at}");
}

const OTHER: Caller = Caller::Member(431);

/// Everything that each of three members sees; opening a coupon is an event itself.
async fn look(world: &World, coupons: &[i64], seen: &mut Vec<Given>) {
    for member in [MEMBER, FRIEND, OTHER] {
        for state in 0..=2 {
            seen.push(given(world, member, "/client/couponlist", json!({"state": state})).await);
        }
        let paged = json!({"state": 0, "limit": 2, "page": 2});
        seen.push(given(world, member, "/client/couponlist", paged).await);
        seen.push(given(world, member, "/client/couponcount", json!({})).await);
        seen.push(given(world, member, "/client/getauditcoupon", json!({"shop_id": 1})).await);
    }
    for id in coupons {
        for member in [MEMBER, FRIEND, OTHER] {
            seen.push(given(world, member, "/client/couponinfo", json!({"id": id})).await);
        }
    }
}

fn meta(world: &World) -> Meta {
    let (caller, at) = (Caller::Operator, world.ledger.now());
    Meta { caller, at, request_id: "test".to_owned(), receipt: None, job_id: None }
}

/// Coupons that are issued, opened, given, received, used, taken back, reviewed, let lapse, moved, voided and imported,
/// and what is seen of them after every step.
async fn lives(world: &World) -> Vec<Given> {
    let mut seen = Vec::new();
    world.add_people().await;
    world.operator("/member/add", json!({"id": 431, "nickname": "小華"})).await.ok();
    let definition = world.define(json!({"num": 20})).await;
    let mut ids = vec![];
    for member in [439, 439, 442] {
        ids.push(world.issue(definition, member).await);
        look(world, &[], &mut seen).await;
    }
    let (first, second, third) = (ids[0], ids[1], ids[2]);
    let file = "id,coupon_id,member_id,start_date,end_date,state,use_date,shop_id\n\
                5001,1,431,2018-01-01,2018-12-31,unused,,\n\
                5002,1,431,2018-01-01,2018-12-31,used,2018-03-01 10:31:41,1\n\
                5003,1,439,2018-01-01,2018-03-31,unused,,\n";
    let imported = world.operator("/elecoupons/import", json!({"csv": file, "dry_run": 0})).await;
    assert_eq!(imported.ok()["ok_num"], 3, "{}", imported.body);
    ids.extend([5001, 5002, 5003]);
    look(world, &ids, &mut seen).await;
    let code = world.give(MEMBER, first).await;
    look(world, &ids, &mut seen).await;
    world.advance(HOUR);
    let wrong = json!({"id": first, "code": code ^ 1});
    assert_eq!(world.call(FRIEND, "/client/getcoupon", wrong).await.code(), 7001);
    world.call(FRIEND, "/client/getcoupon", json!({"id": first, "code": code})).await.ok();
    look(world, &[first], &mut seen).await;
    // It comes back to who gave it first.
    let code = world.give(FRIEND, first).await;
    world.call(MEMBER, "/client/getcoupon", json!({"id": first, "code": code})).await.ok();
    look(world, &[first], &mut seen).await;
    let used = world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": second})).await;
    look(world, &[second], &mut seen).await;
    let redemption = used.ok()["id"].clone();
    seen.push(given(world, MEMBER, "/client/auditcouponinfo", json!({"id": redemption})).await);
    seen.push(given(world, FRIEND, "/client/auditcouponinfo", json!({"id": redemption})).await);
    let reverse = json!({"id": redemption, "reason": "按錯"});
    world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
    look(world, &[second], &mut seen).await;
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": second, "shop_id": 1})).await.ok();
    let review = json!({"id": second, "evaluation": "好喝", "score": 5});
    world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
    look(world, &[second], &mut seen).await;
    // A gift lapses by time alone, and then the sweep writes it down.
    world.give(FRIEND, third).await;
    world.advance(DAY + 1);
    look(world, &[third], &mut seen).await;
    coupon_ledger::sweep::sweep(&world.ledger).await.unwrap();
    look(world, &[third], &mut seen).await;
    let end_date = "2019-01-05".parse().unwrap();
    let moved = CouponCommand::MoveEnd { end_date, employee_id: 0, reason: "延期".to_owned() };
    world.ledger.execute::<Coupon>(first, &moved, &meta(world)).await.unwrap();
    look(world, &[first], &mut seen).await;
    let closed = json!({"id": 1, "shop_name": "總店", "phone": "1", "address": "a", "state": 0});
    world.operator("/shop/edit", closed).await.ok();
    look(world, &[], &mut seen).await;
    // Ends pass by time alone, and then the sweep writes them down.
    world.advance(40 * DAY);
    look(world, &ids, &mut seen).await;
    coupon_ledger::sweep::sweep(&world.ledger).await.unwrap();
    look(world, &ids, &mut seen).await;
    let void = json!({"mem_coupon_id": 5001, "reason": "發錯"});
    world.operator("/user/voidelecoupon", void).await.ok();
    look(world, &ids, &mut seen).await;
    seen
}

/// The program, asked on the command line.
async fn cli(home: &Home, arguments: &[&str]) -> crate::cli::Done {
    let mut command = program(home);
    command.arg("as-of").args(arguments);
    finish(command).await
}

fn names_in(folder: &Path) -> BTreeSet<String> {
    std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_route_that_is_answered_as_of_then_is_documented() {
    let text = crate::docs::read("docs/audit.md");
    let missing: Vec<_> = routes().filter(|path| !text.contains(&format!("`{path}`"))).collect();
    assert_eq!(missing, Vec::<&str>::new());
}

on_both_engines! {
    async fn every_answer_that_was_given_is_given_again_from_events_alone(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        let mut seen = lives(&world).await;
        // It is about nothing less than every event that there is of a coupon.
        let log = world.store().events_after(0, 10_000).await.unwrap();
        let met: BTreeSet<&str> = log
            .iter()
            .filter(|event| event.aggregate_type == "coupon")
            .map(|event| event.event_type.as_str())
            .collect();
        let unmet: Vec<_> = CouponEvent::NAMES.iter().filter(|name| !met.contains(**name)).collect();
        assert_eq!(unmet, [&"GiftWithdrawn"], "a life that this test does not lead");
        // In one pass: every event is taken once.
        let mut walk = AskedWalk::begin(source(&world)).await.unwrap();
        for given in &seen {
            walk.go_on(resolved(&world, &given.at).await).await.unwrap();
            let then = told(walk.answer(question(given.caller, given.path, &given.body)).await);
            assert_eq!(then.map(impersonal), given.answer, "{} as of {}", given.path, given.at);
        }
        walk.close().await;
        // Cold, and in no order.
        seen.shuffle(&mut StdRng::seed_from_u64(7));
        for given in &seen {
            assert_as_given(&world, given).await;
        }
        let refused = seen.iter().filter(|given| given.answer.is_err()).count();
        assert!(seen.len() > 300 && refused > 50, "{} answers, {refused} refused", seen.len());
        assert_eq!(world.store().events_after(0, 10_000).await.unwrap(), log, "asking wrote something");
        world.close().await;
    }

    async fn live_rows_are_never_asked(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        let seen = lives(&world).await;
        for table in ["wallet_v1", "redemptions_v1", "shops_v1", "stock_v1", "member_counts_v1", "definitions_v1"] {
            world.home.sql(&format!("DELETE FROM {table}")).await.unwrap();
        }
        for given in seen.iter().rev().step_by(17) {
            assert_as_given(&world, given).await;
        }
        world.close().await;
    }

    async fn a_reviews_text_is_shown_where_it_is_what_its_event_hashed(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        world.add_people().await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        let review = json!({"id": id, "evaluation": "好喝", "score": 5});
        world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
        let path = "/v1/members/439/coupons?state=1";
        let shown = async || world.get(Caller::Auditor, path).await.body["data"][0]["evaluation"].clone();
        assert_eq!(shown().await, "好喝");
        let before = world.get(Caller::Auditor, &format!("{path}&at=4")).await;
        assert_eq!(before.body["data"][0]["evaluation"], "");
        world.home.sql("UPDATE reviews SET text = '難喝'").await.unwrap();
        assert_eq!(shown().await, "");
        world.home.sql("DELETE FROM reviews").await.unwrap();
        assert_eq!(shown().await, "");
        world.close().await;
    }

    /// The live answer is the measure: each route is called as its own test calls it, and asked again at once.
    async fn every_route_that_is_answered_as_of_then_answers_what_the_server_does(engine: Engine) {
        let mut compared = BTreeSet::new();
        for page in PAGES {
            let world = World::with_people(engine).await;
            for case in (page.cases)(&world).await {
                let Ok(route) = route(case.path) else {
                    world.call(case.caller, case.path, case.body).await.ok();
                    continue;
                };
                // Whoever an employee was, no event says.
                let caller = match case.caller {
                    Caller::Employee(_) if may(Caller::Operator, route.path) => Caller::Operator,
                    caller => caller,
                };
                let given = given(&world, caller, case.path, case.body).await;
                assert!(given.answer.is_ok(), "{}: {:?}", given.path, given.answer);
                assert_as_given(&world, &given).await;
                compared.insert(case.path);
            }
            world.close().await;
        }
        assert_eq!(compared, routes().collect());
    }

    async fn auditors_ask_over_http(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        world.add_people().await;
        let definition = world.define(json!({"num": 20})).await;
        let id = world.issue(definition, 439).await;
        let code = world.give(MEMBER, id).await;
        world.advance(1_000);
        world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        world.operator("/elecoupons/inventory", json!({"id": definition, "num": 5, "type": 1})).await.ok();
        let get = async |path: &str| {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.body);
            reply.body
        };
        let list = get("/v1/members/439/coupons?state=0&at=3").await;
        insta::allow_duplicates! { insta::assert_json_snapshot!("a_members_list_as_of_then", list); }
        let by_route = get("/v1/as-of/client/couponlist?caller=member:439&state=0&at=3").await;
        assert_eq!(by_route, list);
        // As its holder of then saw it.
        let holder = async |at: &str| get(&format!("/v1/coupons/{id}?at={at}")).await["data"]["member_id"].clone();
        assert_eq!((holder("4").await, holder("5").await, holder("2018-11-24").await), (439.into(), 442.into(), 442.into()));
        let inventory = async |at: &str| get(&format!("/v1/definitions/1{at}")).await["data"]["inventory"].clone();
        assert_eq!((inventory("?at=2").await, inventory("?at=3").await, inventory("").await), (20.into(), 19.into(), 24.into()));
        for (path, status, code, field) in [
            ("/v1/coupons/99", 404, 2001, None),
            ("/v1/coupons/1?at=2", 404, 2001, None),
            ("/v1/definitions/9?at=2", 404, 2002, None),
            ("/v1/members/439/coupons", 400, 401, Some("state")),
            ("/v1/members/439/coupons?state=0&at=never", 400, 401, Some("at")),
            ("/v1/members/439/coupons?state=0&at=77", 400, 401, Some("at")),
            ("/v1/members/439/coupons?state=0&at=2018-11-23", 400, 401, Some("at")),
            ("/v1/members/439/coupons?state=0&limit=101", 400, 401, Some("limit")),
            ("/v1/as-of/client/couponlist?state=0", 400, 401, Some("caller")),
            ("/v1/as-of/client/couponlist?state=0&caller=operator", 400, 401, Some("caller")),
            ("/v1/as-of/elecoupons/info?id=1&caller=employee:1000", 400, 401, Some("caller")),
            ("/v1/as-of/member/list?caller=operator", 400, 401, Some("manual_call")),
            ("/v1/as-of/client/givecoupon?caller=member:439&id=1", 400, 401, Some("manual_call")),
        ] {
            let reply = world.get(Caller::Auditor, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{path}: {}", reply.body);
            if let Some(field) = field {
                assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
            }
        }
        world.close().await;
    }

    async fn the_command_line_shows_what_was_shown(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        world.add_people().await;
        let definition = world.define(json!({"num": 20})).await;
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
        let list = world.get(Caller::Auditor, "/v1/members/439/coupons?state=0&at=3").await;
        let home = &world.home;
        let out = cli(home, &["3", "--member", "439", "couponlist", "state=0", "page=1"]).await;
        assert_eq!((out.code, out.err.as_str()), (Some(0), ""), "{out:?}");
        assert_eq!(serde_json::from_str::<Value>(&out.out).unwrap(), list.body);
        let info = cli(home, &["2018-11-24 10:31:41", "--operator", "/elecoupons/info", "id=1"]).await;
        let info: Value = serde_json::from_str(&info.out).unwrap();
        assert_eq!((&info["position"], &info["at_ms"], &info["data"]["inventory"]),
                   (&json!(4), &json!(LONG_AGO + 999), &json!(19)));
        let refusals: [(&[&str], i32, &str); 9] = [
            (&["3", "--member", "442", "couponinfo", "id=1"], 1, "no such coupon, or not yours (2001)"),
            (&["3", "--member", "439", "couponlist"], 2, "state is required"),
            (&["9", "--member", "439", "couponlist", "state=0"], 2, "\"9\" names no event: the log ends at position 4"),
            (&["2018-11-23", "--member", "439", "couponlist", "state=0"], 2,
             "\"2018-11-23\" lies before the first event, which was recorded at 2018-11-24 10:31:41"),
            (&["3", "--member", "439", "givecoupon", "id=1"], 2,
             "/client/givecoupon names nothing that is answered from events alone"),
            (&["3", "--operator", "couponlist", "state=0"], 2, "/client/couponlist is not for operator"),
            (&["3", "--operator", "/nothing"], 2, "/nothing names nothing that is answered from events alone"),
            (&["9", "--into", "/nowhere/a.db"], 2, "\"9\" names no event: the log ends at position 4"),
            (&["3", "--into", "/proc"], 2, "/proc exists already: name a new file"),
        ];
        for (arguments, code, sentence) in refusals {
            let done = cli(home, arguments).await;
            assert_eq!((done.code, done.out.as_str()), (Some(code), ""), "{done:?}");
            assert_eq!(done.err.trim_end(), format!("coupon-ledger: {sentence}"), "{arguments:?}");
        }
        for arguments in [&["3"][..], &["3", "couponlist"], &["3", "--member", "439"], &["--operator", "couponlist"],
                          &["3", "--member", "439", "couponlist", "state"], &["3", "--into", "a", "couponlist"]] {
            assert_eq!(cli(home, arguments).await.code, Some(2), "{arguments:?}");
        }
        world.close().await;
    }

    async fn the_whole_ledger_as_it_was_becomes_one_file(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        lives(&world).await;
        let (log, last) = (world.store().events_after(0, 10_000).await.unwrap(), AsOf::now(world.store(), 0).await.unwrap());
        let folder = tempfile::tempdir().unwrap();
        for position in [1, 17, last.position] {
            let copy = folder.path().join(position.to_string());
            std::fs::create_dir(&copy).unwrap();
            let file = copy.join("ledger.db");
            let done = cli(&world.home, &[&position.to_string(), "--into", file.to_str().unwrap()]).await;
            assert_eq!((done.code, done.out.as_str()), (Some(0), ""), "{done:?}");
            assert_eq!(names_in(&copy), ["ledger.db".to_owned()].into());
            let options = StoreOptions { data_dir: copy, database_url: None, secret_id: String::new(), now_ms: 0 };
            let store = store::open_read_only(&options).await.unwrap();
            assert_eq!(store.events_after(0, 10_000).await.unwrap(), log[..position as usize]);
            assert_store_equals_replay(&store).await;
            store.close().await;
            // Nobody serves from it: it is no ledger that goes on.
            let options = StoreOptions { secret_id: world.secrets.id(), ..options };
            let refused = store::open(&options).await.err().unwrap().to_string();
            assert!(refused.starts_with("this ledger was started with another secret (none, it is a copy"), "{refused}");
        }
        world.close().await;
    }

    async fn a_secret_that_cannot_be_read_is_not_taken_for_none(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        world.add_people().await;
        let home = &world.home;
        let question = ["1", "--operator", "/shop/list"];
        let secret = home.path().join("secret.key");
        std::fs::write(&secret, "garbage").unwrap();
        let done = cli(home, &question).await;
        assert_eq!((done.code, done.out.as_str()), (Some(2), ""), "{done:?}");
        assert!(done.err.contains("secret.key: "), "{done:?}");
        // Who has none can ask what needs none.
        std::fs::remove_file(&secret).unwrap();
        assert_eq!(cli(home, &question).await.code, Some(0));
        world.close().await;
    }

    async fn what_fails_on_the_way_leaves_no_file_behind(engine: Engine) {
        let world = World::at(engine, LONG_AGO, coupon_ledger::clock::Zone::default()).await;
        lives(&world).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("copy.db");
        let nowhere = folder.path().join("nowhere").join("copy.db");
        let done = cli(&world.home, &["5", "--into", nowhere.to_str().unwrap()]).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.err.contains("No such file"), "{done:?}");
        // Where the disk ends before the copy does.
        let mut command = program_on_a_full_disk(&world.home, 200);
        command.args(["as-of", "5", "--into"]).arg(&file);
        let done = finish(command).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.err.starts_with("coupon-ledger: ") && done.err.lines().count() == 1, "{done:?}");
        // An event that cannot be read ends it too, with its place.
        crate::log::without_guards(&world.home).await;
        world.home.sql("UPDATE events SET payload = '{\"Viewed\":{}}' WHERE event_type = 'Viewed'").await.unwrap();
        let all = events(&world.home, "Viewed").await;
        assert!(all > 1);
        let last = AsOf::now(world.store(), 0).await.unwrap().position.to_string();
        let done = cli(&world.home, &[&last, "--into", file.to_str().unwrap()]).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.err.starts_with("coupon-ledger: corrupt event: position "), "{done:?}");
        assert_eq!(names_in(folder.path()), BTreeSet::new());
        world.close().await;
    }
}
