//! Requests: everything that can change an execution, from any wire, and what may come of it.
//!
//! Invariant: the list is closed; whatever is late or random (time, ids) came in with the request.

mod operator;

pub use self::operator::{
    ActivityChoice, OptionsChange, PauseActivity, PauseWorkflow, ResetActivity, UnpauseActivity,
    UnpauseWorkflow, UpdateActivityOptions,
};

use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::common::v1::{
    Callback, Header, Link, Memo, MeteringMetadata, Payload, Payloads, Priority, RetryPolicy,
    SearchAttributes, WorkerVersionStamp,
};
use orchestrion_proto::temporal::api::deployment::v1::WorkerDeploymentVersion;
use orchestrion_proto::temporal::api::enums::v1::{
    ContinueAsNewInitiator, RetryState, StartChildWorkflowExecutionFailedCause,
    WorkflowIdConflictPolicy, WorkflowIdReusePolicy, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::protocol::v1::Message as ProtocolMessage;
use orchestrion_proto::temporal::api::sdk::v1::UserMetadata;
use orchestrion_proto::temporal::api::update::v1::{
    Outcome as UpdateOutcome, Request as UpdateRequest,
};
use orchestrion_proto::temporal::api::workflow::v1::VersioningOverride;

use crate::ids::{RunId, Timestamp};
use crate::record::Record;

/// Something asked of one execution.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Creates a run. Only a run that does not exist can be started.
    Start(Box<StartWorkflow>),
    /// A worker completed a workflow task with commands.
    CompleteWorkflowTask(Box<CompleteWorkflowTask>),
    /// A worker could not complete a workflow task.
    FailWorkflowTask(Box<FailWorkflowTask>),
    /// A worker takes an attempt of an activity.
    StartActivityAttempt(StartActivityAttempt),
    /// An activity succeeded.
    CompleteActivity(Box<CompleteActivity>),
    /// An activity failed.
    FailActivity(Box<FailActivity>),
    /// A worker confirms that it cancelled an activity.
    ConfirmActivityCanceled(Box<ConfirmActivityCanceled>),
    /// A worker is alive; its details survive into the next attempt.
    HeartbeatActivity(Box<HeartbeatActivity>),
    /// A service pushed an update for its callers.
    ReportActivityProgress(Box<ReportActivityProgress>),
    /// The worker's connection was lost: the attempt goes back, uncounted.
    ReturnActivityAttempt(ReturnActivityAttempt),
    /// No worker is connected to the activity's queue.
    MarkActivityWaiting(MarkActivityWaiting),
    /// No further attempt of an activity starts.
    PauseActivity(PauseActivity),
    /// Paused activities go on.
    UnpauseActivity(UnpauseActivity),
    /// Activities begin anew.
    ResetActivity(ResetActivity),
    /// Activities are tried otherwise.
    UpdateActivityOptions(Box<UpdateActivityOptions>),
    /// No further task of the run is handed out.
    Pause(PauseWorkflow),
    /// A paused run goes on.
    Unpause(UnpauseWorkflow),
    /// A signal from outside.
    Signal(Box<SignalWorkflow>),
    /// Asks the run to cancel itself.
    RequestCancel(Box<RequestCancelWorkflow>),
    /// Ends the run at once; nothing of it runs any more.
    Terminate(Box<TerminateWorkflow>),
    /// Whatever is due at the request's time fires.
    FireTimers,
    /// A start met this open run and attaches to it.
    Attach(Box<AttachStart>),
    /// A child that this run initiated has been started.
    ChildStarted(ChildStarted),
    /// A child that this run initiated cannot be started.
    ChildStartFailed(ChildStartFailed),
    /// The last run of a child's chain has closed.
    ChildClosed(Box<ChildClosed>),
    /// A signal or cancel request that this run sent has arrived, or cannot.
    Delivered(Delivered),
    /// What this run's close asked of another run is done.
    CloseFollowed(CloseFollowed),
    /// Another run begins with a part of this one's history, and this one ends.
    Reset(Box<ResetWorkflow>),
}

