//! An independent, naive model of the member's side of the HTTP API.
//!
//! It is written from the contract alone and shares no code with the server, so that a seeded simulation can send
//! every call to both and compare the whole answers. It keeps plain lists in memory and computes every answer from
//! them anew: no streams, no read models, no counters, and expiry and lapse are only ever a look at the time.
//!
//! It promises the `code` and, where the contract fixes it, the `data` of every answer. Ids and gift codes are the
//! server's choice: the model takes them from the server's answer, and only where it expects a success itself.
//! It must never look at anything else in that answer. Ill-formed calls and idempotency keys are not modelled.

use std::collections::BTreeMap;

use chrono::{DateTime, Datelike, Days, Duration, NaiveDate, NaiveTime, TimeZone};
use chrono_tz::Tz;
use serde_json::{Value, json};

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
    pub const NOT_ALLOWED: i64 = 1002;
    pub const NO_SUCH_COUPON: i64 = 2001;
    pub const NO_SUCH_DEFINITION: i64 = 2002;
    pub const NO_SUCH_SHOP: i64 = 2003;
    pub const NO_SUCH_REDEMPTION: i64 = 2004;
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
    pub const NOT_REVERSIBLE: i64 = 3012;
    pub const NOT_STARTED: i64 = 4001;
    pub const EXPIRED: i64 = 4002;
    pub const WRONG_WEEKDAY: i64 = 4003;
    pub const SOLD_OUT: i64 = 5001;
    pub const LIMIT_REACHED: i64 = 5002;
    pub const LEVEL_NOT_ELIGIBLE: i64 = 5003;
    pub const NOT_ON_OFFER: i64 = 5006;
    pub const WRONG_GIFT_CODE: i64 = 7001;
    pub const GIFT_LOCKED: i64 = 7002;
    pub const NOTHING_TO_RECEIVE: i64 = 7003;
    pub const OWN_GIFT: i64 = 7004;
    pub const TOO_MANY_REQUESTS: i64 = 9001;
}

/// "How it was born": the two ways a coupon is born on the modelled routes.
const COME_ONE_TO_ONE: i64 = 5;
const COME_CLAIMED: i64 = 8;

/// Who makes the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Member(i64),
    Employee(i64),
    Operator,
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
    #[expect(dead_code, reason = "only orders read it, and they are not modelled")]
    pub use_limit: i64,
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

struct Member {
    nickname: String,
    headimgurl: String,
    level_id: i64,
    card_end: Option<NaiveDate>,
}

struct Shop {
    name: String,
    open: bool,
}

