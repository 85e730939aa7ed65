//! Where settings come from: flags win over the environment, the environment over the file. And what a data folder
//! holds beside the ledger: the root secret, and where the running server is found.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::secrets::Secrets;
use crate::value::{hex, random};

/// The file in a data folder by which other commands find the running server.
const SERVER_FILE: &str = "server.json";

/// The file in a data folder that holds the root secret.
const SECRET_FILE: &str = "secret.key";

/// The file in a data folder that holds the keys of members' personal texts.
const PERSON_KEYS_FILE: &str = "person.keys";

/// Where the database is; understood by every subcommand. Each line may stand in the TOML file under its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Place {
    /// The folder of the embedded ledger, the secret and the server's address [default: ./data]
    #[arg(long, global = true, value_name = "DIR", env = "COUPON_LEDGER_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// A postgres:// URL instead of the embedded ledger
    #[arg(long, global = true, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// A file with the root secret (64 hexadecimal digits), for several servers on one database
    #[arg(long, global = true, value_name = "FILE", env = "COUPON_LEDGER_SECRET_FILE")]
    pub secret_file: Option<PathBuf>,
    /// A file with the keys of members' personal texts, for several servers each with its copy [default:
    /// <data-dir>/person.keys]
    #[arg(long, global = true, value_name = "FILE", env = "COUPON_LEDGER_PERSON_KEYS_FILE")]
    pub person_keys_file: Option<PathBuf>,
    /// The merchant's time zone [default: Asia/Shanghai]
    #[arg(long, global = true, value_name = "ZONE", env = "COUPON_LEDGER_TIMEZONE")]
    pub timezone: Option<String>,
}

