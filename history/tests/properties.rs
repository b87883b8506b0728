//! Properties over random request sequences. `Story::ask` holds, after each request: decide yields only what apply
//! accepts, a rejection leaves no trace, replay equals state, and the kept queue index equals the rebuilt one.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{
    Story, activity_command, app_failure, cancel_activity, cancel_timer, complete_command,
    timer_command,
};
use orchestrion_history::request::{
    ActivityChoice, ActivityRef, AttachStart, ChildOutcome, ChildStartFailed, HeartbeatActivity,
    ReportActivityProgress, Request, Undeliverable,
};
use orchestrion_history::{outward, replay, snapshot};
use orchestrion_proto::temporal::api::command::v1::Command;
use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::{
    ParentClosePolicy, RetryState, StartChildWorkflowExecutionFailedCause,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Turn(Vec<Order>),
    StaleTurn,
    Hold,
    Speculate,
    FailTask,
    Sticky(bool),
    Take(usize),
    Complete(usize),
    Fail(usize, bool),
    GiveBack(usize),
    Heartbeat(usize),
    Progress(usize),
    Signal(u8),
    Cancel,
    Wait(u32),
    Terminate,
    StartAgain(bool),
    Cross,
    ChildStartFailed(usize),
    ChildClosed(usize, u8),
    Undeliverable(usize),
    Attach(u8),
    Operate(u8, usize, u32),
}

#[derive(Debug, Clone)]
enum Order {
    Activity(u8),
    CancelActivity(usize),
    Timer(u8, u32),
    CancelTimer(u8),
    Complete,
    Fail(bool),
    ContinueAsNew,
    Child(u8, u8),
    SignalOther,
    CancelOther,
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        6 => (0u8..6).prop_map(Order::Activity),
        2 => (0usize..6).prop_map(Order::CancelActivity),
        3 => (0u8..3, 1u32..20_000).prop_map(|(id, ms)| Order::Timer(id, ms)),
        2 => (0u8..3).prop_map(Order::CancelTimer),
        1 => Just(Order::Complete),
        1 => prop::bool::weighted(0.3).prop_map(Order::Fail),
        1 => prop::bool::weighted(0.3).prop_map(|yes| if yes { Order::ContinueAsNew } else { Order::SignalOther }),
        4 => (0u8..6, 0u8..4).prop_map(|(id, policy)| Order::Child(id, policy)),
        2 => Just(Order::SignalOther),
        2 => Just(Order::CancelOther),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => prop::collection::vec(order(), 0..4).prop_map(Step::Turn),
        1 => Just(Step::StaleTurn),
        4 => Just(Step::Hold),
        2 => Just(Step::Speculate),
        4 => Just(Step::FailTask),
        1 => any::<bool>().prop_map(Step::Sticky),
        8 => (0usize..6).prop_map(Step::Take),
        6 => (0usize..6).prop_map(Step::Complete),
        4 => (0usize..6, any::<bool>()).prop_map(|(i, permanent)| Step::Fail(i, permanent)),
        3 => (0usize..6).prop_map(Step::GiveBack),
        2 => (0usize..6).prop_map(Step::Heartbeat),
        2 => (0usize..6).prop_map(Step::Progress),
        4 => (0u8..4).prop_map(Step::Signal),
        1 => Just(Step::Cancel),
        6 => (0u32..40_000).prop_map(Step::Wait),
        1 => prop::bool::weighted(0.2).prop_map(|yes| if yes { Step::Terminate } else { Step::Wait(1) }),
        1 => any::<bool>().prop_map(Step::StartAgain),
        5 => Just(Step::Cross),
        2 => (0usize..6).prop_map(Step::ChildStartFailed),
        5 => (0usize..6, 0u8..5).prop_map(|(i, how)| Step::ChildClosed(i, how)),
        2 => (0usize..6).prop_map(Step::Undeliverable),
        1 => (0u8..3).prop_map(Step::Attach),
        4 => (0u8..8, 0usize..6, 0u32..9_000).prop_map(|(what, i, ms)| Step::Operate(what, i, ms)),
    ]
}

