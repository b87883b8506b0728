//! A run driven by requests, and its story as text.
#![allow(missing_docs, dead_code, clippy::unwrap_used)]
mod commands;
mod line;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::limits::Limits;
use orchestrion_history::outward::{self, Outward};
use orchestrion_history::record::{Record, decode_entry, encode_entry};
use orchestrion_history::request::{
    ActivityRef, ChildClosed, ChildOutcome, ChildStarted, CloseFollowed, CompleteActivity,
    CompleteWorkflowTask, ExecutionRef, FailActivity, FailWorkflowTask, Rejection, Reply, Request,
    ReturnActivityAttempt, SentUpdate, SignalWorkflow, StartActivityAttempt, StartWorkflow,
    TerminateWorkflow, Transition, WorkflowTaskStart,
};
use orchestrion_history::state::{MutableState, WorkflowTask};
use orchestrion_history::{Context, apply, decide, replay, tasks};
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::enums::v1::WorkflowTaskFailedCause;
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::temporal::api::protocol::v1::Message;

pub use self::commands::*;
pub use self::line::line;

const EPOCH: i64 = 1_700_000_000_000_000_000;

pub struct Story {
    pub state: MutableState,
    pub records: Vec<Record>,
    pub now: i64,
    pub held: Option<WorkflowTaskStart>,
    pub sticky: bool,
    pub sticky_expired: bool,
    /// What the last close began.
    pub next_run: Option<StartWorkflow>,
    queue: Vec<tasks::QueueEntry>,
    lines: Vec<String>,
    limits: Limits,
}

impl Story {
    pub fn started() -> Self {
        Self::started_with(|_| {})
    }

    pub fn started_with(change: impl FnOnce(&mut StartWorkflow)) -> Self {
        let mut story = Self::void();
        let mut start = start_request("start-1");
        change(&mut start);
        let _ = story.ask("start", &Request::Start(Box::new(start)));
        story
    }

    pub fn void() -> Self {
        Self {
            state: MutableState::default(),
            records: Vec::new(),
            now: EPOCH,
            held: None,
            sticky: false,
            sticky_expired: false,
            next_run: None,
            queue: Vec::new(),
            lines: Vec::new(),
            limits: Limits::default(),
        }
    }

    /// A run as its journal says.
    pub fn of(records: Vec<Record>, now: i64) -> Self {
        let state = replay::fold(&records).expect("a journal folds");
        Self {
            queue: tasks::all(&state),
            state,
            records,
            now,
            ..Self::void()
        }
    }

    /// Forgets what was told so far.
    pub fn quiet(&mut self) {
        self.lines.clear();
    }

    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    pub fn check(&self, expected: &str) {
        let expected: Vec<&str> = expected
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let told: Vec<&str> = self.lines.iter().map(|line| line.trim()).collect();
        assert_eq!(told, expected, "\nthe story was:\n{}", self.text());
    }

    /// Decides, applies, and holds every invariant a transition must keep.
    pub fn ask(&mut self, name: &str, request: &Request) -> Result<Reply, Rejection> {
        self.lines.push(format!("> {name}"));
        let before = self.state.clone();
        let context = Context {
            now: Timestamp(self.now),
            volatile_start: self.held.as_ref(),
            sticky: self.sticky,
            sticky_expired: self.sticky_expired,
            namespace: "home",
            ..Context::new(Timestamp(self.now), &self.limits)
        };
        let transition = match decide(&self.state, &context, request) {
            Ok(transition) => transition,
            Err(rejection) => {
                self.lines.push(format!("-- {rejection}"));
                assert_eq!(before, self.state, "a rejection leaves no trace");
                return Err(rejection);
            }
        };
        if matches!(
            transition.reply,
            Reply::Updates {
                discarded: true,
                ..
            }
        ) {
            assert!(transition.records.is_empty());
            self.held = None;
        }
        if transition.reply == Reply::Repeated {
            self.lines.push("-- repeated".to_owned());
        }
        self.next_run_is_in_the_close(&transition);
        let marks = tasks::marks(&self.state, &transition.records);
        for record in &transition.records {
            apply(&mut self.state, record).unwrap_or_else(|e| {
                panic!(
                    "decide yields only what apply accepts: {e}\n{}",
                    self.text()
                )
            });
            self.lines.push(line(record, self.now));
        }
        self.keep_queue(&tasks::after(&marks, &self.state));
        assert_eq!(
            decode_entry(&encode_entry(&transition.records)).unwrap(),
            transition.records
        );
        self.records.extend(transition.records);
        let state = &self.state;
        self.held = self.held.take().filter(|held| match state.workflow_task {
            WorkflowTask::Scheduled {
                scheduled_event_id,
                attempt,
                ..
            } => scheduled_event_id == held.scheduled_event_id && attempt == held.attempt,
            WorkflowTask::None => {
                held.speculative
                    && state.is_running()
                    && held.scheduled_event_id == state.next_event_id
            }
            WorkflowTask::Started { .. } => false,
        });
        let folded = replay::fold(&self.records).unwrap();
        assert_eq!(
            replay::difference(&folded, &self.state),
            None,
            "replay equals state"
        );
        Ok(transition.reply)
    }

