//! The lines to an engine, for everybody who speaks to it: relays on ports of their own that cut all connections at once, or hold what is sent.
//!
//! ```text
//!  caller, service, worker --> relay --> engine
//!      cut(Close): both ends read the end of it      cut(Reset): both ends read an error      hold(): nothing arrives until it is dropped
//! ```
//!
//! Invariant: a connection that is not cut carries every byte, in order; where the engine takes no connection, no caller has one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::engine::Engine;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As when the other side has said all it had to say.
    Close,
    /// As when the other side is gone.
    Reset,
}

/// To the HTTP and to the gRPC port of an engine, through all its restarts.
pub struct BadLines {
    http: Line,
    grpc: Line,
}

/// Nothing arrives until this is dropped.
pub struct Held<'a>(&'a BadLines);

impl BadLines {
    /// Lines that work so far.
    pub async fn to(engine: &Engine) -> Self {
        let http = engine.url();
        let http = http.strip_prefix("http://").expect("an http address");
        Self {
            http: Line::to(http).await,
            grpc: Line::to(&engine.grpc_address()).await,
        }
    }

    /// The engine's HTTP API, over the line.
    pub fn http_url(&self) -> String {
        format!("http://{}", self.http.address)
    }

    /// The engine's gRPC API, over the line.
    pub fn grpc_address(&self) -> String {
        self.grpc.address.to_string()
    }

    /// Ends every connection there is; new ones are taken. Answers how many there were to HTTP and to gRPC.
    pub async fn cut(&self, how: Cut) -> (usize, usize) {
        (self.http.cut(how).await, self.grpc.cut(how).await)
    }

    /// Bytes are taken and go nowhere, new connections included.
    pub fn hold(&self) -> Held<'_> {
        for line in [&self.http, &self.grpc] {
            line.held.send_replace(true);
        }
        Held(self)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        for line in [&self.0.http, &self.0.grpc] {
            line.held.send_replace(false);
        }
    }
}

/// To one port.
struct Line {
    address: SocketAddr,
    held: watch::Sender<bool>,
    connections: Arc<Mutex<Vec<Connection>>>,
    accepting: JoinHandle<()>,
}

struct Connection {
    cut: oneshot::Sender<Cut>,
    relay: JoinHandle<()>,
}

impl Line {
    async fn to(engine: &str) -> Self {
        let engine: SocketAddr = engine.parse().expect("an address with a port");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, holding) = watch::channel(false);
        let connections = Arc::new(Mutex::new(Vec::<Connection>::new()));
        let accepted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let (cut, is_cut) = oneshot::channel();
                let relay = tokio::spawn(relay(caller, engine, is_cut, holding.clone()));
                let mut connections = accepted.lock().unwrap();
                connections.retain(|connection| !connection.relay.is_finished());
                connections.push(Connection { cut, relay });
            }
        });
        Self {
            address,
            held,
            connections,
            accepting,
        }
    }

    async fn cut(&self, how: Cut) -> usize {
        let connections = std::mem::take(&mut *self.connections.lock().unwrap());
        let mut count = 0;
        for Connection { cut, relay } in connections {
            // One that has ended by itself hears nothing any more.
            count += usize::from(cut.send(how).is_ok());
            relay.await.unwrap();
        }
        count
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
        for connection in self.connections.lock().unwrap().iter() {
            connection.relay.abort();
        }
    }
}

/// Carries bytes both ways until both sides have ended, one of them breaks, or the connection is cut.
async fn relay(
    mut caller: TcpStream,
    engine: SocketAddr,
    cut: oneshot::Receiver<Cut>,
    held: watch::Receiver<bool>,
) {
    let Ok(mut engine) = TcpStream::connect(engine).await else {
        return reset(caller);
    };
    caller.set_nodelay(true).unwrap();
    engine.set_nodelay(true).unwrap();
    let end = {
        let (from_caller, to_caller) = caller.split();
        let (from_engine, to_engine) = engine.split();
        let there = carry(from_caller, to_engine, held.clone());
        let back = carry(from_engine, to_caller, held);
        tokio::select! {
            cut = cut => cut.unwrap_or(Cut::Reset),
            carried = async { tokio::try_join!(there, back) } => match carried {
                Ok(_) => Cut::Close,
                Err(_) => Cut::Reset,
            },
        }
    };
    match end {
        Cut::Reset => {
            reset(caller);
            reset(engine);
        }
        Cut::Close => {
            // Either may be gone already.
            let _ = caller.shutdown().await;
            let _ = engine.shutdown().await;
        }
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut held: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let count = from.read(&mut bytes).await?;
        // The line is gone when nobody can hold it.
        let _ = held.wait_for(|held| !held).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

fn reset(stream: TcpStream) {
    // What a side has not sent yet is thrown away, and the other side told so.
    let _ = stream.set_zero_linger();
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    /// A line to somebody who says back what it hears, and a connection that works.
    async fn connected() -> (Line, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = caller.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        let line = Line::to(&echo.to_string()).await;
        let mut caller = TcpStream::connect(line.address).await.unwrap();
        says_back(&mut caller, b"hello").await;
        (line, caller)
    }

    async fn says_back(caller: &mut TcpStream, said: &[u8]) {
        caller.write_all(said).await.unwrap();
        hears(caller, said).await;
    }

    async fn hears(caller: &mut TcpStream, wanted: &[u8]) {
        let mut heard = vec![0; wanted.len()];
        caller.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, wanted);
    }

    #[tokio::test]
    async fn all_connections_are_closed_and_new_ones_taken() {
        let (line, mut caller) = connected().await;
        assert_eq!(line.cut(Cut::Close).await, 1);
        assert_eq!(caller.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(line.cut(Cut::Close).await, 0, "it is gone");
        let mut caller = TcpStream::connect(line.address).await.unwrap();
        says_back(&mut caller, b"again").await;
    }

    #[tokio::test]
    async fn all_connections_are_reset() {
        let (line, mut caller) = connected().await;
        assert_eq!(line.cut(Cut::Reset).await, 1);
        let error = caller.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn what_is_said_while_a_line_is_held_arrives_later_or_is_lost_with_it() {
        let (line, mut caller) = connected().await;
        line.held.send_replace(true);
        caller.write_all(b"later").await.unwrap();
        line.held.send_replace(false);
        hears(&mut caller, b"later").await;

        line.held.send_replace(true);
        caller.write_all(b"never").await.unwrap();
        assert_eq!(line.cut(Cut::Close).await, 1);
        let mut heard = Vec::new();
        // Closed with bytes that nobody read: some systems reset it then.
        let _ = caller.read_to_end(&mut heard).await;
        assert_eq!(heard, b"");
    }

    #[tokio::test]
    async fn where_nobody_listens_nobody_is_connected() {
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = gone.local_addr().unwrap().to_string();
        drop(gone);
        let line = Line::to(&address).await;
        let mut caller = TcpStream::connect(line.address).await.unwrap();
        let error = caller.read(&mut [0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}
