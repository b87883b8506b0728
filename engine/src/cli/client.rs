//! The HTTP client of the command line: one request, one answer, and a clear word for everything
//! that can go wrong between the two.

use std::io::{self, Write};
use std::sync::Once;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{CliError, Refusal};
use crate::api::orra::VERSION_HEADER;

/// How long to wait for an answer: planning with a slow model takes minutes.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// How long a stream may last.
const STREAM_WITHIN: Duration = Duration::from_secs(30 * 24 * 3_600);
/// How long to wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// A client of one server, with one key.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    server: Url,
    headers: HeaderMap,
}

impl Client {
    /// A client for the server at that base URL. The key goes into the header of each request.
    pub fn new(server: &str, key: Option<&str>) -> Result<Client, CliError> {
        let url = base_url(server)?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN);
        if url.scheme() == "http" {
            // Without TLS there is nothing to verify: a machine without root certificates will do.
            builder = builder.tls_certs_only([]);
        }
        if is_loopback(&url) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|e| {
            CliError::Failed(format!("cannot set up an HTTP client: {}", chain(&e)))
        })?;
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}")).map_err(|_| {
                CliError::Usage("the key holds characters that no HTTP header can carry".into())
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Client {
            http,
            server: url,
            headers,
        })
    }

    /// The base URL, as it is shown.
    pub fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// `GET`, decoded.
    pub async fn get(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        let mut url = self.url(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Method::GET, url, None, HeaderMap::new()).await
    }

    /// `POST` with a JSON body, or none; decoded.
    pub async fn post(
        &self,
        segments: &[&str],
        body: Option<&Value>,
        headers: HeaderMap,
    ) -> Result<Value, CliError> {
        self.send(Method::POST, self.url(segments), body, headers)
            .await
    }

    /// `DELETE`; decoded, null for an answer without a body.
    pub async fn delete(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
    ) -> Result<Value, CliError> {
        let mut url = self.url(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.send(Method::DELETE, url, None, HeaderMap::new()).await
    }

    /// The version that the server says it is of, asked quickly; `None` when nobody answers, or it does not say.
    pub async fn server_version(&self) -> Option<String> {
        let answer = self
            .http
            .get(self.url(&["health"]))
            .timeout(Duration::from_secs(1))
            .send()
            .await
            .ok()?;
        let version = answer.headers().get(VERSION_HEADER)?.to_str().ok()?;
        Some(version.to_owned())
    }

    /// `GET`, to be read as it comes.
    pub async fn stream(
        &self,
        segments: &[&str],
        query: &[(&str, String)],
        headers: HeaderMap,
    ) -> Result<reqwest::Response, CliError> {
        let mut url = self.url(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let request = self
            .http
            .get(url)
            .headers(self.headers.clone())
            .headers(headers)
            .timeout(STREAM_WITHIN);
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let body = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        Err(refusal(status, &body))
    }

    /// Whether a server answers there, asked quickly.
    pub async fn is_up(&self) -> bool {
        self.http
            .get(self.url(&["health"]))
            .timeout(Duration::from_secs(1))
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
    }

    fn url(&self, segments: &[&str]) -> Url {
        let mut url = self.server.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        body: Option<&Value>,
        headers: HeaderMap,
    ) -> Result<Value, CliError> {
        let mut request = self
            .http
            .request(method, url)
            .headers(self.headers.clone())
            .headers(headers);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        if let Some(warning) = of_another_version(answer.headers()) {
            // Once: every further answer would say the same.
            WARNED.call_once(|| _ = writeln!(io::stderr(), "note: {warning}"));
        }
        let body = answer.bytes().await.map_err(|e| self.unreachable(&e))?;
        decode(status, &body)
    }

    /// The error of a connection that broke.
    pub fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let reason = if error.is_timeout() {
            "it did not answer in time".into()
        } else {
            chain(error)
        };
        CliError::Unreachable {
            server: self.server().to_owned(),
            reason,
        }
    }
}

static WARNED: Once = Once::new();

/// What to say when the server is of another version than this client.
fn of_another_version(headers: &HeaderMap) -> Option<String> {
    let ours = env!("CARGO_PKG_VERSION");
    match headers.get(VERSION_HEADER).map(|version| version.to_str()) {
        Some(Ok(version)) if version == ours => None,
        Some(version) => Some(format!(
            "the server is orchestrion {}, this client {ours}: what one of them does not know may be missing",
            version.unwrap_or("of an unreadable version")
        )),
        None if headers.contains_key("x-orra-planeengine-version") => Some(format!(
            "the server does not say that it is orchestrion (this client is {ours}): commands that orra does not have will fail"
        )),
        // Routers answer some requests before anybody says who they are.
        None => None,
    }
}

/// Reads an answer's members into a type of ours.
pub fn read<T: DeserializeOwned>(answer: &Value) -> Result<T, CliError> {
    T::deserialize(answer).map_err(|e| {
        CliError::Failed(format!(
            "the server's answer is not what this client knows ({e}): are both of the same version? `--json` shows it as it is"
        ))
    })
}

fn decode(status: StatusCode, body: &[u8]) -> Result<Value, CliError> {
    if !status.is_success() {
        return Err(refusal(status, body));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Value::Null);
    }
    serde_json::from_slice(body).map_err(|e| {
        CliError::Failed(format!(
            "the server's answer is not JSON ({e}): is it an orchestrion server?"
        ))
    })
}

