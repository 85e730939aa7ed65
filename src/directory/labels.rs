//! Member levels (會員等級) and tags (標簽): names for ids that members bear. Members, definitions and sends may bear ids
//! that have no name here; they are shown by their number.

use std::collections::HashMap;

use super::keys::{DirectoryKey, Written, write};
use super::{next_behind, set};
use crate::read_model::pages::Slice;
use crate::store::{Cell, Row, Statement, Store, StoreError, raise_ids};

/// How many members lose a deleted tag in one transaction: a popular one must not hold up the writer.
const TAG_CHUNK: i64 = 500;

/// A member level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its picture.
    pub url: String,
    /// For the merchant.
    pub remark: String,
}

/// What is to change of a level; what is None stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LevelEdit {
    /// See [`Level::name`].
    pub name: Option<String>,
    /// See [`Level::url`].
    pub url: Option<String>,
    /// See [`Level::remark`].
    pub remark: Option<String>,
}

/// A tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// Its id.
    pub id: i64,
    /// Its name.
    pub name: String,
    /// Its colour, as the console writes it.
    pub color: String,
}

/// What is to change of a tag; what is None stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagEdit {
    /// See [`Tag::name`].
    pub name: Option<String>,
    /// See [`Tag::color`].
    pub color: Option<String>,
}

fn read_level(row: &Row) -> Level {
    Level {
        id: row.int(0),
        name: row.text(1).to_owned(),
        url: row.text(2).to_owned(),
        remark: row.text(3).to_owned(),
    }
}

fn read_tag(row: &Row) -> Tag {
    Tag { id: row.int(0), name: row.text(1).to_owned(), color: row.text(2).to_owned() }
}

const LEVEL: &str = "SELECT level_id, name, url, remark FROM member_levels WHERE level_id = $1";
const TAG: &str = "SELECT tag_id, tag_name, color FROM tags WHERE tag_id = $1";

/// A level.
pub async fn level(store: &Store, id: i64) -> Result<Option<Level>, StoreError> {
    let rows = store.query(Statement::new(LEVEL, [id.into()])).await?;
    Ok(rows.first().map(read_level))
}

/// Levels, newest id first.
pub async fn levels(store: &Store, slice: Slice) -> Result<Vec<Level>, StoreError> {
    let sql = "SELECT level_id, name, url, remark FROM member_levels
               WHERE level_id < $1 ORDER BY level_id DESC LIMIT $2 OFFSET $3";
    let rows = store.query(Statement::new(sql, slice.parameters())).await?;
    Ok(rows.iter().map(read_level).collect())
}

/// Tags, newest id first.
pub async fn tags(store: &Store, slice: Slice) -> Result<Vec<Tag>, StoreError> {
    let sql = "SELECT tag_id, tag_name, color FROM tags
               WHERE tag_id < $1 ORDER BY tag_id DESC LIMIT $2 OFFSET $3";
    let rows = store.query(Statement::new(sql, slice.parameters())).await?;
    Ok(rows.iter().map(read_tag).collect())
}

/// The rows of one statement for each of these ids, each id asked once.
async fn rows_by_id(store: &Store, sql: &'static str, ids: &[i64]) -> Result<Vec<Row>, StoreError> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let parameters = ids.into_iter().map(|id| vec![Cell::from(id)]).collect();
    Ok(store.query_each(sql, parameters).await?.into_iter().flatten().collect())
}

/// Those of these levels that have a name.
pub async fn levels_by_id(store: &Store, ids: &[i64]) -> Result<HashMap<i64, Level>, StoreError> {
    let rows = rows_by_id(store, LEVEL, ids).await?;
    Ok(rows.iter().map(read_level).map(|level| (level.id, level)).collect())
}

/// Those of these tags that have a name.
pub async fn tags_by_id(store: &Store, ids: &[i64]) -> Result<HashMap<i64, Tag>, StoreError> {
    let rows = rows_by_id(store, TAG, ids).await?;
    Ok(rows.iter().map(read_tag).map(|tag| (tag.id, tag)).collect())
}

