//! Which names the endpoint answers to.
//!
//! A web page can make a browser resolve its own name to 127.0.0.1 and then read what answers there (DNS
//! rebinding); the name still stands in the Host header. So only names that are known to mean this endpoint
//! are answered. An address cannot be rebound: one that was typed is one that was meant.

use crate::config::{HostPort, Metrics};
use axum::http::{HeaderMap, Uri, header};
use std::net::IpAddr;

/// The rules of one endpoint.
pub(super) struct Hosts {
    listen: Option<HostPort>,
    allowed: Vec<HostPort>,
}

impl Hosts {
    pub fn new(config: &Metrics) -> Hosts {
        Hosts {
            listen: config.listen.clone(),
            allowed: config.allowed_hosts.clone(),
        }
    }

    /// Whether a request names this endpoint, by its one Host header and, if it has one, the address in
    /// its first line.
    pub fn answers(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let mut named = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return false;
        };
        let known = |text: &str| HostPort::parse(text).is_some_and(|host| self.knows(&host));
        host.to_str().is_ok_and(known) && uri.authority().is_none_or(|a| known(a.as_str()))
    }

    fn knows(&self, host: &HostPort) -> bool {
        let ip = host.ip();
        if host.host == "localhost" || ip.is_some_and(|ip| ip.is_loopback()) {
            return true;
        }
        if let Some(listen) = &self.listen {
            let everywhere = listen.ip().is_some_and(|ip: IpAddr| ip.is_unspecified());
            if listen.host == host.host || (everywhere && ip.is_some()) {
                return true;
            }
        }
        self.allowed.iter().any(|allowed| {
            allowed.host == host.host && (allowed.port.is_none() || allowed.port == host.port)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(listen: &str, allowed: &[&str]) -> Hosts {
        let parse = |text: &str| HostPort::parse(text).unwrap_or_else(|| panic!("{text}"));
        Hosts::new(&Metrics {
            listen: Some(parse(listen)),
            allowed_hosts: allowed.iter().map(|t| parse(t)).collect(),
        })
    }

    fn answers(hosts: &Hosts, uri: &str, named: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for host in named {
            headers.append(header::HOST, host.parse().expect("a header"));
        }
        hosts.answers(&uri.parse().expect("a URI"), &headers)
    }

    #[test]
    fn only_names_that_mean_this_endpoint_are_answered() {
        let plain = hosts("127.0.0.1:9842", &["tidewater:9842", "any.example"]);
        for host in [
            "127.0.0.1:9842",
            "127.0.0.1",
            "127.8.8.8:1",
            "localhost:9842",
            "LOCALHOST",
            "[::1]:9842",
            "tidewater:9842",
            "Tidewater:9842",
            "any.example",
            "any.example:80",
        ] {
            assert!(answers(&plain, "/", &[host]), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9842",
            "tidewater",
            "tidewater:80",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "192.0.2.7:9842",
            "evil@127.0.0.1",
            "",
            "127.0.0.1:9842, evil.example",
        ] {
            assert!(!answers(&plain, "/", &[host]), "{host}");
        }
        assert!(!answers(&plain, "/", &[]));
        assert!(!answers(&plain, "/", &["localhost", "evil.example"]));
        assert!(!answers(&plain, "http://evil.example/", &["localhost"]));
        assert!(answers(&plain, "http://localhost/", &["localhost"]));
    }

    #[test]
    fn an_endpoint_on_every_address_answers_to_addresses_and_to_no_further_name() {
        for listen in ["0.0.0.0:9842", "[::]:9842"] {
            let open = hosts(listen, &[]);
            assert!(answers(&open, "/", &["192.0.2.7:9842"]));
            assert!(answers(&open, "/", &["[2001:db8::1]"]));
            assert!(!answers(&open, "/", &["device-a:9842"]));
        }
        let one = hosts("192.0.2.7:9842", &[]);
        assert!(answers(&one, "/", &["192.0.2.7:9842"]));
        assert!(!answers(&one, "/", &["192.0.2.8:9842"]));
    }
}
