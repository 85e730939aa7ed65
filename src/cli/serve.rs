//! `coupon-ledger serve`: opens the ledger, listens, says where everything is, and ends cleanly.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use super::{Context, Failed, safety};
use crate::account::AccountRole;
use crate::approving::Limits;
use crate::audit::receipt::Patience;
use crate::audit::tlog::{TlogOptions, Witness, run_tlog};
use crate::audit::verify::run_verify;
use crate::clock::Clock;
use crate::config::{RunningServer, Serve, announce_server, oidc_secret, outside_secret, withdraw_server};
use crate::demo;
use crate::directory::{clear_ended_sessions, forget_nonces};
use crate::erasure::{self, follow_erasures};
use crate::exports::{ExportPlace, run_exports};
use crate::feeds::deliver::{self, DeliveryOptions, run_webhooks};
#[cfg(feature = "nats")]
use crate::feeds::nats::{NatsOptions, Publisher};
use crate::feeds::webhooks::WebhookPolicy;
use crate::followers::{self, EXPIRY};
use crate::granting::{self, run_granting};
use crate::http::gate::GateOptions;
use crate::http::gate::address::Proxies;
use crate::http::gate::hygiene::Origin;
use crate::http::gate::limits::LimitTable;
use crate::http::server::{self, ServerOptions};
use crate::http::{App, HttpOptions};
use crate::identity::{Caller, Token};
use crate::ledger::{Ledger, LedgerOptions, keys};
use crate::messages::{MessageOptions, MessageWebhook, run_messages};
use crate::oidc::OidcOptions;
use crate::read_model::accounts::{AccountRow, accounts};
use crate::read_model::pages::Slice;
use crate::runner::{release_leases, run_jobs};
use crate::statistics::Statistics;
use crate::store;
use crate::sweep::{release_lease, sweep};
use crate::wechat::{Wechat, WechatApp, WechatOptions};

/// How often the sweep looks, sessions that have ended are cleared, and the revoked tokens and the good keys are read again.
const HOUSEKEEPING: Duration = Duration::from_secs(20);

/// How long what has panicked rests before it begins again.
const BEGIN_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How often what was refused is written down, and how long that may take at the end.
const REFUSALS: Duration = Duration::from_secs(60);
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Files that are no client's connection.
const OWN_FILES: usize = 128;

