//! Signing in through WeChat: `/wechat/login` for mini programs, `/wechat/authorize` and `/wechat/callback` for pages that are
//! opened in WeChat's browser.
//!
//! Nobody is signed in here yet, so none of these has a row in the table of who may do what; they stand in a table of their
//! own ([`OPEN`]). Whoever brings a code that WeChat knows is given a token of his member. A page is sent to WeChat with a
//! `state` that belongs to a cookie of that very browser and comes back once: a link that somebody else prepared signs nobody
//! in. Must never send a browser anywhere but to WeChat and the merchant's own pages.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use super::asker::Asker;
use super::form::Form;
use super::routes::{Field, Holds, optional, required};
use super::v1::Method;
use super::{Answer, App, Failure, Refused, language, read_form, request_id, respond, success};
use crate::directory::use_up_state;
use crate::identity::{Caller, Token};
use crate::refusal::{self, Language, Wrong};
use crate::value::{hex, random};
use crate::wechat::{self, NoOpenid, SignInError, SignedIn, Unknown, Way, Wechat};

/// How long a token holds that a sign-in gives, in seconds. Signing in again costs a member nothing.
const TOKEN_TTL_S: i64 = 86_400;

/// How long a browser may take to WeChat and back.
const STATE_TTL_MS: i64 = 600_000;

/// When to ask again about a member of whom WeChat has been asked too often: it counts by the minute.
const TOO_OFTEN_RETRY_S: u32 = 60;

/// The longest code, return address and state.
const MAX_CODE: usize = 512;
const MAX_RETURN: usize = 500;
const MAX_STATE: usize = 128;

/// Which handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// `/wechat/login`
    Login,
    /// `/wechat/authorize`
    Authorize,
    /// `/wechat/callback`
    Callback,
}

/// A route that is asked without a token.
#[derive(Clone, Copy, Debug)]
pub struct Open {
    /// How it is asked: a POST with a body, or a GET by a browser.
    pub method: Method,
    /// Its path under the root and under the base path.
    pub path: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Its fields, in the body or in the query.
    pub fields: &'static [Field],
    /// What it can be refused with, in the order of precedence.
    pub refusals: &'static [i64],
    /// An example of a request.
    pub request: &'static str,
    /// An example of `data`, or of where a browser is sent.
    pub answer: &'static str,
    /// Which handler runs.
    pub run: Run,
}

impl Open {
    /// An example of `data` where somebody is signed in without his browser being sent on, if that can be.
    #[must_use]
    pub fn signed_in(&self) -> Option<&'static str> {
        match self.run {
            Run::Login => Some(self.answer),
            Run::Authorize => None,
            Run::Callback => OPEN.iter().find(|open| open.run == Run::Login).map(|login| login.answer),
        }
    }
}

/// Every route here.
pub const OPEN: &[Open] = &[
    Open {
        method: Method::Post,
        path: "/wechat/login",
        about: "Signs a member in with the code that a mini program had from wx.login. A WeChat that nobody has becomes a \
            new member where the server is set to it, else 310; with bind=1 and a member's token it becomes this member's. \
            expires_date is in Unix seconds [ours]",
        fields: &[
            required("code", Holds::Text(MAX_CODE as i64), "the code, good once and for five minutes"),
            optional(
                "bind",
                Holds::Flag,
                "1 = this WeChat is to be that of the member whose token comes along; default 0",
            ),
        ],
        refusals: &[401, 1001, 1002, 1003, 310, 9001, 9003],
        request: r#"{"code":"0a3Xyz000000000000000000000000"}"#,
        answer: r#"{"token":"cl1.eyJjIjp7…","expires_date":1795492800,"member_id":439,"is_new":0}"#,
        run: Run::Login,
    },
    Open {
        method: Method::Get,
        path: "/wechat/authorize",
        about: "Sends a page in WeChat's browser to WeChat, which sends it on to /wechat/callback without asking the member \
            anything. A cookie keeps where it is to return to [ours]",
        fields: &[optional(
            "return",
            Holds::Text(MAX_RETURN as i64),
            "where the browser goes in the end: a path on this server, or an address on one of the merchant's origins \
             (--wechat-return-origin); none = the answer is JSON",
        )],
        refusals: &[401, 9003],
        request: "/wechat/authorize?return=/pages/coupons",
        answer: "302 to https://open.weixin.qq.com/connect/oauth2/authorize?…",
        run: Run::Authorize,
    },
    Open {
        method: Method::Get,
        path: "/wechat/callback",
        about: "Where WeChat sends the browser back to: signs the member in as /wechat/login does, and sends him on with the \
            same data behind a #, which no server sees. A state that is not this browser's, is older than ten minutes or was \
            here before answers 1003 [ours]",
        fields: &[
            required("code", Holds::Text(MAX_CODE as i64), "from WeChat"),
            required("state", Holds::Text(MAX_STATE as i64), "as it was given to WeChat"),
        ],
        refusals: &[401, 1003, 310, 9001, 9003],
        request: "/wechat/callback?code=0a3Xyz0000&state=5c2c1bd1…",
        answer: "302 to /pages/coupons#token=cl1.eyJjIjp7…&expires_date=1795492800&member_id=439&is_new=0",
        run: Run::Callback,
    },
];

