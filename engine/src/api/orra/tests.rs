//! The routes over a real engine on the memory store, asked by a real HTTP client.

use std::sync::Arc;

use axum::http::StatusCode;
use metrics_exporter_prometheus::PrometheusBuilder;
use orchestrion_history::store::{MemoryStore, Store};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{Admission, Api, ApiParts, OpenSockets, Pulse, SMALL_BODY_BYTES_MAX, router};
use crate::api::v1::Durations;
use crate::audit::sign::AuditKey;
use crate::backup::Backups;
use crate::compensations::Compensations;
use crate::config::Settings;
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::grounding::Matcher;
use crate::orchestration::desk::Desk;
use crate::planner::Planner;
use crate::planner::builtin::BuiltinPlanner;
use crate::registry::ids::KeyDigest;
use crate::registry::{Registrar, Registry};
use crate::seams::{self, SystemChance, SystemClock};

/// As `dev` has them: webhooks on this machine are told.
fn open_settings() -> Settings {
    let mut settings = Settings::default();
    settings.outbox.allow_private = true;
    settings
}

struct Server {
    url: String,
    http: reqwest::Client,
    store: Arc<dyn Store>,
    engine: Option<Engine>,
    _stop: watch::Sender<bool>,
}

impl Server {
    async fn start(admission: Admission) -> Self {
        Self::on(Arc::new(MemoryStore::new()), admission).await
    }

    async fn on(store: Arc<dyn Store>, admission: Admission) -> Self {
        let registry = Registry::load(&*store).unwrap();
        let clock: Arc<SystemClock> = Arc::default();
        let engine = Engine::start(
            store.clone(),
            clock.clone(),
            Box::new(SystemChance),
            Box::new(NoSurroundings),
            EngineOptions::default(),
        )
        .unwrap();
        let (stop, stopped) = watch::channel(false);
        let handle = engine.handle();
        let settings = open_settings();
        let (services, groundings) = (registry.clone(), registry.clone());
        let registrar = Registrar::new(
            registry,
            handle.clone(),
            Arc::new(SystemChance),
            clock.clone(),
        );
        let compensations =
            Compensations::new(handle.clone(), registrar.clone(), clock.clone(), &settings);
        let desk = Desk {
            planner: Planner::Builtin(BuiltinPlanner),
            services: Box::new(move |namespace| services.services(namespace)),
            groundings: Box::new(move |namespace| groundings.groundings(namespace)),
            matcher: Matcher::default(),
            cache: None,
        };
        let api = Api::new(ApiParts {
            registrar,
            compensations,
            handle,
            settings,
            clock,
            ids: Arc::new(SystemChance),
            admission,
            stop: stopped,
            sockets: OpenSockets::default(),
            metrics: PrometheusBuilder::new().build_recorder().handle(),
            pulse: Pulse::default(),
            desk: Arc::new(desk),
            durations: Durations::default(),
            audit_key: AuditKey::from_seed([7; 32]),
            backups: Backups::none(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        seams::spawn(async move { axum::serve(listener, router(api)).await });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            url,
            http,
            store,
            engine: Some(engine),
            _stop: stop,
        }
    }

    async fn restart(mut self) -> Self {
        self.engine.take().unwrap().stop();
        Self::on(self.store.clone(), Admission::Open).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/json");
        assert_eq!(answer.headers()["x-orra-planeengine-version"], "0.2.5");
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        assert!(body.ends_with('\n'), "{body}");
        (status, body)
    }

    async fn post(&self, path: &str, key: &str, body: &str) -> (u16, Value) {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .bearer_auth(key)
            .body(body.to_owned());
        let (status, body) = self.ask(request).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn get(&self, path: &str, key: &str) -> (u16, String) {
        self.ask(
            self.http
                .get(format!("{}{path}", self.url))
                .bearer_auth(key),
        )
        .await
    }

    async fn project(&self) -> (String, String) {
        let (status, project) = self.post("/register/project", "none", "{}").await;
        assert_eq!(status, 201, "{project}");
        let text = |member: &str| project[member].as_str().unwrap().to_owned();
        (text("id"), text("apiKey"))
    }
}

const SERVICE: &str = r#"{"name":"echo-service","description":"says it again","schema":{
    "input":{"type":"object","properties":{"message":{"type":"string"}},"required":["message"]},
    "output":{"type":"object","properties":{"echo":{"type":"string"}},"required":["echo"]}},"revertible":true}"#;

#[tokio::test]
async fn a_project_its_keys_and_webhooks() {
    let server = Server::start(Admission::Open).await;
    let body = r#"{"name":"shop","webhooks":["http://localhost:1/a"],"additionalAPIKeys":["sk-orra-v1-planted"]}"#;
    let (status, project) = server.post("/register/project", "none", body).await;
    assert_eq!(status, 201);
    let members: Vec<&str> = project
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "id",
        "name",
        "apiKey",
        "additionalAPIKeys",
        "webhooks",
        "compensationFailureWebhooks",
        "createdAt",
        "updatedAt",
        "webhookSecrets",
    ];
    assert_eq!(members, expected);
    assert_eq!(project["additionalAPIKeys"], Value::Null);
    assert_eq!(project["compensationFailureWebhooks"], Value::Null);
    assert_eq!(project["webhooks"], json!(["http://localhost:1/a"]));
    let key = project["apiKey"].as_str().unwrap();

