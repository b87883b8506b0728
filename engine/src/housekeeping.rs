//! What is written down or removed now and then, beside everything else: the last uses of keys, and records past their retention.
//!
//! | record                           | leaves                                          |
//! |----------------------------------|-------------------------------------------------|
//! | administrative acts              | after `retention.acts`                          |
//! | tries of deliveries              | after `retention.deliveries`                    |
//! | compensations resolved, ignored  | after `retention.compensation_records`          |
//!
//! Invariant: nothing leaves that somebody still has to decide on.

use std::sync::Arc;
use std::time::Duration;

use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{Key, KeyRange, Op, RegistryKind, Store, StoreError};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::{AdministrativeAct, CompensationFailure, DeliveryTry};
use tokio::sync::watch;

use crate::config::RetentionSettings;
use crate::engine::handle::Handle;
use crate::registry::Registrar;
use crate::seams::{self, Clock};

/// Records looked at, and removed, at once.
const PAGE: usize = 256;

/// Keeps house until the stop, and notes the last uses once more then.
pub async fn run(
    registrar: Registrar,
    handle: Handle,
    clock: Arc<dyn Clock>,
    settings: RetentionSettings,
    mut stop: watch::Receiver<bool>,
) {
    let mut sweep_at = clock.now().plus(settings.sweep_interval);
    loop {
        let wait = settings.key_use_interval.min(settings.sweep_interval);
        let stopped = tokio::select! {
            () = seams::sleep(wait) => false,
            _ = stop.wait_for(|stopped| *stopped) => true,
        };
        if stopped {
            return note_uses(&registrar, Duration::ZERO).await;
        }
        note_uses(&registrar, settings.key_use_interval).await;
        let now = clock.now();
        if sweep_at <= now {
            sweep(&registrar, &handle, &settings, now).await;
            sweep_at = now.plus(settings.sweep_interval);
        }
    }
}

async fn note_uses(registrar: &Registrar, interval: Duration) {
    if let Err(error) = registrar.note_key_uses(interval).await {
        tracing::warn!(%error, "the last uses of keys could not be noted");
    }
}

/// Removes what is past its retention, of the server's own records and of every project's.
pub async fn sweep(
    registrar: &Registrar,
    handle: &Handle,
    settings: &RetentionSettings,
    now: Timestamp,
) {
    let projects = registrar.registry().projects();
    let namespaces = projects
        .iter()
        .filter_map(|project| Namespace::parse(&project.id).ok())
        .chain([Namespace::system()]);
    let mut removed = 0;
    for namespace in namespaces {
        for (range, is_old) in rules(&namespace, settings, now) {
            match sweep_range(handle, range, &*is_old).await {
                Ok(count) => removed += count,
                Err(error) => {
                    tracing::warn!(%error, "records past their retention could not be removed: the next sweep tries again");
                    return;
                }
            }
        }
    }
    if removed > 0 {
        tracing::info!(removed, "records left after their retention");
    }
}

type IsOld = Box<dyn Fn(&[u8]) -> bool + Send + Sync>;

fn rules(
    namespace: &Namespace,
    settings: &RetentionSettings,
    now: Timestamp,
) -> [(KeyRange, IsOld); 3] {
    let before = |kept: Duration| {
        let kept = i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX);
        now.0.saturating_sub(kept)
    };
    let (acts, deliveries) = (before(settings.acts), before(settings.deliveries));
    let records = before(settings.compensation_records);
    let of = |kind| KeyRange::registry_kind(ShardId::REGISTRY, namespace, kind);
    [
        (
            of(RegistryKind::Act),
            Box::new(move |value| AdministrativeAct::decode(value).is_ok_and(|act| act.at < acts)),
        ),
        (
            of(RegistryKind::Delivery),
            Box::new(move |value| {
                DeliveryTry::decode(value).is_ok_and(|tried| tried.at < deliveries)
            }),
        ),
        (
            KeyRange::compensations(ShardId::REGISTRY, namespace),
            Box::new(move |value| {
                CompensationFailure::decode(value).is_ok_and(|record| {
                    let decided =
                        matches!(record.resolution_state.as_str(), "resolved" | "ignored");
                    decided && record.resolved_at < records
                })
            }),
        ),
    ]
}

