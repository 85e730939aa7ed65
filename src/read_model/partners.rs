//! The SELECTs that answer pages about partners, their allotments, and what is settled with them.

use super::pages::{DefinitionRow, ShopRow, Slice, definition_columns, read_shop};
use crate::clock::day_text;
use crate::store::{BUCKET, Cell, Look, Row, Statement, Store, StoreError};

/// A partner by his id.
pub async fn partner(store: &Store, id: i64) -> Result<Option<ShopRow>, StoreError> {
    let sql = "SELECT shop_id, is_open, audit_key, name, phone, address, employee_id FROM partners_v1
               WHERE bucket = $1 AND shop_id = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(|row| read_shop(row, true)))
}

/// Every partner, newest id first.
pub async fn partners(store: &Store, slice: Slice) -> Result<Vec<ShopRow>, StoreError> {
    let sql = "SELECT shop_id, is_open, audit_key, name, phone, address, employee_id FROM partners_v1
               WHERE bucket = $1 AND shop_id < $2 ORDER BY shop_id DESC LIMIT $3 OFFSET $4";
    let rows = store.query(Statement::new(sql, sliced([], slice))).await?;
    Ok(rows.iter().map(|row| read_shop(row, true)).collect())
}

/// The bucket, these parameters, then the slice's.
fn sliced<const N: usize>(parameters: [Cell; N], slice: Slice) -> Vec<Cell> {
    [Cell::from(BUCKET)].into_iter().chain(parameters).chain(slice.parameters()).collect()
}

/// An allotment as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllotmentRow {
    /// Its id, the manual's `bc_id`.
    pub id: i64,
    /// Whose.
    pub partner_id: i64,
    /// What is issued.
    pub definition_id: i64,
    /// How many may be taken in all.
    pub num: i64,
    /// The last local day, `2026-12-31`.
    pub end_date: String,
    /// Who allotted it.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub allotted_at_ms: i64,
    /// How many are taken and not voided.
    pub taken: i64,
    /// The definition's title as it is now.
    pub title: String,
}

impl AllotmentRow {
    /// How many are left.
    #[must_use]
    pub fn left(&self) -> i64 {
        (self.num - self.taken).max(0)
    }

    /// Reads it from the columns of `allotments!`, behind `offset` others.
    fn read(row: &Row, offset: usize) -> Self {
        Self {
            id: row.int(offset),
            partner_id: row.int(offset + 1),
            definition_id: row.int(offset + 2),
            num: row.int(offset + 3),
            end_date: day_text(row.int(offset + 4)),
            employee_id: row.int(offset + 5),
            allotted_at_ms: row.int(offset + 6),
            taken: row.int(offset + 7),
            title: row.text(offset + 8).to_owned(),
        }
    }
}

macro_rules! allotments {
    ($($more:literal),*) => {
        concat!(
            "SELECT a.allotment_id, a.partner_id, a.definition_id, a.num, a.end_date, a.employee_id, a.allotted_at_ms,
                    COALESCE((SELECT s.issued FROM stock_v1 s
                              WHERE s.bucket = $1 AND s.definition_id = -a.allotment_id), 0),
                    COALESCE((SELECT d.title FROM definitions_v1 d
                              WHERE d.bucket = $1 AND d.definition_id = a.definition_id), '')
             FROM allotments_v1 a WHERE a.bucket = $1 AND ",
            $($more),*
        )
    };
}

/// A partner's allotments, newest id first.
pub async fn allotments(
    store: &Store,
    partner_id: i64,
    slice: Slice,
) -> Result<Vec<AllotmentRow>, StoreError> {
    let sql = allotments!(
        "a.partner_id = $2 AND a.allotment_id < $3 ORDER BY a.allotment_id DESC LIMIT $4 OFFSET $5"
    );
    let rows = store.query(Statement::new(sql, sliced([partner_id.into()], slice))).await?;
    Ok(rows.iter().map(|row| AllotmentRow::read(row, 0)).collect())
}

/// A partner's allotments that have not ended on this day, newest id first.
pub async fn open_allotments(
    store: &Store,
    partner_id: i64,
    today: i64,
) -> Result<Vec<AllotmentRow>, StoreError> {
    let sql = allotments!("a.partner_id = $2 AND a.end_date >= $3 ORDER BY a.allotment_id DESC");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), partner_id.into(), today.into()])).await?;
    Ok(rows.iter().map(|row| AllotmentRow::read(row, 0)).collect())
}

/// An allotment by its id.
pub async fn allotment(store: &Store, id: i64) -> Result<Option<AllotmentRow>, StoreError> {
    let sql = allotments!("a.allotment_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(|row| AllotmentRow::read(row, 0)))
}

/// An allotment with what a member needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedRow {
    /// The allotment.
    pub allotment: AllotmentRow,
    /// Its definition.
    pub definition: DefinitionRow,
    /// How many of the definition he has been issued.
    pub has: i64,
    /// When the last of them ends.
    pub latest_end_ms: i64,
}

