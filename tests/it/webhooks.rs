//! Webhooks: a receiver that is slow, down, wrong or gone loses nothing, each coupon's events come in order, and nobody else
//! notices.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use coupon_ledger::feeds::deliver::{DeliveryOptions, GIVE_UP_AFTER_MS, Outbox, run_webhooks};
use coupon_ledger::feeds::webhooks::WebhookPolicy;
use coupon_ledger::http::HttpOptions;
use coupon_ledger::identity::Caller;
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::cli::{Done, finish};
use crate::followers::lose;
use crate::harness::{DAY, Engine, HOUR, Home, MEMBER, NOON, Reply, Server, World, program};
use crate::message_webhook::homes;
use crate::outside::{Api, count, until};
use crate::v1::lines;

/// What a receiver does with what comes.
#[derive(Clone, Debug)]
enum Answer {
    Status(u16),
    /// Points elsewhere.
    Redirect(String),
    /// Never.
    Silence,
    /// Yes, when it is let go.
    Held,
}

/// One request as it came.
#[derive(Clone, Debug)]
struct Came {
    headers: HashMap<String, String>,
    body: String,
}

impl Came {
    fn position(&self) -> i64 {
        self.headers["webhook-id"].parse().unwrap()
    }

    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Whether this secret, as a receiver is given it, has signed it.
    fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
        let (id, time) = (&self.headers["webhook-id"], &self.headers["webhook-timestamp"]);
        mac.update(format!("{id}.{time}.{}", self.body).as_bytes());
        let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
        self.headers["webhook-signature"].split(' ').any(|signature| signature == expected)
    }
}

/// Whoever is sent events. What it answers to an event of a stream, and otherwise, can be changed.
#[derive(Default)]
pub struct Receiver {
    came: Mutex<Vec<Came>>,
    /// What it said yes to.
    taken: Mutex<Vec<i64>>,
    answers: Mutex<HashMap<String, Answer>>,
    /// Streams whose event waits to be let go, and those of which another one came meanwhile.
    held: Mutex<BTreeSet<String>>,
    crowded: Mutex<Vec<String>>,
    let_go: Notify,
}

impl Receiver {
    /// One that listens at an address of its own, and takes everything.
    pub async fn new() -> (Arc<Self>, SocketAddr) {
        let receiver = Arc::new(Self::default());
        let address = receiver.listen("127.0.0.1:0").await;
        (receiver, address)
    }

    async fn listen(self: &Arc<Self>, at: &str) -> SocketAddr {
        let listener = TcpListener::bind(at).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(receive).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    /// Answers so to events of a stream; of all the others where it is empty.
    fn answers(&self, stream: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(stream.to_owned(), answer);
    }

    fn came(&self) -> Vec<Came> {
        self.came.lock().unwrap().clone()
    }

    pub fn positions(&self) -> Vec<i64> {
        self.came().iter().map(Came::position).collect()
    }

    fn taken(&self) -> Vec<i64> {
        self.taken.lock().unwrap().clone()
    }

    fn forget(&self) {
        self.came.lock().unwrap().clear();
    }

    /// Waits until its answer to this stream's event is let go.
    async fn hold(&self, stream: &str) {
        if !self.held.lock().unwrap().insert(stream.to_owned()) {
            self.crowded.lock().unwrap().push(stream.to_owned());
        }
        self.let_go.notified().await;
        self.held.lock().unwrap().remove(stream);
    }
}

async fn receive(State(receiver): State<Arc<Receiver>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap().to_owned();
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
    let came = Came { headers, body: String::from_utf8(body.to_vec()).unwrap() };
    let stream = came.event()["stream"].as_str().unwrap().to_owned();
    let answer = {
        let answers = receiver.answers.lock().unwrap();
        answers.get(&stream).or(answers.get("")).cloned().unwrap_or(Answer::Status(204))
    };
    // What is not taken is noted as well: how often it is tried is looked at.
    let position = came.position();
    receiver.came.lock().unwrap().push(came);
    if let Answer::Held = answer {
        receiver.hold(&stream).await;
    }
    if matches!(answer, Answer::Held | Answer::Status(200..300)) {
        receiver.taken.lock().unwrap().push(position);
    }
    match answer {
        Answer::Held => StatusCode::NO_CONTENT.into_response(),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect(to) => (StatusCode::TEMPORARY_REDIRECT, [("location", to)]).into_response(),
        Answer::Silence => std::future::pending().await,
    }
}

fn on_this_machine() -> WebhookPolicy {
    WebhookPolicy::new(true, &["127.0.0.0/8".to_owned()]).unwrap()
}

fn impatient() -> DeliveryOptions {
    let policy = on_this_machine();
    DeliveryOptions { policy, patience: Duration::from_secs(5), ..DeliveryOptions::default() }
}

async fn world(engine: Engine) -> World {
    let mut world = World::with_people(engine).await;
    world.set_options(HttpOptions { webhooks: on_this_machine(), ..HttpOptions::default() });
    world
}

async fn ask(world: &World, method: &str, path: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(Caller::Operator));
    world.raw(method, path, &[("authorization", &bearer)], Vec::new()).await
}

#[track_caller]
fn ok(reply: &Reply) -> &Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    &reply.body
}

/// Adds one and returns its secret.
async fn add(world: &World, address: SocketAddr, more: &str) -> String {
    let path = format!("/v1/webhooks?url=http://{address}/coupons{more}");
    ok(&ask(world, "POST", &path).await)["secret"].as_str().unwrap().to_owned()
}

async fn standing(world: &World) -> Value {
    ok(&ask(world, "GET", "/v1/webhooks").await)["webhooks"][0].clone()
}

/// So many coupons of 439, each opened: two events of each.
async fn coupons(world: &World, definition: i64, number: usize) {
    for _ in 0..number {
        let id = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
    }
}

async fn all_events(world: &World) -> Vec<Value> {
    lines(&world.get(Caller::Auditor, "/v1/events?limit=1000").await)
}

