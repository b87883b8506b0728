//! What operators were told is held back, until somebody asks that it goes on.
//!
//! Invariant: a hold stands only while nothing that could end it is on its way.

use std::collections::BTreeMap;

use orchestrion_history::ids::{Namespace, RunId, Timestamp};

/// A run, or one activity of it by its id.
type What = (RunId, Option<String>);

#[derive(Debug, Default)]
struct OfExecution {
    /// How many ask right now that something goes on.
    releasing: u32,
    since: BTreeMap<What, Timestamp>,
}

/// By tenant and workflow id: who asks that something goes on may name no run.
#[derive(Debug, Default)]
pub struct Holds(BTreeMap<(Namespace, String), OfExecution>);

impl Holds {
    fn of(&mut self, namespace: &Namespace, workflow_id: &str) -> &mut OfExecution {
        let place = (namespace.clone(), workflow_id.to_owned());
        self.0.entry(place).or_default()
    }

    /// Somebody is about to ask that something goes on.
    pub fn release_begins(&mut self, namespace: &Namespace, workflow_id: &str) {
        let of = self.of(namespace, workflow_id);
        of.releasing += 1;
        of.since.clear();
    }

    /// Nobody waits for that answer any more.
    pub fn release_ends(&mut self, namespace: &Namespace, workflow_id: &str) {
        let of = self.of(namespace, workflow_id);
        of.releasing = of.releasing.saturating_sub(1);
    }

    /// Somebody was told that a run, or an activity of it, is held back from now on.
    pub fn granted(
        &mut self,
        namespace: &Namespace,
        workflow_id: &str,
        what: What,
        now: Timestamp,
    ) {
        let of = self.of(namespace, workflow_id);
        if of.releasing == 0 {
            of.since.entry(what).or_insert(now);
        }
    }

    /// Since when this is held back.
    pub fn since(
        &self,
        namespace: &Namespace,
        workflow_id: &str,
        run_id: RunId,
        activity: Option<&str>,
    ) -> Option<Timestamp> {
        let of = self.0.get(&(namespace.clone(), workflow_id.to_owned()))?;
        let what = (run_id, activity.map(str::to_owned));
        of.since.get(&what).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_ends_with_the_first_who_asks_that_something_goes_on() {
        let namespace = Namespace::parse("north").unwrap();
        let run = RunId([7; 16]);
        let mut holds = Holds::default();
        holds.granted(&namespace, "w", (run, Some("a".to_owned())), Timestamp(3));
        assert_eq!(holds.since(&namespace, "w", run, None), None);
        assert_eq!(holds.since(&namespace, "w", run, Some("b")), None);
        let since = holds.since(&namespace, "w", run, Some("a"));
        assert_eq!(since, Some(Timestamp(3)));
        holds.release_begins(&namespace, "w");
        assert_eq!(holds.since(&namespace, "w", run, Some("a")), None);
        // It may be undone again by what is on its way.
        holds.granted(&namespace, "w", (run, None), Timestamp(4));
        assert_eq!(holds.since(&namespace, "w", run, None), None);
        holds.release_ends(&namespace, "w");
        holds.granted(&namespace, "w", (run, None), Timestamp(5));
        assert_eq!(holds.since(&namespace, "w", run, None), Some(Timestamp(5)));
    }
}
