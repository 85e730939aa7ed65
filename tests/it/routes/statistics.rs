//! Statistics: figures of one coupon that was used, counted before they are asked for.

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use super::{Case, Refused, case};
use crate::harness::{EMPLOYEE, MEMBER, World};
use crate::statistics::count_all;

pub async fn cases(world: &World) -> Vec<Case> {
    let definition = world.define(json!({})).await;
    let used = world.issue(definition, 439).await;
    world.issue(definition, 442).await;
    world.advance(3_600_000);
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": used, "shop_id": 1})).await.ok();
    let review = json!({"id": used, "score": 5, "evaluation": "好"});
    world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
    count_all(world).await;
    let with = |more: Value| {
        let mut body = json!({"start": "2026-11-01", "end": "2026-11-30"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let page = json!({"user_id": "", "business_id": "", "come": "", "page": 1, "limit": 10});
    let paged = |more: Value| {
        let mut body = with(page.clone());
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    vec![
        case("/statistics/elecoupon", Caller::Operator, paged(json!({}))),
        case(
            "/statistics/elecouponby",
            Caller::Operator,
            paged(json!({"by": "come", "coupon_id": definition, "shop_id": ""})),
        ),
        case("/statistics/audit", EMPLOYEE, paged(json!({"coupon_id": definition}))),
        case("/statistics/audittype", EMPLOYEE, paged(json!({"shop_id": 1, "type": 1, "shop_type": 0}))),
        case(
            "/statistics/auditcoupon",
            EMPLOYEE,
            paged(json!({"shop_id": 1, "coupon_id": definition, "shop_type": 0})),
        ),
    ]
}

/// Nothing of them is refused but what is asked wrongly.
pub fn refusals(_world: &World) -> std::future::Ready<Vec<Refused>> {
    std::future::ready(Vec::new())
}
