//! Carries jobs out: whom a job is about is fixed when it is started, and then it goes on chunk by chunk, on any server,
//! until it is done, paused or cancelled.
//!
//! Exactly once, whatever is killed when: the chunks of a job are the same for ever, each is one transaction under a key
//! that names it, and what a chunk did is told by its receipt. Progress is written after the chunk; where that was lost,
//! the receipt brings it back. The lease only keeps several servers from doing the same work.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::approval::Approval;
use crate::approving::{self, Rule};
use crate::bulk;
use crate::coupon::{Coupon, CouponCommand, Origin, Source};
use crate::entity::decode;
use crate::identity::Caller;
use crate::job::{Coupons, Job, JobCommand, JobState, Recipients, Work};
use crate::lease;
use crate::ledger::{ExecuteError, Executed, Ledger, Many, Meta};
use crate::read_model::{pages, refused_text};
use crate::refusal::Refusal;
use crate::store::{BUCKET, Cell, ReceiptKey, Row, Statement, Store, StoreError};
use crate::value::{hex, list_text, random};

/// Members or positions of one chunk of a new job: enough to make a transaction cheap, few enough that nobody waits long.
const CHUNK: i64 = 400;

/// Members that are looked at in one statement when recipients are fixed.
const FIX_AT_A_TIME: i64 = 5_000;

/// The same job within this time needs to be confirmed.
pub const REPEATED_WITHIN_MS: i64 = 600_000;

/// What was begun and never started is forgotten after this long.
const ABANDONED_AFTER_MS: i64 = 3_600_000;

/// How long a server may work on a job without renewing its lease, and how often it does.
const LEASE_MS: i64 = 15_000;
const RENEW_AFTER: Duration = Duration::from_secs(4);

/// Whom a send is about; $1, $2, $3 are `,1,2,` or empty.
macro_rules! meant {
    () => {
        " m WHERE ($1 = '' OR $1 LIKE '%,' || m.shop_id || ',%')
            AND ($2 = '' OR EXISTS (SELECT 1 FROM member_tags t
                                    WHERE t.member_id = m.member_id AND $2 LIKE '%,' || t.tag_id || ',%'))
            AND ($3 = '' OR $3 LIKE '%,' || m.level_id || ',%')"
    };
}

fn filter(recipients: &Recipients) -> [Cell; 3] {
    let text = |ids: &[i64]| if ids.is_empty() { String::new() } else { format!(",{},", list_text(ids)) };
    [&recipients.shop_ids, &recipients.tag_ids, &recipients.level_ids].map(|ids| text(ids).into())
}