/// See [`Request::Start`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StartWorkflow {
    /// The run to create.
    pub run_id: RunIdText,
    /// Its workflow id.
    pub workflow_id: String,
    /// What code runs it.
    pub workflow_type: String,
    /// Where its workflow tasks wait.
    pub task_queue: String,
    /// Its arguments.
    pub input: Option<Payloads>,
    /// Travels beside the input.
    pub header: Option<Header>,
    /// Shown in listings.
    pub memo: Option<Memo>,
    /// Shown in listings and searched by.
    pub search_attributes: Option<SearchAttributes>,
    /// Nanoseconds; 0 is unlimited.
    pub execution_timeout: i64,
    /// Nanoseconds; 0 is unlimited.
    pub run_timeout: i64,
    /// Nanoseconds; 0 is the default of ten seconds.
    pub task_timeout: i64,
    /// Of the whole workflow.
    pub retry_policy: Option<RetryPolicy>,
    /// Deduplicates the start.
    pub request_id: String,
    /// Who asked.
    pub identity: String,
    /// Nanoseconds before the first workflow task.
    pub first_task_backoff: i64,
    /// When further runs follow; empty is never.
    pub cron_schedule: String,
    /// The run before it in its chain, if there is one.
    pub continued: Option<Box<Continued>>,
    /// Nanoseconds since the Unix epoch at which the whole chain times out; 0 is by `execution_timeout`.
    pub execution_deadline: i64,
    /// The result of the last run of its chain that completed.
    pub last_completion_result: Option<Payloads>,
    /// The failure of the run before.
    pub continued_failure: Option<Failure>,
    /// The run that started it as a child.
    pub parent: Option<Box<ParentLink>>,
    /// The first ancestor; none is itself.
    pub root: Option<ExecutionRef>,
    /// A signal that comes with the start.
    pub signal: Option<Box<SignalWorkflow>>,
    /// What follows if the last run of this workflow id is closed.
    pub reuse: WorkflowIdReusePolicy,
    /// What follows if a run of this workflow id is open.
    pub conflict: WorkflowIdConflictPolicy,
    /// What a start leaves on the open run that it meets.
    pub on_conflict: OnConflict,
    /// Carried.
    pub priority: Option<Priority>,
    /// Carried.
    pub versioning_override: Option<VersioningOverride>,
    /// Carried.
    pub completion_callbacks: Vec<Callback>,
    /// Carried by the event.
    pub links: Vec<Link>,
    /// Carried by the event.
    pub user_metadata: Option<UserMetadata>,
    /// Whether the caller gets the first workflow task with the answer.
    pub eager: bool,
}

/// An execution, as events name it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecutionRef {
    /// Its workflow id.
    pub workflow_id: String,
    /// Its run id; empty is the newest.
    pub run_id: RunIdText,
}

/// The run before in a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct Continued {
    /// Which.
    pub run_id: RunIdText,
    /// The first of the chain.
    pub first_run_id: RunIdText,
    /// Why it goes on.
    pub initiator: ContinueAsNewInitiator,
    /// 1 for the first.
    pub attempt: i32,
}

/// The run that started a child.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParentLink {
    /// Its tenant.
    pub namespace: String,
    /// Which.
    pub execution: ExecutionRef,
    /// Its event that initiated the child.
    pub initiated_event_id: i64,
}

/// See [`StartWorkflow::on_conflict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OnConflict {
    /// The request id: a repeat then finds that run.
    pub attach_request_id: bool,
    /// The callbacks.
    pub attach_completion_callbacks: bool,
    /// The links.
    pub attach_links: bool,
}

/// See [`Request::Attach`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AttachStart {
    /// Of the start; empty attaches none.
    pub request_id: String,
    /// Who asked.
    pub identity: String,
    /// Of the start.
    pub completion_callbacks: Vec<Callback>,
    /// Of the start.
    pub links: Vec<Link>,
}

/// See [`Request::ChildStarted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStarted {
    /// The event that initiated it.
    pub initiated_event_id: i64,
    /// Its run.
    pub run_id: RunIdText,
}

/// See [`Request::ChildStartFailed`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildStartFailed {
    /// The event that initiated it.
    pub initiated_event_id: i64,
    /// Why.
    pub cause: StartChildWorkflowExecutionFailedCause,
}

