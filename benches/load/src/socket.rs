//! A thin service on orra's WebSocket: each socket takes a task, answers it with its input, and takes the next.

use std::io::Write as _;

use clap::Args;
use futures_util::future::try_join_all;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::Result;

#[derive(Args)]
pub struct Options {
    /// Where the engine is, as host and port.
    host: String,
    /// A key of the project.
    key: String,
    /// Sockets of each service.
    sockets: usize,
    /// The services' ids.
    services: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    r#type: String,
    #[serde(default)]
    id: String,
    #[serde(default)]
    input: Option<Echo>,
    #[serde(default)]
    execution_id: String,
    #[serde(default)]
    idempotency_key: String,
}

#[derive(Serialize, Deserialize)]
struct Echo {
    text: String,
}

#[derive(Serialize)]
struct Frame<'a> {
    id: String,
    payload: Answer<'a>,
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    r#type: &'a str,
    task_id: &'a str,
    execution_id: &'a str,
    service_id: &'a str,
    idempotency_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<TaskResult>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct TaskResult {
    task: Echo,
    compensation: Option<()>,
}

/// Serves on all sockets; prints a line once they are open.
pub async fn run(options: Options) -> Result<()> {
    let mut sockets = Vec::new();
    for service in &options.services {
        let url = format!(
            "ws://{}/ws?serviceId={service}&apiKey={}",
            options.host, options.key
        );
        for _ in 0..options.sockets {
            let (socket, _) = connect_async(&url).await?;
            if let tokio_tungstenite::MaybeTlsStream::Plain(stream) = socket.get_ref() {
                stream.set_nodelay(true)?;
            }
            sockets.push((socket, service.as_str()));
        }
    }
    writeln!(std::io::stdout(), "ready")?;
    try_join_all(sockets.into_iter().map(|(mut socket, service)| async move {
        let mut sent = 0;
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message? else {
                continue;
            };
            let asked: Asked = serde_json::from_str(&text)?;
            let (id, kind) = match asked.r#type.as_str() {
                "task_request" => (format!("msg_{sent}_{}", asked.execution_id), "task_result"),
                "ping" => ("pong".to_owned(), "pong"),
                _ => continue,
            };
            sent += 1;
            let payload = Answer {
                r#type: kind,
                task_id: &asked.id,
                execution_id: &asked.execution_id,
                service_id: service,
                idempotency_key: &asked.idempotency_key,
                result: asked.input.map(|task| TaskResult {
                    task,
                    compensation: None,
                }),
                error: None,
            };
            let frame = serde_json::to_string(&Frame { id, payload })?;
            socket.send(Message::text(frame)).await?;
        }
        Err::<(), crate::Error>("the engine closed a socket".into())
    }))
    .await?;
    Ok(())
}
