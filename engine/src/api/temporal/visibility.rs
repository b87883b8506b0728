//! Listing and counting runs.
//!
//! Invariant: the store is read on a thread that may wait for it.

use orchestrion_history::ids::Namespace;
use orchestrion_proto::prost_wkt_types::Timestamp;
use orchestrion_proto::temporal::api::common::v1::Payload;
use orchestrion_proto::temporal::api::filter::v1::StartTimeFilter;
use orchestrion_proto::temporal::api::workflow::v1::WorkflowExecutionInfo;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    CountWorkflowExecutionsRequest, CountWorkflowExecutionsResponse,
    ListClosedWorkflowExecutionsRequest, ListClosedWorkflowExecutionsResponse,
    ListOpenWorkflowExecutionsRequest, ListOpenWorkflowExecutionsResponse,
    ListWorkflowExecutionsRequest, ListWorkflowExecutionsResponse, ScanWorkflowExecutionsRequest,
    ScanWorkflowExecutionsResponse, count_workflow_executions_response,
    list_closed_workflow_executions_request as closed,
    list_open_workflow_executions_request as open,
};
use tonic::{Request, Response, Status};

use super::Temporal;
use crate::seams;
use crate::visibility::query::status_name;
use crate::visibility::{ListError, Query, row};

type Page = (Vec<WorkflowExecutionInfo>, Vec<u8>);

impl Temporal {
    pub(super) async fn list_runs(
        &self,
        request: Request<ListWorkflowExecutionsRequest>,
    ) -> Result<Response<ListWorkflowExecutionsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let asked = request.into_inner();
        let (executions, next_page_token) = self
            .page(
                namespace,
                asked.query,
                asked.page_size,
                asked.next_page_token,
            )
            .await?;
        Ok(Response::new(ListWorkflowExecutionsResponse {
            executions,
            next_page_token,
        }))
    }

    pub(super) async fn scan_runs(
        &self,
        request: Request<ScanWorkflowExecutionsRequest>,
    ) -> Result<Response<ScanWorkflowExecutionsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let asked = request.into_inner();
        let (executions, next_page_token) = self
            .page(
                namespace,
                asked.query,
                asked.page_size,
                asked.next_page_token,
            )
            .await?;
        Ok(Response::new(ScanWorkflowExecutionsResponse {
            executions,
            next_page_token,
        }))
    }

    pub(super) async fn list_open_runs(
        &self,
        request: Request<ListOpenWorkflowExecutionsRequest>,
    ) -> Result<Response<ListOpenWorkflowExecutionsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let asked = request.into_inner();
        let mut parts = vec!["ExecutionStatus = 'Running'".to_owned()];
        parts.extend(started(asked.start_time_filter.as_ref(), "StartTime"));
        parts.extend(asked.filters.map(|filter| match filter {
            open::Filters::ExecutionFilter(it) => equals("WorkflowId", &it.workflow_id),
            open::Filters::TypeFilter(it) => equals("WorkflowType", &it.name),
        }));
        let query = parts.join(" AND ");
        let (executions, next_page_token) = self
            .page(
                namespace,
                query,
                asked.maximum_page_size,
                asked.next_page_token,
            )
            .await?;
        Ok(Response::new(ListOpenWorkflowExecutionsResponse {
            executions,
            next_page_token,
        }))
    }

    pub(super) async fn list_closed_runs(
        &self,
        request: Request<ListClosedWorkflowExecutionsRequest>,
    ) -> Result<Response<ListClosedWorkflowExecutionsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let asked = request.into_inner();
        let mut parts = vec!["ExecutionStatus != 'Running'".to_owned()];
        parts.extend(started(asked.start_time_filter.as_ref(), "CloseTime"));
        if let Some(filter) = asked.filters {
            parts.push(match filter {
                closed::Filters::ExecutionFilter(it) => equals("WorkflowId", &it.workflow_id),
                closed::Filters::TypeFilter(it) => equals("WorkflowType", &it.name),
                closed::Filters::StatusFilter(it) => format!("ExecutionStatus = {}", it.status),
            });
        }
        let query = parts.join(" AND ");
        let (executions, next_page_token) = self
            .page(
                namespace,
                query,
                asked.maximum_page_size,
                asked.next_page_token,
            )
            .await?;
        Ok(Response::new(ListClosedWorkflowExecutionsResponse {
            executions,
            next_page_token,
        }))
    }

    pub(super) async fn count_runs(
        &self,
        request: Request<CountWorkflowExecutionsRequest>,
    ) -> Result<Response<CountWorkflowExecutionsResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let query = self.query(&namespace, &request.get_ref().query)?;
        let handle = self.api.handle.clone();
        let counted = seams::blocking(move || handle.index().count(&namespace, &query))
            .await
            .map_err(|_| Status::unavailable("the server is shutting down"))?
            .map_err(|e| unlisted(e.into()))?;
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let groups = counted.by_status.iter().filter_map(|(status, count)| {
            Some(count_workflow_executions_response::AggregationGroup {
                group_values: vec![keyword(status_name(*status)?)],
                count: number(*count),
            })
        });
        Ok(Response::new(CountWorkflowExecutionsResponse {
            groups: groups.collect(),
            count: number(counted.total),
        }))
    }

    async fn page(
        &self,
        namespace: Namespace,
        text: String,
        size: i32,
        token: Vec<u8>,
    ) -> Result<Page, Status> {
        let query = self.query(&namespace, &text)?;
        let size = usize::try_from(size).map_err(|_| {
            Status::invalid_argument(format!("page size is {size}: give zero or more"))
        })?;
        let handle = self.api.handle.clone();
        let listed =
            seams::blocking(move || handle.index().list(&namespace, &text, &query, size, &token))
                .await
                .map_err(|_| Status::unavailable("the server is shutting down"))?
                .map_err(unlisted)?;
        let rows = listed.rows.into_iter().map(row::info);
        Ok((rows.collect(), listed.next))
    }

    fn query(&self, namespace: &Namespace, text: &str) -> Result<Query, Status> {
        let catalogue = self.api.registrar.registry().catalogue(namespace);
        Query::parse(text, &catalogue).map_err(|e| Status::invalid_argument(e.to_string()))
    }
}

