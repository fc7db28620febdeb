//! What happens in one schedule, drawn from its seed: how big the world is, and which fault begins and
//! ends when.
//!
//! Faults run in lanes, one for each thing that can fail: the way of a device to the server, its
//! process, its disk, its file, and the server. A lane has one fault at a time; lanes overlap freely.

use crate::support::proxy::Mode;
use fastrand::Rng;
use std::time::Duration;

/// How hard it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// A bounded part for every run of the tests.
    Short,
    /// Longer and with longer faults: an app that holds the lock for 30 s among them.
    Long,
}

/// One thing that goes wrong, for the time that the plan says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The network between a device and the server.
    Net(usize, Mode),
    /// Every connection of a device is reset.
    Cut(usize),
    /// The same, but the server does not learn of it.
    Abandon(usize),
    /// SIGKILL; a new process afterwards.
    Kill(usize),
    /// The next process of a device kills itself at a crash point, at its n-th passage.
    KillAt(usize, &'static str, u32),
    /// SIGTERM, and a new process afterwards.
    Restart(usize),
    /// SIGSTOP, SIGCONT afterwards.
    Freeze(usize),
    /// No file of the process may grow, or not even its log be written.
    Full(usize, bool),
    /// The app holds the write lock.
    Hold(usize),
    /// The app keeps a read transaction open.
    Reader(usize),
    /// Somebody runs `now` beside the service.
    Now(usize),
    /// Somebody pauses the service, and resumes it.
    Pause(usize),
    /// The server ends as in a crash, and starts again.
    Crash,
    /// The server ends the sessions of all devices.
    Terminate,
    /// A copy of the server is made when it begins, and put back when it ends.
    Restore,
}

impl Fault {
    /// What it is counted under.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Net(_, mode) => match mode {
                Mode::Refuse => "refused",
                Mode::BlackHole => "black hole",
                Mode::HalfOpen => "half-open",
                Mode::Delay(_) => "delay",
                Mode::CutAfterBytes(_) | Mode::CutAfterAnswerBytes(_) => "cut after bytes",
                Mode::CutAfterCommitReply => "commit unanswered",
                Mode::CutBefore(_) => "cut before commit",
                Mode::SilenceBeforeCommit => "silence before commit",
                _ => "other",
            },
            Fault::Cut(_) => "cut",
            Fault::Abandon(_) => "abandoned",
            Fault::Kill(_) => "kill",
            Fault::KillAt(..) => "kill at a point",
            Fault::Restart(_) => "restart",
            Fault::Freeze(_) => "freeze",
            Fault::Full(..) => "disk full",
            Fault::Hold(_) => "app holds the lock",
            Fault::Reader(_) => "long reader",
            Fault::Now(_) => "now beside it",
            Fault::Pause(_) => "pause",
            Fault::Crash => "server crash",
            Fault::Terminate => "sessions ended",
            Fault::Restore => "server restored",
        }
    }
}

/// What a schedule for a planted bug leads to, and ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hunt {
    /// A crash of the server takes back what a device has: crashes just when one has read something new.
    Forgotten,
    /// Each service dies while it applies rows, and its app goes on writing.
    Deaths,
    /// Two devices wait for each other: all write the same rows, and commits travel slowly.
    Deadlocks,
}

/// A fault and its time from the start.
#[derive(Debug, Clone)]
pub struct Planned {
    pub from: Duration,
    pub until: Duration,
    pub fault: Fault,
}

/// One schedule.
#[derive(Debug)]
pub struct Plan {
    pub seed: u64,
    pub devices: usize,
    pub policy: &'static str,
    pub batch_size: u32,
    pub page_size: u32,
    /// How many keys everybody writes to.
    pub shared_keys: usize,
    /// How long the server leaves an asynchronous commit in memory, ms.
    pub wal_writer_delay: u32,
    /// Between two transactions of an app, and of the writer in PostgreSQL: ms at most.
    pub pace: u64,
    pub server_pace: u64,
    /// Which share of the commits in PostgreSQL is acknowledged before it is on disk.
    pub asynchronous: f64,
    pub deletes: bool,
    pub length: Duration,
    pub faults: Vec<Planned>,
    /// Instead of faults at their times.
    pub hunt: Option<Hunt>,
    /// For everything to be done after the last fault.
    pub drain: Duration,
}

/// A passing schedule never uses it up.
const DRAIN: Duration = Duration::from_secs(240);

