//! The key space: golden bytes, round trips, and that encoded order is logical order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const RUN: RunId = RunId([0xab; 16]);

fn namespace() -> Namespace {
    Namespace::parse("ns").unwrap()
}

fn line(shard: ShardId, namespace: &Namespace, of: LineOf) -> Key {
    Key::Line {
        shard,
        namespace: namespace.clone(),
        of,
        started: Timestamp(1),
        run_id: RUN,
    }
}

/// One key of each kind, with the bytes it has had since format 1.
fn golden() -> Vec<(Key, &'static str)> {
    let shard = ShardId(3);
    let namespace = namespace();
    let run = "ab".repeat(16);
    let hex = |text: String| -> &'static str { text.leak() };
    vec![
        (Key::Format, "ffff01"),
        (Key::ShardInfo { shard }, "000302"),
        (
            Key::CurrentRun {
                shard,
                namespace: namespace.clone(),
                workflow_id: WorkflowId::parse("w\0é").unwrap(),
            },
            "0003106e7300017700ffc3a90001",
        ),
        (
            Key::RunHead {
                shard,
                namespace: namespace.clone(),
                run_id: RUN,
            },
            hex(format!("0003116e730001{run}")),
        ),
        (
            Key::Registry {
                shard,
                namespace: Namespace::system(),
                kind: RegistryKind::Service,
                id: "s_1".into(),
            },
            "0003127e73797374656d000103735f310001",
        ),
        (
            Key::Outbox {
                shard,
                namespace: namespace.clone(),
                event_id: "e".into(),
            },
            "0003136e730001650001",
        ),
        (
            Key::Compensation {
                shard,
                namespace: namespace.clone(),
                id: "c".into(),
            },
            "0003146e730001630001",
        ),
        (
            Key::Payload {
                shard,
                namespace: namespace.clone(),
                run_id: RUN,
                digest: [0xcd; 32],
            },
            hex(format!("0003156e730001{run}{}", "cd".repeat(32))),
        ),
        (
            Key::Journal {
                shard,
                namespace: namespace.clone(),
                run_id: RUN,
                first_seq: 258,
            },
            hex(format!("0003206e730001{run}0000000000000102")),
        ),
        (
            Key::Queue {
                shard,
                namespace: namespace.clone(),
                kind: QueueKind::Activity,
                queue: TaskQueueName::parse("q").unwrap(),
                at: Timestamp(1),
                run_id: RUN,
                event_id: 5,
            },
            hex(format!(
                "0003306e730001027100018000000000000001{run}8000000000000005"
            )),
        ),
        (
            Key::Timer {
                shard,
                due: Timestamp(-1),
                namespace: namespace.clone(),
                run_id: RUN,
            },
            hex(format!("0003317fffffffffffffff6e730001{run}")),
        ),
        (
            Key::Visibility {
                shard,
                namespace: namespace.clone(),
                started: Timestamp(1),
                run_id: RUN,
            },
            hex(format!("0003326e7300017ffffffffffffffe{run}")),
        ),
        (
            Key::Snapshot {
                shard,
                namespace: namespace.clone(),
                run_id: RUN,
            },
            hex(format!("0003336e730001{run}")),
        ),
        (
            line(
                shard,
                &namespace,
                LineOf::Workflow(WorkflowId::parse("w").unwrap()),
            ),
            hex(format!("0003346e7300017700017ffffffffffffffe{run}")),
        ),
        (
            line(shard, &namespace, LineOf::Type("t".into())),
            hex(format!("0003356e7300017400017ffffffffffffffe{run}")),
        ),
        (
            line(shard, &namespace, LineOf::Status(2)),
            hex(format!("0003366e730001027ffffffffffffffe{run}")),
        ),
    ]
}

#[test]
fn keys_have_the_bytes_they_always_had() {
    for (key, expected) in golden() {
        let bytes = key.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected, "{key}");
        assert_eq!(Key::decode(key.family(), &bytes), Ok(key));
    }
}

#[test]
fn every_kind_has_a_golden_key() {
    let kinds: BTreeSet<_> = golden().iter().map(|(key, _)| key.encode()[2]).collect();
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), codec::kind::ALL);
}

#[test]
fn enumerations_keep_their_numbers() {
    assert_eq!(
        RegistryKind::ALL.map(|kind| kind as u8),
        [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12]
    );
    assert_eq!(QueueKind::ALL.map(|kind| kind as u8), [1, 2]);
    assert_eq!(
        Family::ALL.map(Family::name),
        ["meta", "truth", "journal", "index"]
    );
}