/// A member coupon (會員電子券). It has one row for each member who ever held it.
struct Coupon {
    id: i64,
    /// As it was at issue: the model has no edit of a definition, and switching it off binds only the next issue.
    definition: ModelDefinition,
    start: NaiveDate,
    end: NaiveDate,
    issued_ms: i64,
    issued_to: i64,
    come: i64,
    user_id: i64,
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
    reversed: bool,
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
        }
    }

    // What the directory and the definitions hold. The driver calls these after it did the same to the server.

    /// Adds the member, or replaces him.
    pub fn add_member(
        &mut self,
        id: i64,
        nickname: &str,
        headimgurl: &str,
        level_id: i64,
        card_end: Option<NaiveDate>,
    ) {
        let member =
            Member { nickname: nickname.to_owned(), headimgurl: headimgurl.to_owned(), level_id, card_end };
        self.members.insert(id, member);
    }

    /// Adds an own shop.
    pub fn add_shop(&mut self, id: i64, name: &str, open: bool) {
        self.shops.insert(id, Shop { name: name.to_owned(), open });
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
        };
        match answer {
            Ok(data) => Expected { code: 0, data },
            Err(refusal) => Expected { code: refusal.code, data: Data::Exactly(refusal.data) },
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
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }

    fn call_of_employee(&mut self, call: &Call, employee_id: i64, route: &str) -> Answer {
        match route {
            "/user/auditelecoupon" => self.auditelecoupon(call, employee_id),
            "/sendelecoupon/one" => self.sendelecoupon_one(call, employee_id),
            "/user/reverseelecoupon" => self.reverseelecoupon(call),
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }

    fn call_of_operator(&mut self, call: &Call, route: &str) -> Answer {
        match route {
            "/sendelecoupon/one" => self.sendelecoupon_one(call, self.operator_user_id),
            "/user/reverseelecoupon" => self.reverseelecoupon(call),
            "/user/voidelecoupon" => self.voidelecoupon(call),
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }
}

/// What a member sees.
impl Model {
    /// "Lists are bare arrays, newest id first"; `page` from 1, `limit` 10 unless sent, or `before_id` for `page`.
    fn couponlist(&self, call: &Call, member_id: i64) -> Data {
        let state = int_or(call.body, "state", 0);
        let rows = self
            .coupons
            .values()
            .rev()
            .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
            .filter(|(coupon, row)| self.list_state(call.now_ms, coupon, row) == state)
            .map(|(coupon, row)| self.list_row(call.now_ms, coupon, member_id, row));
        Data::Exactly(Value::Array(page_of(call.body, rows.collect())))
    }

    /// "how many in each state".
    fn couponcount(&self, call: &Call, member_id: i64) -> Data {
        let in_state = |state| {
            self.coupons
                .values()
                .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
                .filter(|(coupon, row)| self.list_state(call.now_ms, coupon, row) == state)
                .count()
        };
        Data::Exactly(json!({ "unused": in_state(0), "used": in_state(1), "expired": in_state(2) }))
    }

    /// "0 in hand and not past its end date (not-yet-started and being-given included); 1 used by this member, given
    /// away and received, or voided; 2 in hand but past its end date, whether or not the expiry event has been
    /// written yet."
    fn list_state(&self, now_ms: i64, coupon: &Coupon, row: &Row) -> i64 {
        if row.passed_on.is_some() || coupon.used_by_redemption.is_some() || coupon.voided {
            1
        } else if self.today(now_ms) <= coupon.end {
            0
        } else {
            2
        }
    }

    /// "Rows of couponlist carry exactly" these keys.
    fn list_row(&self, now_ms: i64, coupon: &Coupon, member_id: i64, row: &Row) -> Value {
        let definition = &coupon.definition;
        let deduction = if definition.deduction.is_empty() { "0.00" } else { &definition.deduction };
        merged(
            self.shared_fields(now_ms, coupon, member_id, row),
            json!({
                "type": definition.kind,
                "coupon_title": definition.title,
                "deduction": deduction,
                "is_self": i64::from(definition.is_self),
            }),
        )
    }

    /// The fields that a row of couponlist and couponinfo have in common.
    fn shared_fields(&self, now_ms: i64, coupon: &Coupon, member_id: i64, row: &Row) -> Value {
        // A former giver's row is frozen: later uses and gifts do not show in it.
        let (mut use_date, mut use_id, mut give_date, mut receive_id) = (0, 0, json!(0), 0);
        if let Some(passed_on) = &row.passed_on {
            // "use_id: who took it out of this row: the redeemer, or the giver once it was received".
            use_id = member_id;
            give_date = json!(self.local_time(passed_on.given_ms));
            receive_id = passed_on.receive_id;
        } else if let Some(redemption) = self.standing_redemption(coupon) {
            use_date = unix_seconds(redemption.at_ms);
            use_id = if redemption.by == 0 { redemption.member_id } else { redemption.by };
        } else if let Some(gift) = pending_gift(coupon, now_ms) {
            give_date = json!(self.local_time(gift.given_ms));
        }
        // A review shows in the row of the member who used the coupon, and stays there after a reversal.
        let review = coupon.review.as_ref().filter(|review| review.member_id == member_id);
        json!({
            "id": coupon.id,
            "member_id": member_id,
            "coupon_id": coupon.definition.id,
            "start_date": coupon.start.to_string(),
            "end_date": coupon.end.to_string(),
            "create_date": unix_seconds(coupon.issued_ms),
            "use_date": use_date,
            "give_date": give_date,
            "use_id": use_id,
            "receive_id": receive_id,
            "evaluation": review.map_or("", |review| review.text.as_str()),
            "score": review.map_or(0, |review| review.score),
            "evaluation_time": review.map_or(0, |review| unix_seconds(review.at_ms)),
            "is_read": i64::from(row.is_read),
        })
    }

    /// "couponinfo carries exactly the keys of the sample"; "Ids of others answer 2001; a former giver still sees
    /// his row."
    fn couponinfo(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        self.coupon_of(coupon_id, member_id)?;
        self.mark_read(coupon_id, member_id);
        let coupon = self.coupon_of(coupon_id, member_id)?;
        let row = coupon.rows.get(&member_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        let definition = &coupon.definition;
        let receiver = row.passed_on.as_ref().and_then(|passed_on| self.members.get(&passed_on.receive_id));
        let receive_member_info = receiver
            .map(|member| json!({ "nickname": member.nickname, "headimgurl": member.headimgurl }))
            .unwrap_or_default();
        Ok(Data::Exactly(merged(
            self.shared_fields(call.now_ms, coupon, member_id, row),
            json!({
                // "at the top of couponinfo: 0", as in the sample.
                "type": 0,
                "give_id": row.give_id,
                "come": coupon.come,
                "user_id": coupon.user_id,
                "order_id": 0,
                "goods_id": 0,
                "receive_member_info": receive_member_info,
                "couponInfo": {
                    "title": definition.title,
                    "type": definition.kind,
                    "code": 0,
                    "use_week": use_week(definition),
                    "is_self": i64::from(definition.is_self),
                    "is_giving": i64::from(definition.is_giving),
                    "rules": definition.rules,
                },
            }),
        )))
    }

    /// "0 until the holder opens couponinfo, 1 from that first answer on". A frozen row keeps what it had.
    fn mark_read(&mut self, coupon_id: i64, member_id: i64) {
        let row = self.coupons.get_mut(&coupon_id).and_then(|coupon| coupon.rows.get_mut(&member_id));
        if let Some(row) = row
            && row.passed_on.is_none()
        {
            row.is_read = true;
        }
    }

    /// "the coupons that this member could redeem himself now (there); rows as couponlist plus `use_week`,
    /// `is_use_week`". Everything comes back unless `page` or `limit` is sent. A scan that is still to come keeps no
    /// coupon off the list.
    fn getauditcoupon(&self, call: &Call, member_id: i64) -> Answer {
        let shop_id = optional_int(call.body, "shop_id");
        if let Some(shop_id) = shop_id {
            self.shop_is_open(shop_id)?;
        }
        let rows = self
            .coupons
            .values()
            .rev()
            .filter_map(|coupon| Some((coupon, coupon.rows.get(&member_id)?)))
            .filter(|(coupon, _)| self.member_could_redeem(call.now_ms, member_id, coupon).is_ok())
            .filter(|(coupon, _)| shop_id.is_none_or(|shop_id| self.shop_takes(shop_id, coupon).is_ok()))
            .map(|(coupon, row)| {
                merged(
                    self.list_row(call.now_ms, coupon, member_id, row),
                    json!({
                        "use_week": use_week(&coupon.definition),
                        "is_use_week": i64::from(self.is_weekday_of(call.now_ms, coupon)),
                    }),
                )
            })
            .collect();
        let is_paged = ["page", "limit", "before_id"].iter().any(|key| call.body.get(key).is_some());
        Ok(Data::Exactly(Value::Array(if is_paged { page_of(call.body, rows) } else { rows })))
    }
}

/// Redeeming, reversing, voiding, reviewing.
impl Model {
    /// Redeem by member: 3009 3004 3001 3003 4002 3007 4001 4003 2003 3002 3010.
    fn auditcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let shop_id = int(call.body, "shop_id");
        let coupon = self.coupon_of(int(call.body, "mem_coupon_id"), member_id)?;
        self.member_could_redeem(call.now_ms, member_id, coupon)?;
        self.shop_takes(shop_id, coupon)?;
        self.shop_was_scanned(shop_id, coupon, text(call.body, "audit_url"))?;
        let (coupon_id, definition_id) = (coupon.id, coupon.definition.id);

        let redemption_id = self.redeem(call, coupon_id, member_id, shop_id, 0);
        Ok(Data::Exactly(json!({
            "mem_coupon_id": coupon_id.to_string(),
            "user_id": 0,
            "create_date": unix_seconds(call.now_ms),
            "coupon_id": definition_id,
            "id": redemption_id,
        })))
    }

    /// The part of the member's table that comes before the shop: 3009 3004 3001 3003 4002 3007 4001 4003.
    fn member_could_redeem(&self, now_ms: i64, member_id: i64, coupon: &Coupon) -> Check {
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        not_being_given(now_ms, coupon)?;
        self.not_expired(now_ms, coupon)?;
        ensure(coupon.definition.is_self, code::NOT_SELF_REDEEMABLE)?;
        self.started(now_ms, coupon)?;
        ensure(self.is_weekday_of(now_ms, coupon), code::WRONG_WEEKDAY)
    }

    /// Redeem by employee: 3004 3001 3003 4002 4001 4003 2003 3002; counter codes are not modelled. "no `shop_id`
    /// parameter; shop comes from the employee".
    fn auditelecoupon(&mut self, call: &Call, employee_id: i64) -> Answer {
        let shop_id = *self.employees.get(&employee_id).ok_or(refusal(code::NO_SUCH_PERSON))?;
        let coupon_id = int(call.body, "mem_coupon_id");
        let coupon = self.coupons.get(&coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        not_being_given(call.now_ms, coupon)?;
        self.not_expired(call.now_ms, coupon)?;
        self.started(call.now_ms, coupon)?;
        ensure(self.is_weekday_of(call.now_ms, coupon), code::WRONG_WEEKDAY)?;
        self.shop_takes(shop_id, coupon)?;
        let (member_id, definition_id) = (coupon.holder, coupon.definition.id);

        let redemption_id = self.redeem(call, coupon_id, member_id, shop_id, employee_id);
        Ok(Data::Exactly(json!({
            "mem_coupon_id": coupon_id.to_string(),
            "user_id": employee_id,
            "create_date": unix_seconds(call.now_ms),
            "coupon_id": definition_id,
            "member_id": member_id,
            "id": redemption_id,
        })))
    }

    /// Records the use and returns the redemption's id as the answer shows it: a string.
    fn redeem(&mut self, call: &Call, coupon_id: i64, member_id: i64, shop_id: i64, by: i64) -> Value {
        let answered_id = call.answered.get("id").and_then(number);
        let Some(id) = answered_id.filter(|id| !self.redemptions.contains_key(id)) else {
            return json!("a new redemption id");
        };
        let redemption =
            Redemption { id, coupon_id, member_id, shop_id, by, at_ms: call.now_ms, reversed: false };
        self.redemptions.insert(id, redemption);
        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.used_by_redemption = Some(id);
        }
        json!(id.to_string())
    }

    /// "as the sample; `create_date` there is 2018年11月27 11:44:03. Stays readable after a reversal." It belongs to
    /// the member whose coupon it was, whoever redeemed it.
    fn auditcouponinfo(&self, call: &Call, member_id: i64) -> Answer {
        let redemption = self
            .redemptions
            .get(&int(call.body, "id"))
            .filter(|redemption| redemption.member_id == member_id)
            .ok_or(refusal(code::NO_SUCH_REDEMPTION))?;
        let definition = self.coupons.get(&redemption.coupon_id).map(|coupon| &coupon.definition);
        let shop = self.shops.get(&redemption.shop_id);
        Ok(Data::Exactly(json!({
            "id": redemption.id,
            "mem_coupon_id": redemption.coupon_id,
            "coupon_id": definition.map_or(0, |definition| definition.id),
            "create_date": self.local(redemption.at_ms).format("%Y年%m月%d %H:%M:%S").to_string(),
            "shop_id": redemption.shop_id,
            "user_id": redemption.by,
            "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            "shop_name": shop.map_or("", |shop| shop.name.as_str()),
        })))
    }

    /// Reverse: 3012. "A reversal puts the coupon back in hand (`use_date`, `use_id` 0); a review stays".
    fn reverseelecoupon(&mut self, call: &Call) -> Answer {
        let redemption =
            self.redemptions.get_mut(&int(call.body, "id")).ok_or(refusal(code::NO_SUCH_REDEMPTION))?;
        let is_too_late = call.now_ms - redemption.at_ms > REVERSIBLE_FOR_MS;
        ensure(!redemption.reversed && !is_too_late, code::NOT_REVERSIBLE)?;

        redemption.reversed = true;
        if let Some(coupon) = self.coupons.get_mut(&redemption.coupon_id) {
            coupon.used_by_redemption = None;
        }
        Ok(Data::Unpredictable)
    }

    /// Void: 2001 3004 3001. A pending gift ends with it.
    fn voidelecoupon(&mut self, call: &Call) -> Answer {
        let coupon_id = int(call.body, "mem_coupon_id");
        let coupon = self.coupons.get(&coupon_id).ok_or(refusal(code::NO_SUCH_COUPON))?;
        not_voided(coupon)?;
        self.not_used(coupon)?;

        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.voided = true;
            coupon.gift = None;
        }
        Ok(Data::Unpredictable)
    }

    /// Review: 3009 3004 3006 3005. "once, after use, by its user"; "a review stays and cannot be repeated".
    fn evaluacoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        let coupon = self.coupon_of(coupon_id, member_id)?;
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        ensure(coupon.used_by_redemption.is_some(), code::NOT_USED_YET)?;
        ensure(coupon.review.is_none(), code::ALREADY_REVIEWED)?;

        let evaluation = text(call.body, "evaluation").to_owned();
        let score = int(call.body, "score");
        let answer = json!({
            "id": coupon_id.to_string(),
            "evaluation": evaluation,
            "score": score.to_string(),
            "evaluation_time": unix_seconds(call.now_ms),
        });
        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.review = Some(Review { member_id, text: evaluation, score, at_ms: call.now_ms });
        }
        Ok(Data::Exactly(answer))
    }
}

