//! Webhooks as an aggregate: how far they are is written beside their events.

use cqrs_es::Aggregate;
use cqrs_es::event_sink::EventSink;

use super::{Decider, Entity};
use crate::facts::Facts;
use crate::read_model::webhooks::{webhook_lanes, webhook_rows};
use crate::refusal::Refusal;
use crate::store::{Effects, LiveRow};
use crate::webhook::{Webhook, WebhookCommand, WebhookEvent};

impl Entity for Webhook {
    fn begins(command: &WebhookCommand) -> bool {
        matches!(command, WebhookCommand::Add { .. })
    }

    fn rows(&self, id: i64) -> Vec<LiveRow> {
        webhook_rows(id, self)
    }

    fn guard(_command: &WebhookCommand, events: &[WebhookEvent], facts: &Facts, effects: &mut Effects) {
        effects.beside = webhook_lanes(facts.id, events);
    }
}

aggregate!(Webhook, "webhook", WebhookCommand, WebhookEvent);
