//! Tasks: what must be done next, outside the core, and where the indexes keep it.
//!
//! ```text
//!  before = marks(state, records)   records are applied   after(&before, &state) -> Tasks
//! ```
//!
//! A queue entry stands in the index as long as its task may still have to be handed out: a workflow task until it is over, an
//! activity attempt until it starts (on a stream: until it is over, since it returns when the engine restarts). `all` gives the same
//! entries from a state alone: that is how the index is rebuilt.
//!
//! Invariant: the entries that `after` leaves standing are those of `all`.

use std::collections::BTreeSet;

use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::v1::note;

use crate::ids::Timestamp;
use crate::record::Record;
use crate::state::{Activity, MutableState, Stage, WorkflowTask};
use crate::store::QueueKind;

/// One task that waits in a queue, or may have to again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueueEntry {
    /// Of a workflow or an activity.
    pub kind: QueueKind,
    /// Which queue.
    pub queue: String,
    /// Its place there.
    pub at: Timestamp,
    /// Its scheduling event.
    pub event_id: i64,
    /// Which attempt.
    pub attempt: i32,
    /// Whether it waits now; else a worker on a stream has it.
    pub waiting: bool,
}

impl QueueEntry {
    fn same_place(&self, other: &Self) -> bool {
        (self.kind, &self.queue, self.at, self.event_id)
            == (other.kind, &other.queue, other.at, other.event_id)
    }
}

/// The entries that records are about to change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marks {
    entries: Vec<QueueEntry>,
    touched: Touched,
    due: Option<Timestamp>,
    running: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Touched {
    Everything,
    Some {
        workflow_task: bool,
        activities: BTreeSet<i64>,
    },
}

impl Marks {
    /// Whether an entry stood at this place before.
    pub fn stood(&self, entry: &QueueEntry) -> bool {
        self.entries.iter().any(|other| other.same_place(entry))
    }
}

/// What records changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tasks {
    /// Entries to remove from the index.
    pub remove: Vec<QueueEntry>,
    /// Entries to put into the index.
    pub put: Vec<QueueEntry>,
    /// Entries to hand out now: those of `put` that wait, and those that came back.
    pub dispatch: Vec<QueueEntry>,
    /// The run's entry in the timer index before and after, where it changed.
    pub timer: Option<(Option<Timestamp>, Option<Timestamp>)>,
    /// Whether the run closed.
    pub closed: bool,
}

/// Notes what the records will touch. Call it before they are applied.
pub fn marks(state: &MutableState, records: &[Record]) -> Marks {
    let touched = touched(records);
    Marks {
        entries: entries(state, &touched),
        touched,
        due: state.next_due(),
        running: state.is_running(),
    }
}

/// What the records, applied by now, changed.
pub fn after(before: &Marks, state: &MutableState) -> Tasks {
    let now = entries(state, &before.touched);
    let mut tasks = Tasks::default();
    for entry in &before.entries {
        if !now.iter().any(|other| other.same_place(entry)) {
            tasks.remove.push(entry.clone());
        }
    }
    for entry in now {
        let old = before.entries.iter().find(|other| other.same_place(&entry));
        if entry.waiting && old.is_none_or(|old| !old.waiting || old.attempt != entry.attempt) {
            tasks.dispatch.push(entry.clone());
        }
        if old != Some(&entry) {
            tasks.put.push(entry);
        }
    }
    let due = state.next_due();
    if due != before.due {
        tasks.timer = Some((before.due, due));
    }
    tasks.closed = before.running && state.status.is_closed();
    tasks
}

/// Every queue entry of a state.
pub fn all(state: &MutableState) -> Vec<QueueEntry> {
    entries(state, &Touched::Everything)
}

