//! What no event may hold of accounts: names, passwords' hashes, sessions, and the tries to sign in.
//!
//! What goes with an account's events is written in their transaction ([`account_secrets`]): there is no session without its
//! `SignedIn`, and no password without its `PasswordSet`.

use crate::account::{AccountCommand, AccountEvent, AccountRole, NewPassword};
use crate::identity::{Caller, SessionToken};
use crate::read_model::accounts::role_of;
use crate::store::{BUCKET, Cell, Statement, Store, StoreError};

/// How long tries are remembered after the last one.
const REMEMBERED_MS: i64 = 24 * 3_600_000;

/// How long operators and auditors may do nothing before their session has ended.
const IDLE_MS: i64 = 30 * 60_000;

/// How exactly it is known when a session was last used.
const SEEN_EVERY_MS: i64 = 60_000;

/// Takes a name for an account, unless another has it: whose it is. What was taken for an account that then was not created
/// is that account's still.
pub async fn claim_name(store: &Store, name: &str, account_id: i64) -> Result<i64, StoreError> {
    let claim = Statement::new(
        "INSERT INTO credentials (name, account_id, password) VALUES ($1, $2, '')
         ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING account_id",
        [name.into(), account_id.into()],
    );
    let answers = store.write(vec![claim]).await?;
    Ok(answers.first().and_then(|rows| rows.first()).map_or(0, |row| row.int(0)))
}

/// The account that a name was taken for.
pub async fn account_named(store: &Store, name: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT account_id FROM credentials WHERE name = $1";
    let rows = store.query(Statement::new(sql, [name.into()])).await?;
    Ok(rows.first().map(|row| row.int(0)))
}

/// The name of an account.
pub async fn name_of(store: &Store, account_id: i64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT name FROM credentials WHERE account_id = $1 ORDER BY name";
    let rows = store.query(Statement::new(sql, [account_id.into()])).await?;
    Ok(rows.into_iter().next().map(|mut row| row.take_text(0)))
}

/// What is known of an account when somebody wants to sign in.
#[derive(Clone)]
pub struct SignInRow {
    /// Its id.
    pub account_id: i64,
    /// Whose it is.
    pub role: AccountRole,
    /// Whether it may be used.
    pub active: bool,
    /// How many passwords it has had.
    pub passwords: u32,
    /// The number of its second factor's secret, 0 = none is asked.
    pub totp: u32,
    /// The hash of its password; empty = none holds.
    pub password: String,
}

/// The account of this name. One instant: what it holds belongs together.
pub async fn sign_in_row(store: &Store, name: &str) -> Result<Option<SignInRow>, StoreError> {
    let sql = "SELECT a.account_id, a.role, a.employee_id, a.active, a.passwords, a.totp, c.password
               FROM credentials c JOIN accounts_v1 a ON a.bucket = $2 AND a.account_id = c.account_id
               WHERE c.name = $1";
    let mut rows = store.query(Statement::new(sql, [name.into(), BUCKET.into()])).await?;
    let Some(row) = rows.first_mut() else { return Ok(None) };
    Ok(Some(SignInRow {
        account_id: row.int(0),
        role: role_of(row.text(1), row.int(2))?,
        active: row.int(3) == 1,
        passwords: u32::try_from(row.int(4)).unwrap_or(u32::MAX),
        totp: u32::try_from(row.int(5)).unwrap_or(u32::MAX),
        password: row.take_text(6),
    }))
}

/// The account that a provider's subject is linked to, and the link's number.
pub async fn account_of_subject(store: &Store, key: &str) -> Result<Option<(i64, u32)>, StoreError> {
    let sql = "SELECT account_id, number FROM subjects WHERE subject_mac = $1";
    let rows = store.query(Statement::new(sql, [key.into()])).await?;
    Ok(rows.first().map(|row| (row.int(0), u32::try_from(row.int(1)).unwrap_or_default())))
}

/// A try that was let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// How many there were since the last one that was right, this one included.
    pub tries: i64,
    /// Until when no other is let through, Unix milliseconds; unless this one is right.
    pub locked_until_ms: i64,
}

