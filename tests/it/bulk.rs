//! Bulk issue: the rules of a single issue for every member, one transaction and one key a chunk, and a run that goes on
//! where it was killed.

use std::time::Duration;

use coupon_ledger::bulk::{self, Chunk};
use coupon_ledger::coupon::{Coupon, CouponCommand, Origin, Source};
use coupon_ledger::identity::Caller;
use coupon_ledger::ledger::{ExecuteError, Many, Meta};
use coupon_ledger::refusal::Refusal;
use coupon_ledger::store::ReceiptKey;
use serde_json::{Value, json};

use crate::harness::{Home, INSERT_MEMBERS, MEMBER, Server, World, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, assert_gapless, count, events, until};

const ROUTE: &str = "/sendelecoupon/members";

fn meta(world: &World, key: Option<&str>) -> Meta {
    let receipt = key.map(|key| {
        let key = ReceiptKey { caller: "operator".to_owned(), operation: ROUTE, key: key.to_owned() };
        (key, "the request".to_owned())
    });
    Meta {
        caller: Caller::Operator,
        at: world.ledger.now(),
        request_id: "test".to_owned(),
        receipt,
        job_id: None,
    }
}

async fn chunk(world: &World, definition_id: i64, members: &[i64], key: Option<&str>) -> Chunk {
    bulk::issue(&world.ledger, definition_id, Origin::of(Source::MassSend, 0), members, &meta(world, key))
        .await
        .unwrap()
}

fn members_of(chunk: &Chunk) -> Vec<i64> {
    chunk.issued.iter().map(|(member, _)| *member).collect()
}

/// So many members from 1 on, past the API: it adds one at a time.
pub async fn add_members(home: &Home, count: i64) {
    let members: Vec<String> =
        (1..=count).map(|id| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)")).collect();
    home.sql(&format!("{INSERT_MEMBERS} {} ON CONFLICT DO NOTHING", members.join(", "))).await.unwrap();
}

