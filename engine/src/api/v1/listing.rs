//! `GET /v1/orchestrations`: the orchestrations of a project, newest first, a page at a time.
//!
//! Invariant: a page reads at most so many lines of the index, however rare what it looks for is; the cursor then says where to go on.

use std::cmp::Reverse;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use orchestrion_history::ids::{Namespace, RunId, ShardId, Timestamp};
use orchestrion_history::store::{Key, KeyRange};
use orchestrion_proto::prost::Message;
use orchestrion_proto::v1::Visibility;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::input::{Caller, Params, instant, page_limit};
use super::problem::{Code, Problem, ProblemView};
use super::respond;
use super::show::{CompensationView, ExecutionStatus};
use crate::api::orra::Api;
use crate::orchestration::view::ListItem;

/// Lines that one page looks at.
const LOOKED_AT_MAX: usize = 10_000;
/// Lines read from one shard at once.
const SCAN_LINES: usize = 128;
/// Lines of a page where the caller names no number.
const LIMIT_DEFAULT: u32 = 50;
/// Lines of a page.
const LIMIT_MAX: u32 = 500;

/// Which orchestrations.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only those that stand so.
    #[param(inline)]
    status: Option<ExecutionStatus>,
    /// Only those submitted at this instant or later.
    #[param(format = DateTime)]
    started_after: Option<String>,
    /// Only those submitted before this instant.
    #[param(format = DateTime)]
    started_before: Option<String>,
    /// Only those whose action holds this text, in any case.
    action: Option<String>,
    /// At most so many.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    #[param(pattern = "^[A-Za-z0-9_-]{32}$")]
    cursor: Option<String>,
}

/// A page.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrchestrationPage {
    /// Newest first.
    items: Vec<Line>,
    /// Where the next page begins; null at the end. A page may be short, even empty, although there is a next one.
    next_cursor: Option<String>,
}

/// An orchestration in a list.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Its id.
    execution_id: String,
    /// How it stands.
    status: ExecutionStatus,
    /// The action's text.
    action: String,
    /// When it was submitted.
    #[schema(format = DateTime)]
    start_time: String,
    /// Why it failed.
    error: Option<Value>,
    /// How far its undoing is.
    compensation: Option<CompensationView>,
}

/// List orchestrations
#[utoipa::path(
    get, path = "/orchestrations", operation_id = "listOrchestrations", tag = "orchestrations",
    params(Wanted),
    responses(
        (status = 200, description = "A page of them, newest first.", body = OrchestrationPage),
        (status = 400, description = "The query is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn list(
    State(api): State<Api>,
    Caller(project): Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Problem> {
    let filter = Filter::of(&wanted)?;
    let limit = page_limit(wanted.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let from = wanted.cursor.as_deref().map(Place::parse).transpose()?;
    let from = from.or(filter.before.map(|before| Place {
        started: before.0,
        run_id: RunId([0; 16]),
    }));
    let mut lines = Lines::new(&api, &project, from)?;
    let mut items = Vec::new();
    let mut next_cursor = None;
    let mut last = None;
    for looked_at in 0.. {
        if items.len() >= limit || looked_at >= LOOKED_AT_MAX {
            next_cursor = last.map(|place: Place| place.text());
            break;
        }
        let Some((place, record)) = lines.next()? else {
            break;
        };
        if filter.is_past(&record) {
            break;
        }
        last = Some(place);
        if let Some(item) = ListItem::of(&record).filter(|item| filter.takes(item, &record)) {
            items.push(Line::of(item));
        }
    }
    Ok(respond(
        StatusCode::OK,
        &OrchestrationPage { items, next_cursor },
    ))
}

impl Line {
    fn of(item: ListItem) -> Self {
        Self {
            execution_id: item.id,
            status: ExecutionStatus::of(&item.status),
            action: item.action,
            start_time: item.timestamp,
            error: item.error,
            compensation: item.compensation.map(|summary| CompensationView {
                active: summary.active,
                total: summary.total,
                completed: summary.completed,
                failed: summary.failed,
            }),
        }
    }
}

struct Filter {
    status: Option<ExecutionStatus>,
    after: Option<Timestamp>,
    before: Option<Timestamp>,
    action: Option<String>,
}

impl Filter {
    fn of(wanted: &Wanted) -> Result<Self, Problem> {
        let time = |name, text: &Option<String>| {
            text.as_deref().map(|text| instant(name, text)).transpose()
        };
        Ok(Self {
            status: wanted.status,
            after: time("startedAfter", &wanted.started_after)?,
            before: time("startedBefore", &wanted.started_before)?,
            action: wanted.action.as_ref().map(|text| text.to_lowercase()),
        })
    }

    /// Whether this line and all that follow it are too old.
    fn is_past(&self, record: &Visibility) -> bool {
        self.after.is_some_and(|after| record.started_at < after.0)
    }

    fn takes(&self, item: &ListItem, record: &Visibility) -> bool {
        self.status
            .is_none_or(|status| ExecutionStatus::of(&item.status) == status)
            && self
                .before
                .is_none_or(|before| record.started_at < before.0)
            && self
                .action
                .as_ref()
                .is_none_or(|text| item.action.to_lowercase().contains(text))
    }
}

/// A place in the listing of a project, newest first; of those that started at the same instant, by run id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    started: i64,
    run_id: RunId,
}

impl Place {
    fn text(&self) -> String {
        let mut bytes = self.started.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.run_id.0);
        BASE64.encode(bytes)
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || {
            Problem::new(
                Code::InvalidRequest,
                "the cursor is none of this server: give nextCursor of a page as it is, or none",
            )
            .param("cursor")
        };
        let bytes = BASE64.decode(text).map_err(|_| wrong())?;
        let (started, run_id) = bytes.split_at_checked(8).ok_or_else(wrong)?;
        Ok(Self {
            started: i64::from_be_bytes(started.try_into().map_err(|_| wrong())?),
            run_id: RunId(run_id.try_into().map_err(|_| wrong())?),
        })
    }
}

/// The listing of a project over all shards, merged.
struct Lines<'a> {
    api: &'a Api,
    shards: Vec<ShardLines>,
}

