//! A witness's HTTP side: one call (c2sp.org/tlog-witness), for anybody who has a checkpoint of the log.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt as _, Limited};

use crate::audit::witness::{MAX_REQUEST_BYTES, Witness};

/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a witness answers.
pub fn router(witness: Arc<Witness>) -> Router {
    Router::new()
        .route("/add-checkpoint", post(add_checkpoint))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(witness)
}

async fn add_checkpoint(State(witness): State<Arc<Witness>>, body: Body) -> Response {
    let reading = Limited::new(body, MAX_REQUEST_BYTES).collect();
    let body = match tokio::time::timeout(PATIENCE, reading).await {
        Err(_) => return StatusCode::REQUEST_TIMEOUT.into_response(),
        Ok(Err(_)) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Ok(Ok(body)) => body.to_bytes(),
    };
    // A task of its own: what is remembered is answered, even if the log has gone away meanwhile.
    let Ok(said) = tokio::spawn(async move { witness.add_checkpoint(&body).await }).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let status = StatusCode::from_u16(said.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, said.content_type)], said.body).into_response()
}
