//! Messages to members: what the ledger tells them by itself, in their inbox and through a webhook of the merchant's.
//!
//! A follower of the log ([`follow`]) and one of the calendar ([`remind`]) write rows, each member and reason once: the
//! reason is the row's key, so whatever is killed, repeated, reset or done by two servers at once, a member is told once.
//! Rows hold kinds and ids; texts are made when they are read ([`Language`](crate::refusal::Language)). What was read, and
//! what was handed over, stands in the row alone: it is no event, because it is neither about money nor about a coupon.
//! A message must never keep anybody who writes to the ledger, and what the webhook does must never keep the inbox.

mod follow;
mod hand_over;
mod inbox;
mod remind;
mod run;
mod words;

pub use follow::{Followed, MessageError, follow, follow_by};
pub use hand_over::{Handed, MessageWebhook, WebhookError, hand_over};
pub use inbox::{Inbox, MessageRow, inbox, mark_read, newest_of};
pub use remind::remind;
pub use run::{MessageOptions, run_messages};

use crate::store::{BUCKET, Cell, Statement, Store, StoreError};

/// How long what was read is kept. What is older than this when the log is read tells nobody anything any more, so that a
/// follower that begins anew does not bring back what has gone.
pub const KEEP_READ_MS: i64 = 90 * 86_400_000;

/// How long what was not read is kept.
pub const KEEP_UNREAD_MS: i64 = 365 * 86_400_000;

/// Messages of one statement that forgets.
const FORGET_AT_A_TIME: i64 = 500;

/// What a member is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A mass send with `is_all_send` has brought him a coupon.
    Sent,
    /// Somebody has received what he gave.
    GiftReceived,
    /// Nobody has, in time: it is back with him.
    GiftLapsed,
    /// A coupon of his ends soon.
    Expiring,
    /// His birthday has brought him a coupon.
    Birthday,
    /// The level that he has reached has.
    Level,
}

impl MessageKind {
    /// Every one.
    pub const ALL: [Self; 6] =
        [Self::Sent, Self::GiftReceived, Self::GiftLapsed, Self::Expiring, Self::Birthday, Self::Level];

    /// Its number, in the table and on the wire.
    #[must_use]
    pub fn number(self) -> i64 {
        match self {
            Self::Sent => 1,
            Self::GiftReceived => 2,
            Self::GiftLapsed => 3,
            Self::Expiring => 4,
            Self::Birthday => 5,
            Self::Level => 6,
        }
    }

    /// Its name for programs, in the webhook's body.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::GiftReceived => "gift_received",
            Self::GiftLapsed => "gift_lapsed",
            Self::Expiring => "expiring",
            Self::Birthday => "birthday",
            Self::Level => "level",
        }
    }

    fn numbered(number: i64) -> Result<Self, StoreError> {
        let kind = Self::ALL.into_iter().find(|kind| kind.number() == number);
        kind.ok_or_else(|| StoreError::Corrupt {
            table: "messages".to_owned(),
            column: "kind".to_owned(),
            what: format!("{number} is none"),
        })
    }
}

/// Why a member is told something: he is told it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reason {
    member_id: i64,
    kind: MessageKind,
    /// The mass send, or the coupon.
    subject_id: i64,
    /// The gift's number, or the end date.
    part: i64,
}

impl Reason {
    /// As parameters of a statement, behind the bucket.
    fn cells(self) -> [Cell; 5] {
        [BUCKET, self.member_id, self.kind.number(), self.subject_id, self.part].map(Cell::from)
    }
}

/// A message on its way into the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NewMessage {
    reason: Reason,
    coupon_id: i64,
    /// Who received it, where somebody did.
    other_id: i64,
    at_ms: i64,
}

/// What writes these messages in one transaction. A reason that is there already, and whoever was erased, is passed over.
/// Nothing for no messages.
fn writing(messages: &[NewMessage], is_handed_over: bool) -> Vec<Statement> {
    // The row of the ids is locked until the commit: ids are in the order of commits, so that a page that goes on behind an id
    // leaves nothing out.
    let reserve = "INSERT INTO id_blocks (bucket, kind, next_id) VALUES ($1, 'message', 1 + $2)
                   ON CONFLICT (bucket, kind) DO UPDATE SET next_id = id_blocks.next_id + $2";
    let insert =
        "INSERT INTO messages (bucket, member_id, kind, subject_id, part, message_id, coupon_id, other_id,
                               created_at_ms, read_at_ms, next_try_at_ms, tries, handed_at_ms)
         SELECT $1, $2, $3, $4, $5, b.next_id - $6, $7, $8, $9, 0, $10, 0, 0 FROM id_blocks b
         WHERE b.bucket = $1 AND b.kind = 'message'
           AND NOT EXISTS (SELECT 1 FROM members m WHERE m.member_id = $2 AND m.erased_at_ms > 0)
         ON CONFLICT (bucket, member_id, kind, subject_id, part) DO NOTHING";
    let count = messages.len() as i64;
    let mut statements = Vec::with_capacity(messages.len() + 1);
    if count > 0 {
        statements.push(Statement::new(reserve, [BUCKET.into(), count.into()]));
    }
    for (place, message) in (0..).zip(messages) {
        let next_try_at_ms = if is_handed_over { message.at_ms.max(1) } else { 0 };
        let rest = [count - place, message.coupon_id, message.other_id, message.at_ms, next_try_at_ms];
        let cells = message.reason.cells().into_iter().chain(rest.map(Cell::from));
        statements.push(Statement::new(insert, cells));
    }
    statements
}

/// Forgets what was read long ago, what was not read in a year, and whatever is left of whom was erased; returns how many
/// messages that were, and whether there may be more.
pub async fn forget(store: &Store, now_ms: i64) -> Result<(usize, bool), StoreError> {
    let old = |is_read: bool, before_ms: i64| {
        let sql = if is_read {
            "DELETE FROM messages WHERE bucket = $1 AND read_at_ms > 0 AND created_at_ms <=
               (SELECT MAX(created_at_ms) FROM (SELECT created_at_ms FROM messages
                 WHERE bucket = $1 AND read_at_ms > 0 AND created_at_ms < $2
                 ORDER BY bucket, created_at_ms LIMIT $3) AS old)
             RETURNING message_id"
        } else {
            "DELETE FROM messages WHERE bucket = $1 AND read_at_ms = 0 AND created_at_ms <=
               (SELECT MAX(created_at_ms) FROM (SELECT created_at_ms FROM messages
                 WHERE bucket = $1 AND read_at_ms = 0 AND created_at_ms < $2
                 ORDER BY bucket, created_at_ms LIMIT $3) AS old)
             RETURNING message_id"
        };
        Statement::new(sql, [BUCKET, before_ms, FORGET_AT_A_TIME].map(Cell::from))
    };
    // They go with his row (`clear_member`); one that was being written just then goes here.
    let of_erased =
        "DELETE FROM messages WHERE bucket = $1 AND member_id IN
           (SELECT CAST(e.aggregate_id AS BIGINT) FROM events e
             WHERE e.bucket = $1 AND e.position > 0 AND e.aggregate_type = 'member' AND e.event_type = 'Erased')
         RETURNING message_id";
    let statements = vec![
        old(true, now_ms - KEEP_READ_MS),
        old(false, now_ms - KEEP_UNREAD_MS),
        Statement::new(of_erased, [BUCKET.into()]),
    ];
    let gone = store.write(statements).await?;
    let more = gone.iter().take(2).any(|rows| rows.len() as i64 >= FORGET_AT_A_TIME);
    Ok((gone.iter().map(Vec::len).sum(), more))
}
