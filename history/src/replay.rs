//! Replay: fold a journal, and compare what comes out with what was kept.

use crate::machines::{Illegal, apply};
use crate::record::Record;
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