#[test]
fn keys_read_as_sentences() {
    let shown: Vec<_> = golden().iter().map(|(key, _)| key.to_string()).collect();
    let expected = [
        "the store's format",
        "the range id of shard 3",
        r#"current run of workflow "w\0é" in namespace "ns", shard 3"#,
        r#"head of run abababab-abab-abab-abab-abababababab in namespace "ns", shard 3"#,
        r#"service "s_1" in namespace "~system", shard 3"#,
        r#"outbox event "e" in namespace "ns", shard 3"#,
        r#"compensation "c" in namespace "ns", shard 3"#,
        &format!(
            r#"payload {} of run abababab-abab-abab-abab-abababababab in namespace "ns", shard 3"#,
            "cd".repeat(32)
        ),
        concat!(
            "journal of run abababab-abab-abab-abab-abababababab from record 258 ",
            r#"in namespace "ns", shard 3"#
        ),
        concat!(
            "activity task 5 of run abababab-abab-abab-abab-abababababab ",
            r#"at 1970-01-01T00:00:00.000000001Z on queue "q" in namespace "ns", shard 3"#
        ),
        concat!(
            "timer of run abababab-abab-abab-abab-abababababab ",
            r#"due 1969-12-31T23:59:59.999999999Z in namespace "ns", shard 3"#
        ),
        concat!(
            "listing of run abababab-abab-abab-abab-abababababab ",
            r#"started 1970-01-01T00:00:00.000000001Z in namespace "ns", shard 3"#
        ),
        r#"snapshot of run abababab-abab-abab-abab-abababababab in namespace "ns", shard 3"#,
        concat!(
            r#"line of run abababab-abab-abab-abab-abababababab by workflow "w" "#,
            r#"started 1970-01-01T00:00:00.000000001Z in namespace "ns", shard 3"#
        ),
        concat!(
            r#"line of run abababab-abab-abab-abab-abababababab by type "t" "#,
            r#"started 1970-01-01T00:00:00.000000001Z in namespace "ns", shard 3"#
        ),
        concat!(
            "line of run abababab-abab-abab-abab-abababababab by status 2 ",
            r#"started 1970-01-01T00:00:00.000000001Z in namespace "ns", shard 3"#
        ),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn instants_read_as_dates() {
    let shown = |seconds: i64| Utc(Timestamp(seconds * 1_000_000_000)).to_string();
    assert_eq!(shown(0), "1970-01-01T00:00:00Z");
    assert_eq!(shown(951_782_399), "2000-02-28T23:59:59Z");
    assert_eq!(shown(951_782_400), "2000-02-29T00:00:00Z");
    assert_eq!(shown(951_868_800), "2000-03-01T00:00:00Z");
    assert_eq!(shown(4_107_542_399), "2100-02-28T23:59:59Z");
    assert_eq!(shown(4_107_542_400), "2100-03-01T00:00:00Z");
    assert_eq!(shown(-86_400), "1969-12-31T00:00:00Z");
    assert_eq!(
        Utc(Timestamp(1_795_224_669_500_000_000)).to_string(),
        "2026-11-21T01:31:09.5Z"
    );
}

#[test]
fn damaged_keys_are_refused() {
    for (key, _) in golden() {
        let bytes = key.encode();
        for cut in 0..bytes.len() {
            assert!(
                Key::decode(key.family(), &bytes[..cut]).is_err(),
                "{key} cut at {cut}"
            );
        }
        let longer = [bytes.as_slice(), &[0]].concat();
        assert!(
            Key::decode(key.family(), &longer).is_err(),
            "{key} with a byte more"
        );
        for family in Family::ALL
            .into_iter()
            .filter(|family| *family != key.family())
        {
            assert!(Key::decode(family, &bytes).is_err(), "{key} in {family}");
        }
    }
    let error = Key::decode(Family::Truth, b"\0\x01\x77ab").unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"truth key "\x00\x01wab" is malformed: a field is cut short or holds what it cannot"#
    );
}

#[test]
fn a_namespace_sees_nothing_of_one_whose_name_it_begins() {
    let named = |name: &str| Namespace::parse(name).unwrap();
    let head = |name: &str| Key::RunHead {
        shard: ShardId(0),
        namespace: named(name),
        run_id: RUN,
    };
    let entry = |name: &str| Key::Outbox {
        shard: ShardId(0),
        namespace: named(name),
        event_id: "e".into(),
    };
    let names = ["a", "a\0", "a\0b", "a\u{1}", "ab", "b"];
    for one in names {
        for other in names {
            let range = KeyRange::outbox_of(ShardId(0), &named(one));
            assert_eq!(
                range.contains(&entry(other)),
                one == other,
                "{one:?} and {other:?}"
            );
            assert_eq!(
                one.cmp(other),
                head(one).encode().cmp(&head(other).encode())
            );
        }
    }
}

#[test]
fn ranges_hold_what_they_name() {
    let shard = ShardId(7);
    let last_run = RunId([0xff; 16]);
    let entry = |run_id, first_seq| Key::Journal {
        shard,
        namespace: namespace(),
        run_id,
        first_seq,
    };
    let journal = KeyRange::journal_of(shard, &namespace(), last_run);
    assert!(journal.contains(&entry(last_run, 0)));
    assert!(journal.contains(&entry(last_run, u64::MAX)));
    assert!(!journal.contains(&entry(RUN, 0)));
    let from = KeyRange::journal_from(shard, &namespace(), last_run, 9);
    assert!(!from.contains(&entry(last_run, 8)));
    assert!(from.contains(&entry(last_run, 9)));
    assert!(from.contains(&entry(last_run, u64::MAX)));

    let timer = |due| Key::Timer {
        shard,
        due: Timestamp(due),
        namespace: namespace(),
        run_id: last_run,
    };
    let due = KeyRange::timers_until(shard, Timestamp(5));
    assert!(due.contains(&timer(i64::MIN)));
    assert!(due.contains(&timer(5)), "what is due at the instant itself");
    assert!(!due.contains(&timer(6)));
    assert!(KeyRange::timers_until(shard, Timestamp(i64::MAX)).contains(&timer(i64::MAX)));
    assert!(!KeyRange::timers(ShardId(6)).contains(&timer(5)));
    let last_shard = ShardId(u16::MAX - 1);
    assert!(KeyRange::snapshots(last_shard).contains(&Key::Snapshot {
        shard: last_shard,
        namespace: namespace(),
        run_id: last_run
    }));

    let line = |started, run_id| Key::Visibility {
        shard,
        namespace: namespace(),
        started: Timestamp(started),
        run_id,
    };
    let behind = KeyRange::visibility_after(shard, &namespace(), Timestamp(5), RUN);
    assert!(!behind.contains(&line(6, RUN)));
    assert!(!behind.contains(&line(5, RUN)));
    assert!(behind.contains(&line(5, last_run)));
    assert!(behind.contains(&line(4, RunId([0; 16]))));
    assert!(behind.contains(&line(i64::MIN, last_run)));

    let of = LineOf::Type("t".into());
    let started = |at| Key::Line {
        shard,
        namespace: namespace(),
        of: of.clone(),
        started: Timestamp(at),
        run_id: last_run,
    };
    let line = KeyRange::line(shard, &namespace(), &of);
    let within = line.started_between(Some(Timestamp(3)), Some(Timestamp(5)), None);
    for at in 2..7 {
        assert!(line.contains(&started(at)));
        assert_eq!(within.contains(&started(at)), (3..=5).contains(&at), "{at}");
    }
    let rest = line.started_between(None, None, Some((Timestamp(4), last_run)));
    assert!(!rest.contains(&started(4)) && rest.contains(&started(3)));
    let longer = KeyRange::line(shard, &namespace(), &LineOf::Type("ta".into()));
    assert!(!longer.contains(&started(4)));
    assert!(KeyRange::lines(shard)[1].contains(&started(4)));

    let record = |kind, id: &str| Key::Registry {
        shard,
        namespace: namespace(),
        kind,
        id: id.to_owned(),
    };
    let delivery = |id| record(RegistryKind::Delivery, id);
    let of_webhook = KeyRange::registry_prefix(shard, &namespace(), RegistryKind::Delivery, "w_1/");
    assert!(of_webhook.contains(&delivery("w_1/")));
    assert!(of_webhook.contains(&delivery("w_1/007")));
    assert!(!of_webhook.contains(&delivery("w_1")));
    assert!(!of_webhook.contains(&delivery("w_10/007")));
    assert!(!of_webhook.contains(&record(RegistryKind::Act, "w_1/007")));
    let acts = KeyRange::registry_between(shard, &namespace(), RegistryKind::Act, "2", "4");
    assert!(acts.contains(&record(RegistryKind::Act, "2")));
    assert!(acts.contains(&record(RegistryKind::Act, "3-x")));
    assert!(!acts.contains(&record(RegistryKind::Act, "1-x")));
    assert!(!acts.contains(&record(RegistryKind::Act, "4")));

    let page = journal.after(&entry(last_run, 3));
    assert!(!page.contains(&entry(last_run, 3)));
    assert!(page.contains(&entry(last_run, 4)));
    let page = journal.before(&entry(last_run, 3));
    assert!(page.contains(&entry(last_run, 2)));
    assert!(!page.contains(&entry(last_run, 3)));
    assert!(
        !journal
            .before(&entry(last_run, 0))
            .contains(&entry(last_run, 0))
    );
    assert!(page.after(&entry(last_run, 3)).is_empty());
}

/// Texts that begin each other and hold the bytes that the encoding uses itself.
fn texts() -> impl Strategy<Value = String> {
    let odd = vec!['\0', '\u{1}', 'a', 'b', 'ÿ', '\u{10ffff}'];
    let odd = prop::collection::vec(prop::sample::select(odd), 1..5);
    prop_oneof![
        4 => odd.prop_map(|chars| chars.into_iter().collect()),
        1 => any::<String>().prop_filter("names are not empty", |text| !text.is_empty()),
    ]
}

fn numbers() -> impl Strategy<Value = i64> {
    prop_oneof![-2..3i64, Just(i64::MIN), Just(i64::MAX), any::<i64>()]
}

fn shards() -> impl Strategy<Value = ShardId> {
    prop_oneof![0..3u16, Just(u16::MAX - 1)].prop_map(ShardId)
}

fn run_ids() -> impl Strategy<Value = RunId> {
    prop_oneof![Just([0; 16]), Just([0xff; 16]), any::<[u8; 16]>()].prop_map(RunId)
}

fn keys() -> impl Strategy<Value = Key> {
    let owned = (
        shards(),
        texts().prop_map(|name| Namespace::parse(name).unwrap()),
        run_ids(),
    );
    let digest = prop_oneof![Just([0u8; 32]), any::<[u8; 32]>()];
    (
        owned,
        0..16u8,
        texts(),
        (0..RegistryKind::ALL.len(), 0..2usize),
        (numbers(), numbers()),
        digest,
    )
        .prop_map(
            |((shard, namespace, run_id), kind, id, (registry, queue), (number, other), digest)| {
                match kind {
                    0 => Key::Format,
                    1 => Key::ShardInfo { shard },
                    2 => Key::CurrentRun {
                        shard,
                        namespace,
                        workflow_id: WorkflowId::parse(id).unwrap(),
                    },
                    3 => Key::RunHead {
                        shard,
                        namespace,
                        run_id,
                    },
                    4 => Key::Registry {
                        shard,
                        namespace,
                        kind: RegistryKind::ALL[registry],
                        id,
                    },
                    5 => Key::Outbox {
                        shard,
                        namespace,
                        event_id: id,
                    },
                    6 => Key::Compensation {
                        shard,
                        namespace,
                        id,
                    },
                    7 => Key::Payload {
                        shard,
                        namespace,
                        run_id,
                        digest,
                    },
                    8 => Key::Journal {
                        shard,
                        namespace,
                        run_id,
                        first_seq: number.cast_unsigned(),
                    },
                    9 => Key::Queue {
                        shard,
                        namespace,
                        kind: QueueKind::ALL[queue],
                        queue: TaskQueueName::parse(id).unwrap(),
                        at: Timestamp(number),
                        run_id,
                        event_id: other,
                    },
                    10 => Key::Timer {
                        shard,
                        due: Timestamp(number),
                        namespace,
                        run_id,
                    },
                    11 => Key::Visibility {
                        shard,
                        namespace,
                        started: Timestamp(number),
                        run_id,
                    },
                    12 => Key::Snapshot {
                        shard,
                        namespace,
                        run_id,
                    },
                    by => Key::Line {
                        shard,
                        namespace,
                        of: match by {
                            13 => LineOf::Workflow(WorkflowId::parse(id).unwrap()),
                            14 => LineOf::Type(id),
                            _ => LineOf::Status(other.to_be_bytes()[7]),
                        },
                        started: Timestamp(number),
                        run_id,
                    },
                }
            },
        )
}

/// A field as it is compared in thought, without any encoding.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Field {
    Number(i128),
    Text(String),
    Bytes(Vec<u8>),
}

