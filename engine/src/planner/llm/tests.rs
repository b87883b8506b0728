//! The model planner against a server on loopback that answers well, badly, slowly and not at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::*;
use crate::plan::{Parameter, Service};

const KEY: &str = "sk-very-secret";

/// What the server does with one connection.
enum Script {
    Answer(u16, String),
    /// A completion with this text.
    Say(String),
    /// Says nothing for so long.
    Wait(Duration),
    /// Sends this many bytes.
    Flood(usize),
    HangUp,
}

/// An OpenAI-compatible server on the loopback interface that follows a script, one connection after the other.
struct Server {
    base_url: String,
    /// Heads and bodies, as they came.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Server {
    fn start(script: Vec<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        thread::spawn(move || {
            for step in script {
                let (mut stream, _) = listener.accept().unwrap();
                seen.lock().unwrap().push(read_request(&stream));
                // A client that has given up is no trouble.
                let _ = perform(step, &mut stream);
            }
        });
        Self { base_url, requests }
    }

    fn settings(&self) -> Settings {
        Settings {
            api_key: Some(KEY.into()),
            time_limit: Duration::from_secs(20),
            answer_bytes_max: 20_000,
            ..Settings::new("any/model-1", &self.base_url)
        }
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }
}

fn read_request(stream: &TcpStream) -> (String, Value) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(reader.read_line(&mut head).unwrap(), 0);
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).unwrap();
    (head, serde_json::from_slice(&body).unwrap())
}

fn perform(step: Script, stream: &mut TcpStream) -> std::io::Result<()> {
    let (status, body) = match step {
        Script::Answer(status, body) => (status, body),
        Script::Say(text) => (200, completion(json!(text), "stop").to_string()),
        Script::Wait(time) => {
            thread::sleep(time);
            return Ok(());
        }
        Script::Flood(bytes) => (200, "x".repeat(bytes)),
        Script::HangUp => return Ok(()),
    };
    write!(
        stream,
        "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body.as_bytes())
}

fn completion(content: Value, finish_reason: &str) -> Value {
    json!({
        "model": "model-1-2026", "choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": finish_reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7}
    })
}