/// How many members a send would be about now.
pub async fn count_recipients(store: &Store, recipients: &Recipients) -> Result<i64, StoreError> {
    let sql = concat!("SELECT COUNT(*) FROM members", meant!());
    let rows = store.query(Statement::new(sql, filter(recipients))).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// What is to be started.
#[derive(Clone, Debug)]
pub struct Start {
    /// What is to be done.
    pub work: Work,
    /// Why; empty for a send.
    pub reason: String,
    /// Who, 0 for an operator without an employee's id.
    pub employee_id: i64,
    /// Whether the same may have been started a moment ago.
    pub confirmed: bool,
    /// From which number on somebody else must approve it.
    pub rule: Rule,
}

/// What has become of a job that was asked for.
#[derive(Clone, Debug)]
pub enum Begun {
    /// It goes on by itself.
    Started(Executed<Job>),
    /// It waits until somebody else approves it.
    Waits(Executed<Approval>),
}

impl Begun {
    fn job_id(&self) -> i64 {
        match self {
            Self::Started(done) => done.id,
            Self::Waits(done) => done.state.proposal.as_ref().map_or(0, |proposal| proposal.act.subject_id()),
        }
    }
}

/// Starts a job: fixes whom it is about and writes its Started event; or proposes it, where it is about more than its rule
/// lets one person decide. The same key does it once.
///
/// # Errors
/// 2002, 5006 and 5001 for a send, 2002 and 2005 for what it is about otherwise, 401 on `confirm` for a repetition.
pub async fn start(ledger: &Ledger, start: &Start, meta: &Meta) -> Result<Begun, ExecuteError> {
    let Start { work, reason, employee_id, confirmed, rule } = start;
    if let Some(replayed) = replay(ledger, meta).await? {
        return Ok(replayed);
    }
    let target = target(ledger, work, meta).await?;
    let job_id = begin(ledger, work, *confirmed, meta).await?;
    let started = async {
        let (targeted, at_most) = match work {
            Work::Send { recipients, .. } => {
                let count = fix_recipients(ledger.store(), job_id, recipients).await?;
                (count, count)
            }
            Work::SendTo { member_ids, .. } => {
                let count = fix_members(ledger.store(), job_id, member_ids).await?;
                (count, count)
            }
            Work::Recall { .. } | Work::Extend { .. } => (target.count, target.at_most),
        };
        if matches!(work, Work::Send { .. } | Work::SendTo { .. }) {
            target.refuse_if_short(targeted)?;
        }
        let (work, reason, employee_id) = (work.clone(), reason.clone(), *employee_id);
        let until_position = target.head;
        if rule.is_exceeded_by(at_most) {
            let job = approving::ProposedJob { job_id, work, targeted, until_position, reason };
            return approving::propose_job(ledger, job, rule, meta).await;
        }
        let command = JobCommand::Start { work, targeted, until_position, reason, employee_id };
        ledger.execute::<Job>(job_id, &command, meta).await.map(Begun::Started)
    }
    .await;
    match started {
        Ok(begun) => {
            // Someone used the same key at the same time: what he started is the answer, and this goes.
            if begun.job_id() != job_id {
                forget(ledger.store(), job_id).await?;
            }
            Ok(begun)
        }
        // Neither success nor failure: it may have been started, and is forgotten later where it was not.
        Err(error @ ExecuteError::Write(_)) => Err(error),
        Err(error) => {
            forget(ledger.store(), job_id).await?;
            Err(error)
        }
    }
}

/// What the key did when it was used.
async fn replay(ledger: &Ledger, meta: &Meta) -> Result<Option<Begun>, ExecuteError> {
    let Some(done) = ledger.replay::<Job>(meta).await? else { return Ok(None) };
    if done.state.state == JobState::Proposed {
        return Ok(ledger.replay::<Approval>(meta).await?.map(Begun::Waits));
    }
    Ok(Some(Begun::Started(done)))
}

/// Whether what was proposed could be started now as it was proposed: 2002, 5006 and 5001, and 401 where whom it is about
/// is not here, because the log came from another ledger.
pub(crate) async fn may_start(
    ledger: &Ledger,
    job_id: i64,
    (work, targeted): (&Work, i64),
    meta: &Meta,
) -> Result<(), ExecuteError> {
    if progress(ledger.store(), job_id).await?.is_none() {
        return Err(Refusal::field("id", crate::refusal::Wrong::Ended).into());
    }
    if matches!(work, Work::Send { .. } | Work::SendTo { .. }) {
        target(ledger, work, meta).await?.refuse_if_short(targeted)?;
    }
    Ok(())
}

/// How many there are, at most, and where the log ends.
struct Target {
    /// Of a send: what is left of the stock, −1 = unlimited. Else: coupons that are meant.
    count: i64,
    /// How many those can be at most: a send that goes on has issued more than is written down.
    at_most: i64,
    head: i64,
}

impl Target {
    /// 5001 where the stock is too small for a send to so many.
    fn refuse_if_short(&self, count: i64) -> Result<(), Refusal> {
        if self.count >= 0 && self.count < count { Err(Refusal::SoldOut) } else { Ok(()) }
    }
}

async fn target(ledger: &Ledger, work: &Work, meta: &Meta) -> Result<Target, ExecuteError> {
    let store = ledger.store();
    let head = head(store).await?;
    let (count, at_most) = match work {
        Work::Send { definition_id, .. } | Work::SendTo { definition_id, .. } => {
            let (definition, version) = ledger.load::<crate::definition::Definition>(*definition_id).await?;
            if version == 0 {
                return Err(Refusal::NoSuchDefinition.into());
            }
            let ended = definition.offer.as_ref().is_none_or(|offer| offer.has_ended(meta.at.day));
            if !definition.on || ended {
                return Err(Refusal::NotOnOffer.into());
            }
            let row = pages::definition(store, *definition_id).await?;
            let left = row.map_or(-1, |row| row.inventory());
            (left, left)
        }
        Work::Recall { coupons } | Work::Extend { coupons, .. } => match coupons {
            Coupons::OfDefinition(id) => {
                let row = pages::definition(store, *id).await?.ok_or(Refusal::NoSuchDefinition)?;
                (row.issued, row.issued)
            }
            Coupons::OfSend(id) => {
                let (send, _) = ledger.load::<Job>(*id).await?;
                if !matches!(send.work, Some(Work::Send { .. } | Work::SendTo { .. })) {
                    return Err(Refusal::NoSuchRule.into());
                }
                let count = progress(store, *id).await?.map_or(send.done, |progress| progress.done);
                let may_be_more =
                    matches!(send.state, JobState::Running | JobState::Paused | JobState::Cancelled);
                (count, if may_be_more { send.targeted } else { count })
            }
        },
    };
    Ok(Target { count, at_most, head })
}

async fn head(store: &Store) -> Result<i64, StoreError> {
    let sql = "SELECT position FROM log_head WHERE bucket = $1";
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Gives a job its id and its place in `job_progress`, unless the same was begun a moment ago by another request.
async fn begin(ledger: &Ledger, work: &Work, confirmed: bool, meta: &Meta) -> Result<i64, ExecuteError> {
    let fingerprint = serde_json::to_string(work)?;
    let asked_by = match &meta.receipt {
        Some((key, _)) => format!("{} {} {}", key.caller, key.operation, key.key),
        None => hex(&random::<16>()),
    };
    let now_ms = meta.at.ms;
    // The first statement holds the row of the ids, so that two who ask the same wait for each other.
    let reserve = Statement::new(
        "INSERT INTO id_blocks (bucket, kind, next_id) VALUES ($1, 'job', 2)
         ON CONFLICT (bucket, kind) DO UPDATE SET next_id = id_blocks.next_id + 1 RETURNING next_id - 1",
        [BUCKET.into()],
    );
    let insert = Statement::new(
        "INSERT INTO job_progress (job_id, fingerprint, asked_by, begun_at_ms, chunk, position, done, refused, ended)
         SELECT next_id - 1, $2, $3, $4, $5, 0, 0, '{}', 0 FROM id_blocks WHERE bucket = $1 AND kind = 'job'
           AND ($6 = 1 OR NOT EXISTS (SELECT 1 FROM job_progress WHERE fingerprint = $2 AND begun_at_ms > $7
                                      AND asked_by <> $3))
         RETURNING job_id",
        [
            BUCKET.into(),
            fingerprint.into(),
            asked_by.into(),
            now_ms.into(),
            CHUNK.into(),
            confirmed.into(),
            (now_ms - REPEATED_WITHIN_MS).into(),
        ],
    );
    let answers = ledger.store().write(vec![reserve, insert.must_return()]).await?;
    match answers.get(1).and_then(|rows| rows.first()) {
        Some(row) => Ok(row.int(0)),
        None => Err(Refusal::field("confirm", crate::refusal::Wrong::Repeated).into()),
    }
}

/// Writes down whom a send is about, page by page of the members, and counts them.
async fn fix_recipients(store: &Store, job_id: i64, recipients: &Recipients) -> Result<i64, StoreError> {
    let page = "SELECT COALESCE(MAX(member_id), 0), COUNT(*) FROM
                  (SELECT member_id FROM members WHERE member_id > $1 ORDER BY member_id LIMIT $2) m";
    let fix = concat!(
        "INSERT INTO job_items (job_id, item_id) SELECT $4, m.member_id FROM
           (SELECT member_id, shop_id, level_id FROM members WHERE member_id > $5 ORDER BY member_id LIMIT $6)",
        meant!()
    );
    let mut from = 0;
    loop {
        let mut parameters = filter(recipients).to_vec();
        parameters.extend([job_id, from, FIX_AT_A_TIME].map(Cell::from));
        let page = Statement::new(page, [from.into(), FIX_AT_A_TIME.into()]);
        let answers = store.write(vec![page, Statement::new(fix, parameters)]).await?;
        match answers.first().and_then(|rows| rows.first()) {
            Some(read) if read.int(1) == FIX_AT_A_TIME => from = read.int(0),
            _ => break,
        }
    }
    let count = "SELECT COUNT(*) FROM job_items WHERE job_id = $1";
    let rows = store.query(Statement::new(count, [job_id.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Writes down whom a send is about that names them one by one, and counts them.
async fn fix_members(store: &Store, job_id: i64, member_ids: &[i64]) -> Result<i64, StoreError> {
    let sql =
        "INSERT INTO job_items (job_id, item_id) VALUES ($1, $2) ON CONFLICT (job_id, item_id) DO NOTHING";
    let fix = |member_id: &i64| Statement::new(sql, [job_id.into(), (*member_id).into()]);
    store.write(member_ids.iter().map(fix).collect()).await?;
    Ok(member_ids.len() as i64)
}

/// Lets go of whom a job was about, a few at a time.
async fn clear_items(store: &Store, job_id: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM job_items WHERE job_id = $1 AND item_id <=
                 (SELECT MAX(item_id) FROM (SELECT item_id FROM job_items WHERE job_id = $1 ORDER BY item_id LIMIT $2) i)
               RETURNING item_id";
    loop {
        let answers = store.write(vec![Statement::new(sql, [job_id.into(), FIX_AT_A_TIME.into()])]).await?;
        if answers.first().is_none_or(Vec::is_empty) {
            return Ok(());
        }
    }
}

/// Removes what was begun for a job that was never started.
async fn forget(store: &Store, job_id: i64) -> Result<(), StoreError> {
    clear_items(store, job_id).await?;
    store.write(vec![Statement::new("DELETE FROM job_progress WHERE job_id = $1", [job_id.into()])]).await?;
    Ok(())
}

/// How far a job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When it was begun, Unix milliseconds.
    begun_at_ms: i64,
    /// Members or positions of a chunk.
    chunk: i64,
    /// The last member or position that is done with.
    position: i64,
    /// How many were issued, voided or moved.
    pub done: i64,
    /// How many were refused, by code.
    pub refused: BTreeMap<i64, i64>,
}

impl Progress {
    fn read(row: &Row) -> Result<Self, StoreError> {
        let refused = serde_json::from_str(row.text(4)).map_err(|error| StoreError::Corrupt {
            table: "job_progress".to_owned(),
            column: "refused".to_owned(),
            what: error.to_string(),
        })?;
        let (begun_at_ms, chunk, position, done) = (row.int(0), row.int(1), row.int(2), row.int(3));
        Ok(Self { begun_at_ms, chunk, position, done, refused })
    }
}

/// How far a job is, if it was begun here.
pub async fn progress(store: &Store, job_id: i64) -> Result<Option<Progress>, StoreError> {
    let sql = "SELECT begun_at_ms, chunk, position, done, refused FROM job_progress WHERE job_id = $1";
    let rows = store.query(Statement::new(sql, [job_id.into()])).await?;
    rows.first().map(Progress::read).transpose()
}

/// How often a server looks for jobs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Carries out jobs, side by side, for as long as the server runs.
pub async fn run_jobs(ledger: Ledger) {
    let (mut running, mut tasks) = (HashMap::new(), tokio::task::JoinSet::new());
    loop {
        match open_jobs(ledger.store()).await {
            Ok(open) => {
                for job_id in open {
                    if !running.values().any(|running| *running == job_id) {
                        let ledger = ledger.clone();
                        let task = tasks.spawn(async move { run_job(&ledger, job_id).await });
                        running.insert(task.id(), job_id);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "jobs could not be looked for"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
        while let Some(ended) = tasks.try_join_next_with_id() {
            let (task, failed) = match ended {
                Ok((task, outcome)) => (task, outcome.err().map(|error| error.to_string())),
                Err(panicked) => (panicked.id(), Some(panicked.to_string())),
            };
            let job_id = running.remove(&task);
            if let Some(error) = failed {
                tracing::warn!(job_id, error, "job not finished: it is tried again");
            }
        }
    }
}

/// Jobs that are not at their end.
pub async fn open_jobs(store: &Store) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT job_id FROM job_progress WHERE ended = 0 ORDER BY job_id";
    Ok(store.query(Statement::new(sql, [])).await?.iter().map(|row| row.int(0)).collect())
}

/// The name of a job's lease.
fn lease_name(job_id: i64) -> String {
    format!("job {job_id} lease")
}

/// Lets other servers go on with what this one works on.
pub async fn release_leases(ledger: &Ledger) -> Result<(), StoreError> {
    lease::release(ledger, "job % lease").await
}

/// Carries a job out until it is done, paused, cancelled, or another server's.
pub async fn run_job(ledger: &Ledger, job_id: i64) -> Result<(), ExecuteError> {
    let store = ledger.store();
    let (job, version) = ledger.load::<Job>(job_id).await?;
    let Some(mut progress) = progress(store, job_id).await? else { return Ok(()) };
    let Some(work) = &job.work else {
        // Begun and not started: its request is under way, or has ended without a word.
        if version == 0 && ledger.clock().now_ms() - progress.begun_at_ms > ABANDONED_AFTER_MS {
            forget(store, job_id).await?;
        }
        return Ok(());
    };
    if matches!(job.state, JobState::Paused | JobState::Proposed) {
        return Ok(());
    }
    let lease = lease_name(job_id);
    let mut renewed: Option<std::time::Instant> = None;
    loop {
        if renewed.is_none_or(|renewed| renewed.elapsed() > RENEW_AFTER) {
            if !lease::take(ledger, &lease, LEASE_MS).await? {
                return Ok(());
            }
            renewed = Some(std::time::Instant::now());
        }
        let chunk = match work {
            Work::Send { .. } | Work::SendTo { .. } => next_members(store, job_id, &progress).await?,
            Work::Recall { coupons } | Work::Extend { coupons, .. } => {
                next_coupons(store, *coupons, job.until_position, &progress).await?
            }
        };
        let Some((until, items)) = chunk else { break };
        let became = match carry_out(ledger, (job_id, &job, work), &progress, items).await {
            Ok(became) => became,
            Err(ExecuteError::Conflict) => {
                // Paused or cancelled, or else a coupon that others change all the time: it is tried again later.
                return match ledger.load::<Job>(job_id).await?.0.state {
                    JobState::Running => Err(ExecuteError::Conflict),
                    state => leave(ledger, job_id, state).await,
                };
            }
            Err(error) => return Err(error),
        };
        let from = progress.position;
        progress.position = until;
        progress.done += became.done;
        for (code, count) in became.refused {
            *progress.refused.entry(code).or_default() += count;
        }
        if !advance(store, job_id, from, &progress).await? {
            // Another server was faster; what it has written down is the truth.
            return Ok(());
        }
    }
    let finish = JobCommand::Finish { done: progress.done, refused: progress.refused };
    let finished = ledger.execute::<Job>(job_id, &finish, &meta(ledger, job_id, None)).await?;
    leave(ledger, job_id, finished.state.state).await
}

/// Lets go of a job that does not run any more; nothing is left to do for one that has ended.
async fn leave(ledger: &Ledger, job_id: i64, state: JobState) -> Result<(), ExecuteError> {
    if matches!(state, JobState::Cancelled | JobState::Done) {
        clear_items(ledger.store(), job_id).await?;
        let sql = "UPDATE job_progress SET ended = 1 WHERE job_id = $1";
        ledger.store().write(vec![Statement::new(sql, [job_id.into()])]).await?;
    }
    Ok(lease::release(ledger, &lease_name(job_id)).await?)
}

/// Writes down that a chunk is done; false where it was no longer where this server believed.
async fn advance(store: &Store, job_id: i64, from: i64, progress: &Progress) -> Result<bool, StoreError> {
    let sql =
        "UPDATE job_progress SET position = $2, done = $3, refused = $4 WHERE job_id = $1 AND position = $5
               RETURNING job_id";
    let refused = refused_text(&progress.refused);
    let parameters =
        [job_id.into(), progress.position.into(), progress.done.into(), refused.into(), from.into()];
    let answers = store.write(vec![Statement::new(sql, parameters)]).await?;
    Ok(answers.first().is_some_and(|rows| !rows.is_empty()))
}

/// The next chunk: until where it goes, and what it is about. None = there is none.
type Chunk = Option<(i64, Vec<i64>)>;

async fn next_members(store: &Store, job_id: i64, progress: &Progress) -> Result<Chunk, StoreError> {
    let sql = "SELECT item_id FROM job_items WHERE job_id = $1 AND item_id > $2 ORDER BY item_id LIMIT $3";
    let parameters = [job_id, progress.position, progress.chunk].map(Cell::from);
    let rows = store.query(Statement::new(sql, parameters)).await?;
    let members: Vec<i64> = rows.iter().map(|row| row.int(0)).collect();
    Ok(members.last().map(|last| (*last, members.clone())))
}

/// The coupons are those whose first events lie in the next piece of the log that has any: whoever holds them now, none is
/// passed over.
async fn next_coupons(
    store: &Store,
    coupons: Coupons,
    until_position: i64,
    progress: &Progress,
) -> Result<Chunk, ExecuteError> {
    let mut from = progress.position;
    while from < until_position {
        let until = (from + progress.chunk).min(until_position);
        let mut found = Vec::new();
        for stored in store.events_after(from, until - from).await? {
            // A coupon's first event is its birth, whether it was issued or imported.
            if stored.aggregate_type != "coupon" || stored.sequence != 1 {
                continue;
            }
            let born = decode::<Coupon>(&stored)?;
            let Some(issue) = born.birth() else { continue };
            let meant = match coupons {
                Coupons::OfDefinition(id) => issue.definition_id == id,
                Coupons::OfSend(id) => issue.source == Source::MassSend && issue.source_id == id,
            };
            if meant {
                found.push(stored.aggregate_id.parse().unwrap_or_default());
            }
        }
        if !found.is_empty() {
            return Ok(Some((until, found)));
        }
        from = until;
    }
    Ok(None)
}

/// What became of a chunk.
#[derive(Default)]
struct Became {
    done: i64,
    refused: BTreeMap<i64, i64>,
}

/// Carries out one chunk. Where its key had been used, what is not done by it is asked again: its reasons were lost with
/// the server that had them.
async fn carry_out(
    ledger: &Ledger,
    (job_id, job, work): (i64, &Job, &Work),
    progress: &Progress,
    mut items: Vec<i64>,
) -> Result<Became, ExecuteError> {
    let mut became = Became::default();
    for round in 0.. {
        let key = format!("job-{job_id}-{}-{round}", progress.position);
        let meta = meta(ledger, job_id, Some(key));
        let tried = match work {
            Work::Send { definition_id, .. } | Work::SendTo { definition_id, .. } => {
                send(ledger, job_id, job, *definition_id, &items, &meta).await
            }
            Work::Recall { .. } => {
                let (employee_id, reason) = (job.employee_id, job.reason.clone());
                change(ledger, &items, CouponCommand::Void { employee_id, reason }, &meta).await
            }
            Work::Extend { end_date, .. } => {
                let (end_date, employee_id, reason) = (*end_date, job.employee_id, job.reason.clone());
                change(ledger, &items, CouponCommand::MoveEnd { end_date, employee_id, reason }, &meta).await
            }
        };
        // What the first try has done counts, even where the job has been cancelled since.
        let tried = match tried {
            Err(ExecuteError::Conflict) if round > 0 && !ledger.load::<Job>(job_id).await?.0.is_running() => {
                break;
            }
            tried => tried?,
        };
        became.done += tried.done;
        if tried.replayed && !tried.refused.is_empty() {
            items = tried.refused.into_iter().map(|(item, _)| item).collect();
            continue;
        }
        for refusal in tried.refused.iter().filter_map(|(_, refusal)| refusal.as_ref()) {
            *became.refused.entry(refusal.code()).or_default() += 1;
        }
        break;
    }
    Ok(became)
}

fn meta(ledger: &Ledger, job_id: i64, key: Option<String>) -> Meta {
    let request_id = format!("job-{job_id}-{}", hex(&random::<6>()));
    let receipt = key.map(|key| {
        let mac = ledger.secrets().request_mac(&key);
        (ReceiptKey { caller: Caller::System.to_string(), operation: "job", key }, mac)
    });
    Meta { caller: Caller::System, at: ledger.now(), request_id, receipt, job_id: Some(job_id) }
}

/// What one try of a chunk came to.
struct Tried {
    done: i64,
    refused: Vec<(i64, Option<Refusal>)>,
    replayed: bool,
}

async fn send(
    ledger: &Ledger,
    job_id: i64,
    job: &Job,
    definition_id: i64,
    members: &[i64],
    meta: &Meta,
) -> Result<Tried, ExecuteError> {
    let origin =
        Origin { source_id: job_id, employee_id: job.employee_id, ..Origin::of(Source::MassSend, 0) };
    match bulk::issue(ledger, definition_id, origin, members, meta).await {
        Ok(chunk) => {
            Ok(Tried { done: chunk.issued.len() as i64, refused: chunk.refused, replayed: chunk.replayed })
        }
        // The definition was switched off or has ended: everyone is refused.
        Err(ExecuteError::Refused(why)) => {
            let refused = members.iter().map(|member_id| (*member_id, Some(why.clone()))).collect();
            Ok(Tried { done: 0, refused, replayed: false })
        }
        Err(error) => Err(error),
    }
}

async fn change(
    ledger: &Ledger,
    coupons: &[i64],
    command: CouponCommand,
    meta: &Meta,
) -> Result<Tried, ExecuteError> {
    let commands = coupons.iter().map(|id| (*id, command.clone())).collect();
    let mut tried = Tried { done: 0, refused: Vec::new(), replayed: false };
    match ledger.execute_many::<Coupon>(commands, meta).await? {
        Many::Done(outcomes) => {
            for (id, outcome) in coupons.iter().zip(outcomes) {
                match outcome {
                    Ok(_) => tried.done += 1,
                    Err(ExecuteError::Refused(refusal)) => tried.refused.push((*id, Some(refusal))),
                    Err(error) => return Err(error),
                }
            }
        }
        Many::Replayed(receipt) => {
            let events = ledger.store().events_after(receipt.position - 1, receipt.event_count).await?;
            let changed: HashSet<i64> =
                events.iter().filter_map(|event| event.aggregate_id.parse().ok()).collect();
            let (done, rest): (Vec<i64>, Vec<i64>) = coupons.iter().partition(|id| changed.contains(id));
            tried = Tried {
                done: done.len() as i64,
                refused: rest.into_iter().map(|id| (id, None)).collect(),
                replayed: true,
            };
        }
    }
    Ok(tried)
}
