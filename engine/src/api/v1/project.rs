//! What a project has: services, keys, webhooks.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use orchestrion_history::ids::{Namespace, TaskQueueName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::input::{Acting, Caller, Id, Json, Params, bounded, page_limit};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::submit::Span;
use crate::api::orra::Api;
use crate::api::orra::webhooks::{OVERLAP_DEFAULT, webhook_url};
use crate::orchestration::effect::rfc3339;
use crate::registry::{ProjectKey, RegisteredService, ServiceKind, Topic};

/// Characters of a key's name.
const KEY_NAME_CHARS_MAX: usize = 60;
/// Services of a page.
const LIMIT_MAX: u32 = 100;

/// A service or agent.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Its id.
    id: String,
    /// Not unique within a project.
    name: String,
    /// How it registered.
    kind: KindView,
    /// In its own words.
    description: String,
    /// The JSON Schema of its input.
    input_schema: Value,
    /// The JSON Schema of its output.
    output_schema: Value,
    /// Whether its tasks can be undone.
    revertible: bool,
    /// 1 for its first registration; each further one adds 1.
    version: i64,
    /// When it registered first.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it registered last.
    #[schema(format = DateTime)]
    updated_at: String,
    /// How many of its workers are connected now.
    connected: usize,
    /// Since when none is connected; null while one is, or when none was since the engine started.
    #[schema(format = DateTime)]
    absent_since: Option<String>,
}

/// How a service registered.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum KindView {
    /// As a service.
    Service,
    /// As an agent.
    Agent,
}

/// A page of services.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Services {
    /// By id.
    items: Vec<ServiceView>,
    /// Where the next page begins; null at the end.
    next_cursor: Option<String>,
}

/// Which services.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// At most so many.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// List services
#[utoipa::path(
    get, path = "/services", operation_id = "listServices", tag = "project", params(Wanted),
    responses(
        (status = 200, description = "A page of them.", body = Services),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn services(
    State(api): State<Api>,
    Caller(project): Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let limit = page_limit(wanted.limit, LIMIT_MAX, LIMIT_MAX)?;
    let registry = api.registrar.registry();
    let mut ids: Vec<String> = registry
        .services(&project)
        .iter()
        .map(|service| service.id.clone())
        .collect();
    ids.sort_unstable();
    let after = wanted.cursor.unwrap_or_default();
    ids.retain(|id| *id > after);
    let next_cursor = (ids.len() > limit).then(|| ids[limit - 1].clone());
    ids.truncate(limit);
    let mut items = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(service) = registry.service(&project, &id) {
            items.push(service_view(&api, &project, &service).await?);
        }
    }
    Ok(respond(StatusCode::OK, &Services { items, next_cursor }))
}

