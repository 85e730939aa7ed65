//! Followers: how they stand, and what they are told.

use serde_json::json;

use super::{Ask, Method, Page, Resource, Run};
use crate::feeds::webhooks;
use crate::followers::{self, FollowerError, Order};
use crate::http::Failure;
use crate::http::routes::{Holds, required};
use crate::refusal::{CHANGED_MEANWHILE, NO_SUCH_RULE};

pub(super) const RESOURCES: &[Resource] = &[
    Resource {
        method: Method::Get,
        path: "/v1/followers",
        about: "What follows the log or the calendar by itself: how far each is, how far behind, whether it rests, and what \
                went wrong in its last run",
        parts: &[],
        query: &[],
        produces: "application/json",
        example: r#"{"followers":[{"name":"expiry","about":"writes down the ends of coupons and lapsed gifts","checkpoint":1795406280000,"lag":120,"paused":false,"last_error":"","error_at_ms":0}]}"#,
        run: Run::Followers,
    },
    Resource {
        method: Method::Post,
        path: "/v1/followers/{name}/{order}",
        about: "Lets a follower rest, go on, or begin anew. A pause holds on every server and across starts",
        parts: &[
            required("name", Holds::Text(64), "its name"),
            required("order", Holds::OneOf(Order::NAMES), "what it is told"),
        ],
        query: &[],
        produces: "application/json",
        example: r#"{"followers":[{"name":"expiry","about":"writes down the ends of coupons and lapsed gifts","checkpoint":1795406280000,"lag":120,"paused":true,"last_error":"","error_at_ms":0}]}"#,
        run: Run::FollowerOrder,
    },
];

pub(super) async fn list(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    standings(&ask).await
}

async fn standings(ask: &Ask) -> Result<Page, Failure> {
    let ledger = &ask.app.ledger;
    let mut standings = followers::standings(ledger.store(), ledger.clock(), ledger.now().day).await?;
    standings.extend(webhooks::standings(ledger.store()).await?);
    Page::json(&json!({"followers": standings}))
}

pub(super) async fn order(mut ask: Ask) -> Result<Page, Failure> {
    let name = ask.form.text("name", 64);
    let order = ask.form.one_of("order", Order::NAMES);
    ask.checked()?;
    let order = order.and_then(Order::named).unwrap_or(Order::Pause);
    followers::order(&ask.app.ledger, &name, order).await.map_err(|error| match error {
        FollowerError::Store(error) => error.into(),
        error @ FollowerError::Unknown(_) => Failure::Said(&NO_SUCH_RULE, error.to_string()),
        error @ FollowerError::Keeps(..) => Failure::Said(&CHANGED_MEANWHILE, error.to_string()),
    })?;
    standings(&ask).await
}
