//! Timers, signals, queries, updates, cancellation, termination, starts with their policies, patches, search attributes.

use anyhow::{bail, ensure};
use futures::future::join_all;
use temporalio_client::errors::{
    WorkflowGetResultError, WorkflowInteractionError, WorkflowStartError, WorkflowUpdateError,
};
use temporalio_client::{
    WorkflowExecuteUpdateOptions, WorkflowExecutionStatus, WorkflowIdConflictPolicy,
    WorkflowStartOptions, WorkflowUpdateWithStartOptions,
};
use temporalio_common::MemoValues;
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType;
use temporalio_common::protos::temporal::api::operatorservice::v1::AddSearchAttributesRequest;
use temporalio_common::search_attributes::SearchAttributes;
use tonic::IntoRequest as _;

use super::named;
use crate::harness::{DONE, STARTED, Stage, Test, name_of};
use crate::workflows::control::{
    AMOUNT, Account, CUSTOMER, Careful, Inbox, Order, Patches, Timers,
};

const SIGNAL: &str = "WorkflowExecutionSignaled";

pub fn tests(stage: &Stage) -> Vec<(&'static str, Test<'_>)> {
    named!(stage,
        timers_fire_and_are_cancelled
        signals_wake_and_queries_see_them
        signal_with_start
        updates_are_validated_accepted_and_deduplicated
        update_with_start
        cancellation_and_termination
        an_id_has_one_open_run
        patches_are_markers
        attributes_memos_lists_and_counts
    )
}

async fn timers_fire_and_are_cancelled(stage: &Stage) -> anyhow::Result<()> {
    let (handle, cancelled) = stage.run(Timers::run, ()).await?;
    ensure!(cancelled);
    let two = ["TimerStarted", "TimerStarted", "TimerFired"];
    let then = [
        "task",
        "TimerCanceled",
        "TimerStarted",
        "TimerFired",
        "task",
        DONE,
    ];
    let expected: Vec<&str> = [STARTED, "task"]
        .into_iter()
        .chain(two)
        .chain(then)
        .collect();
    stage
        .check("timers_fire_and_are_cancelled", &handle, Some(&expected))
        .await?;
    Ok(())
}

async fn signals_wake_and_queries_see_them(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Inbox::run, ()).await?;
    stage.until(&handle, "task", 1).await?;
    handle
        .signal(Inbox::put, "a".to_owned(), Default::default())
        .await?;
    let got = handle.query(Inbox::got, (), Default::default()).await?;
    ensure!(got == ["a"], "{got:?}");
    let asked = (0..10).map(|_| handle.query(Inbox::got, (), Default::default()));
    for got in join_all(asked).await {
        ensure!(got? == ["a"]);
    }
    handle
        .signal(Inbox::put, "stop".to_owned(), Default::default())
        .await?;
    let result = handle.get_result(Default::default()).await?;
    ensure!(result == ["a", "stop"], "{result:?}");
    let got = handle.query(Inbox::got, (), Default::default()).await?;
    ensure!(got == ["a", "stop"], "of a closed run: {got:?}");
    let late = handle
        .signal(Inbox::put, "late".to_owned(), Default::default())
        .await;
    ensure!(
        matches!(late, Err(WorkflowInteractionError::NotFound(_))),
        "{late:?}"
    );
    let test = "signals_wake_and_queries_see_them";
    stage
        .check(
            test,
            &handle,
            Some(&[STARTED, "task", SIGNAL, "task", SIGNAL, "task", DONE]),
        )
        .await?;
    Ok(())
}

async fn signal_with_start(stage: &Stage) -> anyhow::Result<()> {
    let id = stage.id();
    let mut runs = Vec::new();
    for text in ["a", "stop"] {
        let options = WorkflowStartOptions::new(stage.queue.clone(), id.clone()).build();
        let handle = stage
            .client
            .signal_with_start_workflow(Inbox::run, (), Inbox::put, text.to_owned(), options)
            .await?;
        runs.push(handle);
    }
    let result = runs[1].get_result(Default::default()).await?;
    ensure!(result == ["a", "stop"], "{result:?}");
    let events = stage.check("signal_with_start", &runs[0], None).await?;
    let names: Vec<String> = events[..3].iter().map(name_of).collect();
    ensure!(
        names == [STARTED, SIGNAL, "WorkflowTaskScheduled"],
        "{names:?}"
    );
    Ok(())
}

