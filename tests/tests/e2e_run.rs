//! Orchestrations that go well, or fail plainly: real engine, real Python services.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::Engine;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::webhooks::WebhookReceiver;
use serde_json::{Value, json};

#[tokio::test]
async fn an_action_in_plain_words_is_planned_run_and_told() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let _echo = PyService::start(&project, "echo", &[]).await;

    let run = project
        .submit(&Action::new("Echo the message back to me").data("message", "hello"))
        .await;

    let plan = &run.accepted["plan"];
    assert_eq!(plan["tasks"][0]["service_name"], "echo");
    assert_eq!(
        plan["tasks"][0]["input"],
        json!({"message": "$task0.message"})
    );
    assert_eq!(plan["parallel_groups"], json!([["task1"]]));
    assert_eq!(run.accepted["projectID"], project.id.as_str());
    assert_eq!(
        run.accepted["data"],
        json!([{"field": "message", "value": "hello"}])
    );

    let view = run.completes().await;
    assert_eq!(view.result(), &json!({"echo": "hello"}));
    assert_eq!(view.task("task1").0["input"], json!({"message": "hello"}));
    assert_eq!(view.task("task1").history(), ["processing", "completed"]);

    let told = receiver.accepted(&run.id).await;
    assert_eq!(told.header("X-Orra-Event"), "orchestration.completed");
    assert_eq!(told.body["type"], "orchestration.completed");
    assert_eq!(told.body["status"], "completed");
    assert_eq!(told.body["project_id"], project.id.as_str());
    assert_eq!(told.body["results"], json!([{"echo": "hello"}]));
    let timestamp = told.body["timestamp"].as_str().unwrap();
    assert!(
        timestamp.len() >= 20 && timestamp.as_bytes()[10] == b'T',
        "RFC 3339: {timestamp}"
    );
}

#[tokio::test]
async fn independent_tasks_run_together_and_are_joined() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["left", "right", "join"]).await;
    let plan = Plan::new()
        .task(
            "task1",
            &services.id("left"),
            json!({"id": "l", "value": "one", "sleep_ms": 700}),
        )
        .task(
            "task2",
            &services.id("right"),
            json!({"id": "r", "value": "two", "sleep_ms": 700}),
        )
        .task(
            "task3",
            &services.id("join"),
            json!({"id": "j", "value": "$task1.value and $task2.value"}),
        );

    let run = project.submit(&Action::planned(plan)).await;

    assert_eq!(
        run.accepted["plan"]["parallel_groups"],
        json!([["task1", "task2"], ["task3"]])
    );
    let view = run.completes().await;
    assert_eq!(view.result()["value"], "one and two");
    let both = services.all(&["started", "executed"]);
    // Two processes: which of them wrote first says nothing.
    let mut first = both[..2].to_vec();
    first.sort();
    assert_eq!(first, ["started l", "started r"]);
    assert_eq!(both[4..], ["started j", "executed j"]);
}

#[tokio::test]
async fn references_reach_into_outputs_wherever_they_stand() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["sell", "write"]).await;
    let plan = Plan::new()
        .constant("greeting", "Dear Ada")
        .task("task1", &services.id("sell"), json!({"id": "s"}))
        .task(
            "task2",
            &services.id("write"),
            json!({
                "id": "$task1.receipt.lines[1].sku",
                "value": "$task0.greeting: $task1.receipt.lines[0].sku costs $task1.receipt.lines[0].price",
                "after": ["$task1.id", "also $task1.receipt.lines[1].sku"],
            }),
        );

    let view = project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;

    // The inspection shows the plan's references, as orra's does; the journal shows what the service was given.
    assert_eq!(
        view.task("task2").0["input"]["id"],
        "$task1.receipt.lines[1].sku"
    );
    let replay = project
        .get(&format!(
            "/orchestrations/{}/replay",
            view.0["id"].as_str().unwrap()
        ))
        .await;
    let given = r#"{"id":"book","value":"Dear Ada: pen costs 2.5","after":["s","also book"]}"#;
    let scheduled =
        |record: &serde_json::Value| record["summary"].as_str().unwrap().contains(given);
    assert!(
        replay["records"].as_array().unwrap().iter().any(scheduled),
        "{replay:#}"
    );
    assert_eq!(view.result()["value"], "Dear Ada: pen costs 2.5");
}

