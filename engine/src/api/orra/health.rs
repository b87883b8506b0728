//! `GET /health` and `GET /metrics`.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::error::{ApiError, Kind};
use super::{Api, respond};
use crate::engine::handle::CallError;

/// A healthy engine answers sooner.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// 200 `{}` while the engine takes and commits work.
pub async fn health(State(api): State<Api>) -> Result<Response, ApiError> {
    match tokio::time::timeout(ANSWER_WITHIN, api.handle.put(Vec::new())).await {
        // A full inbox is a busy engine, not a sick one.
        Ok(Ok(()) | Err(CallError::Busy { .. })) => Ok(respond(StatusCode::OK, &json!({}))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ApiError::new(Kind::Unavailable, "the engine does not answer: its log says why")),
    }
}

/// The metrics, as Prometheus reads them.
pub async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics.render();
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"))], text).into_response()
}
