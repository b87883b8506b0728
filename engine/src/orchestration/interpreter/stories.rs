//! Canned histories, numbered event by event: what happens outside, and what the interpreter makes of it. Workflow tasks take ids too.

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::enums::v1::{EventType, RetryState, TimeoutType};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{ActivityTaskScheduledEventAttributes, HistoryEvent, MarkerRecordedEventAttributes};
use orchestrion_proto::v1::CompensationFailure;
use serde_json::{Value, json};

use super::world::*;
use super::{Effect, Interpreter};
use crate::orchestration::Options;
use crate::orchestration::submission::{json_or_null, json_payloads};
use crate::plan::PlanTask;

fn not_revertible(mut task: PlanTask) -> PlanTask {
    task.revertible = false;
    task
}

fn scheduled<'a>(world: &'a World, activity: &str) -> &'a ActivityTaskScheduledEventAttributes {
    let of = |event: &'a HistoryEvent| match &event.attributes {
        Some(Attributes::ActivityTaskScheduledEventAttributes(a)) if a.activity_id == activity => Some(a),
        _ => None,
    };
    world.events.iter().rev().find_map(of).expect("it was scheduled")
}

fn record<'a>(world: &'a World, task: &str) -> &'a CompensationFailure {
    let of = |effect: &'a Effect| match effect {
        Effect::CompensationFailed(record) if record.task_id == task => Some(record),
        _ => None,
    };
    world.effects.iter().find_map(of).expect("there is a record of it")
}

fn planned(plan: Option<crate::plan::Plan>, reason: Option<&str>) -> Value {
    let outcome = if plan.is_some() { "planned" } else { "not_actionable" };
    json!({"outcome": outcome, "plan": plan, "reason": reason, "model": "m", "prompt_digest": "d", "prompt_tokens": 1,
           "completion_tokens": 2, "tries": 1, "duration_ms": 3, "verdict": "valid"})
}

/// Three tasks of which the third joins the other two; the first two are done, the second last.
fn joined() -> World {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[]), task("task3", &["task1", "task2"])]);
    world.completed("task1", done(1)).turn().completed("task2", done(2)).turn();
    world
}

