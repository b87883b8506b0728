//! Runs that act on each other, in the engine's own loop: one batch each, bounded rounds, and nothing lost or done twice by a crash.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use orchestrion::engine::{CallError, Target};
use orchestrion_history::ids::{RunId, ShardId};
use orchestrion_history::request::{
    CompleteWorkflowTask, OnConflict, Rejection, Reply, Request, ResetWorkflow, SignalWorkflow,
    StartWorkflow, WorkflowTaskStart,
};
use orchestrion_history::state::{Status, WorkflowTask};
use orchestrion_history::store::{Key, Op, RegistryKind, Store, StoreErrorKind};
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::{
    ParentClosePolicy, WorkflowIdConflictPolicy, WorkflowIdReusePolicy,
};
use orchestrion_tests::runs::{
    World, cancel, child, complete, continue_as_new, fail, signal, target,
};

#[test]
fn what_is_recorded_with_a_request_is_in_its_batch_or_nowhere() {
    let mut world = World::new();
    world.start("p");
    let key = |id: &str| Key::Registry {
        shard: ShardId::REGISTRY,
        namespace: target("p").namespace,
        kind: RegistryKind::Act,
        id: id.to_owned(),
    };
    let act = |id: &str| vec![Op::Put(key(id), "asked for".into())];
    let poke = || {
        Request::Signal(Box::new(SignalWorkflow {
            name: "poke".to_owned(),
            ..Default::default()
        }))
    };
    let commits = world.store.commits();
    world.ask_with(target("p"), poke(), act("a")).unwrap();
    assert_eq!(world.store.commits(), commits + 1, "one batch has both");
    assert!(world.store.get(&key("a")).unwrap().is_some());

    let refused = world.ask_with(target("nobody"), poke(), act("b"));
    assert!(matches!(refused, Err(CallError::Rejected(_))));
    assert_eq!(world.store.get(&key("b")).unwrap(), None);
    world.turn("p", vec![complete()]);
    let refused = world.ask_with(target("p"), poke(), act("c"));
    assert!(matches!(
        refused,
        Err(CallError::Rejected(Rejection::Closed))
    ));
    assert_eq!(world.store.get(&key("c")).unwrap(), None);
    world.crash();
    assert!(world.store.get(&key("a")).unwrap().is_some());
    world.check("p");
}

#[test]
fn a_child_is_started_and_its_parent_told_in_one_batch_each() {
    let mut world = World::new();
    world.start("p");
    let commits = world.store.commits();
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    assert_eq!(
        world.store.commits(),
        commits + 1,
        "one batch has the command, the child and the news of it"
    );
    world.crash();
    let born = world.state("c");
    let parent = born.parent.clone().unwrap();
    assert_eq!(parent.workflow_id, "p");
    assert_eq!(parent.namespace, "home");
    assert_eq!(
        born.begun
            .get()
            .unwrap()
            .root_workflow_execution
            .unwrap()
            .workflow_id,
        "p"
    );
    let commits = world.store.commits();
    world.turn("c", vec![complete()]);
    assert_eq!(world.store.commits(), commits + 1);
    world.crash();
    assert_eq!(
        world.events("p"),
        [
            "Started",
            "StartChildInitiated",
            "ChildStarted",
            "ChildCompleted"
        ]
    );
    world.check("p");
    world.check("c");
}

#[test]
fn a_workflow_id_that_is_taken_fails_the_childs_start() {
    let mut world = World::new();
    world.start("p");
    world.start("c");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    assert_eq!(
        world.events("p"),
        ["Started", "StartChildInitiated", "StartChildFailed"]
    );
    assert_eq!(world.events("c"), ["Started"]);
}