/// Giving and receiving.
impl Model {
    /// Give: 3009 3004 3001 4002 3008. "one pending gift per coupon; asking again while pending gives the same
    /// answer".
    fn givecoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        let coupon = self.coupon_of(coupon_id, member_id)?;
        still_holds(member_id, coupon)?;
        not_voided(coupon)?;
        self.not_used(coupon)?;
        self.not_expired(call.now_ms, coupon)?;
        ensure(coupon.definition.is_giving, code::NOT_GIVABLE)?;
        if let Some(gift) = pending_gift(coupon, call.now_ms) {
            return Ok(self.gift_answer(coupon_id, &json!(gift.code), gift.lapses_ms));
        }

        // "It lapses after 24 h (configurable) or at the end date": the end date itself is still whole.
        let lapses_ms = (call.now_ms + GIFT_LAPSES_AFTER_MS).min(self.first_instant_after(coupon.end));
        let answered_code = call.answered.get("code").and_then(Value::as_i64);
        let Some(code) = answered_code.filter(|code| GIFT_CODES.contains(code)) else {
            return Ok(self.gift_answer(coupon_id, &json!("a number 100000–999999"), lapses_ms));
        };
        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.gift = Some(Gift { code, given_ms: call.now_ms, lapses_ms, wrong_codes: 0 });
        }
        Ok(self.gift_answer(coupon_id, &json!(code), lapses_ms))
    }

    fn gift_answer(&self, coupon_id: i64, code: &Value, lapses_ms: i64) -> Data {
        Data::Exactly(json!({ "id": coupon_id, "code": code, "lapse_date": self.local_time(lapses_ms) }))
    }

    /// Withdraw: 7003. "the giver takes a pending gift back".
    fn withdrawcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon = self.coupon_of(int(call.body, "id"), member_id)?;
        let is_his_gift = coupon.holder == member_id && pending_gift(coupon, call.now_ms).is_some();
        ensure(is_his_gift, code::NOTHING_TO_RECEIVE)?;

        let coupon_id = coupon.id;
        if let Some(coupon) = self.coupons.get_mut(&coupon_id) {
            coupon.gift = None;
        }
        Ok(Data::Unpredictable)
    }

    /// "the caller becomes the holder; the end date never moves; limits and levels do not bind the receiver".
    fn getcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let coupon_id = int(call.body, "id");
        if self.has_received(call, member_id) {
            return Ok(Data::Exactly(json!({ "id": coupon_id })));
        }
        self.try_gift_code(call, member_id)?;

        if let Some(coupon) = self.coupons.get_mut(&coupon_id)
            && let Some(gift) = coupon.gift.take()
        {
            let giver_id = coupon.holder;
            if let Some(row) = coupon.rows.get_mut(&giver_id) {
                row.passed_on = Some(PassedOn { given_ms: gift.given_ms, receive_id: member_id });
            }
            // "A coupon back with an earlier holder: that row is in hand again", so an old row of his is replaced.
            coupon.rows.insert(member_id, Row { give_id: giver_id, is_read: false, passed_on: None });
            coupon.holder = member_id;
            coupon.received_with_code = Some(gift.code);
        }
        Ok(Data::Exactly(json!({ "id": coupon_id })))
    }

    /// "what would be received, counting a wrong code like getcoupon".
    fn giftinfo(&mut self, call: &Call, member_id: i64) -> Answer {
        if !self.has_received(call, member_id) {
            self.try_gift_code(call, member_id)?;
        }
        Ok(Data::Unpredictable)
    }

    /// "the receiver repeating the right code gets {"id":1} again". This is no try: it opens nothing, so it neither
    /// counts nor is it counted against him.
    fn has_received(&self, call: &Call, member_id: i64) -> bool {
        self.coupons.get(&int(call.body, "id")).is_some_and(|coupon| {
            coupon.holder == member_id
                && pending_gift(coupon, call.now_ms).is_none()
                && coupon.received_with_code == Some(int(call.body, "code"))
        })
    }

    /// "every failure counts toward at most ten per caller and hour (then 9001)": the last hour, sliding. An answer
    /// of 9001 does not count itself, and is no wrong code for the gift.
    fn try_gift_code(&mut self, call: &Call, member_id: i64) -> Check {
        let failures_ms = self.gift_failures_ms.entry(member_id).or_default();
        failures_ms.retain(|failed_ms| call.now_ms - failed_ms < HOUR_MS);
        ensure(failures_ms.len() < FAILURES_PER_HOUR, code::TOO_MANY_REQUESTS)?;

        let outcome = self.check_gift_code(call, member_id);
        if outcome.is_err() {
            self.gift_failures_ms.entry(member_id).or_default().push(call.now_ms);
        }
        outcome
    }

    /// Receive: 7004 7003 7002 7001. "the fifth answers 7001 with `attempts_left` 0, later ones 7002".
    fn check_gift_code(&mut self, call: &Call, member_id: i64) -> Check {
        let coupon = self
            .coupons
            .get_mut(&int(call.body, "id"))
            .filter(|coupon| pending_gift(coupon, call.now_ms).is_some())
            .ok_or(refusal(code::NOTHING_TO_RECEIVE))?;
        // 7004 stands before 7003 in the table, but only a pending gift can be one's own.
        ensure(coupon.holder != member_id, code::OWN_GIFT)?;
        let Some(gift) = &mut coupon.gift else {
            return Err(refusal(code::NOTHING_TO_RECEIVE));
        };
        ensure(gift.wrong_codes < WRONG_CODES_PER_GIFT, code::GIFT_LOCKED)?;
        if gift.code == int(call.body, "code") {
            return Ok(());
        }
        gift.wrong_codes += 1;
        let attempts_left = WRONG_CODES_PER_GIFT - gift.wrong_codes;
        Err(Refusal { code: code::WRONG_GIFT_CODE, data: json!({ "attempts_left": attempts_left }) })
    }
}