#[test]
fn an_echo_completes() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.completed("task1", json!({"task": {"n": 1}})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 {"task":{"n":1}}
         11  WorkflowExecutionCompleted [{"n":1}]
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn a_task_that_joins_waits_for_both() {
    let mut world = joined();
    world.completed("task3", json!({"task": {"n": 3}, "compensation": null})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         13  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task1":1,"of_task2":2}
         19  ActivityTaskCompleted task3 {"task":{"n":3},"compensation":null}
         23  WorkflowExecutionCompleted [{"n":3}]
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn ready_tasks_are_scheduled_in_plan_order_whatever_the_order_of_results() {
    let tasks = [task("a", &[]), task("b", &[]), task("c", &["b"]), task("d", &["a"]), task("e", &["c", "d"])];
    let mut world = World::of_tasks(&tasks);
    world.completed("b", done(2)).completed("a", done(1)).turn();
    world.completed("d", done(4)).turn().completed("c", done(3)).turn().completed("e", done(5)).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled a service-a {"message":"hello"}
          6  ActivityTaskScheduled b service-b {"message":"hello"}
          8  ActivityTaskCompleted b {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         10  ActivityTaskCompleted a {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         14  ActivityTaskScheduled c service-c {"message":"hello","of_b":2}
         15  ActivityTaskScheduled d service-d {"message":"hello","of_a":1}
         17  ActivityTaskCompleted d {"task":{"n":4},"compensation":{"data":{"originalTask":4},"ttl":86400000}}
         22  ActivityTaskCompleted c {"task":{"n":3},"compensation":{"data":{"originalTask":3},"ttl":86400000}}
         26  ActivityTaskScheduled e service-e {"message":"hello","of_c":3,"of_d":4}
         28  ActivityTaskCompleted e {"task":{"n":5},"compensation":{"data":{"originalTask":5},"ttl":86400000}}
         32  WorkflowExecutionCompleted [{"n":5}]
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn an_activity_is_what_the_options_say() {
    let mut world = joined();
    let task = scheduled(&world, "task3");
    assert_eq!(task.task_queue.as_ref().unwrap().name, "s_task3");
    assert_eq!(task.start_to_close_timeout.unwrap().seconds, 30);
    assert_eq!(task.schedule_to_close_timeout.unwrap().seconds, 0);
    let retry = task.retry_policy.clone().unwrap();
    assert_eq!((retry.maximum_attempts, retry.backoff_coefficient), (5, 2.0));
    assert_eq!((retry.initial_interval.unwrap().seconds, retry.maximum_interval.unwrap().seconds), (2, 30));
    assert_eq!(retry.non_retryable_error_types, ["abort"]);

    world.advance(1_000).failed("task3", "card declined").turn();
    let revert = scheduled(&world, "revert:task2");
    assert_eq!(revert.task_queue.as_ref().unwrap().name, "s_task2");
    assert_eq!(revert.start_to_close_timeout.unwrap().seconds, 30);
    // Task 2 completed 1,002 ms before.
    assert_eq!(revert.schedule_to_close_timeout.unwrap().seconds, 86_398);
    let retry = revert.retry_policy.clone().unwrap();
    assert_eq!((retry.maximum_attempts, retry.maximum_interval.unwrap().seconds), (10, 60));
    let context = json_or_null(revert.header.as_ref().unwrap().fields.get("orchestrion-compensation"));
    assert_eq!(context["orchestrationId"], "o_1");
    assert_eq!(context["reason"], "failed");
    assert_eq!(context["payload"]["producer"], "s_task3");
    assert_eq!(context["payload"]["error"], "too many consecutive failures: card declined");
    assert_eq!(context["timestamp"], "2023-11-14T22:13:21.004Z");
}

#[test]
fn a_failure_undoes_the_newest_first() {
    let mut world = joined();
    world.failed("task3", "card declined").turn();
    world.completed("revert:task2", json!({"status": "completed"})).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         13  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task1":1,"of_task2":2}
         19  ActivityTaskFailed task3 "card declined"
         23  WorkflowPropertiesModified undone=active,0+0/2 error="too many consecutive failures: card declined" status="failed" task="task3"
         24  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         --  webhook orchestration.failed
         26  ActivityTaskCompleted revert:task2 {"status":"completed"}
         30  WorkflowPropertiesModified undone=active,1+0/2
         31  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         33  ActivityTaskCompleted revert:task1 {"status":"completed"}
         37  WorkflowPropertiesModified undone=over,2+0/2
         38  WorkflowExecutionFailed TaskFailed "task task3 failed: too many consecutive failures: card declined"
        "#,
    );
}

#[test]
fn results_of_one_workflow_task_are_undone_as_if_they_came_in_plan_order() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[]), task("task3", &["task1", "task2"])]);
    world.completed("task2", done(2)).completed("task1", done(1)).turn().failed("task3", "no").turn();
    world.completed("revert:task2", json!({"status": "completed"})).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    assert!(world.closed);
}

#[test]
fn an_abort_ends_the_run_and_says_why() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    world.aborted("task2", &json!({"why": "out of stock"})).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         11  ActivityTaskScheduled task2 service-task2 {"message":"hello","of_task1":1}
         13  ActivityTaskFailed task2 "aborted"
         17  WorkflowPropertiesModified abort={"why":"out of stock"} undone=active,0+0/1 status="aborted" task="task2"
         18  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         --  webhook orchestration.aborted
         20  ActivityTaskCompleted revert:task1 {"status":"completed"}
         24  WorkflowPropertiesModified undone=over,1+0/1
         25  WorkflowExecutionFailed TaskAborted "task task2 aborted the orchestration"
        "#,
    );
    let context = scheduled(&world, "revert:task1").header.clone().unwrap().fields["orchestrion-compensation"].clone();
    assert_eq!(json_or_null(Some(&context))["payload"], json!({"why": "out of stock"}));
}

