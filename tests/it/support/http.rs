//! A client for the service's endpoint: one request, one connection, nothing hidden.

use super::cli::Running;
use super::wait::{PATIENCE, eventually_some};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// By lower-case name.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    /// Fails the test unless the status is `expected`.
    #[track_caller]
    pub fn expect(self, expected: u16) -> Answer {
        assert_eq!(self.status, expected, "{self:#?}");
        self
    }
}

/// Where a service answers.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    pub port: u16,
}

impl Endpoint {
    /// The endpoint that a service says it has.
    #[track_caller]
    pub fn of(service: &Running) -> Endpoint {
        let port = eventually_some(PATIENCE, "the endpoint to be open", || {
            let said = service.stderr();
            let rest = said.split("http://127.0.0.1:").nth(1)?;
            rest.split('/').next()?.parse().ok()
        });
        Endpoint { port }
    }

    /// GET, under the name that the address has.
    #[track_caller]
    pub fn get(self, path: &str) -> Answer {
        self.ask("GET", path, &format!("127.0.0.1:{}", self.port))
    }

    /// Any request, under any name.
    #[track_caller]
    pub fn ask(self, method: &str, path: &str, host: &str) -> Answer {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        self.try_raw(&head)
            .unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    /// A request as it stands.
    pub fn try_raw(self, request: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request.as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let status = lines
            .next()
            .and_then(|l| l.split(' ').nth(1))
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        let headers = lines
            .filter_map(|l| l.split_once(':'))
            .map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned()))
            .collect();
        Ok(Answer {
            status,
            headers,
            body: body.to_owned(),
        })
    }

    /// The scrape.
    #[track_caller]
    pub fn metrics(self) -> Metrics {
        Metrics(self.get("/metrics").expect(200).body)
    }
}

/// The text of a scrape.
#[derive(Debug, Clone)]
pub struct Metrics(pub String);

impl Metrics {
    /// The value of a sample, by its name with its labels as they are written.
    pub fn find(&self, sample: &str) -> Option<f64> {
        self.0
            .lines()
            .find_map(|l| l.strip_prefix(sample)?.strip_prefix(' '))
            .and_then(|v| v.parse().ok())
    }

    /// The same, which has to be there.
    #[track_caller]
    pub fn value(&self, sample: &str) -> f64 {
        self.find(sample)
            .unwrap_or_else(|| panic!("no {sample} in\n{}", self.0))
    }
}
