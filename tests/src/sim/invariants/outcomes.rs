//! Each attempt has one outcome: an activity closes once, an attempt fails once and starts once, a workflow task and a timer end once, and
//! a script that completes returns what its code says.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion_history::record::Record;
use orchestrion_history::state::Stage;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::note;

use super::super::ledger::Run;
use super::super::script::{self, Placed};
use super::{Check, Invariant, View};

/// What was seen of every run.
#[derive(Default)]
pub(super) struct Outcomes {
    runs: BTreeMap<Run, Seen>,
}

#[derive(Default)]
struct Seen {
    /// Activities, workflow tasks and timers that are over, by the event that began them.
    over: BTreeSet<i64>,
    /// Attempts that a worker has, by scheduling event.
    started: BTreeMap<i64, i32>,
    failed: BTreeSet<(i64, i32)>,
    /// Activities whose next attempt waits for its time, after a failure or because an operator said so.
    backing_off: BTreeSet<i64>,
    fires: BTreeMap<i64, i64>,
    wanted: Option<String>,
    signals: BTreeSet<String>,
}

impl Seen {
    fn once(&mut self, began: i64, what: &str) -> Check {
        match self.over.insert(began) {
            true => Ok(()),
            false => Err(format!("{what} of event {began} ends twice")),
        }
    }

    fn record(&mut self, record: &Record) -> Check {
        match record {
            Record::Event(event) => {
                let at = event
                    .event_time
                    .as_ref()
                    .map_or(0, |t| t.seconds * 1_000_000_000 + i64::from(t.nanos));
                match &event.attributes {
                    Some(attributes) => self.event(event.event_id, at, attributes),
                    None => Ok(()),
                }
            }
            Record::Note(note) => match &note.kind {
                Some(kind) => self.note(note.at, kind),
                None => Ok(()),
            },
        }
    }

