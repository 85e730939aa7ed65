//! The sheets that there are. A column's name is for programs and never changes its meaning; its words are for people.

mod directory;
mod settings;

use super::rows::Seen;
use super::{Accepts, Column, Filter, From, Kind, Sheet, Source, Value, Words};
use crate::read_model::approvals::APPROVALS;
use crate::read_model::orders::ORDERS;
use crate::read_model::{
    ALLOTMENT_CHANGES, ALLOTMENTS, DEFINITIONS, GOODS_GROUPS, GRANTS, JOBS, ORDER_AMOUNTS, PARTNER_COUPONS,
    PARTNERS, REDEMPTIONS, SHOPS, WALLET,
};

use From::{Cell, Computed, ShopName, Word};
use Kind::{Day, Flag, Id, Instant, Int, Text};

/// Cents.
const MONEY: Kind = Kind::Hundredths;

/// Every sheet; statistics have their own columns each time, see [`super::statistics`].
pub static SHEETS: &[&Sheet] = &[
    &COUPONS,
    &REDEMPTIONS_SHEET,
    &DEFINITIONS_SHEET,
    &ORDERS_SHEET,
    &directory::MEMBERS,
    &JOBS_SHEET,
    &GRANTS_SHEET,
    &ORDER_RULES,
    &GOODS_GROUPS_SHEET,
    &ALLOTMENTS_SHEET,
    &ALLOTMENT_CHANGES_SHEET,
    &SETTLEMENTS,
    &SHOPS_SHEET,
    &PARTNERS_SHEET,
    &directory::EMPLOYEES,
    &APPROVALS_SHEET,
    &directory::LEVELS,
    &directory::TAGS,
    &settings::OFFICES_SHEET,
    &settings::APPOINTMENTS_SHEET,
    &settings::ACCOUNTS_SHEET,
    &settings::MACHINE_KEYS,
    &settings::PARTNER_KEYS_SHEET,
    &settings::WEBHOOKS_SHEET,
];

const fn column(name: &'static str, kind: Kind, from: From, words: Words) -> Column {
    Column { name, words, kind, from }
}

/// A column that is what the live row has under the same name.
const fn same(name: &'static str, kind: Kind, words: Words) -> Column {
    column(name, kind, Cell(name), words)
}

const fn by_id(name: &'static str, about: &'static str) -> Filter {
    Filter { name, accepts: Accepts::Id, about }
}

const COUPON_ID: Column = same("coupon_id", Id, ["會員電子券ID", "会员电子券ID", "Coupon ID"]);
const DEFINITION_ID: Column = same("definition_id", Id, ["電子券ID", "电子券ID", "Definition ID"]);
const MEMBER_ID: Column = same("member_id", Id, ["會員ID", "会员ID", "Member ID"]);
const SHOP_ID: Column = same("shop_id", Id, ["門店ID", "门店ID", "Shop ID"]);
const SHOP_NAME: Column = column("shop_name", Text, ShopName("shop_id"), ["門店", "门店", "Shop"]);
const EMPLOYEE_ID: Column = same("employee_id", Id, ["員工ID", "员工ID", "Employee ID"]);
const TITLE: Column = same("title", Text, ["電子券名稱", "电子券名称", "Title"]);
const DEDUCTION: Column =
    column("deduction", MONEY, Cell("deduction_cents"), ["抵扣金額", "抵扣金额", "Deduction"]);
const KIND: Column = column("kind", Text, Word("kind", COUPON_KINDS), ["類型", "类型", "Kind"]);
const USED_AT: Column = column("used_at", Instant, Cell("used_at_ms"), ["核銷時間", "核销时间", "Used at"]);
const SHOP_IDS: Column = same("shop_ids", Text, ["可用門店", "可用门店", "Shops"]);
const WEEKDAYS: Column = same("weekdays", Text, ["可用星期", "可用星期", "Weekdays"]);
const START_DATE: Column = same("start_date", Day, ["開始日期", "开始日期", "Start"]);
const END_DATE: Column = same("end_date", Day, ["結束日期", "结束日期", "End"]);

const COUPON_KINDS: &[(i64, &str)] = &[(1, "cash"), (2, "exchange")];

const OF_MEMBER: Filter = by_id("member_id", "of this member");
const OF_DEFINITION: Filter = by_id("definition_id", "of this definition");
const OF_SHOP: Filter = by_id("shop_id", "in this shop");

