//! One stream of a worker, from its registration to its end.
//!
//! ```text
//!  attempt  --> Task, under a ticket
//!  answer   --> request, asked under the message's number --committed--> settled --> Acknowledged
//!                 '-- refused, busy, of no ticket --> as orra's socket does it (work::answering), beside the others
//!  Drain    --> no more attempts; the stream ends when the worker closes its side
//!  stop     --> Drain, and the end once what was asked is settled
//! ```
//!
//! A success of a known attempt is the usual message: it costs one request and its part of an acknowledgement. Everything else takes
//! the slower way.
//!
//! Invariant: a message is acknowledged after the commit it stands for, and after all messages before it.
//! Invariant: whatever ends the stream, the engine gets the session back, and unanswered attempts with it.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;

use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt as _, stream};
use orchestrion_history::request::{ActivityRef, HeartbeatActivity, Rejection, Reply, Request};
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::worker::from_worker::Message;
use orchestrion_proto::worker::to_worker::Message as Said;
use orchestrion_proto::worker::{Acknowledged, Canceled, Drain, FromWorker, Refused, ToWorker};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::message::{self, Ending};
use crate::api::work::answering::{Answering, Settled, progress};
use crate::api::work::{Assignment, Attached, Outcome, Said as _, Standing, undoes};
use crate::engine::handle::{self, CallError, Dispatch, NumberedAnswer};
use crate::orchestration::submission::raw_json_payload;

/// Messages that wait for their commit, for each slot of the window and at least; a worker that sends more is read no further.
const UNSETTLED_PER_SLOT: usize = 4;
const UNSETTLED_MIN: usize = 256;

type Slow = Pin<Box<dyn Future<Output = (u64, Settled)> + Send>>;

/// What a session is made of.
pub struct Parts {
    pub inbound: Streaming<FromWorker>,
    pub attached: handle::Session,
    pub answering: Answering,
    pub standing: Standing,
    pub stop: watch::Receiver<bool>,
    pub window: u32,
    /// Counts the stream among those that a stop waits for.
    pub guard: Box<dyn Send>,
}

/// An attempt the worker has not answered.
struct Ticket {
    assignment: Assignment,
    execution_id: String,
}

/// A numbered message that is not acknowledged.
struct Unsettled {
    message: Message,
    assignment: Option<Assignment>,
    settled: bool,
}

/// A stream that a worker has opened.
pub struct Session {
    attached: Attached,
    /// `None` once the worker has closed its side.
    inbound: Option<Streaming<FromWorker>>,
    attempts: mpsc::UnboundedReceiver<Dispatch>,
    answers: mpsc::UnboundedReceiver<NumberedAnswer>,
    answers_tx: mpsc::UnboundedSender<NumberedAnswer>,
    slow: FuturesUnordered<Slow>,
    answering: Answering,
    stop: watch::Receiver<bool>,
    stopping: bool,
    /// Ready when the key or the service is taken away.
    lost: Pin<Box<dyn Future<Output = ()> + Send>>,
    tickets: HashMap<u64, Ticket>,
    last_ticket: u64,
    unsettled: VecDeque<Unsettled>,
    /// The number of the first unsettled message.
    first: u64,
    unsettled_max: usize,
    /// Up to which number the worker was told.
    acknowledged: u64,
    out: VecDeque<Said>,
    /// Why the stream ends, once all that is ready is said.
    end: Option<Status>,
    ended: bool,
    _guard: Box<dyn Send>,
}

pub fn shutting_down() -> Status {
    Status::unavailable("the engine is shutting down: connect again")
}

