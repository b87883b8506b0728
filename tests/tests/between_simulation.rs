//! A seeded simulation of runs that act on each other: children, chains, signals, cancel requests, retries, resets, with crashes and failed
//! commits at any moment.
//!
//! After every few steps, and at the end: what the engine holds is what the journals say, nobody is left unasked, and what parents, children
//! and chains know of each other agrees.
#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orchestrion::seams::{Chance, SeededChance};
use orchestrion_history::ids::RunId;
use orchestrion_history::outward;
use orchestrion_history::replay;
use orchestrion_history::request::{Request, ResetWorkflow, SignalWorkflow};
use orchestrion_history::state::{ChildStage, MutableState, Status, WorkflowTask};
use orchestrion_history::store::StoreErrorKind;
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::ParentClosePolicy;
use orchestrion_tests::runs::{
    World, cancel, child, complete, continue_as_new, fail, signal, target,
};

const IDS: u64 = 14;
const STEPS: u32 = 220;

struct Simulation {
    seed: u64,
    dice: SeededChance,
    world: World,
    requests: u64,
    faults: bool,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            dice: SeededChance::new(seed),
            world: World::new(),
            requests: 0,
            faults: true,
        }
    }

    fn roll(&mut self, sides: u64) -> u64 {
        let mut bytes = [0u8; 8];
        self.dice.fill(&mut bytes);
        u64::from_le_bytes(bytes) % sides
    }

    fn id(&mut self) -> String {
        format!("w{}", self.roll(IDS))
    }

    fn request_id(&mut self) -> String {
        self.requests += 1;
        format!("request-{}", self.requests)
    }

    fn step(&mut self) {
        let request_id = self.request_id();
        let id = self.id();
        match self.roll(24) {
            0 if self.faults => self.world.crash(),
            1 if self.faults => self
                .world
                .store
                .fail_next_commit(StoreErrorKind::Unavailable),
            2..=4 => {
                let retried = self.roll(3) == 0;
                let _ = self.world.start_with(&id, |start| {
                    start.request_id = request_id;
                    start.retry_policy = retried.then(|| RetryPolicy {
                        maximum_attempts: 3,
                        ..Default::default()
                    });
                });
            }
            5 | 6 => {
                let signal = SignalWorkflow {
                    name: "outside".to_owned(),
                    request_id,
                    ..Default::default()
                };
                let _ = self
                    .world
                    .ask(target(&id), Request::Signal(Box::new(signal)));
            }
            7 if self.roll(4) == 0 => {
                let _ = self
                    .world
                    .ask(target(&id), Request::Terminate(Box::default()));
            }
            8 => self.reset(&id, request_id),
            9..=11 => self.world.advance(Duration::from_millis(700)),
            _ => self.turn(&id),
        }
    }

    fn turn(&mut self, id: &str) {
        let Ok(state) = self.world.state_of(target(id)) else {
            return;
        };
        if !state.is_running() || state.workflow_task == WorkflowTask::None {
            return;
        }
        let commands: Vec<Command> = (0..self.roll(4)).map(|_| self.command()).collect();
        let _ = self.world.try_turn(id, &state, commands);
    }

    fn command(&mut self) -> Command {
        let other = self.id();
        match self.roll(12) {
            0..=3 => {
                let policy = [
                    ParentClosePolicy::Terminate,
                    ParentClosePolicy::Abandon,
                    ParentClosePolicy::RequestCancel,
                ][self.roll(3) as usize];
                child(&other, policy)
            }
            4..=6 => {
                let only_children = self.roll(3) == 0;
                signal("", &other, only_children)
            }
            7 => cancel(&other),
            8 => continue_as_new(),
            9 => fail(),
            _ => complete(),
        }
    }

    /// Back to the end of some workflow task of the newest run.
    fn reset(&mut self, id: &str, request_id: String) {
        let Ok(state) = self.world.state_of(target(id)) else {
            return;
        };
        let finish_event_id = 1 + self.roll(state.next_event_id as u64) as i64;
        let reset = ResetWorkflow {
            finish_event_id,
            reason: "simulated".to_owned(),
            request_id,
            ..Default::default()
        };
        let _ = self.world.ask(target(id), Request::Reset(Box::new(reset)));
    }

    fn line(&self) -> String {
        format!("seed {}", self.seed)
    }

    /// Every run, as its journal says; the engine holds the same.
    fn runs(&mut self) -> BTreeMap<(String, String), MutableState> {
        let mut runs = BTreeMap::new();
        for (id, run_id) in self.world.all_runs() {
            let folded = replay::fold(&self.world.records(&id, run_id)).unwrap();
            let mut run = target(&id);
            run.run_id = Some(run_id);
            let kept = self.world.state_of(run).unwrap();
            assert_eq!(
                replay::difference(&folded, &kept),
                None,
                "{} {id} {run_id}",
                self.line()
            );
            runs.insert((id, run_id.to_string()), kept);
        }
        runs
    }

    fn check(&mut self) {
        let runs = self.runs();
        let line = self.line();
        let mut open: BTreeMap<&str, u32> = BTreeMap::new();
        for ((id, run_id), state) in &runs {
            *open.entry(id.as_str()).or_default() += u32::from(state.is_running());
            assert_eq!(*run_id, state.run_id, "{line}");
            if !state.next_run_id.is_empty() {
                assert!(
                    runs.contains_key(&(id.clone(), state.next_run_id.clone())),
                    "{line}: {id} goes on in a run that is not there"
                );
            }
            let Some(parent) = &state.parent else {
                continue;
            };
            let known = runs.get(&(parent.workflow_id.clone(), parent.run_id.clone()));
            let known = known.unwrap_or_else(|| panic!("{line}: {id} is a child of nobody"));
            assert!(
                known.next_event_id > parent.initiated_event_id,
                "{line}: {id} runs and its parent did not ask for it"
            );
        }
        for (id, count) in open {
            assert!(count <= 1, "{line}: {id} has {count} open runs");
        }
    }

    /// The faults are over and everybody had time: nothing is left to ask, and what runs know of each other agrees.
    fn check_settled(&mut self) {
        self.faults = false;
        for _ in 0..8 {
            self.world.advance(Duration::from_secs(2));
        }
        self.check();
        let runs = self.runs();
        let line = self.line();
        for ((id, _), state) in &runs {
            assert!(
                outward::ids(state).is_empty(),
                "{line}: {id} still asks {:?}",
                outward::ids(state)
            );
            assert!(
                state.deliveries.is_empty() || state.is_running(),
                "{line}: {id}"
            );
            for child in state
                .children
                .values()
                .filter(|child| child.stage == ChildStage::Started)
            {
                let going_on = runs.iter().any(|((workflow_id, _), run)| {
                    *workflow_id == child.workflow_id
                        && run.first_run_id == child.run_id
                        && run.is_running()
                });
                assert!(
                    going_on,
                    "{line}: {id} waits for {}, which has ended",
                    child.workflow_id
                );
            }
            if state.status == Status::Running {
                assert!(RunId::parse(&state.run_id).is_some());
            }
        }
    }
}

