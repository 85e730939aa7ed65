//! What of a server's settings is not safe, all of it at once, each with how to mend it.
//!
//! `--production` refuses to start with any of it; without, a server that others can reach warns of the same. What would
//! lose acknowledged events (`fsync=off` and the like) is refused always, where the ledger is opened.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::Context;
use crate::config::{self, Serve};
use crate::demo;
use crate::http::gate::GateOptions;
use crate::store::{self, Link};

/// Of the bytes of a secret that was drawn, at least so many differ from one another.
const VARIED: usize = 12;

/// What is not safe, and how to mend it.
struct Weakness {
    what: String,
    mend: String,
}

/// Refuses an unsafe start in production; elsewhere it only warns, and only where others can reach the server.
pub(super) async fn check(
    context: &Context,
    options: &Serve,
    gate: &GateOptions,
    listen: &str,
) -> anyhow::Result<()> {
    let is_production = options.production == Some(true);
    let is_reachable = !is_loopback(listen).await;
    if !is_production && !is_reachable {
        return Ok(());
    }
    let mut found = settings(options, gate, listen, is_reachable);
    found.extend(files(context, options));
    found.extend(database(context).await);
    found.extend(demo_data(context).await);
    if found.is_empty() {
        return Ok(());
    }
    if is_production {
        let lines: Vec<_> =
            found.iter().map(|weakness| format!("  - {}: {}", weakness.what, weakness.mend)).collect();
        anyhow::bail!("--production does not start with this:\n{}", lines.join("\n"));
    }
    for Weakness { what, mend } in found {
        tracing::warn!(mend, "not safe: {what}");
    }
    Ok(())
}

/// Whether only programs of this machine can connect. What cannot be resolved is told when it is bound.
async fn is_loopback(listen: &str) -> bool {
    match tokio::net::lookup_host(listen).await {
        Ok(addresses) => addresses.map(|address| address.ip().to_canonical()).all(|ip| ip.is_loopback()),
        Err(_) => true,
    }
}

fn weak(what: impl Into<String>, mend: impl Into<String>) -> Weakness {
    Weakness { what: what.into(), mend: mend.into() }
}

fn settings(options: &Serve, gate: &GateOptions, listen: &str, is_reachable: bool) -> Vec<Weakness> {
    let mut found = Vec::new();
    if gate.proxies.is_empty() {
        found.push(if is_reachable {
            weak(
                format!("it listens on {listen} over http, and no proxy is declared"),
                "let a proxy end TLS and name it with --trusted-proxies, and listen where only the proxy can connect",
            )
        } else {
            weak(
                "no proxy is declared, so whoever comes through one looks like this machine and no limit per address holds",
                "name the proxy that ends TLS with --trusted-proxies, for example 127.0.0.1,::1",
            )
        });
    }
    let is_https = |url: &String| url.starts_with("https://");
    if !options.public_url.as_ref().is_some_and(is_https) {
        let said = options.public_url.as_ref().map_or("not given".to_owned(), |url| format!("{url:?}"));
        found.push(weak(
            format!("the public URL is {said}: tokens and QR codes would travel in the clear"),
            "give --public-url https://…",
        ));
    }
    if gate.limits.is_none() {
        found.push(weak("--limits is off", "leave it out, or raise the one that is too low"));
    }
    for origin in gate.cors_origins.iter().filter(|origin| !origin.is_https()) {
        found.push(weak(
            format!("scripts of {} may call, which anybody on the way can write", origin.text()),
            "name https origins only in --cors-origins",
        ));
    }
    for host in options.nats_url.iter().flat_map(|urls| urls.split(',')).filter_map(in_the_clear) {
        found.push(weak(
            format!("events go to NATS at {host} without TLS, and what signs in there with them"),
            "give --nats-url tls://…, or let NATS run on this machine",
        ));
    }
    if options.demo == Some(true) {
        found.push(weak("--demo is given", "leave it out"));
    }
    found
}

/// The host of a NATS server that is spoken to without TLS, unless it is this machine.
fn in_the_clear(url: &str) -> Option<&str> {
    let rest = match url.trim().split_once("://") {
        Some(("nats" | "ws", rest)) => rest,
        Some(_) => return None,
        None => url.trim(),
    };
    let host = rest.rsplit('@').next().unwrap_or_default().split('/').next().unwrap_or_default();
    let bare = host.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let bare = bare.unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    let is_here = bare.is_empty()
        || bare == "localhost"
        || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    (!is_here).then_some(host)
}

