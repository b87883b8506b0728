//! A transition in the making: records drafted so far, and the few facts about them that later records need.
//!
//! Invariant: nothing here rejects. Every rejection is returned before the first record is drafted.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion_proto::temporal::api::common::v1::Link;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes,
};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::v1::{EventBuffered, Note, WorkflowTaskRetried, note};

use crate::machines::Context;
use crate::record::Record;
use crate::request::{Reply, StartWorkflow, Transition, WorkflowTaskStart};
use crate::state::{CarriedEvent, MutableState, WorkflowTask};
use crate::wire;

pub(crate) struct Draft<'a> {
    pub(crate) state: &'a MutableState,
    pub(crate) now: i64,
    next_event_id: i64,
    records: Vec<Record>,
    /// What the records so far did to the workflow task.
    workflow_task: Pending,
    closed: bool,
    paused: bool,
    /// Activities scheduled by these records.
    pub(crate) scheduled: BTreeMap<String, i64>,
    /// Activities closed by these records.
    pub(crate) closed_activities: BTreeSet<i64>,
    /// Activities whose cancellation these records ask for.
    pub(crate) cancels: BTreeSet<i64>,
    /// Timers started by these records.
    pub(crate) timers_started: BTreeMap<String, i64>,
    /// Timers cancelled by these records.
    pub(crate) timers_canceled: BTreeSet<String>,
    /// Indexes into the state's buffer that a record has taken back.
    pub(crate) unbuffered: BTreeSet<usize>,
    /// Children, signals and cancel requests to other runs that these records initiate.
    pub(crate) initiated: Initiated,
    /// The run that begins with this one's end.
    pub(crate) next_run: Option<Box<StartWorkflow>>,
}

#[derive(Debug, Default)]
pub(crate) struct Initiated {
    pub(crate) children: usize,
    pub(crate) signals: usize,
    pub(crate) cancels: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pending {
    None,
    Scheduled,
    /// Scheduled, and no event says so.
    Transient,
    /// Running: what comes from outside is buffered. `committed` says whether its start is in the journal or these records.
    Started {
        committed: bool,
    },
}

impl<'a> Draft<'a> {
    pub(crate) fn new(state: &'a MutableState, context: &Context<'_>) -> Self {
        let workflow_task = match (&state.workflow_task, context.volatile_start) {
            (WorkflowTask::None, Some(start))
                if start.speculative && start.scheduled_event_id == state.next_event_id =>
            {
                Pending::Started { committed: false }
            }
            (WorkflowTask::None, _) => Pending::None,
            // A start of a task that is over, which its caller has not forgotten yet, counts for nothing.
            (
                WorkflowTask::Scheduled {
                    scheduled_event_id,
                    attempt,
                    ..
                },
                Some(start),
            ) if start.scheduled_event_id == *scheduled_event_id && start.attempt == *attempt => {
                Pending::Started { committed: false }
            }
            (
                WorkflowTask::Scheduled {
                    transient: true, ..
                },
                _,
            ) => Pending::Transient,
            (WorkflowTask::Scheduled { .. }, _) => Pending::Scheduled,
            (WorkflowTask::Started { .. }, _) => Pending::Started { committed: true },
        };
        Self {
            state,
            now: context.now.0,
            next_event_id: state.next_event_id.max(1),
            records: Vec::new(),
            workflow_task,
            closed: state.status.is_closed(),
            paused: state.paused.is_some(),
            scheduled: BTreeMap::new(),
            closed_activities: BTreeSet::new(),
            cancels: BTreeSet::new(),
            timers_started: BTreeMap::new(),
            timers_canceled: BTreeSet::new(),
            unbuffered: BTreeSet::new(),
            initiated: Initiated::default(),
            next_run: None,
        }
    }

