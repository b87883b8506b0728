//! The newest entries of a run's journal, kept in memory: who is handed a task or waits for an end asks for them right after their commit.
//!
//! Invariant: it holds committed entries only, without a gap; what it does not hold is read from the store.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use orchestrion_history::record::{self, Record};

use super::history::event_id;

/// Bytes kept of one run.
const BYTES_MAX: usize = 8 * 1024;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tail {
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// The number of its first record.
    first_seq: u64,
    /// The id of its first event; 0 when it holds none.
    first_event: i64,
    bytes: Bytes,
}

impl Tail {
    /// Adds what a commit has appended. An entry whose payloads lie elsewhere is not served from here.
    pub(super) fn push(&mut self, first_seq: u64, bytes: Bytes) {
        let refers = record::references(&bytes).map_or(true, |digests| !digests.is_empty());
        if refers || bytes.len() > BYTES_MAX {
            *self = Self::default();
            return;
        }
        let first = record::event_fragments(&bytes).next();
        let first_event = first.and_then(Result::ok).map_or(0, event_id);
        self.bytes += bytes.len();
        self.entries.push_back(Entry {
            first_seq,
            first_event,
            bytes,
        });
        while self.bytes > BYTES_MAX {
            let Some(oldest) = self.entries.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    /// All records of the run; `None` when the first of them are not here.
    pub fn records(&self) -> Option<Vec<Record>> {
        let first = self.entries.front().filter(|entry| entry.first_seq == 1);
        first?;
        let mut records = Vec::new();
        for entry in &self.entries {
            records.extend(record::decode_entry(&entry.bytes).ok()?);
        }
        Some(records)
    }

    /// The encoded `History` of the events from `from` to `until`; `None` when some of them are not here.
    pub(super) fn events(&self, from: i64, until: i64) -> Option<Bytes> {
        // An entry of notes alone tells nothing of where it stands.
        let mut begins = self.entries.iter().map(|entry| entry.first_event);
        let begins = begins.find(|first| *first > 0);
        if from > until {
            return Some(Bytes::new());
        }
        if begins? > from {
            return None;
        }
        let (mut bytes, mut next) = (BytesMut::with_capacity(self.bytes), from);
        for entry in &self.entries {
            for fragment in record::event_fragments(&entry.bytes) {
                let fragment = fragment.ok()?;
                let id = event_id(fragment);
                if id == next && id <= until {
                    bytes.extend_from_slice(fragment);
                    next += 1;
                }
            }
        }
        (next == until + 1).then(|| bytes.freeze())
    }

    /// The encoded `History` of the last event.
    pub fn last_event(&self) -> Option<Bytes> {
        let entry = self.entries.back()?;
        let last = record::event_fragments(&entry.bytes).last()?.ok()?;
        Some(entry.bytes.slice_ref(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orchestrion_history::record::encode_entry;
    use orchestrion_proto::prost::Message;
    use orchestrion_proto::temporal::api::history::v1::{History, HistoryEvent};
    use orchestrion_proto::v1::Note;

    fn entry(ids: impl IntoIterator<Item = i64>) -> Bytes {
        let events = ids.into_iter().map(|event_id| {
            Record::Event(Box::new(HistoryEvent {
                event_id,
                ..HistoryEvent::default()
            }))
        });
        encode_entry(&events.collect::<Vec<_>>())
    }

    fn ids(bytes: Option<Bytes>) -> Option<Vec<i64>> {
        let history = History::decode(bytes?).unwrap();
        Some(history.events.iter().map(|event| event.event_id).collect())
    }

    #[test]
    fn it_gives_what_it_holds_and_no_less() {
        let mut tail = Tail::default();
        assert_eq!(tail.events(1, 2), None);
        let note = Record::Note(Box::new(Note { at: 7, kind: None }));
        tail.push(4, entry([3, 4]));
        tail.push(6, encode_entry(&[note]));
        tail.push(7, entry([5, 6]));
        assert_eq!(ids(tail.events(3, 6)), Some(vec![3, 4, 5, 6]));
        assert_eq!(ids(tail.events(4, 5)), Some(vec![4, 5]));
        assert_eq!(ids(tail.events(7, 6)), Some(vec![]));
        assert_eq!(tail.events(2, 6), None);
        assert_eq!(tail.events(3, 7), None);
        assert_eq!(ids(tail.last_event()), Some(vec![6]));
        assert_eq!(tail.records(), None);
        let mut whole = Tail::default();
        whole.push(1, entry([1]));
        whole.push(2, entry([2]));
        assert_eq!(whole.records().unwrap().len(), 2);
    }

    #[test]
    fn the_oldest_leave_when_there_is_too_much() {
        let mut tail = Tail::default();
        let per_entry = 100;
        for first in (1..=10_000).step_by(per_entry) {
            tail.push(first as u64, entry(first..first + per_entry as i64));
        }
        assert!(tail.bytes <= BYTES_MAX);
        assert_eq!(tail.events(1, 10_000), None);
        assert_eq!(ids(tail.events(9_990, 10_000)).unwrap().len(), 11);
        tail.push(10_001, entry(10_001..40_000));
        assert_eq!(tail.events(39_999, 39_999), None);
        assert_eq!(tail.last_event(), None);
    }
}
