//! What operators were told is held back, until somebody asks that it goes on.
//!
//! Invariant: a hold stands only while nothing that could end it is on its way.

use std::collections::BTreeMap;

use orchestrion_history::ids::{Namespace, RunId, Timestamp};

/// A run, or one activity of it by its id.
type What = (RunId, Option<String>);

/// How many had asked that something goes on; none if somebody was about to.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(Option<u64>);

#[derive(Debug, Default)]
struct OfExecution {
    /// How many ask right now that something goes on.
    releasing: u32,
    /// How many ever did.
    released: u64,
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
        of.released += 1;
        of.since.clear();
    }

    /// Nobody waits for that answer any more.
    pub fn release_ends(&mut self, namespace: &Namespace, workflow_id: &str) {
        let of = self.of(namespace, workflow_id);
        of.releasing = of.releasing.saturating_sub(1);
    }

    /// What to bring to [`Holds::granted`] by whoever is about to ask for a hold.
    pub fn ticket(&mut self, namespace: &Namespace, workflow_id: &str) -> Ticket {
        let of = self.of(namespace, workflow_id);
        Ticket((of.releasing == 0).then_some(of.released))
    }

    /// Somebody was told that a run, or an activity of it, is held back from now on. Who was told what first says nothing of what was
    /// done first: it counts only if nobody asked for the opposite meanwhile.
    pub fn granted(
        &mut self,
        namespace: &Namespace,
        workflow_id: &str,
        what: What,
        (ticket, now): (Ticket, Timestamp),
    ) {
        let of = self.of(namespace, workflow_id);
        if ticket.0 == Some(of.released) {
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
        let hold = |holds: &mut Holds, ticket, activity: Option<&str>, at| {
            let what = (run, activity.map(str::to_owned));
            holds.granted(&namespace, "w", what, (ticket, Timestamp(at)));
        };
        let since = |holds: &Holds, activity| holds.since(&namespace, "w", run, activity);
        let early = holds.ticket(&namespace, "w");
        hold(&mut holds, early, Some("a"), 3);
        assert_eq!(since(&holds, None), None);
        assert_eq!(since(&holds, Some("b")), None);
        assert_eq!(since(&holds, Some("a")), Some(Timestamp(3)));
        holds.release_begins(&namespace, "w");
        assert_eq!(since(&holds, Some("a")), None);
        // It may be undone again by what is on its way, or was done before that.
        let meanwhile = holds.ticket(&namespace, "w");
        hold(&mut holds, meanwhile, None, 4);
        holds.release_ends(&namespace, "w");
        hold(&mut holds, meanwhile, None, 4);
        hold(&mut holds, early, None, 4);
        assert_eq!(since(&holds, None), None);
        let late = holds.ticket(&namespace, "w");
        hold(&mut holds, late, None, 5);
        assert_eq!(since(&holds, None), Some(Timestamp(5)));
    }
}
