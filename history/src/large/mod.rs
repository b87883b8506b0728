//! Large payloads: on their way into the store they leave their record for a key of their own, named by digest; on their way out they
//! come back. Everything above the store sees whole records.
//!
//! ```text
//!  record with a payload over the bound --take_out--> record with references + (digest, payload)*     before a commit
//!  entry with references --put_back--> records                                                        after a read
//! ```
//!
//! A reference stands in a payload's place, with the encoding [`REFERENCE_ENCODING`] and the digest as its data. Which digests are references
//! an entry says itself (`JournalEntry.references`), so a caller's payload that looks like one is never taken for one.
//!
//! Invariant: put back, a record equals what was taken out of it; the same payload of a run is stored once.

mod visit;

use std::collections::HashMap;

use bytes::Bytes;
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::Payload;
use sha2::{Digest as _, Sha256};

use crate::record::Record;

/// Payloads with more bytes of data than this stand under a key of their own.
pub const INLINE_BYTES_MAX: usize = 256 * 1024;

/// The `encoding` of a payload that stands for another. Persisted.
pub const REFERENCE_ENCODING: &[u8] = b"orchestrion/reference";

/// SHA-256 of a payload's encoded bytes.
pub type Digest = [u8; 32];

/// What was taken out of records: each payload once, by digest.
pub type TakenOut = Vec<(Digest, Bytes)>;

/// A reference whose payload is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payload {digest} that a record refers to is missing or damaged")]
pub struct Missing {
    /// Its digest, hex.
    pub digest: String,
}

/// The records with references in place of large payloads, and the payloads. `None`: nothing is large.
pub fn take_out(records: &[Record]) -> Option<(Vec<Record>, TakenOut)> {
    if !records
        .iter()
        .any(|record| record.encoded_len() > INLINE_BYTES_MAX)
    {
        return None;
    }
    let mut taken = TakenOut::new();
    let mut records = records.to_vec();
    for record in &mut records {
        if record.encoded_len() <= INLINE_BYTES_MAX {
            continue;
        }
        visit::payloads_of(record, &mut |payload| {
            if payload.data.len() <= INLINE_BYTES_MAX {
                return;
            }
            let bytes = canonical(payload);
            let digest: Digest = Sha256::digest(&bytes).into();
            if !taken.iter().any(|(known, _)| *known == digest) {
                taken.push((digest, bytes));
            }
            *payload = reference(&digest);
        });
    }
    (!taken.is_empty()).then_some((records, taken))
}

