//! Request bodies as fields: JSON or form, the same either way.
//!
//! An integer may arrive as a number or a decimal string, a list as JSON, as `a,b,c` or as repeated fields. Every field
//! that is read is also written down in one canonical form, so that the same request under the same idempotency key is
//! recognised whatever its encoding. Errors are gathered and reported together; unknown fields are ignored.

use std::fmt::Write as _;

use bytes::Bytes;
use chrono::NaiveDate;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::clock::{day_number, day_text, parse_day};
use crate::read_model::pages::Slice;
use crate::refusal::Wrong;
use crate::value::{MAX_ID, hex, list_text, parse_int, parse_money};

/// The longest list that is accepted.
const MAX_LIST: usize = 10_000;

/// The fields of a request, taken one by one.
#[derive(Debug, Default)]
pub struct Form {
    fields: Map<String, Value>,
    /// A body that is a file; the fields are then those of the query.
    file: Option<Bytes>,
    errors: Vec<(&'static str, Wrong)>,
    canonical: String,
}

impl Form {
    /// A JSON body: an object, or nothing at all.
    pub fn from_json(body: &[u8]) -> Result<Self, Wrong> {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(fields)) => Ok(Self { fields, ..Self::default() }),
            _ => Err(Wrong::BodyUnreadable),
        }
    }

    /// A form body; a field that comes again makes a list.
    pub fn from_form(body: &[u8]) -> Result<Self, Wrong> {
        // The decoder would replace what is not UTF-8: a text that was not sent must not be kept.
        if !is_utf8_when_decoded(body) {
            return Err(Wrong::BodyUnreadable);
        }
        let mut fields = Map::new();
        for (name, value) in form_urlencoded::parse(body) {
            let name = name.strip_suffix("[]").unwrap_or(&name).to_owned();
            let value = Value::String(value.into_owned());
            match fields.get_mut(&name) {
                None => {
                    fields.insert(name, value);
                }
                Some(Value::Array(values)) => values.push(value),
                Some(first) => *first = Value::Array(vec![first.take(), value]),
            }
        }
        Ok(Self { fields, ..Self::default() })
    }

    /// A body that is a file, with the other fields in the query.
    pub fn from_file(query: &str, body: Bytes) -> Result<Self, Wrong> {
        Ok(Self { file: Some(body), ..Self::from_form(query.as_bytes())? })
    }

    /// Adds the parts of a path; they win over a query that has the same names.
    pub fn put_all(&mut self, parts: impl IntoIterator<Item = (String, String)>) {
        self.fields.extend(parts.into_iter().map(|(name, value)| (name, Value::String(value))));
    }

    /// The errors, if there are any, or else the request in its canonical form.
    pub fn finish(&mut self) -> Result<String, Vec<(&'static str, Wrong)>> {
        if self.errors.is_empty() {
            Ok(std::mem::take(&mut self.canonical))
        } else {
            Err(std::mem::take(&mut self.errors))
        }
    }

    /// Reports an error that only the caller can see, unless the field has one already: the first says what to do.
    pub fn wrong(&mut self, name: &'static str, why: Wrong) {
        if !self.has_error(name) {
            self.errors.push((name, why));
        }
    }

    /// An id that is there and is one, for whoever prepares what a handler will read: nothing is written down, and
    /// nothing is an error.
    pub fn peek_id(&self, name: &str) -> Option<i64> {
        let id = match self.fields.get(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(text) => parse_int(text, 1, MAX_ID).ok(),
            _ => None,
        };
        id.filter(|id| (1..=MAX_ID).contains(id))
    }

    /// A required id: 1 to 2^53 − 1.
    pub fn id(&mut self, name: &'static str) -> i64 {
        self.int(name, 1, MAX_ID)
    }

    /// A required integer.
    pub fn int(&mut self, name: &'static str, min: i64, max: i64) -> i64 {
        self.required(name, |form| form.optional_int(name, min, max)).unwrap_or(min)
    }

    /// An integer that need not be there.
    pub fn optional_int(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        self.read(name, |value| read_int(value, min, max))
    }

    /// An integer that need not be there, and is not where an empty text is.
    pub fn int_or_blank(&mut self, name: &'static str, min: i64, max: i64) -> Option<i64> {
        let text = self.optional_text(name, 20).filter(|text| !text.is_empty())?;
        read_int(&Value::String(text), min, max).map_err(|why| self.wrong(name, why)).ok()
    }

    /// A 0 or a 1, with what it is when it is not there.
    pub fn flag(&mut self, name: &'static str, default: bool) -> bool {
        self.optional_int(name, 0, 1).map_or(default, |flag| flag == 1)
    }

    /// A required text of 1 to `max` characters.
    pub fn text(&mut self, name: &'static str, max: usize) -> String {
        let text = self.required(name, |form| form.optional_text(name, max)).unwrap_or_default();
        if text.trim().is_empty() && !self.has_error(name) {
            self.wrong(name, Wrong::Required);
        }
        text
    }

    /// A text of at most `max` characters that need not be there. A number counts as its digits.
    pub fn optional_text(&mut self, name: &'static str, max: usize) -> Option<String> {
        self.read(name, |value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(Wrong::NotAText),
            };
            if text.chars().count() > max {
                return Err(Wrong::TooLong { max });
            }
            // NUL cannot be stored; the others have no place in what people read.
            if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
                return Err(Wrong::ControlCharacters);
            }
            Ok(text)
        })
    }

    /// A text that need not be there, but is not blank where it is.
    pub fn sent_text(&mut self, name: &'static str, max: usize) -> Option<String> {
        let text = self.optional_text(name, max);
        if text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            self.wrong(name, Wrong::Required);
        }
        text
    }

    /// One of these words, where it is there.
    pub fn one_of(&mut self, name: &'static str, words: &'static [&'static str]) -> Option<&'static str> {
        self.read(name, |value| {
            words.iter().copied().find(|word| value.as_str() == Some(word)).ok_or(Wrong::NotOneOf(words))
        })
    }

    /// One of these words, which must be there.
    pub fn word(&mut self, name: &'static str, words: &'static [&'static str]) -> &'static str {
        self.required(name, |form| form.one_of(name, words)).unwrap_or_default()
    }

    /// A day that need not be there, as [`day_number`] has it; 0 where it is there and empty.
    pub fn sent_day(&mut self, name: &'static str) -> Option<i64> {
        let read = |value: &Value| match value.as_str() {
            Some("") => Ok(0),
            text => text.and_then(parse_day).map(day_number).ok_or(Wrong::NotADay),
        };
        self.read_as(name, read, |day| day_text(*day))
    }

    /// A day like `2018-11-01` that need not be there; empty counts as not there.
    pub fn optional_day(&mut self, name: &'static str) -> Option<NaiveDate> {
        if matches!(self.fields.get(name), Some(Value::String(text)) if text.is_empty()) {
            return None;
        }
        self.read(name, |value| value.as_str().and_then(parse_day).ok_or(Wrong::NotADay))
    }

    /// `begin` and `end`, both included, neither of them needed.
    pub fn days(&mut self) -> (Option<NaiveDate>, Option<NaiveDate>) {
        let (begin, end) = (self.optional_day("begin"), self.optional_day("end"));
        if begin.zip(end).is_some_and(|(begin, end)| end < begin) {
            self.wrong("end", Wrong::EndBeforeStart);
        }
        (begin, end)
    }

    /// A required day.
    pub fn day(&mut self, name: &'static str) -> NaiveDate {
        self.required(name, |form| form.optional_day(name)).unwrap_or_default()
    }

    /// An amount of money in cents that need not be there.
    pub fn optional_money(&mut self, name: &'static str) -> Option<i64> {
        self.read(name, |value| {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                _ => return Err(Wrong::NotMoney),
            };
            let cents = parse_money(&text).ok_or(Wrong::NotMoney)?;
            if cents <= MAX_ID { Ok(cents) } else { Err(Wrong::NotMoney) }
        })
    }

    /// A required amount of money in cents.
    pub fn money(&mut self, name: &'static str) -> i64 {
        self.required(name, |form| form.optional_money(name)).unwrap_or_default()
    }

    /// A list of integers: JSON, `a,b,c`, or repeated fields. Empty where it is missing, empty or 0.
    pub fn ints(&mut self, name: &'static str, max: i64) -> Vec<i64> {
        self.sent_ints(name, max).unwrap_or_default()
    }

    /// The same, None where it is missing: sent and empty, it says that there are none.
    pub fn sent_ints(&mut self, name: &'static str, max: i64) -> Option<Vec<i64>> {
        self.read_as(name, |value| read_list(value, max), |list| list_text(list))
    }

    /// A list of objects as JSON, or as a text that is JSON; each is read as a form of its own, and what is wrong in it is
    /// told with its path, `goods[2].price`. Empty where it is missing, empty or 0.
    pub fn rows<T>(&mut self, name: &'static str, max: usize, read: impl Fn(&mut Self) -> T) -> Vec<T> {
        let rows = match self.fields.get(name).map_or(Ok(Vec::new()), |value| read_rows(value, max)) {
            Ok(rows) => rows,
            Err(why) => {
                self.wrong(name, why);
                return Vec::new();
            }
        };
        let mut found = Vec::with_capacity(rows.len());
        let mut canonical = String::new();
        for (place, fields) in rows.into_iter().enumerate() {
            let mut row = Self { fields, ..Self::default() };
            found.push(read(&mut row));
            match row.finish() {
                Ok(text) => {
                    let _ = write!(canonical, "{}:{text}", text.len());
                }
                Err(errors) => {
                    if let Some(why) = errors.into_iter().next().map(|error| within(name, place, error)) {
                        self.wrong(name, why);
                    }
                }
            }
        }
        let _ = write!(self.canonical, "{name}={}:{canonical};", canonical.len());
        found
    }

    /// A required file: the body itself, or the text of a field. Its digest stands for it in the canonical form.
    pub fn file(&mut self, name: &'static str) -> Bytes {
        let file = match (self.file.take(), self.fields.get_mut(name)) {
            (Some(file), _) => file,
            (None, Some(Value::String(text))) => Bytes::from(std::mem::take(text)),
            (None, None | Some(Value::Null)) => Bytes::new(),
            (None, Some(_)) => {
                self.wrong(name, Wrong::NotAText);
                return Bytes::new();
            }
        };
        if file.iter().all(u8::is_ascii_whitespace) {
            self.wrong(name, Wrong::Required);
        }
        let digest = hex(&Sha256::digest(&file));
        let _ = write!(self.canonical, "{name}={}:{digest};", digest.len());
        file
    }

    /// Which part of a list is asked for, where the manual names page and limit.
    pub fn slice(&mut self) -> Slice {
        self.optional_slice(true)
    }

    /// Which part of a list is asked for, where everything comes back unless they are sent.
    pub fn slice_if_asked(&mut self) -> Slice {
        self.optional_slice(false)
    }

    /// Which page of a list that is not in the order of its ids.
    pub fn slice_of_pages(&mut self) -> Slice {
        let page = self.optional_int("page", 1, MAX_ID).unwrap_or(1);
        Slice::Page { page, limit: self.optional_int("limit", 1, 100).unwrap_or(10) }
    }

    fn optional_slice(&mut self, always: bool) -> Slice {
        let page = self.optional_int("page", 1, MAX_ID);
        let limit = self.optional_int("limit", 1, 100);
        let before = self.optional_int("before_id", 1, MAX_ID);
        match (page, limit, before) {
            (Some(_), _, Some(_)) => {
                self.wrong("before_id", Wrong::NotTogetherWith("page"));
                Slice::All
            }
            (None, limit, Some(id)) => Slice::Before { id, limit: limit.unwrap_or(10) },
            (None, None, None) if !always => Slice::All,
            (page, limit, None) => Slice::Page { page: page.unwrap_or(1), limit: limit.unwrap_or(10) },
        }
    }

    /// Whether something is wrong with any field that was read.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Whether something is wrong with a field that was read.
    #[must_use]
    pub fn has_error(&self, name: &str) -> bool {
        self.errors.iter().any(|(field, _)| *field == name)
    }

    fn required<T>(&mut self, name: &'static str, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let found = read(self);
        if found.is_none() && !self.has_error(name) {
            self.wrong(name, Wrong::Required);
        }
        found
    }

    fn read<T: ToString>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Wrong>,
    ) -> Option<T> {
        self.read_as(name, read, T::to_string)
    }

    fn read_as<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&Value) -> Result<T, Wrong>,
        canonical: impl FnOnce(&T) -> String,
    ) -> Option<T> {
        let value = match self.fields.get(name) {
            None | Some(Value::Null) => return None,
            Some(value) => value,
        };
        match read(value) {
            Ok(read) => {
                let text = canonical(&read);
                // Length first: no field can be read as part of another.
                let _ = write!(self.canonical, "{name}={}:{text};", text.len());
                Some(read)
            }
            Err(why) => {
                self.errors.push((name, why));
                None
            }
        }
    }
}

