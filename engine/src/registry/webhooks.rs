//! Webhooks of projects: added, listed, removed, and their secrets rotated.
//!
//! ```text
//!  secret A --rotate--> A and B both sign, until the overlap ends --> B alone
//! ```
//!
//! Invariant: a secret is shown once, in the answer to the call that made it.

use std::time::Duration;

use orchestrion_history::ids::{Namespace, Timestamp};

use super::ids::{self, WebhookSecret};
use super::records::Record;
use super::registrar::{Registrar, RegistryError, limit};
use super::{PreviousSecret, Topic, WEBHOOK_URL_BYTES_MAX, WEBHOOKS_PER_TOPIC_MAX, Webhook};
use crate::acts::{Act, Actor, What};

/// The longest time for which a rotated secret may sign along.
pub const OVERLAP_MAX: Duration = Duration::from_secs(30 * 86_400);

/// A URL that deliveries can go to: absolute, http or https, with a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookUrl(pub(super) String);

impl WebhookUrl {
    /// Checks a URL; it is kept as it was given.
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        let refuse = |reason: String| RegistryError::InvalidUrl {
            url: text.to_owned(),
            reason,
        };
        if text.len() > WEBHOOK_URL_BYTES_MAX {
            return Err(RegistryError::TooLong {
                what: "a webhook url",
                bytes: text.len(),
                max: WEBHOOK_URL_BYTES_MAX,
            });
        }
        if text.chars().any(|c| c.is_control() || c == ' ') {
            return Err(refuse("it holds a space or a control character".to_owned()));
        }
        let url = reqwest::Url::parse(text)
            .map_err(|e| refuse(format!("{e}; give an absolute http or https url")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(refuse("give an absolute http or https url".to_owned()));
        }
        if !url.has_host() {
            return Err(refuse("it names no host".to_owned()));
        }
        Ok(Self(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A new webhook, with what is shown only now.
#[derive(Debug, Clone)]
pub struct CreatedWebhook {
    /// Its id.
    pub id: String,
    /// Its URL.
    pub url: String,
    /// What it is told of.
    pub topic: Topic,
    /// When it was added.
    pub created_at: Timestamp,
    /// Signs its deliveries.
    pub secret: WebhookSecret,
}

/// A secret that a rotation made, shown only now.
#[derive(Debug, Clone)]
pub struct RotatedSecret {
    /// Of which webhook.
    pub id: String,
    /// Signs from now on.
    pub secret: WebhookSecret,
    /// Until when the secret before signs along; `None` when there was none.
    pub previous_until: Option<Timestamp>,
}

impl Topic {
    /// As records and people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orchestration => "orchestration",
            Self::CompensationFailure => "compensation failure",
            Self::Submission => "submission",
        }
    }
}

impl Registrar {
    /// One more webhook of a project. The same URL twice is told twice.
    pub async fn add_webhook(
        &self,
        namespace: &Namespace,
        topic: Topic,
        url: WebhookUrl,
        actor: &Actor,
    ) -> Result<CreatedWebhook, RegistryError> {
        let turn = self.take_turn().await;
        let known = self.registry.webhooks(namespace, topic).len();
        limit("webhooks of this topic", known, WEBHOOKS_PER_TOPIC_MAX)?;
        let at = self.clock.now();
        let (record, created, act) = self.new_webhook(namespace, topic, url, at);
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(created)
    }

    /// Takes a webhook away. What still waits to be delivered to it is given up.
    pub async fn remove_webhook(
        &self,
        namespace: &Namespace,
        id: &str,
        actor: &Actor,
    ) -> Result<(), RegistryError> {
        let turn = self.take_turn().await;
        let webhook = self.known_webhook(namespace, id)?;
        if webhook.topic == Topic::Submission {
            return Err(RegistryError::Signer(id.to_owned()));
        }
        let record = Record::WebhookRemoved {
            namespace: namespace.clone(),
            id: id.to_owned(),
        };
        let act = Act::new(What::WebhookRemoved, id)
            .with("topic", webhook.topic.as_str())
            .with("host", host_of(&webhook.url));
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await
    }

    /// A new secret for a webhook; the one before signs along for `overlap`, so that receivers can change over.
    pub async fn rotate_secret(
        &self,
        namespace: &Namespace,
        id: &str,
        overlap: Duration,
        actor: &Actor,
    ) -> Result<RotatedSecret, RegistryError> {
        let turn = self.take_turn().await;
        let webhook = self.known_webhook(namespace, id)?;
        let at = self.clock.now();
        let secret = WebhookSecret::generate(&*self.ids);
        let until = at.plus(overlap.min(OVERLAP_MAX));
        let rotated = Webhook {
            secret: secret.clone(),
            previous: Some(PreviousSecret {
                secret: webhook.secret.clone(),
                until,
            }),
            rotated_at: Some(at),
            ..Webhook::clone(&webhook)
        };
        let record = Record::Webhook {
            namespace: namespace.clone(),
            webhook: rotated,
        };
        let act = Act::new(What::WebhookSecretRotated, id)
            .with("overlap_seconds", overlap.min(OVERLAP_MAX).as_secs());
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(RotatedSecret {
            id: id.to_owned(),
            secret,
            previous_until: Some(until),
        })
    }

    /// What signs for the URLs that single submissions name; made the first time it is needed. Answers its id.
    pub async fn submission_signer(
        &self,
        namespace: &Namespace,
        actor: &Actor,
    ) -> Result<String, RegistryError> {
        let known = || {
            let signers = self.registry.webhooks(namespace, Topic::Submission);
            signers.first().map(|signer| signer.id.clone())
        };
        if let Some(id) = known() {
            return Ok(id);
        }
        let turn = self.take_turn().await;
        // Somebody else may have been first.
        if let Some(id) = known() {
            return Ok(id);
        }
        let none = WebhookUrl(String::new());
        let (record, created, act) =
            self.new_webhook(namespace, Topic::Submission, none, self.clock.now());
        self.commit(turn, namespace, vec![record], actor, vec![act])
            .await?;
        Ok(created.id)
    }

    fn known_webhook(
        &self,
        namespace: &Namespace,
        id: &str,
    ) -> Result<std::sync::Arc<Webhook>, RegistryError> {
        self.registry
            .webhook(namespace, id)
            .ok_or_else(|| RegistryError::Unknown {
                what: "webhook",
                id: id.to_owned(),
                list: "/webhooks",
            })
    }

    pub(super) fn new_webhook(
        &self,
        namespace: &Namespace,
        topic: Topic,
        url: WebhookUrl,
        at: Timestamp,
    ) -> (Record, CreatedWebhook, Act) {
        let webhook = Webhook {
            id: ids::webhook_id(&*self.ids),
            url: url.0,
            topic,
            secret: WebhookSecret::generate(&*self.ids),
            previous: None,
            rotated_at: None,
            created_at: at,
        };
        let created = CreatedWebhook {
            id: webhook.id.clone(),
            url: webhook.url.clone(),
            topic,
            created_at: webhook.created_at,
            secret: webhook.secret.clone(),
        };
        let act = Act::new(What::WebhookAdded, webhook.id.clone())
            .with("topic", topic.as_str())
            .with("host", host_of(&webhook.url));
        let record = Record::Webhook {
            namespace: namespace.clone(),
            webhook,
        };
        (record, created, act)
    }
}

/// What an act says of a URL: its path and query may hold secrets.
fn host_of(url: &str) -> String {
    let parsed = reqwest::Url::parse(url).ok();
    let host = parsed.and_then(|url| url.host_str().map(str::to_owned));
    host.unwrap_or_default()
}
