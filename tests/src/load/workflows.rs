//! Workflows of one activity, started under an id and a request id over Temporal's API, and run by a worker process on Temporal's Python SDK.
//!
//! An attempt whose answer is lost is timed out and tried again: an activity may run twice, but its outcome is recorded once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orchestrion_proto::temporal::api::common::v1::{
    Payload, Payloads, WorkflowExecution, WorkflowType,
};
use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowExecutionStatus};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
    ListWorkflowExecutionsRequest, ListWorkflowExecutionsResponse, StartWorkflowExecutionRequest,
    StartWorkflowExecutionResponse,
};
use tokio::task::JoinHandle;

use super::client::{Client, method};
use super::worker::Worker;
use super::{Caller, Ledger, Size, spawn, value};
use crate::wait::PAUSE;

const NAMESPACE: &str = "default";
const QUEUE: &str = "one-activity";
const WORKFLOW: &str = "OneActivity";
/// A workflow task whose answer is lost is another worker's after this; the activity's attempts say theirs in `one_activity.py`.
const WORKFLOW_TASK_WITHIN: Duration = Duration::from_secs(2);

const ENDS: [EventType; 6] = [
    EventType::WorkflowExecutionCompleted,
    EventType::WorkflowExecutionFailed,
    EventType::WorkflowExecutionTimedOut,
    EventType::WorkflowExecutionCanceled,
    EventType::WorkflowExecutionTerminated,
    EventType::WorkflowExecutionContinuedAsNew,
];

pub(super) struct Workflows {
    client: Client,
    padding: usize,
    callers: Vec<JoinHandle<()>>,
    pub(super) ledger: Arc<Ledger>,
    worker: Worker,
}

impl Workflows {
    pub(super) async fn start(address: String, size: Size) -> Self {
        let worker = Worker::start(&address, NAMESPACE, QUEUE, "one_activity").await;
        let ledger = Arc::default();
        let callers = (0..size.callers).map(|number| {
            let caller = Starter {
                client: Client::to(&address),
                padding: size.padding,
            };
            spawn(caller, number, &ledger)
        });
        Self {
            callers: callers.collect(),
            client: Client::to(&address),
            padding: size.padding,
            ledger,
            worker,
        }
    }

    /// How many there are and how often callers had to ask again, and how many attempts of their activities were lost.
    pub(super) async fn reckon(mut self, by: Instant) -> ((usize, usize), usize) {
        for caller in self.callers {
            caller.await.unwrap();
        }
        let mut attempts_lost = 0;
        let accepted = self.ledger.accepted();
        for (run_id, n) in &accepted {
            let history = whole_history(&mut self.client, (*n, run_id), by).await;
            attempts_lost += right(*n, &value(*n, self.padding), &history);
        }
        let listed = listed(&mut self.client).await;
        let wanted: Vec<(String, String)> = accepted
            .into_iter()
            .map(|(run_id, n)| (run_id, workflow_id(n)))
            .collect();
        assert_eq!(listed, wanted, "what is listed is not what was accepted");
        assert!(self.worker.still_runs(), "the worker came to an end");
        (self.ledger.counts(), attempts_lost)
    }
}

fn workflow_id(n: u64) -> String {
    format!("one-{n}")
}

/// As the SDKs write a string.
fn payload(text: &str) -> Payloads {
    let encoding = ("encoding".to_owned(), b"json/plain".to_vec());
    let payload = Payload {
        metadata: [encoding].into(),
        data: serde_json::to_vec(text).unwrap(),
        ..Default::default()
    };
    Payloads {
        payloads: vec![payload],
    }
}

