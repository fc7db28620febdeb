//! What systemd is told of the service: started, alive, how it stands, stopping.
//!
//! Nothing is sent where no `NOTIFY_SOCKET` is set, and what cannot be sent is not worth an error: the
//! service works the same without it.

use crate::sync::Observer;
use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

/// Tells systemd what the service tells.
pub(crate) struct Systemd {
    watched: bool,
}

impl Systemd {
    /// The watchdog is fed where systemd has set one for this process.
    pub(crate) fn new() -> Self {
        Systemd {
            watched: sd_notify::watchdog_enabled().is_some(),
        }
    }
}

impl Observer for Systemd {
    fn ready(&self) {
        send(&[NotifyState::Ready]);
    }

    fn alive(&self) {
        if self.watched {
            send(&[NotifyState::Watchdog]);
        }
    }

    fn state(&self, text: &str) {
        // The protocol has one assignment a line.
        send(&[NotifyState::Status(&text.replace('\n', " "))]);
    }
}

/// Tells it as soon as the service is asked to stop; the batch in hand may take a while.
pub(crate) async fn stopping(stop: CancellationToken) {
    stop.cancelled().await;
    send(&[NotifyState::Stopping]);
}

fn send(state: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(state) {
        tracing::debug!(error = %e, "systemd cannot be told");
    }
}
