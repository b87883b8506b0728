//! One try of one delivery: a POST, and what its answer means.
//!
//! Invariant: no redirect is followed, no answer's body is read, and neither a secret nor a URL's credentials reach an error.

use std::time::Duration;

use axum::http::header;
use orchestrion_proto::v1::WebhookDelivery;
use reqwest::{Client, Url, redirect};

use super::sign::signature;
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
pub(super) struct Sender {
    /// Through the proxy of the environment, if it names one.
    outside: Client,
    /// To this machine: never through a proxy.
    local: Client,
}

impl Sender {
    pub(super) fn new(timeout: Duration) -> Result<Self, reqwest::Error> {
        let builder = || {
            Client::builder()
                .timeout(timeout)
                .redirect(redirect::Policy::none())
                .user_agent(USER_AGENT)
        };
        Ok(Self {
            outside: builder().build()?,
            local: builder().no_proxy().build()?,
        })
    }

    /// Tries once. The error says why it counts as not delivered.
    pub(super) async fn post(
        &self,
        delivery: &WebhookDelivery,
        event_id: &str,
        secret: &WebhookSecret,
        unix_seconds: i64,
    ) -> Result<(), String> {
        let url = Url::parse(&delivery.url)
            .map_err(|e| format!("the webhook's url does not parse: {e}"))?;
        let client = if is_local(&url) {
            &self.local
        } else {
            &self.outside
        };
        let answer = client
            .post(url)
            .header(header::CONTENT_TYPE.as_str(), "application/json")
            .header(EVENT_HEADER, &delivery.event_type)
            .header(ID_HEADER, event_id)
            .header(TIMESTAMP_HEADER, unix_seconds)
            .header(
                SIGNATURE_HEADER,
                signature(secret, event_id, unix_seconds, &delivery.body_json),
            )
            .body(delivery.body_json.clone())
            .send()
            .await
            .map_err(|error| bounded(&with_causes(&error.without_url())))?;
        let status = answer.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(format!("the webhook answered {status}"))
        }
    }
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
