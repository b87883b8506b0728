//! A model behind an OpenAI-compatible `/embeddings`, with a memory of the texts it placed last.
//!
//! ```text
//!  texts not remembered --one call--> 200 {"data":[{"index","embedding"}]} --> unit vectors, all of one size
//!                                     anything else ------------------------> ModelError
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Client, Url, redirect};
use serde_json::{Value, json};

use super::Vector;

/// Texts of one call.
const BATCH_MAX: usize = 256;
/// Texts that are remembered.
const REMEMBERED_MAX: usize = 4_096;
/// Components of a vector.
const SIZE_MAX: usize = 16_384;
/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of a text that is sent; what is longer is cut.
const TEXT_BYTES_MAX: usize = 24 * 1024;

/// Which model, where, and with what patience.
#[derive(Clone)]
pub struct Settings {
    /// Sent as it is.
    pub model: String,
    /// Sent as a bearer token, if there is one.
    pub api_key: Option<String>,
    /// What `/embeddings` is appended to.
    pub base_url: String,
    /// How long one call may take, from the connection to the last byte.
    pub time_limit: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("model", &self.model)
            .field("api_key", &self.api_key.as_ref().map(|_| "…"))
            .field("base_url", &self.base_url)
            .field("time_limit", &self.time_limit)
            .finish()
    }
}

/// Why there are no vectors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The settings cannot be used.
    #[error("{0}")]
    Settings(String),
    /// No answer in time.
    #[error("the embeddings' server did not answer within {limit_ms} ms")]
    TimedOut {
        /// How long it had.
        limit_ms: u64,
    },
    /// No connection, or it broke.
    #[error("the embeddings' server cannot be reached")]
    Unreachable,
    /// An answer that is not a success.
    #[error(
        "the embeddings' server answers {status}: check embeddings.api_base_url, embeddings.model and embeddings.api_key"
    )]
    Status {
        /// Which.
        status: u16,
    },
    /// A success that holds something else.
    #[error("the embeddings' server answers something else than embeddings: {0}")]
    Malformed(String),
}

/// A model that places texts.
pub struct EmbeddingModel {
    settings: Settings,
    url: Url,
    authorization: Option<HeaderValue>,
    client: Client,
    remembered: Mutex<HashMap<String, Vec<f32>>>,
}

impl fmt::Debug for EmbeddingModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingModel")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl EmbeddingModel {
    /// A model; nothing is sent yet.
    pub fn new(settings: Settings) -> Result<Self, ModelError> {
        let refuse = |text: String| ModelError::Settings(text);
        let mut url = Url::parse(settings.base_url.trim()).map_err(|e| {
            refuse(format!(
                "embeddings.api_base_url is no http or https URL: {e}"
            ))
        })?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(refuse(
                "embeddings.api_base_url is no http or https URL".to_owned(),
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse(
                "embeddings.api_base_url holds a name or a password; there is a setting for the key".to_owned(),
            ));
        }
        let path = format!("{}/embeddings", url.path().trim_end_matches('/'));
        url.set_path(&path);
        let key = settings.api_key.as_deref().map(str::trim);
        let authorization = match key.filter(|key| !key.is_empty()) {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                    refuse(
                        "embeddings.api_key has characters that no key has, a line break perhaps"
                            .to_owned(),
                    )
                })?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let client = Client::builder()
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|e| refuse(format!("no HTTP client can be made: {e}")))?;
        Ok(Self {
            settings,
            url,
            authorization,
            client,
            remembered: Mutex::default(),
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.settings.model
    }

    /// The vectors of some texts. All of one answer have one size; if that is not the size of those remembered, all are asked for again.
    pub(super) async fn embed(&self, texts: &[&str]) -> Result<Vec<Vector>, ModelError> {
        let texts: Vec<&str> = texts.iter().map(|text| cut(text)).collect();
        let unknown = self.unknown(&texts);
        if !unknown.is_empty() {
            self.learn(&unknown).await?;
        }
        if let Some(vectors) = self.recall(&texts) {
            return Ok(vectors);
        }
        // The model behind the name has changed, or the memory was emptied meanwhile.
        self.remembered().clear();
        let mut all = texts.clone();
        all.sort_unstable();
        all.dedup();
        self.learn(&all).await?;
        self.recall(&texts).ok_or_else(|| {
            ModelError::Malformed("vectors of different sizes in answers to one model".to_owned())
        })
    }

    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<f32>>> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown<'a>(&self, texts: &[&'a str]) -> Vec<&'a str> {
        let remembered = self.remembered();
        let mut unknown: Vec<_> = texts
            .iter()
            .copied()
            .filter(|text| !remembered.contains_key(*text))
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }

    fn recall(&self, texts: &[&str]) -> Option<Vec<Vector>> {
        let remembered = self.remembered();
        let found: Option<Vec<_>> = texts.iter().map(|text| remembered.get(*text)).collect();
        let found = found?;
        let size = found.first().map_or(0, |first| first.len());
        if found.iter().any(|values| values.len() != size) {
            return None;
        }
        let vector = |values: &Vec<f32>| Vector {
            space: self.settings.model.clone(),
            values: values.clone(),
        };
        Some(found.into_iter().map(vector).collect())
    }

    async fn learn(&self, texts: &[&str]) -> Result<(), ModelError> {
        for batch in texts.chunks(BATCH_MAX) {
            let asked = self.ask(batch);
            let vectors = match tokio::time::timeout(self.settings.time_limit, asked).await {
                Ok(vectors) => vectors?,
                Err(_) => {
                    let limit_ms =
                        u64::try_from(self.settings.time_limit.as_millis()).unwrap_or(u64::MAX);
                    return Err(ModelError::TimedOut { limit_ms });
                }
            };
            let mut remembered = self.remembered();
            if remembered.len() + batch.len() > REMEMBERED_MAX {
                // Everything that one comparison needs is learned in one go, unless it is more than is ever remembered.
                let keep: Vec<_> = remembered
                    .keys()
                    .take(REMEMBERED_MAX / 2)
                    .cloned()
                    .collect();
                for text in keep {
                    remembered.remove(&text);
                }
            }
            remembered.extend(batch.iter().map(|text| (*text).to_owned()).zip(vectors));
        }
        Ok(())
    }

    async fn ask(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ModelError> {
        let body = json!({"input": texts, "model": self.settings.model});
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let mut response = request.send().await.map_err(|_| ModelError::Unreachable)?;
        let status = response.status();
        if !status.is_success() {
            return Err(ModelError::Status {
                status: status.as_u16(),
            });
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|_| ModelError::Unreachable)?
        {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(ModelError::Malformed(format!(
                    "more than {ANSWER_BYTES_MAX} bytes"
                )));
            }
            bytes.extend_from_slice(&chunk);
        }
        read(&bytes, texts.len())
    }
}

