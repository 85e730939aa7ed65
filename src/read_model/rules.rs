//! Rules, groups of goods and their grants: which rows their states have, and the SELECTs that read them.

use super::pages::Slice;
use super::{GOODS_GROUP_GOODS, GOODS_GROUPS, GRANTS, ORDER_AMOUNTS};
use crate::grant::{Cause, Grant};
use crate::rule::{GoodsGroup, OrderAmount};
use crate::store::{BUCKET, Cell, LiveRow, Row, Statement, Store, StoreError};

/// A cause as `grants_v1` has it.
fn cause_columns(cause: Cause) -> (i64, i64) {
    match cause {
        Cause::OrderAmount(id) => (0, id),
        Cause::GoodsGroup(id) => (1, id),
        Cause::Level(id) => (2, id),
        Cause::Birthday => (3, 0),
    }
}

/// The one live row of a grant.
#[must_use]
pub fn grant_rows(id: i64, grant: &Grant) -> Vec<LiveRow> {
    let Some(cause) = grant.cause else {
        return Vec::new();
    };
    let (cause, cause_id) = cause_columns(cause);
    let cells = vec![
        cause.into(),
        cause_id.into(),
        id.into(),
        grant.definition_id.into(),
        grant.num.into(),
        grant.employee_id.into(),
        grant.added_at_ms.into(),
        grant.removed.into(),
    ];
    vec![LiveRow { table: &GRANTS, cells }]
}

/// The one live row of a rule of an order's amount.
#[must_use]
pub fn order_amount_rows(id: i64, rule: &OrderAmount) -> Vec<LiveRow> {
    let Some(amount_cents) = rule.amount_cents else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        amount_cents.into(),
        rule.employee_id.into(),
        rule.defined_at_ms.into(),
        rule.deleted.into(),
    ];
    vec![LiveRow { table: &ORDER_AMOUNTS, cells }]
}

/// The live rows of a group of goods: its own, and one for each goods that ever belonged to it.
#[must_use]
pub fn goods_group_rows(id: i64, group: &GoodsGroup) -> Vec<LiveRow> {
    let Some(title) = &group.title else {
        return Vec::new();
    };
    let cells = vec![
        id.into(),
        title.as_str().into(),
        group.employee_id.into(),
        group.created_at_ms.into(),
        group.deleted.into(),
    ];
    let goods = group.goods.iter().map(|(goods_id, belongs)| LiveRow {
        table: &GOODS_GROUP_GOODS,
        cells: vec![(*goods_id).into(), id.into(), (*belongs).into()],
    });
    std::iter::once(LiveRow { table: &GOODS_GROUPS, cells }).chain(goods).collect()
}

/// A grant that gives something, with what pages show of its definition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// Its id.
    pub id: i64,
    /// What earns it.
    pub cause: Cause,
    /// Of which definition.
    pub definition_id: i64,
    /// How many coupons.
    pub num: i64,
    /// Who added it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub added_at_ms: i64,
    /// The definition's title.
    pub title: String,
    /// The definition's type: 1 cash, 2 exchange.
    pub kind: i64,
    /// What the definition takes off, in cents.
    pub deduction_cents: i64,
}

macro_rules! grants {
    ($($more:literal),*) => {
        concat!(
            "SELECT g.grant_id, g.definition_id, g.num, g.employee_id, g.added_at_ms,
                    COALESCE((SELECT d.title FROM definitions_v1 d
                              WHERE d.bucket = $1 AND d.definition_id = g.definition_id), ''),
                    COALESCE((SELECT d.kind FROM definitions_v1 d
                              WHERE d.bucket = $1 AND d.definition_id = g.definition_id), 0),
                    COALESCE((SELECT d.deduction_cents FROM definitions_v1 d
                              WHERE d.bucket = $1 AND d.definition_id = g.definition_id), 0)
             FROM grants_v1 g",
            $($more),*
        )
    };
}

fn read_grant(row: &Row, cause: Cause) -> GrantRow {
    GrantRow {
        id: row.int(0),
        cause,
        definition_id: row.int(1),
        num: row.int(2),
        employee_id: row.int(3),
        added_at_ms: row.int(4),
        title: row.text(5).to_owned(),
        kind: row.int(6),
        deduction_cents: row.int(7),
    }
}

/// What is granted for a cause, newest id first.
pub async fn grants(store: &Store, cause: Cause, slice: Slice) -> Result<Vec<GrantRow>, StoreError> {
    let sql = grants!(
        " WHERE g.bucket = $1 AND g.cause = $5 AND g.cause_id = $6 AND g.grant_id < $2 AND g.removed = 0",
        " ORDER BY g.bucket DESC, g.cause DESC, g.cause_id DESC, g.grant_id DESC LIMIT $3 OFFSET $4"
    );
    let (kind, cause_id) = cause_columns(cause);
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    parameters.extend([kind, cause_id].map(Cell::from));
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(|row| read_grant(row, cause)).collect())
}

