//! Addresses of the endpoint: where it listens, and by which names it may be called.
//!
//! Judges the text alone; whether the machine has such an address shows when the port is opened.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest name of DNS.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// A host, and a port where one was named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name in lower case, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: Option<u16>,
}

impl HostPort {
    /// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; `None` where it is neither.
    pub fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                let host: Ipv6Addr = host.parse().ok()?;
                let port = match port {
                    "" => None,
                    port => Some(port.strip_prefix(':')?),
                };
                (host.to_string(), port)
            }
            None => {
                let (host, port) = match text.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (text, None),
                };
                (name(host)?, port)
            }
        };
        let port = match port {
            None => None,
            // `parse` alone would take a sign.
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(HostPort { host, port })
    }

    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        match self.port {
            Some(port) => write!(f, ":{port}"),
            None => Ok(()),
        }
    }
}

/// A name of DNS or an IPv4 address. A last label of digits alone is an address or nothing:
/// `127.0.0.999` is no name.
fn name(host: &str) -> Option<String> {
    if host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Some(host.to_owned());
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    // Compose joins words by underscores.
    let good = |label: &str| {
        (1..=LABEL_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let last = host.rsplit('.').next()?;
    let is_name = host.len() <= NAME_MAX
        && host.split('.').all(good)
        && !last.bytes().all(|b| b.is_ascii_digit());
    is_name.then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_place_is_read_and_nothing_else() {
        for (text, host, port) in [
            ("127.0.0.1:9842", "127.0.0.1", Some(9842)),
            ("0.0.0.0:0", "0.0.0.0", Some(0)),
            ("[::1]:9842", "::1", Some(9842)),
            ("[::]", "::", None),
            ("LocalHost:80", "localhost", Some(80)),
            ("device-a", "device-a", None),
            ("stack_device-a_1:9842", "stack_device-a_1", Some(9842)),
            ("host.example.", "host.example", None),
        ] {
            let parsed = HostPort::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{text}");
            assert_eq!(HostPort::parse(&parsed.to_string()), Some(parsed), "{text}");
        }
        for text in [
            "",
            ":",
            ":9842",
            "a:",
            "a:b",
            "a:+1",
            "a:65536",
            "127.0.0.999:1",
            "1.2.3:4",
            "300",
            "a b",
            "a/b",
            "http://a",
            "a,b",
            "::1",
            "::1:9842",
            "[::1",
            "[::1]9842",
            "[a]:1",
            "-a",
            "a..b",
            "a@b:1",
        ] {
            assert_eq!(HostPort::parse(text), None, "{text}");
        }
        assert_eq!(HostPort::parse(&"a".repeat(64)), None);
    }
}
