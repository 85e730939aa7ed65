//! Machines' keys: what they open and for how long, that nobody grants more than he has, and that no secret is kept.

use coupon_ledger::access::Principal;
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::{ExecuteError, Meta};
use coupon_ledger::machine_keys::{self, NewKey};
use coupon_ledger::refusal::Refusal;
use serde_json::{Value, json};

use crate::cli::finish;
use crate::harness::{EMPLOYEE, HOUR, Home, MEMBER, PARTNER, Reply, Server, World, program};

/// Issues a key with rights and, perhaps, a time to live.
async fn issue(world: &World, query: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let path = format!("/v1/machine-keys?{query}");
    world.raw("POST", &path, &[("authorization", &bearer)], Vec::new()).await
}

async fn key(world: &World, query: &str) -> String {
    let reply = issue(world, query).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.body["key"].as_str().unwrap().to_owned()
}

async fn revoke(world: &World, id: i64) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    world.raw("DELETE", &format!("/v1/machine-keys/{id}"), &[("authorization", &bearer)], Vec::new()).await
}

/// What a key is answered.
async fn with(world: &World, key: &str, route: &str, body: Value) -> Reply {
    world.request(route, &[("authorization", &format!("Bearer {key}"))], &body.to_string()).await
}

async fn add_tag(world: &World, key: &str) -> (i64, u16) {
    let reply = with(world, key, "/tag/add", json!({"tag_name": "常客"})).await;
    (reply.code(), reply.status.as_u16())
}

async fn listed(world: &World) -> Vec<Value> {
    world.get(Caller::Operator, "/v1/machine-keys").await.body["keys"].as_array().unwrap().clone()
}

const NOT_SIGNED_IN: (i64, u16) = (1001, 401);
const NOT_ALLOWED: (i64, u16) = (1002, 403);
const DONE: (i64, u16) = (0, 200);

fn meta(world: &World) -> Meta {
    Meta {
        caller: EMPLOYEE,
        at: world.ledger.now(),
        request_id: "test".to_owned(),
        receipt: None,
        job_id: None,
    }
}

