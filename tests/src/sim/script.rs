//! Workflow code of the simulation: a script, carried in the run's input, and what its next turn asks for, from its history alone.
//!
//! ```text
//!  Script { steps, again }   step by step: activities, timers, signals to wait for, children, several of them at once; then from the
//!                            beginning again, as a new run, as often as `again` says; at last a result that only the script decides
//! ```
//!
//! Invariant: the same history gives the same commands; what a completed run returns is `Script::result`.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion::orchestration::submission::json_payloads;
use orchestrion_proto::prost_wkt_types::Duration as ProtoDuration;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::command::v1::{
    CancelWorkflowExecutionCommandAttributes, Command, CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
    ScheduleActivityTaskCommandAttributes, SignalExternalWorkflowExecutionCommandAttributes,
    StartChildWorkflowExecutionCommandAttributes, StartTimerCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{
    ActivityType, Payloads, RetryPolicy, WorkflowExecution, WorkflowType,
};
use orchestrion_proto::temporal::api::enums::v1::ParentClosePolicy;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::dice::Dice;

/// The workflow type of all scripts.
pub const TYPE: &str = "script";
/// The name of the signals that scripts wait for.
pub const SIGNAL: &str = "go";
/// The queue of their workflow tasks, in each tenant.
pub const QUEUE: &str = "scripts";
/// The queues of their activities, in each tenant.
pub const ACTIVITY_QUEUES: [&str; 2] = ["hands", "feet"];

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Script {
    /// One after the other.
    pub steps: Vec<Step>,
    /// How often it goes on as a new run.
    pub again: u32,
}

/// One thing that a script does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// An activity on one of the queues, retried until it works.
    Activity {
        /// Which of [`ACTIVITY_QUEUES`].
        queue: usize,
        /// How long an attempt may take.
        ms: u64,
        /// Whether it has to report in between.
        beats: bool,
    },
    /// A pause.
    Timer {
        /// How long.
        ms: u64,
    },
    /// Waits until so many signals have come in all.
    Signals(usize),
    /// Another script, as a child.
    Child(Script),
    /// Tells another execution something, whether or not it is there.
    Tell(String),
    /// All of these at once.
    Together(Vec<Step>),
}

impl Script {
    /// A script that nobody has seen before.
    pub fn random(dice: &mut Dice, depth: u32, others: &[String]) -> Self {
        let steps = 1 + dice.roll(3);
        Self {
            steps: (0..steps)
                .map(|_| Step::random(dice, depth, others))
                .collect(),
            again: if dice.roll(6) == 0 {
                1 + dice.roll(2) as u32
            } else {
                0
            },
        }
    }

    /// What a run of it returns if it completes; `last` is a run that no other follows.
    pub fn result(&self, place: &str) -> String {
        let steps = self.steps.iter().enumerate();
        let parts: Vec<String> = steps
            .map(|(n, step)| step.result(&format!("{place}{n}")))
            .collect();
        parts.join(",")
    }

    /// Whether it waits for signals, itself or in a child.
    pub fn waits(&self) -> bool {
        self.steps.iter().any(Step::waits)
    }
}

impl Step {
    fn random(dice: &mut Dice, depth: u32, others: &[String]) -> Self {
        match dice.roll(12) {
            0..=4 => Self::Activity {
                queue: dice.roll(2) as usize,
                ms: 1_000 + dice.roll(4_000),
                beats: dice.roll(3) == 0,
            },
            5 | 6 => Self::Timer {
                ms: 1 + dice.roll(20_000),
            },
            7 => Self::Signals(1 + dice.roll(2) as usize),
            8 if depth > 0 => Self::Child(Script::random(dice, depth - 1, others)),
            9 if !others.is_empty() => Self::Tell(dice.pick(others).clone()),
            10 | 11 if depth > 0 => {
                let count = 2 + dice.roll(2);
                Self::Together(
                    (0..count)
                        .map(|_| Self::random(dice, depth - 1, others))
                        .collect(),
                )
            }
            _ => Self::Timer { ms: 50 },
        }
    }