/// What a coupon is to the member whose row it is.
const STATES: &[&str] = &["unused", "expired", "pending", "used", "given", "voided"];

static COUPONS: Sheet = Sheet {
    name: "coupons",
    words: ["會員電子券", "会员电子券", "Coupons"],
    about: "The coupons of members, a row for each member who holds or has held one: `state` unused, expired, pending (being \
            given), used, given (received by somebody else) or voided; `source` how it came to be",
    whose: None,
    columns: &[
        COUPON_ID,
        MEMBER_ID,
        DEFINITION_ID,
        TITLE,
        KIND,
        DEDUCTION,
        column("state", Text, Computed(state_of), ["狀態", "状态", "State"]),
        START_DATE,
        END_DATE,
        column("issued_at", Instant, Cell("issued_at_ms"), ["發放時間", "发放时间", "Issued at"]),
        USED_AT,
        same("used_by", Id, ["使用人ID", "使用人ID", "Used by"]),
        column("given_at", Instant, Computed(given_at), ["贈送時間", "赠送时间", "Given at"]),
        same("given_by", Id, ["贈送會員ID", "赠送会员ID", "Given by"]),
        same("received_by", Id, ["接收會員ID", "接收会员ID", "Received by"]),
        same("score", Int, ["評分", "评分", "Score"]),
        column("evaluated_at", Instant, Cell("evaluated_at_ms"), ["評價時間", "评价时间", "Reviewed at"]),
        same("is_read", Flag, ["已讀", "已读", "Opened"]),
        column("source", Text, Word("source", SOURCES), ["來源", "来源", "Source"]),
        EMPLOYEE_ID,
        same("order_id", Id, ["訂單ID", "订单ID", "Order ID"]),
        same("goods_id", Id, ["商品ID", "商品ID", "Goods ID"]),
        same("issued_to", Id, ["首位會員ID", "首位会员ID", "Issued to"]),
        same("self_redeemable", Flag, ["可自助核銷", "可自助核销", "Self-redeemable"]),
        WEEKDAYS,
        SHOP_IDS,
    ],
    keys: 2,
    filters: &[
        OF_MEMBER,
        OF_DEFINITION,
        Filter { name: "state", accepts: Accepts::OneOf(STATES), about: "in this state" },
        by_id("order_id", "earned by this order"),
    ],
    days: Some("issued_at"),
    source: Source::Log { kind: "coupon", table: &WALLET },
};

const SOURCES: &[(i64, &str)] = &[
    (0, "mass_send"),
    (1, "order_amount"),
    (2, "product_group"),
    (3, "member_level"),
    (5, "one_to_one"),
    (6, "birthday"),
    (7, "partner"),
    (8, "claimed"),
    (9, "imported"),
];

fn state_of(row: &Seen<'_>) -> Value {
    let state = if row.int("voided") == 1 {
        "voided"
    } else if row.int("received_by") != 0 {
        "given"
    } else if row.int("used_at_ms") != 0 {
        "used"
    } else if row.int("ends_at_ms") <= row.at_ms {
        "expired"
    } else if row.at_ms < row.int("gift_lapses_at_ms") {
        "pending"
    } else {
        "unused"
    };
    Value::Text(state.to_owned())
}

/// As pages show it: a gift that has lapsed was none.
fn given_at(row: &Seen<'_>) -> Value {
    let lapses_at_ms = row.int("gift_lapses_at_ms");
    let lapsed = lapses_at_ms != 0 && lapses_at_ms <= row.at_ms;
    match row.int("given_at_ms") {
        0 => Value::Null,
        _ if lapsed => Value::Null,
        at_ms => Value::Int(at_ms),
    }
}

static REDEMPTIONS_SHEET: Sheet = Sheet {
    name: "redemptions",
    words: ["核銷記錄", "核销记录", "Redemptions"],
    about: "Redemptions, those that were taken back with `reversed_at`",
    whose: None,
    columns: &[
        same("redemption_id", Id, ["核銷ID", "核销ID", "Redemption ID"]),
        COUPON_ID,
        DEFINITION_ID,
        TITLE,
        MEMBER_ID,
        SHOP_ID,
        SHOP_NAME,
        EMPLOYEE_ID,
        USED_AT,
        column("reversed_at", Instant, Cell("reversed_at_ms"), ["撤銷時間", "撤销时间", "Reversed at"]),
    ],
    keys: 1,
    filters: &[OF_MEMBER, OF_DEFINITION, OF_SHOP, by_id("employee_id", "by this employee")],
    days: Some("used_at"),
    source: Source::Log { kind: "coupon", table: &REDEMPTIONS },
};

