//! Every SELECT that answers a page. Written once for both engines; each walks an index. What belongs to a row from
//! another table is a scalar subquery: PostgreSQL's planner sees one bucket in every key and would join by reading it all.

use crate::clock::day_text;
use crate::coupon::CouponEvent;
use crate::definition::Terms;
use crate::directory::seal::{self, Seal};
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};

/// Which part of a list is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// All of it.
    All,
    /// The list as it is now, cut into pages from 1.
    Page {
        /// From 1.
        page: i64,
        /// Rows per page.
        limit: i64,
    },
    /// Rows with smaller ids: no repeats or omissions while coupons arrive.
    Before {
        /// The smallest id seen so far.
        id: i64,
        /// Rows at most.
        limit: i64,
    },
}

impl Slice {
    /// The same part of rows that are at hand, newest id first: where SQL cannot say which rows qualify.
    pub fn cut<T>(self, rows: impl Iterator<Item = T>, id: impl Fn(&T) -> i64) -> Vec<T> {
        let size = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        match self {
            Self::All => rows.collect(),
            Self::Page { page, limit } => {
                rows.skip(size((page - 1).saturating_mul(limit))).take(size(limit)).collect()
            }
            Self::Before { id: before, limit } => {
                rows.filter(|row| id(row) < before).take(size(limit)).collect()
            }
        }
    }

    /// (before id, limit, offset) as the statements take them.
    pub(crate) fn parameters(self) -> [Cell; 3] {
        let (before, limit, offset) = match self {
            Self::All => (i64::MAX, i64::MAX, 0),
            Self::Page { page, limit } => (i64::MAX, limit, (page - 1).saturating_mul(limit)),
            Self::Before { id, limit } => (id, limit, 0),
        };
        [before.into(), limit.into(), offset.into()]
    }
}

/// The manual's `state` of couponlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalletState {
    /// 0: in hand and not past its end.
    Unused,
    /// 1: used, given away and received, or voided.
    Gone,
    /// 2: in hand but past its end.
    Expired,
}

/// A row of the wallet as lists show it. Each column costs on every row of every page: what only one page shows is in
/// [`WalletDetail`] or [`Usability`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletRow {
    /// The coupon.
    pub coupon_id: i64,
    /// Whose row.
    pub member_id: i64,
    /// Its definition.
    pub definition_id: i64,
    /// `2018-11-01`
    pub start_date: String,
    /// `2019-01-01`
    pub end_date: String,
    /// Unix milliseconds.
    pub issued_at_ms: i64,
    /// 0 = not used.
    pub used_at_ms: i64,
    /// Of the pending or received gift, 0 = none.
    pub given_at_ms: i64,
    /// Of the pending gift, 0 = none.
    pub gift_lapses_at_ms: i64,
    /// 1 cash, 2 exchange.
    pub kind: i64,
    /// Who took it out of this row.
    pub used_by: i64,
    /// Who received it from this member.
    pub received_by: i64,
    /// 0 = not reviewed.
    pub score: i64,
    /// 0 = not reviewed.
    pub evaluated_at_ms: i64,
    /// Whether the holder opened it.
    pub is_read: bool,
    /// In cents.
    pub deduction_cents: i64,
    /// Whether the member may redeem it himself.
    pub self_redeemable: bool,
    /// The definition's title.
    pub title: String,
    /// The review's text, where it is this member's.
    pub evaluation: String,
}

/// The columns of a [`WalletRow`], and whatever follows them.
macro_rules! wallet {
    ($($more:literal),*) => {
        concat!(
            "SELECT w.coupon_id, w.member_id, w.definition_id, w.start_date, w.end_date, w.issued_at_ms, w.used_at_ms,
                    w.given_at_ms, w.gift_lapses_at_ms, w.kind, w.used_by, w.received_by, w.score, w.evaluated_at_ms,
                    w.is_read, w.deduction_cents, w.self_redeemable, w.title,
                    CASE WHEN w.score > 0 THEN
                      COALESCE((SELECT r.text FROM reviews r WHERE r.coupon_id = w.coupon_id), '') ELSE '' END",
            $($more),*
        )
    };
}

/// How many columns a [`WalletRow`] has.
const WALLET_COLUMNS: usize = 19;

