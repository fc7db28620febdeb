//! Chaos: service processes, apps that write all the time, a writer in PostgreSQL, and faults of every
//! kind between and under them. Then everything is mended, must drain, and is judged from outside.
//!
//! A schedule is drawn from a seed: `TIDEWATER_CHAOS_SEED=n` repeats it, the operating system's own
//! timing excepted. `make soak MINUTES=n` goes on with fresh seeds for as long as asked.

mod judge;
mod plan;
mod world;
mod writers;

use crate::support::wait::{PATIENCE, eventually};
use plan::{Plan, Size};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use tidewater::failpoint::NAMES;
use world::World;

/// The schedules of every run of the tests: together nearly every kind of fault. Fresh ones are for `soak`.
const SEEDS: [u64; 2] = [1, 3];

/// Cures that can be switched off, of the kind that shows only where processes and servers really die.
/// The second word is what the verdict on it contains.
const PLANTED: [(&str, &str); 3] = [
    ("no_flush", ""),
    ("guard_survives_kill", "only here"),
    ("unsorted_batch", "deadlocks"),
];
/// Each is caught with nearly every seed; all of these together miss none.
const TRIES: usize = 4;

/// The crash points that an ordinary exchange passes.
fn exchange_points() -> impl Iterator<Item = &'static str> {
    let others = ["detach_", "rejoin_", "reconcile_", "heal_page"];
    NAMES
        .iter()
        .copied()
        .filter(move |p| !others.iter().any(|own| p.starts_with(own)))
}

/// What came of one schedule.
struct Outcome {
    wrong: Vec<String>,
    counts: BTreeMap<&'static str, u32>,
    account: String,
}

fn schedule(plan: &Plan, plant: Option<&str>) -> Outcome {
    let mut world = World::new(plan, plant);
    let done = world.live();
    let drained = world.drain();
    let mut wrong = Vec::new();
    let took = match drained {
        Ok(took) => {
            eventually(PATIENCE * 4, "connections within their bound", || {
                judge::connections(&world).is_none()
            });
            took
        }
        Err(left) => {
            wrong.push(format!("not drained:\n{left}"));
            Duration::ZERO
        }
    };
    world.rest();
    wrong.extend(judge::judge(&world, &done));
    let writes: usize = done.iter().map(|d| d.writes.len()).sum();
    let account = format!(
        "{} devices, {writes} writes, {} conflicts, {} deadlocks, drained in {:.1} s, \
         an app waited {} at most, {} MB",
        plan.devices,
        world.schema.one("select count(*) from tidewater_conflicts"),
        judge::deadlocks(&world),
        took.as_secs_f64(),
        judge::slowest(&done),
        world.sites.iter().map(|s| s.memory).max().unwrap_or(0) / 1024,
    );
    if !wrong.is_empty() {
        keep(&world, &wrong, &done);
    }
    Outcome {
        wrong,
        counts: std::mem::take(&mut world.counts),
        account,
    }
}

/// Where `TIDEWATER_CHAOS_KEEP` names a folder, all that a failed schedule left goes there.
fn keep(world: &World<'_>, wrong: &[String], done: &[writers::Done]) {
    let Some(folder) = std::env::var_os("TIDEWATER_CHAOS_KEEP") else {
        return;
    };
    let folder = std::path::Path::new(&folder).join(world.plan.seed.to_string());
    let kept = std::fs::create_dir_all(&folder).and_then(|()| {
        std::fs::write(folder.join("plan"), format!("{:#?}", world.plan))?;
        std::fs::write(folder.join("wrong"), wrong.join("\n"))?;
        std::fs::write(folder.join("server.log"), world.server.log())?;
        let writes: Vec<_> = done.iter().flat_map(|d| &d.writes).collect();
        std::fs::write(folder.join("writes"), format!("{writes:#?}"))?;
        for (n, site) in world.sites.iter().enumerate() {
            std::fs::write(
                folder.join(format!("d{n}.log")),
                site.said.join("\n-- the next process\n"),
            )?;
            std::fs::copy(site.device.db(), folder.join(format!("d{n}.db")))?;
        }
        Ok(())
    });
    println!("kept in {}: {kept:?}", folder.display());
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|e| panic!("{variable}={text}: {e}")),
    )
}