    fn result(&self, place: &str) -> String {
        match self {
            Self::Activity { .. } => activity_result(place),
            Self::Timer { .. } => "t".to_owned(),
            Self::Signals(count) => format!("s{count}"),
            Self::Child(script) => format!("({})", script.result(place)),
            Self::Tell(_) => "told".to_owned(),
            Self::Together(steps) => {
                let steps = steps.iter().enumerate();
                let parts: Vec<String> = steps
                    .map(|(n, step)| step.result(&format!("{place}.{n}")))
                    .collect();
                format!("[{}]", parts.join(" "))
            }
        }
    }

    fn waits(&self) -> bool {
        match self {
            Self::Signals(_) => true,
            Self::Child(script) => script.waits(),
            Self::Together(steps) => steps.iter().any(Self::waits),
            Self::Activity { .. } | Self::Timer { .. } | Self::Tell(_) => false,
        }
    }
}

/// What an activity returns: its own id, so that a result in the wrong place shows.
pub fn activity_result(id: &str) -> String {
    format!("a{id}")
}

/// Text as a payload.
pub fn text(value: &str) -> Payloads {
    json_payloads(&json!(value))
}

/// The text in payloads.
pub fn read(payloads: Option<&Payloads>) -> Option<String> {
    let payload = payloads?.payloads.first()?;
    match serde_json::from_slice(&payload.data) {
        Ok(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// What a history says, as far as scripts care.
#[derive(Default)]
struct Past {
    workflow_id: String,
    input: Option<Placed>,
    signals: usize,
    cancelled: bool,
    begun: BTreeSet<String>,
    ended: BTreeMap<String, Result<String, String>>,
}

impl Past {
    fn read(events: &[HistoryEvent]) -> Self {
        let mut past = Self::default();
        let mut names: BTreeMap<i64, String> = BTreeMap::new();
        for event in events {
            let Some(attributes) = &event.attributes else {
                continue;
            };
            let mut begin = |past: &mut Self, name: &str| {
                names.insert(event.event_id, name.to_owned());
                past.begun.insert(name.to_owned());
            };
            match attributes {
                A::WorkflowExecutionStartedEventAttributes(a) => {
                    past.workflow_id.clone_from(&a.workflow_id);
                    past.input = a
                        .input
                        .as_ref()
                        .and_then(|input| serde_json::from_slice(&input.payloads[0].data).ok());
                }
                A::ActivityTaskScheduledEventAttributes(a) => begin(&mut past, &a.activity_id),
                A::TimerStartedEventAttributes(a) => begin(&mut past, &a.timer_id),
                A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => {
                    begin(&mut past, &a.control_text());
                }
                A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => {
                    begin(&mut past, &a.control_text());
                }
                A::WorkflowExecutionSignaledEventAttributes(a) if a.signal_name == SIGNAL => {
                    past.signals += 1;
                }
                A::WorkflowExecutionCancelRequestedEventAttributes(_) => past.cancelled = true,
                _ => {}
            }
            let (of, outcome) = match attributes {
                A::ActivityTaskCompletedEventAttributes(a) => (
                    a.scheduled_event_id,
                    Ok(read(a.result.as_ref()).unwrap_or_default()),
                ),
                A::ActivityTaskFailedEventAttributes(a) => {
                    let why = a.failure.as_ref().map(|f| f.message.clone());
                    (a.scheduled_event_id, Err(why.unwrap_or_default()))
                }
                A::ActivityTaskTimedOutEventAttributes(a) => {
                    (a.scheduled_event_id, Err("it timed out".to_owned()))
                }
                A::TimerFiredEventAttributes(a) => (a.started_event_id, Ok("t".to_owned())),
                A::ChildWorkflowExecutionCompletedEventAttributes(a) => (
                    a.initiated_event_id,
                    Ok(format!("({})", read(a.result.as_ref()).unwrap_or_default())),
                ),
                A::ChildWorkflowExecutionFailedEventAttributes(a) => {
                    (a.initiated_event_id, Err("a child failed".to_owned()))
                }
                A::ChildWorkflowExecutionCanceledEventAttributes(a) => (
                    a.initiated_event_id,
                    Err("a child was cancelled".to_owned()),
                ),
                A::ChildWorkflowExecutionTerminatedEventAttributes(a) => (
                    a.initiated_event_id,
                    Err("a child was terminated".to_owned()),
                ),
                A::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
                    (a.initiated_event_id, Err("a child timed out".to_owned()))
                }
                A::StartChildWorkflowExecutionFailedEventAttributes(a) => (
                    a.initiated_event_id,
                    Err("a child did not start".to_owned()),
                ),
                A::ExternalWorkflowExecutionSignaledEventAttributes(a) => {
                    (a.initiated_event_id, Ok("told".to_owned()))
                }
                A::SignalExternalWorkflowExecutionFailedEventAttributes(a) => {
                    (a.initiated_event_id, Ok("told".to_owned()))
                }
                _ => continue,
            };
            if let Some(name) = names.get(&of) {
                past.ended.insert(name.clone(), outcome);
            }
        }
        past
    }
}

/// Where the name of a step travels with what has no id of its own.
trait Control {
    fn control_text(&self) -> String;
}

impl Control
    for orchestrion_proto::temporal::api::history::v1::StartChildWorkflowExecutionInitiatedEventAttributes
{
    fn control_text(&self) -> String {
        let place = self.workflow_id.rsplit('/').next();
        place.unwrap_or_default().to_owned()
    }
}

impl Control
    for orchestrion_proto::temporal::api::history::v1::SignalExternalWorkflowExecutionInitiatedEventAttributes
{
    fn control_text(&self) -> String {
        read(self.input.as_ref()).unwrap_or_default()
    }
}

enum Stand {
    Done(String),
    Open,
    Failed(String),
}

struct Turn<'a> {
    past: &'a Past,
    commands: Vec<Command>,
}

impl Turn<'_> {
    fn stand(&self, name: &str) -> Stand {
        match self.past.ended.get(name) {
            Some(Ok(result)) => Stand::Done(result.clone()),
            Some(Err(why)) => Stand::Failed(why.clone()),
            None => Stand::Open,
        }
    }

    fn once(&mut self, name: &str, command: impl FnOnce() -> C) -> Stand {
        if !self.past.begun.contains(name) {
            self.commands.push(Command {
                attributes: Some(command()),
                ..Command::default()
            });
        }
        self.stand(name)
    }

    fn step(&mut self, step: &Step, place: &str) -> Stand {
        match step {
            Step::Activity { queue, ms, beats } => {
                self.once(place, || activity(place, *queue, *ms, *beats))
            }
            Step::Timer { ms } => self.once(place, || {
                C::StartTimerCommandAttributes(StartTimerCommandAttributes {
                    timer_id: place.to_owned(),
                    start_to_fire_timeout: Some(millis(*ms)),
                })
            }),
            Step::Signals(count) => match self.past.signals >= *count {
                true => Stand::Done(format!("s{count}")),
                false => Stand::Open,
            },
            Step::Child(script) => {
                let id = format!("{}/{place}", self.past.workflow_id);
                self.once(place, || child(&id, script, place))
            }
            Step::Tell(other) => self.once(place, || tell(other, place)),
            Step::Together(steps) => {
                let stands: Vec<Stand> = (steps.iter().enumerate())
                    .map(|(n, step)| self.step(step, &format!("{place}.{n}")))
                    .collect();
                let mut done = Vec::new();
                for stand in stands {
                    match stand {
                        Stand::Done(result) => done.push(result),
                        Stand::Failed(why) => return Stand::Failed(why),
                        Stand::Open => {}
                    }
                }
                match done.len() == steps.len() {
                    true => Stand::Done(format!("[{}]", done.join(" "))),
                    false => Stand::Open,
                }
            }
        }
    }
}

