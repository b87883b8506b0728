//! Properties over random request sequences. `Story::ask` holds, after each request: decide yields only what apply
//! accepts, a rejection leaves no trace, replay equals state, and the kept queue index equals the rebuilt one.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::{
    Story, activity_command, app_failure, cancel_activity, cancel_timer, complete_command,
    timer_command,
};
use orchestrion_history::request::{
    ActivityRef, HeartbeatActivity, ReportActivityProgress, Request,
};
use orchestrion_history::{replay, snapshot};
use orchestrion_proto::temporal::api::command::v1::Command;
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
}

#[derive(Debug, Clone)]
enum Order {
    Activity(u8),
    CancelActivity(usize),
    Timer(u8, u32),
    CancelTimer(u8),
    Complete,
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![
        6 => (0u8..6).prop_map(Order::Activity),
        2 => (0usize..6).prop_map(Order::CancelActivity),
        3 => (0u8..3, 1u32..20_000).prop_map(|(id, ms)| Order::Timer(id, ms)),
        2 => (0u8..3).prop_map(Order::CancelTimer),
        1 => Just(Order::Complete),
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
    ]
}

fn pick(story: &Story, index: usize) -> Option<(i64, i32)> {
    let activities = &story.state.activities;
    let (id, activity) = activities.iter().nth(index % activities.len().max(1))?;
    Some((*id, activity.attempt))
}

fn commands(story: &Story, orders: &[Order]) -> Vec<Command> {
    let to_command = |order: &Order| match order {
        Order::Activity(id) => activity_command(&format!("a{id}")),
        Order::CancelActivity(i) => cancel_activity(pick(story, *i).map_or(999, |(id, _)| id)),
        Order::Timer(id, ms) => timer_command(&format!("t{id}"), i64::from(*ms)),
        Order::CancelTimer(id) => cancel_timer(&format!("t{id}")),
        Order::Complete => complete_command(),
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
        Step::StartAgain(same) => story.start_again(if *same { "start-1" } else { "start-2" }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_sequence_of_requests_keeps_the_invariants(steps in prop::collection::vec(step(), 1..60)) {
        let mut story = Story::started();
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
