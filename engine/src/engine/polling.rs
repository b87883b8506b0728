//! What workers of workflow code and of polled activities ask of the engine: polls, completions, questions.

use std::collections::HashMap;

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, RunId, TaskQueueName, WorkflowId};
use orchestrion_history::request::{CompleteWorkflowTask, Reply, StartWorkflow, WorkflowTaskStart};
use orchestrion_history::store::QueueKind;
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::protocol::v1::Message;
use orchestrion_proto::temporal::api::query::v1::{WorkflowQuery, WorkflowQueryResult};
use orchestrion_proto::temporal::api::update;
use orchestrion_proto::temporal::api::update::v1::Outcome;
use tokio::sync::oneshot;

use super::call::Call;
use super::handle::{Accepted, CallError, Dispatch, Handle, Target};
use super::matching::{Described, Leaving, Poll, PollAnswer, Poller};

/// A turn of workflow code, handed to a worker. Its start is volatile: `start` is what the worker's token has to carry.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkflowTaskDispatch {
    /// The tenant.
    pub namespace: Namespace,
    /// The execution.
    pub workflow_id: WorkflowId,
    /// Its run.
    pub run_id: RunId,
    /// What code runs it.
    pub workflow_type: String,
    /// The run's own queue, also when a sticky queue brought the task.
    pub task_queue: String,
    /// The start that no record holds yet.
    pub start: WorkflowTaskStart,
    /// The id its `WorkflowTaskStarted` will get.
    pub started_event_id: i64,
    /// The start of the task before; 0 is none.
    pub previous_started_event_id: i64,
    /// The last event in the journal.
    pub last_event_id: i64,
    /// Whether the worker has the history up to the task before.
    pub sticky: bool,
    /// Whether its `WorkflowTaskScheduled` is not written either.
    pub unwritten: bool,
    /// How long it may take, nanoseconds.
    pub timeout: i64,
    /// Questions to answer with the completion, by id.
    pub queries: HashMap<String, WorkflowQuery>,
    /// Updates to accept or refuse with the completion.
    pub messages: Vec<Message>,
    /// The encoded history that its worker lacks; `None`: it is to be read.
    pub history: Option<Bytes>,
}

impl WorkflowTaskDispatch {
    /// The first event that its worker lacks.
    pub fn first_event_id(&self) -> i64 {
        if self.sticky {
            self.previous_started_event_id + 1
        } else {
            1
        }
    }
}

/// A question to workflow code, handed to a worker by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryTask {
    /// Its id, for the answer.
    pub id: u64,
    /// The tenant.
    pub namespace: Namespace,
    /// The execution.
    pub workflow_id: WorkflowId,
    /// Its run.
    pub run_id: RunId,
    /// What code runs it.
    pub workflow_type: String,
    /// The run's own queue.
    pub task_queue: String,
    /// What is asked.
    pub query: WorkflowQuery,
    /// Whether the worker has the history.
    pub sticky: bool,
    /// The start of the last task.
    pub previous_started_event_id: i64,
    /// The last event in the journal.
    pub last_event_id: i64,
}

/// What workflow code answers.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryOutcome {
    /// A result.
    Answered(Option<Payloads>),
    /// It could not answer.
    Failed {
        /// Why.
        message: String,
        /// More of it.
        failure: Option<Box<Failure>>,
    },
}

/// How far an update has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UpdateStage {
    /// It waits for workflow code.
    Admitted,
    /// Workflow code has accepted it, and history says so.
    Accepted,
    /// It has its outcome.
    Completed,
}

/// What is known of an update.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateProgress {
    /// The run it is for.
    pub run_id: RunId,
    /// How far it has come.
    pub stage: UpdateStage,
    /// What it came to, once it is completed.
    pub outcome: Option<Outcome>,
}

/// Where a worker wants the run's next workflow tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sticky {
    /// Its own queue.
    pub queue: TaskQueueName,
    /// How long a task may wait there, nanoseconds; 0 is the default of 10 s.
    pub timeout: i64,
}

