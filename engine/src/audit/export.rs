//! What goes into an export, read from the store page by page: the journals of a project's executions, oldest first, and after
//! them what its administrators did.
//!
//! Invariant: the memory an export takes does not grow with what it exports.

use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp, WorkflowId};
use orchestrion_history::record::Record;
use orchestrion_history::store::{Key, KeyRange};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::{AdministrativeAct, Visibility};
use serde_json::{Value, json};

use super::sign::AuditKey;
use super::{Chain, Entry, FORMAT, Line, LineKind};
use crate::acts;
use crate::engine::handle::{CallError, Handle};
use crate::engine::journal::JournalReader;
use crate::journal_json::to_json;
use crate::orchestration::effect::rfc3339;

/// Lines of the index read from one shard at once.
const SCAN_LINES: usize = 64;
/// Acts read at once.
const ACTS_PAGE: usize = 256;

/// What to export.
#[derive(Debug, Clone)]
pub struct Scope {
    /// Whose.
    pub project: Namespace,
    /// One execution; without it all of them, and what administrators did.
    pub execution: Option<WorkflowId>,
    /// What happened at this instant or later.
    pub from: Option<Timestamp>,
    /// What happened before this instant.
    pub to: Option<Timestamp>,
    /// Whether payloads are in it.
    pub with_payloads: bool,
}

impl Scope {
    fn holds(&self, at: i64) -> bool {
        self.from.is_none_or(|from| at >= from.0) && self.to.is_none_or(|to| at < to.0)
    }

    /// Whether a run may have a record in this time.
    fn may_hold(&self, line: &Visibility) -> bool {
        let began_before = self.to.is_none_or(|to| line.started_at < to.0);
        let ended_before =
            line.closed_at != 0 && self.from.is_some_and(|from| line.closed_at < from.0);
        began_before && !ended_before
    }
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// Nobody reads it any more.
    #[error("nobody reads the export any more")]
    Unread,
    /// The store cannot be read.
    #[error(transparent)]
    Engine(#[from] CallError),
}

/// Writes an export, line by line. `now` is the time it is made; `out` answers whether somebody still reads.
pub fn export(
    handle: &Handle,
    key: AuditKey,
    scope: &Scope,
    now: Timestamp,
    mut out: impl FnMut(Line) -> bool,
) -> Result<u64, Interrupted> {
    let mut written = Writer {
        lines: 0,
        now: rfc3339(now),
        chain: Chain::new(key.clone(), scope.with_payloads),
        out: &mut out,
    };
    let time = |at: Option<Timestamp>| at.map(rfc3339);
    written.entry(Entry {
        kind: LineKind::Begin,
        at: rfc3339(now),
        execution: None,
        run: None,
        record: None,
        name: "begin".to_owned(),
        payload: json!({
            "format": FORMAT,
            "publicKey": key.public(),
            "project": scope.project.as_str(),
            "execution": scope.execution.as_ref().map(WorkflowId::as_str),
            "from": time(scope.from),
            "to": time(scope.to),
            "payloads": if scope.with_payloads { "included" } else { "left out" },
            "exportedAt": rfc3339(now),
            "by": concat!("orchestrion ", env!("CARGO_PKG_VERSION")),
        }),
    })?;
    match &scope.execution {
        Some(execution) => {
            if let Some(run_id) = handle.current_run(&scope.project, execution)? {
                written.run(handle, scope, execution, run_id)?;
            }
        }
        None => {
            let mut runs = Runs::new(handle, &scope.project);
            while let Some((run_id, line)) = runs.next()? {
                if let (true, Ok(execution)) =
                    (scope.may_hold(&line), WorkflowId::parse(&line.workflow_id))
                {
                    written.run(handle, scope, &execution, run_id)?;
                }
            }
        }
    }
    written.acts(handle, scope)?;
    written.end()
}

struct Writer<'a> {
    lines: u64,
    now: String,
    chain: Chain,
    out: &'a mut dyn FnMut(Line) -> bool,
}