impl WalletRow {
    fn take(row: &mut Row, seal: &Seal) -> Result<Self, StoreError> {
        let member_id = row.int(1);
        Ok(Self {
            coupon_id: row.int(0),
            member_id,
            definition_id: row.int(2),
            start_date: day_text(row.int(3)),
            end_date: day_text(row.int(4)),
            issued_at_ms: row.int(5),
            used_at_ms: row.int(6),
            given_at_ms: row.int(7),
            gift_lapses_at_ms: row.int(8),
            kind: row.int(9),
            used_by: row.int(10),
            received_by: row.int(11),
            score: row.int(12),
            evaluated_at_ms: row.int(13),
            is_read: row.int(14) == 1,
            deduction_cents: row.int(15),
            self_redeemable: row.int(16) == 1,
            title: row.take_text(17),
            evaluation: seal.open_one(seal::REVIEW_TEXT, member_id, row.text(18))?,
        })
    }

    /// Whether a gift of this row waits at this instant.
    #[must_use]
    pub fn gift_is_pending(&self, now_ms: i64) -> bool {
        now_ms < self.gift_lapses_at_ms
    }

    /// When it was given, as pages show it: a lapsed gift no longer counts, written down or not.
    #[must_use]
    pub fn shown_given_at_ms(&self, now_ms: i64) -> i64 {
        let lapsed = self.gift_lapses_at_ms != 0 && self.gift_lapses_at_ms <= now_ms;
        if lapsed { 0 } else { self.given_at_ms }
    }
}

/// A member's coupons in one state, newest id first.
pub async fn wallet(
    store: &Store,
    seal: &Seal,
    member_id: i64,
    state: WalletState,
    now_ms: i64,
    slice: Slice,
) -> Result<Vec<WalletRow>, StoreError> {
    let mut parameters = vec![BUCKET.into(), member_id.into()];
    parameters.extend(slice.parameters());
    let sql = match state {
        WalletState::Unused => {
            parameters.push(now_ms.into());
            wallet!(
                " FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.in_hand = 1 AND w.ends_at_ms > $6",
                " AND w.coupon_id < $3 ORDER BY w.coupon_id DESC LIMIT $4 OFFSET $5"
            )
        }
        WalletState::Gone => wallet!(
            " FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.in_hand = 0",
            " AND w.coupon_id < $3 ORDER BY w.coupon_id DESC LIMIT $4 OFFSET $5"
        ),
        WalletState::Expired => {
            parameters.push(now_ms.into());
            wallet!(
                " FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.in_hand = 1 AND w.ends_at_ms <= $6",
                " AND w.coupon_id < $3 ORDER BY w.coupon_id DESC LIMIT $4 OFFSET $5"
            )
        }
    };
    let rows = store.query(Statement::new(sql, parameters)).await?;
    rows.into_iter().map(|mut row| WalletRow::take(&mut row, seal)).collect()
}

/// When and where a coupon can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usability {
    /// First instant of validity.
    pub starts_at_ms: i64,
    /// `1,2,3`
    pub weekdays: String,
    /// `1,2,3`
    pub shop_ids: String,
    /// Who gave it to this member.
    pub given_by: i64,
    /// The manual's `come`.
    pub source: i64,
    /// The employee behind the issue.
    pub employee_id: i64,
    /// The order behind the issue.
    pub order_id: i64,
    /// The goods behind the issue.
    pub goods_id: i64,
}

/// A member's unused coupons, newest id first, each with when and where it can be used.
pub async fn unused(
    store: &Store,
    seal: &Seal,
    member_id: i64,
    now_ms: i64,
) -> Result<Vec<(WalletRow, Usability)>, StoreError> {
    // The plus: by the member, not all that has not ended.
    let sql = wallet!(
        ", w.starts_at_ms, w.weekdays, w.shop_ids, w.given_by, w.source, w.employee_id, w.order_id, w.goods_id",
        " FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.in_hand = 1 AND +w.ends_at_ms > $3",
        " ORDER BY w.coupon_id DESC"
    );
    let rows = store.query(Statement::new(sql, [BUCKET.into(), member_id.into(), now_ms.into()])).await?;
    let each = |mut row: Row| {
        let usability = Usability {
            starts_at_ms: row.int(WALLET_COLUMNS),
            weekdays: row.take_text(WALLET_COLUMNS + 1),
            shop_ids: row.take_text(WALLET_COLUMNS + 2),
            given_by: row.int(WALLET_COLUMNS + 3),
            source: row.int(WALLET_COLUMNS + 4),
            employee_id: row.int(WALLET_COLUMNS + 5),
            order_id: row.int(WALLET_COLUMNS + 6),
            goods_id: row.int(WALLET_COLUMNS + 7),
        };
        Ok((WalletRow::take(&mut row, seal)?, usability))
    };
    rows.into_iter().map(each).collect()
}