/// Counts a try before it is looked at, in one statement: of many at once as many are let through as one after the other.
/// None = it is locked. From the fifth on each locks: for a minute, then for twice as long, at most for an hour.
pub async fn count_try(store: &Store, key: &str, now_ms: i64) -> Result<Option<Tries>, StoreError> {
    let count = Statement::new(
        "INSERT INTO sign_in_tries (name_mac, tries, locked_until_ms, tried_at_ms) VALUES ($1, 1, 0, $2)
         ON CONFLICT (name_mac) DO UPDATE SET
           tries = CASE WHEN sign_in_tries.tried_at_ms < $2 - $3 THEN 1 ELSE sign_in_tries.tries + 1 END,
           locked_until_ms = CASE
             WHEN sign_in_tries.tried_at_ms < $2 - $3 OR sign_in_tries.tries < 4 THEN 0
             WHEN sign_in_tries.tries = 4 THEN $2 + 60000
             WHEN sign_in_tries.tries = 5 THEN $2 + 120000
             WHEN sign_in_tries.tries = 6 THEN $2 + 240000
             WHEN sign_in_tries.tries = 7 THEN $2 + 480000
             WHEN sign_in_tries.tries = 8 THEN $2 + 960000
             WHEN sign_in_tries.tries = 9 THEN $2 + 1920000
             ELSE $2 + 3600000 END,
           tried_at_ms = $2
         WHERE sign_in_tries.locked_until_ms <= $2
         RETURNING tries, locked_until_ms",
        [key.into(), now_ms.into(), REMEMBERED_MS.into()],
    );
    let answers = store.write(vec![count]).await?;
    let row = answers.first().and_then(|rows| rows.first());
    Ok(row.map(|row| Tries { tries: row.int(0), locked_until_ms: row.int(1) }))
}

