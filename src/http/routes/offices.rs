//! Offices and the rights that they have.

use super::{BEFORE, Field, Holds, LIMIT, MAX_ID, PAGE, Route, Run, required};
use crate::http::offices::Offices;

const OFFICE_ID: Field = required("id", Holds::Id, "職務ID");
const TITLE: Field = required("title", Holds::Text(100), "its title");

macro_rules! office {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            r#"{"id":1,"title":"店長","user_id":0,"create_date":1543290243,"competence_ids":"5,9"}"#,
            $after
        )
    };
}

macro_rules! tree {
    ($checked:literal) => {
        concat!(
            r#"[{"title":"公共權限","child":[{"id":1,"state":1,"title":"基礎資訊","sort":1,"type":1,"about":"","child":[{"id":4,"state":1,"title":"門店管理","sort":4,"type":2,"about":"shops""#,
            $checked,
            "}]}]}]"
        )
    };
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/office/list",
        about: "Offices (職務), newest id first; competence_ids are their rights [ours]",
        writes: false,
        fields: &[PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: "{}",
        data: office!("[", "]"),
        run: Run::Offices(Offices::List),
    },
    Route {
        path: "/office/get",
        about: "One office",
        writes: false,
        fields: &[OFFICE_ID],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: office!("", ""),
        run: Run::Offices(Offices::Get),
    },
    Route {
        path: "/office/add",
        about: "Adds an office, which has no rights yet",
        writes: true,
        fields: &[TITLE],
        refusals: &[],
        request: r#"{"title":"店長"}"#,
        data: r#"{"id":1}"#,
        run: Run::Offices(Offices::Add),
    },
    Route {
        path: "/office/edit",
        about: "Gives an office another title",
        writes: true,
        fields: &[OFFICE_ID, TITLE],
        refusals: &[2005],
        request: r#"{"id":1,"title":"副店長"}"#,
        data: r#"{"id":1}"#,
        run: Run::Offices(Offices::Edit),
    },
    Route {
        path: "/office/del",
        about: "Deletes an office; 401 on id while somebody who works here holds it",
        writes: true,
        fields: &[OFFICE_ID],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: "1",
        run: Run::Offices(Offices::Delete),
    },
    Route {
        path: "/office/competence",
        about: "The tree of rights, with those of an office checked",
        writes: false,
        fields: &[OFFICE_ID],
        refusals: &[2005],
        request: r#"{"id":1}"#,
        data: tree!(r#","checked":false"#),
        run: Run::Offices(Offices::Competence),
    },
    Route {
        path: "/office/setcompetence",
        about: "Says which rights an office has, all of them; it counts with the next request of whoever holds it. 1002 where it would get one that the caller has not himself [ours]",
        writes: true,
        fields: &[
            OFFICE_ID,
            required("competence_ids", Holds::Ints(MAX_ID), "the ids of its rights; empty = none"),
        ],
        refusals: &[2005],
        request: r#"{"id":1,"competence_ids":"5,9"}"#,
        data: r#"{"id":1,"competence_ids":"5,9"}"#,
        run: Run::Offices(Offices::SetCompetence),
    },
    Route {
        path: "/competence/list",
        about: "The tree of rights: about is the right's name in docs/security.md, which says what it opens",
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: tree!(""),
        run: Run::Offices(Offices::Rights),
    },
];
