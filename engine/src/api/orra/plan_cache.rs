//! The plans that are kept for later: listed and forgotten.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::auth::{Authenticated, Caller};
use super::error::ApiError;
use super::{Api, respond};
use crate::orchestration::effect::rfc3339;
use crate::plan_cache::{CacheSettings, Entry, PlanCache};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CacheJson<'a> {
    off: bool,
    size: u32,
    age_seconds: u64,
    threshold: f64,
    plans: Vec<EntryJson<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryJson<'a> {
    id: &'a str,
    created_at: String,
    action: &'a str,
    /// The names of the values it takes, with their kinds.
    fields: &'a [String],
    tasks: usize,
    model: &'a str,
    /// What one use of it saves.
    tokens: u64,
    /// Since the engine started.
    hits: u64,
    /// Who compares actions with it.
    compared_by: &'a str,
}

impl<'a> EntryJson<'a> {
    fn of(entry: &'a Entry) -> Self {
        Self {
            id: &entry.id,
            created_at: rfc3339(entry.created_at),
            action: &entry.action,
            fields: &entry.key.fields,
            tasks: entry.template.tasks.len(),
            model: &entry.cost.model,
            tokens: entry.cost.prompt_tokens + entry.cost.completion_tokens,
            hits: entry.hits.load(Ordering::Relaxed),
            compared_by: &entry.key.vector.space,
        }
    }
}

/// `GET /plan-cache`: oldest first.
pub async fn list(State(api): State<Api>, Authenticated(project): Authenticated) -> Response {
    let cache = api.desk.cache.as_ref();
    let settings = cache.map_or_else(CacheSettings::default, |cache| cache.settings().clone());
    let entries = cache.map(|cache| cache.list(&project)).unwrap_or_default();
    let shown = CacheJson {
        off: cache.is_none_or(PlanCache::is_off),
        size: settings.size,
        age_seconds: settings.age.as_secs(),
        threshold: settings.threshold,
        plans: entries.iter().map(|entry| EntryJson::of(entry)).collect(),
    };
    respond(StatusCode::OK, &shown)
}

/// `DELETE /plan-cache`: how many plans were forgotten.
pub async fn clear(State(api): State<Api>, caller: Caller) -> Result<Response, ApiError> {
    let cleared = match &api.desk.cache {
        Some(cache) => cache.clear(&caller.project, &caller.actor).await?,
        None => 0,
    };
    tracing::info!(project = %caller.project, cleared, "plan cache cleared");
    Ok(respond(StatusCode::OK, &json!({ "cleared": cleared })))
}
