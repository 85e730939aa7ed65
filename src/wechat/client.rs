//! Asks WeChat's servers for the openid behind a code.
//!
//! Whatever they answer, or do not, is one of five words ([`NoOpenid`]) within a few seconds. A code is good once: only an
//! answer that says itself that nothing was done is asked again. Must never let the secret, a code, an openid or a session key
//! into an error or a log line; the session key and the access token are not even read.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::{Request, StatusCode, Uri, header};
use serde::Deserialize;

use crate::outgoing::{Call, Limits, Outgoing, Plain, Reach, Unanswered};

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 64 << 10;

/// How often WeChat is asked again that says it is busy, and before the first time; twice as long before the second.
const MAX_RETRIES: u32 = 2;
const PAUSE: Duration = Duration::from_millis(100);

/// An app of the merchant's at WeChat: a mini program or an official account.
#[derive(Clone, PartialEq, Eq)]
pub struct WechatApp {
    /// Its id, which is no secret.
    pub appid: String,
    secret: String,
}

impl WechatApp {
    /// An app with its secret.
    ///
    /// # Errors
    /// Where they do not look like any; what was given is not repeated.
    pub fn new(appid: &str, secret: &str) -> Result<Self, &'static str> {
        let is_word = |text: &str| {
            let letters =
                text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            (1..=128).contains(&text.len()) && letters
        };
        let (appid, secret) = (appid.trim(), secret.trim());
        if !is_word(appid) {
            return Err("the appid must be 1 to 128 letters and digits");
        }
        if !is_word(secret) {
            return Err("the app's secret must be 1 to 128 letters and digits");
        }
        Ok(Self { appid: appid.to_owned(), secret: secret.to_owned() })
    }
}

impl fmt::Debug for WechatApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WechatApp({})", self.appid)
    }
}

/// How members sign in through WeChat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WechatOptions {
    /// The mini program.
    pub mini: Option<WechatApp>,
    /// The official account behind the pages that are opened in WeChat's browser.
    pub h5: Option<WechatApp>,
    /// Where WeChat's servers are asked.
    pub base_url: String,
    /// Where browsers are sent.
    pub authorize_url: String,
    /// Whether somebody whom nobody knows becomes a member by signing in.
    pub create_members: bool,
    /// Where else than on the ledger's own origin a browser may be sent back to: `https://pages.example`.
    pub return_origins: Vec<String>,
    /// How long WeChat may take in all.
    pub patience: Duration,
    /// How many wait for WeChat at a time.
    pub max_calls: usize,
}

impl Default for WechatOptions {
    fn default() -> Self {
        Self {
            mini: None,
            h5: None,
            base_url: "https://api.weixin.qq.com".to_owned(),
            authorize_url: "https://open.weixin.qq.com".to_owned(),
            create_members: false,
            return_origins: Vec::new(),
            patience: Duration::from_secs(5),
            max_calls: 128,
        }
    }
}

impl WechatOptions {
    /// An address that secrets or members are sent to, without its last `/`: https, or http on this machine.
    pub fn address(text: &str) -> Result<String, String> {
        let text = text.trim_end_matches('/');
        let uri: Uri = text.parse().map_err(|error| format!("{text}: {error}"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if ["https", "http"].contains(&scheme) && (has_user || uri.query().is_some()) {
            return Err("an address has no user and no query".to_owned());
        }
        if !Plain::Here.allows(scheme, uri.host().unwrap_or_default()) {
            return Err(format!("{text} must begin with https://, or with http:// on this machine"));
        }
        Ok(text.to_owned())
    }

    /// An origin as browsers name it: scheme, host and port only, in small letters.
    pub fn origin(text: &str) -> Result<String, String> {
        let address = Self::address(text)?;
        let path = address.parse::<Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
        if path.is_empty() || path == "/" {
            Ok(address.to_ascii_lowercase())
        } else {
            Err(format!("{text} must be an origin, like https://pages.example"))
        }
    }
}

/// Which of WeChat's ways to sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A mini program.
    Mini,
    /// A page in WeChat's browser.
    H5,
}

impl Way {
    fn path(self) -> &'static str {
        match self {
            Self::Mini => "/sns/jscode2session",
            Self::H5 => "/sns/oauth2/access_token",
        }
    }

