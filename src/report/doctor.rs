//! `doctor`.

use serde::{Deserialize, Serialize};

/// Everything that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoctorReport {
    /// Whether no check found a fault. Advice, and what could not be checked, is no fault.
    pub ok: bool,
    /// The checks in their order; a name comes again where there is more than one thing to say.
    pub checks: Vec<Check>,
}

/// One check. `ok` with a remedy is advice: nothing is wrong yet, and something could be better.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether no fault was found.
    pub ok: bool,
    /// What was found; begins with `not checked` where it could not be looked at.
    pub message: String,
    /// What to do; null where there is nothing to do.
    pub remedy: Option<String>,
}

impl Check {
    /// Nothing to do.
    pub fn fine(name: &str, message: impl Into<String>) -> Check {
        Check::new(name, true, message, None)
    }

    /// Nothing is wrong yet, and this would be better.
    pub fn advice(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check::new(name, true, message, Some(remedy.into()))
    }

    /// Something is wrong.
    pub fn fault(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Check {
        Check::new(name, false, message, Some(remedy.into()))
    }

    /// It could not be looked at.
    pub fn unchecked(name: &str, why: &str) -> Check {
        Check::new(name, true, format!("not checked: {why}"), None)
    }

    /// Whether it could be looked at.
    pub fn was_checked(&self) -> bool {
        !self.message.starts_with("not checked")
    }

    fn new(name: &str, ok: bool, message: impl Into<String>, remedy: Option<String>) -> Check {
        Check {
            name: name.to_owned(),
            ok,
            message: message.into(),
            remedy,
        }
    }
}

impl From<Vec<Check>> for DoctorReport {
    fn from(checks: Vec<Check>) -> Self {
        DoctorReport {
            ok: checks.iter().all(|c| c.ok),
            checks,
        }
    }
}