    /// The id that the next event gets.
    pub(crate) fn next_event_id(&self) -> i64 {
        self.next_event_id
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Puts what travels beside its attributes on the event at `index`, if it is one.
    pub(crate) fn annotate(&mut self, index: usize, with: impl FnOnce(&mut HistoryEvent)) {
        if let Some(Record::Event(event)) = self.records.get_mut(index) {
            with(event);
        }
    }

    /// Appends an event that happened now, and returns its id.
    pub(crate) fn event(&mut self, event_type: EventType, attributes: Attributes) -> i64 {
        self.event_at(self.now, event_type, attributes)
    }

    /// Appends an event that happened at `at`, and returns its id.
    pub(crate) fn event_at(
        &mut self,
        at: i64,
        event_type: EventType,
        attributes: Attributes,
    ) -> i64 {
        self.push_event(event(at, event_type, attributes))
    }

    fn push_event(&mut self, mut event: HistoryEvent) -> i64 {
        let id = self.next_event_id;
        self.next_event_id += 1;
        event.event_id = id;
        event.task_id = id;
        self.closed |= crate::record::closes_run(event.event_type());
        match event.event_type() {
            EventType::WorkflowExecutionPaused => self.paused = true,
            EventType::WorkflowExecutionUnpaused => self.paused = false,
            _ => {}
        }
        self.records.push(Record::Event(Box::new(event)));
        id
    }

    /// Appends a note.
    pub(crate) fn note(&mut self, kind: note::Kind) {
        self.records.push(Record::Note(Box::new(Note {
            at: self.now,
            kind: Some(kind),
        })));
    }

    /// Events from outside that need the workflow's attention: buffered while a workflow task runs, else appended
    /// and followed by a workflow task. The events of one call stay together; `events` builds each from the id of the one before it.
    pub(crate) fn happened_outside(
        &mut self,
        context: &Context<'_>,
        events: Vec<(i64, EventType, Attributes)>,
    ) {
        if let Pending::Started { committed } = self.workflow_task {
            if !committed && let Some(start) = context.volatile_start {
                self.start_workflow_task(start);
            }
            if self.buffer_is_full(context, events.len()) {
                crate::machines::force_flush(self);
                return self.happened_outside(context, events);
            }
            for (at, event_type, attributes) in events {
                self.note(note::Kind::EventBuffered(EventBuffered {
                    event: Some(event(at, event_type, attributes)),
                }));
            }
            return;
        }
        let mut started = 0;
        for (at, event_type, mut attributes) in events {
            patch_started_event_id(&mut attributes, started);
            started = self.event_at(at, event_type, attributes);
        }
        if self.workflow_task == Pending::Transient {
            // The workflow has something new to see: this is a task of its own, with a first attempt.
            self.workflow_task = Pending::None;
        }
        self.ensure_workflow_task();
    }

    fn buffer_is_full(&self, context: &Context<'_>, more: usize) -> bool {
        let buffered = &self.state.buffered;
        let bytes: usize = buffered.iter().map(CarriedEvent::len).sum();
        !buffered.is_empty()
            && (buffered.len() + more > context.limits.buffered_events_max
                || bytes >= context.limits.buffered_bytes_max)
    }

    /// Something from outside that the workflow need not see: buffered while a workflow task runs, and no reason for one.
    pub(crate) fn unseen_outside(
        &mut self,
        context: &Context<'_>,
        event_type: EventType,
        attributes: Attributes,
        links: &[Link],
    ) {
        let mut updated = event(self.now, event_type, attributes);
        updated.links = links.to_vec();
        updated.worker_may_ignore = true;
        if let Pending::Started { committed } = self.workflow_task {
            if !committed && let Some(start) = context.volatile_start {
                self.start_workflow_task(start);
            }
            self.note(note::Kind::EventBuffered(EventBuffered {
                event: Some(updated),
            }));
            return;
        }
        self.push_event(updated);
        if self.workflow_task == Pending::Transient {
            // Its events would have got the id that this one has: it becomes a task of its own.
            self.workflow_task = Pending::None;
            self.ensure_workflow_task();
        }
    }

    /// Writes the `WorkflowTaskStarted` of a task whose start was volatile; returns its event id.
    pub(crate) fn start_workflow_task(&mut self, start: &WorkflowTaskStart) -> i64 {
        let unwritten = match &self.state.workflow_task {
            WorkflowTask::Scheduled { transient, .. } => *transient,
            WorkflowTask::None => start.speculative,
            WorkflowTask::Started { .. } => false,
        };
        if unwritten {
            let scheduled = self.task_scheduled(
                &self.state.task_queue,
                self.state.task_timeout_of(start.attempt),
                start.attempt,
            );
            self.event_at(
                start.scheduled_at.0,
                EventType::WorkflowTaskScheduled,
                scheduled,
            );
        }
        self.workflow_task = Pending::Started { committed: true };
        self.event_at(
            start.at.0,
            EventType::WorkflowTaskStarted,
            Attributes::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes {
                scheduled_event_id: start.scheduled_event_id,
                identity: start.identity.clone(),
                request_id: start.request_id.clone(),
                history_size_bytes: start.history_bytes,
                suggest_continue_as_new: start.suggest_continue_as_new,
                ..Default::default()
            }),
        )
    }

