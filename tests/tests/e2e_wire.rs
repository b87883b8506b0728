//! What orra's own clients send and expect, byte for byte where it matters; and frames that nobody should send.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::{Engine, read};
use orchestrion_tests::fake_sdk::{FakeSdk, service};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use reqwest::Method;
use serde_json::{Value, json};

/// As orra's command line sends it without `-d`.
const CLI_ACTION: &str = r#"{"action":{"Content":"Greet everybody"},"data":null}"#;
/// As it sends a new project.
const CLI_PROJECT: &str = r#"{"name":"my-project","createdAt":"2025-05-01T10:00:00.123456789Z"}"#;

#[tokio::test]
async fn orras_command_line_is_understood() {
    let engine = Engine::start().await;
    let request = engine
        .http
        .post(format!("{}/register/project", engine.url()))
        .body(CLI_PROJECT);
    let (status, project) = read(request).await;
    assert_eq!(status, 201);
    assert_eq!(project["name"], "my-project");
    assert!(id_like(&project, "id", "p_", 22), "{project}");
    let key = text(&project, "apiKey");
    assert!(
        key.starts_with("sk-orra-v1-") && key.len() == 11 + 64,
        "{key}"
    );
    for member in [
        "additionalAPIKeys",
        "webhooks",
        "compensationFailureWebhooks",
        "createdAt",
        "updatedAt",
    ] {
        assert!(
            project.get(member).is_some(),
            "{member} is missing in {project}"
        );
    }

    let project = Project::add(&engine).await;
    let greet = json!({"name": "greeter", "description": "Greets everybody", "schema": {
        "input": {"type": "object", "properties": {"language": {"type": "string"}}},
        "output": {"type": "object", "properties": {"greeting": {"type": "string"}}}}});
    let greet = FakeSdk::register_as(&project, &greet).await;
    let mut socket = greet.connect().await;
    let (status, accepted) = read(
        project
            .request(Method::POST, "/orchestrations")
            .body(CLI_ACTION),
    )
    .await;
    assert_eq!(status, 202, "{accepted}");
    assert!(id_like(&accepted, "id", "o_", 22), "{accepted}");
    assert_eq!(accepted["action"]["content"], "Greet everybody");
    assert_eq!(accepted["results"], Value::Null);
    assert!(["pending", "processing"].contains(&accepted["status"].as_str().unwrap()));
    let asked = socket.request().await;
    socket.complete(&asked, json!({"greeting": "hi"})).await;
    project
        .run(&text(&accepted, "id"), Value::Null)
        .completes()
        .await;

    let (status, made) = project.post("/apikeys", &Value::Null).await;
    assert_eq!(status, 201);
    assert!(text(&made, "apiKey").starts_with("sk-orra-v1-"));
    assert_eq!(project.get("/compensation-failures").await, Value::Null);
}

#[tokio::test]
async fn durations_are_taken_in_every_form_and_keys_in_every_case() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    for timeout in [
        json!("45s"),
        json!("1m0s"),
        json!("1.5h"),
        json!(45_000_000_000_i64),
        json!({"Duration": 45_000_000_000_i64}),
    ] {
        let plan: Value = Plan::new()
            .task("task1", &echo.id, json!({"message": "$task0.message"}))
            .into();
        let body = json!({"ACTION": {"CONTENT": "x"}, "Data": [{"FIELD": "message", "Value": "m"}], "Timeout": timeout, "plan": plan});
        let (status, accepted) = project.post("/orchestrations", &body).await;
        assert_eq!(status, 202, "{timeout}: {accepted}");
        if timeout != "1.5h" && timeout != "1m0s" {
            assert_eq!(accepted["timeout"], "45s");
        }
    }
}

