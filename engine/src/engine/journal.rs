//! Reading a committed journal page by page, for whoever passes it on: a stream of events, an export.
//!
//! Invariant: one page is in memory at a time, whatever the length of the journal.

use orchestrion_history::ids::{Namespace, RunId, ShardId, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::store::{Key, KeyRange, read_entry};

use super::handle::{CallError, Handle};

/// Entries of one page. An entry is what one commit wrote: a few records, of which one may carry a large payload.
const PAGE_ENTRIES: usize = 32;

/// A place in a run's journal, from which it is read on.
pub struct JournalReader {
    handle: Handle,
    shard: ShardId,
    namespace: Namespace,
    run_id: RunId,
    /// Where the next entry begins, as its key says it.
    next: u64,
    /// Records that were read.
    seen: u64,
}

impl JournalReader {
    /// At the beginning of a run.
    pub fn new(
        handle: &Handle,
        namespace: &Namespace,
        workflow_id: &WorkflowId,
        run_id: RunId,
    ) -> Self {
        Self {
            shard: handle.shard_of(namespace, workflow_id),
            handle: handle.clone(),
            namespace: namespace.clone(),
            run_id,
            next: 0,
            seen: 0,
        }
    }

    /// How many records were read.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The next records with their numbers, from 0; none when all that is committed was read.
    pub fn page(&mut self) -> Result<Vec<(u64, Record)>, CallError> {
        let range = KeyRange::journal_from(self.shard, &self.namespace, self.run_id, self.next);
        let page = self.handle.store().scan(&range, PAGE_ENTRIES, false)?;
        let mut records = Vec::new();
        for (key, entry) in &page.entries {
            let Key::Journal { first_seq, .. } = key else {
                continue;
            };
            let decoded = read_entry(&**self.handle.store(), key, entry)?;
            let count = decoded.len() as u64;
            records.extend((self.seen..).zip(decoded));
            self.seen += count;
            self.next = first_seq + count;
        }
        Ok(records)
    }
}
