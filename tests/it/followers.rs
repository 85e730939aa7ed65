//! Followers: how they stand, that a pause holds and a reset does no harm, that an error stops them loudly and no longer than
//! until it is mended, and that one process at a time works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use coupon_ledger::audit::tlog;
use coupon_ledger::clock::{Clock, Zone};
use coupon_ledger::followers::{self, BIRTHDAY, EXPIRY, MESSAGES, Order, frame, move_checkpoint, standings};
use coupon_ledger::granting::grant_birthdays;
use coupon_ledger::identity::Caller;
use coupon_ledger::lease;
use coupon_ledger::ledger::Ledger;
use coupon_ledger::messages::{self, MessageOptions, run_messages};
use coupon_ledger::statistics::Statistics;
use coupon_ledger::sweep::{SETTLED_AFTER_MS, sweep};
use serde_json::{Value, json};

use crate::harness::{DAY, Engine, FRIEND, Home, MEMBER, NOON, Server, World, definition, program};
use crate::leaks::Heard as _;
use crate::log::without_guards;
use crate::message_webhook::homes;
use crate::outside::{Api, count, until};
use crate::statistics::{count_all, hold_against_states};

const PAUSED: &str = "SELECT paused FROM followers WHERE name = 'expiry'";

/// How many seconds a follower is behind, as `/metrics` has it.
fn lag_in(metrics: &str, follower: &str) -> Option<i64> {
    let name = format!("coupon_ledger_follower_lag_seconds{{follower=\"{follower}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map(|seconds| seconds.parse().unwrap())
}

/// `/readyz` says so, and the server is ready.
async fn until_ready_says(world: &World, expected: &str) {
    until(expected, async || {
        let ready = world.raw("GET", "/readyz", &[], Vec::new()).await;
        assert_eq!(ready.status, 200);
        ready.body.as_str() == Some(expected)
    })
    .await;
}

/// How a follower stands, as `/v1/followers` has it.
async fn standing(world: &World, name: &str) -> Value {
    let reply = world.get(Caller::Auditor, "/v1/followers").await;
    let followers = reply.body["followers"].as_array().unwrap();
    followers.iter().find(|one| one["name"] == name).unwrap().clone()
}

/// A coupon that 439 gives and 442 receives: three events, of which 439 is told one.
async fn give(world: &World, definition: i64) {
    let id = world.issue(definition, 439).await;
    let code = world.give(MEMBER, id).await;
    world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
}

/// A follower that panics until somebody has foreseen what comes.
struct Unforeseen {
    foresees: Arc<AtomicBool>,
}

impl frame::Follow for Unforeseen {
    type Error = String;

    fn follower(&self) -> &'static followers::Follower {
        &MESSAGES
    }

    async fn step(&mut self, _: &Ledger) -> Result<bool, String> {
        assert!(self.foresees.load(Ordering::Relaxed), "{} of six", "seven");
        Ok(false)
    }
}

/// What befalls one event or one table, what is said of it, and what mends it.
struct Damage {
    harm: Vec<String>,
    mend: Vec<String>,
    said: String,
    /// Who must stop for it.
    stops: &'static [&'static str],
}

/// Keeps an event aside, does this to it, and returns what puts it back.
fn on_event(at: i64, harm: &str) -> (Vec<String>, Vec<String>) {
    let harm = vec![
        format!("CREATE TABLE kept AS SELECT * FROM events WHERE position = {at}"),
        format!("{harm} WHERE position = {at}"),
    ];
    let mend = vec![
        format!("DELETE FROM events WHERE position = {at}"),
        "INSERT INTO events SELECT * FROM kept".to_owned(),
        "DROP TABLE kept".to_owned(),
    ];
    (harm, mend)
}

/// Loses an event, as only someone can who owns the database; what puts it back.
pub async fn lose(home: &Home, at: i64) -> Vec<String> {
    without_guards(home).await;
    let (harm, mend) = on_event(at, "DELETE FROM events");
    home.sql_all(&harm).await.unwrap();
    mend
}

