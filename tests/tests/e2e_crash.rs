//! The engine is killed with -9 at every kind of moment: nothing is lost, nothing is done twice, and it is told once.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_llm::{Answer, FakeLlm};
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::webhooks::WebhookReceiver;
use serde_json::{Value, json};

/// Told once, under one id. Another run is told first: whatever was still to be told of this one has been by then.
async fn told_once(
    project: &Project,
    receiver: &WebhookReceiver,
    services: &PyService,
    orchestration: &str,
) {
    let plan = Plan::new().task(
        "task1",
        &services.id("task"),
        json!({"id": format!("after {orchestration}")}),
    );
    let fence = project.submit(&Action::planned(plan)).await;
    fence.completes().await;
    receiver.accepted(&fence.id).await;
    let tries = receiver.tries_of(orchestration);
    assert_eq!(
        tries.iter().filter(|told| told.accepted).count(),
        1,
        "{tries:#?}"
    );
    assert!(
        tries
            .iter()
            .all(|told| told.event_id() == tries[0].event_id()),
        "{tries:#?}"
    );
}

#[tokio::test]
async fn killed_before_the_plan_a_submission_with_a_key_goes_on() {
    let llm = FakeLlm::start().await;
    let mut engine = llm.plans_for(Launch::dev()).start().await;
    let project = Project::add(&engine).await;
    let service = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    llm.answers([Answer::Never]);
    let action = Action::new("Echo it")
        .data("message", "hi")
        .idempotency_key("order 7");
    let asked = tokio::spawn({
        let (project, action) = (project.clone(), action.clone());
        async move { project.request_lost(&action).await }
    });
    llm.called(1).await;
    let (id, status) = project.only_listed().await;
    assert_eq!(status, "pending");
    assert_eq!(
        project.run(&id, Value::Null).inspect().await.status(),
        "pending"
    );

    engine.kill();
    asked.await.unwrap();
    llm.answers([Answer::plan(echo_plan(&service.id))]);
    engine.restart().await;

    let mut socket = service.connect().await;
    let request = socket.request().await;
    assert_eq!(request.0["input"], json!({"message": "hi"}));
    socket.complete(&request, json!({"echo": "hi"})).await;
    assert_eq!(
        project.run(&id, Value::Null).completes().await.result(),
        &json!({"echo": "hi"})
    );
    let repeated = project.submit(&action).await;
    assert_eq!(repeated.id, id);
    assert_eq!(project.listed().await.len(), 1);
}

#[tokio::test]
async fn killed_before_the_plan_a_submission_without_a_key_fails() {
    let llm = FakeLlm::start().await;
    let mut engine = llm.plans_for(Launch::dev()).start().await;
    let project = Project::add(&engine).await;
    let service = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    llm.answers([Answer::Never]);
    let asked = tokio::spawn({
        let project = project.clone();
        async move {
            project
                .request_lost(&Action::new("Echo it").data("message", "hi"))
                .await
        }
    });
    llm.called(1).await;
    let (id, _) = project.only_listed().await;

    engine.kill();
    asked.await.unwrap();
    llm.answers([Answer::plan(echo_plan(&service.id))]);
    engine.restart().await;

    let view = project.run(&id, Value::Null).fails().await;
    assert!(
        view.error().contains("interrupted while planning"),
        "{}",
        view.error()
    );
    assert_eq!(project.listed().await, [(id, "failed".to_owned())]);
    assert_eq!(llm.calls().len(), 1, "nobody asks for the plan again");
}

#[tokio::test]
async fn killed_after_the_plan_it_is_not_asked_for_again() {
    let llm = FakeLlm::start().await;
    let mut engine = llm.plans_for(Launch::dev()).start().await;
    let project = Project::add(&engine).await;
    let service = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    llm.answers([Answer::plan(echo_plan(&service.id))]);
    let run = project
        .submit(&Action::new("Echo it").data("message", "hi"))
        .await;

    engine.kill_and_restart().await;

    let mut socket = service.connect().await;
    let request = socket.request().await;
    socket.complete(&request, json!({"echo": "hi"})).await;
    run.completes().await;
    assert_eq!(llm.calls().len(), 1);
}

#[tokio::test]
async fn killed_during_a_task_it_is_executed_once() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["task"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("task"),
        json!({"id": "t", "sleep_ms": 1000}),
    );

    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "t").await;
    engine.kill_and_restart().await;

    let view = run.completes().await;
    assert_eq!(view.task("task1").times("failed"), 0, "{view:#?}");
    assert_eq!(services.ids("executed"), ["t"]);
    receiver.accepted(&run.id).await;
    told_once(&project, &receiver, &services, &run.id).await;
}

