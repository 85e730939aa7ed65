//! What a route would have answered then: its own handler, run on the ledger as it was, with a clock that stands there.
//!
//! Only routes whose answers follow from events. Where they show personal data beside (names, pictures), they show none:
//! the directory tells of today. A copy of the whole ledger is made for what employees, operators and partners see.

use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;

use super::form::Form;
use super::routes::{self, Route};
use super::{Answer, App, Call, Failure, HttpOptions, run};
use crate::access::{self, Principal, Resource};
use crate::audit::as_of::{self, AsOfError, Of};
use crate::audit::at::AsOf;
use crate::audit::walk::Walk;
use crate::clock::{Clock, Zone};
use crate::directory::Seal;
use crate::identity::Caller;
use crate::ledger::{ExecuteError, Ledger, LedgerOptions, Meta};
use crate::reading::Person;
use crate::refusal::{Language, Wrong};
use crate::secrets::Secrets;
use crate::store::{BUCKET, Scratch, Statement, Store, StoreError};

/// Commands that one question can have under way: opening a coupon is the only one.
const CAPACITY: usize = 16;

/// What is answered from a member's own coupons and the shops.
const OF_MEMBER: &[&str] = &[
    "/client/couponlist",
    "/client/couponinfo",
    "/client/couponcount",
    "/client/getauditcoupon",
    "/client/auditcouponinfo",
    "/client/shopid",
];

/// What is answered from the whole ledger.
const OF_ALL: &[&str] = &[
    "/approval/list",
    "/approval/info",
    "/elecoupons/info",
    "/elecoupons/getlist",
    "/shop/get",
    "/shop/list",
    "/auditelecoupon/getlist",
    "/auditelecoupon/getshoplist",
    "/order/get",
    "/order/list",
    "/order/cancelago",
    "/order/getorderelecoupon",
    "/orderamount/info",
    "/orderamount/getlist",
    "/orderelecoupon/couponlist",
    "/orderelecoupon/getlist",
    "/goodsgroup/getlist",
    "/goodsgroup/info",
    "/goodselecoupon/couponlist",
    "/goods/get",
    "/birthdaycoupon/get",
    "/business/list",
    "/business/get",
    "/business/couponlist",
    "/business/getattract",
    "/business/invenlist",
    "/businesshome/get",
    "/businesshome/auditcoupon",
    "/businesshome/attractcoupon",
    "/statistics/getattract",
    "/wechat/businesscoupon",
    "/wechat/auditlist",
];

/// Every route that is answered as of then.
pub fn routes() -> impl Iterator<Item = &'static str> {
    OF_MEMBER.iter().chain(OF_ALL).copied()
}

/// The ledger that is asked.
pub struct Source {
    /// Its log.
    pub store: Store,
    /// Its keys.
    pub secrets: Secrets,
    /// What opens members' texts.
    pub seal: Seal,
    /// Its calendar.
    pub zone: Zone,
    /// The settings of its server.
    pub options: Arc<HttpOptions>,
}

/// What is asked.
pub struct Question {
    /// Which route.
    pub route: &'static Route,
    /// As whom.
    pub caller: Caller,
    /// The route's fields.
    pub form: Form,
    /// The language of a refusal.
    pub language: Language,
}

/// The route of this path, if it is answered as of then.
pub fn route(path: &str) -> Result<&'static Route, Wrong> {
    let route = routes::ALL.iter().find(|route| route.path == path);
    route.filter(|route| routes().any(|path| path == route.path)).ok_or(Wrong::NotFromEvents)
}

/// Whether somebody may call a route. Whoever an employee was then, and in which shop, no event says.
pub fn may_call(route: &Route, caller: Caller) -> Result<(), Wrong> {
    let of_route = access::authorize(&Principal::plain(caller), route.path, Resource::Unknown).is_ok();
    let known = !matches!(caller, Caller::Employee(_) | Caller::System);
    if of_route && known { Ok(()) } else { Err(Wrong::NotACaller) }
}

impl From<AsOfError> for Failure {
    fn from(error: AsOfError) -> Self {
        match error {
            AsOfError::Store(error) => error.into(),
            AsOfError::Corrupt(corrupt) => Self::Execute(ExecuteError::Corrupt(corrupt)),
            AsOfError::Open(error) => {
                tracing::error!(%error, "no copy of the ledger can be made");
                Self::TooSlow
            }
        }
    }
}

/// Whether a copy of the whole ledger is made for an answer.
#[must_use]
pub fn rests_on_all(route: &Route) -> bool {
    !OF_MEMBER.contains(&route.path)
}

/// What was shown, and when that was.
#[derive(Serialize)]
struct Shown<'a> {
    position: i64,
    at_ms: i64,
    at: String,
    data: &'a RawValue,
}

/// An answer, and whose personal data is in it: the texts of reviews.
pub struct Answered {
    /// A JSON object: the route's `data`, and the position and time that it is as of.
    pub text: String,
    /// Those whose reading is to be told before it is shown.
    pub people: Vec<Person>,
}

