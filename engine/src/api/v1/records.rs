//! `GET /v1/orchestrations/{id}/records`: the journal of an orchestration, record by record, a page at a time.
//!
//! Invariant: a record is shown whole and without loss: its JSON reads back as the same record.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use orchestrion_history::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::input::{Caller, Id, Params, page_limit, pinned};
use super::problem::{Problem, ProblemView};
use super::respond;
use crate::api::orra::Api;
use crate::api::orra::story::summary;
use crate::engine::journal::JournalReader;
use crate::journal_json::{Names, to_json};
use crate::orchestration::effect::rfc3339;

/// Records of a page.
const LIMIT_MAX: u32 = 1_000;
/// Records of a page where the caller names no number.
const LIMIT_DEFAULT: u32 = 200;

/// A record of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordView {
    /// Its number in the journal, from 1.
    #[schema(minimum = 1)]
    pub sequence: u64,
    /// When it was written.
    #[schema(format = DateTime)]
    pub time: String,
    /// Whether it is an event of the history that Temporal's tools show, or a note beside it.
    pub kind: RecordKind,
    /// What happened.
    #[serde(rename = "type")]
    pub name: String,
    /// The number of an event in the history.
    pub event_id: Option<i64>,
    /// The step it is about, or `revert:` and the step whose undoing it is about.
    pub step: Option<String>,
    /// The service of that step.
    pub component: Option<String>,
    /// In a few words.
    pub summary: String,
    /// All of it.
    #[schema(value_type = Object)]
    pub record: Value,
}

/// Which kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RecordKind {
    /// Of the history.
    Event,
    /// Beside it.
    Note,
}

impl RecordView {
    /// Of a record; `number` counts from 0.
    pub fn of(number: u64, record: &Record, names: &mut Names) -> Self {
        let about = names.about(record);
        Self {
            sequence: number + 1,
            time: rfc3339(orchestrion_history::ids::Timestamp(record.at())),
            kind: if record.event().is_some() {
                RecordKind::Event
            } else {
                RecordKind::Note
            },
            name: record.type_name(),
            event_id: record
                .event()
                .map(|event| event.event_id)
                .filter(|id| *id > 0),
            step: about.as_ref().map(|about| about.id.clone()),
            component: about.map(|about| about.kind),
            summary: summary(record),
            record: to_json(record),
        }
    }
}

/// Which records.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only those behind the record of this number.
    #[param(minimum = 0, maximum = 9007199254740991_i64)]
    after: Option<u64>,
    /// At most so many.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<u32>,
}

/// A page of a journal.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecordPage {
    /// The orchestration.
    execution_id: String,
    /// Its run.
    run_id: String,
    /// In the order in which they were written.
    items: Vec<RecordView>,
    /// Where the next page begins, to be given as `after`; null where all that is written was read.
    next_after: Option<u64>,
}

/// Read the journal
///
/// Every record of an orchestration: the events of its history, and the notes beside them (attempts, progress updates, waits).
#[utoipa::path(
    get, path = "/orchestrations/{id}/records", operation_id = "listRecords", tag = "orchestrations",
    params(("id" = String, Path, description = "The orchestration."), Wanted),
    responses(
        (status = 200, description = "A page of its journal.", body = RecordPage),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such orchestration.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn records(
    State(api): State<Api>,
    Caller(project): Caller,
    Id(id): Id,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let limit = page_limit(wanted.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let after = wanted.after.unwrap_or(0);
    let target = pinned(&api, &project, &id)?;
    let run_id = target
        .run_id
        .ok_or_else(|| Problem::unknown_orchestration(&id))?;
    let mut reader = JournalReader::new(&api.handle, &project, &target.workflow_id, run_id);
    let mut names = Names::default();
    let mut items = Vec::new();
    let mut more = false;
    'pages: loop {
        let page = reader.page()?;
        if page.is_empty() {
            break;
        }
        for (number, record) in &page {
            if *number < after {
                names.about(record);
            } else if items.len() == limit {
                more = true;
                break 'pages;
            } else {
                items.push(RecordView::of(*number, record, &mut names));
            }
        }
    }
    let next_after = items
        .last()
        .map(|last: &RecordView| last.sequence)
        .filter(|_| more);
    Ok(respond(
        StatusCode::OK,
        &RecordPage {
            execution_id: id,
            run_id: run_id.to_string(),
            items,
            next_after,
        },
    ))
}
