//! The serving role of docs/operations.md: it can do everything a server does, and nothing to the log.

use serde_json::json;

use crate::accounts::{PASSWORD, account, sign_in};
use crate::harness::{Engine, FRIEND, Home, MEMBER, NOON, World};
use coupon_ledger::audit::rebuild::Running;
use coupon_ledger::audit::tlog;
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::directory::use_up_state;
use coupon_ledger::exports::{ExportPlace, tick};
use coupon_ledger::followers::{self, EXPIRY};
use coupon_ledger::identity::Caller;
use coupon_ledger::messages::{KEEP_UNREAD_MS, forget, remind};
use coupon_ledger::store;

/// The grants as docs/operations.md gives them.
pub fn documented_grants() -> String {
    let text = std::fs::read_to_string("docs/operations.md").unwrap();
    let (_, rest) = text.split_once("```sql\n").unwrap();
    let (grants, _) = rest.split_once("```").unwrap();
    grants.lines().filter(|line| !line.contains("ON DATABASE")).collect::<Vec<_>>().join("\n")
}

fn serving_role(owner: &Home) -> String {
    format!("server_{}", owner.database_url.as_ref().unwrap().rsplit_once('/').unwrap().1)
}

/// The place of a server on the owner's database, under a new role with the documented grants.
pub async fn with_role(owner: &Home) -> Home {
    let role = serving_role(owner);
    owner.sql(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    owner.sql(&documented_grants().replace("coupon_server", &role)).await.unwrap();
    owner.beside(owner.database_url.clone().unwrap().replace("postgres@", &format!("{role}@")))
}

/// The role for jobs of docs/projections.md.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_reports_role_reads_the_views_and_nothing_else() {
    let world = World::with_people(Engine::Postgres).await;
    crate::statistics::count_all(&world).await;
    let owner = world.close().await;
    let text = std::fs::read_to_string("docs/projections.md").unwrap();
    let block = text.split("```sql\n").find(|block| block.starts_with("CREATE ROLE coupon_reports")).unwrap();
    let role = format!("reports_{}", serving_role(&owner));
    let grants = block.split("```").next().unwrap().lines().filter(|line| !line.contains("ON DATABASE"));
    owner.sql(&grants.collect::<Vec<_>>().join("\n").replace("coupon_reports", &role)).await.unwrap();
    let jobs = owner.beside(owner.database_url.clone().unwrap().replace("postgres@", &format!("{role}@")));
    for view in [
        "stats_days",
        "stats_cube_months",
        "stats_definitions",
        "stats_months",
        "stats_shops",
        "stats_shop_months",
        "stats_cohorts",
        "stats_funnels",
        "stats_ages",
        "stats_shop_uses",
        "stats_shop_ages",
        "stats_uses",
        "stats_visits",
        "checkpoints",
    ] {
        jobs.sql(&format!("SELECT * FROM {view} LIMIT 1")).await.unwrap();
    }
    for sql in crate::own_sql::documented_selects() {
        jobs.sql(&sql).await.unwrap();
    }
    for table in ["events", "members", "wallet_v1", "stats_days_v1", "exports", "sessions"] {
        let refused = jobs.sql(&format!("SELECT * FROM {table} LIMIT 1")).await.unwrap_err();
        assert!(refused.contains("permission denied"), "{table}: {refused}");
    }
    jobs.sql("UPDATE checkpoints SET value = 0").await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_the_documented_grants_serves_and_cannot_change_the_log() {
    let world = World::with_people(Engine::Postgres).await;
    let definition = world.define(json!({"num": 50, "is_claim": 1})).await;
    let owner = world.close().await;

    let role = serving_role(&owner);
    let home = with_role(&owner).await;

    let world = World::open(home, Clock::manual(NOON), Zone::default()).await;
    let id = world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await.ok()["id"].clone();
    world.keyed(MEMBER, "key-12345", "/client/givecoupon", json!({"id": id})).await.ok();
    world.call(MEMBER, "/client/withdrawcoupon", json!({"id": id})).await.ok();
    world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})).await.ok();
    let review = json!({"id": id, "evaluation": "好", "score": 5});
    world.call(MEMBER, "/client/evaluacoupon", review).await.ok();
    assert_eq!(
        world.call(MEMBER, "/client/getcoupon", json!({"id": 999, "code": 123_456})).await.code(),
        7003
    );
    world.operator("/member/add", json!({"nickname": "新"})).await.ok();
    crate::wechat::bind(&world, 442, "oGZUI0egBJY1zhBYw2KhdUfwVJJE").await;
    world.operator("/member/unbindwechat", json!({"id": 442})).await.ok();
    assert!(use_up_state(world.store(), "state", NOON + 1, NOON).await.unwrap());
    for (route, body) in [
        ("/memberlevel/add", json!({"name": "金卡", "remark": "滿千"})),
        ("/memberlevel/edit", json!({"id": 1, "name": "銀卡"})),
        ("/tag/add", json!({"tag_name": "常客"})),
        ("/tag/edit", json!({"id": 1, "color": "red"})),
        ("/member/edit", json!({"id": 439, "level_id": 2, "tag_ids": "1"})),
        ("/tag/del", json!({"id": 1})),
        ("/memberlevel/del", json!({"id": 1})),
        ("/user/edit", json!({"id": 1000, "phone": "139"})),
        ("/office/add", json!({"title": "店長"})),
        ("/office/setcompetence", json!({"id": 1, "competence_ids": "9"})),
        ("/user/edit", json!({"id": 1000, "office_id": 1})),
        ("/member/erase", json!({"id": 439, "reason": "會員要求"})),
    ] {
        world.operator(route, body).await.ok();
    }
    world.operator("/member/import", json!({"csv": "id,tag_ids\n900,1\n,2\n", "dry_run": 0})).await.ok();
    let row = format!("900000,{definition},900,2026-01-01,2026-12-31,unused");
    let file = format!("id,coupon_id,member_id,start_date,end_date,state\n{row}\n");
    let imported = world.operator("/elecoupons/import", json!({"csv": file, "dry_run": 0})).await;
    assert_eq!(imported.ok()["ok_num"], 1, "{}", imported.body);
    let rule = json!({"amount": 1, "json": [{"coupon_id": definition, "num": 1}]});
    world.operator("/orderamount/add", rule).await.ok();
    world.operator("/goodsgroup/add", json!({"title": "飲料"})).await.ok();
    world.operator("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7"})).await.ok();
    let goods = json!([{"goods_id": 7, "price": "1", "state": 1, "count": 1}]);
    let order = json!({"member_id": 442, "goods": goods, "ora_id": 1, "order_no": "T-1"});
    let order = world.operator("/order/add", order).await.ok().clone();
    world.operator("/order/cancel", order).await.ok();
    coupon_ledger::sweep::sweep(&world.ledger).await.unwrap();
    world.operator("/sendelecoupon/add", json!({"coupon_id": definition, "shop_ids": "0"})).await.ok();
    let gift = json!({"coupon_ids": [{"id": definition, "num": 1}]});
    world.operator("/birthdaycoupon/set", gift).await.ok();
    world.operator("/memberelecoupon/add", json!({"level_id": 1, "coupon_id": [definition]})).await.ok();
    world.operator("/member/add", json!({"level_id": 1, "birthday": "1990-11-23"})).await.ok();
    assert_eq!(coupon_ledger::granting::grant_levels(&world.ledger).await.unwrap(), 1);
    assert_eq!(coupon_ledger::granting::grant_birthdays(&world.ledger).await.unwrap(), Some(1));
    world.operator("/orderamount/add", json!({"amount": 100})).await.ok();
    world.operator("/goodsgroup/add", json!({"title": "a"})).await.ok();
    world.operator("/goodsgroup/setgoods", json!({"id": 1, "goods_ids": "7"})).await.ok();
    for job_id in coupon_ledger::runner::open_jobs(world.store()).await.unwrap() {
        coupon_ledger::runner::run_job(&world.ledger, job_id).await.unwrap();
    }

    let boss = account(&world, json!({"name": "boss", "role": "operator"})).await;
    let session = sign_in(&world, "boss", PASSWORD).await.ok()["token"].as_str().unwrap().to_owned();
    assert_eq!(sign_in(&world, "boss", "wrong horse battery").await.code(), 1003);
    // That it is used is written down once a minute.
    world.advance(60_000);
    world.request("/shop/list", &[("token", &session)], "{}").await.ok();
    world.request("/user/logout", &[("token", &session)], "{}").await.ok();
    let link = json!({"id": boss, "issuer": "https://login.example", "subject": "248289761001"});
    world.operator("/account/subject", link).await.ok();
    world.operator("/account/state", json!({"id": boss, "state": 0})).await.ok();
    coupon_ledger::directory::clear_ended_sessions(world.store(), world.clock.now_ms()).await.unwrap();

    let partner = json!({"shop_name": "隔壁", "phone": "1", "address": "a"});
    world.operator("/business/add", partner).await.ok();
    let allot = json!({"business_id": 2, "coupon_id": definition, "num": 1, "end_time": "2026-12-31"});
    world.operator("/business/addattract", allot).await.ok();
    let taken = world.call(MEMBER, "/wechat/receive", json!({"business_id": 2})).await;
    assert_eq!(taken.ok()[0]["code"], 0);

    for _ in 0..2 {
        crate::statistics::count_all(&world).await;
        followers::order(&world.ledger, "statistics", followers::Order::Reset).await.unwrap();
    }
    crate::statistics::count_all(&world).await;
    for path in ["/v1/statistics/figures", "/v1/exports/members.csv", "/v1/readers/member/442"] {
        assert_eq!(world.get(Caller::Auditor, path).await.status, 200, "{path}");
    }
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let asked = "/v1/exports?sheet=members&format=xlsx";
    assert_eq!(world.raw("POST", asked, &[("authorization", &bearer)], Vec::new()).await.status, 200);
    let place = ExportPlace { folder: world.home.path().join("exports"), ..ExportPlace::default() };
    assert_eq!(tick(&world.ledger, &place).await.unwrap(), 1);
    assert_eq!(world.get(Caller::Operator, "/v1/exports/2").await.body["state"], "done");

    assert!(crate::messages::tell(&world.ledger).await > 0);
    remind(&world.ledger, 3, false).await.unwrap();
    world.call(FRIEND, "/client/readmessage", json!({"all": 1})).await.ok();
    assert!(!forget(world.store(), world.clock.now_ms() + KEEP_UNREAD_MS).await.unwrap().1);

    while tlog::follow(world.store()).await.unwrap().more {}
    let signer = tlog::Signer::new(world.ledger.clone(), world.home.path()).await.unwrap();
    assert!(signer.sign().await.unwrap().is_some());
    // Those that are old and not the first of their hour go.
    world.define(json!({})).await;
    tlog::follow(world.store()).await.unwrap();
    signer.sign().await.unwrap();
    world.define(json!({})).await;
    tlog::follow(world.store()).await.unwrap();
    signer.sign().await.unwrap();
    world.advance(120_000);
    signer.thin().await.unwrap();
    assert_eq!(world.home.sql("SELECT count(*) FROM tlog_checkpoints").await.unwrap(), ["2"]);
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    let post = async |path: &str| world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
    assert_eq!(post("/v1/followers/expiry/pause").await.body["followers"][0]["paused"], true);
    assert_eq!(post("/v1/followers/expiry/resume").await.status, 200);
    assert_eq!(post("/v1/followers/expiry/reset").await.status, 200);
    followers::note(&world.ledger, &EXPIRY, Some("away".to_owned())).await;
    assert_eq!(world.get(Caller::Auditor, "/v1/followers").await.body["followers"][0]["last_error"], "away");

    let issued = post("/v1/machine-keys?name=till&rights=read").await;
    let key = format!("Bearer {}", issued.body["key"].as_str().unwrap());
    world.request("/shop/list", &[("authorization", &key)], "{}").await.ok();

    let seed = ed25519_dalek::SigningKey::from_bytes(&[2; 32]);
    let public = coupon_ledger::value::hex(seed.verifying_key().as_bytes());
    let registered = post(&format!("/v1/partner-keys?partner_id=2&public_key={public}")).await;
    assert_eq!(registered.status, 200, "{}", registered.body);
    let time = (world.clock.now_ms() / 1000).to_string();
    let (path, nonce) = ("/businesshome/get", "0123456789abcdef");
    let message = coupon_ledger::signed_request::message(2, "POST", path, &time, nonce, b"{}");
    let signature = ed25519_dalek::Signer::sign(&seed, message.as_bytes()).to_bytes();
    let signature = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, signature);
    let values = ["2", &time, nonce, &signature];
    let headers: Vec<_> = coupon_ledger::signed_request::HEADERS.into_iter().zip(values).collect();
    world.request(path, &headers, "{}").await.ok();
    let later = world.clock.now_ms() + 3_600_000;
    assert_eq!(coupon_ledger::directory::forget_nonces(world.store(), later).await.unwrap(), 1);

    crate::webhooks::once_with_all_that_can_become_of_it(&world).await;

    // It may not make tables, but serves from those that their owner has made beside it.
    let refused = post("/v1/rebuilds").await;
    let info = refused.body["info"].as_str().unwrap_or_default();
    assert_eq!(refused.status, 409, "{}", refused.body);
    assert!(info.starts_with("this database role may not make or replace the live tables: "), "{info}");
    let owners = store::open(&owner.store_options(&world.secrets, NOON)).await.unwrap();
    let rebuilt = Running::begin(&owners, &world.clock, "all", false).await.unwrap().run().await.unwrap();
    assert_eq!((rebuilt.difference_count, rebuilt.differences), (0, vec![]));
    owners.close().await;
    assert_eq!(world.get(Caller::Auditor, "/v1/rebuilds/1").await.body["state"], "swapped");
    world.call(MEMBER, "/client/claimcoupon", json!({"id": definition})).await.ok();
    assert_eq!(world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.code(), 0);

    for change in [
        "UPDATE events SET payload = '{}'",
        "DELETE FROM events",
        "TRUNCATE events",
        "DELETE FROM receipts",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_are_append_only ON events",
    ] {
        let refused = world.home.sql(change).await.unwrap_err();
        assert!(
            refused.contains("permission denied") || refused.contains("must be owner"),
            "{change}: {refused}"
        );
    }
    world.close().await;
    owner.sql(&format!("DROP OWNED BY {role}")).await.unwrap();
    owner.sql(&format!("DROP ROLE {role}")).await.unwrap();
}
