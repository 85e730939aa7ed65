//! The page behind a one-time link: it lets somebody choose a name and a password, and works without a script as well.
//!
//! What follows `#` in the link is never sent by a browser, so neither logs nor a `Referer` hold it: a small script puts it
//! into the form, or one copies it by hand.

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;

use super::form::Form;
use super::site::escape;
use super::{App, Asker, Failure, MAX_BODY_BYTES, language, request_id};
use crate::refusal::{self, Language};
use crate::sign_in::{ByCode, MAX_NAME, MAX_PASSWORD, SignInError};

const SCRIPT: &str = "const code = document.querySelector('input[name=code]');
if (code && location.hash.length > 1) {
  code.value = location.hash.slice(1);
  history.replaceState(null, '', location.pathname);
}
";

/// Nothing but our own script, and no page around it.
const POLICY: &str =
    "default-src 'none'; script-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn router() -> Router<App> {
    let script = || async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT) };
    Router::new()
        .route(
            "/setup",
            get(|headers: HeaderMap| async move { form(StatusCode::OK, &headers, None) }).post(choose),
        )
        .route("/setup.js", get(script))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
}

async fn choose(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    let (language, request_id) = (language(&headers), request_id(&headers));
    let read = || {
        let mut form = Form::from_form(&body).ok()?;
        let (code, password) = (form.text("code", 200), form.text("password", MAX_PASSWORD));
        let name = form.optional_text("name", MAX_NAME).filter(|name| !name.trim().is_empty());
        form.finish().ok().map(|_| (code, password, name))
    };
    let Some((code, password, name)) = read() else {
        return form(StatusCode::BAD_REQUEST, &headers, Some(words(language).refused));
    };
    let asked = ByCode { code: &code, name: name.as_deref(), password: &password, receipt: None };
    match app.sign_in.set_password(&asked, request_id.clone()).await {
        Ok(_) => page(StatusCode::OK, words(language).done, ""),
        Err(SignInError::Field(field, why)) => {
            form(StatusCode::BAD_REQUEST, &headers, Some(&why.text(field, language)))
        }
        Err(SignInError::Refused { .. }) => {
            Asker::default().refused(&app, "/setup", refusal::SIGN_IN_REFUSED.code);
            form(StatusCode::FORBIDDEN, &headers, Some(words(language).refused))
        }
        Err(error) => {
            let refused = Failure::from(error).answer(language, &request_id);
            let status = if refused.status == StatusCode::OK { StatusCode::CONFLICT } else { refused.status };
            form(status, &headers, Some(refused.wording.text(language)))
        }
    }
}

/// What the page says, in one language.
struct Words {
    title: &'static str,
    code: &'static str,
    name: &'static str,
    password: &'static str,
    send: &'static str,
    done: &'static str,
    refused: &'static str,
}

fn words(language: Language) -> &'static Words {
    match language {
        Language::Traditional => &Words {
            title: "設置帳號",
            code: "一次性代碼",
            name: "登錄名（字母、數字、. _ -；已有則可留空）",
            password: "新密碼（至少10個字）",
            send: "確定",
            done: "已設置，現在可以登錄。",
            refused: "代碼錯誤、已使用或已失效，或有欄位未填。",
        },
        Language::Simplified => &Words {
            title: "设置帐号",
            code: "一次性代码",
            name: "登录名（字母、数字、. _ -；已有则可留空）",
            password: "新密码（至少10个字）",
            send: "确定",
            done: "已设置，现在可以登录。",
            refused: "代码错误、已使用或已失效，或有栏位未填。",
        },
        Language::English => &Words {
            title: "Set up an account",
            code: "One-time code",
            name: "Name to sign in with (letters, digits, . _ -; may stay empty where there is one)",
            password: "New password (at least 10 characters)",
            send: "OK",
            done: "Done: you can sign in now.",
            refused: "The code is wrong, used or too old, or a field is missing.",
        },
    }
}

fn form(status: StatusCode, headers: &HeaderMap, complaint: Option<&str>) -> Response {
    let words = words(language(headers));
    let complaint =
        complaint.map_or_else(String::new, |text| format!("<p role=\"alert\">{}</p>", escape(text)));
    let Words { code, name, password, send, .. } = words;
    let body = format!(
        "{complaint}<form method=\"post\" action=\"setup\" autocomplete=\"off\">\
         <p><label>{code}<br><input name=\"code\" required maxlength=\"200\"></label></p>\
         <p><label>{name}<br><input name=\"name\" maxlength=\"{MAX_NAME}\" autocomplete=\"username\"></label></p>\
         <p><label>{password}<br><input name=\"password\" type=\"password\" required minlength=\"10\" \
         maxlength=\"{MAX_PASSWORD}\" autocomplete=\"new-password\"></label></p>\
         <p><button>{send}</button></p></form><script src=\"setup.js\"></script>"
    );
    page(status, words.title, &body)
}

pub(super) fn page(status: StatusCode, title: &str, body: &str) -> Response {
    let page = format!(
        "<!doctype html><html><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title}</title><h1>{title}</h1>{body}</html>"
    );
    (status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(page)).into_response()
}
