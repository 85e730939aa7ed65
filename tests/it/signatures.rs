//! Partners' signed requests: a good one is the partner's, once; whatever is wrong with another is never told.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::directory::forget_nonces;
use coupon_ledger::http::HttpOptions;
use coupon_ledger::http::routes::ALL;
use coupon_ledger::identity::Caller;
use coupon_ledger::signed_request::{HEADERS, message};
use coupon_ledger::value::hex;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use crate::cli::finish;
use crate::harness::{Engine, Home, NOON, PARTNER, Reply, Server, World, program};
use crate::leaks::everywhere;

/// What is signed, and what is sent beside it.
#[derive(Clone)]
struct Ask {
    partner: String,
    method: &'static str,
    path: String,
    time: String,
    nonce: String,
    body: String,
}

impl Ask {
    fn new(world: &World, nonce: &str, body: &Value) -> Self {
        Self {
            partner: "2".to_owned(),
            method: "POST",
            path: "/businesshome/auditcoupon".to_owned(),
            time: (world.clock.now_ms() / 1000).to_string(),
            nonce: format!("{nonce:0>16}"),
            body: body.to_string(),
        }
    }

    fn signed(&self, key: &SigningKey) -> String {
        let partner = self.partner.parse().unwrap();
        let message =
            message(partner, self.method, &self.path, &self.time, &self.nonce, self.body.as_bytes());
        STANDARD.encode(key.sign(message.as_bytes()).to_bytes())
    }

    async fn send(&self, world: &World, signature: &str) -> Reply {
        let values = [self.partner.as_str(), &self.time, &self.nonce, signature];
        let headers: Vec<(&str, &str)> = HEADERS.into_iter().zip(values).collect();
        world.raw(self.method, &self.path, &headers, self.body.clone().into_bytes()).await
    }
}

fn key(seed: u8) -> SigningKey {
    let private =
        std::array::from_fn(|place| seed.wrapping_mul(29).wrapping_add((place as u8).wrapping_mul(37)));
    everywhere(&STANDARD.encode(private));
    everywhere(&coupon_ledger::value::hex(&private));
    SigningKey::from_bytes(&private)
}

fn public(key: &SigningKey) -> String {
    STANDARD.encode(key.verifying_key().as_bytes())
}

async fn as_operator(world: &World, method: &str, path: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    world.raw(method, path, &[("authorization", &bearer)], Vec::new()).await
}

async fn register(world: &World, partner: i64, public_key: &str) -> Reply {
    let public_key: String = form_urlencoded::byte_serialize(public_key.as_bytes()).collect();
    let path = format!("/v1/partner-keys?partner_id={partner}&public_key={public_key}");
    as_operator(world, "POST", &path).await
}

/// Partners 2 and 3, each with a key: key(2) and key(3).
async fn partners(engine: Engine) -> World {
    let world = World::with_people(engine).await;
    for (id, seed) in [("2", 2), ("3", 3)] {
        let partner = json!({"shop_name": "隔壁", "phone": "1", "address": "a"});
        assert_eq!(world.operator("/business/add", partner).await.ok()["id"], id);
        let registered = register(&world, seed.into(), &public(&key(seed))).await;
        assert_eq!((registered.status.as_u16(), &registered.body["partner_id"]), (200, &json!(seed)));
    }
    world
}

#[track_caller]
fn assert_nobody(reply: &Reply, what: &str) {
    assert_eq!((reply.code(), reply.status.as_u16()), (1001, 401), "{what}: {}", reply.body);
    assert_eq!((reply.data(), &reply.body["info"]), (&Value::Null, &json!("未登錄或登錄已過期")), "{what}");
}

