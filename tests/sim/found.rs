//! What the schedules found, as schedules of their own, step by step.

use super::profile::{self, Profile};
use super::remote::{Fate, Gate, lock};
use super::schedule::{HOUR, Sim};
use super::sweep::in_a_folder;
use super::writer::put_item;
use tidewater::sync::parts::Request;

static TWO: Profile = Profile {
    devices: (2, 2),
    keys: (1, 0),
    loose: true,
    ..profile::PROFILES[0]
};

/// Syncs until `enough` says so, or to the end.
fn sync(sim: &mut Sim, n: usize, enough: impl Fn(&Sim, Option<Gate>) -> bool) {
    if !sim.nodes[n].is_running() {
        let all = Request {
            push: true,
            pull: true,
            force: false,
        };
        let server = std::sync::Arc::clone(&sim.server);
        sim.nodes[n].start(&server, all, false).expect("it opens");
    }
    while sim.nodes[n].is_running() {
        let at = lock(&sim.nodes[n].line).at;
        if enough(sim, at) {
            return;
        }
        sim.poll(n, at.map(|_| Fate::Pass)).expect("no fault");
    }
}

fn to_the_end(sim: &mut Sim, n: usize) {
    sync(sim, n, |_, _| false);
}

/// A row that another device brought back between the listing of a restored server and the look at what
/// only this file has was compared by nobody, and an acknowledged write under its key was overwritten.
#[test]
fn a_row_that_appears_during_a_comparison_is_compared() {
    in_a_folder(|folder, config| {
        let mut sim = Sim::new(1, &TWO, "", config, folder);
        to_the_end(&mut sim, 0);
        to_the_end(&mut sim, 1);
        let before = lock(&sim.server).data.clone();
        put_item(&mut sim, 0, 1, "mine");
        to_the_end(&mut sim, 0);
        lock(&sim.server).restore(before);
        lock(&sim.server).log.clear();
        sync(&mut sim, 0, |sim, at| {
            let listed = sim
                .trace
                .iter()
                .any(|l| l.contains("list of") && l.contains("items"));
            listed && at == Some(Gate::Request)
        });
        assert!(sim.nodes[0].is_running(), "the listing was met");
        put_item(&mut sim, 1, 1, "theirs");
        to_the_end(&mut sim, 1);
        sim.settle().expect("it comes to rest");
        sim.judge().expect("nothing is lost");
        assert_eq!(lock(&sim.server).ever_conflicts.len(), 1);
    });
}

/// Which version of a row a file had last was told by the device's clock: set back in between, it named
/// the older one, and the newer content was sent again under the older change's key.
#[test]
fn the_newest_version_is_known_whatever_the_clock_says() {
    in_a_folder(|folder, config| {
        let mut sim = Sim::new(2, &TWO, "", config, folder);
        to_the_end(&mut sim, 0);
        let before = lock(&sim.server).data.clone();
        put_item(&mut sim, 0, 1, "older");
        to_the_end(&mut sim, 0);
        sim.nodes[0].skew = -HOUR;
        put_item(&mut sim, 0, 1, "newer");
        to_the_end(&mut sim, 0);
        lock(&sim.server).restore(before);
        to_the_end(&mut sim, 0);
        let tails: Vec<String> = {
            let server = lock(&sim.server);
            let rows = server.data.rows.values();
            rows.map(|v| v.tail().to_owned()).collect()
        };
        assert_eq!(tails.len(), 1);
        let there = sim.ghost.of_tail(&tails[0]).expect("a version");
        assert_eq!(sim.ghost.versions[there].mark.as_deref(), Some("newer"));
        sim.settle().expect("it comes to rest");
        sim.judge().expect("nothing is lost");
    });
}
