//! One HTTP connection, kept open: requests and their JSON answers.

use std::fmt;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::http::request::Builder;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::{Error, Result};

pub struct Http {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Http {
    pub async fn connect(host: &str) -> Result<Self> {
        let stream = TcpStream::connect(host).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // How it ends is told to whoever sends next.
        tokio::spawn(async { _ = connection.await });
        Ok(Self {
            sender,
            host: host.to_owned(),
        })
    }

    /// A POST whose answer must be a success.
    pub async fn post(&mut self, path: &str, key: Option<&str>, body: &Value) -> Result<Value> {
        let mut request = self.request(path);
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let bytes = self.send(request, body.to_string().into()).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Submits an orchestration under an id of the caller's, and waits for its end.
    pub async fn submit(&mut self, key: &str, id: &str, body: Bytes) -> Result<Bytes> {
        let request = self
            .request("/orchestrations")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header("idempotency-key", id)
            .header("prefer", "wait=60");
        self.send(request, body).await
    }

    fn request(&self, path: &str) -> Builder {
        Request::post(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json")
    }

    async fn send(&mut self, request: Builder, body: Bytes) -> Result<Bytes> {
        self.sender.ready().await?;
        let request = request.body(Full::new(body))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let said = String::from_utf8_lossy(&bytes).into_owned();
        Err(Refused { status, said }.into())
    }
}

/// An answer that is no success.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    said: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a request was answered {}: {}", self.status, self.said)
    }
}

impl std::error::Error for Refused {}

/// Whether the engine is not there now.
pub fn is_away(error: &Error) -> bool {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.status == StatusCode::SERVICE_UNAVAILABLE,
        None => error.is::<hyper::Error>() || error.is::<std::io::Error>(),
    }
}
