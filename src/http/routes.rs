//! The table of every route: who may call it, which fields it takes, what it answers. The router, the OpenAPI
//! description and docs/api.md are made from it; a test holds the handlers against it.

use super::client::Client;
use super::operator::Operator;
use crate::identity::Caller;

/// A kind of caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// A member.
    Member,
    /// An employee.
    Employee,
    /// An operator.
    Operator,
    /// An auditor.
    Auditor,
}

impl Who {
    /// Whether a caller is of this kind.
    #[must_use]
    pub fn includes(self, caller: Caller) -> bool {
        match caller {
            Caller::Member(_) => self == Self::Member,
            Caller::Employee(_) => self == Self::Employee,
            Caller::Operator | Caller::System => self == Self::Operator,
            Caller::Auditor => self == Self::Auditor,
        }
    }

    /// Its name in the documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Employee => "employee",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// 1 to 2^53 − 1.
    Id,
    /// A whole number between two.
    Int(i64, i64),
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
}

/// A route.
#[derive(Debug)]
pub struct Route {
    /// Its path under the root and under the base path.
    pub path: &'static str,
    /// What it does.
    pub about: &'static str,
    /// Who may call it.
    pub callers: &'static [Who],
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

const fn required(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, required: true, about }
}

const fn optional(name: &'static str, holds: Holds, about: &'static str) -> Field {
    Field { name, holds, required: false, about }
}

const MAX_ID: i64 = crate::value::MAX_ID;
const PAGE: Field = optional("page", Holds::Int(1, MAX_ID), "頁碼, from 1; default 1");
const LIMIT: Field = optional("limit", Holds::Int(1, 100), "每頁顯示個數; default 10");
const BEFORE: Field =
    optional("before_id", Holds::Id, "instead of page: rows with smaller ids, without repeats or omissions");
const COUPON: Field = required("id", Holds::Id, "會員電子券ID");
const MEMBER: &[Who] = &[Who::Member];
const OPERATOR: &[Who] = &[Who::Operator];
const STAFF: &[Who] = &[Who::Employee, Who::Operator];
const READERS: &[Who] = &[Who::Employee, Who::Operator, Who::Auditor];

macro_rules! list_row {
    ($more:literal) => {
        concat!(
            r#"[{"id":3,"member_id":439,"coupon_id":1,"start_date":"2018-11-01","end_date":"2019-01-01","create_date":1543026701,"use_date":0,"give_date":0,"type":2,"use_id":0,"receive_id":0,"evaluation":"","score":0,"evaluation_time":0,"is_read":0,"coupon_title":"測試電子券測試電子券測試","deduction":"10.00","is_self":1"#,
            $more,
            "}]"
        )
    };
}

macro_rules! definition {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":2,"type":1,"title":"測試電子券","num":20,"inventory":20,"code":0,"deduction":"10.00","money":"100.00","validity_type":1,"validity":0,"start_date":"2018-11-01","end_date":"2019-01-01","use_week":"1,2,3","is_giving":1,"get_limit_type":1,"get_limit":2,"use_limit":1,"rules":"我是使用規則","user_id":1000,"start_num":"2018-11-01","end_num":"2019-01-01","is_self":1,"is_claim":0,"need_scan":0,"shop_ids":"","level_ids":"","state":1}"#,
            $after
        )
    };
}