/// What a route would have answered then. Whoever shows it tells first who is read.
pub async fn answer(source: &Source, as_of: AsOf, question: Question) -> Result<Answered, Failure> {
    let scratch = copy(source, as_of, &question).await?;
    let answered = ask(source, as_of, question, scratch.store()).await;
    scratch.close().await;
    let Answer { data, people, .. } = answered?;
    let unwritable = |error: serde_json::Error| Failure::Execute(error.into());
    let data = serde_json::from_str(&data).map_err(unwritable)?;
    let AsOf { position, at_ms } = as_of;
    let shown = Shown { position, at_ms, at: source.zone.date_time(at_ms), data };
    Ok(Answered { text: serde_json::to_string(&shown).map_err(unwritable)?, people })
}

/// A failure as one sentence, for who reads no codes.
#[must_use]
pub fn sentence(failure: &Failure) -> String {
    match failure {
        Failure::Execute(error) => error.to_string(),
        Failure::Fields(wrong) => {
            wrong.iter().map(|(field, why)| why.text(field, Language::English)).collect::<Vec<_>>().join("; ")
        }
        other => other.answer(Language::English, "as-of").wording.text(Language::English).to_owned(),
    }
}

async fn copy(source: &Source, as_of: AsOf, question: &Question) -> Result<Scratch, AsOfError> {
    let store = &source.store;
    if let (Caller::Member(member_id), true) = (question.caller, OF_MEMBER.contains(&question.route.path)) {
        // One coupon is read by its id; a list is of those that the log says are his.
        let of = match question.form.peek_id("id").filter(|_| question.route.path == "/client/couponinfo") {
            Some(coupon_id) => Of::Coupon(coupon_id),
            None => Of::Member(member_id),
        };
        return as_of::some(store, &source.seal, as_of, of).await;
    }
    let scratch = Scratch::temporary().await?;
    match as_of::whole(&scratch, store, as_of).await {
        Ok(()) => Ok(scratch),
        Err(error) => {
            scratch.close().await;
            Err(error)
        }
    }
}

async fn ask(source: &Source, as_of: AsOf, question: Question, store: Store) -> Result<Answer, Failure> {
    ask_app(app_at(source, as_of, store), question).await
}

/// A server of a ledger as it was, whose clock stands there.
fn app_at(source: &Source, as_of: AsOf, store: Store) -> App {
    let ledger = Ledger::start(LedgerOptions {
        store,
        secrets: source.secrets.clone(),
        seal: source.seal.clone(),
        zone: source.zone,
        clock: Clock::manual(as_of.at_ms),
        capacity: CAPACITY,
    });
    App::with_options(ledger, source.options.clone())
}

async fn ask_app(app: App, question: Question) -> Result<Answer, Failure> {
    let Question { route, caller, form, language } = question;
    let at = app.ledger.now();
    let meta = Meta { caller, at, request_id: "as-of".to_owned(), receipt: None, job_id: None };
    let (canonical, operation) = (String::new(), route.path);
    let call = Call {
        app,
        caller,
        who: Principal::plain(caller),
        proof: None,
        employee: None,
        form,
        meta,
        key: None,
        operation,
        canonical,
        language,
    };
    run(route, call).await
}

/// A [`Walk`] that is asked what routes would have answered where it stands.
pub struct AskedWalk {
    walk: Walk,
    /// The walk's own ledger.
    source: Source,
    app: App,
}

impl AskedWalk {
    /// Begins before the first event of the ledger that is asked.
    pub async fn begin(source: Source) -> Result<Self, AsOfError> {
        let scratch = Scratch::in_memory().await?;
        let walk = Walk::begin(source.store.clone(), source.seal.clone(), scratch);
        let source = Source { store: walk.store(), ..source };
        let app = app_at(&source, walk.at(), walk.store());
        Ok(Self { walk, source, app })
    }

    /// Goes on to a later point.
    pub async fn go_on(&mut self, to: AsOf) -> Result<(), AsOfError> {
        self.walk.go_on(to).await?;
        self.app = app_at(&self.source, to, self.walk.store());
        Ok(())
    }

    /// The ledger as it was here, see [`Walk::store`].
    #[must_use]
    pub fn store(&self) -> Store {
        self.walk.store()
    }

    /// What a route would have answered here: its own `data`.
    pub async fn answer(&self, question: Question) -> Result<String, Failure> {
        // Opening a coupon is an event, which must not come to lie where the log goes on.
        if question.route.path == "/client/couponinfo" && self.is_unread(&question).await? {
            let scratch = copy(&self.source, self.walk.at(), &question).await?;
            let answered = ask(&self.source, self.walk.at(), question, scratch.store()).await;
            scratch.close().await;
            return Ok(answered?.data);
        }
        Ok(ask_app(self.app.clone(), question).await?.data)
    }

    /// Ends it, and nothing is left of it.
    pub async fn close(self) {
        self.walk.close().await;
    }

    async fn is_unread(&self, question: &Question) -> Result<bool, StoreError> {
        let (Caller::Member(member_id), Some(id)) = (question.caller, question.form.peek_id("id")) else {
            return Ok(false);
        };
        let sql = "SELECT 1 FROM wallet_v1
                   WHERE bucket = $1 AND member_id = $2 AND coupon_id = $3 AND is_read = 0";
        let unread = Statement::new(sql, [BUCKET.into(), member_id.into(), id.into()]);
        Ok(!self.source.store.query(unread).await?.is_empty())
    }
}
