//! Retry policies: what they are when parts of them are missing, and what follows a failure.

use orchestrion_proto::temporal::api::common::v1::RetryPolicy;
use orchestrion_proto::temporal::api::enums::v1::{RetryState, TimeoutType};
use orchestrion_proto::temporal::api::failure::v1::Failure;
use orchestrion_proto::temporal::api::failure::v1::failure::FailureInfo;

use crate::state::Retry;
use crate::wire;

const SECOND: i64 = 1_000_000_000;

/// The policy with everything said.
pub(super) fn normalise(policy: Option<&RetryPolicy>) -> Result<RetryPolicy, String> {
    let policy = policy.cloned().unwrap_or_default();
    let initial = match wire::nanos(policy.initial_interval.as_ref()) {
        0 => SECOND,
        nanos => nanos,
    };
    let maximum = match wire::nanos(policy.maximum_interval.as_ref()) {
        0 => initial.saturating_mul(100),
        nanos => nanos,
    };
    let factor = if policy.backoff_coefficient == 0.0 {
        2.0
    } else {
        policy.backoff_coefficient
    };
    if initial < 0 || maximum < initial {
        return Err(
            "its retry policy's intervals must be positive, the maximum not below the initial"
                .to_owned(),
        );
    }
    if factor < 1.0 || !factor.is_finite() {
        return Err("its retry policy's backoff coefficient must be at least 1".to_owned());
    }
    if policy.maximum_attempts < 0 {
        return Err("its retry policy's maximum attempts must not be negative".to_owned());
    }
    Ok(RetryPolicy {
        initial_interval: Some(wire::duration(initial)),
        maximum_interval: Some(wire::duration(maximum)),
        backoff_coefficient: factor,
        ..policy
    })
}

impl Retry {
    /// As the state keeps a normalised policy.
    pub(crate) fn of(policy: &RetryPolicy) -> Self {
        Self {
            initial: wire::nanos(policy.initial_interval.as_ref()),
            factor: policy.backoff_coefficient,
            maximum: wire::nanos(policy.maximum_interval.as_ref()),
            attempts: policy.maximum_attempts,
            non_retryable: policy.non_retryable_error_types.clone(),
        }
    }

    /// As the wires say it.
    pub fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            initial_interval: Some(wire::duration(self.initial)),
            backoff_coefficient: self.factor,
            maximum_interval: Some(wire::duration(self.maximum)),
            maximum_attempts: self.attempts,
            non_retryable_error_types: self.non_retryable.clone(),
        }
    }

    /// Nanoseconds to wait behind attempt `attempt`.
    pub fn wait(&self, attempt: i32) -> i64 {
        let wait = self.initial as f64 * self.factor.powi(attempt.saturating_sub(1).max(0));
        if wait.is_finite() && wait < self.maximum as f64 {
            wait as i64
        } else {
            self.maximum
        }
    }

    /// Nanoseconds to wait behind attempt `attempt` that failed so, or why no further one follows.
    pub(super) fn next(&self, attempt: i32, failure: &Failure) -> Result<i64, RetryState> {
        let mut delay = None;
        match &failure.failure_info {
            Some(FailureInfo::ApplicationFailureInfo(info)) => {
                if info.non_retryable || self.non_retryable.contains(&info.r#type) {
                    return Err(RetryState::NonRetryableFailure);
                }
                delay = info.next_retry_delay.as_ref().map(|d| wire::nanos(Some(d)));
            }
            Some(FailureInfo::ServerFailureInfo(info)) if info.non_retryable => {
                return Err(RetryState::NonRetryableFailure);
            }
            Some(FailureInfo::CanceledFailureInfo(_) | FailureInfo::TerminatedFailureInfo(_)) => {
                return Err(RetryState::NonRetryableFailure);
            }
            Some(FailureInfo::TimeoutFailureInfo(info))
                if !matches!(
                    info.timeout_type(),
                    TimeoutType::StartToClose | TimeoutType::Heartbeat
                ) =>
            {
                return Err(RetryState::Timeout);
            }
            _ => {}
        }
        if self.attempts > 0 && attempt >= self.attempts {
            return Err(RetryState::MaximumAttemptsReached);
        }
        Ok(delay.unwrap_or_else(|| self.wait(attempt)))
    }
}
