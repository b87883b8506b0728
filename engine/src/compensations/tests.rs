//! What is kept of failed reverts, from the first failure to the retry that worked.

use orchestrion_history::ids::TaskQueueName;
use orchestrion_history::request::{ActivityRef, CompleteActivity, Request};
use orchestrion_history::store::{MemoryStore, Store};
use serde_json::json;

use super::*;
use crate::engine::handle::Session;
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::orchestration::submission::json_payloads;
use crate::registry::{NewProject, Registration, Registry, ServiceKind};
use crate::seams::{SystemChance, SystemClock};

struct Stage {
    store: Arc<dyn Store>,
    engine: Engine,
    compensations: Compensations,
    project: Namespace,
    service: String,
}

fn open(store: &Arc<dyn Store>) -> (Engine, Registrar, Compensations) {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let engine = Engine::start(
        store.clone(),
        clock.clone(),
        Box::new(SystemChance),
        Box::new(NoSurroundings),
        EngineOptions::default(),
    )
    .unwrap();
    let registry = Registry::load(&**store).unwrap();
    let handle = engine.handle();
    let registrar = Registrar::new(
        registry,
        handle.clone(),
        Arc::new(SystemChance),
        clock.clone(),
    );
    let compensations = Compensations::new(handle, registrar.clone(), clock, &Settings::default());
    (engine, registrar, compensations)
}

impl Stage {
    async fn set() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let (engine, registrar, compensations) = open(&store);
        let created = registrar
            .create_project(NewProject::default(), &Actor::ENGINE)
            .await
            .unwrap();
        let project = Namespace::parse(&created.project.id).unwrap();
        let object = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let registration = Registration {
            id: None,
            kind: ServiceKind::Service,
            name: "pay".into(),
            description: "pays".into(),
            input_schema: object.clone(),
            output_schema: object,
            revertible: true,
        };
        let service = registrar
            .register_service(&project, registration, &Actor::ENGINE)
            .await
            .unwrap();
        Self {
            store,
            engine,
            compensations,
            project,
            service: service.service.id,
        }
    }

    fn restart(self) -> Self {
        self.engine.stop();
        let (engine, _, compensations) = open(&self.store);
        Self {
            engine,
            compensations,
            ..self
        }
    }

    fn record(&self) -> CompensationFailure {
        CompensationFailure {
            id: "c_1".into(),
            orchestration_id: "o_gone".into(),
            task_id: "task1".into(),
            service_id: self.service.clone(),
            service_name: "pay".into(),
            data_json: r#"{"a" : 1.0}"#.into(),
            context_json: r#"{"reason":"failed"}"#.into(),
            ttl_ms: 5,
            status: "failed".into(),
            resolution_state: "pending".into(),
            ..Default::default()
        }
    }

    async fn write(&self, record: &CompensationFailure) {
        let key = key_of(&self.project, &record.id);
        let op = Op::Put(key, record.encode_to_vec().into());
        self.engine.handle().put(vec![op]).await.unwrap();
    }

    async fn worker(&self) -> Session {
        let queue = TaskQueueName::parse(&self.service).unwrap();
        let project = Some(self.project.clone());
        let handle = self.engine.handle();
        handle
            .attach(project, queue, "pay".into(), 1)
            .await
            .unwrap()
    }

    /// Answers the next revert a worker is given; its input.
    async fn answer(&self, worker: &mut Session, status: &str) -> Vec<u8> {
        let asked = worker.tasks.recv().await.expect("a revert is asked for");
        assert_eq!(asked.activity_type, "pay.revert");
        let target = Target {
            namespace: asked.namespace.clone(),
            workflow_id: asked.workflow_id.clone(),
            run_id: Some(asked.run_id),
        };
        let complete = CompleteActivity {
            activity: ActivityRef::Scheduled(asked.scheduled_event_id),
            result: Some(json_payloads(&json!({ "status": status }))),
            identity: "pay".into(),
        };
        let request = Request::CompleteActivity(Box::new(complete));
        let handle = self.engine.handle();
        handle.request(target, request).await.unwrap();
        asked.input.unwrap().payloads[0].data.clone()
    }

    async fn ended(&self) -> CompensationFailure {
        for _ in 0..1_000 {
            let record = self.compensations.find(&self.project, "c_1").unwrap();
            if under_way(&record).is_none() {
                return record;
            }
            seams::sleep(Duration::from_millis(10)).await;
        }
        panic!("the retry does not end");
    }
}

