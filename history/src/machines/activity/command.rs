//! Commands of workflow code: schedule an activity, ask for its cancellation.

use orchestrion_proto::prost_wkt_types::Duration;
use orchestrion_proto::temporal::api::command::v1::ScheduleActivityTaskCommandAttributes;
use orchestrion_proto::temporal::api::enums::v1::{EventType, WorkflowTaskFailedCause};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::history::v1::{
    ActivityTaskCancelRequestedEventAttributes, ActivityTaskCanceledEventAttributes,
    ActivityTaskScheduledEventAttributes,
};

use super::due::start_event;
use crate::draft::Draft;
use crate::machines::workflow_task::BadCommand;
use crate::machines::{Context, retry};
use crate::state::{Activity, MutableState, Stage};
use crate::wire;

pub(in crate::machines) fn schedule(
    draft: &mut Draft<'_>,
    context: &Context<'_>,
    command: &ScheduleActivityTaskCommandAttributes,
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
    let given = [
        command.schedule_to_close_timeout.as_ref(),
        command.schedule_to_start_timeout.as_ref(),
        command.start_to_close_timeout.as_ref(),
        command.heartbeat_timeout.as_ref(),
    ];
    let timeouts = Timeouts::normalise(given, draft.state).map_err(bad)?;
    let retry = retry::normalise(command.retry_policy.as_ref()).map_err(bad)?;
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
    draft.scheduled.insert(command.activity_id.clone(), id);
    Ok(())
}

/// In nanoseconds; 0 is none.
pub(super) struct Timeouts {
    pub(super) schedule_to_close: i64,
    pub(super) schedule_to_start: i64,
    pub(super) start_to_close: i64,
    pub(super) heartbeat: i64,
}

impl Timeouts {
    /// The rules of `temporal-wire` section 2.1: one of two is required, what is missing is derived, all are capped. Given are
    /// schedule-to-close, schedule-to-start, start-to-close and heartbeat.
    pub(super) fn normalise(
        given: [Option<&Duration>; 4],
        state: &MutableState,
    ) -> Result<Self, String> {
        let names = [
            "schedule-to-close",
            "schedule-to-start",
            "start-to-close",
            "heartbeat",
        ];
        for (what, timeout) in names.into_iter().zip(given) {
            if wire::nanos(timeout) < 0 {
                return Err(format!("its {what} timeout is negative"));
            }
        }
        let [close, start, start_close, heartbeat] = given.map(wire::nanos);
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

pub(in crate::machines) fn request_cancel(
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
        let doubted =
            activity.and_then(|activity| doubted_start(scheduled_event_id, activity, draft.now));
        let started_event_id =
            doubted.map_or(0, |(at, kind, start)| draft.event_at(at, kind, start));
        draft.event(
            EventType::ActivityTaskCanceled,
            Attributes::ActivityTaskCanceledEventAttributes(ActivityTaskCanceledEventAttributes {
                latest_cancel_requested_event_id: requested,
                scheduled_event_id,
                started_event_id,
                ..Default::default()
            }),
        );
        draft.closed_activities.insert(scheduled_event_id);
    }
    Ok(())
}

/// The late start before a cancellation, if the attempt before timed out: such an attempt may have done its work all the same. The
/// start carries the time-out as its last failure; without it the activity would look like one that never ran.
pub(super) fn doubted_start(
    id: i64,
    activity: &Activity,
    now: i64,
) -> Option<(i64, EventType, Attributes)> {
    let timed_out = matches!(
        activity.last_failure.get()?.failure_info,
        Some(FailureInfo::TimeoutFailureInfo(_))
    );
    timed_out.then(|| start_event(id, activity, "", now))
}
