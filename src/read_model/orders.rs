//! Orders: their live row, and the SELECTs that answer pages about them.

use serde_json::json;

use super::pages::Slice;
use crate::order::Order;
use crate::store::Column::{Int, Text};
use crate::store::{BUCKET, Cell, LiveRow, LiveTable, Row, Statement, Store, StoreError};
use crate::value::{list_text, money_text};

/// `projections/orders.sql`
pub static ORDERS: LiveTable = LiveTable {
    name: "orders_v1",
    written_by: &["order"],
    columns: &[
        Int("order_id"),
        Int("member_id"),
        Int("shop_id"),
        Int("employee_id"),
        Text("order_no"),
        Int("amount_cents"),
        Int("deduction_cents"),
        Int("rule_id"),
        Int("score"),
        Int("balance_cents"),
        Int("placed_at_ms"),
        Int("cancelled_at_ms"),
        Text("remark"),
        Text("details"),
        Text("used"),
        Text("issued"),
    ],
    key_columns: 1,
    indexed: &["member_id"],
};

/// The one live row of an order.
#[must_use]
pub fn order_rows(id: i64, order: &Order) -> Vec<LiveRow> {
    let Some(placement) = &order.placement else {
        return Vec::new();
    };
    let details: Vec<_> = (1..)
        .zip(&placement.lines)
        .map(|(number, line)| {
            json!({
                "id": number,
                "order_id": id,
                "goods_id": line.goods_id,
                "price": money_text(line.price_cents),
                "count": line.count,
                "state": line.state.number(),
            })
        })
        .collect();
    let used: Vec<i64> = placement.used.iter().map(|used| used.coupon_id).collect();
    let cells = vec![
        id.into(),
        placement.member_id.into(),
        placement.shop_id.into(),
        placement.employee_id.into(),
        placement.order_no.as_str().into(),
        placement.amount_cents.into(),
        placement.deduction_cents().into(),
        placement.rule_id.into(),
        placement.score.into(),
        placement.balance_cents.into(),
        order.placed_at_ms.into(),
        order.cancelled_at_ms.into(),
        placement.remark.as_str().into(),
        serde_json::Value::Array(details).to_string().into(),
        list_text(&used).into(),
        list_text(&placement.issued).into(),
    ];
    vec![LiveRow { table: &ORDERS, cells }]
}

/// An order as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRow {
    /// Its id.
    pub id: i64,
    /// The buyer.
    pub member_id: i64,
    /// Where.
    pub shop_id: i64,
    /// Who took it.
    pub employee_id: i64,
    /// The caller's own number of it.
    pub order_no: String,
    /// What its goods come to, in cents.
    pub amount_cents: i64,
    /// What its coupons took off, in cents.
    pub deduction_cents: i64,
    /// The rule by which it earned coupons.
    pub rule_id: i64,
    /// Points used.
    pub score: i64,
    /// Balance used, in cents.
    pub balance_cents: i64,
    /// Unix milliseconds.
    pub placed_at_ms: i64,
    /// Unix milliseconds, 0 = it stands.
    pub cancelled_at_ms: i64,
    /// For people.
    pub remark: String,
    /// Its lines as JSON, as pages show them.
    pub details: String,
    /// The coupons it used: `1,2,3`.
    pub used: String,
    /// The coupons it earned: `1,2,3`.
    pub issued: String,
}

impl OrderRow {
    fn read(mut row: Row) -> Self {
        Self {
            id: row.int(0),
            member_id: row.int(1),
            shop_id: row.int(2),
            employee_id: row.int(3),
            order_no: row.take_text(4),
            amount_cents: row.int(5),
            deduction_cents: row.int(6),
            rule_id: row.int(7),
            score: row.int(8),
            balance_cents: row.int(9),
            placed_at_ms: row.int(10),
            cancelled_at_ms: row.int(11),
            remark: row.take_text(12),
            details: row.take_text(13),
            used: row.take_text(14),
            issued: row.take_text(15),
        }
    }
}

macro_rules! orders {
    ($($more:literal),*) => {
        concat!(
            "SELECT order_id, member_id, shop_id, employee_id, order_no, amount_cents, deduction_cents, rule_id, score,
                    balance_cents, placed_at_ms, cancelled_at_ms, remark, details, used, issued
             FROM orders_v1 WHERE bucket = $1",
            $($more),*
        )
    };
}

/// An order by its id.
pub async fn order(store: &Store, id: i64) -> Result<Option<OrderRow>, StoreError> {
    let sql = orders!(" AND order_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.into_iter().next().map(OrderRow::read))
}

/// Whose orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// Of this member, 0 = of all.
    pub member_id: i64,
    /// Of this shop, 0 = of all.
    pub shop_id: i64,
    /// Placed from this instant on, Unix milliseconds …
    pub from_ms: i64,
    /// … and before this one.
    pub until_ms: i64,
}

/// Orders, newest id first.
pub async fn orders(store: &Store, filter: OrderFilter, slice: Slice) -> Result<Vec<OrderRow>, StoreError> {
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    parameters.extend([filter.from_ms, filter.until_ms, filter.shop_id].map(Cell::from));
    let sql = if filter.member_id == 0 {
        orders!(
            " AND order_id < $2 AND placed_at_ms >= $5 AND placed_at_ms < $6 AND ($7 = 0 OR shop_id = $7)",
            " ORDER BY order_id DESC LIMIT $3 OFFSET $4"
        )
    } else {
        parameters.push(filter.member_id.into());
        orders!(
            " AND order_id < $2 AND placed_at_ms >= $5 AND placed_at_ms < $6 AND ($7 = 0 OR shop_id = $7)",
            " AND member_id = $8 ORDER BY order_id DESC LIMIT $3 OFFSET $4"
        )
    };
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.into_iter().map(OrderRow::read).collect())
}
