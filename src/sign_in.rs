//! Signing in: names and passwords, second factors, sessions, and how accounts come to be.
//!
//! Hides how passwords are hashed and how guessing is held back. Promises that a try is counted, durably, before it is looked
//! at; that a wrong name, a wrong password, a wrong code and a locked name are answered alike and after like work; and that
//! a few hashes at most are computed at a time. Must never put a password, a hash, a code or a secret into an event, a log or
//! an error.

mod totp;

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization as _;

use crate::account::{
    Account, AccountCommand, AccountEvent, AccountRole, Code, Hidden, NewPassword, NewSession,
};
use crate::directory::{self, Session, SignInRow, Tries};
use crate::identity::{Caller, SessionToken};
use crate::ledger::{ExecuteError, Executed, Ledger, Meta};
use crate::read_model::accounts::{self, AccountRow};
use crate::refusal::{Refusal, Wrong};
use crate::secrets::PasswordCode;
use crate::store::{ReceiptKey, StoreError};
use crate::value::{hex, random};

pub use totp::{TOTP_STEP_MS, totp_code, totp_url};

/// The fewest characters of a password.
pub const MIN_PASSWORD: usize = 10;

/// The most characters of a password: longer ones are not hashed.
pub const MAX_PASSWORD: usize = 256;

/// The most characters of a name.
pub const MAX_NAME: usize = 64;

/// How long a code to choose a password holds.
pub const CODE_HOLDS_MS: i64 = 30 * 60_000;

/// How long a session lasts at the most.
const SESSION_LASTS_MS: i64 = 12 * 3_600_000;

/// How many hashes are computed at a time, 19 MiB each: guessing cannot eat the memory.
const HASHES_AT_A_TIME: usize = 4;

/// How long a try waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is computed where there is no account or it has no password: no password has this hash.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$bm9ib2R5IGhhcyB0aGlz$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The operation under which the first operator comes to be, once.
const SETUP: &str = "setup";

/// Why somebody is not let in, or an account is not changed.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// A wrong name, password or code, or too many tries: nobody is told which.
    #[error("sign-in refused")]
    Refused {
        /// Seconds until another try is let through, where it is known that none is before.
        retry_after_s: Option<u32>,
    },
    /// Too many sign in at once.
    #[error("too many sign in at once")]
    Busy,
    /// A field cannot be accepted.
    #[error("a field is wrong")]
    Field(&'static str, Wrong),
    /// What the ledger says.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

impl From<StoreError> for SignInError {
    fn from(error: StoreError) -> Self {
        Self::Execute(error.into())
    }
}

impl From<Refusal> for SignInError {
    fn from(refusal: Refusal) -> Self {
        Self::Execute(refusal.into())
    }
}

/// A name as it is compared: NFKC, lower case, of ASCII letters, digits, `.`, `_` and `-`, beginning with a letter or a digit.
/// No other characters are names, so that none looks like another.
#[must_use]
pub fn read_name(text: &str) -> Option<String> {
    if text.chars().count() > MAX_NAME {
        return None;
    }
    let name: String = text.trim().nfkc().collect::<String>().to_lowercase();
    let first = name.chars().next()?;
    let is_one = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    (first.is_ascii_alphanumeric() && name.chars().all(is_one) && name.len() <= MAX_NAME).then_some(name)
}

/// What is wrong with a new password, if anything is.
pub fn check_new_password(password: &str) -> Result<(), Wrong> {
    match password.chars().count() {
        0..MIN_PASSWORD => Err(Wrong::TooShort { min: MIN_PASSWORD }),
        MIN_PASSWORD..=MAX_PASSWORD => Ok(()),
        _ => Err(Wrong::TooLong { max: MAX_PASSWORD }),
    }
}

/// With what somebody wants to sign in.
#[derive(Clone, Copy)]
pub struct Shown<'a> {
    /// His name, as he wrote it.
    pub name: &'a str,
    /// His password.
    pub password: &'a str,
    /// The code of his second factor.
    pub totp: Option<&'a str>,
}

