//! Offices and who holds one: which rows their states have, and the SELECTs that read them. Who may do what rests on these
//! rows with every request of an employee: the directory reads them beside where he works.

use super::pages::Slice;
use super::{APPOINTMENTS, OFFICES};
use crate::office::{Appointment, Office};
use crate::store::{BUCKET, LiveRow, Row, Statement, Store, StoreError};
use crate::value::list_text;

/// The one live row of an office.
#[must_use]
pub fn office_rows(id: i64, office: &Office) -> Vec<LiveRow> {
    let Some(title) = &office.title else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        title.as_str().into(),
        list_text(&office.rights).into(),
        office.employee_id.into(),
        office.added_at_ms.into(),
        office.deleted.into(),
    ];
    vec![LiveRow { table: &OFFICES, cells }]
}

/// The one live row of an employee's place.
#[must_use]
pub fn appointment_rows(id: i64, appointment: &Appointment) -> Vec<LiveRow> {
    if !appointment.told {
        return Vec::new();
    }
    let cells = vec![id.into(), appointment.office_id.into(), appointment.manager.into()];
    vec![LiveRow { table: &APPOINTMENTS, cells }]
}

/// An office that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficeRow {
    /// Its id.
    pub id: i64,
    /// Its title.
    pub title: String,
    /// Its rights by their numbers, in order.
    pub rights: Vec<i64>,
    /// Who added it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub added_at_ms: i64,
}

/// Numbers as a row lists them. What is none is left out: it opens nothing.
#[must_use]
pub fn read_rights(text: &str) -> Vec<i64> {
    text.split(',').filter_map(|number| number.parse().ok()).collect()
}

macro_rules! offices {
    ($($more:literal),*) => {
        concat!(
            "SELECT office_id, title, rights, employee_id, added_at_ms FROM offices_v1 WHERE bucket = $1 AND deleted = 0",
            $($more),*
        )
    };
}

fn read(row: &Row) -> OfficeRow {
    OfficeRow {
        id: row.int(0),
        title: row.text(1).to_owned(),
        rights: read_rights(row.text(2)),
        employee_id: row.int(3),
        added_at_ms: row.int(4),
    }
}

/// An office by its id.
pub async fn office(store: &Store, id: i64) -> Result<Option<OfficeRow>, StoreError> {
    let sql = offices!(" AND office_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read))
}

/// Offices, newest id first.
pub async fn offices(store: &Store, slice: Slice) -> Result<Vec<OfficeRow>, StoreError> {
    let sql = offices!(" AND office_id < $2", " ORDER BY office_id DESC LIMIT $3 OFFSET $4");
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(read).collect())
}

/// Whether somebody who works here holds an office.
pub async fn is_held(store: &Store, id: i64) -> Result<bool, StoreError> {
    let sql =
        "SELECT e.employee_id FROM appointments_v1 a JOIN employees e ON e.employee_id = a.appointment_id
               WHERE a.bucket = $1 AND a.office_id = $2 AND e.active = 1 LIMIT 1";
    Ok(!store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?.is_empty())
}
