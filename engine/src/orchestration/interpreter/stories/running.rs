//! Plans that run, and those that cannot.

use super::*;

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
    world
        .completed("task3", json!({"task": {"n": 3}, "compensation": null}))
        .turn();
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
    let tasks = [
        task("a", &[]),
        task("b", &[]),
        task("c", &["b"]),
        task("d", &["a"]),
        task("e", &["c", "d"]),
    ];
    let mut world = World::of_tasks(&tasks);
    world.completed("b", done(2)).completed("a", done(1)).turn();
    world
        .completed("d", done(4))
        .turn()
        .completed("c", done(3))
        .turn()
        .completed("e", done(5))
        .turn();
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
    assert_eq!(
        (retry.maximum_attempts, retry.backoff_coefficient),
        (5, 2.0)
    );
    assert_eq!(
        (
            retry.initial_interval.unwrap().seconds,
            retry.maximum_interval.unwrap().seconds
        ),
        (2, 30)
    );
    assert_eq!(retry.non_retryable_error_types, ["abort"]);

    world.advance(1_000).failed("task3", "card declined").turn();
    let revert = scheduled(&world, "revert:task2");
    assert_eq!(revert.task_queue.as_ref().unwrap().name, "s_task2");
    assert_eq!(revert.start_to_close_timeout.unwrap().seconds, 30);
    // Task 2 completed 1,002 ms before.
    assert_eq!(revert.schedule_to_close_timeout.unwrap().seconds, 86_398);
    let retry = revert.retry_policy.clone().unwrap();
    assert_eq!(
        (
            retry.maximum_attempts,
            retry.maximum_interval.unwrap().seconds
        ),
        (10, 60)
    );
    let context = json_or_null(
        revert
            .header
            .as_ref()
            .unwrap()
            .fields
            .get("orchestrion-compensation"),
    );
    assert_eq!(context["orchestrationId"], "o_1");
    assert_eq!(context["reason"], "failed");
    assert_eq!(context["payload"]["producer"], "s_task3");
    assert_eq!(
        context["payload"]["error"],
        "too many consecutive failures: card declined"
    );
    assert_eq!(context["timestamp"], "2023-11-14T22:13:21.004Z");
}

#[test]
fn a_reference_that_leads_nowhere_fails_the_run_before_anything_is_scheduled_beside_it() {
    let mut third = task("task3", &["task1"]);
    third.input.insert("list".to_owned(), json!(["$task1.n"]));
    let mut world = World::of_tasks(&[
        task("task1", &[]),
        task("task2", &[]),
        third,
        task("task4", &["task1"]),
    ]);
    world
        .completed(
            "task1",
            json!({"task": {"other": 1}, "compensation": {"data": 1, "ttl": 60_000}}),
        )
        .turn();
    world.completed("task2", done(2)).turn();
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
    world
        .signaled("hello", &json!({}))
        .late_result("task1", done(9))
        .late_result("task9", done(9))
        .turn();
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
    let options = Options {
        task_timeout_ms: 300,
        late_result_wait_ms: Some(40),
        ..Options::default()
    };
    let mut world = World::start(&crate::orchestration::Submission {
        webhook: None,
        options,
        ..submission(Some(plan(&[task("t", &[])])))
    });
    world
        .turn()
        .timed_out("t", TimeoutType::StartToClose)
        .turn();
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
