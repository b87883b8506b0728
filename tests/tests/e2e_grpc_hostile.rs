//! The gRPC server against what no client of a good mind sends, and against clients that only wait.
#![allow(missing_docs, clippy::unwrap_used)]

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use orchestrion_proto::temporal::api::common::v1::{WorkflowExecution, WorkflowType};
use orchestrion_proto::temporal::api::enums::v1::{HistoryEventFilterType, TaskQueueType};
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes;
use orchestrion_proto::temporal::api::taskqueue::v1::TaskQueue;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    DescribeTaskQueueRequest, DescribeTaskQueueResponse, GetWorkflowExecutionHistoryRequest,
    GetWorkflowExecutionHistoryResponse, PollWorkflowTaskQueueRequest,
    PollWorkflowTaskQueueResponse, SignalWorkflowExecutionRequest, StartWorkflowExecutionRequest,
};
use orchestrion_tests::engine::{Engine, Launch};
use prost::Message as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

const SERVICE: &str = "/temporal.api.workflowservice.v1.WorkflowService";
/// Methods that take a message from outside; what they would do matters less than that they live.
const METHODS: [&str; 12] = [
    "StartWorkflowExecution",
    "SignalWithStartWorkflowExecution",
    "ExecuteMultiOperation",
    "RespondWorkflowTaskCompleted",
    "RespondActivityTaskCompleted",
    "RecordActivityTaskHeartbeat",
    "GetWorkflowExecutionHistory",
    "ListWorkflowExecutions",
    "UpdateWorkflowExecution",
    "QueryWorkflow",
    "ResetWorkflowExecution",
    "DeleteWorkflowExecution",
];
const POLLS: usize = 1_000;
/// Clock ticks of a second in /proc, on every Linux.
const TICKS: f64 = 100.0;

/// Bytes as they are.
#[derive(Default, Clone)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

async fn channel(engine: &Engine) -> Channel {
    let url = format!("http://{}", engine.grpc_address());
    Channel::from_shared(url).unwrap().connect().await.unwrap()
}

async fn send(channel: &Channel, method: &str, message: Bytes) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("{SERVICE}/{method}").parse().unwrap();
    let answer = client.unary(Request::new(message), path, Raw).await?;
    Ok(answer.into_inner())
}

fn poll(queue: &str, identity: String) -> Bytes {
    PollWorkflowTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue {
            name: queue.to_owned(),
            ..Default::default()
        }),
        identity,
        ..Default::default()
    }
    .encode_to_vec()
    .into()
}

#[tokio::test]
async fn messages_that_are_none_are_refused_and_the_connection_lives() {
    let engine = Engine::start().await;
    let channel = channel(&engine).await;
    let mut chance = StdRng::seed_from_u64(7);
    let whole = poll("q", "somebody".to_owned());
    for method in METHODS {
        for _ in 0..20 {
            let mut bytes = vec![0u8; chance.random_range(1..400)];
            chance.fill(&mut bytes[..]);
            // An unknown field is no error, so chance may hit a message; it never hits a namespace.
            let error = send(&channel, method, bytes.into()).await.unwrap_err();
            assert!(
                matches!(
                    error.code(),
                    Code::Internal | Code::InvalidArgument | Code::NotFound
                ),
                "{method}: {error}"
            );
        }
        let cut = whole.slice(..whole.len() - 3);
        let error = send(&channel, method, cut).await.unwrap_err();
        assert_ne!(error.code(), Code::Unknown, "{method}: {error}");
    }
    // Messages nested far deeper than any of ours.
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        let mut outer = vec![0x2a];
        prost::encoding::encode_varint(deep.len() as u64, &mut outer);
        outer.extend_from_slice(&deep);
        deep = outer;
        if deep.len() > 60_000 {
            break;
        }
    }
    let _ = send(&channel, "RespondActivityTaskFailed", deep.into()).await;
    let queue = describe(&channel, "q").await;
    assert_eq!(queue.pollers, []);
}

#[tokio::test]
async fn a_port_that_is_spoken_to_in_other_tongues_stays_open() {
    let engine = Engine::start().await;
    let tongues: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\x00\x00\x00",
        &[0xff; 70_000],
    ];
    for tongue in tongues {
        let mut socket = tokio::net::TcpStream::connect(engine.grpc_address())
            .await
            .unwrap();
        // It may hang up in the middle of it.
        let _ = socket.write_all(tongue).await;
        let _ = socket.shutdown().await;
        let mut answer = Vec::new();
        let read = socket.read_to_end(&mut answer);
        let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
        assert!(ended.is_ok(), "it waits for more of {:?}", &tongue[..4]);
    }
    describe(&channel(&engine).await, "q").await;
}

async fn describe(channel: &Channel, queue: &str) -> DescribeTaskQueueResponse {
    let request = DescribeTaskQueueRequest {
        namespace: "default".to_owned(),
        task_queue: Some(TaskQueue {
            name: queue.to_owned(),
            ..Default::default()
        }),
        task_queue_type: TaskQueueType::Workflow.into(),
        ..Default::default()
    };
    let answer = send(channel, "DescribeTaskQueue", request.encode_to_vec().into()).await;
    DescribeTaskQueueResponse::decode(answer.unwrap()).unwrap()
}

