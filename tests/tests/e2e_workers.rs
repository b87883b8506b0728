//! Services that come and go, are slow, are few, or are several: what is asked of them, and how often.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use futures_util::future::join_all;
use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_sdk::{FakeSdk, service};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::settings::{
    APP_PING_INTERVAL, LATE_RESULT_WAIT, PING_INTERVAL, SILENCE_LIMIT, TASK_ATTEMPTS, ms,
};
use serde_json::json;

#[tokio::test]
async fn a_task_of_an_offline_service_is_paused_and_resumed() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut services = PyService::steps(&project, &["away"]).await;
    let plan = Plan::new().task("task1", &services.id("away"), json!({"id": "a"}));
    services.kill();

    let run = project.submit(&Action::planned(plan)).await;

    let view = run
        .until("paused", |view| view.task_is("task1", "paused"))
        .await;
    assert_eq!(view.status(), "processing");
    let id = services.id("away");
    services.restart().await;
    assert_eq!(
        services.id("away"),
        id,
        "a restarted service is the same service"
    );
    let view = run.completes().await;
    assert_eq!(
        view.task("task1").history(),
        ["paused", "processing", "completed"]
    );
}

#[tokio::test]
async fn a_service_that_stays_away_too_long_fails_its_task() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let away = FakeSdk::register(&project, "away", &["id"], &["id"]).await;
    let plan = Plan::new().task("task1", &away.id, json!({"id": "a"}));

    let action = Action::planned(plan).grace(Duration::from_millis(400));
    let view = project.submit(&action).await.fails().await;

    assert_eq!(view.task("task1").status(), "failed");
    assert_eq!(view.task("task1").times("processing"), 0);
    assert!(view.task("task1").times("paused") >= 1);
}

#[tokio::test]
async fn sixty_four_at_once_wait_their_turn_at_a_service_that_does_one_at_a_time() {
    const RUNS: usize = 64;
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["narrow"]).await;
    let narrow = services.id("narrow");
    // All of them take far longer than an attempt may: only an attempt's own time counts.
    let submissions = (0..RUNS).map(|number| {
        let plan = Plan::new().task(
            "task1",
            &narrow,
            json!({"id": format!("n{number}"), "sleep_ms": 60}),
        );
        let action = Action::planned(plan)
            .timeout(Duration::from_millis(1500))
            .grace(Duration::from_millis(1500));
        let project = project.clone();
        async move { project.submit(&action).await }
    });

    let runs = join_all(submissions).await;

    for (number, run) in runs.iter().enumerate() {
        let view = run.completes().await;
        assert_eq!(view.result()["id"], format!("n{number}"));
        assert_eq!(view.task("task1").times("processing"), 1, "{view:#?}");
        assert_eq!(view.task("task1").times("failed"), 0, "{view:#?}");
    }
    assert_eq!(services.ids("started").len(), RUNS);
}

#[tokio::test]
async fn a_result_that_comes_after_its_attempt_timed_out_counts() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let slow = FakeSdk::register(&project, "slow", &["id"], &["id"]).await;
    let mut socket = slow.connect().await;
    let plan = Plan::new().task("task1", &slow.id, json!({"id": "s"}));

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_millis(300)))
        .await;
    let first = socket.request().await;
    let second = socket.request().await;
    assert_ne!(first.member("executionId"), second.member("executionId"));
    assert_eq!(
        first.member("idempotencyKey"),
        second.member("idempotencyKey")
    );
    socket.complete(&first, json!({"id": "late"})).await;

    let view = run.completes().await;
    assert_eq!(view.result(), &json!({"id": "late"}));
    assert_eq!(view.task("task1").times("failed"), 1);
}

#[tokio::test]
async fn a_result_after_the_last_timeout_is_undone() {
    let engine = Launch::dev()
        .set(TASK_ATTEMPTS, 2)
        .set(LATE_RESULT_WAIT, ms(10_000))
        .start()
        .await;
    let project = Project::add(&engine).await;
    let mut service = service("slow", &["id"], &["id"]);
    service["revertible"] = json!(true);
    let slow = FakeSdk::register_as(&project, &service).await;
    let mut socket = slow.connect().await;
    let plan = Plan::new().task("task1", &slow.id, json!({"id": "s"}));

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_millis(1000)))
        .await;
    let first = socket.request().await;
    socket.request().await;
    run.until("failed", |view| view.status() == "failed").await;
    socket
        .complete_revertibly(
            &first,
            json!({"id": "late"}),
            json!({"originalTask": {}}),
            60_000,
        )
        .await;

    let undo = socket.request().await;
    assert_eq!(undo.member("type"), "compensation_request");
    assert_eq!(undo.0["input"], json!({"originalTask": {}}));
    socket.reverted(&undo, json!({"status": "completed"})).await;
    let view = run
        .until("undone", |view| {
            view.task("task1").compensation() == Some("completed")
        })
        .await;
    assert_eq!(view.status(), "failed");
}

