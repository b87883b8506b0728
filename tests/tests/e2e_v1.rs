//! Our own REST API as a program uses it: submissions, pages, events, cancels, dry runs, and what is refused.
#![allow(clippy::unwrap_used)]

use orchestrion_tests::engine::Engine;
use orchestrion_tests::fake_sdk::{FakeSdk, FakeSocket};
use orchestrion_tests::project::{Project, text};
use orchestrion_tests::wait::until;
use orchestrion_tests::webhooks::WebhookReceiver;
use reqwest::Method;
use serde_json::{Value, json};

/// An engine, a project, and a service `echo` that answers when a test says so.
struct Desk {
    engine: Engine,
    project: Project,
    echo: FakeSdk,
    socket: FakeSocket,
}

impl Desk {
    async fn set() -> Self {
        let engine = Engine::start().await;
        let project = Project::add(&engine).await;
        let mut service = orchestrion_tests::fake_sdk::service("echo", &["text"], &["text"]);
        service["revertible"] = json!(true);
        let echo = FakeSdk::register_as(&project, &service).await;
        let socket = echo.connect().await;
        Self {
            engine,
            project,
            echo,
            socket,
        }
    }

    /// Two steps, the second of which needs the first.
    fn chain(&self) -> Value {
        json!({"action": {"content": "Say it twice"}, "data": [{"field": "word", "value": "hello"}], "plan": {"steps": [
            {"id": "first", "component": "echo", "input": {"text": "{{request.data.word}}"}},
            {"id": "second", "component": self.echo.id, "input": {"text": "{{first.output.text}}, again"}},
        ]}})
    }

    async fn submit(&self, body: &Value) -> String {
        let (status, answer) = self.project.post("/v1/orchestrations", body).await;
        assert_eq!(status, 202, "{answer}");
        text(&answer, "executionId")
    }

    async fn show(&self, id: &str) -> Value {
        self.project.get(&format!("/v1/orchestrations/{id}")).await
    }

    /// Answers the next request as an echo, revertibly.
    async fn answer(&mut self) {
        let asked = self.socket.request().await;
        let output = json!({"text": asked.0["input"]["text"]});
        self.socket
            .complete_revertibly(&asked, output, json!({"undo": 1}), 86_400_000)
            .await;
    }

    async fn ended(&self, id: &str) -> Value {
        until("the orchestration to close", || async {
            let shown = self.show(id).await;
            (shown["closed"] == true).then_some(shown)
        })
        .await
    }
}

#[tokio::test]
async fn a_plan_of_steps_runs_and_its_result_is_fetched() {
    let mut desk = Desk::set().await;
    let (status, accepted) = desk.project.post("/v1/orchestrations", &desk.chain()).await;
    assert_eq!(status, 202, "{accepted}");
    assert_eq!(accepted["status"], "ACCEPTED");
    let steps = &accepted["plan"]["steps"];
    assert_eq!(steps[0]["input"], json!({"text": "hello"}));
    assert_eq!(steps[1]["component"], "echo");
    assert_eq!(steps[1]["dependencies"], json!(["first"]));
    assert_eq!(
        accepted["plan"]["parallelExecutionGroups"],
        json!([["first"], ["second"]])
    );
    assert_eq!(accepted["estimatedCompletionTime"], Value::Null);
    let id = text(&accepted, "executionId");

    desk.answer().await;
    desk.answer().await;
    let ended = desk.ended(&id).await;
    assert_eq!(ended["status"], "COMPLETED");
    assert_eq!(ended["result"], json!({"text": "hello, again"}));
    assert_eq!(ended["stepResults"][0]["output"], json!({"text": "hello"}));
    for member in ["startTime", "endTime"] {
        assert!(ended[member].is_string() && ended["stepResults"][1][member].is_string());
    }

    // Now there is something to judge by.
    let (status, planned) = desk.project.post("/v1/plans", &desk.chain()).await;
    assert_eq!(status, 200, "{planned}");
    assert!(planned["estimatedDurationMs"].is_number(), "{planned}");
    assert_eq!(planned["planner"], "submitted");
    assert_eq!(
        desk.project.listed().await.len(),
        1,
        "a dry run starts nothing"
    );
}

#[tokio::test]
async fn a_repeated_key_finds_the_same_orchestration_and_another_body_is_refused() {
    let desk = Desk::set().await;
    let send = |body: Value| {
        let request = desk.project.request(Method::POST, "/v1/orchestrations");
        orchestrion_tests::engine::read(request.header("Idempotency-Key", "k-1").json(&body))
    };
    let (_, first) = send(desk.chain()).await;
    let (status, again) = send(desk.chain()).await;
    assert_eq!(status, 202, "{again}");
    assert_eq!(first["executionId"], again["executionId"]);
    let mut other = desk.chain();
    other["action"]["content"] = json!("Say something else");
    let (status, problem) = send(other).await;
    assert_eq!(
        (status, &problem["code"]),
        (422, &json!("idempotency_key_reused")),
        "{problem}"
    );
}

