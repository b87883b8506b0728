//! MutableState: what is true of one run, as a fold of its journal says.
//!
//! Payloads and failures are kept as their encoded bytes: they are carried, never looked into, and a snapshot writes them as they
//! are. They compare by meaning: protobuf maps have no order, so equal messages may differ in bytes.
//!
//! Invariant: two folds of the same journal give equal states; nothing here came from anywhere else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::common::v1::{Header, Payload, Payloads, Priority};
use orchestrion_proto::temporal::api::enums::v1::WorkflowExecutionStatus;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowExecutionStartedEventAttributes,
};
use wincode::{SchemaRead, SchemaWrite};

use crate::ids::Timestamp;

macro_rules! carried {
    ($(#[$doc:meta])* $name:ident, $message:ty) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, SchemaRead, SchemaWrite)]
        pub struct $name(Vec<u8>);

        impl $name {
            /// Carries a message; none is carried as nothing.
            pub fn new(message: Option<&$message>) -> Self {
                Self(message.map(Message::encode_to_vec).unwrap_or_default())
            }

            /// The message, if one is carried.
            pub fn get(&self) -> Option<$message> {
                if self.0.is_empty() { None } else { <$message>::decode(&self.0[..]).ok() }
            }

            /// Its bytes.
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether nothing is carried.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0 || (self.0.len() == other.0.len() && self.get() == other.get())
            }
        }
    };
}

carried!(
    /// Payloads, carried.
    CarriedPayloads,
    Payloads
);
carried!(
    /// A payload, carried.
    CarriedPayload,
    Payload
);
carried!(
    /// A header, carried.
    CarriedHeader,
    Header
);
carried!(
    /// A failure, carried.
    CarriedFailure,
    Failure
);
carried!(
    /// How an activity is tried, carried.
    CarriedOptions,
    ActivityOptions
);
carried!(
    /// A priority, carried.
    CarriedPriority,
    Priority
);
carried!(
    /// An event without an id, carried.
    CarriedEvent,
    HistoryEvent
);

carried!(
    /// The attributes of a run's first event, carried.
    CarriedStart,
    WorkflowExecutionStartedEventAttributes
);

carried!(
    /// A request for an update, carried.
    CarriedUpdate,
    orchestrion_proto::temporal::api::update::v1::Request
);

