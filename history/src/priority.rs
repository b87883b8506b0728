//! Priorities, as they are inherited: what an activity or a child leaves open it has from the workflow that asks for it.
//!
//! Tasks are handed out in the order of their queue whatever their priority: it is kept, shown and passed on.

use orchestrion_proto::temporal::api::common::v1::Priority;

/// The inner one, with the fields of the outer one where it has none.
pub fn inherited(outer: Option<Priority>, inner: Option<Priority>) -> Option<Priority> {
    let (Some(outer), Some(inner)) = (&outer, &inner) else {
        return inner.or(outer);
    };
    let key = [inner, outer]
        .into_iter()
        .find(|of| !of.fairness_key.is_empty());
    Some(Priority {
        priority_key: match inner.priority_key {
            0 => outer.priority_key,
            given => given,
        },
        fairness_key: key.map(|of| of.fairness_key.clone()).unwrap_or_default(),
        fairness_weight: if inner.fairness_weight == 0.0 {
            outer.fairness_weight
        } else {
            inner.fairness_weight
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority(priority_key: i32, fairness_key: &str, fairness_weight: f32) -> Option<Priority> {
        Some(Priority {
            priority_key,
            fairness_key: fairness_key.to_owned(),
            fairness_weight,
        })
    }

    #[test]
    fn what_is_not_said_is_inherited_field_by_field() {
        let outer = priority(1, "tenant", 4.2);
        assert_eq!(inherited(outer.clone(), None), outer);
        assert_eq!(inherited(None, outer.clone()), outer);
        assert_eq!(inherited(None, None), None);
        assert_eq!(
            inherited(outer.clone(), priority(5, "", 0.0)),
            priority(5, "tenant", 4.2)
        );
        assert_eq!(
            inherited(outer, priority(0, "other", 1.5)),
            priority(1, "other", 1.5)
        );
    }
}