fn unlisted(error: ListError) -> Status {
    match error {
        ListError::Store(error) => Status::unavailable(error.to_string()),
        ListError::Token | ListError::Grouped => Status::invalid_argument(error.to_string()),
    }
}

fn keyword(text: &str) -> Payload {
    let metadata = [("encoding", "json/plain"), ("type", "Keyword")];
    Payload {
        metadata: metadata
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
            .into(),
        data: format!("\"{text}\"").into_bytes(),
        ..Default::default()
    }
}

fn equals(name: &str, text: &str) -> String {
    let quoted = text.replace('\\', "\\\\").replace('\'', "''");
    format!("{name} = '{quoted}'")
}

fn started(filter: Option<&StartTimeFilter>, name: &str) -> Vec<String> {
    let nanos = |at: &Timestamp| {
        at.seconds
            .saturating_mul(1_000_000_000)
            .saturating_add(at.nanos.into())
    };
    let bound = |at: Option<&Timestamp>, sign| {
        at.filter(|at| at.seconds != 0 || at.nanos != 0)
            .map(|at| format!("{name} {sign} {}", nanos(at)))
    };
    let Some(filter) = filter else {
        return Vec::new();
    };
    let earliest = bound(filter.earliest_time.as_ref(), ">=");
    let latest = bound(filter.latest_time.as_ref(), "<=");
    earliest.into_iter().chain(latest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::visibility::Catalogue;

    #[test]
    fn filters_of_old_calls_are_queries() {
        let at = |seconds| Timestamp { seconds, nanos: 5 };
        let filter = StartTimeFilter {
            earliest_time: Some(at(1)),
            latest_time: Some(at(2)),
        };
        let mut parts = started(Some(&filter), "StartTime");
        parts.push(equals("WorkflowId", "it's \\ 'odd'"));
        let text = parts.join(" AND ");
        assert!(text.starts_with("StartTime >= 1000000005 AND StartTime <= 2000000005 AND"));
        let query = Query::parse(&text, &Catalogue::default()).unwrap();
        assert!(format!("{query:?}").contains(r#"it's \\ 'odd'"#));
    }
}
