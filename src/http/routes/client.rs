//! The member's side (`/client/…`).

use super::{BEFORE, COUPON, Holds, LIMIT, MAX_ID, PAGE, Route, Run, definition, optional, required};
use crate::http::client::Client;

macro_rules! list_row {
    ($more:literal) => {
        concat!(
            r#"[{"id":3,"member_id":439,"coupon_id":1,"start_date":"2018-11-01","end_date":"2019-01-01","create_date":1543026701,"use_date":0,"give_date":0,"type":2,"use_id":0,"receive_id":0,"evaluation":"","score":0,"evaluation_time":0,"is_read":0,"coupon_title":"測試電子券測試電子券測試","deduction":"10.00","is_self":1"#,
            $more,
            "}]"
        )
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/client/couponlist",
        about: "電子券列表: the member's coupons in one state, newest id first",
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
        writes: true,
        fields: &[required("id", Holds::Id, "the definition's id")],
        refusals: &[2002, 5006, 310, 5003, 5002, 5001],
        request: r#"{"id":1}"#,
        data: r#"{"id":452}"#,
        run: Run::Client(Client::ClaimCoupon),
    },
    Route {
        path: "/client/messages",
        about: "What the member is told, newest first, and how many of all his messages he has not read: cheap to ask again and \
                again. type: 1 a mass send with is_all_send=1 has brought a coupon, 2 his gift was received, 3 nobody received \
                it and it is back, 4 a coupon ends soon, 5 his birthday and 6 his level have brought one. title and content are \
                in the language of Accept-Language. What was read goes after 90 days, what was not after a year [ours]",
        writes: false,
        fields: &[
            optional("unread", Holds::Flag, "1 = only those that he has not read"),
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: r#"{"unread":1,"messages":[{"id":7,"type":1,"title":"您收到新電子券","content":"您收到電子券「測試電子券」，有效期至2019-01-01。","create_date":1543026701,"is_read":0,"mem_coupon_id":3,"coupon_id":1,"coupon_title":"測試電子券","send_id":2}]}"#,
        run: Run::Client(Client::Messages),
    },
    Route {
        path: "/client/readmessage",
        about: "Marks a message as read, or with all=1 every one up to it, or up to the newest where no id is sent: the answer \
                says up to which. A message that is not there, or not his, is nothing to mark, and no error [ours]",
        writes: true,
        fields: &[
            optional("id", Holds::Id, "the message; required unless all=1"),
            optional("all", Holds::Flag, "1 = and all before it"),
        ],
        refusals: &[],
        request: r#"{"id":7}"#,
        data: r#"{"id":7}"#,
        run: Run::Client(Client::ReadMessage),
    },
];
