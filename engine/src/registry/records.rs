//! Registry records and their bytes.
//!
//! ```text
//!  Project   namespace ~system     id = project id      v1.Project
//!  ApiKey    namespace ~system     id = hex digest      v1.ApiKey
//!  Service   namespace project id  id = service id      v1.Service
//!  Webhook   namespace project id  id = webhook id      v1.Webhook
//!  Grounding namespace project id  id = its name        v1.Grounding
//!  Namespace namespace ~system     id = its name        v1.Namespace
//!  SearchAttribute  its namespace  id = its name        v1.SearchAttribute
//! ```
//!
//! What leaves is a record as well: its operation removes the key.
//!
//! Invariant: decoding what [`encode`] gave yields the same record.

use std::time::Duration;

use std::sync::Arc;

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp};
use orchestrion_history::store::{Key, Op, RegistryKind, StoreError, StoreErrorKind};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1;
use serde_json::Value;

use super::ids::{KeyDigest, WebhookSecret};
use super::{
    KnownNamespace, PreviousSecret, Project, ProjectKey, RegisteredService, ServiceKind, Topic,
    Webhook,
};
use crate::grounding::{Grounding, Spec, UseCase};
use crate::plan;
use crate::visibility::ValueType;

/// One change of the registry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Project {
        namespace: Namespace,
        project: Project,
    },
    ApiKey {
        namespace: Namespace,
        key: ProjectKey,
    },
    ApiKeyRevoked {
        namespace: Namespace,
        digest: KeyDigest,
    },
    Service {
        namespace: Namespace,
        service: RegisteredService,
    },
    ServiceDeleted {
        namespace: Namespace,
        id: String,
    },
    Webhook {
        namespace: Namespace,
        webhook: Webhook,
    },
    WebhookRemoved {
        namespace: Namespace,
        id: String,
    },
    Grounding {
        namespace: Namespace,
        grounding: Arc<Grounding>,
    },
    GroundingRemoved {
        namespace: Namespace,
        name: String,
    },
    Namespace {
        namespace: Namespace,
        known: KnownNamespace,
    },
    SearchAttribute {
        namespace: Namespace,
        name: String,
        kind: ValueType,
        created_at: Timestamp,
    },
    SearchAttributeRemoved {
        namespace: Namespace,
        name: String,
    },
}

impl Record {
    /// Whether it takes something away.
    pub(super) fn removes(&self) -> bool {
        matches!(
            self,
            Self::ApiKeyRevoked { .. } | Self::ServiceDeleted { .. } | Self::WebhookRemoved { .. }
        )
    }
}

