//! Employees, and the shops as their pages list them.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Value, json};

use super::{DIRECTIONS, add_under_id, id_of, replayed, replayed_id, settle};
use crate::access::Resource;
use crate::clock::day_text;
use crate::directory::{self, Employee, EmployeeEdit, NEVER, Place};
use crate::http::form::Form;
use crate::http::offices::{NewPlace, vacate};
use crate::http::operator::shop_json;
use crate::http::{Answer, Call, Failure};
use crate::read_model::pages::{self, ShopRow, Slice};
use crate::reading::Person;
use crate::refusal::Refusal;
use crate::value::MAX_ID;

/// What `/user/list` may be sorted by.
pub(in crate::http) const USER_ORDER: &[&str] =
    &["id", "name", "phone", "shop_id", "state", "entry_date", "leave_date"];

/// What `/user/shoplist` may be sorted by.
pub(in crate::http) const SHOP_ORDER: &[&str] = &["id", "shop_name", "address", "phone", "state"];

/// What `/user/add` and `/user/edit` have in common beside what the one requires.
fn read_more(form: &mut Form) -> EmployeeEdit {
    EmployeeEdit {
        phone: form.optional_text("phone", 30),
        active: form.optional_int("state", 0, 1).map(|state| state == 1),
        identity: form.optional_text("identity", 50),
        entry_date: form.sent_day("entry_date"),
        // Taken back, it is the manual's again.
        leave_date: form.sent_day("leave_date").map(|day| if day == 0 { NEVER } else { day }),
        ..EmployeeEdit::default()
    }
}

async fn require_shop(call: &Call, id: i64) -> Result<ShopRow, Failure> {
    Ok(pages::place(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchShop)?)
}

pub(super) async fn add(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let wanted_id = form.optional_int("id", 1, MAX_ID);
    let (name, shop_id) = (form.text("name", 100), form.id("shop_id"));
    let more = read_more(form);
    let place = NewPlace::read(form);
    call.checked()?;
    call.may(Resource::InShop(shop_id))?;
    let again = replayed_id(&call).await?;
    if again.is_none() {
        require_shop(&call, shop_id).await?;
    }
    let employee = Employee {
        id: 0,
        name,
        phone: more.phone.unwrap_or_default(),
        shop_id,
        active: more.active.unwrap_or(true),
        identity: more.identity.unwrap_or_default(),
        entry_date: more.entry_date.unwrap_or_default(),
        leave_date: more.leave_date.unwrap_or(NEVER),
        place: Place::default(),
    };
    place.check(&call, &employee, &EmployeeEdit::default()).await?;
    // The next id that is free was never anybody's; one that is asked for may have been.
    if let (None, Some(id)) = (again, wanted_id)
        && directory::employee(call.app.ledger.store(), id).await?.is_none()
    {
        vacate(&call, id).await?;
    }
    let (id, again) = match again {
        Some(id) => (id, true),
        None => add_to_directory(&call, wanted_id, &employee).await?,
    };
    // A request that was cut short goes on here.
    place.give(&call, id).await?;
    Ok(Answer::new(&id_of(id))?.replayed(again))
}

/// Writes somebody new into the directory: his id, and whether this key had done so.
async fn add_to_directory(
    call: &Call,
    wanted_id: Option<i64>,
    employee: &Employee,
) -> Result<(i64, bool), Failure> {
    let (store, key) = (call.app.ledger.store().clone(), call.directory_key());
    add_under_id(call, wanted_id, "employee", |id| {
        let (store, key, employee) = (store.clone(), key.clone(), Employee { id, ..employee.clone() });
        async move { directory::add_employee(&store, &employee, key.as_ref()).await }
    })
    .await
}

pub(super) async fn edit(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let id = form.id("id");
    let (name, shop_id) = (form.sent_text("name", 100), form.optional_int("shop_id", 1, MAX_ID));
    let edit = EmployeeEdit { name, shop_id, ..read_more(form) };
    let place = NewPlace::read(form);
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let store = call.app.ledger.store();
    let before = directory::employee(store, id).await?.ok_or(Refusal::NoSuchMember)?;
    call.may(Resource::InShop(before.shop_id))?;
    if let Some(shop_id) = edit.shop_id {
        call.may(Resource::InShop(shop_id))?;
        require_shop(&call, shop_id).await?;
    }
    let place = place.beyond(&before);
    place.check(&call, &before, &edit).await?;
    // First, so that whoever is moved or taken back never has what he held before in his new shop.
    place.give(&call, id).await?;
    let key = call.directory_key();
    let written = directory::edit_employee(store, id, &edit, key.as_ref()).await?;
    settle(&call, written, id, id_of, Refusal::NoSuchMember).await
}

