//! Speaks out over HTTP: to WeChat, to a provider of OpenID Connect, to witnesses, to whoever else a server asks or tells.
//!
//! Hides connections, TLS and name resolution. Promises that whoever is asked, however he behaves, holds a bounded number of
//! callers for a bounded time and is read to a bounded length, and that he is at an address that may be reached: the one that
//! was checked is the one that is connected to. Must never follow a redirect, and never let an address with its query, a
//! header or a body into an error.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tower::Service;

/// The longest head of an answer that is read.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// How long a connection that nobody uses is kept.
const IDLE: Duration = Duration::from_secs(30);

/// What those who are asked may cost, and where they may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a call may take in all, from the look-up of the name to the end of the answer.
    pub patience: Duration,
    /// The longest body of an answer.
    pub max_answer_bytes: usize,
    /// How many calls are under way at a time; one more is refused at once.
    pub max_calls: usize,
    /// Where https is not asked for.
    pub plain: Plain,
    /// Which addresses are connected to.
    pub reach: Reach,
}

/// Where plain http is spoken beside https.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plain {
    /// On this machine only: for what carries secrets.
    Here,
    /// Anywhere: for what is public, and signed by whoever answers.
    Anywhere,
}

impl Plain {
    /// Whether an address is https, or http where that is spoken.
    #[must_use]
    pub fn allows(self, scheme: &str, host: &str) -> bool {
        let host = bare(host);
        let is_here =
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        scheme == "https" || scheme == "http" && (self == Self::Anywhere || is_here)
    }
}

/// Which addresses are connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All: for those whom the settings of the server name.
    Anywhere,
    /// Those of the public internet ([`is_public`]), and those of these networks besides: for those whom somebody names over
    /// the API, and who would else be asked in our place what stands behind our firewall.
    Public {
        /// Networks of the merchant's own that may be reached all the same.
        besides: Vec<IpNet>,
    },
}

impl Reach {
    /// Whether an address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Public { besides } => {
                let address = address.to_canonical();
                is_public(address) || besides.iter().any(|network| network.contains(&address))
            }
        }
    }
}

/// Why there is no answer. Nothing of what was asked is in it.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// As many calls as may be are under way.
    #[error("too many wait for it already")]
    TooMany,
    /// It took too long.
    #[error("no answer in time")]
    Late,
    /// Its address has no scheme, or one that is not spoken there.
    #[error("it must be asked over https")]
    NotHttps,
    /// It is where nothing is sent.
    #[error(transparent)]
    OutOfReach(#[from] OutOfReach),
    /// It cannot be connected to, or is silent, or what it says is not HTTP; the error with its causes.
    #[error("{0}")]
    Unreachable(String),
    /// It answers, but not to the end, or more than is read; what it answers it has done all the same.
    #[error("its answer is too large or was cut short")]
    Unread(StatusCode),
}

/// Somebody is at an address that may not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address that may be reached")]
pub struct OutOfReach(pub IpAddr);

/// A client with its limits; connections are kept for the next call.
pub struct Outgoing {
    limits: Limits,
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>,
    calls: Semaphore,
}

impl Outgoing {
    /// A client. Nothing is asked yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut http = HttpConnector::new_with_resolver(Resolver(limits.reach.clone()));
        http.enforce_http(false);
        http.set_connect_timeout(Some(limits.patience));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(16)
            .http1_max_buf_size(MAX_HEAD_BYTES)
            .build(with_tls(http));
        let calls = Semaphore::new(limits.max_calls);
        Self { limits, client, calls }
    }

    /// Begins a call: whoever comes while too many wait is told so at once.
    pub fn call(&self) -> Result<Call<'_>, Unanswered> {
        let place = self.calls.try_acquire().map_err(|_| Unanswered::TooMany)?;
        Ok(Call { outgoing: self, until: Instant::now() + self.limits.patience, _place: place })
    }

    /// Asks once; whatever is answered, a redirect among it, is the answer.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.call()?.ask(request).await
    }

    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        self.check(request.uri())?;
        let answer =
            self.client.request(request.map(Full::new)).await.map_err(|error| unreachable(&error))?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, self.limits.max_answer_bytes).collect().await;
        let body = body.map_err(|_| Unanswered::Unread(head.status))?.to_bytes();
        Ok(Response::from_parts(head, body))
    }

    /// Checks what an address says itself; a name is checked when it is looked up, a number never is (the connector knows it).
    fn check(&self, uri: &Uri) -> Result<(), Unanswered> {
        let host = bare(uri.host().unwrap_or_default());
        if !self.limits.plain.allows(uri.scheme_str().unwrap_or_default(), host) {
            return Err(Unanswered::NotHttps);
        }
        match host.parse::<IpAddr>() {
            Ok(address) if !self.limits.reach.allows(address) => Err(OutOfReach(address).into()),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outgoing({:?})", self.limits)
    }
}