impl Plan {
    pub fn draw(seed: u64, size: Size) -> Plan {
        let mut rng = Rng::with_seed(seed);
        let devices = rng.usize(2..=3);
        let length = Duration::from_secs(match size {
            Size::Short => 8,
            Size::Long => rng.u64(10..=45),
        });
        let mut plan = Plan {
            seed,
            devices,
            policy: [
                "last_write_wins",
                "last_write_wins",
                "local_wins",
                "remote_wins",
            ][rng.usize(..4)],
            batch_size: [2, 5, 50][rng.usize(..3)],
            page_size: [3, 20, 1000][rng.usize(..3)],
            shared_keys: rng.usize(3..=15),
            wal_writer_delay: [10, 200, 2000][rng.usize(..3)],
            pace: [30, 100, 300][rng.usize(..3)],
            server_pace: [30, 100, 300][rng.usize(..3)],
            asynchronous: 0.5,
            deletes: true,
            length,
            faults: Vec::new(),
            hunt: None,
            drain: DRAIN,
        };
        for device in 0..devices {
            plan.lane(&mut rng, 3000, |rng| net(rng, device));
            plan.lane(&mut rng, 4000, |rng| process(rng, device));
            plan.lane(&mut rng, 6000, |rng| file(rng, device, size));
        }
        if size == Size::Long && rng.u8(..5) == 0 {
            let from = length / 4 + Duration::from_millis(rng.u64(..2000));
            let until = from + Duration::from_millis(rng.u64(500..6000));
            let fault = Fault::Restore;
            plan.faults.push(Planned { from, until, fault });
        } else {
            plan.lane(&mut rng, 7000, server);
        }
        plan
    }

    /// Whether the server goes back in time.
    pub fn restores(&self) -> bool {
        self.faults.iter().any(|p| p.fault == Fault::Restore)
    }

    /// Whether an app holds the write lock at some time.
    pub fn holds(&self) -> bool {
        let holds = |p: &Planned| matches!(p.fault, Fault::Hold(_));
        self.faults.iter().any(holds)
    }

    /// One that a planted bug cannot hide in, however slow the machine: it goes on until what the bug
    /// needs has happened.
    pub fn for_bug(seed: u64, bug: &str) -> Plan {
        let mut plan = Plan {
            seed,
            devices: 2,
            policy: "last_write_wins",
            batch_size: 50,
            page_size: 20,
            shared_keys: 12,
            wal_writer_delay: 10_000,
            pace: 40,
            server_pace: 40,
            asynchronous: 0.5,
            deletes: true,
            length: Duration::ZERO,
            faults: Vec::new(),
            hunt: None,
            drain: Duration::from_secs(8),
        };
        match bug {
            "no_flush" => {
                // A batch of a device would flush what stands before it.
                plan.pace = 60_000;
                plan.asynchronous = 1.0;
                plan.hunt = Some(Hunt::Forgotten);
            }
            "guard_survives_kill" => plan.hunt = Some(Hunt::Deaths),
            "unsorted_batch" => {
                plan.devices = 4;
                plan.deletes = false;
                plan.hunt = Some(Hunt::Deadlocks);
            }
            other => panic!("no such bug: {other}"),
        }
        plan
    }

    /// Fills a lane with faults, and gaps of up to `gap` ms between them.
    fn lane(&mut self, rng: &mut Rng, gap: u64, mut next: impl FnMut(&mut Rng) -> (Fault, u64)) {
        let mut at = Duration::from_millis(rng.u64(..gap));
        while at < self.length {
            let (fault, lasts) = next(rng);
            let until = at + Duration::from_millis(lasts);
            self.faults.push(Planned {
                from: at,
                until,
                fault,
            });
            at = until + Duration::from_millis(rng.u64(50..gap));
        }
    }
}

fn net(rng: &mut Rng, device: usize) -> (Fault, u64) {
    let mode = match rng.u8(..12) {
        0 => Mode::Refuse,
        1 => Mode::BlackHole,
        2 => Mode::HalfOpen,
        3 => Mode::Delay(Duration::from_millis(rng.u64(1..150))),
        4 => Mode::CutAfterBytes(rng.u64(1..20_000)),
        5 => Mode::CutAfterAnswerBytes(rng.u64(1..20_000)),
        6 | 7 => Mode::CutAfterCommitReply,
        8 => Mode::CutBefore("commit".to_owned()),
        9 => Mode::SilenceBeforeCommit,
        10 => return (Fault::Cut(device), 1),
        _ => return (Fault::Abandon(device), rng.u64(100..4000)),
    };
    (Fault::Net(device, mode), rng.u64(200..4000))
}

fn process(rng: &mut Rng, device: usize) -> (Fault, u64) {
    match rng.u8(..8) {
        0..=2 => (Fault::Kill(device), rng.u64(..1500)),
        3 | 4 => {
            let points: Vec<_> = super::exchange_points().collect();
            let point = points[rng.usize(..points.len())];
            (
                Fault::KillAt(device, point, rng.u32(1..12)),
                rng.u64(1000..4000),
            )
        }
        5 => (Fault::Restart(device), rng.u64(..500)),
        // Frozen with the write lock in its hands it is in the app's way: never for long.
        6 => (Fault::Freeze(device), rng.u64(100..1500)),
        _ => (Fault::Full(device, rng.bool()), rng.u64(300..4000)),
    }
}

fn file(rng: &mut Rng, device: usize, size: Size) -> (Fault, u64) {
    match rng.u8(..5) {
        0 => {
            let most = if size == Size::Long { 30_000 } else { 3500 };
            (Fault::Hold(device), rng.u64(500..most))
        }
        1 => (Fault::Reader(device), rng.u64(500..6000)),
        2 => (Fault::Pause(device), rng.u64(200..3000)),
        _ => (Fault::Now(device), 1),
    }
}

fn server(rng: &mut Rng) -> (Fault, u64) {
    match rng.bool() {
        true => (Fault::Crash, rng.u64(..2000)),
        false => (Fault::Terminate, 1),
    }
}
