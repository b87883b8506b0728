//! Everything that is chance in a simulated world comes from here, and from one seed.

use orchestrion::seams::{Chance, SeededChance};

/// Draws numbers from a seed.
#[derive(Debug)]
pub struct Dice(SeededChance);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(SeededChance::new(seed))
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides.max(1)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub fn per_mille(&mut self, share: u64) -> bool {
        self.roll(1_000) < share
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.roll(among.len() as u64) as usize]
    }

    /// A seed for dice of somebody else.
    pub fn seed(&mut self) -> u64 {
        self.roll(u64::MAX)
    }
}