pub(super) async fn run(context: Context, options: Serve) -> Result<(), Failed> {
    start_logging(options.log_format.as_deref())?;
    let clock = Clock::System;
    let witnesses = witnesses(&options)?;
    let gate = gate_options(&options).map_err(anyhow::Error::msg)?;
    let messages = message_options(&options)?;
    let listen = options.listen.clone().unwrap_or_else(|| "127.0.0.1:8787".to_owned());
    safety::check(&context, &options, &gate, &listen).await?;
    let listener = TcpListener::bind(&listen).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{listen} is taken by another program: stop it, or choose another with --listen")
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {listen}")),
    })?;
    let url = format!("http://{}", listener.local_addr()?);
    let secrets = context.secrets(true)?;
    let store = store::open(&context.store_options(&secrets, clock.now_ms())).await?;
    let seal = context.seal(&store, &secrets).await?;
    let ledger = Ledger::start(LedgerOptions {
        store: store.clone(),
        secrets,
        seal,
        zone: context.zone,
        clock,
        capacity: options.max_commands.unwrap_or(4_096).clamp(1, 1_000_000),
    });
    keys::follow(&ledger).await?;
    let erased_until = erasure::begin(&ledger).await?;
    if options.demo == Some(true) {
        let loaded = demo::load(&ledger).await.context("the demo world could not be loaded")?;
        tracing::info!(loaded, "demo world");
    }
    let proxies = gate.proxies.clone();
    let exports = export_place(&context, &options, &url);
    let app = App::new(ledger.clone(), HttpOptions { exports, ..http_options(&options, &url, gate)? });
    warn_of_too_few_operators(&app).await?;
    app.refresh_revoked().await?;
    // From here on others know that it serves, and may ask it to stop.
    let mut signals = StopSignals::listen()?;
    let pid = std::process::id();
    announce_server(&context.folder, &RunningServer { url: url.clone(), pid })
        .with_context(|| format!("cannot write to {}", context.folder.display()))?;
    let demo = options.demo == Some(true);
    // The demo world is for looking around: nobody signs in there who has not made an account by hand.
    let setup = if demo { None } else { app.sign_in.setup_code().await? };
    let setup = setup.map(|code| format!("{}/setup#{code}", app.options.public_url.trim_end_matches('/')));
    print_banner(&context, &ledger, (&url, setup.as_deref()), demo)?;

    let mut background = Background { ledger: ledger.clone(), tasks: JoinSet::new() };
    let house = app.clone();
    background.keep("house", move |_| keep_house(house.clone()));
    let refusing = app.clone();
    background.keep("refusals", move |_| write_down_refusals(refusing.clone()));
    background.keep("jobs", run_jobs);
    background.keep("granting", run_granting);
    let exports = app.options.exports.clone();
    background.keep("exports", move |ledger| run_exports(ledger, exports.clone()));
    background.keep("erasures", move |ledger| follow_erasures(ledger, erased_until));
    background.keep("messages", move |ledger| run_messages(ledger, messages.clone()));
    spawn_feeds(&mut background, &options)?;
    let tlog = TlogOptions { folder: context.folder.clone(), witnesses };
    background.keep("tlog", move |ledger| run_tlog(ledger, tlog.clone()));
    let statistics = Statistics::new(ledger.zone())?;
    background.tasks.spawn(followers::frame::run(ledger.clone(), statistics));
    if let hours @ 1.. = options.verify_every_hours.unwrap_or(24) {
        let (folder, every) = (context.folder.clone(), Duration::from_secs(u64::from(hours) * 3_600));
        background.keep("verify", move |ledger| run_verify(ledger, folder.clone(), every));
    }
    let (stopping, stopped) = tokio::sync::oneshot::channel();
    let stop = {
        let (ledger, app) = (ledger.clone(), app.clone());
        async move {
            let why = tokio::select! {
                () = signals.asked() => None,
                why = ledger.stopped() => Some(why),
            };
            tracing::info!("stopping: finishing what was accepted");
            app.end_streams();
            let _ = stopping.send(why);
        }
    };
    let limits = server_options(&options, proxies);
    server::serve(listener, app.router(), limits, stop).await;
    background.tasks.shutdown().await;
    let written = tokio::time::timeout(LAST_WORDS, app.watch.write_down(&ledger)).await;
    if !matches!(written, Ok(Ok(()))) {
        tracing::warn!("what was refused in the last minute could not be written down");
    }
    give_back_leases(&ledger).await;
    withdraw_server(&context.folder);
    store.close().await;
    match stopped.await {
        Ok(Some(why)) => Err(anyhow::anyhow!(why).into()),
        _ => Ok(()),
    }
}

/// Lets other servers go on at once with what this one was at.
async fn give_back_leases(ledger: &Ledger) {
    let released = async {
        release_lease(ledger).await?;
        granting::release_leases(ledger).await?;
        followers::frame::release(ledger).await?;
        deliver::release_leases(ledger).await?;
        release_leases(ledger).await
    };
    if !matches!(tokio::time::timeout(Duration::from_secs(2), released).await, Ok(Ok(()))) {
        tracing::warn!("this server's leases were not given back; they end by themselves within a minute");
    }
}

/// What goes on beside the answers for as long as the server runs.
struct Background {
    ledger: Ledger,
    tasks: JoinSet<()>,
}

