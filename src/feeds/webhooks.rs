//! What an operator does with webhooks: adds, changes, pauses, resumes and removes them, gives them another secret, has events
//! sent once more, and looks how they stand.
//!
//! Each is an event of the webhook's own stream. The secret follows from a key outside the database and is shown when it is
//! asked for; nothing here stores or logs it.

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use hyper::Uri;
use ipnet::IpNet;
use serde_json::{Value, json};

use crate::audit::check::rules::KINDS as EVENTS;
use crate::entity::KINDS;
use crate::followers::Standing;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::outgoing::Reach;
use crate::read_model::webhooks::{self, DeadRow, LaneRow, MAIN_LANE, WebhookRow};
use crate::refusal::{BadUrl, Refusal, Wrong};
use crate::store::{Store, StoreError};
use crate::value::{MAX_ID, parse_int};
use crate::webhook::{Subscription, Webhook, WebhookCommand, Why};
use crate::webhook_signature::secret_text;

/// The most webhooks at a time.
pub const MAX_WEBHOOKS: usize = 100;

/// The most ranges of one that are being sent once more.
pub const MAX_RESENDS: usize = 4;

/// The longest URL.
const MAX_URL: usize = 2_000;

/// The most names of events, and the most streams.
const MAX_LIST: usize = 100;

/// How long a name may take to be looked up before a webhook is added. Whatever it is, each connection is checked anew.
const LOOK_UP: Duration = Duration::from_secs(3);

/// Where webhooks may lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookPolicy {
    /// Whether they may be plain http.
    pub allow_http: bool,
    /// Networks that they may lead into beside the public internet.
    pub networks: Vec<IpNet>,
}

impl WebhookPolicy {
    /// Reads networks as settings name them, `10.1.0.0/16` or one address; an error is a sentence.
    pub fn new(allow_http: bool, networks: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let text = text.trim();
            let one = text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or(one).map_err(|_| format!("{text} is no network like 10.1.0.0/16"))
        };
        let networks = networks.iter().filter(|text| !text.trim().is_empty()).map(read);
        Ok(Self { allow_http, networks: networks.collect::<Result<_, _>>()? })
    }

    /// Which addresses are connected to.
    #[must_use]
    pub fn reach(&self) -> Reach {
        Reach::Public { besides: self.networks.clone() }
    }

    /// Why a URL is not spoken to, as far as can be told without asking anybody.
    fn check(&self, url: &str) -> Result<Uri, BadUrl> {
        let is_plain =
            url.len() <= MAX_URL && url.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
        let uri: Uri = url.parse().map_err(|_| BadUrl::NotOne)?;
        let has_user = uri.authority().is_none_or(|authority| authority.as_str().contains('@'));
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        match uri.scheme_str() {
            _ if !is_plain || has_user || host.is_empty() => Err(BadUrl::NotOne),
            Some("http") if !self.allow_http => Err(BadUrl::NotHttps),
            Some("http" | "https") => match host.parse::<IpAddr>() {
                Ok(address) if !self.reach().allows(address) => Err(BadUrl::Inside),
                _ => Ok(uri),
            },
            _ => Err(BadUrl::NotOne),
        }
    }

    /// The same, and where its name leads now. One that leads nowhere yet is let through.
    async fn check_with_name(&self, url: &str) -> Result<(), BadUrl> {
        let uri = self.check(url)?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let looking = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(443)));
        let Ok(Ok(mut found)) = tokio::time::timeout(LOOK_UP, looking).await else { return Ok(()) };
        let reach = self.reach();
        if found.all(|address| reach.allows(address.ip())) { Ok(()) } else { Err(BadUrl::Inside) }
    }
}

/// The names of every event there is.
static NAMES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let mut names: Vec<&str> = EVENTS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    names.sort_unstable();
    names.dedup();
    names
});

