//! Matching: tasks meet workers.
//!
//! A queue holds the tasks that wait, in order, and who serves it: sessions, which take a task while they have a free slot, and polls, which
//! take one. Who of the sessions was given an attempt is remembered until the attempt is over, so that it can go back when the connection ends.
//!
//! Invariant: an attempt is either waiting in its queue, or with at most one session, or unknown here (not due, or over).

mod left;
mod polls;

use std::collections::{BTreeMap, VecDeque};

use foldhash::{HashMap, HashMapExt as _};
use orchestrion_history::ids::{Namespace, RunId, TaskQueueName, Timestamp, WorkflowId};
use orchestrion_history::store::QueueKind;
use tokio::sync::mpsc;

use self::left::Left;
use self::polls::Polls;
pub use self::polls::{Leaving, Poll, PollAnswer, Polled, Poller};
use super::handle::{Dispatch, SessionId};
use super::polling::QueryTask;

/// A queue: of one tenant, or `None` for the engine's own queues, which every tenant shares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueKey {
    pub(super) namespace: Option<Namespace>,
    pub(super) kind: QueueKind,
    pub(super) queue: TaskQueueName,
}

/// An attempt, by what it is rather than where it waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct AttemptKey {
    pub(super) namespace: Namespace,
    pub(super) run_id: RunId,
    pub(super) event_id: i64,
}

/// An attempt that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) namespace: Namespace,
    pub(super) workflow_id: WorkflowId,
    pub(super) run_id: RunId,
    pub(super) event_id: i64,
    pub(super) attempt: i32,
    pub(super) at: Timestamp,
    /// Whether its journal says that nobody was connected.
    pub(super) marked: bool,
    /// When its being without a worker has to be looked at; zero is at once.
    pub(super) look_at: Timestamp,
}

impl Waiting {
    pub(super) fn key(&self) -> AttemptKey {
        AttemptKey {
            namespace: self.namespace.clone(),
            run_id: self.run_id,
            event_id: self.event_id,
        }
    }
}

/// Oldest first; the rest makes it unique.
type Place = (Timestamp, Namespace, RunId, i64);

#[derive(Debug)]
struct Queue {
    waiting: BTreeMap<Place, Waiting>,
    /// Those with free slots take turns; each stands here once.
    sessions: VecDeque<SessionId>,
    absent_since: Option<Timestamp>,
    polls: Polls,
    /// Questions to workflow code, oldest first.
    queries: VecDeque<QueryTask>,
}

#[derive(Debug)]
struct Attached {
    queue: QueueKey,
    identity: String,
    free: u32,
    paused: bool,
    tasks: mpsc::UnboundedSender<Dispatch>,
    has: HashMap<AttemptKey, (WorkflowId, i32)>,
}

/// Who takes a task.
#[derive(Debug)]
pub(super) enum Taker {
    Session { id: SessionId, identity: String },
    Poll(Poll),
}

/// A task and who takes it.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) taker: Taker,
    pub(super) waiting: Waiting,
}

fn of(namespace: &Namespace, kind: QueueKind, queue: &TaskQueueName) -> QueueKey {
    QueueKey {
        namespace: Some(namespace.clone()),
        kind,
        queue: queue.clone(),
    }
}

impl Queue {
    /// A queue that was polled is kept for a while: when it was is worth knowing.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty()
            && self.sessions.is_empty()
            && self.queries.is_empty()
            && self.polls.is_empty()
            && self.polls.polled_at.is_none()
    }
}

/// Who polls a queue, and what waits in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Described {
    /// Identities, and when each polled last; `None` is attached by a stream.
    pub pollers: Vec<(String, Option<Timestamp>)>,
    /// Tasks that wait.
    pub backlog: usize,
    /// When the oldest of them was scheduled.
    pub oldest: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Matching {
    /// In order, so that the same calls always give the same journals.
    queues: BTreeMap<QueueKey, Queue>,
    sessions: HashMap<SessionId, Attached>,
    owners: HashMap<AttemptKey, SessionId>,
    next_session: u64,
    left: Left,
    /// What this round took from sessions.
    disowned: Vec<(AttemptKey, SessionId, (WorkflowId, i32))>,
}

impl Matching {
    fn queue(&mut self, key: &QueueKey, now: Timestamp) -> &mut Queue {
        if !self.queues.contains_key(key) {
            let queue = Queue {
                waiting: BTreeMap::new(),
                sessions: VecDeque::new(),
                absent_since: Some(now),
                polls: Polls::default(),
                queries: VecDeque::new(),
            };
            self.queues.insert(key.clone(), queue);
        }
        self.queues.get_mut(key).expect("inserted above")
    }

