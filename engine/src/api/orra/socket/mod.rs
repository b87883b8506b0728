//! `GET /ws?serviceId=…&apiKey=…`: the sockets on which services and agents work.
//!
//! Several sockets of one service share its queue; each is a session of its own, and the end of one does not disturb the others.
//!
//! Invariant: nobody is upgraded before the key and the service are known to belong together, and nobody stays when one of them is
//! taken away.

mod frame;
mod session;
mod slots;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use orchestrion_history::ids::TaskQueueName;
use serde::Deserialize;

pub use self::session::SDK_FRAME_BYTES_MAX;
use super::Api;
use super::body::Params;
use super::error::{ApiError, Kind, code};
use crate::api::work::answering::Answering;
use crate::api::work::{MESSAGE_BYTES_MAX, Standing};
use crate::registry::ids::KeyDigest;

/// Who connects. The SDKs have no other place for it than the query.
#[derive(Deserialize)]
pub struct Credentials {
    #[serde(default, rename = "serviceId")]
    service_id: String,
    #[serde(default, rename = "apiKey")]
    api_key: String,
}

/// Upgrades a service's connection.
pub async fn connect(
    State(api): State<Api>,
    Params(credentials): Params<Credentials>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let refused = |message: &str| ApiError::new(Kind::Unauthorized, message);
    let digest = KeyDigest::of(&credentials.api_key);
    let namespace = api
        .registrar
        .registry()
        .authenticate(digest)
        .ok_or_else(|| {
            refused("the query's apiKey is unknown: use a key of the service's project")
        })?;
    let service_id = credentials.service_id;
    let service = api
        .registrar
        .registry()
        .service(&namespace, &service_id)
        .ok_or_else(|| {
            refused("the query's serviceId is no service of this project: register it first")
        })?;
    let queue = TaskQueueName::parse(&service_id).map_err(|e| ApiError::internal(&e))?;
    let upgrade = upgrade.map_err(|rejection| {
        let message = format!("this route speaks WebSocket only: {rejection}");
        ApiError::new(Kind::InvalidRequest, message).code(code::UNANTICIPATED)
    })?;
    let standing = Standing::new(
        api.registrar.registry().clone(),
        namespace.clone(),
        service_id.clone(),
        digest,
    );
    let answering = Answering {
        handle: api.handle.clone(),
        clock: api.clock.clone(),
        identity: format!("{} ({service_id})", service.service.name),
        wire: "orra",
        namespace,
        service_id,
        patience: api.settings.sockets.answer_patience,
        default_ttl: api.settings.compensation.default_ttl,
    };
    let (mut settings, stop) = (api.settings.sockets.clone(), api.stop.clone());
    if !blocks_while_it_works(&headers) {
        settings.doubt_limit = Duration::ZERO;
    }
    let open = api.sockets.enter();
    Ok(upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(|socket| async move {
            let _open = open;
            session::Connection::new(socket, answering, settings, standing, stop)
                .run(queue)
                .await;
        }))
}

/// orra's Python SDK reads nothing while a handler runs; its library says that it is Python. Others read while they work.
fn blocks_while_it_works(headers: &HeaderMap) -> bool {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok())
        .unwrap_or_default();
    agent.to_ascii_lowercase().contains("python")
}