#[test]
fn a_close_does_to_children_what_their_policies_say() {
    let mut world = World::new();
    world.start("p");
    world.turn(
        "p",
        vec![
            child("ended", ParentClosePolicy::Terminate),
            child("left", ParentClosePolicy::Abandon),
            child("asked", ParentClosePolicy::RequestCancel),
        ],
    );
    world.turn(
        "p",
        vec![child("begun late", ParentClosePolicy::Abandon), complete()],
    );
    assert_eq!(world.state("ended").status, Status::Terminated);
    assert_eq!(world.state("left").status, Status::Running);
    assert_eq!(world.state("begun late").status, Status::Running);
    assert_eq!(world.events("asked"), ["Started", "CancelRequested"]);
    for id in ["p", "ended", "left", "asked"] {
        world.check(id);
    }
    assert_eq!(world.state("p").next_due(), None);
    world.turn("left", vec![complete()]);
    assert_eq!(
        world.state("left").next_due(),
        None,
        "a closed parent is not told again and again"
    );
}

#[test]
fn signals_and_cancel_requests_arrive_or_say_why_not() {
    let mut world = World::new();
    world.start("a");
    world.start("b");
    world.start("closed");
    world.turn("closed", vec![complete()]);
    world.turn(
        "a",
        vec![
            signal("", "b", false),
            signal("home", "b", false),
            cancel("b"),
            signal("", "b", true),
            signal("other", "b", false),
            signal("", "nobody", false),
            signal("", "closed", false),
            signal("", "a", false),
        ],
    );
    let events = world.events("a");
    assert_eq!(
        events[9..],
        [
            "ExternalSignaled",
            "ExternalSignaled",
            "ExternalCancelRequested",
            "SignalExternalFailed",
            "SignalExternalFailed",
            "SignalExternalFailed",
            "SignalExternalFailed",
            "SignalExternalFailed",
        ]
    );
    assert_eq!(
        world.events("b"),
        ["Started", "Signaled", "Signaled", "CancelRequested"]
    );
    world.check("a");
}

#[test]
fn a_chain_is_one_child_and_its_runs_follow_in_one_batch() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    let first = world.state("c");
    let commits = world.store.commits();
    world.turn("c", vec![continue_as_new()]);
    assert_eq!(world.store.commits(), commits + 1);
    world.crash();
    let second = world.state("c");
    assert_ne!(second.run_id, first.run_id);
    assert_eq!(second.first_run_id, first.run_id);
    assert_eq!(
        world.events_of("c", RunId::parse(&first.run_id).unwrap()),
        ["Started", "ContinuedAsNew"]
    );
    world.advance(Duration::from_secs(1));
    world.turn("c", vec![complete()]);
    assert_eq!(
        world.events("p"),
        [
            "Started",
            "StartChildInitiated",
            "ChildStarted",
            "ChildCompleted"
        ]
    );
    world.check("c");
}

#[test]
fn the_newest_run_of_a_chain_is_ended_with_the_parent() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    world.turn("c", vec![continue_as_new()]);
    world.turn("p", vec![complete()]);
    assert_eq!(world.state("c").status, Status::Terminated);
}

#[test]
fn a_workflow_is_retried_after_its_wait_also_by_another_process() {
    let mut world = World::new();
    world
        .start_with("w", |start| {
            start.retry_policy = Some(RetryPolicy {
                maximum_attempts: 2,
                ..Default::default()
            });
        })
        .unwrap();
    world.turn("w", vec![fail()]);
    assert_eq!(world.state("w").attempt, 2);
    assert_eq!(world.state("w").workflow_task, WorkflowTask::None);
    world.crash();
    world.advance(Duration::from_secs(1));
    world.turn("w", vec![fail()]);
    assert_eq!(world.state("w").status, Status::Failed);
    world.check("w");
}

#[test]
fn a_cron_workflow_comes_again() {
    let mut world = World::new();
    world
        .start_with("w", |start| start.cron_schedule = "@every 1m".to_owned())
        .unwrap();
    let mut runs = Vec::new();
    for _ in 0..3 {
        world.crash();
        world.advance(Duration::from_secs(60));
        runs.push(world.state("w").run_id);
        world.turn("w", vec![complete()]);
    }
    runs.dedup();
    assert_eq!(runs.len(), 3);
    world
        .ask(target("w"), Request::Terminate(Box::default()))
        .unwrap();
    world.advance(Duration::from_secs(600));
    assert_eq!(world.state("w").status, Status::Terminated);
}

