//! The model's server: it answers with plans, good and bad, with nonsense, slowly, with errors, or not at all.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use orchestrion::planner::llm::{LlmPlanner, Model, Settings};
use orchestrion::seams::{self, Clock, ManualClock};
use serde_json::{Value, json};

use super::dice::Dice;

/// The input in which a task of a shared action carries how its service was described to the model.
pub const DESCRIBED: &str = "described";
/// How long a call may take.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// The model, as every life of the engine meets it.
#[derive(Clone)]
pub struct SimModel {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    dice: Dice,
    faults: bool,
    /// The orchestrations it was asked about, in order.
    asked: Vec<String>,
}

impl SimModel {
    /// A model with dice of its own.
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            dice: Dice::new(seed),
            faults: true,
            asked: Vec::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on every answer is good.
    pub fn behave(&self) {
        self.inner().faults = false;
    }

    /// What it was asked since the last look.
    pub fn look(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().asked)
    }

    /// The engine's planner over it.
    pub fn planner(&self, clock: ManualClock) -> LlmPlanner {
        let settings = Settings {
            time_limit: TIME_LIMIT,
            ..Settings::new("simulated", "http://model.simulated/v1")
        };
        let now_ms = move || u64::try_from(clock.now().as_millis()).unwrap_or(0);
        LlmPlanner::played(Box::new(self.clone()), settings, Arc::new(now_ms))
            .expect("the settings are good")
    }
}

/// The action of an orchestration that the model plans: it says its own id and the services to use.
pub fn action(id: &str, services: &[String]) -> String {
    format!("@@{id}@@ with %%{}%%", services.join(" "))
}

/// An action that many ask for in the same words: it says the names of the services to use.
pub fn shared_action(names: &[&str]) -> String {
    format!("@@shared@@ by &&{}&&", names.join(" "))
}

fn between<'a>(text: &'a str, sign: &str) -> Option<&'a str> {
    text.split(sign).nth(1)
}

/// The plan for an action: one task after the other. Whoever was described says how.
fn tasks<'a>(services: impl IntoIterator<Item = (&'a str, Option<&'a str>)>) -> Value {
    let services = services.into_iter().enumerate();
    let tasks = services.map(|(n, (service, described))| {
        let mut input = json!({"n": n});
        if n > 0 {
            input["from"] = json!(format!("$task{n}.value"));
        }
        if let Some(described) = described {
            input[DESCRIBED] = json!(described);
        }
        json!({"id": format!("task{}", n + 1), "service": service, "input": input})
    });
    json!({"tasks": tasks.collect::<Vec<_>>()})
}

/// What a prompt says of the services: their lines.
fn services_in(body: &str) -> Vec<Value> {
    let body: Value = serde_json::from_str(body).unwrap_or_default();
    let text = body["messages"][0]["content"].as_str().unwrap_or_default();
    let block = text.split("\n<services>\n").nth(1).unwrap_or_default();
    let lines = block.lines().take_while(|line| *line != "</services>");
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// The plan for the action in a prompt.
fn plan(body: &str) -> Value {
    let known = services_in(body);
    let called = |name: &str| {
        let service = known.iter().find(|service| service["name"] == name)?;
        Some((service["id"].as_str()?, service["description"].as_str()))
    };
    match between(body, "&&") {
        Some(names) => tasks(names.split_whitespace().filter_map(called)),
        None => {
            let ids = between(body, "%%").unwrap_or_default();
            tasks(ids.split_whitespace().map(|id| (id, None)))
        }
    }
}

impl Model for SimModel {
    fn complete(&self, body: String) -> BoxFuture<'static, Result<(u16, Vec<u8>), String>> {
        let id = between(&body, "@@").unwrap_or_default().to_owned();
        let good = plan(&body);
        let (wait, answer) = {
            let mut inner = self.inner();
            inner.asked.push(id);
            let wait = 1 + inner.dice.roll(3_000);
            let ill = inner.faults && inner.dice.per_mille(400);
            let kind = if ill { inner.dice.roll(9) } else { 99 };
            let says = |content: String| {
                let body = json!({
                    "model": "simulated",
                    "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 5},
                });
                Ok((200, body.to_string().into_bytes()))
            };
            match kind {
                0 => (wait, says("I cannot say.".to_owned())),
                1 => (wait, says("```json\n{\"tasks\": [{\"id\": ".to_owned())),
                2 => (wait, says(tasks([("s_unknown", None)]).to_string())),
                3 => (wait, says(String::new())),
                4 => (wait, Ok((500, b"out of order".to_vec()))),
                5 => (wait, Ok((200, b"\xff\xfe no JSON".to_vec()))),
                6 => (wait, Err("the connection broke".to_owned())),
                7 => (60_000, says(good.to_string())),
                8 => (10_000_000, says(String::new())),
                _ => (wait, says(good.to_string())),
            }
        };
        Box::pin(async move {
            seams::sleep(Duration::from_millis(wait)).await;
            answer
        })
    }
}
