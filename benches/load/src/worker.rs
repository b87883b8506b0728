//! A thin worker over the Temporal API: workflow code as a few counters, activities that give back what they get.
//!
//! As an SDK does, it keeps runs cached (sticky queues), takes the next workflow task with the answer to the last, and starts its activities
//! with the answer that schedules them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use orchestrion_proto::prost_wkt_types::{Duration as WireDuration, Timestamp};
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::command::v1::{
    Command, CompleteWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    StartTimerCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{ActivityType, Payloads, WorkflowExecution};
use orchestrion_proto::temporal::api::enums::v1::{CommandType, TaskQueueKind};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as E;
use orchestrion_proto::temporal::api::taskqueue::v1::{StickyExecutionAttributes, TaskQueue};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    GetWorkflowExecutionHistoryRequest, GetWorkflowExecutionHistoryResponse,
    PollActivityTaskQueueRequest, PollActivityTaskQueueResponse, PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse, RespondActivityTaskCompletedRequest,
    RespondActivityTaskCompletedResponse, RespondWorkflowTaskCompletedRequest,
    RespondWorkflowTaskCompletedResponse,
};
use tokio::task::{LocalSet, spawn_local};

use crate::temporal::{NAMESPACE, QUEUE, Temporal, is_away, json_payloads};
use crate::{Result, method};

const IDENTITY: &str = "load-worker";
const STICKY_QUEUE: &str = "load-sticky";
/// Polls that wait at each of its queues.
const POLLS: usize = 64;
const PAUSE: Duration = Duration::from_millis(5);

#[derive(Args)]
pub struct Options {
    /// Where the engine is.
    url: String,
    /// How long an activity may take.
    #[arg(long, default_value_t = 30)]
    activity_seconds: i64,
}

/// What workflow code does, by the name of its type.
#[derive(Clone, Copy)]
enum Kind {
    /// So many activities, one after the other.
    Sequence(u32),
    /// So many at once, and all of them waited for.
    Parallel(u32),
    /// A timer of so many seconds.
    Sleep(i64),
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        let (what, number) = name.split_once('-')?;
        let number: u32 = number.parse().ok()?;
        Some(match what {
            "sequence" => Self::Sequence(number),
            "parallel" => Self::Parallel(number),
            "sleep" => Self::Sleep(number.into()),
            _ => return None,
        })
    }
}

/// A run as its workflow code sees it.
struct Run {
    kind: Kind,
    input: Option<Payloads>,
    last: Option<Payloads>,
    /// What each activity answered, as JSON; where all of them count.
    texts: Vec<String>,
    /// The id of the last event that it has seen.
    seen: i64,
    scheduled: u32,
    completed: u32,
    timer: Option<SystemTime>,
    fired: bool,
}

pub async fn run(options: Options) -> Result<()> {
    let worker = Rc::new(Worker {
        temporal: Temporal::to(&options.url)?,
        runs: RefCell::default(),
        activity_time: WireDuration {
            seconds: options.activity_seconds,
            nanos: 0,
        },
    });
    let local = LocalSet::new();
    local
        .run_until(async move {
            let mut polls = Vec::new();
            for _ in 0..POLLS {
                polls.push(spawn_local(worker.clone().poll_workflows(normal(QUEUE))));
                polls.push(spawn_local(worker.clone().poll_workflows(sticky())));
                polls.push(spawn_local(worker.clone().poll_activities()));
            }
            for poll in polls {
                poll.await??;
            }
            Ok(())
        })
        .await
}

fn normal(name: &str) -> TaskQueue {
    TaskQueue {
        name: name.to_owned(),
        kind: TaskQueueKind::Normal.into(),
        ..Default::default()
    }
}

fn sticky() -> TaskQueue {
    TaskQueue {
        name: STICKY_QUEUE.to_owned(),
        kind: TaskQueueKind::Sticky.into(),
        normal_name: QUEUE.to_owned(),
    }
}

struct Worker {
    temporal: Temporal,
    runs: RefCell<HashMap<String, Run>>,
    activity_time: WireDuration,
}

