//! Journal records: history events and notes, and the bytes they are kept as.
//!
//! ```text
//!  entry = one commit's records of one run: (0x1A 32 digest)* (0x0A len HistoryEvent | 0x12 len Note)*
//! ```
//!
//! An entry is a valid `orchestrion.v1.JournalEntry`, and its event fields alone are a valid fragment of
//! `temporal.api.history.v1.History`, so history is served by copying bytes.
//!
//! Invariant: decoding keeps the order in which events and notes were written; a fold depends on it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use orchestrion_proto::prost::Message;
use orchestrion_proto::prost::encoding::{decode_varint, encode_varint, encoded_len_varint};
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::v1::{Note, note};

use crate::large::Digest;
use crate::wire;

const EVENT_FIELD: u8 = 0x0a;
const NOTE_FIELD: u8 = 0x12;
const REFERENCE_FIELD: u8 = 0x1a;

/// One record of a run's journal.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// A history event, as the wires show it.
    Event(Box<HistoryEvent>),
    /// What history does not hold.
    Note(Box<Note>),
}

/// Bytes that are not a journal entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("journal entry does not decode at byte {at}: {reason}")]
pub struct CorruptEntry {
    /// The offset of the record that does not decode.
    pub at: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Record {
    /// The event, if it is one.
    pub fn event(&self) -> Option<&HistoryEvent> {
        match self {
            Self::Event(event) => Some(event),
            Self::Note(_) => None,
        }
    }

    /// When it was drafted, nanoseconds since the Unix epoch.
    pub fn at(&self) -> i64 {
        match self {
            Self::Event(event) => event
                .event_time
                .as_ref()
                .map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos)),
            Self::Note(note) => note.at,
        }
    }

    /// The bytes of its message.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Event(event) => event.encoded_len(),
            Self::Note(note) => note.encoded_len(),
        }
    }

    /// Its name, as stories and logs print it.
    pub fn type_name(&self) -> String {
        match self {
            Self::Event(event) => wire::camel_case(
                event
                    .event_type()
                    .as_str_name()
                    .strip_prefix("EVENT_TYPE_")
                    .unwrap_or("UNSPECIFIED"),
            ),
            Self::Note(note) => match &note.kind {
                None => "Note",
                Some(note::Kind::ActivityAttemptStarted(_)) => "ActivityAttemptStarted",
                Some(note::Kind::ActivityAttemptFailed(_)) => "ActivityAttemptFailed",
                Some(note::Kind::ActivityAttemptReturned(_)) => "ActivityAttemptReturned",
                Some(note::Kind::ActivityHeartbeat(_)) => "ActivityHeartbeat",
                Some(note::Kind::ActivityProgress(_)) => "ActivityProgress",
                Some(note::Kind::ActivityWaiting(_)) => "ActivityWaiting",
                Some(note::Kind::ActivityPaused(_)) => "ActivityPaused",
                Some(note::Kind::ActivityUnpaused(_)) => "ActivityUnpaused",
                Some(note::Kind::ActivityReset(_)) => "ActivityReset",
                Some(note::Kind::ActivityOptionsUpdated(_)) => "ActivityOptionsUpdated",
                Some(note::Kind::UpdateRejected(_)) => "UpdateRejected",
                Some(note::Kind::EventBuffered(_)) => "EventBuffered",
                Some(note::Kind::WorkflowTaskAttemptFailed(_)) => "WorkflowTaskAttemptFailed",
                Some(note::Kind::WorkflowTaskRetried(_)) => "WorkflowTaskRetried",
                Some(note::Kind::RunCreated(_)) => "RunCreated",
                Some(note::Kind::CloseFollowed(_)) => "CloseFollowed",
                Some(note::Kind::RunReset(_)) => "RunReset",
            }
            .to_owned(),
        }
    }
}

/// The bytes of one entry whose records are whole.
pub fn encode_entry(records: &[Record]) -> Bytes {
    encode_entry_with(records, &[])
}

/// The bytes of one entry whose records refer to these payloads ([`crate::large::take_out`]).
pub fn encode_entry_with(records: &[Record], references: &[Digest]) -> Bytes {
    let referring = references.len() * (2 + size_of::<Digest>());
    let mut out =
        BytesMut::with_capacity(referring + records.iter().map(record_len).sum::<usize>());
    for digest in references {
        out.put_u8(REFERENCE_FIELD);
        encode_varint(digest.len() as u64, &mut out);
        out.put_slice(digest);
    }
    for record in records {
        match record {
            Record::Event(event) => put(&mut out, EVENT_FIELD, event.as_ref()),
            Record::Note(note) => put(&mut out, NOTE_FIELD, note.as_ref()),
        }
    }
    out.freeze()
}

fn record_len(record: &Record) -> usize {
    let len = record.encoded_len();
    1 + encoded_len_varint(len as u64) + len
}

fn put<M: Message>(out: &mut BytesMut, field: u8, message: &M) {
    out.put_u8(field);
    encode_varint(message.encoded_len() as u64, out);
    message.encode(out).expect("BytesMut grows as needed");
}

/// The records of one entry, in order, with references where payloads were taken out: [`crate::store::read_entry`] puts them back.
pub fn decode_entry(entry: &[u8]) -> Result<Vec<Record>, CorruptEntry> {
    decode_each(entry)
        .map(|record| record.map(|(record, _)| record))
        .collect()
}

