//! What the directory keeps: no row of it is in the log, each is as it is when it is read.

use super::From::Source as Given;
use super::{OF_SHOP, by_id, column};
use crate::directory::{self, Employee, Level, Member, NEVER, Tag};
use crate::exports::rows::{Batch, Reading};
use crate::exports::{Column, ExportError, Kind, Line, Page, Sheet, Source, Value, Words};
use crate::read_model::pages::Slice;
use crate::reading::Person;
use crate::value::list_text;

use Kind::{Day, Flag, Id, Instant, Text};

/// How many members are read at a time.
const MEMBERS_AT_A_TIME: i64 = 500;

const fn given(name: &'static str, kind: Kind, words: Words) -> Column {
    column(name, kind, Given, words)
}

pub(super) static MEMBERS: Sheet = Sheet {
    name: "members",
    words: ["會員資料", "会员资料", "Members"],
    about: "Members with their personal data. They are not in the log: each row is as it is when it is read, everybody who is \
            there all the while stands in the file once",
    whose: Some(("member_id", Person::Member)),
    columns: &[
        given("member_id", Id, ["會員ID", "会员ID", "Member ID"]),
        given("nickname", Text, ["暱稱", "昵称", "Nickname"]),
        given("member_name", Text, ["姓名", "姓名", "Name"]),
        given("phone", Text, ["手機號", "手机号", "Telephone"]),
        given("member_card", Text, ["會員卡號", "会员卡号", "Card"]),
        given("sex", Text, ["性別", "性别", "Sex"]),
        given("birthday", Day, ["生日", "生日", "Birthday"]),
        given("level_id", Id, ["等級ID", "等级ID", "Level ID"]),
        given("shop_id", Id, ["門店ID", "门店ID", "Shop ID"]),
        given("tag_ids", Text, ["標籤", "标签", "Tags"]),
        given("adviser_id", Id, ["顧問員工ID", "顾问员工ID", "Adviser ID"]),
        given("card_end", Day, ["會員卡到期日", "会员卡到期日", "Card ends"]),
        given("joined_at", Instant, ["加入時間", "加入时间", "Joined at"]),
        given("erased_at", Instant, ["資料刪除時間", "资料删除时间", "Erased at"]),
        given("headimgurl", Text, ["頭像", "头像", "Picture"]),
    ],
    keys: 1,
    filters: &[
        OF_SHOP,
        by_id("level_id", "of this level"),
        by_id("adviser_id", "looked after by this employee"),
    ],
    days: Some("joined_at"),
    source: Source::Pages(page_of_members),
};

fn page_of_members(reading: &Reading, from: String) -> Page {
    let ledger = reading.ledger.clone();
    Box::pin(async move {
        let behind = if from.is_empty() { 0 } else { from.parse().map_err(|_| not_a_cursor(&from))? };
        let members =
            directory::members_behind(ledger.store(), ledger.seal(), behind, MEMBERS_AT_A_TIME).await?;
        let last = members.last().map(|member| member.id.to_string());
        let next = last.filter(|_| members.len() as i64 == MEMBERS_AT_A_TIME);
        let seen = members.len() as i64;
        Ok(Batch { lines: members.into_iter().map(line_of_member).collect(), next, seen })
    })
}

fn not_a_cursor(text: &str) -> ExportError {
    ExportError::Damaged(format!("{text:?} is no place to go on from"))
}

fn line_of_member(member: Member) -> Line {
    let sex = match member.sex {
        1 => Value::Text("male".to_owned()),
        2 => Value::Text("female".to_owned()),
        _ => Value::Null,
    };
    vec![
        number(Id, member.id),
        Value::Text(member.nickname),
        Value::Text(member.member_name),
        Value::Text(member.phone),
        Value::Text(member.member_card),
        sex,
        number(Day, member.birthday),
        number(Id, member.level_id),
        number(Id, member.shop_id),
        Value::Text(list_text(&member.tag_ids)),
        number(Id, member.adviser_id),
        number(Day, member.card_end),
        number(Instant, member.joined_at_ms),
        number(Instant, member.erased_at_ms),
        Value::Text(member.headimgurl),
    ]
}

