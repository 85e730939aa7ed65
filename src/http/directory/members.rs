//! Members.

use serde_json::{Value, json};

use super::{add_and_answer, id_of, replayed, used_meanwhile};
use crate::clock::{day_number, day_text};
use crate::directory::{self, Edited, Member, MemberEdit, Search};
use crate::erasure;
use crate::http::form::Form;
use crate::http::{Answer, Call, Failure};
use crate::ledger::ExecuteError;
use crate::member::MemberCommand;
use crate::read_model::pages;
use crate::reading::Person;
use crate::refusal::{Refusal, Wrong};
use crate::value::{MAX_ID, list_text};

/// The most tags that a member has: all are written in one transaction.
const MAX_TAGS: usize = 500;

/// Reads what `/member/add` and `/member/edit` have in common.
fn read_member(form: &mut Form) -> MemberEdit {
    let edit = MemberEdit {
        nickname: form.optional_text("nickname", 100),
        headimgurl: form.optional_text("headimgurl", 500),
        member_name: form.optional_text("member_name", 100),
        phone: form.optional_text("phone", 30),
        member_card: form.optional_text("member_card", 50),
        level_id: form.optional_int("level_id", 0, MAX_ID),
        shop_id: form.optional_int("shop_id", 0, MAX_ID),
        tag_ids: form.sent_ints("tag_ids", MAX_ID),
        birthday: form.sent_day("birthday"),
        card_end: form.sent_day("card_end"),
        sex: form.optional_int("sex", 0, 2),
        adviser_id: form.optional_int("user_id", 0, MAX_ID),
    };
    if edit.tag_ids.as_ref().is_some_and(|ids| ids.len() > MAX_TAGS) {
        form.wrong("tag_ids", Wrong::TooMany { max: MAX_TAGS });
    }
    edit
}

pub(super) async fn add(mut call: Call) -> Result<Answer, Failure> {
    let wanted_id = call.form.optional_int("id", 1, MAX_ID);
    let given = read_member(&mut call.form);
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let member = Member {
        id: 0,
        nickname: given.nickname.unwrap_or_default(),
        headimgurl: given.headimgurl.unwrap_or_default(),
        member_name: given.member_name.unwrap_or_default(),
        phone: given.phone.unwrap_or_default(),
        member_card: given.member_card.unwrap_or_default(),
        level_id: given.level_id.unwrap_or_default(),
        shop_id: given.shop_id.unwrap_or_default(),
        tag_ids: given.tag_ids.unwrap_or_default(),
        birthday: given.birthday.unwrap_or_default(),
        card_end: given.card_end.unwrap_or_default(),
        joined_at_ms: call.now_ms(),
        sex: given.sex.unwrap_or_default(),
        adviser_id: given.adviser_id.unwrap_or_default(),
        erased_at_ms: 0,
    };
    let (ledger, key) = (call.app.ledger.clone(), call.directory_key());
    add_and_answer(&call, wanted_id, "member", |id| {
        let (ledger, key, member) = (ledger.clone(), key.clone(), Member { id, ..member.clone() });
        async move { directory::add_member(ledger.store(), ledger.seal(), &member, key.as_ref()).await }
    })
    .await
}

pub(super) async fn edit(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let id = form.id("id");
    let mut edit = read_member(form);
    // The manual calls it so here.
    if let Some(level) = form.optional_int("level", 0, MAX_ID) {
        if edit.level_id.is_some() {
            form.wrong("level", Wrong::NotTogetherWith("level_id"));
        }
        edit.level_id = Some(level);
    }
    call.checked()?;
    if let Some(answer) = replayed(&call, id_of).await? {
        return Ok(answer);
    }
    let (ledger, key) = (&call.app.ledger, call.directory_key());
    match directory::edit_member(ledger.store(), ledger.seal(), id, &edit, call.now_ms(), key.as_ref())
        .await?
    {
        Edited::Done => Answer::new(&id_of(id)),
        Edited::NoSuchMember => Err(Refusal::NoSuchMember.into()),
        Edited::Erased => Err(Refusal::field("id", Wrong::Erased).into()),
        Edited::KeyUsed => used_meanwhile(&call, id_of).await,
        Edited::Conflict => Err(ExecuteError::Conflict.into()),
    }
}

/// Whole years on a day, both as [`day_number`] has them; who was born on 29 February is a year older on 1 March.
fn age(birthday: i64, today: i64) -> i64 {
    if birthday == 0 { 0 } else { ((today - birthday) / 10_000).max(0) }
}

/// Those of them of whom anything personal is left.
fn whole(members: &[Member]) -> impl Iterator<Item = Person> + '_ {
    members.iter().filter(|member| member.erased_at_ms == 0).map(|member| Person::Member(member.id))
}

