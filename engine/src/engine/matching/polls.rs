//! Polls: a worker that asks for one task and waits for it.
//!
//! ```text
//!  waiting --matched--> the task leaves with the round's commit
//!          --its caller hangs up--> forgotten when the next comes, or when it would be given a task
//! ```
//!
//! Invariant: a poll is answered once. Whoever stops waiting after that gives the task back ([`PollAnswer`] sees to it).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use orchestrion_history::ids::{TaskQueueName, Timestamp};
use orchestrion_history::store::QueueKind;
use tokio::sync::oneshot;

use crate::engine::call::Call;
use crate::engine::handle::{Dispatch, Handle};
use crate::engine::polling::{QueryTask, WorkflowTaskDispatch};

/// A queue nobody has polled for so long counts as unattended: workers poll again at once when they are free.
pub(in crate::engine) const POLLER_SILENCE: Duration = Duration::from_secs(10);

/// What a poll brings.
#[derive(Debug)]
pub enum Polled {
    /// A turn of workflow code.
    WorkflowTask(Box<WorkflowTaskDispatch>),
    /// A question to workflow code.
    Query(Box<QueryTask>),
    /// An attempt of an activity.
    Activity(Box<Dispatch>),
}

/// Who polls.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Poller {
    /// Shown in history. Workers of one process may share it.
    pub identity: String,
    /// Of this worker alone; empty where its SDK gives none.
    pub instance_key: String,
}

impl From<String> for Poller {
    /// One of which nothing but its identity is known.
    fn from(identity: String) -> Self {
        Self {
            identity,
            instance_key: String::new(),
        }
    }
}

impl Poller {
    /// Whether both are the same worker, as far as they say.
    fn is(&self, other: &Self) -> bool {
        match (self.instance_key.as_str(), other.instance_key.as_str()) {
            ("", _) | (_, "") => self.identity == other.identity,
            (mine, theirs) => mine == theirs,
        }
    }
}

/// A worker that leaves, and where it polled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// Who.
    pub worker: Poller,
    /// The queue that it serves with others.
    pub queue: Option<TaskQueueName>,
    /// Which tasks of it.
    pub kinds: Vec<QueueKind>,
    /// Its own queue, where the runs it has cached wait for it.
    pub sticky: Option<TaskQueueName>,
}

/// A worker that waits for one task.
#[derive(Debug)]
pub struct Poll {
    /// Who.
    pub worker: Poller,
    /// This poll's own id.
    pub request_id: String,
    /// Takes the answer.
    pub reply: oneshot::Sender<Polled>,
}

/// The other end of a poll: what arrives after its owner has gone goes back to its queue.
pub struct PollAnswer {
    pub(in crate::engine) answer: oneshot::Receiver<Polled>,
    pub(in crate::engine) handle: Handle,
}

impl PollAnswer {
    /// Waits for the task. Dropping the future loses nothing; `None`: the engine gave up on the poll, ask again.
    pub async fn task(&mut self) -> Option<Polled> {
        (&mut self.answer).await.ok()
    }

    /// The task, if it has arrived by now; later ones go back.
    pub fn last_chance(&mut self) -> Option<Polled> {
        self.answer.close();
        self.answer.try_recv().ok()
    }
}

impl Drop for PollAnswer {
    fn drop(&mut self) {
        if let Some(polled) = self.last_chance() {
            self.handle.give_back(polled);
        }
    }
}

/// The polls of one queue, oldest first.
#[derive(Debug, Default)]
pub(super) struct Polls {
    waiting: VecDeque<Poll>,
    /// When the last one came.
    pub(super) polled_at: Option<Timestamp>,
    /// Who came lately, and when.
    pub(super) pollers: VecDeque<(Arc<str>, Timestamp)>,
}

/// Pollers remembered of a queue.
const POLLERS_MAX: usize = 64;

impl Polls {
    pub(super) fn add(&mut self, poll: Poll, now: Timestamp) {
        self.waiting.retain(|other| !other.reply.is_closed());
        self.polled_at = Some(now);
        match self
            .pollers
            .iter_mut()
            .find(|(identity, _)| **identity == *poll.worker.identity)
        {
            Some((_, at)) => *at = now,
            None => {
                if self.pollers.len() == POLLERS_MAX {
                    self.pollers.pop_front();
                }
                self.pollers
                    .push_back((poll.worker.identity.as_str().into(), now));
            }
        }
        self.waiting.push_back(poll);
    }

