//! One socket of a service, from its upgrade to its end: one loop over frames, attempts, pings and the stop signal.
//!
//! ```text
//!  frame   --> answered, committed --> ACK, slot back to the engine
//!  attempt --> task_request | compensation_request, a slot is taken
//!  tick    --> pings; slots out of time are doubted; a silent socket is closed
//!  stop    --> close 1012
//! ```
//!
//! Invariant: the frames of one socket are handled in order, each to its end before the next is read.
//! Invariant: an acknowledgement follows the commit it stands for.
//! Invariant: whatever ends the loop, the engine gets the session back, and unanswered attempts with it.

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as WsMessage, WebSocket};
use orchestrion_history::ids::{TaskQueueName, Timestamp};
use orchestrion_proto::temporal::api::common::v1::Payload;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, watch};

use super::frame::{Answer, Inbound, Message, Outbound, Work};
use super::slots::{Slots, Tick};
use crate::api::work::answering::{Answering, Settled};
use crate::api::work::{Assignment, Attached, Attempt, Standing, context_of, key, undoes};
use crate::config::SocketSettings;
use crate::engine::handle::Dispatch;
use crate::orchestration::REVERT_ID_PREFIX;
use crate::orchestration::submission::{BadPayload, json_text, payload_text};
use crate::registry::ids::execution_id;
use crate::seams;

/// The largest frame orra's Python SDK takes; it closes its socket on a larger one.
pub const SDK_FRAME_BYTES_MAX: usize = 10_485_760 + 2 * 1024;
/// An answer that could not be committed is kept by its SDK if the socket closes after the 5 s it waits for the acknowledgement.
const CLOSE_AFTER_LOST_ANSWER: Duration = Duration::from_millis(2_500);
/// How long to wait for the other side's close frame.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Frames of ours that the SDK may not have read, before acknowledgements of updates wait. The library under orra's Python SDK stops
/// reading, and answering pings, when 32 frames wait for a busy handler.
const UNREAD_FRAMES_MAX: u32 = 20;
/// Acknowledgements that wait at most; older ones are dropped, and their SDK sends the update again one day.
const HELD_ACKS_MAX: usize = 10_000;
/// Pings of ours that stay unanswered before silence counts.
const UNANSWERED_PINGS_MIN: u32 = 2;

/// orra's Python SDK takes 1000 and 1001 for a good-bye and does not come back; these it takes for a broken connection.
const RESTART: u16 = 1012;
const NOT_ALLOWED: u16 = 1008;
const TOO_LARGE: u16 = 1009;
const TRY_AGAIN_LATER: u16 = 1013;

/// Why a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The other side left, or the connection broke.
    Gone,
    /// We close it.
    Close(u16, &'static str),
}

/// A socket, upgraded and authenticated.
pub struct Connection {
    socket: WebSocket,
    answering: Answering,
    settings: SocketSettings,
    standing: Standing,
    stop: watch::Receiver<bool>,
    slots: Slots,
    heard_at: Timestamp,
    unanswered_pings: u32,
    awaiting_pong: bool,
    /// Frames sent since the SDK last showed that it reads.
    unread: u32,
    held_acks: VecDeque<String>,
    next_app_ping: Timestamp,
    next_ping: Timestamp,
    close_at: Option<Timestamp>,
}

impl Connection {
    /// A connection that has not begun.
    pub fn new(
        socket: WebSocket,
        answering: Answering,
        settings: SocketSettings,
        standing: Standing,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let now = answering.clock.now();
        Self {
            socket,
            standing,
            stop,
            slots: Slots::default(),
            heard_at: now,
            unanswered_pings: 0,
            awaiting_pong: false,
            unread: 0,
            held_acks: VecDeque::new(),
            next_app_ping: now.plus(settings.app_ping_interval),
            next_ping: now.plus(settings.ping_interval),
            close_at: None,
            answering,
            settings,
        }
    }

    /// Serves the socket until it ends.
    pub async fn run(mut self, queue: TaskQueueName) {
        let service = self.answering.service_id.clone();
        let attached = self
            .answering
            .handle
            .attach(
                Some(self.answering.namespace.clone()),
                queue,
                self.answering.identity.clone(),
                self.settings.window,
            )
            .await;
        let end = match attached {
            Ok(session) => {
                tracing::info!(%service, session = session.id.0, "service connected");
                metrics::gauge!("orchestrion_sockets").increment(1.0);
                let attached = Attached::new(&self.answering.handle, session.id);
                let mut tasks = session.tasks;
                let end = self.serve(&attached, &mut tasks).await;
                metrics::gauge!("orchestrion_sockets").decrement(1.0);
                tracing::info!(%service, session = session.id.0, ?end, "service disconnected");
                end
            }
            Err(error) => {
                tracing::warn!(%service, %error, "a socket could not be attached");
                End::Close(TRY_AGAIN_LATER, "the engine cannot take it now")
            }
        };
        if let End::Close(code, reason) = end {
            self.close(code, reason).await;
        }
    }

