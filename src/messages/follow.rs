//! The follower of the log: what of it members are told.
//!
//! A pure fold: which messages an event makes follows from the log alone, from its own stream and from its send's, never from
//! what a table says today. The checkpoint moves in the transaction that writes the rows. An event of a coupon that cannot be
//! read, and a position that is missing, are errors, and nothing is written then.

use std::collections::HashMap;

use cqrs_es::Aggregate as _;

use super::{KEEP_READ_MS, MessageKind, NewMessage, Reason, writing};
use crate::coupon::{Coupon, CouponEvent, Issue, Source};
use crate::entity::{CorruptEvent, decode, fold, id_of, stream_of};
use crate::followers::{self, MESSAGES, events_after, moved};
use crate::job::{Job, Work};
use crate::ledger::Ledger;
use crate::store::{Statement, Store, StoreError, StoredEvent};

/// Events of one read: as many as a transaction may tell of, about …
const PAGE: i64 = 400;

/// … and reads of one transaction where nobody is told anything.
const PAGES: usize = 10;

/// Why the inbox is not up to date.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event that cannot be read; it is not skipped.
    #[error(transparent)]
    Corrupt(#[from] Box<CorruptEvent>),
}

/// What one transaction has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Followed {
    /// How many events it looked at.
    pub events: usize,
    /// How many reasons to tell somebody something it found.
    pub messages: usize,
    /// Whether there may be more at once.
    pub more: bool,
}

/// Looks at some of what was appended since, and writes what follows for members, in one transaction. Nothing while it is
/// paused.
pub async fn follow(ledger: &Ledger, is_handed_over: bool) -> Result<Followed, MessageError> {
    follow_by(ledger, is_handed_over, PAGE).await
}

/// The same with so many events of a read: how the log is cut makes no difference to what is told.
pub async fn follow_by(ledger: &Ledger, is_handed_over: bool, page: i64) -> Result<Followed, MessageError> {
    let store = ledger.store();
    if followers::is_paused(ledger, &MESSAGES).await? {
        return Ok(Followed { events: 0, messages: 0, more: false });
    }
    let from = followers::checkpoint(store, &MESSAGES).await?;
    let tells_after = tells_after(store).await?;
    let oldest_ms = ledger.clock().now_ms() - KEEP_READ_MS;
    let mut followed = Followed { events: 0, messages: 0, more: true };
    let mut to = from;
    let mut messages = Vec::new();
    for _ in 0..PAGES {
        let events = events_after(store, to, page).await?;
        let tells = |event: &&StoredEvent| event.position > tells_after && event.recorded_at_ms >= oldest_ms;
        messages.extend(messages_of(store, events.iter().filter(tells)).await?);
        followed.events += events.len();
        to += events.len() as i64;
        followed.more = events.len() as i64 == page;
        if !followed.more || messages.len() as i64 >= page {
            break;
        }
    }
    if to == from {
        return Ok(followed);
    }
    followed.messages = messages.len();
    let statements: Vec<Statement> = std::iter::once(moved(&MESSAGES, from, to).must_return())
        .chain(writing(&messages, is_handed_over))
        .collect();
    // Where the checkpoint is no longer where it was, another server was faster, or the follower was told to begin anew.
    let answers = store.write(statements).await?;
    if answers.first().is_none_or(Vec::is_empty) {
        return Ok(Followed { events: 0, messages: 0, more: true });
    }
    Ok(followed)
}

/// The position behind which members are told: what a ledger held before there were messages it keeps to itself.
async fn tells_after(store: &Store) -> Result<i64, StoreError> {
    let sql = "SELECT value FROM ledger_facts WHERE name = 'messages_after'";
    let rows = store.query(Statement::new(sql, [])).await?;
    Ok(rows.first().and_then(|row| row.text(0).parse().ok()).unwrap_or(0))
}

