//! Many submissions at once, and the same submission twice.
#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use futures_util::future::join_all;
use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::FakeSdk;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use orchestrion_tests::py_service::PyService;
use serde_json::json;

#[tokio::test]
async fn sixty_four_at_once_each_get_their_own_result() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let _echo = PyService::start(&project, "echo", &[]).await;

    let submissions = (0..64).map(|number| {
        let action = Action::new("Echo the message").data("message", format!("message {number}"));
        let project = project.clone();
        async move { project.submit(&action).await }
    });
    let runs = join_all(submissions).await;

    for (number, run) in runs.iter().enumerate() {
        assert_eq!(
            run.completes().await.result(),
            &json!({"echo": format!("message {number}")})
        );
    }
    assert_eq!(
        runs.iter().map(|run| &run.id).collect::<HashSet<_>>().len(),
        64
    );
}

#[tokio::test]
async fn parameters_keep_their_type_and_are_not_overwritten_by_the_plan() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let order = FakeSdk::register_as(
        &project,
        &json!({
            "name": "order", "description": "Orders", "revertible": false,
            "schema": {
                "input": {"type": "object", "required": ["count", "lines", "gift", "message"], "properties": {
                    "count": {"type": "integer"},
                    "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
                    "gift": {"type": "boolean"},
                    "message": {"type": "string"},
                }},
                "output": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
            },
        }),
    )
    .await;
    let mut socket = order.connect().await;
    let input = json!({"count": "$task0.count", "lines": "$task0.lines", "gift": "$task0.gift", "message": "LITERAL"});
    let action = Action::planned(Plan::new().task("task1", &order.id, input))
        .data("count", 3)
        .data("lines", json!([{"sku": "pen"}]))
        .data("gift", true)
        .data("message", "USER");

    // A parameter that no task uses is a mistake of the plan.
    let (status, refusal) = project.try_submit(&action).await;
    assert_eq!(status, 400, "{refusal}");
    assert!(
        text(&refusal["error"], "message").contains("message"),
        "{refusal}"
    );

    let input = json!({"count": "$task0.count", "lines": "$task0.lines", "gift": "$task0.gift", "message": "$task0.message"});
    let run = project
        .submit(&action.with("plan", Plan::new().task("task1", &order.id, input)))
        .await;
    let asked = socket.request().await;
    assert_eq!(
        asked.0["input"],
        json!({"count": 3, "lines": [{"sku": "pen"}], "gift": true, "message": "USER"})
    );
    socket.complete(&asked, json!({"id": "o"})).await;
    run.completes().await;
}

#[tokio::test]
async fn a_repeated_idempotency_key_is_the_same_orchestration() {
    let mut engine = Engine::start().await;
    let (shop, other) = (Project::add(&engine).await, Project::add(&engine).await);
    let echo = PyService::start(&shop, "echo", &[]).await;
    let _of_other = PyService::start(&other, "echo", &[]).await;
    let action = Action::new("Echo the message")
        .data("message", "once")
        .idempotency_key("order 7");

    let at_once = join_all((0..8).map(|_| shop.submit(&action))).await;
    let ids: HashSet<&str> = at_once.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    at_once[0].completes().await;
    assert_eq!(
        shop.submit(&action).await.id,
        at_once[0].id,
        "also when it has ended"
    );
    engine.kill_and_restart().await;
    assert_eq!(
        shop.submit(&action).await.id,
        at_once[0].id,
        "also after a restart"
    );
    assert_eq!(echo.ids("executed"), ["once"]);

    let changed = Action::new("Echo the message")
        .data("message", "twice")
        .idempotency_key("order 7");
    let (status, refusal) = shop.try_submit(&changed).await;
    assert!((400..500).contains(&status), "{status} {refusal}");
    let message = text(&refusal["error"], "message").to_lowercase();
    assert!(
        message.contains("idempotency") && message.contains("key"),
        "{message}"
    );
    assert_eq!(shop.listed().await.len(), 1);

    let theirs = other.submit(&action).await;
    assert_ne!(
        theirs.id, at_once[0].id,
        "a key means something in its project only"
    );
    theirs.completes().await;
}

#[tokio::test]
async fn a_caller_who_prefers_to_wait_is_answered_with_the_end() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["message"]).await;
    let mut socket = echo.connect().await;
    let plan = Plan::new().constant("message", "hello").task(
        "task1",
        &echo.id,
        json!({"message": "$task0.message"}),
    );
    let action = Action::planned(plan);
    let submit = async |prefer: &str| {
        let request = project
            .submission(&action)
            .header("prefer", prefer.to_owned());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 202);
        answer.json::<serde_json::Value>().await.unwrap()
    };

    // Whoever does not wait long enough learns how it stands.
    let early = submit("respond-async, wait=0").await;
    assert_ne!(early["status"], "completed", "{early}");
    assert_eq!(early["results"], json!(null), "{early}");
    let asked = socket.request().await;
    socket.complete(&asked, json!({"message": "first"})).await;

    let serve = async {
        let asked = socket.request().await;
        socket.complete(&asked, json!({"message": "second"})).await;
    };
    let (end, ()) = tokio::join!(submit("wait=60"), serve);
    assert_eq!(end["status"], "completed", "{end}");
    assert_eq!(end["results"], json!([{"message": "second"}]), "{end}");
}
