//! Where the server may be: hosts, addresses and ports that belong together, and each one's password.

use super::super::env::Env;
use super::super::{Secret, refusal};
use super::{Host, Session, Setting, Settings, SslMode, Target, pgpass};
use crate::error::Result;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// PostgreSQL's port.
const PORT: u16 = 5432;

/// The places in their order; how each is protected is not known here yet.
pub(super) fn targets(settings: &Settings, env: &Env) -> Result<Vec<Target>> {
    let (named, addressed) = (settings.get("host"), settings.get("hostaddr"));
    let hosts = named.map_or(Vec::new(), Setting::list);
    let addresses = addressed.map_or(Vec::new(), Setting::list);
    if let (Some(setting), true) = (addressed, named.is_some())
        && addresses.len() != hosts.len()
    {
        return Err(setting.bad(
            "hostaddr",
            &format!(
                "it holds {} addresses for {} hosts",
                addresses.len(),
                hosts.len()
            ),
        ));
    }
    let count = hosts.len().max(addresses.len()).max(1);
    let ports = ports(settings, count)?;
    let mut targets = Vec::with_capacity(count);
    for (i, port) in ports.into_iter().enumerate() {
        let address = match (addressed, addresses.get(i)) {
            (Some(setting), Some(text)) if !text.is_empty() => Some(address(setting, text)?),
            _ => None,
        };
        let host = match (named, hosts.get(i)) {
            (Some(setting), Some(text)) if !text.is_empty() => host(setting, text)?,
            _ => match address {
                Some(address) => Host::Tcp(address.to_string()),
                None => usual(port, env),
            },
        };
        if let (Some(setting), Host::Socket(_), Some(_)) = (addressed, &host, address) {
            return Err(setting.bad("hostaddr", "the folder of a socket has no address"));
        }
        targets.push(Target {
            host,
            address,
            port,
            ssl: SslMode::VerifyFull,
            password: None,
        });
    }
    Ok(targets)
}

/// One port for each host: a single one counts for all, an empty one is PostgreSQL's own.
fn ports(settings: &Settings, count: usize) -> Result<Vec<u16>> {
    let Some(setting) = settings.get("port") else {
        return Ok(vec![PORT; count]);
    };
    let texts = setting.list();
    let ports = texts
        .iter()
        .map(|text| match text.trim() {
            "" => Ok(PORT),
            text => text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
                setting.bad("port", "it must be a whole number from 1 to 65535 (a : or / in a password is written %3A or %2F)")
            }),
        })
        .collect::<Result<Vec<u16>>>()?;
    match ports.as_slice() {
        [one] => Ok(vec![*one; count]),
        _ if ports.len() == count => Ok(ports),
        _ => Err(setting.bad(
            "port",
            &format!("it holds {} ports for {count} hosts", ports.len()),
        )),
    }
}

/// Where a server is looked for that nobody named.
fn usual(port: u16, env: &Env) -> Host {
    let socket = format!(".s.PGSQL.{port}");
    let found = env
        .socket_dirs
        .iter()
        .find(|folder| folder.join(&socket).exists());
    match found {
        Some(folder) => Host::Socket(folder.clone()),
        None => Host::Tcp("localhost".to_owned()),
    }
}

fn address(setting: &Setting, text: &str) -> Result<IpAddr> {
    text.parse()
        .map_err(|_| setting.bad("hostaddr", "it must be a numeric IPv4 or IPv6 address"))
}

fn host(setting: &Setting, text: &str) -> Result<Host> {
    if text.starts_with('@') {
        return Err(setting.bad(
            "host",
            "abstract sockets are not supported by this version yet",
        ));
    }
    if text.starts_with('/') {
        return Ok(Host::Socket(PathBuf::from(text)));
    }
    let strange = |c: char| c.is_control() || c.is_whitespace() || "/@?#[]%".contains(c);
    if text.contains(strange) {
        return Err(setting.bad(
            "host",
            "it must be a host name, an address or the folder of a socket",
        ));
    }
    Ok(Host::Tcp(text.to_owned()))
}

/// Which servers are accepted. tidewater writes wherever it connects, so that a wish for a server
/// that cannot be written is refused rather than left to fail at the first push.
pub(super) fn session(settings: &Settings) -> Result<Session> {
    let Some(setting) = settings.get("target_session_attrs") else {
        return Ok(Session::Any);
    };
    match setting.value.as_str() {
        value @ ("read-only" | "standby" | "prefer-standby") => Err(refusal(
            format!(
                "target_session_attrs={value} in {} is not supported: a standby or a read-only server takes no changes, and its snapshots cannot be followed",
                setting.place
            ),
            "Use target_session_attrs=primary, or leave it out: with several hosts the primary is looked for anyway.",
        )),
        _ => setting.choice(
            "target_session_attrs",
            &[
                ("any", Session::Any),
                ("read-write", Session::ReadWrite),
                ("primary", Session::Primary),
            ],
        ),
    }
}

/// Whether hosts, and the addresses of each, are tried in a random order.
pub(super) fn load_balance(settings: &Settings) -> Result<bool> {
    settings
        .get("load_balance_hosts")
        .map_or(Ok(false), |setting| {
            setting.choice(
                "load_balance_hosts",
                &[("disable", false), ("random", true)],
            )
        })
}

/// Gives each place its password: the one that was named, else what the password file says of it.
pub(super) fn passwords(
    settings: &Settings,
    targets: &mut [Target],
    (dbname, user): (&str, &str),
    env: &Env,
    warnings: &mut Vec<String>,
) {
    if let Some(password) = settings.value("password") {
        for target in targets {
            target.password = Some(Secret::new(password));
        }
        return;
    }
    let named = settings.get("passfile");
    let Some(path) = named
        .map(Setting::path)
        .or_else(|| Some(env.home()?.join(".pgpass")))
    else {
        return;
    };
    let mut said = Vec::new();
    for target in targets {
        let hosts = match &target.host {
            Host::Tcp(name) => vec![name.as_str()],
            Host::Socket(folder) if is_default(folder, env) => vec!["localhost"],
            Host::Socket(folder) => folder.to_str().into_iter().collect(),
        };
        let login = pgpass::Login {
            hosts,
            port: target.port,
            dbname,
            user,
        };
        // What is wrong with the file is said once.
        said.clear();
        target.password = pgpass::lookup(&path, named.is_some(), &login, &mut said);
    }
    warnings.append(&mut said);
}

/// Only the usual socket folders go by the name `localhost`, as for libpq: any user can listen in
/// another.
fn is_default(folder: &Path, env: &Env) -> bool {
    env.socket_dirs.iter().any(|usual| usual == folder)
}

impl Setting {
    /// The parts of a list, an empty one where two commas meet.
    fn list(&self) -> Vec<&str> {
        self.value.split(',').collect()
    }
}
