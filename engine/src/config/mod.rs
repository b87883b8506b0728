//! Settings: what they are, their defaults, and how they read.
//!
//! ```text
//!  defaults < TOML file < .env in the working directory < environment < flags
//! ```
//!
//! Every setting has one name (`tasks.attempt_timeout`), which is its place in the TOML file, its environment variable
//! (`ORCHESTRION_TASKS_ATTEMPT_TIMEOUT`) and what an error calls it. The table of names is in `table.rs`.
//!
//! Invariant: a value that cannot be right stops the start and is named with what it accepts.
//! Invariant: a secret has no way into Debug output or an error.

pub mod duration;
mod sources;
mod table;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use orchestrion_history::limits::Limits;

pub use self::sources::{ConfigError, Sources};
pub use self::table::{names, variables};
use crate::orchestration::Options;
use crate::plan_cache::CacheSettings;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// What an attempt of a planning may take beyond its model call: waiting for its turn, and validating.
const PLANNING_SLACK: Duration = Duration::from_secs(30);

/// A text that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for its one use.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Everything that can be set.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Where the data is.
    pub data_dir: PathBuf,
    /// Where orra's API listens.
    pub http_addr: SocketAddr,
    /// Where the Temporal API listens.
    pub grpc_addr: SocketAddr,
    /// Who may create projects in server mode.
    pub admin_key: Option<Secret>,
    /// Whether anybody may create projects in server mode.
    pub allow_open_registration: bool,
    /// What is logged, and how.
    pub log: LogSettings,
    /// The model that plans.
    pub llm: ModelSettings,
    /// The model that compares texts.
    pub embeddings: ModelSettings,
    /// From where on texts are alike.
    pub grounding: GroundingSettings,
    /// Plans that are kept for later.
    pub plan_cache: CacheSettings,
    /// How long planning may take.
    pub planning: PlanningSettings,
    /// How tasks run unless a submission says otherwise.
    pub tasks: TaskSettings,
    /// How reverts run.
    pub compensation: CompensationSettings,
    /// The HTTP server.
    pub http: HttpSettings,
    /// The gRPC server.
    pub grpc: GrpcSettings,
    /// What one run may hold.
    pub limits: Limits,
    /// The sockets of services.
    pub sockets: SocketSettings,
    /// Deliveries of webhooks.
    pub outbox: OutboxSettings,
    /// How long things are kept.
    pub retention: RetentionSettings,
    /// How long a graceful stop may take.
    pub shutdown_budget: Duration,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or a filter of `tracing`: `info`, `warn,orchestrion=debug`.
    pub level: String,
    /// As whom the lines are for.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// A model behind an OpenAI-compatible endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSettings {
    /// Its name, sent as it is.
    pub model: Option<String>,
    /// The endpoint's key; some need none.
    pub api_key: Option<Secret>,
    /// The endpoint.
    pub base_url: Option<String>,
}

impl ModelSettings {
    /// Whether anything says that there is a model.
    pub fn is_configured(&self) -> bool {
        self.model.is_some() || self.api_key.is_some() || self.base_url.is_some()
    }
}

/// From where on texts are alike, from 0 to 1.
#[derive(Debug, Clone, PartialEq)]
pub struct GroundingSettings {
    /// Action and use case, compared by a model.
    pub threshold: f64,
    /// Action and use case, compared by words.
    pub lexical_threshold: f64,
    /// Capability and service, compared by a model.
    pub capability_threshold: f64,
    /// One call of the model.
    pub embeddings_timeout: Duration,
}

/// How long planning may take.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanningSettings {
    /// Model calls for one action.
    pub attempts: u32,
    /// One model call.
    pub call_timeout: Duration,
    /// Before the second call; it doubles.
    pub backoff_initial: Duration,
    /// The longest wait between two calls.
    pub backoff_max: Duration,
}

/// How tasks run unless a submission says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskSettings {
    /// One attempt.
    pub attempt_timeout: Duration,
    /// Attempts.
    pub attempts: u32,
    /// Before the second attempt.
    pub backoff_initial: Duration,
    /// Factor of each further wait.
    pub backoff_factor: f64,
    /// The longest wait.
    pub backoff_max: Duration,
    /// How long a task waits for a service that is not connected.
    pub offline_grace: Duration,
    /// How long a task waits without any connected service before it shows as paused.
    pub paused_after: Duration,
    /// How long an undoing waits for the result of a task that timed out; as long as an attempt when not set.
    pub late_result_wait: Option<Duration>,
}