/// See [`Request::ChildClosed`].
#[derive(Debug, Clone, PartialEq)]
pub struct ChildClosed {
    /// The event that initiated it.
    pub initiated_event_id: i64,
    /// Its last run.
    pub execution: ExecutionRef,
    /// How it ended.
    pub outcome: ChildOutcome,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq)]
pub enum ChildOutcome {
    /// With a result.
    Completed(Option<Payloads>),
    /// With a failure.
    Failed(Option<Box<Failure>>, RetryState),
    /// On request.
    Canceled(Option<Payloads>),
    /// From outside.
    Terminated,
    /// By its deadline.
    TimedOut(RetryState),
}

/// See [`Request::Delivered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The event that initiated it.
    pub initiated_event_id: i64,
    /// Where it arrived, or why it cannot.
    pub result: Result<(), Undeliverable>,
}

/// Why a signal or a cancel request to another run cannot arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undeliverable {
    /// No such run, or it is closed, or no child of the sender.
    ExecutionNotFound,
    /// No such namespace, or not the sender's.
    NamespaceNotFound,
    /// It has as many signals as a run may have.
    SignalLimit,
}

/// See [`Request::Reset`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResetWorkflow {
    /// The run to go back in; the engine fills it in.
    pub base_run_id: RunIdText,
    /// The run that begins; the engine fills it in.
    pub new_run_id: RunIdText,
    /// The event that ended a workflow task: what stands before it is kept.
    pub finish_event_id: i64,
    /// Why.
    pub reason: String,
    /// Deduplicates it.
    pub request_id: String,
    /// Who asked.
    pub identity: String,
    /// Leave signals from behind the boundary out.
    pub skip_signals: bool,
    /// Leave updates from behind the boundary out.
    pub skip_updates: bool,
}

/// See [`Request::CloseFollowed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFollowed {
    /// The event that initiated the child; 0 is the parent.
    pub initiated_event_id: i64,
}

/// A run id in the form events carry it.
pub type RunIdText = String;

impl From<RunId> for RunIdText {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

/// The start of a workflow task. Volatile until something that follows commits it: the worker's token carries it whole.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkflowTaskStart {
    /// The event that scheduled it.
    pub scheduled_event_id: i64,
    /// Which attempt of it.
    pub attempt: i32,
    /// When it was scheduled.
    pub scheduled_at: Timestamp,
    /// When it was handed out.
    pub at: Timestamp,
    /// The poll that took it.
    pub request_id: String,
    /// Who took it.
    pub identity: String,
    /// The last event that the worker was given.
    pub last_event_id: i64,
    /// The size of the history then.
    pub history_bytes: i64,
    /// Whether the worker is told to continue as new.
    pub suggest_continue_as_new: bool,
    /// A task that only carries updates: no record says that it was scheduled, and none will if all of them are refused.
    pub speculative: bool,
}

/// See [`Request::CompleteWorkflowTask`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompleteWorkflowTask {
    /// From the token.
    pub start: WorkflowTaskStart,
    /// What the workflow code asks for, in order.
    pub commands: Vec<Command>,
    /// Who answers.
    pub identity: String,
    /// Flags and names of the SDK, kept as given: replay needs them.
    pub sdk_metadata:
        Option<orchestrion_proto::temporal::api::sdk::v1::WorkflowTaskCompletedMetadata>,
    /// Which build of which deployment answers, and what it counted: kept as given, an SDK reads it back when it replays.
    pub worker: Option<Box<CompletedBy>>,
    /// Schedule another workflow task even if nothing asks for one.
    pub force_new_task: bool,
    /// What the workflow code answers to updates; commands name those whose place matters.
    pub messages: Vec<ProtocolMessage>,
    /// The updates that the worker was given with the task.
    pub updates: Vec<SentUpdate>,
}

/// What the worker that completed a workflow task says of itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CompletedBy {
    /// Its build.
    pub stamp: Option<WorkerVersionStamp>,
    /// Its deployment, and its build there.
    pub deployment_version: Option<WorkerDeploymentVersion>,
    /// The checksum of its program.
    pub binary_checksum: String,
    /// What it counted.
    pub metering: Option<MeteringMetadata>,
}

