//! Server-sent events: whoever reads gets every event once and in order, wherever he goes on, and no longer than he may.

use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::http::Response;
use coupon_ledger::http::server::{ServerOptions, serve};
use coupon_ledger::http::{HttpOptions, StreamOptions};
use coupon_ledger::identity::Caller;
use futures::StreamExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

use crate::followers::lose;
use crate::harness::{Home, MEMBER, Server, World, cli_token};
use crate::outside::{Api, PATIENCE};
use crate::v1::lines;

/// One block of a stream.
#[derive(Clone, Debug, Default, PartialEq)]
struct Block {
    id: Option<i64>,
    data: Option<Value>,
    retry_ms: Option<u32>,
}

/// Somebody who reads a stream block by block.
struct Reading {
    body: BodyDataStream,
    text: String,
}

impl Reading {
    fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body().into_data_stream(), text: String::new() }
    }

    /// The next block that says something; None at the end.
    async fn next(&mut self) -> Option<Block> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let read = read_block(block);
                self.text = rest.into();
                // The first block is always the same.
                if read != Block::default() && read.retry_ms != Some(1_000) {
                    return Some(read);
                }
            }
            let next = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("nothing comes");
            self.text.push_str(std::str::from_utf8(&next?.unwrap()).unwrap());
        }
    }

    /// The next event's position.
    async fn position(&mut self) -> i64 {
        let block = self.next().await.expect("the stream has ended");
        assert_eq!(block.data.expect("no event")["position"], block.id.unwrap());
        block.id.unwrap()
    }
}

fn read_block(block: &str) -> Block {
    let mut read = Block::default();
    for line in block.lines() {
        match line.split_once(": ") {
            Some(("id", id)) => read.id = Some(id.parse().unwrap()),
            Some(("data", data)) => read.data = Some(serde_json::from_str(data).unwrap()),
            Some(("retry", ms)) => read.retry_ms = Some(ms.parse().unwrap()),
            None if line == ":" => {}
            _ => panic!("{line}"),
        }
    }
    read
}

async fn open(world: &World, path: &str, last_event_id: Option<&str>) -> Response<Body> {
    let bearer = format!("Bearer {}", world.token(Caller::Auditor));
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(last_event_id.map(|id| ("last-event-id", id)));
    world.respond("GET", path, &headers, Vec::new()).await
}

async fn read(world: &World, path: &str, last_event_id: Option<i64>) -> Reading {
    let id = last_event_id.map(|id| id.to_string());
    Reading::of(open(world, path, id.as_deref()).await)
}

fn set_streams(world: &mut World, streams: StreamOptions) {
    world.set_options(HttpOptions { streams, ..HttpOptions::default() });
}

const SOON: Duration = Duration::from_millis(50);

