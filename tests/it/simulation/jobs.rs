//! Mass sends, recalls and extensions: started, worked on, paused, resumed, cancelled, and killed between a piece and the
//! word of it.

use chrono::Days;
use coupon_ledger::coupon::{Coupon, CouponEvent};
use coupon_ledger::entity::decode;
use coupon_ledger::runner::{open_jobs, run_job};
use coupon_ledger::store::Statement;
use rand::Rng as _;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};
use serde_json::{Value, json};

use super::{EMPLOYEES, Simulation};
use crate::model::{Shift, State, Who};

impl Simulation {
    /// One step of an operator who sends, recalls and extends, or of the server that works for him.
    pub(super) async fn employ(&mut self) {
        match self.rng.random_range(0..100) {
            0..35 => {
                let repeated = self.last_job.clone().filter(|_| self.rng.random_ratio(1, 6));
                let (route, body) = repeated.unwrap_or_else(|| self.some_job());
                self.last_job = Some((route, body.clone()));
                let key = self.key();
                self.perform(Who::Operator, route, body, key).await;
            }
            35..50 => {
                let route = *[
                    "/sendelecoupon/pause",
                    "/job/pause",
                    "/sendelecoupon/resume",
                    "/job/resume",
                    "/job/resume",
                    "/job/cancel",
                ]
                .choose(&mut self.rng)
                .unwrap();
                let (job, key) = (self.job(), self.key());
                self.perform(Who::Operator, route, json!({"id": job}), key).await;
            }
            50..92 => self.work().await,
            _ => self.read_jobs().await,
        }
    }

    fn some_job(&mut self) -> (&'static str, Value) {
        let definition = self.definition();
        let mut body = json!({"coupon_id": definition});
        if self.chance(30) {
            body["confirm"] = 1.into();
        }
        if self.chance(65) {
            for (field, range) in [("shop_ids", 1..=4), ("tag_ids", 1..=3), ("level_ids", 1..=3)] {
                let count = self.rng.random_range(1..=2);
                body[field] = match self.rng.random_range(0..10) {
                    0..4 => Value::Null,
                    4..6 => "0".into(),
                    _ => joined(&self.some_of(range, count)).into(),
                };
            }
            body["is_all_send"] = i64::from(self.chance(20)).into();
            return ("/sendelecoupon/add", body);
        }
        if self.chance(40) {
            let send = if self.chance(25) { 99_999 } else { self.job() };
            (body["coupon_id"], body["send_id"]) = (Value::Null, send.into());
        }
        body["reason"] = "活動改期".into();
        if self.chance(35) {
            return ("/elecoupons/recall", body);
        }
        let end = self.today() - Days::new(4) + Days::new(self.rng.random_range(0..25));
        body["end_date"] = end.to_string().into();
        ("/elecoupons/extend", body)
    }

    /// A job of late, most often one that is not at its end.
    fn job(&mut self) -> i64 {
        let open = |id: &&i64| matches!(self.model.job_state(**id), Some(State::Running | State::Paused));
        let job = match self.rng.random_range(0..100) {
            0..12 => None,
            12..60 => self.jobs.keys().rev().take(6).filter(open).choose(&mut self.rng),
            _ => self.jobs.keys().rev().take(12).choose(&mut self.rng),
        };
        job.copied().unwrap_or(99_999)
    }

    /// Small pieces, so that there are several, of the same length for ever.
    pub(super) async fn cut(&mut self, job_id: i64, is_send: bool) {
        let piece = if is_send { self.rng.random_range(1..=5) } else { self.rng.random_range(5..=300) };
        let sql = "UPDATE job_progress SET chunk = $2 WHERE job_id = $1";
        let cut = Statement::new(sql, [job_id.into(), piece.into()]);
        self.world.store().write(vec![cut]).await.unwrap();
        self.jobs.insert(job_id, (is_send, piece as usize));
    }

