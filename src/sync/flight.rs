//! A batch under way: sent until its outcome is known, or the remote is out of reach, while the device's
//! own task goes on with its file.
//!
//! A task of its own where the runtime has other threads; else it moves on whenever it is waited for.
//! Knows nothing of the file: what becomes of the batch is decided by `push`. Dropped, it ends.

use super::device::Device;
use super::retry;
use crate::error::{Code, Disposition, Error, Result};
use crate::failpoint;
use crate::metrics::Monitor;
use crate::remote::{Batch, PushAnswer, Remote, Tracked};
use crate::world;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio_util::task::AbortOnDropHandle;

/// Attempts at once for what the server asks to try again.
const AT_ONCE: u32 = 5;

/// What a batch came back with.
pub struct Landed {
    /// The answer.
    pub answer: Result<PushAnswer>,
    /// Whether every attempt ended before a connection was to be had.
    pub left_here: bool,
    /// How long it took.
    pub took: Duration,
}

/// A batch under way.
pub struct Flight(Pin<Box<dyn Future<Output = Landed> + Send>>);

impl Flight {
    /// Sends a batch. Its first bytes leave before this returns, where a connection is at hand.
    pub async fn launch<R: Remote>(device: &Device<R>, batch: &Arc<Batch>) -> Flight {
        let remote = Arc::clone(&device.remote);
        let (batch, tables) = (Arc::clone(batch), device.tables.clone());
        let monitor = Arc::clone(&device.monitor);
        let way = async move {
            let started = Instant::now();
            let mut left_here = true;
            let answer = send(&*remote, &batch, &tables, &monitor, &mut left_here).await;
            Landed {
                answer,
                left_here,
                took: started.elapsed(),
            }
        };
        let runtime = Handle::try_current();
        if let Ok(handle) = &runtime
            && handle.runtime_flavor() == RuntimeFlavor::MultiThread
        {
            let task = AbortOnDropHandle::new(handle.spawn(way));
            return Flight(Box::pin(async move { task.await.unwrap_or_else(broken) }));
        }
        let mut way = Box::pin(way);
        let landed = poll_fn(|cx| Poll::Ready(way.as_mut().poll(cx))).await;
        if let Poll::Ready(landed) = landed {
            return Flight(Box::pin(std::future::ready(landed)));
        }
        if runtime.is_ok() {
            // What carries the bytes is another task of the same thread.
            tokio::task::yield_now().await;
        }
        Flight(way)
    }

    /// Waits for the answer.
    pub async fn landed(self) -> Landed {
        self.0.await
    }
}

/// The task ended by itself: with a panic, which goes on here, or with the runtime.
fn broken(e: tokio::task::JoinError) -> Landed {
    if e.is_panic() {
        std::panic::resume_unwind(e.into_panic());
    }
    let error = Error::new(
        Code::Connection,
        "sending a batch: broken off",
        "nothing is lost, it is sent again",
    );
    Landed {
        answer: Err(error.with_disposition(Disposition::OutcomeUnknown)),
        left_here: false,
        took: Duration::ZERO,
    }
}

/// Sends one batch until its outcome is known, or the remote is out of reach.
/// `left_here` stays true where every attempt ended before a connection was to be had.
pub async fn send<R: Remote>(
    remote: &R,
    batch: &Batch,
    tables: &[Tracked],
    monitor: &Monitor,
    left_here: &mut bool,
) -> Result<PushAnswer> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let renamed;
        let batch = if attempt > 1 && failpoint::is_planted("new_key") {
            renamed = Batch {
                key: world::ulid().to_string(),
                ..batch.clone()
            };
            &renamed
        } else {
            batch
        };
        let e = match remote.push(batch, tables).await {
            Ok(answer) => return Ok(answer),
            Err(e) => e,
        };
        *left_here &= e.disposition == Some(Disposition::Unreached);
        let again = match e.disposition {
            Some(Disposition::RetryNow | Disposition::OutcomeUnknown) => attempt < AT_ONCE,
            _ => false,
        };
        if !again {
            return Err(e);
        }
        tracing::debug!(attempt, error = %e.message, "sending the same batch again");
        monitor.retried();
        let pause = retry::delay(
            Duration::from_millis(20),
            Duration::from_millis(500),
            attempt,
        );
        world::sleep(pause).await;
    }
}
