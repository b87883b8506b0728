//! Services on our own stream, written with the Rust SDK: what they do well, and what happens when something dies.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use orchestrion_tests::engine::Engine;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use serde_json::{Value, json};

#[tokio::test]
async fn an_abort_undoes_what_was_done_newest_first() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    // Both wires in one plan: a service does not know what the others speak.
    let rust = PyService::rust_steps(&project, &engine, &["reserve+revert", "charge+revert"]).await;
    let python = PyService::steps(&project, &["deliver+revert"]).await;
    let plan = Plan::new()
        .task("task1", &rust.id("reserve"), json!({"id": "reservation"}))
        .task(
            "task2",
            &rust.id("charge"),
            json!({"id": "payment", "after": ["$task1.id"], "updates": 3}),
        )
        .task(
            "task3",
            &python.id("deliver"),
            json!({"id": "parcel", "after": ["$task2.id"], "abort_with": "no road"}),
        );

    let run = project.submit(&Action::planned(plan)).await;

    let view = run.aborts().await;
    assert_eq!(rust.ids("reverted"), ["payment", "reservation"]);
    assert_eq!(view.task("task1").compensation(), Some("completed"));
    let updates = view.task("task2");
    assert_eq!(
        updates.updates(),
        [
            &json!({"step": 1, "of": 3}),
            &json!({"step": 2, "of": 3}),
            &json!({"step": 3, "of": 3})
        ]
    );
    for undone in rust.events("revert-started") {
        assert_eq!(undone["reason"], "aborted");
        assert_eq!(undone["payload"], json!({"reason": "no road"}));
        assert_eq!(undone["orchestration"], run.id.as_str());
        assert_eq!(undone["result_id"], undone["id"]);
    }
}

#[tokio::test]
async fn an_abort_of_the_stream_carries_its_payload_and_reverts_say_how_far_they_came() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(
        &project,
        &engine,
        &["half+revert", "stuck+revert", "broken+revert", "stop"],
    )
    .await;
    let step = |id: &str, after: &str, revert_as: &str| {
        let after: Vec<String> = match after {
            "" => Vec::new(),
            task => vec![format!("${task}.id")],
        };
        json!({"id": id, "after": after, "revert_as": revert_as})
    };
    let plan = Plan::new()
        .task("task1", &services.id("half"), step("a", "", "partial"))
        .task("task2", &services.id("stuck"), step("b", "task1", "failed"))
        .task("task3", &services.id("broken"), step("c", "task2", "raise"))
        .task(
            "task4",
            &services.id("stop"),
            json!({"id": "d", "after": ["$task3.id"], "abort_with": "enough"}),
        );
    let view = project.submit(&Action::planned(plan)).await.aborts().await;
    assert_eq!(view.0["abortInfo"]["payload"], json!({"reason": "enough"}));
    assert_eq!(view.task("task1").compensation(), Some("partial"));
    assert_eq!(view.task("task2").compensation(), Some("failed"));
    assert_eq!(view.task("task3").compensation(), Some("failed"));
    // An error was tried again, an answer was not.
    assert_eq!(count(&services, "revert-started", "c"), 3);
    assert_eq!(count(&services, "revert-started", "b"), 1);
}

#[tokio::test]
async fn failures_are_tried_again_unless_the_service_knows_better() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(&project, &engine, &["task"]).await;
    let submit = async |id: &str, mut input: Value| {
        input["id"] = id.into();
        let plan = Plan::new().task("task1", &services.id("task"), input);
        project.submit(&Action::planned(plan)).await
    };
    let flaky = submit("flaky", json!({"fail_times": 2})).await;
    assert_eq!(flaky.completes().await.result()["runs"], 3);
    let headless = submit("headless", json!({"panic": true})).await;
    let view = headless.completes().await;
    assert_eq!(view.result()["runs"], 2);
    let hopeless = submit("hopeless", json!({"fail_permanently": true})).await;
    let view = hopeless.fails().await;
    assert!(
        view.error().contains("hopeless will never work"),
        "{view:#?}"
    );
    assert_eq!(count(&services, "started", "hopeless"), 1);
}

#[tokio::test]
async fn an_engine_killed_in_the_middle_gets_the_result_of_what_went_on() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(&project, &engine, &["task+revert"]).await;
    let task = services.id("task");
    let plan = Plan::new()
        .task(
            "task1",
            &task,
            json!({"id": "long", "sleep_ms": 700, "updates": 1}),
        )
        .task(
            "task2",
            &task,
            json!({"id": "after", "after": ["$task1.id"]}),
        );
    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "long").await;

    engine.kill_and_restart().await;

    let view = run.completes().await;
    // The handler was not disturbed, and its result was not lost.
    assert_eq!(count(&services, "started", "long"), 1);
    assert_eq!(count(&services, "executed", "long"), 1);
    assert_eq!(view.task("task1").times("failed"), 0);
    assert_eq!(services.id("task"), task);
}

