//! Coupons of another system, from CSV: what each line comes to, and the coupon that results.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate, NaiveTime, TimeZone as _};
use serde_json::{Value, json};

use super::rules::date;
use super::wire::{int_or, text};
use super::{COME_IMPORTED, Call, Data, Model, Origin, Redemption};

/// A line whose cells are right.
struct Incoming {
    id: i64,
    definition_id: i64,
    member_id: i64,
    days: (NaiveDate, NaiveDate),
    born_ms: i64,
    /// When it was used or voided.
    used_ms: Option<i64>,
    past: Past,
}

enum Past {
    Unused,
    Used { shop_id: i64, by: i64, at_ms: i64 },
    Voided,
}

/// What a file has had so far: its ids, and what a dry run would have taken of each definition.
#[derive(Default)]
struct Before {
    ids: BTreeSet<i64>,
    taken: BTreeMap<i64, i64>,
}

/// The cells of one line by the names of their columns.
type Cells<'a> = BTreeMap<&'a str, &'a str>;

/// A line that was not taken is told with the column that is to blame.
type Blame = &'static str;

impl Model {
    /// What has become of a coupon that came with an import.
    pub fn imported_as(&self, now_ms: i64, coupon_id: i64) -> &'static str {
        let Some(coupon) = self.coupons.get(&coupon_id) else {
            return "not imported";
        };
        match coupon {
            _ if coupon.voided => "imported voided",
            _ if coupon.used_by_redemption.is_some() => "imported used",
            _ if self.not_expired(now_ms, coupon).is_err() => "imported past its end",
            _ => "imported in hand",
        }
    }

    /// Whether lines of this file were taken under this key; without one the file stands for itself.
    pub fn has_imported(&self, key: &str) -> bool {
        self.imported.contains_key(key)
    }

    /// "a bad line stops nothing else", and "the same file again takes nothing twice": what was taken under its key is
    /// counted again, and the rest is asked afresh. "A dry run … writes nothing."
    pub(super) fn import(&mut self, call: &Call) -> Data {
        let csv = text(call.body, "csv");
        let is_dry = int_or(call.body, "dry_run", 1) == 1;
        let key = self.key.clone().unwrap_or_else(|| csv.to_owned());
        let taken =
            if is_dry { BTreeSet::new() } else { self.imported.get(&key).cloned().unwrap_or_default() };
        let mut lines = csv.lines();
        let columns: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
        let (mut before, mut errors, mut count) = (Before::default(), Vec::new(), 0);
        for (number, line) in (2..).zip(lines) {
            count += 1;
            let cells: Vec<&str> = line.split(',').collect();
            let outcome = if cells.len() == columns.len() {
                self.read_line(call.now_ms, &columns.iter().copied().zip(cells).collect())
            } else {
                Err("csv")
            };
            match outcome.and_then(|line| self.admit(call.now_ms, line, &mut before, &taken)) {
                Ok(line) if is_dry => {
                    let takes = i64::from(!matches!(line.past, Past::Voided));
                    *before.taken.entry(line.definition_id).or_default() += takes;
                }
                Ok(line) if taken.contains(&line.id) => {}
                Ok(line) => {
                    self.imported.entry(key.clone()).or_default().insert(line.id);
                    self.take_over(line);
                }
                Err(field) => {
                    errors.push(json!({ "line": number, "field": field, "why": why(call, errors.len()) }));
                }
            }
        }
        Data::Exactly(json!({
            "nums": count,
            "ok_num": count - errors.len(),
            "bad_num": errors.len(),
            "dry_run": i64::from(is_dry),
            "errors": errors,
        }))
    }

    /// "the first of: its cells, …".
    fn read_line(&self, now_ms: i64, cells: &Cells) -> Result<Incoming, Blame> {
        let cell = |name: &str| cells.get(name).copied().unwrap_or_default();
        let number = |name: Blame| cell(name).parse::<i64>().map_err(|_| name);
        let day = |name: Blame| date(cell(name)).ok_or(name);
        let time = |name: Blame| match cell(name) {
            "" | "0" => Ok(None),
            text => self.instant(text).map(Some).ok_or(name),
        };
        let (id, definition_id, member_id) = (number("id")?, number("coupon_id")?, number("member_id")?);
        let (start, end) = (day("start_date")?, day("end_date")?);
        // "default start_date", and by now where that is still to come.
        let born_ms = time("create_date")?.unwrap_or_else(|| self.first_instant_of(start).min(now_ms));
        let used_ms = match (cell("state"), time("use_date")) {
            (
                "unused" | "未使用" | "0" | "used" | "已使用" | "1" | "voided" | "已作廢" | "已作废" | "3",
                used_ms,
            ) => used_ms?,
            _ => return Err("state"),
        };
        let past = match cell("state") {
            "unused" | "未使用" | "0" if used_ms.is_none() => Past::Unused,
            "used" | "已使用" | "1" => Past::Used {
                at_ms: used_ms.ok_or("use_date")?,
                shop_id: number("shop_id")?,
                by: if cell("user_id").is_empty() { 0 } else { number("user_id")? },
            },
            "voided" | "已作廢" | "已作废" | "3" => Past::Voided,
            _ => return Err("use_date"),
        };
        Ok(Incoming { id, definition_id, member_id, days: (start, end), born_ms, used_ms, past })
    }

    /// "… its id, its times, 2002, 310, 2003, 5001". Limits, levels and the switch are for what is issued here.
    fn admit(
        &self,
        now_ms: i64,
        line: Incoming,
        before: &mut Before,
        taken: &BTreeSet<i64>,
    ) -> Result<Incoming, Blame> {
        let is_second = !before.ids.insert(line.id);
        if is_second || (self.coupons.contains_key(&line.id) && !taken.contains(&line.id)) {
            return Err("id");
        }
        if taken.contains(&line.id) {
            return Ok(line);
        }
        if line.days.1 < line.days.0 {
            return Err("end_date");
        }
        if line.born_ms > now_ms {
            return Err("create_date");
        }
        if line.used_ms.is_some_and(|used_ms| used_ms > now_ms) {
            return Err("use_date");
        }
        if !self.definitions.contains_key(&line.definition_id) {
            return Err("coupon_id");
        }
        if !self.members.contains_key(&line.member_id) {
            return Err("member_id");
        }
        if matches!(line.past, Past::Used { shop_id, .. } if !self.shops.contains_key(&shop_id)) {
            return Err("shop_id");
        }
        let would_be_taken = before.taken.get(&line.definition_id).copied().unwrap_or_default();
        let is_sold_out = self.left_of(line.definition_id).is_some_and(|left| left <= would_be_taken);
        // "What was voided there takes no stock."
        if is_sold_out && !matches!(line.past, Past::Voided) {
            return Err("coupon_id");
        }
        Ok(line)
    }

    /// Under "its definition's terms of now".
    fn take_over(&mut self, line: Incoming) {
        let Incoming { id, definition_id, member_id, days, born_ms, past, .. } = line;
        let origin = Origin { come: COME_IMPORTED, user_id: self.operator_user_id, ..Origin::default() };
        self.put_coupon(born_ms, id, definition_id, member_id, days, origin);
        match past {
            Past::Unused => {}
            Past::Voided => self.void(id),
            Past::Used { shop_id, by, at_ms } => {
                let redemption_id = self.chosen.redemptions.get(&id).copied().unwrap_or(-id);
                let redemption = Redemption {
                    id: redemption_id,
                    coupon_id: id,
                    member_id,
                    shop_id,
                    by,
                    at_ms,
                    reversed_ms: None,
                };
                self.redemptions.insert(redemption_id, redemption);
                self.change(id, |coupon| coupon.used_by_redemption = Some(redemption_id));
            }
        }
    }

    /// A day stands for its first instant; a time that happens twice is the earlier one.
    fn instant(&self, text: &str) -> Option<i64> {
        let Some((day, time)) = text.split_once(' ') else {
            return date(text).map(|day| self.first_instant_of(day));
        };
        let local = date(day)?.and_time(time.parse::<NaiveTime>().ok()?);
        Some(self.zone.from_local_datetime(&local).earliest()?.timestamp_millis())
    }

    fn first_instant_of(&self, day: NaiveDate) -> i64 {
        self.first_instant_after(day - Days::new(1))
    }
}

/// The words are the server's, but there must be some.
fn why(call: &Call, place: usize) -> Value {
    let told =
        call.answered.get("errors").and_then(|errors| errors.get(place)).map(|error| text(error, "why"));
    json!(told.filter(|why| !why.is_empty()).unwrap_or("why it was not taken"))
}