on_both_engines! {
    async fn the_rules_of_a_single_issue_hold_for_each_member_of_a_chunk(engine: Engine) {
        let world = World::with_people(engine).await;
        world.operator("/member/add", json!({"id": 500, "level_id": 7})).await.ok();
        let limited = world.define(json!({"get_limit_type": 2, "get_limit": 1, "num": 3})).await;
        // Twice the same, one whom nobody knows, and more than there are.
        let first = chunk(&world, limited, &[439, 439, 999, 442, 500, 442], None).await;
        assert_eq!(members_of(&first), [439, 442, 500]);
        let why: Vec<_> = first.refused.iter().map(|(member, why)| (*member, why.as_ref().unwrap().code())).collect();
        assert_eq!(why, [(439, 5002), (999, 310), (442, 5002)]);
        let second = chunk(&world, limited, &[439], None).await;
        assert_eq!(second.refused, [(439, Some(Refusal::LimitReached))]);
        let sold = world.define(json!({"num": 2})).await;
        let last = chunk(&world, sold, &[439, 442, 500], None).await;
        assert_eq!((members_of(&last), &last.refused), (vec![439, 442], &vec![(500, Some(Refusal::SoldOut))]));
        let levels = world.define(json!({"get_limit_type": 4, "level_ids": "7"})).await;
        assert_eq!(members_of(&chunk(&world, levels, &[439, 500], None).await), [500]);
        let one_at_a_time = world.define(json!({"get_limit_type": 3})).await;
        assert_eq!(members_of(&chunk(&world, one_at_a_time, &[439, 439, 442], None).await), [439, 442]);
        // They are coupons like any other.
        let list = world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await;
        assert_eq!(list.ok().as_array().unwrap().len(), 3);
        world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": first.issued[0].1, "shop_id": 1})).await.ok();
        let stock = "SELECT issued FROM stock_v1 ORDER BY definition_id";
        assert_eq!(world.home.sql(stock).await.unwrap(), ["3", "2", "1", "2"]);
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn a_chunk_is_one_transaction_and_its_events_lie_side_by_side(engine: Engine) {
        let world = World::with_people(engine).await;
        add_members(&world.home, 300).await;
        let definition = world.define(json!({})).await;
        let before = count(&world.home, "SELECT position FROM log_head").await;
        let members: Vec<i64> = (1..=300).collect();
        let done = chunk(&world, definition, &members, Some("side-by-side")).await;
        assert_eq!(done.issued.len(), 300);
        let log = world.store().events_after(before, 1_000).await.unwrap();
        assert_eq!(log.len(), 300);
        let ids: Vec<i64> = log.iter().map(|event| event.aggregate_id.parse().unwrap()).collect();
        assert_eq!(ids, done.issued.iter().map(|(_, coupon)| *coupon).collect::<Vec<_>>());
        assert!(log.windows(2).all(|pair| pair[0].metadata == pair[1].metadata), "one append");
        let receipts = world.home.sql("SELECT position || ' ' || event_count FROM receipts").await.unwrap();
        assert_eq!(receipts, [format!("{} 300", before + 1)]);
        world.close().await;
    }

    async fn a_chunk_whose_key_was_used_answers_the_same_and_does_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"num": 2})).await;
        let body = json!({"coupon_id": definition, "member_ids": "442,999,439,439"});
        let first = world.keyed(Caller::Operator, "chunk-1", ROUTE, body.clone()).await;
        assert_eq!((&first.ok()["nums"], &first.data()["send_num"], &first.data()["refused"]), (&json!(4), &json!(2), &json!([999, 439])));
        world.operator("/elecoupons/inventory", json!({"id": definition, "num": 5, "type": 1})).await.ok();
        let head = count(&world.home, "SELECT position FROM log_head").await;
        let again = world.keyed(Caller::Operator, "chunk-1", ROUTE, body).await;
        assert!(again.replayed() && again.body == first.body, "{}", again.body);
        assert_eq!(count(&world.home, "SELECT position FROM log_head").await, head);
        let other = json!({"coupon_id": definition, "member_ids": "442"});
        assert_eq!(world.keyed(Caller::Operator, "chunk-1", ROUTE, other).await.code(), 6001);
        world.close().await;
    }

    async fn a_chunk_that_cannot_be_issued_at_all_says_so(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let ask = async |body: Value| world.operator(ROUTE, body).await.code();
        assert_eq!(ask(json!({"coupon_id": 99, "member_ids": [439]})).await, 2002);
        world.operator("/elecoupons/state", json!({"id": definition, "state": 0})).await.ok();
        assert_eq!(ask(json!({"coupon_id": definition, "member_ids": [439]})).await, 5006);
        let many: Vec<i64> = (1..=501).collect();
        for members in [json!([]), json!("x"), json!([0, 1]), json!(many), Value::Null] {
            assert_eq!(ask(json!({"coupon_id": definition, "member_ids": members})).await, 401, "{members}");
        }
        assert_eq!(world.call(MEMBER, ROUTE, json!({"coupon_id": definition, "member_ids": [439]})).await.code(), 1002);
        world.close().await;
    }

    async fn many_commands_are_decided_one_by_one(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(world.issue(definition, 439).await);
        }
        let redeem = |number: i64| CouponCommand::Redeem {
            redeemer: coupon_ledger::coupon::Redeemer::Member(439),
            shop_id: 1,
            redemption_id: 100 + number,
            audit_url: None,
        };
        let commands = vec![
            (ids[0], redeem(0)),
            (777, redeem(1)),
            (ids[1], CouponCommand::View { member_id: 439 }),
            (ids[0], CouponCommand::View { member_id: 439 }),
            (ids[2], redeem(2)),
        ];
        let Many::Done(outcomes) = world.ledger.execute_many::<Coupon>(commands.clone(), &meta(&world, None)).await.unwrap()
        else {
            panic!("nothing was done before")
        };
        let said: Vec<_> = outcomes.iter().map(|outcome| match outcome {
            Ok(done) => format!("{} events", done.events.len()),
            Err(error) => error.to_string(),
        }).collect();
        assert_eq!(said[0], "1 events");
        assert!(matches!(outcomes[1], Err(ExecuteError::Refused(Refusal::NoSuchCoupon))), "{said:?}");
        assert!(matches!(outcomes[3], Err(ExecuteError::Conflict)), "two on one stream: {said:?}");
        assert_eq!((&said[2], &said[4]), (&said[0], &said[0]));
        let Many::Done(again) = world.ledger.execute_many::<Coupon>(commands, &meta(&world, None)).await.unwrap() else {
            panic!("no key was given")
        };
        assert!(matches!(again[0], Err(ExecuteError::Refused(Refusal::AlreadyUsed { redemption_id: 100, .. }))));
        assert!(matches!(&again[2], Ok(done) if done.events.is_empty()));
        assert_eq!(events(&world.home, "Redeemed").await, 2);
        world.close().await;
    }

    /// Members' commands on the very coupons that a chunk is about: whoever comes second sees what the first one did.
    async fn a_chunk_and_members_on_the_same_coupons_agree(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let mut ids = Vec::new();
        for _ in 0..40 {
            ids.push(world.issue(definition, 439).await);
        }
        let voids = ids.iter().map(|id| {
            (*id, CouponCommand::Void { employee_id: 0, reason: "recalled".to_owned() })
        });
        let voiding = meta(&world, None);
        let (voided, used) = tokio::join!(
            world.ledger.execute_many::<Coupon>(voids.collect(), &voiding),
            futures::future::join_all(ids.iter().map(|id| {
                world.call(MEMBER, "/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1}))
            })),
        );
        let Many::Done(voided) = voided.unwrap() else { panic!("no key was given") };
        for (voided, used) in voided.iter().zip(&used) {
            match voided {
                Ok(_) => assert_eq!(used.code(), 3004, "{}", used.body),
                Err(ExecuteError::Refused(Refusal::AlreadyUsed { .. })) => assert_eq!(used.code(), 0),
                Err(other) => panic!("{other}"),
            }
        }
        let ends = events(&world.home, "Voided").await + events(&world.home, "Redeemed").await;
        assert_eq!(ends, 40);
        assert_gapless(&world.home).await;
        world.close().await;
    }

    async fn a_killed_run_goes_on_and_doubles_nobody(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        let body = crate::harness::definition(json!({"get_limit_type": 1}));
        api.operator("/elecoupons/add", body).await.ok();
        add_members(&home, 20_000).await;
        server.kill().await;
        let run = async |members: &str| {
            let mut command = program(&home);
            command.args(["issue", "--definition", "1", "--run", "spring", "--members", members]);
            command
        };
        let mut kills = 0;
        let mut seen = 0;
        while seen < 20_000 && kills < 5 {
            let mut child = run("1..20000").await.spawn().unwrap();
            let before = seen;
            // Killed once it has got somewhere.
            until("it gets on", async || {
                seen = events(&home, "Issued").await;
                seen > before + 700 || child.try_wait().unwrap().is_some()
            })
            .await;
            child.kill().await.unwrap();
            kills += 1;
        }
        let output = run("1..20000").await.heard().await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |name: &str| told[name].as_i64().unwrap();
        assert_eq!((number("members"), number("issued") + number("repeated")), (20_000, 20_000), "{told}");
        assert!(number("repeated") > 0, "{told}");
        assert_eq!(events(&home, "Issued").await, 20_000);
        let doubled = "SELECT count(*) FROM (SELECT member_id FROM wallet_v1 GROUP BY member_id HAVING count(*) > 1) AS d";
        assert_eq!(count(&home, doubled).await, 0);
        assert_gapless(&home).await;
        // The name stands for these members: with others it is refused, and nothing is issued.
        let other = run("5..6000").await.heard().await;
        assert_eq!(other.status.code(), Some(1), "{}", String::from_utf8_lossy(&other.stderr));
        assert_eq!(events(&home, "Issued").await, 20_000);
    }

    async fn a_run_works_while_the_server_does_and_members_are_served_meanwhile(engine: Engine) {
        let home = Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        let body = crate::harness::definition(json!({"get_limit_type": 2, "get_limit": 1}));
        api.operator("/elecoupons/add", body).await.ok();
        add_members(&home, 6_000).await;
        let file = home.path().join("members.txt");
        let mut lines: Vec<String> = (1..=6_000).map(|id| id.to_string()).collect();
        lines.insert(2, "# a note".to_owned());
        lines.insert(1_000, "nobody".to_owned());
        lines.push("7000".to_owned());
        lines.push("5".to_owned());
        std::fs::write(&file, lines.join("\n")).unwrap();
        let mut command = program(&home);
        command.args(["issue", "--definition", "1", "--members"]).arg(&file);
        let running = tokio::spawn(async move { command.heard().await });
        let mut served = 0;
        while !running.is_finished() {
            let asked = api.call(Caller::Member(3), "/client/couponcount", json!({}));
            tokio::time::timeout(Duration::from_secs(5), asked).await.expect("members are kept waiting").ok();
            served += 1;
        }
        assert!(served > 3, "{served}");
        let output = running.await.unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains("left out: nobody") && errors.contains("6002 members: 6000 issued, 2 refused"), "{errors}");
        assert_eq!(events(&home, "Issued").await, 6_000);
        assert_gapless(&home).await;
        server.kill().await;
    }
}
