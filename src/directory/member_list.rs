//! Reading members: one, and the lists of them.
//!
//! Their texts are sealed, so a search by text is led by a token of how it begins, which an index serves, and what the token
//! leads to is opened and looked at. A beginning too short for a token is looked for among the members as they come, newest
//! first, which ends as soon as the page is full.

use super::members::Member;
use super::seal::{self, Person, Seal};
use crate::read_model::pages::Slice;
use crate::store::{Cell, Row, Statement, Store, StoreError};

/// How many members a search by text looks at first …
const FIRST_LOOK: i64 = 100;

/// … and at most in one read: they are opened between two reads, and others want to be served as well.
const LONGEST_LOOK: i64 = 1_000;

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

impl Search {
    fn by_text(&self) -> bool {
        [&self.phone, &self.member_card, &self.name].iter().any(|text| !text.is_empty())
    }

    /// The token that leads to the members, of the field that tells most.
    fn token(&self, seal: &Seal) -> Option<i64> {
        let of = |field, text: &String| seal.token(field, text);
        of(seal::BY_PHONE, &self.phone)
            .or_else(|| of(seal::BY_CARD, &self.member_card))
            .or_else(|| of(seal::BY_NAME, &self.name))
    }

    /// Whether a member's texts begin so. Only what is asked for is opened: most of those that are looked at do not fit.
    fn fits(&self, row: &Row, person: &Person) -> Result<bool, StoreError> {
        let begins = |beginning: &String, column: usize, place| {
            Ok::<_, StoreError>(
                beginning.is_empty() || person.open(place, row.text(column))?.starts_with(beginning),
            )
        };
        Ok(begins(&self.phone, 4, seal::PHONE)?
            && begins(&self.member_card, 5, seal::MEMBER_CARD)?
            && (begins(&self.name, 3, seal::MEMBER_NAME)? || begins(&self.name, 1, seal::NICKNAME)?))
    }
}

const TAGS: &str = "SELECT tag_id FROM member_tags WHERE member_id = $1 ORDER BY tag_id";

/// The columns of a [`Member`], and whom of them.
macro_rules! members {
    ($($more:expr),*) => {
        concat!(
            "SELECT m.member_id, m.nickname, m.headimgurl, m.member_name, m.phone, m.member_card, m.level_id, m.shop_id,
                    m.birthday, m.card_end, m.joined_at_ms, m.sex, m.adviser_id, m.erased_at_ms FROM ",
            $($more),*
        )
    };
}

fn read(row: &Row, person: &Person) -> Result<Member, StoreError> {
    Ok(Member {
        id: row.int(0),
        nickname: person.open(seal::NICKNAME, row.text(1))?,
        headimgurl: person.open(seal::HEADIMGURL, row.text(2))?,
        member_name: person.open(seal::MEMBER_NAME, row.text(3))?,
        phone: person.open(seal::PHONE, row.text(4))?,
        member_card: person.open(seal::MEMBER_CARD, row.text(5))?,
        level_id: row.int(6),
        shop_id: row.int(7),
        tag_ids: Vec::new(),
        birthday: row.int(8),
        card_end: row.int(9),
        joined_at_ms: row.int(10),
        sex: row.int(11),
        adviser_id: row.int(12),
        erased_at_ms: row.int(13),
    })
}

/// A member.
pub async fn member(store: &Store, seal: &Seal, id: i64) -> Result<Option<Member>, StoreError> {
    let rows = store.query(Statement::new(members!("members m WHERE m.member_id = $1"), [id.into()])).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let mut member = read(row, &seal.person(id))?;
    let tags = store.query(Statement::new(TAGS, [id.into()])).await?;
    member.tag_ids = tags.iter().map(|tag| tag.int(0)).collect();
    Ok(Some(member))
}

