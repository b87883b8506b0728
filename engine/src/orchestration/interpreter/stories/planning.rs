//! Runs that begin without a plan.

use super::*;

#[test]
fn a_planned_action_goes_on_with_its_plan() {
    let mut world = World::start(&submission(None));
    world
        .turn()
        .completed("plan", planned(Some(plan(&[task("task1", &[])])), None))
        .turn();
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
    assert_eq!(
        plan.task_queue.as_ref().unwrap().name,
        "orchestrion.planner"
    );
    assert_eq!(plan.retry_policy.as_ref().unwrap().maximum_attempts, 3);
    assert_eq!(plan.input, Some(json_payloads(&submission(None))));
}

#[test]
fn an_action_nobody_can_do_is_not_actionable() {
    let mut world = World::start(&submission(None));
    world
        .turn()
        .completed("plan", planned(None, Some("no service sells bread")))
        .turn();
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
    world
        .turn()
        .failed("plan", "task1: the service does not exist")
        .turn();
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
    world
        .turn()
        .timed_out("plan", TimeoutType::StartToClose)
        .turn();
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
    let failure = application_failure(
        "InterruptedWhilePlanning",
        "interrupted while planning",
        None,
    );
    world
        .turn()
        .failed_with("plan", failure, RetryState::NonRetryableFailure)
        .turn();
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
