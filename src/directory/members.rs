//! Members: personal data lives here only, so that it can be erased.

use std::collections::HashSet;

use super::keys::{DirectoryKey, Written, write};
use super::{level_reached_statement, next_behind, set};
use crate::facts::Membership;
use crate::read_model::pages::Slice;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError, raise_ids};

/// How often an edit is tried again because the member's level moved under it.
const MAX_TRIES: usize = 4;

/// A member as the directory has him.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// His id.
    pub id: i64,
    /// The name he shows.
    pub nickname: String,
    /// His picture.
    pub headimgurl: String,
    /// His real name.
    pub member_name: String,
    /// His telephone number.
    pub phone: String,
    /// The number of his card.
    pub member_card: String,
    /// His level, 0 = none.
    pub level_id: i64,
    /// His shop, 0 = none.
    pub shop_id: i64,
    /// His tags, in order.
    pub tag_ids: Vec<i64>,
    /// 19900229, 0 = unknown.
    pub birthday: i64,
    /// The last day of his card, 20261231; 0 = none.
    pub card_end: i64,
    /// When he was added, Unix milliseconds.
    pub joined_at_ms: i64,
    /// 0 unknown, 1 male, 2 female.
    pub sex: i64,
    /// The employee who looks after him, 0 = none.
    pub adviser_id: i64,
    /// When his personal data was erased, Unix milliseconds; 0 = it is here.
    pub erased_at_ms: i64,
}

/// What is to change of a member; what is None stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberEdit {
    /// See [`Member::nickname`].
    pub nickname: Option<String>,
    /// See [`Member::headimgurl`].
    pub headimgurl: Option<String>,
    /// See [`Member::member_name`].
    pub member_name: Option<String>,
    /// See [`Member::phone`].
    pub phone: Option<String>,
    /// See [`Member::member_card`].
    pub member_card: Option<String>,
    /// See [`Member::level_id`].
    pub level_id: Option<i64>,
    /// See [`Member::shop_id`].
    pub shop_id: Option<i64>,
    /// All that he is to have from now on.
    pub tag_ids: Option<Vec<i64>>,
    /// See [`Member::birthday`].
    pub birthday: Option<i64>,
    /// See [`Member::card_end`].
    pub card_end: Option<i64>,
    /// See [`Member::sex`].
    pub sex: Option<i64>,
    /// See [`Member::adviser_id`].
    pub adviser_id: Option<i64>,
}

/// What became of an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Edited {
    /// It is written.
    Done,
    /// There is no such member.
    NoSuchMember,
    /// His personal data was erased: none may come back.
    Erased,
    /// The idempotency key was used meanwhile.
    KeyUsed,
    /// His level moved again and again.
    Conflict,
}

/// Whom a list of members is to show; what is 0 or empty asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// How the telephone number begins.
    pub phone: String,
    /// How the number of the card begins.
    pub member_card: String,
    /// How the name or the nickname begins.
    pub name: String,
    /// His level.
    pub level_id: i64,
    /// His shop.
    pub shop_id: i64,
    /// One of his tags.
    pub tag_id: i64,
}

const MEMBERSHIP: &str = "SELECT level_id, card_end FROM members WHERE member_id = $1";
const TAGS: &str = "SELECT tag_id FROM member_tags WHERE member_id = $1 ORDER BY tag_id";

fn read_membership(rows: &[Row]) -> Option<Membership> {
    rows.first().map(|row| Membership {
        level_id: row.int(0),
        card_end: crate::clock::parse_day(&crate::clock::day_text(row.int(1))),
    })
}

/// What issuing needs to know of a member.
pub async fn membership(store: &Store, member_id: i64) -> Result<Option<Membership>, StoreError> {
    let rows = store.query(Statement::new(MEMBERSHIP, [member_id.into()])).await?;
    Ok(read_membership(&rows))
}

/// The same of many members in one read.
pub async fn memberships(store: &Store, ids: &[i64]) -> Result<Vec<Option<Membership>>, StoreError> {
    let parameters = ids.iter().map(|id| vec![Cell::from(*id)]).collect();
    let found = store.query_each(MEMBERSHIP, parameters).await?;
    Ok(found.iter().map(|rows| read_membership(rows)).collect())
}

