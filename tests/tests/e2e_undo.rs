//! Aborts and failures, and what is undone after them: newest first, everything that was done, once.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::{FakeSdk, service};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::webhooks::WebhookReceiver;
use serde_json::{Value, json};

const DAY_MS: u64 = 86_400_000;

#[tokio::test]
async fn an_abort_undoes_what_was_done_newest_first() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_webhook(&receiver.url).await;
    let services = PyService::steps(
        &project,
        &["reserve+revert", "note", "charge+revert", "deliver+revert"],
    )
    .await;
    let plan = Plan::new()
        .task(
            "task1",
            &services.id("reserve"),
            json!({"id": "reservation"}),
        )
        .task(
            "task2",
            &services.id("note"),
            json!({"id": "remark", "after": ["$task1.id"]}),
        )
        .task(
            "task3",
            &services.id("charge"),
            json!({"id": "payment", "after": ["$task2.id"]}),
        )
        .task(
            "task4",
            &services.id("deliver"),
            json!({"id": "parcel", "after": ["$task3.id"], "abort_with": "no road"}),
        );

    let run = project.submit(&Action::planned(plan)).await;

    let view = run.aborts().await;
    assert_eq!(services.ids("reverted"), ["payment", "reservation"]);
    let abort = &view.0["abortInfo"];
    assert_eq!(abort["taskId"], "task4");
    assert_eq!(abort["serviceName"], "deliver");
    assert_eq!(abort["payload"], json!({"reason": "no road"}));
    assert_eq!(view.task("task4").status(), "aborted");
    assert_eq!(
        view.task("task4").0["abortPayload"],
        json!({"reason": "no road"})
    );
    assert_eq!(view.task("task1").compensation(), Some("completed"));
    assert_eq!(view.task("task2").compensation(), None);
    for undone in services.events("revert-started") {
        assert_eq!(undone["reason"], "aborted");
        assert_eq!(undone["payload"], json!({"reason": "no road"}));
        assert_eq!(undone["orchestration"], run.id.as_str());
        assert_eq!(undone["result_id"], undone["id"]);
    }
    let told = receiver.accepted(&run.id).await;
    assert_eq!(told.body["type"], "orchestration.aborted");
    assert_eq!(told.body["abort_reason"], json!({"reason": "no road"}));
    let listed = &project.list().await["aborted"][0];
    assert_eq!(listed["id"], run.id.as_str());
    assert_eq!(listed["compensation"]["completed"], 2);
}

#[tokio::test]
async fn a_failure_undoes_too_and_says_what_failed() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["reserve+revert", "charge"]).await;
    let plan = Plan::new()
        .task(
            "task1",
            &services.id("reserve"),
            json!({"id": "reservation"}),
        )
        .task(
            "task2",
            &services.id("charge"),
            json!({"id": "payment", "after": ["$task1.id"], "fail_times": 99}),
        );

    project.submit(&Action::planned(plan)).await.fails().await;

    let undone = services.events("revert-started");
    assert_eq!(undone.len(), 1);
    assert_eq!(undone[0]["reason"], "failed");
    assert_eq!(
        undone[0]["payload"]["producer"],
        services.id("charge").as_str()
    );
    assert!(
        undone[0]["payload"]["error"]
            .as_str()
            .unwrap()
            .contains("payment does not work"),
        "{undone:?}"
    );
}

#[tokio::test]
async fn an_abort_without_a_payload_is_an_abort() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["reserve+revert", "stop"]).await;
    let plan = Plan::new()
        .task(
            "task1",
            &services.id("reserve"),
            json!({"id": "reservation"}),
        )
        .task(
            "task2",
            &services.id("stop"),
            json!({"id": "s", "after": ["$task1.id"], "abort_bare": true}),
        );

    project.submit(&Action::planned(plan)).await.aborts().await;

    assert_eq!(services.ids("reverted"), ["reservation"]);
    assert_eq!(services.events("revert-started")[0]["payload"], Value::Null);
}