#[tokio::test]
async fn what_is_refused_is_a_problem_and_leaves_no_trace() {
    let desk = Desk::set().await;
    for (body, status, code) in [
        (
            json!({"action": {"content": "x"}, "unknown": 1}),
            400,
            "invalid_request",
        ),
        (
            json!({"action": {"content": "x"}, "timeout": "soon"}),
            400,
            "invalid_request",
        ),
        (
            json!({"action": {"content": "x"}, "plan": {"steps": [{"id": "a", "component": "nobody"}]}}),
            422,
            "plan_refused",
        ),
        (
            json!({"action": {"content": "x"}, "plan": {"steps": [
                {"id": "a", "component": "echo", "input": {"text": "{{b.output.text}}"}}]}}),
            422,
            "plan_refused",
        ),
        (
            json!({"action": {"content": "x"}, "plan": {"steps": [
                {"id": "a", "component": "echo", "input": {"text": "x"}, "dependencies": ["z"]}]}}),
            422,
            "plan_refused",
        ),
    ] {
        let (got, problem) = desk.project.post("/v1/orchestrations", &body).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{problem}");
        assert!(
            problem["type"]
                .as_str()
                .unwrap()
                .starts_with("urn:orchestrion:problem:")
        );
    }
    assert_eq!(desk.project.listed().await, []);
    let stranger = Project::add(&desk.engine).await;
    let id = desk.submit(&desk.chain()).await;
    for path in ["", "/records", "/events"] {
        let path = format!("/v1/orchestrations/{id}{path}");
        let (status, problem) = stranger.call(Method::GET, &path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (404, &json!("not_found")),
            "{path}"
        );
    }
    let cancel = format!("/v1/orchestrations/{id}/cancel");
    assert_eq!(stranger.post(&cancel, &json!({})).await.0, 404);
    let (status, problem) = desk
        .project
        .with_key("sk-orra-v1-nobody")
        .call(Method::GET, "/v1/services", None)
        .await;
    assert_eq!((status, &problem["code"]), (401, &json!("unauthorized")));
    let (status, problem) = desk.project.call(Method::GET, "/v1/nothing", None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("not_found")));
    let (status, problem) = desk.project.call(Method::PUT, "/v1/services", None).await;
    assert_eq!(
        (status, &problem["code"]),
        (405, &json!("method_not_allowed"))
    );
}

#[tokio::test]
async fn a_cancel_has_its_own_status_and_undoes_or_keeps_as_it_is_told() {
    let mut desk = Desk::set().await;
    let receiver = WebhookReceiver::start().await;
    desk.project.add_webhook(&receiver.url).await;
    for compensate in [true, false] {
        let id = desk.submit(&desk.chain()).await;
        desk.answer().await;
        let second = desk.socket.request().await;
        let cancel = format!("/v1/orchestrations/{id}/cancel");
        let body = json!({"reason": "changed my mind", "compensate": compensate});
        let (status, answer) = desk.project.post(&cancel, &body).await;
        assert_eq!(
            (status, &answer["status"]),
            (202, &json!("CANCELLED")),
            "{answer}"
        );
        desk.socket.fail(&second, "stopped").await;
        if compensate {
            let revert = desk.socket.request().await;
            assert_eq!(revert.0["type"], "compensation_request");
            assert_eq!(revert.0["compensationContext"]["reason"], "aborted");
            desk.socket
                .reverted(&revert, json!({"status": "completed"}))
                .await;
        }
        let ended = desk.ended(&id).await;
        assert_eq!(ended["status"], "CANCELLED");
        assert_eq!(ended["abort"]["reason"], "canceled: changed my mind");
        let undone = if compensate { 1 } else { 0 };
        assert_eq!(ended["compensation"]["completed"], undone, "{ended}");
        let told = receiver.accepted(&id).await;
        assert_eq!(told.header("x-orra-event"), "orchestration.cancelled");
        assert!(
            desk.project
                .listed()
                .await
                .contains(&(id.clone(), "cancelled".to_owned()))
        );
        let (status, problem) = desk.project.post(&cancel, &body).await;
        assert_eq!((status, &problem["code"]), (409, &json!("conflict")));
    }
}

#[tokio::test]
async fn events_are_followed_over_a_kill_from_where_the_reader_was() {
    let mut desk = Desk::set().await;
    let id = desk.submit(&desk.chain()).await;
    let path = format!("/v1/orchestrations/{id}/events");
    let asked = desk.socket.request().await;
    let now = read_events(&desk.project, &format!("{path}?once=true"), None).await;
    let last = now[now.len() - 2].0.clone();
    assert!(now.iter().any(|(_, _, data)| data["type"] == "ActivityAttemptStarted" && data["step"] == "first"));
    assert_eq!(now[now.len() - 1].1, "end");
    drop(asked);

    desk.engine.kill_and_restart().await;
    desk.socket = desk.echo.connect().await;
    let following = {
        let (project, path, last) = (desk.project.clone(), path.clone(), last.clone());
        tokio::spawn(async move { read_events(&project, &path, Some(&last)).await })
    };
    desk.answer().await;
    desk.answer().await;
    let rest = following.await.unwrap();
    assert_eq!(rest[rest.len() - 1].2["status"], "COMPLETED");
    let all = read_events(&desk.project, &path, None).await;
    let joined: Vec<_> = now[..now.len() - 1].iter().chain(&rest).collect();
    assert_eq!(
        joined,
        all.iter().collect::<Vec<_>>(),
        "nothing missed, nothing twice"
    );

    let mut paged = Vec::new();
    let mut after = json!(0);
    while !after.is_null() {
        let page = desk
            .project
            .get(&format!(
                "/v1/orchestrations/{id}/records?limit=3&after={after}"
            ))
            .await;
        paged.extend(page["items"].as_array().unwrap().clone());
        after = page["nextAfter"].clone();
    }
    let streamed: Vec<Value> = all[..all.len() - 1]
        .iter()
        .map(|event| event.2.clone())
        .collect();
    assert_eq!(paged, streamed);
}

