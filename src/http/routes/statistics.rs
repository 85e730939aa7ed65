//! Statistics (統計).

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, optional, required};
use crate::http::statistics::Statistics;

const START: Field = optional("start", Holds::Day, "first day; default: from the beginning");
const END: Field = optional("end", Holds::Day, "last day; default: to the end");
const SHOP: Field = optional(
    "shop_id",
    Holds::IntOrBlank(0, MAX_ID),
    "門店ID; empty or missing = all, 0 = bought coupons, of which there are none",
);
const SHOP_TYPE: Field =
    optional("shop_type", Holds::Flag, "where no shop is named: 1 = partners, 0 = own shops; default 0");

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/statistics/elecoupon",
        about: "電子券統計: of each definition, newest id first, what happened to its coupons in these days. used = redeemed − \
                reversed; outstanding is what there is at the end of the last day; redemption_rate = used / issued; \
                median_days from the issue to the use; members who used one, and those of them who had used one on an \
                earlier day. The header as-of-position says which events are counted",
        writes: false,
        fields: &[START, END, PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","page":1,"limit":10}"#,
        data: r#"[{"id":1,"title":"測試電子券","type":1,"deduction":"10.00","issued":12,"claimed":2,"viewed":9,"given":2,"received":1,"redeemed":5,"reversed":1,"used":4,"expired":1,"voided":1,"reviewed":2,"average_score":4.5,"issued_money":"120.00","used_money":"40.00","expired_money":"10.00","outstanding":6,"outstanding_money":"60.00","redemption_rate":0.3333,"median_days":3,"members":3,"returning_members":1}]"#,
        run: Run::Statistics(Statistics::ByDefinition),
    },
    Route {
        path: "/statistics/audit",
        about: "電子券核銷統計: of each shop (shop_type 0) and partner (1) how many uses stand (num = redeemed − reversed), what they \
                took off, and how many members they are of; employees without the right see their own shop",
        writes: false,
        fields: &[START, END],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30"}"#,
        data: r#"[{"shop_id":1,"shop_name":"總店","shop_type":0,"num":4,"money":"40.00","redeemed":5,"reversed":1,"members":3}]"#,
        run: Run::Statistics(Statistics::ByShop),
    },
    Route {
        path: "/statistics/audittype",
        about: "What was redeemed in a shop, or in all of a kind: by definition, newest id first, the uses that stand",
        writes: false,
        fields: &[
            START,
            END,
            SHOP,
            required("type", Holds::Int(1, 2), "1 現金券, 2 兌換券"),
            SHOP_TYPE,
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","shop_id":1,"type":1,"shop_type":0}"#,
        data: r#"[{"coupon_id":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00","num":4,"money":"40.00"}]"#,
        run: Run::Statistics(Statistics::OfShop),
    },
    Route {
        path: "/statistics/auditcoupon",
        about: "The uses of one definition's coupons that stand, newest id first: as many as /statistics/audittype counts",
        writes: false,
        fields: &[
            START,
            END,
            SHOP,
            required("coupon_id", Holds::Id, "電子券ID"),
            SHOP_TYPE,
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","shop_id":1,"coupon_id":1,"shop_type":0}"#,
        data: r#"[{"id":2,"mem_coupon_id":439,"coupon_id":1,"coupon_title":"測試電子券","deduction":"10.00","create_date":1543294087,"shop_id":1,"shop_name":"總店","user_id":1000,"member_id":439,"come":0}]"#,
        run: Run::Statistics(Statistics::Uses),
    },
];