/// How many coupons a member has in each state: unused, gone, expired.
pub async fn wallet_counts(store: &Store, member_id: i64, now_ms: i64) -> Result<[i64; 3], StoreError> {
    let sql =
        "SELECT COUNT(*) FILTER (WHERE in_hand = 1 AND ends_at_ms > $3), COUNT(*) FILTER (WHERE in_hand = 0),
                      COUNT(*) FILTER (WHERE in_hand = 1 AND ends_at_ms <= $3)
               FROM wallet_v1 WHERE bucket = $1 AND member_id = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), member_id.into(), now_ms.into()])).await?;
    Ok(rows.first().map_or([0; 3], |row| [row.int(0), row.int(1), row.int(2)]))
}

/// One row of the wallet with what only couponinfo shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalletDetail {
    /// The row.
    pub row: WalletRow,
    /// Who gave it to this member.
    pub given_by: i64,
    /// The manual's `come`.
    pub source: i64,
    /// The employee behind the issue.
    pub employee_id: i64,
    /// The order behind the issue.
    pub order_id: i64,
    /// The goods behind the issue.
    pub goods_id: i64,
    /// `1,2,3`
    pub weekdays: String,
    /// The terms it was issued under.
    pub terms: Terms,
    /// Nickname and picture of who received it from this member.
    pub receiver: Option<(String, String)>,
}

/// A coupon as one member sees it; None when he has never held it.
pub async fn wallet_detail(
    store: &Store,
    seal: &Seal,
    member_id: i64,
    coupon_id: i64,
) -> Result<Option<WalletDetail>, StoreError> {
    // A coupon's first event holds its terms for good: its rules need no copy in every wallet row.
    let sql = wallet!(
        ", w.given_by, w.source, w.employee_id, w.order_id, w.goods_id, w.weekdays,
           (SELECT CAST(e.payload AS TEXT) FROM events e
             WHERE e.aggregate_type = 'coupon' AND e.aggregate_id = CAST(w.coupon_id AS TEXT)
               AND e.sequence = 1 AND e.bucket = $1),
           (SELECT m.nickname FROM members m WHERE m.member_id = w.received_by),
           (SELECT m.headimgurl FROM members m WHERE m.member_id = w.received_by)
         FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.coupon_id = $3"
    );
    let mut rows =
        store.query(Statement::new(sql, [BUCKET.into(), member_id.into(), coupon_id.into()])).await?;
    let Some(found) = rows.first_mut() else {
        return Ok(None);
    };
    let row = WalletRow::take(found, seal)?;
    let column = |number: usize| WALLET_COLUMNS + number;
    let first = serde_json::from_str::<CouponEvent>(found.text(column(6))).ok();
    let Some(terms) = first.as_ref().and_then(CouponEvent::birth).map(|issue| issue.terms.clone()) else {
        return Err(StoreError::Corrupt {
            table: "events".to_owned(),
            column: "payload".to_owned(),
            what: format!("the first event of coupon {coupon_id} is not its birth"),
        });
    };
    let receiver = if row.received_by == 0 {
        None
    } else {
        let person = seal.person(row.received_by);
        let nickname = person.open(seal::NICKNAME, found.text(column(7)))?;
        Some((nickname, person.open(seal::HEADIMGURL, found.text(column(8)))?))
    };
    Ok(Some(WalletDetail {
        row,
        given_by: found.int(column(0)),
        source: found.int(column(1)),
        employee_id: found.int(column(2)),
        order_id: found.int(column(3)),
        goods_id: found.int(column(4)),
        weekdays: found.take_text(column(5)),
        terms,
        receiver,
    }))
}

/// A redemption as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedemptionRow {
    /// Its id.
    pub id: i64,
    /// The coupon.
    pub coupon_id: i64,
    /// The coupon's definition.
    pub definition_id: i64,
    /// Who held the coupon.
    pub member_id: i64,
    /// Where.
    pub shop_id: i64,
    /// Who redeemed it, 0 = the member.
    pub employee_id: i64,
    /// Unix milliseconds.
    pub used_at_ms: i64,
    /// The definition's title.
    pub title: String,
    /// The shop's name as it is now.
    pub shop_name: String,
}

