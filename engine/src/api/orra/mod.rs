//! orra's HTTP API and WebSocket, as its SDKs and command line speak it, and our own few routes beside it.
//!
//! | route                                        | file                |
//! |----------------------------------------------|---------------------|
//! | `GET /health`, `GET /metrics`                | `health.rs`         |
//! | `POST /register/project`                     | `projects.rs`       |
//! | `/admin/…`                                   | `admin.rs`          |
//! | `/apikeys…`                                  | `api_keys.rs`       |
//! | `/webhooks…`, `/compensation-failure-webhooks` | `webhooks.rs`     |
//! | `POST /register/service`, `/register/agent`, `/services…` | `services.rs` |
//! | `POST /orchestrations`                       | `submit.rs`         |
//! | `GET /orchestrations`, `/orchestrations/inspections/{id}` | `listing.rs` |
//! | `GET /orchestrations/{id}/replay`            | `replay.rs`         |
//! | `/compensation-failures…`                    | `compensations.rs`  |
//! | `/groundings…`, `POST /grounding-tests`       | `groundings.rs`     |
//! | `/plan-cache`                                | `plan_cache.rs`     |
//! | `GET /ws`                                    | `socket/`           |
//!
//! Invariant: every body is `application/json` and ends with a newline, errors included; only 404 and 405 of the router are not.

mod admin;
mod api_keys;
pub(crate) mod auth;
mod body;
mod compensations;
pub mod error;
mod groundings;
pub(crate) mod health;
pub mod json;
mod listing;
mod plan_cache;
mod projects;
pub(crate) mod replay;
mod services;
pub mod socket;
pub(crate) mod story;
pub(crate) mod submission;
pub(crate) mod submit;
#[cfg(test)]
mod tests;
pub(crate) mod webhooks;

use std::ops::Deref;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::watch;

pub use self::auth::{Admission, Peer};
pub(crate) use self::auth::{Caller, authenticate};
pub use self::health::Pulse;
use super::v1;
use crate::audit::sign::AuditKey;
use crate::backup::Backups;
use crate::compensations::Compensations;
use crate::config::Settings;
use crate::engine::handle::Handle;
use crate::orchestration::desk::Desk;
use crate::registry::Registrar;
use crate::seams::Chance;
use crate::seams::Clock;

/// The version of orra's engine whose wire this is.
const ORRA_VERSION: &str = "0.2.5";
/// By which our own clients tell what they talk to.
pub const VERSION_HEADER: HeaderName = HeaderName::from_static("x-orchestrion-version");
const ORRA_VERSION_HEADER: HeaderName = HeaderName::from_static("x-orra-planeengine-version");

/// Bytes of a submission: what the engine takes as one payload.
pub const SUBMISSION_BODY_BYTES_MAX: usize = 11 * 1024 * 1024;
/// Bytes of a registration of a service: its schemas.
pub const REGISTRATION_BODY_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of any other body.
pub const SMALL_BODY_BYTES_MAX: usize = 256 * 1024;

/// What every handler has at hand. Clones share it.
#[derive(Clone)]
pub struct Api(Arc<ApiParts>);

/// See [`Api`].
pub struct ApiParts {
    /// The door to the engine.
    pub handle: Handle,
    /// Reads and changes the registry.
    pub registrar: Registrar,
    /// Reads and decides on compensations that failed.
    pub compensations: Compensations,
    /// How the engine is set up.
    pub settings: Settings,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn Chance>,
    /// Who may create projects.
    pub admission: Admission,
    /// Becomes true when the server stops.
    pub stop: watch::Receiver<bool>,
    /// The sockets of services that are open.
    pub sockets: OpenSockets,
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Remembers the last probe of the engine.
    pub pulse: Pulse,
    /// Plans what is not to be run.
    pub desk: Arc<Desk>,
    /// How long services took.
    pub durations: v1::Durations,
    /// Signs audit exports.
    pub audit_key: AuditKey,
    /// Copies the data folder while the engine runs.
    pub backups: Backups,
}

