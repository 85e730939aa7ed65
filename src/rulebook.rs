//! Changes of rules and grants that are one: a rule with its grants, a group with all that hangs on it, several grants at
//! once. All of a change or nothing of it.
//!
//! Which grants there are is read from the live table; what each of them is, from its stream, with its version. Two changes
//! of one rule queue within a server; on two servers at the same instant both may add what neither has seen, and then both
//! rows stand and can be removed.

use crate::entity::{Entity, stream_of};
use crate::grant::{Cause, Grant, GrantCommand};
use crate::ledger::unit::{Together, Unit};
use crate::ledger::{ExecuteError, Executed};
use crate::read_model::rules;
use crate::refusal::{Refusal, Wrong};
use crate::rule::{GoodsGroup, OrderAmount, OrderAmountCommand};
use crate::store::StreamId;

/// A grant that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// The id it will have.
    pub id: i64,
    /// Of which definition.
    pub definition_id: i64,
    /// How many coupons.
    pub num: i64,
}

impl NewGrant {
    fn command(self, cause: Cause, employee_id: i64) -> GrantCommand {
        let Self { definition_id, num, .. } = self;
        GrantCommand::Add { cause, definition_id, num, employee_id }
    }
}

/// Whether a grant hangs where the caller says that it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// This rule of an order's amount.
    OrderAmount(i64),
    /// Any rule of an order's amount.
    AnyOrderAmount,
    /// Any group of goods.
    AnyGoodsGroup,
    /// Any level.
    AnyLevel,
}

impl On {
    fn holds(self, cause: Option<Cause>) -> bool {
        match self {
            Self::OrderAmount(id) => cause == Some(Cause::OrderAmount(id)),
            Self::AnyOrderAmount => matches!(cause, Some(Cause::OrderAmount(_))),
            Self::AnyGoodsGroup => matches!(cause, Some(Cause::GoodsGroup(_))),
            Self::AnyLevel => matches!(cause, Some(Cause::Level(_))),
        }
    }
}

/// The stream that changes of what hangs on a cause queue for. Levels and birthdays have none of their own; no grant has the
/// id 0, so nothing else queues there.
fn queue(cause: Cause) -> StreamId {
    match cause {
        Cause::OrderAmount(id) => stream_of::<OrderAmount>(id),
        Cause::GoodsGroup(id) => stream_of::<GoodsGroup>(id),
        Cause::Level(_) | Cause::Birthday => stream_of::<Grant>(0),
    }
}

/// 2005 where the rule or group is not there. The append is refused should it go meanwhile.
async fn must_be_there(unit: &mut Unit<'_>, cause: Cause) -> Result<(), ExecuteError> {
    let there = match cause {
        Cause::OrderAmount(id) => {
            unit.read::<OrderAmount>(id).await?.is_some_and(|rule| rule.live_amount_cents().is_some())
        }
        Cause::GoodsGroup(id) => unit.read::<GoodsGroup>(id).await?.is_some_and(|group| group.is_live()),
        Cause::Level(_) | Cause::Birthday => true,
    };
    if there { Ok(()) } else { Err(Refusal::NoSuchRule.into()) }
}

/// Runs a command on a grant that has to hang where the caller says.
async fn run_on(
    unit: &mut Unit<'_>,
    on: On,
    id: i64,
    command: &GrantCommand,
) -> Result<Executed<Grant>, ExecuteError> {
    let done = unit.run::<Grant>(id, command).await?;
    if on.holds(done.state.cause) { Ok(done) } else { Err(Refusal::NoSuchRule.into()) }
}

/// Hangs grants on a cause.
///
/// # Errors
/// 2005, 2002, and 401 on `field` for a definition that is granted there already: it would be given twice.
#[derive(Clone, Debug)]
pub struct AddGrants {
    /// What earns them.
    pub cause: Cause,
    /// At least one.
    pub grants: Vec<NewGrant>,
    /// Who.
    pub employee_id: i64,
    /// The request's field that names the definitions.
    pub field: &'static str,
}

impl Together for AddGrants {
    type Primary = Grant;

