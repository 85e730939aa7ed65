//! A bare handler: axum and sqlx, one indexed SELECT an answer, and nobody asked who he is. A process of its own on the
//! ledger's database, it answers the requests that members send to the product.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use axum::routing::post;
use axum::{Form, Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coupon_ledger::identity::{Caller, Token};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{FromRow, PgPool, SqlitePool};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::server::Place;

/// The columns that couponlist needs.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT coupon_id, member_id, definition_id, start_date, end_date, issued_at_ms, used_at_ms, given_at_ms,
                    gift_lapses_at_ms, kind, used_by, received_by, score, evaluated_at_ms, is_read, title,
                    deduction_cents, self_redeemable FROM wallet_v1 WHERE bucket = 0 AND member_id = $1",
            $rest
        )
    };
}

const LIST: &str = select!(" ORDER BY coupon_id DESC LIMIT $2");
const INFO: &str = select!(" AND coupon_id = $2");

/// A running handler; killed when dropped.
pub struct Handler {
    _child: Child,
    /// Where it listens.
    pub address: String,
}

impl Handler {
    /// Starts this program again, as a handler on a ledger's database.
    pub async fn start(place: &Place) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("handler");
        match &place.database_url {
            Some(url) => command.arg("--database-url").arg(url),
            None => command.arg("--file").arg(place.folder.join("ledger.db")),
        };
        let mut child = command.kill_on_drop(true).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let line = lines.next_line().await?.context("the handler ended")?;
        let address = line.strip_prefix("listens on ").context("the handler says something else")?.to_owned();
        Ok(Self { _child: child, address })
    }
}

enum Database {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// Serves until it is killed.
pub async fn serve(database_url: Option<&str>, file: Option<&Path>) -> anyhow::Result<()> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from) as u32;
    let database = match (database_url, file) {
        (Some(url), _) => Database::Postgres(
            PgPoolOptions::new().max_connections(cores + 2).test_before_acquire(false).connect(url).await?,
        ),
        (None, file) => {
            let file: PathBuf = file.context("no database")?.to_owned();
            let options = SqliteConnectOptions::new()
                .filename(file)
                .read_only(true)
                .pragma("cache_size", "-32768")
                .pragma("temp_store", "MEMORY");
            let pool = SqlitePoolOptions::new().max_connections(cores).test_before_acquire(false);
            Database::Sqlite(pool.connect_with(options).await?)
        }
    };
    let router = Router::new()
        .route("/client/couponlist", post(list))
        .route("/client/couponinfo", post(info))
        .with_state(Arc::new(database));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listens on {}", listener.local_addr()?);
    use axum::serve::ListenerExt as _;
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

#[derive(Serialize)]
struct Answer<T> {
    code: i64,
    message: &'static str,
    data: T,
}

type Answered<T> = Result<Json<Answer<T>>, StatusCode>;

/// A row as it is answered: columns as they are.
#[derive(Serialize, FromRow)]
struct Row {
    #[serde(rename = "id")]
    coupon_id: i64,
    member_id: i64,
    #[serde(rename = "coupon_id")]
    definition_id: i64,
    start_date: i64,
    end_date: i64,
    issued_at_ms: i64,
    used_at_ms: i64,
    given_at_ms: i64,
    gift_lapses_at_ms: i64,
    kind: i64,
    used_by: i64,
    received_by: i64,
    score: i64,
    evaluated_at_ms: i64,
    is_read: i64,
    title: String,
    deduction_cents: i64,
    self_redeemable: i64,
}

#[derive(Deserialize)]
struct ListForm {
    limit: i64,
}

#[derive(Deserialize)]
struct InfoForm {
    id: i64,
}

async fn list(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Form(form): Form<ListForm>,
) -> Answered<Vec<Row>> {
    let member = member(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let rows = match &*database {
        Database::Postgres(pool) => sqlx::query_as(LIST).bind(member).bind(form.limit).fetch_all(pool).await,
        Database::Sqlite(pool) => sqlx::query_as(LIST).bind(member).bind(form.limit).fetch_all(pool).await,
    };
    answer(rows)
}

async fn info(
    State(database): State<Arc<Database>>,
    headers: HeaderMap,
    Form(form): Form<InfoForm>,
) -> Answered<Row> {
    let member = member(&headers).ok_or(StatusCode::UNAUTHORIZED)?;
    let row = match &*database {
        Database::Postgres(pool) => sqlx::query_as(INFO).bind(member).bind(form.id).fetch_one(pool).await,
        Database::Sqlite(pool) => sqlx::query_as(INFO).bind(member).bind(form.id).fetch_one(pool).await,
    };
    answer(row)
}

fn answer<T>(found: Result<T, sqlx::Error>) -> Answered<T> {
    match found {
        Ok(data) => Ok(Json(Answer { code: 0, message: "成功", data })),
        Err(error) => {
            eprintln!("bare handler: {error}");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// Who the token says its bearer is. Its signature is not looked at.
fn member(headers: &HeaderMap) -> Option<i64> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer cl1.")?;
    let payload = URL_SAFE_NO_PAD.decode(token.split_once('.')?.0).ok()?;
    match serde_json::from_slice::<Token>(&payload).ok()?.caller {
        Caller::Member(id) => Some(id),
        _ => None,
    }
}
