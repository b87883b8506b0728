//! A tiny world for tests: it writes the history that an interpreter's commands lead to, and lets a test say what happens outside.
//!
//! Every turn is taken live and then checked: a fresh interpreter folds the same history to the same state.

use std::collections::BTreeMap;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::record::Record;
use orchestrion_proto::prost_wkt_types;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as Asked;
use orchestrion_proto::temporal::api::common::v1::{Payload, Payloads, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::{EventType, RetryState, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{
    ApplicationFailureInfo, Failure, TimeoutFailureInfo,
};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as Written;
use orchestrion_proto::temporal::api::history::v1::*;
use orchestrion_proto::v1::{Note, note};
use serde_json::{Map, Value, json};

use super::{Effect, Interpreter, NonDeterminism};
use crate::orchestration::submission::{json_or_null, json_payloads};
use crate::orchestration::{LATE_RESULT_SIGNAL, Submission, WORKFLOW_TYPE};
use crate::plan::{Plan, PlanTask};

pub(in crate::orchestration) const ORCHESTRATION: &str = "o_1";
pub(in crate::orchestration) const RUN: &str = "0b0c0d0e-0000-4000-8000-000000000001";

pub(in crate::orchestration) struct World {
    pub(in crate::orchestration) events: Vec<HistoryEvent>,
    /// The same events, and the notes between them.
    pub(in crate::orchestration) journal: Vec<Record>,
    pub(in crate::orchestration) effects: Vec<Effect>,
    pub(in crate::orchestration) live: Interpreter,
    pub(in crate::orchestration) now_ms: i64,
    /// Open activities by id: their scheduling events, and whether a worker has them.
    pub(in crate::orchestration) activities: BTreeMap<String, (i64, bool)>,
    /// Running timers by id.
    pub(in crate::orchestration) timers: BTreeMap<String, i64>,
    pub(in crate::orchestration) closed: bool,
    story: Vec<String>,
}

/// A submission with a plan of these tasks.
pub(in crate::orchestration) fn submission(plan: Option<Plan>) -> Submission {
    Submission {
        plan,
        ..Default::default()
    }
}

pub(in crate::orchestration) fn plan(tasks: &[PlanTask]) -> Plan {
    let task_zero = Map::from_iter([("message".to_owned(), json!("hello"))]);
    Plan {
        task_zero,
        tasks: tasks.to_vec(),
        parallel_groups: Vec::new(),
    }
}

/// A revertible task that is given the greeting and an `n` of each task it depends on.
pub(in crate::orchestration) fn task(id: &str, depends_on: &[&str]) -> PlanTask {
    let mut input = Map::from_iter([("message".to_owned(), json!("$task0.message"))]);
    input.extend(
        depends_on
            .iter()
            .map(|other| (format!("of_{other}"), json!(format!("${other}.n")))),
    );
    PlanTask {
        id: id.to_owned(),
        service: format!("s_{id}"),
        service_name: format!("service-{id}"),
        revertible: true,
        input,
        depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
    }
}

/// What a task that did something answers.
pub(in crate::orchestration) fn done(n: u64) -> Value {
    json!({"task": {"n": n}, "compensation": {"data": {"originalTask": n}, "ttl": 86_400_000}})
}

pub(in crate::orchestration) fn application_failure(
    kind: &str,
    message: &str,
    details: Option<&Value>,
) -> Failure {
    let info = ApplicationFailureInfo {
        r#type: kind.to_owned(),
        details: details.map(json_payloads),
        ..Default::default()
    };
    Failure {
        message: message.to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    }
}

fn timeout_failure(kind: TimeoutType) -> Failure {
    let info = TimeoutFailureInfo {
        timeout_type: kind.into(),
        ..Default::default()
    };
    let failure_info = Some(FailureInfo::TimeoutFailureInfo(info));
    Failure {
        message: format!("activity {kind:?} timeout"),
        failure_info,
        ..Default::default()
    }
}

/// Folds a history with a fresh interpreter.
pub(in crate::orchestration) fn replay(
    events: &[HistoryEvent],
) -> Result<Interpreter, NonDeterminism> {
    let mut fresh = Interpreter::new();
    events.iter().try_for_each(|event| fresh.apply(event))?;
    Ok(fresh)
}

impl World {
    /// A run that has started; its first turn is not taken.
    pub(in crate::orchestration) fn start(submission: &Submission) -> Self {
        Self::start_with(json_payloads(submission))
    }

    pub(in crate::orchestration) fn start_with(input: Payloads) -> Self {
        Self::start_typed(WORKFLOW_TYPE, input)
    }

    pub(in crate::orchestration) fn start_typed(kind: &str, input: Payloads) -> Self {
        let mut world = Self {
            events: Vec::new(),
            journal: Vec::new(),
            effects: Vec::new(),
            live: Interpreter::new(),
            now_ms: 1_700_000_000_000,
            activities: BTreeMap::new(),
            timers: BTreeMap::new(),
            closed: false,
            story: Vec::new(),
        };
        world.write(
            EventType::WorkflowExecutionStarted,
            Written::WorkflowExecutionStartedEventAttributes(
                WorkflowExecutionStartedEventAttributes {
                    workflow_id: ORCHESTRATION.to_owned(),
                    workflow_type: Some(WorkflowType {
                        name: kind.to_owned(),
                    }),
                    original_execution_run_id: RUN.to_owned(),
                    input: Some(input),
                    ..Default::default()
                },
            ),
        );
        world
    }

    pub(in crate::orchestration) fn of_tasks(tasks: &[PlanTask]) -> Self {
        let mut world = Self::start(&submission(Some(plan(tasks))));
        world.turn();
        world
    }

    pub(in crate::orchestration) fn advance(&mut self, ms: i64) -> &mut Self {
        self.now_ms += ms;
        self
    }

    /// One workflow task: the live turn, its events, and the check that a replay agrees.
    pub(in crate::orchestration) fn turn(&mut self) -> &mut Self {
        self.write(
            EventType::WorkflowTaskScheduled,
            Written::WorkflowTaskScheduledEventAttributes(Default::default()),
        );
        self.now_ms += 1;
        let mut again = replay(&self.events).expect("a replay asks for what the journal says");
        let turn = self.live.turn(Timestamp::from_millis(self.now_ms));
        assert_eq!(
            again.turn(Timestamp::from_millis(self.now_ms)),
            turn,
            "an interpreter that was folded again decides the same"
        );
        self.write(
            EventType::WorkflowTaskStarted,
            Written::WorkflowTaskStartedEventAttributes(Default::default()),
        );
        self.write(
            EventType::WorkflowTaskCompleted,
            Written::WorkflowTaskCompletedEventAttributes(Default::default()),
        );
        let mut canceled = false;
        for command in turn.commands {
            canceled |= self.carry_out(command);
        }
        for effect in turn.effects {
            self.story.push(format!(" --  {}", effect_line(&effect)));
            self.effects.push(effect);
        }
        let replayed = replay(&self.events).expect("a replay asks for what the journal says");
        assert_eq!(
            replayed, self.live,
            "a replay stands where the live interpreter stands"
        );
        if canceled { self.turn() } else { self }
    }

    /// Answers whether an activity closed because nobody had it.
    fn carry_out(&mut self, command: Command) -> bool {
        assert!(!self.closed, "nothing follows a close");
        match command.attributes.expect("every command has attributes") {
            Asked::ScheduleActivityTaskCommandAttributes(c) => {
                let id = self.write(
                    EventType::ActivityTaskScheduled,
                    Written::ActivityTaskScheduledEventAttributes(
                        ActivityTaskScheduledEventAttributes {
                            activity_id: c.activity_id.clone(),
                            activity_type: c.activity_type,
                            task_queue: c.task_queue,
                            header: c.header,
                            input: c.input,
                            schedule_to_close_timeout: c.schedule_to_close_timeout,
                            start_to_close_timeout: c.start_to_close_timeout,
                            retry_policy: c.retry_policy,
                            ..Default::default()
                        },
                    ),
                );
                let open = self.activities.insert(c.activity_id, (id, true));
                assert_eq!(open, None, "an activity id is open once");
            }
            Asked::RequestCancelActivityTaskCommandAttributes(c) => {
                let id = c.scheduled_event_id;
                let requested = ActivityTaskCancelRequestedEventAttributes {
                    scheduled_event_id: id,
                    ..Default::default()
                };
                self.write(
                    EventType::ActivityTaskCancelRequested,
                    Written::ActivityTaskCancelRequestedEventAttributes(requested),
                );
                let open = self
                    .activities
                    .iter()
                    .find(|(_, (open, _))| *open == id)
                    .expect("only pending ones are cancelled");
                let (activity, taken) = (open.0.clone(), open.1.1);
                if !taken {
                    self.canceled(&activity);
                    return true;
                }
            }
            Asked::StartTimerCommandAttributes(c) => {
                let id = self.write(
                    EventType::TimerStarted,
                    Written::TimerStartedEventAttributes(TimerStartedEventAttributes {
                        timer_id: c.timer_id.clone(),
                        start_to_fire_timeout: c.start_to_fire_timeout,
                        ..Default::default()
                    }),
                );
                assert_eq!(
                    self.timers.insert(c.timer_id, id),
                    None,
                    "a timer id is running once"
                );
            }
            Asked::CancelTimerCommandAttributes(c) => {
                let started_event_id = self
                    .timers
                    .remove(&c.timer_id)
                    .expect("only running timers are cancelled");
                let canceled = TimerCanceledEventAttributes {
                    timer_id: c.timer_id,
                    started_event_id,
                    ..Default::default()
                };
                self.write(
                    EventType::TimerCanceled,
                    Written::TimerCanceledEventAttributes(canceled),
                );
            }
            Asked::ModifyWorkflowPropertiesCommandAttributes(c) => {
                let modified = WorkflowPropertiesModifiedEventAttributes {
                    upserted_memo: c.upserted_memo,
                    ..Default::default()
                };
                self.write(
                    EventType::WorkflowPropertiesModified,
                    Written::WorkflowPropertiesModifiedEventAttributes(modified),
                );
            }
            Asked::CompleteWorkflowExecutionCommandAttributes(c) => {
                let completed = WorkflowExecutionCompletedEventAttributes {
                    result: c.result,
                    ..Default::default()
                };
                self.write(
                    EventType::WorkflowExecutionCompleted,
                    Written::WorkflowExecutionCompletedEventAttributes(completed),
                );
                self.closed = true;
            }
            Asked::FailWorkflowExecutionCommandAttributes(c) => {
                let failed = WorkflowExecutionFailedEventAttributes {
                    failure: c.failure,
                    ..Default::default()
                };
                self.write(
                    EventType::WorkflowExecutionFailed,
                    Written::WorkflowExecutionFailedEventAttributes(failed),
                );
                self.closed = true;
            }
            Asked::CancelWorkflowExecutionCommandAttributes(c) => {
                let canceled = WorkflowExecutionCanceledEventAttributes {
                    details: c.details,
                    ..Default::default()
                };
                self.write(
                    EventType::WorkflowExecutionCanceled,
                    Written::WorkflowExecutionCanceledEventAttributes(canceled),
                );
                self.closed = true;
            }
            other => panic!("no orchestration asks for {other:?}"),
        }
        false
    }

    /// No worker has taken this activity.
    pub(in crate::orchestration) fn untaken(&mut self, activity: &str) -> &mut Self {
        self.activities.get_mut(activity).expect("it is open").1 = false;
        self
    }

    pub(in crate::orchestration) fn completed(
        &mut self,
        activity: &str,
        result: Value,
    ) -> &mut Self {
        let id = self.close_activity(activity, 1, None);
        self.write(
            EventType::ActivityTaskCompleted,
            Written::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
                result: Some(json_payloads(&result)),
                scheduled_event_id: id,
                ..Default::default()
            }),
        );
        self
    }

    /// It failed as often as it may.
    pub(in crate::orchestration) fn failed(&mut self, activity: &str, message: &str) -> &mut Self {
        let failure = application_failure("Failed", message, None);
        self.failed_with(activity, failure, RetryState::MaximumAttemptsReached)
    }

    pub(in crate::orchestration) fn aborted(
        &mut self,
        activity: &str,
        payload: &Value,
    ) -> &mut Self {
        let failure = application_failure("abort", "aborted", Some(payload));
        self.failed_with(activity, failure, RetryState::NonRetryableFailure)
    }

    pub(in crate::orchestration) fn failed_with(
        &mut self,
        activity: &str,
        failure: Failure,
        retry_state: RetryState,
    ) -> &mut Self {
        let id = self.close_activity(activity, 5, None);
        self.write(
            EventType::ActivityTaskFailed,
            Written::ActivityTaskFailedEventAttributes(ActivityTaskFailedEventAttributes {
                failure: Some(failure),
                scheduled_event_id: id,
                retry_state: retry_state.into(),
                ..Default::default()
            }),
        );
        self
    }

    pub(in crate::orchestration) fn timed_out(
        &mut self,
        activity: &str,
        kind: TimeoutType,
    ) -> &mut Self {
        let id = self.close_activity(activity, 5, None);
        self.write(
            EventType::ActivityTaskTimedOut,
            Written::ActivityTaskTimedOutEventAttributes(ActivityTaskTimedOutEventAttributes {
                failure: Some(timeout_failure(kind)),
                scheduled_event_id: id,
                retry_state: RetryState::MaximumAttemptsReached.into(),
                ..Default::default()
            }),
        );
        self
    }

    /// The worker of the second attempt confirms its cancellation; the first timed out.
    pub(in crate::orchestration) fn canceled_after_a_time_out(
        &mut self,
        activity: &str,
    ) -> &mut Self {
        let id = self.close_activity(
            activity,
            2,
            Some(timeout_failure(TimeoutType::StartToClose)),
        );
        self.write_canceled(id)
    }

    fn canceled(&mut self, activity: &str) {
        let (id, _) = self.activities.remove(activity).expect("it is open");
        self.write_canceled(id);
    }

    fn write_canceled(&mut self, id: i64) -> &mut Self {
        let canceled = ActivityTaskCanceledEventAttributes {
            scheduled_event_id: id,
            ..Default::default()
        };
        self.write(
            EventType::ActivityTaskCanceled,
            Written::ActivityTaskCanceledEventAttributes(canceled),
        );
        self
    }

    fn close_activity(
        &mut self,
        activity: &str,
        attempt: i32,
        last_failure: Option<Failure>,
    ) -> i64 {
        let (id, taken) = self
            .activities
            .remove(activity)
            .unwrap_or_else(|| panic!("{activity} is not open"));
        if taken {
            self.write(
                EventType::ActivityTaskStarted,
                Written::ActivityTaskStartedEventAttributes(ActivityTaskStartedEventAttributes {
                    scheduled_event_id: id,
                    attempt,
                    last_failure,
                    ..Default::default()
                }),
            );
        }
        id
    }

    pub(in crate::orchestration) fn late_result(&mut self, task: &str, result: Value) -> &mut Self {
        self.signaled(LATE_RESULT_SIGNAL, &json!({"task": task, "result": result}))
    }

    pub(in crate::orchestration) fn signaled(&mut self, name: &str, input: &Value) -> &mut Self {
        self.write(
            EventType::WorkflowExecutionSignaled,
            Written::WorkflowExecutionSignaledEventAttributes(
                WorkflowExecutionSignaledEventAttributes {
                    signal_name: name.to_owned(),
                    input: Some(json_payloads(input)),
                    ..Default::default()
                },
            ),
        );
        self
    }

    pub(in crate::orchestration) fn cancel_requested(&mut self, reason: &str) -> &mut Self {
        let requested = WorkflowExecutionCancelRequestedEventAttributes {
            cause: reason.to_owned(),
            ..Default::default()
        };
        self.write(
            EventType::WorkflowExecutionCancelRequested,
            Written::WorkflowExecutionCancelRequestedEventAttributes(requested),
        );
        self
    }

    pub(in crate::orchestration) fn fired(&mut self, timer: &str) -> &mut Self {
        let started_event_id = self.timers.remove(timer).expect("it is running");
        let fired = TimerFiredEventAttributes {
            timer_id: timer.to_owned(),
            started_event_id,
        };
        self.write(
            EventType::TimerFired,
            Written::TimerFiredEventAttributes(fired),
        );
        self
    }

    pub(in crate::orchestration) fn write(
        &mut self,
        event_type: EventType,
        attributes: Written,
    ) -> i64 {
        let event_id = self.events.len() as i64 + 1;
        let event = HistoryEvent {
            event_id,
            event_time: Some(prost_wkt_types::Timestamp {
                seconds: self.now_ms / 1_000,
                nanos: (self.now_ms % 1_000) as i32 * 1_000_000,
            }),
            event_type: event_type.into(),
            attributes: Some(attributes),
            ..Default::default()
        };
        self.live
            .apply(&event)
            .expect("the live interpreter accepts what it asked for");
        if let Some(what) = event_line(&event, &self.events) {
            self.story.push(format!("{event_id:>3}  {what}"));
        }
        self.journal.push(Record::Event(Box::new(event.clone())));
        self.events.push(event);
        event_id
    }

    /// What a worker does on the way, which history does not show.
    pub(in crate::orchestration) fn note(
        &mut self,
        activity: &str,
        kind: impl FnOnce(i64) -> note::Kind,
    ) -> &mut Self {
        let (id, _) = self.activities[activity];
        let note = Note {
            at: self.now_ms * 1_000_000,
            kind: Some(kind(id)),
        };
        self.journal.push(Record::Note(Box::new(note)));
        self
    }

    /// Compares everything that happened so far, apart from workflow tasks, with an indented story.
    #[track_caller]
    pub(in crate::orchestration) fn reads(&self, expected: &str) {
        let trim = |text: &str| {
            text.trim()
                .lines()
                .map(|line| line.trim().to_owned())
                .collect::<Vec<_>>()
                .join("\n")
        };
        let story = self.story.join("\n");
        assert_eq!(trim(&story), trim(expected), "\nthe story is:\n{story}\n");
    }
}