/// Like [`decode_entry`], one after the other, each with the bytes of its message.
pub fn decode_each(
    entry: &[u8],
) -> impl Iterator<Item = Result<(Record, usize), CorruptEntry>> + '_ {
    parts(entry).filter_map(|part| {
        let part = match part {
            Ok(part) => part,
            Err(error) => return Some(Err(error)),
        };
        let record = match part.field {
            EVENT_FIELD => HistoryEvent::decode(part.body).map(|e| Record::Event(Box::new(e))),
            REFERENCE_FIELD => return None,
            _ => Note::decode(part.body).map(|note| Record::Note(Box::new(note))),
        };
        let corrupt = |error: orchestrion_proto::prost::DecodeError| CorruptEntry {
            at: part.at,
            reason: error.to_string(),
        };
        Some(
            record
                .map(|record| (record, part.body.len()))
                .map_err(corrupt),
        )
    })
}

/// The fragments of `History` in an entry: each event's bytes with its field header, ready to be copied to a wire.
pub fn event_fragments(entry: &[u8]) -> impl Iterator<Item = Result<&[u8], CorruptEntry>> {
    parts(entry).filter_map(|part| match part {
        Ok(part) => (part.field == EVENT_FIELD).then_some(Ok(part.whole)),
        Err(error) => Some(Err(error)),
    })
}

/// How many records an entry holds.
pub fn count(entry: &[u8]) -> Result<u64, CorruptEntry> {
    let mut records = 0;
    for part in parts(entry) {
        records += u64::from(part?.field != REFERENCE_FIELD);
    }
    Ok(records)
}

/// The payloads that an entry's records refer to.
pub fn references(entry: &[u8]) -> Result<Vec<Digest>, CorruptEntry> {
    let mut digests = Vec::new();
    for part in parts(entry) {
        let part = part?;
        if part.field != REFERENCE_FIELD {
            break; // References stand first.
        }
        digests.push(Digest::try_from(part.body).map_err(|_| CorruptEntry {
            at: part.at,
            reason: "a reference is not a digest of 32 bytes".to_owned(),
        })?);
    }
    Ok(digests)
}

struct Part<'a> {
    at: usize,
    field: u8,
    whole: &'a [u8],
    body: &'a [u8],
}

fn parts(entry: &[u8]) -> impl Iterator<Item = Result<Part<'_>, CorruptEntry>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = entry.get(at..).filter(|rest| !rest.is_empty())?;
        let start = at;
        let part = split_part(rest, start);
        at = match &part {
            Ok(part) => start + part.whole.len(),
            Err(_) => entry.len(),
        };
        Some(part)
    })
}

fn split_part(rest: &[u8], at: usize) -> Result<Part<'_>, CorruptEntry> {
    let corrupt = |reason: &str| CorruptEntry {
        at,
        reason: reason.to_owned(),
    };
    let field = match rest[0] {
        field @ (EVENT_FIELD | NOTE_FIELD | REFERENCE_FIELD) => field,
        other => return Err(corrupt(&format!("unknown field header {other:#04x}"))),
    };
    let mut cursor = &rest[1..];
    let len = decode_varint(&mut cursor).map_err(|_| corrupt("the length is not a varint"))?;
    let len = usize::try_from(len)
        .ok()
        .filter(|len| *len <= cursor.remaining());
    let len = len.ok_or_else(|| corrupt("the record is cut off"))?;
    let header = rest.len() - cursor.len();
    Ok(Part {
        at,
        field,
        whole: &rest[..header + len],
        body: &cursor[..len],
    })
}

/// Whether an event closes its run: nothing may follow it.
pub fn closes_run(event_type: EventType) -> bool {
    matches!(
        event_type,
        EventType::WorkflowExecutionCompleted
            | EventType::WorkflowExecutionFailed
            | EventType::WorkflowExecutionTimedOut
            | EventType::WorkflowExecutionCanceled
            | EventType::WorkflowExecutionTerminated
            | EventType::WorkflowExecutionContinuedAsNew
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Record> {
        let event = |id| {
            Record::Event(Box::new(HistoryEvent {
                event_id: id,
                event_type: EventType::TimerFired.into(),
                ..Default::default()
            }))
        };
        let note = Record::Note(Box::new(Note { at: 7, kind: None }));
        vec![event(1), note.clone(), event(2), note]
    }

    #[test]
    fn an_entry_keeps_the_order_of_events_and_notes() {
        assert_eq!(decode_entry(&encode_entry(&sample())).unwrap(), sample());
    }

    #[test]
    fn fragments_are_the_events_of_a_history() {
        use orchestrion_proto::temporal::api::history::v1::History;
        let entry = encode_entry(&sample());
        let bytes: Vec<u8> = event_fragments(&entry)
            .flat_map(|f| f.unwrap().to_vec())
            .collect();
        let ids: Vec<i64> = History::decode(&*bytes)
            .unwrap()
            .events
            .iter()
            .map(|e| e.event_id)
            .collect();
        assert_eq!(ids, [1, 2]);
    }

    #[test]
    fn a_cut_or_foreign_entry_is_refused() {
        let entry = encode_entry(&sample());
        assert!(decode_entry(&entry[..entry.len() - 1]).is_err());
        assert!(decode_entry(b"\x22\x01x").is_err());
        assert!(references(b"\x1a\x01x").is_err());
        assert!(
            decode_entry(&[
                EVENT_FIELD,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0xff,
                0x7f
            ])
            .is_err()
        );
    }

    #[test]
    fn names_read_as_in_the_docs() {
        assert_eq!(sample()[0].type_name(), "TimerFired");
    }
}
