//! Cancels as new runs tell them, and runs that take over results of others.

use serde_json::json;

use crate::orchestration::interpreter::world::{World, done, plan, submission, task};
use crate::orchestration::submission::{Rules, TakenOver};
use crate::orchestration::{CANCEL_SIGNAL, Submission};

fn newest(tasks: &[crate::plan::PlanTask]) -> World {
    let mut world = World::start(&Submission {
        rules: Rules::NEWEST,
        ..submission(Some(plan(tasks)))
    });
    world.turn();
    world
}

#[test]
fn a_cancelled_run_is_called_so_and_undone() {
    let mut world = newest(&[task("task1", &[]), task("task2", &["task1"])]);
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
         16  WorkflowPropertiesModified abort={"reason":"canceled: changed my mind"} undone=active,0+0/1 status="cancelled"
         17  ActivityTaskCancelRequested task2
         --  webhook orchestration.cancelled
         19  ActivityTaskFailed task2 "stopped"
         23  ActivityTaskScheduled revert:task1 service-task1.revert {"originalTask":1}
         25  ActivityTaskCompleted revert:task1 {"status":"completed"}
         29  WorkflowPropertiesModified undone=over,1+0/1
         30  WorkflowExecutionCanceled
        "#,
    );
}

#[test]
fn a_run_cancelled_without_compensation_keeps_what_was_done() {
    let mut world = newest(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    let keep = json!({"reason": "enough", "compensate": false});
    world.signaled(CANCEL_SIGNAL, &keep).turn();
    world.failed("task2", "stopped").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          7  ActivityTaskCompleted task1 {"task":{"n":1},"compensation":{"data":{"originalTask":1},"ttl":86400000}}
         11  ActivityTaskScheduled task2 service-task2 {"message":"hello","of_task1":1}
         12  WorkflowExecutionSignaled orchestrion.cancel
         16  WorkflowPropertiesModified abort={"reason":"canceled: enough"} undone=over,0+0/0 status="cancelled"
         17  ActivityTaskCancelRequested task2
         --  webhook orchestration.cancelled
         19  ActivityTaskFailed task2 "stopped"
         23  WorkflowExecutionCanceled
        "#,
    );
}

#[test]
fn a_cancel_that_cannot_be_read_undoes() {
    let mut world = newest(&[task("task1", &[]), task("task2", &["task1"])]);
    world.completed("task1", done(1)).turn();
    world.signaled(CANCEL_SIGNAL, &json!("what?")).turn();
    world.failed("task2", "stopped").turn();
    world
        .completed("revert:task1", json!({"status": "completed"}))
        .turn();
}

#[test]
fn what_is_taken_over_is_neither_run_nor_undone() {
    let tasks = [
        task("task1", &[]),
        task("task2", &["task1"]),
        task("task3", &["task2"]),
    ];
    let mut world = World::start(&Submission {
        rules: Rules::NEWEST,
        taken_over: vec![TakenOver {
            task: "task1".into(),
            output: json!({"n": 1}),
        }],
        ..submission(Some(plan(&tasks)))
    });
    world.turn();
    world.completed("task2", done(2)).turn();
    world.failed("task3", "no").turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task2 service-task2 {"message":"hello","of_task1":1}
          7  ActivityTaskCompleted task2 {"task":{"n":2},"compensation":{"data":{"originalTask":2},"ttl":86400000}}
         11  ActivityTaskScheduled task3 service-task3 {"message":"hello","of_task2":2}
         13  ActivityTaskFailed task3 "no"
         17  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no" status="failed" task="task3"
         18  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         --  webhook orchestration.failed
         20  ActivityTaskCompleted revert:task2 {"status":"completed"}
         24  WorkflowPropertiesModified undone=over,1+0/1
         25  WorkflowExecutionFailed TaskFailed "task task3 failed: too many consecutive failures: no"
        "#,
    );
}

#[test]
fn a_run_that_takes_over_everything_completes_at_once() {
    let mut world = World::start(&Submission {
        taken_over: vec![TakenOver {
            task: "task1".into(),
            output: json!({"n": 1}),
        }],
        ..submission(Some(plan(&[task("task1", &[])])))
    });
    world.turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  WorkflowExecutionCompleted [{"n":1}]
         --  webhook orchestration.completed
        "#,
    );
}

#[test]
fn a_result_of_no_task_cannot_be_taken_over() {
    let mut world = World::start(&Submission {
        taken_over: vec![TakenOver {
            task: "task9".into(),
            output: json!(null),
        }],
        ..submission(Some(plan(&[task("task1", &[])])))
    });
    world.turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  WorkflowPropertiesModified error="the submission cannot run: a result of task9 is taken over, and the plan has no such task" status="failed"
          6  WorkflowExecutionFailed InvalidSubmission "the submission cannot run: a result of task9 is taken over, and the plan has no such task"
        "#,
    );
}
