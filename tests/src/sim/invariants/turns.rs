//! Each turn of a script is what its code makes of the history that the turn counts as having seen.
//!
//! ```text
//!  1..  the history up to WorkflowTaskStarted --script::turn--> the commands that must stand behind WorkflowTaskCompleted
//!                                             `- of which the worker had seen everything
//! ```

use orchestrion_history::record::Record;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::temporal::api::history::v1::{
    HistoryEvent, WorkflowTaskCompletedEventAttributes,
};

use super::super::observer::Shadow;
use super::super::script;
use super::{Check, Invariant, View};

/// Asks journals alone: nothing is kept between two looks.
#[derive(Default)]
pub(super) struct Turns;

/// What a command asks for, in the words of [`recorded`].
fn asked(command: &Command) -> String {
    match &command.attributes {
        Some(C::ScheduleActivityTaskCommandAttributes(c)) => format!("activity {}", c.activity_id),
        Some(C::StartTimerCommandAttributes(c)) => format!("timer {}", c.timer_id),
        Some(C::StartChildWorkflowExecutionCommandAttributes(c)) => {
            format!("child {}", c.workflow_id)
        }
        Some(C::SignalExternalWorkflowExecutionCommandAttributes(c)) => {
            format!("tells {:?}", script::read(c.input.as_ref()))
        }
        Some(C::CompleteWorkflowExecutionCommandAttributes(c)) => {
            format!("returns {:?}", script::read(c.result.as_ref()))
        }
        Some(C::FailWorkflowExecutionCommandAttributes(c)) => {
            let why = c.failure.as_ref().map(|failure| &failure.message);
            format!("fails {why:?}")
        }
        Some(C::CancelWorkflowExecutionCommandAttributes(_)) => "is cancelled".to_owned(),
        Some(C::ContinueAsNewWorkflowExecutionCommandAttributes(c)) => {
            format!("goes on with {:?}", c.input)
        }
        other => format!("something that no script asks for: {other:?}"),
    }
}

/// The turn that a command's event came of, and what it asked for.
fn recorded(event: &HistoryEvent) -> Option<(i64, String)> {
    Some(match event.attributes.as_ref()? {
        A::ActivityTaskScheduledEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("activity {}", a.activity_id),
        ),
        A::TimerStartedEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("timer {}", a.timer_id),
        ),
        A::StartChildWorkflowExecutionInitiatedEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("child {}", a.workflow_id),
        ),
        A::SignalExternalWorkflowExecutionInitiatedEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("tells {:?}", script::read(a.input.as_ref())),
        ),
        A::WorkflowExecutionCompletedEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("returns {:?}", script::read(a.result.as_ref())),
        ),
        A::WorkflowExecutionFailedEventAttributes(a) => {
            let why = a.failure.as_ref().map(|failure| &failure.message);
            (a.workflow_task_completed_event_id, format!("fails {why:?}"))
        }
        A::WorkflowExecutionCanceledEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            "is cancelled".to_owned(),
        ),
        A::WorkflowExecutionContinuedAsNewEventAttributes(a) => (
            a.workflow_task_completed_event_id,
            format!("goes on with {:?}", a.input),
        ),
        _ => return None,
    })
}

/// What the worker had not seen of what its turn counts as having seen.
fn missed(before: &[HistoryEvent], seen: i64) -> Option<&HistoryEvent> {
    // That a task is scheduled may be written as late as its end is: nothing happens by it.
    before.iter().find(|event| {
        event.event_id > seen && event.event_type() != EventType::WorkflowTaskScheduled
    })
}

fn is_of_its_history(
    shadow: &Shadow,
    completed: i64,
    done: &WorkflowTaskCompletedEventAttributes,
    seen: i64,
) -> Check {
    let events = || shadow.records.iter().filter_map(Record::event);
    let before: Vec<HistoryEvent> = events()
        .filter(|event| event.event_id < done.started_event_id)
        .cloned()
        .collect();
    if let Some(event) = missed(&before, seen) {
        return Err(format!(
            "turn {completed} counts as having seen event {}, {:?}, and its worker saw {seen} events",
            event.event_id,
            event.event_type()
        ));
    }
    let due: Vec<String> = script::turn(&before).iter().map(asked).collect();
    let kept: Vec<String> = events()
        .filter_map(recorded)
        .filter(|(turn, _)| *turn == completed)
        .map(|(_, what)| what)
        .collect();
    match due == kept {
        true => Ok(()),
        false => Err(format!(
            "of its history turn {completed} would be {due:?}, and is {kept:?}"
        )),
    }
}

impl Invariant for Turns {
    fn name(&self) -> &'static str {
        "turns"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (run, record) in &view.news.records {
            let Some(event) = record.event() else {
                continue;
            };
            let Some(A::WorkflowTaskCompletedEventAttributes(done)) = &event.attributes else {
                continue;
            };
            // The engine's own code answers without a mark.
            let shadow = &view.observer.runs[run];
            let Some(turn) = view.ledger.turns.get(&done.identity) else {
                continue;
            };
            is_of_its_history(shadow, event.event_id, done, turn.seen)
                .map_err(|why| format!("{}: {why}", shadow.state.workflow_id))?;
        }
        Ok(())
    }
}
