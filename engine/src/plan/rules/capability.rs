//! `must offer …`, and the capabilities of a use case: some planned service offers it. Who offers what is found out beforehand and comes
//! in with the ruling, so that the check itself compares nothing but ids.

use super::{Counterexample, Subject};

/// Who offers a capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The capability, as it was written.
    pub capability: String,
    /// Ids of services.
    pub services: Vec<String>,
}

pub(super) fn broken_by(capability: &str, subject: &Subject<'_>) -> Option<Counterexample> {
    let mut offers = subject.ruling.offers.iter();
    let services = offers
        .find(|offer| offer.capability == capability)
        .map_or(&[][..], |offer| offer.services.as_slice());
    let planned = |id: &String| subject.plan.tasks.iter().any(|task| task.service == *id);
    if services.iter().any(planned) {
        return None;
    }
    let text = if services.is_empty() {
        "no registered service offers it".to_owned()
    } else {
        format!(
            "of the services that offer it, {}, none is planned",
            services.join(", ")
        )
    };
    Some(subject.counterexample(&[], text))
}
