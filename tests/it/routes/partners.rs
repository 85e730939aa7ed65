//! Partners: the merchant's pages about them, their own, and what members take.

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use super::{Case, Refused, case, each_refused, refused};
use crate::harness::{FRIEND, MEMBER, PARTNER, World};

fn details(name: &str) -> Value {
    json!({"shop_name": name, "phone": "020-66666666", "address": "人民路2號"})
}

fn edited(id: i64, state: i64) -> Value {
    let mut body = details("隔壁咖啡");
    (body["id"], body["state"]) = (id.into(), state.into());
    body
}

pub async fn cases(world: &World) -> Vec<Case> {
    let added = world.operator("/business/add", details("隔壁")).await;
    assert_eq!(added.ok()["id"], "2");
    let definition = world.define(json!({"shop_ids": "1,2", "num": 20})).await;
    let allot = json!({"business_id": 2, "coupon_id": definition, "num": 10, "end_time": "2026-12-31"});
    let allotment = world.operator("/business/addattract", allot.clone()).await.ok()["id"].clone();
    // One coupon that the partner hands out and a shop redeems, and one of the merchant's that he redeems.
    let taken = world.call(FRIEND, "/wechat/receive", json!({"business_id": 2})).await.ok()[0]["id"].clone();
    let redeem = json!({"mem_coupon_id": taken, "shop_id": 1});
    world.call(FRIEND, "/client/auditcoupon", redeem).await.ok();
    let own = world.issue(definition, 439).await;
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": own, "shop_id": 2})).await.ok();

    let (operator, page) = (Caller::Operator, json!({"page": 1, "limit": 10}));
    let with = |more: Value| {
        let mut body = page.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let days = with(json!({"start": "2026-11-23", "strar": "2026-11-23", "end": "2026-11-23"}));
    let mut days_of_2 = days.clone();
    days_of_2["business_id"] = 2.into();
    vec![
        case("/business/add", operator, details("對面書店")),
        case("/business/edit", operator, edited(2, 1)),
        case("/business/list", Caller::Auditor, page.clone()),
        case("/business/get", Caller::Auditor, json!({"id": 2})),
        case("/business/couponlist", operator, page.clone()),
        case("/business/addattract", operator, allot),
        case("/business/editattract", operator, json!({"id": allotment, "end_time": "2026-12-30"})),
        case("/business/inventory", operator, json!({"bc_id": allotment, "num": 2, "type": 1})),
        case("/business/getattract", operator, with(json!({"id": 2}))),
        case("/business/invenlist", operator, with(json!({"bc_id": allotment}))),
        case("/businesshome/get", PARTNER, json!({})),
        case("/businesshome/giveqrcode", PARTNER, json!({})),
        case("/businesshome/auditqrcode", PARTNER, json!({})),
        case("/businesshome/auditcoupon", PARTNER, days.clone()),
        case("/businesshome/attractcoupon", PARTNER, days),
        case("/statistics/getattract", Caller::Auditor, days_of_2),
        case("/wechat/businesscoupon", MEMBER, with(json!({"business_id": 2}))),
        case("/wechat/getattract", MEMBER, with(json!({"business_id": 2}))),
        case("/wechat/receive", MEMBER, json!({"business_id": 2})),
        case("/wechat/auditlist", MEMBER, with(json!({"business_id": 2, "date": "2026-11-23"}))),
    ]
}

/// Shop 1 is no partner, partner 2 is open, partner 3 is closed.
pub async fn refusals(world: &World) -> Vec<Refused> {
    for id in [2, 3] {
        assert_eq!(world.operator("/business/add", details("隔壁")).await.ok()["id"], id.to_string());
    }
    world.operator("/business/edit", edited(3, 0)).await.ok();
    let definition = world.define(json!({})).await;
    let off = world.define(json!({})).await;
    world.operator("/elecoupons/state", json!({"id": off, "state": 0})).await.ok();
    let operator = Caller::Operator;
    let allot = |business_id: i64, coupon_id: i64| json!({"business_id": business_id, "coupon_id": coupon_id, "num": 1, "end_time": "2026-12-31"});
    let of = |business_id: i64| json!({"business_id": business_id});
    let mut all = vec![
        refused("/business/get", 2005, operator, json!({"id": 1})),
        refused("/business/edit", 2005, operator, edited(1, 1)),
        refused("/business/editattract", 2005, operator, json!({"id": 99, "end_time": "2026-12-31"})),
        refused("/business/getattract", 2005, operator, json!({"id": 1})),
        refused("/business/inventory", 2005, operator, json!({"bc_id": 99, "num": 1, "type": 1})),
        refused("/business/invenlist", 2005, operator, json!({"bc_id": 99})),
        refused("/statistics/getattract", 2005, operator, of(1)),
        refused("/wechat/auditlist", 2005, MEMBER, json!({"business_id": 1, "date": "2026-11-23"})),
    ];
    all.extend(each_refused(
        "/business/addattract",
        operator,
        [
            (2005, allot(1, definition)),
            (2003, allot(3, definition)),
            (2002, allot(2, 99)),
            (5006, allot(2, off)),
        ],
    ));
    for path in [
        "/businesshome/get",
        "/businesshome/giveqrcode",
        "/businesshome/auditqrcode",
        "/businesshome/auditcoupon",
        "/businesshome/attractcoupon",
    ] {
        // Shop 1 is no partner, whatever a token says.
        all.push(refused(path, 2005, Caller::Partner(1), json!({})));
    }
    for path in ["/wechat/businesscoupon", "/wechat/getattract", "/wechat/receive"] {
        all.extend(each_refused(path, MEMBER, [(2005, of(1)), (2003, of(3))]));
    }
    for path in ["/wechat/getattract", "/wechat/receive"] {
        all.push(refused(path, 310, Caller::Member(999), of(2)));
    }
    all
}
