//! Which SQL a ledger is made of, in order, and how it is brought up to date.
//!
//! Each step runs once, in a transaction, and is remembered in `schema_versions`. Steps are only ever added
//! (expand, then contract). A ledger with more steps than this program knows was written by a newer one.

use super::connect::OpenError;
use super::statistics::{Statistic, statistics};

/// One step.
struct Step {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

macro_rules! both {
    ($name:literal, $path:literal) => {
        Step { name: $name, sqlite: include_str!($path), postgres: include_str!($path) }
    };
}

/// Every step that a ledger has taken, in order. Never reorder, never edit one that was released.
const STEPS: &[Step] = &[
    Step {
        name: "0001_log",
        sqlite: include_str!("../../migrations/sqlite/0001_log.sql"),
        postgres: include_str!("../../migrations/postgres/0001_log.sql"),
    },
    both!("0002_directory", "../../migrations/0002_directory.sql"),
    both!("wallet_v1", "../../projections/wallet.sql"),
    both!("redemptions_v1", "../../projections/redemptions.sql"),
    both!("stock_v1", "../../projections/stock.sql"),
    both!("member_counts_v1", "../../projections/member_counts.sql"),
    both!("definitions_v1", "../../projections/definitions.sql"),
    both!("shops_v1", "../../projections/shops.sql"),
    Step {
        name: "0003_turn",
        // One process writes there, and nothing arrives late.
        sqlite: "",
        postgres: include_str!("../../migrations/postgres/0003_turn.sql"),
    },
    both!("0004_jobs", "../../migrations/0004_jobs.sql"),
    both!("jobs_v1", "../../projections/jobs.sql"),
    both!("0005_redemptions_by_time", "../../migrations/0005_redemptions_by_time.sql"),
    both!("orders_v1", "../../projections/orders.sql"),
    both!("0006_directory", "../../migrations/0006_directory.sql"),
    both!("grants_v1", "../../projections/grants.sql"),
    both!("order_amounts_v1", "../../projections/order_amounts.sql"),
    both!("goods_groups_v1", "../../projections/goods_groups.sql"),
    both!("goods_group_goods_v1", "../../projections/goods_group_goods.sql"),
    both!("0007_earned", "../../migrations/0007_earned.sql"),
    both!("partners_v1", "../../projections/partners.sql"),
    both!("allotments_v1", "../../projections/allotments.sql"),
    both!("allotment_changes_v1", "../../projections/allotment_changes.sql"),
    both!("partner_coupons_v1", "../../projections/partner_coupons.sql"),
    both!("0008_tlog", "../../migrations/0008_tlog.sql"),
    both!("0009_rebuilds", "../../migrations/0009_rebuilds.sql"),
    both!("0010_people", "../../migrations/0010_people.sql"),
    both!("0011_accounts", "../../migrations/0011_accounts.sql"),
    both!("accounts_v1", "../../projections/accounts.sql"),
    both!("0013_wechat", "../../migrations/0013_wechat.sql"),
    both!("0016_subjects", "../../migrations/0016_subjects.sql"),
    both!("offices_v1", "../../projections/offices.sql"),
    both!("appointments_v1", "../../projections/appointments.sql"),
    both!("machines_v1", "../../projections/machines.sql"),
    both!("0012_machine_keys", "../../migrations/0012_machine_keys.sql"),
    both!("partner_keys_v1", "../../projections/partner_keys.sql"),
    both!("0014_partner_nonces", "../../migrations/0014_partner_nonces.sql"),
    both!("readings_v1", "../../projections/readings.sql"),
    both!("approvals_v1", "../../projections/approvals.sql"),
    both!("0018_messages", "../../migrations/0018_messages.sql"),
    both!("webhooks_v1", "../../projections/webhooks.sql"),
    both!("0020_webhook_lanes", "../../migrations/0020_webhook_lanes.sql"),
    both!("0021_exports", "../../migrations/0021_exports.sql"),
    both!("0022_visits", "../../migrations/0022_visits.sql"),
];

/// The number of the last step.
pub const SCHEMA_VERSION: i64 = STEPS.len() as i64;

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS schema_versions (
    version BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, applied_at_ms BIGINT NOT NULL)";

/// An SQL file in the words of one engine: see `migrations/0002_directory.sql`.
fn dialect(sql: &str, marker: &str, integers: bool) -> String {
    let sql = sql.replace(&format!("-- {marker}: "), "");
    if integers { sql.replace("BIGINT", "INTEGER") } else { sql }
}

/// What makes a statistic's table and its view. They are no steps: what a new file makes is made where it is not there, and
/// begins to be counted.
fn of_statistic(statistic: &Statistic, marker: &str, integers: bool) -> String {
    dialect(&statistic.definition(), marker, integers)
}

/// The statements by which the steps together make a table and its indexes, in the words of one engine. `named` gives the
/// table and each index another name.
pub(super) fn definition(table: &str, sqlite: bool, named: impl Fn(&str) -> String) -> Vec<String> {
    let marker = if sqlite { "sqlite" } else { "postgres" };
    let own = |step: &Step| if sqlite { step.sqlite } else { step.postgres };
    let steps = STEPS.iter().map(|step| dialect(own(step), marker, sqlite));
    let mut made = Vec::new();
    for sql in steps {
        let bare: Vec<&str> = sql.lines().map(|line| line.split("--").next().unwrap_or_default()).collect();
        for statement in bare.join("\n").split(';') {
            let words: Vec<&str> = statement.split([' ', '\n']).filter(|word| !word.is_empty()).collect();
            let about = match words.as_slice() {
                ["CREATE" | "ALTER", "TABLE", about, ..]
                | ["CREATE", "INDEX", _, "ON", about, ..]
                | ["CREATE", "UNIQUE", "INDEX", _, "ON", about, ..] => *about,
                _ => continue,
            };
            if about == table {
                made.push(renamed(statement, table, &named));
            }
        }
    }
    made
}

/// A statement with other names for a table and for what is named after it.
fn renamed(statement: &str, table: &str, named: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    let in_a_name = |letter: char| letter.is_alphanumeric() || letter == '_';
    for piece in statement.trim().split_inclusive(|letter| !in_a_name(letter)) {
        let name = piece.trim_end_matches(|letter| !in_a_name(letter));
        if name == table || name.strip_prefix(table).is_some_and(|rest| rest.starts_with('_')) {
            text.push_str(&named(name));
            text.push_str(piece.get(name.len()..).unwrap_or_default());
        } else {
            text.push_str(piece);
        }
    }
    text
}

fn refuse_newer(found: i64) -> Result<(), OpenError> {
    if found > SCHEMA_VERSION { Err(OpenError::NewerLedger { found, known: SCHEMA_VERSION }) } else { Ok(()) }
}

fn say_what_was_done(found: i64) {
    if found < SCHEMA_VERSION {
        tracing::info!(from = found, to = SCHEMA_VERSION, "brought the ledger up to date");
    }
}

/// Brings a SQLite ledger up to date on the connection that holds the data folder's lock.
pub fn sqlite(connection: &mut rusqlite::Connection, now_ms: i64) -> Result<(), OpenError> {
    connection.execute_batch(VERSIONS)?;
    let found: i64 =
        connection
            .query_row("SELECT COALESCE(MAX(version), 0) FROM schema_versions", [], |row| row.get(0))?;
    refuse_newer(found)?;
    for (version, step) in (1_i64..).zip(STEPS).skip(found as usize) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(&dialect(step.sqlite, "sqlite", true))?;
        transaction
            .execute("INSERT INTO schema_versions VALUES (?1, ?2, ?3)", (version, step.name, now_ms))?;
        transaction.commit()?;
        tracing::debug!(version, step = step.name, "migrated");
    }
    say_what_was_done(found);
    for statistic in statistics()? {
        let exists = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)";
        if !connection.query_row(exists, [statistic.table], |row| row.get(0))? {
            let transaction = connection.transaction()?;
            transaction.execute_batch(&of_statistic(statistic, "sqlite", true))?;
            transaction.commit()?;
        }
    }
    Ok(())
}

