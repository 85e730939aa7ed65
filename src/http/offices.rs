//! Offices (職務), the rights that they have, and who may give them.
//!
//! Must never let anybody give a right that he has not himself, whichever way: by an office's rights, by giving somebody an
//! office, or by taking somebody back who holds one. Only operators make managers.

use serde_json::{Value, json};

use super::form::Form;
use super::{Answer, Call, Failure};
use crate::access::{HEADINGS, RIGHTS, Right, Role};
use crate::directory::{Employee, EmployeeEdit};
use crate::ledger::Meta;
use crate::office::{Appointment, AppointmentCommand, Office, OfficeCommand};
use crate::read_model::offices::{self, OfficeRow};
use crate::refusal::{Refusal, Wrong};
use crate::value::{MAX_ID, list_text};

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offices {
    /// `/office/list`
    List,
    /// `/office/get`
    Get,
    /// `/office/add`
    Add,
    /// `/office/edit`
    Edit,
    /// `/office/del`
    Delete,
    /// `/office/competence`
    Competence,
    /// `/office/setcompetence`
    SetCompetence,
    /// `/competence/list`
    Rights,
}

pub(super) async fn run(which: Offices, call: Call) -> Result<Answer, Failure> {
    match which {
        Offices::List => list(call).await,
        Offices::Get => get(call).await,
        Offices::Add => add(call).await,
        Offices::Edit => edit(call).await,
        Offices::Delete => delete(call).await,
        Offices::Competence => competence(call).await,
        Offices::SetCompetence => set_competence(call).await,
        Offices::Rights => rights(call),
    }
}

fn office_json(office: &OfficeRow) -> Value {
    json!({
        "id": office.id,
        "title": office.title,
        "user_id": office.employee_id,
        "create_date": office.added_at_ms / 1000,
        "competence_ids": list_text(&office.rights),
    })
}

async fn list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let rows = offices::offices(call.app.ledger.store(), slice).await?;
    Answer::new(&rows.iter().map(office_json).collect::<Vec<_>>())
}

/// An office that is there, or 2005.
async fn office(call: &Call, id: i64) -> Result<OfficeRow, Failure> {
    Ok(offices::office(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchRule)?)
}

async fn get(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    Answer::new(&office_json(&office(&call, id).await?))
}

async fn add(mut call: Call) -> Result<Answer, Failure> {
    let title = call.form.text("title", 100);
    call.checked()?;
    let id = call.app.ledger.next_id("office", true).await?;
    let command = OfficeCommand::Add { title, employee_id: call.caller.employee_id() };
    let done = call.execute::<Office>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

async fn edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let title = call.form.text("title", 100);
    call.checked()?;
    let command = OfficeCommand::Edit { title, employee_id: call.caller.employee_id() };
    let done = call.execute::<Office>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

/// Deletes an office that nobody holds who works here. Whoever is given it at this very moment holds one that has no rights.
async fn delete(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let store = call.app.ledger.store();
    if call.app.ledger.replay::<Office>(&call.meta).await?.is_none()
        && offices::office(store, id).await?.is_some()
        && offices::is_held(store, id).await?
    {
        return Err(Refusal::field("id", Wrong::Held).into());
    }
    let command = OfficeCommand::Delete { employee_id: call.caller.employee_id() };
    let done = call.execute::<Office>(id, &command).await?;
    Answer::of(&done, &json!(1))
}

/// The manual's tree of rights, each checked where it is among those of an office, or without a word of that.
fn tree(checked: Option<&[i64]>) -> Value {
    let node = |id: i64, title: &str, kind: i64, about: &str| json!({"id": id, "state": 1, "title": title, "sort": id, "type": kind, "about": about});
    let leaf = |right: &Right| {
        let mut leaf = node(right.id, right.title, 2, right.name);
        if let (Some(checked), Some(fields)) = (checked, leaf.as_object_mut()) {
            fields.insert("checked".to_owned(), checked.contains(&right.id).into());
        }
        leaf
    };
    let heading = |(place, (id, title)): (usize, &(i64, &str))| {
        let under: Vec<Value> = RIGHTS.iter().filter(|right| right.heading == place).map(leaf).collect();
        let mut heading = node(*id, title, 1, "");
        if let Some(fields) = heading.as_object_mut() {
            fields.insert("child".to_owned(), under.into());
        }
        heading
    };
    let child: Vec<Value> = HEADINGS.iter().enumerate().map(heading).collect();
    json!([{"title": "公共權限", "child": child}])
}

async fn competence(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let office = office(&call, id).await?;
    Answer::new(&tree(Some(&office.rights)))
}

fn rights(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    Answer::new(&tree(None))
}

async fn set_competence(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let rights = call.form.sent_ints("competence_ids", MAX_ID);
    match &rights {
        None => call.form.wrong("competence_ids", Wrong::Required),
        Some(rights) if !rights.iter().all(|id| RIGHTS.iter().any(|right| right.id == *id)) => {
            call.form.wrong("competence_ids", Wrong::NotARight);
        }
        Some(_) => {}
    }
    let rights = rights.unwrap_or_default();
    call.checked()?;
    let command = OfficeCommand::SetRights {
        rights,
        givable: call.who.givable_rights(),
        employee_id: call.caller.employee_id(),
    };
    let done = call.execute::<Office>(id, &command).await?;
    Answer::of(&done, &json!({"id": done.id, "competence_ids": list_text(&done.state.rights)}))
}

/// Which place a request gives an employee; what is None stays.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewPlace {
    office_id: Option<i64>,
    manager: Option<bool>,
}

