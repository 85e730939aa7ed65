//! The order of refusals: docs/api.md has one table, and every pair in it is walked with situations where both apply.

use coupon_ledger::coupon::{CounterCode, Coupon, CouponCommand, CouponEvent, Issue, Redeemer};
use coupon_ledger::http::routes::ALL;
use coupon_ledger::identity::Caller;
use serde_json::{Value, json};

use crate::decisions::{
    evaluate, evaluated, facts_at, give, given, issue, received, redeem, redeem_by, redeemed_as, reversed,
    voided,
};
use crate::docs::read;
use crate::harness::{EMPLOYEE, Engine, FRIEND, HOUR, MEMBER, NOON, World};

/// Pairs that no history of calls can bring together, with the reason. Those of pure commands are decided all the same.
const UNREACHABLE: &[(&str, i64, i64, &str)] = &[
    ("redeem by member", 3004, 3001, "a used coupon cannot be voided"),
    ("redeem by member", 3004, 3003, "voiding ends the gift"),
    ("redeem by member", 3001, 3003, "a used coupon cannot be given"),
    ("redeem by member", 3003, 4002, "a gift lapses with the end of its coupon"),
    ("redeem by member", 3001, 4001, "a coupon cannot be used before it starts"),
    ("redeem by member", 4002, 4001, "no coupon ends before it starts"),
    ("redeem by employee", 3004, 3001, "a used coupon cannot be voided"),
    ("redeem by employee", 3004, 3003, "voiding ends the gift"),
    ("redeem by employee", 3001, 3003, "a used coupon cannot be given"),
    ("redeem by employee", 3003, 4002, "a gift lapses with the end of its coupon"),
    ("redeem by employee", 3001, 4001, "a coupon cannot be used before it starts"),
    ("redeem by employee", 4002, 4001, "no coupon ends before it starts"),
    ("give", 3009, 3008, "what may not be given was not given away"),
    ("give", 3004, 3001, "a used coupon cannot be voided"),
    ("receive", 7004, 7003, "only a pending gift can be one's own"),
    ("issue, claim", 2002, 5006, "an unknown definition has no switch"),
    ("issue, claim", 2002, 5003, "an unknown definition has no levels"),
    ("issue, claim", 2002, 5002, "an unknown definition has no limit"),
    ("issue, claim", 2002, 5001, "an unknown definition has no stock"),
    ("issue, claim", 310, 5003, "an unknown member has no level"),
    ("issue, claim", 310, 5002, "an unknown member was issued nothing"),
    ("issue, claim", 5003, 5002, "a definition has one kind of limit"),
];

/// The table of the docs: command, and its refusals in order.
fn table() -> Vec<(String, Vec<i64>)> {
    let text = read("docs/api.md");
    let (_, rest) = text.split_once("| command | refusals in order |\n|---|---|\n").unwrap();
    let rows = rest.lines().take_while(|line| line.starts_with("| "));
    rows.map(|row| {
        let (command, codes) = row.trim_matches(['|', ' ']).split_once(" | ").unwrap();
        (command.to_owned(), codes.split(' ').map(|code| code.parse().unwrap()).collect())
    })
    .collect()
}

fn codes_of(command: &str) -> Vec<i64> {
    table().into_iter().find(|(name, _)| name == command).unwrap().1
}

/// Each code alone, then every pair, the earlier first.
fn situations(command: &str) -> Vec<Vec<i64>> {
    let codes = codes_of(command);
    let pairs = codes
        .iter()
        .enumerate()
        .flat_map(|(at, first)| codes[at + 1..].iter().map(|later| vec![*first, *later]));
    codes.iter().map(|code| vec![*code]).chain(pairs).collect()
}

fn is_unreachable(command: &str, situation: &[i64]) -> bool {
    UNREACHABLE.iter().any(|(name, first, later, _)| *name == command && situation == [*first, *later])
}

