//! `orchestrion verify webhooks start`: listens where a webhook points, shows what is posted, and checks its signature.
//!
//! Invariant: a delivery counts as verified only when one of the known secrets signed exactly these bytes, a short while ago.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use clap::{Args, Subcommand};
use jiff::Timestamp;
use reqwest::Url;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::error::CliError;
use super::render::{self, Look, Tone};
use super::webhooks::{self, List};
use super::{Session, Target, show, show_json};
use crate::outbox::is_signed_by;
use crate::registry::ids::WebhookSecret;

/// Where to listen when the URL names no port.
const PORT_DEFAULT: u16 = 8888;
/// Bytes of one delivery: results may be large.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A signature is good for so long, as Standard Webhooks advises.
const SIGNATURE_SECONDS_MAX: i64 = 300;
/// Deliveries that wait to be shown.
const WAITING_MAX: usize = 100;

/// Try out webhooks.
#[derive(Debug, Subcommand)]
pub enum ReceiveCommand {
    /// Receive deliveries on this machine, show them, and check their signatures
    Start(StartArgs),
}

/// Where to receive, and by which secrets.
#[derive(Debug, Args)]
pub struct StartArgs {
    /// A URL of the project's webhooks; its port and path are listened at
    pub url: String,
    /// A signing secret (whsec_…), beside those this machine remembers; may be repeated
    #[arg(
        long,
        value_name = "SECRET",
        env = "ORCHESTRION_WEBHOOK_SECRET",
        hide_env_values = true
    )]
    pub secret: Vec<String>,
    /// Also a URL that is no webhook of the project, such as one that `verify run --webhook` names
    #[arg(long)]
    pub any: bool,
    /// End after so many deliveries
    #[arg(long, value_name = "NUMBER")]
    pub count: Option<usize>,
}

/// What was posted.
struct Delivery {
    headers: HeaderMap,
    body: Bytes,
}

/// What its signature says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Valid,
    /// Signed, but long ago: perhaps sent again by somebody else.
    Old,
    Invalid,
    Unsigned,
    /// No secret is known to check it by.
    Unchecked,
}

/// Receives until it is ended.
pub async fn start(session: &Session, args: StartArgs) -> Result<(), CliError> {
    let target = session.target().await?;
    let url = Url::parse(&args.url).map_err(|e| {
        CliError::Usage(format!(
            "{:?} is no url ({e}): write it like http://localhost:{PORT_DEFAULT}/webhook",
            args.url
        ))
    })?;
    if !args.any {
        known(session, &target, &args.url).await?;
    }
    let secrets = secrets(session, &target, &args.secret)?;
    let address = listen_at(&url);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| CliError::Failed(format!("cannot listen at {address}: {e}")))?;
    let (sender, mut deliveries) = mpsc::channel(WAITING_MAX);
    let routes = Router::new()
        .route(url.path(), post(receive))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::new(sender));
    let served = axum::serve(listener, routes);
    if !session.json {
        show(&format!(
            "{} Listening at http://{address}{} for {}, {}; stop with Ctrl-C\n",
            session.look.paint(Tone::Active, "◎"),
            url.path(),
            args.url,
            match secrets.len() {
                0 => "with no secret to check signatures by (--secret)".to_owned(),
                1 => "with one secret to check signatures by".to_owned(),
                number => format!("with {number} secrets to check signatures by"),
            }
        ))?;
    }
    let shown = async {
        let mut received = 0;
        while args.count.is_none_or(|count| received < count) {
            let Some(delivery) = deliveries.recv().await else {
                break;
            };
            let verdict = verdict(&delivery, &secrets, Timestamp::now().as_second());
            let look = Look {
                now: Timestamp::now(),
                ..session.look.clone()
            };
            if session.json {
                show_json(&as_json(&delivery, verdict))?;
            } else {
                show(&as_text(&look, &delivery, verdict))?;
            }
            received += 1;
        }
        Ok(())
    };
    tokio::select! {
        ended = shown => ended,
        served = async { served.await } => served.map_err(|e| CliError::Failed(format!("cannot listen any more: {e}"))),
    }
}

