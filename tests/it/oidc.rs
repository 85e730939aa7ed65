//! Signing in through a provider of OpenID Connect, against one that the test plays.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::header;
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coupon_ledger::http::HttpOptions;
use coupon_ledger::oidc::OidcOptions;
use ed25519_dalek::{Signer as _, SigningKey};
use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::accounts::account;
use crate::harness::{Engine, HOUR, Reply, World};
use crate::leaks::everywhere;

const SECRET: &str = "the secret at the provider";
const SUBJECT: &str = "248289761001";

/// What the provider answers.
#[derive(Clone)]
struct Script {
    issuer: String,
    key: [u8; 32],
    /// Which key its document names; another than it signs with where it has changed meanwhile.
    shown_key: [u8; 32],
    algorithm: &'static str,
    claims: Value,
    /// The answer at the token endpoint, where it is not a token.
    instead: Option<(u16, &'static str, String)>,
    /// What was sent to the token endpoint.
    asked: Vec<(String, String)>,
    discovered: usize,
}

type Shared = Arc<Mutex<Script>>;

struct Provider {
    script: Shared,
    issuer: String,
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn jwt(script: &Script) -> String {
    let unsigned =
        format!("{}.{}", encode(&json!({"alg": script.algorithm, "kid": "k"})), encode(&script.claims));
    let signature = match script.algorithm {
        "none" => Vec::new(),
        "HS256" => {
            let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
            mac.update(unsigned.as_bytes());
            mac.finalize().into_bytes().to_vec()
        }
        _ => SigningKey::from_bytes(&script.key).sign(unsigned.as_bytes()).to_bytes().to_vec(),
    };
    format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode(signature))
}

impl Provider {
    async fn start() -> Self {
        everywhere(SECRET);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let script = Script {
            issuer: issuer.clone(),
            key: [1; 32],
            shown_key: [1; 32],
            algorithm: "EdDSA",
            claims: Value::Null,
            instead: None,
            asked: Vec::new(),
            discovered: 0,
        };
        let script = Arc::new(Mutex::new(script));
        let discovery = async |State(script): State<Shared>| {
            let mut script = script.lock().unwrap();
            script.discovered += 1;
            let issuer = &script.issuer;
            Json(json!({
                "issuer": issuer, "authorization_endpoint": format!("{issuer}/authorize"),
                "token_endpoint": format!("{issuer}/token"), "jwks_uri": format!("{issuer}/jwks"),
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
            }))
        };
        let jwks = async |State(script): State<Shared>| {
            let key = SigningKey::from_bytes(&script.lock().unwrap().shown_key);
            let x = URL_SAFE_NO_PAD.encode(key.verifying_key().to_bytes());
            Json(
                json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k", "x": x}]}),
            )
        };
        let token = async |State(script): State<Shared>, body: String| {
            let mut script = script.lock().unwrap();
            script.asked = form_urlencoded::parse(body.as_bytes()).into_owned().collect();
            if let Some((status, kind, body)) = script.instead.clone() {
                return (
                    axum::http::StatusCode::from_u16(status).unwrap(),
                    [(header::CONTENT_TYPE, kind)],
                    body,
                );
            }
            let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": jwt(&script)});
            script.shown_key = script.key;
            (axum::http::StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], answer.to_string())
        };
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token))
            .with_state(script.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { script, issuer }
    }

    fn set(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
    }

    fn asked(&self, name: &str) -> String {
        let script = self.script.lock().unwrap();
        script
            .asked
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.clone())
            .unwrap_or_default()
    }
}

/// A world that trusts this provider.
async fn trusting(engine: Engine, provider: &Provider) -> World {
    let mut world = World::with_people(engine).await;
    let oidc = OidcOptions::new(&provider.issuer, "coupons", SECRET).unwrap();
    world.set_options(HttpOptions { oidc: Some(oidc), ..HttpOptions::default() });
    world
}

/// What a browser holds that was sent to the provider.
struct Gone {
    cookie: String,
    state: String,
    nonce: String,
    challenge: String,
}

async fn go(world: &World) -> Gone {
    let sent = world.raw("GET", "/oidc/login", &[], Vec::new()).await;
    assert_eq!(sent.status, 302, "{}", sent.body);
    let (_, query) = sent.headers["location"].to_str().unwrap().split_once('?').unwrap();
    let parts: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let part =
        |name: &str| parts.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone()).unwrap();
    assert_eq!((part("response_type"), part("client_id")), ("code".to_owned(), "coupons".to_owned()));
    assert_eq!(part("redirect_uri"), "http://127.0.0.1:8787/oidc/callback");
    assert_eq!(part("code_challenge_method"), "S256");
    assert!(part("scope").split(' ').any(|scope| scope == "openid"));
    let set = sent.headers["set-cookie"].to_str().unwrap();
    assert!(
        set.starts_with("oidc=") && set.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax"),
        "{set}"
    );
    let cookie = set.split(';').next().unwrap().to_owned();
    Gone { cookie, state: part("state"), nonce: part("nonce"), challenge: part("code_challenge") }
}

