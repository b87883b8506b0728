//! Who is kept, for how long, and who has to leave.

use orchestrion_history::wire::timestamp;
use orchestrion_proto::temporal::api::enums::v1::WorkerStatus;
use orchestrion_proto::temporal::api::worker::v1::WorkerHostInfo;

use super::*;

fn namespace(name: &str) -> Namespace {
    Namespace::parse(name).unwrap()
}

fn worker(key: &str, status: WorkerStatus) -> WorkerHeartbeat {
    WorkerHeartbeat {
        worker_instance_key: key.to_owned(),
        worker_identity: "me@here".to_owned(),
        task_queue: "orders".to_owned(),
        status: status.into(),
        start_time: Some(timestamp(5_000_000_000)),
        host_info: Some(WorkerHostInfo {
            host_name: "here".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn keys(workers: &Workers, namespace: &Namespace, now: Timestamp) -> Vec<String> {
    let all = workers.after(namespace, "", now);
    all.map(|worker| worker.worker_instance_key).collect()
}

#[test]
fn a_namespace_sees_its_own_workers_and_no_others() {
    let (ours, theirs) = (namespace("ours"), namespace("theirs"));
    let workers = Workers::default();
    let now = Timestamp(1);
    let sent = worker("a", WorkerStatus::Running);
    let slice = std::slice::from_ref(&sent);
    workers.record(&ours, slice, now).unwrap();
    assert_eq!(workers.get(&ours, "a", now), Some(sent));
    assert_eq!(workers.get(&theirs, "a", now), None);
    assert_eq!(keys(&workers, &theirs, now), [""; 0]);
}

#[test]
fn a_page_begins_after_the_last_key_of_the_one_before() {
    let ours = namespace("ours");
    let workers = Workers::default();
    let sent = ["c", "a", "b"].map(|key| worker(key, WorkerStatus::Running));
    workers.record(&ours, &sent, Timestamp(1)).unwrap();
    assert_eq!(keys(&workers, &ours, Timestamp(1)), ["a", "b", "c"]);
    let rest = workers.after(&ours, "a", Timestamp(1));
    let rest: Vec<_> = rest.map(|worker| worker.worker_instance_key).collect();
    assert_eq!(rest, ["b", "c"]);
}

#[test]
fn who_is_silent_is_forgotten() {
    let (ours, theirs) = (namespace("ours"), namespace("theirs"));
    let workers = Workers::default();
    let begun = Timestamp::ZERO.plus(SWEEP);
    workers
        .record(&ours, &[worker("a", WorkerStatus::Running)], begun)
        .unwrap();
    let late = begun.plus(KEPT);
    assert_eq!(workers.get(&ours, "a", late), None);
    assert_eq!(keys(&workers, &ours, late), [""; 0]);
    // Also from memory, once anybody says something.
    workers
        .record(&theirs, &[worker("b", WorkerStatus::Running)], late)
        .unwrap();
    assert!(!workers.lock().by_name.contains_key(&ours));
}

#[test]
fn a_late_heartbeat_does_not_bring_back_who_shut_down() {
    let ours = namespace("ours");
    let workers = Workers::default();
    let now = Timestamp(1);
    for status in [
        WorkerStatus::Running,
        WorkerStatus::ShuttingDown,
        WorkerStatus::Running,
    ] {
        workers.record(&ours, &[worker("a", status)], now).unwrap();
    }
    let last = workers.get(&ours, "a", now).unwrap();
    assert_eq!(last.status(), WorkerStatus::ShuttingDown);
}

#[test]
fn a_namespace_that_is_full_forgets_its_oldest() {
    let (ours, theirs) = (namespace("ours"), namespace("theirs"));
    let workers = Workers::default();
    workers
        .record(&theirs, &[worker("0", WorkerStatus::Running)], Timestamp(1))
        .unwrap();
    let late = |n: usize| Timestamp(2 + i64::try_from(n).unwrap());
    for n in 0..=WORKERS_MAX {
        let sent = worker(&n.to_string(), WorkerStatus::Running);
        workers.record(&ours, &[sent], late(n)).unwrap();
    }
    let now = late(WORKERS_MAX);
    assert_eq!(keys(&workers, &ours, now).len(), WORKERS_MAX);
    assert_eq!(workers.get(&ours, "0", now), None);
    assert!(workers.get(&ours, "1", now).is_some() && workers.get(&theirs, "0", now).is_some());
}

#[test]
fn the_largest_namespace_makes_room() {
    let (ours, theirs) = (namespace("ours"), namespace("theirs"));
    let workers = Workers::default();
    let now = Timestamp(1);
    workers
        .record(&theirs, &[worker("0", WorkerStatus::Running)], now)
        .unwrap();
    let mut large = worker("0", WorkerStatus::Running);
    large.sdk_name = "s".repeat(HEARTBEAT_BYTES_MAX - 200);
    let sent = 2 * BYTES_MAX / HEARTBEAT_BYTES_MAX;
    for n in 0..sent {
        large.worker_instance_key = n.to_string();
        let slice = std::slice::from_ref(&large);
        workers.record(&ours, slice, now).unwrap();
    }
    let held = workers.lock().bytes();
    assert!(held <= BYTES_MAX && held > BYTES_MAX - 2 * HEARTBEAT_BYTES_MAX);
    assert!(workers.get(&theirs, "0", now).is_some());
    for tenant in workers.lock().by_name.values() {
        let counted = tenant.workers.iter();
        let counted: usize = counted.map(|(key, entry)| entry.bytes(key)).sum();
        assert_eq!(counted, tenant.bytes);
        assert_eq!(tenant.by_age.len(), tenant.workers.len());
    }
}

#[test]
fn a_heartbeat_that_cannot_be_kept_is_refused_with_all_it_came_with() {
    let ours = namespace("ours");
    let workers = Workers::default();
    let mut large = worker("b", WorkerStatus::Running);
    large.sdk_name = "s".repeat(HEARTBEAT_BYTES_MAX);
    let long = "k".repeat(ID_BYTES_MAX + 1);
    for (bad, says) in [
        (worker("", WorkerStatus::Running), "no worker_instance_key"),
        (
            worker(&long, WorkerStatus::Running),
            "worker instance key has 1001 bytes",
        ),
        (large, "the heartbeat of worker b has"),
    ] {
        let sent = [worker("a", WorkerStatus::Running), bad];
        let refused = workers.record(&ours, &sent, Timestamp(1)).unwrap_err();
        assert!(refused.to_string().starts_with(says) || refused.to_string().contains(says));
    }
    assert_eq!(keys(&workers, &ours, Timestamp(1)), [""; 0]);
}

#[test]
fn queries_ask_for_what_a_heartbeat_says() {
    let sent = worker("a", WorkerStatus::ShuttingDown);
    for (text, holds) in [
        (r#"WorkerInstanceKey="a""#, true),
        ("WorkerInstanceKey IN ('b', 'c')", false),
        ("WorkerIdentity = 'me@here' AND HostName = 'here'", true),
        ("TaskQueue STARTS_WITH 'ord'", true),
        ("Status = 'ShuttingDown'", true),
        ("Status != 'ShuttingDown'", false),
        ("StartTime > '1970-01-01T00:00:04Z'", true),
        ("StartTime > '1970-01-01T00:00:06Z'", false),
        ("BuildId IS NULL AND SdkName IS NULL", true),
        ("HeartbeatTime IS NOT NULL", false),
    ] {
        let filter = query::filter(text).unwrap().unwrap();
        assert_eq!(filter.holds(&sent), holds, "{text}");
    }
    assert_eq!(query::filter("").unwrap(), None);
}

#[test]
fn queries_about_workers_know_nothing_of_runs() {
    for (text, says) in [
        ("WorkflowId = 'w'", "WorkflowId is not defined"),
        ("TemporalScheduledById = 'w'", "ask for one of BuildId"),
        ("taskqueue = 'w'", "did you mean TaskQueue?"),
        ("GROUP BY ExecutionStatus", "leave GROUP BY out"),
        ("ORDER BY StartTime DESC", "leave ORDER BY out"),
        ("StartTime = 'soon'", "an instant"),
    ] {
        let refused = query::filter(text).unwrap_err().to_string();
        assert!(refused.contains(says), "{text}: {refused}");
    }
}