    fn streams(&self) -> Vec<StreamId> {
        vec![queue(self.cause)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Grant>, ExecuteError> {
        must_be_there(unit, self.cause).await?;
        let there = rules::grants_of(unit.ledger().store(), self.cause).await?;
        let mut last = Err(Refusal::NoSuchRule.into());
        for grant in &self.grants {
            last = Ok(unit.run::<Grant>(grant.id, &grant.command(self.cause, self.employee_id)).await?);
        }
        if self.grants.iter().any(|new| there.iter().any(|old| old.definition_id == new.definition_id)) {
            return Err(Refusal::field(self.field, Wrong::Taken).into());
        }
        last
    }
}

/// Gives grants other numbers.
///
/// # Errors
/// 2005
#[derive(Clone, Debug)]
pub struct ChangeGrants {
    /// Where they hang.
    pub on: On,
    /// (grant, number), each grant once, at least one.
    pub nums: Vec<(i64, i64)>,
    /// Who.
    pub employee_id: i64,
}

impl Together for ChangeGrants {
    type Primary = Grant;

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Grant>, ExecuteError> {
        let mut last = Err(Refusal::NoSuchRule.into());
        for (id, num) in &self.nums {
            let command = GrantCommand::Change { num: *num, employee_id: self.employee_id };
            last = Ok(run_on(unit, self.on, *id, &command).await?);
        }
        last
    }
}

/// Removes a grant.
///
/// # Errors
/// 2005
#[derive(Clone, Copy, Debug)]
pub struct RemoveGrant {
    /// Where it hangs.
    pub on: On,
    /// Which.
    pub id: i64,
    /// Who.
    pub employee_id: i64,
}

impl Together for RemoveGrant {
    type Primary = Grant;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<Grant>(self.id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Grant>, ExecuteError> {
        let command = GrantCommand::Remove { employee_id: self.employee_id };
        run_on(unit, self.on, self.id, &command).await
    }
}

/// Defines a rule of an order's amount with its grants.
///
/// # Errors
/// 2002
#[derive(Clone, Debug)]
pub struct DefineOrderAmount {
    /// The id it will have.
    pub id: i64,
    /// From which amount on it holds.
    pub amount_cents: i64,
    /// What it grants.
    pub grants: Vec<NewGrant>,
    /// Who.
    pub employee_id: i64,
}

impl Together for DefineOrderAmount {
    type Primary = OrderAmount;

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<OrderAmount>, ExecuteError> {
        let (amount_cents, employee_id) = (self.amount_cents, self.employee_id);
        let define = OrderAmountCommand::Define { amount_cents, employee_id };
        let done = unit.run::<OrderAmount>(self.id, &define).await?;
        for grant in &self.grants {
            let command = grant.command(Cause::OrderAmount(self.id), employee_id);
            unit.run::<Grant>(grant.id, &command).await?;
        }
        Ok(done)
    }
}

/// Edits a rule of an order's amount, and the numbers of its grants.
///
/// # Errors
/// 2005
#[derive(Clone, Debug)]
pub struct EditOrderAmount {
    /// Which.
    pub id: i64,
    /// From which amount on it holds.
    pub amount_cents: i64,
    /// (grant, number), each grant once; the others stay.
    pub nums: Vec<(i64, i64)>,
    /// Who.
    pub employee_id: i64,
}

impl Together for EditOrderAmount {
    type Primary = OrderAmount;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<OrderAmount>(self.id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<OrderAmount>, ExecuteError> {
        let (amount_cents, employee_id) = (self.amount_cents, self.employee_id);
        let mut grants_change = false;
        for (id, num) in &self.nums {
            let command = GrantCommand::Change { num: *num, employee_id };
            let done = run_on(unit, On::OrderAmount(self.id), *id, &command).await?;
            grants_change |= !done.events.is_empty();
        }
        let change = OrderAmountCommand::Change { amount_cents, grants_change, employee_id };
        unit.run::<OrderAmount>(self.id, &change).await
    }
}

/// Deletes a rule or a group with every grant that hangs on it.
///
/// # Errors
/// 2005
#[derive(Clone, Debug)]
pub struct Delete<A: Entity> {
    /// Which.
    pub id: i64,
    /// Its own command.
    pub command: A::Command,
    /// What hangs on it.
    pub cause: Cause,
    /// Who.
    pub employee_id: i64,
}

impl<A: Entity> Together for Delete<A> {
    type Primary = A;

    fn streams(&self) -> Vec<StreamId> {
        vec![stream_of::<A>(self.id)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<A>, ExecuteError> {
        let done = unit.run::<A>(self.id, &self.command).await?;
        let remove = GrantCommand::Remove { employee_id: self.employee_id };
        for grant in rules::grants_of(unit.ledger().store(), self.cause).await? {
            match unit.run::<Grant>(grant.id, &remove).await {
                // Removed by itself since it was listed.
                Ok(_) | Err(ExecuteError::Refused(Refusal::NoSuchRule)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Sets all that a birthday gives: what is there and not named goes.
///
/// # Errors
/// 2002
#[derive(Clone, Debug)]
pub struct SetBirthday {
    /// All of it, each definition once; the ids are for those that are new.
    pub grants: Vec<NewGrant>,
    /// Who.
    pub employee_id: i64,
}

impl Together for SetBirthday {
    type Primary = Grant;

    fn streams(&self) -> Vec<StreamId> {
        vec![queue(Cause::Birthday)]
    }

    async fn plan(&self, unit: &mut Unit<'_>) -> Result<Executed<Grant>, ExecuteError> {
        let employee_id = self.employee_id;
        let mut wanted = self.grants.clone();
        let mut last = Executed { id: 0, state: Grant::default(), events: Vec::new(), replayed: false };
        for old in rules::grants_of(unit.ledger().store(), Cause::Birthday).await? {
            let kept = wanted.iter().position(|new| new.definition_id == old.definition_id);
            let command = match kept.map(|place| wanted.swap_remove(place)) {
                Some(new) => GrantCommand::Change { num: new.num, employee_id },
                None => GrantCommand::Remove { employee_id },
            };
            last = unit.run::<Grant>(old.id, &command).await?;
        }
        for new in wanted {
            last = unit.run::<Grant>(new.id, &new.command(Cause::Birthday, employee_id)).await?;
        }
        Ok(last)
    }
}
