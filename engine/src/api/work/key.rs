//! Idempotency keys: opaque to services, stable over all attempts of an activity, and enough to find it again without any memory.
//!
//! ```text
//!  o_4bT…22 digits.17.9f86d081884c      workflow id . scheduled event id . check
//!  k_9f86d081884c7d659a2feaa0c55ad015   a workflow id that does not fit: found by its connection's memory alone
//! ```
//!
//! Invariant: at most [`KEY_BYTES_MAX`] bytes; a key of one tenant or run never checks for another.

use orchestrion_history::ids::{Namespace, RunId, WorkflowId};

use crate::engine::handle::Dispatch;
use crate::orchestration::IDEMPOTENCY_HEADER;
use crate::orchestration::revert::key_text;
use crate::registry::ids::{digest, hex};

/// No key is longer.
pub const KEY_BYTES_MAX: usize = 64;
const CHECK_BYTES: usize = 6;
const OPAQUE_BYTES: usize = 16;
const OPAQUE_PREFIX: &str = "k_";

/// The parts of a key that says where its activity is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivityKey {
    /// The execution.
    pub workflow_id: WorkflowId,
    /// The event that scheduled the activity.
    pub scheduled_event_id: i64,
    check: String,
}

/// The key of an activity.
pub fn of(
    namespace: &Namespace,
    workflow_id: &WorkflowId,
    run_id: RunId,
    scheduled_event_id: i64,
) -> String {
    let whole = fingerprint(namespace, workflow_id, run_id, scheduled_event_id);
    let key = format!(
        "{workflow_id}.{scheduled_event_id}.{}",
        hex(&whole[..CHECK_BYTES])
    );
    if key.len() <= KEY_BYTES_MAX {
        key
    } else {
        format!("{OPAQUE_PREFIX}{}", hex(&whole[..OPAQUE_BYTES]))
    }
}

/// The key that a service is given with an attempt.
pub fn of_dispatch(dispatch: &Dispatch, revert: bool) -> String {
    // A revert that is run again may have been done the first time: its service knows by the key.
    let known_by = dispatch
        .header
        .as_ref()
        .and_then(|header| header.fields.get(IDEMPOTENCY_HEADER))
        .filter(|_| revert)
        .map(key_text)
        .filter(|key| !key.is_empty());
    known_by.unwrap_or_else(|| {
        of(
            &dispatch.namespace,
            &dispatch.workflow_id,
            dispatch.run_id,
            dispatch.scheduled_event_id,
        )
    })
}

impl ActivityKey {
    /// Reads a key; `None` for one that says nothing of its activity.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > KEY_BYTES_MAX {
            return None;
        }
        let mut parts = text.rsplitn(3, '.');
        let (check, event, workflow) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self {
            workflow_id: WorkflowId::parse(workflow).ok()?,
            scheduled_event_id: event.parse().ok()?,
            check: check.to_owned(),
        })
    }

    /// Whether it is the key of this tenant's run.
    pub fn is_of(&self, namespace: &Namespace, run_id: RunId) -> bool {
        let whole = fingerprint(
            namespace,
            &self.workflow_id,
            run_id,
            self.scheduled_event_id,
        );
        self.check == hex(&whole[..CHECK_BYTES])
    }
}

fn fingerprint(
    namespace: &Namespace,
    workflow_id: &WorkflowId,
    run_id: RunId,
    event: i64,
) -> [u8; 32] {
    let parts: [&[u8]; 4] = [
        namespace.as_str().as_bytes(),
        workflow_id.as_str().as_bytes(),
        &run_id.0,
        &event.to_be_bytes(),
    ];
    digest("activity key", &parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(text: &str) -> Namespace {
        Namespace::parse(text).unwrap()
    }

    #[test]
    fn a_key_leads_back_to_its_activity() {
        let (tenant, run) = (namespace("p_1"), RunId([3; 16]));
        let workflow = WorkflowId::parse(format!("o_{}", "x".repeat(22))).unwrap();
        let text = of(&tenant, &workflow, run, i64::MAX);
        assert!(text.len() <= KEY_BYTES_MAX, "{text}");
        let key = ActivityKey::parse(&text).unwrap();
        assert_eq!(
            (&key.workflow_id, key.scheduled_event_id),
            (&workflow, i64::MAX)
        );
        assert!(key.is_of(&tenant, run));
        assert!(!key.is_of(&namespace("p_2"), run));
        assert!(!key.is_of(&tenant, RunId([4; 16])));
    }

    #[test]
    fn a_workflow_id_with_points_is_read_whole_and_a_long_one_is_hidden() {
        let (tenant, run) = (namespace("p_1"), RunId([3; 16]));
        let workflow = WorkflowId::parse("a.b.7.c").unwrap();
        let key = ActivityKey::parse(&of(&tenant, &workflow, run, 5)).unwrap();
        assert_eq!(key.workflow_id, workflow);
        let long = of(
            &tenant,
            &WorkflowId::parse("y".repeat(300)).unwrap(),
            run,
            5,
        );
        assert_eq!(long.len(), 34);
        assert_eq!(ActivityKey::parse(&long), None);
    }

    #[test]
    fn what_is_no_key_is_none() {
        for text in ["", "a", "a.b", "a.b.c", ".1.abc", "o_1..abc"] {
            assert_eq!(ActivityKey::parse(text), None, "{text}");
        }
    }
}
