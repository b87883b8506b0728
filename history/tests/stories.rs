//! Canned, numbered journals: a request in a state, and the records that come of it, as text.
//!
//! Each test reads like a log: what was asked stands behind `>`, records behind their number, rejections behind `--`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Story, activity_command, app_failure, complete_command, timer_command};
use orchestrion_history::request::{ActivityRef, Rejection, Request, SignalWorkflow};
use orchestrion_proto::temporal::api::enums::v1::TimeoutType;

#[test]
fn one_activity() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.complete(ActivityRef::Id("a".into()));
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > start
         1 WorkflowExecutionStarted
         - RunCreated
         2 WorkflowTaskScheduled
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 ActivityTaskScheduled a
        > take a
         - ActivityAttemptStarted 5#1
        > complete
         6 ActivityTaskStarted 5#1
         7 ActivityTaskCompleted 5 after 6
         8 WorkflowTaskScheduled
        > turn
         9 WorkflowTaskStarted
        10 WorkflowTaskCompleted
        11 WorkflowExecutionCompleted
        ",
    );
}

#[test]
fn a_failed_attempt_is_retried_and_the_last_failure_closes() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.quiet();
    story.take("a");
    story.fail("a", app_failure("card declined", false));
    story.advance_ms(1_000);
    story.fire();
    story.take("a");
    story.fail("a", app_failure("card declined", false));
    story.advance_ms(2_000);
    story.fire();
    story.take("a");
    story.fail("a", app_failure("card declined", false));
    story.check(
        "
        > take a
         - ActivityAttemptStarted 5#1
        > fail a
         - ActivityAttemptFailed 5#1 retry in 1000 ms
        > fire
         - ActivityAttemptReturned 5#2
        > take a
         - ActivityAttemptStarted 5#2
        > fail a
         - ActivityAttemptFailed 5#2 retry in 2000 ms
        > fire
         - ActivityAttemptReturned 5#3
        > take a
         - ActivityAttemptStarted 5#3
        > fail a
         6 ActivityTaskStarted 5#3
         7 ActivityTaskFailed 5 after 6 MaximumAttemptsReached
         8 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_permanent_failure_is_not_retried() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.quiet();
    story.fail("a", app_failure("no such customer", true));
    story.check(
        "
        > fail a
         6 ActivityTaskStarted 5#1
         7 ActivityTaskFailed 5 after 6 NonRetryableFailure
         8 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn an_attempt_times_out_and_its_late_result_still_counts() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.quiet();
    story.advance_ms(30_000);
    story.fire();
    story.complete(ActivityRef::Attempt {
        scheduled_event_id: 5,
        attempt: 1,
    });
    story.complete(ActivityRef::Scheduled(5));
    // Its next attempt was not due yet, and history does not tell of a start that is still to come.
    assert!(story.records.iter().all(|record| record.at() <= story.now));
    story.complete(ActivityRef::Scheduled(5));
    story.check(
        "
        > fire
         - ActivityAttemptFailed 5#1 retry in 1000 ms
        > complete
        -- activity not found: attempt 1 of event 5 is not running; it may have timed out
        > complete
         6 ActivityTaskStarted 5#2
         7 ActivityTaskCompleted 5 after 6
         8 WorkflowTaskScheduled
        > complete
        -- activity not found: the activity of event 5 is not pending; it may have closed
        ",
    );
}

#[test]
fn a_lost_worker_returns_its_attempt_uncounted() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.quiet();
    story.give_back(5, 1);
    story.give_back(5, 1);
    story.take("a");
    story.check(
        "
        > give back
         - ActivityAttemptReturned 5#1
        > give back
        > take a
         - ActivityAttemptStarted 5#1
        ",
    );
}

#[test]
fn an_activity_that_waits_is_cancelled_at_once_and_one_that_runs_is_asked() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("runs"), activity_command("waits")]);
    story.take("runs");
    story.signal("go");
    story.quiet();
    let _ = story.turn(vec![common::cancel_activity(5), common::cancel_activity(6)]);
    story.fail("runs", app_failure("stopped", false));
    story.check(
        "
        > turn
         9 WorkflowTaskStarted
        10 WorkflowTaskCompleted
        11 ActivityTaskCancelRequested 5
        12 ActivityTaskCancelRequested 6
        13 ActivityTaskCanceled 6
        14 WorkflowTaskScheduled
        > fail runs
        15 ActivityTaskStarted 5#1
        16 ActivityTaskFailed 5 after 15 CancelRequested
        ",
    );
}