#[test]
fn a_success_after_the_failure_of_another_still_counts_and_is_undone() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[]), task("task3", &["task1", "task2"])]);
    world.failed("task1", "no").turn();
    world.completed("task2", done(2)).turn();
    world.completed("revert:task2", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskFailed task1 "no"
         12  WorkflowPropertiesModified undone=over,0+0/0 error="too many consecutive failures: no" status="failed" task="task1"
         13  ActivityTaskCancelRequested task2
         --  webhook orchestration.failed
         15  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         19  WorkflowPropertiesModified undone=active,0+0/1
         20  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         22  ActivityTaskCompleted revert:task2 {"status":"completed"}
         26  WorkflowPropertiesModified undone=over,1+0/1
         27  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no"
        "#,
    );
}

#[test]
fn what_no_worker_has_taken_is_cancelled_at_once() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[]), task("task3", &[])]);
    world.untaken("task2").failed("task1", "no").turn();
    world.failed("task3", "no").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          7  ActivityTaskScheduled task3 service-task3 {"message":"hello"}
          9  ActivityTaskFailed task1 "no"
         13  WorkflowPropertiesModified undone=over,0+0/0 error="too many consecutive failures: no" status="failed" task="task1"
         14  ActivityTaskCancelRequested task2
         15  ActivityTaskCanceled task2
         16  ActivityTaskCancelRequested task3
         --  webhook orchestration.failed
         21  ActivityTaskFailed task3 "no"
         25  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no"
        "#,
    );
}

#[test]
fn the_first_incident_in_event_order_wins() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[])]);
    world.aborted("task2", &json!({"first": true})).failed("task1", "second").cancel_requested("third").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskFailed task2 "aborted"
         10  ActivityTaskFailed task1 "second"
         11  WorkflowExecutionCancelRequested "third"
         15  WorkflowPropertiesModified abort={"first":true} undone=over,0+0/0 status="aborted" task="task2"
         16  WorkflowExecutionFailed TaskAborted "task task2 aborted the orchestration"
         --  webhook orchestration.aborted
        "#,
    );
}

#[test]
fn an_unknown_outcome_is_waited_for_and_a_late_result_undone() {
    let mut world = joined();
    world.timed_out("task3", TimeoutType::StartToClose).turn();
    world.completed("revert:task2", json!({"status": "completed"})).turn();
    world.advance(5_000).late_result("task3", done(3)).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.completed("revert:task3", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         13  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task1":1,"of_task2":2}
         19  ActivityTaskTimedOut task3 activity StartToClose timeout
         23  WorkflowPropertiesModified undone=active,0+0/3 error="too many consecutive failures: no answer within 30000 ms: the outcome is unknown" status="failed" task="task3"
         24  TimerStarted late:task3 29999 ms
         25  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         --  webhook orchestration.failed
         27  ActivityTaskCompleted revert:task2 {"status":"completed"}
         31  WorkflowPropertiesModified undone=active,1+0/3
         32  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         33  WorkflowExecutionSignaled orchestrion.late_result
         37  TimerCanceled late:task3
         39  ActivityTaskCompleted revert:task1 {"status":"completed"}
         43  WorkflowPropertiesModified undone=active,2+0/3
         44  ActivityTaskScheduled revert:task3 service-task3.revert {"originalTask":3}
         46  ActivityTaskCompleted revert:task3 {"status":"completed"}
         50  WorkflowPropertiesModified undone=over,3+0/3
         51  WorkflowExecutionFailed TaskFailed "task task3 failed: too many consecutive failures: no answer within 30000 ms: the outcome is unknown"
        "#,
    );
}

#[test]
fn an_unknown_outcome_that_stays_unknown_is_left_to_a_person() {
    let mut world = World::of_tasks(&[task("task1", &[]), not_revertible(task("task2", &[]))]);
    world.timed_out("task1", TimeoutType::StartToClose).turn();
    world.timed_out("task2", TimeoutType::StartToClose).turn();
    world.advance(30_000).fired("late:task1").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskTimedOut task1 activity StartToClose timeout
         12  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no answer within 30000 ms: the outcome is unknown" status="failed" task="task1"
         13  ActivityTaskCancelRequested task2
         14  TimerStarted late:task1 29999 ms
         --  webhook orchestration.failed
         16  ActivityTaskTimedOut task2 activity StartToClose timeout
         20  TimerFired late:task1
         24  WorkflowPropertiesModified undone=over,0+1/1
         25  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no answer within 30000 ms: the outcome is unknown"
         --  record task1 unknown after 5 attempts: the task timed out and never answered: whether it was done is unknown
        "#,
    );
    let record = record(&world, "task1");
    assert_eq!((record.data_json.as_str(), record.max_attempts), ("null", 5));
    assert_eq!(record.resolution_state, "pending");
    assert!(record.id.starts_with("c_") && record.id.len() == 24, "{}", record.id);
}

