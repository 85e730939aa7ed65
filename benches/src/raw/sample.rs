//! What the rows hold: taken from the product's own code once, with marks where the ids go.

use chrono::NaiveDate;
use coupon_ledger::clock::Clock;
use coupon_ledger::coupon::{Coupon, CouponEvent, Issue, Source};
use coupon_ledger::entity::encode;
use coupon_ledger::read_model::coupon_rows;
use coupon_ledger::store::{Cell, LiveRow};

use super::Kind;
use crate::load::{self, PLAIN};

/// Stand where the ids go.
const MEMBER: i64 = 7_000_000_000_007;
const COUPON: i64 = 7_000_000_000_011;
const REDEMPTION: i64 = 7_000_000_000_013;

const DAY_MS: i64 = 86_400_000;

/// An event and the live rows that a coupon has after it.
pub struct Sample {
    /// Its name.
    pub event_type: String,
    /// The version of its shape.
    pub event_version: String,
    payload: String,
    wallet: Vec<Cell>,
    redemption: Vec<Cell>,
}

/// The samples.
pub struct Samples {
    /// A coupon as bulk issue makes it.
    pub issued: Sample,
    /// Its holder opens it.
    pub viewed: Sample,
    /// He redeems it.
    pub redeemed: Sample,
    /// Or it ends.
    pub expired: Sample,
    /// When all of it happened.
    pub at_ms: i64,
}

impl Samples {
    /// As of now.
    pub fn take() -> anyhow::Result<Self> {
        let at_ms = Clock::System.now_ms();
        let offer = load::offer(load::validity(30));
        let date = NaiveDate::from_ymd_opt(2026, 1, 1).unwrap_or_default();
        let issue = CouponEvent::Issued(Box::new(Issue {
            definition_id: PLAIN,
            terms: offer.terms,
            member_id: MEMBER,
            start_date: date,
            end_date: date,
            starts_at_ms: at_ms,
            ends_at_ms: at_ms + 30 * DAY_MS,
            source: Source::MassSend,
            at_ms,
            ..Issue::default()
        }));
        let redeem = CouponEvent::Redeemed {
            redemption_id: REDEMPTION,
            member_id: MEMBER,
            shop_id: 1,
            employee_id: 0,
            at_ms,
        };
        let mut coupon = Coupon::default();
        let issued = sample(&mut coupon, &issue)?;
        let viewed = sample(&mut coupon, &CouponEvent::Viewed { member_id: MEMBER, at_ms })?;
        let redeemed = sample(&mut coupon.clone(), &redeem)?;
        let expired = sample(&mut coupon, &CouponEvent::Expired { at_ms })?;
        Ok(Self { issued, viewed, redeemed, expired, at_ms })
    }

    /// What a command of this kind leaves.
    pub fn of(&self, kind: Kind) -> &Sample {
        match kind {
            Kind::Redeem | Kind::TwoRows => &self.redeemed,
            Kind::Issue => &self.issued,
            Kind::Expire => &self.expired,
        }
    }
}

fn sample(coupon: &mut Coupon, event: &CouponEvent) -> anyhow::Result<Sample> {
    coupon.evolve(event);
    let encoded = encode::<Coupon>(event)?;
    let mut cells = coupon_rows(COUPON, coupon).into_iter().map(|LiveRow { cells, .. }| cells);
    Ok(Sample {
        event_type: encoded.event_type,
        event_version: encoded.event_version,
        payload: encoded.payload,
        wallet: cells.next().unwrap_or_default(),
        redemption: cells.next().unwrap_or_default(),
    })
}

impl Sample {
    /// The event of a coupon whose holder bears its number.
    pub fn payload(&self, coupon: i64, redemption: i64) -> String {
        let payload = self.payload.replacen(&MEMBER.to_string(), &coupon.to_string(), 1);
        // Only a redemption has its own id.
        if self.redemption.is_empty() {
            return payload;
        }
        payload.replacen(&REDEMPTION.to_string(), &redemption.to_string(), 1)
    }

    /// The same as an expression in SQL: `{coupon}` stands for the coupon's id as a text.
    pub fn payload_sql(&self, coupon: &str) -> String {
        format!("replace('{}', '{MEMBER}', {coupon})", self.payload.replace('\'', "''"))
    }

