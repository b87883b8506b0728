//! Our own REST API. Its OpenAPI 3.1 document is made from this code and served at `/v1/openapi.json`.
//!
//! | route                                                | file           |
//! |------------------------------------------------------|----------------|
//! | `POST /v1/orchestrations`                            | `submit.rs`    |
//! | `GET /v1/orchestrations`                             | `listing.rs`   |
//! | `GET /v1/orchestrations/{id}`                        | `show.rs`      |
//! | `GET /v1/orchestrations/{id}/records`, `…/events`    | `records.rs`, `events.rs` |
//! | `POST /v1/orchestrations/{id}/cancel`, `…/fork`      | `cancel.rs`, `fork.rs` |
//! | `POST /v1/plans`                                     | `plans.rs`     |
//! | `/v1/services…`, `/v1/keys…`, `/v1/webhooks…`        | `project.rs`   |
//! | `GET /v1/webhooks/{id}/deliveries`                   | `deliveries.rs` |
//! | `/v1/groundings…`                                    | `groundings.rs` |
//! | `POST /v1/grounding-tests`                           | `grounding_tests.rs` |
//! | `/v1/plan-cache`                                     | `plan_cache.rs` |
//! | `/v1/compensation-failures…`                         | `compensations.rs` |
//! | `GET /v1/audit`, `GET /v1/audit/key`                 | `audit.rs`     |
//!
//! Invariant: every body is JSON and every refusal a problem (RFC 9457); a route that is not in the document is not served.

mod audit;
mod cancel;
mod compensations;
mod deliveries;
mod estimate;
mod events;
mod fork;
mod grounding_tests;
mod groundings;
mod input;
mod listing;
mod plan_cache;
mod plans;
pub mod problem;
mod project;
mod records;
mod show;
mod steps;
mod submit;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use serde_json::Value;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{InfoBuilder, License, OpenApi, OpenApiBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

pub use self::estimate::Durations;
use self::problem::{Code, Problem};
use super::orra::{Api, SUBMISSION_BODY_BYTES_MAX, body_limit};

/// Where all of it lives.
pub const PREFIX: &str = "/v1";
/// The name of the one security scheme.
const BEARER: &str = "bearer";

/// All routes with what the document says of them.
fn documented() -> OpenApiRouter<Api> {
    let large = || body_limit(SUBMISSION_BODY_BYTES_MAX);
    OpenApiRouter::new()
        .routes(routes!(listing::list, submit::submit).layer(large()))
        .routes(routes!(show::show))
        .routes(routes!(records::records))
        .routes(routes!(events::events))
        .routes(routes!(cancel::cancel))
        .routes(routes!(fork::fork))
        .routes(routes!(audit::audit))
        .routes(routes!(audit::key))
        .routes(routes!(plans::plan).layer(large()))
        .routes(routes!(project::services))
        .routes(routes!(project::service, project::delete_service))
        .routes(routes!(project::keys, project::add_key))
        .routes(routes!(project::revoke_key))
        .routes(routes!(project::webhooks, project::add_webhook))
        .routes(routes!(project::remove_webhook))
        .routes(routes!(project::rotate_secret))
        .routes(routes!(deliveries::deliveries))
        .routes(routes!(groundings::groundings, groundings::apply_grounding).layer(large()))
        .routes(routes!(groundings::remove_grounding))
        .routes(routes!(grounding_tests::test_grounding).layer(large()))
        .routes(routes!(plan_cache::kept_plans, plan_cache::clear))
        .routes(routes!(compensations::list))
        .routes(routes!(compensations::show))
        .routes(routes!(compensations::resolve))
        .routes(routes!(compensations::ignore))
        .routes(routes!(compensations::retry))
}

/// All routes, to be nested under [`PREFIX`].
pub fn router(api: Api) -> Router<Api> {
    let (routes, _) = documented().split_for_parts();
    let document = document_json();
    routes
        .route(
            "/openapi.json",
            get(move || {
                let document = document.clone();
                async move { ([(header::CONTENT_TYPE, "application/json")], document) }
            }),
        )
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn(observed))
        .with_state(api)
}