/// Issuing.
impl Model {
    fn sendelecoupon_one(&mut self, call: &Call, user_id: i64) -> Answer {
        let definition_id = int(call.body, "coupon_id");
        let member_id = int(call.body, "member_id");
        self.issue(call, definition_id, member_id, COME_ONE_TO_ONE, user_id)
    }

    /// "only definitions with `is_claim`=1": the others are not on offer to members.
    fn claimcoupon(&mut self, call: &Call, member_id: i64) -> Answer {
        let definition_id = int(call.body, "id");
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        ensure(definition.is_claim, code::NOT_ON_OFFER)?;
        self.issue(call, definition_id, member_id, COME_CLAIMED, 0)
    }

    /// Issue, claim: 2002 5006 310 5003 5002 5001. Answers the first and last day.
    fn can_issue(
        &self,
        now_ms: i64,
        definition_id: i64,
        member_id: i64,
    ) -> Result<(NaiveDate, NaiveDate), Refusal> {
        let today = self.today(now_ms);
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        let has_ended =
            definition.validity_type == 1 && date(&definition.end_num).is_none_or(|end| end < today);
        ensure(definition.on && !has_ended, code::NOT_ON_OFFER)?;
        let member = self.members.get(&member_id).ok_or(refusal(code::NO_SUCH_PERSON))?;
        // "no card end" is 5006 too, but can only be said of a member who is there.
        let (start, end) = validity(definition, member, today).ok_or(refusal(code::NOT_ON_OFFER))?;
        let is_eligible = definition.get_limit_type != 4 || definition.level_ids.contains(&member.level_id);
        ensure(is_eligible, code::LEVEL_NOT_ELIGIBLE)?;
        ensure(!self.limit_is_reached(definition, member_id, today), code::LIMIT_REACHED)?;
        let issued = self.issued_of(definition_id).count() as i64;
        ensure(definition.num == 0 || issued < definition.num, code::SOLD_OUT)?;
        Ok((start, end))
    }