/// A call under way: it holds one of the places, and ends in time however often it asks.
#[derive(Debug)]
pub struct Call<'o> {
    outgoing: &'o Outgoing,
    until: Instant,
    _place: SemaphorePermit<'o>,
}

impl Call<'_> {
    /// Asks, within what is left of the call's time.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, Unanswered> {
        timeout_at(self.until, self.outgoing.send(request)).await.unwrap_or(Err(Unanswered::Late))
    }

    /// Waits before it asks again, if there is time for that.
    pub async fn pause(&self, pause: Duration) -> Result<(), Unanswered> {
        timeout_at(self.until, tokio::time::sleep(pause)).await.map_err(|_| Unanswered::Late)
    }
}

fn with_tls(http: HttpConnector<Resolver>) -> HttpsConnector<HttpConnector<Resolver>> {
    HttpsConnectorBuilder::new()
        .with_tls_config(TLS.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http)
}

/// Certificates are checked against Mozilla's roots, which are in the binary, and against those of the machine, or of
/// `SSL_CERT_FILE` and `SSL_CERT_DIR` where they are set: a merchant's own systems are often signed for by himself.
static TLS: LazyLock<ClientConfig> = LazyLock::new(|| {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let machine = rustls_native_certs::load_native_certs();
    for error in machine.errors {
        tracing::warn!(%error, "certificates of the machine cannot be read");
    }
    roots.add_parsable_certificates(machine.certs);
    // Named, because the default is whichever the whole program has, and none where it has two.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    #[expect(clippy::expect_used, reason = "it fails for a provider without a version of TLS; ring has both")]
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS of ring");
    builder.with_root_certificates(roots).with_no_client_auth()
});

/// Looks a name up, and lets nobody connect to it where one of its addresses may not be reached: a name that stands for one of
/// those beside others is no mistake.
#[derive(Clone)]
struct Resolver(Reach);

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let reach = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = GaiResolver::new().call(name).await?.collect();
            match found.iter().map(SocketAddr::ip).find(|address| !reach.allows(*address)) {
                Some(address) => Err(OutOfReach(address).into()),
                None => Ok(found.into_iter()),
            }
        })
    }
}

/// An error of the client: what is out of reach as that, all else as text. None of it names the address that was asked.
fn unreachable(error: &(dyn StdError + 'static)) -> Unanswered {
    let causes = || std::iter::successors(Some(error), |&error| error.source());
    if let Some(out_of_reach) = causes().find_map(|cause| cause.downcast_ref::<OutOfReach>()) {
        return out_of_reach.clone().into();
    }
    let said: Vec<_> = causes().map(ToString::to_string).collect();
    Unanswered::Unreachable(said.join(": "))
}

/// A host without the brackets of IPv6.
fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

const fn v4(a: u8, b: u8, c: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, 0), prefix)
}

const fn v6(a: u16, b: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), prefix)
}

/// What of IPv4 is not the public internet (IANA's registry of special-purpose addresses, RFC 6890).
const NOT_PUBLIC_V4: [Ipv4Net; 17] = [
    // This network, and 0.0.0.0, which means this machine.
    v4(0, 0, 0, 8),
    // Private networks, and those behind a carrier's NAT; clouds put services of theirs into the latter.
    v4(10, 0, 0, 8),
    v4(172, 16, 0, 12),
    v4(192, 168, 0, 16),
    v4(100, 64, 0, 10),
    // This machine.
    v4(127, 0, 0, 8),
    // This link; clouds tell a machine's secrets at 169.254.169.254.
    v4(169, 254, 0, 16),
    // Protocols; Oracle's cloud tells them at 192.0.0.192.
    v4(192, 0, 0, 24),
    // The way into 6to4, which is no more.
    v4(192, 88, 99, 24),
    // Examples and benchmarks.
    v4(192, 0, 2, 24),
    v4(198, 51, 100, 24),
    v4(203, 0, 113, 24),
    v4(198, 18, 0, 15),
    // Azure's machines are told theirs at an address that looks public.
    Ipv4Net::new_assert(Ipv4Addr::new(168, 63, 129, 16), 32),
    // Multicast, the reserved rest, and everybody.
    v4(224, 0, 0, 4),
    v4(240, 0, 0, 4),
    Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32),
];