/// A redemption by its id.
pub async fn redemption(store: &Store, id: i64) -> Result<Option<RedemptionRow>, StoreError> {
    let sql = "SELECT r.redemption_id, r.coupon_id, r.definition_id, r.member_id, r.shop_id, r.employee_id,
                      r.used_at_ms, r.title,
                      COALESCE((SELECT s.name FROM shops_v1 s WHERE s.bucket = $1 AND s.shop_id = r.shop_id),
                               (SELECT p.name FROM partners_v1 p WHERE p.bucket = $1 AND p.shop_id = r.shop_id), '')
               FROM redemptions_v1 r WHERE r.bucket = $1 AND r.redemption_id = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(|row| RedemptionRow {
        id: row.int(0),
        coupon_id: row.int(1),
        definition_id: row.int(2),
        member_id: row.int(3),
        shop_id: row.int(4),
        employee_id: row.int(5),
        used_at_ms: row.int(6),
        title: row.text(7).to_owned(),
        shop_name: row.text(8).to_owned(),
    }))
}

/// A redemption in the counter's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRow {
    /// Its id.
    pub id: i64,
    /// The coupon.
    pub coupon_id: i64,
    /// The coupon's definition.
    pub definition_id: i64,
    /// Unix milliseconds.
    pub used_at_ms: i64,
    /// When it was taken back, Unix milliseconds; 0 = it stands.
    pub reversed_at_ms: i64,
    /// Where.
    pub shop_id: i64,
    /// Who redeemed it, 0 = the member.
    pub employee_id: i64,
    /// Who held the coupon.
    pub member_id: i64,
    /// The definition's title.
    pub title: String,
    /// The name he shows.
    pub nickname: String,
    /// His picture.
    pub headimgurl: String,
}

/// Redemptions between two instants, in one shop or (0) in all, newest first.
pub async fn redemptions(
    store: &Store,
    seal: &Seal,
    (from_ms, until_ms): (i64, i64),
    shop_id: i64,
    slice: Slice,
) -> Result<Vec<CounterRow>, StoreError> {
    let sql =
        "SELECT r.redemption_id, r.coupon_id, r.definition_id, r.used_at_ms, r.reversed_at_ms, r.shop_id,
                      r.employee_id, r.member_id, r.title,
                      COALESCE((SELECT m.nickname FROM members m WHERE m.member_id = r.member_id), ''),
                      COALESCE((SELECT m.headimgurl FROM members m WHERE m.member_id = r.member_id), '')
               FROM redemptions_v1 r
               WHERE r.bucket = $1 AND r.used_at_ms >= $5 AND r.used_at_ms < $6 AND ($7 = 0 OR r.shop_id = $7)
                 AND r.redemption_id < $2
               ORDER BY r.used_at_ms DESC, r.redemption_id DESC LIMIT $3 OFFSET $4";
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    parameters.extend([from_ms, until_ms, shop_id].map(Cell::from));
    let rows = store.query(Statement::new(sql, parameters)).await?;
    let each = |row: &Row| {
        let person = seal.person(row.int(7));
        Ok(CounterRow {
            id: row.int(0),
            coupon_id: row.int(1),
            definition_id: row.int(2),
            used_at_ms: row.int(3),
            reversed_at_ms: row.int(4),
            shop_id: row.int(5),
            employee_id: row.int(6),
            member_id: row.int(7),
            title: row.text(8).to_owned(),
            nickname: person.open(seal::NICKNAME, row.text(9))?,
            headimgurl: person.open(seal::HEADIMGURL, row.text(10))?,
        })
    };
    rows.iter().map(each).collect()
}

