//! Who runs the service, told of what it does.
//!
//! The service knows neither systemd nor the program that embeds it. It tells an observer, which must
//! return at once and cannot fail.

/// Told of the service's life, from its own task.
pub trait Observer: Send + Sync {
    /// The device is held and its file is open: requests are answered from now on. Told once.
    fn ready(&self) {}

    /// The service is not stuck. Told about once a second, also while the network is waited for, which
    /// has deadlines of its own; not told while the thread blocks.
    fn alive(&self) {}

    /// How things stand, in a few words for people; told when it changed.
    fn state(&self, _text: &str) {}
}
