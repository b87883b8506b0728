//! Compensations that failed: what people decide about them, and the reverts they have run again.
//!
//! ```text
//!  pending --resolve, ignore--> resolved | ignored, as often as people change their minds
//!          --retry--> the record says so (one commit, with the act) --start--> execution r_… of type orchestrion.revert
//!                       '-- undone ------> resolved, by the engine
//!                       '-- not undone --> as it was, with what came of it
//! ```
//!
//! Invariant: a retry that was answered is run, whatever crashes: the record is written before the execution starts, and every open
//! retry is taken up again at the start.
//! Invariant: of one record at most one retry is under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use orchestrion_history::ids::{Namespace, ShardId, Timestamp, WorkflowId};
use orchestrion_history::request::StartWorkflow;
use orchestrion_history::store::{Key, KeyRange, Op};
use orchestrion_proto::prost::Message;
use orchestrion_proto::temporal::api::common::v1::Memo;
use orchestrion_proto::v1::{CompensationFailure, RevertRetry};
use tokio::sync::{Mutex, oneshot};

use crate::acts::{Act, Actor, What};
use crate::api::work::key;
use crate::config::Settings;
use crate::engine::handle::{CallError, Handle, Target};
use crate::orchestration::revert::{Ended, RevertAgain, Tried, is_undone};
use crate::orchestration::submission::json_payload;
use crate::orchestration::{Options, REVERT_WORKFLOW_TYPE, WORKFLOW_QUEUE};
use crate::registry::Registrar;
use crate::registry::ids::derived;
use crate::seams::{self, Clock};

/// Retries of one record.
pub const RETRIES_MAX: usize = 100;
/// The newest so many are listed.
const LISTED_MAX: usize = 10_000;
const PAGE: usize = 512;
/// Between two tries of what the engine cannot take now.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// An execution that is not there so long after it was asked for was there, and has left.
const GONE_AFTER: Duration = Duration::from_secs(86_400);
const IDENTITY: &str = "orchestrion";

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is undone by hand, or does not matter any more.
    Resolved,
    /// It stays as it is.
    Ignored,
}

/// Why nothing changed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CompensationError {
    /// No such record in this project.
    #[error(
        "unknown compensation failure {0:?}: list what there is with GET /compensation-failures"
    )]
    Unknown(String),
    /// The record does not allow it now.
    #[error("{0}")]
    NotNow(String),
    /// A record does not decode.
    #[error("{0}")]
    Damaged(String),
    /// The engine could not read or write.
    #[error(transparent)]
    Engine(#[from] CallError),
}

/// The records, and what is done about them. Clones share the lock.
#[derive(Clone)]
pub struct Compensations {
    handle: Handle,
    registrar: Registrar,
    clock: Arc<dyn Clock>,
    options: Options,
    /// How long a retry may take.
    time: Duration,
    turn: Arc<Mutex<()>>,
}

impl Compensations {
    /// There is one per engine.
    pub fn new(
        handle: Handle,
        registrar: Registrar,
        clock: Arc<dyn Clock>,
        settings: &Settings,
    ) -> Self {
        Self {
            handle,
            registrar,
            clock,
            options: settings.options(),
            time: settings.compensation.default_ttl,
            turn: Arc::default(),
        }
    }