#[test]
fn the_table_is_what_the_routes_say() {
    let routes = [
        ("redeem by member", "/client/auditcoupon"),
        ("redeem by employee", "/user/auditelecoupon"),
        ("give", "/client/givecoupon"),
        ("withdraw", "/client/withdrawcoupon"),
        ("receive", "/client/getcoupon"),
        ("review", "/client/evaluacoupon"),
        ("reverse", "/user/reverseelecoupon"),
        ("issue, claim", "/sendelecoupon/one"),
        ("issue, claim", "/client/claimcoupon"),
    ];
    for (command, path) in routes {
        let route = ALL.iter().find(|route| route.path == path).unwrap();
        let codes = codes_of(command);
        let own: Vec<_> = route.refusals.iter().copied().filter(|code| codes.contains(code)).collect();
        let before: Vec<_> =
            route.refusals.iter().copied().take_while(|code| !codes.contains(code)).collect();
        assert_eq!(own, codes, "{path}");
        assert_eq!(
            before.len() + own.len(),
            route.refusals.len(),
            "{path}: existence comes before the command"
        );
    }
    let documented: Vec<_> = table().into_iter().map(|(command, _)| command).collect();
    let mut walked: Vec<_> = routes.iter().map(|(command, _)| (*command).to_owned()).collect();
    walked.dedup();
    assert_eq!(documented, walked);
}

#[test]
fn every_unreachable_pair_stands_in_the_table_in_its_order() {
    for (command, first, later, why) in UNREACHABLE {
        assert!(situations(command).contains(&vec![*first, *later]), "{command}: {first} {later}: {why}");
    }
}

/// A history in which all of these codes apply, whether or not calls could lead there: decisions are total.
fn history(codes: &[i64], reviewing: bool) -> Vec<CouponEvent> {
    let has = |code| codes.contains(&code);
    let mut issue: Issue = issue();
    if has(4002) {
        issue.ends_at_ms = NOON;
    }
    if has(4001) {
        issue.starts_at_ms = NOON + 1;
    }
    if has(4003) {
        issue.terms.weekdays = vec![2];
    }
    if has(3002) {
        issue.terms.shop_ids = vec![99];
    }
    issue.terms.self_redeemable = !has(3007);
    issue.terms.scan_required = has(3010);
    issue.terms.givable = !has(3008);
    let mut events = vec![CouponEvent::Issued(Box::new(issue))];
    let mut holder = 439;
    if has(3009) {
        events.extend([given(1, 439), received(1, 439, 442)]);
        holder = 442;
    }
    if has(3001) || reviewing {
        events.push(redeemed_as(9, holder, 0));
    }
    if has(3005) {
        events.push(evaluated(holder));
    }
    if has(3006) {
        events.push(reversed(9));
    }
    if has(3004) {
        events.push(voided());
    }
    if has(3003) {
        events.push(given(2, holder));
    }
    events
}

/// Decides on every pair of a pure command.
fn walk_decisions(command: &str, ask: impl Fn(&[i64]) -> CouponCommand) {
    for situation in situations(command) {
        let mut coupon = Coupon::default();
        for event in history(&situation, command == "review") {
            coupon.evolve(&event);
        }
        let mut facts = facts_at(NOON);
        if situation.contains(&2003) {
            facts.shop = None;
        }
        let refused = coupon.decide(&ask(&situation), &facts).unwrap_err();
        assert_eq!(refused.code(), situation[0], "{command}: {situation:?}");
    }
}

#[test]
fn decisions_keep_the_order_also_where_no_call_can_lead() {
    walk_decisions("redeem by member", |_| redeem(439));
    walk_decisions("redeem by employee", |codes| {
        let code = CounterCode { version: facts_at(NOON).version, lapses_at_ms: NOON + 1 };
        redeem_by(Redeemer::ByCode { employee_id: 1000, code: Some(code).filter(|_| !codes.contains(&7005)) })
    });
    walk_decisions("give", |_| give(439));
    walk_decisions("review", |_| evaluate(439));
}

