//! Four eyes: whose word is needed for what mints or destroys value in bulk, and what follows from it.
//!
//! What is approved and the approval are one append, so nothing is approved and not done, and nothing done twice. Only a
//! file of coupons is not kept here: approving it lets whoever proposed it import that very file. Must never take somebody
//! for another person who may be the same: whoever holds the ledger's machine signs tokens in anybody's name, an operator
//! may hold it, and whoever issued a machine's key may have kept it.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::access::{self, Principal, Resource};
use crate::account::{Account, AccountEvent};
use crate::allotment::{Allotment, AllotmentCommand, MAX_OPEN};
use crate::approval::{Act, Approval, ApprovalCommand, ApprovalState, Proposal};
use crate::clock::day_number;
use crate::config::Serve;
use crate::definition::{Definition, DefinitionCommand};
use crate::directory;
use crate::entity::{decode, stream_of};
use crate::identity::Caller;
use crate::import::{self, Asked, Report, What};
use crate::job::{Job, JobCommand, Work};
use crate::ledger::unit::{Together, Unit};
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::machine::Machine;
use crate::read_model::{accounts, approvals, machines, partners};
use crate::refusal::{Refusal, Wrong};
use crate::runner::{self, Begun};
use crate::store::{ReceiptKey, StreamId};
use crate::value::{hex, random};

/// Lapsed proposals that are looked for at a time.
const PAGE: i64 = 100;

/// Above which numbers one person's word is not enough; 0 = it always is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Members of one mass send.
    pub sends: i64,
    /// The stock of a definition, or of a partner's allotment, that it is set or raised to.
    pub stock: i64,
    /// Coupons of one recall or extension.
    pub recalls: i64,
    /// Rows of one file of coupons.
    pub imports: i64,
}

impl From<&Serve> for Limits {
    fn from(serve: &Serve) -> Self {
        let number = |limit: Option<u32>| i64::from(limit.unwrap_or_default());
        Self {
            sends: number(serve.approve_sends_above),
            stock: number(serve.approve_stock_above),
            recalls: number(serve.approve_recalls_above),
            imports: number(serve.approve_imports_above),
        }
    }
}

impl Limits {
    /// Whether any of them is set.
    #[must_use]
    pub fn is_any_set(self) -> bool {
        self != Self::default()
    }

    /// The most stock that one person may set; None = any.
    #[must_use]
    pub fn stock_at_most(self) -> Option<i64> {
        (self.stock > 0).then_some(self.stock)
    }

    /// As they are answered.
    #[must_use]
    pub fn json(self) -> Value {
        json!({"sends": self.sends, "stock": self.stock, "recalls": self.recalls, "imports": self.imports})
    }
}

/// What holds for one command: above which number it needs approval, and who may stand behind whoever gives it.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// The number; 0 = there is none.
    pub above: i64,
    /// The route that asks for it.
    pub action: &'static str,
    /// Everybody who may be the same person.
    pub behind: Vec<String>,
}

impl Rule {
    /// Whether so many are more than one person decides.
    #[must_use]
    pub fn is_exceeded_by(&self, num: i64) -> bool {
        self.above > 0 && num > self.above
    }
}

/// Everybody who may be the same person as a caller, himself first. `by_token`: whether a signed token is all that he has
/// shown.
pub async fn behind(ledger: &Ledger, caller: Caller, by_token: bool) -> Result<Vec<String>, ExecuteError> {
    let mut behind = vec![caller.to_string()];
    if let Caller::Machine(id) = caller {
        let issued = ledger.store().load_one(stream_of::<Machine>(id)).await?;
        let metadata = issued.first().and_then(|event| serde_json::from_str::<Value>(&event.metadata).ok());
        let issuer = metadata.and_then(|metadata| metadata.get("caller")?.as_str().map(ToOwned::to_owned));
        behind.extend(issuer);
    }
    let operator = Caller::Operator.to_string();
    let is_operator = |who: &String| who.starts_with(operator.as_str());
    if (by_token || behind.iter().any(is_operator)) && !behind.contains(&operator) {
        behind.push(operator);
    }
    Ok(behind)
}

fn command(act: Act, rule: &Rule, meta: &Meta) -> ApprovalCommand {
    ApprovalCommand::Propose {
        act,
        action: rule.action,
        above: rule.above,
        by: meta.caller.to_string(),
        behind: rule.behind.clone(),
        employee_id: meta.caller.employee_id(),
    }
}

