//! One service and its streams, one after the other.
//!
//! ```text
//!  Task, unknown key        --> a handler runs
//!  Task, key at work        --> the handler that runs answers for this attempt as well
//!  a handler's message      --> numbered, kept, sent            (kept only, while there is no stream)
//!  Acknowledged up to n     --> messages up to n are forgotten
//!  the stream broke         --> after a pause: Open, and all that was kept, numbered anew
//! ```
//!
//! Invariant: a message leaves memory when the engine has acknowledged it, and not before.

use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{FutureExt as _, stream};
use orchestrion_proto::worker::from_worker::Message;
use orchestrion_proto::worker::to_worker::Message as Told;
use orchestrion_proto::worker::worker_service_client::WorkerServiceClient;
use orchestrion_proto::worker::{self as wire, FromWorker, Open, ToWorker};
use tokio::sync::{mpsc, watch};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::backoff::Backoff;
use crate::service::{Erased, kept};
use crate::task::{About, Failure, Report, Task};
use crate::worker::{Error, Registered, Worker};

/// The engine keeps its messages to us well below.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What a message may be beyond its payloads.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// A handler at work, or about to be told that it was.
struct Running {
    attempt: wire::Attempt,
    cancel: watch::Sender<bool>,
    /// What a revert of this task will want; only of a revertible service.
    input: Option<Bytes>,
}

/// A message the engine has not acknowledged.
struct Kept {
    number: u64,
    message: Message,
}

/// A stream as long as it lasts.
struct Link {
    inbound: Streaming<ToWorker>,
    outbound: mpsc::UnboundedSender<FromWorker>,
}

pub(crate) struct Session {
    service: Erased,
    client: WorkerServiceClient<Channel>,
    authorization: MetadataValue<Ascii>,
    on_registered: Arc<dyn Fn(&Registered) + Send + Sync>,
    stop: watch::Receiver<bool>,
    grace: Duration,
    stopping_until: Option<Instant>,
    /// By idempotency key.
    running: HashMap<Arc<str>, Running>,
    kept: VecDeque<Kept>,
    /// Of the last message sent on this stream.
    number: u64,
    reports: mpsc::UnboundedReceiver<Report>,
    reports_tx: mpsc::UnboundedSender<Report>,
    message_bytes_max: usize,
}

/// What a session waits for.
enum Next {
    Told(Result<Option<ToWorker>, Status>),
    Report(Report),
    Stop,
    Late,
}

