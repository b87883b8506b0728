//! The table of settings: each one's name, orra's name for it where it has one, and how it reads.
//!
//! Invariant: no name stands twice, and every name has one environment variable.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use orchestrion_history::limits::Limits;

use super::{LogFormat, Secret, Settings, duration};

/// No duration of a setting is shorter.
const SHORTEST: Duration = Duration::from_millis(1);

pub(super) struct Setting {
    pub(super) name: &'static str,
    /// The environment variable by which orra's users know it.
    pub(super) orra: Option<&'static str>,
    field: Field,
}

enum Field {
    Duration(fn(&mut Settings) -> &mut Duration),
    OptionalDuration(fn(&mut Settings) -> &mut Option<Duration>),
    Count(fn(&mut Settings) -> &mut u32, u32, u32),
    /// How to read it, how to set it, and its bounds.
    Limit(
        #[cfg_attr(
            not(test),
            expect(dead_code, reason = "the operators' guide is held against it")
        )]
        fn(&Limits) -> u64,
        fn(&mut Limits, u64),
        u64,
        u64,
    ),
    /// Nanoseconds, for the core.
    LimitTime(fn(&mut Limits) -> &mut i64),
    Factor(fn(&mut Settings) -> &mut f64),
    /// From 0 to 1.
    Share(fn(&mut Settings) -> &mut f64),
    Text(fn(&mut Settings) -> &mut Option<String>),
    Url(fn(&mut Settings) -> &mut Option<String>),
    Secret(fn(&mut Settings) -> &mut Option<Secret>),
    Switch(fn(&mut Settings) -> &mut bool),
    Path(fn(&mut Settings) -> &mut PathBuf),
    OptionalPath(fn(&mut Settings) -> &mut Option<PathBuf>),
    Address(fn(&mut Settings) -> &mut SocketAddr),
    Port(fn(&mut Settings) -> &mut SocketAddr),
    LogLevel(fn(&mut Settings) -> &mut String),
    LogFormat(fn(&mut Settings) -> &mut LogFormat),
}

impl Setting {
    /// `tasks.attempt_timeout` is `ORCHESTRION_TASKS_ATTEMPT_TIMEOUT`.
    pub(super) fn variable(&self) -> String {
        format!(
            "ORCHESTRION_{}",
            self.name.replace('.', "_").to_ascii_uppercase()
        )
    }

    pub(super) fn is_secret(&self) -> bool {
        matches!(self.field, Field::Secret(_))
    }

    pub(super) fn accepts(&self) -> String {
        match self.field {
            Field::Duration(_) | Field::OptionalDuration(_) | Field::LimitTime(_) => {
                format!("{}, at least 1ms", duration::ACCEPTS)
            }
            Field::Limit(.., min, max) => format!("a whole number from {min} to {max}"),
            Field::Count(_, min, max) => format!("a whole number from {min} to {max}"),
            Field::Factor(_) => "a number from 1 to 1000".to_owned(),
            Field::Share(_) => "a number from 0 to 1".to_owned(),
            Field::Text(_) | Field::Secret(_) => "a text".to_owned(),
            Field::Url(_) => "an absolute http or https url".to_owned(),
            Field::Switch(_) => "true or false".to_owned(),
            Field::Path(_) | Field::OptionalPath(_) => "a path".to_owned(),
            Field::Address(_) => "an address and port such as 127.0.0.1:8005".to_owned(),
            Field::Port(_) => "a port from 0 to 65535".to_owned(),
            Field::LogLevel(_) => {
                "trace, debug, info, warn, error or off, or a filter such as warn,orchestrion=debug"
                    .to_owned()
            }
            Field::LogFormat(_) => "auto, text or json".to_owned(),
        }
    }

