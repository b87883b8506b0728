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

use orchestrion_proto::temporal::api::command::v1::ScheduleActivityTaskCommandAttributes;
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::{
    EventType, RetryState, TimeoutType, WorkflowTaskFailedCause,
};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskCompletedEventAttributes, ActivityTaskFailedEventAttributes,
    ActivityTaskScheduledEventAttributes, ActivityTaskStartedEventAttributes,
    ActivityTaskTimedOutEventAttributes,
};
use orchestrion_proto::temporal::api::sdk::v1::UserMetadata;
use orchestrion_proto::v1::{
    ActivityAttemptFailed, ActivityAttemptReturned, ActivityAttemptStarted, ActivityHeartbeat,
    ActivityProgress, ActivityWaiting, note,
};

use super::Context;
use super::workflow_task::BadCommand;
use crate::draft::Draft;
use crate::request::{
    ActivityRef, CompleteActivity, ConfirmActivityCanceled, FailActivity, HeartbeatActivity,
    MarkActivityWaiting, Rejection, Reply, ReportActivityProgress, ReturnActivityAttempt,
    StartActivityAttempt, Transition,
};
use crate::state::{
    Activity, CarriedFailure, CarriedHeader, CarriedPayloads, MutableState, Retry, Stage, after,
};
use crate::wire;

const SECOND: i64 = 1_000_000_000;

// ---- commands ------------------------------------------------------------------------------------

pub(super) fn schedule(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &ScheduleActivityTaskCommandAttributes,
    user_metadata: Option<&UserMetadata>,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let bad = |message: String| BadCommand {
        cause: WorkflowTaskFailedCause::BadScheduleActivityAttributes,
        message: format!("activity {:?}: {message}", command.activity_id),
    };
    let activity_type = command
        .activity_type
        .as_ref()
        .map_or("", |t| t.name.as_str());
    for (what, value) in [
        ("id", command.activity_id.as_str()),
        ("type", activity_type),
    ] {
        if value.is_empty() {
            return Err(bad(format!("its {what} is empty")));
        }
        if value.len() > context.limits.id_bytes_max {
            return Err(bad(format!(
                "its {what} has {} bytes, at most {} are allowed",
                value.len(),
                context.limits.id_bytes_max
            )));
        }
    }
    let id_open = draft.state.activity_ids.get(&command.activity_id);
    if draft.scheduled.contains_key(&command.activity_id)
        || id_open.is_some_and(|id| !draft.closed_activities.contains(id))
    {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::ScheduleActivityDuplicateId,
            message: format!("activity {:?} is already pending", command.activity_id),
        });
    }
    let pending =
        draft.state.activities.len() + draft.scheduled.len() - draft.closed_activities.len();
    if pending >= context.limits.pending_activities_max {
        return Err(BadCommand {
            cause: WorkflowTaskFailedCause::PendingActivitiesLimitExceeded,
            message: format!(
                "{} activities are pending, no more are allowed",
                context.limits.pending_activities_max
            ),
        });
    }
    let timeouts = Timeouts::normalise(command, draft.state).map_err(bad)?;
    let retry = normalise_retry(command.retry_policy.as_ref()).map_err(bad)?;
    let queue = command
        .task_queue
        .clone()
        .filter(|queue| !queue.name.is_empty())
        .unwrap_or_else(
            || orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue {
                name: draft.state.task_queue.clone(),
                ..Default::default()
            },
        );
    let id = draft.event(
        EventType::ActivityTaskScheduled,
        Attributes::ActivityTaskScheduledEventAttributes(ActivityTaskScheduledEventAttributes {
            activity_id: command.activity_id.clone(),
            activity_type: command.activity_type.clone(),
            task_queue: Some(queue),
            header: command.header.clone(),
            input: command.input.clone(),
            schedule_to_close_timeout: Some(wire::duration(timeouts.schedule_to_close)),
            schedule_to_start_timeout: Some(wire::duration(timeouts.schedule_to_start)),
            start_to_close_timeout: Some(wire::duration(timeouts.start_to_close)),
            heartbeat_timeout: Some(wire::duration(timeouts.heartbeat)),
            workflow_task_completed_event_id: completed_event_id,
            retry_policy: Some(retry),
            priority: command.priority.clone(),
            ..Default::default()
        }),
    );
    let _ = user_metadata; // Kept with the event once listings show it.
    draft.scheduled.insert(command.activity_id.clone(), id);
    Ok(())
}

