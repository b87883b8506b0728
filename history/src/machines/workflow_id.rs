//! Who may have a workflow id: one open run at a time, and a start says what follows if there is one, or was one.
//!
//! ```text
//!  no run before          --> start
//!  asked for it before    --> that run, as a repeat                   the request id made it, or attached to it
//!  an open run            --> FAIL: refused    USE_EXISTING: that run    TERMINATE_EXISTING: terminate, then start
//!  a closed run           --> ALLOW_DUPLICATE: start    FAILED_ONLY: start unless it completed    REJECT_DUPLICATE: refused
//! ```

use orchestrion_proto::temporal::api::enums::v1::{
    WorkflowExecutionStatus as WireStatus, WorkflowIdConflictPolicy as Conflict,
    WorkflowIdReusePolicy as Reuse,
};

use crate::request::{Rejection, StartWorkflow};

/// The newest run of a workflow id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub run_id: String,
    /// The request that created it.
    pub create_request_id: String,
    /// Whether the start at hand made it, or attached to it before.
    pub asked_before: bool,
    /// Where it stands.
    pub status: WireStatus,
}

/// What a start does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A new run begins.
    Start,
    /// The holder is the run that this request began, or attached to.
    Repeated,
    /// The holder is used.
    UseExisting,
    /// The holder is terminated, and a new run begins.
    TerminateExisting,
}

/// What a start does to the newest run of its workflow id, or why it is refused.
pub fn arbitrate(holder: Option<&Holder>, start: &StartWorkflow) -> Result<Verdict, Rejection> {
    #[expect(deprecated, reason = "SDKs still send it")]
    let legacy_terminate = start.reuse == Reuse::TerminateIfRunning;
    if legacy_terminate && start.conflict != Conflict::Unspecified {
        return Err(Rejection::Invalid(
            "the reuse policy TERMINATE_IF_RUNNING and a conflict policy exclude each other: give the conflict policy alone"
                .to_owned(),
        ));
    }
    if start.reuse == Reuse::RejectDuplicate && start.conflict == Conflict::TerminateExisting {
        return Err(Rejection::Invalid(
            "the conflict policy TERMINATE_EXISTING makes a duplicate, which the reuse policy REJECT_DUPLICATE excludes: change one of them"
                .to_owned(),
        ));
    }
    let Some(holder) = holder else {
        return Ok(Verdict::Start);
    };
    if holder.asked_before {
        return Ok(Verdict::Repeated);
    }
    let (workflow_id, run_id, request_id) = (
        start.workflow_id.clone(),
        holder.run_id.clone(),
        holder.create_request_id.clone(),
    );
    if matches!(
        holder.status,
        WireStatus::Running | WireStatus::Paused | WireStatus::Unspecified
    ) {
        return match start.conflict {
            _ if legacy_terminate => Ok(Verdict::TerminateExisting),
            Conflict::TerminateExisting => Ok(Verdict::TerminateExisting),
            Conflict::UseExisting => Ok(Verdict::UseExisting),
            // A start that brings a signal means whichever run there is.
            Conflict::Unspecified if start.signal.is_some() => Ok(Verdict::UseExisting),
            Conflict::Unspecified | Conflict::Fail => Err(Rejection::AlreadyStarted {
                workflow_id,
                run_id,
                request_id,
            }),
        };
    }
    let allowed = match start.reuse {
        Reuse::RejectDuplicate => false,
        Reuse::AllowDuplicateFailedOnly => holder.status != WireStatus::Completed,
        _ => true,
    };
    if allowed {
        Ok(Verdict::Start)
    } else {
        Err(Rejection::IdUsed {
            workflow_id,
            run_id,
            request_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(status: WireStatus) -> Holder {
        Holder {
            run_id: "r".to_owned(),
            create_request_id: "c".to_owned(),
            asked_before: false,
            status,
        }
    }

    fn ask(status: WireStatus, reuse: Reuse, conflict: Conflict) -> Result<Verdict, String> {
        let start = StartWorkflow {
            workflow_id: "w".to_owned(),
            reuse,
            conflict,
            ..StartWorkflow::default()
        };
        arbitrate(Some(&holder(status)), &start).map_err(|rejection| match rejection {
            Rejection::AlreadyStarted { .. } => "open".to_owned(),
            Rejection::IdUsed { .. } => "used".to_owned(),
            Rejection::Invalid(_) => "invalid".to_owned(),
            other => other.to_string(),
        })
    }

    #[test]
    fn an_open_run_meets_the_conflict_policy() {
        let open = |conflict| ask(WireStatus::Running, Reuse::Unspecified, conflict);
        assert_eq!(open(Conflict::Unspecified), Err("open".to_owned()));
        assert_eq!(open(Conflict::Fail), Err("open".to_owned()));
        assert_eq!(open(Conflict::UseExisting), Ok(Verdict::UseExisting));
        assert_eq!(
            open(Conflict::TerminateExisting),
            Ok(Verdict::TerminateExisting)
        );
    }

    #[test]
    fn a_closed_run_meets_the_reuse_policy() {
        let closed = |status, reuse| ask(status, reuse, Conflict::Unspecified);
        for status in [
            WireStatus::Completed,
            WireStatus::Failed,
            WireStatus::Terminated,
        ] {
            assert_eq!(closed(status, Reuse::AllowDuplicate), Ok(Verdict::Start));
            assert_eq!(
                closed(status, Reuse::RejectDuplicate),
                Err("used".to_owned())
            );
        }
        let failed_only = Reuse::AllowDuplicateFailedOnly;
        assert_eq!(
            closed(WireStatus::Completed, failed_only),
            Err("used".to_owned())
        );
        for status in [
            WireStatus::Failed,
            WireStatus::Canceled,
            WireStatus::Terminated,
            WireStatus::TimedOut,
        ] {
            assert_eq!(closed(status, failed_only), Ok(Verdict::Start));
        }
    }

    #[test]
    #[expect(deprecated, reason = "SDKs still send it")]
    fn the_legacy_policy_terminates_and_stands_alone() {
        let legacy = Reuse::TerminateIfRunning;
        assert_eq!(
            ask(WireStatus::Running, legacy, Conflict::Unspecified),
            Ok(Verdict::TerminateExisting)
        );
        assert_eq!(
            ask(WireStatus::Completed, legacy, Conflict::Unspecified),
            Ok(Verdict::Start)
        );
        assert_eq!(
            ask(WireStatus::Running, legacy, Conflict::Fail),
            Err("invalid".to_owned())
        );
    }

    #[test]
    fn a_repeat_finds_its_run_whatever_became_of_it() {
        let start = StartWorkflow {
            reuse: Reuse::RejectDuplicate,
            ..StartWorkflow::default()
        };
        for status in [WireStatus::Running, WireStatus::Completed] {
            let holder = Holder {
                asked_before: true,
                ..holder(status)
            };
            assert_eq!(arbitrate(Some(&holder), &start), Ok(Verdict::Repeated));
        }
    }
}