/// All of IPv6 that is routed, but for …
const ROUTED_V6: Ipv6Net = v6(0x2000, 0, 3);

/// … protocols (Teredo among them), examples, and 6to4, which wraps any address of IPv4.
const NOT_PUBLIC_V6: [Ipv6Net; 4] =
    [v6(0x2001, 0, 23), v6(0x2001, 0xdb8, 32), v6(0x3fff, 0, 20), v6(0x2002, 0, 16)];

/// Addresses of IPv4 behind a NAT64 (RFC 6052).
const NAT64: Ipv6Net = v6(0x64, 0xff9b, 96);

/// Whether an address belongs to the public internet: not to this machine, this network, a private one, a cloud's own
/// services, a group, or nobody. One that stands for an address of IPv4 is what that is.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !NOT_PUBLIC_V4.iter().any(|network| network.contains(&address)),
        IpAddr::V6(address) if NAT64.contains(&address) => {
            let [.., a, b, c, d] = address.octets();
            is_public(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(address) => {
            ROUTED_V6.contains(&address) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&address))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const LIMITS: Limits = Limits {
        patience: Duration::from_secs(20),
        max_answer_bytes: 1_000,
        max_calls: 2,
        plain: Plain::Anywhere,
        reach: Reach::Anywhere,
    };

    fn public() -> Reach {
        Reach::Public { besides: Vec::new() }
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    /// Somebody who answers each request on a connection of its own with this, or, without any, not at all; where he is, and
    /// how many came.
    async fn somebody(answer: Option<&str>) -> (u16, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let came = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (answer.map(ToOwned::to_owned), Arc::clone(&came));
        tokio::spawn(async move {
            let mut silent = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let Some(answer) = &answer else {
                    silent.push(stream);
                    continue;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (port, came)
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.1",
            "192.0.1.1",
            "198.17.255.255",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
        ] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn networks_of_ones_own_may_be_reached_besides() {
        let reach = Reach::Public { besides: vec!["10.1.0.0/16".parse().unwrap()] };
        for (address, reached) in
            [("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("1.1.1.1", true)]
        {
            assert_eq!(reach.allows(address.parse().unwrap()), reached, "{address}");
        }
    }

    #[test]
    fn plain_http_stays_on_this_machine_unless_it_may_go_anywhere() {
        for (scheme, host, here, anywhere) in [
            ("https", "example.com", true, true),
            ("http", "example.com", false, true),
            ("http", "127.0.0.1", true, true),
            ("http", "[::1]", true, true),
            ("http", "localhost", true, true),
            ("http", "127.0.0.1.example.com", false, true),
            ("ftp", "localhost", false, false),
            ("", "localhost", false, false),
        ] {
            let allowed = (Plain::Here.allows(scheme, host), Plain::Anywhere.allows(scheme, host));
            assert_eq!(allowed, (here, anywhere), "{scheme}://{host}");
        }
    }

    /// However it is written, a host that is out of reach is not connected to; the same client reaches it where it may.
    #[tokio::test]
    async fn whoever_is_out_of_reach_is_not_connected_to() {
        let (port, came) = somebody(Some("HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")).await;
        let closed = Outgoing::new(Limits { reach: public(), ..LIMITS });
        for host in [
            "127.0.0.1",
            "localhost",
            "2130706433",
            "0x7f.1",
            "0177.0.0.1",
            "127.1",
            "[::ffff:127.0.0.1]",
            "0",
        ] {
            let answer = closed.ask(get(&format!("http://{host}:{port}/"))).await;
            assert!(matches!(answer, Err(Unanswered::OutOfReach(_))), "{host}: {answer:?}");
        }
        assert_eq!(came.load(Ordering::SeqCst), 0);
        let besides = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let open = Outgoing::new(Limits { reach: Reach::Public { besides }, ..LIMITS });
        for host in ["127.0.0.1", "localhost", "2130706433"] {
            let answer = open.ask(get(&format!("http://{host}:{port}/"))).await.unwrap();
            assert_eq!(answer.status(), 204, "{host}");
        }
        assert_eq!(came.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn plain_http_is_not_spoken_where_it_may_not_be() {
        let outgoing = Outgoing::new(Limits { plain: Plain::Here, reach: public(), ..LIMITS });
        for url in ["http://example.com/", "/no/scheme"] {
            assert!(matches!(outgoing.ask(get(url)).await, Err(Unanswered::NotHttps)), "{url}");
        }
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer() {
        let (elsewhere, came) = somebody(None).await;
        let redirect = format!(
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:{elsewhere}/\r\ncontent-length: 2\r\n\r\nno"
        );
        let (port, _) = somebody(Some(&redirect)).await;
        let request = Request::post(format!("http://127.0.0.1:{port}/?secret=5ecre7"));
        let request = request.header("x-signature", "5ecre7").body(Bytes::from_static(b"told")).unwrap();
        let answer = Outgoing::new(LIMITS).ask(request).await.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (307, &b"no"[..]));
        assert_eq!(came.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn an_answer_without_end_is_not_read() {
        let long = format!("HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n{}", "a".repeat(2_000));
        let (port, _) = somebody(Some(&long)).await;
        let answer = Outgoing::new(LIMITS).ask(get(&format!("http://127.0.0.1:{port}/"))).await;
        assert!(matches!(answer, Err(Unanswered::Unread(StatusCode::OK))), "{answer:?}");
    }

    #[tokio::test]
    async fn an_error_says_what_happened_and_nothing_of_what_was_asked() {
        let (port, _) = somebody(Some("SSH-2.0-no\r\n\r\n")).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let nobody = listener.local_addr().unwrap().port();
        drop(listener);
        for (port, says) in [(port, "invalid HTTP version parsed"), (nobody, "Connection refused")] {
            let url = format!("http://127.0.0.1:{port}/path?secret=5ecre7");
            let error = Outgoing::new(LIMITS).ask(get(&url)).await.unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert!(!error.contains("5ecre7") && !error.contains("path"), "{error}");
        }
    }

    /// Time stands still here but for what is let go by: somebody is always awake.
    #[tokio::test(start_paused = true)]
    async fn an_answer_is_in_time_up_to_the_last_millisecond() {
        let awake = tokio::spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let patience_ms = LIMITS.patience.as_millis() as u64;
        for (after_ms, is_in_time) in [(patience_ms - 1, true), (patience_ms + 1, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let outgoing = Outgoing::new(LIMITS);
            let answering = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                tokio::time::advance(Duration::from_millis(after_ms)).await;
                // Nobody may be there any more.
                let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await;
                stream
            };
            let (answer, _open) = tokio::join!(outgoing.ask(get(&url)), answering);
            match answer {
                Ok(answer) => assert!(is_in_time && answer.status() == 204, "{after_ms}: {answer:?}"),
                Err(error) => {
                    assert!(!is_in_time && matches!(error, Unanswered::Late), "{after_ms}: {error}");
                }
            }
        }
        awake.abort();
    }

    /// Time stands still here and goes on by itself when all wait.
    #[tokio::test(start_paused = true)]
    async fn whoever_is_silent_holds_a_few_for_a_while() {
        let (port, _) = somebody(None).await;
        let outgoing = Outgoing::new(LIMITS);
        let url = format!("http://127.0.0.1:{port}/");
        let call = outgoing.call().unwrap();
        let other = outgoing.call().unwrap();
        assert!(matches!(outgoing.ask(get(&url)).await, Err(Unanswered::TooMany)));
        drop(other);
        assert!(matches!(call.ask(get(&url)).await, Err(Unanswered::Late)));
        // The call's time is over, however often it asks.
        assert!(matches!(call.ask(get(&url)).await, Err(Unanswered::Late)));
        assert!(matches!(call.pause(Duration::from_millis(1)).await, Err(Unanswered::Late)));
        drop(call);
        assert!(outgoing.call().unwrap().pause(Duration::from_millis(1)).await.is_ok());
    }
}