fn services() -> Vec<Service> {
    let schema = json!({"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]});
    vec![Service {
        id: "s_echo".into(),
        name: "echo".into(),
        description: "Echoes a message".into(),
        input_schema: schema.clone().into(),
        output_schema: schema,
        revertible: false,
    }]
}

fn data() -> Vec<Parameter> {
    vec![Parameter {
        field: "message".into(),
        value: json!("hello"),
    }]
}

fn plan_text(service: &str) -> String {
    json!({"tasks": [
        {"id": "task0", "input": {"message": "hello"}},
        {"id": "task1", "service": service, "input": {"message": "$task0.message"}}
    ]})
    .to_string()
}

/// Asks a planner with these settings once.
async fn ask_with(settings: Settings, feedback: Option<&str>) -> Result<Planned, PlanError> {
    let planner = planner(settings);
    ask(&planner, feedback).await
}

fn planner(settings: Settings) -> LlmPlanner {
    let clock = AtomicU64::new(0);
    LlmPlanner::new(
        settings,
        Arc::new(move || clock.fetch_add(5, Ordering::Relaxed)),
    )
    .unwrap()
}

async fn ask(planner: &LlmPlanner, feedback: Option<&str>) -> Result<Planned, PlanError> {
    let (services, data) = (services(), data());
    let request = PlanRequest {
        action: "Echo this",
        data: &data,
        services: &services,
        grounding: None,
        feedback,
        attempt: 2,
    };
    planner.plan(request).await.map_err(|failed| failed.error)
}

/// Asks a server that does this.
async fn check(step: Script) -> Result<Planned, PlanError> {
    let server = Server::start(vec![step]);
    ask_with(server.settings(), None).await
}

#[tokio::test]
async fn an_answer_of_no_use_is_paid_for_as_well() {
    for (step, tokens) in [
        (Script::Say("I would rather not.".into()), (11, 7)),
        (
            Script::Answer(200, completion(json!("{"), "length").to_string()),
            (11, 7),
        ),
        (Script::Answer(503, "{}".into()), (0, 0)),
    ] {
        let server = Server::start(vec![step]);
        let (services, data) = (services(), data());
        let request = PlanRequest {
            action: "Echo this",
            data: &data,
            services: &services,
            grounding: None,
            feedback: None,
            attempt: 2,
        };
        let failed = planner(server.settings()).plan(request).await.unwrap_err();
        assert_eq!(
            (failed.cost.prompt_tokens, failed.cost.completion_tokens),
            tokens
        );
        assert_eq!((failed.cost.tries, failed.cost.duration_ms), (2, 5));
        assert_eq!(failed.cost.prompt_digest.len(), 64);
        assert!(!failed.cost.model.is_empty());
    }
}

#[tokio::test]
async fn a_good_answer_is_a_plan() {
    let server = Server::start(vec![Script::Say(plan_text("s_echo"))]);
    let planned = ask_with(server.settings(), Some("`task1` names no service"))
        .await
        .unwrap();
    let Answer::Planned(plan) = planned.answer else {
        panic!("{planned:?}")
    };
    assert_eq!(plan.tasks[0].service_name, "echo");
    assert_eq!(
        (
            planned.model.as_str(),
            planned.prompt_tokens,
            planned.completion_tokens
        ),
        ("model-1-2026", 11, 7)
    );
    assert_eq!(
        (
            planned.prompt_digest.len(),
            planned.duration_ms,
            planned.tries
        ),
        (64, 5, 2)
    );
    let (head, body) = server.requests().remove(0);
    assert!(head.starts_with("post /v1/chat/completions "));
    assert!(head.contains(&format!("authorization: bearer {KEY}\r\n")));
    assert_eq!(body["model"], "any/model-1");
    assert_eq!(body["temperature"], json!(0.7));
    assert_eq!(body["response_format"]["type"], "json_schema");
    assert_eq!(body["messages"].as_array().unwrap().len(), 1);
    let prompt = body["messages"][0]["content"].as_str().unwrap();
    assert!(prompt.contains("\"s_echo\"") && prompt.contains("`task1` names no service"));
    assert!(!prompt.contains(KEY));
}

#[tokio::test]
async fn what_models_put_around_a_plan_does_no_harm() {
    for text in [
        format!(
            "<think>\n```json\n{{}}\n```</think>\n```json\n{}\n```",
            plan_text("S_ECHO")
        ),
        format!("Sure.\n```json\n{}\n```\nDone.", plan_text("s_echo")),
    ] {
        assert!(matches!(
            check(Script::Say(text)).await.unwrap().answer,
            Answer::Planned(_)
        ));
    }
    let parts = json!([{"type": "text", "text": plan_text("s_echo")}]);
    let bare = Script::Answer(
        200,
        json!({"choices": [{"message": {"content": parts}}]}).to_string(),
    );
    let planned = check(bare).await.unwrap();
    assert_eq!(
        (planned.model.as_str(), planned.prompt_tokens),
        ("any/model-1", 0)
    );
}

#[tokio::test]
async fn a_refusal_of_the_model_is_an_answer() {
    let text =
        json!({"tasks": [{"id": "task0"}, {"id": "final", "input": {"error": "no lamp service"}}]})
            .to_string();
    assert_eq!(
        check(Script::Say(text)).await.unwrap().answer,
        Answer::NotActionable("no lamp service".into())
    );
    let refused =
        json!({"choices": [{"message": {"content": null, "refusal": "I will not"}}]}).to_string();
    assert_eq!(
        check(Script::Answer(200, refused)).await.unwrap().answer,
        Answer::NotActionable("the model refused: I will not".into())
    );
}

#[tokio::test]
async fn bad_answers_may_be_tried_again_with_the_reason() {
    let cases = [
        (
            Script::Say(plan_text("s_gone")),
            "the plan is not valid: `task1` names the service `s_gone`",
        ),
        (
            Script::Say("I would echo it.".into()),
            "the planner's answer is no plan: the answer has no plan",
        ),
        (
            Script::Say("{\"tasks\": [".into()),
            "the planner's answer is no plan: the plan is not valid JSON",
        ),
        (Script::Say("  ".into()), "the planner's answer is empty"),
        (
            Script::Answer(200, completion(Value::Null, "stop").to_string()),
            "the planner's answer is empty",
        ),
        (
            Script::Answer(200, completion(json!("{"), "length").to_string()),
            "the planner's answer is no plan: the answer was cut off",
        ),
        (
            Script::Answer(200, "<html>".into()),
            "the planner's answer is no plan: the server's answer is no chat completion: it is not JSON",
        ),
        (
            Script::Answer(200, "{}".into()),
            "the planner's answer is no plan: the server's answer is no chat completion: it has no choice",
        ),
        (
            Script::Flood(50_000),
            "the planner's answer is no plan: the answer has more than 20000 bytes",
        ),
    ];
    for (step, expected) in cases {
        let error = check(step).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.is_retryable() && error.feedback().is_some());
    }
}

#[tokio::test]
async fn a_server_in_trouble_may_be_tried_again() {
    let cases = [
        (
            Script::Answer(500, "boom".into()),
            "the planner is not available: status 500: boom",
        ),
        (
            Script::Answer(503, String::new()),
            "the planner is not available: status 503",
        ),
        (
            Script::Answer(429, json!({"error": {"message": "slow\ndown"}}).to_string()),
            "the planner is not available: status 429: slow down",
        ),
        (
            Script::Answer(200, json!({"error": {"message": "upstream"}}).to_string()),
            "the planner is not available: upstream",
        ),
        (
            Script::HangUp,
            "the planner is not available: the connection broke",
        ),
    ];
    for (step, expected) in cases {
        let error = check(step).await.unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
        assert!(error.is_retryable() && error.feedback().is_none());
    }
    let nobody = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = ask_with(Settings::new("m", format!("http://{nobody}")), None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the planner is not available: no connection"),
        "{error}"
    );
}

#[tokio::test]
async fn what_no_repetition_mends_is_refused_and_names_the_setting() {
    let quoting = |text: &str| json!({"error": {"message": format!("{text} {KEY}")}}).to_string();
    let cases = [
        (Script::Answer(401, quoting("incorrect key")), "llm.api_key"),
        (Script::Answer(403, "not JSON".into()), "llm.api_key"),
        (Script::Answer(404, String::new()), "llm.model"),
        (Script::Answer(308, String::new()), "llm.api_base_url"),
        (
            Script::Answer(400, quoting("context too long")),
            "400: context too long …",
        ),
    ];
    for (step, expected) in cases {
        let server = Server::start(vec![step]);
        let error = ask_with(server.settings(), None).await.unwrap_err();
        assert!(
            !error.is_retryable() && error.to_string().contains(expected),
            "{error}"
        );
        assert!(!error.to_string().contains(KEY));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_slow_answer_is_waited_for_so_long_and_no_longer() {
    let server = Server::start(vec![Script::Wait(Duration::from_secs(5))]);
    let settings = Settings {
        time_limit: Duration::from_millis(80),
        ..server.settings()
    };
    assert_eq!(
        ask_with(settings, None).await.unwrap_err(),
        PlanError::TimedOut { limit_ms: 80 }
    );
}

#[tokio::test]
async fn what_a_server_does_not_have_is_left_out_for_good() {
    let refuse = |name: &str| {
        Script::Answer(
            400,
            json!({"error": {"message": format!("unknown {name}")}}).to_string(),
        )
    };
    let say = || Script::Say(plan_text("s_echo"));
    let server = Server::start(vec![
        refuse("response_format"),
        refuse("temperature"),
        say(),
        say(),
    ]);
    let planner = planner(server.settings());
    assert_eq!(ask(&planner, None).await.unwrap().tries, 2);
    ask(&planner, None).await.unwrap();
    let sent: Vec<_> = server
        .requests()
        .iter()
        .map(|(_, body)| {
            (
                body.get("response_format").is_some(),
                body.get("temperature").is_some(),
            )
        })
        .collect();
    assert_eq!(
        sent,
        [(true, true), (false, true), (false, false), (false, false)]
    );
}

#[test]
fn temperatures_fit_the_model() {
    let cases = [
        ("o1-mini", 1.0),
        ("openai/o3-mini", 1.0),
        ("O1", 1.0),
        ("deepseek-r1:14b", 0.1),
        ("Qwen/QwQ-32B", 0.1),
        ("gpt-4o", 0.7),
        ("o10", 0.7),
    ];
    for (model, expected) in cases {
        assert_eq!(temperature_of(model), Some(expected), "{model}");
    }
}

#[test]
fn settings_are_checked_and_keep_their_key() {
    let make = |settings: Settings| {
        LlmPlanner::new(settings, Arc::new(|| 0)).map(|planner| planner.url.to_string())
    };
    assert_eq!(
        make(Settings::new("m", " https://x.example/v1/ ")).unwrap(),
        "https://x.example/v1/chat/completions"
    );
    assert_eq!(
        make(Settings::new("m", "http://x.example")).unwrap(),
        "http://x.example/chat/completions"
    );
    assert_eq!(
        make(Settings::new(" ", "http://x.example")),
        Err(SettingsError::NoModel)
    );
    for url in [
        "",
        "x.example/v1",
        "ftp://x.example",
        "http://me:pw@x.example",
    ] {
        assert!(
            matches!(
                make(Settings::new("m", url)),
                Err(SettingsError::BadUrl { .. })
            ),
            "{url}"
        );
    }
    let keyed = |key: &str| Settings {
        api_key: Some(key.into()),
        ..Settings::new("m", "http://x.example")
    };
    assert_eq!(make(keyed("a\nb")), Err(SettingsError::BadKey));
    let planner = LlmPlanner::new(keyed(KEY), Arc::new(|| 0)).unwrap();
    assert!(!format!("{planner:?} {:?}", planner.settings).contains(KEY));
}
