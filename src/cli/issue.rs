//! `coupon-ledger issue`: one coupon of a definition to each of many members.
//!
//! Reads its input as it goes. Every chunk has a key made of the run's name and its number: a run that was killed is
//! started again with the same arguments and goes on where it was, whoever held the ledger then and holds it now.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, IsTerminal as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use serde_json::json;

use super::account::ask;
use super::remote::{Holder, as_operator};
use super::{Context, Failed, say};
use crate::bulk::{self, MAX_CHUNK};
use crate::coupon::{Origin, Source};
use crate::http::form::Form;
use crate::http::operator::read_chunk;
use crate::ledger::{ExecuteError, Meta};
use crate::secrets::Secrets;
use crate::store::ReceiptKey;
use crate::value::{MAX_ID, hex, random};

/// The operation under which a chunk's key is used up: the same, whether it comes over HTTP or from here.
const OPERATION: &str = "/sendelecoupon/members";

/// Chunks under way at a time: one is written while the next is made ready.
const AT_A_TIME: usize = 2;

/// How often a chunk is tried while the ledger is too busy or out of reach.
const TRIES: u32 = 30;

/// What to issue, and to whom.
#[derive(Debug, clap::Args)]
pub(super) struct IssueArgs {
    /// The definition to issue from
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    definition: i64,
    /// The members: a range like 1..1000000, a file with one id per line, or - for standard input
    #[arg(long, value_name = "RANGE|FILE")]
    members: String,
    /// Names the run: started again under its name it goes on and doubles nobody [default: made of the two above; needed with -]
    #[arg(long, value_name = "NAME", value_parser = parse_run)]
    run: Option<String>,
}

/// A run's name is part of an idempotency key, so it has a key's letters.
fn parse_run(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (4..=48).contains(&text.len()) && text.bytes().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("4 to 48 letters, digits, - or _".to_owned())
    }
}

/// What the run has come to.
#[derive(Debug, Default)]
struct Tally {
    members: u64,
    issued: u64,
    refused: BTreeMap<String, u64>,
    repeated: u64,
    bad_lines: u64,
}

pub(super) async fn run(context: Context, arguments: IssueArgs) -> Result<(), Failed> {
    let secrets = context.secrets(true)?;
    let (total, mut lines) = open_input(&arguments.members)?;
    let run = match &arguments.run {
        Some(run) => run.clone(),
        // Nothing in the arguments tells one input from the next.
        None if arguments.members == "-" => {
            return Err(
                anyhow::anyhow!("name the run with --run when its members come from standard input").into()
            );
        }
        None => default_run(&secrets, &arguments),
    };
    let issuer = Issuer { to: Holder::find(&context, secrets).await?, definition_id: arguments.definition };
    let most = match &issuer.to {
        Holder::Ledger(_) => context.approvals.sends,
        Holder::Server(server) => {
            let limits = ask(server, "/approval/limits", &json!({})).await?;
            limits.get("sends").and_then(serde_json::Value::as_i64).unwrap_or_default()
        }
    };
    let mut progress = Progress::new(total);
    let mut tally = Tally::default();
    let mut bad_lines = 0;
    let mut chunks = std::iter::from_fn(|| next_chunk(&mut *lines, &mut bad_lines).transpose());
    let ahead = match read_ahead(&mut chunks, most) {
        Ok(ahead) => ahead,
        Err(error) => {
            issuer.to.close().await;
            return Err(error);
        }
    };
    let chunks = ahead.into_iter().map(Ok).chain(chunks);
    let issued = {
        let (issuer, run) = (&issuer, &run);
        let mut chunks = futures::stream::iter(chunks.enumerate())
            .map(|(number, members)| async move {
                let members = members?;
                let done = issuer.issue(&format!("{run}-{number}"), &members).await?;
                Ok::<_, Failed>((members.len(), done))
            })
            .buffered(AT_A_TIME);
        loop {
            match chunks.next().await {
                None => break Ok(()),
                Some(Err(error)) => break Err(error),
                Some(Ok((members, done))) => {
                    tally.add(members, done);
                    progress.show(&tally, false);
                }
            }
        }
    };
    tally.bad_lines = bad_lines;
    progress.show(&tally, true);
    issuer.to.close().await;
    issued?;
    say(json!({"run": run, "members": tally.members, "issued": tally.issued, "repeated": tally.repeated,
               "refused": tally.refused, "bad_lines": tally.bad_lines}))?;
    let left_out = tally.refused.values().sum::<u64>() + tally.bad_lines;
    if left_out > 0 {
        return Err(Failed::Refused(anyhow::anyhow!("{left_out} of the members were issued nothing")));
    }
    Ok(())
}