#[test]
fn what_arrives_while_a_task_runs_is_buffered_and_flushed_behind_the_commands() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a"), timer_command("t", 5_000)]);
    story.take("a");
    story.signal("one");
    story.hold_task();
    story.quiet();
    story.complete(ActivityRef::Id("a".into()));
    story.signal("two");
    story.advance_ms(5_000);
    story.fire();
    let _ = story.turn(vec![activity_command("b")]);
    story.check(
        "
        > complete
         9 WorkflowTaskStarted
         - EventBuffered ActivityTaskStarted
         - EventBuffered ActivityTaskCompleted
        > signal two
         - EventBuffered WorkflowExecutionSignaled
        > fire
         - EventBuffered TimerFired
        > turn
        10 WorkflowTaskCompleted
        11 ActivityTaskScheduled b
        12 ActivityTaskStarted 5#1
        13 WorkflowExecutionSignaled two
        14 TimerFired t
        15 ActivityTaskCompleted 5 after 12
        16 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_close_that_would_hide_a_buffered_event_is_unhandled() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    story.signal("late");
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > signal late
         3 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
        > turn
         4 WorkflowTaskFailed UnhandledCommand
         5 WorkflowExecutionSignaled late
         6 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_timer_whose_fire_is_buffered_can_still_be_cancelled() {
    let mut story = Story::started();
    let _ = story.turn(vec![timer_command("t", 1_000)]);
    story.signal("go");
    story.hold_task();
    story.advance_ms(1_000);
    story.fire();
    story.quiet();
    let _ = story.turn(vec![common::cancel_timer("t")]);
    story.check(
        "
        > turn
         9 WorkflowTaskCompleted
        10 TimerCanceled t
        ",
    );
}

#[test]
fn a_bad_command_takes_all_of_its_answer_with_it() {
    let mut story = Story::started();
    story.quiet();
    let _ = story.turn(vec![activity_command("a"), activity_command("a")]);
    story.check(
        "
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskFailed ScheduleActivityDuplicateId
         - WorkflowTaskRetried #2
        ",
    );
}

#[test]
fn signals_are_deduplicated_by_request_id_even_while_buffered() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    story.signal_with_id("s", "r1");
    story.signal_with_id("s", "r1");
    let _ = story.turn(vec![]);
    story.signal_with_id("s", "r1");
    story.check(
        "
        > signal s
         3 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
        > signal s
        -- repeated
        > turn
         4 WorkflowTaskCompleted
         5 WorkflowExecutionSignaled s
         6 WorkflowTaskScheduled
        > signal s
        -- repeated
        ",
    );
}

