//! The directory: members, employees, revoked tokens, and what else must be erasable. Never part of the log.

use crate::facts::Membership;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};
use crate::value::MAX_ID;

/// A member as the directory has him.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// His id.
    pub id: i64,
    /// The name he shows.
    pub nickname: String,
    /// His picture.
    pub headimgurl: String,
    /// His real name.
    pub member_name: String,
    /// His telephone number.
    pub phone: String,
    /// The number of his card.
    pub member_card: String,
    /// His level, 0 = none.
    pub level_id: i64,
    /// His shop, 0 = none.
    pub shop_id: i64,
    /// His tags, in order.
    pub tag_ids: Vec<i64>,
    /// 19900229, 0 = unknown.
    pub birthday: i64,
    /// The last day of his card, 20261231; 0 = none.
    pub card_end: i64,
    /// When he was added, Unix milliseconds.
    pub joined_at_ms: i64,
}

/// An employee as the directory has him.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
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
}

/// A write to the directory that bears an idempotency key.
#[derive(Clone, Debug)]
pub struct DirectoryKey {
    /// Who called.
    pub caller: String,
    /// Which operation.
    pub operation: &'static str,
    /// The key he chose.
    pub key: String,
    /// The fingerprint of the request.
    pub request_mac: String,
}

const MEMBERSHIP: &str = "SELECT level_id, card_end FROM members WHERE member_id = $1";

fn read_membership(rows: &[Row]) -> Option<Membership> {
    rows.first().map(|row| Membership {
        level_id: row.int(0),
        card_end: crate::clock::parse_day(&crate::clock::day_text(row.int(1))),
    })
}

/// What issuing needs to know of a member.
pub async fn membership(store: &Store, member_id: i64) -> Result<Option<Membership>, StoreError> {
    let rows = store.query(Statement::new(MEMBERSHIP, [member_id.into()])).await?;
    Ok(read_membership(&rows))
}

/// The same of many members in one read.
pub async fn memberships(store: &Store, ids: &[i64]) -> Result<Vec<Option<Membership>>, StoreError> {
    let parameters = ids.iter().map(|id| vec![Cell::from(*id)]).collect();
    let found = store.query_each(MEMBERSHIP, parameters).await?;
    Ok(found.iter().map(|rows| read_membership(rows)).collect())
}

