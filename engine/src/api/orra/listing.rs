//! `GET /orchestrations` and `GET /orchestrations/inspections/{id}`.
//!
//! Invariant: an id of another project is as unknown as one that never was.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::{Namespace, WorkflowId};
use orchestrion_history::request::Rejection;

use super::auth::Authenticated;
use super::body::Id;
use super::error::ApiError;
use super::{Api, respond};
use crate::engine::handle::{CallError, Target};
use crate::orchestration::view::{Listing, View};

/// The newest so many are listed.
const LISTED_MAX: usize = 10_000;

/// `GET /orchestrations`
pub async fn list(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
) -> Result<Response, ApiError> {
    let records = api.handle.list(&project, LISTED_MAX)?;
    Ok(respond(StatusCode::OK, &Listing::of(&records)))
}

/// `GET /orchestrations/inspections/{id}`
pub async fn inspect(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let target = target_of(&project, &id)?;
    let run = api
        .handle
        .journal(&target)?
        .ok_or_else(|| ApiError::unknown_orchestration(&id))?;
    let view = View::fold(&run.records).ok_or_else(|| ApiError::unknown_orchestration(&id))?;
    Ok(respond(StatusCode::OK, &view.inspection(api.clock.now())))
}

/// The orchestration an id from outside names.
pub(super) fn target_of(project: &Namespace, id: &str) -> Result<Target, ApiError> {
    let workflow_id = WorkflowId::parse(id).map_err(|_| ApiError::unknown_orchestration(id))?;
    Ok(Target {
        namespace: project.clone(),
        workflow_id,
        run_id: None,
    })
}

/// The answer to a call that concerned one orchestration.
pub(super) fn unknown_or(id: &str, error: CallError) -> ApiError {
    match error {
        CallError::Rejected(Rejection::NotFound { .. }) => ApiError::unknown_orchestration(id),
        error => error.into(),
    }
}