    /// Whether a workflow task is pending that no worker has.
    pub(crate) fn task_waits_for_a_worker(&self) -> bool {
        matches!(self.workflow_task, Pending::Scheduled | Pending::Transient)
    }

    /// The running workflow task is over; what follows may schedule another.
    pub(crate) fn workflow_task_over(&mut self) {
        self.workflow_task = Pending::None;
    }

    /// Schedules a workflow task unless one is pending, the run is closed or paused, or its first one waits for its time.
    pub(crate) fn ensure_workflow_task(&mut self) {
        if self.workflow_task == Pending::None
            && !self.closed
            && !self.paused
            && self.state.first_task_at <= self.now
        {
            self.schedule_workflow_task(&self.state.task_queue, self.state.task_timeout);
        }
    }

    /// Schedules a workflow task unless one is pending or the run is closed: a first one does not wait for its time any longer.
    pub(crate) fn end_start_delay(&mut self) {
        if self.workflow_task == Pending::None && !self.closed && !self.paused {
            self.schedule_workflow_task(&self.state.task_queue, self.state.task_timeout);
        }
    }

    /// Schedules a workflow task.
    pub(crate) fn schedule_workflow_task(&mut self, queue: &str, timeout: i64) {
        self.workflow_task = Pending::Scheduled;
        let scheduled = self.task_scheduled(queue, timeout, 1);
        self.event(EventType::WorkflowTaskScheduled, scheduled);
    }

    fn task_scheduled(&self, queue: &str, timeout: i64, attempt: i32) -> Attributes {
        Attributes::WorkflowTaskScheduledEventAttributes(WorkflowTaskScheduledEventAttributes {
            task_queue: Some(TaskQueue {
                name: queue.to_owned(),
                ..Default::default()
            }),
            start_to_close_timeout: Some(wire::duration(timeout)),
            attempt,
        })
    }

    /// Schedules a further attempt of a workflow task: only a note says so. A paused run gets a task of its own when it goes on.
    pub(crate) fn retry_workflow_task(&mut self, attempt: i32) {
        if self.paused {
            return;
        }
        self.workflow_task = Pending::Transient;
        self.note(note::Kind::WorkflowTaskRetried(WorkflowTaskRetried {
            attempt,
        }));
    }

    /// Whether a close event is among the records, or the run was closed before.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether the state holds buffered events that these records have not taken back.
    pub(crate) fn has_buffered(&self) -> bool {
        self.state.buffered.len() > self.unbuffered.len()
    }

