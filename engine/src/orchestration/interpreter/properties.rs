//! Random plans and outcomes. The rules are checked on the history alone, by another path than the interpreter's.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion_history::ids::Timestamp;
use orchestrion_proto::temporal::api::enums::v1::{RetryState, TimeoutType};
use orchestrion_proto::temporal::api::history::v1::HistoryEvent;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::Effect;
use super::expected::Shape;
use super::world::*;
use crate::orchestration::view::View;
use crate::plan::PlanTask;

const STEPS_MAX: usize = 200;

/// One thing that happens outside: where, what, whether the workflow task comes at once, and how much time passes before it.
#[derive(Debug, Clone)]
struct Step {
    pick: usize,
    outcome: u8,
    turn: bool,
    wait_ms: i64,
}

fn plans() -> impl Strategy<Value = Vec<PlanTask>> {
    prop::collection::vec((any::<u8>(), any::<bool>()), 1..7).prop_map(|tasks| {
        let ids: Vec<String> = (1..=tasks.len()).map(|n| format!("task{n}")).collect();
        let tasks = tasks.iter().enumerate().map(|(at, (edges, revertible))| {
            let depends_on: Vec<&str> = (0..at)
                .filter(|other| edges >> other & 1 == 1)
                .map(|other| &*ids[other])
                .collect();
            PlanTask {
                revertible: *revertible,
                ..task(&ids[at], &depends_on)
            }
        });
        tasks.collect()
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<usize>(), any::<u8>(), any::<bool>(), 0..40i64);
    let step = step.prop_map(|(pick, outcome, turn, wait_ms)| Step {
        pick,
        outcome,
        turn,
        wait_ms,
    });
    prop::collection::vec(step, 0..40)
}

/// Lets one of the possible things happen.
fn happen(world: &mut World, step: &Step, closed_without_result: &mut Vec<String>) {
    world.advance(step.wait_ms);
    let activities: Vec<String> = world.activities.keys().cloned().collect();
    let timers: Vec<String> = world.timers.keys().cloned().collect();
    let choices = activities.len() + timers.len() + closed_without_result.len() + 1;
    let pick = step.pick % choices;
    if let Some(activity) = activities.get(pick) {
        close(world, activity, step.outcome, closed_without_result);
    } else if let Some(timer) = timers.get(pick - activities.len()) {
        world.fired(timer);
    } else if let Some(task) = closed_without_result
        .get(pick - activities.len() - timers.len())
        .cloned()
    {
        closed_without_result.retain(|other| *other != task);
        world.late_result(&task, done(9));
    } else if step.outcome < 20 {
        world.cancel_requested("enough");
    } else {
        world.signaled("something else", &Value::Null);
    }
}

fn close(world: &mut World, activity: &str, outcome: u8, closed_without_result: &mut Vec<String>) {
    let is_revert = activity.starts_with("revert:");
    if !is_revert && outcome >= 150 {
        closed_without_result.push(activity.to_owned());
    }
    match (is_revert, outcome) {
        (false, 0..100) => world.completed(activity, done(outcome.into())),
        (false, 100..120) => {
            world.completed(activity, json!({"task": {"n": 1}, "compensation": null}))
        }
        (false, 120..150) => world.completed(
            activity,
            json!({"task": {"n": 1}, "compensation": {"data": {"n": 1}, "ttl": 50}}),
        ),
        (false, 150..180) => world.failed(activity, "failed"),
        (false, 180..210) => world.aborted(activity, &json!({"why": "no"})),
        (false, _) => world.timed_out(activity, TimeoutType::StartToClose),
        (true, 0..100) => world.completed(activity, json!({"status": "completed"})),
        (true, 100..120) => world.completed(activity, json!({"status": "partial"})),
        (true, 120..140) => world.completed(activity, json!({"status": "failed", "error": "x"})),
        (true, 140..160) => world.completed(activity, json!({"status": "expired"})),
        (true, 160..200) => world.failed(activity, "failed"),
        (true, 200..220) => world.failed_with(
            activity,
            application_failure("Failed", "busy", None),
            RetryState::Timeout,
        ),
        (true, 220..240) => world.timed_out(activity, TimeoutType::ScheduleToClose),
        (true, _) => world.timed_out(activity, TimeoutType::StartToClose),
    };
}

/// Runs a plan to its end: as the steps say, then everything that is open succeeds.
fn run(tasks: &[PlanTask], steps: &[Step]) -> World {
    let mut world = World::of_tasks(tasks);
    let mut closed_without_result = Vec::new();
    let mut seen = world.events.len();
    for step in steps {
        if world.closed {
            break;
        }
        happen(&mut world, step, &mut closed_without_result);
        if step.turn {
            world.turn();
            seen = world.events.len();
        }
    }
    for _ in 0..STEPS_MAX {
        if world.closed {
            break;
        }
        if world.events.len() > seen {
            world.turn();
        } else if let Some(activity) = world.activities.keys().next().cloned() {
            close(&mut world, &activity, 0, &mut closed_without_result);
            world.turn();
        } else {
            let timer = world
                .timers
                .keys()
                .next()
                .cloned()
                .expect("an open run waits for something");
            world.fired(&timer).turn();
        }
        seen = world.events.len();
    }
    world
}

/// What the rules need to know of a history so far.
#[derive(Default)]
struct Seen {
    /// Ids by scheduling event.
    activities: BTreeMap<i64, String>,
    open: BTreeSet<String>,
    ever_scheduled: BTreeSet<String>,
    completed: BTreeSet<String>,
    /// Completions that can be undone: the turn they came before, their place in the plan, when they came, how long they keep.
    undoable: Vec<(usize, usize, i64, i64, String)>,
    reverted: BTreeSet<String>,
    unknown: BTreeSet<String>,
    timers: BTreeSet<String>,
    turns: usize,
    incident: bool,
}

fn millis(event: &HistoryEvent) -> i64 {
    event
        .event_time
        .as_ref()
        .map_or(0, |at| at.seconds * 1_000 + i64::from(at.nanos / 1_000_000))
}

impl Seen {
    fn result(&mut self, tasks: &[PlanTask], id: &str, result: &Value, at: i64) {
        let place = tasks
            .iter()
            .position(|task| task.id == id)
            .expect("it is of the plan");
        self.unknown.remove(id);
        assert!(self.completed.insert(id.to_owned()), "{id} completed twice");
        if let (true, Some(compensation)) = (
            tasks[place].revertible,
            result.get("compensation").filter(|c| !c.is_null()),
        ) {
            let ttl = compensation["ttl"].as_i64().expect("a number");
            self.undoable
                .push((self.turns, place, at, ttl, id.to_owned()));
        }
    }

    fn event(&mut self, tasks: &[PlanTask], event: &HistoryEvent) {
        let json = |payloads: Option<&orchestrion_proto::temporal::api::common::v1::Payloads>| {
            crate::orchestration::submission::read_json::<Value>(payloads).expect("json")
        };
        match event.attributes.as_ref().expect("attributes") {
            Attributes::WorkflowTaskStartedEventAttributes(_) => self.turns += 1,
            Attributes::ActivityTaskScheduledEventAttributes(a) => {
                self.scheduled(tasks, &a.activity_id, event)
            }
            Attributes::ActivityTaskCompletedEventAttributes(a) => {
                let id = self.closed(a.scheduled_event_id);
                if !id.starts_with("revert:") {
                    self.result(tasks, &id, &json(a.result.as_ref()), millis(event));
                }
            }
            Attributes::ActivityTaskFailedEventAttributes(a) => {
                self.incident |= !self.closed(a.scheduled_event_id).starts_with("revert:");
            }
            Attributes::ActivityTaskTimedOutEventAttributes(a) => {
                let id = self.closed(a.scheduled_event_id);
                if !id.starts_with("revert:") {
                    self.incident = true;
                    self.unknown.insert(id);
                }
            }
            Attributes::TimerStartedEventAttributes(a) => {
                assert!(self.timers.insert(a.timer_id.clone()), "one timer per task");
            }
            Attributes::TimerFiredEventAttributes(a) => {
                self.timers.remove(&a.timer_id);
            }
            Attributes::TimerCanceledEventAttributes(a) => {
                self.timers.remove(&a.timer_id);
            }
            Attributes::WorkflowExecutionCancelRequestedEventAttributes(_) => self.incident = true,
            Attributes::WorkflowExecutionSignaledEventAttributes(a) => {
                let input = json(a.input.as_ref());
                if let Some(id) = input.get("task").and_then(Value::as_str) {
                    self.result(tasks, id, &input["result"], millis(event));
                }
            }
            Attributes::WorkflowExecutionCompletedEventAttributes(_) => {
                assert!(
                    !self.incident && self.completed.len() == tasks.len(),
                    "a run completes when all of it has"
                );
            }
            Attributes::WorkflowExecutionFailedEventAttributes(_)
            | Attributes::WorkflowExecutionCanceledEventAttributes(_) => {
                assert!(self.incident, "a run fails of something");
                assert!(
                    self.open.is_empty(),
                    "nothing is left open: {:?}",
                    self.open
                );
                assert!(
                    self.timers.is_empty(),
                    "no late result is waited for: {:?}",
                    self.timers
                );
            }
            _ => {}
        }
    }

    fn closed(&mut self, scheduled_event_id: i64) -> String {
        let id = self.activities[&scheduled_event_id].clone();
        self.open.remove(&id);
        id
    }

    fn scheduled(&mut self, tasks: &[PlanTask], id: &str, event: &HistoryEvent) {
        assert!(
            self.ever_scheduled.insert(id.to_owned()),
            "{id} is scheduled once"
        );
        match id.strip_prefix("revert:") {
            None => {
                let planned = tasks
                    .iter()
                    .find(|task| task.id == id)
                    .expect("it is of the plan");
                assert!(!self.incident, "{id} starts in a run that is over");
                assert!(
                    planned
                        .depends_on
                        .iter()
                        .all(|other| self.completed.contains(other)),
                    "{id} starts too early"
                );
            }
            Some(task) => {
                assert!(
                    self.incident && self.open.is_empty(),
                    "{id} starts while {:?} is open",
                    self.open
                );
                let now = millis(event);
                let left = self
                    .undoable
                    .iter()
                    .filter(|(.., id)| !self.reverted.contains(id));
                let newest = left.filter(|(_, _, at, ttl, _)| at + ttl > now).max();
                assert_eq!(
                    newest.map(|(.., id)| id.as_str()),
                    Some(task),
                    "the newest is undone first"
                );
                self.reverted.insert(task.to_owned());
            }
        }
        self.open.insert(id.to_owned());
        self.activities.insert(event.event_id, id.to_owned());
    }
}

fn check(tasks: &[PlanTask], world: &World) {
    assert!(world.closed, "the run ends");
    let mut seen = Seen::default();
    world
        .events
        .iter()
        .for_each(|event| seen.event(tasks, event));
    let records: BTreeMap<&str, &str> = world
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::CompensationFailed(record) => {
                Some((record.task_id.as_str(), record.status.as_str()))
            }
            Effect::StatusChanged(_) => None,
        })
        .collect();
    let changes = world
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::StatusChanged(_)))
        .count();
    assert_eq!(changes, 1, "callers learn the end once");
    assert_eq!(
        records.len() + changes,
        world.effects.len(),
        "one record of one task"
    );
    for (.., id) in seen.undoable.iter().filter(|_| seen.incident) {
        let expired = records.get(id.as_str()) == Some(&"expired");
        assert!(
            seen.reverted.contains(id) || expired,
            "{id} is undone, or somebody knows that it is not"
        );
    }
    for task in tasks
        .iter()
        .filter(|task| task.revertible && seen.unknown.contains(&task.id))
    {
        assert_eq!(
            records.get(task.id.as_str()),
            Some(&"unknown"),
            "somebody knows that nobody knows of {}",
            task.id
        );
    }
}