/// What an answer that is no success says: as orra's wire has it, or as a problem (RFC 9457).
fn refusal(status: StatusCode, body: &[u8]) -> CliError {
    #[derive(Deserialize)]
    struct Envelope {
        error: Refusal,
    }
    #[derive(Deserialize)]
    #[serde(default)]
    #[derive(Default)]
    struct Problem {
        detail: String,
        code: String,
        param: String,
        reasons: Vec<String>,
    }
    let refusal = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => envelope.error,
        Err(_) => {
            let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
            let mut message = problem.detail;
            for reason in problem.reasons {
                message = format!("{message}\n  {reason}");
            }
            Refusal {
                message,
                code: problem.code,
                param: problem.param,
                ..Refusal::default()
            }
        }
    };
    CliError::Refused {
        status: status.as_u16(),
        refusal,
    }
}

/// Parses a base URL; a bare `host:port` is taken for `http://host:port`.
pub fn base_url(text: &str) -> Result<Url, CliError> {
    let wrong = |why: &str| {
        CliError::Usage(format!(
            "{text:?} is no server address ({why}): write it like http://localhost:8005"
        ))
    };
    let spelled = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url = Url::parse(&spelled).map_err(|e| wrong(&e.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("no host"));
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// The innermost cause says what happened: `connection refused`.
fn chain(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    let text = inner.to_string();
    match text.split_once(" (os error") {
        Some((text, _)) => text.to_lowercase(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn server_addresses() {
        for (text, url) in [
            ("http://localhost:8005", "http://localhost:8005/"),
            ("localhost:8005", "http://localhost:8005/"),
            ("127.0.0.1:1", "http://127.0.0.1:1/"),
            (
                "https://engine.example/base/",
                "https://engine.example/base/",
            ),
        ] {
            assert_eq!(base_url(text).unwrap().as_str(), url);
        }
        for text in ["", "ftp://h", "http://", "http://h:port"] {
            let error = base_url(text).expect_err(text);
            assert_eq!(error.code(), 2);
            assert!(
                error.to_string().contains("http://localhost:8005"),
                "{error}"
            );
        }
    }

    #[test]
    fn paths_are_joined_and_escaped() {
        let client = Client::new("http://localhost:1/base/", None).unwrap();
        assert_eq!(
            client
                .url(&["orchestrations", "inspections", "o_1/../x y"])
                .as_str(),
            "http://localhost:1/base/orchestrations/inspections/o_1%2F..%2Fx%20y"
        );
        assert_eq!(client.server(), "http://localhost:1/base");
    }

    #[test]
    fn a_server_of_another_version_is_told_of() {
        let headers = |pairs: &[(&'static str, &'static str)]| -> HeaderMap {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = reqwest::header::HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            });
            pairs.collect()
        };
        let orra = ("x-orra-planeengine-version", "0.2.5");
        let ours = ("x-orchestrion-version", env!("CARGO_PKG_VERSION"));
        let other = ("x-orchestrion-version", "99.1.0");
        assert_eq!(of_another_version(&headers(&[orra, ours])), None);
        assert_eq!(of_another_version(&headers(&[])), None);
        let said = of_another_version(&headers(&[orra, other])).unwrap();
        assert!(said.contains("99.1.0"), "{said}");
        let said = of_another_version(&headers(&[orra])).unwrap();
        assert!(said.contains("orra"), "{said}");
    }

    #[test]
    fn proxies_are_not_asked_for_this_machine() {
        for (url, loopback) in [
            ("http://localhost:1", true),
            ("http://127.0.0.9", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&base_url(url).unwrap()), loopback, "{url}");
        }
    }

    #[test]
    fn answers() {
        assert_eq!(
            decode(StatusCode::OK, b"{\"a\":1}\n").unwrap(),
            json!({"a":1})
        );
        assert_eq!(decode(StatusCode::NO_CONTENT, b"").unwrap(), json!(null));
        assert_eq!(decode(StatusCode::OK, b"<html>").unwrap_err().code(), 1);
    }

    #[test]
    fn refusals_with_a_body_a_partial_one_and_none() {
        let refusal = |body: &[u8]| match decode(StatusCode::BAD_REQUEST, body) {
            Err(CliError::Refused {
                status: 400,
                refusal,
            }) => refusal,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            refusal(br#"{"error":{"kind":"item does not exist","code":"Orra:UnknownOrchestration","message":"no such"}}"#),
            Refusal {
                kind: "item does not exist".into(),
                code: "Orra:UnknownOrchestration".into(),
                message: "no such".into(),
                ..Refusal::default()
            }
        );
        assert_eq!(refusal(br#"{"error":{"kind":"k"}}"#).kind, "k");
        assert_eq!(refusal(b""), Refusal::default());
        assert_eq!(refusal(b"<html>nope</html>"), Refusal::default());
    }

    #[tokio::test]
    async fn nobody_there_is_exit_code_three_and_says_what_to_start() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let client = Client::new(&address.to_string(), Some("sk-orra-v1-x")).unwrap();
        let error = client.get(&["orchestrations"], &[]).await.unwrap_err();
        assert_eq!(error.code(), 3);
        let text = error.to_string();
        assert!(text.contains("connection refused"), "{text}");
        assert!(text.contains("orchestrion dev"), "{text}");
        assert!(!client.is_up().await);
    }
}
