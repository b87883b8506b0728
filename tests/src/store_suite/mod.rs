//! The store contract, one function per promise. A new store proves itself by passing all of them.
//!
//! Each function wants a store that is empty. `matches_the_oracle` compares a store with the memory
//! store, call by call, over random operations.
//!
//! Invariant: nothing here knows which store it tests.

mod oracle;

use std::collections::BTreeSet;

use bytes::Bytes;
use orchestrion_history::ids::{
    Namespace, RangeId, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId,
};
use orchestrion_history::store::{
    Batch, Key, KeyRange, Op, QueueKind, RegistryKind, ShardWrite, Store, StoreErrorKind,
};

pub use self::oracle::matches_the_oracle;

/// The shard that most contracts use.
pub const SHARD: ShardId = ShardId(0);

/// A namespace.
pub fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).expect("tests give valid names")
}

/// A key of the truth family.
pub fn truth(name: &str, id: &str) -> Key {
    Key::Outbox {
        shard: SHARD,
        namespace: namespace(name),
        event_id: id.to_owned(),
    }
}

/// A key of the journal family, in the namespace `ns`.
pub fn journal(first_seq: u64) -> Key {
    Key::Journal {
        shard: SHARD,
        namespace: namespace("ns"),
        run_id: RunId([7; 16]),
        first_seq,
    }
}

/// A key of the index family, in the namespace `ns`.
pub fn timer(due: i64) -> Key {
    let (namespace, run_id) = (namespace("ns"), RunId([7; 16]));
    Key::Timer {
        shard: SHARD,
        due: Timestamp(due),
        namespace,
        run_id,
    }
}

/// Sets a key to a text.
pub fn put(key: Key, value: &str) -> Op {
    Op::Put(key, Bytes::copy_from_slice(value.as_bytes()))
}

/// A batch of one shard.
pub fn batch(range: RangeId, ops: Vec<Op>) -> Batch {
    Batch {
        shards: vec![ShardWrite {
            shard: SHARD,
            range,
            ops,
        }],
    }
}

/// Takes the shard over and commits these operations.
pub fn fill(store: &dyn Store, ops: Vec<Op>) -> RangeId {
    let range = store.acquire(SHARD).expect("nothing is in the way");
    store
        .commit(&batch(range, ops))
        .expect("nothing is in the way");
    range
}

/// The value of a key, as text.
pub fn text(store: &dyn Store, key: &Key) -> Option<String> {
    let value = store.get(key).expect("the key can be read");
    value.map(|value| String::from_utf8(value.to_vec()).expect("tests write texts"))
}

/// The keys of a page, and whether more follow.
pub fn keys(
    store: &dyn Store,
    range: &KeyRange,
    limit: usize,
    backwards: bool,
) -> (Vec<Key>, bool) {
    let page = store
        .scan(range, limit, backwards)
        .expect("the range can be read");
    (
        page.entries.into_iter().map(|(key, _)| key).collect(),
        page.more,
    )
}

/// What was committed is read: the value, the latest value, and nothing where nothing is.
pub fn gets_what_was_committed(store: &dyn Store) {
    let range = fill(
        store,
        vec![
            put(truth("ns", "a"), "1"),
            put(journal(0), ""),
            put(timer(5), "t"),
        ],
    );
    assert_eq!(text(store, &truth("ns", "a")).as_deref(), Some("1"));
    assert_eq!(
        text(store, &journal(0)).as_deref(),
        Some(""),
        "an empty value is a value"
    );
    assert_eq!(text(store, &timer(5)).as_deref(), Some("t"));
    assert_eq!(text(store, &truth("ns", "b")), None);
    assert_eq!(text(store, &journal(1)), None);
    store
        .commit(&batch(range, vec![put(truth("ns", "a"), "2")]))
        .expect("the range is current");
    assert_eq!(text(store, &truth("ns", "a")).as_deref(), Some("2"));
    let gone = vec![
        Op::Delete(truth("ns", "a")),
        Op::Delete(truth("ns", "never there")),
    ];
    store
        .commit(&batch(range, gone))
        .expect("deleting what is not there is no error");
    assert_eq!(text(store, &truth("ns", "a")), None);
}

