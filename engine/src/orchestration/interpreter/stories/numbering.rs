//! Timers of runs whose rules number them.

use serde_json::json;

use crate::orchestration::Submission;
use crate::orchestration::interpreter::world::{World, done, plan, submission, task};
use crate::orchestration::submission::Rules;
use orchestrion_proto::temporal::api::enums::v1::TimeoutType;

#[test]
fn timers_have_numbers_from_one() {
    let tasks = [task("task1", &[]), task("task2", &[])];
    let mut world = World::start(&Submission {
        rules: Rules::NEWEST,
        ..submission(Some(plan(&tasks)))
    });
    world.turn();
    world.timed_out("task2", TimeoutType::StartToClose).turn();
    world.timed_out("task1", TimeoutType::StartToClose).turn();
    world.late_result("task2", done(2)).turn();
    world
        .completed("revert:task2", json!({"status": "completed"}))
        .turn();
    world.fired("2").turn();
    world.reads(
        r#"
          1  WorkflowExecutionStarted
          5  ActivityTaskScheduled task1 service-task1 {"message":"hello"}
          6  ActivityTaskScheduled task2 service-task2 {"message":"hello"}
          8  ActivityTaskTimedOut task2 activity StartToClose timeout
         12  WorkflowPropertiesModified undone=active,0+0/1 error="too many consecutive failures: no answer within 30000 ms: the outcome is unknown" status="failed" task="task2"
         13  ActivityTaskCancelRequested task1
         14  TimerStarted 1 29999 ms
         --  webhook orchestration.failed
         16  ActivityTaskTimedOut task1 activity StartToClose timeout
         20  WorkflowPropertiesModified undone=active,0+0/2
         21  TimerStarted 2 29999 ms
         22  WorkflowExecutionSignaled orchestrion.late_result
         26  TimerCanceled 1
         27  ActivityTaskScheduled revert:task2 service-task2.revert {"originalTask":2}
         29  ActivityTaskCompleted revert:task2 {"status":"completed"}
         33  WorkflowPropertiesModified undone=active,1+0/2
         34  TimerFired 2
         38  WorkflowPropertiesModified undone=over,1+1/2
         39  WorkflowExecutionFailed TaskFailed "task task2 failed: too many consecutive failures: no answer within 30000 ms: the outcome is unknown"
         --  record task1 unknown after 5 attempts: the task timed out and never answered: whether it was done is unknown
        "#,
    );
}
