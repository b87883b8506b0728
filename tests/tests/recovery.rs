//! The engine over a store that lost its indexes, holds a damaged journal, or is full: a clear decision each, and nothing lost.
#![allow(missing_docs, clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrion::engine::{
    CallError, Engine, EngineOptions, Keep, NoSurroundings, Surroundings, Target,
};
use orchestrion::orchestration::submission::json_payloads;
use orchestrion::orchestration::{Action, Effect, Submission, WORKFLOW_QUEUE, WORKFLOW_TYPE};
use orchestrion::plan::{Plan, PlanTask};
use orchestrion::seams::{Clock, ManualClock, SeededChance};
use orchestrion_history::ids::{Namespace, ShardId, TaskQueueName, Timestamp, WorkflowId};
use orchestrion_history::request::{ActivityRef, CompleteActivity, Request, StartWorkflow};
use orchestrion_history::state::Status;
use orchestrion_history::store::{
    Batch, Key, KeyRange, MemoryStore, Op, RocksStore, RocksStoreOptions, ShardWrite, Store,
    StoreErrorKind,
};
use serde_json::{Map, json};

const EPOCH: Timestamp = Timestamp(1_700_000_000_000_000_000);

fn engine(store: &Arc<dyn Store>, clock: &ManualClock) -> Engine {
    engine_with(store, clock, |_| {})
}

fn engine_with(
    store: &Arc<dyn Store>,
    clock: &ManualClock,
    change: impl FnOnce(&mut EngineOptions),
) -> Engine {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let mut options = EngineOptions {
        shards: 2,
        retention: Duration::from_secs(60),
        retention_sweep: Duration::from_secs(1),
        ..EngineOptions::default()
    };
    change(&mut options);
    Engine::start(
        store.clone(),
        clock,
        Box::new(SeededChance::new(1)),
        Box::new(NoSurroundings),
        options,
    )
    .unwrap()
}

fn tenant() -> Namespace {
    Namespace::parse("p_1").unwrap()
}

fn target(id: &str) -> Target {
    Target {
        namespace: tenant(),
        workflow_id: WorkflowId::parse(id).unwrap(),
        run_id: None,
    }
}

fn start(id: &str) -> StartWorkflow {
    let task = |id: &str| PlanTask {
        id: id.to_owned(),
        service: "s_one".to_owned(),
        service_name: "one".to_owned(),
        revertible: false,
        input: Map::new(),
        depends_on: Vec::new(),
    };
    let submission = Submission {
        webhook: None,
        action: Action {
            kind: String::new(),
            content: "do it".to_owned(),
        },
        data: Vec::new(),
        plan: Some(Plan {
            task_zero: Map::new(),
            tasks: vec![task("task1"), task("task2")],
            parallel_groups: Vec::new(),
        }),
        ..Submission::default()
    };
    StartWorkflow {
        workflow_id: id.to_owned(),
        workflow_type: WORKFLOW_TYPE.to_owned(),
        task_queue: WORKFLOW_QUEUE.to_owned(),
        input: Some(json_payloads(&submission)),
        request_id: format!("start-{id}"),
        ..Default::default()
    }
}

fn index(store: &dyn Store) -> Vec<(Key, Bytes)> {
    let shards = [ShardId(0), ShardId(1)];
    let of = |range: KeyRange| store.scan(&range, usize::MAX, false).unwrap().entries;
    shards
        .iter()
        .flat_map(|s| {
            [
                of(KeyRange::queues(*s)),
                of(KeyRange::timers(*s)),
                of(KeyRange::listings(*s)),
                KeyRange::lines(*s).map(of).concat(),
            ]
            .concat()
        })
        .collect()
}

/// Serves every task of the queue until `ids` have ended.
async fn finish(engine: &Engine, ids: &[&str]) {
    finish_with(engine, ids, &json!({"ok": true})).await;
}

