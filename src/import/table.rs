//! Tables of text as spreadsheets write them: bytes in, rows out.
//!
//! Hides encodings and quoting. A file is UTF-8 or UTF-16 by its mark, else UTF-8 where it is that, else GBK; what is none of
//! them, and what is no text at all, is refused as a whole, because a guess would be kept for ever. A row that is wrong in
//! itself is the reader's to report: it never hides the rows behind it.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime};
use csv::StringRecord;
use encoding_rs::{GBK, UTF_16BE, UTF_16LE};

use crate::clock::parse_day;
use crate::refusal::{Refusal, Wrong};
use crate::value::{MAX_ID, parse_int};

/// How much of a name that nobody knows is told.
const SHOWN: usize = 40;

/// Rows that are read without letting others have the thread.
const ROWS_AT_A_TIME: usize = 1_000;

/// A column that a table may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its name in the header.
    pub(super) name: &'static str,
    /// Whether there must be one.
    pub(super) required: bool,
}

pub(super) const fn required(name: &'static str) -> Column {
    Column { name, required: true }
}

pub(super) const fn optional(name: &'static str) -> Column {
    Column { name, required: false }
}

/// A file as text; None where it is none.
pub(super) fn decode(bytes: &[u8]) -> Option<Cow<'_, str>> {
    if let Some(rest) = bytes.strip_prefix(b"\xef\xbb\xbf") {
        return std::str::from_utf8(rest).ok().and_then(text);
    }
    for (mark, encoding) in [(b"\xff\xfe", UTF_16LE), (b"\xfe\xff", UTF_16BE)] {
        if let Some(rest) = bytes.strip_prefix(mark) {
            let decoded = encoding.decode_without_bom_handling_and_without_replacement(rest)?;
            return (!decoded.contains('\0')).then_some(decoded);
        }
    }
    if let Ok(utf8) = std::str::from_utf8(bytes) {
        return text(utf8);
    }
    // Damaged UTF-8 can mostly be read as GBK, as other words. Chinese in UTF-8 is in threes, which GBK seldom is.
    let (mut in_threes, mut broken) = (0_usize, 0_usize);
    for chunk in bytes.utf8_chunks() {
        in_threes += chunk.valid().chars().filter(|char| char.len_utf8() >= 3).count();
        broken += usize::from(!chunk.invalid().is_empty());
    }
    if in_threes > broken {
        return None;
    }
    let decoded = GBK.decode_without_bom_handling_and_without_replacement(bytes)?;
    let is_text = !decoded.chars().any(|char| char.is_control() && !matches!(char, '\t' | '\r' | '\n'));
    is_text.then_some(decoded)
}

/// NUL is in no text; other control characters make one row bad, and are the row's to tell.
fn text(decoded: &str) -> Option<Cow<'_, str>> {
    (!decoded.contains('\0')).then_some(Cow::Borrowed(decoded))
}

