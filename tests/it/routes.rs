//! Every route of the table, on both engines: a good answer, every refusal, the replay under a key, both encodings.
//!
//! A new route needs data and no test of its own: one [`Case`] and a [`Refused`] for each code that it declares, in the
//! file here that is named as the route's own in src/http/routes/. What is missing is told by the tests.

mod account;
mod approvals;
mod client;
mod counter;
mod directory;
mod import;
mod jobs;
mod offices;
mod open;
mod operator;
mod orders;
mod partners;
mod rules;
mod statistics;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use coupon_ledger::access::is_open;
use coupon_ledger::http::routes::{ALL, Field, Holds, Route};
use coupon_ledger::identity::Caller;
use coupon_ledger::refusal::ALL_WORDINGS;
use coupon_ledger::secrets::PasswordCode;
use coupon_ledger::store::{BUCKET, Statement};
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};

use crate::access::may;
use crate::docs::repository;
use crate::harness::{DAY, FRIEND, MEMBER, Reply, World};
use crate::requests::{FORM, as_form};

/// A call that succeeds, made in the order in which its file lists it. What it builds on is prepared before them all.
pub struct Case {
    pub path: &'static str,
    pub caller: Caller,
    pub body: Value,
}

/// A call that is refused with exactly this code, and writes nothing.
pub struct Refused {
    pub path: &'static str,
    pub code: i64,
    pub caller: Caller,
    pub body: Value,
}

/// The routes of one file, each file in a world of its own: what is added to one changes no answer of another.
pub struct Page {
    /// Brings about what the good calls build on.
    pub cases: for<'a> fn(&'a World) -> BoxFuture<'a, Vec<Case>>,
    /// Brings about the situations in which calls are refused.
    pub refusals: for<'a> fn(&'a World) -> BoxFuture<'a, Vec<Refused>>,
}

macro_rules! page {
    ($file:ident) => {
        Page {
            cases: |world| Box::pin($file::cases(world)),
            refusals: |world| Box::pin($file::refusals(world)),
        }
    };
}

pub const PAGES: &[Page] = &[
    page!(client),
    page!(counter),
    page!(operator),
    page!(directory),
    page!(jobs),
    page!(orders),
    page!(rules),
    page!(partners),
    page!(import),
    page!(open),
    page!(account),
    page!(offices),
    page!(statistics),
    page!(approvals),
];

/// Keyed calls that succeed and write nothing, so that their key is not used up. The reason is the contract's.
const WRITES_NOTHING: &[(&str, &str)] = &[("/client/giftinfo", "only a wrong code is an event")];

/// Refusals that are events themselves.
const WRITTEN_REFUSALS: &[i64] = &[7001];

/// Fields that the good call of their route leaves out.
const LEFT_OUT: &[(&str, &str, &str)] = &[
    ("/elecoupons/recall", "send_id", "not together with coupon_id"),
    ("/elecoupons/extend", "coupon_id", "not together with send_id"),
    ("/member/edit", "level", "not together with level_id"),
    ("/user/resetpassword", "name", "not together with id"),
];

fn case(path: &'static str, caller: Caller, body: Value) -> Case {
    Case { path, caller, body }
}

fn refused(path: &'static str, code: i64, caller: Caller, body: Value) -> Refused {
    Refused { path, code, caller, body }
}

/// The same call refused in many ways.
fn each_refused<const N: usize>(
    path: &'static str,
    caller: Caller,
    ways: [(i64, Value); N],
) -> impl Iterator<Item = Refused> {
    ways.into_iter().map(move |(code, body)| refused(path, code, caller, body))
}

/// The route of a path.
pub fn route(path: &str) -> &'static Route {
    ALL.iter().find(|route| route.path == path).unwrap_or_else(|| panic!("{path} is in no table of routes"))
}

/// The file here that has a route's data.
fn file_of(route: &Route) -> String {
    let run = format!("{:?}", route.run);
    format!("tests/it/routes/{}.rs", run.split('(').next().unwrap().to_lowercase())
}