on_both_engines! {
    async fn resumed_a_thousand_times_it_leaves_nothing_out_and_doubles_nothing(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let writing = async {
            let members = json!({"coupon_id": definition, "member_ids": "439,442"});
            for _ in 0..500 {
                world.operator("/sendelecoupon/members", members.clone()).await.ok();
            }
        };
        let reading = async {
            let mut seen = 0;
            for round in 0..1_000_usize {
                // None, one or two events, then the connection is gone.
                let mut stream = read(&world, "/v1/stream", (round > 0).then_some(seen)).await;
                for _ in 0..round % 3 {
                    let next = stream.position().await;
                    assert_eq!(next, seen + 1, "in round {round}");
                    seen = next;
                }
            }
            seen
        };
        let ((), seen) = tokio::join!(writing, reading);
        assert_eq!(seen, 999);
        world.close().await;
    }

    async fn what_it_says_is_what_the_feed_says(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        let coupon = world.issue(definition, 439).await;
        world.call(MEMBER, "/client/couponinfo", json!({"id": coupon})).await.ok();
        let all = lines(&world.get(Caller::Auditor, "/v1/events").await);
        assert_eq!(all.len(), 4);
        for (query, expected) in [
            ("", vec![1, 2, 3, 4]),
            ("?after=2", vec![3, 4]),
            ("?type=Viewed,Opened", vec![1, 4]),
            ("?stream=coupon,definition/1&after=1", vec![2, 3, 4]),
            ("?stream=coupon/2,shop/1", vec![1]),
        ] {
            let mut stream = read(&world, &format!("/v1/stream{query}"), None).await;
            for position in expected {
                let event = stream.next().await.unwrap().data.unwrap();
                assert_eq!(event, all[position - 1], "{query}");
            }
        }
        // The header wins, as it must where a browser asks the same URL again; and what comes later is told when it comes.
        let mut stream = read(&world, "/v1/stream?after=1", Some(4)).await;
        let definition = world.define(json!({})).await;
        assert_eq!(stream.position().await, 5);
        world.issue(definition, 439).await;
        assert_eq!(stream.position().await, 6);
        world.close().await;
    }

    async fn it_ends_before_an_event_that_is_missing_and_is_asked_again_later(engine: Engine) {
        let world = World::with_people(engine).await;
        let definition = world.define(json!({})).await;
        for _ in 0..3 {
            world.issue(definition, 439).await;
        }
        for lost in [4, 5] {
            let mend = lose(&world.home, lost).await;
            let mut stream = read(&world, "/v1/stream?type=Issued", None).await;
            for position in 3..lost {
                assert_eq!(stream.position().await, position);
            }
            let later = Block { retry_ms: Some(60_000), ..Block::default() };
            assert_eq!((stream.next().await, stream.next().await), (Some(later), None));
            world.home.sql_all(&mend).await.unwrap();
            let mut stream = read(&world, "/v1/stream?type=Issued", Some(lost - 1)).await;
            assert_eq!(stream.position().await, lost);
        }
        world.close().await;
    }

    async fn a_position_that_the_log_has_not_come_to_or_that_is_none_is_refused(engine: Engine) {
        let world = World::with_people(engine).await;
        for (path, id, field) in [
            ("/v1/stream?after=2", None, "after"),
            ("/v1/stream?after=-1", None, "after"),
            ("/v1/stream?after=x", None, "after"),
            ("/v1/stream", Some("2"), "Last-Event-ID"),
            ("/v1/stream", Some(""), "Last-Event-ID"),
            ("/v1/stream", Some("-1"), "Last-Event-ID"),
            ("/v1/stream", Some("1.0"), "Last-Event-ID"),
            ("/v1/stream", Some("9007199254740992"), "Last-Event-ID"),
        ] {
            let bearer = format!("Bearer {}", world.token(Caller::Auditor));
            let mut headers = vec![("authorization", bearer.as_str())];
            headers.extend(id.map(|id| ("last-event-id", id)));
            let reply = world.raw("GET", path, &headers, Vec::new()).await;
            assert_eq!((reply.status.as_u16(), reply.code()), (400, 401), "{path} {id:?}: {}", reply.body);
            assert!(reply.body["info"].get(field).is_some(), "{path} {id:?}: {}", reply.body);
        }
        let mut at_the_end = read(&world, "/v1/stream", Some(1)).await;
        world.define(json!({})).await;
        assert_eq!(at_the_end.position().await, 2);
        world.close().await;
    }

    async fn who_may_read_no_longer_is_told_nothing_more(engine: Engine) {
        let mut world = World::with_people(engine).await;
        set_streams(&mut world, StreamOptions { recheck: SOON, ..StreamOptions::default() });
        let operator = format!("Bearer {}", world.token(Caller::Operator));
        let as_operator = async |method: &str, path: &str| {
            world.raw(method, path, &[("authorization", &operator)], Vec::new()).await
        };
        let key = as_operator("POST", "/v1/machine-keys?name=m&rights=events").await.body["key"].clone();
        let other = as_operator("POST", "/v1/machine-keys?name=m&rights=read").await.body["key"].clone();
        let bearer = |key: &Value| format!("Bearer {}", key.as_str().unwrap());
        let refused = world.raw("GET", "/v1/stream", &[("authorization", &bearer(&other))], Vec::new()).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (403, 1002));
        let token = world.token(Caller::Auditor);
        let mut readers = Vec::new();
        for shown in [bearer(&key), format!("Bearer {token}")] {
            let response = world.respond("GET", "/v1/stream", &[("authorization", &shown)], Vec::new()).await;
            let mut reading = Reading::of(response);
            assert_eq!([reading.position().await, reading.position().await], [1, 2]);
            readers.push(reading);
        }
        assert_eq!(as_operator("DELETE", "/v1/machine-keys/1").await.status, 200);
        world.operator("/token/revoke", json!({"revoke": token})).await.ok();
        world.app.refresh_revoked().await.unwrap();
        for reading in &mut readers {
            while let Some(block) = reading.next().await {
                assert!(block.id.unwrap() > 2);
            }
        }
        world.close().await;
    }

    async fn it_says_that_it_is_there_and_how_far_it_has_looked(engine: Engine) {
        let mut world = World::with_people(engine).await;
        world.define(json!({})).await;
        set_streams(&mut world, StreamOptions { heartbeat: SOON, ..StreamOptions::default() });
        let mut stream = read(&world, "/v1/stream?type=Viewed", None).await;
        assert_eq!(stream.next().await, Some(Block { id: Some(2), ..Block::default() }));
        // Nothing new to say, and yet it speaks.
        stream.text.clear();
        while !stream.text.contains(":\n\n") {
            let next = tokio::time::timeout(PATIENCE, stream.body.next()).await.expect("silence");
            stream.text.push_str(std::str::from_utf8(&next.unwrap().unwrap()).unwrap());
        }
        world.close().await;
    }

    async fn readers_are_so_many_at_most(engine: Engine) {
        let mut world = World::with_people(engine).await;
        set_streams(&mut world, StreamOptions { max: 2, ..StreamOptions::default() });
        let first = read(&world, "/v1/stream", None).await;
        let _second = read(&world, "/v1/stream", None).await;
        let bearer = format!("Bearer {}", world.token(Caller::Auditor));
        let third = world.raw("GET", "/v1/stream", &[("authorization", &bearer)], Vec::new()).await;
        assert_eq!((third.status.as_u16(), third.code()), (503, 9002));
        assert!(third.headers.contains_key("retry-after"));
        drop(first);
        read(&world, "/v1/stream", None).await;
        world.close().await;
    }

    async fn it_ends_with_the_server_and_another_one_goes_on(engine: Engine) {
        let home = Home::new(engine).await;
        let mut server = Server::start(&home, &[]).await;
        let api = Api::new(&home, &server);
        let shop = json!({"shop_name": "總店", "phone": "1", "address": "a"});
        api.operator("/shop/add", shop.clone()).await.ok();
        let auditor = cli_token(&home, &["--auditor"]).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let ask = async |url: &str, seen: i64| {
            let request = http.get(format!("{url}/v1/stream")).bearer_auth(&auditor).header("last-event-id", seen);
            request.send().await.unwrap()
        };
        let mut stream = ask(&server.url, 0).await;
        assert_eq!(stream.headers()["content-type"], "text/event-stream");
        let mut said = String::new();
        let mut wait_for = async |what: &str| {
            while !said.contains(what) {
                let next = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("nothing comes").unwrap();
                said.push_str(std::str::from_utf8(&next.expect("the end")).unwrap());
            }
        };
        wait_for("id: 1\ndata: ").await;
        api.operator("/shop/add", shop.clone()).await.ok();
        wait_for("id: 2\ndata: ").await;
        // SIGTERM.
        let pid = rustix::process::Pid::from_raw(server.child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::time::timeout(PATIENCE, async { while stream.chunk().await.unwrap().is_some() {} }).await;
        assert!(ended.is_ok(), "it does not end");
        assert!(server.child.wait().await.unwrap().success());
        let server = Server::start(&home, &[]).await;
        let mut stream = ask(&server.url, 2).await;
        let api = Api::new(&home, &server);
        api.operator("/shop/add", shop).await.ok();
        let mut said = String::new();
        while !said.contains("id: 3\ndata: ") {
            let next = tokio::time::timeout(PATIENCE, stream.chunk()).await.expect("nothing comes").unwrap();
            said.push_str(std::str::from_utf8(&next.expect("the end")).unwrap());
        }
        assert!(!said.contains("id: 2\n"));
        server.kill().await;
    }

    async fn who_reads_nothing_is_let_go_and_the_others_read_on(engine: Engine) {
        let mut world = World::with_people(engine).await;
        let definition = world.define(json!({"rules": "規".repeat(2_000)})).await;
        for round in 0..200 {
            let mut edit = crate::harness::definition(json!({"rules": format!("{round}{}", "則".repeat(2_000))}));
            edit["id"] = definition.into();
            world.operator("/elecoupons/edit", edit).await.ok();
        }
        set_streams(&mut world, StreamOptions { max: 2, ..StreamOptions::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let options = ServerOptions { write_timeout: Duration::from_millis(300), ..ServerOptions::default() };
        let serving = tokio::spawn(serve(listener, world.app.router(), options, async move {
            let _ = stopped.await;
        }));
        let head = format!(
            "GET /v1/stream HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n",
            world.token(Caller::Auditor)
        );
        // What does not go into its small buffer waits at the server.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4 << 10).unwrap();
        let mut stalled = socket.connect(address).await.unwrap();
        stalled.write_all(head.as_bytes()).await.unwrap();
        let mut reader = tokio::net::TcpStream::connect(address).await.unwrap();
        reader.write_all(head.as_bytes()).await.unwrap();
        let mut text = Vec::new();
        let last = format!("id: {}\n", world.store().head().await.unwrap());
        while !String::from_utf8_lossy(&text).contains(&last) {
            let read = tokio::time::timeout(PATIENCE, reader.read_buf(&mut text)).await.expect("nothing comes");
            assert_ne!(read.unwrap(), 0);
        }
        // The place of the one who read nothing is free again; the other's is not.
        crate::outside::until("there is room again", async || {
            let mut third = tokio::net::TcpStream::connect(address).await.unwrap();
            third.write_all(head.as_bytes()).await.unwrap();
            let mut start = [0; 15];
            third.read_exact(&mut start).await.unwrap();
            &start == b"HTTP/1.1 200 OK"
        })
        .await;
        world.app.end_streams();
        stop.send(()).unwrap();
        serving.await.unwrap();
        drop(stalled);
        world.close().await;
    }
}
