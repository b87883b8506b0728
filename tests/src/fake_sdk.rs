//! A service that speaks the WebSocket protocol by hand: for frames that no SDK at hand sends, and for being rude.

use std::sync::{Arc, Mutex};

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::project::Project;
use crate::wait::{until, until_some};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A registered service. Each [`FakeSdk::connect`] is one socket of it.
#[derive(Debug, Clone)]
pub struct FakeSdk {
    /// Its id.
    pub id: String,
    url: String,
}

impl FakeSdk {
    /// Registers a service whose input and output are text fields, all of them required.
    pub async fn register(
        project: &Project,
        name: &str,
        inputs: &[&str],
        outputs: &[&str],
    ) -> Self {
        Self::register_as(project, &service(name, inputs, outputs)).await
    }

    /// Registers a service.
    pub async fn register_as(project: &Project, service: &Value) -> Self {
        let id = project.add_service(service).await;
        Self::known(project, &id)
    }

    /// One that is registered already.
    pub fn known(project: &Project, id: &str) -> Self {
        let url = format!(
            "{}/ws?serviceId={id}&apiKey={}",
            project.url.replace("http", "ws"),
            project.key
        );
        let id = id.to_owned();
        Self { id, url }
    }

    /// Opens a socket, as soon as the engine answers.
    pub async fn connect(&self) -> FakeSocket {
        let socket = until("the engine to accept a socket", || async {
            FakeSocket::open(&self.url).await.ok()
        })
        .await;
        FakeSocket::from(socket, &self.id)
    }
}

/// A service's registration; text fields only.
pub fn service(name: &str, inputs: &[&str], outputs: &[&str]) -> Value {
    let fields = |names: &[&str]| {
        let properties: serde_json::Map<_, _> = names
            .iter()
            .map(|&name| (name.to_owned(), json!({"type": "string"})))
            .collect();
        json!({"type": "object", "properties": properties, "required": names})
    };
    json!({
        "name": name,
        "description": format!("Performs {name}"),
        "schema": {"input": fields(inputs), "output": fields(outputs)},
        "revertible": false,
        "version": 0,
    })
}

/// One open connection. What arrives is recorded; nothing is answered by itself but protocol pings.
pub struct FakeSocket {
    service_id: String,
    sink: SplitSink<Socket, Message>,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
    sent: usize,
}

#[derive(Default)]
struct Seen {
    frames: Vec<Value>,
    raw: Vec<String>,
    requests_taken: usize,
    closed: Option<Option<CloseFrame>>,
}

/// A `task_request` or a `compensation_request`.
#[derive(Debug, Clone)]
pub struct Asked(pub Value);

impl Asked {
    /// Its member, as text.
    pub fn member(&self, name: &str) -> &str {
        self.0[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name} is a text in {}", self.0))
    }
}

impl FakeSocket {
    /// Opens a socket to an address, or says what the engine answered instead.
    pub async fn open(url: &str) -> Result<Socket, tokio_tungstenite::tungstenite::Error> {
        let limits = WebSocketConfig::default()
            .max_message_size(None)
            .max_frame_size(None);
        Ok(connect_async_with_config(url, Some(limits), false).await?.0)
    }

    fn from(socket: Socket, service_id: &str) -> Self {
        let (sink, mut stream) = socket.split();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let record = seen.clone();
        let reader = tokio::spawn(async move {
            let mut close = None;
            while let Some(Ok(message)) = stream.next().await {
                match message {
                    Message::Text(frame) => {
                        let mut record = record.lock().unwrap();
                        record.frames.push(
                            serde_json::from_str(&frame).expect("the engine's frames are JSON"),
                        );
                        record.raw.push(frame.to_string());
                    }
                    Message::Close(frame) => close = frame,
                    _ => {}
                }
            }
            record.lock().unwrap().closed = Some(close);
        });
        Self {
            service_id: service_id.to_owned(),
            sink,
            seen,
            reader,
            sent: 0,
        }
    }

    /// Everything that has arrived.
    pub fn frames(&self) -> Vec<Value> {
        self.seen.lock().unwrap().frames.clone()
    }

    /// The same, byte for byte.
    pub fn raw_frames(&self) -> Vec<String> {
        self.seen.lock().unwrap().raw.clone()
    }

    /// The requests that have arrived, of both kinds.
    pub fn requests(&self) -> Vec<Asked> {
        self.frames()
            .into_iter()
            .filter(is_request)
            .map(Asked)
            .collect()
    }

