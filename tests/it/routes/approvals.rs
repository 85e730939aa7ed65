//! What waits for somebody else's word.

use coupon_ledger::approval::Act;
use coupon_ledger::approving::{Rule, propose};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::Meta;
use serde_json::json;

use super::{Case, Refused, case, refused};
use crate::harness::{EMPLOYEE, World};

const OPERATOR: Caller = Caller::Operator;

/// Employee 1000 may define coupons, and has signed in himself each time that he proposed more stock.
pub async fn cases(world: &World) -> Vec<Case> {
    let office = world.operator("/office/add", json!({"title": "店長"})).await.ok()["id"].clone();
    world.operator("/office/setcompetence", json!({"id": office, "competence_ids": "31"})).await.ok();
    world.operator("/user/edit", json!({"id": 1000, "office_id": office})).await.ok();
    let definition_id = world.define(json!({"num": 20})).await;
    for by in [30, 40, 50, 60] {
        let act = Act::RaiseStock { definition_id, by, stock: 20 + by };
        let rule = Rule { above: 25, action: "/elecoupons/inventory", behind: vec![EMPLOYEE.to_string()] };
        let meta = Meta {
            caller: EMPLOYEE,
            at: world.ledger.now(),
            request_id: "propose".to_owned(),
            receipt: None,
            job_id: None,
        };
        propose(&world.ledger, act, &rule, &meta).await.unwrap();
    }
    vec![
        case("/approval/limits", EMPLOYEE, json!({})),
        case("/approval/list", Caller::Auditor, json!({"state": 0, "page": 1, "limit": 10})),
        case("/approval/info", Caller::Auditor, json!({"id": 4})),
        case("/approval/approve", OPERATOR, json!({"id": 1})),
        case("/approval/refuse", OPERATOR, json!({"id": 2, "reason": "數量有誤"})),
        case("/approval/withdraw", EMPLOYEE, json!({"id": 3})),
    ]
}

#[expect(clippy::unused_async, reason = "every page has the same shape")]
pub async fn refusals(_world: &World) -> Vec<Refused> {
    let id = json!({"id": 999});
    let paths = ["/approval/info", "/approval/approve", "/approval/refuse", "/approval/withdraw"];
    paths.map(|path| refused(path, 2005, OPERATOR, id.clone())).into()
}