#[tokio::test]
async fn a_handler_slower_than_its_attempts_is_executed_once() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["slow"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("slow"),
        json!({"id": "s", "sleep_ms": 1400}),
    );

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_millis(600)))
        .await;

    let view = run.completes().await;
    assert!(view.task("task1").times("failed") >= 1, "{view:#?}");
    assert_eq!(services.ids("started"), ["s"]);
}

#[tokio::test]
async fn a_service_killed_during_its_task_gets_it_again_uncounted() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut services = PyService::steps(&project, &["dies"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("dies"),
        json!({"id": "d", "sleep_ms": 400}),
    );

    let run = project.submit(&Action::planned(plan)).await;
    services.logged("started", "d").await;
    services.kill();
    services.restart().await;

    let view = run.completes().await;
    assert_eq!(view.task("task1").times("failed"), 0, "{view:#?}");
    assert_eq!(services.ids("started"), ["d", "d"]);
    assert_eq!(services.ids("executed"), ["d"]);
}

#[tokio::test]
async fn after_a_reconnect_an_unanswered_attempt_is_sent_again_as_the_same() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let one = FakeSdk::register(&project, "one", &["id"], &["id"]).await;
    let socket = one.connect().await;
    let plan = Plan::new().task("task1", &one.id, json!({"id": "o"}));

    let run = project.submit(&Action::planned(plan)).await;
    let first = socket.request().await;
    socket.close().await;
    let mut socket = one.connect().await;
    let again = socket.request().await;

    assert_eq!(again.member("executionId"), first.member("executionId"));
    assert_eq!(
        again.member("idempotencyKey"),
        first.member("idempotencyKey")
    );
    assert_eq!(again.0["input"], first.0["input"]);
    socket.complete(&again, json!({"id": "done"})).await;
    assert_eq!(run.completes().await.task("task1").times("failed"), 0);
}

#[tokio::test]
async fn sockets_of_one_service_share_its_work_and_closing_one_disturbs_no_other() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let pair = FakeSdk::register(&project, "pair", &["id"], &["id"]).await;
    let (older, mut newer) = (pair.connect().await, pair.connect().await);
    let submit = |id: &'static str| {
        let plan = Plan::new().task("task1", &pair.id, json!({"id": id}));
        let project = project.clone();
        async move { project.submit(&Action::planned(plan)).await }
    };

    let runs = [submit("a").await, submit("b").await];
    let (of_older, of_newer) = (older.request().await, newer.request().await);
    assert_ne!(of_older.0["input"], of_newer.0["input"]);
    older.close().await;
    newer.complete(&of_newer, json!({"id": "one"})).await;
    let handed_over = newer.request().await;
    assert_eq!(handed_over.0["input"], of_older.0["input"]);
    newer.complete(&handed_over, json!({"id": "two"})).await;
    for run in runs {
        assert_eq!(run.completes().await.task("task1").times("failed"), 0);
    }

    let run = submit("c").await;
    let asked = newer.request().await;
    newer.complete(&asked, json!({"id": "three"})).await;
    run.completes().await;
}

#[tokio::test]
async fn a_socket_is_given_one_attempt_at_a_time() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let one = FakeSdk::register(&project, "one", &["id"], &["id"]).await;
    let mut socket = one.connect().await;
    let plan = Plan::new()
        .task("task1", &one.id, json!({"id": "a"}))
        .task("task2", &one.id, json!({"id": "b"}))
        .task("task3", &one.id, json!({"id": "c"}));

    let run = project.submit(&Action::planned(plan)).await;
    for (number, id) in [(1, "a"), (2, "b"), (3, "c")] {
        let asked = socket.request().await;
        assert_eq!(asked.0["input"]["id"], id, "in plan order");
        // A message in between gives the engine every chance to send another.
        socket
            .send_acked(&socket.answer(&asked, "task_status", json!({"status": "in_progress"})))
            .await;
        assert_eq!(socket.requests().len(), number);
        socket.complete(&asked, json!({"id": id})).await;
    }
    run.completes().await;
}

#[tokio::test]
async fn a_handler_keeps_its_socket_for_as_long_as_it_works() {
    // A Python handler blocks its SDK's receive loop: no application ping is answered while it runs.
    let pings = Launch::dev()
        .set(APP_PING_INTERVAL, ms(200))
        .set(PING_INTERVAL, ms(200));
    let engine = pings.set(SILENCE_LIMIT, ms(600)).start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["long"]).await;
    let plan = Plan::new().task(
        "task1",
        &services.id("long"),
        json!({"id": "l", "sleep_ms": 3000}),
    );

    let run = project
        .submit(&Action::planned(plan).timeout(Duration::from_secs(20)))
        .await;

    let view = run.completes().await;
    assert_eq!(view.task("task1").history(), ["processing", "completed"]);
    assert_eq!(services.ids("started"), ["l"]);
}
