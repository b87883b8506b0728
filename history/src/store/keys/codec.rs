//! Keys to bytes and back: the layout of the table in the module above.
//!
//! Invariant: `decode` reads back exactly what `encode` wrote and refuses everything else.

use super::{Family, Key, LineOf, QueueKind, RegistryKind};
use crate::ids::{Namespace, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId};

/// The second part of every key. Persisted.
pub(super) mod kind {
    pub const FORMAT: u8 = 0x01;
    pub const SHARD_INFO: u8 = 0x02;
    pub const CURRENT_RUN: u8 = 0x10;
    pub const RUN_HEAD: u8 = 0x11;
    pub const REGISTRY: u8 = 0x12;
    pub const OUTBOX: u8 = 0x13;
    pub const COMPENSATION: u8 = 0x14;
    pub const PAYLOAD: u8 = 0x15;
    pub const JOURNAL: u8 = 0x20;
    pub const QUEUE: u8 = 0x30;
    pub const TIMER: u8 = 0x31;
    pub const VISIBILITY: u8 = 0x32;
    pub const SNAPSHOT: u8 = 0x33;
    pub const BY_WORKFLOW: u8 = 0x34;
    pub const BY_TYPE: u8 = 0x35;
    pub const BY_STATUS: u8 = 0x36;

    #[cfg(test)]
    pub const ALL: [u8; 16] = [
        FORMAT,
        SHARD_INFO,
        CURRENT_RUN,
        RUN_HEAD,
        REGISTRY,
        OUTBOX,
        COMPENSATION,
        PAYLOAD,
        JOURNAL,
        QUEUE,
        TIMER,
        VISIBILITY,
        SNAPSHOT,
        BY_WORKFLOW,
        BY_TYPE,
        BY_STATUS,
    ];
}

/// Stands where a shard would: shard counts are `u16`, so the last shard there can be is `fffe`.
const NO_SHARD: ShardId = ShardId(u16::MAX);

/// Bytes that are no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{family} key \"{bytes}\" is malformed: {reason}")]
pub struct InvalidKey {
    /// Where it was read.
    pub family: Family,
    /// The bytes, escaped.
    pub bytes: String,
    /// What is wrong with them.
    pub reason: &'static str,
}

