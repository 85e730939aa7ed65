//! Rebuilds of live tables: begun by an operator, looked at by whoever may read.

use serde_json::{Value, json};

use super::{Ask, Method, Page, Resource, Run};
use crate::audit::rebuild::{self, Rebuild, RebuildError, Running};
use crate::http::Failure;
use crate::http::routes::{Holds, optional, required};
use crate::refusal::{BAD_PARAMETERS, CHANGED_MEANWHILE, NO_SUCH_COUPON, NO_SUCH_RULE};

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rebuilds {
    /// `POST /v1/rebuilds`
    Begin,
    /// `POST /v1/rebuilds/drop-old`
    DropOld,
    /// `GET /v1/rebuilds/{id}`
    Look,
    /// `POST /v1/coupons/{id}/rebuild`
    Coupon,
}

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Post,
        path: "/v1/rebuilds",
        about: "Makes live tables and counters anew from the log beside those in use, compares both, and puts the new ones in \
                their place; an unfinished rebuild of the same tables goes on. Answers at once: ask how far it is by its \
                number",
        parts: &[],
        query: &[
            optional(
                "models",
                Holds::Text(512),
                "read models parted by commas, as `wallet,stock`; default `all`",
            ),
            optional("drop_old", Holds::Flag, "1: what an earlier rebuild kept of them is dropped first"),
        ],
        produces: "application/json",
        example: r#"{"rebuild_id":3,"resumed":false}"#,
        run: Run::Rebuilds(Rebuilds::Begin),
    },
    Resource {
        method: Method::Get,
        path: "/v1/rebuilds/{id}",
        about: "How far a rebuild is: `state` is filling, comparing, swapped (the old tables are kept), done or given_up; \
                `running` whether anybody is at work on it; `failed` why it stopped; `report` what it came to: digests by \
                table, and the first rows that were not what the log gives, column by column",
        parts: &[required("id", Holds::Id, "the rebuild's number")],
        query: &[],
        produces: "application/json",
        example: r#"{"rebuild_id":3,"tables":["wallet_v1"],"state":"swapped","running":false,"began_at":41,"position":43,"streams":7,"events":41,"failed":null,"report":{"position":43,"streams":7,"events":41,"took_ms":120,"held_us":1500,"tables":[{"table":"wallet_v1","old_digest":"00d1e2f3a4b5c6d7e8f900112233445566","new_digest":"11d1e2f3a4b5c6d7e8f900112233445566","differences":1}],"difference_count":1,"differences":[{"table":"wallet_v1","key":{"member_id":439,"coupon_id":7},"wrong":"other","cells":[{"column":"used_at_ms","old":0,"new":1543026701000}]}]}}"#,
        run: Run::Rebuilds(Rebuilds::Look),
    },
    Resource {
        method: Method::Post,
        path: "/v1/rebuilds/drop-old",
        about: "Drops the tables that rebuilds have replaced and kept, and what an unfinished one has left",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"dropped":["wallet_v1_old"]}"#,
        run: Run::Rebuilds(Rebuilds::DropOld),
    },
    Resource {
        method: Method::Post,
        path: "/v1/coupons/{id}/rebuild",
        about: "Makes one coupon's rows anew from its stream, and tells which were not what it gives; counters are left alone",
        parts: &[required("id", Holds::Id, "the coupon")],
        query: &[],
        produces: "application/json",
        example: r#"{"coupon_id":7,"rows":1,"differences":[{"table":"wallet_v1","key":{"member_id":439,"coupon_id":7},"wrong":"other","cells":[{"column":"used_at_ms","old":0,"new":1543026701000}]}]}"#,
        run: Run::Rebuilds(Rebuilds::Coupon),
    },
];

pub(super) async fn run(run: Rebuilds, mut ask: Ask) -> Result<Page, Failure> {
    let form = &mut ask.form;
    match run {
        Rebuilds::Begin => {
            let models = form.optional_text("models", 512).filter(|models| !models.is_empty());
            let drop_old = form.flag("drop_old", false);
            ask.checked()?;
            begin(&ask, models.as_deref().unwrap_or("all"), drop_old).await
        }
        Rebuilds::DropOld => {
            ask.checked()?;
            let dropped = rebuild::drop_old(ask.app.ledger.store()).await.map_err(said)?;
            Page::json(&json!({"dropped": dropped}))
        }
        Rebuilds::Look => {
            let id = form.id("id");
            ask.checked()?;
            let found = rebuild::look(ask.app.ledger.store(), id).await.map_err(said)?;
            let none = || Failure::Said(&NO_SUCH_RULE, format!("there is no rebuild {id}"));
            let (rebuild, running) = found.ok_or_else(none)?;
            Page::json(&standing(&rebuild, running))
        }
        Rebuilds::Coupon => {
            let id = form.id("id");
            ask.checked()?;
            Page::json(&rebuild::repair_coupon(ask.app.ledger.store(), id).await.map_err(said)?)
        }
    }
}

async fn begin(ask: &Ask, models: &str, drop_old: bool) -> Result<Page, Failure> {
    let ledger = &ask.app.ledger;
    let running = Running::begin(ledger.store(), ledger.clock(), models, drop_old).await.map_err(said)?;
    let (id, resumed) = (running.id(), running.resumed);
    tokio::spawn(async move {
        match running.run().await {
            Ok(report) => tracing::info!(rebuild_id = id, differences = report.difference_count, "rebuilt"),
            Err(error) => tracing::warn!(rebuild_id = id, %error, "the rebuild stopped"),
        }
    });
    Page::json(&json!({"rebuild_id": id, "resumed": resumed}))
}

/// How far a rebuild is, as it is told here and on the command line.
pub(crate) fn standing(rebuild: &Rebuild, running: bool) -> Value {
    json!({
        "rebuild_id": rebuild.id,
        "tables": rebuild.tables.iter().map(|table| table.name).collect::<Vec<_>>(),
        "state": rebuild.state,
        "running": running,
        "began_at": rebuild.began_at,
        "position": rebuild.position,
        "streams": rebuild.streams,
        "events": rebuild.events,
        "failed": rebuild.failed,
        "report": rebuild.report,
    })
}

fn said(error: RebuildError) -> Failure {
    match error {
        RebuildError::Store(error) => error.into(),
        RebuildError::Corrupt(corrupt) => Failure::Execute(corrupt.into()),
        RebuildError::NoSuchCoupon(_) => Failure::Said(&NO_SUCH_COUPON, error.to_string()),
        RebuildError::NoSuchModel(_) => Failure::Said(&BAD_PARAMETERS, error.to_string()),
        _ => Failure::Said(&CHANGED_MEANWHILE, error.to_string()),
    }
}
