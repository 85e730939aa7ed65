//! Mass send, recall and extension.

use coupon_ledger::identity::Caller;
use coupon_ledger::runner::{open_jobs, run_job};
use serde_json::{Value, json};

use super::{Case, Refused, Refusing, case, each_refused, refused};
use crate::harness::{EMPLOYEE, World};

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    let offer = world
        .define(json!({
            "validity_type": 1, "start_num": "2026-11-01", "end_num": "2026-12-31", "use_week": "1,2,3", "num": 50,
        }))
        .await;
    let coupon = world.issue(offer, 439).await;
    let (done, recalled) = (start(world, offer).await, recall(world, offer).await);
    for job_id in open_jobs(world.store()).await.unwrap() {
        run_job(&world.ledger, job_id).await.unwrap();
    }
    let mut waiting = Vec::new();
    for paused in [false, false, true, true, false, false] {
        let id = start(world, offer).await;
        if paused {
            world.operator("/job/pause", json!({"id": id})).await.ok();
        }
        waiting.push(json!({"id": id}));
    }
    let mut waiting = waiting.into_iter();
    let mut next = || waiting.next().unwrap();
    let filters = json!({"shop_ids": "0", "tag_ids": "0", "level_ids": "0"});
    let mut send = filters.clone();
    (send["coupon_id"], send["is_all_send"], send["confirm"]) = (offer.into(), 1.into(), 1.into());
    vec![
        case("/sendelecoupon/pause", OPERATOR, next()),
        case("/job/pause", OPERATOR, next()),
        case("/sendelecoupon/resume", OPERATOR, next()),
        case("/job/resume", OPERATOR, next()),
        case("/sendelecoupon/cancel", OPERATOR, next()),
        case("/job/cancel", OPERATOR, next()),
        case("/sendelecoupon/getnum", EMPLOYEE, filters),
        case("/sendelecoupon/add", OPERATOR, send),
        case("/sendelecoupon/info", EMPLOYEE, json!({"id": done})),
        case("/sendelecoupon/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/sendelecoupon/couponlist", EMPLOYEE, json!({"level_ids": "0", "page": 1, "limit": 10})),
        case("/sendelecoupon/usercoupon", EMPLOYEE, json!({})),
        case("/sendelecoupon/membercouponinfo", EMPLOYEE, json!({"id": coupon})),
        case("/elecoupons/recall", OPERATOR, json!({"coupon_id": offer, "reason": "發錯", "confirm": 1})),
        case(
            "/elecoupons/extend",
            OPERATOR,
            json!({"send_id": done, "end_date": "2027-06-30", "reason": "延期", "confirm": 0}),
        ),
        case("/job/info", Caller::Auditor, json!({"id": recalled})),
        case("/job/getlist", Caller::Auditor, json!({"page": 1, "limit": 10})),
    ]
}

async fn start(world: &World, definition: i64) -> i64 {
    let body = json!({"coupon_id": definition, "confirm": 1});
    world.operator("/sendelecoupon/add", body).await.ok()["id"].as_i64().unwrap()
}

async fn recall(world: &World, definition: i64) -> i64 {
    let body = json!({"coupon_id": definition, "reason": "發錯"});
    world.operator("/elecoupons/recall", body).await.ok()["id"].as_i64().unwrap()
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let refusing = Refusing::bring_about(world).await;
    let send = |coupon_id: i64| json!({"coupon_id": coupon_id});
    let mut all: Vec<Refused> = each_refused(
        "/sendelecoupon/add",
        OPERATOR,
        [(2002, send(999)), (5006, send(refusing.switched_off)), (5001, send(refusing.sold_out))],
    )
    .collect();
    for path in [
        "/sendelecoupon/info",
        "/sendelecoupon/pause",
        "/sendelecoupon/resume",
        "/sendelecoupon/cancel",
        "/job/info",
        "/job/pause",
        "/job/resume",
        "/job/cancel",
    ] {
        all.push(refused(path, 2005, OPERATOR, json!({"id": 999})));
    }
    all.push(refused("/sendelecoupon/membercouponinfo", 2001, OPERATOR, json!({"id": 999})));
    let about = |name: &str| -> Value {
        let mut body = json!({"end_date": "2027-06-30", "reason": "延期"});
        body[name] = 999.into();
        body
    };
    for path in ["/elecoupons/recall", "/elecoupons/extend"] {
        all.extend(each_refused(path, OPERATOR, [(2002, about("coupon_id")), (2005, about("send_id"))]));
    }
    all
}
