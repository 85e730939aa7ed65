//! Signed requests as they come over HTTP: read whole before anything else, because the body is part of what was signed.

use axum::body::Body;
use axum::extract::{OriginalUri, Request};
use axum::http::HeaderMap;

use super::{App, Asker, Failure, Identified, MAX_BODY_BYTES, Proof, read_body};
use crate::access::Principal;
use crate::identity::Caller;
use crate::signed_request::{HEADERS, Signed};

/// The header that makes a request a signed one. Whatever else such a request shows of who it comes from is not looked at.
const SIGNATURE: &str = "x-signature";

/// Whoever a request proves to come from, by a signature or by what it shows, and the request as it goes on.
pub(super) async fn admit(
    app: &App,
    request: Request,
    asker: &Asker,
) -> Result<(Identified, Request), Failure> {
    if !request.headers().contains_key(SIGNATURE) {
        return Ok((app.identify(request.headers(), true, asker).await?, request));
    }
    let (store, now_ms) = (app.ledger.store(), app.ledger.clock().now_ms());
    let signed = read(request.headers()).ok_or(Failure::NotSignedIn)?;
    let keys = signed.keys(store, now_ms).await?;
    if keys.is_empty() {
        return Err(Failure::NotSignedIn);
    }
    let (parts, body) = request.into_parts();
    let body = read_body(app, (MAX_BODY_BYTES, 1), &parts.headers, body).await?;
    // What was asked for, also where the routes are served under a path of their own.
    let asked = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |original| &original.0);
    let path = asked.path_and_query().map_or("", |path| path.as_str());
    let what = (parts.method.as_str(), path, body.as_ref());
    let partner = signed.partner(store, &keys, what, now_ms).await?.ok_or(Failure::NotSignedIn)?;
    let who = Principal::plain(Caller::Partner(partner));
    asker.is(who.caller);
    let identified = Identified { who, employee: None, proof: Proof::Signature };
    Ok((identified, Request::from_parts(parts, Body::from(body))))
}

/// The headers of a signed request, each there once.
fn read(headers: &HeaderMap) -> Option<Signed> {
    let mut values = [""; HEADERS.len()];
    for (value, name) in values.iter_mut().zip(HEADERS) {
        let mut given = headers.get_all(name).iter();
        *value = given.next()?.to_str().ok()?;
        if given.next().is_some() {
            return None;
        }
    }
    Signed::read(values)
}