/// A batch over families and shards is there as a whole.
pub fn a_batch_is_one(store: &dyn Store) {
    let other = ShardId(1);
    let ranges = [SHARD, other].map(|shard| store.acquire(shard).expect("nothing is in the way"));
    let head = |shard| Key::RunHead {
        shard,
        namespace: namespace("ns"),
        run_id: RunId([1; 16]),
    };
    let shards = vec![
        ShardWrite {
            shard: SHARD,
            range: ranges[0],
            ops: vec![
                put(head(SHARD), "0"),
                put(journal(0), "j"),
                put(timer(1), "t"),
            ],
        },
        ShardWrite {
            shard: other,
            range: ranges[1],
            ops: vec![put(head(other), "1")],
        },
    ];
    store
        .commit(&Batch { shards })
        .expect("both ranges are current");
    assert_eq!(text(store, &head(SHARD)).as_deref(), Some("0"));
    assert_eq!(text(store, &head(other)).as_deref(), Some("1"));
    assert_eq!(text(store, &journal(0)).as_deref(), Some("j"));
    assert_eq!(text(store, &timer(1)).as_deref(), Some("t"));
}

/// Operations of a batch apply in their order, over the parts of a shard too.
pub fn operations_apply_in_order(store: &dyn Store) {
    let key = |id| truth("ns", id);
    let range = fill(
        store,
        vec![
            put(key("put, delete"), "1"),
            Op::Delete(key("put, delete")),
            Op::Delete(key("delete, put")),
            put(key("delete, put"), "2"),
            put(key("put, put"), "1"),
            put(key("put, put"), "2"),
        ],
    );
    assert_eq!(text(store, &key("put, delete")), None);
    assert_eq!(text(store, &key("delete, put")).as_deref(), Some("2"));
    assert_eq!(text(store, &key("put, put")).as_deref(), Some("2"));
    let part = |value| ShardWrite {
        shard: SHARD,
        range,
        ops: vec![put(key("parts"), value)],
    };
    store
        .commit(&Batch {
            shards: vec![part("1"), part("2")],
        })
        .expect("the range is current");
    assert_eq!(text(store, &key("parts")).as_deref(), Some("2"));
}

/// Who acquires a shard fences off whoever held it, and no part of a fenced batch is written.
pub fn fences_off_the_former_owner(store: &dyn Store) {
    let other = ShardId(1);
    let former = store.acquire(SHARD).expect("nothing is in the way");
    let untouched = store.acquire(other).expect("nothing is in the way");
    let owner = store.acquire(SHARD).expect("nothing is in the way");
    assert!(owner > former, "{owner:?} after {former:?}");

    let mine = Key::RunHead {
        shard: other,
        namespace: namespace("ns"),
        run_id: RunId([1; 16]),
    };
    let part_of_the_other = ShardWrite {
        shard: other,
        range: untouched,
        ops: vec![put(mine.clone(), "1")],
    };
    let never_given = RangeId(owner.0 + 1);
    for range in [former, never_given] {
        let part = ShardWrite {
            shard: SHARD,
            range,
            ops: vec![put(truth("ns", "a"), "old")],
        };
        let fenced = Batch {
            shards: vec![part_of_the_other.clone(), part],
        };
        let error = store
            .commit(&fenced)
            .expect_err("the range is not the owner's");
        assert_eq!(error.kind, StoreErrorKind::Fenced, "{error}");
        assert_eq!(error.operation, "commit");
    }
    assert_eq!(
        text(store, &mine),
        None,
        "the part that was not fenced is not written either"
    );
    assert_eq!(text(store, &truth("ns", "a")), None);

    store
        .commit(&batch(owner, vec![put(truth("ns", "a"), "new")]))
        .expect("the range is current");
    store
        .commit(&Batch {
            shards: vec![part_of_the_other],
        })
        .expect("the range is current");
    assert_eq!(text(store, &truth("ns", "a")).as_deref(), Some("new"));
}

/// A shard that nobody has acquired takes no writes.
pub fn refuses_writes_to_a_shard_without_owner(store: &dyn Store) {
    for range in [RangeId(0), RangeId(1)] {
        let error = store
            .commit(&batch(range, vec![put(truth("ns", "a"), "1")]))
            .expect_err("nobody holds the shard");
        assert_eq!(error.kind, StoreErrorKind::Fenced, "{error}");
    }
    assert_eq!(text(store, &truth("ns", "a")), None);
}

