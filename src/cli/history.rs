//! `coupon-ledger history`: what happened to one stream, and what somebody did.

use std::fmt::Write as _;

use anyhow::{Context as _, anyhow};
use serde_json::Value;

use super::{Context, Failed, write_out};
use crate::audit::at::{At, AtError};
use crate::audit::history::{Entry, Span, of_caller, of_readers, of_stream};
use crate::audit::kinds::Kind;
use crate::clock::{Clock, Zone};
use crate::entity::KINDS;
use crate::identity::Caller;
use crate::reading::Person;
use crate::refusal::Language;
use crate::store::Store;
use crate::value::{MAX_ID, parse_int};

/// Events that are held and printed at a time.
const PAGE: usize = 500;

/// Whose history, and which part of it.
#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// A coupon's id, a stream (definition/3, shop/1, order/7 …), or who did it (member/431, employee/1000, operator …)
    #[arg(value_name = "WHAT", value_parser = Subject::parse)]
    subject: Subject,
    /// Who has read the personal data of this member, employee or holder of an account (member/431, employee/1000, account/7)
    #[arg(long)]
    readers: bool,
    /// Only what had happened by then: a position, a day, or a time like "2026-11-24 10:31:41"
    #[arg(long, value_name = "POSITION|TIME")]
    at: Option<String>,
    /// Only from this position on
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    from: Option<i64>,
    /// Only up to this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    to: Option<i64>,
    /// One JSON object a line, with the states before and after
    #[arg(long)]
    json: bool,
}

/// Whose history it is.
#[derive(Clone)]
enum Subject {
    Stream(&'static Kind, i64),
    Caller(Caller),
    Readers(Person),
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stream(kind, id) => write!(f, "{}/{id}", kind.name),
            Self::Caller(caller) => write!(f, "{caller}"),
            Self::Readers(person) => write!(f, "the readers of {person}"),
        }
    }
}

impl Subject {
    /// Those who read him, where he is a person.
    fn readers(&self) -> anyhow::Result<Self> {
        Ok(Self::Readers(match self {
            Self::Caller(Caller::Member(id)) => Person::Member(*id),
            Self::Caller(Caller::Employee(id)) => Person::Employee(*id),
            Self::Caller(Caller::OperatorAccount(id) | Caller::AuditorAccount(id)) => Person::Account(*id),
            Self::Stream(kind, id) if kind.name == "account" => Person::Account(*id),
            _ => anyhow::bail!("--readers: give a person as member/431, employee/1000 or account/7"),
        }))
    }

    fn parse(text: &str) -> Result<Self, String> {
        if let Some(caller) = Caller::parse(text) {
            return Ok(Self::Caller(caller));
        }
        let (kind, id) = text.split_once(['/', ':']).unwrap_or(("coupon", text));
        let id = parse_int(id, 1, MAX_ID).ok().filter(|id| (1..=MAX_ID).contains(id));
        match Kind::named(kind).zip(id) {
            Some((kind, id)) => Ok(Self::Stream(kind, id)),
            None => Err(format!(
                "give a coupon's id, a stream as one of {} with / and its id, or a caller as member/431, employee/1000, \
                 partner/2, operator, auditor or system",
                KINDS.join(", ")
            )),
        }
    }
}

pub(super) async fn run(context: Context, arguments: HistoryArgs) -> Result<(), Failed> {
    let HistoryArgs { subject, readers, at, from, to, json } = arguments;
    let subject = if readers { subject.readers()? } else { subject };
    let after = from.unwrap_or(1) - 1;
    if to.is_some_and(|to| to <= after) {
        return Err(anyhow!("--to lies before --from: there is nothing between them").into());
    }
    let store = context.open_to_read().await?;
    let told = tell(&context, &store, &subject, (at, after, to), json).await;
    store.close().await;
    told
}

async fn tell(
    context: &Context,
    store: &Store,
    subject: &Subject,
    (at, after, to): (Option<String>, i64, Option<i64>),
    json: bool,
) -> Result<(), Failed> {
    let mut span = Span { after, until: to.unwrap_or(i64::MAX) };
    if let Some(at) = at {
        span.until = span.until.min(as_of(context, store, &at).await?.position);
    }
    let zone = context.zone;
    let mut none = true;
    loop {
        let entries = match subject {
            Subject::Stream(kind, id) => of_stream(store, (*kind, *id), span, PAGE, zone).await?,
            Subject::Caller(caller) => {
                of_caller(store, &caller.to_string(), span, (PAGE, i64::MAX), zone).await?.entries
            }
            Subject::Readers(person) => of_readers(store, *person, span, PAGE, zone).await?,
        };
        none &= entries.is_empty();
        if !print(&entries, zone, json)? || entries.len() < PAGE {
            break;
        }
        span.after = entries.last().map_or(span.until, |entry| entry.position);
    }
    match subject {
        Subject::Stream(kind, id) if none => {
            Err(Failed::Refused(anyhow!("{} {id} has no events in this part of the log", kind.name)))
        }
        Subject::Caller(caller) if none => {
            eprintln!("coupon-ledger: {caller} has caused no events in this part of the log");
            Ok(())
        }
        Subject::Readers(person) if none => {
            eprintln!("coupon-ledger: nobody has read {person} in this part of the log");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The point of the log that `--at` names.
pub(super) async fn as_of(
    context: &Context,
    store: &Store,
    text: &str,
) -> anyhow::Result<crate::audit::at::AsOf> {
    let wrong =
        |why: &crate::refusal::Wrong| anyhow!("{}", why.text(&format!("\"{text}\""), Language::English));
    let at = At::parse(text, context.zone).map_err(|why| wrong(&why))?;
    match at.resolve(store, context.zone, Clock::System.now_ms()).await {
        Ok(as_of) => Ok(as_of),
        Err(AtError::Wrong(why)) => Err(wrong(&why)),
        Err(AtError::Store(error)) => Err(error).context("the ledger cannot be read"),
    }
}

/// Prints events; false where nobody reads any more.
fn print(entries: &[Entry], zone: Zone, json: bool) -> anyhow::Result<bool> {
    let mut text = String::new();
    for entry in entries {
        if json {
            let _ = writeln!(text, "{}", serde_json::to_string(entry)?);
        } else {
            text.push_str(&paragraph(entry, zone));
        }
    }
    write_out(&text)
}

/// An event as people read it.
fn paragraph(entry: &Entry, zone: Zone) -> String {
    let Entry { position, recorded_at, stream, r#type, words, .. } = entry;
    let mut text = format!("#{position}  {recorded_at}  {stream}  {type}", r#type = r#type);
    let caused = [
        ("by", &entry.caller),
        ("request", &entry.request_id),
        ("key", &entry.idempotency_key),
        // A request is its own cause.
        ("caused by", if entry.causation_id == entry.request_id { &None } else { &entry.causation_id }),
    ];
    let caused = caused.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value.as_ref()?)));
    let _ = writeln!(text, "  {}\n    {words}", caused.collect::<Vec<_>>().join(", "));
    for change in &entry.changes {
        let shown = |value| shown(&change.path, value, zone);
        let _ = writeln!(text, "    {}: {} → {}", change.path, shown(&change.before), shown(&change.after));
    }
    text
}

/// A field's value; an instant is shown as local time.
fn shown(path: &str, value: &Value, zone: Zone) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Number(number) if path.ends_with("_ms") => match number.as_i64() {
            Some(0) | None => number.to_string(),
            Some(ms) => zone.date_time(ms),
        },
        other => other.to_string(),
    }
}