fn event_line(event: &HistoryEvent, before: &[HistoryEvent]) -> Option<String> {
    let activity = |id: i64| {
        before.iter().find_map(|event| match &event.attributes {
            Some(Written::ActivityTaskScheduledEventAttributes(a)) if event.event_id == id => {
                Some(a.activity_id.clone())
            }
            _ => None,
        })
    };
    let activity = |id: i64| activity(id).unwrap_or_default();
    Some(match event.attributes.as_ref()? {
        Written::WorkflowExecutionStartedEventAttributes(_) => {
            "WorkflowExecutionStarted".to_owned()
        }
        Written::ActivityTaskScheduledEventAttributes(a) => {
            let kind = a.activity_type.as_ref().map_or("", |t| t.name.as_str());
            let input = if kind == "plan.generate" {
                String::new()
            } else {
                shown(a.input.as_ref())
            };
            format!("ActivityTaskScheduled {} {kind} {input}", a.activity_id)
                .trim_end()
                .to_owned()
        }
        Written::ActivityTaskCompletedEventAttributes(a) => {
            let id = activity(a.scheduled_event_id);
            let result = if id == "plan" {
                String::new()
            } else {
                format!(" {}", shown(a.result.as_ref()))
            };
            format!("ActivityTaskCompleted {id}{result}")
        }
        Written::ActivityTaskFailedEventAttributes(a) => {
            let message = &a.failure.as_ref()?.message;
            format!(
                "ActivityTaskFailed {} {message:?}",
                activity(a.scheduled_event_id)
            )
        }
        Written::ActivityTaskTimedOutEventAttributes(a) => {
            format!(
                "ActivityTaskTimedOut {} {}",
                activity(a.scheduled_event_id),
                a.failure.as_ref()?.message
            )
        }
        Written::ActivityTaskCancelRequestedEventAttributes(a) => {
            format!(
                "ActivityTaskCancelRequested {}",
                activity(a.scheduled_event_id)
            )
        }
        Written::ActivityTaskCanceledEventAttributes(a) => {
            format!("ActivityTaskCanceled {}", activity(a.scheduled_event_id))
        }
        Written::TimerStartedEventAttributes(a) => {
            let duration = a.start_to_fire_timeout.as_ref()?;
            format!(
                "TimerStarted {} {} ms",
                a.timer_id,
                duration.seconds * 1_000 + i64::from(duration.nanos / 1_000_000)
            )
        }
        Written::TimerFiredEventAttributes(a) => format!("TimerFired {}", a.timer_id),
        Written::TimerCanceledEventAttributes(a) => format!("TimerCanceled {}", a.timer_id),
        Written::WorkflowExecutionSignaledEventAttributes(a) => {
            format!("WorkflowExecutionSignaled {}", a.signal_name)
        }
        Written::WorkflowExecutionCancelRequestedEventAttributes(a) => {
            format!("WorkflowExecutionCancelRequested {:?}", a.cause)
        }
        Written::WorkflowPropertiesModifiedEventAttributes(a) => {
            let fields: BTreeMap<_, _> = a.upserted_memo.as_ref()?.fields.iter().collect();
            let fields: Vec<_> = fields
                .into_iter()
                .map(|(name, value)| memo_line(name, value))
                .collect();
            format!("WorkflowPropertiesModified {}", fields.join(" "))
        }
        Written::WorkflowExecutionCompletedEventAttributes(a) => {
            format!("WorkflowExecutionCompleted {}", shown(a.result.as_ref()))
        }
        Written::WorkflowExecutionFailedEventAttributes(a) => {
            let failure = a.failure.as_ref()?;
            let Some(FailureInfo::ApplicationFailureInfo(info)) = &failure.failure_info else {
                return None;
            };
            format!(
                "WorkflowExecutionFailed {} {:?}",
                info.r#type, failure.message
            )
        }
        Written::WorkflowExecutionCanceledEventAttributes(_) => {
            "WorkflowExecutionCanceled".to_owned()
        }
        _ => return None,
    })
}

fn memo_line(name: &str, value: &Payload) -> String {
    let value = json_or_null(Some(value));
    match name {
        "compensation" => {
            let state = if value["active"] == true {
                "active"
            } else {
                "over"
            };
            format!(
                "undone={state},{}+{}/{}",
                value["completed"], value["failed"], value["total"]
            )
        }
        "error" if value.is_object() => format!("error={}", value["error"]),
        _ => format!("{name}={value}"),
    }
}

fn shown(payloads: Option<&Payloads>) -> String {
    json_or_null(payloads.and_then(|p| p.payloads.first())).to_string()
}

fn effect_line(effect: &Effect) -> String {
    match effect {
        Effect::StatusChanged(change) => format!("webhook {}", change.status.event_type()),
        Effect::CompensationFailed(record) => {
            format!(
                "record {} {} after {} attempts: {}",
                record.task_id, record.status, record.attempts_made, record.failure
            )
        }
    }
}
