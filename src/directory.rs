//! The directory: members and their levels and tags, employees, revoked tokens, and what else must be erasable. Never
//! part of the log.
//!
//! Hides how a write happens once under its idempotency key: the receipt is left in the transaction of the change, before
//! it, so that a used key is met before anything that it has changed already. And that members' texts are sealed and
//! searched all the same ([`seal`]). It must never hold what makes a coupon
//! valid: a member without personal data stays a member.

mod accounts;
mod employees;
mod erase;
mod keys;
mod labels;
mod levels_reached;
mod machine_keys;
mod member_list;
mod members;
mod nonces;
pub mod seal;
mod wechat;

pub use accounts::{
    Session, SignInRow, Tries, account_named, account_of_subject, account_secrets, claim_name,
    clear_ended_sessions, count_try, end_session, locked_until, name_of, session, sign_in_row, touch_session,
};
pub use employees::{Employee, EmployeeEdit, NEVER, Place, add_employee, edit_employee, employee, employees};
pub use erase::{
    EarlierErasure, Piece, clear_member, earlier_erasures, not_cleared, seal_members, seal_reviews,
};
pub use keys::{DirectoryKey, Written, is_used_for_another, receipt, write as write_once};
pub use labels::{
    Level, LevelEdit, Tag, TagEdit, add_level, add_tag, delete_level, delete_tag, edit_level, edit_tag,
    level, levels, levels_by_id, tags, tags_by_id,
};
pub use levels_reached::{has_reached, level_reached_statement};
pub use machine_keys::{add_machine_key, note_machine_used};
pub use member_list::{Search, member, members, members_behind};
pub use members::{
    Edited, Member, MemberEdit, add_member, add_members, claim_member_ids, edit_member, known_members,
    membership, memberships,
};
pub use nonces::{forget_nonces, use_nonce};
pub use seal::{Seal, SealError};
pub use wechat::{
    Binding, bind_wechat, drop_binding, has_wechat, openids, unbind_wechat, use_up_state, wechat_binding,
};

use crate::store::{Cell, Statement, Store, StoreError};
use crate::value::MAX_ID;

/// Where ids go on behind one that was given by hand. Near the end of the range there is no room: the next ones are taken
/// from where they were.
#[must_use]
pub fn next_behind(id: i64) -> i64 {
    if id < MAX_ID / 2 { id + 1 } else { 1 }
}

/// The change of one column, where it is asked for.
fn set<T: Into<Cell>>(sql: &'static str, id: i64, value: Option<T>) -> Option<Statement> {
    value.map(|value| Statement::new(sql, [id.into(), value.into()]))
}

/// Cuts a token short. Every process knows within a minute.
pub async fn revoke_token(
    store: &Store,
    token_id: &str,
    expires_at_s: i64,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let sql = "INSERT INTO revoked_tokens (token_id, expires_at_s) VALUES ($1, $2) ON CONFLICT (token_id) DO NOTHING";
    let revoke = Statement::new(sql, [token_id.into(), expires_at_s.into()]);
    keys::write(store, 0, key, vec![revoke]).await
}

/// The tokens that were cut short and would otherwise still hold.
pub async fn revoked_tokens(store: &Store, now_s: i64) -> Result<Vec<String>, StoreError> {
    let sql = "SELECT token_id FROM revoked_tokens WHERE expires_at_s > $1";
    let rows = store.query(Statement::new(sql, [now_s.into()])).await?;
    Ok(rows.iter().map(|row| row.text(0).to_owned()).collect())
}
