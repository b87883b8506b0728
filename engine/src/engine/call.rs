//! What arrives in the engine's inbox.

use orchestrion_history::ids::{Namespace, TaskQueueName};
use orchestrion_history::request::{Request, StartWorkflow};
use orchestrion_history::state::MutableState;
use orchestrion_history::store::{Op, QueueKind};
use orchestrion_proto::temporal::api::query::v1::WorkflowQuery;
use orchestrion_proto::temporal::api::update;
use tokio::sync::{mpsc, oneshot};

use super::handle::{Accepted, CallError, Dispatch, Presence, Progress, SessionId, Target};
use super::matching::{Described, Leaving, Poll};
use super::polling::{
    Completed, Completion, QueryOutcome, QueryTask, Started, UpdateProgress, UpdateStage,
    WorkflowTaskDispatch,
};

/// A task whose poller is gone.
pub enum GivenBack {
    /// A turn of workflow code.
    WorkflowTask(Box<WorkflowTaskDispatch>),
    /// A question.
    Query(Box<QueryTask>),
    /// An attempt of an activity.
    Activity(Box<Dispatch>),
}

impl From<super::matching::Polled> for GivenBack {
    fn from(polled: super::matching::Polled) -> Self {
        use super::matching::Polled;
        match polled {
            Polled::WorkflowTask(task) => Self::WorkflowTask(task),
            Polled::Query(query) => Self::Query(query),
            Polled::Activity(dispatch) => Self::Activity(dispatch),
        }
    }
}

/// One message to the engine thread.
pub enum Call {
    /// Something asked of one execution.
    Request {
        /// Which.
        target: Target,
        /// What.
        request: Box<Request>,
        /// Who waits for the answer.
        reply: ReplyTo,
    },
    /// The same, with what is written in its batch if it is accepted.
    Recorded {
        /// Which.
        target: Target,
        /// What.
        request: Box<Request>,
        /// Of the registry's shard.
        ops: Vec<Op>,
        /// Learns when both are durable.
        reply: oneshot::Sender<Result<Accepted, CallError>>,
    },
    /// A worker on a stream wants tasks.
    Attach {
        /// `None` serves every tenant.
        namespace: Option<Namespace>,
        /// Which tasks.
        queue: TaskQueueName,
        /// Who.
        poller: Poller,
        /// Learns the session's id.
        reply: oneshot::Sender<SessionId>,
    },
    /// A session has one more free slot.
    Release {
        /// Which.
        session: SessionId,
    },
    /// A session takes no more tasks, but still answers those it has.
    Pause {
        /// Which.
        session: SessionId,
    },
    /// A session ended.
    Detach {
        /// Which.
        session: SessionId,
    },
    /// Who serves a queue?
    Presence {
        /// The tenant.
        namespace: Namespace,
        /// The queue.
        queue: TaskQueueName,
        /// Learns it.
        reply: oneshot::Sender<Presence>,
    },
    /// Registry records to commit.
    Put {
        /// All keys are of the registry shard.
        ops: Vec<Op>,
        /// Learns when they are durable.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// A run is to leave the store. It has to be closed.
    Remove {
        /// Which run.
        target: Target,
        /// Registry records of the same batch: who asked for it.
        beside: Vec<Op>,
        /// Learns when it is gone.
        reply: oneshot::Sender<Result<(), CallError>>,
    },
    /// Tell me when this run has more than `seen` records or is closed.
    Watch {
        /// Which run.
        target: Target,
        /// Records the caller has seen.
        seen: u64,
        /// Learns the progress.
        reply: oneshot::Sender<Result<Progress, CallError>>,
    },
    /// The state of a run.
    Inspect {
        /// Which run.
        target: Target,
        /// Learns it.
        reply: oneshot::Sender<Result<Box<MutableState>, CallError>>,
    },
    /// A worker asks for one task.
    Poll {
        /// The tenant.
        namespace: Namespace,
        /// Which tasks.
        kind: QueueKind,
        /// Of which queue.
        queue: TaskQueueName,
        /// Who, and where the task goes.
        poll: Poll,
    },
    /// What was given to a poll came back: its caller is gone.
    GiveBack(GivenBack),
    /// A worker completed a workflow task.
    CompleteWorkflowTask {
        /// With what.
        completion: Box<Completion>,
        /// Learns what follows.
        reply: oneshot::Sender<Result<Completed, CallError>>,
    },
    /// Starts a run whose starter takes its first workflow task.
    StartEagerly {
        /// Which.
        target: Target,
        /// With what.
        start: Box<StartWorkflow>,
        /// Who.
        identity: String,
        /// Learns of it.
        reply: oneshot::Sender<Result<Started, CallError>>,
    },
    /// Which workflow task does a worker have now?
    TaskAtWork {
        /// Of which run.
        target: Target,
        /// Learns it.
        reply: oneshot::Sender<Result<Option<WorkflowTaskDispatch>, CallError>>,
    },
    /// An update, or a wish to hear of one.
    Update {
        /// Of which run.
        target: Target,
        /// Which update.
        id: String,
        /// The update; `None` only waits for it.
        request: Option<Box<update::v1::Request>>,
        /// How far it has to come.
        wait: UpdateStage,
        /// Learns how far it came.
        reply: oneshot::Sender<Result<UpdateProgress, CallError>>,
    },
    /// A question to workflow code.
    Query {
        /// Which run.
        target: Target,
        /// What is asked.
        query: Box<WorkflowQuery>,
        /// Learns the answer.
        reply: oneshot::Sender<Result<QueryOutcome, CallError>>,
    },
    /// A worker answers a question it was given.
    AnswerQuery {
        /// The tenant.
        namespace: Namespace,
        /// Which question.
        id: u64,
        /// What it says.
        outcome: Box<QueryOutcome>,
        /// Learns whether somebody waited for it.
        reply: oneshot::Sender<bool>,
    },
    /// Who polls a queue, and what waits there?
    DescribeQueue {
        /// The tenant.
        namespace: Namespace,
        /// Which tasks.
        kind: QueueKind,
        /// Of which queue.
        queue: TaskQueueName,
        /// Learns it.
        reply: oneshot::Sender<Described>,
    },
    /// A worker leaves.
    Leave {
        /// The tenant.
        namespace: Namespace,
        /// Who, and where it polled.
        leaving: Leaving,
    },
    /// A run's next workflow tasks go to any worker.
    ResetSticky {
        /// Which run.
        target: Target,
    },
    /// Finish what was accepted, then stop.
    Stop,
}

/// The answer to a request that was asked under a number.
pub type NumberedAnswer = (u64, Result<Accepted, CallError>);

/// Who waits for the answer to a request.
pub enum ReplyTo {
    /// A caller outside.
    Caller(oneshot::Sender<Result<Accepted, CallError>>),
    /// A caller outside who asks many things and tells the answers apart by number.
    Numbered(u64, mpsc::UnboundedSender<NumberedAnswer>),
    /// Nobody: the engine itself asked.
    Nobody,
}

/// A worker on a stream.
pub struct Poller {
    /// Shown in history.
    pub identity: String,
    /// Free slots at the start.
    pub window: u32,
    /// Where its tasks go.
    pub tasks: mpsc::UnboundedSender<Dispatch>,
}
