//! The edge: projects that never see each other, and refusals that change nothing and say what to do.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::{FakeSdk, FakeSocket, service};
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, text};
use reqwest::Method;
use serde_json::{Value, json};

const UNKNOWN: &str = "2222222222222222222222";

#[tokio::test]
async fn projects_never_see_each_other_and_foreign_is_as_unknown() {
    let engine = Engine::start().await;
    let (mine, theirs) = (Project::add(&engine).await, Project::add(&engine).await);
    let service = FakeSdk::register(&theirs, "echo", &["message"], &["echo"]).await;
    let plan = Plan::new().task("task1", &service.id, json!({"message": "secret"}));
    let run = theirs.submit(&Action::planned(plan.clone())).await;

    assert_eq!(mine.list().await, json!({}));
    let foreign = mine
        .call(
            Method::GET,
            &format!("/orchestrations/inspections/{}", run.id),
            None,
        )
        .await;
    let unknown = mine
        .call(
            Method::GET,
            &format!("/orchestrations/inspections/o_{UNKNOWN}"),
            None,
        )
        .await;
    assert_same(&foreign, &run.id, &unknown, &format!("o_{UNKNOWN}"));
    assert_eq!(foreign.0, 400);
    assert_eq!(foreign.1["error"]["kind"], "item does not exist");
    assert_eq!(foreign.1["error"]["code"], "Orra:UnknownOrchestration");

    let unknown_service = "s_aaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let plan_with = |id: &str| Plan::new().task("task1", id, json!({"message": "m"}));
    let foreign = mine
        .try_submit(&Action::planned(plan_with(&service.id)))
        .await;
    let unknown = mine
        .try_submit(&Action::planned(plan_with(unknown_service)))
        .await;
    assert_same(&foreign, &service.id, &unknown, unknown_service);

    let register_as = |id: &str| {
        let mut service = orchestrion_tests::fake_sdk::service("echo", &["message"], &["echo"]);
        service["id"] = json!(id);
        service
    };
    let foreign = mine
        .post("/register/service", &register_as(&service.id))
        .await;
    let unknown = mine
        .post("/register/service", &register_as(unknown_service))
        .await;
    assert_same(&foreign, &service.id, &unknown, unknown_service);
    assert!(foreign.0 >= 400);

    for id in [service.id.as_str(), unknown_service] {
        let url = format!(
            "{}/ws?serviceId={id}&apiKey={}",
            mine.url.replace("http", "ws"),
            mine.key
        );
        let refused = FakeSocket::open(&url)
            .await
            .expect_err("the socket is refused")
            .to_string();
        assert!(refused.contains("403"), "{refused}");
    }
    let url = format!(
        "{}/ws?serviceId={}&apiKey=sk-orra-v1-0",
        mine.url.replace("http", "ws"),
        service.id
    );
    assert!(
        FakeSocket::open(&url)
            .await
            .err()
            .unwrap()
            .to_string()
            .contains("403")
    );

    assert_eq!(theirs.listed().await.len(), 1);
    assert_eq!(mine.list().await, json!({}));
}

#[tokio::test]
async fn what_is_refused_leaves_no_trace_and_says_what_to_do() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let id = FakeSdk::register(&project, "echo", &["message"], &["echo"])
        .await
        .id;
    let count = FakeSdk::register_as(
        &project,
        &json!({"name": "count", "description": "Counts", "revertible": false, "schema": {
            "input": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
            "output": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
        }}),
    )
    .await
    .id;
    let with_plan = |plan: Value| json!({"action": {"content": "x"}, "plan": plan}).to_string();
    let tasks = |tasks: Value| with_plan(json!({"tasks": tasks}));
    let task = |task: &str, input: Value| json!({"id": task, "service": id, "input": input});
    let cases = [
        ("not JSON", "{\"action\":".to_owned(), ""),
        ("not an object", "[1,2]".to_owned(), ""),
        ("nothing", String::new(), ""),
        (
            "an action that is no object",
            json!({"action": "echo"}).to_string(),
            "action",
        ),
        (
            "data that is no list",
            json!({"action": {"content": "x"}, "data": 7}).to_string(),
            "data",
        ),
        (
            "a parameter twice",
            json!({"action": {"content": "x"}, "data": [
            {"field": "message", "value": 1}, {"field": "message", "value": 2}]})
            .to_string(),
            "message",
        ),
        (
            "no duration",
            json!({"action": {"content": "x"}, "timeout": "45 parsecs"}).to_string(),
            "45 parsecs",
        ),
        (
            "no grace",
            json!({"action": {"content": "x"}, "healthCheckGracePeriod": "soon"}).to_string(),
            "soon",
        ),
        ("a plan that is no object", with_plan(json!("plan")), "plan"),
        ("a plan without tasks", tasks(json!([])), "task"),
        (
            "an unknown service",
            tasks(json!([{"id": "task1", "service": "s_zzzz", "input": {"message": "m"}}])),
            "s_zzzz",
        ),
        (
            "an unknown input",
            tasks(json!([task("task1", json!({"message": "m", "volume": 9}))])),
            "volume",
        ),
        (
            "a missing input",
            tasks(json!([task("task1", json!({}))])),
            "message",
        ),
        (
            "an unknown task",
            tasks(json!([task("task1", json!({"message": "$task9.echo"}))])),
            "task9",
        ),
        (
            "an unknown field",
            tasks(json!([
                task("task1", json!({"message": "m"})),
                task("task2", json!({"message": "$task1.volume"}))
            ])),
            "volume",
        ),
        (
            "an unknown constant",
            tasks(json!([task("task1", json!({"message": "$task0.nothing"}))])),
            "nothing",
        ),
        (
            "a wrong type",
            tasks(json!([{"id": "task1", "service": count, "input": {"n": "three"}}])),
            "integer",
        ),
        (
            "a wrong type by reference",
            tasks(json!([
            task("task1", json!({"message": "m"})),
            {"id": "task2", "service": count, "input": {"n": "$task1.echo"}}])),
            "integer",
        ),
        (
            "a task twice",
            tasks(json!([
                task("task1", json!({"message": "m"})),
                task("task1", json!({"message": "m"}))
            ])),
            "task1",
        ),
        (
            "a cycle",
            tasks(json!([
                task("task1", json!({"message": "$task2.echo"})),
                task("task2", json!({"message": "$task1.echo"}))
            ])),
            "cycle",
        ),
    ];
    for (what, body, hint) in cases {
        let request = project.request(Method::POST, "/orchestrations").body(body);
        let (status, refusal) = orchestrion_tests::engine::read(request).await;
        assert_eq!(status, 400, "{what}: {refusal}");
        let message = text(&refusal["error"], "message");
        assert!(
            !message.is_empty() && message.contains(hint),
            "{what}: {message:?} should name {hint:?}"
        );
        assert_eq!(project.list().await, json!({}), "{what} leaves a trace");
    }
}