#[test]
fn a_late_result_in_the_last_moment_counts() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.timed_out("task1", TimeoutType::StartToClose).turn();
    world.fired("late:task1").late_result("task1", done(1)).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskTimedOut task1 activity StartToClose timeout
         11  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no answer within 30000 ms: the outcome is unknown" status="failed" task="task1"
         12  TimerStarted late:task1 29999 ms
         --  webhook orchestration.failed
         13  TimerFired late:task1
         14  WorkflowExecutionSignaled orchestrion.late_result
         18  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         20  ActivityTaskCompleted revert:task1 {"status":"completed"}
         24  WorkflowPropertiesModified undone=over,1+0/1
         25  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no answer within 30000 ms: the outcome is unknown"
        "#,
    );
}

#[test]
fn a_late_result_beside_its_time_out_is_undone_without_a_wait() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.timed_out("task1", TimeoutType::StartToClose).late_result("task1", done(1)).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskTimedOut task1 activity StartToClose timeout
          8  WorkflowExecutionSignaled orchestrion.late_result
         12  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no answer within 30000 ms: the outcome is unknown" status="failed" task="task1"
         13  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         --  webhook orchestration.failed
         15  ActivityTaskCompleted revert:task1 {"status":"completed"}
         19  WorkflowPropertiesModified undone=over,1+0/1
         20  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no answer within 30000 ms: the outcome is unknown"
        "#,
    );
}

#[test]
fn a_cancelled_task_whose_earlier_attempt_timed_out_is_unknown() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[])]);
    world.failed("task1", "no").turn();
    world.canceled_after_a_time_out("task2").turn();
    world.fired("late:task2").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskFailed task1 "no"
         12  WorkflowPropertiesModified undone=over,0+0/0 error="too many consecutive failures: no" status="failed" task="task1"
         13  ActivityTaskCancelRequested task2
         --  webhook orchestration.failed
         15  ActivityTaskCanceled task2
         19  WorkflowPropertiesModified undone=active,0+0/1
         20  TimerStarted late:task2 29999 ms
         21  TimerFired late:task2
         25  WorkflowPropertiesModified undone=over,0+1/1
         26  WorkflowExecutionFailed TaskFailed "task task1 failed: too many consecutive failures: no"
         --  record task2 unknown after 2 attempts: the task timed out and never answered: whether it was done is unknown
        "#,
    );
}