/// How the server serves. Each line may stand in the TOML file under its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Serve {
    /// Where to listen [default: 127.0.0.1:8787]
    #[arg(long, value_name = "ADDR:PORT", env = "COUPON_LEDGER_LISTEN")]
    pub listen: Option<String>,
    /// What clients put before a path; it goes into the shops' QR codes [default: http://<listen>]
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Serve the routes under this path too, for example /alias/api/v1
    #[arg(long, value_name = "PATH", env = "COUPON_LEDGER_BASE_PATH")]
    pub base_path: Option<String>,
    /// Load a demo world if the ledger is empty
    #[arg(long, env = "COUPON_LEDGER_DEMO", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub demo: Option<bool>,
    /// Hours until a gift lapses [default: 24]
    #[arg(long, value_name = "HOURS", env = "COUPON_LEDGER_GIFT_LAPSE_HOURS")]
    pub gift_lapse_hours: Option<u32>,
    /// Hours within which a redemption can be reversed [default: 24]
    #[arg(long, value_name = "HOURS", env = "COUPON_LEDGER_REVERSE_WITHIN_HOURS")]
    pub reverse_within_hours: Option<u32>,
    /// Redeem at the counter only by the code that the member shows
    #[arg(long, env = "COUPON_LEDGER_COUNTER_CODES_ONLY", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub counter_codes_only: Option<bool>,
    /// How many shops may be opened [default: 1000]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_MAX_SHOPS")]
    pub max_shops: Option<u32>,
    /// Commands under way at a time; further ones answer 9002 [default: 4096]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_MAX_COMMANDS")]
    pub max_commands: Option<usize>,
    /// Connections at a time; further ones wait, and idle ones give way to them [default: 4096]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_MAX_CONNECTIONS")]
    pub max_connections: Option<usize>,
    /// Connections at a time from one address, trusted proxies excepted [default: 1024]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_MAX_CONNECTIONS_PER_ADDRESS")]
    pub max_connections_per_address: Option<usize>,
    /// How often one caller may ask, by what he asks for, like gift=30/m,sign-in=12/m; or off [default: see
    /// docs/operations.md]
    #[arg(long, value_name = "CLASS=N/s|m|h", env = "COUPON_LEDGER_LIMITS", value_delimiter = ',')]
    pub limits: Option<Vec<String>>,
    /// Proxies before the server, whose word is taken for where a request came from: addresses and ranges
    #[arg(long, value_name = "CIDR", env = "COUPON_LEDGER_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Option<Vec<String>>,
    /// The header in which they say so: x-forwarded-for or forwarded [default: x-forwarded-for]
    #[arg(long, value_name = "HEADER", env = "COUPON_LEDGER_FORWARDED_HEADER")]
    pub forwarded_header: Option<String>,
    /// Other sites whose scripts may call, as browsers name them [default: none]
    #[arg(long, value_name = "ORIGIN", env = "COUPON_LEDGER_CORS_ORIGINS", value_delimiter = ',')]
    pub cors_origins: Option<Vec<String>>,
    /// Refuse to start with settings that are not safe, and say how to mend each
    #[arg(long, env = "COUPON_LEDGER_PRODUCTION", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub production: Option<bool>,
    /// A witness that is asked to cosign checkpoints; may be given several times
    #[arg(long, value_name = "URL=VKEY", env = "COUPON_LEDGER_WITNESS", value_delimiter = ',')]
    pub witness: Option<Vec<String>>,
    /// The appid of the mini program through which members sign in
    #[arg(long, value_name = "APPID", env = "COUPON_LEDGER_WECHAT_APPID")]
    pub wechat_appid: Option<String>,
    /// A file with its secret, where the environment has not the secret itself
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_WECHAT_SECRET_FILE")]
    pub wechat_secret_file: Option<PathBuf>,
    /// The appid of the official account behind pages in WeChat's browser [default: the mini program's]
    #[arg(long, value_name = "APPID", env = "COUPON_LEDGER_WECHAT_H5_APPID")]
    pub wechat_h5_appid: Option<String>,
    /// A file with its secret, where the environment has not the secret itself
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_WECHAT_H5_SECRET_FILE")]
    pub wechat_h5_secret_file: Option<PathBuf>,
    /// Where WeChat's servers are asked, a URL [default: its own]
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_WECHAT_BASE_URL")]
    pub wechat_base_url: Option<String>,
    /// Where pages in WeChat's browser are sent to sign in, a URL [default: its own]
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_WECHAT_AUTHORIZE_URL")]
    pub wechat_authorize_url: Option<String>,
    /// Whether somebody whom nobody knows becomes a member by signing in through WeChat [default: false]
    #[arg(long, env = "COUPON_LEDGER_WECHAT_CREATE_MEMBERS", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub wechat_create_members: Option<bool>,
    /// An origin of the merchant's pages, beside the public URL's, that a sign-in may return to; may be given several times
    #[arg(long, value_name = "ORIGIN", env = "COUPON_LEDGER_WECHAT_RETURN_ORIGIN", value_delimiter = ',')]
    pub wechat_return_origin: Option<Vec<String>>,
    /// The issuer of a provider of OpenID Connect through which accounts sign in, a URL
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_OIDC_ISSUER")]
    pub oidc_issuer: Option<String>,
    /// The server's id at that provider
    #[arg(long, value_name = "ID", env = "COUPON_LEDGER_OIDC_CLIENT_ID")]
    pub oidc_client_id: Option<String>,
    /// A file with its secret there, where the environment has not the secret itself
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_OIDC_SECRET_FILE")]
    pub oidc_secret_file: Option<PathBuf>,
    /// A mass send to more members than this waits until somebody else approves it; 0 = none does [default: 0]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_APPROVE_SENDS_ABOVE")]
    pub approve_sends_above: Option<u32>,
    /// So does the stock of a definition or of a partner's allotment that is set or raised above this [default: 0]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_APPROVE_STOCK_ABOVE")]
    pub approve_stock_above: Option<u32>,
    /// So does a recall or an extension of more coupons than this [default: 0]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_APPROVE_RECALLS_ABOVE")]
    pub approve_recalls_above: Option<u32>,
    /// So does a file with more coupons to import than this [default: 0]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_APPROVE_IMPORTS_ABOVE")]
    pub approve_imports_above: Option<u32>,
    /// How many days before its end a member is told that a coupon ends; 0 = never [default: 3]
    #[arg(long, value_name = "DAYS", env = "COUPON_LEDGER_EXPIRING_SOON_DAYS")]
    pub expiring_soon_days: Option<u32>,
    /// Where members' messages are handed to the merchant's own sender, a URL
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_MESSAGE_WEBHOOK")]
    pub message_webhook: Option<String>,
    /// A file with the secret that signs them (`whsec_…`), where the environment has not the secret itself
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_MESSAGE_WEBHOOK_SECRET_FILE")]
    pub message_webhook_secret_file: Option<PathBuf>,
    /// Networks that webhooks may lead into, beside the public internet: addresses and ranges [default: none]
    #[arg(long, value_name = "CIDR", env = "COUPON_LEDGER_WEBHOOK_ALLOW_NETWORK", value_delimiter = ',')]
    pub webhook_allow_network: Option<Vec<String>>,
    /// Whether webhooks may be plain http [default: false]
    #[arg(long, env = "COUPON_LEDGER_WEBHOOK_ALLOW_HTTP", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub webhook_allow_http: Option<bool>,
    /// The NATS servers whose JetStream events are published to, as `nats://host:4222`; several with a comma
    #[arg(long, value_name = "URL", env = "COUPON_LEDGER_NATS_URL", hide_env_values = true)]
    pub nats_url: Option<String>,
    /// The stream that they are published into [default: `COUPON_LEDGER`]
    #[arg(long, value_name = "NAME", env = "COUPON_LEDGER_NATS_STREAM")]
    pub nats_stream: Option<String>,
    /// What their subjects begin with [default: `coupon_ledger.events`]
    #[arg(long, value_name = "SUBJECT", env = "COUPON_LEDGER_NATS_SUBJECT")]
    pub nats_subject: Option<String>,
    /// A file with credentials for NATS (JWT and seed)
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_NATS_CREDS_FILE")]
    pub nats_creds_file: Option<PathBuf>,
    /// A file with the certificates that NATS servers' are checked against [default: the system's]
    #[arg(long, value_name = "FILE", env = "COUPON_LEDGER_NATS_CA_FILE")]
    pub nats_ca_file: Option<PathBuf>,
    /// How often the server verifies itself, in the background; 0 = never [default: 24]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_VERIFY_EVERY_HOURS")]
    pub verify_every_hours: Option<u32>,
    /// Where files of exports are made and kept; several servers may share it [default: exports in the data folder]
    #[arg(long, value_name = "DIR", env = "COUPON_LEDGER_EXPORTS_DIR")]
    pub exports_dir: Option<PathBuf>,
    /// For how many days they are kept [default: 7]
    #[arg(long, value_name = "N", env = "COUPON_LEDGER_KEEP_EXPORTS_DAYS")]
    pub keep_exports_days: Option<u32>,
    /// Logs on stderr as text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "COUPON_LEDGER_LOG_FORMAT")]
    pub log_format: Option<String>,
}

