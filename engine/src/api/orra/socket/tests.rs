//! What services say, put to a real engine on the memory store.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use orchestrion_history::ids::{Namespace, TaskQueueName, WorkflowId};
use orchestrion_history::request::StartWorkflow;
use orchestrion_history::store::{MemoryStore, StoreErrorKind};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::blocks_while_it_works;
use super::frame::Answer;
use crate::api::work::answering::{Answering, Settled};
use crate::api::work::{Assignment, Attempt, key};
use crate::engine::handle::{Dispatch, Handle, Session, Target};
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::orchestration::submission::json_payloads;
use crate::orchestration::view::View;
use crate::orchestration::{Action, Options, Submission, WORKFLOW_QUEUE, WORKFLOW_TYPE};
use crate::plan::{Plan, PlanTask};
use crate::registry::ids::execution_id;
use crate::seams::{self, SystemChance, SystemClock};

const SERVICE: &str = "s_echo";
const PAUSE: Duration = Duration::from_millis(5);
const PAUSES_MAX: u32 = 1_000;

/// An engine, a run whose first task is with this service, and that attempt.
struct Stage {
    store: Arc<MemoryStore>,
    handle: Handle,
    target: Target,
    session: Session,
    dispatch: Dispatch,
    _engine: Engine,
}

impl Stage {
    async fn set(options: Options) -> Self {
        let store = Arc::new(MemoryStore::new());
        let clock = Arc::new(SystemClock::default());
        let engine = Engine::start(
            store.clone(),
            clock,
            Box::new(SystemChance),
            Box::new(NoSurroundings),
            EngineOptions::default(),
        );
        let engine = engine.unwrap();
        let handle = engine.handle();
        let namespace = Namespace::parse("p_1").unwrap();
        let task = |id: &str, depends_on: &[&str]| PlanTask {
            id: id.into(),
            service: SERVICE.into(),
            service_name: "echo".into(),
            revertible: true,
            input: Map::new(),
            depends_on: depends_on.iter().map(|id| (*id).to_owned()).collect(),
        };
        let submission = Submission {
            webhook: None,
            action: Action::default(),
            data: Vec::new(),
            plan: Some(Plan {
                task_zero: Map::new(),
                tasks: vec![task("task1", &[]), task("task2", &["task1"])],
                parallel_groups: Vec::new(),
            }),
            options,
            ..Default::default()
        };
        let start = StartWorkflow {
            workflow_id: "o_1".into(),
            workflow_type: WORKFLOW_TYPE.into(),
            task_queue: WORKFLOW_QUEUE.into(),
            input: Some(json_payloads(&submission)),
            request_id: "r".into(),
            ..StartWorkflow::default()
        };
        handle.start(namespace.clone(), start).await.unwrap();
        let workflow_id = WorkflowId::parse("o_1").unwrap();
        let target = Target {
            namespace,
            workflow_id,
            run_id: None,
        };
        let (session, dispatch) = next(&handle, &target).await;
        Self {
            store,
            handle,
            target,
            session,
            dispatch,
            _engine: engine,
        }
    }

    fn answering(&self, service_id: &str, project: &str) -> Answering {
        Answering {
            handle: self.handle.clone(),
            clock: Arc::new(SystemClock::default()),
            namespace: Namespace::parse(project).unwrap(),
            service_id: service_id.into(),
            identity: "test".into(),
            wire: "orra",
            patience: Duration::from_secs(4),
            default_ttl: Duration::from_secs(60),
        }
    }

    /// As the service echoes it.
    fn attempt(&self) -> Attempt {
        let d = &self.dispatch;
        Attempt {
            execution_id: execution_id(d.run_id, d.scheduled_event_id, d.attempt, false),
            idempotency_key: key::of(&d.namespace, &d.workflow_id, d.run_id, d.scheduled_event_id),
        }
    }

