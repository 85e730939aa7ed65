//! A small ledger in which everything has happened once: every event there is, in some forty to a hundred of them.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use coupon_ledger::approving::Limits;
use coupon_ledger::audit::checkpoint;
use coupon_ledger::http::{App, HttpOptions};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::Meta;
use coupon_ledger::provenance::{LEDGER_ID, Provenance, ProvenanceCommand};
use coupon_ledger::runner::{open_jobs, run_job};
use coupon_ledger::sign_in::{TOTP_STEP_MS, totp_code};
use coupon_ledger::sweep::sweep;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::accounts::{PASSWORD, account, sign_in};
use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, MEMBER, World, definition};
use crate::outside::until;

/// Makes it, from a world with people.
pub async fn everything(engine: Engine) -> World {
    let world = World::with_people(engine).await;
    let definition_id = definitions(&world).await;
    shops(&world).await;
    coupons(&world, definition_id).await;
    gifts(&world, definition_id).await;
    jobs(&world, definition_id).await;
    partners(&world, definition_id).await;
    rules(&world, definition_id).await;
    accounts(&world).await;
    offices(&world).await;
    keys(&world).await;
    webhooks(&world).await;
    new_key(&world).await;
    world.advance(1_000);
    proposals(&world, definition_id).await;
    world.advance(7 * DAY);
    assert!(sweep(&world.ledger).await.unwrap() >= 1);
    crate::wechat::bind(&world, 442, "oGZUI0egBJY1zhBYw2KhdUfwVJJE").await;
    world.operator("/member/unbindwechat", json!({"id": 442})).await.ok();
    world.operator("/member/add", json!({"id": 900, "nickname": "老王"})).await.ok();
    world.operator("/member/erase", json!({"id": 900, "reason": "會員要求"})).await.ok();
    watched(&world).await;
    world
}

async fn new_key(world: &World) {
    let origin = world.store().origin().await.unwrap().unwrap();
    let verifier_key = checkpoint::verifier_key(&origin, &world.secrets.checkpoint_key(2));
    let rotate = ProvenanceCommand::RotateCheckpointKey { generation: 2, verifier_key, employee_id: 0 };
    let meta = Meta {
        caller: Caller::Operator,
        at: world.ledger.now(),
        request_id: "rotate".to_owned(),
        receipt: None,
        job_id: None,
    };
    world.ledger.execute::<Provenance>(LEDGER_ID, &rotate, &meta).await.unwrap();
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let rotated = world.raw("POST", "/v1/keys/qr", &[("authorization", &bearer)], Vec::new()).await;
    assert_eq!(rotated.status, 200, "{}", rotated.body);
}

/// An operator's account and all that becomes of it.
pub async fn accounts(world: &World) {
    let id = account(world, json!({"name": "boss", "role": "operator"})).await;
    let me = Caller::OperatorAccount(id);
    sign_in(world, "boss", PASSWORD).await.ok();
    let code = totp_code(&world.secrets.second_factor(id, 1), world.clock.now_ms() / TOTP_STEP_MS);
    world.call(me, "/user/totpon", json!({"code": code})).await.ok();
    world.call(me, "/user/totpoff", json!({"password": PASSWORD})).await.ok();
    world.call(me, "/user/logouteverywhere", json!({})).await.ok();
    world.call(me, "/user/editpassword", json!({"old": PASSWORD, "new": "wrong horse battery"})).await.ok();
    for subject in ["248289761001", ""] {
        let link = json!({"id": id, "issuer": "https://login.example", "subject": subject});
        world.operator("/account/subject", link).await.ok();
    }
    for _ in 0..5 {
        assert_eq!(sign_in(world, "boss", PASSWORD).await.code(), 1003);
    }
    until("it is written down that he is locked", async || names(world).await.contains("account Locked"))
        .await;
    for state in [0, 1] {
        world.operator("/account/state", json!({"id": id, "state": state})).await.ok();
    }
}

/// What waits for somebody else's word: one proposal for each end that it may have, but for the fourth, which is open.
pub async fn proposals(world: &World, definition_id: i64) {
    let limits = Limits { sends: 1, stock: 100, ..Limits::default() };
    let options = HttpOptions { approvals: limits, ..HttpOptions::default() };
    let router = App::new(world.ledger.clone(), options).router();
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let send = json!({"coupon_id": definition_id, "confirm": 1});
    let more = json!({"id": definition_id, "num": 200, "type": 1});
    for (route, body) in [
        ("/sendelecoupon/add", send),
        ("/elecoupons/inventory", more.clone()),
        ("/elecoupons/inventory", more.clone()),
        ("/elecoupons/inventory", more),
    ] {
        let request = Request::post(route).header("authorization", &bearer);
        let request = request.header("content-type", "application/json").body(Body::from(body.to_string()));
        let response = router.clone().oneshot(request.unwrap()).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["code"], 1004, "{answer}");
    }
    // The account that there is of an operator.
    world.call(Caller::OperatorAccount(1), "/approval/approve", json!({"id": 1})).await.ok();
    world.operator("/approval/refuse", json!({"id": 2, "reason": "數量有誤"})).await.ok();
    world.operator("/approval/withdraw", json!({"id": 3})).await.ok();
    for job_id in open_jobs(world.store()).await.unwrap() {
        run_job(&world.ledger, job_id).await.unwrap();
    }
}