async fn updates_are_validated_accepted_and_deduplicated(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Account::run, ()).await?;
    stage.until(&handle, "task", 1).await?;
    let before = stage.events(&handle).await?;
    let refused = handle
        .execute_update(Account::deposit, -1, Default::default())
        .await;
    ensure!(
        matches!(refused, Err(WorkflowUpdateError::Failed(_))),
        "{refused:?}"
    );
    ensure!(
        stage.events(&handle).await? == before,
        "a rejected update leaves no trace"
    );
    let sum = handle
        .execute_update(Account::deposit, 5, Default::default())
        .await?;
    ensure!(sum == 5, "{sum}");
    let unlucky = handle
        .execute_update(Account::deposit, 13, Default::default())
        .await;
    ensure!(
        matches!(unlucky, Err(WorkflowUpdateError::Failed(_))),
        "{unlucky:?}"
    );
    let accepted = handle
        .start_update(Account::deposit, 100, Default::default())
        .await?;
    ensure!(accepted.get_result(Default::default()).await? == 105);
    let once = || {
        WorkflowExecuteUpdateOptions::builder()
            .update_id("once".to_owned())
            .build()
    };
    let twice = [
        handle.execute_update(Account::deposit, 1, once()),
        handle.execute_update(Account::deposit, 1, once()),
    ];
    for sum in join_all(twice).await {
        ensure!(sum? == 106);
    }
    handle
        .signal(Account::close, (), Default::default())
        .await?;
    ensure!(handle.get_result(Default::default()).await? == 106);
    let late = handle
        .execute_update(Account::deposit, 1, Default::default())
        .await;
    ensure!(
        matches!(late, Err(WorkflowUpdateError::NotFound(_))),
        "{late:?}"
    );
    let events = stage
        .check(
            "updates_are_validated_accepted_and_deduplicated",
            &handle,
            None,
        )
        .await?;
    ensure!(
        events
            .iter()
            .filter(|event| name_of(event) == "WorkflowExecutionUpdateAccepted")
            .count()
            == 4
    );
    Ok(())
}

async fn update_with_start(stage: &Stage) -> anyhow::Result<()> {
    let id = stage.id();
    for wanted in [4, 8] {
        let options = WorkflowUpdateWithStartOptions::new(
            stage.queue.clone(),
            id.clone(),
            WorkflowIdConflictPolicy::UseExisting,
        )
        .build();
        let sum = stage
            .client
            .execute_update_with_start_workflow(Account::run, (), Account::deposit, 4, options)
            .await?;
        ensure!(sum == wanted, "{sum}");
    }
    let handle = stage.client.get_workflow_handle::<Account>(id);
    handle
        .signal(Account::close, (), Default::default())
        .await?;
    ensure!(handle.get_result(Default::default()).await? == 8);
    stage.check("update_with_start", &handle, None).await?;
    Ok(())
}

async fn cancellation_and_termination(stage: &Stage) -> anyhow::Result<()> {
    let test = "cancellation_and_termination";
    let cleaning = [
        "WorkflowExecutionCancelRequested",
        "task",
        "ActivityTaskScheduled",
        "ActivityTaskStarted",
        "ActivityTaskCompleted",
        "task",
    ];
    for (swallow, end) in [(true, DONE), (false, "WorkflowExecutionCanceled")] {
        let handle = stage.start(Careful::run, swallow).await?;
        stage.until(&handle, "task", 1).await?;
        handle.cancel(Default::default()).await?;
        match handle.get_result(Default::default()).await {
            Ok(result) => ensure!(swallow && result == "cleaned up", "{result}"),
            Err(WorkflowGetResultError::Cancelled { .. }) => ensure!(!swallow),
            Err(other) => bail!("{other}"),
        }
        let expected: Vec<&str> = [STARTED, "task"]
            .into_iter()
            .chain(cleaning)
            .chain([end])
            .collect();
        stage.check(test, &handle, Some(&expected)).await?;
    }
    let handle = stage.start(Careful::run, true).await?;
    stage.until(&handle, "task", 1).await?;
    handle.terminate(Default::default()).await?;
    let ended = handle.get_result(Default::default()).await;
    ensure!(
        matches!(ended, Err(WorkflowGetResultError::Terminated { .. })),
        "{ended:?}"
    );
    stage
        .check(
            test,
            &handle,
            Some(&[STARTED, "task", "WorkflowExecutionTerminated"]),
        )
        .await?;
    let told = handle.describe(Default::default()).await?;
    ensure!(
        told.status() == WorkflowExecutionStatus::Terminated && told.close_time().is_some(),
        "{:?}",
        told.status()
    );
    Ok(())
}