async fn finish_with(engine: &Engine, ids: &[&str], output: &serde_json::Value) {
    let handle = engine.handle();
    let queue = TaskQueueName::parse("s_one").unwrap();
    let mut session = handle
        .attach(Some(tenant()), queue, "worker".to_owned(), 4)
        .await
        .unwrap();
    for _ in 0..ids.len() * 2 {
        let dispatch = session.tasks.recv().await.unwrap();
        let complete = CompleteActivity {
            activity: ActivityRef::Scheduled(dispatch.scheduled_event_id),
            result: Some(json_payloads(
                &json!({"task": output, "compensation": null}),
            )),
            identity: "worker".to_owned(),
        };
        let target = Target {
            namespace: dispatch.namespace,
            workflow_id: dispatch.workflow_id,
            run_id: Some(dispatch.run_id),
        };
        handle
            .request(target, Request::CompleteActivity(Box::new(complete)))
            .await
            .unwrap();
        handle.release(session.id);
    }
    for id in ids {
        assert_eq!(
            handle.state(target(id)).await.unwrap().status,
            Status::Completed,
            "{id}"
        );
    }
}

#[tokio::test]
async fn dropped_indexes_are_rebuilt_from_the_journals() {
    let folder = tempfile::tempdir().unwrap();
    let options = || RocksStoreOptions {
        shards: 2,
        ..RocksStoreOptions::default()
    };
    let clock = ManualClock::at(EPOCH);
    let ids = ["o_1", "o_2", "o_3", "o_4", "o_5"];
    let kept = {
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(folder.path(), options()).unwrap());
        let engine = engine(&store, &clock);
        for id in ids {
            engine.handle().start(tenant(), start(id)).await.unwrap();
        }
        engine.stop();
        let kept = index(&*store);
        store.drop_indexes().unwrap();
        assert!(index(&*store).is_empty());
        kept
    };
    let store: Arc<dyn Store> = Arc::new(RocksStore::open(folder.path(), options()).unwrap());
    let engine = engine(&store, &clock);
    assert_eq!(index(&*store), kept);
    finish(&engine, &ids).await;
    engine.stop();
}

#[tokio::test]
async fn a_damaged_journal_is_quarantined_and_the_others_go_on() {
    let store = MemoryStore::new();
    let clock = ManualClock::at(EPOCH);
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let first = engine(&shared, &clock);
    for id in ["o_good", "o_bad"] {
        first.handle().start(tenant(), start(id)).await.unwrap();
    }
    let run = first
        .handle()
        .current_run(&tenant(), &WorkflowId::parse("o_bad").unwrap())
        .unwrap()
        .unwrap();
    first.stop();

    let shard = ShardId::of(&tenant(), &WorkflowId::parse("o_bad").unwrap(), 2);
    let key = Key::Journal {
        shard,
        namespace: tenant(),
        run_id: run,
        first_seq: 1,
    };
    let mut entry = shared.get(&key).unwrap().unwrap().to_vec();
    let last = entry.len() - 1;
    entry.truncate(last);
    let range = shared.acquire(shard).unwrap();
    let ops = vec![Op::Put(key.clone(), entry.clone().into())];
    shared
        .commit(&Batch {
            shards: vec![ShardWrite { shard, range, ops }],
        })
        .unwrap();

    let second = engine(&shared, &clock);
    let error = second.handle().state(target("o_bad")).await.unwrap_err();
    assert!(matches!(&error, CallError::Quarantined { .. }), "{error}");
    assert!(error.to_string().contains("o_bad"), "{error}");
    assert_eq!(
        shared.get(&key).unwrap().unwrap(),
        entry,
        "what is damaged is kept as it is"
    );
    // Nobody waits for the damaged one's tasks: only those of the good one are handed out.
    finish(&second, &["o_good"]).await;
    second.stop();
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    let store = MemoryStore::new();
    let clock = ManualClock::at(EPOCH);
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let engine = engine(&shared, &clock);
    let handle = engine.handle();
    handle.start(tenant(), start("o_1")).await.unwrap();

    store.fail_next_commit(StoreErrorKind::Full);
    let refused = handle.start(tenant(), start("o_2")).await.unwrap_err();
    assert!(matches!(refused, CallError::Unavailable(_)), "{refused}");
    assert!(
        handle
            .current_run(&tenant(), &WorkflowId::parse("o_2").unwrap())
            .unwrap()
            .is_none(),
        "a refusal leaves no trace"
    );
    // It stops accepting for a moment, then goes on.
    let still = handle.start(tenant(), start("o_3")).await.unwrap_err();
    assert!(matches!(still, CallError::Unavailable(_)), "{still}");
    clock.advance(Duration::from_secs(1));
    handle.start(tenant(), start("o_2")).await.unwrap();
    finish(&engine, &["o_1", "o_2"]).await;
    engine.stop();
}

