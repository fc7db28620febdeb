//! Many schedules, on both cores, until the time is over.

use super::profile::{self, Profile};
use super::schedule::Sim;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tidewater::config::Config;

/// What became of one schedule.
pub struct Ended {
    pub fault: Option<String>,
    pub trace: Vec<String>,
    pub faults: usize,
    pub conflicts: usize,
    pub versions: usize,
}

fn config() -> Config {
    Config::new("sim.db", "postgres://nobody@nowhere.invalid/nothing").expect("a configuration")
}

/// Works in a folder in memory, where there is memory for it.
pub fn in_a_folder<T>(work: impl FnOnce(PathBuf, &Config) -> T) -> T {
    let shm = Path::new("/dev/shm");
    let folder = if shm.is_dir() {
        tempfile::tempdir_in(shm)
    } else {
        tempfile::tempdir()
    }
    .expect("a folder");
    let done = work(folder.path().to_owned(), &config());
    tidewater::world::simulated::enter(None);
    done
}

/// Runs one schedule.
pub fn run(seed: u64, profile: &'static Profile, bug: &'static str) -> Ended {
    in_a_folder(|folder, config| run_in(folder, config, seed, profile, bug))
}

fn run_in(
    folder: PathBuf,
    config: &Config,
    seed: u64,
    profile: &'static Profile,
    bug: &'static str,
) -> Ended {
    let mut sim = Sim::new(seed, profile, bug, config, folder);
    let done = sim.run();
    let conflicts = super::remote::lock(&sim.server).ever_conflicts.len();
    Ended {
        fault: done.err(),
        faults: sim.faults,
        conflicts,
        versions: sim.ghost.versions.len(),
        trace: std::mem::take(&mut sim.trace),
    }
}

/// Schedules that always run.
const FIXED: u64 = 48;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
    )
}

#[test]
fn a_seed_again() {
    let Some(seed) = number("TIDEWATER_SIM_SEED") else {
        return;
    };
    let profile = profile::of(seed);
    let ended = run(seed, profile, "");
    for line in &ended.trace {
        println!("{line}");
    }
    assert_eq!(ended.fault, None, "seed {seed}, {}", profile.name);
}

#[test]
fn a_seed_runs_the_same_way_twice() {
    for seed in 0..profile::PROFILES.len() as u64 {
        let [one, two] = [
            run(seed, profile::of(seed), ""),
            run(seed, profile::of(seed), ""),
        ];
        let differs = one.trace.iter().zip(&two.trace).find(|(a, b)| a != b);
        assert_eq!(differs, None, "seed {seed}");
        assert_eq!((one.fault, one.trace.len()), (two.fault, two.trace.len()));
    }
}

#[test]
fn no_schedule_loses_anything() {
    let seconds = number("TIDEWATER_SIM_SECONDS").unwrap_or(0);
    // A soak looks at what nobody has looked at before.
    let fresh = if seconds > 0 {
        fastrand::u64(0..1 << 40)
    } else {
        0
    };
    let base = number("TIDEWATER_SIM_BASE").unwrap_or(fresh);
    let until = Instant::now() + Duration::from_secs(seconds);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed: Mutex<Vec<(u64, String)>> = Mutex::new(Vec::new());
    let sums: Mutex<[usize; 3]> = Mutex::new([0; 3]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst) as u64;
                    if n >= FIXED && Instant::now() >= until {
                        return;
                    }
                    let seed = base + n;
                    let ended = run(seed, profile::of(seed), "");
                    done.fetch_add(1, Ordering::SeqCst);
                    let mut sums = sums.lock().unwrap();
                    sums[0] += ended.faults;
                    sums[1] += ended.conflicts;
                    sums[2] += ended.versions;
                    if let Some(fault) = ended.fault {
                        failed.lock().unwrap().push((seed, fault));
                    }
                }
            });
        }
    });
    let done = done.into_inner();
    println!(
        "{done} schedules from seed {base}: faults, conflicts, versions {:?}",
        sums.into_inner().unwrap()
    );
    let failed = failed.into_inner().unwrap();
    for (seed, fault) in &failed {
        println!(
            "TIDEWATER_SIM_SEED={seed} ({}): {fault}",
            profile::of(*seed).name
        );
    }
    assert!(failed.is_empty(), "{} of {done} failed", failed.len());
}
