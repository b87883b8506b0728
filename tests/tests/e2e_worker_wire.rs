//! The worker stream as bytes go over it: who is let in, and what comes of messages that are wrong, doubled, late, or somebody else's.
#![allow(missing_docs, clippy::unwrap_used)]

use futures_util::stream;
use orchestrion_proto::worker::from_worker::Message;
use orchestrion_proto::worker::to_worker::Message as Told;
use orchestrion_proto::worker::worker_service_client::WorkerServiceClient;
use orchestrion_proto::worker::{self as wire, FromWorker, Open, ToWorker};
use orchestrion_tests::engine::Engine;
use orchestrion_tests::plan::Plan;
use orchestrion_tests::project::{Action, Project, Run};
use serde_json::json;
use tokio::sync::mpsc;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

/// A stream under a test's control.
struct Raw {
    outbound: mpsc::UnboundedSender<FromWorker>,
    inbound: Streaming<ToWorker>,
    number: u64,
    service: String,
}

fn open(name: &str, window: u32) -> Open {
    let schema = r#"{"type":"object","properties":{"id":{"type":"string"}}}"#;
    Open {
        name: name.into(),
        description: "does it".into(),
        input_schema: schema.into(),
        output_schema: schema.into(),
        revertible: true,
        window,
        ..Default::default()
    }
}

impl Raw {
    async fn try_begin(engine: &Engine, key: &str, first: Message) -> Result<Self, Status> {
        let url = format!("http://{}", engine.grpc_address());
        let channel = Channel::from_shared(url).unwrap().connect().await.unwrap();
        let (outbound, mut messages) = mpsc::unbounded_channel();
        let first = FromWorker {
            message: Some(first),
            number: 0,
        };
        outbound.send(first).unwrap();
        let mut request = Request::new(stream::poll_fn(move |cx| messages.poll_recv(cx)));
        if !key.is_empty() {
            let value = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = WorkerServiceClient::new(channel);
        let mut inbound = client.work(request).await?.into_inner();
        let Some(Told::Opened(opened)) = inbound.message().await?.unwrap().message else {
            panic!("the stream is not opened")
        };
        Ok(Self {
            outbound,
            inbound,
            number: 0,
            service: opened.service_id,
        })
    }

    async fn begin(engine: &Engine, project: &Project, window: u32) -> Self {
        Self::try_begin(engine, &project.key, Message::Open(open("raw", window)))
            .await
            .unwrap()
    }

    fn send_as(&self, number: u64, message: Message) {
        let message = Some(message);
        self.outbound.send(FromWorker { message, number }).unwrap();
    }

    fn send(&mut self, message: Message) -> u64 {
        self.number += 1;
        self.send_as(self.number, message);
        self.number
    }

    async fn told(&mut self) -> Result<Told, Status> {
        let told = self.inbound.message().await?;
        Ok(told.expect("the stream goes on").message.unwrap())
    }

    async fn task(&mut self) -> wire::Task {
        loop {
            if let Told::Task(task) = self.told().await.unwrap() {
                return task;
            }
        }
    }

    /// Waits until a message is settled: whether it was refused.
    async fn settled(&mut self, number: u64) -> bool {
        let mut refused = false;
        loop {
            match self.told().await.unwrap() {
                Told::Refused(told) if told.number == number => refused = true,
                Told::Acknowledged(told) if told.up_to >= number => return refused,
                Told::Task(task) => panic!("an unexpected task: {task:?}"),
                _ => {}
            }
        }
    }

    async fn submit(&self, project: &Project) -> Run {
        let plan = Plan::new().task("task1", &self.service, json!({"id": "x"}));
        project.submit(&Action::planned(plan)).await
    }
}

fn attempt(task: &wire::Task) -> Option<wire::Attempt> {
    Some(wire::Attempt {
        ticket: task.ticket,
        execution_id: task.execution_id.clone(),
        idempotency_key: task.idempotency_key.clone(),
    })
}

fn done(of: Option<wire::Attempt>, result: &'static str) -> Message {
    Message::Completed(wire::Completed {
        attempt: of,
        result: result.into(),
        compensation: None,
    })
}

#[tokio::test]
async fn nobody_works_for_a_project_without_its_key() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let code = async |key: &str, first: Message| match Raw::try_begin(&engine, key, first).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    };
    let raw = || Message::Open(open("raw", 1));
    assert_eq!(code("", raw()).await, Code::Unauthenticated);
    assert_eq!(code("sk-orra-v1-guess", raw()).await, Code::Unauthenticated);
    let key = project.key.as_str();
    assert_eq!(
        code(key, Message::Drain(wire::Drain {})).await,
        Code::InvalidArgument
    );
    let nameless = Message::Open(open("", 1));
    assert_eq!(code(key, nameless).await, Code::InvalidArgument);
    // Not a service of this project.
    let foreign = Project::add(&engine).await;
    let theirs = Raw::begin(&engine, &foreign, 1).await;
    let mut stolen = open("raw", 1);
    stolen.service_id = theirs.service.clone();
    assert_eq!(
        code(key, Message::Open(stolen)).await,
        Code::InvalidArgument
    );
    assert_eq!(code(key, raw()).await, Code::Ok);
}

