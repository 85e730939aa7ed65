//! Accounts: with what operators, auditors and employees sign in.
//!
//! The log knows that there is an account, whose it is, and what became of it. It never knows a name, a password, a hash, a
//! code or a secret: names and hashes lie in the directory, codes and secrets of second factors follow from a key that
//! lies outside the database and from the numbers that the events hold.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What somebody is who signs in with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountRole {
    /// An operator.
    Operator,
    /// An auditor.
    Auditor,
    /// An employee, by his id.
    Employee(i64),
}

impl AccountRole {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Employee(_) => "employee",
        }
    }

    /// The role of this name; an employee is meant where there is an id.
    #[must_use]
    pub fn named(name: &str, employee_id: i64) -> Option<Self> {
        match name {
            "operator" => Some(Self::Operator),
            "auditor" => Some(Self::Auditor),
            "employee" => Some(Self::Employee(employee_id)),
            _ => None,
        }
    }

    /// Whose account it is, 0 where it is no employee's.
    #[must_use]
    pub fn employee_id(self) -> i64 {
        match self {
            Self::Employee(id) => id,
            Self::Operator | Self::Auditor => 0,
        }
    }
}

/// How somebody has shown who he is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignInBy {
    /// By his password.
    #[default]
    Password,
    /// By a provider's word.
    Provider,
}

impl SignInBy {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
    fn is_password(&self) -> bool {
        *self == Self::Password
    }
}

