//! The manual's page, sample by sample: keys, types and formats are the law, oddities included. Where its data is
//! consistent it is reproduced whole; the operators' side and the life of a row follow.

use coupon_ledger::clock::Zone;
use coupon_ledger::coupon::{Coupon, CouponCommand, Origin, Source};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::Meta;
use serde_json::{Value, json};

use crate::harness::{DAY, EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, NOON, Reply, World};

/// 2018-11-24 10:31:41 in Shanghai, a Saturday: when the manual's sample coupon was issued and given.
const ISSUED: i64 = 1_543_026_701_000;
/// 2018-11-27 11:44:03 in Shanghai, a Tuesday: when the manual's sample coupon was used.
const USED: i64 = 1_543_290_243_000;
/// 2018-11-27 12:48:07 in Shanghai: when it was reviewed.
const REVIEWED: i64 = 1_543_294_087_000;

const PICTURE: &str = "http://thirdwx.qlogo.cn/mmopen/ajNVdqHZLLChaQIy7oIhickkOCPaSkujDXcWVnBjeqZNg23vR1l6wa1Ht94BzW627MpOTreXxgdeV0MW3zsHTGw/132";

/// One snapshot of a whole answer for both engines.
macro_rules! sample {
    ($name:literal, $reply:expr) => {{
        let reply = &$reply;
        insta::allow_duplicates! { insta::assert_json_snapshot!($name, reply.body) }
    }};
}

/// The manual's world in November 2018: members 439 and 442, shop 1, employee 1000.
async fn manual(engine: Engine) -> World {
    let world = World::at(engine, ISSUED, Zone::default()).await;
    world
        .operator("/member/add", json!({"id": 439, "nickname": "小明", "headimgurl": "http://p/439"}))
        .await
        .ok();
    world.operator("/member/add", json!({"id": 442, "nickname": "黃明波", "headimgurl": PICTURE})).await.ok();
    let shop = json!({"shop_name": "總店", "phone": "020-88888888", "address": "天河路1號"});
    assert_eq!(world.operator("/shop/add", shop).await.ok()["id"], "1");
    world.operator("/user/add", json!({"id": 1000, "name": "店員", "shop_id": 1})).await.ok();
    world
}

/// The manual's definition, with these fields changed.
async fn define_sample(world: &World, changes: Value) -> i64 {
    let mut body = json!({
        "type": 2, "title": "測試電子券測試電子券測試", "deduction": "10.00", "money": "0", "validity_type": 1,
        "start_num": "2018-11-01", "end_num": "2019-01-01", "use_week": "1,2,3", "is_self": 0, "is_giving": 1,
        "get_limit_type": 1, "rules": "我是使用規則",
    });
    for (name, value) in changes.as_object().unwrap() {
        body[name] = value.clone();
    }
    world.operator("/elecoupons/add", body).await.ok()["id"].as_i64().unwrap()
}

/// A coupon from a mass send: the manual's `come` 0, with nobody behind it.
async fn send(world: &World, definition_id: i64, member_id: i64) -> i64 {
    let id = world.ledger.next_id("coupon", false).await.unwrap();
    let issue = CouponCommand::Issue { definition_id, member_id, origin: Origin::of(Source::MassSend, 0) };
    let meta = Meta {
        caller: Caller::System,
        at: world.ledger.now(),
        request_id: "send".to_owned(),
        receipt: None,
        job_id: None,
    };
    world.ledger.execute::<Coupon>(id, &issue, &meta).await.unwrap();
    id
}

/// The whole answer, key order included, is the manual's.
#[track_caller]
fn assert_is_the_manuals(reply: &Reply, sample: &str) {
    let sample: Value = serde_json::from_str(sample).unwrap();
    assert_eq!(reply.body.to_string(), sample.to_string());
}

/// A row of couponlist in this state, if the coupon is there.
async fn row(world: &World, who: Caller, state: i64, id: i64) -> Option<Value> {
    let list = world.call(who, "/client/couponlist", json!({"state": state, "limit": 100})).await;
    list.ok().as_array().unwrap().iter().find(|row| row["id"] == id).cloned()
}

