//! Plans that come to a bad end, and how they are undone.

use super::*;

#[test]
fn a_failure_undoes_the_newest_first() {
    let mut world = joined();
    world.failed("task3", "card declined").turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
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
    let mut world = World::of_tasks(&[
        task("task1", &[]),
        task("task2", &[]),
        task("task3", &["task1", "task2"]),
    ]);
    world
        .completed("task2", done(2))
        .completed("task1", done(1))
        .turn()
        .failed("task3", "no")
        .turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
    assert!(world.closed);
}

#[test]
fn an_abort_ends_the_run_and_says_why() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    world
        .aborted("task2", &json!({"why": "out of stock"}))
        .turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
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
    let context = scheduled(&world, "revert:task1")
        .header
        .clone()
        .unwrap()
        .fields["orchestrion-compensation"]
        .clone();
    assert_eq!(
        json_or_null(Some(&context))["payload"],
        json!({"why": "out of stock"})
    );
}

#[test]
fn a_success_after_the_failure_of_another_still_counts_and_is_undone() {
    let mut world = World::of_tasks(&[
        task("task1", &[]),
        task("task2", &[]),
        task("task3", &["task1", "task2"]),
    ]);
    world.failed("task1", "no").turn();
    world.completed("task2", done(2)).turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
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
    world
        .aborted("task2", &json!({"first": true}))
        .failed("task1", "second")
        .cancel_requested("third")
        .turn();
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
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world.advance(5_000).late_result("task3", done(3)).turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
    world
        .completed("revert:task3", json!({"status": "completed"}))
        .turn();
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
    assert_eq!(
        (record.data_json.as_str(), record.max_attempts),
        ("null", 5)
    );
    assert_eq!(record.resolution_state, "pending");
    assert!(
        record.id.starts_with("c_") && record.id.len() == 24,
        "{}",
        record.id
    );
}

#[test]
fn a_late_result_in_the_last_moment_counts() {
    let mut world = World::of_tasks(&[task("task1", &[])]);
    world.timed_out("task1", TimeoutType::StartToClose).turn();
    world
        .fired("late:task1")
        .late_result("task1", done(1))
        .turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
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
    world
        .timed_out("task1", TimeoutType::StartToClose)
        .late_result("task1", done(1))
        .turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
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
    let tasks = [
        task("a", &[]),
        task("b", &["a"]),
        task("c", &["b"]),
        task("d", &["c"]),
        task("e", &["d"]),
    ];
    let mut world = World::of_tasks(&tasks);
    for (n, id) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        world.completed(id, done(n)).turn();
    }
    world.failed("e", "no").turn();
    world
        .completed(
            "revert:d",
            json!({"status": "partial", "partial": {"completed": [], "remaining": []}}),
        )
        .turn();
    world
        .completed(
            "revert:c",
            json!({"status": "failed", "error": "the parcel has left"}),
        )
        .turn();
    world.failed("revert:b", "boom").turn();
    world
        .completed("revert:a", json!({"status": "expired"}))
        .turn();
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
    world
        .timed_out("revert:task2", TimeoutType::StartToClose)
        .turn();
    world
        .timed_out("revert:task1", TimeoutType::ScheduleToClose)
        .turn();
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
    world
        .completed("task1", done(1))
        .turn()
        .failed("task2", "no")
        .turn();
    world
        .failed_with(
            "revert:task1",
            application_failure("Failed", "busy", None),
            RetryState::Timeout,
        )
        .turn();
    assert_eq!(record(&world, "task1").status, "expired");
}

#[test]
fn what_can_no_longer_be_undone_is_not_asked_for() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    let result = json!({"task": {"n": 1}, "compensation": {"data": {"x": 1}, "ttl": 500}});
    world
        .completed("task1", result)
        .turn()
        .advance(500)
        .failed("task2", "no")
        .turn();
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
    let tasks = [
        task("task1", &[]),
        not_revertible(task("task2", &[])),
        task("task3", &["task1", "task2"]),
    ];
    let mut world = World::of_tasks(&tasks);
    world
        .completed("task1", json!({"task": {"n": 1}, "compensation": null}))
        .turn();
    world
        .completed("task2", done(2))
        .turn()
        .failed("task3", "no")
        .turn();
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
fn a_cancelled_run_is_undone_first() {
    let mut world = World::of_tasks(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    world.cancel_requested("changed my mind").turn();
    world.failed("task2", "stopped").turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
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
