//! The webhooks of a project: orra's two routes that add one, and our lists, removal and rotation of secrets.
//!
//! Invariant: a secret is in one answer only, the one to the request that made it.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::{Namespace, Timestamp};
use serde::Serialize;
use serde_json::json;

use super::auth::{Authenticated, Caller};
use super::body::{Body, Id};
use super::error::{ApiError, Kind, code};
use super::json::Members;
use super::{Api, no_content, respond};
use crate::config::{Settings, duration};
use crate::engine::handle::CallError;
use crate::orchestration::effect::rfc3339;
use crate::outbox::{guard, log};
use crate::registry::{CreatedWebhook, RotatedSecret, Topic, Webhook, WebhookUrl};

/// How long a rotated secret signs along unless the request says otherwise.
pub(crate) const OVERLAP_DEFAULT: Duration = Duration::from_secs(86_400);

/// A webhook with its secret, shown once.
#[derive(Serialize)]
pub(super) struct WebhookJson<'a> {
    url: &'a str,
    id: &'a str,
    secret: String,
}

impl<'a> WebhookJson<'a> {
    pub(super) fn of(webhook: &'a CreatedWebhook) -> Self {
        Self {
            url: &webhook.url,
            id: &webhook.id,
            secret: webhook.secret.reveal(),
        }
    }
}

/// A webhook in a list.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ListedJson<'a> {
    id: &'a str,
    /// Empty for the signer of the URLs that submissions name.
    url: &'a str,
    topic: &'static str,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
    /// Until when the secret before the last rotation signs along.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_secret_until: Option<String>,
}

impl<'a> ListedJson<'a> {
    fn of(webhook: &'a Webhook, api: &Api) -> Self {
        let now = api.clock.now();
        let previous = webhook.previous.as_ref().filter(|p| p.until > now);
        Self {
            id: &webhook.id,
            url: &webhook.url,
            topic: webhook.topic.as_str(),
            created_at: rfc3339(webhook.created_at),
            rotated_at: webhook.rotated_at.map(rfc3339),
            previous_secret_until: previous.map(|p| rfc3339(p.until)),
        }
    }
}

/// A URL that deliveries may go to, in this mode of the server.
pub(crate) fn webhook_url(text: &str, settings: &Settings) -> Result<WebhookUrl, ApiError> {
    let url = WebhookUrl::parse(text)?;
    if !settings.outbox.allow_private
        && let Ok(parsed) = reqwest::Url::parse(url.as_str())
        && let Some(reason) = guard::refusal(&parsed)
    {
        let message = format!("webhook url cannot be called: {reason}");
        return Err(ApiError::new(Kind::InputValidation, message).param("url"));
    }
    Ok(url)
}

/// One try of one delivery.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TryJson<'a> {
    event_id: &'a str,
    event_type: &'a str,
    timestamp: String,
    attempt: i32,
    duration_ms: i64,
    /// Absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<i32>,
    delivered: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

/// `GET /webhooks/{id}/deliveries`: the last tries of either list's webhook, newest first. Those of one that was removed stay until
/// their retention.
pub async fn deliveries(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let tries = log::newest_first(&**api.handle.store(), &project, &id).map_err(CallError::from)?;
    if tries.is_empty() && api.registrar.registry().webhook(&project, &id).is_none() {
        let message = format!("unknown webhook {id:?}: list what there is with GET /webhooks");
        return Err(ApiError::new(Kind::NotExist, message));
    }
    let shown: Vec<TryJson<'_>> = tries
        .iter()
        .map(|tried| TryJson {
            event_id: &tried.event_id,
            event_type: &tried.event_type,
            timestamp: rfc3339(Timestamp(tried.at)),
            attempt: tried.attempt,
            duration_ms: tried.duration_ns / 1_000_000,
            status: (tried.status != 0).then_some(tried.status),
            delivered: tried.error.is_empty(),
            error: &tried.error,
        })
        .collect();
    Ok(respond(StatusCode::OK, &shown))
}

