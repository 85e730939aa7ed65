//! Groups of goods, rules, and what they grant.

use coupon_ledger::identity::Caller;
use serde_json::json;

use super::{Case, Refused, case, refused};
use crate::harness::{EMPLOYEE, World};

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    let cash = world.define(json!({})).await;
    let drink = world.define(json!({"type": 2, "title": "飲品券", "deduction": "0"})).await;
    let second = json!({"amount": 300, "json": [{"coupon_id": cash, "num": 1}]});
    world.operator("/orderamount/add", second).await.ok();
    world.operator("/goodsgroup/add", json!({"title": "食品"})).await.ok();
    // Grant 1 hangs on the rule above; the calls below add the ones from 2 on.
    let id = |id: i64| json!({"id": id});
    let num = |id: i64, num: i64| json!({"json": format!(r#"[{{"id":{id},"num":{num}}}]"#)});
    let some = |id: i64| format!(r#"[{{"id":{id},"num":2}}]"#);
    let paged = |field: &str| json!({field: 1, "page": 1, "limit": 10});
    vec![
        case("/goodsgroup/add", OPERATOR, json!({"title": "飲料"})),
        case("/goodsgroup/edit", OPERATOR, json!({"id": 1, "title": "熱飲"})),
        case("/goodsgroup/setgoods", OPERATOR, json!({"id": 1, "goods_ids": "7,8"})),
        case("/goodsgroup/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/goodselecoupon/couponlist", EMPLOYEE, paged("goods_group_id")),
        case("/goodselecoupon/add", OPERATOR, json!({"goodsgroup_id": 1, "coupon_ids": some(cash)})),
        case("/goodselecoupon/edit", OPERATOR, num(2, 3)),
        case("/goodsgroup/info", EMPLOYEE, id(1)),
        case("/goods/get", EMPLOYEE, id(7)),
        case("/goods/checkinfo", EMPLOYEE, json!({"id": 7, "member_id": 439})),
        case(
            "/orderamount/add",
            OPERATOR,
            json!({"amount": 200, "json": format!(r#"[{{"coupon_id":{cash},"num":10}}]"#)}),
        ),
        case("/orderamount/edit", OPERATOR, json!({"id": 1, "amount": 100, "json": r#"[{"id":1,"num":5}]"#})),
        case("/orderamount/info", EMPLOYEE, id(1)),
        case("/orderamount/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/orderelecoupon/couponlist", EMPLOYEE, paged("ora_id")),
        case("/orderelecoupon/add", OPERATOR, json!({"ora_id": 1, "coupon_ids": drink.to_string()})),
        case("/orderelecoupon/getlist", EMPLOYEE, paged("ora_id")),
        case("/memberelecoupon/couponlist", EMPLOYEE, paged("level_id")),
        case(
            "/memberelecoupon/add",
            OPERATOR,
            json!({"level_id": 1, "coupon_id": format!("{cash},{drink}")}),
        ),
        case("/memberelecoupon/list", EMPLOYEE, paged("level_id")),
        case("/memberelecoupon/edit", OPERATOR, num(5, 2)),
        case("/memberlevel/checkinfo", EMPLOYEE, json!({"id": 1, "member_id": 439})),
        case("/birthdaycoupon/set", OPERATOR, json!({"coupon_ids": some(drink)})),
        case("/birthdaycoupon/get", EMPLOYEE, json!({})),
        case("/goodselecoupon/del", OPERATOR, id(2)),
        case("/orderelecoupon/del", OPERATOR, id(1)),
        case("/memberelecoupon/del", OPERATOR, id(5)),
        case("/goodsgroup/del", OPERATOR, id(1)),
        case("/orderamount/del", OPERATOR, id(1)),
    ]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let cash = world.define(json!({})).await;
    world.operator("/goodsgroup/add", json!({"title": "飲料"})).await.ok();
    let rule = json!({"amount": 100, "json": [{"coupon_id": cash, "num": 1}]});
    world.operator("/orderamount/add", rule).await.ok();
    let id = json!({"id": 999});
    let nothing = json!({"json": [{"id": 999, "num": 1}]});
    let some = |id: i64| json!([{"id": id, "num": 1}]);
    vec![
        refused("/goodsgroup/info", 2005, EMPLOYEE, id.clone()),
        refused("/goodsgroup/edit", 2005, OPERATOR, json!({"id": 999, "title": "熱飲"})),
        refused("/goodsgroup/del", 2005, OPERATOR, id.clone()),
        refused("/goodsgroup/setgoods", 2005, OPERATOR, json!({"id": 999, "goods_ids": "7"})),
        refused("/goodselecoupon/couponlist", 2005, EMPLOYEE, json!({"goods_group_id": 999})),
        refused(
            "/goodselecoupon/add",
            2005,
            OPERATOR,
            json!({"goodsgroup_id": 999, "coupon_ids": some(cash)}),
        ),
        refused("/goodselecoupon/add", 2002, OPERATOR, json!({"goodsgroup_id": 1, "coupon_ids": some(999)})),
        refused("/goodselecoupon/edit", 2005, OPERATOR, nothing.clone()),
        refused("/goodselecoupon/del", 2005, OPERATOR, id.clone()),
        refused("/goods/checkinfo", 310, EMPLOYEE, json!({"id": 7, "member_id": 999})),
        refused("/orderamount/info", 2005, EMPLOYEE, id.clone()),
        refused(
            "/orderamount/add",
            2002,
            OPERATOR,
            json!({"amount": 100, "json": [{"coupon_id": 999, "num": 1}]}),
        ),
        refused("/orderamount/edit", 2005, OPERATOR, json!({"id": 999, "amount": 100})),
        refused("/orderamount/del", 2005, OPERATOR, id.clone()),
        refused("/orderelecoupon/couponlist", 2005, EMPLOYEE, json!({"ora_id": 999})),
        refused("/orderelecoupon/getlist", 2005, EMPLOYEE, json!({"ora_id": 999})),
        refused("/orderelecoupon/add", 2005, OPERATOR, json!({"ora_id": 999, "coupon_ids": [cash]})),
        refused("/orderelecoupon/add", 2002, OPERATOR, json!({"ora_id": 1, "coupon_ids": [999]})),
        refused("/orderelecoupon/del", 2005, OPERATOR, id.clone()),
        refused("/memberelecoupon/add", 2002, OPERATOR, json!({"level_id": 1, "coupon_id": [999]})),
        refused("/memberelecoupon/edit", 2005, OPERATOR, nothing),
        refused("/memberelecoupon/del", 2005, OPERATOR, id),
        refused("/memberlevel/checkinfo", 310, EMPLOYEE, json!({"id": 1, "member_id": 999})),
        refused("/birthdaycoupon/set", 2002, OPERATOR, json!({"coupon_ids": some(999)})),
    ]
}
