//! Looks at the disk from outside: folds every journal as it grows, and keeps what the indexes hold of each run beside it.
//!
//! Invariant: nothing here asks the engine anything; it sees what a restarted engine would find.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, RunId, ShardId};
use orchestrion_history::record::Record;
use orchestrion_history::replay;
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{
    Family, Key, KeyRange, MemoryStore, Op, RegistryKind, Store, read_entry,
};
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::v1::{CompensationFailure, CurrentRun, RevertRetry, RunHead};

use super::ledger::{Run, marks_in};
use super::life::SHARDS;

/// A run as its journal says, and as the indexes do.
#[derive(Debug, Default)]
pub struct Shadow {
    /// The fold of its journal.
    pub state: MutableState,
    /// All of its records.
    pub records: Vec<Record>,
    /// The marks in them.
    pub marks: BTreeSet<String>,
    /// What its head says.
    pub head: RunHead,
    /// Its entries in the indexes.
    pub index: BTreeMap<Vec<u8>, (Key, Bytes)>,
    /// How often its journal closed it.
    pub closes: u32,
    /// Something of it is damaged: it is left out.
    pub damaged: bool,
    /// What the disk has of it beside its head and its indexes: journal, payloads.
    pub kept: BTreeSet<Vec<u8>>,
    /// It left the disk; the rest of this is what it was then.
    pub left: bool,
    /// Something was written of it after it had left.
    pub risen: Option<String>,
}

/// What one look brought.
#[derive(Debug, Default)]
pub struct News {
    /// Records, in order.
    pub records: Vec<(Run, Record)>,
    /// The marks in them.
    pub marks: Vec<String>,
    /// Runs of which anything changed.
    pub touched: BTreeSet<Run>,
    /// Records of what could not be undone that changed.
    pub compensations: BTreeSet<(Namespace, String)>,
    /// Entries of the outbox that were put, and those removed.
    pub outbox: Vec<(Key, Option<Bytes>)>,
}

/// The disk as a whole.
#[derive(Debug, Default)]
pub struct Observer {
    /// By tenant and run.
    pub runs: BTreeMap<Run, Shadow>,
    /// The newest run of each workflow id.
    pub current: BTreeMap<(Namespace, String), CurrentRun>,
    /// What could not be undone, by tenant and id.
    pub compensations: BTreeMap<(Namespace, String), CompensationFailure>,
    /// Plans that were kept to be used again, by tenant and id; those that are gone as well.
    pub plans: BTreeSet<(Namespace, String)>,
    /// By mark, the runs whose records carry it.
    pub marks: BTreeMap<String, BTreeSet<Run>>,
    damage: BTreeSet<Run>,
    /// Workflow ids of which some run, or some child's, is damaged.
    torn_families: BTreeSet<(Namespace, String)>,
    /// A number for everything seen.
    trace: DefaultHasher,
}

impl Observer {
    /// A number for everything seen so far.
    pub fn digest(&self) -> u64 {
        self.trace.finish()
    }

    /// Hashes something into the trace.
    pub fn trace(&mut self, what: impl Hash) {
        what.hash(&mut self.trace);
    }

    /// Everything again, from the disk alone.
    pub fn begin_again(&mut self, disk: &MemoryStore) -> Result<News, String> {
        let gone = std::mem::take(&mut self.runs).into_iter();
        let gone: Vec<(Run, Shadow)> = gone.filter(|(_, shadow)| shadow.left).collect();
        *self = Self {
            trace: std::mem::take(&mut self.trace),
            damage: std::mem::take(&mut self.damage),
            plans: std::mem::take(&mut self.plans),
            ..Self::default()
        };
        let mut news = News::default();
        for shard in (0..SHARDS).map(ShardId) {
            let [by_id, by_type, by_status] = KeyRange::lines(shard);
            let heads = KeyRange::run_heads(shard);
            let journals: Vec<KeyRange> = scan(disk, &heads)
                .into_iter()
                .filter_map(|(key, _)| match key {
                    Key::RunHead {
                        namespace, run_id, ..
                    } => Some([
                        KeyRange::journal_of(shard, &namespace, run_id),
                        KeyRange::payloads_of(shard, &namespace, run_id),
                    ]),
                    _ => None,
                })
                .flatten()
                .collect();
            let others = [
                KeyRange::current_runs(shard),
                heads,
                KeyRange::queues(shard),
                KeyRange::timers(shard),
                KeyRange::listings(shard),
                KeyRange::outbox(shard),
                KeyRange::snapshots(shard),
                by_id,
                by_type,
                by_status,
            ];
            for range in others.into_iter().chain(journals) {
                for (key, value) in scan(disk, &range) {
                    self.see(disk, Op::Put(key, value), &mut news)?;
                }
            }
        }
        // What left is not on the disk any more, unless that was not synced.
        for (run, shadow) in gone {
            let marks = shadow.marks.clone();
            if self.runs.contains_key(&run) {
                continue;
            }
            for mark in marks {
                self.marks.entry(mark).or_default().insert(run.clone());
            }
            self.runs.insert(run, shadow);
        }
        let runs = self.runs.keys();
        let namespaces: BTreeSet<Namespace> = runs.map(|(of, _)| of.clone()).collect();
        for namespace in namespaces {
            let shard = ShardId::REGISTRY;
            let ranges = [
                KeyRange::compensations(shard, &namespace),
                KeyRange::registry_kind(shard, &namespace, RegistryKind::PlanCache),
            ];
            for (key, value) in ranges.iter().flat_map(|range| scan(disk, range)) {
                self.see(disk, Op::Put(key, value), &mut news)?;
            }
        }
        self.leave_out();
        Ok(news)
    }

