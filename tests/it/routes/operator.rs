//! Definitions, shops, the directory, and issuing.

use coupon_ledger::identity::Caller;
use serde_json::json;

use super::{Case, Refused, Refusing, case, each_refused, refused};
use crate::harness::{EMPLOYEE, FRIEND, World, definition};

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    let fixed = json!({"validity_type": 1, "start_num": "2026-11-01", "end_num": "2026-12-31", "use_week": "1,2,3", "num": 20});
    let offer = world.define(fixed).await;
    let other = world.define(json!({})).await;
    world.issue(offer, 439).await;
    let every_field = json!({
        "get_limit": 2, "level_ids": "1", "use_limit": 1, "shop_ids": "1", "is_self": 1, "is_claim": 1, "need_scan": 1,
        "use_week": "1,7",
    });
    let mut edit = definition(every_field.clone());
    edit["id"] = other.into();
    edit["title"] = "二十元券".into();
    let mut add = definition(every_field);
    add["num"] = 1_000.into();
    let shop = json!({"shop_name": "人民路店", "phone": "020-88888888", "address": "人民路1號"});
    let mut edited_shop = shop.clone();
    (edited_shop["id"], edited_shop["state"]) = (1.into(), 1.into());
    vec![
        case("/elecoupons/add", OPERATOR, add),
        case("/elecoupons/edit", OPERATOR, edit),
        case("/elecoupons/inventory", OPERATOR, json!({"id": offer, "num": 5, "type": 1})),
        case("/elecoupons/state", OPERATOR, json!({"id": other, "state": 0})),
        case("/elecoupons/info", EMPLOYEE, json!({"id": offer})),
        case("/elecoupons/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/shop/add", OPERATOR, shop),
        case("/shop/edit", OPERATOR, edited_shop),
        case("/shop/get", EMPLOYEE, json!({"id": 1})),
        case("/shop/list", Caller::Auditor, json!({"page": 1, "limit": 10})),
        case("/shop/auditqrcode", EMPLOYEE, json!({"id": 1})),
        case("/shop/rotateauditkey", OPERATOR, json!({"id": 1})),
        case("/shop/num", EMPLOYEE, json!({})),
        case("/sendelecoupon/one", EMPLOYEE, json!({"coupon_id": offer, "member_id": 439})),
        case("/sendelecoupon/members", OPERATOR, json!({"coupon_id": offer, "member_ids": "439,999999"})),
        case("/token/revoke", OPERATOR, json!({"revoke": world.token(FRIEND)})),
    ]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let refusing = Refusing::bring_about(world).await;
    let id = json!({"id": 999});
    let issue = |coupon_id: i64, member_id: i64| json!({"coupon_id": coupon_id, "member_id": member_id});
    let many = |coupon_id: i64| json!({"coupon_id": coupon_id, "member_ids": "439,442"});
    let shop = json!({"id": 999, "shop_name": "店", "phone": "1", "address": "a", "state": 1});
    let mut all = vec![
        refused("/elecoupons/edit", 2002, OPERATOR, definition(id.clone())),
        refused("/elecoupons/info", 2002, OPERATOR, id.clone()),
        refused("/elecoupons/state", 2002, OPERATOR, json!({"id": 999, "state": 0})),
        refused("/elecoupons/inventory", 2002, OPERATOR, json!({"id": 999, "num": 1, "type": 1})),
        refused("/shop/edit", 2003, OPERATOR, shop),
        refused("/shop/get", 2003, OPERATOR, id.clone()),
        refused("/shop/auditqrcode", 2003, OPERATOR, id.clone()),
        refused("/shop/rotateauditkey", 2003, OPERATOR, id),
        refused("/sendelecoupon/members", 2002, OPERATOR, many(999)),
        refused("/sendelecoupon/members", 5006, OPERATOR, many(refusing.switched_off)),
    ];
    all.extend(each_refused(
        "/sendelecoupon/one",
        EMPLOYEE,
        [
            (2002, issue(999, 439)),
            (5006, issue(refusing.switched_off, 439)),
            (310, issue(refusing.sold_out, 999)),
            (5003, issue(refusing.of_other_levels, 439)),
            (5002, issue(refusing.had_already, 439)),
            (5001, issue(refusing.sold_out, 439)),
        ],
    ));
    all
}
