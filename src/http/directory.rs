//! The directory's pages: members (會員), levels (會員等級), tags (標簽) and employees (員工).
//!
//! Every write happens once under its key: what the key did before is asked first, and again where another request used
//! it meanwhile. What is there and what is not is answered after that.

mod employees;
mod labels;
mod members;
mod wechat;

use serde_json::{Value, json};

use super::{Answer, Call, Failure};
use crate::directory::{self, Written};
use crate::ledger::ExecuteError;
use crate::refusal::{Refusal, Wrong};
use crate::store::StoreError;

pub(super) use employees::{SHOP_ORDER, USER_ORDER};

/// Which way a list is sorted: `normal` is its own order, newest id first.
pub(super) const DIRECTIONS: &[&str] = &["normal", "asc", "desc"];

/// Every call of these pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// `/member/add`
    MemberAdd,
    /// `/member/edit`
    MemberEdit,
    /// `/member/get`
    MemberGet,
    /// `/member/info`
    MemberInfo,
    /// `/member/list`
    MemberList,
    /// `/member/erase`
    MemberErase,
    /// `/member/unbindwechat`
    WechatUnbind,
    /// `/wechat/openid`
    WechatOpenids,
    /// `/memberlevel/getlist`
    LevelList,
    /// `/memberlevel/info`
    LevelInfo,
    /// `/memberlevel/add`
    LevelAdd,
    /// `/memberlevel/edit`
    LevelEdit,
    /// `/memberlevel/del`
    LevelDelete,
    /// `/tag/getlist`
    TagList,
    /// `/tag/add`
    TagAdd,
    /// `/tag/edit`
    TagEdit,
    /// `/tag/del`
    TagDelete,
    /// `/user/add`
    EmployeeAdd,
    /// `/user/edit`
    EmployeeEdit,
    /// `/user/info`
    EmployeeInfo,
    /// `/user/list`
    EmployeeList,
    /// `/user/getlist`
    EmployeesByShop,
    /// `/user/shoplist`
    ShopList,
}

pub(super) async fn run(which: Directory, call: Call) -> Result<Answer, Failure> {
    match which {
        Directory::MemberAdd => members::add(call).await,
        Directory::MemberEdit => members::edit(call).await,
        Directory::MemberGet => members::get(call).await,
        Directory::MemberInfo => members::info(call).await,
        Directory::MemberList => members::list(call).await,
        Directory::MemberErase => members::erase(call).await,
        Directory::WechatUnbind => wechat::unbind(call).await,
        Directory::WechatOpenids => wechat::openids(call).await,
        Directory::LevelList => labels::level_list(call).await,
        Directory::LevelInfo => labels::level_info(call).await,
        Directory::LevelAdd => labels::level_add(call).await,
        Directory::LevelEdit => labels::level_edit(call).await,
        Directory::LevelDelete => labels::level_delete(call).await,
        Directory::TagList => labels::tag_list(call).await,
        Directory::TagAdd => labels::tag_add(call).await,
        Directory::TagEdit => labels::tag_edit(call).await,
        Directory::TagDelete => labels::tag_delete(call).await,
        Directory::EmployeeAdd => employees::add(call).await,
        Directory::EmployeeEdit => employees::edit(call).await,
        Directory::EmployeeInfo => employees::info(call).await,
        Directory::EmployeeList => employees::list(call).await,
        Directory::EmployeesByShop => employees::by_shop(call).await,
        Directory::ShopList => employees::shop_list(call).await,
    }
}

/// What this key did to the directory before: the id it was about.
pub(super) async fn replayed_id(call: &Call) -> Result<Option<i64>, Failure> {
    let Some(key) = call.directory_key() else {
        return Ok(None);
    };
    match directory::receipt(call.app.ledger.store(), &key).await? {
        None => Ok(None),
        Some((request_mac, id)) if request_mac == key.request_mac => Ok(Some(id)),
        Some(_) => Err(Refusal::KeyReused.into()),
    }
}

/// How a write is answered, from the id it was about.
pub(super) type Render = fn(i64) -> Value;

fn id_of(id: i64) -> Value {
    json!({ "id": id })
}

/// What the manual's deletions answer.
fn one_row(_: i64) -> Value {
    json!(1)
}

/// The answer that this key had before.
pub(super) async fn replayed(call: &Call, render: Render) -> Result<Option<Answer>, Failure> {
    match replayed_id(call).await? {
        Some(id) => Ok(Some(Answer::new(&render(id))?.replayed(true))),
        None => Ok(None),
    }
}

/// The answer of who used the same key at the same time.
pub(super) async fn used_meanwhile(call: &Call, render: Render) -> Result<Answer, Failure> {
    Ok(replayed(call, render).await?.ok_or(ExecuteError::Conflict)?)
}

/// Answers a change of what has this id.
async fn settle(
    call: &Call,
    written: Written,
    id: i64,
    render: Render,
    unmet: Refusal,
) -> Result<Answer, Failure> {
    match written {
        Written::Done => Answer::new(&render(id)),
        Written::Unmet => Err(unmet.into()),
        Written::KeyUsed => used_meanwhile(call, render).await,
    }
}

/// Adds under the id asked for, or under the next one that is free: that id, and whether this key had done so.
async fn add_under_id<F: Future<Output = Result<Written, StoreError>>>(
    call: &Call,
    wanted_id: Option<i64>,
    kind: &'static str,
    add: impl Fn(i64) -> F,
) -> Result<(i64, bool), Failure> {
    loop {
        let id = match wanted_id {
            Some(id) => id,
            None => call.app.ledger.next_id(kind, true).await?,
        };
        match add(id).await? {
            Written::Done => return Ok((id, false)),
            Written::Unmet if wanted_id.is_none() => {}
            Written::Unmet => return Err(Refusal::field("id", Wrong::Taken).into()),
            Written::KeyUsed => {
                return Ok((replayed_id(call).await?.ok_or(ExecuteError::Conflict)?, true));
            }
        }
    }
}

/// The same, answered with the id.
async fn add_and_answer<F: Future<Output = Result<Written, StoreError>>>(
    call: &Call,
    wanted_id: Option<i64>,
    kind: &'static str,
    add: impl Fn(i64) -> F,
) -> Result<Answer, Failure> {
    let (id, replayed) = add_under_id(call, wanted_id, kind, add).await?;
    Ok(Answer::new(&id_of(id))?.replayed(replayed))
}