/// The claims of an id token that holds.
fn claims(world: &World, provider: &Provider, gone: &Gone) -> Value {
    let now = world.clock.now_ms() / 1000;
    json!({"iss": provider.issuer, "aud": "coupons", "sub": SUBJECT, "nonce": gone.nonce, "iat": now, "exp": now + 300})
}

async fn come_back(world: &World, cookie: &str, state: &str) -> Reply {
    let path = format!("/oidc/callback?code=the-code&state={state}");
    world.raw("GET", &path, &[("cookie", cookie)], Vec::new()).await
}

/// The session in an answer's cookies, if there is one.
fn session(reply: &Reply) -> Option<String> {
    let mut set = reply.headers.get_all("set-cookie").into_iter().map(|set| set.to_str().unwrap());
    let session = set.find_map(|set| set.strip_prefix("session=cs1."))?;
    Some(format!("cs1.{}", session.split(';').next().unwrap()))
}

async fn link(world: &World, provider: &Provider, id: i64, subject: &str) -> Reply {
    world.operator("/account/subject", json!({"id": id, "issuer": provider.issuer, "subject": subject})).await
}

on_both_engines! {
    async fn whom_the_provider_names_is_let_in_if_an_operator_has_linked_him(engine: Engine) {
        let provider = Provider::start().await;
        let world = trusting(engine, &provider).await;
        let id = account(&world, json!({"name": "boss", "role": "operator"})).await;
        let other = account(&world, json!({"name": "eye", "role": "auditor"})).await;
        let round = async || {
            let gone = go(&world).await;
            let good = claims(&world, &provider, &gone);
            provider.set(|script| script.claims = good);
            (come_back(&world, &gone.cookie, &gone.state).await, gone)
        };
        let (stranger, _) = round().await;
        assert_eq!((stranger.code(), session(&stranger)), (1003, None), "nobody has linked him");
        link(&world, &provider, id, SUBJECT).await.ok();
        assert_eq!(link(&world, &provider, other, SUBJECT).await.body["info"]["subject"], "subject已存在");
        let (done, gone) = round().await;
        assert_eq!(done.status, 200, "{}", done.body);
        let mine = session(&done).unwrap();
        assert!(!done.body.as_str().unwrap().contains("cs1."), "the session is in no page");
        assert_eq!(provider.asked("code"), "the-code");
        assert_eq!(URL_SAFE_NO_PAD.encode(Sha256::digest(provider.asked("code_verifier"))), gone.challenge);
        let me = world.raw("GET", "/v1/session", &[("cookie", &format!("session={mine}"))], Vec::new()).await;
        assert_eq!(me.body["caller"], format!("operator:{id}"));
        let last = world.store().events_after(0, i64::MAX).await.unwrap().pop().unwrap();
        assert!(last.payload.starts_with(r#"{"SignedIn":{"by":"provider""#) && !last.payload.contains(SUBJECT));
        // The keys have changed since they were read: they are read again.
        provider.set(|script| (script.key, script.shown_key) = ([2; 32], [1; 32]));
        assert!(session(&round().await.0).is_some());
        // A token that is too old by our clock, and the keys that are a day old.
        world.advance(24 * HOUR);
        assert!(session(&round().await.0).is_some());
        world.operator("/account/state", json!({"id": id, "state": 0})).await.ok();
        assert_eq!(round().await.0.code(), 1003);
        world.operator("/account/state", json!({"id": id, "state": 1})).await.ok();
        let mine = session(&round().await.0).unwrap();
        link(&world, &provider, id, "").await.ok();
        assert_eq!(round().await.0.code(), 1003);
        let bearer = format!("Bearer {mine}");
        assert_eq!(world.request("/shop/list", &[("authorization", &bearer)], "{}").await.code(), 1001);
        crate::replay::assert_rows_equal_replay(&world).await;
        world.close().await;
    }

    async fn what_does_not_come_from_the_provider_for_this_very_sign_in_is_refused(engine: Engine) {
        let provider = Provider::start().await;
        let world = trusting(engine, &provider).await;
        let id = account(&world, json!({"name": "boss", "role": "operator"})).await;
        link(&world, &provider, id, SUBJECT).await.ok();
        let now = world.clock.now_ms() / 1000;
        for (name, value) in [
            ("iss", json!("https://elsewhere.example")), ("aud", json!("others")), ("aud", json!([])), ("nonce", json!("x")),
            ("nonce", Value::Null), ("exp", json!(now)), ("exp", Value::Null), ("sub", json!("another")), ("sub", Value::Null),
        ] {
            let gone = go(&world).await;
            let mut wrong = claims(&world, &provider, &gone);
            wrong[name] = value.clone();
            provider.set(|script| script.claims = wrong);
            let reply = come_back(&world, &gone.cookie, &gone.state).await;
            // A token that cannot be read at all is no answer of a provider.
            assert!([1003, 9002].contains(&reply.code()) && session(&reply).is_none(), "{name} {value}: {}", reply.body);
        }
        for algorithm in ["none", "HS256"] {
            let gone = go(&world).await;
            let good = claims(&world, &provider, &gone);
            provider.set(|script| (script.claims, script.algorithm) = (good, algorithm));
            let reply = come_back(&world, &gone.cookie, &gone.state).await;
            assert!([1003, 9002].contains(&reply.code()) && session(&reply).is_none(), "{algorithm}: {}", reply.body);
        }
        provider.set(|script| script.algorithm = "EdDSA");
        // Signed by another, whose key it does not show.
        let gone = go(&world).await;
        let good = claims(&world, &provider, &gone);
        provider.set(|script| {
            script.claims = good;
            let forged = jwt(&Script { key: [9; 32], ..script.clone() });
            let answer = json!({"access_token": "x", "token_type": "Bearer", "id_token": forged}).to_string();
            script.instead = Some((200, "application/json", answer));
        });
        assert_eq!(come_back(&world, &gone.cookie, &gone.state).await.code(), 1003);
        provider.set(|script| script.instead = None);
        // Another's state, another's cookie, none, one that was changed, one that is too old.
        let (mine, his) = (go(&world).await, go(&world).await);
        let good = claims(&world, &provider, &mine);
        provider.set(|script| script.claims = good);
        let flipped = format!("{}A", &mine.cookie[..mine.cookie.len() - 1]);
        let flipped = if flipped == mine.cookie { format!("{}B", &mine.cookie[..mine.cookie.len() - 1]) } else { flipped };
        for (cookie, state) in [
            (&mine.cookie[..], &his.state[..]), (&his.cookie, &mine.state), ("", &mine.state), (&flipped, &mine.state),
            ("oidc=", &mine.state), ("oidc=e30.AAAA", &mine.state), (&mine.cookie, ""), (&mine.cookie, "%ff"),
        ] {
            let reply = come_back(&world, cookie, state).await;
            assert_eq!((reply.code(), session(&reply)), (1003, None), "{cookie} {state}");
        }
        for query in ["", "?", "?error=access_denied", "?code=x", "?code=%00&state=x"] {
            let path = format!("/oidc/callback{query}");
            assert_eq!(world.raw("GET", &path, &[("cookie", &mine.cookie)], Vec::new()).await.code(), 1003, "{query}");
        }
        world.advance(10 * 60_000);
        assert_eq!(come_back(&world, &mine.cookie, &mine.state).await.code(), 1003, "too late");
        world.close().await;
    }

    async fn a_provider_that_does_not_answer_as_one_lets_nobody_in(engine: Engine) {
        let provider = Provider::start().await;
        let mut world = trusting(engine, &provider).await;
        for (status, kind, body, code) in [
            (400, "application/json", r#"{"error":"invalid_grant"}"#.to_owned(), 1003),
            (500, "text/html", "<h1>".to_owned(), 9002),
            (200, "application/json", "{".to_owned(), 9002),
            (200, "application/json", r#"{"access_token":"x","token_type":"Bearer"}"#.to_owned(), 1003),
            (302, "application/json", String::new(), 9002),
            (200, "application/json", format!(r#"{{"access_token":"{}"}}"#, "x".repeat(300 << 10)), 9002),
        ] {
            let gone = go(&world).await;
            provider.set(|script| script.instead = Some((status, kind, body)));
            let reply = come_back(&world, &gone.cookie, &gone.state).await;
            assert_eq!((reply.code(), session(&reply)), (code, None), "{status} {kind}: {}", reply.body);
        }
        // Another says that it is this one.
        let liar = Provider::start().await;
        liar.set(|script| script.issuer.clone_from(&provider.issuer));
        for issuer in [liar.issuer.as_str(), "http://127.0.0.1:1"] {
            let oidc = OidcOptions::new(issuer, "coupons", SECRET).unwrap();
            world.set_options(HttpOptions { oidc: Some(oidc), ..HttpOptions::default() });
            let reply = world.raw("GET", "/oidc/login", &[], Vec::new()).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (9002, 503), "{issuer}");
            assert!(!reply.body.to_string().contains(SECRET));
        }
        world.set_options(HttpOptions::default());
        for path in ["/oidc/login", "/oidc/callback?code=x&state=x"] {
            assert_eq!(world.raw("GET", path, &[], Vec::new()).await.status, 404, "{path}: none is configured");
        }
        world.close().await;
    }
}

#[test]
fn a_provider_is_reached_by_https_and_its_secret_is_shown_to_nobody() {
    for good in
        ["https://login.example", "https://login.example/realm/x", "http://localhost:1", "http://127.0.0.1:8"]
    {
        let options = OidcOptions::new(good, "coupons", SECRET).unwrap();
        assert!(!format!("{options:?}").contains(SECRET));
    }
    for bad in ["", "login.example", "http://login.example", "ftp://localhost", "http://127.0.0.1.example"] {
        assert!(OidcOptions::new(bad, "coupons", SECRET).is_err(), "{bad}");
    }
    assert!(OidcOptions::new("https://login.example", " ", SECRET).is_err());
    assert!(OidcOptions::new("https://login.example", "coupons", "").is_err());
}
