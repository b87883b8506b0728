//! An activity: work that a worker does outside.
//!
//! ```text
//!            Queued --attempt started--> Started --attempt failed or timed out, and may be retried--> Backoff --due--> Queued
//!                                        Started --connection lost--> Queued                (uncounted)
//!  Queued | Backoff | Started --Completed | Failed | TimedOut | Canceled--> closed
//!  Queued | Backoff --cancel requested--> closed (Canceled)        Started --cancel requested--> Started (no retry follows)
//! ```
//!
//! Attempts are notes. `ActivityTaskStarted` is written late, with the close, and carries the last attempt's number. A result by
//! activity id is accepted from any attempt as long as the activity is open: a late answer is an answer.

mod apply;
mod command;
mod due;
mod operate;

pub(super) use self::apply::{apply, apply_buffered, apply_note};
pub(super) use self::command::{request_cancel, schedule};
pub(super) use self::due::fire_due;
use self::due::{Next, attempt_failed, next_attempt, start_event};
pub(super) use self::operate::{pause, reset, unpause, update_options};
use orchestrion_proto::temporal::api::enums::v1::EventType;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskCanceledEventAttributes, ActivityTaskCompletedEventAttributes,
    ActivityTaskFailedEventAttributes,
};
use orchestrion_proto::v1::{
    ActivityAttemptReturned, ActivityAttemptStarted, ActivityHeartbeat, ActivityProgress,
    ActivityWaiting, note,
};

use super::Context;
use crate::draft::Draft;
use crate::request::{
    ActivityRef, CompleteActivity, ConfirmActivityCanceled, FailActivity, HeartbeatActivity,
    MarkActivityWaiting, Rejection, Reply, ReportActivityProgress, ReturnActivityAttempt,
    StartActivityAttempt, Transition,
};
use crate::state::{Activity, MutableState, Stage};

fn not_found(why: impl Into<String>) -> Rejection {
    Rejection::NotFound {
        what: "activity",
        why: why.into(),
    }
}

/// The activity a reference means. A settled one is closed for everybody but the flush.
fn find<'a>(
    state: &'a MutableState,
    reference: &ActivityRef,
) -> Result<(i64, &'a Activity), Rejection> {
    let id = match reference {
        ActivityRef::Id(id) => *state
            .activity_ids
            .get(id)
            .ok_or_else(|| not_found(format!("{id:?} is not pending; it may have closed")))?,
        ActivityRef::Scheduled(id)
        | ActivityRef::Attempt {
            scheduled_event_id: id,
            ..
        } => *id,
    };
    let activity = state
        .activities
        .get(&id)
        .filter(|activity| !matches!(activity.stage, Stage::Settled))
        .ok_or_else(|| {
            not_found(format!(
                "the activity of event {id} is not pending; it may have closed"
            ))
        })?;
    if let ActivityRef::Attempt { attempt, .. } = reference {
        let running =
            matches!(activity.stage, Stage::Started { .. }) && activity.attempt == *attempt;
        if !running {
            return Err(not_found(format!(
                "attempt {attempt} of event {id} is not running; it may have timed out"
            )));
        }
    }
    Ok((id, activity))
}