async fn receive(
    State(sender): State<Arc<mpsc::Sender<Delivery>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, axum::Json<Value>) {
    // Whoever is full, or has just ended, has not received it: it comes again.
    match sender.send(Delivery { headers, body }).await {
        Ok(()) => (StatusCode::OK, axum::Json(json!({ "status": "received" }))),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            axum::Json(json!({ "status": "ended" })),
        ),
    }
}

/// Refuses a URL that nobody posts to.
async fn known(session: &Session, target: &Target, url: &str) -> Result<(), CliError> {
    let mut urls = Vec::new();
    for list in [List::Results, List::CompensationFailures] {
        let found = webhooks::all(target, list).await;
        urls.extend(found.into_iter().flatten().map(|webhook| webhook.url));
    }
    // A server that keeps its list to itself: what this machine added.
    let config = session.file.load()?;
    if let Ok((_, project)) = config.project(Some(&target.name)) {
        urls.extend(project.webhooks.iter().cloned());
        urls.extend(project.compensation_failure_webhooks.iter().cloned());
    }
    if urls.iter().any(|known| same_place(known, url)) {
        return Ok(());
    }
    Err(CliError::Usage(format!(
        "{url} is no webhook of {}: add it with `orchestrion webhooks add {url}`, or say --any",
        target.name
    )))
}

/// From within a container this machine has another name.
fn same_place(known: &str, url: &str) -> bool {
    known == url || known == url.replacen("localhost", "host.docker.internal", 1)
}

fn secrets(
    session: &Session,
    target: &Target,
    given: &[String],
) -> Result<Vec<WebhookSecret>, CliError> {
    let config = session.file.load()?;
    let remembered = config
        .project(Some(&target.name))
        .map(|(_, project)| {
            project
                .webhook_secrets
                .values()
                .flatten()
                .cloned()
                .collect()
        })
        .unwrap_or_else(|_| Vec::new());
    let mut secrets = Vec::new();
    for text in given.iter().filter(|text| !text.is_empty()) {
        let secret = WebhookSecret::parse(text).ok_or_else(|| {
            CliError::Usage(
                "a secret given is none: it begins with whsec_ and goes on in base64".into(),
            )
        })?;
        secrets.push(secret);
    }
    secrets.extend(
        remembered
            .iter()
            .filter_map(|text: &String| WebhookSecret::parse(text)),
    );
    Ok(secrets)
}

/// This machine alone for its own name, every address for any other: the URL may be this machine's as others see it.
fn listen_at(url: &Url) -> SocketAddr {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let loopback = host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let address = if loopback {
        Ipv4Addr::LOCALHOST
    } else {
        Ipv4Addr::UNSPECIFIED
    };
    SocketAddr::from((address, url.port().unwrap_or(PORT_DEFAULT)))
}

fn header<'a>(delivery: &'a Delivery, name: &str) -> &'a str {
    let value = delivery.headers.get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn verdict(delivery: &Delivery, secrets: &[WebhookSecret], now_seconds: i64) -> Verdict {
    let signed = header(delivery, "webhook-signature");
    if signed.is_empty() {
        return Verdict::Unsigned;
    }
    if secrets.is_empty() {
        return Verdict::Unchecked;
    }
    let (Ok(seconds), Ok(body)) = (
        header(delivery, "webhook-timestamp").parse::<i64>(),
        std::str::from_utf8(&delivery.body),
    ) else {
        return Verdict::Invalid;
    };
    let id = header(delivery, "webhook-id");
    let valid = secrets
        .iter()
        .any(|secret| is_signed_by(secret, signed, id, seconds, body));
    match valid {
        false => Verdict::Invalid,
        true if (now_seconds - seconds).abs() > SIGNATURE_SECONDS_MAX => Verdict::Old,
        true => Verdict::Valid,
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Old => "old",
            Self::Invalid => "invalid",
            Self::Unsigned => "none",
            Self::Unchecked => "unchecked",
        }
    }

    fn said(self) -> (Tone, &'static str) {
        match self {
            Self::Valid => (Tone::Good, "● signature valid"),
            Self::Old => (Tone::Bad, "✕ signed by the right secret, but long ago"),
            Self::Invalid => (
                Tone::Bad,
                "✕ signature invalid: by none of the known secrets",
            ),
            Self::Unsigned => (Tone::Warning, "? not signed"),
            Self::Unchecked => (Tone::Warning, "? signature not checked: no secret is known"),
        }
    }
}

