//! Snapshots of MutableState: a shortcut for folds, never the truth.
//!
//! ```text
//!  version: u8 | wincode(MutableState)
//! ```
//!
//! Persisted. A version byte of another layout, or bytes that do not decode, mean: fold the journal instead.

use bytes::Bytes;

use crate::state::MutableState;

/// Raised with every change of the layout of [`MutableState`].
const VERSION: u8 = 5;

/// The bytes of a snapshot.
pub fn encode(state: &MutableState) -> Option<Bytes> {
    let body = wincode::serialize(state).ok()?;
    let mut out = Vec::with_capacity(body.len() + 1);
    out.push(VERSION);
    out.extend_from_slice(&body);
    Some(out.into())
}

/// The state, or `None` if these bytes are of another version or damaged.
pub fn decode(bytes: &[u8]) -> Option<MutableState> {
    let (version, body) = bytes.split_first()?;
    if *version != VERSION {
        return None;
    }
    wincode::deserialize(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_survives_its_bytes_and_a_foreign_one_is_none() {
        let state = MutableState {
            workflow_id: "w".into(),
            next_event_id: 7,
            ..Default::default()
        };
        let bytes = encode(&state).unwrap();
        assert_eq!(decode(&bytes), Some(state));
        assert_eq!(decode(&bytes[..bytes.len() / 2]), None);
        assert_eq!(decode(b"\xff"), None);
        assert_eq!(decode(b""), None);
    }
}