/// The TOML file: every option under its name, `-` written as `_`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct File {
    /// Where the database is.
    #[serde(flatten)]
    pub place: FilePlace,
    /// How the server serves.
    #[serde(flatten)]
    pub serve: FileServe,
    #[serde(flatten)]
    unknown: toml::Table,
}

macro_rules! file_part {
    ($(#[$about:meta])* $name:ident of $whole:ident { $($field:ident: $kind:ty),* $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(default)]
        pub struct $name { $(#[doc = concat!("See [`", stringify!($whole), "::", stringify!($field), "`].")] pub $field: Option<$kind>),* }

        impl $whole {
            /// These settings, and the file's where they say nothing.
            #[must_use]
            pub fn or(self, file: $name) -> Self {
                Self { $($field: self.$field.or(file.$field)),* }
            }

            /// The settings of a subcommand, and those before its name where the subcommand says no more than the
            /// environment, which both have read.
            #[must_use]
            pub fn or_before(self, before: Self, environment: &Self) -> Self {
                Self { $($field: if self.$field == environment.$field { before.$field } else { self.$field }),* }
            }
        }
    };
}

file_part!(
    /// The file's part of [`Place`].
    FilePlace of Place { data_dir: PathBuf, database_url: String, secret_file: PathBuf, person_keys_file: PathBuf, timezone: String }
);
file_part!(
    /// The file's part of [`Serve`].
    FileServe of Serve {
        listen: String,
        public_url: String,
        base_path: String,
        demo: bool,
        gift_lapse_hours: u32,
        reverse_within_hours: u32,
        counter_codes_only: bool,
        max_shops: u32,
        max_commands: usize,
        max_connections: usize,
        max_connections_per_address: usize,
        limits: Vec<String>,
        trusted_proxies: Vec<String>,
        forwarded_header: String,
        cors_origins: Vec<String>,
        production: bool,
        witness: Vec<String>,
        wechat_appid: String,
        wechat_secret_file: PathBuf,
        wechat_h5_appid: String,
        wechat_h5_secret_file: PathBuf,
        wechat_base_url: String,
        wechat_authorize_url: String,
        wechat_create_members: bool,
        wechat_return_origin: Vec<String>,
        oidc_issuer: String,
        oidc_client_id: String,
        oidc_secret_file: PathBuf,
        approve_sends_above: u32,
        approve_stock_above: u32,
        approve_recalls_above: u32,
        approve_imports_above: u32,
        expiring_soon_days: u32,
        message_webhook: String,
        message_webhook_secret_file: PathBuf,
        webhook_allow_network: Vec<String>,
        webhook_allow_http: bool,
        nats_url: String,
        nats_stream: String,
        nats_subject: String,
        nats_creds_file: PathBuf,
        nats_ca_file: PathBuf,
        verify_every_hours: u32,
        exports_dir: PathBuf,
        keep_exports_days: u32,
        log_format: String,
    }
);

impl File {
    /// Reads a file; an unknown line is an error, because it would otherwise be a setting that silently does nothing.
    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let file: Self = toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        match file.unknown.keys().next() {
            Some(name) => Err(format!("{}: unknown setting {name}", path.display())),
            None => Ok(file),
        }
    }
}

/// The secret at the provider of OpenID Connect: from the environment, or from a given file. What is read is in no error.
pub fn oidc_secret(file: Option<&Path>) -> Result<String, String> {
    const VARIABLE: &str = "COUPON_LEDGER_OIDC_SECRET";
    match std::env::var(VARIABLE) {
        // An empty variable is how a container says that there is none.
        Ok(secret) if !secret.is_empty() => return Ok(secret),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("{VARIABLE} is no text")),
        _ => {}
    }
    let file = file.ok_or_else(|| format!("--oidc-issuer needs --oidc-secret-file or {VARIABLE}"))?;
    std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
}

/// Where the keys of members' personal texts lie.
#[must_use]
pub fn person_keys_file(place: &Place, folder: &Path) -> PathBuf {
    place.person_keys_file.clone().unwrap_or_else(|| folder.join(PERSON_KEYS_FILE))
}

/// The keys of a ledger: from the environment, from a given file, or from the data folder, where the first start makes
/// them with mode 0600.
pub fn secrets(place: &Place, folder: &Path, make: bool) -> Result<Secrets, String> {
    let path = secret_file(place, folder);
    let is_given = std::env::var_os("COUPON_LEDGER_SECRET").is_some() || place.secret_file.is_some();
    if make && !is_given && !path.exists() {
        make_secret(folder, &path).map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    }
    find_secrets(place, folder)?.ok_or_else(|| {
        format!("there is no secret at {}: start the server once, or give --secret-file", path.display())
    })
}

/// The same for those who can do without: None where there is none.
pub fn find_secrets(place: &Place, folder: &Path) -> Result<Option<Secrets>, String> {
    if let Ok(text) = std::env::var("COUPON_LEDGER_SECRET") {
        return Secrets::parse(&text).map(Some).map_err(|error| format!("COUPON_LEDGER_SECRET: {error}"));
    }
    let path = secret_file(place, folder);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("cannot read {}: {error}", path.display()))?,
    };
    Secrets::parse(&text).map(Some).map_err(|error| format!("{}: {error}", path.display()))
}

