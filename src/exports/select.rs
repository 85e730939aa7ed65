//! Which rows of a sheet are wanted: what each filter asks, checked, and as it was asked.

use std::collections::BTreeMap;

use super::file::filter_text;
use super::{Line, Sheet, Value};
use crate::clock::{Zone, parse_day};
use crate::refusal::Wrong;
use crate::value::{MAX_ID, parse_int};

/// The filter that names the first day.
pub const BEGIN: &str = "begin";

/// The filter that names the last day.
pub const END: &str = "end";

/// A filter: rows whose column of this name is what is asked.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Its name, and its column's.
    pub name: &'static str,
    /// What may be asked.
    pub accepts: Accepts,
    /// What it is about.
    pub about: &'static str,
}

/// What may be asked of a column.
#[derive(Clone, Copy, Debug)]
pub enum Accepts {
    /// An id.
    Id,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

/// What is wanted of a sheet.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Of which.
    pub sheet: &'static Sheet,
    told: BTreeMap<String, String>,
    equal: Vec<(usize, Value)>,
    /// A column, and from when on until before when.
    within: Option<(usize, i64, i64)>,
}

impl Selection {
    /// What is asked by these filters, or which of them are wrong. What is empty asks for nothing; a name that is no filter's
    /// is nobody's error but its writer's, and is passed over as unknown fields are everywhere.
    pub fn new(
        sheet: &'static Sheet,
        asked: impl IntoIterator<Item = (String, String)>,
        zone: Zone,
    ) -> Result<Self, Vec<(&'static str, Wrong)>> {
        let mut told: BTreeMap<String, String> =
            asked.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        let names = sheet.filters.iter().map(|filter| filter.name);
        let days = if sheet.days.is_some() { &[BEGIN, END][..] } else { &[] };
        let names: Vec<&'static str> = names.chain(days.iter().copied()).collect();
        told.retain(|name, _| names.contains(&name.as_str()));
        let (mut equal, mut wrong) = (Vec::new(), Vec::new());
        for filter in sheet.filters {
            let Some(value) = told.get(filter.name) else { continue };
            match filter.accepts.read(value) {
                Ok(value) => equal.extend(sheet.column(filter.name).map(|column| (column, value))),
                Err(why) => wrong.push((filter.name, why)),
            }
        }
        let within = match days_of(&told) {
            Ok((None, None)) => None,
            Ok((first, last)) => sheet.days.and_then(|days| sheet.column(days)).map(|column| {
                let from_ms = first.map_or(i64::MIN, |day| zone.day_starts_at_ms(day));
                (column, from_ms, last.map_or(i64::MAX, |day| zone.day_ends_at_ms(day)))
            }),
            Err(mut days) => {
                wrong.append(&mut days);
                None
            }
        };
        if wrong.is_empty() { Ok(Self { sheet, told, equal, within }) } else { Err(wrong) }
    }

    /// What was asked, by filter.
    pub fn told(&self) -> impl Iterator<Item = (&str, &str)> {
        self.told.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The same as it is written down: `begin=2026-11-01&member_id=439`; empty where all rows are wanted.
    #[must_use]
    pub fn text(&self) -> String {
        filter_text(self.told())
    }

    /// What [`Self::text`] wrote down.
    pub(super) fn parse(
        sheet: &'static Sheet,
        text: &str,
        zone: Zone,
    ) -> Result<Self, Vec<(&'static str, Wrong)>> {
        let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self::new(sheet, text.split('&').filter_map(pair), zone)
    }

    /// Whether a row is wanted.
    #[must_use]
    pub fn wants(&self, line: &Line) -> bool {
        self.equal.iter().all(|(column, value)| line.get(*column) == Some(value))
            && self.within.is_none_or(|(column, from_ms, until_ms)| match line.get(column) {
                Some(Value::Int(at_ms)) => (from_ms..until_ms).contains(at_ms),
                _ => false,
            })
    }
}

type Days = (Option<chrono::NaiveDate>, Option<chrono::NaiveDate>);

fn days_of(told: &BTreeMap<String, String>) -> Result<Days, Vec<(&'static str, Wrong)>> {
    let day = |name: &'static str| {
        let day = |text: &String| parse_day(text).ok_or((name, Wrong::NotADay));
        told.get(name).map(day).transpose()
    };
    match (day(BEGIN), day(END)) {
        (Ok(first), Ok(last)) if first.zip(last).is_some_and(|(first, last)| last < first) => {
            Err(vec![(END, Wrong::EndBeforeStart)])
        }
        (Ok(first), Ok(last)) => Ok((first, last)),
        (first, last) => Err([first.err(), last.err()].into_iter().flatten().collect()),
    }
}

impl Accepts {
    fn read(self, text: &str) -> Result<Value, Wrong> {
        match self {
            Self::Id => {
                let id = parse_int(text, 1, MAX_ID)?;
                let within = (1..=MAX_ID).contains(&id);
                if within { Ok(Value::Int(id)) } else { Err(Wrong::OutOfRange { min: 1, max: MAX_ID }) }
            }
            Self::OneOf(words) => {
                let word = words.iter().find(|word| **word == text);
                word.map(|word| Value::Text((*word).to_owned())).ok_or(Wrong::NotOneOf(words))
            }
        }
    }
}

/// Every filter is a column of what it accepts, and days are of an instant: what the table of sheets must keep to.
#[cfg(test)]
pub(super) fn fits(sheet: &Sheet) -> bool {
    use super::Kind;
    let kind = |name: &str| {
        sheet.column(name).and_then(|column| sheet.columns.get(column)).map(|column| column.kind)
    };
    sheet.filters.iter().all(|filter| match filter.accepts {
        Accepts::Id => kind(filter.name) == Some(Kind::Id),
        Accepts::OneOf(_) => kind(filter.name) == Some(Kind::Text),
    }) && sheet.days.is_none_or(|days| kind(days) == Some(Kind::Instant))
}
