//! Members as far as the log knows them: that one signed in through WeChat, was unbound from it, or that his personal data
//! was erased. Everything else of a member, his openids among it, lies in the directory, where it can be erased.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What happened to a member. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberEvent {
    /// His personal data and the texts of his reviews were erased for good.
    Erased {
        /// Why, in the operator's words.
        reason: String,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// He signed in through WeChat. Not every time: see [`SIGN_IN_EVERY_MS`].
    SignedIn {
        /// Through which app of the merchant's.
        appid: String,
        /// Whether he was not bound to it before.
        first: bool,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// No WeChat signs in as him any more.
    WechatUnbound {
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// How long a sign-in stands for those that follow through the same app: a page that signs in whenever it is opened must not
/// fill the log.
pub const SIGN_IN_EVERY_MS: i64 = 3_600_000;

/// What can be asked of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberCommand {
    /// Erase his personal data.
    Erase {
        /// Whose: the stream's own id, so that he is looked up.
        member_id: i64,
        /// Why.
        reason: String,
        /// Who.
        employee_id: i64,
    },
    /// He has proved to WeChat who he is.
    SignIn {
        /// Whose: the stream's own id.
        member_id: i64,
        /// Through which app.
        appid: String,
    },
    /// Unbind him from every app.
    UnbindWechat {
        /// Whose: the stream's own id.
        member_id: i64,
        /// Whether the directory has anything of his to unbind, also what no event tells of yet.
        is_bound: bool,
        /// Who.
        employee_id: i64,
    },
}

impl MemberCommand {
    /// Whom it is about.
    #[must_use]
    pub fn member_id(&self) -> i64 {
        match self {
            Self::Erase { member_id, .. }
            | Self::SignIn { member_id, .. }
            | Self::UnbindWechat { member_id, .. } => *member_id,
        }
    }
}

/// An erasure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Why.
    pub reason: String,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// A member as his events make him.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The first erasure; None while his data is here.
    pub erased: Option<Erasure>,
    /// The apps that he signs in through, and when he last did as far as the log says, Unix milliseconds.
    pub signed_in: BTreeMap<String, i64>,
    /// How often he was unbound.
    pub unbound: i64,
}

impl Member {
    /// What these events make of him; total on any event.
    pub fn evolve(&mut self, event: &MemberEvent) {
        match event {
            MemberEvent::Erased { reason, at_ms, .. } => {
                self.erased.get_or_insert_with(|| Erasure { reason: reason.clone(), at_ms: *at_ms });
                self.signed_in.clear();
            }
            MemberEvent::SignedIn { appid, at_ms, .. } => {
                self.signed_in.insert(appid.clone(), *at_ms);
            }
            MemberEvent::WechatUnbound { .. } => {
                self.signed_in.clear();
                self.unbound = self.unbound.saturating_add(1);
            }
        }
    }

    /// What follows from a command, or why nothing does. Who is erased already stays so: the first time stands.
    pub fn decide(&self, command: &MemberCommand, facts: &Facts) -> Result<Vec<MemberEvent>, Refusal> {
        match command {
            MemberCommand::Erase { .. } if self.erased.is_some() => Ok(Vec::new()),
            // Nobody; and who is erased is nobody that could sign in.
            _ if facts.member.is_none() => Err(Refusal::NoSuchMember),
            MemberCommand::SignIn { .. } if self.erased.is_some() => Err(Refusal::NoSuchMember),
            MemberCommand::Erase { reason, employee_id, .. } => Ok(vec![MemberEvent::Erased {
                reason: reason.clone(),
                employee_id: *employee_id,
                at_ms: facts.at.ms,
            }]),
            MemberCommand::SignIn { appid, .. } => {
                let last_ms = self.signed_in.get(appid);
                let stands = |at_ms: &i64| facts.at.ms.saturating_sub(*at_ms) < SIGN_IN_EVERY_MS;
                if last_ms.is_some_and(stands) {
                    return Ok(Vec::new());
                }
                let first = last_ms.is_none();
                Ok(vec![MemberEvent::SignedIn { appid: appid.clone(), first, at_ms: facts.at.ms }])
            }
            MemberCommand::UnbindWechat { is_bound: false, .. } if self.signed_in.is_empty() => {
                Ok(Vec::new())
            }
            MemberCommand::UnbindWechat { employee_id, .. } => {
                Ok(vec![MemberEvent::WechatUnbound { employee_id: *employee_id, at_ms: facts.at.ms }])
            }
        }
    }
}
