//! What every test here uses: a stage with a client, and the check of a history.
//!
//! A history is checked event by event against the order that is written down, then for what holds of every history. The SDK itself replays
//! all of them when the tests are over.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::future::LocalBoxFuture;
use temporalio_client::{
    Client, HistoryEventFilterType, WorkflowFetchHistoryOptions, WorkflowHandle, WorkflowHistory,
    WorkflowStartOptions,
};
use temporalio_common::HasWorkflowDefinition;
use temporalio_common::protos::temporal::api::history::v1::{
    HistoryEvent, history_event::Attributes,
};
use temporalio_sdk::workflow_replayer::WorkflowReplayer;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use uuid::Uuid;

use crate::activities::Activities;

const TEST_TIME_MAX: Duration = Duration::from_secs(60);
const EVENTUALLY_TIME_MAX: Duration = Duration::from_secs(20);
const TASK: [&str; 3] = [
    "WorkflowTaskScheduled",
    "WorkflowTaskStarted",
    "WorkflowTaskCompleted",
];

pub const STARTED: &str = "WorkflowExecutionStarted";
pub const DONE: &str = "WorkflowExecutionCompleted";

pub type Test<'a> = LocalBoxFuture<'a, anyhow::Result<()>>;

/// The error of a test, if it has one.
pub async fn one(test: Test<'_>) -> Option<String> {
    match tokio::time::timeout(TEST_TIME_MAX, test).await {
        Err(_) => Some(format!("not over after {TEST_TIME_MAX:?}")),
        Ok(Err(error)) => Some(format!("{error:?}")),
        Ok(Ok(())) => None,
    }
}

/// `EVENT_TYPE_WORKFLOW_TASK_STARTED` as `WorkflowTaskStarted`.
pub fn name_of(event: &HistoryEvent) -> String {
    let name = event.event_type().as_str_name();
    let words = name.trim_start_matches("EVENT_TYPE_").split('_');
    words
        .map(|word| format!("{}{}", &word[..1], word[1..].to_lowercase()))
        .collect()
}

pub fn attributes(event: &HistoryEvent) -> &Attributes {
    event
        .attributes
        .as_ref()
        .expect("every event has attributes")
}

/// The names of the events, a workflow task that went well as `task`.
pub fn shape(events: &[HistoryEvent]) -> Vec<String> {
    let names: Vec<String> = events.iter().map(name_of).collect();
    let (mut short, mut at) = (Vec::new(), 0);
    while at < names.len() {
        let task = names.len() >= at + 3 && names[at..at + 3] == TASK;
        short.push(if task {
            "task".to_owned()
        } else {
            names[at].clone()
        });
        at += if task { 3 } else { 1 };
    }
    short
}

fn check_sound(events: &[HistoryEvent]) -> anyhow::Result<()> {
    for (index, event) in events.iter().enumerate() {
        let (id, name) = (index as i64 + 1, name_of(event));
        ensure!(
            event.event_id == id,
            "event {id} {name} has the id {}",
            event.event_id
        );
        ensure!(event.event_time.is_some(), "{id} {name} has no time");
        ensure!((name == STARTED) == (id == 1), "{name} is event {id}");
        let closes = name.starts_with("WorkflowExecution")
            && [
                "Completed",
                "Failed",
                "TimedOut",
                "Canceled",
                "Terminated",
                "ContinuedAsNew",
            ]
            .iter()
            .any(|end| name == format!("WorkflowExecution{end}"));
        ensure!(
            !closes || index + 1 == events.len(),
            "{name} is followed by {:?}",
            shape(&events[index + 1..])
        );
    }
    Ok(())
}

/// A client, and what was seen over it.
pub struct Stage {
    pub client: Client,
    pub queue: String,
    pub activities: Activities,
    /// Histories to replay, by test.
    seen: Mutex<Vec<(String, WorkflowHistory)>>,
}

impl Stage {
    pub fn new(client: Client, queue: String, activities: Activities) -> Self {
        Self {
            client,
            queue,
            activities,
            seen: Mutex::default(),
        }
    }

    pub fn id(&self) -> String {
        format!("w-{}", Uuid::new_v4())
    }

