//! The SELECTs that answer pages about jobs.

use std::collections::BTreeMap;

use super::pages::Slice;
use crate::approval::HOLDS_MS;
use crate::clock::day_text;
use crate::job::JobState;
use crate::store::{BUCKET, Row, Statement, Store, StoreError};

/// A job as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRow {
    /// Its id.
    pub id: i64,
    /// 0 send, 1 recall, 2 extension.
    pub kind: i64,
    /// 0 running, 1 done, 2 paused, 3 cancelled, 4 awaits approval; see [`Self::state_at`].
    pub state: i64,
    /// What is sent, or whose coupons are meant; 0 = those of `send_id`.
    pub definition_id: i64,
    /// The send whose coupons are meant, 0 = those of `definition_id`.
    pub send_id: i64,
    /// `1,2,3`; empty = all.
    pub shop_ids: String,
    /// Likewise.
    pub tag_ids: String,
    /// Likewise.
    pub level_ids: String,
    /// Whether members are told.
    pub notify: bool,
    /// `2019-01-01` of an extension, else empty.
    pub end_date: String,
    /// How many members or coupons it is about.
    pub targeted: i64,
    /// How many were issued, voided or moved so far.
    pub done: i64,
    /// How many were refused so far, by code.
    pub refused: BTreeMap<i64, i64>,
    /// Why.
    pub reason: String,
    /// Who started it.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    /// Unix milliseconds, 0 = not yet.
    pub ended_at_ms: i64,
    /// The title of its definition.
    pub title: String,
}

impl JobRow {
    /// Its state then: what nobody approved in time is cancelled, whether or not that is written down.
    #[must_use]
    pub fn state_at(&self, now_ms: i64) -> i64 {
        let lapsed = now_ms >= self.started_at_ms.saturating_add(HOLDS_MS);
        if self.state == JobState::Proposed.number() && lapsed {
            JobState::Cancelled.number()
        } else {
            self.state
        }
    }

    /// How many were refused so far.
    #[must_use]
    pub fn refused_count(&self) -> i64 {
        self.refused.values().sum()
    }

    fn read(row: &Row) -> Self {
        Self {
            id: row.int(0),
            kind: row.int(1),
            state: row.int(2),
            definition_id: row.int(3),
            send_id: row.int(4),
            shop_ids: row.text(5).to_owned(),
            tag_ids: row.text(6).to_owned(),
            level_ids: row.text(7).to_owned(),
            notify: row.int(8) == 1,
            end_date: day_text(row.int(9)),
            targeted: row.int(10),
            done: row.int(11),
            refused: serde_json::from_str(row.text(12)).unwrap_or_default(),
            reason: row.text(13).to_owned(),
            employee_id: row.int(14),
            started_at_ms: row.int(15),
            ended_at_ms: row.int(16),
            title: row.text(17).to_owned(),
        }
    }
}

macro_rules! jobs {
    ($($more:literal),*) => {
        concat!(
            "SELECT j.job_id, j.kind, j.state, j.definition_id, j.send_id, j.shop_ids, j.tag_ids, j.level_ids, j.notify,
                    j.end_date, j.targeted,
                    COALESCE((SELECT p.done FROM job_progress p WHERE p.job_id = j.job_id), j.done),
                    COALESCE((SELECT p.refused FROM job_progress p WHERE p.job_id = j.job_id), j.refused),
                    j.reason, j.employee_id, j.started_at_ms, j.ended_at_ms,
                    COALESCE((SELECT d.title FROM definitions_v1 d
                              WHERE d.bucket = $1 AND d.definition_id = j.definition_id), '')
             FROM jobs_v1 j WHERE j.bucket = $1",
            $($more),*
        )
    };
}

/// A job by its id.
pub async fn job(store: &Store, id: i64) -> Result<Option<JobRow>, StoreError> {
    let sql = jobs!(" AND j.job_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(JobRow::read))
}

/// Jobs, sends alone or all of them, newest id first.
pub async fn jobs(store: &Store, only_sends: bool, slice: Slice) -> Result<Vec<JobRow>, StoreError> {
    let sql =
        jobs!(" AND j.job_id < $2 AND ($5 = 0 OR j.kind = 0)", " ORDER BY j.job_id DESC LIMIT $3 OFFSET $4");
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    parameters.push(only_sends.into());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(JobRow::read).collect())
}
