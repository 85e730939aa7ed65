//! Members, their levels and tags, employees.

use coupon_ledger::identity::Caller;
use serde_json::json;

use super::{Case, Refused, case, refused};
use crate::harness::{EMPLOYEE, MEMBER, World};
use crate::wechat::bind;

const OPERATOR: Caller = Caller::Operator;

pub async fn cases(world: &World) -> Vec<Case> {
    world.operator("/memberlevel/add", json!({"id": 2, "name": "金卡會員", "remark": "滿一萬"})).await.ok();
    world.operator("/tag/add", json!({"id": 2, "tag_name": "生客"})).await.ok();
    let member = json!({
        "id": 600, "nickname": "小紅", "headimgurl": "http://p/600", "member_name": "王紅", "phone": "13800000000",
        "member_card": "C600", "level_id": 1, "shop_id": 1, "tag_ids": "1,2", "birthday": "1990-02-28",
        "card_end": "2027-12-31", "sex": 2, "user_id": 1000,
    });
    let mut edit = member.clone();
    edit["nickname"] = "小藍".into();
    let find = json!({
        "page": 1, "limit": 10, "phone": "1380", "member_card": "C", "name": "王", "level_id": 1, "shop_id": 1,
        "tag_id": 1,
    });
    let level = json!({"id": 1, "name": "銀卡會員", "url": "http://p/1", "remark": "滿一千"});
    let tag = json!({"id": 1, "tag_name": "常客", "color": "red"});
    let employee = json!({
        "id": 1001, "name": "新店員", "phone": "2", "shop_id": 1, "state": 1, "identity": "440000",
        "entry_date": "2018-11-01", "leave_date": "2028-11-01", "office_id": 1, "is_manager": 0,
    });
    world.operator("/office/add", json!({"title": "收銀員"})).await.ok();
    let sorted = json!({"page": 1, "limit": 10, "shop_id": 1, "key": "name", "order": "asc"});
    let shops = json!({"page": 1, "limit": 10, "key": "shop_name", "order": "asc"});
    let id = |id: i64| json!({"id": id});
    for (member_id, openid) in [(439, "oGZUI0egBJY1zhBYw2KhdUfwVJJE"), (442, "oGZUI0egBJY1zhBYw2KhdUfwVJJF")]
    {
        bind(world, member_id, openid).await;
    }
    vec![
        case("/memberlevel/add", OPERATOR, level.clone()),
        case("/memberlevel/edit", OPERATOR, level),
        case("/memberlevel/info", EMPLOYEE, id(1)),
        case("/memberlevel/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/tag/add", OPERATOR, tag.clone()),
        case("/tag/edit", OPERATOR, tag),
        case("/tag/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/member/add", OPERATOR, member),
        case("/member/edit", OPERATOR, edit),
        case("/member/get", EMPLOYEE, id(600)),
        case("/member/info", Caller::Auditor, json!({"member_id": 600})),
        case("/member/list", EMPLOYEE, find),
        case("/wechat/openid", MEMBER, json!({})),
        case("/member/unbindwechat", OPERATOR, id(442)),
        case("/member/erase", OPERATOR, json!({"id": 439, "reason": "會員要求"})),
        case("/user/add", OPERATOR, employee.clone()),
        case("/user/edit", OPERATOR, employee),
        case("/user/info", Caller::Auditor, id(1001)),
        case("/user/list", EMPLOYEE, sorted),
        case("/user/getlist", EMPLOYEE, json!({"page": 1, "limit": 10})),
        case("/user/shoplist", EMPLOYEE, shops),
        case("/tag/del", OPERATOR, id(1)),
        case("/memberlevel/del", OPERATOR, id(2)),
    ]
}

#[expect(clippy::unused_async, reason = "every page has the same shape")]
pub async fn refusals(_world: &World) -> Vec<Refused> {
    let id = json!({"id": 999});
    let level = json!({"id": 999, "name": "金卡會員"});
    vec![
        refused("/member/edit", 310, OPERATOR, json!({"id": 999, "nickname": "小紅"})),
        refused("/member/get", 310, OPERATOR, id.clone()),
        refused("/member/info", 310, OPERATOR, json!({"member_id": 999})),
        refused("/member/erase", 310, OPERATOR, json!({"id": 999, "reason": "會員要求"})),
        refused("/member/unbindwechat", 310, OPERATOR, id.clone()),
        refused("/memberlevel/info", 2005, OPERATOR, id.clone()),
        refused("/memberlevel/edit", 2005, OPERATOR, level),
        refused("/memberlevel/del", 2005, OPERATOR, id.clone()),
        refused("/tag/edit", 2005, OPERATOR, json!({"id": 999, "color": "red"})),
        refused("/tag/del", 2005, OPERATOR, id.clone()),
        refused("/user/add", 2003, OPERATOR, json!({"name": "店員", "shop_id": 999})),
        refused("/user/edit", 310, OPERATOR, json!({"id": 999, "name": "店員"})),
        refused("/user/edit", 2003, OPERATOR, json!({"id": 1000, "shop_id": 999})),
        refused("/user/add", 2005, OPERATOR, json!({"name": "店員", "shop_id": 1, "office_id": 999})),
        refused("/user/edit", 2005, OPERATOR, json!({"id": 1000, "office_id": 999})),
        refused("/user/info", 310, OPERATOR, id),
    ]
}
