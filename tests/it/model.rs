//! An independent, naive model of the HTTP API: members, the counter, issuing, jobs, orders, partners, imports, and
//! what levels and birthdays grant.
//!
//! It is written from the contract alone and shares no code with the server, so that a seeded simulation can send
//! every call to both and compare the whole answers. It keeps plain lists in memory and computes every answer from
//! them anew: no streams, no read models, no counters, and expiry and lapse are only ever a look at the time.
//!
//! It promises the `code` and, where the contract fixes it, the `data` of every answer. Ids and gift codes are the
//! server's choice: the model takes them from the server's answer, and only where it expects a success itself.
//! It must never look at anything else in that answer. Ill-formed calls and idempotency keys are not modelled.

mod counter;
mod gifts;
mod grants;
mod imports;
mod issue;
mod jobs;
mod orders;
mod partners;
mod redeem;
mod rules;
mod said;
mod wallet;
mod wire;

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use chrono_tz::Tz;
use serde_json::Value;

pub use grants::Given;
pub use jobs::{Shift, State};
pub use orders::{Chosen, Grants};
use wire::{page_of, refusal};

const HOUR_MS: i64 = 60 * 60 * 1000;
/// "It lapses after 24 h (configurable) or at the end date": the model knows the default only.
const GIFT_LAPSES_AFTER_MS: i64 = 24 * HOUR_MS;
const REVERSIBLE_FOR_MS: i64 = 24 * HOUR_MS;
/// "Five wrong codes lock that gift".
const WRONG_CODES_PER_GIFT: i64 = 5;
/// "every failure counts toward at most ten per caller and hour (then 9001)".
const FAILURES_PER_HOUR: usize = 10;
/// "The code is a number 100000–999999".
const GIFT_CODES: std::ops::RangeInclusive<i64> = 100_000..=999_999;

/// The table of codes of the contract, as far as the modelled routes can answer them.
mod code {
    pub const NO_SUCH_PERSON: i64 = 310;
    pub const WRONG_FIELDS: i64 = 401;
    pub const NOT_ALLOWED: i64 = 1002;
    pub const NO_SUCH_COUPON: i64 = 2001;
    pub const NO_SUCH_DEFINITION: i64 = 2002;
    pub const NO_SUCH_SHOP: i64 = 2003;
    pub const NO_SUCH_REDEMPTION: i64 = 2004;
    pub const NO_SUCH_RULE: i64 = 2005;
    pub const NO_SUCH_ORDER: i64 = 2006;
    pub const ALREADY_USED: i64 = 3001;
    pub const NOT_AT_THIS_SHOP: i64 = 3002;
    pub const BEING_GIVEN: i64 = 3003;
    pub const VOIDED: i64 = 3004;
    pub const ALREADY_REVIEWED: i64 = 3005;
    pub const NOT_USED_YET: i64 = 3006;
    pub const NOT_SELF_REDEEMABLE: i64 = 3007;
    pub const NOT_GIVABLE: i64 = 3008;
    pub const GIVEN_AWAY: i64 = 3009;
    pub const QR_REQUIRED: i64 = 3010;
    pub const ORDER_CANCELLED: i64 = 3011;
    pub const NOT_REVERSIBLE: i64 = 3012;
    pub const NOT_STARTED: i64 = 4001;
    pub const EXPIRED: i64 = 4002;
    pub const WRONG_WEEKDAY: i64 = 4003;
    pub const SOLD_OUT: i64 = 5001;
    pub const LIMIT_REACHED: i64 = 5002;
    pub const LEVEL_NOT_ELIGIBLE: i64 = 5003;
    pub const AMOUNT_TOO_LOW: i64 = 5004;
    pub const NOT_COMBINABLE: i64 = 5005;
    pub const NOT_ON_OFFER: i64 = 5006;
    pub const WRONG_GIFT_CODE: i64 = 7001;
    pub const GIFT_LOCKED: i64 = 7002;
    pub const NOTHING_TO_RECEIVE: i64 = 7003;
    pub const OWN_GIFT: i64 = 7004;
    pub const WRONG_COUNTER_CODE: i64 = 7005;
    pub const TOO_MANY_REQUESTS: i64 = 9001;
}