#[tokio::test]
async fn a_task_that_completes_after_another_failed_is_undone_too() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["early+revert", "late+revert", "stop"]).await;
    let plan = Plan::new()
        .task("task1", &services.id("early"), json!({"id": "early"}))
        .task(
            "task2",
            &services.id("late"),
            json!({"id": "late", "sleep_ms": 1200}),
        )
        .task(
            "task3",
            &services.id("stop"),
            json!({"id": "stop", "after": ["$task1.id"], "abort_with": "enough"}),
        );

    let run = project.submit(&Action::planned(plan)).await;

    let view = run
        .until("was aborted", |view| view.status() == "aborted")
        .await;
    assert!(
        services.ids("executed").iter().all(|id| id != "late"),
        "the abort shows before the late task ends"
    );
    assert_ne!(view.task("task2").status(), "completed");
    let view = run.aborts().await;
    assert_eq!(services.ids("reverted"), ["late", "early"]);
    assert_eq!(view.task("task2").compensation(), Some("completed"));
}

#[tokio::test]
async fn completed_partial_and_failed_reverts_are_told_apart() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_compensation_webhook(&receiver.url).await;
    let names = [
        "good+revert",
        "half+revert",
        "soft+revert",
        "hard+revert",
        "shaky+revert",
        "stop",
    ];
    let services = PyService::steps(&project, &names).await;
    let after = |id: &str, task: &str, more: Value| {
        let mut input = json!({"id": id, "after": [format!("${task}.id")]});
        input
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        input
    };
    let plan = Plan::new()
        .task("task1", &services.id("good"), json!({"id": "good"}))
        .task(
            "task2",
            &services.id("half"),
            after("half", "task1", json!({"revert_as": "partial"})),
        )
        .task(
            "task3",
            &services.id("soft"),
            after("soft", "task2", json!({"revert_as": "failed"})),
        )
        .task(
            "task4",
            &services.id("hard"),
            after("hard", "task3", json!({"revert_as": "raise"})),
        )
        .task(
            "task5",
            &services.id("shaky"),
            after("shaky", "task4", json!({"revert_fail_times": 2})),
        )
        .task(
            "task6",
            &services.id("stop"),
            after("stop", "task5", json!({"abort_with": "enough"})),
        );

    let run = project.submit(&Action::planned(plan)).await;

    let view = run.aborts().await;
    let outcome = |task: &str| view.task(task).compensation().unwrap().to_owned();
    assert_eq!(outcome("task1"), "completed");
    assert_eq!(outcome("task2"), "partial");
    assert_eq!(outcome("task3"), "failed");
    assert_eq!(outcome("task4"), "failed");
    assert_eq!(outcome("task5"), "completed");
    let tried = services.ids("revert-started");
    assert_eq!(
        tried.iter().filter(|id| *id == "shaky").count(),
        3,
        "{tried:?}"
    );
    assert_eq!(
        tried.iter().filter(|id| *id == "hard").count(),
        3,
        "{tried:?}"
    );

    let records = project.compensation_failures(2).await;
    assert_eq!(records.len(), 2, "{records:#?}");
    let record = |task: &str| {
        records
            .iter()
            .find(|record| record["taskId"] == task)
            .unwrap()
    };
    assert_eq!(record("task4")["status"], "failed");
    assert_eq!(record("task4")["attemptsMade"], 3);
    assert_eq!(record("task4")["resolutionState"], "pending");
    assert_eq!(
        record("task4")["compensationData"]["data"]["originalTask"]["id"],
        "hard"
    );
    assert!(
        record("task4")["failure"]
            .as_str()
            .unwrap()
            .contains("hard cannot be undone")
    );
    assert!(
        record("task3")["failure"]
            .as_str()
            .unwrap()
            .contains("soft stays as it is")
    );
    receiver.tried(&run.id, 2).await;
    for told in receiver.tries_of(&run.id) {
        assert_eq!(told.header("X-Orra-Event"), "compensation.failed");
        assert_eq!(
            told.body["compensation_data"]["context"]["reason"],
            "aborted"
        );
    }
}

