//! A revert that is run again by itself.

use super::*;
use crate::orchestration::revert::{Ended, RevertAgain, Tried};
use crate::orchestration::{IDEMPOTENCY_HEADER, Options, REVERT_WORKFLOW_TYPE};

fn asked() -> RevertAgain {
    RevertAgain {
        compensation_id: "c_1".into(),
        orchestration_id: "o_9".into(),
        task_id: "task2".into(),
        service: "s_pay".into(),
        service_name: "pay".into(),
        time_ms: 60_000,
        idempotency_key: String::new(),
        options: Options::default(),
    }
}

fn begun(asked: &RevertAgain) -> World {
    let input = asked.input(r#"{"originalTask" : 1.0}"#, r#"{"reason":"failed"}"#);
    let mut world = World::start_typed(REVERT_WORKFLOW_TYPE, input);
    world.turn();
    world
}

fn ended(world: &World) -> Ended {
    assert!(world.closed);
    assert_eq!(world.effects, [], "whoever asked reads the end");
    Ended::of(&world.journal).unwrap()
}

#[test]
fn a_revert_that_works_this_time() {
    let mut world = begun(&asked());
    assert_eq!(Ended::of(&world.journal), None, "it is open");
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled revert:task2 pay.revert {"originalTask":1.0}
          7  ActivityTaskCompleted revert:task2 {"status":"completed"}
         11  WorkflowPropertiesModified status="completed"
         12  WorkflowExecutionCompleted [{"status":"completed","error":null}]
        "#,
    );
    let end = ended(&world);
    assert!(end.is_undone());
    assert_eq!(
        (end.status.as_str(), end.failure.as_str()),
        ("completed", "")
    );
    let tried = Tried::of(&world.journal, "task2").unwrap();
    assert!(tried.answered);
    assert_eq!(tried.scheduled_event_id, 5);
    assert_eq!(Tried::of(&world.journal, "task1"), None);
}

#[test]
fn a_revert_that_fails_again_says_why_and_whether_it_was_answered() {
    let mut world = begun(&asked());
    world.failed("revert:task2", "still no").turn();
    let end = ended(&world);
    assert_eq!(
        (end.status.as_str(), end.failure.as_str()),
        ("failed", "still no")
    );
    assert!(!Tried::of(&world.journal, "task2").unwrap().answered);

    let mut world = begun(&asked());
    let answer = json!({"status": "failed", "error": "the shop is closed"});
    world.completed("revert:task2", answer).turn();
    let end = ended(&world);
    assert!(!end.is_undone());
    assert_eq!(end.failure, "the shop is closed");
    assert!(Tried::of(&world.journal, "task2").unwrap().answered);

    let mut world = begun(&asked());
    world
        .timed_out("revert:task2", TimeoutType::StartToClose)
        .turn();
    assert_eq!(ended(&world).status, "unknown");
}

#[test]
fn the_key_of_the_revert_before_travels_in_the_header() {
    let again = RevertAgain {
        idempotency_key: "o_9.17.abc".into(),
        ..asked()
    };
    let world = begun(&again);
    let tried = Tried::of(&world.journal, "task2").unwrap();
    assert_eq!(tried.idempotency_key, "o_9.17.abc");
    let header = world
        .events
        .iter()
        .find_map(|event| match &event.attributes {
            Some(Attributes::ActivityTaskScheduledEventAttributes(a)) => a.header.clone(),
            _ => None,
        });
    let fields = header.unwrap().fields;
    assert!(fields.contains_key(IDEMPOTENCY_HEADER));
    let context = &fields[crate::orchestration::COMPENSATION_HEADER];
    assert_eq!(context.data, br#"{"reason":"failed"}"#);
}

#[test]
fn a_cancelled_one_is_not_undone() {
    let mut world = begun(&asked());
    world
        .untaken("revert:task2")
        .cancel_requested("enough")
        .turn();
    let end = ended(&world);
    assert_eq!((end.status.as_str(), end.is_undone()), ("failed", false));

    let input = asked().input("null", "null");
    let mut world = World::start_typed(REVERT_WORKFLOW_TYPE, input);
    world.cancel_requested("at once").turn();
    assert_eq!(ended(&world).failure, "the revert was canceled");
}

#[test]
fn an_input_that_cannot_be_read_ends_it() {
    let mut world = World::start_typed(REVERT_WORKFLOW_TYPE, json_payloads(&json!({})));
    world.turn();
    let end = ended(&world);
    assert_eq!(end.status, "failed");
    assert!(end.failure.contains("cannot run"), "{}", end.failure);
}
