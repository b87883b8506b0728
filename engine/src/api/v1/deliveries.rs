//! What was tried to tell a webhook.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::{Caller, Id};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use crate::api::orra::Api;
use crate::orchestration::effect::rfc3339;
use crate::outbox::log;

/// The last tries of a webhook's deliveries.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    /// Newest first.
    items: Vec<TryView>,
    /// There is one page.
    next_cursor: Option<String>,
}

/// One try of one delivery.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TryView {
    /// The same in each try of one delivery.
    event_id: String,
    /// What it tells.
    event_type: String,
    /// When it was tried.
    #[schema(format = DateTime)]
    timestamp: String,
    /// 1 for the first try.
    attempt: i32,
    /// How long it took.
    duration_ms: i64,
    /// The HTTP status of the answer; null when there was none.
    status: Option<i32>,
    /// Whether it was taken.
    delivered: bool,
    /// Why not; empty when it was.
    error: String,
}

/// List deliveries
///
/// The last 200 tries. Those of a webhook that was removed stay until their retention.
#[utoipa::path(
    get, path = "/webhooks/{id}/deliveries", operation_id = "listDeliveries", tag = "project",
    params(("id" = String, Path, description = "The webhook.")),
    responses(
        (status = 200, description = "The tries.", body = Deliveries),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such webhook.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn deliveries(
    State(api): State<Api>,
    Caller(project): Caller,
    Id(id): Id,
) -> Result<Response, Problem> {
    let tries = log::newest_first(&**api.handle.store(), &project, &id)?;
    if tries.is_empty() && api.registrar.registry().webhook(&project, &id).is_none() {
        let detail =
            format!("there is no webhook {id:?}: list what there is with GET /v1/webhooks");
        return Err(Problem::new(Code::NotFound, detail).param("id"));
    }
    let items = tries.into_iter().map(|tried| TryView {
        timestamp: rfc3339(Timestamp(tried.at)),
        attempt: tried.attempt,
        duration_ms: tried.duration_ns / 1_000_000,
        status: (tried.status != 0).then_some(tried.status),
        delivered: tried.error.is_empty(),
        error: tried.error,
        event_id: tried.event_id,
        event_type: tried.event_type,
    });
    let body = Deliveries {
        items: items.collect(),
        next_cursor: None,
    };
    Ok(respond(StatusCode::OK, &body))
}
