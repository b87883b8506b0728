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
    registrar: Registrar,
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
            registrar,
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
        allow_private: true,
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

#[tokio::test]
async fn every_try_is_in_the_log_of_its_webhook() {
    let stage = Stage::set(2).await;
    let (_stop, stopped) = watch::channel(false);
    let (notifier, _) = stage.work(quick(), stopped);
    let key = stage.commit().await;
    notifier.committed(vec![key.clone()]);
    let entry = stage.settled(&key).await;
    let webhook = stage
        .registry
        .webhooks(&stage.namespace, Topic::CompensationFailure)
        .remove(0);
    let store = stage.handle.store();
    let tries = log::newest_first(&**store, &stage.namespace, &webhook.id).unwrap();
    let told: Vec<_> = tries
        .iter()
        .map(|tried| (tried.attempt, tried.status, tried.error.as_str()))
        .collect();
    let refused = "the webhook answered 503 Service Unavailable";
    assert_eq!(told, [(3, 200, ""), (2, 503, refused), (1, 503, refused)]);
    assert!(tries.iter().all(|tried| tried.event_id == entry.event_id));
    assert!(
        tries
            .iter()
            .all(|tried| tried.duration_ns >= 0 && tried.at > 0)
    );
}

#[tokio::test]
async fn a_guarded_server_connects_to_nothing_that_is_not_public() {
    let stage = Stage::set(0).await;
    let (_stop, stopped) = watch::channel(false);
    let settings = OutboxSettings {
        allow_private: false,
        give_up_after: Duration::from_millis(1),
        ..quick()
    };
    let (notifier, _) = stage.work(settings, stopped);
    let key = stage.commit().await;
    notifier.committed(vec![key.clone()]);
    let entry = stage.settled(&key).await;
    assert_eq!(entry.outcome(), Outcome::GivenUp);
    assert!(
        entry.last_error.contains("not a public address"),
        "{}",
        entry.last_error
    );
    assert!(stage.tries.lock().unwrap().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let stage = Stage::set(0).await;
    let inner = format!("{}?moved", receiver(stage.tries.clone(), 0).await);
    let moved = move || std::future::ready(axum::response::Redirect::temporary(&inner));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    seams::spawn(
        async move { axum::serve(listener, Router::new().route("/hook", post(moved))).await },
    );
    let sender = deliver::Sender::new(&quick()).unwrap();
    let delivery = WebhookDelivery {
        url,
        body_json: "{}".into(),
        event_type: "orchestration.completed".into(),
        ..Default::default()
    };
    let answer = sender.post(&delivery, "e_1", std::iter::empty(), 1).await;
    assert_eq!(answer.status, 307);
    assert!(answer.error.is_some());
    assert!(stage.tries.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_waits_for_a_webhook_that_is_gone_is_given_up() {
    let stage = Stage::set(usize::MAX).await;
    let key = stage.commit().await;
    let webhook = stage
        .registry
        .webhooks(&stage.namespace, Topic::CompensationFailure)
        .remove(0);
    stage
        .registrar
        .remove_webhook(&stage.namespace, &webhook.id, &crate::acts::Actor::ENGINE)
        .await
        .unwrap();
    let (_stop, stopped) = watch::channel(false);
    let (_notifier, _worker) = stage.work(quick(), stopped);
    let entry = stage.settled(&key).await;
    assert_eq!((entry.outcome(), entry.attempts), (Outcome::GivenUp, 1));
    assert!(stage.tries.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_submissions_own_url_is_told_once() {
    let stage = Stage::set(0).await;
    let change = |url: &str| {
        let status = crate::orchestration::effect::FinalStatus::Completed;
        let at = stage.clock.now();
        let mut change = crate::orchestration::StatusChange::of("o_1", status, at);
        change.webhook = Some(url.to_owned());
        Effect::StatusChanged(change)
    };
    let own = change("http://own.example/hook");
    assert_eq!(
        entries_for(&stage.registry, &stage.namespace, &own).len(),
        0,
        "nothing signs for it yet"
    );
    let engine = crate::acts::Actor::ENGINE;
    let signer = stage
        .registrar
        .submission_signer(&stage.namespace, &engine)
        .await
        .unwrap();
    let known = WebhookUrl::parse("http://known.example/hook").unwrap();
    stage
        .registrar
        .add_webhook(&stage.namespace, Topic::Orchestration, known, &engine)
        .await
        .unwrap();
    let told = |effect: &Effect| -> Vec<(String, String)> {
        let entries = entries_for(&stage.registry, &stage.namespace, effect);
        let deliveries = entries
            .into_iter()
            .filter_map(|(_, entry)| match entry.kind {
                Some(Kind::Webhook(delivery)) => Some((delivery.webhook_id, delivery.url)),
                None => None,
            });
        deliveries.collect()
    };
    let both = told(&own);
    assert_eq!(both.len(), 2);
    assert_eq!(both[1], (signer, "http://own.example/hook".to_owned()));
    assert_eq!(told(&change("http://known.example/hook")).len(), 1);
}

#[tokio::test]
async fn a_name_that_leads_inside_is_not_connected_to() {
    let stage = Stage::set(0).await;
    let url = receiver(stage.tries.clone(), 0).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    let client = |guarded: bool| {
        let builder = reqwest::Client::builder().no_proxy();
        let builder = if guarded {
            builder.dns_resolver(guard::PublicOnly::shared())
        } else {
            builder
        };
        builder.build().unwrap()
    };
    let refused = client(true).post(&by_name).body("{}").send().await;
    let mut error: &dyn std::error::Error = &refused.unwrap_err();
    while let Some(inner) = error.source() {
        error = inner;
    }
    assert!(error.to_string().contains("no public address"), "{error}");
    assert!(stage.tries.lock().unwrap().is_empty(), "nothing was sent");
    // The same name without the guard: it was the guard that refused.
    client(false)
        .post(&by_name)
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(stage.tries.lock().unwrap().len(), 1);
}
