//! The whole key space, as one enum: what each key is, what stands under it, how long it lives.
//!
//! Only this folder knows the bytes. Everything else names a record by [`Key`] and a stretch of them
//! by [`KeyRange`].
//!
//! Invariant: encoded order is logical order, and no encoded key is a prefix of another.
//! Invariant: persisted. A kind byte, a field's place and its encoding never change their meaning;
//! a retired kind byte stays reserved.

// | family  | kind | key          | behind shard (u16) and kind (u8)                              |
// |---------|------|--------------|---------------------------------------------------------------|
// | meta    | 01   | Format       | nothing; in place of a shard stands ffff, which none is       |
// | meta    | 02   | ShardInfo    | nothing                                                       |
// | truth   | 10   | CurrentRun   | namespace, workflow id                                        |
// | truth   | 11   | RunHead      | namespace, run id                                             |
// | truth   | 12   | Registry     | namespace, registry kind (u8), id                             |
// | truth   | 13   | Outbox       | namespace, event id                                           |
// | truth   | 14   | Compensation | namespace, id                                                 |
// | truth   | 15   | Payload      | namespace, run id, digest (32 bytes)                          |
// | journal | 20   | Journal      | namespace, run id, first seq (u64)                            |
// | index   | 30   | Queue        | namespace, queue kind (u8), queue, at, run id, event id (i64) |
// | index   | 31   | Timer        | due, namespace, run id                                        |
// | index   | 32   | Visibility   | namespace, !started, run id                                   |
// | index   | 33   | Snapshot     | namespace, run id                                             |
// | index   | 34   | Line         | namespace, workflow id, !started, run id                      |
// | index   | 35   | Line         | namespace, workflow type, !started, run id                    |
// | index   | 36   | Line         | namespace, status (u8), !started, run id                      |
//
// Numbers are big endian, a signed one with its sign bit flipped; instants are signed nanoseconds. A
// run id is its 16 bytes. A text is its UTF-8 with 00 written as 00 ff, closed by 00 01, so that "a"
// sorts before "a\0b" and that before "ab", whatever follows.

mod codec;
mod range;

use std::fmt;

pub use self::codec::InvalidKey;
pub use self::range::KeyRange;
use crate::ids::{Namespace, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId};

/// Where a key lives: records of one family are stored, cached and compacted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// About the store itself; only a store writes it.
    Meta,
    /// What is true beside the journals.
    Truth,
    /// What is true of each run.
    Journal,
    /// Rebuildable from truth and journal.
    Index,
}

impl Family {
    /// Every family.
    pub const ALL: [Self; 4] = [Self::Meta, Self::Truth, Self::Journal, Self::Index];

    /// Its name. Persisted: RocksDB's column families are called so.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Truth => "truth",
            Self::Journal => "journal",
            Self::Index => "index",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a registry record describes. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum RegistryKind {
    /// `v1.Project`.
    Project = 1,
    /// `v1.ApiKey`; under the system namespace also by digest, for the check of a request.
    ApiKey = 2,
    /// `v1.Service`.
    Service = 3,
    /// `v1.Webhook`.
    Webhook = 4,
    /// `v1.Grounding`, by name.
    Grounding = 5,
    /// A setting.
    Setting = 6,
    /// `v1.PlanCacheEntry`.
    PlanCache = 7,
    /// `v1.DeliveryTry`, by webhook and slot: the last tries of each webhook.
    Delivery = 8,
    /// `v1.AdministrativeAct`, by time.
    Act = 9,
    /// `v1.Namespace`.
    Namespace = 11,
    /// `v1.SearchAttribute`, by name.
    SearchAttribute = 12,
}

impl RegistryKind {
    const ALL: [Self; 11] = [
        Self::Project,
        Self::ApiKey,
        Self::Service,
        Self::Webhook,
        Self::Grounding,
        Self::Setting,
        Self::PlanCache,
        Self::Delivery,
        Self::Act,
        Self::Namespace,
        Self::SearchAttribute,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Project => "project",
            Self::ApiKey => "api key",
            Self::Service => "service",
            Self::Webhook => "webhook",
            Self::Grounding => "grounding",
            Self::Setting => "setting",
            Self::PlanCache => "cached plan",
            Self::Delivery => "delivery",
            Self::Act => "act",
            Self::Namespace => "namespace",
            Self::SearchAttribute => "search attribute",
        }
    }
}

/// Which tasks a queue holds. The numbers are persisted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum QueueKind {
    /// Turns of workflow code.
    Workflow = 1,
    /// Activities.
    Activity = 2,
}

impl QueueKind {
    const ALL: [Self; 2] = [Self::Workflow, Self::Activity];

