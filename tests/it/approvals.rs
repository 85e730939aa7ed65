//! Four eyes: what one person's word is not enough for waits, whose word is another's, and that what was approved is done,
//! once and as it was proposed.

use std::process::Stdio;
use std::time::Duration;

use coupon_ledger::approving::Limits;
use coupon_ledger::clock::Zone;
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use coupon_ledger::sweep::sweep;
use futures::future::join_all;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::accounts::{PASSWORD, account, run_with, sign_in};
use crate::as_of::{assert_as_given, given_here};
use crate::cli::finish;
use crate::harness::{
    DAY, EMPLOYEE, Engine, FRIEND, Home, MEMBER, Reply, Server, World, definition, program,
};
use crate::jobs::run_all;
use crate::outside::{Api, assert_gapless, count, events, until};
use crate::replay::assert_rows_equal_replay;

const OPERATOR: Caller = Caller::Operator;

/// Everything waits that is more than this.
const ONE: Limits = Limits { sends: 1, stock: 100, recalls: 1, imports: 1 };

fn limit(world: &mut World, approvals: Limits) {
    world.set_options(HttpOptions { approvals, ..HttpOptions::default() });
}

/// Two operators with accounts that are older than anything that is proposed, and no limit yet.
async fn people(engine: Engine) -> (World, Caller, Caller) {
    let world = World::with_people(engine).await;
    let one = account(&world, json!({"name": "one", "role": "operator"})).await;
    let two = account(&world, json!({"name": "two", "role": "operator"})).await;
    world.advance(1_000);
    (world, Caller::OperatorAccount(one), Caller::OperatorAccount(two))
}

/// What is answered where it waits.
#[track_caller]
fn waits(reply: &Reply) -> Value {
    let told = (reply.code(), reply.status.as_u16(), reply.body["info"].as_str());
    assert_eq!(told, (1004, 200, Some("待他人批准")), "{}", reply.body);
    reply.data().clone()
}

async fn approve(world: &World, who: Caller, id: &Value) -> Reply {
    world.call(who, "/approval/approve", json!({"id": id})).await
}

async fn proposal(world: &World, id: &Value) -> Value {
    world.operator("/approval/info", json!({"id": id})).await.ok().clone()
}

async fn send_info(world: &World, id: &Value) -> Value {
    world.operator("/sendelecoupon/info", json!({"id": id})).await.ok().clone()
}

async fn stock(world: &World, id: i64) -> Value {
    world.operator("/elecoupons/info", json!({"id": id})).await.ok()["num"].clone()
}

/// Proposes so much more stock of a definition and returns the approval's id.
async fn more(world: &World, who: Caller, definition: i64, num: i64) -> Value {
    let body = json!({"id": definition, "num": num, "type": 1});
    waits(&world.call(who, "/elecoupons/inventory", body).await)["approval_id"].clone()
}

async fn in_hand(world: &World, member: Caller) -> usize {
    let list = world.call(member, "/client/couponlist", json!({"state": 0, "limit": 100})).await;
    list.ok().as_array().unwrap().len()
}

/// Employee 1000 holds an office with these rights from now on.
async fn give_rights(world: &World, rights: &str) -> Value {
    let office = world.operator("/office/add", json!({"title": "店長"})).await.ok()["id"].clone();
    world.operator("/office/setcompetence", json!({"id": office, "competence_ids": rights})).await.ok();
    world.operator("/user/edit", json!({"id": 1000, "office_id": office})).await.ok();
    office
}

async fn with(world: &World, bearer: &str, route: &str, body: Value) -> Reply {
    world.request(route, &[("authorization", &format!("Bearer {bearer}"))], &body.to_string()).await
}

const TABLE: &str = "id,coupon_id,member_id,start_date,end_date,state,use_date,shop_id\n";

fn row(id: i64) -> String {
    format!("{id},1,442,2026-01-01,2026-12-31,unused,,\n")
}

