//! What the process does with memory that it does not need any more. The allocator is the program's choice, so the program says how.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how the calling thread gives free memory back to the system. Only the first call counts.
pub fn given_back_by(how: fn()) {
    GIVE_BACK.get_or_init(|| how);
}

/// Gives free memory back, if somebody said how. For when there is nothing else to do.
pub(crate) fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}
