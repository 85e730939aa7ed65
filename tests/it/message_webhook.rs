//! Messages that are handed to the merchant's own sender: signed, at least once under one id, whatever the sender does and
//! whatever is killed; and the inbox goes on meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use coupon_ledger::clock::Clock;
use coupon_ledger::followers::{self, Order};
use coupon_ledger::identity::Caller;
use coupon_ledger::messages::{Handed, MessageWebhook, follow, hand_over, remind};
use coupon_ledger::webhook_signature::{parse_secret, sign};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cli::finish;
use crate::harness::{
    Engine, FRIEND, HOUR, Home, INSERT_MEMBERS, MEMBER, NOON, Server, World, definition, program,
};
use crate::outside::{Api, count, until};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// What the sender does with what it is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Takes,
    Answers(u16),
    Redirects,
    Hangs,
    /// One of these, by the dice.
    Anything,
}

/// What was handed over: the head and the body, as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Post {
    id: String,
    at_s: i64,
    signature: String,
    content_type: String,
    body: String,
}

impl Post {
    fn new(headers: &HeaderMap, body: &Bytes) -> Self {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        Self {
            id: header("webhook-id"),
            at_s: header("webhook-timestamp").parse().unwrap(),
            signature: header("webhook-signature"),
            content_type: header("content-type"),
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// The merchant's sender.
struct Sender {
    url: String,
    does: Arc<Mutex<Does>>,
    /// What it was handed, and whether it said that it took it.
    posts: Arc<Mutex<Vec<(Post, bool)>>>,
    serving: JoinHandle<()>,
}

impl Sender {
    async fn start() -> Self {
        crate::leaks::everywhere(SECRET);
        let (does, posts) = (Arc::new(Mutex::new(Does::Takes)), Arc::new(Mutex::new(Vec::new())));
        let kept = (does.clone(), posts.clone());
        let answers = move |headers: HeaderMap, body: Bytes| {
            let (does, posts) = kept.clone();
            async move {
                let now = match *does.lock().unwrap() {
                    Does::Anything => match rand::random_range(0..6) {
                        0 => Does::Answers(500),
                        1 => Does::Redirects,
                        _ => Does::Takes,
                    },
                    does => does,
                };
                posts.lock().unwrap().push((Post::new(&headers, &body), now == Does::Takes));
                answer(now).await
            }
        };
        let router = axum::Router::new().fallback(answers);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/messages?of=merchant", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, does, posts, serving }
    }

    fn set(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    /// Patient enough for a machine on which much else is done.
    fn webhook(&self) -> MessageWebhook {
        MessageWebhook::with_patience(&self.url, SECRET, Duration::from_secs(4)).unwrap()
    }

    /// What came since this was last looked at.
    fn take(&self) -> Vec<Post> {
        std::mem::take(&mut *self.posts.lock().unwrap()).into_iter().map(|(post, _)| post).collect()
    }
}

async fn answer(does: Does) -> Response {
    match does {
        Does::Takes | Does::Anything => "thanks".into_response(),
        Does::Answers(status) => (StatusCode::from_u16(status).unwrap(), "x".repeat(100_000)).into_response(),
        Does::Redirects => Redirect::temporary("/elsewhere").into_response(),
        Does::Hangs => {
            tokio::time::sleep(Duration::from_secs(3_600)).await;
            "late".into_response()
        }
    }
}

fn assert_is_signed(post: &Post) {
    let expected = sign(&parse_secret(SECRET).unwrap(), &post.id, post.at_s, post.body.as_bytes());
    assert_eq!(post.signature, expected, "{post:?}");
}

/// Follows the log to its end, for a ledger with a webhook.
async fn tell(world: &World) {
    while follow(&world.ledger, true).await.unwrap().more {}
}

/// A gift that 442 receives from 439; the coupon.
async fn give(world: &World, definition: i64) -> i64 {
    let id = world.issue(definition, 439).await;
    let code = world.give(MEMBER, id).await;
    world.call(FRIEND, "/client/getcoupon", json!({"id": id, "code": code})).await.ok();
    id
}

fn handed(delivered: usize, failed: usize, given_up: usize) -> Handed {
    Handed { delivered, failed, given_up }
}

on_both_engines! {
    async fn a_message_is_handed_over_once_signed_and_without_anybodys_name(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({"end_num": 2})).await;
        let sender = Sender::start().await;
        let webhook = sender.webhook();
        let id = give(&world, definition).await;
        tell(&world).await;
        world.advance(2_000);
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(1, 0, 0));
        let posts = sender.take();
        assert_eq!(posts.len(), 1);
        assert_is_signed(&posts[0]);
        assert_eq!((posts[0].at_s, posts[0].content_type.as_str()), (NOON / 1_000 + 2, "application/json"));
        assert_eq!(posts[0].id, format!("gift_received-439-{id}-1"));
        let body = json!({
            "type": "message.gift_received",
            "timestamp": "2026-11-23T04:00:00.000Z",
            "data": {
                "id": 1, "member_id": 439, "title": "贈送的電子券已被領取", "content": "對方已領取您贈送的電子券「十元券」。",
                "create_date": NOON / 1_000, "create_time": "2026-11-23 12:00:00", "mem_coupon_id": id,
                "coupon_id": definition, "coupon_title": "十元券", "send_id": 0,
            },
        });
        assert_eq!(posts[0].json(), body);
        // Neither again, nor when the followers begin anew.
        for follower in ["messages", "reminders"] {
            followers::order(&world.ledger, follower, Order::Reset).await.unwrap();
        }
        tell(&world).await;
        world.advance(HOUR);
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 0, 0));
        assert_eq!(remind(&world.ledger, 3, true).await.unwrap(), Some(1));
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(1, 0, 0));
        assert_eq!(sender.take()[0].id, format!("expiring-442-{id}-20261124"));
        world.close().await;
    }

    async fn whatever_the_sender_does_a_message_is_tried_again_under_its_id_until_it_is_taken(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        let webhook = sender.webhook();
        give(&world, definition).await;
        tell(&world).await;
        let mut seen = Vec::new();
        let ways = [Does::Answers(500), Does::Answers(410), Does::Redirects, Does::Hangs, Does::Answers(301)];
        for (does, pause_s) in ways.into_iter().zip([10, 40, 160, 640, 2_560]) {
            sender.set(does);
            assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 1, 0), "{does:?}");
            let posts = sender.take();
            assert_eq!(posts.len(), 1, "a redirect is not followed: {posts:?}");
            assert_is_signed(&posts[0]);
            seen.extend(posts.into_iter().map(|post| (post.id, post.body)));
            // It waits for its time, and its member reads it meanwhile.
            world.advance(pause_s * 1_000 - 1);
            assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 0, 0));
            let inbox = world.call(MEMBER, "/client/messages", json!({})).await;
            assert_eq!(inbox.ok()["unread"], 1);
            world.advance(1);
        }
        // Nobody listens there any more.
        sender.serving.abort();
        let _ = sender.serving.await;
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 1, 0));
        world.advance(HOUR);
        let back = Sender::start().await;
        assert_eq!(hand_over(&world.ledger, &back.webhook()).await.unwrap(), handed(1, 0, 0));
        seen.extend(back.take().into_iter().map(|post| (post.id, post.body)));
        assert_eq!(seen.len(), 6);
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 1, "always the same: {seen:?}");
        world.close().await;
    }

    async fn after_a_day_a_message_is_given_up_and_that_is_counted_and_keeps_nobody(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        let webhook = sender.webhook();
        sender.set(Does::Answers(500));
        give(&world, definition).await;
        tell(&world).await;
        let began_ms = world.clock.now_ms();
        let mut tries = 0;
        loop {
            let now = hand_over(&world.ledger, &webhook).await.unwrap();
            tries += now.failed + now.given_up;
            if now.given_up == 1 {
                break;
            }
            world.advance(60_000);
        }
        assert_eq!(tries, 28);
        assert!((22..=26).contains(&((world.clock.now_ms() - began_ms) / HOUR)));
        world.advance(100 * HOUR);
        give(&world, definition).await;
        tell(&world).await;
        sender.set(Does::Takes);
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(1, 0, 0));
        let metrics = world.ledger.metrics().text();
        for (outcome, times) in [("delivered", 1), ("failed", 27), ("given_up", 1)] {
            let line = format!("coupon_ledger_message_webhook_total{{outcome=\"{outcome}\"}} {times}");
            assert!(metrics.lines().any(|own| own == line), "{line}");
        }
        let state = "SELECT next_try_at_ms || ' ' || (handed_at_ms > 0) || ' ' || (handed_at_ms < 0) FROM messages ORDER BY message_id";
        let expected = if engine == Engine::Sqlite { ["0 0 1", "0 1 0"] } else { ["0 false true", "0 true false"] };
        assert_eq!(world.home.sql(state).await.unwrap(), expected);
        world.close().await;
    }

    /// One that is taken and never heard of is tried again by another: at least once.
    async fn what_a_killed_server_had_taken_is_handed_over_by_another_three_minutes_later(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        let slow = MessageWebhook::new(&sender.url, SECRET).unwrap();
        sender.set(Does::Hangs);
        give(&world, definition).await;
        tell(&world).await;
        let ledger = world.ledger.clone();
        let handing = tokio::spawn(async move { hand_over(&ledger, &slow).await });
        until("it is under way", async || !sender.posts.lock().unwrap().is_empty()).await;
        handing.abort();
        let _ = handing.await;
        sender.set(Does::Takes);
        let webhook = sender.webhook();
        world.advance(179_999);
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 0, 0), "it may still be at it");
        world.advance(1);
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(1, 0, 0));
        let ids: BTreeSet<_> = sender.take().into_iter().map(|post| post.id).collect();
        assert_eq!(ids.len(), 1);
        world.close().await;
    }

    async fn two_that_hand_over_at_once_hand_each_message_over_once(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        let webhook = sender.webhook();
        for _ in 0..50 {
            give(&world, definition).await;
        }
        tell(&world).await;
        let all = async || {
            let mut delivered = 0;
            loop {
                let now = hand_over(&world.ledger, &webhook).await.unwrap();
                assert_eq!((now.failed, now.given_up), (0, 0));
                delivered += now.delivered;
                if now.delivered == 0 && sender.posts.lock().unwrap().len() >= 50 {
                    return delivered;
                }
            }
        };
        // Each with a client of its own would find a place for four calls; these share one, and are refused beyond.
        let other = sender.webhook();
        let others = async || {
            let mut delivered = 0;
            while sender.posts.lock().unwrap().len() < 50 {
                delivered += hand_over(&world.ledger, &other).await.unwrap().delivered;
            }
            delivered
        };
        let (mine, theirs) = tokio::join!(all(), others());
        assert_eq!(mine + theirs, 50, "{mine} + {theirs}");
        let ids: BTreeSet<_> = sender.take().into_iter().map(|post| post.id).collect();
        assert_eq!(ids.len(), 50);
        world.close().await;
    }

    async fn whoever_is_erased_is_handed_over_no_more_and_neither_is_anybody_during_a_pause(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        let webhook = sender.webhook();
        give(&world, definition).await;
        tell(&world).await;
        followers::order(&world.ledger, "messages", Order::Pause).await.unwrap();
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 0, 0));
        followers::order(&world.ledger, "messages", Order::Resume).await.unwrap();
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        assert_eq!(hand_over(&world.ledger, &webhook).await.unwrap(), handed(0, 0, 0));
        assert_eq!(sender.take(), []);
        world.close().await;
    }

    async fn what_was_written_without_a_webhook_is_not_handed_over_later(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let sender = Sender::start().await;
        give(&world, definition).await;
        crate::messages::tell(&world.ledger).await;
        assert_eq!(hand_over(&world.ledger, &sender.webhook()).await.unwrap(), handed(0, 0, 0));
        world.close().await;
    }

    /// Sends go out while servers are killed at any moment and the sender does what it likes.
    async fn killed_again_and_again_servers_tell_everybody_once_and_hand_everything_over(engine: Engine) {
        const MEMBERS: i64 = 300;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let homes = homes(engine).await;
        let sender = Sender::start().await;
        sender.set(Does::Anything);
        let secret = homes[0].path().join("webhook.secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        let secret = secret.to_str().unwrap();
        let arguments = ["--message-webhook", &sender.url, "--message-webhook-secret-file", secret];
        let mut servers = Vec::new();
        for home in &homes {
            servers.push(Server::start(home, &arguments).await);
        }
        let row = |id: i64| format!("({id}, '', '', '', '', '', 0, 0, 0, 0, 0)");
        let rows: Vec<String> = (1..=MEMBERS).map(row).collect();
        homes[0].sql(&format!("{INSERT_MEMBERS} {}", rows.join(", "))).await.unwrap();
        let api = Api::new(&homes[0], &servers[0]);
        assert_eq!(api.operator("/elecoupons/add", definition(json!({}))).await.ok()["id"], 1);
        let told = async || count(&homes[0], "SELECT count(*) FROM messages").await;
        for send in 1..=3 {
            let api = Api::new(&homes[0], &servers[0]);
            let body = json!({"coupon_id": 1, "is_all_send": 1, "confirm": 1});
            api.operator("/sendelecoupon/add", body).await.ok();
            let enough = (send - 1) * MEMBERS + random.random_range(0..MEMBERS);
            until("some were told", async || told().await >= enough).await;
            let killed = random.random_range(0..servers.len());
            servers.remove(killed).kill().await;
            // What it had taken would be tried again in three minutes.
            let now = "UPDATE messages SET next_try_at_ms = 1 WHERE next_try_at_ms > 0";
            homes[0].sql(now).await.unwrap();
            servers.insert(killed, Server::start(&homes[killed], &arguments).await);
        }
        until("everybody is told", async || told().await == 3 * MEMBERS).await;
        let each = "SELECT count(*) FROM (SELECT member_id FROM messages WHERE kind = 1 GROUP BY member_id HAVING count(*) = 3) m";
        assert_eq!(count(&homes[0], each).await, MEMBERS);
        sender.set(Does::Takes);
        until("everything is handed over", async || {
            // What waits for its time is due, but for what a server has just taken.
            let now_ms = Clock::System.now_ms();
            let due = format!(
                "UPDATE messages SET next_try_at_ms = 1 WHERE next_try_at_ms > 1
                 AND next_try_at_ms NOT BETWEEN {} AND {}", now_ms + 170_000, now_ms + 181_000
            );
            homes[0].sql(&due).await.unwrap();
            count(&homes[0], "SELECT count(*) FROM messages WHERE handed_at_ms <= 0").await == 0
        }).await;
        let posts = std::mem::take(&mut *sender.posts.lock().unwrap());
        let mut bodies: BTreeMap<&str, (&str, bool)> = BTreeMap::new();
        for (post, was_taken) in &posts {
            assert_is_signed(post);
            let (body, taken) = bodies.entry(&post.id).or_insert((&post.body, false));
            assert_eq!(*body, post.body, "the same id, the same message");
            *taken |= was_taken;
        }
        assert_eq!(bodies.len() as i64, 3 * MEMBERS, "of {} posts", posts.len());
        assert!(bodies.values().all(|(_, taken)| *taken));
        let inbox = Api::new(&homes[0], &servers[0]).call(Caller::Member(7), "/client/messages", json!({})).await;
        assert_eq!(inbox.ok()["unread"], 3);
        for server in servers {
            server.kill().await;
        }
    }
}

