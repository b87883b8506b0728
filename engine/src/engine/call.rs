//! What arrives in the engine's inbox.

use orchestrion_history::ids::{Namespace, TaskQueueName};
use orchestrion_history::request::Request;
use orchestrion_history::state::MutableState;
use orchestrion_history::store::Op;
use tokio::sync::{mpsc, oneshot};

use super::handle::{Accepted, CallError, Dispatch, Presence, Progress, SessionId, Target};

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
    /// Finish what was accepted, then stop.
    Stop,
}

/// Who waits for the answer to a request.
pub enum ReplyTo {
    /// A caller outside.
    Caller(oneshot::Sender<Result<Accepted, CallError>>),
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
