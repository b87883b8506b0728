//! Canned, numbered journals of updates and of resets. Reads like `stories.rs`.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{
    Story, activity_command, app_failure, complete_command, payloads, protocol_command,
    timer_command, update_request,
};
use orchestrion_history::Context;
use orchestrion_history::ids::Timestamp;
use orchestrion_history::limits::Limits;
use orchestrion_history::machines::reset::fork;
use orchestrion_history::machines::update::{Admission, admit, outcome_of};
use orchestrion_history::record::Record;
use orchestrion_history::replay;
use orchestrion_history::request::{Rejection, Reply, Request, ResetWorkflow, UpdateStage};
use orchestrion_history::state::{MutableState, Status, Update, WorkflowTask};
use orchestrion_proto::temporal::api::protocol::v1::Message;
use orchestrion_proto::temporal::api::update::v1::outcome::Value;
use orchestrion_proto::temporal::api::update::v1::{
    Acceptance, Outcome, Rejection as Refusal, Response,
};

fn accept(id: &str) -> Message {
    common::message(
        &format!("{id}/accept"),
        id,
        "Acceptance",
        &Acceptance::default(),
    )
}

fn refuse(id: &str) -> Message {
    let refusal = Refusal {
        failure: Some(app_failure("not now", true)),
        ..Default::default()
    };
    common::message(&format!("{id}/refuse"), id, "Rejection", &refusal)
}

fn respond(id: &str) -> Message {
    let response = Response {
        meta: None,
        outcome: Some(Outcome {
            value: Some(Value::Success(payloads("done"))),
        }),
    };
    common::message(&format!("{id}/respond"), id, "Response", &response)
}

fn stages(reply: &Reply) -> (Vec<String>, bool) {
    let Reply::Updates { reports, discarded } = reply else {
        panic!("{reply:?}")
    };
    let stage = |stage: &UpdateStage| match stage {
        UpdateStage::Accepted { event_id } => format!("accepted {event_id}"),
        UpdateStage::Completed { event_id, .. } => format!("completed {event_id}"),
        UpdateStage::Rejected(failure) => format!("rejected {}", failure.message),
    };
    let told = reports
        .iter()
        .map(|report| format!("{} {}", report.update_id, stage(&report.stage)))
        .collect();
    (told, *discarded)
}

#[test]
fn an_update_is_accepted_and_completed_where_its_commands_stand() {
    let mut story = Story::started();
    story.quiet();
    let reply = story
        .turn_with_messages(
            vec![
                timer_command("before", 1_000),
                protocol_command("u1/accept"),
                activity_command("between"),
                protocol_command("u1/respond"),
            ],
            vec![respond("u1"), accept("u1")],
            &["u1"],
        )
        .unwrap();
    assert_eq!(stages(&reply).0, ["u1 accepted 6", "u1 completed 8"]);
    story.check(
        "
        > turn
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 TimerStarted before
         6 WorkflowExecutionUpdateAccepted
         7 ActivityTaskScheduled between
         8 WorkflowExecutionUpdateCompleted
        ",
    );
    assert_eq!(
        story.state.updates["u1"],
        Update::Completed {
            accepted_event_id: 6,
            completed_event_id: 8
        }
    );
    let outcome = outcome_of(&story.records, 8).unwrap();
    assert_eq!(outcome.value, Some(Value::Success(payloads("done"))));
}

#[test]
fn an_update_may_be_completed_by_a_later_task() {
    let mut story = Story::started();
    let _ = story.turn_with_messages(
        vec![protocol_command("u1/accept")],
        vec![accept("u1")],
        &["u1"],
    );
    story.signal("go");
    let reply = story
        .turn_with_messages(
            vec![protocol_command("u1/respond")],
            vec![respond("u1")],
            &[],
        )
        .unwrap();
    assert_eq!(stages(&reply).0, ["u1 completed 10"]);
}

#[test]
fn a_speculative_task_with_nothing_but_rejections_leaves_no_trace() {
    let mut story = Story::started();
    let _ = story.turn(vec![]);
    let before = story.state.clone();
    story.hold_speculative();
    let reply = story
        .turn_with_messages(vec![], vec![refuse("u1")], &["u1", "u2"])
        .unwrap();
    let (told, discarded) = stages(&reply);
    assert_eq!(told[0], "u1 rejected not now");
    assert!(
        told[1].starts_with("u2 rejected the worker did not handle"),
        "{told:?}"
    );
    assert!(discarded);
    assert_eq!(story.state, before);
}