fn touched(records: &[Record]) -> Touched {
    let mut workflow_task = false;
    let mut activities = BTreeSet::new();
    for record in records {
        match record {
            Record::Event(event) => {
                if crate::record::closes_run(event.event_type()) {
                    return Touched::Everything;
                }
                match &event.attributes {
                    Some(Attributes::ActivityTaskScheduledEventAttributes(_)) => {
                        activities.insert(event.event_id);
                    }
                    Some(
                        Attributes::WorkflowExecutionPausedEventAttributes(_)
                        | Attributes::WorkflowExecutionUnpausedEventAttributes(_),
                    ) => return Touched::Everything,
                    Some(
                        Attributes::WorkflowTaskScheduledEventAttributes(_)
                        | Attributes::WorkflowTaskStartedEventAttributes(_)
                        | Attributes::WorkflowTaskCompletedEventAttributes(_)
                        | Attributes::WorkflowTaskFailedEventAttributes(_)
                        | Attributes::WorkflowTaskTimedOutEventAttributes(_),
                    ) => workflow_task = true,
                    Some(other) => {
                        activities.extend(crate::draft::scheduled_event_id_of_close(other))
                    }
                    None => {}
                }
            }
            Record::Note(note) => match &note.kind {
                Some(note::Kind::ActivityAttemptStarted(n)) => {
                    _ = activities.insert(n.scheduled_event_id)
                }
                Some(note::Kind::ActivityAttemptFailed(n)) => {
                    _ = activities.insert(n.scheduled_event_id)
                }
                Some(note::Kind::ActivityAttemptReturned(n)) => {
                    _ = activities.insert(n.scheduled_event_id)
                }
                Some(note::Kind::ActivityPaused(n)) => _ = activities.insert(n.scheduled_event_id),
                Some(note::Kind::ActivityUnpaused(n)) => {
                    _ = activities.insert(n.scheduled_event_id)
                }
                Some(note::Kind::ActivityReset(n)) => _ = activities.insert(n.scheduled_event_id),
                Some(note::Kind::ActivityOptionsUpdated(n)) => {
                    _ = activities.insert(n.scheduled_event_id)
                }
                Some(note::Kind::EventBuffered(n)) => {
                    let attributes = n.event.as_ref().and_then(|event| event.attributes.as_ref());
                    activities
                        .extend(attributes.and_then(crate::draft::scheduled_event_id_of_close));
                }
                Some(
                    note::Kind::WorkflowTaskRetried(_) | note::Kind::WorkflowTaskAttemptFailed(_),
                ) => workflow_task = true,
                _ => {}
            },
        }
    }
    Touched::Some {
        workflow_task,
        activities,
    }
}

fn entries(state: &MutableState, touched: &Touched) -> Vec<QueueEntry> {
    match touched {
        Touched::Everything => {
            let activities = state
                .activities
                .iter()
                .filter_map(|(id, activity)| of_activity(state, *id, activity));
            of_workflow_task(state)
                .into_iter()
                .chain(activities)
                .collect()
        }
        Touched::Some {
            workflow_task,
            activities,
        } => {
            let task = if *workflow_task {
                of_workflow_task(state)
            } else {
                None
            };
            let activities = activities
                .iter()
                .filter_map(|id| of_activity(state, *id, state.activities.get(id)?));
            task.into_iter().chain(activities).collect()
        }
    }
}

fn of_workflow_task(state: &MutableState) -> Option<QueueEntry> {
    let (event_id, attempt, at) = match &state.workflow_task {
        WorkflowTask::Scheduled {
            scheduled_event_id,
            attempt,
            at,
            ..
        } => (*scheduled_event_id, *attempt, *at),
        WorkflowTask::Started { .. } | WorkflowTask::None => return None,
    };
    Some(QueueEntry {
        kind: QueueKind::Workflow,
        queue: state.task_queue.clone(),
        at: Timestamp(at),
        event_id,
        attempt,
        waiting: true,
    })
}

fn of_activity(state: &MutableState, event_id: i64, activity: &Activity) -> Option<QueueEntry> {
    let waiting = match &activity.stage {
        Stage::Queued if state.holds_back(activity) => return None,
        Stage::Queued => true,
        Stage::Started {
            on_stream: true, ..
        } => false,
        Stage::Started { .. } | Stage::Backoff { .. } | Stage::Settled => return None,
    };
    Some(QueueEntry {
        kind: QueueKind::Activity,
        queue: activity.task_queue.clone(),
        at: Timestamp(activity.attempt_scheduled_at),
        event_id,
        attempt: activity.attempt,
        waiting,
    })
}
