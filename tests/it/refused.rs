//! Refusals of access: counted, written down once a minute at most, with who and what and nothing that a caller made up.

use axum::body::Body;
use axum::http::Request;
use coupon_ledger::http::gate::GateOptions;
use coupon_ledger::http::gate::limits::LimitTable;
use coupon_ledger::http::{App, HttpOptions};
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::{Ledger, LedgerOptions};
use coupon_ledger::secrets::Secrets;
use coupon_ledger::watch::MAX_NAMED;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::accounts::{account, sign_in};
use crate::harness::{EMPLOYEE, Home, MEMBER, PARTNER, Server, World};
use crate::outside::{Api, events};
use crate::v1::lines;

/// What was written down, event by event.
async fn gathered(world: &World) -> Vec<Value> {
    let events = world.store().events_after(0, i64::MAX).await.unwrap();
    let of_refusals = events.iter().filter(|event| event.aggregate_type == "refusals");
    of_refusals
        .map(|event| serde_json::from_str::<Value>(&event.payload).unwrap()["Gathered"].clone())
        .collect()
}

/// Each refusal of an event as `caller action code count`.
fn refused(gathered: &Value) -> Vec<String> {
    let one = |one: &Value| {
        let text = |name: &str| one[name].as_str().unwrap().to_owned();
        format!("{} {} {} {}", text("caller"), text("action"), one["code"], one["count"])
    };
    gathered["refused"].as_array().unwrap().iter().map(one).collect()
}

async fn write_down(world: &World) {
    world.app.watch.write_down(&world.ledger).await.unwrap();
}

