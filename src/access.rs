//! Who may do what: one table and one function.
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
    /// An operator.
    Operator,
    /// An auditor: reads everything, changes nothing.
    Auditor,
    /// A partner.
    Partner,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Member, Self::Employee, Self::Operator, Self::Auditor, Self::Partner];

    /// Its name in the table and in the documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Employee => "employee",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
            Self::Partner => "partner",
        }
    }
}

/// To what a role may do an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// What is his own: his coupons, his allotments.
    Own,
    /// What lies in his shop.
    Shop,
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
            "all" => Self::All,
            "open" => Self::Open,
            _ => return None,
        })
    }
}

/// What a cell says where it says nothing.
const NOTHING: &str = "–";

/// What each role may do an action to, in their order; None = not at all.
type Reaches = [Option<Reach>; Role::ALL.len()];

/// The rows by action. A row that cannot be read is no row: nobody may.
static ROWS: LazyLock<HashMap<&'static str, Reaches>> =
    LazyLock::new(|| lines().filter_map(|line| read_row(line).ok()).collect());

/// The table's rows as they are written, without its head.
fn lines() -> impl Iterator<Item = &'static str> {
    let [begin, end] = TABLE_MARKS;
    let table = DOCUMENT.split_once(begin).and_then(|(_, rest)| rest.split_once(end));
    table.map_or("", |(table, _)| table).lines().filter(|line| line.starts_with("| `"))
}

fn read_row(line: &'static str) -> Result<(&'static str, Reaches), String> {
    let mut cells = line.trim_matches('|').split('|').map(str::trim);
    let mut next = || cells.next().ok_or_else(|| format!("{line}: a cell is missing"));
    let action = next()?.trim_matches('`');
    let mut reaches = Reaches::default();
    for reach in &mut reaches {
        let cell = next()?;
        *reach = Reach::parse(cell);
        if reach.is_none() && cell != NOTHING {
            return Err(format!("{line}: {cell:?} is not {NOTHING}, own, shop, all or open"));
        }
    }
    let open = reaches.iter().filter(|reach| **reach == Some(Reach::Open)).count();
    if open > 0 && open < reaches.len() {
        return Err(format!("{line}: what is open is open to everybody"));
    }
    match cells.next() {
        None => Ok((action, reaches)),
        Some(_) => Err(format!("{line}: there is a cell too many")),
    }
}

/// Every action that has a row, in the table's order, or what is wrong with the table.
pub fn actions() -> Result<Vec<&'static str>, String> {
    lines().map(|line| read_row(line).map(|(action, _)| action)).collect()
}

/// What the table says of a role and an action; None = he may not.
#[must_use]
pub fn reach(role: Role, action: &str) -> Option<Reach> {
    ROWS.get(action)?.get(role as usize).copied().flatten()
}

/// Whether anybody may do it, and need not be signed in.
#[must_use]
pub fn is_open(action: &str) -> bool {
    Role::ALL.into_iter().all(|role| reach(role, action) == Some(Reach::Open))
}

/// The roles that may do something at all.
pub fn roles_of(action: &str) -> impl Iterator<Item = Role> {
    Role::ALL.into_iter().filter(move |role| reach(*role, action).is_some())
}

/// The names of those roles, as the documentation gives them.
#[must_use]
pub fn names_of_roles(action: &str) -> String {
    if is_open(action) {
        return "anybody".to_owned();
    }
    roles_of(action).map(Role::name).collect::<Vec<_>>().join(", ")
}

/// Somebody who has proved who he is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Who he is, as events name him.
    pub caller: Caller,
    /// What he is.
    pub role: Role,
    /// Where he works, if he does in one shop.
    pub shop_id: Option<i64>,
}

impl Principal {
    /// Somebody of whom nothing more is known.
    #[must_use]
    pub fn plain(caller: Caller) -> Self {
        let role = match caller {
            Caller::Member(_) => Role::Member,
            Caller::Employee(_) => Role::Employee,
            Caller::Partner(_) => Role::Partner,
            Caller::Operator | Caller::OperatorAccount(_) | Caller::System => Role::Operator,
            Caller::Auditor | Caller::AuditorAccount(_) => Role::Auditor,
        };
        Self { caller, role, shop_id: None }
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
    let may = match (reach(who.role, action), resource) {
        (Some(Reach::All | Reach::Open), _) | (Some(_), Resource::Unknown) => true,
        (Some(Reach::Own), Resource::OfMember(id)) => who.caller == Caller::Member(id),
        (Some(Reach::Own), Resource::OfPartner(id)) => who.caller == Caller::Partner(id),
        (Some(Reach::Shop), Resource::InShop(shop_id)) => who.shop_id == Some(shop_id),
        (None | Some(Reach::Own | Reach::Shop), _) => false,
    };
    if may { Ok(()) } else { Err(Denied) }
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
            "| `/a` | own | – | – | – |",
            "| `/a` | own | – | – | – | – | – |",
            "| `/a` | mine | – | – | – | – |",
            "| `/a` | | – | – | – | – |",
            "| `/a` | open | – | – | – | – |",
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
}