/// Callers see the same as the effects say, at any moment.
fn check_views(world: &World) {
    let now = Timestamp::from_millis(world.now_ms);
    let inspect = |prefix: usize| {
        View::fold(&world.journal[..prefix])
            .expect("it has begun")
            .inspection(now)
    };
    for prefix in 1..world.journal.len() {
        let inspection = inspect(prefix);
        assert!(!inspection.status.is_empty());
        serde_json::to_string(&inspection).expect("an inspection is JSON");
    }
    let inspection = inspect(world.journal.len());
    for effect in &world.effects {
        match effect {
            Effect::StatusChanged(change) => {
                assert_eq!(inspection.status, change.status.as_str());
                assert_eq!(
                    (inspection.error.as_ref(), inspection.results.as_ref()),
                    (change.error.as_ref(), Some(&change.results))
                );
            }
            Effect::CompensationFailed(record) => {
                let tasks = inspection.tasks.as_ref().expect("there is a plan");
                let task = tasks
                    .iter()
                    .find(|task| task.id == record.task_id)
                    .expect("it is of the plan");
                assert_eq!(
                    task.compensation.as_ref().map(|undone| undone.status),
                    Some(record.status.as_str())
                );
            }
        }
    }
}

proptest! {
    #[test]
    fn any_plan_ends_well_or_is_undone_newest_first(tasks in plans(), steps in steps()) {
        let world = run(&tasks, &steps);
        check(&tasks, &world);
        check_views(&world);
    }

    #[test]
    fn the_same_world_gives_the_same_history(tasks in plans(), steps in steps()) {
        let (once, twice) = (run(&tasks, &steps), run(&tasks, &steps));
        prop_assert_eq!(once.events, twice.events);
        prop_assert_eq!(once.effects, twice.effects);
    }

    #[test]
    fn a_history_with_two_commands_swapped_does_not_replay(tasks in plans(), steps in steps(), pick in any::<usize>()) {
        let mut world = run(&tasks, &steps);
        let shape = |n: usize| world.events.get(n).and_then(Shape::of_event);
        let pairs: Vec<usize> = (0..world.events.len())
            .filter(|&n| shape(n).is_some() && shape(n + 1).is_some() && shape(n) != shape(n + 1))
            .collect();
        prop_assume!(!pairs.is_empty());
        let first = pairs[pick % pairs.len()];
        let later = world.events[first + 1].attributes.take();
        let earlier = std::mem::replace(&mut world.events[first].attributes, later);
        world.events[first + 1].attributes = earlier;
        prop_assert!(replay(&world.events).is_err());
    }
}