/// An owner writes its own shard only, and never the store's own records.
pub fn refuses_keys_outside_the_shard(store: &dyn Store) {
    let range = store.acquire(SHARD).expect("nothing is in the way");
    store.acquire(ShardId(1)).expect("nothing is in the way");
    let foreign = Key::RunHead {
        shard: ShardId(1),
        namespace: namespace("ns"),
        run_id: RunId([1; 16]),
    };
    for key in [
        foreign.clone(),
        Key::ShardInfo { shard: SHARD },
        Key::Format,
    ] {
        let ops = vec![put(truth("ns", "a"), "1"), put(key.clone(), "12345678")];
        let error = store
            .commit(&batch(range, ops))
            .expect_err("the key is not the owner's");
        assert_eq!(error.kind, StoreErrorKind::Fenced, "{error}");
        assert_eq!(error.key, Some(key.to_string()));
    }
    assert_eq!(text(store, &foreign), None);
    assert_eq!(text(store, &truth("ns", "a")), None);
}

/// A batch that writes nothing is fine, unless its owner has lost the shard.
pub fn an_empty_batch_writes_nothing(store: &dyn Store) {
    store
        .commit(&Batch::default())
        .expect("nothing is asked for");
    let former = store.acquire(SHARD).expect("nothing is in the way");
    store
        .commit(&batch(former, vec![]))
        .expect("the range is current");
    store.acquire(SHARD).expect("nothing is in the way");
    let error = store
        .commit(&batch(former, vec![]))
        .expect_err("the shard is lost");
    assert_eq!(error.kind, StoreErrorKind::Fenced, "{error}");
}

/// A scan gives the keys of its range and no others, in order, up to its limit, from either end.
pub fn scans_in_order_within_bounds(store: &dyn Store) {
    let ops = [5, 1, 3, 2, 4].map(|seq| put(journal(seq), &seq.to_string()));
    fill(
        store,
        [
            ops.to_vec(),
            vec![put(timer(1), "t"), put(truth("ns", "a"), "1")],
        ]
        .concat(),
    );
    let run = KeyRange::journal_of(SHARD, &namespace("ns"), RunId([7; 16]));
    let up = |seqs: &[u64]| seqs.iter().map(|seq| journal(*seq)).collect::<Vec<_>>();

    assert_eq!(keys(store, &run, 9, false), (up(&[1, 2, 3, 4, 5]), false));
    assert_eq!(keys(store, &run, 9, true), (up(&[5, 4, 3, 2, 1]), false));
    assert_eq!(
        keys(store, &run, 5, false),
        (up(&[1, 2, 3, 4, 5]), false),
        "exactly the limit"
    );
    assert_eq!(keys(store, &run, 2, false), (up(&[1, 2]), true));
    assert_eq!(keys(store, &run, 2, true), (up(&[5, 4]), true));
    assert_eq!(keys(store, &run, 0, false), (vec![], true));

    let rest = KeyRange::journal_from(SHARD, &namespace("ns"), RunId([7; 16]), 4);
    assert_eq!(
        keys(store, &rest, 9, false),
        (up(&[4, 5]), false),
        "the first one belongs to it"
    );
    let none = KeyRange::journal_from(SHARD, &namespace("ns"), RunId([7; 16]), 6);
    assert_eq!(keys(store, &none, 9, false), (vec![], false));
    assert_eq!(keys(store, &none, 0, false), (vec![], false));
    let nobody = KeyRange::journal_of(SHARD, &namespace("ns"), RunId([8; 16]));
    assert_eq!(keys(store, &nobody, 9, true), (vec![], false));
    let upside_down = KeyRange {
        from: run.until.clone(),
        until: run.from.clone(),
        ..run.clone()
    };
    assert_eq!(keys(store, &upside_down, 9, false), (vec![], false));

    let page = store.scan(&run, 1, true).expect("the range can be read");
    assert_eq!(page.entries, [(journal(5), Bytes::from_static(b"5"))]);
}

/// Pages follow one another without a gap or a repeat, while keys come and go.
pub fn pages_continue_after_the_last_key(store: &dyn Store) {
    let range = fill(store, (0..10).map(|due| put(timer(due), "t")).collect());
    let all = KeyRange::timers(SHARD);
    let (first, more) = keys(store, &all, 4, false);
    assert!(more);
    let last = first.last().expect("a page of four").clone();
    // The cursor is a place, not a record: what it names may be gone.
    store
        .commit(&batch(range, vec![Op::Delete(last.clone())]))
        .expect("the range is current");
    let (second, more) = keys(store, &all.after(&last), 4, false);
    assert!(more);
    let (third, more) = keys(store, &all.after(&second[3]), 4, false);
    assert!(!more);
    let paged = [first, second, third].concat();
    assert_eq!(paged, (0..10).map(timer).collect::<Vec<_>>());

    let (first, _) = keys(store, &all, 4, true);
    let (second, more) = keys(store, &all.before(&first[3]), 9, true);
    assert_eq!(second, [5, 4, 2, 1, 0].map(timer), "3 is gone");
    assert!(!more);
    assert_eq!(
        keys(
            store,
            &KeyRange::timers_until(SHARD, Timestamp(2)),
            9,
            false
        )
        .0,
        [0, 1, 2].map(timer)
    );
}

