//! Questions to workflow code.

use orchestrion_proto::temporal::api::enums::v1::{
    QueryRejectCondition, QueryResultType, WorkflowExecutionStatus,
};
use orchestrion_proto::temporal::api::errordetails::v1::QueryFailedFailure;
use orchestrion_proto::temporal::api::query::v1::QueryRejected;
use orchestrion_proto::temporal::api::workflowservice::v1::{
    QueryWorkflowRequest, QueryWorkflowResponse, RespondQueryTaskCompletedRequest,
    RespondQueryTaskCompletedResponse,
};
use tonic::{Code, Request, Response, Status};

use super::token::TaskToken;
use super::{Temporal, edge, errors, history};
use crate::engine::polling::QueryOutcome;

impl Temporal {
    pub(super) async fn ask_workflow(
        &self,
        request: Request<QueryWorkflowRequest>,
    ) -> Result<Response<QueryWorkflowResponse>, Status> {
        let namespace = self.namespace(&request, &request.get_ref().namespace)?;
        let ask = request.into_inner();
        let mut target = edge::target(&namespace, ask.execution.as_ref())?;
        let condition = ask.query_reject_condition();
        let query = ask.query.ok_or_else(|| {
            Status::invalid_argument("query is not set: name one by its query type")
        })?;
        if query.query_type.is_empty() {
            return Err(Status::invalid_argument(
                "query type is empty: name a query",
            ));
        }
        edge::sized(
            "the query's arguments",
            query.query_args.as_ref(),
            self.blob_max(),
        )?;
        let run_id = self.run_of(&target)?;
        target.run_id = Some(run_id);
        let place = (&namespace, &target.workflow_id, run_id);
        let head = self.api.handle.run_head(place).map_err(errors::of_call)?;
        let head = head.ok_or_else(|| history::no_such_run(&target.workflow_id))?;
        let status = WorkflowExecutionStatus::try_from(head.status).unwrap_or_default();
        let rejected = match condition {
            QueryRejectCondition::NotOpen => status != WorkflowExecutionStatus::Running,
            QueryRejectCondition::NotCompletedCleanly => !matches!(
                status,
                WorkflowExecutionStatus::Running | WorkflowExecutionStatus::Completed
            ),
            QueryRejectCondition::Unspecified | QueryRejectCondition::None => false,
        };
        if rejected {
            return Ok(Response::new(QueryWorkflowResponse {
                query_rejected: Some(QueryRejected {
                    status: status.into(),
                }),
                ..Default::default()
            }));
        }
        let outcome = self.api.handle.query(target, query).await;
        match outcome.map_err(errors::of_call)? {
            QueryOutcome::Answered(query_result) => Ok(Response::new(QueryWorkflowResponse {
                query_result,
                ..Default::default()
            })),
            QueryOutcome::Failed { message, failure } => Err(errors::detailed(
                Code::InvalidArgument,
                message,
                "QueryFailedFailure",
                &QueryFailedFailure {
                    failure: failure.map(|failure| *failure),
                },
            )),
        }
    }

    pub(super) async fn answer_question(
        &self,
        request: Request<RespondQueryTaskCompletedRequest>,
    ) -> Result<Response<RespondQueryTaskCompletedResponse>, Status> {
        let token = TaskToken::query(&request.get_ref().task_token)?;
        let namespace =
            self.task_namespace(&request, &request.get_ref().namespace, &token.namespace)?;
        let respond = request.into_inner();
        let outcome = match respond.completed_type() {
            QueryResultType::Answered => QueryOutcome::Answered(respond.query_result),
            QueryResultType::Failed | QueryResultType::Unspecified => QueryOutcome::Failed {
                message: respond.error_message,
                failure: respond.failure.map(Box::new),
            },
        };
        let answer = self
            .api
            .handle
            .answer_query(namespace, token.query_id, outcome);
        if answer.await.map_err(errors::of_call)? {
            Ok(Response::new(RespondQueryTaskCompletedResponse {}))
        } else {
            Err(errors::not_found(
                "query task is not found: nobody waits for its answer any more",
            ))
        }
    }
}
