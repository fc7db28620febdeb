//! `devices`.

use super::Time;
use serde::{Deserialize, Serialize};

/// `devices`: the devices of the workspace, in the order in which they joined; after `retire` and
/// `revoke` the one concerned.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DevicesReport {
    /// The devices.
    pub devices: Vec<Member>,
}

/// A device of the workspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is the device that asks.
    pub this: bool,
    /// The version of its program.
    pub version: String,
    /// `active`, `expired`, `retired` or `revoked`.
    pub state: String,
    /// The role that it logs in with, where it told.
    pub login: Option<String>,
    /// When it joined.
    pub joined_at: Time,
    /// When it was heard of last.
    pub last_seen: Time,
    /// Changes of others that it had not read when it last told how far it is; null where it never told.
    pub behind_rows: Option<u64>,
    /// How long ago it told so; 0 where nothing is unread.
    pub behind_seconds: Option<f64>,
}

/// `provision`: a workspace's roles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionReport {
    /// The workspace.
    pub schema: String,
    /// Its owner, which nobody logs in with.
    pub owner: String,
    /// The logins that were asked for.
    pub devices: Vec<Provisioned>,
}

/// A device's login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// The device.
    pub name: String,
    /// The role.
    pub login: String,
    /// Whether it is new; one that was there keeps its password.
    pub created: bool,
    /// The address for the device. Holds the password where the login is new, and is told only here.
    pub url: String,
}

impl std::fmt::Debug for Provisioned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provisioned")
            .field("login", &self.login)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
}