    /// Lets the server work on a job until it is done, or until it dies with a piece written and its progress lost.
    async fn work(&mut self) {
        let open = open_jobs(self.world.store()).await.unwrap();
        let Some(job_id) = open.choose(&mut self.rng).copied() else { return };
        let (is_send, piece) = self.jobs[&job_id];
        let left = self.model.job_left(job_id).to_vec();
        let mut dies_after = None;
        if self.model.job_state(job_id) == Some(State::Running) && !left.is_empty() && self.chance(60) {
            let pieces = if is_send { left.len().div_ceil(piece) } else { 1 };
            let after = self.rng.random_range(0..pieces);
            let position = if is_send { left[((after + 1) * piece).min(left.len()) - 1] } else { 1 };
            self.refuse_progress_from(position).await;
            dies_after = Some(after);
        }
        let before = self.head().await;
        let died = run_job(&self.world.ledger, job_id).await.is_err();
        if dies_after.is_some() {
            self.allow_progress().await;
        }
        self.deaths += usize::from(died);
        assert!(dies_after.is_some() || !died, "job {job_id} did not get through");
        let shift = Shift { piece, dies_after: dies_after.filter(|_| died) };

        let mut wrote = self.written_since(before).await;
        let mut expected = self.model.run_job(self.now_ms(), job_id, shift, &wrote);
        // Members are reached in their order; coupons are met as they were born, and an import brings ids of its own.
        if !is_send {
            wrote.sort_unstable();
            expected.sort_unstable();
        }
        self.history.note(format!("{} job {job_id} worked, {shift:?}: {wrote:?}", self.now_ms()));
        assert_eq!(wrote, expected, "job {job_id}, {shift:?}");
        for (of, coupon) in wrote {
            self.touched.insert(coupon);
            if of != coupon {
                self.coupons.push(coupon);
            }
        }
        let route = if is_send { "/sendelecoupon/info" } else { "/job/info" };
        self.perform(Who::Operator, route, json!({"id": job_id}), None).await;
    }

    /// (member, coupon) of every coupon that was issued behind this position, and (coupon, coupon) of every one that was
    /// voided or moved, in the order of the log.
    async fn written_since(&self, position: i64) -> Vec<(i64, i64)> {
        let mut written = Vec::new();
        for stored in self.world.store().events_after(position, 10_000).await.unwrap() {
            if stored.aggregate_type != "coupon" {
                continue;
            }
            let id = stored.aggregate_id.parse().unwrap();
            match decode::<Coupon>(&stored).unwrap() {
                CouponEvent::Issued(issue) => written.push((issue.member_id, id)),
                CouponEvent::Voided { .. } | CouponEvent::EndMoved { .. } => written.push((id, id)),
                _ => {}
            }
        }
        written
    }

    /// From now on no job gets past this member or position: its chunk is written, and what it came to is not.
    async fn refuse_progress_from(&self, position: i64) {
        let when = format!("WHEN (NEW.position > OLD.position AND NEW.position >= {position})");
        let refuse = match self.world.home.database_url {
            None => format!(
                "CREATE TRIGGER dead BEFORE UPDATE ON job_progress {when} BEGIN SELECT RAISE(ABORT, 'dead'); END"
            ),
            Some(_) => format!(
                "CREATE TRIGGER dead BEFORE UPDATE ON job_progress FOR EACH ROW {when}
                 EXECUTE FUNCTION refuse_change()"
            ),
        };
        self.world.home.sql(&refuse).await.unwrap();
    }

    async fn allow_progress(&self) {
        let allow = match self.world.home.database_url {
            None => "DROP TRIGGER dead",
            Some(_) => "DROP TRIGGER dead ON job_progress",
        };
        self.world.home.sql(allow).await.unwrap();
    }

    async fn read_jobs(&mut self) {
        let who = if self.chance(50) { Who::Operator } else { Who::Employee(*EMPLOYEES.start()) };
        let (route, body) = match self.rng.random_range(0..5) {
            0 => ("/sendelecoupon/info", json!({"id": self.job()})),
            1 => ("/job/info", json!({"id": self.job()})),
            2 => ("/sendelecoupon/getlist", json!({"page": self.rng.random_range(1..=2), "limit": 5})),
            3 => ("/job/getlist", json!({"before_id": self.rng.random_range(1..=60)})),
            _ => ("/sendelecoupon/getnum", json!({"shop_ids": "2,1", "tag_ids": "0", "level_ids": "1,3,2"})),
        };
        self.perform(who, route, body, None).await;
    }

    /// Whatever is open is brought to its end.
    pub(super) async fn finish_jobs(&mut self) {
        for (job_id, (is_send, piece)) in self.jobs.clone() {
            if self.model.job_state(job_id) == Some(State::Paused) {
                self.perform(Who::Operator, "/job/resume", json!({"id": job_id}), None).await;
            }
            let before = self.head().await;
            run_job(&self.world.ledger, job_id).await.unwrap();
            let mut wrote = self.written_since(before).await;
            let shift = Shift { piece, dies_after: None };
            let mut expected = self.model.run_job(self.now_ms(), job_id, shift, &wrote);
            if !is_send {
                wrote.sort_unstable();
                expected.sort_unstable();
            }
            assert_eq!(wrote, expected, "job {job_id} at the end");
            if is_send {
                self.coupons.extend(wrote.iter().map(|(_, coupon)| coupon));
            }
            self.perform(Who::Employee(*EMPLOYEES.start()), "/job/info", json!({"id": job_id}), None).await;
        }
        assert_eq!(open_jobs(self.world.store()).await.unwrap(), Vec::<i64>::new());
    }
}

fn joined(ids: &[i64]) -> String {
    ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
}