    /// As a socket remembers it.
    fn known(&self) -> Option<Assignment> {
        let d = &self.dispatch;
        Some(Assignment {
            target: Target {
                run_id: Some(d.run_id),
                ..self.target.clone()
            },
            scheduled_event_id: d.scheduled_event_id,
            attempt: Some(d.attempt),
            activity_id: d.activity_id.clone(),
            revert: false,
        })
    }

    async fn succeed(&self, known: Option<Assignment>) -> Settled {
        let result = raw(r#"{"task":{"n":1.0},"compensation":{"data":{"d":1},"ttl":60000}}"#);
        self.answering(SERVICE, "p_1")
            .answer(&self.attempt(), known, &Answer::Success { result: &result })
            .await
    }

    async fn fail(&self, known: Option<Assignment>) -> Settled {
        let answer = Answer::Error {
            text: "card declined".into(),
        };
        self.answering(SERVICE, "p_1")
            .answer(&self.attempt(), known, &answer)
            .await
    }

    fn view(&self) -> Value {
        let run = self.handle.journal(&self.target).unwrap().unwrap();
        let view = View::fold(&run.records).unwrap();
        serde_json::to_value(view.inspection(self.dispatch.started_at)).unwrap()
    }

    async fn until(&self, path: &str, expected: Value) {
        for _ in 0..PAUSES_MAX {
            if self.view().pointer(path) == Some(&expected) {
                return;
            }
            seams::sleep(PAUSE).await;
        }
        panic!("{path} never became {expected}: {:#}", self.view());
    }
}

async fn next(handle: &Handle, target: &Target) -> (Session, Dispatch) {
    let queue = TaskQueueName::parse(SERVICE).unwrap();
    let mut session = handle
        .attach(Some(target.namespace.clone()), queue, "test".into(), 1)
        .await
        .unwrap();
    let dispatch = session.tasks.recv().await.unwrap();
    (session, dispatch)
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(text.to_owned()).unwrap()
}

fn impatient() -> Options {
    Options {
        task_timeout_ms: 30,
        task_attempts: 1,
        late_result_wait_ms: Some(5_000),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_result_counts_with_and_without_the_sockets_memory() {
    for remembered in [true, false] {
        let stage = Stage::set(Options::default()).await;
        let known = stage.known().filter(|_| remembered);
        assert_eq!(stage.succeed(known.clone()).await, Settled::Noted);
        assert_eq!(stage.view()["tasks"][0]["output"], json!({"n": 1.0}));
        assert_eq!(
            stage.succeed(known).await,
            Settled::Refused,
            "the second time it is not news"
        );
        assert_eq!(stage.view()["tasks"][0]["output"], json!({"n": 1.0}));
    }
}

#[tokio::test]
async fn an_update_is_kept() {
    let stage = Stage::set(Options::default()).await;
    let update = raw(r#"{"progress":50}"#);
    let settled = stage
        .answering(SERVICE, "p_1")
        .update(&stage.attempt(), None, update.get().as_bytes().to_vec())
        .await;
    assert_eq!(settled, Settled::Noted);
    assert_eq!(
        stage.view()["tasks"][0]["interimResults"][0]["data"],
        json!({"progress": 50})
    );
}

#[tokio::test]
async fn an_abort_ends_the_orchestration() {
    let stage = Stage::set(Options::default()).await;
    let payload = raw(r#"{"why":"sold out"}"#);
    let answer = Answer::Abort { payload: &payload };
    assert_eq!(
        stage
            .answering(SERVICE, "p_1")
            .answer(&stage.attempt(), None, &answer)
            .await,
        Settled::Noted
    );
    let view = stage.view();
    assert_eq!(
        (&view["status"], &view["abortInfo"]["payload"]),
        (&json!("aborted"), &json!({"why": "sold out"}))
    );
}

#[tokio::test]
async fn nobody_answers_for_another_service_or_project() {
    let stage = Stage::set(Options::default()).await;
    let result = raw("{}");
    for (service, project) in [("s_other", "p_1"), (SERVICE, "p_2"), ("s_other", "p_2")] {
        let answering = stage.answering(service, project);
        let answer = Answer::Success { result: &result };
        assert_eq!(
            answering.answer(&stage.attempt(), None, &answer).await,
            Settled::Refused
        );
    }
    let forged = Attempt {
        idempotency_key: "o_1.5.000000000000".into(),
        ..stage.attempt()
    };
    let answer = Answer::Success { result: &result };
    assert_eq!(
        stage
            .answering(SERVICE, "p_1")
            .answer(&forged, None, &answer)
            .await,
        Settled::Refused
    );
    assert_eq!(stage.view()["tasks"][0]["status"], "processing");
}

#[tokio::test]
async fn a_success_after_the_last_timeout_is_told_to_the_run_and_undone() {
    let mut stage = Stage::set(impatient()).await;
    stage.until("/status", json!("failed")).await;
    assert_eq!(stage.view()["tasks"][0]["status"], "unknown");
    assert_eq!(stage.succeed(stage.known()).await, Settled::Noted);
    assert_eq!(
        stage.succeed(None).await,
        Settled::Noted,
        "the same signal again is the same"
    );
    stage.handle.release(stage.session.id);
    let revert = stage.session.tasks.recv().await.unwrap();
    assert_eq!(
        (revert.activity_id.as_str(), revert.activity_type.as_str()),
        ("revert:task1", "echo.revert")
    );
    assert_eq!(revert.input.unwrap().payloads[0].data, br#"{"d":1}"#);
}

#[tokio::test]
async fn an_error_is_of_its_own_attempt() {
    let options = Options {
        retry_initial_ms: 1,
        retry_max_ms: 1,
        ..Options::default()
    };
    let stage = Stage::set(options).await;
    assert_eq!(stage.fail(stage.known()).await, Settled::Noted);
    stage.handle.detach(stage.session.id);
    let (_second, dispatch) = next(&stage.handle, &stage.target).await;
    assert_eq!(dispatch.attempt, 2);
    assert_eq!(
        stage.fail(stage.known()).await,
        Settled::Refused,
        "an old error does not end a new attempt"
    );
    assert_eq!(stage.view()["tasks"][0]["status"], "processing");
}

#[tokio::test]
async fn an_error_from_before_the_connection_was_lost_counts_after_it() {
    let stage = Stage::set(Options::default()).await;
    stage.handle.detach(stage.session.id);
    stage.until("/tasks/0/status", json!("paused")).await;
    assert_eq!(stage.fail(None).await, Settled::Noted);
    assert_eq!(stage.view()["tasks"][0]["error"], "card declined");
}

#[tokio::test]
async fn an_answer_is_offered_until_it_is_committed() {
    let stage = Stage::set(Options::default()).await;
    stage.store.fail_next_commit(StoreErrorKind::Unavailable);
    assert_eq!(stage.succeed(stage.known()).await, Settled::Noted);
    assert_eq!(stage.view()["tasks"][0]["status"], "completed");
}

#[tokio::test]
async fn an_engine_that_stops_takes_no_answer() {
    let mut stage = Stage::set(Options::default()).await;
    let (handle, known) = (stage.handle.clone(), stage.known());
    let attempt = stage.attempt();
    let answering = stage.answering(SERVICE, "p_1");
    stage.session.tasks.close();
    let Stage {
        _engine: engine, ..
    } = stage;
    engine.stop();
    drop(handle);
    let result = raw("{}");
    assert_eq!(
        answering
            .answer(&attempt, known, &Answer::Success { result: &result })
            .await,
        Settled::NotNow
    );
}

#[test]
fn the_python_sdk_is_known_by_its_library() {
    let headers =
        |agent: &str| HeaderMap::from_iter([(header::USER_AGENT, agent.parse().unwrap())]);
    assert!(blocks_while_it_works(&headers(
        "Python/3.11 websockets/12.0"
    )));
    assert!(!blocks_while_it_works(&headers("Mozilla/5.0")));
    assert!(!blocks_while_it_works(&HeaderMap::new()));
}