/// A reading of personal data, and a refusal.
pub async fn watched(world: &World) {
    world.operator("/member/get", json!({"id": 439})).await.ok();
    assert_eq!(world.call(MEMBER, "/shop/add", json!({})).await.code(), 1002);
    world.app.watch.write_down(&world.ledger).await.unwrap();
}

async fn definitions(world: &World) -> i64 {
    let id = world.define(json!({"num": 40, "is_self": 1})).await;
    let mut edited = definition(json!({"is_self": 1, "rules": "新規則"}));
    edited["id"] = id.into();
    world.operator("/elecoupons/edit", edited).await.ok();
    world.operator("/elecoupons/inventory", json!({"id": id, "num": 20, "type": 1})).await.ok();
    for state in [0, 1] {
        world.operator("/elecoupons/state", json!({"id": id, "state": state})).await.ok();
    }
    id
}

async fn shops(world: &World) {
    let shop = json!({"shop_name": "二店", "phone": "2", "address": "b"});
    let id = world.operator("/shop/add", shop.clone()).await.ok()["id"].as_str().unwrap().to_owned();
    for (name, state) in [("三店", 1), ("三店", 0), ("三店", 1)] {
        let mut body = shop.clone();
        (body["id"], body["shop_name"], body["state"]) = (id.clone().into(), name.into(), state.into());
        world.operator("/shop/edit", body).await.ok();
    }
    world.operator("/shop/rotateauditkey", json!({"id": id})).await.ok();
}

async fn coupons(world: &World, definition_id: i64) {
    let id = world.issue(definition_id, 439).await;
    world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
    let use_it = json!({"mem_coupon_id": id, "shop_id": 1});
    let used = world.keyed(MEMBER, "redeem-1", "/client/auditcoupon", use_it).await;
    let review = json!({"id": id, "evaluation": "非常給力", "score": 5});
    world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
    let reverse = json!({"id": used.ok()["id"], "reason": "按錯"});
    world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
    let void = json!({"mem_coupon_id": id, "reason": "發錯"});
    world.operator("/user/voidelecoupon", void).await.ok();
    let table = format!(
        "id,coupon_id,member_id,start_date,end_date,state,use_date,shop_id\n\
         900001,{definition_id},442,2026-01-01,2026-12-31,used,2026-05-05,1\n\
         900002,{definition_id},442,2026-01-01,2026-12-31,unused,,\n"
    );
    let imported = world.operator("/elecoupons/import", json!({"csv": table, "dry_run": 0})).await;
    assert_eq!(imported.ok()["ok_num"], 2);
    let short = world.define(json!({"start_num": "0", "end_num": "1"})).await;
    world.issue(short, 439).await;
}

async fn gifts(world: &World, definition_id: i64) {
    let id = world.issue(definition_id, 439).await;
    let code =
        world.keyed(MEMBER, "give-it", "/client/givecoupon", json!({"id": id})).await.ok()["code"].clone();
    let wrong = if code == 111_111 { 222_222 } else { 111_111 };
    let tried = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": wrong})).await;
    assert_eq!(tried.code(), 7001);
    world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
    let id = world.issue(definition_id, 439).await;
    world.give(MEMBER, id).await;
    world.call(MEMBER, "/client/withdrawcoupon", json!({"id": id})).await.ok();
    world.give(MEMBER, id).await;
    // The gift lapses, and the coupon that is good for a day expires.
    world.advance(3 * DAY);
    assert!(sweep(&world.ledger).await.unwrap() >= 2);
}

async fn jobs(world: &World, definition_id: i64) {
    let send = json!({"coupon_id": definition_id, "confirm": 1});
    let id = world.operator("/sendelecoupon/add", send.clone()).await.ok()["id"].clone();
    for what in ["pause", "resume"] {
        world.operator(&format!("/sendelecoupon/{what}"), json!({"id": id})).await.ok();
    }
    let cancelled = world.operator("/sendelecoupon/add", send).await.ok()["id"].clone();
    world.operator("/sendelecoupon/cancel", json!({"id": cancelled})).await.ok();
    let later = json!({"send_id": id, "end_date": "2027-06-30", "reason": "延期", "confirm": 1});
    for _ in 0..2 {
        for job_id in open_jobs(world.store()).await.unwrap() {
            run_job(&world.ledger, job_id).await.unwrap();
        }
        world.operator("/elecoupons/extend", later.clone()).await.ok();
    }
}

async fn partners(world: &World, definition_id: i64) {
    let partner = json!({"shop_name": "隔壁咖啡", "phone": "3", "address": "c"});
    let id =
        world.operator("/business/add", partner).await.ok()["id"].as_str().unwrap().parse::<i64>().unwrap();
    let allot = json!({"business_id": id, "coupon_id": definition_id, "num": 5, "end_time": "2027-01-31"});
    let allotted = world.operator("/business/addattract", allot).await.ok()["id"].clone();
    world.operator("/business/editattract", json!({"id": allotted, "end_time": "2027-02-28"})).await.ok();
    world.operator("/business/inventory", json!({"bc_id": allotted, "num": 2, "type": 1})).await.ok();
    world.call(MEMBER, "/wechat/receive", json!({"business_id": id})).await.ok();
}

