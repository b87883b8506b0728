//! Runs in the engine's own loop without a thread: one call a round, workers' answers by hand, crashes at will.

use std::sync::Arc;
use std::time::Duration;

use orchestrion::engine::call::{Call, ReplyTo};
use orchestrion::engine::{Accepted, CallError, Core, EngineOptions, NoSurroundings, Target};
use orchestrion::seams::SeededChance;
use orchestrion_history::ids::{Namespace, RunId, ShardId, TaskQueueName, Timestamp, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::replay;
use orchestrion_history::request::{
    CompleteWorkflowTask, Reply, Request, StartWorkflow, WorkflowTaskStart,
};
use orchestrion_history::state::{MutableState, WorkflowTask};
use orchestrion_history::store::{Key, KeyRange, MemoryStore, Op, QueueKind, Store, read_entry};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::command::v1::{
    Command, CompleteWorkflowExecutionCommandAttributes,
    ContinueAsNewWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
    RequestCancelExternalWorkflowExecutionCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::ParentClosePolicy;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::v1::RunHead;
use tokio::sync::oneshot;

const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000_000);

/// The engine's loop over a store that survives it.
pub struct World {
    /// Survives crashes.
    pub store: MemoryStore,
    /// The loop.
    core: Core,
    /// The virtual clock.
    pub now: Timestamp,
    /// Processes so far: each has its own chance, or they would give the same run ids.
    processes: u64,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// Nothing has happened.
    pub fn new() -> Self {
        let store = MemoryStore::new();
        let core = recover(&store, EPOCH, 0);
        Self {
            store,
            core,
            now: EPOCH,
            processes: 1,
        }
    }

    /// The process is gone; a new one opens the same store.
    pub fn crash(&mut self) {
        self.core = recover(&self.store, self.now, self.processes);
        self.processes += 1;
    }

    /// A round without a call.
    pub fn round(&mut self) {
        self.core.round(self.now, std::iter::empty());
    }

    /// Time passes.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now.plus(by);
        self.round();
    }

    /// Asks something of a run, in a round of its own.
    pub fn ask(&mut self, target: Target, request: Request) -> Result<Accepted, CallError> {
        let (reply, mut answer) = oneshot::channel();
        let call = Call::Request {
            target,
            request: Box::new(request),
            reply: ReplyTo::Caller(reply),
        };
        self.core.round(self.now, std::iter::once(call));
        answer.try_recv().unwrap()
    }

    /// Asks several things in one round.
    pub fn ask_at_once(
        &mut self,
        asks: Vec<(Target, Request)>,
    ) -> Vec<Result<Accepted, CallError>> {
        let (calls, answers): (Vec<_>, Vec<_>) = asks
            .into_iter()
            .map(|(target, request)| {
                let (reply, answer) = oneshot::channel();
                let call = Call::Request {
                    target,
                    request: Box::new(request),
                    reply: ReplyTo::Caller(reply),
                };
                (call, answer)
            })
            .unzip();
        self.core.round(self.now, calls.into_iter());
        let answers = answers.into_iter();
        answers
            .map(|mut answer| answer.try_recv().unwrap())
            .collect()
    }

    /// The same, with what is written in its batch.
    pub fn ask_with(
        &mut self,
        target: Target,
        request: Request,
        ops: Vec<Op>,
    ) -> Result<Accepted, CallError> {
        let (reply, mut answer) = oneshot::channel();
        let call = Call::Recorded {
            target,
            request: Box::new(request),
            ops,
            reply,
        };
        self.core.round(self.now, std::iter::once(call));
        answer.try_recv().unwrap()
    }

    /// Starts a run that differs from [`World::start`]'s.
    pub fn start_with(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut StartWorkflow),
    ) -> Result<Accepted, CallError> {
        let mut start = StartWorkflow {
            workflow_id: id.to_owned(),
            workflow_type: "work".to_owned(),
            task_queue: "q".to_owned(),
            request_id: format!("start-{id}"),
            ..Default::default()
        };
        change(&mut start);
        self.ask(target(id), Request::Start(Box::new(start)))
    }

    /// Starts a run.
    pub fn start(&mut self, id: &str) {
        self.start_with(id, |_| {}).unwrap();
    }

    /// The newest run's state.
    pub fn state(&mut self, id: &str) -> MutableState {
        self.state_of(target(id)).unwrap()
    }

    /// A run's state.
    pub fn state_of(&mut self, target: Target) -> Result<MutableState, CallError> {
        let (reply, mut answer) = oneshot::channel();
        let call = Call::Inspect { target, reply };
        self.core.round(self.now, std::iter::once(call));
        answer.try_recv().unwrap().map(|state| *state)
    }

    /// Workflow tasks that wait in a queue.
    pub fn backlog(&mut self, queue: &str) -> usize {
        let (reply, mut answer) = oneshot::channel();
        let call = Call::DescribeQueue {
            namespace: target("any").namespace,
            kind: QueueKind::Workflow,
            queue: TaskQueueName::parse(queue).unwrap(),
            reply,
        };
        self.core.round(self.now, std::iter::once(call));
        answer.try_recv().unwrap().backlog
    }

    /// A worker answers the run's workflow task.
    pub fn turn(&mut self, id: &str, commands: Vec<Command>) {
        let state = self.state(id);
        let done = self.try_turn(id, &state, commands).unwrap();
        assert_eq!(done.reply, Reply::Done);
    }

    /// The answer may be refused, and its commit may fail.
    pub fn try_turn(
        &mut self,
        id: &str,
        state: &MutableState,
        commands: Vec<Command>,
    ) -> Result<Accepted, CallError> {
        let (scheduled_event_id, attempt, at, request_id) = match &state.workflow_task {
            WorkflowTask::Scheduled {
                scheduled_event_id,
                attempt,
                ..
            } => (*scheduled_event_id, *attempt, self.now, "poll".to_owned()),
            WorkflowTask::Started {
                scheduled_event_id,
                attempt,
                at,
                request_id,
                ..
            } => (
                *scheduled_event_id,
                *attempt,
                Timestamp(*at),
                request_id.clone(),
            ),
            WorkflowTask::None => panic!("{id} has no workflow task"),
        };
        let complete = CompleteWorkflowTask {
            start: WorkflowTaskStart {
                scheduled_event_id,
                attempt,
                scheduled_at: self.now,
                at,
                request_id,
                last_event_id: state.next_event_id - 1,
                ..Default::default()
            },
            commands,
            ..Default::default()
        };
        let run = Target {
            run_id: RunId::parse(&state.run_id),
            ..target(id)
        };
        self.ask(run, Request::CompleteWorkflowTask(Box::new(complete)))
    }

    /// Every run that the store holds.
    pub fn all_runs(&self) -> Vec<(String, RunId)> {
        let heads = (0..3).flat_map(|shard| {
            let range = KeyRange::run_heads(ShardId(shard));
            self.store.scan(&range, usize::MAX, false).unwrap().entries
        });
        heads
            .filter_map(|(key, value)| match key {
                Key::RunHead { run_id, .. } => {
                    let head = RunHead::decode(&value[..]).unwrap();
                    Some((head.workflow_id, run_id))
                }
                _ => None,
            })
            .collect()
    }

    /// The names of the newest run's events, without those of workflow tasks.
    pub fn events(&mut self, id: &str) -> Vec<String> {
        let run_id = RunId::parse(&self.state(id).run_id).unwrap();
        self.events_of(id, run_id)
    }

    /// The names of a run's events, without those of workflow tasks.
    pub fn events_of(&self, id: &str, run_id: RunId) -> Vec<String> {
        let events = self
            .records(id, run_id)
            .into_iter()
            .filter(|r| r.event().is_some());
        events
            .map(|record| record.type_name())
            .filter(|name| !name.starts_with("WorkflowTask"))
            .map(|name| name.replace("WorkflowExecution", ""))
            .collect()
    }

    /// A run's journal.
    pub fn records(&self, id: &str, run_id: RunId) -> Vec<Record> {
        let workflow_id = WorkflowId::parse(id).unwrap();
        let shard = ShardId::of(&home(), &workflow_id, 3);
        let range = KeyRange::journal_of(shard, &home(), run_id);
        let page = self.store.scan(&range, usize::MAX, false).unwrap();
        let entries = page.entries.iter();
        entries
            .flat_map(|(key, entry)| read_entry(&self.store, key, entry).unwrap())
            .collect()
    }

    /// What the engine holds is what the journal says.
    pub fn check(&mut self, id: &str) {
        let state = self.state(id);
        let run_id = RunId::parse(&state.run_id).unwrap();
        let folded = replay::fold(&self.records(id, run_id)).unwrap();
        assert_eq!(replay::difference(&folded, &state), None);
    }
}