    /// Waits for the next request that was not taken yet.
    pub async fn request(&self) -> Asked {
        until_some("a request from the engine", || {
            let mut seen = self.seen.lock().unwrap();
            let next = seen
                .frames
                .iter()
                .filter(|frame| is_request(frame))
                .nth(seen.requests_taken)
                .cloned()?;
            seen.requests_taken += 1;
            Some(Asked(next))
        })
        .await
    }

    /// Waits until the engine has closed this socket; how it said so.
    pub async fn closed(&self) -> Option<CloseFrame> {
        until_some("the engine to close the socket", || {
            self.seen.lock().unwrap().closed.clone()
        })
        .await
    }

    /// Sends any text.
    pub async fn send_raw(&mut self, text: impl Into<String>) {
        self.sink
            .send(Message::text(text.into()))
            .await
            .expect("the socket is open");
    }

    /// Sends a payload as SDKs wrap it; the id to be acknowledged.
    pub async fn send(&mut self, payload: &Value) -> String {
        let id = format!(
            "msg_{}_{}",
            self.sent,
            payload["executionId"].as_str().unwrap_or_default()
        );
        self.sent += 1;
        self.send_raw(json!({"id": id, "payload": payload}).to_string())
            .await;
        id
    }

    /// Sends a payload and waits for its acknowledgement.
    pub async fn send_acked(&mut self, payload: &Value) {
        let id = self.send(payload).await;
        self.acknowledged(&id).await;
    }

    /// Waits for the acknowledgement of a message.
    pub async fn acknowledged(&self, id: &str) {
        let what = format!("an acknowledgement of {id:?}");
        until_some(&what, || {
            self.frames()
                .iter()
                .any(|f| f["type"] == "ACK" && f["id"] == id)
                .then_some(())
        })
        .await;
    }

    /// The payload of an answer to a request: its ids and `members`.
    pub fn answer(&self, asked: &Asked, kind: &str, members: Value) -> Value {
        let mut payload = json!({
            "type": kind,
            "taskId": asked.0["id"],
            "executionId": asked.0["executionId"],
            "serviceId": self.service_id,
            "idempotencyKey": asked.0["idempotencyKey"],
        });
        let members = members.as_object().expect("members are an object").clone();
        payload.as_object_mut().unwrap().extend(members);
        payload
    }

    /// Answers a request with a result.
    pub async fn complete(&mut self, asked: &Asked, output: Value) {
        let result = self.result(asked, output);
        self.send_acked(&result).await;
    }

    /// The payload of a good result.
    pub fn result(&self, asked: &Asked, output: Value) -> Value {
        self.answer(
            asked,
            "task_result",
            json!({"result": {"task": output, "compensation": null}, "error": null}),
        )
    }

    /// Answers a request with a result that can be undone within `ttl_ms`, given this data.
    pub async fn complete_revertibly(
        &mut self,
        asked: &Asked,
        output: Value,
        data: Value,
        ttl_ms: u64,
    ) {
        let result = json!({"task": output, "compensation": {"data": data, "ttl": ttl_ms}});
        let payload = self.answer(
            asked,
            "task_result",
            json!({"result": result, "error": null}),
        );
        self.send_acked(&payload).await;
    }

    /// Answers a request to undo.
    pub async fn reverted(&mut self, asked: &Asked, result: Value) {
        let payload = self.answer(
            asked,
            "task_result",
            json!({"result": result, "error": null}),
        );
        self.send_acked(&payload).await;
    }

    /// Stops the orchestration.
    pub async fn abort(&mut self, asked: &Asked, reason: Value) {
        let payload = self.answer(
            asked,
            "task_abort_result",
            json!({"result": {"task": reason}}),
        );
        self.send_acked(&payload).await;
    }

    /// Answers a request with an error.
    pub async fn fail(&mut self, asked: &Asked, error: &str) {
        let payload = self.answer(
            asked,
            "task_result",
            json!({"result": null, "error": error}),
        );
        self.send_acked(&payload).await;
    }

    /// Closes the socket and waits until it is.
    pub async fn close(mut self) {
        let _ = self.sink.close().await;
        self.closed().await;
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

fn is_request(frame: &Value) -> bool {
    frame["type"] == "task_request" || frame["type"] == "compensation_request"
}
