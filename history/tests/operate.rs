//! What operators do to runs and their activities, as stories.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{Story, activity_command, app_failure, complete_command, operate, options_change};
use orchestrion_history::request::{
    ActivityChoice, ActivityRef, HeartbeatActivity, OptionsChange, PauseWorkflow, Rejection, Reply,
    Request, ResetActivity, UnpauseWorkflow, UpdateActivityOptions,
};
use orchestrion_history::state::Stage;
use orchestrion_history::wire;
use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;

const PAUSE: u8 = 0;
const UNPAUSE: u8 = 1;
const RESET: u8 = 2;

fn a() -> ActivityChoice {
    ActivityChoice::Id("a".into())
}

fn with_activity() -> Story {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.quiet();
    story
}

fn beat(story: &mut Story) -> Reply {
    let beat = HeartbeatActivity {
        activity: ActivityRef::Id("a".into()),
        details: Some(common::payloads("half")),
    };
    story
        .ask("heartbeat", &Request::HeartbeatActivity(Box::new(beat)))
        .unwrap()
}

#[test]
fn a_paused_activity_is_not_handed_out_before_it_is_unpaused() {
    let mut story = with_activity();
    story.ask("pause", &operate(PAUSE, a(), 0)).unwrap();
    story.ask("pause", &operate(PAUSE, a(), 1)).unwrap();
    let _ = story.take_attempt(5, 1, "some");
    story.ask("unpause", &operate(UNPAUSE, a(), 5)).unwrap();
    story.take("a");
    story.check(
        "
        > pause
         - ActivityPaused 5
        > pause
        > take some
        -- activity not found: attempt 1 of event 5 is paused
        > unpause
         - ActivityUnpaused 5
        > take a
         - ActivityAttemptStarted 5#1
        ",
    );
}