fn millis(ms: u64) -> ProtoDuration {
    ProtoDuration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000) as i32 * 1_000_000,
    }
}

fn activity(place: &str, queue: usize, ms: u64, beats: bool) -> C {
    C::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
        activity_id: place.to_owned(),
        activity_type: Some(ActivityType {
            name: "act".to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: ACTIVITY_QUEUES[queue].to_owned(),
            ..Default::default()
        }),
        input: Some(text(place)),
        start_to_close_timeout: Some(millis(ms)),
        heartbeat_timeout: beats.then(|| millis(ms / 2)),
        retry_policy: Some(RetryPolicy {
            initial_interval: Some(millis(200)),
            backoff_coefficient: 2.0,
            maximum_interval: Some(millis(5_000)),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// A child of the script of this step: its places begin with the step's, so that its results cannot be taken for another's.
fn child(id: &str, script: &Script, place: &str) -> C {
    let input = Placed {
        script: script.clone(),
        place: place.to_owned(),
    };
    let policies = [
        ParentClosePolicy::Terminate,
        ParentClosePolicy::RequestCancel,
        ParentClosePolicy::Abandon,
    ];
    C::StartChildWorkflowExecutionCommandAttributes(StartChildWorkflowExecutionCommandAttributes {
        workflow_id: id.to_owned(),
        workflow_type: Some(WorkflowType {
            name: TYPE.to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: QUEUE.to_owned(),
            ..Default::default()
        }),
        input: Some(json_payloads(&input)),
        parent_close_policy: policies[place.len() % policies.len()].into(),
        ..Default::default()
    })
}

fn tell(other: &str, place: &str) -> C {
    C::SignalExternalWorkflowExecutionCommandAttributes(
        SignalExternalWorkflowExecutionCommandAttributes {
            execution: Some(WorkflowExecution {
                workflow_id: other.to_owned(),
                run_id: String::new(),
            }),
            signal_name: SIGNAL.to_owned(),
            input: Some(text(place)),
            ..Default::default()
        },
    )
}

/// A script and what its places begin with: what a run is given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// What it does.
    pub script: Script,
    /// What its places begin with.
    pub place: String,
}

/// What workflow code asks for at the end of this history.
pub fn turn(events: &[HistoryEvent]) -> Vec<Command> {
    let past = Past::read(events);
    let command = |attributes| {
        vec![Command {
            attributes: Some(attributes),
            ..Command::default()
        }]
    };
    let Some(Placed { script, place }) = &past.input else {
        return command(failed("its input is no script"));
    };
    if past.cancelled {
        return command(C::CancelWorkflowExecutionCommandAttributes(
            CancelWorkflowExecutionCommandAttributes::default(),
        ));
    }
    let mut turn = Turn {
        past: &past,
        commands: Vec::new(),
    };
    let mut results = Vec::new();
    for (n, step) in script.steps.iter().enumerate() {
        match turn.step(step, &format!("{place}{n}")) {
            Stand::Done(result) => results.push(result),
            Stand::Open => return turn.commands,
            Stand::Failed(why) => return command(failed(&why)),
        }
    }
    if script.again > 0 {
        let next = Placed {
            script: Script {
                again: script.again - 1,
                ..script.clone()
            },
            place: place.clone(),
        };
        return command(C::ContinueAsNewWorkflowExecutionCommandAttributes(
            ContinueAsNewWorkflowExecutionCommandAttributes {
                input: Some(json_payloads(&next)),
                ..Default::default()
            },
        ));
    }
    command(C::CompleteWorkflowExecutionCommandAttributes(
        CompleteWorkflowExecutionCommandAttributes {
            result: Some(text(&results.join(","))),
        },
    ))
}

fn failed(why: &str) -> C {
    C::FailWorkflowExecutionCommandAttributes(FailWorkflowExecutionCommandAttributes {
        failure: Some(failure(why, false)),
    })
}

/// A failure of an application.
pub fn failure(why: &str, non_retryable: bool) -> Failure {
    Failure {
        message: why.to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                r#type: "Simulated".to_owned(),
                non_retryable,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}
