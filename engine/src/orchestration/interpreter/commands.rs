//! The commands an orchestration gives: one function each, all of whose fields are decided here.
//!
//! Invariant: every policy and time-out is written out, so the core has nothing to fill in and history shows what holds.

use std::collections::HashMap;

use orchestrion_proto::prost_wkt_types::Duration;
use orchestrion_proto::temporal::api::command::v1::command::Attributes;
use orchestrion_proto::temporal::api::command::v1::{
    CancelTimerCommandAttributes, CancelWorkflowExecutionCommandAttributes, Command,
    CompleteWorkflowExecutionCommandAttributes, FailWorkflowExecutionCommandAttributes,
    ModifyWorkflowPropertiesCommandAttributes, RequestCancelActivityTaskCommandAttributes,
    ScheduleActivityTaskCommandAttributes, StartTimerCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{
    ActivityType, Header, Memo, Payload, Payloads, RetryPolicy,
};
use orchestrion_proto::temporal::api::enums::v1::{CommandType, TaskQueueKind};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use serde_json::Value;

use crate::orchestration::submission::json_payloads;

/// An activity to schedule.
pub(super) struct Activity {
    pub id: String,
    pub kind: String,
    pub queue: String,
    pub input: Option<Payloads>,
    pub header: Option<Header>,
    pub start_to_close_ms: u64,
    /// `None` is unlimited.
    pub schedule_to_close_ms: Option<u64>,
    pub retry: RetryPolicy,
}

fn command(kind: CommandType, attributes: Attributes) -> Command {
    Command {
        command_type: kind.into(),
        attributes: Some(attributes),
        ..Default::default()
    }
}

pub(super) fn schedule(activity: Activity) -> Command {
    let schedule_to_close_ms = activity.schedule_to_close_ms.unwrap_or(0);
    command(
        CommandType::ScheduleActivityTask,
        Attributes::ScheduleActivityTaskCommandAttributes(ScheduleActivityTaskCommandAttributes {
            activity_id: activity.id,
            activity_type: Some(ActivityType {
                name: activity.kind,
            }),
            task_queue: Some(TaskQueue {
                name: activity.queue,
                kind: TaskQueueKind::Normal.into(),
                ..Default::default()
            }),
            header: activity.header,
            input: activity.input,
            schedule_to_close_timeout: Some(millis(schedule_to_close_ms)),
            schedule_to_start_timeout: Some(millis(schedule_to_close_ms)),
            start_to_close_timeout: Some(millis(match activity.schedule_to_close_ms {
                Some(close) => activity.start_to_close_ms.min(close),
                None => activity.start_to_close_ms,
            })),
            heartbeat_timeout: Some(millis(0)),
            retry_policy: Some(activity.retry),
            ..Default::default()
        }),
    )
}

/// A retry policy with nothing left open.
pub(super) fn retry(
    attempts: u32,
    initial_ms: u64,
    factor: f64,
    max_ms: u64,
    non_retryable: &[&str],
) -> RetryPolicy {
    RetryPolicy {
        initial_interval: Some(millis(initial_ms)),
        backoff_coefficient: factor,
        maximum_interval: Some(millis(max_ms)),
        maximum_attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
        non_retryable_error_types: non_retryable
            .iter()
            .map(|kind| (*kind).to_owned())
            .collect(),
    }
}

pub(super) fn request_cancel(scheduled_event_id: i64) -> Command {
    command(
        CommandType::RequestCancelActivityTask,
        Attributes::RequestCancelActivityTaskCommandAttributes(
            RequestCancelActivityTaskCommandAttributes { scheduled_event_id },
        ),
    )
}

pub(super) fn start_timer(timer_id: String, ms: u64) -> Command {
    command(
        CommandType::StartTimer,
        Attributes::StartTimerCommandAttributes(StartTimerCommandAttributes {
            timer_id,
            start_to_fire_timeout: Some(millis(ms)),
        }),
    )
}

pub(super) fn cancel_timer(timer_id: String) -> Command {
    command(
        CommandType::CancelTimer,
        Attributes::CancelTimerCommandAttributes(CancelTimerCommandAttributes { timer_id }),
    )
}

pub(super) fn upsert_memo(fields: HashMap<String, Payload>) -> Command {
    command(
        CommandType::ModifyWorkflowProperties,
        Attributes::ModifyWorkflowPropertiesCommandAttributes(
            ModifyWorkflowPropertiesCommandAttributes {
                upserted_memo: Some(Memo { fields }),
            },
        ),
    )
}

pub(super) fn complete(results: &[Value]) -> Command {
    command(
        CommandType::CompleteWorkflowExecution,
        Attributes::CompleteWorkflowExecutionCommandAttributes(
            CompleteWorkflowExecutionCommandAttributes {
                result: Some(json_payloads(results)),
            },
        ),
    )
}

pub(super) fn fail(kind: &str, message: String, details: Option<&Value>) -> Command {
    let info = ApplicationFailureInfo {
        r#type: kind.to_owned(),
        non_retryable: true,
        details: details.map(json_payloads),
        ..Default::default()
    };
    let failure = Failure {
        message,
        failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
        ..Default::default()
    };
    command(
        CommandType::FailWorkflowExecution,
        Attributes::FailWorkflowExecutionCommandAttributes(
            FailWorkflowExecutionCommandAttributes {
                failure: Some(failure),
            },
        ),
    )
}

pub(super) fn cancel(details: &Value) -> Command {
    command(
        CommandType::CancelWorkflowExecution,
        Attributes::CancelWorkflowExecutionCommandAttributes(
            CancelWorkflowExecutionCommandAttributes {
                details: Some(json_payloads(details)),
            },
        ),
    )
}

fn millis(ms: u64) -> Duration {
    Duration {
        seconds: i64::try_from(ms / 1_000).unwrap_or(i64::MAX),
        nanos: (ms % 1_000) as i32 * 1_000_000,
    }
}
