//! The socket side: connections with limits, and a shutdown that finishes what was accepted.
//!
//! `axum::serve` has no header timeout, so a slow client would hold a connection for ever; hyper has. HTTP/1.1 only:
//! what tells it from HTTP/2 without TLS waits for a silent client without a limit, proxies speak HTTP/1.1 here, and what
//! is not spoken cannot be flooded.

mod crowd;
mod stream;

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Version, header};
use axum::response::{IntoResponse as _, Response};
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::gate::address::{Proxies, network};
use crowd::{Asking, Crowd, Place};
use stream::Impatient;

/// The largest request head, and the piece in which a body is read.
const MAX_HEAD_BYTES: usize = 32 << 10;

/// The most headers of a request.
const MAX_HEADERS: usize = 64;

/// What connections may do.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Connections at a time. Further ones wait; those that ask nothing give way to them.
    pub max_connections: usize,
    /// Connections at a time from one address (of IPv6, one /64), proxies excepted. Further ones are closed at once.
    pub max_connections_per_address: usize,
    /// How long request headers may take, and how long an idle connection is kept.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How long a shutdown waits for what was accepted.
    pub shutdown_timeout: Duration,
    /// Who stands for many.
    pub proxies: Proxies,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_connections: 4_096,
            max_connections_per_address: 1_024,
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(30),
            proxies: Proxies::default(),
        }
    }
}

/// The address at the other end of a request's connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Lets this process open as many files as it may at all, and returns how many those are: a connection is one.
#[must_use]
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let allowed = if raised.is_ok() { limit.maximum } else { limit.current };
    allowed.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// Serves until `stop` is done, then finishes what was accepted.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    stop: impl Future<Output = ()>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    let crowd = Crowd::new(options.max_connections, options.max_connections_per_address);
    let graceful = GracefulShutdown::new();
    tokio::pin!(stop);
    loop {
        let next = next_guest(&listener, &crowd, &options.proxies);
        let (stream, peer, place) = tokio::select! {
            next = next => match next {
                Some(next) => next,
                None => continue,
            },
            () = &mut stop => break,
        };
        let (router, guest) = (router.clone(), place.guest.clone());
        let service = service_fn(move |request| answer(router.clone(), guest.asks(), Peer(peer), request));
        let stream = TokioIo::new(Impatient::new(stream, options.write_timeout));
        let connection = graceful.watch(builder.serve_connection(stream, service));
        let guest = place.guest.clone();
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "connection ended");
                    }
                }
                () = guest.asked_to_leave() => tracing::trace!("an idle connection has given way"),
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(options.shutdown_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
}

/// The next connection with its place; None where it was turned away. Connections beyond the limit wait here, and behind
/// them in the listener's backlog.
async fn next_guest(
    listener: &TcpListener,
    crowd: &Arc<Crowd>,
    proxies: &Proxies,
) -> Option<(TcpStream, IpAddr, Place)> {
    let (stream, peer) = match listener.accept().await {
        Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
        Err(error) => {
            // Out of file descriptors, most likely: others must be closed first.
            tracing::warn!(%error, "accept failed");
            crowd.ask_the_idlest_to_leave();
            tokio::time::sleep(Duration::from_millis(50)).await;
            return None;
        }
    };
    let counted = (!proxies.trusts(peer)).then(|| network(peer));
    if counted.is_some_and(|address| !crowd.may_enter(address)) {
        tracing::debug!(%peer, "too many connections from one address");
        return None;
    }
    let place = crowd.enter(counted).await?;
    Some((stream, peer, place))
}

async fn answer(
    router: Router,
    asking: Asking,
    peer: Peer,
    request: hyper::Request<Incoming>,
) -> Result<Response<Watched>, Infallible> {
    let asking = Arc::new(asking);
    let is_ambiguous = hosts_are_wrong(request.version(), request.headers());
    // Where a body ends by its chunks, whoever stands in between may have seen another end: RFC 9112, 6.1 has nothing
    // more be read from such a connection.
    let is_last = is_ambiguous || request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = if is_ambiguous {
        (StatusCode::BAD_REQUEST, "400: one Host, please\n").into_response()
    } else {
        let mut request = request.map(|body| Body::new(Arriving::new(body, asking.clone())));
        request.extensions_mut().insert(peer);
        let Ok(response) = router.oneshot(request).await;
        response
    };
    if is_last {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Watched { body, _asking: asking }))
}

/// A request of HTTP/1.1 names one host (RFC 9112, 3.2); with two, each on the way may believe another.
fn hosts_are_wrong(version: Version, headers: &HeaderMap) -> bool {
    let count = headers.get_all(header::HOST).iter().count();
    count > 1 || count == 0 && version == Version::HTTP_11
}

/// A request's body: whoever does not send all of it is not at work yet.
struct Arriving {
    body: Incoming,
    asking: Arc<Asking>,
}

impl Arriving {
    fn new(body: Incoming, asking: Arc<Asking>) -> Self {
        let arriving = Self { body, asking };
        arriving.look();
        arriving
    }

    fn look(&self) {
        if self.body.is_end_stream() {
            self.asking.is_whole();
        }
    }
}

impl Drop for Arriving {
    /// What nobody reads is not waited for.
    fn drop(&mut self) {
        self.asking.is_whole();
    }
}

impl hyper::body::Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.look();
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body: the request is under way until it is sent.
struct Watched {
    body: Body,
    _asking: Arc<Asking>,
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