#[test]
fn reverts_tell_partial_failed_and_expired_apart() {
    let tasks = [task("a", &[]), task("b", &["a"]), task("c", &["b"]), task("d", &["c"]), task("e", &["d"])];
    let mut world = World::of_tasks(&tasks);
    for (n, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        world.completed(id, done(n)).turn();
    }
    world.failed("e", "no").turn();
    world.completed("revert:d", json!({"status": "partial", "partial": {"completed": [], "remaining": []}})).turn();
    world.completed("revert:c", json!({"status": "failed", "error": "the parcel has left"})).turn();
    world.failed("revert:b", "boom").turn();
    world.completed("revert:a", json!({"status": "expired"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled a service-a {"message":"hello"}
          7  ActivityTaskCompleted a {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         11  ActivityTaskScheduled b service-b {"message":"hello","of_a":1}
         13  ActivityTaskCompleted b {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled c service-c {"message":"hello","of_b":2}
         19  ActivityTaskCompleted c {"task":{"n":3},"compensation":{"data":{"originalTask":3},"ttl":86400000}}
         23  ActivityTaskScheduled d service-d {"message":"hello","of_c":3}
         25  ActivityTaskCompleted d {"task":{"n":4},"compensation":{"data":{"originalTask":4},"ttl":86400000}}
         29  ActivityTaskScheduled e service-e {"message":"hello","of_d":4}
         31  ActivityTaskFailed e "no"
         35  WorkflowPropertiesModified undone=active,0+0/4 error="too many consecutive failures: no" status="failed" task="e"
         36  ActivityTaskScheduled revert:d service-d.revert {"originalTask":4}
         --  webhook orchestration.failed
         38  ActivityTaskCompleted revert:d {"status":"partial","partial":{"completed":[],"remaining":[]}}
         42  WorkflowPropertiesModified undone=active,1+0/4
         43  ActivityTaskScheduled revert:c service-c.revert {"originalTask":3}
         45  ActivityTaskCompleted revert:c {"status":"failed","error":"the parcel has left"}
         49  WorkflowPropertiesModified undone=active,1+1/4
         50  ActivityTaskScheduled revert:b service-b.revert {"originalTask":2}
         --  record c failed after 1 attempts: the parcel has left
         52  ActivityTaskFailed revert:b "boom"
         56  WorkflowPropertiesModified undone=active,1+2/4
         57  ActivityTaskScheduled revert:a service-a.revert {"originalTask":1}
         --  record b failed after 5 attempts: boom
         59  ActivityTaskCompleted revert:a {"status":"expired"}
         63  WorkflowPropertiesModified undone=over,1+3/4
         64  WorkflowExecutionFailed TaskFailed "task e failed: too many consecutive failures: no"
         --  record a expired after 1 attempts: the service says that it is too late
        "#,
    );
    let record = record(&world, "b");
    assert_eq!((record.attempts_made, record.max_attempts), (5, 10));
    assert_eq!(record.data_json, r#"{"originalTask":2}"#);
    assert_eq!(record.ttl_ms, 86_400_000);
}

#[test]
fn reverts_that_time_out_are_unknown_or_expired() {
    let mut world = joined();
    world.failed("task3", "no").turn();
    world.timed_out("revert:task2", TimeoutType::StartToClose).turn();
    world.timed_out("revert:task1", TimeoutType::ScheduleToClose).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         13  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task1":1,"of_task2":2}
         19  ActivityTaskFailed task3 "no"
         23  WorkflowPropertiesModified undone=active,0+0/2 error="too many consecutive failures: no" status="failed" task="task3"
         24  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         --  webhook orchestration.failed
         26  ActivityTaskTimedOut revert:task2 activity StartToClose timeout
         30  WorkflowPropertiesModified undone=active,0+1/2
         31  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         --  record task2 unknown after 5 attempts: activity StartToClose timeout
         33  ActivityTaskTimedOut revert:task1 activity ScheduleToClose timeout
         37  WorkflowPropertiesModified undone=over,0+2/2
         38  WorkflowExecutionFailed TaskFailed "task task3 failed: too many consecutive failures: no"
         --  record task1 expired after 5 attempts: activity ScheduleToClose timeout
        "#,
    );
}

#[test]
fn a_revert_without_time_for_another_attempt_has_expired() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn().failed("task2", "no").turn();
    world.failed_with("revert:task1", application_failure("Failed", "busy", None), RetryState::Timeout).turn();
    assert_eq!(record(&world, "task1").status, "expired");
}

#[test]
fn what_can_no_longer_be_undone_is_not_asked_for() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    let result = json!({"task": {"n": 1}, "compensation": {"data": {"x": 1}, "ttl": 500}});
    world.completed("task1", result).turn().advance(500).failed("task2", "no").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"x":1},"ttl":500}}
         11  ActivityTaskScheduled task2 service-task2 {"message":"hello","of_task1":1}
         13  ActivityTaskFailed task2 "no"
         17  WorkflowPropertiesModified undone=over,0+1/1 error="too many consecutive failures: no" status="failed" task="task2"
         18  WorkflowExecutionFailed TaskFailed "task task2 failed: too many consecutive failures: no"
         --  webhook orchestration.failed
         --  record task1 expired after 0 attempts: its time to live of 500 ms is over
        "#,
    );
}