/// A partner's allotments that have not ended on this day, as one member sees them, newest id first.
pub async fn offered(
    store: &Store,
    (partner_id, today): (i64, i64),
    member_id: i64,
    slice: Slice,
) -> Result<Vec<OfferedRow>, StoreError> {
    // The plus: by the member, not by the latest end of everybody's down to his.
    let sql = definition_columns!(
        ", COALESCE((SELECT c.issued FROM member_counts_v1 c
                     WHERE c.bucket = $1 AND c.member_id = $4 AND c.definition_id = d.definition_id), 0),
           COALESCE((SELECT MAX(+w.ends_at_ms) FROM wallet_v1 w
                     WHERE w.bucket = $1 AND w.member_id = $4 AND w.definition_id = d.definition_id
                       AND w.issued_to = $4 AND w.voided = 0), 0),
           a.allotment_id, a.partner_id, a.definition_id, a.num, a.end_date, a.employee_id, a.allotted_at_ms,
           COALESCE((SELECT t.issued FROM stock_v1 t WHERE t.bucket = $1 AND t.definition_id = -a.allotment_id), 0),
           d.title",
        " FROM allotments_v1 a JOIN definitions_v1 d ON d.bucket = $1 AND d.definition_id = a.definition_id
          WHERE a.bucket = $1 AND a.partner_id = $2 AND a.end_date >= $3 AND a.allotment_id < $5
          ORDER BY a.allotment_id DESC LIMIT $6 OFFSET $7"
    );
    let parameters = sliced([partner_id.into(), today.into(), member_id.into()], slice);
    let rows = store.query(Statement::new(sql, parameters)).await?;
    let each = |row: &Row| OfferedRow {
        definition: DefinitionRow::read(row),
        has: row.int(25),
        latest_end_ms: row.int(26),
        allotment: AllotmentRow::read(row, 27),
    };
    Ok(rows.iter().map(each).collect())
}

/// Definitions that can be allotted on this day: on, and not past a fixed end; newest id first.
pub async fn allottable(store: &Store, today: i64, slice: Slice) -> Result<Vec<DefinitionRow>, StoreError> {
    let sql = definition_columns!(
        " FROM definitions_v1 d WHERE d.bucket = $1 AND d.is_on = 1 AND (d.validity_type <> 1 OR d.end_date >= $2)
            AND d.definition_id < $3 ORDER BY d.definition_id DESC LIMIT $4 OFFSET $5"
    );
    let rows = store.query(Statement::new(sql, sliced([today.into()], slice))).await?;
    Ok(rows.iter().map(DefinitionRow::read).collect())
}

/// Definitions that are on and can be redeemed at this partner, newest id first. There are few enough to look through.
pub async fn redeemable_at(
    store: &Store,
    partner_id: i64,
    slice: Slice,
) -> Result<Vec<DefinitionRow>, StoreError> {
    let sql = definition_columns!(
        " FROM definitions_v1 d WHERE d.bucket = $1 AND d.is_on = 1
            AND ',' || d.shop_ids || ',' LIKE '%,' || $2 || ',%'
            AND d.definition_id < $3 ORDER BY d.definition_id DESC LIMIT $4 OFFSET $5"
    );
    let rows = store.query(Statement::new(sql, sliced([partner_id.to_string().into()], slice))).await?;
    Ok(rows.iter().map(DefinitionRow::read).collect())
}

/// A line of an allotment's stock log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockLogRow {
    /// From 1 in each allotment.
    pub number: i64,
    /// How many more or, negative, fewer.
    pub by: i64,
    /// How many from then on.
    pub num: i64,
    /// Who.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// An allotment's stock log, newest first.
pub async fn stock_log(
    store: &Store,
    allotment_id: i64,
    slice: Slice,
) -> Result<Vec<StockLogRow>, StoreError> {
    let sql = "SELECT change_number, moved_by, num, employee_id, at_ms FROM allotment_changes_v1
               WHERE bucket = $1 AND allotment_id = $2 AND change_number < $3
               ORDER BY change_number DESC LIMIT $4 OFFSET $5";
    let rows = store.query(Statement::new(sql, sliced([allotment_id.into()], slice))).await?;
    let each = |row: &Row| StockLogRow {
        number: row.int(0),
        by: row.int(1),
        num: row.int(2),
        employee_id: row.int(3),
        at_ms: row.int(4),
    };
    Ok(rows.iter().map(each).collect())
}

