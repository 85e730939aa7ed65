//! Accounts: signing in and out, guessing, sessions, codes, second factors. What the log says of them, and what it does not.

use std::process::Stdio;

use coupon_ledger::account::{Account, AccountCommand, AccountEvent, AccountRole, NewSession};
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::facts::Facts;
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::{Caller, SessionToken};
use coupon_ledger::refusal::Refusal;
use coupon_ledger::secrets::{PasswordCode, Secrets};
use coupon_ledger::sign_in::{CODE_HOLDS_MS, TOTP_STEP_MS, totp_code};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::harness::{EMPLOYEE, Engine, HOUR, Home, NOON, Reply, Server, World, program};
use crate::leaks::everywhere;
use crate::outside::until;

pub const PASSWORD: &str = "correct horse battery";

const MINUTE: i64 = 60_000;

/// Creates an account and returns the code by which its password is chosen.
pub async fn invite(world: &World, body: Value) -> String {
    world.operator("/account/add", body).await.ok()["code"].as_str().unwrap().to_owned()
}

/// Creates an account with [`PASSWORD`] and returns its id.
pub async fn account(world: &World, body: Value) -> i64 {
    let code = invite(world, body).await;
    choose(world, json!({"code": code, "password": PASSWORD})).await.ok()["id"].as_i64().unwrap()
}

async fn choose(world: &World, body: Value) -> Reply {
    world.request("/user/setpassword", &[], &body.to_string()).await
}

pub async fn sign_in(world: &World, name: &str, password: &str) -> Reply {
    let body = json!({"name": name, "password": password});
    world.request("/user/login", &[], &body.to_string()).await
}

/// The token of a session that begins.
async fn token(world: &World, name: &str) -> String {
    sign_in(world, name, PASSWORD).await.ok()["token"].as_str().unwrap().to_owned()
}

async fn boss(world: &World) -> i64 {
    account(world, json!({"name": "boss", "role": "operator"})).await
}

