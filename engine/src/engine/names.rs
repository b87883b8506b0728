//! Names that many hold at once: each is kept once, and shared.

use std::hash::Hash;

use foldhash::HashSet;

/// With so many different ones there is little to share, and they are begun anew.
const NAMES_MAX: usize = 1_024;

#[derive(Debug)]
pub(super) struct Names<T>(HashSet<T>);

impl<T> Default for Names<T> {
    fn default() -> Self {
        Self(HashSet::default())
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    /// The one that others hold too.
    pub(super) fn shared(&mut self, name: &T) -> T {
        if let Some(kept) = self.0.get(name) {
            return kept.clone();
        }
        if self.0.len() >= NAMES_MAX {
            self.0.clear();
        }
        self.0.insert(name.clone());
        name.clone()
    }
}
