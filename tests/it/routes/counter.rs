//! The counter.

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use super::{Case, Refused, Situations, case, each_refused, refused};
use crate::harness::{EMPLOYEE, MEMBER, World};

pub async fn cases(world: &World) -> Vec<Case> {
    let definition = world.define(json!({"use_week": "1,2,3"})).await;
    let issue = async || world.issue(definition, 439).await;
    let mut redemptions = Vec::new();
    for _ in 0..2 {
        let used = json!({"mem_coupon_id": issue().await});
        let used = world.call(EMPLOYEE, "/user/auditelecoupon", used).await;
        redemptions.push(used.ok()["id"].as_str().unwrap().parse::<i64>().unwrap());
    }
    let (to_show, to_scan, to_use, to_void) = (issue().await, issue().await, issue().await, issue().await);
    let code = shown(world, to_scan).await;
    let code_of_one_named = shown(world, to_use).await;
    vec![
        case("/client/auditcode", MEMBER, json!({"id": to_show})),
        case("/user/auditelecouponlist", EMPLOYEE, json!({"member_id": 439, "page": 1, "limit": 2})),
        case("/user/auditbycode", EMPLOYEE, json!({"code": code})),
        case(
            "/user/auditelecoupon",
            EMPLOYEE,
            json!({"mem_coupon_id": to_use, "counter_code": code_of_one_named}),
        ),
        case("/user/reverseelecoupon", EMPLOYEE, json!({"id": redemptions[0], "reason": "按錯"})),
        case("/user/voidelecoupon", Caller::Operator, json!({"mem_coupon_id": to_void, "reason": "發錯"})),
        case(
            "/auditelecoupon/getlist",
            EMPLOYEE,
            json!({"page": 1, "limit": 10, "begin": "2026-11-01", "end": "2026-11-30", "shop_id": 1}),
        ),
        case("/auditelecoupon/getshoplist", EMPLOYEE, json!({})),
    ]
}

/// The code that the holder of a coupon shows.
async fn shown(world: &World, id: i64) -> Value {
    world.call(MEMBER, "/client/auditcode", json!({"id": id})).await.ok()["code"].clone()
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let at = Situations::bring_about(world).await;
    let nobody = Caller::Employee(999);
    let (in_closed_shop, in_shop_3) = (Caller::Employee(1002), Caller::Employee(1003));
    let lapses_at_ms = world.clock.now_ms() + 1_000;
    // Shown before the coupon came to where it is.
    let code = |id: i64| json!({"code": world.secrets.counter_code(id, 1, lapses_at_ms)});
    let coupon = |id: i64| json!({"mem_coupon_id": id});
    let id = |id: i64| json!({"id": id});
    let reverse = |id: i64| json!({"id": id, "reason": "按錯"});
    let void = |id: i64| json!({"mem_coupon_id": id, "reason": "發錯"});
    let mut all: Vec<Refused> = vec![
        refused("/user/auditelecouponlist", 310, EMPLOYEE, json!({"member_id": 999})),
        refused("/auditelecoupon/getlist", 310, nobody, json!({})),
        refused("/auditelecoupon/getlist", 1002, EMPLOYEE, json!({"shop_id": 3})),
        refused("/user/reverseelecoupon", 310, nobody, reverse(at.redemption)),
        refused("/user/reverseelecoupon", 2004, EMPLOYEE, reverse(999)),
        refused("/user/reverseelecoupon", 3012, EMPLOYEE, reverse(at.reversed)),
    ];
    all.extend(each_refused(
        "/client/auditcode",
        MEMBER,
        [
            (2001, id(999)),
            (3009, id(at.given_away)),
            (3004, id(at.voided)),
            (3001, id(at.used)),
            (3003, id(at.pending)),
            (4002, id(at.expired)),
        ],
    ));
    for (path, by) in [
        ("/user/auditelecoupon", &coupon as &dyn Fn(i64) -> Value),
        ("/user/auditbycode", &code as &dyn Fn(i64) -> Value),
    ] {
        all.push(refused(path, 310, nobody, by(at.in_hand)));
        all.push(refused(path, 2003, in_closed_shop, by(at.in_hand)));
        all.push(refused(path, 3002, in_shop_3, by(at.only_shop_1)));
        all.extend(each_refused(
            path,
            EMPLOYEE,
            [
                (3004, by(at.voided)),
                (3001, by(at.used)),
                (3003, by(at.pending)),
                (4002, by(at.expired)),
                (4001, by(at.not_started)),
                (4003, by(at.only_mondays)),
            ],
        ));
    }
    let wrong_code = json!({"mem_coupon_id": at.in_hand, "counter_code": "cc1.1.1.1.wrong"});
    all.extend([
        refused("/user/auditelecoupon", 2001, EMPLOYEE, coupon(999)),
        refused("/user/auditelecoupon", 7005, EMPLOYEE, wrong_code),
        refused("/user/auditbycode", 7005, EMPLOYEE, json!({"code": "cc1.1.1.1.wrong"})),
    ]);
    all.extend(each_refused(
        "/user/voidelecoupon",
        Caller::Operator,
        [(2001, void(999)), (3004, void(at.voided)), (3001, void(at.used))],
    ));
    all
}
