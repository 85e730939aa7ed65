//! What the role of a server could do to the log, asked before it serves.

use std::path::Path;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, Row as _};

use super::connect_options;
use crate::store::OpenError;

/// What may lie between a server and its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing: both are on one machine.
    Local,
    /// A network that can be listened to.
    Plain,
    /// A network, encrypted to whoever answers.
    Encrypted,
    /// A network, encrypted to the database itself.
    Verified,
}

/// Of what kind the connection to a database is, by its URL.
pub fn database_link(url: &str) -> Result<Link, OpenError> {
    let options = connect_options(url)?;
    let mode = options.get_ssl_mode();
    Ok(match mode {
        _ if is_local(&options) => Link::Local,
        PgSslMode::VerifyFull => Link::Verified,
        PgSslMode::Require | PgSslMode::VerifyCa => Link::Encrypted,
        PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Prefer => Link::Plain,
    })
}

fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    options.get_socket().is_some()
        || Path::new(host).is_absolute()
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
}

/// What a role could do that a server need not; empty = nothing. Each is what stands behind "the database role x".
pub async fn excessive_rights(url: &str) -> Result<(String, Vec<&'static str>), OpenError> {
    let options = connect_options(url)?;
    let unreachable = |source| OpenError::Unreachable {
        host: format!("{}:{}", options.get_host(), options.get_port()),
        source,
    };
    let connecting = PgConnection::connect_with(&options);
    let connected = tokio::time::timeout(std::time::Duration::from_secs(5), connecting).await;
    let mut connection =
        connected.map_err(|_| unreachable(sqlx::Error::PoolTimedOut))?.map_err(unreachable)?;
    // Where there is no ledger yet, whoever makes it will own it.
    let row = sqlx::query(
        "SELECT rolname::text, rolsuper, rolcreaterole,
                has_parameter_privilege(rolname, 'session_replication_role', 'SET'),
                coalesce((SELECT pg_has_role(rolname, relowner, 'MEMBER') FROM pg_class
                          WHERE oid = to_regclass('events')), true),
                coalesce(has_any_column_privilege(rolname, to_regclass('events'), 'UPDATE'), false),
                coalesce(has_table_privilege(rolname, to_regclass('events'), 'DELETE'), false),
                coalesce(has_table_privilege(rolname, to_regclass('events'), 'TRUNCATE'), false)
         FROM pg_roles WHERE rolname = current_user",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    let name: String = row.try_get(0)?;
    if row.try_get(1)? {
        return Ok((name, vec!["is a superuser"]));
    }
    let asked = [
        "may create roles, and so become another",
        "may switch triggers off (session_replication_role)",
        "owns the log, or would",
        "may UPDATE the log",
        "may DELETE from the log",
        "may TRUNCATE the log",
    ];
    let mut may = Vec::new();
    for (column, right) in (2..).zip(asked) {
        if row.try_get(column)? {
            may.push(right);
        }
    }
    Ok((name, may))
}
