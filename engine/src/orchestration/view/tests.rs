//! What callers read, from journals with notes.

use std::collections::HashMap;

use orchestrion_proto::temporal::api::enums::v1::{TimeoutType, WorkflowExecutionStatus};
use orchestrion_proto::v1::{
    ActivityAttemptFailed, ActivityAttemptReturned, ActivityAttemptStarted, ActivityPaused,
    ActivityProgress, ActivityUnpaused, ActivityWaiting, Visibility,
};
use serde_json::json;

use super::*;
use crate::orchestration::WORKFLOW_TYPE;
use crate::orchestration::interpreter::world::*;
use crate::orchestration::submission::json_payload;

impl World {
    fn attempt(&mut self, activity: &str, attempt: i32) -> &mut Self {
        self.note(activity, |scheduled_event_id| {
            let started = ActivityAttemptStarted {
                scheduled_event_id,
                attempt,
                ..Default::default()
            };
            note::Kind::ActivityAttemptStarted(started)
        })
    }

    fn attempt_failed(&mut self, activity: &str, attempt: i32, message: &str) -> &mut Self {
        let failure = Some(application_failure("Failed", message, None));
        self.note(activity, |scheduled_event_id| {
            let failed = ActivityAttemptFailed {
                scheduled_event_id,
                attempt,
                failure,
                ..Default::default()
            };
            note::Kind::ActivityAttemptFailed(failed)
        })
    }

    fn inspection(&self) -> Value {
        let view = View::fold(&self.journal).unwrap();
        serde_json::to_value(view.inspection(Timestamp::from_millis(self.now_ms + 1_000))).unwrap()
    }

    fn task(&self, at: usize) -> Value {
        self.inspection()["tasks"][at].clone()
    }
}

fn statuses(task: &Value) -> Vec<String> {
    let history = task["statusHistory"].as_array().unwrap();
    history
        .iter()
        .map(|event| text_of(&event["status"]))
        .collect()
}

#[test]
fn an_inspection_has_the_members_its_clients_read() {
    let mut world = World::start(&Submission {
        action: crate::orchestration::Action {
            kind: String::new(),
            content: "Say hello".to_owned(),
        },
        ..submission(Some(plan(&[task("task1", &[])])))
    });
    world.turn().advance(1).attempt("task1", 1).advance(2);
    world.note("task1", |scheduled_event_id| {
        let update = Some(json_payload(&json!({"progress": 50})));
        note::Kind::ActivityProgress(ActivityProgress {
            scheduled_event_id,
            attempt: 1,
            update,
        })
    });
    world.advance(3).completed("task1", done(1)).turn();
    assert_eq!(
        serde_json::to_string_pretty(&world.inspection()).unwrap(),
        r#"{
  "id": "o_1",
  "status": "completed",
  "action": "Say hello",
  "timestamp": "2023-11-14T22:13:20.008Z",
  "tasks": [
    {
      "id": "task1",
      "serviceId": "s_task1",
      "serviceName": "service-task1",
      "status": "completed",
      "statusHistory": [
        {
          "id": "evt_task1_1",
          "orchestrationId": "o_1",
          "taskId": "task1",
          "status": "processing",
          "timestamp": "2023-11-14T22:13:20.002Z",
          "serviceId": "s_task1"
        },
        {
          "id": "evt_task1_2",
          "orchestrationId": "o_1",
          "taskId": "task1",
          "status": "completed",
          "timestamp": "2023-11-14T22:13:20.007Z",
          "serviceId": "s_task1"
        }
      ],
      "input": {
        "message": "hello"
      },
      "output": {
        "n": 1
      },
      "duration": 5000000,
      "interimResults": [
        {
          "id": "interim_task1_1",
          "timestamp": "2023-11-14T22:13:20.004Z",
          "data": {
            "progress": 50
          }
        }
      ],
      "isRevertible": true
    }
  ],
  "results": [
    {
      "n": 1
    }
  ],
  "duration": 1000000000
}"#
    );
}

#[test]
fn what_an_operator_holds_says_so_until_it_goes_on() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.note("task1", |scheduled_event_id| {
        note::Kind::ActivityPaused(ActivityPaused {
            scheduled_event_id,
            identity: "ada".into(),
            reason: "to look".into(),
            request_id: String::new(),
        })
    });
    let shown = world.task(0);
    assert_eq!(shown["status"], "paused");
    assert!(
        shown.to_string().contains("held by ada: to look"),
        "{shown}"
    );
    world.note("task1", |scheduled_event_id| {
        note::Kind::ActivityUnpaused(ActivityUnpaused {
            scheduled_event_id,
            ..Default::default()
        })
    });
    assert_eq!(world.task(0)["status"], "processing");
}