/// A worker's answer to a workflow task.
#[derive(Debug)]
pub struct Completion {
    /// Which run.
    pub target: Target,
    /// What the code asks for.
    pub complete: CompleteWorkflowTask,
    /// Where it wants the next task; none is anywhere.
    pub sticky: Option<Sticky>,
    /// Whether it takes the next task with the answer.
    pub return_new: bool,
    /// Activities, by id, that it would start at once.
    pub eager: Vec<String>,
    /// Answers to the questions that came with the task.
    pub query_results: HashMap<String, WorkflowQueryResult>,
    /// An id for what is handed out with the answer.
    pub request_id: String,
}

/// What a worker gets for its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completed {
    /// What the core said.
    pub reply: Reply,
    /// The next task, started.
    pub next: Option<Box<WorkflowTaskDispatch>>,
    /// Activities, started.
    pub activities: Vec<Dispatch>,
    /// The event to which the worker goes back, if nothing of its task is written; 0 is none.
    pub reset_to: i64,
}

/// A run that was started, and its first task if the starter takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Started {
    /// As by [`Handle::start`].
    pub accepted: Accepted,
    /// The first task, started.
    pub task: Option<Box<WorkflowTaskDispatch>>,
}

impl Handle {
    /// Asks for one task of a queue.
    pub fn poll(
        &self,
        namespace: Namespace,
        kind: QueueKind,
        queue: TaskQueueName,
        worker: Poller,
        request_id: String,
    ) -> Result<PollAnswer, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Poll {
            namespace,
            kind,
            queue,
            poll: Poll {
                worker,
                request_id,
                reply,
            },
        })?;
        Ok(PollAnswer {
            answer,
            handle: self.clone(),
        })
    }

    /// Completes a workflow task; answered after the commit.
    pub async fn complete_workflow_task(
        &self,
        completion: Completion,
    ) -> Result<Completed, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::CompleteWorkflowTask {
            completion: Box::new(completion),
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Starts a run whose starter takes its first workflow task.
    pub async fn start_eagerly(
        &self,
        target: Target,
        start: StartWorkflow,
        identity: String,
    ) -> Result<Started, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::StartEagerly {
            target,
            start: Box::new(start),
            identity,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// The workflow task that a worker has now, if its start is not written.
    pub async fn task_at_work(
        &self,
        target: Target,
    ) -> Result<Option<WorkflowTaskDispatch>, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::TaskAtWork { target, reply })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Sends an update and waits until it has come as far as `wait`; the same id again finds the same update. Without a request it only
    /// waits. Drop the future to stop waiting.
    pub async fn update(
        &self,
        target: Target,
        id: String,
        request: Option<update::v1::Request>,
        wait: UpdateStage,
    ) -> Result<UpdateProgress, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Update {
            target,
            id,
            request: request.map(Box::new),
            wait,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Asks workflow code a question. Drop the future to stop waiting.
    pub async fn query(
        &self,
        target: Target,
        query: WorkflowQuery,
    ) -> Result<QueryOutcome, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Query {
            target,
            query: Box::new(query),
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// The answer of a worker that was given a question. `false`: nobody waits for it any more.
    pub async fn answer_query(
        &self,
        namespace: Namespace,
        id: u64,
        outcome: QueryOutcome,
    ) -> Result<bool, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::AnswerQuery {
            namespace,
            id,
            outcome: Box::new(outcome),
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)
    }

    /// Who polls a queue, and what waits there.
    pub async fn describe_queue(
        &self,
        namespace: Namespace,
        kind: QueueKind,
        queue: TaskQueueName,
    ) -> Result<Described, CallError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::DescribeQueue {
            namespace,
            kind,
            queue,
            reply,
        })?;
        answer.await.map_err(|_| CallError::ShuttingDown)
    }

    /// A worker leaves: its polls end, and tasks that would go to its own queue go to any worker.
    pub fn leave(&self, namespace: Namespace, leaving: Leaving) -> Result<(), CallError> {
        self.send(Call::Leave { namespace, leaving })
    }

    /// The run's next workflow tasks go to any worker.
    pub fn reset_sticky(&self, target: Target) -> Result<(), CallError> {
        self.send(Call::ResetSticky { target })
    }
}