/// What a key is ordered by: its shard, its kind's place in the table, its fields.
fn logical(key: &Key) -> Vec<Field> {
    use Field::{Bytes, Number, Text};
    let text = |text: &str| Text(text.to_owned());
    let run = |run: &RunId| Bytes(run.0.to_vec());
    let (kind, fields) = match key {
        Key::Format => (0, vec![]),
        Key::ShardInfo { .. } => (1, vec![]),
        Key::CurrentRun {
            namespace,
            workflow_id,
            ..
        } => (
            2,
            vec![text(namespace.as_str()), text(workflow_id.as_str())],
        ),
        Key::RunHead {
            namespace, run_id, ..
        } => (3, vec![text(namespace.as_str()), run(run_id)]),
        Key::Registry {
            namespace,
            kind,
            id,
            ..
        } => {
            let place = RegistryKind::ALL
                .iter()
                .position(|one| one == kind)
                .unwrap();
            (
                4,
                vec![text(namespace.as_str()), Number(place as i128), text(id)],
            )
        }
        Key::Outbox {
            namespace,
            event_id,
            ..
        } => (5, vec![text(namespace.as_str()), text(event_id)]),
        Key::Compensation { namespace, id, .. } => (6, vec![text(namespace.as_str()), text(id)]),
        Key::Payload {
            namespace,
            run_id,
            digest,
            ..
        } => (
            7,
            vec![
                text(namespace.as_str()),
                run(run_id),
                Bytes(digest.to_vec()),
            ],
        ),
        Key::Journal {
            namespace,
            run_id,
            first_seq,
            ..
        } => (
            8,
            vec![
                text(namespace.as_str()),
                run(run_id),
                Number(i128::from(*first_seq)),
            ],
        ),
        Key::Queue {
            namespace,
            kind,
            queue,
            at,
            run_id,
            event_id,
            ..
        } => (
            9,
            vec![
                text(namespace.as_str()),
                Number(i128::from(*kind == QueueKind::Activity)),
                text(queue.as_str()),
                Number(i128::from(at.0)),
                run(run_id),
                Number(i128::from(*event_id)),
            ],
        ),
        Key::Timer {
            due,
            namespace,
            run_id,
            ..
        } => (
            10,
            vec![
                Number(i128::from(due.0)),
                text(namespace.as_str()),
                run(run_id),
            ],
        ),
        Key::Visibility {
            namespace,
            started,
            run_id,
            ..
        } => (
            11,
            vec![
                text(namespace.as_str()),
                Number(-i128::from(started.0)),
                run(run_id),
            ],
        ),
        Key::Snapshot {
            namespace, run_id, ..
        } => (12, vec![text(namespace.as_str()), run(run_id)]),
        Key::Line {
            namespace,
            of,
            started,
            run_id,
            ..
        } => {
            let (place, common) = match of {
                LineOf::Workflow(id) => (13, text(id.as_str())),
                LineOf::Type(name) => (14, text(name)),
                LineOf::Status(number) => (15, Number(i128::from(*number))),
            };
            let at = Number(-i128::from(started.0));
            (
                place,
                vec![text(namespace.as_str()), common, at, run(run_id)],
            )
        }
    };
    let shard = key.shard().map_or(i128::MAX, |shard| i128::from(shard.0));
    [Number(shard), Number(kind)]
        .into_iter()
        .chain(fields)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_key_survives_its_bytes(key in keys()) {
        let bytes = key.encode();
        prop_assert_eq!(Key::decode(key.family(), &bytes), Ok(key));
    }

    #[test]
    fn encoded_order_is_logical_order(a in keys(), b in keys()) {
        prop_assert_eq!(a.encode().cmp(&b.encode()), logical(&a).cmp(&logical(&b)), "{} and {}", a, b);
    }

    #[test]
    fn no_key_is_a_prefix_of_another(a in keys(), b in keys()) {
        prop_assume!(a != b);
        prop_assert!(!a.encode().starts_with(&b.encode()), "{} and {}", a, b);
    }

    #[test]
    fn bytes_that_are_no_key_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        for family in Family::ALL {
            if let Ok(key) = Key::decode(family, &bytes) {
                prop_assert_eq!(key.encode(), bytes.clone());
            }
        }
    }
}
