//! The inbox as its member sees it: one read a page, whatever lies there, because pages ask all the time.

use super::MessageKind;
use super::words::{self, About};
use crate::clock::day_text;
use crate::directory::seal::{self, Seal};
use crate::directory::{DirectoryKey, Written, write_once};
use crate::read_model::pages::Slice;
use crate::refusal::Language;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};

/// A part of a member's inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbox {
    /// How many of all his messages he has not read.
    pub unread: i64,
    /// The part that was asked for, newest first.
    pub messages: Vec<MessageRow>,
}

/// A message as pages show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its id.
    pub id: i64,
    /// What it tells.
    pub kind: MessageKind,
    /// The member's coupon that it is about.
    pub coupon_id: i64,
    /// That coupon's definition.
    pub definition_id: i64,
    /// That coupon's title.
    pub coupon_title: String,
    /// The mass send that it is about, 0 = none.
    pub send_id: i64,
    /// Unix milliseconds.
    pub created_at_ms: i64,
    /// Whether it was read.
    pub is_read: bool,
    /// The last day that the coupon is good.
    end_date: String,
    /// The name that whoever received it shows.
    other: String,
}

impl MessageRow {
    /// The columns are [`message_columns`]'. Without a seal nobody is named.
    pub(super) fn read(row: &Row, seal: Option<&Seal>) -> Result<Self, StoreError> {
        let kind = MessageKind::numbered(row.int(2))?;
        let (subject_id, part, other_id) = (row.int(3), row.int(4), row.int(6));
        // What he was told of an end is what was said then.
        let end_date = if kind == MessageKind::Expiring { part } else { row.int(11) };
        Ok(Self {
            id: row.int(1),
            kind,
            coupon_id: row.int(5),
            definition_id: row.int(9),
            coupon_title: row.text(10).to_owned(),
            send_id: if kind == MessageKind::Sent { subject_id } else { 0 },
            created_at_ms: row.int(7),
            is_read: row.int(8) != 0,
            end_date: day_text(end_date),
            other: match seal {
                Some(seal) => seal.open_one(seal::NICKNAME, other_id, row.text(12))?,
                None => String::new(),
            },
        })
    }

    /// Its title.
    #[must_use]
    pub fn title(&self, language: Language) -> &'static str {
        words::title(self.kind, language)
    }

    /// What it says to its member.
    #[must_use]
    pub fn content(&self, language: Language) -> String {
        let about = About { coupon: &self.coupon_title, end_date: &self.end_date, other: &self.other };
        words::content(self.kind, about, language)
    }
}

/// The columns of a [`MessageRow`] from the second on; the first is the statement's own. The giver's row of the wallet stays,
/// so a title is always there.
macro_rules! message_columns {
    () => {
        "m.message_id, m.kind, m.subject_id, m.part, m.coupon_id, m.other_id, m.created_at_ms, m.read_at_ms,
         COALESCE((SELECT w.definition_id FROM wallet_v1 w
                   WHERE w.bucket = m.bucket AND w.member_id = m.member_id AND w.coupon_id = m.coupon_id), 0),
         COALESCE((SELECT w.title FROM wallet_v1 w
                   WHERE w.bucket = m.bucket AND w.member_id = m.member_id AND w.coupon_id = m.coupon_id), ''),
         COALESCE((SELECT w.end_date FROM wallet_v1 w
                   WHERE w.bucket = m.bucket AND w.member_id = m.member_id AND w.coupon_id = m.coupon_id), 0),
         COALESCE((SELECT o.nickname FROM members o WHERE o.member_id = m.other_id), '')"
    };
}

pub(super) use message_columns;

macro_rules! unread_count {
    () => {
        " UNION ALL SELECT COUNT(*), 0, 0, 0, 0, 0, 0, 0, 0, 0, '', 0, '' FROM messages u
          WHERE u.bucket = $1 AND u.member_id = $2 AND u.read_at_ms = 0"
    };
}

/// A part of a member's inbox, newest first, and how many messages in all of it he has not read.
pub async fn inbox(
    store: &Store,
    seal: &Seal,
    member_id: i64,
    only_unread: bool,
    slice: Slice,
) -> Result<Inbox, StoreError> {
    // A row without a message, so that there is one that tells how many are unread.
    let sql = if only_unread {
        concat!(
            "SELECT * FROM (SELECT CAST(0 AS BIGINT), ",
            message_columns!(),
            " FROM messages m WHERE m.bucket = $1 AND m.member_id = $2 AND m.read_at_ms = 0 AND m.message_id < $3
              ORDER BY m.message_id DESC LIMIT $4 OFFSET $5) AS page",
            unread_count!()
        )
    } else {
        concat!(
            "SELECT * FROM (SELECT CAST(0 AS BIGINT), ",
            message_columns!(),
            " FROM messages m WHERE m.bucket = $1 AND m.member_id = $2 AND m.message_id < $3
              ORDER BY m.message_id DESC LIMIT $4 OFFSET $5) AS page",
            unread_count!()
        )
    };
    let mut parameters: Vec<Cell> = vec![BUCKET.into(), member_id.into()];
    parameters.extend(slice.parameters());
    let rows = store.query(Statement::new(sql, parameters)).await?;
    let (found, counted): (Vec<&Row>, Vec<&Row>) = rows.iter().partition(|row| row.int(1) != 0);
    let mut messages: Vec<MessageRow> =
        found.into_iter().map(|row| MessageRow::read(row, Some(seal))).collect::<Result<_, _>>()?;
    // A union promises no order.
    messages.sort_by_key(|message| std::cmp::Reverse(message.id));
    Ok(Inbox { unread: counted.first().map_or(0, |row| row.int(0)), messages })
}

/// The id of a member's newest message, 0 = he has none.
pub async fn newest_of(store: &Store, member_id: i64) -> Result<i64, StoreError> {
    let sql = "SELECT COALESCE(MAX(message_id), 0) FROM messages WHERE bucket = $1 AND member_id = $2";
    let rows = store.query(Statement::new(sql, [BUCKET.into(), member_id.into()])).await?;
    Ok(rows.first().map_or(0, |row| row.int(0)))
}

/// Marks one of a member's messages as read, or all of them up to that one. What is not there, or is another's, is nothing to
/// mark: what was read long ago has gone.
pub async fn mark_read(
    store: &Store,
    member_id: i64,
    (id, and_before): (i64, bool),
    now_ms: i64,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let sql = if and_before {
        "UPDATE messages SET read_at_ms = $4
         WHERE bucket = $1 AND member_id = $2 AND message_id <= $3 AND read_at_ms = 0"
    } else {
        "UPDATE messages SET read_at_ms = $4
         WHERE bucket = $1 AND member_id = $2 AND message_id = $3 AND read_at_ms = 0"
    };
    let mark = Statement::new(sql, [BUCKET, member_id, id, now_ms.max(1)].map(Cell::from));
    write_once(store, id, key, vec![mark]).await
}
