//! Connection settings written down again, without the password.

use super::{ChannelBinding, Conn, Host, Session, SslMode, Target, limits, text};
use std::fmt;
use std::path::Path;

impl Conn {
    /// The settings as a URL without the password; it can be read back.
    pub fn display(&self) -> String {
        let (place, mut parameters) = self.place();
        self.add_protection(&mut parameters);
        let mut add = |keyword: &str, value: &str| parameters.push(format!("{keyword}={value}"));
        match self.session {
            Session::Any => {}
            Session::ReadWrite => add("target_session_attrs", "read-write"),
            Session::Primary => add("target_session_attrs", "primary"),
        }
        if self.load_balance {
            add("load_balance_hosts", "random");
        }
        for (keyword, value) in limits::written(&self.keepalives) {
            add(keyword, &value);
        }
        if let Some((service, file)) = &self.service {
            add("service", &text::encode(service, ""));
            if let Some(file) = file {
                add("servicefile", &path(file));
            }
        }
        let question = if parameters.is_empty() { "" } else { "?" };
        format!(
            "postgres://{}@{place}/{}{question}{}",
            text::encode(&self.user, ""),
            text::encode(&self.dbname, ""),
            parameters.join("&")
        )
    }

    /// One of its servers, for messages: where, as whom and to which database.
    pub fn display_target(&self, target: &Target) -> String {
        let (user, dbname) = (text::encode(&self.user, ""), text::encode(&self.dbname, ""));
        match &target.host {
            Host::Tcp(name) => {
                format!(
                    "postgres://{user}@{}:{}/{dbname}",
                    in_url(name),
                    target.port
                )
            }
            Host::Socket(folder) => format!(
                "postgres://{user}@/{dbname}?host={}&port={}",
                path(folder),
                target.port
            ),
        }
    }

    /// The authority, and the parameters for what it cannot hold.
    fn place(&self) -> (String, Vec<String>) {
        let plain = self
            .targets
            .iter()
            .all(|t| matches!(t.host, Host::Tcp(_)) && t.address.is_none());
        if plain {
            let places: Vec<String> = self
                .targets
                .iter()
                .map(|t| match &t.host {
                    Host::Tcp(name) => format!("{}:{}", in_url(name), t.port),
                    Host::Socket(_) => String::new(),
                })
                .collect();
            return (places.join(","), Vec::new());
        }
        let list = |one: &dyn Fn(&Target) -> String| {
            let all: Vec<String> = self.targets.iter().map(one).collect();
            all.join(",")
        };
        let host = |t: &Target| match &t.host {
            Host::Tcp(name) => text::encode(name, ":"),
            Host::Socket(folder) => path(folder),
        };
        let mut parameters = vec![format!("host={}", list(&host))];
        if self.targets.iter().any(|t| t.address.is_some()) {
            let address = |t: &Target| t.address.map_or_else(String::new, |a| a.to_string());
            parameters.push(format!("hostaddr={}", list(&address)));
        }
        parameters.push(format!("port={}", list(&|t| t.port.to_string())));
        (String::new(), parameters)
    }

    fn add_protection(&self, parameters: &mut Vec<String>) {
        let usual = |t: &&Target| t.ssl == super::tls::usual(&t.host);
        let unusual = self.targets.iter().find(|t| !usual(t));
        if let Some(target) = unusual {
            let mode = match target.ssl {
                SslMode::Disable => "disable",
                SslMode::Require => "require",
                SslMode::VerifyCa => "verify-ca",
                SslMode::VerifyFull => "verify-full",
            };
            parameters.push(format!("sslmode={mode}"));
        }
        if let Some(file) = &self.ssl_root_cert {
            parameters.push(format!("sslrootcert={}", path(file)));
        }
        if let Some(shown) = &self.ssl_cert {
            parameters.push(format!("sslcert={}", path(&shown.cert)));
            parameters.push(format!("sslkey={}", path(&shown.key)));
        }
        match self.channel_binding {
            ChannelBinding::Prefer => {}
            ChannelBinding::Disable => parameters.push("channel_binding=disable".to_owned()),
            ChannelBinding::Require => parameters.push("channel_binding=require".to_owned()),
        }
    }
}

impl fmt::Display for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display())
    }
}

/// A host as the authority of a URL holds it.
fn in_url(name: &str) -> String {
    if name.contains(':') {
        format!("[{name}]")
    } else {
        text::encode(name, "")
    }
}

fn path(path: &Path) -> String {
    text::encode(&path.to_string_lossy(), "/")
}
