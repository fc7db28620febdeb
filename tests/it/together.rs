//! Several devices that push the same rows at the same time.

use crate::support::cli::Device;
use crate::support::seed;
use crate::support::server::{self, Schema};
use std::sync::Barrier;
use std::thread;
use tidewater::throwaway::Options;

const KEYS: u32 = 25;
const ROUNDS: u32 = 8;

/// Three devices that edit the same rows and sync at one moment, round after round.
fn rounds(schema: &Schema, ddl: &str, edit: impl Fn(&mut fastrand::Rng) -> String) {
    let devices: Vec<Device> = ["a", "b", "c"]
        .map(|name| {
            let device = Device::new(schema, name);
            device.sql(ddl);
            device.tw(&["init"]).ok();
            device
        })
        .into();
    let mut rng = seed::rng();
    for _ in 0..ROUNDS {
        for device in &devices {
            // A pull in between, so that changes with different bases lie side by side in one batch.
            for part in 0..2 {
                let edits: Vec<String> = (0..KEYS).map(|_| edit(&mut rng)).collect();
                device.sql(&edits.join(";"));
                if part == 0 {
                    sync(device, &["now", "--pull"]);
                }
            }
        }
        let barrier = Barrier::new(devices.len());
        thread::scope(|s| {
            for device in &devices {
                let barrier = &barrier;
                s.spawn(move || {
                    barrier.wait();
                    sync(device, &["now"]);
                });
            }
        });
    }
}

/// 1: a value that another row holds was refused, which is no error of the sync.
fn sync(device: &Device, args: &[&str]) {
    let done = device.tw(args);
    assert!([0, 1].contains(&done.code), "{done:?}");
}

#[test]
pub fn devices_that_push_the_same_rows_at_once_do_not_deadlock() {
    let server = server::start(Options::default());
    let schema = Schema::on(&server.url());
    rounds(
        &schema,
        "create table t (id text primary key, v integer)",
        |rng| {
            format!(
                "insert into t values ('k{:02}', {v}) on conflict (id) do update set v = {v}",
                rng.u32(..KEYS),
                v = rng.u32(..)
            )
        },
    );
    let deadlocks =
        schema.one("select deadlocks from pg_stat_database where datname = current_database()");
    assert_eq!(deadlocks, "0");
}

#[test]
fn unique_values_and_deletes_that_cross_do_not_stop_a_queue() {
    let schema = Schema::new();
    rounds(
        &schema,
        "create table t (id text primary key, u text unique)",
        |rng| {
            let (key, value) = (rng.u32(..KEYS), rng.u32(..KEYS));
            if rng.bool() {
                format!("insert or replace into t values ('k{key:02}', 'u{value:02}')")
            } else {
                format!("delete from t where id = 'k{key:02}'")
            }
        },
    );
}