/// The operation that makes a record durable.
pub(super) fn encode(record: &Record) -> Op {
    match record {
        Record::Project { project, .. } => put(
            Namespace::system(),
            RegistryKind::Project,
            project.id.clone(),
            &v1::Project {
                id: project.id.clone(),
                name: project.name.clone(),
                created_at: project.created_at.0,
                updated_at: project.updated_at.0,
            },
        ),
        Record::ApiKey { namespace, key } => put(
            Namespace::system(),
            RegistryKind::ApiKey,
            key.digest.to_hex(),
            &v1::ApiKey {
                id: key.digest.to_hex(),
                name: key.name.clone(),
                digest: key.digest.0.to_vec(),
                created_at: key.created_at.0,
                project_id: namespace.to_string(),
                last_used_at: key.last_used_at.map_or(0, |at| at.0),
            },
        ),
        Record::ApiKeyRevoked { digest, .. } => {
            delete(Namespace::system(), RegistryKind::ApiKey, digest.to_hex())
        }
        Record::Service { namespace, service } => put(
            namespace.clone(),
            RegistryKind::Service,
            service.service.id.clone(),
            &v1::Service {
                id: service.service.id.clone(),
                name: service.service.name.clone(),
                description: service.service.description.clone(),
                kind: match service.kind {
                    ServiceKind::Service => v1::service::Kind::Service,
                    ServiceKind::Agent => v1::service::Kind::Agent,
                }
                .into(),
                input_schema: service.service.input_schema.to_string(),
                output_schema: service.service.output_schema.to_string(),
                revertible: service.service.revertible,
                version: service.version,
                created_at: service.created_at.0,
                updated_at: service.updated_at.0,
            },
        ),
        Record::ServiceDeleted { namespace, id } => {
            delete(namespace.clone(), RegistryKind::Service, id.clone())
        }
        Record::Grounding {
            namespace,
            grounding,
        } => put(
            namespace.clone(),
            RegistryKind::Grounding,
            grounding.spec.name.clone(),
            &grounding_message(grounding),
        ),
        Record::GroundingRemoved { namespace, name } => {
            delete(namespace.clone(), RegistryKind::Grounding, name.clone())
        }
        Record::WebhookRemoved { namespace, id } => {
            delete(namespace.clone(), RegistryKind::Webhook, id.clone())
        }
        Record::Namespace { namespace, known } => put(
            Namespace::system(),
            RegistryKind::Namespace,
            namespace.to_string(),
            &v1::Namespace {
                name: namespace.to_string(),
                description: known.description.clone(),
                owner_email: known.owner_email.clone(),
                data: known.data.clone().into_iter().collect(),
                retention: known
                    .retention
                    .map_or(0, |kept| i64::try_from(kept.as_nanos()).unwrap_or(i64::MAX)),
                created_at: known.created_at.0,
                updated_at: known.updated_at.0,
                deleted: known.deleted,
            },
        ),
        Record::SearchAttribute {
            namespace,
            name,
            kind,
            created_at,
        } => put(
            namespace.clone(),
            RegistryKind::SearchAttribute,
            name.clone(),
            &v1::SearchAttribute {
                name: name.clone(),
                kind: kind.wire().into(),
                created_at: created_at.0,
            },
        ),
        Record::SearchAttributeRemoved { namespace, name } => delete(
            namespace.clone(),
            RegistryKind::SearchAttribute,
            name.clone(),
        ),
        Record::Webhook { namespace, webhook } => put(
            namespace.clone(),
            RegistryKind::Webhook,
            webhook.id.clone(),
            &v1::Webhook {
                id: webhook.id.clone(),
                url: webhook.url.clone(),
                topic: match webhook.topic {
                    Topic::Orchestration => v1::webhook::Topic::Orchestration,
                    Topic::CompensationFailure => v1::webhook::Topic::CompensationFailure,
                    Topic::Submission => v1::webhook::Topic::Submission,
                }
                .into(),
                secret: webhook.secret.bytes().to_vec(),
                created_at: webhook.created_at.0,
                previous_secret: webhook
                    .previous
                    .as_ref()
                    .map_or_else(Vec::new, |previous| previous.secret.bytes().to_vec()),
                previous_secret_until: webhook.previous.as_ref().map_or(0, |p| p.until.0),
                rotated_at: webhook.rotated_at.map_or(0, |at| at.0),
            },
        ),
    }
}

fn grounding_message(grounding: &Grounding) -> v1::Grounding {
    let cases = grounding.spec.use_cases.iter();
    let cases = cases.map(|case| v1::grounding::UseCase {
        action: case.action.clone(),
        params: case.params.clone().into_iter().collect(),
        capabilities: case.capabilities.clone(),
        intent: case.intent.clone(),
    });
    v1::Grounding {
        name: grounding.spec.name.clone(),
        domain: grounding.spec.domain.clone(),
        version: grounding.spec.version.clone(),
        use_cases: cases.collect(),
        constraints: grounding.spec.constraints.clone(),
        applied_at: grounding.applied_at.0,
        revision: grounding.revision,
    }
}

/// A grounding that does not pass its own checks any more is not half in force: the start is refused, and says why.
fn grounding(namespace: Namespace, value: &Bytes) -> Result<Record, String> {
    let record = v1::Grounding::decode(value.clone()).map_err(|e| e.to_string())?;
    let cases = record.use_cases.into_iter().map(|case| UseCase {
        action: case.action,
        params: case.params.into_iter().collect(),
        capabilities: case.capabilities,
        intent: case.intent,
    });
    let spec = Spec {
        name: record.name,
        domain: record.domain,
        version: record.version,
        use_cases: cases.collect(),
        constraints: record.constraints,
    };
    let grounding = Grounding::new(spec, Timestamp(record.applied_at), record.revision)
        .map_err(|fault| fault.to_string())?;
    Ok(Record::Grounding {
        namespace,
        grounding: Arc::new(grounding),
    })
}

fn key(namespace: Namespace, kind: RegistryKind, id: String) -> Key {
    Key::Registry {
        shard: ShardId::REGISTRY,
        namespace,
        kind,
        id,
    }
}

fn delete(namespace: Namespace, kind: RegistryKind, id: String) -> Op {
    Op::Delete(key(namespace, kind, id))
}

fn put(namespace: Namespace, kind: RegistryKind, id: String, message: &impl Message) -> Op {
    Op::Put(
        key(namespace, kind, id),
        Bytes::from(message.encode_to_vec()),
    )
}