/// Until when a name is locked, Unix milliseconds; 0 = it is not.
pub async fn locked_until(store: &Store, key: &str) -> Result<i64, StoreError> {
    let sql = "SELECT locked_until_ms FROM sign_in_tries WHERE name_mac = $1";
    let rows = store.query(Statement::new(sql, [key.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// A session that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: String,
    /// Whose account it is.
    pub account_id: i64,
    /// As whom he acts.
    pub caller: Caller,
    /// When it was last used, to the minute, Unix milliseconds.
    pub seen_at_ms: i64,
}

/// The session of a token, if it holds: it is there, neither over nor idle for too long, and its account may be used.
pub async fn session(
    store: &Store,
    token: &SessionToken,
    now_ms: i64,
) -> Result<Option<Session>, StoreError> {
    let sql = "SELECT s.account_id, s.secret_hash, s.seen_at_ms, s.ends_at_ms, a.role, a.employee_id
               FROM sessions s JOIN accounts_v1 a ON a.bucket = $2 AND a.account_id = s.account_id
               WHERE s.session_id = $1 AND a.active = 1";
    let rows = store.query(Statement::new(sql, [token.id.as_str().into(), BUCKET.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    // What is compared are hashes: how long it takes tells nothing of the secret.
    if row.text(1) != token.secret_hash() || now_ms >= row.int(3) {
        return Ok(None);
    }
    let role = role_of(row.text(4), row.int(5))?;
    let seen_at_ms = row.int(2);
    let is_idle = now_ms >= seen_at_ms.saturating_add(IDLE_MS);
    if is_idle && !matches!(role, AccountRole::Employee(_)) {
        return Ok(None);
    }
    let account_id = row.int(0);
    Ok(Some(Session {
        id: token.id.clone(),
        account_id,
        caller: Caller::of_account(role, account_id),
        seen_at_ms,
    }))
}

/// Remembers that a session is used; once a minute is enough.
pub async fn touch_session(store: &Store, session: &Session, now_ms: i64) -> Result<(), StoreError> {
    if now_ms < session.seen_at_ms.saturating_add(SEEN_EVERY_MS) {
        return Ok(());
    }
    let touch = "UPDATE sessions SET seen_at_ms = $2 WHERE session_id = $1 AND seen_at_ms < $2";
    store.write(vec![Statement::new(touch, [session.id.as_str().into(), now_ms.into()])]).await.map(drop)
}

/// Ends a session.
pub async fn end_session(store: &Store, session_id: &str) -> Result<(), StoreError> {
    let end = "DELETE FROM sessions WHERE session_id = $1";
    store.write(vec![Statement::new(end, [session_id.into()])]).await.map(drop)
}

/// Forgets sessions that have ended and tries that count no longer.
pub async fn clear_ended_sessions(store: &Store, now_ms: i64) -> Result<(), StoreError> {
    let cleared = store
        .write(vec![
            Statement::new("DELETE FROM sessions WHERE ends_at_ms <= $1", [now_ms.into()]),
            Statement::new(
                "DELETE FROM sign_in_tries WHERE tried_at_ms < $1",
                [(now_ms - REMEMBERED_MS).into()],
            ),
        ])
        .await;
    cleared.map(drop)
}

/// What a command on an account writes beside its events.
#[must_use]
pub fn account_secrets(
    account_id: i64,
    command: &AccountCommand,
    events: &[AccountEvent],
    now_ms: i64,
) -> Vec<Statement> {
    match command {
        AccountCommand::Create { password: Some(password), .. }
        | AccountCommand::UseCode { password, .. }
        | AccountCommand::ChangePassword { password, .. } => set_password(account_id, password),
        AccountCommand::GiveCode { .. } => vec![
            Statement::new("UPDATE credentials SET password = '' WHERE account_id = $1", [account_id.into()]),
            end_sessions(account_id),
        ],
        AccountCommand::SignIn { session, .. } | AccountCommand::SignInBySubject { session, .. } => vec![
            Statement::new(
                "INSERT INTO sessions (session_id, account_id, secret_hash, seen_at_ms, ends_at_ms)
                 VALUES ($1, $2, $3, $4, $5)",
                [
                    session.id.as_str().into(),
                    account_id.into(),
                    session.secret_hash.as_str().into(),
                    now_ms.into(),
                    session.ends_at_ms.into(),
                ],
            ),
            forget_tries(&session.tries_key),
        ],
        AccountCommand::LinkSubject { key } => {
            let number = events.iter().find_map(|event| match event {
                AccountEvent::SubjectLinked { number, .. } => Some(i64::from(*number)),
                _ => None,
            });
            let parameters: [Cell; 3] =
                [key.as_str().into(), account_id.into(), number.unwrap_or_default().into()];
            let link = "INSERT INTO subjects (subject_mac, account_id, number) VALUES ($1, $2, $3)
                        ON CONFLICT (subject_mac) DO NOTHING";
            vec![unlink_subject(account_id), Statement::new(link, parameters)]
        }
        AccountCommand::UnlinkSubject => vec![unlink_subject(account_id), end_sessions(account_id)],
        AccountCommand::DisableTotp { tries_key, .. } => vec![forget_tries(tries_key)],
        AccountCommand::SignOutEverywhere | AccountCommand::SetActive(false) => {
            vec![end_sessions(account_id)]
        }
        AccountCommand::Create { password: None, .. }
        | AccountCommand::Lock { .. }
        | AccountCommand::EnableTotp { .. }
        | AccountCommand::SetActive(true) => Vec::new(),
    }
}

fn set_password(account_id: i64, password: &NewPassword) -> Vec<Statement> {
    let name = password.name.as_str();
    let parameters: [Cell; 3] = [name.into(), account_id.into(), password.hash.0.as_str().into()];
    vec![
        Statement::new(
            "UPDATE credentials SET password = $3 WHERE name = $1 AND account_id = $2",
            parameters,
        ),
        // A try to choose a name that came no further may have taken another.
        Statement::new(
            "DELETE FROM credentials WHERE account_id = $1 AND name <> $2",
            [account_id.into(), name.into()],
        ),
        end_sessions(account_id),
        forget_tries(&password.tries_key),
    ]
}

fn unlink_subject(account_id: i64) -> Statement {
    Statement::new("DELETE FROM subjects WHERE account_id = $1", [account_id.into()])
}

fn end_sessions(account_id: i64) -> Statement {
    Statement::new("DELETE FROM sessions WHERE account_id = $1", [account_id.into()])
}

fn forget_tries(key: &str) -> Statement {
    Statement::new("DELETE FROM sign_in_tries WHERE name_mac = $1", [key.into()])
}
