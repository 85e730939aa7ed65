//! The member's side.

use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use super::{Case, Refused, Refusing, Situations, case, each_refused, refused};
use crate::harness::{FRIEND, MEMBER, World};

pub async fn cases(world: &World) -> Vec<Case> {
    let offer = world
        .define(json!({
            "validity_type": 1, "start_num": "2026-11-01", "end_num": "2026-12-31", "use_week": "1,2,3", "num": 20,
            "is_claim": 1,
        }))
        .await;
    let issue = async || world.issue(offer, 439).await;
    let audit = |id: i64| json!({"mem_coupon_id": id, "shop_id": 1});
    let used = issue().await;
    let redemption = world.call(MEMBER, "/client/auditcoupon", audit(used)).await.ok()["id"].clone();
    let redemption: i64 = redemption.as_str().unwrap().parse().unwrap();
    let received = issue().await;
    let code = world.give(MEMBER, received).await;
    world.call(FRIEND, "/client/getcoupon", json!({"id": received, "code": code})).await.ok();
    let (to_withdraw, to_look_at, to_receive) = (issue().await, issue().await, issue().await);
    world.give(MEMBER, to_withdraw).await;
    let code_to_look = world.give(MEMBER, to_look_at).await;
    let code_to_receive = world.give(MEMBER, to_receive).await;
    let url = world.operator("/shop/auditqrcode", json!({"id": 1})).await.ok()["url"].clone();
    let (to_use, to_give) = (issue().await, issue().await);
    crate::messages::tell(&world.ledger).await;
    vec![
        case("/client/couponcount", MEMBER, json!({})),
        case("/client/couponlist", MEMBER, json!({"state": 0, "page": 1, "limit": 10})),
        case("/client/getauditcoupon", MEMBER, json!({"shop_id": 1, "page": 1, "limit": 10})),
        case("/client/couponinfo", MEMBER, json!({"id": received})),
        case("/client/shopid", MEMBER, json!({"audit_url": url})),
        case("/client/auditcoupon", MEMBER, json!({"mem_coupon_id": to_use, "shop_id": 1, "audit_url": url})),
        case("/client/auditcouponinfo", MEMBER, json!({"id": redemption})),
        case("/client/evaluacoupon", MEMBER, json!({"id": used, "evaluation": "非常給力", "score": 5})),
        case("/client/givecoupon", MEMBER, json!({"id": to_give})),
        case("/client/withdrawcoupon", MEMBER, json!({"id": to_withdraw})),
        case("/client/giftinfo", FRIEND, json!({"id": to_look_at, "code": code_to_look})),
        case("/client/getcoupon", FRIEND, json!({"id": to_receive, "code": code_to_receive})),
        case("/client/cangetcoupon", MEMBER, json!({})),
        case("/client/claimcoupon", MEMBER, json!({"id": offer})),
        case("/client/messages", MEMBER, json!({"unread": 1, "page": 1, "limit": 10})),
        case("/client/readmessage", MEMBER, json!({"id": 1, "all": 1})),
    ]
}

pub async fn refusals(world: &World) -> Vec<Refused> {
    let at = Situations::bring_about(world).await;
    let refusing = Refusing::bring_about(world).await;
    let nobody = Caller::Member(999);
    let guesser = Caller::Member(900);
    for _ in 0..10 {
        let guess = json!({"id": 999, "code": 0});
        assert_eq!(world.call(guesser, "/client/getcoupon", guess).await.code(), 7003);
    }
    let id = |id: i64| json!({"id": id});
    let audit = |id: i64, shop_id: i64| json!({"mem_coupon_id": id, "shop_id": shop_id});
    let review = |id: i64| json!({"id": id, "evaluation": "好", "score": 5});
    let with_code = |id: i64| json!({"id": id, "code": 0});
    let mut all: Vec<Refused> = vec![
        refused("/client/couponinfo", 2001, FRIEND, id(at.in_hand)),
        refused("/client/auditcouponinfo", 2004, FRIEND, id(at.redemption)),
        refused("/client/getauditcoupon", 2003, MEMBER, json!({"shop_id": 2})),
        refused("/client/shopid", 2003, MEMBER, json!({"audit_url": "https://coupons.example/qr/1/1/AAAA"})),
        refused("/client/withdrawcoupon", 2001, FRIEND, id(at.pending)),
        refused("/client/withdrawcoupon", 7003, MEMBER, id(at.in_hand)),
        refused("/client/cangetcoupon", 310, nobody, json!({})),
        refused("/client/claimcoupon", 310, nobody, id(refusing.sold_out)),
    ];
    all.extend(each_refused(
        "/client/auditcoupon",
        MEMBER,
        [
            (2001, audit(999, 1)),
            (3009, audit(at.given_away, 1)),
            (3004, audit(at.voided, 1)),
            (3001, audit(at.used, 1)),
            (3003, audit(at.pending, 1)),
            (4002, audit(at.expired, 1)),
            (3007, audit(at.only_by_staff, 1)),
            (4001, audit(at.not_started, 1)),
            (4003, audit(at.only_mondays, 1)),
            (2003, audit(at.in_hand, 2)),
            (3002, audit(at.only_shop_1, 3)),
            (3010, audit(at.only_scanned, 1)),
        ],
    ));
    all.extend(each_refused(
        "/client/evaluacoupon",
        MEMBER,
        [
            (2001, review(999)),
            (3009, review(at.given_away)),
            (3004, review(at.voided)),
            (3006, review(at.in_hand)),
            (3005, review(at.reviewed)),
        ],
    ));
    all.extend(each_refused(
        "/client/givecoupon",
        MEMBER,
        [
            (2001, id(999)),
            (3009, id(at.given_away)),
            (3004, id(at.voided)),
            (3001, id(at.used)),
            (4002, id(at.expired)),
            (3008, id(at.not_givable)),
        ],
    ));
    all.extend(each_refused(
        "/client/claimcoupon",
        MEMBER,
        [
            (2002, id(999)),
            (5006, id(refusing.switched_off)),
            (5003, id(refusing.of_other_levels)),
            (5002, id(refusing.had_already)),
            (5001, id(refusing.sold_out)),
        ],
    ));
    for path in ["/client/giftinfo", "/client/getcoupon"] {
        let ways: [(i64, Caller, Value); 5] = [
            (9001, guesser, with_code(at.pending)),
            (7004, MEMBER, with_code(at.pending)),
            (7003, FRIEND, with_code(at.in_hand)),
            (7002, FRIEND, with_code(at.locked)),
            (7001, FRIEND, with_code(at.pending)),
        ];
        all.extend(ways.map(|(code, caller, body)| refused(path, code, caller, body)));
    }
    all
}
