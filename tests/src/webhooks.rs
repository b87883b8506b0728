//! A program that receives webhooks, and can be out of order for the first few.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::wait::until_some;

/// Receives at [`WebhookReceiver::url`] until it is dropped.
pub struct WebhookReceiver {
    /// Where it listens.
    pub url: String,
    inbox: Arc<Mutex<Inbox>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Inbox {
    to_fail: usize,
    tries: Vec<Delivery>,
}

/// One try of the engine to deliver.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// As sent.
    pub headers: HeaderMap,
    /// As sent, byte for byte: signatures are over it.
    pub raw: Bytes,
    /// The same, read.
    pub body: Value,
    /// Whether the receiver took it.
    pub accepted: bool,
}

impl Delivery {
    /// A header, empty if there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map(|value| value.to_str().unwrap())
            .unwrap_or_default()
    }

    /// What a receiver drops repeats by.
    pub fn event_id(&self) -> &str {
        self.body["event_id"]
            .as_str()
            .expect("a webhook has an event_id")
    }
}

impl WebhookReceiver {
    /// Takes everything.
    pub async fn start() -> Self {
        Self::failing_first(0).await
    }

    /// Answers the first `count` tries with 503.
    pub async fn failing_first(count: usize) -> Self {
        let inbox = Arc::new(Mutex::new(Inbox {
            to_fail: count,
            tries: Vec::new(),
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/hook", post(receive))
            .layer(DefaultBodyLimit::disable())
            .with_state(inbox.clone());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { url, inbox, server }
    }

    /// Takes everything from now on.
    pub fn recover(&self) {
        self.inbox.lock().unwrap().to_fail = 0;
    }

    /// Every try so far.
    pub fn tries(&self) -> Vec<Delivery> {
        self.inbox.lock().unwrap().tries.clone()
    }

    /// The tries about one orchestration.
    pub fn tries_of(&self, orchestration: &str) -> Vec<Delivery> {
        let mut tries = self.tries();
        tries.retain(|delivery| delivery.body["orchestration_id"] == orchestration);
        tries
    }

    /// Waits until what is sent about an orchestration is taken.
    pub async fn accepted(&self, orchestration: &str) -> Delivery {
        let what = format!("a webhook of {orchestration}");
        until_some(&what, || {
            self.tries_of(orchestration)
                .into_iter()
                .find(|delivery| delivery.accepted)
        })
        .await
    }

    /// Waits for this many tries about an orchestration.
    pub async fn tried(&self, orchestration: &str, count: usize) {
        let what = format!("{count} tries to deliver a webhook of {orchestration}");
        until_some(&what, || {
            (self.tries_of(orchestration).len() >= count).then_some(())
        })
        .await;
    }
}

impl Drop for WebhookReceiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn receive(
    State(inbox): State<Arc<Mutex<Inbox>>>,
    headers: HeaderMap,
    raw: Bytes,
) -> StatusCode {
    let mut inbox = inbox.lock().unwrap();
    let accepted = inbox.to_fail == 0;
    inbox.to_fail = inbox.to_fail.saturating_sub(1);
    let body = serde_json::from_slice(&raw).expect("a webhook's body is JSON");
    inbox.tries.push(Delivery {
        headers,
        raw,
        body,
        accepted,
    });
    if accepted {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
