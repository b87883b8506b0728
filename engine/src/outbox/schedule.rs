//! What is tried when: entries by due time, with bounds on tries at once.
//!
//! ```text
//!  add --> waiting --due--> taken --finished--> gone, or waiting again
//!             '---due, but its host has enough--> parked --a try of that host finished--> taken
//! ```
//!
//! Invariant: a slow host holds up its own entries only; no entry is tried twice at once.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use orchestrion_history::ids::Timestamp;
use orchestrion_history::store::Key;

/// Keys kept in memory. More wait in the store until there is room.
pub(super) const SCHEDULED_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Schedule {
    waiting: BTreeMap<(Timestamp, u64), (Key, String)>,
    parked: HashMap<String, VecDeque<Key>>,
    in_flight: HashMap<String, usize>,
    total: usize,
    known: HashSet<Key>,
    added: u64,
    per_host_max: usize,
    total_max: usize,
    capacity: usize,
    overflowed: bool,
}

impl Schedule {
    pub(super) fn new(per_host_max: usize, total_max: usize, capacity: usize) -> Self {
        Self {
            waiting: BTreeMap::new(),
            parked: HashMap::new(),
            in_flight: HashMap::new(),
            total: 0,
            known: HashSet::new(),
            added: 0,
            per_host_max,
            total_max,
            capacity,
            overflowed: false,
        }
    }

    /// An entry is to be tried at `due`. One that is known already, or for which there is no room, is left out.
    pub(super) fn add(&mut self, key: Key, host: String, due: Timestamp) {
        if self.known.contains(&key) {
            return;
        }
        if self.known.len() >= self.capacity {
            self.overflowed = true;
            return;
        }
        self.known.insert(key.clone());
        self.wait(key, host, due);
    }

    fn wait(&mut self, key: Key, host: String, due: Timestamp) {
        self.added += 1;
        self.waiting.insert((due, self.added), (key, host));
    }

    /// The next entry that may be tried now.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<(Key, String)> {
        while self.total < self.total_max {
            let first = self
                .waiting
                .first_entry()
                .filter(|first| first.key().0 <= now)?;
            let (key, host) = first.remove();
            let busy = self.in_flight.entry(host.clone()).or_default();
            if *busy >= self.per_host_max {
                self.parked.entry(host).or_default().push_back(key);
                continue;
            }
            *busy += 1;
            self.total += 1;
            return Some((key, host));
        }
        None
    }

    /// A try ended; `again` says when the next one is due, if there is to be one.
    pub(super) fn finished(&mut self, key: Key, host: String, again: Option<Timestamp>) {
        self.total = self.total.saturating_sub(1);
        if let Some(busy) = self.in_flight.get_mut(&host) {
            *busy = busy.saturating_sub(1);
            if *busy == 0 {
                self.in_flight.remove(&host);
            }
        }
        if let Some(parked) = self.parked.get_mut(&host) {
            let next = parked.pop_front();
            if parked.is_empty() {
                self.parked.remove(&host);
            }
            if let Some(next) = next {
                self.wait(next, host.clone(), Timestamp::ZERO);
            }
        }
        match again {
            Some(due) => self.wait(key, host, due),
            None => {
                self.known.remove(&key);
            }
        }
    }

    /// When something is due next; `None` while nothing waits or no more tries are allowed at once.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let first = self.waiting.first_key_value().map(|((due, _), _)| *due);
        first.filter(|_| self.total < self.total_max)
    }

    /// Whether entries were left out and there is room for them now. Asking resets it.
    pub(super) fn wants_more(&mut self) -> bool {
        let room = self.overflowed && self.known.len() <= self.capacity / 2;
        if room {
            self.overflowed = false;
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use orchestrion_history::ids::{Namespace, ShardId};

    use super::*;

    fn key(id: &str) -> Key {
        Key::Outbox {
            shard: ShardId::REGISTRY,
            namespace: Namespace::parse("p").unwrap(),
            event_id: id.to_owned(),
        }
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn taken(schedule: &mut Schedule, now: i64) -> Vec<Key> {
        std::iter::from_fn(|| schedule.take(at(now)).map(|(key, _)| key)).collect()
    }

    #[test]
    fn entries_come_when_they_are_due_earliest_first() {
        let mut schedule = Schedule::new(9, 9, 9);
        schedule.add(key("b"), "h".into(), at(20));
        schedule.add(key("a"), "h".into(), at(10));
        schedule.add(key("a"), "h".into(), at(1));
        assert_eq!(schedule.next_due(), Some(at(10)));
        assert_eq!(taken(&mut schedule, 9), []);
        assert_eq!(taken(&mut schedule, 20), [key("a"), key("b")]);
    }

    #[test]
    fn a_slow_host_holds_up_its_own_only() {
        let mut schedule = Schedule::new(1, 9, 9);
        for id in ["s1", "s2", "s3"] {
            schedule.add(key(id), "slow".into(), at(1));
        }
        schedule.add(key("q"), "quick".into(), at(2));
        assert_eq!(taken(&mut schedule, 5), [key("s1"), key("q")]);
        schedule.finished(key("s1"), "slow".into(), None);
        assert_eq!(taken(&mut schedule, 5), [key("s2")]);
        schedule.finished(key("s2"), "slow".into(), Some(at(100)));
        assert_eq!(taken(&mut schedule, 5), [key("s3")]);
        schedule.finished(key("s3"), "slow".into(), None);
        assert_eq!(taken(&mut schedule, 99), []);
        assert_eq!(taken(&mut schedule, 100), [key("s2")]);
    }

    #[test]
    fn all_hosts_together_are_bounded_too() {
        let mut schedule = Schedule::new(9, 2, 9);
        for id in ["a", "b", "c"] {
            schedule.add(key(id), id.into(), at(1));
        }
        assert_eq!(taken(&mut schedule, 1), [key("a"), key("b")]);
        assert_eq!(schedule.next_due(), None);
        schedule.finished(key("a"), "a".into(), None);
        assert_eq!(taken(&mut schedule, 1), [key("c")]);
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again() {
        let mut schedule = Schedule::new(9, 9, 2);
        for id in ["a", "b", "c"] {
            schedule.add(key(id), "h".into(), at(1));
        }
        assert_eq!(taken(&mut schedule, 1), [key("a"), key("b")]);
        assert!(!schedule.wants_more());
        schedule.finished(key("a"), "h".into(), None);
        assert!(schedule.wants_more());
        assert!(!schedule.wants_more());
        schedule.add(key("c"), "h".into(), at(1));
        assert_eq!(taken(&mut schedule, 1), [key("c")]);
    }
}