/// An event that cannot be read, one that is missing, and a table of the statistics that takes nothing.
fn damages(engine: Engine, at: i64) -> [Damage; 3] {
    let unread = on_event(at, "UPDATE events SET payload = '{\"Issued\":7}'");
    let lost = on_event(at, "DELETE FROM events");
    let (refuse, take) = match engine {
        Engine::Sqlite => (
            "CREATE TRIGGER takes_nothing BEFORE INSERT ON stats_days_v1 BEGIN SELECT RAISE(ABORT, 'takes_nothing'); END",
            "DROP TRIGGER takes_nothing",
        ),
        Engine::Postgres => (
            "ALTER TABLE stats_days_v1 ADD CONSTRAINT takes_nothing CHECK (bucket < 0) NOT VALID",
            "ALTER TABLE stats_days_v1 DROP CONSTRAINT takes_nothing",
        ),
    };
    let refused = (vec![refuse.to_owned()], vec![take.to_owned()]);
    let both: &[&str] = &["statistics", "messages"];
    [
        (unread, format!("position {at}"), both),
        (lost, format!("{at} is missing"), both),
        (refused, "takes_nothing".to_owned(), &both[..1]),
    ]
    .map(|((harm, mend), said, stops)| Damage { harm, mend, said, stops })
}

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

    async fn how_far_the_statistics_are_behind_is_measured_and_told_beside_readiness(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        followers::order(&world.ledger, "statistics", Order::Pause).await.unwrap();
        followers::measure(&world.ledger).await.unwrap();
        let following = frame::run(world.ledger.clone(), Statistics::new(world.ledger.zone()).unwrap());
        let following = tokio::spawn(following);
        for seconds in [90, 100] {
            world.clock.set(NOON + seconds * 1_000);
            until_ready_says(&world, &format!("ready\nstatistics: {seconds} s behind, paused\n")).await;
            let (_, _, metrics) = world.bytes("GET", "/metrics", &[], Vec::new()).await;
            assert_eq!(lag_in(std::str::from_utf8(&metrics).unwrap(), "statistics"), Some(seconds));
            let stood = standing(&world, "statistics").await;
            assert_eq!((&stood["checkpoint"], &stood["lag"]), (&json!(0), &json!(3)), "{stood}");
        }
        followers::order(&world.ledger, "statistics", Order::Resume).await.unwrap();
        followers::measure(&world.ledger).await.unwrap();
        until_ready_says(&world, "ready\nstatistics: 0 s behind\n").await;
        let (_, _, metrics) = world.bytes("GET", "/metrics", &[], Vec::new()).await;
        assert_eq!(lag_in(std::str::from_utf8(&metrics).unwrap(), "statistics"), Some(0));
        let stood = standing(&world, "statistics").await;
        assert_eq!((&stood["checkpoint"], &stood["lag"]), (&json!(3), &json!(0)), "{stood}");
        following.abort();
        let _ = following.await;
        world.close().await;
    }

    async fn an_error_stops_a_follower_where_it_is_and_no_other_until_it_is_mended(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        without_guards(&world.home).await;
        for round in 0..3_i64 {
            count_all(&world).await;
            crate::messages::tell(&world.ledger).await;
            let reached = world.store().head().await.unwrap();
            world.issue(definition, 442).await;
            let at = world.store().head().await.unwrap();
            let Damage { harm, mend, said, stops } = damages(engine, at).into_iter().nth(round as usize).unwrap();
            give(&world, definition).await;
            world.home.sql_all(&harm).await.unwrap();
            world.advance(60_000);
            let following = tokio::spawn({
                let (ledger, statistics) = (world.ledger.clone(), Statistics::new(world.ledger.zone()).unwrap());
                async move {
                    let statistics = frame::run(ledger.clone(), statistics);
                    tokio::join!(statistics, run_messages(ledger, MessageOptions::default()))
                }
            });
            let line = |name: &str| {
                let how = if stops.contains(&name) { "60 s behind, stopped by an error" } else { "0 s behind" };
                format!("{name}: {how}\n")
            };
            until_ready_says(&world, &format!("ready\n{}{}", line("statistics"), line("messages"))).await;
            let metrics = world.ledger.metrics().text();
            for name in ["statistics", "messages"] {
                let is_stopped = stops.contains(&name);
                let failed = format!("coupon_ledger_follower_failed{{follower=\"{name}\"}} {}", i64::from(is_stopped));
                assert!(metrics.lines().any(|own| own == failed), "{said}: {failed}");
                let stood = standing(&world, name).await;
                let (error, at_ms) = (stood["last_error"].as_str().unwrap(), &stood["error_at_ms"]);
                assert!(if is_stopped { error.contains(&said) } else { error.is_empty() }, "{said}: {stood}");
                let expected = if is_stopped { (reached, 4) } else { (reached + 4, 0) };
                let is_at = (stood["checkpoint"].as_i64().unwrap(), stood["lag"].as_i64().unwrap());
                assert_eq!(is_at, expected, "{said}: {stood}");
                assert!(!is_stopped || *at_ms == world.clock.now_ms(), "{said}: {stood}");
            }
            // Commands are answered all the while, and what they do is waited for.
            give(&world, definition).await;
            world.home.sql_all(&mend).await.unwrap();
            until_ready_says(&world, "ready\nstatistics: 0 s behind\nmessages: 0 s behind\n").await;
            for name in ["statistics", "messages"] {
                let stood = standing(&world, name).await;
                let (is_at, error) = (&stood["checkpoint"], &stood["last_error"]);
                assert_eq!((is_at, error), (&json!(reached + 7), &json!("")), "{said}: {stood}");
            }
            following.abort();
            let _ = following.await;
            hold_against_states(world.store(), world.ledger.zone(), &[]).await;
            assert_eq!(count(&world.home, "SELECT count(*) FROM messages").await, 2 * (round + 1));
        }
        world.close().await;
    }

    async fn a_panic_stops_a_follower_loudly_and_it_is_tried_again(engine: Engine) {
        let world = World::with_people(engine).await;
        let (foresees, failed) = (Arc::new(AtomicBool::new(false)), "coupon_ledger_follower_failed{follower=\"messages\"} ");
        let following = tokio::spawn(frame::run(world.ledger.clone(), Unforeseen { foresees: foresees.clone() }));
        let metrics = || world.ledger.metrics().text();
        until("it says so", async || metrics().contains(&format!("{failed}1"))).await;
        until("it is written down", async || standing(&world, "messages").await["last_error"] != "").await;
        assert_eq!(standing(&world, "messages").await["last_error"], "panicked: seven of six");
        foresees.store(true, Ordering::Relaxed);
        until("it goes on", async || metrics().contains(&format!("{failed}0"))).await;
        until("nothing is left of it", async || standing(&world, "messages").await["last_error"] == "").await;
        following.abort();
        world.close().await;
    }

    async fn the_end_of_the_log_is_missed_as_well_by_whoever_follows(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        count_all(&world).await;
        crate::messages::tell(&world.ledger).await;
        while tlog::follow(world.store()).await.unwrap().more {}
        let reached = world.store().head().await.unwrap();
        world.issue(definition, 439).await;
        let mend = lose(&world.home, reached + 1).await;
        let mut statistics = Statistics::new(world.ledger.zone()).unwrap();
        let said = [
            statistics.step(world.store()).await.unwrap_err().to_string(),
            messages::follow(&world.ledger, false).await.unwrap_err().to_string(),
            tlog::follow(world.store()).await.unwrap_err().to_string(),
        ];
        world.issue(definition, 439).await;
        // What goes on meanwhile is no news of it: whoever says it again says the same.
        assert_eq!(said[0], statistics.step(world.store()).await.unwrap_err().to_string());
        for said in said {
            assert!(said.ends_with(&format!("{} is missing", reached + 1)), "{said}");
        }
        let behind = format!("/v1/events?after={reached}");
        assert_eq!(world.get(Caller::Auditor, &behind).await.status, 500);
        let before = world.get(Caller::Auditor, &format!("/v1/events?after={}", reached - 1)).await;
        assert_eq!(before.headers["next-after"], reached.to_string());
        world.home.sql_all(&mend).await.unwrap();
        count_all(&world).await;
        hold_against_states(world.store(), world.ledger.zone(), &[]).await;
        assert_eq!(world.get(Caller::Auditor, &behind).await.status, 200);
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
        let home = Home::new(engine).await;
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

/// Those whose turn it is with these followers: names and the numbers of processes.
async fn turns(home: &Home) -> Vec<String> {
    let sql = "SELECT name || ' ' || value % 1000000000 FROM checkpoints
               WHERE name IN ('messages lease', 'statistics lease', 'tlog lease') ORDER BY name";
    home.sql(sql).await.unwrap()
}

/// How many of the three have come to the log's end.
const AT_THE_END: &str =
    "SELECT count(*) FROM checkpoints JOIN log_head ON log_head.position = checkpoints.value
                          WHERE name IN ('messages', 'statistics', 'tlog')";

/// On PostgreSQL alone: SQLite lets one process in, and nobody waits for a turn there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_servers_one_works_for_each_follower_and_the_other_when_its_turn_is_over() {
    let homes = homes(Engine::Postgres).await;
    let [home, beside] = &homes[..] else { panic!("one place") };
    let has_looked = async |api: &Api| {
        let (_, metrics) = api.get(Caller::Auditor, "/metrics").await;
        ["messages", "statistics", "tlog"].iter().all(|name| lag_in(&metrics, name).is_some())
    };
    // Of the one that made the place.
    home.sql("DELETE FROM checkpoints WHERE name LIKE '% lease'").await.unwrap();
    let first = Server::start(home, &[]).await;
    until("the first has its turns", async || turns(home).await.len() == 3).await;
    let of_first = turns(home).await;
    let number = of_first[0].rsplit(' ').next().unwrap().to_owned();
    let second = Server::start(beside, &[]).await;
    let api = Api::new(beside, &second);
    until("the second has looked", async || has_looked(&api).await).await;
    for id in [439, 442] {
        api.operator("/member/add", json!({"id": id, "nickname": "小明"})).await.ok();
    }
    assert_eq!(api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"], 1);
    let give = async |api: &Api| {
        let id =
            api.operator("/sendelecoupon/one", json!({"coupon_id": 1, "member_id": 439})).await.ok()["id"]
                .clone();
        let code = api.call(MEMBER, "/client/givecoupon", json!({"id": id})).await.ok()["code"].clone();
        api.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
        id.as_i64().unwrap()
    };
    let mut given = vec![give(&api).await];
    until("the first has done it", async || count(home, AT_THE_END).await == 3).await;
    assert_eq!(turns(home).await, of_first);

    // Killed, it has its turn until that is over; but the tlog's is taken from it.
    first.kill().await;
    let later = (Clock::System.now_ms() / 1_000 + 3_600) * lease::HOLDERS;
    let turn = format!(
        "UPDATE checkpoints SET value = {later} + {number} WHERE name IN ('messages lease', 'statistics lease')"
    );
    home.sql(&turn).await.unwrap();
    home.sql("DELETE FROM checkpoints WHERE name = 'tlog lease'").await.unwrap();
    until("the second has a turn", async || turns(home).await.len() == 3).await;
    assert_ne!(turns(home).await[2], of_first[2]);
    for _ in 0..3 {
        given.push(give(&api).await);
    }
    until("the second sees what it leaves to the first, and has done what is its own", async || {
        let (_, metrics) = api.get(Caller::Auditor, "/metrics").await;
        let is_behind = |name: &str| lag_in(&metrics, name).is_some_and(|seconds| seconds > 0);
        is_behind("messages") && is_behind("statistics") && count(home, AT_THE_END).await == 1
    })
    .await;
    let told = "SELECT subject_id FROM messages ORDER BY message_id";
    let ids = |given: &[i64]| given.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(home.sql(told).await.unwrap(), ids(&given[..1]));

    // As if its time had passed.
    let over = "UPDATE checkpoints SET value = value % 1000000000
                WHERE name IN ('messages lease', 'statistics lease')";
    home.sql(over).await.unwrap();
    until("the second has done it all", async || count(home, AT_THE_END).await == 3).await;
    assert_eq!(home.sql(told).await.unwrap(), ids(&given));
    let counted = "SELECT CAST(SUM(issued) AS TEXT) || ' ' || CAST(SUM(received) AS TEXT) FROM stats_days";
    assert_eq!(home.sql(counted).await.unwrap(), ["4 4"]);
    let of_second = turns(home).await;
    let first = Server::start(home, &[]).await;
    until("the first is back and has looked", async || has_looked(&Api::new(home, &first)).await).await;
    assert_eq!(turns(home).await, of_second);
    for server in [first, second] {
        server.kill().await;
    }
}
