//! What one socket was given and has not answered.
//!
//! ```text
//!  free --give--> taken --answer--> free
//!                   '---its time passed--> doubted --answer, a sign that the worker reads, or patience ends--> free
//! ```
//!
//! A worker on orra's Python SDK reads nothing while its handler runs. So a slot whose attempt timed out is not free at once: the
//! next attempt would wait behind the handler and time out as well. It is free when the worker shows that it reads again, or has
//! shown nothing for so long that its handler hangs. A worker that reads while it works is not doubted: its patience is zero.
//!
//! Invariant: a slot is given back once.

use std::collections::VecDeque;
use std::time::Duration;

use orchestrion_history::ids::Timestamp;

use crate::api::work::Assignment;
use crate::engine::handle::Dispatch;
use crate::registry::ids::execution_id;

/// Attempts whose slot was given back and that may still be answered; older ones are found by their key.
const REMEMBERED_MAX: usize = 256;

#[derive(Debug)]
struct Slot {
    execution_id: String,
    assignment: Assignment,
    /// When its attempt has timed out for the engine.
    deadline: Option<Timestamp>,
    doubted_at: Option<Timestamp>,
}

/// What the passing of time does to slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// The worker must be asked whether it reads.
    pub ask: bool,
    /// So many slots are free.
    pub given_back: usize,
}

/// The slots of one socket.
#[derive(Debug, Default)]
pub struct Slots {
    taken: Vec<Slot>,
    given_back: VecDeque<(String, Assignment)>,
}

impl Slots {
    /// A dispatch goes out. Answers how many slots that gives back: one when the same attempt was outstanding already.
    pub fn give(&mut self, dispatch: &Dispatch, revert: bool, margin: Duration) -> usize {
        let execution_id = execution_id(
            dispatch.run_id,
            dispatch.scheduled_event_id,
            dispatch.attempt,
            revert,
        );
        let before = self.taken.len();
        self.taken.retain(|slot| slot.execution_id != execution_id);
        let given_back = before - self.taken.len();
        let close = [
            (dispatch.started_at, dispatch.start_to_close),
            (dispatch.scheduled_at, dispatch.schedule_to_close),
        ];
        let deadline = close
            .into_iter()
            .filter(|(_, limit)| !limit.is_zero())
            .map(|(at, limit)| at.plus(limit))
            .min();
        self.taken.push(Slot {
            execution_id,
            assignment: Assignment::of(dispatch, revert),
            deadline: deadline.map(|at| at.plus(margin)),
            doubted_at: None,
        });
        given_back
    }

    /// What was given out under an execution id.
    pub fn find(&self, execution_id: &str) -> Option<&Assignment> {
        let taken = self
            .taken
            .iter()
            .map(|slot| (&slot.execution_id, &slot.assignment));
        let given_back = self
            .given_back
            .iter()
            .map(|(id, assignment)| (id, assignment));
        taken
            .chain(given_back)
            .find(|(id, _)| *id == execution_id)
            .map(|(_, assignment)| assignment)
    }

    /// An attempt was answered. Answers how many slots that gives back. After a result or an abort nothing comes of the activity's
    /// other attempts: the SDKs execute an activity once.
    pub fn answered(&mut self, execution_id: &str, for_good: bool) -> usize {
        let assignment = self.find(execution_id).cloned().filter(|_| for_good);
        let same_activity = |other: &Assignment| {
            assignment.as_ref().is_some_and(|assignment| {
                assignment.target == other.target
                    && assignment.scheduled_event_id == other.scheduled_event_id
            })
        };
        self.given_back
            .retain(|(id, other)| id != execution_id && !same_activity(other));
        let before = self.taken.len();
        self.taken
            .retain(|slot| slot.execution_id != execution_id && !same_activity(&slot.assignment));
        before - self.taken.len()
    }