    fn name(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Activity => "activity",
        }
    }
}

/// What the runs of a line have in common, in the indexes beside the listing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LineOf {
    /// Their workflow id.
    Workflow(WorkflowId),
    /// What code runs them.
    Type(String),
    /// Where they stand, as the wires number it.
    Status(u8),
}

/// Every key there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// Value: format version (u32 BE), shard count (u16 BE). Life: the store's.
    Format,

    /// Value: the range id under which the shard is held (u64 BE). Life: the store's.
    ShardInfo {
        /// The shard.
        shard: ShardId,
    },

    /// The newest run of a workflow id. Value: `v1.CurrentRun`. Life: until the retention of that run ends.
    CurrentRun {
        /// The shard of namespace and workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The execution's id.
        workflow_id: WorkflowId,
    },

    /// What is known of a run without folding its journal. Value: `v1.RunHead`. Life: from start to the end
    /// of retention.
    RunHead {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The run.
        run_id: RunId,
    },

    /// A project, API key, service, ... Value: the message its kind names. Life: until deleted by its owner.
    Registry {
        /// [`ShardId::REGISTRY`].
        shard: ShardId,
        /// The tenant, or the system namespace for what belongs to none.
        namespace: Namespace,
        /// What it describes.
        kind: RegistryKind,
        /// Unique within namespace and kind.
        id: String,
    },

    /// Something that must leave the engine at least once. Value: `v1.OutboxEntry`. Life: until settled and
    /// past retention.
    Outbox {
        /// The shard of the execution that sends it.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The same on every try.
        event_id: String,
    },

    /// A compensation that failed, expired or is unknown. Value: `v1.CompensationFailure`. Life: until
    /// resolved and past retention.
    Compensation {
        /// The shard of the execution it undoes.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// Its own id.
        id: String,
    },

    /// A payload too large for a record. Value: `temporal.api.common.v1.Payload`. Life: its run's.
    Payload {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The run whose records refer to it.
        run_id: RunId,
        /// SHA-256 of the value.
        digest: [u8; 32],
    },

    /// What one commit appended to a run. Value: `v1.JournalEntry`. Life: from its commit to the end of the
    /// run's retention, unchanged.
    Journal {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The run.
        run_id: RunId,
        /// The number of the entry's first record in the run, counted from 0.
        first_seq: u64,
    },

    /// A task that waits for a worker. Value: workflow id and attempt. Life: from its scheduling to its
    /// start. Oldest first within a queue.
    Queue {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// Which tasks.
        kind: QueueKind,
        /// The queue.
        queue: TaskQueueName,
        /// When it may start.
        at: Timestamp,
        /// The run.
        run_id: RunId,
        /// The event that scheduled it.
        event_id: i64,
    },

    /// The next instant at which something is due in a run. Value: workflow id. Life: until then, or until
    /// an earlier one replaces it. The one key that is not namespace first: the timer loop asks what is due
    /// in the shard, whoever's it is, so due order is the logical order.
    Timer {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// When.
        due: Timestamp,
        /// The tenant.
        namespace: Namespace,
        /// The run.
        run_id: RunId,
    },

    /// One line of a listing, newest first. Value: `v1.Visibility`. Life: the run's.
    Visibility {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// When the run started.
        started: Timestamp,
        /// The run.
        run_id: RunId,
    },

    /// The fold of a run's journal up to some record. Value: a version byte and the state. Life: until a
    /// later one replaces it; one that does not decode is rebuilt.
    Snapshot {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// The run.
        run_id: RunId,
    },

    /// A run among those with which it has something in common, newest first. Value: nothing; the run's listing
    /// says the rest. Life: the run's, for a status as long as it has it.
    Line {
        /// The shard of the run's workflow id.
        shard: ShardId,
        /// The tenant.
        namespace: Namespace,
        /// What they have in common.
        of: LineOf,
        /// When the run started.
        started: Timestamp,
        /// The run.
        run_id: RunId,
    },
}

impl Key {
    /// Where it lives.
    pub fn family(&self) -> Family {
        match self {
            Self::Format | Self::ShardInfo { .. } => Family::Meta,
            Self::CurrentRun { .. }
            | Self::RunHead { .. }
            | Self::Registry { .. }
            | Self::Outbox { .. }
            | Self::Compensation { .. }
            | Self::Payload { .. } => Family::Truth,
            Self::Journal { .. } => Family::Journal,
            Self::Queue { .. }
            | Self::Timer { .. }
            | Self::Visibility { .. }
            | Self::Snapshot { .. }
            | Self::Line { .. } => Family::Index,
        }
    }