/// A member.
pub async fn member(store: &Store, id: i64) -> Result<Option<Member>, StoreError> {
    let sql =
        "SELECT member_id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id, birthday,
                      card_end, joined_at_ms FROM members WHERE member_id = $1";
    let rows = store.query(Statement::new(sql, [id.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let tags = "SELECT tag_id FROM member_tags WHERE member_id = $1 ORDER BY tag_id";
    let tags = store.query(Statement::new(tags, [id.into()])).await?;
    Ok(Some(Member {
        id: row.int(0),
        nickname: row.text(1).to_owned(),
        headimgurl: row.text(2).to_owned(),
        member_name: row.text(3).to_owned(),
        phone: row.text(4).to_owned(),
        member_card: row.text(5).to_owned(),
        level_id: row.int(6),
        shop_id: row.int(7),
        tag_ids: tags.iter().map(|tag| tag.int(0)).collect(),
        birthday: row.int(8),
        card_end: row.int(9),
        joined_at_ms: row.int(10),
    }))
}

/// What became of an addition to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is there.
    Yes,
    /// The id is taken.
    Taken,
    /// The idempotency key was used meanwhile.
    KeyUsed,
}

/// Adds a member.
pub async fn add_member(
    store: &Store,
    member: &Member,
    key: Option<&DirectoryKey>,
) -> Result<Added, StoreError> {
    let add = Statement::new(
        "INSERT INTO members (member_id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id,
                              birthday, card_end, joined_at_ms)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
         ON CONFLICT (member_id) DO NOTHING RETURNING member_id",
        [
            member.id.into(),
            member.nickname.as_str().into(),
            member.headimgurl.as_str().into(),
            member.member_name.as_str().into(),
            member.phone.as_str().into(),
            member.member_card.as_str().into(),
            member.level_id.into(),
            member.shop_id.into(),
            member.birthday.into(),
            member.card_end.into(),
            member.joined_at_ms.into(),
        ],
    );
    let tag = |tag_id: &i64| {
        let sql = "INSERT INTO member_tags (member_id, tag_id) VALUES ($1, $2) ON CONFLICT (member_id, tag_id) DO NOTHING";
        Statement::new(sql, [member.id.into(), (*tag_id).into()])
    };
    let mut more: Vec<Statement> = member.tag_ids.iter().map(tag).collect();
    if member.level_id != 0 {
        more.push(level_reached_statement(member.id, member.level_id, member.joined_at_ms));
    }
    add_with_receipt(store, add, more, "member", member.id, key).await
}

/// The mark that a member has reached a level, for the transaction that gives it to him. The first time is what counts: what
/// reaching it grants is given once, for ever.
#[must_use]
pub fn level_reached_statement(member_id: i64, level_id: i64, now_ms: i64) -> Statement {
    Statement::new(
        "INSERT INTO level_reached (member_id, level_id, reached_at_ms, state) VALUES ($1, $2, $3, 0)
         ON CONFLICT (member_id, level_id) DO NOTHING",
        [member_id, level_id, now_ms].map(Cell::from),
    )
}

/// Whether a member has ever reached a level.
pub async fn has_reached(store: &Store, member_id: i64, level_id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT state FROM level_reached WHERE member_id = $1 AND level_id = $2";
    let rows = store.query(Statement::new(sql, [member_id.into(), level_id.into()])).await?;
    Ok(!rows.is_empty())
}

/// An employee.
pub async fn employee(store: &Store, id: i64) -> Result<Option<Employee>, StoreError> {
    let sql = "SELECT employee_id, name, phone, shop_id, active FROM employees WHERE employee_id = $1";
    let rows = store.query(Statement::new(sql, [id.into()])).await?;
    Ok(rows.first().map(|row| Employee {
        id: row.int(0),
        name: row.text(1).to_owned(),
        phone: row.text(2).to_owned(),
        shop_id: row.int(3),
        active: row.int(4) == 1,
    }))
}

/// Adds an employee.
pub async fn add_employee(
    store: &Store,
    employee: &Employee,
    key: Option<&DirectoryKey>,
) -> Result<Added, StoreError> {
    let add = Statement::new(
        "INSERT INTO employees (employee_id, name, phone, shop_id, active) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (employee_id) DO NOTHING RETURNING employee_id",
        [
            employee.id.into(),
            employee.name.as_str().into(),
            employee.phone.as_str().into(),
            employee.shop_id.into(),
            employee.active.into(),
        ],
    );
    add_with_receipt(store, add, Vec::new(), "employee", employee.id, key).await
}

/// Runs an insert, what belongs to it, and its receipt in one transaction; ids given by hand also move where the next ones are taken from.
async fn add_with_receipt(
    store: &Store,
    add: Statement,
    more: Vec<Statement>,
    kind: &'static str,
    id: i64,
    key: Option<&DirectoryKey>,
) -> Result<Added, StoreError> {
    // Behind an id near the end of the range there is no room: the next ones are taken from where they were.
    let next_id = if id < MAX_ID / 2 { id + 1 } else { 1 };
    let mut statements = vec![
        add.must_return(),
        Statement::new(
            "INSERT INTO id_blocks (bucket, kind, next_id) VALUES ($1, $2, $3)
             ON CONFLICT (bucket, kind) DO UPDATE SET next_id =
               CASE WHEN id_blocks.next_id < excluded.next_id THEN excluded.next_id ELSE id_blocks.next_id END",
            [BUCKET.into(), kind.into(), next_id.into()],
        ),
    ];
    statements.extend(more);
    statements.extend(key.map(|key| leave_receipt(key, id)));
    let whole = statements.len();
    let answers = store.write(statements).await?;
    Ok(match answers.last() {
        Some(rows) if answers.len() == whole && !(key.is_some() && rows.is_empty()) => Added::Yes,
        _ if answers.len() == 1 => Added::Taken,
        _ => Added::KeyUsed,
    })
}

/// Uses a key up, or rolls back what came with it.
fn leave_receipt(key: &DirectoryKey, subject_id: i64) -> Statement {
    Statement::new(
        "INSERT INTO directory_receipts (caller, operation, key, request_mac, subject_id)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (caller, operation, key) DO NOTHING RETURNING subject_id",
        [
            key.caller.as_str().into(),
            key.operation.into(),
            key.key.as_str().into(),
            key.request_mac.as_str().into(),
            subject_id.into(),
        ],
    )
    .must_return()
}

/// What a key did to the directory: the request's fingerprint and the id it made.
pub async fn receipt(store: &Store, key: &DirectoryKey) -> Result<Option<(String, i64)>, StoreError> {
    let sql = "SELECT request_mac, subject_id FROM directory_receipts
               WHERE caller = $1 AND operation = $2 AND key = $3";
    let parameters: [Cell; 3] = [key.caller.as_str().into(), key.operation.into(), key.key.as_str().into()];
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.first().map(|row: &Row| (row.text(0).to_owned(), row.int(1))))
}

/// Cuts a token short. Every process knows within a minute.
pub async fn revoke_token(
    store: &Store,
    token_id: &str,
    expires_at_s: i64,
    key: Option<&DirectoryKey>,
) -> Result<(), StoreError> {
    let sql = "INSERT INTO revoked_tokens (token_id, expires_at_s) VALUES ($1, $2) ON CONFLICT (token_id) DO NOTHING";
    let mut statements = vec![Statement::new(sql, [token_id.into(), expires_at_s.into()])];
    statements.extend(key.map(|key| leave_receipt(key, 0)));
    store.write(statements).await?;
    Ok(())
}

/// The tokens that were cut short and would otherwise still hold.
pub async fn revoked_tokens(store: &Store, now_s: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT token_id FROM revoked_tokens WHERE expires_at_s > $1";
    let rows = store.query(Statement::new(sql, [now_s.into()])).await?;
    Ok(rows.iter().map(|row| row.text(0).to_owned()).collect())
}