/// Proposes a command. The same key proposes it once.
pub async fn propose(
    ledger: &Ledger,
    act: Act,
    rule: &Rule,
    meta: &Meta,
) -> Result<Executed<Approval>, ExecuteError> {
    let id = ledger.next_id("approval", true).await?;
    ledger.execute::<Approval>(id, &command(act, rule, meta), meta).await
}

/// A job that is to wait.
#[derive(Clone, Debug)]
pub(crate) struct ProposedJob {
    pub(crate) job_id: i64,
    pub(crate) work: Work,
    pub(crate) targeted: i64,
    pub(crate) until_position: i64,
    pub(crate) reason: String,
}

struct ProposeJob<'a> {
    approval_id: i64,
    job: ProposedJob,
    rule: &'a Rule,
}

impl Together for ProposeJob<'_> {
    type Primary = Approval;

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Approval>, ExecuteError> {
        let ProposedJob { job_id, work, targeted, until_position, reason } = self.job.clone();
        let propose = JobCommand::Propose {
            approval_id: self.approval_id,
            work: work.clone(),
            targeted,
            until_position,
            reason: reason.clone(),
            employee_id: unit.meta().caller.employee_id(),
        };
        unit.run::<Job>(job_id, &propose).await?;
        let act = Act::Job { job_id, work, targeted, until_position, reason };
        let command = command(act, self.rule, unit.meta());
        unit.run::<Approval>(self.approval_id, &command).await
    }
}

/// Has a job wait whose recipients are fixed: it and its proposal are one append.
pub(crate) async fn propose_job(
    ledger: &Ledger,
    job: ProposedJob,
    rule: &Rule,
    meta: &Meta,
) -> Result<Begun, ExecuteError> {
    let approval_id = ledger.next_id("approval", true).await?;
    let proposed = ledger.execute_together(&ProposeJob { approval_id, job, rule }, meta).await?;
    Ok(Begun::Waits(proposed))
}

/// Approves a proposal and does what was proposed, all or nothing.
///
/// # Errors
/// 2005; 1002 where he may be who proposed it, or whoever proposed it may not any more; 401 where it is not open; then what
/// the command itself meets now, and 6003 where it would come to another number than was proposed: it stays open then.
pub async fn approve(ledger: &Ledger, id: i64, meta: &Meta) -> Result<Executed<Approval>, ExecuteError> {
    let approved = ledger.execute_together(&Approve { id }, meta).await;
    if !matches!(approved, Err(ExecuteError::Conflict | ExecuteError::Refused(_))) {
        return approved;
    }
    // What was proposed may have met what another approval of it did in that instant: then that one is the answer.
    let (approval, _) = ledger.load::<Approval>(id).await?;
    match approval.state_at(meta.at.ms) {
        ApprovalState::Open => approved,
        _ => ledger.execute_together(&Approve { id }, meta).await,
    }
}

struct Approve {
    id: i64,
}

