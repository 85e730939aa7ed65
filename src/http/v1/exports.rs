//! Lists and statistics as files, at once or as jobs. A sheet that is added to the table of sheets has its routes here.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use futures::Stream;
use serde_json::{Value, json};

use super::{AT, Ask, Method, Page, Resource, Run, statistics};
use crate::access::{self, Resource as Target};
use crate::exports::{
    self, Accepts, Answered, Asked, BEGIN, Begun, END, Export, ExportError, Format, Head, LINK_MS, MAX_OPEN,
    ROWS_AT_ONCE, SHEETS, Selection, Sheet, State,
};
use crate::http::form::Form;
use crate::http::routes::{Field, Holds, optional, required};
use crate::http::{App, Failure};
use crate::ledger::ExecuteError;
use crate::refusal::{CHANGED_MEANWHILE, KEY_REUSED, Language, NO_SUCH_RULE, Wrong};
use crate::replay::ReplayError;
use crate::value::MAX_ID;

/// How much of a file is read at a time.
const CHUNK: usize = 1 << 16;

/// Which handler answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exports {
    /// `GET /v1/exports/{sheet}.{format}`: which sheet, by its place.
    Answer(usize, Format),
    /// `POST /v1/exports`
    Begin,
    /// `GET /v1/exports`
    List,
    /// `GET /v1/exports/{id}`
    Look,
    /// `POST /v1/exports/{id}/cancel`
    Cancel,
    /// `POST /v1/exports/{id}/resume`
    Resume,
    /// `GET /v1/exports/{id}/file`, which a link opens
    File,
}

const LANG: Field = optional(
    "lang",
    Holds::OneOf(LANGUAGES),
    "the language of the columns' names; default that of Accept-Language. Parquet has its own names always",
);
const LANGUAGES: &[&str] = &["zh-TW", "zh-CN", "en"];
const BOM: Field =
    optional("bom", Holds::Flag, "1: a CSV begins with a byte order mark, by which Excel knows UTF-8");
const FIRST_DAY: Field = optional(BEGIN, Holds::Day, "from this local day on");
const LAST_DAY: Field = optional(END, Holds::Day, "up to the end of this local day");

/// The type of a file that is downloaded: a browser keeps it and opens nothing.
const FILE: &str = "application/octet-stream";

/// An export as it is told, for examples.
macro_rules! export {
    () => {
        r#"{"id":7,"sheet":"coupons","format":"xlsx","filter":"member_id=439","position":1200,"at_ms":1543026701000,"state":"done","total":400,"seen":400,"rows":3,"written":3,"bytes":5120,"sha256":"5ca52985afeee9c7a5a453cba21c338712acd5080c74174357c535e9cbfa1d4c","reason":null,"asked_by":"operator","asked_at_ms":1543026701000,"ended_at_ms":1543026702000,"lapses_at_ms":1543631502000,"server":"http://127.0.0.1:8787","file":"/v1/exports/7/file?until=1543030301000&signature=mJ7Vw2c1y8k3b0wq9uXy1A"}"#
    };
}

const EXPORT: &str = export!();

const ID: Field = required("id", Holds::Id, "the export's number");