/// Id, kind and data of every event of a stream that ends.
async fn read_events(
    project: &Project,
    path: &str,
    last: Option<&str>,
) -> Vec<(String, String, Value)> {
    let mut request = project.request(Method::GET, path);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let answer = request.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let body = answer.text().await.unwrap();
    let mut events = Vec::new();
    for block in body.split("\n\n").filter(|block| block.contains("data: ")) {
        let field = |name: &str| {
            let line = block.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_else(|| panic!("{name} in {block}"))
                .to_owned()
        };
        events.push((
            field("id: "),
            field("event: "),
            serde_json::from_str(&field("data: ")).unwrap(),
        ));
    }
    events
}

#[tokio::test]
async fn a_list_is_filtered_and_paged_newest_first() {
    let mut desk = Desk::set().await;
    let mut ids = Vec::new();
    for number in 0..5 {
        let mut body = desk.chain();
        body["action"]["content"] = json!(format!("Errand {number}"));
        ids.push(desk.submit(&body).await);
    }
    desk.answer().await;
    let mut listed = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = desk
            .project
            .get(&format!("/v1/orchestrations?limit=2{cursor}"))
            .await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        listed.extend(items.iter().map(|item| text(item, "executionId")));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ids.reverse();
    assert_eq!(listed, ids);
    let one = desk
        .project
        .get("/v1/orchestrations?action=eRRAND%203")
        .await;
    assert_eq!(one["items"][0]["executionId"], ids[1]);
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    let from = text(&one["items"][0], "startTime");
    let since = desk
        .project
        .get(&format!("/v1/orchestrations?startedAfter={from}"))
        .await;
    assert_eq!(since["items"].as_array().unwrap().len(), 2);
    let before = desk
        .project
        .get(&format!("/v1/orchestrations?startedBefore={from}"))
        .await;
    assert_eq!(before["items"].as_array().unwrap().len(), 3);
    let none = desk
        .project
        .get("/v1/orchestrations?status=COMPLETED")
        .await;
    assert_eq!(none["items"], json!([]));
    for wrong in [
        "limit=0",
        "limit=many",
        "cursor=x",
        "status=done",
        "startedAfter=monday",
        "surprise=1",
    ] {
        let path = format!("/v1/orchestrations?{wrong}");
        let (status, problem) = desk.project.call(Method::GET, &path, None).await;
        assert_eq!(
            (status, &problem["code"]),
            (400, &json!("invalid_request")),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_project_lists_its_services_and_webhooks_and_makes_keys() {
    let desk = Desk::set().await;
    // Its socket is open; the engine counts it a moment later.
    let services = until("the service to be connected", || async {
        let services = desk.project.get("/v1/services").await;
        (services["items"][0]["connected"] == 1).then_some(services)
    })
    .await;
    assert_eq!(services["items"][0]["id"], desk.echo.id);
    let service = desk
        .project
        .get(&format!("/v1/services/{}", desk.echo.id))
        .await;
    assert_eq!(service, services["items"][0]);
    let (status, key) = desk.project.post("/v1/keys", &json!({})).await;
    assert_eq!(status, 201);
    let other = desk.project.with_key(&text(&key, "apiKey"));
    assert_eq!(other.get("/v1/services").await, services);
    let hook = json!({"url": "http://127.0.0.1:9/hook"});
    let (status, made) = desk.project.post("/v1/webhooks", &hook).await;
    assert_eq!(status, 201, "{made}");
    assert!(text(&made, "secret").starts_with("whsec_"));
    let listed = desk.project.get("/v1/webhooks").await;
    assert_eq!(listed["items"][0]["id"], made["id"]);
    assert_eq!(
        text(&listed["items"][0], "createdAt"),
        text(&made, "createdAt")
    );
    assert!(listed["items"][0].get("secret").is_none());
    let (status, _) = desk
        .project
        .post("/v1/webhooks", &json!({"url": "ftp://x"}))
        .await;
    assert_eq!(status, 422);
    let document = desk.project.get("/v1/openapi.json").await;
    assert_eq!(document["openapi"], "3.1.0");
    assert!(
        document["paths"]["/v1/orchestrations"].is_object(),
        "{document}"
    );
}