pub(super) static EMPLOYEES: Sheet = Sheet {
    name: "employees",
    words: ["員工", "员工", "Employees"],
    about: "Employees with their personal data, as they are now: they are not in the log",
    whose: Some(("employee_id", Person::Employee)),
    columns: &[
        given("employee_id", Id, ["員工ID", "员工ID", "Employee ID"]),
        given("name", Text, ["姓名", "姓名", "Name"]),
        given("phone", Text, ["手機號", "手机号", "Telephone"]),
        given("identity", Text, ["證件號碼", "证件号码", "Identity card"]),
        given("shop_id", Id, ["門店ID", "门店ID", "Shop ID"]),
        given("active", Flag, ["在職", "在职", "Active"]),
        given("entry_date", Day, ["入職日期", "入职日期", "First day"]),
        given("leave_date", Day, ["離職日期", "离职日期", "Last day"]),
    ],
    keys: 1,
    filters: &[OF_SHOP],
    days: None,
    source: Source::Pages(page_of_employees),
};

fn page_of_employees(reading: &Reading, _: String) -> Page {
    let ledger = reading.ledger.clone();
    Box::pin(async move { Ok(all(directory::employees(ledger.store(), 0).await?, line_of_employee)) })
}

/// All at once: they are few beside members.
fn all<T>(rows: Vec<T>, line: fn(T) -> Line) -> Batch {
    let seen = rows.len() as i64;
    Batch { lines: rows.into_iter().map(line).collect(), next: None, seen }
}

fn number(kind: Kind, number: i64) -> Value {
    Value::of(kind, &number.into())
}

fn line_of_employee(employee: Employee) -> Line {
    vec![
        number(Id, employee.id),
        Value::Text(employee.name),
        Value::Text(employee.phone),
        Value::Text(employee.identity),
        number(Id, employee.shop_id),
        Value::Int(i64::from(employee.active)),
        number(Day, employee.entry_date),
        number(Day, if employee.leave_date == NEVER { 0 } else { employee.leave_date }),
    ]
}

pub(super) static LEVELS: Sheet = Sheet {
    name: "levels",
    words: ["會員等級", "会员等级", "Levels"],
    about: "Members' levels, as they are now: they are not in the log",
    whose: None,
    columns: &[
        given("level_id", Id, ["等級ID", "等级ID", "Level ID"]),
        given("name", Text, ["名稱", "名称", "Name"]),
        given("url", Text, ["圖片", "图片", "Picture"]),
        given("remark", Text, ["備註", "备注", "Remark"]),
    ],
    keys: 1,
    filters: &[by_id("level_id", "this one")],
    days: None,
    source: Source::Pages(page_of_levels),
};

fn page_of_levels(reading: &Reading, _: String) -> Page {
    let ledger = reading.ledger.clone();
    Box::pin(async move { Ok(all(directory::levels(ledger.store(), Slice::All).await?, line_of_level)) })
}

fn line_of_level(level: Level) -> Line {
    vec![number(Id, level.id), Value::Text(level.name), Value::Text(level.url), Value::Text(level.remark)]
}

pub(super) static TAGS: Sheet = Sheet {
    name: "tags",
    words: ["標籤", "标签", "Tags"],
    about: "Members' tags, as they are now: they are not in the log",
    whose: None,
    columns: &[
        given("tag_id", Id, ["標籤ID", "标签ID", "Tag ID"]),
        given("tag_name", Text, ["名稱", "名称", "Name"]),
        given("color", Text, ["顏色", "颜色", "Colour"]),
    ],
    keys: 1,
    filters: &[by_id("tag_id", "this one")],
    days: None,
    source: Source::Pages(page_of_tags),
};

fn page_of_tags(reading: &Reading, _: String) -> Page {
    let ledger = reading.ledger.clone();
    Box::pin(async move { Ok(all(directory::tags(ledger.store(), Slice::All).await?, line_of_tag)) })
}

fn line_of_tag(tag: Tag) -> Line {
    vec![number(Id, tag.id), Value::Text(tag.name), Value::Text(tag.color)]
}