/// A world for many situations: shop 2 is closed, shop 3 open, each with an employee; members of two levels.
async fn prepared(engine: Engine) -> World {
    let world = World::with_people(engine).await;
    for (shop, employee) in [(2, 1002), (3, 1003)] {
        let body = json!({"shop_name": "分店", "phone": "1", "address": "a"});
        assert_eq!(world.operator("/shop/add", body).await.ok()["id"], shop.to_string());
        world.operator("/user/add", json!({"id": employee, "name": "店員", "shop_id": shop})).await.ok();
    }
    let closed = json!({"id": 2, "shop_name": "分店", "phone": "1", "address": "a", "state": 0});
    world.operator("/shop/edit", closed).await.ok();
    for level in [1, 2] {
        world.operator("/member/add", json!({"id": 700 + level, "level_id": level})).await.ok();
    }
    world
}

async fn use_at_counter(world: &World, coupon: i64) -> Value {
    world.call(EMPLOYEE, "/user/auditelecoupon", json!({"mem_coupon_id": coupon})).await.ok()["id"].clone()
}

/// Brings a coupon of member 439 to where all of these codes apply to him.
async fn bring_about(world: &World, codes: &[i64], reviewing: bool) -> i64 {
    let has = |code| codes.contains(&code);
    world.clock.set(NOON);
    let definition = world
        .define(json!({
            "start_num": if has(4001) { 5 } else { 0 },
            "end_num": if has(4002) { 1 } else { 30 },
            "use_week": if has(4003) { "1" } else { "" },
            "shop_ids": if has(3002) { "1" } else { "" },
            "is_self": i64::from(!has(3007)),
            "need_scan": i64::from(has(3010)),
            "is_giving": i64::from(!has(3008)),
        }))
        .await;
    let coupon = world.issue(definition, 439).await;
    let mut holder = MEMBER;
    if has(3009) {
        let code = world.give(MEMBER, coupon).await;
        world.call(FRIEND, "/client/getcoupon", json!({"id": coupon, "code": code})).await.ok();
        holder = FRIEND;
    }
    let unused = has(3006) && !has(3005) || has(3004) && !has(3005);
    let mut used = Value::Null;
    if has(3001) || reviewing && !unused {
        used = use_at_counter(world, coupon).await;
    }
    if has(3005) {
        world
            .call(holder, "/client/evaluacoupon", json!({"id": coupon, "evaluation": "好", "score": 5}))
            .await
            .ok();
    }
    if has(3005) && (has(3006) || has(3004)) {
        world.operator("/user/reverseelecoupon", json!({"id": used, "reason": "按錯"})).await.ok();
    }
    if has(3004) {
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": coupon, "reason": "發錯"})).await.ok();
    }
    if has(3003) {
        world.give(holder, coupon).await;
    }
    if has(4002) || has(4003) {
        // Tuesday, one o'clock in the morning: a gift of Monday noon still waits.
        world.advance(13 * HOUR);
    }
    coupon
}

