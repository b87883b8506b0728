//! The API keys of a project: orra's `POST /apikeys`, and our list and revocation.
//!
//! Invariant: a key is in one answer only, the one to the request that made it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::auth::{Authenticated, Caller, key_of};
use super::body::{Body, Id};
use super::error::{ApiError, code};
use super::json::Members;
use super::{Api, no_content, respond};
use crate::orchestration::effect::rfc3339;
use crate::registry::ProjectKey;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct KeyJson {
    id: String,
    name: String,
    created_at: String,
    /// Absent when it was never seen in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<String>,
    /// Whether it is the key this list was asked for with.
    current: bool,
}

impl KeyJson {
    fn of(key: &ProjectKey, current: bool) -> Self {
        Self {
            id: key.id(),
            name: key.name.clone(),
            created_at: rfc3339(key.created_at),
            last_used_at: key.last_used_at.map(rfc3339),
            current,
        }
    }
}

/// `POST /apikeys`, without a body as orra's command line asks, or with `{"name":…}`.
pub async fn add(State(api): State<Api>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let name = if body.as_str().trim().is_empty() {
        String::new()
    } else {
        let body = Members::of_body(body.as_str())?;
        body.string("name")?.unwrap_or_default()
    };
    let created = api
        .registrar
        .add_api_key(&caller.project, name.trim(), &caller.actor)
        .await
        .map_err(|e| ApiError::from(e).code(code::API_KEY))?;
    let id = created.kept.id();
    tracing::info!(project = %caller.project, key = %id, "api key created");
    Ok(respond(
        StatusCode::CREATED,
        &json!({ "apiKey": created.key.reveal(), "id": id, "name": created.kept.name }),
    ))
}

/// `GET /apikeys`: oldest first.
pub async fn list(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    headers: HeaderMap,
) -> Response {
    let current = key_of(&headers);
    let keys = api.registrar.registry().api_keys(&project);
    let shown: Vec<KeyJson> = keys
        .iter()
        .map(|key| KeyJson::of(key, Some(key.digest) == current))
        .collect();
    respond(StatusCode::OK, &shown)
}

/// `DELETE /apikeys/{id}`
pub async fn revoke(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    api.registrar
        .revoke_api_key(&caller.project, &id, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, key = %id, "api key revoked");
    Ok(no_content())
}