fn recover(store: &MemoryStore, now: Timestamp, process: u64) -> Core {
    let options = EngineOptions {
        shards: 3,
        ..EngineOptions::default()
    };
    Core::recover(
        Arc::new(store.clone()),
        Box::new(SeededChance::new(process)),
        Box::new(NoSurroundings),
        options,
        now,
    )
    .unwrap()
}

/// The namespace of every run here.
pub fn home() -> Namespace {
    Namespace::parse("home").unwrap()
}

/// The newest run of a workflow id.
pub fn target(id: &str) -> Target {
    Target {
        namespace: home(),
        workflow_id: WorkflowId::parse(id).unwrap(),
        run_id: None,
    }
}

fn command(attributes: C) -> Command {
    Command {
        attributes: Some(attributes),
        ..Default::default()
    }
}

/// A command: start a child.
pub fn child(id: &str, policy: ParentClosePolicy) -> Command {
    command(C::StartChildWorkflowExecutionCommandAttributes(
        StartChildWorkflowExecutionCommandAttributes {
            workflow_id: id.to_owned(),
            workflow_type: Some(WorkflowType {
                name: "part".to_owned(),
            }),
            parent_close_policy: policy.into(),
            ..Default::default()
        },
    ))
}

/// A command: complete.
pub fn complete() -> Command {
    command(C::CompleteWorkflowExecutionCommandAttributes(
        CompleteWorkflowExecutionCommandAttributes::default(),
    ))
}

/// A command: fail, so that a retry may follow.
pub fn fail() -> Command {
    command(C::FailWorkflowExecutionCommandAttributes(
        FailWorkflowExecutionCommandAttributes {
            failure: Some(Failure::default()),
        },
    ))
}

/// A command: continue as new.
pub fn continue_as_new() -> Command {
    command(C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes::default(),
    ))
}

/// A command: signal another workflow.
pub fn signal(namespace: &str, id: &str, child_workflow_only: bool) -> Command {
    #[expect(deprecated, reason = "SDKs still send it")]
    command(C::SignalExternalWorkflowExecutionCommandAttributes(
        SignalExternalWorkflowExecutionCommandAttributes {
            namespace: namespace.to_owned(),
            execution: Some(WorkflowExecution {
                workflow_id: id.to_owned(),
                run_id: String::new(),
            }),
            signal_name: "hello".to_owned(),
            child_workflow_only,
            ..Default::default()
        },
    ))
}

/// A command: ask another workflow to cancel itself.
pub fn cancel(id: &str) -> Command {
    command(C::RequestCancelExternalWorkflowExecutionCommandAttributes(
        RequestCancelExternalWorkflowExecutionCommandAttributes {
            workflow_id: id.to_owned(),
            ..Default::default()
        },
    ))
}
