//! The body of a request, read within its limits of size and time.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};

use super::Api;
use super::error::{ApiError, Kind};
use super::json::text;

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
            Ok(bytes) => Ok(Self(text(&bytes?).into_owned())),
            Err(_) => Err(ApiError::new(Kind::InvalidRequest, format!("the request body took longer than {limit:?}: send it again"))),
        }
    }
}
