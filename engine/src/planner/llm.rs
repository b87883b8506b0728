//! A model behind any OpenAI-compatible endpoint.
//!
//! The request is async-openai's; it is sent here, because that crate's client retries on its own, reads answers of any length, and
//! hides the status of an error that is not JSON. The answer is read leniently: servers differ in all but the text and the usage.
//!
//! ```text
//!  200  text ----------> draft, validated         400  names response_format or temperature --> once more without it, for good
//!       nothing -------> Empty                    401, 403, 404, other 4xx, 3xx --> Refused
//!       too long, other > Malformed               408, 409, 425, 429, 5xx, connection --> Unavailable;   too slow --> TimedOut
//! ```
//!
//! Invariant: the key stands in one header and nowhere else: not in a log, an error or a `Debug` text.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, CreateChatCompletionRequest, ResponseFormat,
    ResponseFormatJsonSchema,
};
use futures_util::future::BoxFuture;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, StatusCode, Url, redirect};
use serde_json::Value;

use super::prompt::{Prompt, answer_schema, render};
use super::{Answer, Cost, FailedAttempt, PlanError, PlanRequest, Planned};
use crate::plan::draft::{Parsed, parse_reply};
use crate::plan::validate_under;
use crate::seams;

/// The settings that errors name.
mod setting {
    pub const MODEL: &str = "llm.model";
    pub const API_KEY: &str = "llm.api_key";
    pub const BASE_URL: &str = "llm.api_base_url";
}

/// How long one call may take, unless the settings say otherwise.
pub const TIME_LIMIT: Duration = Duration::from_secs(60);
/// Bytes of an answer, unless the settings say otherwise.
pub const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a prompt.
pub const PROMPT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an error's body that are read.
const ERROR_BYTES_MAX: usize = 64 * 1024;
/// Characters of an error's body that are told.
const ERROR_CHARS_TOLD_MAX: usize = 300;

/// Which model, where, and with what patience.
#[derive(Clone)]
pub struct Settings {
    /// Sent as it is; any name.
    pub model: String,
    /// Sent as a bearer token, if there is one.
    pub api_key: Option<String>,
    /// What `/chat/completions` is appended to.
    pub base_url: String,
    /// How long one call may take, from the connection to the last byte.
    pub time_limit: Duration,
    /// Instead of the one that fits the model.
    pub temperature: Option<f32>,
    /// Bytes of an answer.
    pub answer_bytes_max: usize,
}

impl Settings {
    /// A model at a place, everything else as usual.
    pub fn new(model: impl Into<String>, base_url: impl Into<String>) -> Self {
        Self {
            model: model.into(),
            api_key: None,
            base_url: base_url.into(),
            time_limit: TIME_LIMIT,
            temperature: None,
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("base_url", &self.base_url)
            .field("time_limit", &self.time_limit)
            .field("temperature", &self.temperature)
            .field("answer_bytes_max", &self.answer_bytes_max)
            .finish()
    }
}

/// Why a model cannot be used as the settings say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// There is no model's name.
    #[error("{} is empty: give the name of a model", setting::MODEL)]
    NoModel,
    /// The place is none.
    #[error("{} is no http or https URL: {reason}", setting::BASE_URL)]
    BadUrl {
        /// What is wrong with it.
        reason: String,
    },
    /// The key cannot be sent.
    #[error(
        "{} has characters that no key has, a line break perhaps",
        setting::API_KEY
    )]
    BadKey,
    /// There is no client to be had.
    #[error("no HTTP client can be made: {0}")]
    Client(String),
}

/// Milliseconds on a clock that only goes forward.
pub type Milliseconds = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A model's server that is not on any network: a simulator plays it.
pub trait Model: Send + Sync {
    /// Takes a request's body; answers a status and a body, or why the connection broke.
    fn complete(&self, body: String) -> BoxFuture<'static, Result<(u16, Vec<u8>), String>>;
}

/// How the model's server is reached.
enum Line {
    Network(Client),
    Played(Box<dyn Model>),
}

