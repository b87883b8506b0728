//! Deliveries to a real receiver, over a real engine on the memory store.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use orchestrion_history::store::{MemoryStore, Op, Store};
use orchestrion_proto::v1::CompensationFailure;
use orchestrion_proto::v1::outbox_entry::{Kind, Outcome};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::config::{OutboxSettings, Settings};
use crate::engine::handle::Handle;
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::registry::ids::tests::CountingIds;
use crate::registry::{NewProject, Registrar, WebhookUrl};
use crate::seams::{self, Clock, SystemChance, SystemClock};

const WAIT: Duration = Duration::from_millis(10);
const PATIENCE: u32 = 1_000;

type Tries = Arc<Mutex<Vec<(HeaderMap, String)>>>;

struct Stage {
    handle: Handle,
    registry: Registry,
    namespace: Namespace,
    clock: Arc<dyn Clock>,
    tries: Tries,
    _engine: Engine,
}

impl Stage {
    /// A project with one webhook, whose receiver fails so often before it accepts.
    async fn set(failures: usize) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let registry = Registry::load(&*store).unwrap();
        let options = EngineOptions::default();
        let engine = Engine::start(
            store,
            clock.clone(),
            Box::new(SystemChance),
            Box::new(NoSurroundings),
            options,
        )
        .unwrap();
        let handle = engine.handle();
        let tries = Tries::default();
        let url = receiver(tries.clone(), failures).await;
        let ids = Arc::new(CountingIds::default());
        let registrar = Registrar::new(registry.clone(), handle.clone(), ids, clock.clone());
        let new = NewProject {
            compensation_failure_webhooks: vec![WebhookUrl::parse(&url).unwrap()],
            ..NewProject::default()
        };
        let created = registrar
            .create_project(new, &crate::acts::Actor::ENGINE)
            .await
            .unwrap();
        let namespace = Namespace::parse(&created.project.id).unwrap();
        Self {
            handle,
            registry,
            namespace,
            clock,
            tries,
            _engine: engine,
        }
    }

    /// Commits what the webhook is to be told; the key of the entry.
    async fn commit(&self) -> Key {
        let record = CompensationFailure {
            id: "c_1".into(),
            orchestration_id: "o_1".into(),
            status: "failed".into(),
            at: self.clock.now().0,
            ..Default::default()
        };
        let entries = entries_for(
            &self.registry,
            &self.namespace,
            &Effect::CompensationFailed(record),
        );
        let [(key, entry)] = &entries[..] else {
            panic!("one webhook, one entry: {entries:?}")
        };
        self.handle
            .put(vec![Op::Put(key.clone(), entry.encode_to_vec().into())])
            .await
            .unwrap();
        key.clone()
    }

    fn work(
        &self,
        settings: OutboxSettings,
        stop: watch::Receiver<bool>,
    ) -> (Notifier, tokio::task::JoinHandle<()>) {
        let (notifier, committed) = Notifier::new();
        let worker = Worker::new(
            self.handle.clone(),
            self.registry.clone(),
            settings,
            Duration::from_secs(1),
            self.clock.clone(),
            Arc::new(CountingIds::default()),
        );
        (notifier, seams::spawn(worker.unwrap().run(committed, stop)))
    }

    fn entry(&self, key: &Key) -> Option<OutboxEntry> {
        self.handle
            .store()
            .get(key)
            .unwrap()
            .map(|value| OutboxEntry::decode(value).unwrap())
    }

    async fn settled(&self, key: &Key) -> OutboxEntry {
        for _ in 0..PATIENCE {
            if let Some(entry) = self
                .entry(key)
                .filter(|entry| entry.outcome() != Outcome::Pending)
            {
                return entry;
            }
            seams::sleep(WAIT).await;
        }
        panic!("the entry is not settled: {:?}", self.entry(key));
    }
}

async fn receiver(tries: Tries, failures: usize) -> String {
    let hook = move |headers: HeaderMap, body: String| {
        let mut tries = tries.lock().unwrap();
        tries.push((headers, body));
        let status = if tries.len() <= failures {
            StatusCode::SERVICE_UNAVAILABLE
        } else {
            StatusCode::OK
        };
        std::future::ready(status)
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    seams::spawn(
        async move { axum::serve(listener, Router::new().route("/hook", post(hook))).await },
    );
    url
}

fn quick() -> OutboxSettings {
    let wait = Duration::from_millis(20);
    OutboxSettings {
        backoff_initial: wait,
        backoff_max: wait,
        ..Settings::default().outbox
    }
}

#[tokio::test]
async fn a_delivery_is_tried_until_it_is_taken_under_one_id_and_signed() {
    let stage = Stage::set(2).await;
    let (_stop, stopped) = watch::channel(false);
    let (notifier, _) = stage.work(quick(), stopped);
    let key = stage.commit().await;
    notifier.committed(vec![key.clone()]);

    let entry = stage.settled(&key).await;

    assert_eq!((entry.outcome(), entry.attempts), (Outcome::Delivered, 3));
    assert_eq!(entry.last_error, "");
    let Some(Kind::Webhook(delivery)) = &entry.kind else {
        panic!("a webhook's entry")
    };
    assert_eq!(
        delivery.body_json, "",
        "what nobody needs any more is not kept"
    );
    let webhook = stage
        .registry
        .webhooks(&stage.namespace, Topic::CompensationFailure)
        .remove(0);
    let tries = stage.tries.lock().unwrap();
    assert_eq!(tries.len(), 3);
    for (headers, body) in tries.iter() {
        let header = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), "application/json");
        assert_eq!(header("user-agent"), "orra/1.0");
        assert_eq!(header("x-orra-event"), "compensation.failed");
        assert_eq!(header("webhook-id"), entry.event_id);
        let timestamp = header("webhook-timestamp").parse().unwrap();
        assert_eq!(
            header("webhook-signature"),
            signature(&webhook.secret, &entry.event_id, timestamp, body)
        );
        let body: Value = serde_json::from_str(body).unwrap();
        assert_eq!(
            (&body["event_id"], &body["compensation_id"]),
            (&entry.event_id.as_str().into(), &"c_1".into())
        );
    }
}

#[tokio::test]
async fn what_was_pending_at_the_start_is_delivered() {
    let stage = Stage::set(0).await;
    let key = stage.commit().await;
    let (stop, stopped) = watch::channel(false);
    let (_notifier, worker) = stage.work(quick(), stopped);
    assert_eq!(stage.settled(&key).await.outcome(), Outcome::Delivered);
    stop.send(true).unwrap();
    worker.await.unwrap();
}

#[tokio::test]
async fn a_delivery_is_given_up_when_its_time_is_over_and_swept_later() {
    let stage = Stage::set(usize::MAX).await;
    let key = stage.commit().await;
    let (_stop, stopped) = watch::channel(false);
    let settings = OutboxSettings {
        give_up_after: Duration::from_millis(100),
        sweep_interval: Duration::from_millis(50),
        ..quick()
    };
    let (_notifier, _worker) = stage.work(settings, stopped);

    let entry = stage.settled(&key).await;

    assert_eq!(entry.outcome(), Outcome::GivenUp);
    assert_eq!(
        entry.last_error,
        "the webhook answered 503 Service Unavailable"
    );
    let Some(Kind::Webhook(delivery)) = &entry.kind else {
        panic!("a webhook's entry")
    };
    assert!(
        delivery.body_json.contains("c_1"),
        "what was not delivered is kept for a person"
    );
    for _ in 0..PATIENCE {
        if stage.entry(&key).is_none() {
            return;
        }
        seams::sleep(WAIT).await;
    }
    panic!("the settled entry is still there");
}
