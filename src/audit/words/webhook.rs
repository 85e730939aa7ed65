//! What happened to webhooks, in words.

use super::{Told, by, quoted};
use crate::clock::Zone;
use crate::webhook::{Webhook, WebhookEvent, Why};

impl Told for Webhook {
    fn words(event: &WebhookEvent, zone: Zone) -> String {
        match event {
            WebhookEvent::Added { url, types, streams, after, employee_id, at_ms: _ } => {
                let (url, which) = (quoted(url), which_events(types, streams));
                format!("webhook to {url} added for {which} behind position {after}{}", by(*employee_id))
            }
            WebhookEvent::Changed { url, types, streams, employee_id, at_ms: _ } => {
                let (url, which) = (quoted(url), which_events(types, streams));
                format!("goes to {url} from now on, for {which}{}", by(*employee_id))
            }
            WebhookEvent::SecretRotated { generation, previous_until_ms, employee_id, at_ms: _ } => {
                let (until, by) = (zone.date_time(*previous_until_ms), by(*employee_id));
                format!("secret {generation} signs from now on{by}, the one before until {until} as well")
            }
            WebhookEvent::Paused { why: Why::Asked, employee_id, at_ms: _ } => {
                format!("paused{}", by(*employee_id))
            }
            WebhookEvent::Paused { why: Why::Gone, employee_id: _, at_ms: _ } => {
                "paused: the receiver is gone".to_owned()
            }
            WebhookEvent::Resumed { after, employee_id, at_ms: _ } => {
                let from = after.map(|after| format!(" behind position {after}")).unwrap_or_default();
                format!("goes on{from}{}", by(*employee_id))
            }
            WebhookEvent::Resent { lane, from, to, employee_id, at_ms: _ } => {
                format!("positions {from} to {to} sent once more on lane {lane}{}", by(*employee_id))
            }
            WebhookEvent::Removed { employee_id, at_ms: _ } => format!("removed{}", by(*employee_id)),
        }
    }
}

/// `events Redeemed, Issued of coupon, order/7`
fn which_events(types: &[String], streams: &[String]) -> String {
    let types =
        if types.is_empty() { "all events".to_owned() } else { format!("events {}", types.join(", ")) };
    if streams.is_empty() { types } else { format!("{types} of {}", streams.join(", ")) }
}