#[tokio::test]
async fn without_the_right_key_nothing_is_answered() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let routes = [
        (Method::GET, "/orchestrations"),
        (Method::POST, "/orchestrations"),
        (Method::POST, "/apikeys"),
        (Method::POST, "/webhooks"),
        (Method::POST, "/register/service"),
        (Method::GET, "/compensation-failures"),
    ];
    for (method, path) in routes {
        let url = format!("{}{path}", engine.url());
        let ask = |header: Option<String>| {
            let request = engine.http.request(method.clone(), &url).json(&json!({}));
            orchestrion_tests::engine::read(match header {
                Some(header) => request.header("Authorization", header),
                None => request,
            })
        };
        let malformed = [
            None,
            Some(format!("bearer {}", project.key)),
            Some(format!("Bearer  {}", project.key)),
            Some(format!("Basic {}", project.key)),
            Some(project.key.clone()),
        ];
        for header in malformed {
            let (status, body) = ask(header.clone()).await;
            assert_eq!(status, 403, "{path} {header:?}");
            assert!(!text(&body["error"], "message").is_empty(), "{body}");
        }
        let (status, body) = ask(Some("Bearer sk-orra-v1-unknown".to_owned())).await;
        assert_eq!(status, 400, "{path}: {body}");
        assert!(
            !text(&body["error"], "message").contains("sk-orra-v1-unknown"),
            "a key is not repeated: {body}"
        );
    }
    assert_eq!(project.list().await, json!({}));
}

#[tokio::test]
async fn a_service_that_cannot_be_used_is_not_registered() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let good = service("echo", &["message"], &["echo"]);
    let but = |path: &str, value: Value| {
        let mut service = good.clone();
        *service.pointer_mut(path).unwrap() = value;
        service
    };
    let cases = [
        ("/name", json!("No Spaces Please"), "name"),
        ("/name", json!("ab"), "name"),
        ("/description", json!(""), "description"),
        ("/schema/input", json!({"type": "string"}), "input"),
        ("/schema/input", Value::Null, "input"),
        ("/schema/output/type", json!("thing"), "output"),
        (
            "/schema/input/properties/message",
            json!({"$ref": "#/$defs/Nowhere"}),
            "Nowhere",
        ),
    ];
    for (path, value, hint) in cases {
        let (status, refusal) = project
            .post("/register/service", &but(path, value.clone()))
            .await;
        assert!(status >= 400, "{path} = {value}: {refusal}");
        let message = text(&refusal["error"], "message");
        assert!(message.contains(hint), "{path} = {value}: {message}");
    }
    // Nothing was registered: there is no service that a plan could use.
    let (status, _) = project
        .try_submit(&Action::new("Echo the message").data("message", "m"))
        .await;
    assert_eq!(status, 500, "without services an action cannot be executed");
}

#[tokio::test]
async fn a_webhook_needs_an_address() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    for url in ["", "not a url", "ftp://somewhere/else"] {
        for route in ["/webhooks", "/compensation-failure-webhooks"] {
            let (status, refusal) = project.post(route, &json!({"url": url})).await;
            assert_eq!(status, 400, "{url:?}: {refusal}");
            assert_eq!(refusal["error"]["kind"], "input validation error");
        }
    }
    let (status, refusal) = project.call(Method::GET, "/no/such/route", None).await;
    assert_eq!(status, 404, "{refusal}");
}

#[tokio::test]
async fn no_key_is_ever_logged() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let echo = FakeSdk::register(&project, "echo", &["message"], &["echo"]).await;
    let socket = echo.connect().await;
    let webhook = project
        .add_webhook("http://127.0.0.1:9/hook?token=very-secret")
        .await;
    project.post("/orchestrations", &json!({"action": 1})).await;
    socket.close().await;

    assert!(!engine.log().contains(&project.key));
    assert!(!engine.log().contains("very-secret"));
    let secret = webhook["secret"]
        .as_str()
        .expect("the secret is shown once, when the webhook is added");
    assert!(secret.starts_with("whsec_"), "{secret}");
    assert!(!engine.log().contains(secret));
}

fn assert_same(foreign: &(u16, Value), foreign_id: &str, unknown: &(u16, Value), unknown_id: &str) {
    assert_eq!(foreign.0, unknown.0);
    let told = |answer: &Value, id: &str| answer.to_string().replace(id, "<id>");
    assert_eq!(told(&foreign.1, foreign_id), told(&unknown.1, unknown_id));
}
