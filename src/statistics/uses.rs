//! The uses that the figures count, one by one.

use std::collections::BTreeSet;

use super::ask::{AsOf, AskError, look, only_text};
use super::period::Period;
use crate::read_model::pages::Slice;
use crate::store::{BUCKET, Cell, Look, Row, Store};

pub(super) const TABLE: &str = "stats_uses_v2";

/// Which uses are meant.
#[derive(Clone, Debug)]
pub struct UsesOf {
    /// Of coupons of this definition.
    pub definition_id: i64,
    /// Only those with one of these numbers in a column.
    pub only: Vec<(&'static str, Vec<i64>)>,
    /// On these days.
    pub period: Period,
    /// Which part of them, newest first.
    pub slice: Slice,
}

/// A use that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its id.
    pub redemption_id: i64,
    /// The coupon.
    pub coupon_id: i64,
    /// When, Unix milliseconds.
    pub used_at_ms: i64,
    /// Where.
    pub shop_id: i64,
    /// Who redeemed it, 0 = the member himself.
    pub employee_id: i64,
    /// Whose it was.
    pub member_id: i64,
    /// How the coupon was born.
    pub source: i64,
    /// What it took off.
    pub value_cents: i64,
}

/// Uses that stand, as of where the statistics are: as many as the figures count.
pub async fn uses(store: &Store, of: &UsesOf) -> Result<(AsOf, Vec<Use>), AskError> {
    let sql = format!(
        "SELECT redemption_id, coupon_id, used_at_ms, shop_id, employee_id, member_id, source, value_cents
         FROM {TABLE} AS t
         WHERE bucket = $1 AND definition_id = $5 AND day >= $6 AND day <= $7 AND used > 0 AND redemption_id < $2{}
         ORDER BY redemption_id DESC LIMIT $3 OFFSET $4",
        only_text(&of.only),
    );
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(of.slice.parameters());
    parameters.extend([of.definition_id, of.period.start, of.period.end].map(Cell::from));
    let tables = BTreeSet::from([TABLE]);
    let (as_of, rows) = look(store, &tables, vec![Look { sql, parameters }]).await?;
    let used = |row: &Row| Use {
        redemption_id: row.int(0),
        coupon_id: row.int(1),
        used_at_ms: row.int(2),
        shop_id: row.int(3),
        employee_id: row.int(4),
        member_id: row.int(5),
        source: row.int(6),
        value_cents: row.int(7),
    };
    Ok((as_of, rows.first().map(|rows| rows.iter().map(used).collect()).unwrap_or_default()))
}
