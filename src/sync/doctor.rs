//! `doctor`: everything that can be looked at, and the remedy for each fault.
//!
//! Looks only: neither side is changed, not even brought up to date. What cannot be looked at is said to
//! be unchecked and is no fault by itself; a remote that is configured and out of reach is one.

mod data;
mod file;
mod server;

use crate::config::Config;
use crate::error::Result;
use crate::report::{Check, DoctorReport, Progress};
use crate::sqlite::local::Local;

/// See `ops::doctor`.
pub async fn doctor(config: &Config, progress: &dyn Progress) -> Result<DoctorReport> {
    let path = config.path()?;
    let mut checks = Vec::new();
    let local = match Local::open(path) {
        Ok(local) => {
            file::checks(&local, &mut checks)?;
            Some(local)
        }
        Err(e) => {
            checks.push(Check::fault("file", e.message, e.remedy));
            for name in file::NAMES.iter().chain(data::NAMES) {
                checks.push(Check::unchecked(name, "the file cannot be used"));
            }
            None
        }
    };
    let tables = match &local {
        Some(local) => data::checks(config, local, progress, &mut checks),
        None => Vec::new(),
    };
    server::checks(config, local.as_ref(), &tables, &mut checks).await;
    Ok(DoctorReport::from(checks))
}
