//! An OpenAI-compatible model that answers as a test scripts it, and remembers what it was asked.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::engine::Launch;
use crate::plan::Plan;
use crate::wait::until_some;

/// What the model does with one call.
#[derive(Debug, Clone)]
pub enum Answer {
    /// A plan inside a ```json fence, with words around it.
    Fenced(Value),
    /// A plan and nothing else.
    Bare(Value),
    /// Any text.
    Text(String),
    /// A refusal of the server, before the model.
    Status(u16, Value),
    /// No answer for so long, then one.
    Slow(Duration, Box<Answer>),
    /// No answer, ever.
    Never,
}

impl Answer {
    /// A plan as most models answer it.
    pub fn plan(plan: Plan) -> Self {
        Self::Fenced(plan.into())
    }
}

/// Serves `/v1/chat/completions` until it is dropped.
pub struct FakeLlm {
    base_url: String,
    script: Arc<Mutex<Script>>,
    server: JoinHandle<()>,
}

#[derive(Default)]
struct Script {
    answers: VecDeque<Answer>,
    calls: Vec<Value>,
    /// Words, and where a text stands that has one of them.
    places: Vec<(Vec<String>, Vec<f64>)>,
    /// What embeddings answer instead of vectors.
    embeddings: Option<Answer>,
}

impl FakeLlm {
    /// With nothing to say yet.
    pub async fn start() -> Self {
        let script = Arc::new(Mutex::new(Script::default()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let routes = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/embeddings", post(embed))
            .with_state(script.clone());
        let server = tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self {
            base_url,
            script,
            server,
        }
    }

    /// Tells an engine to plan with this model.
    pub fn plans_for(&self, launch: Launch) -> Launch {
        launch
            .env("LLM_API_BASE_URL", &self.base_url)
            .env("LLM_MODEL", "fake-planner")
            .env("LLM_API_KEY", SECRET)
    }

    /// Tells an engine to compare texts with this model.
    pub fn embeds_for(&self, launch: Launch) -> Launch {
        launch
            .env("EMBEDDINGS_API_BASE_URL", &self.base_url)
            .env("EMBEDDINGS_MODEL", "fake-embeddings")
            .env("EMBEDDINGS_API_KEY", SECRET)
    }

    /// Texts with one of these words stand here; texts with none of any stand elsewhere.
    pub fn places(&self, words: &[&str], at: &[f64]) {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        self.script
            .lock()
            .unwrap()
            .places
            .push((words, at.to_vec()));
    }

    /// What embeddings answer instead of vectors, from now on.
    pub fn embeddings(&self, answer: Option<Answer>) {
        self.script.lock().unwrap().embeddings = answer;
    }

    /// What it answers next, in order. The last answer is given for ever.
    pub fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.script.lock().unwrap().answers = answers.into_iter().collect();
    }

    /// The bodies of all requests so far.
    pub fn calls(&self) -> Vec<Value> {
        self.script.lock().unwrap().calls.clone()
    }

    /// Waits until it was asked this often.
    pub async fn called(&self, times: usize) {
        until_some("the model to be asked", || {
            (self.calls().len() >= times).then_some(())
        })
        .await;
    }

    /// All text of the messages of one call.
    pub fn prompt(&self, call: usize) -> String {
        let calls = self.calls();
        let messages = calls[call]["messages"]
            .as_array()
            .expect("a call has messages")
            .clone();
        messages
            .iter()
            .map(|message| content_text(&message["content"]))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The key the engine must send and must never write anywhere.
pub const SECRET: &str = "sk-llm-9f1c6d0e7b";

impl Drop for FakeLlm {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn content_text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .collect(),
        _ => String::new(),
    }
}

async fn embed(State(script): State<Arc<Mutex<Script>>>, Json(request): Json<Value>) -> Response {
    let (broken, places) = {
        let script = script.lock().unwrap();
        (script.embeddings.clone(), script.places.clone())
    };
    match broken {
        None => {}
        Some(Answer::Status(code, body)) => {
            return (StatusCode::from_u16(code).unwrap(), Json(body)).into_response();
        }
        Some(Answer::Never) => std::future::pending().await,
        Some(other) => return Json(json!({"answer": format!("{other:?}")})).into_response(),
    }
    let texts = request["input"].as_array().expect("texts come in an array");
    let place = |text: &str| {
        let text = text.to_lowercase();
        let found = places
            .iter()
            .find(|(words, _)| words.iter().any(|word| text.contains(word)));
        found.map_or_else(|| vec![0.0, 1.0, 0.0], |(_, at)| at.clone())
    };
    let data: Vec<Value> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": place(text.as_str().unwrap())}))
        .collect();
    Json(json!({"object": "list", "data": data, "model": "fake-embeddings"})).into_response()
}

async fn complete(
    State(script): State<Arc<Mutex<Script>>>,
    Json(request): Json<Value>,
) -> Response {
    let mut answer = {
        let mut script = script.lock().unwrap();
        script.calls.push(request);
        let last = script.answers.len() <= 1;
        let next = if last {
            script.answers.front().cloned()
        } else {
            script.answers.pop_front()
        };
        next.unwrap_or_else(|| {
            Answer::Status(
                500,
                json!({"error": {"message": "the model has no script"}}),
            )
        })
    };
    while let Answer::Slow(delay, then) = answer {
        tokio::time::sleep(delay).await;
        answer = *then;
    }
    let content = match answer {
        Answer::Fenced(plan) => format!("Here is the plan.\n```json\n{plan}\n```\nGood luck."),
        Answer::Bare(plan) => plan.to_string(),
        Answer::Text(text) => text,
        Answer::Status(code, body) => {
            return (StatusCode::from_u16(code).unwrap(), Json(body)).into_response();
        }
        Answer::Never => std::future::pending().await,
        Answer::Slow(..) => unreachable!("unwrapped above"),
    };
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "fake-planner",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": content, "refusal": null},
            "finish_reason": "stop",
            "logprobs": null,
        }],
        "usage": {"prompt_tokens": 120, "completion_tokens": 45, "total_tokens": 165},
    }))
    .into_response()
}
