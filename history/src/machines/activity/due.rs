//! What follows a failure, and what time alone does: retries and the four timeouts.

use orchestrion_proto::temporal::api::enums::v1::{EventType, RetryState, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskStartedEventAttributes, ActivityTaskTimedOutEventAttributes,
};
use orchestrion_proto::v1::{ActivityAttemptFailed, ActivityAttemptReturned, note};

use crate::draft::Draft;
use crate::machines::Context;
use crate::state::{Activity, Stage, after};
use crate::wire;

pub(super) enum Next {
    At(i64),
    Never(RetryState),
}

pub(super) fn next_attempt(activity: &Activity, failure: &Failure, now: i64) -> Next {
    if activity.cancel_requested_event_id != 0 {
        return Next::Never(RetryState::CancelRequested);
    }
    // One that is to begin anew has had no attempt that counts.
    let counted = if activity.reset.is_some() {
        0
    } else {
        activity.number()
    };
    let wait = match activity.retry.next(counted, failure) {
        Ok(wait) => wait,
        Err(why) => return Next::Never(why),
    };
    let at = now.saturating_add(wait);
    match after(activity.scheduled_at, activity.schedule_to_close) {
        Some(deadline) if at >= deadline => Next::Never(RetryState::Timeout),
        _ => Next::At(at),
    }
}

/// Retries and timeouts that are due, by scheduling event.
pub(in crate::machines) fn fire_due(draft: &mut Draft<'_>, context: &Context<'_>) {
    let state = draft.state;
    for (id, activity) in &state.activities {
        if activity
            .next_due(state.holds_back(activity))
            .is_some_and(|due| due <= draft.now)
        {
            fire_one(draft, context, *id, activity);
        }
    }
}

fn fire_one(draft: &mut Draft<'_>, context: &Context<'_>, id: i64, activity: &Activity) {
    let now = draft.now;
    let is_due = |from, timeout| after(from, timeout).is_some_and(|at| at <= now);
    if is_due(activity.scheduled_at, activity.schedule_to_close) {
        return time_out(
            draft,
            context,
            id,
            activity,
            TimeoutType::ScheduleToClose,
            RetryState::Timeout,
        );
    }
    match &activity.stage {
        Stage::Queued
            if !draft.state.holds_back(activity)
                && is_due(activity.attempt_scheduled_at, activity.schedule_to_start) =>
        {
            time_out(
                draft,
                context,
                id,
                activity,
                TimeoutType::ScheduleToStart,
                RetryState::Timeout,
            );
        }
        // The attempt becomes takeable by its time alone; `tasks` puts it into its queue when a record says so.
        Stage::Backoff { until } if *until <= now => {
            draft.note(note::Kind::ActivityAttemptReturned(
                ActivityAttemptReturned {
                    scheduled_event_id: id,
                    attempt: activity.attempt,
                    reason: "retry".to_owned(),
                },
            ));
        }
        Stage::Started {
            at, heartbeat_at, ..
        } => {
            let kind = if is_due(*at, activity.start_to_close) {
                TimeoutType::StartToClose
            } else if is_due(*heartbeat_at, activity.heartbeat) {
                TimeoutType::Heartbeat
            } else {
                return;
            };
            let cause = activity.last_failure.get();
            let failure = wire::timeout_failure(kind, cause, activity.heartbeat_details.get());
            match next_attempt(activity, &failure, now) {
                Next::At(retry_at) => draft.note(attempt_failed(id, activity, failure, retry_at)),
                Next::Never(retry_state) => {
                    time_out(draft, context, id, activity, kind, retry_state)
                }
            }
        }
        Stage::Queued | Stage::Backoff { .. } | Stage::Settled => {}
    }
}

fn time_out(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    id: i64,
    activity: &Activity,
    kind: TimeoutType,
    retry_state: RetryState,
) {
    let cause = activity.last_failure.get();
    let close =
        Attributes::ActivityTaskTimedOutEventAttributes(ActivityTaskTimedOutEventAttributes {
            failure: Some(wire::timeout_failure(
                kind,
                cause,
                activity.heartbeat_details.get(),
            )),
            scheduled_event_id: id,
            retry_state: retry_state.into(),
            ..Default::default()
        });
    let mut events = Vec::with_capacity(2);
    if matches!(activity.stage, Stage::Started { .. }) {
        events.push(start_event(id, activity, "", draft.now));
    }
    events.push((draft.now, EventType::ActivityTaskTimedOut, close));
    draft.happened_outside(context, events);
}

/// The late `ActivityTaskStarted`.
pub(super) fn start_event(
    id: i64,
    activity: &Activity,
    identity: &str,
    now: i64,
) -> (i64, EventType, Attributes) {
    let (at, identity, request_id) = match &activity.stage {
        Stage::Started {
            at,
            identity,
            request_id,
            ..
        } => (*at, identity.as_str(), request_id.as_str()),
        // Its next attempt may not be due yet: history knows no start that is still to come.
        _ => (activity.attempt_scheduled_at.min(now), identity, ""),
    };
    let attributes = ActivityTaskStartedEventAttributes {
        scheduled_event_id: id,
        identity: identity.to_owned(),
        request_id: request_id.to_owned(),
        attempt: activity.number(),
        last_failure: activity.last_failure.get(),
        ..Default::default()
    };
    (
        at,
        EventType::ActivityTaskStarted,
        Attributes::ActivityTaskStartedEventAttributes(attributes),
    )
}

pub(super) fn attempt_failed(
    id: i64,
    activity: &Activity,
    failure: Failure,
    retry_at: i64,
) -> note::Kind {
    note::Kind::ActivityAttemptFailed(ActivityAttemptFailed {
        scheduled_event_id: id,
        attempt: activity.attempt,
        failure: Some(failure),
        retry_at,
    })
}