struct Timeouts {
    schedule_to_close: i64,
    schedule_to_start: i64,
    start_to_close: i64,
    heartbeat: i64,
}

impl Timeouts {
    /// The rules of `temporal-wire` section 2.1: one of two is required, what is missing is derived, all are capped.
    fn normalise(
        command: &ScheduleActivityTaskCommandAttributes,
        state: &MutableState,
    ) -> Result<Self, String> {
        let given = [
            (
                "schedule-to-close",
                command.schedule_to_close_timeout.as_ref(),
            ),
            (
                "schedule-to-start",
                command.schedule_to_start_timeout.as_ref(),
            ),
            ("start-to-close", command.start_to_close_timeout.as_ref()),
            ("heartbeat", command.heartbeat_timeout.as_ref()),
        ];
        for (what, timeout) in given {
            if wire::nanos(timeout) < 0 {
                return Err(format!("its {what} timeout is negative"));
            }
        }
        let [close, start, start_close, heartbeat] = given.map(|(_, timeout)| wire::nanos(timeout));
        if close == 0 && start_close == 0 {
            return Err("it needs a schedule-to-close or a start-to-close timeout".to_owned());
        }
        let run = if state.run_deadline > 0 {
            state.run_deadline - state.started_at
        } else {
            0
        };
        let schedule_to_close = cap(close, run);
        let schedule_to_start = cap(start, first(schedule_to_close, run));
        let start_to_close = cap(start_close, first(schedule_to_close, run));
        Ok(Self {
            schedule_to_close,
            schedule_to_start,
            start_to_close,
            heartbeat: cap_some(heartbeat, start_to_close),
        })
    }
}

/// `value`, or `limit` when it is absent or above it; 0 is absent, and unlimited.
fn cap(value: i64, limit: i64) -> i64 {
    match (value, limit) {
        (0, limit) => limit,
        (value, 0) => value,
        (value, limit) => value.min(limit),
    }
}

/// `value` capped by `limit`, but 0 stays 0.
fn cap_some(value: i64, limit: i64) -> i64 {
    if value == 0 { 0 } else { cap(value, limit) }
}

fn first(a: i64, b: i64) -> i64 {
    if a == 0 { b } else { a }
}

fn normalise_retry(policy: Option<&RetryPolicy>) -> Result<RetryPolicy, String> {
    let policy = policy.cloned().unwrap_or_default();
    let initial = match wire::nanos(policy.initial_interval.as_ref()) {
        0 => SECOND,
        nanos => nanos,
    };
    let maximum = match wire::nanos(policy.maximum_interval.as_ref()) {
        0 => initial.saturating_mul(100),
        nanos => nanos,
    };
    let factor = if policy.backoff_coefficient == 0.0 {
        2.0
    } else {
        policy.backoff_coefficient
    };
    if initial < 0 || maximum < initial {
        return Err(
            "its retry policy's intervals must be positive, the maximum not below the initial"
                .to_owned(),
        );
    }
    if factor < 1.0 || !factor.is_finite() {
        return Err("its retry policy's backoff coefficient must be at least 1".to_owned());
    }
    if policy.maximum_attempts < 0 {
        return Err("its retry policy's maximum attempts must not be negative".to_owned());
    }
    Ok(RetryPolicy {
        initial_interval: Some(wire::duration(initial)),
        maximum_interval: Some(wire::duration(maximum)),
        backoff_coefficient: factor,
        ..policy
    })
}