/// Why a subscription cannot be one, field by field. One that would never be sent anything is a mistake.
pub async fn check(policy: &WebhookPolicy, subscription: &Subscription) -> Result<(), Refusal> {
    let Subscription { url, types, streams } = subscription;
    for (field, list) in [("type", types), ("stream", streams)] {
        if list.len() > MAX_LIST {
            return Err(Refusal::field(field, Wrong::TooMany { max: MAX_LIST }));
        }
    }
    if !types.iter().all(|name| NAMES.contains(&name.as_str())) {
        return Err(Refusal::field("type", Wrong::NotOneOf(&NAMES)));
    }
    if !streams.iter().all(|stream| is_stream(stream)) {
        return Err(Refusal::field("stream", Wrong::NotOneOf(KINDS)));
    }
    policy.check_with_name(url).await.map_err(|why| Refusal::field("url", Wrong::Url(why)))
}

/// `coupon`, or `coupon/439`
fn is_stream(text: &str) -> bool {
    let (kind, id) = text.split_once('/').map_or((text, None), |(kind, id)| (kind, Some(id)));
    let is_id =
        |id: &str| parse_int(id, 1, MAX_ID).is_ok_and(|number| number >= 1 && number.to_string() == id);
    KINDS.contains(&kind) && id.is_none_or(is_id)
}

/// Adds one that begins behind a position; None = behind what there is.
pub async fn add(
    ledger: &Ledger,
    policy: &WebhookPolicy,
    subscription: Subscription,
    after: Option<i64>,
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    if let Some(done) = ledger.replay::<Webhook>(meta).await? {
        return Ok(done);
    }
    check(policy, &subscription).await?;
    let last = ledger.store().head().await?;
    let after = after.unwrap_or(last);
    there_is(after, last, "after")?;
    if webhooks::webhooks(ledger.store()).await?.len() >= MAX_WEBHOOKS {
        return Err(Refusal::field("url", Wrong::TooMany { max: MAX_WEBHOOKS }).into());
    }
    let id = ledger.next_id("webhook", true).await?;
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Add { subscription, after, employee_id }, meta).await
}

/// What is sent somewhere else, or something else; what is not given stays.
pub async fn change(
    ledger: &Ledger,
    policy: &WebhookPolicy,
    id: i64,
    (url, types, streams): (Option<String>, Option<Vec<String>>, Option<Vec<String>>),
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    let now = there(ledger, id).await?.subscription;
    let subscription = Subscription {
        url: url.unwrap_or(now.url),
        types: types.unwrap_or(now.types),
        streams: streams.unwrap_or(now.streams),
    };
    check(policy, &subscription).await?;
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Change { subscription, employee_id }, meta).await
}

/// Lets one rest.
pub async fn pause(
    ledger: &Ledger,
    id: i64,
    why: Why,
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Pause { why, employee_id }, meta).await
}

/// Lets one go on, where it was or behind a position.
pub async fn resume(
    ledger: &Ledger,
    id: i64,
    after: Option<i64>,
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    if let Some(after) = after {
        there_is(after, ledger.store().head().await?, "after")?;
    }
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Resume { after, employee_id }, meta).await
}

/// Gives one another secret; the one before signs as well for so long.
pub async fn rotate(
    ledger: &Ledger,
    id: i64,
    overlap_ms: i64,
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::RotateSecret { overlap_ms, employee_id }, meta).await
}

/// Sends the events of a range once more, those that it wants, beside what comes.
pub async fn resend(
    ledger: &Ledger,
    id: i64,
    (from, to): (i64, i64),
    meta: &Meta,
) -> Result<Executed<Webhook>, ExecuteError> {
    if let Some(done) = ledger.replay::<Webhook>(meta).await? {
        return Ok(done);
    }
    there(ledger, id).await?;
    there_is(to, ledger.store().head().await?, "to")?;
    if to < from {
        return Err(Refusal::field("to", Wrong::OutOfRange { min: from, max: MAX_ID }).into());
    }
    let lanes = webhooks::lanes(ledger.store()).await?;
    let resending = lanes.iter().filter(|lane| lane.webhook_id == id && lane.lane != MAIN_LANE).count();
    if resending >= MAX_RESENDS {
        return Err(Refusal::field("from", Wrong::TooMany { max: MAX_RESENDS }).into());
    }
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Resend { from, to, employee_id }, meta).await
}