#[test]
fn a_great_many_children_take_several_rounds_and_a_crash_between_them_loses_none() {
    let mut world = World::new();
    world.start("p");
    let ids: Vec<String> = (0..600).map(|i| format!("c{i}")).collect();
    let commands = ids
        .iter()
        .map(|id| child(id, ParentClosePolicy::Terminate))
        .collect();
    world.turn("p", commands);
    let begun = |world: &mut World| {
        let children = world.state("p").children;
        children
            .values()
            .filter(|child| !child.run_id.is_empty())
            .count()
    };
    let first = begun(&mut world);
    assert!(
        first > 0 && first < 600,
        "{first} children in the first rounds"
    );
    world.crash();
    while begun(&mut world) < 600 {
        world.round();
    }
    for id in &ids {
        assert_eq!(world.events(id), ["Started"]);
    }
    let events = world.events("p");
    assert_eq!(
        events.iter().filter(|name| *name == "ChildStarted").count(),
        600
    );
    world.turn("p", vec![complete()]);
    for _ in 0..6 {
        world.round();
    }
    for id in &ids {
        assert_eq!(world.state(id).status, Status::Terminated, "{id}");
    }
    world.check("p");
}

#[test]
fn a_commit_that_fails_takes_everything_between_runs_with_it() {
    let mut world = World::new();
    world.start("p");
    world.store.fail_next_commit(StoreErrorKind::Unavailable);
    let state = world.state("p");
    let complete = CompleteWorkflowTask {
        start: WorkflowTaskStart {
            scheduled_event_id: 2,
            attempt: 1,
            at: world.now,
            last_event_id: 2,
            ..Default::default()
        },
        commands: vec![child("c", ParentClosePolicy::Terminate)],
        ..Default::default()
    };
    let answer = world.ask(
        target("p"),
        Request::CompleteWorkflowTask(Box::new(complete)),
    );
    assert!(matches!(answer, Err(CallError::Unavailable(_))));
    world.advance(Duration::from_secs(1));
    assert_eq!(world.state("p"), state);
    assert!(matches!(
        world.state_of(target("c")),
        Err(CallError::Rejected(Rejection::NotFound { .. }))
    ));
}

#[test]
fn what_a_failed_commit_would_have_queued_waits_nowhere() {
    let mut world = World::new();
    world.start("kept");
    world.store.fail_next_commit(StoreErrorKind::Unavailable);
    let start = world.start_with("lost", |_| {});
    assert!(matches!(start, Err(CallError::Unavailable(_))));
    // Until the queues are read again nothing is given out: not what is lost, and not what is kept under another time.
    assert_eq!(world.backlog("q"), 0);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.backlog("q"), 1);
}

