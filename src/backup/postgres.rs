//! PostgreSQL's own tools, run with the right options.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use super::{BackupError, Site, not_a_backup};
use crate::store::{self, BUCKET, PostgresStore, Statement, Store};

/// Where tables lie that are not PostgreSQL's own.
const TABLES: &str =
    "SELECT COUNT(*) FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                      WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname NOT LIKE 'pg\\_%'
                        AND n.nspname <> 'information_schema'";

fn tool(site: &Site, name: &str) -> PathBuf {
    site.postgres_tools.as_ref().map_or_else(|| PathBuf::from(name), |folder| folder.join(name))
}

/// A tool that is told where the database is. The password goes by the environment: others can read a command line.
fn command(site: &Site, name: &str, url: &str) -> Command {
    let mut command = Command::new(tool(site, name));
    let (url, password) = for_libpq(url);
    command.stdin(Stdio::null()).arg("--no-password").arg("--dbname").arg(url);
    if let Some(password) = password {
        command.env("PGPASSWORD", password);
    }
    command.kill_on_drop(true);
    command
}

/// Our driver's URL as PostgreSQL's own programs read it, and the password that was in it.
fn for_libpq(url: &str) -> (String, Option<String>) {
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (url, mut password) = without_password(url);
    let mut options = Vec::new();
    let mut kept = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "password" => password = Some(value.into_owned()),
            "statement-cache-capacity" => {}
            "ssl-ca" => {
                kept.append_pair("sslrootcert", &value);
            }
            "ssl-mode" | "ssl-root-cert" | "ssl-cert" | "ssl-key" => {
                kept.append_pair(&name.replace('-', ""), &value);
            }
            name => match name.strip_prefix("options[").and_then(|rest| rest.strip_suffix(']')) {
                Some(option) => options.push(format!("-c {option}={value}")),
                None => {
                    kept.append_pair(name, &value);
                }
            },
        }
    }
    if !options.is_empty() {
        kept.append_pair("options", &options.join(" "));
    }
    // libpq takes no plus sign for a space.
    let kept = kept.finish().replace('+', "%20");
    (if kept.is_empty() { url } else { format!("{url}?{kept}") }, password)
}

fn without_password(url: &str) -> (String, Option<String>) {
    let (scheme, rest) = url.split_once("://").unwrap_or(("postgres", url));
    let (authority, behind) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?, host))) {
        Some(((user, password), host)) => {
            // A form's decoding is the URL's, but for the plus sign.
            let escaped = format!("p={}", password.replace('+', "%2B"));
            let decoded =
                form_urlencoded::parse(escaped.as_bytes()).next().map(|(_, value)| value.into_owned());
            (format!("{scheme}://{user}@{host}{behind}"), decoded)
        }
        None => (url.to_owned(), None),
    }
}

/// Runs a tool to its end; what it says of a failure is handed on.
async fn run(mut command: Command, name: &str) -> Result<String, BackupError> {
    let output = command.output().await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => BackupError::Tool(format!(
            "{name} is not installed here: install PostgreSQL's client programs, or say where they are with --postgres-tools"
        )),
        _ => BackupError::Tool(format!("{name} cannot be run: {error}")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("it ended without a word").trim();
    Err(BackupError::Tool(format!("{name} failed: {}", said.trim_start_matches(&format!("{name}: ")))))
}

/// The first number of `pg_dump (PostgreSQL) 17.5` or of `17.5 (Debian …)`.
fn major(text: &str) -> Option<u32> {
    text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok())
}

/// Tools of the server's own version only: older ones refuse it, and what newer ones write or send it does not know, which
/// comes out when a backup is needed.
async fn refuse_other_version(site: &Site, name: &str, store: &Store) -> Result<(), BackupError> {
    let mut asking = Command::new(tool(site, name));
    asking.arg("--version").stdin(Stdio::null());
    let said = run(asking, name).await?;
    let engine = store.engine();
    match (major(&said), major(&engine)) {
        (Some(tool), Some(server)) if tool != server => Err(BackupError::Tool(format!(
            "{name} is of version {tool} and the server runs {engine}: install the client programs of version {server}, or \
             say where they are with --postgres-tools"
        ))),
        _ => Ok(()),
    }
}

