//! Texts as vectors, so that they can be compared: by a model behind any OpenAI-compatible endpoint, or by words alone.
//!
//! ```text
//!  no embeddings.* setting ------------------------------------> lexical vectors, no network
//!  embeddings.* set --POST /embeddings--> vectors of the model
//!                   '--slow, refused, malformed, of another size--> lexical vectors for this time, and why
//! ```
//!
//! Invariant: vectors of different spaces are never compared; the key stands in one header and nowhere else.

pub mod lexical;
mod model;
#[cfg(test)]
mod tests;

pub use self::model::{EmbeddingModel, ModelError, Settings};

/// A text's place in a space of meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct Vector {
    /// Who placed it: a model's name, or [`lexical::SPACE`].
    pub space: String,
    /// Of length one.
    pub values: Vec<f32>,
}

impl Vector {
    /// The cosine of two vectors of one space, from -1 to 1.
    pub fn likeness(&self, other: &Self) -> Option<f64> {
        if self.space != other.space || self.values.len() != other.values.len() {
            return None;
        }
        let products = self.values.iter().zip(&other.values);
        Some(products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum())
    }

    /// Whether it is one of words, not of meanings.
    pub fn is_lexical(&self) -> bool {
        self.space == lexical::SPACE
    }
}

/// Vectors of several texts, all of one space.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// In the order of the texts.
    pub vectors: Vec<Vector>,
    /// Why a model that is configured did not place them.
    pub outage: Option<String>,
}

/// Makes vectors.
#[derive(Debug, Default)]
pub struct Embedder {
    model: Option<EmbeddingModel>,
}

impl Embedder {
    /// By a model, where there is one.
    pub fn new(model: Option<EmbeddingModel>) -> Self {
        Self { model }
    }

    /// The space of its vectors, when nothing goes wrong.
    pub fn space(&self) -> &str {
        self.model
            .as_ref()
            .map_or(lexical::SPACE, EmbeddingModel::name)
    }

    /// The vectors of some texts.
    pub async fn embed(&self, texts: &[&str]) -> Embedded {
        let outage = match &self.model {
            None => None,
            Some(model) => match model.embed(texts).await {
                Ok(vectors) => {
                    return Embedded {
                        vectors,
                        outage: None,
                    };
                }
                Err(error) => {
                    tracing::warn!(model = model.name(), %error, "the embeddings are not to be had: comparing by words for now");
                    metrics::counter!("orchestrion_embedding_outages_total").increment(1);
                    Some(error.to_string())
                }
            },
        };
        Embedded {
            vectors: texts.iter().map(|text| lexical::vector(text)).collect(),
            outage,
        }
    }
}
