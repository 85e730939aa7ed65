//! Mass send, recall and extension: what each must have written when it has worked, and what its pages show.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::rules::date;
use super::wire::{ensure, ids, int, int_or, merged, page_of, refusal, text, unix_seconds};
use super::{Answer, COME_MASS_SEND, Call, Check, Coupon, Data, Member, Model, Origin, code};

/// "the same send again within ten minutes under another key needs [confirm=1]".
const REPEATED_WITHIN_MS: i64 = 10 * 60 * 1000;

/// "state 0 running, 1 done, [2 paused, 3 cancelled]".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Running = 0,
    Done = 1,
    Paused = 2,
    Cancelled = 3,
}

/// Which coupons a recall or an extension is about.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Definition(i64),
    Send(i64),
}

#[derive(Clone, PartialEq)]
enum Work {
    Send { definition_id: i64, shop_ids: Vec<i64>, tag_ids: Vec<i64>, level_ids: Vec<i64>, notify: bool },
    Recall(Of),
    Extend(Of, NaiveDate),
}

/// What an operator started.
#[derive(Clone)]
pub(super) struct Job {
    work: Work,
    reason: String,
    user_id: i64,
    state: State,
    nums: i64,
    started_ms: i64,
    ended_ms: i64,
    /// The members of a send or the coupons of the others that are still to be done, in order: "Mass send fixes its
    /// recipients when added".
    left: Vec<i64>,
    /// Which of them are done although no page shows it: the server died before it could say so.
    unsaid: BTreeSet<i64>,
    /// What pages show.
    done: i64,
    refused: BTreeMap<i64, i64>,
}

/// How a server worked on a job.
#[derive(Debug, Clone, Copy)]
pub struct Shift {
    /// How many recipients of a send it takes at a time.
    pub piece: usize,
    /// After so many pieces it dies, with the next one written and not said.
    pub dies_after: Option<usize>,
}

impl Model {
    /// 2002 5006, then 401 for a repetition, then 5001: "less stock than recipients → 5001 at once".
    pub(super) fn send(&mut self, call: &Call) -> Answer {
        let definition_id = int(call.body, "coupon_id");
        let work = Work::Send {
            definition_id,
            shop_ids: ids(call.body, "shop_ids"),
            tag_ids: ids(call.body, "tag_ids"),
            level_ids: ids(call.body, "level_ids"),
            notify: int_or(call.body, "is_all_send", 0) == 1,
        };
        let definition = self.definitions.get(&definition_id).ok_or(refusal(code::NO_SUCH_DEFINITION))?;
        ensure(self.is_on_offer(call.now_ms, definition), code::NOT_ON_OFFER)?;
        self.not_repeated(call, &work)?;
        let recipients = self.recipients(call.body);
        let nums = recipients.len() as i64;
        let in_stock = definition.num - self.issued(definition_id);
        ensure(definition.num == 0 || nums <= in_stock, code::SOLD_OUT)?;
        let (id, job) = self.start(call, work, recipients, nums);
        Ok(Data::Exactly(merged(
            filters(&job),
            json!({
                "coupon_id": definition_id,
                "nums": nums,
                "user_id": job.user_id,
                "create_date": unix_seconds(job.started_ms),
                "id": id,
            }),
        )))
    }

    /// "values of one filter are or-ed, the three and-ed", and an empty one means everybody.
    fn recipients(&self, body: &Value) -> Vec<i64> {
        let [shops, tags, levels] = ["shop_ids", "tag_ids", "level_ids"].map(|filter| ids(body, filter));
        let is_meant = |member: &Member| {
            (shops.is_empty() || shops.contains(&member.shop_id))
                && (tags.is_empty() || tags.iter().any(|tag| member.tag_ids.contains(tag)))
                && (levels.is_empty() || levels.contains(&member.level_id))
        };
        self.members.iter().filter(|(_, member)| is_meant(member)).map(|(id, _)| *id).collect()
    }

    pub(super) fn recall(&mut self, call: &Call) -> Answer {
        self.start_on_coupons(call, Work::Recall)
    }

    pub(super) fn extend(&mut self, call: &Call) -> Answer {
        let end = date(text(call.body, "end_date")).ok_or(refusal(code::WRONG_FIELDS))?;
        self.start_on_coupons(call, |of| Work::Extend(of, end))
    }