impl Background {
    /// Begins a task that never ends by itself. One that panics says so, and begins again.
    fn keep<F>(&mut self, name: &'static str, begin: impl Fn(Ledger) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let ledger = self.ledger.clone();
        self.tasks.spawn(async move {
            while let Err(panic) = AssertUnwindSafe(begin(ledger.clone())).catch_unwind().await {
                let error = followers::frame::panicked(panic.as_ref());
                tracing::error!(
                    task = name,
                    error,
                    "what goes on in the background has failed and begins again"
                );
                tokio::time::sleep(BEGIN_AGAIN_AFTER).await;
            }
        });
    }
}

/// Tells those who follow from outside: webhooks, and NATS where it is wanted.
fn spawn_feeds(background: &mut Background, options: &Serve) -> anyhow::Result<()> {
    let delivery = DeliveryOptions { policy: webhook_policy(options)?, ..DeliveryOptions::default() };
    background.keep("webhooks", move |ledger| run_webhooks(ledger, delivery.clone()));
    #[cfg(feature = "nats")]
    if let Some(publish) = nats_options(options)? {
        background.tasks.spawn(followers::frame::run(background.ledger.clone(), Publisher::new(publish)));
    }
    Ok(())
}

/// What is to be approved by another needs another who can.
async fn warn_of_too_few_operators(app: &App) -> Result<(), Failed> {
    if !app.options.approvals.is_any_set() {
        return Ok(());
    }
    let accounts = accounts(app.ledger.store(), Slice::All).await?;
    let can = |account: &&AccountRow| {
        account.role == AccountRole::Operator && account.active && account.passwords > 0
    };
    let operators = accounts.iter().filter(can).count();
    if operators < 2 {
        tracing::warn!(
            operators,
            "what waits for approval needs two operators' accounts: `coupon-ledger operator create --name NAME` makes one"
        );
    }
    Ok(())
}

/// How many connections there may be. The ledger's own files and its connections to the database must find room beside those
/// of clients.
fn server_options(options: &Serve, proxies: Proxies) -> ServerOptions {
    let room = server::open_files().saturating_sub(OWN_FILES).max(1);
    let max_connections = options.max_connections.unwrap_or(4_096).max(1);
    if max_connections > room {
        tracing::warn!(room, "fewer connections than --max-connections: the process may not open more files");
    }
    ServerOptions {
        max_connections: max_connections.min(room),
        max_connections_per_address: options.max_connections_per_address.unwrap_or(1_024).max(1),
        proxies,
        ..ServerOptions::default()
    }
}

fn witnesses(options: &Serve) -> Result<Vec<Witness>, Failed> {
    let mut witnesses: Vec<Witness> = Vec::new();
    for text in options.witness.iter().flatten() {
        let witness = Witness::parse(text).map_err(|error| anyhow::anyhow!("--witness: {error}"))?;
        // Receipts wait for as many cosignatures as there are witnesses, and one key gives one.
        if witnesses.iter().any(|other| other.key == witness.key) {
            return Err(anyhow::anyhow!("--witness: {} is given twice", witness.key.text()).into());
        }
        witnesses.push(witness);
    }
    Ok(witnesses)
}

/// Limits, proxies and other sites; an error is a sentence.
fn gate_options(options: &Serve) -> Result<GateOptions, String> {
    let texts = |texts: &Option<Vec<String>>| texts.clone().unwrap_or_default();
    let origins = texts(&options.cors_origins);
    let origins = origins.iter().filter(|text| !text.trim().is_empty()).map(|text| Origin::parse(text));
    Ok(GateOptions {
        limits: LimitTable::parse(&texts(&options.limits))?,
        proxies: Proxies::parse(&texts(&options.trusted_proxies), options.forwarded_header.as_deref())?,
        cors_origins: origins.collect::<Result<_, _>>()?,
    })
}

