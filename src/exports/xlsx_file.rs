//! A workbook (ECMA-376) with one sheet of rows, or several where they are too many for one, and one that says what they
//! are. Amounts and ids are numbers, days and times real dates of the merchant's zone, texts are texts and never formulas.
//!
//! Written by hand onto `zip`, from front to back: the libraries at hand either hold every cell or write to a temporary file
//! first, and panic where that cannot grow.

use std::fmt::Write as _;
use std::io::Write;

use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, DateTime, ZipWriter};

use super::file::{Head, WriteError};
use super::parquet_file::days_since_1970;
use super::{Kind, Value, in_language};
use crate::clock::{Zone, day_text};
use crate::value::{decimal_text, money_text};

/// Rows that one worksheet may have, its head included.
const MAX_ROWS: u32 = 1_048_576;

/// A worksheet of more bytes would need a longer count of them than every program reads.
const MAX_BYTES: u64 = 3 << 30;

/// Characters (UTF-16) that one cell may have.
const MAX_TEXT: usize = 32_767;

/// The largest number of which a spreadsheet keeps every digit; larger ids stay texts.
const MAX_NUMBER: i64 = 999_999_999_999_999;

/// What a longer text ends with.
const CUT: &str = "…";

/// How hard deflate tries: most of what it can gain, at a third of the time.
const LEVEL: i64 = 3;

/// 1970-01-01 as a workbook counts days.
const OF_1970: i64 = 25_569;

/// Days before 1900-03-01 are counted wrongly by Excel for ever; they stay texts.
const FIRST_DAY: i64 = 19_000_301;

const DAY_MS: i64 = 86_400_000;

/// A cell's style, by its place in [`STYLES`].
#[derive(Clone, Copy)]
enum Style {
    Head = 1,
    Text = 2,
    Number = 3,
    Hundredths = 4,
    Day = 5,
    Instant = 6,
    Share = 7,
}

const STYLES: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><numFmts count="2"><numFmt numFmtId="164" formatCode="yyyy\-mm\-dd"/><numFmt numFmtId="165" formatCode="yyyy\-mm\-dd\ hh:mm:ss"/></numFmts><fonts count="2"><font><sz val="11"/><name val="Calibri"/></font><font><b/><sz val="11"/><name val="Calibri"/></font></fonts><fills count="2"><fill><patternFill patternType="none"/></fill><fill><patternFill patternType="gray125"/></fill></fills><borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders><cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs><cellXfs count="8"><xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/><xf numFmtId="49" fontId="1" fillId="0" borderId="0" xfId="0" applyNumberFormat="1" applyFont="1"/><xf numFmtId="49" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="1" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="2" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/><xf numFmtId="10" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/></cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>"#;

const PACKAGE_RELATIONS: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>"#;

const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8" standalone="yes"?>
"#;

const WORKSHEET: &str = r#"<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">"#;

/// The head stays where it is when somebody scrolls.
const FROZEN: &str = r#"<sheetViews><sheetView workbookViewId="0"><pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews>"#;

/// A workbook on its way.
pub struct XlsxFile<W: Write> {
    zip: ZipWriter<StreamWriter<W>>,
    head: Head,
    /// Each column's kind and letters.
    columns: Vec<(Kind, String)>,
    /// The names of the worksheets that were begun.
    sheets: Vec<String>,
    /// The next row of the worksheet, from 1.
    row: u32,
    /// Bytes of the worksheet.
    bytes: u64,
    rows: u64,
    cut: u64,
    max_rows: u32,
    text: String,
}

impl<W: Write> XlsxFile<W> {
    pub(super) fn begin(head: &Head, into: W) -> Result<Self, WriteError> {
        Self::with_rows(head, into, MAX_ROWS)
    }

    fn with_rows(head: &Head, into: W, max_rows: u32) -> Result<Self, WriteError> {
        let kinds = head.columns.iter().map(|column| column.kind);
        let mut file = Self {
            zip: ZipWriter::new_stream(into),
            head: head.clone(),
            columns: kinds.enumerate().map(|(number, kind)| (kind, letters(number))).collect(),
            sheets: Vec::new(),
            row: 1,
            bytes: 0,
            rows: 0,
            cut: 0,
            max_rows,
            text: String::new(),
        };
        file.begin_sheet()?;
        Ok(file)
    }

    pub(super) fn put(&mut self, line: &[Value]) -> Result<(), WriteError> {
        if self.row > self.max_rows || self.bytes > MAX_BYTES {
            self.end_sheet()?;
            self.begin_sheet()?;
        }
        let mut text = std::mem::take(&mut self.text);
        let _ = write!(text, "<row r=\"{}\">", self.row);
        for ((kind, letters), value) in self.columns.iter().zip(line) {
            let place = (letters.as_str(), self.row);
            match value {
                Value::Null => {}
                Value::Text(value) => self.cut += u64::from(put_text(&mut text, place, Style::Text, value)),
                Value::Int(number) => put_number(&mut text, place, *kind, *number, self.head.zone),
            }
        }
        text.push_str("</row>");
        self.text = text;
        self.row += 1;
        self.rows += 1;
        self.write_out()
    }