/// "How it was born": the ways a coupon is born on the modelled routes.
const COME_MASS_SEND: i64 = 0;
const COME_ORDER_AMOUNT: i64 = 1;
const COME_PRODUCT_GROUP: i64 = 2;
const COME_LEVEL: i64 = 3;
const COME_ONE_TO_ONE: i64 = 5;
const COME_BIRTHDAY: i64 = 6;
const COME_PARTNER: i64 = 7;
const COME_CLAIMED: i64 = 8;
const COME_IMPORTED: i64 = 9;

/// Who makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Member(i64),
    Employee(i64),
    Operator,
    Partner(i64),
}

/// What the contract says must be answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Expected {
    pub code: i64,
    pub data: Data,
}

/// The expected `data` of an answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Compare whole. Where the server's id or gift code was itself unacceptable, a text that says what was wanted
    /// stands in its place, so that the comparison fails and shows it.
    Exactly(Value),
    /// The contract leaves it open, or the model does not follow it.
    Unpredictable,
}

/// A coupon definition (電子券), with the fields of `/elecoupons/add`.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "they are the fields of the wire, one by one")]
pub struct ModelDefinition {
    pub id: i64,
    /// The wire's `type`: 1 cash, 2 exchange.
    pub kind: i64,
    pub title: String,
    /// `"10.00"`; empty where an exchange coupon has none.
    pub deduction: String,
    /// 1 fixed dates, 2 counted from receipt, 3 until the member's card ends.
    pub validity_type: i64,
    /// A date `2018-11-01` for type 1, days until it starts for type 2.
    pub start_num: String,
    /// A date for type 1, days valid for type 2.
    pub end_num: String,
    /// Monday = 1 … Sunday = 7; empty = every day.
    pub use_week: Vec<u8>,
    pub is_giving: bool,
    /// 1 unlimited, 2 at most `get_limit`, 3 one at a time until its end date, 4 only `level_ids`.
    pub get_limit_type: i64,
    pub get_limit: i64,
    pub level_ids: Vec<i64>,
    /// "0 may not be combined with other coupons in an order, 1 may".
    pub use_limit: i64,
    /// The order amount from which a cash coupon counts, in cents.
    pub money: i64,
    pub rules: String,
    /// Empty = every own shop.
    pub shop_ids: Vec<i64>,
    pub is_self: bool,
    pub is_claim: bool,
    pub need_scan: bool,
    /// How many may be issued; 0 = unlimited.
    pub num: i64,
    /// Switched on.
    pub on: bool,
}

/// What the directory holds of a member.
#[derive(Debug, Clone)]
pub struct Member {
    pub nickname: String,
    pub headimgurl: String,
    pub level_id: i64,
    pub shop_id: i64,
    pub tag_ids: Vec<i64>,
    pub card_end: Option<NaiveDate>,
    pub birthday: Option<NaiveDate>,
}

/// A shop or a partner: they share one sequence of ids.
struct Shop {
    name: String,
    open: bool,
    /// A partner's telephone and address; none of an own shop.
    partner: Option<(String, String)>,
}

/// A member coupon (會員電子券). It has one row for each member who ever held it.
struct Coupon {
    id: i64,
    /// As it was at issue: "issued coupons keep their terms", and switching it off binds only the next issue.
    definition: ModelDefinition,
    start: NaiveDate,
    end: NaiveDate,
    issued_ms: i64,
    issued_to: i64,
    origin: Origin,
    holder: i64,
    rows: BTreeMap<i64, Row>,
    /// The redemption that stands, none once it was reversed.
    used_by_redemption: Option<i64>,
    voided: bool,
    /// The last gift that was neither received nor withdrawn; it may have lapsed.
    gift: Option<Gift>,
    /// The code with which the holder received it, if it came to him as a gift.
    received_with_code: Option<i64>,
    review: Option<Review>,
    /// How often anything has happened to it: a code for the counter is good for one such state.
    changes: u64,
}