/// Brings a PostgreSQL ledger up to date; several servers may start at once.
pub async fn postgres(connection: &mut sqlx::PgConnection, now_ms: i64) -> Result<(), OpenError> {
    use sqlx::Connection as _;
    // One at a time: the lock is given back with the transaction.
    let mut transaction = connection.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock(7201340219)").execute(&mut *transaction).await?;
    // A serving role may not create tables, and needs not where there is nothing to do.
    let exists: bool = sqlx::query_scalar("SELECT to_regclass('schema_versions') IS NOT NULL")
        .fetch_one(&mut *transaction)
        .await?;
    if !exists {
        sqlx::raw_sql(VERSIONS).execute(&mut *transaction).await?;
    }
    let found: i64 = sqlx::query_scalar("SELECT COALESCE(MAX(version), 0) FROM schema_versions")
        .fetch_one(&mut *transaction)
        .await?;
    refuse_newer(found)?;
    for (version, step) in (1_i64..).zip(STEPS).skip(found as usize) {
        sqlx::raw_sql(&dialect(step.postgres, "postgres", false)).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_versions VALUES ($1, $2, $3)")
            .bind(version)
            .bind(step.name)
            .bind(now_ms)
            .execute(&mut *transaction)
            .await?;
        tracing::debug!(version, step = step.name, "migrated");
    }
    for statistic in statistics()? {
        let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
            .bind(statistic.table)
            .fetch_one(&mut *transaction)
            .await?;
        if !exists {
            sqlx::raw_sql(&of_statistic(statistic, "postgres", false)).execute(&mut *transaction).await?;
        }
    }
    transaction.commit().await?;
    say_what_was_done(found);
    Ok(())
}
