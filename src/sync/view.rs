//! What others may see of a running service: numbers for a scrape, readiness, and the status page's facts.
//!
//! Reads the file through a connection of its own and never the server: looking costs the service nothing
//! and answers while it is busy or cut off.

use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::{Contact, Monitor, Seen};
use crate::report::{Glance, Time};
use crate::sqlite::inspect;
use std::path::PathBuf;
use std::sync::Arc;

/// A look at one service. Every method may block for as long as the file is locked, seconds at most.
#[derive(Clone)]
pub struct View {
    path: PathBuf,
    schema: String,
    monitor: Arc<Monitor>,
}

/// All that the status page shows.
pub struct Picture {
    /// Now.
    pub now: Time,
    /// The workspace.
    pub schema: String,
    /// What the process knows.
    pub seen: Seen,
    /// What the file says, or why it says nothing.
    pub file: Result<Glance>,
}

impl View {
    /// Of the service that reports to `monitor`.
    pub fn new(config: &Config, monitor: Arc<Monitor>) -> Result<View> {
        Ok(View {
            path: config.path()?.to_owned(),
            schema: config.remote.schema.clone(),
            monitor,
        })
    }

    /// The text of a scrape. A file that cannot be read is one of its numbers, not an error.
    pub fn scrape(&self) -> Result<String> {
        let now = Time::now();
        let file = self.glance(now).ok();
        self.monitor.encode(file.as_ref(), now)
    }

    /// Whether changes can travel now, else why not.
    pub fn ready(&self) -> std::result::Result<(), String> {
        let said = |e: &Error| format!("{}: {}", e.code, e.message);
        inspect::usable(&self.path).map_err(|e| said(&e))?;
        match self.monitor.seen().contact {
            Contact::Fine => Ok(()),
            Contact::Never => Err("there was no contact with the server yet".to_owned()),
            Contact::Failed { code, message } => Err(format!("{code}: {message}")),
        }
    }

    /// Everything at once.
    pub fn picture(&self) -> Picture {
        let now = Time::now();
        Picture {
            now,
            schema: self.schema.clone(),
            seen: self.monitor.seen(),
            file: self.glance(now),
        }
    }

    fn glance(&self, now: Time) -> Result<Glance> {
        let mut seen = inspect::glance(&self.path, now)?;
        // A pull that brought nothing is not written down: an idle service does not write.
        let pulled = self.monitor.seen().pulled_at;
        seen.download.last_pull_at = seen.download.last_pull_at.max(pulled);
        Ok(seen)
    }
}