fn read(bytes: &[u8], count: usize) -> Result<Vec<Vec<f32>>, ModelError> {
    let malformed = |text: String| ModelError::Malformed(text);
    let answer: Value =
        serde_json::from_slice(bytes).map_err(|_| malformed("it is not JSON".to_owned()))?;
    let data = answer
        .get("data")
        .and_then(Value::as_array)
        .ok_or_else(|| malformed("it has no data".to_owned()))?;
    if data.len() != count {
        return Err(malformed(format!(
            "it has {} vectors for {count} texts",
            data.len()
        )));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (position, element) in data.iter().enumerate() {
        let index = element.get("index").and_then(Value::as_u64);
        let index = index.map_or(Some(position), |index| usize::try_from(index).ok());
        let values = element.get("embedding").and_then(Value::as_array);
        let values: Option<Vec<f32>> = values
            .filter(|values| !values.is_empty() && values.len() <= SIZE_MAX)
            .and_then(|values| {
                values
                    .iter()
                    .map(|value| Some(value.as_f64()? as f32))
                    .collect()
            });
        let values = values
            .and_then(unit)
            .ok_or_else(|| malformed("a vector is not one of numbers".to_owned()))?;
        match index.and_then(|index| vectors.get_mut(index)) {
            Some(slot @ None) => *slot = Some(values),
            _ => {
                return Err(malformed(
                    "its indexes are not those of the texts".to_owned(),
                ));
            }
        }
    }
    let vectors: Option<Vec<_>> = vectors.into_iter().collect();
    let vectors = vectors.ok_or_else(|| malformed("a vector is missing".to_owned()))?;
    let size = vectors.first().map_or(0, Vec::len);
    if vectors.iter().any(|vector| vector.len() != size) {
        return Err(malformed("its vectors have different sizes".to_owned()));
    }
    Ok(vectors)
}

/// The vector of length one in the same direction, if there is one.
pub(super) fn unit(mut values: Vec<f32>) -> Option<Vec<f32>> {
    let length = values
        .iter()
        .map(|value| f64::from(*value) * f64::from(*value))
        .sum::<f64>()
        .sqrt();
    if !length.is_finite() || length <= 0.0 {
        return None;
    }
    for value in &mut values {
        *value = (f64::from(*value) / length) as f32;
    }
    Some(values)
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