/// Whether the percent-decoded body is UTF-8 throughout.
fn is_utf8_when_decoded(body: &[u8]) -> bool {
    let digit =
        |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(body.len());
    let mut rest = body;
    while let Some((&byte, behind)) = rest.split_first() {
        if let (b'%', Some(high), Some(low)) = (byte, digit(behind.first()), digit(behind.get(1))) {
            decoded.push(high << 4 | low);
            rest = behind.get(2..).unwrap_or_default();
        } else {
            decoded.push(byte);
            rest = behind;
        }
    }
    std::str::from_utf8(&decoded).is_ok()
}

fn read_int(value: &Value, min: i64, max: i64) -> Result<i64, Wrong> {
    let number = match value {
        Value::Number(number) => number.as_i64().ok_or_else(|| too_large_or_not_whole(number, min, max))?,
        Value::String(text) => parse_int(text, min, max)?,
        _ => return Err(Wrong::NotANumber),
    };
    if (min..=max).contains(&number) { Ok(number) } else { Err(Wrong::OutOfRange { min, max }) }
}

fn too_large_or_not_whole(number: &serde_json::Number, min: i64, max: i64) -> Wrong {
    if number.is_u64() { Wrong::OutOfRange { min, max } } else { Wrong::NotANumber }
}

fn read_list(value: &Value, max: i64) -> Result<Vec<i64>, Wrong> {
    let mut list = Vec::new();
    match value {
        Value::Number(_) => list.push(read_entry(value, max)?),
        Value::String(text) if text.trim_start().starts_with('[') => {
            let parsed: Value = serde_json::from_str(text).map_err(|_| Wrong::NotAList)?;
            return read_list(&parsed, max);
        }
        Value::String(text) if text.trim().is_empty() => {}
        Value::String(text) => {
            for part in text.split(',') {
                list.push(read_entry(&Value::String(part.to_owned()), max)?);
            }
        }
        Value::Array(values) => {
            for value in values {
                list.push(read_entry(value, max)?);
            }
        }
        _ => return Err(Wrong::NotAList),
    }
    if list.len() > MAX_LIST {
        return Err(Wrong::TooMany { max: MAX_LIST });
    }
    // 0 where a list is meant is the empty list.
    if list == [0] {
        list.clear();
    }
    if list.contains(&0) {
        return Err(Wrong::OutOfRange { min: 1, max });
    }
    Ok(list)
}

