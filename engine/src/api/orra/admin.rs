//! What takes the server's admin key: logging in, the list of projects, and a new key for one whose keys are lost.
//!
//! Invariant: where registration is open nobody is admin, and these routes show nothing that registration does not give.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orchestrion_history::ids::Namespace;
use serde::Serialize;
use serde_json::json;

use super::auth::{Admission, Peer, admit};
use super::body::{Body, Id};
use super::error::{ApiError, Kind};
use super::json::Members;
use super::{Api, respond};
use crate::acts::{Act, Actor, What, Who};
use crate::backup::BackupError;
use crate::engine::handle::CallError;
use crate::orchestration::effect::rfc3339;
use crate::registry::Project;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProjectJson<'a> {
    id: &'a str,
    name: &'a str,
    created_at: String,
}

impl<'a> ProjectJson<'a> {
    fn of(project: &'a Project) -> Self {
        Self {
            id: &project.id,
            name: &project.name,
            created_at: rfc3339(project.created_at),
        }
    }
}

/// The admin, or a refusal.
fn admin(api: &Api, headers: &HeaderMap, Peer(peer): Peer) -> Result<Actor, ApiError> {
    if api.admission == Admission::Open {
        return Err(ApiError::new(
            Kind::InvalidOperation,
            "this server has no admin key, which this takes, and lets anybody create projects: run `orchestrion server` \
             with --admin-key or ORCHESTRION_ADMIN_KEY, and without --open",
        ));
    }
    let who = admit(&api.admission, headers)?;
    Ok(Actor { who, peer })
}

/// `POST /admin/login`: whether the key that came with it is the admin's. An open server says that it is open.
pub async fn login(
    State(api): State<Api>,
    Peer(peer): Peer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let who = admit(&api.admission, &headers)?;
    let open = who == Who::Anybody;
    if !open {
        let act = api.registrar.acts().record(
            &Namespace::system(),
            &Actor { who, peer },
            Act::new(What::AdminLogin, "server"),
        );
        api.handle.put(vec![act]).await?;
        tracing::info!(?peer, "admin logged in");
    }
    Ok(respond(StatusCode::OK, &json!({ "open": open })))
}

/// `GET /admin/projects`
pub async fn projects(
    State(api): State<Api>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    admin(&api, &headers, peer)?;
    let projects = api.registrar.registry().projects();
    let shown: Vec<ProjectJson<'_>> = projects.iter().map(|p| ProjectJson::of(p)).collect();
    Ok(respond(StatusCode::OK, &shown))
}

/// `POST /admin/backups`: the data folder as it is now, in a folder within it. Answers where, once it is whole.
pub async fn back_up(
    State(api): State<Api>,
    peer: Peer,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let actor = admin(&api, &headers, peer)?;
    let folder = api
        .backups
        .make(api.clock.now())
        .await
        .map_err(|error| match error {
            BackupError::Store(error) => ApiError::from(CallError::from(error)),
            error => ApiError::internal(&error),
        })?;
    let shown = folder.display().to_string();
    let act = Act::new(What::BackupMade, shown.clone());
    let act = api
        .registrar
        .acts()
        .record(&Namespace::system(), &actor, act);
    api.handle.put(vec![act]).await?;
    tracing::info!(folder = %shown, "backup made");
    Ok(respond(StatusCode::CREATED, &json!({ "folder": shown })))
}

/// `POST /admin/projects/{id}/apikeys`: a new key of a project, named as the body says.
pub async fn add_key(
    State(api): State<Api>,
    peer: Peer,
    headers: HeaderMap,
    Id(id): Id,
    body: Body,
) -> Result<Response, ApiError> {
    let actor = admin(&api, &headers, peer)?;
    let unknown = || {
        let message =
            format!("unknown project {id:?}: list what there is with GET /admin/projects");
        ApiError::new(Kind::NotExist, message)
    };
    let namespace = Namespace::parse(&id).map_err(|_| unknown())?;
    let project = api
        .registrar
        .registry()
        .project(&namespace)
        .ok_or_else(unknown)?;
    let name = if body.as_str().trim().is_empty() {
        String::new()
    } else {
        let body = Members::of_body(body.as_str())?;
        body.string("name")?.unwrap_or_default()
    };
    let created = api
        .registrar
        .add_api_key(&namespace, name.trim(), &actor)
        .await?;
    tracing::info!(project = %namespace, key = %created.kept.id(), "api key created by the admin");
    Ok(respond(
        StatusCode::CREATED,
        &json!({
            "apiKey": created.key.reveal(),
            "id": created.kept.id(),
            "project": ProjectJson::of(&project),
        }),
    ))
}