fn http_options(options: &Serve, url: &str, gate: GateOptions) -> Result<HttpOptions, Failed> {
    let hours = |hours: Option<u32>| i64::from(hours.unwrap_or(24)) * 3_600_000;
    let base_path = options.base_path.clone().unwrap_or_default().trim_end_matches('/').to_owned();
    if !base_path.is_empty() && (!base_path.starts_with('/') || base_path.contains(['{', '}', '*'])) {
        return Err(anyhow::anyhow!("--base-path must be a path like /alias/api/v1").into());
    }
    // Said before others know that it serves.
    nats_options(options)?;
    if options.gift_lapse_hours == Some(0) {
        return Err(anyhow::anyhow!("--gift-lapse-hours must be at least 1").into());
    }
    Ok(HttpOptions {
        base_path,
        public_url: options.public_url.clone().unwrap_or_else(|| url.to_owned()),
        gift_lapse_ms: hours(options.gift_lapse_hours),
        reverse_within_ms: hours(options.reverse_within_hours),
        counter_codes_only: options.counter_codes_only.unwrap_or(false),
        wechat: wechat(options)?,
        max_shops: options.max_shops.map_or(HttpOptions::default().max_shops, i64::from),
        approvals: Limits::from(options),
        receipts: Patience {
            witnesses: options.witness.iter().flatten().count(),
            ..HttpOptions::default().receipts
        },
        gate,
        oidc: oidc_options(options)?,
        webhooks: webhook_policy(options)?,
        ..HttpOptions::default()
    })
}

/// What members are told, and through what.
fn message_options(options: &Serve) -> Result<MessageOptions, Failed> {
    const MOST_DAYS: u32 = 365;
    let expiring_soon_days =
        options.expiring_soon_days.unwrap_or(MessageOptions::default().expiring_soon_days);
    if expiring_soon_days > MOST_DAYS {
        return Err(anyhow::anyhow!("--expiring-soon-days must be 0 to {MOST_DAYS}").into());
    }
    let Some(url) = options.message_webhook.as_ref().filter(|url| !url.is_empty()) else {
        return Ok(MessageOptions { expiring_soon_days, webhook: None });
    };
    let file = options.message_webhook_secret_file.as_deref();
    let secret = outside_secret("COUPON_LEDGER_MESSAGE_WEBHOOK_SECRET", file).map_err(anyhow::Error::msg)?;
    let secret = secret.ok_or_else(|| {
        anyhow::anyhow!(
            "--message-webhook needs the secret that signs messages: --message-webhook-secret-file or \
             COUPON_LEDGER_MESSAGE_WEBHOOK_SECRET"
        )
    })?;
    let webhook =
        MessageWebhook::new(url, &secret).map_err(|error| anyhow::anyhow!("--message-webhook: {error}"))?;
    Ok(MessageOptions { expiring_soon_days, webhook: Some(Arc::new(webhook)) })
}

/// Where webhooks may lead.
pub(super) fn webhook_policy(options: &Serve) -> anyhow::Result<WebhookPolicy> {
    let networks = options.webhook_allow_network.as_deref().unwrap_or_default();
    let policy = WebhookPolicy::new(options.webhook_allow_http.unwrap_or(false), networks);
    policy.map_err(|error| anyhow::anyhow!("--webhook-allow-network: {error}"))
}

/// Where events are published to NATS; None where they are not.
#[cfg(feature = "nats")]
fn nats_options(options: &Serve) -> anyhow::Result<Option<NatsOptions>> {
    let text = |given: &Option<String>, default: &str| given.clone().unwrap_or_else(|| default.to_owned());
    let Some(url) = options.nats_url.clone().filter(|url| !url.is_empty()) else { return Ok(None) };
    let publish = NatsOptions {
        url,
        stream: text(&options.nats_stream, "COUPON_LEDGER"),
        subject: text(&options.nats_subject, "coupon_ledger.events"),
        creds_file: options.nats_creds_file.clone(),
        ca_file: options.nats_ca_file.clone(),
    };
    publish.check().map_err(anyhow::Error::msg)?;
    Ok(Some(publish))
}