    pub(super) fn finish(mut self) -> Result<W, WriteError> {
        self.end_sheet()?;
        self.put_facts()?;
        self.put_part("xl/styles.xml", STYLES)?;
        let mut workbook = format!(
            "{DECLARATION}<workbook xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" \
             xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets>"
        );
        let mut relations = format!(
            "{DECLARATION}<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">\
             <Relationship Id=\"rId0\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/styles\" \
             Target=\"styles.xml\"/>"
        );
        let mut types = format!(
            "{DECLARATION}<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\">\
             <Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/>\
             <Default Extension=\"xml\" ContentType=\"application/xml\"/>\
             <Override PartName=\"/xl/workbook.xml\" \
             ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml\"/>\
             <Override PartName=\"/xl/styles.xml\" \
             ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.styles+xml\"/>"
        );
        for (number, name) in (1..).zip(&self.sheets) {
            workbook.push_str("<sheet name=\"");
            escape(&mut workbook, name);
            let _ = write!(workbook, "\" sheetId=\"{number}\" r:id=\"rId{number}\"/>");
            let _ = write!(
                relations,
                "<Relationship Id=\"rId{number}\" \
                 Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" \
                 Target=\"worksheets/sheet{number}.xml\"/>"
            );
            let _ = write!(
                types,
                "<Override PartName=\"/xl/worksheets/sheet{number}.xml\" \
                 ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml\"/>"
            );
        }
        workbook.push_str("</sheets></workbook>");
        relations.push_str("</Relationships>");
        types.push_str("</Types>");
        self.put_part("xl/workbook.xml", &workbook)?;
        self.put_part("xl/_rels/workbook.xml.rels", &relations)?;
        self.put_part("_rels/.rels", PACKAGE_RELATIONS)?;
        self.put_part("[Content_Types].xml", &types)?;
        let mut into = self.zip.finish().map_err(failed)?.into_inner();
        into.flush()?;
        Ok(into)
    }

    fn begin_sheet(&mut self) -> Result<(), WriteError> {
        let name = in_language(self.head.words, self.head.language);
        self.begin_part(name)?;
        self.text.push_str(FROZEN);
        self.text.push_str("<cols>");
        for (number, (kind, _)) in (1..).zip(&self.columns) {
            let width = match kind {
                Kind::Flag => 8,
                Kind::Id | Kind::Int | Kind::Hundredths | Kind::Share => 12,
                Kind::Day => 14,
                Kind::Instant | Kind::Text => 21,
            };
            let _ = write!(
                self.text,
                "<col min=\"{number}\" max=\"{number}\" width=\"{width}\" customWidth=\"1\"/>"
            );
        }
        self.text.push_str("</cols><sheetData><row r=\"1\">");
        let words = self.head.column_words();
        for ((_, letters), word) in self.columns.iter().zip(words) {
            put_text(&mut self.text, (letters, 1), Style::Head, word);
        }
        self.text.push_str("</row>");
        self.row = 2;
        self.write_out()
    }

    fn end_sheet(&mut self) -> Result<(), WriteError> {
        self.text.push_str("</sheetData></worksheet>");
        self.write_out()
    }

    /// The worksheet that says what the rows are.
    fn put_facts(&mut self) -> Result<(), WriteError> {
        let language = self.head.language;
        let mut facts: Vec<(String, String)> = self
            .head
            .facts()
            .into_iter()
            .map(|(_, words, fact)| (in_language(words, language).to_owned(), fact))
            .collect();
        let rows = in_language(["行數", "行数", "Rows"], language);
        facts.push((rows.to_owned(), self.rows.to_string()));
        if self.cut > 0 {
            let cut = ["被截短的儲存格", "被截短的单元格", "Cells that were cut short"];
            facts.push((in_language(cut, language).to_owned(), self.cut.to_string()));
        }
        self.begin_part(in_language(["說明", "说明", "About"], language))?;
        self.text
            .push_str("<cols><col min=\"1\" max=\"2\" width=\"30\" customWidth=\"1\"/></cols><sheetData>");
        for (row, (name, fact)) in (1..).zip(facts) {
            let _ = write!(self.text, "<row r=\"{row}\">");
            put_text(&mut self.text, ("A", row), Style::Head, &name);
            put_text(&mut self.text, ("B", row), Style::Text, &fact);
            self.text.push_str("</row>");
        }
        self.end_sheet()
    }