fn pick(story: &Story, index: usize) -> Option<(i64, i32)> {
    let activities = &story.state.activities;
    let (id, activity) = activities.iter().nth(index % activities.len().max(1))?;
    Some((*id, activity.attempt))
}

fn child(story: &Story, index: usize) -> i64 {
    let children = &story.state.children;
    let id = children.keys().nth(index % children.len().max(1));
    id.copied().unwrap_or(5)
}

/// A run as most are, one that is retried, one that comes again, a child.
fn begin(kind: u8) -> Story {
    Story::started_with(|start| match kind {
        0 => {}
        1 => {
            start.retry_policy = Some(RetryPolicy::default());
            start.run_timeout = 100_000_000_000;
        }
        2 => {
            start.cron_schedule = "@every 10s".to_owned();
            start.execution_timeout = 200_000_000_000;
        }
        _ => start.parent = Some(Box::default()),
    })
}

fn commands(story: &Story, orders: &[Order]) -> Vec<Command> {
    let to_command = |order: &Order| match order {
        Order::Activity(id) => activity_command(&format!("a{id}")),
        Order::CancelActivity(i) => cancel_activity(pick(story, *i).map_or(999, |(id, _)| id)),
        Order::Timer(id, ms) => timer_command(&format!("t{id}"), i64::from(*ms)),
        Order::CancelTimer(id) => cancel_timer(&format!("t{id}")),
        Order::Complete => complete_command(),
        Order::Fail(permanent) => common::fail_command("no", *permanent),
        Order::ContinueAsNew => common::continue_command("more"),
        Order::Child(id, policy) => {
            let policy = ParentClosePolicy::try_from(i32::from(*policy)).unwrap();
            common::child_command(&format!("c{id}"), policy)
        }
        Order::SignalOther => common::signal_external("other", "s"),
        Order::CancelOther => common::cancel_external("other"),
    };
    orders.iter().map(to_command).collect()
}

