//! The socket side: slow clients are let go, limits hold, and a shutdown finishes what was accepted.

use std::time::Duration;

use coupon_ledger::http::server::{ServerOptions, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::harness::{Engine, MEMBER, World};

struct Served {
    world: World,
    address: std::net::SocketAddr,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

async fn serving(options: ServerOptions) -> Served {
    let world = World::with_people(Engine::Sqlite).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let router = world.app.router();
    let ended = tokio::spawn(serve(listener, router, options, async move {
        let _ = stopped.await;
    }));
    Served { world, address, stop, ended }
}

fn short() -> ServerOptions {
    ServerOptions { header_timeout: Duration::from_millis(200), ..ServerOptions::default() }
}

/// Reads until the server closes the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut text))
        .await
        .expect("the server holds the connection")
        .unwrap_or_default();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_client_that_never_finishes_its_headers_is_let_go() {
    let served = serving(short()).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"POST /client/couponlist HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    let answered = rest(&mut slow).await;
    assert!(!answered.contains("200 OK"), "{answered}");
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let served = serving(short()).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    rest(&mut silent).await;
}

#[tokio::test]
async fn an_idle_connection_is_let_go_after_its_answer() {
    let served = serving(short()).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.ends_with("ok\n"));
}

#[tokio::test]
async fn huge_headers_are_refused() {
    let served = serving(ServerOptions::default()).await;
    let mut client = TcpStream::connect(served.address).await.unwrap();
    let head = format!("GET /healthz HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "a".repeat(1 << 20));
    // The server may close before all of it is sent.
    let _ = client.write_all(head.as_bytes()).await;
    let answered = rest(&mut client).await;
    assert!(!answered.contains("200 OK"), "{answered}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_a_place() {
    let served = serving(ServerOptions { max_connections: 1, ..short() }).await;
    let mut first = TcpStream::connect(served.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut second = TcpStream::connect(served.address).await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(rest(&mut first).await.ends_with("ok\n"));
    assert!(rest(&mut second).await.ends_with("ok\n"));
}

#[tokio::test]
async fn a_shutdown_finishes_what_was_accepted() {
    let Served { world, address, stop, ended } = serving(ServerOptions::default()).await;
    let definition = world.define(json!({"is_claim": 1})).await;
    let body = format!("id={definition}");
    let head = format!(
        "POST /client/claimcoupon HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        world.token(MEMBER),
        body.len()
    );
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(head.as_bytes()).await.unwrap();
    // Asked for the body, the server has accepted the request; then it is told to stop.
    let mut asked = [0; 25];
    client.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stop.send(()).unwrap();
    client.write_all(body.as_bytes()).await.unwrap();
    let answered = rest(&mut client).await;
    assert!(answered.contains(r#"{"code":0,"info":"成功","data":{"id":1}}"#), "{answered}");
    ended.await.unwrap();
    assert_eq!(world.call(MEMBER, "/client/couponlist", json!({"state": 0})).await.ok()[0]["id"], 1);
    assert!(TcpStream::connect(address).await.is_err(), "the server still listens");
}
