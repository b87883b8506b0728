//! Changes of the registry over a real engine on the memory store: each with its act, each still there after a restart.

use std::sync::Arc;
use std::time::Duration;

use orchestrion_history::ids::{Namespace, TaskQueueName, Timestamp};
use orchestrion_history::store::{MemoryStore, Store};
use serde_json::json;

use super::*;
use crate::acts::{self, Actor, Who, word};
use crate::engine::{Engine, EngineOptions, NoSurroundings};
use crate::registry::ids::ApiKey;
use crate::registry::ids::tests::CountingIds;
use crate::seams::{Clock, ManualClock, SystemChance};
use crate::visibility::ValueType;

const MINUTE: Duration = Duration::from_secs(60);

struct Stage {
    store: Arc<dyn Store>,
    clock: ManualClock,
    registrar: Registrar,
    engine: Engine,
    namespace: Namespace,
    first_key: ApiKey,
}

fn open(store: &Arc<dyn Store>, clock: &ManualClock) -> (Engine, Registrar) {
    let clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let engine = Engine::start(
        store.clone(),
        clock.clone(),
        Box::new(SystemChance),
        Box::new(NoSurroundings),
        EngineOptions::default(),
    )
    .unwrap();
    let registry = Registry::load(&**store).unwrap();
    let ids = Arc::new(CountingIds::default());
    let registrar = Registrar::new(registry, engine.handle(), ids, clock);
    (engine, registrar)
}

fn actor() -> Actor {
    Actor {
        who: Who::Key("k_me".into()),
        peer: Some("192.0.2.7:4711".parse().unwrap()),
    }
}

impl Stage {
    async fn set() -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let (engine, registrar) = open(&store, &clock);
        let new = NewProject {
            name: "shop".into(),
            ..NewProject::default()
        };
        let created = registrar.create_project(new, &actor()).await.unwrap();
        Self {
            namespace: Namespace::parse(&created.project.id).unwrap(),
            first_key: created.api_key,
            store,
            clock,
            registrar,
            engine,
        }
    }

    fn restart(self) -> Self {
        self.engine.stop();
        let (engine, registrar) = open(&self.store, &self.clock);
        Self {
            engine,
            registrar,
            ..self
        }
    }

    fn registry(&self) -> &Registry {
        self.registrar.registry()
    }

    /// What was done, in order: `word subject-kind`.
    fn told(&self) -> Vec<String> {
        let always = (Timestamp::ZERO, Timestamp(i64::MAX));
        let page = acts::read(&*self.store, &self.namespace, always, None, 100).unwrap();
        page.acts
            .iter()
            .map(|act| format!("{} {}", word(act.what()), &act.subject[..2]))
            .collect()
    }

    async fn service(&self) -> String {
        let object = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        let registration = Registration {
            id: None,
            kind: ServiceKind::Agent,
            name: "echo".into(),
            description: "says it again".into(),
            input_schema: object.clone(),
            output_schema: object,
            revertible: false,
        };
        self.registrar
            .register_service(&self.namespace, registration, &actor())
            .await
            .unwrap()
            .service
            .id
    }
}

#[tokio::test]
async fn a_revoked_key_stays_revoked_and_the_last_one_cannot_be() {
    let stage = Stage::set().await;
    let (registrar, namespace) = (&stage.registrar, &stage.namespace);
    let second = registrar
        .add_api_key(namespace, "services", &actor())
        .await
        .unwrap();
    let first = ids::api_key_id(stage.first_key.digest());
    registrar
        .revoke_api_key(namespace, &first, &actor())
        .await
        .unwrap();
    let id = second.kept.id();
    let last = registrar.revoke_api_key(namespace, &id, &actor()).await;
    assert_eq!(last, Err(RegistryError::LastKey(id)));
    let foreign = Namespace::parse("p_other").unwrap();
    let unknown = registrar
        .revoke_api_key(&foreign, &second.kept.id(), &actor())
        .await;
    assert!(
        matches!(unknown, Err(RegistryError::Unknown { .. })),
        "{unknown:?}"
    );

    let stage = stage.restart();
    let registry = stage.registry();
    assert_eq!(registry.authenticate(stage.first_key.digest()), None);
    assert_eq!(
        registry.authenticate(second.key.digest()).as_ref(),
        Some(&stage.namespace)
    );
    let names: Vec<String> = registry
        .api_keys(&stage.namespace)
        .into_iter()
        .map(|key| key.name)
        .collect();
    assert_eq!(names, ["services"]);
    assert_eq!(
        stage.told(),
        [
            "project created p_",
            "api key added k_",
            "api key added k_",
            "api key revoked k_"
        ],
        "what was refused left no act"
    );
}