fn play(story: &mut Story, step: &Step) {
    match step {
        Step::Turn(orders) => _ = story.turn(commands(story, orders)),
        Step::StaleTurn => story.turn_with_token(1, 1, vec![complete_command()]),
        Step::Hold => story.hold_task(),
        Step::Speculate => story.hold_speculative(),
        Step::FailTask => story.fail_task(),
        Step::Sticky(sticky) => {
            story.sticky = *sticky;
            story.sticky_expired = *sticky;
        }
        Step::Take(i) => {
            if let Some((id, attempt)) = pick(story, *i) {
                let _ = story.take_attempt(id, attempt, "some");
            }
        }
        Step::Complete(i) => story.complete(ActivityRef::Scheduled(
            pick(story, *i).map_or(5, |(id, _)| id),
        )),
        Step::Fail(i, permanent) => {
            if let Some((id, _)) = pick(story, *i) {
                let name = story.state.activities[&id].activity_id.clone();
                story.fail(&name, app_failure("no", *permanent));
            }
        }
        Step::GiveBack(i) => {
            let (id, attempt) = pick(story, *i).unwrap_or((5, 1));
            story.give_back(id, attempt);
        }
        Step::Heartbeat(i) => {
            let (scheduled_event_id, attempt) = pick(story, *i).unwrap_or((5, 1));
            let activity = ActivityRef::Attempt {
                scheduled_event_id,
                attempt,
            };
            let beat = HeartbeatActivity {
                activity,
                details: Some(common::payloads("50 %")),
            };
            let _ = story.ask("heartbeat", &Request::HeartbeatActivity(Box::new(beat)));
        }
        Step::Progress(i) => {
            let activity = ActivityRef::Scheduled(pick(story, *i).map_or(5, |(id, _)| id));
            let update = common::payloads("half").payloads.remove(0);
            let _ = story.ask(
                "progress",
                &Request::ReportActivityProgress(Box::new(ReportActivityProgress {
                    activity,
                    update,
                })),
            );
        }
        Step::Signal(id) => story.signal_with_id(
            "s",
            &if *id == 0 {
                String::new()
            } else {
                format!("r{id}")
            },
        ),
        Step::Cancel => {
            let _ = story.ask("cancel", &Request::RequestCancel(Box::default()));
        }
        Step::Wait(ms) => {
            story.advance_ms(i64::from(*ms));
            story.fire();
        }
        Step::Terminate => story.terminate(),
        Step::Cross => story.cross(),
        Step::ChildStartFailed(i) => {
            let request = Request::ChildStartFailed(ChildStartFailed {
                initiated_event_id: child(story, *i),
                cause: StartChildWorkflowExecutionFailedCause::WorkflowAlreadyExists,
            });
            let _ = story.ask("child start failed", &request);
        }
        Step::ChildClosed(i, how) => {
            let outcome = match how {
                0 => ChildOutcome::Completed(Some(common::payloads("done"))),
                1 => ChildOutcome::Failed(
                    Some(Box::new(app_failure("no", false))),
                    RetryState::InProgress,
                ),
                2 => ChildOutcome::Canceled(None),
                3 => ChildOutcome::Terminated,
                _ => ChildOutcome::TimedOut(RetryState::Timeout),
            };
            story.child_closes(child(story, *i), outcome);
        }
        Step::Undeliverable(i) => {
            let deliveries = &story.state.deliveries;
            let id = deliveries
                .keys()
                .nth(i % deliveries.len().max(1))
                .copied()
                .unwrap_or(5);
            let _ = story.ask(
                "undeliverable",
                &common::delivered(id, Err(Undeliverable::ExecutionNotFound)),
            );
        }
        Step::Attach(id) => {
            let attach = AttachStart {
                request_id: if *id == 0 {
                    String::new()
                } else {
                    format!("attach-{id}")
                },
                ..AttachStart::default()
            };
            let _ = story.ask("attach", &Request::Attach(Box::new(attach)));
        }
        Step::Operate(what, i, ms) => {
            let id = pick(story, *i).map(|(id, _)| story.state.activities[&id].activity_id.clone());
            let choice = match id {
                Some(id) if *i < 4 => ActivityChoice::Id(id),
                Some(_) => ActivityChoice::All,
                None => ActivityChoice::Type("nothing".to_owned()),
            };
            let _ = story.ask("operate", &common::operate(*what, choice, *ms));
        }
        Step::StartAgain(same) => story.start_again(if *same { "start-1" } else { "start-2" }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_sequence_of_requests_keeps_the_invariants(kind in 0u8..4, steps in prop::collection::vec(step(), 1..60)) {
        let mut story = begin(kind);
        for step in &steps {
            play(&mut story, step);
        }
        // Folding a prefix and then the rest equals folding all, also through a snapshot in between.
        for cut in [0, story.records.len() / 3, story.records.len() / 2, story.records.len()] {
            let (head, tail) = story.records.split_at(cut);
            let mut state = replay::fold(head).unwrap();
            if let Some(bytes) = snapshot::encode(&state) {
                prop_assert_eq!(snapshot::decode(&bytes), Some(state.clone()));
            }
            replay::fold_onto(&mut state, tail).unwrap();
            prop_assert_eq!(&state, &story.state);
        }
        // Nothing is recorded as of a moment that is still to come.
        for record in &story.records {
            prop_assert!(record.at() <= story.now, "{record:?}");
        }
        // What is asked of others can be done, and is then not asked any more.
        story.cross();
        prop_assert!(outward::ids(&story.state).is_empty());
        prop_assert_eq!(outward::due(&story.state), None);
        // What is due is due in the future, or was just fired.
        if let Some(due) = story.state.next_due() {
            story.now = due.0;
            let before = story.records.len();
            story.fire();
            prop_assert!(story.records.len() > before, "something due at {due:?} fired nothing");
        }
    }

    #[test]
    fn a_journal_with_a_record_left_out_or_swapped_does_not_fold(
        steps in prop::collection::vec(step(), 10..40),
        at in any::<prop::sample::Index>(),
    ) {
        let mut story = Story::started();
        for step in &steps {
            play(&mut story, step);
        }
        let events: Vec<usize> = (0..story.records.len()).filter(|i| story.records[*i].event().is_some()).collect();
        let lost = events[at.index(events.len())];
        let mut records = story.records.clone();
        records.remove(lost);
        if lost != *events.last().unwrap() {
            prop_assert!(replay::fold(&records).is_err());
        }
    }
}