/// `POST /webhooks`
pub async fn add(State(api): State<Api>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    add_to(&api, caller, &body, Topic::Orchestration).await
}

/// `POST /compensation-failure-webhooks`
pub async fn add_for_compensations(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    add_to(&api, caller, &body, Topic::CompensationFailure).await
}

async fn add_to(
    api: &Api,
    caller: Caller,
    body: &Body,
    topic: Topic,
) -> Result<Response, ApiError> {
    let url = Members::of_body(body.as_str())?
        .string("url")?
        .unwrap_or_default();
    let url = webhook_url(&url, &api.settings).map_err(|e| e.code(code::WEBHOOK))?;
    let created = api
        .registrar
        .add_webhook(&caller.project, topic, url, &caller.actor)
        .await
        .map_err(|e| ApiError::from(e).code(code::WEBHOOK))?;
    tracing::info!(project = %caller.project, webhook = %created.id, ?topic, "webhook added");
    Ok(respond(StatusCode::CREATED, &WebhookJson::of(&created)))
}

/// `GET /webhooks`: those that are told of orchestrations, oldest first, then the signer for submissions' own.
pub async fn list(State(api): State<Api>, Authenticated(project): Authenticated) -> Response {
    listed(&api, &project, &[Topic::Orchestration, Topic::Submission])
}

/// `GET /compensation-failure-webhooks`: oldest first.
pub async fn list_for_compensations(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
) -> Response {
    listed(&api, &project, &[Topic::CompensationFailure])
}

fn listed(api: &Api, project: &Namespace, topics: &[Topic]) -> Response {
    let registry = api.registrar.registry();
    let webhooks: Vec<_> = topics
        .iter()
        .flat_map(|topic| registry.webhooks(project, *topic))
        .collect();
    let shown: Vec<ListedJson<'_>> = webhooks
        .iter()
        .map(|webhook| ListedJson::of(webhook, api))
        .collect();
    respond(StatusCode::OK, &shown)
}

/// `DELETE /webhooks/{id}`, of either list.
pub async fn remove(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
) -> Result<Response, ApiError> {
    api.registrar
        .remove_webhook(&caller.project, &id, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, webhook = %id, "webhook removed");
    Ok(no_content())
}

/// `POST /webhooks/{id}/rotate`, without a body or with `{"overlap":"24h"}`: a new secret; the one before signs along meanwhile.
pub async fn rotate(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    let rotated = api
        .registrar
        .rotate_secret(&caller.project, &id, overlap(&body)?, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, webhook = %id, "webhook secret rotated");
    Ok(respond_rotated(&rotated))
}

/// `POST /submission-webhook-secret`: a new secret for what signs the deliveries to URLs that single submissions name.
pub async fn rotate_for_submissions(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let overlap = overlap(&body)?;
    let Caller { project, actor } = caller;
    let id = api.registrar.submission_signer(&project, &actor).await?;
    let rotated = api
        .registrar
        .rotate_secret(&project, &id, overlap, &actor)
        .await?;
    tracing::info!(%project, webhook = %id, "webhook secret for submissions rotated");
    Ok(respond_rotated(&rotated))
}

fn respond_rotated(rotated: &RotatedSecret) -> Response {
    let until = rotated.previous_until.map(rfc3339);
    let body = json!({
        "id": rotated.id,
        "secret": rotated.secret.reveal(),
        "previousSecretUntil": until,
    });
    respond(StatusCode::OK, &body)
}

fn overlap(body: &Body) -> Result<Duration, ApiError> {
    if body.as_str().trim().is_empty() {
        return Ok(OVERLAP_DEFAULT);
    }
    let Some(text) = Members::of_body(body.as_str())?.string("overlap")? else {
        return Ok(OVERLAP_DEFAULT);
    };
    duration::parse(&text).ok_or_else(|| {
        let message = format!(
            "overlap {text:?} is no duration: give {}",
            duration::ACCEPTS
        );
        ApiError::new(Kind::InvalidRequest, message).param("overlap")
    })
}
