//! What a process takes from the world around it: the time, chance, and waiting.
//!
//! Whatever decides what is stored or sent asks here and nowhere else, so that a simulation can put a
//! world of its own in place, for its own thread, and a schedule runs the same way each time. Without the
//! feature `failpoints` there is one world and nothing to put in its place.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use ulid::Ulid;

/// This device's clock, ms since 1970.
pub fn now_ms() -> i64 {
    #[cfg(feature = "failpoints")]
    if let Some(now) = simulated::ask(|w| w.now_ms()) {
        return now;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// A moment, for how long something took.
pub fn instant() -> Instant {
    #[cfg(feature = "failpoints")]
    if let Some(now) = simulated::ask(|w| w.instant()) {
        return now;
    }
    Instant::now()
}

/// A new id.
pub fn ulid() -> Ulid {
    #[cfg(feature = "failpoints")]
    if let Some((now, random)) = simulated::ask(|w| (w.now_ms(), w.random())) {
        return Ulid::from_parts(u64::try_from(now).unwrap_or(0), random);
    }
    Ulid::generate()
}

/// The part of a waiting time that is drawn; `None` where the caller draws it.
pub fn part() -> Option<f64> {
    #[cfg(feature = "failpoints")]
    if let Some(random) = simulated::ask(|w| w.random()) {
        return Some((random % 1_000) as f64 / 1_000.0);
    }
    None
}

/// Waits.
pub async fn sleep(time: Duration) {
    #[cfg(feature = "failpoints")]
    if simulated::ask(|_| ()).is_some() {
        return simulated::turn().await;
    }
    tokio::time::sleep(time).await;
}

/// The worlds of simulations.
#[cfg(feature = "failpoints")]
pub mod simulated {
    use std::cell::RefCell;
    use std::future::Future;
    use std::pin::Pin;
    use std::rc::Rc;
    use std::task::{Context, Poll};
    use std::time::Instant;

    /// A world in which the code of one thread runs.
    pub trait World {
        /// The clock of the device that runs now.
        fn now_ms(&self) -> i64;
        /// The same as a moment; may go on with every look.
        fn instant(&self) -> Instant;
        /// 128 bits.
        fn random(&self) -> u128;
        /// Passes a crash point, or the beginning of a write to a file: unwinds where the process ends.
        fn point(&self, name: &str);
        /// Whether a cure is switched off, so that the tests of the tests have something to find.
        fn is_planted(&self, bug: &str) -> bool;
    }

    thread_local! {
        static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
    }

    /// Puts a world in place for this thread, or takes it away.
    pub fn enter(world: Option<Rc<dyn World>>) {
        WORLD.with(|w| *w.borrow_mut() = world);
    }

    /// Asks the world of this thread, where there is one.
    pub fn ask<T>(question: impl FnOnce(&dyn World) -> T) -> Option<T> {
        let world = WORLD.with(|w| w.borrow().clone());
        world.map(|w| question(&*w))
    }

    /// Gives the turn back to the scheduler once.
    pub fn turn() -> impl Future<Output = ()> + Send {
        Turn(false)
    }

    struct Turn(bool);

    impl Future for Turn {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0 {
                return Poll::Ready(());
            }
            self.0 = true;
            Poll::Pending
        }
    }
}
