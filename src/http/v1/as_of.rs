//! What was shown then: a coupon, a member's list, a definition, or any page that follows from events.

use super::{AT, Ask, Method, Page, Resource, Run};
use crate::audit::at::{AsOf, At};
use crate::coupon::Coupon;
use crate::entity::fold;
use crate::http::Failure;
use crate::http::as_of::{Answered, Question, Source, answer, may_call, rests_on_all, route};
use crate::http::routes::{Holds, Route, optional, required};
use crate::identity::Caller;
use crate::refusal::{Refusal, Wrong};
use crate::store::StreamId;
use crate::value::MAX_ID;

macro_rules! shown {
    ($data:literal) => {
        concat!(r#"{"position":12,"at_ms":1543026701000,"at":"2018-11-24 10:31:41","data":"#, $data, "}")
    };
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/coupons/{id}",
        about: "What its holder would have been shown of a coupon then, from events alone: the data of \
                /client/couponinfo, without names and pictures",
        parts: &[required("id", Holds::Id, "會員電子券ID")],
        query: &[AT],
        produces: "application/json",
        example: shown!(r#"{"id":7,"member_id":431,"coupon_id":1,"is_read":1}"#),
        run: Run::CouponAsOf,
    },
    Resource {
        method: Method::Get,
        path: "/v1/members/{id}/coupons",
        about: "What a member would have been shown of his coupons then, from events alone: the data of /client/couponlist",
        parts: &[required("id", Holds::Id, "會員ID")],
        query: &[
            AT,
            required("state", Holds::Int(0, 2), "0 in hand, 1 used, given away or voided, 2 past its end"),
            optional("page", Holds::Int(1, MAX_ID), "from 1; default 1"),
            optional("limit", Holds::Int(1, 100), "default 10"),
            optional("before_id", Holds::Id, "instead of page: rows with smaller ids"),
        ],
        produces: "application/json",
        example: shown!(r#"[{"id":7,"member_id":431,"coupon_id":1,"is_read":1}]"#),
        run: Run::MemberAsOf,
    },
    Resource {
        method: Method::Get,
        path: "/v1/definitions/{id}",
        about: "What an operator would have been shown of a definition then, from events alone: the data of \
                /elecoupons/info. The whole ledger is replayed for it, one question at a time",
        parts: &[required("id", Holds::Id, "電子券ID")],
        query: &[AT],
        produces: "application/json",
        example: shown!(r#"{"id":1,"type":1,"num":20,"inventory":19}"#),
        run: Run::DefinitionAsOf,
    },
    Resource {
        method: Method::Get,
        path: "/v1/as-of/{manual_page}/{manual_call}",
        about: "What one of the manual's reading routes would have answered then, from events alone: \
                /v1/as-of/client/couponlist?at=1200&caller=member:431&state=0. The route's own fields stand in the query. \
                Routes that rest on the directory, on the progress of jobs or on a secret are refused; names and pictures \
                are empty. docs/audit.md lists what is answered",
        parts: &[
            required("manual_page", Holds::Text(40), "`client`"),
            required("manual_call", Holds::Text(40), "`couponlist`"),
        ],
        query: &[
            AT,
            required(
                "caller",
                Holds::Text(40),
                "as whom: `member:431`, `partner:2`, `operator` or `auditor`",
            ),
        ],
        produces: "application/json",
        example: shown!(r#"[{"id":7,"member_id":431,"coupon_id":1,"is_read":1}]"#),
        run: Run::RouteAsOf,
    },
];

pub(super) async fn route_as_of(mut ask: Ask) -> Result<Page, Failure> {
    let at = ask.at();
    let path = format!("/{}/{}", ask.form.text("manual_page", 40), ask.form.text("manual_call", 40));
    let caller = Caller::parse(&ask.form.text("caller", 40)).ok_or(Wrong::NotACaller);
    let asked = match route(&path) {
        Err(why) => {
            ask.form.wrong("manual_call", why);
            None
        }
        Ok(route) => match caller.and_then(|caller| may_call(route, caller).map(|()| caller)) {
            Ok(caller) => Some((route, caller)),
            Err(why) => {
                ask.form.wrong("caller", why);
                None
            }
        },
    };
    ask.checked()?;
    let as_of = ask.as_of(at).await?;
    match asked {
        Some((route, caller)) => shown(ask, as_of, route, caller).await,
        None => Err(Failure::Fields(vec![("manual_call", Wrong::NotFromEvents)])),
    }
}

pub(super) async fn member_as_of(mut ask: Ask) -> Result<Page, Failure> {
    let (at, id) = (ask.at(), ask.form.id("id"));
    ask.form.int("state", 0, 2);
    show(ask, at, "/client/couponlist", Caller::Member(id)).await
}

pub(super) async fn definition_as_of(mut ask: Ask) -> Result<Page, Failure> {
    let at = ask.at();
    ask.form.id("id");
    show(ask, at, "/elecoupons/info", Caller::Operator).await
}

/// As whoever held it then: he is read from its own stream.
pub(super) async fn coupon_as_of(mut ask: Ask) -> Result<Page, Failure> {
    let (at, id) = (ask.at(), ask.form.id("id"));
    ask.checked()?;
    let as_of = ask.as_of(at).await?;
    let mut stream = ask.app.ledger.store().load_one(StreamId { kind: "coupon", id }).await?;
    stream.retain(|event| event.position <= as_of.position);
    if stream.is_empty() {
        return Err(Refusal::NoSuchCoupon.into());
    }
    let (coupon, _) = fold::<Coupon>(&stream).map_err(|corrupt| Failure::Execute(corrupt.into()))?;
    let route = route("/client/couponinfo").map_err(|why| Failure::Fields(vec![("id", why)]))?;
    shown(ask, as_of, route, Caller::Member(coupon.holder_id)).await
}

async fn show(mut ask: Ask, at: Option<At>, path: &str, caller: Caller) -> Result<Page, Failure> {
    ask.checked()?;
    let as_of = ask.as_of(at).await?;
    let route = route(path).map_err(|why| Failure::Fields(vec![("id", why)]))?;
    shown(ask, as_of, route, caller).await
}

async fn shown(ask: Ask, as_of: AsOf, route: &'static Route, caller: Caller) -> Result<Page, Failure> {
    let Ask { app, form, language, .. } = ask;
    let source = Source {
        store: app.ledger.store().clone(),
        secrets: app.ledger.secrets().clone(),
        seal: app.ledger.seal().clone(),
        zone: app.ledger.zone(),
        options: app.options.clone(),
    };
    // Copies of the whole ledger are made one at a time, however many ask.
    let _alone = if rests_on_all(route) { Some(app.copying.lock().await) } else { None };
    let question = Question { route, caller, form, language };
    let Answered { text, people } = answer(&source, as_of, question).await?;
    Ok(Page::new("application/json", text).showing(people))
}