/// What these events are a reason to tell, in their order.
async fn messages_of(
    store: &Store,
    events: impl Iterator<Item = &StoredEvent>,
) -> Result<Vec<NewMessage>, MessageError> {
    let mut happened = Vec::new();
    for event in events.filter(|event| event.aggregate_type == Coupon::TYPE) {
        happened.push((id_of(event.as_ref())?, event.recorded_at_ms, decode::<Coupon>(event)?));
    }
    let mut sends = Sends::default();
    let givers = Givers::of_lapsed(store, &happened).await?;
    let mut messages = Vec::new();
    for (coupon_id, at_ms, event) in happened {
        let told = match event {
            CouponEvent::Issued(issue) => sends.reason(store, coupon_id, &issue).await?.map(|why| (why, 0)),
            CouponEvent::Received { gift, giver_id, member_id, .. } => {
                let kind = MessageKind::GiftReceived;
                let reason = Reason { member_id: giver_id, kind, subject_id: coupon_id, part: gift.into() };
                Some((reason, member_id))
            }
            CouponEvent::GiftLapsed { gift, .. } => givers.of(coupon_id, gift).map(|member_id| {
                let kind = MessageKind::GiftLapsed;
                (Reason { member_id, kind, subject_id: coupon_id, part: gift.into() }, 0)
            }),
            _ => None,
        };
        messages.extend(told.map(|(reason, other_id)| NewMessage { reason, coupon_id, other_id, at_ms }));
    }
    Ok(messages)
}

/// Which mass sends tell whom they reach: each is asked once.
#[derive(Default)]
struct Sends(HashMap<i64, bool>);

impl Sends {
    /// Why the member is told of a coupon that he was issued. Who claims one, buys one or is handed one at the counter is
    /// there and sees it; what comes by itself he would not know of.
    async fn reason(
        &mut self,
        store: &Store,
        coupon_id: i64,
        issue: &Issue,
    ) -> Result<Option<Reason>, MessageError> {
        let (kind, subject_id) = match issue.source {
            Source::MassSend if self.notifies(store, issue.source_id).await? => {
                (MessageKind::Sent, issue.source_id)
            }
            Source::Birthday => (MessageKind::Birthday, coupon_id),
            Source::MemberLevel => (MessageKind::Level, coupon_id),
            _ => return Ok(None),
        };
        Ok(Some(Reason { member_id: issue.member_id, kind, subject_id, part: 0 }))
    }

    async fn notifies(&mut self, store: &Store, send_id: i64) -> Result<bool, MessageError> {
        if let Some(known) = self.0.get(&send_id) {
            return Ok(*known);
        }
        let (send, _) = fold::<Job>(&store.load_one(stream_of::<Job>(send_id)).await?)?;
        let notifies = matches!(send.work, Some(Work::Send { notify: true, .. }));
        self.0.insert(send_id, notifies);
        Ok(notifies)
    }
}

/// Who gave what has lapsed: the event of the lapse does not say, its stream does.
struct Givers(HashMap<(i64, u32), i64>);

impl Givers {
    async fn of_lapsed(store: &Store, happened: &[(i64, i64, CouponEvent)]) -> Result<Self, MessageError> {
        let mut coupons: Vec<i64> = happened
            .iter()
            .filter(|(.., event)| matches!(event, CouponEvent::GiftLapsed { .. }))
            .map(|(coupon_id, ..)| *coupon_id)
            .collect();
        coupons.sort_unstable();
        coupons.dedup();
        let streams: Vec<_> = coupons.iter().map(|id| stream_of::<Coupon>(*id)).collect();
        let mut givers = HashMap::new();
        for (coupon_id, stream) in coupons.into_iter().zip(store.load(&streams).await?) {
            for event in &stream {
                if let CouponEvent::Given { gift, member_id, .. } = decode::<Coupon>(event)? {
                    givers.insert((coupon_id, gift), member_id);
                }
            }
        }
        Ok(Self(givers))
    }

    fn of(&self, coupon_id: i64, gift: u32) -> Option<i64> {
        self.0.get(&(coupon_id, gift)).copied()
    }
}
