//! Machines' keys: which rows their states have, and the SELECTs that read them.

use super::MACHINES;
use super::offices::read_rights;
use crate::machine::Machine;
use crate::store::{BUCKET, LiveRow, Row, Statement, Store, StoreError};
use crate::value::list_text;

/// The one live row of a machine's key.
#[must_use]
pub fn machine_rows(id: i64, machine: &Machine) -> Vec<LiveRow> {
    let Some(name) = &machine.name else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        name.as_str().into(),
        list_text(&machine.rights).into(),
        machine.expires_at_ms.into(),
        machine.employee_id.into(),
        machine.issued_at_ms.into(),
        machine.revoked_at_ms.into(),
    ];
    vec![LiveRow { table: &MACHINES, cells }]
}

/// A machine's key, with what stands beside the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineRow {
    /// Its id.
    pub id: i64,
    /// What the machine is called.
    pub name: String,
    /// Its rights by their numbers, in order.
    pub rights: Vec<i64>,
    /// From when on it is worthless, Unix milliseconds; 0 = it does not end by itself.
    pub expires_at_ms: i64,
    /// When it was issued, Unix milliseconds.
    pub issued_at_ms: i64,
    /// When it was revoked, Unix milliseconds; 0 = it was not.
    pub revoked_at_ms: i64,
    /// What its secret hashes to; empty where nobody knows: the log was taken over from another ledger.
    pub secret_hash: String,
    /// When it was last used, to the minute, Unix milliseconds; 0 = never.
    pub last_used_at_ms: i64,
}

impl MachineRow {
    /// Whether it opens anything now.
    #[must_use]
    pub fn holds(&self, now_ms: i64) -> bool {
        let ended = self.expires_at_ms != 0 && now_ms >= self.expires_at_ms;
        self.revoked_at_ms == 0 && !ended && !self.secret_hash.is_empty()
    }
}

macro_rules! machines {
    ($more:literal) => {
        concat!(
            "SELECT m.machine_key_id, m.name, m.rights, m.expires_at_ms, m.issued_at_ms, m.revoked_at_ms,
                    COALESCE(k.secret_hash, ''), COALESCE(k.last_used_at_ms, 0)
             FROM machines_v1 m LEFT JOIN machine_keys k ON k.machine_id = m.machine_key_id WHERE m.bucket = $1",
            $more
        )
    };
}

fn read(row: &Row) -> MachineRow {
    MachineRow {
        id: row.int(0),
        name: row.text(1).to_owned(),
        rights: read_rights(row.text(2)),
        expires_at_ms: row.int(3),
        issued_at_ms: row.int(4),
        revoked_at_ms: row.int(5),
        secret_hash: row.text(6).to_owned(),
        last_used_at_ms: row.int(7),
    }
}

/// A machine's key by its id.
pub async fn machine(store: &Store, id: i64) -> Result<Option<MachineRow>, StoreError> {
    let sql = machines!(" AND m.machine_key_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read))
}

/// Every machine's key, newest id first. They are few.
pub async fn machines(store: &Store) -> Result<Vec<MachineRow>, StoreError> {
    let sql = machines!(" ORDER BY m.machine_key_id DESC");
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    Ok(rows.iter().map(read).collect())
}