static DEFINITIONS_SHEET: Sheet = Sheet {
    name: "definitions",
    words: ["電子券", "电子券", "Definitions"],
    about: "Coupon definitions; no `stock` where it is unlimited",
    whose: None,
    columns: &[
        DEFINITION_ID,
        TITLE,
        KIND,
        same("is_on", Flag, ["已上架", "已上架", "On"]),
        DEDUCTION,
        column(
            "minimum_order",
            MONEY,
            Cell("minimum_order_cents"),
            ["最低消費", "最低消费", "Minimum order"],
        ),
        column("stock", Int, Computed(stock_of), ["庫存", "库存", "Stock"]),
        column("validity", Text, Word("validity_type", VALIDITIES), ["有效期類型", "有效期类型", "Validity"]),
        START_DATE,
        END_DATE,
        same("starts_after_days", Int, ["幾天後生效", "几天后生效", "Starts after days"]),
        same("valid_days", Int, ["有效天數", "有效天数", "Valid days"]),
        WEEKDAYS,
        SHOP_IDS,
        same("givable", Flag, ["可贈送", "可赠送", "Givable"]),
        same("stackable", Flag, ["可疊加", "可叠加", "Stackable"]),
        same("self_redeemable", Flag, ["可自助核銷", "可自助核销", "Self-redeemable"]),
        same("scan_required", Flag, ["須掃碼", "须扫码", "Scan required"]),
        same("claimable", Flag, ["可領取", "可领取", "Claimable"]),
        column("issue_limit", Text, Word("issue_limit", ISSUE_LIMITS), ["領取限制", "领取限制", "Limit"]),
        same("get_limit", Int, ["每人張數", "每人张数", "Per member"]),
        same("level_ids", Text, ["會員等級", "会员等级", "Levels"]),
        same("rules", Text, ["使用規則", "使用规则", "Rules"]),
        EMPLOYEE_ID,
    ],
    keys: 1,
    filters: &[OF_DEFINITION],
    days: None,
    source: Source::Log { kind: "definition", table: &DEFINITIONS },
};

const VALIDITIES: &[(i64, &str)] = &[(1, "fixed"), (2, "from_receipt"), (3, "member_card")];

const ISSUE_LIMITS: &[(i64, &str)] =
    &[(1, "unlimited"), (2, "per_member"), (3, "one_at_a_time"), (4, "levels")];

fn stock_of(row: &Seen<'_>) -> Value {
    row.stock.map_or(Value::Null, Value::Int)
}

static ORDERS_SHEET: Sheet = Sheet {
    name: "orders",
    words: ["訂單", "订单", "Orders"],
    about: "Orders; `details` is their lines as JSON, `used` and `issued` are ids of coupons",
    whose: None,
    columns: &[
        same("order_id", Id, ["訂單ID", "订单ID", "Order ID"]),
        same("order_no", Text, ["訂單號", "订单号", "Order number"]),
        MEMBER_ID,
        SHOP_ID,
        SHOP_NAME,
        EMPLOYEE_ID,
        column("amount", MONEY, Cell("amount_cents"), ["金額", "金额", "Amount"]),
        DEDUCTION,
        column("balance", MONEY, Cell("balance_cents"), ["餘額支付", "余额支付", "Balance used"]),
        same("score", Int, ["使用積分", "使用积分", "Points used"]),
        same("rule_id", Id, ["滿額規則ID", "满额规则ID", "Rule ID"]),
        column("placed_at", Instant, Cell("placed_at_ms"), ["下單時間", "下单时间", "Placed at"]),
        column("cancelled_at", Instant, Cell("cancelled_at_ms"), ["取消時間", "取消时间", "Cancelled at"]),
        same("used", Text, ["使用的電子券", "使用的电子券", "Coupons used"]),
        same("issued", Text, ["所得電子券", "所得电子券", "Coupons earned"]),
        same("remark", Text, ["備註", "备注", "Remark"]),
        same("details", Text, ["明細", "明细", "Details"]),
    ],
    keys: 1,
    filters: &[OF_MEMBER, OF_SHOP, by_id("employee_id", "taken by this employee")],
    days: Some("placed_at"),
    source: Source::Log { kind: "order", table: &ORDERS },
};