async fn rules(world: &World, definition_id: i64) {
    let group = world.operator("/goodsgroup/add", json!({"title": "飲料"})).await.ok()["id"].clone();
    world.operator("/goodsgroup/edit", json!({"id": group, "title": "熱飲"})).await.ok();
    world.operator("/goodsgroup/setgoods", json!({"id": group, "goods_ids": "7,8"})).await.ok();
    let grant = json!({"goodsgroup_id": group, "coupon_ids": [{"id": definition_id, "num": 2}]});
    world.operator("/goodselecoupon/add", grant).await.ok();
    let granted =
        world.operator("/goodsgroup/info", json!({"id": group})).await.ok()["couList"][0]["id"].clone();
    world.operator("/goodselecoupon/edit", json!({"json": [{"id": granted, "num": 3}]})).await.ok();
    let rule = json!({"amount": 100, "json": [{"coupon_id": definition_id, "num": 1}]});
    let rule = world.operator("/orderamount/add", rule).await.ok()["id"].clone();
    world.operator("/orderamount/edit", json!({"id": rule, "amount": 90, "json": "[]"})).await.ok();
    let used = world.issue(definition_id, 439).await;
    let order = json!({
        "member_id": 439, "shop_id": 1, "order_no": "T-1", "ora_id": rule, "use_coupon_list": used,
        "goods": [{"goods_id": 7, "price": "200.00", "state": 1, "count": 1}],
        "order_coupon_list": [{"coupon_id": definition_id, "num": 1}],
    });
    let placed = world.keyed(Caller::Operator, "order-1", "/order/add", order).await.ok()["id"].clone();
    world.operator("/order/cancel", json!({"id": placed})).await.ok();
    world.operator("/goodselecoupon/del", json!({"id": granted})).await.ok();
    world.operator("/goodsgroup/del", json!({"id": group})).await.ok();
    world.operator("/orderamount/del", json!({"id": rule})).await.ok();
}

async fn offices(world: &World) {
    let id = world.operator("/office/add", json!({"title": "店長"})).await.ok()["id"].clone();
    world.operator("/office/edit", json!({"id": id, "title": "副店長"})).await.ok();
    world.operator("/office/setcompetence", json!({"id": id, "competence_ids": "5,9"})).await.ok();
    for place in [json!({"office_id": id, "is_manager": 1}), json!({"office_id": 0})] {
        let mut edit = place;
        edit["id"] = 1000.into();
        world.operator("/user/edit", edit).await.ok();
    }
    world.operator("/office/del", json!({"id": id})).await.ok();
}

/// Those of a machine, and of the partner who is there.
async fn keys(world: &World) {
    let partner = world.operator("/business/list", json!({})).await.ok()[0]["id"].clone();
    let public_key = "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8";
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    for (method, path) in [
        ("POST", "/v1/machine-keys?name=till&rights=orders,read".to_owned()),
        ("DELETE", "/v1/machine-keys/1".to_owned()),
        ("POST", format!("/v1/partner-keys?partner_id={partner}&public_key={public_key}")),
        ("DELETE", "/v1/partner-keys/1".to_owned()),
    ] {
        let reply = world.raw(method, &path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
}

/// A webhook and all that becomes of it.
pub async fn webhooks(world: &World) {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    for (method, path) in [
        ("POST", "/v1/webhooks?url=https://1.1.1.1/coupons&type=Redeemed&stream=coupon"),
        ("POST", "/v1/webhooks/1?type="),
        ("POST", "/v1/webhooks/1/rotate"),
        ("POST", "/v1/webhooks/1/pause"),
        ("POST", "/v1/webhooks/1/resume"),
        ("POST", "/v1/webhooks/1/resend?from=1&to=2"),
        ("DELETE", "/v1/webhooks/1"),
    ] {
        let reply = world.raw(method, path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
}

/// What happened, as `kind name`.
async fn names(world: &World) -> BTreeSet<String> {
    let events = world.store().events_after(0, i64::MAX).await.unwrap();
    events.iter().map(|event| format!("{} {}", event.aggregate_type, event.event_type)).collect()
}

on_both_engines! {
    async fn everything_has_happened_once(engine: Engine) {
        let world = everything(engine).await;
        let golden = include_str!("golden/events.ndjson");
        let of_line = |line: &str| {
            let event: Value = serde_json::from_str(line).unwrap();
            format!("{} {}", event["aggregate_type"].as_str().unwrap(), event["event_type"].as_str().unwrap())
        };
        let mut expected: BTreeSet<String> = golden.lines().map(of_line).collect();
        // But for what only an empty ledger can begin with.
        expected.remove("ledger ImportedFrom");
        assert_eq!(names(&world).await, expected);
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }
}
