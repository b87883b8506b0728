//! What must hold after every step, read from the store alone, as a restarted engine would.
//!
//! | property | source | check |
//! |---|---|---|
//! | nothing acknowledged is lost | answers to submissions | its run is in the store |
//! | replay equals state | journals | each folds, and its listing says what the fold says |
//! | kept indexes equal rebuilt ones | index family | queues, timers and listings equal those of the folds |
//! | undo is newest first, each success once | journals | order of revert schedules against completions |
//! | nothing happens after the end | journals | `apply` refuses it |
//! | namespaces never mix | journals | each run's acknowledged tenant |
//! | lost connections return their attempts | journals, at a restart | no attempt is with a worker |
//! | an end is told once | outbox | one event id a finished run |

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use orchestrion::orchestration::{Interpreter, REVERT_ID_PREFIX};
use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::record::{Record, decode_entry};
use orchestrion_history::replay;
use orchestrion_history::state::{MutableState, Stage};
use orchestrion_history::store::{Key, KeyRange, LineOf, QueueKind, Store};
use orchestrion_history::tasks;
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::{RunHead, Visibility};

use super::World;

/// One run as the store has it.
pub struct Kept {
    namespace: Namespace,
    run_id: RunId,
    workflow_id: String,
    records: Vec<Record>,
    state: MutableState,
}

const SHARDS: u16 = 3;

fn scan(world: &World, range: &KeyRange) -> Vec<(Key, bytes::Bytes)> {
    world.store.scan(range, usize::MAX, false).unwrap().entries
}

fn runs(world: &World) -> Vec<Kept> {
    let mut kept = Vec::new();
    for shard in (0..SHARDS).map(ShardId) {
        for (key, value) in scan(world, &KeyRange::run_heads(shard)) {
            let Key::RunHead {
                namespace, run_id, ..
            } = key
            else {
                panic!()
            };
            let head = RunHead::decode(value).unwrap();
            assert_eq!(
                head.quarantined,
                "",
                "{}: {} is quarantined\n{}",
                world.line(),
                head.workflow_id,
                world.story()
            );
            let entries = scan(world, &KeyRange::journal_of(shard, &namespace, run_id));
            let records: Vec<Record> = entries
                .iter()
                .flat_map(|(_, entry)| decode_entry(entry).unwrap())
                .collect();
            let state = replay::fold(&records)
                .unwrap_or_else(|e| panic!("{}: {e}\n{}", world.line(), world.story()));
            let mut interpreter = Interpreter::new();
            for event in records.iter().filter_map(Record::event) {
                interpreter
                    .apply(event)
                    .unwrap_or_else(|e| panic!("{}: {e}\n{}", world.line(), world.story()));
            }
            kept.push(Kept {
                namespace,
                run_id,
                workflow_id: head.workflow_id,
                records,
                state,
            });
        }
    }
    kept
}

/// Holds after every step.
pub fn check(world: &mut World) {
    let kept = runs(world);
    let known: BTreeSet<&str> = kept.iter().map(|run| run.workflow_id.as_str()).collect();
    for (id, acknowledged) in &world.acknowledged {
        assert!(
            known.contains(id.as_str()),
            "{}: {id} was acknowledged and is lost\n{}",
            world.line(),
            world.story()
        );
        let run = kept.iter().find(|run| run.workflow_id == *id).unwrap();
        assert_eq!(
            run.namespace,
            acknowledged.namespace,
            "{}: {id} changed its tenant",
            world.line()
        );
    }
    assert_eq!(
        known.len(),
        kept.len(),
        "{}: an id has two runs",
        world.line()
    );
    check_indexes(world, &kept);
    for run in &kept {
        check_undo(world, run);
    }
    let sent = world.sent();
    let distinct: BTreeSet<&String> = sent.iter().collect();
    assert_eq!(
        sent.len(),
        distinct.len(),
        "{}: an event was sent twice\n{}",
        world.line(),
        world.story()
    );
}

