//! Who may do what: one table and one function, for HTTP and the command line alike.
//!
//! The table is the one that people read, in docs/security.md: it is compiled in from there and stands nowhere else. What
//! has no row in it nobody may do.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::identity::Caller;

/// The document with the table.
const DOCUMENT: &str = include_str!("../docs/security.md");

/// What stands around the table's rows.
const TABLE_MARKS: [&str; 2] = ["<!-- access: begin -->", "<!-- access: end -->"];

/// What somebody is to the ledger. The order is the table's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member.
    Member,
    /// An employee of one shop.
    Employee,
    /// Who manages one shop.
    Manager,
    /// An operator.
    Operator,
    /// An auditor: reads everything, changes nothing.
    Auditor,
    /// A partner.
    Partner,
    /// A program with a key of its own.
    Machine,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Member,
        Self::Employee,
        Self::Manager,
        Self::Operator,
        Self::Auditor,
        Self::Partner,
        Self::Machine,
    ];

    /// Its name in the table and in the documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Employee => "employee",
            Self::Manager => "manager",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Partner => "partner",
            Self::Machine => "machine",
        }
    }
}

/// To what a role may do an action; a cell of the table has any number of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is his own: his coupons, his allotments.
    Own,
    /// What lies in his shop.
    Shop,
    /// All of it, where he was given the action's right.
    Right,
    /// All of it.
    All,
    /// Whoever asks, signed in or not.
    Open,
}

impl Reach {
    fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "own" => Self::Own,
            "shop" => Self::Shop,
            "right" => Self::Right,
            "all" => Self::All,
            "open" => Self::Open,
            _ => return None,
        })
    }
}

/// What a cell says where it says nothing.
const NOTHING: &str = "–";

/// A right that an office (職務) or a machine's key may have: it opens what the role alone does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Its number, the manual's where the manual has it.
    pub id: i64,
    /// Under which heading it stands: an index into [`HEADINGS`].
    pub heading: usize,
    /// Its name in the table.
    pub name: &'static str,
    /// The manual's name.
    pub title: &'static str,
}

/// What rights are grouped by: number and title.
pub const HEADINGS: [(i64, &str); 3] = [(1, "基礎資訊"), (2, "會員管理"), (30, "電子券")];

const fn right(id: i64, heading: usize, name: &'static str, title: &'static str) -> Right {
    Right { id, heading, name, title }
}

/// Every right.
pub const RIGHTS: &[Right] = &[
    right(4, 0, "shops", "門店管理"),
    right(5, 0, "employees", "員工管理"),
    right(6, 0, "offices", "職務管理"),
    right(9, 1, "tags", "標籤管理"),
    right(10, 1, "birthdays", "生日提醒"),
    right(13, 1, "levels", "會員等級"),
    right(15, 1, "sends", "群發消息"),
    right(16, 1, "members", "編輯會員"),
    right(31, 2, "definitions", "電子券管理"),
    right(32, 2, "issue", "電子券投放"),
    right(33, 2, "void", "作廢與回收"),
    right(35, 2, "orders", "訂單"),
    right(36, 2, "rules", "訂單滿額與商品組"),
    right(37, 2, "partners", "合作商家"),
    right(38, 2, "read", "查詢"),
    right(45, 2, "events", "事件流"),
    right(46, 2, "exports", "數據導出"),
    right(47, 2, "export-people", "導出個人資料"),
];

/// Rights by their names; one that this program does not know by its number.
#[must_use]
pub fn right_names(ids: &[i64]) -> Vec<String> {
    let name = |id: &i64| {
        RIGHTS
            .iter()
            .find(|right| right.id == *id)
            .map_or_else(|| id.to_string(), |right| right.name.to_owned())
    };
    ids.iter().map(name).collect()
}

/// A row of the table.
#[derive(Clone, Debug)]
struct Row {
    right: Option<&'static Right>,
    reaches: [Vec<Reach>; Role::ALL.len()],
}

impl Row {
    fn reaches_of(&self, role: Role) -> &[Reach] {
        self.reaches.get(role as usize).map_or(&[], Vec::as_slice)
    }
}

/// The rows by action. A row that cannot be read is no row: nobody may.
static ROWS: LazyLock<HashMap<&'static str, Row>> =
    LazyLock::new(|| lines().filter_map(|line| read_row(line).ok()).collect());

/// The table's rows as they are written, without its head.
fn lines() -> impl Iterator<Item = &'static str> {
    let [begin, end] = TABLE_MARKS;
    let table = DOCUMENT.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    table.map_or("", |(table, _)| table).lines().filter(|line| line.starts_with("| `"))
}