/// What is true of one run. The default is a run that does not exist yet.
#[derive(Debug, Clone, PartialEq, Default, SchemaRead, SchemaWrite)]
pub struct MutableState {
    /// As callers name it.
    pub workflow_id: String,
    /// As events name it.
    pub run_id: String,
    /// What code runs it.
    pub workflow_type: String,
    /// Where its workflow tasks wait.
    pub task_queue: String,
    /// Where it stands.
    pub status: Status,
    /// The request that created it.
    pub create_request_id: String,
    /// Nanoseconds since the Unix epoch.
    pub started_at: i64,
    /// Nanoseconds since the Unix epoch; 0 while open.
    pub closed_at: i64,
    /// Nanoseconds since the Unix epoch at which the run times out; 0 never.
    pub run_deadline: i64,
    /// Nanoseconds a workflow task may take.
    pub task_timeout: i64,
    /// The id the next event gets, from 1.
    pub next_event_id: i64,
    /// Records in the journal, events and notes.
    pub records: u64,
    /// Bytes of its events.
    pub history_bytes: u64,
    /// Bytes of its notes.
    pub note_bytes: u64,
    /// The one workflow task a run can have.
    pub workflow_task: WorkflowTask,
    /// The `WorkflowTaskCompleted` written last; 0 before the first.
    pub completed_event_id: i64,
    /// Since when workflow tasks follow one another with nothing between them (a worker that keeps its task alive), nanoseconds since the
    /// Unix epoch; 0 before the first.
    pub task_since: i64,
    /// The id of the `WorkflowTaskStarted` of the last completed workflow task; 0 before the first.
    pub previous_started_event_id: i64,
    /// The first workflow task waits until then; 0 does not wait.
    pub first_task_at: i64,
    /// Activities that are not closed, by scheduling event.
    pub activities: BTreeMap<i64, Activity>,
    /// Their ids.
    pub activity_ids: BTreeMap<String, i64>,
    /// Timers that have neither fired nor been cancelled, by id.
    pub timers: BTreeMap<String, Timer>,
    /// Request ids of signals received.
    pub signal_request_ids: BTreeSet<String>,
    /// Signals received.
    pub signals: u64,
    /// Whether cancellation was asked for, and by which request.
    pub cancel_requested: Option<String>,
    /// Of the run; its activities and children inherit what they leave open.
    pub priority: CarriedPriority,
    /// Memo fields.
    pub memo: BTreeMap<String, CarriedPayload>,
    /// Search attributes.
    pub search_attributes: BTreeMap<String, CarriedPayload>,
    /// Events that arrived while a workflow task ran, without ids.
    pub buffered: VecDeque<CarriedEvent>,
    /// How it began. Without its input and header, unless a further run of its chain would need them again.
    pub begun: CarriedStart,
    /// The first run of its chain.
    pub first_run_id: String,
    /// The run that its history began with: another than itself after a reset.
    pub original_run_id: String,
    /// Nanoseconds since the Unix epoch at which its first workflow task was or is due.
    pub executable_at: i64,
    /// 1 for the first run; each retry of the workflow counts one more.
    pub attempt: i32,
    /// What follows a failure of the run, if anything.
    pub retry: Option<Retry>,
    /// When further runs follow; empty is never.
    pub cron_schedule: String,
    /// Nanoseconds since the Unix epoch at which its chain times out; 0 never.
    pub execution_deadline: i64,
    /// The run that follows it; empty while there is none.
    pub next_run_id: String,
    /// The run that started it as a child.
    pub parent: Option<Parent>,
    /// How its chain ended, until its parent knows.
    pub untold_close: CarriedEvent,
    /// Children that are not closed, by initiating event; behind its close those of which something is still asked.
    pub children: BTreeMap<i64, Child>,
    /// Signals and cancel requests to other runs that have not arrived yet, by initiating event.
    pub deliveries: BTreeMap<i64, Delivery>,
    /// The run that a reset made of this one; empty while there is none.
    pub reset_run_id: String,
    /// The request that reset it.
    pub reset_request_id: String,
    /// The event before which that run has its history from this one.
    pub reset_at_event_id: i64,
    /// Updates that were accepted, by id; their outcomes stand in events.
    pub updates: BTreeMap<String, Update>,
    /// Request ids of starts that attached to this run.
    pub attached_request_ids: BTreeSet<String>,
    /// Since when and why nothing further is handed out.
    pub paused: Option<Pause>,
    /// The request that ended the last pause; empty before the first.
    pub unpause_request_id: String,
    /// How many of the activities are paused.
    pub activities_paused: u32,
    /// Why its workflow tasks keep failing, if they do.
    pub problem: Option<Problem>,
}

/// An update.
#[derive(Debug, Clone, PartialEq, SchemaRead, SchemaWrite)]
pub enum Update {
    /// A reset brought it over from another run: workflow code is to be asked again.
    Admitted {
        /// What was asked.
        request: CarriedUpdate,
    },
    /// Workflow code carries it out.
    Accepted {
        /// The event that says so.
        accepted_event_id: i64,
    },
    /// It has an outcome.
    Completed {
        /// The event that says it was accepted.
        accepted_event_id: i64,
        /// The event that holds the outcome.
        completed_event_id: i64,
    },
}

/// The run that started a child.
#[derive(Debug, Clone, PartialEq, Eq, Default, SchemaRead, SchemaWrite)]
pub struct Parent {
    /// Its tenant.
    pub namespace: String,
    /// Its workflow id.
    pub workflow_id: String,
    /// Its run.
    pub run_id: String,
    /// Its event that initiated the child.
    pub initiated_event_id: i64,
}

