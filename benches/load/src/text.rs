//! Payloads: a hundred lower-case letters, another sequence for every workflow.

/// Letters of a payload.
const LETTERS: usize = 100;

/// A sequence of its own for every client.
pub struct Letters(u64);

impl Letters {
    pub fn of(client: usize) -> Self {
        Self((client as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn text(&mut self) -> String {
        (0..LETTERS)
            .map(|_| {
                self.0 ^= self.0 << 13;
                self.0 ^= self.0 >> 7;
                self.0 ^= self.0 << 17;
                char::from(b'a' + (self.0 % 26) as u8)
            })
            .collect()
    }
}