impl Session {
    pub(crate) fn new(
        worker: &Worker,
        mut service: Erased,
        channel: Channel,
        stop: watch::Receiver<bool>,
    ) -> Self {
        service.open.identity.clone_from(&worker.identity);
        let (reports_tx, reports) = mpsc::unbounded_channel();
        Self {
            service,
            client: WorkerServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
            authorization: worker.authorization.clone(),
            on_registered: Arc::clone(&worker.on_registered),
            stop,
            grace: worker.grace,
            stopping_until: None,
            running: HashMap::new(),
            kept: VecDeque::new(),
            number: 0,
            reports,
            reports_tx,
            message_bytes_max: usize::MAX,
        }
    }

    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut backoff = Backoff::default();
        loop {
            match self.connect().await {
                Ok(link) => {
                    backoff.reset();
                    if self.serve(link).await? {
                        return Ok(());
                    }
                }
                Err(status) if is_final(&status) => return Err(self.refused(&status)),
                Err(status) => {
                    tracing::warn!(service = %self.service.open.name, %status, "the engine cannot be reached");
                }
            }
            if self.is_done() {
                return Ok(());
            }
            self.pause(backoff.next()).await?;
        }
    }

    async fn connect(&mut self) -> Result<Link, Status> {
        let (outbound, mut messages) = mpsc::unbounded_channel();
        let open = FromWorker {
            message: Some(Message::Open(self.service.open.clone())),
            number: 0,
        };
        let _ = outbound.send(open);
        let mut request = Request::new(stream::poll_fn(move |context| messages.poll_recv(context)));
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        let mut inbound = self.client.work(request).await?.into_inner();
        let first = inbound.message().await?.and_then(|first| first.message);
        let Some(Told::Opened(opened)) = first else {
            return Err(Status::unavailable(
                "the engine did not say that the stream is open",
            ));
        };
        self.message_bytes_max = usize::try_from(opened.message_bytes_max)
            .unwrap_or(usize::MAX)
            .saturating_sub(HEAD_BYTES_MAX);
        tracing::info!(service = %self.service.open.name, id = %opened.service_id, version = opened.version, "registered");
        (self.on_registered)(&Registered {
            name: self.service.open.name.clone(),
            id: opened.service_id,
            version: opened.version,
        });
        let link = Link { inbound, outbound };
        self.send_again(&link);
        if self.stopping_until.is_some() {
            link.send(Message::Drain(wire::Drain {}), 0);
        }
        Ok(link)
    }

    /// On a new stream nothing has a ticket, and numbers begin anew.
    fn send_again(&mut self, link: &Link) {
        self.number = 0;
        for running in self.running.values_mut() {
            running.attempt.ticket = 0;
        }
        // Nobody waits for a sign of life from before.
        self.kept
            .retain(|kept| !matches!(kept.message, Message::Heartbeat(_)));
        for kept in &mut self.kept {
            self.number += 1;
            kept.number = self.number;
            if let Some(attempt) = attempt_of(&mut kept.message).as_mut() {
                attempt.ticket = 0;
            }
            link.send(kept.message.clone(), kept.number);
        }
    }

    /// Serves until the stream ends; `true` when there is nothing left to do.
    async fn serve(&mut self, link: Link) -> Result<bool, Error> {
        let Link {
            mut inbound,
            outbound,
        } = link;
        let mut outbound = Some(outbound);
        loop {
            if self.is_done() {
                // Our side is closed: the engine ends the stream when it has settled everything.
                outbound = None;
            }
            match self.next(Some(&mut inbound)).await {
                Next::Told(Ok(Some(told))) => self.told(told, outbound.as_ref()),
                Next::Told(Ok(None)) => return Ok(self.is_done()),
                Next::Told(Err(_)) if self.is_done() => return Ok(true),
                Next::Told(Err(status)) if is_final(&status) => return Err(self.refused(&status)),
                Next::Told(Err(status)) => {
                    tracing::warn!(service = %self.service.open.name, %status, "the stream broke: connecting again");
                    return Ok(false);
                }
                Next::Report(report) => self.report(report, outbound.as_ref()),
                Next::Stop => {
                    if let Some(outbound) = &outbound {
                        send(outbound, Message::Drain(wire::Drain {}), 0);
                    }
                }
                Next::Late => return Err(self.unfinished()),
            }
        }
    }

    /// Waits before the next attempt to connect; handlers go on meanwhile.
    async fn pause(&mut self, wait: Duration) -> Result<(), Error> {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            let Ok(next) = tokio::time::timeout(left, self.next(None)).await else {
                return Ok(());
            };
            match next {
                Next::Report(report) => self.report(report, None),
                Next::Late => return Err(self.unfinished()),
                Next::Stop | Next::Told(_) => {}
            }
        }
    }

    async fn next(&mut self, inbound: Option<&mut Streaming<ToWorker>>) -> Next {
        let told = async {
            match inbound {
                Some(inbound) => inbound.message().await,
                None => std::future::pending().await,
            }
        };
        let late = async {
            match self.stopping_until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        let stopping = self.stopping_until.is_some();
        tokio::select! {
            told = told => Next::Told(told),
            Some(report) = self.reports.recv() => Next::Report(report),
            _ = self.stop.wait_for(|stop| *stop), if !stopping => {
                self.stopping_until = Some(Instant::now() + self.grace);
                Next::Stop
            }
            () = late => Next::Late,
        }
    }

    fn told(&mut self, told: ToWorker, outbound: Option<&mpsc::UnboundedSender<FromWorker>>) {
        match told.message {
            Some(Told::Task(task)) => self.take(task, outbound),
            Some(Told::Acknowledged(acknowledged)) => {
                while self
                    .kept
                    .front()
                    .is_some_and(|kept| kept.number <= acknowledged.up_to)
                {
                    self.kept.pop_front();
                }
            }
            Some(Told::Refused(refused)) => {
                tracing::warn!(service = %self.service.open.name, number = refused.number, reason = %refused.reason, "a message was refused");
            }
            Some(Told::Canceled(canceled)) => {
                let running = self
                    .running
                    .values()
                    .find(|running| running.attempt.ticket == canceled.ticket);
                if let Some(running) = running {
                    running.cancel.send_replace(true);
                }
            }
            Some(Told::Drain(_)) => {
                tracing::info!(service = %self.service.open.name, "the engine hands out no more tasks on this stream");
            }
            // Opened once; and what a later engine says.
            Some(Told::Opened(_)) | None => {}
        }
    }

    fn take(&mut self, task: wire::Task, outbound: Option<&mpsc::UnboundedSender<FromWorker>>) {
        let attempt = wire::Attempt {
            ticket: task.ticket,
            execution_id: task.execution_id.clone(),
            idempotency_key: task.idempotency_key.clone(),
        };
        let key: Arc<str> = task.idempotency_key.as_str().into();
        if let Some(running) = self.running.get_mut(&key) {
            let before = std::mem::replace(&mut running.attempt, attempt);
            if before.ticket != 0 && before.execution_id != task.execution_id {
                // Its slot is wanted back; the engine has given the attempt up already.
                let failed = wire::Failed {
                    attempt: Some(before),
                    error: format!("attempt {} goes on with its work", task.attempt),
                    permanent: false,
                };
                self.send(Message::Failed(failed), outbound);
            }
            return;
        }
        // It was done: what was kept is said again, under the name it has on this stream.
        let said = self.kept.iter().find(|kept| {
            ends(&kept.message)
                && about(&kept.message).is_some_and(|of| of.execution_id == task.execution_id)
        });
        if let Some(mut message) = said.map(|kept| kept.message.clone()) {
            *attempt_of(&mut message) = Some(attempt);
            return self.send(message, outbound);
        }
        let (cancel, canceled) = watch::channel(false);
        let undoing = task.undoing.is_some();
        self.running.insert(
            Arc::clone(&key),
            Running {
                attempt,
                cancel,
                input: (self.service.open.revertible && !undoing).then(|| task.input.clone()),
            },
        );
        self.start(key, task, canceled);
    }

    fn start(&self, key: Arc<str>, task: wire::Task, canceled: watch::Receiver<bool>) {
        let some = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        let handed = Task {
            key: Arc::clone(&key),
            about: Arc::new(About {
                id: task.task_id,
                execution_id: task.execution_id,
                attempt: u32::try_from(task.attempt).unwrap_or_default(),
                timeout: some(task.timeout_ms),
                heartbeat_every: some(task.heartbeat_ms),
                heartbeat_details: task.heartbeat_details,
            }),
            reports: self.reports_tx.clone(),
            canceled,
        };
        let service = self.service.clone();
        let reports = self.reports_tx.clone();
        tokio::spawn(async move {
            // Also what a handler does before its first await may panic.
            let work = AssertUnwindSafe(async {
                match (task.undoing, &service.revert) {
                    (None, _) => (service.execute)(handed, task.input).await,
                    (Some(undoing), Some(revert)) => {
                        revert(handed, task.input, undoing.context).await
                    }
                    (Some(_), None) => {
                        Failure::permanent("this service has no revert handler").into_message()
                    }
                }
            });
            let message = work.catch_unwind().await.unwrap_or_else(|panic| {
                let what = panic
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| panic.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                Failure::new(format!("the handler panicked: {what}")).into_message()
            });
            // Nobody listens only when the worker has ended.
            let _ = reports.send((key, message));
        });
    }

    fn report(
        &mut self,
        (key, mut message): Report,
        outbound: Option<&mpsc::UnboundedSender<FromWorker>>,
    ) {
        let ends = ends(&message);
        let attempt = if ends {
            let Some(running) = self.running.remove(&key) else {
                return;
            };
            if let (Message::Completed(done), Some(input)) = (&mut message, &running.input) {
                done.compensation = Some(wire::Compensation {
                    data: kept(input, &done.result),
                    ttl_ms: self.service.undo_within_ms,
                });
            }
            running.attempt
        } else {
            match self.running.get(&key) {
                Some(running) => running.attempt.clone(),
                // From a part of the handler that outlived it.
                None => return,
            }
        };
        let bytes = payload_bytes(&message);
        if bytes > self.message_bytes_max {
            let text = format!(
                "its message has {bytes} bytes: the engine takes {}",
                self.message_bytes_max
            );
            if !ends {
                tracing::warn!(service = %self.service.open.name, "an update is dropped: {text}");
                return;
            }
            message = Failure::permanent(text).into_message();
        }
        *attempt_of(&mut message) = Some(attempt);
        self.send(message, outbound);
    }

    fn send(&mut self, message: Message, outbound: Option<&mpsc::UnboundedSender<FromWorker>>) {
        self.number += 1;
        if let Some(outbound) = outbound {
            send(outbound, message.clone(), self.number);
        }
        self.kept.push_back(Kept {
            number: self.number,
            message,
        });
    }

    /// Whether the end was asked for, and nothing is left to do.
    fn is_done(&self) -> bool {
        self.stopping_until.is_some() && self.running.is_empty() && self.kept.is_empty()
    }

    fn refused(&self, status: &Status) -> Error {
        Error::Refused {
            service: self.service.open.name.clone(),
            reason: status.message().to_owned(),
        }
    }

    fn unfinished(&self) -> Error {
        Error::Unfinished {
            service: self.service.open.name.clone(),
            running: self.running.len(),
            unacknowledged: self.kept.len(),
        }
    }
}

