//! What stands before every route: limits by caller and by address, what answers tell browsers, and other sites' scripts.

use std::net::IpAddr;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use coupon_ledger::http::gate::GateOptions;
use coupon_ledger::http::gate::address::Proxies;
use coupon_ledger::http::gate::hygiene::Origin;
use coupon_ledger::http::gate::limits::LimitTable;
use coupon_ledger::http::server::Peer;
use coupon_ledger::http::{App, HttpOptions};
use coupon_ledger::identity::Caller;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::harness::{EMPLOYEE, Engine, FRIEND, MEMBER, Reply, World};

fn limits(settings: &str) -> Option<LimitTable> {
    LimitTable::parse(&settings.split(',').map(ToOwned::to_owned).collect::<Vec<_>>()).unwrap()
}

fn proxies(ranges: &[&str]) -> Proxies {
    Proxies::parse(&ranges.iter().map(ToString::to_string).collect::<Vec<_>>(), None).unwrap()
}

fn router(world: &World, gate: GateOptions) -> Router {
    App::new(world.ledger.clone(), HttpOptions { gate, ..HttpOptions::default() }).router()
}

/// A request from an address.
async fn ask(router: &Router, peer: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let peer = Peer(peer.parse::<IpAddr>().unwrap());
    let request = request.extension(peer).body(Body::empty()).unwrap();
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    let body = serde_json::from_slice(&bytes).unwrap_or_else(|_| text());
    Reply { status: parts.status, headers: parts.headers, body }
}

async fn as_caller(router: &Router, world: &World, caller: Caller, peer: &str, path: &str) -> Reply {
    let bearer = format!("Bearer {}", world.token(caller));
    let method = if path.starts_with("/v1/") { "GET" } else { "POST" };
    ask(router, peer, method, path, &[("authorization", &bearer)]).await
}

fn retry_after(reply: &Reply) -> u32 {
    reply.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn who_asks_too_often_is_told_when_to_ask_again_and_others_are_answered() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("member-read=3/h"), ..GateOptions::default() };
    let router = router(&world, gate);
    let list = async |caller, peer| as_caller(&router, &world, caller, peer, "/client/couponcount").await;
    for _ in 0..3 {
        list(MEMBER, "192.0.2.1").await.ok();
    }
    // From elsewhere he is the same.
    for peer in ["192.0.2.1", "198.51.100.9", "127.0.0.1"] {
        let refused = list(MEMBER, peer).await;
        assert_eq!((refused.status.as_u16(), refused.code()), (429, 9001), "{peer}");
        assert_eq!(refused.body, json!({"code": 9001, "info": "請求過於頻繁", "data": null}));
        assert!((1..=1_200).contains(&retry_after(&refused)), "{:?}", refused.headers);
        assert!(refused.headers.contains_key("x-request-id"));
    }
    list(FRIEND, "192.0.2.1").await.ok();
    // What he does is counted apart from what he reads.
    let written = as_caller(&router, &world, MEMBER, "192.0.2.1", "/client/claimcoupon").await;
    assert_eq!(written.code(), 401, "{}", written.body);
    assert!(world.ledger.metrics().text().contains("coupon_ledger_limited_total{class=\"member-read\"} 3"));
    world.close().await;
}

#[tokio::test]
async fn an_address_may_ask_ten_times_as_often_and_nobody_gets_around_it_by_what_he_says() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("sign-in=1/h"), ..GateOptions::default() };
    let router = router(&world, gate);
    let sign_in = async |peer: &str, says: &str| {
        ask(
            &router,
            peer,
            "POST",
            "/user/login",
            &[("x-forwarded-for", says), ("forwarded", &format!("for={says}"))],
        )
        .await
    };
    for n in 0..10 {
        let reply = sign_in("2001:db8::1", &format!("192.0.2.{n}")).await;
        assert_ne!(reply.status, 429);
    }
    // The rest of the /64 is the same household.
    for (n, peer) in ["2001:db8::1", "2001:db8::ffff", "2001:db8:0:0:1:2:3:4"].into_iter().enumerate() {
        assert_eq!(sign_in(peer, &format!("198.51.100.{n}")).await.status, 429, "{peer}");
    }
    assert_ne!(sign_in("2001:db8:0:1::1", "192.0.2.1").await.status, 429);
    world.close().await;
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_is_counted_by_itself() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions {
        limits: limits("open=1/h"),
        proxies: proxies(&["10.0.0.0/8", "fd00::/8"]),
        ..GateOptions::default()
    };
    let router = router(&world, gate);
    let says = async |header: &str| {
        ask(&router, "10.0.0.1", "GET", "/healthz", &[("x-forwarded-for", header)]).await.status.as_u16()
    };
    for _ in 0..10 {
        assert_eq!(says("192.0.2.1").await, 200);
    }
    let long = "9".repeat(8 << 10);
    let hops = vec!["203.0.113.5"; 100].join(", ");
    for forged in ["203.0.113.5", "[2001:db8::9]:80", "10.0.0.9", "unknown", "", &long, &hops] {
        assert_eq!(says(&format!("{forged}, 192.0.2.1")).await, 429, "{forged}");
        assert_eq!(says(&format!("{forged}, 192.0.2.1:4711, 10.9.9.9")).await, 429, "{forged}");
    }
    assert_eq!(says("192.0.2.2").await, 200);
    world.close().await;
}

