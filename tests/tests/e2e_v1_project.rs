//! What a project has, over our own REST API: groundings, the plan cache, compensations that failed, deliveries, services and keys.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::{Engine, Launch};
use orchestrion_tests::fake_llm::{Answer, FakeLlm};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use orchestrion_tests::py_service::PyService;
use orchestrion_tests::wait::until;
use orchestrion_tests::webhooks::WebhookReceiver;
use reqwest::Method;
use serde_json::{Value, json};

async fn delete(project: &Project, path: &str) -> (u16, Value) {
    project.call(Method::DELETE, path, None).await
}

fn code(problem: &(u16, Value)) -> (u16, &str) {
    (problem.0, problem.1["code"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn groundings_are_applied_replaced_refused_and_removed() {
    let engine = Engine::start().await;
    let (project, stranger) = (Project::add(&engine).await, Project::add(&engine).await);
    let grounding = |version: &str, constraint: &str| {
        json!({
            "name": "refunds", "domain": "e-commerce", "version": version, "constraints": [constraint, "Be kind"],
            "useCases": [{"action": "Refund order {id}", "params": {"id": "A-1"}, "capabilities": ["refunds"], "intent": "money back"}],
        })
    };
    let rule = "rule: check before refund";

    let (status, applied) = project.post("/v1/groundings", &grounding("1", rule)).await;
    assert_eq!(status, 201, "{applied}");
    assert_eq!(applied["enforced"], json!(["check before refund"]));
    assert_eq!(applied["notEnforced"], json!(["Be kind"]));
    let again = project.post("/v1/groundings", &grounding("1", rule)).await;
    assert_eq!(code(&again), (409, "conflict"), "{again:?}");
    let unclear = grounding("2", "rule: be nice to everybody");
    let refused = project.post("/v1/groundings", &unclear).await;
    assert_eq!(code(&refused), (422, "grounding_refused"));
    assert_eq!(refused.1["param"], "constraints");
    let listed = project.get("/v1/groundings").await;
    assert_eq!(listed["items"], json!([applied]));
    assert_eq!(
        stranger.get("/v1/groundings").await["items"],
        json!([]),
        "another project's"
    );

    let (status, newer) = project.post("/v1/groundings", &grounding("2", rule)).await;
    assert_eq!((status, &newer["revision"]), (201, &json!(2)));
    assert_ne!(newer["digest"], applied["digest"]);
    let elsewhere = delete(&stranger, "/v1/groundings/refunds").await;
    assert_eq!(code(&elsewhere), (404, "not_found"));
    assert_eq!(delete(&project, "/v1/groundings/refunds").await.0, 204);
    assert_eq!(project.get("/v1/groundings").await["items"], json!([]));
    let gone = delete(&project, "/v1/groundings/refunds").await;
    assert_eq!(code(&gone), (404, "not_found"));
}

#[tokio::test]
async fn kept_plans_are_listed_and_forgotten() {
    let llm = FakeLlm::start().await;
    let engine = llm.plans_for(Launch::dev()).start().await;
    let project = Project::add(&engine).await;
    let services = PyService::steps(&project, &["first"]).await;
    let plan = || {
        let step = json!({"id": "$task0.order"});
        Answer::plan(Plan::new().task("task1", &services.id("first"), step))
    };
    llm.answers([plan()]);
    let action = Action::new("Do the first step for the order").data("order", "o-1");
    project.submit(&action).await.completes().await;

    let kept = project.get("/v1/plan-cache").await;
    assert_eq!(kept["items"].as_array().unwrap().len(), 1, "{kept}");
    assert_eq!(kept["items"][0]["steps"], 1);
    assert_eq!(
        kept["items"][0]["action"],
        "Do the first step for the order"
    );
    assert_eq!(
        delete(&project, "/v1/plan-cache").await,
        (200, json!({"cleared": 1}))
    );
    let kept = project.get("/v1/plan-cache").await;
    assert_eq!((&kept["off"], &kept["items"]), (&json!(false), &json!([])));
}

#[tokio::test]
async fn what_could_not_be_undone_is_paged_decided_and_run_again() {
    let engine = Engine::start().await;
    let (project, stranger) = (Project::add(&engine).await, Project::add(&engine).await);
    let services = PyService::steps(&project, &["reserve+revert", "stop"]).await;
    let mut runs = Vec::new();
    for (name, revert_as) in [("one", "raise"), ("two", "failed"), ("three", "expired")] {
        let step = json!({"id": name, "revert_as": revert_as});
        let stop =
            json!({"id": format!("stop-{name}"), "after": ["$task1.id"], "abort_with": "no"});
        let plan = Plan::new()
            .task("task1", &services.id("reserve"), step)
            .task("task2", &services.id("stop"), stop);
        let run = project.submit(&Action::planned(plan)).await;
        run.aborts().await;
        runs.push(run.id);
        project.compensation_failures(runs.len()).await;
    }

    let mut seen = Vec::new();
    let mut path = "/v1/compensation-failures?limit=2".to_owned();
    loop {
        let page = project.get(&path).await;
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|item| text(item, "executionId")));
        match page["nextCursor"].as_str() {
            Some(cursor) => path = format!("/v1/compensation-failures?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    runs.reverse();
    assert_eq!(seen, runs, "newest first, each once");

    let of = |run: &str| format!("/v1/compensation-failures?executionId={run}");
    let only = project.get(&of(&runs[2])).await;
    let one = &only["items"][0];
    assert_eq!(only["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&one["step"], &one["status"]),
        (&json!("task1"), &json!("failed"))
    );
    assert_eq!(one["data"]["originalTask"]["id"], "one");
    assert_eq!(one["context"]["reason"], "aborted");
    assert_eq!(
        (&one["resolution"], &one["resolvedAt"]),
        (&json!("pending"), &Value::Null)
    );
    let path = format!("/v1/compensation-failures/{}", text(one, "id"));
    assert_eq!(&project.get(&path).await, one);
    let foreign = stranger.call(Method::GET, &path, None).await;
    assert_eq!(code(&foreign), (404, "not_found"));

    let (status, ignored) = project
        .post(
            &format!("{path}/ignore"),
            &json!({"reason": "a test order"}),
        )
        .await;
    assert_eq!((status, &ignored["resolution"]), (200, &json!("ignored")));
    let pending = project
        .get("/v1/compensation-failures?resolution=pending")
        .await;
    assert_eq!(pending["items"].as_array().unwrap().len(), 2);
    let wrong = project
        .call(
            Method::GET,
            "/v1/compensation-failures?resolution=maybe",
            None,
        )
        .await;
    assert_eq!(code(&wrong), (400, "invalid_request"));
    let wrong = project
        .call(Method::GET, "/v1/compensation-failures?cursor=x", None)
        .await;
    assert_eq!(code(&wrong), (400, "invalid_request"));

    // It fails again, and that stands in the record.
    let (status, asked) = project.post(&format!("{path}/retry"), &json!({})).await;
    assert_eq!(
        (status, &asked["retries"][0]["status"]),
        (202, &json!("processing"))
    );
    let tried = until("the revert to have been run again", || async {
        let shown = project.get(&path).await;
        shown["retries"][0]["endedAt"].is_string().then_some(shown)
    })
    .await;
    assert_eq!(tried["retries"][0]["status"], "failed");
    let (status, resolved) = project
        .post(&format!("{path}/resolve"), &json!({"reason": "by hand"}))
        .await;
    assert_eq!(
        (status, &resolved["resolutionReason"]),
        (200, &json!("by hand"))
    );
    let late = project.post(&format!("{path}/retry"), &json!({})).await;
    assert_eq!(code(&late), (409, "conflict"));
    let bare = project.post(&format!("{path}/resolve"), &json!({})).await;
    assert_eq!(code(&bare), (400, "invalid_request"));
}

#[tokio::test]
async fn deliveries_show_each_try() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let receiver = WebhookReceiver::failing_first(2).await;
    let hook = project.add_webhook(&receiver.url).await;
    let services = PyService::steps(&project, &["first"]).await;
    let plan = Plan::new().task("task1", &services.id("first"), json!({"id": "a"}));
    let run = project.submit(&Action::planned(plan)).await;
    receiver.accepted(&run.id).await;

    let path = format!("/v1/webhooks/{}/deliveries", text(&hook, "id"));
    let shown = until("the try that worked to be on record", || async {
        let shown = project.get(&path).await;
        (shown["items"][0]["delivered"] == true).then_some(shown)
    })
    .await;
    let items = shown["items"].as_array().unwrap();
    let tries: Vec<_> = items
        .iter()
        .map(|item| {
            (
                item["attempt"].as_i64().unwrap(),
                item["status"].as_i64().unwrap(),
            )
        })
        .collect();
    assert_eq!(tries, [(3, 200), (2, 503), (1, 503)]);
    let events: Vec<_> = items.iter().map(|item| &item["eventId"]).collect();
    assert!(events.iter().all(|id| *id == events[0]), "{events:?}");
    let unknown = project
        .call(Method::GET, "/v1/webhooks/w_none/deliveries", None)
        .await;
    assert_eq!(code(&unknown), (404, "not_found"));
}

#[tokio::test]
async fn a_revoked_key_and_a_deleted_service_are_gone_at_once() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let (status, made) = project.post("/v1/keys", &json!({"name": "worker"})).await;
    assert_eq!(status, 201, "{made}");
    let worker = project.with_key(&text(&made, "apiKey"));
    let services = PyService::steps(&worker, &["first"]).await;
    let service = format!("/v1/services/{}", services.id("first"));
    until("the service to be connected", || async {
        (project.get(&service).await["connected"] == 1).then_some(())
    })
    .await;

    let in_use = delete(&project, &service).await;
    assert_eq!(code(&in_use), (409, "conflict"), "{in_use:?}");
    let key = format!("/v1/keys/{}", text(&made, "id"));
    assert_eq!(delete(&project, &key).await.0, 204);
    let refused = worker.call(Method::GET, "/v1/services", None).await;
    assert_eq!(code(&refused), (401, "unauthorized"));
    until("the revoked key's socket to be closed", || async {
        (project.get(&service).await["connected"] == 0).then_some(())
    })
    .await;
    assert_eq!(delete(&project, &service).await.0, 204);
    let gone = project.call(Method::GET, &service, None).await;
    assert_eq!(code(&gone), (404, "not_found"));

    let keys = project.get("/v1/keys").await;
    let last = format!("/v1/keys/{}", text(&keys["items"][0], "id"));
    assert_eq!(code(&delete(&project, &last).await), (409, "conflict"));
}