/// Two engines over one store: the second takes back what the first's workers have, and ends.
#[tokio::test]
async fn what_another_engine_took_back_is_handed_out_again() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::at(EPOCH);
    let first = engine(&store, &clock);
    let handle = first.handle();
    let queue = TaskQueueName::parse("s_one").unwrap();
    let attached = handle.attach(Some(tenant()), queue, "worker".to_owned(), 8);
    let mut session = attached.await.unwrap();
    handle.start(tenant(), start("o_1")).await.unwrap();
    let mut had = Vec::new();
    for _ in 0..2 {
        had.push(session.tasks.recv().await.unwrap().activity_id);
    }
    engine(&store, &clock).stop();

    let refused = handle.start(tenant(), start("o_2")).await.unwrap_err();
    assert!(matches!(refused, CallError::Unavailable(_)), "{refused}");
    clock.advance(Duration::from_secs(1));
    handle.state(target("o_1")).await.unwrap();
    let mut again = Vec::new();
    for _ in 0..2 {
        let patience = Duration::from_secs(20);
        let dispatch = tokio::time::timeout(patience, session.tasks.recv()).await;
        let dispatch = dispatch.expect("what was taken back is handed out again");
        again.push(dispatch.unwrap().activity_id);
    }
    assert_eq!(again, had);
    first.stop();
}

#[tokio::test]
async fn closed_runs_leave_after_their_retention_and_open_ones_stay() {
    let store = MemoryStore::new();
    let clock = ManualClock::at(EPOCH);
    let shared: Arc<dyn Store> = Arc::new(store.clone());
    let engine = engine(&shared, &clock);
    let handle = engine.handle();
    handle.start(tenant(), start("o_done")).await.unwrap();
    finish(&engine, &["o_done"]).await;
    clock.advance(Duration::from_secs(120));
    handle.start(tenant(), start("o_open")).await.unwrap();
    clock.advance(Duration::from_secs(2));
    // Any call makes a round, and a round sweeps.
    let _ = handle.state(target("o_open")).await.unwrap();
    assert!(matches!(
        handle.state(target("o_done")).await,
        Err(CallError::Rejected(_))
    ));
    let listed: Vec<String> = handle
        .list(&tenant(), 10)
        .unwrap()
        .into_iter()
        .map(|l| l.workflow_id)
        .collect();
    assert_eq!(listed, ["o_open"]);
    let journals = [ShardId(0), ShardId(1)].map(|s| {
        shared
            .scan(&KeyRange::run_heads(s), 10, false)
            .unwrap()
            .entries
            .len()
    });
    assert_eq!(journals.iter().sum::<usize>(), 1);
    let lines = [ShardId(0), ShardId(1)]
        .iter()
        .flat_map(|shard| KeyRange::lines(*shard))
        .map(|range| shared.scan(&range, 10, false).unwrap().entries.len());
    assert_eq!(lines.sum::<usize>(), 3, "by id, by type, by status");
    engine.stop();
}

/// Keeps closed runs of `p_long` for an hour, and nothing of `p_gone`.
struct Keeping;

impl Surroundings for Keeping {
    fn outbox_entries(&self, _namespace: &Namespace, _effect: &Effect) -> Vec<(Key, Bytes)> {
        Vec::new()
    }

    fn outbox_committed(&self, _keys: Vec<Key>) {}

    fn keep(&self, namespace: &Namespace) -> Keep {
        match namespace.as_str() {
            "p_long" => Keep::For(Duration::from_secs(3_600)),
            "p_gone" => Keep::Nothing,
            _ => Keep::AsSet,
        }
    }
}