    /// Doubts the slots whose time has passed, and gives back those that were doubted for as long as `patience`.
    pub fn tick(&mut self, now: Timestamp, patience: Duration) -> Tick {
        let mut ask = false;
        for slot in &mut self.taken {
            if slot.doubted_at.is_none() && slot.deadline.is_some_and(|deadline| deadline <= now) {
                slot.doubted_at = Some(now);
                ask = true;
            }
        }
        let given_back =
            self.give_back(|slot| slot.doubted_at.is_some_and(|at| at.plus(patience) <= now));
        Tick { ask, given_back }
    }

    /// The worker shows that it reads: doubted slots are free. Answers how many.
    pub fn worker_reads(&mut self) -> usize {
        self.give_back(|slot| slot.doubted_at.is_some())
    }

    fn give_back(&mut self, free: impl Fn(&Slot) -> bool) -> usize {
        let (freed, taken): (Vec<Slot>, Vec<Slot>) =
            std::mem::take(&mut self.taken).into_iter().partition(free);
        self.taken = taken;
        let count = freed.len();
        self.given_back.extend(
            freed
                .into_iter()
                .map(|slot| (slot.execution_id, slot.assignment)),
        );
        while self.given_back.len() > REMEMBERED_MAX {
            self.given_back.pop_front();
        }
        count
    }

    /// When there is something to do for [`Slots::tick`].
    pub fn next_tick(&self, patience: Duration) -> Option<Timestamp> {
        let due = |slot: &Slot| {
            slot.doubted_at
                .map_or(slot.deadline, |at| Some(at.plus(patience)))
        };
        self.taken.iter().filter_map(due).min()
    }

    /// Whether the worker may be busy.
    pub fn busy(&self) -> bool {
        !self.taken.is_empty()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use orchestrion_history::ids::{Namespace, RunId, WorkflowId};

    use super::*;

    pub(in crate::api::orra::socket) fn dispatch(event: i64, attempt: i32) -> Dispatch {
        Dispatch {
            namespace: Namespace::parse("p_1").unwrap(),
            workflow_id: WorkflowId::parse("o_1").unwrap(),
            run_id: RunId([7; 16]),
            workflow_type: "orchestrion.plan".into(),
            scheduled_event_id: event,
            attempt,
            number: attempt,
            activity_id: format!("task{event}"),
            activity_type: "echo".into(),
            input: None,
            header: None,
            heartbeat_details: None,
            last_failure: None,
            scheduled_at: Timestamp::from_millis(0),
            attempt_scheduled_at: Timestamp::from_millis(0),
            started_at: Timestamp::from_millis(1_000),
            start_to_close: Duration::from_secs(30),
            schedule_to_close: Duration::ZERO,
            heartbeat: Duration::ZERO,
            retry: Default::default(),
            priority: None,
        }
    }

    const MARGIN: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(300);

    fn tick(slots: &mut Slots, millis: i64) -> (bool, usize) {
        let Tick { ask, given_back } = slots.tick(Timestamp::from_millis(millis), PATIENCE);
        (ask, given_back)
    }

    fn id(event: i64, attempt: i32) -> String {
        execution_id(RunId([7; 16]), event, attempt, false)
    }

    #[test]
    fn an_answer_gives_its_slot_back_once() {
        let mut slots = Slots::default();
        assert_eq!(slots.give(&dispatch(5, 1), false, MARGIN), 0);
        assert!(slots.busy());
        assert_eq!(slots.find(&id(5, 1)).unwrap().activity_id, "task5");
        assert_eq!(slots.answered("e_unknown", true), 0);
        assert_eq!(slots.answered(&id(5, 1), false), 1);
        assert_eq!(slots.answered(&id(5, 1), false), 0);
        assert!(!slots.busy());
    }

    #[test]
    fn a_slot_out_of_time_is_free_when_the_worker_reads_again() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        assert_eq!(
            slots.next_tick(PATIENCE),
            Some(Timestamp::from_millis(32_000))
        );
        assert_eq!(
            slots.worker_reads(),
            0,
            "a worker that reads in time keeps its work"
        );
        assert_eq!(tick(&mut slots, 31_999), (false, 0));
        assert_eq!(tick(&mut slots, 32_000), (true, 0));
        assert_eq!(tick(&mut slots, 33_000), (false, 0), "it is asked once");
        assert_eq!(
            slots.next_tick(PATIENCE),
            Some(Timestamp::from_millis(332_000))
        );
        assert!(slots.busy());
        assert_eq!(slots.worker_reads(), 1);
        assert!(!slots.busy());
        assert_eq!(
            slots.find(&id(5, 1)).unwrap().attempt,
            Some(1),
            "its late result is still known"
        );
        assert_eq!(
            slots.answered(&id(5, 1), false),
            0,
            "and frees nothing twice"
        );
    }

