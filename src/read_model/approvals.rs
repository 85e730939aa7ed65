//! Approvals: which row a proposal's state has, and the SELECTs that read them.

use super::pages::Slice;
use crate::approval::{Act, Approval, ApprovalState};
use crate::store::Column::{Int, Text};
use crate::store::{BUCKET, LiveRow, LiveTable, Row, Statement, Store, StoreError};

/// `projections/approvals.sql`
pub static APPROVALS: LiveTable = LiveTable {
    name: "approvals_v1",
    written_by: &["approval"],
    columns: &[
        Int("approval_id"),
        Text("kind"),
        Text("action"),
        Int("state"),
        Int("num"),
        Int("above"),
        Int("subject_id"),
        Text("sha256"),
        Text("proposed_by"),
        Int("employee_id"),
        Int("proposed_at_ms"),
        Int("lapses_at_ms"),
        Text("closed_by"),
        Int("closed_at_ms"),
        Text("reason"),
    ],
    key_columns: 1,
    indexed: &["state", "lapses_at_ms"],
};

/// The one live row of a proposal.
#[must_use]
pub fn approval_rows(id: i64, approval: &Approval) -> Vec<LiveRow> {
    let Some(proposal) = &approval.proposal else {
        return Vec::new();
    };
    let act = &proposal.act;
    let sha256 = match act {
        Act::Import { sha256, .. } => sha256.as_str(),
        _ => "",
    };
    let cells = vec![
        id.into(),
        act.kind().into(),
        proposal.action.as_str().into(),
        approval.state.number().into(),
        act.num().into(),
        proposal.above.into(),
        act.subject_id().into(),
        sha256.into(),
        proposal.proposed_by.as_str().into(),
        proposal.employee_id.into(),
        proposal.at_ms.into(),
        proposal.lapses_at_ms.into(),
        approval.closed_by.as_str().into(),
        approval.closed_at_ms.into(),
        approval.reason.as_str().into(),
    ];
    vec![LiveRow { table: &APPROVALS, cells }]
}

/// A proposal as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalRow {
    /// Its id.
    pub id: i64,
    /// `send`, `recall`, `extension`, `stock`, `allotment` or `import`.
    pub kind: String,
    /// The route that asks for it.
    pub action: String,
    /// 0 open, 1 approved, 2 refused, 3 withdrawn, 4 expired; of the instant that was asked about.
    pub state: i64,
    /// Members, coupons or rows; −1 = without a limit.
    pub num: i64,
    /// Above which number it needs approval.
    pub above: i64,
    /// The job, definition or allotment; 0 of a file.
    pub subject_id: i64,
    /// SHA-256 of a file, else empty.
    pub sha256: String,
    /// Who proposed it.
    pub proposed_by: String,
    /// The employee who did, 0 if none.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub proposed_at_ms: i64,
    /// From when on it cannot be approved, Unix milliseconds.
    pub lapses_at_ms: i64,
    /// Who approved, refused or withdrew it.
    pub closed_by: String,
    /// Unix milliseconds, 0 = not yet.
    pub closed_at_ms: i64,
    /// Why it was refused.
    pub reason: String,
}

impl ApprovalRow {
    fn read(row: &Row) -> Self {
        Self {
            id: row.int(0),
            kind: row.text(1).to_owned(),
            action: row.text(2).to_owned(),
            state: row.int(3),
            num: row.int(4),
            above: row.int(5),
            subject_id: row.int(6),
            sha256: row.text(7).to_owned(),
            proposed_by: row.text(8).to_owned(),
            employee_id: row.int(9),
            proposed_at_ms: row.int(10),
            lapses_at_ms: row.int(11),
            closed_by: row.text(12).to_owned(),
            closed_at_ms: row.int(13),
            reason: row.text(14).to_owned(),
        }
    }
}

/// $2 is now: an open proposal that has lapsed is an expired one, whether or not that is written down.
macro_rules! state_now {
    () => {
        "CASE WHEN a.state = 0 AND a.lapses_at_ms <= $2 THEN 4 ELSE a.state END"
    };
}

macro_rules! approvals {
    ($($more:expr),*) => {
        concat!(
            "SELECT a.approval_id, a.kind, a.action, ",
            state_now!(),
            ", a.num, a.above, a.subject_id, a.sha256, a.proposed_by, a.employee_id, a.proposed_at_ms, a.lapses_at_ms,
                    a.closed_by, a.closed_at_ms, a.reason
             FROM approvals_v1 a WHERE a.bucket = $1 ",
            $($more),*
        )
    };
}

/// A proposal by its id, as of now.
pub async fn approval(store: &Store, id: i64, now_ms: i64) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = approvals!("AND a.approval_id = $3");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), now_ms.into(), id.into()])).await?;
    Ok(rows.first().map(ApprovalRow::read))
}

/// Proposals in one state or in any, newest id first.
pub async fn approvals(
    store: &Store,
    state: Option<i64>,
    now_ms: i64,
    slice: Slice,
) -> Result<Vec<ApprovalRow>, StoreError> {
    let sql = approvals!(
        "AND ($3 = -1 OR $3 = ",
        state_now!(),
        ") AND a.approval_id < $4 ORDER BY a.approval_id DESC LIMIT $5 OFFSET $6"
    );
    let mut parameters = vec![BUCKET.into(), now_ms.into(), state.unwrap_or(-1).into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(ApprovalRow::read).collect())
}

/// What somebody last proposed of a file.
pub async fn of_file(
    store: &Store,
    sha256: &str,
    proposed_by: &str,
    now_ms: i64,
) -> Result<Option<ApprovalRow>, StoreError> {
    let sql = approvals!("AND a.sha256 = $3 AND a.proposed_by = $4 ORDER BY a.approval_id DESC LIMIT 1");
    let parameters = [BUCKET.into(), now_ms.into(), sha256.into(), proposed_by.into()];
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.first().map(ApprovalRow::read))
}

/// Proposals that have lapsed and of which that is not written down yet, at most so many, the oldest first.
pub async fn lapsed(store: &Store, now_ms: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT approval_id FROM approvals_v1 WHERE bucket = $1 AND state = $2 AND lapses_at_ms <= $3
               ORDER BY lapses_at_ms, approval_id LIMIT $4";
    let open = ApprovalState::Open.number();
    let parameters = [BUCKET.into(), open.into(), now_ms.into(), limit.into()];
    Ok(store.query(Statement::new(sql, parameters)).await?.iter().map(|row| row.int(0)).collect())
}
