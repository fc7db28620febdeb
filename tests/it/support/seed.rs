//! The seed of everything random in the tests: `TIDEWATER_SEED`, or a new one that a failure prints.

use std::sync::OnceLock;

/// One for the whole test process.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let seed = *SEED.get_or_init(|| match std::env::var("TIDEWATER_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|e| panic!("TIDEWATER_SEED={text}: {e}")),
        Err(_) => fastrand::u64(..),
    });
    println!("to repeat this run: TIDEWATER_SEED={seed}");
    seed
}

/// A generator that starts from [`seed`], the same in every test that asks.
pub fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(seed())
}
