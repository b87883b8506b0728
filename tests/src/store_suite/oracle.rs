//! Random operations against a store and against the memory store, which must answer alike.

use bytes::Bytes;
use orchestrion_history::ids::{RangeId, RunId, ShardId, Timestamp};
use orchestrion_history::store::{Batch, Key, KeyRange, MemoryStore, Op, ShardWrite, Store};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use super::{SHARD, namespace};

/// One call of a random run.
#[derive(Debug, Clone)]
enum Call {
    Acquire(ShardId),
    Commit(Vec<Part>),
    Get(Key),
    Scan {
        range: KeyRange,
        limit: usize,
        backwards: bool,
        after: Option<Key>,
    },
    DropIndexes,
    Restart,
}

/// One shard's part of a commit.
#[derive(Debug, Clone)]
struct Part {
    shard: ShardId,
    /// How many acquisitions its range is behind.
    behind: u64,
    /// Keys to set, or without a value to delete.
    ops: Vec<(Key, Option<u8>)>,
}

fn shards() -> impl Strategy<Value = ShardId> {
    (0..2u16).prop_map(ShardId)
}

fn some_keys() -> impl Strategy<Value = Key> {
    let names = select(vec!["a", "a\0", "ab", "b"]).prop_map(namespace);
    let runs = select(vec![0x00, 0x01, 0xff]).prop_map(|byte| RunId([byte; 16]));
    (0..6u8, shards(), names, runs, -2..4i64).prop_map(
        |(kind, shard, namespace, run_id, number)| match kind {
            0 => Key::RunHead {
                shard,
                namespace,
                run_id,
            },
            1 => Key::Outbox {
                shard,
                namespace,
                event_id: "\0".repeat(number.unsigned_abs() as usize),
            },
            2 => Key::Journal {
                shard,
                namespace,
                run_id,
                first_seq: number.unsigned_abs(),
            },
            3 => Key::Timer {
                shard,
                due: Timestamp(number),
                namespace,
                run_id,
            },
            4 => Key::Visibility {
                shard,
                namespace,
                started: Timestamp(number),
                run_id,
            },
            _ => Key::Snapshot {
                shard,
                namespace,
                run_id,
            },
        },
    )
}

fn some_ranges() -> impl Strategy<Value = KeyRange> {
    (0..8u8, some_keys(), -2..4i64).prop_map(|(kind, key, number)| {
        let shard = key.shard().expect("a key of a shard");
        let ns = namespace(["a", "a\0", "ab", "b"][number.unsigned_abs() as usize % 4]);
        let run = RunId([0x01; 16]);
        match kind {
            0 => KeyRange::run_heads(shard),
            1 => KeyRange::outbox_of(shard, &ns),
            2 => KeyRange::journal_of(shard, &ns, run),
            3 => KeyRange::journal_from(shard, &ns, run, number.unsigned_abs()),
            4 => KeyRange::timers(shard),
            5 => KeyRange::timers_until(shard, Timestamp(number)),
            6 => KeyRange::visibility_after(shard, &ns, Timestamp(number), run),
            _ => KeyRange::snapshots(shard),
        }
    })
}

fn calls() -> impl Strategy<Value = Call> {
    let ops = vec((some_keys(), any::<Option<u8>>()), 0..8);
    let behind = prop_oneof![9 => Just(0), 1 => Just(1u64)];
    let part = (shards(), behind, ops).prop_map(|(shard, behind, ops)| Part { shard, behind, ops });
    prop_oneof![
        1 => shards().prop_map(Call::Acquire),
        12 => vec(part, 1..3).prop_map(Call::Commit),
        4 => some_keys().prop_map(Call::Get),
        8 => (some_ranges(), 0..6usize, any::<bool>(), proptest::option::of(some_keys()))
            .prop_map(|(range, limit, backwards, after)| Call::Scan { range, limit, backwards, after }),
        1 => Just(Call::DropIndexes),
        1 => Just(Call::Restart),
    ]
}

/// Random operations, half of them writes, get the same answers from the store and from the memory
/// store. `open` opens the store of one case; given what it opened before, it closes that and opens the
/// same data again.
pub fn matches_the_oracle<S: Store, Case>(
    cases: u32,
    begin: impl Fn() -> Case,
    open: impl Fn(&Case, Option<S>) -> S,
) {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&vec(calls(), 1..60), |calls| {
        let case = begin();
        let oracle = MemoryStore::new();
        let mut store = open(&case, None);
        let mut ranges = [SHARD, ShardId(1)].map(|shard| {
            let range = store.acquire(shard).expect("nothing is in the way");
            assert_eq!(Ok(range), oracle.acquire(shard));
            range
        });
        for call in calls {
            match call {
                Call::Acquire(shard) => {
                    let range = oracle.acquire(shard);
                    prop_assert_eq!(store.acquire(shard), range.clone());
                    ranges[usize::from(shard.0)] = range.expect("the oracle never refuses");
                }
                Call::Commit(parts) => {
                    let shards = parts
                        .into_iter()
                        .map(|Part { shard, behind, ops }| ShardWrite {
                            shard,
                            range: RangeId(ranges[usize::from(shard.0)].0 - behind),
                            ops: ops
                                .into_iter()
                                // Now and then a key of another shard stays in.
                                .filter(|(key, value)| {
                                    key.shard() == Some(shard) || *value == Some(0)
                                })
                                .map(|(key, value)| match value {
                                    Some(byte) => Op::Put(key, Bytes::from(vec![byte; 3])),
                                    None => Op::Delete(key),
                                })
                                .collect(),
                        });
                    let batch = Batch {
                        shards: shards.collect(),
                    };
                    prop_assert_eq!(store.commit(&batch), oracle.commit(&batch));
                }
                Call::Get(key) => prop_assert_eq!(store.get(&key), oracle.get(&key)),
                Call::Scan {
                    range,
                    limit,
                    backwards,
                    after,
                } => {
                    let after = after.filter(|key| key.family() == range.family);
                    let range = match &after {
                        Some(key) if backwards => range.before(key),
                        Some(key) => range.after(key),
                        None => range,
                    };
                    prop_assert_eq!(
                        store.scan(&range, limit, backwards),
                        oracle.scan(&range, limit, backwards)
                    );
                }
                Call::DropIndexes => prop_assert_eq!(store.drop_indexes(), oracle.drop_indexes()),
                Call::Restart => store = open(&case, Some(store)),
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}
