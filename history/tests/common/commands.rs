//! What workflow code asks for, and what others tell it.

use orchestrion_history::request::{
    ActivityChoice, Delivered, OptionsChange, PauseActivity, PauseWorkflow, Request, ResetActivity,
    Undeliverable, UnpauseActivity, UnpauseWorkflow, UpdateActivityOptions,
};
use orchestrion_history::wire;
use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::command::v1::command::Attributes as C;
use orchestrion_proto::temporal::api::command::v1::{
    CancelTimerCommandAttributes, CancelWorkflowExecutionCommandAttributes, Command,
    CompleteWorkflowExecutionCommandAttributes, ContinueAsNewWorkflowExecutionCommandAttributes,
    FailWorkflowExecutionCommandAttributes, ProtocolMessageCommandAttributes,
    RequestCancelActivityTaskCommandAttributes,
    RequestCancelExternalWorkflowExecutionCommandAttributes, ScheduleActivityTaskCommandAttributes,
    SignalExternalWorkflowExecutionCommandAttributes, StartChildWorkflowExecutionCommandAttributes,
    StartTimerCommandAttributes,
};
use orchestrion_proto::temporal::api::common::v1::{
    ActivityType, Payload, Payloads, RetryPolicy, WorkflowExecution, WorkflowType,
};
use orchestrion_proto::temporal::api::enums::v1::{ParentClosePolicy, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{ApplicationFailureInfo, Failure};
use orchestrion_proto::temporal::api::protocol::v1::Message;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::update::v1::{Meta, Request as UpdateRequest};

fn command(attributes: C) -> Command {
    Command {
        attributes: Some(attributes),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<orchestrion_proto::prost_wkt_types::Duration> {
    Some(orchestrion_history::wire::duration(seconds * 1_000_000_000))
}

fn schedule(id: &str) -> ScheduleActivityTaskCommandAttributes {
    ScheduleActivityTaskCommandAttributes {
        activity_id: id.to_owned(),
        activity_type: Some(ActivityType {
            name: "work".to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: "workers".to_owned(),
            ..Default::default()
        }),
        input: Some(payloads(id)),
        start_to_close_timeout: seconds(30),
        retry_policy: Some(RetryPolicy {
            maximum_attempts: 3,
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn activity_command(id: &str) -> Command {
    command(C::ScheduleActivityTaskCommandAttributes(schedule(id)))
}

/// An activity with one attempt whose `kind` of timeout comes first.
pub fn timed_activity(id: &str, kind: TimeoutType) -> Command {
    let mut schedule = ScheduleActivityTaskCommandAttributes {
        retry_policy: Some(RetryPolicy {
            maximum_attempts: 1,
            ..Default::default()
        }),
        start_to_close_timeout: seconds(100),
        ..schedule(id)
    };
    match kind {
        TimeoutType::ScheduleToStart => schedule.schedule_to_start_timeout = seconds(10),
        TimeoutType::ScheduleToClose => schedule.schedule_to_close_timeout = seconds(60),
        TimeoutType::Heartbeat => schedule.heartbeat_timeout = seconds(5),
        _ => schedule.start_to_close_timeout = seconds(20),
    }
    command(C::ScheduleActivityTaskCommandAttributes(schedule))
}

pub fn cancel_activity(scheduled_event_id: i64) -> Command {
    command(C::RequestCancelActivityTaskCommandAttributes(
        RequestCancelActivityTaskCommandAttributes { scheduled_event_id },
    ))
}

pub fn timer_command(id: &str, ms: i64) -> Command {
    command(C::StartTimerCommandAttributes(
        StartTimerCommandAttributes {
            timer_id: id.to_owned(),
            start_to_fire_timeout: Some(orchestrion_history::wire::duration(ms * 1_000_000)),
        },
    ))
}

pub fn cancel_timer(id: &str) -> Command {
    command(C::CancelTimerCommandAttributes(
        CancelTimerCommandAttributes {
            timer_id: id.to_owned(),
        },
    ))
}

pub fn complete_command() -> Command {
    command(C::CompleteWorkflowExecutionCommandAttributes(
        CompleteWorkflowExecutionCommandAttributes { result: None },
    ))
}

pub fn fail_command(message: &str, non_retryable: bool) -> Command {
    command(C::FailWorkflowExecutionCommandAttributes(
        FailWorkflowExecutionCommandAttributes {
            failure: Some(app_failure(message, non_retryable)),
        },
    ))
}

pub fn cancel_command() -> Command {
    command(C::CancelWorkflowExecutionCommandAttributes(
        CancelWorkflowExecutionCommandAttributes::default(),
    ))
}

pub fn continue_command(input: &str) -> Command {
    command(C::ContinueAsNewWorkflowExecutionCommandAttributes(
        ContinueAsNewWorkflowExecutionCommandAttributes {
            input: Some(payloads(input)),
            ..Default::default()
        },
    ))
}

pub fn child_command(workflow_id: &str, policy: ParentClosePolicy) -> Command {
    command(C::StartChildWorkflowExecutionCommandAttributes(
        StartChildWorkflowExecutionCommandAttributes {
            workflow_id: workflow_id.to_owned(),
            workflow_type: Some(WorkflowType {
                name: "part".to_owned(),
            }),
            input: Some(payloads(workflow_id)),
            parent_close_policy: policy.into(),
            ..Default::default()
        },
    ))
}

pub fn signal_external(workflow_id: &str, name: &str) -> Command {
    command(C::SignalExternalWorkflowExecutionCommandAttributes(
        SignalExternalWorkflowExecutionCommandAttributes {
            execution: Some(WorkflowExecution {
                workflow_id: workflow_id.to_owned(),
                run_id: String::new(),
            }),
            signal_name: name.to_owned(),
            ..Default::default()
        },
    ))
}

pub fn cancel_external(workflow_id: &str) -> Command {
    command(C::RequestCancelExternalWorkflowExecutionCommandAttributes(
        RequestCancelExternalWorkflowExecutionCommandAttributes {
            workflow_id: workflow_id.to_owned(),
            ..Default::default()
        },
    ))
}

pub fn protocol_command(message_id: &str) -> Command {
    command(C::ProtocolMessageCommandAttributes(
        ProtocolMessageCommandAttributes {
            message_id: message_id.to_owned(),
        },
    ))
}

pub fn message(
    id: &str,
    update_id: &str,
    name: &str,
    body: &impl orchestrion_proto::prost::Message,
) -> Message {
    Message {
        id: id.to_owned(),
        protocol_instance_id: update_id.to_owned(),
        body: Some(orchestrion_proto::prost_wkt_types::Any {
            type_url: format!("type.googleapis.com/temporal.api.update.v1.{name}"),
            value: body.encode_to_vec(),
        }),
        ..Default::default()
    }
}

pub fn update_request(id: &str) -> UpdateRequest {
    UpdateRequest {
        meta: Some(Meta {
            update_id: id.to_owned(),
            identity: "caller".to_owned(),
        }),
        ..Default::default()
    }
}

pub fn delivered(initiated_event_id: i64, result: Result<(), Undeliverable>) -> Request {
    Request::Delivered(Delivered {
        initiated_event_id,
        result,
    })
}

pub fn payloads(text: &str) -> Payloads {
    let metadata = [
        ("encoding", "json/plain"),
        ("messageType", "test"),
        ("third", "entry"),
    ];
    let metadata = metadata
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.as_bytes().to_vec()))
        .collect();
    Payloads {
        payloads: vec![Payload {
            metadata,
            data: format!("\"{text}\"").into_bytes(),
            ..Default::default()
        }],
    }
}

pub fn app_failure(message: &str, non_retryable: bool) -> Failure {
    Failure {
        message: message.to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(
            ApplicationFailureInfo {
                non_retryable,
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

/// What operators do, by number.
pub fn operate(what: u8, choice: ActivityChoice, delay_ms: u32) -> Request {
    let identity = "operator".to_owned();
    let delay = i64::from(delay_ms) * 1_000_000;
    let (reason, request_id) = ("to look".to_owned(), format!("p{delay_ms}"));
    match what {
        0 => Request::PauseActivity(PauseActivity {
            choice,
            identity,
            reason,
            request_id,
        }),
        1 => Request::UnpauseActivity(UnpauseActivity {
            choice,
            identity,
            reset_attempts: delay_ms.is_multiple_of(2),
            reset_heartbeat: delay_ms.is_multiple_of(3),
            delay: if delay_ms.is_multiple_of(5) { 0 } else { delay },
        }),
        2 => Request::ResetActivity(ResetActivity {
            choice,
            identity,
            reset_heartbeat: delay_ms.is_multiple_of(2),
            keep_paused: delay_ms.is_multiple_of(3),
            restore_options: delay_ms.is_multiple_of(5),
            delay: if delay_ms.is_multiple_of(7) { 0 } else { delay },
        }),
        3 => Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
            choice,
            identity,
            change: OptionsChange::Restore,
        })),
        4 | 5 => Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
            choice,
            identity,
            change: options_change(i64::from(delay_ms)),
        })),
        6 => Request::Pause(PauseWorkflow {
            identity,
            reason,
            request_id,
        }),
        _ => Request::Unpause(UnpauseWorkflow {
            identity,
            reason,
            request_id,
        }),
    }
}

/// Another first interval, and another time-out of an attempt.
pub fn options_change(ms: i64) -> OptionsChange {
    let span = Some(wire::duration((ms + 1) * 1_000_000));
    OptionsChange::Fields {
        options: Box::new(ActivityOptions {
            start_to_close_timeout: span,
            retry_policy: Some(RetryPolicy {
                initial_interval: span,
                ..Default::default()
            }),
            ..Default::default()
        }),
        paths: vec![
            "start_to_close_timeout".to_owned(),
            "retry_policy.initial_interval".to_owned(),
        ],
    }
}