#[tokio::test]
async fn each_namespace_keeps_its_runs_for_its_own_time() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::at(EPOCH);
    let options = EngineOptions {
        shards: 2,
        retention: Duration::from_secs(60),
        retention_sweep: Duration::from_secs(1),
        ..EngineOptions::default()
    };
    let engine = Engine::start(
        store.clone(),
        Arc::new(clock.clone()),
        Box::new(SeededChance::new(1)),
        Box::new(Keeping),
        options,
    )
    .unwrap();
    let handle = engine.handle();
    let names = ["p_1", "p_long", "p_gone"].map(|name| Namespace::parse(name).unwrap());
    for name in &names {
        handle.start(name.clone(), start("o_1")).await.unwrap();
        if name.as_str() != "p_gone" {
            let target = Target {
                namespace: name.clone(),
                ..target("o_1")
            };
            let end = Request::Terminate(Box::default());
            handle.request(target, end).await.unwrap();
        }
    }
    let sweep = async |by: u64| {
        // Pages of a sweep lie a little apart, and what one ended the next removes.
        clock.advance(Duration::from_secs(by));
        for _ in 0..20 {
            clock.advance(Duration::from_millis(300));
            let _ = handle
                .presence(names[0].clone(), TaskQueueName::parse("q").unwrap())
                .await;
        }
        names
            .each_ref()
            .map(|name| handle.list(name, 10).unwrap().len())
    };
    assert_eq!(
        sweep(5).await,
        [1, 1, 0],
        "an open run of a deleted namespace is ended"
    );
    assert_eq!(sweep(120).await, [0, 1, 0]);
    assert_eq!(sweep(3_600).await, [0, 0, 0]);
    engine.stop();
}

fn payload_keys(store: &dyn Store) -> usize {
    let heads = [ShardId(0), ShardId(1)]
        .map(|shard| store.scan(&KeyRange::run_heads(shard), 10, false).unwrap());
    let runs = heads.iter().flat_map(|page| &page.entries);
    runs.map(|(key, _)| {
        let Key::RunHead {
            shard,
            namespace,
            run_id,
        } = key
        else {
            unreachable!("a range of run heads")
        };
        let range = KeyRange::payloads_of(*shard, namespace, *run_id);
        store.scan(&range, 10, false).unwrap().entries.len()
    })
    .sum()
}

#[tokio::test]
async fn a_large_result_is_stored_once_and_read_back_whole() {
    let shared: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::at(EPOCH);
    let large = json!({"text": "x".repeat(1024 * 1024)});
    let before = {
        let engine = engine(&shared, &clock);
        engine.handle().start(tenant(), start("o_1")).await.unwrap();
        finish_with(&engine, &["o_1"], &large).await;
        let run = engine.handle().journal(&target("o_1")).unwrap().unwrap();
        engine.stop();
        run
    };
    assert_eq!(
        payload_keys(&*shared),
        2,
        "both tasks' result, and that of the run"
    );
    let bytes: usize = before.records.iter().map(|r| r.encoded_len()).sum();
    assert!(bytes > 3 * 1024 * 1024, "what is read is whole: {bytes}");

    let engine = engine(&shared, &clock);
    let state = engine.handle().state(target("o_1")).await.unwrap();
    assert_eq!(state.status, Status::Completed);
    let after = engine.handle().journal(&target("o_1")).unwrap().unwrap();
    assert_eq!(before.records, after.records);

    clock.advance(Duration::from_secs(120));
    engine.handle().start(tenant(), start("o_2")).await.unwrap();
    assert_eq!(payload_keys(&*shared), 0, "payloads leave with their run");
    engine.stop();
}

#[tokio::test]
async fn a_long_run_that_leaves_memory_leaves_a_snapshot() {
    let shared: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let clock = ManualClock::at(EPOCH);
    let engine = engine_with(&shared, &clock, |options| options.cached_executions_max = 2);
    let handle = engine.handle();
    for id in ["w_1", "w_2", "w_3", "w_4"] {
        let code = StartWorkflow {
            workflow_type: "code".to_owned(),
            task_queue: "anybody".to_owned(),
            ..start(id)
        };
        handle.start(tenant(), code).await.unwrap();
        for _ in 0..80 {
            let signal = orchestrion_history::request::SignalWorkflow {
                name: "s".to_owned(),
                ..Default::default()
            };
            let signal = Request::Signal(Box::new(signal));
            handle.request(target(id), signal).await.unwrap();
        }
    }
    let run = handle
        .current_run(&tenant(), &target("w_1").workflow_id)
        .unwrap()
        .unwrap();
    let shard = ShardId::of(&tenant(), &target("w_1").workflow_id, 2);
    let key = Key::Snapshot {
        shard,
        namespace: tenant(),
        run_id: run,
    };
    assert!(shared.get(&key).unwrap().is_some());
    let journal = handle.journal(&target("w_1")).unwrap().unwrap();
    let folded = orchestrion_history::replay::fold(&journal.records).unwrap();
    assert_eq!(handle.state(target("w_1")).await.unwrap(), folded);
    engine.stop();
}