    /// Sets it; `None` when the text is not a value of it.
    pub(super) fn set(&self, settings: &mut Settings, text: &str) -> Option<()> {
        match self.field {
            Field::Duration(field) => *field(settings) = some_time(text)?,
            Field::OptionalDuration(field) => *field(settings) = Some(some_time(text)?),
            Field::LimitTime(field) => {
                *field(&mut settings.limits) = i64::try_from(some_time(text)?.as_nanos()).ok()?;
            }
            Field::Limit(_, set, min, max) => {
                let value = text.parse().ok();
                let value = value.filter(|value| (min..=max).contains(value))?;
                set(&mut settings.limits, value);
            }
            Field::Count(field, min, max) => {
                *field(settings) = text
                    .parse()
                    .ok()
                    .filter(|value| (min..=max).contains(value))?;
            }
            Field::Share(field) => {
                *field(settings) = text
                    .parse()
                    .ok()
                    .filter(|value| (0.0..=1.0).contains(value))?;
            }
            Field::Factor(field) => {
                *field(settings) = text
                    .parse()
                    .ok()
                    .filter(|value| (1.0..=1000.0).contains(value))?;
            }
            Field::Text(field) => *field(settings) = Some(text.to_owned()),
            Field::Url(field) => {
                let url = reqwest::Url::parse(text).ok()?;
                if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                    return None;
                }
                *field(settings) = Some(text.to_owned());
            }
            Field::Secret(field) => *field(settings) = Some(Secret::new(text)),
            Field::Switch(field) => {
                *field(settings) = match text.to_ascii_lowercase().as_str() {
                    "true" | "1" | "yes" | "on" => true,
                    "false" | "0" | "no" | "off" => false,
                    _ => return None,
                }
            }
            Field::Path(field) => *field(settings) = PathBuf::from(text),
            Field::OptionalPath(field) => *field(settings) = Some(PathBuf::from(text)),
            Field::Address(field) => *field(settings) = address(text)?,
            Field::Port(field) => field(settings).set_port(text.parse().ok()?),
            Field::LogLevel(field) => *field(settings) = log_level(text)?,
            Field::LogFormat(field) => {
                *field(settings) = match text {
                    "auto" => LogFormat::Auto,
                    "text" => LogFormat::Text,
                    "json" => LogFormat::Json,
                    _ => return None,
                }
            }
        }
        Some(())
    }
}

/// The defaults as the operator's guide shows them.
#[cfg(test)]
impl Setting {
    fn default_shown(&self) -> String {
        let mut settings = Settings::default();
        let s = &mut settings;
        let texts = |text: &Option<String>| text.clone().unwrap_or_default();
        let shown = match self.field {
            Field::Duration(field) => short(*field(s)),
            Field::OptionalDuration(field) => field(s).map(short).unwrap_or_default(),
            Field::LimitTime(field) => short(Duration::from_nanos(*field(&mut s.limits) as u64)),
            Field::Count(field, ..) => field(s).to_string(),
            Field::Limit(get, ..) => get(&s.limits).to_string(),
            Field::Factor(field) | Field::Share(field) => field(s).to_string(),
            Field::Text(field) | Field::Url(field) => texts(field(s)),
            Field::Secret(field) => field(s).as_ref().map(|_| "set").unwrap_or_default().into(),
            Field::Switch(field) => field(s).to_string(),
            Field::Path(field) => field(s).display().to_string(),
            Field::OptionalPath(field) => field(s)
                .as_ref()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
            Field::Address(field) => field(s).to_string(),
            Field::Port(field) => field(s).port().to_string(),
            Field::LogLevel(field) => field(s).clone(),
            Field::LogFormat(field) => format!("{:?}", field(s)).to_lowercase(),
        };
        if shown.is_empty() {
            "none".to_owned()
        } else {
            format!("`{shown}`")
        }
    }
}

/// `7d`, `1h`, `90s`: as people say it, in one unit.
#[cfg(test)]
fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => duration::format(duration),
        _ if seconds.is_multiple_of(3_600) => format!("{}h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        _ => duration::format(duration),
    }
}

/// A level in our words or orra's, or a filter of `tracing`.
fn log_level(text: &str) -> Option<String> {
    let level = match text.to_ascii_lowercase().as_str() {
        "fatal" | "panic" => "error".to_owned(),
        "disabled" => "off".to_owned(),
        level @ ("trace" | "debug" | "info" | "warn" | "error" | "off") => level.to_owned(),
        // A filter names what it filters; a single word that is no level would filter everything out.
        _ if text.contains('=') => text.to_owned(),
        _ => return None,
    };
    tracing_subscriber::EnvFilter::try_new(&level)
        .is_ok()
        .then_some(level)
}

fn some_time(text: &str) -> Option<Duration> {
    duration::parse(text).filter(|duration| *duration >= SHORTEST)
}