/// The history of the workflow n holds one activity with one outcome, and its result. Answers how many attempts were lost before.
fn right(n: u64, value: &str, history: &[HistoryEvent]) -> usize {
    let mut kinds = Vec::new();
    let (mut done, mut result, mut attempt) = (None, None, 0);
    for (event, wanted_id) in history.iter().zip(1..) {
        assert_eq!(event.event_id, wanted_id, "an event id in {n}");
        match event.event_type() {
            // A worker that was cut off is waited for, and its task is another one's then.
            EventType::WorkflowTaskScheduled
            | EventType::WorkflowTaskStarted
            | EventType::WorkflowTaskCompleted
            | EventType::WorkflowTaskTimedOut => {}
            kind => kinds.push(kind),
        }
        match event.attributes.as_ref().expect("attributes") {
            Attributes::ActivityTaskStartedEventAttributes(started) => attempt = started.attempt,
            Attributes::ActivityTaskCompletedEventAttributes(completed) => {
                done.clone_from(&completed.result);
            }
            Attributes::WorkflowExecutionCompletedEventAttributes(completed) => {
                result.clone_from(&completed.result);
            }
            _ => {}
        }
    }
    let wanted = [
        EventType::WorkflowExecutionStarted,
        EventType::ActivityTaskScheduled,
        EventType::ActivityTaskStarted,
        EventType::ActivityTaskCompleted,
        EventType::WorkflowExecutionCompleted,
    ];
    assert_eq!(kinds, wanted, "the history of {n}: {history:#?}");
    assert_eq!(
        done,
        Some(payload(&format!("done {value}"))),
        "what the activity of {n} made"
    );
    assert_eq!(
        result,
        Some(payload(&format!("all of: done {value}"))),
        "the result of {n}"
    );
    usize::try_from(attempt).unwrap() - 1
}

struct Starter {
    client: Client,
    padding: usize,
}

impl Caller for Starter {
    async fn ask(&mut self, n: u64) -> Option<String> {
        let start = StartWorkflowExecutionRequest {
            namespace: NAMESPACE.to_owned(),
            workflow_id: workflow_id(n),
            workflow_type: Some(WorkflowType {
                name: WORKFLOW.to_owned(),
            }),
            task_queue: Some(TaskQueue {
                name: QUEUE.to_owned(),
                ..Default::default()
            }),
            input: Some(payload(&value(n, self.padding))),
            workflow_task_timeout: Some(WORKFLOW_TASK_WITHIN.try_into().unwrap()),
            identity: "load".to_owned(),
            request_id: format!("start {n}"),
            ..Default::default()
        };
        let started: StartWorkflowExecutionResponse = self
            .client
            .try_call(method!("StartWorkflowExecution"), start)
            .await?;
        Some(started.run_id)
    }
}

/// Of a run that comes to its end.
async fn whole_history(
    client: &mut Client,
    (n, run_id): (u64, &str),
    by: Instant,
) -> Vec<HistoryEvent> {
    let request = GetWorkflowExecutionHistoryRequest {
        namespace: NAMESPACE.to_owned(),
        execution: Some(WorkflowExecution {
            workflow_id: workflow_id(n),
            run_id: run_id.to_owned(),
        }),
        ..Default::default()
    };
    loop {
        let page: GetWorkflowExecutionHistoryResponse = client
            .call(method!("GetWorkflowExecutionHistory"), request.clone())
            .await;
        assert!(page.next_page_token.is_empty(), "{n} has a long history");
        let events = page.history.unwrap_or_default().events;
        let last = events.last().expect("an event").event_type();
        if ENDS.contains(&last) {
            return events;
        }
        assert!(Instant::now() < by, "{n} does not end: {events:#?}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Every run of the type that is listed, by run id: all have completed.
async fn listed(client: &mut Client) -> Vec<(String, String)> {
    let mut request = ListWorkflowExecutionsRequest {
        namespace: NAMESPACE.to_owned(),
        page_size: 500,
        query: format!("WorkflowType = '{WORKFLOW}'"),
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let page: ListWorkflowExecutionsResponse = client
            .call(method!("ListWorkflowExecutions"), request.clone())
            .await;
        for run in page.executions {
            assert_eq!(
                run.status(),
                WorkflowExecutionStatus::Completed,
                "as it is listed: {run:?}"
            );
            let execution = run.execution.expect("an execution");
            listed.push((execution.run_id, execution.workflow_id));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        request.next_page_token = page.next_page_token;
    }
    listed.sort_unstable();
    listed
}