async fn an_id_has_one_open_run(stage: &Stage) -> anyhow::Result<()> {
    let handle = stage.start(Inbox::run, ()).await?;
    let id = handle.info().workflow_id.clone();
    let again = async |policy| {
        let options = WorkflowStartOptions::new(stage.queue.clone(), id.clone())
            .id_conflict_policy(policy)
            .build();
        stage.client.start_workflow(Inbox::run, (), options).await
    };
    let refused = again(WorkflowIdConflictPolicy::Fail).await;
    ensure!(
        matches!(
            refused,
            Err(WorkflowStartError::AlreadyStarted {
                run_id: Some(_),
                ..
            })
        ),
        "a second start is refused"
    );
    let same = again(WorkflowIdConflictPolicy::UseExisting).await?;
    ensure!(same.run_id() == handle.run_id());
    let fresh = again(WorkflowIdConflictPolicy::TerminateExisting).await?;
    ensure!(fresh.run_id() != handle.run_id());
    fresh
        .signal(Inbox::put, "stop".to_owned(), Default::default())
        .await?;
    ensure!(fresh.get_result(Default::default()).await? == ["stop"]);
    stage.check("an_id_has_one_open_run", &fresh, None).await?;
    Ok(())
}

async fn patches_are_markers(stage: &Stage) -> anyhow::Result<()> {
    let (handle, new) = stage.run(Patches::run, ()).await?;
    ensure!(new);
    let expected = [
        STARTED,
        "task",
        "MarkerRecorded",
        "UpsertWorkflowSearchAttributes",
        "TimerStarted",
        "TimerFired",
        "task",
        DONE,
    ];
    stage
        .check("patches_are_markers", &handle, Some(&expected))
        .await?;
    Ok(())
}

async fn attributes_memos_lists_and_counts(stage: &Stage) -> anyhow::Result<()> {
    let add = AddSearchAttributesRequest {
        namespace: stage.client.options().namespace.clone(),
        search_attributes: [
            ("RustCustomer", IndexedValueType::Keyword),
            ("RustAmount", IndexedValueType::Int),
        ]
        .map(|(name, kind)| (name.to_owned(), kind.into()))
        .into(),
    };
    stage
        .client
        .connection()
        .operator_service()
        .add_search_attributes(add.into_request())
        .await?;
    let customer = stage.id();
    let mut memo = MemoValues::new();
    memo.insert("stage", "new".to_owned())
        .insert("gone", "soon".to_owned());
    let options = WorkflowStartOptions::new(stage.queue.clone(), stage.id())
        .search_attributes(SearchAttributes::new(
            [CUSTOMER.value_set(customer.clone())],
        ))
        .memo(memo)
        .static_summary("an order".to_owned())
        .build();
    let handle = stage.client.start_workflow(Order::run, 40, options).await?;
    ensure!(handle.get_result(Default::default()).await? == customer);
    let told = handle.describe(Default::default()).await?;
    ensure!(
        told.search_attributes().get(&AMOUNT) == Some(40),
        "{:?}",
        told.raw().workflow_execution_info
    );
    ensure!(
        told.static_summary() == Some("an order"),
        "{:?}",
        told.static_summary()
    );
    let info = told
        .raw()
        .workflow_execution_info
        .clone()
        .unwrap_or_default();
    let memo: Vec<String> = info.memo.unwrap_or_default().fields.into_keys().collect();
    ensure!(memo == ["stage"], "{memo:?}");
    let query = format!(
        "RustCustomer = '{customer}' AND RustAmount > 39 AND ExecutionStatus = 'Completed'"
    );
    let counted = stage
        .client
        .count_workflows(query.clone(), Default::default())
        .await?;
    ensure!(counted.count() == 1, "{}", counted.count());
    use futures::StreamExt as _;
    let listed: Vec<_> = stage
        .client
        .list_workflows(query, Default::default())
        .collect()
        .await;
    ensure!(
        listed.len() == 1
            && listed[0]
                .as_ref()
                .is_ok_and(|run| run.id() == handle.info().workflow_id),
        "{}",
        listed.len()
    );
    let changes = [
        "UpsertWorkflowSearchAttributes",
        "WorkflowPropertiesModified",
        DONE,
    ];
    let expected: Vec<&str> = [STARTED, "task"].into_iter().chain(changes).collect();
    stage
        .check(
            "attributes_memos_lists_and_counts",
            &handle,
            Some(&expected),
        )
        .await?;
    Ok(())
}
