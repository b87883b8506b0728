//! Operators: they pause runs and activities, let them go on, have activities begin anew and change how they are tried. They come twice, too
//! late, and to what was never there; once nobody asks for anything any more, everything is let go.

use std::time::Duration;

use orchestrion::engine::{Accepted, Target};
use orchestrion::orchestration::is_builtin;
use orchestrion::seams;
use orchestrion_history::ids::{Namespace, RunId, Timestamp, WorkflowId};
use orchestrion_history::request::{
    ActivityChoice, OptionsChange, PauseActivity, PauseWorkflow, Reply, Request, ResetActivity,
    UnpauseActivity, UnpauseWorkflow, UpdateActivityOptions,
};
use orchestrion_history::state::{Activity, MutableState};
use orchestrion_proto::prost_wkt_types::Duration as ProtoDuration;
use orchestrion_proto::temporal::api::activity::v1::ActivityOptions;
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;

use super::clients::{ask, pick, target};
use super::holds::Ticket;
use super::ledger::Run;
use super::observer::Shadow;
use super::script;
use super::shared::{Missed, World};
use super::workers::note;

/// How long they wait to see what a run is at.
const PATIENCE: Duration = Duration::from_secs(5);
/// A queue that nobody works for.
const NOBODYS_QUEUE: &str = "nobody";

/// What was granted of activities.
#[derive(Debug, Clone)]
pub struct Operated {
    /// In which run.
    pub run: Run,
    /// Of which of its activities.
    pub choice: ActivityChoice,
    /// What.
    pub act: Act,
    /// It was not done before that.
    pub asked_at: Timestamp,
    /// Nor after that.
    pub told_at: Timestamp,
}

/// What operators do to activities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// See [`PauseActivity`].
    Pause,
    /// See [`UnpauseActivity`].
    Unpause,
    /// See [`ResetActivity`].
    Reset,
    /// See [`OptionsChange::Restore`].
    Restore,
    /// See [`OptionsChange::Fields`].
    Change,
}

/// Looks after a tenant's executions until nobody asks for anything any more.
pub async fn operate(world: World, namespace: Namespace) {
    loop {
        world.pause(4_000).await;
        if !world.asking.get() {
            return;
        }
        let Some((target, state)) = somebody(&world, &namespace).await else {
            continue;
        };
        match world.roll(16) {
            0..=3 => pause_run(&world, target).await,
            4 => unpause_run(&world, &target).await,
            5..=8 => pause_activities(&world, target, &state).await,
            9 => {
                let choice = choose(&world, &state);
                unpause_activities(&world, &target, choice).await;
            }
            10..=12 => reset(&world, &target, &state).await,
            13..=14 => change(&world, &target, &state).await,
            _ => restore(&world, &target, &state).await,
        }
    }
}

/// Somebody's execution, or a child's, and what it is at, if anybody could tell.
async fn somebody(world: &World, namespace: &Namespace) -> Option<(Target, MutableState)> {
    let (id, wanted) = pick(world)?;
    // Now and then one of another tenant, or one that nobody ever started.
    let (namespace, id) = match world.roll(16) {
        0 => (Namespace::parse("p_foreign").expect("it is a name"), id),
        1 => (namespace.clone(), format!("{id}-never")),
        _ => (wanted.namespace.clone(), id),
    };
    let mut target = target(&namespace, &id);
    let mut state = look(world, &target).await;
    let children = state.children.values();
    let children: Vec<String> = children.map(|child| child.workflow_id.clone()).collect();
    if !children.is_empty() && world.roll(3) == 0 {
        let id = world.dice.borrow_mut().pick(&children).clone();
        target.workflow_id = WorkflowId::parse(&id).ok()?;
        state = look(world, &target).await;
    }
    // That very run, or whichever is the newest by then, or one of long ago.
    target.run_id = match world.roll(4) {
        0 => RunId::parse(&state.run_id),
        1 => wanted.run,
        _ => None,
    };
    Some((target, state))
}

async fn look(world: &World, target: &Target) -> MutableState {
    let Some(door) = world.door() else {
        return MutableState::default();
    };
    let state = seams::timeout(PATIENCE, door.handle.state(target.clone())).await;
    state.and_then(Result::ok).unwrap_or_default()
}

