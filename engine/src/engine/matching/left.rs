//! Workers that have shut down, remembered while a poll of theirs may still be on its way.
//!
//! A worker that is shutting down waits for its polls to be answered. One that it sent before it said so, and that arrives after, would
//! otherwise hold the worker for as long as a poll may wait, or be given a task that the worker came to return.
//!
//! Invariant: a namespace holds a bounded number of them, and drives out none of another.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use orchestrion_history::ids::{Namespace, Timestamp};

use super::polls::Poller;

/// Longer than a poll lives, with the first retries of its caller.
const KEPT: Duration = Duration::from_secs(300);
/// Workers of a namespace; the oldest leaves first.
const WORKERS_MAX: usize = 1_024;

/// Instance keys are of one worker for ever, so nobody new is mistaken for one of these.
#[derive(Debug, Default)]
pub(super) struct Left(HashMap<Namespace, Keys>);

/// When each worker of a namespace left; every poll looks itself up here.
#[derive(Debug, Default)]
struct Keys {
    left_at: HashMap<Arc<str>, Timestamp>,
    oldest_first: VecDeque<Arc<str>>,
}

impl Keys {
    fn forget_oldest(&mut self) {
        if let Some(key) = self.oldest_first.pop_front() {
            self.left_at.remove(&key);
        }
    }
}

impl Left {
    /// Remembers a worker. One without a key of its own cannot be told from the next one of its process.
    pub(super) fn add(&mut self, namespace: &Namespace, worker: &Poller, now: Timestamp) {
        if worker.instance_key.is_empty() {
            return;
        }
        let keys = self.0.entry(namespace.clone()).or_default();
        let key: Arc<str> = worker.instance_key.as_str().into();
        if keys.left_at.contains_key(&key) {
            return;
        }
        if keys.oldest_first.len() == WORKERS_MAX {
            keys.forget_oldest();
        }
        keys.left_at.insert(key.clone(), now);
        keys.oldest_first.push_back(key);
    }

    pub(super) fn has(&self, namespace: &Namespace, worker: &Poller, now: Timestamp) -> bool {
        let left_at =
            (self.0.get(namespace)).and_then(|keys| keys.left_at.get(worker.instance_key.as_str()));
        left_at.is_some_and(|at| now.since(*at) < KEPT)
    }

    pub(super) fn forget_old(&mut self, now: Timestamp) {
        self.0.retain(|_, keys| {
            while let Some(oldest) = keys.oldest_first.front()
                && now.since(keys.left_at[oldest]) >= KEPT
            {
                keys.forget_oldest();
            }
            !keys.oldest_first.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(key: &str) -> Poller {
        Poller {
            identity: "me@here".to_owned(),
            instance_key: key.to_owned(),
        }
    }

    #[test]
    fn a_worker_is_remembered_for_a_while_in_its_namespace_only() {
        let [ours, theirs] = ["ours", "theirs"].map(|name| Namespace::parse(name).unwrap());
        let mut left = Left::default();
        let begun = Timestamp(1);
        left.add(&ours, &worker("a"), begun);
        assert!(left.has(&ours, &worker("a"), begun));
        assert!(!left.has(&ours, &worker("b"), begun));
        assert!(!left.has(&theirs, &worker("a"), begun));
        let late = begun.plus(KEPT);
        assert!(!left.has(&ours, &worker("a"), late));
        left.forget_old(late);
        assert!(left.0.is_empty());
    }

    #[test]
    fn who_has_no_key_is_not_remembered() {
        let ours = Namespace::parse("ours").unwrap();
        let mut left = Left::default();
        left.add(&ours, &worker(""), Timestamp(1));
        assert!(left.0.is_empty() && !left.has(&ours, &worker(""), Timestamp(1)));
    }

    #[test]
    fn a_namespace_holds_so_many_and_drives_out_none_of_another() {
        let [ours, theirs] = ["ours", "theirs"].map(|name| Namespace::parse(name).unwrap());
        let mut left = Left::default();
        let now = Timestamp(1);
        left.add(&theirs, &worker("0"), now);
        for key in 0..=WORKERS_MAX {
            left.add(&ours, &worker(&key.to_string()), now);
            left.add(&ours, &worker(&key.to_string()), now);
        }
        assert_eq!(left.0[&ours].oldest_first.len(), WORKERS_MAX);
        assert_eq!(left.0[&ours].left_at.len(), WORKERS_MAX);
        assert!(!left.has(&ours, &worker("0"), now) && left.has(&ours, &worker("1"), now));
        assert!(left.has(&theirs, &worker("0"), now));
    }
}