/// What is wrong inside a row, told from outside.
fn within(name: &str, place: usize, (field, why): (&'static str, Wrong)) -> Wrong {
    let (inner, why) = match why {
        Wrong::Within { path, why } => (path, why),
        why => (field.to_owned(), Box::new(why)),
    };
    Wrong::Within { path: format!("{name}[{place}].{inner}"), why }
}

fn read_rows(value: &Value, max: usize) -> Result<Vec<Map<String, Value>>, Wrong> {
    let rows = match value {
        Value::Null => Vec::new(),
        Value::Number(number) if number.as_i64() == Some(0) => Vec::new(),
        Value::String(text) if matches!(text.trim(), "" | "0") => Vec::new(),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Value::Array(rows)) => rows,
            Ok(_) => return Err(Wrong::NotRows { column: 0 }),
            Err(error) => return Err(Wrong::NotRows { column: error.column().max(1) }),
        },
        Value::Array(rows) => rows.clone(),
        _ => return Err(Wrong::NotRows { column: 0 }),
    };
    if rows.len() > max {
        return Err(Wrong::TooMany { max });
    }
    let object = |row| match row {
        Value::Object(fields) => Ok(fields),
        _ => Err(Wrong::NotRows { column: 0 }),
    };
    rows.into_iter().map(object).collect()
}

fn read_entry(value: &Value, max: i64) -> Result<i64, Wrong> {
    let number = match value {
        Value::Number(number) => number.as_i64().ok_or(Wrong::NotAList)?,
        Value::String(text) => parse_int(text, 0, max).map_err(|_| Wrong::NotAList)?,
        _ => return Err(Wrong::NotAList),
    };
    if (0..=max).contains(&number) { Ok(number) } else { Err(Wrong::OutOfRange { min: 0, max }) }
}