/// Which activities are meant: those that the run had, or none that it ever had.
fn choose(world: &World, state: &MutableState) -> ActivityChoice {
    let activities: Vec<&Activity> = state.activities.values().collect();
    let kind = world.roll(8);
    if kind == 0 || activities.is_empty() {
        let ids = ["0", "1", "task1", "plan", "never"];
        let id = *world.dice.borrow_mut().pick(&ids);
        return ActivityChoice::Id(id.to_owned());
    }
    let activity = *world.dice.borrow_mut().pick(&activities);
    let several = activities.len() > 1;
    match kind {
        1 => ActivityChoice::All,
        2 => ActivityChoice::Type(activity.activity_type.clone()),
        3 | 4 if several => ActivityChoice::All,
        5 if several => ActivityChoice::Type(activity.activity_type.clone()),
        _ => ActivityChoice::Id(activity.activity_id.clone()),
    }
}

/// What is to be known of an ask about activities.
struct OfActivities<'a> {
    act: Act,
    choice: &'a ActivityChoice,
    mark: &'a str,
}

/// Asks, and notes what came of it; `releases`: something may go on by it.
async fn asked(
    world: &World,
    target: &Target,
    request: &Request,
    releases: bool,
) -> Result<Accepted, Missed> {
    let id = target.workflow_id.as_str();
    if releases {
        let mut ledger = world.ledger.borrow_mut();
        ledger.holds.release_begins(&target.namespace, id);
    }
    let said = ask(world, target, request).await;
    if releases {
        let mut ledger = world.ledger.borrow_mut();
        ledger.holds.release_ends(&target.namespace, id);
    }
    if said.is_ok() && target.namespace.as_str() == "p_foreign" {
        world.complain(
            "namespaces",
            format!("an operator of no tenant reached {id}"),
        );
    }
    said
}

/// Asks something of activities, and notes what came of it. Who changed nothing left no mark.
async fn asked_of_activities(
    world: &World,
    target: &Target,
    request: &Request,
    of: OfActivities<'_>,
) -> Option<Accepted> {
    let asked_at = world.now();
    let releases = matches!(
        request,
        Request::UnpauseActivity(_)
            | Request::ResetActivity(ResetActivity {
                keep_paused: false,
                ..
            })
    );
    let said = asked(world, target, request, releases).await;
    world.say(|| {
        let (id, how) = (&target.workflow_id, brief(&said));
        format!("{:?} of {:?} of {id}: {how}", of.act, of.choice)
    });
    let mut always = None;
    if let Ok(accepted) = &said {
        let run = (target.namespace.clone(), accepted.run_id);
        let operated = Operated {
            run: run.clone(),
            choice: of.choice.clone(),
            act: of.act,
            asked_at,
            told_at: world.now(),
        };
        (world.ledger.borrow_mut().operated).insert(of.mark.to_owned(), operated);
        always = Some(run).filter(|_| matches!(of.act, Act::Reset | Act::Change));
    }
    match always.is_none() && said.is_ok() {
        true => world.ledger.borrow_mut().settled(of.mark, false),
        false => note(world, of.mark, always, &said),
    }
    said.ok()
}

fn ticket(world: &World, target: &Target) -> Ticket {
    let mut ledger = world.ledger.borrow_mut();
    let id = target.workflow_id.as_str();
    ledger.holds.ticket(&target.namespace, id)
}

async fn pause_run(world: &World, target: Target) {
    let mark = world.ledger.borrow_mut().mark("a pause of a run");
    let pause = Request::Pause(PauseWorkflow {
        identity: mark.clone(),
        reason: "let me see".to_owned(),
        request_id: mark.clone(),
    });
    for _ in 0..1 + world.roll(2) {
        world.ledger.borrow_mut().asks_again(&mark);
        let ticket = ticket(world, &target);
        let said = asked(world, &target, &pause, false).await;
        world.say(|| format!("{} is to be paused: {}", target.workflow_id, brief(&said)));
        let run = said.as_ref().ok().map(|accepted| accepted.run_id);
        if let Some(run_id) = run {
            let now = world.now();
            let mut ledger = world.ledger.borrow_mut();
            let id = target.workflow_id.as_str();
            let what = (run_id, None);
            (ledger.holds).granted(&target.namespace, id, what, (ticket, now));
        }
        let run = run.map(|run_id| (target.namespace.clone(), run_id));
        note(world, &mark, run, &said);
    }
    let world = world.clone();
    world.clone().spawn(async move {
        world.pause(9_000).await;
        if world.roll(8) > 0 {
            unpause_run(&world, &target).await;
        }
    });
}

