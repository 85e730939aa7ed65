//! Erasing a member: the event in the log, then his row, then his key.
//!
//! The event comes first and everything else follows from it, here and on every other server of the ledger: whatever was
//! cut short is done at the next start or within seconds. An erasure is acknowledged only once his data is cleared and his
//! key destroyed. Must never destroy a key for which there is no event, nor bring one back.

use std::time::Duration;

use crate::directory::{self, clear_member};
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::member::{Member, MemberCommand};
use crate::person_keys::PersonKeysError;
use crate::store::{BUCKET, Statement, StoreError};
use crate::value::{hex, random};

/// How often a server looks for erasures that others have written.
const LOOK_EVERY: Duration = Duration::from_secs(3);

/// What is written down for a member whose key is gone while the log knows of no erasure: a backup from before was restored.
const KEY_GONE: &str = "the person key was destroyed before this backup was restored";

/// Why an erasure is not finished. What is in the log stays there, and is finished later.
#[derive(Debug, thiserror::Error)]
pub enum ErasureError {
    /// The event is not in the log.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key is not destroyed.
    #[error("an erased member's key is not destroyed yet: {0}")]
    Keys(#[from] PersonKeysError),
    /// The member is being changed again and again.
    #[error("member {0} is being changed all the time and is not cleared yet")]
    Busy(i64),
    /// The work ended without saying why.
    #[error("the erasure was cut short")]
    CutShort,
}

/// Erases a member, and returns when nothing of him can be read any more.
pub async fn erase(
    ledger: &Ledger,
    member_id: i64,
    command: &MemberCommand,
    meta: &Meta,
) -> Result<Executed<Member>, ErasureError> {
    let done = ledger.execute::<Member>(member_id, command, meta).await?;
    // Also where he was erased before: that may have been cut short.
    let at_ms = done.state.erased.as_ref().map_or(0, |erasure| erasure.at_ms);
    finish(ledger, &[(member_id, at_ms)]).await?;
    Ok(done)
}

/// Clears members and destroys their keys. Repeated, it does nothing.
async fn finish(ledger: &Ledger, erased: &[(i64, i64)]) -> Result<(), ErasureError> {
    if erased.is_empty() {
        return Ok(());
    }
    for (member_id, at_ms) in erased {
        if !clear_member(ledger.store(), ledger.seal(), *member_id, *at_ms).await? {
            return Err(ErasureError::Busy(*member_id));
        }
    }
    let keys = ledger.seal().keys().clone();
    let ids: Vec<i64> = erased.iter().map(|(id, _)| *id).collect();
    let destroyed = tokio::task::spawn_blocking(move || keys.destroy(&ids));
    destroyed.await.map_err(|_| ErasureError::CutShort)??;
    wipe(ledger).await
}

/// Sees that nothing of what was cleared is left in the write-ahead log. Somebody who reads, a backup for instance, can keep it
/// from being cut for as long as he does: the answer does not wait for that.
async fn wipe(ledger: &Ledger) -> Result<(), ErasureError> {
    if ledger.store().wipe().await? {
        return Ok(());
    }
    let store = ledger.store().clone();
    tokio::spawn(async move {
        // Where it cannot be asked any more it has been closed, and was cut by that.
        while let Ok(false) = store.wipe().await {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    Ok(())
}

/// The erasures behind a position that are not finished here, and the last position looked at.
async fn unfinished(ledger: &Ledger, after: i64) -> Result<(Vec<(i64, i64)>, i64), StoreError> {
    // In words of its own, not as parameters: only so does a planner see that an index holds exactly these.
    let sql = "SELECT aggregate_id, position FROM events
               WHERE bucket = $1 AND position > $2 AND aggregate_type = 'member' AND event_type = 'Erased'";
    let rows = ledger.store().query(Statement::new(sql, [BUCKET.into(), after.into()])).await?;
    let last = rows.iter().map(|row| row.int(1)).max().unwrap_or(after);
    let mut ids: Vec<i64> = rows.iter().filter_map(|row| row.text(0).parse().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    let not_cleared = directory::not_cleared(ledger.store(), &ids).await?;
    let keys = ledger.seal().keys();
    ids.retain(|id| keys.key(*id).is_some() || not_cleared.contains(id));
    Ok((ids.into_iter().map(|id| (id, 0)).collect(), last))
}

/// Finishes what the log says of erasures behind a position, and returns the position up to which that is done.
pub async fn catch_up(ledger: &Ledger, after: i64) -> Result<i64, ErasureError> {
    let (mut erased, last) = unfinished(ledger, after).await?;
    for (member_id, at_ms) in &mut erased {
        let (member, _) = ledger.load::<Member>(*member_id).await?;
        *at_ms = member.erased.map_or(0, |erasure| erasure.at_ms);
    }
    finish(ledger, &erased).await?;
    Ok(last)
}

/// Catches up for as long as the server runs.
pub async fn follow_erasures(ledger: Ledger, mut after: i64) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match catch_up(&ledger, after).await {
            Ok(last) => after = last,
            Err(error) => tracing::warn!(%error, "an erasure is not finished"),
        }
    }
}

/// What a server does before it serves: brings texts and erasures from before there were keys to what they are today, and
/// finishes what was cut short. Returns the position up to which erasures are finished.
pub async fn begin(ledger: &Ledger) -> Result<i64, ErasureError> {
    let store = ledger.store();
    let fact = Statement::new("SELECT value FROM ledger_facts WHERE name = 'people_are_sealed'", []);
    if store.query(fact).await?.is_empty() {
        record_earlier(ledger).await?;
        let sealed = seal_everything(ledger).await?;
        if sealed > 0 {
            tracing::info!(rows = sealed, "texts of members were sealed that were not");
        }
        // Also where an earlier start has sealed them and did not come to this.
        if !store.query(Statement::new("SELECT member_id FROM members LIMIT 1", [])).await?.is_empty() {
            store.rewrite().await?;
        }
        let sql = "INSERT INTO ledger_facts (name, value) VALUES ('people_are_sealed', '1') ON CONFLICT (name) DO NOTHING";
        store.write(vec![Statement::new(sql, [])]).await?;
    }
    record_destroyed(ledger).await?;
    let until = catch_up(ledger, 0).await?;
    // An erasure may have been killed between its last step and this.
    wipe(ledger).await?;
    Ok(until)
}

/// Seals in pieces, so that whoever else writes is hardly kept; returns how many rows were plain.
async fn seal_everything(ledger: &Ledger) -> Result<u64, StoreError> {
    let (store, seal) = (ledger.store(), ledger.seal());
    let mut sealed = 0;
    let mut behind = Some(-1);
    while let Some(id) = behind {
        let piece = directory::seal_members(store, seal, id).await?;
        (behind, sealed) = (piece.behind, sealed + piece.sealed);
    }
    let mut behind = Some(-1);
    while let Some(id) = behind {
        let piece = directory::seal_reviews(store, seal, id).await?;
        (behind, sealed) = (piece.behind, sealed + piece.sealed);
    }
    Ok(sealed)
}

fn meta(ledger: &Ledger, at_ms: i64) -> Meta {
    let request_id = format!("erasure-{}", hex(&random::<6>()));
    let at = ledger.zone().moment(at_ms);
    Meta { caller: Caller::System, at, request_id, receipt: None, job_id: None }
}

/// Erasures that were recorded before they were events become events, as of then.
async fn record_earlier(ledger: &Ledger) -> Result<(), ErasureError> {
    let mut behind = -1;
    loop {
        let earlier = directory::earlier_erasures(ledger.store(), behind).await?;
        let Some(last) = earlier.last() else { return Ok(()) };
        behind = last.member_id;
        for erasure in earlier {
            let (member_id, reason) = (erasure.member_id, erasure.reason);
            let command = MemberCommand::Erase { member_id, reason, employee_id: 0 };
            match ledger.execute::<Member>(member_id, &command, &meta(ledger, erasure.at_ms)).await {
                Ok(_) => {}
                // His row was removed by hand: there is nobody to be told of.
                Err(ExecuteError::Refused(refusal)) => {
                    tracing::warn!(member_id, ?refusal, "an earlier erasure");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Members whose keys are destroyed though the log knows nothing of it: whoever restores a backup from before an erasure
/// gets the member back, but not his data. The log is told, so that it says what is the case.
async fn record_destroyed(ledger: &Ledger) -> Result<(), ErasureError> {
    let destroyed = ledger.seal().keys().destroyed();
    for member_id in directory::not_cleared(ledger.store(), &destroyed).await? {
        let command = MemberCommand::Erase { member_id, reason: KEY_GONE.to_owned(), employee_id: 0 };
        ledger.execute::<Member>(member_id, &command, &meta(ledger, ledger.clock().now_ms())).await?;
    }
    Ok(())
}