impl Link {
    fn send(&self, message: Message, number: u64) {
        send(&self.outbound, message, number);
    }
}

/// A stream that broke loses it; it is kept, and sent again on the next.
fn send(outbound: &mpsc::UnboundedSender<FromWorker>, message: Message, number: u64) {
    let _ = outbound.send(FromWorker {
        message: Some(message),
        number,
    });
}

/// What trying again would not change.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::Unauthenticated
            | Code::PermissionDenied
            | Code::NotFound
            | Code::Unimplemented
    )
}

fn ends(message: &Message) -> bool {
    matches!(
        message,
        Message::Completed(_) | Message::Failed(_) | Message::Aborted(_) | Message::Reverted(_)
    )
}

fn about(message: &Message) -> Option<&wire::Attempt> {
    match message {
        Message::Completed(m) => m.attempt.as_ref(),
        Message::Failed(m) => m.attempt.as_ref(),
        Message::Aborted(m) => m.attempt.as_ref(),
        Message::Reverted(m) => m.attempt.as_ref(),
        Message::Progress(m) => m.attempt.as_ref(),
        Message::Heartbeat(m) => m.attempt.as_ref(),
        Message::Open(_) | Message::Drain(_) => None,
    }
}

fn attempt_of(message: &mut Message) -> &mut Option<wire::Attempt> {
    match message {
        Message::Completed(m) => &mut m.attempt,
        Message::Failed(m) => &mut m.attempt,
        Message::Aborted(m) => &mut m.attempt,
        Message::Reverted(m) => &mut m.attempt,
        Message::Progress(m) => &mut m.attempt,
        Message::Heartbeat(m) => &mut m.attempt,
        Message::Open(Open { .. }) | Message::Drain(_) => {
            unreachable!("only messages about attempts are numbered")
        }
    }
}

fn payload_bytes(message: &Message) -> usize {
    match message {
        Message::Completed(m) => {
            let compensation = m.compensation.as_ref();
            m.result.len() + compensation.map_or(0, |compensation| compensation.data.len())
        }
        Message::Failed(m) => m.error.len(),
        Message::Aborted(m) => m.payload.len(),
        Message::Reverted(m) => m.error.len() + m.details.len(),
        Message::Progress(m) => m.update.len(),
        Message::Heartbeat(m) => m.details.len(),
        Message::Open(_) | Message::Drain(_) => 0,
    }
}
