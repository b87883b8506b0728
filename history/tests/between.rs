//! Canned, numbered journals of runs that act on others, and of chains of runs. Reads like `stories.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{
    Story, cancel_command, cancel_external, child_command, complete_command, continue_command,
    delivered, fail_command, payloads, signal_external,
};
use orchestrion_history::outward::{self, Outward};
use orchestrion_history::request::{
    AttachStart, ChildOutcome, ChildStartFailed, ExecutionRef, ParentLink, Request, SignalWorkflow,
    Undeliverable,
};
use orchestrion_history::state::Status;
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::{
    ContinueAsNewInitiator, ParentClosePolicy, RetryState, StartChildWorkflowExecutionFailedCause,
};
use orchestrion_proto::temporal::api::sdk::v1::event_group_marker::{InboundUpdate, Variant};
use orchestrion_proto::temporal::api::sdk::v1::{EventGroupMarker, UserMetadata};

const SECOND: i64 = 1_000_000_000;

#[test]
fn a_child_from_its_command_to_its_end() {
    let mut story = Story::started();
    let mut command = child_command("c", ParentClosePolicy::Unspecified);
    command.user_metadata = Some(UserMetadata::default());
    let _ = story.turn(vec![command]);
    story.quiet();
    let Some(Outward::StartChild { start, .. }) = outward::get(&story.state, 5) else {
        panic!("the child is to be started")
    };
    assert_eq!(start.user_metadata, Some(UserMetadata::default()));
    assert_eq!(start.workflow_id, "c");
    assert_eq!(start.input, Some(payloads("c")));
    assert_eq!(start.task_queue, "orders");
    assert_eq!(start.root.as_ref().unwrap().workflow_id, "wf");
    let parent = start.parent.unwrap();
    assert_eq!(
        (
            parent.execution.workflow_id.as_str(),
            parent.initiated_event_id
        ),
        ("wf", 5)
    );
    story.cross();
    assert!(outward::ids(&story.state).is_empty());
    let _ = story.turn(vec![]);
    story.child_closes(5, ChildOutcome::Completed(Some(payloads("done"))));
    story.child_closes(5, ChildOutcome::Terminated);
    story.check(
        "
        > child started
         6 ChildWorkflowExecutionStarted 5
         7 WorkflowTaskScheduled
        > turn
         8 WorkflowTaskStarted
         9 WorkflowTaskCompleted
        > child closed
        10 ChildWorkflowExecutionCompleted 5 after 6
        11 WorkflowTaskScheduled
        > child closed
        -- child workflow not found: the one of event 5 is not pending
        ",
    );
}

#[test]
fn a_child_that_starts_and_ends_in_one_workflow_task_is_told_in_order() {
    let mut story = Story::started();
    let _ = story.turn(vec![child_command("c", ParentClosePolicy::Unspecified)]);
    story.signal("look");
    story.hold_task();
    story.quiet();
    story.cross();
    assert!(
        outward::ids(&story.state).is_empty(),
        "what is buffered is not asked again"
    );
    story.child_closes(5, ChildOutcome::Completed(None));
    story.signal("after");
    let _ = story.turn(vec![]);
    story.check(
        "
        > child started
         8 WorkflowTaskStarted
         - EventBuffered ChildWorkflowExecutionStarted
        > child closed
         - EventBuffered ChildWorkflowExecutionCompleted
        > signal after
         - EventBuffered WorkflowExecutionSignaled
        > turn
         9 WorkflowTaskCompleted
        10 ChildWorkflowExecutionStarted 5
        11 WorkflowExecutionSignaled after
        12 ChildWorkflowExecutionCompleted 5 after 10
        13 WorkflowTaskScheduled
        ",
    );
    assert!(story.state.children.is_empty());
}

#[test]
fn a_child_that_cannot_start_says_why() {
    let mut story = Story::started();
    let _ = story.turn(vec![child_command("c", ParentClosePolicy::Unspecified)]);
    story.quiet();
    let failed = Request::ChildStartFailed(ChildStartFailed {
        initiated_event_id: 5,
        cause: StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists,
    });
    story.ask("start failed", &failed).unwrap();
    story.check(
        "
        > start failed
         6 StartChildWorkflowExecutionFailed 5 WorkflowAlreadyExists
         7 WorkflowTaskScheduled
        ",
    );
    assert!(story.state.children.is_empty());
}

