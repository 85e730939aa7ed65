//! Signing in through WeChat, against a server on this machine that answers as WeChat does: JSON that says it is plain text.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::HeaderMap;
use coupon_ledger::audit::words::Told as _;
use coupon_ledger::clock::Zone;
use coupon_ledger::http::wechat::OPEN;
use coupon_ledger::http::{HttpOptions, openapi};
use coupon_ledger::identity::{Caller, Token};
use coupon_ledger::ledger::Meta;
use coupon_ledger::member::{Member, MemberCommand, MemberEvent};
use coupon_ledger::wechat::{SignedIn, Unknown, Wechat, WechatApp, WechatOptions, sign_in};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::docs::read;
use crate::harness::{Engine, FRIEND, HOUR, Home, MEMBER, Reply, Server, World, program};
use crate::leaks::{Heard as _, everywhere};
use crate::outside::until;

const SECRET: &str = "5ecre7ofthemini5ecre7ofthemini00";
const H5_SECRET: &str = "5ecre7oftheh5page5ecre7oftheh500";
const SESSION_KEY: &str = "tiihtNczf5v6AKRyjwEUhQ==";

/// Signs a member in as WeChat would have it, without asking anybody.
pub async fn bind(world: &World, member_id: i64, openid: &str) -> SignedIn {
    let key = ("wx0123456789abcdef", openid);
    sign_in(&world.ledger, key, Unknown::BoundTo(member_id), "test").await.unwrap()
}