pub(super) fn router() -> Router<App> {
    OPEN.iter().fold(Router::new(), |router, open| {
        let answer = move |State(app): State<App>, request: Request| serve(app, open, request);
        router.route(open.path, if open.method == Method::Get { get(answer) } else { post(answer) })
    })
}

async fn serve(app: App, open: &'static Open, request: Request) -> Response {
    let (language, request_id) = (language(request.headers()), request_id(request.headers()));
    let (timeout, asker) = (app.options.request_timeout, Asker::of(&app, request.headers()));
    let visit = Visit {
        app: app.clone(),
        headers: request.headers().clone(),
        asker: asker.clone(),
        language,
        request_id: request_id.clone(),
    };
    let answering = async move {
        match open.run {
            Run::Login => visit.login(request).await,
            Run::Authorize => visit.authorize(request.uri()),
            Run::Callback => visit.callback(request.uri()).await,
        }
    };
    let mut response = respond((&app, &asker), open.path, (language, request_id), timeout, answering).await;
    if open.run == Run::Callback {
        // Whatever came of it, this way to WeChat and back is over.
        if let Ok(cookie) = HeaderValue::from_str(&cookie(&app, "", Duration::ZERO)) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// What WeChat's word is on the wire; what the merchant must look after is logged here.
pub(super) fn refused(error: &NoOpenid, request_id: &str) -> Refused {
    match error {
        NoOpenid::Refused => Refused::new(StatusCode::OK, &refusal::SIGN_IN_REFUSED),
        NoOpenid::TooOften => Refused {
            retry_after_s: Some(TOO_OFTEN_RETRY_S),
            ..Refused::new(StatusCode::TOO_MANY_REQUESTS, &refusal::TOO_MANY_REQUESTS)
        },
        NoOpenid::NotConfigured => Refused::new(StatusCode::OK, &refusal::WECHAT_UNAVAILABLE),
        NoOpenid::Busy(_) | NoOpenid::Unavailable { .. } => {
            tracing::warn!(request_id, %error, "WeChat signs nobody in");
            Refused::new(StatusCode::OK, &refusal::WECHAT_UNAVAILABLE)
        }
    }
}

/// What the cookie is called. With the prefix browsers take it only over TLS and from this very host.
fn cookie_name(app: &App) -> &'static str {
    if is_secure(app) { "__Host-wechat" } else { "wechat" }
}

fn is_secure(app: &App) -> bool {
    app.options.public_url.starts_with("https://")
}

/// The cookie as it is set. Lax, because it must come along when WeChat sends the browser back.
fn cookie(app: &App, value: &str, max_age: Duration) -> String {
    let secure = if is_secure(app) { "; Secure" } else { "" };
    let (name, max_age_s) = (cookie_name(app), max_age.as_secs());
    format!("{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}")
}

/// What a browser keeps while it is at WeChat's: random bits, when it ends, and where it is to return to.
struct Trip {
    expires_at_ms: i64,
    /// Empty = nowhere.
    return_to: String,
}

impl Trip {
    fn write(&self) -> String {
        let nonce = hex(&random::<16>());
        format!("{nonce}.{}.{}", self.expires_at_ms, URL_SAFE_NO_PAD.encode(&self.return_to))
    }

    /// Reads what this server wrote.
    fn read(cookie: &str) -> Option<Self> {
        let mut parts = cookie.split('.').skip(1);
        let expires_at_ms = parts.next()?.parse().ok()?;
        let return_to = String::from_utf8(URL_SAFE_NO_PAD.decode(parts.next()?).ok()?).ok()?;
        Some(Self { expires_at_ms, return_to })
    }
}

/// The address in full that a browser may be sent back to, if it may.
fn own_address(text: &str, public_url: &str, origins: &[String]) -> Option<String> {
    // Browsers read \ as /, and take spaces and control characters out before they look.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\\#\"<>".contains(&byte));
    if !is_plain {
        return None;
    }
    let own: Uri = public_url.parse().ok()?;
    let own_origin = format!("{}://{}", own.scheme_str()?, own.authority()?).to_ascii_lowercase();
    if text.starts_with('/') {
        return (!text.starts_with("//")).then(|| format!("{own_origin}{text}"));
    }
    let uri: Uri = text.parse().ok()?;
    let origin = format!("{}://{}", uri.scheme_str()?, uri.authority()?).to_ascii_lowercase();
    (origin == own_origin || origins.contains(&origin)).then(|| text.to_owned())
}

/// Who has signed in is told this.
#[derive(Serialize)]
struct Admitted {
    token: String,
    expires_date: i64,
    member_id: i64,
    is_new: i64,
}

/// One request on its way.
struct Visit {
    app: App,
    headers: HeaderMap,
    asker: Asker,
    language: Language,
    request_id: String,
}

impl Visit {
    fn wechat(&self) -> Result<Arc<Wechat>, Failure> {
        Ok(self.app.options.wechat.clone().ok_or(NoOpenid::NotConfigured)?)
    }

    async fn login(self, request: Request) -> Result<Response, Failure> {
        let mut form = read_form(&self.app, request, false).await?;
        let code = form.text("code", MAX_CODE);
        let bind = form.flag("bind", false);
        form.finish().map_err(Failure::Fields)?;
        let bind_to = if bind { Some(self.member().await?) } else { None };
        let wechat = self.wechat()?;
        let admitted = self.sign_in(&wechat, Way::Mini, &code, bind_to).await?;
        Ok(success(&Answer::new(&admitted)?))
    }

    /// The member whose token comes along.
    async fn member(&self) -> Result<i64, Failure> {
        match self.app.identify(&self.headers, true, &self.asker).await?.who.caller {
            Caller::Member(id) => Ok(id),
            _ => Err(Failure::NotAllowed),
        }
    }

    fn query(uri: &Uri) -> Result<Form, Failure> {
        let query = uri.query().unwrap_or_default();
        Form::from_form(query.as_bytes())
            .map_err(|_| Failure::Body(StatusCode::BAD_REQUEST, Wrong::BodyUnreadable))
    }

    fn authorize(self, uri: &Uri) -> Result<Response, Failure> {
        let mut form = Self::query(uri)?;
        let wanted = form.optional_text("return", MAX_RETURN).unwrap_or_default();
        let wechat = self.app.options.wechat.as_deref();
        let origins = wechat.map(|wechat| wechat.options().return_origins.as_slice()).unwrap_or_default();
        let public_url = self.app.options.public_url.trim_end_matches('/');
        let return_to =
            if wanted.is_empty() { Some(wanted) } else { own_address(&wanted, public_url, origins) };
        if return_to.is_none() {
            form.wrong("return", Wrong::NotOurPage);
        }
        form.finish().map_err(Failure::Fields)?;
        let wechat = wechat.ok_or(NoOpenid::NotConfigured)?;
        let app = wechat.app(Way::H5)?;
        let expires_at_ms = self.app.ledger.clock().now_ms().saturating_add(STATE_TTL_MS);
        let trip = Trip { expires_at_ms, return_to: return_to.unwrap_or_default() }.write();
        // In this order, as WeChat's manual asks for it.
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("appid", &app.appid)
            .append_pair("redirect_uri", &format!("{public_url}/wechat/callback"))
            .append_pair("response_type", "code")
            .append_pair("scope", "snsapi_base")
            .append_pair("state", &self.app.ledger.secrets().wechat_state(&trip))
            .finish();
        let to = &wechat.options().authorize_url;
        let mut response = redirect(&format!("{to}/connect/oauth2/authorize?{query}#wechat_redirect"))?;
        let cookie = cookie(&self.app, &trip, Duration::from_millis(STATE_TTL_MS as u64));
        let cookie = HeaderValue::from_str(&cookie).map_err(|_| Failure::SignInRefused(None))?;
        response.headers_mut().append(header::SET_COOKIE, cookie);
        Ok(response)
    }

    async fn callback(self, uri: &Uri) -> Result<Response, Failure> {
        let mut form = Self::query(uri)?;
        let (code, state) = (form.text("code", MAX_CODE), form.text("state", MAX_STATE));
        form.finish().map_err(Failure::Fields)?;
        let wechat = self.wechat()?;
        wechat.app(Way::H5)?;
        let trip = self.trip(&state).ok_or(Failure::SignInRefused(None))?;
        let (store, now_ms) = (self.app.ledger.store(), self.app.ledger.clock().now_ms());
        if trip.expires_at_ms <= now_ms || !use_up_state(store, &state, trip.expires_at_ms, now_ms).await? {
            return Err(Failure::SignInRefused(None));
        }
        let admitted = self.sign_in(&wechat, Way::H5, &code, None).await?;
        if trip.return_to.is_empty() {
            return Ok(success(&Answer::new(&admitted)?));
        }
        let Admitted { token, expires_date, member_id, is_new } = admitted;
        let fragment = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", &token)
            .append_pair("expires_date", &expires_date.to_string())
            .append_pair("member_id", &member_id.to_string())
            .append_pair("is_new", &is_new.to_string())
            .finish();
        redirect(&format!("{}#{fragment}", trip.return_to))
    }

    /// The trip that a state belongs to, from the cookie of this browser.
    fn trip(&self, state: &str) -> Option<Trip> {
        let name = cookie_name(&self.app);
        let cookies = self.headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
        let own = cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|cookie| cookie.trim().split_once('='))
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value);
        let secrets = self.app.ledger.secrets();
        own.into_iter().find(|value| secrets.is_wechat_state(value, state)).and_then(Trip::read)
    }

    /// Asks WeChat whose code it is, and gives him a token.
    async fn sign_in(
        &self,
        wechat: &Wechat,
        way: Way,
        code: &str,
        bind_to: Option<i64>,
    ) -> Result<Admitted, Failure> {
        let ledger = &self.app.ledger;
        let unknown = match bind_to {
            Some(member_id) => Unknown::BoundTo(member_id),
            None if wechat.options().create_members => Unknown::Created,
            None => Unknown::Refused,
        };
        let openid = wechat.openid(way, code).await?;
        let key = (wechat.app(way)?.appid.as_str(), openid.as_str());
        let SignedIn { member_id, is_new } = match wechat::sign_in(ledger, key, unknown, &self.request_id)
            .await
        {
            Ok(signed_in) => signed_in,
            Err(SignInError::Execute(error)) => return Err(error.into()),
            Err(SignInError::Unknown) => {
                let sentence = match self.language {
                    Language::Traditional => "此微信尚未綁定會員",
                    Language::Simplified => "此微信尚未绑定会员",
                    Language::English => "this WeChat is bound to no member",
                };
                return Err(Failure::Said(&refusal::NO_SUCH_MEMBER, sentence.to_owned()));
            }
            Err(SignInError::BoundElsewhere) => {
                let sentence = match self.language {
                    Language::Traditional => "此微信已屬其他會員，或會員已綁定其他微信",
                    Language::Simplified => "此微信已属其他会员，或会员已绑定其他微信",
                    Language::English => "this WeChat is another member's, or the member has another WeChat",
                };
                return Err(Failure::Said(&refusal::SIGN_IN_REFUSED, sentence.to_owned()));
            }
        };
        let token = Token::new(Caller::Member(member_id), ledger.clock().now_ms(), TOKEN_TTL_S);
        Ok(Admitted {
            token: token.sign(ledger.secrets()),
            expires_date: token.expires_at_s,
            member_id,
            is_new: i64::from(is_new),
        })
    }
}

