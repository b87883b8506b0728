//! What comes with a request of `/v1`, read strictly: who asks, the JSON body, the path, the query.
//!
//! Invariant: what cannot be read is refused with a problem, never with the router's text.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use orchestrion_history::ids::{Namespace, Timestamp, WorkflowId};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::problem::{Code, Problem};
use crate::acts::Actor;
use crate::api::orra::{Api, authenticate};
use crate::engine::handle::{CallError, Target};

/// How many items a page may hold, of what the query asks for.
pub fn page_limit(asked: Option<u32>, default: u32, max: u32) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(default);
    if (1..=max).contains(&limit) {
        return Ok(limit as usize);
    }
    let detail = format!("limit is {limit}: give a number from 1 to {max}");
    Err(Problem::new(Code::InvalidRequest, detail).param("limit"))
}

/// The project whose key came with the request.
#[derive(Debug, Clone)]
pub struct Caller(pub Namespace);

impl FromRequestParts<Api> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        match authenticate(api, &parts.headers) {
            Ok(found) => Ok(Self(found.0)),
            Err(nobody) => {
                let error = crate::api::orra::error::ApiError::from(nobody);
                Err(Problem::new(Code::Unauthorized, error.parts().message))
            }
        }
    }
}

/// The same, and who acts by the key: for what is recorded as an act.
#[derive(Debug, Clone)]
pub struct Acting {
    /// The project.
    pub project: Namespace,
    /// The key, and where the request came from.
    pub actor: Actor,
}

impl FromRequestParts<Api> for Acting {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        Caller::from_request_parts(parts, api).await?;
        let caller = crate::api::orra::Caller::from_request_parts(parts, api).await?;
        Ok(Self {
            project: caller.project,
            actor: caller.actor,
        })
    }
}

/// A JSON body, of exactly the members its type has.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        is_json(request.headers())?;
        let limit: Duration = api.settings.http.body_timeout;
        let bytes = match tokio::time::timeout(limit, Bytes::from_request(request, api)).await {
            Ok(bytes) => bytes?,
            Err(_) => {
                let detail = format!("the request body took longer than {limit:?}: send it again");
                return Err(Problem::new(Code::InvalidRequest, detail));
            }
        };
        if bytes
            .trim_ascii()
            .first()
            .is_some_and(|first| *first != b'{')
        {
            return Err(Problem::new(
                Code::InvalidRequest,
                "the request body must be a JSON object",
            ));
        }
        if bytes.is_empty() {
            return Err(Problem::new(
                Code::InvalidRequest,
                "the request has no body: send a JSON object",
            ));
        }
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            Problem::new(
                Code::InvalidRequest,
                format!("the request body is not what this route takes: {error}"),
            )
        })
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Problem> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .map_or(Ok(""), |value| value.to_str())
        .unwrap_or("?");
    let essence = given.split(';').next().unwrap_or("").trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let detail =
        format!("the content type is {given:?}: send application/json in the Content-Type header");
    Err(Problem::new(Code::UnsupportedMedia, detail).param("Content-Type"))
}

/// A member that must be an object: the derived reading of a type takes an array for one as well.
pub fn object<'de, D: Deserializer<'de>, T: DeserializeOwned>(from: D) -> Result<T, D::Error> {
    let value = Value::deserialize(from)?;
    if !value.is_object() {
        return Err(D::Error::custom("it must be a JSON object"));
    }
    T::deserialize(value).map_err(D::Error::custom)
}

/// The same, or null.
pub fn object_or_null<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<T>, D::Error> {
    match Value::deserialize(from)? {
        Value::Null => Ok(None),
        value => object(value).map(Some).map_err(D::Error::custom),
    }
}

/// An array of objects, or null.
pub fn objects_or_null<'de, D: Deserializer<'de>, T: DeserializeOwned>(
    from: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let Some(values) = Option::<Vec<Value>>::deserialize(from)? else {
        return Ok(None);
    };
    let items: Result<Vec<T>, serde_json::Error> = values.into_iter().map(object).collect();
    items.map(Some).map_err(D::Error::custom)
}

/// A whole number, also one that is written with a point and zeros, or null.
pub fn whole_or_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u32>, D::Error> {
    let Some(number) = Option::<f64>::deserialize(from)? else {
        return Ok(None);
    };
    if number.fract() != 0.0 || !(0.0..=f64::from(u32::MAX)).contains(&number) {
        return Err(D::Error::custom("it must be a whole number"));
    }
    Ok(Some(number as u32))
}

/// The id in a path.
#[derive(Debug)]
pub struct Id(pub String);

impl FromRequestParts<Api> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Path(id) = Path::from_request_parts(parts, api)
            .await
            .map_err(|_| Problem::new(Code::NotFound, "the id in the path is not text"))?;
        Ok(Self(id))
    }
}

/// The query, of exactly the parameters its type has.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let Query(params) = Query::from_request_parts(parts, api)
            .await
            .map_err(|error| {
                Problem::new(
                    Code::InvalidRequest,
                    format!(
                        "the query is not what this route takes: {}",
                        error.body_text()
                    ),
                )
            })?;
        Ok(Self(params))
    }
}

/// The orchestration an id from outside names.
pub fn target_of(project: &Namespace, id: &str) -> Result<Target, Problem> {
    let workflow_id = WorkflowId::parse(id).map_err(|_| Problem::unknown_orchestration(id))?;
    Ok(Target {
        namespace: project.clone(),
        workflow_id,
        run_id: None,
    })
}

/// The same, with the run it has now: what is read in several steps is of one run.
pub fn pinned(api: &Api, project: &Namespace, id: &str) -> Result<Target, Problem> {
    let target = target_of(project, id)?;
    let run_id = api
        .handle
        .current_run(project, &target.workflow_id)?
        .ok_or_else(|| Problem::unknown_orchestration(id))?;
    Ok(Target {
        run_id: Some(run_id),
        ..target
    })
}

/// The answer to a call that concerned one orchestration.
pub fn unknown_or(id: &str, error: CallError) -> Problem {
    match error {
        CallError::Rejected(orchestrion_history::request::Rejection::NotFound { .. }) => {
            Problem::unknown_orchestration(id)
        }
        error => error.into(),
    }
}

/// A text of at most so many characters.
pub fn bounded(name: &'static str, text: &str, chars_max: usize) -> Result<(), Problem> {
    let chars = text.chars().count();
    if chars <= chars_max {
        return Ok(());
    }
    let detail = format!("{name} has {chars} characters: at most {chars_max} are allowed");
    Err(Problem::new(Code::InvalidRequest, detail).param(name))
}

/// An instant as callers write it.
pub fn instant(name: &'static str, text: &str) -> Result<Timestamp, Problem> {
    let wrong = || {
        let detail = format!("{name} is {text:?}: give an instant such as 2026-03-04T11:55:00Z");
        Problem::new(Code::InvalidRequest, detail).param(name)
    };
    let at: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
    // What our clock cannot say is before, or behind, all that it ever says.
    let nanos = at.as_nanosecond();
    let bound = if nanos < 0 { i64::MIN } else { i64::MAX };
    Ok(Timestamp(i64::try_from(nanos).unwrap_or(bound)))
}