impl Worker {
    async fn poll_workflows(self: Rc<Self>, queue: TaskQueue) -> Result<()> {
        let poll = PollWorkflowTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(queue),
            identity: IDENTITY.to_owned(),
            ..Default::default()
        };
        loop {
            let polled = self
                .temporal
                .call(method!("PollWorkflowTaskQueue"), poll.clone())
                .await;
            let task: PollWorkflowTaskQueueResponse = match polled {
                Ok(task) => task,
                Err(status) if is_away(&status) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Err(status) => return Err(status.into()),
            };
            if !task.task_token.is_empty() {
                let worker = self.clone();
                spawn_local(async move { report(worker.take_turns(task).await) });
            }
        }
    }

    async fn poll_activities(self: Rc<Self>) -> Result<()> {
        let poll = PollActivityTaskQueueRequest {
            namespace: NAMESPACE.to_owned(),
            task_queue: Some(normal(QUEUE)),
            identity: IDENTITY.to_owned(),
            ..Default::default()
        };
        loop {
            let polled = self
                .temporal
                .call(method!("PollActivityTaskQueue"), poll.clone())
                .await;
            match polled {
                Ok(task) => self.start_activity(task),
                Err(status) if is_away(&status) => tokio::time::sleep(PAUSE).await,
                Err(status) => return Err(status.into()),
            }
        }
    }

    fn start_activity(self: &Rc<Self>, task: PollActivityTaskQueueResponse) {
        if task.task_token.is_empty() {
            return;
        }
        let worker = self.clone();
        spawn_local(async move {
            let answer = RespondActivityTaskCompletedRequest {
                task_token: task.task_token,
                result: task.input,
                identity: IDENTITY.to_owned(),
                namespace: NAMESPACE.to_owned(),
                ..Default::default()
            };
            let answered: std::result::Result<RespondActivityTaskCompletedResponse, _> = worker
                .temporal
                .insist(method!("RespondActivityTaskCompleted"), answer)
                .await;
            report(answered.map(|_| ()).map_err(Into::into));
        });
    }

    /// The turns of a run for as long as the next one comes with the answer.
    async fn take_turns(self: Rc<Self>, first: PollWorkflowTaskQueueResponse) -> Result<()> {
        let mut next = Some(first);
        while let Some(task) = next.take() {
            let commands = self.turn(&task).await?;
            let answer = RespondWorkflowTaskCompletedRequest {
                task_token: task.task_token,
                commands,
                identity: IDENTITY.to_owned(),
                namespace: NAMESPACE.to_owned(),
                return_new_workflow_task: true,
                sticky_attributes: Some(StickyExecutionAttributes {
                    worker_task_queue: Some(sticky()),
                    schedule_to_start_timeout: Some(WireDuration {
                        seconds: 10,
                        nanos: 0,
                    }),
                }),
                ..Default::default()
            };
            let answered: RespondWorkflowTaskCompletedResponse = self
                .temporal
                .insist(method!("RespondWorkflowTaskCompleted"), answer)
                .await?;
            for activity in answered.activity_tasks {
                self.start_activity(activity);
            }
            next = answered.workflow_task;
        }
        Ok(())
    }

    async fn turn(&self, task: &PollWorkflowTaskQueueResponse) -> Result<Vec<Command>> {
        let execution = task.workflow_execution.as_ref();
        let run_id = &execution.ok_or("a workflow task has no execution")?.run_id;
        let events = task
            .history
            .as_ref()
            .map_or(&[][..], |history| &history.events);
        let whole = events.first().is_some_and(|event| event.event_id == 1);
        let known = self.runs.borrow().contains_key(run_id);
        let read;
        let events = if task.next_page_token.is_empty() && (whole || known) {
            events
        } else {
            self.runs.borrow_mut().remove(run_id);
            read = self.history(task).await?;
            &read
        };
        let mut runs = self.runs.borrow_mut();
        if let Some(E::WorkflowExecutionStartedEventAttributes(started)) =
            events.first().and_then(|event| event.attributes.as_ref())
        {
            let name = started
                .workflow_type
                .as_ref()
                .map_or("", |of| of.name.as_str());
            let kind = Kind::of(name).ok_or_else(|| format!("{name:?} is no workflow type"))?;
            runs.insert(run_id.clone(), Run::new(kind, started.input.clone()));
        }
        let run = runs.get_mut(run_id).ok_or("a run begins in its middle")?;
        // A task that the engine has ended, because too much waited behind it, may come after the one that took its place.
        let seen = run.seen;
        for event in events.iter().filter(|event| event.event_id > seen) {
            run.apply(event);
        }
        run.seen = run.seen.max(task.started_event_id);
        let commands = run.turn(self.activity_time);
        let ends = commands
            .last()
            .is_some_and(|last| last.command_type() == CommandType::CompleteWorkflowExecution);
        if ends {
            runs.remove(run_id);
        }
        Ok(commands)
    }

    /// All events up to a task's own start.
    async fn history(&self, task: &PollWorkflowTaskQueueResponse) -> Result<Vec<HistoryEvent>> {
        let mut get = GetWorkflowExecutionHistoryRequest {
            namespace: NAMESPACE.to_owned(),
            execution: task
                .workflow_execution
                .clone()
                .map(|e| WorkflowExecution { ..e }),
            ..Default::default()
        };
        let mut events = Vec::new();
        loop {
            let page: GetWorkflowExecutionHistoryResponse = self
                .temporal
                .insist(method!("GetWorkflowExecutionHistory"), get.clone())
                .await?;
            events.extend(page.history.unwrap_or_default().events);
            if page.next_page_token.is_empty() {
                // What has happened since comes with the next task.
                events.retain(|event| event.event_id <= task.started_event_id);
                return Ok(events);
            }
            get.next_page_token = page.next_page_token;
        }
    }
}

