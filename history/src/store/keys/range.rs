//! Stretches of the key space: every scan the engine makes, by name.
//!
//! Invariant: a range ends where its last field ends; a namespace named `a` sees nothing of `ab`.

use std::fmt;

use super::codec::{head, kind, line, ordered, text};
use super::{Family, Key, LineOf, QueueKind, RegistryKind};
use crate::ids::{Namespace, RunId, ShardId, TaskQueueName, Timestamp};

/// What closes a text in a key.
const TEXT_END_BYTES: usize = 2;

/// A stretch of one family: from `from`, up to but without `until`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The family.
    pub family: Family,
    /// The first bytes that belong to it.
    pub from: Vec<u8>,
    /// The first bytes behind it.
    pub until: Vec<u8>,
}

impl KeyRange {
    /// The journal of a run, oldest entry first.
    pub fn journal_of(shard: ShardId, namespace: &Namespace, run_id: RunId) -> Self {
        Self::within(Family::Journal, shard, kind::JOURNAL, |out| {
            text(out, namespace.as_str());
            out.extend_from_slice(&run_id.0);
        })
    }

    /// The entries of a run whose first record is `first_seq` or a later one.
    pub fn journal_from(
        shard: ShardId,
        namespace: &Namespace,
        run_id: RunId,
        first_seq: u64,
    ) -> Self {
        let mut range = Self::journal_of(shard, namespace, run_id);
        range.from.extend_from_slice(&first_seq.to_be_bytes());
        range
    }

    /// The current run of every workflow id of a shard.
    pub fn current_runs(shard: ShardId) -> Self {
        Self::within(Family::Truth, shard, kind::CURRENT_RUN, |_| {})
    }

    /// The head of every run of a shard.
    pub fn run_heads(shard: ShardId) -> Self {
        Self::within(Family::Truth, shard, kind::RUN_HEAD, |_| {})
    }

    /// The head of every run of a namespace in a shard.
    pub fn run_heads_of(shard: ShardId, namespace: &Namespace) -> Self {
        Self::within(Family::Truth, shard, kind::RUN_HEAD, |out| {
            text(out, namespace.as_str())
        })
    }

    /// The registry of a namespace.
    pub fn registry(shard: ShardId, namespace: &Namespace) -> Self {
        Self::within(Family::Truth, shard, kind::REGISTRY, |out| {
            text(out, namespace.as_str())
        })
    }

    /// The registry records of one kind of a namespace.
    pub fn registry_kind(shard: ShardId, namespace: &Namespace, kind: RegistryKind) -> Self {
        Self::within(Family::Truth, shard, kind::REGISTRY, |out| {
            text(out, namespace.as_str());
            out.push(kind as u8);
        })
    }

    /// The registry records of one kind of a namespace whose ids begin with `prefix`.
    pub fn registry_prefix(
        shard: ShardId,
        namespace: &Namespace,
        kind: RegistryKind,
        prefix: &str,
    ) -> Self {
        Self::within(Family::Truth, shard, kind::REGISTRY, |out| {
            text(out, namespace.as_str());
            out.push(kind as u8);
            text(out, prefix);
            // Without what closes a text: any id that goes on is within.
            out.truncate(out.len() - TEXT_END_BYTES);
        })
    }

    /// The registry records of one kind of a namespace whose ids are `from` or greater, up to but without `until`.
    pub fn registry_between(
        shard: ShardId,
        namespace: &Namespace,
        kind: RegistryKind,
        from: &str,
        until: &str,
    ) -> Self {
        let at = |id: &str| Key::Registry {
            shard,
            namespace: namespace.clone(),
            kind,
            id: id.to_owned(),
        };
        Self {
            family: Family::Truth,
            from: at(from).encode(),
            until: at(until).encode(),
        }
    }

    /// The registry of every namespace.
    pub fn registry_all(shard: ShardId) -> Self {
        Self::within(Family::Truth, shard, kind::REGISTRY, |_| {})
    }

    /// The outbox of a shard.
    pub fn outbox(shard: ShardId) -> Self {
        Self::within(Family::Truth, shard, kind::OUTBOX, |_| {})
    }

    /// The outbox entries of a namespace in a shard.
    pub fn outbox_of(shard: ShardId, namespace: &Namespace) -> Self {
        Self::within(Family::Truth, shard, kind::OUTBOX, |out| {
            text(out, namespace.as_str())
        })
    }

    /// The failed compensations of a namespace in a shard.
    pub fn compensations(shard: ShardId, namespace: &Namespace) -> Self {
        Self::within(Family::Truth, shard, kind::COMPENSATION, |out| {
            text(out, namespace.as_str())
        })
    }

    /// The large payloads of a run.
    pub fn payloads_of(shard: ShardId, namespace: &Namespace, run_id: RunId) -> Self {
        Self::within(Family::Truth, shard, kind::PAYLOAD, |out| {
            text(out, namespace.as_str());
            out.extend_from_slice(&run_id.0);
        })
    }

    /// Every waiting task of a shard.
    pub fn queues(shard: ShardId) -> Self {
        Self::within(Family::Index, shard, kind::QUEUE, |_| {})
    }

    /// The waiting tasks of one queue in a shard, oldest first.
    pub fn queue(
        shard: ShardId,
        namespace: &Namespace,
        kind: QueueKind,
        queue: &TaskQueueName,
    ) -> Self {
        Self::within(Family::Index, shard, kind::QUEUE, |out| {
            text(out, namespace.as_str());
            out.push(kind as u8);
            text(out, queue.as_str());
        })
    }