/// Adds a level; unmet where its id is taken.
pub async fn add_level(
    store: &Store,
    level: &Level,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let add = Statement::new(
        "INSERT INTO member_levels (level_id, name, url, remark) VALUES ($1, $2, $3, $4)
         ON CONFLICT (level_id) DO NOTHING RETURNING level_id",
        [
            level.id.into(),
            level.name.as_str().into(),
            level.url.as_str().into(),
            level.remark.as_str().into(),
        ],
    );
    write(store, level.id, key, vec![add.must_return(), raise_ids("member_level", next_behind(level.id))])
        .await
}

/// Changes a level; unmet where there is none.
pub async fn edit_level(
    store: &Store,
    id: i64,
    edit: &LevelEdit,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let lock = "UPDATE member_levels SET name = name WHERE level_id = $1 RETURNING level_id";
    let changes = [
        set("UPDATE member_levels SET name = $2 WHERE level_id = $1", id, edit.name.as_deref()),
        set("UPDATE member_levels SET url = $2 WHERE level_id = $1", id, edit.url.as_deref()),
        set("UPDATE member_levels SET remark = $2 WHERE level_id = $1", id, edit.remark.as_deref()),
    ];
    let mut statements = vec![Statement::new(lock, [id.into()]).must_return()];
    statements.extend(changes.into_iter().flatten());
    write(store, id, key, statements).await
}

/// Deletes a level; unmet where there is none, or members have it. A member who is given it at this very moment keeps an
/// id without a name, which is no worse than one that never had a name.
pub async fn delete_level(store: &Store, id: i64, key: Option<&DirectoryKey>) -> Result<Written, StoreError> {
    let sql = "DELETE FROM member_levels WHERE level_id = $1
                 AND NOT EXISTS (SELECT 1 FROM members m WHERE m.level_id = $1) RETURNING level_id";
    write(store, id, key, vec![Statement::new(sql, [id.into()]).must_return()]).await
}

/// Adds a tag; unmet where its id is taken.
pub async fn add_tag(store: &Store, tag: &Tag, key: Option<&DirectoryKey>) -> Result<Written, StoreError> {
    let add = Statement::new(
        "INSERT INTO tags (tag_id, tag_name, color) VALUES ($1, $2, $3)
         ON CONFLICT (tag_id) DO NOTHING RETURNING tag_id",
        [tag.id.into(), tag.name.as_str().into(), tag.color.as_str().into()],
    );
    write(store, tag.id, key, vec![add.must_return(), raise_ids("tag", next_behind(tag.id))]).await
}

/// Changes a tag; unmet where there is none.
pub async fn edit_tag(
    store: &Store,
    id: i64,
    edit: &TagEdit,
    key: Option<&DirectoryKey>,
) -> Result<Written, StoreError> {
    let lock = "UPDATE tags SET tag_name = tag_name WHERE tag_id = $1 RETURNING tag_id";
    let changes = [
        set("UPDATE tags SET tag_name = $2 WHERE tag_id = $1", id, edit.name.as_deref()),
        set("UPDATE tags SET color = $2 WHERE tag_id = $1", id, edit.color.as_deref()),
    ];
    let mut statements = vec![Statement::new(lock, [id.into()]).must_return()];
    statements.extend(changes.into_iter().flatten());
    write(store, id, key, statements).await
}

/// Deletes a tag and takes it from its members; unmet where there is none. The members' go first, in chunks: cut short,
/// the tag is still there, and deleting it again goes on.
pub async fn delete_tag(store: &Store, id: i64, key: Option<&DirectoryKey>) -> Result<Written, StoreError> {
    let mut more = !rows_by_id(store, TAG, &[id]).await?.is_empty();
    while more {
        let some = "DELETE FROM member_tags WHERE tag_id = $1 AND member_id IN
                      (SELECT t.member_id FROM member_tags t WHERE t.tag_id = $1 ORDER BY t.member_id LIMIT $2)
                    RETURNING member_id";
        let taken = store.write(vec![Statement::new(some, [id.into(), TAG_CHUNK.into()])]).await?;
        more = taken.first().is_some_and(|members| !members.is_empty());
    }
    let tag = Statement::new("DELETE FROM tags WHERE tag_id = $1 RETURNING tag_id", [id.into()]);
    let last = Statement::new("DELETE FROM member_tags WHERE tag_id = $1", [id.into()]);
    write(store, id, key, vec![tag.must_return(), last]).await
}
