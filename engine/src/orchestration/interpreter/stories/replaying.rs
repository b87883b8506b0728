//! Histories that were changed: a replay finds out.

use super::*;

#[test]
fn swapped_commands_are_found() {
    let world = World::of_tasks(&[task("task1", &[]), task("task2", &[])]);
    let mut events = world.events.clone();
    let [a, b] = &mut events[4..6] else {
        panic!("two tasks are scheduled")
    };
    std::mem::swap(&mut a.attributes, &mut b.attributes);
    let error = replay(&events).unwrap_err();
    assert_eq!(
        error.to_string(),
        "event 5 is ActivityTaskScheduled task2, but the plan's code asks for ActivityTaskScheduled task1"
    );
}

#[test]
fn changed_commands_are_found() {
    let world = joined();
    let at = world
        .events
        .iter()
        .rposition(|e| e.event_type() == EventType::ActivityTaskScheduled)
        .unwrap();
    let mut events = world.events.clone();
    let Some(Attributes::ActivityTaskScheduledEventAttributes(a)) = &mut events[at].attributes
    else {
        panic!()
    };
    a.input = Some(json_payloads(
        &json!({"message": "hello", "of_task1": 1, "of_task2": 3}),
    ));
    a.task_queue.as_mut().unwrap().name = "s_other".to_owned();
    let error = replay(&events).unwrap_err();
    assert_eq!(error.event_id, at as i64 + 1);
    assert_eq!(
        error.found,
        "ActivityTaskScheduled task3 with another queue, input"
    );
}

#[test]
fn missing_and_foreign_commands_are_found() {
    let mut world = joined();
    world.completed("task3", done(3)).turn();
    let without = |n: usize| {
        let mut events = world.events.clone();
        events.remove(n);
        replay(&events)
    };
    let scheduled = world
        .events
        .iter()
        .rposition(|e| e.event_type() == EventType::ActivityTaskScheduled)
        .unwrap();
    assert_eq!(
        without(scheduled).unwrap_err().expected,
        "ActivityTaskScheduled task3"
    );
    let mut events = world.events.clone();
    events[scheduled].event_type = EventType::MarkerRecorded.into();
    let marker = MarkerRecordedEventAttributes {
        marker_name: "note".to_owned(),
        ..Default::default()
    };
    events[scheduled].attributes = Some(Attributes::MarkerRecordedEventAttributes(marker));
    assert_eq!(replay(&events).unwrap_err().found, "MarkerRecorded note");
}

#[test]
fn a_turn_that_was_not_recorded_is_found() {
    let world = World::of_tasks(&[task("task1", &[])]);
    let mut live = world.live.clone();
    live.turn(Timestamp::from_millis(world.now_ms));
    let failed = HistoryEvent {
        event_id: 9,
        event_type: EventType::WorkflowTaskFailed.into(),
        attributes: Some(Attributes::WorkflowTaskFailedEventAttributes(
            Default::default(),
        )),
        ..Default::default()
    };
    assert!(live.apply(&failed).is_err());
    assert_eq!(
        world.live.clone().apply(&failed),
        Ok(()),
        "a failed workflow task in a history is nothing to replay"
    );

    let mut live = Interpreter::new();
    live.apply(&world.events[0]).unwrap();
    assert_eq!(
        live.turn(Timestamp::from_millis(world.now_ms))
            .commands
            .len(),
        1
    );
    assert_eq!(
        live.turn(Timestamp::from_millis(world.now_ms))
            .commands
            .len(),
        0
    );
    assert!(
        world.events[1..4]
            .iter()
            .try_for_each(|event| live.apply(event))
            .is_err(),
        "the first turn is lost"
    );
}