#[tokio::test]
async fn health_and_headers() {
    let engine = Engine::start().await;
    let answer = engine
        .http
        .get(format!("{}/health", engine.url()))
        .send()
        .await
        .unwrap();
    assert!(answer.headers().contains_key("X-Orra-Planeengine-Version"));
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(answer.text().await.unwrap().trim(), "{}");
    let answer = engine
        .http
        .get(format!("{}/metrics", engine.url()))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn bare_frames_of_a_reconnected_js_sdk_count() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let socket = echo.connect().await;
    let plan = Plan::new().task("task1", &echo.id, json!({"message": "m"}));
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    socket.close().await;

    let mut socket = echo.connect().await;
    let update = socket.answer(
        &asked,
        "task_interim_result",
        json!({"result": {"task": {"percent": 50}}}),
    );
    socket.send_raw(update.to_string()).await;
    let result = socket.result(&asked, json!({"echo": "m"}));
    socket.send_raw(result.to_string()).await;

    let view = run.completes().await;
    assert_eq!(view.result(), &json!({"echo": "m"}));
    assert_eq!(view.task("task1").updates(), [&json!({"percent": 50})]);
}

#[tokio::test]
async fn a_js_sdk_that_repeats_an_abort_as_a_result_aborts() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let mut socket = echo.connect().await;
    let plan = Plan::new().task("task1", &echo.id, json!({"message": "m"}));
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    let result = json!({"result": {"task": {"reason": "no"}, "status": "aborted"}, "error": null});
    socket
        .send_acked(&socket.answer(&asked, "task_result", result))
        .await;

    let view = run.aborts().await;
    assert_eq!(view.0["abortInfo"]["payload"], json!({"reason": "no"}));
}