#[tokio::test]
async fn under_v1_a_refusal_is_a_problem() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("audit=1/h"), ..GateOptions::default() };
    let router = router(&world, gate);
    let ask = async || as_caller(&router, &world, Caller::Auditor, "192.0.2.1", "/v1/events").await;
    assert_eq!(ask().await.status, 200);
    let refused = ask().await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["content-type"], "application/problem+json");
    let expected = json!({
        "type": "about:blank", "title": "請求過於頻繁", "status": 429, "code": 9001, "info": "請求過於頻繁", "data": null,
    });
    assert_eq!(refused.body, expected);
    assert!(retry_after(&refused) > 0);
    let nobody = as_caller(&router, &world, MEMBER, "192.0.2.1", "/v1/events").await;
    assert_eq!(
        (nobody.status.as_u16(), nobody.headers["content-type"].to_str().unwrap()),
        (403, "application/problem+json")
    );
    world.close().await;
}

#[tokio::test]
async fn limits_hold_under_the_base_path_as_well_and_with_a_token_that_is_none() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("gift=1/h"), ..GateOptions::default() };
    let options = HttpOptions { gate, base_path: "/alias/api/v1".to_owned(), ..HttpOptions::default() };
    let router = App::new(world.ledger.clone(), options).router();
    let code = async |path: &str| as_caller(&router, &world, MEMBER, "192.0.2.1", path).await.code();
    assert_eq!(code("/alias/api/v1/client/giftinfo").await, 401);
    assert_eq!(code("/client/giftinfo").await, 9001);
    assert_eq!(code("/alias/api/v1/client/getcoupon").await, 9001);
    let garbage = async || {
        ask(&router, "192.0.2.9", "POST", "/client/giftinfo", &[("authorization", "Bearer garbage")])
            .await
            .code()
    };
    for _ in 0..10 {
        assert_eq!(garbage().await, 1001);
    }
    assert_eq!(garbage().await, 9001);
    world.close().await;
}

/// What the headers of these names say, in one line each.
fn said(reply: &Reply, names: &[&str]) -> Vec<String> {
    let text = |name: &&str| reply.headers.get(*name).map(|value| value.to_str().unwrap().to_owned());
    names.iter().map(|name| text(name).unwrap_or_default()).collect()
}

const BROWSER: [&str; 6] = [
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "x-frame-options",
    "cache-control",
    "content-security-policy",
];

#[tokio::test]
async fn every_answer_tells_browsers_what_not_to_do() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("sign-in=1/h"), ..GateOptions::default() };
    let router = router(&world, gate);
    let nothing = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let usual = ["nosniff", "no-referrer", "same-origin", "DENY", "no-store", nothing];
    let mut refused = ask(&router, "192.0.2.1", "POST", "/setup", &[]).await;
    for _ in 0..10 {
        refused = ask(&router, "192.0.2.1", "POST", "/setup", &[]).await;
    }
    assert_eq!(refused.status, 429);
    assert_eq!(said(&refused, &BROWSER), usual);
    for (method, path) in [
        ("GET", "/healthz"),
        ("GET", "/readyz"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("GET", "/nothing"),
        ("GET", "/client/couponlist"),
        ("POST", "/client/couponlist"),
        ("GET", "/v1/events"),
        ("OPTIONS", "/client/couponlist"),
        ("PUT", "/v1/events"),
    ] {
        let reply = ask(&router, "192.0.2.1", method, path, &[]).await;
        assert_eq!(said(&reply, &BROWSER), usual, "{method} {path}");
        assert!(!reply.headers.contains_key("strict-transport-security"), "{path}");
        assert!(!reply.headers.contains_key("access-control-allow-origin"), "{path}");
    }
    let list = as_caller(&router, &world, MEMBER, "192.0.2.1", "/client/couponcount").await;
    assert_eq!(said(&list, &BROWSER), usual);
    world.close().await;
}

