//! Signing in through a provider of OpenID Connect: where a browser is sent, and where it comes back to.
//!
//! What was begun goes along in a signed cookie that lasts ten minutes. The session ends up in the same cookie as that of
//! `/user/login`, and in no page: `/v1/session` tells a page what it needs.

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::account::session_cookie;
use super::form::Form;
use super::identify::cookie;
use super::setup::page;
use super::{App, Asker, Failure, language, refusal_response, request_id};
use crate::oidc::{Begun, OidcError, Provider, SIGN_IN_LASTS_MS};
use crate::refusal::Language;

pub(super) fn router() -> Router<App> {
    Router::new().route("/oidc/login", get(login)).route("/oidc/callback", get(callback))
}

/// The cookie of a sign-in that was begun. It comes back on a link from the provider's page, so it is `Lax`.
fn cookie_name(app: &App) -> &'static str {
    if app.is_https() { "__Host-oidc" } else { "oidc" }
}

fn begun_cookie(app: &App, value: &str, lasts_s: i64) -> String {
    let secure = if app.is_https() { "; Secure" } else { "" };
    format!("{}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Lax{secure}", cookie_name(app))
}

fn redirect_url(app: &App) -> String {
    format!("{}/oidc/callback", app.options.public_url.trim_end_matches('/'))
}

async fn login(State(app): State<App>, headers: HeaderMap) -> Response {
    let answer = async {
        let provider = app.provider.as_deref().ok_or(Failure::NotThere)?;
        let now_ms = app.ledger.clock().now_ms();
        let (url, begun) = provider.begin(&redirect_url(&app), now_ms).await.map_err(|error| told(&error))?;
        let signed = app.ledger.secrets().sign_begun(&begun.text());
        let cookie = begun_cookie(&app, &signed, SIGN_IN_LASTS_MS / 1000);
        Ok::<_, Failure>(
            (StatusCode::FOUND, [(header::LOCATION, url), (header::SET_COOKIE, cookie)]).into_response(),
        )
    };
    finish(answer.await, (&app, "/oidc/login"), &headers)
}

async fn callback(State(app): State<App>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let task_app = app.clone();
    let task_headers = headers.clone();
    // A task of its own: what was accepted is finished even if the browser goes away.
    let answering = tokio::spawn(async move {
        let query = query.unwrap_or_default();
        sign_in(&task_app, &query, &task_headers).await
    });
    let mut response =
        finish(answering.await.unwrap_or(Err(Failure::Panicked)), (&app, "/oidc/callback"), &headers);
    // Whatever came of it, it is not begun a second time.
    if let Ok(gone) = HeaderValue::from_str(&begun_cookie(&app, "", 0)) {
        response.headers_mut().append(header::SET_COOKIE, gone);
    }
    response
}

async fn sign_in(app: &App, query: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let provider = app.provider.as_deref().ok_or(Failure::NotThere)?;
    let refused = || Failure::SignInRefused(None);
    let mut form = Form::from_form(query.as_bytes()).map_err(|_| refused())?;
    let (state, code) = (form.text("state", 200), form.text("code", 4_000));
    form.finish().map_err(|_| refused())?;
    let begun = cookie(headers, cookie_name(app)).and_then(|text| app.ledger.secrets().read_begun(text));
    let begun = begun.as_deref().and_then(Begun::parse).ok_or_else(refused)?;
    let subject = subject_of(app, provider, &begun, (&state, &code)).await?;
    let signed_in = app.sign_in.sign_in_subject(provider.issuer(), &subject, request_id(headers)).await?;
    let mut response = page(StatusCode::OK, signed_in_words(language(headers)), "");
    if let Ok(cookie) = HeaderValue::from_str(&session_cookie(app, &signed_in)) {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    Ok(response)
}

async fn subject_of(
    app: &App,
    provider: &Provider,
    begun: &Begun,
    came: (&str, &str),
) -> Result<String, Failure> {
    let now_ms = app.ledger.clock().now_ms();
    provider.finish(&redirect_url(app), begun, came, now_ms).await.map_err(|error| told(&error))
}

fn told(error: &OidcError) -> Failure {
    tracing::warn!(%error, "nobody was signed in through the provider");
    match error {
        OidcError::Unavailable(_) => Failure::TooSlow,
        OidcError::Refused(_) => Failure::SignInRefused(None),
    }
}

fn finish(
    answer: Result<Response, Failure>,
    (app, action): (&App, &'static str),
    headers: &HeaderMap,
) -> Response {
    let mut response = answer.unwrap_or_else(|failure| {
        let language = language(headers);
        let refused = failure.answer(language, &request_id(headers));
        Asker::default().refused(app, action, refused.wording.code);
        refusal_response(&refused, language)
    });
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn signed_in_words(language: Language) -> &'static str {
    match language {
        Language::Traditional => "已登錄",
        Language::Simplified => "已登录",
        Language::English => "Signed in",
    }
}