/// A listing is newest first, whole or from a cursor.
pub fn lists_newest_first(store: &dyn Store) {
    let line = |started, run| {
        let (started, run_id) = (Timestamp(started), RunId([run; 16]));
        Key::Visibility {
            shard: SHARD,
            namespace: namespace("ns"),
            started,
            run_id,
        }
    };
    let lines = [line(9, 1), line(5, 1), line(5, 2), line(0, 1), line(-3, 1)];
    fill(
        store,
        lines
            .iter()
            .rev()
            .map(|key| put(key.clone(), "l"))
            .collect(),
    );
    let all = KeyRange::visibility(SHARD, &namespace("ns"));
    assert_eq!(keys(store, &all, 9, false).0, lines);
    let after = |started, run| {
        let (started, run_id) = (Timestamp(started), RunId([run; 16]));
        keys(
            store,
            &KeyRange::visibility_after(SHARD, &namespace("ns"), started, run_id),
            9,
            false,
        )
        .0
    };
    assert_eq!(after(5, 1), lines[2..]);
    assert_eq!(
        after(4, 0),
        lines[3..],
        "a cursor may name what is not there"
    );
    assert_eq!(after(-3, 1), []);
}

/// Namespaces and shards whose names or numbers begin each other never see one another's records.
pub fn namespaces_do_not_bleed(store: &dyn Store) {
    let names = ["a", "a\0", "a\0b", "a\u{1}", "ab", "b"];
    let run = RunId([1; 16]);
    let queue = TaskQueueName::parse("a").expect("a valid name");
    let record = |shard, name: &str| {
        [
            Key::Outbox {
                shard,
                namespace: namespace(name),
                event_id: "a".into(),
            },
            Key::Registry {
                shard,
                namespace: namespace(name),
                kind: RegistryKind::Service,
                id: "a".into(),
            },
            Key::Compensation {
                shard,
                namespace: namespace(name),
                id: "a".into(),
            },
            Key::Payload {
                shard,
                namespace: namespace(name),
                run_id: run,
                digest: [0; 32],
            },
            Key::Journal {
                shard,
                namespace: namespace(name),
                run_id: run,
                first_seq: 0,
            },
            Key::Visibility {
                shard,
                namespace: namespace(name),
                started: Timestamp(1),
                run_id: run,
            },
            Key::Queue {
                shard,
                namespace: namespace(name),
                kind: QueueKind::Activity,
                queue: queue.clone(),
                at: Timestamp(1),
                run_id: run,
                event_id: 1,
            },
        ]
    };
    let shards = [SHARD, ShardId(1)].map(|shard| ShardWrite {
        shard,
        range: store.acquire(shard).expect("nothing is in the way"),
        ops: names
            .iter()
            .flat_map(|name| record(shard, name))
            .map(|key| put(key, "r"))
            .collect(),
    });
    store
        .commit(&Batch {
            shards: shards.to_vec(),
        })
        .expect("the ranges are current");
    for shard in [SHARD, ShardId(1)] {
        for name in names {
            let ns = namespace(name);
            let ranges = [
                KeyRange::outbox_of(shard, &ns),
                KeyRange::registry_kind(shard, &ns, RegistryKind::Service),
                KeyRange::compensations(shard, &ns),
                KeyRange::payloads_of(shard, &ns, run),
                KeyRange::journal_of(shard, &ns, run),
                KeyRange::visibility(shard, &ns),
                KeyRange::queue(shard, &ns, QueueKind::Activity, &queue),
            ];
            for (range, key) in ranges.iter().zip(record(shard, name)) {
                assert_eq!(
                    keys(store, range, 9, false),
                    (vec![key], false),
                    "{name:?} in {range}"
                );
            }
            assert_eq!(
                keys(store, &KeyRange::registry(shard, &ns), 9, false)
                    .0
                    .len(),
                1
            );
        }
        for range in [
            KeyRange::outbox(shard),
            KeyRange::registry_all(shard),
            KeyRange::queues(shard),
        ] {
            assert_eq!(
                keys(store, &range, 99, false).0.len(),
                names.len(),
                "{range}"
            );
        }
    }
}

