//! What comes with a request, read within its limits: the body, the id in its path, its query.
//!
//! Invariant: what cannot be read is refused with our JSON body, never with the router's text.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Api;
use super::error::{ApiError, Kind};

/// The text of a request's body.
#[derive(Debug)]
pub struct Body(String);

impl Body {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromRequest<Api> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let limit: Duration = api.settings.http.body_timeout;
        match tokio::time::timeout(limit, Bytes::from_request(request, api)).await {
            Ok(bytes) => Ok(Self(text(bytes?))),
            Err(_) => {
                let message = format!("the request body took longer than {limit:?}: send it again");
                Err(ApiError::new(Kind::InvalidRequest, message))
            }
        }
    }
}

/// Bytes that are not UTF-8 become replacement characters, as Go's decoder has it.
fn text(body: Bytes) -> String {
    String::from_utf8(body.into())
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The id in a request's path.
#[derive(Debug)]
pub struct Id(pub String);

impl FromRequestParts<Api> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Path(id) = Path::from_request_parts(parts, api).await.map_err(|_| {
            ApiError::new(
                Kind::NotExist,
                "the id in the path is not text: check the url",
            )
        })?;
        Ok(Self(id))
    }
}

/// The query of a request.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let Query(params) = Query::from_request_parts(parts, api).await.map_err(|_| {
            ApiError::new(
                Kind::InvalidRequest,
                "the query cannot be read: check the url",
            )
        })?;
        Ok(Self(params))
    }
}
