//! What is written down of an export: who asked for what, how far it is, where its file lies. Every export of a list has a
//! row, those that were answered at once too, and keeps it: it tells who took what away.

use super::{Format, Head, Selection, Sheet};
use crate::audit::at::AsOf;
use crate::ledger::{Ledger, Meta};
use crate::refusal::Language;
use crate::store::{BUCKET, Cell, Row, Statement, Store, StoreError};

/// How an export stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has begun it.
    Waiting,
    /// A server works on it.
    Running,
    /// Its file is there.
    Done,
    /// It could not be made.
    Failed,
    /// Somebody did not want it any more.
    Cancelled,
    /// Its file is gone.
    Removed,
    /// It was answered at once.
    Answered,
}

impl State {
    const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Running,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
        Self::Removed,
        Self::Answered,
    ];

    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Removed => "removed",
            Self::Answered => "answered",
        }
    }

    fn number(self) -> i64 {
        self as i64
    }
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Which rows.
    pub selection: Selection,
    /// In which format.
    pub format: Format,
    /// The language of its columns.
    pub language: Language,
    /// Whether a CSV begins with a byte order mark.
    pub bom: bool,
    /// As of when.
    pub as_of: AsOf,
}

impl Asked {
    /// What the file says of itself.
    pub async fn head(&self, ledger: &Ledger) -> Result<Head, StoreError> {
        Ok(Head {
            name: self.selection.sheet.name,
            words: self.selection.sheet.words,
            columns: self.selection.sheet.columns.to_vec(),
            told: self.selection.told().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            language: self.language,
            bom: self.bom,
            as_of: self.as_of,
            zone: ledger.zone(),
            origin: ledger.store().origin().await?.unwrap_or_default(),
        })
    }
}

/// An export as it is written down.
#[derive(Clone, Debug)]
pub struct Export {
    /// Its number.
    pub id: i64,
    /// What was asked.
    pub asked: Asked,
    /// How it stands.
    pub state: State,
    /// The folder it is made in; empty = any.
    pub home: String,
    /// The address of the server that made it.
    pub server: String,
    /// Streams there are to look at.
    pub total: i64,
    /// Streams looked at.
    pub seen: i64,
    /// Where the source goes on.
    pub(super) after: String,
    /// Finished parts.
    pub(super) parts: i64,
    /// Rows found.
    pub rows: i64,
    /// Rows written into the file.
    pub written: i64,
    /// The file's size.
    pub bytes: i64,
    /// The file's SHA-256.
    pub sha256: String,
    /// Why it failed or was removed.
    pub reason: String,
    /// Who asked.
    pub asked_by: String,
    request_mac: String,
    /// When, Unix milliseconds.
    pub asked_at_ms: i64,
    /// When it came to its end; 0 = not yet.
    pub ended_at_ms: i64,
    /// When the file is removed; 0 = there is none.
    pub lapses_at_ms: i64,
}

/// Exports that may be under way at a time: each is a file on the server's disk for days.
pub const MAX_OPEN: i64 = 20;

/// What became of an export that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It waits.
    New(i64),
    /// The same was asked under this key before.
    Replayed(i64),
    /// Something else was asked under this key.
    KeyReused,
    /// So many are under way that another must wait.
    TooMany,
}

macro_rules! columns {
    () => {
        "export_id, sheet, format, language, bom, filter, position, at_ms, state, home, server, total, seen, after_id, parts,
         line_count, written, bytes, sha256, reason, asked_by, request_mac, asked_at_ms, ended_at_ms, lapses_at_ms"
    };
}

