//! Approvals: what waits for somebody else's word.

use super::{BEFORE, Holds, LIMIT, PAGE, Route, Run, optional, required};
use crate::http::approvals::Approvals;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/approval/list",
        about: "Proposals, newest id first: what one person's word was not enough for. state 0 open, 1 approved, 2 refused, \
                3 withdrawn, 4 expired; type send, recall, extension, stock, allotment or import; subject_id is the job, \
                definition or allotment, and may not be there yet [ours]",
        writes: false,
        fields: &[optional("state", Holds::Int(0, 4), "only those in this state"), PAGE, LIMIT, BEFORE],
        refusals: &[],
        request: r#"{"state":0,"page":1,"limit":10}"#,
        data: r#"[{"id":3,"type":"stock","action":"/elecoupons/inventory","state":0,"nums":2000,"above":1000,"subject_id":1,"proposed_by":"employee:1000","user_id":1000,"create_date":1543026701,"lapse_date":1543631501,"closed_by":"","close_date":0,"reason":""}]"#,
        run: Run::Approvals(Approvals::List),
    },
    Route {
        path: "/approval/info",
        about: "One proposal with the whole command, as docs/events.md has it [ours]",
        writes: false,
        fields: &[required("id", Holds::Id, "the approval's id")],
        refusals: &[2005],
        request: r#"{"id":3}"#,
        data: r#"{"id":3,"type":"stock","action":"/elecoupons/inventory","state":0,"nums":2000,"above":1000,"subject_id":1,"proposed_by":"employee:1000","user_id":1000,"create_date":1543026701,"lapse_date":1543631501,"closed_by":"","close_date":0,"reason":"","act":{"raise_stock":{"definition_id":1,"by":1500,"stock":2000}}}"#,
        run: Run::Approvals(Approvals::Info),
    },
    Route {
        path: "/approval/limits",
        about: "Above which numbers somebody else must approve: members of a mass send, stock of a definition or allotment, \
                coupons of a recall or extension, rows of a file of coupons; 0 = never [ours]",
        writes: false,
        fields: &[],
        refusals: &[],
        request: "{}",
        data: r#"{"sends":1000,"stock":0,"recalls":1000,"imports":0}"#,
        run: Run::Approvals(Approvals::Limits),
    },
    Route {
        path: "/approval/approve",
        about: "Approves what another proposed, and does it at once, all or nothing. 1002 where the caller may be who \
                proposed it, or that one may not any more; else what the command itself is refused with now, or 6003 where \
                it would come to another number than was proposed: the proposal stays open then [ours]",
        writes: true,
        fields: &[required("id", Holds::Id, "the approval's id")],
        refusals: &[2005],
        request: r#"{"id":3}"#,
        data: r#"{"id":3,"state":1,"subject_id":1}"#,
        run: Run::Approvals(Approvals::Approve),
    },
    Route {
        path: "/approval/refuse",
        about: "Refuses what was proposed: it is not done, and a send, recall or extension that waited is cancelled [ours]",
        writes: true,
        fields: &[
            required("id", Holds::Id, "the approval's id"),
            optional("reason", Holds::Text(200), "why"),
        ],
        refusals: &[2005],
        request: r#"{"id":3,"reason":"數量有誤"}"#,
        data: r#"{"id":3,"state":2,"subject_id":1}"#,
        run: Run::Approvals(Approvals::Refuse),
    },
    Route {
        path: "/approval/withdraw",
        about: "Takes back what the caller himself proposed [ours]",
        writes: true,
        fields: &[required("id", Holds::Id, "the approval's id")],
        refusals: &[2005],
        request: r#"{"id":3}"#,
        data: r#"{"id":3,"state":3,"subject_id":1}"#,
        run: Run::Approvals(Approvals::Withdraw),
    },
];
