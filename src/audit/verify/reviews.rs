//! Texts of reviews: each is the one whose salted hash its event has, and each is there until its author is erased.

use super::tables::cut;
use super::{Finding, Piece, Totals, VerifyError, Worker};
use crate::coupon::{Coupon, CouponEvent};
use crate::directory::seal::{self, Person};
use crate::entity::{decode, fold, stream_of};
use crate::member::Member;
use crate::secrets::review_hash;
use crate::store::{Row, Statement, Store, StoreError, StoredEvent, StreamId};

const REVIEWS: &str = "reviews";

pub(super) async fn pieces(store: &Store) -> Result<Vec<Piece>, StoreError> {
    let sql =
        "SELECT coupon_id FROM reviews WHERE $1 = 0 AND coupon_id >= $2 ORDER BY coupon_id LIMIT 1 OFFSET $3";
    let pieces = cut(store, sql).await?;
    Ok(pieces.into_iter().map(|(from, until)| Piece::Reviews { from, until }).collect())
}

/// A review's text is the one whose hash its event has. That one is gone may be an erasure; that one is another may not.
/// Without the person keys no text can be read, and only that there is an event is asked.
pub(super) async fn check(worker: &Worker, from: i64, until: i64) -> Result<Totals, VerifyError> {
    let (store, seal) = (&worker.store, worker.seal.as_ref());
    let sql = "SELECT coupon_id, salt, text FROM reviews WHERE coupon_id >= $1 AND coupon_id <= $2 ORDER BY coupon_id";
    let rows = store.query(Statement::new(sql, [from.into(), until.into()])).await?;
    let streams: Vec<StreamId> = rows.iter().map(|row| stream_of::<Coupon>(row.int(0))).collect();
    let mut totals = Totals::default();
    for (row, events) in rows.iter().zip(store.load(&streams).await?) {
        let mut named = events.iter().rev().filter_map(|event| match decode::<Coupon>(event) {
            Ok(CouponEvent::Evaluated { text_hash, member_id, .. }) => {
                Some((event.position, text_hash, member_id))
            }
            _ => None,
        });
        let named = named.next();
        let is_named = named.as_ref().is_some_and(|(_, hash, member_id)| {
            seal.is_none_or(|seal| is_the_review(&seal.person(*member_id), row, hash))
        });
        if !is_named {
            let position = named.map_or(0, |(position, ..)| position);
            let what = "it is not the review whose hash the event has";
            totals.find(Finding::new(position, REVIEWS, format!("coupon_id {}", row.int(0)), what));
        }
    }
    Ok(totals)
}

/// Of whom was erased nothing can be read, and a review that came while he was may be left.
fn is_the_review(person: &Person, row: &Row, hash: &str) -> bool {
    let salt = person.open(seal::REVIEW_SALT, row.text(1));
    let text = person.open(seal::REVIEW_TEXT, row.text(2));
    person.is_erased() || matches!((salt, text), (Ok(salt), Ok(text)) if review_hash(&salt, &text) == hash)
}

/// Each text that an event tells of is there. Gone it may be with its author, whose erasure is in the log before his texts
/// go; and of events that were taken over from another ledger none came with them.
pub(super) async fn check_there(
    worker: &Worker,
    events: &[StoredEvent],
    totals: &mut Totals,
) -> Result<(), VerifyError> {
    let written = |event: &StoredEvent| match decode::<Coupon>(event) {
        Ok(CouponEvent::Evaluated { member_id, .. }) => {
            Some((event.position, event.aggregate_id.clone(), member_id))
        }
        _ => None,
    };
    let own = events.iter().filter(|event| event.position > worker.imported);
    let written: Vec<(i64, String, i64)> = own.filter_map(written).collect();
    let ids = written.iter().map(|(_, id, _)| vec![id.parse::<i64>().unwrap_or_default().into()]).collect();
    let found = worker.store.query_each("SELECT coupon_id FROM reviews WHERE coupon_id = $1", ids).await?;
    for ((position, coupon_id, member_id), rows) in written.into_iter().zip(found) {
        if rows.is_empty() && !is_erased(&worker.store, member_id).await? {
            let what = "its text is not there, and its author was not erased";
            totals.find(Finding::new(position, REVIEWS, format!("coupon_id {coupon_id}"), what));
        }
    }
    Ok(())
}

async fn is_erased(store: &Store, member_id: i64) -> Result<bool, VerifyError> {
    let events = store.load_one(stream_of::<Member>(member_id)).await?;
    Ok(fold::<Member>(&events).is_ok_and(|(member, _)| member.erased.is_some()))
}