async fn clerk(world: &World) -> i64 {
    account(world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await
}

async fn with(world: &World, token: &str, route: &str, body: Value) -> Reply {
    let bearer = format!("Bearer {token}");
    world.request(route, &[("authorization", &bearer)], &body.to_string()).await
}

/// Whether a session lets its owner list shops, as every kind of account may.
async fn holds(world: &World, token: &str) -> bool {
    match with(world, token, "/shop/list", json!({})).await.code() {
        0 => true,
        1001 => false,
        other => panic!("{other}"),
    }
}

async fn tries(world: &World) -> Vec<String> {
    world.home.sql("SELECT tries FROM sign_in_tries ORDER BY tries").await.unwrap()
}

/// Another server on the same PostgreSQL.
async fn another_server(world: &World) -> World {
    let home = world.home.beside(world.home.database_url.clone().unwrap());
    World::open(home, world.clock.clone(), Zone::default()).await
}

async fn events_of(world: &World) -> Vec<(String, Value)> {
    let events = world.store().events_after(0, i64::MAX).await.unwrap();
    let of_accounts = events.into_iter().filter(|event| event.aggregate_type == "account");
    of_accounts.map(|event| (event.event_type, serde_json::from_str(&event.metadata).unwrap())).collect()
}

fn refused_alike(reply: &Reply) -> (u16, &Value) {
    assert_eq!(reply.code(), 1003, "{}", reply.body);
    (reply.status.as_u16(), &reply.body)
}

on_both_engines! {
    async fn who_signs_in_may_what_his_role_may_and_events_say_who_it_was(engine: Engine) {
        let world = World::with_people(engine).await;
        let boss = boss(&world).await;
        clerk(&world).await;
        let auditor = account(&world, json!({"name": "eye", "role": "auditor"})).await;
        let session = sign_in(&world, "Boss", PASSWORD).await.ok().clone();
        assert_eq!([&session["role"], &session["name"], &session["id"]], [&json!("operator"), &json!("boss"), &json!(boss)]);
        let operator = session["token"].as_str().unwrap();
        let shop = json!({"shop_name": "二店", "phone": "2", "address": "b"});
        with(&world, operator, "/shop/add", shop.clone()).await.ok();
        world.request("/shop/add", &[("token", operator)], &shop.to_string()).await.ok();
        let last = world.store().events_after(0, i64::MAX).await.unwrap().pop().unwrap();
        let metadata: Value = serde_json::from_str(&last.metadata).unwrap();
        assert_eq!([&metadata["caller"], &metadata["caller_kind"]], [&json!(format!("operator:{boss}")), &json!("operator")]);
        let deeds = world.get(Caller::Auditor, &format!("/v1/callers/operator:{boss}/events")).await;
        assert_eq!(deeds.body.as_str().unwrap().matches("\"Opened\"").count(), 2, "{}", deeds.body);

        let employee = token(&world, "clerk").await;
        assert_eq!(with(&world, &employee, "/shop/add", shop.clone()).await.code(), 1002);
        with(&world, &employee, "/user/auditelecouponlist", json!({"member_id": 439})).await.ok();
        let eye = token(&world, "eye").await;
        assert_eq!(with(&world, &eye, "/shop/add", shop).await.code(), 1002);
        with(&world, &eye, "/account/list", json!({})).await.ok();
        let callers: Vec<Value> = events_of(&world).await.into_iter().filter(|(name, _)| name == "SignedIn")
            .map(|(_, metadata)| metadata["caller"].clone()).collect();
        assert_eq!(callers, [json!(format!("operator:{boss}")), json!("employee:1000"), json!(format!("auditor:{auditor}"))]);
        // Tokens from the command line go on.
        world.operator("/shop/list", json!({})).await.ok();
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn whoever_is_not_let_in_is_not_told_why(engine: Engine) {
        let world = World::with_people(engine).await;
        boss(&world).await;
        let off = account(&world, json!({"name": "off", "role": "auditor"})).await;
        world.operator("/account/state", json!({"id": off, "state": 0})).await.ok();
        invite(&world, json!({"name": "fresh", "role": "auditor"})).await;
        let wrong = sign_in(&world, "boss", "wrong horse battery").await;
        for (name, password) in [
            ("nobody", PASSWORD), ("off", PASSWORD), ("fresh", PASSWORD), ("fresh", "12345678901"), ("boss", "short"),
            ("bоss", PASSWORD), ("老闆", PASSWORD), ("' OR 1=1 --", PASSWORD), ("boss\t", "correct horse battery "),
        ] {
            let reply = sign_in(&world, name, password).await;
            assert_eq!(refused_alike(&reply), refused_alike(&wrong), "{name}");
            assert!(!reply.headers.contains_key("retry-after") && !reply.headers.contains_key("set-cookie"));
        }
        // Nor does being locked tell whether there is such an account.
        let mut answers = Vec::new();
        for name in ["eye", "boss"] {
            let mut of_name = Vec::new();
            for _ in 0..if name == "boss" { 4 } else { 6 } {
                let reply = sign_in(&world, name, "wrong horse battery").await;
                of_name.push((reply.body.clone(), reply.headers.get("retry-after").cloned()));
            }
            answers.push(of_name.split_off(of_name.len() - 2));
        }
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0][1].1.as_ref().unwrap(), "60");
        world.close().await;
    }

    async fn wrong_tries_lock_for_a_minute_and_then_for_twice_as_long_and_restarts_do_not_help(engine: Engine) {
        let mut world = World::with_people(engine).await;
        boss(&world).await;
        let retry_after = |reply: &Reply| {
            reply.headers.get("retry-after").map_or(0, |seconds| seconds.to_str().unwrap().parse::<i64>().unwrap())
        };
        for expected in [0, 0, 0, 0, 60] {
            assert_eq!(retry_after(&sign_in(&world, "boss", "wrong horse battery").await), expected);
        }
        let locks = async |world: &World| events_of(world).await.iter().filter(|(name, _)| name == "Locked").count();
        for (already, minutes) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
            until("it is written down", async || locks(&world).await == already).await;
            // Not even the right one.
            let locked = sign_in(&world, "boss", PASSWORD).await;
            assert_eq!((locked.code(), retry_after(&locked)), (1003, minutes * 60));
            let clock = world.clock.clone();
            world = World::open(world.close().await, clock, Zone::default()).await;
            world.advance(minutes * MINUTE - 1);
            assert_eq!(retry_after(&sign_in(&world, "boss", PASSWORD).await), 1);
            world.advance(1);
            let wrong = sign_in(&world, "boss", "wrong horse battery").await;
            assert_eq!(retry_after(&wrong), (minutes * 2).min(60) * 60);
        }
        until("it is written down", async || locks(&world).await == 9).await;
        world.advance(HOUR);
        // The right one ends it, and the tries begin anew.
        sign_in(&world, "boss", PASSWORD).await.ok();
        assert_eq!(tries(&world).await, Vec::<String>::new());
        for _ in 0..4 {
            sign_in(&world, "boss", "wrong horse battery").await;
        }
        sign_in(&world, "boss", PASSWORD).await.ok();
        assert_eq!(locks(&world).await, 9, "tries below the bound are no events");
        world.close().await;
    }

    async fn tries_are_forgotten_a_day_after_the_last_one(engine: Engine) {
        let world = World::with_people(engine).await;
        for _ in 0..4 {
            sign_in(&world, "nobody", PASSWORD).await;
        }
        world.advance(24 * HOUR + 1);
        sign_in(&world, "nobody", PASSWORD).await;
        assert_eq!(tries(&world).await, ["1"]);
        let clear = coupon_ledger::directory::clear_ended_sessions;
        clear(world.store(), world.clock.now_ms()).await.unwrap();
        assert_eq!(tries(&world).await, ["1"]);
        clear(world.store(), world.clock.now_ms() + 24 * HOUR + 1).await.unwrap();
        assert_eq!(tries(&world).await, Vec::<String>::new());
        world.close().await;
    }

    async fn of_fifty_guesses_at_once_five_are_looked_at(engine: Engine) {
        let world = World::with_people(engine).await;
        boss(&world).await;
        let other = if engine == Engine::Postgres { Some(another_server(&world).await) } else { None };
        let servers: Vec<&World> = std::iter::once(&world).chain(&other).collect();
        let guess = |number: usize| sign_in(servers[number % servers.len()], "boss", "wrong horse battery");
        for reply in join_all((0..50).map(guess)).await {
            assert!(matches!(reply.code(), 1003 | 9002), "{}", reply.body);
        }
        // Each is counted before it is looked at, and what is not counted is not.
        assert_eq!(tries(&world).await, ["5"]);
        assert_eq!(sign_in(&world, "boss", PASSWORD).await.code(), 1003);
        if let Some(other) = other {
            other.close().await;
        }
        world.close().await;
    }

    async fn sessions_end_by_themselves(engine: Engine) {
        let world = World::with_people(engine).await;
        boss(&world).await;
        clerk(&world).await;
        let (operator, employee) = (token(&world, "boss").await, token(&world, "clerk").await);
        world.advance(30 * MINUTE - 1);
        assert!(holds(&world, &operator).await);
        world.advance(30 * MINUTE);
        // Idle for too long.
        assert!(!holds(&world, &operator).await && holds(&world, &employee).await);
        let operator = token(&world, "boss").await;
        for _ in 0..24 {
            world.advance(29 * MINUTE);
            assert!(holds(&world, &operator).await);
        }
        world.advance(24 * MINUTE - 1);
        assert!(holds(&world, &operator).await);
        assert!(!holds(&world, &employee).await, "twelve hours and no longer");
        world.advance(1);
        assert!(!holds(&world, &operator).await, "however busy");
        coupon_ledger::directory::clear_ended_sessions(world.store(), world.clock.now_ms()).await.unwrap();
        assert_eq!(world.home.sql("SELECT count(*) FROM sessions").await.unwrap(), ["0"]);
        world.close().await;
    }

    async fn sessions_are_ended_at_once_on_every_server(engine: Engine) {
        let world = World::with_people(engine).await;
        let id = boss(&world).await;
        let other = if engine == Engine::Postgres { Some(another_server(&world).await) } else { None };
        let elsewhere = other.as_ref().unwrap_or(&world);
        let (one, two) = (token(&world, "boss").await, token(&world, "boss").await);
        assert!(holds(elsewhere, &one).await);
        with(&world, &one, "/user/logout", json!({})).await.ok();
        assert!(!holds(elsewhere, &one).await && holds(elsewhere, &two).await);
        assert_eq!(with(&world, &one, "/user/logout", json!({})).await.code(), 1001);
        let ways: [(&str, Value); 3] = [
            ("/user/logouteverywhere", json!({})),
            ("/account/state", json!({"id": id, "state": 0})),
            ("/user/resetpassword", json!({"name": "boss"})),
        ];
        for (route, body) in ways {
            let (one, two) = (token(&world, "boss").await, token(elsewhere, "boss").await);
            let done = with(&world, &one, route, body).await;
            let code = done.ok()["code"].clone();
            assert!(!holds(elsewhere, &one).await && !holds(elsewhere, &two).await, "{route}");
            assert!(!holds(&world, &two).await, "{route}");
            world.operator("/account/state", json!({"id": id, "state": 1})).await.ok();
            if code.is_string() {
                choose(&world, json!({"code": code, "password": PASSWORD})).await.ok();
            }
        }
        let (one, two) = (token(&world, "boss").await, token(&world, "boss").await);
        let passwords = json!({"old": PASSWORD, "new": "wrong horse battery"});
        with(&world, &one, "/user/editpassword", passwords).await.ok();
        assert!(!holds(elsewhere, &one).await && !holds(elsewhere, &two).await);
        assert_eq!(sign_in(&world, "boss", PASSWORD).await.code(), 1003);
        sign_in(elsewhere, "boss", "wrong horse battery").await.ok();
        // A token from the command line is cut short.
        let revoked = world.token(EMPLOYEE);
        with(&world, &revoked, "/user/logout", json!({})).await.ok();
        assert!(!holds(&world, &revoked).await && holds(&world, &world.token(EMPLOYEE)).await);
        if let Some(other) = other {
            other.close().await;
        }
        world.close().await;
    }

    async fn a_session_that_is_not_whole_is_none(engine: Engine) {
        let world = World::with_people(engine).await;
        boss(&world).await;
        let mine = token(&world, "boss").await;
        for at in 0..mine.len() {
            let mut other = mine.clone().into_bytes();
            other[at] = if other[at] == b'a' { b'b' } else { b'a' };
            let other = String::from_utf8(other).unwrap();
            assert!(other == mine || !holds(&world, &other).await, "{other}");
        }
        let stored = world.home.sql("SELECT secret_hash FROM sessions").await.unwrap().remove(0);
        // Shown as if it were the secret, which it is not.
        world.home.vault.forget(&stored);
        let id = SessionToken::parse(&mine).unwrap().id;
        for other in [
            String::new(), "cs1.".to_owned(), "cs1..".to_owned(), mine[..mine.len() - 1].to_owned(), format!("{mine}A"),
            format!("cs1.{id}.{stored}"), format!("cs1.{id}."), format!("cs1.%.{}", "A".repeat(43)),
            SessionToken::random().text(), format!("cs1.{}", "A".repeat(8_000)), mine.replace("cs1", "cl1"),
        ] {
            assert!(!holds(&world, &other).await, "{other}");
            let cookie = format!("session={other}");
            let reply = world.request("/shop/list", &[("cookie", &cookie)], "{}").await;
            assert_eq!((reply.code(), reply.status.as_u16()), (1001, 401));
        }
        assert!(holds(&world, &mine).await);
        world.close().await;
    }

    async fn names_and_passwords_are_what_they_may_be(engine: Engine) {
        let world = World::with_people(engine).await;
        let add = async |name: &str| world.operator("/account/add", json!({"name": name, "role": "auditor"})).await;
        for name in ["bоss", "a b", "", ".x", "老闆", "a\u{200b}b", &"a".repeat(65)] {
            let reply = add(name).await;
            assert_eq!((reply.code(), reply.body["info"]["name"].is_string()), (401, true), "{name}: {}", reply.body);
        }
        add("ＥＹＥ").await.ok();
        for taken in ["eye", "Eye", " EYE "] {
            assert_eq!(add(taken).await.body["info"]["name"], "name已存在", "{taken}");
        }
        let second = json!({"name": "clerk", "role": "employee", "user_id": 1000});
        world.operator("/account/add", second.clone()).await.ok();
        let again = json!({"name": "clerk2", "role": "employee", "user_id": 1000});
        assert_eq!(world.operator("/account/add", again).await.body["info"]["user_id"], "user_id已存在");
        let code = invite(&world, json!({"name": "new", "role": "auditor"})).await;
        for password in ["", "123456789", &"x".repeat(257), "a\u{0}bcdefghijk"] {
            let reply = choose(&world, json!({"code": code, "password": password})).await;
            assert_eq!((reply.code(), reply.body["info"]["password"].is_string()), (401, true), "{}", reply.body);
        }
        let taken = choose(&world, json!({"code": code, "password": PASSWORD, "name": "eye"})).await;
        assert_eq!(taken.body["info"]["name"], "name已存在");
        // Composed or not, it is the same password.
        choose(&world, json!({"code": code, "password": "e\u{301}".repeat(128), "name": "newer"})).await.ok();
        sign_in(&world, "newer", &"é".repeat(128)).await.ok();
        assert_eq!(sign_in(&world, "new", &"é".repeat(128)).await.code(), 1003, "it has another name now");
        // What is too long is not hashed.
        let before = tries(&world).await;
        assert_eq!(sign_in(&world, "newer", &"x".repeat(257)).await.code(), 401);
        let huge = sign_in(&world, "newer", &"x".repeat(1 << 20)).await;
        assert_eq!((huge.code(), huge.status.as_u16()), (401, 413));
        assert_eq!(tries(&world).await, before);
        world.close().await;
    }

    async fn a_code_is_good_once_and_for_half_an_hour_and_voids_the_password_before(engine: Engine) {
        let world = World::with_people(engine).await;
        let id = clerk(&world).await;
        let reset = async |key: &str| world.keyed(Caller::Operator, key, "/user/resetpassword", json!({"id": 1000})).await;
        let first = reset("reset-1").await;
        assert_eq!(sign_in(&world, "clerk", PASSWORD).await.code(), 1003);
        let again = reset("reset-1").await;
        assert_eq!((again.replayed(), again.ok()), (true, first.ok()));
        let code = first.ok()["code"].as_str().unwrap().to_owned();
        assert_eq!(first.ok()["url"], format!("http://127.0.0.1:8787/setup#{code}"));
        let second = reset("reset-2").await.ok()["code"].clone();
        let with = |code: &Value| json!({"code": code, "password": "wrong horse battery"});
        assert_eq!(choose(&world, with(&json!(code))).await.code(), 1003, "another has taken its place");
        world.advance(CODE_HOLDS_MS);
        assert_eq!(choose(&world, with(&second)).await.code(), 1003, "it is too old");
        let third = reset("reset-3").await.ok()["code"].clone();
        for other in [
            Secrets::from_root([7; 32]).password_code(PasswordCode::Account(id, 4)),
            world.secrets.password_code(PasswordCode::Account(id, 5)),
            world.secrets.password_code(PasswordCode::Account(id + 1, 1)),
            world.secrets.password_code(PasswordCode::Account(-1, 0)),
            "ac1".to_owned(), "ac1.1.1.".to_owned(), "x".repeat(200),
        ] {
            assert_eq!(choose(&world, with(&json!(other))).await.code(), 1003, "{other}");
        }
        let used = join_all((0..5).map(|_| choose(&world, with(&third)))).await;
        assert_eq!(used.iter().filter(|reply| reply.code() == 0).count(), 1);
        sign_in(&world, "clerk", "wrong horse battery").await.ok();
        world.close().await;
    }

    async fn the_first_operator_comes_to_be_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let code = world.app.sign_in.setup_code().await.unwrap().unwrap();
        let body = |name: &str| json!({"code": code, "password": PASSWORD, "name": name});
        assert_eq!(choose(&world, json!({"code": code, "password": PASSWORD})).await.body["info"]["name"], "name不能為空");
        let other = if engine == Engine::Postgres { Some(another_server(&world).await) } else { None };
        let servers: Vec<&World> = std::iter::once(&world).chain(&other).collect();
        let names: Vec<String> = (0..6).map(|number| format!("boss{number}")).collect();
        let all = names.iter().enumerate().map(|(number, name)| choose(servers[number % servers.len()], body(name)));
        let all = join_all(all).await;
        let won: Vec<&Reply> = all.iter().filter(|reply| reply.code() == 0).collect();
        assert_eq!(won.len(), 1);
        assert!(all.iter().all(|reply| [0, 1003].contains(&reply.code())));
        let name = won[0].data()["name"].as_str().unwrap();
        let boss = token(&world, name).await;
        let accounts = with(&world, &boss, "/account/list", json!({})).await;
        assert_eq!(accounts.ok().as_array().unwrap().len(), 1, "{}", accounts.body);
        assert_eq!(world.app.sign_in.setup_code().await.unwrap(), None);
        // It does not come back when that operator is gone.
        world.operator("/account/state", json!({"id": accounts.data()[0]["id"], "state": 0})).await.ok();
        assert_eq!(choose(&world, body("other")).await.code(), 1003);
        assert_eq!(world.app.sign_in.setup_code().await.unwrap(), None);
        if let Some(other) = other {
            other.close().await;
        }
        world.close().await;

        let world = World::empty(engine).await;
        let code = world.app.sign_in.setup_code().await.unwrap().unwrap();
        world.advance(CODE_HOLDS_MS);
        assert_eq!(choose(&world, json!({"code": code, "password": PASSWORD, "name": "late"})).await.code(), 1003);
        let code = world.app.sign_in.setup_code().await.unwrap().unwrap();
        boss_by_hand(&world).await;
        assert_eq!(choose(&world, json!({"code": code, "password": PASSWORD, "name": "late"})).await.code(), 1003);
        world.close().await;
    }

    async fn the_page_behind_a_link_works_without_a_script(engine: Engine) {
        let world = World::with_people(engine).await;
        let page = world.raw("GET", "/setup", &[("accept-language", "en")], Vec::new()).await;
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("script-src 'unsafe"));
        assert!(page.body.as_str().unwrap().contains("<form method=\"post\""), "{}", page.body);
        assert_eq!(world.raw("GET", "/setup.js", &[], Vec::new()).await.status, 200);
        let form = [("content-type", "application/x-www-form-urlencoded"), ("accept-language", "en")];
        let code = world.app.sign_in.setup_code().await.unwrap().unwrap();
        let post = async |body: String| world.raw("POST", "/setup", &form, body.into_bytes()).await;
        for (body, status) in [
            (String::new(), 400),
            ("%ff".to_owned(), 400),
            (format!("code={code}&password=correct+horse+battery&name=%3Cb%3E"), 400),
            (format!("code={code}&password=short&name=boss"), 400),
            (format!("code=x{code}&password=correct+horse+battery&name=boss"), 403),
            (format!("code={code}&password=correct+horse+battery&name=boss"), 200),
            (format!("code={code}&password=correct+horse+battery&name=boss"), 403),
            (format!("x={}", "x".repeat(70_000)), 413),
        ] {
            let reply = post(body.clone()).await;
            assert_eq!(reply.status.as_u16(), status, "{body}: {}", reply.body);
            assert!(!reply.body.as_str().unwrap().contains(&code), "the code is not said again");
        }
        sign_in(&world, "boss", PASSWORD).await.ok();
        world.close().await;
    }

    async fn with_a_cookie_every_write_shows_what_only_our_page_knows(engine: Engine) {
        let mut world = World::with_people(engine).await;
        boss(&world).await;
        let session = sign_in(&world, "boss", PASSWORD).await;
        let set = session.headers["set-cookie"].to_str().unwrap().to_owned();
        let value = session.ok()["token"].as_str().unwrap();
        assert_eq!(set, format!("session={value}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"));
        let cookie = format!("theme=dark; session={value}");
        let csrf = session.ok()["csrf"].as_str().unwrap();
        let foreign = sign_in(&world, "boss", PASSWORD).await.ok()["csrf"].as_str().unwrap().to_owned();
        let shop = json!({"shop_name": "二店", "phone": "2", "address": "b"}).to_string();
        for (shown, code) in [(None, 1002), (Some(""), 1002), (Some(&foreign[..]), 1002), (Some(&csrf[1..]), 1002), (Some(csrf), 0)] {
            let mut headers = vec![("cookie", cookie.as_str())];
            headers.extend(shown.map(|shown| ("x-csrf-token", shown)));
            assert_eq!(world.request("/shop/add", &headers, &shop).await.code(), code, "{shown:?}");
        }
        let reads = [("cookie", cookie.as_str())];
        // A page that was loaded anew asks for it; a foreign one cannot read the answer.
        let me = world.raw("GET", "/v1/session", &reads, Vec::new()).await;
        assert_eq!([&me.body["csrf"], &me.body["role"]], [&json!(csrf), &json!("operator")]);
        assert!(!me.headers.contains_key("access-control-allow-origin") && me.headers["cache-control"] == "no-store");
        assert_eq!(world.get(EMPLOYEE, "/v1/session").await.body["csrf"], "");
        assert_eq!(world.raw("GET", "/v1/followers", &reads, Vec::new()).await.status, 200);
        assert_eq!(world.raw("POST", "/v1/followers/expiry/pause", &reads, Vec::new()).await.status, 403);
        // A header that does not hold is not made up for by a cookie.
        let both = [("cookie", cookie.as_str()), ("x-csrf-token", csrf), ("authorization", "Bearer cl1.x.y")];
        assert_eq!(world.request("/shop/add", &both, &shop).await.code(), 1001);
        let out = world.request("/user/logout", &[("cookie", &cookie), ("x-csrf-token", csrf)], "{}").await;
        assert!(out.headers["set-cookie"].to_str().unwrap().starts_with("session=; Path=/; Max-Age=0;"));
        assert!(!holds(&world, value).await);

        // A foreign page cannot sign the browser's owner in as somebody else by a form.
        let form = [("content-type", "application/x-www-form-urlencoded"), ("sec-fetch-mode", "navigate")];
        let sent = world.request("/user/login", &form, "name=boss&password=correct+horse+battery").await;
        assert_eq!((sent.code(), sent.headers.contains_key("set-cookie")), (1002, false));

        let public_url = "https://coupons.example".to_owned();
        world.set_options(HttpOptions { public_url, ..HttpOptions::default() });
        let session = sign_in(&world, "boss", PASSWORD).await;
        let value = session.ok()["token"].as_str().unwrap();
        let set = session.headers["set-cookie"].to_str().unwrap();
        assert_eq!(set, format!("__Host-session={value}; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"));
        for (name, code) in [("session", 1001), ("__Host-session", 1002)] {
            let reply = world.request("/shop/list", &[("cookie", &format!("{name}={value}"))], "{}").await;
            assert_eq!(reply.code(), code, "{name}");
        }
        world.close().await;
    }

    async fn a_second_factor_is_good_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let id = boss(&world).await;
        let mine = token(&world, "boss").await;
        let begun = with(&world, &mine, "/user/totp", json!({})).await.ok().clone();
        assert_eq!(begun["state"], 0);
        let secret = data_encoding::BASE32_NOPAD.decode(begun["secret"].as_str().unwrap().as_bytes()).unwrap();
        assert_eq!(secret, world.secrets.second_factor(id, 1));
        assert!(begun["url"].as_str().unwrap().starts_with("otpauth://totp/coupon-ledger:boss?secret="));
        let step = || world.clock.now_ms() / TOTP_STEP_MS;
        let code = |off: i64| totp_code(&secret, step() + off);
        assert_eq!(with(&world, &mine, "/user/totpon", json!({"code": code(2)})).await.code(), 1003);
        with(&world, &mine, "/user/totpon", json!({"code": code(0)})).await.ok();
        let shown = with(&world, &mine, "/user/totp", json!({})).await.ok().clone();
        assert_eq!(shown, json!({"state": 1, "secret": "", "url": ""}), "it is shown no more");
        let try_it = async |code: Option<String>| {
            let body = json!({"name": "boss", "password": PASSWORD, "totp": code});
            world.request("/user/login", &[], &body.to_string()).await
        };
        for code in [None, Some(code(0)), Some("000000".to_owned()), Some(String::new())] {
            assert_eq!(try_it(code.clone()).await.code(), 1003, "{code:?}");
        }
        let all = join_all((0..5).map(|_| try_it(Some(code(1))))).await;
        assert_eq!(all.iter().filter(|reply| reply.code() == 0).count(), 1);
        world.advance(2 * HOUR);
        assert_eq!(try_it(Some(code(0))).await.code(), 0);
        // Who has lost it is helped by an operator, and its secret does not come again.
        let reset = json!({"name": "boss", "totp_off": 1});
        let link = world.operator("/user/resetpassword", reset).await.ok()["code"].clone();
        choose(&world, json!({"code": link, "password": PASSWORD})).await.ok();
        let mine = try_it(None).await.ok()["token"].as_str().unwrap().to_owned();
        let next = with(&world, &mine, "/user/totp", json!({})).await.ok().clone();
        assert_ne!(next["secret"], begun["secret"]);
        world.close().await;
    }

    async fn who_has_left_or_is_disabled_is_let_do_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        clerk(&world).await;
        let id = boss(&world).await;
        let (employee, operator) = (token(&world, "clerk").await, token(&world, "boss").await);
        let in_his_name = world.token(Caller::OperatorAccount(id));
        assert!(holds(&world, &in_his_name).await);
        world.operator("/user/edit", json!({"id": 1000, "state": 0})).await.ok();
        world.operator("/account/state", json!({"id": id, "state": 0})).await.ok();
        assert_eq!(with(&world, &employee, "/shop/list", json!({})).await.code(), 1002);
        assert!(!holds(&world, &operator).await && !holds(&world, &in_his_name).await);
        assert!(!holds(&world, &world.token(Caller::AuditorAccount(id))).await);
        for name in ["clerk", "boss"] {
            assert_eq!(sign_in(&world, name, PASSWORD).await.code(), 1003, "{name}");
        }
        world.operator("/account/state", json!({"id": id, "state": 1})).await.ok();
        assert!(!holds(&world, &operator).await, "what was ended stays so");
        sign_in(&world, "boss", PASSWORD).await.ok();
        world.close().await;
    }

    async fn nothing_secret_is_anywhere_in_the_database(engine: Engine) {
        let world = World::with_people(engine).await;
        let code = invite(&world, json!({"name": "boss", "role": "operator"})).await;
        let id = choose(&world, json!({"code": code, "password": PASSWORD})).await.ok()["id"].as_i64().unwrap();
        let session = sign_in(&world, "boss", PASSWORD).await.ok().clone();
        let mine = session["token"].as_str().unwrap();
        let secret = with(&world, mine, "/user/totp", json!({})).await.ok()["secret"].clone();
        let now = totp_code(&world.secrets.second_factor(id, 1), world.clock.now_ms() / TOTP_STEP_MS);
        let bearer = format!("Bearer {mine}");
        let keyed = [("authorization", bearer.as_str()), ("idempotency-key", "the-key-1")];
        world.request("/user/totpon", &keyed, &json!({"code": now}).to_string()).await.ok();
        sign_in(&world, "boss", "a guess that fails").await;
        sign_in(&world, "somebody-else", PASSWORD).await;
        let keyed = [("authorization", bearer.as_str()), ("idempotency-key", "the-key-2")];
        let passwords = json!({"old": PASSWORD, "new": "wrong horse battery"}).to_string();
        world.request("/user/editpassword", &keyed, &passwords).await.ok();
        let reset = world.operator("/user/resetpassword", json!({"name": "boss"})).await.ok()["code"].clone();
        let secrets = [
            PASSWORD, "wrong horse battery", "a guess that fails", &code, mine.rsplit('.').next().unwrap(), mine,
            session["csrf"].as_str().unwrap(), secret.as_str().unwrap(), reset.as_str().unwrap(), "somebody-else",
        ];
        let home = world.close().await;
        let text = everything_in(&home).await;
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in the database");
        }
        assert!(text.contains("$argon2id$v=19$m=19456,t=2,p=1$") || text.contains("PasswordSet"));
        // Names are personal: they are in the directory, and in no event.
        let events = home.sql("SELECT CAST(payload AS TEXT) || CAST(metadata AS TEXT) FROM events").await.unwrap();
        assert!(events.iter().all(|event| !event.contains("boss") && !event.contains("argon2")));
    }
}