async fn sweep_range(
    handle: &Handle,
    mut range: KeyRange,
    is_old: &(dyn Fn(&[u8]) -> bool + Send + Sync),
) -> Result<usize, crate::engine::handle::CallError> {
    let mut removed = 0;
    loop {
        let (old, rest) = page(&**handle.store(), &range, is_old)?;
        removed += old.len();
        if !old.is_empty() {
            handle
                .put(old.into_iter().map(Op::Delete).collect())
                .await?;
        }
        match rest {
            Some(rest) => range = rest,
            None => return Ok(removed),
        }
    }
}

/// The old keys of a page, and the rest of the range.
fn page(
    store: &dyn Store,
    range: &KeyRange,
    is_old: &(dyn Fn(&[u8]) -> bool + Send + Sync),
) -> Result<(Vec<Key>, Option<KeyRange>), StoreError> {
    let page = store.scan(range, PAGE, false)?;
    let last = page.entries.last().map(|(key, _)| key.clone());
    let old = page
        .entries
        .into_iter()
        .filter(|(_, value)| is_old(value))
        .map(|(key, _)| key)
        .collect();
    Ok((
        old,
        last.filter(|_| page.more).map(|last| range.after(&last)),
    ))
}

#[cfg(test)]
mod tests {
    use orchestrion_history::store::MemoryStore;

    use super::*;
    use crate::acts::{self, Act, Actor, What};
    use crate::config::Settings;
    use crate::engine::{Engine, EngineOptions, NoSurroundings};
    use crate::registry::{NewProject, Registry};
    use crate::seams::{ManualClock, SystemChance};

    #[tokio::test]
    async fn what_is_decided_and_old_leaves_and_what_is_open_stays() {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let clock = ManualClock::at(Timestamp::from_millis(1_000));
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let engine = Engine::start(
            store.clone(),
            shared.clone(),
            Box::new(SystemChance),
            Box::new(NoSurroundings),
            EngineOptions::default(),
        )
        .unwrap();
        let handle = engine.handle();
        let registry = Registry::load(&*store).unwrap();
        let registrar = Registrar::new(
            registry,
            handle.clone(),
            Arc::new(SystemChance),
            shared.clone(),
        );
        let created = registrar
            .create_project(NewProject::default(), &Actor::ENGINE)
            .await
            .unwrap();
        let namespace = Namespace::parse(&created.project.id).unwrap();
        let record = |id: &str, state: &str| {
            let key = Key::Compensation {
                shard: ShardId::REGISTRY,
                namespace: namespace.clone(),
                id: id.to_owned(),
            };
            let record = CompensationFailure {
                id: id.to_owned(),
                resolution_state: state.to_owned(),
                resolved_at: clock.now().0,
                ..Default::default()
            };
            Op::Put(key, record.encode_to_vec().into())
        };
        handle
            .put(vec![
                record("c_1", "pending"),
                record("c_2", "resolved"),
                record("c_3", "ignored"),
            ])
            .await
            .unwrap();
        let settings = Settings::default().retention;
        let left = async || {
            sweep(&registrar, &handle, &settings, clock.now()).await;
            let range = KeyRange::compensations(ShardId::REGISTRY, &namespace);
            let records = store.scan(&range, 10, false).unwrap().entries.len();
            let always = (Timestamp::ZERO, Timestamp(i64::MAX));
            let page = acts::read(&*store, &namespace, always, None, 10).unwrap();
            (records, page.acts.len())
        };
        assert_eq!(left().await, (3, 2));
        clock.advance(settings.compensation_records + Duration::from_secs(1));
        assert_eq!(left().await, (1, 2), "what is pending stays");
        clock.advance(settings.acts);
        let op = registrar.acts().record(
            &namespace,
            &Actor::ENGINE,
            Act::new(What::ServiceDeleted, "s_1"),
        );
        handle.put(vec![op]).await.unwrap();
        assert_eq!(left().await, (1, 1), "the new act stays");
    }
}