impl Writer<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Interrupted> {
        for line in self.chain.link(entry, &self.now) {
            self.lines += 1;
            if !(self.out)(line) {
                return Err(Interrupted::Unread);
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        handle: &Handle,
        scope: &Scope,
        execution: &WorkflowId,
        run_id: RunId,
    ) -> Result<(), Interrupted> {
        let mut reader = JournalReader::new(handle, &scope.project, execution, run_id);
        loop {
            let page = reader.page()?;
            if page.is_empty() {
                return Ok(());
            }
            for (number, record) in page {
                if scope.holds(record.at()) {
                    self.entry(entry_of(execution, run_id, number, &record))?;
                }
            }
        }
    }

    /// What administrators did, oldest first; to one execution, where only that is exported.
    fn acts(&mut self, handle: &Handle, scope: &Scope) -> Result<(), Interrupted> {
        let time = (
            scope.from.unwrap_or(Timestamp(0)),
            scope.to.unwrap_or(Timestamp(i64::MAX)),
        );
        let mut after = None;
        loop {
            let page = acts::read(
                &**handle.store(),
                &scope.project,
                time,
                after.as_deref(),
                ACTS_PAGE,
            )
            .map_err(CallError::from)?;
            for act in page.acts {
                let of = scope.execution.as_ref().map(WorkflowId::as_str);
                if of.is_none_or(|execution| execution == act.subject) {
                    self.entry(entry_of_act(&act))?;
                }
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn end(self) -> Result<u64, Interrupted> {
        let line = self.chain.end(&self.now);
        if (self.out)(line) {
            Ok(self.lines + 1)
        } else {
            Err(Interrupted::Unread)
        }
    }
}

/// A journal record as an export holds it; `number` counts from 0.
pub fn entry_of(execution: &WorkflowId, run_id: RunId, number: u64, record: &Record) -> Entry {
    Entry {
        kind: if record.event().is_some() {
            LineKind::Event
        } else {
            LineKind::Note
        },
        at: rfc3339(Timestamp(record.at())),
        execution: Some(execution.to_string()),
        run: Some(run_id.to_string()),
        record: Some(number + 1),
        name: record.type_name(),
        payload: to_json(record),
    }
}

fn entry_of_act(act: &AdministrativeAct) -> Entry {
    let detail: Value = serde_json::from_str(&act.detail_json).unwrap_or(Value::Null);
    Entry {
        kind: LineKind::Act,
        at: rfc3339(Timestamp(act.at)),
        execution: None,
        run: None,
        record: None,
        name: acts::word(act.what()).to_owned(),
        payload: json!({
            "id": act.id,
            "who": acts::who(act),
            "peer": act.peer,
            "subject": act.subject,
            "detail": detail,
        }),
    }
}

/// The runs of a project over all shards, oldest first.
struct Runs<'a> {
    handle: &'a Handle,
    shards: Vec<ShardRuns>,
}

struct ShardRuns {
    /// What is left to read, if anything.
    rest: Option<KeyRange>,
    /// Read and not taken, the next one last.
    read: Vec<(i64, RunId, Visibility)>,
}

impl<'a> Runs<'a> {
    fn new(handle: &'a Handle, project: &Namespace) -> Self {
        let shards = (0..handle.shards).map(|shard| ShardRuns {
            rest: Some(KeyRange::visibility(ShardId(shard), project)),
            read: Vec::new(),
        });
        Self {
            handle,
            shards: shards.collect(),
        }
    }

    fn next(&mut self) -> Result<Option<(RunId, Visibility)>, CallError> {
        for shard in &mut self.shards {
            shard.fill(self.handle)?;
        }
        let oldest = self
            .shards
            .iter_mut()
            .filter(|shard| !shard.read.is_empty())
            .min_by_key(|shard| {
                let (started, run_id, _) = &shard.read[shard.read.len() - 1];
                (*started, *run_id)
            });
        Ok(oldest
            .and_then(|shard| shard.read.pop())
            .map(|(_, run_id, line)| (run_id, line)))
    }
}

impl ShardRuns {
    fn fill(&mut self, handle: &Handle) -> Result<(), CallError> {
        if !self.read.is_empty() {
            return Ok(());
        }
        let Some(range) = self.rest.take() else {
            return Ok(());
        };
        // The index is newest first: backwards is oldest first.
        let page = handle.store().scan(&range, SCAN_LINES, true)?;
        if let Some((last, _)) = page.entries.last().filter(|_| page.more) {
            self.rest = Some(range.before(last));
        }
        for (key, bytes) in page.entries {
            if let Key::Visibility {
                started, run_id, ..
            } = key
                && let Ok(line) = Visibility::decode(bytes)
            {
                self.read.push((started.0, run_id, line));
            }
        }
        self.read.reverse();
        Ok(())
    }
}
