//! Which WeChat is which member: an openid is found by its keyed hash and kept sealed, so that the database tells nobody who
//! its members are to WeChat. Must never make two members of one openid, nor one openid two members.

use super::keys::{Written, write};
use super::members::{Member, addition};
use super::seal::{self, Seal};
use crate::store::{Row, Statement, Store, StoreError};

/// Whom an openid is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The member.
    pub member_id: i64,
    /// How often he had been unbound when it was made: where he has been since, it is void.
    pub unbound_before: i64,
}

/// Whom an openid is bound to, by its hash.
pub async fn wechat_binding(store: &Store, openid_hash: &str) -> Result<Option<Binding>, StoreError> {
    let sql = "SELECT member_id, unbound_before FROM wechat_bindings WHERE openid_hash = $1";
    let rows = store.query(Statement::new(sql, [openid_hash.into()])).await?;
    Ok(rows.first().map(|row| Binding { member_id: row.int(0), unbound_before: row.int(1) }))
}

/// Binds an openid to a member who is here, or to one who is added with it, all in one transaction. Unmet where the openid is
/// bound already, the member has another one of this app, he is not here, or the id of the new one is taken.
pub async fn bind_wechat(
    store: &Store,
    seal: &Seal,
    (appid, openid, openid_hash): (&str, &str, &str),
    binding: Binding,
    new: Option<&Member>,
) -> Result<Written, StoreError> {
    let Binding { member_id, unbound_before } = binding;
    let person = seal.person(member_id);
    // Nothing of whom was erased may be written again, and his id is given to nobody else.
    if person.is_erased() {
        return Ok(Written::Unmet);
    }
    let bind = Statement::new(
        "INSERT INTO wechat_bindings (openid_hash, member_id, appid, openid, unbound_before)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING member_id",
        [
            openid_hash.into(),
            member_id.into(),
            appid.into(),
            person.seal(seal::OPENID, openid).into(),
            unbound_before.into(),
        ],
    );
    let mut statements = if let Some(member) = new {
        addition(member, seal)
    } else {
        // Locked, so that he is not erased in between.
        let sql = "UPDATE members SET level_id = level_id WHERE member_id = $1 AND erased_at_ms = 0 RETURNING member_id";
        vec![Statement::new(sql, [member_id.into()]).must_return()]
    };
    statements.push(bind.must_return());
    write(store, member_id, None, statements).await
}

/// Removes a binding that is void, unless it is another one by now.
pub async fn drop_binding(store: &Store, openid_hash: &str, void: Binding) -> Result<(), StoreError> {
    let sql = "DELETE FROM wechat_bindings WHERE openid_hash = $1 AND member_id = $2 AND unbound_before = $3";
    let parameters = [openid_hash.into(), void.member_id.into(), void.unbound_before.into()];
    store.write(vec![Statement::new(sql, parameters)]).await.map(drop)
}

/// Takes away every binding of a member.
pub(super) fn unbinding(member_id: i64) -> Statement {
    Statement::new("DELETE FROM wechat_bindings WHERE member_id = $1", [member_id.into()])
}

/// Removes what was bound to a member before he was unbound for the `unbound`th time. What he binds meanwhile stays.
pub async fn unbind_wechat(store: &Store, member_id: i64, unbound: i64) -> Result<(), StoreError> {
    let sql = "DELETE FROM wechat_bindings WHERE member_id = $1 AND unbound_before < $2";
    store.write(vec![Statement::new(sql, [member_id.into(), unbound.into()])]).await.map(drop)
}

/// Whether an openid is bound to a member, void or not.
pub async fn has_wechat(store: &Store, member_id: i64) -> Result<bool, StoreError> {
    let sql = "SELECT member_id FROM wechat_bindings WHERE member_id = $1 LIMIT 1";
    Ok(!store.query(Statement::new(sql, [member_id.into()])).await?.is_empty())
}

/// The apps that a member is bound to, each with his openid there and how often he had been unbound before, by app.
pub async fn openids(
    store: &Store,
    seal: &Seal,
    member_id: i64,
) -> Result<Vec<(String, String, i64)>, StoreError> {
    let sql = "SELECT appid, openid, unbound_before FROM wechat_bindings WHERE member_id = $1 ORDER BY appid";
    let rows = store.query(Statement::new(sql, [member_id.into()])).await?;
    let open = |row: &Row| {
        let openid = seal.open_one(seal::OPENID, member_id, row.text(1))?;
        Ok((row.text(0).to_owned(), openid, row.int(2)))
    };
    rows.iter().map(open).collect()
}

/// Takes a state that came back from WeChat's page: false where it came before. Those that have ended are forgotten with it.
pub async fn use_up_state(
    store: &Store,
    state: &str,
    expires_at_ms: i64,
    now_ms: i64,
) -> Result<bool, StoreError> {
    let forget = "DELETE FROM wechat_states WHERE expires_at_ms <= $1";
    let take =
        "INSERT INTO wechat_states (state, expires_at_ms) VALUES ($1, $2) ON CONFLICT (state) DO NOTHING
                RETURNING state";
    let statements = vec![
        Statement::new(forget, [now_ms.into()]),
        Statement::new(take, [state.into(), expires_at_ms.into()]).must_return(),
    ];
    Ok(write(store, 0, None, statements).await? == Written::Done)
}