    /// The newest records of a project, newest first.
    pub fn list(&self, project: &Namespace) -> Result<Vec<CompensationFailure>, CompensationError> {
        let mut records = Vec::new();
        let mut range = KeyRange::compensations(ShardId::REGISTRY, project);
        loop {
            let page = self.handle.store().scan(&range, PAGE, false);
            let page = page.map_err(CallError::from)?;
            for (key, value) in &page.entries {
                records.push(decode(key, value.clone())?);
            }
            match page.entries.last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
        records.sort_by(|a, b| b.at.cmp(&a.at).then_with(|| a.id.cmp(&b.id)));
        records.truncate(LISTED_MAX);
        Ok(records)
    }

    /// One record. A foreign one is as unknown as one that never was.
    pub fn find(
        &self,
        project: &Namespace,
        id: &str,
    ) -> Result<CompensationFailure, CompensationError> {
        let key = key_of(project, id);
        let value = self.handle.store().get(&key).map_err(CallError::from)?;
        decode(
            &key,
            value.ok_or_else(|| CompensationError::Unknown(id.to_owned()))?,
        )
    }

    /// Notes what a person decided.
    pub async fn decide(
        &self,
        project: &Namespace,
        id: &str,
        decision: Decision,
        reason: String,
        actor: &Actor,
    ) -> Result<CompensationFailure, CompensationError> {
        let _turn = self.turn.lock().await;
        let mut record = self.find(project, id)?;
        let (state, what) = match decision {
            Decision::Resolved => ("resolved", What::CompensationResolved),
            Decision::Ignored => ("ignored", What::CompensationIgnored),
        };
        state.clone_into(&mut record.resolution_state);
        record.resolution.clone_from(&reason);
        record.resolved_at = self.clock.now().0;
        let act = about(&record, what).with("reason", reason);
        self.put(project, &record, actor, Some(act)).await?;
        Ok(record)
    }

    /// Runs the revert again. Answers once that is certain to happen; what comes of it stands in the record.
    pub async fn retry(
        &self,
        project: &Namespace,
        id: &str,
        actor: &Actor,
    ) -> Result<CompensationFailure, CompensationError> {
        // A task of its own: once written down it goes on, whether or not its caller still waits.
        let (this, project, id, actor) =
            (self.clone(), project.clone(), id.to_owned(), actor.clone());
        let (tell, told) = oneshot::channel();
        seams::beside(async move {
            let asked = this.ask_again(&project, &id, &actor).await;
            if let Ok(record) = &asked
                && let Some(retry) = record.retries.last()
            {
                this.follow(project, record.clone(), retry.clone());
            }
            // It is done, whether or not its caller still waits.
            let _ = tell.send(asked);
        });
        told.await.map_err(|_| CallError::ShuttingDown)?
    }

    /// Takes up the retries that were under way when the engine stopped. Answers how many there are.
    pub fn resume(&self) -> Result<usize, CompensationError> {
        let mut resumed = 0;
        for project in self.registrar.registry().projects() {
            let Ok(namespace) = Namespace::parse(&project.id) else {
                continue;
            };
            for record in self.list(&namespace)? {
                if let Some(open) = under_way(&record).cloned() {
                    self.follow(namespace.clone(), record, open);
                    resumed += 1;
                }
            }
        }
        Ok(resumed)
    }

    async fn ask_again(
        &self,
        project: &Namespace,
        id: &str,
        actor: &Actor,
    ) -> Result<CompensationFailure, CompensationError> {
        let _turn = self.turn.lock().await;
        let mut record = self.find(project, id)?;
        self.may_run_again(project, &record)
            .map_err(CompensationError::NotNow)?;
        let number = (record.retries.len() + 1).to_be_bytes();
        let parts: [&[u8]; 3] = [project.as_str().as_bytes(), id.as_bytes(), &number];
        let retry = RevertRetry {
            workflow_id: format!("r_{}", derived("revert again", &parts)),
            requested_at: self.clock.now().0,
            idempotency_key: self.known_key(project, &record)?,
            ..Default::default()
        };
        let act =
            about(&record, What::CompensationRetried).with("execution", retry.workflow_id.clone());
        record.retries.push(retry);
        self.put(project, &record, actor, Some(act)).await?;
        Ok(record)
    }

    fn may_run_again(
        &self,
        project: &Namespace,
        record: &CompensationFailure,
    ) -> Result<(), String> {
        let id = &record.id;
        if record.resolution_state == "resolved" {
            return Err(format!(
                "compensation failure {id} is resolved: there is nothing to run again"
            ));
        }
        // Also where somebody decided otherwise since: what is undone is not undone again.
        if let Some(done) = record.retries.iter().find(|retry| is_undone(&retry.status)) {
            return Err(format!(
                "what compensation failure {id} is about was undone by {}: there is nothing to run again",
                done.workflow_id
            ));
        }
        if let Some(open) = under_way(record) {
            return Err(format!(
                "the revert of {id} is run again already, as {}: look at GET /compensation-failures/{id}",
                open.workflow_id
            ));
        }
        if record.retries.len() >= RETRIES_MAX {
            return Err(format!(
                "the revert of {id} was run again {RETRIES_MAX} times: no more are allowed, resolve it by hand"
            ));
        }
        // A task that never answered left nothing to revert by.
        if record.status == "unknown" && record.data_json == "null" && record.ttl_ms == 0 {
            return Err(format!(
                "task {} never answered, so there is no data to revert it by: see what it did, and resolve {id} by hand",
                record.task_id
            ));
        }
        let service = self
            .registrar
            .registry()
            .service(project, &record.service_id);
        if service.is_none() {
            return Err(format!(
                "service {} ({}) is not registered any more: resolve {id} by hand",
                record.service_id, record.service_name
            ));
        }
        Ok(())
    }

    /// The key by which the service knows the revert that may have been done all the same; empty when it answered that one for good, or
    /// nothing is known of it any more.
    fn known_key(
        &self,
        project: &Namespace,
        record: &CompensationFailure,
    ) -> Result<String, CompensationError> {
        let last = record.retries.last();
        let execution = last.map_or(&record.orchestration_id, |retry| &retry.workflow_id);
        let Ok(workflow_id) = WorkflowId::parse(execution) else {
            return Ok(String::new());
        };
        let target = Target {
            namespace: project.clone(),
            workflow_id,
            run_id: None,
        };
        let Some(run) = self.handle.journal(&target)? else {
            return Ok(String::new());
        };
        Ok(match Tried::of(&run.records, &record.task_id) {
            None => String::new(),
            Some(tried) if tried.answered => String::new(),
            Some(tried) if !tried.idempotency_key.is_empty() => tried.idempotency_key,
            Some(tried) => key::of(
                project,
                &run.workflow_id,
                run.run_id,
                tried.scheduled_event_id,
            ),
        })
    }

    /// Sees a retry to its end, beside everything else.
    fn follow(&self, project: Namespace, record: CompensationFailure, retry: RevertRetry) {
        let this = self.clone();
        seams::beside(async move {
            match this.to_its_end(&project, &record, &retry).await {
                Ok(()) | Err(CallError::ShuttingDown) => {}
                Err(error) => {
                    tracing::error!(%project, record = %record.id, %error, "a retry of a revert is not followed any more: the next start takes it up");
                }
            }
        });
    }

    async fn to_its_end(
        &self,
        project: &Namespace,
        record: &CompensationFailure,
        retry: &RevertRetry,
    ) -> Result<(), CallError> {
        let workflow_id = WorkflowId::parse(&retry.workflow_id)
            .map_err(|e| CallError::Unavailable(e.to_string()))?;
        let target = Target {
            namespace: project.clone(),
            workflow_id,
            run_id: None,
        };
        let ended = if patiently(|| async { self.has_left(&target, retry) }).await? {
            Ended {
                status: "unknown".to_owned(),
                failure: "its execution has left with its retention".to_owned(),
            }
        } else {
            match patiently(|| self.start(project, record, retry)).await {
                Ok(()) => self.end_of(&target).await?,
                // Asking again would be answered the same.
                Err(CallError::Rejected(rejection)) => Ended {
                    status: "failed".to_owned(),
                    failure: format!("it could not be started: {rejection}"),
                },
                Err(error) => return Err(error),
            }
        };
        tracing::info!(%project, record = %record.id, execution = %retry.workflow_id, status = %ended.status, "a revert was run again");
        patiently(|| self.note_end(project, &record.id, &retry.workflow_id, &ended)).await
    }

    fn has_left(&self, target: &Target, retry: &RevertRetry) -> Result<bool, CallError> {
        let old = self.clock.now().since(Timestamp(retry.requested_at)) > GONE_AFTER;
        let known = self
            .handle
            .current_run(&target.namespace, &target.workflow_id)?;
        Ok(old && known.is_none())
    }

    /// A repeat finds the execution that is there.
    async fn start(
        &self,
        project: &Namespace,
        record: &CompensationFailure,
        retry: &RevertRetry,
    ) -> Result<(), CallError> {
        let again = RevertAgain {
            compensation_id: record.id.clone(),
            orchestration_id: record.orchestration_id.clone(),
            task_id: record.task_id.clone(),
            service: record.service_id.clone(),
            service_name: record.service_name.clone(),
            time_ms: u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX),
            idempotency_key: retry.idempotency_key.clone(),
            options: self.options.clone(),
        };
        let memo = [
            ("compensation", &record.id),
            ("orchestration", &record.orchestration_id),
            ("task", &record.task_id),
        ];
        let fields = memo.map(|(name, value)| (name.to_owned(), json_payload(value)));
        let start = StartWorkflow {
            workflow_id: retry.workflow_id.clone(),
            workflow_type: REVERT_WORKFLOW_TYPE.to_owned(),
            task_queue: WORKFLOW_QUEUE.to_owned(),
            input: Some(again.input(&record.data_json, &record.context_json)),
            memo: Some(Memo {
                fields: fields.into(),
            }),
            request_id: retry.workflow_id.clone(),
            identity: IDENTITY.to_owned(),
            ..StartWorkflow::default()
        };
        self.handle.start(project.clone(), start).await.map(|_| ())
    }