/// A server in WeChat's place. What it answers is in the code: `ok.openid`, `errcode.40029`, `busy.2.openid` (busy twice,
/// then ok), or one of the ways in which it is no answer.
struct Stub {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    async fn start() -> Self {
        for secret in [SECRET, H5_SECRET, SESSION_KEY] {
            everywhere(secret);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, kept.clone()));
            }
        });
        Self { url, asked }
    }

    /// What it was asked since this was last looked at.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap_or_default();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = target.split_once('?').unwrap_or_default();
    let fields: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let times = {
        let mut asked = asked.lock().unwrap();
        asked.push(target.clone());
        asked.iter().filter(|other| **other == target).count()
    };
    let mini = path == "/sns/jscode2session";
    let code = &fields[if mini { "js_code" } else { "code" }];
    let signed_in = |openid: &str| {
        if mini {
            format!(r#"{{"session_key":"{SESSION_KEY}","openid":"{openid}"}}"#)
        } else {
            format!(
                r#"{{"access_token":"{SESSION_KEY}","expires_in":7200,"refresh_token":"r","openid":"{openid}","scope":"snsapi_base"}}"#
            )
        }
    };
    let error = |code: &str| format!(r#"{{"errcode":{code},"errmsg":"said, rid: 5f4a0b1c"}}"#);
    let parts: Vec<&str> = code.split('.').collect();
    let (mut status, mut kind) = ("200 OK", "text/plain");
    let mut more = "";
    let body = match parts.as_slice() {
        ["ok", openid] => signed_in(openid),
        ["errcode", number] => error(number),
        ["busy", often, openid] => {
            if times > often.parse().unwrap() {
                signed_in(openid)
            } else {
                error("-1")
            }
        }
        ["garbage"] => "<xml>".to_owned(),
        ["empty"] => String::new(),
        ["html"] => {
            kind = "text/html";
            signed_in("o-html")
        }
        ["huge"] => format!(r#"{{"openid":"o-huge","more":"{}"}}"#, "x".repeat(70_000)),
        ["500"] => {
            status = "500 Internal Server Error";
            signed_in("o-500")
        }
        ["redirect"] => {
            status = "302 Found";
            more = "location: /sns/jscode2session?js_code=ok.o-redirected\r\n";
            String::new()
        }
        ["noid"] => r#"{"session_key":"a"}"#.to_owned(),
        ["hang"] => {
            // Until the other side has had enough.
            let _ = stream.read_u8().await;
            return;
        }
        ["reset"] => return,
        ["cut"] => {
            let _ = stream
                .write_all(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 99\r\n\r\n{\"open",
                )
                .await;
            return;
        }
        other => panic!("{other:?}"),
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{more}content-length: {length}\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.write_all(body.as_bytes()).await;
}

fn wechat_options(stub: &Stub) -> WechatOptions {
    WechatOptions {
        mini: Some(WechatApp::new("wxmini", SECRET).unwrap()),
        h5: Some(WechatApp::new("wxpage", H5_SECRET).unwrap()),
        base_url: stub.url.clone(),
        create_members: true,
        return_origins: vec!["https://pages.example".to_owned()],
        ..WechatOptions::default()
    }
}

fn http_options(wechat: WechatOptions) -> HttpOptions {
    let wechat = Some(Arc::new(Wechat::new(wechat)));
    HttpOptions { wechat, ..HttpOptions::default() }
}

/// Members 439 and 442, and a WeChat.
async fn with_wechat(engine: Engine, change: impl FnOnce(&mut WechatOptions)) -> (World, Stub) {
    let stub = Stub::start().await;
    let mut world = World::with_people(engine).await;
    let mut options = wechat_options(&stub);
    change(&mut options);
    world.set_options(http_options(options));
    (world, stub)
}

async fn login(world: &World, code: &str) -> Reply {
    world.request("/wechat/login", &[], &json!({"code": code}).to_string()).await
}

async fn login_to_bind(world: &World, caller: Caller, code: &str) -> Reply {
    world.call(caller, "/wechat/login", json!({"code": code, "bind": 1})).await
}

async fn get(world: &World, path: &str, cookie: Option<&str>) -> Reply {
    let headers: Vec<(&str, &str)> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
    world.raw("GET", path, &headers, Vec::new()).await
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.to_str().unwrap())
}

/// How many members there are.
async fn members(world: &World) -> String {
    world.home.sql("SELECT CAST(COUNT(*) AS TEXT) FROM members").await.unwrap().remove(0)
}

async fn bindings(world: &World) -> usize {
    world.home.sql("SELECT openid_hash FROM wechat_bindings").await.unwrap().len()
}

/// What the log says of a member, in words.
async fn told(world: &World, member_id: i64) -> Vec<String> {
    let events = world.store().events_after(0, i64::MAX).await.unwrap();
    let id = member_id.to_string();
    let own = events.iter().filter(|event| event.aggregate_type == "member" && event.aggregate_id == id);
    own.map(|event| {
        let event: MemberEvent = serde_json::from_str(&event.payload).unwrap();
        Member::words(&event, Zone::default())
    })
    .collect()
}

/// Runs a command on a member, and nothing of what follows from it: as if the server had died right behind it.
async fn only_in_the_log(world: &World, command: MemberCommand) {
    let (request_id, at) = ("test".to_owned(), world.ledger.now());
    let meta = Meta { caller: Caller::Operator, at, request_id, receipt: None, job_id: None };
    world.ledger.execute::<Member>(command.member_id(), &command, &meta).await.unwrap();
}

/// A browser on its way: where it was sent, the state that it took along, and its cookie.
struct Browser {
    location: String,
    state: String,
    cookie: String,
    set_cookie: String,
}

async fn authorize(world: &World, return_to: &str) -> Browser {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("return", return_to).finish();
    let reply = get(world, &format!("/wechat/authorize?{query}"), None).await;
    assert_eq!(reply.status, 302, "{}", reply.body);
    assert_eq!(header(&reply.headers, "cache-control"), "no-store");
    let location = header(&reply.headers, "location").to_owned();
    let set_cookie = header(&reply.headers, "set-cookie").to_owned();
    let cookie = set_cookie.split(';').next().unwrap().to_owned();
    let state = location.split("&state=").nth(1).unwrap().split('#').next().unwrap().to_owned();
    Browser { location, state, cookie, set_cookie }
}

async fn callback(world: &World, code: &str, state: &str, cookie: Option<&str>) -> Reply {
    get(world, &format!("/wechat/callback?code={code}&state={state}"), cookie).await
}

on_both_engines! {
    async fn a_new_wechat_becomes_a_member_and_stays_him(engine: Engine) {
        let (world, stub) = with_wechat(engine, |_| {}).await;
        let first = login(&world, "ok.oFirst").await;
        let data = first.ok();
        let keys: Vec<&String> = data.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["token", "expires_date", "member_id", "is_new"]);
        assert_eq!((&data["member_id"], &data["is_new"]), (&json!(443), &json!(1)));
        assert_eq!(data["expires_date"], world.clock.now_ms() / 1000 + 86_400);
        assert_eq!(header(&first.headers, "cache-control"), "no-store");
        let token = Token::verify(data["token"].as_str().unwrap(), &world.secrets, world.clock.now_ms()).unwrap();
        assert_eq!(token.caller, Caller::Member(443));
        let bearer = format!("Bearer {}", data["token"].as_str().unwrap());
        world.request("/client/couponcount", &[("authorization", &bearer)], "{}").await.ok();
        assert_eq!(
            stub.take(),
            [format!("/sns/jscode2session?appid=wxmini&secret={SECRET}&js_code=ok.oFirst&grant_type=authorization_code")]
        );
        let again = login(&world, "ok.oFirst").await;
        assert_eq!((&again.ok()["member_id"], &again.ok()["is_new"]), (&json!(443), &json!(0)));
        assert_eq!(login(&world, "ok.oSecond").await.ok()["member_id"], 444);
        assert_eq!(members(&world).await, "4");
        assert_eq!(told(&world, 443).await, [r#"signed in through WeChat for the first time, app "wxmini""#]);
        world.close().await;
    }

    async fn a_wechat_that_nobody_has_signs_nobody_in_unless_members_are_created(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |options| options.create_members = false).await;
        let unknown = login(&world, "ok.oNobody").await;
        assert_eq!((unknown.code(), unknown.status.as_u16(), unknown.data()), (310, 200, &Value::Null));
        assert_eq!(unknown.body["info"], "此微信尚未綁定會員");
        let body = json!({"code": "ok.oNobody"}).to_string();
        let english = world.request("/wechat/login", &[("accept-language", "en")], &body).await;
        assert_eq!(english.body["info"], "this WeChat is bound to no member");
        assert_eq!((members(&world).await.as_str(), bindings(&world).await), ("2", 0));
        // A member binds it to himself, and it signs him in from now on.
        let bound = login_to_bind(&world, MEMBER, "ok.oNobody").await;
        assert_eq!((&bound.ok()["member_id"], &bound.ok()["is_new"]), (&json!(439), &json!(0)));
        assert_eq!(login_to_bind(&world, MEMBER, "ok.oNobody").await.ok()["member_id"], 439);
        assert_eq!(login(&world, "ok.oNobody").await.ok()["member_id"], 439);
        // What is bound to another, a second one of the same app, nobody, and those who are no members.
        for (caller, code, refused) in [
            (FRIEND, "ok.oNobody", 1003),
            (MEMBER, "ok.oOther", 1003),
            (Caller::Member(9999), "ok.oOther", 310),
            (Caller::Operator, "ok.oOther", 1002),
        ] {
            assert_eq!(login_to_bind(&world, caller, code).await.code(), refused, "{caller}");
        }
        let body = json!({"code": "ok.oOther", "bind": 1}).to_string();
        assert_eq!(world.request("/wechat/login", &[], &body).await.code(), 1001);
        assert_eq!(login(&world, "ok.oNobody").await.ok()["member_id"], 439);
        assert_eq!((members(&world).await.as_str(), bindings(&world).await), ("2", 1));
        world.close().await;
    }

    async fn a_hundred_first_sign_ins_at_once_make_one_member(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |_| {}).await;
        let all = join_all((0..100).map(|_| login(&world, "ok.oCrowd"))).await;
        let new = all.iter().filter(|reply| reply.ok()["is_new"] == 1).count();
        let ids: Vec<_> = all.iter().map(|reply| reply.ok()["member_id"].clone()).collect();
        assert_eq!((new, members(&world).await.as_str(), bindings(&world).await), (1, "3", 1));
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
        assert_eq!(told(&world, ids[0].as_i64().unwrap()).await.len(), 1);
        world.close().await;
    }

    async fn each_of_wechats_answers_has_its_code(engine: Engine) {
        let (world, stub) = with_wechat(engine, |_| {}).await;
        for (code, refused, status, calls) in [
            ("errcode.40029", 1003, 200, 1),
            ("errcode.40163", 1003, 200, 1),
            ("errcode.40226", 1003, 200, 1),
            ("errcode.45011", 9001, 429, 1),
            ("errcode.40013", 9003, 200, 1),
            ("errcode.40125", 9003, 200, 1),
            ("errcode.-1", 9003, 200, 3),
            ("busy.3.oBusy", 9003, 200, 3),
            ("busy.2.oBusy", 0, 200, 3),
            ("garbage", 9003, 200, 1),
            ("empty", 9003, 200, 1),
            ("noid", 9003, 200, 1),
            ("html", 9003, 200, 1),
            ("huge", 9003, 200, 1),
            ("500", 9003, 200, 1),
            ("redirect", 9003, 200, 1),
            ("cut", 9003, 200, 1),
            ("reset", 9003, 200, 1),
        ] {
            let reply = login(&world, code).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (refused, status), "{code}: {}", reply.body);
            assert_eq!(reply.headers.contains_key("retry-after"), refused == 9001, "{code}");
            assert_eq!(stub.take().len(), calls, "{code}");
        }
        assert_eq!((members(&world).await.as_str(), bindings(&world).await), ("3", 1));
        world.close().await;
    }

    /// Neither what hangs nor what waits for it holds up others, and when it has ended all is as before.
    async fn a_wechat_that_hangs_is_given_up_and_holds_nobody_else(engine: Engine) {
        let (world, stub) = with_wechat(engine, |options| {
            options.max_calls = 1;
            options.patience = Duration::from_secs(1);
        })
        .await;
        let hanging = login(&world, "hang");
        let beside = async {
            until("WeChat is asked", async || !stub.asked.lock().unwrap().is_empty()).await;
            // Told at once: WeChat is not even asked.
            assert_eq!(login(&world, "ok.oBeside").await.code(), 9003);
            world.call(MEMBER, "/client/couponcount", json!({})).await.ok();
            assert_eq!(stub.take().len(), 1);
        };
        let (hung, ()) = tokio::join!(hanging, beside);
        assert_eq!(hung.code(), 9003);
        assert_eq!(stub.take(), Vec::<String>::new(), "it is not asked again");
        login(&world, "ok.oBeside").await.ok();
        world.close().await;
    }

    async fn a_wechat_that_is_not_there_or_not_wechat_is_9003(engine: Engine) {
        let stub = Stub::start().await;
        let mut world = World::with_people(engine).await;
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // What answers is no TLS.
        for base_url in [stub.url.replace("http:", "https:"), format!("http://{nobody}")] {
            world.set_options(http_options(WechatOptions { base_url, ..wechat_options(&stub) }));
            assert_eq!(login(&world, "ok.oNobody").await.code(), 9003);
        }
        assert_eq!(members(&world).await, "2");
        // Without an app, without the app of that way, and without anything.
        let only_pages = WechatOptions { mini: None, ..wechat_options(&stub) };
        world.set_options(http_options(only_pages));
        assert_eq!(login(&world, "ok.oNobody").await.code(), 9003);
        assert_eq!(get(&world, "/wechat/authorize", None).await.status, 302);
        world.set_options(HttpOptions::default());
        assert_eq!(login(&world, "ok.oNobody").await.code(), 9003);
        for path in ["/wechat/authorize", "/wechat/callback?code=ok.oNobody&state=a"] {
            let reply = get(&world, path, None).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (9003, 200), "{path}");
        }
        assert_eq!(stub.take(), Vec::<String>::new());
        world.close().await;
    }

    async fn bad_requests_say_which_field_and_ask_wechat_nothing(engine: Engine) {
        let (world, stub) = with_wechat(engine, |_| {}).await;
        let long = "a".repeat(513);
        for (body, field) in [
            (json!({}), "code"),
            (json!({"code": ""}), "code"),
            (json!({"code": " \n"}), "code"),
            (json!({"code": {}}), "code"),
            (json!({"code": ["a"]}), "code"),
            (json!({"code": "a\u{0}b"}), "code"),
            (json!({"code": long}), "code"),
            (json!({"code": "ok.o1", "bind": 2}), "bind"),
            (json!([]), "body"),
        ] {
            let reply = world.request("/wechat/login", &[], &body.to_string()).await;
            assert_eq!(reply.code(), 401, "{body}");
            let fields: Vec<&String> = reply.body["info"].as_object().unwrap().keys().collect();
            assert_eq!(fields, [field], "{body}");
        }
        for (content_type, body, status) in
            [("text/plain", "code=ok.o1", 415), ("application/json", "{\"code\"", 200), ("application/json", &long.repeat(200), 413)]
        {
            let reply = world.request("/wechat/login", &[("content-type", content_type)], body).await;
            assert_eq!((reply.code(), reply.status.as_u16()), (401, status), "{content_type}");
        }
        for (path, field) in [
            ("/wechat/callback", "code"),
            ("/wechat/callback?state=a", "code"),
            ("/wechat/callback?code=ok.o1", "state"),
            ("/wechat/callback?code=a&code=b&state=a", "code"),
            (&format!("/wechat/callback?code={long}&state=a"), "code"),
            (&format!("/wechat/callback?code=a&state={long}"), "state"),
            (&format!("/wechat/authorize?return=/{long}"), "return"),
            ("/wechat/authorize?return=//evil.example", "return"),
            ("/wechat/authorize?return=https://evil.example/", "return"),
            ("/wechat/authorize?return=https://pages.example@evil.example/", "return"),
            ("/wechat/authorize?return=/%5Cevil.example", "return"),
            ("/wechat/authorize?return=/a%0d%0aset-cookie:a=b", "return"),
            ("/wechat/authorize?return=javascript:alert(1)", "return"),
        ] {
            let reply = get(&world, path, None).await;
            assert_eq!(reply.code(), 401, "{path}: {}", reply.body);
            assert!(reply.body["info"].as_object().unwrap().contains_key(field), "{path}: {}", reply.body);
        }
        let reply = get(&world, "/wechat/callback?code=%ff&state=a", None).await;
        assert_eq!((reply.code(), reply.status.as_u16()), (401, 400));
        for (method, path) in [("GET", "/wechat/login"), ("POST", "/wechat/authorize"), ("POST", "/wechat/callback")] {
            assert_eq!(world.raw(method, path, &[], Vec::new()).await.code(), 9004, "{method} {path}");
        }
        // Whatever is in it goes to WeChat as a code, and as nothing else.
        assert_eq!(stub.take(), Vec::<String>::new());
        let form = "code=errcode.40029";
        let reply = world.request("/wechat/login", &[("content-type", crate::requests::FORM)], form).await;
        assert_eq!(reply.code(), 1003);
        stub.take();
        world.close().await;
    }

    async fn a_page_is_sent_to_wechat_and_comes_back_with_a_token_behind_the_hash(engine: Engine) {
        let (world, stub) = with_wechat(engine, |_| {}).await;
        let browser = authorize(&world, "/pages/coupons?a=b").await;
        let (before, rest) = browser.location.split_once("&state=").unwrap();
        assert_eq!(
            before,
            "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wxpage&redirect_uri=http%3A%2F%2F127.0.0.1%3A8787\
             %2Fwechat%2Fcallback&response_type=code&scope=snsapi_base"
        );
        assert_eq!(rest, format!("{}#wechat_redirect", browser.state));
        assert!(browser.state.len() <= 128 && browser.state.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let attributes = browser.set_cookie.split_once(';').unwrap().1;
        assert_eq!(attributes, " Path=/; Max-Age=600; HttpOnly; SameSite=Lax");
        let back = callback(&world, "ok.oPage", &browser.state, Some(&format!("a=b; {}; c", browser.cookie))).await;
        assert_eq!(back.status, 302, "{}", back.body);
        assert_eq!(header(&back.headers, "referrer-policy"), "no-referrer");
        assert_eq!(header(&back.headers, "cache-control"), "no-store");
        assert_eq!(header(&back.headers, "set-cookie"), "wechat=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax");
        let (page, fragment) = header(&back.headers, "location").split_once('#').unwrap();
        assert_eq!(page, "http://127.0.0.1:8787/pages/coupons?a=b");
        let fields: HashMap<String, String> = form_urlencoded::parse(fragment.as_bytes()).into_owned().collect();
        assert_eq!((fields["member_id"].as_str(), fields["is_new"].as_str()), ("443", "1"));
        let token = Token::verify(&fields["token"], &world.secrets, world.clock.now_ms()).unwrap();
        assert_eq!((token.caller, token.expires_at_s.to_string()), (Caller::Member(443), fields["expires_date"].clone()));
        assert_eq!(
            stub.take(),
            [format!("/sns/oauth2/access_token?appid=wxpage&secret={H5_SECRET}&code=ok.oPage&grant_type=authorization_code")]
        );
        // Without a page to return to the answer is JSON, and refusals are as everywhere.
        let browser = authorize(&world, "").await;
        let back = callback(&world, "ok.oPage", &browser.state, Some(&browser.cookie)).await;
        assert_eq!((&back.ok()["member_id"], &back.ok()["is_new"]), (&json!(443), &json!(0)));
        for (code, refused) in [("errcode.40029", 1003), ("errcode.45011", 9001), ("garbage", 9003)] {
            let browser = authorize(&world, "https://pages.example/a").await;
            let back = callback(&world, code, &browser.state, Some(&browser.cookie)).await;
            assert_eq!(back.code(), refused, "{code}");
            assert!(header(&back.headers, "set-cookie").contains("Max-Age=0"));
        }
        world.close().await;
    }

    /// Whoever gets another to open a link signs him in as nobody, least of all as himself.
    async fn a_state_that_is_forged_old_used_or_another_browsers_signs_nobody_in(engine: Engine) {
        let (world, stub) = with_wechat(engine, |_| {}).await;
        let refused = async |state: &str, cookie: Option<&str>, what: &str| {
            let back = callback(&world, "ok.oAttacker", state, cookie).await;
            assert_eq!((back.code(), back.status.as_u16()), (1003, 200), "{what}: {}", back.body);
        };
        let (attackers, victims) = (authorize(&world, "/a").await, authorize(&world, "/b").await);
        assert_ne!(attackers.state, victims.state);
        refused(&attackers.state, None, "a browser without a cookie").await;
        refused(&attackers.state, Some(&victims.cookie), "another browser's").await;
        refused("0123456789abcdef", Some(&victims.cookie), "forged").await;
        for at in [0, 31, 63] {
            let mut state = victims.state.clone().into_bytes();
            state[at] = if state[at] == b'0' { b'1' } else { b'0' };
            refused(std::str::from_utf8(&state).unwrap(), Some(&victims.cookie), "changed").await;
        }
        for at in 7..victims.cookie.len() {
            let mut cookie = victims.cookie.clone().into_bytes();
            cookie[at] = if cookie[at] == b'0' { b'1' } else { b'0' };
            refused(&victims.state, Some(std::str::from_utf8(&cookie).unwrap()), "its cookie is changed").await;
        }
        refused(&victims.state, Some(&victims.cookie.replace("wechat=", "other=")), "another cookie").await;
        assert_eq!(stub.take(), Vec::<String>::new());
        // Once, also where both come at once, and also on another server.
        let both = join_all((0..8).map(|_| callback(&world, "ok.oOnce", &victims.state, Some(&victims.cookie)))).await;
        assert_eq!(both.iter().filter(|back| back.status == 302).count(), 1);
        assert_eq!(stub.take().len(), 1);
        refused(&victims.state, Some(&victims.cookie), "used").await;
        // Ten minutes, and not a moment longer.
        let (early, late) = (authorize(&world, "/a").await, authorize(&world, "/a").await);
        world.advance(599_999);
        assert_eq!(callback(&world, "ok.oOnce", &early.state, Some(&early.cookie)).await.status, 302);
        world.advance(1);
        refused(&late.state, Some(&late.cookie), "old").await;
        refused(&early.state, Some(&early.cookie), "used and old").await;
        // Those that have ended are not kept.
        let fresh = authorize(&world, "/a").await;
        assert_eq!(callback(&world, "ok.oOnce", &fresh.state, Some(&fresh.cookie)).await.status, 302);
        assert_eq!(world.home.sql("SELECT state FROM wechat_states").await.unwrap(), [fresh.state]);
        assert_eq!(members(&world).await, "3");
        world.close().await;
    }

    async fn over_https_the_cookie_is_bound_to_the_host(engine: Engine) {
        let (mut world, stub) = with_wechat(engine, |_| {}).await;
        let options = http_options(wechat_options(&stub));
        world.set_options(HttpOptions { public_url: "https://coupons.example/".to_owned(), ..options });
        let browser = authorize(&world, "/a").await;
        assert!(browser.location.contains("redirect_uri=https%3A%2F%2Fcoupons.example%2Fwechat%2Fcallback&"));
        assert!(browser.set_cookie.starts_with("__Host-wechat="));
        assert!(browser.set_cookie.ends_with("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure"));
        let unprefixed = browser.cookie.replace("__Host-", "");
        assert_eq!(callback(&world, "ok.oTls", &browser.state, Some(&unprefixed)).await.code(), 1003);
        let back = callback(&world, "ok.oTls", &browser.state, Some(&browser.cookie)).await;
        assert!(header(&back.headers, "location").starts_with("https://coupons.example/a#token="));
        world.close().await;
    }

    async fn a_sign_in_is_written_once_an_hour(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |_| {}).await;
        let first = r#"signed in through WeChat for the first time, app "wxmini""#;
        login(&world, "ok.oOften").await.ok();
        world.advance(HOUR - 1);
        login(&world, "ok.oOften").await.ok();
        assert_eq!(told(&world, 443).await, [first]);
        world.advance(1);
        login(&world, "ok.oOften").await.ok();
        assert_eq!(told(&world, 443).await, [first, r#"signed in through WeChat, app "wxmini""#]);
        let events = world.store().events_after(0, i64::MAX).await.unwrap();
        let last: Value = serde_json::from_str(&events.last().unwrap().metadata).unwrap();
        assert_eq!(last["caller"], "member:443");
        world.close().await;
    }

    async fn who_is_unbound_is_signed_in_no_more_until_he_is_bound_again(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |options| options.create_members = false).await;
        login_to_bind(&world, MEMBER, "ok.oMine").await.ok();
        let own = world.call(MEMBER, "/wechat/openid", json!({})).await;
        assert_eq!(own.ok(), &json!([{"appid": "wxmini", "openid": "oMine"}]));
        assert_eq!(world.call(FRIEND, "/wechat/openid", json!({})).await.ok(), &json!([]));
        let unbind = json!({"id": 439});
        let unbound = world.keyed(Caller::Operator, "unbind-1", "/member/unbindwechat", unbind.clone()).await;
        assert_eq!(unbound.ok(), &json!({"id": 439}));
        assert_eq!((login(&world, "ok.oMine").await.code(), bindings(&world).await), (310, 0));
        assert_eq!(world.call(MEMBER, "/wechat/openid", json!({})).await.ok(), &json!([]));
        // He binds another one. The key again, and whoever had it before, change nothing of that.
        login_to_bind(&world, MEMBER, "ok.oNew").await.ok();
        login_to_bind(&world, FRIEND, "ok.oMine").await.ok();
        let again = world.keyed(Caller::Operator, "unbind-1", "/member/unbindwechat", unbind.clone()).await;
        assert!(again.replayed());
        assert_eq!(login(&world, "ok.oNew").await.ok()["member_id"], 439);
        assert_eq!(login(&world, "ok.oMine").await.ok()["member_id"], 442);
        let first = r#"signed in through WeChat for the first time, app "wxmini""#;
        assert_eq!(told(&world, 439).await, [first, "unbound from WeChat", first]);
        // Nothing to unbind is no event, and a member unbinds nobody.
        assert_eq!(world.call(MEMBER, "/member/unbindwechat", unbind.clone()).await.code(), 1002);
        world.operator("/member/unbindwechat", unbind.clone()).await.ok();
        world.operator("/member/unbindwechat", unbind.clone()).await.ok();
        assert_eq!(told(&world, 439).await.len(), 4);
        world.close().await;
    }

    async fn an_unbinding_that_was_cut_short_holds(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |options| options.create_members = false).await;
        login_to_bind(&world, MEMBER, "ok.oMine").await.ok();
        only_in_the_log(&world, MemberCommand::UnbindWechat { member_id: 439, is_bound: true, employee_id: 0 }).await;
        assert_eq!(bindings(&world).await, 1);
        assert_eq!(world.call(MEMBER, "/wechat/openid", json!({})).await.ok(), &json!([]));
        assert_eq!((login(&world, "ok.oMine").await.code(), bindings(&world).await), (310, 0));
        // And what stands in the way of a new one goes.
        login_to_bind(&world, MEMBER, "ok.oMine").await.ok();
        only_in_the_log(&world, MemberCommand::UnbindWechat { member_id: 439, is_bound: true, employee_id: 0 }).await;
        login_to_bind(&world, MEMBER, "ok.oNew").await.ok();
        assert_eq!((login(&world, "ok.oMine").await.code(), bindings(&world).await), (310, 1));
        // Bound, and not yet in the log: it is unbound all the same.
        let bound = "INSERT INTO wechat_bindings (openid_hash, member_id, appid, openid, unbound_before)
                     VALUES ('a', 442, 'wxmini', '', 0)";
        world.home.sql(bound).await.unwrap();
        world.operator("/member/unbindwechat", json!({"id": 442})).await.ok();
        assert_eq!((told(&world, 442).await.len(), bindings(&world).await), (1, 1));
        world.close().await;
    }

    async fn who_is_erased_is_nobody_to_wechat(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |_| {}).await;
        login_to_bind(&world, MEMBER, "ok.oMine").await.ok();
        login_to_bind(&world, FRIEND, "ok.oFriend").await.ok();
        world.operator("/member/erase", json!({"id": 439, "reason": "會員要求"})).await.ok();
        assert_eq!(bindings(&world).await, 1);
        assert_eq!(world.call(MEMBER, "/wechat/openid", json!({})).await.ok(), &json!([]));
        assert_eq!(login_to_bind(&world, MEMBER, "ok.oMine").await.code(), 310);
        // Whoever he is, he is somebody new.
        let new = login(&world, "ok.oMine").await;
        assert_eq!((&new.ok()["member_id"], &new.ok()["is_new"]), (&json!(443), &json!(1)));
        // Also where the erasure is in the log only.
        let reason = "會員要求".to_owned();
        only_in_the_log(&world, MemberCommand::Erase { member_id: 442, reason, employee_id: 0 }).await;
        assert_eq!(login(&world, "ok.oFriend").await.ok()["member_id"], 444);
        world.close().await;
    }

    async fn nothing_of_wechat_can_be_read_from_the_database(engine: Engine) {
        let (world, _stub) = with_wechat(engine, |_| {}).await;
        login(&world, "ok.oVeryPersonalOpenid").await.ok();
        let browser = authorize(&world, "/a").await;
        let back = callback(&world, "ok.oVeryPersonalOpenid", &browser.state, Some(&browser.cookie)).await;
        let (_, fragment) = header(&back.headers, "location").split_once('#').unwrap();
        assert_eq!(bindings(&world).await, 2, "an openid of each app");
        let mut texts = Vec::new();
        for column in ["openid_hash", "appid", "openid"] {
            texts.extend(world.home.sql(&format!("SELECT {column} FROM wechat_bindings")).await.unwrap());
        }
        for event in world.store().events_after(0, i64::MAX).await.unwrap() {
            texts.extend([event.payload, event.metadata]);
        }
        texts.extend(world.home.sql("SELECT state FROM wechat_states").await.unwrap());
        let metrics = get(&world, "/metrics", None).await.body.to_string();
        assert!(metrics.contains("/wechat/login"), "{metrics}");
        texts.push(metrics);
        if engine == Engine::Sqlite {
            for file in ["ledger.db", "ledger.db-wal"] {
                let bytes = std::fs::read(world.home.path().join(file)).unwrap_or_default();
                texts.push(String::from_utf8_lossy(&bytes).into_owned());
            }
        }
        let token = fragment.strip_prefix("token=").unwrap().split('&').next().unwrap();
        for secret in ["oVeryPersonalOpenid", SECRET, H5_SECRET, SESSION_KEY, token] {
            assert!(!texts.iter().any(|text| text.contains(secret)), "{secret}");
        }
        world.close().await;
    }

    /// The program itself: settings from everywhere, and at its most talkative no secret in its logs.
    async fn the_program_signs_in_and_says_nothing_secret(engine: Engine) {
        let (stub, home) = (Stub::start().await, Home::new(engine).await);
        let log = home.path().join("server.log");
        let file = home.path().join("h5.secret");
        std::fs::write(&file, format!("{H5_SECRET}\n")).unwrap();
        let settings = home.path().join("settings.toml");
        let text = format!(
            "wechat_appid = \"wxmini\"\nwechat_h5_appid = \"wxpage\"\nwechat_h5_secret_file = \"{}\"\nwechat_create_members = true\n",
            file.display()
        );
        std::fs::write(&settings, text).unwrap();
        let mut command = program(&home);
        command.env("COUPON_LEDGER_WECHAT_SECRET", SECRET).env("COUPON_LEDGER_LOG", "trace");
        command.stderr(std::fs::File::create(&log).unwrap());
        let settings = settings.to_str().unwrap();
        let server = Server::launch(command, &["--config", settings, "--wechat-base-url", &stub.url]).await;
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let post = async |code: &str| {
            let asked = client.post(format!("{}/wechat/login", server.url)).json(&json!({"code": code}));
            asked.send().await.unwrap().json::<Value>().await.unwrap()
        };
        let signed_in = post("ok.oVeryPersonalOpenid").await;
        assert_eq!(signed_in["code"], 0, "{signed_in}");
        for code in ["errcode.40125", "errcode.-1", "redirect", "garbage", "reset", "errcode.40029"] {
            assert_ne!(post(code).await["code"], 0, "{code}");
        }
        let sent = client.get(format!("{}/wechat/authorize?return=/a", server.url)).send().await.unwrap();
        let location = header(sent.headers(), "location").to_owned();
        let cookie = header(sent.headers(), "set-cookie").split(';').next().unwrap().to_owned();
        let state = location.split("&state=").nth(1).unwrap().split('#').next().unwrap();
        let back = client.get(format!("{}/wechat/callback?code=ok.oPersonalToo&state={state}", server.url));
        let back = back.header("cookie", &cookie).send().await.unwrap();
        let (page, fragment) = header(back.headers(), "location").split_once('#').unwrap();
        assert_eq!(page, format!("{}/a", server.url));
        let asked = stub.take().join("\n");
        assert!(asked.contains(SECRET) && asked.contains(H5_SECRET), "{asked}");
        server.kill().await;
        let log = std::fs::read_to_string(log).unwrap();
        for said in ["WeChat signs nobody in", "/sns/jscode2session: it answers errcode 40125: the app's secret is wrong"] {
            assert!(log.contains(said), "{said}: {log}");
        }
        let token = signed_in["data"]["token"].as_str().unwrap();
        let of_page = fragment.strip_prefix("token=").unwrap().split('&').next().unwrap();
        for secret in
            [SECRET, H5_SECRET, SESSION_KEY, "oVeryPersonalOpenid", "oPersonalToo", "errcode.40029", token, of_page, state, &cookie]
        {
            assert!(!log.contains(secret), "{secret}");
        }
    }
}