on_both_engines! {
    async fn forged_tokens_by_the_thousand_make_one_event(engine: Engine) {
        let world = World::with_people(engine).await;
        let other = Secrets::from_root([7; 32]);
        let paths = ["/client/couponlist", "/member/get", "/v1/events", "/shop/add?secret=in-the-query", "/nowhere/made-up"];
        let mut shown = Vec::new();
        for number in 0..3_000_i64 {
            let token = match number % 4 {
                0 => Token::new(Caller::Operator, world.clock.now_ms(), 60).sign(&other),
                1 => format!("ck1.{number}.{}", "A".repeat(43)),
                2 => format!("cs1.0123456789abcdef.{number:043}"),
                _ => format!("made-up-{number}"),
            };
            let path = paths[number as usize % paths.len()];
            let method = if path.starts_with("/v1") { "GET" } else { "POST" };
            let reply = world.raw(method, path, &[("authorization", &format!("Bearer {token}"))], b"{}".to_vec()).await;
            assert!([1001, 9004].contains(&reply.code()), "{}", reply.body);
            shown.push(token);
        }
        write_down(&world).await;
        write_down(&world).await;
        let all = gathered(&world).await;
        assert_eq!(all.len(), 1);
        assert_eq!(
            refused(&all[0]),
            [
                "nobody /client/couponlist 1001 600",
                "nobody /member/get 1001 600",
                "nobody /shop/add 1001 600",
                "nobody GET /v1/events 1001 600",
            ]
        );
        assert_eq!((&all[0]["others"], &all[0]["from_ms"]), (&json!(0), &json!(world.clock.now_ms())));
        let log = world.store().events_after(0, i64::MAX).await.unwrap();
        let log: Vec<_> = log.iter().map(|event| format!("{}{}", event.payload, event.metadata)).collect();
        let text = log.join("\n");
        let parts = shown.iter().flat_map(|token| token.split('.').filter(|part| part.len() > 4));
        assert!(parts.chain(["in-the-query", "made-up"]).all(|part| !text.contains(part)));
        world.close().await;
    }

    async fn however_many_are_refused_an_event_is_bounded_and_names_who_is_known_first(engine: Engine) {
        let world = World::with_people(engine).await;
        for id in 1..200 {
            world.call(Caller::Member(id), "/shop/add", json!({})).await;
        }
        for _ in 0..50 {
            world.request("/shop/add", &[("token", "x")], "{}").await;
        }
        world.call(PARTNER, "/shop/list", json!({})).await;
        world.call(EMPLOYEE, "/business/list", json!({})).await;
        write_down(&world).await;
        let all = gathered(&world).await;
        let named = refused(&all[0]);
        assert_eq!((all.len(), named.len()), (1, MAX_NAMED));
        assert_eq!(named[..2], ["employee:1000 /business/list 1002 1", "partner:2 /shop/list 1002 1"]);
        assert!(named[2..].iter().all(|one| one.starts_with("member:")), "{named:?}");
        assert_eq!(all[0]["others"], 199 + 50 + 2 - MAX_NAMED);
        world.close().await;
    }

    async fn each_refusal_of_access_is_counted_and_no_other(engine: Engine) {
        let mut world = World::with_people(engine).await;
        account(&world, json!({"name": "boss", "role": "operator"})).await;
        let limits = LimitTable::parse(&["member-read=1/h".to_owned(), "audit=1/h".to_owned()]).unwrap();
        let gate = GateOptions { limits, ..GateOptions::default() };
        // Without anything shown nobody has tried anything.
        assert_eq!(world.request("/shop/list", &[], "{}").await.code(), 1001);
        assert_eq!(world.get(Caller::Auditor, "/v1/coupons/1").await.status, 404);
        assert_eq!(world.request("/nowhere", &[], "{}").await.code(), 9004);
        assert_eq!(world.operator("/member/get", json!({"id": 77})).await.code(), 310);
        write_down(&world).await;
        assert_eq!(gathered(&world).await, Vec::<Value>::new());

        world.request("/shop/list", &[("token", "cl1.a.b")], "{}").await;
        world.request("/shop/list", &[("cookie", "a=b; session=cs1.x")], "{}").await;
        world.request("/shop/list", &[("x-signature", "AAAA")], "{}").await;
        world.call(MEMBER, "/shop/list", json!({})).await;
        assert_eq!(world.get(EMPLOYEE, "/v1/events").await.status, 403);
        assert_eq!(world.get(EMPLOYEE, "/v1/coupons/7").await.status, 403);
        assert_eq!(sign_in(&world, "boss", "not the password").await.code(), 1003);
        assert_eq!(sign_in(&world, "nobody-of-this-name", "not the password").await.code(), 1003);
        // Who has left is known, and let do nothing.
        world.operator("/user/add", json!({"id": 1007, "name": "前員工", "shop_id": 1, "state": 0})).await.ok();
        assert_eq!(world.call(Caller::Employee(1007), "/shop/list", json!({})).await.code(), 1002);
        // A right that he would give and has not.
        world.operator("/office/add", json!({"title": "管"})).await.ok();
        world.operator("/office/setcompetence", json!({"id": 1, "competence_ids": "6"})).await.ok();
        world.operator("/user/edit", json!({"id": 1000, "office_id": 1})).await.ok();
        let more = json!({"id": 1, "competence_ids": "6,5"});
        assert_eq!(world.call(EMPLOYEE, "/office/setcompetence", more).await.code(), 1002);
        // Too many wrong gift codes, and too many questions.
        for id in 1..=11 {
            world.call(MEMBER, "/client/getcoupon", json!({"id": 900 + id, "code": 123_456})).await;
        }
        let watch = world.app.watch.clone();
        world.app = App::new(world.ledger.clone(), HttpOptions { gate, ..HttpOptions::default() });
        world.app.watch = watch;
        let router = world.app.router();
        for (path, caller) in [
            ("/client/couponcount", MEMBER), ("/client/couponcount", MEMBER), ("/v1/made/up", Caller::Auditor),
            ("/v1/made/up", Caller::Auditor), ("/v1/events", Caller::Auditor),
        ] {
            let bearer = format!("Bearer {}", world.token(caller));
            let request = Request::post(path).header("authorization", bearer).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        write_down(&world).await;
        let all = gathered(&world).await;
        assert_eq!(all.len(), 1);
        insta::allow_duplicates! {
            insta::assert_snapshot!("each_refusal_of_access", refused(&all[0]).join("\n"));
        }
        // What he was refused stands among what he did.
        let told = lines(&world.get(Caller::Auditor, "/v1/callers/employee:1007/events").await);
        let told: Vec<_> = told.iter().map(|line| line["type"].as_str().unwrap()).collect();
        assert_eq!(told, ["Gathered"]);
        assert_eq!(lines(&world.get(Caller::Auditor, "/v1/callers/employee:100/events").await).len(), 0);
        world.close().await;
    }

    async fn what_could_not_be_written_down_is_kept_for_the_next_time(engine: Engine) {
        let world = World::with_people(engine).await;
        world.call(MEMBER, "/shop/list", json!({})).await;
        // Another program has the ledger for a while; this one's writer has ended by then.
        world.home.sql("UPDATE log_head SET epoch = 2").await.unwrap();
        assert!(world.app.watch.write_down(&world.ledger).await.is_err());
        assert!(world.app.watch.write_down(&world.ledger).await.is_err());
        world.home.sql("UPDATE log_head SET epoch = 1").await.unwrap();
        world.advance(60_000);
        world.call(MEMBER, "/shop/list", json!({})).await;
        let again = Ledger::start(LedgerOptions {
            store: world.store().clone(),
            secrets: world.secrets.clone(),
            seal: world.ledger.seal().clone(),
            zone: world.ledger.zone(),
            clock: world.clock.clone(),
            capacity: 64,
        });
        // What may have arrived before is written as what it was, once; what was counted since is an event of its own.
        for _ in 0..2 {
            world.app.watch.write_down(&again).await.unwrap();
        }
        let all = gathered(&world).await;
        let told: Vec<_> = all.iter().map(refused).collect();
        assert_eq!(told, [["member:439 /shop/list 1002 1"], ["member:439 /shop/list 1002 1"]]);
        assert_eq!(all[1]["from_ms"].as_i64().unwrap() - all[0]["from_ms"].as_i64().unwrap(), 60_000);
        world.close().await;
    }

    async fn a_server_writes_down_at_its_end_what_it_has_refused(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        for _ in 0..300 {
            assert_eq!(api.call(MEMBER, "/shop/list", json!({})).await.code(), 1002);
        }
        assert_eq!(events(&home, "Gathered").await, 0);
        let pid = server.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
        assert!(server.child.wait().await.unwrap().success());
        let told = home.sql("SELECT CAST(payload AS TEXT) FROM events WHERE event_type = 'Gathered'").await.unwrap();
        assert_eq!(told.len(), 1);
        let told: Value = serde_json::from_str(&told[0]).unwrap();
        assert_eq!(refused(&told["Gathered"]), ["member:439 /shop/list 1002 300"]);
    }
}