/// Removes one; once more changes nothing.
pub async fn remove(ledger: &Ledger, id: i64, meta: &Meta) -> Result<Executed<Webhook>, ExecuteError> {
    let employee_id = meta.caller.employee_id();
    ledger.execute(id, &WebhookCommand::Remove { employee_id }, meta).await
}

fn there_is(position: i64, last: i64, field: &'static str) -> Result<(), Refusal> {
    if position > last { Err(Refusal::field(field, Wrong::NoSuchPosition { last })) } else { Ok(()) }
}

async fn there(ledger: &Ledger, id: i64) -> Result<WebhookRow, ExecuteError> {
    Ok(webhooks::webhook(ledger.store(), id).await?.ok_or(Refusal::NoSuchRule)?)
}

/// The secret that signs what is sent there now, as its receiver is given it.
pub async fn secret(ledger: &Ledger, id: i64) -> Result<Value, ExecuteError> {
    let row = there(ledger, id).await?;
    Ok(json!({"id": id, "generation": row.generation, "secret": secret_of(ledger, id, row.generation)}))
}

fn secret_of(ledger: &Ledger, id: i64, generation: u32) -> String {
    secret_text(&ledger.secrets().webhook_secret(id, generation))
}

/// One that was added, changed, paused or resumed.
#[must_use]
pub fn told_json(done: &Executed<Webhook>) -> Value {
    let Webhook { subscription, generation, paused, .. } = &done.state;
    let Subscription { url, types, streams } = subscription.clone().unwrap_or_default();
    let (id, state) = (done.id, state_name(*paused));
    json!({"id": id, "url": url, "types": types, "streams": streams, "state": state, "generation": generation})
}

/// The same with its secret.
#[must_use]
pub fn told_json_with_secret(ledger: &Ledger, done: &Executed<Webhook>) -> Value {
    let mut told = told_json(done);
    let secret = secret_of(ledger, done.id, done.state.generation);
    if let Value::Object(told) = &mut told {
        told.insert("secret".to_owned(), secret.into());
    }
    told
}

fn state_name(paused: Option<Why>) -> &'static str {
    match paused {
        None => "running",
        Some(Why::Asked) => "paused",
        Some(Why::Gone) => "gone",
    }
}

/// How every webhook stands, the oldest first.
pub async fn list(store: &Store) -> Result<Vec<Value>, StoreError> {
    let (rows, lanes) = (webhooks::webhooks(store).await?, webhooks::lanes(store).await?);
    let head = store.head().await?;
    Ok(rows.iter().map(|row| listed_json(row, &lanes, head)).collect())
}

fn listed_json(row: &WebhookRow, lanes: &[LaneRow], head: i64) -> Value {
    let of_this = || lanes.iter().filter(|lane| lane.webhook_id == row.id);
    let main = of_this().find(|lane| lane.lane == MAIN_LANE);
    let resending: Vec<Value> = of_this()
        .filter(|lane| lane.lane != MAIN_LANE)
        .map(|lane| json!({"lane": lane.lane, "position": lane.position, "to": lane.until, "failing": failing_json(lane)}))
        .collect();
    json!({
        "id": row.id,
        "url": row.subscription.url,
        "types": row.subscription.types,
        "streams": row.subscription.streams,
        "state": state_name(row.paused),
        "generation": row.generation,
        "position": main.map(|lane| lane.position),
        "lag": main.map(|lane| (head - lane.position).max(0)),
        "failing": main.map_or(Value::Null, failing_json),
        "dead": row.dead,
        "resending": resending,
        "added_at_ms": row.added_at_ms,
    })
}

