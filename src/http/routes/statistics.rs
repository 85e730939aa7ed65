//! Statistics (統計).

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, optional, required};
use crate::http::statistics::{BY_NAMES, Statistics};

const START: Field = optional("start", Holds::Day, "first day; default: from the beginning");
const END: Field = optional("end", Holds::Day, "last day; default: to the end");
const SHOP: Field = optional(
    "shop_id",
    Holds::IntOrBlank(0, MAX_ID),
    "門店ID; empty or missing = all, 0 = bought coupons, of which there are none",
);
const SHOP_TYPE: Field =
    optional("shop_type", Holds::Flag, "where no shop is named: 1 = partners, 0 = own shops; default 0");

const USER: Field = optional(
    "user_id",
    Holds::IntOrBlank(0, MAX_ID),
    "only what this employee did, 0 = no employee; empty or missing = all",
);
const BUSINESS: Field = optional(
    "business_id",
    Holds::IntOrBlank(0, MAX_ID),
    "only coupons from this partner's allotments, 0 = from nobody's; empty or missing = all",
);
const COME: Field = optional(
    "come",
    Holds::IntOrBlank(0, 9),
    "only coupons that were born so (0 mass send, 1 order amount, 2 product group, 3 member level, 5 one-to-one, 6 birthday, 7 partner, 8 claimed, 9 imported); empty or missing = all",
);
const COUPON_ID: Field =
    optional("coupon_id", Holds::IntOrBlank(0, MAX_ID), "only this 電子券; empty or missing = all");

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/statistics/elecoupon",
        about: "電子券統計: of each definition, newest id first, what happened to its coupons in these days. used = redeemed − \
                reversed, each on its own day, and so below 0 where more was taken back than used; outstanding is what there is \
                at the end of the last day; redemption_rate = used / issued; median_days from the issue to the use; members who \
                used one, and those of them who had used one on an earlier day. With user_id there is no outstanding, expired \
                and redemption_rate: they are null. The header as-of-position says which events are counted",
        writes: false,
        fields: &[START, END, USER, BUSINESS, COME, PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","page":1,"limit":10}"#,
        data: r#"[{"id":1,"title":"測試電子券","type":1,"deduction":"10.00","issued":12,"claimed":2,"viewed":9,"given":2,"received":1,"redeemed":5,"reversed":1,"used":4,"expired":1,"voided":1,"reviewed":2,"average_score":4.5,"issued_money":"120.00","used_money":"40.00","expired_money":"10.00","outstanding":6,"outstanding_money":"60.00","redemption_rate":0.3333,"median_days":3,"members":3,"returning_members":1}]"#,
        run: Run::Statistics(Statistics::ByDefinition),
    },
    Route {
        path: "/statistics/elecouponby",
        about: "The figures of /statistics/elecoupon by something else, largest id first: by shop (id = 門店ID or 商家ID, 0 = what happens at \
                no shop: every issue, claim, view, gift and void), user (id = who issued, redeemed, voided it; 0 = no employee), \
                business (id = 商家ID from whose allotment the coupons are, 0 = nobody's), come (id = how they were born) or day (id \
                20181101, name 2018-11-01, each day, 30 of them unless start says otherwise and 1000 at most). What nothing \
                happened to has no row, days apart. By shop and user, and with shop_id and user_id, there is no outstanding, \
                expired and redemption_rate: they are null. By anything but shop and day members are counted one by one: ask for \
                days, not years. Nobody's name is in it: user_id as in /user/list",
        writes: false,
        fields: &[
            required("by", Holds::OneOf(BY_NAMES), "what they are told apart by"),
            START,
            END,
            COUPON_ID,
            optional(
                "shop_id",
                Holds::IntOrBlank(0, MAX_ID),
                "only what happened in this shop; empty or missing = all",
            ),
            USER,
            BUSINESS,
            COME,
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"by":"business","start":"2018-11-01","end":"2018-11-30","page":1,"limit":10}"#,
        data: r#"[{"id":3,"name":"隔壁咖啡","issued":12,"claimed":0,"viewed":9,"given":2,"received":1,"redeemed":5,"reversed":1,"used":4,"expired":1,"voided":1,"reviewed":2,"average_score":4.5,"issued_money":"120.00","used_money":"40.00","expired_money":"10.00","outstanding":6,"outstanding_money":"60.00","redemption_rate":0.3333,"median_days":3,"members":3,"returning_members":1}]"#,
        run: Run::Statistics(Statistics::By),
    },
    Route {
        path: "/statistics/audit",
        about: "電子券核銷統計: of each shop (shop_type 0) and partner (1) how many uses stand (num = redeemed − reversed, each on \
                its own day), what they took off, of how many members they are and how many of those came again, how they were \
                reviewed and how many days after the issue they came (the median); newest id first, all unless page, limit or \
                before_id is sent. Employees without the right see their own shop",
        writes: false,
        fields: &[START, END, COUPON_ID, USER, BUSINESS, COME, PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","page":1,"limit":10}"#,
        data: r#"[{"shop_id":1,"shop_name":"總店","shop_type":0,"num":4,"money":"40.00","redeemed":5,"reversed":1,"redeemed_money":"50.00","reversed_money":"10.00","members":3,"returning_members":1,"reviewed":2,"average_score":4.5,"median_days":3}]"#,
        run: Run::Statistics(Statistics::ByShop),
    },
    Route {
        path: "/statistics/audittype",
        about: "What was redeemed in a shop, or in all of a kind: by definition, newest id first, the uses that stand: num = \
                redeemed − reversed, each on its own day",
        writes: false,
        fields: &[
            START,
            END,
            SHOP,
            required("type", Holds::Int(1, 2), "1 現金券, 2 兌換券"),
            SHOP_TYPE,
            USER,
            BUSINESS,
            COME,
            PAGE,
            LIMIT,
            BEFORE,
        ],
        refusals: &[],
        request: r#"{"start":"2018-11-01","end":"2018-11-30","shop_id":1,"type":1,"shop_type":0}"#,
        data: r#"[{"coupon_id":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00","num":4,"money":"40.00","redeemed":5,"reversed":1}]"#,
        run: Run::Statistics(Statistics::OfShop),
    },
    Route {
        path: "/statistics/auditcoupon",
        about: "The uses of one definition's coupons that stand, newest id first: as many as /statistics/audittype counts, \
                but for those that were taken back on another day than those asked for",
        writes: false,
        fields: &[
            START,
            END,
            SHOP,
            required("coupon_id", Holds::Id, "電子券ID"),
            SHOP_TYPE,
            USER,
            BUSINESS,
            COME,
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
