//! `GET /health` and `GET /metrics`.
//!
//! Invariant: healthy means that a write was committed and synced within the last second.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{Key, Op, RegistryKind};
use serde_json::json;
use tokio::sync::Mutex;

use super::error::{ApiError, Kind};
use super::{Api, respond};
use crate::engine::handle::CallError;

/// A healthy engine answers sooner.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// However often it is asked, the engine is probed no more often than this.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// The record a probe writes.
const PULSE_ID: &str = "pulse";

/// When the engine was last probed, and what it said.
#[derive(Default)]
pub struct Pulse(Mutex<Option<(Timestamp, Result<(), ApiError>)>>);

/// 200 `{}` while the engine takes and commits work.
pub async fn health(State(api): State<Api>) -> Result<Response, ApiError> {
    check(&api)
        .await
        .map(|()| respond(StatusCode::OK, &json!({})))
}

/// Whether the engine takes and commits work.
pub(crate) async fn check(api: &Api) -> Result<(), ApiError> {
    let mut last = api.pulse.0.lock().await;
    let fresh = last
        .as_ref()
        .filter(|(at, _)| api.clock.now().since(*at) < PROBE_INTERVAL);
    match fresh {
        Some((_, result)) => result.clone(),
        None => {
            let result = probe(api).await;
            *last = Some((api.clock.now(), result.clone()));
            result
        }
    }
}

async fn probe(api: &Api) -> Result<(), ApiError> {
    let key = Key::Registry {
        shard: ShardId::REGISTRY,
        namespace: Namespace::system(),
        kind: RegistryKind::Setting,
        id: PULSE_ID.to_owned(),
    };
    let beat = Op::Put(
        key,
        Bytes::copy_from_slice(&api.clock.now().0.to_be_bytes()),
    );
    match tokio::time::timeout(ANSWER_WITHIN, api.handle.put(vec![beat])).await {
        // A full inbox is a busy engine, not a sick one.
        Ok(Ok(()) | Err(CallError::Busy { .. })) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(ApiError::new(
            Kind::Unavailable,
            "the engine does not answer: its log says why",
        )),
    }
}

/// The metrics, as Prometheus reads them.
pub async fn metrics(State(api): State<Api>) -> Response {
    let text = api.metrics.render();
    (
        [(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
        )],
        text,
    )
        .into_response()
}