#[test]
fn a_running_attempt_hears_of_the_pause_and_its_retry_waits() {
    let mut story = with_activity();
    story.take("a");
    story.ask("pause", &operate(PAUSE, a(), 0)).unwrap();
    let told = Reply::Heartbeat {
        cancel_requested: false,
        paused: true,
        reset: false,
    };
    assert_eq!(beat(&mut story), told);
    story.fail("a", app_failure("paused", false));
    story.advance_ms(1_000);
    story.fire();
    let _ = story.take_attempt(5, 2, "some");
    story.ask("unpause", &operate(UNPAUSE, a(), 5)).unwrap();
    story.take("a");
    story.complete(ActivityRef::Id("a".into()));
    story.check(
        "
        > take a
         - ActivityAttemptStarted 5#1
        > pause
         - ActivityPaused 5
        > heartbeat
         - ActivityHeartbeat
        > fail a
         - ActivityAttemptFailed 5#1 retry in 1000 ms
        > fire
         - ActivityAttemptReturned 5#2
        > take some
        -- activity not found: attempt 2 of event 5 is paused
        > unpause
         - ActivityUnpaused 5
        > take a
         - ActivityAttemptStarted 5#2
        > complete
         6 ActivityTaskStarted 5#2
         7 ActivityTaskCompleted 5 after 6
         8 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn an_attempt_on_a_stream_goes_back_when_it_was_paused_before_a_restart() {
    use orchestrion_history::request::StartActivityAttempt;
    let mut story = with_activity();
    let on_stream = |request_id: &str| {
        Request::StartActivityAttempt(StartActivityAttempt {
            scheduled_event_id: 5,
            attempt: 1,
            identity: "w".into(),
            request_id: request_id.into(),
            on_stream: true,
        })
    };
    story.ask("take", &on_stream("first")).unwrap();
    story.ask("pause", &operate(PAUSE, a(), 0)).unwrap();
    story.ask("take", &on_stream("second")).unwrap();
    assert_eq!(story.state.activities[&5].stage, Stage::Queued);
    story.ask("unpause", &operate(UNPAUSE, a(), 5)).unwrap();
    story.ask("take", &on_stream("third")).unwrap();
    story.check(
        "
        > take
         - ActivityAttemptStarted 5#1
        > pause
         - ActivityPaused 5
        > take
         - ActivityAttemptReturned 5#1
        > unpause
         - ActivityUnpaused 5
        > take
         - ActivityAttemptStarted 5#1
        ",
    );
}

#[test]
fn what_a_stream_has_stays_on_its_queue() {
    use orchestrion_history::request::StartActivityAttempt;
    let mut story = with_activity();
    let take = Request::StartActivityAttempt(StartActivityAttempt {
        scheduled_event_id: 5,
        attempt: 1,
        identity: "w".into(),
        request_id: "r".into(),
        on_stream: true,
    });
    story.ask("take", &take).unwrap();
    let elsewhere = Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
        choice: a(),
        identity: "operator".into(),
        change: OptionsChange::Fields {
            options: Box::new(ActivityOptions {
                task_queue: Some(TaskQueue {
                    name: "elsewhere".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            paths: vec!["task_queue".into()],
        },
    }));
    let refused = story.ask("options", &elsewhere);
    assert!(matches!(refused, Err(Rejection::Invalid(_))), "{refused:?}");
    story.give_back(5, 1);
    story.ask("options", &elsewhere).unwrap();
    assert_eq!(story.state.activities[&5].task_queue, "elsewhere");
}

#[test]
fn a_reset_counts_attempts_anew_and_no_token_of_before_fits() {
    let mut story = with_activity();
    story.take("a");
    story.fail("a", app_failure("no", false));
    story.ask("reset", &operate(RESET, a(), 7)).unwrap();
    assert_eq!(story.state.activities[&5].number(), 1);
    story.take("a");
    story.complete(ActivityRef::Attempt {
        scheduled_event_id: 5,
        attempt: 1,
    });
    story.complete(ActivityRef::Attempt {
        scheduled_event_id: 5,
        attempt: 2,
    });
    story.check(
        "
        > take a
         - ActivityAttemptStarted 5#1
        > fail a
         - ActivityAttemptFailed 5#1 retry in 1000 ms
        > reset
         - ActivityReset 5
        > take a
         - ActivityAttemptStarted 5#2
        > complete
        -- activity not found: attempt 1 of event 5 is not running; it may have timed out
        > complete
         6 ActivityTaskStarted 5#1
         7 ActivityTaskCompleted 5 after 6
         8 WorkflowTaskScheduled
        ",
    );
}

#[test]
fn a_running_attempt_hears_of_the_reset_and_its_failure_begins_anew() {
    let mut story = with_activity();
    story.take("a");
    story.fail("a", app_failure("no", false));
    story.advance_ms(1_000);
    story.fire();
    story.take("a");
    story.fail("a", app_failure("no", false));
    story.advance_ms(2_000);
    story.fire();
    story.take("a");
    assert_eq!(story.state.activities[&5].number(), 3);
    story.ask("reset", &operate(RESET, a(), 8)).unwrap();
    let told = Reply::Heartbeat {
        cancel_requested: false,
        paused: false,
        reset: true,
    };
    assert_eq!(beat(&mut story), told);
    story.quiet();
    // Its third attempt would have been the last.
    story.fail("a", app_failure("reset", false));
    let activity = &story.state.activities[&5];
    assert_eq!((activity.number(), activity.attempt), (1, 4));
    assert!(activity.heartbeat_details.is_empty());
    story.check(
        "
        > fail a
         - ActivityAttemptFailed 5#3 retry in 1000 ms
        ",
    );
}

#[test]
fn other_options_count_at_once_and_can_be_taken_back() {
    let mut story = with_activity();
    story.take("a");
    story.fail("a", app_failure("no", false));
    let update = |change| {
        Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
            choice: a(),
            identity: "operator".into(),
            change,
        }))
    };
    let before = story.state.activities[&5].options();
    story
        .ask("options", &update(options_change(9_999)))
        .unwrap();
    let activity = &story.state.activities[&5];
    assert_eq!(activity.start_to_close, 10_000_000_000);
    // The wait that began is another one now: ten seconds from the failure.
    let later = story.now + 10_000_000_000;
    assert_eq!(activity.stage, Stage::Backoff { until: later });
    story
        .ask("options", &update(OptionsChange::Restore))
        .unwrap();
    assert_eq!(story.state.activities[&5].options(), before);
    story.quiet();
    let elsewhere = |paths: &[&str]| OptionsChange::Fields {
        options: Box::new(ActivityOptions {
            task_queue: Some(TaskQueue {
                name: "elsewhere".into(),
                ..Default::default()
            }),
            heartbeat_timeout: Some(wire::duration(-1)),
            ..Default::default()
        }),
        paths: paths.iter().map(|path| (*path).to_owned()).collect(),
    };
    let _ = story.ask("options", &update(elsewhere(&["heartbeat_timeout"])));
    let _ = story.ask("options", &update(elsewhere(&["input"])));
    let _ = story.ask("options", &update(elsewhere(&[])));
    story
        .ask("options", &update(elsewhere(&["task_queue"])))
        .unwrap();
    assert_eq!(story.state.activities[&5].task_queue, "elsewhere");
    story.check(
        r#"
        > options
        -- activity "a": its heartbeat timeout is negative
        > options
        -- activity "a": the update mask names "input", which cannot be changed: task_queue, the four timeouts, retry_policy and priority can
        > options
        -- activity "a": the update mask names no field: name those that change
        > options
         - ActivityOptionsUpdated 5
        "#,
    );
}