    /// The oldest that still waits.
    pub(super) fn take(&mut self) -> Option<Poll> {
        while let Some(poll) = self.waiting.pop_front() {
            if !poll.reply.is_closed() {
                return Some(poll);
            }
        }
        None
    }

    /// Puts back a poll that was taken for nothing.
    pub(super) fn put_back(&mut self, poll: Poll) {
        self.waiting.push_front(poll);
    }

    pub(super) fn any(&self) -> bool {
        self.waiting.iter().any(|poll| !poll.reply.is_closed())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether somebody waits here, or did lately.
    pub(super) fn is_attended(&self, now: Timestamp) -> bool {
        self.any()
            || self
                .polled_at
                .is_some_and(|at| now.since(at) < POLLER_SILENCE)
    }

    /// How many workers wait here, or did lately.
    pub(super) fn attending(&self, now: Timestamp) -> usize {
        let lately = |at: &Timestamp| now.since(*at) < POLLER_SILENCE;
        let waits = |identity: &str| {
            let mut open = self.waiting.iter().filter(|poll| !poll.reply.is_closed());
            open.any(|poll| poll.worker.identity == identity)
        };
        let pollers = self.pollers.iter();
        pollers
            .filter(|(identity, at)| lately(at) || waits(identity))
            .count()
    }

    /// Ends the polls of one worker: it is shutting down.
    pub(super) fn end(&mut self, worker: &Poller) {
        self.waiting.retain(|poll| !poll.worker.is(worker));
    }

    /// The one worker that polled here has left. Whether it has: then nobody counts as having polled lately.
    pub(super) fn desert(&mut self) -> bool {
        if self.any() {
            return false;
        }
        self.polled_at = None;
        self.pollers.clear();
        true
    }
}

impl Handle {
    /// Returns what was given to a poll whose caller is gone.
    pub fn give_back(&self, polled: Polled) {
        // Only a stopping engine does not take it, and then its next start finds the task in its queue.
        let _ = self.inbox.send(Call::GiveBack(polled.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(identity: &str, key: &str) -> Poller {
        Poller {
            identity: identity.to_owned(),
            instance_key: key.to_owned(),
        }
    }

    fn polls(workers: &[Poller]) -> (Polls, Vec<oneshot::Receiver<Polled>>) {
        let mut polls = Polls::default();
        let answers = workers.iter().map(|worker| {
            let (reply, answer) = oneshot::channel();
            let poll = Poll {
                worker: worker.clone(),
                request_id: String::new(),
                reply,
            };
            polls.add(poll, Timestamp(1));
            answer
        });
        let answers = answers.collect();
        (polls, answers)
    }

    /// Who is still there after one has left.
    fn stay(workers: &[Poller], leaves: &Poller) -> Vec<Poller> {
        let (mut polls, _answers) = polls(workers);
        polls.end(leaves);
        std::iter::from_fn(|| polls.take())
            .map(|poll| poll.worker)
            .collect()
    }

    #[test]
    fn a_worker_with_a_key_leaves_alone() {
        let (a, b) = (worker("me", "a"), worker("me", "b"));
        let all = [a.clone(), b.clone(), a.clone()];
        assert_eq!(stay(&all, &a), [b]);
    }

    #[test]
    fn where_a_key_is_missing_the_identity_says_who_leaves() {
        let (old, other) = (worker("me", ""), worker("you", ""));
        let all = [old.clone(), other.clone()];
        assert_eq!(stay(&all, &worker("me", "a")), [other]);
        let all = [worker("me", "a"), worker("you", "b")];
        assert_eq!(stay(&all, &old), [worker("you", "b")]);
    }

    #[test]
    fn a_queue_is_deserted_once_nobody_waits_there() {
        let now = Timestamp(2);
        let (a, b) = (worker("me", "a"), worker("me", "b"));
        let (mut polls, _answers) = polls(&[a.clone(), b.clone()]);
        polls.end(&a);
        assert!(!polls.desert());
        assert!(polls.is_attended(now) && polls.polled_at.is_some());
        polls.end(&b);
        assert!(polls.desert());
        assert!(!polls.is_attended(now) && polls.attending(now) == 0);
    }
}
