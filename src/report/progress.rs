//! How long work tells how far it is. Whoever works reports; whether anything is shown is the
//! caller's affair.

/// Told of the stages of a long command, one stage at a time.
pub trait Progress: Send + Sync {
    /// A stage begins; `total` where it is known.
    fn begin(&self, what: &str, total: Option<u64>);
    /// So much more of it is done.
    fn advance(&self, by: u64);
    /// The stage is over.
    fn end(&self);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _what: &str, _total: Option<u64>) {}
    fn advance(&self, _by: u64) {}
    fn end(&self) {}
}
