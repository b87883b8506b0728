//! Histories as stored bytes: pages of a journal's events, without a fold.
//!
//! Invariant: a page never splits what one commit appended.

use orchestrion_history::ids::{Namespace, RunId, WorkflowId};
use orchestrion_history::record::{self, CorruptEntry};
use orchestrion_history::store::{Key, KeyRange, read_entry};
use orchestrion_proto::prost::Message;
use orchestrion_proto::prost::encoding::decode_varint;
use orchestrion_proto::v1::RunHead;

use super::handle::{CallError, Handle, corrupt};

/// Commits on a page at most.
const COMMITS_MAX: usize = 256;
/// A page that holds so many bytes ends behind the commit it is in.
const PAGE_BYTES: usize = 1024 * 1024;
/// Commits looked at in one step while the place of an event is searched for from the end.
const SEARCH_STEP: usize = 8;

/// Which run.
pub type Place<'a> = (&'a Namespace, &'a WorkflowId, RunId);

/// A part of a history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryPage {
    /// Encoded `temporal.api.history.v1.History`.
    pub bytes: Vec<u8>,
    /// Events in it.
    pub events: usize,
    /// The id of the last of them; 0 when there is none.
    pub last_event_id: i64,
    /// The number of the record behind it.
    pub end: u64,
    /// The number of the record with which the next page begins; `None`: this was the last.
    pub next: Option<u64>,
}

impl Handle {
    /// What is known of a run without its journal; `None`: there is no such run of this workflow id.
    pub fn run_head(&self, place: Place<'_>) -> Result<Option<RunHead>, CallError> {
        let (namespace, workflow_id, run_id) = place;
        let key = Key::RunHead {
            shard: self.shard_of(namespace, workflow_id),
            namespace: namespace.clone(),
            run_id,
        };
        let Some(bytes) = self.store.get(&key)? else {
            return Ok(None);
        };
        let head = RunHead::decode(bytes).map_err(|e| corrupt(&key, &e))?;
        Ok(Some(head).filter(|head| head.workflow_id == workflow_id.as_str()))
    }

    /// A page of events from `from` to `until`, both included, beginning with record `seq` (`None`: wherever event `from` stands).
    pub fn history_page(
        &self,
        place: Place<'_>,
        seq: Option<u64>,
        from: i64,
        until: i64,
        commits_max: usize,
    ) -> Result<HistoryPage, CallError> {
        let (namespace, workflow_id, run_id) = place;
        let shard = self.shard_of(namespace, workflow_id);
        let start = match seq {
            Some(seq) => seq,
            None if from <= 1 => 1,
            None => self.record_of_event(place, from)?,
        };
        let mut page = HistoryPage {
            end: start,
            ..HistoryPage::default()
        };
        let range = KeyRange::journal_from(shard, namespace, run_id, start);
        let commits = commits_max.clamp(1, COMMITS_MAX);
        let scanned = self.store.scan(&range, commits, false)?;
        let mut entries = scanned.entries.iter().peekable();
        while let Some((key, entry)) = entries.next() {
            let mut past = false;
            let mut add = |fragment: &[u8]| {
                let id = event_id(fragment);
                if id > until {
                    past = true;
                } else if id >= from {
                    page.bytes.extend_from_slice(fragment);
                    page.events += 1;
                    page.last_event_id = id;
                }
            };
            let bad = |e: CorruptEntry| corrupt(key, &e);
            if record::references(entry).map_err(bad)?.is_empty() {
                for fragment in record::event_fragments(entry) {
                    add(fragment.map_err(bad)?);
                }
            } else {
                let whole = record::encode_entry(&read_entry(&*self.store, key, entry)?);
                for fragment in record::event_fragments(&whole) {
                    add(fragment.map_err(bad)?);
                }
            }
            if let Key::Journal { first_seq, .. } = key {
                page.end = first_seq + record::count(entry).map_err(bad)?;
            }
            if past || page.last_event_id >= until {
                return Ok(page);
            }
            if page.bytes.len() >= PAGE_BYTES && (scanned.more || entries.peek().is_some()) {
                page.next = Some(page.end);
                return Ok(page);
            }
        }
        page.next = scanned.more.then_some(page.end);
        Ok(page)
    }

    /// The first record of the commit that appended an event, searched from the end: it is a late one that is asked for.
    fn record_of_event(&self, place: Place<'_>, event: i64) -> Result<u64, CallError> {
        let (namespace, workflow_id, run_id) = place;
        let shard = self.shard_of(namespace, workflow_id);
        let mut range = KeyRange::journal_of(shard, namespace, run_id);
        let mut found = 1;
        loop {
            let page = self.store.scan(&range, SEARCH_STEP, true)?;
            for (key, entry) in &page.entries {
                let Key::Journal { first_seq, .. } = key else {
                    continue;
                };
                found = *first_seq;
                let first = record::event_fragments(entry).next();
                let first = first.transpose().map_err(|e| corrupt(key, &e))?;
                if first.is_some_and(|fragment| event_id(fragment) <= event) {
                    return Ok(found);
                }
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.before(last),
                _ => return Ok(found),
            }
        }
    }

    /// The commits of a run, newest first, from record `before` on (`None`: from the end): their numbers and stored bytes, whole.
    pub fn history_backwards(
        &self,
        place: Place<'_>,
        before: Option<u64>,
        commits_max: usize,
    ) -> Result<(Vec<(u64, bytes::Bytes)>, bool), CallError> {
        let (namespace, workflow_id, run_id) = place;
        let shard = self.shard_of(namespace, workflow_id);
        let mut range = KeyRange::journal_of(shard, namespace, run_id);
        if let Some(first_seq) = before {
            range = range.before(&Key::Journal {
                shard,
                namespace: namespace.clone(),
                run_id,
                first_seq,
            });
        }
        let page = self
            .store
            .scan(&range, commits_max.clamp(1, COMMITS_MAX), true)?;
        let mut commits = Vec::with_capacity(page.entries.len());
        for (key, entry) in &page.entries {
            if let Key::Journal { first_seq, .. } = key {
                let records = read_entry(&*self.store, key, entry)?;
                commits.push((*first_seq, record::encode_entry(&records)));
            }
        }
        Ok((commits, page.more))
    }
}

/// The id of an encoded event with its field header: the first field of the message.
pub(super) fn event_id(fragment: &[u8]) -> i64 {
    const EVENT_ID: u8 = 0x08;
    let mut rest = &fragment[1..];
    if decode_varint(&mut rest).is_err() || rest.first() != Some(&EVENT_ID) {
        return 0;
    }
    rest = &rest[1..];
    decode_varint(&mut rest).map_or(0, |id| id as i64)
}