#[tokio::test]
async fn a_revert_that_comes_too_late_expires() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::start().await;
    project.add_compensation_webhook(&receiver.url).await;
    let mut service = service("reserve", &["id"], &["id"]);
    service["revertible"] = json!(true);
    let reserve = FakeSdk::register_as(&project, &service).await;
    let stop = FakeSdk::register(&project, "stop", &["id"], &["id"]).await;
    let (mut reserving, mut stopping) = (reserve.connect().await, stop.connect().await);
    let plan = Plan::new()
        .task("task1", &reserve.id, json!({"id": "r"}))
        .task("task2", &stop.id, json!({"id": "$task1.id"}));

    let run = project.submit(&Action::planned(plan)).await;
    let asked = reserving.request().await;
    reserving
        .complete_revertibly(
            &asked,
            json!({"id": "r"}),
            json!({"originalTask": {}, "taskResult": {}}),
            1,
        )
        .await;
    let asked = stopping.request().await;
    stopping.abort(&asked, json!({"reason": "enough"})).await;

    let view = run.aborts().await;
    assert_eq!(view.task("task1").compensation(), Some("expired"));
    assert_eq!(
        reserving.requests().len(),
        1,
        "nobody is asked to undo what has expired"
    );
    let records = project.compensation_failures(1).await;
    assert_eq!(records[0]["status"], "expired");
    receiver.accepted(&run.id).await;
}

#[tokio::test]
async fn the_data_to_undo_with_comes_back_as_it_was_given() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut service = service("reserve", &["id"], &["id"]);
    service["revertible"] = json!(true);
    let reserve = FakeSdk::register_as(&project, &service).await;
    let stop = FakeSdk::register(&project, "stop", &["id"], &["id"]).await;
    let (mut reserving, mut stopping) = (reserve.connect().await, stop.connect().await);
    let plan = Plan::new()
        .task("task1", &reserve.id, json!({"id": "r"}))
        .task("task2", &stop.id, json!({"id": "$task1.id"}));

    let run = project.submit(&Action::planned(plan)).await;
    let asked = reserving.request().await;
    let data = r#"{"z":1.0,"a":[1e3,null],"n":123456789012345678901234567890}"#;
    let (execution, key) = (asked.member("executionId"), asked.member("idempotencyKey"));
    reserving
        .send_raw(format!(
            r#"{{"id":"m1","payload":{{"type":"task_result","taskId":"task1","executionId":"{execution}","serviceId":"{}","idempotencyKey":"{key}","result":{{"task":{{"id":"r"}},"compensation":{{"data":{data},"ttl":{DAY_MS}}}}},"error":null}}}}"#,
            reserve.id
        ))
        .await;
    reserving.acknowledged("m1").await;
    let asked = stopping.request().await;
    stopping.abort(&asked, json!({"reason": "enough"})).await;

    let undo = reserving.request().await;
    assert_eq!(undo.member("type"), "compensation_request");
    assert_eq!(undo.member("id"), "task1");
    assert_ne!(
        undo.member("idempotencyKey"),
        key,
        "undoing is another piece of work than doing"
    );
    let raw = reserving.raw_frames();
    let raw = raw
        .iter()
        .find(|frame| frame.contains("compensation_request"))
        .unwrap();
    assert!(raw.contains(data), "{raw}");
    let context = &undo.0["compensationContext"];
    assert_eq!(context["orchestrationId"], run.id.as_str());
    assert_eq!(context["reason"], "aborted");
    assert_eq!(context["payload"], json!({"reason": "enough"}));
    assert!(context["timestamp"].as_str().unwrap().contains('T'));
    // A partial result whose lists the JS SDK left empty.
    reserving
        .reverted(
            &undo,
            json!({"status": "partial", "partial": {"completed": [], "remaining": []}}),
        )
        .await;
    assert_eq!(
        run.aborts().await.task("task1").compensation(),
        Some("partial")
    );
}
