//! Accounts: which row their state has, and the SELECTs that read them.

use super::pages::Slice;
use crate::account::{Account, AccountRole};
use crate::store::Column::{Int, Text};
use crate::store::{BUCKET, LiveRow, LiveTable, Row, Statement, Store, StoreError};

/// `projections/accounts.sql`
pub static ACCOUNTS: LiveTable = LiveTable {
    name: "accounts_v1",
    written_by: &["account"],
    columns: &[
        Int("account_id"),
        Text("role"),
        Int("employee_id"),
        Int("active"),
        Int("passwords"),
        Int("totp"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// The one live row of an account.
#[must_use]
pub fn account_rows(id: i64, account: &Account) -> Vec<LiveRow> {
    let Some(role) = account.role else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        role.name().into(),
        role.employee_id().into(),
        account.active.into(),
        i64::from(account.passwords).into(),
        i64::from(account.totp).into(),
    ];
    vec![LiveRow { table: &ACCOUNTS, cells }]
}

/// An account, with the name that the directory knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// Its id.
    pub id: i64,
    /// With what its owner signs in; empty where he has chosen none yet.
    pub name: String,
    /// Whose it is.
    pub role: AccountRole,
    /// Whether it may be used.
    pub active: bool,
    /// How many passwords it has had.
    pub passwords: u32,
    /// The number of its second factor's secret, 0 = none is asked.
    pub totp: u32,
}

macro_rules! accounts {
    ($($more:literal),*) => {
        concat!(
            "SELECT a.account_id, a.role, a.employee_id, a.active, a.passwords, a.totp,
                    COALESCE((SELECT MIN(c.name) FROM credentials c WHERE c.account_id = a.account_id), '')
             FROM accounts_v1 a WHERE a.bucket = $1 ",
            $($more),*
        )
    };
}

fn read(row: &Row) -> Result<AccountRow, StoreError> {
    Ok(AccountRow {
        id: row.int(0),
        role: role_of(row.text(1), row.int(2))?,
        active: row.int(3) == 1,
        passwords: u32::try_from(row.int(4)).unwrap_or(u32::MAX),
        totp: u32::try_from(row.int(5)).unwrap_or(u32::MAX),
        name: row.text(6).to_owned(),
    })
}

/// A role as `accounts_v1` has it.
pub(crate) fn role_of(name: &str, employee_id: i64) -> Result<AccountRole, StoreError> {
    AccountRole::named(name, employee_id).ok_or_else(|| StoreError::Corrupt {
        table: ACCOUNTS.name.to_owned(),
        column: "role".to_owned(),
        what: "no role that this program knows".to_owned(),
    })
}

/// One account.
pub async fn account(store: &Store, id: i64) -> Result<Option<AccountRow>, StoreError> {
    let sql = accounts!("AND a.account_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    rows.first().map(read).transpose()
}

/// The first account of an employee.
pub async fn account_of_employee(store: &Store, employee_id: i64) -> Result<Option<AccountRow>, StoreError> {
    let sql = accounts!("AND a.employee_id = $2 AND a.role = 'employee' ORDER BY a.account_id LIMIT 1");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), employee_id.into()])).await?;
    rows.first().map(read).transpose()
}

/// Every account, newest id first, cut as asked: they are few.
pub async fn accounts(store: &Store, slice: Slice) -> Result<Vec<AccountRow>, StoreError> {
    let sql = accounts!("ORDER BY a.account_id DESC");
    let rows = store.query(Statement::new(sql, [BUCKET.into()])).await?;
    let rows: Vec<AccountRow> = rows.iter().map(read).collect::<Result<_, _>>()?;
    Ok(slice.cut(rows.into_iter(), |row| row.id))
}

/// Whether any operator can sign in.
pub async fn has_operator(store: &Store) -> Result<bool, StoreError> {
    let sql = "SELECT account_id FROM accounts_v1
               WHERE bucket = $1 AND role = 'operator' AND active = 1 AND passwords > 0 LIMIT 1";
    Ok(!store.query(Statement::new(sql, [BUCKET.into()])).await?.is_empty())
}
