//! Signing in through a provider of OpenID Connect: the code flow with PKCE, for whoever an operator has linked.
//!
//! Hides the protocol and the provider's servers. Promises that whoever comes back is the one who went (state, in a cookie that
//! is signed), with an answer that was made for this very sign-in (nonce, PKCE) by this very provider (signature, issuer,
//! audience, time). Must never put the client's secret, a code or a token into an error or a log line.

use std::pin::Pin;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::DateTime;
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreJwsSigningAlgorithm, CoreProviderMetadata,
};
use openidconnect::{
    AsyncHttpClient, AuthorizationCode, ClientId, ClientSecret, CsrfToken, HttpRequest, HttpResponse,
    IssuerUrl, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, TokenResponse as _,
};
use serde::{Deserialize, Serialize};

use crate::account::Hidden;
use crate::outgoing::{Limits, Outgoing, Plain, Reach, Unanswered};
use crate::value::random;

/// How long somebody may take at the provider.
pub const SIGN_IN_LASTS_MS: i64 = 10 * 60_000;

/// The largest answer that is read.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// How long the provider may take for each answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many wait for it at a time.
const MAX_CALLS: usize = 128;

/// How long what a provider says of itself is believed: its keys change now and then.
const KNOWN_FOR: Duration = Duration::from_secs(3_600);

/// The signatures that are accepted. None with a shared secret, and none without any.
const ALGORITHMS: [CoreJwsSigningAlgorithm; 7] = [
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
    CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
    CoreJwsSigningAlgorithm::RsaSsaPssSha256,
    CoreJwsSigningAlgorithm::EcdsaP256Sha256,
    CoreJwsSigningAlgorithm::EcdsaP384Sha384,
    CoreJwsSigningAlgorithm::EdDsa,
];

/// A provider, and what we are to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcOptions {
    /// Its issuer, a URL.
    pub issuer: String,
    /// Our id there.
    pub client_id: String,
    /// Our secret there.
    pub client_secret: Hidden,
}

impl OidcOptions {
    /// A provider, if it is reached by https, or by http on this machine.
    pub fn new(issuer: &str, client_id: &str, client_secret: &str) -> Result<Self, String> {
        let url = IssuerUrl::new(issuer.to_owned()).map_err(|error| format!("{issuer}: {error}"))?;
        if !Plain::Here.allows(url.url().scheme(), url.url().host_str().unwrap_or_default()) {
            return Err(format!("{issuer} must begin with https://, or with http:// on this machine"));
        }
        if client_id.trim().is_empty() || client_secret.trim().is_empty() {
            return Err("a provider needs our id and our secret there".to_owned());
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            client_id: client_id.trim().to_owned(),
            client_secret: Hidden(client_secret.trim().to_owned()),
        })
    }
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The provider does not answer, or not as one does.
    #[error("the provider does not answer: {0}")]
    Unavailable(&'static str),
    /// What came back does not show who it is.
    #[error("refused: {0}")]
    Refused(&'static str),
}

/// A sign-in that was begun: it goes along in the browser's cookie.
#[derive(Clone, Serialize, Deserialize)]
pub struct Begun {
    state: String,
    nonce: String,
    verifier: String,
    lapses_at_ms: i64,
}

impl Begun {
    /// As it is signed and travels.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// What a text says, whose signature was checked.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
    }
}

/// Asks the provider.
pub struct Provider {
    options: OidcOptions,
    outgoing: Outgoing,
    known: tokio::sync::Mutex<Option<(CoreProviderMetadata, Instant)>>,
}

impl Provider {
    /// A provider that is asked when somebody comes.
    #[must_use]
    pub fn new(options: OidcOptions) -> Self {
        let outgoing = Outgoing::new(Limits {
            patience: PATIENCE,
            max_answer_bytes: MAX_ANSWER_BYTES,
            max_calls: MAX_CALLS,
            // Also where its document names other places: our secret goes there.
            plain: Plain::Here,
            reach: Reach::Anywhere,
        });
        Self { options, outgoing, known: tokio::sync::Mutex::default() }
    }