/// What happened to an account. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountEvent {
    /// It was created.
    Created {
        /// Whose it is.
        role: AccountRole,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// A code was given out by which a password can be chosen, once. The password before it holds no longer, and every
    /// session ended.
    CodeGiven {
        /// The code's number, from 1.
        number: u32,
        /// Until when it holds, Unix milliseconds.
        lapses_at_ms: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// A password was chosen; every session ended.
    PasswordSet {
        /// Whether by a code, and not by the password before.
        by_code: bool,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Its owner signed in.
    SignedIn {
        /// By what. Left out of the event where it is a password.
        #[serde(default, skip_serializing_if = "SignInBy::is_password")]
        by: SignInBy,
        /// The step of time of the second factor's code, which does not come again; 0 = none was asked.
        totp_step: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Too many tries to sign in were wrong: nobody can until then.
    Locked {
        /// Unix milliseconds.
        until_ms: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// From now on a second factor is asked.
    TotpEnabled {
        /// The number of its secret, from 1.
        number: u32,
        /// The step of time of the code that proved it.
        totp_step: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// None is asked any more.
    TotpDisabled {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// From now on a provider's word of one of its own lets in.
    SubjectLinked {
        /// The link's number, from 1.
        number: u32,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// No provider's word lets in any more; every session ended.
    SubjectUnlinked {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Every session ended.
    SignedOutEverywhere {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Nobody can sign in with it any more; every session ended.
    Disabled {
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It is as it was again.
    Enabled {
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// A text that is shown to nobody, not even by a programmer's mistake.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// A password that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPassword {
    /// The name that it goes with.
    pub name: String,
    /// Its hash.
    pub hash: Hidden,
    /// What wrong tries are counted under: they begin anew.
    pub tries_key: String,
}

/// A session that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Its id.
    pub id: String,
    /// The hash of its secret.
    pub secret_hash: String,
    /// When it ends at the latest, Unix milliseconds.
    pub ends_at_ms: i64,
    /// What wrong tries were counted under: they begin anew.
    pub tries_key: String,
}

/// What can be asked of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountCommand {
    /// Create it.
    Create {
        /// Whose it is.
        role: AccountRole,
        /// With this password; without one a code is given out.
        password: Option<NewPassword>,
        /// Until when that code holds.
        lapses_at_ms: i64,
    },
    /// Give out a code by which a password can be chosen.
    GiveCode {
        /// Until when it holds.
        lapses_at_ms: i64,
        /// Whether no second factor is asked any more.
        without_totp: bool,
    },
    /// Choose a password by a code.
    UseCode {
        /// The code's number.
        number: u32,
        /// The password.
        password: NewPassword,
    },
    /// Choose another password.
    ChangePassword {
        /// Which password, counted from 1, was shown to be known.
        passwords: u32,
        /// The new one.
        password: NewPassword,
    },
    /// Begin a session.
    SignIn {
        /// Which password, counted from 1, was shown to be known.
        passwords: u32,
        /// The step of time of the second factor's code, 0 = none was asked.
        totp_step: i64,
        /// The session.
        session: NewSession,
    },
    /// Begin a session for whom a provider has named.
    SignInBySubject {
        /// The link's number by which he was found.
        number: u32,
        /// The session.
        session: NewSession,
    },
    /// Let in whom a provider names so, and nobody else whom it names.
    LinkSubject {
        /// What the name is found by.
        key: String,
    },
    /// Let in nobody whom a provider names.
    UnlinkSubject,
    /// Write down that nobody can sign in until then.
    Lock {
        /// Unix milliseconds.
        until_ms: i64,
    },
    /// Ask for a second factor from now on.
    EnableTotp {
        /// The number of its secret.
        number: u32,
        /// The step of time of the code that proves it.
        totp_step: i64,
    },
    /// Ask for none any more.
    DisableTotp {
        /// Which password, counted from 1, was shown to be known.
        passwords: u32,
        /// What wrong tries were counted under: they begin anew.
        tries_key: String,
    },
    /// End every session.
    SignOutEverywhere,
    /// Let it be used, or not.
    SetActive(bool),
}

/// A code by which a password can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// Its number.
    pub number: u32,
    /// Until when it holds, Unix milliseconds.
    pub lapses_at_ms: i64,
}

/// An account as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Whose it is; None until it is created.
    pub role: Option<AccountRole>,
    /// Whether it may be used.
    pub active: bool,
    /// How many passwords it has had; 0 = none yet.
    pub passwords: u32,
    /// The code that is out. While there is one no password holds.
    pub code: Option<Code>,
    /// How many codes were given out.
    pub codes: u32,
    /// The number of the second factor's secret, 0 = none is asked.
    pub totp: u32,
    /// How many secrets there were.
    pub totps: u32,
    /// The last step of time whose code was used.
    pub totp_step: i64,
    /// The number of the link to a provider's subject, 0 = none.
    pub subject: u32,
    /// How many links there were.
    pub subjects: u32,
}

impl Account {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Created { role, .. } => {
                *self = Self { role: Some(*role), active: true, ..Self::default() };
            }
            AccountEvent::CodeGiven { number, lapses_at_ms, .. } => {
                self.codes = *number;
                self.code = Some(Code { number: *number, lapses_at_ms: *lapses_at_ms });
            }
            AccountEvent::PasswordSet { .. } => {
                self.passwords = self.passwords.saturating_add(1);
                self.code = None;
            }
            AccountEvent::SignedIn { totp_step, .. } => self.totp_step = self.totp_step.max(*totp_step),
            AccountEvent::TotpEnabled { number, totp_step, .. } => {
                (self.totp, self.totps) = (*number, *number);
                self.totp_step = self.totp_step.max(*totp_step);
            }
            AccountEvent::TotpDisabled { .. } => self.totp = 0,
            AccountEvent::SubjectLinked { number, .. } => (self.subject, self.subjects) = (*number, *number),
            AccountEvent::SubjectUnlinked { .. } => self.subject = 0,
            AccountEvent::Disabled { .. } => self.active = false,
            AccountEvent::Enabled { .. } => self.active = true,
            AccountEvent::Locked { .. } | AccountEvent::SignedOutEverywhere { .. } => {}
        }
    }

    /// What follows from a command, or why nothing does. Who may not sign in is never told why.
    pub fn decide(&self, command: &AccountCommand, facts: &Facts) -> Result<Vec<AccountEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let AccountCommand::Create { role, password, lapses_at_ms } = command {
            if self.role.is_some() {
                return Err(Refusal::IdTaken);
            }
            let then = match password {
                Some(_) => AccountEvent::PasswordSet { by_code: true, at_ms },
                None => AccountEvent::CodeGiven { number: 1, lapses_at_ms: *lapses_at_ms, at_ms },
            };
            return Ok(vec![AccountEvent::Created { role: *role, at_ms }, then]);
        }
        if self.role.is_none() {
            return Err(Refusal::NoSuchMember);
        }
        match command {
            AccountCommand::Create { .. } => Ok(Vec::new()),
            AccountCommand::GiveCode { lapses_at_ms, without_totp } => {
                let number = self.codes.saturating_add(1);
                let mut events = vec![AccountEvent::CodeGiven { number, lapses_at_ms: *lapses_at_ms, at_ms }];
                if *without_totp && self.totp != 0 {
                    events.push(AccountEvent::TotpDisabled { at_ms });
                }
                Ok(events)
            }
            AccountCommand::UseCode { number, .. } => match self.code {
                Some(code) if self.active && code.number == *number && at_ms < code.lapses_at_ms => {
                    Ok(vec![AccountEvent::PasswordSet { by_code: true, at_ms }])
                }
                _ => Err(Refusal::SignInRefused),
            },
            AccountCommand::ChangePassword { passwords, .. } => {
                self.knows(*passwords)?;
                Ok(vec![AccountEvent::PasswordSet { by_code: false, at_ms }])
            }
            AccountCommand::SignIn { passwords, totp_step, .. } => {
                self.knows(*passwords)?;
                // Each step's code is good once, and none is good enough where one is asked.
                if (self.totp != 0 || *totp_step != 0) && *totp_step <= self.totp_step {
                    return Err(Refusal::SignInRefused);
                }
                let by = SignInBy::Password;
                Ok(vec![AccountEvent::SignedIn { by, totp_step: *totp_step, at_ms }])
            }
            AccountCommand::SignInBySubject { number, .. } => {
                if !self.active || self.subject == 0 || self.subject != *number {
                    return Err(Refusal::SignInRefused);
                }
                let by = SignInBy::Provider;
                Ok(vec![AccountEvent::SignedIn { by, totp_step: 0, at_ms }])
            }
            AccountCommand::LinkSubject { .. } => {
                Ok(vec![AccountEvent::SubjectLinked { number: self.subjects.saturating_add(1), at_ms }])
            }
            AccountCommand::UnlinkSubject if self.subject == 0 => Ok(Vec::new()),
            AccountCommand::UnlinkSubject => Ok(vec![AccountEvent::SubjectUnlinked { at_ms }]),
            AccountCommand::Lock { until_ms } => {
                Ok(vec![AccountEvent::Locked { until_ms: *until_ms, at_ms }])
            }
            AccountCommand::EnableTotp { number, totp_step } => {
                if self.totp != 0 || *number != self.totps.saturating_add(1) || *totp_step <= self.totp_step {
                    return Err(Refusal::SignInRefused);
                }
                Ok(vec![AccountEvent::TotpEnabled { number: *number, totp_step: *totp_step, at_ms }])
            }
            AccountCommand::DisableTotp { passwords, .. } => {
                self.knows(*passwords)?;
                Ok(if self.totp == 0 { Vec::new() } else { vec![AccountEvent::TotpDisabled { at_ms }] })
            }
            AccountCommand::SignOutEverywhere => Ok(vec![AccountEvent::SignedOutEverywhere { at_ms }]),
            AccountCommand::SetActive(active) => Ok(match (self.active, *active) {
                (true, false) => vec![AccountEvent::Disabled { at_ms }],
                (false, true) => vec![AccountEvent::Enabled { at_ms }],
                _ => Vec::new(),
            }),
        }
    }

    /// Whether the password that was shown to be known still holds: between its check and this it may have been changed.
    fn knows(&self, passwords: u32) -> Result<(), Refusal> {
        let holds = self.active && self.code.is_none() && passwords != 0 && passwords == self.passwords;
        if holds { Ok(()) } else { Err(Refusal::SignInRefused) }
    }
}