    /// One operation became visible.
    pub fn see(&mut self, disk: &MemoryStore, op: Op, news: &mut News) -> Result<(), String> {
        let (key, value) = match op {
            Op::Put(key, value) => (key, Some(value)),
            Op::Delete(key) => (key, None),
        };
        if let Some(shadow) = run_of(&key).and_then(|run| self.runs.get_mut(&run))
            && shadow.left
            && value.is_some()
        {
            shadow.risen = Some(key.to_string());
            news.touched.extend(run_of(&key));
            return Ok(());
        }
        match (&key, value) {
            (
                Key::Journal {
                    namespace,
                    run_id,
                    first_seq,
                    ..
                },
                Some(entry),
            ) => {
                let run = (namespace.clone(), *run_id);
                let records = read_entry(disk, &key, &entry).map_err(|e| e.to_string())?;
                let shadow = self.runs.entry(run.clone()).or_default();
                shadow.kept.insert(key.encode());
                self.fold(&run, *first_seq, records, news)?;
                news.touched.insert(run);
            }
            (Key::Payload { .. } | Key::Journal { .. }, value) => {
                let Some(run) = run_of(&key) else {
                    return Ok(());
                };
                let shadow = self.runs.entry(run.clone()).or_default();
                match value {
                    Some(_) => _ = shadow.kept.insert(key.encode()),
                    None => _ = shadow.kept.remove(&key.encode()),
                }
                news.touched.insert(run);
            }
            (
                Key::RunHead {
                    namespace, run_id, ..
                },
                None,
            ) => {
                let run = (namespace.clone(), *run_id);
                let shadow = self.runs.entry(run.clone()).or_default();
                shadow.left = true;
                news.touched.insert(run);
            }
            (
                Key::RunHead {
                    namespace, run_id, ..
                },
                Some(value),
            ) => {
                let run = (namespace.clone(), *run_id);
                let head = RunHead::decode(value).map_err(|e| e.to_string())?;
                self.runs.entry(run.clone()).or_default().head = head;
                news.touched.insert(run);
            }
            (
                Key::CurrentRun {
                    namespace,
                    workflow_id,
                    ..
                },
                Some(value),
            ) => {
                let current = CurrentRun::decode(value).map_err(|e| e.to_string())?;
                let id = (namespace.clone(), workflow_id.to_string());
                if let Ok(run_id) = <[u8; 16]>::try_from(&current.run_id[..]) {
                    news.touched.insert((namespace.clone(), RunId(run_id)));
                }
                self.current.insert(id, current);
            }
            (
                Key::CurrentRun {
                    namespace,
                    workflow_id,
                    ..
                },
                None,
            ) => {
                let id = (namespace.clone(), workflow_id.to_string());
                self.current.remove(&id);
            }
            (Key::Compensation { namespace, id, .. }, Some(value)) => {
                let record = CompensationFailure::decode(value).map_err(|e| e.to_string())?;
                let id = (namespace.clone(), id.clone());
                news.compensations.insert(id.clone());
                self.compensations.insert(id, record);
            }
            (
                Key::Registry {
                    namespace,
                    kind: RegistryKind::PlanCache,
                    id,
                    ..
                },
                Some(_),
            ) => {
                self.plans.insert((namespace.clone(), id.clone()));
            }
            (Key::Outbox { .. }, value) => news.outbox.push((key, value)),
            (key, value) if key.family() == Family::Index => {
                let Some(run) = run_of(key) else {
                    return Ok(());
                };
                let index = &mut self.runs.entry(run.clone()).or_default().index;
                match value {
                    Some(value) => _ = index.insert(key.encode(), (key.clone(), value)),
                    None => _ = index.remove(&key.encode()),
                }
                news.touched.insert(run);
            }
            _ => {}
        }
        Ok(())
    }