#[test]
fn every_attempt_and_every_pause_is_shown() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    let waiting = |scheduled_event_id| {
        let reason = "service task1 is not connected".to_owned();
        note::Kind::ActivityWaiting(ActivityWaiting {
            scheduled_event_id,
            attempt: 1,
            reason,
        })
    };
    world.note("task1", waiting).attempt("task1", 1);
    world.note("task1", |scheduled_event_id| {
        let reason = "the connection was lost".to_owned();
        note::Kind::ActivityAttemptReturned(ActivityAttemptReturned {
            scheduled_event_id,
            attempt: 1,
            reason,
        })
    });
    world
        .note("task1", waiting)
        .attempt("task1", 1)
        .attempt_failed("task1", 1, "no stock");
    assert_eq!(world.task(0)["error"], "no stock");
    world.attempt("task1", 2).completed("task1", done(1));
    let task1 = world.task(0);
    assert_eq!(
        statuses(&task1),
        [
            "paused",
            "processing",
            "paused",
            "processing",
            "failed",
            "processing",
            "completed"
        ]
    );
    assert_eq!(
        task1["statusHistory"][0]["error"],
        "service task1 is not connected"
    );
    assert_eq!(
        task1["statusHistory"][2]["error"],
        "the connection was lost"
    );
    assert_eq!(task1.get("error"), None);
    let task2 = world.task(1);
    assert_eq!(
        (task2["status"].as_str(), statuses(&task2).len()),
        (Some("registered"), 0)
    );
    assert_eq!(
        task2["input"],
        json!({"message": "hello", "of_task1": "$task1.n"})
    );
    assert_eq!(world.inspection().get("results"), None);
}

#[test]
fn a_failed_run_shows_its_undoing() {
    let tasks = [task("a", &[]), task("b", &["a"]), task("c", &["b"])];
    let mut world = World::of_tasks(&tasks);
    world
        .completed("a", done(1))
        .turn()
        .completed("b", done(2))
        .turn();
    world.attempt("c", 5).failed("c", "card declined").turn();
    world
        .attempt("revert:b", 1)
        .attempt_failed("revert:b", 1, "busy")
        .attempt("revert:b", 2);
    assert_eq!(
        world.task(1)["compensation"],
        json!({"status": "processing", "attempt": 2, "max_attempts": 10, "timestamp": "2023-11-14T22:13:20.004Z"})
    );
    world
        .completed("revert:b", json!({"status": "partial"}))
        .turn();
    world
        .attempt("revert:a", 1)
        .completed("revert:a", json!({"status": "failed", "error": "too late"}))
        .turn();

    let inspection = world.inspection();
    assert_eq!(inspection["status"], "failed");
    assert_eq!(
        inspection["timestamp"], "2023-11-14T22:13:20.004Z",
        "the end for callers, not that of the undoing"
    );
    assert_eq!(inspection["error"]["producer"], "s_c");
    assert_eq!(inspection["results"], json!([null]));
    let ids = |task: usize| {
        let history = inspection["tasks"][task]["compensationHistory"]
            .as_array()
            .unwrap();
        history
            .iter()
            .map(|step| text_of(&step["id"]))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        ids(1),
        [
            "comp_attempt_b_1",
            "comp_fail_b_1",
            "comp_attempt_b_2",
            "comp_completed_partially_b"
        ]
    );
    assert_eq!(ids(0), ["comp_attempt_a_1", "comp_fail_a_1"]);
    let last = &inspection["tasks"][0]["compensationHistory"][1];
    assert_eq!(
        (&last["status"], &last["error"], &last["maxAttempts"]),
        (&json!("failed"), &json!("too late"), &json!(10))
    );
    assert_eq!(inspection["tasks"][2]["status"], "failed");
}

#[test]
fn similar_ids_are_told_apart() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task10", &[])]);
    world
        .attempt("task10", 1)
        .completed("task10", done(10))
        .turn();
    assert_eq!(world.task(0)["status"], "registered");
    assert_eq!(world.task(1)["output"], json!({"n": 10}));
}

#[test]
fn an_abort_says_who_and_why() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world
        .attempt("task1", 1)
        .aborted("task1", &json!({"why": "out of stock"}))
        .turn();
    let inspection = world.inspection();
    assert_eq!(inspection["status"], "aborted");
    assert_eq!(
        inspection["abortInfo"],
        json!({"taskId": "task1", "serviceId": "s_task1", "serviceName": "service-task1", "payload": {"why": "out of stock"}})
    );
    assert_eq!(
        inspection["tasks"][0]["abortPayload"],
        json!({"why": "out of stock"})
    );
    assert_eq!(statuses(&inspection["tasks"][0]), ["processing", "aborted"]);
}

#[test]
fn an_unknown_outcome_is_shown_until_it_is_known() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world
        .attempt("task1", 5)
        .timed_out("task1", TimeoutType::StartToClose)
        .turn();
    assert_eq!(world.task(0)["status"], "unknown");
    world.late_result("task1", done(1)).turn();
    assert_eq!(world.task(0)["status"], "completed");
    world
        .attempt("revert:task1", 1)
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
    assert_eq!(world.task(0)["compensation"]["status"], "completed");
}