/// Dumps a ledger's database into a file and returns a position that is in it for certain: the head just before.
pub(super) async fn dump(site: &Site, url: &str, file: &Path) -> Result<i64, BackupError> {
    let store = store::open_read_only(&site.options).await?;
    let position = async {
        refuse_other_version(site, "pg_dump", &store).await?;
        let sql = "SELECT position FROM log_head WHERE bucket = $1";
        let heads = store.query(Statement::new(sql, [BUCKET.into()])).await?;
        Ok::<_, BackupError>(heads.first().map_or(0, |row| row.int(0)))
    };
    let position = position.await;
    store.close().await;
    let position = position?;
    let mut dump = command(site, "pg_dump", url);
    // One snapshot for everything, which is what pg_dump takes in any case. Whose it was is another cluster's affair.
    dump.args(["--format=custom", "--no-owner", "--no-privileges", "--lock-wait-timeout=30s", "--file"])
        .arg(file);
    run(dump, "pg_dump").await?;
    Ok(position)
}

/// Loads a dump into an empty database, in one transaction.
pub(super) async fn load(site: &Site, url: &str, file: &Path) -> Result<(), BackupError> {
    let mut listing = Command::new(tool(site, "pg_restore"));
    listing.arg("--list").arg(file).stdin(Stdio::null());
    let listed = run(listing, "pg_restore").await.map_err(|error| match error {
        BackupError::Tool(said) if said.contains("failed: ") => not_a_backup(file, &said),
        error => error,
    })?;
    let holds_head =
        |line: &str| line.contains("TABLE DATA") && line.split(' ').any(|word| word == "log_head");
    if !listed.lines().any(holds_head) {
        return Err(not_a_backup(file, &"the dump holds no ledger"));
    }
    let store = Store::Postgres(PostgresStore::connect(url).await?);
    let fits = refuse_other_version(site, "pg_restore", &store).await;
    let tables = store.query(Statement::new(TABLES, [])).await;
    store.close().await;
    fits?;
    if tables?.first().is_none_or(|row| row.int(0) > 0) {
        return Err(BackupError::NotEmpty("the database".to_owned()));
    }
    let mut restore = command(site, "pg_restore", url);
    restore.args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges"]).arg(file);
    run(restore, "pg_restore").await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_goes_by_the_environment() {
        for (url, bare, password) in [
            (
                "postgres://u:p%40w+d@h:5432/db?sslmode=require",
                "postgres://u@h:5432/db?sslmode=require",
                Some("p@w+d"),
            ),
            ("postgresql://u@h/db", "postgresql://u@h/db", None),
            ("postgres://h/db", "postgres://h/db", None),
            ("postgres://h/db?user=u&password=p%20w", "postgres://h/db?user=u", Some("p w")),
            (
                "postgres://h/db?ssl-mode=require&statement-cache-capacity=0&options[search_path]=coupons&ssl-ca=/a.pem",
                "postgres://h/db?sslmode=require&sslrootcert=%2Fa.pem&options=-c%20search_path%3Dcoupons",
                None,
            ),
        ] {
            assert_eq!(for_libpq(url), (bare.to_owned(), password.map(ToOwned::to_owned)), "{url}");
        }
    }

    #[test]
    fn a_version_is_told_from_its_name() {
        assert_eq!(major("pg_dump (PostgreSQL) 17.5 (Debian 17.5-1)"), Some(17));
        assert_eq!(major("PostgreSQL 15.10"), Some(15));
        assert_eq!(major("PostgreSQL 18beta1"), None);
    }
}
