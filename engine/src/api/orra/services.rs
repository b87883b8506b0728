//! Services and agents register. Which route they take is all that tells them apart.
//!
//! Invariant: what does not validate leaves no trace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::{Value, json};

use super::auth::Authenticated;
use super::body::Body;
use super::error::{ApiError, Kind, code};
use super::json::Members;
use super::{Api, respond};
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
    project: Authenticated,
    body: Body,
) -> Result<Response, ApiError> {
    register(&api, project, &body, ServiceKind::Service).await
}

/// `POST /register/agent`
pub async fn register_agent(
    State(api): State<Api>,
    project: Authenticated,
    body: Body,
) -> Result<Response, ApiError> {
    register(&api, project, &body, ServiceKind::Agent).await
}

async fn register(
    api: &Api,
    project: Authenticated,
    body: &Body,
    kind: ServiceKind,
) -> Result<Response, ApiError> {
    let registration = parse(body.as_str(), kind)?;
    let registered = api
        .registrar
        .register_service(&project.0, registration)
        .await?;
    tracing::info!(
        project = %project.0,
        service = %registered.service.id,
        name = %registered.service.name,
        version = registered.version,
        "service registered"
    );
    Ok(respond(StatusCode::OK, &RegisteredJson::of(&registered)))
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