    /// The close event names the next run, and the decision carries a start that a void run takes.
    fn next_run_is_in_the_close(&mut self, transition: &Transition) {
        let named = transition.records.iter().find_map(|record| {
            match record.event()?.attributes.as_ref()? {
                A::WorkflowExecutionCompletedEventAttributes(a) => Some(&a.new_execution_run_id),
                A::WorkflowExecutionFailedEventAttributes(a) => Some(&a.new_execution_run_id),
                A::WorkflowExecutionTimedOutEventAttributes(a) => Some(&a.new_execution_run_id),
                A::WorkflowExecutionContinuedAsNewEventAttributes(a) => {
                    Some(&a.new_execution_run_id)
                }
                _ => None,
            }
        });
        let begun = transition.next_run.as_ref().map(|next| &next.run_id);
        assert_eq!(named.filter(|id| !id.is_empty()), begun);
        if let Some(next) = &transition.next_run {
            let context = Context::new(Timestamp(self.now), &self.limits);
            let start = Request::Start(next.clone());
            decide(&MutableState::default(), &context, &start).expect("the next run can start");
            self.next_run = Some((**next).clone());
        }
    }

    /// The run that the last close began.
    pub fn follow(&self) -> Self {
        let mut story = Self::void();
        story.now = self.now;
        let next = self.next_run.clone().expect("a run follows");
        let _ = story.ask("start", &Request::Start(Box::new(next)));
        story
    }

    /// Does what the run asks of others, as an engine whose every run is there would.
    pub fn cross(&mut self) {
        for id in outward::ids(&self.state) {
            let asked = outward::get(&self.state, id).expect("its id was given");
            let closed = self.state.status.is_closed();
            let (name, request) = match asked {
                Outward::StartChild { .. } if !closed => (
                    "child started",
                    Request::ChildStarted(ChildStarted {
                        initiated_event_id: id,
                        run_id: format!("child-{id}"),
                    }),
                ),
                Outward::Signal { .. } | Outward::Cancel { .. } => {
                    ("delivered", delivered(id, Ok(())))
                }
                Outward::StartChild { .. }
                | Outward::EndChild { .. }
                | Outward::TellParent { .. } => (
                    "close followed",
                    Request::CloseFollowed(CloseFollowed {
                        initiated_event_id: id,
                    }),
                ),
            };
            let _ = self.ask(name, &request);
        }
    }

    pub fn child_closes(&mut self, initiated_event_id: i64, outcome: ChildOutcome) {
        let closed = ChildClosed {
            initiated_event_id,
            execution: ExecutionRef {
                workflow_id: "child".to_owned(),
                run_id: "last".to_owned(),
            },
            outcome,
        };
        let _ = self.ask("child closed", &Request::ChildClosed(Box::new(closed)));
    }