const OF_JOBS: &[Resource] = &[
    Resource {
        method: Method::Post,
        path: "/v1/exports",
        about: "Asks for a file of any size, which is made in the background; the sheet's own filters stand in the query as well. \
                All rows are as of one position: what is written meanwhile changes none. The same `Idempotency-Key` asks once. \
                With the right to export alone: sheets with personal data need theirs besides, and accounts, keys and webhooks are for operators and auditors",
        parts: &[],
        query: &[
            required("sheet", Holds::OneOf(SHEET_NAMES), "which list"),
            required("format", Holds::OneOf(Format::NAMES), "which format"),
            LANG,
            BOM,
            AT,
        ],
        produces: "application/json",
        example: EXPORT,
        run: Run::Exports(Exports::Begin),
    },
    Resource {
        method: Method::Get,
        path: "/v1/exports",
        about: "Every export, newest first, those that were answered at once too: who took what away",
        parts: &[],
        query: &[
            optional("before", Holds::Id, "those with smaller numbers"),
            optional("limit", Holds::Int(1, 100), "at most so many; default 20"),
        ],
        produces: "application/json",
        example: concat!(r#"{"exports":["#, export!(), "]}"),
        run: Run::Exports(Exports::List),
    },
    Resource {
        method: Method::Get,
        path: "/v1/exports/{id}",
        about: "How an export stands: `state` is waiting, running, done, failed (`reason` says why), cancelled, removed (its file is \
                gone) or answered (at once; there is no file); `seen` of `total` streams are read, `rows` found, `written` \
                of them in the file. `file` is a link that downloads it without a token for an hour, and of people's data \
                for who asked for it alone; `server` made it and has it",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: EXPORT,
        run: Run::Exports(Exports::Look),
    },
    Resource {
        method: Method::Post,
        path: "/v1/exports/{id}/cancel",
        about: "Ends an export that is not done; nothing is left of it. 6003 where it is not under way",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: EXPORT,
        run: Run::Exports(Exports::Cancel),
    },
    Resource {
        method: Method::Post,
        path: "/v1/exports/{id}/resume",
        about: "Has an export made after all that failed or was cancelled, as of the same position. 6003 where it is neither. One that \
                a server's end cut off goes on by itself",
        parts: &[ID],
        query: &[],
        produces: "application/json",
        example: EXPORT,
        run: Run::Exports(Exports::Resume),
    },
    Resource {
        method: Method::Get,
        path: "/v1/exports/{id}/file",
        about: "The file of an export, by the link that it has as `file`. 2005 where the link has ended, is none of ours, or its file \
                is gone",
        parts: &[ID],
        query: &[
            required("until", Holds::Int(1, MAX_ID), "until when the link holds, Unix milliseconds"),
            required("signature", Holds::Text(64), "the ledger's signature"),
        ],
        produces: FILE,
        example: "(the file)",
        run: Run::Exports(Exports::File),
    },
];

/// The names of the sheets, in the order of their table.
const SHEET_NAMES: &[&str] = &[
    "coupons",
    "redemptions",
    "definitions",
    "orders",
    "members",
    "jobs",
    "grants",
    "order-rules",
    "goods-groups",
    "allotments",
    "allotment-changes",
    "settlements",
    "shops",
    "partners",
    "employees",
    "approvals",
    "levels",
    "tags",
    "offices",
    "appointments",
    "accounts",
    "machine-keys",
    "partner-keys",
    "webhooks",
];

/// Every sheet's routes, and those of jobs. The tables that are made here live as long as the program.
pub(super) fn resources() -> Vec<Resource> {
    let mut resources: Vec<Resource> = OF_JOBS.iter().copied().chain(statistics::files()).collect();
    for (place, sheet) in SHEETS.iter().enumerate() {
        for format in Format::ALL {
            resources.push(Resource {
                method: Method::Get,
                path: path_of(sheet, format).leak(),
                about: about(sheet, format).leak(),
                parts: &[],
                query: query_of(sheet, format).leak(),
                produces: media_type(format),
                example: example(sheet, format).leak(),
                run: Run::Exports(Exports::Answer(place, format)),
            });
        }
    }
    resources
}

fn path_of(sheet: &Sheet, format: Format) -> String {
    format!("/v1/exports/{}.{}", sheet.name, format.name())
}

fn about(sheet: &Sheet, format: Format) -> String {
    let format = match format {
        Format::Csv => "as CSV",
        Format::Xlsx => "as a workbook",
        Format::Parquet => "as Parquet",
    };
    let about = sheet.about;
    format!("{about}; {format}, at most {ROWS_AT_ONCE} rows (6003 beyond: ask for a job)")
}

fn query_of(sheet: &Sheet, format: Format) -> Vec<Field> {
    let filter = |filter: &exports::Filter| {
        let holds = match filter.accepts {
            Accepts::Id => Holds::Id,
            Accepts::OneOf(words) => Holds::OneOf(words),
        };
        optional(filter.name, holds, filter.about)
    };
    let mut query: Vec<Field> = sheet.filters.iter().map(filter).collect();
    if sheet.days.is_some() {
        query.extend([FIRST_DAY, LAST_DAY]);
    }
    query.extend(as_file(format));
    if sheet.is_from_log() {
        query.push(AT);
    }
    query
}

/// How a file of a format may be asked for, whatever it is of.
pub(super) fn as_file(format: Format) -> &'static [Field] {
    if format == Format::Csv { &[LANG, BOM] } else { &[LANG] }
}

/// The same without its parameters.
pub(super) fn media_type(format: Format) -> &'static str {
    format.media_type().split(';').next().unwrap_or_default()
}