/// Somebody who has shown that he knows his password, and his second factor where one is asked.
struct Known {
    row: SignInRow,
    name: String,
    tries_key: String,
    tries: Tries,
    totp_step: i64,
}

/// A session that has begun.
pub struct SignedIn {
    /// Its token.
    pub token: SessionToken,
    /// Whose account it is.
    pub account_id: i64,
    /// What he is.
    pub role: AccountRole,
    /// With which name he signed in, as it is compared.
    pub name: String,
    /// When it ends at the latest, Unix milliseconds.
    pub ends_at_ms: i64,
}

/// An account that a code was given out for.
pub struct Invited {
    /// Its id.
    pub account_id: i64,
    /// The code by which its owner chooses his password.
    pub code: String,
    /// Until when it holds, Unix milliseconds.
    pub lapses_at_ms: i64,
    /// Whether the key had been used, and this is what it did then.
    pub replayed: bool,
}

/// Lets people in.
pub struct SignIn {
    ledger: Ledger,
    hashing: Arc<Semaphore>,
}

impl SignIn {
    /// Who lets into this ledger.
    #[must_use]
    pub fn new(ledger: Ledger) -> Self {
        Self { ledger, hashing: Arc::new(Semaphore::new(HASHES_AT_A_TIME)) }
    }

    /// Signs somebody in.
    pub async fn sign_in(&self, shown: Shown<'_>, request_id: String) -> Result<SignedIn, SignInError> {
        let known = self.check(shown, &request_id).await?;
        let (account_id, role) = (known.row.account_id, known.row.role);
        let (passwords, totp_step) = (known.row.passwords, known.totp_step);
        let begun = self
            .begin_session(account_id, (role, known.name), request_id, known.tries_key, |session| {
                AccountCommand::SignIn { passwords, totp_step, session }
            })
            .await?;
        begun.ok_or_else(|| self.refused(known.tries))
    }

