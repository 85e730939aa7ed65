//! Signing in and out, passwords, second factors, and the accounts of operators, auditors and employees.

use axum::extract::Request;
use serde_json::{Value, json};

use super::form::Form;
use super::routes::{Route, Run};
use super::{Answer, App, Call, Failure, Proof, idempotency_key, read_form};
use crate::account::{Account as Stream, AccountRole};
use crate::directory;
use crate::identity::Caller;
use crate::read_model::accounts::{self, AccountRow};
use crate::reading::Person;
use crate::refusal::{Refusal, Wrong};
use crate::sign_in::{
    ByCode, Invited, MAX_NAME, MAX_PASSWORD, Shown, SignInError, SignedIn, read_name, totp_url,
};
use crate::value::MAX_ID;

/// Every call that nobody has signed in for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// `/user/login`
    Login,
    /// `/user/setpassword`
    SetPassword,
}

/// Every other call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// `/user/logout`
    Logout,
    /// `/user/logouteverywhere`
    LogoutEverywhere,
    /// `/user/editpassword`
    EditPassword,
    /// `/user/resetpassword`
    ResetPassword,
    /// `/user/totp`
    Totp,
    /// `/user/totpon`
    TotpOn,
    /// `/user/totpoff`
    TotpOff,
    /// `/account/add`
    Add,
    /// `/account/list`
    List,
    /// `/account/state`
    State,
    /// `/account/subject`
    Subject,
}

impl From<SignInError> for Failure {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Refused { retry_after_s } => Self::SignInRefused(retry_after_s),
            SignInError::Busy => Self::TooSlow,
            SignInError::Field(field, why) => Self::Fields(vec![(field, why)]),
            SignInError::Execute(error) => Self::Execute(error),
        }
    }
}

/// The roles that an account may have, by name.
pub(super) const ROLES: &[&str] = &["operator", "auditor", "employee"];

/// Answers whoever asks, signed in or not.
pub(super) async fn answer_open(
    app: App,
    route: &'static Route,
    request: Request,
    request_id: String,
) -> Result<Answer, Failure> {
    // A foreign page that sends the browser here with a form would sign its owner in as somebody else.
    if request.headers().get("sec-fetch-mode").is_some_and(|mode| mode == "navigate") {
        return Err(Failure::NotAllowed);
    }
    let key = if route.writes { idempotency_key(request.headers())? } else { None };
    let form = read_form(&app, request, route.takes_a_file()).await?;
    match route.run {
        Run::Open(run) => open(run, OpenCall { app, form, request_id, key, operation: route.path }).await,
        _ => Err(Failure::NotSignedIn),
    }
}

/// A request of whom nobody knows who he is.
struct OpenCall {
    /// Everything it may touch.
    app: App,
    /// Its fields.
    form: Form,
    request_id: String,
    key: Option<String>,
    operation: &'static str,
}

async fn open(which: Open, call: OpenCall) -> Result<Answer, Failure> {
    match which {
        Open::Login => login(call).await,
        Open::SetPassword => set_password(call).await,
    }
}

pub(super) async fn run(which: Account, call: Call) -> Result<Answer, Failure> {
    match which {
        Account::Logout => logout(call).await,
        Account::LogoutEverywhere => logout_everywhere(call).await,
        Account::EditPassword => edit_password(call).await,
        Account::ResetPassword => reset_password(call).await,
        Account::Totp => totp(call).await,
        Account::TotpOn => totp_on(call).await,
        Account::TotpOff => totp_off(call).await,
        Account::Add => add(call).await,
        Account::List => list(call).await,
        Account::State => state(call).await,
        Account::Subject => subject(call).await,
    }
}

async fn login(mut call: OpenCall) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let (name, password) = (form.text("name", MAX_NAME), form.text("password", MAX_PASSWORD));
    let totp = form.optional_text("totp", 10);
    form.finish().map_err(Failure::Fields)?;
    let app = &call.app;
    let shown = Shown { name: &name, password: &password, totp: totp.as_deref() };
    let signed_in = app.sign_in.sign_in(shown, call.request_id).await?;
    let token = signed_in.token.text();
    let answer = Answer::new(&json!({
        "token": token,
        "csrf": app.ledger.secrets().csrf_token(&signed_in.token.id),
        "expires_date": signed_in.ends_at_ms / 1000,
        "id": signed_in.account_id,
        "name": signed_in.name,
        "role": signed_in.role.name(),
        "user_id": signed_in.role.employee_id(),
    }))?;
    Ok(answer.with_cookie(&session_cookie(app, &signed_in)))
}

