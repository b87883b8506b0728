//! One try of one delivery: a POST, and what its answer means.
//!
//! Invariant: unless the settings allow it, nothing is connected to that is not public (`guard.rs`).
//! Invariant: no redirect is followed, no answer's body is read, and neither a secret nor a URL's credentials reach an error.

use std::fmt;
use std::sync::Arc;

use axum::http::header;
use futures_util::future::BoxFuture;
use orchestrion_proto::v1::WebhookDelivery;
use reqwest::{Client, Url, redirect};

use super::guard::{self, PublicOnly};
use super::sign::signatures;
use crate::config::OutboxSettings;
use crate::registry::ids::WebhookSecret;

/// As orra's engine calls itself.
const USER_AGENT: &str = "orra/1.0";
const EVENT_HEADER: &str = "x-orra-event";
const ID_HEADER: &str = "webhook-id";
const TIMESTAMP_HEADER: &str = "webhook-timestamp";
const SIGNATURE_HEADER: &str = "webhook-signature";
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 300;

/// Sends deliveries.
#[derive(Debug, Clone)]
pub(super) enum Sender {
    /// Over the network.
    Network {
        /// Through the proxy of the environment, if it names one.
        outside: Client,
        /// To this machine: never through a proxy.
        local: Client,
        /// Whether addresses that are not public are refused.
        guarded: bool,
    },
    /// To receivers that a simulator plays.
    Played(Arc<dyn Receivers>),
}

/// Webhooks' receivers that are not on any network.
pub trait Receivers: Send + Sync {
    /// One delivery: its URL, event id and body. Answers the status, or why there is none.
    fn post(
        &self,
        url: &str,
        event_id: &str,
        body: &str,
    ) -> BoxFuture<'static, Result<u16, String>>;
}

impl fmt::Debug for dyn Receivers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receivers")
    }
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// The HTTP status; 0 when there was no answer.
    pub status: u16,
    /// Why it counts as not delivered, if it does.
    pub error: Option<String>,
}

impl Answer {
    pub(super) fn none(error: String) -> Self {
        Self {
            status: 0,
            error: Some(error),
        }
    }
}

impl Sender {
    pub(super) fn new(settings: &OutboxSettings) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .timeout(settings.delivery_timeout)
                .redirect(redirect::Policy::none())
                .user_agent(USER_AGENT)
        };
        let guarded = !settings.allow_private;
        let outside = match (guarded, settings.through_proxy) {
            (false, _) => builder(),
            // The proxy connects, and it is the proxy that resolves names: it has to guard.
            (true, true) => builder(),
            (true, false) => builder().no_proxy().dns_resolver(PublicOnly::shared()),
        };
        Ok(Self::Network {
            outside: outside.build()?,
            local: builder().no_proxy().build()?,
            guarded,
        })
    }

    /// Tries once.
    pub(super) async fn post<'a>(
        &self,
        delivery: &WebhookDelivery,
        event_id: &str,
        secrets: impl Iterator<Item = &'a WebhookSecret>,
        unix_seconds: i64,
    ) -> Answer {
        let (outside, local, guarded) = match self {
            Self::Network {
                outside,
                local,
                guarded,
            } => (outside, local, *guarded),
            Self::Played(receivers) => {
                let answer = receivers.post(&delivery.url, event_id, &delivery.body_json);
                return match answer.await {
                    Ok(status) => of_status(status),
                    Err(error) => Answer::none(error),
                };
            }
        };
        let url = match Url::parse(&delivery.url) {
            Ok(url) => url,
            Err(e) => return Answer::none(format!("the webhook's url does not parse: {e}")),
        };
        if guarded && let Some(reason) = guard::refusal(&url) {
            return Answer::none(reason);
        }
        let client = if is_local(&url) { local } else { outside };
        let answer = client
            .post(url)
            .header(header::CONTENT_TYPE.as_str(), "application/json")
            .header(EVENT_HEADER, &delivery.event_type)
            .header(ID_HEADER, event_id)
            .header(TIMESTAMP_HEADER, unix_seconds)
            .header(
                SIGNATURE_HEADER,
                signatures(secrets, event_id, unix_seconds, &delivery.body_json),
            )
            .body(delivery.body_json.clone())
            .send()
            .await;
        match answer {
            Err(error) => Answer::none(bounded(&with_causes(&error.without_url()))),
            Ok(answer) => of_status(answer.status().as_u16()),
        }
    }
}

/// Only a success is a delivery.
fn of_status(status: u16) -> Answer {
    let named = reqwest::StatusCode::from_u16(status)
        .map_or_else(|_| status.to_string(), |status| status.to_string());
    let error = (!(200..300).contains(&status)).then(|| format!("the webhook answered {named}"));
    Answer { status, error }
}

/// Deliveries to the same host and port wait for each other.
pub(super) fn host_of(url: &str) -> String {
    match Url::parse(url) {
        Ok(url) => format!(
            "{}:{}",
            url.host_str().unwrap_or(""),
            url.port_or_known_default().unwrap_or(0)
        ),
        Err(_) => String::new(),
    }
}

fn is_local(url: &Url) -> bool {
    let host = url.host_str().unwrap_or("");
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    host == "localhost"
        || host.ends_with(".localhost")
        || address.is_ok_and(|address| address.is_loopback())
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn bounded(text: &str) -> String {
    text.chars().take(ERROR_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_told_apart_by_port() {
        assert_eq!(host_of("http://a/x"), "a:80");
        assert_eq!(host_of("https://a/x"), "a:443");
        assert_eq!(host_of("http://a:81/y"), "a:81");
        assert_eq!(host_of("http://user:secret@a:81/y"), "a:81");
    }

    #[test]
    fn this_machine_needs_no_proxy() {
        for (url, local) in [
            ("http://localhost:3000/", true),
            ("http://app.localhost/", true),
            ("http://127.0.0.9/", true),
            ("http://[::1]:80/", true),
            ("http://10.0.0.1/", false),
            ("http://localhost.example/", false),
        ] {
            assert_eq!(is_local(&Url::parse(url).unwrap()), local, "{url}");
        }
    }
}
