//! Imports from CSV: their bad lines are no refusals, and are tested in tests/it/import.rs.

use coupon_ledger::identity::Caller;
use serde_json::json;

use super::{Case, Refused, case};
use crate::harness::World;

pub async fn cases(world: &World) -> Vec<Case> {
    let definition = world.define(json!({})).await;
    let coupons = format!(
        "id,coupon_id,member_id,start_date,end_date,state\n900001,{definition},439,2026-01-01,2026-12-31,unused\n\
         900002,{definition},439,2026-12-31,2026-01-01,unused\n"
    );
    vec![
        case("/elecoupons/import", Caller::Operator, json!({"csv": coupons, "dry_run": 0})),
        case(
            "/member/import",
            Caller::Operator,
            json!({"csv": "id,nickname\n900001,小明\n439,小紅\n", "dry_run": 0}),
        ),
    ]
}

#[expect(clippy::unused_async, reason = "every page has the same shape")]
pub async fn refusals(_world: &World) -> Vec<Refused> {
    Vec::new()
}