static JOBS_SHEET: Sheet = Sheet {
    name: "jobs",
    words: ["群發與批次作業", "群发与批量作业", "Sends and jobs"],
    about: "Mass sends, recalls and extensions; what a running one has done by now is told by its page",
    whose: None,
    columns: &[
        same("job_id", Id, ["作業ID", "作业ID", "Job ID"]),
        column(
            "kind",
            Text,
            Word("kind", &[(0, "send"), (1, "recall"), (2, "extension")]),
            ["類型", "类型", "Kind"],
        ),
        column(
            "state",
            Text,
            Word("state", &[(0, "running"), (1, "done"), (2, "paused"), (3, "cancelled"), (4, "proposed")]),
            ["狀態", "状态", "State"],
        ),
        DEFINITION_ID,
        same("send_id", Id, ["群發ID", "群发ID", "Send ID"]),
        same("shop_ids", Text, ["門店", "门店", "Shops"]),
        same("tag_ids", Text, ["標籤", "标签", "Tags"]),
        same("level_ids", Text, ["會員等級", "会员等级", "Levels"]),
        same("notify", Flag, ["通知會員", "通知会员", "Notify"]),
        END_DATE,
        same("targeted", Int, ["目標數", "目标数", "Targeted"]),
        same("done", Int, ["完成數", "完成数", "Done"]),
        same("refused", Text, ["拒絕（按代碼）", "拒绝（按代码）", "Refused by code"]),
        same("reason", Text, ["原因", "原因", "Reason"]),
        EMPLOYEE_ID,
        column("started_at", Instant, Cell("started_at_ms"), ["開始時間", "开始时间", "Started at"]),
        column("ended_at", Instant, Cell("ended_at_ms"), ["結束時間", "结束时间", "Ended at"]),
    ],
    keys: 1,
    filters: &[
        OF_DEFINITION,
        Filter {
            name: "kind",
            accepts: Accepts::OneOf(&["send", "recall", "extension"]),
            about: "of this kind",
        },
    ],
    days: Some("started_at"),
    source: Source::Log { kind: "job", table: &JOBS },
};

static GRANTS_SHEET: Sheet = Sheet {
    name: "grants",
    words: ["發放規則", "发放规则", "Grants"],
    about: "What earns how many coupons of which definition: `cause` 0 an order's amount, 1 a group of goods, 2 a level, 3 a \
            birthday; `cause_id` which rule, group or level",
    whose: None,
    columns: &[
        same("cause", Int, ["觸發類型", "触发类型", "Cause"]),
        same("cause_id", Int, ["觸發ID", "触发ID", "Cause ID"]),
        same("grant_id", Id, ["規則ID", "规则ID", "Grant ID"]),
        DEFINITION_ID,
        same("num", Int, ["張數", "张数", "Number"]),
        EMPLOYEE_ID,
        column("added_at", Instant, Cell("added_at_ms"), ["新增時間", "新增时间", "Added at"]),
        same("removed", Flag, ["已移除", "已移除", "Removed"]),
    ],
    keys: 3,
    filters: &[OF_DEFINITION],
    days: Some("added_at"),
    source: Source::Log { kind: "grant", table: &GRANTS },
};

static ORDER_RULES: Sheet = Sheet {
    name: "order-rules",
    words: ["訂單滿額", "订单满额", "Order rules"],
    about: "From which amounts on orders earn coupons; what they earn is in grants",
    whose: None,
    columns: &[
        same("order_amount_id", Id, ["滿額規則ID", "满额规则ID", "Rule ID"]),
        column("amount", MONEY, Cell("amount_cents"), ["金額", "金额", "Amount"]),
        EMPLOYEE_ID,
        column("defined_at", Instant, Cell("defined_at_ms"), ["新增時間", "新增时间", "Added at"]),
        same("deleted", Flag, ["已移除", "已移除", "Removed"]),
    ],
    keys: 1,
    filters: &[],
    days: Some("defined_at"),
    source: Source::Log { kind: "order_amount", table: &ORDER_AMOUNTS },
};