    pub(super) fn attach(
        &mut self,
        key: QueueKey,
        identity: String,
        window: u32,
        tasks: mpsc::UnboundedSender<Dispatch>,
        now: Timestamp,
    ) -> SessionId {
        self.next_session += 1;
        let id = SessionId(self.next_session);
        let queue = self.queue(&key, now);
        queue.sessions.push_back(id);
        queue.absent_since = None;
        self.sessions.insert(
            id,
            Attached {
                queue: key,
                identity,
                free: window,
                paused: false,
                tasks,
                has: HashMap::new(),
            },
        );
        id
    }

    /// Ends a session, and says what it had.
    pub(super) fn detach(
        &mut self,
        id: SessionId,
        now: Timestamp,
    ) -> Vec<(AttemptKey, WorkflowId, i32)> {
        let Some(session) = self.sessions.remove(&id) else {
            return Vec::new();
        };
        if let Some(queue) = self.queues.get_mut(&session.queue) {
            queue.sessions.retain(|other| *other != id);
            if queue.sessions.is_empty() {
                queue.absent_since = Some(now);
                queue
                    .waiting
                    .values_mut()
                    .for_each(|task| task.look_at = Timestamp::ZERO);
            }
        }
        self.drop_if_idle(&session.queue);
        let mut had: Vec<_> = session
            .has
            .into_iter()
            .map(|(key, (workflow_id, attempt))| (key, workflow_id, attempt))
            .collect();
        had.sort_by_key(|(key, ..)| (key.run_id, key.event_id));
        for (key, ..) in &had {
            self.owners.remove(key);
        }
        had
    }