/// How reverts run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompensationSettings {
    /// One attempt.
    pub attempt_timeout: Duration,
    /// Attempts.
    pub attempts: u32,
    /// Before the second attempt; it doubles.
    pub backoff_initial: Duration,
    /// The longest wait.
    pub backoff_max: Duration,
    /// How long a revert can be asked for when the service does not say.
    pub default_ttl: Duration,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// How long a client may take to send the head of a request, and how long a connection may idle.
    pub head_timeout: Duration,
    /// How long a client may take to send the body of a request.
    pub body_timeout: Duration,
    /// Connections at once, the sockets of services not counted.
    pub connections_max: u32,
    /// How long a submission may wait for its plan before the caller is told to look later.
    pub submit_wait: Duration,
}

/// The gRPC server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcSettings {
    /// The certificate chain, PEM. With it and its key the server speaks TLS only.
    pub tls_certificate: Option<PathBuf>,
    /// The key of the certificate, PEM.
    pub tls_key: Option<PathBuf>,
    /// The authorities, PEM, one of which must have signed the certificate of every client.
    pub tls_client_ca: Option<PathBuf>,
    /// How long a client may take for its TLS handshake.
    pub handshake_timeout: Duration,
    /// Between two pings of a connection on which nothing is heard.
    pub keepalive_interval: Duration,
    /// How long a poll for a task waits before it is answered with none.
    pub poll_timeout: Duration,
    /// A connection whose ping stays unanswered for so long is closed.
    pub keepalive_timeout: Duration,
    /// Connections at once.
    pub connections_max: u32,
    /// Calls at once on one connection.
    pub streams_max: u32,
    /// The largest request that is read, decompressed.
    pub message_bytes_max: u32,
    /// Responses of more bytes are compressed for clients that take it.
    pub compress_above_bytes: u32,
}

/// The sockets of services.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSettings {
    /// Attempts a socket is given at once. orra's Python SDK works on one at a time.
    pub window: u32,
    /// Between two pings that the SDK sees.
    pub app_ping_interval: Duration,
    /// Between two pings that the WebSocket library answers.
    pub ping_interval: Duration,
    /// A socket without outstanding work that says nothing for so long is closed.
    pub silence_limit: Duration,
    /// A socket with outstanding work that says nothing for so long is closed.
    pub busy_silence_limit: Duration,
    /// How long after an attempt's timeout its slot is doubted.
    pub overdue_margin: Duration,
    /// A worker that reads nothing while it works is waited for so long after its attempt timed out, then its handler counts as
    /// hanging.
    pub doubt_limit: Duration,
    /// How long one write may take.
    pub write_timeout: Duration,
    /// How long an answer is offered to an engine that is busy. The SDKs wait 5 s for the acknowledgement.
    pub answer_patience: Duration,
}

/// Deliveries of webhooks.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxSettings {
    /// One try.
    pub delivery_timeout: Duration,
    /// Before the second try.
    pub backoff_initial: Duration,
    /// Factor of each further wait.
    pub backoff_factor: f64,
    /// The longest wait.
    pub backoff_max: Duration,
    /// After so long a delivery is given up.
    pub give_up_after: Duration,
    /// Tries at once to one host.
    pub in_flight_per_host: u32,
    /// Tries at once.
    pub in_flight: u32,
    /// Between two sweeps of settled deliveries.
    pub sweep_interval: Duration,
    /// Whether deliveries may go to addresses that are not public: this machine, the local network. `dev` allows it always.
    pub allow_private: bool,
    /// Whether deliveries to public names go through the proxy of the environment, which then has to guard what it connects to.
    pub through_proxy: bool,
}

