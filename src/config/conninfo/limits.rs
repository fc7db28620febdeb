//! Deadlines and keepalives.

use super::{Keepalives, Setting, Settings};
use crate::error::Result;
use std::time::Duration;

/// The longest wait for a connection, in seconds.
const CONNECT_TIMEOUT_SECONDS_MAX: u64 = 3600;

/// Nobody sets the keepalives' seconds higher than a day.
const SECONDS_MAX: u64 = 86_400;

/// The silence after which the system asks whether the other side is still there. The system's own
/// default of two hours is longer than most firewalls remember a connection.
const IDLE: Duration = Duration::from_secs(60);

pub(super) fn connect_timeout(setting: &Setting) -> Result<Duration> {
    whole(
        setting,
        "connect_timeout",
        1..=CONNECT_TIMEOUT_SECONDS_MAX,
        "seconds ",
    )
    .map(Duration::from_secs)
}

pub(super) fn keepalives(settings: &Settings) -> Result<Keepalives> {
    let number = |keyword: &'static str, max: u64, unit: &str| {
        settings
            .get(keyword)
            .map(|setting| whole(setting, keyword, 0..=max, unit))
            .transpose()
    };
    // Zero asks for the system's own, as for libpq.
    let seconds = |keyword: &'static str| {
        let given = number(keyword, SECONDS_MAX, "seconds ")?;
        Ok(given.map(|n| (n > 0).then(|| Duration::from_secs(n))))
    };
    let count = number("keepalives_count", 1000, "")?.filter(|n| *n > 0);
    let user_timeout = number("tcp_user_timeout", SECONDS_MAX * 1000, "milliseconds ")?;
    Ok(Keepalives {
        on: number("keepalives", 1, "")? != Some(0),
        idle: seconds("keepalives_idle")?.unwrap_or(Some(IDLE)),
        interval: seconds("keepalives_interval")?.flatten(),
        count: count.and_then(|n| u32::try_from(n).ok()),
        user_timeout: user_timeout.filter(|n| *n > 0).map(Duration::from_millis),
    })
}

/// The keywords that differ from the default, with their values.
pub(super) fn written(k: &Keepalives) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    if !k.on {
        out.push(("keepalives", "0".to_owned()));
    }
    if k.idle != Some(IDLE) {
        let seconds = k.idle.unwrap_or_default().as_secs();
        out.push(("keepalives_idle", seconds.to_string()));
    }
    if let Some(interval) = k.interval {
        out.push(("keepalives_interval", interval.as_secs().to_string()));
    }
    if let Some(count) = k.count {
        out.push(("keepalives_count", count.to_string()));
    }
    if let Some(timeout) = k.user_timeout {
        out.push(("tcp_user_timeout", timeout.as_millis().to_string()));
    }
    out
}

fn whole(
    setting: &Setting,
    keyword: &str,
    range: std::ops::RangeInclusive<u64>,
    unit: &str,
) -> Result<u64> {
    let number = setting.value.trim().parse().ok();
    number.filter(|n| range.contains(n)).ok_or_else(|| {
        let of = if unit.is_empty() { "" } else { "of " };
        let why = format!(
            "it must be a whole number {of}{unit}from {} to {}",
            range.start(),
            range.end()
        );
        setting.bad(keyword, &why)
    })
}