/// A program that was built without it says so.
#[cfg(not(feature = "nats"))]
fn nats_options(options: &Serve) -> anyhow::Result<()> {
    if options.nats_url.as_ref().is_some_and(|url| !url.is_empty()) {
        anyhow::bail!("--nats-url: this program was built without NATS; build it with --features nats");
    }
    Ok(())
}

fn export_place(context: &Context, options: &Serve, url: &str) -> ExportPlace {
    ExportPlace {
        folder: options.exports_dir.clone().unwrap_or_else(|| context.folder.join("exports")),
        server: url.to_owned(),
        keep_ms: i64::from(options.keep_exports_days.unwrap_or(7)) * 86_400_000,
        ..ExportPlace::default()
    }
}

fn oidc_options(options: &Serve) -> Result<Option<OidcOptions>, Failed> {
    let Some(issuer) = &options.oidc_issuer else { return Ok(None) };
    let id = options.oidc_client_id.as_deref().unwrap_or_default();
    let secret = oidc_secret(options.oidc_secret_file.as_deref()).map_err(anyhow::Error::msg)?;
    let provider = OidcOptions::new(issuer, id, &secret);
    Ok(Some(provider.map_err(|error| anyhow::anyhow!("--oidc-issuer: {error}"))?))
}

/// How members sign in through WeChat; None where no app of theirs is given.
fn wechat(options: &Serve) -> Result<Option<Arc<Wechat>>, Failed> {
    let app = |flag: &str, appid: Option<&String>, variable: &str, file: Option<&PathBuf>| {
        let Some(appid) = appid.filter(|appid| !appid.is_empty()) else { return Ok(None) };
        let secret = outside_secret(variable, file.map(PathBuf::as_path)).map_err(anyhow::Error::msg)?;
        let secret = secret.ok_or_else(|| {
            anyhow::anyhow!("{flag} needs the app's secret: give it as a file or as {variable}")
        })?;
        WechatApp::new(appid, &secret).map(Some).map_err(|error| anyhow::anyhow!("{flag}: {error}"))
    };
    let mini = app(
        "--wechat-appid",
        options.wechat_appid.as_ref(),
        "COUPON_LEDGER_WECHAT_SECRET",
        options.wechat_secret_file.as_ref(),
    )?;
    let h5 = app(
        "--wechat-h5-appid",
        options.wechat_h5_appid.as_ref(),
        "COUPON_LEDGER_WECHAT_H5_SECRET",
        options.wechat_h5_secret_file.as_ref(),
    )?;
    let defaults = WechatOptions::default();
    let address = |flag: &str, given: Option<&String>, default: String| match given {
        Some(given) => WechatOptions::address(given).map_err(|error| anyhow::anyhow!("{flag}: {error}")),
        None => Ok(default),
    };
    let origin = |given: &String| {
        WechatOptions::origin(given).map_err(|error| anyhow::anyhow!("--wechat-return-origin: {error}"))
    };
    let return_origins =
        options.wechat_return_origin.iter().flatten().map(origin).collect::<Result<_, _>>()?;
    let options = WechatOptions {
        h5: h5.or_else(|| mini.clone()),
        mini,
        base_url: address("--wechat-base-url", options.wechat_base_url.as_ref(), defaults.base_url)?,
        authorize_url: address(
            "--wechat-authorize-url",
            options.wechat_authorize_url.as_ref(),
            defaults.authorize_url,
        )?,
        create_members: options.wechat_create_members.unwrap_or(false),
        return_origins,
        ..WechatOptions::default()
    };
    if options.h5.is_none() {
        return Ok(None);
    }
    Ok(Some(Arc::new(Wechat::new(options))))
}

