//! Members: personal data lives here only, so that it can be erased. Their texts are written sealed, and with them the
//! tokens by which they are searched.

use std::collections::{BTreeSet, HashSet};

use super::keys::{DirectoryKey, Written, write};
use super::seal::{self, Person, Place, Seal};
use super::{level_reached_statement, next_behind, set};
use crate::facts::Membership;
use crate::store::{Cell, Row, Statement, Store, StoreError, raise_ids};

/// How often a change of a member is tried again because another one came between.
const MAX_TRIES: usize = 16;

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

const MEMBERSHIP: &str = "SELECT level_id, card_end FROM members WHERE member_id = $1";

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

fn tag_member(member_id: i64, tag_id: i64) -> Statement {
    let sql = "INSERT INTO member_tags (member_id, tag_id) VALUES ($1, $2) ON CONFLICT (member_id, tag_id) DO NOTHING";
    Statement::new(sql, [member_id.into(), tag_id.into()])
}

/// The texts of a member, open or as they are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Texts([String; 5]);

/// Which column each of them is.
const PLACES: [Place; 5] =
    [seal::NICKNAME, seal::HEADIMGURL, seal::MEMBER_NAME, seal::PHONE, seal::MEMBER_CARD];

/// How a member's row reads its texts, and how a change makes sure that they still are what it has read: a sealed text
/// never comes a second time.
macro_rules! texts {
    () => {
        "nickname, headimgurl, member_name, phone, member_card"
    };
    (unchanged) => {
        "nickname = $3 AND headimgurl = $4 AND member_name = $5 AND phone = $6 AND member_card = $7"
    };
}
pub(super) use texts;

impl Texts {
    fn of(member: &Member) -> Self {
        let Member { nickname, headimgurl, member_name, phone, member_card, .. } = member.clone();
        Self([nickname, headimgurl, member_name, phone, member_card])
    }

    /// From a row that has them from this column on.
    pub(super) fn read(row: &Row, column: usize) -> Self {
        Self(std::array::from_fn(|number| row.text(column + number).to_owned()))
    }

    pub(super) fn seal(&self, person: &Person) -> Self {
        let mut places = PLACES.into_iter();
        Self(
            self.0
                .each_ref()
                .map(|text| places.next().map_or_else(String::new, |place| person.seal(place, text))),
        )
    }

    pub(super) fn open(&self, person: &Person) -> Result<Self, StoreError> {
        let mut open = Self::default();
        for ((place, stored), text) in PLACES.into_iter().zip(&self.0).zip(&mut open.0) {
            *text = person.open(place, stored)?;
        }
        Ok(open)
    }

    pub(super) fn is_plain(&self) -> bool {
        self.0.iter().any(|text| seal::is_plain(text))
    }

    pub(super) fn tokens(&self, seal: &Seal) -> BTreeSet<i64> {
        let [nickname, _, member_name, phone, member_card] = &self.0;
        seal.tokens(&[
            (seal::BY_PHONE, phone),
            (seal::BY_CARD, member_card),
            (seal::BY_NAME, member_name),
            (seal::BY_NAME, nickname),
        ])
    }

    pub(super) fn cells(self) -> impl Iterator<Item = Cell> {
        self.0.into_iter().map(Cell::from)
    }
}

/// A statement for all of a member's tokens takes so many; where he has fewer, the last stands for the rest.
fn all_tokens(sql: &'static str, member_id: i64, tokens: &BTreeSet<i64>) -> Option<Statement> {
    let last = *tokens.last()?;
    let all = tokens.iter().copied().chain(std::iter::repeat(last)).take(seal::MAX_TOKENS);
    Some(Statement::new(sql, std::iter::once(member_id).chain(all).map(Cell::from)))
}

pub(super) fn add_tokens(member_id: i64, tokens: &BTreeSet<i64>) -> Option<Statement> {
    all_tokens(
        "INSERT INTO member_tokens (member_id, token)
         VALUES ($1, $2), ($1, $3), ($1, $4), ($1, $5), ($1, $6), ($1, $7), ($1, $8), ($1, $9), ($1, $10)
         ON CONFLICT (token, member_id) DO NOTHING",
        member_id,
        tokens,
    )
}

pub(super) fn remove_tokens(member_id: i64, tokens: &BTreeSet<i64>) -> Option<Statement> {
    all_tokens(
        "DELETE FROM member_tokens WHERE member_id = $1 AND token IN ($2, $3, $4, $5, $6, $7, $8, $9, $10)",
        member_id,
        tokens,
    )
}

/// The statements that add a member: the first returns a row unless the id is taken.
pub(super) fn addition(member: &Member, seal: &Seal) -> Vec<Statement> {
    let id = member.id;
    let texts = Texts::of(member);
    let mut cells = vec![Cell::from(id)];
    cells.extend(texts.seal(&seal.person(id)).cells());
    let Member { level_id, shop_id, birthday, card_end, joined_at_ms, sex, adviser_id, .. } = *member;
    cells.extend([level_id, shop_id, birthday, card_end, joined_at_ms, sex, adviser_id].map(Cell::from));
    let add = Statement::new(
        concat!(
            "INSERT INTO members (member_id, ",
            texts!(),
            ", level_id, shop_id, birthday, card_end, joined_at_ms, sex, adviser_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (member_id) DO NOTHING RETURNING member_id"
        ),
        cells,
    );
    let mut statements = vec![add.must_return()];
    statements.extend(add_tokens(id, &texts.tokens(seal)));
    statements.extend(member.tag_ids.iter().map(|tag_id| tag_member(id, *tag_id)));
    statements
}