on_both_engines! {
    async fn a_key_opens_what_its_rights_open_until_it_ends_or_is_revoked(engine: Engine) {
        let world = World::with_people(engine).await;
        let tags = key(&world, "name=till&rights=tags").await;
        let reads = key(&world, "name=report&rights=38&ttl_s=3600").await;
        assert_eq!(add_tag(&world, &tags).await, DONE);
        assert_eq!(add_tag(&world, &reads).await, NOT_ALLOWED);
        with(&world, &reads, "/tag/getlist", json!({})).await.ok();
        assert_eq!(with(&world, &tags, "/tag/getlist", json!({})).await.code(), 1002);
        // The manual's other header does as well.
        world.request("/tag/getlist", &[("token", &reads)], "{}").await.ok();
        for route in ["/client/couponlist", "/businesshome/get", "/token/revoke"] {
            assert_eq!(with(&world, &reads, route, json!({})).await.code(), 1002, "{route}");
        }
        world.advance(HOUR - 1);
        with(&world, &reads, "/tag/getlist", json!({})).await.ok();
        world.advance(1);
        assert_eq!(with(&world, &reads, "/tag/getlist", json!({})).await.code(), 1001);
        assert_eq!(add_tag(&world, &tags).await, DONE);
        let revoked = revoke(&world, 1).await;
        assert_eq!((revoked.status.as_u16(), &revoked.body["id"]), (200, &json!(1)));
        assert_eq!(add_tag(&world, &tags).await, NOT_SIGNED_IN);
        // Once more changes nothing, not even when it was.
        let position = crate::requests::head(&world).await;
        world.advance(HOUR);
        assert_eq!(revoke(&world, 1).await.body, revoked.body);
        assert_eq!(crate::requests::head(&world).await, position);
        assert_eq!((revoke(&world, 9).await.status.as_u16(), revoke(&world, 9).await.code()), (404, 2005));
        world.close().await;
    }

    async fn a_key_with_one_changed_character_is_nobodys(engine: Engine) {
        let world = World::with_people(engine).await;
        let good = key(&world, "name=till&rights=tags").await;
        key(&world, "name=other&rights=tags").await;
        for at in 0..good.len() {
            let mut other = good.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).unwrap();
            assert_eq!(add_tag(&world, &other).await, NOT_SIGNED_IN, "{other}");
        }
        let other_id = good.replacen("ck1.1.", "ck1.2.", 1);
        for other in
            [&other_id, &good[..good.len() - 1], "ck1.", "ck1.1.", "ck1.1", &format!("{good}A"), &"ck1.1.".repeat(2_000)]
        {
            assert_eq!(add_tag(&world, other).await, NOT_SIGNED_IN, "{other}");
        }
        // Nor is a token a key, whoever it names.
        let token = Token::new(Caller::Machine(1), world.clock.now_ms(), 60).sign(&world.secrets);
        assert_eq!(add_tag(&world, &token).await, NOT_SIGNED_IN);
        assert_eq!(add_tag(&world, &good).await, DONE);
        world.close().await;
    }

    async fn no_secret_is_kept_and_a_key_is_shown_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "issue-it")];
        let ask = async |name: &str| {
            let path = format!("/v1/machine-keys?name={name}&rights=tags");
            world.raw("POST", &path, &headers, Vec::new()).await
        };
        let first = ask("till").await;
        let key = first.body["key"].as_str().unwrap().to_owned();
        let again = ask("till").await;
        assert!(again.replayed());
        assert_eq!((&again.body["id"], &again.body["key"]), (&first.body["id"], &Value::Null));
        let other = ask("other").await;
        assert_eq!((other.status.as_u16(), other.code()), (409, 6001));
        assert_eq!(add_tag(&world, &key).await, DONE);
        assert_eq!(listed(&world).await.len(), 1);

        let secret = key.rsplit_once('.').unwrap().1;
        let mut kept = String::new();
        for sql in [
            "SELECT payload FROM events",
            "SELECT metadata FROM events",
            "SELECT request_mac FROM receipts",
            "SELECT name FROM machines_v1",
            "SELECT secret_hash FROM machine_keys",
        ] {
            kept.push_str(&world.home.sql(sql).await.unwrap().join("\n"));
        }
        assert!(kept.contains("\"till\""), "{kept}");
        assert!(!kept.contains(secret), "{kept}");
        let lists = Value::from(listed(&world).await).to_string();
        assert!(!lists.contains(secret) && !lists.contains("hash"), "{lists}");
        // Without what stands beside the log a key opens nothing: a ledger that is made of an export has none.
        world.home.sql("DELETE FROM machine_keys").await.unwrap();
        assert_eq!(add_tag(&world, &key).await, NOT_SIGNED_IN);
        assert_eq!(listed(&world).await[0]["holds"], false);
        world.close().await;
    }

    async fn when_a_key_was_used_is_noted_once_a_minute(engine: Engine) {
        let world = World::with_people(engine).await;
        let key = key(&world, "name=till&rights=tags").await;
        let used = async || listed(&world).await[0]["last_used_at_ms"].clone();
        assert_eq!(used().await, Value::Null);
        let first = world.clock.now_ms();
        add_tag(&world, &key).await;
        world.advance(59_999);
        add_tag(&world, &key).await;
        assert_eq!(used().await, first);
        world.advance(1);
        // What it may not do is a use as well.
        assert_eq!(with(&world, &key, "/shop/list", json!({})).await.code(), 1002);
        assert_eq!(used().await, first + 60_000);
        world.close().await;
    }

    async fn nobody_grants_a_machine_what_he_has_not_himself(engine: Engine) {
        let world = World::with_people(engine).await;
        for caller in [MEMBER, EMPLOYEE, PARTNER, Caller::Auditor] {
            let bearer = format!("Bearer {}", world.token(caller));
            let path = "/v1/machine-keys?name=till&rights=tags";
            let reply = world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (403, 1002), "{caller}");
        }
        let machine = key(&world, "name=till&rights=tags").await;
        let bearer = format!("Bearer {machine}");
        let path = "/v1/machine-keys?name=mine&rights=tags";
        let reply = world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!((reply.status.as_u16(), reply.code()), (403, 1002));
        // Where the table will let others issue some day, this holds them.
        let clerk = Principal::employee(1000, 1, false, vec![9]);
        let new = |rights: Vec<i64>| NewKey { name: "收銀機".to_owned(), rights, ttl_s: None };
        let refused = machine_keys::issue(&world.ledger, &clerk, new(vec![9, 4]), &meta(&world)).await;
        assert!(matches!(refused, Err(ExecuteError::Refused(Refusal::RightNotHeld))), "{refused:?}");
        machine_keys::issue(&world.ledger, &clerk, new(vec![9]), &meta(&world)).await.unwrap();
        world.close().await;
    }

    async fn the_log_tells_what_a_machine_was_given_and_did(engine: Engine) {
        let world = World::with_people(engine).await;
        let key = key(&world, "name=till&rights=orders,definitions").await;
        let defined = with(&world, &key, "/elecoupons/add", crate::harness::definition(json!({}))).await;
        defined.ok();
        revoke(&world, 1).await;
        let deeds = world.get(Caller::Auditor, "/v1/callers/machine:1/events").await;
        let deeds = crate::v1::lines(&deeds);
        assert_eq!((deeds.len(), &deeds[0]["type"], &deeds[0]["caller"]), (1, &json!("Defined"), &json!("machine:1")));
        let told = world.get(Caller::Auditor, "/v1/streams/machine_key/1/history").await;
        let words: Vec<Value> =
            crate::v1::lines(&told).into_iter().map(|line| line["words"].clone()).collect();
        assert_eq!(
            words,
            [json!("key issued to machine \"till\" with rights 31, 35"), json!("key revoked")]
        );
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_key_that_is_asked_for_wrongly_is_not_issued(engine: Engine) {
        let world = World::with_people(engine).await;
        for (query, field) in [
            ("rights=tags", "name"),
            ("name=%20&rights=tags", "name"),
            ("name=a%00b&rights=tags", "name"),
            ("name=till", "rights"),
            ("name=till&rights=", "rights"),
            ("name=till&rights=tags,everything", "rights"),
            ("name=till&rights=tags%3Bread", "rights"),
            ("name=till&rights=1", "rights"),
            ("name=till&rights=tags&ttl_s=59", "ttl_s"),
            ("name=till&rights=tags&ttl_s=x", "ttl_s"),
            ("name=till&rights=tags&ttl_s=9223372036854775807", "ttl_s"),
        ] {
            let reply = issue(&world, query).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{query}");
            assert!(reply.body["info"].get(field).is_some(), "{query}: {}", reply.body);
        }
        assert_eq!(listed(&world).await, Vec::<Value>::new());
        world.close().await;
    }

    async fn the_command_line_issues_lists_and_revokes_beside_a_server_and_without(engine: Engine) {
        let home = Home::new(engine).await;
        let run = async |arguments: &[&str]| {
            let mut command = program(&home);
            command.arg("machine").args(arguments);
            finish(command).await
        };
        let issued = run(&["add", "--name", "till", "--rights", "tags", "--ttl", "30d"]).await;
        assert_eq!(issued.code, Some(0), "{issued:?}");
        let key = issued.out.trim().to_owned();
        assert!(key.starts_with("ck1.") && key.lines().count() == 1, "{key}");
        let server = Server::start(&home, &[]).await;
        let asked = async |key: &str| crate::cli::post(&server, key, "/tag/getlist", json!({})).await.1["code"].clone();
        assert_eq!(asked(&key).await, 1002);
        let reader = run(&["add", "--name", "日報 & 1", "--rights", "read"]).await;
        assert_eq!(reader.code, Some(0), "{reader:?}");
        assert_eq!(asked(reader.out.trim()).await, 0);
        let list = run(&["list"]).await;
        let lines: Vec<Value> = list.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["name"], &lines[1]["rights"]), (&json!("日報 & 1"), &json!(["tags"])));
        assert!(!list.out.contains(key.rsplit_once('.').unwrap().1));
        let id = lines[0]["id"].to_string();
        assert_eq!(run(&["revoke", &id]).await.code, Some(0));
        assert_eq!(asked(reader.out.trim()).await, 1001);
        assert_eq!(run(&["revoke", "999"]).await.code, Some(1));
        for wrong in [["add", "--name", "till", "--rights", "everything"], ["add", "--name", " ", "--rights", "tags"]] {
            assert_eq!(run(&wrong).await.code, Some(2), "{wrong:?}");
        }
        server.kill().await;
    }
}
