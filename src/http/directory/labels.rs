//! Member levels and tags.

use serde_json::{Value, json};

use super::{add_and_answer, id_of, one_row, replayed, settle};
use crate::directory::{self, Level, LevelEdit, Tag, TagEdit, Written};
use crate::http::{Answer, Call, Failure};
use crate::refusal::{Refusal, Wrong};
use crate::value::MAX_ID;

fn level_json(level: &Level) -> Value {
    json!({"id": level.id, "name": level.name, "url": level.url, "remark": level.remark})
}

pub(super) async fn level_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice();
    call.checked()?;
    let levels = directory::levels(call.app.ledger.store(), slice).await?;
    Answer::new(&levels.iter().map(level_json).collect::<Vec<_>>())
}

pub(super) async fn level_info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let level = directory::level(call.app.ledger.store(), id).await?.ok_or(Refusal::NoSuchRule)?;
    let mut answer = level_json(&level);
    if let Some(fields) = answer.as_object_mut() {
        // The rights of a level (會員等級權益) are not the ledger's.
        fields.insert("powerList".to_owned(), json!([]));
    }
    Answer::new(&answer)
}

pub(super) async fn level_add(mut call: Call) -> Result<Answer, Failure> {
    let wanted_id = call.form.optional_int("id", 1, MAX_ID);
    let level = Level {
        id: 0,
        name: call.form.text("name", 100),
        url: call.form.optional_text("url", 500).unwrap_or_default(),
        remark: call.form.text("remark", 500),
    };
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let (store, key) = (call.app.ledger.store().clone(), call.directory_key());
    add_and_answer(&call, wanted_id, "member_level", |id| {
        let (store, key, level) = (store.clone(), key.clone(), Level { id, ..level.clone() });
        async move { directory::add_level(&store, &level, key.as_ref()).await }
    })
    .await
}

pub(super) async fn level_edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let edit = LevelEdit {
        name: Some(call.form.text("name", 100)),
        url: call.form.optional_text("url", 500),
        remark: call.form.optional_text("remark", 500),
    };
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let key = call.directory_key();
    let written = directory::edit_level(call.app.ledger.store(), id, &edit, key.as_ref()).await?;
    settle(&call, written, id, id_of, Refusal::NoSuchRule).await
}

pub(super) async fn level_delete(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    if let Some(answer) = replayed(&call, one_row).await? {
        return Ok(answer);
    }
    let (store, key) = (call.app.ledger.store(), call.directory_key());
    let written = directory::delete_level(store, id, key.as_ref()).await?;
    let unmet = if written == Written::Unmet && directory::level(store, id).await?.is_some() {
        Refusal::field("id", Wrong::InUse)
    } else {
        Refusal::NoSuchRule
    };
    settle(&call, written, id, one_row, unmet).await
}

fn tag_json(tag: &Tag) -> Value {
    json!({"id": tag.id, "tag_name": tag.name, "color": tag.color})
}

pub(super) async fn tag_list(mut call: Call) -> Result<Answer, Failure> {
    let slice = call.form.slice_if_asked();
    call.checked()?;
    let tags = directory::tags(call.app.ledger.store(), slice).await?;
    Answer::new(&tags.iter().map(tag_json).collect::<Vec<_>>())
}

pub(super) async fn tag_add(mut call: Call) -> Result<Answer, Failure> {
    let wanted_id = call.form.optional_int("id", 1, MAX_ID);
    let tag = Tag {
        id: 0,
        name: call.form.text("tag_name", 50),
        color: call.form.optional_text("color", 30).unwrap_or_default(),
    };
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let (store, key) = (call.app.ledger.store().clone(), call.directory_key());
    add_and_answer(&call, wanted_id, "tag", |id| {
        let (store, key, tag) = (store.clone(), key.clone(), Tag { id, ..tag.clone() });
        async move { directory::add_tag(&store, &tag, key.as_ref()).await }
    })
    .await
}

pub(super) async fn tag_edit(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let edit =
        TagEdit { name: call.form.sent_text("tag_name", 50), color: call.form.optional_text("color", 30) };
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let key = call.directory_key();
    let written = directory::edit_tag(call.app.ledger.store(), id, &edit, key.as_ref()).await?;
    settle(&call, written, id, id_of, Refusal::NoSuchRule).await
}

pub(super) async fn tag_delete(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    if let Some(answer) = replayed(&call, one_row).await? {
        return Ok(answer);
    }
    let key = call.directory_key();
    let written = directory::delete_tag(call.app.ledger.store(), id, key.as_ref()).await?;
    settle(&call, written, id, one_row, Refusal::NoSuchRule).await
}