/// Dropping the indexes takes all of them and nothing else, and they can be written again.
pub fn dropping_indexes_keeps_the_truth(store: &dyn Store) {
    let line = Key::Visibility {
        shard: SHARD,
        namespace: namespace("ns"),
        started: Timestamp(1),
        run_id: RunId([1; 16]),
    };
    let snapshot = Key::Snapshot {
        shard: SHARD,
        namespace: namespace("ns"),
        run_id: RunId([1; 16]),
    };
    let queue = Key::Queue {
        shard: SHARD,
        namespace: namespace("ns"),
        kind: QueueKind::Workflow,
        queue: TaskQueueName::parse("q").expect("a valid name"),
        at: Timestamp(1),
        run_id: RunId([1; 16]),
        event_id: 1,
    };
    let indexes = [timer(1), line, snapshot, queue];
    let ops = indexes.iter().map(|key| put(key.clone(), "i"));
    let range = fill(
        store,
        ops.chain([put(truth("ns", "a"), "1"), put(journal(0), "j")])
            .collect(),
    );
    for _ in 0..2 {
        store.drop_indexes().expect("nothing is in the way");
        for key in &indexes {
            assert_eq!(text(store, key), None, "{key}");
        }
        assert_eq!(
            keys(store, &KeyRange::timers(SHARD), 9, false),
            (vec![], false)
        );
        assert_eq!(text(store, &truth("ns", "a")).as_deref(), Some("1"));
        assert_eq!(text(store, &journal(0)).as_deref(), Some("j"));
    }
    store
        .commit(&batch(range, vec![put(timer(2), "new")]))
        .expect("the range is current");
    assert_eq!(
        keys(store, &KeyRange::timers(SHARD), 9, false),
        (vec![timer(2)], false)
    );
}

/// Rest changes nothing, however often, and commits go on meanwhile.
pub fn resting_changes_nothing(store: &dyn Store) {
    let range = fill(
        store,
        vec![
            put(truth("ns", "a"), "1"),
            put(journal(0), "j"),
            put(timer(2), "t"),
        ],
    );
    for turn in 0..4 {
        store.rest();
        let (key, value) = (truth("ns", &format!("after {turn}")), format!("v{turn}"));
        store
            .commit(&batch(range, vec![put(key.clone(), &value)]))
            .expect("the range is current");
        assert_eq!(text(store, &key), Some(value));
    }
    assert_eq!(text(store, &truth("ns", "a")).as_deref(), Some("1"));
    assert_eq!(text(store, &journal(0)).as_deref(), Some("j"));
    assert_eq!(
        keys(store, &KeyRange::timers(SHARD), 9, false),
        (vec![timer(2)], false)
    );
}

/// A value of 9 MB, above every block and buffer size, comes back byte for byte.
pub fn keeps_large_values(store: &dyn Store) {
    let large = Bytes::from(
        (0..9 * 1024 * 1024_u32)
            .map(|i| (i ^ (i >> 11)) as u8)
            .collect::<Vec<_>>(),
    );
    let range = fill(
        store,
        vec![Op::Put(journal(0), large.clone()), put(journal(1), "small")],
    );
    assert_eq!(
        store.get(&journal(0)).expect("the key can be read"),
        Some(large.clone())
    );
    let run = KeyRange::journal_of(SHARD, &namespace("ns"), RunId([7; 16]));
    let page = store.scan(&run, 9, true).expect("the range can be read");
    assert_eq!(page.entries[1], (journal(0), large.clone()));
    store
        .commit(&batch(range, vec![Op::Put(timer(1), large.clone())]))
        .expect("the range is current");
    assert_eq!(
        store.get(&timer(1)).expect("the key can be read"),
        Some(large)
    );
}

/// An id of the longest allowed kind, with bytes that the encoding uses itself, is a key like any other.
pub fn keeps_long_and_odd_ids(store: &dyn Store) {
    let ids = [
        "\0".repeat(1_000),
        "\u{1}".into(),
        "é\0ÿ".into(),
        "x".repeat(1_000),
    ];
    let key = |id: &String| Key::CurrentRun {
        shard: SHARD,
        namespace: namespace("ns"),
        workflow_id: WorkflowId::parse(id).expect("within the limit"),
    };
    fill(store, ids.iter().map(|id| put(key(id), id)).collect());
    for id in &ids {
        assert_eq!(text(store, &key(id)).as_ref(), Some(id));
    }
    let (found, _) = keys(store, &KeyRange::current_runs(SHARD), 9, false);
    assert_eq!(
        found,
        ids.iter()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .map(key)
            .collect::<Vec<_>>()
    );
}