fn read_row(line: &'static str) -> Result<(&'static str, Row), String> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let mut next = || cells.next().ok_or_else(|| format!("{line}: a cell is missing"));
    let action = next()?.trim_matches('`');
    let name = next()?;
    let right = RIGHTS.iter().find(|right| right.name == name);
    if right.is_none() && !name.is_empty() {
        return Err(format!("{line}: there is no right {name:?}"));
    }
    let mut reaches: [Vec<Reach>; Role::ALL.len()] = Default::default();
    for reaches in &mut reaches {
        let cell = next()?;
        let words = cell.split(' ').filter(|_| cell != NOTHING);
        let read: Option<Vec<Reach>> = words.map(Reach::parse).collect();
        *reaches = read
            .ok_or_else(|| format!("{line}: {cell:?} is not {NOTHING} or of own, shop, right, all, open"))?;
        if reaches.contains(&Reach::Right) && right.is_none() {
            return Err(format!("{line}: by which right?"));
        }
    }
    let open = reaches.iter().filter(|reaches| reaches.contains(&Reach::Open)).count();
    if open > 0 && !reaches.iter().all(|reaches| reaches == &[Reach::Open]) {
        return Err(format!("{line}: what is open is open to everybody"));
    }
    match cells.next() {
        None => Ok((action, Row { right, reaches })),
        Some(_) => Err(format!("{line}: there is a cell too many")),
    }
}

/// Every action that has a row, in the table's order, or what is wrong with the table.
pub fn actions() -> Result<Vec<&'static str>, String> {
    lines().map(|line| read_row(line).map(|(action, _)| action)).collect()
}

/// What the table says of a role and an action.
#[must_use]
pub fn reaches(role: Role, action: &str) -> &'static [Reach] {
    ROWS.get(action).map_or(&[], |row| row.reaches_of(role))
}

/// The right by which somebody may do an action who may not anyway.
#[must_use]
pub fn right_for(action: &str) -> Option<&'static Right> {
    ROWS.get(action).and_then(|row| row.right)
}

/// An action in the table's own words.
#[must_use]
pub fn named(action: &str) -> Option<&'static str> {
    ROWS.get_key_value(action).map(|(named, _)| *named)
}

/// Whether anybody may do it, and need not be signed in.
#[must_use]
pub fn is_open(action: &str) -> bool {
    Role::ALL.into_iter().all(|role| reaches(role, action) == [Reach::Open])
}

/// The roles that may do something at all.
pub fn roles_of(action: &str) -> impl Iterator<Item = Role> {
    Role::ALL.into_iter().filter(move |role| !reaches(*role, action).is_empty())
}

/// The names of those roles, as the documentation gives them; who may by a right only, with the right's name.
#[must_use]
pub fn names_of_roles(action: &str) -> String {
    if is_open(action) {
        return "anybody".to_owned();
    }
    let by_right = right_for(action).map_or("", |right| right.name);
    let name = |role: Role| match reaches(role, action) {
        [Reach::Right] => format!("{} (right {by_right})", role.name()),
        _ => role.name().to_owned(),
    };
    roles_of(action).map(name).collect::<Vec<_>>().join(", ")
}

/// Somebody who has proved who he is, with what he was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who he is, as events name him.
    pub caller: Caller,
    /// What he is.
    pub role: Role,
    /// Where he works, if he does in one shop.
    pub shop_id: Option<i64>,
    /// The rights of the office that he holds, or of his key, by their numbers.
    pub rights: Vec<i64>,
}

impl Principal {
    /// An employee as the directory has him.
    #[must_use]
    pub fn employee(id: i64, shop_id: i64, manager: bool, rights: Vec<i64>) -> Self {
        let role = if manager { Role::Manager } else { Role::Employee };
        Self { caller: Caller::Employee(id), role, shop_id: Some(shop_id), rights }
    }

    /// The rights that he may give to others: nobody gives what he has not himself.
    #[must_use]
    pub fn givable_rights(&self) -> Vec<i64> {
        match self.role {
            Role::Operator => RIGHTS.iter().map(|right| right.id).collect(),
            _ => self.rights.clone(),
        }
    }

    /// Whether this right is one of them.
    #[must_use]
    pub fn may_give(&self, right: i64) -> bool {
        self.role == Role::Operator || self.rights.contains(&right)
    }

