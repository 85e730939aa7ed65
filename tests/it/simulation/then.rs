//! What was shown on the way, asked again at the end from events alone.

use coupon_ledger::identity::Caller;
use rand::Rng as _;
use rand::seq::SliceRandom as _;
use serde_json::json;

use super::Simulation;
use crate::as_of::{assert_as_given, given_here};

/// How many commands lie between two answers that are kept.
const KEPT_EVERY: usize = 20;

/// How many of those of operators are asked again: each replays the whole log up to then.
const OF_OPERATORS: usize = 2;

impl Simulation {
    /// Keeps what a member sees of his coupons or of one, or an operator of a definition.
    pub(super) async fn keep_an_answer(&mut self, number: usize) {
        if !number.is_multiple_of(KEPT_EVERY) {
            return;
        }
        let member = self.member();
        let (caller, path, body) = match self.rng.random_range(0..10) {
            0..6 => {
                let (state, limit) = (self.rng.random_range(0..=2), self.rng.random_range(1..=100));
                (Caller::Member(member), "/client/couponlist", json!({"state": state, "limit": limit}))
            }
            6..9 => {
                let body = json!({"id": self.coupon()});
                // Opened before, so that seeing it is no event.
                self.compare_all(vec![(member, "/client/couponinfo", body.clone())]).await;
                (Caller::Member(member), "/client/couponinfo", body)
            }
            _ => {
                let id = self.rng.random_range(1..=self.definitions.len());
                (Caller::Operator, "/elecoupons/info", json!({"id": id}))
            }
        };
        self.kept.extend(given_here(&self.world, caller, path, body).await);
    }

    /// As of the position where each was given, cold and in no order.
    pub(super) async fn compare_with_what_was_shown(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        kept.shuffle(&mut self.rng);
        let (of_operators, of_members): (Vec<_>, Vec<_>) =
            kept.iter().partition(|given| given.caller == Caller::Operator);
        assert!(of_members.len() > 3, "{} answers were kept", of_members.len());
        for given in of_operators.into_iter().take(OF_OPERATORS).chain(of_members) {
            assert_as_given(&self.world, given).await;
        }
    }
}