impl Session {
    pub fn new(parts: Parts) -> Self {
        let (answers_tx, answers) = mpsc::unbounded_channel();
        let window = parts.window as usize;
        let mut standing = parts.standing;
        metrics::gauge!("orchestrion_worker_streams").increment(1.0);
        Self {
            attached: Attached::new(&parts.answering.handle, parts.attached.id),
            inbound: Some(parts.inbound),
            attempts: parts.attached.tasks,
            answers,
            answers_tx,
            slow: FuturesUnordered::new(),
            answering: parts.answering,
            stop: parts.stop,
            stopping: false,
            lost: Box::pin(async move { standing.lost().await }),
            tickets: HashMap::new(),
            last_ticket: 0,
            unsettled: VecDeque::new(),
            first: 1,
            unsettled_max: (window * UNSETTLED_PER_SLOT).max(UNSETTLED_MIN),
            acknowledged: 0,
            out: VecDeque::new(),
            end: None,
            ended: false,
            _guard: parts.guard,
        }
    }

    /// What the worker is told, beginning with this.
    pub fn stream(self, first: Said) -> impl Stream<Item = Result<ToWorker, Status>> + Send {
        let mut session = Box::new(self);
        session.out.push_back(first);
        if *session.stop.borrow_and_update() {
            session.begin_to_stop();
        }
        stream::unfold(session, |mut session| async move {
            let said = session.next().await?;
            Some((said, session))
        })
    }

    async fn next(&mut self) -> Option<Result<ToWorker, Status>> {
        loop {
            self.gather();
            if let Some(said) = self.say() {
                return Some(Ok(ToWorker {
                    message: Some(said),
                }));
            }
            if self.ended {
                return None;
            }
            if self.stopping && self.unsettled.is_empty() {
                self.end.get_or_insert_with(shutting_down);
            }
            if let Some(status) = self.end.take() {
                self.ended = true;
                tracing::info!(service = %self.answering.service_id, session = self.attached.id().0, why = status.message(), "worker stream closed");
                return Some(Err(status));
            }
            if self.inbound.is_none() && self.unsettled.is_empty() {
                return None;
            }
            self.wait().await;
        }
    }

    /// Takes what has come without waiting for it.
    fn gather(&mut self) {
        while let Ok(dispatch) = self.attempts.try_recv() {
            self.hand_out(dispatch);
        }
        while let Ok(answer) = self.answers.try_recv() {
            self.answered(answer);
        }
        while self.unsettled.front().is_some_and(|front| front.settled) {
            self.unsettled.pop_front();
            self.first += 1;
        }
    }

    fn say(&mut self) -> Option<Said> {
        if let Some(said) = self.out.pop_front() {
            return Some(said);
        }
        let up_to = self.first - 1;
        if up_to > self.acknowledged {
            self.acknowledged = up_to;
            return Some(Said::Acknowledged(Acknowledged { up_to }));
        }
        None
    }

