//! One HTTP connection, kept open: requests and their JSON answers.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::Result;

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
        let bytes = self.send(path, key, body.to_string(), false).await?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The bytes of a success; `wait`: not before the end of what was asked for.
    pub async fn send(
        &mut self,
        path: &str,
        key: Option<&str>,
        body: String,
        wait: bool,
    ) -> Result<Bytes> {
        self.sender.ready().await?;
        let mut request = Request::post(path)
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        if wait {
            request = request.header("prefer", "wait=60");
        }
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let bytes = answer.into_body().collect().await?.to_bytes();
        if status.is_success() {
            return Ok(bytes);
        }
        let said = String::from_utf8_lossy(&bytes);
        Err(format!("POST {path} answered {status}: {said}").into())
    }
}