async fn unpause_run(world: &World, target: &Target) {
    let mark = world.ledger.borrow_mut().mark("the end of a run's pause");
    let unpause = Request::Unpause(UnpauseWorkflow {
        identity: mark.clone(),
        reason: "seen".to_owned(),
        request_id: mark.clone(),
    });
    for _ in 0..1 + world.roll(2) {
        world.ledger.borrow_mut().asks_again(&mark);
        let said = asked(world, target, &unpause, true).await;
        world.say(|| format!("{} is to go on: {}", target.workflow_id, brief(&said)));
        let run = said.as_ref().ok();
        let run = run.map(|accepted| (target.namespace.clone(), accepted.run_id));
        note(world, &mark, run, &said);
    }
}

async fn pause_activities(world: &World, target: Target, state: &MutableState) {
    let choice = choose(world, state);
    let mark = world.ledger.borrow_mut().mark("a pause of activities");
    let pause = Request::PauseActivity(PauseActivity {
        choice: choice.clone(),
        identity: mark.clone(),
        reason: "let me see".to_owned(),
        request_id: mark.clone(),
    });
    for _ in 0..1 + world.roll(2) {
        world.ledger.borrow_mut().asks_again(&mark);
        let of = OfActivities {
            act: Act::Pause,
            choice: &choice,
            mark: &mark,
        };
        let ticket = ticket(world, &target);
        let accepted = asked_of_activities(world, &target, &pause, of).await;
        if let (Some(accepted), ActivityChoice::Id(activity)) = (accepted, &choice) {
            let now = world.now();
            let mut ledger = world.ledger.borrow_mut();
            let what = (accepted.run_id, Some(activity.clone()));
            let id = target.workflow_id.as_str();
            (ledger.holds).granted(&target.namespace, id, what, (ticket, now));
        }
    }
    let world = world.clone();
    world.clone().spawn(async move {
        world.pause(7_000).await;
        if world.roll(8) > 0 {
            unpause_activities(&world, &target, choice).await;
        }
    });
}

async fn unpause_activities(world: &World, target: &Target, choice: ActivityChoice) {
    let mark = world
        .ledger
        .borrow_mut()
        .mark("the end of activities' pause");
    let unpause = Request::UnpauseActivity(UnpauseActivity {
        choice: choice.clone(),
        identity: mark.clone(),
        reset_attempts: world.roll(3) == 0,
        reset_heartbeat: world.roll(3) == 0,
        delay: delay(world),
    });
    let of = OfActivities {
        act: Act::Unpause,
        choice: &choice,
        mark: &mark,
    };
    asked_of_activities(world, target, &unpause, of).await;
}

/// Nanoseconds, as those of a jitter.
fn delay(world: &World) -> i64 {
    match world.roll(3) {
        0 => world.roll(8_000_000_000) as i64,
        _ => 0,
    }
}

async fn reset(world: &World, target: &Target, state: &MutableState) {
    let choice = choose(world, state);
    let mark = world.ledger.borrow_mut().mark("a reset of activities");
    let reset = Request::ResetActivity(ResetActivity {
        choice: choice.clone(),
        identity: mark.clone(),
        reset_heartbeat: world.roll(2) == 0,
        keep_paused: world.roll(2) == 0,
        restore_options: world.roll(3) == 0,
        delay: delay(world),
    });
    for _ in 0..1 + world.roll(2) {
        world.ledger.borrow_mut().asks_again(&mark);
        let of = OfActivities {
            act: Act::Reset,
            choice: &choice,
            mark: &mark,
        };
        asked_of_activities(world, target, &reset, of).await;
    }
}

