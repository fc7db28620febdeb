//! The operations behind the commands, one function each.
//!
//! The command line knows nothing else of the engine. Each takes the configuration, opens what it
//! needs, and returns the document of its command or the error that ends it.

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::report::{
    ConflictsReport, InitReport, ModeReport, NowReport, Progress, QueueReport, ResultsReport,
    RowStatus, StatusReport, VerifyReport,
};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What `init` was asked for.
#[derive(Debug, Clone, Default)]
pub struct InitOptions {
    /// Globs that replace `[local] tables`; empty: as configured.
    pub tables: Vec<String>,
    /// Only say what would be executed.
    pub dry_run: bool,
}

/// What `init` ended with.
#[derive(Debug, Clone)]
pub enum InitOutcome {
    /// Capture is installed.
    Done(InitReport),
    /// Nothing was changed: database (`sqlite`, `postgres`) and statement, in their order.
    DryRun(Vec<(String, String)>),
}

/// What `now` was asked for. Neither `push` nor `pull` means both.
#[derive(Debug, Clone, Default)]
pub struct NowOptions {
    /// Only send.
    pub push: bool,
    /// Only receive.
    pub pull: bool,
    /// Give up after so long.
    pub timeout: Option<Duration>,
    /// Only list what would be sent.
    pub dry_run: bool,
}

/// What `queue` was asked for.
#[derive(Debug, Clone)]
pub struct QueueFilter {
    /// Only failed items.
    pub errors: bool,
    /// At most so many.
    pub limit: usize,
}

fn unbuilt<T>(what: &str) -> Result<T> {
    Err(Error::new(
        Code::Configuration,
        format!("`{what}` is not built yet"),
        "use a version that has it",
    ))
}

/// `init`.
pub async fn init(
    _config: &Config,
    _opts: &InitOptions,
    _progress: &dyn Progress,
) -> Result<InitOutcome> {
    unbuilt("init")
}

/// `run`; ends when `stop` is cancelled and the batch in hand is finished.
pub async fn run(_config: &Config, _init: bool, _stop: CancellationToken) -> Result<()> {
    unbuilt("run")
}

/// `now`.
pub async fn now(
    _config: &Config,
    _opts: &NowOptions,
    _progress: &dyn Progress,
) -> Result<NowReport> {
    unbuilt("now")
}

/// `status`.
pub async fn status(_config: &Config) -> Result<StatusReport> {
    unbuilt("status")
}

/// `status TABLE KEY...`.
pub fn row_status(_config: &Config, _table: &str, _key: &[String]) -> Result<RowStatus> {
    unbuilt("status")
}

/// `queue`.
pub fn queue(_config: &Config, _filter: &QueueFilter) -> Result<QueueReport> {
    unbuilt("queue")
}

/// `retry`; without keys, all failed items.
pub async fn retry(_config: &Config, _keys: &[String], _force: bool) -> Result<ResultsReport> {
    unbuilt("retry")
}

/// `discard`.
pub async fn discard(_config: &Config, _keys: &[String]) -> Result<ResultsReport> {
    unbuilt("discard")
}

/// `pause`.
pub fn pause(_config: &Config) -> Result<ModeReport> {
    unbuilt("pause")
}

/// `resume`.
pub fn resume(_config: &Config) -> Result<ModeReport> {
    unbuilt("resume")
}

/// `conflicts`.
pub fn conflicts(_config: &Config) -> Result<ConflictsReport> {
    unbuilt("conflicts")
}

/// `conflicts show ID`.
pub fn conflict(_config: &Config, _id: &str) -> Result<ConflictsReport> {
    unbuilt("conflicts show")
}

/// `conflicts restore ID`.
pub fn restore(_config: &Config, _id: &str) -> Result<ConflictsReport> {
    unbuilt("conflicts restore")
}

/// `conflicts ack ID...`; without ids, all of them.
pub fn acknowledge(_config: &Config, _ids: &[String]) -> Result<ConflictsReport> {
    unbuilt("conflicts ack")
}

/// `clone`.
pub async fn clone(
    _config_path: Option<PathBuf>,
    _remote: Option<String>,
    _schema: Option<String>,
    _file: &Path,
    _progress: &dyn Progress,
) -> Result<InitReport> {
    unbuilt("clone")
}

/// `verify`; without tables, all of them.
pub async fn verify(
    _config: &Config,
    _tables: &[String],
    _progress: &dyn Progress,
) -> Result<VerifyReport> {
    unbuilt("verify")
}
