//! Who calls: by a token, a session or a machine's key, in a header or in a cookie. The one place that reads them.

use std::sync::PoisonError;

use axum::http::{HeaderMap, header};

use super::gate::limits::Who;
use super::{App, Asker, Failure};
use crate::access::Principal;
use crate::directory::{Employee, Session};
use crate::identity::{Caller, SessionToken, Token};
use crate::machine_keys;
use crate::read_model::accounts;

/// By what somebody has proved who he is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// A token that this ledger signed.
    Token(Token),
    /// A session.
    Session(Session),
    /// A machine's key.
    MachineKey,
    /// A partner's signature.
    Signature,
}

/// Somebody who has proved who he is.
pub struct Identified {
    /// Who, with what he was given.
    pub who: Principal,
    /// What the directory knows of an employee.
    pub employee: Option<Employee>,
    /// By what he has proved it.
    pub proof: Proof,
}

impl App {
    /// Whoever a request proves to come from, by what it shows: a token, a session or a machine's key in a header or, for a
    /// session, in a cookie. Whoever changes something by a cookie must show what only a page of ours can know as well.
    /// Who he is the asker learns as soon as it is proved: also where he may not be let in all the same.
    pub(super) async fn identify(
        &self,
        headers: &HeaderMap,
        changes: bool,
        asker: &Asker,
    ) -> Result<Identified, Failure> {
        let shown = shown(headers, self.cookie_name()).ok_or(Failure::NotSignedIn)?;
        if machine_keys::is_key(shown.text) && !shown.in_cookie {
            let (store, now_ms) = (self.ledger.store(), self.ledger.clock().now_ms());
            let machine = machine_keys::identify(store, shown.text, now_ms).await?;
            let who = machine.ok_or(Failure::NotSignedIn)?;
            asker.is(who.caller);
            return Ok(Identified { who, employee: None, proof: Proof::MachineKey });
        }
        let (caller, proof) = self.caller(&shown, headers, changes).await?;
        asker.is(caller);
        let (who, employee) = self.principal(caller).await?;
        Ok(Identified { who, employee, proof })
    }

    async fn caller(
        &self,
        shown: &Shown<'_>,
        headers: &HeaderMap,
        changes: bool,
    ) -> Result<(Caller, Proof), Failure> {
        let Some(token) = SessionToken::parse(shown.text) else {
            let token = self.token(shown.text).filter(|_| !shown.in_cookie).ok_or(Failure::NotSignedIn)?;
            self.refuse_ended_account(token.caller).await?;
            return Ok((token.caller, Proof::Token(token)));
        };
        let session = self.sign_in.session(&token).await?.ok_or(Failure::NotSignedIn)?;
        let csrf = headers.get("x-csrf-token").and_then(|value| value.to_str().ok()).unwrap_or_default();
        if changes && shown.in_cookie && !self.ledger.secrets().is_csrf_token(&session.id, csrf) {
            return Err(Failure::NotAllowed);
        }
        Ok((session.caller, Proof::Session(session)))
    }

    /// By what a limit counts whoever calls, without asking the database; None = by nothing that he has shown.
    pub(super) fn who(&self, headers: &HeaderMap) -> Option<Who> {
        let shown = shown(headers, self.cookie_name())?;
        // By the whole key: whoever shows a wrong one under a machine's number does not use up what that machine may ask.
        if machine_keys::is_key(shown.text) {
            return Some(Who::Key(machine_keys::digest(shown.text)));
        }
        match SessionToken::parse(shown.text) {
            Some(session) => u64::from_str_radix(&session.id, 16).ok().map(Who::Session),
            None => self.token(shown.text).map(|token| Who::Caller(token.caller)),
        }
    }

    fn token(&self, text: &str) -> Option<Token> {
        let token = Token::verify(text, self.ledger.secrets(), self.ledger.clock().now_ms())?;
        // A machine shows its key, never a token.
        if matches!(token.caller, Caller::Machine(_)) {
            return None;
        }
        let revoked = self.revoked.read().unwrap_or_else(PoisonError::into_inner);
        (!revoked.contains(&token.id)).then_some(token)
    }

    /// A token in the name of an account holds as long as the account may be used.
    async fn refuse_ended_account(&self, caller: Caller) -> Result<(), Failure> {
        let (Caller::OperatorAccount(id) | Caller::AuditorAccount(id)) = caller else { return Ok(()) };
        let account = accounts::account(self.ledger.store(), id).await?;
        let holds =
            account.is_some_and(|account| account.active && Caller::of_account(account.role, id) == caller);
        if holds { Ok(()) } else { Err(Failure::NotSignedIn) }
    }

    /// The cookie that a browser keeps a session in.
    pub(super) fn cookie_name(&self) -> &'static str {
        if self.is_https() { "__Host-session" } else { "session" }
    }

    pub(super) fn is_https(&self) -> bool {
        self.options.public_url.starts_with("https://")
    }
}

/// What somebody shows.
struct Shown<'a> {
    text: &'a str,
    in_cookie: bool,
}

/// The token or session in a header; where neither header is there, the session in a cookie.
fn shown<'a>(headers: &'a HeaderMap, cookie_name: &str) -> Option<Shown<'a>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    if headers.contains_key("authorization") || headers.contains_key("token") {
        return bearer.or_else(|| text("token")).map(|text| Shown { text, in_cookie: false });
    }
    cookie(headers, cookie_name).map(|text| Shown { text, in_cookie: true })
}

/// A cookie of this name.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut cookies =
        lines.flat_map(|line| line.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
    cookies.find(|(found, _)| *found == name).map(|(_, value)| value)
}