macro_rules! offer_fields {
    ($($first:expr),*) => {
        &[
            $($first,)*
            required("type", Holds::Int(1, 2), "1 現金券, 2 兌換券"),
            required("title", Holds::Text(100), "the title that members read"),
            optional("deduction", Holds::Money, "what a cash coupon takes off; required for type 1"),
            optional("money", Holds::Money, "the order amount from which a cash coupon counts; default 0"),
            required("validity_type", Holds::Int(1, 3), "1 fixed dates, 2 counted from receipt, 3 until the member's card ends"),
            optional("start_num", Holds::DayOrDays, "type 1: first day; type 2: days after receipt before it starts"),
            optional("end_num", Holds::DayOrDays, "type 1: last day; type 2: number of valid days"),
            optional("use_week", Holds::Ints(7), "weekdays, Monday=1 … Sunday=7; empty = every day"),
            required("is_giving", Holds::Flag, "1 = may be given away"),
            required("get_limit_type", Holds::Int(1, 4), "1 unlimited, 2 at most get_limit per member, 3 one at a time until its end date, 4 only level_ids"),
            optional("get_limit", Holds::Int(0, MAX_ID), "required for get_limit_type 2"),
            optional("level_ids", Holds::Ints(MAX_ID), "required for get_limit_type 4"),
            optional("use_limit", Holds::Flag, "1 = may be combined with other coupons in an order"),
            optional("rules", Holds::Text(5000), "使用規則"),
            optional("shop_ids", Holds::Ints(MAX_ID), "shops where it can be used; empty or 0 = every own shop"),
            optional("is_self", Holds::Flag, "1 = the member may redeem it himself; default 1"),
            optional("is_claim", Holds::Flag, "1 = members may claim it themselves; default 0"),
            optional("need_scan", Holds::Flag, "1 = redeeming it himself needs the shop's QR; default 0"),
        ]
    };
}