    async fn end_of(&self, target: &Target) -> Result<Ended, CallError> {
        let mut seen = 0;
        loop {
            let progress = patiently(|| self.handle.watch(target.clone(), seen)).await?;
            seen = progress.records;
            if !progress.closed {
                continue;
            }
            let run = match self.handle.journal(target) {
                // What is damaged is out of service when it is watched again; anything else can be read sooner or later.
                Err(CallError::Unavailable(_)) => {
                    seams::sleep(AGAIN_AFTER).await;
                    continue;
                }
                read => read?,
            };
            let ended = run.and_then(|run| Ended::of(&run.records));
            return Ok(ended.unwrap_or_else(|| Ended {
                status: "unknown".to_owned(),
                failure: "its execution does not say how it ended".to_owned(),
            }));
        }
    }

    async fn note_end(
        &self,
        project: &Namespace,
        id: &str,
        workflow_id: &str,
        ended: &Ended,
    ) -> Result<(), CallError> {
        let _turn = self.turn.lock().await;
        let mut record = match self.find(project, id) {
            Ok(record) => record,
            // It left with its retention, or cannot be read.
            Err(CompensationError::Engine(error)) => return Err(error),
            Err(_) => return Ok(()),
        };
        let now = self.clock.now().0;
        let open = record
            .retries
            .iter_mut()
            .find(|retry| retry.workflow_id == workflow_id && retry.ended_at == 0);
        let Some(open) = open else { return Ok(()) };
        open.ended_at = now;
        open.status.clone_from(&ended.status);
        open.failure.clone_from(&ended.failure);
        let mut act = None;
        if ended.is_undone() {
            "resolved".clone_into(&mut record.resolution_state);
            record.resolution = format!("{} by the retry {workflow_id}", ended.status);
            record.resolved_at = now;
            act = Some(about(&record, What::CompensationResolved).with("execution", workflow_id));
        }
        self.put(project, &record, &Actor::ENGINE, act).await
    }

