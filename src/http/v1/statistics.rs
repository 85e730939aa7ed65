//! Figures by what the caller chooses, cohorts and funnels: the same tables as the manual's pages.

use std::collections::BTreeSet;

use chrono::{Days, NaiveDate};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::{Ask, Method, Page, Resource, Run as Which, exports};
use crate::audit::at::AsOf;
use crate::clock::{day_number, day_text};
use crate::exports::statistics::{self as of_statistics, Report};
use crate::exports::{Format, Head, Line, write_all};
use crate::http::Failure;
use crate::http::routes::{Field, Holds, optional};
use crate::refusal::{BAD_PARAMETERS, Wrong};
use crate::statistics::ask::{self, Answer, Measure, Question, Value};
use crate::statistics::cohorts::{self, Cohorts};
use crate::statistics::period::{Grain, Period, periods};
use crate::value::{MAX_ID, hex, parse_int};

/// The most periods of one answer.
const MAX_PERIODS: usize = 1_000;

/// The most lines of one answer.
const MAX_ROWS: i64 = 10_000;

/// Lines that are answered where nobody says how many.
const LINES: usize = 1_000;

/// Days that are told where nobody says which.
const DAYS: u64 = 30;

/// The most characters of a list in a query.
const LIST: i64 = 2_000;

const START: Field = optional("start", Holds::Day, "first local day; default: 29 days before the last");
const END: Field = optional("end", Holds::Day, "last local day; default today");
const ONLY: Field =
    optional("only", Holds::Text(LIST), "only of these: shop_id:1,2;source:8 is of shop 1 or 2, and claimed");

/// Every resource of statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistics {
    /// `/v1/statistics`
    Catalogue,
    /// `/v1/statistics/figures`
    Figures,
    /// `/v1/statistics/cohorts`
    Cohorts,
    /// `/v1/statistics/funnel`
    Funnel,
    /// `/v1/exports/{figures|cohorts|funnel}.{format}`
    File(Report, Format),
}

const fn resource(
    path: &'static str,
    about: &'static str,
    query: &'static [Field],
    example: &'static str,
    run: Statistics,
) -> Resource {
    Resource {
        method: Method::Get,
        path,
        about,
        parts: &[],
        query,
        produces: "application/json",
        example,
        run: Which::Statistics(run),
    }
}

const FIGURES: &[Field] = &[
    optional(
        "measures",
        Holds::Text(LIST),
        "names with commas between; default issued,redeemed,reversed,expired,voided,outstanding",
    ),
    optional("by", Holds::Text(LIST), "what they are told apart by, with commas between; default nothing"),
    optional(
        "grain",
        Holds::OneOf(Grain::NAMES),
        "how fine the days are told; weeks begin on Monday; default all: at once",
    ),
    START,
    END,
    ONLY,
    optional("sort", Holds::Text(64), "a measure, largest first with - before it; default by period and ids"),
    optional("limit", Holds::Int(1, MAX_ROWS), "lines at most; default 1000, and all of them in a file"),
    optional("offset", Holds::Int(0, MAX_ID), "lines that are left out before; default 0"),
];

const COHORTS: &[Field] = &[
    optional("issued", Holds::OneOf(Grain::NAMES), "grain of the cohorts; default week"),
    optional("used", Holds::OneOf(Grain::NAMES), "grain of what happened to them; default week"),
    START,
    END,
    optional("until", Holds::Day, "last day of what happened to them; default today"),
    ONLY,
];

const FUNNEL: &[Field] = &[START, END, ONLY];