    fn event(&mut self, id: i64, at: i64, attributes: &A) -> Check {
        match attributes {
            A::WorkflowExecutionStartedEventAttributes(a) => {
                let input = a.input.as_ref().and_then(|input| input.payloads.first());
                let placed = input.and_then(|p| serde_json::from_slice::<Placed>(&p.data).ok());
                self.wanted = placed.map(|placed| placed.script.result(&placed.place));
                Ok(())
            }
            A::WorkflowExecutionCompletedEventAttributes(a) => {
                let result = script::read(a.result.as_ref());
                match &self.wanted {
                    Some(wanted) if result.as_ref() != Some(wanted) => Err(format!(
                        "it returned {result:?}, its script says {wanted:?}"
                    )),
                    _ => Ok(()),
                }
            }
            A::ActivityTaskCompletedEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the activity")
            }
            A::ActivityTaskFailedEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the activity")
            }
            A::ActivityTaskTimedOutEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the activity")
            }
            A::ActivityTaskCanceledEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the activity")
            }
            A::WorkflowTaskCompletedEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the workflow task")
            }
            A::WorkflowTaskFailedEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the workflow task")
            }
            A::WorkflowTaskTimedOutEventAttributes(a) => {
                self.once(a.scheduled_event_id, "the workflow task")
            }
            A::TimerStartedEventAttributes(a) => {
                let wait = a.start_to_fire_timeout.unwrap_or_default();
                let nanos = wait.seconds * 1_000_000_000 + i64::from(wait.nanos);
                self.fires.insert(id, at + nanos);
                Ok(())
            }
            A::TimerFiredEventAttributes(a) => {
                self.once(a.started_event_id, "the timer")?;
                match self.fires.get(&a.started_event_id) {
                    Some(due) if at < *due => Err(format!(
                        "the timer of event {} fired {} ns early",
                        a.started_event_id,
                        due - at
                    )),
                    Some(_) => Ok(()),
                    None => Err("a timer fired that nobody started".to_owned()),
                }
            }
            A::WorkflowExecutionSignaledEventAttributes(a) => {
                match script::read(a.input.as_ref()).filter(|text| text.starts_with('#')) {
                    Some(mark) if !self.signals.insert(mark.clone()) => {
                        Err(format!("signal {mark} arrived twice"))
                    }
                    _ => Ok(()),
                }
            }
            A::TimerCanceledEventAttributes(a) => self.once(a.started_event_id, "the timer"),
            _ => Ok(()),
        }
    }

    /// An operator said when an attempt that does not run may start.
    fn due(&mut self, event: i64, at: i64, due_at: i64) {
        if self.started.contains_key(&event) {
            return;
        }
        match due_at > at {
            true => _ = self.backing_off.insert(event),
            false => _ = self.backing_off.remove(&event),
        }
    }

    fn note(&mut self, at: i64, kind: &note::Kind) -> Check {
        match kind {
            note::Kind::ActivityUnpaused(n) => {
                self.due(n.scheduled_event_id, at, n.due_at);
                Ok(())
            }
            note::Kind::ActivityReset(n) => {
                self.due(n.scheduled_event_id, at, n.due_at);
                Ok(())
            }
            note::Kind::ActivityAttemptStarted(a) => {
                let event = a.scheduled_event_id;
                match self.started.insert(event, a.attempt) {
                    Some(running) if running == a.attempt => Err(format!(
                        "attempt {} of event {event} is started while it runs",
                        a.attempt
                    )),
                    _ => Ok(()),
                }
            }
            note::Kind::ActivityAttemptFailed(a) => {
                self.started.remove(&a.scheduled_event_id);
                self.backing_off.insert(a.scheduled_event_id);
                match self.failed.insert((a.scheduled_event_id, a.attempt)) {
                    true => Ok(()),
                    false => Err(format!(
                        "attempt {} of event {} fails twice",
                        a.attempt, a.scheduled_event_id
                    )),
                }
            }
            note::Kind::ActivityAttemptReturned(a) => {
                let event = a.scheduled_event_id;
                let waited = self.backing_off.remove(&event);
                match self.started.remove(&event).is_some() || waited {
                    true => Ok(()),
                    false => Err(format!(
                        "attempt {} of event {event} returns from nobody",
                        a.attempt
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}

/// A workflow task is completed by whoever was given that task.
fn is_of_its_task(view: &View<'_>, record: &Record) -> Check {
    let Some(A::WorkflowTaskCompletedEventAttributes(done)) =
        record.event().and_then(|event| event.attributes.as_ref())
    else {
        return Ok(());
    };
    match view.ledger.turns.get(&done.identity) {
        Some(turn) if turn.scheduled_event_id != done.scheduled_event_id => Err(format!(
            "the workflow task of event {} is completed by the answer to that of event {}",
            done.scheduled_event_id, turn.scheduled_event_id
        )),
        _ => Ok(()),
    }
}

impl Invariant for Outcomes {
    fn name(&self) -> &'static str {
        "outcomes"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let seen = self.runs.entry(run.clone()).or_default();
            let told = is_of_its_task(view, record).and_then(|()| seen.record(record));
            told.map_err(|why| {
                let id = &view.observer.runs[run].state.workflow_id;
                format!("{id}: {why}")
            })?;
        }
        Ok(())
    }

    /// Connections end with the process that held them: every attempt that a service had is back in its queue.
    fn of_everything(&mut self, view: &View<'_>) -> Check {
        if !view.restarted {
            return Ok(());
        }
        for (_, shadow) in view.observer.open() {
            let services = shadow.state.activities.values();
            let lost = services
                .filter(|activity| activity.task_queue.starts_with("s_"))
                .find(|activity| matches!(activity.stage, Stage::Started { .. }));
            if let Some(activity) = lost {
                return Err(format!(
                    "{} of {} is still with a service that is gone",
                    activity.activity_id, shadow.state.workflow_id
                ));
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.runs.clear();
    }
}