static GOODS_GROUPS_SHEET: Sheet = Sheet {
    name: "goods-groups",
    words: ["商品組", "商品组", "Groups of goods"],
    about: "Groups of goods that earn coupons; what they earn is in grants",
    whose: None,
    columns: &[
        same("goods_group_id", Id, ["商品組ID", "商品组ID", "Group ID"]),
        same("title", Text, ["名稱", "名称", "Title"]),
        EMPLOYEE_ID,
        column("created_at", Instant, Cell("created_at_ms"), ["新增時間", "新增时间", "Added at"]),
        same("deleted", Flag, ["已移除", "已移除", "Removed"]),
    ],
    keys: 1,
    filters: &[],
    days: Some("created_at"),
    source: Source::Log { kind: "goods_group", table: &GOODS_GROUPS },
};

static ALLOTMENTS_SHEET: Sheet = Sheet {
    name: "allotments",
    words: ["引流券配額", "引流券配额", "Allotments"],
    about: "What was allotted to partners",
    whose: None,
    columns: &[
        same("allotment_id", Id, ["配額ID", "配额ID", "Allotment ID"]),
        same("partner_id", Id, ["商家ID", "商家ID", "Partner ID"]),
        column("partner_name", Text, ShopName("partner_id"), ["商家", "商家", "Partner"]),
        DEFINITION_ID,
        same("num", Int, ["數量", "数量", "Number"]),
        END_DATE,
        EMPLOYEE_ID,
        column("allotted_at", Instant, Cell("allotted_at_ms"), ["配額時間", "配额时间", "Allotted at"]),
    ],
    keys: 1,
    filters: &[by_id("partner_id", "of this partner"), OF_DEFINITION],
    days: Some("allotted_at"),
    source: Source::Log { kind: "allotment", table: &ALLOTMENTS },
};

static ALLOTMENT_CHANGES_SHEET: Sheet = Sheet {
    name: "allotment-changes",
    words: ["引流券庫存變動", "引流券库存变动", "Changes of allotments"],
    about: "How partners' allotments grew and shrank: `moved_by` so many, to `num`",
    whose: None,
    columns: &[
        same("allotment_id", Id, ["配額ID", "配额ID", "Allotment ID"]),
        same("change_number", Int, ["序號", "序号", "Number of the change"]),
        same("moved_by", Int, ["變動數量", "变动数量", "Moved by"]),
        same("num", Int, ["變動後數量", "变动后数量", "Number from then on"]),
        EMPLOYEE_ID,
        column("at", Instant, Cell("at_ms"), ["變動時間", "变动时间", "Changed at"]),
    ],
    keys: 2,
    filters: &[by_id("allotment_id", "of this allotment")],
    days: Some("at"),
    source: Source::Log { kind: "allotment", table: &ALLOTMENT_CHANGES },
};

static SETTLEMENTS: Sheet = Sheet {
    name: "settlements",
    words: ["引流券結算", "引流券结算", "Settlements"],
    about: "The coupons that partners handed out, each with the use that stands, if there is one",
    whose: None,
    columns: &[
        COUPON_ID,
        same("allotment_id", Id, ["配額ID", "配额ID", "Allotment ID"]),
        DEFINITION_ID,
        TITLE,
        DEDUCTION,
        same("issued_to", Id, ["領取會員ID", "领取会员ID", "Taken by"]),
        same("voided", Flag, ["已作廢", "已作废", "Voided"]),
        same("redemption_id", Id, ["核銷ID", "核销ID", "Redemption ID"]),
        USED_AT,
        column("member_id", Id, Cell("member_id"), ["核銷會員ID", "核销会员ID", "Used by member"]),
        SHOP_ID,
        SHOP_NAME,
        EMPLOYEE_ID,
    ],
    keys: 1,
    filters: &[by_id("allotment_id", "of this allotment"), OF_DEFINITION, OF_SHOP],
    days: Some("used_at"),
    source: Source::Log { kind: "coupon", table: &PARTNER_COUPONS },
};

const PLACE: &[Column] = &[
    SHOP_ID,
    same("name", Text, ["名稱", "名称", "Name"]),
    same("phone", Text, ["電話", "电话", "Telephone"]),
    same("address", Text, ["地址", "地址", "Address"]),
    same("is_open", Flag, ["營業中", "营业中", "Open"]),
    EMPLOYEE_ID,
];

