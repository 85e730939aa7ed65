//! A batch on PostgreSQL as fast as it goes: rows that are new by COPY, which makes no statement of them and writes
//! their pages in one go; rows that change by one wide upsert of arrays, prepared once.

use std::fmt::Write as _;

use coupon_ledger::read_model::{REDEMPTIONS, WALLET};
use coupon_ledger::store::{Column, LiveTable};
use sqlx::{Executor as _, PgConnection};

use super::super::sample::{self, CellOf, Sample, Samples};
use super::super::{Kind, Slots};
use super::{Columns, upsert};
use crate::load::PLAIN;

/// Everything that a batch sends, rendered while the batch before it is written.
pub struct Batch {
    /// Position of its first event.
    pub position: i64,
    copies: Vec<Copy>,
    columns: Columns,
    statement: String,
    last_position: i64,
}

impl Batch {
    /// The rows of these commands.
    pub fn render(kind: Kind, samples: &Samples, slots: &Slots) -> Self {
        let Slots { position, streams } = slots;
        let at = || (*position..).zip(streams.iter().map(|(coupon, _)| *coupon));
        let sample = samples.of(kind);
        let mut copies = vec![events(kind, sample, samples.at_ms, slots)];
        let mut columns = Columns::default();
        let mut parts = Vec::new();
        match kind {
            Kind::Redeem => {
                copies.push(receipts(slots));
                let rows = at().map(|(position, coupon)| sample.redemption(coupon, position));
                copies.push(live(&REDEMPTIONS, rows));
                columns.live(&WALLET, at().map(|(_, coupon)| sample.wallet(coupon)));
                parts.push(upsert(&WALLET));
            }
            Kind::Issue => {
                // Nobody has such a row yet.
                copies.push(live(&WALLET, at().map(|(_, coupon)| sample.wallet(coupon))));
                columns.ints("member_id", streams.iter().map(|(coupon, _)| *coupon).collect());
                parts.extend(counters(streams));
                columns.texts("key", vec![format!("run-{position}")]);
                columns.ints("position", vec![*position]);
            }
            Kind::Expire => {
                columns.live(&WALLET, at().map(|(_, coupon)| sample.wallet(coupon)));
                parts.push(upsert(&WALLET));
            }
            Kind::TwoRows => {
                columns.ints("coupon_id", streams.iter().map(|(coupon, _)| *coupon).collect());
                columns.texts("state", at().map(|(position, _)| format!("redeemed-{position}")).collect());
                parts.push(
                    "INSERT INTO narrow SELECT 0, coupon_id, state FROM b
                     ON CONFLICT (bucket, coupon_id) DO UPDATE SET state = excluded.state"
                        .to_owned(),
                );
            }
        }
        let mut statement = format!("WITH {}", columns.unnest());
        for (number, part) in parts.iter().enumerate() {
            let _ = write!(statement, ", w{number} AS ({part})");
        }
        let _ = write!(
            statement,
            " UPDATE log_head SET position = ${}, last_ms = {} WHERE bucket = 0",
            columns.names.len() + 1,
            samples.at_ms
        );
        let last_position = position + streams.len() as i64 - 1;
        Self { position: *position, copies, columns, statement, last_position }
    }

    /// Sends it, within a transaction.
    pub async fn write(self, connection: &mut PgConnection) -> anyhow::Result<()> {
        for Copy { statement, rows } in self.copies {
            let mut copy = connection.copy_in_raw(&statement).await?;
            copy.send(rows).await?;
            copy.finish().await?;
        }
        let query = self.columns.bind(sqlx::query(&self.statement)).bind(self.last_position);
        connection.execute(query).await?;
        Ok(())
    }
}

/// What bulk issue keeps beside the coupons: the members' counts, the stock, one receipt. A member's second coupon of
/// the definition is issued, so what is counted is known.
fn counters(streams: &[(i64, i64)]) -> [String; 3] {
    let count = streams.len();
    [
        format!(
            "INSERT INTO member_counts_v1 SELECT 0, member_id, {PLAIN}, 2 FROM b
             ON CONFLICT (bucket, member_id, definition_id) DO UPDATE SET issued = excluded.issued"
        ),
        format!(
            "INSERT INTO stock_v1 SELECT 0, {PLAIN}, -1, max(member_id) FROM b
             ON CONFLICT (bucket, definition_id) DO UPDATE SET stock = excluded.stock, issued = excluded.issued"
        ),
        format!(
            "INSERT INTO receipts SELECT 0, 'system', 'issue', key, '{}', position, {count} FROM b
             WHERE key IS NOT NULL",
            sample::hex(1).repeat(2)
        ),
    ]
}

fn events(kind: Kind, sample: &Sample, at_ms: i64, slots: &Slots) -> Copy {
    let mut copy = Copy::into("events");
    for (position, (coupon, sequence)) in (slots.position..).zip(&slots.streams) {
        copy.row(10);
        copy.int(0);
        copy.int(position);
        copy.text("coupon");
        copy.text(&coupon.to_string());
        copy.int(*sequence);
        copy.text(&sample.event_type);
        copy.text(&sample.event_version);
        copy.text(&sample.payload(*coupon, position));
        copy.text(&kind.metadata(position, *coupon));
        copy.int(at_ms);
    }
    copy.end()
}

fn receipts(slots: &Slots) -> Copy {
    let mut copy = Copy::into("receipts");
    for (position, (coupon, _)) in (slots.position..).zip(&slots.streams) {
        copy.row(7);
        copy.int(0);
        copy.text(&sample::caller(*coupon));
        copy.text("auditcoupon");
        copy.text(&format!("redeem-{position}"));
        copy.text(&sample::hex(position).repeat(2));
        copy.int(position);
        copy.int(1);
    }
    copy.end()
}

/// Rows of a live table that does not have them yet.
fn live<'a, I: Iterator<Item = CellOf<'a>>>(table: &LiveTable, rows: impl Iterator<Item = I>) -> Copy {
    let names: Vec<&str> = table.columns.iter().copied().map(Column::name).collect();
    let mut copy = Copy::into(&format!("{} (bucket, {})", table.name, names.join(", ")));
    for row in rows {
        copy.row(names.len() as i16 + 1);
        copy.int(0);
        for cell in row {
            match cell {
                CellOf::Int(value) => copy.int(value),
                CellOf::Text(text) => copy.text(text),
            }
        }
    }
    copy.end()
}

/// A COPY and its rows in PostgreSQL's binary format: no number is printed and parsed, no text escaped.
struct Copy {
    statement: String,
    rows: Vec<u8>,
}

impl Copy {
    fn into(table: &str) -> Self {
        let mut rows = b"PGCOPY\n\xff\r\n\0".to_vec();
        // No flags, no header extension.
        rows.extend([0; 8]);
        Self { statement: format!("COPY {table} FROM STDIN (FORMAT binary)"), rows }
    }

    fn row(&mut self, columns: i16) {
        self.rows.extend(columns.to_be_bytes());
    }

    fn int(&mut self, value: i64) {
        self.rows.extend(8_i32.to_be_bytes());
        self.rows.extend(value.to_be_bytes());
    }

    fn text(&mut self, value: &str) {
        self.rows.extend((value.len() as i32).to_be_bytes());
        self.rows.extend(value.as_bytes());
    }

    fn end(mut self) -> Self {
        self.rows.extend((-1_i16).to_be_bytes());
        self
    }
}