async fn change(world: &World, target: &Target, state: &MutableState) {
    let choice = choose(world, state);
    let number = world.ledger.borrow().operated.len() as u64;
    let mark = world
        .ledger
        .borrow_mut()
        .mark("other options of activities");
    let millis = |below: u64| nanos((100 + world.roll(below)) * 1_000_000);
    // No two are alike: each leaves its mark.
    let unlike = nanos((100 + world.roll(2_000)) * 1_000_000 + number);
    let options = ActivityOptions {
        task_queue: Some(TaskQueue {
            name: match world.roll(3) {
                0 => NOBODYS_QUEUE.to_owned(),
                n => script::ACTIVITY_QUEUES[n as usize - 1].to_owned(),
            },
            ..Default::default()
        }),
        schedule_to_close_timeout: Some(millis(120_000)),
        schedule_to_start_timeout: Some(millis(60_000)),
        start_to_close_timeout: Some(millis(8_000)),
        heartbeat_timeout: Some(millis(4_000)),
        retry_policy: Some(RetryPolicy {
            initial_interval: Some(unlike),
            maximum_attempts: world.roll(6) as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut paths = vec!["retry_policy.initial_interval"];
    // An orchestration's tasks stay with their services.
    let is_script = !state.workflow_type.is_empty() && !is_builtin(&state.workflow_type);
    for (path, one_in) in [
        ("task_queue", if is_script { 3 } else { u64::MAX }),
        ("schedule_to_close_timeout", 8),
        ("schedule_to_start_timeout", 8),
        ("start_to_close_timeout", 3),
        ("heartbeat_timeout", 4),
        ("retry_policy.maximum_attempts", 6),
        ("retry_policy.whatever", 12),
    ] {
        if world.roll(one_in) == 0 {
            paths.push(path);
        }
    }
    let change = OptionsChange::Fields {
        options: Box::new(options),
        paths: paths.into_iter().map(str::to_owned).collect(),
    };
    update_options(world, target, choice, Act::Change, change, mark).await;
}

fn nanos(count: u64) -> ProtoDuration {
    ProtoDuration {
        seconds: (count / 1_000_000_000) as i64,
        nanos: (count % 1_000_000_000) as i32,
    }
}

async fn restore(world: &World, target: &Target, state: &MutableState) {
    let choice = choose(world, state);
    let mark = world.ledger.borrow_mut().mark("the first options again");
    let change = OptionsChange::Restore;
    update_options(world, target, choice, Act::Restore, change, mark).await;
}

async fn update_options(
    world: &World,
    target: &Target,
    choice: ActivityChoice,
    act: Act,
    change: OptionsChange,
    mark: String,
) {
    let update = Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
        choice: choice.clone(),
        identity: mark.clone(),
        change,
    }));
    let of = OfActivities {
        act,
        choice: &choice,
        mark: &mark,
    };
    let accepted = asked_of_activities(world, target, &update, of).await;
    if let Some(Accepted { reply, .. }) = accepted
        && !matches!(reply, Reply::ActivityOptions(_))
    {
        let what = format!("{mark} changes options and is answered by {reply:?}");
        world.complain("operators", what);
    }
}

fn brief(said: &Result<Accepted, Missed>) -> String {
    match said {
        Ok(accepted) => match &accepted.reply {
            Reply::ActivityOptions(_) => "granted".to_owned(),
            reply => format!("{reply:?}"),
        },
        Err(missed) => format!("{missed:?}"),
    }
}

/// What some run still waits for an operator with.
#[derive(Debug, Clone)]
pub struct HeldBack {
    target: Target,
    run: bool,
    activities: bool,
    options: bool,
}

/// Whether an open run is held back by what an operator did.
pub fn held_back((run, shadow): (&Run, &Shadow)) -> Option<HeldBack> {
    let state = &shadow.state;
    let mut activities = state.activities.values();
    let held = HeldBack {
        target: Target {
            namespace: run.0.clone(),
            workflow_id: WorkflowId::parse(&state.workflow_id).ok()?,
            run_id: Some(run.1),
        },
        run: state.paused.is_some() || !state.buffered.is_empty(),
        activities: state.activities_paused > 0,
        options: activities.any(|activity| !activity.original_options.is_empty()),
    };
    (held.run || held.activities || held.options).then_some(held)
}

/// Everything goes on, as it was first asked for.
pub fn let_go(world: &World, held: Vec<HeldBack>) {
    for held in held {
        let world = world.clone();
        world.clone().spawn(async move {
            let target = &held.target;
            if held.run {
                let unpause = Request::Unpause(UnpauseWorkflow::default());
                let _ = asked(&world, target, &unpause, true).await;
            }
            if held.activities {
                let unpause = Request::UnpauseActivity(UnpauseActivity {
                    choice: ActivityChoice::All,
                    identity: String::new(),
                    reset_attempts: false,
                    reset_heartbeat: false,
                    delay: 0,
                });
                let _ = asked(&world, target, &unpause, true).await;
            }
            if held.options {
                let restore = Request::UpdateActivityOptions(Box::new(UpdateActivityOptions {
                    choice: ActivityChoice::All,
                    identity: String::new(),
                    change: OptionsChange::Restore,
                }));
                let _ = asked(&world, target, &restore, false).await;
            }
        });
    }
}