struct ShardLines {
    /// What is left to read, if anything.
    rest: Option<KeyRange>,
    /// Read and not taken, the next one last.
    read: Vec<(Place, Visibility)>,
}

impl<'a> Lines<'a> {
    fn new(api: &'a Api, project: &Namespace, from: Option<Place>) -> Result<Self, Problem> {
        let shards = (0..api.handle.shards).map(ShardId).map(|shard| {
            let range = match from {
                Some(place) => KeyRange::visibility_after(
                    shard,
                    project,
                    Timestamp(place.started),
                    place.run_id,
                ),
                None => KeyRange::visibility(shard, project),
            };
            ShardLines {
                rest: Some(range),
                read: Vec::new(),
            }
        });
        Ok(Self {
            api,
            shards: shards.collect(),
        })
    }

    fn next(&mut self) -> Result<Option<(Place, Visibility)>, Problem> {
        for shard in &mut self.shards {
            shard.fill(self.api)?;
        }
        // Newest first; the index sorts equal instants by run id, upwards.
        let newest = self
            .shards
            .iter_mut()
            .filter(|shard| !shard.read.is_empty())
            .max_by_key(|shard| {
                let place = shard.read[shard.read.len() - 1].0;
                (place.started, Reverse(place.run_id))
            });
        Ok(newest.and_then(|shard| shard.read.pop()))
    }
}

impl ShardLines {
    fn fill(&mut self, api: &Api) -> Result<(), Problem> {
        if !self.read.is_empty() {
            return Ok(());
        }
        let Some(range) = self.rest.take() else {
            return Ok(());
        };
        let page = api.handle.store().scan(&range, SCAN_LINES, false)?;
        if let Some((last, _)) = page.entries.last().filter(|_| page.more) {
            self.rest = Some(range.after(last));
        }
        for (key, bytes) in page.entries {
            let Key::Visibility {
                started, run_id, ..
            } = key
            else {
                continue;
            };
            let record = Visibility::decode(bytes).map_err(|e| Problem::internal(&e))?;
            let place = Place {
                started: started.0,
                run_id,
            };
            self.read.push((place, record));
        }
        self.read.reverse();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_its_journey_and_a_foreign_one_is_refused() {
        let place = Place {
            started: 1_700_000_000_000_000_000,
            run_id: RunId([7; 16]),
        };
        assert_eq!(Place::parse(&place.text()).unwrap(), place);
        for foreign in ["", "AAAA", "not a cursor", &"A".repeat(64)] {
            assert!(Place::parse(foreign).is_err(), "{foreign}");
        }
    }
}