/// An update that a worker was given.
#[derive(Debug, Clone, PartialEq)]
pub struct SentUpdate {
    /// Its id, which is the protocol instance of its messages.
    pub update_id: String,
    /// What was asked.
    pub request: UpdateRequest,
}

/// What became of an update by a completion.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateReport {
    /// Which.
    pub update_id: String,
    /// Where it stands now.
    pub stage: UpdateStage,
}

/// Where an update stands.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateStage {
    /// Workflow code carries it out.
    Accepted {
        /// The event that says so.
        event_id: i64,
    },
    /// It has an outcome.
    Completed {
        /// The event that says so.
        event_id: i64,
        /// The outcome.
        outcome: Box<UpdateOutcome>,
    },
    /// Workflow code refused it; no record says so.
    Rejected(Box<Failure>),
}

/// See [`Request::FailWorkflowTask`].
#[derive(Debug, Clone, PartialEq)]
pub struct FailWorkflowTask {
    /// From the token.
    pub start: WorkflowTaskStart,
    /// Recorded as given.
    pub cause: WorkflowTaskFailedCause,
    /// Recorded as given.
    pub failure: Option<Failure>,
    /// Who answers.
    pub identity: String,
}

/// Which activity, and how sure the caller is of the attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActivityRef {
    /// By the id the workflow gave it: any attempt, late ones too.
    Id(String),
    /// By its scheduling event: any attempt, late ones too.
    Scheduled(i64),
    /// Exactly this attempt, which must be running.
    Attempt {
        /// Its scheduling event.
        scheduled_event_id: i64,
        /// Which attempt.
        attempt: i32,
    },
}

/// See [`Request::StartActivityAttempt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartActivityAttempt {
    /// Its scheduling event.
    pub scheduled_event_id: i64,
    /// The attempt the queue holds.
    pub attempt: i32,
    /// Who takes it.
    pub identity: String,
    /// The poll that takes it.
    pub request_id: String,
    /// On a stream: it returns when the connection ends.
    pub on_stream: bool,
}

/// See [`Request::CompleteActivity`].
#[derive(Debug, Clone, PartialEq)]
pub struct CompleteActivity {
    /// Which.
    pub activity: ActivityRef,
    /// Its result.
    pub result: Option<Payloads>,
    /// Who answers.
    pub identity: String,
}

/// See [`Request::FailActivity`].
#[derive(Debug, Clone, PartialEq)]
pub struct FailActivity {
    /// Which.
    pub activity: ActivityRef,
    /// Why. An application failure says whether it may be retried.
    pub failure: Failure,
    /// Who answers.
    pub identity: String,
    /// The details of a last heartbeat, kept for the next attempt.
    pub last_heartbeat: Option<Payloads>,
}

/// See [`Request::ConfirmActivityCanceled`].
#[derive(Debug, Clone, PartialEq)]
pub struct ConfirmActivityCanceled {
    /// Which.
    pub activity: ActivityRef,
    /// What the worker says of it.
    pub details: Option<Payloads>,
    /// Who answers.
    pub identity: String,
}

/// See [`Request::HeartbeatActivity`].
#[derive(Debug, Clone, PartialEq)]
pub struct HeartbeatActivity {
    /// Which.
    pub activity: ActivityRef,
    /// Given to the next attempt if this one fails.
    pub details: Option<Payloads>,
}

/// See [`Request::ReportActivityProgress`].
#[derive(Debug, Clone, PartialEq)]
pub struct ReportActivityProgress {
    /// Which.
    pub activity: ActivityRef,
    /// The update.
    pub update: Payload,
}

/// See [`Request::ReturnActivityAttempt`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnActivityAttempt {
    /// Its scheduling event.
    pub scheduled_event_id: i64,
    /// The attempt that was handed out.
    pub attempt: i32,
    /// For the story: why.
    pub reason: String,
}

/// See [`Request::MarkActivityWaiting`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkActivityWaiting {
    /// Its scheduling event.
    pub scheduled_event_id: i64,
    /// The attempt that waits.
    pub attempt: i32,
    /// For the story: why.
    pub reason: String,
}