/// Members with the keys of the manual's `/member/get` that can be known here, then ours.
async fn members_json(call: &Call, members: &[Member]) -> Result<Vec<Value>, Failure> {
    let ledger = &call.app.ledger;
    let level_ids: Vec<i64> = members.iter().map(|member| member.level_id).collect();
    let tag_ids: Vec<i64> = members.iter().flat_map(|member| member.tag_ids.clone()).collect();
    let levels = directory::levels_by_id(ledger.store(), &level_ids).await?;
    let tags = directory::tags_by_id(ledger.store(), &tag_ids).await?;
    let today = day_number(call.meta.at.day);
    let each = |member: &Member| {
        let level = levels.get(&member.level_id);
        let member_tags = member.tag_ids.iter().map(|id| {
            let tag = tags.get(id).cloned().unwrap_or_default();
            json!({"id": id, "tag_name": tag.name, "color": tag.color})
        });
        json!({
            "id": member.id,
            "phone": member.phone,
            "member_name": member.member_name,
            "member_card": member.member_card,
            "join_date": ledger.zone().date_time(member.joined_at_ms),
            "user_id": member.adviser_id,
            "sex": member.sex,
            "birthday": day_text(member.birthday),
            "age": age(member.birthday, today),
            "state": i64::from(member.erased_at_ms == 0),
            "level": {
                "id": member.level_id,
                "name": level.map_or("", |level| level.name.as_str()),
                "url": level.map_or("", |level| level.url.as_str()),
            },
            "shop_id": member.shop_id,
            "tag_ids": list_text(&member.tag_ids),
            "card_end": day_text(member.card_end),
            "wechat_user": {"nickname": member.nickname, "headimgurl": member.headimgurl},
            "members_tags": member_tags.collect::<Vec<_>>(),
        })
    };
    Ok(members.iter().map(each).collect())
}

pub(super) async fn get(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    call.checked()?;
    let member = directory::member(call.app.ledger.store(), call.app.ledger.seal(), id)
        .await?
        .ok_or(Refusal::NoSuchMember)?;
    let members = [member];
    let answer = Answer::new(&members_json(&call, &members).await?.first())?;
    Ok(answer.showing(whole(&members)))
}

pub(super) async fn info(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("member_id");
    call.checked()?;
    let store = call.app.ledger.store();
    let member = directory::member(store, call.app.ledger.seal(), id).await?.ok_or(Refusal::NoSuchMember)?;
    let tags = directory::tags_by_id(store, &member.tag_ids).await?;
    let [unused, used, expired] = pages::wallet_counts(store, id, call.now_ms()).await?;
    let my_tags = member.tag_ids.iter().map(|tag_id| {
        let tag = tags.get(tag_id).cloned().unwrap_or_default();
        let (tag_name, color) = (tag.name, tag.color);
        json!({"id": tag_id, "tag": tag_id, "member_id": id, "tag_name": tag_name, "color_detail": color})
    });
    let my_tags: Vec<Value> = my_tags.collect();
    let members = [member];
    let answer = Answer::new(&json!({
        "info": members_json(&call, &members).await?.first(),
        "myTags": my_tags,
        "coupons": {"unused": unused, "used": used, "expired": expired},
    }))?;
    Ok(answer.showing(whole(&members)))
}

pub(super) async fn list(mut call: Call) -> Result<Answer, Failure> {
    let form = &mut call.form;
    let slice = form.slice();
    let search = Search {
        phone: form.optional_text("phone", 30).unwrap_or_default(),
        member_card: form.optional_text("member_card", 50).unwrap_or_default(),
        name: form.optional_text("name", 100).unwrap_or_default(),
        level_id: form.optional_int("level_id", 0, MAX_ID).unwrap_or_default(),
        shop_id: form.optional_int("shop_id", 0, MAX_ID).unwrap_or_default(),
        tag_id: form.optional_int("tag_id", 0, MAX_ID).unwrap_or_default(),
    };
    call.checked()?;
    let ledger = &call.app.ledger;
    let members = directory::members(ledger.store(), ledger.seal(), &search, slice).await?;
    Ok(Answer::new(&members_json(&call, &members).await?)?.showing(whole(&members)))
}

pub(super) async fn erase(mut call: Call) -> Result<Answer, Failure> {
    let id = call.form.id("id");
    let reason = call.form.text("reason", 200);
    call.checked()?;
    let command = MemberCommand::Erase { member_id: id, reason, employee_id: call.caller.employee_id() };
    let done = erasure::erase(&call.app.ledger, id, &command, &call.meta).await?;
    // The first one, whoever asks again.
    let erased = done.state.erased.clone().unwrap_or_default();
    Answer::of(&done, &json!({"id": done.id, "create_date": erased.at_ms / 1000, "reason": erased.reason}))
}

#[cfg(test)]
mod tests {
    use super::age;

    #[test]
    fn years_are_counted_on_the_birthday() {
        let ages = |birthday, days: [i64; 3]| days.map(|today| age(birthday, today));
        assert_eq!(ages(19_900_229, [20_260_228, 20_260_301, 20_280_229]), [35, 36, 38]);
        assert_eq!(ages(19_991_231, [20_261_230, 20_261_231, 19_990_101]), [26, 27, 0]);
        assert_eq!(age(0, 20_261_123), 0);
    }
}
