//! Listening beside the polls: a wait that others' writes end.
//!
//! Owns one task with a connection of its own, and when it is tried again. Must never be needed:
//! whatever fails here is a line in the debug log, and the polls go on.

use super::retry;
use crate::error::Result;
use crate::remote::Remote;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// The first wait after a connection that could not be had, or was lost ...
const AGAIN: Duration = Duration::from_secs(2);

/// ... and the longest, behind a pooler for example.
const AGAIN_MAX: Duration = Duration::from_secs(600);

/// A connection that lived so long had nothing wrong with it.
const LIVED: Duration = Duration::from_secs(60);

/// The listener of a service.
pub struct Ear {
    heard: Arc<AtomicBool>,
    task: Option<JoinHandle<Result<()>>>,
    began: Instant,
    not_before: Option<Instant>,
    /// How often it was lost or not to be had since it last lived for long.
    lost: u32,
}

impl Drop for Ear {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Ear {
    /// Listens to nothing yet.
    pub fn new() -> Self {
        Ear {
            heard: Arc::default(),
            task: None,
            began: Instant::now(),
            not_before: None,
            lost: 0,
        }
    }

    /// Whether something was heard since the last time that this was asked.
    pub fn heard(&self) -> bool {
        self.heard.swap(false, Ordering::SeqCst)
    }

    /// Whether there is anything to do for [`Ear::keep`].
    pub fn rests(&self) -> bool {
        match &self.task {
            Some(task) => task.is_finished(),
            None => self.not_before.is_none_or(|t| Instant::now() >= t),
        }
    }

    /// Listens again where nobody does and it is time; called while the remote is in reach.
    pub async fn keep(&mut self, remote: &impl Remote, device: &str) {
        let now = Instant::now();
        if let Some(task) = self.task.take_if(|task| task.is_finished()) {
            if self.began.elapsed() >= LIVED {
                self.lost = 0;
            }
            match task.await {
                Ok(Err(e)) => tracing::debug!(error = %e.message, "not listening; the polls go on"),
                _ => tracing::debug!("listening ended; the polls go on"),
            }
            self.lost = self.lost.saturating_add(1);
            self.not_before = Some(now + retry::delay(AGAIN, AGAIN_MAX, self.lost));
        }
        if self.task.is_some() || self.not_before.is_some_and(|t| now < t) {
            return;
        }
        self.began = now;
        let flag = Arc::clone(&self.heard);
        let heard = Arc::new(move || flag.store(true, Ordering::SeqCst));
        self.task = Some(tokio::spawn(remote.listen(device, heard)));
    }
}
