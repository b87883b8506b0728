//! `GET /v1/audit`: what happened, chained and signed, as a stream of lines; `GET /v1/audit/key`: whose signature it bears.
//!
//! Invariant: lines wait for their reader in bounded numbers; an export that cannot go on breaks off without an end.

use std::io;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrion_history::ids::WorkflowId;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::input::{Acting, Caller, Params, instant, pinned};
use super::problem::{Problem, ProblemView};
use super::respond;
use crate::acts::{Act, What};
use crate::api::orra::Api;
use crate::audit::export::{Interrupted, Scope, export};
use crate::audit::json_lines;

/// Bytes that are sent at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that wait for a reader.
const WAITING_MAX: usize = 8;

/// What to export.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// One execution; without it all of the project, and what its administrators did.
    execution: Option<String>,
    /// What happened at this instant or later.
    #[param(format = DateTime)]
    from: Option<String>,
    /// What happened before this instant.
    #[param(format = DateTime)]
    to: Option<String>,
    /// Whether payloads are in it. They can be taken out of an export later as well, and it still verifies.
    payloads: Option<bool>,
}

/// Export the audit trail
///
/// JSON Lines: every record, attempt, progress update and administrative act, each chained by digest to the one before, with signed
/// checkpoints and a signed end. Verify it with `orchestrion audit verify`.
#[utoipa::path(
    get, path = "/audit", operation_id = "exportAudit", tag = "audit", params(Wanted),
    responses(
        (status = 200, description = "The lines.", body = String, content_type = "application/jsonl"),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such execution.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn audit(
    State(api): State<Api>,
    Acting { project, actor }: Acting,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let time =
        |name, text: &Option<String>| text.as_deref().map(|text| instant(name, text)).transpose();
    let execution: Option<WorkflowId> = match &wanted.execution {
        Some(id) => Some(pinned(&api, &project, id)?.workflow_id),
        None => None,
    };
    let scope = Scope {
        project: project.clone(),
        execution,
        from: time("from", &wanted.from)?,
        to: time("to", &wanted.to)?,
        with_payloads: wanted.payloads.unwrap_or(true),
    };
    // Before the first line: the export tells of itself.
    let act = Act::new(
        What::AuditExported,
        wanted.execution.as_deref().unwrap_or(project.as_str()),
    )
    .with("from", wanted.from)
    .with("to", wanted.to)
    .with("payloads", scope.with_payloads);
    let act = api.registrar.acts().record(&project, &actor, act);
    api.handle.put(vec![act]).await?;
    tracing::info!(%project, "audit export");
    let (chunks, mut waiting) = mpsc::channel::<io::Result<Bytes>>(WAITING_MAX);
    tokio::task::spawn_blocking(move || write(&api, &scope, &chunks));
    let stream = futures_util::stream::poll_fn(move |context| waiting.poll_recv(context));
    let headers = [(header::CONTENT_TYPE, "application/jsonl")];
    Ok((StatusCode::OK, headers, Body::from_stream(stream)).into_response())
}

fn write(api: &Api, scope: &Scope, chunks: &mpsc::Sender<io::Result<Bytes>>) {
    let mut chunk = String::new();
    let written = export(
        &api.handle,
        api.audit_key.clone(),
        scope,
        api.clock.now(),
        |line| {
            chunk.push_str(&json_lines::write(&line));
            chunk.push('\n');
            chunk.len() < CHUNK_BYTES
                || chunks
                    .blocking_send(Ok(Bytes::from(std::mem::take(&mut chunk))))
                    .is_ok()
        },
    );
    // Whoever does not read any more needs neither the rest nor an error.
    let _ = match written {
        Ok(_) => chunks.blocking_send(Ok(Bytes::from(chunk))),
        Err(Interrupted::Unread) => Ok(()),
        Err(error) => {
            tracing::error!(%error, "an audit export broke off");
            chunks.blocking_send(Err(io::Error::other("the export broke off")))
        }
    };
}

/// The key that signs exports.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditKeyView {
    /// How it signs.
    algorithm: &'static str,
    /// The public half, 64 hex digits.
    public_key: String,
}

/// Show the key that signs exports
#[utoipa::path(
    get, path = "/audit/key", operation_id = "getAuditKey", tag = "audit",
    responses(
        (status = 200, description = "The public half of the key.", body = AuditKeyView),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn key(State(api): State<Api>, Caller(_project): Caller) -> Response {
    let body = AuditKeyView {
        algorithm: "ed25519",
        public_key: api.audit_key.public(),
    };
    respond(StatusCode::OK, &body)
}
