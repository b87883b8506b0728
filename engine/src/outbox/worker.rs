//! The delivery loop.
//!
//! Invariant: a try's outcome is committed before the entry is tried again or forgotten.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use orchestrion_history::ids::{ShardId, Timestamp};
use orchestrion_history::store::{Key, KeyRange, Op, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::outbox_entry::{Kind, Outcome};
use orchestrion_proto::v1::{DeliveryTry, OutboxEntry, WebhookDelivery};
use tokio::sync::watch;

use super::Committed;
use super::deliver::{Answer, Receivers, Sender, host_of};
use super::log::DeliveryLog;
use super::schedule::{SCHEDULED_MAX, Schedule};
use crate::config::OutboxSettings;
use crate::engine::handle::{CallError, Handle};
use crate::registry::Registry;
use crate::seams::{self, Chance, Clock};

/// Entries read at once; their bodies may be large.
const PAGE: usize = 32;
/// Between two tries to commit an outcome, and to read the store again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// A wait is lengthened or shortened by up to this part of it.
const JITTER: f64 = 0.2;

/// Delivers what the outbox holds.
#[derive(Clone)]
pub struct Worker {
    handle: Handle,
    registry: Registry,
    sender: Sender,
    log: Arc<DeliveryLog>,
    settings: OutboxSettings,
    /// How long settled entries are kept.
    retention: Duration,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Chance>,
}

/// A try that ended.
struct Tried {
    key: Key,
    host: String,
    again: Option<Timestamp>,
}

impl Worker {
    /// A worker over an engine's outbox.
    pub fn new(
        handle: Handle,
        registry: Registry,
        settings: OutboxSettings,
        retention: Duration,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Chance>,
    ) -> Result<Self, reqwest::Error> {
        let sender = Sender::new(&settings)?;
        Ok(Self {
            handle,
            registry,
            sender,
            log: Arc::default(),
            settings,
            retention,
            clock,
            ids,
        })
    }

    /// A worker whose deliveries go to receivers that a simulator plays.
    pub fn played(
        handle: Handle,
        registry: Registry,
        receivers: Arc<dyn Receivers>,
        settings: OutboxSettings,
        retention: Duration,
        (clock, ids): (Arc<dyn Clock>, Arc<dyn Chance>),
    ) -> Self {
        Self {
            handle,
            registry,
            sender: Sender::Played(receivers),
            log: Arc::default(),
            settings,
            retention,
            clock,
            ids,
        }
    }

    /// Delivers until the stop, then finishes the tries that are under way.
    pub async fn run(self, mut committed: Committed, mut stop: watch::Receiver<bool>) {
        let bounds = (
            self.settings.in_flight_per_host as usize,
            self.settings.in_flight as usize,
        );
        let mut schedule = Schedule::new(bounds.0, bounds.1, SCHEDULED_MAX);
        let mut under_way = FuturesUnordered::new();
        let mut read_store_at = Some(Timestamp::ZERO);
        let mut sweep_at = self.clock.now().plus(self.settings.sweep_interval);
        loop {
            let now = self.clock.now();
            if schedule.wants_more() || read_store_at.is_some_and(|at| at <= now) {
                read_store_at = self.load(&mut schedule).err().map(|error| {
                    tracing::error!(%error, "the outbox cannot be read: trying again");
                    now.plus(AGAIN_AFTER)
                });
            }
            if sweep_at <= now {
                self.sweep(now).await;
                sweep_at = self.clock.now().plus(self.settings.sweep_interval);
            }
            while let Some((key, host)) = schedule.take(now) {
                under_way.push(self.attempt(key, host));
            }
            let next = [schedule.next_due(), read_store_at, Some(sweep_at)]
                .into_iter()
                .flatten()
                .min();
            let wait = next.map_or(self.settings.sweep_interval, |at| at.since(now));
            tokio::select! {
                biased; // The same things happen in the same order.
                stopped = stop.changed() => if stopped.is_err() || *stop.borrow() { break },
                Some(tried) = under_way.next(), if !under_way.is_empty() => {
                    schedule.finished(tried.key, tried.host, tried.again);
                }
                keys = committed.recv() => match keys {
                    Some(keys) => for key in keys {
                        if self.add(&mut schedule, key).is_err() {
                            // It is in the store: it comes with the next reading.
                            read_store_at = Some(self.clock.now().plus(AGAIN_AFTER));
                        }
                    },
                    None => break,
                },
                () = seams::sleep(wait) => {}
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// Adds every pending entry of the store.
    fn load(&self, schedule: &mut Schedule) -> Result<(), StoreError> {
        self.each_entry(|key, entry| {
            if let Some(delivery) = pending(&entry) {
                schedule.add(
                    key,
                    host_of(&delivery.url),
                    Timestamp(entry.next_attempt_at),
                );
            }
        })
    }

    fn each_entry(&self, mut visit: impl FnMut(Key, OutboxEntry)) -> Result<(), StoreError> {
        let mut range = KeyRange::outbox(ShardId::REGISTRY);
        loop {
            let page = self.handle.store().scan(&range, PAGE, false)?;
            let last = page.entries.last().map(|(key, _)| key.clone());
            for (key, value) in page.entries {
                match OutboxEntry::decode(value) {
                    Ok(entry) => visit(key, entry),
                    Err(error) => {
                        tracing::error!(%key, %error, "an outbox entry does not decode: it is left as it is")
                    }
                }
            }
            match last {
                Some(last) if page.more => range = range.after(&last),
                _ => return Ok(()),
            }
        }
    }

    fn add(&self, schedule: &mut Schedule, key: Key) -> Result<(), StoreError> {
        if let Some(entry) = self.read(&key)?
            && let Some(delivery) = pending(&entry)
        {
            schedule.add(
                key,
                host_of(&delivery.url),
                Timestamp(entry.next_attempt_at),
            );
        }
        Ok(())
    }

    fn read(&self, key: &Key) -> Result<Option<OutboxEntry>, StoreError> {
        let value = self
            .handle
            .store()
            .get(key)
            .inspect_err(|error| tracing::error!(%error, "the outbox cannot be read"))?;
        Ok(value.and_then(|value| OutboxEntry::decode(value).ok()))
    }

    async fn attempt(&self, key: Key, host: String) -> Tried {
        let mut entry = match self.read(&key) {
            Ok(Some(entry)) => entry,
            Ok(None) => {
                return Tried {
                    key,
                    host,
                    again: None,
                };
            }
            Err(_) => {
                let again = Some(self.clock.now().plus(AGAIN_AFTER));
                return Tried { key, host, again };
            }
        };
        let Some(delivery) = pending(&entry).cloned() else {
            return Tried {
                key,
                host,
                again: None,
            };
        };
        let began = self.clock.now();
        let answer = self.post(&key, &entry.event_id, &delivery).await;
        let now = self.clock.now();
        // Who took the webhook away does not want to be told any more.
        let wanted = answer.is_some();
        let answer = answer
            .unwrap_or_else(|| Answer::none("the webhook is not registered any more".to_owned()));
        let tried = DeliveryTry {
            webhook_id: delivery.webhook_id.clone(),
            event_id: entry.event_id.clone(),
            event_type: delivery.event_type.clone(),
            at: began.0,
            attempt: entry.attempts + 1,
            duration_ns: now.0.saturating_sub(began.0),
            status: answer.status.into(),
            error: answer.error.clone().unwrap_or_default(),
            sequence: 0,
        };
        let again = self.note(&mut entry, answer.error.map_or(Ok(()), Err), wanted, now);
        self.commit(&key, &entry, tried).await;
        Tried { key, host, again }
    }

    /// `None` when there is nobody to be told any more.
    async fn post(&self, key: &Key, event_id: &str, delivery: &WebhookDelivery) -> Option<Answer> {
        let Key::Outbox { namespace, .. } = key else {
            return Some(Answer::none("not an outbox entry".to_owned()));
        };
        let webhook = self.registry.webhook(namespace, &delivery.webhook_id)?;
        let now = self.clock.now();
        let seconds = now.as_millis().div_euclid(1_000);
        let answer = self
            .sender
            .post(delivery, event_id, webhook.secrets_at(now), seconds)
            .await;
        Some(answer)
    }

    /// Writes a try's outcome into its entry. Answers when the next try is due, if there is to be one.
    fn note(
        &self,
        entry: &mut OutboxEntry,
        result: Result<(), String>,
        wanted: bool,
        now: Timestamp,
    ) -> Option<Timestamp> {
        entry.attempts += 1;
        let delivery_of = |entry: &OutboxEntry| match &entry.kind {
            Some(Kind::Webhook(delivery)) => delivery.webhook_id.clone(),
            None => String::new(),
        };
        match result {
            Ok(()) => {
                entry.set_outcome(Outcome::Delivered);
                entry.settled_at = now.0;
                entry.last_error.clear();
                // Nobody needs it any more, and it may be large.
                if let Some(Kind::Webhook(delivery)) = &mut entry.kind {
                    delivery.body_json.clear();
                }
                metrics::counter!("orchestrion_deliveries_total", "outcome" => "delivered")
                    .increment(1);
                None
            }
            Err(error) => {
                let due = now.plus(self.wait_after(entry.attempts));
                let over =
                    !wanted || due.since(Timestamp(entry.created_at)) > self.settings.give_up_after;
                let webhook = delivery_of(entry);
                if over {
                    tracing::error!(event = %entry.event_id, %webhook, attempts = entry.attempts, %error, "a delivery is given up");
                    entry.set_outcome(Outcome::GivenUp);
                    entry.settled_at = now.0;
                } else {
                    tracing::warn!(event = %entry.event_id, %webhook, attempt = entry.attempts, %error, "a delivery failed: it is tried again");
                    entry.next_attempt_at = due.0;
                }
                let outcome = if over { "given up" } else { "failed" };
                metrics::counter!("orchestrion_deliveries_total", "outcome" => outcome)
                    .increment(1);
                entry.last_error = error;
                (!over).then_some(due)
            }
        }
    }

    fn wait_after(&self, attempts: i32) -> Duration {
        let mut random = [0u8; 8];
        self.ids.fill(&mut random);
        // In [-1, 1].
        let swing = u64::from_le_bytes(random) as f64 / u64::MAX as f64 * 2.0 - 1.0;
        backoff(&self.settings, attempts).mul_f64(1.0 + JITTER * swing)
    }

    /// Commits an entry, however long the engine takes to accept it; only its stop ends the tries.
    async fn commit(&self, key: &Key, entry: &OutboxEntry, tried: DeliveryTry) {
        let mut ops = vec![Op::Put(key.clone(), Bytes::from(entry.encode_to_vec()))];
        if let Key::Outbox { namespace, .. } = key {
            match self.log.note(&**self.handle.store(), namespace, tried) {
                Ok(op) => ops.push(op),
                Err(error) => {
                    tracing::error!(%error, "a try is not in the log of its webhook")
                }
            }
        }
        loop {
            match self.handle.put(ops.clone()).await {
                Ok(()) | Err(CallError::ShuttingDown) => return,
                Err(error) => {
                    tracing::warn!(%key, %error, "the outcome of a delivery could not be committed: trying again");
                    seams::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Removes entries that were settled long ago.
    async fn sweep(&self, now: Timestamp) {
        let mut old = Vec::new();
        let found = self.each_entry(|key, entry| {
            let settled = entry.outcome() != Outcome::Pending;
            if settled && now.since(Timestamp(entry.settled_at)) > self.retention {
                old.push(Op::Delete(key));
            }
        });
        if let Err(error) = found {
            tracing::error!(%error, "the outbox cannot be swept");
        }
        let removed = old.len();
        while !old.is_empty() {
            let rest = old.split_off(old.len().min(PAGE));
            if let Err(error) = self.handle.put(std::mem::replace(&mut old, rest)).await {
                tracing::warn!(%error, "settled deliveries could not be removed: the next sweep tries again");
                return;
            }
        }
        if removed > 0 {
            tracing::debug!(removed, "settled deliveries removed");
        }
    }
}

fn pending(entry: &OutboxEntry) -> Option<&WebhookDelivery> {
    match &entry.kind {
        Some(Kind::Webhook(delivery)) if entry.outcome() == Outcome::Pending => Some(delivery),
        _ => None,
    }
}

/// The wait after the `attempts`th try, without jitter.
fn backoff(settings: &OutboxSettings, attempts: i32) -> Duration {
    let factor = settings
        .backoff_factor
        .powi(attempts.saturating_sub(1).clamp(0, 1_000));
    let wait = settings.backoff_initial.as_secs_f64() * factor;
    // Also when the product is not finite.
    if wait < settings.backoff_max.as_secs_f64() {
        Duration::from_secs_f64(wait)
    } else {
        settings.backoff_max
    }
}
