//! Followers: how they stand, and that a pause holds and a reset does no harm.

use coupon_ledger::clock::Zone;
use coupon_ledger::followers::{self, BIRTHDAY, EXPIRY, Order, move_checkpoint, standings};
use coupon_ledger::granting::grant_birthdays;
use coupon_ledger::identity::Caller;
use coupon_ledger::sweep::{SETTLED_AFTER_MS, sweep};
use serde_json::json;

use crate::harness::{DAY, Server, World, program};
use crate::leaks::Heard as _;
use crate::outside::count;

const PAUSED: &str = "SELECT paused FROM followers WHERE name = 'expiry'";

on_both_engines! {
    async fn a_paused_follower_rests_across_starts_until_it_is_resumed(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        for follower in ["expiry", "birthday"] {
            followers::order(&world.ledger, follower, Order::Pause).await.unwrap();
        }
        let birthday = json!({"coupon_ids": [{"id": definition, "num": 1}]});
        world.operator("/birthdaycoupon/set", birthday).await.ok();
        world.advance(40 * DAY);
        assert_eq!(sweep(&world.ledger).await.unwrap(), 0);
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), None);
        let clock = world.clock.clone();
        let world = World::open(world.close().await, clock, Zone::default()).await;
        assert_eq!(sweep(&world.ledger).await.unwrap(), 0);
        for follower in ["expiry", "birthday"] {
            followers::order(&world.ledger, follower, Order::Resume).await.unwrap();
        }
        assert_eq!(sweep(&world.ledger).await.unwrap(), 1);
        assert_eq!(grant_birthdays(&world.ledger).await.unwrap(), Some(0));
        world.close().await;
    }

    async fn each_says_how_far_it_is_behind_and_what_went_wrong(engine: Engine) {
        let world = World::with_people(engine).await;
        let stand = async || standings(world.store(), &world.clock, world.ledger.now().day).await.unwrap();
        let stood = stand().await;
        let begun: Vec<_> =
            stood.iter().map(|one| (one.name.as_ref(), one.checkpoint, one.lag, one.paused)).collect();
        let head = count(&world.home, "SELECT position FROM log_head").await;
        assert_eq!(begun, [
            ("expiry", 0, None, false), ("birthday", 0, None, false), ("tlog", 0, Some(head), false),
            ("statistics", 0, Some(head), false), ("messages", 0, Some(head), false), ("reminders", 0, None, false),
        ]);
        sweep(&world.ledger).await.unwrap();
        grant_birthdays(&world.ledger).await.unwrap();
        world.advance(3 * DAY);
        followers::note(&world.ledger, &EXPIRY, Some("the database was away".to_owned())).await;
        followers::order(&world.ledger, "birthday", Order::Pause).await.unwrap();
        let lags: Vec<_> = stand().await.iter().map(|one| (one.lag, one.paused, one.last_error.clone())).collect();
        let behind = (3 * DAY + SETTLED_AFTER_MS) / 1_000;
        let expected = [
            (Some(behind), false, "the database was away".to_owned()),
            (Some(3 * 86_400), true, String::new()),
            (Some(head), false, String::new()),
            (Some(head), false, String::new()),
            (Some(head), false, String::new()),
            (None, false, String::new()),
        ];
        assert_eq!(lags, expected);
        followers::measure(&world.ledger).await.unwrap();
        let metrics = world.ledger.metrics().text();
        for line in [
            format!("coupon_ledger_follower_lag_seconds{{follower=\"expiry\"}} {behind}"),
            "coupon_ledger_follower_lag_seconds{follower=\"birthday\"} 259200".to_owned(),
            "coupon_ledger_follower_paused{follower=\"birthday\"} 1".to_owned(),
            "coupon_ledger_follower_paused{follower=\"expiry\"} 0".to_owned(),
        ] {
            assert!(metrics.lines().any(|own| own == line), "{line}");
        }
        let ready = world.raw("GET", "/readyz", &[], Vec::new()).await;
        let detail = format!("ready\nexpiry: {behind} s behind\nbirthday: 259200 s behind, paused\n");
        assert_eq!((ready.status.as_u16(), ready.body.as_str()), (200, Some(detail.as_str())));
        followers::note(&world.ledger, &EXPIRY, None).await;
        assert_eq!(stand().await[0].last_error, "");
        world.close().await;
    }

    async fn a_reset_does_no_harm_or_is_refused_and_one_at_work_does_not_undo_it(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        world.advance(40 * DAY);
        assert_eq!(sweep(&world.ledger).await.unwrap(), 1);
        let taken = followers::checkpoint(world.store(), &EXPIRY).await.unwrap();
        followers::order(&world.ledger, "expiry", Order::Reset).await.unwrap();
        move_checkpoint(&world.ledger, &EXPIRY, taken, taken + 1).await.unwrap();
        assert_eq!(followers::checkpoint(world.store(), &EXPIRY).await.unwrap(), 0);
        // It looks at everything again, and finds nothing to write.
        assert_eq!(sweep(&world.ledger).await.unwrap(), 0);
        assert_eq!(followers::checkpoint(world.store(), &EXPIRY).await.unwrap(), taken);
        grant_birthdays(&world.ledger).await.unwrap();
        let refused = followers::order(&world.ledger, "birthday", Order::Reset).await.unwrap_err().to_string();
        assert!(refused.starts_with("birthday cannot be reset: it would begin with today"), "{refused}");
        assert_ne!(followers::checkpoint(world.store(), &BIRTHDAY).await.unwrap(), 0);
        let unknown = followers::order(&world.ledger, "tide", Order::Pause).await.unwrap_err().to_string();
        assert_eq!(unknown, "there is no follower tide: expiry, birthday, tlog, statistics, messages, reminders, nats");
        world.close().await;
    }

    async fn over_http_an_auditor_reads_and_an_operator_tells(engine: Engine) {
        let world = World::with_people(engine).await;
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let post = async |path: &str| world.raw("POST", path, &[("authorization", &bearer)], Vec::new()).await;
        let paused = post("/v1/followers/expiry/pause").await;
        assert_eq!(paused.body["followers"][0]["paused"], true);
        let read = world.get(Caller::Auditor, "/v1/followers").await;
        assert_eq!(read.body, paused.body);
        for (path, status, code) in [
            ("/v1/followers/tide/pause", 404, 2005),
            ("/v1/followers/birthday/reset", 409, 6003),
            ("/v1/followers/birthday/stop", 400, 401),
        ] {
            let reply = post(path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (status, code), "{path}: {}", reply.body);
        }
        world.close().await;
    }

    async fn the_command_line_tells_followers_with_and_without_a_server(engine: Engine) {
        let home = crate::harness::Home::new(engine).await;
        let server = Server::start(&home, &[]).await;
        let run = async |arguments: &[&str]| {
            let output = program(&home).arg("followers").args(arguments).heard().await;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        assert_eq!(run(&["pause", "expiry"]).await.0, Some(0));
        assert_eq!(count(&home, PAUSED).await, 1);
        let (code, listed, _) = run(&["list"]).await;
        assert_eq!(code, Some(0));
        assert!(listed.lines().any(|line| line.starts_with("expiry: ") && line.contains(", paused (")), "{listed}");
        for (arguments, sentence) in [
            (["reset", "birthday"], "birthday cannot be reset: "),
            (["pause", "tide"], "there is no follower tide: expiry, birthday, tlog, statistics, messages, reminders, nats"),
            (["pause", "../x"], "there is no follower "),
        ] {
            let (code, _, said) = run(&arguments).await;
            assert!(code == Some(1) && said.contains(sentence), "{arguments:?}: {code:?} {said}");
        }
        server.kill().await;
        assert_eq!(run(&["resume", "expiry"]).await.0, Some(0));
        assert_eq!(count(&home, PAUSED).await, 0);
        let (_, listed, _) = run(&["list", "--json"]).await;
        let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
        assert_eq!(listed["followers"][0]["paused"], false);
    }
}