#[tokio::test]
async fn pages_run_no_script_but_the_documentation_its_own() {
    let world = World::with_people(Engine::Sqlite).await;
    let router = router(&world, GateOptions::default());
    let page = ask(&router, "192.0.2.1", "GET", "/qr/1/1/x", &[]).await;
    let policy = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    assert_eq!((page.status.as_u16(), said(&page, &["content-security-policy"])[0].as_str()), (404, policy));
    let text = page.body.as_str().unwrap();
    assert!(!text.contains("<script") && !text.contains("style"), "{text}");

    let docs = ask(&router, "192.0.2.1", "GET", "/docs/", &[]).await;
    let text = docs.body.as_str().unwrap();
    assert_eq!(docs.status, 200);
    let policy = &said(&docs, &["content-security-policy"])[0];
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self'; ") && !policy.contains("unsafe-eval"),
        "{policy}"
    );
    // No script stands in the page: each has a file, which the policy lets through.
    for script in text.split("<script").skip(1) {
        let (tag, rest) = script.split_once('>').unwrap();
        assert!(tag.contains("src=\"./") && rest.trim_start().starts_with("</script>"), "{script}");
    }
    for on in [" onload=", " onclick=", "javascript:"] {
        assert!(!text.contains(on), "{on}");
    }
    world.close().await;
}

#[tokio::test]
async fn where_the_public_url_is_https_browsers_are_to_stay_there() {
    let world = World::with_people(Engine::Sqlite).await;
    let options = HttpOptions { public_url: "https://coupons.example".to_owned(), ..HttpOptions::default() };
    let router = App::new(world.ledger.clone(), options).router();
    for path in ["/healthz", "/nothing", "/docs/"] {
        let reply = ask(&router, "192.0.2.1", "GET", path, &[]).await;
        assert_eq!(reply.headers["strict-transport-security"], "max-age=31536000", "{path}");
    }
    world.close().await;
}

#[tokio::test]
async fn only_the_sites_that_are_named_may_call() {
    let world = World::with_people(Engine::Sqlite).await;
    let cors_origins = vec![Origin::parse("https://app.example").unwrap()];
    let router = router(&world, GateOptions { cors_origins, ..GateOptions::default() });
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        ask(&router, "192.0.2.1", "OPTIONS", "/client/couponlist", &headers).await
    };
    let allowed = preflight("https://app.example").await;
    assert_eq!(allowed.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(allowed.headers["access-control-allow-methods"], "GET,POST");
    assert!(said(&allowed, &["access-control-allow-headers"])[0].contains("authorization"));
    assert!(!allowed.headers.contains_key("access-control-allow-credentials"));
    assert!(said(&allowed, &["vary"])[0].contains("origin"), "{:?}", allowed.headers);
    for other in [
        "https://app.example.evil.example",
        "http://app.example",
        "https://app.example:8443",
        "null",
        "*",
        "",
    ] {
        let refused = preflight(other).await;
        assert!(!refused.headers.contains_key("access-control-allow-origin"), "{other}");
        let asked = ask(&router, "192.0.2.1", "POST", "/client/couponlist", &[("origin", other)]).await;
        assert!(!asked.headers.contains_key("access-control-allow-origin"), "{other}");
        assert!(said(&asked, &["vary"])[0].contains("origin"), "{other}");
    }
    let asked =
        ask(&router, "192.0.2.1", "POST", "/client/couponlist", &[("origin", "https://app.example")]).await;
    assert_eq!(asked.headers["access-control-allow-origin"], "https://app.example");
    assert_eq!(asked.code(), 1001);
    world.close().await;
}

#[tokio::test]
async fn employees_are_counted_apart_from_members_of_the_same_number() {
    let world = World::with_people(Engine::Sqlite).await;
    let gate = GateOptions { limits: limits("office=2/h"), ..GateOptions::default() };
    let router = router(&world, gate);
    let list = async |caller| as_caller(&router, &world, caller, "192.0.2.1", "/shop/list").await.code();
    assert_eq!([list(EMPLOYEE).await, list(EMPLOYEE).await, list(EMPLOYEE).await], [0, 0, 9001]);
    assert_eq!(list(Caller::Member(1000)).await, 1002);
    assert_eq!(list(Caller::Operator).await, 0);
    world.close().await;
}
