//! What every call passes: its caller is found out, and tonic's own errors get the words that clients know.
//!
//! | tonic says                                    | clients are told                                                   |
//! |-----------------------------------------------|--------------------------------------------------------------------|
//! | UNIMPLEMENTED without a text, or its stub's   | UNIMPLEMENTED `unknown method X for service Y`                     |
//! | OUT_OF_RANGE, the message is too large        | RESOURCE_EXHAUSTED `grpc: received message larger than max (…)`    |
//!
//! Some SDKs look for the words of the first to know what a server has not; the second they would take for passing trouble, and send
//! the same message for ever.
//!
//! Invariant: a caller without a key reaches health and reflection only, unless the server is open.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::header::{HeaderName, HeaderValue};
use hyper::{Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::compress;
use crate::api::access::Access;
use crate::api::orra::auth::bearer;
use crate::registry::Registry;

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// As tonic's stubs write "Not yet implemented".
const STUB_TEXT: &[u8] = b"Not%20yet%20implemented";
/// As tonic's decoder begins to say that a message is too large, before it says how large.
const TOO_LARGE_TEXTS: [&[u8]; 2] = [
    b"Error,%20decoded%20message%20length%20too%20large",
    b"Error%20decompressing:%20size%20limit",
];
/// What may be asked of the server by anybody who reaches it.
const OPEN_SERVICES: [&str; 2] = ["/grpc.health.v1.", "/grpc.reflection."];

/// See [`Front`].
#[derive(Clone)]
pub(super) struct FrontLayer {
    access: Access,
    registry: Registry,
    compress_above: usize,
}

impl FrontLayer {
    pub(super) fn new(access: Access, registry: Registry, compress_above: usize) -> Self {
        Self {
            access,
            registry,
            compress_above,
        }
    }
}

impl<S> Layer<S> for FrontLayer {
    type Service = Front<S>;

    fn layer(&self, inner: S) -> Front<S> {
        Front {
            inner,
            layer: self.clone(),
        }
    }
}

/// A service behind the front.
#[derive(Clone)]
pub(super) struct Front<S> {
    inner: S,
    layer: FrontLayer,
}

impl<S> Service<Request<Body>> for Front<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        if !OPEN_SERVICES.iter().any(|open| path.starts_with(open)) {
            let key = bearer(request.headers());
            match self.layer.access.admit(key, &self.layer.registry) {
                Some(caller) => _ = request.extensions_mut().insert(caller),
                None => {
                    let refused = Status::unauthenticated(
                        "send your project's key as metadata: authorization: Bearer <api key>",
                    );
                    return Box::pin(async move { Ok(refused.into_http()) });
                }
            }
        }
        let gzip = compress::accepted(request.headers());
        let above = self.layer.compress_above;
        // Only errors need it, but by then the request is gone.
        let uri = request.uri().clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(match in_other_words(&response, uri.path()) {
                Some(status) => status.into_http(),
                None if gzip => compress::compress(response, above),
                None => response,
            })
        })
    }
}

fn in_other_words(response: &Response<Body>, path: &str) -> Option<Status> {
    let code = response.headers().get(STATUS)?;
    let text = response
        .headers()
        .get(MESSAGE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    match Code::from_bytes(code.as_bytes()) {
        Code::Unimplemented if text.is_empty() || text == STUB_TEXT => {
            let (service, method) = path.strip_prefix('/').unwrap_or(path).split_once('/')?;
            Some(Status::unimplemented(format!(
                "unknown method {method} for service {service}"
            )))
        }
        Code::OutOfRange | Code::ResourceExhausted
            if TOO_LARGE_TEXTS.iter().any(|begin| text.starts_with(begin)) =>
        {
            let status = Status::from_header_map(response.headers())?;
            let sizes = status
                .message()
                .split_once(": ")
                .map_or("", |(_, rest)| rest);
            Some(Status::resource_exhausted(format!(
                "grpc: received message larger than max ({sizes})"
            )))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/temporal.api.workflowservice.v1.WorkflowService/DeprecateNamespace";

    fn said(status: Status) -> Option<Status> {
        in_other_words(&status.into_http(), PATH)
    }

    #[test]
    fn a_missing_method_is_named() {
        for text in ["", "Not yet implemented"] {
            let status = said(Status::unimplemented(text)).unwrap();
            assert_eq!(status.code(), Code::Unimplemented);
            assert_eq!(
                status.message(),
                "unknown method DeprecateNamespace for service temporal.api.workflowservice.v1.WorkflowService"
            );
        }
        assert!(said(Status::unimplemented("archival is not offered")).is_none());
        assert!(said(Status::not_found("")).is_none());
    }

    #[test]
    fn a_message_that_is_too_large_is_final() {
        let text = "Error, decoded message length too large: found 5000000 bytes, the limit is: 4194304 bytes";
        let status = said(Status::out_of_range(text)).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert!(
            status
                .message()
                .starts_with("grpc: received message larger than max (found 5000000 bytes"),
            "{status}"
        );
        assert!(said(Status::out_of_range("page 7 of 3")).is_none());
    }
}