    /// The session is given nothing more.
    pub(super) fn pause(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.paused = true;
        }
    }

    pub(super) fn release(&mut self, id: SessionId) -> Option<QueueKey> {
        let session = self.sessions.get_mut(&id)?;
        session.free += 1;
        Some(session.queue.clone())
    }

    /// Puts an attempt into its queue. It may be there already, or with a session that lost it.
    pub(super) fn add(&mut self, key: &QueueKey, waiting: Waiting, now: Timestamp) {
        self.disown(&waiting.key());
        let place = (
            waiting.at,
            waiting.namespace.clone(),
            waiting.run_id,
            waiting.event_id,
        );
        self.queue(key, now).waiting.insert(place, waiting);
    }

    /// Takes an attempt out: it is over, or not due any more.
    pub(super) fn remove(&mut self, key: &QueueKey, attempt: &AttemptKey, at: Timestamp) {
        self.disown(attempt);
        if let Some(queue) = self.queues.get_mut(key) {
            queue.waiting.remove(&(
                at,
                attempt.namespace.clone(),
                attempt.run_id,
                attempt.event_id,
            ));
        }
        self.drop_if_idle(key);
    }

    fn disown(&mut self, attempt: &AttemptKey) {
        let Some(owner) = self.owners.remove(attempt) else {
            return;
        };
        if let Some(had) = self
            .sessions
            .get_mut(&owner)
            .and_then(|session| session.has.remove(attempt))
        {
            self.disowned.push((attempt.clone(), owner, had));
        }
    }

    /// The round failed: who had an attempt before it has it still, and may answer it.
    pub(super) fn restore(&mut self) {
        for (attempt, owner, had) in std::mem::take(&mut self.disowned) {
            if let Some(session) = self.sessions.get_mut(&owner) {
                session.has.insert(attempt.clone(), had);
                self.owners.insert(attempt, owner);
            }
        }
    }

    /// The round is durable.
    pub(super) fn settled(&mut self) {
        self.disowned.clear();
    }

    fn drop_if_idle(&mut self, key: &QueueKey) {
        if self.queues.get(key).is_some_and(Queue::is_idle) {
            self.queues.remove(key);
        }
    }

    /// The next pair of a queue, if there is one: the oldest task, and the session whose turn it is.
    pub(super) fn next_match(&mut self, key: &QueueKey) -> Option<Match> {
        let queue = self.queues.get_mut(key)?;
        if queue.waiting.is_empty() {
            return None;
        }
        if queue.sessions.is_empty() {
            let poll = queue.polls.take()?;
            let (_, waiting) = queue.waiting.pop_first()?;
            return Some(Match {
                taker: Taker::Poll(poll),
                waiting,
            });
        }
        for _ in 0..queue.sessions.len() {
            let id = queue.sessions.pop_front()?;
            queue.sessions.push_back(id);
            let Some(session) = self.sessions.get_mut(&id) else {
                continue;
            };
            if session.free == 0 || session.paused || session.tasks.is_closed() {
                continue;
            }
            let (_, waiting) = queue.waiting.pop_first()?;
            session.free -= 1;
            session.has.insert(
                waiting.key(),
                (waiting.workflow_id.clone(), waiting.attempt),
            );
            self.owners.insert(waiting.key(), id);
            return Some(Match {
                taker: Taker::Session {
                    id,
                    identity: session.identity.clone(),
                },
                waiting,
            });
        }
        let poll = queue.polls.take()?;
        let (_, waiting) = queue.waiting.pop_first()?;
        Some(Match {
            taker: Taker::Poll(poll),
            waiting,
        })
    }

    /// The start of a matched task was refused (it is over): its taker waits on.
    pub(super) fn take_back(&mut self, key: &QueueKey, taker: Taker, attempt: &AttemptKey) {
        match taker {
            Taker::Session { id, .. } => self.unmatch(id, attempt),
            Taker::Poll(poll) => {
                if let Some(queue) = self.queues.get_mut(key) {
                    queue.polls.put_back(poll);
                }
            }
        }
    }

    /// A worker asks for one task. One that has left is answered at once, with nothing.
    pub(super) fn poll(&mut self, key: &QueueKey, poll: Poll, now: Timestamp) {
        let namespace = key.namespace.as_ref();
        if namespace.is_some_and(|namespace| self.left.has(namespace, &poll.worker, now)) {
            return;
        }
        self.queue(key, now).polls.add(poll, now);
    }

    /// A worker leaves: what it waits for ends, and so does what it asks for from now on. Answers what waited for it alone.
    pub(super) fn leave(
        &mut self,
        namespace: &Namespace,
        leaving: &Leaving,
        now: Timestamp,
    ) -> (Vec<(QueueKey, Waiting)>, Vec<QueryTask>) {
        self.left.add(namespace, &leaving.worker, now);
        let shared = leaving.kinds.iter().zip(leaving.queue.iter().cycle());
        for (kind, queue) in shared {
            if let Some(queue) = self.queues.get_mut(&of(namespace, *kind, queue)) {
                queue.polls.end(&leaving.worker);
            }
        }
        let mut alone = (Vec::new(), Vec::new());
        let Some(sticky) = &leaving.sticky else {
            return alone;
        };
        let key = of(namespace, QueueKind::Workflow, sticky);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.polls.end(&leaving.worker);
            if queue.polls.desert() {
                let waiting = std::mem::take(&mut queue.waiting);
                let waiting = waiting.into_values().map(|task| (key.clone(), task));
                alone.0.extend(waiting);
                alone.1.extend(queue.queries.drain(..));
            }
        }
        self.drop_if_idle(&key);
        alone
    }

    /// Whether somebody polls this queue, or did lately.
    pub(super) fn is_attended(&self, key: &QueueKey, now: Timestamp) -> bool {
        self.queues
            .get(key)
            .is_some_and(|queue| queue.polls.is_attended(now))
    }

    /// Puts a question into a queue.
    pub(super) fn add_query(&mut self, key: &QueueKey, query: QueryTask, now: Timestamp) {
        self.queue(key, now).queries.push_back(query);
    }

    /// Takes a question out of a queue.
    pub(super) fn remove_query(&mut self, key: &QueueKey, id: u64) -> Option<QueryTask> {
        let queue = self.queues.get_mut(key)?;
        let at = queue.queries.iter().position(|query| query.id == id)?;
        queue.queries.remove(at)
    }

    /// The next question of a queue and the worker that is asked.
    pub(super) fn next_query(&mut self, key: &QueueKey) -> Option<(QueryTask, Poll)> {
        let queue = self.queues.get_mut(key)?;
        if queue.queries.is_empty() {
            return None;
        }
        let poll = queue.polls.take()?;
        Some((queue.queries.pop_front()?, poll))
    }

    /// Who polls a queue, how many tasks wait in it, and since when the oldest does.
    pub(super) fn describe(&self, key: &QueueKey) -> Described {
        let Some(queue) = self.queues.get(key) else {
            return Described::default();
        };
        let polls = queue.polls.pollers.iter();
        let sessions = queue.sessions.iter().filter_map(|id| self.sessions.get(id));
        Described {
            pollers: polls
                .map(|(identity, at)| (identity.to_string(), Some(*at)))
                .chain(sessions.map(|session| (session.identity.clone(), None)))
                .collect(),
            backlog: queue.waiting.len(),
            oldest: queue.waiting.keys().next().map(|(at, ..)| *at),
        }
    }

    /// Forgets queues in which nothing waits and that nobody has polled for long.
    pub(super) fn drop_silent(&mut self, now: Timestamp) {
        self.left.forget_old(now);
        const SILENT: std::time::Duration = std::time::Duration::from_secs(300);
        self.queues.retain(|_, queue| {
            !(queue.waiting.is_empty()
                && queue.sessions.is_empty()
                && queue.queries.is_empty()
                && !queue.polls.any()
                && queue
                    .polls
                    .polled_at
                    .is_none_or(|at| now.since(at) >= SILENT))
        });
    }

    /// The start of a matched attempt was refused (it is over): the session has its slot back.
    pub(super) fn unmatch(&mut self, session: SessionId, attempt: &AttemptKey) {
        self.owners.remove(attempt);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.has.remove(attempt);
            session.free += 1;
        }
    }

    /// Hands a committed start to its session. `false`: the session is gone, the attempt must go back.
    pub(super) fn send(&mut self, session: SessionId, dispatch: Dispatch) -> bool {
        self.sessions
            .get(&session)
            .is_some_and(|session| session.tasks.send(dispatch).is_ok())
    }

    /// How many workers serve a queue, by sessions and by polls, and since when nobody does.
    pub(super) fn presence(
        &self,
        key: &QueueKey,
        now: Timestamp,
    ) -> Option<(usize, Option<Timestamp>)> {
        let queue = self.queues.get(key)?;
        let pollers = queue.polls.attending(now);
        let absent_since = queue.absent_since.filter(|_| pollers == 0);
        let since = queue.polls.polled_at.max(absent_since);
        Some((queue.sessions.len() + pollers, absent_since.and(since)))
    }

    /// Queues in which tasks wait and that nobody serves.
    pub(super) fn absent(
        &self,
        now: Timestamp,
    ) -> impl Iterator<Item = (&QueueKey, Timestamp, impl Iterator<Item = &Waiting>)> {
        self.queues.iter().filter_map(move |(key, queue)| {
            let unattended = key.kind == QueueKind::Activity
                && !queue.waiting.is_empty()
                && !queue.polls.is_attended(now);
            let since = queue.absent_since.filter(|_| unattended)?;
            let since = queue.polls.polled_at.map_or(since, |at| at.max(since));
            Some((key, since, queue.waiting.values()))
        })
    }

    pub(super) fn has_absent(&self) -> bool {
        self.queues.iter().any(|(key, queue)| {
            key.kind == QueueKind::Activity
                && queue.absent_since.is_some()
                && !queue.waiting.is_empty()
        })
    }

    /// A task without a worker was looked at; the next look is due at `look_at`.
    pub(super) fn looked(
        &mut self,
        key: &QueueKey,
        task: &Waiting,
        marked: bool,
        look_at: Timestamp,
    ) {
        let place = (task.at, task.namespace.clone(), task.run_id, task.event_id);
        if let Some(task) = self
            .queues
            .get_mut(key)
            .and_then(|queue| queue.waiting.get_mut(&place))
        {
            task.marked |= marked;
            task.look_at = look_at;
        }
    }

    /// Forgets every waiting task, for a rebuild from the index; sessions and what they have stay.
    pub(super) fn clear_waiting(&mut self) {
        for queue in self.queues.values_mut() {
            queue.waiting.clear();
        }
    }

    /// Whether a session has this attempt.
    pub(super) fn is_owned(&self, attempt: &AttemptKey) -> bool {
        self.owners.contains_key(attempt)
    }

    /// Queues with waiting tasks and sessions, for a round that must try them all.
    pub(super) fn busy_queues(&self) -> Vec<QueueKey> {
        let busy = self.queues.iter().filter(|(_, queue)| {
            let served = !queue.sessions.is_empty() || queue.polls.any();
            served && (!queue.waiting.is_empty() || !queue.queries.is_empty())
        });
        busy.map(|(key, _)| key.clone()).collect()
    }

    /// Tasks waiting over all queues, and sessions attached.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (
            self.queues.values().map(|queue| queue.waiting.len()).sum(),
            self.sessions.len(),
        )
    }
}
