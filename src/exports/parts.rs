//! The rows of a job between being read and being written: files of a few rows each, in order within themselves, which are
//! merged into one order at the end. What is in a finished part is on disk and need not be read again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{ExportError, Line, Value};
use crate::durable::{self, private};

/// Files that are read at a time: each needs a buffer and a descriptor.
const AT_A_TIME: usize = 48;

/// How hard zstd tries: what is written once and read once need not be small.
const LEVEL: i32 = 1;

/// How far zstd looks back, as a power of two: what each open part costs in memory.
const WINDOW: u32 = 17;

/// The file of a part, counted from 1.
pub(super) fn part_path(folder: &Path, number: i64) -> PathBuf {
    folder.join(format!("part-{number:06}.zst"))
}

/// Sorts rows by their first `keys` columns.
pub(super) fn sort(lines: &mut [Line], keys: usize) {
    lines.sort_by_cached_key(|line| key_of(line, keys));
}

/// Writes a part: on disk when this returns. What another process has left of the same part is overwritten.
pub(super) fn write_part(path: &Path, lines: &[Line]) -> Result<(), ExportError> {
    let write = || -> std::io::Result<()> {
        let mut part = Part::create(path)?;
        lines.iter().try_for_each(|line| part.put(line))?;
        part.finish()?;
        durable::sync_folder_of(path)
    };
    write().map_err(|source| io_error(path, source))
}

fn io_error(path: &Path, source: std::io::Error) -> ExportError {
    ExportError::Io { path: path.to_owned(), source }
}

/// Gives every row of some parts to `put`, in order, without holding more than a few of each part.
pub(super) fn merge(
    folder: &Path,
    parts: Vec<PathBuf>,
    keys: usize,
    mut put: impl FnMut(&Line) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut parts = parts;
    let mut merged = 0;
    while parts.len() > AT_A_TIME {
        let rest = parts.split_off(AT_A_TIME);
        merged += 1;
        let path = folder.join(format!("merged-{merged:06}.zst"));
        let failed = |source| io_error(&path, source);
        let mut into = Part::create(&path).map_err(failed)?;
        merge_some(&parts, keys, &mut |line| into.put(line).map_err(failed))?;
        into.finish().map_err(failed)?;
        parts = rest;
        parts.push(path);
    }
    merge_some(&parts, keys, &mut put)
}

fn merge_some(
    parts: &[PathBuf],
    keys: usize,
    put: &mut impl FnMut(&Line) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
    let mut readers = parts.iter().map(|path| Reader::open(path)).collect::<Result<Vec<_>, _>>()?;
    // Which part has the next row: the key of its first row that was not given yet, and its number.
    let mut first = BinaryHeap::new();
    for (number, reader) in readers.iter_mut().enumerate() {
        first.extend(reader.advance()?.map(|line| Reverse((key_of(line, keys), number))));
    }
    while let Some(Reverse((_, number))) = first.pop() {
        let Some(reader) = readers.get_mut(number) else { continue };
        put(&reader.line)?;
        first.extend(reader.advance()?.map(|line| Reverse((key_of(line, keys), number))));
    }
    Ok(())
}

fn key_of(line: &[Value], keys: usize) -> Vec<i64> {
    let number = |value: &Value| if let Value::Int(number) = value { *number } else { 0 };
    line.iter().take(keys).map(number).collect()
}

/// A part on its way: rows as JSON lists, one a line.
struct Part(BufWriter<zstd::Encoder<'static, File>>);

impl Part {
    fn create(path: &Path) -> std::io::Result<Self> {
        let file = private().create(true).truncate(true).open(path)?;
        let mut encoder = zstd::Encoder::new(file, LEVEL)?;
        encoder.window_log(WINDOW)?;
        // A part that was damaged is none.
        encoder.include_checksum(true)?;
        Ok(Self(BufWriter::with_capacity(1 << 16, encoder)))
    }

    fn put(&mut self, line: &Line) -> std::io::Result<()> {
        serde_json::to_writer(&mut self.0, line)?;
        self.0.write_all(b"\n")
    }

    fn finish(self) -> std::io::Result<()> {
        let encoder = self.0.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        encoder.finish()?.sync_all()
    }
}

/// A part that is read row by row.
struct Reader {
    path: PathBuf,
    lines: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    text: Vec<u8>,
    line: Line,
}

impl Reader {
    fn open(path: &Path) -> Result<Self, ExportError> {
        let open = || Ok(BufReader::new(zstd::Decoder::new(File::open(path)?)?));
        let lines = open().map_err(|error: std::io::Error| damaged(path, &error))?;
        Ok(Self { path: path.to_owned(), lines, text: Vec::new(), line: Line::new() })
    }

    /// Goes on to the next row; None at the end.
    fn advance(&mut self) -> Result<Option<&Line>, ExportError> {
        self.text.clear();
        let read =
            self.lines.read_until(b'\n', &mut self.text).map_err(|error| damaged(&self.path, &error))?;
        if read == 0 {
            return Ok(None);
        }
        self.line = serde_json::from_slice(&self.text).map_err(|error| damaged(&self.path, &error))?;
        Ok(Some(&self.line))
    }
}

fn damaged(path: &Path, error: &impl fmt::Display) -> ExportError {
    ExportError::Damaged(format!("{} cannot be read: {error}", path.display()))
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfValue)
    }
}

struct OfValue;

impl<'de> Visitor<'de> for OfValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("null, a whole number or a text")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number).map(Value::Int).map_err(E::custom)
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, _: A) -> Result<Value, A::Error> {
        Err(serde::de::Error::custom("a list is no cell"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_merged_into_one_order_however_many_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let count = 2 * AT_A_TIME as i64 + 5;
        let line = |key: i64| vec![Value::Int(key), Value::Text(format!("=\"{key}\n")), Value::Null];
        let paths: Vec<_> = (1..=count).map(|number| part_path(folder.path(), number)).collect();
        for (number, path) in (1..).zip(&paths) {
            let mut lines: Vec<Line> = (0..3).map(|round| line(round * count + number)).rev().collect();
            sort(&mut lines, 1);
            write_part(path, &lines).unwrap();
        }
        let mut merged = Vec::new();
        merge(folder.path(), paths.clone(), 1, |line| {
            merged.push(line.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(merged, (1..=3 * count).map(line).collect::<Vec<_>>());
        std::fs::write(&paths[3], b"not zstd").unwrap();
        assert!(matches!(merge(folder.path(), paths, 1, |_| Ok(())), Err(ExportError::Damaged(_))));
    }
}
