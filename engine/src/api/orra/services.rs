//! Services and agents register. Which route they take is all that tells them apart.
//!
//! Invariant: what does not validate leaves no trace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::ids::{Namespace, TaskQueueName, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::auth::{Authenticated, Caller};
use super::body::{Body, Id, Params};
use super::error::{ApiError, Kind, code};
use super::json::Members;
use super::{Api, no_content, respond};
use crate::orchestration::effect::rfc3339;
use crate::plan::schema::{join, validate_registration};
use crate::registry::{RegisteredService, Registration, ServiceKind};

#[derive(Serialize)]
struct RegisteredJson<'a> {
    id: &'a str,
    name: &'a str,
    revertible: bool,
    status: &'static str,
    version: i64,
}

impl<'a> RegisteredJson<'a> {
    fn of(registered: &'a RegisteredService) -> Self {
        Self {
            id: &registered.service.id,
            name: &registered.service.name,
            revertible: registered.service.revertible,
            status: "registered",
            version: registered.version,
        }
    }
}

/// `POST /register/service`
pub async fn register_service(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    register(&api, caller, &body, ServiceKind::Service).await
}

/// `POST /register/agent`
pub async fn register_agent(
    State(api): State<Api>,
    caller: Caller,
    body: Body,
) -> Result<Response, ApiError> {
    register(&api, caller, &body, ServiceKind::Agent).await
}

async fn register(
    api: &Api,
    caller: Caller,
    body: &Body,
    kind: ServiceKind,
) -> Result<Response, ApiError> {
    let registration = parse(body.as_str(), kind)?;
    let registered = api
        .registrar
        .register_service(&caller.project, registration, &caller.actor)
        .await?;
    tracing::info!(
        project = %caller.project,
        service = %registered.service.id,
        name = %registered.service.name,
        version = registered.version,
        "service registered"
    );
    Ok(respond(StatusCode::OK, &RegisteredJson::of(&registered)))
}

/// A service as it stands.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServiceJson<'a> {
    id: &'a str,
    name: &'a str,
    description: &'a str,
    kind: &'static str,
    version: i64,
    revertible: bool,
    created_at: String,
    updated_at: String,
    /// Sockets it has open.
    sessions: usize,
    healthy: bool,
    /// Since when it has none; absent while it has one, and when it had none since the engine started.
    #[serde(skip_serializing_if = "Option::is_none")]
    absent_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<Value>,
}

async fn service_json<'a>(
    api: &Api,
    project: &Namespace,
    of: &'a RegisteredService,
    with_schema: bool,
) -> Result<ServiceJson<'a>, ApiError> {
    let queue = TaskQueueName::parse(&of.service.id).map_err(|e| ApiError::internal(&e))?;
    let presence = api.handle.presence(project.clone(), queue).await?;
    let absent = presence.absent_since.filter(|at| *at > Timestamp::ZERO);
    Ok(ServiceJson {
        id: &of.service.id,
        name: &of.service.name,
        description: &of.service.description,
        kind: match of.kind {
            ServiceKind::Service => "service",
            ServiceKind::Agent => "agent",
        },
        version: of.version,
        revertible: of.service.revertible,
        created_at: rfc3339(of.created_at),
        updated_at: rfc3339(of.updated_at),
        sessions: presence.sessions,
        healthy: presence.sessions > 0,
        absent_since: absent.map(rfc3339),
        schema: with_schema.then(
            || json!({ "input": *of.service.input_schema, "output": of.service.output_schema }),
        ),
    })
}

/// `GET /services`: by id, each with its health.
pub async fn list(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
) -> Result<Response, ApiError> {
    let services = api.registrar.registry().registered_services(&project);
    let mut shown = Vec::with_capacity(services.len());
    for service in &services {
        shown.push(service_json(&api, &project, service, false).await?);
    }
    Ok(respond(StatusCode::OK, &shown))
}

/// `GET /services/{id}`: one, with its schema.
pub async fn show(
    State(api): State<Api>,
    Authenticated(project): Authenticated,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let service = api
        .registrar
        .registry()
        .service(&project, &id)
        .ok_or_else(|| {
            let message = format!("unknown service {id:?}: list what there is with GET /services");
            ApiError::new(Kind::NotExist, message)
        })?;
    let shown = service_json(&api, &project, &service, true).await?;
    Ok(respond(StatusCode::OK, &shown))
}

/// The query of a deletion.
#[derive(Deserialize)]
pub struct Deletion {
    #[serde(default)]
    force: bool,
}

/// `DELETE /services/{id}`; with `?force=true` also one that is in use.
pub async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Id(id): Id,
    Params(deletion): Params<Deletion>,
) -> Result<Response, ApiError> {
    api.registrar
        .delete_service(&caller.project, &id, deletion.force, &caller.actor)
        .await?;
    tracing::info!(project = %caller.project, service = %id, "service deleted");
    Ok(no_content())
}

/// The client's `version`, `type` and `projectID` are not looked at.
fn parse(body: &str, kind: ServiceKind) -> Result<Registration, ApiError> {
    let body = Members::of_body(body)?;
    let schema = body.object("schema")?;
    let registration = Registration {
        id: body
            .string("id")?
            .map(|id| id.trim().to_owned())
            .filter(|id| !id.is_empty()),
        kind,
        name: body.string("name")?.unwrap_or_default(),
        description: body.string("description")?.unwrap_or_default(),
        input_schema: schema.value("input")?.unwrap_or(Value::Null),
        output_schema: schema.value("output")?.unwrap_or(Value::Null),
        revertible: body.boolean("revertible")?.unwrap_or_default(),
    };
    check(&registration)?;
    Ok(registration)
}

/// All faults together, as `path: INVALID(text)`, and with orra's status.
fn check(registration: &Registration) -> Result<(), ApiError> {
    let schema =
        json!({ "input": registration.input_schema, "output": registration.output_schema });
    validate_registration(&registration.name, &registration.description, &schema).map_err(
        |faults| ApiError::new(Kind::Unanticipated, join(&faults)).code(code::UNANTICIPATED),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `orra-sdk` 0.2.4 for Python writes it.
    const PYTHON: &str = r#"{"id": null, "name": "echo-service", "description": "says it again", "schema": {
        "input": {"properties": {"message": {"title": "Message", "type": "string"}}, "required": ["message"], "title": "In", "type": "object"},
        "output": {"properties": {"echo": {"title": "Echo", "type": "string"}}, "required": ["echo"], "title": "Out", "type": "object"}},
        "version": 0, "revertible": false}"#;

    #[test]
    fn a_python_registration_is_read() {
        let registration = parse(PYTHON, ServiceKind::Agent).unwrap();
        assert_eq!(
            (registration.id, registration.name.as_str()),
            (None, "echo-service")
        );
        assert_eq!(registration.kind, ServiceKind::Agent);
        assert_eq!(
            registration.input_schema["properties"]["message"]["title"],
            "Message"
        );
        assert!(!registration.revertible);
    }

    #[test]
    fn a_blank_id_is_a_new_service() {
        let body = PYTHON
            .replace("null", "\" \"")
            .replace("\"revertible\"", "\"Revertible\"")
            .replace("false", "true");
        let registration = parse(&body, ServiceKind::Service).unwrap();
        assert_eq!(registration.id, None);
        assert!(registration.revertible);
    }

    #[test]
    fn faults_are_reported_together() {
        let error = format!("{:?}", parse("{}", ServiceKind::Service).unwrap_err());
        for part in ["name", "description", "input", "output"] {
            assert!(error.contains(part), "{error}");
        }
    }
}