/// Every route of the manual that is served, and ours among them.
pub static ALL: &[Route] = &[
    Route {
        path: "/client/couponlist",
        about: "電子券列表: the member's coupons in one state, newest id first",
        callers: MEMBER,
        writes: false,
        fields: &[
            required("state", Holds::Int(0, 2), "狀態: 0 未使用, 1 已使用, 2 已過期"),
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"state":0,"page":1,"limit":10}"#,
        data: list_row!(""),
        run: Run::Client(Client::CouponList),
    },
    Route {
        path: "/client/couponinfo",
        about: "詳情: one coupon; the first opening marks it as read",
        callers: MEMBER,
        writes: false,
        fields: &[COUPON],
        refusals: &[2001],
        request: r#"{"id":1}"#,
        data: r#"{"id":1,"member_id":439,"coupon_id":1,"start_date":"2018-11-02","end_date":"2018-11-24","create_date":1543026701,"use_date":0,"give_date":"2018-11-24 10:31:41","type":0,"use_id":439,"give_id":0,"receive_id":442,"evaluation":"","score":0,"evaluation_time":0,"is_read":1,"come":0,"user_id":0,"order_id":0,"goods_id":0,"receive_member_info":{"nickname":"黃明波","headimgurl":"http://thirdwx.qlogo.cn/mmopen/132"},"couponInfo":{"title":"測試電子券測試電子券測試","type":2,"code":0,"use_week":"1,2,3","is_self":0,"is_giving":1,"rules":"我是使用規則"}}"#,
        run: Run::Client(Client::CouponInfo),
    },
    Route {
        path: "/client/couponcount",
        about: "How many coupons the member has in each state [ours]",
        callers: MEMBER,
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: r#"{"unused":3,"used":1,"expired":0}"#,
        run: Run::Client(Client::CouponCount),
    },
    Route {
        path: "/client/auditcoupon",
        about: "自助核銷: the member redeems his coupon in a shop",
        callers: MEMBER,
        writes: true,
        fields: &[
            required("mem_coupon_id", Holds::Id, "會員電子券ID"),
            required("shop_id", Holds::Id, "門店ID"),
            optional(
                "audit_url",
                Holds::Text(500),
                "the shop's signed QR, where the definition has need_scan=1",
            ),
        ],
        refusals: &[2001, 3009, 3004, 3001, 3003, 4002, 3007, 4001, 4003, 2003, 3002, 3010],
        request: r#"{"mem_coupon_id":1,"shop_id":1}"#,
        data: r#"{"mem_coupon_id":"1","user_id":0,"create_date":1543290243,"coupon_id":1,"id":"2"}"#,
        run: Run::Client(Client::AuditCoupon),
    },
    Route {
        path: "/client/auditcouponinfo",
        about: "自助核銷詳情: one redemption; stays readable after a reversal",
        callers: MEMBER,
        writes: false,
        fields: &[required("id", Holds::Id, "核銷ID")],
        refusals: &[2004],
        request: r#"{"id":1}"#,
        data: r#"{"id":2,"mem_coupon_id":1,"coupon_id":1,"create_date":"2018年11月27 11:44:03","shop_id":0,"user_id":0,"coupon_title":"測試電子券測試電子券測試","shop_name":""}"#,
        run: Run::Client(Client::AuditCouponInfo),
    },
    Route {
        path: "/client/evaluacoupon",
        about: "評價: the member reviews a coupon he has used, once",
        callers: MEMBER,
        writes: true,
        fields: &[
            COUPON,
            required("evaluation", Holds::Text(500), "評價內容"),
            required("score", Holds::Int(1, 5), "評分"),
        ],
        refusals: &[2001, 3009, 3004, 3006, 3005],
        request: r#"{"id":1,"evaluation":"非常給力","score":5}"#,
        data: r#"{"id":"2","evaluation":"非常給力","score":"5","evaluation_time":1543294087}"#,
        run: Run::Client(Client::EvaluaCoupon),
    },
    Route {
        path: "/client/givecoupon",
        about: "贈送電子券: puts the coupon out for whoever knows the code; asking again gives the same code",
        callers: MEMBER,
        writes: true,
        fields: &[COUPON],
        refusals: &[2001, 3009, 3004, 3001, 4002, 3008],
        request: r#"{"id":1}"#,
        data: r#"{"id":1,"code":482913,"lapse_date":"2018-11-25 10:31:41"}"#,
        run: Run::Client(Client::GiveCoupon),
    },
    Route {
        path: "/client/withdrawcoupon",
        about: "The giver takes a pending gift back [ours]",
        callers: MEMBER,
        writes: true,
        fields: &[COUPON],
        refusals: &[2001, 7003],
        request: r#"{"id":1}"#,
        data: r#"{"id":1}"#,
        run: Run::Client(Client::WithdrawCoupon),
    },
    Route {
        path: "/client/giftinfo",
        about: "What would be received; a wrong code counts like getcoupon's [ours]",
        callers: MEMBER,
        writes: true,
        fields: &[COUPON, required("code", Holds::Int(0, MAX_ID), "驗證碼")],
        refusals: &[9001, 7004, 7003, 7002, 7001],
        request: r#"{"id":1,"code":482913}"#,
        data: r#"{"id":1,"coupon_id":1,"coupon_title":"測試電子券測試電子券測試","type":2,"deduction":"0.00","start_date":"2018-11-01","end_date":"2019-01-01","use_week":"1,2,3","rules":"我是使用規則","lapse_date":"2018-11-25 10:31:41","give_member_info":{"nickname":"小明","headimgurl":""}}"#,
        run: Run::Client(Client::GiftInfo),
    },
    Route {
        path: "/client/getcoupon",
        about: "接收電子券: the caller becomes the holder; repeating the right code answers the same",
        callers: MEMBER,
        writes: true,
        fields: &[COUPON, required("code", Holds::Int(0, MAX_ID), "驗證碼")],
        refusals: &[9001, 7004, 7003, 7002, 7001],
        request: r#"{"id":1,"code":482913}"#,
        data: r#"{"id":1}"#,
        run: Run::Client(Client::GetCoupon),
    },
    Route {
        path: "/client/getauditcoupon",
        about: "可核銷電子券列表: what the member could redeem himself now, in this shop if one is named",
        callers: MEMBER,
        writes: false,
        fields: &[
            optional("shop_id", Holds::Int(0, MAX_ID), "門店ID; 0 or nothing = any"),
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[2003],
        request: "{}",
        data: list_row!(r#","use_week":"1,2,3","is_use_week":1"#),
        run: Run::Client(Client::GetAuditCoupon),
    },
    Route {
        path: "/client/shopid",
        about: "通過門店核銷二維碼獲取門店ID: only for a URL that this server signed",
        callers: MEMBER,
        writes: false,
        fields: &[required("audit_url", Holds::Text(500), "門店核銷url")],
        refusals: &[2003],
        request: r#"{"audit_url":"https://coupons.example/qr/1/1/AAAA"}"#,
        data: "1",
        run: Run::Client(Client::ShopId),
    },
    Route {
        path: "/client/cangetcoupon",
        about: "Definitions that the member may claim now [ours]",
        callers: MEMBER,
        writes: false,
        fields: &[],
        refusals: &[310],
        request: "{}",
        data: definition!("[", "]"),
        run: Run::Client(Client::CanGetCoupon),
    },
    Route {
        path: "/client/claimcoupon",
        about: "The member claims a coupon of a definition with is_claim=1 [ours]",
        callers: MEMBER,
        writes: true,
        fields: &[required("id", Holds::Id, "the definition's id")],
        refusals: &[2002, 5006, 310, 5003, 5002, 5001],
        request: r#"{"id":1}"#,
        data: r#"{"id":452}"#,
        run: Run::Client(Client::ClaimCoupon),
    },
    Route {
        path: "/elecoupons/add",
        about: "Defines a coupon",
        callers: OPERATOR,
        writes: true,
        fields: offer_fields!(optional(
            "num",
            Holds::Int(0, MAX_ID),
            "how many may be issued in all; default 0 = unlimited"
        )),
        refusals: &[],
        request: r#"{"type":1,"title":"十元券","deduction":"10.00","money":"100.00","validity_type":2,"start_num":0,"end_num":30,"use_week":"","is_giving":1,"get_limit_type":1,"rules":"滿一百可用","num":1000}"#,
        data: r#"{"id":3}"#,
        run: Run::Operator(Operator::DefinitionAdd),
    },
    Route {
        path: "/elecoupons/edit",
        about: "Replaces a definition's offer; what was issued keeps the terms it was issued under",
        callers: OPERATOR,
        writes: true,
        fields: offer_fields!(required("id", Holds::Id, "the definition's id")),
        refusals: &[2002],
        request: r#"{"id":3,"type":1,"title":"十元券","deduction":"10.00","validity_type":2,"start_num":0,"end_num":60,"is_giving":0,"get_limit_type":1}"#,
        data: r#"{"id":3}"#,
        run: Run::Operator(Operator::DefinitionEdit),
    },
    Route {
        path: "/elecoupons/info",
        about: "One definition; inventory is what is left of num, −1 when unlimited",
        callers: READERS,
        writes: false,
        fields: &[required("id", Holds::Id, "the definition's id")],
        refusals: &[2002],
        request: r#"{"id":1}"#,
        data: definition!("", ""),
        run: Run::Operator(Operator::DefinitionInfo),
    },
    Route {
        path: "/elecoupons/getlist",
        about: "Definitions, newest id first",
        callers: READERS,
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Operator(Operator::DefinitionList),
    },
    Route {
        path: "/elecoupons/state",
        about: "Switches a definition on or off; what was issued stays valid [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("id", Holds::Id, "the definition's id"),
            required("state", Holds::Flag, "1 on, 0 off"),
        ],
        refusals: &[2002],
        request: r#"{"id":1,"state":0}"#,
        data: r#"{"id":1,"state":0}"#,
        run: Run::Operator(Operator::DefinitionState),
    },
    Route {
        path: "/elecoupons/inventory",
        about: "Makes a definition's stock larger or smaller, never below what is issued [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("id", Holds::Id, "the definition's id"),
            required("num", Holds::Int(1, MAX_ID), "by how many"),
            required("type", Holds::Flag, "1 more, 0 less"),
        ],
        refusals: &[2002],
        request: r#"{"id":1,"num":100,"type":1}"#,
        data: r#"{"id":1,"num":120}"#,
        run: Run::Operator(Operator::DefinitionInventory),
    },
    Route {
        path: "/shop/add",
        about: "Opens a shop",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("shop_name", Holds::Text(100), "name"),
            required("phone", Holds::Text(30), "telephone"),
            required("address", Holds::Text(300), "address"),
        ],
        refusals: &[],
        request: r#"{"shop_name":"人民路店","phone":"020-88888888","address":"人民路1號"}"#,
        data: r#"{"shop_name":"人民路店","phone":"020-88888888","address":"人民路1號","id":"3"}"#,
        run: Run::Operator(Operator::ShopAdd),
    },
    Route {
        path: "/shop/edit",
        about: "Changes a shop, opens or closes it",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("id", Holds::Id, "門店ID"),
            required("shop_name", Holds::Text(100), "name"),
            required("phone", Holds::Text(30), "telephone"),
            required("address", Holds::Text(300), "address"),
            required("state", Holds::Flag, "1 open, 0 closed"),
        ],
        refusals: &[2003],
        request: r#"{"id":1,"shop_name":"人民路店","phone":"020-88888888","address":"人民路1號","state":1}"#,
        data: r#"{"id":1,"shop_name":"人民路店","phone":"020-88888888","address":"人民路1號","state":1}"#,
        run: Run::Operator(Operator::ShopEdit),
    },
    Route {
        path: "/shop/get",
        about: "One shop",
        callers: READERS,
        writes: false,
        fields: &[required("id", Holds::Id, "門店ID")],
        refusals: &[2003],
        request: r#"{"id":1}"#,
        data: r#"{"id":2,"shop_name":"人民路店","title":"","address":"人民路1號","phone":"020-88888888","state":1,"user_id":1000}"#,
        run: Run::Operator(Operator::ShopGet),
    },
    Route {
        path: "/shop/list",
        about: "Every shop, newest id first",
        callers: READERS,
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: r#"[{"id":2,"shop_name":"人民路店","title":"","address":"人民路1號","phone":"020-88888888","state":1,"user_id":1000}]"#,
        run: Run::Operator(Operator::ShopList),
    },
    Route {
        path: "/shop/auditqrcode",
        about: "The shop's redemption QR: its signed URL and a picture of it",
        callers: STAFF,
        writes: false,
        fields: &[required("id", Holds::Id, "門店ID")],
        refusals: &[2003],
        request: r#"{"id":1}"#,
        data: r#"{"url":"https://coupons.example/qr/1/1/AAAA","svg":"<svg/>"}"#,
        run: Run::Operator(Operator::ShopAuditQrCode),
    },
    Route {
        path: "/shop/rotateauditkey",
        about: "Makes every QR of the shop printed before invalid and answers the new one [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[required("id", Holds::Id, "門店ID")],
        refusals: &[2003],
        request: r#"{"id":1}"#,
        data: r#"{"url":"https://coupons.example/qr/1/2/AAAA","svg":"<svg/>"}"#,
        run: Run::Operator(Operator::ShopRotateAuditKey),
    },
    Route {
        path: "/member/add",
        about: "Adds a member to the directory [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            optional("id", Holds::Id, "his id, if it is to be this one"),
            optional("nickname", Holds::Text(100), "the name he shows"),
            optional("headimgurl", Holds::Text(500), "his picture"),
            optional("member_name", Holds::Text(100), "his name"),
            optional("phone", Holds::Text(30), "his telephone"),
            optional("member_card", Holds::Text(50), "the number of his card"),
            optional("level_id", Holds::Int(0, MAX_ID), "his level"),
            optional("shop_id", Holds::Int(0, MAX_ID), "his shop"),
            optional("tag_ids", Holds::Ints(MAX_ID), "his tags"),
            optional("birthday", Holds::Day, "his birthday"),
            optional("card_end", Holds::Day, "the last day of his card"),
        ],
        refusals: &[],
        request: r#"{"id":439,"nickname":"小明","level_id":1}"#,
        data: r#"{"id":439}"#,
        run: Run::Operator(Operator::MemberAdd),
    },
    Route {
        path: "/member/get",
        about: "One member",
        callers: READERS,
        writes: false,
        fields: &[required("id", Holds::Id, "會員ID")],
        refusals: &[310],
        request: r#"{"id":439}"#,
        data: r#"{"id":439,"phone":"","member_name":"","member_card":"","join_date":"2018-11-01 00:00:00","birthday":"","state":1,"level":{"id":1},"shop_id":0,"tag_ids":"","card_end":"","wechat_user":{"nickname":"小明","headimgurl":""}}"#,
        run: Run::Operator(Operator::MemberGet),
    },
    Route {
        path: "/user/add",
        about: "Adds an employee to the directory [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            optional("id", Holds::Id, "his id, if it is to be this one"),
            required("name", Holds::Text(100), "his name"),
            optional("phone", Holds::Text(30), "his telephone"),
            required("shop_id", Holds::Id, "where he works"),
            optional("state", Holds::Flag, "1 works here, 0 has left; default 1"),
        ],
        refusals: &[2003],
        request: r#"{"id":1000,"name":"店員","shop_id":1}"#,
        data: r#"{"id":1000}"#,
        run: Run::Operator(Operator::EmployeeAdd),
    },
    Route {
        path: "/user/info",
        about: "One employee",
        callers: READERS,
        writes: false,
        fields: &[required("id", Holds::Id, "員工ID")],
        refusals: &[310],
        request: r#"{"id":1000}"#,
        data: r#"{"id":1000,"name":"店員","phone":"","shop_id":1,"state":1,"shop_name":"人民路店"}"#,
        run: Run::Operator(Operator::EmployeeInfo),
    },
    Route {
        path: "/sendelecoupon/one",
        about: "一對一投放: issues one coupon to one member",
        callers: STAFF,
        writes: true,
        fields: &[
            required("coupon_id", Holds::Id, "the definition's id"),
            required("member_id", Holds::Id, "會員ID"),
        ],
        refusals: &[2002, 5006, 310, 5003, 5002, 5001],
        request: r#"{"coupon_id":1,"member_id":439}"#,
        data: r#"{"id":452}"#,
        run: Run::Operator(Operator::SendOne),
    },
    Route {
        path: "/sendelecoupon/members",
        about: "Issues one coupon to each of at most 500 members in one transaction; who is refused stops nobody else [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("coupon_id", Holds::Id, "the definition's id"),
            required("member_ids", Holds::Ints(MAX_ID), "會員ID: 1,2,3; who is listed twice is issued two"),
        ],
        refusals: &[2002, 5006],
        request: r#"{"coupon_id":1,"member_ids":"439,999999"}"#,
        data: r#"{"nums":2,"send_num":1,"refused_num":1,"issued":[{"id":453,"member_id":439}],"refused":[999999]}"#,
        run: Run::Operator(Operator::SendMembers),
    },
    Route {
        path: "/user/auditelecoupon",
        about: "An employee redeems a member's coupon at the counter; the shop is his",
        callers: &[Who::Employee],
        writes: true,
        fields: &[required("mem_coupon_id", Holds::Id, "會員電子券ID")],
        refusals: &[310, 2001, 3004, 3001, 3003, 4002, 4001, 4003, 2003, 3002],
        request: r#"{"mem_coupon_id":1}"#,
        data: r#"{"mem_coupon_id":"1","user_id":1000,"create_date":1543290243,"coupon_id":1,"member_id":439,"id":"3"}"#,
        run: Run::Operator(Operator::AuditCoupon),
    },
    Route {
        path: "/user/reverseelecoupon",
        about: "Takes a redemption back within a day: the coupon is in hand again [ours]",
        callers: STAFF,
        writes: true,
        fields: &[required("id", Holds::Id, "核銷ID"), required("reason", Holds::Text(200), "why")],
        refusals: &[2004, 3012],
        request: r#"{"id":2,"reason":"按錯"}"#,
        data: r#"{"id":2,"mem_coupon_id":1}"#,
        run: Run::Operator(Operator::ReverseCoupon),
    },
    Route {
        path: "/user/voidelecoupon",
        about: "Takes an unused coupon out of the world [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[
            required("mem_coupon_id", Holds::Id, "會員電子券ID"),
            required("reason", Holds::Text(200), "why"),
        ],
        refusals: &[2001, 3004, 3001],
        request: r#"{"mem_coupon_id":1,"reason":"發錯"}"#,
        data: r#"{"id":1}"#,
        run: Run::Operator(Operator::VoidCoupon),
    },
    Route {
        path: "/token/revoke",
        about: "Cuts a token short; every server knows within a minute [ours]",
        callers: OPERATOR,
        writes: true,
        fields: &[required("revoke", Holds::Text(500), "the token")],
        refusals: &[],
        request: r#"{"revoke":"cl1.…"}"#,
        data: r#"{"revoked":"0123456789abcdef"}"#,
        run: Run::Operator(Operator::RevokeToken),
    },
];
