//! The questions that are answered from the file alone: single rows, the queues, what would be sent.
//!
//! Behind commands of the same names in `ops`. Nothing here needs the remote or writes to the file,
//! beyond bringing one of an older version up to date.

use super::ops::open;
use crate::config::Config;
use crate::error::Result;
use crate::report::{ExplainReport, InboxReport, QueueDetailReport, QueueReport, RowStatus, Time};
use crate::sqlite::inspect::{self, Which};

/// Items that `now --dry-run` lists at most.
const WOULD_SEND_MAX: usize = 100_000;

/// What `queue` was asked for.
#[derive(Debug, Clone, Default)]
pub struct QueueFilter {
    /// Only failed items.
    pub errors: bool,
    /// Only what no waiting time holds back.
    pub ready: bool,
    /// At most so many.
    pub limit: usize,
}

/// `status TABLE KEY...`.
pub fn row_status(config: &Config, table: &str, key: &[String]) -> Result<RowStatus> {
    let local = open(config)?;
    let table = inspect::table_named(local.conn(), table)?;
    let key = inspect::parse_key(local.conn(), &table, key)?;
    inspect::row_status(local.conn(), &table, &key)
}

/// `explain TABLE KEY...`.
pub fn explain(config: &Config, table: &str, key: &[String]) -> Result<ExplainReport> {
    let local = open(config)?;
    let table = inspect::table_named(local.conn(), table)?;
    let key = inspect::parse_key(local.conn(), &table, key)?;
    inspect::explain(local.conn(), &table, &key)
}

/// `queue`.
pub fn queue(config: &Config, filter: &QueueFilter) -> Result<QueueReport> {
    let which = match (filter.errors, filter.ready) {
        (true, _) => Which::Errors,
        (_, true) => Which::Ready,
        _ => Which::All,
    };
    inspect::queue(open(config)?.conn(), which, filter.limit, Time::now())
}

/// `queue --inbox`.
pub fn inbox(config: &Config, filter: &QueueFilter) -> Result<InboxReport> {
    inspect::inbox(open(config)?.conn(), filter.errors, filter.limit)
}

/// `queue show KEY`.
pub fn queue_detail(config: &Config, key: &str) -> Result<QueueDetailReport> {
    Ok(QueueDetailReport {
        items: vec![inspect::queue_detail(open(config)?.conn(), key)?],
        total: 1,
    })
}

/// `now --dry-run`; `sends` is false where only a pull was asked for.
pub fn would_send(config: &Config, sends: bool) -> Result<QueueReport> {
    let local = open(config)?;
    if !sends {
        return Ok(QueueReport::default());
    }
    inspect::queue(local.conn(), Which::Sendable, WOULD_SEND_MAX, Time::now())
}