/// A child that is not closed.
#[derive(Debug, Clone, PartialEq, SchemaRead, SchemaWrite)]
pub struct Child {
    /// Its tenant, as the command names it.
    pub namespace: String,
    /// Its workflow id.
    pub workflow_id: String,
    /// Its first run; empty before it is started.
    pub run_id: String,
    /// What code runs it.
    pub workflow_type: String,
    /// What becomes of it when its parent closes.
    pub policy: ClosePolicy,
    /// Nanoseconds since the Unix epoch.
    pub initiated_at: i64,
    /// What it is to be started with, until it is.
    pub initiated: CarriedEvent,
    /// The event that says it was started; 0 before that is written.
    pub started_event_id: i64,
    /// Where it stands.
    pub stage: ChildStage,
}

/// Where a child stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub enum ChildStage {
    /// To be started.
    Initiated,
    /// It runs.
    Started,
    /// Its end is known and waits in the buffer for the workflow task to end.
    Settled,
}

/// What becomes of a child when its parent closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub enum ClosePolicy {
    /// It is terminated.
    Terminate,
    /// It goes on.
    Abandon,
    /// It is asked to cancel itself.
    RequestCancel,
}

/// A signal or cancel request to another run that has not arrived yet.
#[derive(Debug, Clone, PartialEq, SchemaRead, SchemaWrite)]
pub struct Delivery {
    /// What is sent where.
    pub initiated: CarriedEvent,
    /// Nanoseconds since the Unix epoch.
    pub initiated_at: i64,
    /// Its end is known and waits in the buffer for the workflow task to end.
    pub settled: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, SchemaRead, SchemaWrite)]
pub enum Status {
    /// No record yet.
    #[default]
    Void,
    /// Open.
    Running,
    /// Closed with a result.
    Completed,
    /// Closed with a failure.
    Failed,
    /// Closed on request.
    Canceled,
    /// Closed from outside.
    Terminated,
    /// Closed by its deadline.
    TimedOut,
    /// Closed; a new run goes on.
    ContinuedAsNew,
}

impl Status {
    /// Whether nothing can follow.
    pub fn is_closed(self) -> bool {
        !matches!(self, Self::Void | Self::Running)
    }

    /// As the wires and records number it.
    pub fn wire(self) -> WorkflowExecutionStatus {
        match self {
            Self::Void => WorkflowExecutionStatus::Unspecified,
            Self::Running => WorkflowExecutionStatus::Running,
            Self::Completed => WorkflowExecutionStatus::Completed,
            Self::Failed => WorkflowExecutionStatus::Failed,
            Self::Canceled => WorkflowExecutionStatus::Canceled,
            Self::Terminated => WorkflowExecutionStatus::Terminated,
            Self::TimedOut => WorkflowExecutionStatus::TimedOut,
            Self::ContinuedAsNew => WorkflowExecutionStatus::ContinuedAsNew,
        }
    }
}

/// The workflow task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default, SchemaRead, SchemaWrite)]
pub enum WorkflowTask {
    /// Nothing needs the workflow's attention.
    #[default]
    None,
    /// Waits for a worker, or runs with a start that is not committed.
    Scheduled {
        /// Its event.
        scheduled_event_id: i64,
        /// 1 for the first.
        attempt: i32,
        /// Nanoseconds since the Unix epoch.
        at: i64,
        /// A further attempt: its events are not written before it succeeds, and its id is the one that `WorkflowTaskScheduled` will get.
        transient: bool,
    },
    /// Runs, and its start is committed.
    Started {
        /// Its event.
        scheduled_event_id: i64,
        /// The event of its start.
        started_event_id: i64,
        /// 1 for the first.
        attempt: i32,
        /// Nanoseconds since the Unix epoch.
        at: i64,
        /// The poll that took it.
        request_id: String,
    },
}