    /// The wallet row of a coupon, cell by cell.
    pub fn wallet(&self, coupon: i64) -> impl Iterator<Item = CellOf<'_>> {
        self.wallet.iter().map(move |cell| fill(cell, coupon, 0))
    }

    /// The wallet row as SQL expressions: `{coupon}` stands for the coupon's id.
    pub fn wallet_sql(&self, coupon: &str) -> String {
        let cell = |cell: &Cell| match cell {
            Cell::Int(MEMBER | COUPON) => coupon.to_owned(),
            Cell::Int(value) => value.to_string(),
            Cell::Text(text) => format!("'{}'", text.replace('\'', "''")),
        };
        self.wallet.iter().map(cell).collect::<Vec<_>>().join(", ")
    }

    /// The redemption row, cell by cell.
    pub fn redemption(&self, coupon: i64, redemption: i64) -> impl Iterator<Item = CellOf<'_>> {
        self.redemption.iter().map(move |cell| fill(cell, coupon, redemption))
    }
}

/// A cell with its ids filled in.
#[derive(Clone, Copy)]
pub enum CellOf<'a> {
    /// A BIGINT.
    Int(i64),
    /// A TEXT.
    Text(&'a str),
}

fn fill(cell: &Cell, coupon: i64, redemption: i64) -> CellOf<'_> {
    match cell {
        Cell::Int(MEMBER | COUPON) => CellOf::Int(coupon),
        Cell::Int(REDEMPTION) => CellOf::Int(redemption),
        Cell::Int(value) => CellOf::Int(*value),
        Cell::Text(text) => CellOf::Text(text),
    }
}

/// The receipt's caller of a coupon whose holder bears its number.
pub fn caller(coupon: i64) -> String {
    format!("member:{coupon}")
}

/// What stands for random bits.
pub fn hex(seed: i64) -> String {
    // Knuth's MMIX multiplier spreads neighbours.
    let bits = (seed as u64).wrapping_mul(6_364_136_223_846_793_005);
    format!("{bits:016x}{:016x}", bits.rotate_left(29) ^ 0x5555_5555)
}

impl Kind {
    /// The metadata of the event at this position.
    pub fn metadata(self, position: i64, coupon: i64) -> String {
        match self {
            Self::Redeem | Self::TwoRows => {
                let key = format!("redeem-{position}");
                metadata(&caller(coupon), "member", position, Some(&key))
            }
            Self::Issue | Self::Expire => metadata("system", "system", position, None),
        }
    }
}

/// The metadata of an event, with the fields that the product writes.
pub fn metadata(caller: &str, kind: &str, seed: i64, key: Option<&str>) -> String {
    let (append_id, request) = (hex(seed), hex(!seed));
    let key = key.map_or_else(String::new, |key| format!(r#","idempotency_key":"{key}""#));
    format!(
        r#"{{"append_id":"{append_id}","caller":"{caller}","caller_kind":"{kind}","request_id":"{request}","causation_id":"{request}","correlation_id":"{request}"{key}}}"#
    )
}

#[cfg(test)]
mod tests {
    use coupon_ledger::entity::decode;
    use coupon_ledger::store::StoredEvent;

    use super::*;

    #[test]
    fn a_filled_sample_is_what_the_product_reads() {
        let samples = Samples::take().unwrap();
        let redeemed = &samples.redeemed;
        let event = StoredEvent {
            position: 3,
            aggregate_type: "coupon".to_owned(),
            aggregate_id: "5".to_owned(),
            sequence: 3,
            event_type: redeemed.event_type.clone(),
            event_version: redeemed.event_version.clone(),
            payload: redeemed.payload(5, 9),
            metadata: metadata("member:5", "member", 1, Some("redeem-5")),
            recorded_at_ms: samples.at_ms,
        };
        let expected = CouponEvent::Redeemed {
            redemption_id: 9,
            member_id: 5,
            shop_id: 1,
            employee_id: 0,
            at_ms: samples.at_ms,
        };
        assert_eq!(decode::<Coupon>(&event).unwrap(), expected);
        assert!(!redeemed.wallet_sql("g").contains(&MEMBER.to_string()));
        assert!(samples.issued.payload.matches(&MEMBER.to_string()).count() == 1);
    }
}