fn example(sheet: &Sheet, format: Format) -> String {
    match format {
        Format::Csv => sheet.columns.iter().map(|column| column.words[2]).collect::<Vec<_>>().join(","),
        _ => sheet.columns.iter().map(|column| column.name).collect::<Vec<_>>().join(", "),
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        match error {
            ExportError::Store(error) | ExportError::Replay(ReplayError::Store(error)) => error.into(),
            ExportError::Replay(ReplayError::Corrupt(corrupt)) => {
                Self::Execute(ExecuteError::Corrupt(corrupt))
            }
            ExportError::TooMany(rows) => Self::Said(
                &CHANGED_MEANWHILE,
                format!("more than {rows} rows: narrow the filter, or POST /v1/exports"),
            ),
            error => {
                tracing::error!(%error, "an export could not be answered");
                Self::TooSlow
            }
        }
    }
}

pub(super) async fn run(run: Exports, ask: Ask) -> Result<Page, Failure> {
    match run {
        Exports::Answer(place, format) => answer(place, format, ask).await,
        Exports::Begin => begin(ask).await,
        Exports::List => list(ask).await,
        Exports::Look => {
            let (ask, export) = find(ask).await?;
            shown(&ask, &export)
        }
        Exports::Cancel => cancel(ask).await,
        Exports::Resume => resume(ask).await,
        // A link opens it, see [`file`]; the table says so.
        Exports::File => Err(Failure::NotAllowed),
    }
}

/// Whether somebody may take a sheet away: whoever may have it as CSV.
fn may_have(ask: &Ask, sheet: &Sheet) -> bool {
    let action = format!("GET {}", path_of(sheet, Format::Csv));
    access::authorize(&ask.who, &action, Target::Whole).is_ok()
}