    /// Begins a session; None = who has left does not, nor whoever the account refuses.
    async fn begin_session(
        &self,
        account_id: i64,
        (role, name): (AccountRole, String),
        request_id: String,
        tries_key: String,
        command: impl FnOnce(NewSession) -> AccountCommand,
    ) -> Result<Option<SignedIn>, SignInError> {
        if let AccountRole::Employee(id) = role
            && directory::employee(self.ledger.store(), id).await?.is_some_and(|employee| !employee.active)
        {
            return Ok(None);
        }
        let token = SessionToken::random();
        let at = self.ledger.now();
        let ends_at_ms = at.ms.saturating_add(SESSION_LASTS_MS);
        let (id, secret_hash) = (token.id.clone(), token.secret_hash());
        let command = command(NewSession { id, secret_hash, ends_at_ms, tries_key });
        let caller = Caller::of_account(role, account_id);
        let meta = Meta { caller, at, request_id, receipt: None, job_id: None };
        match self.ledger.execute::<Account>(account_id, &command, &meta).await {
            Ok(_) => Ok(Some(SignedIn { token, account_id, role, name, ends_at_ms })),
            Err(ExecuteError::Refused(Refusal::SignInRefused)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs in whom a provider has named, if he is linked to an account.
    pub async fn sign_in_subject(
        &self,
        issuer: &str,
        subject: &str,
        request_id: String,
    ) -> Result<SignedIn, SignInError> {
        let refused = || SignInError::Refused { retry_after_s: None };
        let store = self.ledger.store();
        let key = self.ledger.secrets().subject(issuer, subject);
        let (account_id, number) = directory::account_of_subject(store, &key).await?.ok_or_else(refused)?;
        let account = accounts::account(store, account_id).await?.ok_or_else(refused)?;
        self.begin_session(account_id, (account.role, account.name), request_id, String::new(), |session| {
            AccountCommand::SignInBySubject { number, session }
        })
        .await?
        .ok_or_else(refused)
    }

    /// Lets in whom a provider names so; None = nobody whom it names.
    pub async fn link_subject(
        &self,
        account_id: i64,
        named: Option<(&str, &str)>,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        let Some((issuer, subject)) = named else {
            return self.execute(account_id, &AccountCommand::UnlinkSubject, meta).await;
        };
        // A key that was used is told what it did, whoever has the subject now.
        if let Some(replayed) = self.ledger.replay::<Account>(meta).await? {
            return Ok(replayed);
        }
        let key = self.ledger.secrets().subject(issuer, subject);
        let linked = directory::account_of_subject(self.ledger.store(), &key).await?;
        if linked.is_some_and(|(other, _)| other != account_id) {
            return Err(SignInError::Field("subject", Wrong::Taken));
        }
        self.execute(account_id, &AccountCommand::LinkSubject { key }, meta).await
    }

    /// Chooses another password for who knows the old one. Every session ends.
    pub async fn change_password(
        &self,
        account_id: i64,
        (old, new): (&str, &str),
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        check_new_password(new).map_err(|why| SignInError::Field("new", why))?;
        let Some(name) = directory::name_of(self.ledger.store(), account_id).await? else {
            return Err(Refusal::NoSuchMember.into());
        };
        // The right password does not have to be shown to be told again what was done with it.
        if let Some(replayed) = self.ledger.replay::<Account>(meta).await? {
            return Ok(replayed);
        }
        let shown = Shown { name: &name, password: old, totp: None };
        let known = self.check_password(shown, &meta.request_id).await?;
        let hash = self.hash(new).await?;
        let password = NewPassword { name, hash, tries_key: known.tries_key };
        let command = AccountCommand::ChangePassword { passwords: known.row.passwords, password };
        self.execute(account_id, &command, meta).await
    }

    /// Chooses a password by a code; where the account has no name yet, or is to have another, a name as well. A setup code
    /// makes the account of the first operator. Answers the account's id and its name.
    pub async fn set_password(
        &self,
        asked: &ByCode<'_>,
        request_id: String,
    ) -> Result<(i64, String, bool), SignInError> {
        let refused = || SignInError::Refused { retry_after_s: None };
        let code = self.ledger.secrets().read_password_code(asked.code).ok_or_else(refused)?;
        let named = match asked.name {
            Some(name) => Some(read_name(name).ok_or(SignInError::Field("name", Wrong::NotAName))?),
            None => None,
        };
        check_new_password(asked.password).map_err(|why| SignInError::Field("password", why))?;
        match code {
            PasswordCode::Setup(lapses_at_ms) => {
                let name = named.ok_or(SignInError::Field("name", Wrong::Required))?;
                self.set_up(lapses_at_ms, name, asked.password, request_id).await
            }
            PasswordCode::Account(account_id, number) => {
                self.use_code((account_id, number), named, asked, request_id).await
            }
        }
    }

    async fn use_code(
        &self,
        (account_id, number): (i64, u32),
        named: Option<String>,
        asked: &ByCode<'_>,
        request_id: String,
    ) -> Result<(i64, String, bool), SignInError> {
        let refused = || SignInError::Refused { retry_after_s: None };
        let store = self.ledger.store();
        let account = accounts::account(store, account_id).await?.ok_or_else(refused)?;
        let caller = Caller::of_account(account.role, account_id);
        let receipt = asked.receipt.clone().map(|(operation, key, request_mac)| {
            (ReceiptKey { caller: caller.to_string(), operation, key }, request_mac)
        });
        let meta = Meta { caller, at: self.ledger.now(), request_id, receipt, job_id: None };
        if let Some(replayed) = self.ledger.replay::<Account>(&meta).await? {
            return Ok((replayed.id, account.name, true));
        }
        // Looked at before there is any hashing, so that an old code is no means to keep the server busy.
        let (state, _) = self.ledger.load::<Account>(account_id).await?;
        let holds = |code: Code| code.number == number && meta.at.ms < code.lapses_at_ms;
        if !state.active || !state.code.is_some_and(holds) {
            return Err(refused());
        }
        let name = match named {
            Some(name) => name,
            None if account.name.is_empty() => return Err(SignInError::Field("name", Wrong::Required)),
            None => account.name,
        };
        if directory::claim_name(store, &name, account_id).await? != account_id {
            return Err(SignInError::Field("name", Wrong::Taken));
        }
        let password = self.new_password(&name, asked.password).await?;
        let done = self.execute(account_id, &AccountCommand::UseCode { number, password }, &meta).await?;
        Ok((account_id, name, done.replayed))
    }

    /// Makes the account of the first operator. It happens once in a ledger's life, whoever else holds a link.
    async fn set_up(
        &self,
        lapses_at_ms: i64,
        name: String,
        password: &str,
        request_id: String,
    ) -> Result<(i64, String, bool), SignInError> {
        let refused = || SignInError::Refused { retry_after_s: None };
        let at = self.ledger.now();
        if at.ms >= lapses_at_ms || !self.may_be_set_up().await? {
            return Err(refused());
        }
        let receipt = Some((setup_key(), String::new()));
        let caller = Caller::System;
        let meta = Meta { caller, at, request_id, receipt, job_id: None };
        let (account_id, done) =
            self.create_named(AccountRole::Operator, &name, Some(password), &meta).await?;
        // Somebody else was faster.
        if done.replayed { Err(refused()) } else { Ok((account_id, name, false)) }
    }

    /// Whether the first operator may still come to be by a link.
    pub async fn may_be_set_up(&self) -> Result<bool, SignInError> {
        let store = self.ledger.store();
        Ok(!accounts::has_operator(store).await? && store.receipt(&setup_key()).await?.is_none())
    }

    /// The code that makes the first operator's account; None where there is an operator.
    pub async fn setup_code(&self) -> Result<Option<String>, SignInError> {
        if !self.may_be_set_up().await? {
            return Ok(None);
        }
        let lapses_at_ms = self.ledger.clock().now_ms().saturating_add(CODE_HOLDS_MS);
        Ok(Some(self.ledger.secrets().password_code(PasswordCode::Setup(lapses_at_ms))))
    }

    /// Creates an account under a name and gives out the code by which its owner chooses his password.
    pub async fn invite(&self, role: AccountRole, name: &str, meta: &Meta) -> Result<Invited, SignInError> {
        let name = read_name(name).ok_or(SignInError::Field("name", Wrong::NotAName))?;
        if let Some(replayed) = self.ledger.replay::<Account>(meta).await? {
            return self.invited(&replayed);
        }
        let store = self.ledger.store();
        if let AccountRole::Employee(id) = role {
            if directory::employee(store, id).await?.is_none() {
                return Err(Refusal::NoSuchMember.into());
            }
            if accounts::account_of_employee(store, id).await?.is_some() {
                return Err(SignInError::Field("user_id", Wrong::Taken));
            }
        }
        let (_, done) = self.create_named(role, &name, None, meta).await?;
        self.invited(&done)
    }

    /// Gives out a code by which an account's owner chooses another password. The old one holds no longer.
    pub async fn reset(
        &self,
        account_id: i64,
        without_totp: bool,
        meta: &Meta,
    ) -> Result<Invited, SignInError> {
        let lapses_at_ms = meta.at.ms.saturating_add(CODE_HOLDS_MS);
        let command = AccountCommand::GiveCode { lapses_at_ms, without_totp };
        let done = self.ledger.execute::<Account>(account_id, &command, meta).await?;
        self.invited(&done)
    }

    fn invited(&self, done: &Executed<Account>) -> Result<Invited, SignInError> {
        let given = done.events.iter().find_map(|event| match event {
            AccountEvent::CodeGiven { number, lapses_at_ms, .. } => Some((*number, *lapses_at_ms)),
            _ => None,
        });
        let (number, lapses_at_ms) = given.ok_or(ExecuteError::Conflict)?;
        let code = self.ledger.secrets().password_code(PasswordCode::Account(done.id, number));
        Ok(Invited { account_id: done.id, code, lapses_at_ms, replayed: done.replayed })
    }

    /// Creates an account under a name that is free.
    async fn create_named(
        &self,
        role: AccountRole,
        name: &str,
        password: Option<&str>,
        meta: &Meta,
    ) -> Result<(i64, Executed<Account>), SignInError> {
        let store = self.ledger.store();
        let taken = || SignInError::Field("name", Wrong::Taken);
        let next_id = self.ledger.next_id("account", true).await?;
        // A name that was taken for an account which then was not created is that account's.
        let account_id = directory::claim_name(store, name, next_id).await?;
        let password = match password {
            Some(password) => Some(self.new_password(name, password).await?),
            None => None,
        };
        let lapses_at_ms = meta.at.ms.saturating_add(CODE_HOLDS_MS);
        let command = AccountCommand::Create { role, password, lapses_at_ms };
        match self.ledger.execute::<Account>(account_id, &command, meta).await {
            Ok(done) => Ok((account_id, done)),
            // There is such an account.
            Err(ExecuteError::Conflict) => Err(taken()),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates an account with its password, as whoever holds the machine may.
    pub async fn create(
        &self,
        role: AccountRole,
        (name, password): (&str, &str),
        meta: &Meta,
    ) -> Result<i64, SignInError> {
        let invited = self.invite(role, name, meta).await?;
        let asked = ByCode { code: &invited.code, name: None, password, receipt: None };
        self.set_password(&asked, meta.request_id.clone()).await.map(|(account_id, ..)| account_id)
    }

    async fn new_password(&self, name: &str, password: &str) -> Result<NewPassword, SignInError> {
        let hash = self.hash(password).await?;
        let tries_key = self.ledger.secrets().sign_in_name(name);
        Ok(NewPassword { name: name.to_owned(), hash, tries_key })
    }

    /// The secret of a second factor that an account may begin to ask for.
    pub async fn new_totp(&self, account: &AccountRow) -> Result<[u8; 20], SignInError> {
        let (state, _) = self.ledger.load::<Account>(account.id).await?;
        Ok(self.ledger.secrets().second_factor(account.id, state.totps.saturating_add(1)))
    }

    /// Asks for a second factor from now on, if this is a code of it.
    pub async fn enable_totp(
        &self,
        account_id: i64,
        code: &str,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        if let Some(replayed) = self.ledger.replay::<Account>(meta).await? {
            return Ok(replayed);
        }
        let (state, _) = self.ledger.load::<Account>(account_id).await?;
        let number = state.totps.saturating_add(1);
        let secret = self.ledger.secrets().second_factor(account_id, number);
        // Guessing leads to nothing here: the secret was just shown to whoever asks.
        let totp_step = totp::step_of(&secret, code, meta.at.ms);
        let totp_step = totp_step.ok_or(SignInError::Refused { retry_after_s: None })?;
        self.execute(account_id, &AccountCommand::EnableTotp { number, totp_step }, meta).await
    }

    /// Asks for no second factor any more.
    pub async fn disable_totp(
        &self,
        account_id: i64,
        password: &str,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        if let Some(replayed) = self.ledger.replay::<Account>(meta).await? {
            return Ok(replayed);
        }
        let Some(name) = directory::name_of(self.ledger.store(), account_id).await? else {
            return Err(Refusal::NoSuchMember.into());
        };
        let shown = Shown { name: &name, password, totp: None };
        let known = self.check_password(shown, &meta.request_id).await?;
        let command =
            AccountCommand::DisableTotp { passwords: known.row.passwords, tries_key: known.tries_key };
        self.execute(account_id, &command, meta).await
    }

    /// Ends every session of an account.
    pub async fn sign_out_everywhere(
        &self,
        account_id: i64,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        self.execute(account_id, &AccountCommand::SignOutEverywhere, meta).await
    }

    /// Lets an account be used, or not.
    pub async fn set_active(
        &self,
        account_id: i64,
        active: bool,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        self.execute(account_id, &AccountCommand::SetActive(active), meta).await
    }

    async fn execute(
        &self,
        account_id: i64,
        command: &AccountCommand,
        meta: &Meta,
    ) -> Result<Executed<Account>, SignInError> {
        match self.ledger.execute::<Account>(account_id, command, meta).await {
            Err(ExecuteError::Refused(Refusal::SignInRefused)) => {
                Err(SignInError::Refused { retry_after_s: None })
            }
            done => Ok(done?),
        }
    }

    /// The session of a token, if it holds.
    pub async fn session(&self, token: &SessionToken) -> Result<Option<Session>, StoreError> {
        let (store, now_ms) = (self.ledger.store(), self.ledger.clock().now_ms());
        let session = directory::session(store, token, now_ms).await?;
        if let Some(session) = &session
            && let Err(error) = directory::touch_session(store, session, now_ms).await
        {
            tracing::warn!(%error, "that a session is used could not be written down");
        }
        Ok(session)
    }

    /// Looks at name, password and second factor.
    async fn check(&self, shown: Shown<'_>, request_id: &str) -> Result<Known, SignInError> {
        let mut known = self.check_password(shown, request_id).await?;
        if known.row.totp == 0 {
            return Ok(known);
        }
        let secret = self.ledger.secrets().second_factor(known.row.account_id, known.row.totp);
        let now_ms = self.ledger.clock().now_ms();
        match totp::step_of(&secret, shown.totp.unwrap_or_default(), now_ms) {
            Some(step) => {
                known.totp_step = step;
                Ok(known)
            }
            None => Err(self.wrong(Some(&known.row), known.tries, request_id)),
        }
    }

    /// Counts the try, and looks at name and password.
    async fn check_password(&self, shown: Shown<'_>, request_id: &str) -> Result<Known, SignInError> {
        let ledger = &self.ledger;
        let name = read_name(shown.name);
        let tries_key = ledger.secrets().sign_in_name(name.as_deref().unwrap_or(shown.name));
        let row = directory::sign_in_row(ledger.store(), name.as_deref().unwrap_or_default()).await?;
        let turn = self.turn().await?;
        let now_ms = ledger.clock().now_ms();
        let Some(tries) = directory::count_try(ledger.store(), &tries_key, now_ms).await? else {
            let until_ms = directory::locked_until(ledger.store(), &tries_key).await?;
            return Err(refused_until(until_ms, now_ms));
        };
        let hash = row.as_ref().map(|row| row.password.clone()).filter(|hash| !hash.is_empty());
        let may = hash.is_some() && row.as_ref().is_some_and(|row| row.active);
        let is_right = verify(turn, shown.password, hash.unwrap_or_else(|| NOBODYS.to_owned())).await?;
        match row {
            Some(row) if is_right && may => {
                Ok(Known { row, name: name.unwrap_or_default(), tries_key, tries, totp_step: 0 })
            }
            row => Err(self.wrong(row.as_ref(), tries, request_id)),
        }
    }

    /// What a wrong try is answered. Where it locks an account, that is an event; it is not waited for, so that it takes no
    /// longer than where there is no account.
    fn wrong(&self, row: Option<&SignInRow>, tries: Tries, request_id: &str) -> SignInError {
        if tries.locked_until_ms > 0 {
            tracing::info!(request_id, tries = tries.tries, "a name is locked after wrong tries to sign in");
            if let Some(row) = row {
                let (ledger, account_id) = (self.ledger.clone(), row.account_id);
                let request_id = request_id.to_owned();
                tokio::spawn(async move {
                    let at = ledger.now();
                    let meta = Meta { caller: Caller::System, at, request_id, receipt: None, job_id: None };
                    let lock = AccountCommand::Lock { until_ms: tries.locked_until_ms };
                    if let Err(error) = ledger.execute::<Account>(account_id, &lock, &meta).await {
                        tracing::warn!(%error, account_id, "that an account is locked could not be written down");
                    }
                });
            }
        }
        self.refused(tries)
    }

    fn refused(&self, tries: Tries) -> SignInError {
        refused_until(tries.locked_until_ms, self.ledger.clock().now_ms())
    }

    /// A turn to compute a hash, which goes with the computing: whoever asked may have gone away meanwhile.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, SignInError> {
        match tokio::time::timeout(PATIENCE, self.hashing.clone().acquire_owned()).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(SignInError::Busy),
        }
    }

    /// The hash of a new password.
    async fn hash(&self, password: &str) -> Result<Hidden, SignInError> {
        let turn = self.turn().await?;
        let password = normal(password);
        let hashing = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let salt = SaltString::encode_b64(&random::<16>()).ok()?;
            let hash = argon2()?.hash_password(password.as_bytes(), &salt).ok()?;
            Some(hash.to_string())
        });
        hashing.await.ok().flatten().map(Hidden).ok_or(SignInError::Busy)
    }
}

/// With what somebody chooses a password.
pub struct ByCode<'a> {
    /// The code.
    pub code: &'a str,
    /// With what he wants to sign in.
    pub name: Option<&'a str>,
    /// The password.
    pub password: &'a str,
    /// The operation, the idempotency key and the request's fingerprint.
    pub receipt: Option<(&'static str, String, String)>,
}

/// A request's own metadata for what the machine's owner does on it.
#[must_use]
pub fn meta_of_operator(ledger: &Ledger) -> Meta {
    let request_id = hex(&random::<8>());
    Meta { caller: Caller::Operator, at: ledger.now(), request_id, receipt: None, job_id: None }
}

fn setup_key() -> ReceiptKey {
    ReceiptKey { caller: Caller::System.to_string(), operation: SETUP, key: "first-operator".to_owned() }
}

fn refused_until(until_ms: i64, now_ms: i64) -> SignInError {
    let left_s = until_ms.saturating_sub(now_ms).saturating_add(999) / 1000;
    let retry_after_s = u32::try_from(left_s).ok().filter(|seconds| *seconds > 0);
    SignInError::Refused { retry_after_s }
}

/// A password as it is hashed: the same whatever keyboard composed it (RFC 8265).
fn normal(password: &str) -> String {
    password.nfc().collect()
}

/// OWASP's least for argon2id: 19 MiB, two passes, one lane.
fn argon2() -> Option<Argon2<'static>> {
    let params = Params::new(19_456, 2, 1, None).ok()?;
    Some(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether a password has this hash; computed apart, in its turn.
async fn verify(turn: OwnedSemaphorePermit, password: &str, hash: String) -> Result<bool, SignInError> {
    let password = normal(password);
    let verifying = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let parsed = PasswordHash::new(&hash).ok()?;
        Some(argon2()?.verify_password(password.as_bytes(), &parsed).is_ok())
    });
    verifying.await.ok().flatten().ok_or(SignInError::Busy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_ascii_and_is_compared_without_case() {
        for (text, name) in [
            ("boss", "boss"),
            (" Boss ", "boss"),
            ("ＢＯＳＳ", "boss"),
            ("a.b_c-1", "a.b_c-1"),
            ("1000", "1000"),
            ("\u{212a}ing", "king"),
        ] {
            assert_eq!(read_name(text).as_deref(), Some(name), "{text}");
        }
        let (long, too_long) = ("a".repeat(64), "a".repeat(65));
        assert_eq!(read_name(&long), Some(long));
        for other in [
            "",
            " ",
            ".a",
            "-a",
            "a b",
            "a@b",
            "bоss",
            "βoss",
            "老闆",
            "a\u{200b}b",
            "a\u{301}",
            "ａ／ｂ",
            "i\u{307}",
            &too_long,
        ] {
            assert_eq!(read_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_password_has_10_to_256_characters() {
        for good in ["0123456789", "一二三四五六七八九十", &"x".repeat(256)] {
            assert_eq!(check_new_password(good), Ok(()));
        }
        assert!(check_new_password("012345678").is_err() && check_new_password(&"x".repeat(257)).is_err());
    }

    #[test]
    fn nobodys_hash_takes_the_same_work_and_is_no_passwords() {
        let parsed = PasswordHash::new(NOBODYS).unwrap();
        assert_eq!(Params::try_from(&parsed).unwrap(), Params::new(19_456, 2, 1, Some(32)).unwrap());
        assert!(argon2().unwrap().verify_password(b"", &parsed).is_err());
    }
}