pub(super) const RESOURCES: &[Resource] = &[
    resource(
        "/v1/statistics",
        "What can be asked of the statistics: measures, what they are told apart by, grains, and how far each table is",
        &[],
        r#"{"as_of":{"position":1200,"recorded_at_ms":1543294087000},"measures":["issued","redeemed"],"by":["definition_id","shop_id"],"grains":["day","week"],"tables":[{"name":"stats_days","position":1200,"columns":["day","issued"]}]}"#,
        Statistics::Catalogue,
    ),
    resource(
        "/v1/statistics/figures",
        "Measures of the caller's choice, by what he chooses, for each period of some local days. Every answer says as of \
         which position it is, and has an ETag; null where there is nothing that a share or a median could be of. What \
         nothing happened to has no line. By shop_id, what happens at no shop (issues, claims, views, gifts, voids) is told \
         under 0; used is redeemed less reversed, each on its own day, and by age_days the uses that stand, on theirs",
        FIGURES,
        r#"{"as_of":{"position":1200,"recorded_at_ms":1543294087000},"start":"2018-11-01","end":"2018-11-30","grain":"month","total":1,"rows":[{"start":"2018-11-01","end":"2018-11-30","definition_id":1,"issued":12,"redemption_rate":0.3333}]}"#,
        Statistics::Figures,
    ),
    resource(
        "/v1/statistics/cohorts",
        "What became of the coupons that were issued in each period, by the period in which it happened: seen for the first \
         time, used (uses that stand), both of that period alone and up to its end. A coupon is issued and opened at no shop: \
         with only=shop_id or employee_id, used is what was used there, of all that was issued and opened",
        COHORTS,
        r#"{"as_of":{"position":1200,"recorded_at_ms":1543294087000},"cohorts":[{"start":"2018-11-05","end":"2018-11-11","issued":12,"periods":[{"start":"2018-11-05","end":"2018-11-11","seen":5,"used":2,"seen_so_far":5,"used_so_far":2}]}]}"#,
        Statistics::Cohorts,
    ),
    resource(
        "/v1/statistics/funnel",
        "Of the coupons that were issued in some days, how many were opened by somebody, and how many are used; until today. \
         With only=shop_id or employee_id, used is what was used there, of all that was issued and opened",
        FUNNEL,
        r#"{"as_of":{"position":1200,"recorded_at_ms":1543294087000},"start":"2018-11-01","end":"2018-11-30","issued":12,"seen":9,"used":4}"#,
        Statistics::Funnel,
    ),
];

pub(super) async fn run(which: Statistics, ask: Ask) -> Result<Page, Failure> {
    let _turn = ask.app.asking.clone().acquire_owned().await.map_err(|_| Failure::TooSlow)?;
    match which {
        Statistics::Catalogue => catalogue(ask).await,
        Statistics::Figures => figures(ask).await,
        Statistics::Cohorts => cohorts_page(ask).await,
        Statistics::Funnel => funnel(ask).await,
        Statistics::File(report, format) => file(report, format, ask).await,
    }
}

async fn catalogue(mut ask: Ask) -> Result<Page, Failure> {
    ask.checked()?;
    let (as_of, tables) = ask::tables(ask.app.ledger.store()).await?;
    let table = |table: &ask::Table| json!({"name": table.name, "position": table.position, "columns": table.columns});
    tagged(&json!({
        "as_of": as_of,
        "measures": Measure::names(),
        "by": ask::dimensions(),
        "grains": Grain::NAMES,
        "tables": tables.iter().map(table).collect::<Vec<_>>(),
    }))
}

/// The days that are asked for.
fn days(ask: &mut Ask) -> (NaiveDate, NaiveDate) {
    let today = ask.app.ledger.now().day;
    let (start, end) = (ask.form.optional_day("start"), ask.form.optional_day("end"));
    let end = end.unwrap_or_else(|| start.map_or(today, |start| start.max(today)));
    let start = start.unwrap_or_else(|| end.checked_sub_days(Days::new(DAYS - 1)).unwrap_or(end));
    if end < start {
        ask.form.wrong("end", Wrong::EndBeforeStart);
    }
    (start, end)
}

fn wrong(sentence: String) -> Failure {
    Failure::Said(&BAD_PARAMETERS, sentence)
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// `shop_id:1,2;source:8`
fn only(text: &str) -> Result<Vec<(&'static str, Vec<i64>)>, Failure> {
    let mut only: Vec<(&'static str, Vec<i64>)> = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let shape = || wrong(format!("only is shop_id:1,2;source:8, and not {part}"));
        let (column, numbers) = part.split_once(':').ok_or_else(shape)?;
        let column = known(column.trim())?;
        let numbers: Result<Vec<i64>, _> = words(numbers).map(|one| parse_int(one, 0, MAX_ID)).collect();
        let numbers = numbers.map_err(|_| shape())?;
        if numbers.is_empty()
            || numbers.iter().any(|number| !(0..=MAX_ID).contains(number))
            || only.iter().any(|(other, _)| *other == column)
        {
            return Err(shape());
        }
        only.push((column, numbers));
    }
    Ok(only)
}

fn known(dimension: &str) -> Result<&'static str, Failure> {
    let names = || ask::dimensions().join(", ");
    ask::dimension(dimension)
        .ok_or_else(|| wrong(format!("nothing is told apart by {dimension}, but by {}", names())))
}

