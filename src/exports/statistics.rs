//! Statistics as files: the answer that `/v1/statistics` gives, as columns and rows. Which columns there are follows from what
//! is asked, and no answer is larger than one that is given at once.

use super::{Column, From, Kind, Line, Value, Words};
use crate::statistics::ask::{self, Question};
use crate::statistics::cohorts::{Cohort, Cohorts, Funnel};
use crate::statistics::period::Period;

/// A statistic that can be taken away as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// Measures by what the caller chooses.
    Figures,
    /// What became of the coupons of each period.
    Cohorts,
    /// How many coupons came how far.
    Funnel,
}

impl Report {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Figures, Self::Cohorts, Self::Funnel];

    /// Its name in paths.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Figures => "figures",
            Self::Cohorts => "cohorts",
            Self::Funnel => "funnel",
        }
    }

    /// Its name for people.
    #[must_use]
    pub fn words(self) -> Words {
        match self {
            Self::Figures => ["統計", "统计", "Figures"],
            Self::Cohorts => ["發放批次追蹤", "发放批次追踪", "Cohorts"],
            Self::Funnel => ["轉化漏斗", "转化漏斗", "Funnel"],
        }
    }
}

/// A statistic's columns and rows.
#[derive(Clone, Debug)]
pub struct Table {
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its rows, in the order of the answer.
    pub lines: Vec<Line>,
}

const fn column(name: &'static str, kind: Kind, words: Words) -> Column {
    Column { name, words, kind, from: From::Source }
}

const START: Column = column("start", Kind::Day, ["起始日", "起始日", "Start"]);
const END: Column = column("end", Kind::Day, ["結束日", "结束日", "End"]);
const ISSUED: Column = column("issued", Kind::Int, ["發放", "发放", "Issued"]);
const SEEN: Column = column("seen", Kind::Int, ["已查看", "已查看", "Opened"]);
const USED: Column = column("used", Kind::Int, ["已使用", "已使用", "Used"]);

/// What measures and what they are told apart by are called in a file. One that a new file under `projections/` has brought is
/// called as it is there.
const NAMED: &[(&str, Column)] = &[
    ("definition_id", column("definition_id", Kind::Id, ["電子券ID", "电子券ID", "Definition ID"])),
    ("kind", column("kind", Kind::Int, ["類型", "类型", "Kind"])),
    ("source", column("source", Kind::Int, ["來源", "来源", "Source"])),
    ("partner_id", column("partner_id", Kind::Id, ["合作商家ID", "合作商家ID", "Partner ID"])),
    ("shop_id", column("shop_id", Kind::Id, ["門店ID", "门店ID", "Shop ID"])),
    ("employee_id", column("employee_id", Kind::Id, ["員工ID", "员工ID", "Employee ID"])),
    ("age_days", column("age_days", Kind::Int, ["距發放天數", "距发放天数", "Days since issue"])),
    ("issued", ISSUED),
    ("claimed", column("claimed", Kind::Int, ["領取", "领取", "Claimed"])),
    ("viewed", column("viewed", Kind::Int, ["查看", "查看", "Viewed"])),
    ("given", column("given", Kind::Int, ["轉贈", "转赠", "Given"])),
    ("withdrawn", column("withdrawn", Kind::Int, ["撤回轉贈", "撤回转赠", "Withdrawn"])),
    ("lapsed", column("lapsed", Kind::Int, ["轉贈逾期", "转赠逾期", "Lapsed"])),
    ("received", column("received", Kind::Int, ["接收", "接收", "Received"])),
    ("redeemed", column("redeemed", Kind::Int, ["核銷", "核销", "Redeemed"])),
    ("reversed", column("reversed", Kind::Int, ["撤銷核銷", "撤销核销", "Reversed"])),
    ("reviewed", column("reviewed", Kind::Int, ["評價", "评价", "Reviewed"])),
    ("score", column("score", Kind::Int, ["評分合計", "评分合计", "Sum of scores"])),
    ("expired", column("expired", Kind::Int, ["過期", "过期", "Expired"])),
    ("voided", column("voided", Kind::Int, ["作廢", "作废", "Voided"])),
    ("outstanding", column("outstanding", Kind::Int, ["流通中", "流通中", "Outstanding"])),
    ("seen", SEEN),
    ("used", USED),
    ("issued_cents", column("issued_value", Kind::Hundredths, ["發放金額", "发放金额", "Value issued"])),
    (
        "redeemed_cents",
        column("redeemed_value", Kind::Hundredths, ["核銷金額", "核销金额", "Value redeemed"]),
    ),
    (
        "reversed_cents",
        column("reversed_value", Kind::Hundredths, ["撤銷核銷金額", "撤销核销金额", "Value reversed"]),
    ),
    ("expired_cents", column("expired_value", Kind::Hundredths, ["過期金額", "过期金额", "Value expired"])),
    ("voided_cents", column("voided_value", Kind::Hundredths, ["作廢金額", "作废金额", "Value voided"])),
    (
        "outstanding_cents",
        column("outstanding_value", Kind::Hundredths, ["流通中金額", "流通中金额", "Value outstanding"]),
    ),
    ("used_cents", column("used_value", Kind::Hundredths, ["已使用金額", "已使用金额", "Value used"])),
    ("average_score", column("average_score", Kind::Hundredths, ["平均評分", "平均评分", "Average score"])),
    ("redemption_rate", column("redemption_rate", Kind::Share, ["核銷率", "核销率", "Redemption rate"])),
    (
        "median_days",
        column("median_days", Kind::Int, ["核銷天數中位數", "核销天数中位数", "Median days to use"]),
    ),
    ("members", column("members", Kind::Int, ["使用會員數", "使用会员数", "Members"])),
    (
        "returning_members",
        column("returning_members", Kind::Int, ["回頭會員數", "回头会员数", "Returning members"]),
    ),
];