#[test]
fn a_speculative_task_with_an_acceptance_is_written() {
    let mut story = Story::started();
    let _ = story.turn(vec![]);
    story.hold_speculative();
    story.quiet();
    let reply = story
        .turn_with_messages(
            vec![protocol_command("u1/accept")],
            vec![accept("u1"), refuse("u2")],
            &["u1", "u2"],
        )
        .unwrap();
    assert_eq!(
        stages(&reply),
        (
            vec!["u1 accepted 8".to_owned(), "u2 rejected not now".to_owned()],
            false
        )
    );
    story.check(
        "
        > turn
         5 WorkflowTaskScheduled
         6 WorkflowTaskStarted
         7 WorkflowTaskCompleted
         8 WorkflowExecutionUpdateAccepted
        ",
    );
}

#[test]
fn messages_that_make_no_sense_fail_the_workflow_task() {
    for (messages, commands) in [
        (vec![respond("u1")], vec![protocol_command("u1/respond")]),
        (vec![accept("u1"), accept("u1")], vec![]),
        (vec![accept("u1"), respond("u1"), respond("u1")], vec![]),
        (vec![accept("u1"), refuse("u1")], vec![]),
        (vec![], vec![protocol_command("nowhere")]),
        (
            vec![common::message(
                "x",
                "u1",
                "Unknown",
                &Acceptance::default(),
            )],
            vec![],
        ),
    ] {
        let mut story = Story::started();
        let _ = story.turn_with_messages(commands, messages, &["u1"]);
        let text = story.text();
        assert!(
            text.contains("WorkflowTaskFailed BadUpdateWorkflowExecutionMessage"),
            "{text}"
        );
        assert!(story.state.updates.is_empty());
    }
}

#[test]
fn a_run_that_ends_with_the_same_task_accepts_nothing_more() {
    let mut story = Story::started();
    let reply = story
        .turn_with_messages(
            vec![complete_command()],
            vec![accept("u1"), refuse("u2")],
            &["u1", "u2"],
        )
        .unwrap();
    assert_eq!(stages(&reply).0, ["u2 rejected not now"]);
    assert!(story.state.updates.is_empty());
}

#[test]
fn an_update_is_asked_for_once_and_their_number_is_limited() {
    let mut story = Story::started();
    let limits = Limits::default();
    let _ = story.turn_with_messages(
        vec![],
        vec![accept("u1"), respond("u1"), accept("u2")],
        &["u1", "u2"],
    );
    let admitted = |state: &MutableState, id: &str, waiting| admit(state, &limits, id, waiting);
    assert!(matches!(
        admitted(&story.state, "u1", 0),
        Ok(Admission::Known(Update::Completed { .. }))
    ));
    assert!(matches!(
        admitted(&story.state, "u2", 0),
        Ok(Admission::Known(Update::Accepted { .. }))
    ));
    assert_eq!(admitted(&story.state, "u3", 8), Ok(Admission::Fresh));
    assert!(matches!(
        admitted(&story.state, "u3", 9),
        Err(Rejection::Limit { .. })
    ));
    assert!(matches!(
        admitted(&story.state, "", 0),
        Err(Rejection::Invalid(_))
    ));
    story.terminate();
    assert!(
        matches!(admitted(&story.state, "u1", 0), Ok(Admission::Known(_))),
        "outcomes are read long after"
    );
    assert_eq!(admitted(&story.state, "u3", 0), Err(Rejection::Closed));
}

const NEW: &str = "00000000-0000-7000-8000-0000000000ff";

fn reset(story: &mut Story, finish_event_id: i64) -> Result<MutableState, Rejection> {
    let records = forked(story, finish_event_id)?;
    Ok(tell(story, &records))
}

fn forked(story: &mut Story, finish_event_id: i64) -> Result<Vec<Record>, Rejection> {
    let request = ResetWorkflow {
        base_run_id: story.state.run_id.clone(),
        new_run_id: NEW.to_owned(),
        finish_event_id,
        reason: "wrong turn".to_owned(),
        request_id: "reset-1".to_owned(),
        ..Default::default()
    };
    let limits = Limits::default();
    let context = Context::new(Timestamp(story.now), &limits);
    let records = fork(&story.records, &context, &request)?;
    let _ = story.ask("reset", &Request::Reset(Box::new(request)));
    Ok(records)
}