/// Show a service
#[utoipa::path(
    get, path = "/services/{id}", operation_id = "getService", tag = "project",
    params(("id" = String, Path, description = "The service.")),
    responses(
        (status = 200, description = "The service.", body = ServiceView),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn service(
    State(api): State<Api>,
    Caller(project): Caller,
    Id(id): Id,
) -> Result<Response, Problem> {
    let service = api
        .registrar
        .registry()
        .service(&project, &id)
        .ok_or_else(|| unknown("service", &id, "/v1/services"))?;
    Ok(respond(
        StatusCode::OK,
        &service_view(&api, &project, &service).await?,
    ))
}

fn unknown(what: &str, id: &str, list: &str) -> Problem {
    let detail = format!("there is no {what} {id:?}: list what there is with GET {list}");
    Problem::new(Code::NotFound, detail).param("id")
}

async fn service_view(
    api: &Api,
    project: &Namespace,
    service: &RegisteredService,
) -> Result<ServiceView, Problem> {
    let queue = TaskQueueName::parse(&service.service.id).map_err(|e| Problem::internal(&e))?;
    let presence = api.handle.presence(project.clone(), queue).await?;
    Ok(ServiceView {
        id: service.service.id.clone(),
        name: service.service.name.clone(),
        kind: match service.kind {
            ServiceKind::Service => KindView::Service,
            ServiceKind::Agent => KindView::Agent,
        },
        description: service.service.description.clone(),
        input_schema: (*service.service.input_schema).clone(),
        output_schema: service.service.output_schema.clone(),
        revertible: service.service.revertible,
        version: service.version,
        created_at: rfc3339(service.created_at),
        updated_at: rfc3339(service.updated_at),
        connected: presence.sessions,
        absent_since: presence.absent_since.map(rfc3339),
    })
}

/// Delete a service
///
/// Nothing of it is planned any more. One that is connected or has tasks waiting is deleted only with `force`.
#[utoipa::path(
    delete, path = "/services/{id}", operation_id = "deleteService", tag = "project",
    params(("id" = String, Path, description = "The service."), Deletion),
    responses(
        (status = 204, description = "It is gone."),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It is in use.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn delete_service(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
    Params(deletion): Params<Deletion>,
) -> Result<Response, Problem> {
    let force = deletion.force.unwrap_or(false);
    api.registrar
        .delete_service(&project, &id, force, &actor)
        .await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// How to delete.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Deletion {
    /// Also when it is in use.
    force: Option<bool>,
}

/// A key of the project, without its secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// Its public id.
    id: String,
    /// Not unique; may be empty.
    name: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was used last, give or take some minutes.
    #[schema(format = DateTime)]
    last_used_at: Option<String>,
    /// The key itself; shown only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl KeyView {
    fn of(key: &ProjectKey, shown: Option<String>) -> Self {
        Self {
            id: key.id(),
            name: key.name.clone(),
            created_at: rfc3339(key.created_at),
            last_used_at: key.last_used_at.map(rfc3339),
            api_key: shown,
        }
    }
}

/// The keys of a project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// All of them.
    items: Vec<KeyView>,
    /// There is one page.
    next_cursor: Option<String>,
}

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// What it is called.
    #[serde(default)]
    #[schema(max_length = 60)]
    name: String,
}