#[test]
fn tasks_without_compensation_or_a_revertible_service_are_left_alone() {
    let tasks = [task("task1", &[]), not_revertible(task("task2", &[])), task("task3", &["task1", "task2"])];
    let mut world = World::of_tasks(&tasks);
    world.completed("task1", json!({"task": {"n": 1}, "compensation": null})).turn();
    world.completed("task2", done(2)).turn().failed("task3", "no").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":null}
         13  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         17  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task1":1,"of_task2":2}
         19  ActivityTaskFailed task3 "no"
         23  WorkflowPropertiesModified undone=over,0+0/0 error="too many consecutive failures: no" status="failed" task="task3"
         24  WorkflowExecutionFailed TaskFailed "task task3 failed: too many consecutive failures: no"
         --  webhook orchestration.failed
        "#,
    );
}

#[test]
fn a_planned_action_goes_on_with_its_plan() {
    let mut world = World::start(&submission(None));
    world.turn().completed("plan", planned(Some(plan(&[task("task1", &[])])), None)).turn();
    world.completed("task1", done(1)).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          7  ActivityTaskCompleted plan
         11  WorkflowPropertiesModified status="processing"
         12  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
         14  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         18  WorkflowExecutionCompleted [{"n":1}]
         --  webhook orchestration.completed
        "#,
    );
    let plan = scheduled(&world, "plan");
    assert_eq!(plan.task_queue.as_ref().unwrap().name, "orchestrion.planner");
    assert_eq!(plan.retry_policy.as_ref().unwrap().maximum_attempts, 3);
    assert_eq!(plan.input, Some(json_payloads(&submission(None))));
}

#[test]
fn an_action_nobody_can_do_is_not_actionable() {
    let mut world = World::start(&submission(None));
    world.turn().completed("plan", planned(None, Some("no service sells bread"))).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          7  ActivityTaskCompleted plan
         11  WorkflowPropertiesModified error="preparation failed with status not_actionable: no service sells bread" status="not_actionable"
         12  WorkflowExecutionFailed NotActionable "preparation failed with status not_actionable: no service sells bread"
        "#,
    );
}

#[test]
fn a_planning_that_fails_three_times_fails_the_run() {
    let mut world = World::start(&submission(None));
    world.turn().failed("plan", "task1: the service does not exist").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          7  ActivityTaskFailed plan "task1: the service does not exist"
         11  WorkflowPropertiesModified error="exceeded maximum retries (2): task1: the service does not exist" status="failed"
         12  WorkflowExecutionFailed PlanFailed "exceeded maximum retries (2): task1: the service does not exist"
        "#,
    );
}

#[test]
fn a_planning_without_an_answer_fails_the_run() {
    let mut world = World::start(&submission(None));
    world.turn().timed_out("plan", TimeoutType::StartToClose).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          7  ActivityTaskTimedOut plan activity StartToClose timeout
         11  WorkflowPropertiesModified error="exceeded maximum retries (2): the planner gave no answer in time: activity StartToClose timeout" status="failed"
         12  WorkflowExecutionFailed PlanFailed "exceeded maximum retries (2): the planner gave no answer in time: activity StartToClose timeout"
        "#,
    );
    let mut world = World::start(&submission(None));
    let failure = application_failure("InterruptedWhilePlanning", "interrupted while planning", None);
    world.turn().failed_with("plan", failure, RetryState::NonRetryableFailure).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          7  ActivityTaskFailed plan "interrupted while planning"
         11  WorkflowPropertiesModified error="interrupted while planning" status="failed"
         12  WorkflowExecutionFailed PlanFailed "interrupted while planning"
        "#,
    );
}

#[test]
fn a_cancelled_planning_ends_at_once() {
    let mut world = World::start(&submission(None));
    world.turn().cancel_requested("changed my mind").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled plan plan.generate
          6  WorkflowExecutionCancelRequested "changed my mind"
         10  WorkflowPropertiesModified abort={"reason":"canceled: changed my mind"} status="aborted"
         11  WorkflowExecutionCanceled
         --  webhook orchestration.aborted
        "#,
    );
}