pub(super) fn start(
    state: &MutableState,
    context: &Context<'_>,
    request: &StartActivityAttempt,
) -> Result<Transition, Rejection> {
    let id = request.scheduled_event_id;
    let (_, activity) = find(state, &ActivityRef::Scheduled(id))?;
    if activity.attempt != request.attempt {
        return Err(not_found(format!(
            "attempt {} of event {id} is over",
            request.attempt
        )));
    }
    let mut draft = Draft::new(state, context);
    let held_back = state.holds_back(activity);
    match &activity.stage {
        Stage::Queued if held_back => {
            return Err(not_found(format!(
                "attempt {} of event {id} is paused",
                request.attempt
            )));
        }
        Stage::Queued => {}
        Stage::Started { request_id, .. } if *request_id == request.request_id => {
            return Ok(Transition::nothing(Reply::Repeated));
        }
        // Its worker's connection ended with the engine that knew of it.
        Stage::Started {
            on_stream: true, ..
        } if request.on_stream => {
            draft.note(note::Kind::ActivityAttemptReturned(
                ActivityAttemptReturned {
                    scheduled_event_id: id,
                    attempt: activity.attempt,
                    reason: "the engine restarted".to_owned(),
                },
            ));
            if held_back {
                return Ok(draft.finish(Reply::Done));
            }
        }
        Stage::Started { .. } => {
            return Err(not_found(format!(
                "attempt {} of event {id} already started",
                request.attempt
            )));
        }
        Stage::Backoff { .. } | Stage::Settled => {
            return Err(not_found(format!(
                "attempt {} of event {id} is not due",
                request.attempt
            )));
        }
    }
    draft.note(note::Kind::ActivityAttemptStarted(ActivityAttemptStarted {
        scheduled_event_id: id,
        attempt: activity.attempt,
        identity: request.identity.clone(),
        request_id: request.request_id.clone(),
        on_stream: request.on_stream,
    }));
    Ok(draft.finish(Reply::Done))
}

pub(super) fn complete(
    state: &MutableState,
    context: &Context<'_>,
    request: &CompleteActivity,
) -> Result<Transition, Rejection> {
    let (id, activity) = find(state, &request.activity)?;
    let payloads = request.result.iter().flat_map(|result| &result.payloads);
    let bytes: usize = payloads.map(|payload| payload.data.len()).sum();
    if bytes as u64 > context.limits.result_bytes_max {
        return Err(Rejection::Limit {
            what: "activity result",
            max: context.limits.result_bytes_max,
            unit: "bytes",
        });
    }
    let mut draft = Draft::new(state, context);
    let close =
        Attributes::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
            result: request.result.clone(),
            scheduled_event_id: id,
            identity: request.identity.clone(),
            ..Default::default()
        });
    // A late answer closes an attempt that timed out: history still needs the start before the close.
    let start = start_event(id, activity, &request.identity, context.now.0);
    draft.happened_outside(
        context,
        vec![
            start,
            (context.now.0, EventType::ActivityTaskCompleted, close),
        ],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn fail(
    state: &MutableState,
    context: &Context<'_>,
    request: &FailActivity,
) -> Result<Transition, Rejection> {
    let (id, activity) = find(state, &request.activity)?;
    let mut draft = Draft::new(state, context);
    if let Some(details) = &request.last_heartbeat {
        draft.note(note::Kind::ActivityHeartbeat(ActivityHeartbeat {
            scheduled_event_id: id,
            attempt: activity.attempt,
            details: Some(details.clone()),
        }));
    }
    match next_attempt(activity, &request.failure, draft.now) {
        Next::At(retry_at) => draft.note(attempt_failed(
            id,
            activity,
            request.failure.clone(),
            retry_at,
        )),
        Next::Never(retry_state) => {
            let close =
                Attributes::ActivityTaskFailedEventAttributes(ActivityTaskFailedEventAttributes {
                    failure: Some(request.failure.clone()),
                    scheduled_event_id: id,
                    identity: request.identity.clone(),
                    retry_state: retry_state.into(),
                    ..Default::default()
                });
            let start = start_event(id, activity, &request.identity, context.now.0);
            draft.happened_outside(
                context,
                vec![start, (context.now.0, EventType::ActivityTaskFailed, close)],
            );
        }
    }
    Ok(draft.finish(Reply::Done))
}

pub(super) fn confirm_canceled(
    state: &MutableState,
    context: &Context<'_>,
    request: &ConfirmActivityCanceled,
) -> Result<Transition, Rejection> {
    let (id, activity) = find(state, &request.activity)?;
    if activity.cancel_requested_event_id == 0 {
        return Err(Rejection::Invalid(format!(
            "the activity of event {id} was not asked to cancel: complete or fail it instead"
        )));
    }
    let mut draft = Draft::new(state, context);
    let close =
        Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
            details: request.details.clone(),
            latest_cancel_requested_event_id: activity.cancel_requested_event_id,
            scheduled_event_id: id,
            identity: request.identity.clone(),
            ..Default::default()
        });
    let start = start_event(id, activity, &request.identity, context.now.0);
    draft.happened_outside(
        context,
        vec![
            start,
            (context.now.0, EventType::ActivityTaskCanceled, close),
        ],
    );
    Ok(draft.finish(Reply::Done))
}

