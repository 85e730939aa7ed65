//! Live read models: which rows a stream's state has. The SELECTs that answer pages are in [`pages`].
//!
//! Each function is pure. A stream's rows are upserted whole in the append's transaction, so rebuilding them is
//! replaying the stream, and comparing them is a diff.

pub mod accounts;
pub mod approvals;
pub mod jobs;
pub mod machines;
pub mod offices;
pub mod orders;
pub mod pages;
pub mod partner_keys;
pub mod partners;
pub mod readings;
pub mod rules;
pub mod webhooks;

use std::collections::BTreeMap;

use crate::allotment::Allotment;
use crate::clock::day_number;
use crate::coupon::{Coupon, Holding, Issue, Redemption};
use crate::definition::{Definition, IssueLimit, Kind, Offer, Validity};
use crate::job::{Coupons, Job, Recipients, Work};
use crate::shop::Shop;
use crate::store::Column::{Int, Text};
use crate::store::{Cell, LiveRow, LiveTable};
use crate::value::list_text;

/// `projections/wallet.sql`
pub static WALLET: LiveTable = LiveTable {
    name: "wallet_v1",
    written_by: &["coupon"],
    columns: &[
        Int("member_id"),
        Int("coupon_id"),
        Int("definition_id"),
        Int("in_hand"),
        Int("starts_at_ms"),
        Int("ends_at_ms"),
        Int("start_date"),
        Int("end_date"),
        Int("issued_at_ms"),
        Int("used_at_ms"),
        Int("given_at_ms"),
        Int("gift_lapses_at_ms"),
        Int("kind"),
        Int("used_by"),
        Int("given_by"),
        Int("received_by"),
        Int("score"),
        Int("evaluated_at_ms"),
        Int("is_read"),
        Int("voided"),
        Int("expiry_recorded"),
        Int("source"),
        Int("employee_id"),
        Int("order_id"),
        Int("goods_id"),
        Int("issued_to"),
        Int("deduction_cents"),
        Int("self_redeemable"),
        Text("title"),
        Text("weekdays"),
        Text("shop_ids"),
    ],
    key_columns: 2,
    indexed: &["ends_at_ms", "gift_lapses_at_ms"],
};

/// `projections/redemptions.sql`
pub static REDEMPTIONS: LiveTable = LiveTable {
    name: "redemptions_v1",
    written_by: &["coupon"],
    columns: &[
        Int("redemption_id"),
        Int("coupon_id"),
        Int("definition_id"),
        Int("member_id"),
        Int("shop_id"),
        Int("employee_id"),
        Int("used_at_ms"),
        Int("reversed_at_ms"),
        Text("title"),
    ],
    key_columns: 1,
    indexed: &["used_at_ms"],
};