/// What lies behind an issue: "`come`, `user_id`, `order_id`, `goods_id`"; the mass send and the allotment, 0 = none.
#[derive(Clone, Copy, Default)]
struct Origin {
    come: i64,
    user_id: i64,
    send_id: i64,
    order_id: i64,
    goods_id: i64,
    /// The partner's allotment from which it was taken.
    allotment_id: i64,
}

/// What one member sees of a coupon beyond what all its rows share.
struct Row {
    give_id: i64,
    is_read: bool,
    /// Once set, the row is frozen: "A giver's row is frozen at receipt."
    passed_on: Option<PassedOn>,
}

struct PassedOn {
    given_ms: i64,
    receive_id: i64,
}

struct Gift {
    code: i64,
    given_ms: i64,
    lapses_ms: i64,
    wrong_codes: i64,
}

struct Review {
    member_id: i64,
    text: String,
    score: i64,
    at_ms: i64,
}

/// A redemption (核銷). `by` is 0 when the member redeemed it himself, else the employee.
struct Redemption {
    id: i64,
    coupon_id: i64,
    member_id: i64,
    shop_id: i64,
    by: i64,
    at_ms: i64,
    reversed_ms: Option<i64>,
}

/// A code that a member was shown: "bound to the coupon's version, valid 60 s, single use".
struct CounterCode {
    coupon_id: i64,
    changes: u64,
    lapses_ms: i64,
}

struct Refusal {
    code: i64,
    data: Value,
}

type Answer = Result<Data, Refusal>;
type Check = Result<(), Refusal>;

/// One call, as the routes see it.
struct Call<'a> {
    now_ms: i64,
    body: &'a Value,
    /// The `data` of the server's answer, for the ids and codes that it chose.
    answered: &'a Value,
}

/// The whole world of the model.
pub struct Model {
    zone: Tz,
    /// The `user_id` of coupons that the operator issues; set it if the operator's token stands for an employee.
    pub operator_user_id: i64,
    /// The signed redemption URLs and their shops, as the server handed them out. Fill it to redeem coupons that
    /// need a scan.
    pub shop_urls: BTreeMap<String, i64>,
    members: BTreeMap<i64, Member>,
    shops: BTreeMap<i64, Shop>,
    /// The shop of each employee.
    employees: BTreeMap<i64, i64>,
    definitions: BTreeMap<i64, ModelDefinition>,
    coupons: BTreeMap<i64, Coupon>,
    redemptions: BTreeMap<i64, Redemption>,
    /// When each caller failed to receive or to look at a gift.
    gift_failures_ms: BTreeMap<i64, Vec<i64>>,
    counter_codes: BTreeMap<String, CounterCode>,
    jobs: BTreeMap<i64, jobs::Job>,
    orders: BTreeMap<i64, orders::Order>,
    allotments: BTreeMap<i64, partners::Allotment>,
    granting: grants::Granting,
    /// What was imported under each key; a file without one stands for itself.
    imported: BTreeMap<String, BTreeSet<i64>>,
    /// What was taken under each key: (allotment, coupon).
    taken: BTreeMap<String, BTreeMap<i64, i64>>,
    /// Of orders' amounts.
    rules: BTreeMap<i64, Grants>,
    /// Of goods.
    groups: BTreeMap<i64, Grants>,
    /// The ids that the server chose for the call that comes next, where its answer does not tell them.
    pub chosen: Chosen,
    /// The idempotency key of the call that comes next, for what is no mere repetition when it comes again.
    pub key: Option<String>,
}