#[test]
fn a_cancelled_run_is_undone_first() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    world.cancel_requested("changed my mind").turn();
    world.failed("task2", "stopped").turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         11  ActivityTaskScheduled task2 service-task2 {"message":"hello","of_task1":1}
         12  WorkflowExecutionCancelRequested "changed my mind"
         16  WorkflowPropertiesModified abort={"reason":"canceled: changed my mind"} undone=active,0+0/1 status="aborted"
         17  ActivityTaskCancelRequested task2
         --  webhook orchestration.aborted
         19  ActivityTaskFailed task2 "stopped"
         23  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         25  ActivityTaskCompleted revert:task1 {"status":"completed"}
         29  WorkflowPropertiesModified undone=over,1+0/1
         30  WorkflowExecutionCanceled
        "#,
    );
}

#[test]
fn a_reference_that_leads_nowhere_fails_the_run_before_anything_is_scheduled_beside_it() {
    let mut third = task("task3", &["task1"]);
    third.input.insert("list".to_owned(), json!(["$task1.n"]));
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &[]), third, task("task4", &["task1"])]);
    world.completed("task1", json!({"task": {"other": 1}, "compensation": {"data": 1, "ttl": 60_000}})).turn();
    world.completed("task2", done(2)).turn();
    world.completed("revert:task2", json!({"status": "completed"})).turn();
    world.completed("revert:task1", json!({"status": "completed"})).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskCompleted task1 {"task":{"other":1},"compensation":{"data":1,"ttl":60000}}
         12  WorkflowPropertiesModified undone=active,0+0/1 error="input `list[0]`: `$task1.n` leads nowhere in the output of `task1`" status="failed" task="task3"
         13  ActivityTaskCancelRequested task2
         --  webhook orchestration.failed
         15  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         19  WorkflowPropertiesModified undone=active,0+0/2
         20  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         22  ActivityTaskCompleted revert:task2 {"status":"completed"}
         26  WorkflowPropertiesModified undone=active,1+0/2
         27  ActivityTaskScheduled revert:task1 service-task1.revert 1
         29  ActivityTaskCompleted revert:task1 {"status":"completed"}
         33  WorkflowPropertiesModified undone=over,2+0/2
         34  WorkflowExecutionFailed TaskFailed "task task3 failed: input `list[0]`: `$task1.n` leads nowhere in the output of `task1`"
        "#,
    );
}

#[test]
fn a_plan_that_waits_for_itself_fails() {
    let mut world = World::of_tasks(&[task("task1", &["task2"]), task("task2", &["task1"])]);
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  WorkflowPropertiesModified undone=over,0+0/0 error="the task can never start: it waits for task2" status="failed" task="task1"
          6  WorkflowExecutionFailed TaskFailed "task task1 failed: the task can never start: it waits for task2"
         --  webhook orchestration.failed
        "#,
    );
    world.closed = true;
}

#[test]
fn a_result_that_is_none_fails_the_task() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.completed("task1", json!("done")).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 "done"
         11  WorkflowPropertiesModified undone=over,0+0/0 error="the result of the task cannot be read: invalid type: string \"done\", expected an object with the member task at line 1 column 6" status="failed" task="task1"
         12  WorkflowExecutionFailed TaskFailed "task task1 failed: the result of the task cannot be read: invalid type: string \"done\", expected an object with the member task at line 1 column 6"
         --  webhook orchestration.failed
        "#,
    );
}

#[test]
fn a_submission_that_cannot_run_is_refused() {
    let mut world = World::start_with(json_payloads(&json!({"plan": 7})));
    world.turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  WorkflowPropertiesModified error="the submission cannot run: the payload does not parse: invalid type: integer `7`, expected struct Plan at line 1 column 9" status="failed"
          6  WorkflowExecutionFailed InvalidSubmission "the submission cannot run: the payload does not parse: invalid type: integer `7`, expected struct Plan at line 1 column 9"
        "#,
    );
    let mut world = World::of_tasks(&[task("task1", &[]), task("task1", &[])]);
    assert!(world.turn().closed);
}

