//! Refusals and failures as orra's clients read them: `{"error":{"kind","code","param","message"}}`.
//!
//! | kind                     | status | when                                                    |
//! |--------------------------|--------|---------------------------------------------------------|
//! | `invalid request error`  | 400    | bad JSON, unknown key, a plan that is not actionable    |
//! | `input validation error` | 400    | a bad webhook URL                                       |
//! | `item does not exist`    | 400    | unknown orchestration or compensation failure           |
//! | `invalid operation`      | 400    | what cannot be done to a thing as it stands             |
//! | `unauthorized`           | 403    | no key, a malformed header, somebody else's service     |
//! | `unanticipated error`    | 500    | a service that does not validate, a plan that failed    |
//! | `internal error`         | 500    | our trouble                                             |
//! | `too large`              | 413    | a body above its limit                                  |
//! | `unavailable`            | 503    | the engine is busy, stops, or cannot write              |
//!
//! Invariant: every answer that is not a success has this body, and no API key is ever in it.

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orchestrion_history::request::Rejection;
use serde::Serialize;

use super::json::BadJson;
use crate::engine::handle::CallError;
use crate::registry::RegistryError;

/// What kind of refusal it is, as clients compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    InvalidRequest,
    /// A value in the request is wrong.
    InputValidation,
    /// There is no such thing, for this caller.
    NotExist,
    /// The thing is there, but not so that this could be done to it.
    InvalidOperation,
    /// Who asks is not known.
    Unauthorized,
    /// orra's word for what it did not foresee.
    Unanticipated,
    /// Our trouble.
    Internal,
    /// Too many bytes.
    TooLarge,
    /// Try again.
    Unavailable,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid request error",
            Self::InputValidation => "input validation error",
            Self::NotExist => "item does not exist",
            Self::InvalidOperation => "invalid operation",
            Self::Unauthorized => "unauthorized",
            Self::Unanticipated => "unanticipated error",
            Self::Internal => "internal error",
            Self::TooLarge => "too large",
            Self::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest
            | Self::InputValidation
            | Self::NotExist
            | Self::InvalidOperation => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::FORBIDDEN,
            Self::Unanticipated | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// Codes that clients compare.
pub mod code {
    /// A body that is not the JSON it should be.
    pub const JSON: &str = "Orra:JSONMarshalingFail";
    /// A project that was not created.
    pub const PROJECT: &str = "Orra:ProjectRegistrationFailed";
    /// A key that was not created.
    pub const API_KEY: &str = "Orra:ProjectAPIKeyAdditionFailed";
    /// A webhook that was not added.
    pub const WEBHOOK: &str = "Orra:ProjectWebhookAdditionFailed";
    /// No such orchestration.
    pub const UNKNOWN_ORCHESTRATION: &str = "Orra:UnknownOrchestration";
    /// The action cannot be done with the services there are.
    pub const NOT_ACTIONABLE: &str = "Orra:ActionNotActionable";
    /// Planning failed.
    pub const CANNOT_EXECUTE: &str = "Orra:ActionCannotExecute";
    /// What orra answers when it has no better word.
    pub const UNANTICIPATED: &str = "Unanticipated";
    /// The engine stops.
    pub const SHUTTING_DOWN: &str = "Orra:PlanEngineShuttingDown";
}

/// An answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    kind: Kind,
    code: &'static str,
    param: &'static str,
    message: String,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    /// A refusal of a kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: "",
            param: "",
            message: message.into(),
            retry_after_seconds: None,
        }
    }

    /// With a code.
    #[must_use]
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = code;
        self
    }

    /// Naming the member that is wrong.
    #[must_use]
    pub fn param(mut self, param: &'static str) -> Self {
        self.param = param;
        self
    }

    /// What it says, for a wire that says it in another form.
    pub(crate) fn parts(self) -> Parts {
        Parts {
            kind: self.kind,
            code: self.code,
            param: self.param,
            message: self.message,
            retry_after_seconds: self.retry_after_seconds,
        }
    }

    /// Our trouble: the cause goes to the log, the caller gets a fixed text.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %cause, "a request could not be answered");
        Self::new(
            Kind::Internal,
            "something went wrong inside the engine: its log says what; try again or ask its operator",
        )
    }

    /// An orchestration that is not there, for this caller.
    pub fn unknown_orchestration(id: &str) -> Self {
        let message =
            format!("unknown orchestration {id:?}: list what there is with GET /orchestrations");
        Self::new(Kind::NotExist, message).code(code::UNKNOWN_ORCHESTRATION)
    }
}