/// The first time that each event came, each stream's are in order.
#[track_caller]
fn assert_in_order(positions: &[i64], events: &[Value]) {
    let mut last: HashMap<&str, i64> = HashMap::new();
    let mut seen = BTreeSet::new();
    for position in positions.iter().filter(|position| seen.insert(**position)) {
        let stream = events[*position as usize - 1]["stream"].as_str().unwrap();
        let before = last.insert(stream, *position).unwrap_or_default();
        assert!(before < *position, "{position} of {stream} came behind {before}");
    }
}

/// Every event of a coupon was taken, and the first time in its stream's order, as it had come.
#[track_caller]
fn assert_has_every_coupons(receiver: &Receiver, events: &[Value]) {
    let of_coupon = |event: &&Value| event["stream"].as_str().unwrap().starts_with("coupon/");
    let expected: BTreeSet<i64> =
        events.iter().filter(of_coupon).map(|event| event["position"].as_i64().unwrap()).collect();
    assert_eq!(receiver.taken().into_iter().collect::<BTreeSet<_>>(), expected);
    assert_in_order(&receiver.taken(), events);
    assert_in_order(&receiver.positions(), events);
}

/// Every position from one to another once.
#[track_caller]
fn assert_each_once(positions: &[i64], from: i64, to: i64) {
    let mut sorted = positions.to_vec();
    sorted.sort_unstable();
    assert_eq!(sorted, (from..=to).collect::<Vec<_>>());
}

/// A webhook that is added, sent to, fails, gives up, sends once more and is removed.
pub async fn once_with_all_that_can_become_of_it(world: &World) {
    let (receiver, address) = Receiver::new().await;
    // Over HTTP this world lets no webhook lead to this machine.
    let policy = on_this_machine();
    let meta = coupon_ledger::ledger::Meta {
        caller: Caller::Operator,
        at: world.ledger.now(),
        request_id: "webhook".to_owned(),
        receipt: None,
        job_id: None,
    };
    let subscription = coupon_ledger::webhook::Subscription {
        url: format!("http://{address}/"),
        types: vec!["Opened".to_owned()],
        streams: vec!["shop".to_owned()],
    };
    let added =
        coupon_ledger::feeds::webhooks::add(&world.ledger, &policy, subscription, Some(0), &meta).await;
    let id = added.unwrap().id;
    receiver.answers("", Answer::Status(500));
    let outbox = Outbox::new(world.ledger.clone(), impatient());
    let began = world.clock.now_ms();
    outbox.deliver_due().await.unwrap();
    for _ in 1..10 {
        world.advance(GIVE_UP_AFTER_MS / 9);
        outbox.deliver_due().await.unwrap();
    }
    world.clock.set(began);
    let dead = ask(world, "GET", &format!("/v1/webhooks/{id}/dead")).await;
    assert_eq!(ok(&dead)["dead"].as_array().unwrap().len(), 1);
    receiver.answers("", Answer::Status(200));
    let position = ok(&dead)["dead"][0]["position"].clone();
    for path in [format!("{id}/resume"), format!("{id}/resend?from={position}&to={position}")] {
        ok(&ask(world, "POST", &format!("/v1/webhooks/{path}")).await);
    }
    outbox.deliver_due().await.unwrap();
    let dead = ask(world, "GET", &format!("/v1/webhooks/{id}/dead")).await;
    assert_eq!(ok(&dead), &json!({"dead": []}));
    assert_eq!(receiver.positions().iter().filter(|other| position == **other).count(), 11);
    ok(&ask(world, "DELETE", &format!("/v1/webhooks/{id}")).await);
}