/// An activity that is not closed.
#[derive(Debug, Clone, PartialEq, SchemaRead, SchemaWrite)]
pub struct Activity {
    /// The id the workflow gave it.
    pub activity_id: String,
    /// What is to be done.
    pub activity_type: String,
    /// Where it waits.
    pub task_queue: String,
    /// With what.
    pub input: CarriedPayloads,
    /// Travels beside the input.
    pub header: CarriedHeader,
    /// Nanoseconds since the Unix epoch.
    pub scheduled_at: i64,
    /// Nanoseconds; 0 is unlimited.
    pub schedule_to_close: i64,
    /// Nanoseconds; 0 is unlimited.
    pub schedule_to_start: i64,
    /// Nanoseconds; 0 is unlimited.
    pub start_to_close: i64,
    /// Nanoseconds; 0 is none.
    pub heartbeat: i64,
    /// What follows a failure.
    pub retry: Retry,
    /// As the command says it.
    pub priority: CarriedPriority,
    /// 1 for the first. It only grows, so that no two attempts have the same.
    pub attempt: i32,
    /// How many of them were before somebody had it begin anew.
    pub attempts_before: i32,
    /// When this attempt could first be taken, nanoseconds since the Unix epoch.
    pub attempt_scheduled_at: i64,
    /// When the attempt before it ended, nanoseconds since the Unix epoch; 0 when there was none.
    pub attempt_ended_at: i64,
    /// Where the attempt stands.
    pub stage: Stage,
    /// Of the attempt before.
    pub last_failure: CarriedFailure,
    /// Of the last heartbeat.
    pub heartbeat_details: CarriedPayloads,
    /// The event that asked for cancellation; 0 is none.
    pub cancel_requested_event_id: i64,
    /// Whether no worker was connected when the attempt wanted one.
    pub waiting: bool,
    /// Since when and why no further attempt starts.
    pub paused: Option<Pause>,
    /// Somebody wants it to begin anew when the attempt that runs fails.
    pub reset: Option<PendingReset>,
    /// What it was scheduled with, where that was changed.
    pub original_options: CarriedOptions,
}

/// Why the workflow tasks of a run keep failing: of the last attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub enum Problem {
    /// A worker said so; the cause as `temporal.api.enums.v1.WorkflowTaskFailedCause` numbers it.
    Failed(i32),
    /// No worker answered in time.
    TimedOut,
}

/// Why something does not go on until somebody says so.
#[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub struct Pause {
    /// Nanoseconds since the Unix epoch.
    pub at: i64,
    /// Who wanted it.
    pub identity: String,
    /// What they said.
    pub reason: String,
    /// The request that asked for it.
    pub request_id: String,
}

/// What becomes of an activity that is to begin anew, beside its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub struct PendingReset {
    /// Whether the details of the last heartbeat are forgotten.
    pub heartbeat: bool,
}

/// Where an attempt stands.
#[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub enum Stage {
    /// In its queue.
    Queued,
    /// Waits for its time to be queued again.
    Backoff {
        /// Nanoseconds since the Unix epoch.
        until: i64,
    },
    /// A worker has it.
    Started {
        /// Nanoseconds since the Unix epoch.
        at: i64,
        /// Nanoseconds since the Unix epoch: the start or the last heartbeat.
        heartbeat_at: i64,
        /// Who has it.
        identity: String,
        /// The poll that took it.
        request_id: String,
        /// It returns when its worker's connection ends.
        on_stream: bool,
    },
    /// Its outcome is known and waits in the buffer for the workflow task to end.
    Settled,
}

/// A normalised retry policy.
#[derive(Debug, Clone, PartialEq, Default, SchemaRead, SchemaWrite)]
pub struct Retry {
    /// Nanoseconds before the second attempt.
    pub initial: i64,
    /// Factor of each further wait.
    pub factor: f64,
    /// Nanoseconds; the longest wait.
    pub maximum: i64,
    /// 0 is unlimited.
    pub attempts: i32,
    /// Application failure types that end it.
    pub non_retryable: Vec<String>,
}

/// A timer that has neither fired nor been cancelled.
#[derive(Debug, Clone, PartialEq, Eq, SchemaRead, SchemaWrite)]
pub struct Timer {
    /// Its event.
    pub started_event_id: i64,
    /// Nanoseconds since the Unix epoch.
    pub fire_at: i64,
    /// It has fired, and the event waits in the buffer for the workflow task to end.
    pub fired: bool,
}

