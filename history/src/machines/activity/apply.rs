//! The fold: what each record of an activity makes of the state.

use orchestrion_proto::temporal::api::history::v1::ActivityTaskScheduledEventAttributes;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::v1::note;

use crate::state::{
    Activity, CarriedFailure, CarriedHeader, CarriedOptions, CarriedPayloads, CarriedPriority,
    MutableState, Retry, Stage,
};
use crate::wire;

pub(in crate::machines) fn apply(
    state: &mut MutableState,
    event_id: i64,
    at: i64,
    attributes: &Attributes,
) -> Result<(), String> {
    match attributes {
        Attributes::ActivityTaskScheduledEventAttributes(scheduled) => {
            apply_scheduled(state, event_id, at, scheduled)
        }
        Attributes::ActivityTaskStartedEventAttributes(started) => {
            let activity = open(state, started.scheduled_event_id)?;
            (started.attempt == activity.number())
                .then_some(())
                .ok_or_else(|| format!("attempt {} is the current one", activity.number()))
        }
        Attributes::ActivityTaskCancelRequestedEventAttributes(requested) => {
            let activity = open(state, requested.scheduled_event_id)?;
            if activity.cancel_requested_event_id != 0 {
                return Err("its cancellation was requested before".to_owned());
            }
            activity.cancel_requested_event_id = event_id;
            Ok(())
        }
        other => match crate::draft::scheduled_event_id_of_close(other) {
            Some(id) => {
                open(state, id)?;
                if let Some(activity) = state.activities.remove(&id) {
                    state.activities_paused -= u32::from(activity.paused.is_some());
                    state.activity_ids.remove(&activity.activity_id);
                }
                Ok(())
            }
            None => Err("it is no record of an activity".to_owned()),
        },
    }
}

pub(super) fn open(state: &mut MutableState, id: i64) -> Result<&mut Activity, String> {
    state
        .activities
        .get_mut(&id)
        .ok_or_else(|| format!("the activity of event {id} is not pending"))
}

fn apply_scheduled(
    state: &mut MutableState,
    event_id: i64,
    at: i64,
    scheduled: &ActivityTaskScheduledEventAttributes,
) -> Result<(), String> {
    if state.activity_ids.contains_key(&scheduled.activity_id) {
        return Err(format!(
            "activity {:?} is pending already",
            scheduled.activity_id
        ));
    }
    let retry = scheduled.retry_policy.clone().unwrap_or_default();
    let activity = Activity {
        activity_id: scheduled.activity_id.clone(),
        activity_type: scheduled
            .activity_type
            .as_ref()
            .map(|t| t.name.clone())
            .unwrap_or_default(),
        task_queue: scheduled
            .task_queue
            .as_ref()
            .map(|q| q.name.clone())
            .unwrap_or_default(),
        input: CarriedPayloads::new(scheduled.input.as_ref()),
        header: CarriedHeader::new(scheduled.header.as_ref()),
        scheduled_at: at,
        schedule_to_close: wire::nanos(scheduled.schedule_to_close_timeout.as_ref()),
        schedule_to_start: wire::nanos(scheduled.schedule_to_start_timeout.as_ref()),
        start_to_close: wire::nanos(scheduled.start_to_close_timeout.as_ref()),
        heartbeat: wire::nanos(scheduled.heartbeat_timeout.as_ref()),
        retry: Retry::of(&retry),
        priority: CarriedPriority::new(scheduled.priority.as_ref()),
        attempt: 1,
        attempts_before: 0,
        attempt_scheduled_at: at,
        attempt_ended_at: 0,
        stage: Stage::Queued,
        last_failure: CarriedFailure::default(),
        heartbeat_details: CarriedPayloads::default(),
        cancel_requested_event_id: 0,
        waiting: false,
        paused: None,
        reset: None,
        original_options: CarriedOptions::default(),
    };
    state
        .activity_ids
        .insert(scheduled.activity_id.clone(), event_id);
    state.activities.insert(event_id, activity);
    Ok(())
}

pub(in crate::machines) fn apply_note(
    state: &mut MutableState,
    at: i64,
    kind: &note::Kind,
) -> Result<(), String> {
    if let Some(applied) = super::operate::apply(state, at, kind) {
        return applied;
    }
    let (id, attempt) = match kind {
        note::Kind::ActivityAttemptStarted(n) => (n.scheduled_event_id, n.attempt),
        note::Kind::ActivityAttemptFailed(n) => (n.scheduled_event_id, n.attempt),
        note::Kind::ActivityAttemptReturned(n) => (n.scheduled_event_id, n.attempt),
        note::Kind::ActivityHeartbeat(n) => (n.scheduled_event_id, n.attempt),
        note::Kind::ActivityProgress(n) => (n.scheduled_event_id, n.attempt),
        note::Kind::ActivityWaiting(n) => (n.scheduled_event_id, n.attempt),
        _ => return Err("it is no note of an activity".to_owned()),
    };
    let activity = open(state, id)?;
    if activity.attempt != attempt {
        return Err(format!("attempt {} is the current one", activity.attempt));
    }
    match (&mut activity.stage, kind) {
        (Stage::Queued, note::Kind::ActivityAttemptStarted(started)) => {
            activity.stage = Stage::Started {
                at,
                heartbeat_at: at,
                identity: started.identity.clone(),
                request_id: started.request_id.clone(),
                on_stream: started.on_stream,
            };
            activity.waiting = false;
        }
        // A failure by id may come from an attempt that timed out before: it counts for the current one.
        (
            Stage::Queued | Stage::Backoff { .. } | Stage::Started { .. },
            note::Kind::ActivityAttemptFailed(failed),
        ) => {
            activity.attempt += 1;
            activity.attempt_ended_at = at;
            activity.begin_anew_if_asked();
            activity.last_failure = CarriedFailure::new(failed.failure.as_ref());
            activity.attempt_scheduled_at = failed.retry_at;
            activity.stage = Stage::Backoff {
                until: failed.retry_at,
            };
            activity.waiting = false;
        }
        (Stage::Started { .. } | Stage::Backoff { .. }, note::Kind::ActivityAttemptReturned(_)) => {
            activity.stage = Stage::Queued;
        }
        (Stage::Started { heartbeat_at, .. }, note::Kind::ActivityHeartbeat(beat)) => {
            *heartbeat_at = at;
            activity.heartbeat_details = CarriedPayloads::new(beat.details.as_ref());
        }
        (Stage::Queued | Stage::Backoff { .. }, note::Kind::ActivityHeartbeat(beat)) => {
            activity.heartbeat_details = CarriedPayloads::new(beat.details.as_ref());
        }
        (
            Stage::Queued | Stage::Backoff { .. } | Stage::Started { .. },
            note::Kind::ActivityProgress(_),
        ) => {}
        (Stage::Queued, note::Kind::ActivityWaiting(_)) => activity.waiting = true,
        (stage, _) => return Err(format!("the attempt is {stage:?}")),
    }
    Ok(())
}

/// Its outcome is in the buffer: for everybody but the flush, the activity is closed.
pub(in crate::machines) fn apply_buffered(state: &mut MutableState, attributes: &Attributes) {
    if let Some(id) = crate::draft::scheduled_event_id_of_close(attributes)
        && let Some(activity) = state.activities.get_mut(&id)
    {
        activity.stage = Stage::Settled;
    }
}
