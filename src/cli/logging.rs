//! Log lines on stderr.
//!
//! Our own lines alone grow with `-v`: drivers log statements and parameters, which are row values.

use super::args::{Command, Global, LogFormat};
use super::progress::AboveBars;
use super::style::Paint;
use tracing_subscriber::EnvFilter;

/// Starts logging; a second call, as in tests, changes nothing.
pub(crate) fn start(global: &Global, command: &Command) {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter(global, command)))
        .with_writer(|| AboveBars)
        .with_ansi(Paint::stderr(global.color).on());
    let started = match global.log_format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().with_ansi(false).try_init(),
    };
    drop(started);
}

fn filter(global: &Global, command: &Command) -> &'static str {
    match (global.quiet, global.verbose) {
        (true, _) => "error",
        (false, 0) => match command {
            Command::Run { .. } => "warn,tidewater=info",
            // Its story tells of the conflict and of the missing server itself.
            Command::Demo { .. } => "error",
            _ => "warn",
        },
        (false, 1) => "warn,tidewater=debug",
        (false, _) => "warn,tidewater=trace",
    }
}