/// Walks a command over its route: alone each code is answered, and of two the earlier.
async fn walk_coupons(
    engine: Engine,
    command: &str,
    call: impl Fn(&[i64], i64) -> (Caller, &'static str, Value),
) {
    let world = prepared(engine).await;
    for situation in situations(command) {
        if is_unreachable(command, &situation) {
            continue;
        }
        let coupon = bring_about(&world, &situation, command == "review").await;
        let (caller, route, body) = call(&situation, coupon);
        let reply = world.call(caller, route, body).await;
        assert_eq!(reply.code(), situation[0], "{command}: {situation:?}: {}", reply.body);
    }
    world.close().await;
}

/// Where a redemption with these codes is tried.
fn shop(codes: &[i64]) -> i64 {
    match (codes.contains(&2003), codes.contains(&3002)) {
        (true, _) => 2,
        (false, true) => 3,
        (false, false) => 1,
    }
}

/// Five wrong codes by somebody else.
async fn lock(world: &World, coupon: i64, stranger: i64) {
    for _ in 0..5 {
        let body = json!({"id": coupon, "code": 0});
        assert_eq!(world.call(Caller::Member(stranger), "/client/getcoupon", body).await.code(), 7001);
    }
}

on_both_engines! {
    async fn a_member_who_redeems_is_refused_in_order(engine: Engine) {
        walk_coupons(engine, "redeem by member", |codes, coupon| {
            (MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": coupon, "shop_id": shop(codes)}))
        }).await;
    }

    async fn an_employee_who_redeems_is_refused_in_order(engine: Engine) {
        walk_coupons(engine, "redeem by employee", |codes, coupon| {
            let employee = match shop(codes) { 1 => 1000, shop => 1000 + shop };
            let mut body = json!({"mem_coupon_id": coupon});
            if codes.contains(&7005) {
                body["counter_code"] = "cc1.1.1.1.wrong".into();
            }
            (Caller::Employee(employee), "/user/auditelecoupon", body)
        }).await;
    }

    async fn a_giver_is_refused_in_order(engine: Engine) {
        walk_coupons(engine, "give", |_, coupon| (MEMBER, "/client/givecoupon", json!({"id": coupon}))).await;
    }

    async fn a_reviewer_is_refused_in_order(engine: Engine) {
        walk_coupons(engine, "review", |_, coupon| {
            (MEMBER, "/client/evaluacoupon", json!({"id": coupon, "evaluation": "好", "score": 5}))
        }).await;
    }

    async fn a_receiver_is_refused_in_order(engine: Engine) {
        let world = prepared(engine).await;
        let definition = world.define(json!({})).await;
        let mut stranger = 10_000;
        for situation in situations("receive") {
            if is_unreachable("receive", &situation) {
                continue;
            }
            let has = |code| situation.contains(&code);
            for route in ["/client/getcoupon", "/client/giftinfo"] {
                let coupon = world.issue(definition, 439).await;
                let code = world.give(MEMBER, coupon).await;
                // New ones each time: failures of one caller are counted.
                stranger += 2;
                if has(7002) {
                    lock(&world, coupon, stranger).await;
                }
                if has(7003) {
                    world.call(MEMBER, "/client/withdrawcoupon", json!({"id": coupon})).await.ok();
                }
                let caller = if has(7004) { MEMBER } else { Caller::Member(stranger + 1) };
                let code = if has(7001) { 0 } else { code };
                let reply = world.call(caller, route, json!({"id": coupon, "code": code})).await;
                assert_eq!(reply.code(), situation[0], "{route}: {situation:?}: {}", reply.body);
            }
        }
        world.close().await;
    }

    async fn an_issue_is_refused_in_order(engine: Engine) {
        let world = prepared(engine).await;
        for situation in situations("issue, claim") {
            if is_unreachable("issue, claim", &situation) {
                continue;
            }
            let has = |code| situation.contains(&code);
            for claimed in [false, true] {
                let (limit_type, levels) = match (has(5003), has(5002)) {
                    (true, _) => (4, "1"),
                    (false, true) => (2, ""),
                    (false, false) => (1, ""),
                };
                let definition = world.define(json!({
                    "is_claim": 1, "get_limit_type": limit_type, "get_limit": 1, "level_ids": levels,
                    "num": i64::from(has(5001)),
                })).await;
                if has(5002) || has(5001) {
                    world.issue(definition, if has(5002) { 702 } else { 701 }).await;
                }
                if has(5006) {
                    world.operator("/elecoupons/state", json!({"id": definition, "state": 0})).await.ok();
                }
                let definition = if has(2002) { 9_999 } else { definition };
                let member = if has(310) { 9_999 } else { 702 };
                let reply = if claimed {
                    world.call(Caller::Member(member), "/client/claimcoupon", json!({"id": definition})).await
                } else {
                    world.operator("/sendelecoupon/one", json!({"coupon_id": definition, "member_id": member})).await
                };
                assert_eq!(reply.code(), situation[0], "claimed {claimed}: {situation:?}: {}", reply.body);
            }
        }
        world.close().await;
    }

    async fn a_withdrawal_and_a_reversal_have_one_refusal_each(engine: Engine) {
        assert_eq!((codes_of("withdraw"), codes_of("reverse")), (vec![7003], vec![3012]));
        let world = prepared(engine).await;
        let definition = world.define(json!({})).await;
        let coupon = world.issue(definition, 439).await;
        assert_eq!(world.call(MEMBER, "/client/withdrawcoupon", json!({"id": coupon})).await.code(), 7003);
        let used = use_at_counter(&world, coupon).await;
        let reverse = json!({"id": used, "reason": "按錯"});
        world.operator("/user/reverseelecoupon", reverse.clone()).await.ok();
        assert_eq!(world.operator("/user/reverseelecoupon", reverse).await.code(), 3012);
        world.close().await;
    }

    /// 1001, 1002, 401, replay and 6001, existence, command.
    async fn every_route_checks_in_the_same_order(engine: Engine) {
        let world = prepared(engine).await;
        let definition = world.define(json!({})).await;
        let coupon = world.issue(definition, 439).await;
        let issue = "/sendelecoupon/one";

        let nobody = world.request(issue, &[("idempotency-key", "?")], "not json").await;
        assert_eq!((nobody.status.as_u16(), nobody.code()), (401, 1001), "1001 before 1002 and 401");
        let member = world.keyed(MEMBER, "?", issue, json!("not an object")).await;
        assert_eq!((member.status.as_u16(), member.code()), (403, 1002), "1002 before 401");

        let redeem = |coupon: i64, shop: i64| json!({"mem_coupon_id": coupon, "shop_id": shop});
        let first = world.keyed(MEMBER, "used-key", "/client/auditcoupon", redeem(coupon, 1)).await;
        assert_eq!((first.code(), first.replayed()), (0, false), "{}", first.body);
        let audit = async |body: Value| world.keyed(MEMBER, "used-key", "/client/auditcoupon", body).await;
        assert_eq!(audit(redeem(coupon, 0)).await.code(), 401, "401 before 6001");
        assert_eq!(audit(redeem(9_999_999, 1)).await.code(), 6001, "6001 before existence");
        assert_eq!(audit(redeem(coupon, 2)).await.code(), 6001, "6001 before the command");
        let again = audit(redeem(coupon, 1)).await;
        assert_eq!((again.body.clone(), again.replayed()), (first.body.clone(), true), "a replay before the command");

        let reversal = |id: &Value| json!({"id": id, "reason": "按錯"});
        let reverse = async |body: Value| {
            world.keyed(Caller::Operator, "used-key", "/user/reverseelecoupon", body).await
        };
        let redemption = &first.ok()["id"];
        reverse(reversal(redemption)).await.ok();
        assert_eq!(reverse(reversal(&json!(9_999_999))).await.code(), 6001, "6001 before 2004");
        let again = reverse(reversal(redemption)).await;
        assert_eq!((again.code(), again.replayed()), (0, true), "a replay before 3012");

        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": coupon, "reason": "發錯"})).await.ok();
        for (route, body) in [
            ("/client/auditcoupon", redeem(coupon, 1)),
            ("/client/givecoupon", json!({"id": coupon})),
            ("/client/evaluacoupon", json!({"id": coupon, "evaluation": "好", "score": 5})),
        ] {
            assert_eq!(world.call(MEMBER, route, body.clone()).await.code(), 3004, "{route}");
            assert_eq!(world.call(FRIEND, route, body).await.code(), 2001, "{route}: existence before the command");
        }
        world.close().await;
    }
}
