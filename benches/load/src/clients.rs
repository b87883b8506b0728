//! Clients: one workflow over the Temporal API, one orchestration over HTTP, each waited for and checked.

use std::rc::Rc;
use std::time::Duration;

use hyper::body::Bytes;
use orchestrion_proto::temporal::api::common::v1::{Payloads, WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::HistoryEventFilterType;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
    StartWorkflowExecutionRequest, StartWorkflowExecutionResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::http::{Http, is_away};
use crate::loops::Client;
use crate::staff::{Kind, ResultShape};
use crate::temporal::{NAMESPACE, QUEUE, Temporal, json_payloads, payloads};
use crate::{Result, method};

/// An engine that is not there is asked again after so long.
const PAUSE: Duration = Duration::from_millis(5);

/// Starts workflows of one type and waits for their last event, whatever becomes of the engine meanwhile.
#[derive(Clone)]
pub struct Workflows {
    pub temporal: Temporal,
    pub kind: Kind,
}

impl Workflows {
    pub async fn start(&self, id: &str, text: &str) -> Result<String> {
        let start = StartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: id.to_owned(),
            workflow_type: Some(WorkflowType {
                name: self.kind.name.to_owned(),
            }),
            task_queue: Some(TaskQueue {
                name: QUEUE.to_owned(),
                ..Default::default()
            }),
            input: Some(payloads(text)),
            identity: "load".to_owned(),
            // The same for a repeat: the engine knows it again.
            request_id: id.to_owned(),
            ..Default::default()
        };
        let started: StartWorkflowExecutionResponse = self
            .temporal
            .insist(method!("StartWorkflowExecution"), start)
            .await?;
        Ok(started.run_id)
    }

    /// What a run came to.
    pub async fn result(&self, id: &str, run_id: String) -> Result<Payloads> {
        let mut get = GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.to_owned(),
            execution: Some(WorkflowExecution {
                workflow_id: id.to_owned(),
                run_id,
            }),
            wait_new_event: true,
            history_event_filter_type: HistoryEventFilterType::CloseEvent.into(),
            ..Default::default()
        };
        loop {
            let page: GetWorkflowExecutionHistoryResponse = self
                .temporal
                .insist(method!("GetWorkflowExecutionHistory"), get.clone())
                .await?;
            let last = page.history.unwrap_or_default().events.pop();
            match last.and_then(|event| event.attributes) {
                Some(Attributes::WorkflowExecutionCompletedEventAttributes(completed)) => {
                    return Ok(completed.result.unwrap_or_default());
                }
                Some(other) => {
                    return Err(format!("workflow {id} ended otherwise: {other:?}").into());
                }
                None => get.next_page_token = page.next_page_token,
            }
        }
    }
}

impl Client for Workflows {
    async fn once(&mut self, id: &str, text: &str) -> Result<()> {
        let run_id = self.start(id, text).await?;
        let result = self.result(id, run_id).await?;
        let expected = match self.kind.result {
            ResultShape::Texts(times) => json_payloads(format!(
                "[{}]",
                vec![format!("\"{text}\""); times].join(",")
            )),
            ResultShape::Text | ResultShape::TextAndLateness => payloads(text),
        };
        match result == expected {
            true => Ok(()),
            false => {
                Err(format!("workflow {id} has another result than {text}: {result:?}").into())
            }
        }
    }

    fn errors_of(clients: &[Self]) -> usize {
        // They share their connection, and its count.
        clients.first().map_or(0, |first| first.temporal.errors())
    }
}

/// The shape of a submitted plan.
#[derive(Clone, Copy)]
pub enum Shape {
    /// So many tasks, one after the other.
    Sequence(usize),
    /// So many at once.
    Parallel(usize),
    /// Two, and a third after both.
    Diamond,
}

/// Submits orchestrations with a plan over one connection, each answered with its end.
pub struct Orchestrations {
    http: Http,
    host: Rc<str>,
    key: Rc<str>,
    services: Rc<[String]>,
    shape: Shape,
    errors: usize,
}

#[derive(Deserialize)]
struct Ended {
    status: String,
    results: Option<Vec<Echo>>,
}

#[derive(Deserialize)]
struct Echo {
    text: String,
}

impl Orchestrations {
    /// So many clients, each with a connection of its own.
    pub async fn many(
        count: usize,
        host: &str,
        key: &Rc<str>,
        services: &Rc<[String]>,
        shape: Shape,
    ) -> Result<Vec<Self>> {
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push(Self::over(host, key, services, shape).await?);
        }
        Ok(clients)
    }

    async fn over(
        host: &str,
        key: &Rc<str>,
        services: &Rc<[String]>,
        shape: Shape,
    ) -> Result<Self> {
        Ok(Self {
            http: Http::connect(host).await?,
            host: host.into(),
            key: key.clone(),
            services: services.clone(),
            shape,
            errors: 0,
        })
    }

    fn plan(&self, text: &str) -> (Value, usize) {
        let service = |number: usize| &self.services[number % self.services.len()];
        let task = |number: usize, input: Value| json!({"id": format!("task{number}"), "service": service(number), "input": input});
        let constants = json!({"id": "task0", "input": {"text": text}});
        let of = |number: usize| json!({"text": format!("$task{number}.text")});
        let (tasks, results): (Vec<Value>, usize) = match self.shape {
            Shape::Sequence(steps) => ((1..=steps).map(|n| task(n, of(n - 1))).collect(), 1),
            Shape::Parallel(steps) => ((1..=steps).map(|n| task(n, of(0))).collect(), steps),
            Shape::Diamond => {
                let mut last = task(3, of(1));
                last["input"]["other"] = json!("$task2.text");
                (vec![task(1, of(0)), task(2, of(0)), last], 1)
            }
        };
        let tasks: Vec<Value> = std::iter::once(constants).chain(tasks).collect();
        (json!({"tasks": tasks}), results)
    }

    /// The end of one orchestration; asked for again under the same key, over a new connection, while the engine is away.
    async fn submit(&mut self, id: &str, body: String) -> Result<Bytes> {
        let body = Bytes::from(body);
        loop {
            let answer = self.http.submit(&self.key, id, body.clone()).await;
            match answer {
                Err(error) if is_away(&error) => self.errors += 1,
                answer => return answer,
            }
            loop {
                tokio::time::sleep(PAUSE).await;
                match Http::connect(&self.host).await {
                    Ok(http) => break self.http = http,
                    Err(_) => self.errors += 1,
                }
            }
        }
    }
}

impl Client for Orchestrations {
    async fn once(&mut self, id: &str, text: &str) -> Result<()> {
        let (plan, results) = self.plan(text);
        let body = json!({"action": {"content": id}, "plan": plan}).to_string();
        let bytes = self.submit(id, body).await?;
        let wrong = || {
            let said = String::from_utf8_lossy(&bytes);
            format!("orchestration {id} ended otherwise: {said}")
        };
        let ended: Ended = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let found = ended.results.unwrap_or_default();
        let right = ended.status == "completed"
            && found.len() == results
            && found.iter().all(|result| result.text == text);
        if right { Ok(()) } else { Err(wrong().into()) }
    }

    fn errors_of(clients: &[Self]) -> usize {
        clients.iter().map(|client| client.errors).sum()
    }
}