#[test]
fn a_signal_that_asks_for_the_end_leaves_one_cancel_request() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.quiet();
    story.signal_that_cancels("stop");
    story.signal_that_cancels("stop");
    story.hold_task();
    story.signal_that_cancels("stop");
    story.check(
        "
        > signal stop
         6 WorkflowExecutionSignaled stop
         7 WorkflowExecutionCancelRequested
         8 WorkflowTaskScheduled
        > signal stop
         9 WorkflowExecutionSignaled stop
        > signal stop
        10 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
        ",
    );

    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    story.signal_that_cancels("stop");
    story.signal_that_cancels("stop");
    let _ = story.turn(vec![]);
    story.check(
        "
        > signal stop
         3 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
         - EventBuffered WorkflowExecutionCancelRequested
        > signal stop
         - EventBuffered WorkflowExecutionSignaled
        > turn
         4 WorkflowTaskCompleted
         5 WorkflowExecutionSignaled stop
         6 WorkflowExecutionCancelRequested
         7 WorkflowExecutionSignaled stop
         8 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn the_four_timeouts_of_an_activity() {
    for (kind, taken, wait_ms) in [
        (TimeoutType::ScheduleToStart, false, 10_000),
        (TimeoutType::ScheduleToClose, true, 60_000),
        (TimeoutType::Heartbeat, true, 5_000),
        (TimeoutType::StartToClose, true, 20_000),
    ] {
        let mut story = Story::started();
        let _ = story.turn(vec![common::timed_activity("a", kind)]);
        if taken {
            story.take("a");
        }
        story.advance_ms(wait_ms - 1);
        story.fire();
        assert!(
            !story.text().contains("TimedOut"),
            "{kind:?} fired early:\n{}",
            story.text()
        );
        story.advance_ms(1);
        story.fire();
        assert!(
            story
                .text()
                .contains(&format!("ActivityTaskTimedOut 5 {kind:?}")),
            "{kind:?}:\n{}",
            story.text()
        );
    }
}

#[test]
fn a_closed_run_answers_that_it_is_closed() {
    let mut story = Story::started();
    let _ = story.turn(vec![complete_command()]);
    story.quiet();
    story.signal("late");
    story.terminate();
    story.fire();
    story.check(
        "
        > signal late
        -- workflow execution already completed
        > terminate
        -- workflow execution already completed
        > fire
        ",
    );
}

#[test]
fn a_run_ends_at_its_deadline() {
    let mut story = Story::started_with(|start| start.run_timeout = 60_000_000_000);
    let _ = story.turn(vec![activity_command("a")]);
    story.quiet();
    story.advance_ms(60_000);
    story.fire();
    story.check(
        "
        > fire
         6 WorkflowExecutionTimedOut Timeout
        ",
    );
}

#[test]
fn a_delayed_start_waits_for_its_time_a_cancellation_or_a_second_start_with_a_signal() {
    let delayed = || {
        let mut story = Story::started_with(|start| start.first_task_backoff = 60_000_000_000);
        story.quiet();
        story.signal("one");
        story
    };
    let mut story = delayed();
    story.advance_ms(60_000);
    story.fire();
    story.check(
        "
        > signal one
         2 WorkflowExecutionSignaled one
        > fire
         3 WorkflowTaskScheduled
        ",
    );
    let mut story = delayed();
    let cancel = Request::RequestCancel(Box::default());
    story.ask("cancel", &cancel).unwrap();
    story.advance_ms(60_000);
    story.fire();
    story.check(
        "
        > signal one
         2 WorkflowExecutionSignaled one
        > cancel
         3 WorkflowExecutionCancelRequested
         4 WorkflowTaskScheduled
        > fire
        ",
    );
    let mut story = delayed();
    let with_start = Request::Signal(Box::new(SignalWorkflow {
        name: "two".to_owned(),
        ends_start_delay: true,
        ..Default::default()
    }));
    story.ask("signal with start", &with_start).unwrap();
    story.check(
        "
        > signal one
         2 WorkflowExecutionSignaled one
        > signal with start
         3 WorkflowExecutionSignaled two
         4 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_repeated_start_is_recognised_and_another_refused() {
    let mut story = Story::started();
    story.quiet();
    story.start_again("start-1");
    story.start_again("start-2");
    story.check(
        "
        > start
        -- repeated
        > start
        -- workflow execution wf is already running as run 00000000-0000-7000-8000-000000000001
        ",
    );
}

#[test]
fn a_stale_token_finds_no_task() {
    let mut story = Story::started();
    story.quiet();
    story.turn_with_token(2, 2, vec![complete_command()]);
    story.turn_with_token(9, 1, vec![complete_command()]);
    story.check(
        "
        > turn
        -- workflow task not found: the run waits for no answer to event 2
        > turn
        -- workflow task not found: the run waits for no answer to event 9
        ",
    );
}

#[test]
fn a_cancellation_behind_a_time_out_leaves_the_doubt_in_history() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.advance_ms(30_000);
    story.fire();
    story.signal("stop");
    story.quiet();
    let _ = story.turn(vec![common::cancel_activity(5)]);
    story.check(
        "
        > turn
         8 WorkflowTaskStarted
         9 WorkflowTaskCompleted
        10 ActivityTaskCancelRequested 5
        11 ActivityTaskStarted 5#2
        12 ActivityTaskCanceled 5
        13 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn further_attempts_of_a_workflow_task_leave_no_event() {
    let mut story = Story::started();
    story.quiet();
    story.fail_task();
    story.fail_task();
    story.hold_task();
    story.advance_ms(10_000);
    story.fire();
    let _ = story.turn(vec![activity_command("a")]);
    story.check(
        "
        > fail task
         3 WorkflowTaskStarted
         4 WorkflowTaskFailed WorkflowWorkerUnhandledFailure
         - WorkflowTaskRetried #2
        > fail task
         - WorkflowTaskAttemptFailed #2
         - WorkflowTaskRetried #3
        > fire
         - WorkflowTaskAttemptFailed #3
         - WorkflowTaskRetried #4
        > turn
         5 WorkflowTaskScheduled #4
         6 WorkflowTaskStarted
         7 WorkflowTaskCompleted
         8 ActivityTaskScheduled a
        ",
    );
}

#[test]
fn something_new_makes_a_transient_task_a_first_attempt() {
    let mut story = Story::started();
    story.fail_task();
    story.quiet();
    story.signal("new");
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > signal new
         5 WorkflowExecutionSignaled new
         6 WorkflowTaskScheduled
        > turn
         7 WorkflowTaskStarted
         8 WorkflowTaskCompleted
         9 WorkflowExecutionCompleted
        ",
    );
}

#[test]
fn a_signal_while_a_transient_task_runs_writes_its_start_and_waits() {
    let mut story = Story::started();
    story.fail_task();
    story.quiet();
    story.hold_task();
    story.signal("new");
    let _ = story.turn(vec![complete_command()]);
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > signal new
         5 WorkflowTaskScheduled #2
         6 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
        > turn
         7 WorkflowTaskFailed UnhandledCommand
         8 WorkflowExecutionSignaled new
         9 WorkflowTaskScheduled
        > turn
        10 WorkflowTaskStarted
        11 WorkflowTaskCompleted
        12 WorkflowExecutionCompleted
        ",
    );
}

#[test]
fn a_bad_command_of_a_further_attempt_waits_for_the_time_out() {
    let mut story = Story::started();
    story.fail_task();
    story.hold_task();
    story.quiet();
    let _ = story.turn(vec![activity_command("")]);
    story.check(
        "
        > turn
        -- activity \"\": its id is empty
        ",
    );
}

#[test]
fn a_sticky_worker_that_fails_or_never_comes_costs_no_attempt() {
    let mut story = Story::started();
    story.quiet();
    story.sticky = true;
    story.fail_task();
    story.sticky_expired = true;
    story.fire();
    story.check(
        "
        > fail task
         3 WorkflowTaskStarted
         4 WorkflowTaskFailed WorkflowWorkerUnhandledFailure
         5 WorkflowTaskScheduled
        > fire
         6 WorkflowTaskTimedOut ScheduleToStart
         7 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn the_buffer_is_bounded() {
    let mut story = Story::started();
    story.hold_task();
    for _ in 0..100 {
        story.signal("s");
    }
    story.quiet();
    story.signal("one more");
    let text = story.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], " 4 WorkflowTaskFailed ForceCloseCommand");
    assert_eq!(lines[2], " 5 WorkflowExecutionSignaled s");
    assert_eq!(lines[102], "105 WorkflowExecutionSignaled one more");
    assert_eq!(lines[103], "106 WorkflowTaskScheduled");
}

#[test]
fn a_speculative_task_is_written_when_something_comes_of_it() {
    let mut story = Story::started();
    let _ = story.turn(vec![]);
    story.quiet();
    story.hold_speculative();
    let _ = story.turn(vec![timer_command("t", 1_000)]);
    story.hold_speculative();
    story.signal("in between");
    let _ = story.turn(vec![]);
    story.check(
        "
        > turn
         5 WorkflowTaskScheduled
         6 WorkflowTaskStarted
         7 WorkflowTaskCompleted
         8 TimerStarted t
        > signal in between
         9 WorkflowTaskScheduled
        10 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionSignaled
        > turn
        11 WorkflowTaskCompleted
        12 WorkflowExecutionSignaled in between
        13 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_task_is_not_kept_alive_for_ever() {
    let mut story = Story::started();
    story.quiet();
    for _ in 0..4 {
        story.advance_ms(600_000);
        story.keep_alive();
    }
    story.check(
        "
        > keep alive
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 WorkflowTaskScheduled
        > keep alive
         6 WorkflowTaskStarted
         7 WorkflowTaskCompleted
         8 WorkflowTaskScheduled
        > keep alive
         9 WorkflowTaskStarted
        10 WorkflowTaskCompleted
        11 WorkflowTaskScheduled
        > keep alive
        12 WorkflowTaskStarted
        13 WorkflowTaskTimedOut StartToClose
         - WorkflowTaskRetried #2
        ",
    );
}

#[test]
fn after_a_restart_a_worker_that_missed_an_event_is_refused_and_another_turn_shows_it() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    // The restart: the worker still has its task, and the engine does not know of it.
    let token = story.held.take().unwrap();
    story.signal("missed");
    let answer = story.complete_task(token, vec![]);
    assert!(
        matches!(&answer, Err(Rejection::NotFound { what, .. }) if *what == "workflow task"),
        "{answer:?}"
    );
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > signal missed
         3 WorkflowExecutionSignaled missed
        > turn
        -- workflow task not found: the run waits for no answer to event 2
        > turn
         4 WorkflowTaskStarted
         5 WorkflowTaskCompleted
         6 WorkflowExecutionCompleted
        ",
    );
}

#[test]
fn after_a_restart_a_worker_that_missed_nothing_may_answer() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    let token = story.held.take().unwrap();
    let _ = story.complete_task(token, vec![complete_command()]);
    story.check(
        "
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 WorkflowExecutionCompleted
        ",
    );
}