/// An operator's account that was made beside the link.
async fn boss_by_hand(world: &World) {
    let meta = coupon_ledger::sign_in::meta_of_operator(&world.ledger);
    let who = ("by-hand", PASSWORD);
    world.app.sign_in.create(AccountRole::Operator, who, &meta).await.unwrap();
}

/// Every text that the database holds.
async fn everything_in(home: &Home) -> String {
    if home.database_url.is_none() {
        let files = std::fs::read_dir(home.path()).unwrap().map(|file| file.unwrap().path());
        let of_database =
            files.filter(|file| file.file_name().unwrap().to_str().unwrap().starts_with("ledger.db"));
        let bytes = of_database.flat_map(|file| std::fs::read(file).unwrap());
        return String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned();
    }
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let mut text = String::new();
    for table in home.sql(tables).await.unwrap() {
        text += &home.sql(&format!("SELECT t::text FROM {table} t")).await.unwrap().join("\n");
    }
    assert!(text.len() > 1_000);
    text
}

/// Facts that a command on an account needs: the time.
fn now(world_ms: i64) -> Facts {
    let zone = Zone::default();
    Facts::at(1, zone.moment(world_ms), zone, Secrets::from_root([42; 32]).gift_codes().clone())
}

#[test]
fn a_password_that_was_changed_while_it_was_looked_at_does_not_sign_in() {
    let at_ms = NOON;
    let mut account = Account::default();
    for event in [
        AccountEvent::Created { role: AccountRole::Operator, at_ms },
        AccountEvent::PasswordSet { by_code: true, at_ms },
    ] {
        account.evolve(&event);
    }
    let session = NewSession {
        id: "0".repeat(16),
        secret_hash: "0".repeat(64),
        ends_at_ms: at_ms + HOUR,
        tries_key: String::new(),
    };
    let sign_in = AccountCommand::SignIn { passwords: 1, totp_step: 0, session };
    assert!(account.decide(&sign_in, &now(at_ms)).is_ok());
    for event in [
        AccountEvent::PasswordSet { by_code: false, at_ms },
        AccountEvent::CodeGiven { number: 1, lapses_at_ms: at_ms, at_ms },
        AccountEvent::Disabled { at_ms },
        AccountEvent::TotpEnabled { number: 1, totp_step: 7, at_ms },
    ] {
        let mut later = account.clone();
        later.evolve(&event);
        assert_eq!(later.decide(&sign_in, &now(at_ms)), Err(Refusal::SignInRefused), "{event:?}");
    }
}

