//! `GET /v1/orchestrations/{id}/events`: the journal as server-sent events, from any record on, as it grows.
//!
//! ```text
//!  id: 12                     the record's number: send it as Last-Event-ID to go on behind it
//!  event: record | end        `end` when nothing of the orchestration goes on any more
//!  data: {"sequence":12,…}    a record, as /records shows it; of `end` how it ended
//! ```
//!
//! Invariant: what is sent is committed; a reader that comes back with the last number misses nothing and sees nothing twice.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::input::{Caller, Id, Params, pinned};
use super::problem::{Code, Problem, ProblemView};
use super::records::RecordView;
use super::show::ExecutionStatus;
use crate::api::orra::Api;
use crate::api::orra::submit::view_of;
use crate::engine::handle::Target;
use crate::engine::journal::JournalReader;
use crate::journal_json::Names;
use crate::seams;

/// Events that wait for a reader; a slower one makes the stream wait, not the engine.
const WAITING_MAX: usize = 64;
/// A stream that has nothing to say says so this often.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where to begin.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct From {
    /// Behind the record of this number, as the header `Last-Event-ID` says it; the header counts where both are there.
    #[param(minimum = 0, maximum = 9007199254740991_i64)]
    after: Option<u64>,
    /// Whether to end with the last record there is now, instead of waiting for more.
    #[serde(default)]
    once: Option<bool>,
}

/// The data of the last event.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct End {
    /// The orchestration.
    execution_id: String,
    /// How it stands, or ended.
    status: ExecutionStatus,
    /// Whether nothing of it goes on any more.
    closed: bool,
}

/// Follow an orchestration
///
/// Server-sent events: one `record` for each record of the journal, and `end` when nothing goes on any more.
#[utoipa::path(
    get, path = "/orchestrations/{id}/events", operation_id = "followOrchestration", tag = "orchestrations",
    params(("id" = String, Path, description = "The orchestration."), From,
           ("Last-Event-ID" = Option<String>, Header, description = "The number of the last record that was read.",
            pattern = "^[0-9]{1,15}$")),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "The query or the header is wrong.", body = ProblemView, content_type = "application/problem+json"),
        (status = 401, description = "The key is of no project.", body = ProblemView, content_type = "application/problem+json"),
        (status = 404, description = "There is no such orchestration.", body = ProblemView, content_type = "application/problem+json"),
        (status = 503, description = "Not now.", body = ProblemView, content_type = "application/problem+json"),
    ),
)]
pub async fn events(
    State(api): State<Api>,
    Caller(project): Caller,
    Id(id): Id,
    headers: HeaderMap,
    Params(from): Params<From>,
) -> Result<Response, Problem> {
    let after = match headers.get("last-event-id") {
        Some(value) => last_event_id(value.as_bytes())?,
        None => from.after.unwrap_or(0),
    };
    let target = pinned(&api, &project, &id)?;
    let (events, mut waiting) = mpsc::channel(WAITING_MAX);
    let source = Source {
        names: Names::default(),
        after,
        once: from.once.unwrap_or(false),
        api,
        target,
        events,
    };
    seams::spawn(source.run());
    let stream = futures_util::stream::poll_fn(move |context| waiting.poll_recv(context));
    Ok(Sse::new(stream)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response())
}

fn last_event_id(value: &[u8]) -> Result<u64, Problem> {
    let text = std::str::from_utf8(value).unwrap_or("?").trim();
    let number = text
        .parse()
        .ok()
        .filter(|_| text.len() <= 15 && text.bytes().all(|byte| byte.is_ascii_digit()));
    number.ok_or_else(|| {
        let detail = format!(
            "Last-Event-ID is {text:?}: give the id of the last event that was read, a number, or leave it out"
        );
        Problem::new(Code::InvalidRequest, detail).param("Last-Event-ID")
    })
}

struct Source {
    api: Api,
    target: Target,
    after: u64,
    once: bool,
    names: Names,
    events: mpsc::Sender<Result<Event, Infallible>>,
}

impl Source {
    /// Ends when the run has, when the reader goes away, or when the engine stops: the reader then comes back.
    async fn run(mut self) {
        let mut stop = self.api.stop.clone();
        let gone = self.events.clone();
        tokio::select! {
            () = self.send_all() => {}
            () = gone.closed() => {}
            _ = stop.wait_for(|stopped| *stopped) => {}
        }
    }

    async fn send_all(&mut self) {
        let Some(run_id) = self.target.run_id else {
            return;
        };
        let mut reader = JournalReader::new(
            &self.api.handle,
            &self.target.namespace,
            &self.target.workflow_id,
            run_id,
        );
        loop {
            let page = match reader.page() {
                Ok(page) => page,
                Err(error) => {
                    // The reader comes back, and is told what is wrong.
                    tracing::warn!(%error, "a stream of events ended: the journal cannot be read");
                    return;
                }
            };
            for (number, record) in &page {
                if *number < self.after {
                    self.names.about(record);
                    continue;
                }
                let view = RecordView::of(*number, record, &mut self.names);
                if !self.send("record", Some(view.sequence), &view).await {
                    return;
                }
            }
            if !page.is_empty() {
                continue;
            }
            if self.once {
                return self.end(reader.seen()).await;
            }
            let seen = reader.seen();
            match self.api.handle.watch(self.target.clone(), seen).await {
                Ok(progress) if progress.closed && progress.records <= seen => {
                    return self.end(seen).await;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, "a stream of events ended");
                    return;
                }
            }
        }
    }

    async fn end(&self, seen: u64) {
        let Ok((view, _)) = view_of(&self.api, &self.target) else {
            return;
        };
        let end = End {
            execution_id: view.id.clone(),
            status: ExecutionStatus::of(&view.status),
            closed: view.closed,
        };
        self.send("end", Some(seen), &end).await;
    }

    async fn send<T: Serialize>(&self, kind: &str, id: Option<u64>, data: &T) -> bool {
        let mut event = Event::default().event(kind);
        if let Some(id) = id {
            event = event.id(id.to_string());
        }
        let text = match serde_json::to_string(data) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "an event could not be written as JSON");
                return false;
            }
        };
        self.events.send(Ok(event.data(text))).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_number_is_a_number() {
        assert_eq!(last_event_id(b"12").unwrap(), 12);
        assert_eq!(last_event_id(b" 0 ").unwrap(), 0);
        for wrong in [
            &b""[..],
            b"-1",
            b"+1",
            b"abc",
            b"1e3",
            b"99999999999999999999",
            b"\xff",
        ] {
            assert!(last_event_id(wrong).is_err(), "{wrong:?}");
        }
    }
}