/// Puts the payloads of these references back into the records.
pub fn put_back<E: From<Missing>>(
    records: &mut [Record],
    references: &[Digest],
    mut fetch: impl FnMut(&Digest) -> Result<Option<Bytes>, E>,
) -> Result<(), E> {
    let mut whole = HashMap::with_capacity(references.len());
    for digest in references {
        let missing = || Missing {
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let bytes = fetch(digest)?.ok_or_else(missing)?;
        let intact = Digest::from(Sha256::digest(&bytes)) == *digest;
        let payload = Payload::decode(bytes)
            .ok()
            .filter(|_| intact)
            .ok_or_else(missing)?;
        whole.insert(*digest, payload);
    }
    for record in records {
        visit::payloads_of(record, &mut |payload| {
            let refers = payload.metadata.len() == 1
                && payload
                    .metadata
                    .get("encoding")
                    .is_some_and(|e| e == REFERENCE_ENCODING);
            if refers
                && let Ok(digest) = Digest::try_from(&payload.data[..])
                && let Some(original) = whole.get(&digest)
            {
                payload.clone_from(original);
            }
        });
    }
    Ok(())
}

fn reference(digest: &Digest) -> Payload {
    Payload {
        metadata: HashMap::from([("encoding".to_owned(), REFERENCE_ENCODING.to_vec())]),
        data: digest.to_vec(),
        ..Default::default()
    }
}

/// The payload's bytes with its metadata in order: protobuf maps have none, and equal payloads shall have one digest.
fn canonical(payload: &Payload) -> Bytes {
    let mut names: Vec<&String> = payload.metadata.keys().collect();
    names.sort_unstable();
    let mut bytes = Vec::with_capacity(payload.encoded_len());
    for name in names {
        let one = Payload {
            metadata: HashMap::from([(name.clone(), payload.metadata[name].clone())]),
            ..Default::default()
        };
        one.encode(&mut bytes).expect("a vector grows as needed");
    }
    let rest = Payload {
        metadata: HashMap::new(),
        ..payload.clone()
    };
    rest.encode(&mut bytes).expect("a vector grows as needed");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrion_proto::temporal::api::common::v1::Payloads;
    use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
    use orchestrion_proto::temporal::api::history::v1::{
        ActivityTaskCompletedEventAttributes, HistoryEvent,
    };
    use orchestrion_proto::v1::{EventBuffered, Note, note};

    fn payload(bytes: usize, fill: u8) -> Payload {
        Payload {
            metadata: HashMap::from([
                ("encoding".to_owned(), b"json/plain".to_vec()),
                ("a".to_owned(), b"b".to_vec()),
            ]),
            data: vec![fill; bytes],
            ..Default::default()
        }
    }

    fn completed(payloads: Vec<Payload>) -> HistoryEvent {
        HistoryEvent {
            event_id: 7,
            attributes: Some(Attributes::ActivityTaskCompletedEventAttributes(
                ActivityTaskCompletedEventAttributes {
                    result: Some(Payloads { payloads }),
                    ..Default::default()
                },
            )),
            ..Default::default()
        }
    }

    fn records(payloads: Vec<Payload>) -> Vec<Record> {
        vec![
            Record::Note(Box::new(Note {
                at: 1,
                kind: Some(note::Kind::EventBuffered(EventBuffered {
                    event: Some(completed(payloads.clone())),
                })),
            })),
            Record::Event(Box::new(completed(payloads))),
        ]
    }

    #[test]
    fn what_is_taken_out_comes_back_and_is_kept_once() {
        let whole = records(vec![
            payload(INLINE_BYTES_MAX + 1, b'x'),
            payload(INLINE_BYTES_MAX, b'y'),
        ]);
        let (mut small, taken) = take_out(&whole).unwrap();
        assert_eq!(
            taken.len(),
            1,
            "the note and the event carry the same payload"
        );
        assert!(small[1].encoded_len() < INLINE_BYTES_MAX + 1_000);
        let kept: HashMap<Digest, Bytes> = taken.into_iter().collect();
        let references: Vec<Digest> = kept.keys().copied().collect();
        put_back(&mut small, &references, |d| {
            Ok::<_, Missing>(kept.get(d).cloned())
        })
        .unwrap();
        assert_eq!(small, whole);
    }

    #[test]
    fn small_records_are_left_alone() {
        assert!(take_out(&records(vec![payload(1_000, b'x')])).is_none());
    }

    #[test]
    fn a_payload_that_looks_like_a_reference_is_not_one() {
        let large = payload(INLINE_BYTES_MAX + 1, b'x');
        let digest: Digest = Sha256::digest(canonical(&large)).into();
        let mut forged = records(vec![reference(&digest)]);
        assert!(take_out(&forged).is_none());
        put_back(&mut forged, &[], |_| -> Result<_, Missing> {
            unreachable!("nothing is referred to")
        })
        .unwrap();
        assert_eq!(forged, records(vec![reference(&digest)]));
    }

    #[test]
    fn a_missing_or_damaged_payload_is_an_error() {
        let (mut small, taken) =
            take_out(&records(vec![payload(INLINE_BYTES_MAX + 1, b'x')])).unwrap();
        let (digest, bytes) = &taken[0];
        let gone = put_back(&mut small, &[*digest], |_| Ok::<_, Missing>(None));
        assert!(
            gone.unwrap_err()
                .to_string()
                .contains("is missing or damaged")
        );
        let mut other = bytes.to_vec();
        *other.last_mut().unwrap() ^= 1;
        assert!(
            put_back(&mut small, &[*digest], |_| Ok::<_, Missing>(Some(
                other.clone().into()
            )))
            .is_err()
        );
    }
}