/// A redemption that stands, as it is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettledRow {
    /// The redemption's id.
    pub id: i64,
    /// The coupon.
    pub coupon_id: i64,
    /// The allotment it was taken from, 0 = none.
    pub allotment_id: i64,
    /// The coupon's definition.
    pub definition_id: i64,
    /// The definition's title when it was issued.
    pub title: String,
    /// What a cash coupon took off, in cents.
    pub deduction_cents: i64,
    /// Unix milliseconds.
    pub used_at_ms: i64,
    /// Where.
    pub shop_id: i64,
    /// The shop's or partner's name as it is now.
    pub shop_name: String,
    /// Who held the coupon.
    pub member_id: i64,
    /// Who redeemed it, 0 = the member.
    pub employee_id: i64,
}

fn read_settled(row: &Row) -> SettledRow {
    SettledRow {
        id: row.int(0),
        coupon_id: row.int(1),
        allotment_id: row.int(2),
        definition_id: row.int(3),
        title: row.text(4).to_owned(),
        deduction_cents: row.int(5),
        used_at_ms: row.int(6),
        shop_id: row.int(7),
        member_id: row.int(8),
        employee_id: row.int(9),
        shop_name: row.text(10).to_owned(),
    }
}

/// Where and when redemptions are looked for: `[from, until)` in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first instant.
    pub from_ms: i64,
    /// The first instant behind it.
    pub until_ms: i64,
}

/// Redemptions of what was taken from a partner's allotments, wherever it was redeemed, newest first: the list that both
/// sides settle by, and the position that it is as of.
pub async fn settled(
    store: &Store,
    partner_id: i64,
    span: Span,
    slice: Slice,
) -> Result<(i64, Vec<SettledRow>), StoreError> {
    let sql = "SELECT p.redemption_id, p.coupon_id, p.allotment_id, p.definition_id, p.title, p.deduction_cents,
                      p.used_at_ms, p.shop_id, p.member_id, p.employee_id,
                      COALESCE((SELECT s.name FROM shops_v1 s WHERE s.bucket = $1 AND s.shop_id = p.shop_id),
                               (SELECT o.name FROM partners_v1 o WHERE o.bucket = $1 AND o.shop_id = p.shop_id), '')
               FROM allotments_v1 a
               JOIN partner_coupons_v1 p ON p.bucket = $1 AND p.allotment_id = a.allotment_id AND p.used_at_ms > 0
                AND p.used_at_ms >= $3 AND p.used_at_ms < $4
               WHERE a.bucket = $1 AND a.partner_id = $2 AND p.redemption_id < $5
               ORDER BY p.used_at_ms DESC, p.redemption_id DESC LIMIT $6 OFFSET $7";
    let parameters = sliced([partner_id, span.from_ms, span.until_ms].map(Cell::from), slice);
    let head = "SELECT position FROM log_head WHERE bucket = $1".to_owned();
    let looks =
        vec![Look { sql: sql.to_owned(), parameters }, Look { sql: head, parameters: vec![BUCKET.into()] }];
    let found = store.look(looks).await?;
    let rows = |place: usize| found.get(place).into_iter().flatten();
    Ok((rows(1).next().map_or(0, |row| row.int(0)), rows(0).map(read_settled).collect()))
}

/// Redemptions that stand at a partner, of one member or (0) of all, newest first.
pub async fn redeemed_at(
    store: &Store,
    (partner_id, member_id): (i64, i64),
    span: Span,
    slice: Slice,
) -> Result<Vec<SettledRow>, StoreError> {
    let sql = "SELECT r.redemption_id, r.coupon_id,
                      COALESCE((SELECT p.allotment_id FROM partner_coupons_v1 p
                                WHERE p.bucket = $1 AND p.coupon_id = r.coupon_id), 0),
                      r.definition_id, r.title,
                      COALESCE((SELECT w.deduction_cents FROM wallet_v1 w
                                WHERE w.bucket = $1 AND w.member_id = r.member_id AND w.coupon_id = r.coupon_id), 0),
                      r.used_at_ms, r.shop_id, r.member_id, r.employee_id,
                      COALESCE((SELECT o.name FROM partners_v1 o WHERE o.bucket = $1 AND o.shop_id = r.shop_id), '')
               FROM redemptions_v1 r
               WHERE r.bucket = $1 AND r.shop_id = $2 AND ($3 = 0 OR r.member_id = $3) AND r.reversed_at_ms = 0
                 AND r.used_at_ms >= $4 AND r.used_at_ms < $5 AND r.redemption_id < $6
               ORDER BY r.used_at_ms DESC, r.redemption_id DESC LIMIT $7 OFFSET $8";
    let parameters = sliced([partner_id, member_id, span.from_ms, span.until_ms].map(Cell::from), slice);
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(read_settled).collect())
}
