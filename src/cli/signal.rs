//! SIGINT and SIGTERM.
//!
//! The first one asks, the second one ends the process at once, whatever it is doing: every state on
//! disk is safe to leave at any moment.

use super::INTERRUPTED;
use crate::error::{Code, Error, Result};
use tokio_util::sync::CancellationToken;

/// A token that the first signal cancels. Must be called inside the runtime.
pub(crate) fn listen() -> Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut signals = Signals::new().map_err(|e| {
        Error::new(
            Code::Configuration,
            format!("signals cannot be received: {e}"),
            "check the limits that this process runs under",
        )
    })?;
    let asked = token.clone();
    tokio::spawn(async move {
        signals.next().await;
        tracing::info!("stopping; a second signal ends at once");
        asked.cancel();
        signals.next().await;
        std::process::exit(i32::from(INTERRUPTED));
    });
    Ok(token)
}

#[cfg(unix)]
struct Signals(tokio::signal::unix::Signal, tokio::signal::unix::Signal);

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Signals(
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Signals)
    }

    async fn next(&mut self) {
        // Without a handler the default one ends the process, which is what is wanted then.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_first_signal_asks() {
        let stop = listen().expect("listens");
        let sent = std::process::Command::new("kill")
            .args(["-TERM", &std::process::id().to_string()])
            .status();
        assert!(sent.is_ok_and(|s| s.success()));
        tokio::time::timeout(Duration::from_secs(10), stop.cancelled())
            .await
            .expect("is asked to stop");
    }
}