/// A task that is over or lost is the engine's to hand out again; anything else is our mistake and seen.
fn report(result: Result<()>) {
    if let Err(error) = result {
        let text = error.to_string();
        if !text.contains("not found") && !text.contains("NotFound") {
            eprintln!("worker: {text}");
        }
    }
}

impl Run {
    fn new(kind: Kind, input: Option<Payloads>) -> Self {
        Self {
            kind,
            input,
            last: None,
            texts: Vec::new(),
            seen: 0,
            scheduled: 0,
            completed: 0,
            timer: None,
            fired: false,
        }
    }

    fn apply(&mut self, event: &HistoryEvent) {
        match &event.attributes {
            Some(E::ActivityTaskScheduledEventAttributes(_)) => self.scheduled += 1,
            Some(E::ActivityTaskCompletedEventAttributes(completed)) => {
                self.completed += 1;
                self.last.clone_from(&completed.result);
                if let Kind::Parallel(_) = self.kind {
                    self.texts.push(json_of(completed.result.as_ref()));
                }
            }
            Some(E::TimerStartedEventAttributes(started)) => {
                let wait = started.start_to_fire_timeout.map_or(0, |d| d.seconds);
                let at = event.event_time.as_ref().map(time_of);
                let wait = Duration::from_secs(u64::try_from(wait).unwrap_or(0));
                self.timer = at.map(|at| at + wait);
            }
            Some(E::TimerFiredEventAttributes(_)) => self.fired = true,
            _ => {}
        }
    }

    /// What the code asks for next.
    fn turn(&self, activity_time: WireDuration) -> Vec<Command> {
        let activity = |number: u32| self.activity(number, activity_time);
        match self.kind {
            Kind::Sequence(_) if self.completed < self.scheduled => Vec::new(),
            Kind::Sequence(steps) if self.scheduled < steps => vec![activity(self.scheduled)],
            Kind::Sequence(_) => vec![complete(self.last.clone())],
            Kind::Parallel(steps) if self.scheduled == 0 => (0..steps).map(activity).collect(),
            Kind::Parallel(steps) if self.completed < steps => Vec::new(),
            Kind::Parallel(_) => vec![complete(Some(json_payloads(self.all())))],
            Kind::Sleep(seconds) if self.timer.is_none() => vec![timer(seconds)],
            Kind::Sleep(_) if !self.fired => Vec::new(),
            Kind::Sleep(_) => {
                let due = self.timer.unwrap_or(UNIX_EPOCH);
                let late = SystemTime::now().duration_since(due).unwrap_or_default();
                let text = json_of(self.input.as_ref());
                let result = json_payloads(format!("[{text},{}]", late.as_micros()));
                vec![complete(Some(result))]
            }
        }
    }

    /// Every answer, as one list.
    fn all(&self) -> String {
        format!("[{}]", self.texts.join(","))
    }

    fn activity(&self, number: u32, time: WireDuration) -> Command {
        let attributes = ScheduleActivityTaskCommandAttributes {
            activity_id: number.to_string(),
            activity_type: Some(ActivityType {
                name: "echo".to_owned(),
            }),
            task_queue: Some(normal(QUEUE)),
            input: self.last.clone().or_else(|| self.input.clone()),
            start_to_close_timeout: Some(time),
            request_eager_execution: true,
            ..Default::default()
        };
        command(
            CommandType::ScheduleActivityTask,
            C::ScheduleActivityTaskCommandAttributes(attributes),
        )
    }
}

fn json_of(payloads: Option<&Payloads>) -> String {
    let first = payloads.and_then(|payloads| payloads.payloads.first());
    first.map_or(String::new(), |first| {
        String::from_utf8_lossy(&first.data).into_owned()
    })
}

fn time_of(at: &Timestamp) -> SystemTime {
    let seconds = Duration::from_secs(u64::try_from(at.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(at.nanos).unwrap_or(0));
    UNIX_EPOCH + seconds + nanos
}

fn command(kind: CommandType, attributes: C) -> Command {
    Command {
        command_type: kind.into(),
        attributes: Some(attributes),
        ..Default::default()
    }
}

fn complete(result: Option<Payloads>) -> Command {
    command(
        CommandType::CompleteWorkflowExecution,
        C::CompleteWorkflowExecutionCommandAttributes(CompleteWorkflowExecutionCommandAttributes {
            result,
        }),
    )
}

fn timer(seconds: i64) -> Command {
    command(
        CommandType::StartTimer,
        C::StartTimerCommandAttributes(StartTimerCommandAttributes {
            timer_id: "sleep".to_owned(),
            start_to_fire_timeout: Some(WireDuration { seconds, nanos: 0 }),
        }),
    )
}