impl Model {
    /// An empty world. `zone` is the merchant's: all days are its local days.
    pub fn new(zone: Tz) -> Model {
        Model {
            zone,
            operator_user_id: 0,
            shop_urls: BTreeMap::new(),
            members: BTreeMap::new(),
            shops: BTreeMap::new(),
            employees: BTreeMap::new(),
            definitions: BTreeMap::new(),
            coupons: BTreeMap::new(),
            redemptions: BTreeMap::new(),
            gift_failures_ms: BTreeMap::new(),
            counter_codes: BTreeMap::new(),
            jobs: BTreeMap::new(),
            orders: BTreeMap::new(),
            allotments: BTreeMap::new(),
            granting: grants::Granting::default(),
            imported: BTreeMap::new(),
            taken: BTreeMap::new(),
            rules: BTreeMap::new(),
            groups: BTreeMap::new(),
            chosen: Chosen::default(),
            key: None,
        }
    }

    // What the directory and the definitions hold. The driver calls these after it did the same to the server.

    /// Adds a member, who has reached the level that he comes with.
    pub fn add_member(&mut self, id: i64, member: Member) {
        self.reach(id, member.level_id);
        self.members.insert(id, member);
    }

    /// Moves a member to another shop and level, with other tags.
    pub fn move_member(&mut self, id: i64, shop_id: i64, level_id: i64, tag_ids: Vec<i64>) {
        if let Some(member) = self.members.get_mut(&id) {
            let is_new = member.level_id != level_id;
            (member.shop_id, member.level_id, member.tag_ids) = (shop_id, level_id, tag_ids);
            if is_new {
                self.reach(id, level_id);
            }
        }
    }

    /// Says when a member was born.
    pub fn set_birthday(&mut self, id: i64, birthday: Option<NaiveDate>) {
        if let Some(member) = self.members.get_mut(&id) {
            member.birthday = birthday;
        }
    }

    /// Adds an own shop.
    pub fn add_shop(&mut self, id: i64, name: &str, open: bool) {
        self.shops.insert(id, Shop { name: name.to_owned(), open, partner: None });
    }

    /// Opens or closes a shop.
    pub fn set_shop_open(&mut self, id: i64, open: bool) {
        if let Some(shop) = self.shops.get_mut(&id) {
            shop.open = open;
        }
    }

    /// Adds an employee of that shop.
    pub fn add_employee(&mut self, id: i64, shop_id: i64) {
        self.employees.insert(id, shop_id);
    }

    /// Adds a definition.
    pub fn add_definition(&mut self, definition: ModelDefinition) {
        self.definitions.insert(definition.id, definition);
    }

    /// Replaces all of a definition but its stock and its switch: "issued coupons keep their terms".
    pub fn edit_definition(&mut self, edited: ModelDefinition) {
        if let Some(definition) = self.definitions.get_mut(&edited.id) {
            *definition = ModelDefinition { num: definition.num, on: definition.on, ..edited };
        }
    }

    /// Switches a definition on or off.
    pub fn set_definition_on(&mut self, id: i64, on: bool) {
        if let Some(definition) = self.definitions.get_mut(&id) {
            definition.on = on;
        }
    }

    /// Sets how many coupons of a definition may be issued in all; 0 = unlimited.
    pub fn change_stock(&mut self, id: i64, new_num: i64) {
        if let Some(definition) = self.definitions.get_mut(&id) {
            definition.num = new_num;
        }
    }

    // What the driver asks to choose calls that lead somewhere, and to check what is no call of the model.

    /// In whose hand a coupon is, or was when it was used.
    pub fn holder(&self, coupon_id: i64) -> Option<i64> {
        self.coupons.get(&coupon_id).map(|coupon| coupon.holder)
    }

    /// Whether a coupon is neither used nor voided nor past its end date.
    pub fn is_fresh(&self, now_ms: i64, coupon_id: i64) -> bool {
        let is_fresh = |coupon: &Coupon| {
            coupon.used_by_redemption.is_none() && !coupon.voided && self.today(now_ms) <= coupon.end
        };
        self.coupons.get(&coupon_id).is_some_and(is_fresh)
    }