    /// Every timer of a shard, by due time.
    pub fn timers(shard: ShardId) -> Self {
        Self::within(Family::Index, shard, kind::TIMER, |_| {})
    }

    /// The timers of a shard that are due at `due` or before.
    pub fn timers_until(shard: ShardId, due: Timestamp) -> Self {
        let last = Self::within(Family::Index, shard, kind::TIMER, |out| {
            out.extend_from_slice(&ordered(due.0))
        });
        Self {
            until: last.until,
            ..Self::timers(shard)
        }
    }

    /// The listing of a namespace in a shard, newest first.
    pub fn visibility(shard: ShardId, namespace: &Namespace) -> Self {
        Self::within(Family::Index, shard, kind::VISIBILITY, |out| {
            text(out, namespace.as_str())
        })
    }

    /// Every listing of a shard.
    pub fn listings(shard: ShardId) -> Self {
        Self::within(Family::Index, shard, kind::VISIBILITY, |_| {})
    }

    /// What the listing of a namespace in a shard holds behind one line, whether or not that line is
    /// (still) there.
    pub fn visibility_after(
        shard: ShardId,
        namespace: &Namespace,
        started: Timestamp,
        run_id: RunId,
    ) -> Self {
        let last = Key::Visibility {
            shard,
            namespace: namespace.clone(),
            started,
            run_id,
        };
        Self::visibility(shard, namespace).after(&last)
    }

    /// The runs of a shard that have something in common, newest first.
    pub fn line(shard: ShardId, namespace: &Namespace, of: &LineOf) -> Self {
        let mut from = Vec::with_capacity(96);
        line(&mut from, shard, namespace, of);
        Self::beginning(Family::Index, from)
    }

    /// Of a listing or a line: the runs that started at `oldest` or later, and at `newest` or before. `behind` is a place in that
    /// order (an instant, a run): only what comes after it, whether or not it is (still) there.
    #[must_use]
    pub fn started_between(
        &self,
        oldest: Option<Timestamp>,
        newest: Option<Timestamp>,
        behind: Option<(Timestamp, RunId)>,
    ) -> Self {
        let at = |started: Timestamp| {
            let mut bytes = self.from.clone();
            bytes.extend_from_slice(&ordered(!started.0));
            bytes
        };
        let from = newest.map_or_else(|| self.from.clone(), at);
        let behind = behind.map_or_else(Vec::new, |(started, run_id)| {
            let mut bytes = at(started);
            bytes.extend_from_slice(&run_id.0);
            // No key is a prefix of another, so the least bytes above a key are the key and a zero.
            bytes.push(0);
            bytes
        });
        Self {
            family: self.family,
            from: from.max(behind),
            until: oldest.map_or_else(
                || self.until.clone(),
                |oldest| Self::beginning(self.family, at(oldest)).until,
            ),
        }
    }

    /// Every line of a shard: by workflow, by type, by status.
    pub fn lines(shard: ShardId) -> [Self; 3] {
        [kind::BY_WORKFLOW, kind::BY_TYPE, kind::BY_STATUS]
            .map(|kind| Self::within(Family::Index, shard, kind, |_| {}))
    }

    /// Every snapshot of a shard.
    pub fn snapshots(shard: ShardId) -> Self {
        Self::within(Family::Index, shard, kind::SNAPSHOT, |_| {})
    }

    /// The rest of the range behind `last`, the last key of a page.
    #[must_use]
    pub fn after(&self, last: &Key) -> Self {
        debug_assert_eq!(
            last.family(),
            self.family,
            "{last} is not of the range's family"
        );
        // No key is a prefix of another, so the least bytes above a key are the key and a zero.
        let mut from = last.encode();
        from.push(0);
        Self {
            family: self.family,
            from: from.max(self.from.clone()),
            until: self.until.clone(),
        }
    }

    /// The part of the range before `last`, the last key of a page that was read backwards.
    #[must_use]
    pub fn before(&self, last: &Key) -> Self {
        debug_assert_eq!(
            last.family(),
            self.family,
            "{last} is not of the range's family"
        );
        Self {
            family: self.family,
            from: self.from.clone(),
            until: last.encode().min(self.until.clone()),
        }
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: &Key) -> bool {
        let bytes = key.encode();
        key.family() == self.family && self.from <= bytes && bytes < self.until
    }

    /// Whether it ends where it begins, or before.
    pub fn is_empty(&self) -> bool {
        self.from >= self.until
    }

    /// All keys of a shard and kind that begin with the given fields.
    fn within(family: Family, shard: ShardId, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut from = Vec::with_capacity(96);
        head(&mut from, shard, kind);
        fields(&mut from);
        Self::beginning(family, from)
    }

    /// All keys that begin with these bytes, which begin with a shard and a kind.
    fn beginning(family: Family, from: Vec<u8>) -> Self {
        let mut until = from.clone();
        while until.pop_if(|byte| *byte == u8::MAX).is_some() {}
        *until
            .last_mut()
            .expect("a kind byte is never ff, so something is left") += 1;
        Self {
            family,
            from,
            until,
        }
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            family,
            from,
            until,
        } = self;
        write!(
            f,
            "{family} range \"{}\" to \"{}\"",
            from.escape_ascii(),
            until.escape_ascii()
        )
    }
}