    /// What is issued after the start is not meant.
    fn start_on_coupons(&mut self, call: &Call, work: impl FnOnce(Of) -> Work) -> Answer {
        let of = match (int_or(call.body, "coupon_id", 0), int_or(call.body, "send_id", 0)) {
            (0, send_id) => Of::Send(send_id),
            (definition_id, _) => Of::Definition(definition_id),
        };
        let nums = match of {
            Of::Definition(id) => {
                ensure(self.definitions.contains_key(&id), code::NO_SUCH_DEFINITION)?;
                self.issued(id)
            }
            Of::Send(id) => {
                let send = self.jobs.get(&id).filter(|job| matches!(job.work, Work::Send { .. }));
                send.ok_or(refusal(code::NO_SUCH_RULE))?.done
            }
        };
        let is_meant = |coupon: &&Coupon| match of {
            Of::Definition(id) => coupon.definition.id == id,
            Of::Send(id) => coupon.origin.send_id == id,
        };
        let meant = self.coupons.values().filter(is_meant).map(|coupon| coupon.id).collect();
        let work = work(of);
        self.not_repeated(call, &work)?;
        let (id, _) = self.start(call, work, meant, nums);
        Ok(Data::Exactly(json!({ "id": id, "nums": nums })))
    }

    fn not_repeated(&self, call: &Call, work: &Work) -> Check {
        let is_same = |job: &Job| job.work == *work && call.now_ms - job.started_ms < REPEATED_WITHIN_MS;
        let confirmed = int_or(call.body, "confirm", 0) == 1;
        ensure(confirmed || !self.jobs.values().any(is_same), code::WRONG_FIELDS)
    }

    fn start(&mut self, call: &Call, work: Work, left: Vec<i64>, nums: i64) -> (Value, Job) {
        let job = Job {
            work,
            reason: text(call.body, "reason").to_owned(),
            user_id: self.operator_user_id,
            state: State::Running,
            nums,
            started_ms: call.now_ms,
            ended_ms: 0,
            left,
            unsaid: BTreeSet::new(),
            done: 0,
            refused: BTreeMap::new(),
        };
        let answered_id = call.answered.get("id").and_then(Value::as_i64);
        match answered_id.filter(|id| !self.jobs.contains_key(id)) {
            Some(id) => {
                self.jobs.insert(id, job.clone());
                (json!(id), job)
            }
            None => (json!("a new job's id"), job),
        }
    }