pub(super) fn request_cancel(
    draft: &mut Draft<'_>,
    scheduled_event_id: i64,
    completed_event_id: i64,
) -> Result<(), BadCommand> {
    let bad = |why: &str| BadCommand {
        cause: WorkflowTaskFailedCause::BadRequestCancelActivityAttributes,
        message: format!("activity of event {scheduled_event_id}: {why}"),
    };
    let scheduled_now = draft
        .scheduled
        .iter()
        .find(|(_, id)| **id == scheduled_event_id);
    let state = draft.state;
    let activity = state.activities.get(&scheduled_event_id);
    if (activity.is_none() && scheduled_now.is_none())
        || draft.closed_activities.contains(&scheduled_event_id)
    {
        return Err(bad("it is not pending"));
    }
    if activity.is_some_and(|a| a.cancel_requested_event_id != 0)
        || !draft.cancels.insert(scheduled_event_id)
    {
        return Err(bad("its cancellation was requested before"));
    }
    let requested = draft.event(
        EventType::ActivityTaskCancelRequested,
        Attributes::ActivityTaskCancelRequestedEventAttributes(
            ActivityTaskCancelRequestedEventAttributes {
                scheduled_event_id,
                workflow_task_completed_event_id: completed_event_id,
            },
        ),
    );
    let idle = activity.is_none_or(|a| matches!(a.stage, Stage::Queued | Stage::Backoff { .. }));
    if idle {
        draft.event(
            EventType::ActivityTaskCanceled,
            Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
                latest_cancel_requested_event_id: requested,
                scheduled_event_id,
                ..Default::default()
            }),
        );
        draft.closed_activities.insert(scheduled_event_id);
    }
    Ok(())
}

// ---- requests ------------------------------------------------------------------------------------

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
        .filter(|activity| !matches!(activity.stage, Stage::Settled { .. }))
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
    match &activity.stage {
        Stage::Queued => {}
        Stage::Started { request_id, .. } if *request_id == request.request_id => {
            return Ok(Transition {
                records: Vec::new(),
                reply: Reply::Repeated,
            });
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
        }
        Stage::Started { .. } => {
            return Err(not_found(format!(
                "attempt {} of event {id} already started",
                request.attempt
            )));
        }
        Stage::Backoff { .. } | Stage::Settled { .. } => {
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
    let start = start_event(id, activity, &request.identity);
    draft.happened_outside(
        context,
        vec![
            start,
            (context.now.0, EventType::ActivityTaskCompleted, close),
        ],
    );
    Ok(draft.finish(Reply::Done))
}

/// The late `ActivityTaskStarted`.
fn start_event(id: i64, activity: &Activity, identity: &str) -> (i64, EventType, Attributes) {
    let (at, identity, request_id) = match &activity.stage {
        Stage::Started {
            at,
            identity,
            request_id,
            ..
        } => (*at, identity.as_str(), request_id.as_str()),
        _ => (activity.attempt_scheduled_at, identity, ""),
    };
    let attributes = ActivityTaskStartedEventAttributes {
        scheduled_event_id: id,
        identity: identity.to_owned(),
        request_id: request_id.to_owned(),
        attempt: activity.attempt,
        last_failure: activity.last_failure.get(),
        ..Default::default()
    };
    (
        at,
        EventType::ActivityTaskStarted,
        Attributes::ActivityTaskStartedEventAttributes(attributes),
    )
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
            let start = start_event(id, activity, &request.identity);
            draft.happened_outside(
                context,
                vec![start, (context.now.0, EventType::ActivityTaskFailed, close)],
            );
        }
    }
    Ok(draft.finish(Reply::Done))
}

fn attempt_failed(id: i64, activity: &Activity, failure: Failure, retry_at: i64) -> note::Kind {
    note::Kind::ActivityAttemptFailed(ActivityAttemptFailed {
        scheduled_event_id: id,
        attempt: activity.attempt,
        failure: Some(failure),
        retry_at,
    })
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
    let start = start_event(id, activity, &request.identity);
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
            cancel_idle(&mut draft, context, id, activity.cancel_requested_event_id);
        }
    }
    Ok(draft.finish(Reply::Done))
}

/// An attempt that will not be handed out again, because its cancellation was asked for.
fn cancel_idle(draft: &mut Draft<'_>, context: &Context<'_>, id: i64, requested: i64) {
    let close =
        Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
            latest_cancel_requested_event_id: requested,
            scheduled_event_id: id,
            ..Default::default()
        });
    draft.happened_outside(
        context,
        vec![(context.now.0, EventType::ActivityTaskCanceled, close)],
    );
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

// ---- retries and timeouts --------------------------------------------------------------------------

enum Next {
    At(i64),
    Never(RetryState),
}

