//! Guessing leads nowhere: not with a thousand hands, not around a kill, and no answer tells what is somebody else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::harness::{EMPLOYEE, FRIEND, Home, MEMBER, Reply, Server, World, definition};
use crate::outside::{Api, events, until};

/// In each wave two hundred members guess five times each, fewer than the ten that would end their own hour.
const WAVE: i64 = 1_000;

/// Guesses all at once, and what was answered by the time the server was gone.
async fn wave(api: &Api, number: i64, id: i64, code: i64, end: impl AsyncFnOnce()) -> Vec<i64> {
    let answered = Arc::new(AtomicUsize::new(0));
    let guesses = (0..WAVE).map(|guess| {
        let (api, answered) = (api.clone(), answered.clone());
        let member = Caller::Member(1_000 * (number + 1) + guess % 200);
        let body = json!({"id": id, "code": 100_000 + (code - 99_999 + number * WAVE + guess) % 900_000});
        tokio::spawn(async move {
            let reply = api.try_call(member, None, "/client/getcoupon", &body).await;
            answered.fetch_add(usize::from(reply.is_ok()), Ordering::SeqCst);
            reply.ok().map(|reply| reply.code())
        })
    });
    let guesses: Vec<_> = guesses.collect();
    until("the first is answered", async || answered.load(Ordering::SeqCst) > 0).await;
    end().await;
    let mut codes = Vec::new();
    for guess in guesses {
        codes.extend(guess.await.unwrap());
    }
    codes
}

on_both_engines! {
    async fn of_1000_guesses_around_kill_nine_five_are_evaluated(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        api.operator("/member/add", json!({"id": 439})).await.ok();
        assert_eq!(api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"], 1);
        let issued = api.operator("/sendelecoupon/one", json!({"coupon_id": 1, "member_id": 439})).await;
        let id = issued.ok()["id"].as_i64().unwrap();
        let given = api.call(MEMBER, "/client/givecoupon", json!({"id": id})).await;
        let code = given.ok()["code"].as_i64().unwrap();

        let mut codes = wave(&api, 0, id, code, async || server.kill().await).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        codes.extend(wave(&api, 1, id, code, async || ()).await);
        let wrong = codes.iter().filter(|code| **code == 7001).count();
        assert!(wrong <= 5, "{wrong} guesses were said to be wrong");
        assert!(codes.iter().all(|code| [7001, 7002, 9002].contains(code)), "{codes:?}");
        assert_eq!(events(&home, "GiftCodeRejected").await, 5);
        assert_eq!(events(&home, "Received").await, 0);
        let late = api.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await;
        assert_eq!(late.code(), 7002, "the right code comes too late");
        server.kill().await;
    }

    /// Neither by what it says nor by its headers, nor by when: no sooner than both have been found out.
    async fn what_is_anothers_is_answered_as_what_is_not_there(engine: Engine) {
        const NOWHERE: i64 = 99_999;
        let world = World::with_people(engine).await;
        let other = json!({"shop_name": "分店", "phone": "1", "address": "a"});
        assert_eq!(world.operator("/shop/add", other).await.ok()["id"], "2");
        world.operator("/user/add", json!({"id": 1001, "name": "店員", "shop_id": 2})).await.ok();
        let definition = world.define(json!({})).await;
        let (kept, used) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        let used_as = world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": used})).await;
        let redemption: i64 = used_as.ok()["id"].as_str().unwrap().parse().unwrap();
        let review = json!({"id": used, "evaluation": "好", "score": 5});
        let asked = [
            ("/client/couponinfo", "id", used, json!({})),
            ("/client/couponinfo", "id", kept, json!({})),
            ("/client/auditcoupon", "mem_coupon_id", kept, json!({"shop_id": 1})),
            ("/client/auditcouponinfo", "id", redemption, json!({})),
            ("/client/evaluacoupon", "id", used, review),
            ("/client/givecoupon", "id", kept, json!({})),
            ("/client/withdrawcoupon", "id", kept, json!({})),
            ("/client/auditcode", "id", kept, json!({})),
            ("/client/giftinfo", "id", kept, json!({"code": 123_456})),
            ("/client/getcoupon", "id", kept, json!({"code": 123_456})),
        ];
        for (route, field, id, body) in asked {
            let ask = async |id: i64| {
                let mut body = body.clone();
                body[field] = json!(id);
                let asked = Instant::now();
                let reply = world.call(FRIEND, route, body).await;
                assert!(asked.elapsed() >= Duration::from_millis(5), "{route}: {}", reply.body);
                told(&reply)
            };
            assert_eq!(ask(id).await, ask(NOWHERE).await, "{route}");
        }
        for id in [kept, used] {
            let receipt = async |id: i64| told(&world.get(FRIEND, &format!("/v1/coupons/{id}/receipt")).await);
            assert_eq!(receipt(id).await, receipt(NOWHERE).await);
        }
        world.close().await;
    }
}

/// All that an answer says, but for the number of the request.
fn told(reply: &Reply) -> (u16, Vec<(String, String)>, Value) {
    let headers = reply.headers.iter().filter(|(name, _)| *name != "x-request-id");
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers.map(|(name, value)| (name.to_string(), text(value))).collect();
    (reply.status.as_u16(), headers, reply.body.clone())
}