/// The record under a key; `None` for kinds that are not kept here.
pub(super) fn decode(key: &Key, value: &Bytes) -> Result<Option<Record>, StoreError> {
    let Key::Registry {
        namespace, kind, ..
    } = key
    else {
        return Ok(None);
    };
    let namespace = namespace.clone();
    let record = match kind {
        RegistryKind::Project => project(value),
        RegistryKind::ApiKey => api_key(value),
        RegistryKind::Service => service(namespace, value),
        RegistryKind::Webhook => webhook(namespace, value),
        RegistryKind::Grounding => grounding(namespace, value),
        RegistryKind::Namespace => known_namespace(value),
        RegistryKind::SearchAttribute => search_attribute(namespace, value),
        // Others keep theirs.
        _ => return Ok(None),
    };
    record.map(Some).map_err(|reason| StoreError {
        kind: StoreErrorKind::Corrupt,
        operation: "scan",
        key: Some(key.to_string()),
        message: format!(
            "the record does not decode: {reason}; restore the data folder from a backup"
        ),
    })
}

fn project(value: &Bytes) -> Result<Record, String> {
    let record = v1::Project::decode(value.clone()).map_err(|e| e.to_string())?;
    let namespace = Namespace::parse(&record.id).map_err(|e| e.to_string())?;
    let project = Project {
        id: record.id,
        name: record.name,
        created_at: Timestamp(record.created_at),
        updated_at: Timestamp(record.updated_at),
    };
    Ok(Record::Project { namespace, project })
}

fn api_key(value: &Bytes) -> Result<Record, String> {
    let record = v1::ApiKey::decode(value.clone()).map_err(|e| e.to_string())?;
    let digest =
        <[u8; 32]>::try_from(record.digest).map_err(|_| "a digest has 32 bytes".to_owned())?;
    let namespace = Namespace::parse(&record.project_id).map_err(|e| e.to_string())?;
    let key = ProjectKey {
        digest: KeyDigest(digest),
        name: record.name,
        created_at: Timestamp(record.created_at),
        last_used_at: some_time(record.last_used_at),
    };
    Ok(Record::ApiKey { namespace, key })
}

fn some_time(nanoseconds: i64) -> Option<Timestamp> {
    (nanoseconds != 0).then_some(Timestamp(nanoseconds))
}

fn service(namespace: Namespace, value: &Bytes) -> Result<Record, String> {
    let record = v1::Service::decode(value.clone()).map_err(|e| e.to_string())?;
    let kind = match record.kind() {
        v1::service::Kind::Service => ServiceKind::Service,
        v1::service::Kind::Agent => ServiceKind::Agent,
        v1::service::Kind::Unspecified => {
            return Err("it is neither a service nor an agent".to_owned());
        }
    };
    let schema = |text: &str| {
        serde_json::from_str::<Value>(text).map_err(|e| format!("a schema is not JSON: {e}"))
    };
    let service = RegisteredService {
        kind,
        version: record.version,
        created_at: Timestamp(record.created_at),
        updated_at: Timestamp(record.updated_at),
        service: plan::Service {
            input_schema: schema(&record.input_schema)?.into(),
            output_schema: schema(&record.output_schema)?,
            id: record.id,
            name: record.name,
            description: record.description,
            revertible: record.revertible,
        },
    };
    Ok(Record::Service { namespace, service })
}

fn webhook(namespace: Namespace, value: &Bytes) -> Result<Record, String> {
    let record = v1::Webhook::decode(value.clone()).map_err(|e| e.to_string())?;
    let topic = match record.topic() {
        v1::webhook::Topic::Orchestration => Topic::Orchestration,
        v1::webhook::Topic::CompensationFailure => Topic::CompensationFailure,
        v1::webhook::Topic::Submission => Topic::Submission,
        v1::webhook::Topic::Unspecified => return Err("it has no topic".to_owned()),
    };
    let webhook = Webhook {
        id: record.id,
        url: record.url,
        topic,
        secret: WebhookSecret::from_bytes(record.secret),
        previous: (!record.previous_secret.is_empty()).then(|| PreviousSecret {
            secret: WebhookSecret::from_bytes(record.previous_secret),
            until: Timestamp(record.previous_secret_until),
        }),
        rotated_at: some_time(record.rotated_at),
        created_at: Timestamp(record.created_at),
    };
    Ok(Record::Webhook { namespace, webhook })
}

fn known_namespace(value: &Bytes) -> Result<Record, String> {
    let record = v1::Namespace::decode(value.clone()).map_err(|e| e.to_string())?;
    let namespace = Namespace::parse(&record.name).map_err(|e| e.to_string())?;
    let retention = u64::try_from(record.retention).map_err(|e| e.to_string())?;
    let known = KnownNamespace {
        description: record.description,
        owner_email: record.owner_email,
        data: record.data.into_iter().collect(),
        retention: (retention > 0).then(|| Duration::from_nanos(retention)),
        created_at: Timestamp(record.created_at),
        updated_at: Timestamp(record.updated_at),
        deleted: record.deleted,
    };
    Ok(Record::Namespace { namespace, known })
}