#[tokio::test]
async fn an_answer_counts_once_and_whatever_it_is_called() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut worker = Raw::begin(&engine, &project, 1).await;
    let run = worker.submit(&project).await;
    let task = worker.task().await;
    assert_eq!(task.task_id, "task1");
    assert_eq!(&task.input[..], br#"{"id":"x"}"#);
    assert_eq!(task.attempt, 1);
    let number = worker.send(done(attempt(&task), r#"{"id":"first"}"#));
    assert!(!worker.settled(number).await);
    // The same again, by its ticket, and by its names alone; then one with names that are nobody's.
    let named = wire::Attempt {
        ticket: 0,
        ..attempt(&task).unwrap()
    };
    let forged = wire::Attempt {
        ticket: 0,
        execution_id: "e_1".into(),
        idempotency_key: "o_1.5.000000000000".into(),
    };
    for of in [attempt(&task), Some(named), Some(forged), None] {
        let number = worker.send(done(of, r#"{"id":"again"}"#));
        assert!(worker.settled(number).await);
    }
    assert_eq!(run.completes().await.result()["id"], "first");
}

#[tokio::test]
async fn a_lost_stream_returns_its_attempts_and_a_kept_answer_finds_its_way() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut worker = Raw::begin(&engine, &project, 2).await;
    let (first, second) = (worker.submit(&project).await, worker.submit(&project).await);
    let (one, two) = (worker.task().await, worker.task().await);
    drop(worker);

    let mut worker = Raw::begin(&engine, &project, 2).await;
    let (mut again, mut other) = (worker.task().await, worker.task().await);
    if again.execution_id != one.execution_id {
        std::mem::swap(&mut again, &mut other);
    }
    for (before, after) in [(&one, &again), (&two, &other)] {
        assert_eq!(before.execution_id, after.execution_id);
        assert_eq!(before.idempotency_key, after.idempotency_key);
        assert_eq!(after.attempt, 1);
    }
    // What the lost stream could not say, said by names; and the other by its new ticket.
    let named = wire::Attempt {
        ticket: 0,
        ..attempt(&one).unwrap()
    };
    let number = worker.send(done(Some(named), r#"{"id":"kept"}"#));
    assert!(!worker.settled(number).await);
    let number = worker.send(done(attempt(&other), r#"{"id":"anew"}"#));
    assert!(!worker.settled(number).await);
    let mut results = Vec::new();
    for run in [first, second] {
        results.push(run.completes().await.result()["id"].clone());
    }
    results.sort_by_key(ToString::to_string);
    assert_eq!(results, [json!("anew"), json!("kept")]);
    // Both slots are free again.
    worker.submit(&project).await;
    worker.submit(&project).await;
    worker.task().await;
    worker.task().await;
}

#[tokio::test]
async fn the_window_is_kept_and_a_drained_stream_is_given_nothing() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut worker = Raw::begin(&engine, &project, 1).await;
    let runs = [worker.submit(&project).await, worker.submit(&project).await];
    let task = worker.task().await;
    let number = worker.send(Message::Progress(wire::Progress {
        attempt: attempt(&task),
        update: "1".into(),
    }));
    // Nothing but the acknowledgement comes.
    assert!(!worker.settled(number).await);
    worker.send_as(0, Message::Drain(wire::Drain {}));
    let number = worker.send(done(attempt(&task), "{}"));
    assert!(!worker.settled(number).await);
    let number = worker.send(Message::Progress(wire::Progress {
        attempt: attempt(&task),
        update: "2".into(),
    }));
    assert!(worker.settled(number).await);
    let mut other = Raw::begin(&engine, &project, 1).await;
    let task = other.task().await;
    let number = other.send(done(attempt(&task), "{}"));
    assert!(!other.settled(number).await);
    for run in runs {
        run.completes().await;
    }
    // It says good-bye, and is let go.
    drop(worker.outbound);
    assert!(worker.inbound.message().await.unwrap().is_none());
}

#[tokio::test]
async fn what_is_not_json_fails_the_task_for_good() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut worker = Raw::begin(&engine, &project, 1).await;
    let run = worker.submit(&project).await;
    let task = worker.task().await;
    for (update, refused) in [("{", true), (r#"{"half":true}"#, false)] {
        let number = worker.send(Message::Progress(wire::Progress {
            attempt: attempt(&task),
            update: update.into(),
        }));
        assert_eq!(worker.settled(number).await, refused);
    }
    worker.send(done(attempt(&task), "{\"id\":"));
    let view = run.fails().await;
    assert!(view.error().contains("not JSON"), "{view:#?}");
    assert_eq!(view.task("task1").updates(), [&json!({"half": true})]);
}

#[tokio::test]
async fn heartbeats_are_answered_when_nobody_waits_any_more() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let mut worker = Raw::begin(&engine, &project, 1).await;
    worker.submit(&project).await;
    let task = worker.task().await;
    let beat = |of: Option<wire::Attempt>| {
        Message::Heartbeat(wire::Heartbeat {
            attempt: of,
            details: r#"{"at":3}"#.into(),
        })
    };
    let number = worker.send(beat(attempt(&task)));
    assert!(!worker.settled(number).await);
    // The details are there for the next attempt.
    let failed = Message::Failed(wire::Failed {
        attempt: attempt(&task),
        error: "not yet".into(),
        permanent: false,
    });
    worker.send(failed);
    let next = worker.task().await;
    assert_eq!(next.attempt, 2);
    assert_eq!(&next.heartbeat_details[..], br#"{"at":3}"#);
    assert_ne!(next.execution_id, task.execution_id);
    assert_eq!(next.idempotency_key, task.idempotency_key);
    let number = worker.send(beat(attempt(&task)));
    assert!(worker.settled(number).await);
}

#[tokio::test]
async fn a_stream_that_breaks_the_rules_is_closed_with_the_reason() {
    let engine = Engine::start().await;
    let project = Project::add(&engine).await;
    let twice = Message::Open(open("raw", 1));
    let cases = [
        (7, done(None, "1"), "where 1 was expected"),
        (0, twice, "first message"),
    ];
    for (number, message, reason) in cases {
        let mut worker = Raw::begin(&engine, &project, 1).await;
        worker.send_as(number, message);
        let status = loop {
            match worker.told().await {
                Ok(_) => {}
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(reason), "{status}");
    }
    // A message of a later version is refused, and the stream goes on.
    let mut worker = Raw::begin(&engine, &project, 1).await;
    let unknown = FromWorker {
        message: None,
        number: 1,
    };
    worker.outbound.send(unknown).unwrap();
    worker.number = 1;
    assert!(worker.settled(1).await);
    let number = worker.send(done(None, "1"));
    assert!(worker.settled(number).await);
}
