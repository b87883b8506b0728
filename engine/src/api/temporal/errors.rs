//! Refusals and failures as gRPC statuses, with the details that the SDKs turn into typed errors.
//!
//! Invariant: what will be refused again has a code no SDK retries.

use orchestrion_history::request::Rejection;
use orchestrion_proto::google::rpc;
use orchestrion_proto::prost_wkt_types::Any;
use orchestrion_proto::temporal::api::enums::v1::{ResourceExhaustedCause, ResourceExhaustedScope};
use orchestrion_proto::temporal::api::errordetails::v1::{
    NotFoundFailure, ResourceExhaustedFailure, WorkflowExecutionAlreadyStartedFailure,
    WorkflowNotReadyFailure,
};
use prost::Message;
use tonic::{Code, Status};

use crate::engine::CallError;

/// A status with one typed detail.
pub fn detailed(code: Code, message: String, name: &str, detail: &impl Message) -> Status {
    let status = rpc::Status {
        code: code as i32,
        message: message.clone(),
        details: vec![Any {
            type_url: format!("type.googleapis.com/temporal.api.errordetails.v1.{name}"),
            value: detail.encode_to_vec(),
        }],
    };
    Status::with_details(code, message, status.encode_to_vec().into())
}

/// NOT_FOUND.
pub fn not_found(message: impl Into<String>) -> Status {
    detailed(
        Code::NotFound,
        message.into(),
        "NotFoundFailure",
        &NotFoundFailure::default(),
    )
}

pub fn of_call(error: CallError) -> Status {
    match error {
        CallError::Rejected(rejection) => of_rejection(rejection),
        CallError::Busy { .. } => detailed(
            Code::ResourceExhausted,
            error.to_string(),
            "ResourceExhaustedFailure",
            &ResourceExhaustedFailure {
                cause: ResourceExhaustedCause::SystemOverloaded.into(),
                scope: ResourceExhaustedScope::System.into(),
            },
        ),
        CallError::Unavailable(why) => {
            tracing::error!(%why, "a call could not be served");
            Status::unavailable(
                "the engine cannot read or write its data now: its log says why; try again",
            )
        }
        CallError::ShuttingDown => Status::unavailable(error.to_string()),
        CallError::Quarantined { .. } => Status::failed_precondition(error.to_string()),
    }
}

/// ALREADY_EXISTS: a run, of the chain that began with `first_run_id`, is in the way of a start.
pub fn already_started(
    message: String,
    start_request_id: String,
    run_id: String,
    first_run_id: String,
) -> Status {
    detailed(
        Code::AlreadyExists,
        message,
        "WorkflowExecutionAlreadyStartedFailure",
        &WorkflowExecutionAlreadyStartedFailure {
            start_request_id,
            run_id,
            first_execution_run_id: first_run_id,
        },
    )
}

pub fn of_rejection(rejection: Rejection) -> Status {
    let message = rejection.to_string();
    match rejection {
        Rejection::NotFound { .. } | Rejection::Closed => not_found(message),
        Rejection::AlreadyStarted {
            run_id, request_id, ..
        }
        | Rejection::IdUsed {
            run_id, request_id, ..
        } => already_started(message, request_id, run_id.clone(), run_id),
        Rejection::NotReady(_) => detailed(
            Code::FailedPrecondition,
            message,
            "WorkflowNotReadyFailure",
            &WorkflowNotReadyFailure::default(),
        ),
        Rejection::Invalid(_) | Rejection::Limit { .. } => Status::invalid_argument(message),
    }
}