    /// A worksheet's part. Names of worksheets are unique.
    fn begin_part(&mut self, name: &str) -> Result<(), WriteError> {
        let number = self.sheets.len() + 1;
        let again = self.sheets.iter().any(|sheet| sheet == name);
        self.sheets.push(if again { format!("{name} ({number})") } else { name.to_owned() });
        self.zip.start_file(format!("xl/worksheets/sheet{number}.xml"), options()).map_err(failed)?;
        self.bytes = 0;
        self.text.push_str(DECLARATION);
        self.text.push_str(WORKSHEET);
        Ok(())
    }

    fn put_part(&mut self, name: &str, text: &str) -> Result<(), WriteError> {
        self.zip.start_file(name, options()).map_err(failed)?;
        Ok(self.zip.write_all(text.as_bytes())?)
    }

    fn write_out(&mut self) -> Result<(), WriteError> {
        self.zip.write_all(self.text.as_bytes())?;
        self.bytes += self.text.len() as u64;
        self.text.clear();
        Ok(())
    }
}

/// Nothing in a file tells when it was written: the same rows are the same bytes.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(LEVEL))
        .last_modified_time(DateTime::default())
}

fn failed(error: zip::result::ZipError) -> WriteError {
    match error {
        zip::result::ZipError::Io(error) => WriteError::Io(error),
        error => WriteError::Other(error.to_string()),
    }
}

/// The letters of a column, counted from 0: A, B … Z, AA …
fn letters(number: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = number + 1;
    while rest > 0 {
        letters.push(char::from(b'A' + ((rest - 1) % 26) as u8));
        rest = (rest - 1) / 26;
    }
    letters.iter().rev().collect()
}

/// A text cell; whether it was cut short.
fn put_text(into: &mut String, (letters, row): (&str, u32), style: Style, text: &str) -> bool {
    let _ = write!(
        into,
        "<c r=\"{letters}{row}\" s=\"{}\" t=\"inlineStr\"><is><t xml:space=\"preserve\">",
        style as u8
    );
    let kept = shortened(text);
    escape(into, kept.unwrap_or(text));
    if kept.is_some() {
        into.push_str(CUT);
    }
    into.push_str("</t></is></c>");
    kept.is_some()
}

/// What of a text goes into a cell before [`CUT`]; None where all of it does.
fn shortened(text: &str) -> Option<&str> {
    if text.len() <= MAX_TEXT || text.encode_utf16().count() <= MAX_TEXT {
        return None;
    }
    let mut units = 0;
    let end = text.char_indices().find(|(_, letter)| {
        units += letter.len_utf16();
        units >= MAX_TEXT
    });
    Some(end.map_or(text, |(end, _)| text.get(..end).unwrap_or_default()))
}

/// XML's own characters, those that XML has no place for as workbooks write them, and what would be taken for such.
fn escape(into: &mut String, text: &str) {
    for (at, letter) in text.char_indices() {
        match letter {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '_' if is_escape(text.as_bytes().get(at..at + 7)) => into.push_str("_x005F_"),
            '\t' | '\n' => into.push(letter),
            letter if (letter as u32) < 0x20 || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(into, "_x{:04X}_", letter as u32);
            }
            letter => into.push(letter),
        }
    }
}

/// `_x000D_`
fn is_escape(text: Option<&[u8]>) -> bool {
    matches!(text, Some([b'_', b'x', digits @ .., b'_']) if digits.iter().all(u8::is_ascii_hexdigit))
}

fn put_number(into: &mut String, place: (&str, u32), kind: Kind, number: i64, zone: Zone) {
    let (letters, row) = place;
    let style = match kind {
        Kind::Flag => {
            let _ = write!(into, "<c r=\"{letters}{row}\" t=\"b\"><v>{}</v></c>", i64::from(number != 0));
            return;
        }
        Kind::Day if number < FIRST_DAY => {
            put_text(into, place, Style::Text, &day_text(number));
            return;
        }
        Kind::Id | Kind::Int | Kind::Text if number.abs() > MAX_NUMBER => {
            put_text(into, place, Style::Text, &number.to_string());
            return;
        }
        Kind::Id | Kind::Int | Kind::Text => Style::Number,
        Kind::Hundredths => Style::Hundredths,
        Kind::Share => Style::Share,
        Kind::Day => Style::Day,
        Kind::Instant => Style::Instant,
    };
    let _ = write!(into, "<c r=\"{letters}{row}\" s=\"{}\"><v>", style as u8);
    let _ = match kind {
        Kind::Hundredths => write!(into, "{}", money_text(number)),
        Kind::Share => write!(into, "{}", decimal_text(number, 4)),
        Kind::Day => write!(into, "{}", days_since_1970(number).map_or(0, |days| i64::from(days) + OF_1970)),
        Kind::Instant => write!(into, "{}", serial(zone.local_ms(number))),
        _ => write!(into, "{number}"),
    };
    into.push_str("</v></c>");
}