/// A definition as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of its own")]
pub struct DefinitionRow {
    /// Its id.
    pub id: i64,
    /// Whether it is on.
    pub on: bool,
    /// 1 cash, 2 exchange.
    pub kind: i64,
    /// Its title.
    pub title: String,
    /// In cents.
    pub deduction_cents: i64,
    /// In cents.
    pub minimum_order_cents: i64,
    /// 1 fixed days, 2 counted from receipt, 3 the member's card.
    pub validity_type: i64,
    /// `2018-11-01`, empty unless fixed.
    pub start_date: String,
    /// `2019-01-01`, empty unless fixed.
    pub end_date: String,
    /// Where counted from receipt.
    pub starts_after_days: i64,
    /// Where counted from receipt.
    pub valid_days: i64,
    /// `1,2,3`
    pub weekdays: String,
    /// Whether it may be given away.
    pub givable: bool,
    /// Whether it may be combined.
    pub stackable: bool,
    /// For people.
    pub rules: String,
    /// `1,2,3`
    pub shop_ids: String,
    /// Whether members redeem it themselves.
    pub self_redeemable: bool,
    /// Whether the shop's QR is needed.
    pub scan_required: bool,
    /// The manual's `get_limit_type`.
    pub issue_limit: i64,
    /// The manual's `get_limit`.
    pub get_limit: i64,
    /// `1,2,3`
    pub level_ids: String,
    /// Whether members may claim it.
    pub claimable: bool,
    /// Who defined it.
    pub employee_id: i64,
    /// How many may be issued in all; None = unlimited.
    pub stock: Option<i64>,
    /// How many are issued and not voided.
    pub issued: i64,
}

impl DefinitionRow {
    /// What is left of the stock, −1 = unlimited.
    #[must_use]
    pub fn inventory(&self) -> i64 {
        self.stock.map_or(-1, |stock| (stock - self.issued).max(0))
    }

    pub(super) fn read(row: &Row) -> Self {
        Self {
            id: row.int(0),
            on: row.int(1) == 1,
            kind: row.int(2),
            title: row.text(3).to_owned(),
            deduction_cents: row.int(4),
            minimum_order_cents: row.int(5),
            validity_type: row.int(6),
            start_date: day_text(row.int(7)),
            end_date: day_text(row.int(8)),
            starts_after_days: row.int(9),
            valid_days: row.int(10),
            weekdays: row.text(11).to_owned(),
            givable: row.int(12) == 1,
            stackable: row.int(13) == 1,
            rules: row.text(14).to_owned(),
            shop_ids: row.text(15).to_owned(),
            self_redeemable: row.int(16) == 1,
            scan_required: row.int(17) == 1,
            issue_limit: row.int(18),
            get_limit: row.int(19),
            level_ids: row.text(20).to_owned(),
            claimable: row.int(21) == 1,
            employee_id: row.int(22),
            stock: Some(row.int(23)).filter(|stock| *stock >= 0),
            issued: row.int(24),
        }
    }
}

macro_rules! definitions {
    ($($more:literal),*) => {
        concat!(
            "SELECT d.definition_id, d.is_on, d.kind, d.title, d.deduction_cents, d.minimum_order_cents,
                    d.validity_type, d.start_date, d.end_date, d.starts_after_days, d.valid_days, d.weekdays,
                    d.givable, d.stackable, d.rules, d.shop_ids, d.self_redeemable, d.scan_required, d.issue_limit,
                    d.get_limit, d.level_ids, d.claimable, d.employee_id,
                    COALESCE((SELECT s.stock FROM stock_v1 s
                              WHERE s.bucket = $1 AND s.definition_id = d.definition_id), -1),
                    COALESCE((SELECT s.issued FROM stock_v1 s
                              WHERE s.bucket = $1 AND s.definition_id = d.definition_id), 0)",
            $($more),*
        )
    };
}

pub(super) use definitions as definition_columns;

/// A definition by its id.
pub async fn definition(store: &Store, id: i64) -> Result<Option<DefinitionRow>, StoreError> {
    let sql = definitions!(" FROM definitions_v1 d WHERE d.bucket = $1 AND d.definition_id = $2");
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(DefinitionRow::read))
}

/// Definitions, newest id first.
pub async fn definitions(store: &Store, slice: Slice) -> Result<Vec<DefinitionRow>, StoreError> {
    let sql = definitions!(
        " FROM definitions_v1 d WHERE d.bucket = $1 AND d.definition_id < $2",
        " ORDER BY d.definition_id DESC LIMIT $3 OFFSET $4"
    );
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(DefinitionRow::read).collect())
}

/// Definitions that are on and may be claimed by members, with how many this member has and when his last one ends.
pub async fn claimable(store: &Store, member_id: i64) -> Result<Vec<(DefinitionRow, i64, i64)>, StoreError> {
    // The plus: by the member, not by the latest end of everybody's down to his.
    let sql = definitions!(
        ", COALESCE((SELECT c.issued FROM member_counts_v1 c
                     WHERE c.bucket = $1 AND c.member_id = $2 AND c.definition_id = d.definition_id), 0),
           COALESCE((SELECT MAX(+w.ends_at_ms) FROM wallet_v1 w
                     WHERE w.bucket = $1 AND w.member_id = $2 AND w.definition_id = d.definition_id
                       AND w.issued_to = $2 AND w.voided = 0), 0)",
        " FROM definitions_v1 d WHERE d.bucket = $1 AND d.claimable = 1 AND d.is_on = 1 ORDER BY d.definition_id DESC"
    );
    let rows = store.query(Statement::new(sql, [BUCKET.into(), member_id.into()])).await?;
    Ok(rows.iter().map(|row| (DefinitionRow::read(row), row.int(25), row.int(26))).collect())
}