impl MutableState {
    /// Whether work can go on.
    pub fn is_running(&self) -> bool {
        self.status == Status::Running
    }

    /// Its status as listings and descriptions number it: a paused run is open, and says that it is paused.
    pub fn listed_status(&self) -> WorkflowExecutionStatus {
        match (self.status, &self.paused) {
            (Status::Running, Some(_)) => WorkflowExecutionStatus::Paused,
            (status, _) => status.wire(),
        }
    }

    /// The next instant at which something of this run is due by itself, if anything is. A pure function of the state: the timer
    /// index is rebuilt with it.
    pub fn next_due(&self) -> Option<Timestamp> {
        let outward = crate::outward::due(self);
        if !self.is_running() {
            return outward;
        }
        // A paused run's first workflow task waits for the end of the pause.
        let first_task_at = match self.paused {
            Some(_) => 0,
            None => self.first_task_at,
        };
        let fixed = [self.run_deadline, first_task_at];
        fixed
            .into_iter()
            .filter(|at| *at > 0)
            .chain(outward.map(|at| at.0))
            .chain(self.workflow_task_due())
            .chain(
                self.timers
                    .values()
                    .filter(|timer| !timer.fired)
                    .map(|timer| timer.fire_at),
            )
            .chain(
                self.activities
                    .values()
                    .filter_map(|activity| activity.next_due(self.holds_back(activity))),
            )
            .min()
            .map(Timestamp)
    }

    /// Whether no further attempt of an activity starts before somebody says so.
    pub fn holds_back(&self, activity: &Activity) -> bool {
        self.paused.is_some() || activity.paused.is_some()
    }

    /// How long an attempt of a workflow task may take, in nanoseconds: from the fourth on ever longer, which is how retries are paced
    /// (`temporal-wire` section 2.1).
    pub fn task_timeout_of(&self, attempt: i32) -> i64 {
        const PACED_FROM: i32 = 4;
        const FIRST: i64 = 5_000_000_000;
        const LONGEST: i64 = 600_000_000_000;
        let longer = match attempt - PACED_FROM {
            steps if steps < 0 => 0,
            steps => FIRST.saturating_mul(1 << steps.min(20)).min(LONGEST),
        };
        self.task_timeout.saturating_add(longer)
    }

    fn workflow_task_due(&self) -> Option<i64> {
        match &self.workflow_task {
            WorkflowTask::Started { at, attempt, .. } => {
                Some(at.saturating_add(self.task_timeout_of(*attempt)))
            }
            WorkflowTask::Scheduled { .. } | WorkflowTask::None => None,
        }
    }
}

impl Activity {
    /// The attempt's number, from 1, as workers and history know it: counted anew when somebody has the activity begin anew.
    pub fn number(&self) -> i32 {
        self.attempt - self.attempts_before
    }

    /// When this activity is due by itself: a retry's time, or the earliest of its timeouts. The wait in its queue has none while it is
    /// held back from it.
    pub fn next_due(&self, held_back: bool) -> Option<i64> {
        let close = after(self.scheduled_at, self.schedule_to_close);
        match &self.stage {
            Stage::Queued if held_back => close,
            Stage::Queued => min(
                close,
                after(self.attempt_scheduled_at, self.schedule_to_start),
            ),
            Stage::Backoff { until } => min(close, Some(*until)),
            Stage::Settled => None,
            Stage::Started {
                at, heartbeat_at, ..
            } => min(
                close,
                min(
                    after(*at, self.start_to_close),
                    after(*heartbeat_at, self.heartbeat),
                ),
            ),
        }
    }
}

/// `from` plus a timeout in nanoseconds, where 0 is none.
pub(crate) fn after(from: i64, timeout: i64) -> Option<i64> {
    (timeout > 0).then(|| from.saturating_add(timeout))
}

fn min(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