#[test]
fn what_was_never_scheduled_and_failed_is_shown_as_failed() {
    let mut nowhere = task("task1", &[]);
    nowhere
        .input
        .insert("list".to_owned(), json!(["$task0.nothing"]));
    let world = World::of_tasks(&[nowhere]);
    assert_eq!(world.task(0)["status"], "failed");
    assert!(text_of(&world.task(0)["error"]).contains("`$task0.nothing`"));
}

#[test]
fn a_planning_is_inspected_at_any_moment() {
    let mut world = World::start(&submission(None));
    let members = |world: &World| {
        let inspection = world.inspection();
        let names: Vec<String> = inspection.as_object().unwrap().keys().cloned().collect();
        (text_of(&inspection["status"]), names.join(" "))
    };
    let bare = "id status action timestamp duration".to_owned();
    assert_eq!(members(&world), ("pending".to_owned(), bare.clone()));
    world.turn();
    assert_eq!(members(&world), ("pending".to_owned(), bare));
    let mut refused = World::start(&submission(None));
    refused
        .turn()
        .completed(
            "plan",
            json!({"outcome": "not_actionable", "reason": "no baker"}),
        )
        .turn();
    assert_eq!(
        refused.inspection()["error"],
        "preparation failed with status not_actionable: no baker"
    );
    assert_eq!(
        members(&refused),
        (
            "not_actionable".to_owned(),
            "id status action timestamp error planning duration".to_owned()
        )
    );

    world
        .completed(
            "plan",
            json!({"outcome": "planned", "plan": plan(&[task("task1", &[])])}),
        )
        .turn();
    let inspection = world.inspection();
    assert_eq!(
        (&inspection["status"], &inspection["tasks"][0]["status"]),
        (&json!("processing"), &json!("registered"))
    );
    assert_eq!(
        View::fold(&world.journal)
            .unwrap()
            .planning
            .unwrap()
            .outcome,
        PlanningOutcome::Planned
    );
}

#[test]
fn a_journal_that_is_none_has_no_view() {
    assert_eq!(View::fold(&[]), None);
    let world = World::of_tasks(&[]);
    assert_eq!(View::fold(&world.journal[1..]), None);
}

fn listed(id: &str, status: WorkflowExecutionStatus, memo: &[(&str, Value)]) -> Visibility {
    let fields: HashMap<_, _> = memo
        .iter()
        .map(|(name, value)| ((*name).to_owned(), json_payload(value)))
        .collect();
    Visibility {
        workflow_id: id.to_owned(),
        workflow_type: WORKFLOW_TYPE.to_owned(),
        status: status.into(),
        started_at: 1_700_000_000_000_000_000,
        memo: Some(Memo { fields }),
        ..Default::default()
    }
}

#[test]
fn a_listing_groups_by_what_callers_know() {
    use WorkflowExecutionStatus::{Canceled, Completed, Failed, Running, Terminated};
    let action = ("action", json!("Say hello"));
    let status = |status: &str| ("status", json!(status));
    let undone = |total: usize| {
        (
            "compensation",
            json!({"active": true, "total": total, "completed": 0, "failed": 0}),
        )
    };
    let foreign = Visibility {
        workflow_type: "other".to_owned(),
        ..listed("w", Running, &[])
    };
    let records = [
        listed("o_1", Running, &[action.clone(), status("pending")]),
        listed("o_2", Running, &[action.clone(), status("processing")]),
        listed("o_3", Completed, &[action.clone(), status("processing")]),
        // Its undoing goes on, and its callers know the end.
        listed(
            "o_4",
            Running,
            &[
                action.clone(),
                status("failed"),
                ("error", json!({"id": "x"})),
                undone(2),
            ],
        ),
        listed(
            "o_5",
            Failed,
            &[
                action.clone(),
                status("not_actionable"),
                ("error", json!("no baker")),
            ],
        ),
        listed(
            "o_6",
            Canceled,
            &[action.clone(), status("aborted"), undone(0)],
        ),
        listed("o_7", Terminated, &[action, status("processing")]),
        foreign,
    ];
    let at = "2023-11-14T22:13:20Z";
    let item = |id: &str, status: &str| json!({"id": id, "action": "Say hello", "status": status, "timestamp": at});
    let mut failed = item("o_4", "failed");
    failed["error"] = json!({"id": "x"});
    failed["compensation"] = json!({"active": true, "total": 2, "completed": 0, "failed": 0});
    let mut terminated = item("o_7", "failed");
    terminated["error"] = json!("the run was terminated");
    let mut not_actionable = item("o_5", "not_actionable");
    not_actionable["error"] = json!("no baker");
    assert_eq!(
        serde_json::to_value(Listing::of(&records)).unwrap(),
        json!({
            "pending": [item("o_1", "pending")],
            "processing": [item("o_2", "processing")],
            "completed": [item("o_3", "completed")],
            "failed": [failed, terminated],
            "notActionable": [not_actionable],
            "aborted": [item("o_6", "aborted")],
        })
    );
    assert_eq!(serde_json::to_string(&Listing::of(&[])).unwrap(), "{}");
}