#[tokio::test]
async fn the_last_use_of_a_key_is_written_down_once_an_interval() {
    let stage = Stage::set().await;
    let key = stage.first_key.digest();
    let used_at = |stage: &Stage| stage.registry().api_keys(&stage.namespace)[0].last_used_at;
    let note = async |stage: &Stage| stage.registrar.note_key_uses(MINUTE).await.unwrap();
    assert_eq!(note(&stage).await, 0, "nobody used it");
    for _ in 0..100 {
        stage.registry().authenticate(key);
    }
    assert_eq!(note(&stage).await, 1);
    let first = stage.clock.now();
    assert_eq!(used_at(&stage), Some(first));
    stage.clock.advance(MINUTE / 2);
    stage.registry().authenticate(key);
    assert_eq!(note(&stage).await, 0, "within the interval");
    stage.clock.advance(MINUTE);
    stage.registry().authenticate(key);
    assert_eq!(note(&stage).await, 1);
    let stage = stage.restart();
    assert_eq!(used_at(&stage), Some(stage.clock.now()));
    assert_eq!(stage.told().len(), 2, "a use is no act");
}

#[tokio::test]
async fn a_use_does_not_bring_a_revoked_key_back() {
    let stage = Stage::set().await;
    let (registrar, namespace) = (&stage.registrar, &stage.namespace);
    let second = registrar
        .add_api_key(namespace, "", &actor())
        .await
        .unwrap();
    stage.registry().authenticate(second.key.digest());
    registrar
        .revoke_api_key(namespace, &second.kept.id(), &actor())
        .await
        .unwrap();
    assert_eq!(registrar.note_key_uses(MINUTE).await, Ok(0));
    let stage = stage.restart();
    assert!(!stage.registry().holds_key(second.key.digest()));
}

#[tokio::test]
async fn a_rotated_secret_signs_along_until_its_time_is_over() {
    let stage = Stage::set().await;
    let (registrar, namespace) = (&stage.registrar, &stage.namespace);
    let url = WebhookUrl::parse("https://hooks.example/x?token=t").unwrap();
    let created = registrar
        .add_webhook(namespace, Topic::Orchestration, url, &actor())
        .await
        .unwrap();
    let rotated = registrar
        .rotate_secret(namespace, &created.id, MINUTE, &actor())
        .await
        .unwrap();
    assert_ne!(rotated.secret, created.secret);

    let stage = stage.restart();
    let signs = |stage: &Stage| {
        let webhook = stage.registry().webhook(&stage.namespace, &created.id);
        let webhook = webhook.unwrap();
        let secrets: Vec<_> = webhook.secrets_at(stage.clock.now()).cloned().collect();
        secrets
    };
    assert_eq!(signs(&stage), [rotated.secret.clone(), created.secret]);
    stage.clock.advance(MINUTE);
    assert_eq!(signs(&stage), [rotated.secret]);
    stage
        .registrar
        .remove_webhook(&stage.namespace, &created.id, &actor())
        .await
        .unwrap();
    let stage = stage.restart();
    assert_eq!(
        stage.registry().webhook(&stage.namespace, &created.id),
        None
    );
    assert_eq!(
        stage.told()[2..],
        [
            "webhook added w_",
            "webhook secret rotated w_",
            "webhook removed w_"
        ]
    );
    let always = (Timestamp::ZERO, Timestamp(i64::MAX));
    let page = acts::read(&*stage.store, &stage.namespace, always, None, 100).unwrap();
    let all = format!("{page:?}");
    assert!(
        all.contains("hooks.example") && !all.contains("token"),
        "{all}"
    );
    assert!(page.acts.iter().all(|act| act.peer == "192.0.2.7:4711"));
}

#[tokio::test]
async fn submissions_have_one_signer_however_many_ask_at_once() {
    let stage = Stage::set().await;
    let who = actor();
    let ask = || async {
        let signer = stage.registrar.submission_signer(&stage.namespace, &who);
        signer.await.unwrap()
    };
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    assert_eq!((&one, &one), (&two, &three));
    let signers = stage
        .registry()
        .webhooks(&stage.namespace, Topic::Submission);
    assert_eq!(signers.len(), 1);
    assert_eq!(stage.told()[2..], ["webhook added w_"]);
}