fn next_attempt(activity: &Activity, failure: &Failure, now: i64) -> Next {
    if activity.cancel_requested_event_id != 0 {
        return Next::Never(RetryState::CancelRequested);
    }
    let mut delay = None;
    match &failure.failure_info {
        Some(FailureInfo::ApplicationFailureInfo(info)) => {
            if info.non_retryable || activity.retry.non_retryable.contains(&info.r#type) {
                return Next::Never(RetryState::NonRetryableFailure);
            }
            delay = info.next_retry_delay.as_ref().map(|d| wire::nanos(Some(d)));
        }
        Some(FailureInfo::ServerFailureInfo(info)) if info.non_retryable => {
            return Next::Never(RetryState::NonRetryableFailure);
        }
        Some(FailureInfo::CanceledFailureInfo(_) | FailureInfo::TerminatedFailureInfo(_)) => {
            return Next::Never(RetryState::NonRetryableFailure);
        }
        Some(FailureInfo::TimeoutFailureInfo(info))
            if !matches!(
                info.timeout_type(),
                TimeoutType::StartToClose | TimeoutType::Heartbeat
            ) =>
        {
            return Next::Never(RetryState::Timeout);
        }
        _ => {}
    }
    if activity.retry.attempts > 0 && activity.attempt >= activity.retry.attempts {
        return Next::Never(RetryState::MaximumAttemptsReached);
    }
    let at = now.saturating_add(delay.unwrap_or_else(|| activity.retry.wait(activity.attempt)));
    match after(activity.scheduled_at, activity.schedule_to_close) {
        Some(deadline) if at >= deadline => Next::Never(RetryState::Timeout),
        _ => Next::At(at),
    }
}

impl Retry {
    /// Nanoseconds to wait behind attempt `attempt`.
    pub fn wait(&self, attempt: i32) -> i64 {
        let wait = self.initial as f64 * self.factor.powi(attempt.saturating_sub(1).max(0));
        if wait.is_finite() && wait < self.maximum as f64 {
            wait as i64
        } else {
            self.maximum
        }
    }
}

/// Retries and timeouts that are due, by scheduling event.
pub(super) fn fire_due(draft: &mut Draft<'_>, context: &Context<'_>) {
    let state = draft.state;
    for (id, activity) in &state.activities {
        if activity.next_due().is_some_and(|due| due <= draft.now) {
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
        Stage::Queued if is_due(activity.attempt_scheduled_at, activity.schedule_to_start) => {
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
        Stage::Queued | Stage::Backoff { .. } | Stage::Settled { .. } => {}
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
        events.push(start_event(id, activity, ""));
    }
    events.push((draft.now, EventType::ActivityTaskTimedOut, close));
    draft.happened_outside(context, events);
}

// ---- apply -----------------------------------------------------------------------------------------

pub(super) fn apply(
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
            (started.attempt == activity.attempt)
                .then_some(())
                .ok_or_else(|| format!("attempt {} is the current one", activity.attempt))
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
                    state.activity_ids.remove(&activity.activity_id);
                }
                Ok(())
            }
            None => Err("it is no record of an activity".to_owned()),
        },
    }
}

fn open(state: &mut MutableState, id: i64) -> Result<&mut Activity, String> {
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
        retry: Retry {
            initial: wire::nanos(retry.initial_interval.as_ref()),
            factor: retry.backoff_coefficient,
            maximum: wire::nanos(retry.maximum_interval.as_ref()),
            attempts: retry.maximum_attempts,
            non_retryable: retry.non_retryable_error_types,
        },
        attempt: 1,
        attempt_scheduled_at: at,
        stage: Stage::Queued,
        last_failure: CarriedFailure::default(),
        heartbeat_details: CarriedPayloads::default(),
        cancel_requested_event_id: 0,
        waiting: false,
    };
    state
        .activity_ids
        .insert(scheduled.activity_id.clone(), event_id);
    state.activities.insert(event_id, activity);
    Ok(())
}

pub(super) fn apply_note(
    state: &mut MutableState,
    at: i64,
    kind: &note::Kind,
) -> Result<(), String> {
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
pub(super) fn apply_buffered(state: &mut MutableState, attributes: &Attributes) {
    if let Some(id) = crate::draft::scheduled_event_id_of_close(attributes)
        && let Some(activity) = state.activities.get_mut(&id)
    {
        activity.stage = Stage::Settled {
            started: matches!(activity.stage, Stage::Started { .. }),
        };
    }
}
