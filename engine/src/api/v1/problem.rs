//! Answers that are not a success: `application/problem+json` (RFC 9457), with a code that programs compare.
//!
//! | code                  | status | when                                                              |
//! |-----------------------|--------|-------------------------------------------------------------------|
//! | `invalid_request`     | 400    | not the JSON, the query or the header that this route takes        |
//! | `unauthorized`        | 401    | no key, or one of no project                                      |
//! | `not_found`           | 404    | no such thing, for this caller                                    |
//! | `method_not_allowed`  | 405    | another method                                                    |
//! | `conflict`            | 409    | it is not in a state in which this can be done                    |
//! | `too_large`           | 413    | more bytes than this route takes                                  |
//! | `unsupported_media`   | 415    | a body that does not say that it is JSON                          |
//! | `invalid_data`        | 422    | parameters that contradict each other                             |
//! | `invalid_url`         | 422    | a URL that deliveries cannot or may not go to                     |
//! | `plan_refused`        | 422    | the submitted plan is not valid; `reasons` says why, one by one   |
//! | `grounding_refused`   | 422    | a grounding that cannot be applied as it is                       |
//! | `not_actionable`      | 422    | the action cannot be done with the services there are             |
//! | `planning_failed`     | 422    | no plan came of it                                                |
//! | `idempotency_key_reused` | 422 | the key was used for another submission                           |
//! | `limit_reached`       | 422    | a limit of the project or the run is reached                      |
//! | `internal`            | 500    | our trouble                                                       |
//! | `unavailable`         | 503    | busy, stopping, or unable to write; `Retry-After` says when        |
//!
//! Invariant: every answer under `/v1` that is not a success has this body, and no key is ever in it.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrion_history::store::StoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::orra::error::{ApiError, Kind, code};
use crate::engine::handle::CallError;
use crate::registry::RegistryError;

/// What every type begins with; the code follows.
const TYPE_PREFIX: &str = "urn:orchestrion:problem:";

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    code: Code,
    detail: String,
    param: Option<String>,
    reasons: Vec<String>,
    retry_after_seconds: Option<u64>,
}

/// The body of an answer that is not a success (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemView {
    /// `urn:orchestrion:problem:` and the code.
    #[serde(rename = "type")]
    kind: String,
    /// What kind of problem it is, in words.
    title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What is wrong this time, and what to do.
    detail: String,
    /// For programs.
    code: Code,
    /// The member, parameter or header that is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    /// Everything that is wrong, one by one, where there may be more than one thing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    reasons: Vec<String>,
}

/// What kind of problem it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// Not the JSON, the query or the header that this route takes.
    InvalidRequest,
    /// No key, or one of no project.
    Unauthorized,
    /// No such thing, for this caller.
    NotFound,
    /// Another method.
    MethodNotAllowed,
    /// Not in a state in which this can be done.
    Conflict,
    /// More bytes than this route takes.
    TooLarge,
    /// A body that does not say that it is JSON.
    UnsupportedMedia,
    /// Parameters that contradict each other.
    InvalidData,
    /// A URL that cannot be called.
    InvalidUrl,
    /// The submitted plan is not valid.
    PlanRefused,
    /// The grounding cannot be applied as it is.
    GroundingRefused,
    /// It cannot be done with the services there are.
    NotActionable,
    /// No plan came of it.
    PlanningFailed,
    /// The key was used for another submission.
    IdempotencyKeyReused,
    /// A limit is reached.
    LimitReached,
    /// Our trouble.
    Internal,
    /// Try again.
    Unavailable,
}

impl Code {
    /// All of them.
    #[cfg(test)]
    pub const ALL: [Self; 17] = [
        Self::InvalidRequest,
        Self::Unauthorized,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::TooLarge,
        Self::UnsupportedMedia,
        Self::InvalidData,
        Self::InvalidUrl,
        Self::PlanRefused,
        Self::GroundingRefused,
        Self::NotActionable,
        Self::PlanningFailed,
        Self::IdempotencyKeyReused,
        Self::LimitReached,
        Self::Internal,
        Self::Unavailable,
    ];