pub(super) fn heartbeat(
    state: &MutableState,
    context: &Context<'_>,
    request: &HeartbeatActivity,
) -> Result<Transition, Rejection> {
    let (id, activity) = find(state, &request.activity)?;
    if !matches!(activity.stage, Stage::Started { .. }) {
        return Err(not_found(format!("no attempt of event {id} is running")));
    }
    let mut draft = Draft::new(state, context);
    draft.note(note::Kind::ActivityHeartbeat(ActivityHeartbeat {
        scheduled_event_id: id,
        attempt: activity.attempt,
        details: request.details.clone(),
    }));
    Ok(draft.finish(Reply::Heartbeat {
        cancel_requested: activity.cancel_requested_event_id != 0,
        paused: state.holds_back(activity),
        reset: activity.reset.is_some(),
    }))
}

pub(super) fn progress(
    state: &MutableState,
    context: &Context<'_>,
    request: &ReportActivityProgress,
) -> Result<Transition, Rejection> {
    let (id, activity) = find(state, &request.activity)?;
    let mut draft = Draft::new(state, context);
    draft.note(note::Kind::ActivityProgress(ActivityProgress {
        scheduled_event_id: id,
        attempt: activity.attempt,
        update: Some(request.update.clone()),
    }));
    Ok(draft.finish(Reply::Done))
}

pub(super) fn give_back(
    state: &MutableState,
    context: &Context<'_>,
    request: &ReturnActivityAttempt,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    let running = ActivityRef::Attempt {
        scheduled_event_id: request.scheduled_event_id,
        attempt: request.attempt,
    };
    // Overtaken by its answer or its time-out: nothing to give back.
    if let Ok((id, activity)) = find(state, &running) {
        draft.note(note::Kind::ActivityAttemptReturned(
            ActivityAttemptReturned {
                scheduled_event_id: id,
                attempt: activity.attempt,
                reason: request.reason.clone(),
            },
        ));
        if activity.cancel_requested_event_id != 0 {
            cancel_idle(&mut draft, context, id, activity);
        }
    }
    Ok(draft.finish(Reply::Done))
}

/// An attempt that will not be handed out again, because its cancellation was asked for.
fn cancel_idle(draft: &mut Draft<'_>, context: &Context<'_>, id: i64, activity: &Activity) {
    let close =
        Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
            latest_cancel_requested_event_id: activity.cancel_requested_event_id,
            scheduled_event_id: id,
            ..Default::default()
        });
    let mut events: Vec<_> = command::doubted_start(id, activity, context.now.0)
        .into_iter()
        .collect();
    events.push((context.now.0, EventType::ActivityTaskCanceled, close));
    draft.happened_outside(context, events);
}

pub(super) fn mark_waiting(
    state: &MutableState,
    context: &Context<'_>,
    request: &MarkActivityWaiting,
) -> Result<Transition, Rejection> {
    let mut draft = Draft::new(state, context);
    let queued = state
        .activities
        .get(&request.scheduled_event_id)
        .is_some_and(|activity| {
            activity.stage == Stage::Queued
                && activity.attempt == request.attempt
                && !activity.waiting
        });
    if queued {
        draft.note(note::Kind::ActivityWaiting(ActivityWaiting {
            scheduled_event_id: request.scheduled_event_id,
            attempt: request.attempt,
            reason: request.reason.clone(),
        }));
    }
    Ok(draft.finish(Reply::Done))
}