    /// Everyone who has ever held a coupon.
    pub fn holders(&self, coupon_id: i64) -> Vec<i64> {
        let coupon = self.coupons.get(&coupon_id);
        coupon.map_or_else(Vec::new, |coupon| coupon.rows.keys().copied().collect())
    }

    /// How many coupons of a definition count as issued.
    pub fn issued(&self, definition_id: i64) -> i64 {
        self.issued_of(definition_id).count() as i64
    }

    /// How many of each definition may be issued, 0 = unlimited, and how many are.
    pub fn stock(&self) -> BTreeMap<i64, (i64, i64)> {
        let mut stock: BTreeMap<i64, (i64, i64)> =
            self.definitions.values().map(|definition| (definition.id, (definition.num, 0))).collect();
        for coupon in self.coupons.values().filter(|coupon| !coupon.voided) {
            stock.entry(coupon.definition.id).or_default().1 += 1;
        }
        stock
    }

    /// How many each (member, definition) was issued: "gifts not counted, voided not counted".
    pub fn member_counts(&self) -> BTreeMap<(i64, i64), i64> {
        let mut counts = BTreeMap::new();
        for coupon in self.coupons.values().filter(|coupon| !coupon.voided) {
            *counts.entry((coupon.issued_to, coupon.definition.id)).or_default() += 1;
        }
        counts
    }

    /// How many each (member, definition) was issued that have not come to their end.
    pub fn unexpired_counts(&self, now_ms: i64) -> BTreeMap<(i64, i64), i64> {
        let today = self.today(now_ms);
        let mut counts = BTreeMap::new();
        for coupon in self.coupons.values().filter(|coupon| !coupon.voided && today <= coupon.end) {
            *counts.entry((coupon.issued_to, coupon.definition.id)).or_default() += 1;
        }
        counts
    }

    /// The definitions that a member could claim now, newest id first: what cangetcoupon lists.
    pub fn claimable(&self, now_ms: i64, member_id: i64) -> Vec<i64> {
        let claimable = self.definitions.values().rev().filter(|definition| definition.is_claim);
        claimable
            .map(|definition| definition.id)
            .filter(|id| self.can_issue(now_ms, *id, member_id).is_ok())
            .collect()
    }

    /// Applies one call at the instant `now_ms` (UTC) and returns what must be answered. `answered` is the server's
    /// whole envelope; only the ids and codes that the server chose are taken from it.
    pub fn call(&mut self, now_ms: i64, who: &Who, route: &str, body: &Value, answered: &Value) -> Expected {
        let call = Call { now_ms, body, answered: answered.get("data").unwrap_or(&Value::Null) };
        let answer = match *who {
            Who::Member(member_id) => self.call_of_member(&call, member_id, route),
            Who::Employee(employee_id) => self.call_of_employee(&call, employee_id, route),
            Who::Operator => self.call_of_operator(&call, route),
            Who::Partner(partner_id) => self.call_of_partner(&call, partner_id, route),
        };
        match answer {
            Ok(data) => Expected { code: 0, data },
            Err(refusal) => Expected { code: refusal.code, data: Data::Exactly(refusal.data) },
        }
    }

