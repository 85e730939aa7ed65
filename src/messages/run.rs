//! What runs in a server: the two followers and what hands messages over, beside each other, so that none keeps another.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hand_over::{MessageWebhook, run_hand_over};
use super::{MessageError, follow, forget, remind};
use crate::followers::frame::{self, Follow, Said, caught, is_due};
use crate::followers::{self, Follower, MESSAGES, REMINDERS};
use crate::ledger::Ledger;

/// Between two looks at the calendar.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Between two times that what is old is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);

/// What members are told, and through what.
#[derive(Clone, Debug)]
pub struct MessageOptions {
    /// How many days before its end a member is told that a coupon ends; 0 = never.
    pub expiring_soon_days: u32,
    /// The merchant's own sender, which is handed every message; None = the inbox alone.
    pub webhook: Option<Arc<MessageWebhook>>,
}

impl Default for MessageOptions {
    fn default() -> Self {
        Self { expiring_soon_days: 3, webhook: None }
    }
}

/// Tells members for as long as the server runs.
pub async fn run_messages(ledger: Ledger, options: MessageOptions) {
    let is_handed_over = options.webhook.is_some();
    let handing_over = async {
        if let Some(webhook) = &options.webhook {
            run_hand_over(&ledger, webhook).await;
        }
    };
    tokio::join!(
        frame::run(ledger.clone(), OfTheLog { is_handed_over }),
        run_remind(&ledger, options.expiring_soon_days, is_handed_over),
        handing_over
    );
}

/// The follower of the log.
struct OfTheLog {
    is_handed_over: bool,
}

impl Follow for OfTheLog {
    type Error = MessageError;

    fn follower(&self) -> &'static Follower {
        &MESSAGES
    }

    async fn step(&mut self, ledger: &Ledger) -> Result<bool, MessageError> {
        Ok(follow(ledger, self.is_handed_over).await?.more)
    }
}

/// The follower of the calendar; and what is old goes.
async fn run_remind(ledger: &Ledger, days: u32, is_handed_over: bool) {
    let mut said = Said::new(&REMINDERS);
    let mut forgot: Option<Instant> = None;
    followers::note(ledger, &REMINDERS, None).await;
    loop {
        let outcome = caught(remind(ledger, days, is_handed_over)).await;
        if let Ok(Some(messages @ 1..)) = outcome {
            tracing::info!(messages, "members were told which coupons end soon");
        }
        said.outcome(ledger, outcome.as_ref().err().map(String::as_str)).await;
        if is_due(forgot, FORGET_EVERY) {
            match forget(ledger.store(), ledger.clock().now_ms()).await {
                // At once again where there is more; whoever writes comes in between.
                Ok((_, true)) => continue,
                Ok((_, false)) => forgot = Some(Instant::now()),
                Err(error) => tracing::warn!(%error, "old messages could not be forgotten"),
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
