//! What this machine could do: its disk in one writer's synced batches, and empty RPCs between two processes.

use std::fmt;
use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use orchestrion_proto::services::workflow::workflow_service_server::{
    WorkflowService, WorkflowServiceServer,
};
use orchestrion_proto::temporal::api::workflowservice::v1::{
    SignalWorkflowExecutionRequest, SignalWorkflowExecutionResponse,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::process::{Owned, first_line};
use crate::temporal::{NAMESPACE, Temporal, payloads};
use crate::text::Letters;
use crate::{Result, method};

/// Bytes of a batch: what some sixteen transitions come to.
const BATCH_BYTES: usize = 16 * 1024;
const TIME: Duration = Duration::from_secs(3);
const CALLERS: usize = 64;

#[derive(Debug, Clone, Copy, Serialize)]
pub struct Limits {
    /// Synced batches of 16 KB a second.
    pub batches_per_second: f64,
    /// MB a second in them.
    pub disk_mb_per_second: f64,
    /// Empty RPCs a second, 64 at a time.
    pub rpcs_per_second: f64,
    /// CPU of the echo server for one of them, microseconds.
    pub rpc_server_us: f64,
    /// One at a time, milliseconds.
    pub rpc_alone_ms: f64,
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "limits: {:.0} synced batches of 16 KB a second ({:.0} MB/s); {:.0} empty RPCs a second ({:.1} us of server CPU each), {:.3} ms alone",
            self.batches_per_second,
            self.disk_mb_per_second,
            self.rpcs_per_second,
            self.rpc_server_us,
            self.rpc_alone_ms
        )
    }
}

pub async fn measure() -> Result<Limits> {
    let batches_per_second = disk()?;
    let mut server = Owned::role(&["echo"])?;
    let output = server.output().ok_or("the echo has no output")?;
    let temporal = Temporal::to(&first_line(output).await?)?;
    let mut letters = Letters::of(0);
    let signal = SignalWorkflowExecutionRequest {
        namespace: NAMESPACE.to_owned(),
        input: Some(payloads(&letters.text())),
        ..Default::default()
    };
    let ask = async |time: Duration| -> Result<usize> {
        let until = Instant::now() + time;
        let mut count = 0;
        while Instant::now() < until {
            let _: SignalWorkflowExecutionResponse = temporal
                .call(method!("SignalWorkflowExecution"), signal.clone())
                .await?;
            count += 1;
        }
        Ok(count)
    };
    ask(Duration::from_millis(500)).await?;
    let alone = ask(Duration::from_secs(1)).await?;
    let cpu = server.cpu()?;
    let all: usize = try_join_all((0..CALLERS).map(|_| ask(TIME)))
        .await?
        .iter()
        .sum();
    let used = server.cpu()? - cpu;
    Ok(Limits {
        batches_per_second,
        disk_mb_per_second: batches_per_second * BATCH_BYTES as f64 / 1e6,
        rpcs_per_second: all as f64 / TIME.as_secs_f64(),
        rpc_server_us: used * 1e6 / all as f64,
        rpc_alone_ms: 1_000.0 / alone as f64,
    })
}

/// Synced batches a second, as one writer appends them.
fn disk() -> Result<f64> {
    let folder = crate::stage::folder()?;
    let mut file = File::create(folder.path().join("log"))?;
    let batch = vec![0x5a; BATCH_BYTES];
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < TIME {
        file.write_all(&batch)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

/// Answers with nothing.
struct Echo;

#[tonic::async_trait]
impl WorkflowService for Echo {
    async fn signal_workflow_execution(
        &self,
        _request: Request<SignalWorkflowExecutionRequest>,
    ) -> std::result::Result<Response<SignalWorkflowExecutionResponse>, Status> {
        Ok(Response::new(SignalWorkflowExecutionResponse::default()))
    }
}

/// The other process: prints where it listens, and answers.
pub async fn echo() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    writeln!(std::io::stdout(), "http://{}", listener.local_addr()?)?;
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    Server::builder()
        .add_service(WorkflowServiceServer::new(Echo))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}