    fn issue(&mut self, call: &Call, definition_id: i64, member_id: i64, come: i64, user_id: i64) -> Answer {
        let (start, end) = self.can_issue(call.now_ms, definition_id, member_id)?;
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        let answered_id = call.answered.get("id").and_then(Value::as_i64);
        let Some(id) = answered_id.filter(|id| !self.coupons.contains_key(id)) else {
            return Ok(Data::Exactly(json!({ "id": "a new member coupon id" })));
        };
        let first_row = Row { give_id: 0, is_read: false, passed_on: None };
        let coupon = Coupon {
            id,
            definition: definition.clone(),
            start,
            end,
            issued_ms: call.now_ms,
            issued_to: member_id,
            come,
            user_id,
            holder: member_id,
            rows: BTreeMap::from([(member_id, first_row)]),
            used_by_redemption: None,
            voided: false,
            gift: None,
            received_with_code: None,
            review: None,
        };
        self.coupons.insert(id, coupon);
        Ok(Data::Exactly(json!({ "id": id })))
    }

    /// `get_limit_type` "2 at most `get_limit` issued per member (gifts not counted, voided not counted); 3 one at a
    /// time until its end date, used or not". What was issued to him counts, wherever it is now.
    fn limit_is_reached(&self, definition: &ModelDefinition, member_id: i64, today: NaiveDate) -> bool {
        let mut issued_to_him = self.issued_of(definition.id).filter(|coupon| coupon.issued_to == member_id);
        match definition.get_limit_type {
            2 => issued_to_him.count() as i64 >= definition.get_limit,
            3 => issued_to_him.any(|coupon| today <= coupon.end),
            _ => false,
        }
    }

