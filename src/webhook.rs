//! Webhooks: where events are sent to, which of them, and since when. How far each is stands beside the log.
//!
//! The secret that signs what is sent is never here: it follows from a key outside the database, the webhook's id and the
//! generation that the log names.

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
use crate::refusal::Refusal;

/// What is sent where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Where events are posted to.
    pub url: String,
    /// Only events of these names; none = all.
    pub types: Vec<String>,
    /// Only of these kinds of streams or streams, `coupon` or `coupon/439`; none = all.
    pub streams: Vec<String>,
}

/// Why a webhook rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// Somebody wanted it to.
    Asked,
    /// The receiver answered 410: it wants nothing any more.
    Gone,
}

/// What happened to a webhook. Stored as JSON; docs/events.md gives each shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    /// It was added.
    Added {
        /// Where events are posted to.
        url: String,
        /// Only events of these names.
        types: Vec<String>,
        /// Only of these streams.
        streams: Vec<String>,
        /// It begins behind this position.
        after: i64,
        /// The employee who did it, 0 for an operator without an employee's id.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// What is sent where is from now on this.
    Changed {
        /// Where events are posted to.
        url: String,
        /// Only events of these names.
        types: Vec<String>,
        /// Only of these streams.
        streams: Vec<String>,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// The next secret signs from now on.
    SecretRotated {
        /// Its number, from 2.
        generation: u32,
        /// Until when the one before signs as well, Unix milliseconds.
        previous_until_ms: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It rests: nothing is sent until it is resumed.
    Paused {
        /// Why.
        why: Why,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It goes on.
    Resumed {
        /// Behind this position; None = where it was.
        after: Option<i64>,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// Events of a range are sent once more, beside what comes.
    Resent {
        /// The lane on which they are, from 1.
        lane: u32,
        /// The first position.
        from: i64,
        /// The last one.
        to: i64,
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
    /// It is no more.
    Removed {
        /// Who.
        employee_id: i64,
        /// Unix milliseconds.
        at_ms: i64,
    },
}

/// What can be asked of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WebhookCommand {
    /// Add it.
    Add {
        /// What is sent where.
        subscription: Subscription,
        /// It begins behind this position.
        after: i64,
        /// Who.
        employee_id: i64,
    },
    /// Send something else, or elsewhere.
    Change {
        /// What is sent where.
        subscription: Subscription,
        /// Who.
        employee_id: i64,
    },
    /// Sign with the next secret.
    RotateSecret {
        /// For how long the one before signs as well, milliseconds.
        overlap_ms: i64,
        /// Who.
        employee_id: i64,
    },
    /// Let it rest.
    Pause {
        /// Why.
        why: Why,
        /// Who.
        employee_id: i64,
    },
    /// Let it go on.
    Resume {
        /// Behind this position; None = where it was.
        after: Option<i64>,
        /// Who.
        employee_id: i64,
    },
    /// Send events of a range once more.
    Resend {
        /// The first position.
        from: i64,
        /// The last one.
        to: i64,
        /// Who.
        employee_id: i64,
    },
    /// Remove it.
    Remove {
        /// Who.
        employee_id: i64,
    },
}

/// A webhook as its events make it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// None until it is added.
    pub subscription: Option<Subscription>,
    /// The number of the secret that signs, from 1.
    pub generation: u32,
    /// Until when the one before signs as well, Unix milliseconds; 0 = there is none.
    pub previous_until_ms: i64,
    /// Why it rests; None = it does not.
    pub paused: Option<Why>,
    /// How often a range was sent once more.
    pub resends: u32,
    /// Who added it.
    pub employee_id: i64,
    /// When, Unix milliseconds.
    pub added_at_ms: i64,
    /// When it was removed, Unix milliseconds; 0 = it was not.
    pub removed_at_ms: i64,
}

impl Webhook {
    /// What these events make of it; total on any event.
    pub fn evolve(&mut self, event: &WebhookEvent) {
        match event {
            WebhookEvent::Added { url, types, streams, after: _, employee_id, at_ms } => {
                let (url, types, streams) = (url.clone(), types.clone(), streams.clone());
                *self = Self {
                    subscription: Some(Subscription { url, types, streams }),
                    generation: 1,
                    employee_id: *employee_id,
                    added_at_ms: *at_ms,
                    ..Self::default()
                };
            }
            WebhookEvent::Changed { url, types, streams, .. } => {
                let (url, types, streams) = (url.clone(), types.clone(), streams.clone());
                self.subscription = Some(Subscription { url, types, streams });
            }
            WebhookEvent::SecretRotated { generation, previous_until_ms, .. } => {
                self.generation = *generation;
                self.previous_until_ms = *previous_until_ms;
            }
            WebhookEvent::Paused { why, .. } => self.paused = Some(*why),
            WebhookEvent::Resumed { .. } => self.paused = None,
            WebhookEvent::Resent { lane, .. } => self.resends = *lane,
            WebhookEvent::Removed { at_ms, .. } => self.removed_at_ms = *at_ms,
        }
    }

    /// What follows from a command, or why nothing does.
    pub fn decide(&self, command: &WebhookCommand, facts: &Facts) -> Result<Vec<WebhookEvent>, Refusal> {
        let at_ms = facts.at.ms;
        if let WebhookCommand::Add { subscription, after, employee_id } = command {
            if self.subscription.is_some() {
                return Err(Refusal::IdTaken);
            }
            let Subscription { url, types, streams } = subscription.clone();
            let (after, employee_id) = (*after, *employee_id);
            return Ok(vec![WebhookEvent::Added { url, types, streams, after, employee_id, at_ms }]);
        }
        let Some(now) = &self.subscription else { return Err(Refusal::NoSuchRule) };
        if self.removed_at_ms != 0 {
            let again = matches!(command, WebhookCommand::Remove { .. });
            return if again { Ok(Vec::new()) } else { Err(Refusal::NoSuchRule) };
        }
        Ok(match command {
            WebhookCommand::Change { subscription, .. } if subscription == now => Vec::new(),
            WebhookCommand::Change { subscription, employee_id } => {
                let Subscription { url, types, streams } = subscription.clone();
                vec![WebhookEvent::Changed { url, types, streams, employee_id: *employee_id, at_ms }]
            }
            // Only the one before the newest signs as well: each receiver has one of the two.
            WebhookCommand::RotateSecret { overlap_ms, employee_id } => {
                let previous_until_ms = at_ms.saturating_add(*overlap_ms);
                let generation = self.generation.saturating_add(1);
                let employee_id = *employee_id;
                vec![WebhookEvent::SecretRotated { generation, previous_until_ms, employee_id, at_ms }]
            }
            WebhookCommand::Pause { .. } if self.paused.is_some() => Vec::new(),
            WebhookCommand::Pause { why, employee_id } => {
                vec![WebhookEvent::Paused { why: *why, employee_id: *employee_id, at_ms }]
            }
            WebhookCommand::Resume { after: None, .. } if self.paused.is_none() => Vec::new(),
            WebhookCommand::Resume { after, employee_id } => {
                vec![WebhookEvent::Resumed { after: *after, employee_id: *employee_id, at_ms }]
            }
            WebhookCommand::Resend { from, to, employee_id } => {
                let lane = self.resends.saturating_add(1);
                let (from, to, employee_id) = (*from, *to, *employee_id);
                vec![WebhookEvent::Resent { lane, from, to, employee_id, at_ms }]
            }
            // Decided above.
            WebhookCommand::Add { .. } => Vec::new(),
            WebhookCommand::Remove { employee_id } => {
                vec![WebhookEvent::Removed { employee_id: *employee_id, at_ms }]
            }
        })
    }
}

/// The generations whose secrets sign now, the newest first.
#[must_use]
pub fn signing(generation: u32, previous_until_ms: i64, now_ms: i64) -> Vec<u32> {
    let previous = generation.checked_sub(1).filter(|before| *before > 0 && now_ms < previous_until_ms);
    std::iter::once(generation).chain(previous).collect()
}