    /// Somebody whom nothing was given beside his role.
    #[must_use]
    pub fn plain(caller: Caller) -> Self {
        let role = match caller {
            Caller::Member(_) => Role::Member,
            Caller::Employee(_) => Role::Employee,
            Caller::Partner(_) => Role::Partner,
            Caller::Machine(_) => Role::Machine,
            Caller::Operator | Caller::OperatorAccount(_) | Caller::System => Role::Operator,
            Caller::Auditor | Caller::AuditorAccount(_) => Role::Auditor,
        };
        Self { caller, role, shop_id: None, rights: Vec::new() }
    }
}

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Not known yet: whoever may do it to anything is let through, and is asked again once it is known.
    Unknown,
    /// What is a member's.
    OfMember(i64),
    /// What lies in a shop.
    InShop(i64),
    /// What is a partner's.
    OfPartner(i64),
    /// What is the whole merchant's.
    Whole,
}

/// He may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not allowed")]
pub struct Denied;

/// Whether somebody may do an action to a resource.
pub fn authorize(who: &Principal, action: &str, resource: Resource) -> Result<(), Denied> {
    let Some(row) = ROWS.get(action) else { return Err(Denied) };
    let allows = |reach: &Reach| match reach {
        Reach::All | Reach::Open => true,
        Reach::Right => row.right.is_some_and(|right| who.rights.contains(&right.id)),
        Reach::Own => match (resource, who.caller) {
            (Resource::Unknown, _) => true,
            (Resource::OfMember(of), Caller::Member(id)) | (Resource::OfPartner(of), Caller::Partner(id)) => {
                of == id
            }
            _ => false,
        },
        Reach::Shop => match resource {
            Resource::Unknown => true,
            Resource::InShop(shop_id) => who.shop_id == Some(shop_id),
            _ => false,
        },
    };
    if row.reaches_of(who.role).iter().any(allows) { Ok(()) } else { Err(Denied) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_can_be_read_and_stands_once() {
        let mut actions = actions().unwrap();
        assert!(actions.len() > 100);
        actions.sort_unstable();
        for pair in actions.windows(2) {
            assert_ne!(pair[0], pair[1]);
        }
    }

    #[test]
    fn a_row_that_says_something_else_is_none() {
        for wrong in [
            "| `/a` | | own | – | – | – | – | – |",
            "| `/a` | | own | – | – | – | – | – | – | – |",
            "| `/a` | | mine | – | – | – | – | – | – |",
            "| `/a` | | – own | – | – | – | – | – | – |",
            "| `/a` | | | – | – | – | – | – | – |",
            "| `/a` | | right | – | – | – | – | – | – |",
            "| `/a` | everything | – | – | – | – | – | – | – |",
            "| `/a` | | open | – | – | – | – | – | – |",
        ] {
            assert!(read_row(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_has_no_row_nobody_may() {
        for caller in [Caller::Operator, Caller::Auditor, Caller::System, Caller::Member(1)] {
            assert_eq!(authorize(&Principal::plain(caller), "/nothing", Resource::Unknown), Err(Denied));
        }
    }

    #[test]
    fn own_is_his_own_and_shop_his_shop() {
        let member = Principal::plain(Caller::Member(439));
        let list = |resource| authorize(&member, "/client/couponlist", resource).is_ok();
        assert_eq!([Resource::Unknown, Resource::OfMember(439)].map(list), [true; 2]);
        assert_eq!(
            [Resource::OfMember(440), Resource::OfPartner(439), Resource::InShop(439), Resource::Whole]
                .map(list),
            [false; 4]
        );
        let employee = Principal { shop_id: Some(1), ..Principal::plain(Caller::Employee(1000)) };
        let order =
            |who: &Principal, shop_id| authorize(who, "/order/add", Resource::InShop(shop_id)).is_ok();
        assert!(order(&employee, 1) && !order(&employee, 2));
        assert!(!order(&Principal { shop_id: None, ..employee.clone() }, 1));
        assert!(order(&Principal::plain(Caller::Operator), 2));
    }

    #[test]
    fn a_right_opens_what_its_column_says_and_no_more() {
        let shops = RIGHTS.iter().find(|right| right.name == "shops").unwrap();
        let plain = Principal::plain(Caller::Employee(1000));
        let given = Principal { rights: vec![shops.id], ..plain.clone() };
        assert!(given.may_give(shops.id) && !plain.may_give(shops.id));
        assert!(RIGHTS.iter().all(|right| Principal::plain(Caller::Operator).may_give(right.id)));
        assert!(authorize(&plain, "/shop/edit", Resource::Whole).is_err());
        assert!(authorize(&given, "/shop/edit", Resource::Whole).is_ok());
        assert!(authorize(&given, "/elecoupons/edit", Resource::Whole).is_err());
    }
}