    let (status, webhook) = server
        .post("/webhooks", key, r#"{"URL":"http://localhost:1/b"}"#)
        .await;
    assert_eq!(
        (status, &webhook["url"]),
        (201, &json!("http://localhost:1/b"))
    );
    assert!(webhook["secret"].as_str().unwrap().starts_with("whsec_"));
    let (status, error) = server
        .post(
            "/compensation-failure-webhooks",
            key,
            r#"{"url":"nowhere"}"#,
        )
        .await;
    assert_eq!(
        (status, &error["error"]["kind"]),
        (400, &json!("input validation error"))
    );
    assert_eq!(error["error"]["code"], "Orra:ProjectWebhookAdditionFailed");

    let (status, second) = server.post("/apikeys", key, "").await;
    assert_eq!(status, 201);
    let second = second["apiKey"].as_str().unwrap();
    for key in [key, second] {
        assert_eq!(
            server.get("/orchestrations", key).await,
            (200, "{}\n".to_owned())
        );
    }
    assert_eq!(
        server.get("/orchestrations", "sk-orra-v1-planted").await.0,
        400
    );
    assert_eq!(
        server.get("/compensation-failures", key).await,
        (200, "null\n".to_owned())
    );
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let (status, first) = server.post("/register/agent", &key, SERVICE).await;
    assert_eq!(
        (status, &first["version"], &first["status"]),
        (200, &json!(1), &json!("registered"))
    );
    let server = server.restart().await;
    let again = SERVICE.replacen('{', &format!("{{\"id\":{},", first["id"]), 1);
    let (status, second) = server.post("/register/agent", &key, &again).await;
    assert_eq!(
        (status, &second["version"], &second["id"]),
        (200, &json!(2), &first["id"])
    );
}

#[tokio::test]
async fn the_edge_refuses_as_orras_clients_know_it() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let error = |body: &Value, member: &str| {
        body["error"][member]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };

    let bare = server.http.post(format!("{}/apikeys", server.url));
    let (status, body) = server.ask(bare).await;
    assert_eq!(status, 403);
    assert_eq!(
        error(&serde_json::from_str(&body).unwrap(), "kind"),
        "unauthorized"
    );

    let (status, body) = server.post("/apikeys", "sk-orra-v1-unknown", "").await;
    assert_eq!(
        (status, error(&body, "kind").as_str()),
        (400, "invalid request error")
    );
    assert!(!error(&body, "message").contains("sk-orra-v1-unknown"));

    let (status, body) = server.post("/register/project", "", "{").await;
    assert_eq!(
        (status, error(&body, "code").as_str()),
        (400, "Orra:JSONMarshalingFail")
    );

    let unknown = SERVICE.replacen('{', "{\"id\":\"s_unknown\",", 1);
    let (status, body) = server.post("/register/service", &key, &unknown).await;
    assert_eq!(
        (status, error(&body, "kind").as_str()),
        (500, "unanticipated error")
    );
    assert!(error(&body, "message").contains("not found"));

