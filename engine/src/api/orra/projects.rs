//! Projects are created.
//!
//! Invariant: a caller sets nothing of a project but its name and its webhooks; ids, keys and times are the server's.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;

use super::auth::{Peer, admit};
use super::body::Body;
use super::error::{ApiError, code};
use super::json::Members;
use super::webhooks::{WebhookJson, webhook_url};
use super::{Api, respond};
use crate::acts::Actor;
use crate::config::Settings;
use crate::orchestration::effect::rfc3339;
use crate::registry::{CreatedProject, NewProject, Topic, WebhookUrl};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProjectJson<'a> {
    id: &'a str,
    name: &'a str,
    api_key: &'a str,
    #[serde(rename = "additionalAPIKeys")]
    additional_api_keys: (),
    webhooks: Option<Vec<&'a str>>,
    compensation_failure_webhooks: Option<Vec<&'a str>>,
    created_at: String,
    updated_at: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    webhook_secrets: Vec<WebhookJson<'a>>,
}

impl<'a> ProjectJson<'a> {
    fn of(created: &'a CreatedProject) -> Self {
        let urls = |topic| {
            let webhooks = created
                .webhooks
                .iter()
                .filter(|webhook| webhook.topic == topic);
            let urls: Vec<&str> = webhooks.map(|webhook| webhook.url.as_str()).collect();
            (!urls.is_empty()).then_some(urls)
        };
        Self {
            id: &created.project.id,
            name: &created.project.name,
            api_key: created.api_key.reveal(),
            additional_api_keys: (),
            webhooks: urls(Topic::Orchestration),
            compensation_failure_webhooks: urls(Topic::CompensationFailure),
            created_at: rfc3339(created.project.created_at),
            updated_at: rfc3339(created.project.updated_at),
            webhook_secrets: created.webhooks.iter().map(WebhookJson::of).collect(),
        }
    }
}

/// `POST /register/project`
pub async fn register(
    State(api): State<Api>,
    Peer(peer): Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let who = admit(&api.admission, &headers)?;
    let new = parse_project(body.as_str(), &api.settings)?;
    let created = api
        .registrar
        .create_project(new, &Actor { who, peer })
        .await
        .map_err(|e| ApiError::from(e).code(code::PROJECT))?;
    tracing::info!(project = %created.project.id, "project created");
    Ok(respond(StatusCode::CREATED, &ProjectJson::of(&created)))
}

fn parse_project(body: &str, settings: &Settings) -> Result<NewProject, ApiError> {
    let body = Members::of_body(body)?;
    let urls = |name| -> Result<Vec<WebhookUrl>, ApiError> {
        let urls = body.strings(name)?;
        let urls = urls
            .iter()
            .map(|url| webhook_url(url, settings))
            .collect::<Result<_, _>>();
        urls.map_err(|e: ApiError| e.code(code::PROJECT).param(name))
    };
    Ok(NewProject {
        name: body.string("name")?.unwrap_or_default(),
        webhooks: urls("webhooks")?,
        compensation_failure_webhooks: urls("compensationFailureWebhooks")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open_settings() -> Settings {
        let mut settings = Settings::default();
        settings.outbox.allow_private = true;
        settings
    }

    #[test]
    fn a_guarded_server_takes_no_webhook_of_its_own_network() {
        for url in [
            "http://localhost:3000",
            "http://169.254.169.254/",
            "http://[::1]/",
        ] {
            let body = format!(r#"{{"webhooks":["{url}"]}}"#);
            let error = parse_project(&body, &Settings::default()).unwrap_err();
            assert!(format!("{error:?}").contains("outbox.allow_private"));
            assert!(parse_project(&body, &open_settings()).is_ok(), "{url}");
        }
    }

    #[test]
    fn only_name_and_webhooks_are_taken_from_the_caller() {
        let body = r#"{"name":"shop","createdAt":"2024-01-01T00:00:00Z","additionalAPIKeys":["sk-orra-v1-stolen"],
            "id":"p_mine","apiKey":"sk-orra-v1-mine","Webhooks":["http://localhost:3000/hook"],"compensationFailureWebhooks":null}"#;
        let new = parse_project(body, &open_settings()).unwrap();
        assert_eq!(new.name, "shop");
        assert_eq!(
            new.webhooks,
            [WebhookUrl::parse("http://localhost:3000/hook").unwrap()]
        );
        assert!(new.compensation_failure_webhooks.is_empty());
    }

    #[test]
    fn an_empty_object_is_a_project_and_an_empty_body_is_not() {
        assert_eq!(parse_project("{}", &Settings::default()).unwrap().name, "");
        assert!(parse_project("", &Settings::default()).is_err());
        assert!(parse_project("{", &Settings::default()).is_err());
    }

    #[test]
    fn webhook_urls_must_be_callable() {
        for good in [
            "http://localhost/x",
            "https://example.com:8443/a?b=c",
            "http://127.0.0.1:9",
        ] {
            assert!(WebhookUrl::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "/rooted",
            "localhost:80",
            "ftp://example.com",
            "http://",
            "http://a b/",
            "nonsense",
        ] {
            assert!(WebhookUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(parse_project(r#"{"webhooks":["nonsense"]}"#, &Settings::default()).is_err());
    }
}
