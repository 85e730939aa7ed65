//! Ends of the program: killed in the middle of its work, asked to stop, and started where another one runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coupon_ledger::identity::Caller;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::harness::{Engine, Home, Server, definition, program};
use crate::leaks::Heard as _;
use crate::outside::{Api, PATIENCE, assert_gapless, count, until};

/// Connections under load, each a member of his own.
const WORKERS: i64 = 16;

/// A call, and what it answered once it did.
#[derive(Clone, Debug)]
struct Action {
    key: String,
    route: &'static str,
    body: Value,
    answer: Option<Value>,
}

/// A member who claims coupons, opens each, and then uses the one and gives away the next.
struct Worker {
    member: Caller,
    name: String,
    /// The coupon in work and what was done with it: 0 claimed, 1 opened.
    coupon: Option<(i64, u8)>,
    done: Vec<Action>,
    /// The one that was sent and not answered.
    open: Option<Action>,
}

impl Worker {
    fn new(number: i64) -> Self {
        let member = Caller::Member(1000 + number);
        Self { member, name: format!("w{number}"), coupon: None, done: Vec::new(), open: None }
    }

    fn next(&self) -> Action {
        let number = self.done.len();
        let (route, body) = match self.coupon {
            None => ("/client/claimcoupon", json!({"id": 1})),
            Some((id, 0)) => ("/client/couponinfo", json!({"id": id})),
            Some((id, _)) if number.is_multiple_of(2) => ("/client/givecoupon", json!({"id": id})),
            Some((id, _)) => ("/client/auditcoupon", json!({"mem_coupon_id": id, "shop_id": 1})),
        };
        Action { key: format!("{}-{number:06}", self.name), route, body, answer: None }
    }

    /// Does the next action, or the open one again with its key. False when no answer came.
    async fn step(&mut self, api: &Api) -> bool {
        let mut action = self.open.take().unwrap_or_else(|| self.next());
        match api.try_call(self.member, Some(&action.key), action.route, &action.body).await {
            Ok(reply) if reply.code() != 9002 => {
                let data = reply.ok().clone();
                self.coupon = match (action.route, self.coupon) {
                    ("/client/claimcoupon", _) => Some((data["id"].as_i64().unwrap(), 0)),
                    ("/client/couponinfo", Some((id, _))) => {
                        assert_eq!(data["is_read"], 1, "an opened coupon is read");
                        Some((id, 1))
                    }
                    _ => None,
                };
                action.answer = Some(data);
                self.done.push(action);
                true
            }
            // Neither yes nor no: 9002 says so, a lost connection says nothing.
            _ => {
                self.open = Some(action);
                false
            }
        }
    }

    /// Works until the server is gone.
    async fn work(mut self, api: Api, answered: Arc<AtomicUsize>) -> Self {
        while self.step(&api).await {
            answered.fetch_add(1, Ordering::SeqCst);
        }
        self
    }