/// An instant of the local clock as a workbook counts, to the second.
#[expect(clippy::cast_precision_loss, reason = "seconds of a few thousand years fit into 53 bits")]
fn serial(local_ms: i64) -> f64 {
    let seconds = local_ms.div_euclid(1_000) + OF_1970 * (DAY_MS / 1_000);
    seconds as f64 / (DAY_MS / 1_000) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_have_letters() {
        assert_eq!([0, 25, 26, 51, 52, 701, 702].map(letters), ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]);
    }

    #[test]
    fn a_number_that_a_workbook_would_round_is_a_text() {
        let put = |number: i64| {
            let mut cell = String::new();
            put_number(&mut cell, ("A", 2), Kind::Id, number, Zone::default());
            cell
        };
        for (number, is_text) in
            [(999_999_999_999_999, false), (1_000_000_000_000_000, true), (9_007_199_254_740_991, true)]
        {
            assert_eq!(put(number).contains("inlineStr"), is_text, "{}", put(number));
            assert!(put(number).contains(&format!(">{number}</")), "{}", put(number));
        }
    }

    #[test]
    fn rows_that_are_too_many_for_one_worksheet_go_on_in_the_next() {
        let sheet = crate::exports::Sheet::named("grants").unwrap();
        let head = Head {
            name: sheet.name,
            words: sheet.words,
            columns: sheet.columns.to_vec(),
            told: Vec::new(),
            language: crate::refusal::Language::Simplified,
            bom: false,
            as_of: crate::audit::at::AsOf { position: 7, at_ms: 1_543_026_701_000 },
            zone: Zone::default(),
            origin: String::new(),
        };
        let mut file = XlsxFile::with_rows(&head, Vec::new(), 3).unwrap();
        for row in 1..=5 {
            file.put(&[Value::Int(row)]).unwrap();
        }
        let mut zip = zip::ZipArchive::new(std::io::Cursor::new(file.finish().unwrap())).unwrap();
        let mut part = |name: &str| std::io::read_to_string(zip.by_name(name).unwrap()).unwrap();
        let workbook = part("xl/workbook.xml");
        for (name, number) in [("发放规则", 1), ("发放规则 (2)", 2), ("发放规则 (3)", 3), ("说明", 4)]
        {
            assert!(workbook.contains(&format!("name=\"{name}\" sheetId=\"{number}\"")), "{workbook}");
        }
        let rows: Vec<usize> = (1..=3)
            .map(|number| part(&format!("xl/worksheets/sheet{number}.xml")).matches("<row ").count())
            .collect();
        assert_eq!(rows, [3, 3, 2], "each with its head");
        assert!(part("xl/worksheets/sheet4.xml").contains(">5</t>"), "how many in all");
    }

    #[test]
    fn whatever_a_text_holds_is_text_in_xml() {
        let escaped = |text: &str| {
            let mut into = String::new();
            escape(&mut into, text);
            into
        };
        assert_eq!(escaped("=1<2&\"a\"\n"), "=1&lt;2&amp;&quot;a&quot;\n");
        assert_eq!(escaped("\u{1}\r"), "_x0001__x000D_");
        assert_eq!(escaped("_x000D_ _x00_ _"), "_x005F_x000D_ _x00_ _");
    }

    #[test]
    fn a_text_too_long_for_a_cell_is_cut_between_characters() {
        assert_eq!(shortened(&"a".repeat(MAX_TEXT)), None);
        assert_eq!(shortened(&"券".repeat(MAX_TEXT)), None);
        assert_eq!(
            shortened(&"券".repeat(MAX_TEXT + 1)).map(|kept| kept.chars().count()),
            Some(MAX_TEXT - 1)
        );
        assert_eq!(
            shortened(&"😀".repeat(MAX_TEXT)).map(|kept| kept.encode_utf16().count()),
            Some(MAX_TEXT - 1)
        );
    }

    #[test]
    fn days_and_times_are_counted_as_workbooks_do() {
        // 2018-11-24 10:31:41 is 43428.4386689815.
        assert!((serial(Zone::default().local_ms(1_543_026_701_000)) - 43_428.438_668_981_5).abs() < 1e-9);
        let mut into = String::new();
        put_number(&mut into, ("A", 2), Kind::Day, 20_261_129, Zone::default());
        put_number(&mut into, ("B", 2), Kind::Day, 19_000_105, Zone::default());
        assert_eq!(
            into,
            "<c r=\"A2\" s=\"5\"><v>46355</v></c><c r=\"B2\" s=\"2\" t=\"inlineStr\"><is><t xml:space=\"preserve\">1900-01-05</t></is></c>"
        );
    }
}
