//! How long to wait before the next attempt to connect.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(5);

/// Waits that double, with some chance in them, so that a thousand workers do not come back at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    pub(crate) fn next(&mut self) -> Duration {
        let whole = FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(LONGEST);
        self.failures += 1;
        // A hasher's keys are random: the only chance the standard library offers.
        let chance = RandomState::new().hash_one(self.failures) % 512;
        whole.mul_f64(0.75 + chance as f64 / 1_024.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_begin_anew() {
        let mut backoff = Backoff::default();
        assert!(backoff.next() < FIRST * 2);
        for _ in 0..40 {
            assert!(backoff.next() < LONGEST * 2);
        }
        assert!(backoff.next() > LONGEST / 2);
        backoff.reset();
        assert!(backoff.next() < FIRST * 2);
    }
}