#[tokio::test]
async fn every_wrapped_frame_is_acknowledged_and_nonsense_is_survived() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let mut socket = echo.connect().await;

    socket.send_raw("this is no JSON").await;
    socket.send_raw("[1,2,3]").await;
    socket.send_raw(r#"{"id":"no payload"}"#).await;
    socket
        .send_raw(r#"{"id":"unknown type","payload":{"type":"task_gossip"}}"#)
        .await;
    socket.acknowledged("unknown type").await;
    socket
        .send_raw(r#"{"payload":{"type":"task_gossip"}}"#)
        .await;
    socket.acknowledged("").await;
    socket
        .send_raw(
            json!({"id": "pong", "payload": {"type": "pong", "serviceId": echo.id}}).to_string(),
        )
        .await;
    let stray = json!({"type": "task_result", "taskId": "task1", "executionId": "e_2222222222222222222222",
        "serviceId": echo.id, "idempotencyKey": "never given", "result": {"task": {}}, "error": null});
    socket.send_acked(&stray).await;
    let acknowledged: Vec<Value> = socket
        .frames()
        .into_iter()
        .filter(|frame| frame["type"] == "ACK")
        .map(|frame| frame["id"].clone())
        .collect();
    assert!(
        !acknowledged.contains(&json!("pong")) && !acknowledged.contains(&json!("no payload")),
        "{acknowledged:?}"
    );

    let plan = Plan::new().task("task1", &echo.id, json!({"message": "m"}));
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    for member in ["type", "id", "executionId", "idempotencyKey", "serviceId"] {
        assert!(!asked.member(member).is_empty());
    }
    assert_eq!(asked.member("id"), "task1");
    assert_eq!(asked.member("serviceId"), echo.id);
    assert!(asked.member("idempotencyKey").len() <= 64);
    assert!(asked.0.get("orchestrationId").is_none() && asked.0.get("projectId").is_none());
    socket
        .send_acked(&socket.answer(
            &asked,
            "task_status",
            json!({"status": "in_progress", "timestamp": "2025-05-01T10:00:00+00:00"}),
        ))
        .await;
    socket.complete(&asked, json!({"echo": "m"})).await;
    run.completes().await;
}

#[tokio::test]
async fn of_two_results_the_first_counts() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let mut socket = echo.connect().await;
    let plan = Plan::new()
        .task("task1", &echo.id, json!({"message": "m"}))
        .task("task2", &echo.id, json!({"message": "$task1.echo"}));
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    socket.complete(&asked, json!({"echo": "first"})).await;
    socket.complete(&asked, json!({"echo": "second"})).await;
    socket.fail(&asked, "third").await;

    let next = socket.request().await;
    assert_eq!(next.0["input"], json!({"message": "first"}));
    socket.complete(&next, json!({"echo": "end"})).await;
    let view = run.completes().await;
    assert_eq!(view.task("task1").output(), &json!({"echo": "first"}));
    socket
        .complete(&next, json!({"echo": "after the end"}))
        .await;
    assert_eq!(run.completes().await.result(), &json!({"echo": "end"}));
}

#[tokio::test]
async fn nobody_answers_for_another_service() {
    let engine = Engine::start().await;
    let (mine, theirs) = (Project::add(&engine).await, Project::add(&engine).await);
    let victim = FakeSdk::register(&mine, "victim", &["id"], &["id"]).await;
    let neighbour = FakeSdk::register(&mine, "neighbour", &["id"], &["id"]).await;
    let stranger = FakeSdk::register(&theirs, "stranger", &["id"], &["id"]).await;
    let mut socket = victim.connect().await;
    let plan = Plan::new().task("task1", &victim.id, json!({"id": "v"}));
    let run = mine.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;

    for forger in [&neighbour, &stranger] {
        let mut forging = forger.connect().await;
        // The victim's service id, execution id and key, all of them right.
        let forged = socket.result(&asked, json!({"id": "forged"}));
        forging.send_acked(&forged).await;
        let forged = socket.answer(
            &asked,
            "task_abort_result",
            json!({"result": {"task": null}}),
        );
        forging.send_acked(&forged).await;
    }
    assert_eq!(run.inspect().await.status(), "processing");
    socket.complete(&asked, json!({"id": "mine"})).await;
    assert_eq!(run.completes().await.result(), &json!({"id": "mine"}));
}

#[tokio::test]
async fn a_nine_megabyte_result_of_a_revertible_service_is_undone_with_its_data() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut reserve = service("reserve", &["id"], &["id"]);
    reserve["revertible"] = json!(true);
    let reserve = FakeSdk::register_as(&project, &reserve).await;
    let mut socket = reserve.connect().await;
    let plan = Plan::new()
        .task("task1", &reserve.id, json!({"id": "r"}))
        .task("task2", &reserve.id, json!({"id": "s"}));
    let run = project.submit(&Action::planned(plan)).await;
    let asked = socket.request().await;
    let data = json!({"originalTask": {"id": "r"}, "taskResult": {"id": "x".repeat(9_000_000)}});
    socket
        .complete_revertibly(&asked, json!({"id": "r"}), data.clone(), 60_000)
        .await;
    let asked = socket.request().await;
    socket.abort(&asked, Value::Null).await;

    let undo = socket.request().await;
    assert!(undo.0["input"] == data, "the data comes back whole");
    socket.reverted(&undo, json!({"status": "completed"})).await;
    run.aborts().await;
}

#[tokio::test]
async fn a_new_project_brings_its_webhooks_but_not_its_keys() {
    let engine = Engine::start().await;
    let (status, refusal) = engine
        .post("/register/project", &json!({"webhooks": ["no address"]}))
        .await;
    assert_eq!(status, 400, "{refusal}");
    let planted = "sk-orra-v1-0000000000000000000000000000000000000000000000000000000000000000";
    let body = json!({"webhooks": ["http://127.0.0.1:9/hook"], "additionalAPIKeys": [planted]});
    let (status, project) = engine.post("/register/project", &body).await;
    assert_eq!(status, 201, "{project}");
    assert_eq!(project["webhooks"], json!(["http://127.0.0.1:9/hook"]));
    let request = engine
        .http
        .get(format!("{}/orchestrations", engine.url()))
        .bearer_auth(planted);
    assert_eq!(
        read(request).await.0,
        400,
        "a key that a caller chose is no key"
    );
}

fn id_like(value: &Value, member: &str, prefix: &str, digits: usize) -> bool {
    value[member]
        .as_str()
        .is_some_and(|id| id.starts_with(prefix) && id.len() == prefix.len() + digits)
}