/// The same arguments name the same run. Under the secret's key, so that it is different in every ledger.
fn default_run(secrets: &Secrets, arguments: &IssueArgs) -> String {
    let mac = secrets.request_mac(&format!("issue {} {}", arguments.definition, arguments.members));
    mac.chars().filter(char::is_ascii_alphanumeric).take(24).collect()
}

type Lines = dyn Iterator<Item = std::io::Result<String>>;

/// The members, line by line, and how many there are where that is known beforehand.
fn open_input(members: &str) -> Result<(Option<u64>, Box<Lines>), Failed> {
    if let Some((first, last)) = members.split_once("..")
        && let (Ok(first), Ok(last)) = (first.parse::<i64>(), last.parse::<i64>())
    {
        if first < 1 || last > MAX_ID || first > last {
            return Err(anyhow::anyhow!("{members} is not a range of member ids from 1 to {MAX_ID}").into());
        }
        let lines = (first..=last).map(|id| Ok(id.to_string()));
        return Ok((Some((last - first) as u64 + 1), Box::new(lines)));
    }
    if members == "-" {
        return Ok((None, Box::new(BufReader::new(std::io::stdin()).lines())));
    }
    let file = std::fs::File::open(members).with_context(|| format!("cannot read {members}"))?;
    Ok((None, Box::new(BufReader::new(file).lines())))
}

/// The next members. A line that is no id is reported and left out; what cannot be read ends the run.
fn next_chunk(lines: &mut Lines, bad_lines: &mut u64) -> Result<Option<Vec<i64>>, Failed> {
    let mut members = Vec::with_capacity(MAX_CHUNK);
    for line in lines {
        let line = line.context("the members cannot be read further")?;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match text.parse::<i64>() {
            Ok(id) if (1..=MAX_ID).contains(&id) => members.push(id),
            _ => {
                *bad_lines += 1;
                eprintln!("coupon-ledger: not a member's id, left out: {}", text.escape_debug());
            }
        }
        if members.len() == MAX_CHUNK {
            break;
        }
    }
    Ok((!members.is_empty()).then_some(members))
}

/// Where more than so many wait for somebody else's word, all chunks of a run; 0 = none wait, and none is read ahead. A run is
/// one person's word, however many requests it is.
fn read_ahead(
    chunks: &mut impl Iterator<Item = Result<Vec<i64>, Failed>>,
    most: i64,
) -> Result<Vec<Vec<i64>>, Failed> {
    let (mut ahead, mut members) = (Vec::new(), 0);
    if most == 0 {
        return Ok(ahead);
    }
    for chunk in chunks {
        let chunk = chunk?;
        members += chunk.len() as i64;
        if members > most {
            return Err(Failed::Refused(anyhow::anyhow!(
                "more than {most} members: a send to so many waits for somebody else's word, which \
                 POST /sendelecoupon/add asks for"
            )));
        }
        ahead.push(chunk);
    }
    Ok(ahead)
}

/// Hands chunks over.
struct Issuer {
    to: Holder,
    definition_id: i64,
}

/// What became of a chunk, as far as the tally needs it.
struct Done {
    issued: u64,
    replayed: bool,
    refused: Vec<String>,
}