/// The columns of a [`Member`], and whom of them.
macro_rules! members {
    ($($more:expr),*) => {
        concat!(
            "SELECT m.member_id, m.nickname, m.headimgurl, m.member_name, m.phone, m.member_card, m.level_id, m.shop_id,
                    m.birthday, m.card_end, m.joined_at_ms, m.sex, m.adviser_id, m.erased_at_ms FROM members m WHERE ",
            $($more),*
        )
    };
}

fn read(row: &Row, tags: &[Row]) -> Member {
    Member {
        id: row.int(0),
        nickname: row.text(1).to_owned(),
        headimgurl: row.text(2).to_owned(),
        member_name: row.text(3).to_owned(),
        phone: row.text(4).to_owned(),
        member_card: row.text(5).to_owned(),
        level_id: row.int(6),
        shop_id: row.int(7),
        tag_ids: tags.iter().map(|tag| tag.int(0)).collect(),
        birthday: row.int(8),
        card_end: row.int(9),
        joined_at_ms: row.int(10),
        sex: row.int(11),
        adviser_id: row.int(12),
        erased_at_ms: row.int(13),
    }
}

/// A member.
pub async fn member(store: &Store, id: i64) -> Result<Option<Member>, StoreError> {
    let rows = store.query(Statement::new(members!("m.member_id = $1"), [id.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let tags = store.query(Statement::new(TAGS, [id.into()])).await?;
    Ok(Some(read(row, &tags)))
}

/// A list's statement: where it begins to look, and then all else that is asked, so that each takes the same parameters.
/// A question that is not asked is a CASE, because PostgreSQL takes an OR with a parameter for one that few rows pass.
macro_rules! search {
    ($($first:expr),*) => {
        members!(
            $($first,)*
            " AND CASE WHEN $4 = 0 THEN TRUE ELSE m.level_id = $4 END
              AND CASE WHEN $5 = 0 THEN TRUE ELSE m.shop_id = $5 END
              AND CASE WHEN $7 = '' THEN TRUE ELSE m.phone >= $7 AND m.phone < $8 END
              AND CASE WHEN $9 = '' THEN TRUE ELSE m.member_card >= $9 AND m.member_card < $10 END
              AND CASE WHEN $11 = '' THEN TRUE ELSE (m.member_name >= $11 AND m.member_name < $12)
                                                 OR (m.nickname >= $11 AND m.nickname < $12) END
              ORDER BY m.member_id DESC LIMIT $2 OFFSET $3"
        )
    };
}

/// The tag, where a list does not begin with it.
macro_rules! tagged {
    () => {
        " AND CASE WHEN $6 = 0 THEN TRUE ELSE
            EXISTS (SELECT 1 FROM member_tags t WHERE t.member_id = m.member_id AND t.tag_id = $6) END"
    };
}

/// Members, newest id first. What is searched for is how a text begins, which an index serves; a beginning so short that
/// many share it is looked for among the members as they come, newest first, which ends as soon as the page is full.
pub async fn members(store: &Store, search: &Search, slice: Slice) -> Result<Vec<Member>, StoreError> {
    let long = |text: &str, enough: usize| text.chars().count() >= enough;
    // Behind a text, + 0 keeps the planner from reading the index of ids as well.
    let sql = if long(&search.phone, 4) {
        search!("m.phone >= $7 AND m.phone < $8 AND m.member_id + 0 < $1", tagged!())
    } else if long(&search.member_card, 4) {
        search!("m.member_card >= $9 AND m.member_card < $10 AND m.member_id + 0 < $1", tagged!())
    } else if long(&search.name, 2) {
        search!(
            "m.member_id IN (SELECT n.member_id FROM members n WHERE n.member_name >= $11 AND n.member_name < $12
                             UNION SELECT n.member_id FROM members n WHERE n.nickname >= $11 AND n.nickname < $12)
             AND m.member_id < $1",
            tagged!()
        )
    } else if search.tag_id != 0 {
        search!(
            "m.member_id IN (SELECT t.member_id FROM member_tags t WHERE t.tag_id = $6 AND t.member_id < $1)"
        )
    } else if search.level_id != 0 {
        search!("m.level_id = $4 AND m.member_id < $1", tagged!())
    } else if search.shop_id != 0 {
        search!("m.shop_id = $5 AND m.member_id < $1", tagged!())
    } else {
        search!("m.member_id < $1", tagged!())
    };
    let mut parameters = slice.parameters().to_vec();
    parameters.extend([search.level_id, search.shop_id, search.tag_id].map(Cell::from));
    for text in [&search.phone, &search.member_card, &search.name] {
        // Behind every text that begins so: no character is larger.
        parameters.extend([text.as_str().into(), format!("{text}\u{10ffff}").into()]);
    }
    let rows = store.query(Statement::new(sql, parameters)).await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let ids = rows.iter().map(|row| vec![Cell::from(row.int(0))]).collect();
    let tags = store.query_each(TAGS, ids).await?;
    Ok(rows.iter().zip(&tags).map(|(row, tags)| read(row, tags)).collect())
}

fn tag_member(member_id: i64, tag_id: i64) -> Statement {
    let sql = "INSERT INTO member_tags (member_id, tag_id) VALUES ($1, $2) ON CONFLICT (member_id, tag_id) DO NOTHING";
    Statement::new(sql, [member_id.into(), tag_id.into()])
}

/// The statements that add a member: the first returns a row unless the id is taken.
fn addition(member: &Member) -> Vec<Statement> {
    let id = member.id;
    let add = Statement::new(
        "INSERT INTO members (member_id, nickname, headimgurl, member_name, phone, member_card, level_id, shop_id,
                              birthday, card_end, joined_at_ms, sex, adviser_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (member_id) DO NOTHING RETURNING member_id",
        [
            id.into(),
            member.nickname.as_str().into(),
            member.headimgurl.as_str().into(),
            member.member_name.as_str().into(),
            member.phone.as_str().into(),
            member.member_card.as_str().into(),
            member.level_id.into(),
            member.shop_id.into(),
            member.birthday.into(),
            member.card_end.into(),
            member.joined_at_ms.into(),
            member.sex.into(),
            member.adviser_id.into(),
        ],
    );
    let mut statements = vec![add.must_return()];
    statements.extend(member.tag_ids.iter().map(|tag_id| tag_member(id, *tag_id)));
    statements
}

/// Adds a member; unmet where his id is taken. Where he has a level, he has reached it.
pub async fn add_member(
    store: &Store,
    member: &Member,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let id = member.id;
    let mut statements = addition(member);
    statements.push(raise_ids("member", next_behind(id)));
    if member.level_id != 0 {
        statements.push(level_reached_statement(id, member.level_id, member.joined_at_ms));
    }
    write(store, id, key, statements).await
}

/// Which of these members there are.
pub async fn known_members(store: &Store, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
    let found = memberships(store, ids).await?;
    Ok(ids.iter().zip(found).filter(|(_, member)| member.is_some()).map(|(id, _)| *id).collect())
}

/// Lets the ids of members go on behind one that is to be given by hand.
pub async fn claim_member_ids(store: &Store, highest: i64) -> Result<(), StoreError> {
    store.write(vec![raise_ids("member", next_behind(highest))]).await?;
    Ok(())
}

/// Adds members all or none, under a key that remembers a number of the caller's; unmet where an id is taken. That they
/// have a level already grants them nothing: they have not reached it here.
pub async fn add_members(
    store: &Store,
    members: &[Member],
    key: &DirectoryKey,
    remembered: i64,
) -> Result<Written, StoreError> {
    write(store, remembered, Some(key), members.iter().flat_map(addition).collect()).await
}

/// Changes a member. Where his level becomes another one, that he has reached it is written in the same transaction.
pub async fn edit_member(
    store: &Store,
    id: i64,
    edit: &MemberEdit,
    now_ms: i64,
    key: Option<&DirectoryKey>,
) -> Result<Edited, StoreError> {
    for _ in 0..MAX_TRIES {
        let sql = "SELECT level_id, erased_at_ms FROM members WHERE member_id = $1";
        let rows = store.query(Statement::new(sql, [id.into()])).await?;
        let Some(row) = rows.first() else { return Ok(Edited::NoSuchMember) };
        if row.int(1) != 0 {
            return Ok(Edited::Erased);
        }
        let from = row.int(0);
        let to = edit.level_id.unwrap_or(from);
        // Locks his row: what follows meets nobody else's change of him.
        let level = if edit.level_id.is_some() {
            let sql = "UPDATE members SET level_id = $3
                       WHERE member_id = $1 AND level_id = $2 AND erased_at_ms = 0 RETURNING member_id";
            Statement::new(sql, [id.into(), from.into(), to.into()])
        } else {
            let sql = "UPDATE members SET level_id = level_id
                       WHERE member_id = $1 AND erased_at_ms = 0 RETURNING member_id";
            Statement::new(sql, [id.into()])
        };
        let mut statements = vec![level.must_return()];
        statements.extend(changes(id, edit));
        if to != from && to != 0 {
            statements.push(level_reached_statement(id, to, now_ms));
        }
        match write(store, id, key, statements).await? {
            Written::Done => return Ok(Edited::Done),
            Written::KeyUsed => return Ok(Edited::KeyUsed),
            Written::Unmet => {}
        }
    }
    Ok(Edited::Conflict)
}

/// What an edit writes beside the level.
fn changes(id: i64, edit: &MemberEdit) -> Vec<Statement> {
    let columns = [
        set("UPDATE members SET nickname = $2 WHERE member_id = $1", id, edit.nickname.as_deref()),
        set("UPDATE members SET headimgurl = $2 WHERE member_id = $1", id, edit.headimgurl.as_deref()),
        set("UPDATE members SET member_name = $2 WHERE member_id = $1", id, edit.member_name.as_deref()),
        set("UPDATE members SET phone = $2 WHERE member_id = $1", id, edit.phone.as_deref()),
        set("UPDATE members SET member_card = $2 WHERE member_id = $1", id, edit.member_card.as_deref()),
        set("UPDATE members SET shop_id = $2 WHERE member_id = $1", id, edit.shop_id),
        set("UPDATE members SET birthday = $2 WHERE member_id = $1", id, edit.birthday),
        set("UPDATE members SET card_end = $2 WHERE member_id = $1", id, edit.card_end),
        set("UPDATE members SET sex = $2 WHERE member_id = $1", id, edit.sex),
        set("UPDATE members SET adviser_id = $2 WHERE member_id = $1", id, edit.adviser_id),
    ];
    let mut statements: Vec<Statement> = columns.into_iter().flatten().collect();
    if let Some(tag_ids) = &edit.tag_ids {
        statements.push(Statement::new("DELETE FROM member_tags WHERE member_id = $1", [id.into()]));
        statements.extend(tag_ids.iter().map(|tag_id| tag_member(id, *tag_id)));
    }
    statements
}

/// That a member's personal data was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Whose.
    pub member_id: i64,
    /// The caller.
    pub by: String,
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Why.
    pub reason: String,
}

/// Erases a member's personal data and the texts of his reviews; his row with id, level, shop and card stays, so that what
/// the ledger says of him is said of someone. Unmet where there is no such member. The first erasure is the one on
/// record; another takes away what has come since.
pub async fn erase_member(
    store: &Store,
    erasure: &Erasure,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let id = erasure.member_id;
    let data =
        "UPDATE members SET nickname = '', headimgurl = '', member_name = '', phone = '', member_card = '',
                       birthday = 0, sex = 0,
                       erased_at_ms = CASE WHEN erased_at_ms = 0 THEN $2 ELSE erased_at_ms END
                WHERE member_id = $1 RETURNING member_id";
    // A score stands in the reviewer's row only.
    let reviews = "DELETE FROM reviews WHERE coupon_id IN
                     (SELECT w.coupon_id FROM wallet_v1 w WHERE w.bucket = $1 AND w.member_id = $2 AND w.score > 0)";
    let record = "INSERT INTO erasures (member_id, erased_by, at_ms, reason) VALUES ($1, $2, $3, $4)
                  ON CONFLICT (member_id) DO NOTHING";
    let statements = vec![
        Statement::new(data, [id.into(), erasure.at_ms.into()]).must_return(),
        Statement::new("DELETE FROM member_tags WHERE member_id = $1", [id.into()]),
        Statement::new(reviews, [BUCKET.into(), id.into()]),
        Statement::new(
            record,
            [id.into(), erasure.by.as_str().into(), erasure.at_ms.into(), erasure.reason.as_str().into()],
        ),
    ];
    write(store, id, key, statements).await
}

/// Who erased a member's personal data, when and why.
pub async fn erasure(store: &Store, member_id: i64) -> Result<Option<Erasure>, StoreError> {
    let sql = "SELECT member_id, erased_by, at_ms, reason FROM erasures WHERE member_id = $1";
    let rows = store.query(Statement::new(sql, [member_id.into()])).await?;
    Ok(rows.first().map(|row| Erasure {
        member_id: row.int(0),
        by: row.text(1).to_owned(),
        at_ms: row.int(2),
        reason: row.text(3).to_owned(),
    }))
}