    /// The coupons that count as issued: "voided not counted".
    fn issued_of(&self, definition_id: i64) -> impl Iterator<Item = &Coupon> {
        self.coupons.values().filter(move |coupon| coupon.definition.id == definition_id && !coupon.voided)
    }
}

/// The single checks. Each command above lists them in the order of the contract's table.
impl Model {
    /// "no such coupon, or not yours: same answer". A former giver's coupon is still his to see.
    fn coupon_of(&self, coupon_id: i64, member_id: i64) -> Result<&Coupon, Refusal> {
        self.coupons
            .get(&coupon_id)
            .filter(|coupon| coupon.rows.contains_key(&member_id))
            .ok_or(refusal(code::NO_SUCH_COUPON))
    }

    /// "already used (data: `id`, `create_date`, `shop_id` of that use)".
    fn not_used(&self, coupon: &Coupon) -> Check {
        let Some(redemption) = self.standing_redemption(coupon) else {
            return Ok(());
        };
        let data = json!({
            "id": redemption.id,
            "create_date": unix_seconds(redemption.at_ms),
            "shop_id": redemption.shop_id,
        });
        Err(Refusal { code: code::ALREADY_USED, data })
    }

    fn standing_redemption(&self, coupon: &Coupon) -> Option<&Redemption> {
        self.redemptions.get(&coupon.used_by_redemption?)
    }