    let (status, body) = server
        .get("/orchestrations/inspections/o_unknown", &key)
        .await;
    assert_eq!(status, 400);
    assert!(
        body.contains("\"item does not exist\"") && body.contains("Orra:UnknownOrchestration"),
        "{body}"
    );
    assert_eq!(
        server.get("/orchestrations/o_unknown/replay", &key).await.0,
        400
    );
    assert_eq!(
        server.get("/compensation-failures/c_unknown", &key).await.0,
        400
    );

    assert_eq!(
        server.get("/orchestrations/inspections/%FF", &key).await.0,
        400
    );
    assert_eq!(
        server.get("/ws?serviceId=%FF&apiKey=%FF", &key).await.0,
        403
    );

    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(SMALL_BODY_BYTES_MAX));
    assert_eq!(server.post("/register/project", "", &large).await.0, 413);
    let (status, body) = server.get("/ws?serviceId=s_unknown&apiKey=none", "").await;
    assert_eq!(
        (status, body.contains("unauthorized")),
        (403, true),
        "{body}"
    );
}

#[tokio::test]
async fn the_router_answers_as_gos_does() {
    let server = Server::start(Admission::Open).await;
    let ask = |method, path: &str| {
        server
            .http
            .request(method, format!("{}{path}", server.url))
            .send()
    };
    for path in ["/nowhere", "/orchestrations/", "/"] {
        let answer = ask(reqwest::Method::GET, path).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(
            !answer.headers().contains_key("x-orra-planeengine-version"),
            "{path}"
        );
        assert_eq!(answer.text().await.unwrap(), "404 page not found\n");
    }
    let answer = ask(reqwest::Method::DELETE, "/orchestrations")
        .await
        .unwrap();
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert!(!answer.headers().contains_key("x-orra-planeengine-version"));
    assert_eq!(answer.text().await.unwrap(), "");
    assert_eq!(server.get("/health", "").await, (200, "{}\n".to_owned()));
    assert_eq!(
        ask(reqwest::Method::GET, "/metrics")
            .await
            .unwrap()
            .status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn projects_take_the_admin_key_where_there_is_one() {
    let server = Server::start(Admission::Key(KeyDigest::of("admin"))).await;
    assert_eq!(server.post("/register/project", "guess", "{}").await.0, 403);
    assert_eq!(server.post("/register/project", "admin", "{}").await.0, 201);
}

#[tokio::test]
async fn an_own_plan_starts_or_leaves_no_trace() {
    let server = Server::start(Admission::Open).await;
    let (project, key) = server.project().await;
    let (_, service) = server.post("/register/service", &key, SERVICE).await;
    let submission = |input: Value| {
        let task = json!({"id": "task1", "service": service["id"], "input": input});
        json!({"action": {"Content": "echo"}, "data": null, "timeout": "45s", "plan": {"tasks": [task]}}).to_string()
    };

    let (status, refusal) = server
        .post("/orchestrations", &key, &submission(json!({"msg": "x"})))
        .await;
    assert_eq!(status, 400);
    assert!(
        refusal["error"]["message"]
            .as_str()
            .unwrap()
            .contains("msg"),
        "{refusal}"
    );
    assert_eq!(server.get("/orchestrations", &key).await.1, "{}\n");

    let (status, accepted) = server
        .post(
            "/orchestrations",
            &key,
            &submission(json!({"message": "x"})),
        )
        .await;
    assert_eq!(status, 202, "{accepted}");
    let members: Vec<&str> = accepted
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let expected = [
        "id",
        "projectID",
        "action",
        "data",
        "plan",
        "results",
        "status",
        "timestamp",
        "timeout",
        "taskZero",
    ];
    assert_eq!(members, expected);
    assert_eq!(accepted["projectID"], project);
    assert_eq!(accepted["action"], json!({"type": "", "content": "echo"}));
    assert_eq!(
        (&accepted["data"], &accepted["results"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(
        (&accepted["status"], &accepted["timeout"]),
        (&json!("pending"), &json!("45s"))
    );
    let task = &accepted["plan"]["tasks"][0];
    assert_eq!(task["service_name"], "echo-service");
    assert_eq!(task["capabilities"], json!(["says it again"]));
    assert_eq!(
        task["expected_input"]["properties"]["message"]["type"],
        "string"
    );
    assert_eq!(accepted["plan"]["parallel_groups"], json!([["task1"]]));

    let id = accepted["id"].as_str().unwrap();
    let (status, inspection) = server
        .get(&format!("/orchestrations/inspections/{id}"), &key)
        .await;
    assert_eq!(status, 200);
    let inspection: Value = serde_json::from_str(&inspection).unwrap();
    assert_eq!(
        (&inspection["id"], &inspection["status"]),
        (&accepted["id"], &json!("processing"))
    );
    let (_, listing) = server.get("/orchestrations", &key).await;
    let listing: Value = serde_json::from_str(&listing).unwrap();
    assert_eq!(listing["processing"][0]["action"], "echo");

    let (status, replay) = server
        .get(&format!("/orchestrations/{id}/replay"), &key)
        .await;
    assert_eq!(status, 200);
    let replay: Value = serde_json::from_str(&replay).unwrap();
    assert_eq!(
        (&replay["verified"], &replay["difference"]),
        (&json!(true), &Value::Null),
        "{replay}"
    );
    assert_eq!(replay["records"][0]["type"], "WorkflowExecutionStarted");
    assert_eq!(replay["state"]["activities"][0]["id"], "task1");
    let (_, part) = server
        .get(&format!("/orchestrations/{id}/replay?until=1"), &key)
        .await;
    let part: Value = serde_json::from_str(&part).unwrap();
    assert_eq!(
        (&part["until"], part["records"].as_array().unwrap().len()),
        (&json!(1), 1)
    );
    assert_eq!(
        (&part["verified"], &part["state"]["records"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(
        server
            .get(&format!("/orchestrations/{id}/replay?until=x"), &key)
            .await
            .0,
        400
    );

    let (_, other) = server.project().await;
    assert_eq!(
        server
            .get(&format!("/orchestrations/inspections/{id}"), &other)
            .await
            .0,
        400
    );
    assert_eq!(
        server
            .get(&format!("/orchestrations/{id}/replay"), &other)
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn an_idempotency_key_is_for_one_submission() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let (_, service) = server.post("/register/service", &key, SERVICE).await;
    let submit = async |message: &str, idempotency: &str| {
        let task = json!({"id": "task1", "service": service["id"], "input": {"message": message}});
        let body = json!({"action": {"content": "echo"}, "plan": {"tasks": [task]}}).to_string();
        let request = server
            .http
            .post(format!("{}/orchestrations", server.url))
            .bearer_auth(&key);
        let (status, body) = server
            .ask(request.header("Idempotency-Key", idempotency).body(body))
            .await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let (status, first) = submit("a", "k1").await;
    assert_eq!(status, 202, "{first}");
    let (status, second) = submit("a", "k1").await;
    assert_eq!(
        (status, &second["id"], &second["status"]),
        (202, &first["id"], &json!("processing"))
    );
    let (status, reused) = submit("b", "k1").await;
    assert_eq!(status, 400);
    assert_eq!(reused["error"]["param"], "Idempotency-Key");
    let (_, other) = submit("b", "k2").await;
    assert_ne!(other["id"], first["id"]);
    assert_eq!(submit("a", " ").await.0, 400);
}

impl Server {
    async fn delete(&self, path: &str, key: &str) -> (u16, String) {
        let request = self.http.delete(format!("{}{path}", self.url));
        let answer = request.bearer_auth(key).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    async fn list(&self, path: &str, key: &str) -> Vec<Value> {
        let (status, body) = self.get(path, key).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }
}

#[tokio::test]
async fn keys_are_named_listed_and_revoked() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let (_, stranger) = server.project().await;
    let (status, made) = server
        .post("/apikeys", &key, r#"{"Name":"services"}"#)
        .await;
    assert_eq!((status, &made["name"]), (201, &json!("services")));
    let second = made["apiKey"].as_str().unwrap();
    let listed = server.list("/apikeys", second).await;
    let told: Vec<_> = listed
        .iter()
        .map(|key| (key["name"].as_str().unwrap(), key["current"].as_bool()))
        .collect();
    assert_eq!(told, [("first key", Some(false)), ("services", Some(true))]);
    assert!(!format!("{listed:?}").contains("sk-orra"), "{listed:?}");

    let id = made["id"].as_str().unwrap();
    let path = format!("/apikeys/{id}");
    let (status, body) = server.delete(&path, &stranger).await;
    assert_eq!(status, 400, "another project's key is unknown: {body}");
    assert!(body.contains("item does not exist"), "{body}");
    assert_eq!(server.delete(&path, &key).await, (204, String::new()));
    let (status, body) = server.get("/apikeys", second).await;
    assert_eq!(status, 400, "{body}");
    let last = listed[0]["id"].as_str().unwrap();
    let (status, body) = server.delete(&format!("/apikeys/{last}"), &key).await;
    assert_eq!(status, 400);
    assert!(body.contains("last key"), "{body}");
}

#[tokio::test]
async fn webhooks_are_listed_rotated_and_removed() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let (_, stranger) = server.project().await;
    let url = r#"{"url":"http://localhost:3000/hook"}"#;
    let (_, made) = server.post("/webhooks", &key, url).await;
    let (_, other) = server
        .post("/compensation-failure-webhooks", &key, url)
        .await;
    let id = |of: &Value| of["id"].as_str().unwrap().to_owned();
    let listed = server.list("/webhooks", &key).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(id(&listed[0]), id(&made));
    assert!(!format!("{listed:?}").contains("whsec_"), "{listed:?}");
    let listed = server.list("/compensation-failure-webhooks", &key).await;
    assert_eq!(id(&listed[0]), id(&other));
    assert_eq!(server.list("/webhooks", &stranger).await, [] as [Value; 0]);

    let path = format!("/webhooks/{}/rotate", id(&made));
    assert_eq!(server.post(&path, &stranger, "").await.0, 400);
    let (status, refused) = server.post(&path, &key, r#"{"overlap":"long"}"#).await;
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("overlap"))
    );
    let (status, rotated) = server.post(&path, &key, r#"{"overlap":"1h"}"#).await;
    assert_eq!(status, 200, "{rotated}");
    assert_ne!(rotated["secret"], made["secret"]);
    let listed = server.list("/webhooks", &key).await;
    assert_eq!(
        listed[0]["previousSecretUntil"],
        rotated["previousSecretUntil"]
    );

    let (status, signer) = server.post("/submission-webhook-secret", &key, "").await;
    assert_eq!(status, 200, "{signer}");
    assert!(signer["secret"].as_str().unwrap().starts_with("whsec_"));
    let topics: Vec<_> = server
        .list("/webhooks", &key)
        .await
        .iter()
        .map(|webhook| webhook["topic"].clone())
        .collect();
    assert_eq!(topics, ["orchestration", "submission"]);

    for webhook in [&made, &other] {
        let path = format!("/webhooks/{}", id(webhook));
        assert_eq!(server.delete(&path, &stranger).await.0, 400);
        assert_eq!(server.delete(&path, &key).await, (204, String::new()));
        assert_eq!(server.delete(&path, &key).await.0, 400, "it is gone");
    }
    assert!(
        server
            .list("/compensation-failure-webhooks", &key)
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn services_are_listed_with_their_health_and_deleted() {
    let server = Server::start(Admission::Open).await;
    let (_, key) = server.project().await;
    let (_, stranger) = server.project().await;
    let (_, made) = server.post("/register/agent", &key, SERVICE).await;
    let listed = server.list("/services", &key).await;
    assert_eq!(listed.len(), 1);
    let service = &listed[0];
    assert_eq!(service["id"], made["id"]);
    assert_eq!(
        (&service["kind"], &service["healthy"], &service["sessions"]),
        (&json!("agent"), &json!(false), &json!(0))
    );
    assert_eq!(service.get("absentSince"), None, "it never connected");
    let path = format!("/services/{}", made["id"].as_str().unwrap());
    let (status, shown) = server.get(&path, &key).await;
    assert_eq!(status, 200);
    assert!(shown.contains(r#""schema":{"input":"#), "{shown}");
    assert_eq!(server.get(&path, &stranger).await.0, 400);
    assert_eq!(server.delete(&path, &stranger).await.0, 400);
    assert_eq!(server.delete(&path, &key).await, (204, String::new()));
    assert!(server.list("/services", &key).await.is_empty());
}

/// What orra's command line 0.2.6 sends, byte for byte, and what it decodes of the answers: by these names and of these types.
#[tokio::test]
async fn the_bodies_of_orras_command_line() {
    let server = Server::start(Admission::Open).await;
    let add = r#"{"name":"shop","createdAt":"2025-03-04T11:00:00.123456789Z"}"#;
    let (status, project) = server.post("/register/project", "", add).await;
    assert_eq!(status, 201);
    for member in ["id", "name", "apiKey", "createdAt", "updatedAt"] {
        assert!(project[member].is_string(), "{member} in {project}");
    }
    for member in [
        "additionalAPIKeys",
        "webhooks",
        "compensationFailureWebhooks",
    ] {
        assert_eq!(project[member], Value::Null, "{project}");
    }
    let key = project["apiKey"].as_str().unwrap();

    let (status, made) = server.post("/apikeys", key, "").await;
    assert_eq!(status, 201);
    assert!(made["apiKey"].as_str().unwrap().starts_with("sk-orra-v1-"));
    for route in ["/webhooks", "/compensation-failure-webhooks"] {
        let body = r#"{"url":"http://localhost:8888/webhook"}"#;
        let (status, added) = server.post(route, key, body).await;
        assert_eq!(status, 201);
        assert_eq!(added["url"], "http://localhost:8888/webhook");
    }
    let (status, none) = server.get("/compensation-failures", key).await;
    assert_eq!((status, none.as_str()), (200, "null\n"));
    let (status, none) = server.get("/orchestrations", key).await;
    assert_eq!((status, none.as_str()), (200, "{}\n"));

    // A record as the engine writes it, and the decisions as the command line sends them.
    let namespace = orchestrion_history::ids::Namespace::parse(project["id"].as_str().unwrap());
    let record = orchestrion_proto::v1::CompensationFailure {
        id: "c_1".into(),
        orchestration_id: "o_1".into(),
        task_id: "task1".into(),
        service_id: "s_a".into(),
        service_name: "inventory".into(),
        data_json: "{}".into(),
        context_json: r#"{"orchestrationId":"o_1","reason":"failed","payload":null,"timestamp":"2025-03-04T11:00:00Z"}"#.into(),
        status: "failed".into(),
        attempts_made: 10,
        max_attempts: 10,
        at: 1_700_000_000_000_000_000,
        ..Default::default()
    };
    let op = orchestrion_history::store::Op::Put(
        orchestrion_history::store::Key::Compensation {
            shard: orchestrion_history::ids::ShardId::REGISTRY,
            namespace: namespace.unwrap(),
            id: "c_1".into(),
        },
        orchestrion_proto::prost::Message::encode_to_vec(&record).into(),
    );
    let engine = server.engine.as_ref().unwrap();
    engine.handle().put(vec![op]).await.unwrap();
    let listed = server.list("/compensation-failures", key).await;
    for one in &listed {
        for member in [
            "id",
            "projectId",
            "orchestrationId",
            "taskId",
            "serviceId",
            "serviceName",
            "status",
            "resolutionState",
            "timestamp",
            "resolvedAt",
        ] {
            assert!(one[member].is_string(), "{member} in {one}");
        }
        assert!(one["attemptsMade"].is_i64() && one["maxAttempts"].is_i64());
        assert!(one["compensationData"]["ttl"].is_i64());
    }
    assert_eq!(listed.len(), 1);
    for (verb, state) in [
        ("resolve", "resolved"),
        ("ignore", "ignored"),
        ("resolve", "resolved"),
    ] {
        let path = format!("/compensation-failures/c_1/{verb}");
        let (status, decided) = server.post(&path, key, r#"{"reason":"by hand"}"#).await;
        assert_eq!(status, 200, "{decided}");
        assert_eq!(
            (&decided["resolutionState"], &decided["resolution"]),
            (&json!(state), &json!("by hand"))
        );
        assert_ne!(decided["resolvedAt"], "0001-01-01T00:00:00Z");
        assert_eq!(server.post(&path, key, "").await.0, 400, "a body is needed");
    }
    let unknown = "/compensation-failures/c_none/resolve";
    let (status, refused) = server.post(unknown, key, r#"{"reason":"x"}"#).await;
    assert_eq!(
        (status, &refused["error"]["kind"]),
        (400, &json!("item does not exist"))
    );
}
