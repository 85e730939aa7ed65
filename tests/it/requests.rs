//! Bad input, in every shape that a client can send it: always an answer in the envelope, never a 500, and nothing
//! written.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request};
use coupon_ledger::access::is_open;
use coupon_ledger::http::routes::{self, Field, Holds, Route};
use coupon_ledger::http::{App, HttpOptions, MAX_BODY_BYTES};
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::store::{BUCKET, Statement};
use coupon_ledger::value::MAX_ID;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use crate::access::{a_caller_of, may};
use crate::harness::{EMPLOYEE, FRIEND, MEMBER, PARTNER, Reply, World, definition};

pub const FORM: &str = "application/x-www-form-urlencoded";

/// Where the log ends.
pub async fn head(world: &World) -> i64 {
    let sql = "SELECT position FROM log_head WHERE bucket = $1";
    world.store().query(Statement::new(sql, [BUCKET.into()])).await.unwrap()[0].int(0)
}

/// The names of the fields that an answer of 401 complains of.
#[track_caller]
fn wrong_fields(reply: &Reply) -> BTreeSet<&str> {
    assert_eq!(reply.code(), 401, "{}", reply.body);
    assert_eq!(reply.data(), &Value::Null);
    reply.body["info"].as_object().unwrap().keys().map(String::as_str).collect()
}

async fn send(router: &Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let body = serde_json::from_slice(&bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
    Reply { status: parts.status, headers: parts.headers, body }
}

async fn form(world: &World, caller: Caller, route: &str, body: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(caller));
    world.request(route, &[("authorization", &bearer), ("content-type", FORM)], body).await
}

fn router_with(world: &World, options: HttpOptions) -> Router {
    App::new(world.ledger.clone(), options).router()
}

/// Values that no field of this kind may hold.
fn garbage(field: &Field) -> Vec<Value> {
    let not_a_number =
        [json!("x"), json!(1.5), json!({}), json!([1, 2]), json!(true), json!(""), json!("1e3")];
    let number = |min: i64, max: i64| {
        let outside = [
            json!(min - 1),
            json!(max + 1),
            json!((max + 1).to_string()),
            json!(u64::MAX),
            json!("9".repeat(40)),
        ];
        [not_a_number.as_slice(), outside.as_slice()].concat()
    };
    match field.holds {
        Holds::Id => number(1, MAX_ID),
        Holds::Int(min, max) => number(min, max),
        Holds::IntOrBlank(min, max) => {
            number(min, max).into_iter().filter(|value| *value != json!("")).collect()
        }
        Holds::Flag => number(0, 1),
        Holds::Text(max) => {
            let mut values =
                vec![json!({}), json!(["a"]), json!(true), json!("a\u{0}b"), json!("\u{85}\u{1b}[0m")];
            values.push("長".repeat(max as usize + 1).into());
            if field.required {
                values.extend([json!(""), json!(" \n"), Value::Null]);
            }
            values
        }
        Holds::Day => {
            vec![json!("2026-02-29"), json!("2026-1-1"), json!(20_260_101), json!("0000-01-01"), json!({})]
        }
        Holds::Money => {
            vec![json!("-1"), json!("1.005"), json!("1e3"), json!({}), json!(""), json!("9".repeat(13))]
        }
        Holds::Ints(max) => vec![
            json!("1,x"),
            json!({}),
            json!([[1]]),
            json!("[1"),
            json!([max + 1]),
            json!([0, 1]),
            json!([-1]),
        ],
        Holds::Rows => {
            vec![
                json!({}),
                json!(true),
                json!(1),
                json!([1]),
                json!("x"),
                json!("{}"),
                json!("[1]"),
                json!("[{}"),
                json!([{}]),
            ]
        }
        Holds::Csv => vec![
            json!({}),
            json!(["id"]),
            json!(true),
            json!(1),
            json!(""),
            json!(" \r\n"),
            Value::Null,
            json!("id\u{0}"),
            json!("id,id"),
            json!("id,unheard_of\n1,2\n"),
        ],
        Holds::OneOf(_) => vec![json!("x"), json!(""), json!(1), json!({}), json!(["id"])],
        Holds::DayOrDays => vec![json!("x"), json!({}), json!(-1), json!(1.5), json!("2026-01-01")],
    }
}