on_both_engines! {
    async fn a_send_to_more_than_the_limit_waits_and_then_goes_to_whom_it_was_about(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({})).await;
        let send = json!({"coupon_id": definition, "confirm": 1});
        for enough in [3, 2] {
            limit(&mut world, Limits { sends: enough, ..ONE });
            let id = world.call(one, "/sendelecoupon/add", send.clone()).await.ok()["id"].clone();
            run_all(&world).await;
            assert_eq!(send_info(&world, &id).await["send_num"], 2);
        }
        limit(&mut world, ONE);
        let now_s = world.clock.now_ms() / 1000;
        let lapse_date = now_s + 7 * 86_400;
        let waiting = waits(&world.call(one, "/sendelecoupon/add", send).await);
        assert_eq!(waiting, json!({"approval_id": 1, "id": 3, "nums": 2, "above": 1, "lapse_date": lapse_date}));
        let id = json!(3);
        run_all(&world).await;
        // No other word gets it going, or away.
        for what in ["pause", "resume", "cancel"] {
            let other = world.call(one, &format!("/sendelecoupon/{what}"), json!({"id": id})).await;
            assert_eq!(other.code(), 1004, "{what}: {}", other.body);
        }
        let info = send_info(&world, &id).await;
        assert_eq!((&info["state"], &info["nums"], &info["send_num"]), (&json!(4), &json!(2), &json!(0)));
        assert_eq!(world.operator("/job/info", json!({"id": id})).await.ok()["state"], 4);
        // Who comes later is not meant.
        world.operator("/member/add", json!({"id": 900})).await.ok();
        let approved = approve(&world, two, &json!(1)).await;
        assert_eq!(*approved.ok(), json!({"id": 1, "state": 1, "subject_id": 3}));
        run_all(&world).await;
        let info = send_info(&world, &id).await;
        assert_eq!((&info["state"], &info["nums"], &info["send_num"]), (&json!(1), &json!(2), &json!(2)));
        assert_eq!([in_hand(&world, MEMBER).await, in_hand(&world, Caller::Member(900)).await], [3, 0]);
        let told = proposal(&world, &json!(1)).await;
        let until = told["act"]["job"]["until_position"].clone();
        assert!(until.as_i64().unwrap() > 0);
        let recipients = json!({"shop_ids": [], "tag_ids": [], "level_ids": []});
        let work = json!({"send": {"definition_id": definition, "recipients": recipients, "notify": false}});
        let act = json!({"job_id": 3, "work": work, "targeted": 2, "until_position": until, "reason": ""});
        assert_eq!(told, json!({
            "id": 1, "type": "send", "action": "/sendelecoupon/add", "state": 1, "nums": 2, "above": 1, "subject_id": 3,
            "proposed_by": "operator:1", "user_id": 0, "create_date": now_s, "lapse_date": lapse_date,
            "closed_by": "operator:2", "close_date": now_s, "reason": "", "act": {"job": act},
        }));
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_list_of_more_members_than_the_limit_waits_as_a_send(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({})).await;
        limit(&mut world, ONE);
        let to = |members: Value| json!({"coupon_id": definition, "member_ids": members});
        let route = "/sendelecoupon/members";
        assert_eq!(world.call(one, route, to(json!([439]))).await.ok()["send_num"], 1);
        let twice = world.call(one, route, to(json!([439, 442, 439]))).await;
        assert_eq!((twice.code(), twice.body["info"]["member_ids"].is_string()), (401, true), "{}", twice.body);
        let waiting = waits(&world.call(one, route, to(json!([442, 439]))).await);
        assert_eq!((&waiting["nums"], &waiting["above"]), (&json!(2), &json!(1)));
        run_all(&world).await;
        assert_eq!([in_hand(&world, MEMBER).await, in_hand(&world, FRIEND).await], [1, 0]);
        approve(&world, two, &waiting["approval_id"]).await.ok();
        run_all(&world).await;
        assert_eq!([in_hand(&world, MEMBER).await, in_hand(&world, FRIEND).await], [2, 1]);
        let info = send_info(&world, &waiting["id"]).await;
        assert_eq!((&info["state"], &info["send_num"]), (&json!(1), &json!(2)));
        // Its coupons are those of a send, which a recall finds.
        limit(&mut world, Limits::default());
        let recall = json!({"send_id": waiting["id"], "reason": "發錯"});
        assert_eq!(world.operator("/elecoupons/recall", recall).await.ok()["nums"], 2);
        run_all(&world).await;
        assert_eq!([in_hand(&world, MEMBER).await, in_hand(&world, FRIEND).await], [1, 0]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn stock_that_is_set_or_raised_above_the_limit_waits(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let unlimited = world.define(json!({})).await;
        limit(&mut world, ONE);
        let add = async |num: i64| world.call(one, "/elecoupons/add", definition(json!({"num": num}))).await;
        let id = add(99).await.ok()["id"].as_i64().unwrap();
        add(100).await.ok();
        for (num, told) in [(101, 101), (0, -1)] {
            let waiting = waits(&add(num).await);
            assert_eq!(waiting["nums"], told);
            let there = world.operator("/elecoupons/info", json!({"id": waiting["id"]})).await;
            assert_eq!(there.code(), 2002);
            approve(&world, two, &waiting["approval_id"]).await.ok();
            assert_eq!(stock(&world, waiting["id"].as_i64().unwrap()).await, num);
        }
        // What counts is what it comes to: many small steps are one large.
        let step = async |id: i64, by: i64| {
            let body = json!({"id": id, "num": by.abs(), "type": i64::from(by > 0)});
            world.call(one, "/elecoupons/inventory", body).await
        };
        step(id, 1).await.ok();
        let waiting = waits(&step(id, 1).await);
        assert_eq!((&waiting["nums"], &waiting["id"]), (&json!(101), &json!(id)));
        // It would come to another number than was proposed: not now.
        step(id, -20).await.ok();
        assert_eq!(approve(&world, two, &waiting["approval_id"]).await.code(), 6003);
        assert_eq!((stock(&world, id).await, proposal(&world, &waiting["approval_id"]).await["state"].clone()), (json!(80), json!(0)));
        step(id, 20).await.ok();
        approve(&world, two, &waiting["approval_id"]).await.ok();
        assert_eq!(stock(&world, id).await, 101);
        waits(&step(id, 1).await);
        // Less is one person's to decide, also where it is still more than the limit.
        step(id, -1).await.ok();
        step(unlimited, 500).await.ok();
        step(unlimited, -1).await.ok();
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn two_raises_at_once_do_not_come_to_more_than_the_limit(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 60})).await;
        limit(&mut world, ONE);
        let raise = async |who: Caller| world.call(who, "/elecoupons/inventory", json!({"id": id, "num": 30, "type": 1})).await.code();
        let mut codes = join_all([raise(one), raise(two), raise(OPERATOR)]).await;
        codes.sort_unstable();
        assert_eq!((codes, stock(&world, id).await), (vec![0, 1004, 1004], json!(90)));
        world.close().await;
    }

    async fn what_a_partner_may_hand_out_above_the_limit_waits(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({})).await;
        let partner = json!({"shop_name": "隔壁咖啡", "phone": "3", "address": "c"});
        let partner = world.operator("/business/add", partner).await.ok()["id"].clone();
        limit(&mut world, ONE);
        let allot = async |num: i64| {
            let body = json!({"business_id": partner, "coupon_id": definition, "num": num, "end_time": "2027-01-31"});
            world.call(one, "/business/addattract", body).await
        };
        let id = allot(100).await.ok()["id"].clone();
        let waiting = waits(&allot(101).await);
        assert_eq!(waiting["nums"], 101);
        let raise = async |by: i64| world.call(one, "/business/inventory", json!({"bc_id": id, "num": by, "type": 1})).await;
        let raised = waits(&raise(5).await);
        assert_eq!((&raised["nums"], &raised["id"]), (&json!(105), &id));
        for waiting in [&waiting, &raised] {
            approve(&world, two, &waiting["approval_id"]).await.ok();
        }
        let allotted = world.operator("/business/getattract", json!({"id": partner})).await.ok().clone();
        let nums: Vec<_> = allotted.as_array().unwrap().iter().map(|row| row["num"].as_i64().unwrap()).collect();
        assert_eq!(nums, [101, 105]);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_recall_and_an_extension_above_the_limit_wait_and_mean_what_was_issued_by_then(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        limit(&mut world, ONE);
        let later = json!({"coupon_id": definition, "end_date": "2027-06-30", "reason": "延期", "confirm": 1});
        let recall = json!({"coupon_id": definition, "reason": "發錯", "confirm": 1});
        assert_eq!(world.call(one, "/elecoupons/extend", later.clone()).await.ok()["nums"], 1);
        run_all(&world).await;
        world.issue(definition, 442).await;
        let extension = waits(&world.call(one, "/elecoupons/extend", later).await);
        let recalled = waits(&world.call(one, "/elecoupons/recall", recall).await);
        assert_eq!((&extension["nums"], &recalled["nums"]), (&json!(2), &json!(2)));
        let third = world.issue(definition, 442).await;
        run_all(&world).await;
        let end_date = async |member: Caller| {
            let list = world.call(member, "/client/couponlist", json!({"state": 0})).await;
            list.ok().as_array().unwrap().iter().map(|row| row["end_date"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(end_date(FRIEND).await, ["2026-12-22", "2026-12-22"]);
        approve(&world, two, &extension["approval_id"]).await.ok();
        run_all(&world).await;
        assert_eq!(end_date(FRIEND).await, ["2026-12-22", "2027-06-30"]);
        approve(&world, two, &recalled["approval_id"]).await.ok();
        run_all(&world).await;
        let left = world.call(FRIEND, "/client/couponlist", json!({"state": 0})).await.ok().clone();
        assert_eq!((left.as_array().unwrap().len(), &left[0]["id"]), (1, &json!(third)));
        assert_eq!(in_hand(&world, MEMBER).await, 0);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_file_above_the_limit_waits_and_then_goes_in_for_whoever_proposed_it(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        world.define(json!({})).await;
        limit(&mut world, ONE);
        let file = format!("{TABLE}{}{}", row(900_001), row(900_002));
        let import = async |who: Caller, file: &str, dry_run: i64| {
            world.call(who, "/elecoupons/import", json!({"csv": file, "dry_run": dry_run})).await
        };
        assert_eq!(import(one, &format!("{TABLE}{}", row(900_003)), 0).await.ok()["ok_num"], 1);
        assert_eq!(import(one, &file, 1).await.ok()["ok_num"], 2);
        let first = import(one, &file, 0).await;
        let waiting = waits(&first);
        assert_eq!((&waiting["id"], &waiting["nums"]), (&json!(0), &json!(2)));
        let again = import(one, &file, 0).await;
        assert_eq!((again.replayed(), &again.body), (true, &first.body));
        approve(&world, two, &waiting["approval_id"]).await.ok();
        // Only this file, and only whose it is.
        assert_ne!(waits(&import(two, &file, 0).await)["approval_id"], waiting["approval_id"]);
        assert_ne!(waits(&import(one, &format!("{file}\n"), 0).await)["approval_id"], waiting["approval_id"]);
        assert_eq!(events(&world.home, "Imported").await, 1);
        assert_eq!(import(one, &file, 0).await.ok()["ok_num"], 2);
        assert!(import(one, &file, 0).await.replayed());
        assert_eq!(events(&world.home, "Imported").await, 3);
        // What was refused may be proposed once more.
        let other = format!("{TABLE}{}{}", row(900_004), row(900_005));
        let refused = waits(&import(one, &other, 0).await)["approval_id"].clone();
        world.operator("/approval/refuse", json!({"id": refused})).await.ok();
        assert_ne!(waits(&import(one, &other, 0).await)["approval_id"], refused);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn nobody_approves_what_he_may_have_proposed_himself(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        give_rights(&world, "31").await;
        account(&world, json!({"name": "clerk", "role": "employee", "user_id": 1000})).await;
        let clerk = sign_in(&world, "clerk", PASSWORD).await.ok()["token"].as_str().unwrap().to_owned();
        let session = sign_in(&world, "one", PASSWORD).await.ok()["token"].as_str().unwrap().to_owned();
        let issued = |who: Caller| format!("Bearer {}", world.token(who));
        let key = async |bearer: String| {
            let path = "/v1/machine-keys?name=till&rights=definitions";
            world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await.body["key"].as_str().unwrap().to_owned()
        };
        let (of_one, of_operator) = (key(issued(one)).await, key(issued(OPERATOR)).await);
        let id = world.define(json!({"num": 100})).await;
        world.advance(1_000);
        limit(&mut world, ONE);
        let body = json!({"id": id, "num": 1, "type": 1});
        // Whoever proposes, and who may not approve it.
        for (bearer, may_not) in [
            (world.token(OPERATOR), vec![OPERATOR]),
            (world.token(one), vec![one, OPERATOR]),
            (session, vec![one, OPERATOR]),
            (of_one, vec![one, OPERATOR]),
            (of_operator, vec![OPERATOR]),
            // A token is signed by whoever holds the secret …
            (world.token(EMPLOYEE), vec![OPERATOR]),
            // … and a password is his own.
            (clerk, vec![]),
        ] {
            let proposed = waits(&with(&world, &bearer, "/elecoupons/inventory", body.clone()).await)["approval_id"].clone();
            for who in [one, OPERATOR, two] {
                let reply = approve(&world, who, &proposed).await;
                if may_not.contains(&who) {
                    assert_eq!((reply.code(), reply.status.as_u16()), (1002, 403), "{who}: {}", reply.body);
                    assert_eq!(proposal(&world, &proposed).await["state"], 0);
                } else {
                    reply.ok();
                    break;
                }
            }
            assert_eq!(proposal(&world, &proposed).await["state"], 1);
            world.operator("/elecoupons/inventory", json!({"id": id, "num": 1, "type": 0})).await.ok();
        }
        // Nobody else says yes at all.
        let proposed = more(&world, one, id, 1).await;
        for who in [MEMBER, EMPLOYEE, Caller::Auditor, Caller::Partner(2)] {
            assert_eq!(approve(&world, who, &proposed).await.code(), 1002, "{who}");
        }
        assert_eq!(world.call(two, "/approval/withdraw", json!({"id": proposed})).await.code(), 2005);
        world.call(one, "/approval/withdraw", json!({"id": proposed})).await.ok();
        assert_eq!(approve(&world, two, &proposed).await.code(), 401);
        world.close().await;
    }

    async fn an_account_that_was_opened_since_it_was_proposed_approves_nothing(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let eldest = account(&world, json!({"name": "eldest", "role": "operator"})).await;
        let third = account(&world, json!({"name": "third", "role": "operator"})).await;
        let id = world.define(json!({"num": 100})).await;
        world.advance(1_000);
        limit(&mut world, ONE);
        let proposed = more(&world, one, id, 1).await;
        // The proposer makes himself another, or gets into his colleague's.
        let another = account(&world, json!({"name": "another", "role": "operator"})).await;
        world.call(one, "/user/resetpassword", json!({"name": "two"})).await.ok();
        let link = json!({"id": third, "issuer": "https://login.example", "subject": "7"});
        world.call(one, "/account/subject", link).await.ok();
        for who in [Caller::OperatorAccount(another), two, Caller::OperatorAccount(third)] {
            assert_eq!(approve(&world, who, &proposed).await.code(), 1002, "{who}");
        }
        assert_eq!(stock(&world, id).await, 100);
        approve(&world, Caller::OperatorAccount(eldest), &proposed).await.ok();
        // What is proposed from now on they may approve.
        world.advance(1_000);
        let proposed = more(&world, one, id, 1).await;
        approve(&world, Caller::OperatorAccount(another), &proposed).await.ok();
        assert_eq!(stock(&world, id).await, 102);
        world.close().await;
    }

    async fn whoever_approves_at_once_it_is_done_once(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 100})).await;
        limit(&mut world, ONE);
        let beside = match &world.home.database_url {
            Some(url) => Some(World::open(world.home.beside(url.clone()), world.clock.clone(), Zone::default()).await),
            None => None,
        };
        for round in 1..=5 {
            let proposed = more(&world, OPERATOR, id, 1).await;
            let servers = [&world, beside.as_ref().unwrap_or(&world)];
            let calls = servers.into_iter().flat_map(|server| [one, two].map(|who| approve(server, who, &proposed)));
            let codes: Vec<i64> = join_all(calls).await.iter().map(Reply::code).collect();
            // Who has approved it has; the other comes too late.
            assert!(codes.iter().all(|code| [0, 401].contains(code)) && codes.contains(&0), "{codes:?}");
            assert_eq!(stock(&world, id).await, 100 + round);
            assert_eq!(events(&world.home, "Approved").await, round);
        }
        assert_eq!(events(&world.home, "StockChanged").await, 5);
        assert_rows_equal_replay(&world).await;
        if let Some(beside) = beside {
            beside.close().await;
        }
        world.close().await;
    }

    async fn of_approving_refusing_and_withdrawing_at_once_one_holds(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 100})).await;
        limit(&mut world, ONE);
        let mut raised = 0;
        for _ in 0..8 {
            let proposed = more(&world, one, id, 1).await;
            let body = json!({"id": proposed});
            let (approved, refused, withdrawn) = tokio::join!(
                approve(&world, two, &proposed),
                world.call(two, "/approval/refuse", body.clone()),
                world.call(one, "/approval/withdraw", body.clone()),
            );
            let codes = [approved.code(), refused.code(), withdrawn.code()];
            let states = [1, 2, 3];
            let held: Vec<_> = states.into_iter().zip(codes).filter(|(_, code)| *code == 0).map(|(state, _)| state).collect();
            assert_eq!((held.len(), codes.iter().filter(|code| **code == 401).count()), (1, 2), "{codes:?}");
            assert_eq!(proposal(&world, &proposed).await["state"], held[0]);
            raised += i64::from(held[0] == 1);
            assert_eq!(stock(&world, id).await, 100 + raised);
            if held[0] == 1 {
                world.operator("/elecoupons/inventory", json!({"id": id, "num": 1, "type": 0})).await.ok();
                raised -= 1;
            }
        }
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn what_is_refused_or_withdrawn_is_never_done(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({})).await;
        limit(&mut world, ONE);
        let send = json!({"coupon_id": definition, "confirm": 1});
        for (who, what, state, by, reason) in
            [(two, "refuse", 2, "operator:2", "數量有誤"), (one, "withdraw", 3, "operator:1", "")]
        {
            let waiting = waits(&world.call(one, "/sendelecoupon/add", send.clone()).await);
            let body = json!({"id": waiting["approval_id"], "reason": reason});
            let closed = world.call(who, &format!("/approval/{what}"), body.clone()).await;
            assert_eq!(*closed.ok(), json!({"id": waiting["approval_id"], "state": state, "subject_id": waiting["id"]}));
            world.call(who, &format!("/approval/{what}"), body).await.ok();
            let told = proposal(&world, &waiting["approval_id"]).await;
            assert_eq!((&told["state"], &told["closed_by"], &told["reason"]), (&json!(state), &json!(by), &json!(reason)));
            assert_eq!(approve(&world, two, &waiting["approval_id"]).await.code(), 401);
            run_all(&world).await;
            assert_eq!(send_info(&world, &waiting["id"]).await["state"], 3);
        }
        assert_eq!(count(&world.home, "SELECT count(*) FROM job_items").await, 0);
        assert_eq!((in_hand(&world, MEMBER).await, events(&world.home, "Started").await), (0, 0));
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_proposal_lapses_at_the_very_instant_whether_or_not_it_is_written_down(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let definition = world.define(json!({"num": 100})).await;
        limit(&mut world, ONE);
        let (first, second) = (more(&world, one, definition, 1).await, more(&world, one, definition, 2).await);
        let send = json!({"coupon_id": definition, "confirm": 1});
        let waiting = waits(&world.call(one, "/sendelecoupon/add", send).await);
        world.advance(7 * DAY - 1);
        assert_eq!(sweep(&world.ledger).await.unwrap(), 0);
        approve(&world, two, &first).await.ok();
        world.advance(1);
        let late = async || {
            for id in [&second, &waiting["approval_id"]] {
                assert_eq!(approve(&world, two, id).await.code(), 401);
                assert_eq!(world.call(one, "/approval/withdraw", json!({"id": id})).await.code(), 401);
                assert_eq!(proposal(&world, id).await["state"], 4);
            }
            let ids = async |state: i64| {
                let list = world.operator("/approval/list", json!({"state": state})).await.ok().clone();
                list.as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!((ids(0).await, ids(1).await, ids(4).await), (vec![], vec![1], vec![3, 2]));
            assert_eq!(send_info(&world, &waiting["id"]).await["state"], 3);
            let sends = world.operator("/sendelecoupon/getlist", json!({})).await.ok().clone();
            assert_eq!(sends[0]["state"], 3);
        };
        late().await;
        assert_eq!(events(&world.home, "Expired").await, 0);
        assert_eq!(sweep(&world.ledger).await.unwrap(), 2);
        assert_eq!(sweep(&world.ledger).await.unwrap(), 0);
        assert_eq!((events(&world.home, "Expired").await, events(&world.home, "Cancelled").await), (2, 1));
        late().await;
        run_all(&world).await;
        assert_eq!((in_hand(&world, MEMBER).await, stock(&world, definition).await), (0, json!(101)));
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn a_key_proposes_and_approves_once_and_is_answered_the_same(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 100})).await;
        let partner = json!({"shop_name": "隔壁咖啡", "phone": "3", "address": "c"});
        let partner = world.operator("/business/add", partner).await.ok()["id"].clone();
        limit(&mut world, ONE);
        let send = json!({"coupon_id": id, "member_ids": [439, 442]});
        let allot = json!({"business_id": partner, "coupon_id": id, "num": 101, "end_time": "2027-01-31"});
        // With a field that says something else.
        let calls = [
            ("/elecoupons/inventory", json!({"id": id, "num": 1, "type": 1}), ("num", 2)),
            ("/elecoupons/add", definition(json!({"num": 101})), ("num", 102)),
            ("/sendelecoupon/members", send, ("coupon_id", 7)),
            ("/sendelecoupon/add", json!({"coupon_id": id}), ("coupon_id", 7)),
            ("/business/addattract", allot, ("num", 102)),
        ];
        let mut answers = Vec::new();
        for (route, body, (field, value)) in &calls {
            let first = world.keyed(one, "propose-it", route, body.clone()).await;
            let waiting = waits(&first);
            let again = world.keyed(one, "propose-it", route, body.clone()).await;
            assert_eq!((again.replayed(), &again.body), (true, &first.body), "{route}");
            let mut other = body.clone();
            other[*field] = (*value).into();
            assert_eq!(world.keyed(one, "propose-it", route, other).await.code(), 6001, "{route}");
            let said = world.keyed(two, "approve-it", "/approval/approve", json!({"id": waiting["approval_id"]})).await;
            if answers.is_empty() {
                said.ok();
                let again = world.keyed(two, "approve-it", "/approval/approve", json!({"id": waiting["approval_id"]})).await;
                assert_eq!((again.replayed(), &again.body), (true, &said.body));
            } else {
                assert_eq!(said.code(), 6001);
                approve(&world, two, &waiting["approval_id"]).await.ok();
            }
            answers.push(first.body);
        }
        // It stays the answer, also once it is done and whatever the limit is by then.
        for limits in [ONE, Limits::default()] {
            limit(&mut world, limits);
            for ((route, body, _), first) in calls.iter().zip(&answers) {
                let again = world.keyed(one, "propose-it", route, body.clone()).await;
                assert_eq!((again.replayed(), &again.body), (true, first), "{route}");
            }
        }
        run_all(&world).await;
        assert_eq!((stock(&world, id).await, in_hand(&world, MEMBER).await), (json!(101), 2));
        assert_eq!(events(&world.home, "Approved").await, 5);
        assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn what_its_proposer_may_not_any_more_is_not_approved(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let office = give_rights(&world, "31").await;
        let id = world.define(json!({"num": 100})).await;
        let bearer = format!("Bearer {}", world.token(OPERATOR));
        let path = "/v1/machine-keys?name=till&rights=definitions";
        let key = world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await.body["key"].clone();
        limit(&mut world, ONE);
        let proposed = more(&world, EMPLOYEE, id, 1).await;
        let rights = async |rights: &str| {
            world.operator("/office/setcompetence", json!({"id": office, "competence_ids": rights})).await.ok();
        };
        let works = async |state: i64| {
            world.operator("/user/edit", json!({"id": 1000, "state": state})).await.ok();
        };
        rights("9").await;
        assert_eq!(approve(&world, two, &proposed).await.code(), 1002);
        rights("31").await;
        works(0).await;
        assert_eq!(approve(&world, two, &proposed).await.code(), 1002);
        assert_eq!((proposal(&world, &proposed).await["state"].clone(), stock(&world, id).await), (json!(0), json!(100)));
        works(1).await;
        approve(&world, two, &proposed).await.ok();
        let body = json!({"id": id, "num": 1, "type": 1});
        let of_machine = with(&world, key.as_str().unwrap(), "/elecoupons/inventory", body).await;
        let of_one = more(&world, one, id, 1).await;
        world.raw("DELETE", "/v1/machine-keys/1", &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!(approve(&world, two, &waits(&of_machine)["approval_id"]).await.code(), 1002);
        world.operator("/account/state", json!({"id": 1, "state": 0})).await.ok();
        assert_eq!(approve(&world, two, &of_one).await.code(), 1002);
        assert_eq!(stock(&world, id).await, 101);
        world.close().await;
    }

    async fn what_the_command_meets_by_then_refuses_it_and_it_stays_open(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 2})).await;
        limit(&mut world, ONE);
        let waiting = waits(&world.call(one, "/sendelecoupon/add", json!({"coupon_id": id})).await);
        let switch = async |state: i64| {
            world.operator("/elecoupons/state", json!({"id": id, "state": state})).await.ok();
        };
        switch(0).await;
        assert_eq!(approve(&world, two, &waiting["approval_id"]).await.code(), 5006);
        switch(1).await;
        let taken = world.issue(id, 439).await;
        assert_eq!(approve(&world, two, &waiting["approval_id"]).await.code(), 5001);
        assert_eq!(proposal(&world, &waiting["approval_id"]).await["state"], 0);
        assert_eq!(send_info(&world, &waiting["id"]).await["state"], 4);
        world.operator("/user/voidelecoupon", json!({"mem_coupon_id": taken, "reason": "發錯"})).await.ok();
        approve(&world, two, &waiting["approval_id"]).await.ok();
        run_all(&world).await;
        assert_eq!(send_info(&world, &waiting["id"]).await["send_num"], 2);
        world.close().await;
    }

    async fn history_and_as_of_tell_who_proposed_and_who_approved(engine: Engine) {
        let (mut world, one, two) = people(engine).await;
        let id = world.define(json!({"num": 100})).await;
        limit(&mut world, ONE);
        let proposed = more(&world, one, id, 1).await;
        let mut seen = Vec::new();
        let look = async |world: &World, seen: &mut Vec<_>| {
            world.advance(1_000);
            world.operator("/tag/add", json!({"tag_name": "常客"})).await.ok();
            for (path, body) in [("/approval/info", json!({"id": 1})), ("/approval/list", json!({"state": 0}))] {
                seen.extend(given_here(world, Caller::Auditor, path, body).await);
            }
        };
        look(&world, &mut seen).await;
        approve(&world, two, &proposed).await.ok();
        look(&world, &mut seen).await;
        for given in &seen {
            assert_as_given(&world, given).await;
        }
        let history = world.get(Caller::Auditor, "/v1/streams/approval/1/history").await.body.to_string();
        for told in ["raised by 1 to 101, proposed by operator:1", "approved by operator:2"] {
            assert!(history.contains(told), "{told}: {history}");
        }
        // What was done names who approved it, in the same append.
        let appends = world.home.sql(
            "SELECT metadata FROM events WHERE event_type IN ('Approved', 'StockChanged') ORDER BY position",
        ).await.unwrap();
        let metadata: Vec<Value> = appends.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        assert_eq!((metadata.len(), &metadata[0]["caller"]), (2, &json!("operator:2")));
        assert_eq!(metadata[0], metadata[1]);
        world.close().await;
    }

    async fn what_was_approved_is_done_whenever_the_server_is_killed(engine: Engine) {
        const ROUNDS: u64 = 6;
        let home = Home::new(engine).await;
        let made = run_with(&home, &["operator", "create", "--name", "boss"], &format!("{PASSWORD}\n")).await;
        assert_eq!(made.0, 0, "{}", made.2);
        let boss = Caller::OperatorAccount(1);
        let options = ["--approve-sends-above", "1"];
        let mut server = Server::start(&home, &options).await;
        let mut api = Api::new(&home, &server);
        for id in 1..=5 {
            api.operator("/member/add", json!({"id": id})).await.ok();
        }
        let id = api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"].clone();
        let mut rng = StdRng::seed_from_u64(11);
        for _ in 0..ROUNDS {
            let waiting = waits(&api.operator("/sendelecoupon/add", json!({"coupon_id": id, "confirm": 1})).await);
            let body = json!({"id": waiting["approval_id"]});
            let approving = tokio::spawn({
                let (api, body) = (api.clone(), body.clone());
                async move { api.try_call(boss, None, "/approval/approve", &body).await.map(|reply| reply.code()) }
            });
            tokio::time::sleep(Duration::from_millis(rng.random_range(0..25))).await;
            server.kill().await;
            let answered = approving.await.unwrap();
            // Both are there, or neither; and what was answered is.
            let of = |kind: &str, id: &Value, name: &str| {
                format!("SELECT count(*) FROM events WHERE aggregate_type = '{kind}' AND aggregate_id = '{id}' AND event_type = '{name}'")
            };
            let approved = count(&home, &of("approval", &waiting["approval_id"], "Approved")).await;
            assert_eq!(approved, count(&home, &of("job", &waiting["id"], "Started")).await);
            assert!(approved == 1 || answered.is_err(), "an answered approval is gone");
            // What the lease would keep back for a quarter of a minute is let go, as if the time had passed.
            home.sql("DELETE FROM checkpoints").await.unwrap();
            server = Server::start(&home, &options).await;
            api = Api::new(&home, &server);
            api.call(boss, "/approval/approve", body).await.ok();
            let state = async || api.operator("/sendelecoupon/info", json!({"id": waiting["id"]})).await.ok()["state"].clone();
            until("the send is done", async || state().await == 1).await;
        }
        server.kill().await;
        let issued = home.sql("SELECT count(*) FROM wallet_v1 GROUP BY member_id").await.unwrap();
        assert_eq!(issued, vec![ROUNDS.to_string(); 5]);
        assert_eq!(events(&home, "Approved").await, ROUNDS as i64);
        assert_gapless(&home).await;
    }

    async fn approvals_are_listed_and_given_on_the_command_line(engine: Engine) {
        let home = Home::new(engine).await;
        let password = format!("{PASSWORD}\n");
        let made = run_with(&home, &["operator", "create", "--name", "boss"], &password).await;
        assert_eq!(made.0, 0, "{}", made.2);
        let log = home.path().join("server.log");
        let mut command = program(&home);
        command.stderr(Stdio::from(std::fs::File::create(&log).unwrap()));
        let limits = ["--approve-sends-above", "1", "--approve-imports-above", "1", "--limits", "off"];
        let server = Server::launch(command, &limits).await;
        assert!(std::fs::read_to_string(&log).unwrap().contains("coupon-ledger operator create"));
        let api = Api::new(&home, &server);
        for id in [439, 442] {
            api.operator("/member/add", json!({"id": id})).await.ok();
        }
        api.operator("/elecoupons/add", definition(json!({}))).await.ok();
        let write = |name: &str, text: String| {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let members = write("members", "439\n442\n".to_owned());
        let first = write("first.csv", format!("{TABLE}{}{}", row(900_001), row(900_002)));
        let second = write("second.csv", format!("{TABLE}{}{}", row(900_003), row(900_004)));
        let config = write("ledger.toml", "approve_sends_above = 1\napprove_imports_above = 1\n".to_owned());
        let issue = ["issue", "--definition", "1", "--members", &members];
        // Where a server holds the ledger its own numbers count; else those of the settings.
        let run = async |is_held: bool, arguments: &[&str]| {
            let mut command = program(&home);
            if !is_held {
                command.env("COUPON_LEDGER_CONFIG", &config);
            }
            command.args(arguments);
            finish(command).await
        };
        let refused = async |is_held: bool, arguments: &[&str], why: &str| {
            let done = run(is_held, arguments).await;
            assert_eq!((done.code, done.out.as_str()), (Some(1), ""), "{done:?}");
            assert!(done.err.contains(why), "{done:?}");
        };
        let as_boss = async |what: &str, id: &str, state: i64| {
            let (code, out, err) = run_with(&home, &["approval", what, id, "--name", "boss"], &password).await;
            let told: Value = serde_json::from_str(&out).unwrap_or_default();
            assert_eq!((code, &told["state"]), (0, &json!(state)), "{out} {err}");
        };
        let is_held = engine == Engine::Sqlite;
        refused(is_held, &issue, "more than 1 members").await;
        let again = "once approval 1 is given, import the same file again";
        refused(is_held, &["import", "coupons", &first], again).await;
        refused(is_held, &["approval", "approve", "1"], "not allowed").await;
        let wrong =
            run_with(&home, &["approval", "approve", "1", "--name", "boss"], "wrong horse battery\n").await;
        assert_eq!((wrong.0, wrong.1.as_str()), (1, ""), "{}", wrong.2);
        let listed = run(is_held, &["approval", "list"]).await;
        let line: Value = serde_json::from_str(&listed.out).unwrap();
        let told = [&line["type"], &line["action"], &line["proposed_by"]];
        assert_eq!(told, ["import", "/elecoupons/import", "operator"], "{line}");
        as_boss("approve", "1", 1).await;
        assert_eq!(run(is_held, &["import", "coupons", &first]).await.code, Some(0));
        server.kill().await;
        refused(false, &issue, "more than 1 members").await;
        refused(false, &["import", "coupons", &second], "once approval 2 is given").await;
        refused(false, &["approval", "approve", "2"], "not allowed").await;
        as_boss("refuse", "2", 2).await;
        refused(false, &["import", "coupons", &second], "once approval 3 is given").await;
        assert_eq!(run(false, &["approval", "withdraw", "3"]).await.code, Some(0));
        refused(false, &["import", "coupons", &second], "once approval 4 is given").await;
        as_boss("approve", "4", 1).await;
        assert_eq!(run(false, &["import", "coupons", &second]).await.code, Some(0));
        assert_eq!(run(false, &["approval", "list"]).await.out, "");
        assert_eq!(run(false, &["approval", "list", "--all"]).await.out.lines().count(), 4);
        assert_eq!((events(&home, "Imported").await, events(&home, "Issued").await), (4, 0));
    }
}
