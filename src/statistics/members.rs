//! How many members used coupons in some days, and how many of them had come before.
//!
//! No number of members can be added to another: the sets of `stats_visits` are put together, those of whole months where
//! months are over. What they are not kept of is asked of the uses themselves, which takes longer.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use roaring::{MultiOps as _, RoaringTreemap};

use super::ask::{MAX_GROUPS, Question, only_text, walked, whose};
use super::period::values;
use super::visits::{Grain, TABLE, Visits, What};
use crate::store::{Row, StoreError};

/// The most spans of days that a statement names one by one.
const MAX_SPANS: usize = 8;

/// Where members are counted.
#[derive(Clone, Copy)]
enum Of {
    /// In the sets that are kept of this.
    Visits(What),
    /// Among the uses, with the sets of who came again: their statement is the first.
    Uses,
}

impl Of {
    fn question(question: &Question) -> Self {
        let told_apart: BTreeSet<&str> = question.told_apart().copied().collect();
        match Vec::from_iter(told_apart).as_slice() {
            [] => Self::Visits(What::Anything),
            ["definition_id"] => Self::Visits(What::Definition),
            ["shop_id"] => Self::Visits(What::Shop),
            _ => Self::Uses,
        }
    }
}

/// Whether the members of what is asked would be counted use by use.
pub(super) fn are_counted_by_uses(question: &Question) -> bool {
    matches!(Of::question(question), Of::Uses)
}

/// Members of a line.
#[derive(Default)]
struct Came {
    members: Union,
    again: Union,
}

/// Sets that are put together many at a time: one by one, what they come to would be walked for each of them.
#[derive(Default)]
struct Union(Vec<RoaringTreemap>);

impl Union {
    const AT_A_TIME: usize = 32;

    fn add(&mut self, set: RoaringTreemap) {
        if self.0.len() == Self::AT_A_TIME {
            self.0 = vec![std::mem::take(&mut self.0).union()];
        }
        self.0.push(set);
    }

    fn len(self) -> i64 {
        self.0.union().len() as i64
    }
}

/// The members of every line, in the making.
pub(super) struct Members {
    question: Question,
    of: Of,
    /// The uses' table.
    uses: &'static str,
    /// Who came again, by day.
    again: HashMap<i64, RoaringTreemap>,
    lines: BTreeMap<(usize, Vec<i64>), Came>,
}

impl Members {
    pub(super) fn new(question: &Question, uses: &'static str) -> Self {
        let of = Of::question(question);
        Self { question: question.clone(), of, uses, again: HashMap::new(), lines: BTreeMap::new() }
    }

    /// What is read.
    pub(super) fn tables(&self) -> Vec<&'static str> {
        match self.of {
            Of::Visits(_) => vec![TABLE],
            Of::Uses => vec![TABLE, self.uses],
        }
    }

    /// The statements whose rows [`Members::take`] understands, in their order.
    pub(super) fn statements(&self) -> Vec<String> {
        match self.of {
            Of::Visits(what) => of_visits(&self.question, what),
            Of::Uses => of_uses(&self.question, self.uses).to_vec(),
        }
    }

    /// Takes a row of the statement with this place.
    pub(super) fn take(&mut self, statement: usize, row: &Row) -> Result<(), StoreError> {
        let by = self.question.by.len();
        if let (Of::Uses, 0) = (self.of, statement) {
            *self.again.entry(row.int(0)).or_default() |= Visits::read("", row.text(1))?.into_sets().1;
            return Ok(());
        }
        let Some(line) = whose(row, &self.question) else { return Ok(()) };
        // What was taken back leaves a row of nobody.
        if row.text(by + 1).is_empty() {
            return Ok(());
        }
        // One more than is answered is enough to say so.
        if self.lines.len() > MAX_GROUPS && !self.lines.contains_key(&line) {
            return Ok(());
        }
        let (came, again) = match self.of {
            Of::Visits(_) => Visits::read(row.text(by + 1), row.text(by + 2))?.into_sets(),
            Of::Uses => {
                let ids = row.text(by + 1).split(',').filter_map(|id| id.parse::<u64>().ok());
                let came = ids.collect::<RoaringTreemap>();
                let again = self.again.get(&row.int(by + 2));
                let again = again.map(|again| again & &came).unwrap_or_default();
                (came, again)
            }
        };
        let line = self.lines.entry(line).or_default();
        line.members.add(came);
        line.again.add(again);
        Ok(())
    }

    /// What was found: each line's members, and those who came again.
    pub(super) fn found(self) -> impl Iterator<Item = ((usize, Vec<i64>), [i64; 2])> {
        self.lines.into_iter().map(|(key, came)| (key, [came.members.len(), came.again.len()]))
    }
}