    /// Gives the buffered events their ids: closes of activities and children behind all others, order otherwise kept, and each close
    /// pointed at the start flushed with it. Returns whether there were any.
    pub(crate) fn flush_buffered(&mut self) -> bool {
        let buffered = self
            .state
            .buffered
            .iter()
            .enumerate()
            .filter(|(i, _)| !self.unbuffered.contains(i));
        let events: Vec<HistoryEvent> = buffered.filter_map(|(_, event)| event.get()).collect();
        let (late, early): (Vec<_>, Vec<_>) = events.into_iter().partition(closes_something);
        let any = !early.is_empty() || !late.is_empty();
        let mut starts = BTreeMap::new();
        for mut event in early.into_iter().chain(late) {
            if let Some(attributes) = &mut event.attributes
                && let Some(scheduled) = opening_event_id_of_close(attributes)
            {
                patch_started_event_id(
                    attributes,
                    starts.get(&scheduled).copied().unwrap_or_default(),
                );
            }
            let started_for = match &event.attributes {
                Some(Attributes::ActivityTaskStartedEventAttributes(a)) => {
                    Some(a.scheduled_event_id)
                }
                Some(Attributes::ChildWorkflowExecutionStartedEventAttributes(a)) => {
                    Some(a.initiated_event_id)
                }
                _ => None,
            };
            let id = self.push_event(event);
            if let Some(scheduled) = started_for {
                starts.insert(scheduled, id);
            }
        }
        any
    }

    pub(crate) fn finish(self, reply: Reply) -> Transition {
        Transition {
            records: self.records,
            reply,
            next_run: self.next_run,
        }
    }
}

fn event(at: i64, event_type: EventType, attributes: Attributes) -> HistoryEvent {
    HistoryEvent {
        event_time: Some(wire::timestamp(at)),
        event_type: event_type.into(),
        attributes: Some(attributes),
        ..Default::default()
    }
}

fn closes_something(event: &HistoryEvent) -> bool {
    event
        .attributes
        .as_ref()
        .is_some_and(|a| opening_event_id_of_close(a).is_some())
}

/// The event that opened what a close event closes: an activity or a child.
fn opening_event_id_of_close(attributes: &Attributes) -> Option<i64> {
    scheduled_event_id_of_close(attributes).or_else(|| initiated_event_id_of_close(attributes))
}

/// The child that a close event closes.
pub(crate) fn initiated_event_id_of_close(attributes: &Attributes) -> Option<i64> {
    match attributes {
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => Some(a.initiated_event_id),
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
            Some(a.initiated_event_id)
        }
        _ => None,
    }
}

/// The activity that a close event closes.
pub(crate) fn scheduled_event_id_of_close(attributes: &Attributes) -> Option<i64> {
    match attributes {
        Attributes::ActivityTaskCompletedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskFailedEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskTimedOutEventAttributes(a) => Some(a.scheduled_event_id),
        Attributes::ActivityTaskCanceledEventAttributes(a) => Some(a.scheduled_event_id),
        _ => None,
    }
}

fn patch_started_event_id(attributes: &mut Attributes, started: i64) {
    if started == 0 {
        return;
    }
    match attributes {
        Attributes::ActivityTaskCompletedEventAttributes(a) => a.started_event_id = started,
        Attributes::ActivityTaskFailedEventAttributes(a) => a.started_event_id = started,
        Attributes::ActivityTaskTimedOutEventAttributes(a) => a.started_event_id = started,
        Attributes::ActivityTaskCanceledEventAttributes(a) => a.started_event_id = started,
        Attributes::ChildWorkflowExecutionCompletedEventAttributes(a) => {
            a.started_event_id = started;
        }
        Attributes::ChildWorkflowExecutionFailedEventAttributes(a) => a.started_event_id = started,
        Attributes::ChildWorkflowExecutionCanceledEventAttributes(a) => {
            a.started_event_id = started;
        }
        Attributes::ChildWorkflowExecutionTimedOutEventAttributes(a) => {
            a.started_event_id = started;
        }
        Attributes::ChildWorkflowExecutionTerminatedEventAttributes(a) => {
            a.started_event_id = started;
        }
        _ => {}
    }
}