impl Issuer {
    /// Issues a chunk; tries again, under the same key, while the ledger is too busy or out of reach.
    async fn issue(&self, key: &str, members: &[i64]) -> Result<Done, Failed> {
        let mut tries = 0;
        loop {
            let error = match self.try_issue(key, members).await {
                Err(Failed::CouldNotRun(error)) if tries < TRIES => error,
                done => return done,
            };
            tries += 1;
            eprintln!("coupon-ledger: {error:#}; trying again");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn try_issue(&self, key: &str, members: &[i64]) -> Result<Done, Failed> {
        let definition_id = self.definition_id;
        match &self.to {
            Holder::Ledger(ledger) => {
                let body = json!({"coupon_id": definition_id, "member_ids": members}).to_string();
                let mut form = Form::from_json(body.as_bytes()).map_err(|_| anyhow::anyhow!("no form"))?;
                read_chunk(&mut form);
                let canonical =
                    form.finish().map_err(|_| anyhow::anyhow!("a chunk that cannot be asked for"))?;
                let caller = as_operator(OPERATION)?;
                let receipt =
                    ReceiptKey { caller: caller.to_string(), operation: OPERATION, key: key.to_owned() };
                let meta = Meta {
                    caller,
                    at: ledger.now(),
                    request_id: hex(&random::<8>()),
                    receipt: Some((receipt, ledger.secrets().request_mac(&canonical))),
                    job_id: None,
                };
                let origin = Origin::of(Source::MassSend, 0);
                let chunk = match bulk::issue(ledger, definition_id, origin, members, &meta).await {
                    Ok(chunk) => chunk,
                    Err(ExecuteError::Refused(refusal)) => return Err(Failed::Refused(refusal.into())),
                    Err(error) => return Err(error.into()),
                };
                let why = |refusal: &Option<_>| refusal.as_ref().map_or_else(earlier, ToString::to_string);
                Ok(Done {
                    issued: chunk.issued.len() as u64,
                    replayed: chunk.replayed,
                    refused: chunk.refused.iter().map(|(_, refusal)| why(refusal)).collect(),
                })
            }
            Holder::Server(server) => {
                let body = json!({"coupon_id": definition_id, "member_ids": members});
                let answer = server.call(OPERATION, Some(key), &body).await?;
                match answer.code {
                    0 => {}
                    // Busy, or away: the same key tells later.
                    9002 => return Err(anyhow::anyhow!("the server answers {}", answer.info).into()),
                    _ => return Err(Failed::Refused(anyhow::anyhow!("{} ({})", answer.info, answer.code))),
                }
                let number = |name: &str| answer.data.get(name).and_then(serde_json::Value::as_u64);
                let refused = number("refused_num").unwrap_or_default();
                Ok(Done {
                    issued: number("send_num").unwrap_or_default(),
                    replayed: answer.replayed,
                    refused: (0..refused).map(|_| "by the server".to_owned()).collect(),
                })
            }
        }
    }
}

fn earlier() -> String {
    "in an earlier run".to_owned()
}

impl Tally {
    fn add(&mut self, members: usize, done: Done) {
        self.members += members as u64;
        if done.replayed {
            self.repeated += done.issued;
        } else {
            self.issued += done.issued;
        }
        for why in done.refused {
            *self.refused.entry(why).or_default() += 1;
        }
    }
}

/// One line on standard error, twice a second on a terminal and now and then elsewhere.
struct Progress {
    total: Option<u64>,
    started: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        let now = Instant::now();
        Self { total, started: now, shown: now, terminal: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, tally: &Tally, last: bool) {
        let pause = if self.terminal { Duration::from_millis(500) } else { Duration::from_secs(5) };
        if !last && self.shown.elapsed() < pause {
            return;
        }
        self.shown = Instant::now();
        let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
        let refused: u64 = tally.refused.values().sum();
        let per_second = u128::from(tally.members) * 1_000 / self.started.elapsed().as_millis().max(1);
        let again = match tally.repeated {
            0 => String::new(),
            repeated => format!(", {repeated} of an earlier run"),
        };
        let end = if last || !self.terminal { "\n" } else { "\r" };
        eprint!(
            "coupon-ledger: {}{of} members: {} issued{again}, {refused} refused, {per_second}/s{end}",
            tally.members, tally.issued
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_ids_are_left_out_and_counted() {
        let text = ["1", "", " 2 ", "# note", "x", "-3", "9007199254740992", "4"];
        let mut lines = text.into_iter().map(|line| Ok(line.to_owned()));
        let mut bad = 0;
        let chunk = next_chunk(&mut lines, &mut bad).ok().flatten();
        assert_eq!((chunk, bad), (Some(vec![1, 2, 4]), 3));
        assert!(matches!(next_chunk(&mut lines, &mut bad), Ok(None)));
    }

    #[test]
    fn a_range_is_taken_from_its_first_to_its_last() {
        let (total, lines) = open_input("3..5").ok().unwrap();
        assert_eq!(total, Some(3));
        assert_eq!(lines.map(Result::unwrap).collect::<Vec<_>>(), ["3", "4", "5"]);
        for bad in ["5..3", "0..2", "1..9007199254740992", "/no/such/file"] {
            assert!(open_input(bad).is_err(), "{bad}");
        }
    }
}
