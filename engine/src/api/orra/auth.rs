//! Who asks: `Authorization: Bearer <key>`, split at single spaces into exactly two parts.
//!
//! Invariant: keys are compared by digest, and no key is in any answer or log line.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use orchestrion_history::ids::Namespace;

use super::Api;
use super::error::{ApiError, Kind};
use crate::registry::ids::KeyDigest;

/// The project whose key came with a request.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Namespace);

/// Who may create projects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// Anybody who reaches the server.
    Open,
    /// Who has the admin key.
    Key(KeyDigest),
}

/// Why a caller is nobody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nobody {
    /// No header, or not one we read.
    NoKey,
    /// The key is of no project.
    UnknownKey(KeyDigest),
}

impl From<Nobody> for ApiError {
    fn from(nobody: Nobody) -> Self {
        match nobody {
            Nobody::NoKey => Self::new(
                Kind::Unauthorized,
                "send your project's key as: Authorization: Bearer <api key>",
            ),
            // The key is named by the beginning of its digest: enough to tell which, useless otherwise.
            Nobody::UnknownKey(digest) => {
                let begin = &digest.to_hex()[..8];
                let message = format!(
                    "unknown api key (its sha-256 begins with {begin}): use a key that this server made"
                );
                Self::new(Kind::InvalidRequest, message)
            }
        }
    }
}

impl FromRequestParts<Api> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        Ok(authenticate(api, &parts.headers)?)
    }
}

/// The project of a request's key.
pub fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Authenticated, Nobody> {
    let digest = KeyDigest::of(bearer(headers).ok_or(Nobody::NoKey)?);
    api.registrar
        .registry()
        .authenticate(digest)
        .map(Authenticated)
        .ok_or(Nobody::UnknownKey(digest))
}

/// Whether a request may create projects.
pub fn admit(admission: &Admission, headers: &HeaderMap) -> Result<(), ApiError> {
    match admission {
        Admission::Open => Ok(()),
        Admission::Key(key) if bearer(headers).map(KeyDigest::of) == Some(*key) => Ok(()),
        Admission::Key(_) => Err(ApiError::new(
            Kind::Unauthorized,
            "creating projects takes the server's admin key: send it as Authorization: Bearer <admin key>",
        )),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let mut parts = value.split(' ');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("Bearer"), Some(key), None) => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(value))])
    }

    #[test]
    fn exactly_two_parts_and_exactly_bearer() {
        assert_eq!(bearer(&headers("Bearer sk")), Some("sk"));
        for wrong in [
            "bearer sk",
            "Bearer  sk",
            "Bearer sk ",
            "Basic sk",
            "Bearer",
            "sk",
        ] {
            assert_eq!(bearer(&headers(wrong)), None, "{wrong}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn the_admin_key_opens_registration() {
        let admission = Admission::Key(KeyDigest::of("secret"));
        assert!(admit(&admission, &headers("Bearer secret")).is_ok());
        assert!(admit(&admission, &headers("Bearer guess")).is_err());
        assert!(admit(&admission, &HeaderMap::new()).is_err());
        assert!(admit(&Admission::Open, &HeaderMap::new()).is_ok());
    }

    #[test]
    fn an_unknown_key_is_not_repeated() {
        let error = format!(
            "{:?}",
            ApiError::from(Nobody::UnknownKey(KeyDigest::of("sk-orra-v1-abc")))
        );
        assert!(
            error.contains("unknown api key") && !error.contains("abc"),
            "{error}"
        );
    }
}