fn search_attribute(namespace: Namespace, value: &Bytes) -> Result<Record, String> {
    let record = v1::SearchAttribute::decode(value.clone()).map_err(|e| e.to_string())?;
    let kind = ValueType::of(record.kind).ok_or("its type is not known")?;
    Ok(Record::SearchAttribute {
        namespace,
        name: record.name,
        kind,
        created_at: Timestamp(record.created_at),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn samples() -> Vec<Record> {
        let namespace = Namespace::parse("p_x").unwrap();
        let project = Project {
            id: "p_x".into(),
            name: "shop".into(),
            created_at: Timestamp(5),
            updated_at: Timestamp(6),
        };
        let service = RegisteredService {
            service: plan::Service {
                id: "s_a".into(),
                name: "echo".into(),
                description: "says it again".into(),
                input_schema: json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}}).into(),
                output_schema: json!({"type": "object"}),
                revertible: true,
            },
            kind: ServiceKind::Agent,
            version: 3,
            created_at: Timestamp(7),
            updated_at: Timestamp(8),
        };
        let webhook = Webhook {
            id: "w_1".into(),
            url: "http://localhost/hook".into(),
            topic: Topic::CompensationFailure,
            secret: WebhookSecret::from_bytes(vec![1, 2, 3]),
            previous: None,
            rotated_at: None,
            created_at: Timestamp(9),
        };
        let rotated = Webhook {
            id: "w_2".into(),
            topic: Topic::Submission,
            previous: Some(PreviousSecret {
                secret: WebhookSecret::from_bytes(vec![4, 5]),
                until: Timestamp(11),
            }),
            rotated_at: Some(Timestamp(10)),
            ..webhook.clone()
        };
        let key = ProjectKey {
            digest: KeyDigest::of("sk"),
            name: "shop's services".into(),
            created_at: Timestamp(3),
            last_used_at: None,
        };
        let used = ProjectKey {
            last_used_at: Some(Timestamp(4)),
            ..key.clone()
        };
        let spec = Spec {
            name: "refunds".into(),
            domain: "shop".into(),
            version: "1.0".into(),
            use_cases: vec![UseCase {
                action: "refund {order}".into(),
                params: [("order".to_owned(), "o-1".to_owned())].into(),
                capabilities: vec!["refund".into()],
                intent: "money back".into(),
            }],
            constraints: vec!["be kind".into(), "rule: a before b".into()],
        };
        let grounding = Grounding::new(spec, Timestamp(9), 2).unwrap();
        vec![
            Record::Project {
                namespace: namespace.clone(),
                project,
            },
            Record::ApiKey {
                namespace: namespace.clone(),
                key,
            },
            Record::ApiKey {
                namespace: namespace.clone(),
                key: used,
            },
            Record::Service {
                namespace: namespace.clone(),
                service,
            },
            Record::Webhook {
                namespace: namespace.clone(),
                webhook,
            },
            Record::Grounding {
                namespace: namespace.clone(),
                grounding: Arc::new(grounding),
            },
            Record::Webhook {
                namespace,
                webhook: rotated,
            },
        ]
    }

    #[test]
    fn records_survive_their_bytes() {
        for record in samples() {
            let Op::Put(key, value) = encode(&record) else {
                panic!("encode writes")
            };
            assert_eq!(decode(&key, &value).unwrap(), Some(record));
        }
    }

    #[test]
    fn what_leaves_removes_the_key_it_came_by() {
        let namespace = Namespace::parse("p_x").unwrap();
        let gone = |record: Record| match encode(&record) {
            Op::Delete(key) => key,
            Op::Put(key, _) => panic!("{key} is put"),
        };
        let keys: Vec<Key> = samples()
            .iter()
            .map(|record| match encode(record) {
                Op::Put(key, _) | Op::Delete(key) => key,
            })
            .collect();
        let revoked = Record::ApiKeyRevoked {
            namespace: namespace.clone(),
            digest: KeyDigest::of("sk"),
        };
        assert_eq!(gone(revoked), keys[1]);
        let deleted = Record::ServiceDeleted {
            namespace: namespace.clone(),
            id: "s_a".into(),
        };
        assert_eq!(gone(deleted), keys[3]);
        let removed = Record::WebhookRemoved {
            namespace,
            id: "w_1".into(),
        };
        assert_eq!(gone(removed), keys[4]);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let Op::Put(key, _) = encode(&samples()[1]) else {
            panic!("encode writes")
        };
        let error = decode(&key, &Bytes::from_static(b"\xff\xff")).unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Corrupt);
        assert!(error.to_string().contains("api key"), "{error}");
    }
}