    fn code_field(self) -> &'static str {
        match self {
            Self::Mini => "js_code",
            Self::H5 => "code",
        }
    }

    fn away(self, error: &Unanswered) -> NoOpenid {
        NoOpenid::Unavailable { path: self.path(), why: error.to_string() }
    }
}

/// Why there is no openid. Nothing secret is in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoOpenid {
    /// This server was given no app of that kind.
    #[error("WeChat is not configured")]
    NotConfigured,
    /// The code is wrong, old or used, or WeChat blocks whose it is.
    #[error("WeChat refuses the code")]
    Refused,
    /// WeChat has been asked too often about him.
    #[error("WeChat is asked too often")]
    TooOften,
    /// WeChat says that it is busy.
    #[error("{0} says that it is busy")]
    Busy(&'static str),
    /// It cannot be reached, or what it answers is no answer; what was asked, and what is wrong.
    #[error("{path}: {why}")]
    Unavailable {
        /// The path that was asked, without its query.
        path: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// WeChat's servers.
pub struct Wechat {
    options: WechatOptions,
    outgoing: Outgoing,
}

impl Wechat {
    /// What asks them. Nothing is asked yet.
    #[must_use]
    pub fn new(options: WechatOptions) -> Self {
        let outgoing = Outgoing::new(Limits {
            patience: options.patience,
            max_answer_bytes: MAX_ANSWER_BYTES,
            max_calls: options.max_calls,
            plain: Plain::Here,
            reach: Reach::Anywhere,
        });
        Self { options, outgoing }
    }

    /// The settings.
    #[must_use]
    pub fn options(&self) -> &WechatOptions {
        &self.options
    }

    /// The app of a way to sign in.
    pub fn app(&self, way: Way) -> Result<&WechatApp, NoOpenid> {
        let app = match way {
            Way::Mini => self.options.mini.as_ref(),
            Way::H5 => self.options.h5.as_ref(),
        };
        app.ok_or(NoOpenid::NotConfigured)
    }

    /// The openid behind a code. Who comes while too many wait is told so at once: a WeChat that hangs holds nothing here but
    /// those.
    pub async fn openid(&self, way: Way, code: &str) -> Result<String, NoOpenid> {
        let app = self.app(way)?;
        let call = self.outgoing.call().map_err(|error| way.away(&error))?;
        let mut retries = 0;
        loop {
            match self.ask(&call, way, app, code).await {
                Err(NoOpenid::Busy(_)) if retries < MAX_RETRIES => {
                    retries += 1;
                    call.pause(PAUSE * retries).await.map_err(|error| way.away(&error))?;
                }
                answer => return answer,
            }
        }
    }

    async fn ask(&self, call: &Call<'_>, way: Way, app: &WechatApp, code: &str) -> Result<String, NoOpenid> {
        let path = way.path();
        let away = |why: String| NoOpenid::Unavailable { path, why };
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("appid", &app.appid)
            .append_pair("secret", &app.secret)
            .append_pair(way.code_field(), code)
            .append_pair("grant_type", "authorization_code")
            .finish();
        // The error of a builder would not name the address either, but that is not its promise.
        let request = Request::get(format!("{}{path}?{query}", self.options.base_url))
            .body(Bytes::new())
            .map_err(|_| away("it cannot be asked".to_owned()))?;
        let answer = call.ask(request).await.map_err(|error| way.away(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(away(format!("it answers {}", answer.status().as_u16())));
        }
        let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        // It says of its JSON that it is plain text.
        if kind != "text/plain" && kind != "application/json" {
            return Err(away("its answer is of another type".to_owned()));
        }
        read(path, answer.body())
    }
}

impl fmt::Debug for Wechat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wechat({:?})", self.options)
    }
}

/// What of an answer is read.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    errcode: i64,
    #[serde(default)]
    openid: String,
}

