//! The socket side: slow clients are let go, limits hold, what can be read in two ways is not read on, and a shutdown
//! finishes what was accepted.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use coupon_ledger::http::gate::address::Proxies;

use coupon_ledger::http::server::{ServerOptions, open_files, serve};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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
    let router = world.app.router();
    serving_this(world, router, options).await
}

async fn serving_this(world: World, router: Router, options: ServerOptions) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
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

/// A connection from this address of this machine.
async fn connect_from(from: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";

/// Asks whether the server runs, and keeps the connection.
async fn is_answered(stream: &mut TcpStream) -> bool {
    let mut answer = Vec::new();
    if stream.write_all(HEALTH).await.is_err() {
        return false;
    }
    let reading = async {
        while !answer.ends_with(b"\r\n\r\nok\n") {
            if stream.read_buf(&mut answer).await.unwrap_or(0) == 0 {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(Duration::from_secs(20), reading).await.expect("no answer")
}

#[tokio::test]
async fn one_address_gets_no_more_than_its_share_and_others_are_let_in() {
    let options = ServerOptions { max_connections_per_address: 2, ..ServerOptions::default() };
    let served = serving(options).await;
    let (greedy, other) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3));
    let mut first = connect_from(greedy, served.address).await;
    let mut second = connect_from(greedy, served.address).await;
    assert!(is_answered(&mut first).await && is_answered(&mut second).await);
    let mut third = connect_from(greedy, served.address).await;
    assert_eq!(rest(&mut third).await, "");
    assert!(is_answered(&mut connect_from(other, served.address).await).await);
    assert!(is_answered(&mut first).await, "it has lost what it had");
    // Who has gone may come again.
    drop((first, second));
    while !is_answered(&mut connect_from(greedy, served.address).await).await {}
}

#[tokio::test]
async fn a_trusted_proxy_may_have_as_many_connections_as_there_are() {
    let proxies = Proxies::parse(&["127.0.0.2".to_owned()], None).unwrap();
    let options = ServerOptions { max_connections_per_address: 1, proxies, ..ServerOptions::default() };
    let served = serving(options).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = connect_from(Ipv4Addr::new(127, 0, 0, 2), served.address).await;
        assert!(is_answered(&mut stream).await);
        held.push(stream);
    }
}

#[tokio::test]
async fn where_all_places_are_taken_those_who_ask_nothing_give_way() {
    // Nobody is let go for being slow here: only for standing in the way.
    let hour = Duration::from_secs(3_600);
    let options = ServerOptions { max_connections: 4, header_timeout: hour, ..ServerOptions::default() };
    let served = serving(options).await;
    let mut silent = TcpStream::connect(served.address).await.unwrap();
    let mut dribbling = TcpStream::connect(served.address).await.unwrap();
    dribbling.write_all(b"GET /healthz HTTP/1.1\r\nhost:").await.unwrap();
    let head = format!(
        "POST /client/couponcount HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ncontent-length: 60000\r\n\r\n{{",
        served.world.token(MEMBER)
    );
    let mut without_end = TcpStream::connect(served.address).await.unwrap();
    without_end.write_all(head.as_bytes()).await.unwrap();
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    assert!(is_answered(&mut idle).await);
    let mut newcomers = Vec::new();
    for _ in 0..4 {
        let mut newcomer = TcpStream::connect(served.address).await.unwrap();
        assert!(is_answered(&mut newcomer).await);
        newcomers.push(newcomer);
    }
    for gone in [&mut silent, &mut dribbling, &mut without_end, &mut idle] {
        assert_eq!(rest(gone).await, "");
    }
}

#[tokio::test]
async fn a_request_that_is_being_answered_does_not_give_way() {
    let (finish, finished) = tokio::sync::watch::channel(false);
    let slow = get(move || {
        let mut finished = finished.clone();
        async move {
            let _ = finished.wait_for(|done| *done).await;
            "done"
        }
    });
    let router = Router::new().route("/slow", slow).route("/healthz", get(|| async { "ok\n" }));
    let options = ServerOptions { max_connections: 1, ..short() };
    let served = serving_this(World::with_people(Engine::Sqlite).await, router, options).await;
    let mut working = TcpStream::connect(served.address).await.unwrap();
    working.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut waiting = TcpStream::connect(served.address).await.unwrap();
    waiting.write_all(HEALTH).await.unwrap();
    // Longer than anybody may be idle before he gives way.
    let early = tokio::time::timeout(Duration::from_millis(1_500), waiting.read_u8()).await;
    assert!(early.is_err(), "a place was found where there is none");
    finish.send(true).unwrap();
    assert!(rest(&mut working).await.ends_with("done"));
    assert!(rest(&mut waiting).await.ends_with("ok\n"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_let_go() {
    let options = ServerOptions { write_timeout: Duration::from_millis(300), ..ServerOptions::default() };
    let world = World::with_people(Engine::Sqlite).await;
    let large = Router::new().route("/large", get(|| async { vec![b'x'; 64 << 20] }));
    let served = serving_this(world, large, options).await;
    let mut stalled = TcpStream::connect(served.address).await.unwrap();
    stalled.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    // It is let go while it does nothing: a write then fails, which it can find out without reading.
    let gone = async {
        while stalled.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the server holds the connection");
    // Whoever reads, however much there is, gets all of it.
    let mut reader = TcpStream::connect(served.address).await.unwrap();
    reader.write_all(b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(&mut reader).await.len() > 64 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn honest_requests_are_answered_while_hundreds_dribble() {
    assert!(open_files() > 2_000, "this process may not open enough files");
    let served = serving(ServerOptions { max_connections: 600, ..ServerOptions::default() }).await;
    let (address, token) = (served.address, served.world.token(MEMBER));
    let head = format!(
        "POST /client/couponcount HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
         content-type: application/json\r\n"
    );
    let mut dribblers = tokio::task::JoinSet::new();
    let (connected, mut count) = tokio::sync::mpsc::channel(500);
    for n in 0..500_u16 {
        // A third each: a head that never ends, a body that never ends, nothing at all.
        let begun = match n % 3 {
            0 => format!("{head}x: "),
            1 => format!("{head}content-length: 60000\r\n\r\n"),
            _ => String::new(),
        };
        let connected = connected.clone();
        dribblers.spawn(async move {
            let from = Ipv4Addr::new(127, 0, 1, (n % 250) as u8 + 1);
            loop {
                let mut stream = connect_from(from, address).await;
                let mut alive = stream.write_all(begun.as_bytes()).await.is_ok();
                let _ = connected.try_send(());
                while alive {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    alive = begun.is_empty() || stream.write_all(b"x").await.is_ok();
                }
            }
        });
    }
    for _ in 0..500 {
        count.recv().await.unwrap();
    }
    let mut kept = TcpStream::connect(address).await.unwrap();
    let honest = format!("{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}");
    for _ in 0..20 {
        assert!(is_answered(&mut kept).await);
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(honest.as_bytes()).await.unwrap();
        let answered = rest(&mut client).await;
        assert!(answered.contains("{\"code\":0,"), "{answered}");
    }
    assert_eq!(dribblers.len(), 500);
    dribblers.shutdown().await;
}

/// What the server says to these bytes before it closes the connection; what it leaves open is closed by us.
async fn said_to(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    rest(&mut stream).await
}

/// The statuses in it.
fn statuses(said: &str) -> Vec<&str> {
    said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect()
}

/// What could hide a second request in a first: whoever stands before the server may see other bounds than it does.
#[tokio::test]
async fn a_request_with_two_ends_is_refused_or_the_last_of_its_connection() {
    let served = serving(ServerOptions::default()).await;
    let second = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = |headers: &str, body: &str| {
        format!("POST /client/couponlist HTTP/1.1\r\nhost: a\r\n{headers}\r\n{body}")
    };
    for (about, bytes, expected) in [
        ("both ends", post("content-length: 5\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"), "401"),
        (
            "both ends, turned",
            post("transfer-encoding: chunked\r\ncontent-length: 5\r\n", "0\r\n\r\n"),
            "401",
        ),
        ("chunks alone", post("transfer-encoding: chunked\r\n", "0\r\n\r\n"), "401"),
        ("two lengths", post("content-length: 5\r\ncontent-length: 6\r\n", "hello"), "400"),
        ("a list of lengths", post("content-length: 5, 6\r\n", "hello"), "400"),
        ("a length with a sign", post("content-length: +5\r\n", "hello"), "400"),
        ("a length that is none", post("content-length: 5x\r\n", "hello"), "400"),
        ("another coding", post("transfer-encoding: gzip\r\n", "hello"), "400"),
        ("chunks that are not last", post("transfer-encoding: chunked, identity\r\n", "0\r\n\r\n"), "400"),
        ("a name with a blank", post("content-length : 5\r\n", "hello"), "400"),
        ("a folded line", post("x: a\r\n b\r\n", ""), "400"),
        ("a bare carriage return", post("x: a\rcontent-length: 5\r\n", ""), "400"),
        ("a NUL", post("x: a\0b\r\n", ""), "400"),
        ("two hosts", post("host: b\r\n", ""), "400"),
        ("no host", "GET /healthz HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("another version", "GET /healthz HTTP/1.2\r\nhost: a\r\n\r\n".to_owned(), "400"),
        ("a method with a blank", "GE T /healthz HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(), "400"),
    ] {
        let said = said_to(served.address, format!("{bytes}{second}").as_bytes()).await;
        assert_eq!(statuses(&said), [expected], "{about}: {said}");
        assert!(!said.contains("ok\n"), "{about}: {said}");
    }
    // What is whole leaves the second request alone.
    let said =
        said_to(served.address, format!("{}{second}", post("content-length: 5\r\n", "hello")).as_bytes())
            .await;
    assert_eq!(statuses(&said), ["401", "200"], "{said}");
}

#[tokio::test]
async fn chunks_that_are_none_end_the_connection() {
    let served = serving(ServerOptions::default()).await;
    let token = served.world.token(MEMBER);
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "5;\nx\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX0\r\n\r\n",
    ] {
        let bytes = format!(
            "POST /client/couponlist HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{chunks}GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"
        );
        let said = said_to(served.address, bytes.as_bytes()).await;
        assert!(
            statuses(&said).len() <= 1 && !said.contains("ok\n") && !said.contains(" 200 "),
            "{chunks:?}: {said}"
        );
    }
}

#[tokio::test]
async fn more_headers_than_anybody_needs_are_refused() {
    let served = serving(ServerOptions::default()).await;
    let many = "x: 1\r\n".repeat(64);
    let said =
        said_to(served.address, format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{many}\r\n").as_bytes()).await;
    assert_eq!(statuses(&said), ["431"], "{said}");
}

/// What is not spoken cannot be flooded with streams, resets, pings or settings.
#[tokio::test]
async fn http_2_is_not_spoken() {
    let served = serving(ServerOptions::default()).await;
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(&preface).await.unwrap();
    let said = rest(&mut stream).await;
    assert!(!said.contains(" 200 "), "{said}");
    let upgrade = "GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n\
                   http2-settings: AAMAAABkAAQAAP__\r\n\r\n";
    assert_eq!(statuses(&said_to(served.address, upgrade.as_bytes()).await), ["200"]);
}