    /// Whose word it is.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.options.issuer
    }

    /// Where to send a browser, and what it takes along.
    pub async fn begin(&self, redirect: &str, now_ms: i64) -> Result<(String, Begun), OidcError> {
        let begun = Begun {
            state: URL_SAFE_NO_PAD.encode(random::<24>()),
            nonce: URL_SAFE_NO_PAD.encode(random::<24>()),
            verifier: URL_SAFE_NO_PAD.encode(random::<32>()),
            lapses_at_ms: now_ms.saturating_add(SIGN_IN_LASTS_MS),
        };
        let metadata = self.metadata(false).await?;
        let client = self.client(metadata, redirect)?;
        let verifier = PkceCodeVerifier::new(begun.verifier.clone());
        let (state, nonce) = (begun.state.clone(), begun.nonce.clone());
        let (url, _, _) = client
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(&verifier))
            .url();
        Ok((url.to_string(), begun))
    }

    /// Who came back: the provider's own name of him.
    pub async fn finish(
        &self,
        redirect: &str,
        begun: &Begun,
        (state, code): (&str, &str),
        now_ms: i64,
    ) -> Result<String, OidcError> {
        if state != begun.state || now_ms >= begun.lapses_at_ms {
            return Err(OidcError::Refused("this sign-in was not begun here, or too long ago"));
        }
        let client = self.client(self.metadata(false).await?, redirect)?;
        let exchange = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|_| OidcError::Unavailable("it names no token endpoint"))?
            .set_pkce_verifier(PkceCodeVerifier::new(begun.verifier.clone()));
        let answer = match exchange.request_async(&self.outgoing).await {
            Ok(answer) => answer,
            Err(openidconnect::RequestTokenError::ServerResponse(_)) => {
                return Err(OidcError::Refused("the provider does not take the code"));
            }
            Err(_) => return Err(OidcError::Unavailable("no token")),
        };
        let id_token = answer.id_token().ok_or(OidcError::Refused("the provider gave no id token"))?;
        let nonce = Nonce::new(begun.nonce.clone());
        // Its keys may have changed since they were read.
        for again in [false, true] {
            let client = self.client(self.metadata(again).await?, redirect)?;
            let verifier = client
                .id_token_verifier()
                .set_allowed_algs(ALGORITHMS)
                .set_time_fn(move || DateTime::from_timestamp_millis(now_ms).unwrap_or_default());
            if let Ok(claims) = id_token.claims(&verifier, &nonce) {
                return Ok(claims.subject().to_string());
            }
        }
        Err(OidcError::Refused("the id token does not hold"))
    }

    /// What the provider says of itself, its keys among it.
    async fn metadata(&self, anew: bool) -> Result<CoreProviderMetadata, OidcError> {
        let mut known = self.known.lock().await;
        if let Some((metadata, at)) = &*known
            && !anew
            && at.elapsed() < KNOWN_FOR
        {
            return Ok(metadata.clone());
        }
        let issuer = IssuerUrl::new(self.options.issuer.clone());
        let issuer = issuer.map_err(|_| OidcError::Unavailable("its issuer is no URL"))?;
        let metadata = CoreProviderMetadata::discover_async(issuer, &self.outgoing).await;
        let metadata = metadata.map_err(|_| OidcError::Unavailable("no discovery document"))?;
        *known = Some((metadata.clone(), Instant::now()));
        Ok(metadata)
    }
}

/// What a client is once a provider's document is read.
type KnownClient = CoreClient<
    openidconnect::EndpointSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointNotSet,
    openidconnect::EndpointMaybeSet,
    openidconnect::EndpointMaybeSet,
>;

impl Provider {
    fn client(&self, metadata: CoreProviderMetadata, redirect: &str) -> Result<KnownClient, OidcError> {
        let redirect = RedirectUrl::new(redirect.to_owned());
        let redirect = redirect.map_err(|_| OidcError::Unavailable("our public URL is none"))?;
        let secret = ClientSecret::new(self.options.client_secret.0.clone());
        let id = ClientId::new(self.options.client_id.clone());
        Ok(CoreClient::from_provider_metadata(metadata, id, Some(secret)).set_redirect_uri(redirect))
    }
}

impl<'c> AsyncHttpClient<'c> for Outgoing {
    type Error = Unanswered;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Unanswered>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async { Ok(self.ask(request.map(Bytes::from)).await?.map(Vec::from)) })
    }
}
