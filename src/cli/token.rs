//! `coupon-ledger token`: prints a token, or cuts one short.

use super::remote::{Remote, as_operator};
use super::{Context, Failed, say};
use crate::clock::Clock;
use crate::config::running_server;
use crate::directory;
use crate::identity::{Caller, Token};
use crate::read_model::partners;
use crate::secrets::Secrets;
use crate::store::{self, Store};

/// Whose token, for how long; or which token to revoke.
#[derive(Debug, clap::Args)]
// Not the group that the derive would make: --ttl would be in it, and exclude the others.
#[group(skip)]
#[command(group = clap::ArgGroup::new("whose").required(true).args(["member", "employee", "partner", "operator", "auditor", "revoke"]))]
pub(super) struct TokenArgs {
    /// A member's token
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=crate::value::MAX_ID))]
    member: Option<i64>,
    /// An employee's token
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=crate::value::MAX_ID))]
    employee: Option<i64>,
    /// A partner's token
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i64).range(1..=crate::value::MAX_ID))]
    partner: Option<i64>,
    /// An operator's token
    #[arg(long)]
    operator: bool,
    /// An auditor's token
    #[arg(long)]
    auditor: bool,
    /// Cut this token short: every server knows within a minute
    #[arg(long, value_name = "TOKEN")]
    revoke: Option<String>,
    /// How long it holds: 90s, 15m, 12h, 30d
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = parse_ttl)]
    ttl: i64,
}

/// `90s`, `15m`, `12h`, `30d` in seconds; at most ten years.
pub(super) fn parse_ttl(text: &str) -> Result<i64, String> {
    let shape = || "give a time like 90s, 15m, 12h or 30d, at most ten years".to_owned();
    let unit = text.chars().last().ok_or_else(shape)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(shape()),
    };
    let number: i64 = text.get(..text.len() - 1).and_then(|number| number.parse().ok()).ok_or_else(shape)?;
    let ttl = number.checked_mul(seconds).ok_or_else(shape)?;
    if (1..=3_650 * 86_400).contains(&ttl) { Ok(ttl) } else { Err(shape()) }
}

pub(super) async fn run(context: Context, arguments: TokenArgs) -> Result<(), Failed> {
    let secrets = context.secrets_in_use().await?;
    if let Some(text) = &arguments.revoke {
        return revoke(&context, &secrets, text).await;
    }
    let caller = match (arguments.member, arguments.employee, arguments.partner) {
        (Some(id), ..) => Caller::Member(id),
        (_, Some(id), _) => Caller::Employee(id),
        (.., Some(id)) => Caller::Partner(id),
        _ if arguments.operator => Caller::Operator,
        _ => Caller::Auditor,
    };
    warn_of_strangers(&context, &secrets, caller).await;
    let token = Token::new(caller, Clock::System.now_ms(), arguments.ttl);
    say(token.sign(&secrets))?;
    Ok(())
}

/// A token for an id that nobody has yet is not wrong, but mostly a slip.
async fn warn_of_strangers(context: &Context, secrets: &Secrets, caller: Caller) {
    let options = context.store_options(secrets, Clock::System.now_ms());
    let Ok(store) = store::open_read_only(&options).await else {
        eprintln!("coupon-ledger: the ledger cannot be read now, so {caller} was not looked up");
        return;
    };
    let known = match caller {
        Caller::Member(id) => directory::membership(&store, id).await.map(|member| member.is_some()),
        Caller::Employee(id) => directory::employee(&store, id).await.map(|employee| employee.is_some()),
        Caller::Partner(id) => partners::partner(&store, id).await.map(|partner| partner.is_some()),
        _ => Ok(true),
    };
    if matches!(known, Ok(false)) {
        eprintln!("coupon-ledger: note: there is no {caller} yet");
    }
    store.close().await;
}

async fn revoke(context: &Context, secrets: &Secrets, text: &str) -> Result<(), Failed> {
    let token = Token::read(text, secrets)
        .ok_or_else(|| Failed::Refused(anyhow::anyhow!("this is not a token of this ledger")))?;
    // The server holds the embedded ledger: what writes goes to it.
    if context.place.database_url.is_none()
        && let Some(server) = running_server(&context.folder)
    {
        let body = serde_json::json!({"revoke": text});
        match Remote::new(&server.url, secrets).call("/token/revoke", None, &body).await {
            Ok(answer) if answer.code == 0 => return Ok(()),
            Ok(answer) => return Err(Failed::Refused(anyhow::anyhow!("{}", answer.info))),
            Err(error) => {
                eprintln!("coupon-ledger: the server at {} does not answer ({error:#})", server.url);
            }
        }
    }
    as_operator("/token/revoke")?;
    let store: Store = store::open(&context.store_options(secrets, Clock::System.now_ms())).await?;
    let _ = directory::revoke_token(&store, &token.id, token.expires_at_s, None).await?;
    store.close().await;
    Ok(())
}
