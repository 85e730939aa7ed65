//! A ledger as it was: a scratch ledger with the events up to a position, and the live rows that follow from them.
//!
//! Whatever answers pages can then be asked of it, and answers what it would have answered. Which coupons are a member's is
//! learnt from the events too, never from a live row. The one thing that is not in the log is a review's text; it is taken
//! over where it still has the hash that its event holds. The directory is not taken over: it tells of today only.

use futures::StreamExt as _;

use super::at::AsOf;
use super::kinds::{KINDS, Kind, Stream};
use crate::coupon::{Coupon, CouponEvent};
use crate::directory::seal::{self, Seal};
use crate::entity::{CorruptEvent, decode};
use crate::replay::ReplayError;
use crate::secrets::review_hash;
use crate::store::{
    BUCKET, IdRange, OpenError, Row, Scratch, Statement, Store, StoreError, StoredEvent, StreamId,
};

/// How many positions one statement looks through for a member's coupons: a bounded read transaction each.
const SLAB: i64 = 10_000;

/// How many events are copied at a time.
const PAGE: i64 = 2_000;

/// How many parts of the copy are folded while the rows of one are written.
const PARTS_AHEAD: usize = 2;

/// How many streams are read at a time.
const STREAMS: usize = 200;

/// Why a ledger cannot be had as it was.
#[derive(Debug, thiserror::Error)]
pub enum AsOfError {
    /// The log cannot be read, or the copy not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no place for a copy.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// An event cannot be understood.
    #[error("corrupt event: {0}")]
    Corrupt(#[from] Box<CorruptEvent>),
}

impl From<ReplayError> for AsOfError {
    fn from(error: ReplayError) -> Self {
        match error {
            ReplayError::Store(error) => error.into(),
            ReplayError::Corrupt(corrupt) => corrupt.into(),
        }
    }
}

/// Which coupons a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    /// Every coupon that a member has ever held by then.
    Member(i64),
    /// One coupon.
    Coupon(i64),
}

/// Coupons and every shop and partner as of then, in memory. Small: what one member sees rests on no more.
pub async fn some(store: &Store, seal: &Seal, as_of: AsOf, of: Of) -> Result<Scratch, AsOfError> {
    let coupons = match of {
        Of::Member(member_id) => coupons_of(store, as_of.position, member_id).await?,
        Of::Coupon(coupon_id) => vec![coupon_id],
    };
    let shops = shops_by(store, as_of.position).await?;
    let stream = |kind: &'static str| move |id| StreamId { kind, id };
    let streams = shops.into_iter().map(stream("shop")).chain(coupons.into_iter().map(stream("coupon")));
    let streams: Vec<StreamId> = streams.collect();
    let scratch = Scratch::in_memory().await?;
    match fill_with(&scratch, (store, seal), as_of, &streams).await {
        Ok(()) => Ok(scratch),
        Err(error) => {
            scratch.close().await;
            Err(error)
        }
    }
}

/// The whole ledger as of then in a scratch ledger, without the texts of reviews. Memory stays flat.
pub async fn whole(scratch: &Scratch, store: &Store, as_of: AsOf) -> Result<(), AsOfError> {
    copy_log(scratch, store, as_of).await?;
    let mut stock = Vec::new();
    for kind in KINDS {
        let copy = scratch.store();
        let ranges = copy.ranges(kind.name, "");
        let scan = |range: Result<IdRange, StoreError>| {
            let copy = copy.clone();
            async move { (kind.scan)(copy, range?, i64::MAX).await }
        };
        let mut parts = Box::pin(ranges.map(scan).buffered(PARTS_AHEAD));
        while let Some(streams) = parts.next().await {
            let (mut rows, streams) = (Vec::new(), streams?);
            for Stream { written, .. } in streams {
                rows.extend(written.rows);
                stock.extend(written.stock);
            }
            if !rows.is_empty() {
                scratch.put_rows(rows).await?;
            }
        }
    }
    Ok(scratch.count(stock, as_of.position, last_ms(scratch, as_of.position).await?).await?)
}

async fn copy_log(scratch: &Scratch, store: &Store, as_of: AsOf) -> Result<(), AsOfError> {
    let mut position = 0;
    while position < as_of.position {
        let mut page = store.events_after(position, PAGE).await?;
        page.retain(|event| event.position <= as_of.position);
        let Some(last) = page.last().map(|event| event.position) else {
            return Err(missing(position + 1).into());
        };
        if last - position != page.len() as i64 {
            return Err(missing(position + 1).into());
        }
        scratch.put_events(page).await?;
        position = last;
    }
    Ok(())
}

/// Somewhere from this position on.
pub(super) fn missing(from: i64) -> StoreError {
    StoreError::Corrupt {
        table: "events".to_owned(),
        column: "position".to_owned(),
        what: format!("an event is missing behind position {}", from - 1),
    }
}