#[test]
fn policies_say_what_a_start_does_to_the_run_that_is_there() {
    let mut world = World::new();
    world.start("w");
    let first = world.state("w").run_id;
    let again = |world: &mut World, change: fn(&mut StartWorkflow)| {
        world.start_with("w", |start| {
            start.request_id = "another".to_owned();
            change(start);
        })
    };
    let refused = again(&mut world, |_| {});
    assert!(matches!(
        refused,
        Err(CallError::Rejected(Rejection::AlreadyStarted { .. }))
    ));
    let used = again(&mut world, |start| {
        start.conflict = WorkflowIdConflictPolicy::UseExisting;
        start.on_conflict = OnConflict {
            attach_request_id: true,
            ..Default::default()
        };
    });
    let used = used.unwrap();
    assert_eq!(
        (used.run_id.to_string(), used.reply),
        (first.clone(), Reply::Existing)
    );
    let repeated = again(&mut world, |start| {
        start.conflict = WorkflowIdConflictPolicy::UseExisting
    });
    assert_eq!(
        repeated.unwrap().reply,
        Reply::Existing,
        "its request id is attached, once, and it began nothing"
    );
    let signaled = world.start_with("w", |start| {
        start.request_id = "third".to_owned();
        start.signal = Some(Box::new(SignalWorkflow {
            name: "s".to_owned(),
            ..Default::default()
        }));
    });
    assert_eq!(signaled.unwrap().reply, Reply::Existing);
    assert_eq!(world.events("w"), ["Started", "OptionsUpdated", "Signaled"]);

    let wrong = world.start_with("w", |start| {
        start.request_id = "fourth".to_owned();
        start.workflow_type = String::new();
        start.conflict = WorkflowIdConflictPolicy::TerminateExisting;
    });
    assert!(matches!(
        wrong,
        Err(CallError::Rejected(Rejection::Invalid(_)))
    ));
    assert_eq!(
        world.state("w").run_id,
        first,
        "what is refused terminates nothing"
    );
    let commits = world.store.commits();
    let replaced = world.start_with("w", |start| {
        start.request_id = "fifth".to_owned();
        start.conflict = WorkflowIdConflictPolicy::TerminateExisting;
    });
    assert_eq!(world.store.commits(), commits + 1);
    assert_eq!(replaced.unwrap().reply, Reply::Done);
    world.crash();
    assert_ne!(world.state("w").run_id, first);
    assert_eq!(
        world
            .events_of("w", RunId::parse(&first).unwrap())
            .last()
            .unwrap(),
        "Terminated"
    );

    world.turn("w", vec![complete()]);
    let rejected = world.start_with("w", |start| {
        start.request_id = "sixth".to_owned();
        start.reuse = WorkflowIdReusePolicy::RejectDuplicate;
    });
    assert!(matches!(
        rejected,
        Err(CallError::Rejected(Rejection::IdUsed { .. }))
    ));
}

#[test]
fn a_reset_makes_a_run_of_a_part_of_another_in_one_batch() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("kept", ParentClosePolicy::Terminate)]);
    let base = world.state("p").run_id;
    world.turn("p", vec![child("lost", ParentClosePolicy::Terminate)]);
    let finish_event_id = 9;
    let commits = world.store.commits();
    let reset = || {
        Request::Reset(Box::new(ResetWorkflow {
            finish_event_id,
            reason: "wrong turn".to_owned(),
            request_id: "reset-1".to_owned(),
            ..Default::default()
        }))
    };
    let done = world.ask(target("p"), reset()).unwrap();
    assert_eq!(world.store.commits(), commits + 1);
    world.crash();
    let base_run = Target {
        run_id: RunId::parse(&base),
        ..target("p")
    };
    let again = world.ask(base_run.clone(), reset()).unwrap();
    assert_eq!((again.run_id, again.reply), (done.run_id, Reply::Repeated));
    let state = world.state("p");
    assert_eq!(state.run_id, done.run_id.to_string());
    assert_eq!(state.original_run_id, base);
    assert_eq!(world.state_of(base_run).unwrap().status, Status::Terminated);
    assert_eq!(
        world.state("kept").status,
        Status::Running,
        "it is the new run's child"
    );
    assert_eq!(
        world.state("lost").status,
        Status::Terminated,
        "it is from behind the boundary"
    );
    world.turn("kept", vec![complete()]);
    assert_eq!(
        world.events("p"),
        [
            "Started",
            "StartChildInitiated",
            "ChildStarted",
            "ChildCompleted"
        ]
    );
    world.check("p");
    let refused = world.ask(
        target("p"),
        Request::Reset(Box::new(ResetWorkflow {
            finish_event_id: 5,
            ..Default::default()
        })),
    );
    assert!(matches!(
        refused,
        Err(CallError::Rejected(Rejection::Invalid(_)))
    ));
}