/// A list's statement: where it begins to look, and then all else that is asked, so that each takes the same parameters. The
/// name is of the table that it begins with, and newest first is a walk of that one's index.
/// A question that is not asked is a CASE, because PostgreSQL takes an OR with a parameter for one that few rows pass.
macro_rules! search {
    ($first:literal: $($more:expr),*) => {
        members!(
            $($more,)*
            " AND CASE WHEN $4 = 0 THEN TRUE ELSE m.level_id = $4 END
              AND CASE WHEN $5 = 0 THEN TRUE ELSE m.shop_id = $5 END
              ORDER BY ", $first, ".member_id DESC LIMIT $2 OFFSET $3"
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

/// A part of the members that fit a search in everything but its texts, newest id first.
async fn candidates(
    store: &Store,
    search: &Search,
    token: Option<i64>,
    slice: Slice,
) -> Result<Vec<Row>, StoreError> {
    // CROSS JOIN: SQLite reads the token's or the tag's members first, and only theirs.
    let sql = if token.is_some() {
        search!(
            "k": "member_tokens k CROSS JOIN members m
             WHERE m.member_id = k.member_id AND k.token = $7 AND k.member_id < $1",
            tagged!()
        )
    } else if search.tag_id != 0 {
        search!(
            "t": "member_tags t CROSS JOIN members m
             WHERE m.member_id = t.member_id AND t.tag_id = $6 AND t.member_id < $1"
        )
    } else if search.level_id != 0 {
        search!("m": "members m WHERE m.level_id = $4 AND m.member_id < $1", tagged!())
    } else if search.shop_id != 0 {
        search!("m": "members m WHERE m.shop_id = $5 AND m.member_id < $1", tagged!())
    } else {
        search!("m": "members m WHERE m.member_id < $1", tagged!())
    };
    let mut parameters = slice.parameters().to_vec();
    parameters.extend([search.level_id, search.shop_id, search.tag_id].map(Cell::from));
    parameters.extend(token.map(Cell::from));
    store.query(Statement::new(sql, parameters)).await
}

/// Members, newest id first.
pub async fn members(
    store: &Store,
    seal: &Seal,
    search: &Search,
    slice: Slice,
) -> Result<Vec<Member>, StoreError> {
    let mut found = if search.by_text() {
        search_by_text(store, seal, search, slice).await?
    } else {
        let rows = candidates(store, search, None, slice).await?;
        rows.iter().map(|row| read(row, &seal.person(row.int(0)))).collect::<Result<_, _>>()?
    };
    put_tags(store, &mut found).await?;
    Ok(found)
}

/// Members behind an id, in the order of their ids, whoever they are.
pub async fn members_behind(
    store: &Store,
    seal: &Seal,
    behind: i64,
    limit: i64,
) -> Result<Vec<Member>, StoreError> {
    let sql = members!("members m WHERE m.member_id > $1 ORDER BY m.member_id LIMIT $2");
    let rows = store.query(Statement::new(sql, [behind.into(), limit.into()])).await?;
    let mut found: Vec<Member> =
        rows.iter().map(|row| read(row, &seal.person(row.int(0)))).collect::<Result<_, _>>()?;
    put_tags(store, &mut found).await?;
    Ok(found)
}

async fn put_tags(store: &Store, members: &mut [Member]) -> Result<(), StoreError> {
    let ids = members.iter().map(|member| vec![Cell::from(member.id)]).collect::<Vec<_>>();
    if !ids.is_empty() {
        for (member, tags) in members.iter_mut().zip(store.query_each(TAGS, ids).await?) {
            member.tag_ids = tags.iter().map(|tag| tag.int(0)).collect();
        }
    }
    Ok(())
}

async fn search_by_text(
    store: &Store,
    seal: &Seal,
    search: &Search,
    slice: Slice,
) -> Result<Vec<Member>, StoreError> {
    let token = search.token(seal);
    let (mut before, mut skip, limit) = match slice {
        Slice::All => (i64::MAX, 0, i64::MAX),
        Slice::Page { page, limit } => (i64::MAX, (page - 1).saturating_mul(limit), limit),
        Slice::Before { id, limit } => (id, 0, limit),
    };
    let mut found = Vec::new();
    let mut look = FIRST_LOOK;
    loop {
        let piece = Slice::Before { id: before, limit: look };
        let rows = candidates(store, search, token, piece).await?;
        for row in &rows {
            before = row.int(0);
            let person = seal.person(before);
            if !search.fits(row, &person)? {
                continue;
            }
            if skip > 0 {
                skip -= 1;
                continue;
            }
            found.push(read(row, &person)?);
            if found.len() as i64 >= limit {
                return Ok(found);
            }
        }
        if (rows.len() as i64) < look {
            return Ok(found);
        }
        look = LONGEST_LOOK;
    }
}