/// See [`ApiError::parts`].
pub(crate) struct Parts {
    pub kind: Kind,
    pub code: &'static str,
    pub param: &'static str,
    pub message: String,
    pub retry_after_seconds: Option<u64>,
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    kind: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    code: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    param: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    message: &'a str,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Self {
            kind,
            code,
            param,
            message,
            retry_after_seconds,
        } = self;
        let body = Body {
            error: Inner {
                kind: kind.text(),
                code,
                param,
                message: &message,
            },
        };
        let mut response = super::respond(kind.status(), &body);
        let headers = response.headers_mut();
        headers.insert(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        );
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<BadJson> for ApiError {
    fn from(error: BadJson) -> Self {
        Self::new(Kind::InvalidRequest, error.to_string()).code(code::JSON)
    }
}

impl From<BytesRejection> for ApiError {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            return Self::new(
                Kind::TooLarge,
                "the request body is larger than this route takes: send less",
            );
        }
        Self::new(
            Kind::InvalidRequest,
            "the request body broke off: send it again",
        )
        .code(code::JSON)
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Rejected(rejection) => rejection.into(),
            CallError::Busy { retry_after } => Self {
                retry_after_seconds: Some(retry_after.as_secs().max(1)),
                ..Self::new(Kind::Unavailable, error.to_string())
            },
            CallError::ShuttingDown => Self {
                retry_after_seconds: Some(5),
                ..Self::new(Kind::Unavailable, error.to_string()).code(code::SHUTTING_DOWN)
            },
            CallError::Unavailable(cause) => {
                tracing::error!(error = %cause, "the engine could not answer");
                Self {
                    retry_after_seconds: Some(5),
                    ..Self::new(
                        Kind::Unavailable,
                        "the engine cannot read or write its data now: its log says why; try again",
                    )
                }
            }
            CallError::Quarantined { .. } => Self::new(Kind::Unanticipated, error.to_string()),
        }
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        let kind = match &rejection {
            Rejection::NotFound { .. } => Kind::NotExist,
            Rejection::Closed
            | Rejection::AlreadyStarted { .. }
            | Rejection::IdUsed { .. }
            | Rejection::NotReady(_)
            | Rejection::Invalid(_)
            | Rejection::Limit { .. } => Kind::InvalidRequest,
        };
        Self::new(kind, rejection.to_string())
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Engine(error) => error.into(),
            RegistryError::Name(error) => Self::internal(&error),
            RegistryError::InvalidUrl { .. } => {
                Self::new(Kind::InputValidation, error.to_string()).param("url")
            }
            // orra's word and status for a service it does not find.
            RegistryError::UnknownService(_) => {
                Self::new(Kind::Unanticipated, error.to_string()).code(code::UNANTICIPATED)
            }
            RegistryError::Unknown { .. } => Self::new(Kind::NotExist, error.to_string()),
            RegistryError::LastKey(_) | RegistryError::InUse { .. } | RegistryError::Signer(_) => {
                Self::new(Kind::InvalidOperation, error.to_string())
            }
            RegistryError::SameVersion { .. } => {
                Self::new(Kind::InvalidOperation, error.to_string()).param("version")
            }
            RegistryError::Grounding(fault) => fault.into(),
            RegistryError::Limit { .. } | RegistryError::TooLong { .. } => {
                Self::new(Kind::InvalidRequest, error.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    async fn shown(error: ApiError) -> (u16, String) {
        let response = error.into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn empty_members_are_omitted_and_the_body_ends_with_a_newline() {
        let error = ApiError::new(Kind::NotExist, "gone").code(code::UNKNOWN_ORCHESTRATION);
        let text = "{\"error\":{\"kind\":\"item does not exist\",\"code\":\"Orra:UnknownOrchestration\",\"message\":\"gone\"}}\n";
        assert_eq!(shown(error).await, (400, text.to_owned()));
        let text = "{\"error\":{\"kind\":\"unauthorized\"}}\n";
        assert_eq!(
            shown(ApiError::new(Kind::Unauthorized, "")).await,
            (403, text.to_owned())
        );
    }

    #[tokio::test]
    async fn a_busy_engine_says_when_to_come_back() {
        let busy = CallError::Busy {
            retry_after: std::time::Duration::from_millis(200),
        };
        let response = ApiError::from(busy).into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    }
}