impl Api {
    /// Shares the parts with every handler.
    pub fn new(parts: ApiParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for Api {
    type Target = ApiParts;

    fn deref(&self) -> &ApiParts {
        &self.0
    }
}

/// Counts sockets, so that a graceful stop can wait for them. Clones share the count.
#[derive(Clone, Default)]
pub struct OpenSockets(Arc<watch::Sender<()>>);

impl OpenSockets {
    /// One more; it counts until the guard is dropped.
    pub fn enter(&self) -> impl Send + use<> {
        self.0.subscribe()
    }

    /// Waits until there is none.
    pub async fn all_closed(&self) {
        self.0.closed().await;
    }
}

/// All routes.
pub fn router(api: Api) -> Router {
    Router::new()
        .route("/health", get(health::health))
        .route("/metrics", get(health::metrics))
        .route("/register/project", post(projects::register))
        .route("/admin/login", post(admin::login))
        .route("/admin/projects", get(admin::projects))
        .route("/admin/backups", post(admin::back_up))
        .route("/admin/projects/{id}/apikeys", post(admin::add_key))
        .route("/apikeys", get(api_keys::list).post(api_keys::add))
        .route("/apikeys/{id}", delete(api_keys::revoke))
        .route("/webhooks", get(webhooks::list).post(webhooks::add))
        .route("/webhooks/{id}", delete(webhooks::remove))
        .route("/webhooks/{id}/rotate", post(webhooks::rotate))
        .route("/webhooks/{id}/deliveries", get(webhooks::deliveries))
        .route(
            "/compensation-failure-webhooks",
            get(webhooks::list_for_compensations).post(webhooks::add_for_compensations),
        )
        .route(
            "/submission-webhook-secret",
            post(webhooks::rotate_for_submissions),
        )
        .route("/services", get(services::list))
        .route(
            "/services/{id}",
            get(services::show).delete(services::delete),
        )
        .route(
            "/register/service",
            post(services::register_service).layer(body_limit(REGISTRATION_BODY_BYTES_MAX)),
        )
        .route(
            "/register/agent",
            post(services::register_agent).layer(body_limit(REGISTRATION_BODY_BYTES_MAX)),
        )
        .route(
            "/orchestrations",
            get(listing::list)
                .post(submit::submit)
                .layer(body_limit(SUBMISSION_BODY_BYTES_MAX)),
        )
        .route("/orchestrations/inspections/{id}", get(listing::inspect))
        .route("/orchestrations/{id}/replay", get(replay::replay))
        .route("/compensation-failures", get(compensations::list))
        .route("/compensation-failures/{id}", get(compensations::show))
        .route(
            "/compensation-failures/{id}/resolve",
            post(compensations::resolve),
        )
        .route(
            "/compensation-failures/{id}/ignore",
            post(compensations::ignore),
        )
        .route(
            "/compensation-failures/{id}/retry",
            post(compensations::retry),
        )
        .route(
            "/groundings",
            get(groundings::list)
                .post(groundings::apply)
                .delete(groundings::remove_all)
                .layer(body_limit(REGISTRATION_BODY_BYTES_MAX)),
        )
        .route("/groundings/{name}", delete(groundings::remove))
        .route(
            "/grounding-tests",
            post(groundings::test).layer(body_limit(REGISTRATION_BODY_BYTES_MAX)),
        )
        .route(
            "/plan-cache",
            get(plan_cache::list).delete(plan_cache::clear),
        )
        .route("/ws", get(socket::connect))
        .route_layer(from_fn(observed))
        .layer(body_limit(SMALL_BODY_BYTES_MAX))
        .fallback(not_found)
        .nest(v1::PREFIX, v1::router(api.clone()))
        .with_state(api)
}

pub(crate) fn body_limit(bytes: usize) -> DefaultBodyLimit {
    DefaultBodyLimit::max(bytes)
}

/// A JSON answer.
pub(crate) fn respond<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            (
                status,
                [(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/json"),
                )],
                bytes,
            )
                .into_response()
        }
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// The answer of a request that took something away.
pub(crate) fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

/// The router's own answer to a path that is none, as Go writes it.
async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}

/// Counts a request of a route and adds the version header to its answer. A wrong method is the router's answer, not the route's.
async fn observed(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(String::new, |path| path.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let mut response = next.run(request).await;
    let status = response.status();
    let labels = [
        ("route", route),
        ("method", method),
        ("status", status.as_u16().to_string()),
    ];
    metrics::counter!("orchestrion_http_requests_total", &labels).increment(1);
    if status != StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ORRA_VERSION_HEADER, HeaderValue::from_static(ORRA_VERSION));
        response.headers_mut().insert(
            VERSION_HEADER,
            HeaderValue::from_static(env!("CARGO_PKG_VERSION")),
        );
    }
    response
}