/// Fails with what is to be added where, unless each route is called once.
pub fn assert_each_route_once(called: &[&str]) {
    let mut wrong = String::new();
    for route in ALL.iter() {
        let calls = called.iter().filter(|path| **path == route.path).count();
        if calls != 1 {
            let file = file_of(route);
            writeln!(wrong, "{}: one Case is to be in {file}, and there are {calls}", route.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Fails unless the call says something in every field of its route: what is not said is not known to be read, neither
/// from a form nor into what a key stands for.
fn assert_says_all(case: &Case) {
    for field in route(case.path).fields {
        // It stands instead of page.
        let left_out = field.name == "before_id"
            || LEFT_OUT.iter().any(|(path, name, _)| (*path, *name) == (case.path, field.name));
        assert_ne!(
            case.body.get(field.name).is_some(),
            left_out,
            "{}: its Case is to say something as {}, or there is a reason in LEFT_OUT, and not both",
            case.path,
            field.name
        );
    }
}

/// Coupons of member 439 in every situation, prepared on Monday and met on Tuesday noon. Shop 2 is closed, shop 3 open;
/// employees 1002 and 1003 work in them.
struct Situations {
    in_hand: i64,
    used: i64,
    /// The redemption that used it.
    redemption: i64,
    /// Its redemption was taken back.
    reversed: i64,
    reviewed: i64,
    voided: i64,
    given_away: i64,
    pending: i64,
    /// Put out, and five wrong codes tried.
    locked: i64,
    expired: i64,
    not_started: i64,
    only_mondays: i64,
    only_by_staff: i64,
    only_scanned: i64,
    only_shop_1: i64,
    not_givable: i64,
}

impl Situations {
    async fn bring_about(world: &World) -> Self {
        for (shop, state, employee) in [(2, 0, 1002), (3, 1, 1003)] {
            let mut body = json!({"shop_name": "分店", "phone": "1", "address": "a"});
            assert_eq!(world.operator("/shop/add", body.clone()).await.ok()["id"], shop.to_string());
            world.operator("/user/add", json!({"id": employee, "name": "店員", "shop_id": shop})).await.ok();
            (body["id"], body["state"]) = (shop.into(), state.into());
            world.operator("/shop/edit", body).await.ok();
        }
        let plain = world.define(json!({})).await;
        let with = async |changes: Value| {
            let definition = world.define(changes).await;
            world.issue(definition, 439).await
        };
        let use_up = async |id: i64| {
            let body = json!({"mem_coupon_id": id, "shop_id": 1});
            let used = world.call(MEMBER, "/client/auditcoupon", body).await;
            used.ok()["id"].as_str().unwrap().parse::<i64>().unwrap()
        };
        let used = world.issue(plain, 439).await;
        let redemption = use_up(used).await;
        let taken_back = world.issue(plain, 439).await;
        let reversed = use_up(taken_back).await;
        let reverse = json!({"id": reversed, "reason": "按錯"});
        world.operator("/user/reverseelecoupon", reverse).await.ok();
        let reviewed = world.issue(plain, 439).await;
        use_up(reviewed).await;
        let review = json!({"id": reviewed, "evaluation": "好", "score": 5});
        world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
        let voided = world.issue(plain, 439).await;
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": voided, "reason": "發錯"})).await.ok();
        let given_away = world.issue(plain, 439).await;
        let code = world.give(MEMBER, given_away).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": given_away, "code": code})).await.ok();
        let expired = with(json!({"end_num": 1})).await;
        world.advance(DAY);
        let pending = world.issue(plain, 439).await;
        world.give(MEMBER, pending).await;
        let locked = world.issue(plain, 439).await;
        world.give(MEMBER, locked).await;
        for _ in 0..5 {
            let guess = json!({"id": locked, "code": 0});
            assert_eq!(world.call(Caller::Member(800), "/client/getcoupon", guess).await.code(), 7001);
        }
        Self {
            in_hand: world.issue(plain, 439).await,
            used,
            redemption,
            reversed,
            reviewed,
            voided,
            given_away,
            pending,
            locked,
            expired,
            not_started: with(json!({"start_num": 1})).await,
            only_mondays: with(json!({"use_week": "1"})).await,
            only_by_staff: with(json!({"is_self": 0})).await,
            only_scanned: with(json!({"need_scan": 1})).await,
            only_shop_1: with(json!({"shop_ids": "1"})).await,
            not_givable: with(json!({"is_giving": 0})).await,
        }
    }
}

/// Definitions that issue nothing to member 439, each for a reason of its own.
struct Refusing {
    switched_off: i64,
    of_other_levels: i64,
    had_already: i64,
    sold_out: i64,
}

impl Refusing {
    async fn bring_about(world: &World) -> Self {
        let with = |changes: Value| async move { world.define(changes).await };
        let switched_off = with(json!({"is_claim": 1})).await;
        world.operator("/elecoupons/state", json!({"id": switched_off, "state": 0})).await.ok();
        let had_already = with(json!({"is_claim": 1, "get_limit_type": 2, "get_limit": 1})).await;
        world.issue(had_already, 439).await;
        let sold_out = with(json!({"is_claim": 1, "num": 1})).await;
        world.issue(sold_out, 442).await;
        let of_other_levels = with(json!({"is_claim": 1, "get_limit_type": 4, "level_ids": "7"})).await;
        Self { switched_off, of_other_levels, had_already, sold_out }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Json,
    Form,
}

async fn send(world: &World, case: &Case, encoding: Encoding, body: &Value, key: Option<&str>) -> Reply {
    let bearer = format!("Bearer {}", world.token(case.caller));
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(key.filter(|_| route(case.path).writes).map(|key| ("idempotency-key", key)));
    let text = match encoding {
        Encoding::Json => body.to_string(),
        Encoding::Form => {
            headers.push(("content-type", FORM));
            as_form(body.as_object().unwrap())
        }
    };
    world.request(case.path, &headers, &text).await
}

/// Where the log ends, and how much the directory and the jobs hold beside it: a table of either that routes add to
/// belongs here.
async fn written(world: &World) -> Vec<i64> {
    let sql = "SELECT position,
                      (SELECT COUNT(*) FROM receipts), (SELECT COUNT(*) FROM directory_receipts),
                      (SELECT COUNT(*) FROM members), (SELECT COUNT(*) FROM employees),
                      (SELECT COUNT(*) FROM revoked_tokens), (SELECT COUNT(*) FROM job_items)
               FROM log_head WHERE bucket = $1";
    let rows = world.store().query(Statement::new(sql, [BUCKET.into()])).await.unwrap();
    (0..7).map(|column| rows[0].int(column)).collect()
}

/// An answer without what no second run repeats, and without pictures. Codes and signed URLs stay: under the tests' keys
/// they are always the same, and a change of how they are made would break those that are out there.
fn redacted(mut answer: Value) -> Value {
    if let Some(data) = answer["data"].as_object_mut() {
        for (name, value) in data {
            match name.as_str() {
                "svg" => {
                    assert!(value.as_str().unwrap().contains("<svg"), "{value}");
                    *value = "[a picture]".into();
                }
                "revoked" => {
                    assert_eq!(value.as_str().unwrap().len(), 16, "{value}");
                    *value = "[a token's id]".into();
                }
                "token" if value.as_str().is_some_and(|token| token.starts_with("cs1.")) => {
                    *value = "[a session's token]".into();
                }
                "csrf" => *value = "[a session's csrf token]".into(),
                _ => {}
            }
        }
    }
    answer
}

fn snapshot_name(path: &str) -> String {
    path.trim_start_matches('/').replace('/', "_")
}

/// The whole answer of a route: one snapshot, whatever the engine and the encoding.
fn assert_snapshot(path: &str, reply: &Reply) {
    assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    insta::with_settings!({
        snapshot_path => "routes/snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_json_snapshot!(snapshot_name(path), redacted(reply.body.clone()));
    });
}

/// Another valid value for a field.
fn another(world: &World, field: &Field, value: &Value) -> Value {
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let number = || text.parse::<i64>().unwrap();
    let either = |one: &str, other: &str| Value::from(if text == one { other } else { one });
    match field.holds {
        // Not every text is a token.
        Holds::Text(_) if field.name == "revoke" => world.token(MEMBER).into(),
        // Nor a code to choose a password by.
        Holds::Text(_) if text.starts_with("ac1.") => {
            let Some(PasswordCode::Account(id, number)) = world.secrets.read_password_code(&text) else {
                panic!("{text} is no code")
            };
            world.secrets.password_code(PasswordCode::Account(id, number + 1)).into()
        }
        Holds::Text(_) => format!("{text}x").into(),
        Holds::Id => (number() + 1).into(),
        Holds::Int(min, max) | Holds::IntOrBlank(min, max) => {
            if number() < max { number() + 1 } else { min }.into()
        }
        Holds::Flag => (1 - number()).into(),
        Holds::Day => either("2026-12-30", "2026-12-31"),
        Holds::Money => either("1.01", "1.02"),
        // Not every number is a right's.
        Holds::Ints(_) if field.name == "competence_ids" => either("5", "9"),
        Holds::Ints(_) => either("1", "2"),
        Holds::OneOf(words) => (*words.iter().find(|word| **word != text).unwrap()).into(),
        Holds::Csv => format!("{text}\n").into(),
        // One more in the first row.
        Holds::Rows => {
            let mut rows: Vec<Value> = serde_json::from_str(&text).unwrap();
            let row = rows[0].as_object_mut().unwrap();
            let (_, number) =
                row.iter_mut().find(|(name, _)| ["num", "count"].contains(&name.as_str())).unwrap();
            *number = (number.as_i64().unwrap() + 1).into();
            Value::from(rows).to_string().into()
        }
        Holds::DayOrDays if text.contains('-') => either("2026-12-30", "2026-12-31"),
        Holds::DayOrDays => (number() + 1).to_string().into(),
    }
}

/// The same request with one field that says something else, for each field that it has.
fn changed(world: &World, case: &Case) -> Vec<(&'static str, Value)> {
    let given = |field: &&Field| case.body.get(field.name).is_some();
    let change = |field: &Field| {
        let mut body = case.body.clone();
        body[field.name] = another(world, field, &case.body[field.name]);
        (field.name, body)
    };
    route(case.path).fields.iter().filter(given).map(change).collect()
}

/// The text of a code as the contract has it, in Traditional Chinese.
fn wording(code: i64) -> &'static str {
    ALL_WORDINGS.iter().find(|wording| wording.code == code).unwrap().text[0]
}

/// What `data` of a refusal holds, by its code.
fn documented_data(code: i64) -> &'static [&'static str] {
    match code {
        3001 => &["id", "create_date", "shop_id"],
        7001 => &["attempts_left"],
        _ => &[],
    }
}

fn assert_is_refusal(reply: &Reply, Refused { path, code, .. }: &Refused) {
    let status = match code {
        1002 => 403,
        9001 => 429,
        _ => 200,
    };
    assert_eq!((reply.code(), reply.status.as_u16()), (*code, status), "{path} {code}: {}", reply.body);
    assert_eq!(reply.body["info"], wording(*code), "{path} {code}");
    let names = documented_data(*code);
    match reply.data() {
        Value::Null => assert!(names.is_empty(), "{path} {code}: {}", reply.body),
        data => assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), names, "{path} {code}"),
    }
    assert_eq!(reply.headers.contains_key("retry-after"), *code == 9001, "{path} {code}");
}

/// Fails with what is to be added where, unless these are the refusals that the routes declare.
fn assert_all_declared(demonstrated: &BTreeSet<(&str, i64)>) {
    let mut wrong = String::new();
    for route in ALL.iter() {
        for code in route.refusals.iter().filter(|code| !demonstrated.contains(&(route.path, **code))) {
            writeln!(
                wrong,
                "{} is never seen to answer {code}: add a Refused to {}, or do not declare it",
                route.path,
                file_of(route)
            )
            .unwrap();
        }
    }
    for (path, code) in demonstrated.iter().filter(|(path, code)| !route(path).refusals.contains(code)) {
        writeln!(wrong, "{path} answers {code}: its route in src/http/routes must declare it").unwrap();
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn a_form_says_the_same_as_the_json() {
    let body = json!({"id": 1, "title": "二 三&四", "ids": "1,2", "nothing": null});
    let form = as_form(body.as_object().unwrap());
    let read: Map<String, Value> = form_urlencoded::parse(form.as_bytes())
        .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
        .collect();
    assert_eq!(Value::Object(read), json!({"id": "1", "title": "二 三&四", "ids": "1,2"}));
}

#[test]
fn no_snapshot_outlives_its_route() {
    let folder = std::fs::read_dir(repository().join("tests/it/routes/snapshots")).unwrap();
    let kept: BTreeSet<String> =
        folder.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let routes = ALL.iter().map(|route| format!("{}.snap", snapshot_name(route.path)));
    assert_eq!(kept, routes.collect());
}

on_both_engines! {
    async fn every_route_has_its_good_answer(engine: Engine) {
        let mut called = Vec::new();
        for page in PAGES {
            let world = World::with_people(engine).await;
            for case in (page.cases)(&world).await {
                assert_says_all(&case);
                let reply = send(&world, &case, Encoding::Json, &case.body, None).await;
                assert_snapshot(case.path, &reply);
                called.push(case.path);
            }
            world.close().await;
        }
        assert_each_route_once(&called);
    }

    /// A form gets the answer of the JSON request. Much later the key still gives it, whatever the encoding, and writes
    /// nothing; and whatever field says something else under it is another request.
    async fn every_route_takes_forms_and_repeats_itself_under_a_key(engine: Engine) {
        let key = Some("the-same-key");
        let mut wrote_nothing = Vec::new();
        for page in PAGES {
            let world = World::with_people(engine).await;
            let mut first = Vec::new();
            for case in (page.cases)(&world).await {
                let before = written(&world).await;
                let reply = send(&world, &case, Encoding::Form, &case.body, key).await;
                assert_snapshot(case.path, &reply);
                assert!(!reply.replayed(), "{}", case.path);
                let wrote = written(&world).await != before;
                if !route(case.path).writes {
                    let json = send(&world, &case, Encoding::Json, &case.body, None).await;
                    assert_eq!(redacted(json.body), redacted(reply.body), "{}", case.path);
                    continue;
                }
                if wrote {
                    first.push((case, reply));
                } else {
                    let json = send(&world, &case, Encoding::Json, &case.body, key).await;
                    assert_eq!((json.replayed(), &json.body), (false, &reply.body), "{}", case.path);
                    wrote_nothing.push(case.path);
                }
            }
            let after = written(&world).await;
            for (case, first) in &first {
                for encoding in [Encoding::Json, Encoding::Form] {
                    let again = send(&world, case, encoding, &case.body, key).await;
                    assert_eq!((again.replayed(), &again.body), (true, &first.body), "{}", case.path);
                }
                for (name, body) in changed(&world, case) {
                    let other = send(&world, case, Encoding::Json, &body, key).await;
                    assert_eq!(other.code(), 6001, "{} with another {name}: {}", case.path, other.body);
                }
            }
            assert_eq!(written(&world).await, after);
            world.close().await;
        }
        assert_eq!(wrote_nothing, WRITES_NOTHING.iter().map(|(path, _)| *path).collect::<Vec<_>>());
    }

    async fn who_has_left_is_let_do_nothing_whatever_his_token_says(engine: Engine) {
        let world = World::with_people(engine).await;
        let left = json!({"id": 1009, "name": "前店員", "shop_id": 1, "state": 0});
        world.operator("/user/add", left).await.ok();
        let before = written(&world).await;
        let his = |route: &&Route| may(crate::harness::EMPLOYEE, route.path) && !is_open(route.path);
        for route in ALL.iter().filter(his) {
            for body in [json!({}), serde_json::from_str(route.request).unwrap()] {
                let reply = world.call(Caller::Employee(1009), route.path, body).await;
                assert_eq!((reply.code(), reply.status.as_u16()), (1002, 403), "{}", route.path);
            }
        }
        assert_eq!(written(&world).await, before);
        world.close().await;
    }

    async fn every_refusal_of_every_route_is_met(engine: Engine) {
        let mut demonstrated = BTreeSet::new();
        for page in PAGES {
            let world = World::with_people(engine).await;
            for refused in (page.refusals)(&world).await {
                let before = written(&world).await;
                let reply = world.call(refused.caller, refused.path, refused.body.clone()).await;
                assert_is_refusal(&reply, &refused);
                let wrote = written(&world).await != before;
                assert_eq!(wrote, WRITTEN_REFUSALS.contains(&refused.code), "{} {}", refused.path, refused.code);
                demonstrated.insert((refused.path, refused.code));
            }
            world.close().await;
        }
        assert_all_declared(&demonstrated);
    }
}
