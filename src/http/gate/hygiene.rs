//! What every answer tells a browser: take nothing for what it does not say it is, run and frame nothing, keep nothing, tell
//! nobody where you were; and which other sites' scripts may call.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::address::short;

/// What an answer may load and run: nothing. Pages that need more say so themselves.
const NOTHING: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The API's documentation runs its own scripts, puts style on its elements, and has pictures in its style sheet.
const DOCS: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
    font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The headers that scripts of other sites may send and read, beside those that they always may.
const SENT: [&str; 6] =
    ["authorization", "token", "content-type", "idempotency-key", "accept-language", "x-request-id"];
const READ: [&str; 3] = ["retry-after", "idempotency-replayed", "x-request-id"];

/// How long a browser remembers what another site may do.
const PREFLIGHT_HOLDS: Duration = Duration::from_secs(600);

/// A site whose scripts may call: scheme, host and port, as a browser sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

impl Origin {
    /// Reads an origin, to the letter: what a browser would not send so would never be equal. An error is a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let wrong = || {
            format!(
                "--cors-origins: {:?} is no origin; give them exactly as browsers send them, like https://app.example:8443",
                short(text)
            )
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        let usual_port = if scheme == "https" { ":443" } else { ":80" };
        let is_plain = !authority.host().is_empty()
            && authority
                .as_str()
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte));
        let port_is_one = !authority.as_str().ends_with(':') && !authority.as_str().ends_with(usual_port);
        if text != format!("{scheme}://{authority}") || !is_plain || !port_is_one {
            return Err(wrong());
        }
        HeaderValue::from_str(text).map(Self).map_err(|_| wrong())
    }

    /// Whether nobody on the way can put scripts into that site.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.as_bytes().starts_with(b"https://")
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What answers other sites' preflights; None where no other site may call. Credentials that a browser would send by
/// itself are allowed to none.
pub(super) fn cors(origins: &[Origin]) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = origins.iter().map(|origin| origin.0.clone()).collect();
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(SENT.map(HeaderName::from_static))
            .expose_headers(READ.map(HeaderName::from_static))
            .max_age(PREFLIGHT_HOLDS)
    })
}

/// Puts on an answer what it does not say itself.
pub(super) async fn dress(State(is_https): State<bool>, request: Request, next: Next) -> Response {
    let is_docs = request.uri().path().starts_with("/docs");
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    say(header::X_FRAME_OPTIONS, "DENY");
    say(header::CONTENT_SECURITY_POLICY, if is_docs { DOCS } else { NOTHING });
    // The documentation is part of the program and nobody's own; what has not changed need not be sent again.
    say(header::CACHE_CONTROL, if is_docs { "no-cache" } else { "no-store" });
    if is_https {
        say(header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    response
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn an_origin_is_what_a_browser_sends_to_the_letter() {
        for good in
            ["https://app.example", "https://app.example:8443", "http://127.0.0.1:3000", "http://[::1]:3000"]
        {
            assert_eq!(Origin::parse(good).unwrap().text(), good);
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example",
            "//app.example",
            "https://",
            "https://app.example/",
            "https://app.example/x",
            "https://app.example?x",
            "https://*.example",
            "https://APP.example",
            "HTTPS://app.example",
            "https://user@app.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:",
            "ftp://app.example",
            "file:///x",
            "https://app.example https://b.example",
            "https://餐.example",
            "javascript:alert(1)",
        ] {
            let refused = Origin::parse(bad).unwrap_err();
            assert!(refused.starts_with("--cors-origins: "), "{refused}");
        }
    }
}
