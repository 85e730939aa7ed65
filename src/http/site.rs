//! What is served beside the manual's routes: health, metrics, the API's description, and the pages behind QR codes.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use super::{App, openapi};
use crate::clock::day_number;
use crate::followers;
use crate::read_model::{pages, partners};
use crate::store::MAX_CLOCK_SKEW_MS;

pub(super) fn router() -> Router<App> {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/qr/{shop_id}/{audit_key}/{signature}", get(shop_page))
        .route("/partner/{partner_id}/{signature}", get(partner_page))
}

/// Swagger UI from the binary itself: it works without a network.
pub(super) fn docs() -> Router {
    let config = utoipa_swagger_ui::Config::new(["/openapi.json"])
        .try_it_out_enabled(true)
        .persist_authorization(true)
        // Swagger UI would otherwise send the description's address to a validator on the internet.
        .validator_url("none");
    utoipa_swagger_ui::SwaggerUi::new("/docs")
        .external_url_unchecked("/openapi.json", openapi::document())
        .config(config)
        .into()
}

async fn ready(State(app): State<App>) -> Response {
    let ledger = &app.ledger;
    let ping = ledger.store().ping(ledger.clock().now_ms());
    let unready =
        |why: String| (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response();
    match tokio::time::timeout(std::time::Duration::from_secs(2), ping).await {
        Err(_) => unready("the database does not answer".to_owned()),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            unready("the database is away".to_owned())
        }
        Ok(Ok(skew_ms)) => {
            ledger.metrics().clock_skew_ms.set(skew_ms);
            if ledger.clock().is_system() && skew_ms.abs() > MAX_CLOCK_SKEW_MS {
                return unready(format!("the clock is {skew_ms} ms off the database's"));
            }
            // How far followers are behind keeps nobody from taking commands.
            format!("ready\n{}", followers::measured(ledger.metrics())).into_response()
        }
    }
}

async fn metrics(State(app): State<App>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.ledger.metrics().text()).into_response()
}

/// What a browser shows that opens a shop's QR: the shop's name, if the QR is ours and not revoked.
async fn shop_page(
    State(app): State<App>,
    Path((shop, key, signature)): Path<(String, String, String)>,
) -> Response {
    let url = format!("{}/qr/{shop}/{key}/{signature}", app.options.public_url.trim_end_matches('/'));
    let row = match app.ledger.secrets().signed_shop(&url) {
        None => None,
        Some((id, audit_key)) => match pages::place(app.ledger.store(), id).await {
            Ok(shop) => shop.filter(|shop| shop.open && shop.audit_key == audit_key),
            Err(_) => return (StatusCode::SERVICE_UNAVAILABLE, "503\n").into_response(),
        },
    };
    page(row.map(|shop| (shop.name, Vec::new())))
}

/// What a browser shows that opens a partner's QR: his name and what can be taken from him now.
async fn partner_page(
    State(app): State<App>,
    Path((partner, signature)): Path<(String, String)>,
) -> Response {
    let url = format!("{}/partner/{partner}/{signature}", app.options.public_url.trim_end_matches('/'));
    let Some(id) = app.ledger.secrets().signed_partner(&url) else {
        return page(None);
    };
    let (store, today) = (app.ledger.store(), day_number(app.ledger.now().day));
    let found = tokio::join!(partners::partner(store, id), partners::open_allotments(store, id, today));
    match found {
        (Ok(partner), Ok(allotments)) => {
            let left = allotments.into_iter().filter(|row| row.left() > 0).map(|row| row.title);
            page(partner.filter(|partner| partner.open).map(|partner| (partner.name, left.collect())))
        }
        _ => (StatusCode::SERVICE_UNAVAILABLE, "503\n").into_response(),
    }
}

/// A plain page with a name and lines below it, or one that says that the QR is not ours.
fn page(found: Option<(String, Vec<String>)>) -> Response {
    let (status, title, lines) = match found {
        Some((name, lines)) => (StatusCode::OK, escape(&name), lines),
        None => (StatusCode::NOT_FOUND, "二維碼無效".to_owned(), Vec::new()),
    };
    let lines = lines.iter().fold(String::new(), |lines, line| lines + "<p>" + &escape(line) + "</p>");
    let page = format!(
        "<!doctype html><html lang=\"zh-Hant\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title><h1>{title}</h1>{lines}</html>"
    );
    (status, Html(page)).into_response()
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