on_both_engines! {
    async fn each_event_comes_once_signed_and_as_the_feed_has_it(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 40).await;
        let secret = add(&world, address, "&after=0").await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        assert_eq!(outbox.deliver_due().await.unwrap(), 1);
        let events = all_events(&world).await;
        assert_eq!(events.len(), 83);
        let came = receiver.came();
        assert_each_once(&receiver.positions(), 1, 83);
        assert_in_order(&receiver.positions(), &events);
        let feed = world.get(Caller::Auditor, "/v1/events?limit=1000").await.body;
        for came in &came {
            assert_eq!(feed.as_str().unwrap().lines().nth(came.position() as usize - 1), Some(came.body.as_str()));
            assert_eq!(came.headers["webhook-timestamp"], (NOON / 1_000).to_string());
            assert_eq!(came.headers["content-type"], "application/json");
            assert!(came.is_signed_with(&secret), "{came:?}");
            assert!(!came.is_signed_with(&secret.replace(&secret[6..8], "zz")), "{came:?}");
        }
        // Nothing more to send, until something happens.
        assert_eq!(outbox.deliver_due().await.unwrap(), 0);
        world.issue(definition, 439).await;
        assert_eq!(outbox.deliver_due().await.unwrap(), 1);
        assert_each_once(&receiver.positions(), 1, 84);
        let metrics = world.ledger.metrics().text();
        for line in [
            "coupon_ledger_webhook_deliveries_total{webhook=\"1\",outcome=\"taken\"} 84",
            "coupon_ledger_webhook_dead{webhook=\"1\"} 0",
        ] {
            assert!(metrics.lines().any(|own| own == line), "{line}: {metrics}");
        }
        assert!(!crate::outside::count(&world.home, "SELECT count(*) FROM events WHERE CAST(payload AS TEXT) LIKE '%whsec%'").await.is_positive());
        world.close().await;
    }

    async fn it_is_sent_what_it_wants_from_where_it_wants(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 3).await;
        // 3 to 8: Issued, Viewed of coupons 1 to 3.
        add(&world, address, "&after=4&type=Viewed,Defined").await;
        add(&world, address, "&after=0&stream=coupon/2,shop").await;
        // From now on.
        add(&world, address, "&stream=coupon").await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        outbox.deliver_due().await.unwrap();
        let mut positions = receiver.positions();
        positions.sort_unstable();
        assert_eq!(positions, [1, 5, 6, 6, 8]);
        receiver.forget();
        coupons(&world, definition, 1).await;
        outbox.deliver_due().await.unwrap();
        let names: Vec<_> = receiver.came().iter().map(|came| came.event()["type"].clone()).collect();
        let number = |name: &str| names.iter().filter(|other| *other == name).count();
        assert_eq!((number("Issued"), number("Viewed"), names.len()), (1, 2, 3));
        // All are where the log ends, whatever they wanted of it.
        let stood = ask(&world, "GET", "/v1/webhooks").await;
        let lags: Vec<_> = ok(&stood)["webhooks"].as_array().unwrap().iter().map(|one| one["lag"].clone()).collect();
        assert_eq!(lags, [0, 0, 0]);
        // Something else, elsewhere.
        let (other, address) = Receiver::new().await;
        let changed = ask(&world, "POST", &format!("/v1/webhooks/3?url=http://{address}/&stream=&type=Issued")).await;
        assert_eq!(ok(&changed)["streams"], json!([]));
        coupons(&world, definition, 1).await;
        outbox.deliver_due().await.unwrap();
        assert_eq!(other.came().len(), 1);
        world.close().await;
    }

    async fn a_receiver_that_is_down_for_hours_misses_nothing(engine: Engine) {
        let world = world(engine).await;
        // Nobody listens there yet.
        let (nobody, address) = (Arc::new(Receiver::default()), {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        });
        add(&world, address, "&after=0").await;
        let definition = world.define(json!({})).await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        for _ in 0..30 {
            coupons(&world, definition, 1).await;
            outbox.deliver_due().await.unwrap();
            world.advance(20 * 60_000);
        }
        let stood = standing(&world).await;
        assert_eq!((&stood["position"], &stood["dead"]), (&json!(0), &json!(0)), "{stood}");
        assert_eq!(stood["failing"]["since_ms"], NOON);
        assert!(stood["failing"]["error"].as_str().unwrap().contains("Connection refused"), "{stood}");
        // Twenty minutes at a time, at first each time, then once an hour.
        assert!((8..30).contains(&stood["failing"]["attempts"].as_i64().unwrap()), "{stood}");
        let followers = ask(&world, "GET", "/v1/followers").await;
        let follower = ok(&followers)["followers"].as_array().unwrap().last().unwrap().clone();
        assert_eq!((&follower["name"], &follower["lag"]), (&json!("webhook 1"), &stood["lag"]));
        assert_eq!(follower["last_error"], stood["failing"]["error"]);
        // It comes up, is not asked before its time, and then gets everything.
        nobody.listen(&address.to_string()).await;
        let pause = stood["failing"]["next_at_ms"].as_i64().unwrap() - world.clock.now_ms();
        if pause > 0 {
            world.advance(pause - 1);
            assert_eq!(outbox.deliver_due().await.unwrap(), 0);
            world.advance(1);
        }
        outbox.deliver_due().await.unwrap();
        let events = all_events(&world).await;
        assert_each_once(&nobody.positions(), 1, events.len() as i64);
        assert_in_order(&nobody.positions(), &events);
        assert_eq!(standing(&world).await["failing"], Value::Null);
        world.close().await;
    }

    async fn whatever_is_not_a_yes_is_tried_again(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let (elsewhere, other) = Receiver::new().await;
        add(&world, address, "&after=0&stream=shop").await;
        let patience = Duration::from_millis(300);
        let outbox = Outbox::new(world.ledger.clone(), DeliveryOptions { patience, ..impatient() });
        for (answer, said) in [
            (Answer::Status(500), "answered 500"),
            (Answer::Status(429), "answered 429"),
            (Answer::Status(404), "answered 404"),
            (Answer::Redirect(format!("http://{other}/")), "answered 307: redirects are not followed"),
            (Answer::Silence, "no answer in time"),
        ] {
            receiver.answers("", answer);
            let before = receiver.came().len();
            outbox.deliver_due().await.unwrap();
            let stood = standing(&world).await;
            assert_eq!((&stood["position"], &stood["failing"]["error"]), (&json!(0), &json!(said)));
            assert_eq!(receiver.came().len(), before + 1, "{said}");
            // Not before its pause is over.
            assert_eq!(outbox.deliver_due().await.unwrap(), 0);
            world.advance(HOUR + HOUR / 5);
        }
        assert_eq!(standing(&world).await["failing"]["attempts"], 5);
        receiver.answers("", Answer::Status(200));
        outbox.deliver_due().await.unwrap();
        assert_eq!((standing(&world).await["lag"].clone(), elsewhere.came().len()), (json!(0), 0));
        let ids = receiver.positions();
        assert_eq!(ids, [1; 6], "it comes each time under the same id");
        world.close().await;
    }

    /// How late an answer may come is measured in `outgoing`: here it takes as long as it likes, and is in time.
    async fn who_is_slow_but_in_time_gets_each_once_in_order_and_keeps_nobody_else_waiting(engine: Engine) {
        let world = world(engine).await;
        let (slow, at_slow) = Receiver::new().await;
        let (quick, at_quick) = Receiver::new().await;
        slow.answers("", Answer::Held);
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 20).await;
        add(&world, at_slow, "&after=0").await;
        add(&world, at_quick, "&after=0").await;
        let head = world.store().head().await.unwrap();
        // Its answers take longer than a round: what was taken out of turn must be known in the next.
        let (patience, round) = (Duration::from_secs(600), Duration::from_millis(10));
        let options = DeliveryOptions { patience, round, ..impatient() };
        let sending = tokio::spawn(run_webhooks(world.ledger.clone(), options));
        until("the quick one has everything", async || quick.came().len() as i64 == head).await;
        until("the slow one has what may be under way", async || slow.came().len() == 4).await;
        until("the slow one has everything", async || {
            slow.let_go.notify_one();
            standing(&world).await["lag"] == 0
        })
        .await;
        let events = all_events(&world).await;
        for receiver in [&slow, &quick] {
            assert_each_once(&receiver.positions(), 1, head);
            assert_in_order(&receiver.positions(), &events);
        }
        assert_eq!(*slow.crowded.lock().unwrap(), [] as [&str; 0], "two of a stream were under way at once");
        let metrics = world.ledger.metrics().text();
        for (webhook, outcome, number) in [(1, "taken", Some(head)), (1, "failed", None), (2, "taken", Some(head))] {
            let name = format!("coupon_ledger_webhook_deliveries_total{{webhook=\"{webhook}\",outcome=\"{outcome}\"}} ");
            let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
            assert_eq!(found.map(|number| number.parse().unwrap()), number, "{name}");
        }
        sending.abort();
        let _ = sending.await;
        world.close().await;
    }

    async fn whoever_was_gone_pointed_elsewhere_or_hung_misses_nothing_once_he_is_back(engine: Engine) {
        let world = world(engine).await;
        let (elsewhere, other) = Receiver::new().await;
        let ways = [Answer::Status(410), Answer::Redirect(format!("http://{other}/")), Answer::Silence];
        let mut receivers = Vec::new();
        for way in ways {
            let (receiver, address) = Receiver::new().await;
            add(&world, address, "&after=0&stream=coupon").await;
            receivers.push((receiver, way));
        }
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 3).await;
        let patience = Duration::from_millis(300);
        let outbox = Outbox::new(world.ledger.clone(), DeliveryOptions { patience, ..impatient() });
        let stand = async || ok(&ask(&world, "GET", "/v1/webhooks").await)["webhooks"].as_array().unwrap().clone();
        let taken_by_all = async || stand().await.iter().all(|one| one["lag"] == 0);
        let catch_up = async || {
            for _ in 0..10 {
                outbox.deliver_due().await.unwrap();
                if taken_by_all().await {
                    return;
                }
                world.advance(HOUR + HOUR / 5);
            }
            panic!("{:?}", stand().await);
        };
        catch_up().await;
        // One coupon's events at first, then everybody's, while more happens to it and to others.
        for stream in ["coupon/2", ""] {
            for (receiver, way) in &receivers {
                receiver.answers(stream, way.clone());
            }
            for _ in 0..2 {
                world.give(MEMBER, 2).await;
                coupons(&world, definition, 2).await;
                world.call(MEMBER, "/client/withdrawcoupon", json!({"id": 2})).await.ok();
                outbox.deliver_due().await.unwrap();
                world.advance(2 * HOUR);
            }
        }
        let states: Vec<_> = stand().await.iter().map(|one| one["state"].clone()).collect();
        assert_eq!(states, ["gone", "running", "running"]);
        let tries = |receiver: &Receiver| receiver.came().len() - receiver.taken().len();
        assert_eq!(tries(&receivers[0].0), 1, "whoever is gone is asked once");
        for (receiver, way) in &receivers {
            assert!(tries(receiver) > 0, "{way:?}");
            for stream in ["coupon/2", ""] {
                receiver.answers(stream, Answer::Status(204));
            }
        }
        ok(&ask(&world, "POST", "/v1/webhooks/1/resume").await);
        catch_up().await;
        let events = all_events(&world).await;
        for (receiver, way) in &receivers {
            println!("{way:?}");
            assert_has_every_coupons(receiver, &events);
        }
        assert_eq!(elsewhere.came().len(), 0);
        assert!(stand().await.iter().all(|one| one["dead"] == 0), "{:?}", stand().await);
        world.close().await;
    }

    async fn an_event_that_fails_holds_back_its_own_stream_and_no_other_of_the_window(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 5).await;
        add(&world, address, "&after=0&stream=coupon").await;
        receiver.answers("coupon/1", Answer::Status(500));
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        for _ in 0..4 {
            outbox.deliver_due().await.unwrap();
            world.advance(HOUR);
        }
        let mut tries: BTreeMap<i64, usize> = BTreeMap::new();
        for position in receiver.positions() {
            *tries.entry(position).or_default() += 1;
        }
        // 3 and 4 are coupon 1's: the one is tried, the other waits for it; what the others' were, they were once.
        let expected = [(3, 4), (5, 1), (6, 1), (7, 1), (8, 1), (9, 1), (10, 1), (11, 1), (12, 1)];
        assert_eq!(tries, BTreeMap::from(expected));
        receiver.answers("coupon/1", Answer::Status(200));
        receiver.forget();
        outbox.deliver_due().await.unwrap();
        assert_eq!(receiver.positions(), [3, 4]);
        // Another process does not know what was taken out of turn: it comes once more, behind what was held back.
        receiver.answers("coupon/6", Answer::Status(500));
        coupons(&world, definition, 2).await;
        world.advance(HOUR);
        outbox.deliver_due().await.unwrap();
        receiver.answers("coupon/6", Answer::Status(200));
        receiver.forget();
        world.advance(HOUR);
        Outbox::new(world.ledger.clone(), impatient()).deliver_due().await.unwrap();
        assert_each_once(&receiver.positions(), 14, 17);
        assert_in_order(&receiver.positions(), &all_events(&world).await);
        world.close().await;
    }

    async fn an_event_that_is_missing_stops_it_before_what_follows_until_it_is_back(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let (filtered, at_filtered) = Receiver::new().await;
        add(&world, address, "&after=0").await;
        add(&world, at_filtered, "&after=0&type=Viewed").await;
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 3).await;
        // The second coupon's view.
        let mend = lose(&world.home, 8).await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        let stopped = outbox.deliver_due().await.unwrap_err().to_string();
        assert!(stopped.contains("8 is missing"), "{stopped}");
        assert_each_once(&receiver.positions(), 1, 7);
        assert_eq!(filtered.positions(), [6]);
        let stood = ask(&world, "GET", "/v1/webhooks").await;
        for one in ok(&stood)["webhooks"].as_array().unwrap() {
            assert_eq!((&one["position"], &one["lag"]), (&json!(7), &json!(3)), "{one}");
        }
        // It counts as failed as long as one of them stands still, whatever goes on beside it.
        let failed = |says: &str| world.ledger.metrics().text().contains(&format!("coupon_ledger_follower_failed{{follower=\"webhooks\"}} {says}"));
        let sending = tokio::spawn(run_webhooks(world.ledger.clone(), impatient()));
        until("it says so", async || failed("1")).await;
        ok(&ask(&world, "POST", "/v1/webhooks/2/resend?from=10&to=10").await);
        let resent = async || ok(&ask(&world, "GET", "/v1/webhooks").await)["webhooks"][1]["resending"] == json!([]);
        until("what lies behind it was sent once more", async || filtered.positions() == [6, 10] && resent().await).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(failed("1"));
        world.home.sql_all(&mend).await.unwrap();
        // That it was asked for is an event too.
        let head = world.store().head().await.unwrap();
        until("both go on", async || failed("0") && receiver.positions().len() as i64 == head && filtered.positions().len() == 4).await;
        sending.abort();
        let _ = sending.await;
        assert_each_once(&receiver.positions(), 1, head);
        assert_in_order(&receiver.positions(), &all_events(&world).await);
        let mut of_views = filtered.positions();
        of_views.sort_unstable();
        assert_eq!(of_views, [6, 8, 10, 10]);
        world.close().await;
    }

    async fn after_a_day_an_event_is_given_up_seen_and_sent_again_by_range(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let definition = world.define(json!({})).await;
        coupons(&world, definition, 3).await;
        add(&world, address, "&after=0&stream=coupon").await;
        receiver.answers("coupon/1", Answer::Status(500));
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        let mut rounds = 0;
        while standing(&world).await["dead"] == 0 {
            let stood = standing(&world).await;
            if let Some(next) = stood["failing"]["next_at_ms"].as_i64() {
                assert!(next <= NOON + GIVE_UP_AFTER_MS, "{stood}");
                world.clock.set(next);
            }
            outbox.deliver_due().await.unwrap();
            rounds += 1;
            assert!(rounds < 60, "{stood}");
        }
        // Its day is over to the millisecond, and after more tries at first than later.
        assert_eq!(world.clock.now_ms(), NOON + GIVE_UP_AFTER_MS);
        assert!((25..45).contains(&rounds), "{rounds}");
        let dead = ask(&world, "GET", "/v1/webhooks/1/dead").await;
        let expected = json!({"dead": [{
            "position": 3, "stream": "coupon/1", "type": "Issued", "attempts": rounds, "error": "answered 500",
            "failed_at_ms": NOON, "given_up_at_ms": NOON + GIVE_UP_AFTER_MS,
        }]});
        assert_eq!(ok(&dead), &expected);
        let metrics = {
            outbox.deliver_due().await.unwrap();
            world.ledger.metrics().text()
        };
        assert!(metrics.contains("coupon_ledger_webhook_dead{webhook=\"1\"} 1"), "{metrics}");
        // The rest goes on: what lies behind it in its stream has a day of its own.
        let stood = standing(&world).await;
        assert_eq!((&stood["position"], &stood["failing"]["attempts"]), (&json!(3), &json!(1)), "{stood}");
        receiver.answers("coupon/1", Answer::Status(200));
        world.advance(HOUR);
        outbox.deliver_due().await.unwrap();
        assert_eq!(standing(&world).await["lag"], 0);
        // Sent again by range, beside what comes; once more under the same key is the same.
        receiver.forget();
        let bearer = format!("Bearer {}", world.token(Caller::Operator));
        let headers = [("authorization", bearer.as_str()), ("idempotency-key", "resend-1")];
        for replayed in [false, true] {
            let reply = world.raw("POST", "/v1/webhooks/1/resend?from=2&to=4", &headers, Vec::new()).await;
            assert_eq!(ok(&reply), &json!({"id": 1, "lane": 1, "from": 2, "to": 4}));
            assert_eq!(reply.replayed(), replayed);
        }
        coupons(&world, definition, 1).await;
        outbox.deliver_due().await.unwrap();
        let mut positions = receiver.positions();
        positions.sort_unstable();
        let last = world.store().head().await.unwrap();
        assert_eq!(positions, [3, 4, last - 1, last]);
        let stood = standing(&world).await;
        assert_eq!((&stood["dead"], &stood["resending"]), (&json!(0), &json!([])), "{stood}");
        assert_eq!(ok(&ask(&world, "GET", "/v1/webhooks/1/dead").await), &json!({"dead": []}));
        world.close().await;
    }

    async fn while_our_side_is_away_nothing_is_given_up(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        add(&world, address, "&after=0&stream=shop").await;
        receiver.answers("", Answer::Status(500));
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        outbox.deliver_due().await.unwrap();
        // As if no server had run over the weekend.
        world.advance(3 * DAY);
        for tries in 2..10 {
            outbox.deliver_due().await.unwrap();
            let stood = standing(&world).await;
            assert_eq!((&stood["dead"], &stood["failing"]["attempts"]), (&json!(0), &json!(tries)), "{stood}");
            let next = stood["failing"]["next_at_ms"].as_i64().unwrap();
            let pause = (next - world.clock.now_ms()) / (5_000 << (tries - 1));
            assert_eq!(pause, 1, "the pauses go on as they began: {stood}");
            world.clock.set(next);
        }
        outbox.deliver_due().await.unwrap();
        assert_eq!(standing(&world).await["dead"], 1);
        world.close().await;
    }

    async fn who_is_gone_is_asked_no_more_until_he_is_resumed(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        add(&world, address, "&after=0&stream=shop").await;
        receiver.answers("", Answer::Status(410));
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        outbox.deliver_due().await.unwrap();
        assert_eq!(standing(&world).await["state"], "gone");
        world.advance(DAY);
        assert_eq!((outbox.deliver_due().await.unwrap(), receiver.came().len()), (0, 1));
        receiver.answers("", Answer::Status(200));
        assert_eq!(ok(&ask(&world, "POST", "/v1/webhooks/1/resume").await)["state"], "running");
        outbox.deliver_due().await.unwrap();
        assert_eq!(receiver.positions(), [1, 1]);
        world.close().await;
    }

    async fn it_rests_goes_on_from_any_position_and_ends(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        add(&world, address, "&after=0&stream=shop,definition,coupon").await;
        assert_eq!(ok(&ask(&world, "POST", "/v1/webhooks/1/pause").await)["state"], "paused");
        let definition = world.define(json!({})).await;
        world.issue(definition, 439).await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        assert_eq!(outbox.deliver_due().await.unwrap(), 0);
        ok(&ask(&world, "POST", "/v1/webhooks/1/resume").await);
        outbox.deliver_due().await.unwrap();
        let mut before: Vec<i64> = receiver.positions();
        before.sort_unstable();
        assert_eq!(before, [1, 4, 5]);
        // Back, and forth.
        ok(&ask(&world, "POST", &format!("/v1/webhooks/1/resume?after={}", before[1])).await);
        outbox.deliver_due().await.unwrap();
        assert_eq!(receiver.positions()[3..], before[2..]);
        receiver.forget();
        world.issue(definition, 439).await;
        let head = world.store().head().await.unwrap();
        ok(&ask(&world, "POST", &format!("/v1/webhooks/1/resume?after={head}")).await);
        outbox.deliver_due().await.unwrap();
        assert_eq!(receiver.positions(), [] as [i64; 0]);
        let removed = ask(&world, "DELETE", "/v1/webhooks/1").await;
        assert_eq!(ok(&removed)["removed_at_ms"], NOON);
        assert_eq!(ask(&world, "DELETE", "/v1/webhooks/1").await.body, removed.body);
        world.issue(definition, 439).await;
        assert_eq!((outbox.deliver_due().await.unwrap(), receiver.came().len()), (0, 0));
        assert_eq!(ok(&ask(&world, "GET", "/v1/webhooks").await), &json!({"webhooks": []}));
        for path in ["pause", "resume", "rotate", "resend?from=1&to=1"] {
            assert_eq!(ask(&world, "POST", &format!("/v1/webhooks/1/{path}")).await.code(), 2005, "{path}");
        }
        assert_eq!(count(&world.home, "SELECT count(*) FROM webhook_lanes").await, 0);
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn for_a_while_two_secrets_sign_and_then_one(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        let first = add(&world, address, "&stream=coupon").await;
        let definition = world.define(json!({})).await;
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        let last = async || {
            world.issue(definition, 439).await;
            outbox.deliver_due().await.unwrap();
            receiver.came().last().unwrap().clone()
        };
        let rotated = ask(&world, "POST", "/v1/webhooks/1/rotate?overlap_s=3600").await;
        let second = ok(&rotated)["secret"].as_str().unwrap().to_owned();
        assert_ne!(first, second);
        assert_eq!(ok(&ask(&world, "GET", "/v1/webhooks/1/secret").await)["secret"], json!(second));
        let came = last().await;
        assert!(came.is_signed_with(&first) && came.is_signed_with(&second));
        world.advance(HOUR);
        let came = last().await;
        assert!(!came.is_signed_with(&first) && came.is_signed_with(&second));
        // One that has leaked signs nothing more.
        let rotated = ask(&world, "POST", "/v1/webhooks/1/rotate?overlap_s=0").await;
        let third = ok(&rotated)["secret"].as_str().unwrap().to_owned();
        let came = last().await;
        assert!(!came.is_signed_with(&second) && came.is_signed_with(&third));
        world.close().await;
    }

    async fn a_receiver_that_hangs_hurts_nobody_else(engine: Engine) {
        let world = world(engine).await;
        let (silent, at_silent) = Receiver::new().await;
        let (quick, at_quick) = Receiver::new().await;
        silent.answers("", Answer::Silence);
        add(&world, at_silent, "&after=0").await;
        add(&world, at_quick, "&after=0").await;
        // Longer than the test may take.
        let patience = Duration::from_secs(600);
        let sending = tokio::spawn(run_webhooks(world.ledger.clone(), DeliveryOptions { patience, ..impatient() }));
        let definition = world.define(json!({})).await;
        for round in 1..=3 {
            coupons(&world, definition, 20).await;
            let head = world.store().head().await.unwrap();
            until("the quick one has everything", async || quick.came().len() as i64 == head).await;
            assert!(!silent.came().is_empty() && silent.came().len() <= 4, "round {round}");
        }
        assert_each_once(&quick.positions(), 1, world.store().head().await.unwrap());
        sending.abort();
        let _ = sending.await;
        world.close().await;
    }

    async fn what_cannot_be_a_webhook_is_refused_and_says_why(engine: Engine) {
        let world = World::with_people(engine).await;
        for (method, path, field) in [
            ("POST", "/v1/webhooks", "url"),
            ("POST", "/v1/webhooks?url=", "url"),
            ("POST", "/v1/webhooks?url=erp.example", "url"),
            ("POST", "/v1/webhooks?url=http://1.1.1.1/", "url"),
            ("POST", "/v1/webhooks?url=https://127.0.0.1/", "url"),
            ("POST", "/v1/webhooks?url=https://localhost/", "url"),
            ("POST", "/v1/webhooks?url=https://2130706433/", "url"),
            ("POST", "/v1/webhooks?url=https://10.0.0.1/", "url"),
            ("POST", "/v1/webhooks?url=https://169.254.169.254/", "url"),
            ("POST", "/v1/webhooks?url=https://[::ffff:10.0.0.1]/", "url"),
            ("POST", "/v1/webhooks?url=https://a:b@1.1.1.1/", "url"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/%23a", "url"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/&type=Redeemt", "type"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/&stream=coupons", "stream"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/&stream=coupon/07", "stream"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/&after=2", "after"),
            ("POST", "/v1/webhooks?url=https://1.1.1.1/&after=-1", "after"),
        ] {
            let reply = ask(&world, method, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}: {}", reply.body);
            assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
        }
        let key = [("idempotency-key", "add-it-once"), ("authorization", &format!("Bearer {}", world.token(Caller::Operator)))];
        for replayed in [false, true] {
            let reply = world.raw("POST", "/v1/webhooks?url=https://1.1.1.1/", &key, Vec::new()).await;
            assert_eq!((ok(&reply)["id"].clone(), reply.replayed()), (json!(1), replayed));
        }
        for (path, field) in [
            ("/v1/webhooks/1?url=https://10.0.0.1/", "url"),
            ("/v1/webhooks/1?type=x", "type"),
            ("/v1/webhooks/1/resume?after=99", "after"),
            ("/v1/webhooks/1/rotate?overlap_s=9999999999", "overlap_s"),
            ("/v1/webhooks/1/resend?from=1", "to"),
            ("/v1/webhooks/1/resend?from=0&to=1", "from"),
            ("/v1/webhooks/1/resend?from=2&to=1", "to"),
            ("/v1/webhooks/1/resend?from=1&to=99", "to"),
        ] {
            let reply = ask(&world, "POST", path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path}: {}", reply.body);
            assert!(reply.body["info"].get(field).is_some(), "{path}: {}", reply.body);
        }
        for _ in 0..4 {
            ok(&ask(&world, "POST", "/v1/webhooks/1/resend?from=1&to=1").await);
        }
        assert_eq!(ask(&world, "POST", "/v1/webhooks/1/resend?from=1&to=1").await.code(), 401);
        for (method, path) in [
            ("POST", "/v1/webhooks/9"),
            ("DELETE", "/v1/webhooks/9"),
            ("POST", "/v1/webhooks/9/pause"),
            ("POST", "/v1/webhooks/9/resume"),
            ("POST", "/v1/webhooks/9/rotate"),
            ("POST", "/v1/webhooks/9/resend?from=1&to=1"),
            ("GET", "/v1/webhooks/9/secret"),
            ("GET", "/v1/webhooks/9/dead"),
        ] {
            let reply = ask(&world, method, path).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (404, 2005), "{path}: {}", reply.body);
        }
        world.close().await;
    }

    async fn a_name_that_leads_inside_later_is_not_connected_to(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        add(&world, address, "&after=0").await;
        // Added where it might lead inside; whoever sends may not.
        let policy = WebhookPolicy::new(true, &[]).unwrap();
        let outbox = Outbox::new(world.ledger.clone(), DeliveryOptions { policy, ..impatient() });
        outbox.deliver_due().await.unwrap();
        let stood = standing(&world).await;
        assert_eq!(stood["failing"]["error"], "127.0.0.1 is no address that may be reached");
        assert_eq!(receiver.came().len(), 0);
        world.close().await;
    }

    async fn a_ledger_that_has_no_lanes_sends_nothing_until_it_is_told_from_where(engine: Engine) {
        let world = world(engine).await;
        let (receiver, address) = Receiver::new().await;
        add(&world, address, "&after=0").await;
        // As after an export was taken over.
        world.home.sql("DELETE FROM webhook_lanes").await.unwrap();
        let outbox = Outbox::new(world.ledger.clone(), impatient());
        assert_eq!((outbox.deliver_due().await.unwrap(), receiver.came().len()), (0, 0));
        assert_eq!(standing(&world).await["position"], Value::Null);
        ok(&ask(&world, "POST", "/v1/webhooks/1/resume?after=1").await);
        outbox.deliver_due().await.unwrap();
        assert_each_once(&receiver.positions(), 2, 3);
        world.close().await;
    }

    async fn killed_in_the_middle_it_leaves_nothing_out_and_repeats_little(engine: Engine) {
        let home = Home::new(engine).await;
        let (receiver, address) = Receiver::new().await;
        let arguments = ["--webhook-allow-http", "--webhook-allow-network", "127.0.0.0/8"];
        let mut server = Server::start(&home, &arguments).await;
        let api = Api::new(&home, &server);
        let member = json!({"id": 439, "nickname": "小明"});
        api.operator("/member/add", member).await.ok();
        let definition = api.operator("/elecoupons/add", crate::harness::definition(json!({}))).await;
        let definition = definition.ok()["id"].clone();
        let operator = crate::harness::cli_token(&home, &["--operator"]).await;
        let url = format!("{}/v1/webhooks?url=http://{address}/&after=0", server.url);
        let added = reqwest::Client::new().post(url).bearer_auth(&operator).send().await.unwrap();
        assert_eq!(added.status(), 200);
        let mut kills = 0;
        for round in 1..=3 {
            let api = Api::new(&home, &server);
            for _ in 0..60 {
                let body = json!({"coupon_id": definition, "member_id": 439});
                api.operator("/sendelecoupon/one", body).await.ok();
            }
            let some = round * 40;
            until("some have come", async || receiver.came().len() >= some).await;
            server.kill().await;
            kills += 1;
            server = Server::start(&home, &arguments).await;
        }
        let head = count(&home, "SELECT position FROM log_head").await;
        let distinct = || receiver.positions().into_iter().collect::<BTreeSet<_>>();
        until("all have come", async || distinct().len() as i64 == head).await;
        assert_eq!(distinct(), (1..=head).collect());
        let window = DeliveryOptions::default().window;
        assert!(receiver.came().len() <= head as usize + kills * window, "{} came", receiver.came().len());
        let events: Vec<Value> = {
            let (_, text) = Api::new(&home, &server).get(Caller::Auditor, "/v1/events?limit=1000").await;
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_in_order(&receiver.positions(), &events);
        server.kill().await;
    }

    /// SQLite lets one process in: there the second is started when the first has been killed.
    async fn of_two_servers_one_sends_and_when_it_is_killed_the_other_goes_on_in_order(engine: Engine) {
        const LEASE: &str = "name = 'webhook 1 0 lease'";
        let homes = homes(engine).await;
        let (receiver, address) = Receiver::new().await;
        receiver.answers("", Answer::Held);
        let arguments = ["--webhook-allow-http", "--webhook-allow-network", "127.0.0.0/8"];
        let first = Server::start(&homes[0], &arguments).await;
        let api = Api::new(&homes[0], &first);
        api.operator("/member/add", json!({"id": 439, "nickname": "小明"})).await.ok();
        let definition = api.operator("/elecoupons/add", crate::harness::definition(json!({}))).await;
        let body = json!({"coupon_id": definition.ok()["id"], "member_id": 439});
        for _ in 0..20 {
            let id = api.operator("/sendelecoupon/one", body.clone()).await.ok()["id"].clone();
            api.call(MEMBER, "/client/couponinfo", json!({"id": id})).await.ok();
        }
        let operator = crate::harness::cli_token(&homes[0], &["--operator"]).await;
        let url = format!("{}/v1/webhooks?url=http://{address}/&after=0&stream=coupon", first.url);
        let added = reqwest::Client::new().post(url).bearer_auth(&operator).send().await.unwrap();
        assert_eq!(added.status(), 200);
        until("the first is at work", async || receiver.came().len() == 4).await;
        let number = format!("SELECT COALESCE(MAX(value % 1000000000), -1) FROM checkpoints WHERE {LEASE}");
        let of_first = count(&homes[0], &number).await;
        let second = match homes.get(1) {
            Some(beside) => {
                let second = Server::start(beside, &arguments).await;
                let api = Api::new(beside, &second);
                until("the second has looked for work", async || {
                    api.get(Caller::Auditor, "/metrics").await.1.contains("coupon_ledger_webhook_lag{webhook=\"1\"}")
                })
                .await;
                Some(second)
            }
            None => None,
        };
        until("half of it has come", async || {
            receiver.let_go.notify_one();
            receiver.came().len() >= 20
        })
        .await;
        let came_at_first = receiver.positions();
        first.kill().await;
        let (second, home) = match second {
            None => (Server::start(&homes[0], &arguments).await, &homes[0]),
            Some(second) => {
                // As if its time had passed.
                let over = format!("UPDATE checkpoints SET value = value % 1000000000 WHERE {LEASE}");
                homes[0].sql(&over).await.unwrap();
                until("the second has its turn", async || {
                    ![-1, of_first].contains(&count(&homes[0], &number).await)
                })
                .await;
                let distinct: BTreeSet<_> = came_at_first.iter().collect();
                assert_eq!(distinct.len(), came_at_first.len(), "both have sent: {came_at_first:?}");
                (second, &homes[1])
            }
        };
        let api = Api::new(home, &second);
        receiver.answers("", Answer::Status(204));
        until("all of it was taken", async || {
            receiver.let_go.notify_one();
            receiver.taken().into_iter().collect::<BTreeSet<_>>().len() == 40
        })
        .await;
        let events: Vec<Value> = {
            let (_, text) = api.get(Caller::Auditor, "/v1/events?limit=1000").await;
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_has_every_coupons(&receiver, &events);
        let repeats = receiver.came().len() - 40;
        assert!(repeats <= DeliveryOptions::default().window, "{repeats} came again");
        second.kill().await;
    }

    async fn the_command_line_does_the_same_beside_a_server_and_without(engine: Engine) {
        let home = Home::new(engine).await;
        let run = async |arguments: &[&str]| -> Done {
            let mut command = program(&home);
            command.args(["--webhook-allow-http", "--webhook-allow-network=127.0.0.1", "webhook"]).args(arguments);
            finish(command).await
        };
        let json_of = |done: &Done| -> Value {
            assert_eq!(done.code, Some(0), "{done:?}");
            serde_json::from_str(done.out.lines().next().unwrap()).unwrap()
        };
        let (receiver, address) = Receiver::new().await;
        let url = format!("http://{address}/coupons");
        let added = json_of(&run(&["add", "--url", &url, "--after", "0", "--stream", "webhook"]).await);
        assert_eq!((&added["id"], &added["state"], &added["streams"]), (&json!(1), &json!("running"), &json!(["webhook"])));
        assert_eq!(json_of(&run(&["secret", "1"]).await)["secret"], added["secret"]);
        let options = ["--webhook-allow-http", "--webhook-allow-network", "127.0.0.1"];
        let server = Server::start(&home, &options).await;
        until("it has come", async || receiver.positions() == [1]).await;
        assert_eq!(json_of(&run(&["pause", "1"]).await)["state"], "paused");
        let changed = run(&["change", "1", "--stream", "", "--type", "Added,Paused"]).await;
        assert_eq!(json_of(&changed)["types"], json!(["Added", "Paused"]));
        assert_eq!(json_of(&run(&["resume", "1"]).await)["state"], "running");
        until("what it wants has come", async || receiver.positions() == [1, 2]).await;
        let resent = json_of(&run(&["resend", "1", "--from", "1"]).await);
        assert_eq!(resent, json!({"id": 1, "lane": 1, "from": 1, "to": 1}));
        until("it has come again", async || receiver.positions() == [1, 2, 1]).await;
        let rotated = json_of(&run(&["rotate", "1"]).await);
        assert_eq!(rotated["generation"], 2);
        assert_eq!(json_of(&run(&["secret", "1"]).await)["secret"], rotated["secret"]);
        let assert_refused = async || {
            let done = run(&["add", "--url", "https://10.0.0.1/"]).await;
            let why = "url leads into the network of the server, which is not allowed";
            assert!(done.code == Some(1) && done.err.contains(why), "{done:?}");
        };
        assert_refused().await;
        assert_eq!(run(&["pause", "9"]).await.code, Some(1));
        server.kill().await;
        assert_refused().await;
        let listed = json_of(&run(&["list"]).await);
        assert_eq!((&listed["id"], &listed["url"], &listed["dead"]), (&json!(1), &json!(url), &json!(0)));
        assert_eq!(run(&["dead", "1"]).await.out, "");
        assert_eq!(run(&["dead", "9"]).await.code, Some(1));
        assert!(json_of(&run(&["remove", "1"]).await)["removed_at_ms"].is_i64());
        assert_eq!(run(&["list"]).await.out, "");
        let followers = finish({
            let mut command = program(&home);
            command.args(["followers", "list"]);
            command
        });
        assert!(!followers.await.out.contains("webhook 1"));
    }
}