    /// The kept queue index equals the one rebuilt from the state.
    fn keep_queue(&mut self, tasks: &tasks::Tasks) {
        let place = |e: &tasks::QueueEntry| (e.kind, e.queue.clone(), e.at, e.event_id);
        for entry in tasks.remove.iter().chain(&tasks.put) {
            self.queue.retain(|other| place(other) != place(entry));
        }
        self.queue.extend(tasks.put.iter().cloned());
        self.queue.sort();
        let mut rebuilt = tasks::all(&self.state);
        rebuilt.sort();
        assert_eq!(
            self.queue,
            rebuilt,
            "the kept index equals the rebuilt one\n{}",
            self.text()
        );
    }

    pub fn advance_ms(&mut self, ms: i64) {
        self.now += ms * 1_000_000;
    }

    pub fn fire(&mut self) {
        self.ask("fire", &Request::FireTimers).unwrap();
    }

    /// A worker takes the workflow task; its start stays volatile.
    pub fn hold_task(&mut self) {
        let WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            ..
        } = self.state.workflow_task
        else {
            return;
        };
        if self.held.is_some() {
            return;
        }
        self.held = Some(self.token(scheduled_event_id, attempt));
    }

    /// A worker takes a task that no record speaks of.
    pub fn hold_speculative(&mut self) {
        if self.state.workflow_task == WorkflowTask::None
            && self.state.is_running()
            && self.state.first_task_at == 0
        {
            self.held = Some(WorkflowTaskStart {
                speculative: true,
                ..self.token(self.state.next_event_id, 1)
            });
        }
    }

    /// The worker that has the task, or would take it, fails it.
    pub fn fail_task(&mut self) {
        self.hold_task();
        let start = self.held.clone().unwrap_or_else(|| self.current_token());
        let fail = FailWorkflowTask {
            start,
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure,
            failure: None,
            identity: "worker".to_owned(),
        };
        let _ = self.ask("fail task", &Request::FailWorkflowTask(Box::new(fail)));
    }

    fn token(&self, scheduled_event_id: i64, attempt: i32) -> WorkflowTaskStart {
        WorkflowTaskStart {
            scheduled_event_id,
            attempt,
            scheduled_at: Timestamp(self.now),
            at: Timestamp(self.now),
            request_id: "poll".to_owned(),
            identity: "worker".to_owned(),
            last_event_id: self.state.next_event_id - 1,
            ..Default::default()
        }
    }

    /// Adds a line of one's own.
    pub fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    /// A turn that answers updates; `sent` are those that the worker was given.
    pub fn turn_with_messages(
        &mut self,
        commands: Vec<Command>,
        messages: Vec<Message>,
        sent: &[&str],
    ) -> Result<Reply, Rejection> {
        let updates = sent
            .iter()
            .map(|id| SentUpdate {
                update_id: (*id).to_owned(),
                request: update_request(id),
            })
            .collect();
        let complete = CompleteWorkflowTask {
            start: self.current_token(),
            commands,
            messages,
            updates,
            identity: "worker".to_owned(),
            ..Default::default()
        };
        self.ask("turn", &Request::CompleteWorkflowTask(Box::new(complete)))
    }

    pub fn turn(&mut self, commands: Vec<Command>) -> Result<Reply, Rejection> {
        let token = self.current_token();
        self.complete_task(token, commands)
    }

    fn current_token(&self) -> WorkflowTaskStart {
        match (&self.held, &self.state.workflow_task) {
            (Some(held), _) => held.clone(),
            (
                None,
                WorkflowTask::Scheduled {
                    scheduled_event_id,
                    attempt,
                    ..
                },
            ) => self.token(*scheduled_event_id, *attempt),
            (
                None,
                WorkflowTask::Started {
                    scheduled_event_id,
                    attempt,
                    at,
                    request_id,
                    ..
                },
            ) => WorkflowTaskStart {
                at: Timestamp(*at),
                request_id: request_id.clone(),
                ..self.token(*scheduled_event_id, *attempt)
            },
            (None, WorkflowTask::None) => self.token(0, 1),
        }
    }

    pub fn keep_alive(&mut self) {
        let complete = CompleteWorkflowTask {
            start: self.current_token(),
            identity: "worker".to_owned(),
            force_new_task: true,
            ..Default::default()
        };
        let _ = self.ask(
            "keep alive",
            &Request::CompleteWorkflowTask(Box::new(complete)),
        );
    }

    pub fn turn_with_token(
        &mut self,
        scheduled_event_id: i64,
        attempt: i32,
        commands: Vec<Command>,
    ) {
        let token = self.token(scheduled_event_id, attempt);
        let _ = self.complete_task(token, commands);
    }

    pub fn complete_task(
        &mut self,
        start: WorkflowTaskStart,
        commands: Vec<Command>,
    ) -> Result<Reply, Rejection> {
        let complete = CompleteWorkflowTask {
            start,
            commands,
            identity: "worker".to_owned(),
            ..Default::default()
        };
        self.ask("turn", &Request::CompleteWorkflowTask(Box::new(complete)))
    }

    pub fn take(&mut self, activity_id: &str) {
        let id = self.state.activity_ids[activity_id];
        let attempt = self.state.activities[&id].attempt;
        let _ = self.take_attempt(id, attempt, activity_id);
    }

    pub fn take_attempt(
        &mut self,
        scheduled_event_id: i64,
        attempt: i32,
        name: &str,
    ) -> Result<Reply, Rejection> {
        let request_id = format!("poll-{}", self.records.len());
        self.ask(
            &format!("take {name}"),
            &Request::StartActivityAttempt(StartActivityAttempt {
                scheduled_event_id,
                attempt,
                identity: "worker".to_owned(),
                request_id,
                on_stream: scheduled_event_id % 2 == 1,
            }),
        )
    }

    pub fn complete(&mut self, activity: ActivityRef) {
        let result = Some(payloads("done"));
        let _ = self.ask(
            "complete",
            &Request::CompleteActivity(Box::new(CompleteActivity {
                activity,
                result,
                identity: "worker".to_owned(),
            })),
        );
    }

    pub fn fail(&mut self, activity_id: &str, failure: Failure) {
        let activity = ActivityRef::Id(activity_id.to_owned());
        let _ = self.ask(
            &format!("fail {activity_id}"),
            &Request::FailActivity(Box::new(FailActivity {
                activity,
                failure,
                identity: "worker".to_owned(),
                last_heartbeat: None,
            })),
        );
    }

    pub fn give_back(&mut self, scheduled_event_id: i64, attempt: i32) {
        let reason = "connection lost".to_owned();
        let _ = self.ask(
            "give back",
            &Request::ReturnActivityAttempt(ReturnActivityAttempt {
                scheduled_event_id,
                attempt,
                reason,
            }),
        );
    }

    pub fn signal(&mut self, name: &str) {
        self.signal_with_id(name, "");
    }

    pub fn signal_with_id(&mut self, name: &str, request_id: &str) {
        let signal = SignalWorkflow {
            name: name.to_owned(),
            request_id: request_id.to_owned(),
            ..Default::default()
        };
        let _ = self.ask(
            &format!("signal {name}"),
            &Request::Signal(Box::new(signal)),
        );
    }

    pub fn signal_that_cancels(&mut self, name: &str) {
        let signal = SignalWorkflow {
            name: name.to_owned(),
            cancels: true,
            ..Default::default()
        };
        let _ = self.ask(
            &format!("signal {name}"),
            &Request::Signal(Box::new(signal)),
        );
    }

    pub fn terminate(&mut self) {
        let _ = self.ask(
            "terminate",
            &Request::Terminate(Box::new(TerminateWorkflow {
                reason: "enough".into(),
                ..Default::default()
            })),
        );
    }

    pub fn start_again(&mut self, request_id: &str) {
        let _ = self.ask(
            "start",
            &Request::Start(Box::new(start_request(request_id))),
        );
    }
}

pub fn start_request(request_id: &str) -> StartWorkflow {
    StartWorkflow {
        run_id: "00000000-0000-7000-8000-000000000001".to_owned(),
        workflow_id: "wf".to_owned(),
        workflow_type: "order".to_owned(),
        task_queue: "orders".to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}