on_both_engines! {
    async fn an_empty_body_is_told_every_required_field(engine: Engine) {
        let world = World::with_people(engine).await;
        let before = head(&world).await;
        for route in routes::ALL.iter() {
            let required: BTreeSet<&str> =
                route.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
            if required.is_empty() {
                continue;
            }
            let reply = world.call(a_caller_of(route.path), route.path, json!({})).await;
            // Not what only another field's value would make required.
            assert_eq!(wrong_fields(&reply), required, "{}", route.path);
            let bare =
                world.raw("POST", route.path, &bearer(&world, a_caller_of(route.path)).each(), Vec::new()).await;
            assert_eq!(bare.body, reply.body, "{}", route.path);
        }
        assert_eq!(head(&world).await, before);
        world.close().await;
    }

    async fn garbage_in_a_field_is_told_by_its_name(engine: Engine) {
        let world = World::with_people(engine).await;
        let before = head(&world).await;
        for route in routes::ALL.iter() {
            for field in route.fields {
                for value in garbage(field) {
                    let mut body: Value = serde_json::from_str(route.request).unwrap();
                    body[field.name] = value.clone();
                    if field.name == "before_id" {
                        body.as_object_mut().unwrap().remove("page");
                    }
                    let reply = world.call(a_caller_of(route.path), route.path, body.clone()).await;
                    assert_eq!(wrong_fields(&reply), BTreeSet::from([field.name]), "{} {body}", route.path);
                    if let (Value::String(text), Value::Object(fields)) = (&value, &mut body) {
                        // The same as a form, where every value is a text.
                        fields.insert(field.name.to_owned(), text.as_str().into());
                        let same = form(&world, a_caller_of(route.path), route.path, &as_form(fields)).await;
                        assert_eq!(same.body, reply.body, "{} {body}", route.path);
                    }
                }
            }
        }
        assert_eq!(head(&world).await, before);
        world.close().await;
    }

    async fn a_request_as_documented_is_read_without_complaint(engine: Engine) {
        let world = World::with_people(engine).await;
        for route in routes::ALL.iter().filter(|route| route.path != "/token/revoke") {
            let mut body: Value = serde_json::from_str(route.request).unwrap();
            if matches!(route.path, "/member/add" | "/user/add") {
                body["id"] = 5_000.into();
            }
            body["unknown"] = json!({"is": ["ignored"]});
            let reply = world.call(a_caller_of(route.path), route.path, body.clone()).await;
            assert_ne!(reply.code(), 401, "{} {}", route.path, reply.body);
            let fields = body.as_object().unwrap();
            if !route.writes {
                let same = form(&world, a_caller_of(route.path), route.path, &as_form(fields)).await;
                assert_eq!(same.body, reply.body, "{}", route.path);
            }
        }
        world.close().await;
    }

    async fn callers_of_another_kind_are_not_allowed_whatever_they_send(engine: Engine) {
        let world = World::with_people(engine).await;
        let before = head(&world).await;
        for route in routes::ALL.iter() {
            for caller in [MEMBER, EMPLOYEE, PARTNER, Caller::Operator, Caller::Auditor] {
                if may(caller, route.path) {
                    continue;
                }
                let reply = world.call(caller, route.path, json!({"id": "garbage"})).await;
                assert_eq!((reply.code(), reply.status.as_u16()), (1002, 403), "{} {caller}", route.path);
                assert_eq!(reply.data(), &Value::Null);
            }
        }
        assert_eq!(head(&world).await, before);
        world.close().await;
    }

    async fn without_a_token_that_holds_nobody_is_signed_in(engine: Engine) {
        let world = World::with_people(engine).await;
        let now_ms = world.clock.now_ms();
        let mine = world.token(MEMBER);
        let expired = Token::new(MEMBER, now_ms - 60_000, 60).sign(&world.secrets);
        let foreign = Token::new(MEMBER, now_ms, 60).sign(&Secrets::from_root([7; 32]));
        let bad = [
            String::new(),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Bearer {expired}"),
            format!("Bearer {foreign}"),
            format!("Bearer {}", &mine[..mine.len() - 1]),
            format!("Basic {mine}"),
            mine.clone(),
        ];
        for route in routes::ALL.iter().filter(|route| !is_open(route.path)) {
            let reply = world.request(route.path, &[], route.request).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (1001, 401), "{}", route.path);
        }
        for value in &bad {
            let reply =
                world.request("/client/couponlist", &[("authorization", value)], r#"{"state":0}"#).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (1001, 401), "{value}");
        }
        let reply = world.request("/client/couponlist", &[("token", &expired)], r#"{"state":0}"#).await;
        assert_eq!(reply.code(), 1001);
        for header in [("token", mine.clone()), ("authorization", format!("bearer {mine}"))] {
            world.request("/client/couponlist", &[(header.0, &header.1)], r#"{"state":0}"#).await.ok();
        }
        // It holds until its last millisecond and no longer.
        let short = Token::new(MEMBER, now_ms, 60).sign(&world.secrets);
        world.advance(59_999);
        world.request("/client/couponlist", &[("token", &short)], r#"{"state":0}"#).await.ok();
        world.advance(1);
        assert_eq!(
            world.request("/client/couponlist", &[("token", &short)], r#"{"state":0}"#).await.code(),
            1001
        );
        // And not after it was revoked.
        let revoked = world.token(MEMBER);
        world.operator("/token/revoke", json!({"revoke": revoked})).await.ok();
        assert_eq!(
            world.request("/client/couponlist", &[("token", &revoked)], r#"{"state":0}"#).await.code(),
            1001
        );
        world.close().await;
    }

    async fn bodies_that_cannot_be_read_are_told_apart(engine: Engine) {
        let world = World::with_people(engine).await;
        let before = head(&world).await;
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let post = async |content_type: &str, body: &[u8]| {
            let headers = [("authorization", bearer.as_str()), ("content-type", content_type)];
            let reply = world.raw("POST", "/elecoupons/state", &headers, body.to_vec()).await;
            let field = if reply.code() == 401 {
                wrong_fields(&reply).into_iter().collect::<String>()
            } else {
                String::new()
            };
            (reply.status.as_u16(), reply.code(), field)
        };
        let unreadable = (200, 401, "body".to_owned());
        let json = "application/json";
        for body in [
            &b"{"[..],
            b"{\"id\":1",
            b"[]",
            b"null",
            b"1",
            b"\xff\xfe",
            b"{\"id\":\"\xff\"}",
            b"{\"id\":\"\\ud800\"}",
            b"{} {}",
            b"{\"id\":1e999}",
        ] {
            assert_eq!(post(json, body).await, unreadable, "{}", String::from_utf8_lossy(body));
        }
        assert_eq!(post(json, "[".repeat(30_000).as_bytes()).await, unreadable);
        let deep = format!("{{\"id\":{}1{}}}", "[".repeat(5_000), "]".repeat(5_000));
        assert_eq!(post(json, deep.as_bytes()).await, unreadable);
        for body in [&b"id=%ff&state=1"[..], b"id=1&state=\xff", b"%c3%28=1"] {
            assert_eq!(post(FORM, body).await, unreadable, "{}", String::from_utf8_lossy(body));
        }
        for content_type in ["text/plain", "", "multipart/form-data; boundary=x", "application/jsonx", "json"]
        {
            assert_eq!(post(content_type, b"{}").await, (415, 401, "body".to_owned()), "{content_type}");
        }
        // 64 KiB to the byte may come, and one more may not.
        let body = |bytes: usize| format!("{{\"id\":1,\"state\":1,\"x\":\"{}\"}}", "x".repeat(bytes - 25));
        assert_eq!(post(json, body(MAX_BODY_BYTES).as_bytes()).await, (200, 2002, String::new()));
        assert_eq!(post(json, body(MAX_BODY_BYTES + 1).as_bytes()).await, (413, 401, "body".to_owned()));
        assert_eq!(
            post("APPLICATION/JSON; charset=utf-8", b"{\"id\":1,\"state\":1}").await,
            (200, 2002, String::new())
        );
        assert_eq!(head(&world).await, before);
        world.close().await;
    }

    async fn a_body_that_does_not_come_is_not_waited_for(engine: Engine) {
        let world = World::with_people(engine).await;
        let router = router_with(
            &world,
            HttpOptions { body_timeout: Duration::from_millis(20), ..HttpOptions::default() },
        );
        let request = |body: Body| {
            let request = Request::post("/client/couponlist").header("token", world.token(MEMBER));
            request.header("content-type", "application/json").body(body).unwrap()
        };
        let part = futures::stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"{\"state\":"))]);
        let stalled = Body::from_stream(futures::StreamExt::chain(part, futures::stream::pending()));
        let reply = send(&router, request(stalled)).await;
        assert_eq!((reply.status.as_u16(), wrong_fields(&reply)), (408, BTreeSet::from(["body"])));
        send(&router, request(Body::from("{\"state\":0}"))).await.ok();
        // One that says too little of its length, or nothing, is cut off all the same.
        let endless = futures::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b' '; 1024])));
        let reply = send(&router, request(Body::from_stream(endless))).await;
        assert_eq!((reply.status.as_u16(), wrong_fields(&reply)), (413, BTreeSet::from(["body"])));
        world.close().await;
    }

    async fn an_unknown_path_or_method_is_told_in_the_envelope(engine: Engine) {
        let world = World::with_people(engine).await;
        let bearer = format!("Bearer {}", world.token(MEMBER));
        let headers = [("authorization", bearer.as_str())];
        for (method, path) in [
            ("POST", "/client/nothing"),
            ("POST", "/"),
            ("POST", "/client/couponlist/"),
            ("POST", "/client//couponlist"),
            ("POST", "/CLIENT/COUPONLIST"),
            ("POST", "/alias/api/v1/client/couponlist"),
            ("POST", "/client/couponlist%00"),
            ("GET", "/client/couponlist?state=0"),
            ("PUT", "/client/couponlist"),
            ("DELETE", "/elecoupons/add"),
            ("PATCH", "/client/%ff"),
        ] {
            let reply = world.raw(method, path, &headers, b"{\"state\":0}".to_vec()).await;
            assert!(matches!(reply.status.as_u16(), 404 | 405), "{method} {path} {}", reply.status);
            assert_eq!(
                reply.body,
                json!({"code": 9004, "info": "接口不存在", "data": null}),
                "{method} {path}"
            );
        }
        world.close().await;
    }

    async fn routes_are_served_under_the_base_path_as_well(engine: Engine) {
        let world = World::with_people(engine).await;
        let router = router_with(
            &world,
            HttpOptions { base_path: "/alias/api/v1".to_owned(), ..HttpOptions::default() },
        );
        for route in routes::ALL.iter() {
            let mut answers = Vec::new();
            for base in ["", "/alias/api/v1"] {
                let request = Request::post(format!("{base}{}", route.path))
                    .header("token", world.token(Caller::Auditor));
                answers.push(send(&router, request.body(Body::empty()).unwrap()).await.body);
            }
            assert_eq!(answers[0], answers[1], "{}", route.path);
            assert_ne!(answers[0]["code"], 9004, "{}", route.path);
        }
        let other = Request::post("/other/api/v1/client/couponlist").body(Body::empty()).unwrap();
        assert_eq!(send(&router, other).await.code(), 9004);
        world.close().await;
    }

    async fn pages_outside_their_bounds_are_errors_and_never_clamped(engine: Engine) {
        let world = World::with_people(engine).await;
        let list = async |body: Value| world.call(MEMBER, "/client/couponlist", body).await;
        for (body, field) in [
            (json!({"state": 0, "page": -1}), "page"),
            (json!({"state": 0, "page": 0}), "page"),
            (json!({"state": 0, "limit": 0}), "limit"),
            (json!({"state": 0, "limit": 101}), "limit"),
            (json!({"state": 0, "page": 1, "before_id": 5}), "before_id"),
            (json!({"state": 3}), "state"),
            (json!({"state": 0, "before_id": 1_i64 << 53}), "before_id"),
        ] {
            assert_eq!(wrong_fields(&list(body).await), BTreeSet::from([field]));
        }
        for body in
            [json!({"state": 0, "page": MAX_ID, "limit": 100}), json!({"state": "0", "before_id": MAX_ID})]
        {
            assert_eq!(list(body).await.ok(), &json!([]));
        }
        assert_eq!(wrong_fields(&list(json!({"state": 9, "page": 0, "limit": 101})).await).len(), 3);
        world.close().await;
    }

    async fn before_id_neither_repeats_nor_omits_while_coupons_arrive(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let mut there = Vec::new();
        for _ in 0..12 {
            there.push(world.issue(definition, 439).await);
        }
        there.reverse();
        let (mut seen, mut body) = (Vec::new(), json!({"state": 0, "limit": 5}));
        loop {
            let page = world.call(MEMBER, "/client/couponlist", body).await;
            let ids: Vec<i64> =
                page.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
            let Some(last) = ids.last() else { break };
            body = json!({"state": 0, "limit": 5, "before_id": last});
            seen.extend(ids);
            world.issue(definition, 439).await;
        }
        assert_eq!(seen, there);
        world.close().await;
    }

    async fn integers_and_lists_may_come_in_any_of_their_encodings(engine: Engine) {
        let world = World::with_people(engine).await;
        let defined = async |reply: Reply| {
            let id = reply.ok()["id"].clone();
            let info = world.operator("/elecoupons/info", json!({"id": id})).await;
            [info.ok()["use_week"].clone(), info.ok()["shop_ids"].clone(), info.ok()["deduction"].clone()]
        };
        let wanted = [json!("1,2,7"), json!("3"), json!("10.50")];
        for (use_week, shop_ids, deduction) in [
            (json!([1, 2, 7]), json!([3]), json!("10.5")),
            (json!("1,2,7"), json!("3"), json!(10.5)),
            (json!(" 7, 2 ,1"), json!(3), json!("10.50")),
            (json!("[\"1\",2,7]"), json!("[3]"), json!(10.50)),
            (json!(["1", "2", "7", "7"]), json!(["3"]), json!("10.50")),
        ] {
            let changes = json!({"use_week": use_week, "shop_ids": shop_ids, "deduction": deduction});
            assert_eq!(defined(world.operator("/elecoupons/add", definition(changes)).await).await, wanted);
        }
        let rest = "type=1&title=%E5%88%B8+a&deduction=10.50&validity_type=2&start_num=0&end_num=30&is_giving=1";
        let rest = format!("{rest}&get_limit_type=1");
        for lists in [
            "use_week=1&use_week=2&use_week=7&shop_ids=3",
            "use_week%5B%5D=1&use_week%5B%5D=2&use_week%5B%5D=7&shop_ids%5B%5D=3",
            "use_week=1%2C2%2C7&shop_ids=%5B3%5D",
            "use_week=[1,2,7]&shop_ids= 3",
        ] {
            let reply = form(&world, Caller::Operator, "/elecoupons/add", &format!("{rest}&{lists}")).await;
            assert_eq!(defined(reply).await, wanted, "{lists}");
        }
        for nothing in [json!(0), json!("0"), json!(""), json!([]), json!("[]"), json!([0]), Value::Null] {
            let changes = json!({"use_week": nothing, "shop_ids": nothing});
            let [use_week, shop_ids, _] =
                defined(world.operator("/elecoupons/add", definition(changes)).await).await;
            assert_eq!((use_week, shop_ids), (json!(""), json!("")), "{nothing}");
        }
        world.close().await;
    }

    async fn the_first_thing_wrong_with_a_field_is_what_is_told(engine: Engine) {
        let world = World::with_people(engine).await;
        let add = async |changes: Value| {
            let reply = world.operator("/elecoupons/add", definition(changes)).await;
            wrong_fields(&reply);
            reply.body["info"].clone()
        };
        let dates = json!({"validity_type": 1, "start_num": "2026-12-01", "end_num": "soon"});
        assert_eq!(add(dates).await, json!({"end_num": "end_num必須是日期，如2018-11-01"}));
        let dates = json!({"validity_type": 1, "start_num": "2026-12-01", "end_num": ""});
        assert_eq!(add(dates).await, json!({"end_num": "end_num不能為空"}));
        let dates = json!({"validity_type": 1, "start_num": "2026-12-01", "end_num": "2026-11-30"});
        assert_eq!(add(dates).await, json!({"end_num": "end_num不能早於開始日期"}));
        let levels = json!({"get_limit_type": 4, "level_ids": "gold"});
        assert_eq!(add(levels).await, json!({"level_ids": "level_ids必須是數字列表"}));
        assert_eq!(add(json!({"get_limit_type": 4})).await, json!({"level_ids": "level_ids不能為空"}));
        assert_eq!(add(json!({"get_limit_type": 2})).await, json!({"get_limit": "get_limit不能為空"}));
        assert_eq!(add(json!({"deduction": null})).await, json!({"deduction": "deduction不能為空"}));
        world.close().await;
    }

    async fn the_same_request_in_another_encoding_is_the_same_under_its_key(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let first = world
            .keyed(MEMBER, "key-000001", "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1}))
            .await;
        first.ok();
        assert!(!first.replayed());
        let after = head(&world).await;
        let bearer = format!("Bearer {}", world.token(MEMBER));
        for (content_type, body) in [
            (
                "application/json",
                format!("{{ \"shop_id\": \"1\", \"mem_coupon_id\": \"{id}\", \"audit_url\": null }}"),
            ),
            (
                "application/json; charset=utf-8",
                format!("{{\"mem_coupon_id\":{id},\"shop_id\":1,\"else\":[]}}"),
            ),
            (FORM, format!("shop_id=1&mem_coupon_id={id}")),
        ] {
            let headers = [
                ("authorization", bearer.as_str()),
                ("content-type", content_type),
                ("idempotency-key", "key-000001"),
            ];
            let again = world.request("/client/auditcoupon", &headers, &body).await;
            assert_eq!((again.replayed(), &again.body), (true, &first.body), "{body}");
        }
        // Another body is refused, even where its coupon does not exist; bad parameters come first.
        for other in [json!({"mem_coupon_id": id, "shop_id": 2}), json!({"mem_coupon_id": 99, "shop_id": 1})]
        {
            let reply = world.keyed(MEMBER, "key-000001", "/client/auditcoupon", other).await;
            assert_eq!((reply.code(), reply.replayed()), (6001, false));
        }
        let reply =
            world.keyed(MEMBER, "key-000001", "/client/auditcoupon", json!({"mem_coupon_id": "x"})).await;
        assert_eq!(wrong_fields(&reply), BTreeSet::from(["mem_coupon_id", "shop_id"]));
        assert_eq!(head(&world).await, after);
        world.close().await;
    }

    async fn a_key_is_its_callers_and_its_operations_own(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"is_claim": 1})).await;
        let (mine, his) = (world.issue(definition, 439).await, world.issue(definition, 442).await);
        let key = "one-key_for-all";
        let calls = [
            (MEMBER, "/client/claimcoupon", json!({"id": definition})),
            (FRIEND, "/client/claimcoupon", json!({"id": definition})),
            (MEMBER, "/client/givecoupon", json!({"id": mine})),
            (MEMBER, "/client/withdrawcoupon", json!({"id": mine})),
            (EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": his})),
            (Caller::Operator, "/sendelecoupon/one", json!({"coupon_id": definition, "member_id": 439})),
            (EMPLOYEE, "/sendelecoupon/one", json!({"coupon_id": definition, "member_id": 439})),
            (Caller::Operator, "/member/add", json!({"nickname": "新"})),
            (Caller::Operator, "/user/add", json!({"name": "新", "shop_id": 1})),
            (Caller::Operator, "/shop/add", json!({"shop_name": "新", "phone": "1", "address": "a"})),
        ];
        let mut first = Vec::new();
        for (caller, route, body) in &calls {
            let reply = world.keyed(*caller, key, route, body.clone()).await;
            reply.ok();
            assert!(!reply.replayed(), "{caller} {route}");
            first.push(reply.body);
        }
        let after = head(&world).await;
        for ((caller, route, body), first) in calls.iter().zip(&first) {
            let reply = world.keyed(*caller, key, route, body.clone()).await;
            assert_eq!((reply.replayed(), &reply.body), (true, first), "{caller} {route}");
        }
        assert_eq!(head(&world).await, after);
        world.close().await;
    }

    async fn a_key_of_another_shape_is_refused_before_anything_is_done(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let before = head(&world).await;
        for key in [
            "",
            "12345",
            &"a".repeat(65),
            "has space",
            "dot.dot.dot",
            "slash/slash",
            "鍵鍵鍵鍵鍵鍵",
            "a\tbcdef",
        ] {
            let reply = world.keyed(MEMBER, key, "/client/givecoupon", json!({"id": id})).await;
            assert_eq!(wrong_fields(&reply), BTreeSet::from(["Idempotency-Key"]), "{key}");
        }
        assert_eq!(head(&world).await, before);
        for key in ["123456", &"a".repeat(64), "A-z_09"] {
            world.keyed(MEMBER, key, "/client/givecoupon", json!({"id": id})).await.ok();
        }
        // Where nothing is written a key means nothing.
        world.keyed(MEMBER, "x", "/client/couponlist", json!({"state": 0})).await.ok();
        world.close().await;
    }

    async fn a_refusal_that_wrote_nothing_does_not_use_up_its_key(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let taken = json!({"id": 439, "nickname": "另一個"});
        for _ in 0..2 {
            let reply = world.keyed(Caller::Operator, "key-taken", "/member/add", taken.clone()).await;
            assert_eq!((wrong_fields(&reply), reply.replayed()), (BTreeSet::from(["id"]), false));
        }
        let withdraw =
            async || world.keyed(MEMBER, "key-again", "/client/withdrawcoupon", json!({"id": id})).await;
        assert_eq!(withdraw().await.code(), 7003);
        world.give(MEMBER, id).await;
        assert_eq!((withdraw().await.ok(), withdraw().await.replayed()), (&json!({"id": id}), true));
        world.close().await;
    }

    async fn requests_that_come_at_once_under_one_key_add_one_member(engine: Engine) {
        let world = World::with_people(engine).await;
        let add = |_| world.keyed(Caller::Operator, "key-at-once", "/member/add", json!({"nickname": "新"}));
        let replies = futures::future::join_all((0..8).map(add)).await;
        let ids: BTreeSet<i64> = replies.iter().map(|reply| reply.ok()["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), 1, "{ids:?}");
        assert_eq!(replies.iter().filter(|reply| !reply.replayed()).count(), 1);
        let count = Statement::new("SELECT COUNT(*) FROM members", []);
        assert_eq!(world.store().query(count).await.unwrap()[0].int(0), 2 + 1);
        world.close().await;
    }

    async fn a_wrong_code_is_answered_the_same_again_under_its_key(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let code = world.give(MEMBER, id).await;
        let guess = async |key: &str| {
            world.keyed(FRIEND, key, "/client/getcoupon", json!({"id": id, "code": code ^ 1})).await
        };
        for (key, left, replayed) in
            [("key-01", 4, false), ("key-02", 3, false), ("key-01", 4, true), ("key-03", 2, false)]
        {
            let reply = guess(key).await;
            let answer = (reply.code(), reply.data(), reply.replayed());
            assert_eq!(answer, (7001, &json!({"attempts_left": left}), replayed), "{key}");
        }
        world.close().await;
    }

    async fn a_refusal_is_told_in_the_callers_language(engine: Engine) {
        let world = World::with_people(engine).await;
        let told = async |language: Option<&str>, body: &str| {
            let bearer = format!("Bearer {}", world.token(MEMBER));
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(language.map(|language| ("accept-language", language)));
            world.request("/client/couponinfo", &headers, body).await.body["info"].clone()
        };
        let mut by_language = Map::new();
        for language in [
            None,
            Some("zh-CN"),
            Some("zh-CN,zh;q=0.9"),
            Some("en-GB;q=0.8"),
            Some("zh-TW"),
            Some("fr"),
            Some(";,"),
        ] {
            let texts = [
                told(language, r#"{"id":77}"#).await,
                told(language, "{}").await,
                told(language, r#"{"id":0}"#).await,
            ];
            by_language.insert(language.unwrap_or("none").to_owned(), texts.to_vec().into());
        }
        insta::allow_duplicates! { insta::assert_json_snapshot!("languages", by_language); }
        world.close().await;
    }

    async fn every_answer_names_its_request(engine: Engine) {
        let world = World::with_people(engine).await;
        let id_of = async |headers: &[(&str, &str)]| {
            let reply = world.request("/client/couponlist", headers, "{}").await;
            reply.headers["x-request-id"].to_str().unwrap().to_owned()
        };
        assert_eq!(id_of(&[("x-request-id", "a-client.s_own-1")]).await, "a-client.s_own-1");
        let mut ours = BTreeSet::new();
        for theirs in ["", "has space", "quote\"", &"x".repeat(65), "換"] {
            ours.insert(id_of(&[("x-request-id", theirs)]).await);
        }
        ours.insert(id_of(&[]).await);
        assert_eq!(ours.len(), 6);
        assert!(
            ours.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())),
            "{ours:?}"
        );
        world.close().await;
    }

    async fn texts_come_back_as_they_went_in(engine: Engine) {
        let world = World::with_people(engine).await;
        for (number, text) in [
            "非常給力 👍🏽",
            "a\nb\r\n\tc",
            "'; DROP TABLE events; --",
            "{\"a\":1}",
            "\u{feff}\u{202e}x",
            "%00&=+",
        ]
        .into_iter()
        .enumerate()
        {
            let definition = world.define(json!({"title": format!("{number}"), "rules": text})).await;
            let id = world.issue(definition, 439).await;
            let body = json!({"mem_coupon_id": id, "shop_id": 1});
            world.call(MEMBER, "/client/auditcoupon", body).await.ok();
            let review = Map::from_iter([
                ("id".to_owned(), json!(id)),
                ("evaluation".to_owned(), json!(text)),
                ("score".to_owned(), json!(5)),
            ]);
            let reply = form(&world, MEMBER, "/client/evaluacoupon", &as_form(&review)).await;
            assert_eq!(reply.ok()["evaluation"], text);
            let info = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
            assert_eq!(
                (&info.ok()["evaluation"], &info.ok()["couponInfo"]["rules"]),
                (&json!(text), &json!(text))
            );
        }
        world.close().await;
    }

    async fn an_id_at_the_end_of_the_range_leaves_the_next_ones_within_it(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/member/add", json!({"id": MAX_ID})).await.ok();
        let next = world.operator("/member/add", json!({"nickname": "下一個"})).await;
        assert!((1..MAX_ID).contains(&next.ok()["id"].as_i64().unwrap()), "{}", next.body);
        world.close().await;
    }

    async fn any_bytes_are_answered_and_bad_parameters_write_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"is_claim": 1})).await;
        world.issue(definition, 439).await;
        let routes = 0..routes::ALL.len();
        let body = prop_oneof![
            // A request as documented with some fields exchanged, whole or cut short.
            (routes.clone(), fields(), any::<bool>(), prop::option::of(0..200_usize)).prop_map(
                |(route, fields, form, cut)| {
                    let mut body: Map<String, Value> =
                        serde_json::from_str(routes::ALL[route].request).unwrap();
                    let names: Vec<&str> = routes::ALL[route].fields.iter().map(|field| field.name).collect();
                    for (number, value) in fields {
                        let name = names.get(number).copied().unwrap_or("other");
                        body.insert(name.to_owned(), value);
                    }
                    let mut bytes =
                        if form { as_form(&body) } else { Value::Object(body).to_string() }.into_bytes();
                    bytes.truncate(cut.unwrap_or(usize::MAX));
                    (route, if form { FORM } else { "application/json" }, bytes)
                }
            ),
            // Anything at all.
            (routes.clone(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..80)).prop_map(
                |(route, form, bytes)| (route, if form { FORM } else { "application/json" }, bytes)
            ),
            // Percent signs in all the wrong places.
            (routes, "(id|state|code|page)?[=&%;+0-9a-fA-F\\[\\]]{0,40}").prop_map(|(route, text)| (
                route,
                FORM,
                text.into_bytes()
            )),
        ];
        property(256, body, async |(route, content_type, bytes)| {
            let route: &Route = &routes::ALL[route];
            let before = head(&world).await;
            let bearer = format!("Bearer {}", world.token(a_caller_of(route.path)));
            let headers = [("authorization", bearer.as_str()), ("content-type", content_type)];
            let reply = world.raw("POST", route.path, &headers, bytes).await;
            assert_envelope(&reply);
            assert!(reply.code() != 401 || head(&world).await == before, "{} wrote something", route.path);
        });
        world.close().await;
    }

    async fn any_headers_are_answered_in_the_envelope(engine: Engine) {
        let world = World::with_people(engine).await;
        let names = [
            "authorization",
            "token",
            "content-type",
            "content-length",
            "accept-language",
            "idempotency-key",
            "x-request-id",
            "host",
        ];
        let value = prop_oneof![
            prop::collection::vec(prop_oneof![32..=126_u8, 128..=255_u8], 0..40),
            Just(world.token(MEMBER).into_bytes()),
            Just(format!("Bearer {}", world.token(MEMBER)).into_bytes()),
            Just(b"application/json".to_vec()),
            Just(b"99999999999999999999".to_vec()),
        ];
        let headers = prop::collection::vec((prop::sample::select(names.to_vec()), value), 0..6);
        let router = router_with(&world, HttpOptions::default());
        let before = head(&world).await;
        property(256, (0..routes::ALL.len(), headers), async |(route, headers)| {
            let mut request = Request::post(routes::ALL[route].path);
            for (name, value) in headers {
                request = request.header(name, HeaderValue::from_bytes(&value).unwrap());
            }
            assert_envelope(&send(&router, request.body(Body::from("{}")).unwrap()).await);
        });
        assert_eq!(head(&world).await, before);
        world.close().await;
    }
}