#[test]
fn a_close_asks_of_children_what_their_policies_say() {
    let mut story = Story::started();
    let _ = story.turn(vec![
        child_command("ended", ParentClosePolicy::Terminate),
        child_command("left", ParentClosePolicy::Abandon),
        child_command("asked", ParentClosePolicy::RequestCancel),
    ]);
    story.cross();
    let _ = story.turn(vec![
        child_command("begun", ParentClosePolicy::Abandon),
        child_command("never begun", ParentClosePolicy::Terminate),
        complete_command(),
    ]);
    story.quiet();
    let asked: Vec<String> = outward::ids(&story.state)
        .into_iter()
        .map(|id| match outward::get(&story.state, id).unwrap() {
            Outward::EndChild {
                child, terminate, ..
            } => {
                format!(
                    "{} {}",
                    if terminate { "terminate" } else { "cancel" },
                    child.workflow_id
                )
            }
            Outward::StartChild { start, .. } => format!("start {}", start.workflow_id),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(asked, ["terminate ended", "cancel asked", "start begun"]);
    assert!(
        story.state.next_due().is_some(),
        "a closed run with something to ask is due"
    );
    story.cross();
    story.check(
        "
        > close followed
         - CloseFollowed 5
        > close followed
         - CloseFollowed 7
        > close followed
         - CloseFollowed 14
        ",
    );
    assert_eq!(story.state.next_due(), None);
}

#[test]
fn a_child_tells_its_parent_once_and_only_at_the_end_of_its_chain() {
    let child = |change: fn(&mut orchestrion_history::request::StartWorkflow)| {
        Story::started_with(|start| {
            start.parent = Some(Box::new(ParentLink {
                namespace: "home".to_owned(),
                execution: ExecutionRef {
                    workflow_id: "p".to_owned(),
                    run_id: "pr".to_owned(),
                },
                initiated_event_id: 5,
            }));
            change(start);
        })
    };
    let mut story = child(|_| {});
    let _ = story.turn(vec![continue_command("again")]);
    assert!(outward::ids(&story.state).is_empty(), "the chain goes on");
    let mut next = story.follow();
    next.advance_ms(1_000);
    next.fire();
    let _ = next.turn(vec![fail_command("no", true)]);
    let Some(Outward::TellParent { parent, closed }) = outward::get(&next.state, 0) else {
        panic!("the parent is to be told")
    };
    assert_eq!(
        (parent.workflow_id.as_str(), parent.run_id.as_str()),
        ("p", "pr")
    );
    assert!(matches!(
        closed.outcome,
        ChildOutcome::Failed(_, RetryState::RetryPolicyNotSet)
    ));
    assert_eq!(closed.execution.run_id, next.state.run_id);
    next.quiet();
    next.cross();
    next.cross();
    next.check(
        "
        > close followed
         - CloseFollowed 0
        ",
    );
}

#[test]
fn a_signal_and_a_cancel_request_to_others() {
    let mut story = Story::started();
    let _ = story.turn(vec![
        signal_external("other", "hello"),
        cancel_external("other"),
        signal_external("nobody", "hello"),
    ]);
    story.quiet();
    let Some(Outward::Signal { to, signal, .. }) = outward::get(&story.state, 5) else {
        panic!("a signal is under way")
    };
    assert_eq!(
        (to.namespace.as_str(), to.execution.workflow_id.as_str()),
        ("home", "other")
    );
    assert_eq!(signal.request_id, format!("{}:5", story.state.run_id));
    let _ = story.ask("delivered", &delivered(5, Ok(())));
    let _ = story.ask("delivered", &delivered(6, Ok(())));
    let _ = story.ask(
        "not found",
        &delivered(7, Err(Undeliverable::ExecutionNotFound)),
    );
    let _ = story.ask("again", &delivered(5, Ok(())));
    story.check(
        "
        > delivered
         8 ExternalWorkflowExecutionSignaled 5
         9 WorkflowTaskScheduled
        > delivered
        10 ExternalWorkflowExecutionCancelRequested 6
        > not found
        11 SignalExternalWorkflowExecutionFailed 7 ExternalWorkflowExecutionNotFound
        > again
        -- delivery not found: the one of event 5 is not pending
        ",
    );
}

#[test]
fn bad_commands_to_others_fail_the_workflow_task() {
    let mut story = Story::started();
    for command in [
        child_command("", ParentClosePolicy::Unspecified),
        signal_external("", "x"),
        signal_external("other", ""),
        cancel_external(""),
    ] {
        story.quiet();
        story.signal("something new"); // A first attempt again.
        let _ = story.turn(vec![command]);
        let text = story.text();
        assert!(text.contains("WorkflowTaskFailed Bad"), "{text}");
    }
    assert!(outward::ids(&story.state).is_empty());
}

#[test]
fn pending_children_are_limited() {
    let mut story = Story::started();
    let many = (0..2_001)
        .map(|i| child_command(&format!("c{i}"), ParentClosePolicy::Unspecified))
        .collect();
    let _ = story.turn(many);
    assert!(
        story
            .text()
            .contains("WorkflowTaskFailed PendingChildWorkflowsLimitExceeded")
    );
    assert!(story.state.children.is_empty());
}

#[test]
fn continue_as_new_carries_the_chain() {
    let mut story = Story::started_with(|start| {
        start.execution_timeout = 3_600 * SECOND;
        start.run_timeout = 600 * SECOND;
        start.memo = Some(orchestrion_proto::temporal::api::common::v1::Memo {
            fields: [("note".to_owned(), payloads("kept").payloads.remove(0))].into(),
        });
    });
    let first = story.state.run_id.clone();
    story.advance_ms(60_000);
    let _ = story.turn(vec![continue_command("more")]);
    assert_eq!(story.state.status, Status::ContinuedAsNew);
    let next = story.follow();
    let state = &next.state;
    assert_eq!(state.run_id, story.state.next_run_id);
    assert_ne!(state.run_id, first);
    assert_eq!(
        (state.workflow_id.as_str(), state.first_run_id.as_str()),
        ("wf", first.as_str())
    );
    assert_eq!(
        state.execution_deadline, story.state.execution_deadline,
        "one deadline for the chain"
    );
    assert_eq!(state.run_deadline, next.now + 600 * SECOND);
    assert!(state.memo.contains_key("note"));
    let begun = state.begun.get().unwrap();
    assert_eq!(begun.continued_execution_run_id, first);
    assert_eq!(begun.initiator(), ContinueAsNewInitiator::Workflow);
    assert_eq!(next.next_run, None);
}

#[test]
fn a_failed_workflow_is_retried_as_its_policy_says() {
    let mut story = Story::started_with(|start| {
        start.input = Some(payloads("order 7"));
        start.retry_policy = Some(RetryPolicy {
            maximum_attempts: 2,
            ..Default::default()
        });
    });
    story.quiet();
    let _ = story.turn(vec![fail_command("no", false)]);
    let mut next = story.follow();
    assert_eq!(next.next_run, None);
    assert_eq!(next.state.attempt, 2);
    assert_eq!(
        next.state.begun.get().unwrap().input,
        Some(payloads("order 7"))
    );
    assert_eq!(
        next.state.begun.get().unwrap().initiator(),
        ContinueAsNewInitiator::Retry
    );
    assert!(next.state.begun.get().unwrap().continued_failure.is_some());
    next.advance_ms(1_000);
    next.fire();
    let _ = next.turn(vec![fail_command("no", false)]);
    assert_eq!(next.next_run, None);
    story.check(
        "
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 WorkflowExecutionFailed InProgress
        ",
    );
    next.check(
        "
        > start
         1 WorkflowExecutionStarted
         - RunCreated
        > fire
         2 WorkflowTaskScheduled
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 WorkflowExecutionFailed MaximumAttemptsReached
        ",
    );
}

#[test]
fn a_run_that_times_out_is_retried_until_the_chain_times_out() {
    let mut story = Story::started_with(|start| {
        start.retry_policy = Some(RetryPolicy::default());
        start.run_timeout = 10 * SECOND;
        start.execution_timeout = 15 * SECOND;
    });
    story.advance_ms(10_000);
    story.fire();
    let mut next = story.follow();
    assert_eq!(next.state.run_deadline, next.state.execution_deadline);
    next.quiet();
    next.advance_ms(5_000);
    next.fire();
    next.check(
        "
        > fire
         2 WorkflowExecutionTimedOut Timeout
        ",
    );
    assert_eq!(next.next_run, None);
}

#[test]
fn a_cron_workflow_goes_on_after_success_and_failure_and_ends_when_cancelled() {
    let mut story = Story::started_with(|start| start.cron_schedule = "*/5 * * * *".to_owned());
    let wait = story.state.executable_at - story.now;
    assert!(
        wait > 0 && wait <= 300 * SECOND,
        "the first run waits for its time"
    );
    story.now = story.state.executable_at;
    story.fire();
    story.advance_ms(400_000);
    let _ = story.turn(vec![{
        let mut command = complete_command();
        if let Some(orchestrion_proto::temporal::api::command::v1::command::Attributes::CompleteWorkflowExecutionCommandAttributes(c)) = &mut command.attributes {
            c.result = Some(payloads("first"));
        }
        command
    }]);
    let mut second = story.follow();
    assert_eq!(second.state.executable_at % (300 * SECOND), 0);
    assert!(
        second.state.executable_at > second.now,
        "computed from the close, never overlapping"
    );
    second.now = second.state.executable_at;
    second.fire();
    let _ = second.turn(vec![fail_command("no", true)]);
    let mut third = second.follow();
    let begun = third.state.begun.get().unwrap();
    assert_eq!(begun.initiator(), ContinueAsNewInitiator::CronSchedule);
    assert_eq!(
        begun.last_completion_result,
        Some(payloads("first")),
        "the last result that there was"
    );
    assert!(begun.continued_failure.is_some());
    third.now = third.state.executable_at;
    third.fire();
    let _ = third.turn(vec![cancel_command()]);
    assert_eq!(third.next_run, None);
}

#[test]
fn a_cron_workflow_with_a_retry_policy_retries_first() {
    let mut story = Story::started_with(|start| {
        start.cron_schedule = "@every 1h".to_owned();
        start.retry_policy = Some(RetryPolicy {
            maximum_attempts: 2,
            ..Default::default()
        });
    });
    story.now = story.state.executable_at;
    story.fire();
    let _ = story.turn(vec![fail_command("no", false)]);
    let mut retry = story.follow();
    assert_eq!(retry.state.attempt, 2);
    retry.now = retry.state.executable_at;
    retry.fire();
    let _ = retry.turn(vec![fail_command("no", false)]);
    let next = retry.follow();
    assert_eq!(next.state.attempt, 1);
    assert_eq!(
        next.state.begun.get().unwrap().initiator(),
        ContinueAsNewInitiator::CronSchedule
    );
}

#[test]
fn a_start_that_is_wrong_is_refused_with_what_is_wrong() {
    for (change, says) in [
        (
            (|s| s.cron_schedule = "often".to_owned())
                as fn(&mut orchestrion_history::request::StartWorkflow),
            "cron schedule",
        ),
        (
            |s| (s.cron_schedule, s.first_task_backoff) = ("@daily".to_owned(), 1),
            "start delay",
        ),
        (
            |s| {
                s.retry_policy = Some(RetryPolicy {
                    backoff_coefficient: 0.5,
                    ..Default::default()
                })
            },
            "backoff coefficient",
        ),
        (|s| s.signal = Some(Box::default()), "signal name"),
        (|s| s.run_timeout = -1, "negative"),
    ] {
        let story = Story::started_with(change);
        assert_eq!(story.state.status, Status::Void);
        assert!(story.text().contains(says), "{}", story.text());
    }
}

#[test]
fn a_signal_that_comes_with_the_start_stands_before_the_first_workflow_task() {
    let story = Story::started_with(|start| {
        start.signal = Some(Box::new(SignalWorkflow {
            name: "go".to_owned(),
            request_id: "s".to_owned(),
            ..Default::default()
        }));
    });
    story.check(
        "
        > start
         1 WorkflowExecutionStarted
         - RunCreated
         2 WorkflowExecutionSignaled go
         3 WorkflowTaskScheduled
        ",
    );
    assert!(story.state.signal_request_ids.contains("s"));
}

#[test]
fn a_start_that_attaches_is_kept_also_while_a_workflow_task_runs() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    let attach = |id: &str| {
        Request::Attach(Box::new(AttachStart {
            request_id: id.to_owned(),
            ..Default::default()
        }))
    };
    let _ = story.ask("attach", &attach("second"));
    assert!(story.state.was_asked_by("second"));
    let _ = story.ask("attach", &attach("second"));
    let _ = story.turn(vec![]);
    story.check(
        "
        > attach
         3 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionOptionsUpdated
        > attach
        > turn
         4 WorkflowTaskCompleted
         5 WorkflowExecutionOptionsUpdated
         6 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn code_that_continues_at_once_waits_for_the_rest_of_a_second() {
    let mut story = Story::started();
    let begun = story.state.started_at;
    story.advance_ms(300);
    let _ = story.turn(vec![continue_command("again")]);
    let mut next = story.follow();
    assert_eq!(next.state.executable_at, begun + SECOND);
    // Its own start is the next second's beginning.
    next.advance_ms(700);
    next.fire();
    next.advance_ms(300);
    let _ = next.turn(vec![continue_command("again")]);
    assert_eq!(next.follow().state.executable_at, next.now);
}

#[test]
fn a_summary_and_groups_stay_on_the_event_of_their_command() {
    let mut story = Story::started();
    let mut command = common::timer_command("t", 1_000);
    let summary = UserMetadata {
        summary: Some(payloads("wait for the courier").payloads.remove(0)),
        details: None,
    };
    command.user_metadata = Some(summary.clone());
    let group = EventGroupMarker {
        variant: Some(Variant::InboundUpdate(InboundUpdate {
            inbound_update_id: "paid".to_owned(),
        })),
    };
    command.event_group_markers = vec![group.clone()];
    let _ = story.turn(vec![command]);
    let event = story
        .records
        .iter()
        .filter_map(|r| r.event())
        .next_back()
        .unwrap();
    assert_eq!(event.user_metadata, Some(summary));
    assert_eq!(event.event_group_markers, [group]);
}

#[test]
fn a_command_that_is_too_large_fails_the_workflow_task() {
    let mut story = Story::started();
    let _ = story.turn(vec![continue_command(&"x".repeat(3 * 1024 * 1024))]);
    assert!(
        story.text().contains("WorkflowTaskFailed PayloadsTooLarge"),
        "{}",
        story.text()
    );
    assert_eq!(story.state.status, Status::Running);
}
