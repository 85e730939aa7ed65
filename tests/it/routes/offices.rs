//! Offices and the rights that they have.

use coupon_ledger::identity::Caller;
use serde_json::json;

use super::{Case, Refused, case, refused};
use crate::harness::{EMPLOYEE, World};

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    for title in ["店長", "收銀員"] {
        world.operator("/office/add", json!({"title": title})).await.ok();
    }
    let rights = json!({"id": 1, "competence_ids": "9,5"});
    world.operator("/office/setcompetence", json!({"id": 1, "competence_ids": "5,16"})).await.ok();
    vec![
        case("/office/list", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/office/get", EMPLOYEE, json!({"id": 1})),
        case("/office/competence", Caller::Auditor, json!({"id": 1})),
        case("/competence/list", EMPLOYEE, json!({})),
        case("/office/add", OPERATOR, json!({"title": "倉管"})),
        case("/office/edit", OPERATOR, json!({"id": 1, "title": "副店長"})),
        case("/office/setcompetence", OPERATOR, rights),
        case("/office/del", OPERATOR, json!({"id": 2})),
    ]
}

#[expect(clippy::unused_async, reason = "every page has the same shape")]
pub async fn refusals(_world: &World) -> Vec<Refused> {
    let id = json!({"id": 999});
    vec![
        refused("/office/get", 2005, OPERATOR, id.clone()),
        refused("/office/competence", 2005, OPERATOR, id.clone()),
        refused("/office/edit", 2005, OPERATOR, json!({"id": 999, "title": "店長"})),
        refused("/office/setcompetence", 2005, OPERATOR, json!({"id": 999, "competence_ids": "5"})),
        refused("/office/del", 2005, OPERATOR, id),
    ]
}
