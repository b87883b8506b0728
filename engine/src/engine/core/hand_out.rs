//! Tasks meet sessions: the start of each attempt joins the round that found the pair.

use std::time::Duration;

use orchestrion_history::ids::Timestamp;
use orchestrion_history::priority::inherited;
use orchestrion_history::request::{Request, StartActivityAttempt};
use orchestrion_history::state::Stage;
use orchestrion_history::store::QueueKind;

use crate::engine::builtin;
use crate::engine::handle::{CallError, Dispatch, Target};
use crate::engine::matching::{Polled, QueueKey, Taker};
use crate::engine::round::{Outgoing, Round, RunKey};

use super::Core;

impl Core {
    pub(super) fn match_queue(&mut self, round: &mut Round, queue: &QueueKey) {
        if queue.kind == QueueKind::Workflow {
            return self.match_workflow_queue(round, queue);
        }
        while let Some(matched) = self.matching.next_match(queue) {
            let waiting = &matched.waiting;
            if let Some(inner) = builtin::interrupted(self, waiting) {
                let attempt = waiting.key();
                self.matching.take_back(queue, matched.taker, &attempt);
                round.inner.push_back(inner);
                continue;
            }
            let attempt = waiting.key();
            let target = Target {
                namespace: waiting.namespace.clone(),
                workflow_id: waiting.workflow_id.clone(),
                run_id: Some(waiting.run_id),
            };
            let (identity, request_id, on_stream) = match &matched.taker {
                Taker::Session { id, identity } => {
                    (identity.as_str(), format!("{}-{}", id.0, self.rounds), true)
                }
                Taker::Poll(poll) => (
                    poll.worker.identity.as_str(),
                    poll.request_id.clone(),
                    false,
                ),
            };
            let request = Request::StartActivityAttempt(StartActivityAttempt {
                scheduled_event_id: waiting.event_id,
                attempt: waiting.attempt,
                identity: identity.to_owned(),
                request_id,
                on_stream,
            });
            let started = self.find(&target).and_then(|run| {
                self.step(round, &run, &request)?;
                Ok(run)
            });
            match started {
                Ok(run) => {
                    let dispatch = self.dispatch(&run, waiting.event_id);
                    match dispatch {
                        Some(dispatch) => round.outgoing.push(match matched.taker {
                            Taker::Session { id, .. } => Outgoing::Stream {
                                session: id,
                                attempt,
                                dispatch: Box::new(dispatch),
                            },
                            Taker::Poll(poll) => Outgoing::Polled {
                                reply: poll.reply,
                                polled: Polled::Activity(Box::new(dispatch)),
                            },
                        }),
                        None => self.matching.take_back(queue, matched.taker, &attempt),
                    }
                }
                Err(error @ (CallError::Rejected(_) | CallError::Quarantined { .. })) => {
                    tracing::debug!(%error, workflow_id = %target.workflow_id, "a queued attempt is over");
                    self.matching.take_back(queue, matched.taker, &attempt);
                }
                Err(error) => {
                    tracing::error!(%error, workflow_id = %target.workflow_id, "a queued attempt cannot be read");
                    self.matching.take_back(queue, matched.taker, &attempt);
                    self.read_later(round.now);
                }
            }
        }
    }

    pub(super) fn dispatch(&self, run: &RunKey, event_id: i64) -> Option<Dispatch> {
        let execution = self.executions.get(run)?;
        let activity = execution.state.activities.get(&event_id)?;
        let Stage::Started { at, .. } = activity.stage else {
            return None;
        };
        let span = |nanos: i64| Duration::from_nanos(u64::try_from(nanos).unwrap_or(0));
        Some(Dispatch {
            namespace: run.0.clone(),
            workflow_id: execution.workflow_id.clone(),
            run_id: run.1,
            workflow_type: execution.state.workflow_type.clone(),
            scheduled_event_id: event_id,
            attempt: activity.attempt,
            number: activity.number(),
            activity_id: activity.activity_id.clone(),
            activity_type: activity.activity_type.clone(),
            input: activity.input.get(),
            header: activity.header.get(),
            heartbeat_details: activity.heartbeat_details.get(),
            last_failure: activity.last_failure.get(),
            scheduled_at: Timestamp(activity.scheduled_at),
            attempt_scheduled_at: Timestamp(activity.attempt_scheduled_at),
            started_at: Timestamp(at),
            start_to_close: span(activity.start_to_close),
            schedule_to_close: span(activity.schedule_to_close),
            heartbeat: span(activity.heartbeat),
            retry: activity.retry.clone(),
            priority: inherited(execution.state.priority.get(), activity.priority.get()),
        })
    }
}