/// The openid in an answer, or what its code means.
fn read(path: &'static str, body: &[u8]) -> Result<String, NoOpenid> {
    let away = |why: String| NoOpenid::Unavailable { path, why };
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return Err(away("its answer is not understood".to_owned()));
    };
    match answer.errcode {
        0 => {
            let openid = answer.openid;
            let is_word =
                openid.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
            if is_word && (1..=128).contains(&openid.len()) {
                Ok(openid)
            } else {
                Err(away("its answer has no openid".to_owned()))
            }
        }
        -1 => Err(NoOpenid::Busy(path)),
        // Wrong, used, old, missing; and whom WeChat blocks.
        40029 | 40163 | 42003 | 41008 | 40226 => Err(NoOpenid::Refused),
        45011 => Err(NoOpenid::TooOften),
        code => {
            let means = match code {
                40013 => ": the appid is wrong",
                40001 | 40125 => ": the app's secret is wrong",
                40164 => ": this server's address is not on the app's list",
                _ => "",
            };
            Err(away(format!("it answers errcode {code}{means}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_an_openid_or_a_word() {
        let read = |body: &str| read("/sns/jscode2session", body.as_bytes());
        assert_eq!(read(r#"{"session_key":"s==","openid":"oAb-1_2"}"#), Ok("oAb-1_2".to_owned()));
        assert_eq!(read(r#"{"errcode":0,"errmsg":"ok","openid":"o1"}"#), Ok("o1".to_owned()));
        assert_eq!(
            read(r#"{"errcode":-1,"errmsg":"system error"}"#),
            Err(NoOpenid::Busy("/sns/jscode2session"))
        );
        for code in [40029, 40163, 42003, 41008, 40226] {
            assert_eq!(read(&format!(r#"{{"errcode":{code}}}"#)), Err(NoOpenid::Refused));
        }
        assert_eq!(read(r#"{"errcode":45011}"#), Err(NoOpenid::TooOften));
        for garbage in [
            "",
            "{}",
            "[]",
            "null",
            "<html>",
            r#"{"openid":""}"#,
            r#"{"openid":7}"#,
            r#"{"openid":"a b"}"#,
            r#"{"errcode":"40029"}"#,
            r#"{"errcode":40013,"openid":"o1"}"#,
            r#"{"openid":"o1""#,
            "{\"openid\":\"o\u{0}1\"}",
        ] {
            assert!(matches!(read(garbage), Err(NoOpenid::Unavailable { .. })), "{garbage}");
        }
        assert!(read(&format!(r#"{{"openid":"{}"}}"#, "o".repeat(129))).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        let app = WechatApp::new("wx1", "5ecre7").unwrap();
        let options = WechatOptions { mini: Some(app), ..WechatOptions::default() };
        let shown = format!("{options:?} {:?}", Wechat::new(options.clone()));
        assert!(shown.contains("wx1") && !shown.contains("5ecre7"), "{shown}");
        for (appid, secret) in [("", "a"), ("a", ""), ("a", "a b"), ("a\n1", "b"), ("a", "é")] {
            let refused = WechatApp::new(appid, secret).unwrap_err();
            assert!(!refused.contains('é'), "{refused}");
        }
    }

    #[test]
    fn secrets_go_over_tls_or_stay_on_this_machine() {
        for address in
            ["https://api.weixin.qq.com", "http://127.0.0.1:1/", "http://[::1]:1", "http://localhost:1/a"]
        {
            assert_eq!(WechatOptions::address(address).unwrap(), address.trim_end_matches('/'));
        }
        for address in [
            "",
            "http://api.weixin.qq.com",
            "ftp://a",
            "api.weixin.qq.com",
            "https://a/?b",
            "https://a@b",
            "http://127.0.0.1.b",
        ] {
            assert!(WechatOptions::address(address).is_err(), "{address}");
        }
        assert_eq!(WechatOptions::origin("https://Pages.example/").unwrap(), "https://pages.example");
        assert!(WechatOptions::origin("https://pages.example/a").is_err());
    }
}