#[test]
fn who_asks_for_a_run_that_is_gone_does_not_hide_the_newest() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    let finish_event_id = world.state("p").completed_event_id;
    let reset = Request::Reset(Box::new(ResetWorkflow {
        finish_event_id,
        ..Default::default()
    }));
    let gone = Target {
        run_id: Some(RunId([7; 16])),
        ..target("p")
    };
    let poke = Request::Signal(Box::new(SignalWorkflow {
        name: "poke".to_owned(),
        ..Default::default()
    }));
    let asks = vec![
        (target("p"), reset),
        (gone, poke.clone()),
        (target("p"), poke),
    ];
    let said: Vec<_> = world.ask_at_once(asks);
    let made = said[0].as_ref().unwrap().run_id;
    assert!(matches!(
        said[1],
        Err(CallError::Rejected(Rejection::NotFound { .. }))
    ));
    assert_eq!(said[2].as_ref().unwrap().run_id, made);
    world.crash();
    assert_eq!(world.state("p").run_id, made.to_string());
    world.check("p");
}

#[test]
fn a_run_made_by_a_reset_hears_of_children_that_ended_before_it_was_made() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    world.turn("c", vec![continue_as_new()]);
    world.advance(Duration::from_secs(1));
    let next_event_id = world.state("p").next_event_id;
    world.turn("p", vec![]);
    world.turn("c", vec![complete()]);
    world
        .ask(
            target("p"),
            Request::Reset(Box::new(ResetWorkflow {
                finish_event_id: next_event_id + 1,
                ..Default::default()
            })),
        )
        .unwrap();
    assert_eq!(
        world.events("p"),
        [
            "Started",
            "StartChildInitiated",
            "ChildStarted",
            "ChildCompleted"
        ]
    );
    world.check("p");
}

#[test]
fn a_childs_end_finds_the_run_that_waits_when_the_one_that_was_reset_has_left() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![child("c", ParentClosePolicy::Terminate)]);
    let next_event_id = world.state("p").next_event_id;
    world.turn("p", vec![]);
    world
        .ask(
            target("p"),
            Request::Reset(Box::new(ResetWorkflow {
                finish_event_id: next_event_id + 1,
                ..Default::default()
            })),
        )
        .unwrap();
    let runs = |world: &World| world.all_runs().iter().filter(|(id, _)| id == "p").count();
    assert_eq!(runs(&world), 2);
    while runs(&world) > 1 {
        world.advance(Duration::from_secs(86_400));
        let waited = Duration::from_nanos((world.now.0 - world.state("p").started_at) as u64);
        assert!(
            waited < Duration::from_secs(60 * 86_400),
            "the run that was reset leaves with its retention"
        );
    }
    world.turn("c", vec![complete()]);
    assert_eq!(
        world.events("p"),
        [
            "Started",
            "StartChildInitiated",
            "ChildStarted",
            "ChildCompleted"
        ]
    );
    world.check("p");
}

/// Both runs ask under the same event, so the second is given the child that the first has started.
#[test]
fn a_childs_end_finds_the_run_that_asked_for_it_again_after_a_reset() {
    let mut world = World::new();
    world.start("p");
    world.turn("p", vec![]);
    let finish_event_id = world.state("p").completed_event_id;
    let poke = Request::Signal(Box::new(SignalWorkflow {
        name: "poke".to_owned(),
        ..Default::default()
    }));
    world.ask(target("p"), poke).unwrap();
    world.turn("p", vec![child("c", ParentClosePolicy::RequestCancel)]);
    let first = world.state("c").run_id;
    let reset = Request::Reset(Box::new(ResetWorkflow {
        finish_event_id,
        ..Default::default()
    }));
    world.ask(target("p"), reset).unwrap();
    world.turn("p", vec![child("c", ParentClosePolicy::RequestCancel)]);
    assert_eq!(world.state("c").run_id, first);
    world.turn("c", vec![complete()]);
    let events = world.events("p");
    assert_eq!(
        events[events.len() - 3..],
        ["StartChildInitiated", "ChildStarted", "ChildCompleted"]
    );
    world.check("p");
}