    /// The shard it belongs to; [`Key::Format`] belongs to none.
    pub fn shard(&self) -> Option<ShardId> {
        match self {
            Self::Format => None,
            Self::ShardInfo { shard }
            | Self::CurrentRun { shard, .. }
            | Self::RunHead { shard, .. }
            | Self::Registry { shard, .. }
            | Self::Outbox { shard, .. }
            | Self::Compensation { shard, .. }
            | Self::Payload { shard, .. }
            | Self::Journal { shard, .. }
            | Self::Queue { shard, .. }
            | Self::Timer { shard, .. }
            | Self::Visibility { shard, .. }
            | Self::Snapshot { shard, .. }
            | Self::Line { shard, .. } => Some(*shard),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format => f.write_str("the store's format"),
            Self::ShardInfo { shard } => write!(f, "the range id of shard {}", shard.0),
            Self::CurrentRun {
                shard,
                namespace,
                workflow_id,
            } => {
                write!(
                    f,
                    "current run of workflow {workflow_id:?}{}",
                    Place(*shard, namespace)
                )
            }
            Self::RunHead {
                shard,
                namespace,
                run_id,
            } => {
                write!(f, "head of run {run_id}{}", Place(*shard, namespace))
            }
            Self::Registry {
                shard,
                namespace,
                kind,
                id,
            } => {
                write!(f, "{} {id:?}{}", kind.name(), Place(*shard, namespace))
            }
            Self::Outbox {
                shard,
                namespace,
                event_id,
            } => {
                write!(f, "outbox event {event_id:?}{}", Place(*shard, namespace))
            }
            Self::Compensation {
                shard,
                namespace,
                id,
            } => {
                write!(f, "compensation {id:?}{}", Place(*shard, namespace))
            }
            Self::Payload {
                shard,
                namespace,
                run_id,
                digest,
            } => {
                f.write_str("payload ")?;
                digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
                write!(f, " of run {run_id}{}", Place(*shard, namespace))
            }
            Self::Journal {
                shard,
                namespace,
                run_id,
                first_seq,
            } => {
                write!(
                    f,
                    "journal of run {run_id} from record {first_seq}{}",
                    Place(*shard, namespace)
                )
            }
            Self::Queue {
                shard,
                namespace,
                kind,
                queue,
                at,
                run_id,
                event_id,
            } => write!(
                f,
                "{} task {event_id} of run {run_id} at {} on queue {queue:?}{}",
                kind.name(),
                Utc(*at),
                Place(*shard, namespace)
            ),
            Self::Timer {
                shard,
                due,
                namespace,
                run_id,
            } => {
                write!(
                    f,
                    "timer of run {run_id} due {}{}",
                    Utc(*due),
                    Place(*shard, namespace)
                )
            }
            Self::Visibility {
                shard,
                namespace,
                started,
                run_id,
            } => {
                write!(
                    f,
                    "listing of run {run_id} started {}{}",
                    Utc(*started),
                    Place(*shard, namespace)
                )
            }
            Self::Snapshot {
                shard,
                namespace,
                run_id,
            } => {
                write!(f, "snapshot of run {run_id}{}", Place(*shard, namespace))
            }
            Self::Line {
                shard,
                namespace,
                of,
                started,
                run_id,
            } => {
                write!(
                    f,
                    "line of run {run_id} by {of} started {}{}",
                    Utc(*started),
                    Place(*shard, namespace)
                )
            }
        }
    }
}

impl fmt::Display for LineOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workflow(id) => write!(f, "workflow {id:?}"),
            Self::Type(name) => write!(f, "type {name:?}"),
            Self::Status(number) => write!(f, "status {number}"),
        }
    }
}

struct Place<'a>(ShardId, &'a Namespace);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " in namespace {:?}, shard {}", self.1, self.0.0)
    }
}

/// An instant as people write it: `2026-11-21T01:31:09.5Z`.
struct Utc(Timestamp);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, nanos) = (
            self.0.0.div_euclid(1_000_000_000),
            self.0.0.rem_euclid(1_000_000_000),
        );
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // The calendar repeats every 400 years of 146,097 days; years are counted from March, so that the
        // leap day is the last of its year.
        let from_march_0 = days + 719_468;
        let (era, day) = (
            from_march_0.div_euclid(146_097),
            from_march_0.rem_euclid(146_097),
        );
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T")?;
        write!(
            f,
            "{:02}:{:02}:{:02}",
            second / 3_600,
            second / 60 % 60,
            second % 60
        )?;
        if nanos > 0 {
            write!(f, ".{}", format!("{nanos:09}").trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

#[cfg(test)]
mod tests;