/// See [`Request::Signal`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SignalWorkflow {
    /// The signal's name.
    pub name: String,
    /// Its arguments.
    pub input: Option<Payloads>,
    /// Travels beside the input.
    pub header: Option<Header>,
    /// Who sent it.
    pub identity: String,
    /// Deduplicates it within the run; empty does not.
    pub request_id: String,
    /// The run that sent it, if it was one.
    pub sender: Option<ExecutionRef>,
    /// Carried by the event.
    pub links: Vec<Link>,
    /// Whether it asks for the run's end: history then holds a cancel request right behind it, unless it holds one already.
    pub cancels: bool,
    /// Whether a run whose start was delayed begins now: a signal that comes with a start says so, one alone does not.
    pub ends_start_delay: bool,
}

/// See [`Request::RequestCancel`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestCancelWorkflow {
    /// Why.
    pub reason: String,
    /// Who asked.
    pub identity: String,
    /// Deduplicates it.
    pub request_id: String,
    /// The run that asked and its event that says so, if it was one.
    pub sender: Option<(ExecutionRef, i64)>,
}

/// See [`Request::Terminate`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TerminateWorkflow {
    /// Why.
    pub reason: String,
    /// More of it.
    pub details: Option<Payloads>,
    /// Who asked.
    pub identity: String,
}

/// What one accepted request changes: committed atomically, then answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Transition {
    /// Appended to the journal, in order. Empty: nothing changes.
    pub records: Vec<Record>,
    /// What the caller learns.
    pub reply: Reply,
    /// The run that begins with this one's end: it has to be started in the same commit.
    pub next_run: Option<Box<StartWorkflow>>,
}

impl Transition {
    /// Nothing changes, and the caller learns this.
    pub fn nothing(reply: Reply) -> Self {
        Self {
            reply,
            ..Self::default()
        }
    }
}

/// What the caller of an accepted request learns.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Reply {
    /// It is done.
    #[default]
    Done,
    /// It was done before, by a request with the same id.
    Repeated,
    /// No run was started: the one that is open is used.
    Existing,
    /// The workflow task is completed, and it had to do with updates.
    Updates {
        /// What became of them, in order; one that was accepted and completed stands here twice.
        reports: Vec<UpdateReport>,
        /// Whether the task was speculative and leaves no record.
        discarded: bool,
    },
    /// The workflow task is recorded as failed: what the worker asked for cannot be done.
    TaskFailed {
        /// As history says it.
        cause: WorkflowTaskFailedCause,
        /// What was wrong.
        message: String,
    },
    /// The heartbeat is noted.
    Heartbeat {
        /// The workflow wants this activity cancelled.
        cancel_requested: bool,
        /// No further attempt will start before somebody says so.
        paused: bool,
        /// Somebody wants it to begin anew.
        reset: bool,
    },
    /// The options of an activity, changed.
    ActivityOptions(Box<ActivityOptions>),
}

/// Why a request changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No such execution, task, activity or timer, or not any more.
    #[error("{what} not found: {why}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// Which, and why it is not there.
        why: String,
    },
    /// The execution has ended.
    #[error("workflow execution already completed")]
    Closed,
    /// An open run of the workflow id exists.
    #[error("workflow execution {workflow_id} is already running as run {run_id}")]
    AlreadyStarted {
        /// The id asked for.
        workflow_id: String,
        /// The run that has it.
        run_id: String,
        /// The request that created that run.
        request_id: String,
    },
    /// Not now; it can be asked again once something else has happened.
    #[error("{0}")]
    NotReady(String),
    /// The workflow id was used before, and the start does not allow another run.
    #[error(
        "workflow id {workflow_id} was used by run {run_id}, which has ended: allow duplicates or choose another id"
    )]
    IdUsed {
        /// The id asked for.
        workflow_id: String,
        /// The run that had it.
        run_id: String,
        /// The request that created that run.
        request_id: String,
    },
    /// The request itself is wrong; the same again will be refused again.
    #[error("{0}")]
    Invalid(String),
    /// A limit of the run is reached.
    #[error("{what} limit reached: {max} {unit} are allowed")]
    Limit {
        /// What is limited.
        what: &'static str,
        /// How many.
        max: u64,
        /// Of what.
        unit: &'static str,
    },
}