#[test]
fn an_empty_plan_completes_with_nothing() {
    let world = World::of_tasks(&[]);
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  WorkflowExecutionCompleted []
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn signals_it_does_not_know_change_nothing() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.signaled("hello", &json!({})).late_result("task1", done(9)).late_result("task9", done(9)).turn();
    world.completed("task1", done(1)).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  WorkflowExecutionSignaled hello
          7  WorkflowExecutionSignaled orchestrion.late_result
          8  WorkflowExecutionSignaled orchestrion.late_result
         13  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         17  WorkflowExecutionCompleted [{"n":1}]
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn options_scale_every_wait() {
    let options = Options { task_timeout_ms: 300, late_result_wait_ms: Some(40), ..Options::default() };
    let mut world = World::start(&crate::orchestration::Submission { options, ..submission(Some(plan(&[task("t", &[])]))) });
    world.turn().timed_out("t", TimeoutType::StartToClose).turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled t service-t {"message":"hello"}
          7  ActivityTaskTimedOut t activity StartToClose timeout
         11  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no answer within 300 ms: the outcome is unknown" status="failed" task="t"
         12  TimerStarted late:t 39 ms
         --  webhook orchestration.failed
        "#,
    );
}

#[test]
fn swapped_commands_are_found() {
    let world = World::of_tasks(&[task("task1", &[]), task("task2", &[])]);
    let mut events = world.events.clone();
    let [a, b] = &mut events[4..6] else { panic!("two tasks are scheduled") };
    std::mem::swap(&mut a.attributes, &mut b.attributes);
    let error = replay(&events).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event 5 is ActivityTaskScheduled task2, but the plan's code asks for ActivityTaskScheduled task1"
    );
}

#[test]
fn changed_commands_are_found() {
    let world = joined();
    let at = world.events.iter().rposition(|e| e.event_type() == EventType::ActivityTaskScheduled).unwrap();
    let mut events = world.events.clone();
    let Some(Attributes::ActivityTaskScheduledEventAttributes(a)) = &mut events[at].attributes else { panic!() };
    a.input = Some(json_payloads(&json!({"message": "hello", "of_task1": 1, "of_task2": 3})));
    a.task_queue.as_mut().unwrap().name = "s_other".to_owned();
    let error = replay(&events).unwrap_err();
    assert_eq!(error.event_id, at as i64 + 1);
    assert_eq!(error.found, "ActivityTaskScheduled task3 with another queue, input");
}

#[test]
fn missing_and_foreign_commands_are_found() {
    let mut world = joined();
    world.completed("task3", done(3)).turn();
    let without = |n: usize| {
        let mut events = world.events.clone();
        events.remove(n);
        replay(&events)
    };
    let scheduled = world.events.iter().rposition(|e| e.event_type() == EventType::ActivityTaskScheduled).unwrap();
    assert_eq!(without(scheduled).unwrap_err().expected, "ActivityTaskScheduled task3");
    let mut events = world.events.clone();
    events[scheduled].event_type = EventType::MarkerRecorded.into();
    let marker = MarkerRecordedEventAttributes { marker_name: "note".to_owned(), ..Default::default() };
    events[scheduled].attributes = Some(Attributes::MarkerRecordedEventAttributes(marker));
    assert_eq!(replay(&events).unwrap_err().found, "MarkerRecorded note");
}

#[test]
fn a_turn_that_was_not_recorded_is_found() {
    let world = World::of_tasks(&[task("task1", &[])]);
    let mut live = world.live.clone();
    live.turn(Timestamp::from_millis(world.now_ms));
    let failed = HistoryEvent {
        event_id: 9,
        event_type: EventType::WorkflowTaskFailed.into(),
        attributes: Some(Attributes::WorkflowTaskFailedEventAttributes(Default::default())),
        ..Default::default()
    };
    assert!(live.apply(&failed).is_err());
    assert_eq!(world.live.clone().apply(&failed), Ok(()), "a failed workflow task in a history is nothing to replay");

    let mut live = Interpreter::new();
    live.apply(&world.events[0]).unwrap();
    assert_eq!(live.turn(Timestamp::from_millis(world.now_ms)).commands.len(), 1);
    assert_eq!(live.turn(Timestamp::from_millis(world.now_ms)).commands.len(), 0);
    assert!(world.events[1..4].iter().try_for_each(|event| live.apply(event)).is_err(), "the first turn is lost");
}
