//! The member's inbox: what pages ask for all the time.

use serde_json::{Value, json};

use super::super::directory::{replayed, used_meanwhile};
use super::super::{Answer, Call, Failure};
use crate::directory::Written;
use crate::ledger::ExecuteError;
use crate::messages::{self, MessageRow};
use crate::refusal::{Language, Wrong};
use crate::value::MAX_ID;

pub(super) async fn messages(mut call: Call) -> Result<Answer, Failure> {
    let only_unread = call.form.flag("unread", false);
    let slice = call.form.slice();
    call.checked()?;
    let ledger = &call.app.ledger;
    let inbox = messages::inbox(ledger.store(), ledger.seal(), call.member_id(), only_unread, slice).await?;
    let rows: Vec<Value> = inbox.messages.iter().map(|message| row(message, call.language)).collect();
    Answer::new(&json!({"unread": inbox.unread, "messages": rows}))
}

fn row(message: &MessageRow, language: Language) -> Value {
    json!({
        "id": message.id,
        "type": message.kind.number(),
        "title": message.title(language),
        "content": message.content(language),
        "create_date": message.created_at_ms / 1000,
        "is_read": i64::from(message.is_read),
        "mem_coupon_id": message.coupon_id,
        "coupon_id": message.definition_id,
        "coupon_title": message.coupon_title,
        "send_id": message.send_id,
    })
}

/// Marks a message as read, or all of them up to the newest one that there is: the answer says which that was, so that one
/// that arrives just now stays unread.
pub(super) async fn read_message(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.optional_int("id", 1, MAX_ID);
    let all = call.form.flag("all", false);
    if id.is_none() && !all {
        call.form.wrong("id", Wrong::Required);
    }
    call.checked()?;
    if let Some(answer) = replayed(&call, until).await? {
        return Ok(answer);
    }
    let (store, member_id) = (call.app.ledger.store(), call.member_id());
    let id = match id {
        Some(id) => id,
        None => messages::newest_of(store, member_id).await?,
    };
    let key = call.directory_key();
    match messages::mark_read(store, member_id, (id, all), call.now_ms(), key.as_ref()).await? {
        Written::Done => Answer::new(&until(id)),
        Written::KeyUsed => used_meanwhile(&call, until).await,
        Written::Unmet => Err(ExecuteError::Conflict.into()),
    }
}

fn until(id: i64) -> Value {
    json!({ "id": id })
}
