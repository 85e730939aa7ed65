//! Members who sign in through WeChat: which openid is which member, and what the log says of it.
//!
//! Hides how one openid never makes two members, whatever comes at once to whichever server: the directory's unique index
//! decides, and whoever loses looks again. An unbinding is in the log first; what it has made void is never followed, also
//! where a crash kept its rows. Must never put an openid into an event or a log line.

mod client;

pub use client::{NoOpenid, Way, Wechat, WechatApp, WechatOptions};

use crate::directory::{self, Binding, Written};
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, Meta};
use crate::member::{Member, MemberCommand};
use crate::refusal::Refusal;

/// How often somebody who came at the same time is looked for again.
const MAX_TRIES: usize = 4;

/// What becomes of an openid that nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// It signs nobody in.
    Refused,
    /// A new member has it from now on.
    Created,
    /// This member has it from now on: he has said so himself.
    BoundTo(i64),
}

/// Who has signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignedIn {
    /// His id.
    pub member_id: i64,
    /// Whether he is a member since now.
    pub is_new: bool,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Nobody has this openid.
    #[error("the openid is bound to no member")]
    Unknown,
    /// Another member has this openid, or the member another openid.
    #[error("the openid or the member is bound to another")]
    BoundElsewhere,
    /// What the ledger says.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

impl From<crate::store::StoreError> for SignInError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Execute(error.into())
    }
}

/// Signs in whom an openid of an app belongs to.
pub async fn sign_in(
    ledger: &Ledger,
    (appid, openid): (&str, &str),
    unknown: Unknown,
    request_id: &str,
) -> Result<SignedIn, SignInError> {
    let key = (appid, openid, ledger.secrets().openid_hash(appid, openid));
    let mut tries = 0;
    let found = loop {
        match (bound_to(ledger, &key.2).await?, unknown) {
            (Some(id), Unknown::BoundTo(other)) if id != other => return Err(SignInError::BoundElsewhere),
            (Some(member_id), _) => break SignedIn { member_id, is_new: false },
            (None, Unknown::Refused) => return Err(SignInError::Unknown),
            (None, Unknown::BoundTo(_)) if tries > 0 => return Err(SignInError::BoundElsewhere),
            (None, _) if tries == MAX_TRIES => return Err(ExecuteError::Conflict.into()),
            (None, Unknown::BoundTo(member_id)) => {
                if bind(ledger, &key, member_id).await? {
                    break SignedIn { member_id, is_new: false };
                }
            }
            (None, Unknown::Created) => {
                if let Some(member_id) = create(ledger, &key).await? {
                    break SignedIn { member_id, is_new: true };
                }
            }
        }
        tries += 1;
    };
    let SignedIn { member_id, .. } = found;
    let command = MemberCommand::SignIn { member_id, appid: appid.to_owned() };
    let (caller, request_id) = (Caller::Member(member_id), request_id.to_owned());
    let meta = Meta { caller, at: ledger.now(), request_id, receipt: None, job_id: None };
    ledger.execute::<Member>(member_id, &command, &meta).await?;
    Ok(found)
}

/// Whom an openid belongs to. A binding from before its member was unbound or erased is none, and is removed.
async fn bound_to(ledger: &Ledger, openid_hash: &str) -> Result<Option<i64>, SignInError> {
    let Some(binding) = directory::wechat_binding(ledger.store(), openid_hash).await? else {
        return Ok(None);
    };
    let (member, _) = ledger.load::<Member>(binding.member_id).await?;
    if member.erased.is_none() && member.unbound == binding.unbound_before {
        return Ok(Some(binding.member_id));
    }
    directory::drop_binding(ledger.store(), openid_hash, binding).await?;
    Ok(None)
}

/// Binds an openid to a member who is here; false where it, or he, is bound otherwise.
async fn bind(
    ledger: &Ledger,
    (appid, openid, hash): &(&str, &str, String),
    member_id: i64,
) -> Result<bool, SignInError> {
    if directory::membership(ledger.store(), member_id).await?.is_none() {
        return Err(ExecuteError::from(Refusal::NoSuchMember).into());
    }
    let (member, _) = ledger.load::<Member>(member_id).await?;
    if member.erased.is_some() {
        return Err(ExecuteError::from(Refusal::NoSuchMember).into());
    }
    // What was unbound and is there still stands in the way.
    directory::unbind_wechat(ledger.store(), member_id, member.unbound).await?;
    let binding = Binding { member_id, unbound_before: member.unbound };
    let key = (*appid, *openid, hash.as_str());
    Ok(directory::bind_wechat(ledger.store(), ledger.seal(), key, binding, None).await? == Written::Done)
}

/// Adds a member who has this openid; None where somebody has it meanwhile.
async fn create(
    ledger: &Ledger,
    (appid, openid, hash): &(&str, &str, String),
) -> Result<Option<i64>, SignInError> {
    let id = ledger.next_id("member", true).await?;
    let new = directory::Member { id, joined_at_ms: ledger.clock().now_ms(), ..directory::Member::default() };
    let binding = Binding { member_id: id, unbound_before: 0 };
    let key = (*appid, *openid, hash.as_str());
    let written = directory::bind_wechat(ledger.store(), ledger.seal(), key, binding, Some(&new)).await?;
    Ok((written == Written::Done).then_some(id))
}

/// The apps that a member signs in through, each with his openid there.
pub async fn openids(ledger: &Ledger, member_id: i64) -> Result<Vec<(String, String)>, ExecuteError> {
    let found = directory::openids(ledger.store(), ledger.seal(), member_id).await?;
    let (member, _) = ledger.load::<Member>(member_id).await?;
    let holds =
        |(appid, openid, unbound_before)| (unbound_before == member.unbound).then_some((appid, openid));
    Ok(found.into_iter().filter_map(holds).collect())
}