fn cut((start, end): (NaiveDate, NaiveDate), grain: Grain) -> Result<Vec<Period>, Failure> {
    periods((start, end), grain, MAX_PERIODS).ok_or_else(|| {
        wrong(format!("more than {MAX_PERIODS} periods: ask for a coarser grain, or for fewer days"))
    })
}

/// Figures that were asked for and found.
struct Figures {
    question: Question,
    grain: &'static str,
    days: (NaiveDate, NaiveDate),
    as_of: ask::AsOf,
    /// How many lines there are in all.
    total: usize,
    /// Those that are wanted.
    lines: Vec<ask::Line>,
    /// What else was asked that the question does not say.
    part: Vec<(&'static str, String)>,
}

/// Reads what is asked and finds it; so many lines of it where nobody says how many.
async fn find_figures(ask: &mut Ask, lines_unless_told: usize) -> Result<Figures, Failure> {
    let form = &mut ask.form;
    let text = |form: &mut crate::http::form::Form, name| {
        form.optional_text(name, LIST as usize).unwrap_or_default()
    };
    let (measures, by, filter) = (text(form, "measures"), text(form, "by"), text(form, "only"));
    let sort = form.optional_text("sort", 64).unwrap_or_default();
    let (limit, offset) = (form.optional_int("limit", 1, MAX_ROWS), form.optional_int("offset", 0, MAX_ID));
    let grain = form.one_of("grain", Grain::NAMES).unwrap_or("all");
    let days = days(ask);
    ask.checked()?;
    let measures = if measures.trim().is_empty() {
        "issued,redeemed,reversed,expired,voided,outstanding"
    } else {
        &measures
    };
    let measure = |name: &str| {
        let names = || Measure::names().join(", ");
        Measure::named(name).ok_or_else(|| wrong(format!("{name} is not measured, but {}", names())))
    };
    let measures: Vec<Measure> = words(measures).map(measure).collect::<Result<_, _>>()?;
    let by: Vec<&'static str> = words(&by).map(known).collect::<Result<_, _>>()?;
    if measures.iter().collect::<BTreeSet<_>>().len() < measures.len()
        || by.iter().collect::<BTreeSet<_>>().len() < by.len()
    {
        return Err(wrong("a name is there twice".to_owned()));
    }
    let sorted = match sort.trim_start_matches('-') {
        "" => None,
        name => {
            let place = measures.iter().position(|measure| measure.name() == name);
            Some(place.ok_or_else(|| wrong(format!("{name} is none of the measures asked for")))?)
        }
    };
    let periods = cut(days, Grain::named(grain).unwrap_or_default())?;
    let question = Question { measures, by, only: only(&filter)?, periods };
    let mut answer = ask::ask(ask.app.ledger.store(), &question).await?;
    if let Some(place) = sorted {
        sort_lines(&mut answer, place, sort.starts_with('-'));
    }
    let total = answer.lines.len();
    let lines = answer.lines.into_iter();
    let limited = limit.map_or(lines_unless_told, |limit| limit as usize);
    let lines = lines.skip(offset.unwrap_or_default() as usize).take(limited);
    let part = [("sort", Some(sort)), ("limit", limit.map(|limit| limit.to_string()))].into_iter();
    let part = part.chain([("offset", offset.map(|offset| offset.to_string()))]);
    let part = part.filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    Ok(Figures {
        question,
        grain,
        days,
        as_of: answer.as_of,
        total,
        lines: lines.collect(),
        part: part.collect(),
    })
}

async fn figures(mut ask: Ask) -> Result<Page, Failure> {
    let Figures { question, grain, days: (start, end), as_of, total, lines, .. } =
        find_figures(&mut ask, LINES).await?;
    let rows: Vec<Json> = lines.iter().map(|line| row(line, &question)).collect();
    tagged(&json!({
        "as_of": as_of,
        "start": start.to_string(),
        "end": end.to_string(),
        "grain": grain,
        "total": total,
        "rows": rows,
    }))
}

fn sort_lines(answer: &mut Answer, place: usize, largest_first: bool) {
    let number = |line: &ask::Line| match line.values.get(place) {
        #[expect(clippy::cast_precision_loss, reason = "an order, and no figure")]
        Some(Value::Whole(number)) => *number as f64,
        Some(Value::Part(part)) => *part,
        Some(Value::None) | None => f64::NEG_INFINITY,
    };
    answer.lines.sort_by(|one, other| {
        let order = number(one).total_cmp(&number(other));
        if largest_first { order.reverse() } else { order }
    });
}

fn row(line: &ask::Line, question: &Question) -> Json {
    let mut row = Map::new();
    if let Some(period) = question.periods.get(line.period) {
        row.extend(bounds(*period));
    }
    row.extend(question.by.iter().zip(&line.key).map(|(name, id)| ((*name).to_owned(), Json::from(*id))));
    let values = question.measures.iter().zip(&line.values);
    row.extend(values.map(|(measure, value)| (measure.name().to_owned(), json_of(*value))));
    Json::Object(row)
}

fn bounds(period: Period) -> [(String, Json); 2] {
    [("start".to_owned(), day_text(period.start).into()), ("end".to_owned(), day_text(period.end).into())]
}

fn json_of(value: Value) -> Json {
    match value {
        Value::Whole(number) => number.into(),
        Value::Part(part) => part.into(),
        Value::None => Json::Null,
    }
}

/// An answer with a tag of its own: whoever has it already is told so and no more.
fn tagged(answer: &Json) -> Result<Page, Failure> {
    let page = Page::json(answer)?;
    let tag = hex(&Sha256::digest(answer.to_string().as_bytes()));
    let tag = format!("\"{}\"", tag.get(..32).unwrap_or_default());
    Ok(match tag.parse::<axum::http::HeaderValue>() {
        Ok(tag) => page.with("etag", tag).with_text("cache-control", "private, no-cache"),
        Err(_) => page,
    })
}

/// A question about cohorts, and the grains it was asked in.
async fn find_cohorts(ask: &mut Ask) -> Result<(Cohorts, Told, ask::AsOf, Vec<cohorts::Cohort>), Failure> {
    let form = &mut ask.form;
    let issued = form.one_of("issued", Grain::NAMES).unwrap_or("week");
    let used = form.one_of("used", Grain::NAMES).unwrap_or("week");
    let filter = form.optional_text("only", LIST as usize).unwrap_or_default();
    let today = ask.app.ledger.now().day;
    let until = ask.form.optional_day("until");
    let (start, end) = days(ask);
    if until.is_some_and(|until| until < start) {
        ask.form.wrong("until", Wrong::EndBeforeStart);
    }
    ask.checked()?;
    let until = until.unwrap_or(today.max(start));
    let grain = |name| Grain::named(name).unwrap_or_default();
    let question = Cohorts {
        issued: cut((start, end), grain(issued))?,
        happened: cut((start, until), grain(used))?,
        only: only(&filter)?,
    };
    let (as_of, found) = cohorts::cohorts(ask.app.ledger.store(), &question).await?;
    let mut told = told_days((start, end));
    told.extend([("until", until.to_string()), ("issued", issued.to_owned()), ("used", used.to_owned())]);
    told.extend(told_only(&question.only));
    Ok((question, told, as_of, found))
}

async fn cohorts_page(mut ask: Ask) -> Result<Page, Failure> {
    let (question, _, as_of, found) = find_cohorts(&mut ask).await?;
    let cohort = |(period, cohort): (&Period, &cohorts::Cohort)| {
        let periods = cohort.so_far(&question.happened).map(|(period, now, so_far)| {
            json!({
                "start": day_text(period.start),
                "end": day_text(period.end),
                "seen": now.seen,
                "used": now.used,
                "seen_so_far": so_far.seen,
                "used_so_far": so_far.used,
            })
        });
        json!({
            "start": day_text(period.start),
            "end": day_text(period.end),
            "issued": cohort.issued,
            "periods": periods.collect::<Vec<_>>(),
        })
    };
    let cohorts: Vec<Json> = question.issued.iter().zip(&found).map(cohort).collect();
    tagged(&json!({"as_of": as_of, "cohorts": cohorts}))
}

async fn find_funnel(ask: &mut Ask) -> Result<(Period, Told, ask::AsOf, cohorts::Funnel), Failure> {
    let filter = ask.form.optional_text("only", LIST as usize).unwrap_or_default();
    let (start, end) = days(ask);
    ask.checked()?;
    let (period, only) = (Period { start: day_number(start), end: day_number(end) }, only(&filter)?);
    let (as_of, funnel) = cohorts::funnel(ask.app.ledger.store(), period, &only).await?;
    let told = told_days((start, end)).into_iter().chain(told_only(&only)).collect();
    Ok((period, told, as_of, funnel))
}

async fn funnel(mut ask: Ask) -> Result<Page, Failure> {
    let (period, _, as_of, funnel) = find_funnel(&mut ask).await?;
    tagged(&json!({
        "as_of": as_of,
        "start": day_text(period.start),
        "end": day_text(period.end),
        "issued": funnel.issued,
        "seen": funnel.seen,
        "used": funnel.used,
    }))
}

/// What a file says it was asked for, whether or not somebody had to say it.
type Told = Vec<(&'static str, String)>;

fn told_days((start, end): (NaiveDate, NaiveDate)) -> Told {
    vec![("start", start.to_string()), ("end", end.to_string())]
}

fn told_only(only: &[(&'static str, Vec<i64>)]) -> Option<(&'static str, String)> {
    let one = |(name, numbers): &(&'static str, Vec<i64>)| {
        format!("{name}:{}", numbers.iter().map(i64::to_string).collect::<Vec<_>>().join(","))
    };
    (!only.is_empty()).then(|| ("only", only.iter().map(one).collect::<Vec<_>>().join(";")))
}

/// Every statistic's files.
pub(super) fn files() -> impl Iterator<Item = Resource> {
    let formats = |report| Format::ALL.into_iter().map(move |format| (report, format));
    Report::ALL.into_iter().flat_map(formats).map(|(report, format)| {
        let name = report.name();
        let query = match report {
            Report::Figures => FIGURES,
            Report::Cohorts => COHORTS,
            Report::Funnel => FUNNEL,
        };
        let about = format!(
            "What /v1/statistics/{name} answers, as a file: as of the same position, with the same numbers"
        );
        let example = match report {
            Report::Figures => "start,end,issued,redeemed",
            Report::Cohorts => "cohort_start,cohort_end,issued,start,end,seen,used,seen_so_far,used_so_far",
            Report::Funnel => "start,end,issued,seen,used",
        };
        Resource {
            method: Method::Get,
            path: format!("/v1/exports/{name}.{}", format.name()).leak(),
            about: about.leak(),
            parts: &[],
            query: [query, exports::as_file(format)].concat().leak(),
            produces: exports::media_type(format),
            example,
            run: Which::Statistics(Statistics::File(report, format)),
        }
    })
}

async fn file(report: Report, format: Format, mut ask: Ask) -> Result<Page, Failure> {
    let (language, bom) = exports::language_and_bom(&mut ask);
    let (told, as_of, table) = match report {
        Report::Figures => {
            // A file does not say that there are more: it has them all.
            let found = find_figures(&mut ask, usize::MAX).await?;
            let names = |names: Vec<&str>| names.join(",");
            let mut told = told_days(found.days);
            told.push(("grain", found.grain.to_owned()));
            let measures = found.question.measures.iter().map(|measure| measure.name()).collect();
            told.push(("measures", names(measures)));
            told.extend(Some(("by", names(found.question.by.clone()))).filter(|(_, by)| !by.is_empty()));
            told.extend(told_only(&found.question.only).into_iter().chain(found.part));
            (told, found.as_of, of_statistics::figures(&found.question, &found.lines))
        }
        Report::Cohorts => {
            let (question, told, as_of, found) = find_cohorts(&mut ask).await?;
            (told, as_of, of_statistics::cohorts(&question, &found))
        }
        Report::Funnel => {
            let (period, told, as_of, found) = find_funnel(&mut ask).await?;
            (told, as_of, of_statistics::funnel(period, &found))
        }
    };
    let ledger = &ask.app.ledger;
    let head = Head {
        name: report.name(),
        words: report.words(),
        columns: table.columns,
        told: told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        language,
        bom,
        as_of: AsOf { position: as_of.position, at_ms: as_of.recorded_at_ms },
        zone: ledger.zone(),
        origin: ledger.store().origin().await?.unwrap_or_default(),
    };
    let rows = table.lines.len();
    let (bytes, head) = write_apart(format, head, table.lines).await?;
    exports::file_page(format, &head, bytes, rows as i64)
}

/// Writes a file on a thread that may take its time.
async fn write_apart(format: Format, head: Head, lines: Vec<Line>) -> Result<(Vec<u8>, Head), Failure> {
    let write = move || write_all(format, &head, &lines).map(|bytes| (bytes, head));
    Ok(tokio::task::spawn_blocking(write).await.map_err(|_| Failure::Panicked)??)
}
