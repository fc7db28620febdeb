//! How to reach the server, as a user of `psql` would say it.
//!
//! Owns the meaning of libpq's keywords and `PG*` variables, the password file and the defaults. It
//! must never weaken what was asked for: a keyword that this version cannot honour is refused by
//! name. Without `sslmode` the server's certificate is verified, unless nothing leaves this machine.
//! Errors name keywords and places, never the text around them.

mod keywords;
mod pgpass;
mod text;

use super::env::Env;
use super::source::Origin;
use super::suggest::nearest;
use super::{Secret, refusal};
use crate::error::{Error, Result};
use keywords::{KEYWORDS, POINTERS, UNSUPPORTED};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// PostgreSQL's port.
const PORT: u16 = 5432;
/// The longest wait for a connection, in seconds.
const CONNECT_TIMEOUT_SECONDS_MAX: u64 = 3600;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A host name or an address.
    Tcp(String),
    /// The folder of a local socket.
    Socket(PathBuf),
}

impl Host {
    /// Whether nothing that is sent there leaves this machine.
    pub fn is_local(&self) -> bool {
        match self {
            Host::Socket(_) => true,
            Host::Tcp(name) => {
                name.eq_ignore_ascii_case("localhost")
                    || name
                        .parse::<IpAddr>()
                        .is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SslMode {
    /// It is not.
    Disable,
    /// It is, and the server proves with its certificate to be the host that was named.
    VerifyFull,
}

/// Everything that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Where the server listens.
    pub host: Host,
    /// The port, also of a socket.
    pub port: u16,
    /// The role that logs in.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// The password, where one is known.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub ssl: SslMode,
    /// The PEM file of the authorities to trust in place of the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// The deadline of a connection attempt.
    pub connect_timeout: Duration,
}

impl Conn {
    /// The settings as a URL without the password; it can be read back.
    pub fn display(&self) -> String {
        let user = text::encode(&self.user, "");
        let dbname = text::encode(&self.dbname, "");
        let mut parameters = Vec::new();
        let place = match &self.host {
            Host::Tcp(name) if name.contains(':') => format!("[{name}]:{}", self.port),
            Host::Tcp(name) => format!("{}:{}", text::encode(name, ""), self.port),
            Host::Socket(folder) => {
                parameters.push(format!(
                    "host={}",
                    text::encode(&folder.to_string_lossy(), "/")
                ));
                parameters.push(format!("port={}", self.port));
                String::new()
            }
        };
        match (self.ssl, self.host.is_local()) {
            (SslMode::Disable, false) => parameters.push("sslmode=disable".to_owned()),
            (SslMode::VerifyFull, true) => parameters.push("sslmode=verify-full".to_owned()),
            _ => {}
        }
        if let Some(file) = &self.ssl_root_cert {
            parameters.push(format!(
                "sslrootcert={}",
                text::encode(&file.to_string_lossy(), "/")
            ));
        }
        let question = if parameters.is_empty() { "" } else { "?" };
        format!(
            "postgres://{user}@{place}/{dbname}{question}{}",
            parameters.join("&")
        )
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

/// What `remote.url` says, and where.
pub(super) struct Given {
    pub text: String,
    pub origin: Origin,
    /// Where its relative file names start from.
    pub folder: PathBuf,
}

/// Whether a URL or keyword string holds a password. A text that cannot be read is taken to, if it
/// could: it will be refused anyway, and nothing of it is shown.
pub(super) fn holds_password(text: &str) -> bool {
    match text::parse(text) {
        Ok(pairs) => pairs.iter().any(|(key, value)| {
            matches!(key.as_str(), "password" | "sslpassword") && !value.is_empty()
        }),
        Err(_) => text.contains('@') || text.contains("password"),
    }
}

/// A setting with the place to blame.
struct Setting {
    value: String,
    place: String,
    folder: PathBuf,
}

impl Setting {
    fn bad(&self, keyword: &str, why: &str) -> Error {
        refusal(
            format!("{keyword} in {} is not allowed: {why}", self.place),
            format!("Correct {keyword} in {}.", self.place),
        )
    }
}

struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// A setting that says something; an empty one asks for the default, as for libpq.
    fn get(&self, keyword: &str) -> Option<&Setting> {
        self.0
            .get(keyword)
            .filter(|setting| !setting.value.is_empty())
    }

    fn value(&self, keyword: &str) -> Option<&str> {
        self.get(keyword).map(|setting| setting.value.as_str())
    }
}

/// The connection that URL and variables describe; `None` where nothing points to a server.
///
/// `timeout` is the explicit `remote.connect_timeout_seconds`: the URL's `connect_timeout` wins over
/// it, and it wins over `PGCONNECT_TIMEOUT`.
pub(super) fn resolve(
    given: Option<&Given>,
    timeout: Option<Duration>,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<Option<Conn>> {
    let points = POINTERS
        .iter()
        .any(|name| env.vars.get(*name).is_some_and(|value| !value.is_empty()));
    if given.is_none() && !points {
        return Ok(None);
    }
    let mut settings = match given {
        Some(given) => from_text(given, warnings)?,
        None => Settings(BTreeMap::new()),
    };
    if timeout.is_some() && !settings.0.contains_key("connect_timeout") {
        add_variables(&mut settings, env, &["PGCONNECT_TIMEOUT"])?;
    } else {
        add_variables(&mut settings, env, &[])?;
    }

    let port = port(&settings)?;
    let host = host(&settings, port, env)?;
    let user = name(&settings, "user")?
        .or_else(|| env.user.clone())
        .ok_or_else(|| {
            refusal(
                "no user is named for the PostgreSQL server, and this process's user has no name",
                "Name the user in remote.url or PGUSER.",
            )
        })?;
    let dbname = name(&settings, "dbname")?.unwrap_or_else(|| user.clone());
    let ssl = ssl_mode(&settings, &host)?;
    let ssl_root_cert = root_cert(&settings, ssl, env);
    let connect_timeout = match settings.get("connect_timeout") {
        Some(setting) => seconds(setting)?,
        None => timeout.unwrap_or(super::CONNECT_TIMEOUT),
    };
    let password = match settings.value("password") {
        Some(password) => Some(Secret::new(password)),
        None => from_password_file(&settings, &host, (port, &dbname, &user), env, warnings),
    };
    Ok(Some(Conn {
        host,
        port,
        user,
        dbname,
        password,
        ssl,
        ssl_root_cert,
        connect_timeout,
    }))
}

fn from_text(given: &Given, warnings: &mut Vec<String>) -> Result<Settings> {
    let place = match &given.origin {
        Origin::File(..) => format!("remote.url ({})", given.origin),
        origin => origin.to_string(),
    };
    let pairs = text::parse(&given.text).map_err(|why| {
        refusal(
            format!("{place} cannot be read: {why}"),
            "Write postgres://USER@HOST:PORT/DATABASE or host=... port=... dbname=... user=...",
        )
    })?;
    let mut settings = BTreeMap::new();
    let mut previous = String::new();
    for (key, value) in pairs {
        let Some((keyword, _)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == key) else {
            return Err(refuse_keyword(&key, &previous, &place));
        };
        if keyword.ends_with("application_name") {
            warnings.push(format!(
                "{keyword} in {place} has no effect: tidewater names its connections itself"
            ));
        }
        let (place, folder) = (place.clone(), given.folder.clone());
        settings.insert(
            *keyword,
            Setting {
                value,
                place,
                folder,
            },
        );
        previous = key;
    }
    Ok(Settings(settings))
}

fn refuse_keyword(key: &str, previous: &str, place: &str) -> Error {
    if UNSUPPORTED.iter().any(|(keyword, _)| *keyword == key) {
        return refusal(
            format!("{key} in {place} is not supported by this version yet"),
            format!("Remove {key} from {place}."),
        );
    }
    // What follows a password may be the rest of one that was not escaped.
    let plain = key.len() <= 32 && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if previous == "password" || !plain {
        return refusal(
            format!(
                "{place} holds an unknown keyword that is not shown, because it may be part of a password"
            ),
            "Quote or percent-encode the password's special characters.",
        );
    }
    let known = KEYWORDS.iter().map(|(keyword, _)| *keyword);
    let guess =
        nearest(key, known).map_or_else(String::new, |guess| format!("; did you mean {guess}?"));
    refusal(
        format!("unknown keyword {key} in {place}{guess}"),
        format!("Correct or remove {key} in {place}."),
    )
}

/// Fills what the text left open, and refuses variables that would have to be honoured and are not.
fn add_variables(settings: &mut Settings, env: &Env, except: &[&str]) -> Result<()> {
    for variable in UNSUPPORTED.iter().filter_map(|(_, variable)| *variable) {
        if env
            .vars
            .get(variable)
            .is_some_and(|value| !value.is_empty())
        {
            return Err(refusal(
                format!("the environment variable {variable} is not supported by this version yet"),
                format!("Unset {variable} for tidewater."),
            ));
        }
    }
    for (keyword, variable) in KEYWORDS {
        let Some(variable) = variable.filter(|variable| !except.contains(variable)) else {
            continue;
        };
        if settings.0.contains_key(keyword) {
            continue;
        }
        if let Some(value) = env.text(variable)? {
            let setting = Setting {
                value: value.to_owned(),
                place: format!("the environment variable {variable}"),
                folder: env.current_dir.clone(),
            };
            settings.0.insert(keyword, setting);
        }
    }
    Ok(())
}

fn port(settings: &Settings) -> Result<u16> {
    let Some(setting) = settings.get("port") else {
        return Ok(PORT);
    };
    if setting.value.contains(',') {
        return Err(setting.bad(
            "port",
            "several hosts are not supported by this version yet",
        ));
    }
    setting.value.trim().parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        setting.bad("port", "it must be a whole number from 1 to 65535 (a : or / in a password is written %3A or %2F)")
    })
}

fn host(settings: &Settings, port: u16, env: &Env) -> Result<Host> {
    let Some(setting) = settings.get("host") else {
        let socket = format!(".s.PGSQL.{port}");
        let found = env
            .socket_dirs
            .iter()
            .find(|folder| folder.join(&socket).exists());
        return Ok(match found {
            Some(folder) => Host::Socket(folder.clone()),
            None => Host::Tcp("localhost".to_owned()),
        });
    };
    let host = setting.value.as_str();
    if host.contains(',') {
        return Err(setting.bad(
            "host",
            "several hosts are not supported by this version yet",
        ));
    }
    if host.starts_with('@') {
        return Err(setting.bad(
            "host",
            "abstract sockets are not supported by this version yet",
        ));
    }
    if host.starts_with('/') {
        return Ok(Host::Socket(PathBuf::from(host)));
    }
    let strange = |c: char| c.is_control() || c.is_whitespace() || "/@?#[]%".contains(c);
    if host.contains(strange) {
        return Err(setting.bad(
            "host",
            "it must be a host name, an address or the folder of a socket",
        ));
    }
    Ok(Host::Tcp(host.to_owned()))
}

fn name(settings: &Settings, keyword: &str) -> Result<Option<String>> {
    let Some(setting) = settings.get(keyword) else {
        return Ok(None);
    };
    let value = &setting.value;
    if value.len() > super::reader::NAME_BYTES_MAX || value.chars().any(char::is_control) {
        return Err(setting.bad(
            keyword,
            "it must be a name of 1 to 63 bytes without control characters",
        ));
    }
    if value.contains("://") {
        return Err(setting.bad(keyword, "it must be a name, not a URL"));
    }
    Ok(Some(value.clone()))
}

fn ssl_mode(settings: &Settings, host: &Host) -> Result<SslMode> {
    let Some(setting) = settings.get("sslmode") else {
        return Ok(if host.is_local() {
            SslMode::Disable
        } else {
            SslMode::VerifyFull
        });
    };
    match setting.value.as_str() {
        "disable" => Ok(SslMode::Disable),
        // A socket carries no TLS, whatever was asked for; libpq says so too.
        "verify-full" if matches!(host, Host::Socket(_)) => Ok(SslMode::Disable),
        "verify-full" => Ok(SslMode::VerifyFull),
        mode @ ("allow" | "prefer" | "require" | "verify-ca") => Err(setting.bad(
            &format!("sslmode={mode}"),
            "it is not supported by this version yet, and would not prove which server answers; use verify-full, or disable to go without encryption",
        )),
        _ => Err(setting.bad("sslmode", "it must be verify-full or disable")),
    }
}

/// The named file; else the one that libpq looks for; else the system's authorities.
fn root_cert(settings: &Settings, ssl: SslMode, env: &Env) -> Option<PathBuf> {
    match settings.get("sslrootcert") {
        Some(setting) if setting.value == "system" => None,
        Some(setting) => Some(setting.folder.join(&setting.value)),
        None => env
            .home()
            .map(|home| home.join(".postgresql/root.crt"))
            .filter(|file| ssl == SslMode::VerifyFull && file.exists()),
    }
}

fn seconds(setting: &Setting) -> Result<Duration> {
    let range = 1..=CONNECT_TIMEOUT_SECONDS_MAX;
    let number = setting
        .value
        .trim()
        .parse()
        .ok()
        .filter(|number| range.contains(number));
    number.map(Duration::from_secs).ok_or_else(|| {
        let why =
            format!("it must be a whole number of seconds from 1 to {CONNECT_TIMEOUT_SECONDS_MAX}");
        setting.bad("connect_timeout", &why)
    })
}

fn from_password_file(
    settings: &Settings,
    host: &Host,
    (port, dbname, user): (u16, &str, &str),
    env: &Env,
    warnings: &mut Vec<String>,
) -> Option<Secret> {
    let named = settings.get("passfile");
    let path = match named {
        Some(setting) => setting.folder.join(&setting.value),
        None => env.home()?.join(".pgpass"),
    };
    let hosts = match host {
        Host::Tcp(name) => vec![name.as_str()],
        Host::Socket(folder) if is_default(folder, env) => vec!["localhost"],
        Host::Socket(folder) => folder.to_str().into_iter().collect(),
    };
    let login = pgpass::Login {
        hosts,
        port,
        dbname,
        user,
    };
    pgpass::lookup(&path, named.is_some(), &login, warnings)
}

/// Only the usual socket folders go by the name `localhost`, as for libpq: any user can listen in
/// another.
fn is_default(folder: &Path, env: &Env) -> bool {
    env.socket_dirs.iter().any(|usual| usual == folder)
}

#[cfg(test)]
mod tests;