/// `projections/definitions.sql`
pub static DEFINITIONS: LiveTable = LiveTable {
    name: "definitions_v1",
    written_by: &["definition"],
    columns: &[
        Int("definition_id"),
        Int("is_on"),
        Int("kind"),
        Text("title"),
        Int("deduction_cents"),
        Int("minimum_order_cents"),
        Int("validity_type"),
        Int("start_date"),
        Int("end_date"),
        Int("starts_after_days"),
        Int("valid_days"),
        Text("weekdays"),
        Int("givable"),
        Int("stackable"),
        Text("rules"),
        Text("shop_ids"),
        Int("self_redeemable"),
        Int("scan_required"),
        Int("issue_limit"),
        Int("get_limit"),
        Text("level_ids"),
        Int("claimable"),
        Int("employee_id"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/shops.sql`
pub static SHOPS: LiveTable = LiveTable {
    name: "shops_v1",
    written_by: &["shop"],
    columns: &[
        Int("shop_id"),
        Int("is_open"),
        Int("audit_key"),
        Text("name"),
        Text("phone"),
        Text("address"),
        Int("employee_id"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/jobs.sql`
pub static JOBS: LiveTable = LiveTable {
    name: "jobs_v1",
    written_by: &["job"],
    columns: &[
        Int("job_id"),
        Int("kind"),
        Int("state"),
        Int("definition_id"),
        Int("send_id"),
        Text("shop_ids"),
        Text("tag_ids"),
        Text("level_ids"),
        Int("notify"),
        Int("end_date"),
        Int("targeted"),
        Int("done"),
        Text("refused"),
        Text("reason"),
        Int("employee_id"),
        Int("started_at_ms"),
        Int("ended_at_ms"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/grants.sql`
pub static GRANTS: LiveTable = LiveTable {
    name: "grants_v1",
    written_by: &["grant"],
    columns: &[
        Int("cause"),
        Int("cause_id"),
        Int("grant_id"),
        Int("definition_id"),
        Int("num"),
        Int("employee_id"),
        Int("added_at_ms"),
        Int("removed"),
    ],
    key_columns: 3,
    indexed: &[],
};

/// `projections/order_amounts.sql`
pub static ORDER_AMOUNTS: LiveTable = LiveTable {
    name: "order_amounts_v1",
    written_by: &["order_amount"],
    columns: &[
        Int("order_amount_id"),
        Int("amount_cents"),
        Int("employee_id"),
        Int("defined_at_ms"),
        Int("deleted"),
    ],
    key_columns: 1,
    indexed: &["amount_cents", "deleted"],
};

/// `projections/goods_groups.sql`
pub static GOODS_GROUPS: LiveTable = LiveTable {
    name: "goods_groups_v1",
    written_by: &["goods_group"],
    columns: &[
        Int("goods_group_id"),
        Text("title"),
        Int("employee_id"),
        Int("created_at_ms"),
        Int("deleted"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/goods_group_goods.sql`
pub static GOODS_GROUP_GOODS: LiveTable = LiveTable {
    name: "goods_group_goods_v1",
    written_by: &["goods_group"],
    columns: &[Int("goods_id"), Int("goods_group_id"), Int("belongs")],
    key_columns: 2,
    indexed: &[],
};

/// `projections/partners.sql`
pub static PARTNERS: LiveTable = LiveTable {
    // The columns of a shop, in a table that pages of shops do not read.
    name: "partners_v1",
    written_by: &["shop"],
    columns: SHOPS.columns,
    key_columns: SHOPS.key_columns,
    indexed: &[],
};

/// `projections/allotments.sql`
pub static ALLOTMENTS: LiveTable = LiveTable {
    name: "allotments_v1",
    written_by: &["allotment"],
    columns: &[
        Int("allotment_id"),
        Int("partner_id"),
        Int("definition_id"),
        Int("num"),
        Int("end_date"),
        Int("employee_id"),
        Int("allotted_at_ms"),
    ],
    key_columns: 1,
    indexed: &["partner_id"],
};

/// `projections/allotment_changes.sql`
pub static ALLOTMENT_CHANGES: LiveTable = LiveTable {
    name: "allotment_changes_v1",
    written_by: &["allotment"],
    columns: &[
        Int("allotment_id"),
        Int("change_number"),
        Int("moved_by"),
        Int("num"),
        Int("employee_id"),
        Int("at_ms"),
    ],
    key_columns: 2,
    indexed: &[],
};

/// `projections/partner_coupons.sql`
pub static PARTNER_COUPONS: LiveTable = LiveTable {
    name: "partner_coupons_v1",
    written_by: &["coupon"],
    columns: &[
        Int("coupon_id"),
        Int("allotment_id"),
        Int("definition_id"),
        Int("issued_to"),
        Int("voided"),
        Int("redemption_id"),
        Int("used_at_ms"),
        Int("shop_id"),
        Int("member_id"),
        Int("employee_id"),
        Int("deduction_cents"),
        Text("title"),
    ],
    key_columns: 1,
    indexed: &["allotment_id", "used_at_ms"],
};

/// `projections/offices.sql`
pub static OFFICES: LiveTable = LiveTable {
    name: "offices_v1",
    written_by: &["office"],
    columns: &[
        Int("office_id"),
        Text("title"),
        Text("rights"),
        Int("employee_id"),
        Int("added_at_ms"),
        Int("deleted"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/appointments.sql`
pub static APPOINTMENTS: LiveTable = LiveTable {
    name: "appointments_v1",
    written_by: &["appointment"],
    columns: &[Int("appointment_id"), Int("office_id"), Int("manager")],
    key_columns: 1,
    indexed: &[],
};

/// `projections/machines.sql`
pub static MACHINES: LiveTable = LiveTable {
    name: "machines_v1",
    written_by: &["machine_key"],
    columns: &[
        Int("machine_key_id"),
        Text("name"),
        Text("rights"),
        Int("expires_at_ms"),
        Int("employee_id"),
        Int("issued_at_ms"),
        Int("revoked_at_ms"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// `projections/partner_keys.sql`
pub static PARTNER_KEYS: LiveTable = LiveTable {
    name: "partner_keys_v1",
    written_by: &["partner_key"],
    columns: &[
        Int("partner_id"),
        Int("partner_key_id"),
        Text("public_key"),
        Int("employee_id"),
        Int("registered_at_ms"),
        Int("revoked_at_ms"),
    ],
    key_columns: 2,
    indexed: &[],
};

/// `projections/readings.sql`
pub static READINGS: LiveTable = LiveTable {
    name: "readings_v1",
    written_by: &["reading"],
    columns: &[Int("person_kind"), Int("person_id"), Int("reading_id"), Int("at_ms")],
    key_columns: 3,
    indexed: &[],
};

/// `projections/webhooks.sql`
pub static WEBHOOKS: LiveTable = LiveTable {
    name: "webhooks_v1",
    written_by: &["webhook"],
    columns: &[
        Int("webhook_id"),
        Text("url"),
        Text("types"),
        Text("streams"),
        Int("generation"),
        Int("previous_until_ms"),
        Int("paused"),
        Int("employee_id"),
        Int("added_at_ms"),
        Int("removed_at_ms"),
    ],
    key_columns: 1,
    indexed: &[],
};

/// Every live table that is made of streams alone.
pub static LIVE_TABLES: [&LiveTable; 22] = [
    &WALLET,
    &REDEMPTIONS,
    &DEFINITIONS,
    &SHOPS,
    &JOBS,
    &orders::ORDERS,
    &GRANTS,
    &ORDER_AMOUNTS,
    &GOODS_GROUPS,
    &GOODS_GROUP_GOODS,
    &PARTNERS,
    &ALLOTMENTS,
    &ALLOTMENT_CHANGES,
    &PARTNER_COUPONS,
    &accounts::ACCOUNTS,
    &OFFICES,
    &APPOINTMENTS,
    &MACHINES,
    &PARTNER_KEYS,
    &READINGS,
    &approvals::APPROVALS,
    &WEBHOOKS,
];

/// The manual's number of a definition's type.
#[must_use]
pub fn kind_number(kind: Kind) -> i64 {
    match kind {
        Kind::Cash => 1,
        Kind::Exchange => 2,
    }
}

/// Every live row of a coupon: its wallet rows, its redemptions, and its row among what partners handed out.
#[must_use]
pub fn coupon_rows(id: i64, coupon: &Coupon) -> Vec<LiveRow> {
    let Some(issue) = &coupon.issue else {
        return Vec::new();
    };
    let mut rows: Vec<LiveRow> = coupon
        .holdings
        .iter()
        .map(|(member_id, holding)| wallet_row(id, coupon, issue, *member_id, holding))
        .collect();
    rows.extend(coupon.redemptions.iter().map(|used| LiveRow {
        table: &REDEMPTIONS,
        cells: vec![
            used.id.into(),
            id.into(),
            issue.definition_id.into(),
            used.member_id.into(),
            used.shop_id.into(),
            used.employee_id.into(),
            used.at_ms.into(),
            used.reversed_at_ms.into(),
            issue.terms.title.as_str().into(),
        ],
    }));
    rows.extend(issue.allotment_id().map(|allotment_id| partner_coupon_row(id, coupon, issue, allotment_id)));
    rows
}

/// What a partner handed out, with the use that stands.
fn partner_coupon_row(id: i64, coupon: &Coupon, issue: &Issue, allotment_id: i64) -> LiveRow {
    let used = coupon.redemption();
    let of_use = |what: fn(&Redemption) -> i64| used.map_or(0, what);
    let cells = vec![
        id.into(),
        allotment_id.into(),
        issue.definition_id.into(),
        issue.member_id.into(),
        coupon.voided_at_ms.is_some().into(),
        of_use(|used| used.id).into(),
        of_use(|used| used.at_ms).into(),
        of_use(|used| used.shop_id).into(),
        of_use(|used| used.member_id).into(),
        of_use(|used| used.employee_id).into(),
        issue.terms.deduction_cents.into(),
        issue.terms.title.as_str().into(),
    ];
    LiveRow { table: &PARTNER_COUPONS, cells }
}

/// A giver's row is frozen at receipt: it is no longer the holder's, and only `voided` and a moved end still follow the coupon;
/// "one at a time" rests on them.
fn wallet_row(id: i64, coupon: &Coupon, issue: &Issue, member_id: i64, holding: &Holding) -> LiveRow {
    let terms = &issue.terms;
    let holds = coupon.holder_id == member_id;
    let used = coupon.redemption().filter(|_| holds);
    let gift = coupon.gift.as_ref().filter(|_| holds);
    let review = coupon.review.as_ref().filter(|review| review.member_id == member_id);
    let used_by = match used {
        _ if !holds => member_id,
        Some(used) if used.employee_id != 0 => used.employee_id,
        Some(used) => used.member_id,
        None => 0,
    };
    let given_at_ms = match gift {
        Some(gift) => gift.at_ms,
        None if holds => 0,
        None => holding.given_at_ms,
    };
    let cells: Vec<Cell> = vec![
        member_id.into(),
        id.into(),
        issue.definition_id.into(),
        (holds && coupon.is_in_hand()).into(),
        issue.starts_at_ms.into(),
        issue.ends_at_ms.into(),
        day_number(issue.start_date).into(),
        day_number(issue.end_date).into(),
        issue.at_ms.into(),
        used.map_or(0, |used| used.at_ms).into(),
        given_at_ms.into(),
        gift.map_or(0, |gift| gift.lapses_at_ms).into(),
        kind_number(terms.kind).into(),
        used_by.into(),
        holding.given_by.into(),
        (if holds { 0 } else { holding.received_by }).into(),
        review.map_or(0, |review| i64::from(review.score)).into(),
        review.map_or(0, |review| review.at_ms).into(),
        holding.read.into(),
        coupon.voided_at_ms.is_some().into(),
        (holds && coupon.expiry_recorded).into(),
        issue.source.come().into(),
        issue.employee_id.into(),
        issue.order_id.into(),
        issue.goods_id.into(),
        issue.member_id.into(),
        terms.deduction_cents.into(),
        terms.self_redeemable.into(),
        terms.title.as_str().into(),
        list_text(&terms.weekdays).into(),
        list_text(&terms.shop_ids).into(),
    ];
    LiveRow { table: &WALLET, cells }
}

/// The one live row of a definition.
#[must_use]
pub fn definition_rows(id: i64, definition: &Definition) -> Vec<LiveRow> {
    let Some(offer) = &definition.offer else {
        return Vec::new();
    };
    let Offer { terms, validity, .. } = &**offer;
    let (validity_type, start, end, after, days) = match validity {
        Validity::Fixed { start, end } => (1, day_number(*start), day_number(*end), 0, 0),
        Validity::FromReceipt { starts_after_days, valid_days } => {
            (2, 0, 0, i64::from(*starts_after_days), i64::from(*valid_days))
        }
        Validity::MemberCard => (3, 0, 0, 0, 0),
    };
    let issue_limit = match offer.issue_limit {
        IssueLimit::Unlimited => 1,
        IssueLimit::PerMember => 2,
        IssueLimit::OneAtATime => 3,
        IssueLimit::Levels => 4,
    };
    let cells: Vec<Cell> = vec![
        id.into(),
        definition.on.into(),
        kind_number(terms.kind).into(),
        terms.title.as_str().into(),
        terms.deduction_cents.into(),
        terms.minimum_order_cents.into(),
        validity_type.into(),
        start.into(),
        end.into(),
        after.into(),
        days.into(),
        list_text(&terms.weekdays).into(),
        terms.givable.into(),
        terms.stackable.into(),
        terms.rules.as_str().into(),
        list_text(&terms.shop_ids).into(),
        terms.self_redeemable.into(),
        terms.scan_required.into(),
        issue_limit.into(),
        offer.get_limit.into(),
        list_text(&offer.level_ids).into(),
        offer.claimable.into(),
        definition.employee_id.into(),
    ];
    vec![LiveRow { table: &DEFINITIONS, cells }]
}

/// The one live row of a shop or a partner, each in a table of its own.
#[must_use]
pub fn shop_rows(id: i64, shop: &Shop) -> Vec<LiveRow> {
    let Some(details) = &shop.details else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        shop.open.into(),
        i64::from(shop.audit_key).into(),
        details.name.as_str().into(),
        details.phone.as_str().into(),
        details.address.as_str().into(),
        shop.employee_id.into(),
    ];
    let table = if shop.partner { &PARTNERS } else { &SHOPS };
    vec![LiveRow { table, cells }]
}

/// The live rows of an allotment: itself, then each change of its number.
#[must_use]
pub fn allotment_rows(id: i64, allotment: &Allotment) -> Vec<LiveRow> {
    let (Some(first), Some(last)) = (allotment.stock_log.first(), allotment.stock_log.last()) else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        allotment.partner_id.into(),
        allotment.definition_id.into(),
        last.num.into(),
        day_number(allotment.end_date).into(),
        first.employee_id.into(),
        first.at_ms.into(),
    ];
    let mut rows = vec![LiveRow { table: &ALLOTMENTS, cells }];
    rows.extend((1_i64..).zip(&allotment.stock_log).map(|(number, change)| LiveRow {
        table: &ALLOTMENT_CHANGES,
        cells: vec![
            id.into(),
            number.into(),
            change.by.into(),
            change.num.into(),
            change.employee_id.into(),
            change.at_ms.into(),
        ],
    }));
    rows
}

/// The one live row of a job.
#[must_use]
pub fn job_rows(id: i64, job: &Job) -> Vec<LiveRow> {
    let Some(work) = &job.work else {
        return Vec::new();
    };
    let of = |coupons: &Coupons| match coupons {
        Coupons::OfDefinition(id) => (*id, 0),
        Coupons::OfSend(id) => (0, *id),
    };
    let everybody = Recipients::default();
    let (kind, (definition_id, send_id), recipients, notify, end_date) = match work {
        Work::Send { definition_id, recipients, notify } => (0, (*definition_id, 0), recipients, *notify, 0),
        Work::SendTo { definition_id, .. } => (0, (*definition_id, 0), &everybody, false, 0),
        Work::Recall { coupons } => (1, of(coupons), &everybody, false, 0),
        Work::Extend { coupons, end_date } => (2, of(coupons), &everybody, false, day_number(*end_date)),
    };
    let cells = vec![
        id.into(),
        kind.into(),
        job.state.number().into(),
        definition_id.into(),
        send_id.into(),
        list_text(&recipients.shop_ids).into(),
        list_text(&recipients.tag_ids).into(),
        list_text(&recipients.level_ids).into(),
        notify.into(),
        end_date.into(),
        job.targeted.into(),
        job.done.into(),
        refused_text(&job.refused).into(),
        job.reason.as_str().into(),
        job.employee_id.into(),
        job.started_at_ms.into(),
        job.ended_at_ms.into(),
    ];
    vec![LiveRow { table: &JOBS, cells }]
}

/// How many were refused, by code: `{"5002":3}`.
#[must_use]
pub fn refused_text(refused: &BTreeMap<i64, i64>) -> String {
    let entries: Vec<String> = refused.iter().map(|(code, count)| format!("\"{code}\":{count}")).collect();
    format!("{{{}}}", entries.join(","))
}
