//! The change key: the idempotency key of one uploaded change.

use std::fmt;

/// What a change does to its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The row is there with this content.
    Upsert,
    /// The row is gone.
    Delete,
}

impl Op {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Op::Upsert => "upsert",
            Op::Delete => "delete",
        }
    }
}

/// A ULID in its text form: ten characters of time, sixteen of identity.
///
/// The time part may be cut on the server (a time in the future becomes the server's now) or raised
/// to that of the row it replaces; the last sixteen characters, the *tail*, are the identity of the
/// change and never alter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeKey(String);

impl ChangeKey {
    /// From the time of the edit (milliseconds since 1970; below zero counts as zero) and 80 random bits.
    pub fn new(millis: i64, random: u128) -> Self {
        let millis = u64::try_from(millis).unwrap_or(0).min((1 << 48) - 1);
        ChangeKey(ulid::Ulid::from_parts(millis, random & ((1 << 80) - 1)).to_string())
    }

    /// From its text; `None` where the text is not a ULID.
    pub fn parse(text: &str) -> Option<Self> {
        ulid::Ulid::from_string(text)
            .ok()
            .map(|u| ChangeKey(u.to_string()))
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The ten characters of time.
    pub fn time10(&self) -> &str {
        &self.0[..10]
    }

    /// The sixteen characters of identity.
    pub fn tail(&self) -> &str {
        &self.0[10..]
    }

    /// Whether it writes down how a row stands without knowing its history: a comparison found it. Such a
    /// change has no time, and the first 16 of its 80 bits are zero, so that it never beats another.
    pub fn is_repair(&self) -> bool {
        self.millis() == 0 && self.tail().starts_with("000")
    }

    /// The time part in milliseconds since 1970.
    pub fn millis(&self) -> i64 {
        ulid::Ulid::from_string(&self.0).map_or(0, |u| u.timestamp_ms() as i64)
    }
}

impl fmt::Display for ChangeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