/// The document, as it is served.
pub fn document() -> Value {
    let document = OpenApiRouter::with_openapi(about())
        .nest(PREFIX, documented())
        .into_openapi();
    let mut document = serde_json::to_value(document).expect("the document has string keys only");
    absent_not_null(&mut document);
    document
}

/// What may be left out of a query or a header is never null there: in a URL, null is a word.
fn absent_not_null(document: &mut Value) {
    let paths = document
        .get_mut("paths")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(|paths| paths.values_mut());
    let operations = paths
        .filter_map(Value::as_object_mut)
        .flat_map(|path| path.values_mut());
    let parameters = operations
        .filter_map(|operation| operation.get_mut("parameters")?.as_array_mut())
        .flatten();
    for schema in parameters.filter_map(|parameter| parameter.get_mut("schema")) {
        if let Some(Value::Array(types)) = schema.get_mut("type") {
            types.retain(|kind| kind != "null");
        }
        if let Some(Value::Array(forms)) = schema.get_mut("oneOf") {
            forms.retain(|form| form["type"] != "null");
            if let [one] = forms.as_slice() {
                *schema = one.clone();
            }
        }
    }
}

fn document_json() -> String {
    format!("{:#}\n", document())
}

fn about() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Orchestrion")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Submit actions, watch what comes of them, and read what happened. The key of a project goes into the \
             `Authorization` header as `Bearer <key>`; every route is about that project alone.",
        ))
        .license(Some(License::new("Apache-2.0")))
        .build();
    let mut document = OpenApiBuilder::new().info(info).build();
    let mut components = utoipa::openapi::Components::new();
    components.add_security_scheme(
        BEARER,
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    document.components = Some(components);
    document.security = Some(vec![utoipa::openapi::SecurityRequirement::new(
        BEARER,
        Vec::<String>::new(),
    )]);
    document
}

/// A JSON answer.
fn respond<T: Serialize + ?Sized>(status: StatusCode, body: &T) -> Response {
    super::orra::respond(status, body)
}

async fn no_such_path() -> Problem {
    Problem::new(
        Code::NotFound,
        "there is no such path: /v1/openapi.json has all there are",
    )
}

async fn no_such_method(request: Request) -> Response {
    let detail = format!(
        "{} is not a method of this path: /v1/openapi.json has those there are",
        request.method()
    );
    Problem::new(Code::MethodNotAllowed, detail).into_response()
}

/// Counts a request of a route.
async fn observed(request: Request, next: Next) -> Response {
    let route = request
        .extensions()
        .get::<axum::extract::MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().as_str().to_owned();
    let mut response = next.run(request).await;
    let labels = [
        ("route", route),
        ("method", method),
        ("status", response.status().as_u16().to_string()),
    ];
    metrics::counter!("orchestrion_http_requests_total", &labels).increment(1);
    // What a project sees is nobody else's to keep.
    response
        .headers_mut()
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guide() -> String {
        std::fs::read_to_string(crate::docs("api.md")).unwrap()
    }

    #[test]
    fn the_reference_has_the_routes_of_the_document_and_no_others() {
        let document = document();
        let mut expected = Vec::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let summary = operation["summary"].as_str().unwrap();
                expected.push(format!(
                    "| `{} {path}` | {summary} |",
                    method.to_uppercase()
                ));
            }
        }
        let guide = guide();
        let told: Vec<&str> = guide
            .lines()
            .filter(|line| line.starts_with("| `") && line.contains(" /v1/"))
            .collect();
        assert_eq!(
            told,
            expected,
            "docs/api.md ends with this table:\n{}",
            expected.join("\n")
        );
    }

    #[test]
    fn the_reference_has_every_code_of_a_problem() {
        let guide = guide();
        for code in problem::Code::ALL {
            assert!(guide.contains(&code.documented()), "{}", code.documented());
        }
    }

    #[test]
    fn no_parameter_may_be_null() {
        let document = document();
        let paths = document["paths"].as_object().unwrap().values();
        let operations = paths.flat_map(|path| path.as_object().unwrap().values());
        let parameters: Vec<&Value> = operations
            .filter_map(|operation| operation["parameters"].as_array())
            .flatten()
            .collect();
        assert!(parameters.len() > 20);
        for parameter in parameters {
            assert!(
                !parameter["schema"].to_string().contains("\"null\""),
                "{parameter}"
            );
        }
    }
}