on_both_engines! {
    async fn a_signed_request_is_the_partners_and_reaches_to_his_own_only(engine: Engine) {
        let world = partners(engine).await;
        let days = json!({"strar": "2026-11-01", "end": "2026-11-30"});
        let ask = Ask::new(&world, "1", &days);
        let signed = ask.send(&world, &ask.signed(&key(2))).await;
        let with_token = world.call(PARTNER, "/businesshome/auditcoupon", days).await;
        assert_eq!((signed.code(), &signed.body), (0, &with_token.body));
        // What a partner may not he may not by a signature either.
        for (number, route) in ALL.iter().filter(|route| !crate::access::may(PARTNER, route.path)).enumerate() {
            let path = route.path.to_owned();
            let ask = Ask { path, ..Ask::new(&world, &format!("route{number}"), &json!({})) };
            let reply = ask.send(&world, &ask.signed(&key(2))).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (1002, 403), "{}", route.path);
        }
        world.close().await;
    }

    async fn whatever_is_changed_of_a_signed_request_it_is_nobodys(engine: Engine) {
        let world = partners(engine).await;
        let ask = Ask::new(&world, "1", &json!({"strar": "2026-11-01", "end": "2026-11-30"}));
        let good = ask.signed(&key(2));
        for at in 0..good.len() {
            for bit in 0..7 {
                let mut other = good.clone().into_bytes();
                other[at] ^= 1 << bit;
                if other[at].is_ascii_graphic() {
                    let other = String::from_utf8(other).unwrap();
                    assert_nobody(&ask.send(&world, &other).await, &other);
                }
            }
        }
        let with = |change: &dyn Fn(&mut Ask)| {
            let mut other = ask.clone();
            change(&mut other);
            other
        };
        let others = [
            with(&|ask| "3".clone_into(&mut ask.partner)),
            with(&|ask| "4".clone_into(&mut ask.partner)),
            with(&|ask| "02".clone_into(&mut ask.partner)),
            with(&|ask| "/businesshome/attractcoupon".clone_into(&mut ask.path)),
            with(&|ask| "/businesshome/auditcoupon?x=1".clone_into(&mut ask.path)),
            with(&|ask| ask.time = (NOON / 1000 + 1).to_string()),
            with(&|ask| ask.time = format!("0{}", NOON / 1000)),
            with(&|ask| ask.nonce.push('1')),
            with(&|ask| "short".clone_into(&mut ask.nonce)),
            with(&|ask| ask.body.push(' ')),
            with(&|ask| ask.body = ask.body.replace("11-01", "11-02")),
            with(&|ask| ask.body = String::new()),
        ];
        for other in &others {
            let what = format!("{} {} {} {} {}", other.partner, other.path, other.time, other.nonce, other.body);
            assert_nobody(&other.send(&world, &good).await, &what);
        }
        // Each bit of the body.
        for at in 0..ask.body.len() {
            let other = with(&|ask| {
                let mut body = ask.body.clone().into_bytes();
                body[at] ^= 1;
                ask.body = String::from_utf8(body).unwrap();
            });
            assert_nobody(&other.send(&world, &good).await, &other.body);
        }
        assert_nobody(&ask.send(&world, &ask.signed(&key(3))).await, "another partner's key");
        assert_nobody(&ask.send(&world, "").await, "no signature");
        assert_nobody(&ask.send(&world, &STANDARD.encode([0; 64])).await, "zeros");
        // None of that has used the nonce up.
        ask.send(&world, &good).await.ok();
        world.close().await;
    }

    async fn headers_that_are_missing_doubled_or_beside_a_token_open_nothing(engine: Engine) {
        let world = partners(engine).await;
        let ask = Ask::new(&world, "1", &json!({}));
        let signature = ask.signed(&key(2));
        let values = [ask.partner.as_str(), &ask.time, &ask.nonce, &signature];
        let all: Vec<(&str, &str)> = HEADERS.into_iter().zip(values).collect();
        let body = || ask.body.clone().into_bytes();
        for left_out in &HEADERS[..3] {
            let some: Vec<_> = all.iter().copied().filter(|(name, _)| name != left_out).collect();
            assert_nobody(&world.raw("POST", &ask.path, &some, body()).await, left_out);
        }
        for doubled in &all {
            let more = [all.as_slice(), &[*doubled]].concat();
            assert_nobody(&world.raw("POST", &ask.path, &more, body()).await, doubled.0);
        }
        // A signature that does not hold is not made good by a token.
        let bearer = format!("Bearer {}", world.token(PARTNER));
        let other = Ask { nonce: "another-nonce-16".to_owned(), ..ask.clone() };
        let mut both: Vec<(&str, &str)> =
            HEADERS.into_iter().zip([other.partner.as_str(), &other.time, &other.nonce, &signature]).collect();
        both.push(("authorization", &bearer));
        assert_nobody(&world.raw("POST", &ask.path, &both, body()).await, "a token beside");
        // Without a signature the other headers say nothing.
        let mut token = all[..3].to_vec();
        token.push(("authorization", &bearer));
        assert_eq!(world.raw("POST", "/businesshome/get", &token, b"{}".to_vec()).await.code(), 0);
        // Nor can anybody have a body read that is too large for it.
        let large = Ask { body: "x".repeat(70_000), ..ask.clone() };
        let reply = large.send(&world, &large.signed(&key(2))).await;
        assert_eq!((reply.code(), reply.status.as_u16()), (401, 413));
        let unknown = Ask { partner: "9".to_owned(), ..large };
        assert_nobody(&unknown.send(&world, &signature).await, "a partner without keys");
        world.close().await;
    }

    async fn a_nonce_is_good_once_on_every_server_until_its_time_is_over(engine: Engine) {
        let world = partners(engine).await;
        let ask = Ask::new(&world, "1", &json!({}));
        let signature = ask.signed(&key(2));
        let path = "/businesshome/get".to_owned();
        let ask = Ask { path, ..ask };
        let signature_of_path = ask.signed(&key(2));
        assert_nobody(&ask.send(&world, &signature).await, "another path's");
        ask.send(&world, &signature_of_path).await.ok();
        assert_nobody(&ask.send(&world, &signature_of_path).await, "once more");
        // Another partner may use the same, and a restart forgets nothing.
        let other = Ask { partner: "3".to_owned(), ..ask.clone() };
        other.send(&world, &other.signed(&key(3))).await.ok();
        let home = world.close().await;
        let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
        assert_nobody(&ask.send(&world, &signature_of_path).await, "after a restart");
        // Of many at once one is answered.
        let many = Ask { nonce: "many-at-once-0001".to_owned(), ..ask.clone() };
        let signature = many.signed(&key(2));
        let replies = futures::future::join_all((0..20).map(|_| many.send(&world, &signature))).await;
        assert_eq!(replies.iter().filter(|reply| reply.code() == 0).count(), 1);
        assert_eq!(replies.iter().filter(|reply| reply.code() == 1001).count(), 19);
        // Forgotten once its time cannot be accepted any more, and no sooner.
        world.advance(600_000);
        assert_eq!(forget_nonces(world.store(), world.clock.now_ms()).await.unwrap(), 0);
        world.advance(20_000);
        assert_eq!(forget_nonces(world.store(), world.clock.now_ms()).await.unwrap(), 3);
        assert_nobody(&ask.send(&world, &signature_of_path).await, "long after");
        world.close().await;
    }

    async fn what_was_signed_too_long_ago_or_too_far_ahead_is_nobodys(engine: Engine) {
        let world = partners(engine).await;
        for (number, (by, good)) in
            [(-301, false), (-300, true), (300, true), (301, false), (3_600, false), (-3_600, false)].iter().enumerate()
        {
            let path = "/businesshome/get".to_owned();
            let time = (NOON / 1000 + by).to_string();
            let ask = Ask { path, time, ..Ask::new(&world, &format!("time{number}"), &json!({})) };
            let reply = ask.send(&world, &ask.signed(&key(2))).await;
            assert_eq!(reply.code(), if *good { 0 } else { 1001 }, "{by}: {}", reply.body);
        }
        for time in ["", "-1", "0", "x", "1e9", "9007199254740993", "99999999999999999999"] {
            let ask = Ask { time: time.to_owned(), ..Ask::new(&world, "odd", &json!({})) };
            assert_nobody(&ask.send(&world, &ask.signed(&key(2))).await, time);
        }
        world.close().await;
    }

    async fn keys_follow_each_other_and_a_revoked_one_signs_nothing(engine: Engine) {
        let world = partners(engine).await;
        let get = async |seed: u8, nonce: &str| {
            let path = "/businesshome/get".to_owned();
            let ask = Ask { path, ..Ask::new(&world, nonce, &json!({})) };
            ask.send(&world, &ask.signed(&key(seed))).await.code()
        };
        let hexadecimal = hex(key(4).verifying_key().as_bytes());
        let registered = register(&world, 2, &hexadecimal).await;
        assert_eq!(registered.body["public_key"], public(&key(4)));
        assert_eq!([get(2, "a").await, get(4, "b").await], [0, 0]);
        let revoked = as_operator(&world, "DELETE", "/v1/partner-keys/1").await;
        assert_eq!(revoked.status, 200);
        assert_eq!([get(2, "c").await, get(4, "d").await], [1001, 0]);
        let again = as_operator(&world, "DELETE", "/v1/partner-keys/1").await;
        assert_eq!(again.body, revoked.body);
        assert_eq!(as_operator(&world, "DELETE", "/v1/partner-keys/99").await.code(), 2005);
        // Bad ones are not taken, nor one that is there, nor a fifth, nor one for who is no partner.
        for (partner, wrong) in [
            (2, String::new()),
            (2, "AAAA".to_owned()),
            (2, "00".repeat(32)),
            (2, public(&key(4))),
            (0, public(&key(5))),
        ] {
            let field = if partner == 0 { "partner_id" } else { "public_key" };
            let reply = register(&world, partner, &wrong).await;
            assert_eq!(reply.code(), 401, "{wrong}: {}", reply.body);
            assert!(reply.body["info"].get(field).is_some(), "{wrong}: {}", reply.body);
        }
        for partner in [1, 99] {
            assert_eq!(register(&world, partner, &public(&key(5))).await.code(), 2005, "{partner}");
        }
        for seed in 5..8 {
            assert_eq!(register(&world, 2, &public(&key(seed))).await.status, 200);
        }
        assert_eq!(register(&world, 2, &public(&key(8))).await.code(), 401);
        let keys = world.get(Caller::Auditor, "/v1/partner-keys?partner_id=2").await;
        assert_eq!(keys.body["keys"].as_array().unwrap().len(), 5);
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn under_a_base_path_the_path_is_signed_that_was_asked_for(engine: Engine) {
        let mut world = partners(engine).await;
        world.set_options(HttpOptions { base_path: "/alias/api/v1".to_owned(), ..HttpOptions::default() });
        let path = "/alias/api/v1/businesshome/get".to_owned();
        let ask = Ask { path, ..Ask::new(&world, "1", &json!({})) };
        ask.send(&world, &ask.signed(&key(2))).await.ok();
        let bare = Ask { path: "/businesshome/get".to_owned(), ..ask.clone() };
        assert_nobody(&ask.send(&world, &bare.signed(&key(2))).await, "the path without its base");
        world.close().await;
    }

    async fn the_command_line_registers_lists_and_revokes_beside_a_server_and_without(engine: Engine) {
        let home = Home::new(engine).await;
        let run = async |arguments: &[&str]| {
            let mut command = program(&home);
            command.arg("partner-key").args(arguments);
            finish(command).await
        };
        let add = async |partner: &str, seed: u8| {
            run(&["add", "--partner", partner, "--public-key", &public(&key(seed))]).await
        };
        assert_eq!(add("1", 1).await.code, Some(1), "there is no such partner");
        let server = Server::start(&home, &[]).await;
        let operator = crate::harness::cli_token(&home, &["--operator"]).await;
        let partner = json!({"shop_name": "隔壁", "phone": "1", "address": "a"});
        crate::cli::post(&server, &operator, "/business/add", partner).await;
        let added = add("1", 1).await;
        assert_eq!(added.code, Some(0), "{added:?}");
        server.kill().await;
        assert_eq!(add("1", 2).await.code, Some(0));
        let id = serde_json::from_str::<Value>(&added.out).unwrap()["id"].to_string();
        assert_eq!(run(&["revoke", &id]).await.code, Some(0));
        let list = run(&["list"]).await;
        let keys: Vec<Value> = list.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((keys.len(), &keys[1]["public_key"]), (2, &json!(public(&key(1)))));
        assert!(keys[1]["revoked_at_ms"].is_i64() && keys[0]["revoked_at_ms"].is_null());
        for wrong in ["", "AAAA", "x"] {
            assert_eq!(run(&["add", "--partner", "1", "--public-key", wrong]).await.code, Some(2), "{wrong}");
        }
    }
}

/// The key, the message and the signature that docs/security.md gives, made there with openssl.
#[test]
fn the_documented_example_is_what_is_checked() {
    let text = crate::docs::read("docs/security.md");
    let seed: [u8; 32] = std::array::from_fn(|place| place as u8);
    let key = SigningKey::from_bytes(&seed);
    assert!(text.contains(&public(&key)), "the public key");
    let body = br#"{"page":1,"limit":10}"#;
    let path = "/businesshome/auditcoupon";
    let message = message(2, "POST", path, "1795406400", "0123456789abcdef0123", body);
    assert!(text.contains(&message), "the message: {message}");
    let signature = STANDARD.encode(key.sign(message.as_bytes()).to_bytes());
    assert!(text.contains(&signature), "the signature: {signature}");
}