#[tokio::test]
async fn killed_together_with_its_service_a_task_is_executed_once() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut services = PyService::steps(&project, &["task", "next"]).await;
    let plan = Plan::new()
        .task("task1", &services.id("task"), json!({"id": "t"}))
        .task(
            "task2",
            &services.id("next"),
            json!({"id": "n", "after": ["$task1.id"], "sleep_ms": 300}),
        );

    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "n").await;
    engine.kill();
    services.kill();
    engine.restart().await;
    services.restart().await;

    run.completes().await;
    assert_eq!(services.ids("executed"), ["t", "n"]);
}

#[tokio::test]
async fn killed_between_tasks_again_and_again_each_is_executed_once() {
    const TASKS: usize = 6;
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["task"]).await;
    let service = services.id("task");
    let mut plan = Plan::new().task("task1", &service, json!({"id": "t1"}));
    for number in 2..=TASKS {
        let after = format!("$task{}.id", number - 1);
        // The last one takes long enough that the engine is not killed while the end is told: that is told again then.
        let sleep_ms = if number == TASKS { 2_000 } else { 0 };
        plan = plan.task(
            &format!("task{number}"),
            &service,
            json!({"id": format!("t{number}"), "after": [after], "sleep_ms": sleep_ms}),
        );
    }

    let run = project.submit(&Action::planned(plan)).await;
    // The log line is written before the result is sent: the engine dies around the time it takes it.
    for number in [1, 3, 5] {
        services.logged("executed", &format!("t{number}")).await;
        engine.kill_and_restart().await;
    }

    let view = run.completes().await;
    assert_eq!(view.result()["id"], format!("t{TASKS}"));
    let expected: Vec<String> = (1..=TASKS).map(|number| format!("t{number}")).collect();
    assert_eq!(services.ids("executed"), expected);
    receiver.accepted(&run.id).await;
    told_once(&project, &receiver, &services, &run.id).await;
}

#[tokio::test]
async fn killed_during_a_revert_everything_is_undone_once() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(
        &project,
        &["reserve+revert", "charge+revert", "stop", "task"],
    )
    .await;
    let plan = Plan::new()
        .task("task1", &services.id("reserve"), json!({"id": "r"}))
        .task(
            "task2",
            &services.id("charge"),
            json!({"id": "c", "after": ["$task1.id"], "revert_sleep_ms": 1000}),
        )
        .task(
            "task3",
            &services.id("stop"),
            json!({"id": "s", "after": ["$task2.id"], "abort_with": "enough"}),
        );

    let run = project.submit(&Action::planned(plan)).await;
    services.logged("revert-started", "c").await;
    engine.kill_and_restart().await;

    let view = run.aborts().await;
    assert_eq!(services.ids("reverted"), ["c", "r"]);
    assert_eq!(view.task("task1").compensation(), Some("completed"));
    assert_eq!(view.task("task2").compensation(), Some("completed"));
    receiver.accepted(&run.id).await;
    told_once(&project, &receiver, &services, &run.id).await;
}

#[tokio::test]
async fn killed_before_the_webhook_it_is_told_once_under_the_same_id() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::failing_first(usize::MAX).await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["task"]).await;
    let plan = Plan::new().task("task1", &services.id("task"), json!({"id": "t"}));

    let run = project.submit(&Action::planned(plan)).await;
    run.completes().await;
    receiver.tried(&run.id, 2).await;
    engine.kill();
    receiver.recover();
    engine.restart().await;

    let told = receiver.accepted(&run.id).await;
    assert_eq!(told.body["results"][0]["id"], "t");
    told_once(&project, &receiver, &services, &run.id).await;
}

#[tokio::test]
async fn what_was_registered_is_still_there() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let (_, made) = project.post("/apikeys", &Value::Null).await;
    let second = project.with_key(made["apiKey"].as_str().unwrap());
    let echo = FakeSdk::register(&second, "echo", &["message"], &["echo"]).await;

    engine.kill_and_restart().await;

    assert_eq!(second.list().await, json!({}));
    let mut socket = echo.connect().await;
    let run = second
        .submit(&Action::new("Echo the message").data("message", "hi"))
        .await;
    let request = socket.request().await;
    socket.complete(&request, json!({"echo": "hi"})).await;
    run.completes().await;
    let again = json!({"id": echo.id, "name": "echo", "description": "Echoes", "revertible": false,
        "schema": {"input": {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]},
                   "output": {"type": "object", "properties": {"echo": {"type": "string"}}, "required": ["echo"]}}});
    let (status, body) = project.post("/register/service", &again).await;
    assert_eq!((status, &body["version"]), (200, &json!(2)), "{body}");
}

fn echo_plan(service: &str) -> Plan {
    Plan::new().constant("message", "hi").task(
        "task1",
        service,
        json!({"message": "$task0.message"}),
    )
}