/// The cookie of a session that has begun.
pub(super) fn session_cookie(app: &App, signed_in: &SignedIn) -> String {
    let lasts_s = signed_in.ends_at_ms.saturating_sub(app.ledger.clock().now_ms()) / 1000;
    cookie(app, &signed_in.token.text(), lasts_s)
}

/// The cookie of a session. Where the public URL is https no other host and no plain connection sees it; over http a browser
/// would not send one that is `Secure`.
fn cookie(app: &App, value: &str, lasts_s: i64) -> String {
    let secure = if app.is_https() { "; Secure" } else { "" };
    format!("{}={value}; Path=/; Max-Age={lasts_s}; HttpOnly; SameSite=Strict{secure}", app.cookie_name())
}

async fn set_password(mut call: OpenCall) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let (code, password) = (form.text("code", 200), form.text("password", MAX_PASSWORD));
    let name = form.sent_text("name", MAX_NAME);
    let canonical = form.finish().map_err(Failure::Fields)?;
    let request_mac = call.app.ledger.secrets().request_mac(&canonical);
    let asked = ByCode {
        code: &code,
        name: name.as_deref(),
        password: &password,
        receipt: call.key.map(|key| (call.operation, key, request_mac)),
    };
    let (id, name, replayed) = call.app.sign_in.set_password(&asked, call.request_id).await?;
    Ok(Answer::new(&json!({"id": id, "name": name}))?.replayed(replayed))
}

/// Ends the session, or cuts the token short.
async fn logout(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let store = call.app.ledger.store();
    match &call.proof {
        // A key ends when it is revoked, a signature with its request.
        None | Some(Proof::MachineKey | Proof::Signature) => {}
        Some(Proof::Session(session)) => directory::end_session(store, &session.id).await?,
        Some(Proof::Token(token)) => {
            let _ = directory::revoke_token(store, &token.id, token.expires_at_s, None).await?;
            call.app.refresh_revoked().await?;
        }
    }
    Ok(Answer::new(&json!(1))?.with_cookie(&cookie(&call.app, "", 0)))
}

/// The account of whoever calls.
async fn own_account(call: &Call) -> Result<AccountRow, Failure> {
    let store = call.app.ledger.store();
    let account = match (&call.proof, call.caller) {
        (Some(Proof::Session(session)), _) => accounts::account(store, session.account_id).await?,
        (_, Caller::OperatorAccount(id) | Caller::AuditorAccount(id)) => accounts::account(store, id).await?,
        (_, Caller::Employee(id)) => accounts::account_of_employee(store, id).await?,
        _ => None,
    };
    Ok(account.ok_or(Refusal::NoSuchMember)?)
}

async fn logout_everywhere(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let account = own_account(&call).await?;
    let done = call.app.sign_in.sign_out_everywhere(account.id, &call.meta).await?;
    Ok(Answer::of(&done, &json!({"id": done.id}))?.with_cookie(&cookie(&call.app, "", 0)))
}

async fn edit_password(mut call: Call) -> Result<Answer, Failure> {
    let (old, new) = (call.form.text("old", MAX_PASSWORD), call.form.text("new", MAX_PASSWORD));
    call.checked()?;
    let account = own_account(&call).await?;
    let done = call.app.sign_in.change_password(account.id, (&old, &new), &call.meta).await?;
    Ok(Answer::of(&done, &json!({"id": done.id}))?.with_cookie(&cookie(&call.app, "", 0)))
}

/// What is answered of a code: it is shown to whoever asked for it, and to nobody else.
fn invited_json(call: &Call, invited: &Invited) -> Value {
    let base = call.app.options.public_url.trim_end_matches('/');
    json!({
        "id": invited.account_id,
        "code": invited.code,
        "url": format!("{base}/setup#{}", invited.code),
        "expires_date": invited.lapses_at_ms / 1000,
    })
}