    /// "`start_date` and `end_date` are whole local days, both inclusive."
    fn not_expired(&self, now_ms: i64, coupon: &Coupon) -> Check {
        ensure(self.today(now_ms) <= coupon.end, code::EXPIRED)
    }

    fn started(&self, now_ms: i64, coupon: &Coupon) -> Check {
        ensure(coupon.start <= self.today(now_ms), code::NOT_STARTED)
    }

    /// "Monday=1 … Sunday=7, empty = every day".
    fn is_weekday_of(&self, now_ms: i64, coupon: &Coupon) -> bool {
        let weekday = self.today(now_ms).weekday().number_from_monday();
        let use_week = &coupon.definition.use_week;
        use_week.is_empty() || use_week.iter().any(|day| u32::from(*day) == weekday)
    }

    /// "no such shop, shop closed".
    fn shop_is_open(&self, shop_id: i64) -> Check {
        ensure(self.shops.get(&shop_id).is_some_and(|shop| shop.open), code::NO_SUCH_SHOP)
    }

    /// 2003 3002. `shop_ids` "0" or empty = every own shop.
    fn shop_takes(&self, shop_id: i64, coupon: &Coupon) -> Check {
        self.shop_is_open(shop_id)?;
        let shop_ids = &coupon.definition.shop_ids;
        ensure(shop_ids.is_empty() || shop_ids.contains(&shop_id), code::NOT_AT_THIS_SHOP)
    }

    /// "Where the definition has `need_scan`=1 the signed `audit_url` of that very shop is required."
    fn shop_was_scanned(&self, shop_id: i64, coupon: &Coupon, audit_url: &str) -> Check {
        let is_that_shop = self.shop_urls.get(audit_url) == Some(&shop_id);
        ensure(!coupon.definition.need_scan || is_that_shop, code::QR_REQUIRED)
    }
}