    #[test]
    fn patience_with_a_silent_worker_ends() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        assert_eq!(tick(&mut slots, 32_000), (true, 0));
        assert_eq!(tick(&mut slots, 331_999), (false, 0));
        assert_eq!(tick(&mut slots, 332_000), (false, 1));
        assert_eq!(slots.worker_reads(), 0);
        assert!(slots.find(&id(5, 1)).is_some());
    }

    #[test]
    fn a_worker_that_reads_while_it_works_is_not_doubted() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        let tick = slots.tick(Timestamp::from_millis(32_000), Duration::ZERO);
        assert_eq!(
            tick,
            Tick {
                ask: true,
                given_back: 1
            }
        );
    }

    #[test]
    fn the_answer_itself_frees_a_doubted_slot_once() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        tick(&mut slots, 40_000);
        assert_eq!(slots.answered(&id(5, 1), false), 1);
        assert_eq!(slots.worker_reads(), 0);
    }

    #[test]
    fn a_result_frees_all_attempts_of_its_activity_and_an_error_its_own() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        tick(&mut slots, 40_000);
        slots.worker_reads();
        slots.give(&dispatch(5, 2), false, MARGIN);
        slots.give(&dispatch(6, 1), false, MARGIN);
        assert_eq!(slots.answered(&id(5, 1), false), 0);
        slots.give(&dispatch(5, 3), false, MARGIN);
        assert_eq!(slots.answered(&id(5, 2), true), 2);
        assert_eq!(slots.taken.len(), 1);
    }

    #[test]
    fn the_same_attempt_twice_holds_one_slot() {
        let mut slots = Slots::default();
        slots.give(&dispatch(5, 1), false, MARGIN);
        assert_eq!(slots.give(&dispatch(5, 1), false, MARGIN), 1);
        assert_eq!(slots.give(&dispatch(5, 2), false, MARGIN), 0);
        assert_eq!(slots.taken.len(), 2);
    }

    #[test]
    fn the_earlier_of_both_limits_counts() {
        let mut slots = Slots::default();
        let limited = Dispatch {
            schedule_to_close: Duration::from_secs(10),
            ..dispatch(5, 1)
        };
        slots.give(&limited, false, MARGIN);
        assert_eq!(
            slots.next_tick(PATIENCE),
            Some(Timestamp::from_millis(11_000))
        );
        let unlimited = Dispatch {
            start_to_close: Duration::ZERO,
            ..dispatch(6, 1)
        };
        slots.give(&unlimited, false, MARGIN);
        assert_eq!(
            slots.next_tick(PATIENCE),
            Some(Timestamp::from_millis(11_000))
        );
    }

    #[test]
    fn memory_of_given_back_slots_is_bounded() {
        let mut slots = Slots::default();
        for event in 0..1_000 {
            slots.give(&dispatch(event, 1), false, MARGIN);
        }
        tick(&mut slots, 100_000);
        assert_eq!(slots.worker_reads(), 1_000);
        assert_eq!(slots.given_back.len(), REMEMBERED_MAX);
        assert!(slots.find(&id(0, 1)).is_none());
        assert!(slots.find(&id(999, 1)).is_some());
    }
}