fn named(name: &'static str) -> Column {
    let known = NAMED.iter().find(|(known, _)| *known == name);
    known.map_or_else(|| column(name, Kind::Int, [name; 3]), |(_, column)| *column)
}

fn bounds(period: Period) -> [Value; 2] {
    [Value::Int(period.start), Value::Int(period.end)]
}

/// Some figures; `lines` are those of the answer that are wanted.
#[must_use]
pub fn figures<'a>(question: &Question, lines: impl IntoIterator<Item = &'a ask::Line>) -> Table {
    let by = question.by.iter().map(|name| named(name));
    let measures: Vec<Column> = question.measures.iter().map(|measure| named(measure.name())).collect();
    let line = |line: &ask::Line| {
        let period = question.periods.get(line.period).map(|period| bounds(*period));
        let key = line.key.iter().map(|id| Value::Int(*id));
        let values = line.values.iter().zip(&measures).map(|(value, column)| cell(*value, column.kind));
        period.into_iter().flatten().chain(key).chain(values).collect()
    };
    let lines = lines.into_iter().map(line).collect();
    Table { columns: [START, END].into_iter().chain(by).chain(measures.iter().copied()).collect(), lines }
}

fn cell(value: ask::Value, kind: Kind) -> Value {
    match value {
        ask::Value::Whole(number) => Value::Int(number),
        // Rounded already, to as many digits as its kind has.
        ask::Value::Part(part) => Value::Int((part * scale(kind)).round() as i64),
        ask::Value::None => Value::Null,
    }
}

fn scale(kind: Kind) -> f64 {
    if kind == Kind::Share { 10_000.0 } else { 100.0 }
}

/// What became of each cohort, a row for each period in which it was there.
#[must_use]
pub fn cohorts(question: &Cohorts, found: &[Cohort]) -> Table {
    let cohort_start = column("cohort_start", Kind::Day, ["發放起始日", "发放起始日", "Issued from"]);
    let cohort_end = column("cohort_end", Kind::Day, ["發放結束日", "发放结束日", "Issued until"]);
    let seen_so_far = column("seen_so_far", Kind::Int, ["累計查看", "累计查看", "Opened so far"]);
    let used_so_far = column("used_so_far", Kind::Int, ["累計使用", "累计使用", "Used so far"]);
    let rows = question.issued.iter().zip(found).flat_map(|(period, cohort)| {
        cohort.so_far(&question.happened).map(|(happened_in, now, so_far)| {
            let numbers = [now.seen, now.used, so_far.seen, so_far.used];
            let issued = [Value::Int(cohort.issued)];
            let numbers = numbers.map(Value::Int);
            bounds(*period).into_iter().chain(issued).chain(bounds(happened_in)).chain(numbers).collect()
        })
    });
    let lines = rows.collect();
    let columns = vec![cohort_start, cohort_end, ISSUED, START, END, SEEN, USED, seen_so_far, used_so_far];
    Table { columns, lines }
}

/// A funnel: one row.
#[must_use]
pub fn funnel(period: Period, found: &Funnel) -> Table {
    let numbers = [found.issued, found.seen, found.used].map(Value::Int);
    Table {
        columns: vec![START, END, ISSUED, SEEN, USED],
        lines: vec![bounds(period).into_iter().chain(numbers).collect()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::ask::Measure;

    #[test]
    fn every_measure_and_dimension_has_its_words() {
        let measures = Measure::names();
        for name in measures.iter().copied().chain(ask::dimensions()) {
            let column = named(name);
            let [traditional, _, english] = column.words;
            assert!(traditional != name && english != name, "{name} is called {:?}", column.words);
        }
    }

    #[test]
    fn a_measure_that_nobody_knows_is_called_as_it_is() {
        assert_eq!(named("umbrellas").words, ["umbrellas"; 3]);
    }

    #[test]
    fn shares_and_means_keep_their_digits() {
        for (part, kind, kept) in
            [(0.3333, Kind::Share, 3_333), (1.0, Kind::Share, 10_000), (4.35, Kind::Hundredths, 435)]
        {
            assert_eq!(cell(ask::Value::Part(part), kind), Value::Int(kept));
        }
        assert_eq!(cell(ask::Value::None, Kind::Share), Value::Null);
    }

    #[test]
    fn a_column_has_one_name_of_its_own() {
        let names: std::collections::BTreeSet<&str> = NAMED.iter().map(|(_, column)| column.name).collect();
        assert_eq!(names.len(), NAMED.len());
    }
}