#[tokio::test]
async fn results_wait_for_an_engine_that_is_down() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(&project, &engine, &["task"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("task"),
        json!({"id": "t", "sleep_ms": 300}),
    );
    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "t").await;
    engine.kill();
    services.logged("executed", "t").await;
    engine.restart().await;
    run.completes().await;
    assert_eq!(count(&services, "started", "t"), 1);
}

#[tokio::test]
async fn a_worker_killed_in_the_middle_gets_its_task_again_uncounted() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut services = PyService::rust_steps(&project, &engine, &["task"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("task"),
        json!({"id": "t", "sleep_ms": 400}),
    );
    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "t").await;

    services.kill();
    services.restart().await;

    let view = run.completes().await;
    assert_eq!(view.result()["runs"], 2);
    let started = services.events("started");
    assert_eq!(started.len(), 2);
    // The same attempt under the same key.
    assert_eq!(started[0]["key"], started[1]["key"]);
    assert_eq!(started[0]["attempt"], 1);
    assert_eq!(started[1]["attempt"], 1);
    assert_ne!(started[0]["pid"], started[1]["pid"]);
}

#[tokio::test]
async fn processes_of_one_name_share_its_queue_and_make_no_versions() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let one = PyService::rust_steps(&project, &engine, &["task"]).await;
    let other = PyService::rust_steps(&project, &engine, &["task"]).await;
    assert_eq!(one.id("task"), other.id("task"));
    assert_eq!(other.events("registered")[0]["version"], 1);
    // Each takes four at once: eight together take both.
    let mut plan = Plan::new();
    for number in 1..=8 {
        let input = json!({"id": format!("t{number}"), "sleep_ms": 500});
        plan = plan.task(&format!("task{number}"), &one.id("task"), input);
    }
    project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;
    assert_eq!(one.ids("executed").len(), 4);
    assert_eq!(other.ids("executed").len(), 4);
}

#[tokio::test]
async fn a_graceful_end_finishes_what_there_is_and_takes_no_more() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut services = PyService::rust_steps(&project, &engine, &["task"]).await;
    let id = services.id("task");
    let submit = async |name: &str| {
        let plan = Plan::new().task("task1", &id, json!({"id": name, "sleep_ms": 500}));
        project.submit(&Action::planned(plan)).await
    };
    let first = submit("first").await;
    services.logged("started", "first").await;
    assert!(services.end().await);
    first.completes().await;
    assert_eq!(services.events("ended").len(), 1);
    let second = submit("second").await;
    assert_eq!(count(&services, "started", "second"), 0);
    services.restart().await;
    second.completes().await;
}

#[tokio::test]
async fn a_graceful_stop_of_the_engine_loses_nothing() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(&project, &engine, &["task"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("task"),
        json!({"id": "t", "sleep_ms": 600}),
    );
    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "t").await;
    assert!(engine.stop().await.success());
    assert!(
        !engine.log().contains("shutdown budget"),
        "{}",
        engine.log()
    );
    engine.restart().await;
    run.completes().await;
    assert_eq!(count(&services, "started", "t"), 1);
}

#[tokio::test]
async fn a_result_that_the_engine_cannot_keep_fails_its_task_and_says_why() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::rust_steps(&project, &engine, &["task+revert"]).await;
    // Twice in the record, as a revertible service's results are: more than the engine keeps, less than a message may have.
    for (bytes, reason) in [
        (13_000_000, "cannot be kept"),
        (40_000_000, "the engine takes"),
    ] {
        let id = format!("t{bytes}");
        let input = json!({"id": id, "result_bytes": bytes});
        let plan = Plan::new().task("task1", &services.id("task"), input);
        let action = Action::planned(plan).timeout(Duration::from_secs(20));
        let view = project.submit(&action).await.fails().await;
        assert!(view.error().contains(reason), "{view:#?}");
        assert_eq!(count(&services, "started", &id), 1);
    }
    // The stream is as good as before.
    let plan = Plan::new().task("task1", &services.id("task"), json!({"id": "small"}));
    project
        .submit(&Action::planned(plan))
        .await
        .completes()
        .await;
}

fn count(services: &PyService, event: &str, id: &str) -> usize {
    services
        .ids(event)
        .iter()
        .filter(|seen| *seen == id)
        .count()
}