/// A property of many random values, run on this test's runtime; a failure is shrunk and shown.
pub fn property<S: Strategy>(cases: u32, values: S, test: impl AsyncFn(S::Value)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let outcome = TestRunner::new(config).run(&values, |value| {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(test(value)));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

#[track_caller]
pub fn assert_envelope(reply: &Reply) {
    assert!(reply.status.as_u16() < 500, "{} {}", reply.status, reply.body);
    let keys: Vec<&str> = reply.body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["code", "info", "data"]);
    assert!(reply.body["code"].is_i64());
    let told =
        if reply.code() == 401 { reply.body["info"].is_object() } else { reply.body["info"].is_string() };
    assert!(told, "{}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/json");
    assert!(reply.headers.contains_key("x-request-id"));
}

/// Some fields by their number in the route, with any value that JSON can hold.
fn fields() -> impl Strategy<Value = Vec<(usize, Value)>> {
    let number = prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        prop::sample::select(vec![MAX_ID, MAX_ID + 1, i64::MAX, i64::MIN])
            .prop_map(|id| id.to_string().into()),
    ];
    let leaf = prop_oneof![
        number,
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        any::<String>().prop_map(Value::from),
        "-?[0-9]{1,40}".prop_map(Value::from),
        "[0-9]{4}-[0-9]{2}-[0-9]{2}".prop_map(Value::from),
        "(-?[0-9]{0,3}[, ]){0,5}".prop_map(Value::from),
        "[a-z]{600}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,3}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    prop::collection::vec((0..20_usize, value), 0..4)
}

/// A JSON object as a form: texts as they are, everything else as JSON.
pub fn as_form(fields: &Map<String, Value>) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        match value {
            Value::Null => &mut form,
            Value::String(text) => form.append_pair(name, text),
            other => form.append_pair(name, &other.to_string()),
        };
    }
    form.finish()
}

/// A caller's headers, without a content type.
struct Bearer(String);

fn bearer(world: &World, caller: Caller) -> Bearer {
    Bearer(format!("Bearer {}", world.token(caller)))
}

impl Bearer {
    fn each(&self) -> [(&str, &str); 1] {
        [("authorization", &self.0)]
    }
}
