//! What everybody sees, compared with what the model says he must.

use std::collections::BTreeMap;

use coupon_ledger::identity::Caller;
use coupon_ledger::store::{BUCKET, Statement};
use futures::future::join_all;
use rand::Rng as _;
use serde_json::{Value, json};

use super::{MEMBERS, Simulation};
use crate::model::{Data, Who};

impl Simulation {
    /// What is left of each definition is its stock less what was issued and not voided, and never less than nothing; each
    /// member's count is what he was issued, and nobody is over a limit.
    pub(super) async fn check_counters(&mut self) {
        let sql = "SELECT definition_id, stock, issued FROM stock_v1 WHERE bucket = $1";
        let rows = self.world.store().query(Statement::new(sql, [BUCKET.into()])).await.unwrap();
        let stock: BTreeMap<i64, (i64, i64)> =
            rows.iter().map(|row| (row.int(0), (row.int(1), row.int(2)))).collect();
        for (id, (stock, issued)) in &stock {
            assert!(*stock < 0 || issued <= stock, "definition {id} is oversold: {issued} of {stock}");
        }
        let unlimited = |num: i64| if num == 0 { -1 } else { num };
        let expected = self.model.stock();
        let expected = expected.into_iter().map(|(id, (num, issued))| (id, (unlimited(num), issued)));
        // An allotment's counter lies under the negative of its id.
        let allotted = self.model.allotted().into_iter().map(|(id, counts)| (-id, counts));
        assert_eq!(stock, expected.chain(allotted).collect());

        let sql =
            "SELECT member_id, definition_id, issued FROM member_counts_v1 WHERE bucket = $1 AND issued <> 0";
        let rows = self.world.store().query(Statement::new(sql, [BUCKET.into()])).await.unwrap();
        let counts: BTreeMap<(i64, i64), i64> =
            rows.iter().map(|row| ((row.int(0), row.int(1)), row.int(2))).collect();
        assert_eq!(counts, self.model.member_counts());
        let unexpired = self.model.unexpired_counts(self.now_ms());
        for (definition, limits) in self.limits.iter().filter(|(id, _)| !self.imported.contains(id)) {
            // An edit takes back nothing: the loosest limit that there has been is the one that holds.
            let of = |(key, _): &(&(i64, i64), &i64)| key.1 == *definition;
            if limits.iter().all(|(kind, _)| *kind == 2) {
                let most = limits.iter().map(|(_, limit)| *limit).max().unwrap_or_default();
                assert!(
                    counts.iter().filter(of).all(|(_, count)| *count <= most),
                    "{definition}: {counts:?}"
                );
            }
            if !self.extended && limits.iter().all(|(kind, _)| *kind == 3) {
                assert!(
                    unexpired.iter().filter(of).all(|(_, count)| *count <= 1),
                    "{definition}: {unexpired:?}"
                );
            }
        }
    }

    /// Compares every list of every member, whole or page by page.
    pub(super) async fn compare_lists(&mut self, every_page: bool) {
        let mut calls = Vec::new();
        for member in MEMBERS {
            calls.push((member, "/client/couponcount", json!({})));
            calls.push((member, "/client/getauditcoupon", json!({})));
            for state in 0..=2 {
                calls.push((member, "/client/couponlist", json!({"state": state, "limit": 100})));
                let limit = self.rng.random_range(1..=12);
                let pages = if every_page { 1 + self.coupons.len() as i64 / limit } else { 2 };
                for page in 1..=pages.min(40) {
                    let body = json!({"state": state, "page": page, "limit": limit});
                    calls.push((member, "/client/couponlist", body));
                }
                let before = self.coupon();
                calls.push((
                    member,
                    "/client/couponlist",
                    json!({"state": state, "before_id": before, "limit": limit}),
                ));
            }
        }
        self.compare_all(calls).await;
        self.perform(Who::Operator, "/elecoupons/getlist", json!({"limit": 100}), None).await;
        for member in MEMBERS {
            let reply = self.world.call(Caller::Member(member), "/client/cangetcoupon", json!({})).await;
            let listed: Vec<i64> =
                reply.ok().as_array().unwrap().iter().map(|row| row["id"].as_i64().unwrap()).collect();
            assert_eq!(listed, self.model.claimable(self.now_ms(), member), "what member {member} may claim");
        }
    }

    /// Compares what each of its holders, and someone else, sees of every coupon touched since the last time.
    pub(super) async fn compare_touched(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        // Whoever looks marks his row as read; half of them stay unread for a while.
        let calls = touched.into_iter().filter(|_| self.rng.random_ratio(1, 2)).collect::<Vec<_>>();
        let calls = self.infos_of(&calls);
        self.compare_all(calls).await;
    }

    pub(super) async fn compare_infos(&mut self) {
        let calls = self.infos_of(&self.coupons);
        self.compare_all(calls).await;
    }

    pub(super) fn infos_of(&self, coupons: &[i64]) -> Vec<(i64, &'static str, Value)> {
        let viewers = |id: &i64| {
            let stranger = MEMBERS.start() + id % 12;
            self.model.holders(*id).into_iter().chain([stranger])
        };
        let calls = coupons
            .iter()
            .flat_map(|id| viewers(id).map(move |member| (member, "/client/couponinfo", json!({"id": id}))));
        calls.collect()
    }

    pub(super) async fn compare_redemptions(&mut self) {
        let member = |id: &i64| MEMBERS.start() + id % 12;
        let calls =
            self.redemptions.iter().map(|(id, _)| (member(id), "/client/auditcouponinfo", json!({"id": id})));
        let calls = calls.collect();
        self.compare_all(calls).await;
    }

    /// Asks side by side, as none of these changes another's answer, and compares one by one.
    pub(super) async fn compare_all(&mut self, calls: Vec<(i64, &'static str, Value)>) {
        for some in calls.chunks(64) {
            let asked = some
                .iter()
                .map(|(member, route, body)| self.world.call(Caller::Member(*member), route, body.clone()));
            for ((member, route, body), reply) in some.iter().zip(join_all(asked).await) {
                let now_ms = self.now_ms();
                let expected = self.model.call(now_ms, &Who::Member(*member), route, body, &reply.body);
                let asked = format!("{now_ms} {member} {route} {body} → {}", reply.body);
                assert_eq!(reply.code(), expected.code, "{asked}");
                if let Data::Exactly(data) = &expected.data {
                    assert_eq!(reply.data(), data, "{asked}");
                }
            }
        }
        // Opening a coupon has written something.
        self.write_down().await;
    }
}
