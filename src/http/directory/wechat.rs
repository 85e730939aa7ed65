//! A member's WeChat: who he is there, and that he is unbound from it.

use serde_json::{Value, json};

use crate::directory;
use crate::http::{Answer, Call, Failure};
use crate::member::{Member, MemberCommand};
use crate::wechat;

pub(super) async fn unbind(mut call: Call) -> Result<Answer, Failure> {
    let member_id = call.form.id("id");
    call.checked()?;
    let store = call.app.ledger.store();
    let is_bound = directory::has_wechat(store, member_id).await?;
    let employee_id = call.caller.employee_id();
    let done = call
        .execute::<Member>(member_id, &MemberCommand::UnbindWechat { member_id, is_bound, employee_id })
        .await?;
    // The event is what counts; where this is not come to, what it has made void goes when it is next met.
    directory::unbind_wechat(store, member_id, done.state.unbound).await?;
    Answer::of(&done, &json!({"id": done.id}))
}

pub(super) async fn openids(mut call: Call) -> Result<Answer, Failure> {
    call.checked()?;
    let found = wechat::openids(&call.app.ledger, call.member_id()).await?;
    let rows = found.iter().map(|(appid, openid)| json!({"appid": appid, "openid": openid}));
    Answer::new(&rows.collect::<Vec<Value>>())
}