async fn reset_password(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let employee_id = form.optional_int("id", 1, MAX_ID);
    let name = form.sent_text("name", MAX_NAME);
    let without_totp = form.flag("totp_off", false);
    match (employee_id, &name) {
        (None, None) if !form.has_error("id") && !form.has_error("name") => {
            form.wrong("id", Wrong::Required);
        }
        (Some(_), Some(_)) => form.wrong("name", Wrong::NotTogetherWith("id")),
        _ => {}
    }
    call.checked()?;
    let store = call.app.ledger.store();
    let account_id = match (employee_id, name) {
        (Some(id), _) => accounts::account_of_employee(store, id).await?.map(|account| account.id),
        (_, name) => match name.as_deref().and_then(read_name) {
            Some(name) => directory::account_named(store, &name).await?,
            None => None,
        },
    };
    let account_id = account_id.ok_or(Refusal::NoSuchMember)?;
    let invited = call.app.sign_in.reset(account_id, without_totp, &call.meta).await?;
    Ok(Answer::new(&invited_json(&call, &invited))?.replayed(invited.replayed))
}

async fn totp(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let account = own_account(&call).await?;
    if account.totp != 0 {
        // Its secret was shown when it was set up, and is shown no more.
        return Answer::new(&json!({"state": 1, "secret": "", "url": ""}));
    }
    let secret = call.app.sign_in.new_totp(&account).await?;
    let (secret, url) = totp_url(&secret, &account.name);
    Answer::new(&json!({"state": 0, "secret": secret, "url": url}))
}

async fn totp_on(mut call: Call) -> Result<Answer, Failure> {
    let code = call.form.text("code", 10);
    call.checked()?;
    let account = own_account(&call).await?;
    let done = call.app.sign_in.enable_totp(account.id, &code, &call.meta).await?;
    Answer::of(&done, &json!({"state": 1}))
}

async fn totp_off(mut call: Call) -> Result<Answer, Failure> {
    let password = call.form.text("password", MAX_PASSWORD);
    call.checked()?;
    let account = own_account(&call).await?;
    let done = call.app.sign_in.disable_totp(account.id, &password, &call.meta).await?;
    Answer::of(&done, &json!({"state": 0}))
}

async fn add(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let name = form.text("name", MAX_NAME);
    let role = form.one_of("role", ROLES);
    if role.is_none() {
        form.wrong("role", Wrong::Required);
    }
    let employee_id = form.optional_int("user_id", 1, MAX_ID);
    if role == Some("employee") && employee_id.is_none() {
        form.wrong("user_id", Wrong::Required);
    }
    call.checked()?;
    if employee_id.is_some() && role != Some("employee") {
        // A key that was used for another request is told first.
        call.app.ledger.replay::<Stream>(&call.meta).await?;
        return Err(Failure::Fields(vec![("user_id", Wrong::NotTogetherWith("role"))]));
    }
    let role = role.and_then(|role| AccountRole::named(role, employee_id.unwrap_or_default()));
    let role = role.ok_or(Failure::NotThere)?;
    let invited = call.app.sign_in.invite(role, &name, &call.meta).await?;
    Ok(Answer::new(&invited_json(&call, &invited))?.replayed(invited.replayed))
}

async fn list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let row = |account: &AccountRow| {
        json!({
            "id": account.id,
            "name": account.name,
            "role": account.role.name(),
            "user_id": account.role.employee_id(),
            "state": i64::from(account.active),
            "has_password": i64::from(account.passwords > 0),
            "totp": i64::from(account.totp != 0),
        })
    };
    let accounts = accounts::accounts(call.app.ledger.store(), slice).await?;
    let answer = Answer::new(&accounts.iter().map(row).collect::<Vec<_>>())?;
    Ok(answer.showing(accounts.iter().map(|account| Person::Account(account.id))))
}

async fn state(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let active = call.form.int("state", 0, 1) == 1;
    call.checked()?;
    let done = call.app.sign_in.set_active(id, active, &call.meta).await?;
    Answer::of(&done, &json!({"id": done.id, "state": i64::from(done.state.active)}))
}

async fn subject(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let id = form.id("id");
    let (issuer, subject) = (form.text("issuer", 255), form.optional_text("subject", 255));
    call.checked()?;
    let named = subject.as_deref().filter(|subject| !subject.is_empty());
    let named = named.map(|subject| (issuer.trim(), subject));
    let done = call.app.sign_in.link_subject(id, named, &call.meta).await?;
    Answer::of(&done, &json!({"id": done.id, "linked": i64::from(done.state.subject != 0)}))
}
