//! How to reach the server, as a user of `psql` would say it.
//!
//! Owns the meaning of libpq's keywords and `PG*` variables, the password file and the defaults. It
//! must never weaken what was asked for: a keyword that this version cannot honour is refused by
//! name. Without `sslmode` the server's certificate is verified, unless nothing leaves this machine.
//! Errors name keywords and places, never the text around them.

mod display;
mod hosts;
mod keywords;
mod limits;
mod pgpass;
mod service;
mod text;
mod tls;

use super::env::Env;
use super::source::Origin;
use super::suggest::nearest;
use super::{Secret, refusal};
use crate::error::{Error, Result};
use keywords::{KEYWORDS, POINTERS, UNSUPPORTED};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

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

/// How a connection is protected; each mode asks for more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// It is not encrypted.
    Disable,
    /// It is encrypted, and nobody proves anything.
    Require,
    /// Besides, an authority of `sslrootcert` vouches for the server, under whatever name.
    VerifyCa,
    /// Besides, the server proves to be the host that was named.
    VerifyFull,
}

/// Whether the login has to be bound to the encrypted channel (SCRAM-SHA-256-PLUS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelBinding {
    /// It is not.
    Disable,
    /// It is where the server offers it.
    #[default]
    Prefer,
    /// Without it nobody logs in.
    Require,
}

/// Which servers are accepted (`target_session_attrs`). tidewater always needs one that it can write
/// to; the values say whether that is made sure of when a connection is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Session {
    /// As libpq's default; with several hosts the primary is looked for all the same.
    #[default]
    Any,
    /// One that accepts writes.
    ReadWrite,
    /// One that is not in recovery.
    Primary,
}

/// A certificate that this side shows, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCert {
    /// The PEM file of the certificate.
    pub cert: PathBuf,
    /// The PEM file of its key.
    pub key: PathBuf,
}

/// How the operating system watches over a connection. `None` leaves it to the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether it does at all.
    pub on: bool,
    /// The silence after which it asks the other side.
    pub idle: Option<Duration>,
    /// The time between two questions.
    pub interval: Option<Duration>,
    /// Unanswered questions after which the connection is lost.
    pub count: Option<u32>,
    /// How long sent data may stay unacknowledged.
    pub user_timeout: Option<Duration>,
}

/// One place where the server may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it listens, by the name that its certificate holds.
    pub host: Host,
    /// The address to connect to in place of looking the name up.
    pub address: Option<IpAddr>,
    /// The port, also of a socket.
    pub port: u16,
    /// How the connection is protected.
    pub ssl: SslMode,
    /// The password, where one is known.
    pub password: Option<Secret>,
}

/// Everything that a connection needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conn {
    /// Where the server may be, in the order in which it is looked for; at least one.
    pub targets: Vec<Target>,
    /// The role that logs in.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// The PEM file of the authorities to trust in place of the system's.
    pub ssl_root_cert: Option<PathBuf>,
    /// What this side shows of itself.
    pub ssl_cert: Option<ClientCert>,
    /// Whether the login is bound to the channel.
    pub channel_binding: ChannelBinding,
    /// Which servers are accepted.
    pub session: Session,
    /// Whether hosts are tried in a random order.
    pub load_balance: bool,
    /// How the system watches over the connection.
    pub keepalives: Keepalives,
    /// The deadline of one attempt to connect to one address, login included.
    pub connect_timeout: Duration,
    /// The service that gave what the text left open, with its file where one was named.
    pub service: Option<(String, Option<PathBuf>)>,
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

    /// A path, which starts from the folder of whoever wrote it.
    fn path(&self) -> PathBuf {
        self.folder.join(&self.value)
    }

    /// One of a few words.
    fn choice<T: Copy>(&self, keyword: &str, choices: &[(&str, T)]) -> Result<T> {
        let found = choices.iter().find(|(word, _)| *word == self.value);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
            self.bad(keyword, &format!("it must be {}", either(&words)))
        })
    }
}

/// `a, b or c`.
fn either(words: &[&str]) -> String {
    match words {
        [rest @ .., last] if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

struct Settings(BTreeMap<&'static str, Setting>);

impl Settings {
    /// Takes a keyword in, or refuses it by name. `previous` is the keyword before it.
    fn insert(
        &mut self,
        key: &str,
        previous: &str,
        setting: Setting,
        warnings: &mut Vec<String>,
    ) -> Result<()> {
        let Some((keyword, _)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == key) else {
            return Err(refuse_keyword(key, previous, &setting.place));
        };
        if keyword.ends_with("application_name") {
            warnings.push(format!(
                "{keyword} in {} has no effect: tidewater names its connections itself",
                setting.place
            ));
        }
        self.0.insert(keyword, setting);
        Ok(())
    }

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
    let service = service::fill(&mut settings, env, warnings)?;
    if timeout.is_some() && !settings.0.contains_key("connect_timeout") {
        add_variables(&mut settings, env, &["PGCONNECT_TIMEOUT"])?;
    } else {
        add_variables(&mut settings, env, &[])?;
    }

    let user = name(&settings, "user")?
        .or_else(|| env.user.clone())
        .ok_or_else(|| {
            refusal(
                "no user is named for the PostgreSQL server, and this process's user has no name",
                "Name the user in remote.url or PGUSER.",
            )
        })?;
    let dbname = name(&settings, "dbname")?.unwrap_or_else(|| user.clone());
    let mut targets = hosts::targets(&settings, env)?;
    tls::protect(&settings, &mut targets)?;
    let channel_binding = tls::channel_binding(&settings, &targets)?;
    let encrypted = targets.iter().map(|target| target.ssl).max();
    let encrypted = encrypted.unwrap_or(SslMode::Disable);
    hosts::passwords(&settings, &mut targets, (&dbname, &user), env, warnings);
    let connect_timeout = match settings.get("connect_timeout") {
        Some(setting) => limits::connect_timeout(setting)?,
        None => timeout.unwrap_or(super::CONNECT_TIMEOUT),
    };
    Ok(Some(Conn {
        targets,
        ssl_root_cert: tls::root_cert(&settings, encrypted, env)?,
        ssl_cert: tls::client_cert(&settings, encrypted, env)?,
        channel_binding,
        session: hosts::session(&settings)?,
        load_balance: hosts::load_balance(&settings)?,
        keepalives: limits::keepalives(&settings)?,
        user,
        dbname,
        connect_timeout,
        service,
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
    let mut settings = Settings(BTreeMap::new());
    let mut previous = String::new();
    for (key, value) in pairs {
        let setting = Setting {
            value,
            place: place.clone(),
            folder: given.folder.clone(),
        };
        settings.insert(&key, &previous, setting, warnings)?;
        previous = key;
    }
    Ok(settings)
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

#[cfg(test)]
mod tests;