/// A shop as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShopRow {
    /// Its id.
    pub id: i64,
    /// Whether it is open.
    pub open: bool,
    /// The number of the key in its QR.
    pub audit_key: u32,
    /// Its name.
    pub name: String,
    /// Its telephone number.
    pub phone: String,
    /// Its address.
    pub address: String,
    /// Who opened it.
    pub employee_id: i64,
    /// Whether it is a partner and no own shop.
    pub partner: bool,
}

pub(super) fn read_shop(row: &Row, partner: bool) -> ShopRow {
    ShopRow {
        id: row.int(0),
        open: row.int(1) == 1,
        audit_key: u32::try_from(row.int(2)).unwrap_or_default(),
        name: row.text(3).to_owned(),
        phone: row.text(4).to_owned(),
        address: row.text(5).to_owned(),
        employee_id: row.int(6),
        partner,
    }
}

/// An own shop or a partner by its id: they share one sequence.
pub async fn place(store: &Store, id: i64) -> Result<Option<ShopRow>, StoreError> {
    match shop(store, id).await? {
        None => super::partners::partner(store, id).await,
        shop => Ok(shop),
    }
}

/// A shop by its id.
pub async fn shop(store: &Store, id: i64) -> Result<Option<ShopRow>, StoreError> {
    let sql = "SELECT shop_id, is_open, audit_key, name, phone, address, employee_id FROM shops_v1
               WHERE bucket = $1 AND shop_id = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), id.into()])).await?;
    Ok(rows.first().map(|row| read_shop(row, false)))
}

/// Every shop, newest id first.
pub async fn shops(store: &Store, slice: Slice) -> Result<Vec<ShopRow>, StoreError> {
    let sql = "SELECT shop_id, is_open, audit_key, name, phone, address, employee_id FROM shops_v1
               WHERE bucket = $1 AND shop_id < $2 ORDER BY shop_id DESC LIMIT $3 OFFSET $4";
    let mut parameters = vec![BUCKET.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(|row| read_shop(row, false)).collect())
}

/// How many shops were ever opened.
pub async fn count_shops(store: &Store) -> Result<i64, StoreError> {
    let rows = store
        .query(Statement::new("SELECT COUNT(*) FROM shops_v1 WHERE bucket = $1", [BUCKET.into()]))
        .await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// A coupon that the sweep has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// When its time came: its end, or its gift's lapse.
    pub at_ms: i64,
    /// The coupon.
    pub coupon_id: i64,
}

/// Coupons in hand whose end lies in `(from, until]` and is not written down, in that order.
pub async fn ended(store: &Store, from: Due, until_ms: i64, limit: i64) -> Result<Vec<Due>, StoreError> {
    let sql = "SELECT ends_at_ms, coupon_id FROM wallet_v1
               WHERE bucket = $1 AND (ends_at_ms, coupon_id) > ($2, $3) AND ends_at_ms <= $4
                 AND in_hand = 1 AND expiry_recorded = 0
               ORDER BY bucket, ends_at_ms, coupon_id LIMIT $5";
    let parameters = [BUCKET.into(), from.at_ms.into(), from.coupon_id.into(), until_ms.into(), limit.into()];
    let rows = store.query(Statement::new(sql, parameters)).await?;
    Ok(rows.iter().map(|row| Due { at_ms: row.int(0), coupon_id: row.int(1) }).collect())
}

/// Coupons with a gift that has lapsed and is not written down.
pub async fn lapsed(store: &Store, until_ms: i64, limit: i64) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT coupon_id FROM wallet_v1
               WHERE bucket = $1 AND gift_lapses_at_ms > 0 AND gift_lapses_at_ms <= $2
               ORDER BY bucket, gift_lapses_at_ms LIMIT $3";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), until_ms.into(), limit.into()])).await?;
    Ok(rows.iter().map(|row| row.int(0)).collect())
}