async fn info(world: &World, who: Caller, id: i64) -> Value {
    world.call(who, "/client/couponinfo", json!({"id": id})).await.ok().clone()
}

/// Gives a coupon and lets it be received.
async fn pass(world: &World, giver: Caller, receiver: Caller, id: i64) {
    let code = world.give(giver, id).await;
    world.call(receiver, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
}

async fn redeem(world: &World, who: Caller, id: i64) -> Reply {
    world.call(who, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await
}

on_both_engines! {
    /// The sample of couponlist has these keys in this order.
    async fn couponlist_has_exactly_the_samples_keys(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        insta::allow_duplicates! { insta::assert_json_snapshot!("couponlist", list.body); }
        assert_eq!(id, 1);
        assert_eq!(world.call(FRIEND, "/client/couponinfo", json!({"id": id})).await.code(), 2001);
        world.close().await;
    }

    async fn couponlist_answers_the_manuals_sample_newest_id_first(engine: Engine) {
        let world = manual(engine).await;
        let definition = define_sample(&world, json!({})).await;
        for id in 1..=3 {
            assert_eq!(send(&world, definition, 439).await, id);
        }
        let body = json!({"state": 0, "page": 1, "limit": 10});
        let list = world.call(MEMBER, "/client/couponlist", body).await;
        sample!("couponlist_of_the_manual", list);
        // The sample's use_date 1111 contradicts its own use_id 0; everything else is as printed.
        let first = r#"{"id":3,"member_id":439,"coupon_id":1,"start_date":"2018-11-01","end_date":"2019-01-01",
            "create_date":1543026701,"use_date":0,"give_date":0,"type":2,"use_id":0,"receive_id":0,"evaluation":"",
            "score":0,"evaluation_time":0,"is_read":0,"coupon_title":"測試電子券測試電子券測試","deduction":"10.00",
            "is_self":0}"#;
        let first: Value = serde_json::from_str(first).unwrap();
        assert_eq!(list.ok()[0].to_string(), first.to_string());
        for state in [1, 2] {
            let empty = world.call(MEMBER, "/client/couponlist", json!({"state": state})).await;
            assert_is_the_manuals(&empty, r#"{"code":0,"info":"成功","data":[]}"#);
        }
        world.close().await;
    }

    async fn couponinfo_answers_the_manuals_sample_of_a_coupon_given_and_received(engine: Engine) {
        let world = manual(engine).await;
        let validity = json!({"start_num": "2018-11-02", "end_num": "2018-11-24"});
        let definition = define_sample(&world, validity).await;
        let id = send(&world, definition, 439).await;
        let in_hand = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_in_hand", in_hand);
        assert_eq!(in_hand.ok()["receive_member_info"], Value::Null);
        let code = world.give(MEMBER, id).await;
        let pending = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_while_pending", pending);
        world.advance(HOUR);
        world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        let given = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_given", given);
        assert_is_the_manuals(&given, r#"{
            "code": 0,
            "info": "成功",
            "data":{
            "id": 1,
            "member_id": 439,
            "coupon_id": 1,
            "start_date": "2018-11-02",
            "end_date": "2018-11-24",
            "create_date": 1543026701,
            "use_date": 0,
            "give_date": "2018-11-24 10:31:41",
            "type": 0,
            "use_id": 439,
            "give_id": 0,
            "receive_id": 442,
            "evaluation": "",
            "score": 0,
            "evaluation_time": 0,
            "is_read": 1,
            "come": 0,
            "user_id": 0,
            "order_id": 0,
            "goods_id": 0,
            "receive_member_info":{
            "nickname": "黃明波",
            "headimgurl": "http://thirdwx.qlogo.cn/mmopen/ajNVdqHZLLChaQIy7oIhickkOCPaSkujDXcWVnBjeqZNg23vR1l6wa1Ht94BzW627MpOTreXxgdeV0MW3zsHTGw/132"
            },
            "couponInfo":{
            "title": "測試電子券測試電子券測試",
            "type": 2,
            "code": 0,
            "use_week": "1,2,3",
            "is_self": 0,
            "is_giving": 1,
            "rules": "我是使用規則"
            }
            }
            }"#);
        let received = world.call(FRIEND, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_received", received);
        let list = world.call(FRIEND, "/client/couponlist", json!({"state": 0})).await;
        sample!("couponlist_of_the_receiver", list);
        world.close().await;
    }

    async fn auditcoupon_auditcouponinfo_and_evaluacoupon_answer_the_manuals_samples(engine: Engine) {
        let world = manual(engine).await;
        let definition = define_sample(&world, json!({"is_self": 1})).await;
        let (first, second) = (send(&world, definition, 439).await, send(&world, definition, 439).await);
        world.clock.set(USED);
        // A member's call takes the next number of a redemption, whether or not it comes to one.
        assert_eq!(redeem(&world, FRIEND, first).await.code(), 2001);
        let used = redeem(&world, MEMBER, first).await;
        sample!("auditcoupon", used);
        assert_is_the_manuals(&used, r#"{"code":0,"info":"成功",
            "data":{"mem_coupon_id":"1","user_id":0,"create_date":1543290243,"coupon_id":1,"id":"2"}}"#);
        let detail = world.call(MEMBER, "/client/auditcouponinfo", json!({"id": 2})).await;
        sample!("auditcouponinfo", detail);
        assert_eq!(detail.ok()["create_date"], "2018年11月27 11:44:03");
        assert_eq!(world.call(FRIEND, "/client/auditcouponinfo", json!({"id": 2})).await.code(), 2004);
        redeem(&world, MEMBER, second).await.ok();
        world.clock.set(REVIEWED);
        let body = json!({"id": second, "evaluation": "非常給力", "score": 5});
        let review = world.call(MEMBER, "/client/evaluacoupon", body).await;
        sample!("evaluacoupon", review);
        assert_is_the_manuals(&review, r#"{"code":0,"info":"成功",
            "data":{"id":"2","evaluation":"非常給力","score":"5","evaluation_time":1543294087}}"#);
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await;
        sample!("couponlist_of_used_coupons", list);
        let again = redeem(&world, MEMBER, first).await;
        sample!("auditcoupon_of_a_used_coupon", again);
        world.close().await;
    }

    async fn a_gift_answers_its_code_and_what_would_be_received(engine: Engine) {
        let world = manual(engine).await;
        let definition = define_sample(&world, json!({})).await;
        let id = send(&world, definition, 439).await;
        let given = world.call(MEMBER, "/client/givecoupon", json!({"id": id})).await;
        sample!("givecoupon", given);
        assert!((100_000..=999_999).contains(&given.ok()["code"].as_i64().unwrap()));
        assert_eq!(given.ok()["lapse_date"], "2018-11-25 10:31:41");
        world.advance(60_000);
        let again = world.call(MEMBER, "/client/givecoupon", json!({"id": id})).await;
        assert_eq!(again.body, given.body);
        let code = given.ok()["code"].clone();
        let gift = world.call(FRIEND, "/client/giftinfo", json!({"id": id, "code": code})).await;
        sample!("giftinfo", gift);
        let wrong = world.call(FRIEND, "/client/giftinfo", json!({"id": id, "code": 1234})).await;
        sample!("giftinfo_with_a_wrong_code", wrong);
        let received = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await;
        sample!("getcoupon", received);
        let again = world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await;
        assert_eq!(again.body, received.body);
        world.close().await;
    }

    async fn withdrawcoupon_puts_the_coupon_back_and_couponcount_counts_each_state(engine: Engine) {
        let world = manual(engine).await;
        let definition = define_sample(&world, json!({"is_self": 1})).await;
        let short = define_sample(&world, json!({"end_num": "2018-11-26"})).await;
        let ids = [
            send(&world, definition, 439).await,
            send(&world, definition, 439).await,
            send(&world, short, 439).await,
        ];
        let before = row(&world, MEMBER, 0, ids[0]).await;
        world.give(MEMBER, ids[0]).await;
        assert_eq!(row(&world, MEMBER, 0, ids[0]).await.unwrap()["give_date"], "2018-11-24 10:31:41");
        let back = world.call(MEMBER, "/client/withdrawcoupon", json!({"id": ids[0]})).await;
        sample!("withdrawcoupon", back);
        assert_eq!(row(&world, MEMBER, 0, ids[0]).await, before);
        world.clock.set(USED);
        redeem(&world, MEMBER, ids[1]).await.ok();
        let count = world.call(MEMBER, "/client/couponcount", json!({})).await;
        sample!("couponcount", count);
        assert_eq!(count.ok(), &json!({"unused": 1, "used": 1, "expired": 1}));
        assert!(row(&world, MEMBER, 2, ids[2]).await.is_some());
        world.close().await;
    }

    async fn getauditcoupon_lists_what_the_member_could_redeem_now(engine: Engine) {
        let world = manual(engine).await;
        let other = json!({"shop_name": "分店", "phone": "1", "address": "b"});
        assert_eq!(world.operator("/shop/add", other).await.ok()["id"], "2");
        let usable = define_sample(&world, json!({"is_self": 1})).await;
        let elsewhere = define_sample(&world, json!({"is_self": 1, "shop_ids": "2", "use_week": ""})).await;
        let staff = define_sample(&world, json!({})).await;
        let later = define_sample(&world, json!({"is_self": 1, "start_num": "2018-11-28"})).await;
        let thursday = define_sample(&world, json!({"is_self": 1, "use_week": "4"})).await;
        for definition in [usable, elsewhere, staff, later, thursday] {
            send(&world, definition, 439).await;
        }
        let given = send(&world, usable, 439).await;
        world.clock.set(USED);
        world.give(MEMBER, given).await;
        let anywhere = world.call(MEMBER, "/client/getauditcoupon", json!({})).await;
        sample!("getauditcoupon", anywhere);
        assert_eq!(anywhere.ok().as_array().unwrap().len(), 2);
        let here = world.call(MEMBER, "/client/getauditcoupon", json!({"shop_id": 1})).await;
        assert_eq!(here.ok().as_array().unwrap().len(), 1);
        assert_eq!(here.ok()[0]["id"], 1);
        assert_eq!(world.call(MEMBER, "/client/getauditcoupon", json!({"shop_id": 9})).await.code(), 2003);
        // Whatever is listed can be redeemed.
        for row in here.ok().as_array().unwrap() {
            redeem(&world, MEMBER, row["id"].as_i64().unwrap()).await.ok();
        }
        world.close().await;
    }

    async fn shopid_takes_only_the_url_that_was_signed_byte_for_byte(engine: Engine) {
        let world = manual(engine).await;
        let mut qr = world.operator("/shop/auditqrcode", json!({"id": 1})).await;
        let url = qr.ok()["url"].as_str().unwrap().to_owned();
        assert!(qr.ok()["svg"].as_str().unwrap().contains("<svg"));
        qr.body["data"]["svg"] = "(a picture)".into();
        sample!("auditqrcode", qr);
        let ask = async |url: &str| world.call(MEMBER, "/client/shopid", json!({"audit_url": url})).await;
        let known = ask(&url).await;
        sample!("shopid", known);
        assert_is_the_manuals(&known, r#"{"code":0,"info":"成功","data":1}"#);
        for at in 0..url.len() {
            let mut other = url.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert_eq!(ask(&other).await.code(), 2003, "{other}");
        }
        let padded = url.replacen("/qr/1/", "/qr/01/", 1);
        for other in [format!("{url}/"), format!("{url}?a"), format!(" {url}"), format!("{url} "), padded] {
            assert_eq!(ask(&other).await.code(), 2003, "{other:?}");
        }
        let refused = ask("https://elsewhere.example/qr/1/1/AAAA").await;
        sample!("shopid_of_a_url_that_is_not_ours", refused);
        world.close().await;
    }

    async fn a_browser_that_opens_a_shops_url_gets_its_name_until_it_is_closed_or_rotated(engine: Engine) {
        let world = manual(engine).await;
        let details = |name: &str, state: i64| {
            json!({"id": 1, "shop_name": name, "phone": "1", "address": "a", "state": state})
        };
        world.operator("/shop/edit", details("<總店> & \"Co\"", 1)).await.ok();
        let url = async || {
            let qr = world.operator("/shop/auditqrcode", json!({"id": 1})).await;
            qr.ok()["url"].as_str().unwrap().to_owned()
        };
        let open = async |url: &str| {
            let path = url.strip_prefix("http://127.0.0.1:8787").unwrap().to_owned();
            world.raw("GET", &path, &[], Vec::new()).await
        };
        let first = url().await;
        let page = open(&first).await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
        sample!("shop_page", page);
        let mut other = first.clone();
        other.pop();
        assert_eq!(open(&other).await.status, 404);
        let ask = async |url: &str| world.call(MEMBER, "/client/shopid", json!({"audit_url": url})).await.code();
        world.operator("/shop/edit", details("總店", 0)).await.ok();
        assert_eq!((ask(&first).await, open(&first).await.status.as_u16()), (2003, 404));
        world.operator("/shop/edit", details("總店", 1)).await.ok();
        assert_eq!((ask(&first).await, open(&first).await.status.as_u16()), (0, 200));
        let rotated = world.operator("/shop/rotateauditkey", json!({"id": 1})).await;
        let second = rotated.ok()["url"].as_str().unwrap().to_owned();
        assert_eq!(second, url().await);
        assert_eq!((ask(&first).await, open(&first).await.status.as_u16()), (2003, 404));
        assert_eq!((ask(&second).await, open(&second).await.status.as_u16()), (0, 200));
        world.close().await;
    }

    async fn a_definition_that_needs_the_scan_takes_only_that_very_shops_url(engine: Engine) {
        let world = manual(engine).await;
        let other = json!({"shop_name": "分店", "phone": "1", "address": "b"});
        world.operator("/shop/add", other).await.ok();
        let definition = define_sample(&world, json!({"is_self": 1, "need_scan": 1, "use_week": ""})).await;
        let id = send(&world, definition, 439).await;
        let scan = async |url: Option<String>| {
            let mut body = json!({"mem_coupon_id": id, "shop_id": 1});
            if let Some(url) = url {
                body["audit_url"] = url.into();
            }
            world.call(MEMBER, "/client/auditcoupon", body).await.code()
        };
        let url = async |shop: i64| {
            let qr = world.operator("/shop/auditqrcode", json!({"id": shop})).await;
            qr.ok()["url"].as_str().unwrap().to_owned()
        };
        assert_eq!(scan(None).await, 3010);
        assert_eq!(scan(Some(url(2).await)).await, 3010);
        assert_eq!(scan(Some(format!("{}x", url(1).await))).await, 3010);
        let old = url(1).await;
        world.operator("/shop/rotateauditkey", json!({"id": 1})).await.ok();
        assert_eq!(scan(Some(old)).await, 3010);
        assert_eq!(scan(Some(url(1).await)).await, 0);
        world.close().await;
    }

    async fn a_member_claims_what_cangetcoupon_shows_him(engine: Engine) {
        let world = manual(engine).await;
        let claimable = json!({"is_claim": 1, "get_limit_type": 2, "get_limit": 1, "num": 5});
        let definition = define_sample(&world, claimable).await;
        define_sample(&world, json!({})).await;
        let offered = world.call(MEMBER, "/client/cangetcoupon", json!({})).await;
        sample!("cangetcoupon", offered);
        let claimed = world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await;
        sample!("claimcoupon", claimed);
        let coupon = info(&world, MEMBER, claimed.ok()["id"].as_i64().unwrap()).await;
        assert_eq!((&coupon["come"], &coupon["user_id"]), (&json!(8), &json!(0)));
        assert_eq!(world.call(MEMBER, "/client/cangetcoupon", json!({})).await.ok(), &json!([]));
        assert_eq!(world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await.code(), 5002);
        assert_eq!(world.call(MEMBER, "/client/claimcoupon", json!({"id": definition + 1})).await.code(), 5006);
        let left = world.operator("/elecoupons/info", json!({"id": definition})).await;
        assert_eq!(left.ok()["inventory"], 4);
        world.close().await;
    }

    async fn operators_define_switch_and_stock(engine: Engine) {
        let world = manual(engine).await;
        let fields = json!({
            "type": 1, "title": "測試電子券", "deduction": "10.00", "money": "100.00", "validity_type": 1,
            "start_num": "2018-11-01", "end_num": "2019-01-01", "use_week": "3,1,2", "is_giving": 1,
            "get_limit_type": 1, "get_limit": 2, "level_ids": [], "use_limit": 1, "rules": "我是使用規則",
            "shop_ids": "0", "num": 20,
        });
        sample!("elecoupons_add", world.operator("/elecoupons/add", fields).await);
        sample!("elecoupons_info", world.operator("/elecoupons/info", json!({"id": 1})).await);
        let counted = json!({"start_num": "1", "end_num": "30", "get_limit_type": 4, "level_ids": "2,3"});
        world.define(counted).await;
        world.define(json!({"validity_type": 3, "start_num": "", "end_num": ""})).await;
        sample!("elecoupons_getlist", world.operator("/elecoupons/getlist", json!({})).await);
        let more = world.operator("/elecoupons/inventory", json!({"id": 1, "num": 5, "type": 1})).await;
        sample!("elecoupons_inventory", more);
        world.issue(1, 439).await;
        let refused = world.operator("/elecoupons/inventory", json!({"id": 1, "num": 25, "type": 0})).await;
        sample!("elecoupons_inventory_below_what_is_issued", refused);
        let less = world.operator("/elecoupons/inventory", json!({"id": 1, "num": 24, "type": 0})).await;
        assert_eq!(less.ok(), &json!({"id": 1, "num": 1}));
        sample!("elecoupons_state", world.operator("/elecoupons/state", json!({"id": 1, "state": 0})).await);
        sample!("elecoupons_info_after", world.operator("/elecoupons/info", json!({"id": 1})).await);
        sample!("elecoupons_info_of_nothing", world.operator("/elecoupons/info", json!({"id": 9})).await);
        world.close().await;
    }

    async fn operators_keep_shops_members_and_employees(engine: Engine) {
        let world = manual(engine).await;
        let shop = json!({"shop_name": "人民路店", "phone": "020-88888888", "address": "人民路1號"});
        sample!("shop_add", world.operator("/shop/add", shop).await);
        let edit = json!({"id": 2, "shop_name": "人民路店", "phone": "1", "address": "人民路2號", "state": 0});
        sample!("shop_edit", world.operator("/shop/edit", edit).await);
        sample!("shop_get", world.operator("/shop/get", json!({"id": 2})).await);
        sample!("shop_list", world.operator("/shop/list", json!({})).await);
        let member = json!({
            "id": 500, "nickname": "阿芳", "headimgurl": "http://p/500", "member_name": "陳芳", "phone": "13800000000",
            "member_card": "VIP-7", "level_id": 2, "shop_id": 1, "tag_ids": "4,5", "birthday": "1992-02-29",
            "card_end": "2019-06-30",
        });
        sample!("member_add", world.operator("/member/add", member).await);
        sample!("member_get", world.operator("/member/get", json!({"id": 500})).await);
        sample!("member_get_of_nobody", world.operator("/member/get", json!({"id": 501})).await);
        let employee = json!({"id": 1001, "name": "小李", "phone": "139", "shop_id": 2});
        sample!("user_add", world.operator("/user/add", employee).await);
        sample!("user_info", world.operator("/user/info", json!({"id": 1001})).await);
        world.close().await;
    }

    async fn employees_send_redeem_reverse_and_operators_void(engine: Engine) {
        let world = manual(engine).await;
        let definition = define_sample(&world, json!({})).await;
        world.clock.set(USED);
        let body = json!({"coupon_id": definition, "member_id": 439});
        let sent = world.call(EMPLOYEE, "/sendelecoupon/one", body).await;
        sample!("sendelecoupon_one", sent);
        let coupon = info(&world, MEMBER, 1).await;
        assert_eq!((&coupon["come"], &coupon["user_id"]), (&json!(5), &json!(1000)));
        let used = world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": 1})).await;
        sample!("user_auditelecoupon", used);
        assert_eq!(info(&world, MEMBER, 1).await["use_id"], 1000);
        let back = world.call(EMPLOYEE, "/user/reverseelecoupon", json!({"id": 1, "reason": "按錯"})).await;
        sample!("user_reverseelecoupon", back);
        let void = world.operator("/user/voidelecoupon", json!({"mem_coupon_id": 1, "reason": "發錯"})).await;
        sample!("user_voidelecoupon", void);
        let doomed = world.token(FRIEND);
        let revoked = world.operator("/token/revoke", json!({"revoke": doomed})).await;
        assert_eq!(revoked.ok().as_object().unwrap().keys().collect::<Vec<_>>(), ["revoked"]);
        let bearer = format!("Bearer {doomed}");
        let late = world.request("/client/couponcount", &[("authorization", &bearer)], "{}").await;
        assert_eq!((late.status.as_u16(), late.code()), (401, 1001));
        world.close().await;
    }

    async fn a_givers_row_stays_as_it_was_at_receipt(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        info(&world, MEMBER, id).await;
        pass(&world, MEMBER, FRIEND, id).await;
        let (frozen, detail) = (row(&world, MEMBER, 1, id).await.unwrap(), info(&world, MEMBER, id).await);
        let used = redeem(&world, FRIEND, id).await;
        let review = json!({"id": id, "evaluation": "好", "score": 4});
        world.call(FRIEND, "/client/evaluacoupon", review).await.ok();
        let redemption: i64 = used.ok()["id"].as_str().unwrap().parse().unwrap();
        let back = json!({"id": redemption, "reason": "按錯"});
        world.call(EMPLOYEE, "/user/reverseelecoupon", back).await.ok();
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": id, "reason": "發錯"})).await.ok();
        world.advance(40 * DAY);
        assert_eq!(row(&world, MEMBER, 1, id).await.unwrap(), frozen);
        assert_eq!(info(&world, MEMBER, id).await, detail);
        assert_eq!(redeem(&world, MEMBER, id).await.code(), 3009);
        world.close().await;
    }

    async fn a_coupon_back_with_an_earlier_holder_is_in_hand_again(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        info(&world, MEMBER, id).await;
        pass(&world, MEMBER, FRIEND, id).await;
        info(&world, FRIEND, id).await;
        world.advance(HOUR);
        pass(&world, FRIEND, MEMBER, id).await;
        let back = row(&world, MEMBER, 0, id).await.unwrap();
        assert_eq!(
            (&back["give_date"], &back["use_id"], &back["receive_id"], &back["is_read"]),
            (&json!(0), &json!(0), &json!(0), &json!(0))
        );
        let opened = world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_of_a_coupon_that_came_back", opened);
        assert_eq!((&opened.ok()["give_id"], &opened.ok()["receive_id"]), (&json!(442), &json!(0)));
        let friends = world.call(FRIEND, "/client/couponinfo", json!({"id": id})).await;
        sample!("couponinfo_of_who_had_it_in_between", friends);
        assert!(row(&world, MEMBER, 1, id).await.is_none());
        redeem(&world, MEMBER, id).await.ok();
        world.close().await;
    }

    async fn a_reversal_puts_the_coupon_back_and_its_review_stays(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let used = redeem(&world, MEMBER, id).await;
        let redemption: i64 = used.ok()["id"].as_str().unwrap().parse().unwrap();
        let review = json!({"id": id, "evaluation": "非常給力", "score": 5});
        world.call(MEMBER, "/client/evaluacoupon", review.clone()).await.ok();
        world.advance(HOUR);
        let back = json!({"id": redemption, "reason": "按錯"});
        world.call(EMPLOYEE, "/user/reverseelecoupon", back.clone()).await.ok();
        assert_eq!(world.call(EMPLOYEE, "/user/reverseelecoupon", back).await.code(), 3012);
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        sample!("couponlist_after_a_reversal", list);
        let detail = world.call(MEMBER, "/client/auditcouponinfo", json!({"id": redemption})).await;
        sample!("auditcouponinfo_after_a_reversal", detail);
        assert_eq!(world.call(MEMBER, "/client/evaluacoupon", review.clone()).await.code(), 3006);
        redeem(&world, MEMBER, id).await.ok();
        assert_eq!(world.call(MEMBER, "/client/evaluacoupon", review).await.code(), 3005);
        world.close().await;
    }

    async fn a_voided_coupon_stands_among_the_used_and_frees_its_stock(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"num": 1})).await;
        let id = world.issue(definition, 439).await;
        let body = json!({"coupon_id": definition, "member_id": 439});
        assert_eq!(world.operator("/sendelecoupon/one", body.clone()).await.code(), 5001);
        world.give(MEMBER, id).await;
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": id, "reason": "發錯"})).await.ok();
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 1})).await;
        sample!("couponlist_of_a_voided_coupon", list);
        for (route, body) in [
            ("/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})),
            ("/client/givecoupon", json!({"id": id})),
            ("/client/evaluacoupon", json!({"id": id, "evaluation": "好", "score": 5})),
        ] {
            assert_eq!(world.call(MEMBER, route, body).await.code(), 3004, "{route}");
        }
        world.operator("/sendelecoupon/one", body).await.ok();
        world.close().await;
    }

    async fn an_edited_definition_leaves_issued_coupons_as_they_were(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let (before, detail) = (row(&world, MEMBER, 0, id).await, info(&world, MEMBER, id).await);
        let mut edit = crate::harness::definition(json!({
            "type": 2, "title": "換飲料", "deduction": "0.00", "end_num": "1", "use_week": "7", "is_giving": 0,
            "is_self": 0, "rules": "新規則",
        }));
        edit["id"] = definition.into();
        sample!("elecoupons_edit", world.operator("/elecoupons/edit", edit).await);
        let mut read = row(&world, MEMBER, 0, id).await.unwrap();
        read["is_read"] = 0.into();
        assert_eq!(Some(read), before);
        assert_eq!(info(&world, MEMBER, id).await, detail);
        let newer = world.issue(definition, 439).await;
        assert_eq!(info(&world, MEMBER, newer).await["couponInfo"]["title"], "換飲料");
        redeem(&world, MEMBER, id).await.ok();
        assert_eq!(redeem(&world, MEMBER, newer).await.code(), 3007);
        world.close().await;
    }

    async fn a_definition_that_is_switched_off_issues_nothing_and_leaves_issued_coupons_valid(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"is_claim": 1})).await;
        let (kept, used) = (world.issue(definition, 439).await, world.issue(definition, 439).await);
        world.operator("/elecoupons/state", json!({"id": definition, "state": 0})).await.ok();
        let body = json!({"coupon_id": definition, "member_id": 439});
        let refused = world.operator("/sendelecoupon/one", body.clone()).await;
        sample!("sendelecoupon_one_of_a_definition_that_is_off", refused);
        assert_eq!(world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await.code(), 5006);
        assert_eq!(world.call(MEMBER, "/client/cangetcoupon", json!({})).await.ok(), &json!([]));
        redeem(&world, MEMBER, used).await.ok();
        pass(&world, MEMBER, FRIEND, kept).await;
        redeem(&world, FRIEND, kept).await.ok();
        world.operator("/elecoupons/state", json!({"id": definition, "state": 1})).await.ok();
        world.operator("/sendelecoupon/one", body).await.ok();
        world.close().await;
    }

    async fn a_lapsed_gift_is_in_hand_again_before_anything_writes_it_down(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let id = world.issue(definition, 439).await;
        let before = row(&world, MEMBER, 0, id).await;
        let code = world.give(MEMBER, id).await;
        assert_eq!(world.clock.now_ms(), NOON);
        world.advance(DAY - 1);
        assert_eq!(redeem(&world, MEMBER, id).await.code(), 3003);
        world.advance(1);
        assert_eq!(row(&world, MEMBER, 0, id).await, before);
        assert_eq!(world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.code(), 7003);
        redeem(&world, MEMBER, id).await.ok();
        world.close().await;
    }
}