/// Adds a member; unmet where his id is taken. Where he has a level, he has reached it.
pub async fn add_member(
    store: &Store,
    seal: &Seal,
    member: &Member,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let id = member.id;
    // An id whose key was destroyed is never given again: nothing could be written under it.
    if seal.person(id).is_erased() {
        return Ok(Written::Unmet);
    }
    let mut statements = addition(member, seal);
    statements.push(raise_ids("member", next_behind(id)));
    if member.level_id != 0 {
        statements.push(level_reached_statement(id, member.level_id, member.joined_at_ms));
    }
    write(store, id, key, statements).await
}

/// Which of these ids are taken: by a member who is here, or by one whose key was destroyed.
pub async fn known_members(store: &Store, seal: &Seal, ids: &[i64]) -> Result<HashSet<i64>, StoreError> {
    let found = memberships(store, ids).await?;
    let taken =
        ids.iter().zip(found).filter(|(id, member)| member.is_some() || seal.person(**id).is_erased());
    Ok(taken.map(|(id, _)| *id).collect())
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
    seal: &Seal,
    members: &[Member],
    key: &DirectoryKey,
    remembered: i64,
) -> Result<Written, StoreError> {
    // An id that was erased since the backup from which this ledger was restored is given to nobody.
    if members.iter().any(|member| seal.person(member.id).is_erased()) {
        return Ok(Written::Unmet);
    }
    write(store, remembered, Some(key), members.iter().flat_map(|member| addition(member, seal)).collect())
        .await
}

/// Changes a member. Where his level becomes another one, that he has reached it is written in the same transaction.
pub async fn edit_member(
    store: &Store,
    seal: &Seal,
    id: i64,
    edit: &MemberEdit,
    now_ms: i64,
    key: Option<&DirectoryKey>,
) -> Result<Edited, StoreError> {
    let person = seal.person(id);
    for _ in 0..MAX_TRIES {
        let sql = concat!("SELECT level_id, erased_at_ms, ", texts!(), " FROM members WHERE member_id = $1");
        let rows = store.query(Statement::new(sql, [id.into()])).await?;
        let Some(row) = rows.first() else { return Ok(Edited::NoSuchMember) };
        if row.int(1) != 0 || person.is_erased() {
            return Ok(Edited::Erased);
        }
        let from = row.int(0);
        let to = edit.level_id.unwrap_or(from);
        let stored = Texts::read(row, 2);
        let mut statements = lock(id, edit, (from, to), &stored);
        statements.extend(change_texts(id, edit, (seal, &person), &stored)?);
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

/// Locks a member's row, so that what follows meets nobody else's change of him, and demands of it what the edit rests on.
fn lock(id: i64, edit: &MemberEdit, (from, to): (i64, i64), stored: &Texts) -> Vec<Statement> {
    let mut statements = vec![if edit.level_id.is_some() {
        let sql = "UPDATE members SET level_id = $3
                   WHERE member_id = $1 AND level_id = $2 AND erased_at_ms = 0 RETURNING member_id";
        Statement::new(sql, [id.into(), from.into(), to.into()])
    } else {
        let sql = "UPDATE members SET level_id = level_id
                   WHERE member_id = $1 AND erased_at_ms = 0 RETURNING member_id";
        Statement::new(sql, [id.into()])
    }];
    if edit.changes_texts() {
        statements.push(still(id, 0, stored));
    }
    statements.into_iter().map(Statement::must_return).collect()
}

/// A member's row, locked, where it has these texts still and was erased then.
pub(super) fn still(id: i64, erased_at_ms: i64, stored: &Texts) -> Statement {
    let sql = concat!(
        "UPDATE members SET level_id = level_id WHERE member_id = $1 AND erased_at_ms = $2 AND ",
        texts!(unchanged),
        " RETURNING member_id"
    );
    let mut cells = vec![Cell::from(id), erased_at_ms.into()];
    cells.extend(stored.clone().cells());
    Statement::new(sql, cells).must_return()
}

impl MemberEdit {
    /// Each text that is to change, in the order of [`PLACES`].
    fn texts(&self) -> [Option<&String>; 5] {
        [&self.nickname, &self.headimgurl, &self.member_name, &self.phone, &self.member_card]
            .map(Option::as_ref)
    }

    fn changes_texts(&self) -> bool {
        self.texts().iter().any(Option::is_some)
    }
}

/// The texts that an edit changes, sealed, and the tokens that come and go with them.
fn change_texts(
    id: i64,
    edit: &MemberEdit,
    (seal, person): (&Seal, &Person),
    stored: &Texts,
) -> Result<Vec<Statement>, StoreError> {
    if !edit.changes_texts() {
        return Ok(Vec::new());
    }
    let before = stored.open(person)?;
    let (mut after, mut sealed) = (before.clone(), stored.clone());
    let changed = edit.texts().into_iter().zip(PLACES).zip(after.0.iter_mut().zip(&mut sealed.0));
    for ((new, place), (text, stored)) in changed {
        if let Some(new) = new {
            text.clone_from(new);
            *stored = person.seal(place, new);
        }
    }
    let (old, new) = (before.tokens(seal), after.tokens(seal));
    let mut statements = vec![set_texts(id, sealed)];
    statements.extend(remove_tokens(id, &(&old - &new)));
    statements.extend(add_tokens(id, &(&new - &old)));
    Ok(statements)
}

pub(super) fn set_texts(id: i64, sealed: Texts) -> Statement {
    let sql =
        "UPDATE members SET nickname = $2, headimgurl = $3, member_name = $4, phone = $5, member_card = $6
               WHERE member_id = $1";
    Statement::new(sql, std::iter::once(Cell::from(id)).chain(sealed.cells()))
}

/// What else an edit writes.
fn changes(id: i64, edit: &MemberEdit) -> Vec<Statement> {
    let columns = [
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
