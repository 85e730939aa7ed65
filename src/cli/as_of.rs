//! `coupon-ledger as-of`: what somebody was shown then, or the whole ledger as it was in a new file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow};

use super::history::as_of;
use super::remote::Holder;
use super::{Context, Failed, write_out};
use crate::audit::as_of::{AsOfError, whole};
use crate::audit::at::AsOf;
use crate::config;
use crate::directory::Seal;
use crate::http::as_of::{Question, Source, answer, may_call, route, sentence};
use crate::http::form::Form;
use crate::http::{Failure, HttpOptions};
use crate::identity::Caller;
use crate::ledger::ExecuteError;
use crate::reading::Person;
use crate::refusal::Language;
use crate::secrets::Secrets;
use crate::store::{Scratch, Store};
use crate::value::{MAX_ID, hex, random};
use crate::watch::{Shown, Watch};

/// As of when, and what is asked.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("asked").required(true).args(["into", "member", "partner", "operator", "auditor"]))]
pub(super) struct AsOfArgs {
    /// A position, a day (its end), or a time like "2026-11-24 10:31:41"
    #[arg(value_name = "POSITION|TIME")]
    at: String,
    /// Write the whole ledger as it was into this new SQLite file
    #[arg(long, value_name = "FILE", conflicts_with = "route")]
    into: Option<PathBuf>,
    /// What this member was shown
    #[arg(long, value_name = "ID", requires = "route", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    member: Option<i64>,
    /// What this partner was shown
    #[arg(long, value_name = "ID", requires = "route", value_parser = clap::value_parser!(i64).range(1..=MAX_ID))]
    partner: Option<i64>,
    /// What operators were shown
    #[arg(long, requires = "route")]
    operator: bool,
    /// What auditors were shown
    #[arg(long, requires = "route")]
    auditor: bool,
    /// A reading route of the manual: couponlist, couponinfo, /elecoupons/info …
    #[arg(value_name = "ROUTE")]
    route: Option<String>,
    /// Its fields: state=0 id=439 …
    #[arg(value_name = "FIELD=VALUE", value_parser = field)]
    fields: Vec<(String, String)>,
}

fn field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give a field as its name, = and its value".to_owned()),
    }
}

pub(super) async fn run(context: Context, arguments: AsOfArgs) -> Result<(), Failed> {
    let store = context.open_to_read().await?;
    let done = match &arguments.into {
        Some(path) => write_into(&context, &store, &arguments.at, path).await,
        None => show(&context, &store, &arguments).await,
    };
    store.close().await;
    done
}

async fn write_into(context: &Context, store: &Store, at: &str, path: &Path) -> Result<(), Failed> {
    if path.exists() {
        return Err(anyhow!("{} exists already: name a new file", path.display()).into());
    }
    let as_of = as_of(context, store, at).await?;
    let not_written = || format!("{} was not written", path.display());
    let scratch = Scratch::beside(path).await.with_context(not_written)?;
    if let Err(error) = whole(&scratch, store, as_of).await {
        scratch.close().await;
        return Err(match error {
            corrupt @ AsOfError::Corrupt(_) => corrupt.into(),
            error => anyhow::Error::from(error).context(not_written()).into(),
        });
    }
    scratch.finish_as(path).await.with_context(not_written)?;
    let AsOf { position, at_ms } = as_of;
    eprintln!(
        "coupon-ledger: {} holds {position} events, as of {}",
        path.display(),
        context.zone.date_time(at_ms)
    );
    Ok(())
}

async fn show(context: &Context, store: &Store, arguments: &AsOfArgs) -> Result<(), Failed> {
    let caller = match (arguments.member, arguments.partner) {
        (Some(id), _) => Caller::Member(id),
        (_, Some(id)) => Caller::Partner(id),
        _ if arguments.operator => Caller::Operator,
        _ => Caller::Auditor,
    };
    // A member's pages may be named as the manual's heading does, without their folder.
    let named = arguments.route.clone().unwrap_or_default();
    let path = if named.starts_with('/') { named.clone() } else { format!("/client/{named}") };
    let wrong = |why: &crate::refusal::Wrong| anyhow!("{}", why.text(&path, Language::English));
    let route = route(&path).map_err(|why| wrong(&why))?;
    may_call(route, caller).map_err(|_| anyhow!("{path} is not for {caller}"))?;
    let as_of = as_of(context, store, &arguments.at).await?;
    let mut fields = form_urlencoded::Serializer::new(String::new());
    fields.extend_pairs(&arguments.fields);
    let fields = fields.finish();
    let ask = async |secrets: &Secrets, seal: Seal| {
        let form = Form::from_form(fields.as_bytes())
            .map_err(|why| anyhow!("{}", why.text("fields", Language::English)))?;
        let question = Question { route, caller, form, language: Language::English };
        let source = Source {
            store: store.clone(),
            secrets: secrets.clone(),
            seal,
            zone: context.zone,
            options: Arc::new(HttpOptions::default()),
        };
        answer(&source, as_of, question).await.map_err(|failure| refused_or_failed(&failure))
    };
    // Only a scanned QR is held against the secret, and only reviews are sealed; whoever has no keys can ask everything else.
    let secrets = config::find_secrets(&context.place, &context.folder).map_err(anyhow::Error::msg)?;
    let secrets = secrets.unwrap_or_else(|| Secrets::from_root(random()));
    let seal = context.find_seal(store, &secrets).await?.unwrap_or_else(|| Seal::without_keys(&secrets));
    let mut shown = ask(&secrets, seal).await?;
    if !shown.people.is_empty()
        && let Err(why) =
            tell(context, &shown.people, &as_asked(arguments, route.path, caller, &fields)).await
    {
        eprintln!(
            "coupon-ledger: without the texts of reviews, because nobody can be told who reads them: {why:#}"
        );
        shown = ask(&secrets, Seal::without_keys(&secrets)).await?;
    }
    write_out(&format!("{}\n", shown.text)).context("cannot write the answer")?;
    Ok(())
}

fn refused_or_failed(failure: &Failure) -> Failed {
    let said = anyhow!("{}", sentence(failure));
    match failure {
        Failure::Execute(ExecuteError::Refused(_)) => Failed::Refused(said),
        _ => Failed::CouldNotRun(said),
    }
}

/// The same question under `/v1`.
fn as_asked(arguments: &AsOfArgs, path: &str, caller: Caller, fields: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("at", &arguments.at).append_pair("caller", &caller.to_string());
    format!("/v1/as-of{path}?{}&{fields}", query.finish())
}

/// Writes down whose reviews are to be shown. A server that holds the ledger does so when it is asked the same question.
async fn tell(context: &Context, people: &[Person], asked: &str) -> anyhow::Result<()> {
    let cannot = |failed: Failed| match failed {
        Failed::Refused(error) | Failed::CouldNotRun(error) => error,
    };
    let holder = Holder::find(context, context.secrets(false)?).await.map_err(cannot)?;
    let told = match &holder {
        Holder::Ledger(ledger) => {
            let request_id = hex(&random::<8>());
            let shown = Shown {
                reader: Caller::Operator,
                action: "coupon-ledger as-of",
                people,
                request_id: &request_id,
            };
            Watch::default().tell(ledger, shown).await.map_err(Into::into)
        }
        Holder::Server(server) => {
            server.ask_as(Caller::Auditor, hyper::Method::GET, asked).await.map(drop).map_err(cannot)
        }
    };
    holder.close().await;
    told
}