/// Everything that is granted for a cause, newest id first.
pub async fn grants_of(store: &Store, cause: Cause) -> Result<Vec<GrantRow>, StoreError> {
    grants(store, cause, Slice::All).await
}

/// The groups that goods belong to, in order.
pub async fn groups_of_goods(store: &Store, goods_id: i64) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT goods_group_id FROM goods_group_goods_v1
               WHERE bucket = $1 AND goods_id = $2 AND belongs = 1 ORDER BY bucket, goods_id, goods_group_id";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), goods_id.into()])).await?;
    Ok(rows.iter().map(|row| row.int(0)).collect())
}

/// A rule of an order's amount that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderAmountRow {
    /// Its id.
    pub id: i64,
    /// From which amount on it holds, in cents.
    pub amount_cents: i64,
    /// Who defined it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub defined_at_ms: i64,
}

macro_rules! order_amounts {
    ($($more:literal),*) => {
        concat!(
            "SELECT order_amount_id, amount_cents, employee_id, defined_at_ms FROM order_amounts_v1
             WHERE bucket = $1 AND deleted = 0",
            $($more),*
        )
    };
}

fn read_order_amount(row: &Row) -> OrderAmountRow {
    OrderAmountRow {
        id: row.int(0),
        amount_cents: row.int(1),
        employee_id: row.int(2),
        defined_at_ms: row.int(3),
    }
}

/// A rule of an order's amount by its id.
pub async fn order_amount(store: &Store, id: i64) -> Result<Option<OrderAmountRow>, StoreError> {
    let sql = order_amounts!(" AND order_amount_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read_order_amount))
}

/// The highest rule at or below an amount; of two rules of one amount the later one.
pub async fn best_order_amount(
    store: &Store,
    amount_cents: i64,
) -> Result<Option<OrderAmountRow>, StoreError> {
    let sql = order_amounts!(
        " AND amount_cents <= $2",
        " ORDER BY bucket DESC, amount_cents DESC, order_amount_id DESC LIMIT 1"
    );
    let rows = store.query(Statement::new(sql, [BUCKET.into(), amount_cents.into()])).await?;
    Ok(rows.first().map(read_order_amount))
}

/// Rules of orders' amounts, newest id first.
pub async fn order_amounts(store: &Store, slice: Slice) -> Result<Vec<OrderAmountRow>, StoreError> {
    let sql =
        order_amounts!(" AND order_amount_id < $2", " ORDER BY order_amount_id DESC LIMIT $3 OFFSET $4");
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(read_order_amount).collect())
}

/// A group of goods that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodsGroupRow {
    /// Its id.
    pub id: i64,
    /// Its title.
    pub title: String,
    /// Who created it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub created_at_ms: i64,
}

fn read_goods_group(row: &Row) -> GoodsGroupRow {
    GoodsGroupRow {
        id: row.int(0),
        title: row.text(1).to_owned(),
        employee_id: row.int(2),
        created_at_ms: row.int(3),
    }
}

/// A group of goods by its id.
pub async fn goods_group(store: &Store, id: i64) -> Result<Option<GoodsGroupRow>, StoreError> {
    let sql = "SELECT goods_group_id, title, employee_id, created_at_ms FROM goods_groups_v1
               WHERE bucket = $1 AND goods_group_id = $2 AND deleted = 0";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(read_goods_group))
}

/// Groups of goods, newest id first.
pub async fn goods_groups(store: &Store, slice: Slice) -> Result<Vec<GoodsGroupRow>, StoreError> {
    let sql = "SELECT goods_group_id, title, employee_id, created_at_ms FROM goods_groups_v1
               WHERE bucket = $1 AND goods_group_id < $2 AND deleted = 0
               ORDER BY goods_group_id DESC LIMIT $3 OFFSET $4";
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(read_goods_group).collect())
}

/// How many coupons of a definition a member has been issued, and when the last of them ends, Unix milliseconds.
pub async fn issued_to(store: &Store, member_id: i64, definition_id: i64) -> Result<(i64, i64), StoreError> {
    // The plus: by the member, not by the latest end of everybody's down to his.
    let sql = "SELECT COALESCE((SELECT c.issued FROM member_counts_v1 c
                                WHERE c.bucket = $1 AND c.member_id = $2 AND c.definition_id = $3), 0),
                      COALESCE((SELECT MAX(+w.ends_at_ms) FROM wallet_v1 w
                                WHERE w.bucket = $1 AND w.member_id = $2 AND w.definition_id = $3
                                  AND w.issued_to = $2 AND w.voided = 0), 0)";
    let parameters = [BUCKET, member_id, definition_id].map(Cell::from);
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.first().map_or((0, 0), |row| (row.int(0), row.int(1))))
}