impl Export {
    fn read(row: &mut Row, ledger: &Ledger) -> Result<Self, StoreError> {
        let corrupt = |column: &str, what: &str| StoreError::Corrupt {
            table: "exports".to_owned(),
            column: column.to_owned(),
            what: what.to_owned(),
        };
        let sheet = Sheet::named(row.text(1)).ok_or_else(|| corrupt("sheet", row.text(1)))?;
        let format = Format::named(row.text(2)).ok_or_else(|| corrupt("format", row.text(2)))?;
        let selection = Selection::parse(sheet, row.text(5), ledger.zone());
        let state = usize::try_from(row.int(8)).ok().and_then(|state| State::ALL.get(state));
        Ok(Self {
            id: row.int(0),
            asked: Asked {
                selection: selection.map_err(|_| corrupt("filter", row.text(5)))?,
                format,
                language: match row.int(3) {
                    0 => Language::Traditional,
                    1 => Language::Simplified,
                    _ => Language::English,
                },
                bom: row.int(4) == 1,
                as_of: AsOf { position: row.int(6), at_ms: row.int(7) },
            },
            state: *state.ok_or_else(|| corrupt("state", "no such state"))?,
            home: row.take_text(9),
            server: row.take_text(10),
            total: row.int(11),
            seen: row.int(12),
            after: row.take_text(13),
            parts: row.int(14),
            rows: row.int(15),
            written: row.int(16),
            bytes: row.int(17),
            sha256: row.take_text(18),
            reason: row.take_text(19),
            asked_by: row.take_text(20),
            request_mac: row.take_text(21),
            asked_at_ms: row.int(22),
            ended_at_ms: row.int(23),
            lapses_at_ms: row.int(24),
        })
    }

    /// Whether its file has ended, though it may be there still.
    pub async fn is_over(&self, ledger: &Ledger) -> Result<bool, StoreError> {
        Ok(self.lapses_at_ms <= ledger.clock().now_ms() || self.was_overtaken(ledger.store()).await?)
    }

    /// Whether a member was erased since its rows were asked for: a file with personal data has ended then.
    pub(super) async fn was_overtaken(&self, store: &Store) -> Result<bool, StoreError> {
        if self.asked.selection.sheet.whose.is_none() {
            return Ok(false);
        }
        // In words of its own, not as parameters: only so does a planner see that an index holds exactly these.
        let sql =
            "SELECT position FROM events WHERE bucket = $1 AND position > $2 AND aggregate_type = 'member'
                   AND event_type = 'Erased' LIMIT 1";
        let found = Statement::new(sql, [BUCKET.into(), self.asked.as_of.position.into()]);
        Ok(!store.query(found).await?.is_empty())
    }
}

/// The exports of a statement that selects them.
async fn select(
    ledger: &Ledger,
    sql: &'static str,
    parameters: impl IntoIterator<Item = Cell>,
) -> Result<Vec<Export>, StoreError> {
    let rows = ledger.store().query(Statement::new(sql, parameters)).await?;
    rows.into_iter().map(|mut row| Export::read(&mut row, ledger)).collect()
}

/// The export of this number.
pub async fn export(ledger: &Ledger, id: i64) -> Result<Option<Export>, StoreError> {
    let sql = concat!("SELECT ", columns!(), " FROM exports WHERE export_id = $1");
    Ok(select(ledger, sql, [id.into()]).await?.pop())
}

/// Exports with smaller numbers, newest first, but those of some sheets.
pub async fn exports(
    ledger: &Ledger,
    (before, limit): (i64, i64),
    but: &[&'static Sheet],
) -> Result<Vec<Export>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM exports WHERE export_id < $1 AND $3 NOT LIKE '%,' || sheet || ',%' ORDER BY export_id DESC LIMIT $2"
    );
    let but = but.iter().fold(",".to_owned(), |names, sheet| names + sheet.name + ",");
    select(ledger, sql, [before.into(), limit.into(), but.into()]).await
}