/// "Dates are the merchant's local time".
impl Model {
    fn local(&self, at_ms: i64) -> DateTime<Tz> {
        DateTime::from_timestamp_millis(at_ms).unwrap_or_default().with_timezone(&self.zone)
    }

    fn today(&self, now_ms: i64) -> NaiveDate {
        self.local(now_ms).date_naive()
    }

    /// `2018-11-24 10:31:41`.
    fn local_time(&self, at_ms: i64) -> String {
        self.local(at_ms).format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The first instant of the next local day. A zone may skip midnight, hence the search.
    fn first_instant_after(&self, day: NaiveDate) -> i64 {
        let midnight = (day + Days::new(1)).and_time(NaiveTime::MIN);
        (0..24)
            .find_map(|hours| self.zone.from_local_datetime(&(midnight + Duration::hours(hours))).earliest())
            .map_or(i64::MAX, |instant| instant.timestamp_millis())
    }
}

fn still_holds(member_id: i64, coupon: &Coupon) -> Check {
    ensure(coupon.holder == member_id, code::GIVEN_AWAY)
}

fn not_voided(coupon: &Coupon) -> Check {
    ensure(!coupon.voided, code::VOIDED)
}

/// "While pending nobody can redeem it."
fn not_being_given(now_ms: i64, coupon: &Coupon) -> Check {
    ensure(pending_gift(coupon, now_ms).is_none(), code::BEING_GIVEN)
}

fn pending_gift(coupon: &Coupon, now_ms: i64) -> Option<&Gift> {
    coupon.gift.as_ref().filter(|gift| now_ms < gift.lapses_ms)
}

/// The first and last day of a coupon issued today; `None` where the member's card gives none.
fn validity(
    definition: &ModelDefinition,
    member: &Member,
    today: NaiveDate,
) -> Option<(NaiveDate, NaiveDate)> {
    match definition.validity_type {
        1 => Some((date(&definition.start_num)?, date(&definition.end_num)?)),
        // "start = receipt day + start_num, end = start + end_num − 1".
        2 => {
            let start = today + Days::new(definition.start_num.parse().ok()?);
            let days_valid: u64 = definition.end_num.parse().ok()?;
            Some((start, start + Days::new(days_valid.checked_sub(1)?)))
        }
        // "until the member's card ends (none → 5006)"; a card that has ended is as good as none.
        _ => member.card_end.filter(|card_end| today <= *card_end).map(|card_end| (today, card_end)),
    }
}

fn date(text: &str) -> Option<NaiveDate> {
    text.parse().ok()
}

/// `1,2,3`; empty = every day.
fn use_week(definition: &ModelDefinition) -> String {
    let days: Vec<String> = definition.use_week.iter().map(u8::to_string).collect();
    days.join(",")
}

fn unix_seconds(at_ms: i64) -> i64 {
    at_ms.div_euclid(1000)
}

/// "data null or an object with what the client needs to act": null but for 3001 and 7001.
fn refusal(code: i64) -> Refusal {
    Refusal { code, data: Value::Null }
}

fn ensure(holds: bool, code: i64) -> Check {
    if holds { Ok(()) } else { Err(refusal(code)) }
}

/// The rows of the page that the body asks for, of rows that come newest id first.
fn page_of(body: &Value, rows: Vec<Value>) -> Vec<Value> {
    let limit = int_or(body, "limit", 10).max(0) as usize;
    if let Some(before_id) = optional_int(body, "before_id") {
        // "before_id instead of page: rows with smaller ids".
        let is_smaller = |row: &Value| int(row, "id") < before_id;
        return rows.into_iter().filter(is_smaller).take(limit).collect();
    }
    let pages_before = (int_or(body, "page", 1) - 1).max(0) as usize;
    rows.into_iter().skip(pages_before.saturating_mul(limit)).take(limit).collect()
}

/// "an integer may arrive as a number or as a decimal string".
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn optional_int(body: &Value, key: &str) -> Option<i64> {
    body.get(key).and_then(number)
}

fn int_or(body: &Value, key: &str, default: i64) -> i64 {
    optional_int(body, key).unwrap_or(default)
}

/// A required integer. The driver always sends it; were it missing, −1 is the id of nothing.
fn int(body: &Value, key: &str) -> i64 {
    int_or(body, key, -1)
}

fn text<'a>(body: &'a Value, key: &str) -> &'a str {
    body.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The fields of two objects in one.
fn merged(mut fields: Value, more: Value) -> Value {
    if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
        fields.extend(more);
    }
    fields
}
