//! The load generator: kept-alive connections on one thread of their own, every answer read whole and checked.
//!
//! It shares the machine with what it measures, so it must cost little: a request is written into a buffer that is
//! used again, an answer is looked at where it arrived.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::measure::Round;
use crate::process;

/// Makes requests and checks their answers.
pub trait Work: Send + 'static {
    /// Writes the next request into an empty buffer and returns what its answer is checked against; None when there
    /// is nothing left to ask.
    fn next(&mut self, request: &mut Vec<u8>) -> Option<u64>;

    /// Fails unless the answer is the right one.
    fn check(&mut self, asked: u64, answer: &Answer<'_>) -> anyhow::Result<()>;
}

/// An answer as it lies in the connection's buffer.
pub struct Answer<'a> {
    head: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

impl Answer<'_> {
    /// Whether the ledger says 成功. Refusals answer 200 as well, so the status says nothing.
    pub fn is_success(&self) -> bool {
        self.body.starts_with(b"{\"code\":0,")
    }

    /// Whether it is an earlier answer, given again.
    pub fn is_replayed(&self) -> bool {
        memmem::find(self.head, b"idempotency-replayed").is_some()
    }

    /// The whole of it, for people.
    pub fn text(&self) -> String {
        format!("{}\n{}", String::from_utf8_lossy(self.head), String::from_utf8_lossy(self.body))
    }
}

/// When requests are made.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Each connection asks again as soon as it has its answer.
    Closed,
    /// So many requests a second, whether or not the earlier ones are answered; a request's time counts from when it
    /// was due, so that waiting for a free connection is not left out.
    PerSecond(f64),
}

/// A stretch of load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Who is asked: the connections are dealt out evenly.
    pub addresses: Vec<String>,
    /// How many connections.
    pub connections: usize,
    /// For how long.
    pub duration: Duration,
    /// When.
    pub pace: Pace,
}

/// What came of a load.
pub struct Outcome<W> {
    /// The figures.
    pub round: Round,
    /// Answers by address.
    pub shares: Vec<u64>,
    /// CPU seconds of this generator's thread.
    pub cpu_seconds: f64,
    /// The work, with what it has counted.
    pub work: W,
}

/// Runs a load to its end: every request that was made is answered and checked.
pub async fn run<W: Work>(load: Load, work: W) -> anyhow::Result<Outcome<W>> {
    let on_its_thread = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, generate(load, work))
    };
    tokio::task::spawn_blocking(on_its_thread).await?
}

struct Shared<W> {
    work: W,
    /// Tickets given out, of a paced load.
    tickets: u64,
}

async fn generate<W: Work>(load: Load, work: W) -> anyhow::Result<Outcome<W>> {
    let mut connections = Vec::with_capacity(load.connections);
    for number in 0..load.connections {
        let place = number % load.addresses.len();
        connections.push((place, Connection::open(&load.addresses[place]).await?));
    }
    let shared = Rc::new(RefCell::new(Shared { work, tickets: 0 }));
    let cpu = process::thread_cpu_seconds()?;
    let started = Instant::now();
    let tasks: Vec<_> = connections
        .into_iter()
        .map(|(place, connection)| {
            let shared = shared.clone();
            let (duration, pace) = (load.duration, load.pace);
            let asking = async move { (place, ask(connection, shared, started, duration, pace).await) };
            tokio::task::spawn_local(asking)
        })
        .collect();
    let mut micros = Vec::new();
    let mut shares = vec![0; load.addresses.len()];
    for task in tasks {
        let (place, asked) = task.await?;
        let asked = asked?;
        shares[place] += asked.len() as u64;
        micros.extend(asked);
    }
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = process::thread_cpu_seconds()? - cpu;
    let shared = Rc::into_inner(shared).context("a connection is still asking")?.into_inner();
    let round = Round { done: micros.len() as u64, seconds, micros };
    ensure!(round.done > 0, "nothing was asked: the ledger had nothing left for this round");
    Ok(Outcome { round, shares, cpu_seconds, work: shared.work })
}

/// One connection's requests, one after the other; returns their microseconds.
async fn ask<W: Work>(
    mut connection: Connection,
    shared: Rc<RefCell<Shared<W>>>,
    started: Instant,
    duration: Duration,
    pace: Pace,
) -> anyhow::Result<Vec<u32>> {
    let mut micros = Vec::new();
    let mut request = Vec::with_capacity(1024);
    loop {
        let mut begun = Instant::now();
        if let Pace::PerSecond(rate) = pace {
            let ticket = shared.borrow().tickets;
            let due = started + Duration::from_secs_f64(ticket as f64 / rate);
            // A ticket is drawn before the wait, so that no other connection waits for the same one.
            shared.borrow_mut().tickets += 1;
            if due >= started + duration {
                return Ok(micros);
            }
            tokio::time::sleep_until(due.into()).await;
            begun = due;
        } else if begun >= started + duration {
            return Ok(micros);
        }
        request.clear();
        let Some(asked) = shared.borrow_mut().work.next(&mut request) else {
            return Ok(micros);
        };
        let answer = connection.exchange(&request).await?;
        micros.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
        shared.borrow_mut().work.check(asked, &answer)?;
    }
}

/// A kept-alive HTTP/1.1 connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: &str) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 << 10) })
    }

    async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut whole = None;
        loop {
            let read = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            if whole.is_none()
                && let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n")
            {
                whole = Some((end, end + 4 + content_length(&self.buffer[..end])?));
            }
            if let Some((end, length)) = whole
                && self.buffer.len() >= length
            {
                return Ok(Answer { head: &self.buffer[..end], body: &self.buffer[end + 4..length] });
            }
        }
    }
}

fn content_length(head: &[u8]) -> anyhow::Result<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.len() > NAME.len() && line[..NAME.len()].eq_ignore_ascii_case(NAME))
        .with_context(|| format!("no content-length in {}", String::from_utf8_lossy(head)))?;
    Ok(std::str::from_utf8(&line[NAME.len()..])?.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::content_length;

    #[test]
    fn a_length_is_found_whatever_its_name_is_written_like() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 117\r\ndate: x";
        assert_eq!(content_length(head).unwrap(), 117);
        assert!(content_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_err());
    }
}