/// Sends a browser on, with nothing kept and nothing told of where it was.
fn redirect(to: &str) -> Result<Response, Failure> {
    let to = HeaderValue::from_str(to).map_err(|_| Failure::SignInRefused(None))?;
    let headers = [
        (header::LOCATION, to),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    Ok((StatusCode::FOUND, headers).into_response())
}

#[cfg(test)]
mod tests {
    use super::own_address;

    #[test]
    fn a_browser_is_sent_back_to_the_merchants_own_pages_only() {
        let origins = ["https://pages.example".to_owned()];
        let own = |text: &str| own_address(text, "https://Coupons.example/base", &origins);
        for (text, address) in [
            ("/", "https://coupons.example/"),
            ("/pages/a?b=c&d=%20", "https://coupons.example/pages/a?b=c&d=%20"),
            ("https://coupons.example/a", "https://coupons.example/a"),
            ("https://Pages.example/a?b", "https://Pages.example/a?b"),
            ("https://pages.example", "https://pages.example"),
        ] {
            assert_eq!(own(text).as_deref(), Some(address));
        }
        for elsewhere in [
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example/",
            "http://pages.example/",
            "https://pages.example.evil.example/",
            "https://pages.example@evil.example/",
            "https://pages.example:444/",
            "https:/evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,a",
            "pages/a",
            "/a#token=forged",
            "/a b",
            "/a\nb",
            "/\u{9}/evil.example",
            "/é",
        ] {
            assert_eq!(own(elsewhere), None, "{elsewhere}");
        }
    }
}