    /// Its name and status, as the documentation has them.
    #[cfg(test)]
    pub fn documented(self) -> String {
        let (name, status, _) = self.row();
        format!("| `{name}` | {} |", status.as_u16())
    }

    fn row(self) -> (&'static str, StatusCode, &'static str) {
        use StatusCode as S;
        match self {
            Self::InvalidRequest => ("invalid_request", S::BAD_REQUEST, "the request is wrong"),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "who asks is not known"),
            Self::NotFound => ("not_found", S::NOT_FOUND, "there is no such thing"),
            Self::MethodNotAllowed => (
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                "this path takes other methods",
            ),
            Self::Conflict => ("conflict", S::CONFLICT, "it cannot be done in this state"),
            Self::TooLarge => (
                "too_large",
                S::PAYLOAD_TOO_LARGE,
                "the request is too large",
            ),
            Self::UnsupportedMedia => (
                "unsupported_media",
                S::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON",
            ),
            Self::InvalidData => (
                "invalid_data",
                S::UNPROCESSABLE_ENTITY,
                "the parameters contradict each other",
            ),
            Self::InvalidUrl => (
                "invalid_url",
                S::UNPROCESSABLE_ENTITY,
                "the url cannot be called",
            ),
            Self::PlanRefused => (
                "plan_refused",
                S::UNPROCESSABLE_ENTITY,
                "the plan is refused",
            ),
            Self::GroundingRefused => (
                "grounding_refused",
                S::UNPROCESSABLE_ENTITY,
                "the grounding is refused",
            ),
            Self::NotActionable => (
                "not_actionable",
                S::UNPROCESSABLE_ENTITY,
                "the action cannot be done with the services there are",
            ),
            Self::PlanningFailed => (
                "planning_failed",
                S::UNPROCESSABLE_ENTITY,
                "no plan came of it",
            ),
            Self::IdempotencyKeyReused => (
                "idempotency_key_reused",
                S::UNPROCESSABLE_ENTITY,
                "the idempotency key belongs to another request",
            ),
            Self::LimitReached => (
                "limit_reached",
                S::UNPROCESSABLE_ENTITY,
                "a limit is reached",
            ),
            Self::Internal => (
                "internal",
                S::INTERNAL_SERVER_ERROR,
                "something went wrong inside the engine",
            ),
            Self::Unavailable => (
                "unavailable",
                S::SERVICE_UNAVAILABLE,
                "the engine cannot take this now",
            ),
        }
    }
}

impl Problem {
    /// A problem of a kind; `detail` says what is wrong and what to do.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            param: None,
            reasons: Vec::new(),
            retry_after_seconds: None,
        }
    }

    /// Naming what is to blame.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into()).filter(|param: &String| !param.is_empty());
        self
    }

    /// With everything that is wrong.
    #[must_use]
    pub fn reasons(mut self, reasons: Vec<String>) -> Self {
        self.reasons = reasons;
        self
    }

    /// An orchestration that is not there, for this caller.
    pub fn unknown_orchestration(id: &str) -> Self {
        let detail =
            format!("unknown orchestration {id:?}: list what there is with GET /v1/orchestrations");
        Self::new(Code::NotFound, detail).param("id")
    }

    /// Our trouble: the cause goes to the log, the caller gets a fixed text.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request could not be answered");
        Self::new(
            Code::Internal,
            "the engine's log says what it is: try again or ask its operator",
        )
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (name, status, title) = self.code.row();
        let view = ProblemView {
            kind: format!("{TYPE_PREFIX}{name}"),
            title,
            status: status.as_u16(),
            detail: self.detail,
            code: self.code,
            param: self.param,
            reasons: self.reasons,
        };
        let mut body = match serde_json::to_vec(&view) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%error, "a problem could not be written as JSON");
                b"{}".to_vec()
            }
        };
        body.push(b'\n');
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"orchestrion\""),
            );
        }
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// The same refusal on our own wire: other statuses, other codes, the same words.
impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        let parts = error.parts();
        let (detail, reasons) = split_reasons(&parts.message);
        let code = match (parts.kind, parts.code) {
            (_, code::NOT_ACTIONABLE) => Code::NotActionable,
            (_, code::CANNOT_EXECUTE) if parts.param == "plan" => Code::PlanRefused,
            (_, code::CANNOT_EXECUTE) => Code::PlanningFailed,
            (Kind::InvalidRequest, _) if parts.param == "Idempotency-Key" => {
                if parts.message.contains("was used for another") {
                    Code::IdempotencyKeyReused
                } else {
                    Code::InvalidRequest
                }
            }
            (Kind::InputValidation, _) => Code::InvalidUrl,
            (_, _) if matches!(parts.param, "url" | "webhook") => Code::InvalidUrl,
            (Kind::InvalidRequest, _) if parts.param == "data" => Code::InvalidData,
            (Kind::InvalidRequest, _) => Code::InvalidRequest,
            (Kind::NotExist, _) => Code::NotFound,
            (Kind::Unauthorized, _) => Code::Unauthorized,
            (Kind::TooLarge, _) => Code::TooLarge,
            (Kind::Unavailable, _) => Code::Unavailable,
            (Kind::Internal, _) => Code::Internal,
            // orra's word for what it did not foresee; what stands behind it is told apart above.
            _ => Code::Conflict,
        };
        Self {
            retry_after_seconds: parts.retry_after_seconds,
            ..Self::new(code, detail).param(parts.param).reasons(reasons)
        }
    }
}

