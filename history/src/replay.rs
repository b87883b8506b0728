//! Replay: fold a journal, and compare what comes out with what was kept.

use crate::machines::{Illegal, apply, apply_sized};
use crate::record::{CorruptEntry, Record, decode_each};
use crate::state::MutableState;

/// The state after these records.
pub fn fold<'a>(records: impl IntoIterator<Item = &'a Record>) -> Result<MutableState, Illegal> {
    let mut state = MutableState::default();
    fold_onto(&mut state, records)?;
    Ok(state)
}

/// Applies further records to a state.
pub fn fold_onto<'a>(
    state: &mut MutableState,
    records: impl IntoIterator<Item = &'a Record>,
) -> Result<(), Illegal> {
    records
        .into_iter()
        .try_for_each(|record| apply(state, record))
}

/// Applies a stored entry whose payloads are all within it, a record at a time: what is decoded is used at once and dropped.
pub fn fold_entry(state: &mut MutableState, entry: &[u8]) -> Result<(), Unfolded> {
    for record in decode_each(entry) {
        let (record, bytes) = record?;
        apply_sized(state, &record, bytes)?;
    }
    Ok(())
}

/// Why an entry does not fold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfolded {
    /// Its bytes are no records.
    #[error(transparent)]
    Corrupt(#[from] CorruptEntry),
    /// A record cannot follow.
    #[error(transparent)]
    Illegal(#[from] Illegal),
}

/// Where two states first differ, in words; `None` if they are equal.
pub fn difference(folded: &MutableState, kept: &MutableState) -> Option<String> {
    if folded == kept {
        return None;
    }
    let (folded, kept) = (format!("{folded:#?}"), format!("{kept:#?}"));
    let line = folded.lines().zip(kept.lines()).find(|(a, b)| a != b);
    Some(match line {
        Some((a, b)) => format!("folded has `{}`, kept has `{}`", a.trim(), b.trim()),
        None => "one of them holds more than the other".to_owned(),
    })
}