fn failing_json(lane: &LaneRow) -> Value {
    if lane.attempts == 0 {
        return Value::Null;
    }
    let LaneRow { attempts, failing_since_ms, next_at_ms, last_error, .. } = lane;
    json!({"attempts": attempts, "since_ms": failing_since_ms, "next_at_ms": next_at_ms, "error": last_error})
}

/// Events that were given up, behind a position.
pub async fn dead(store: &Store, id: i64, after: i64, limit: i64) -> Result<Option<Vec<Value>>, StoreError> {
    if webhooks::webhook(store, id).await?.is_none() {
        return Ok(None);
    }
    let rows = webhooks::dead(store, id, after, limit).await?;
    Ok(Some(rows.iter().map(dead_json).collect()))
}

fn dead_json(row: &DeadRow) -> Value {
    json!({
        "position": row.position,
        "stream": row.stream,
        "type": row.event_type,
        "attempts": row.attempts,
        "error": row.last_error,
        "failed_at_ms": row.failed_at_ms,
        "given_up_at_ms": row.given_up_at_ms,
    })
}

/// The same as standings, beside those of the other followers.
pub async fn standings(store: &Store) -> Result<Vec<Standing>, StoreError> {
    let (rows, lanes) = (webhooks::webhooks(store).await?, webhooks::lanes(store).await?);
    let head = store.head().await?;
    let standing = |row: &WebhookRow| {
        let main = lanes.iter().find(|lane| lane.webhook_id == row.id && lane.lane == MAIN_LANE);
        let failing = main.filter(|lane| lane.attempts > 0);
        Standing {
            name: format!("webhook {}", row.id).into(),
            about: "sends events to a webhook; `coupon-ledger webhook` pauses and resumes it",
            checkpoint: main.map_or(0, |lane| lane.position),
            lag: main.map(|lane| (head - lane.position).max(0)),
            paused: row.paused.is_some(),
            last_error: failing.map(|lane| lane.last_error.clone()).unwrap_or_default(),
            error_at_ms: failing.map_or(0, |lane| lane.failing_since_ms),
        }
    };
    Ok(rows.iter().map(standing).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_https_and_leads_outside_unless_it_may_not() {
        let strict = WebhookPolicy::default();
        let open = WebhookPolicy::new(true, &["10.1.0.0/16".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let check = |url: &str| (strict.check(url).err(), open.check(url).err());
        for (url, expected) in [
            ("https://erp.example/a?b=c", (None, None)),
            ("https://erp.example:8443", (None, None)),
            ("http://erp.example/", (Some(BadUrl::NotHttps), None)),
            ("https://10.1.2.3/", (Some(BadUrl::Inside), None)),
            ("https://[::ffff:10.1.2.3]/", (Some(BadUrl::Inside), None)),
            ("http://127.0.0.1:1/", (Some(BadUrl::NotHttps), None)),
            ("https://169.254.169.254/latest", (Some(BadUrl::Inside), Some(BadUrl::Inside))),
            ("https://[::1]/", (Some(BadUrl::Inside), Some(BadUrl::Inside))),
            ("https://user:secret@erp.example/", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("https://erp.example/#a", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("https:///a", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("erp.example", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("/a", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("ftp://erp.example/", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("https://erp.example/券", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
            ("", (Some(BadUrl::NotOne), Some(BadUrl::NotOne))),
        ] {
            assert_eq!(check(url), expected, "{url}");
        }
        assert!(WebhookPolicy::new(false, &["10.1.0.0/33".to_owned()]).is_err());
    }

    #[test]
    fn a_stream_is_a_kind_or_one_of_it() {
        for good in ["coupon", "coupon/439", "webhook/1"] {
            assert!(is_stream(good), "{good}");
        }
        for bad in ["", "coupons", "coupon/", "coupon/0", "coupon/07", "coupon/-1", "coupon/1/2", "coupon/x"]
        {
            assert!(!is_stream(bad), "{bad}");
        }
    }
}
