//! Rules and what they grant: orders' amounts, groups of goods, levels, birthdays.

use super::{BEFORE, Holds, LIMIT, MAX_ID, PAGE, Route, Run, definition, optional, required};
use crate::http::rules::{MAX_AMOUNT, Rules};

const NUMS: super::Field = required(
    "json",
    Holds::Rows,
    r#"[{"id":1,"num":10},…]: id is the row's, num 1 to 10,000; the others stay"#,
);

macro_rules! order_row {
    () => {
        r#"{"id":2,"ora_id":1,"coupon_id":5,"user_id":1000,"create_date":1543026701,"num":5,"coupon_title":"測試電子券","type":1,"deduction":"10.00"}"#
    };
}

macro_rules! goods_row {
    ($more:literal) => {
        concat!(
            r#"{"id":2,"goodsgroup_id":1,"coupon_id":5,"user_id":1000,"create_date":1543026701,"num":5,"coupon_title":"測試電子券","type":1,"deduction":"10.00""#,
            $more,
            "}"
        )
    };
}

const ID: &[super::Field] = &[required("id", Holds::Id, "its id")];

const fn deletes(path: &'static str, about: &'static str, run: Rules) -> Route {
    Route {
        path,
        about,
        writes: true,
        fields: ID,
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: "1",
        run: Run::Rules(run),
    }
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/goodsgroup/getlist",
        about: "商品組: groups of goods, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: r#"[{"id":1,"title":"飲料","user_id":1000,"create_date":1543026701}]"#,
        run: Run::Rules(Rules::GroupList),
    },
    Route {
        path: "/goodsgroup/info",
        about: "One group with its goods and what it grants",
        writes: false,
        fields: &[required("id", Holds::Id, "the group's id")],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: concat!(
            r#"{"id":1,"title":"飲料","user_id":1000,"create_date":1543026701,"goods_ids":"7,8","couList":["#,
            goods_row!(""),
            "]}"
        ),
        run: Run::Rules(Rules::GroupInfo),
    },
    Route {
        path: "/goodsgroup/add",
        about: "Creates a group, with no goods yet",
        writes: true,
        fields: &[required("title", Holds::Text(100), "its title")],
        refusals: &[],
        request: r#"{"title":"飲料"}"#,
        data: r#"{"title":"飲料","id":"1"}"#,
        run: Run::Rules(Rules::GroupAdd),
    },
    Route {
        path: "/goodsgroup/edit",
        about: "Gives a group another title",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the group's id"),
            required("title", Holds::Text(100), "its title"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"title":"熱飲"}"#,
        data: r#"{"title":"熱飲","id":"1"}"#,
        run: Run::Rules(Rules::GroupEdit),
    },
    deletes(
        "/goodsgroup/del",
        "Deletes a group with everything it grants; what was issued stays",
        Rules::GroupDel,
    ),
    Route {
        path: "/goodsgroup/setgoods",
        about: "Says which goods belong to a group; goods belong to any number of groups [ours]",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the group's id"),
            optional("goods_ids", Holds::Ints(MAX_ID), "all goods of the group; 0 or nothing = none"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"goods_ids":"7,8"}"#,
        data: r#"{"id":1,"goods_ids":"7,8"}"#,
        run: Run::Rules(Rules::GroupSetGoods),
    },
    Route {
        path: "/goodselecoupon/couponlist",
        about: "Definitions that can be added to a group: on, not ended, not sold out, not there already",
        writes: false,
        fields: &[required("goods_group_id", Holds::Id, "the group's id"), PAGE, LIMIT, BEFORE],
        refusals: &[2005],
        request: r#"{"goods_group_id":1,"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Rules(Rules::GroupCouponList),
    },
    Route {
        path: "/goodselecoupon/add",
        about: "商品組電子券: what goods of a group grant, all of the list or nothing of it",
        writes: true,
        fields: &[
            required("goodsgroup_id", Holds::Id, "the group's id"),
            required(
                "coupon_ids",
                Holds::Rows,
                r#"[{"id":1,"num":2},…]: id is the definition's, num 1 to 10,000; one that the group grants already is refused"#,
            ),
        ],
        refusals: &[2005, 2002],
        request: r#"{"goodsgroup_id":1,"coupon_ids":"[{\"id\":1,\"num\":2}]"}"#,
        data: "true",
        run: Run::Rules(Rules::GroupCouponAdd),
    },
    Route {
        path: "/goodselecoupon/edit",
        about: "Changes how many coupons groups grant; later issues only",
        writes: true,
        fields: &[NUMS],
        refusals: &[2005],
        request: r#"{"json":"[{\"id\":1,\"num\":10}]"}"#,
        data: "true",
        run: Run::Rules(Rules::GroupCouponEdit),
    },
    deletes("/goodselecoupon/del", "Removes a row of what a group grants", Rules::GroupCouponDel),
    Route {
        path: "/goods/get",
        about: "Goods by their id: the groups they belong to and what those grant",
        writes: false,
        fields: &[required("id", Holds::Id, "商品ID")],
        refusals: &[],
        request: r#"{"id":7}"#,
        data: concat!(r#"{"id":7,"groupList":[{"id":1,"title":"飲料"}],"couList":["#, goods_row!(""), "]}"),
        run: Run::Rules(Rules::GoodsGet),
    },
    Route {
        path: "/goods/checkinfo",
        about: "What of these goods' grants the member could be issued now: give_num of num, and the code that stops the rest; each row by itself",
        writes: false,
        fields: &[required("id", Holds::Id, "商品ID"), required("member_id", Holds::Id, "會員ID")],
        refusals: &[310],
        request: r#"{"id":7,"member_id":439}"#,
        data: concat!("[", goods_row!(r#","state":0,"give_num":2,"code":5001"#), "]"),
        run: Run::Rules(Rules::GoodsCheck),
    },
    Route {
        path: "/orderamount/info",
        about: "One rule of an order's amount with what it grants",
        writes: false,
        fields: &[required("id", Holds::Id, "the rule's id")],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: concat!(
            r#"{"id":1,"amount":100,"user_id":1000,"create_date":1543026701,"couList":["#,
            order_row!(),
            "]}"
        ),
        run: Run::Rules(Rules::AmountInfo),
    },
    Route {
        path: "/orderamount/getlist",
        about: "訂單滿額: rules of orders' amounts, newest id first",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"page":1,"limit":10}"#,
        data: r#"[{"id":1,"amount":100,"user_id":1000,"create_date":1543026701}]"#,
        run: Run::Rules(Rules::AmountList),
    },
    Route {
        path: "/orderamount/add",
        about: "Defines a rule: what an order of an amount earns. Of several rules the highest at or below the amount holds",
        writes: true,
        fields: &[
            required("amount", Holds::Int(1, MAX_AMOUNT), "from which amount on, whole"),
            optional(
                "json",
                Holds::Rows,
                r#"[{"coupon_id":1,"num":10},…]: coupon_id is the definition's, num 1 to 10,000"#,
            ),
        ],
        refusals: &[2002],
        request: r#"{"amount":200,"json":"[{\"coupon_id\":1,\"num\":10}]"}"#,
        data: r#"{"amount":"200","user_id":0,"create_date":1543026701,"id":"2"}"#,
        run: Run::Rules(Rules::AmountAdd),
    },
    Route {
        path: "/orderamount/edit",
        about: "Changes a rule's amount and how many coupons its rows grant; later orders only",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the rule's id"),
            required("amount", Holds::Int(1, MAX_AMOUNT), "from which amount on, whole"),
            optional(
                "json",
                Holds::Rows,
                r#"[{"id":1,"num":10},…]: id is the row's, num 1 to 10,000; the others stay"#,
            ),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"amount":100,"json":"[{\"id\":1,\"num\":10}]"}"#,
        data: r#"{"id":"1","amount":"100"}"#,
        run: Run::Rules(Rules::AmountEdit),
    },
    deletes(
        "/orderamount/del",
        "Deletes a rule with everything it grants; what was issued stays [ours]",
        Rules::AmountDel,
    ),
    Route {
        path: "/orderelecoupon/couponlist",
        about: "Definitions that can be added to a rule: on, not ended, not sold out, not there already",
        writes: false,
        fields: &[required("ora_id", Holds::Id, "the rule's id"), PAGE, LIMIT, BEFORE],
        refusals: &[2005],
        request: r#"{"ora_id":1,"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Rules(Rules::AmountCouponList),
    },
    Route {
        path: "/orderelecoupon/getlist",
        about: "訂單電子券: what a rule grants, newest id first",
        writes: false,
        fields: &[required("ora_id", Holds::Id, "the rule's id"), PAGE, LIMIT, BEFORE],
        refusals: &[2005],
        request: r#"{"ora_id":1,"page":1,"limit":10}"#,
        data: concat!("[", order_row!(), "]"),
        run: Run::Rules(Rules::AmountCoupons),
    },
    Route {
        path: "/orderelecoupon/add",
        about: "Adds definitions to a rule, one coupon of each, all of them or none; one that it grants already is refused",
        writes: true,
        fields: &[
            required("ora_id", Holds::Id, "the rule's id"),
            required("coupon_ids", Holds::Ints(MAX_ID), "the definitions' ids"),
        ],
        refusals: &[2005, 2002],
        request: r#"{"ora_id":1,"coupon_ids":[1,2]}"#,
        data: "true",
        run: Run::Rules(Rules::AmountCouponAdd),
    },
    deletes("/orderelecoupon/del", "Removes a row of what a rule grants", Rules::AmountCouponDel),
    Route {
        path: "/memberelecoupon/list",
        about: "會員等級電子券: what reaching a level grants, newest id first",
        writes: false,
        fields: &[required("level_id", Holds::Id, "the level's id"), PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"level_id":1,"page":1,"limit":10}"#,
        data: r#"[{"id":1,"coupon_id":5,"num":1,"level_id":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00"}]"#,
        run: Run::Rules(Rules::LevelCoupons),
    },
    Route {
        path: "/memberelecoupon/couponlist",
        about: "Definitions that can be added to a level: on, not ended, not sold out, open to it, not there already",
        writes: false,
        fields: &[required("level_id", Holds::Id, "the level's id"), PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"level_id":1,"page":1,"limit":10}"#,
        data: definition!("[", "]"),
        run: Run::Rules(Rules::LevelCouponList),
    },
    Route {
        path: "/memberelecoupon/add",
        about: "Adds definitions to a level, one coupon of each, all of them or none; one that it grants already is refused",
        writes: true,
        fields: &[
            required("level_id", Holds::Id, "the level's id"),
            required("coupon_id", Holds::Ints(MAX_ID), "the definitions' ids"),
        ],
        refusals: &[2002],
        request: r#"{"level_id":1,"coupon_id":[1,2]}"#,
        data: "true",
        run: Run::Rules(Rules::LevelCouponAdd),
    },
    Route {
        path: "/memberelecoupon/edit",
        about: "Changes how many coupons levels grant; later issues only",
        writes: true,
        fields: &[NUMS],
        refusals: &[2005],
        request: r#"{"json":"[{\"id\":1,\"num\":10}]"}"#,
        data: "true",
        run: Run::Rules(Rules::LevelCouponEdit),
    },
    deletes("/memberelecoupon/del", "Removes a row of what a level grants", Rules::LevelCouponDel),
    Route {
        path: "/memberlevel/checkinfo",
        about: "What the member would be issued on reaching this level now: give_num of num, and the code that stops the rest; each row by itself. 5002 throughout where he has reached it before",
        writes: false,
        fields: &[required("id", Holds::Id, "the level's id"), required("member_id", Holds::Id, "會員ID")],
        refusals: &[310],
        request: r#"{"id":1,"member_id":439}"#,
        data: r#"[{"id":1,"level_id":1,"coupon_id":5,"user_id":1000,"create_date":1543026701,"num":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00","state":1,"give_num":1,"code":0}]"#,
        run: Run::Rules(Rules::LevelCheck),
    },
    Route {
        path: "/birthdaycoupon/get",
        about: "生日提醒: what a member gets each year on his birthday [ours]",
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: r#"[{"id":1,"coupon_id":5,"user_id":1000,"create_date":1543026701,"num":1,"coupon_title":"測試電子券","type":1,"deduction":"10.00"}]"#,
        run: Run::Rules(Rules::BirthdayGet),
    },
    Route {
        path: "/birthdaycoupon/set",
        about: "Sets all that a birthday gives: what is not named goes [ours]",
        writes: true,
        fields: &[optional(
            "coupon_ids",
            Holds::Rows,
            r#"[{"id":1,"num":1},…]: id is the definition's, num 1 to 10,000; nothing = no gift"#,
        )],
        refusals: &[2002],
        request: r#"{"coupon_ids":"[{\"id\":1,\"num\":1}]"}"#,
        data: "true",
        run: Run::Rules(Rules::BirthdaySet),
    },
];