    /// Reads back what was answered since `from`, and brings the open action to its end.
    async fn check(mut self, api: Api, from: usize) -> Self {
        for action in &self.done[from..] {
            let answer = action.answer.as_ref().unwrap();
            let id = action.body["mem_coupon_id"].as_i64().or(action.body["id"].as_i64()).unwrap();
            match action.route {
                "/client/claimcoupon" => {
                    let info = api.call(self.member, "/client/couponinfo", answer.clone()).await;
                    assert_eq!(info.ok()["id"], answer["id"], "{action:?}");
                }
                "/client/couponinfo" => {
                    let info = api.call(self.member, action.route, action.body.clone()).await;
                    assert_eq!(info.ok()["is_read"], 1, "{action:?}");
                }
                "/client/givecoupon" => {
                    let again = api.call(self.member, action.route, action.body.clone()).await;
                    assert_eq!(again.ok(), answer, "{action:?}");
                }
                _ => {
                    let used = api.call(self.member, action.route, action.body.clone()).await;
                    assert_eq!(used.code(), 3001, "{action:?}");
                    assert_eq!(used.data()["id"].to_string(), answer["id"].as_str().unwrap());
                    let redemption = json!({"id": used.data()["id"]});
                    let read = api.call(self.member, "/client/auditcouponinfo", redemption).await;
                    assert_eq!(read.ok()["mem_coupon_id"], id);
                }
            }
        }
        let started = Instant::now();
        while self.open.is_some() && !self.step(&api).await {
            assert!(started.elapsed() < PATIENCE, "never answered: {:?}", self.open);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self
    }
}

async fn set_up(home: &Home, server: &Server) {
    let api = Api::new(home, server);
    let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
    assert_eq!(api.operator("/shop/add", shop).await.ok()["id"], "1");
    assert_eq!(api.operator("/elecoupons/add", definition(json!({"is_claim": 1}))).await.ok()["id"], 1);
    for number in 0..WORKERS {
        api.operator("/member/add", json!({"id": 1000 + number})).await.ok();
    }
}

/// Every worker goes on until the server is gone; `end` ends it once so many actions are answered.
async fn load(workers: Vec<Worker>, api: &Api, enough: usize, end: impl AsyncFnOnce()) -> Vec<Worker> {
    let answered = Arc::new(AtomicUsize::new(0));
    let work = |worker: Worker| tokio::spawn(worker.work(api.clone(), answered.clone()));
    let working: Vec<_> = workers.into_iter().map(work).collect();
    until("enough is answered", async || answered.load(Ordering::SeqCst) >= enough).await;
    end().await;
    finished(working).await
}

async fn finished(tasks: Vec<tokio::task::JoinHandle<Worker>>) -> Vec<Worker> {
    let mut workers = Vec::new();
    for task in tasks {
        workers.push(task.await.unwrap());
    }
    workers
}

/// How often each key stands in the log's events.
async fn keys_in_log(home: &Home) -> BTreeMap<String, usize> {
    let sql =
        "SELECT metadata->>'idempotency_key' FROM events WHERE metadata->>'idempotency_key' IS NOT NULL";
    let mut keys = BTreeMap::new();
    for key in home.sql(sql).await.unwrap() {
        *keys.entry(key).or_default() += 1;
    }
    keys
}

/// Opening a coupon writes an event but takes no key.
fn takes_a_key(action: &Action) -> bool {
    action.route != "/client/couponinfo"
}

/// The log holds every answered action exactly once, and nothing that was not sent.
async fn assert_log_holds_what_was_answered(home: &Home, workers: &[Worker]) {
    let mut log = keys_in_log(home).await;
    for action in workers.iter().flat_map(|worker| &worker.done).filter(|action| takes_a_key(action)) {
        assert_eq!(log.remove(&action.key), Some(1), "answered, but not once in the log: {action:?}");
    }
    for action in
        workers.iter().filter_map(|worker| worker.open.as_ref()).filter(|action| takes_a_key(action))
    {
        let times = log.remove(&action.key).unwrap_or_default();
        assert!(times <= 1, "sent once, {times} times in the log: {action:?}");
    }
    assert_eq!(log, BTreeMap::new(), "in the log, but never sent");
}

on_both_engines! {
    async fn whatever_was_answered_survives_kill_nine_and_nothing_happens_twice(engine: Engine) {
        const CYCLES: u32 = 12;
        let seed = rand::random();
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        set_up(&home, &server).await;
        let mut workers: Vec<Worker> = (0..WORKERS).map(Worker::new).collect();
        let mut unanswered = 0;
        for _ in 0..CYCLES {
            let api = Api::new(&home, &server);
            let known: Vec<usize> = workers.iter().map(|worker| worker.done.len()).collect();
            let enough = random.random_range(60..180);
            workers = load(workers, &api, enough, async || server.kill().await).await;
            unanswered += workers.iter().filter(|worker| worker.open.is_some()).count();
            server = Server::start(&home, &[]).await;
            assert_log_holds_what_was_answered(&home, &workers).await;
            let api = Api::new(&home, &server);
            let check = |(worker, from): (Worker, usize)| tokio::spawn(worker.check(api.clone(), from));
            workers = finished(workers.into_iter().zip(known).map(check).collect()).await;
            assert_log_holds_what_was_answered(&home, &workers).await;
        }
        assert!(unanswered > 0, "no kill hit a call under way: this test has tested nothing");
        assert_gapless(&home).await;
        let done = |route: &str| {
            workers.iter().flat_map(|worker| &worker.done).filter(|action| action.route == route).count() as i64
        };
        for (event, route) in [
            ("Issued", "/client/claimcoupon"),
            ("Viewed", "/client/couponinfo"),
            ("Given", "/client/givecoupon"),
            ("Redeemed", "/client/auditcoupon"),
        ] {
            let sql = format!("SELECT count(*) FROM events WHERE event_type = '{event}'");
            let streams = format!("SELECT count(DISTINCT aggregate_id) FROM events WHERE event_type = '{event}'");
            assert!(done(route) > 0, "the load had no {event}");
            // A check opens coupons that their worker had not opened yet; his own opening finds them read.
            if event != "Viewed" {
                assert_eq!(count(&home, &sql).await, done(route), "{event}");
            }
            assert_eq!(count(&home, &sql).await, count(&home, &streams).await, "{event} twice on one coupon");
        }
        let issued = count(&home, "SELECT issued FROM stock_v1").await;
        assert_eq!(issued, done("/client/claimcoupon"), "the counter and the log differ");
        server.kill().await;
    }

    /// What is in the log was answered, and the other way round: nobody is left without the answer of what was done.
    async fn a_server_asked_to_stop_finishes_what_it_accepted_and_exits_with_0(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        set_up(&home, &server).await;
        let api = Api::new(&home, &server);
        let workers = (0..WORKERS).map(Worker::new).collect();
        let child = &mut server.child;
        let workers = load(workers, &api, 100, async || {
            let pid = child.id().unwrap().to_string();
            let sent = tokio::process::Command::new("kill").args(["-TERM", &pid]).status().await.unwrap();
            assert!(sent.success());
            let exit = tokio::time::timeout(PATIENCE, child.wait()).await.expect("it did not stop").unwrap();
            assert_eq!(exit.code(), Some(0));
        })
        .await;
        let answered = workers.iter().flat_map(|worker| &worker.done).filter(|action| takes_a_key(action));
        let answered: BTreeMap<String, usize> = answered.map(|action| (action.key.clone(), 1)).collect();
        assert_eq!(keys_in_log(&home).await, answered);
        assert!(!home.path().join("server.json").exists(), "it still says that it runs");

        // Started again, it goes on where it stopped.
        let server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        let check = |worker: Worker| tokio::spawn(worker.check(api.clone(), 0));
        let workers = finished(workers.into_iter().map(check).collect()).await;
        assert_log_holds_what_was_answered(&home, &workers).await;
        assert_gapless(&home).await;
        assert!(workers.iter().all(|worker| worker.done.len() > 1), "every connection had work");
        server.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_a_data_folder_in_use_says_who_has_it_and_exits_with_2() {
    let home = Home::new(Engine::Sqlite).await;
    let first = Server::start(&home, &[]).await;
    let second = program(&home).args(["serve", "--listen", "127.0.0.1:0"]).heard().await;
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8(second.stderr).unwrap();
    let holder = format!("is in use by the server at {} (process {})", first.url, first.child.id().unwrap());
    assert!(said.contains(&holder), "{said}");
    assert!(said.contains(home.path().to_str().unwrap()), "{said}");
    assert_eq!(String::from_utf8(second.stdout).unwrap(), "", "it said that it listens");
    // The first is none the worse for it, and still where others look for it.
    set_up(&home, &first).await;
    assert!(home.path().join("server.json").exists());
    first.kill().await;
}
