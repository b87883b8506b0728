//! The HTTP listener: accepts, bounds, and stops gracefully.
//!
//! Invariant: after the stop nothing new is accepted, and what is under way is answered or cut off by the caller's budget.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::api::orra::Peer;
use crate::config::HttpSettings;
use crate::seams;

/// How long to wait when the system has no more descriptors.
const PAUSE_AFTER_ACCEPT_ERROR: Duration = Duration::from_millis(100);

/// Serves until the stop, then until every connection has ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    settings: HttpSettings,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(settings.connections_max as usize));
    // Every connection holds a receiver; they are counted by it.
    let connections = watch::Sender::new(());
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = stop.wait_for(|stopped| *stopped) => break,
        };
        match accepted {
            Ok((stream, permit)) => {
                // Every request says where it came from.
                let peer = Peer(stream.peer_addr().ok());
                let router = router.clone().layer(Extension(peer));
                let (stop, guard) = (stop.clone(), connections.subscribe());
                let head_timeout = settings.head_timeout;
                seams::spawn(async move {
                    let _held = (permit, guard);
                    connection(stream, router, head_timeout, stop).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                seams::sleep(PAUSE_AFTER_ACCEPT_ERROR).await;
            }
        }
    }
    drop(listener);
    connections.closed().await;
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room)
        .acquire_owned()
        .await
        .map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    // Frames are small and answers are waited for.
    stream.set_nodelay(true)?;
    Ok((stream, permit))
}

async fn connection(
    stream: TcpStream,
    router: Router,
    head_timeout: Duration,
    mut stop: watch::Receiver<bool>,
) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(
        builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let stopped = tokio::select! {
        result = connection.as_mut() => return report(result),
        stopped = stop.wait_for(|stopped| *stopped) => stopped.is_ok(),
    };
    tracing::trace!(stopped, "draining a connection");
    connection.as_mut().graceful_shutdown();
    report(connection.await);
}

fn report(result: Result<(), hyper::Error>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection broke");
    }
}