impl Together for Approve {
    type Primary = Approval;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<Approval>(self.id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Approval>, ExecuteError> {
        let by = unit.meta().caller;
        let approve = ApprovalCommand::Approve { by: by.to_string() };
        let done = unit.run::<Approval>(self.id, &approve).await?;
        if let Some(proposal) = done.state.proposal.as_ref().filter(|_| !done.events.is_empty()) {
            refuse_borrowed_account(unit.ledger(), by, proposal).await?;
            refuse_if_not_allowed_any_more(unit.ledger(), proposal).await?;
            carry_out(unit, proposal).await?;
        }
        Ok(done)
    }
}

/// An account that was made, or that others could get into by a code or a link to a provider, since it was proposed, is
/// nobody's whom one knows: whoever proposed it may have seen to that.
async fn refuse_borrowed_account(
    ledger: &Ledger,
    by: Caller,
    proposal: &Proposal,
) -> Result<(), ExecuteError> {
    let Caller::OperatorAccount(id) = by else { return Ok(()) };
    for stored in ledger.store().load_one(stream_of::<Account>(id)).await? {
        let (AccountEvent::Created { at_ms: opened_at_ms, .. }
        | AccountEvent::CodeGiven { at_ms: opened_at_ms, .. }
        | AccountEvent::PasswordSet { by_code: true, at_ms: opened_at_ms }
        | AccountEvent::SubjectLinked { at_ms: opened_at_ms, .. }) = decode::<Account>(&stored)?
        else {
            continue;
        };
        if opened_at_ms >= proposal.at_ms {
            return Err(Refusal::NotAnother.into());
        }
    }
    Ok(())
}

/// Whoever proposed it must still be allowed it.
async fn refuse_if_not_allowed_any_more(ledger: &Ledger, proposal: &Proposal) -> Result<(), ExecuteError> {
    let caller = Caller::parse(&proposal.proposed_by);
    let who = match caller {
        Some(caller) => as_he_is_now(ledger, caller).await?,
        None => None,
    };
    let may = who.is_some_and(|who| access::authorize(&who, &proposal.action, Resource::Whole).is_ok());
    if may { Ok(()) } else { Err(Refusal::NotAnother.into()) }
}

/// Somebody with what he has been given by now; None where he may do nothing any more.
async fn as_he_is_now(ledger: &Ledger, caller: Caller) -> Result<Option<Principal>, ExecuteError> {
    let store = ledger.store();
    let plain = Principal::plain(caller);
    Ok(match caller {
        Caller::Employee(id) => match directory::employee(store, id).await? {
            Some(employee) if !employee.active => None,
            Some(employee) => {
                let place = employee.place;
                Some(Principal::employee(id, employee.shop_id, place.manager, place.rights))
            }
            None => Some(plain),
        },
        Caller::Machine(id) => {
            let machine = machines::machine(store, id).await?;
            let holds = machine.filter(|machine| machine.holds(ledger.clock().now_ms()));
            holds.map(|machine| Principal { rights: machine.rights, ..plain })
        }
        Caller::OperatorAccount(id) => {
            let account = accounts::account(store, id).await?;
            account.filter(|account| account.active).map(|_| plain)
        }
        _ => Some(plain),
    })
}

/// Runs what was proposed, as it was proposed.
async fn carry_out(unit: &mut Unit<'_>, proposal: &Proposal) -> Result<(), ExecuteError> {
    let (employee_id, at_most) = (proposal.employee_id, None);
    match proposal.act.clone() {
        Act::Job { job_id, work, targeted, until_position, reason } => {
            runner::may_start(unit.ledger(), job_id, (&work, targeted), unit.meta()).await?;
            let start = JobCommand::Start { work, targeted, until_position, reason, employee_id };
            unit.run::<Job>(job_id, &start).await?;
        }
        Act::Define { definition_id, offer, stock } => {
            let define = DefinitionCommand::Define { offer, stock, employee_id, at_most };
            unit.run::<Definition>(definition_id, &define).await?;
        }
        Act::RaiseStock { definition_id, by, stock } => {
            let raise = DefinitionCommand::ChangeStock { by, employee_id, at_most };
            let raised = unit.run::<Definition>(definition_id, &raise).await?;
            if raised.state.stock != Some(stock) {
                return Err(ExecuteError::Conflict);
            }
        }
        Act::Allot { allotment_id, partner_id, definition_id, num, end_date } => {
            let today = day_number(unit.meta().at.day);
            let open = partners::open_allotments(unit.ledger().store(), partner_id, today).await?;
            if open.len() >= MAX_OPEN {
                return Err(Refusal::field("business_id", Wrong::TooMany { max: MAX_OPEN }).into());
            }
            let allot =
                AllotmentCommand::Allot { partner_id, definition_id, num, end_date, employee_id, at_most };
            unit.run::<Allotment>(allotment_id, &allot).await?;
        }
        Act::RaiseAllotment { allotment_id, by, num } => {
            let raise = AllotmentCommand::ChangeStock { by, employee_id, at_most };
            let raised = unit.run::<Allotment>(allotment_id, &raise).await?;
            if raised.state.num() != Some(num) {
                return Err(ExecuteError::Conflict);
            }
        }
        // The file is with whoever proposed it.
        Act::Import { .. } => {}
    }
    Ok(())
}

/// Refuses a proposal: what was proposed is not done.
///
/// # Errors
/// 2005, and 401 where it is not open.
pub async fn refuse(
    ledger: &Ledger,
    id: i64,
    reason: String,
    meta: &Meta,
) -> Result<Executed<Approval>, ExecuteError> {
    let command = ApprovalCommand::Refuse { by: meta.caller.to_string(), reason };
    ledger.execute_together(&Close { id, command }, meta).await
}

/// Takes a proposal back that the caller made.
///
/// # Errors
/// 2005 also where it is another's, and 401 where it is not open.
pub async fn withdraw(ledger: &Ledger, id: i64, meta: &Meta) -> Result<Executed<Approval>, ExecuteError> {
    let command = ApprovalCommand::Withdraw { by: meta.caller.to_string() };
    ledger.execute_together(&Close { id, command }, meta).await
}

/// Ends a proposal without doing what was proposed; a job that waited for it is cancelled with it.
struct Close {
    id: i64,
    command: ApprovalCommand,
}

impl Together for Close {
    type Primary = Approval;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<Approval>(self.id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Approval>, ExecuteError> {
        let done = unit.run::<Approval>(self.id, &self.command).await?;
        let act =
            done.state.proposal.as_ref().filter(|_| !done.events.is_empty()).map(|proposal| &proposal.act);
        if let Some(Act::Job { job_id, .. }) = act {
            let employee_id = unit.meta().caller.employee_id();
            unit.run::<Job>(*job_id, &JobCommand::Decline { employee_id }).await?;
        }
        Ok(done)
    }
}

/// Writes down which proposals have lapsed, and returns how many; it changes no answer. What cannot be written now is
/// looked at again.
pub async fn sweep_lapsed(ledger: &Ledger) -> Result<usize, ExecuteError> {
    let mut swept = 0;
    loop {
        let lapsed = approvals::lapsed(ledger.store(), ledger.clock().now_ms(), PAGE).await?;
        let before = swept;
        for id in lapsed {
            let request_id = format!("sweep-{}", hex(&random::<6>()));
            let at = ledger.now();
            let meta = Meta { caller: Caller::System, at, request_id, receipt: None, job_id: None };
            let close = Close { id, command: ApprovalCommand::Expire };
            match ledger.execute_together(&close, &meta).await {
                Ok(done) => swept += usize::from(!done.events.is_empty()),
                Err(error) => tracing::warn!(approval_id = id, %error, "a lapsed proposal was not swept"),
            }
        }
        if swept == before {
            return Ok(swept);
        }
    }
}

/// What became of a file.
pub enum Imported {
    /// It was imported.
    Taken(Report),
    /// It has more rows than one person decides, and waits.
    Waits(Box<Executed<Approval>>),
}

/// Imports a file, or proposes to where it has more rows of coupons than one person decides and nobody has approved this
/// very file of his yet. Asked for again it is the same proposal while that is open, and goes in once it is approved.
pub async fn import(
    ledger: &Ledger,
    what: What,
    file: &[u8],
    asked: &Asked,
    rule: &Rule,
) -> Result<Imported, ExecuteError> {
    if what == What::Coupons && !asked.dry_run && rule.above > 0 {
        let rows = import::count_rows(what, file).await?;
        if rule.is_exceeded_by(rows)
            && let Some(waits) = approved_or_proposed(ledger, file, rows, asked, rule).await?
        {
            return Ok(Imported::Waits(Box::new(waits)));
        }
    }
    import::run(ledger, what, file, asked).await.map(Imported::Taken)
}

/// The proposal by which a file waits; None where it is approved.
async fn approved_or_proposed(
    ledger: &Ledger,
    file: &[u8],
    rows: i64,
    asked: &Asked,
    rule: &Rule,
) -> Result<Option<Executed<Approval>>, ExecuteError> {
    let (caller, operation) = (asked.caller.to_string(), What::Coupons.operation());
    let sha256 = hex(&Sha256::digest(file));
    let at = ledger.now();
    let last = approvals::of_file(ledger.store(), &sha256, &caller, at.ms).await?;
    if let Some(last) = last {
        if last.state == ApprovalState::Approved.number() {
            return Ok(None);
        }
        if last.state == ApprovalState::Open.number() {
            let (state, _) = ledger.load::<Approval>(last.id).await?;
            return Ok(Some(Executed { id: last.id, state, events: Vec::new(), replayed: true }));
        }
    }
    let key = ReceiptKey { caller, operation, key: asked.key.clone() };
    if ledger.store().is_used_for_another(&key, &asked.request_mac).await? {
        return Err(Refusal::KeyReused.into());
    }
    let request_id = asked.request_id.clone();
    let meta = Meta { caller: asked.caller, at, request_id, receipt: None, job_id: None };
    propose(ledger, Act::Import { sha256, rows }, rule, &meta).await.map(Some)
}