static SHOPS_SHEET: Sheet = Sheet {
    name: "shops",
    words: ["門店", "门店", "Shops"],
    about: "The merchant's own shops",
    whose: None,
    columns: PLACE,
    keys: 1,
    filters: &[by_id("shop_id", "this one")],
    days: None,
    source: Source::Log { kind: "shop", table: &SHOPS },
};

static PARTNERS_SHEET: Sheet = Sheet {
    name: "partners",
    words: ["合作商家", "合作商家", "Partners"],
    about: "Shops of partners, who hand out coupons of the merchant",
    whose: None,
    columns: PLACE,
    keys: 1,
    filters: &[by_id("shop_id", "this one")],
    days: None,
    source: Source::Log { kind: "shop", table: &PARTNERS },
};

static APPROVALS_SHEET: Sheet = Sheet {
    name: "approvals",
    words: ["審批", "审批", "Approvals"],
    about: "What one has proposed and another approved or refused; `number` is how many it is about, -1 without a limit",
    whose: None,
    columns: &[
        same("approval_id", Id, ["審批ID", "审批ID", "Approval ID"]),
        same("kind", Text, ["類型", "类型", "Kind"]),
        same("action", Text, ["接口", "接口", "Call"]),
        column("state", Text, Computed(approval_state), ["狀態", "状态", "State"]),
        column("number", Int, Cell("num"), ["數量", "数量", "Number"]),
        same("above", Int, ["審批門檻", "审批门槛", "Needed above"]),
        same("subject_id", Id, ["對象ID", "对象ID", "Subject ID"]),
        same("sha256", Text, ["檔案SHA-256", "文件SHA-256", "SHA-256 of the file"]),
        same("proposed_by", Text, ["提出人", "提出人", "Proposed by"]),
        EMPLOYEE_ID,
        column("proposed_at", Instant, Cell("proposed_at_ms"), ["提出時間", "提出时间", "Proposed at"]),
        column("lapses_at", Instant, Cell("lapses_at_ms"), ["失效時間", "失效时间", "Lapses at"]),
        same("closed_by", Text, ["處理人", "处理人", "Closed by"]),
        column("closed_at", Instant, Cell("closed_at_ms"), ["處理時間", "处理时间", "Closed at"]),
        same("reason", Text, ["原因", "原因", "Reason"]),
    ],
    keys: 1,
    filters: &[],
    days: Some("proposed_at"),
    source: Source::Log { kind: "approval", table: &APPROVALS },
};

/// One that nobody has answered lapses by its date, whenever that is written down.
fn approval_state(row: &Seen<'_>) -> Value {
    let state = match row.int("state") {
        0 if row.at_ms < row.int("lapses_at_ms") => "open",
        1 => "approved",
        2 => "refused",
        3 => "withdrawn",
        _ => "lapsed",
    };
    Value::Text(state.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exports::{rows, select};

    #[test]
    fn every_sheet_keeps_to_what_it_says() {
        for sheet in SHEETS {
            let table = match sheet.source {
                Source::Log { table, kind } => {
                    assert!(table.written_by.contains(&kind), "{}", sheet.name);
                    Some(table)
                }
                Source::Pages(_) => None,
            };
            assert!(rows::fits(sheet.columns, table), "{}: a column is not where it says", sheet.name);
            assert!(select::fits(sheet), "{}: a filter is no column", sheet.name);
            let keys = &sheet.columns[..sheet.keys];
            assert!(keys.iter().all(|key| matches!(key.kind, Id | Int)), "{}", sheet.name);
            for words in sheet.columns.iter().map(|column| column.words).chain([sheet.words]) {
                assert!(words.iter().all(|word| !word.is_empty()), "{}: {words:?}", sheet.name);
            }
            // What a worksheet's name may be, with room for a number behind it.
            for word in sheet.words {
                assert!(
                    word.chars().count() <= 24 && !word.contains(['\\', '/', '?', '*', '[', ']', ':']),
                    "{word}"
                );
            }
            for language in 0..3 {
                let mut names: Vec<&str> =
                    sheet.columns.iter().map(|column| column.words[language]).collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), sheet.columns.len(), "{}: two columns have one name", sheet.name);
            }
        }
    }
}
