//! What kinds of schedules there are: how many devices and keys, which faults, how often.

use tidewater::model::Policy;

/// Steps of a schedule with their weights; a step of weight 0 never happens.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    pub steps: usize,
    pub devices: (usize, usize),
    /// Keys of the first table and of the second.
    pub keys: (usize, usize),
    pub policy: Policy,
    /// Restores, copies and collections: there a new identity, or an edit that two copies of a file
    /// carry, is no fault.
    pub loose: bool,
    /// Of 100 contents, how many the server refuses, and how many several writers may write alike.
    pub bad: u32,
    pub shared: u32,
    /// Of 100 messages, how many meet a fault; of 100 polls, how many die within.
    pub faults: u32,
    pub crashes: u32,
    pub page: usize,
    pub batch: usize,
    pub write: u32,
    pub sync: u32,
    pub poll: u32,
    pub server_write: u32,
    pub clock: u32,
    pub park: u32,
    pub backup: u32,
    pub copy: u32,
    pub server_backup: u32,
    pub server_crash: u32,
    pub day: u32,
}

const PLAIN: Profile = Profile {
    name: "plain",
    steps: 120,
    devices: (2, 3),
    keys: (3, 2),
    policy: Policy::LastWriteWins,
    loose: false,
    bad: 0,
    shared: 8,
    faults: 8,
    crashes: 4,
    page: 500,
    batch: 50,
    write: 10,
    sync: 8,
    poll: 40,
    server_write: 5,
    clock: 1,
    park: 0,
    backup: 0,
    copy: 0,
    server_backup: 0,
    server_crash: 0,
    day: 0,
};

pub const PROFILES: &[Profile] = &[
    PLAIN,
    Profile {
        name: "one row",
        keys: (1, 0),
        shared: 0,
        faults: 18,
        server_write: 10,
        ..PLAIN
    },
    Profile {
        name: "pages",
        keys: (5, 4),
        page: 2,
        batch: 3,
        write: 14,
        server_write: 10,
        ..PLAIN
    },
    Profile {
        name: "refused",
        bad: 12,
        park: 3,
        batch: 4,
        ..PLAIN
    },
    Profile {
        name: "crashes",
        crashes: 15,
        faults: 15,
        page: 2,
        batch: 2,
        ..PLAIN
    },
    Profile {
        name: "server crash",
        write: 3,
        sync: 12,
        faults: 2,
        crashes: 1,
        server_write: 20,
        server_crash: 5,
        ..PLAIN
    },
    Profile {
        name: "local wins",
        policy: Policy::LocalWins,
        bad: 6,
        park: 2,
        ..PLAIN
    },
    Profile {
        name: "remote wins",
        policy: Policy::RemoteWins,
        bad: 6,
        park: 2,
        ..PLAIN
    },
    Profile {
        name: "copies",
        loose: true,
        backup: 2,
        copy: 2,
        steps: 160,
        ..PLAIN
    },
    Profile {
        name: "server restored",
        loose: true,
        server_backup: 2,
        steps: 160,
        ..PLAIN
    },
    Profile {
        name: "collected",
        loose: true,
        day: 6,
        steps: 200,
        ..PLAIN
    },
    Profile {
        name: "everything",
        loose: true,
        devices: (2, 4),
        bad: 6,
        park: 2,
        page: 3,
        batch: 4,
        crashes: 6,
        backup: 1,
        copy: 1,
        server_crash: 1,
        steps: 200,
        ..PLAIN
    },
];

/// The profile of a seed: they take turns.
pub fn of(seed: u64) -> &'static Profile {
    &PROFILES[usize::try_from(seed % PROFILES.len() as u64).unwrap_or(0)]
}

pub fn named(name: &str) -> &'static Profile {
    PROFILES
        .iter()
        .find(|p| p.name == name)
        .unwrap_or(&PROFILES[0])
}
