//! The engine as a process: how it starts, refuses to start, and stops.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};

use orchestrion_tests::engine::{Engine, Launch, free_ports};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use serde_json::{Value, json};

#[tokio::test]
async fn a_graceful_stop_cancels_nothing() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["task"]).await;
    let service = services.id("task");
    let plan = Plan::new()
        .task("task1", &service, json!({"id": "t1", "sleep_ms": 600}))
        .task(
            "task2",
            &service,
            json!({"id": "t2", "after": ["$task1.id"]}),
        );
    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "t1").await;

    let status = engine.stop().await;
    assert!(status.success(), "{status}");
    engine.restart().await;

    // The same service process finds its way back: its SDK must not take the stop for a good-bye.
    let view = run.completes().await;
    assert_eq!(view.task("task1").times("failed"), 0, "{view:#?}");
    assert_eq!(services.ids("executed"), ["t1", "t2"]);
}

#[tokio::test]
async fn an_idle_service_comes_back_after_a_graceful_stop() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["task"]).await;
    let submit = |id: &'static str| {
        let plan = Plan::new().task("task1", &services.id("task"), json!({"id": id}));
        let project = project.clone();
        async move {
            project
                .submit(&Action::planned(plan))
                .await
                .completes()
                .await
        }
    };
    submit("before").await;
    engine.stop().await;
    engine.restart().await;
    submit("after").await;
    assert_eq!(services.ids("executed"), ["before", "after"]);
}

#[tokio::test]
async fn a_second_process_on_the_same_data_is_refused() {
    let engine = Engine::start().await;
    let (http_port, grpc_port) = free_ports();
    let said = output(engine.command(http_port, grpc_port));
    assert!(!said.0);
    assert!(said.1.contains("data"), "{}", said.1);
    assert_eq!(
        engine
            .http
            .get(format!("{}/health", engine.url()))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let engine = Engine::start().await;
    let other = Launch::dev().prepare();
    let (_, grpc_port) = free_ports();
    let http_port: u16 = engine.url().rsplit(':').next().unwrap().parse().unwrap();
    let said = output(other.command(http_port, grpc_port));
    assert!(!said.0);
    assert!(said.1.contains(&http_port.to_string()), "{}", said.1);
}

#[tokio::test]
async fn a_server_without_an_admin_key_does_not_start() {
    let engine = Launch::server().prepare();
    let (http_port, grpc_port) = free_ports();
    let said = output(engine.command(http_port, grpc_port));
    assert!(!said.0);
    assert!(said.1.to_lowercase().contains("admin"), "{}", said.1);
}

#[tokio::test]
async fn a_server_creates_projects_for_the_admin_only() {
    let admin = "an-admin-key-of-enough-letters-7d1f";
    let engine = Launch::server()
        .env("ORCHESTRION_ADMIN_KEY", admin)
        .start()
        .await;
    let (status, refusal) = engine
        .post("/register/project", &json!({"name": "shop"}))
        .await;
    assert_eq!(status, 403, "{refusal}");
    let url = format!("{}/register/project", engine.url());
    let request = engine
        .http
        .post(&url)
        .bearer_auth(admin)
        .json(&json!({"name": "shop"}));
    let (status, project) = orchestrion_tests::engine::read(request).await;
    assert_eq!(status, 201, "{project}");
    assert!(!engine.log().contains(admin));
}

#[tokio::test]
async fn a_bad_setting_stops_the_start_and_is_named() {
    let unknown = Launch::dev().set("no_such_setting", 1).prepare();
    let wrong = Launch::dev().env("PORT", "eighty").prepare();
    for (engine, hint) in [(unknown, "no_such_setting"), (wrong, "PORT")] {
        let (http_port, grpc_port) = free_ports();
        let mut command = engine.command(http_port, grpc_port);
        command.stdout(Stdio::null());
        let said = output(command);
        assert!(!said.0, "{hint}");
        assert!(said.1.contains(hint), "{}", said.1);
    }
}

#[tokio::test]
async fn data_of_an_earlier_run_is_listed_and_replayed() {
    let mut engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["task"]).await;
    let plan = Plan::new().task("task1", &services.id("task"), json!({"id": "t"}));
    let run = project.submit(&Action::planned(plan)).await;
    let before = run.completes().await;

    engine.stop().await;
    engine.restart().await;

    let after = run.completes().await;
    let timeless = |view: &Value| {
        let mut view = view.clone();
        view.as_object_mut().unwrap().remove("duration");
        view
    };
    assert_eq!(timeless(&before.0), timeless(&after.0));
}

/// Runs to the end: whether it succeeded, and what it said.
fn output(mut command: std::process::Command) -> (bool, String) {
    let Output { status, stderr, .. } = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    (
        status.success(),
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}