impl NewPlace {
    pub(super) fn read(form: &mut Form) -> Self {
        Self {
            office_id: form.optional_int("office_id", 0, MAX_ID),
            manager: form.optional_int("is_manager", 0, 1).map(|manager| manager == 1),
        }
    }

    /// The same without what he holds already: it is not given again, so nobody needs to be able to give it.
    pub(super) fn beyond(self, before: &Employee) -> Self {
        Self {
            office_id: self.office_id.filter(|id| *id != before.place.office_id),
            manager: self.manager.filter(|manager| *manager != before.place.manager),
        }
    }

    /// Refuses what the caller may not give: 2005 where there is no such office, 1002 where it has any right that he has
    /// not, or where he would make somebody manager of a shop and is no operator. Whoever comes back is given what he held.
    pub(super) async fn check(
        self,
        call: &Call,
        before: &Employee,
        edit: &EmployeeEdit,
    ) -> Result<(), Failure> {
        let comes_back = edit.active == Some(true) && !before.active;
        let rights = match self.office_id {
            Some(0) => Vec::new(),
            Some(id) => office(call, id).await?.rights,
            None if comes_back => before.place.rights.clone(),
            None => Vec::new(),
        };
        let moves = edit.shop_id.is_some_and(|shop_id| shop_id != before.shop_id);
        let begins_to_manage = self.manager.unwrap_or((comes_back || moves) && before.place.manager);
        let may_make_managers = call.who.role == Role::Operator;
        if rights.into_iter().all(|right| call.who.may_give(right))
            && (may_make_managers || !begins_to_manage)
        {
            Ok(())
        } else {
            Err(Failure::NotAllowed)
        }
    }

    /// Gives it. Under the request's key it is given once.
    pub(super) async fn give(self, call: &Call, id: i64) -> Result<(), Failure> {
        if self.office_id.is_none() && self.manager.is_none() {
            return Ok(());
        }
        call.execute::<Appointment>(id, &self.command(call)).await.map(drop)
    }

    fn command(self, call: &Call) -> AppointmentCommand {
        let Self { office_id, manager } = self;
        AppointmentCommand::Appoint { office_id, manager, employee_id: call.caller.employee_id() }
    }
}

/// Sees to it that an id is nobody's place before somebody new gets it: a ledger that was taken over from an export knows
/// who held what, and its directory has nobody yet.
pub(super) async fn vacate(call: &Call, id: i64) -> Result<(), Failure> {
    let nothing = NewPlace { office_id: Some(0), manager: Some(false) };
    // The request's key is for what it asks.
    let meta = Meta { receipt: None, ..call.meta.clone() };
    call.app.ledger.execute::<Appointment>(id, &nothing.command(call), &meta).await?;
    Ok(())
}