impl Key {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        self.encode_into(&mut out);
        out
    }

    /// Appends its bytes.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Format => head(out, NO_SHARD, kind::FORMAT),
            Self::ShardInfo { shard } => head(out, *shard, kind::SHARD_INFO),
            Self::CurrentRun {
                shard,
                namespace,
                workflow_id,
            } => {
                head(out, *shard, kind::CURRENT_RUN);
                text(out, namespace.as_str());
                text(out, workflow_id.as_str());
            }
            Self::RunHead {
                shard,
                namespace,
                run_id,
            } => {
                head(out, *shard, kind::RUN_HEAD);
                text(out, namespace.as_str());
                out.extend_from_slice(&run_id.0);
            }
            Self::Registry {
                shard,
                namespace,
                kind,
                id,
            } => {
                head(out, *shard, kind::REGISTRY);
                text(out, namespace.as_str());
                out.push(*kind as u8);
                text(out, id);
            }
            Self::Outbox {
                shard,
                namespace,
                event_id,
            } => {
                head(out, *shard, kind::OUTBOX);
                text(out, namespace.as_str());
                text(out, event_id);
            }
            Self::Compensation {
                shard,
                namespace,
                id,
            } => {
                head(out, *shard, kind::COMPENSATION);
                text(out, namespace.as_str());
                text(out, id);
            }
            Self::Payload {
                shard,
                namespace,
                run_id,
                digest,
            } => {
                head(out, *shard, kind::PAYLOAD);
                text(out, namespace.as_str());
                out.extend_from_slice(&run_id.0);
                out.extend_from_slice(digest);
            }
            Self::Journal {
                shard,
                namespace,
                run_id,
                first_seq,
            } => {
                head(out, *shard, kind::JOURNAL);
                text(out, namespace.as_str());
                out.extend_from_slice(&run_id.0);
                out.extend_from_slice(&first_seq.to_be_bytes());
            }
            Self::Queue {
                shard,
                namespace,
                kind,
                queue,
                at,
                run_id,
                event_id,
            } => {
                head(out, *shard, kind::QUEUE);
                text(out, namespace.as_str());
                out.push(*kind as u8);
                text(out, queue.as_str());
                out.extend_from_slice(&ordered(at.0));
                out.extend_from_slice(&run_id.0);
                out.extend_from_slice(&ordered(*event_id));
            }
            Self::Timer {
                shard,
                due,
                namespace,
                run_id,
            } => {
                head(out, *shard, kind::TIMER);
                out.extend_from_slice(&ordered(due.0));
                text(out, namespace.as_str());
                out.extend_from_slice(&run_id.0);
            }
            Self::Visibility {
                shard,
                namespace,
                started,
                run_id,
            } => {
                head(out, *shard, kind::VISIBILITY);
                text(out, namespace.as_str());
                out.extend_from_slice(&ordered(!started.0));
                out.extend_from_slice(&run_id.0);
            }
            Self::Snapshot {
                shard,
                namespace,
                run_id,
            } => {
                head(out, *shard, kind::SNAPSHOT);
                text(out, namespace.as_str());
                out.extend_from_slice(&run_id.0);
            }
            Self::Line {
                shard,
                namespace,
                of,
                started,
                run_id,
            } => {
                line(out, *shard, namespace, of);
                out.extend_from_slice(&ordered(!started.0));
                out.extend_from_slice(&run_id.0);
            }
        }
    }

    /// Reads back what [`Key::encode`] wrote, and nothing else.
    pub fn decode(family: Family, bytes: &[u8]) -> Result<Self, InvalidKey> {
        let invalid = |reason| InvalidKey {
            family,
            bytes: bytes.escape_ascii().to_string(),
            reason,
        };
        let mut rest = Fields(bytes);
        let key = rest
            .key()
            .ok_or_else(|| invalid("a field is cut short or holds what it cannot"))?;
        if !rest.0.is_empty() {
            return Err(invalid("bytes follow its last field"));
        }
        if key.family() != family {
            return Err(invalid("its kind belongs to another family"));
        }
        Ok(key)
    }
}

pub(super) fn head(out: &mut Vec<u8>, shard: ShardId, kind: u8) {
    out.extend_from_slice(&shard.0.to_be_bytes());
    out.push(kind);
}

/// What the keys of all runs of a line begin with.
pub(super) fn line(out: &mut Vec<u8>, shard: ShardId, namespace: &Namespace, of: &LineOf) {
    let kind = match of {
        LineOf::Workflow(_) => kind::BY_WORKFLOW,
        LineOf::Type(_) => kind::BY_TYPE,
        LineOf::Status(_) => kind::BY_STATUS,
    };
    head(out, shard, kind);
    text(out, namespace.as_str());
    match of {
        LineOf::Workflow(id) => text(out, id.as_str()),
        LineOf::Type(name) => text(out, name),
        LineOf::Status(number) => out.push(*number),
    }
}

/// Appends a text so that the order of the bytes is the order of the texts, whatever follows.
pub(super) fn text(out: &mut Vec<u8>, text: &str) {
    for (i, part) in text.as_bytes().split(|byte| *byte == 0).enumerate() {
        if i > 0 {
            out.extend_from_slice(&[0x00, 0xff]);
        }
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&[0x00, 0x01]);
}

/// Flips the sign bit, so that the order of the bytes is the order of the numbers.
pub(super) fn ordered(number: i64) -> [u8; 8] {
    (number.cast_unsigned() ^ (1 << 63)).to_be_bytes()
}

