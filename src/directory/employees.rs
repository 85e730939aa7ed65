//! Employees. A coupon redeemed at the counter is redeemed at the employee's shop.
//!
//! Which office an employee holds and whether he manages his shop the log says (`office`); they are read with him, in one
//! statement, because every request of his asks for all of it.

use super::keys::{DirectoryKey, Written, write};
use super::{next_behind, set};
use crate::read_model::offices::read_rights;
use crate::store::{BUCKET, Row, Statement, Store, StoreError, raise_ids};

/// The manual's last day of someone who has not left.
pub const NEVER: i64 = 20_990_101;

/// An employee as the directory has him.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Employee {
    /// His id.
    pub id: i64,
    /// His name.
    pub name: String,
    /// His telephone number.
    pub phone: String,
    /// Where he works.
    pub shop_id: i64,
    /// Whether he still does.
    pub active: bool,
    /// The number of his identity card.
    pub identity: String,
    /// His first day, 20181101; 0 = unknown.
    pub entry_date: i64,
    /// His last day; [`NEVER`] until it is known.
    pub leave_date: i64,
    /// What he holds beside: not the directory's to write.
    pub place: Place,
}

/// What an employee is beside working in a shop, as the log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Place {
    /// The office that he holds; 0 = none.
    pub office_id: i64,
    /// Its title; empty where it is gone.
    pub office_title: String,
    /// Its rights by their numbers; none where it is gone.
    pub rights: Vec<i64>,
    /// Whether he manages the shop where he works.
    pub manager: bool,
}

impl Default for Employee {
    fn default() -> Self {
        Self {
            id: 0,
            name: String::new(),
            phone: String::new(),
            shop_id: 0,
            active: false,
            identity: String::new(),
            entry_date: 0,
            leave_date: NEVER,
            place: Place::default(),
        }
    }
}

/// What is to change of an employee; what is None stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmployeeEdit {
    /// See [`Employee::name`].
    pub name: Option<String>,
    /// See [`Employee::phone`].
    pub phone: Option<String>,
    /// See [`Employee::shop_id`].
    pub shop_id: Option<i64>,
    /// See [`Employee::active`].
    pub active: Option<bool>,
    /// See [`Employee::identity`].
    pub identity: Option<String>,
    /// See [`Employee::entry_date`].
    pub entry_date: Option<i64>,
    /// See [`Employee::leave_date`].
    pub leave_date: Option<i64>,
}

macro_rules! employees {
    ($more:literal) => {
        concat!(
            "SELECT e.employee_id, e.name, e.phone, e.shop_id, e.active, e.identity, e.entry_date, e.leave_date,
                    COALESCE(a.office_id, 0), COALESCE(o.title, ''), COALESCE(o.rights, ''), COALESCE(a.manager, 0)
             FROM employees e
             LEFT JOIN appointments_v1 a ON a.bucket = $1 AND a.appointment_id = e.employee_id
             LEFT JOIN offices_v1 o ON o.bucket = $1 AND o.office_id = a.office_id AND o.deleted = 0
             WHERE ",
            $more
        )
    };
}

fn read(row: &Row) -> Employee {
    Employee {
        id: row.int(0),
        name: row.text(1).to_owned(),
        phone: row.text(2).to_owned(),
        shop_id: row.int(3),
        active: row.int(4) == 1,
        identity: row.text(5).to_owned(),
        entry_date: row.int(6),
        leave_date: row.int(7),
        place: Place {
            office_id: row.int(8),
            office_title: row.text(9).to_owned(),
            rights: read_rights(row.text(10)),
            manager: row.int(11) == 1,
        },
    }
}

/// An employee.
pub async fn employee(store: &Store, id: i64) -> Result<Option<Employee>, StoreError> {
    let sql = employees!("e.employee_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read))
}

/// The employees of one shop or (0) of all, newest id first. They are few beside members: callers sort and cut.
pub async fn employees(store: &Store, shop_id: i64) -> Result<Vec<Employee>, StoreError> {
    let sql = employees!("$2 = 0 OR e.shop_id = $2 ORDER BY e.employee_id DESC");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), shop_id.into()])).await?;
    Ok(rows.iter().map(read).collect())
}

/// Adds an employee; unmet where his id is taken. His place is not written here.
pub async fn add_employee(
    store: &Store,
    employee: &Employee,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let add = Statement::new(
        "INSERT INTO employees (employee_id, name, phone, shop_id, active, identity, entry_date, leave_date)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (employee_id) DO NOTHING RETURNING employee_id",
        [
            employee.id.into(),
            employee.name.as_str().into(),
            employee.phone.as_str().into(),
            employee.shop_id.into(),
            employee.active.into(),
            employee.identity.as_str().into(),
            employee.entry_date.into(),
            employee.leave_date.into(),
        ],
    );
    write(store, employee.id, key, vec![add.must_return(), raise_ids("employee", next_behind(employee.id))])
        .await
}

/// Changes an employee; unmet where there is none.
pub async fn edit_employee(
    store: &Store,
    id: i64,
    edit: &EmployeeEdit,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let lock = "UPDATE employees SET active = active WHERE employee_id = $1 RETURNING employee_id";
    let changes = [
        set("UPDATE employees SET name = $2 WHERE employee_id = $1", id, edit.name.as_deref()),
        set("UPDATE employees SET phone = $2 WHERE employee_id = $1", id, edit.phone.as_deref()),
        set("UPDATE employees SET shop_id = $2 WHERE employee_id = $1", id, edit.shop_id),
        set("UPDATE employees SET active = $2 WHERE employee_id = $1", id, edit.active),
        set("UPDATE employees SET identity = $2 WHERE employee_id = $1", id, edit.identity.as_deref()),
        set("UPDATE employees SET entry_date = $2 WHERE employee_id = $1", id, edit.entry_date),
        set("UPDATE employees SET leave_date = $2 WHERE employee_id = $1", id, edit.leave_date),
    ];
    let mut statements = vec![Statement::new(lock, [id.into()]).must_return()];
    statements.extend(changes.into_iter().flatten());
    write(store, id, key, statements).await
}