fn files(context: &Context, options: &Serve) -> Vec<Weakness> {
    let mut found = Vec::new();
    let mode = |path: &Path| std::fs::metadata(path).ok().map(|data| data.permissions().mode() & 0o777);
    let secret = config::secret_file(&context.place, &context.folder);
    let from_environment = std::env::var("COUPON_LEDGER_SECRET").ok();
    let person_keys = config::person_keys_file(&context.place, &context.folder);
    // What is not there yet is made with the right mode.
    let keys = [("the secret", Some(&secret)), ("the person keys", Some(&person_keys))];
    let of_wechat = [&options.wechat_secret_file, &options.wechat_h5_secret_file];
    let of_wechat = of_wechat.map(|path| ("an app's secret", path.as_ref()));
    let others = [
        ("the webhook's secret", options.message_webhook_secret_file.as_ref()),
        ("the provider's secret", options.oidc_secret_file.as_ref()),
        ("the credentials for NATS", options.nats_creds_file.as_ref()),
    ];
    for (what, path) in keys.into_iter().chain(of_wechat).chain(others) {
        let Some(path) = path else { continue };
        if let Some(mode) = mode(path).filter(|mode| mode & 0o077 != 0) {
            let path = path.display();
            found.push(weak(
                format!("{what} in {path} can be read by others than its owner (mode {mode:03o})"),
                format!("chmod 600 {path}, and give new keys if others had access"),
            ));
        }
    }
    if let Some(mode) = mode(&context.folder).filter(|mode| mode & 0o007 != 0) {
        let path = context.folder.display();
        found.push(weak(
            format!("everybody on this machine can look into the data folder {path} (mode {mode:03o})"),
            format!("chmod 700 {path}"),
        ));
    }
    let text = from_environment.or_else(|| std::fs::read_to_string(&secret).ok());
    if text.is_some_and(|text| is_made_up(text.trim())) {
        found.push(weak(
            "the secret was not drawn at random",
            "start a new ledger without one, and the server draws it; an old ledger keeps its secret for ever",
        ));
    }
    found
}

/// A secret like `0000…` or `0101…`, as tests and examples have them.
fn is_made_up(secret: &str) -> bool {
    secret.as_bytes().chunks(2).collect::<BTreeSet<_>>().len() < VARIED
}

async fn database(context: &Context) -> Vec<Weakness> {
    let Some(url) = &context.place.database_url else { return Vec::new() };
    let mut found = Vec::new();
    match store::database_link(url) {
        Ok(Link::Plain) => found.push(weak(
            "the connection to the database crosses a network without TLS, or would do without",
            "add sslmode=verify-full&sslrootcert=/path/ca.pem to its URL (require, at the least, encrypts)",
        )),
        Ok(Link::Encrypted) => {
            tracing::warn!("whoever answers for the database is believed: sslmode=verify-full makes sure");
        }
        // A URL that cannot be used is told when it is.
        Ok(Link::Local | Link::Verified) | Err(_) => {}
    }
    match store::excessive_rights(url).await {
        Ok((name, rights)) => found.extend(rights.into_iter().map(|right| {
            weak(
                format!("the database role {name} {right}"),
                "serve as a role with the grants of docs/operations.md; its tables are made by a start as their owner, \
                 without --production",
            )
        })),
        Err(error) => found.push(weak(
            format!("what the database role may do could not be asked ({error})"),
            "see that the database can be reached",
        )),
    }
    found
}

async fn demo_data(context: &Context) -> Option<Weakness> {
    // A ledger that is not there, or cannot be read, is told when it is opened.
    let store = context.open_to_read().await.ok()?;
    let is_demo = demo::is_loaded(&store).await;
    store.close().await;
    is_demo
        .ok()?
        .then(|| weak("the ledger holds the demo world", "start with an empty --data-dir or database"))
}

#[cfg(test)]
mod tests {
    use super::{in_the_clear, is_made_up};

    #[test]
    fn nats_in_the_clear_is_found_on_other_machines() {
        for (url, host) in [
            ("nats://user:pw@10.1.2.3:4222", Some("10.1.2.3:4222")),
            ("nats.example.com", Some("nats.example.com")),
            ("nats://[2001:db8::1]:4222", Some("[2001:db8::1]:4222")),
            ("nats://127.0.0.1:4222", None),
            ("nats://[::1]:4222", None),
            ("nats://localhost", None),
            ("tls://10.1.2.3", None),
            ("wss://nats.example.com", None),
        ] {
            assert_eq!(in_the_clear(url), host, "{url}");
        }
    }

    #[test]
    fn a_secret_that_somebody_thought_up_is_told_from_a_drawn_one() {
        for made_up in [
            "00".repeat(32),
            "2a".repeat(32),
            "0123456789abcdef".repeat(4),
            "01".repeat(16) + &"ff".repeat(16),
        ] {
            assert!(is_made_up(&made_up), "{made_up}");
        }
        for _ in 0..1_000 {
            let drawn = crate::value::hex(&crate::value::random::<32>());
            assert!(!is_made_up(&drawn), "{drawn}");
        }
    }
}