/// A table, read row by row.
pub(super) struct Table<'a> {
    text: &'a str,
    reader: csv::Reader<&'a [u8]>,
    /// Where in a row each of the columns lies that it may have.
    places: Arc<[(&'static str, usize)]>,
    columns: usize,
    /// How far lines are counted: bytes, and the number of the line there.
    counted: (usize, u64),
}

/// One row.
pub(super) struct Row {
    /// The number of its first line in the file; the header's is 1 unless empty lines come before it.
    pub(super) line: u64,
    record: StringRecord,
    places: Arc<[(&'static str, usize)]>,
    columns: usize,
}

impl<'a> Table<'a> {
    /// Reads the header: names in any order, each once, none that nobody knows, every required one.
    pub(super) fn open(text: &'a str, columns: &[Column]) -> Result<Self, Wrong> {
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        let mut table = Self { text, reader, places: Arc::default(), columns: 0, counted: (0, 1) };
        let mut places: Vec<(&'static str, usize)> = Vec::new();
        let header = table.next_record().map(|(_, header)| header).unwrap_or_default();
        for (place, name) in header.iter().map(str::trim).enumerate() {
            let Some(column) = columns.iter().find(|column| column.name == name) else {
                return Err(Wrong::UnknownColumn(
                    name.chars().take(SHOWN).flat_map(char::escape_debug).collect(),
                ));
            };
            if places.iter().any(|(known, _)| *known == column.name) {
                return Err(Wrong::ColumnTwice(column.name));
            }
            places.push((column.name, place));
        }
        let missing =
            |column: &&Column| column.required && !places.iter().any(|(known, _)| *known == column.name);
        if let Some(column) = columns.iter().find(missing) {
            return Err(Wrong::NoColumn(column.name));
        }
        table.columns = header.len();
        table.places = places.into();
        Ok(table)
    }

    /// The highest id that any row brings.
    pub(super) async fn highest_id(self) -> Option<i64> {
        let mut highest = None;
        for (number, row) in self.enumerate() {
            highest = highest.max(row.optional_int("id", 1, MAX_ID).ok().flatten());
            if number % ROWS_AT_A_TIME == 0 {
                tokio::task::yield_now().await;
            }
        }
        highest
    }

    /// How many rows there are.
    pub(super) async fn count_rows(self) -> i64 {
        let mut rows = 0;
        for _ in self {
            rows += 1;
            if rows % ROWS_AT_A_TIME as i64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        rows
    }

    /// The next record that is not blank, with the number of its line.
    fn next_record(&mut self) -> Option<(u64, StringRecord)> {
        let mut record = StringRecord::new();
        loop {
            // Of a text in memory nothing can fail but its end.
            if !self.reader.read_record(&mut record).unwrap_or(false) {
                return None;
            }
            let start = record.position().map_or(0, |position| position.byte() as usize);
            let line = self.line_at(start);
            if record.iter().any(|cell| !cell.trim().is_empty()) {
                return Some((line, record));
            }
        }
    }

    /// The line that a record is on which begins at a byte, or behind the line ends that lie there.
    fn line_at(&mut self, start: usize) -> u64 {
        let (counted, line) = self.counted;
        let bytes = self.text.as_bytes();
        let blank = bytes.get(start..).unwrap_or_default().iter();
        let start = start + blank.take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let passed = bytes.get(counted..start).unwrap_or_default();
        let line = line + passed.split(|byte| *byte == b'\n').skip(1).count() as u64;
        self.counted = (start, line);
        line
    }
}

impl Iterator for Table<'_> {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let (line, record) = self.next_record()?;
        Some(Row { line, record, places: self.places.clone(), columns: self.columns })
    }
}

impl Row {
    /// Refuses a row that has not as many cells as the header: who knows which of them is missing.
    pub(super) fn complete(&self) -> Result<(), Refusal> {
        if self.record.len() == self.columns {
            Ok(())
        } else {
            Err(Refusal::field("csv", Wrong::CellCount { columns: self.columns }))
        }
    }

    /// What stands in a column, without blanks around it; empty where there is no such column.
    fn cell(&self, name: &str) -> &str {
        let place = self.places.iter().find(|(known, _)| *known == name);
        place.and_then(|(_, place)| self.record.get(*place)).unwrap_or_default().trim()
    }

    /// A whole number, if there is one.
    pub(super) fn optional_int(
        &self,
        name: &'static str,
        min: i64,
        max: i64,
    ) -> Result<Option<i64>, Refusal> {
        let cell = self.cell(name);
        if cell.is_empty() {
            return Ok(None);
        }
        let number = int_between(cell, min, max).map_err(|why| Refusal::field(name, why))?;
        Ok(Some(number))
    }

    /// A whole number that must be there.
    pub(super) fn int(&self, name: &'static str, min: i64, max: i64) -> Result<i64, Refusal> {
        self.optional_int(name, min, max)?.ok_or(Refusal::field(name, Wrong::Required))
    }

    /// A text of at most so many characters; may be empty.
    pub(super) fn text(&self, name: &'static str, max: usize) -> Result<String, Refusal> {
        let cell = self.cell(name);
        if cell.chars().count() > max {
            return Err(Refusal::field(name, Wrong::TooLong { max }));
        }
        if cell.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\r' | '\t')) {
            return Err(Refusal::field(name, Wrong::ControlCharacters));
        }
        Ok(cell.to_owned())
    }

    /// A day like `2018-11-01`, if there is one.
    pub(super) fn optional_day(&self, name: &'static str) -> Result<Option<NaiveDate>, Refusal> {
        match self.cell(name) {
            "" => Ok(None),
            cell => parse_day(cell).map(Some).ok_or(Refusal::field(name, Wrong::NotADay)),
        }
    }

    /// A day that must be there.
    pub(super) fn day(&self, name: &'static str) -> Result<NaiveDate, Refusal> {
        self.optional_day(name)?.ok_or(Refusal::field(name, Wrong::Required))
    }

    /// A day, which stands for its beginning, or a day with its time; `0` is how other systems say never.
    pub(super) fn optional_time(&self, name: &'static str) -> Result<Option<NaiveDateTime>, Refusal> {
        let cell = self.cell(name);
        if matches!(cell, "" | "0") {
            return Ok(None);
        }
        let (day, time) = cell.split_once(' ').unwrap_or((cell, "00:00:00"));
        let time = NaiveTime::parse_from_str(time, "%H:%M:%S").ok().filter(|_| time.len() == 8);
        match (parse_day(day), time) {
            (Some(day), Some(time)) => Ok(Some(day.and_time(time))),
            _ => Err(Refusal::field(name, Wrong::NotATime)),
        }
    }

    /// Ids like `1;2` or `1,2`, each once and in order; at most so many.
    pub(super) fn ids(&self, name: &'static str, id_max: i64, max: usize) -> Result<Vec<i64>, Refusal> {
        let cell = self.cell(name);
        if matches!(cell, "" | "0") {
            return Ok(Vec::new());
        }
        let ids = cell.split([';', ',']).map(|part| match int_between(part, 1, id_max) {
            Err(Wrong::NotANumber) => Err(Refusal::field(name, Wrong::NotAList)),
            read => read.map_err(|why| Refusal::field(name, why)),
        });
        let mut ids = ids.collect::<Result<Vec<_>, _>>()?;
        ids.sort_unstable();
        ids.dedup();
        if ids.len() > max { Err(Refusal::field(name, Wrong::TooMany { max })) } else { Ok(ids) }
    }

    /// One of these words, by what it stands for.
    pub(super) fn word<T: Copy>(&self, name: &'static str, words: &[(&str, T)]) -> Result<T, Refusal> {
        let cell = self.cell(name);
        if cell.is_empty() {
            return Err(Refusal::field(name, Wrong::Required));
        }
        let found = words.iter().find(|(word, _)| *word == cell);
        found.map(|(_, meaning)| *meaning).ok_or(Refusal::field(name, Wrong::NotAState))
    }
}

/// A decimal integer between two.
fn int_between(text: &str, min: i64, max: i64) -> Result<i64, Wrong> {
    let number = parse_int(text, min, max)?;
    if (min..=max).contains(&number) { Ok(number) } else { Err(Wrong::OutOfRange { min, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[required("id"), optional("name")];

    fn rows(text: &str) -> Vec<(u64, String)> {
        let table = Table::open(text, COLUMNS).unwrap();
        table.map(|row| (row.line, format!("{}|{}", row.cell("id"), row.cell("name")))).collect()
    }

    fn numbered(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
        rows.iter().map(|(line, text)| (*line, (*text).to_owned())).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_numbers_them() {
        let expected = numbered(&[(2, "1|a"), (3, "2|b\nc"), (5, "3|"), (8, "4|d")]);
        let text = "id,name\n1,a\n2,\"b\nc\"\n3,\n\n,\n4,d\n\n\n";
        assert_eq!(rows(text), expected);
        let windows = rows(&text.replace('\n', "\r\n"));
        assert_eq!(windows.iter().map(|row| row.0).collect::<Vec<_>>(), [2, 3, 5, 8]);
        assert_eq!(rows("\n\nname,id\nx,1"), numbered(&[(4, "1|x")]));
        assert_eq!(rows(" id , name \n 1 , a "), numbered(&[(2, "1|a")]));
        assert_eq!(rows("id,name"), []);
        assert_eq!(rows("id,name\n1,\"say \"\"hi\"\"\"\n"), numbered(&[(2, "1|say \"hi\"")]));
    }

    #[test]
    fn a_header_has_each_name_once_and_no_other() {
        let why = |text: &str| Table::open(text, COLUMNS).err();
        assert_eq!(why(""), Some(Wrong::NoColumn("id")));
        assert_eq!(why("name\nx"), Some(Wrong::NoColumn("id")));
        assert_eq!(why("id,id"), Some(Wrong::ColumnTwice("id")));
        assert_eq!(why("id,名字"), Some(Wrong::UnknownColumn("名字".to_owned())));
        assert_eq!(why("id,"), Some(Wrong::UnknownColumn(String::new())));
        assert_eq!(why(&format!("id,{}", "長".repeat(9_000))), Some(Wrong::UnknownColumn("長".repeat(40))));
    }

    #[test]
    fn encodings_are_told_apart() {
        let words = "id,name\n1,黃明波\n2,联通\n";
        let utf16 = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { words.encode_utf16().flat_map(bytes).collect() };
        let (gbk, _, unmapped) = GBK.encode("id,name\n1,黃明波\n2,联通\n");
        assert!(!unmapped);
        for bytes in [
            words.as_bytes().to_vec(),
            [b"\xef\xbb\xbf", words.as_bytes()].concat(),
            [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat(),
            [b"\xfe\xff".to_vec(), utf16(u16::to_be_bytes)].concat(),
            gbk.into_owned(),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(words));
        }
    }

    #[test]
    fn what_is_no_text_is_none() {
        let mut damaged = "id,name\n1,黃明波會員\n".as_bytes().to_vec();
        damaged[12] = b'?';
        for bytes in [
            b"PK\x03\x04\x14\x00\x06\x00".as_slice(),
            b"\xff\xd8\xff\xe0JFIF",
            b"\xef\xbb\xbfid\xff",
            b"\xff\xfei\x00d",
            b"\xff\xfe\x00\xd8i\x00",
            b"id\0",
            b"\x89PNG\r\n\x1a\n\xff\xff",
            &damaged,
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
