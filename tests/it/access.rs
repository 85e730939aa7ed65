//! Who may do what: the table of docs/security.md against the program, row by row.

use std::collections::BTreeSet;

use coupon_ledger::access::{
    Principal, RIGHTS, Reach, Resource, Role, actions, authorize, is_open, reaches, right_for,
};
use coupon_ledger::http::routes::Run;
use coupon_ledger::http::{routes, v1};
use coupon_ledger::identity::Caller;

use crate::docs::read;
use crate::harness::{EMPLOYEE, MEMBER, PARTNER};
use crate::tidy::files;

/// Whether somebody of whom nothing more is known may do something to anything at all.
pub fn may(caller: Caller, action: &str) -> bool {
    authorize(&Principal::plain(caller), action, Resource::Unknown).is_ok()
}

/// Somebody who may.
pub fn a_caller_of(action: &str) -> Caller {
    let all = [MEMBER, EMPLOYEE, PARTNER, Caller::Operator, Caller::Auditor];
    all.into_iter().find(|caller| may(*caller, action)).unwrap()
}

#[test]
fn every_route_has_its_row_and_every_row_its_route() {
    let served: BTreeSet<String> = routes::ALL
        .iter()
        .map(|route| route.path.to_owned())
        .chain(v1::ALL.iter().map(v1::Resource::action))
        .collect();
    let said: BTreeSet<String> = actions().unwrap().into_iter().map(ToOwned::to_owned).collect();
    assert_eq!(served.difference(&said).collect::<Vec<_>>(), Vec::<&String>::new(), "routes without a row");
    assert_eq!(said.difference(&served).collect::<Vec<_>>(), Vec::<&String>::new(), "rows without a route");
}

#[test]
fn auditors_and_members_change_nothing_that_is_not_theirs() {
    for route in routes::ALL.iter().filter(|route| route.writes) {
        for role in [Role::Auditor, Role::Member, Role::Partner] {
            let reaches = reaches(role, route.path);
            let his = reaches.iter().all(|reach| *reach == Reach::Own) || is_open(route.path);
            assert!(his, "{}: {reaches:?}", route.path);
            // What is an auditor's own is his account.
            let of_accounts = matches!(route.run, Run::Account(_) | Run::Open(_));
            assert!(
                role != Role::Auditor || reaches.is_empty() || of_accounts,
                "{}: an auditor writes",
                route.path
            );
        }
    }
}

#[test]
fn what_is_open_is_how_one_signs_in_or_shows_a_signed_link_and_nothing_else() {
    let open: Vec<_> = actions().unwrap().into_iter().filter(|action| is_open(action)).collect();
    assert_eq!(open, ["/user/login", "/user/setpassword", "GET /v1/exports/{id}/file"]);
    for route in routes::ALL.iter() {
        assert_eq!(is_open(route.path), matches!(route.run, Run::Open(_)), "{}", route.path);
    }
}

#[test]
fn every_right_opens_something_and_no_row_names_one_for_nothing() {
    let mut opening = BTreeSet::new();
    for action in actions().unwrap() {
        let by_right = Role::ALL.into_iter().any(|role| reaches(role, action).contains(&Reach::Right));
        assert_eq!(by_right, right_for(action).is_some(), "{action}: its right opens it to nobody");
        opening.extend(right_for(action).map(|right| right.id));
    }
    assert_eq!(opening, RIGHTS.iter().map(|right| right.id).collect());
    assert_eq!(opening.len(), RIGHTS.len(), "two rights have one number");
}

/// The threats of docs/security.md with the tests that stand in their last column.
#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = read("docs/security.md");
    let (_, threats) = text.split_once("\n| who | with what | control | test |\n").unwrap();
    let sources = files("tests", &[".rs"]).into_iter().chain(files("src", &[".rs"]));
    let sources: String = sources.map(|path| read(&path)).collect();
    let mut named = 0;
    for row in threats.lines().skip(1).take_while(|line| line.starts_with("| ")) {
        let cell = row.trim_matches(['|', ' ']).rsplit(" | ").next().unwrap();
        let tests: Vec<_> = cell.split(", ").map(|test| test.trim_matches('`')).collect();
        for test in &tests {
            assert!(sources.contains(&format!("fn {test}(")), "{test} is no test: {row}");
        }
        named += tests.len();
    }
    assert!(named > 30, "only {named} tests were found");
}