fn check_indexes(world: &World, kept: &[Kept]) {
    let mut queues = BTreeSet::new();
    let mut timers = BTreeSet::new();
    let mut listings = BTreeMap::new();
    let mut lines = BTreeSet::new();
    for run in kept {
        for entry in tasks::all(&run.state) {
            if entry.kind == QueueKind::Activity {
                queues.insert((
                    run.run_id,
                    entry.queue.clone(),
                    entry.at,
                    entry.event_id,
                    entry.attempt,
                    entry.waiting,
                ));
            }
        }
        if let Some(due) = run.state.next_due() {
            timers.insert((due, run.run_id));
        }
        listings.insert(
            run.run_id,
            (run.workflow_id.clone(), i32::from(run.state.status.wire())),
        );
        for of in [
            LineOf::Workflow(WorkflowId::parse(&run.workflow_id).unwrap()),
            LineOf::Type(run.state.workflow_type.clone()),
            LineOf::Status(i32::from(run.state.status.wire()) as u8),
        ] {
            lines.insert((of.to_string(), run.state.started_at, run.run_id));
        }
    }
    let (mut kept_queues, mut kept_timers, mut kept_listings) =
        (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    let mut kept_lines = BTreeSet::new();
    for shard in (0..SHARDS).map(ShardId) {
        for (key, value) in scan(world, &KeyRange::queues(shard)) {
            let Key::Queue {
                queue,
                at,
                run_id,
                event_id,
                ..
            } = key
            else {
                panic!()
            };
            let attempt = i32::from_be_bytes(value[..4].try_into().unwrap());
            kept_queues.insert((
                run_id,
                queue.to_string(),
                at,
                event_id,
                attempt,
                value[4] != 0,
            ));
        }
        for (key, _) in scan(world, &KeyRange::timers(shard)) {
            let Key::Timer { due, run_id, .. } = key else {
                panic!()
            };
            kept_timers.insert((due, run_id));
        }
        for (key, value) in scan(world, &KeyRange::listings(shard)) {
            let Key::Visibility { run_id, .. } = key else {
                panic!()
            };
            let listed = Visibility::decode(value).unwrap();
            kept_listings.insert(run_id, (listed.workflow_id, listed.status));
        }
        for range in KeyRange::lines(shard) {
            for (key, _) in scan(world, &range) {
                let Key::Line {
                    of,
                    started,
                    run_id,
                    ..
                } = key
                else {
                    panic!()
                };
                kept_lines.insert((of.to_string(), started.0, run_id));
            }
        }
    }
    assert_eq!(
        kept_queues,
        queues,
        "{}: the queue index differs from the journals\n{}",
        world.line(),
        world.story()
    );
    assert_eq!(
        kept_timers,
        timers,
        "{}: the timer index differs from the journals\n{}",
        world.line(),
        world.story()
    );
    assert_eq!(
        kept_lines,
        lines,
        "{}: the lines differ from the journals\n{}",
        world.line(),
        world.story()
    );
    assert_eq!(
        kept_listings,
        listings,
        "{}: the listing differs from the journals\n{}",
        world.line(),
        world.story()
    );
}

/// Holds right behind a restart: the connections ended with the process, so every attempt they held is back in its queue.
pub fn check_returned(world: &mut World) {
    for run in runs(world) {
        for activity in run.state.activities.values() {
            assert!(
                !matches!(activity.stage, Stage::Started { .. }),
                "{}: {} of {} is still with a worker that is gone\n{}",
                world.line(),
                activity.activity_id,
                run.workflow_id,
                world.story()
            );
        }
    }
}

/// Each revert undoes the newest completed task that no revert has undone; none succeeds twice.
fn check_undo(world: &World, run: &Kept) {
    let Some(known) = world.acknowledged.get(&run.workflow_id) else {
        return;
    };
    let revertible: BTreeSet<&str> = known
        .plan
        .tasks
        .iter()
        .filter(|task| task.revertible)
        .map(|task| task.id.as_str())
        .collect();
    let place = |id: &str| {
        known
            .plan
            .tasks
            .iter()
            .position(|task| task.id == id)
            .unwrap_or_default()
    };
    let mut names = BTreeMap::new();
    // Completed and not yet reverted, oldest first; those that one workflow task saw count in plan order.
    let mut done: Vec<(usize, usize, String)> = Vec::new();
    let mut turn = 0;
    let mut reverted = BTreeSet::new();
    for event in run.records.iter().filter_map(Record::event) {
        match event.attributes.as_ref().unwrap() {
            A::WorkflowTaskCompletedEventAttributes(_) => turn += 1,
            A::ActivityTaskScheduledEventAttributes(a) => {
                names.insert(event.event_id, a.activity_id.clone());
                if let Some(task) = a.activity_id.strip_prefix(REVERT_ID_PREFIX) {
                    done.sort();
                    let newest = done.pop().map(|(_, _, id)| id);
                    assert_eq!(
                        newest.as_deref(),
                        Some(task),
                        "{}: {} undoes the wrong task\n{}",
                        world.line(),
                        run.workflow_id,
                        world.story()
                    );
                    assert!(
                        reverted.insert(task.to_owned()),
                        "{}: {task} is reverted twice",
                        world.line()
                    );
                }
            }
            A::ActivityTaskCompletedEventAttributes(a) => {
                let id = names[&a.scheduled_event_id].clone();
                if revertible.contains(id.as_str()) {
                    done.push((turn, place(&id), id));
                }
            }
            A::WorkflowExecutionSignaledEventAttributes(a) => {
                let data = &a.input.as_ref().unwrap().payloads[0].data;
                let signal: serde_json::Value = serde_json::from_slice(data).unwrap();
                let id = signal["task"].as_str().unwrap().to_owned();
                let counted =
                    done.iter().any(|(_, _, other)| *other == id) || reverted.contains(&id);
                if revertible.contains(id.as_str()) && !counted {
                    done.push((turn, place(&id), id));
                }
            }
            _ => {}
        }
    }
}

/// The runs that have not ended, and where they stand.
pub fn still_open(world: &World) -> String {
    let open = runs(world)
        .into_iter()
        .filter(|run| !run.state.status.is_closed());
    let lines = open.map(|run| {
        let activities: Vec<String> = (run.state.activities.values())
            .map(|a| format!("{} in {} {:?}", a.activity_id, a.task_queue, a.stage))
            .collect();
        let timers: Vec<&String> = run.state.timers.keys().collect();
        format!(
            "{}: {:?}, {} {timers:?}, due {:?}\n",
            run.state.workflow_id,
            run.state.workflow_task,
            activities.join(", "),
            run.state.next_due()
        )
    });
    lines.collect()
}

/// Whether every run has ended.
pub fn all_closed(world: &World) -> bool {
    runs(world).iter().all(|run| run.state.status.is_closed())
}

/// Holds once faults have stopped and everything has ended: each end was told, exactly once.
pub fn check_ended(world: &mut World) {
    check(world);
    let sent = world.sent();
    let outbox: BTreeSet<String> = scan(world, &KeyRange::outbox(ShardId::REGISTRY))
        .into_iter()
        .filter_map(|(key, _)| match key {
            Key::Outbox { event_id, .. } => Some(event_id),
            _ => None,
        })
        .collect();
    for id in &sent {
        assert!(
            outbox.contains(id),
            "{}: {id} was sent and is not in the outbox",
            world.line()
        );
    }
    for run in runs(world) {
        use orchestrion_history::state::Status;
        let told: Vec<&String> = outbox
            .iter()
            .filter(|id| id.starts_with(&format!("{}-", run.workflow_id)))
            .collect();
        let expected = usize::from(run.state.status != Status::Terminated);
        // A terminated run may have told of its failure before.
        let enough =
            told.len() == expected || (run.state.status == Status::Terminated && told.len() <= 1);
        assert!(
            enough,
            "{}: {} ended {:?} and told {told:?}",
            world.line(),
            run.workflow_id,
            run.state.status
        );
    }
}

/// A number for everything the store holds.
pub fn digest(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    for run in runs(world) {
        (run.workflow_id, run.run_id).hash(&mut hasher);
        for record in &run.records {
            (record.type_name(), record.at()).hash(&mut hasher);
        }
    }
    Timestamp::as_millis(world.now).hash(&mut hasher);
    hasher.finish()
}
