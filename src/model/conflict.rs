//! Who wins when two writers changed one row without having seen each other.
//!
//! The only place in the crate where a winner is chosen. It is asked inside the push transaction,
//! under the row's lock (PROTOCOL section 5); pull never decides.

use super::change::{ChangeKey, Op};

/// How a concurrent change is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// The greater stamp wins.
    #[default]
    LastWriteWins,
    /// The change that is being pushed wins.
    LocalWins,
    /// The version on the server wins.
    RemoteWins,
}

impl Policy {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::LastWriteWins => "last_write_wins",
            Policy::LocalWins => "local_wins",
            Policy::RemoteWins => "remote_wins",
        }
    }

    /// From the word of the configuration.
    pub fn parse(text: &str) -> Option<Policy> {
        [Policy::LastWriteWins, Policy::LocalWins, Policy::RemoteWins]
            .into_iter()
            .find(|p| p.as_str() == text)
    }
}

/// What last-write-wins compares: time, then identity, then device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// The ten characters of time, already cut to the server's now.
    pub time10: String,
    /// The sixteen characters of identity.
    pub tail: String,
    /// The device that wrote it.
    pub device: String,
}

impl Stamp {
    /// The stamp of a change key written by a device, its time cut to `now10`.
    pub fn new(change: &ChangeKey, device: &str, now10: &str) -> Self {
        Stamp {
            time10: change.time10().min(now10).to_owned(),
            tail: change.tail().to_owned(),
            device: device.to_owned(),
        }
    }
}

/// A side of a conflict, seen from one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// This device.
    Local,
    /// The other.
    Remote,
}

/// Decides between a pushed change and the concurrent version on the server.
pub fn decide(policy: Policy, pushed: &Stamp, server: &Stamp) -> Side {
    let pushed_wins = match policy {
        Policy::LastWriteWins => pushed > server,
        Policy::LocalWins => true,
        Policy::RemoteWins => false,
    };
    if pushed_wins {
        Side::Local
    } else {
        Side::Remote
    }
}

/// What met what in a conflict, as `<local>_<remote>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Both created the row.
    InsertInsert,
    /// Both changed the row.
    UpdateUpdate,
    /// Changed here, deleted there.
    UpdateDelete,
    /// Deleted here, changed there.
    DeleteUpdate,
    /// Two rows got one key, from databases that hand keys out.
    KeyCollision,
    /// Two rows claim one unique value.
    UniqueCollision,
}

impl Kind {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::InsertInsert => "insert_insert",
            Kind::UpdateUpdate => "update_update",
            Kind::UpdateDelete => "update_delete",
            Kind::DeleteUpdate => "delete_update",
            Kind::KeyCollision => "key_collision",
            Kind::UniqueCollision => "unique_collision",
        }
    }
}

/// The kind of a conflict from both operations. `known` says whether the local change edits a row
/// that the device already knew; only an unknown one is an insert.
pub fn kind_of(local: Op, known: bool, remote: Op) -> Kind {
    match (local, remote) {
        (Op::Delete, _) => Kind::DeleteUpdate,
        (Op::Upsert, Op::Delete) => Kind::UpdateDelete,
        (Op::Upsert, Op::Upsert) if known => Kind::UpdateUpdate,
        (Op::Upsert, Op::Upsert) => Kind::InsertInsert,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(time: &str, tail: &str, device: &str) -> Stamp {
        Stamp {
            time10: time.into(),
            tail: tail.into(),
            device: device.into(),
        }
    }

    #[test]
    fn last_write_wins_by_time_then_identity_then_device() {
        let cases = [
            (stamp("2", "A", "X"), stamp("1", "B", "Y"), Side::Local),
            (stamp("1", "B", "Y"), stamp("2", "A", "X"), Side::Remote),
            (stamp("1", "B", "X"), stamp("1", "A", "Y"), Side::Local),
            (stamp("1", "A", "Y"), stamp("1", "A", "X"), Side::Local),
            // Equal in everything is not newer: the version on the server stays.
            (stamp("1", "A", "X"), stamp("1", "A", "X"), Side::Remote),
        ];
        for (mine, theirs, expected) in cases {
            assert_eq!(
                decide(Policy::LastWriteWins, &mine, &theirs),
                expected,
                "{mine:?} against {theirs:?}"
            );
        }
    }

    #[test]
    fn the_other_policies_ignore_the_clock() {
        let (old, new) = (stamp("1", "A", "X"), stamp("2", "B", "Y"));
        assert_eq!(decide(Policy::LocalWins, &old, &new), Side::Local);
        assert_eq!(decide(Policy::RemoteWins, &new, &old), Side::Remote);
    }

    #[test]
    fn a_time_in_the_future_is_cut_to_the_servers_now() {
        let change = ChangeKey::new(i64::MAX, 7);
        let now = ChangeKey::new(1_000, 0);
        let s = Stamp::new(&change, "X", now.time10());
        assert_eq!(
            (s.time10.as_str(), s.tail.as_str()),
            (now.time10(), change.tail())
        );
    }
}
