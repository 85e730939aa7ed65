//! Orders, and what coupons would be worth in one.

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, optional, required};
use crate::http::orders::Orders;

const ORDER: Field = required("id", Holds::Id, "訂單ID");
const SHOP: Field =
    optional("shop_id", Holds::Int(0, MAX_ID), "an operator names it; an employee's is his own");
const CODES: Field = optional(
    "counter_codes",
    Holds::Text(5_000),
    "the codes that the member shows, a,b,c: needed where employees redeem by code only",
);
const BEGIN: Field = optional("begin", Holds::Day, "first day; default: the first of all");
const END: Field = optional("end", Holds::Day, "last day, included; default: today");

const FATES: &str = r#"{"id":1,"returned":[439],"voided":[441],"kept":[{"id":440,"code":4002}]}"#;

macro_rules! order {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":1,"user_id":1000,"create_time":"2018-11-27 11:44:03","cancel_time":0,"shop_id":1,"count":2,"price":"200.00","state":1,"member_id":439,"evaluation":"","score":0,"evaluation_time":0,"order_detail":[{"id":1,"order_id":1,"goods_id":7,"price":"100.00","count":2,"state":1}],"deduction":"10.00","pay":"190.00","use_score":0,"balance":"0.00","remark":"","order_no":"T-20181127-1","ora_id":0,"use_coupon_list":"439","coupon_list":"441"}"#,
            $after
        )
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/order/add",
        about: "Places an order: uses its coupons and issues what it earned, all or nothing",
        writes: true,
        fields: &[
            required("member_id", Holds::Id, "會員ID"),
            required(
                "goods",
                Holds::Rows,
                "[{goods_id, price, state, count, coupon_list:[{coupon_id,num}]}]; state 1 sold, 0 given free, -1 returned; coupon_list: what the groups of these goods grant",
            ),
            optional("ora_id", Holds::Int(0, MAX_ID), "the order-amount rule, 0 if none"),
            optional("order_coupon_list", Holds::Rows, "[{coupon_id,num}]: what that rule grants"),
            optional(
                "use_coupon_list",
                Holds::Ints(MAX_ID),
                "會員電子券ID: the coupons it uses, each once; 0 if none",
            ),
            CODES,
            optional("score", Holds::Int(0, MAX_ID), "points used"),
            optional("balance", Holds::Money, "account balance used"),
            optional("remark", Holds::Text(200), "備註; no personal data"),
            SHOP,
            optional(
                "order_no",
                Holds::Text(64),
                "the caller's own number of it: the same number and body is the same order",
            ),
        ],
        refusals: &[
            310, 2005, 2001, 3004, 3001, 3003, 4002, 4001, 4003, 2003, 3002, 7005, 5004, 5005, 5006, 5003,
            5002, 5001,
        ],
        request: r#"{"member_id":439,"goods":"[{\"goods_id\":7,\"price\":\"100.00\",\"state\":1,\"count\":2,\"coupon_list\":[]}]","ora_id":0,"order_coupon_list":"","use_coupon_list":"0","score":0,"balance":0,"remark":""}"#,
        data: r#"{"id":1}"#,
        run: Run::Orders(Orders::Add),
    },
    Route {
        path: "/order/cancelago",
        about: "What a cancel would do to the order's coupons now: returned, voided, and kept with the code why",
        writes: false,
        fields: &[
            ORDER,
            optional("return_partner", Holds::Flag, "1 = an operator returns a partner's coupons as well"),
        ],
        refusals: &[1002, 310, 2006, 3011],
        request: r#"{"id":1}"#,
        data: FATES,
        run: Run::Orders(Orders::CancelAgo),
    },
    Route {
        path: "/order/cancel",
        about: "Cancels an order: used coupons are in hand again unless past their end, unused ones that it earned and the buyer still has are voided",
        writes: true,
        fields: &[
            ORDER,
            optional("return_partner", Holds::Flag, "1 = an operator returns a partner's coupons as well"),
        ],
        refusals: &[1002, 310, 2006, 3011],
        request: r#"{"id":1}"#,
        data: FATES,
        run: Run::Orders(Orders::Cancel),
    },
    Route {
        path: "/order/get",
        about: "One order; an employee sees those of his shop",
        writes: false,
        fields: &[ORDER],
        refusals: &[310, 2006],
        request: r#"{"id":1}"#,
        data: order!("", ""),
        run: Run::Orders(Orders::Get),
    },
    Route {
        path: "/order/list",
        about: "Orders, newest id first; an employee sees those of his shop",
        writes: false,
        fields: &[
            PAGE,
            LIMIT,
            BEFORE,
            optional("member_id", Holds::Int(0, MAX_ID), "of this member; 0 = of all"),
            SHOP,
            BEGIN,
            END,
        ],
        refusals: &[310],
        request: r#"{"page":1,"limit":10,"member_id":439}"#,
        data: order!("[", "]"),
        run: Run::Orders(Orders::List),
    },
    Route {
        path: "/order/elecouponlist",
        about: "A member's cash coupons for the till: those that could be used at the employee's shop now",
        writes: false,
        fields: &[required("member_id", Holds::Id, "會員ID"), PAGE, LIMIT, BEFORE],
        refusals: &[310],
        request: r#"{"member_id":439,"page":1,"limit":10}"#,
        data: r#"[{"id":452,"member_id":439,"coupon_id":1,"start_date":"2018-11-01","end_date":"2019-01-01","create_date":1543026701,"use_date":0,"give_date":0,"type":1,"use_id":0,"receive_id":0,"evaluation":"","score":0,"evaluation_time":0,"is_read":0,"coupon_title":"測試電子券","deduction":"10.00","is_self":0,"use_week":"1,2,3","is_use_week":1,"give_id":0,"come":5,"user_id":1000,"order_id":0,"goods_id":0}]"#,
        run: Run::Orders(Orders::CouponList),
    },
    Route {
        path: "/order/getorderelecoupon",
        about: "What an order of this amount is granted: the highest rule at or below it, null where there is none",
        writes: false,
        fields: &[required("amount", Holds::Money, "the order's amount"), PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"amount":"200.00"}"#,
        data: r#"{"id":1,"amount":100,"coupon_list":[{"id":7,"ora_id":1,"coupon_id":1,"user_id":1000,"create_date":1543026701,"num":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00"}]}"#,
        run: Run::Orders(Orders::Granted),
    },
    Route {
        path: "/user/checkcoupons",
        about: "What each of these coupons would be worth in an order, and the code why not: nothing is redeemed [ours]",
        writes: false,
        fields: &[
            required("member_id", Holds::Id, "會員ID"),
            required("coupons", Holds::Ints(MAX_ID), "會員電子券ID, each once"),
            optional("amount", Holds::Money, "the order's amount; without it, what goods come to"),
            optional("goods", Holds::Rows, "[{goods_id, price, state, count}]"),
            CODES,
            SHOP,
        ],
        refusals: &[310],
        request: r#"{"member_id":439,"coupons":"439,440","amount":"200.00"}"#,
        data: r#"{"amount":"200.00","deduction":"10.00","pay":"190.00","coupons":[{"id":439,"coupon_title":"測試電子券","type":1,"deduction":"10.00","worth":"10.00","code":0},{"id":440,"coupon_title":"測試電子券","type":1,"deduction":"10.00","worth":"0.00","code":3001}]}"#,
        run: Run::Orders(Orders::CheckCoupons),
    },
];