fn tell(story: &mut Story, records: &[Record]) -> MutableState {
    story.quiet();
    for record in records {
        story.say(common::line(record, story.now));
    }
    replay::fold(records).unwrap()
}

#[test]
fn a_reset_begins_before_the_boundary_and_hears_the_signals_again() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    story.take("a");
    story.signal("first");
    let _ = story.turn(vec![timer_command("t", 60_000)]);
    story.signal("second");
    let _ = story.turn_with_messages(vec![], vec![accept("u1")], &["u1"]);
    story.signal("third");
    story.advance_ms(5_000);
    let base = story.state.run_id.clone();
    let state = reset(&mut story, 9).unwrap();
    story.check(
        "
         1 WorkflowExecutionStarted
         - RunCreated
         2 WorkflowTaskScheduled
         3 WorkflowTaskStarted
         4 WorkflowTaskCompleted
         5 ActivityTaskScheduled a
         - ActivityAttemptStarted 5#1
         6 WorkflowExecutionSignaled first
         7 WorkflowTaskScheduled
         8 WorkflowTaskStarted
         9 WorkflowTaskFailed ResetWorkflow
         - ActivityAttemptReturned 5#1
        10 WorkflowExecutionSignaled second
        11 WorkflowExecutionUpdateAdmitted
        12 WorkflowExecutionSignaled third
        13 WorkflowTaskScheduled
        ",
    );
    assert_eq!(state.run_id, NEW);
    assert_eq!(
        state.original_run_id, base,
        "it seeds what workflow code draws"
    );
    assert_eq!(state.started_at, story.now);
    assert!(matches!(
        state.workflow_task,
        WorkflowTask::Scheduled { attempt: 1, .. }
    ));
    assert!(
        matches!(&state.updates["u1"], Update::Admitted { request } if request.get().is_some())
    );
    assert_eq!(story.state.status, Status::Terminated);
    assert_eq!(story.state.reset_run_id, NEW);
}

#[test]
fn an_update_that_a_reset_brought_over_may_be_rejected_and_asked_again() {
    let mut story = Story::started();
    let _ = story.turn(vec![]);
    let _ = story.turn_with_messages(vec![], vec![accept("u1")], &["u1"]);
    let records = forked(&mut story, 4).unwrap();
    let mut story = Story::of(records, story.now);
    let said = story.turn_with_messages(vec![], vec![refuse("u1")], &[]);
    assert!(
        matches!(
            said,
            Ok(Reply::Updates {
                discarded: false,
                ..
            })
        ),
        "{said:?}"
    );
    assert!(story.state.updates.is_empty());
    assert!(matches!(
        admit(&story.state, &Limits::default(), "u1", 0),
        Ok(Admission::Fresh)
    ));
}

#[test]
fn a_closed_run_is_reset_and_stays_closed() {
    let mut story = Story::started();
    let _ = story.turn(vec![complete_command()]);
    let state = reset(&mut story, 4).unwrap();
    assert_eq!(state.status, Status::Running);
    assert_eq!(story.state.status, Status::Completed);
    let again = ResetWorkflow {
        request_id: "reset-1".to_owned(),
        ..Default::default()
    };
    assert_eq!(
        story.ask("reset", &Request::Reset(Box::new(again))),
        Ok(Reply::Repeated)
    );
}

#[test]
fn what_waits_in_the_buffer_is_signalled_again() {
    let mut story = Story::started();
    let _ = story.turn(vec![timer_command("t", 60_000)]);
    story.signal("one");
    story.hold_task();
    story.signal("two");
    let state = reset(&mut story, 4).unwrap();
    assert_eq!(state.signals, 2);
}

#[test]
fn only_the_end_of_a_workflow_task_can_be_gone_back_to() {
    let mut story = Story::started();
    let _ = story.turn(vec![activity_command("a")]);
    for (finish, says) in [
        (0, "no event 0"),
        (1, "no event 1"),
        (99, "no event 99"),
        (5, "ends no workflow task"),
        (2, "ends no workflow task"),
    ] {
        let before = story.state.clone();
        let refused = reset(&mut story, finish).unwrap_err();
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(story.state, before);
    }
    let _ = update_request("u");
}
