//! Approvals (four eyes): what waits for somebody else's word, and that word.

use serde_json::{Value, json};

use super::{Answer, Call, Failure, Proof};
use crate::approval::{Act, Approval};
use crate::approving::{self, Rule};
use crate::ledger::Executed;
use crate::read_model::approvals::{self, ApprovalRow};
use crate::refusal::Refusal;

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Approvals {
    /// `/approval/list`
    List,
    /// `/approval/info`
    Info,
    /// `/approval/limits`
    Limits,
    /// `/approval/approve`
    Approve,
    /// `/approval/refuse`
    Refuse,
    /// `/approval/withdraw`
    Withdraw,
}

pub(super) async fn run(which: Approvals, mut call: Call) -> Result<Answer, Failure> {
    match which {
        Approvals::List => list(call).await,
        Approvals::Info => info(call).await,
        Approvals::Limits => limits(&mut call),
        Approvals::Approve => approve(call).await,
        Approvals::Refuse => refuse(call).await,
        Approvals::Withdraw => withdraw(call).await,
    }
}

impl Call {
    /// What holds for this call, where so many are more than one person decides.
    pub(super) async fn rule(&self, above: i64) -> Result<Rule, Failure> {
        if above == 0 {
            return Ok(Rule::default());
        }
        // Whoever asks in another's name asks about the past, and changes nothing.
        let by_token = matches!(self.proof, Some(Proof::Token(_)) | None);
        let behind = approving::behind(&self.app.ledger, self.caller, by_token).await?;
        Ok(Rule { above, action: self.operation, behind })
    }

    /// Proposes what one person does not decide, and answers that it waits.
    pub(super) async fn propose(&self, act: Act, above: i64) -> Result<Answer, Failure> {
        let rule = self.rule(above).await?;
        let proposed = approving::propose(&self.app.ledger, act, &rule, &self.meta).await?;
        Err(waits(&proposed))
    }

    /// Answers again that it waits, where that is what the key was used for.
    pub(super) async fn refuse_proposed(&self) -> Result<(), Failure> {
        match self.app.ledger.replay::<Approval>(&self.meta).await? {
            Some(proposed) => Err(waits(&proposed)),
            None => Ok(()),
        }
    }
}

/// 1004: it waits for somebody else's word.
pub(super) fn waits(proposed: &Executed<Approval>) -> Failure {
    let data = waiting_json(proposed);
    Failure::Waits { data, replayed: proposed.replayed }
}

/// What a client needs to find what waits.
#[must_use]
pub fn waiting_json(proposed: &Executed<Approval>) -> Value {
    let proposal = proposed.state.proposal.as_ref();
    json!({
        "approval_id": proposed.id,
        "id": proposal.map_or(0, |proposal| proposal.act.subject_id()),
        "nums": proposal.map_or(0, |proposal| proposal.act.num()),
        "above": proposal.map_or(0, |proposal| proposal.above),
        "lapse_date": proposal.map_or(0, |proposal| proposal.lapses_at_ms / 1000),
    })
}

/// A proposal as lists show it.
#[must_use]
pub fn approval_json(row: &ApprovalRow) -> serde_json::Map<String, Value> {
    let value = json!({
        "id": row.id,
        "type": row.kind,
        "action": row.action,
        "state": row.state,
        "nums": row.num,
        "above": row.above,
        "subject_id": row.subject_id,
        "proposed_by": row.proposed_by,
        "user_id": row.employee_id,
        "create_date": row.proposed_at_ms / 1000,
        "lapse_date": row.lapses_at_ms / 1000,
        "closed_by": row.closed_by,
        "close_date": row.closed_at_ms / 1000,
        "reason": row.reason,
    });
    match value {
        Value::Object(fields) => fields,
        _ => serde_json::Map::new(),
    }
}

async fn list(mut call: Call) -> Result<Answer, Failure> {
    let state = call.form.optional_int("state", 0, 4);
    let slice = call.form.slice();
    call.checked()?;
    let rows = approvals::approvals(call.app.ledger.store(), state, call.now_ms(), slice).await?;
    Answer::new(&rows.iter().map(approval_json).collect::<Vec<_>>())
}

async fn info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let ledger = &call.app.ledger;
    let row = approvals::approval(ledger.store(), id, call.now_ms()).await?.ok_or(Refusal::NoSuchRule)?;
    let (approval, _) = ledger.load::<Approval>(id).await?;
    let mut fields = approval_json(&row);
    fields.insert("act".to_owned(), json!(approval.proposal.map(|proposal| proposal.act)));
    Answer::new(&fields)
}

fn limits(call: &mut Call) -> Result<Answer, Failure> {
    call.checked()?;
    Answer::new(&call.app.options.approvals.json())
}

async fn approve(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let done = approving::approve(&call.app.ledger, id, &call.meta).await?;
    closed(&done)
}

async fn refuse(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let reason = call.form.optional_text("reason", 200).unwrap_or_default();
    call.checked()?;
    let done = approving::refuse(&call.app.ledger, id, reason, &call.meta).await?;
    closed(&done)
}

async fn withdraw(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let done = approving::withdraw(&call.app.ledger, id, &call.meta).await?;
    closed(&done)
}

fn closed(done: &Executed<Approval>) -> Result<Answer, Failure> {
    let subject_id = done.state.proposal.as_ref().map_or(0, |proposal| proposal.act.subject_id());
    Answer::of(done, &json!({"id": done.id, "state": done.state.state.number(), "subject_id": subject_id}))
}
