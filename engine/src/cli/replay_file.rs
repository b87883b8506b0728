//! `orchestrion replay --file`: an audit export is replayed here, without any server: its records are folded again by the core, and an
//! orchestration's are given to the interpreter, which must ask for just what the journal says.

use std::fs::File;
use std::path::Path;

use orchestrion_history::record::Record;
use orchestrion_history::replay::fold;
use serde_json::{Value, json};

use super::error::CliError;
use super::render::{Look, Tone};
use super::wire;
use crate::api::orra::replay::state_json;
use crate::api::orra::story::summary;
use crate::audit::{self, Line};
use crate::journal_json::from_json;
use crate::orchestration::{Interpreter, WORKFLOW_TYPE};

/// The records of one run of a file.
pub struct Journal {
    /// The execution.
    pub execution: String,
    /// Its run.
    pub run: String,
    /// All of them, in order.
    pub records: Vec<Record>,
}

/// Reads one run of a file whose chain holds.
pub fn read(path: &Path, id: Option<&str>) -> Result<Journal, CliError> {
    let lines = lines_of(path)?;
    let mut runs: Vec<(String, String)> = Vec::new();
    for line in &lines {
        if let (Some(execution), Some(run)) = (&line.execution, &line.run)
            && id.is_none_or(|id| id == execution)
            && runs.last().is_none_or(|(_, last)| last != run)
        {
            runs.push((execution.clone(), run.clone()));
        }
    }
    let (execution, run) = match runs.as_slice() {
        [one] => one.clone(),
        [] => {
            return Err(CliError::Usage(format!(
                "{} holds no records of {}",
                path.display(),
                id.unwrap_or("any execution")
            )));
        }
        several => {
            let ids: Vec<&str> = several.iter().map(|(id, _)| id.as_str()).collect();
            return Err(CliError::Usage(format!(
                "{} holds {} runs: say which, one of {}",
                path.display(),
                several.len(),
                ids.join(", ")
            )));
        }
    };
    let records = records_of(&lines, &run)?;
    Ok(Journal {
        execution,
        run,
        records,
    })
}

/// Replays one run of a file.
pub fn replay(path: &Path, id: Option<&str>, until: Option<u64>) -> Result<wire::Replay, CliError> {
    let Journal {
        execution,
        run,
        records,
    } = read(path, id)?;
    let until = until.map(|until| until.min(records.len() as u64));
    let shown = until.map_or(records.len(), |until| {
        usize::try_from(until).unwrap_or(usize::MAX)
    });
    let (state, difference) = match (fold(&records), fold(&records[..shown])) {
        (Ok(_), Ok(state)) => {
            let orchestration = state.workflow_type == WORKFLOW_TYPE;
            let asked = orchestration.then(|| interpret(&records)).flatten();
            (state_json(&state), asked)
        }
        (Err(error), _) | (_, Err(error)) => (
            Value::Null,
            Some(format!("the journal does not fold: {error}")),
        ),
    };
    Ok(wire::Replay {
        id: execution.clone(),
        workflow_id: execution,
        run_id: run,
        records: (1..)
            .zip(&records[..shown])
            .map(|(seq, record)| shown_record(seq, record))
            .collect(),
        state,
        verified: difference.is_none(),
        difference,
        until,
    })
}

fn lines_of(path: &Path) -> Result<Vec<Line>, CliError> {
    let unusable = |why: String| CliError::Usage(format!("{}: {why}", path.display()));
    let file = File::open(path).map_err(|e| unusable(e.to_string()))?;
    let lines = audit::read(file).map_err(|e| unusable(e.to_string()))?;
    let lines: Result<Vec<Line>, _> = lines.collect();
    let lines = lines.map_err(|e| unusable(e.to_string()))?;
    // A story that somebody changed is not worth telling.
    audit::verify::verify(lines.iter().cloned().map(Ok), None)
        .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    Ok(lines)
}

fn records_of(lines: &[Line], run: &str) -> Result<Vec<Record>, CliError> {
    let mut records = Vec::new();
    for line in lines.iter().filter(|line| line.run.as_deref() == Some(run)) {
        if line.record != Some(records.len() as u64 + 1) {
            return Err(CliError::Usage(
                "the export holds only a part of the journal: export the execution without a time range".into(),
            ));
        }
        let Some(payload) = &line.payload else {
            return Err(CliError::Usage(
                "the export holds no payloads: export the execution with them".into(),
            ));
        };
        let value: Value = serde_json::from_str(payload)
            .map_err(|e| CliError::Failed(format!("line {}: {e}", line.number)))?;
        records.push(
            from_json(&value)
                .map_err(|e| CliError::Failed(format!("line {}: {e}", line.number)))?,
        );
    }
    Ok(records)
}

/// What the interpreter objects to, if it does.
fn interpret(records: &[Record]) -> Option<String> {
    let mut interpreter = Interpreter::new();
    records
        .iter()
        .filter_map(Record::event)
        .find_map(|event| interpreter.apply(event).err())
        .map(|error| error.to_string())
}

fn shown_record(seq: u64, record: &Record) -> wire::Record {
    let nanos = i128::from(record.at());
    wire::Record {
        seq,
        kind: if record.event().is_some() {
            "event".to_owned()
        } else {
            "note".to_owned()
        },
        event_id: record
            .event()
            .and_then(|event| u64::try_from(event.event_id).ok())
            .filter(|id| *id > 0),
        kind_of: record.type_name(),
        at: jiff::Timestamp::from_nanosecond(nanos).ok(),
        summary: summary(record),
    }
}

/// For programs.
pub fn as_json(replay: &wire::Replay) -> Value {
    let records: Vec<Value> = replay
        .records
        .iter()
        .map(|record| {
            json!({
                "seq": record.seq,
                "kind": record.kind,
                "eventId": record.event_id,
                "type": record.kind_of,
                "at": record.at.map(|at| at.to_string()),
                "summary": record.summary,
            })
        })
        .collect();
    json!({
        "id": replay.id,
        "workflowId": replay.workflow_id,
        "runId": replay.run_id,
        "records": records,
        "state": replay.state,
        "verified": replay.verified,
        "difference": replay.difference,
        "until": replay.until,
    })
}

/// What came of it.
pub fn verdict(look: &Look, replay: &wire::Replay) -> String {
    match &replay.difference {
        None => format!(
            "\n{} the export is unchanged, and its journal replays: every command is what the plan's code asks for\n",
            look.paint(Tone::Good, "●")
        ),
        Some(difference) => format!(
            "\n{} the journal does NOT replay\n  {difference}\n",
            look.paint(Tone::Bad, "✕")
        ),
    }
}