/// Runs a command of the program with a line on its standard input.
pub async fn run_with(home: &Home, arguments: &[&str], line: &str) -> (i32, String, String) {
    let mut command = program(home);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may have ended before it has read.
    let _ = stdin.write_all(line.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    crate::leaks::hear(&command, &output);
    everywhere(line.trim());
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

async fn post(url: &str, route: &str, body: &Value) -> Value {
    let client = reqwest::Client::new();
    let answer: Value =
        client.post(format!("{url}{route}")).json(body).send().await.unwrap().json().await.unwrap();
    for secret in [&body["password"], &body["code"], &answer["data"]["token"], &answer["data"]["csrf"]] {
        everywhere(secret.as_str().and_then(|text| text.rsplit('.').next()).unwrap_or(PASSWORD));
    }
    answer
}

on_both_engines! {
    async fn accounts_are_made_on_the_command_line_with_and_without_a_server(engine: Engine) {
        let home = Home::new(engine).await;
        let line = format!("{PASSWORD}\n");
        let made = run_with(&home, &["operator", "create", "--name", "Boss"], &line).await;
        assert_eq!((made.0, made.1.as_str()), (0, "account 1: operator Boss\n"), "{}", made.2);
        let server = Server::start(&home, &[]).await;
        assert!(!server.banner.iter().any(|line| line.contains("/setup#")), "{:?}", server.banner);
        let made = run_with(&home, &["auditor", "create", "--name", "eye"], &format!("{PASSWORD}\r\n")).await;
        assert_eq!((made.0, made.1.as_str()), (0, "account 2: auditor eye\n"), "{}", made.2);
        for (arguments, line, complaint) in [
            (&["auditor", "create", "--name", "EYE"][..], &line[..], "taken"),
            (&["auditor", "create", "--name", "a b"], &line, "--name must be 1 to 64"),
            (&["auditor", "create", "--name", "short"], "123456789\n", "the password must not be shorter"),
            (&["auditor", "create", "--name", "empty"], "", "the password must not be shorter"),
            (&["employee", "account", "--id", "1000", "--name", "clerk"], &line, "no such member or employee"),
            (&["operator", "password", "--name", "nobody"], &line, "no such member or employee"),
        ] {
            let (code, out, error) = run_with(&home, arguments, line).await;
            assert_eq!((code, out.as_str()), (1, ""), "{arguments:?} {error}");
            assert!(error.contains(complaint) && !error.contains(PASSWORD), "{arguments:?}: {error}");
        }
        for name in ["boss", "eye"] {
            let reply = post(&server.url, "/user/login", &json!({"name": name, "password": PASSWORD})).await;
            assert_eq!(reply["code"], 0, "{reply}");
        }
        let changed = run_with(&home, &["operator", "password", "--name", "boss"], "wrong horse battery\n").await;
        assert_eq!(changed.0, 0, "{}", changed.2);
        for (password, code) in [(PASSWORD, 1003), ("wrong horse battery", 0)] {
            let reply = post(&server.url, "/user/login", &json!({"name": "boss", "password": password})).await;
            assert_eq!(reply["code"], code, "{reply}");
        }
        server.kill().await;
    }

    async fn the_first_start_prints_a_link_that_is_good_once_and_a_demo_none(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let link = |server: &Server| {
            let line = server.banner.iter().find(|line| line.contains("/setup#"));
            line.map(|line| line.rsplit('#').next().unwrap().to_owned())
        };
        let code = link(&server).unwrap();
        assert!(server.banner.iter().any(|line| line.contains(&format!("{}/setup#", server.url))));
        server.kill().await;
        let server = Server::start(&home, &[]).await;
        let body = json!({"code": code, "password": PASSWORD, "name": "boss"});
        assert_eq!(post(&server.url, "/user/setpassword", &body).await["code"], 0, "it outlives a restart");
        assert_eq!(post(&server.url, "/user/setpassword", &body).await["code"], 1003);
        server.kill().await;
        let server = Server::start(&home, &[]).await;
        assert_eq!(link(&server), None);
        server.kill().await;
        let server = Server::start(&Home::new(engine).await, &["--demo"]).await;
        assert_eq!(link(&server), None);
        server.kill().await;
    }

    async fn nothing_secret_is_in_what_a_server_has_to_say(engine: Engine) {
        let home = Home::new(engine).await;
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let server = Server::start_talkative(&home, &log).await;
        let link = server.banner.iter().find(|line| line.contains("/setup#")).unwrap();
        let code = link.rsplit('#').next().unwrap().to_owned();
        let set = json!({"code": code, "password": PASSWORD, "name": "boss"});
        assert_eq!(post(&server.url, "/user/setpassword", &set).await["code"], 0);
        let wrong = json!({"name": "boss", "password": "a guess that fails"});
        for _ in 0..5 {
            assert_eq!(post(&server.url, "/user/login", &wrong).await["code"], 1003);
        }
        run_with(&home, &["operator", "password", "--name", "boss"], "wrong horse battery\n").await;
        let right = json!({"name": "boss", "password": "wrong horse battery"});
        let session = post(&server.url, "/user/login", &right).await["data"].clone();
        let mine = session["token"].as_str().unwrap().to_owned();
        let client = reqwest::Client::new();
        let cookie = format!("session={mine}");
        for request in [
            client.post(format!("{}/user/totp", server.url)).bearer_auth(&mine),
            client.post(format!("{}/user/logout", server.url)).header("cookie", &cookie)
                .header("x-csrf-token", session["csrf"].as_str().unwrap()),
        ] {
            let answer: Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!(answer["code"], 0, "{answer}");
        }
        server.kill().await;
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.len() > 500 && said.contains("a name is locked"), "the server has talked");
        let secrets = [&code, PASSWORD, "a guess that fails", "wrong horse battery", &mine, session["csrf"].as_str().unwrap()];
        for secret in secrets {
            assert!(!said.contains(secret), "{secret} is in the log");
        }
    }

    async fn a_session_outlives_its_server_and_no_other_ledger_knows_it(engine: Engine) {
        let world = World::with_people(engine).await;
        boss(&world).await;
        let mine = token(&world, "boss").await;
        let clock = world.clock.clone();
        let world = World::open(world.close().await, clock, Zone::default()).await;
        assert!(holds(&world, &mine).await);
        let other = World::open(Home::new(engine).await, Clock::manual(NOON), Zone::default()).await;
        assert_eq!(with(&other, &mine, "/shop/list", json!({})).await.code(), 1001);
        other.close().await;
        world.close().await;
    }
}