#[tokio::test]
async fn a_service_that_is_connected_is_deleted_by_force_only() {
    let stage = Stage::set().await;
    let (registrar, namespace) = (&stage.registrar, &stage.namespace);
    let id = stage.service().await;
    let queue = TaskQueueName::parse(&id).unwrap();
    let session = stage
        .engine
        .handle()
        .attach(Some(namespace.clone()), queue, "echo".into(), 1)
        .await
        .unwrap();
    let removals = stage.registry().removals();
    let refused = registrar
        .delete_service(namespace, &id, false, &actor())
        .await;
    assert_eq!(
        refused,
        Err(RegistryError::InUse {
            id: id.clone(),
            sessions: 1,
            waiting: 0
        })
    );
    assert!(!removals.has_changed().unwrap());
    registrar
        .delete_service(namespace, &id, true, &actor())
        .await
        .unwrap();
    assert!(removals.has_changed().unwrap(), "sockets learn of it");
    assert!(stage.registry().services(namespace).is_empty());
    drop(session);
    let stage = stage.restart();
    assert!(stage.registry().service(&stage.namespace, &id).is_none());
    assert_eq!(
        stage.told()[2..],
        ["service registered s_", "service deleted s_"]
    );
}

#[tokio::test]
async fn namespaces_and_their_search_attributes_survive_a_restart() {
    let stage = Stage::set().await;
    let registrar = &stage.registrar;
    let change = NamespaceChange {
        description: Some("tests".into()),
        data: [("team".to_owned(), "a".to_owned())].into(),
        retention: Some(MINUTE),
        ..NamespaceChange::default()
    };
    let made = registrar
        .register_namespace("orders", change, &actor())
        .await
        .unwrap();
    let again = registrar
        .register_namespace("orders", NamespaceChange::default(), &actor())
        .await;
    assert_eq!(again, Err(NamespaceError::Exists("orders".into())));
    for name in ["", "~system", "p_1", "a b"] {
        let refused = registrar
            .register_namespace(name, NamespaceChange::default(), &actor())
            .await;
        assert!(refused.is_err(), "{name:?}");
    }
    let wanted = [("Customer", ValueType::Keyword), ("Amount", ValueType::Int)];
    let wanted = wanted.map(|(name, kind)| (name.to_owned(), kind));
    registrar
        .add_search_attributes(&made, wanted.clone().into(), &actor())
        .await
        .unwrap();
    registrar
        .remove_search_attributes(&made, vec!["Amount".into()], &actor())
        .await
        .unwrap();
    let later = NamespaceChange {
        owner_email: Some("a@example.invalid".into()),
        ..NamespaceChange::default()
    };
    registrar
        .update_namespace(&made, later, &actor())
        .await
        .unwrap();

    let stage = stage.restart();
    let registry = stage.registry();
    let known = registry.known_namespace(&made);
    assert_eq!(known.description, "tests");
    assert_eq!(known.owner_email, "a@example.invalid");
    assert_eq!(known.retention, Some(MINUTE));
    assert_eq!(known.data["team"], "a");
    let catalogue = registry.catalogue(&made);
    assert_eq!(
        catalogue.custom().keys().collect::<Vec<_>>(),
        ["Customer"],
        "what was removed stays removed"
    );
    assert!(
        registry.catalogue(&stage.namespace).custom().is_empty(),
        "attributes are their namespace's"
    );
    let names: Vec<String> = registry
        .namespaces()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(names, ["default", "orders", stage.namespace.as_str()]);
    let retype = [("Customer".to_owned(), ValueType::Int)];
    let refused = stage
        .registrar
        .add_search_attributes(&made, retype.into(), &actor())
        .await;
    assert!(matches!(
        refused,
        Err(NamespaceError::AttributeExists { .. })
    ));
}

#[tokio::test]
async fn a_deleted_namespace_is_gone_and_its_name_is_free_once_it_is_empty() {
    let stage = Stage::set().await;
    let made = stage
        .registrar
        .register_namespace("orders", NamespaceChange::default(), &actor())
        .await
        .unwrap();
    let start = orchestrion_history::request::StartWorkflow {
        workflow_id: "w".into(),
        workflow_type: "t".into(),
        task_queue: "q".into(),
        ..Default::default()
    };
    let handle = stage.engine.handle();
    handle.start(made.clone(), start).await.unwrap();
    for stays in [&stage.namespace, &Namespace::parse("default").unwrap()] {
        let refused = stage.registrar.delete_namespace(stays, &actor()).await;
        assert_eq!(refused, Err(NamespaceError::Stays(stays.to_string())));
    }
    stage
        .registrar
        .delete_namespace(&made, &actor())
        .await
        .unwrap();
    let stage = stage.restart();
    let state = stage.registry().namespace_state(&made);
    assert_eq!(state, NamespaceState::Deleted);
    assert!(!stage.registry().namespaces().contains(&made));
    let change = NamespaceChange::default();
    let again = stage
        .registrar
        .register_namespace("orders", change.clone(), &actor())
        .await;
    assert_eq!(again, Err(NamespaceError::Leaving("orders".into())));
    let added = stage
        .registrar
        .add_search_attributes(&made, [("A".to_owned(), ValueType::Int)].into(), &actor())
        .await;
    assert_eq!(added, Err(NamespaceError::Unknown("orders".into())));
}