/// Runs schedules with `seeds` and reports; fails where anything was wrong.
fn run(seeds: impl Iterator<Item = u64>, size: Size) {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut failed = Vec::new();
    let mut schedules = 0;
    let started = Instant::now();
    for seed in seeds {
        println!("to repeat this schedule: TIDEWATER_CHAOS_SEED={seed}");
        let plan = Plan::draw(seed, size);
        let outcome = catch_unwind(AssertUnwindSafe(|| schedule(&plan, None)));
        schedules += 1;
        match outcome {
            Ok(outcome) => {
                println!("{}", outcome.account);
                for (kind, n) in outcome.counts {
                    *counts.entry(kind).or_default() += n;
                }
                if !outcome.wrong.is_empty() {
                    println!("WRONG with seed {seed}:\n{}", outcome.wrong.join("\n"));
                    failed.push(seed);
                }
            }
            Err(_) => failed.push(seed),
        }
    }
    println!(
        "{schedules} schedules in {} s, faults: {counts:?}, failed: {failed:?}",
        started.elapsed().as_secs()
    );
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

#[test]
fn random_faults_lose_double_and_block_nothing() {
    match number("TIDEWATER_CHAOS_SEED") {
        Some(seed) => run(std::iter::once(seed), Size::Short),
        None => run(SEEDS.into_iter(), Size::Short),
    }
}

/// Whether a schedule that is made for the bug finds it.
fn is_caught(bug: &str, mark: &str, seed: u64) -> bool {
    let plan = Plan::for_bug(seed, bug);
    let outcome = schedule(&plan, Some(bug));
    let found = outcome.wrong.iter().find(|w| w.contains(mark));
    println!(
        "planted {bug}, seed {seed}, {}; found: {}",
        outcome.account,
        found.map_or("nothing", |w| w.as_str())
    );
    found.is_some()
}

#[test]
fn planted_bugs_are_caught() {
    std::thread::scope(|scope| {
        for (bug, mark) in PLANTED {
            scope.spawn(move || {
                let caught = (0..TRIES).any(|_| is_caught(bug, mark, fastrand::u64(..)));
                assert!(caught, "{bug} was planted and not caught");
            });
        }
    });
}

/// The score of the planted bugs, and that the same schedules find nothing where nothing is planted.
#[test]
#[ignore = "half an hour, for docs/reliability.md"]
fn score() {
    let times = number("TIDEWATER_CHAOS_TIMES").unwrap_or(20);
    for (bug, mark) in PLANTED {
        let honest = Plan {
            drain: Duration::from_secs(240),
            ..Plan::for_bug(fastrand::u64(..), bug)
        };
        let wrong = schedule(&honest, None).wrong;
        assert!(wrong.is_empty(), "{bug} was not planted: {wrong:?}");
        let caught = (0..times)
            .filter(|_| is_caught(bug, mark, fastrand::u64(..)))
            .count();
        println!("{bug}: caught with {caught} of {times} seeds");
        assert!(caught as u64 + 1 >= times, "{bug}: {caught} of {times}");
    }
}

/// For as long as `TIDEWATER_CHAOS_MINUTES` says, after which the schedule at hand is finished.
#[test]
#[ignore = "make soak MINUTES=n"]
fn soak() {
    if let Some(seed) = number("TIDEWATER_CHAOS_SEED") {
        return run(std::iter::once(seed), Size::Long);
    }
    let minutes = number("TIDEWATER_CHAOS_MINUTES").unwrap_or(10);
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    // Only schedules with a certain fault, by the name under which it is counted.
    let wanted = std::env::var("TIDEWATER_CHAOS_WITH").ok();
    let fits = |seed: &u64| {
        let faults = Plan::draw(*seed, Size::Long).faults;
        let wanted = wanted.as_deref();
        wanted.is_none_or(|w| faults.iter().any(|p| p.fault.kind() == w))
    };
    let fresh = std::iter::repeat_with(|| fastrand::u64(..)).filter(fits);
    run(fresh.take_while(|_| Instant::now() < end), Size::Long);
}
