//! Durable timers of workflow code.
//!
//! ```text
//!  none --Started--> running --Fired--> none
//!                    running --Canceled--> none        also when Fired is still in the buffer: it is taken back
//! ```

use orchestrion_proto::temporal::api::command::v1::{
    CancelTimerCommandAttributes, StartTimerCommandAttributes,
};
use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    TimerCanceledEventAttributes, TimerFiredEventAttributes, TimerStartedEventAttributes,
};

use super::Context;
use super::workflow_task::BadCommand;
use crate::draft::Draft;
use crate::state::{CarriedEvent, MutableState, Timer};
use crate::wire;

pub(super) fn start(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &StartTimerCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let bad = |why: &str| BadCommand {
        cause: WorkflowTaskFailedCause::BadStartTimerAttributes,
        message: format!("timer {:?}: {why}", command.timer_id),
    };
    if command.timer_id.is_empty() || command.timer_id.len() > context.limits.id_bytes_max {
        return Err(bad("its id is empty or too long"));
    }
    if wire::nanos(command.start_to_fire_timeout.as_ref()) <= 0 {
        return Err(bad("its time to fire must be positive"));
    }
    let running = draft.state.timers.contains_key(&command.timer_id)
        && !draft.timers_canceled.contains(&command.timer_id);
    if running || draft.timers_started.contains_key(&command.timer_id) {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::StartTimerDuplicateId,
            message: format!("timer {:?} is already running", command.timer_id),
        });
    }
    let id = draft.event(
        EventType::TimerStarted,
        Attributes::TimerStartedEventAttributes(TimerStartedEventAttributes {
            timer_id: command.timer_id.clone(),
            start_to_fire_timeout: command.start_to_fire_timeout,
            workflow_task_completed_event_id: completed_event_id,
        }),
    );
    draft.timers_started.insert(command.timer_id.clone(), id);
    Ok(())
}

pub(super) fn cancel(
    draft: &mut Draft<'_>,
    command: &CancelTimerCommandAttributes,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let state = draft.state;
    let of_state = state
        .timers
        .get(&command.timer_id)
        .filter(|_| !draft.timers_canceled.contains(&command.timer_id));
    let started_event_id = match (draft.timers_started.remove(&command.timer_id), of_state) {
        (Some(id), _) => id,
        (None, Some(timer)) => timer.started_event_id,
        (None, None) => {
            return Err(BadCommand {
                cause: WorkflowTaskFailedCause::BadCancelTimerAttributes,
                message: format!("timer {:?} is not running", command.timer_id),
            });
        }
    };
    if of_state.is_some_and(|timer| timer.fired)
        && let Some(index) = state
            .buffered
            .iter()
            .position(|event| fired_timer(event).as_deref() == Some(&command.timer_id))
    {
        draft.unbuffered.insert(index);
    }
    draft.timers_canceled.insert(command.timer_id.clone());
    draft.event(
        EventType::TimerCanceled,
        Attributes::TimerCanceledEventAttributes(TimerCanceledEventAttributes {
            timer_id: command.timer_id.clone(),
            started_event_id,
            workflow_task_completed_event_id: completed_event_id,
            ..Default::default()
        }),
    );
    Ok(())
}

fn fired_timer(buffered: &CarriedEvent) -> Option<String> {
    match buffered.get()?.attributes? {
        Attributes::TimerFiredEventAttributes(fired) => Some(fired.timer_id),
        _ => None,
    }
}

/// Timers that are due, earliest first.
pub(super) fn fire_due(draft: &mut Draft<'_>, context: &Context<'_>) {
    let state = draft.state;
    let mut due: Vec<(&String, &Timer)> = state
        .timers
        .iter()
        .filter(|(_, timer)| !timer.fired && timer.fire_at <= draft.now)
        .collect();
    due.sort_by_key(|(_, timer)| (timer.fire_at, timer.started_event_id));
    for (id, timer) in due {
        let fired = Attributes::TimerFiredEventAttributes(TimerFiredEventAttributes {
            timer_id: id.clone(),
            started_event_id: timer.started_event_id,
        });
        draft.happened_outside(context, vec![(draft.now, EventType::TimerFired, fired)]);
    }
}

pub(super) fn apply(
    state: &mut MutableState,
    event_id: i64,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    match attributes {
        Attributes::TimerStartedEventAttributes(started) => {
            let fire_at = at.saturating_add(wire::nanos(started.start_to_fire_timeout.as_ref()));
            let timer = Timer {
                started_event_id: event_id,
                fire_at,
                fired: false,
            };
            match state.timers.insert(started.timer_id.clone(), timer) {
                None => Ok(()),
                Some(_) => Err(format!("timer {:?} is running already", started.timer_id)),
            }
        }
        Attributes::TimerFiredEventAttributes(fired) => {
            end(state, &fired.timer_id, fired.started_event_id)
        }
        Attributes::TimerCanceledEventAttributes(canceled) => {
            end(state, &canceled.timer_id, canceled.started_event_id)
        }
        _ => Err("it is no record of a timer".to_owned()),
    }
}

fn end(state: &mut MutableState, id: &str, started_event_id: i64) -> Result<(), String> {
    match state.timers.remove(id) {
        Some(timer) if timer.started_event_id == started_event_id => Ok(()),
        _ => Err(format!(
            "timer {id:?} of event {started_event_id} is not running"
        )),
    }
}

pub(super) fn apply_buffered(state: &mut MutableState, attributes: &Attributes) {
    if let Attributes::TimerFiredEventAttributes(fired) = attributes
        && let Some(timer) = state.timers.get_mut(&fired.timer_id)
    {
        timer.fired = true;
    }
}
