//! The table of every route: which fields it takes, what it answers. The router, the OpenAPI
//! description and docs/api.md are made from it; a test holds the handlers against it.

mod account;
mod approvals;
mod client;
mod counter;
mod directory;
mod import;
mod jobs;
mod offices;
mod operator;
mod orders;
mod partners;
mod rules;
mod statistics;

use std::sync::LazyLock;

use super::account::{Account, Open};
use super::approvals::Approvals;
use super::client::Client;
use super::counter::Counter;
use super::directory::Directory;
use super::import::Import;
use super::jobs::Jobs;
use super::offices::Offices;
use super::operator::Operator;
use super::orders::Orders;
use super::partners::Partners;
use super::rules::Rules;
use super::statistics::Statistics;

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// 1 to 2^53 − 1.
    Id,
    /// A whole number between two.
    Int(i64, i64),
    /// The same, or an empty text, which is none.
    IntOrBlank(i64, i64),
    /// 0 or 1.
    Flag,
    /// A text of at most so many characters.
    Text(i64),
    /// `2018-11-01`
    Day,
    /// `10.00`
    Money,
    /// `1,2,3`, up to this number.
    Ints(i64),
    /// A day, or a number of days.
    DayOrDays,
    /// A JSON list of objects, or a text that is one.
    Rows,
    /// A table as CSV.
    Csv,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// A field of a request.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub holds: Holds,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub about: &'static str,
}

/// Which handler runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Of the member's side.
    Client(Client),
    /// Of the employees' and operators' side.
    Operator(Operator),
    /// Of mass sends, recalls and extensions.
    Jobs(Jobs),
    /// Of the counter.
    Counter(Counter),
    /// Of orders.
    Orders(Orders),
    /// Of imports.
    Import(Import),
    /// Of members, levels, tags and employees.
    Directory(Directory),
    /// Of rules and what they grant.
    Rules(Rules),
    /// Of partners.
    Partners(Partners),
    /// Of accounts.
    Account(Account),
    /// Of signing in, which nobody has done yet who calls them.
    Open(Open),
    /// Of offices and their rights.
    Offices(Offices),
    /// Of statistics.
    Statistics(Statistics),
    /// Of approvals.
    Approvals(Approvals),
}

/// A route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Its path under the root and under the base path.
    pub path: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Whether it writes, and so takes an `Idempotency-Key`.
    pub writes: bool,
    /// Its fields.
    pub fields: &'static [Field],
    /// What its commands can be refused with, in the order of precedence.
    pub refusals: &'static [i64],
    /// An example of a request, as JSON.
    pub request: &'static str,
    /// An example of `data`, as JSON.
    pub data: &'static str,
    /// Which handler runs.
    pub run: Run,
}

impl Route {
    /// Whether it takes a whole file: in the body itself, as `text/csv`, or in a field.
    #[must_use]
    pub fn takes_a_file(&self) -> bool {
        matches!(self.run, Run::Import(_))
    }
}

pub(super) const fn required(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, required: true, about }
}

pub(super) const fn optional(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, required: false, about }
}

const MAX_ID: i64 = crate::value::MAX_ID;
const PAGE: Field = optional("page", Holds::Int(1, MAX_ID), "頁碼, from 1; default 1");
const LIMIT: Field = optional("limit", Holds::Int(1, 100), "每頁顯示個數; default 10");
const BEFORE: Field =
    optional("before_id", Holds::Id, "instead of page: rows with smaller ids, without repeats or omissions");
const COUPON: Field = required("id", Holds::Id, "會員電子券ID");

macro_rules! definition {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":2,"type":1,"title":"測試電子券","num":20,"inventory":20,"code":0,"deduction":"10.00","money":"100.00","validity_type":1,"validity":0,"start_date":"2018-11-01","end_date":"2019-01-01","use_week":"1,2,3","is_giving":1,"get_limit_type":1,"get_limit":2,"use_limit":1,"rules":"我是使用規則","user_id":1000,"start_num":"2018-11-01","end_num":"2019-01-01","is_self":1,"is_claim":0,"need_scan":0,"shop_ids":"","level_ids":"","state":1}"#,
            $after
        )
    };
}

use definition;

/// Every route of the manual that is served, and ours among them.
pub static ALL: LazyLock<Vec<Route>> = LazyLock::new(|| {
    [
        client::ROUTES,
        operator::ROUTES,
        directory::ROUTES,
        counter::ROUTES,
        jobs::ROUTES,
        orders::ROUTES,
        import::ROUTES,
        rules::ROUTES,
        partners::ROUTES,
        account::ROUTES,
        offices::ROUTES,
        statistics::ROUTES,
        approvals::ROUTES,
    ]
    .concat()
});