/// An employee with the keys of the manual's `/user/info`; how he signs in is not kept here.
fn employee_json(employee: &Employee, shop_name: &str) -> Value {
    json!({
        "id": employee.id,
        "name": employee.name,
        "code": "",
        "token": "",
        "phone": employee.phone,
        "identity": employee.identity,
        "entry_date": day_text(employee.entry_date),
        "leave_date": day_text(employee.leave_date),
        "shop_id": employee.shop_id,
        "state": i64::from(employee.active),
        "wechat_user_id": 0,
        "shop_name": shop_name,
        "office_id": employee.place.office_id,
        "office_title": employee.place.office_title,
        "is_manager": i64::from(employee.place.manager),
    })
}

pub(super) async fn info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let store = call.app.ledger.store();
    let employee = directory::employee(store, id).await?.ok_or(Refusal::NoSuchMember)?;
    let shop = pages::place(store, employee.shop_id).await?;
    let shop_name = shop.as_ref().map_or("", |shop| shop.name.as_str());
    Ok(Answer::new(&employee_json(&employee, shop_name))?.showing([Person::Employee(employee.id)]))
}

/// By what a list is to be sorted, and whether downwards; None = its own order, newest id first.
fn read_order(form: &mut Form, keys: &'static [&'static str]) -> Option<(&'static str, bool)> {
    let key = form.one_of("key", keys);
    let order = form.one_of("order", DIRECTIONS).unwrap_or("normal");
    (order != "normal").then(|| (key.unwrap_or("id"), order == "desc"))
}

/// Sorts rows that are newest id first; among equals they stay so.
fn sort<T>(rows: &mut [T], order: Option<(&str, bool)>, by: impl Fn(&str, &T, &T) -> Ordering) {
    if let Some((key, downwards)) = order {
        rows.sort_by(|one, other| if downwards { by(key, other, one) } else { by(key, one, other) });
    }
}

pub(super) async fn list(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let slice = form.slice_of_pages();
    let shop_id = form.int("shop_id", 0, MAX_ID);
    let order = read_order(form, USER_ORDER);
    call.checked()?;
    let store = call.app.ledger.store();
    let mut employees = directory::employees(store, shop_id).await?;
    sort(&mut employees, order, |key, one, other| match key {
        "name" => one.name.cmp(&other.name),
        "phone" => one.phone.cmp(&other.phone),
        "shop_id" => one.shop_id.cmp(&other.shop_id),
        "state" => one.active.cmp(&other.active),
        "entry_date" => one.entry_date.cmp(&other.entry_date),
        "leave_date" => one.leave_date.cmp(&other.leave_date),
        _ => one.id.cmp(&other.id),
    });
    let shops = pages::shops(store, Slice::All).await?;
    let names: HashMap<i64, &str> = shops.iter().map(|shop| (shop.id, shop.name.as_str())).collect();
    let page = slice.cut(employees.into_iter(), |employee| employee.id);
    let row = |employee: &Employee| {
        employee_json(employee, names.get(&employee.shop_id).copied().unwrap_or_default())
    };
    let answer = Answer::new(&page.iter().map(row).collect::<Vec<_>>())?;
    Ok(answer.showing(page.iter().map(|employee| Person::Employee(employee.id))))
}

/// Who works where, for choosing one: who has left is not among them.
pub(super) async fn by_shop(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let store = call.app.ledger.store();
    let shops = pages::shops(store, slice).await?;
    let mut at_shop: HashMap<i64, Vec<Employee>> = HashMap::new();
    for employee in directory::employees(store, 0).await?.into_iter().filter(|employee| employee.active) {
        at_shop.entry(employee.shop_id).or_default().push(employee);
    }
    let mut people = Vec::new();
    let mut row = |shop: &ShopRow| {
        let employees = at_shop.remove(&shop.id).unwrap_or_default();
        people.extend(employees.iter().map(|employee| Person::Employee(employee.id)));
        let users = employees.iter().map(|employee| json!({"id": employee.id, "name": employee.name}));
        json!({"id": shop.id, "shop_name": shop.name, "userList": users.collect::<Vec<_>>()})
    };
    let rows: Vec<Value> = shops.iter().map(&mut row).collect();
    Ok(Answer::new(&rows)?.showing(people))
}

pub(super) async fn shop_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_of_pages();
    let order = read_order(&mut call.form, SHOP_ORDER);
    call.checked()?;
    let mut shops = pages::shops(call.app.ledger.store(), Slice::All).await?;
    sort(&mut shops, order, |key, one, other| match key {
        "shop_name" => one.name.cmp(&other.name),
        "address" => one.address.cmp(&other.address),
        "phone" => one.phone.cmp(&other.phone),
        "state" => one.open.cmp(&other.open),
        _ => one.id.cmp(&other.id),
    });
    let page = slice.cut(shops.into_iter(), |shop| shop.id);
    Answer::new(&page.iter().map(shop_json).collect::<Vec<_>>())
}