    async fn put(
        &self,
        project: &Namespace,
        record: &CompensationFailure,
        actor: &Actor,
        act: Option<Act>,
    ) -> Result<(), CallError> {
        let value = Bytes::from(record.encode_to_vec());
        let mut ops = vec![Op::Put(key_of(project, &record.id), value)];
        ops.extend(act.map(|act| self.registrar.acts().record(project, actor, act)));
        self.handle.put(ops).await
    }
}

/// Tries until the engine takes it, answers for good, or stops.
async fn patiently<T, F>(mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    loop {
        match call().await {
            Err(error @ (CallError::Busy { .. } | CallError::Unavailable(_))) => {
                tracing::debug!(%error, "a retry of a revert waits for the engine");
                seams::sleep(AGAIN_AFTER).await;
            }
            done => return done,
        }
    }
}

fn under_way(record: &CompensationFailure) -> Option<&RevertRetry> {
    record.retries.iter().find(|retry| retry.ended_at == 0)
}

fn about(record: &CompensationFailure, what: What) -> Act {
    Act::new(what, record.id.clone())
        .with("orchestration", record.orchestration_id.clone())
        .with("task", record.task_id.clone())
}

fn key_of(project: &Namespace, id: &str) -> Key {
    Key::Compensation {
        shard: ShardId::REGISTRY,
        namespace: project.clone(),
        id: id.to_owned(),
    }
}

fn decode(key: &Key, value: Bytes) -> Result<CompensationFailure, CompensationError> {
    CompensationFailure::decode(value).map_err(|error| {
        CompensationError::Damaged(format!(
            "{key} does not decode: {error}; restore the data folder from a backup"
        ))
    })
}

#[cfg(test)]
mod tests;
