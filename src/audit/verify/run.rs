//! Verifies again and again while the server runs, with one worker, and shows what it found in /metrics.

use std::path::PathBuf;
use std::time::Duration;

use super::{Trusted, verify};
use crate::audit::tlog::remembered;
use crate::ledger::Ledger;
use crate::store::{BUCKET, Statement, StoreError};

/// How often is looked whether it is time.
const LOOK_EVERY: Duration = Duration::from_secs(600);

/// When the last verification began, Unix milliseconds.
const BEGUN: &str = "verify";

/// Verifies every so often, for as long as the server runs: of several servers one.
pub async fn run_verify(ledger: Ledger, folder: PathBuf, every: Duration) {
    loop {
        // Not at once: a server that starts has other things to do.
        tokio::time::sleep(LOOK_EVERY).await;
        match is_due(&ledger, every).await {
            Ok(true) => look(&ledger, &folder).await,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "whether to verify could not be found out"),
        }
    }
}

/// Whether it is time, and this is the server that does it.
async fn is_due(ledger: &Ledger, every: Duration) -> Result<bool, StoreError> {
    let sql = "INSERT INTO checkpoints (bucket, name, value) VALUES ($1, $2, $3)
               ON CONFLICT (bucket, name) DO UPDATE SET value = excluded.value WHERE checkpoints.value <= $4
               RETURNING value";
    let now_ms = ledger.clock().now_ms();
    let parameters = [BUCKET.into(), BEGUN.into(), now_ms.into(), (now_ms - every.as_millis() as i64).into()];
    let rows = ledger.store().write(vec![Statement::new(sql, parameters)]).await?;
    Ok(rows.first().is_some_and(|rows| !rows.is_empty()))
}

async fn look(ledger: &Ledger, folder: &std::path::Path) {
    let store = ledger.store();
    let looked = async {
        let mut trusted = Trusted::of_secret(store, ledger.secrets()).await?;
        trusted.seal = Some(ledger.seal().clone());
        let origin = store.origin().await?.unwrap_or_default();
        match remembered(&origin, folder) {
            Ok(note) => trusted.notes.extend(note.map(|note| ("what was signed last".to_owned(), note))),
            Err(error) => tracing::warn!(%error, "verifying without what was signed last"),
        }
        let mut position = 0;
        let totals = verify(store, &trusted, 1, None, |state| position = state.position).await?;
        Ok::<_, super::VerifyError>((position, totals))
    };
    match looked.await {
        Err(error) => tracing::error!(%error, "the ledger could not be verified"),
        Ok((position, totals)) => {
            let metrics = ledger.metrics();
            metrics.verify_findings.set(totals.wrong as i64);
            metrics.verified_position.set(position);
            metrics.verified_at_seconds.set(ledger.clock().now_ms() / 1000);
            for finding in &totals.findings {
                tracing::error!(%finding, "verify");
            }
            tracing::info!(position, events = totals.events, findings = totals.wrong, "verified");
        }
    }
}