/// Answers which events came to pass.
fn run(seed: u64) -> BTreeSet<String> {
    let mut simulation = Simulation::new(seed);
    for step in 0..STEPS {
        simulation.step();
        if step % 20 == 19 {
            simulation.check();
        }
    }
    simulation.check_settled();
    let world = &simulation.world;
    let runs = world.all_runs().into_iter();
    runs.flat_map(|(id, run_id)| world.records(&id, run_id))
        .map(|record| record.type_name())
        .collect()
}

#[test]
fn runs_that_act_on_each_other_agree_through_crashes_and_failed_commits() {
    let only = std::env::var("ORCHESTRION_SIM_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    if let Some(seed) = only {
        run(seed);
        return;
    }
    let seen: BTreeSet<String> = (1..=40).flat_map(run).collect();
    for name in [
        "ChildWorkflowExecutionStarted",
        "StartChildWorkflowExecutionFailed",
        "ChildWorkflowExecutionCompleted",
        "ChildWorkflowExecutionFailed",
        "ChildWorkflowExecutionTerminated",
        "ExternalWorkflowExecutionSignaled",
        "SignalExternalWorkflowExecutionFailed",
        "ExternalWorkflowExecutionCancelRequested",
        "WorkflowExecutionContinuedAsNew",
        "CloseFollowed",
        "RunReset",
    ] {
        assert!(seen.contains(name), "no seed brought a {name}: {seen:?}");
    }
}

#[test]
fn a_seed_gives_the_same_journals() {
    let journals = |seed| {
        let mut simulation = Simulation::new(seed);
        for _ in 0..STEPS {
            simulation.step();
        }
        simulation.runs()
    };
    assert_eq!(journals(7), journals(7));
}