#[tokio::test]
async fn a_wish_that_was_written_down_and_never_begun_is_taken_up_at_the_start() {
    let stage = Stage::set().await;
    let open = RevertRetry {
        workflow_id: "r_1".into(),
        requested_at: SystemClock::default().now().0,
        ..Default::default()
    };
    let record = CompensationFailure {
        retries: vec![open],
        ..stage.record()
    };
    stage.write(&record).await;

    let stage = stage.restart();
    assert_eq!(stage.compensations.resume(), Ok(1));
    let mut worker = stage.worker().await;
    let data = stage.answer(&mut worker, "completed").await;
    assert_eq!(data, br#"{"a" : 1.0}"#, "verbatim");
    let record = stage.ended().await;
    assert_eq!(record.resolution_state, "resolved");
    assert_eq!(record.retries[0].status, "completed");

    let stage = stage.restart();
    assert_eq!(stage.compensations.resume(), Ok(0), "it is over");
    let target = Target {
        namespace: stage.project.clone(),
        workflow_id: WorkflowId::parse("r_1").unwrap(),
        run_id: None,
    };
    let run = stage.engine.handle().journal(&target).unwrap().unwrap();
    assert!(Ended::of(&run.records).unwrap().is_undone());
}

#[tokio::test]
async fn what_is_undone_is_not_undone_again_whatever_was_decided_since() {
    let stage = Stage::set().await;
    let done = |status: &str| RevertRetry {
        workflow_id: "r_1".into(),
        ended_at: 1,
        status: status.into(),
        ..Default::default()
    };
    for (status, refused) in [("completed", true), ("partial", true), ("failed", false)] {
        let record = CompensationFailure {
            resolution_state: "ignored".into(),
            retries: vec![done(status)],
            ..stage.record()
        };
        stage.write(&record).await;
        let asked = stage
            .compensations
            .retry(&stage.project, "c_1", &Actor::ENGINE)
            .await;
        let says_so = matches!(&asked, Err(CompensationError::NotNow(why)) if why.contains("r_1"));
        assert_eq!((says_so, asked.is_ok()), (refused, !refused), "{status}");
    }
}

#[tokio::test]
async fn a_retry_that_ended_while_nobody_looked_is_noted_at_the_start() {
    let stage = Stage::set().await;
    stage.write(&stage.record()).await;
    let asked = stage
        .compensations
        .retry(&stage.project, "c_1", &Actor::ENGINE)
        .await
        .unwrap();
    let mut worker = stage.worker().await;
    stage.answer(&mut worker, "failed").await;
    stage.ended().await;
    // As if the engine had died between the end of the execution and the note of it.
    let mut lost = asked.clone();
    lost.retries[0].ended_at = 0;
    stage.write(&lost).await;

    let stage = stage.restart();
    assert_eq!(stage.compensations.resume(), Ok(1));
    let record = stage.ended().await;
    assert_eq!(record.retries[0].status, "failed");
    assert_eq!(record.resolution_state, "pending");
}

#[tokio::test]
async fn what_cannot_be_run_again_says_why_and_leaves_no_trace() {
    let stage = Stage::set().await;
    let refusal = async |record: CompensationFailure| {
        stage.write(&record).await;
        let asked = stage
            .compensations
            .retry(&stage.project, "c_1", &Actor::ENGINE);
        let Err(CompensationError::NotNow(why)) = asked.await else {
            panic!("{record:?} is run again")
        };
        let after = stage.compensations.find(&stage.project, "c_1").unwrap();
        assert_eq!(after, record);
        why
    };
    let resolved = CompensationFailure {
        resolution_state: "resolved".into(),
        ..stage.record()
    };
    assert!(refusal(resolved).await.contains("is resolved"));
    let deleted = CompensationFailure {
        service_id: "s_gone".into(),
        ..stage.record()
    };
    assert!(refusal(deleted).await.contains("not registered any more"));
    let silent = CompensationFailure {
        status: "unknown".into(),
        data_json: "null".into(),
        ttl_ms: 0,
        ..stage.record()
    };
    assert!(refusal(silent).await.contains("never answered"));
    let busy = CompensationFailure {
        retries: vec![RevertRetry::default()],
        ..stage.record()
    };
    assert!(refusal(busy).await.contains("already"));
    let ended = RevertRetry {
        ended_at: 1,
        ..Default::default()
    };
    let tired = CompensationFailure {
        retries: vec![ended; RETRIES_MAX],
        ..stage.record()
    };
    assert!(refusal(tired).await.contains("no more are allowed"));
    let unknown = stage
        .compensations
        .retry(&stage.project, "c_2", &Actor::ENGINE)
        .await;
    assert_eq!(unknown, Err(CompensationError::Unknown("c_2".into())));
}

#[tokio::test]
async fn one_retry_at_a_time_however_many_ask() {
    let stage = Stage::set().await;
    stage.write(&stage.record()).await;
    let ask = || {
        stage
            .compensations
            .retry(&stage.project, "c_1", &Actor::ENGINE)
    };
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    let taken = [one, two, three].into_iter().filter(Result::is_ok).count();
    assert_eq!(taken, 1);
    let mut worker = stage.worker().await;
    stage.answer(&mut worker, "completed").await;
    assert_eq!(stage.ended().await.retries.len(), 1);
}