fn body_json(delivery: &Delivery) -> Value {
    serde_json::from_slice(&delivery.body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&delivery.body).into_owned()))
}

fn as_json(delivery: &Delivery, verdict: Verdict) -> Value {
    json!({
        "event": header(delivery, "x-orra-event"),
        "id": header(delivery, "webhook-id"),
        "timestamp": header(delivery, "webhook-timestamp"),
        "signature": verdict.word(),
        "body": body_json(delivery),
    })
}

fn as_text(look: &Look, delivery: &Delivery, verdict: Verdict) -> String {
    let (tone, said) = verdict.said();
    format!(
        "\n{} {} {}  {}\n{}",
        look.paint(Tone::Dim, &look.clock(Some(look.now))),
        look.heading(header(delivery, "x-orra-event")),
        header(delivery, "webhook-id"),
        look.paint(tone, said),
        render::json(&body_json(delivery), 2)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::tests::plain;
    use crate::outbox::signature;

    const BODY: &str = r#"{"type":"orchestration.completed"}"#;

    fn secret(byte: u8) -> WebhookSecret {
        WebhookSecret::from_bytes(vec![byte; 32])
    }

    fn delivery(signed: &str, seconds: &str) -> Delivery {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-orra-event", "orchestration.completed"),
            ("webhook-id", "e_1"),
            ("webhook-timestamp", seconds),
            ("webhook-signature", signed),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        Delivery {
            headers,
            body: Bytes::from_static(BODY.as_bytes()),
        }
    }

    #[test]
    fn only_these_bytes_by_a_known_secret_a_short_while_ago_are_valid() {
        let signed = signature(&secret(1), "e_1", 1_000, BODY);
        let told =
            |secrets: &[WebhookSecret], now| verdict(&delivery(&signed, "1000"), secrets, now);
        assert_eq!(told(&[secret(2), secret(1)], 1_010), Verdict::Valid);
        assert_eq!(told(&[secret(1)], 1_301), Verdict::Old);
        assert_eq!(told(&[secret(1)], 600), Verdict::Old);
        assert_eq!(told(&[secret(2)], 1_010), Verdict::Invalid);
        assert_eq!(told(&[], 1_010), Verdict::Unchecked);
        let moved = verdict(&delivery(&signed, "1001"), &[secret(1)], 1_010);
        assert_eq!(moved, Verdict::Invalid, "the time is signed as well");
        let bare = Delivery {
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        assert_eq!(verdict(&bare, &[secret(1)], 0), Verdict::Unsigned);
    }

    #[test]
    fn what_is_shown() {
        let signed = signature(&secret(1), "e_1", 1_000, BODY);
        let text = as_text(&plain(), &delivery(&signed, "1000"), Verdict::Valid);
        assert_eq!(
            text,
            "\n12:00:00 orchestration.completed e_1  ● signature valid\n  {\n    \"type\": \"orchestration.completed\"\n  }\n"
        );
        let value = as_json(&delivery(&signed, "1000"), Verdict::Invalid);
        assert_eq!(value["signature"], "invalid");
        assert_eq!(value["body"]["type"], "orchestration.completed");
    }

    #[test]
    fn where_to_listen() {
        for (url, address) in [
            ("http://localhost:3000/hook", "127.0.0.1:3000"),
            ("http://localhost/hook", "127.0.0.1:8888"),
            ("http://[::1]:1/", "127.0.0.1:1"),
            ("http://host.docker.internal:3000/", "0.0.0.0:3000"),
        ] {
            let url = Url::parse(url).unwrap();
            assert_eq!(listen_at(&url).to_string(), address, "{url}");
        }
        assert!(same_place(
            "http://host.docker.internal:3000/x",
            "http://localhost:3000/x"
        ));
        assert!(!same_place(
            "http://localhost:3000/y",
            "http://localhost:3000/x"
        ));
    }
}