fn address(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

const fn setting(name: &'static str, field: Field) -> Setting {
    Setting {
        name,
        orra: None,
        field,
    }
}

const fn known_to_orra(name: &'static str, orra: &'static str, field: Field) -> Setting {
    Setting {
        name,
        orra: Some(orra),
        field,
    }
}

/// A limit of runs.
macro_rules! limit {
    ($name:ident, $min:expr, $max:expr) => {
        setting(
            concat!("limits.", stringify!($name)),
            // The bounds fit every type that a limit has.
            Field::Limit(
                |l| l.$name as u64,
                |l, value| l.$name = value as _,
                $min,
                $max,
            ),
        )
    };
}

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

/// All of them.
#[rustfmt::skip]
pub(super) const SETTINGS: &[Setting] = &[
    known_to_orra("data_dir", "STORAGE_PATH", Field::Path(|s| &mut s.data_dir)),
    setting("http_addr", Field::Address(|s| &mut s.http_addr)),
    known_to_orra("http_port", "PORT", Field::Port(|s| &mut s.http_addr)),
    setting("grpc_addr", Field::Address(|s| &mut s.grpc_addr)),
    setting("admin_key", Field::Secret(|s| &mut s.admin_key)),
    setting("allow_open_registration", Field::Switch(|s| &mut s.allow_open_registration)),
    setting("shutdown_budget", Field::Duration(|s| &mut s.shutdown_budget)),

    known_to_orra("log.level", "LOG_LEVEL", Field::LogLevel(|s| &mut s.log.level)),
    setting("log.format", Field::LogFormat(|s| &mut s.log.format)),

    known_to_orra("llm.model", "LLM_MODEL", Field::Text(|s| &mut s.llm.model)),
    known_to_orra("llm.api_key", "LLM_API_KEY", Field::Secret(|s| &mut s.llm.api_key)),
    known_to_orra("llm.api_base_url", "LLM_API_BASE_URL", Field::Url(|s| &mut s.llm.base_url)),
    known_to_orra("embeddings.model", "EMBEDDINGS_MODEL", Field::Text(|s| &mut s.embeddings.model)),
    known_to_orra("embeddings.api_key", "EMBEDDINGS_API_KEY", Field::Secret(|s| &mut s.embeddings.api_key)),
    known_to_orra("embeddings.api_base_url", "EMBEDDINGS_API_BASE_URL", Field::Url(|s| &mut s.embeddings.base_url)),

    setting("embeddings.call_timeout", Field::Duration(|s| &mut s.grounding.embeddings_timeout)),

    setting("grounding.threshold", Field::Share(|s| &mut s.grounding.threshold)),
    setting("grounding.lexical_threshold", Field::Share(|s| &mut s.grounding.lexical_threshold)),
    setting("grounding.capability_threshold", Field::Share(|s| &mut s.grounding.capability_threshold)),
    setting("plan_cache.off", Field::Switch(|s| &mut s.plan_cache.off)),
    setting("plan_cache.size", Field::Count(|s| &mut s.plan_cache.size, 1, 100_000)),
    setting("plan_cache.age", Field::Duration(|s| &mut s.plan_cache.age)),
    setting("plan_cache.threshold", Field::Share(|s| &mut s.plan_cache.threshold)),

    setting("planning.attempts", Field::Count(|s| &mut s.planning.attempts, 1, 100)),
    setting("planning.call_timeout", Field::Duration(|s| &mut s.planning.call_timeout)),
    setting("planning.backoff_initial", Field::Duration(|s| &mut s.planning.backoff_initial)),
    setting("planning.backoff_max", Field::Duration(|s| &mut s.planning.backoff_max)),

    setting("tasks.attempt_timeout", Field::Duration(|s| &mut s.tasks.attempt_timeout)),
    setting("tasks.attempts", Field::Count(|s| &mut s.tasks.attempts, 1, 1_000_000)),
    setting("tasks.backoff_initial", Field::Duration(|s| &mut s.tasks.backoff_initial)),
    setting("tasks.backoff_factor", Field::Factor(|s| &mut s.tasks.backoff_factor)),
    setting("tasks.backoff_max", Field::Duration(|s| &mut s.tasks.backoff_max)),
    setting("tasks.offline_grace", Field::Duration(|s| &mut s.tasks.offline_grace)),
    setting("tasks.paused_after", Field::Duration(|s| &mut s.tasks.paused_after)),
    setting("tasks.late_result_wait", Field::OptionalDuration(|s| &mut s.tasks.late_result_wait)),

    setting("compensation.attempt_timeout", Field::Duration(|s| &mut s.compensation.attempt_timeout)),
    setting("compensation.attempts", Field::Count(|s| &mut s.compensation.attempts, 1, 1_000_000)),
    setting("compensation.backoff_initial", Field::Duration(|s| &mut s.compensation.backoff_initial)),
    setting("compensation.backoff_max", Field::Duration(|s| &mut s.compensation.backoff_max)),
    setting("compensation.default_ttl", Field::Duration(|s| &mut s.compensation.default_ttl)),

    setting("http.head_timeout", Field::Duration(|s| &mut s.http.head_timeout)),
    setting("http.body_timeout", Field::Duration(|s| &mut s.http.body_timeout)),
    setting("http.connections_max", Field::Count(|s| &mut s.http.connections_max, 1, 1_000_000)),
    setting("http.submit_wait", Field::Duration(|s| &mut s.http.submit_wait)),

    setting("grpc.tls_certificate", Field::OptionalPath(|s| &mut s.grpc.tls_certificate)),
    setting("grpc.tls_key", Field::OptionalPath(|s| &mut s.grpc.tls_key)),
    setting("grpc.tls_client_ca", Field::OptionalPath(|s| &mut s.grpc.tls_client_ca)),
    setting("grpc.handshake_timeout", Field::Duration(|s| &mut s.grpc.handshake_timeout)),
    setting("grpc.poll_timeout", Field::Duration(|s| &mut s.grpc.poll_timeout)),
    setting("grpc.keepalive_interval", Field::Duration(|s| &mut s.grpc.keepalive_interval)),
    setting("grpc.keepalive_timeout", Field::Duration(|s| &mut s.grpc.keepalive_timeout)),
    setting("grpc.connections_max", Field::Count(|s| &mut s.grpc.connections_max, 1, 1_000_000)),
    setting("grpc.streams_max", Field::Count(|s| &mut s.grpc.streams_max, 1, 1_000_000)),
    setting("grpc.message_bytes_max", Field::Count(|s| &mut s.grpc.message_bytes_max, 64 * 1024, 1024 * 1024 * 1024)),
    setting("grpc.compress_above_bytes", Field::Count(|s| &mut s.grpc.compress_above_bytes, 0, 1024 * 1024 * 1024)),

    limit!(history_events_max, 10, 10_000_000),
    limit!(history_bytes_max, 1_024, TIB),
    limit!(history_events_warn, 1, 10_000_000),
    limit!(history_bytes_warn, 1_024, TIB),
    limit!(request_bytes_warn, 1_024, TIB),
    limit!(note_bytes_max, 1_024, TIB),
    limit!(result_bytes_max, 1_024, GIB),
    limit!(blob_bytes_max, 1_024, GIB),
    limit!(summary_bytes_max, 1, GIB),
    limit!(details_bytes_max, 1, GIB),
    limit!(pending_activities_max, 1, 1_000_000),
    limit!(pending_children_max, 1, 1_000_000),
    limit!(pending_signals_max, 1, 1_000_000),
    limit!(pending_cancels_max, 1, 1_000_000),
    limit!(signals_max, 1, 10_000_000),
    limit!(updates_in_flight_max, 1, 1_000_000),
    limit!(updates_max, 1, 10_000_000),
    limit!(buffered_events_max, 1, 1_000_000),
    limit!(buffered_bytes_max, 1_024, TIB),
    limit!(suggest_continue_events, 1, 10_000_000),
    limit!(suggest_continue_bytes, 1_024, TIB),
    setting("limits.continue_as_new_interval_min", Field::LimitTime(|l| &mut l.continue_as_new_interval_min)),
    setting("limits.task_heartbeat_max", Field::LimitTime(|l| &mut l.task_heartbeat_max)),

    setting("sockets.window", Field::Count(|s| &mut s.sockets.window, 1, 10_000)),
    setting("sockets.app_ping_interval", Field::Duration(|s| &mut s.sockets.app_ping_interval)),
    setting("sockets.ping_interval", Field::Duration(|s| &mut s.sockets.ping_interval)),
    setting("sockets.silence_limit", Field::Duration(|s| &mut s.sockets.silence_limit)),
    setting("sockets.busy_silence_limit", Field::Duration(|s| &mut s.sockets.busy_silence_limit)),
    setting("sockets.overdue_margin", Field::Duration(|s| &mut s.sockets.overdue_margin)),
    setting("sockets.doubt_limit", Field::Duration(|s| &mut s.sockets.doubt_limit)),
    setting("sockets.write_timeout", Field::Duration(|s| &mut s.sockets.write_timeout)),
    setting("sockets.answer_patience", Field::Duration(|s| &mut s.sockets.answer_patience)),

    setting("outbox.delivery_timeout", Field::Duration(|s| &mut s.outbox.delivery_timeout)),
    setting("outbox.backoff_initial", Field::Duration(|s| &mut s.outbox.backoff_initial)),
    setting("outbox.backoff_factor", Field::Factor(|s| &mut s.outbox.backoff_factor)),
    setting("outbox.backoff_max", Field::Duration(|s| &mut s.outbox.backoff_max)),
    setting("outbox.give_up_after", Field::Duration(|s| &mut s.outbox.give_up_after)),
    setting("outbox.in_flight_per_host", Field::Count(|s| &mut s.outbox.in_flight_per_host, 1, 1_000)),
    setting("outbox.in_flight", Field::Count(|s| &mut s.outbox.in_flight, 1, 10_000)),
    setting("outbox.sweep_interval", Field::Duration(|s| &mut s.outbox.sweep_interval)),
    setting("outbox.allow_private", Field::Switch(|s| &mut s.outbox.allow_private)),
    setting("outbox.through_proxy", Field::Switch(|s| &mut s.outbox.through_proxy)),

    setting("retention.closed_runs", Field::Duration(|s| &mut s.retention.closed_runs)),
    setting("retention.deliveries", Field::Duration(|s| &mut s.retention.deliveries)),
    setting("retention.acts", Field::Duration(|s| &mut s.retention.acts)),
    setting("retention.compensation_records", Field::Duration(|s| &mut s.retention.compensation_records)),
    setting("retention.key_use_interval", Field::Duration(|s| &mut s.retention.key_use_interval)),
    setting("retention.sweep_interval", Field::Duration(|s| &mut s.retention.sweep_interval)),
];

/// The names of all settings, with what each accepts.
pub fn names() -> impl Iterator<Item = (&'static str, String)> {
    SETTINGS
        .iter()
        .map(|setting| (setting.name, setting.accepts()))
}

/// The environment variables of all settings, ours and orra's.
pub fn variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().flat_map(|setting| {
        let orra = setting.orra.map(str::to_owned);
        orra.into_iter().chain([setting.variable()])
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_variables_are_unique() {
        let mut seen = HashSet::new();
        for setting in SETTINGS {
            assert!(seen.insert(setting.variable()), "{}", setting.name);
            assert!(
                setting.orra.is_none_or(|orra| seen.insert(orra.to_owned())),
                "{}",
                setting.name
            );
        }
    }

    /// `docs/operations.md` has a row for each setting, in the order of the table above, with its default as it is.
    #[test]
    fn the_operators_guide_has_each_setting_with_its_default() {
        let guide = std::fs::read_to_string(crate::docs("operations.md")).unwrap();
        let told: Vec<&str> = guide
            .lines()
            .skip_while(|line| !line.starts_with("| setting | default |"))
            .take_while(|line| line.starts_with('|'))
            .filter(|line| line.starts_with("| `"))
            .collect();
        let expected: Vec<String> = SETTINGS
            .iter()
            .map(|setting| format!("| `{}` | {} | ", setting.name, setting.default_shown()))
            .collect();
        let rows = told.iter().map(|row| {
            let known = expected.iter().find(|start| row.starts_with(*start));
            known.map_or(*row, |start| start.as_str())
        });
        assert_eq!(
            rows.collect::<Vec<_>>(),
            expected,
            "the table of settings has these rows, each with its meaning:\n{}",
            expected.join("\n")
        );
        for row in told {
            let meaning = row.trim_end_matches('|').rsplit('|').next().unwrap();
            assert!(!meaning.trim().is_empty(), "{row}");
        }
    }

    #[test]
    fn levels_are_ours_or_orras_and_filters_name_something() {
        for (text, level) in [
            ("DEBUG", "debug"),
            ("disabled", "off"),
            ("fatal", "error"),
            ("warn,orchestrion=debug", "warn,orchestrion=debug"),
        ] {
            assert_eq!(log_level(text).as_deref(), Some(level));
        }
        assert_eq!(log_level("loud"), None);
    }

    #[test]
    fn each_setting_refuses_nonsense() {
        for setting in SETTINGS {
            let takes_any_text = matches!(
                setting.field,
                Field::Text(_) | Field::Secret(_) | Field::Path(_) | Field::OptionalPath(_)
            );
            let result = setting.set(&mut Settings::default(), "=?=");
            assert_eq!(result.is_some(), takes_any_text, "{}", setting.name);
        }
    }
}
