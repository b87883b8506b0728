//! The plans that are kept for later: listed and forgotten.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::input::{Acting, Caller};
use super::problem::{Problem, ProblemView};
use super::respond;
use crate::api::orra::Api;
use crate::orchestration::effect::rfc3339;
use crate::plan_cache::{CacheSettings, Entry, PlanCache};

/// The plans that are kept, and by which settings.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanCacheView {
    /// Whether none is kept.
    off: bool,
    /// How many are kept for each project.
    size: u32,
    /// For how long.
    age_seconds: u64,
    /// How alike two actions must be, from 0 to 1.
    threshold: f64,
    /// Oldest first.
    items: Vec<KeptPlan>,
    /// There is one page.
    next_cursor: Option<String>,
}

/// A plan that is kept.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeptPlan {
    /// Recorded with each plan that comes of it.
    id: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// The action it was made for.
    action: String,
    /// The names of the values it takes, with their kinds.
    fields: Vec<String>,
    /// How many steps it has.
    steps: usize,
    /// Who made it.
    model: String,
    /// Tokens that one use of it saves.
    tokens: u64,
    /// How often it was used since the engine started.
    hits: u64,
    /// Who compares actions with it.
    compared_by: String,
}

impl KeptPlan {
    fn of(entry: &Entry) -> Self {
        Self {
            id: entry.id.clone(),
            created_at: rfc3339(entry.created_at),
            action: entry.action.clone(),
            fields: entry.key.fields.clone(),
            steps: entry.template.tasks.len(),
            model: entry.cost.model.clone(),
            tokens: entry.cost.prompt_tokens + entry.cost.completion_tokens,
            hits: entry.hits.load(Ordering::Relaxed),
            compared_by: entry.key.vector.space.clone(),
        }
    }
}

/// How many plans were forgotten.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cleared {
    /// So many.
    cleared: usize,
}

/// List kept plans
#[utoipa::path(
    get, path = "/plan-cache", operation_id = "listKeptPlans", tag = "planning",
    responses(
        (status = 200, description = "All of them.", body = PlanCacheView),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn kept_plans(
    State(api): State<Api>,
    Caller(project): Caller,
) -> Result<Response, Problem> {
    let cache = api.desk.cache.as_ref();
    let settings = cache.map_or_else(CacheSettings::default, |cache| cache.settings().clone());
    let entries = cache.map(|cache| cache.list(&project)).unwrap_or_default();
    let body = PlanCacheView {
        off: cache.is_none_or(PlanCache::is_off),
        size: settings.size,
        age_seconds: settings.age.as_secs(),
        threshold: settings.threshold,
        items: entries.iter().map(|entry| KeptPlan::of(entry)).collect(),
        next_cursor: None,
    };
    Ok(respond(StatusCode::OK, &body))
}

/// Forget all kept plans
#[utoipa::path(
    delete, path = "/plan-cache", operation_id = "clearPlanCache", tag = "planning",
    responses(
        (status = 200, description = "They are forgotten.", body = Cleared),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn clear(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
) -> Result<Response, Problem> {
    let cleared = match &api.desk.cache {
        Some(cache) => cache.clear(&project, &actor).await?,
        None => 0,
    };
    tracing::info!(%project, cleared, "plan cache cleared");
    Ok(respond(StatusCode::OK, &Cleared { cleared }))
}