#[test]
fn what_is_not_pending_is_not_found() {
    let mut story = with_activity();
    let nothing = ActivityChoice::Type("nothing".into());
    for what in [PAUSE, UNPAUSE, RESET, 4] {
        let refused = story.ask("operate", &operate(what, nothing.clone(), 1));
        assert!(
            matches!(refused, Err(Rejection::NotFound { .. })),
            "{refused:?}"
        );
    }
    let all = Request::ResetActivity(ResetActivity {
        choice: ActivityChoice::All,
        identity: String::new(),
        reset_heartbeat: false,
        keep_paused: false,
        restore_options: true,
        delay: 0,
    });
    story.ask("reset all", &all).unwrap();
    story.complete(ActivityRef::Id("a".into()));
    assert!(story.ask("reset all", &all).is_err());
}

#[test]
fn a_paused_run_hands_out_nothing_and_misses_nothing() {
    let mut story = with_activity();
    let pause = Request::Pause(PauseWorkflow {
        request_id: "once".into(),
        ..Default::default()
    });
    story.signal("s");
    story.ask("pause", &pause).unwrap();
    story.ask("pause", &pause).unwrap();
    let another = Request::Pause(PauseWorkflow::default());
    let _ = story.ask("pause", &another);
    assert_eq!(story.state.listed_status(), WorkflowExecutionStatus::Paused);
    story.signal("t");
    let _ = story.take_attempt(5, 1, "some");
    let unpause = Request::Unpause(UnpauseWorkflow {
        request_id: "twice".into(),
        ..Default::default()
    });
    story.ask("unpause", &unpause).unwrap();
    story.ask("unpause", &unpause).unwrap();
    story.take("a");
    let _ = story.turn(vec![complete_command()]);
    story.check(
        "
        > signal s
         6 WorkflowExecutionSignaled s
         7 WorkflowTaskScheduled
        > pause
         8 WorkflowTaskFailed WorkflowPauseRequestedBeforeTaskStarted
         9 WorkflowExecutionPaused
        > pause
        -- repeated
        > pause
        -- the workflow is paused already
        > signal t
        10 WorkflowExecutionSignaled t
        > take some
        -- activity not found: attempt 1 of event 5 is paused
        > unpause
        11 WorkflowExecutionUnpaused
        12 WorkflowTaskScheduled
        > unpause
        -- repeated
        > take a
         - ActivityAttemptStarted 5#1
        > turn
        13 WorkflowTaskStarted
        14 WorkflowTaskCompleted
        15 WorkflowExecutionCompleted
        ",
    );
}

#[test]
fn a_pause_lets_the_workflow_task_end_that_runs() {
    let mut story = Story::started();
    story.hold_task();
    story.quiet();
    story
        .ask("pause", &Request::Pause(PauseWorkflow::default()))
        .unwrap();
    let _ = story.turn(vec![activity_command("a")]);
    let _ = story.take_attempt(5, 1, "some");
    story
        .ask("unpause", &Request::Unpause(UnpauseWorkflow::default()))
        .unwrap();
    story.take("a");
    story.check(
        "
        > pause
         3 WorkflowTaskStarted
         - EventBuffered WorkflowExecutionPaused
        > turn
         4 WorkflowTaskCompleted
         5 ActivityTaskScheduled a
         6 WorkflowExecutionPaused
        > take some
        -- activity not found: attempt 1 of event 5 is paused
        > unpause
         7 WorkflowExecutionUnpaused
         8 WorkflowTaskScheduled
        > take a
         - ActivityAttemptStarted 5#1
        ",
    );
}

#[test]
fn a_workflow_task_that_keeps_failing_is_a_problem_until_one_completes() {
    use orchestrion_history::state::Problem;
    use orchestrion_proto::temporal::api::enums::v1::WorkflowTaskFailedCause;
    let mut story = Story::started();
    for attempt in 1..=5 {
        assert_eq!(story.state.problem, None, "before attempt {attempt}");
        story.hold_task();
        story.fail_task();
    }
    let cause = WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure;
    assert_eq!(story.state.problem, Some(Problem::Failed(cause.into())));
    let _ = story.turn(vec![activity_command("a")]);
    assert_eq!(story.state.problem, None);
}

#[test]
fn a_summary_that_is_too_long_fails_the_workflow_task() {
    use orchestrion_proto::temporal::api::enums::v1::CommandType;
    use orchestrion_proto::temporal::api::sdk::v1::UserMetadata;
    let mut story = Story::started();
    let said = |bytes: usize| {
        let mut command = activity_command("a");
        command.set_command_type(CommandType::ScheduleActivityTask);
        command.user_metadata = Some(UserMetadata {
            summary: Some(common::payloads(&"x".repeat(bytes)).payloads.remove(0)),
            details: None,
        });
        command
    };
    let Ok(Reply::TaskFailed { message, .. }) = story.turn(vec![said(401)]) else {
        panic!("{}", story.text());
    };
    assert_eq!(
        message,
        "ScheduleActivityTask: its summary has 403 bytes, at most 400 are allowed: shorten it"
    );
    let _ = story.turn(vec![said(300)]);
    assert_eq!(story.state.activities.len(), 1);
}