/// What a process has used of a processor, in seconds.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split(' ').collect();
    // utime and stime are the 14th and 15th field; the command's name, which may hold spaces, is the 2nd.
    let ticks = |at: usize| fields[at - 2].parse::<f64>().unwrap();
    (ticks(14) + ticks(15)) / TICKS
}

#[tokio::test]
async fn a_thousand_waiting_polls_cost_next_to_nothing() {
    let engine = Engine::start().await;
    let channels = [channel(&engine).await, channel(&engine).await];
    let queue = |number: usize| format!("idle-{number}");
    let mut polls = tokio::task::JoinSet::new();
    for number in 0..POLLS {
        let channel = channels[number % channels.len()].clone();
        polls.spawn(async move {
            let message = poll(&queue(number), "idle".to_owned());
            send(&channel, "PollWorkflowTaskQueue", message).await
        });
    }
    for number in 0..POLLS {
        while describe(&channels[0], &queue(number))
            .await
            .pollers
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let before = cpu_seconds(engine.pid());
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = cpu_seconds(engine.pid()) - before;
    // The time of a processor, so a busy machine does not matter: the housekeeping of five idle seconds, and no more.
    assert!(used < 0.25, "{POLLS} waiting polls used {used:.2} s in 5 s");
    assert_eq!(polls.len(), POLLS, "none was answered");
    start(&channels[0], "wakes-one", &queue(POLLS / 2)).await;
    let woken = polls.join_next().await.unwrap().unwrap().unwrap();
    let task = PollWorkflowTaskQueueResponse::decode(woken).unwrap();
    assert_eq!(task.workflow_execution.unwrap().workflow_id, "wakes-one");
    assert_eq!(polls.len(), POLLS - 1, "the others still wait");
}

fn execution() -> Option<WorkflowExecution> {
    Some(WorkflowExecution {
        workflow_id: "w".to_owned(),
        run_id: String::new(),
    })
}

async fn start(channel: &Channel, id: &str, queue: &str) {
    let start = StartWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_id: id.to_owned(),
        workflow_type: Some(WorkflowType {
            name: "any".to_owned(),
        }),
        task_queue: Some(TaskQueue {
            name: queue.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let start = start.encode_to_vec().into();
    send(channel, "StartWorkflowExecution", start)
        .await
        .unwrap();
}

async fn signal(channel: &Channel) -> Result<Bytes, Status> {
    let signal = SignalWorkflowExecutionRequest {
        namespace: "default".to_owned(),
        workflow_execution: execution(),
        signal_name: "s".to_owned(),
        ..Default::default()
    };
    let signal = signal.encode_to_vec().into();
    send(channel, "SignalWorkflowExecution", signal).await
}

async fn metric(engine: &Engine, line: &str) -> bool {
    let url = format!("{}/metrics", engine.url());
    let text = reqwest::get(url).await.unwrap().text().await.unwrap();
    text.lines().any(|found| found == line)
}

#[tokio::test]
async fn limits_are_settings_and_who_reaches_one_is_told_and_counted() {
    let engine = Launch::dev()
        .set("limits.signals_max", 3)
        .set("limits.history_events_warn", 4)
        .start()
        .await;
    let channel = channel(&engine).await;
    start(&channel, "w", "nobody").await;
    for _ in 0..3 {
        signal(&channel).await.unwrap();
    }
    let refused = signal(&channel).await.unwrap_err();
    assert!(refused.message().contains("3 "), "{refused}");
    assert!(
        metric(
            &engine,
            r#"orchestrion_limits_reached_total{limit="signals"} 1"#
        )
        .await
    );
    let warning = r#"orchestrion_limit_warnings_total{limit="history_events_warn"} 1"#;
    assert!(metric(&engine, warning).await);
    assert!(engine.log().contains("a run grows large"));
}

#[tokio::test]
async fn a_run_whose_history_is_full_ends_with_the_reason() {
    let engine = Launch::dev()
        .set("limits.history_events_max", 10)
        .start()
        .await;
    let channel = channel(&engine).await;
    start(&channel, "w", "nobody").await;
    // Started, scheduled, and these: the tenth ends it.
    for _ in 0..8 {
        signal(&channel).await.unwrap();
    }
    let closed = signal(&channel).await.unwrap_err();
    assert_eq!(closed.code(), Code::NotFound, "{closed}");
    let request = GetWorkflowExecutionHistoryRequest {
        namespace: "default".to_owned(),
        execution: execution(),
        history_event_filter_type: HistoryEventFilterType::CloseEvent.into(),
        ..Default::default()
    };
    let request = request.encode_to_vec().into();
    let answer = send(&channel, "GetWorkflowExecutionHistory", request).await;
    let answer = GetWorkflowExecutionHistoryResponse::decode(answer.unwrap()).unwrap();
    let last = answer.history.unwrap().events.pop().unwrap();
    let Some(Attributes::WorkflowExecutionTerminatedEventAttributes(end)) = last.attributes else {
        panic!("{last:?}")
    };
    assert!(
        end.reason.contains("history limit reached"),
        "{}",
        end.reason
    );
    assert!(
        metric(
            &engine,
            r#"orchestrion_limits_reached_total{limit="history"} 1"#
        )
        .await
    );
}