/// The places of servers that share a ledger: two where they can.
pub async fn homes(engine: Engine) -> Vec<Home> {
    let first = Home::new(engine).await;
    Server::start(&first, &[]).await.kill().await;
    let mut homes = vec![first];
    if let Some(url) = homes[0].database_url.clone() {
        let second = homes[0].beside(url);
        std::fs::copy(homes[0].path().join("secret.key"), second.path().join("secret.key")).unwrap();
        homes.push(second);
    }
    homes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_cannot_be_used_are_told_in_a_sentence_without_the_secret() {
    let home = Home::new(Engine::Sqlite).await;
    let file = home.path().join("webhook.secret");
    std::fs::write(&file, "5ecre7").unwrap();
    let file = file.to_str().unwrap();
    let url = "https://sender.example/";
    for (arguments, sentence) in [
        (vec!["--message-webhook", url], "--message-webhook needs the secret that signs messages"),
        (
            vec!["--message-webhook", url, "--message-webhook-secret-file", "/nowhere/secret"],
            "cannot read /nowhere/secret",
        ),
        (
            vec!["--message-webhook", url, "--message-webhook-secret-file", file],
            "--message-webhook: a webhook's secret is whsec_ and 24 to 64 bytes in base64",
        ),
        (vec!["--expiring-soon-days", "366"], "--expiring-soon-days must be 0 to 365"),
    ] {
        let mut command = program(&home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(&arguments);
        let done = finish(command).await;
        assert!(done.code == Some(2) && done.err.contains(sentence), "{arguments:?}: {done:?}");
        assert!(!done.err.contains("5ecre7"), "{done:?}");
    }
    std::fs::write(file, SECRET).unwrap();
    let mut command = program(&home);
    let plain = ["--message-webhook", "http://sender.example/", "--message-webhook-secret-file", file];
    command.args(["serve", "--listen", "127.0.0.1:0"]).args(plain);
    let done = finish(command).await;
    let sentence = "--message-webhook: \"http://sender.example/\" is no address: https://…";
    assert!(done.code == Some(2) && done.err.contains(sentence), "{done:?}");
}
