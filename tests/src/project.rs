//! A project of the engine, as a program that uses orra's HTTP API sees it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::engine::{Engine, read};
use crate::view::View;
use crate::wait::{PATIENCE, PAUSE, until};

/// One project and its key.
#[derive(Debug, Clone)]
pub struct Project {
    /// The engine's address.
    pub url: String,
    /// `p_…`
    pub id: String,
    /// `sk-orra-v1-…`
    pub key: String,
    http: reqwest::Client,
}

impl Project {
    /// Registers a project.
    pub async fn add(engine: &Engine) -> Self {
        let (status, project) = engine
            .post("/register/project", &json!({"name": "shop"}))
            .await;
        assert_eq!(status, 201, "{project}");
        Self::known(engine, &text(&project, "id"), &text(&project, "apiKey"))
    }

    /// A project that somebody else registered.
    pub fn known(engine: &Engine, id: &str, key: &str) -> Self {
        Self {
            url: engine.url(),
            id: id.to_owned(),
            key: key.to_owned(),
            http: engine.http.clone(),
        }
    }

    /// The same project through another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self {
            key: key.to_owned(),
            ..self.clone()
        }
    }

    /// Any route: status and body (null if it is empty).
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (u16, Value) {
        let request = self.request(method, path);
        read(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// A request to any route with this project's key.
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(&self.key)
    }

    /// GET, which must succeed.
    pub async fn get(&self, path: &str) -> Value {
        let (status, body) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// POST.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Results go to this address; the answer.
    pub async fn add_webhook(&self, url: &str) -> Value {
        let (status, body) = self.post("/webhooks", &json!({"url": url})).await;
        assert_eq!(status, 201, "{body}");
        body
    }

    /// News of failed compensations go to this address.
    pub async fn add_compensation_webhook(&self, url: &str) {
        let (status, body) = self
            .post("/compensation-failure-webhooks", &json!({"url": url}))
            .await;
        assert_eq!(status, 201, "{body}");
    }

    /// Registers a service; its id.
    pub async fn add_service(&self, service: &Value) -> String {
        let (status, body) = self.post("/register/service", service).await;
        assert_eq!(status, 200, "{body}");
        text(&body, "id")
    }

    /// Submits an action, which must be accepted.
    pub async fn submit(&self, action: &Action) -> Run {
        let (status, body) = self.try_submit(action).await;
        assert_eq!(status, 202, "{body}");
        self.run(&text(&body, "id"), body)
    }

    /// Submits an action.
    pub async fn try_submit(&self, action: &Action) -> (u16, Value) {
        read(self.submission(action)).await
    }

    /// Submits an action to an engine that dies before it answers.
    pub async fn request_lost(&self, action: &Action) {
        assert!(
            self.submission(action).send().await.is_err(),
            "the engine answered before it was killed"
        );
    }

    /// The request that submits an action.
    pub fn submission(&self, action: &Action) -> reqwest::RequestBuilder {
        let request = self
            .request(Method::POST, "/orchestrations")
            .json(&action.body);
        match &action.idempotency_key {
            Some(key) => request.header("Idempotency-Key", key),
            None => request,
        }
    }

    /// An orchestration by its id.
    pub fn run(&self, id: &str, accepted: Value) -> Run {
        Run {
            project: self.clone(),
            id: id.to_owned(),
            accepted,
        }
    }

    /// The listing.
    pub async fn list(&self) -> Value {
        self.get("/orchestrations").await
    }

    /// The listing, flat: id and status of each.
    pub async fn listed(&self) -> Vec<(String, String)> {
        let list = self.list().await;
        let groups = list.as_object().expect("the listing is an object").values();
        groups
            .flat_map(|group| group.as_array().unwrap())
            .map(|one| (text(one, "id"), text(one, "status")))
            .collect()
    }

    /// Waits until the listing holds one orchestration; its line.
    pub async fn only_listed(&self) -> (String, String) {
        until("one orchestration to be listed", || async {
            let mut listed = self.listed().await;
            assert!(listed.len() < 2, "{listed:?}");
            listed.pop()
        })
        .await
    }

    /// Waits until `count` compensations have failed; the records.
    pub async fn compensation_failures(&self, count: usize) -> Vec<Value> {
        until("a record of a failed compensation", || async {
            let records = self.get("/compensation-failures").await;
            records
                .as_array()
                .filter(|records| records.len() >= count)
                .cloned()
        })
        .await
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Action {
    body: Map<String, Value>,
    idempotency_key: Option<String>,
}

impl Action {
    /// In plain language: the planner decides what it takes.
    pub fn new(content: &str) -> Self {
        let body = json!({"action": {"type": "", "content": content}, "data": []});
        Self {
            body: body.as_object().unwrap().clone(),
            idempotency_key: None,
        }
    }

    /// With a plan of its own: no planner is asked.
    pub fn planned(plan: impl Into<Value>) -> Self {
        Self::new("follow the plan").with("plan", plan)
    }

    /// Adds a parameter.
    #[must_use]
    pub fn data(mut self, field: &str, value: impl Into<Value>) -> Self {
        let data = self
            .body
            .get_mut("data")
            .and_then(Value::as_array_mut)
            .unwrap();
        data.push(json!({"field": field, "value": value.into()}));
        self
    }

    /// The longest an attempt may take.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", format!("{}ms", timeout.as_millis()))
    }

    /// How long a service may be offline.
    #[must_use]
    pub fn grace(self, grace: Duration) -> Self {
        self.with("healthCheckGracePeriod", format!("{}ms", grace.as_millis()))
    }

    /// Any other member of the body.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.body.insert(member.to_owned(), value.into());
        self
    }

    /// Makes repeats of this submission safe.
    #[must_use]
    pub fn idempotency_key(mut self, key: &str) -> Self {
        self.idempotency_key = Some(key.to_owned());
        self
    }
}

/// An orchestration.
#[derive(Debug, Clone)]
pub struct Run {
    project: Project,
    /// `o_…`
    pub id: String,
    /// The body of the 202.
    pub accepted: Value,
}

impl Run {
    /// The inspection.
    pub async fn inspect(&self) -> View {
        View(
            self.project
                .get(&format!("/orchestrations/inspections/{}", self.id))
                .await,
        )
    }

    /// Waits until the inspection is as it should be.
    pub async fn until(&self, what: &str, so: impl Fn(&View) -> bool) -> View {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let view = self.inspect().await;
            if so(&view) {
                return view;
            }
            assert!(
                Instant::now() < deadline,
                "{} never {what}; its last inspection: {view:#?}",
                self.id
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until it has ended well.
    pub async fn completes(&self) -> View {
        self.ends_as("completed").await
    }

    /// Waits until it has failed and nothing is left to undo.
    pub async fn fails(&self) -> View {
        self.ends_as("failed").await
    }

    /// Waits until it is aborted and nothing is left to undo.
    pub async fn aborts(&self) -> View {
        self.ends_as("aborted").await
    }

    async fn ends_as(&self, status: &str) -> View {
        let view = self
            .until("ended", |view| view.has_ended() && view.is_settled())
            .await;
        assert_eq!(view.status(), status, "{view:#?}");
        view
    }
}

/// A text member.
pub fn text(value: &Value, member: &str) -> String {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("{member} is a text in {value}"))
        .to_owned()
}