    /// Asked to be what it is already, a job says so; what has ended cannot be changed: 401.
    pub(super) fn change_job(&mut self, call: &Call, wanted: State) -> Answer {
        let id = int(call.body, "id");
        let job = self.jobs.get_mut(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
        if job.state != wanted {
            ensure(matches!(job.state, State::Running | State::Paused), code::WRONG_FIELDS)?;
            job.state = wanted;
            if wanted == State::Cancelled {
                job.ended_ms = call.now_ms;
            }
        }
        Ok(Data::Exactly(json!({ "id": id, "state": wanted as i64 })))
    }

    /// What operators and employees read.
    pub(super) fn read_job(&self, call: &Call, route: &str) -> Answer {
        match route {
            "/sendelecoupon/getnum" => {
                let [shops, tags, levels] =
                    ["shop_ids", "tag_ids", "level_ids"].map(|filter| ids(call.body, filter));
                Ok(Data::Exactly(json!({
                    "num": self.recipients(call.body).len(),
                    "shopList": self.shop_names(&shops),
                    "tagList": joined_or(&tags, "全部"),
                    "levelList": joined_or(&levels, "全部"),
                })))
            }
            "/sendelecoupon/info" => self.send_info(call),
            "/job/info" => {
                let id = int(call.body, "id");
                let job = self.jobs.get(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
                Ok(Data::Exactly(job_row(id, job)))
            }
            "/sendelecoupon/getlist" => {
                let sends = self.jobs.iter().rev().filter(|(_, job)| matches!(job.work, Work::Send { .. }));
                let rows = sends.map(|(id, job)| self.send_row(*id, job)).collect();
                Ok(Data::Exactly(Value::Array(page_of(call.body, rows))))
            }
            "/job/getlist" => {
                let rows = self.jobs.iter().rev().map(|(id, job)| job_row(*id, job)).collect();
                Ok(Data::Exactly(Value::Array(page_of(call.body, rows))))
            }
            _ => Err(refusal(code::NOT_ALLOWED)),
        }
    }

    fn send_info(&self, call: &Call) -> Answer {
        let id = int(call.body, "id");
        let job = self.jobs.get(&id).ok_or(refusal(code::NO_SUCH_RULE))?;
        let Work::Send { shop_ids, tag_ids, level_ids, .. } = &job.work else {
            return Err(refusal(code::NO_SUCH_RULE));
        };
        Ok(Data::Exactly(merged(
            self.send_row(id, job),
            json!({
                "refused": job.refused,
                "shopList": self.shop_names(shop_ids),
                "tagList": joined_or(tag_ids, "全部"),
                "levelList": joined_or(level_ids, "全部"),
                "user_name": "",
            }),
        )))
    }

    fn shop_names(&self, ids: &[i64]) -> String {
        // A partner is no shop where shops are listed.
        let own = |id: &i64| self.shops.get(id).filter(|shop| shop.partner.is_none());
        let name = |id: &i64| own(id).map_or(id.to_string(), |shop| shop.name.clone());
        let names: Vec<String> = ids.iter().map(name).collect();
        if names.is_empty() { "全部".to_owned() } else { names.join(",") }
    }

    fn send_row(&self, id: i64, job: &Job) -> Value {
        let Work::Send { definition_id, notify, .. } = &job.work else {
            return Value::Null;
        };
        let definition = self.definitions.get(definition_id);
        merged(
            filters(job),
            json!({
                "id": id,
                "nums": job.nums,
                "user_id": job.user_id,
                "create_date": unix_seconds(job.started_ms),
                "coupon_id": definition_id,
                "state": job.state as i64,
                "send_num": job.done,
                "refused_num": job.refused.values().sum::<i64>(),
                "is_all_send": i64::from(*notify),
                "coupon_title": definition.map_or("", |definition| definition.title.as_str()),
            }),
        )
    }
}

/// Working on them. No call answers this: the driver lets the server work, and tells the model what the log says of it.
impl Model {
    /// Whether there is such a job, and in which state.
    pub fn job_state(&self, job_id: i64) -> Option<State> {
        self.jobs.get(&job_id).map(|job| job.state)
    }

    /// Whom a send has still to reach, in order; of other jobs, the coupons.
    pub fn job_left(&self, job_id: i64) -> &[i64] {
        self.jobs.get(&job_id).map_or(&[], |job| &job.left)
    }

    /// Lets a job work now. `wrote` is (member, coupon) of every coupon that it issued, or (coupon, coupon) of every one
    /// that it voided or moved; what it must have written comes back in the same shape.
    pub fn run_job(
        &mut self,
        now_ms: i64,
        job_id: i64,
        shift: Shift,
        wrote: &[(i64, i64)],
    ) -> Vec<(i64, i64)> {
        let Some(mut job) = self.jobs.remove(&job_id) else {
            return Vec::new();
        };
        let written = match job.state {
            State::Running => match job.work.clone() {
                Work::Send { definition_id, .. } => {
                    self.issue_many(now_ms, job_id, &mut job, definition_id, shift, wrote)
                }
                _ if shift.dies_after.is_some() => self.change_some(now_ms, &mut job, wrote),
                _ => self.change_all(now_ms, &mut job),
            },
            State::Cancelled => {
                // "what it has done stays done", and is now said.
                job.done += std::mem::take(&mut job.unsaid).len() as i64;
                job.left.clear();
                Vec::new()
            }
            State::Paused | State::Done => Vec::new(),
        };
        if job.state == State::Running && shift.dies_after.is_none() {
            (job.state, job.ended_ms) = (State::Done, now_ms);
        }
        self.jobs.insert(job_id, job);
        written
    }

    /// Piece by piece, in the order of the members; each under the rules of a single issue. Who has his is passed over,
    /// and who was refused in a piece that was not said is asked again.
    fn issue_many(
        &mut self,
        now_ms: i64,
        job_id: i64,
        job: &mut Job,
        definition_id: i64,
        shift: Shift,
        wrote: &[(i64, i64)],
    ) -> Vec<(i64, i64)> {
        let origin =
            Origin { come: COME_MASS_SEND, user_id: job.user_id, send_id: job_id, ..Origin::default() };
        let mut written = Vec::new();
        for number in 0.. {
            let piece: Vec<i64> = job.left.iter().copied().take(shift.piece).collect();
            if piece.is_empty() {
                break;
            }
            let mut refused = Vec::new();
            for member_id in &piece {
                if job.unsaid.contains(member_id) {
                    continue;
                }
                match self.can_issue(now_ms, definition_id, *member_id) {
                    Ok(days) => {
                        let id = wrote.iter().find(|(to, _)| to == member_id).map_or(0, |(_, id)| *id);
                        self.put_coupon(now_ms, id, definition_id, *member_id, days, origin);
                        job.unsaid.insert(*member_id);
                        written.push((*member_id, id));
                    }
                    Err(why) => refused.push(why.code),
                }
            }
            if shift.dies_after == Some(number) {
                break;
            }
            job.left.drain(..piece.len());
            job.say(refused);
        }
        written
    }

    /// All that is left of a recall or an extension.
    fn change_all(&mut self, now_ms: i64, job: &mut Job) -> Vec<(i64, i64)> {
        let mut written = Vec::new();
        let mut refused = Vec::new();
        let mut unchanged = 0;
        for coupon_id in std::mem::take(&mut job.left) {
            if job.unsaid.contains(&coupon_id) {
                continue;
            }
            match self.change_one(now_ms, &job.work, coupon_id) {
                Ok(true) => {
                    job.unsaid.insert(coupon_id);
                    written.push((coupon_id, coupon_id));
                }
                // It ends on that day already.
                Ok(false) => unchanged += 1,
                Err(why) => refused.push(why),
            }
        }
        job.say(refused);
        job.done += unchanged;
        written
    }

    /// A piece of which is not known how long it was: those that were changed must be of those that could be.
    fn change_some(&mut self, now_ms: i64, job: &mut Job, wrote: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut written = Vec::new();
        for (coupon_id, _) in wrote {
            let is_open = job.left.contains(coupon_id) && job.unsaid.insert(*coupon_id);
            if is_open && self.change_one(now_ms, &job.work, *coupon_id) == Ok(true) {
                written.push((*coupon_id, *coupon_id));
            }
        }
        written
    }

    /// Voids it or moves its end; whether that changed anything, or the code with which it is refused.
    fn change_one(&mut self, now_ms: i64, work: &Work, coupon_id: i64) -> Result<bool, i64> {
        let coupon = self.coupons.get(&coupon_id).ok_or(code::NO_SUCH_COUPON)?;
        self.could_be_voided(coupon).map_err(|why| why.code)?;
        let Work::Extend(_, end) = *work else {
            self.void(coupon_id);
            return Ok(true);
        };
        if end < coupon.start {
            return Err(code::WRONG_FIELDS);
        }
        if end == coupon.end {
            return Ok(false);
        }
        let ends_ms = self.first_instant_after(end);
        self.change(coupon_id, |coupon| {
            coupon.end = end;
            // What had lapsed stays lapsed; what waits lapses with the coupon at the latest.
            coupon.gift.take_if(|gift| gift.lapses_ms <= now_ms);
            if let Some(gift) = &mut coupon.gift {
                gift.lapses_ms = gift.lapses_ms.min(ends_ms);
            }
            coupon.gift.take_if(|gift| gift.lapses_ms <= now_ms);
        });
        Ok(true)
    }
}

impl Job {
    /// A piece is over: pages show it.
    fn say(&mut self, refused: Vec<i64>) {
        self.done += std::mem::take(&mut self.unsaid).len() as i64;
        for code in refused {
            *self.refused.entry(code).or_default() += 1;
        }
    }
}

fn job_row(id: i64, job: &Job) -> Value {
    let (kind, (definition_id, send_id), end_date) = match &job.work {
        Work::Send { definition_id, .. } => (0, (*definition_id, 0), String::new()),
        Work::Recall(of) => (1, both_ids(*of), String::new()),
        Work::Extend(of, end) => (2, both_ids(*of), end.to_string()),
    };
    json!({
        "id": id,
        "type": kind,
        "state": job.state as i64,
        "coupon_id": definition_id,
        "send_id": send_id,
        "end_date": end_date,
        "nums": job.nums,
        "done_num": job.done,
        "refused_num": job.refused.values().sum::<i64>(),
        "refused": job.refused,
        "reason": job.reason,
        "user_id": job.user_id,
        "create_date": unix_seconds(job.started_ms),
        "end_time": unix_seconds(job.ended_ms),
    })
}

fn both_ids(of: Of) -> (i64, i64) {
    match of {
        Of::Definition(id) => (id, 0),
        Of::Send(id) => (0, id),
    }
}

/// The filters of a send as its pages show them: "0" = all.
fn filters(job: &Job) -> Value {
    let Work::Send { shop_ids, tag_ids, level_ids, .. } = &job.work else {
        return Value::Null;
    };
    json!({
        "shop_ids": joined_or(shop_ids, "0"),
        "tag_ids": joined_or(tag_ids, "0"),
        "level_ids": joined_or(level_ids, "0"),
    })
}

fn joined_or(ids: &[i64], all: &str) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    if ids.is_empty() { all.to_owned() } else { ids.join(",") }
}