    async fn serve(
        &mut self,
        attached: &Attached,
        tasks: &mut mpsc::UnboundedReceiver<Dispatch>,
    ) -> End {
        if *self.stop.borrow_and_update() {
            return End::Close(RESTART, "the engine is shutting down");
        }
        loop {
            let next_tick = self.until_next_tick();
            let step = tokio::select! {
                stopped = self.stop.changed() => match stopped {
                    Ok(()) if !*self.stop.borrow() => Ok(()),
                    _ => Err(End::Close(RESTART, "the engine is shutting down")),
                },
                message = self.socket.recv() => match message {
                    None => Err(End::Gone),
                    Some(Ok(message)) => self.hear(message, attached).await,
                    Some(Err(error)) => Err(end_of(&error)),
                },
                dispatch = tasks.recv() => match dispatch {
                    Some(dispatch) => self.send_work(dispatch, attached).await,
                    None => Err(End::Close(RESTART, "the engine is shutting down")),
                },
                () = self.standing.lost() => Err(End::Close(
                    NOT_ALLOWED,
                    "the service, or the key it came with, was taken away",
                )),
                () = seams::sleep(next_tick) => self.tick(attached).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn hear(&mut self, message: WsMessage, attached: &Attached) -> Result<(), End> {
        self.heard_at = self.answering.clock.now();
        self.unanswered_pings = 0;
        match message {
            WsMessage::Text(text) => self.frame(&text, attached).await,
            // orra ignores binary frames; the library answers pings itself.
            WsMessage::Binary(_) | WsMessage::Ping(_) | WsMessage::Pong(_) => Ok(()),
            WsMessage::Close(_) => Err(End::Gone),
        }
    }

    async fn frame(&mut self, text: &str, attached: &Attached) -> Result<(), End> {
        let inbound = match Inbound::parse(text) {
            Ok(inbound) => inbound,
            Err(reason) => {
                tracing::warn!(service = %self.answering.service_id, bytes = text.len(), %reason, "a frame was dropped");
                metrics::counter!("orchestrion_socket_frames_total", "type" => "unreadable")
                    .increment(1);
                return Ok(());
            }
        };
        let (kind, settled) = match &inbound.message {
            Message::Pong => {
                self.awaiting_pong = false;
                self.reads(attached).await?;
                ("pong", Settled::Noted)
            }
            Message::Status { attempt, status } => {
                tracing::debug!(service = %self.answering.service_id, execution = %attempt.execution_id, status, "status");
                self.reads(attached).await?;
                ("status", Settled::Noted)
            }
            // The handler itself sends it: it does not show that the worker is free.
            Message::Interim { attempt, update } => (
                "update",
                self.answering
                    .update(
                        attempt,
                        self.known(attempt),
                        update.get().as_bytes().to_vec(),
                    )
                    .await,
            ),
            Message::Answer { attempt, answer } => {
                let settled = self
                    .answering
                    .answer(attempt, self.known(attempt), answer)
                    .await;
                if settled != Settled::NotNow {
                    let for_good = !matches!(answer, Answer::Error { .. });
                    attached.release(self.slots.answered(&attempt.execution_id, for_good));
                    self.reads(attached).await?;
                }
                ("answer", settled)
            }
            Message::Unknown { kind } => {
                tracing::info!(service = %self.answering.service_id, kind, "a message of an unknown type");
                ("unknown", Settled::Refused)
            }
        };
        metrics::counter!("orchestrion_socket_frames_total", "type" => kind).increment(1);
        if settled == Settled::NotNow {
            let close_at = self.answering.clock.now().plus(CLOSE_AFTER_LOST_ANSWER);
            self.close_at.get_or_insert(close_at);
            return Ok(());
        }
        if !inbound.wants_ack() {
            return Ok(());
        }
        let update = matches!(inbound.message, Message::Interim { .. });
        if update && self.unread >= UNREAD_FRAMES_MAX {
            self.hold_ack(inbound.id).await
        } else {
            self.send(Outbound::Ack { id: &inbound.id }.to_text()).await
        }
    }

    /// The SDK shows that it reads frames: its worker is free for what it was doubted to be, and acknowledgements get through.
    async fn reads(&mut self, attached: &Attached) -> Result<(), End> {
        self.unread = 0;
        attached.release(self.slots.worker_reads());
        while self.unread < UNREAD_FRAMES_MAX
            && let Some(id) = self.held_acks.pop_front()
        {
            self.send(Outbound::Ack { id: &id }.to_text()).await?;
        }
        if self.held_acks.is_empty() {
            Ok(())
        } else {
            self.ask().await
        }
    }

    async fn hold_ack(&mut self, id: String) -> Result<(), End> {
        self.held_acks.push_back(id);
        if self.held_acks.len() > HELD_ACKS_MAX {
            self.held_acks.pop_front();
        }
        self.ask().await
    }

    /// Pings, unless an answer is awaited already: a worker that reads nothing for hours must not find a queue of pings.
    async fn ask(&mut self) -> Result<(), End> {
        if self.awaiting_pong {
            return Ok(());
        }
        self.awaiting_pong = true;
        let text = Outbound::Ping {
            service_id: &self.answering.service_id,
        }
        .to_text();
        self.send(text).await
    }

    fn known(&self, attempt: &Attempt) -> Option<Assignment> {
        self.slots.find(&attempt.execution_id).cloned()
    }

    async fn send_work(&mut self, dispatch: Dispatch, attached: &Attached) -> Result<(), End> {
        let revert = undoes(&dispatch);
        let context = revert.then(|| context_of(&dispatch));
        match compose(&dispatch, context.as_ref(), &self.answering.service_id) {
            Ok(text) => {
                attached.release(
                    self.slots
                        .give(&dispatch, revert, self.settings.overdue_margin),
                );
                self.send(text).await
            }
            Err(reason) => {
                tracing::warn!(service = %self.answering.service_id, activity = %dispatch.activity_id, reason, "an attempt cannot be sent");
                self.answering
                    .undeliverable(&Assignment::of(&dispatch, revert), reason)
                    .await;
                attached.release(1);
                Ok(())
            }
        }
    }

    /// How long until something is due. Bounded, so that a clock that is set back does not stop the pings.
    fn until_next_tick(&self) -> Duration {
        let due = [
            Some(self.next_app_ping),
            Some(self.next_ping),
            self.slots.next_tick(self.settings.doubt_limit),
            self.close_at,
        ];
        let now = self.answering.clock.now();
        let next = due
            .into_iter()
            .flatten()
            .min()
            .map_or(Duration::ZERO, |at| at.since(now));
        next.min(self.settings.ping_interval)
    }

    async fn tick(&mut self, attached: &Attached) -> Result<(), End> {
        let now = self.answering.clock.now();
        if self.close_at.is_some_and(|at| at <= now) {
            return Err(End::Close(
                TRY_AGAIN_LATER,
                "an answer could not be committed: send it again",
            ));
        }
        let limit = if self.slots.busy() {
            self.settings.busy_silence_limit
        } else {
            self.settings.silence_limit
        };
        if self.unanswered_pings >= UNANSWERED_PINGS_MIN && now.since(self.heard_at) > limit {
            return Err(End::Close(
                TRY_AGAIN_LATER,
                "nothing was heard for too long",
            ));
        }
        if self.next_ping <= now {
            self.next_ping = now.plus(self.settings.ping_interval);
            self.unanswered_pings += 1;
            self.send_message(WsMessage::Ping(bytes::Bytes::new()))
                .await?;
        }
        let Tick { ask, given_back } = self.slots.tick(now, self.settings.doubt_limit);
        attached.release(given_back);
        let due = self.next_app_ping <= now;
        if due {
            self.next_app_ping = now.plus(self.settings.app_ping_interval);
        }
        if ask || due { self.ask().await } else { Ok(()) }
    }

    async fn send(&mut self, text: String) -> Result<(), End> {
        self.unread += 1;
        self.send_message(WsMessage::Text(text.into())).await
    }

    async fn send_message(&mut self, message: WsMessage) -> Result<(), End> {
        match tokio::time::timeout(self.settings.write_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(service = %self.answering.service_id, %error, "a frame could not be written");
                Err(End::Gone)
            }
            Err(_) => {
                tracing::warn!(service = %self.answering.service_id, "a frame could not be written in time");
                Err(End::Gone)
            }
        }
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = WsMessage::Close(Some(CloseFrame {
            code,
            reason: reason.into(),
        }));
        let farewell = async {
            if self.socket.send(frame).await.is_ok() {
                // What still arrives is not read any more: its SDK sends it again.
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _ = tokio::time::timeout(CLOSE_WAIT, farewell).await;
    }
}

/// The library reports a message above the limit as an error of the connection.
fn end_of(error: &axum::Error) -> End {
    let text = error.to_string();
    if text.contains("too long") || text.contains("too large") {
        return End::Close(TOO_LARGE, "the message is larger than the engine takes");
    }
    End::Gone
}

/// The frame of an attempt, or why there can be none.
fn compose(
    dispatch: &Dispatch,
    context: Option<&Payload>,
    service_id: &str,
) -> Result<String, String> {
    let input = match json_text(dispatch.input.as_ref()) {
        Ok(text) => text,
        Err(BadPayload::Missing) => b"{}",
        Err(error) => return Err(format!("the input cannot be sent to a service: {error}")),
    };
    let raw = |what: &str, bytes| {
        serde_json::from_slice::<&RawValue>(bytes)
            .map_err(|e| format!("the {what} is not JSON: {e}"))
    };
    let revert = context.is_some();
    let event = dispatch.scheduled_event_id;
    let key = key::of_dispatch(dispatch, revert);
    let work = Work {
        id: dispatch
            .activity_id
            .strip_prefix(REVERT_ID_PREFIX)
            .filter(|_| revert)
            .unwrap_or(&dispatch.activity_id),
        input: raw("input", input)?,
        execution_id: &execution_id(dispatch.run_id, event, dispatch.attempt, revert),
        idempotency_key: &key,
        service_id,
    };
    let text = match context {
        None => Outbound::Task(work).to_text(),
        Some(context) => {
            let context = payload_text(context)
                .map_err(|e| format!("the compensation context is unreadable: {e}"))?;
            Outbound::Compensation {
                work,
                compensation_context: raw("compensation context", context)?,
            }
            .to_text()
        }
    };
    if text.len() > SDK_FRAME_BYTES_MAX {
        let bytes = text.len();
        return Err(format!(
            "the input makes a frame of {bytes} bytes: services take {SDK_FRAME_BYTES_MAX} at most"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use orchestrion_proto::temporal::api::common::v1::Payloads;

    use super::super::slots::tests::dispatch;
    use super::*;
    use crate::orchestration::submission::raw_json_payload;

    fn input(text: &str) -> Option<Payloads> {
        Some(Payloads {
            payloads: vec![raw_json_payload(text.as_bytes().to_vec())],
        })
    }

    #[test]
    fn a_task_is_composed_verbatim() {
        let dispatch = Dispatch {
            input: input(r#"{"z":1.0,"a":[1, 2]}"#),
            ..dispatch(5, 1)
        };
        let text = compose(&dispatch, None, "s_a").unwrap();
        assert!(
            text.contains(r#""id":"task5","input":{"z":1.0,"a":[1, 2]},"executionId":"e_"#),
            "{text}"
        );
        assert!(text.contains(r#""idempotencyKey":"o_1.5."#), "{text}");
    }

    #[test]
    fn a_revert_names_the_task_it_undoes() {
        let dispatch = Dispatch {
            activity_id: "revert:task1".into(),
            input: input("{\"originalTask\":1}"),
            ..dispatch(9, 2)
        };
        let context = raw_json_payload(br#"{"orchestrationId":"o_1","reason":"failed"}"#.to_vec());
        let text = compose(&dispatch, Some(&context), "s_a").unwrap();
        assert!(
            text.starts_with(
                r#"{"type":"compensation_request","id":"task1","input":{"originalTask":1}"#
            ),
            "{text}"
        );
        assert!(text.contains(r#""executionId":"e_comp_"#), "{text}");
        assert!(
            text.contains(r#""compensationContext":{"orchestrationId":"o_1","reason":"failed"}"#),
            "{text}"
        );
    }

    #[test]
    fn an_input_that_cannot_be_sent_says_why() {
        let no_json = Dispatch {
            input: input("{"),
            ..dispatch(5, 1)
        };
        assert!(
            compose(&no_json, None, "s_a")
                .unwrap_err()
                .contains("not JSON")
        );
        let huge = Dispatch {
            input: input(&format!("\"{}\"", "x".repeat(SDK_FRAME_BYTES_MAX))),
            ..dispatch(5, 1)
        };
        assert!(
            compose(&huge, None, "s_a")
                .unwrap_err()
                .contains("10487808 at most")
        );
        assert!(
            compose(
                &Dispatch {
                    input: None,
                    ..dispatch(5, 1)
                },
                None,
                "s_a"
            )
            .unwrap()
            .contains(r#""input":{}"#)
        );
    }
}