/// What is left to decode.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn key(&mut self) -> Option<Key> {
        let shard = ShardId(u16::from_be_bytes(self.take()?));
        let [kind] = self.take()?;
        if (shard == NO_SHARD) != (kind == kind::FORMAT) {
            return None;
        }
        Some(match kind {
            kind::FORMAT => Key::Format,
            kind::SHARD_INFO => Key::ShardInfo { shard },
            kind::CURRENT_RUN => Key::CurrentRun {
                shard,
                namespace: self.namespace()?,
                workflow_id: WorkflowId::parse(self.text()?).ok()?,
            },
            kind::RUN_HEAD => Key::RunHead {
                shard,
                namespace: self.namespace()?,
                run_id: self.run_id()?,
            },
            kind::REGISTRY => Key::Registry {
                shard,
                namespace: self.namespace()?,
                kind: self.one_of(RegistryKind::ALL, |kind| kind as u8)?,
                id: self.text()?,
            },
            kind::OUTBOX => Key::Outbox {
                shard,
                namespace: self.namespace()?,
                event_id: self.text()?,
            },
            kind::COMPENSATION => Key::Compensation {
                shard,
                namespace: self.namespace()?,
                id: self.text()?,
            },
            kind::PAYLOAD => Key::Payload {
                shard,
                namespace: self.namespace()?,
                run_id: self.run_id()?,
                digest: self.take()?,
            },
            kind::JOURNAL => Key::Journal {
                shard,
                namespace: self.namespace()?,
                run_id: self.run_id()?,
                first_seq: u64::from_be_bytes(self.take()?),
            },
            kind::QUEUE => Key::Queue {
                shard,
                namespace: self.namespace()?,
                kind: self.one_of(QueueKind::ALL, |kind| kind as u8)?,
                queue: TaskQueueName::parse(self.text()?).ok()?,
                at: Timestamp(self.number()?),
                run_id: self.run_id()?,
                event_id: self.number()?,
            },
            kind::TIMER => Key::Timer {
                shard,
                due: Timestamp(self.number()?),
                namespace: self.namespace()?,
                run_id: self.run_id()?,
            },
            kind::VISIBILITY => Key::Visibility {
                shard,
                namespace: self.namespace()?,
                started: Timestamp(!self.number()?),
                run_id: self.run_id()?,
            },
            kind::SNAPSHOT => Key::Snapshot {
                shard,
                namespace: self.namespace()?,
                run_id: self.run_id()?,
            },
            kind::BY_WORKFLOW | kind::BY_TYPE | kind::BY_STATUS => Key::Line {
                shard,
                namespace: self.namespace()?,
                of: match kind {
                    kind::BY_WORKFLOW => LineOf::Workflow(WorkflowId::parse(self.text()?).ok()?),
                    kind::BY_TYPE => LineOf::Type(self.text()?),
                    _ => LineOf::Status(self.take::<1>()?[0]),
                },
                started: Timestamp(!self.number()?),
                run_id: self.run_id()?,
            },
            _ => return None,
        })
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn text(&mut self) -> Option<String> {
        let mut out = Vec::new();
        loop {
            let end = self.0.iter().position(|byte| *byte == 0)?;
            out.extend_from_slice(&self.0[..end]);
            self.0 = &self.0[end..];
            match self.take::<2>()? {
                [_, 0xff] => out.push(0),
                [_, 0x01] => return String::from_utf8(out).ok(),
                _ => return None,
            }
        }
    }

    fn namespace(&mut self) -> Option<Namespace> {
        Namespace::parse(self.text()?).ok()
    }

    fn run_id(&mut self) -> Option<RunId> {
        self.take().map(RunId)
    }

    fn number(&mut self) -> Option<i64> {
        Some((u64::from_be_bytes(self.take()?) ^ (1 << 63)).cast_signed())
    }

    fn one_of<T: Copy, const N: usize>(&mut self, all: [T; N], code: fn(T) -> u8) -> Option<T> {
        let [byte] = self.take()?;
        all.into_iter().find(|kind| code(*kind) == byte)
    }
}
