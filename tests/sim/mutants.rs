//! The oracle tested: cures of the protocol are switched off one by one, and it has to notice.

use super::profile::{self, Profile};
use super::sweep::run;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// A planted bug and the kind of schedules that lead to it.
pub struct Mutant {
    pub bug: &'static str,
    pub what: &'static str,
    pub profile: &'static str,
}

const fn mutant(bug: &'static str, profile: &'static str, what: &'static str) -> Mutant {
    Mutant { bug, what, profile }
}

pub const MUTANTS: &[Mutant] = &[
    mutant(
        "no_ledger",
        "crashes",
        "no ledger: a batch that comes again is applied again",
    ),
    mutant(
        "no_window",
        "crashes",
        "the ledger forgets what it answered",
    ),
    mutant(
        "cursor_by_sequence",
        "pages",
        "the cursor is the highest number seen",
    ),
    mutant(
        "cursor_before_apply",
        "crashes",
        "the cursor moves before the rows are applied",
    ),
    mutant(
        "no_flush",
        "server crash",
        "the cursor does not wait for the server's disk",
    ),
    mutant(
        "guard_left_on",
        "plain",
        "the capture guard stays up after an apply",
    ),
    mutant(
        "ack_before_commit",
        "plain",
        "a push is acknowledged before its commit",
    ),
    mutant(
        "new_key",
        "crashes",
        "a batch is sent again under a new key",
    ),
    mutant(
        "overwrite_dirty",
        "plain",
        "pull overwrites a row with an unsent change",
    ),
    mutant(
        "token_after_pull",
        "one row",
        "a change's token is taken after the pull that skipped its row",
    ),
    mutant(
        "collected_early",
        "collected",
        "tombstones go before every device has read them",
    ),
    mutant(
        "bisection_drops",
        "refused",
        "a refused row takes others with it",
    ),
    mutant(
        "no_note",
        "one row",
        "a row that was skipped leaves no note",
    ),
    mutant(
        "round_not_seen",
        "pages",
        "a base forgets the round under way",
    ),
    mutant(
        "discard_without_note",
        "refused",
        "what was discarded is not fetched again",
    ),
    mutant(
        "no_pull_check",
        "copies",
        "only a push looks whether the file was copied",
    ),
    mutant(
        "no_history",
        "server restored",
        "a file that meets a restored server remembers nothing",
    ),
    mutant(
        "echo",
        "plain",
        "applied rows are captured like the app's own",
    ),
];

/// Schedules of one seed of the score.
pub const BUDGET: u64 = 120;

/// How many schedules it takes until the bug is noticed; `None` where it is not within the budget.
pub fn hunt(seed: u64, mutant: &Mutant) -> Option<(u64, String)> {
    let profile: &'static Profile = profile::named(mutant.profile);
    for n in 0..BUDGET {
        if let Some(fault) = run(seed * 1_000 + n, profile, mutant.bug).fault {
            return Some((n + 1, fault));
        }
    }
    None
}

/// The score of every planted bug over `seeds`.
pub fn score(seeds: std::ops::Range<u64>) -> Vec<(&'static Mutant, u64, u64)> {
    let jobs: Vec<(usize, u64)> = (0..MUTANTS.len())
        .flat_map(|m| seeds.clone().map(move |s| (m, s)))
        .collect();
    let next = AtomicUsize::new(0);
    let found = Mutex::new(vec![(0_u64, 0_u64); MUTANTS.len()]);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((m, seed)) = jobs.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let caught = hunt(*seed, &MUTANTS[*m]);
                    let mut found = found.lock().unwrap();
                    match &caught {
                        Some((n, _)) => {
                            found[*m].0 += 1;
                            found[*m].1 += n;
                        }
                        None => found[*m].1 += BUDGET,
                    }
                    if std::env::var("TIDEWATER_SIM_TRACE").is_ok() {
                        println!("{} {seed}: {caught:?}", MUTANTS[*m].bug);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    MUTANTS
        .iter()
        .zip(found)
        .map(|(m, (caught, tries))| (m, caught, tries))
        .collect()
}

#[test]
fn every_planted_bug_is_noticed() {
    let seeds = std::env::var("TIDEWATER_SIM_MUTANT_SEEDS")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or(1);
    let began = Instant::now();
    let score = score(0..seeds);
    let mut missed = Vec::new();
    for (m, caught, tries) in score {
        println!(
            "{caught:3} of {seeds} in {tries:4} schedules  {:20} {}",
            m.bug, m.what
        );
        if caught * 20 < seeds * 19 {
            missed.push(m.bug);
        }
    }
    println!("{} s", began.elapsed().as_secs());
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