    /// Waits until there is something to do, and does it.
    async fn wait(&mut self) {
        let room = self.unsettled.len() < self.unsettled_max;
        let inbound = async {
            match &mut self.inbound {
                Some(inbound) if room => inbound.message().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            message = inbound => match message {
                Ok(Some(message)) => self.hear(message),
                Ok(None) => self.inbound = None,
                Err(status) => {
                    tracing::debug!(service = %self.answering.service_id, %status, "a worker stream broke");
                    self.inbound = None;
                    self.end = Some(status);
                }
            },
            dispatch = self.attempts.recv() => match dispatch {
                Some(dispatch) => self.hand_out(dispatch),
                None => self.end = Some(shutting_down()),
            },
            Some(answer) = self.answers.recv() => self.answered(answer),
            Some((number, settled)) = self.slow.next(), if !self.slow.is_empty() => {
                self.settle(number, settled);
            }
            _ = self.stop.changed(), if !self.stopping => self.begin_to_stop(),
            () = &mut self.lost => {
                self.end = Some(Status::unauthenticated(
                    "the key was revoked, or the service deleted: register it anew",
                ));
            }
        }
    }

    fn begin_to_stop(&mut self) {
        self.stopping = true;
        self.attached.pause();
        self.out.push_back(Said::Drain(Drain {}));
    }

    fn hand_out(&mut self, dispatch: Dispatch) {
        let revert = undoes(&dispatch);
        let assignment = Assignment::of(&dispatch, revert);
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        match message::task(ticket, dispatch, revert) {
            Ok(task) => {
                let execution_id = task.execution_id.clone();
                self.tickets.insert(
                    ticket,
                    Ticket {
                        assignment,
                        execution_id,
                    },
                );
                self.out.push_back(Said::Task(task));
            }
            Err(reason) => {
                tracing::warn!(service = %self.answering.service_id, activity = %assignment.activity_id, reason, "an attempt cannot be sent");
                let answering = self.answering.clone();
                // Under no number: nobody waits for an acknowledgement of it.
                self.slow.push(Box::pin(async move {
                    answering.undeliverable(&assignment, reason).await;
                    (0, Settled::Noted)
                }));
                self.attached.release(1);
            }
        }
    }

    fn hear(&mut self, from: FromWorker) {
        match from.message {
            Some(Message::Open(_)) => {
                self.end = Some(Status::invalid_argument("open is only the first message"));
            }
            Some(Message::Drain(_)) => self.attached.pause(),
            message => self.numbered(from.number, message),
        }
    }

    fn numbered(&mut self, number: u64, message: Option<Message>) {
        let expected = self.first + self.unsettled.len() as u64;
        if number != expected {
            self.end = Some(Status::invalid_argument(format!(
                "message {number} came where {expected} was expected: messages are numbered one by one"
            )));
            return;
        }
        let Some(message) = message else {
            // Of a later version of the protocol.
            self.unsettled.push_back(Unsettled {
                message: Message::Drain(Drain {}),
                assignment: None,
                settled: false,
            });
            return self.refuse(
                number,
                "this engine does not know messages of that kind".into(),
            );
        };
        let attempt = message::attempt_of(&message);
        let ticket = attempt.map_or(0, |attempt| attempt.ticket);
        let ends = message::ends(&message);
        let assignment = if ends {
            match self.tickets.remove(&ticket) {
                Some(known) => {
                    self.attached.release(1);
                    Some(known.assignment)
                }
                None => {
                    let execution_id = attempt.map(|attempt| attempt.execution_id.clone());
                    self.forget(&execution_id.unwrap_or_default());
                    None
                }
            }
        } else {
            self.tickets
                .get(&ticket)
                .map(|known| known.assignment.clone())
        };
        let request = assignment
            .as_ref()
            .and_then(|to| self.request(to, &message));
        let asked = match (&assignment, request) {
            (Some(to), Some(request)) => self
                .answering
                .handle
                .ask(to.target.clone(), request, number, &self.answers_tx)
                .is_ok(),
            _ => false,
        };
        self.unsettled.push_back(Unsettled {
            message,
            assignment,
            settled: false,
        });
        if !asked {
            self.slowly(number);
        }
    }

    /// An answer from an earlier stream may be of an attempt that is with this one again.
    fn forget(&mut self, execution_id: &str) {
        let before = self.tickets.len();
        self.tickets
            .retain(|_, ticket| ticket.execution_id != execution_id);
        self.attached.release(before - self.tickets.len());
    }

    /// The request of the usual messages; `None` for those that take more than one.
    fn request(&self, to: &Assignment, message: &Message) -> Option<Request> {
        match message {
            Message::Progress(said) if message::is_json(&said.update) => {
                Some(progress(to, said.update.to_vec()))
            }
            Message::Heartbeat(said)
                if said.details.is_empty() || message::is_json(&said.details) =>
            {
                let details = (!said.details.is_empty()).then(|| Payloads {
                    payloads: vec![raw_json_payload(said.details.to_vec())],
                });
                Some(Request::HeartbeatActivity(Box::new(HeartbeatActivity {
                    activity: ActivityRef::Attempt {
                        scheduled_event_id: to.scheduled_event_id,
                        attempt: to.attempt?,
                    },
                    details,
                })))
            }
            message if message::ends(message) => {
                match Ending(message).outcome(to, self.answering.default_ttl) {
                    Outcome::Completed(result) => Some(self.answering.completion(to, result)),
                    Outcome::Aborted(payload) if !to.revert => {
                        Some(self.answering.abortion(to, payload))
                    }
                    Outcome::Aborted(_) | Outcome::Failed { .. } => None,
                }
            }
            _ => None,
        }
    }

    fn answered(&mut self, (number, answer): NumberedAnswer) {
        let Some(index) = self.index(number) else {
            return;
        };
        let ticket =
            message::attempt_of(&self.unsettled[index].message).map_or(0, |attempt| attempt.ticket);
        let heartbeat = matches!(self.unsettled[index].message, Message::Heartbeat(_));
        match answer {
            Ok(accepted) => {
                if let Reply::Heartbeat {
                    cancel_requested: true,
                    ..
                } = accepted.reply
                {
                    self.out.push_back(Said::Canceled(Canceled { ticket }));
                }
                self.settle(number, Settled::Noted);
            }
            Err(error) if heartbeat => {
                if let CallError::Rejected(Rejection::NotFound { .. } | Rejection::Closed) = error {
                    self.out.push_back(Said::Canceled(Canceled { ticket }));
                }
                self.refuse(number, error.to_string());
            }
            Err(CallError::ShuttingDown) => self.end = Some(shutting_down()),
            Err(error @ CallError::Quarantined { .. }) => self.refuse(number, error.to_string()),
            Err(_) => self.slowly(number),
        }
    }

    /// Puts a message to the engine as often as it takes.
    fn slowly(&mut self, number: u64) {
        let Some(index) = self.index(number) else {
            return;
        };
        let unsettled = &self.unsettled[index];
        let attempt = match message::attempt_of(&unsettled.message) {
            Some(attempt) => message::named(attempt),
            None => return self.refuse(number, "the message names no attempt".to_owned()),
        };
        let (message, known) = (unsettled.message.clone(), unsettled.assignment.clone());
        match message {
            Message::Heartbeat(_) => {
                self.refuse(number, "nothing is known of the attempt".to_owned());
            }
            Message::Progress(said) if !message::is_json(&said.update) => {
                self.refuse(number, "the update is not JSON".to_owned());
            }
            message => {
                let answering = self.answering.clone();
                self.slow.push(Box::pin(async move {
                    let settled = match &message {
                        Message::Progress(said) => {
                            answering
                                .update(&attempt, known, said.update.to_vec())
                                .await
                        }
                        ending => answering.answer(&attempt, known, &Ending(ending)).await,
                    };
                    (number, settled)
                }));
            }
        }
    }

    fn settle(&mut self, number: u64, settled: Settled) {
        match settled {
            Settled::Noted => {
                if let Some(index) = self.index(number) {
                    self.unsettled[index].settled = true;
                }
            }
            Settled::Refused => self.refuse(
                number,
                "the attempt is over, or no work of this service; the engine's log says which"
                    .to_owned(),
            ),
            Settled::NotNow => {
                self.end = Some(Status::unavailable(
                    "an answer could not be committed: connect again and send it again",
                ));
            }
        }
    }

    fn refuse(&mut self, number: u64, reason: String) {
        if let Some(index) = self.index(number) {
            self.unsettled[index].settled = true;
            self.out
                .push_back(Said::Refused(Refused { number, reason }));
        }
    }

    fn index(&self, number: u64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        (index < self.unsettled.len()).then_some(index)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        metrics::gauge!("orchestrion_worker_streams").decrement(1.0);
        tracing::info!(service = %self.answering.service_id, session = self.attached.id().0, unanswered = self.tickets.len(), "worker disconnected");
    }
}
