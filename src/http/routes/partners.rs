//! Partners (合作商家, 引流券, 領取).

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, definition, optional, required};
use crate::http::partners::Partners;

const BUSINESS: Field = required("business_id", Holds::Id, "商家ID");
const START: Field = optional("start", Holds::Day, "first day");
const STRAR: Field = optional("strar", Holds::Day, "first day, as the manual spells it");
const END: Field = optional("end", Holds::Day, "last day");

macro_rules! partner {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":3,"shop_name":"隔壁咖啡","title":"","address":"人民路2號","phone":"020-66666666","state":1,"user_id":1000}"#,
            $after
        )
    };
}

macro_rules! settled {
    ($bc_id:literal, $shop:literal) => {
        concat!(
            r#"[{"id":2,"mem_coupon_id":452,"bc_id":"#,
            $bc_id,
            r#","coupon_id":1,"coupon_title":"測試電子券","deduction":"10.00","create_date":1543290243,"#,
            $shop,
            r#","user_id":1001,"member_id":439}]"#
        )
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/business/list",
        about: "Every partner, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: partner!("[", "]"),
        run: Run::Partners(Partners::List),
    },
    Route {
        path: "/business/get",
        about: "One partner",
        writes: false,
        fields: &[required("id", Holds::Id, "商家ID")],
        refusals: &[2005],
        request: r#"{"id":3}"#,
        data: partner!("", ""),
        run: Run::Partners(Partners::Get),
    },
    Route {
        path: "/business/add",
        about: "Adds a partner; shops and partners share one sequence of ids",
        writes: true,
        fields: &[
            required("shop_name", Holds::Text(100), "name"),
            required("phone", Holds::Text(30), "telephone"),
            required("address", Holds::Text(300), "address"),
        ],
        refusals: &[],
        request: r#"{"shop_name":"隔壁咖啡","phone":"020-66666666","address":"人民路2號"}"#,
        data: r#"{"shop_name":"隔壁咖啡","phone":"020-66666666","address":"人民路2號","id":"3"}"#,
        run: Run::Partners(Partners::Add),
    },
    Route {
        path: "/business/edit",
        about: "Changes a partner, opens or closes him: closed, nothing is redeemed there and nothing taken from his allotments",
        writes: true,
        fields: &[
            required("id", Holds::Id, "商家ID"),
            required("shop_name", Holds::Text(100), "name"),
            required("phone", Holds::Text(30), "telephone"),
            required("address", Holds::Text(300), "address"),
            required("state", Holds::Flag, "1 open, 0 closed"),
        ],
        refusals: &[2005],
        request: r#"{"id":3,"shop_name":"隔壁咖啡","phone":"020-66666666","address":"人民路2號","state":1}"#,
        data: r#"{"id":3,"shop_name":"隔壁咖啡","phone":"020-66666666","address":"人民路2號","state":1}"#,
        run: Run::Partners(Partners::Edit),
    },
    Route {
        path: "/business/couponlist",
        about: "Definitions that can be allotted to a partner: on and not ended, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Partners(Partners::CouponList),
    },
    Route {
        path: "/business/addattract",
        about: "引流券: sets coupons aside for a partner, at most 100 open allotments each; id is the allotment's bc_id; 1004 where so many wait for approval",
        writes: true,
        fields: &[
            BUSINESS,
            required("coupon_id", Holds::Id, "the definition's id"),
            required("num", Holds::Int(1, MAX_ID), "how many may be taken"),
            required("end_time", Holds::Day, "the last day on which they can be taken"),
        ],
        refusals: &[2005, 2003, 2002, 5006],
        request: r#"{"business_id":3,"coupon_id":1,"num":10,"end_time":"2099-12-31"}"#,
        data: r#"{"id":1,"business_id":3,"coupon_id":1,"num":10,"end_time":"2099-12-31"}"#,
        run: Run::Partners(Partners::AddAttract),
    },
    Route {
        path: "/business/editattract",
        about: "Moves the last day on which an allotment can be taken; a day that has passed ends it",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the allotment's id"),
            required("end_time", Holds::Day, "the last day from now on"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"end_time":"2099-12-31"}"#,
        data: r#"{"id":1,"end_time":"2099-12-31"}"#,
        run: Run::Partners(Partners::EditAttract),
    },
    Route {
        path: "/business/getattract",
        about: "A partner's allotments, newest id first: of num, inventory are left",
        writes: false,
        fields: &[required("id", Holds::Id, "商家ID"), PAGE, LIMIT, BEFORE],
        refusals: &[2005],
        request: r#"{"id":3}"#,
        data: r#"[{"id":1,"business_id":3,"coupon_id":1,"coupon_title":"測試電子券","num":10,"inventory":9,"end_time":"2099-12-31","user_id":1000,"create_date":1543026701}]"#,
        run: Run::Partners(Partners::GetAttract),
    },
    Route {
        path: "/business/inventory",
        about: "Changes how many of an allotment may be taken, never below what was; 1004 where so many wait for approval",
        writes: true,
        fields: &[
            required("bc_id", Holds::Id, "the allotment's id"),
            required("num", Holds::Int(1, MAX_ID), "by how many"),
            required("type", Holds::Flag, "1 more, 0 less"),
        ],
        refusals: &[2005],
        request: r#"{"bc_id":1,"num":2,"type":1}"#,
        data: r#"{"bc_id":1,"num":12}"#,
        run: Run::Partners(Partners::Inventory),
    },
    Route {
        path: "/business/invenlist",
        about: "An allotment's stock log, newest first: num more (type 1) or less (0), total from then on",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE, required("bc_id", Holds::Id, "the allotment's id")],
        refusals: &[2005],
        request: r#"{"page":1,"limit":10,"bc_id":1}"#,
        data: r#"[{"id":2,"bc_id":1,"num":2,"type":1,"total":12,"user_id":1000,"create_date":1543026701}]"#,
        run: Run::Partners(Partners::InvenList),
    },
    Route {
        path: "/businesshome/get",
        about: "The partner who calls",
        writes: false,
        fields: &[],
        refusals: &[2005],
        request: "{}",
        data: partner!("", ""),
        run: Run::Partners(Partners::Home),
    },
    Route {
        path: "/businesshome/giveqrcode",
        about: "The QR behind which members find what they can take from the partner who calls",
        writes: false,
        fields: &[],
        refusals: &[2005],
        request: "{}",
        data: r#"{"svg":"<svg/>","url":"https://coupons.example/partner/3/AAAA"}"#,
        run: Run::Partners(Partners::HomeGiveQrCode),
    },
    Route {
        path: "/businesshome/auditqrcode",
        about: "The redemption QR of the partner who calls: its signed URL and a picture of it",
        writes: false,
        fields: &[],
        refusals: &[2005],
        request: "{}",
        data: r#"{"url":"https://coupons.example/qr/3/1/AAAA","svg":"<svg/>"}"#,
        run: Run::Partners(Partners::HomeAuditQrCode),
    },
    Route {
        path: "/businesshome/auditcoupon",
        about: "Settlement: redemptions that stand of coupons taken from the allotments of the partner who calls, wherever they were redeemed, newest first; the same rows as /statistics/getattract",
        writes: false,
        fields: &[PAGE, LIMIT, START, STRAR, END],
        refusals: &[2005],
        request: r#"{"page":1,"limit":10,"strar":"2018-11-01","end":"2018-11-30"}"#,
        data: settled!("1", r#""shop_id":2,"shop_name":"人民路店""#),
        run: Run::Partners(Partners::HomeAuditCoupon),
    },
    Route {
        path: "/businesshome/attractcoupon",
        about: "Redemptions that stand of the merchant's coupons at the partner who calls, newest first; bc_id is 0 unless it was taken from an allotment",
        writes: false,
        fields: &[PAGE, LIMIT, START, STRAR, END],
        refusals: &[2005],
        request: r#"{"page":1,"limit":10,"strar":"2018-11-01","end":"2018-11-30"}"#,
        data: settled!("0", r#""shop_id":3,"shop_name":"隔壁咖啡""#),
        run: Run::Partners(Partners::HomeAttractCoupon),
    },
    Route {
        path: "/statistics/getattract",
        about: "Settlement: redemptions that stand of coupons taken from a partner's allotments, newest first; the same rows as /businesshome/auditcoupon, at once and not when they are counted. The header as-of-position says as of which event; business_id in the other pages of statistics adds them up",
        writes: false,
        fields: &[PAGE, LIMIT, BUSINESS, START, STRAR, END],
        refusals: &[2005],
        request: r#"{"page":1,"limit":10,"business_id":3,"strar":"2018-11-01","end":"2018-11-30"}"#,
        data: settled!("1", r#""shop_id":2,"shop_name":"人民路店""#),
        run: Run::Partners(Partners::StatisticsAttract),
    },
    Route {
        path: "/wechat/businesscoupon",
        about: "The merchant's coupons that can be used at a partner, newest id first",
        writes: false,
        fields: &[BUSINESS, PAGE, LIMIT, BEFORE],
        refusals: &[2005, 2003],
        request: r#"{"business_id":3,"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Partners(Partners::MemberCoupons),
    },
    Route {
        path: "/wechat/getattract",
        about: "What members can take from a partner, newest id first: inventory is what is left, is_get 1 where this member may take one now",
        writes: false,
        fields: &[BUSINESS, PAGE, LIMIT, BEFORE],
        refusals: &[2005, 2003, 310],
        request: r#"{"business_id":3,"page":1,"limit":10}"#,
        data: r#"[{"id":1,"coupon_id":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00","money":"100.00","validity_type":2,"validity":30,"start_date":"","end_date":"","use_week":"","rules":"我是使用規則","inventory":9,"end_time":"2099-12-31","is_get":1}]"#,
        run: Run::Partners(Partners::MemberAttract),
    },
    Route {
        path: "/wechat/receive",
        about: "一鍵領取: takes one coupon of each open allotment of a partner; code says what became of each, 0 = taken. Under the same key what was taken is answered again and the rest asked afresh",
        writes: true,
        fields: &[BUSINESS],
        refusals: &[2005, 2003, 310],
        request: r#"{"business_id":3}"#,
        data: r#"[{"coupon_id":1,"id":452,"code":0}]"#,
        run: Run::Partners(Partners::Receive),
    },
    Route {
        path: "/wechat/auditlist",
        about: "The member's own redemptions that stand at a partner on one day, newest first",
        writes: false,
        fields: &[BUSINESS, required("date", Holds::Day, "the day"), PAGE, LIMIT],
        refusals: &[2005],
        request: r#"{"business_id":3,"date":"2019-04-10","page":1,"limit":10}"#,
        data: settled!("0", r#""shop_id":3,"shop_name":"隔壁咖啡""#),
        run: Run::Partners(Partners::MemberAuditList),
    },
];