/// Writes down that somebody wants a file. The same key asks once.
pub async fn begin(ledger: &Ledger, asked: &Asked, meta: &Meta) -> Result<Begun, StoreError> {
    let open = "SELECT COUNT(*) FROM exports WHERE state IN (0, 1, 2) AND state < 2";
    let open = ledger.store().query(Statement::new(open, [])).await?.first().map_or(0, |row| row.int(0));
    let id = ledger.store().reserve_ids("export", 1).await?;
    let (key, mac) = match &meta.receipt {
        Some((key, mac)) => (key.key.as_str(), mac.as_str()),
        None => ("", ""),
    };
    let caller = meta.caller.to_string();
    if open < MAX_OPEN {
        let insert = insert(id, asked, State::Waiting, (&caller, key, mac), meta.at.ms, 0);
        if ledger.store().write(vec![insert]).await?.first().is_some_and(|rows| !rows.is_empty()) {
            return Ok(Begun::New(id));
        }
    }
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM exports WHERE asked_by = $1 AND idempotency_key = $2 AND idempotency_key <> ''"
    );
    let found = select(ledger, sql, [caller.into(), key.into()]).await?;
    Ok(match found.first() {
        Some(export) if !key.is_empty() && export.request_mac == mac => Begun::Replayed(export.id),
        _ if open >= MAX_OPEN => Begun::TooMany,
        _ => Begun::KeyReused,
    })
}

/// Writes down that so many rows were answered at once.
pub async fn note_answered(ledger: &Ledger, asked: &Asked, rows: i64, meta: &Meta) -> Result<(), StoreError> {
    let id = ledger.store().reserve_ids("export", 1).await?;
    let caller = meta.caller.to_string();
    ledger
        .store()
        .write(vec![insert(id, asked, State::Answered, (&caller, "", ""), meta.at.ms, rows)])
        .await?;
    Ok(())
}

fn insert(
    id: i64,
    asked: &Asked,
    state: State,
    (caller, key, mac): (&str, &str, &str),
    now_ms: i64,
    rows: i64,
) -> Statement {
    let sql = "INSERT INTO exports (export_id, sheet, format, language, bom, filter, position, at_ms, state, home, server, total,
                 seen, after_id, parts, line_count, written, bytes, sha256, reason, asked_by, idempotency_key, request_mac,
                 asked_at_ms, ended_at_ms, lapses_at_ms)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, '', '', 0, 0, '', 0, $10, 0, 0, '', '', $11, $12, $13, $14, $15, 0)
               ON CONFLICT DO NOTHING RETURNING export_id";
    let ended_at_ms = if state == State::Answered { now_ms } else { 0 };
    let parameters: [Cell; 15] = [
        id.into(),
        asked.selection.sheet.name.into(),
        asked.format.name().into(),
        (asked.language as i64).into(),
        asked.bom.into(),
        asked.selection.text().into(),
        asked.as_of.position.into(),
        asked.as_of.at_ms.into(),
        state.number().into(),
        rows.into(),
        caller.into(),
        key.into(),
        mac.into(),
        now_ms.into(),
        ended_at_ms.into(),
    ];
    Statement::new(sql, parameters)
}

/// Whether a statement that returns what it has changed has changed anything.
async fn changes(store: &Store, statement: Statement) -> Result<bool, StoreError> {
    Ok(store.write(vec![statement]).await?.first().is_some_and(|rows| !rows.is_empty()))
}

/// Ends an export that is not done yet; false where it is not under way.
pub async fn cancel(ledger: &Ledger, id: i64) -> Result<bool, StoreError> {
    let sql = "UPDATE exports SET state = 4, ended_at_ms = $2 WHERE export_id = $1 AND state IN (0, 1) RETURNING export_id";
    let now_ms = ledger.clock().now_ms();
    changes(ledger.store(), Statement::new(sql, [id.into(), now_ms.into()])).await
}

/// Has one that failed or was cancelled made after all, as of the same position; false where it is neither.
pub async fn resume(ledger: &Ledger, id: i64) -> Result<bool, StoreError> {
    let sql =
        "UPDATE exports SET state = 0, home = '', server = '', total = 0, seen = 0, after_id = '', parts = 0,
                 line_count = 0, written = 0, reason = '', ended_at_ms = 0
               WHERE export_id = $1 AND state IN (3, 4) RETURNING export_id";
    changes(ledger.store(), Statement::new(sql, [id.into()])).await
}