/// Where the root secret lies, unless the environment has it.
#[must_use]
pub fn secret_file(place: &Place, folder: &Path) -> PathBuf {
    place.secret_file.clone().unwrap_or_else(|| folder.join(SECRET_FILE))
}

/// The secret of an app at WeChat, or of a webhook: from the environment, or from a given file; None where there is neither.
/// What is read is in no error.
pub fn outside_secret(variable: &str, file: Option<&Path>) -> Result<Option<String>, String> {
    // An empty variable is how a container says that there is none.
    match std::env::var(variable) {
        Ok(secret) if !secret.is_empty() => return Ok(Some(secret)),
        Err(std::env::VarError::NotUnicode(_)) => return Err(format!("{variable} is no text")),
        _ => {}
    }
    let read = |file: &Path| {
        std::fs::read_to_string(file).map_err(|error| format!("cannot read {}: {error}", file.display()))
    };
    file.map(read).transpose()
}

/// Makes a data folder that only its owner can read: it holds people's data and the secret.
pub fn make_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Two servers may start on one folder at once: the first link wins, and a file that is there is complete.
fn make_secret(folder: &Path, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    make_folder(folder)?;
    let draft = folder.join(format!("{SECRET_FILE}.{}", hex(&random::<4>())));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(format!("{}\n", hex(&random::<32>())).as_bytes())?;
    file.sync_all()?;
    let linked = std::fs::hard_link(&draft, path);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => std::fs::File::open(folder)?.sync_all(),
    }
}

/// The server that runs on a data folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningServer {
    /// Where it listens.
    pub url: String,
    /// Its process id.
    pub pid: u32,
}

/// The server that last said it runs on this folder; it may have been killed since.
#[must_use]
pub fn running_server(folder: &Path) -> Option<RunningServer> {
    serde_json::from_slice(&std::fs::read(folder.join(SERVER_FILE)).ok()?).ok()
}

/// Says that a server runs on this folder.
pub fn announce_server(folder: &Path, server: &RunningServer) -> std::io::Result<()> {
    make_folder(folder)?;
    let draft = folder.join(format!("{SERVER_FILE}.{}", server.pid));
    std::fs::write(&draft, serde_json::to_vec(server)?)?;
    std::fs::rename(draft, folder.join(SERVER_FILE))
}

/// Takes the announcement back.
pub fn withdraw_server(folder: &Path) {
    let _ = std::fs::remove_file(folder.join(SERVER_FILE));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_data_folder_is_its_owners_only() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("data");
        make_folder(&folder).unwrap();
        make_folder(&folder).unwrap();
        assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
