//! Orders, and what coupons would be worth in one.

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use super::{Case, Refused, Refusing, Situations, case, each_refused, refused};
use crate::harness::{EMPLOYEE, World};

const GOODS: &str = r#"[{"goods_id":7,"price":"100.00","state":1,"count":2}]"#;

async fn rule(world: &World, definition: i64) -> i64 {
    let body = json!({"amount": 100, "json": [{"coupon_id": definition, "num": 2}]});
    world.operator("/orderamount/add", body).await.ok()["id"].as_str().unwrap().parse().unwrap()
}

pub async fn cases(world: &World) -> Vec<Case> {
    let cash = world.define(json!({"use_limit": 1})).await;
    let rule = rule(world, cash).await;
    let mut coupons = Vec::new();
    for _ in 0..5 {
        coupons.push(world.issue(cash, 439).await);
    }
    let code = world.secrets.counter_code(coupons[0], 1, world.clock.now_ms() + 1_000);
    let order = json!({
        "member_id": 439, "goods": GOODS, "ora_id": rule,
        "order_coupon_list": format!(r#"[{{"coupon_id":{cash},"num":2}}]"#), "use_coupon_list": coupons[0].to_string(),
        "counter_codes": code, "score": 30, "balance": "12.50", "remark": "少冰", "shop_id": 1, "order_no": "T-2",
    });
    let mut first = order.clone();
    (first["order_no"], first["use_coupon_list"]) =
        ("T-1".into(), format!("{},{}", coupons[1], coupons[4]).into());
    first["counter_codes"] = "".into();
    let first = world.call(EMPLOYEE, "/order/add", first).await.ok()["id"].clone();
    // One of its two coupons was taken back by hand before: a cancel leaves that as it is.
    let redemptions = world.call(EMPLOYEE, "/auditelecoupon/getlist", json!({})).await;
    let reverse = json!({"id": redemptions.ok()[0]["id"], "reason": "按錯"});
    world.call(EMPLOYEE, "/user/reverseelecoupon", reverse).await.ok();
    let cancel = json!({"id": first, "return_partner": 1});
    let list = json!({
        "page": 1, "limit": 10, "member_id": 439, "shop_id": 1, "begin": "2026-11-01", "end": "2026-11-30",
    });
    let check = json!({
        "member_id": 439, "coupons": format!("{},{}", coupons[1], coupons[2]), "amount": "150.00", "goods": GOODS,
        "counter_codes": "", "shop_id": 1,
    });
    vec![
        case("/order/add", Caller::Operator, order),
        case("/order/get", EMPLOYEE, json!({"id": first})),
        case("/order/list", EMPLOYEE, list),
        case("/user/checkcoupons", EMPLOYEE, check),
        case("/order/elecouponlist", EMPLOYEE, json!({"member_id": 439, "page": 1, "limit": 2})),
        case("/order/getorderelecoupon", EMPLOYEE, json!({"amount": "150.00", "page": 1, "limit": 10})),
        case("/order/cancelago", Caller::Operator, cancel.clone()),
        case("/order/cancel", Caller::Operator, cancel),
    ]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let at = Situations::bring_about(world).await;
    let refusing = Refusing::bring_about(world).await;
    let nobody = Caller::Employee(999);
    let dear = world.define(json!({"money": "200.01"})).await;
    let dear = world.issue(dear, 439).await;
    let order = |changes: Value| {
        let mut body = json!({"member_id": 439, "goods": GOODS});
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let uses = |coupon: i64| order(json!({"use_coupon_list": [coupon]}));
    let mut all = vec![
        refused("/order/add", 2003, Caller::Employee(1002), uses(at.in_hand)),
        refused("/order/add", 3002, Caller::Employee(1003), uses(at.only_shop_1)),
        refused("/order/add", 310, nobody, order(json!({}))),
    ];
    all.extend(each_refused(
        "/order/add",
        EMPLOYEE,
        [
            (310, order(json!({"member_id": 999}))),
            (2005, order(json!({"ora_id": 999}))),
            (2001, uses(999_999)),
            (2001, uses(at.given_away)),
            (3004, uses(at.voided)),
            (3001, uses(at.used)),
            (3003, uses(at.pending)),
            (4002, uses(at.expired)),
            (4001, uses(at.not_started)),
            (4003, uses(at.only_mondays)),
            (7005, order(json!({"use_coupon_list": [at.in_hand], "counter_codes": "wrong"}))),
            (5004, uses(dear)),
            (5005, order(json!({"use_coupon_list": [at.in_hand, at.only_scanned]}))),
        ],
    ));
    for (code, definition) in [
        (5006, refusing.switched_off),
        (5003, refusing.of_other_levels),
        (5002, refusing.had_already),
        (5001, refusing.sold_out),
    ] {
        let asks = json!({"ora_id": rule(world, definition).await, "order_coupon_list": [{"coupon_id": definition, "num": 1}]});
        all.push(refused("/order/add", code, EMPLOYEE, order(asks)));
    }
    let placed = world.call(EMPLOYEE, "/order/add", order(json!({}))).await.ok()["id"].clone();
    world.call(EMPLOYEE, "/order/cancel", json!({"id": placed})).await.ok();
    for path in ["/order/cancelago", "/order/cancel"] {
        all.extend(each_refused(
            path,
            EMPLOYEE,
            [
                (2006, json!({"id": 999})),
                (3011, json!({"id": placed})),
                (1002, json!({"id": placed, "return_partner": 1})),
            ],
        ));
        all.push(refused(path, 310, nobody, json!({"id": placed})));
    }
    let check = |member: i64| json!({"member_id": member, "coupons": [1], "amount": "1.00"});
    all.extend([
        refused("/order/get", 310, nobody, json!({"id": placed})),
        refused("/order/get", 2006, EMPLOYEE, json!({"id": 999})),
        refused("/order/list", 310, nobody, json!({})),
        refused("/order/elecouponlist", 310, EMPLOYEE, json!({"member_id": 999})),
        refused("/user/checkcoupons", 310, EMPLOYEE, check(999)),
    ]);
    all
}
