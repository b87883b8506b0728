//! Small conversions between our numbers and Temporal's messages.

use orchestrion_proto::prost_wkt_types::{Duration, Timestamp as WireTimestamp};
use orchestrion_proto::temporal::api::common::v1::Payloads;
use orchestrion_proto::temporal::api::enums::v1::TimeoutType;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;
use orchestrion_proto::temporal::api::failure::v1::{Failure, TimeoutFailureInfo};

const NANOS: i64 = 1_000_000_000;

/// Nanoseconds of a duration; absent is 0, negative stays negative.
pub fn nanos(duration: Option<&Duration>) -> i64 {
    duration.map_or(0, |d| {
        d.seconds
            .saturating_mul(NANOS)
            .saturating_add(i64::from(d.nanos))
    })
}

/// A duration of so many nanoseconds.
pub fn duration(nanos: i64) -> Duration {
    Duration {
        seconds: nanos.div_euclid(NANOS),
        nanos: nanos.rem_euclid(NANOS) as i32,
    }
}

/// An instant, from nanoseconds since the Unix epoch.
pub fn timestamp(nanos: i64) -> WireTimestamp {
    WireTimestamp {
        seconds: nanos.div_euclid(NANOS),
        nanos: nanos.rem_euclid(NANOS) as i32,
    }
}

/// Nanoseconds since the Unix epoch of an instant.
pub fn instant(instant: &WireTimestamp) -> i64 {
    instant
        .seconds
        .saturating_mul(NANOS)
        .saturating_add(i64::from(instant.nanos))
}

/// The failure of something that took too long.
pub fn timeout_failure(
    timeout: TimeoutType,
    cause: Option<Failure>,
    last_heartbeat: Option<Payloads>,
) -> Failure {
    let kind = match timeout {
        TimeoutType::StartToClose => "StartToClose",
        TimeoutType::ScheduleToStart => "ScheduleToStart",
        TimeoutType::ScheduleToClose => "ScheduleToClose",
        TimeoutType::Heartbeat => "Heartbeat",
        TimeoutType::Unspecified => "unspecified",
    };
    Failure {
        message: format!("activity {kind} timeout"),
        source: "Server".to_owned(),
        cause: cause.map(Box::new),
        failure_info: Some(FailureInfo::TimeoutFailureInfo(TimeoutFailureInfo {
            timeout_type: timeout.into(),
            last_heartbeat_details: last_heartbeat,
        })),
        ..Default::default()
    }
}

/// `SCREAMING_SNAKE_CASE` as `CamelCase`: how Temporal prints what protobuf names.
pub fn camel_case(screaming: &str) -> String {
    screaming
        .split('_')
        .map(|word| {
            let (head, tail) = word.split_at(word.len().min(1));
            head.to_owned() + &tail.to_ascii_lowercase()
        })
        .collect()
}