#[tokio::test]
async fn settings_that_would_not_work_or_leak_are_refused() {
    let home = Home::new(Engine::Sqlite).await;
    let file = home.path().join("secret");
    std::fs::write(&file, "not a $ecret\n").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, sentence) in [
        (vec!["--wechat-appid", "wx1"], "--wechat-appid needs the app's secret"),
        (vec!["--wechat-h5-appid", "wx1"], "--wechat-h5-appid needs the app's secret"),
        (vec!["--wechat-appid", "wx1", "--wechat-secret-file", "/nowhere"], "cannot read /nowhere"),
        (
            vec!["--wechat-appid", "wx1", "--wechat-secret-file", file],
            "--wechat-appid: the app's secret must be",
        ),
        (
            vec!["--wechat-base-url", "http://api.weixin.qq.com"],
            "--wechat-base-url: http://api.weixin.qq.com must begin with",
        ),
        (vec!["--wechat-authorize-url", "nonsense"], "--wechat-authorize-url: nonsense must begin with"),
        (
            vec!["--wechat-return-origin", "https://a.example/b"],
            "--wechat-return-origin: https://a.example/b must be an origin",
        ),
    ] {
        let mut command = program(&home);
        command.args(["serve", "--listen", "127.0.0.1:0"]).args(&arguments);
        let output = command.heard().await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(sentence) && !said.contains("$ecret"), "{arguments:?}: {said}");
    }
}

#[test]
fn every_route_without_a_token_is_documented() {
    let (security, document) = (read("docs/security.md"), openapi::document());
    for open in OPEN {
        assert!(security.contains(&format!("`{}`", open.path)), "{}", open.path);
        let operation = document["paths"][open.path].as_object().unwrap().values().next().unwrap();
        assert!(operation["description"].as_str().unwrap().contains("anybody"), "{}", open.path);
        let without = operation["security"].as_array().unwrap();
        assert!(without.is_empty() || without.contains(&json!({})), "{}", open.path);
    }
}
