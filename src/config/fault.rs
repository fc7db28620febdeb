//! Errors of the configuration and the order in which they are told.

use super::source::Origin;
use crate::error::{Code, Error};

/// Something wrong with one configured value.
#[derive(Debug)]
pub(super) struct Fault {
    origin: Origin,
    error: Error,
}

impl Fault {
    /// A fault of the value at `origin`.
    pub fn at(origin: Origin, message: String, remedy: String) -> Fault {
        Fault {
            origin,
            error: refusal(message, remedy),
        }
    }
}

/// The first fault in reading order (file by line, variables, flags), saying how many follow it.
pub(super) fn first(mut faults: Vec<Fault>) -> Option<Error> {
    faults.sort_by(|a, b| a.origin.cmp(&b.origin));
    let more = faults.len().saturating_sub(1);
    let mut error = faults.into_iter().next()?.error;
    if more > 0 {
        error
            .message
            .push_str(&format!(" (and {more} more to correct)"));
    }
    Some(error)
}

/// An error with code SYNC-013.
pub(super) fn refusal(message: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::new(Code::Configuration, message, remedy)
}
