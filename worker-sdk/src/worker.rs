//! A worker: services on their way to an engine and back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

use crate::service::{Erased, Service};
use crate::session::Session;

/// A connection on which nothing is heard is asked for a sign of life this often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What may be on its way to us in one stream before we read it.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const GRACE_DEFAULT: Duration = Duration::from_secs(30);

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine's address is none.
    #[error("{url:?} is no address of an engine: {reason}; write it like http://127.0.0.1:7233")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be sent.
    #[error("the key holds characters that no key has: give one that the engine made")]
    Key,
    /// The worker has nothing to do.
    #[error("the worker has no service: add one with Worker::service")]
    NoService,
    /// The engine does not take the service, and will not.
    #[error("the engine refused service {service}: {reason}")]
    Refused {
        /// Its name.
        service: String,
        /// In the engine's words.
        reason: String,
    },
    /// The end came before everything was done.
    #[error(
        "service {service} ended with {running} tasks unfinished and {unacknowledged} results that the engine may not have: it hands them out again"
    )]
    Unfinished {
        /// Its name.
        service: String,
        /// Handlers that still ran.
        running: usize,
        /// Messages that were not acknowledged.
        unacknowledged: usize,
    },
}

/// A service that the engine knows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// Its name.
    pub name: String,
    /// The engine's id for it: what a plan calls it.
    pub id: String,
    /// 1 for its first registration; one more for each that changed something.
    pub version: i64,
}

type OnRegistered = Arc<dyn Fn(&Registered) + Send + Sync>;

/// Connects services to an engine.
#[derive(Clone)]
pub struct Worker {
    pub(crate) endpoint: Endpoint,
    pub(crate) authorization: MetadataValue<Ascii>,
    pub(crate) identity: String,
    pub(crate) grace: Duration,
    pub(crate) on_registered: OnRegistered,
    services: Vec<Erased>,
}

impl Worker {
    /// A worker for the engine at `url` (of its gRPC port), with a key of the project that its services belong to.
    pub fn new(url: impl Into<String>, key: impl AsRef<str>) -> Result<Self, Error> {
        let url = url.into();
        let wrong = |reason: String| Error::Address {
            url: url.clone(),
            reason,
        };
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|e| wrong(e.to_string()))?;
        if endpoint.uri().host().is_none() || endpoint.uri().scheme().is_none() {
            return Err(wrong(
                "it names no host, or not how to speak to it".to_owned(),
            ));
        }
        #[cfg(feature = "tls")]
        let endpoint = if endpoint.uri().scheme_str() == Some("https") {
            endpoint
                .tls_config(tonic::transport::ClientTlsConfig::new().with_native_roots())
                .map_err(|e| wrong(e.to_string()))?
        } else {
            endpoint
        };
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {}", key.as_ref())
            .parse()
            .map_err(|_| Error::Key)?;
        authorization.set_sensitive(true);
        Ok(Self {
            endpoint: endpoint
                .connect_timeout(CONNECT_TIMEOUT)
                .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                .keep_alive_timeout(KEEPALIVE_TIMEOUT)
                .keep_alive_while_idle(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .tcp_nodelay(true),
            authorization,
            identity: format!("{}@{}", std::process::id(), host()),
            grace: GRACE_DEFAULT,
            on_registered: Arc::new(|_| {}),
            services: Vec::new(),
        })
    }

    /// Changes how it connects: certificates, time limits, proxies.
    #[must_use]
    pub fn endpoint(mut self, change: impl FnOnce(Endpoint) -> Endpoint) -> Self {
        self.endpoint = change(self.endpoint);
        self
    }

    /// How the history of an orchestration names this process; process id and host if it does not say.
    #[must_use]
    pub fn identity(mut self, identity: impl Into<String>) -> Self {
        self.identity = identity.into();
        self
    }

    /// How long a graceful end waits for handlers and for the engine; 30 s if it does not say.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Is told of each registration: the first, and those after each reconnect.
    #[must_use]
    pub fn on_registered(mut self, tell: impl Fn(&Registered) + Send + Sync + 'static) -> Self {
        self.on_registered = Arc::new(tell);
        self
    }

    /// One more service. All of a worker's services share a connection.
    #[must_use]
    pub fn service<Input, Output>(mut self, service: Service<Input, Output>) -> Self {
        self.services.push(service.erased());
        self
    }

    /// Serves until the engine refuses a service for good.
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(std::future::pending()).await
    }

    /// Serves until `stop` is ready; then takes no more tasks, finishes those it has, and waits until the engine has their results.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<(), Error> {
        if self.services.is_empty() {
            return Err(Error::NoService);
        }
        let channel: Channel = self.endpoint.connect_lazy();
        let (stopping, stopped) = watch::channel(false);
        let sessions = self.services.iter().map(|service| {
            Session::new(&self, service.clone(), channel.clone(), stopped.clone()).run()
        });
        let all = try_join_all(sessions);
        tokio::pin!(all);
        tokio::select! {
            ended = &mut all => return ended.map(|_| ()),
            () = stop => {}
        }
        // Every session has a receiver of it.
        let _ = stopping.send(true);
        all.await.map(|_| ())
    }
}

/// For people who read histories; nothing depends on it.
fn host() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_cannot_work_is_said_at_once() {
        for url in ["", "127.0.0.1:7233", "http://"] {
            let error = Worker::new(url, "key").map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Address { .. }), "{url}: {error}");
        }
        let error = Worker::new("http://127.0.0.1:7233", "a\nb")
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, Error::Key));
        let worker = Worker::new("http://127.0.0.1:7233", "key").unwrap();
        assert!(matches!(worker.run().await, Err(Error::NoService)));
    }
}
