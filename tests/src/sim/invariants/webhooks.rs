//! Every webhook is delivered at least once, under one id and with one body, and nothing is delivered that no commit holds.

use std::collections::{BTreeMap, BTreeSet};

use orchestrion::orchestration::{PLAN_ACTIVITY_ID, WORKFLOW_TYPE};
use orchestrion_history::record::Record;
use orchestrion_history::state::Status;
use orchestrion_history::store::Key;
use orchestrion_proto::prost::Message as _;
use orchestrion_proto::temporal::api::history::v1::history_event::Attributes as A;
use orchestrion_proto::v1::OutboxEntry;
use orchestrion_proto::v1::outbox_entry::{Kind, Outcome};

use super::{Check, Invariant, View};

#[derive(Default)]
pub(super) struct Webhooks {
    /// What is to be delivered: by event id, the URLs.
    wanted: BTreeMap<String, BTreeSet<String>>,
    /// How each entry stands.
    entries: BTreeMap<Key2, Outcome>,
    arrived: BTreeMap<(String, String), String>,
    /// Everything comes again: an entry may begin as it stands.
    anew: bool,
}

type Key2 = (String, String);

impl Invariant for Webhooks {
    fn name(&self) -> &'static str {
        "webhooks"
    }

    fn after_step(&mut self, view: &View<'_>) -> Check {
        for (key, value) in &view.news.outbox {
            let Key::Outbox {
                namespace,
                event_id,
                ..
            } = key
            else {
                continue;
            };
            let place = (namespace.to_string(), event_id.clone());
            let Some(value) = value else {
                return Err(format!("{event_id} was removed before its time"));
            };
            let entry = OutboxEntry::decode(&value[..]).map_err(|e| e.to_string())?;
            let outcome = entry.outcome();
            let Some(Kind::Webhook(delivery)) = entry.kind else {
                return Err(format!("{event_id} goes nowhere"));
            };
            let before = self.entries.insert(place, outcome);
            match (before, outcome) {
                (None, Outcome::Pending) => {}
                (None, _) if self.anew => {}
                (None, _) => return Err(format!("{event_id} begins as {outcome:?}")),
                (Some(Outcome::Pending), _) => {}
                (Some(settled), _) => {
                    return Err(format!("{event_id} was {settled:?} and is {outcome:?}"));
                }
            }
            let urls = self.wanted.entry(entry.event_id.clone()).or_default();
            if before.is_none() && !urls.insert(delivery.url.clone()) {
                return Err(format!(
                    "{} is told of {} twice",
                    delivery.url, entry.event_id
                ));
            }
        }
        self.anew = false;
        for (url, event_id, body) in view.arrived {
            let wanted = self.wanted.get(event_id);
            if wanted.is_none_or(|urls| !urls.contains(url)) {
                return Err(format!(
                    "{event_id} arrived at {url}, and nothing of it is kept"
                ));
            }
            let before = self
                .arrived
                .insert((url.clone(), event_id.clone()), body.clone());
            if before.is_some_and(|before| before != *body) {
                return Err(format!("{event_id} arrived with two bodies"));
            }
        }
        Ok(())
    }

    fn at_the_end(&mut self, view: &View<'_>) -> Check {
        for ((_, event_id), outcome) in &self.entries {
            if *outcome == Outcome::Pending {
                return Err(format!("{event_id} is still to be delivered"));
            }
        }
        for (event_id, urls) in &self.wanted {
            let missing = urls.iter().find(|url| {
                !self
                    .arrived
                    .contains_key(&((*url).clone(), event_id.clone()))
            });
            if let Some(url) = missing {
                return Err(format!("{event_id} never arrived at {url}"));
            }
        }
        for shadow in view.observer.runs.values() {
            let state = &shadow.state;
            let tells = state.workflow_type == WORKFLOW_TYPE
                && !matches!(state.status, Status::Terminated | Status::Running)
                && !shadow.damaged
                && !was_never_planned(&shadow.records);
            let told = format!("{}-", state.workflow_id);
            let count = self
                .wanted
                .keys()
                .filter(|id| id.starts_with(&told))
                .count();
            if tells && count != 1 {
                return Err(format!(
                    "{} ended as {:?}, and {count} webhooks tell of it",
                    state.workflow_id, state.status
                ));
            }
        }
        Ok(())
    }

    fn begin_again(&mut self) {
        self.wanted.clear();
        self.entries.clear();
        self.anew = true;
    }
}

/// A planning that failed is told to the caller who waits for it, and to nobody else.
fn was_never_planned(records: &[Record]) -> bool {
    let planning = records.iter().filter_map(Record::event).find(|event| {
        matches!(&event.attributes, Some(A::ActivityTaskScheduledEventAttributes(a))
            if a.activity_id == PLAN_ACTIVITY_ID)
    });
    let Some(planning) = planning.map(|event| event.event_id) else {
        return false;
    };
    !records.iter().filter_map(Record::event).any(|event| {
        matches!(&event.attributes, Some(A::ActivityTaskCompletedEventAttributes(a))
            if a.scheduled_event_id == planning)
    })
}