fn of_visits(question: &Question, what: What) -> Vec<String> {
    // First day of the period, first and last day of the sets, whether only those of the month that is not over.
    let (mut days, mut months): (Vec<[i64; 4]>, Vec<[i64; 4]>) = (Vec::new(), Vec::new());
    for period in &question.periods {
        let split = period.split();
        days.extend(split.days.iter().map(|(first, last)| [period.start, *first, *last, 0]));
        if let Some((first, last)) = split.months.map(|(first, last)| (first * 100, last * 100 + 99)) {
            months.push([period.start, first, last, 0]);
            // The newest day's month has no row of its own yet.
            days.push([period.start, first, last, 1]);
        }
    }
    let only: Vec<_> = question.only.iter().map(|(_, ids)| ("id", ids.clone())).collect();
    let by = if question.by.is_empty() { "" } else { ", t.id" };
    let (what, only) = (what as i64, only_text(&only));
    // Each grain by itself, and a span's days said in words: joined, PostgreSQL may read the whole table and then choose.
    let rows = |grain: Grain, beside: &str, [starts, first, last]: [&str; 3]| {
        format!(
            "SELECT {starts}{by}, t.member_set, t.again_set FROM {beside}{TABLE} AS t
             WHERE t.bucket = $1 AND t.what = {what} AND t.grain = {} AND t.day >= {first} AND t.day <= {last}{only}",
            grain as i64,
        )
    };
    let newest = format!(
        "SELECT COALESCE(MAX(day), 0) / 100 * 100 AS month FROM {TABLE} WHERE bucket = $1 AND what = 0 AND grain = 1"
    );
    let statement = |(grain, spans): (Grain, Vec<[i64; 4]>)| {
        if spans.len() <= MAX_SPANS {
            let of_span = |[starts, first, last, is_open]: &[i64; 4]| {
                let starts = format!("CAST({starts} AS BIGINT)");
                let first = match is_open {
                    0 => first.to_string(),
                    _ => format!(
                        "(SELECT CASE WHEN month > {first} THEN month ELSE {first} END FROM ({newest}) AS n)"
                    ),
                };
                rows(grain, "", [&starts, &first, &last.to_string()])
            };
            return spans.iter().map(of_span).collect::<Vec<_>>().join(" UNION ALL ");
        }
        format!(
            "WITH asked (starts, first, last, is_open) AS (VALUES {}), newest (month) AS ({newest}),
               spans (starts, first, last) AS MATERIALIZED
                 (SELECT starts, CASE WHEN is_open = 1 AND month > first THEN month ELSE first END, last
                  FROM newest CROSS JOIN asked)
             {}",
            values(spans),
            rows(grain, "spans AS s CROSS JOIN ", ["s.starts", "s.first", "s.last"]),
        )
    };
    let of_grains = [(Grain::Day, days), (Grain::Month, months)].into_iter();
    of_grains.filter(|(_, spans)| !spans.is_empty()).map(statement).collect()
}

fn of_uses(question: &Question, uses: &str) -> [String; 2] {
    let first = question.periods.first().map_or(0, |period| period.start);
    let last = question.periods.last().map_or(0, |period| period.end);
    let again = format!(
        "SELECT day, again_set FROM {TABLE}
         WHERE bucket = $1 AND what = 0 AND grain = 1 AND day >= {first} AND day <= {last}"
    );
    let by = question.by.iter().fold(String::new(), |by, column| by + ", t." + column);
    let walked = walked(uses, question);
    let came = format!(
        "WITH periods (starts, ends) AS (VALUES {})
         SELECT p.starts{by}, string_agg(CAST(t.member_id AS TEXT), ','), t.day FROM periods AS p CROSS JOIN {uses} AS t
         WHERE t.bucket = $1 AND t.day >= p.starts AND t.day <= p.ends AND t.used > 0{}{walked}
         GROUP BY p.starts{by}, t.day",
        values(question.periods.iter().map(|period| [period.start, period.end])),
        only_text(&question.only),
    );
    [again, came]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_in_many_sets_is_counted_once() {
        let mut union = Union::default();
        for set in 0..100_u64 {
            // Over both halves of the numbers, and more of them than one container keeps as a list.
            let members = (set * 60..set * 60 + 90).flat_map(|member| [member, member << 40]);
            union.add(members.collect());
        }
        // 0 is its own double.
        assert_eq!(union.len(), 2 * (99 * 60 + 90) - 1);
        assert_eq!(Union::default().len(), 0);
    }
}