pub(super) fn start_logging(format: Option<&str>) -> Result<(), Failed> {
    let filter = tracing_subscriber::EnvFilter::try_from_env("COUPON_LEDGER_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,sqlx=warn"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A line that the disk does not take is lost: to complain of it there as well would be to panic.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let started = match format {
        None | Some("text") => logs.try_init(),
        Some("json") => logs.json().try_init(),
        Some(other) => return Err(anyhow::anyhow!("--log-format is text or json, not {other}").into()),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}").into())
}

fn print_banner(
    context: &Context,
    ledger: &Ledger,
    (url, setup): (&str, Option<&str>),
    demo: bool,
) -> Result<(), Failed> {
    let folder = std::fs::canonicalize(&context.folder).unwrap_or_else(|_| context.folder.clone());
    // With the demo world the token is worth nothing; a real ledger's standard output must not hold one.
    let token = if demo {
        let token = Token::new(Caller::Member(439), ledger.clock().now_ms(), 30 * 86_400);
        token.sign(ledger.secrets())
    } else {
        let program = std::env::current_exe().unwrap_or_else(|_| "coupon-ledger".into());
        let secret = context.place.secret_file.as_ref();
        let secret = secret.map(|file| format!(" --secret-file {}", file.display())).unwrap_or_default();
        format!("$({} token --data-dir {}{secret} --member 439)", program.display(), folder.display())
    };
    let mut out = std::io::stdout().lock();
    writeln!(out, "coupon-ledger {}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "  listens on  {url}")?;
    writeln!(out, "  data in     {}", folder.display())?;
    writeln!(out, "  engine      {}", ledger.store().engine())?;
    writeln!(out, "  API docs    {url}/docs")?;
    if let Some(setup) = setup {
        writeln!(out, "  set up      {setup}")?;
        writeln!(out, "              makes the first operator's account: once, within 30 minutes")?;
    }
    writeln!(
        out,
        "  try         curl -s {url}/client/couponlist -H \"Authorization: Bearer {token}\" -d state=0"
    )?;
    out.flush()?;
    Ok(())
}

/// Sweeps, forgets nonces whose time is over, and reads the list of revoked tokens and the good keys again, for as long as
/// the server runs.
async fn keep_house(app: App) {
    loop {
        match sweep(&app.ledger).await {
            Ok(coupons) => {
                if coupons > 0 {
                    tracing::info!(coupons, "swept");
                }
                followers::note(&app.ledger, &EXPIRY, None).await;
            }
            Err(error) => {
                tracing::warn!(%error, "sweep not finished");
                followers::note(&app.ledger, &EXPIRY, Some(error.to_string())).await;
            }
        }
        if let Err(error) = followers::measure(&app.ledger).await {
            tracing::warn!(%error, "how the followers stand could not be read");
        }
        if let Err(error) = clear_ended_sessions(app.ledger.store(), app.ledger.clock().now_ms()).await {
            tracing::warn!(%error, "sessions that have ended could not be cleared");
        }
        if let Err(error) = keys::follow(&app.ledger).await {
            tracing::warn!(%error, "which keys are good could not be read");
        }
        let now_ms = app.ledger.clock().now_ms();
        if let Err(error) = forget_nonces(app.ledger.store(), now_ms).await {
            tracing::warn!(%error, "lapsed nonces could not be forgotten");
        }
        if let Err(error) = app.refresh_revoked().await {
            tracing::warn!(%error, "the list of revoked tokens could not be read");
        }
        tokio::time::sleep(HOUSEKEEPING).await;
    }
}

/// Writes down once a minute what was refused, for as long as the server runs.
async fn write_down_refusals(app: App) {
    loop {
        tokio::time::sleep(REFUSALS).await;
        if let Err(error) = app.watch.write_down(&app.ledger).await {
            tracing::warn!(%error, "what was refused could not be written down yet");
        }
    }
}

/// What a process is asked to stop by. Listening begins here, not when it is first waited for: until then a signal would
/// end the process in the middle of its work.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn asked(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