/// List keys
#[utoipa::path(
    get, path = "/keys", operation_id = "listKeys", tag = "project",
    responses(
        (status = 200, description = "All of them, without their secrets.", body = Keys),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn keys(State(api): State<Api>, Caller(project): Caller) -> Result<Response, Problem> {
    let keys = api.registrar.registry().api_keys(&project);
    let body = Keys {
        items: keys.iter().map(|key| KeyView::of(key, None)).collect(),
        next_cursor: None,
    };
    Ok(respond(StatusCode::OK, &body))
}

/// Make a key
///
/// One more key of the same project.
#[utoipa::path(
    post, path = "/keys", operation_id = "addKey", tag = "project",
    request_body = NewKey,
    responses(
        (status = 201, description = "The key, shown this once.", body = KeyView),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "There are too many.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn add_key(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Json(new): Json<NewKey>,
) -> Result<Response, Problem> {
    bounded("name", &new.name, KEY_NAME_CHARS_MAX)?;
    let made = api
        .registrar
        .add_api_key(&project, &new.name, &actor)
        .await?;
    let body = KeyView::of(&made.kept, Some(made.key.reveal().to_owned()));
    Ok(respond(StatusCode::CREATED, &body))
}

/// Revoke a key
///
/// Requests with it are refused from now on, and sockets that came with it are closed.
#[utoipa::path(
    delete, path = "/keys/{id}", operation_id = "revokeKey", tag = "project",
    params(("id" = String, Path, description = "The public id of the key.")),
    responses(
        (status = 204, description = "It is revoked."),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 409, description = "It is the last one.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn revoke_key(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
) -> Result<Response, Problem> {
    api.registrar.revoke_api_key(&project, &id, &actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What a webhook is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum TopicView {
    /// The end of an orchestration.
    Orchestration,
    /// A compensation that failed for good.
    CompensationFailure,
}

impl TopicView {
    fn topic(self) -> Topic {
        match self {
            Self::Orchestration => Topic::Orchestration,
            Self::CompensationFailure => Topic::CompensationFailure,
        }
    }
}

/// A webhook.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookView {
    /// Its id.
    id: String,
    /// Where deliveries go.
    url: String,
    /// What it is told of.
    topic: TopicView,
    /// When it was added.
    #[schema(format = DateTime)]
    created_at: String,
    /// Signs its deliveries (Standard Webhooks); shown only when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

/// The webhooks of a project.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhooks {
    /// Oldest first, topic by topic.
    items: Vec<WebhookView>,
    /// There is one page.
    next_cursor: Option<String>,
}

/// A webhook to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewWebhook {
    /// An absolute http or https URL.
    #[schema(max_length = 2048)]
    url: String,
    /// What it is told of.
    #[serde(default = "orchestration")]
    topic: TopicView,
}

fn orchestration() -> TopicView {
    TopicView::Orchestration
}

/// List webhooks
#[utoipa::path(
    get, path = "/webhooks", operation_id = "listWebhooks", tag = "project",
    responses(
        (status = 200, description = "All of them.", body = Webhooks),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn webhooks(
    State(api): State<Api>,
    Caller(project): Caller,
) -> Result<Response, Problem> {
    let topics = [TopicView::Orchestration, TopicView::CompensationFailure];
    let items = topics.into_iter().flat_map(|topic| {
        let hooks = api.registrar.registry().webhooks(&project, topic.topic());
        hooks.into_iter().map(move |hook| WebhookView {
            id: hook.id.clone(),
            url: hook.url.clone(),
            topic,
            created_at: rfc3339(hook.created_at),
            secret: None,
        })
    });
    let body = Webhooks {
        items: items.collect(),
        next_cursor: None,
    };
    Ok(respond(StatusCode::OK, &body))
}

/// Add a webhook
#[utoipa::path(
    post, path = "/webhooks", operation_id = "addWebhook", tag = "project",
    request_body = NewWebhook,
    responses(
        (status = 201, description = "The webhook, with its secret, shown this once.", body = WebhookView),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 422, description = "It is no URL that can be called, or there are too many.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn add_webhook(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Json(new): Json<NewWebhook>,
) -> Result<Response, Problem> {
    let url = webhook_url(&new.url, &api.settings)?;
    let made = api
        .registrar
        .add_webhook(&project, new.topic.topic(), url, &actor)
        .await?;
    let body = WebhookView {
        id: made.id,
        url: made.url,
        topic: new.topic,
        created_at: rfc3339(made.created_at),
        secret: Some(made.secret.reveal()),
    };
    Ok(respond(StatusCode::CREATED, &body))
}

/// Remove a webhook
#[utoipa::path(
    delete, path = "/webhooks/{id}", operation_id = "removeWebhook", tag = "project",
    params(("id" = String, Path, description = "The webhook.")),
    responses(
        (status = 204, description = "It is told of nothing any more."),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn remove_webhook(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
) -> Result<Response, Problem> {
    api.registrar.remove_webhook(&project, &id, &actor).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// How to rotate a secret.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rotation {
    /// How long the secret before signs along: a day, if nothing is said.
    #[serde(default)]
    #[schema(value_type = Option<Span>)]
    overlap: Option<Span>,
}

/// A rotated secret.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rotated {
    /// The webhook.
    id: String,
    /// Signs from now on; shown this once.
    secret: String,
    /// Until when the secret before signs along.
    #[schema(format = DateTime)]
    previous_secret_until: Option<String>,
}

/// Rotate a webhook's secret
#[utoipa::path(
    post, path = "/webhooks/{id}/rotate", operation_id = "rotateWebhookSecret", tag = "project",
    params(("id" = String, Path, description = "The webhook.")),
    request_body = Rotation,
    responses(
        (status = 200, description = "The new secret, shown this once.", body = Rotated),
        (status = 400, description = "The request is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is none.", body = ProblemView, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large.", body = ProblemView, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn rotate_secret(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Id(id): Id,
    Json(rotation): Json<Rotation>,
) -> Result<Response, Problem> {
    let overlap = rotation
        .overlap
        .and_then(|overlap| overlap.duration())
        .unwrap_or(OVERLAP_DEFAULT);
    let rotated = api
        .registrar
        .rotate_secret(&project, &id, overlap, &actor)
        .await?;
    let body = Rotated {
        id: rotated.id,
        secret: rotated.secret.reveal(),
        previous_secret_until: rotated.previous_until.map(rfc3339),
    };
    Ok(respond(StatusCode::OK, &body))
}
