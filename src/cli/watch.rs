//! `status --watch`: the same answer about every second, until a signal or a closed pipe ends it.

use super::output::Output;
use super::render;
use crate::config::Config;
use crate::error::Result;
use crate::report::Time;
use crate::sync::ops;
use std::time::Duration;

const EVERY: Duration = Duration::from_secs(1);

/// Shows the device, or one row of it, again and again. Ends with 0 only where nobody reads any more.
pub(crate) async fn status(
    config: &Config,
    table: Option<&str>,
    key: &[String],
    output: &Output,
) -> Result<u8> {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut first = true;
    loop {
        tick.tick().await;
        let read = match table {
            Some(table) => {
                let report = ops::row_status(config, table, key)?;
                output.again(&report, first, |r, p| render::row_status(r, Time::now(), p))
            }
            None => {
                let report = ops::status(config).await?;
                output.again(&report, first, |r, p| render::status(r, Time::now(), p))
            }
        };
        if !read {
            return Ok(0);
        }
        first = false;
    }
}