/// Reads what is wanted of a sheet.
async fn asked(ask: &mut Ask, sheet: &'static Sheet, format: Format) -> Result<Asked, Failure> {
    let names = sheet.filters.iter().map(|filter| filter.name);
    let days = if sheet.days.is_some() { &[BEGIN, END][..] } else { &[] };
    let names: Vec<&'static str> = names.chain(days.iter().copied()).collect();
    let told = names.into_iter().filter_map(|name| {
        let value = ask.form.optional_text(name, 40)?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    let told: Vec<_> = told.collect();
    let (language, bom) = language_and_bom(ask);
    let at = ask.at();
    if at.is_some() && !sheet.is_from_log() {
        ask.form.wrong("at", Wrong::NotFromEvents);
    }
    let selection = Selection::new(sheet, told, ask.app.ledger.zone()).map_err(|wrong| {
        for (name, why) in wrong {
            ask.form.wrong(name, why);
        }
    });
    let Ok(selection) = selection else {
        return Err(Failure::Fields(ask.form.finish().err().unwrap_or_default()));
    };
    if ask.form.has_errors() {
        return Err(Failure::Fields(ask.form.finish().err().unwrap_or_default()));
    }
    Ok(Asked { selection, format, language, bom, as_of: ask.as_of(at).await? })
}

/// In which language a file's columns are named, and whether a CSV begins with a byte order mark.
pub(super) fn language_and_bom(ask: &mut Ask) -> (Language, bool) {
    let language = match ask.form.one_of("lang", LANGUAGES) {
        Some("zh-TW") => Language::Traditional,
        Some("zh-CN") => Language::Simplified,
        Some(_) => Language::English,
        None => ask.language,
    };
    (language, ask.form.flag("bom", false))
}

/// A file that is answered at once.
pub(super) fn file_page(format: Format, head: &Head, bytes: Vec<u8>, rows: i64) -> Result<Page, Failure> {
    Ok(Page::new(format.media_type(), bytes)
        .with("content-disposition", attachment(&head.file_name(format))?)
        .with_text("cache-control", "no-store")
        .with("x-export-position", head.as_of.position)
        .with("x-export-at-ms", head.as_of.at_ms)
        .with("x-export-rows", rows)
        .with("x-export-filter", text(&head.filter())?))
}

async fn answer(place: usize, format: Format, mut ask: Ask) -> Result<Page, Failure> {
    let sheet = SHEETS.get(place).copied().ok_or(Failure::NotThere)?;
    let asked = asked(&mut ask, sheet, format).await?;
    let ledger = ask.app.ledger.clone();
    // Each folds the log: a few at a time leave room for everybody else.
    let turn = ask.app.exporting.clone().acquire_owned().await.map_err(|_| Failure::TooSlow)?;
    let at_most = ask.app.options.exports.rows_at_once;
    let Answered { bytes, rows, people } = exports::answer(&ledger, &asked, at_most).await?;
    drop(turn);
    let head = asked.head(&ledger).await?;
    exports::note_answered(&ledger, &asked, rows, &ask.meta("/v1/exports", "")).await?;
    Ok(file_page(format, &head, bytes, rows)?.showing(people))
}

fn attachment(name: &str) -> Result<HeaderValue, Failure> {
    text(&format!("attachment; filename=\"{name}\""))
}

/// A header of what was checked before: numbers, days and our own words.
fn text(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| Failure::Panicked)
}

async fn begin(mut ask: Ask) -> Result<Page, Failure> {
    let name = ask.form.one_of("sheet", SHEET_NAMES);
    let format = ask.form.one_of("format", Format::NAMES);
    for (field, is_there) in [("sheet", name.is_some()), ("format", format.is_some())] {
        if !is_there {
            ask.form.wrong(field, Wrong::Required);
        }
    }
    let (Some(sheet), Some(format)) = (name.and_then(Sheet::named), format.and_then(Format::named)) else {
        return Err(Failure::Fields(ask.form.finish().err().unwrap_or_default()));
    };
    if !may_have(&ask, sheet) {
        return Err(Failure::NotAllowed);
    }
    let asked = asked(&mut ask, sheet, format).await?;
    let canonical = ask.form.finish().map_err(Failure::Fields)?;
    let meta = ask.meta("/v1/exports", &canonical);
    let (id, replayed) = match exports::begin(&ask.app.ledger, &asked, &meta).await? {
        Begun::New(id) => (id, false),
        Begun::Replayed(id) => (id, true),
        Begun::TooMany => {
            let said = format!("{MAX_OPEN} exports are under way: wait for one, or cancel one");
            return Err(Failure::Said(&CHANGED_MEANWHILE, said));
        }
        Begun::KeyReused => return Err(Failure::Said(&KEY_REUSED, KEY_REUSED.text(ask.language).to_owned())),
    };
    ask.app.options.exports.news.notify_one();
    let export = exports::export(&ask.app.ledger, id).await?.ok_or_else(|| no_such(id))?;
    let page = shown(&ask, &export)?;
    Ok(if replayed { page.with_text("idempotency-replayed", "true") } else { page })
}

fn no_such(id: i64) -> Failure {
    Failure::Said(&NO_SUCH_RULE, format!("there is no export {id}"))
}

/// The export that is asked for, where whoever asks may have it.
async fn find(mut ask: Ask) -> Result<(Ask, Export), Failure> {
    let id = ask.form.id("id");
    ask.checked()?;
    let export = exports::export(&ask.app.ledger, id).await?;
    let export = export.filter(|export| may_have(&ask, export.asked.selection.sheet));
    export.map(|export| (ask, export)).ok_or_else(|| no_such(id))
}

async fn list(mut ask: Ask) -> Result<Page, Failure> {
    let before = ask.form.optional_int("before", 1, MAX_ID).unwrap_or(MAX_ID);
    let limit = ask.form.optional_int("limit", 1, 100).unwrap_or(20);
    ask.checked()?;
    let hidden: Vec<_> = SHEETS.iter().copied().filter(|sheet| !may_have(&ask, sheet)).collect();
    let exports = exports::exports(&ask.app.ledger, (before, limit), &hidden).await?;
    let shown: Vec<Value> = exports.iter().map(|export| told(&ask, export)).collect();
    Page::json(&json!({ "exports": shown }))
}

async fn cancel(ask: Ask) -> Result<Page, Failure> {
    let (ask, export) = find(ask).await?;
    let cancelled = exports::cancel(&ask.app.ledger, export.id).await?;
    changed(&ask, export.id, cancelled, "under way").await
}

async fn resume(ask: Ask) -> Result<Page, Failure> {
    let (ask, export) = find(ask).await?;
    let resumed = exports::resume(&ask.app.ledger, export.id).await?;
    ask.app.options.exports.news.notify_one();
    changed(&ask, export.id, resumed, "one that failed or was cancelled").await
}

async fn changed(ask: &Ask, id: i64, is_so: bool, what: &str) -> Result<Page, Failure> {
    if !is_so {
        return Err(Failure::Said(&CHANGED_MEANWHILE, format!("export {id} is not {what}")));
    }
    let export = exports::export(&ask.app.ledger, id).await?.ok_or_else(|| no_such(id))?;
    shown(ask, &export)
}

fn shown(ask: &Ask, export: &Export) -> Result<Page, Failure> {
    Page::json(&told(ask, export))
}

fn told(ask: &Ask, export: &Export) -> Value {
    let app = &ask.app;
    let some = |number: i64| if number == 0 { Value::Null } else { number.into() };
    let words = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
    // Whoever opens the link is not known. So who asked for people's data is told of in the log, and gets it alone.
    let may_open = export.asked.selection.sheet.whose.is_none() || export.asked_by == ask.caller.to_string();
    let file = (export.state == State::Done && may_open).then(|| {
        let until_ms = app.ledger.clock().now_ms() + LINK_MS;
        let signature = app.ledger.secrets().download_signature(export.id, until_ms);
        format!("/v1/exports/{}/file?until={until_ms}&signature={signature}", export.id)
    });
    json!({
        "id": export.id,
        "sheet": export.asked.selection.sheet.name,
        "format": export.asked.format.name(),
        "filter": export.asked.selection.text(),
        "position": export.asked.as_of.position,
        "at_ms": export.asked.as_of.at_ms,
        "state": export.state.name(),
        "total": export.total,
        "seen": export.seen,
        "rows": export.rows,
        "written": export.written,
        "bytes": some(export.bytes),
        "sha256": words(&export.sha256),
        "reason": words(&export.reason),
        "asked_by": export.asked_by,
        "asked_at_ms": export.asked_at_ms,
        "ended_at_ms": some(export.ended_at_ms),
        "lapses_at_ms": some(export.lapses_at_ms),
        "server": words(&export.server),
        "file": file,
    })
}

/// The file that a link leads to: what it shows is all that is asked.
pub(super) async fn file(app: App, mut form: Form) -> Result<Page, Failure> {
    let (id, until_ms) = (form.id("id"), form.int("until", 1, MAX_ID));
    let signature = form.text("signature", 64);
    form.finish().map_err(Failure::Fields)?;
    let ledger = &app.ledger;
    let holds = ledger.clock().now_ms() < until_ms
        && ledger.secrets().is_download_signature(id, until_ms, signature.trim());
    let none = || Failure::Said(&NO_SUCH_RULE, "the link has ended, or is none of this ledger's".to_owned());
    let export = exports::export(ledger, id).await?.filter(|_| holds).ok_or_else(none)?;
    let gone = || Failure::Said(&NO_SUCH_RULE, format!("the file of export {id} is gone"));
    if export.state != State::Done || export.is_over(ledger).await? {
        return Err(gone());
    }
    let place = &app.options.exports;
    if place.home().is_none_or(|home| home != export.home) {
        let server = &export.server;
        return Err(Failure::Said(
            &NO_SUCH_RULE,
            format!("the file of export {id} lies with the server {server}"),
        ));
    }
    let path = place.file_of(&export);
    let opened = tokio::task::spawn_blocking(move || std::fs::File::open(path)).await;
    let file = opened.map_err(|_| Failure::Panicked)?.map_err(|_| gone())?;
    let head = export.asked.head(ledger).await?;
    Ok(Page::new(FILE, Body::from_stream(chunks(file)))
        .with("content-disposition", attachment(&head.file_name(export.asked.format))?)
        .with_text("cache-control", "no-store")
        .with("content-length", export.bytes)
        .with("x-export-position", export.asked.as_of.position)
        .with("x-export-at-ms", export.asked.as_of.at_ms)
        .with("x-export-rows", export.written)
        .with("x-export-filter", text(&export.asked.selection.text())?)
        .with("x-export-sha256", text(&export.sha256)?))
}

/// A file piece by piece, read on a thread that may wait.
fn chunks(file: std::fs::File) -> impl Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::try_unfold(file, |file| async move {
        let read = move || {
            use std::io::Read as _;
            let mut file = file;
            let mut chunk = vec![0; CHUNK];
            let length = file.read(&mut chunk)?;
            chunk.truncate(length);
            Ok::<_, std::io::Error>((chunk, file))
        };
        let (chunk, file) = tokio::task::spawn_blocking(read).await.map_err(std::io::Error::other)??;
        Ok(if chunk.is_empty() { None } else { Some((Bytes::from(chunk), file)) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sheet_can_be_asked_for_by_its_name() {
        let names: Vec<&str> = SHEETS.iter().map(|sheet| sheet.name).collect();
        assert_eq!(names, SHEET_NAMES);
    }
}
