//! Who asks: `Authorization: Bearer <key>`, split at single spaces into exactly two parts.
//!
//! Invariant: keys are compared by digest, and no key is in any answer or log line.
//! Invariant: the address of a caller is that of its connection; what headers say of it is not believed.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use orchestrion_history::ids::Namespace;

use super::Api;
use super::error::{ApiError, Kind};
use crate::acts::{Actor, Who};
use crate::registry::Identity;
use crate::registry::ids::KeyDigest;

/// The project whose key came with a request.
#[derive(Debug, Clone)]
pub struct Authenticated(pub Namespace);

/// The project whose key came with a request, and who acts by it.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The project.
    pub project: Namespace,
    /// The key, and where the request came from.
    pub actor: Actor,
}

/// Where a request came from; the listener puts it into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

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

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let identity = identify(api, &parts.headers)?;
        Ok(Self {
            project: identity.namespace,
            actor: Actor {
                who: Who::Key(identity.key_id),
                peer: peer_of(parts),
            },
        })
    }
}

impl FromRequestParts<Api> for Peer {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Infallible> {
        Ok(Self(peer_of(parts)))
    }
}

fn peer_of(parts: &Parts) -> Option<SocketAddr> {
    parts.extensions.get::<Peer>().and_then(|peer| peer.0)
}

/// The project of a request's key.
pub fn authenticate(api: &Api, headers: &HeaderMap) -> Result<Authenticated, Nobody> {
    identify(api, headers).map(|identity| Authenticated(identity.namespace))
}

fn identify(api: &Api, headers: &HeaderMap) -> Result<Identity, Nobody> {
    let digest = key_of(headers).ok_or(Nobody::NoKey)?;
    api.registrar
        .registry()
        .identify(digest)
        .ok_or(Nobody::UnknownKey(digest))
}

/// The digest of the key that came with a request, whosever it is.
pub fn key_of(headers: &HeaderMap) -> Option<KeyDigest> {
    bearer(headers).map(KeyDigest::of)
}

/// Who creates projects with a request, if it may.
pub fn admit(admission: &Admission, headers: &HeaderMap) -> Result<Who, ApiError> {
    match admission {
        Admission::Open => Ok(Who::Anybody),
        Admission::Key(key) if key_of(headers) == Some(*key) => Ok(Who::Admin),
        Admission::Key(_) => Err(ApiError::new(
            Kind::Unauthorized,
            "creating projects takes the server's admin key: send it as Authorization: Bearer <admin key>",
        )),
    }
}

/// The key of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
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