/// The next one that is to be made in this folder, which is then this server's: one that it has begun, else the oldest that
/// waits.
pub(super) async fn take_next(
    ledger: &Ledger,
    home: &str,
    server: &str,
) -> Result<Option<Export>, StoreError> {
    // Whoever is second meets the first one's row, sees that it is taken, and gets nothing this time.
    let sql = concat!(
        "UPDATE exports SET state = 1, home = $1, server = $2 WHERE export_id =
           (SELECT export_id FROM exports WHERE state IN (0, 1, 2) AND (state = 1 AND home = $1 OR state = 0)
            ORDER BY state DESC, export_id LIMIT 1)
         AND (state = 0 OR home = $1) RETURNING ",
        columns!()
    );
    let taken = ledger.store().write(vec![Statement::new(sql, [home.into(), server.into()])]).await?;
    let row = taken.into_iter().flatten().next();
    row.map(|mut row| Export::read(&mut row, ledger)).transpose()
}

/// How far one is; false where it is not to go on, or another folder's server makes it by now.
pub(super) async fn note_progress(store: &Store, export: &Export) -> Result<bool, StoreError> {
    let sql =
        "UPDATE exports SET total = $2, seen = $3, after_id = $4, parts = $5, line_count = $6, written = $7
               WHERE export_id = $1 AND state = 1 AND home = $8 RETURNING export_id";
    let parameters: [Cell; 8] = [
        export.id.into(),
        export.total.into(),
        export.seen.into(),
        export.after.as_str().into(),
        export.parts.into(),
        export.rows.into(),
        export.written.into(),
        export.home.as_str().into(),
    ];
    changes(store, Statement::new(sql, parameters)).await
}

/// Its file is there; false where it is not wanted any more.
pub(super) async fn note_done(store: &Store, export: &Export) -> Result<bool, StoreError> {
    let sql = "UPDATE exports SET state = 2, written = $2, bytes = $3, sha256 = $4, ended_at_ms = $5, lapses_at_ms = $6
               WHERE export_id = $1 AND state = 1 AND home = $7 RETURNING export_id";
    let parameters: [Cell; 7] = [
        export.id.into(),
        export.written.into(),
        export.bytes.into(),
        export.sha256.as_str().into(),
        export.ended_at_ms.into(),
        export.lapses_at_ms.into(),
        export.home.as_str().into(),
    ];
    changes(store, Statement::new(sql, parameters)).await
}

/// It cannot be made, and why.
pub(super) async fn note_failed(
    store: &Store,
    (id, home): (i64, &str),
    reason: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    let sql = "UPDATE exports SET state = 3, reason = $2, ended_at_ms = $3
               WHERE export_id = $1 AND state = 1 AND home = $4 RETURNING export_id";
    changes(store, Statement::new(sql, [id.into(), reason.into(), now_ms.into(), home.into()]))
        .await
        .map(drop)
}

/// The exports of a folder whose file is there.
pub(super) async fn done_in(ledger: &Ledger, home: &str) -> Result<Vec<Export>, StoreError> {
    let sql = concat!(
        "SELECT ",
        columns!(),
        " FROM exports WHERE state IN (0, 1, 2) AND state = 2 AND home = $1 ORDER BY export_id"
    );
    select(ledger, sql, [home.into()]).await
}

/// The numbers of those that are to be made in a folder, or may be.
pub(super) async fn open_in(store: &Store, home: &str) -> Result<Vec<i64>, StoreError> {
    let sql =
        "SELECT export_id FROM exports WHERE state IN (0, 1, 2) AND (state = 0 OR state = 1 AND home = $1)";
    let rows = store.query(Statement::new(sql, [home.into()])).await?;
    Ok(rows.iter().map(|row| row.int(0)).collect())
}

/// Its file is gone.
pub(super) async fn note_removed(store: &Store, id: i64, reason: &str) -> Result<(), StoreError> {
    let sql = "UPDATE exports SET state = 5, reason = $2, lapses_at_ms = 0 WHERE export_id = $1 AND state = 2
               RETURNING export_id";
    changes(store, Statement::new(sql, [id.into(), reason.into()])).await.map(drop)
}