    fn fold(
        &mut self,
        run: &Run,
        first_seq: u64,
        records: Vec<Record>,
        news: &mut News,
    ) -> Result<(), String> {
        let shadow = self.runs.entry(run.clone()).or_default();
        if first_seq != shadow.state.records + 1 {
            return Err(format!(
                "{}: an entry begins at {first_seq} behind {} records",
                run.1, shadow.state.records
            ));
        }
        replay::fold_onto(&mut shadow.state, &records).map_err(|e| format!("{}: {e}", run.1))?;
        for record in records {
            let bytes = match &record {
                Record::Event(event) => event.encode_to_vec(),
                Record::Note(note) => note.encode_to_vec(),
            };
            (run.1.0, record.type_name(), record.at(), bytes.len()).hash(&mut self.trace);
            for mark in marks_in(&bytes) {
                self.marks
                    .entry(mark.clone())
                    .or_default()
                    .insert(run.clone());
                news.marks.push(mark.clone());
                shadow.marks.insert(mark);
            }
            shadow.closes += u32::from(matches!(&record, Record::Event(event)
                    if orchestrion_history::record::closes_run(event.event_type())));
            shadow.records.push(record.clone());
            news.records.push((run.clone(), record));
        }
        Ok(())
    }

    /// Something of a run cannot be read any more. A journal is the truth: the run is left out; a snapshot is not.
    pub fn damaged(&mut self, key: &Key) {
        if let Key::Journal {
            namespace, run_id, ..
        } = key
        {
            self.damage.insert((namespace.clone(), *run_id));
            self.leave_out();
        }
    }

    fn leave_out(&mut self) {
        for run in &self.damage {
            if let Some(shadow) = self.runs.get_mut(run) {
                shadow.damaged = true;
                let id = &shadow.state.workflow_id;
                self.torn_families
                    .insert((run.0.clone(), root(id).to_owned()));
            }
        }
    }

    /// Whether some run of this workflow id, or of a relative's, is damaged.
    pub fn is_torn(&self, workflow_id: &str) -> bool {
        let mut torn = self.torn_families.iter();
        torn.any(|(_, family)| family == root(workflow_id))
    }

    /// Reverts under way that were asked for again, and the records that ask for them; none whose journal is damaged.
    pub fn open_retries(&self) -> impl Iterator<Item = (&CompensationFailure, &RevertRetry)> {
        let records = self.compensations.values();
        let retries =
            records.flat_map(|record| record.retries.iter().map(move |retry| (record, retry)));
        retries.filter(|(_, retry)| retry.ended_at == 0 && !self.is_torn(&retry.workflow_id))
    }

    /// Runs that have not ended, and of whose family none is damaged.
    pub fn open(&self) -> impl Iterator<Item = (&Run, &Shadow)> {
        self.runs.iter().filter(|(run, shadow)| {
            let family = (run.0.clone(), root(&shadow.state.workflow_id).to_owned());
            !shadow.state.status.is_closed() && !self.torn_families.contains(&family)
        })
    }
}

/// Children are named after whoever started the first.
pub fn root(workflow_id: &str) -> &str {
    workflow_id.split('/').next().unwrap_or(workflow_id)
}

fn scan(disk: &MemoryStore, range: &KeyRange) -> Vec<(Key, Bytes)> {
    disk.scan(range, usize::MAX, false)
        .map(|page| page.entries)
        .unwrap_or_default()
}

/// Whose it is.
fn run_of(key: &Key) -> Option<Run> {
    match key {
        Key::RunHead {
            namespace, run_id, ..
        }
        | Key::Journal {
            namespace, run_id, ..
        }
        | Key::Payload {
            namespace, run_id, ..
        }
        | Key::Queue {
            namespace, run_id, ..
        }
        | Key::Timer {
            namespace, run_id, ..
        }
        | Key::Visibility {
            namespace, run_id, ..
        }
        | Key::Snapshot {
            namespace, run_id, ..
        }
        | Key::Line {
            namespace, run_id, ..
        } => Some((namespace.clone(), *run_id)),
        _ => None,
    }
}