#[tokio::test]
async fn the_result_is_that_of_the_last_tasks_by_dependency() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["step"]).await;
    let step = services.id("step");
    let plan = Plan::new()
        .task("task2", &step, json!({"id": "first"}))
        .task(
            "task10",
            &step,
            json!({"id": "last", "after": ["$task2.id"]}),
        );
    let view = project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;
    assert_eq!(view.result()["id"], "last");

    let plan = Plan::new()
        .task("task1", &step, json!({"id": "trunk"}))
        .task(
            "task2",
            &step,
            json!({"id": "leaf one", "after": ["$task1.id"]}),
        )
        .task(
            "task3",
            &step,
            json!({"id": "leaf two", "after": ["$task1.id"]}),
        );
    let view = project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;
    let ids: Vec<&Value> = view.0["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| &result["id"])
        .collect();
    assert_eq!(ids, ["leaf one", "leaf two"]);
}

#[tokio::test]
async fn a_flaky_service_is_tried_again() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let flaky = PyService::start(&project, "flaky", &["2"]).await;
    let plan = Plan::new().task("task1", &flaky.id("flaky"), json!({"order": "o1"}));

    let view = project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;

    assert_eq!(view.result(), &json!({"order": "o1", "attempts": 3}));
    assert_eq!(view.task("task1").times("failed"), 2);
    assert_eq!(flaky.ids("attempted").len(), 3);
}

#[tokio::test]
async fn a_task_that_always_fails_fails_the_run_and_nothing_follows() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["breaks", "never"]).await;
    let plan = Plan::new()
        .task(
            "task1",
            &services.id("breaks"),
            json!({"id": "b", "fail_times": 99}),
        )
        .task(
            "task2",
            &services.id("never"),
            json!({"id": "n", "after": ["$task1.id"]}),
        );

    let run = project.submit(&Action::planned(plan)).await;

    let view = run.fails().await;
    assert_eq!(view.0["error"]["producer"], services.id("breaks").as_str());
    assert!(view.error().contains("b does not work"), "{}", view.error());
    assert_eq!(view.task("task1").status(), "failed");
    assert_eq!(view.task("task1").times("failed"), 5);
    assert_eq!(services.ids("failed").len(), 5);
    assert!(services.ids("started").iter().all(|id| id == "b"));
    let told = receiver.accepted(&run.id).await;
    assert_eq!(told.body["type"], "orchestration.failed");
    assert!(
        told.body["error"]["error"]
            .as_str()
            .unwrap()
            .contains("b does not work"),
        "{}",
        told.body
    );
    assert_eq!(project.list().await["failed"][0]["id"], run.id.as_str());
}

#[tokio::test]
async fn progress_updates_are_kept_in_order() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["talks"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("talks"),
        json!({"id": "t", "updates": 20}),
    );

    let view = project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;

    let expected: Vec<Value> = (1..=20)
        .map(|number| json!({"step": number, "of": 20}))
        .collect();
    assert_eq!(
        view.task("task1").updates(),
        expected.iter().collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn results_of_one_and_of_nine_megabytes_arrive_whole() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["makes", "passes"]).await;
    for bytes in [1_000_000, 9_000_000] {
        let id = format!("blob of {bytes}");
        let plan = Plan::new()
            .task(
                "task1",
                &services.id("makes"),
                json!({"id": id, "result_bytes": bytes}),
            )
            .task(
                "task2",
                &services.id("passes"),
                json!({"id": id, "value": "$task1.blob"}),
            );

        let run = project.submit(&Action::planned(plan)).await;

        let view = run.completes().await;
        assert_eq!(
            view.task("task1").output()["blob"].as_str().unwrap().len(),
            bytes
        );
        assert_eq!(view.result()["value"].as_str().unwrap().len(), bytes);
        assert_eq!(
            view.task("task1").times("failed") + view.task("task2").times("failed"),
            0
        );
        let told = receiver.accepted(&run.id).await;
        assert_eq!(
            told.body["results"][0]["value"].as_str().unwrap().len(),
            bytes
        );
    }
    assert_eq!(services.ids("executed").len(), 4);
}