    /// Options of a start on the stage's queue.
    pub fn options(&self) -> WorkflowStartOptions {
        WorkflowStartOptions::new(self.queue.clone(), self.id()).build()
    }

    pub async fn start<W>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> anyhow::Result<WorkflowHandle<Client, W>>
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        Ok(self
            .client
            .start_workflow(workflow, input, self.options())
            .await?)
    }

    pub async fn run<W>(
        &self,
        workflow: W,
        input: W::Input,
    ) -> anyhow::Result<(WorkflowHandle<Client, W>, W::Output)>
    where
        W: HasWorkflowDefinition,
        W::Input: Send,
    {
        let handle = self.start(workflow, input).await?;
        let result = handle.get_result(Default::default()).await?;
        Ok((handle, result))
    }

    pub async fn events<W: HasWorkflowDefinition>(
        &self,
        handle: &WorkflowHandle<Client, W>,
    ) -> anyhow::Result<Vec<HistoryEvent>> {
        Ok(history_of(handle).into_events().await?)
    }

    /// The events of a run, after all checks; its replay comes at the end of all tests.
    pub async fn check<W: HasWorkflowDefinition>(
        &self,
        test: &str,
        handle: &WorkflowHandle<Client, W>,
        expected: Option<&[&str]>,
    ) -> anyhow::Result<Vec<HistoryEvent>> {
        let events = self.events(handle).await?;
        check_sound(&events)?;
        if let Some(expected) = expected {
            ensure!(
                shape(&events) == expected,
                "the history is\n  {:?}\nexpected\n  {expected:?}",
                shape(&events)
            );
        }
        self.seen
            .lock()
            .unwrap()
            .push((test.to_owned(), history_of(handle)));
        Ok(events)
    }

    /// What the SDK's replayer finds wrong, by test.
    pub async fn replay_all(&self) -> anyhow::Result<Vec<(String, String)>> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        let replayer = WorkflowReplayer::new(crate::replayer_options()?)?;
        let (tests, histories): (Vec<String>, Vec<WorkflowHistory>) = seen.into_iter().unzip();
        let results = replayer.replay_workflows(histories).await?;
        ensure!(results.len() == tests.len(), "each history is replayed");
        let failed = tests.into_iter().zip(results).filter_map(|(test, result)| {
            let failure = result.replay_failure?;
            Some((
                test,
                format!("{failure} of {:?}", shape(result.history.events())),
            ))
        });
        Ok(failed.collect())
    }

    /// Waits until `ask` answers something.
    pub async fn eventually<T>(
        &self,
        what: &str,
        mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            if begun.elapsed() > EVENTUALLY_TIME_MAX {
                bail!("never: {what}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until a run's history holds so many events of that name.
    pub async fn until<W: HasWorkflowDefinition>(
        &self,
        handle: &WorkflowHandle<Client, W>,
        name: &str,
        count: usize,
    ) -> anyhow::Result<()> {
        self.eventually(name, async || {
            let found = shape(&self.events(handle).await?)
                .iter()
                .filter(|found| *found == name)
                .count();
            Ok((found >= count).then_some(()))
        })
        .await
    }

    /// Kills the server as a power cut would, and waits until it is back.
    pub async fn kill(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::json!({ "ask": "kill" }));
        let mut answer = String::new();
        BufReader::new(tokio::io::stdin())
            .read_line(&mut answer)
            .await?;
        ensure!(answer.trim() == "back", "the answer to kill is {answer:?}");
        Ok(())
    }
}

/// All events, read when they are asked for.
fn history_of<W: HasWorkflowDefinition>(handle: &WorkflowHandle<Client, W>) -> WorkflowHistory {
    handle.fetch_history(
        WorkflowFetchHistoryOptions::builder()
            .event_filter_type(HistoryEventFilterType::AllEvent)
            .build(),
    )
}

/// The attributes of the first event of that name.
pub fn first<'a>(events: &'a [HistoryEvent], name: &str) -> anyhow::Result<&'a Attributes> {
    let found = events.iter().find(|event| name_of(event) == name);
    Ok(attributes(found.with_context(|| {
        format!("no {name} in {:?}", shape(events))
    })?))
}
