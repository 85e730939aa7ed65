//! Lists against their pages: whatever a page shows of a row that the file of its list has a column for, is the same in both, and no
//! row is in one of them alone. Coupons, of which every member has pages of his own, are in tests/it/sheets.rs.

use std::collections::{BTreeMap, BTreeSet};

use coupon_ledger::clock::Zone;
use coupon_ledger::exports::{Column, Kind, SHEETS, Sheet};
use coupon_ledger::identity::Caller;
use coupon_ledger::value::money_text;
use serde_json::{Value, json};

use crate::accounts::account;
use crate::harness::{EMPLOYEE, Engine, MEMBER, World};
use crate::jobs::run_all;
use crate::sheets::{as_shown, life, table};

/// A list: its sheet, what a page calls the columns of that (`field:column`, or one name for both), and what the page shows besides.
type List = (&'static str, &'static str, &'static str);

const LISTS: &[List] = &[
    (
        "redemptions",
        "id:redemption_id mem_coupon_id:coupon_id coupon_id:definition_id coupon_title:title member_id shop_id user_id:employee_id \
      create_date:used_at reverse_date:reversed_at",
        "member_info",
    ),
    (
        "definitions",
        "id:definition_id title type:kind state:is_on deduction money:minimum_order num:stock validity_type:validity start_date end_date \
      starts_after:starts_after_days validity:valid_days use_week:weekdays shop_ids is_giving:givable use_limit:stackable \
      is_self:self_redeemable need_scan:scan_required is_claim:claimable get_limit_type:issue_limit get_limit level_ids rules \
      user_id:employee_id",
        "inventory code start_num end_num",
    ),
    (
        "orders",
        "id:order_id order_no member_id shop_id user_id:employee_id price:amount deduction balance use_score:score ora_id:rule_id \
      create_time:placed_at cancel_time:cancelled_at use_coupon_list:used coupon_list:issued remark order_detail:details",
        "count state evaluation score evaluation_time pay",
    ),
    (
        "members",
        "id:member_id nickname member_name phone member_card sex birthday level_id shop_id tag_ids user_id:adviser_id card_end \
      join_date:joined_at headimgurl",
        "age state level wechat_user members_tags",
    ),
    (
        "jobs",
        "id:job_id type:kind state coupon_id:definition_id send_id end_date nums:targeted done_num:done refused reason \
      user_id:employee_id create_date:started_at end_time:ended_at",
        "refused_num",
    ),
    (
        "jobs as sends",
        "id:job_id state coupon_id:definition_id shop_ids tag_ids level_ids is_all_send:notify nums:targeted send_num:done \
      user_id:employee_id create_date:started_at",
        "refused_num coupon_title",
    ),
    (
        "grants",
        "cause cause_id id:grant_id coupon_id:definition_id num user_id:employee_id create_date:added_at",
        "ora_id goodsgroup_id level_id coupon_title type deduction",
    ),
    ("order-rules", "id:order_amount_id amount user_id:employee_id create_date:defined_at", ""),
    ("goods-groups", "id:goods_group_id title user_id:employee_id create_date:created_at", ""),
    (
        "allotments",
        "id:allotment_id business_id:partner_id coupon_id:definition_id num end_time:end_date user_id:employee_id create_date:allotted_at",
        "coupon_title inventory",
    ),
    (
        "allotment-changes",
        "bc_id:allotment_id id:change_number moved_by total:num user_id:employee_id create_date:at",
        "num type",
    ),
    (
        "settlements",
        "mem_coupon_id:coupon_id bc_id:allotment_id coupon_id:definition_id coupon_title:title deduction id:redemption_id \
      create_date:used_at member_id shop_id shop_name user_id:employee_id",
        "",
    ),
    ("shops", "id:shop_id shop_name:name phone address state:is_open user_id:employee_id", "title"),
    ("partners", "id:shop_id shop_name:name phone address state:is_open user_id:employee_id", "title"),
    (
        "employees",
        "id:employee_id name phone identity shop_id state:active entry_date leave_date",
        "code token wechat_user_id shop_name office_id office_title is_manager",
    ),
    (
        "appointments",
        "id:employee_id office_id is_manager:manager",
        "name phone identity shop_id state entry_date leave_date code token wechat_user_id shop_name office_title",
    ),
    (
        "approvals",
        "id:approval_id type:kind action state nums:number above subject_id proposed_by user_id:employee_id create_date:proposed_at \
      lapse_date:lapses_at closed_by close_date:closed_at reason",
        "",
    ),
    ("levels", "id:level_id name url remark", ""),
    ("tags", "id:tag_id tag_name color", ""),
    // Rights have numbers there and names here: tests/it/sheets.rs.
    ("offices", "id:office_id title user_id:employee_id create_date:added_at", "competence_ids"),
    (
        "accounts",
        "id:account_id role user_id:employee_id state:active totp:second_factor",
        "name has_password",
    ),
    (
        "machine-keys",
        "id:machine_key_id name rights expires_at_ms:expires_at issued_at_ms:issued_at revoked_at_ms:revoked_at",
        "holds last_used_at_ms",
    ),
    (
        "partner-keys",
        "partner_id id:partner_key_id public_key registered_at_ms:registered_at revoked_at_ms:revoked_at",
        "",
    ),
    (
        "webhooks",
        "id:webhook_id url types streams state generation added_at_ms:added_at",
        "position lag failing dead resending",
    ),
];

/// What a page says in other words than the file: `sheet column`, then the page's and the file's.
const WORDS: &[(&str, &[(&str, &str)])] = &[
    ("definitions kind", &[("1", "cash"), ("2", "exchange")]),
    ("definitions validity", &[("1", "fixed"), ("2", "from_receipt"), ("3", "member_card")]),
    (
        "definitions issue_limit",
        &[("1", "unlimited"), ("2", "per_member"), ("3", "one_at_a_time"), ("4", "levels")],
    ),
    ("definitions stock", &[("0", "")]),
    ("members sex", &[("0", ""), ("1", "male"), ("2", "female")]),
    ("jobs kind", &[("0", "send"), ("1", "recall"), ("2", "extension")]),
    (
        "jobs state",
        &[("0", "running"), ("1", "done"), ("2", "paused"), ("3", "cancelled"), ("4", "proposed")],
    ),
    ("jobs shop_ids", &[("0", "")]),
    ("jobs tag_ids", &[("0", "")]),
    ("jobs level_ids", &[("0", "")]),
    ("employees leave_date", &[("2099-01-01", "")]),
    (
        "approvals state",
        &[("0", "open"), ("1", "approved"), ("2", "refused"), ("3", "withdrawn"), ("4", "lapsed")],
    ),
];

/// A field of a page as the file has it.
fn in_file(sheet: &str, field: &str, column: &Column, value: &Value) -> String {
    let text = match (column.kind, value) {
        (_, Value::Null) => String::new(),
        (Kind::Id | Kind::Day | Kind::Instant, number) if *number == 0 => String::new(),
        (Kind::Instant, Value::Number(at)) => {
            let unit = if field.ends_with("_ms") { 1 } else { 1_000 };
            Zone::default().date_time(at.as_i64().unwrap() * unit)
        }
        (_, Value::Array(words)) if words.iter().all(Value::is_string) => {
            words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>().join(",")
        }
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    let place = format!("{sheet} {}", column.name);
    let words = WORDS.iter().find(|(of, _)| *of == place).map_or(&[][..], |(_, words)| *words);
    words.iter().find(|(page, _)| *page == text).map_or(text, |(_, file)| (*file).to_owned())
}

/// Whether a page shows a row of a file: what was removed stands in the file alone, and so does what was not used.
fn is_shown(list: &str, row: &Value) -> bool {
    match list {
        "jobs as sends" => row["kind"] == "send",
        "settlements" => row["redemption_id"] != "",
        "webhooks" => row["state"] != "removed",
        "members" => row["erased_at"] == "",
        "appointments" => row["office_id"] != "" || row["manager"] != "0",
        _ => row["deleted"] != "1" && row["removed"] != "1",
    }
}

/// The rows of the pages that show a list, all of them, some of their fields spelled out.
async fn pages(world: &World, list: &str) -> Vec<Value> {
    let all = |name: &str, id: &Value| json!({"limit": 100, name: id});
    let of = async |page: &str, body: Value| -> Vec<Value> {
        let reply = world.operator(page, body).await;
        reply.ok().as_array().unwrap_or_else(|| panic!("{page}: {}", reply.body)).clone()
    };
    let one = async |page: &str| of(page, json!({"limit": 100})).await;
    let v1 = async |page: &str| -> Vec<Value> {
        let body = world.get(Caller::Operator, page).await.body;
        body.as_object().unwrap().values().next().unwrap().as_array().unwrap().clone()
    };
    let caused = |mut grant: Value, cause: i64, id: &Value| {
        (grant["cause"], grant["cause_id"]) = (cause.into(), id.clone());
        grant
    };
    match list {
        "redemptions" => one("/auditelecoupon/getlist").await,
        "definitions" => {
            let mut rows = one("/elecoupons/getlist").await;
            for row in &mut rows {
                row["starts_after"] =
                    if row["validity_type"] == 2 { row["start_num"].clone() } else { 0.into() };
            }
            rows
        }
        "orders" => one("/order/list").await,
        "members" => {
            let mut rows = one("/member/list").await;
            rows.retain(|row| row["state"] == 1);
            for row in &mut rows {
                row["level_id"] = row["level"]["id"].clone();
                for name in ["nickname", "headimgurl"] {
                    row[name] = row["wechat_user"][name].clone();
                }
            }
            rows
        }
        "jobs" => one("/job/getlist").await,
        "jobs as sends" => one("/sendelecoupon/getlist").await,
        "grants" => {
            let mut grants = Vec::new();
            for rule in one("/orderamount/getlist").await {
                let rows = of("/orderelecoupon/getlist", all("ora_id", &rule["id"])).await;
                grants.extend(rows.into_iter().map(|grant| caused(grant, 0, &rule["id"])));
            }
            for group in one("/goodsgroup/getlist").await {
                let info = world.operator("/goodsgroup/info", json!({"id": group["id"]})).await;
                let rows = info.ok()["couList"].as_array().unwrap().clone();
                grants.extend(rows.into_iter().map(|grant| caused(grant, 1, &group["id"])));
            }
            for level in one("/memberlevel/getlist").await {
                let rows = of("/memberelecoupon/list", all("level_id", &level["id"])).await;
                grants.extend(rows.into_iter().map(|grant| caused(grant, 2, &level["id"])));
            }
            let birthday = of("/birthdaycoupon/get", json!({})).await;
            grants.extend(birthday.into_iter().map(|grant| caused(grant, 3, &json!(0))));
            grants
        }
        "order-rules" => {
            let mut rows = one("/orderamount/getlist").await;
            for row in &mut rows {
                row["amount"] = money_text(row["amount"].as_i64().unwrap() * 100).into();
            }
            rows
        }
        "goods-groups" => one("/goodsgroup/getlist").await,
        "allotments" | "settlements" | "allotment-changes" => {
            let mut rows = Vec::new();
            for partner in one("/business/list").await {
                rows.extend(if list == "settlements" {
                    of("/statistics/getattract", all("business_id", &partner["id"])).await
                } else {
                    of("/business/getattract", all("id", &partner["id"])).await
                });
            }
            if list != "allotment-changes" {
                return rows;
            }
            let mut changes = Vec::new();
            for allotment in rows {
                for mut change in of("/business/invenlist", all("bc_id", &allotment["id"])).await {
                    let by = change["num"].as_i64().unwrap();
                    change["moved_by"] = if change["type"] == 1 { by.into() } else { (-by).into() };
                    changes.push(change);
                }
            }
            changes
        }
        "shops" => one("/shop/list").await,
        "partners" => one("/business/list").await,
        "employees" => of("/user/list", all("shop_id", &json!(0))).await,
        "appointments" => {
            let mut rows = of("/user/list", all("shop_id", &json!(0))).await;
            rows.retain(|row| row["office_id"] != 0 || row["is_manager"] != 0);
            rows
        }
        "approvals" => one("/approval/list").await,
        "levels" => one("/memberlevel/getlist").await,
        "tags" => one("/tag/getlist").await,
        "offices" => one("/office/list").await,
        "accounts" => one("/account/list").await,
        "machine-keys" => v1("/v1/machine-keys").await,
        "partner-keys" => v1("/v1/partner-keys").await,
        "webhooks" => v1("/v1/webhooks").await,
        other => panic!("nobody knows the page of {other}"),
    }
}

/// A ledger with several of everything.
async fn several(engine: Engine) -> World {
    let world = life(engine).await;
    let ok = async |route: &str, body: Value| world.operator(route, body).await.ok().clone();
    let shop =
        ok("/shop/add", json!({"shop_name": "分店", "phone": "2", "address": "=b"})).await["id"].clone();
    ok("/user/add", json!({"id": 1001, "name": "王五", "shop_id": shop, "phone": "13800000000", "identity": "A123",
                           "entry_date": "2026-01-02", "leave_date": "2026-10-31", "state": 0, "is_manager": 1})).await;
    for (name, color) in [("新客", "red"), ("貴賓", "")] {
        ok("/tag/add", json!({"tag_name": name, "color": color})).await;
    }
    let level =
        ok("/memberlevel/add", json!({"name": "銀卡", "remark": "+r", "url": "https://p/1"})).await["id"]
            .clone();
    ok("/member/add", json!({"id": 444, "nickname": "-n", "member_name": "李四", "phone": "13900000000", "member_card": "0088",
                             "level_id": level, "shop_id": shop, "tag_ids": "1,2", "birthday": "1991-12-03",
                             "card_end": "2027-01-01", "sex": 2, "user_id": 1000, "headimgurl": "http://p/9"})).await;
    let exchange = world.define(json!({"type": 2, "deduction": "0.00", "title": "兌換券", "use_week": "1,3", "shop_ids": "1",
                                       "start_num": "2", "end_num": "90", "is_giving": 0, "get_limit_type": 2, "get_limit": 3})).await;
    let cash = world
        .define(json!({"deduction": "12.50", "money": "0.50", "num": 500, "is_self": 1, "need_scan": 1}))
        .await;
    // Jobs in shops and of levels, done and not.
    let send = ok(
        "/sendelecoupon/add",
        json!({"coupon_id": exchange, "shop_ids": "1,3", "tag_ids": "1", "level_ids": level,
                                               "is_all_send": 1, "confirm": 1}),
    )
    .await["id"]
        .clone();
    run_all(&world).await;
    ok(
        "/elecoupons/extend",
        json!({"send_id": send, "end_date": "2027-06-30", "reason": "延期", "confirm": 1}),
    )
    .await;
    run_all(&world).await;
    let paused = ok("/sendelecoupon/add", json!({"coupon_id": cash, "confirm": 1})).await["id"].clone();
    ok("/job/pause", json!({"id": paused})).await;
    // What earns coupons, in all four ways.
    for amount in [50, 100] {
        let grants = json!([{"coupon_id": cash, "num": amount / 10}, {"coupon_id": exchange, "num": 1}]);
        ok("/orderamount/add", json!({"amount": amount, "json": grants})).await;
    }
    for title in ["@飲料", "點心"] {
        let group = ok("/goodsgroup/add", json!({"title": title})).await["id"].clone();
        ok("/goodselecoupon/add", json!({"goodsgroup_id": group, "coupon_ids": [{"id": cash, "num": 2}, {"id": exchange, "num": 3}]})).await;
    }
    ok("/memberelecoupon/add", json!({"level_id": level, "coupon_id": [cash, exchange]})).await;
    ok("/birthdaycoupon/set", json!({"coupon_ids": [{"id": cash, "num": 4}, {"id": exchange, "num": 5}]}))
        .await;
    // Partners, and what members took from them.
    let partner =
        ok("/business/add", json!({"shop_name": "對面", "phone": "3", "address": "c"})).await["id"].clone();
    let partner: i64 = partner.as_str().unwrap().parse().unwrap();
    for (definition, end) in [(cash, "2027-01-31"), (exchange, "2027-02-28")] {
        let allot = json!({"business_id": partner, "coupon_id": definition, "num": 5, "end_time": end});
        let allotted = ok("/business/addattract", allot).await["id"].clone();
        ok("/business/inventory", json!({"bc_id": allotted, "num": 4, "type": 1})).await;
        ok("/business/inventory", json!({"bc_id": allotted, "num": 3, "type": 0})).await;
    }
    for partner in [2, partner] {
        world.call(MEMBER, "/wechat/receive", json!({"business_id": partner})).await.ok();
    }
    let taken = table(&world, "settlements", "").await;
    for (number, row) in taken.iter().filter(|row| row["issued_to"] == "439").enumerate() {
        let id: i64 = row["coupon_id"].as_str().unwrap().parse().unwrap();
        world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": id})).await;
        if number == 0 {
            world.advance(1_000);
        }
    }
    // Orders with and without everything.
    let used = world.issue(cash, 444).await;
    let goods = json!([{"goods_id": 7, "price": "60.00", "state": 1, "count": 2}, {"goods_id": 8, "price": "0.50", "state": 0, "count": 1}]);
    let rules = ok("/orderamount/getlist", json!({})).await;
    let order = json!({"member_id": 444, "shop_id": 1, "order_no": "=T-9", "ora_id": rules[0]["id"], "use_coupon_list": used,
                       "goods": goods, "score": 7, "balance": "3.25", "remark": "+冷",
                       "order_coupon_list": [{"coupon_id": cash, "num": 1}]});
    world.call(EMPLOYEE, "/order/add", order).await.ok();
    for title in ["收銀", "倉管"] {
        ok("/office/add", json!({"title": title})).await;
    }
    account(&world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await;
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let key = |seed: u8| {
        coupon_ledger::value::hex(
            ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key().as_bytes(),
        )
    };
    for path in [
        "/v1/machine-keys?name=app&rights=read&ttl_s=86400".to_owned(),
        format!("/v1/partner-keys?partner_id=2&public_key={}", key(1)),
        format!("/v1/partner-keys?partner_id={partner}&public_key={}", key(2)),
        "/v1/webhooks?url=https://1.1.1.1/y&type=Redeemed,Issued&stream=coupon,order".to_owned(),
        "/v1/webhooks?url=https://1.1.1.1/z".to_owned(),
        "/v1/webhooks/3/pause".to_owned(),
    ] {
        let reply = world.raw("POST", &path, &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
    }
    world
}

/// `field:column`, or one name for both.
fn named(pairs: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    pairs.split_whitespace().map(|pair| pair.split_once(':').unwrap_or((pair, pair)))
}

on_both_engines! {
    async fn what_a_page_shows_its_file_shows_too(engine: Engine) {
        let world = several(engine).await;
        for (list, same, besides) in LISTS {
            let name = list.split(' ').next().unwrap();
            let sheet = Sheet::named(name).unwrap();
            let rows = table(&world, name, "").await;
            let mut rows: Vec<&Value> = rows.iter().filter(|row| is_shown(list, row)).collect();
            let pages = pages(&world, list).await;
            assert!(pages.len() > 1, "{list}: the page has {}", pages.len());
            let mut compared = BTreeSet::new();
            for page in &pages {
                let fields: BTreeSet<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
                let known: BTreeSet<&str> = named(same).map(|(field, _)| field).chain(besides.split_whitespace()).collect();
                assert_eq!(fields.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "{list}: new on the page");
                let told: BTreeMap<&str, String> = named(same)
                    .filter_map(|(field, column)| {
                        let column = &sheet.columns[sheet.column(column).unwrap()];
                        Some((column.name, in_file(name, field, column, page.get(field)?)))
                    })
                    .collect();
                let is_it = |row: &&Value| sheet.columns[..sheet.keys].iter().all(|key| row[key.name] == told[key.name]);
                let place = rows.iter().position(is_it).unwrap_or_else(|| panic!("{list}: not in the file: {page}"));
                let row = rows.remove(place);
                let read: BTreeMap<&str, String> = told
                    .keys()
                    .map(|column| (*column, as_shown(&row[*column]).as_str().unwrap().to_owned()))
                    .collect();
                assert_eq!(read, told, "{list}: {page}");
                compared.extend(told.into_keys());
            }
            assert_eq!(rows, Vec::<&Value>::new(), "{list}: in the file alone");
            let columns: BTreeSet<&str> = named(same).map(|(_, column)| column).collect();
            assert_eq!(compared, columns, "{list}");
        }
        let lists: BTreeSet<&str> = LISTS.iter().map(|(list, ..)| list.split(' ').next().unwrap()).chain(["coupons"]).collect();
        assert_eq!(lists, SHEETS.iter().map(|sheet| sheet.name).collect());
        world.close().await;
    }
}