/// A message whose further lines are reasons.
fn split_reasons(message: &str) -> (String, Vec<String>) {
    match message.split_once(":\n") {
        Some((head, reasons)) => (
            head.to_owned(),
            reasons.lines().map(str::to_owned).collect(),
        ),
        None => (message.to_owned(), Vec::new()),
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        ApiError::from(error).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        CallError::from(error).into()
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match &error {
            RegistryError::TooLong { .. } | RegistryError::InvalidUrl { .. } => {
                Self::new(Code::InvalidUrl, error.to_string()).param("url")
            }
            RegistryError::Limit { .. } => Self::new(Code::LimitReached, error.to_string()),
            RegistryError::UnknownService(_) => Self::new(Code::NotFound, error.to_string()),
            RegistryError::Unknown { what, id, .. } => {
                Self::new(Code::NotFound, format!("there is no {what} {id:?}")).param("id")
            }
            RegistryError::LastKey(_) | RegistryError::InUse { .. } => {
                Self::new(Code::Conflict, error.to_string())
            }
            RegistryError::SameVersion { .. } => {
                Self::new(Code::Conflict, error.to_string()).param("version")
            }
            RegistryError::Grounding(fault) => {
                let param = match fault.param {
                    "use-cases" => "useCases",
                    param => param,
                };
                Self::new(Code::GroundingRefused, fault.message.clone()).param(param)
            }
            _ => ApiError::from(error).into(),
        }
    }
}

impl From<BytesRejection> for Problem {
    fn from(rejection: BytesRejection) -> Self {
        ApiError::from(rejection).into()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;

    async fn shown(problem: Problem) -> (u16, Value) {
        let response = problem.into_response();
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn a_refused_plan_says_each_reason() {
        let error = ApiError::new(Kind::InvalidRequest, "the plan is refused:\none\ntwo")
            .code(code::CANNOT_EXECUTE)
            .param("plan");
        let expected = json!({
            "type": "urn:orchestrion:problem:plan_refused", "title": "the plan is refused", "status": 422,
            "detail": "the plan is refused", "code": "plan_refused", "param": "plan", "reasons": ["one", "two"],
        });
        assert_eq!(shown(error.into()).await, (422, expected));
    }

    #[tokio::test]
    async fn not_found_is_404_and_unauthorized_401_with_a_challenge() {
        let (status, body) = shown(ApiError::unknown_orchestration("o_1").into()).await;
        assert_eq!((status, &body["code"]), (404, &json!("not_found")));
        let response = Problem::new(Code::Unauthorized, "no").into_response();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[tokio::test]
    async fn a_busy_engine_says_when_to_come_back() {
        let busy = CallError::Busy {
            retry_after: std::time::Duration::from_millis(200),
        };
        let response = Problem::from(busy).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