/// How long things are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionSettings {
    /// Closed runs.
    pub closed_runs: Duration,
    /// Settled deliveries.
    pub deliveries: Duration,
    /// Administrative acts.
    pub acts: Duration,
    /// Compensation failures that were resolved or ignored.
    pub compensation_records: Duration,
    /// Between two notes of which API keys were used.
    pub key_use_interval: Duration,
    /// Between two sweeps of closed runs.
    pub sweep_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            data_dir: PathBuf::from(".orchestrion"),
            http_addr: loopback(8005),
            grpc_addr: loopback(7233),
            admin_key: None,
            allow_open_registration: false,
            log: LogSettings {
                level: "info".to_owned(),
                format: LogFormat::Auto,
            },
            llm: ModelSettings::default(),
            embeddings: ModelSettings::default(),
            grounding: GroundingSettings {
                threshold: 0.90,
                lexical_threshold: 0.85,
                capability_threshold: 0.75,
                embeddings_timeout: 10 * SECOND,
            },
            plan_cache: CacheSettings::default(),
            planning: PlanningSettings {
                attempts: 3,
                call_timeout: 60 * SECOND,
                backoff_initial: 2 * SECOND,
                backoff_max: 10 * SECOND,
            },
            tasks: TaskSettings {
                attempt_timeout: 30 * SECOND,
                attempts: 5,
                backoff_initial: 2 * SECOND,
                backoff_factor: 2.0,
                backoff_max: 30 * SECOND,
                offline_grace: 30 * MINUTE,
                paused_after: Duration::from_millis(500),
                late_result_wait: None,
            },
            compensation: CompensationSettings {
                attempt_timeout: 30 * SECOND,
                attempts: 10,
                backoff_initial: 2 * SECOND,
                backoff_max: 60 * SECOND,
                default_ttl: DAY,
            },
            http: HttpSettings {
                head_timeout: 180 * SECOND,
                body_timeout: 180 * SECOND,
                connections_max: 10_000,
                submit_wait: 5 * MINUTE,
            },
            grpc: GrpcSettings {
                tls_certificate: None,
                tls_key: None,
                tls_client_ca: None,
                handshake_timeout: 10 * SECOND,
                keepalive_interval: 30 * SECOND,
                poll_timeout: 59 * SECOND,
                keepalive_timeout: 20 * SECOND,
                connections_max: 10_000,
                streams_max: 1_000,
                message_bytes_max: 4 * 1024 * 1024,
                compress_above_bytes: 16 * 1024,
            },
            limits: Limits::default(),
            sockets: SocketSettings {
                window: 1,
                app_ping_interval: 54 * SECOND,
                ping_interval: 25 * SECOND,
                silence_limit: 80 * SECOND,
                busy_silence_limit: HOUR,
                overdue_margin: SECOND,
                doubt_limit: 5 * MINUTE,
                write_timeout: 120 * SECOND,
                answer_patience: 4 * SECOND,
            },
            outbox: OutboxSettings {
                delivery_timeout: 10 * SECOND,
                backoff_initial: 2 * SECOND,
                backoff_factor: 2.0,
                backoff_max: HOUR,
                give_up_after: DAY,
                in_flight_per_host: 4,
                in_flight: 64,
                sweep_interval: HOUR,
                allow_private: false,
                through_proxy: false,
            },
            retention: RetentionSettings {
                closed_runs: 7 * DAY,
                deliveries: 7 * DAY,
                acts: 400 * DAY,
                compensation_records: 90 * DAY,
                key_use_interval: MINUTE,
                sweep_interval: 10 * MINUTE,
            },
            shutdown_budget: 15 * SECOND,
        }
    }
}

impl Settings {
    /// What a submission that sets nothing obeys.
    pub fn options(&self) -> Options {
        Options {
            task_timeout_ms: millis(self.tasks.attempt_timeout),
            grace_ms: millis(self.tasks.offline_grace),
            task_attempts: self.tasks.attempts,
            retry_initial_ms: millis(self.tasks.backoff_initial),
            retry_factor: self.tasks.backoff_factor,
            retry_max_ms: millis(self.tasks.backoff_max),
            compensation_attempts: self.compensation.attempts,
            compensation_initial_ms: millis(self.compensation.backoff_initial),
            compensation_max_ms: millis(self.compensation.backoff_max),
            compensation_timeout_ms: millis(self.compensation.attempt_timeout),
            compensation_ttl_ms: millis(self.compensation.default_ttl),
            planning_attempts: self.planning.attempts,
            planning_initial_ms: millis(self.planning.backoff_initial),
            planning_max_ms: millis(self.planning.backoff_max),
            planning_timeout_ms: millis(self.planning.call_timeout.saturating_add(PLANNING_SLACK)),
            late_result_wait_ms: self.tasks.late_result_wait.map(millis),
        }
        .bounded()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_constants_orras_clients_know() {
        assert_eq!(Settings::default().options(), Options::default());
    }

    #[test]
    fn debug_shows_no_secret() {
        let settings = Settings {
            admin_key: Some(Secret::new("hunter2")),
            llm: ModelSettings {
                api_key: Some(Secret::new("hunter3")),
                ..ModelSettings::default()
            },
            ..Settings::default()
        };
        assert!(!format!("{settings:?}").contains("hunter"));
    }
}