    /// Something happens to a coupon.
    fn change(&mut self, coupon_id: i64, change: impl FnOnce(&mut Coupon)) {
        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.changes += 1;
            change(coupon);
        }
    }

    /// That a gift has lapsed is written down, which no answer shows but one: a code for the counter that was made
    /// before it is good for nothing any more.
    pub fn sweep(&mut self, now_ms: i64) {
        for coupon in self.coupons.values_mut() {
            if coupon.gift.take_if(|gift| gift.lapses_ms <= now_ms).is_some() {
                coupon.changes += 1;
            }
        }
    }

    // A route that is not this caller's is 1002, before anything else is looked at.

    fn call_of_member(&mut self, call: &Call, member_id: i64, route: &str) -> Answer {
        match route {
            "/client/couponlist" => Ok(self.couponlist(call, member_id)),
            "/client/couponinfo" => self.couponinfo(call, member_id),
            "/client/couponcount" => Ok(self.couponcount(call, member_id)),
            "/client/cangetcoupon" => Ok(Data::Unpredictable),
            "/client/auditcoupon" => self.auditcoupon(call, member_id),
            "/client/auditcouponinfo" => self.auditcouponinfo(call, member_id),
            "/client/getauditcoupon" => self.getauditcoupon(call, member_id),
            "/client/evaluacoupon" => self.evaluacoupon(call, member_id),
            "/client/givecoupon" => self.givecoupon(call, member_id),
            "/client/withdrawcoupon" => self.withdrawcoupon(call, member_id),
            "/client/getcoupon" => self.getcoupon(call, member_id),
            "/client/giftinfo" => self.giftinfo(call, member_id),
            "/client/claimcoupon" => self.claimcoupon(call, member_id),
            "/client/auditcode" => self.auditcode(call, member_id),
            "/wechat/receive" => self.receive(call, member_id),
            "/wechat/businesscoupon" | "/wechat/getattract" | "/wechat/auditlist" => {
                self.read_partner_as_member(call, member_id, route)
            }
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }

    fn call_of_employee(&mut self, call: &Call, employee_id: i64, route: &str) -> Answer {
        match route {
            "/user/auditelecoupon" => self.auditelecoupon(call, employee_id),
            "/sendelecoupon/one" => self.sendelecoupon_one(call, employee_id),
            "/user/reverseelecoupon" => self.reverseelecoupon(call, Some(employee_id)),
            "/user/auditbycode" => self.auditbycode(call, employee_id),
            "/user/auditelecouponlist" => self.auditelecouponlist(call, Some(employee_id), false),
            "/auditelecoupon/getlist" => self.redemption_list(call, Some(employee_id)),
            "/order/add" => self.order_add(call, Some(employee_id)),
            "/order/cancel" => self.order_cancel(call, Some(employee_id), true),
            "/order/cancelago" => self.order_cancel(call, Some(employee_id), false),
            _ => self.read_order(call, Some(employee_id), route),
        }
    }

    fn call_of_operator(&mut self, call: &Call, route: &str) -> Answer {
        match route {
            "/sendelecoupon/one" => self.sendelecoupon_one(call, self.operator_user_id),
            "/user/reverseelecoupon" => self.reverseelecoupon(call, None),
            "/user/voidelecoupon" => self.voidelecoupon(call),
            "/user/auditelecouponlist" => self.auditelecouponlist(call, None, false),
            "/auditelecoupon/getlist" => self.redemption_list(call, None),
            "/sendelecoupon/add" => self.send(call),
            "/elecoupons/recall" => self.recall(call),
            "/elecoupons/extend" => self.extend(call),
            "/sendelecoupon/pause" | "/job/pause" => self.change_job(call, jobs::State::Paused),
            "/sendelecoupon/resume" | "/job/resume" => self.change_job(call, jobs::State::Running),
            "/sendelecoupon/cancel" | "/job/cancel" => self.change_job(call, jobs::State::Cancelled),
            "/order/add" => self.order_add(call, None),
            "/order/cancel" => self.order_cancel(call, None, true),
            "/order/cancelago" => self.order_cancel(call, None, false),
            "/elecoupons/getlist" => {
                let rows = self.definitions.values().rev().map(|it| self.definition_row(it)).collect();
                Ok(Data::Exactly(Value::Array(page_of(call.body, rows))))
            }
            "/memberelecoupon/add"
            | "/memberelecoupon/edit"
            | "/memberelecoupon/del"
            | "/birthdaycoupon/set" => self.change_grants(call, route),
            "/elecoupons/import" => Ok(self.import(call)),
            "/business/addattract" => self.allot(call),
            "/business/editattract" => self.edit_allotment(call),
            "/business/inventory" => self.change_allotment(call),
            _ if route.starts_with("/business/") || route == "/statistics/getattract" => {
                self.read_partners(call, route)
            }
            _ => self.read_order(call, None, route),
        }
    }
}
