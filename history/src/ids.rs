//! The names of things: namespaces, executions, queues, shards, instants. Parsed once, at the edge.
//!
//! Invariant: a value of these types is within its limit; nothing behind the edge checks it again.

use std::fmt;
use std::sync::Arc;

/// Ids longer than this are refused, in bytes (Temporal's limit, `temporal-wire` section 5).
pub const ID_BYTES_MAX: usize = 1_000;

/// A name from outside that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Nothing was given.
    #[error("{what} is empty: give it a value")]
    Empty {
        /// What was to be named.
        what: &'static str,
    },
    /// Longer than [`ID_BYTES_MAX`].
    #[error("{what} has {bytes} bytes: at most {ID_BYTES_MAX} are allowed")]
    TooLong {
        /// What was to be named.
        what: &'static str,
        /// How long it was.
        bytes: usize,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts 1 to [`ID_BYTES_MAX`] bytes.
            pub fn parse(text: impl AsRef<str>) -> Result<Self, InvalidName> {
                let text = text.as_ref();
                if text.is_empty() {
                    return Err(InvalidName::Empty { what: $what });
                }
                if text.len() > ID_BYTES_MAX {
                    return Err(InvalidName::TooLong { what: $what, bytes: text.len() });
                }
                Ok(Self(text.into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

name!(
    /// A tenant: one per project, and `default`. Every key and every store call has one.
    Namespace,
    "namespace"
);
name!(
    /// What a caller calls an execution. Unique among the open runs of a namespace.
    WorkflowId,
    "workflow id"
);
name!(
    /// Where tasks wait for workers.
    TaskQueueName,
    "task queue"
);

impl Namespace {
    /// Records that belong to no tenant: the API key index, projects. No project can have this name.
    pub fn system() -> Self {
        Self("~system".into())
    }
}

/// One run of a workflow id: a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub [u8; 16]);

impl RunId {
    /// Reads the hyphenated form, as the wires carry it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0u8; 16];
        let mut nibbles = 0usize;
        for c in text.bytes() {
            if c == b'-' {
                continue;
            }
            let value = (c as char).to_digit(16)? as u8;
            *bytes.get_mut(nibbles / 2)? |= if nibbles.is_multiple_of(2) {
                value << 4
            } else {
                value
            };
            nibbles += 1;
        }
        (nibbles == 32).then_some(Self(bytes))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A part of the key space that one owner writes at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

impl ShardId {
    /// Holds the registry, beside its share of executions.
    pub const REGISTRY: Self = Self(0);

    /// The shard of an execution: FNV-1a over namespace and workflow id. Persisted: the data folder
    /// was laid out with it.
    pub fn of(namespace: &Namespace, workflow_id: &WorkflowId, shards: u16) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        for byte in namespace
            .as_str()
            .bytes()
            .chain([0])
            .chain(workflow_id.as_str().bytes())
        {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Self((hash % u64::from(shards.max(1))) as u16)
    }
}

/// A fencing number: who acquires a shard raises it, and writes that carry an older one are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RangeId(pub u64);

/// Nanoseconds since the Unix epoch, from the clock seam or a record; the core never asks for the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// From whole milliseconds.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Whole milliseconds, rounded down.
    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Later by `duration`, at most the end of time.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)),
        )
    }

    /// How long after `earlier` this is; zero when it is not.
    pub fn since(self, earlier: Self) -> std::time::Duration {
        std::time::Duration::from_nanos(
            u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_id_survives_its_text() {
        let id = RunId([0xab, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff]);
        assert_eq!(id.to_string(), "ab010203-0405-0607-0809-0a0b0c0d0eff");
        assert_eq!(RunId::parse(&id.to_string()), Some(id));
        assert_eq!(RunId::parse("ab01"), None);
        assert_eq!(RunId::parse("zz010203-0405-0607-0809-0a0b0c0d0eff"), None);
    }

    #[test]
    fn names_are_bounded() {
        assert!(Namespace::parse("").is_err());
        assert!(WorkflowId::parse("x".repeat(1_000)).is_ok());
        assert!(WorkflowId::parse("x".repeat(1_001)).is_err());
    }
}