async fn last_ms(scratch: &Scratch, position: i64) -> Result<i64, StoreError> {
    let sql = "SELECT recorded_at_ms FROM events WHERE bucket = $1 AND position = $2";
    let rows = scratch.store().query(Statement::new(sql, [BUCKET.into(), position.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

async fn fill_with(
    scratch: &Scratch,
    (store, seal): (&Store, &Seal),
    as_of: AsOf,
    streams: &[StreamId],
) -> Result<(), AsOfError> {
    let (mut stock, mut reviews) = (Vec::new(), Vec::new());
    for some in streams.chunks(STREAMS) {
        for (stream, mut events) in some.iter().zip(store.load(some).await?) {
            events.retain(|event| event.position <= as_of.position);
            if let Some(kind) = Kind::named(stream.kind).filter(|_| !events.is_empty()) {
                let written = (kind.fold)(&events, as_of.position)?;
                stock.extend(written.stock);
                reviews.extend(review_of(stream.id, &events)?);
                scratch.put_events(events).await?;
                scratch.put_rows(written.rows).await?;
            }
        }
    }
    take_over(scratch, store, seal, &reviews).await?;
    Ok(scratch.count(stock, as_of.position, as_of.at_ms).await?)
}

/// A review: of which coupon, by whom, with which hash.
pub(super) struct Review {
    coupon_id: i64,
    member_id: i64,
    text_hash: String,
}

/// The review of a coupon, if it has one.
pub(super) fn review_of(id: i64, stream: &[StoredEvent]) -> Result<Option<Review>, Box<CorruptEvent>> {
    let of_coupon = stream.iter().filter(|event| event.aggregate_type == "coupon");
    for event in of_coupon.filter(|event| event.event_type == "Evaluated") {
        if let CouponEvent::Evaluated { text_hash, member_id, .. } = decode::<Coupon>(event)? {
            return Ok(Some(Review { coupon_id: id, member_id, text_hash }));
        }
    }
    Ok(None)
}

/// Takes over the texts of reviews as they lie, those that can be opened and have their events' hashes.
pub(super) async fn take_over(
    scratch: &Scratch,
    store: &Store,
    seal: &Seal,
    reviews: &[Review],
) -> Result<(), StoreError> {
    let sets = reviews.iter().map(|review| vec![review.coupon_id.into()]).collect();
    let found = store.query_each("SELECT salt, text FROM reviews WHERE coupon_id = $1", sets).await?;
    let mut kept = Vec::new();
    for (review, rows) in reviews.iter().zip(found) {
        let person = seal.person(review.member_id);
        let is_it = |row: &Row| {
            let salt = person.open(seal::REVIEW_SALT, row.text(0));
            let text = person.open(seal::REVIEW_TEXT, row.text(1));
            matches!((salt, text), (Ok(salt), Ok(text)) if review_hash(&salt, &text) == review.text_hash)
        };
        for row in rows.iter().filter(|row| is_it(row)) {
            let parameters = [review.coupon_id.into(), row.text(0).into(), row.text(1).into()];
            let sql = "INSERT INTO reviews (coupon_id, salt, text) VALUES ($1, $2, $3)";
            kept.push(Statement::new(sql, parameters));
        }
    }
    scratch.put(kept).await
}

/// Every shop and partner that there was by then.
async fn shops_by(store: &Store, position: i64) -> Result<Vec<i64>, StoreError> {
    // The plus: by their streams, not through the log.
    let sql = "SELECT aggregate_id FROM events
               WHERE aggregate_type = 'shop' AND sequence = 1 AND +bucket = $1 AND +position <= $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), position.into()])).await?;
    rows.iter().map(|row| id_of(row.text(0))).collect()
}

/// Every coupon that a member had ever held by then: born in his hand, or received.
async fn coupons_of(store: &Store, position: i64, member_id: i64) -> Result<Vec<i64>, AsOfError> {
    // No event names a member without his digits; whether it does is read from the event itself.
    let sql = "SELECT aggregate_id, CAST(payload AS TEXT) FROM events
               WHERE bucket = $1 AND position > $2 AND position <= $3 AND aggregate_type = 'coupon'
                 AND event_type IN ('Issued', 'Imported', 'Received') AND CAST(payload AS TEXT) LIKE $4
               ORDER BY position";
    let mut coupons = Vec::new();
    let mut after = 0;
    while after < position {
        let to = position.min(after + SLAB);
        let parameters = [BUCKET.into(), after.into(), to.into(), format!("%{member_id}%").into()];
        for row in store.query(Statement::new(sql, parameters)).await? {
            // What cannot be read here is met again, and named, when its stream is.
            let held = serde_json::from_str::<CouponEvent>(row.text(1)).map_or(true, |event| match event {
                CouponEvent::Received { member_id: receiver, .. } => receiver == member_id,
                other => other.birth().is_some_and(|issue| issue.member_id == member_id),
            });
            if held {
                coupons.push(id_of(row.text(0))?);
            }
        }
        after = to;
    }
    coupons.sort_unstable();
    coupons.dedup();
    Ok(coupons)
}

fn id_of(text: &str) -> Result<i64, StoreError> {
    text.parse().map_err(|_| StoreError::Corrupt {
        table: "events".to_owned(),
        column: "aggregate_id".to_owned(),
        what: format!("{text} is no id"),
    })
}
