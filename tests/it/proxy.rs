//! A TCP proxy in front of a Postgres that loses the answer to a COMMIT, or the whole database.
//!
//! It hides the wire protocol, of which it reads just enough to find the one message that commits: the
//! simple query `COMMIT`, the `Execute` of a prepared one, or that of an append outside of a transaction, which
//! is one by itself. Everything else passes unchanged and in order. It promises that what a control says has happened when the control's future is ready, so that a
//! test need never sleep.
//!
//! It answers a request for TLS with no, since it could not read what TLS hides.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a proxy that cannot work fails its test; a message taken whole has its first five bytes"
)]

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// Dropping it cuts every connection, held ones included.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// How a client loses the answer to its COMMIT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// The server never sees the COMMIT, and rolls back because the connection ends.
    BeforeForwarding,
    /// The server commits; its answer is dropped.
    AfterForwarding,
    /// The server does not see the COMMIT yet: its transaction stays open, with its locks, until
    /// [`Proxy::release`].
    HoldOpen,
}

/// How a held transaction goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The held COMMIT reaches the server now.
    Commit,
    /// The connection to the server ends without it.
    Close,
}

/// No test waits longer than this for a cut; one that does has armed a cut that no commit came to.
const PATIENCE: Duration = Duration::from_secs(30);

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and connects each client to `upstream`, until dropped.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            upstream,
            away: watch::Sender::new(false),
            cuts: watch::Sender::new(Cuts::default()),
            held: Mutex::default(),
            statements: AtomicUsize::new(0),
            commits: AtomicUsize::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { addr, shared, accepting }
    }

    /// How many statements have been executed through it, and how many of them were commits.
    pub fn traffic(&self) -> (usize, usize) {
        (self.shared.statements.load(Ordering::SeqCst), self.shared.commits.load(Ordering::SeqCst))
    }

    /// Where clients connect to, without TLS.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Cuts the connection on which the next COMMIT arrives, whichever it is. Armed twice, it cuts the next
    /// two commits.
    pub fn cut_at_next_commit(&self, cut: Cut) {
        self.shared.cuts.send_modify(|cuts| cuts.armed.push_back(cut));
    }

    /// Waits until every armed cut has happened, and returns how many have since the start. Then the client
    /// is cut, and the server has rolled back, has committed, or is held, as [`Cut`] says.
    ///
    /// Panics when no commit comes to an armed cut for 30 seconds.
    pub async fn cut_happened(&self) -> usize {
        let mut cuts = self.shared.cuts.subscribe();
        let quiet = cuts.wait_for(|cuts| cuts.armed.is_empty() && cuts.under_way == 0);
        let cuts = timeout(PATIENCE, quiet).await.expect("an armed cut saw no COMMIT in time");
        cuts.expect("the proxy holds the sender").happened
    }

    /// Lets the transaction that has been held longest go on, and returns whether the server committed it.
    /// Either way it has ended by then. A commit may yet fail: the server has timeouts of its own, and the
    /// transaction may have failed before.
    ///
    /// Panics when none is held.
    pub async fn release(&self, release: Release) -> bool {
        let held = self.shared.held().pop_front();
        let (mut server, commit) = held.expect("no transaction is held: await cut_happened() first");
        match release {
            Release::Commit => server.commit(&commit).await,
            Release::Close => {
                server.close().await;
                false
            }
        }
    }

    /// While true the database is away: connections are cut, and new ones are as soon as they are made.
    /// Returns when the last has been cut. Held transactions stay, since their clients are gone already.
    pub async fn refuse_connections(&self, refuse: bool) {
        self.shared.away.send_replace(refuse);
        if refuse {
            // Each connection has a receiver for as long as it passes messages on.
            self.shared.away.closed().await;
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

struct Shared {
    upstream: SocketAddr,
    away: watch::Sender<bool>,
    cuts: watch::Sender<Cuts>,
    /// Connections to the server with an open transaction, each with the message that commits it.
    held: Mutex<VecDeque<(Server, Vec<u8>)>>,
    statements: AtomicUsize,
    commits: AtomicUsize,
}

#[derive(Default)]
struct Cuts {
    armed: VecDeque<Cut>,
    under_way: usize,
    happened: usize,
}

impl Shared {
    /// Takes the cut that is next, for a connection on which a COMMIT has arrived.
    fn take_cut(&self) -> Option<Cut> {
        let mut taken = None;
        self.cuts.send_if_modified(|cuts| {
            taken = cuts.armed.pop_front();
            cuts.under_way += usize::from(taken.is_some());
            taken.is_some()
        });
        taken
    }

    fn count(&self, message: &[u8], commits: bool) {
        if let [b'Q' | b'E', ..] = message {
            self.statements.fetch_add(1, Ordering::SeqCst);
            self.commits.fetch_add(usize::from(commits), Ordering::SeqCst);
        }
    }

    fn cut_is_done(&self) {
        self.cuts.send_modify(|cuts| {
            cuts.under_way -= 1;
            cuts.happened += 1;
        });
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<(Server, Vec<u8>)>> {
        self.held.lock().expect("no panic under this lock")
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // The set ends its tasks when this one is aborted.
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.expect("the listener accepts");
        connections.spawn(serve(client, Arc::clone(&shared)));
        while connections.try_join_next().is_some() {}
    }
}

/// One client's connection, from its first byte to its end or its cut.
async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let mut away = shared.away.subscribe();
    let mut client = Wire::new(client);
    let relayed = tokio::select! {
        biased;
        _ = away.wait_for(|away| *away) => return,
        relayed = relay(&mut client, &shared) => relayed,
    };
    // A cut that has begun is finished even when the database goes away meanwhile, or `cut_happened` would
    // wait forever.
    drop(away);
    match relayed {
        Ok(Some(CutHere { cut, mut server, before, commit })) => {
            // Should this fail, the server is gone, which each of these finds out for itself.
            let _ = server.send(&before).await;
            match cut {
                Cut::BeforeForwarding => {
                    drop(client);
                    server.close().await;
                }
                Cut::AfterForwarding => {
                    server.commit(&commit).await;
                    drop(client);
                }
                Cut::HoldOpen => {
                    server.drop_answers_due().await;
                    shared.held().push_back((server, commit));
                    drop(client);
                }
            }
            shared.cut_is_done();
        }
        // A broken connection is what clients and servers are expected to survive; a broken protocol is a
        // bug of this file.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => panic!("proxy: {error}"),
        Ok(None) | Err(_) => {}
    }
}

/// Where the relay stopped: at a COMMIT that is to be cut. What the client sent after it is lost with it.
struct CutHere {
    cut: Cut,
    server: Server,
    /// The messages that arrived together with the COMMIT, just before it, and are yet to be passed on.
    before: Vec<u8>,
    commit: Vec<u8>,
}

/// Passes messages on in both directions, until either side ends (`None`) or a COMMIT is to be cut.
async fn relay(client: &mut Wire, shared: &Shared) -> io::Result<Option<CutHere>> {
    let Some(startup) = client.startup().await? else {
        return Ok(None);
    };
    let mut server = Server::connect(shared.upstream, &startup).await?;
    let mut commits = CommitFinder::default();
    loop {
        let mut passing = Vec::new();
        while let Some(message) = client.take_message()? {
            let commit = commits.find(&message, server.in_transaction);
            shared.count(&message, commit.is_some());
            if let Some(commit) = commit
                && let Some(cut) = shared.take_cut()
            {
                return Ok(Some(CutHere { cut, server, before: passing, commit }));
            }
            server.count_answer_due(&message);
            passing.extend(message);
        }
        server.send(&passing).await?;

        let mut passing = Vec::new();
        while let Some(message) = server.wire.take_message()? {
            server.count_answer(&message);
            passing.extend(message);
        }
        client.stream.write_all(&passing).await?;

        let open = tokio::select! {
            open = client.fill() => open?,
            open = server.wire.fill() => open?,
        };
        if !open {
            return Ok(None);
        }
    }
}

/// The connection to the server, and how many `ReadyForQuery` it still owes: one for the startup and for
/// each `Query`, `FunctionCall` and `Sync`. Without that count the answer to a COMMIT cannot be told from
/// that to what went before it.
struct Server {
    wire: Wire,
    answers_due: usize,
    /// What the last `ReadyForQuery` said.
    in_transaction: bool,
}

impl Server {
    async fn connect(upstream: SocketAddr, startup: &[u8]) -> io::Result<Self> {
        let wire = Wire::new(TcpStream::connect(upstream).await?);
        let mut server = Self { wire, answers_due: 1, in_transaction: false };
        server.send(startup).await?;
        Ok(server)
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.stream.write_all(bytes).await
    }

    fn count_answer_due(&mut self, from_client: &[u8]) {
        if let [b'Q' | b'F' | b'S', ..] = from_client {
            self.answers_due += 1;
        }
    }

    fn count_answer(&mut self, from_server: &[u8]) {
        if let [b'Z', .., status] = from_server {
            self.answers_due -= 1;
            self.in_transaction = *status != b'I';
        }
    }

    /// Sends the message that commits, and returns whether the server answered that it has committed.
    async fn commit(&mut self, commit: &[u8]) -> bool {
        self.answers_due += 1;
        self.send(commit).await.is_ok() && self.drop_answers_due().await
    }

    /// Waits until nothing is owed, and returns whether the last answer says that the server committed.
    async fn drop_answers_due(&mut self) -> bool {
        let mut committed = false;
        while self.answers_due > 0 {
            let Ok(true) = self.wire.fill().await else {
                return false;
            };
            while let Ok(Some(answer)) = self.wire.take_message() {
                self.count_answer(&answer);
                match answer[0] {
                    // A COMMIT of a failed transaction is answered with ROLLBACK.
                    b'C' => committed = answer.ends_with(b"COMMIT\0"),
                    b'E' => committed = false,
                    _ => {}
                }
            }
        }
        committed
    }

    /// Ends the connection, and returns when the server has too, which it does only after it has rolled back.
    async fn close(&mut self) {
        if self.wire.stream.shutdown().await.is_ok() {
            while let Ok(true) = self.wire.fill().await {
                self.wire.unread.clear();
            }
        }
    }
}

/// Finds the message that commits among those of one client. Statements and portals are known by name once
/// prepared, so the `Execute` that commits says nothing of COMMIT itself.
#[derive(Default)]
struct CommitFinder {
    commits: Prepared,
    appends: Prepared,
}

/// Statements of one sort, and the portals on them.
#[derive(Default)]
struct Prepared {
    statements: HashSet<Vec<u8>>,
    portals: HashSet<Vec<u8>>,
}

impl CommitFinder {
    /// What to send to the server in order to commit, when `message` would: the message, and for an
    /// `Execute` also the `Sync` without which it is not answered.
    fn find(&mut self, message: &[u8], in_transaction: bool) -> Option<Vec<u8>> {
        let mut texts = message[5..].split(|byte| *byte == 0);
        let first = texts.next().unwrap_or_default();
        let second = texts.next().unwrap_or_default();
        match message[0] {
            b'Q' if is_commit(first) => Some(message.to_vec()),
            b'P' => {
                set(&mut self.commits.statements, first, is_commit(second));
                set(&mut self.appends.statements, first, is_append(second));
                None
            }
            b'B' => {
                for prepared in [&mut self.commits, &mut self.appends] {
                    set(&mut prepared.portals, first, prepared.statements.contains(second));
                }
                None
            }
            b'E' => {
                let appends = self.appends.portals.contains(first) && !in_transaction;
                let commits = appends || self.commits.portals.contains(first);
                commits.then(|| [message, b"S\0\0\0\x04"].concat())
            }
            _ => None,
        }
    }
}

fn set(names: &mut HashSet<Vec<u8>>, name: &[u8], is_in: bool) {
    if is_in {
        names.insert(name.to_vec());
    } else {
        names.remove(name);
    }
}

fn is_commit(query: &[u8]) -> bool {
    let query = query.trim_ascii();
    query.strip_suffix(b";").unwrap_or(query).trim_ascii_end().eq_ignore_ascii_case(b"COMMIT")
}

fn is_append(query: &[u8]) -> bool {
    query.trim_ascii().starts_with(b"WITH head AS")
}

/// A stream, and what has been read from it but not been taken as a message yet.
struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        // Messages are small and each waits for its answer.
        stream.set_nodelay(true).expect("a TCP socket has this option");
        Self { stream, unread: Vec::new() }
    }

    /// Reads what there is, and returns whether the stream is still open. Cancelling it loses nothing.
    async fn fill(&mut self) -> io::Result<bool> {
        self.unread.reserve(8 * 1024);
        Ok(self.stream.read_buf(&mut self.unread).await? > 0)
    }

    /// The next whole message: a type byte, then a length that counts itself but not the type.
    fn take_message(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.take(1)
    }

    /// The startup message, which has no type byte. `None` when the client ends before it, or only wants to
    /// cancel a query: tests do not.
    async fn startup(&mut self) -> io::Result<Option<Vec<u8>>> {
        const CANCEL: u32 = 80_877_102;
        const TLS: u32 = 80_877_103;
        const GSS: u32 = 80_877_104;
        loop {
            while let Some(message) = self.take(0)? {
                match message.get(4..8).map(|code| u32::from_be_bytes(code.try_into().expect("four bytes"))) {
                    Some(TLS | GSS) => self.stream.write_all(b"N").await?,
                    Some(CANCEL) | None => return Ok(None),
                    Some(_) => return Ok(Some(message)),
                }
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    fn take(&mut self, type_bytes: usize) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.unread.get(type_bytes..type_bytes + 4) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
        if length < 4 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is shorter than its length"));
        }
        let end = type_bytes + length;
        if self.unread.len() < end {
            return Ok(None);
        }
        Ok(Some(self.unread.drain(..end).collect()))
    }
}
