//! Keys in the place of others: what the old ones signed is good for a while, or no longer.

use coupon_ledger::clock::Zone;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::keys::follow;
use coupon_ledger::secrets::Secrets;
use serde_json::{Value, json};

use crate::archive::whole_log;
use crate::cli::finish;
use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, Home, MEMBER, Reply, Server, World, cli_token, program};
use crate::outside::{Api, events};

async fn rotate(world: &World, path: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await
}

/// The code of a call with this token.
async fn with_token(world: &World, token: &str) -> i64 {
    let bearer = format!("Bearer {token}");
    world.request("/client/couponcount", &[("authorization", &bearer)], "{}").await.code()
}

async fn audit_url(world: &World) -> String {
    world.operator("/shop/auditqrcode", json!({"id": 1})).await.ok()["url"].as_str().unwrap().to_owned()
}

async fn shop_of(world: &World, url: &str) -> i64 {
    world.call(MEMBER, "/client/shopid", json!({"audit_url": url})).await.code()
}

on_both_engines! {
    async fn a_token_of_the_key_before_is_good_for_as_long_as_was_said(engine: Engine) {
        let world = World::with_people(engine).await;
        let old = world.token(MEMBER);
        let rotated = rotate(&world, "/v1/keys/token?overlap_days=0").await;
        assert_eq!((rotated.status.as_u16(), &rotated.body["generation"]), (200, &json!(2)), "{}", rotated.body);
        let second = world.token(MEMBER);
        assert_eq!((with_token(&world, &old).await, with_token(&world, &second).await), (1001, 0));

        rotate(&world, "/v1/keys/token?overlap_days=2").await;
        let third = world.token(MEMBER);
        // They end by their own date as well.
        assert_eq!((with_token(&world, &second).await, with_token(&world, &third).await), (0, 0));
        world.advance(DAY - 1);
        follow(&world.ledger).await.unwrap();
        assert_eq!((with_token(&world, &second).await, with_token(&world, &third).await), (0, 0));
        let fresh = world.token(MEMBER);
        world.advance(DAY + 1);
        follow(&world.ledger).await.unwrap();
        assert_eq!((with_token(&world, &fresh).await, with_token(&world, &world.token(MEMBER)).await), (1001, 0));
        world.close().await;
    }

    async fn a_code_for_the_counter_ends_with_its_key(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let code = async || world.call(MEMBER, "/client/auditcode", json!({"id": id})).await.ok()["code"].clone();
        let scan = async |code: Value| world.call(EMPLOYEE, "/user/auditbycode", json!({"code": code})).await.code();
        let first = code().await;
        rotate(&world, "/v1/keys/token?overlap_days=0").await;
        assert_eq!(scan(first).await, 7005);
        let second = code().await;
        rotate(&world, "/v1/keys/token").await;
        assert_eq!(scan(second).await, 0);
        world.close().await;
    }

    async fn a_printed_qr_code_is_good_until_its_key_ends(engine: Engine) {
        let world = World::with_people(engine).await;
        let old = audit_url(&world).await;
        let rotated = rotate(&world, "/v1/keys/qr?overlap_days=365").await;
        let new = audit_url(&world).await;
        assert_ne!(old, new);
        assert_eq!((shop_of(&world, &old).await, shop_of(&world, &new).await), (0, 0));
        for (path, status) in [(old.as_str(), 200), (&new, 200), (&new.replace("/2.", "/3."), 404)] {
            let path = path.strip_prefix("http://127.0.0.1:8787").unwrap();
            assert_eq!(world.raw("GET", path, &[], Vec::new()).await.status.as_u16(), status, "{path}");
        }
        world.advance(365 * DAY);
        follow(&world.ledger).await.unwrap();
        assert_eq!((shop_of(&world, &old).await, shop_of(&world, &new).await), (2003, 0));
        assert_eq!(audit_url(&world).await, new, "{}", rotated.body);
        world.close().await;
    }

    async fn a_gift_keeps_its_code_whichever_key_came_since(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let (first, second) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let code = world.give(MEMBER, first).await;
        let rotated = rotate(&world, "/v1/keys/gift").await;
        assert_eq!(world.give(MEMBER, first).await, code);
        let receive = async |id: i64, code: i64| {
            world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.code()
        };
        assert_eq!(receive(first, code ^ 2).await, 7001);
        assert_eq!(receive(first, code).await, 0);
        assert_eq!(receive(first, code).await, 0);
        let code = world.give(MEMBER, second).await;
        let given = whole_log(&world).await.pop().unwrap();
        let payload: Value = serde_json::from_str(&given.payload).unwrap();
        assert_eq!(payload["Given"]["code_key"], rotated.body["key_id"]);
        assert_eq!(receive(second, code).await, 0);
        world.close().await;
    }

    /// It has the root secret, and all keys follow from that.
    async fn another_server_knows_a_new_key_before_it_is_told(engine: Engine) {
        let world = World::with_people(engine).await;
        let elsewhere = Secrets::from_root([42; 32]);
        rotate(&world, "/v1/keys/token").await;
        let token = world.token(MEMBER);
        assert!(Token::read(&token, &elsewhere).is_some());
        assert!(Token::read(&token, &Secrets::from_root([43; 32])).is_none());
        // And after a start it signs with it.
        let clock = world.clock.clone();
        let world = World::open(world.close().await, clock, Zone::default()).await;
        follow(&world.ledger).await.unwrap();
        assert!(world.token(MEMBER).contains(".2."));
        world.close().await;
    }

    async fn a_rotation_is_an_event_once_under_its_key_and_only_an_operators(engine: Engine) {
        let world = World::with_people(engine).await;
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let keyed = async |path: &str| {
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", "rotate-1")];
            world.raw("POST", path, &headers, Vec::new()).await
        };
        let first = keyed("/v1/keys/qr?overlap_days=7").await;
        let events = whole_log(&world).await;
        let event = events.last().unwrap();
        assert_eq!((event.aggregate_type.as_str(), event.event_type.as_str()), ("ledger", "KeyRotated"));
        let again = keyed("/v1/keys/qr?overlap_days=7").await;
        assert_eq!((&again.body, again.replayed()), (&first.body, true));
        assert_eq!(keyed("/v1/keys/qr?overlap_days=8").await.code(), 6001);
        let listed = world.get(Caller::Auditor, "/v1/keys").await.body["keys"].clone();
        let names: Vec<_> = listed.as_array().unwrap().iter().map(|key| (&key["key"], &key["generation"])).collect();
        assert_eq!(json!(names), json!([["token", 1], ["qr", 1], ["qr", 2], ["gift", 1]]));
        assert_eq!(listed[1]["accepted_until_ms"], world.clock.now_ms() + 7 * DAY);
        assert_eq!(listed[2]["key_id"], first.body["key_id"]);
        for wrong in ["?overlap_days=-1", "?overlap_days=3651", "?overlap_days=x", "?days=1"] {
            let refused = rotate(&world, &format!("/v1/keys/token{wrong}")).await;
            // A field that is not known is passed over, as everywhere.
            let expected = if wrong == "?days=1" { 200 } else { 400 };
            assert_eq!(refused.status.as_u16(), expected, "{wrong} {}", refused.body);
        }
        assert_eq!(rotate(&world, "/v1/keys/root").await.status.as_u16(), 400);
        for caller in [MEMBER, EMPLOYEE, Caller::Auditor, Caller::Partner(2)] {
            let bearer = format!("Bearer {}", world.token(caller));
            let headers = [("authorization", bearer.as_str())];
            let refused = world.raw("POST", "/v1/keys/token", &headers, Vec::new()).await;
            assert_eq!(refused.code(), 1002, "{caller}");
        }
        world.close().await;
    }

    async fn the_command_line_rotates_beside_the_server_and_signs_with_what_is_in_use(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/member/add", json!({"id": 439})).await.ok();
        let key = async |arguments: &[&str]| {
            let mut command = program(&home);
            command.arg("key").args(arguments);
            finish(command).await
        };
        let old = cli_token(&home, &["--member", "439"]).await;
        let asked = async |token: &str| {
            let url = format!("{}/client/couponcount", server.url);
            let asked = reqwest::Client::new().post(url).bearer_auth(token).json(&json!({})).send().await;
            asked.unwrap().json::<Value>().await.unwrap()["code"].as_i64().unwrap()
        };
        assert_eq!(asked(&old).await, 0);
        let first = key(&["rotate", "token", "--overlap-days", "0"]).await;
        assert_eq!(first.code, Some(0), "{}", first.err);
        // Whoever asks again on the same day means the same.
        assert_eq!(key(&["rotate", "token", "--overlap-days", "0"]).await.out, first.out);
        let new = cli_token(&home, &["--member", "439"]).await;
        if engine == Engine::Sqlite {
            // On PostgreSQL the command has done it without the server, which learns it with its housekeeping.
            assert_eq!(asked(&old).await, 1001);
        }
        assert_eq!(asked(&new).await, 0);
        let listed = key(&["list", "--all"]).await;
        let lines: Vec<_> = listed.out.lines().map(|line| line.split(' ').collect::<Vec<_>>()).collect();
        assert_eq!(lines[2][..3], ["token", "2", first.out.trim()], "{}", listed.out);
        assert_eq!((lines.len(), &lines[2][3..]), (5, ["in", "use"].as_slice()), "{}", listed.out);
        for wrong in [&["rotate", "gift", "--overlap-days", "1"], &["rotate", "qr", "--overlap-days", "3651"], &["rotate", "qr", "--overlap-days", "x"]] {
            assert_eq!(key(wrong).await.code, Some(2), "{wrong:?}");
        }
        server.kill().await;
        // Without a server as well.
        let qr = key(&["rotate", "qr"]).await;
        assert_eq!(qr.code, Some(0), "{}", qr.err);
        assert_eq!(events(&home, "KeyRotated").await, 2);
    }
}
