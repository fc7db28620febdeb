//! The world of one schedule: a clock that only the schedule moves, chance from its seed, and the end of
//! a process at the n-th write.

use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};
use tidewater::world::simulated::World;

/// What a simulated process ends with.
pub struct Crash;

pub struct SimWorld {
    /// True time, ms since 1970.
    pub now: Cell<i64>,
    /// How far the clock of the device that runs is off.
    pub skew: Cell<i64>,
    rng: RefCell<Rng>,
    began: Instant,
    ticks: Cell<u64>,
    /// Crash points until the process ends; 0 is never.
    pub points: Cell<u32>,
    bug: &'static str,
}

impl SimWorld {
    pub fn new(seed: u64, bug: &'static str) -> Self {
        SimWorld {
            now: Cell::new(1_700_000_000_000),
            skew: Cell::new(0),
            rng: RefCell::new(Rng::with_seed(seed ^ 0x5eed)),
            began: Instant::now(),
            ticks: Cell::new(0),
            points: Cell::new(0),
            bug,
        }
    }

    /// The clock of the device that runs.
    pub fn clock(&self) -> i64 {
        self.now.get() + self.skew.get()
    }
}

impl World for SimWorld {
    fn now_ms(&self) -> i64 {
        self.clock()
    }

    fn instant(&self) -> Instant {
        // Every look takes a while, so that slices end anywhere.
        self.ticks
            .set(self.ticks.get() + self.rng.borrow_mut().u64(0..3));
        self.began + Duration::from_millis(self.ticks.get())
    }

    fn random(&self) -> u128 {
        self.rng.borrow_mut().u128(..)
    }

    fn point(&self, _: &str) {
        match self.points.get() {
            0 => {}
            1 => {
                self.points.set(0);
                std::panic::resume_unwind(Box::new(Crash));
            }
            n => self.points.set(n - 1),
        }
    }

    fn is_planted(&self, bug: &str) -> bool {
        self.bug == bug
    }
}