/// A model that plans.
pub struct LlmPlanner {
    settings: Settings,
    url: Url,
    authorization: Option<HeaderValue>,
    line: Line,
    now_ms: Milliseconds,
    /// Whether the server has not yet refused what it was offered.
    structured: AtomicBool,
    tempered: AtomicBool,
}

impl fmt::Debug for LlmPlanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LlmPlanner")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What a model said.
struct Reply {
    text: String,
    refused: bool,
}

impl LlmPlanner {
    /// A planner; nothing is sent yet. `now_ms` measures how long answers take.
    pub fn new(settings: Settings, now_ms: Milliseconds) -> Result<Self, SettingsError> {
        // A redirect would turn the POST into a GET, or carry the prompt to another place.
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| SettingsError::Client(error.to_string()))?;
        Self::over(Line::Network(client), settings, now_ms)
    }

    /// A planner whose model a simulator plays.
    pub fn played(
        model: Box<dyn Model>,
        settings: Settings,
        now_ms: Milliseconds,
    ) -> Result<Self, SettingsError> {
        Self::over(Line::Played(model), settings, now_ms)
    }

    fn over(line: Line, settings: Settings, now_ms: Milliseconds) -> Result<Self, SettingsError> {
        if settings.model.trim().is_empty() {
            return Err(SettingsError::NoModel);
        }
        let url = endpoint(&settings.base_url)?;
        let authorization = match settings
            .api_key
            .as_deref()
            .map(str::trim)
            .filter(|key| !key.is_empty())
        {
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| SettingsError::BadKey)?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        let (structured, tempered) = (AtomicBool::new(true), AtomicBool::new(true));
        Ok(Self {
            settings,
            url,
            authorization,
            line,
            now_ms,
            structured,
            tempered,
        })
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.settings.model
    }

    /// Asks the model once.
    pub async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, FailedAttempt> {
        let began_ms = (self.now_ms)();
        let prompt = render(&request);
        let mut cost = Cost {
            model: self.settings.model.clone(),
            tries: request.attempt.max(1),
            ..Cost::default()
        };
        let answer = self.answer(&prompt, &request, &mut cost).await;
        cost.duration_ms = (self.now_ms)().saturating_sub(began_ms);
        cost.prompt_digest = prompt.digest;
        match answer {
            Ok(answer) => Ok(Planned {
                answer,
                model: cost.model,
                prompt_digest: cost.prompt_digest,
                prompt_tokens: cost.prompt_tokens,
                completion_tokens: cost.completion_tokens,
                duration_ms: cost.duration_ms,
                tries: cost.tries,
            }),
            Err(error) => Err(FailedAttempt { error, cost }),
        }
    }

    async fn answer(
        &self,
        prompt: &Prompt,
        request: &PlanRequest<'_>,
        cost: &mut Cost,
    ) -> Result<Answer, PlanError> {
        if prompt.text.len() > PROMPT_BYTES_MAX {
            let bytes = prompt.text.len();
            return Err(PlanError::Refused(format!(
                "services, action and data make a prompt of {bytes} bytes, at most {PROMPT_BYTES_MAX} are sent: shorten their schemas and texts"
            )));
        }
        match seams::timeout(self.settings.time_limit, self.ask(prompt, cost)).await {
            Some(reply) => answer(&reply?, request),
            None => {
                let limit_ms =
                    u64::try_from(self.settings.time_limit.as_millis()).unwrap_or(u64::MAX);
                Err(PlanError::TimedOut { limit_ms })
            }
        }
    }

    /// One answer. What the server does not have is left out and asked for no more.
    async fn ask(&self, prompt: &Prompt, cost: &mut Cost) -> Result<Reply, PlanError> {
        loop {
            let (structured, tempered) = (
                self.structured.load(Ordering::Relaxed),
                self.tempered.load(Ordering::Relaxed),
            );
            let (status, body) = self
                .send(&self.request(prompt, structured, tempered))
                .await?;
            if status.is_success() {
                return read_reply(&body, cost);
            }
            let text = String::from_utf8_lossy(&body);
            let unknown = |name: &str| matches!(status.as_u16(), 400 | 422) && text.contains(name);
            if structured && (unknown("response_format") || unknown("json_schema")) {
                tracing::info!(
                    model = self.model(),
                    "the model's server has no structured output: planning without it"
                );
                self.structured.store(false, Ordering::Relaxed);
            } else if tempered && unknown("temperature") {
                tracing::info!(
                    model = self.model(),
                    "the model takes no temperature: planning without it"
                );
                self.tempered.store(false, Ordering::Relaxed);
            } else {
                return Err(self.error_of(status, &text));
            }
        }
    }

    fn request(
        &self,
        prompt: &Prompt,
        structured: bool,
        tempered: bool,
    ) -> CreateChatCompletionRequest {
        let format = ResponseFormat::JsonSchema {
            json_schema: ResponseFormatJsonSchema {
                description: None,
                name: "plan".to_owned(),
                schema: answer_schema(),
                strict: None,
            },
        };
        let temperature = self
            .settings
            .temperature
            .or_else(|| temperature_of(&self.settings.model));
        CreateChatCompletionRequest {
            model: self.settings.model.clone(),
            messages: vec![ChatCompletionRequestUserMessage::from(prompt.text.as_str()).into()],
            temperature: temperature.filter(|_| tempered),
            response_format: structured.then_some(format),
            ..CreateChatCompletionRequest::default()
        }
    }

    async fn send(
        &self,
        body: &CreateChatCompletionRequest,
    ) -> Result<(StatusCode, Vec<u8>), PlanError> {
        let client = match &self.line {
            Line::Network(client) => client,
            Line::Played(model) => return played(&**model, body).await,
        };
        let mut request = client.post(self.url.clone()).json(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(|error| unavailable(&error))?;
        let status = response.status();
        let max = if status.is_success() {
            self.settings.answer_bytes_max
        } else {
            ERROR_BYTES_MAX
        };
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| unavailable(&error))?
        {
            if body.len() + chunk.len() > max {
                if status.is_success() {
                    return Err(PlanError::Malformed(format!(
                        "the answer has more than {max} bytes"
                    )));
                }
                body.extend_from_slice(&chunk[..max - body.len()]);
                break;
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }

    fn error_of(&self, status: StatusCode, body: &str) -> PlanError {
        let code = status.as_u16();
        match code {
            // What the server says may quote the key.
            401 | 403 => PlanError::Refused(format!(
                "the model's server answers {code} to the key: check {} (and {})",
                setting::API_KEY,
                setting::BASE_URL
            )),
            404 => PlanError::Refused(format!(
                "the model's server answers 404: check {} (now {:?}) and {}",
                setting::MODEL,
                self.settings.model,
                setting::BASE_URL
            )),
            300..=399 => PlanError::Refused(format!(
                "the model's server answers {code}, a redirect: set {} to where it leads",
                setting::BASE_URL
            )),
            408 | 409 | 425 | 429 | 500.. => {
                PlanError::Unavailable(format!("status {code}{}", self.told(body)))
            }
            _ => PlanError::Refused(format!(
                "the model's server answers {code}{}",
                self.told(body)
            )),
        }
    }

    /// What an error's body says, without the key, in one line.
    fn told(&self, body: &str) -> String {
        let parsed: Option<Value> = serde_json::from_str(body).ok();
        let message = parsed.as_ref().and_then(error_message).unwrap_or(body);
        let mut line = message.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(key) = self
            .settings
            .api_key
            .as_deref()
            .map(str::trim)
            .filter(|key| !key.is_empty())
        {
            line = line.replace(key, "…");
        }
        let told: String = line.chars().take(ERROR_CHARS_TOLD_MAX).collect();
        if told.is_empty() {
            told
        } else {
            format!(": {told}")
        }
    }
}

async fn played(
    model: &dyn Model,
    body: &CreateChatCompletionRequest,
) -> Result<(StatusCode, Vec<u8>), PlanError> {
    let body = serde_json::to_string(body).map_err(|e| PlanError::Refused(e.to_string()))?;
    let (status, answer) = model.complete(body).await.map_err(PlanError::Unavailable)?;
    let status = StatusCode::from_u16(status).map_err(|e| PlanError::Malformed(e.to_string()))?;
    Ok((status, answer))
}

fn endpoint(base_url: &str) -> Result<Url, SettingsError> {
    let refuse = |reason: &str| SettingsError::BadUrl {
        reason: reason.to_owned(),
    };
    let mut url = Url::parse(base_url.trim()).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(refuse("it begins with neither"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse(
            "it holds a name or a password; there is a setting for the key",
        ));
    }
    let path = format!("{}/chat/completions", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

/// The temperature that a model plans best with; reasoning models of the o series take none but their own.
fn temperature_of(model: &str) -> Option<f32> {
    let name = model
        .rsplit('/')
        .next()
        .unwrap_or(model)
        .to_ascii_lowercase();
    let is = |family: &str| {
        name.strip_prefix(family)
            .is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_alphanumeric()))
    };
    if is("o1") || is("o3") {
        Some(1.0)
    } else if is("deepseek-r1") || is("qwq") {
        Some(0.1)
    } else {
        Some(0.7)
    }
}

fn unavailable(error: &reqwest::Error) -> PlanError {
    let kind = if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause.and_then(std::error::Error::source) {
        cause = Some(deeper);
    }
    PlanError::Unavailable(
        cause.map_or_else(|| kind.to_owned(), |cause| format!("{kind}: {cause}")),
    )
}

fn error_message(body: &Value) -> Option<&str> {
    let error = body.get("error").unwrap_or(body);
    error.as_str().or_else(|| error.get("message")?.as_str())
}

/// What the model said. What it cost is read first: an answer that is of no use is paid for as well.
fn read_reply(body: &[u8], cost: &mut Cost) -> Result<Reply, PlanError> {
    let malformed = |text: &str| {
        PlanError::Malformed(format!("the server's answer is no chat completion: {text}"))
    };
    let body: Value = serde_json::from_slice(body).map_err(|_| malformed("it is not JSON"))?;
    read_cost(&body, cost);
    let Some(choice) = body.pointer("/choices/0") else {
        // Some gateways wrap the errors of the servers behind them into a success.
        return Err(match body.get("error") {
            Some(_) => PlanError::Unavailable(
                error_message(&body)
                    .unwrap_or("an error")
                    .chars()
                    .take(ERROR_CHARS_TOLD_MAX)
                    .collect(),
            ),
            None => malformed("it has no choice"),
        });
    };
    if choice.get("finish_reason").and_then(Value::as_str) == Some("length") {
        return Err(PlanError::Malformed(
            "the answer was cut off at the model's limit: answer more briefly".to_owned(),
        ));
    }
    let text = match choice.pointer("/message/content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(parts)) => parts
            .iter()
            .filter_map(|part| part.get("text")?.as_str())
            .collect(),
        _ => String::new(),
    };
    let refusal = choice
        .pointer("/message/refusal")
        .and_then(Value::as_str)
        .filter(|refusal| !refusal.is_empty());
    Ok(Reply {
        refused: text.trim().is_empty() && refusal.is_some(),
        text: if text.trim().is_empty() {
            refusal.unwrap_or_default().to_owned()
        } else {
            text
        },
    })
}

fn read_cost(body: &Value, cost: &mut Cost) {
    let tokens = |name: &str| {
        body.pointer(&format!("/usage/{name}"))
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    cost.prompt_tokens = tokens("prompt_tokens");
    cost.completion_tokens = tokens("completion_tokens");
    if let Some(model) = body.get("model").and_then(Value::as_str)
        && !model.is_empty()
    {
        model.clone_into(&mut cost.model);
    }
}

fn answer(reply: &Reply, request: &PlanRequest<'_>) -> Result<Answer, PlanError> {
    if reply.text.trim().is_empty() {
        return Err(PlanError::Empty);
    }
    if reply.refused {
        return Ok(Answer::NotActionable(format!(
            "the model refused: {}",
            reply.text.trim()
        )));
    }
    match parse_reply(&reply.text)? {
        Parsed::NotActionable(reason) => Ok(Answer::NotActionable(reason)),
        Parsed::Draft(draft) => {
            match validate_under(&draft, request.services, request.data, request.ruling()) {
                Ok(plan) => Ok(Answer::Planned(plan)),
                Err(reasons) => Err(PlanError::Invalid { reasons }),
            }
        }
    }
}

#[cfg(test)]
mod tests;
