"""Search attributes and memos, lists and counts, namespaces."""

import asyncio
from datetime import datetime, timedelta, timezone

from harness import DONE, STARTED, attributes, name_of, raises
from google.protobuf.duration_pb2 import Duration
from temporalio import workflow
from temporalio.api.enums.v1 import IndexedValueType as Kind
from temporalio.api.enums.v1 import WorkflowTaskFailedCause
from temporalio.api.namespace.v1 import NamespaceConfig, UpdateNamespaceInfo
from temporalio.api.operatorservice import v1 as operator
from temporalio.api.workflowservice import v1 as service
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.service import RPCError, RPCStatusCode

CUSTOMER = SearchAttributeKey.for_keyword("Customer")
AMOUNT = SearchAttributeKey.for_int("Amount")
RATE = SearchAttributeKey.for_float("Rate")
PAID = SearchAttributeKey.for_bool("Paid")
DUE = SearchAttributeKey.for_datetime("Due")
TAGS = SearchAttributeKey.for_keyword_list("Tags")
NOTE = SearchAttributeKey.for_text("Note")
KINDS = {
    "Customer": Kind.INDEXED_VALUE_TYPE_KEYWORD,
    "Amount": Kind.INDEXED_VALUE_TYPE_INT,
    "Rate": Kind.INDEXED_VALUE_TYPE_DOUBLE,
    "Paid": Kind.INDEXED_VALUE_TYPE_BOOL,
    "Due": Kind.INDEXED_VALUE_TYPE_DATETIME,
    "Tags": Kind.INDEXED_VALUE_TYPE_KEYWORD_LIST,
    "Note": Kind.INDEXED_VALUE_TYPE_TEXT,
}
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@workflow.defn
class Order:
    def __init__(self):
        self.closed = False

    @workflow.signal
    def close(self):
        self.closed = True

    @workflow.run
    async def run(self, amount: int) -> str:
        workflow.upsert_search_attributes([AMOUNT.value_set(amount), PAID.value_set(False), NOTE.value_unset()])
        workflow.upsert_memo({"step": "begun", "gone": None})
        await workflow.wait_condition(lambda: self.closed)
        workflow.upsert_search_attributes([PAID.value_set(True)])
        return "paid"


@workflow.defn
class Wrong:
    """Upserts what is not registered, until the test adds it."""

    @workflow.run
    async def run(self, name: str) -> str:
        workflow.upsert_search_attributes([SearchAttributeKey.for_keyword(name).value_set("x")])
        return "done"


@workflow.defn
class Quick:
    @workflow.run
    async def run(self) -> str:
        return "quick"


WORKFLOWS = [Order, Wrong, Quick]
ACTIVITIES = []


async def prepare(stage):
    request = operator.AddSearchAttributesRequest(namespace=stage.client.namespace, search_attributes=KINDS)
    await stage.client.operator_service.add_search_attributes(request)
    # The same again is no error.
    await stage.client.operator_service.add_search_attributes(request)


async def listed(stage, query, **options):
    return [run async for run in stage.client.list_workflows(query, **options)]


def given(customer, **more):
    pairs = [SearchAttributePair(CUSTOMER, customer)]
    keys = {"rate": RATE, "due": DUE, "tags": TAGS, "note": NOTE}
    pairs += [SearchAttributePair(keys[name], value) for name, value in more.items()]
    return TypedSearchAttributes(pairs)


async def test_attributes_are_searched_from_start_to_end(stage):
    customer = stage.id("c")
    attributes_given = given(customer, rate=0.5, due=NOON, tags=["new", "big"], note="A quick brown fox")
    handle = await stage.start(Order.run, 30, search_attributes=attributes_given, memo={"gone": 1, "who": customer})
    await stage.until(handle, "task")
    mine = f"Customer = '{customer}'"
    holds = [
        "Amount = 30",
        "Amount BETWEEN 29 AND 31",
        "Amount > 29 AND Rate < 0.6",
        "Paid = false",
        "Due = '2026-01-31T12:00:00Z'",
        "Due > '2026-01-31T13:30:00+02:00'",
        "Tags = 'big' AND Tags != 'small'",
        "Tags IN ('small', 'new')",
        "Note IS NULL",
        "ExecutionStatus = 'Running' AND CloseTime IS NULL",
        "WorkflowType = 'Order'",
        f"TaskQueue = '{stage.queue}'",
        f"WorkflowId STARTS_WITH '{handle.id[:5]}'",
        f"RunId = '{handle.result_run_id}'",
        f"StartTime > '{(datetime.now(timezone.utc) - timedelta(minutes=5)).isoformat()}'",
        f"RootWorkflowId = '{handle.id}'",
    ]
    for query in holds:
        assert [run.id for run in await listed(stage, f"{mine} AND {query}")] == [handle.id], query
        assert not await listed(stage, f"{mine} AND NOT ({query})"), query
    run = (await listed(stage, mine))[0]
    assert run.run_id == handle.result_run_id and run.status == WorkflowExecutionStatus.RUNNING
    found = run.typed_search_attributes
    assert found[CUSTOMER] == customer and found[AMOUNT] == 30 and found[TAGS] == ["new", "big"] and found[DUE] == NOON
    assert await run.memo() == {"who": customer, "step": "begun"}
    assert (await handle.describe()).typed_search_attributes[PAID] is False

    await handle.signal(Order.close)
    await handle.result()
    assert [run.id for run in await listed(stage, f"{mine} AND Paid = true AND ExecutionStatus = 'Completed'")] == [handle.id]
    assert not await listed(stage, f"{mine} AND ExecutionStatus = 'Running'")
    run = (await listed(stage, f"{mine} AND HistoryLength > 5 AND ExecutionDuration < '60s'"))[0]
    upsert = "UpsertWorkflowSearchAttributes"
    events = await stage.check(
        handle,
        [STARTED, "task", upsert, "WorkflowPropertiesModified", "WorkflowExecutionSignaled", "task", upsert, DONE],
    )
    assert run.history_length == len(events) and run.close_time is not None


async def test_pages_and_counts(stage):
    customer = stage.id("c")
    open_runs = [await stage.start(Order.run, n, search_attributes=given(customer)) for n in range(4)]
    closed = [await stage.run(Quick.run, search_attributes=given(customer)) for _ in range(7)]
    mine = f"Customer = '{customer}'"
    runs = await listed(stage, mine, page_size=3)
    expected = [handle.id for handle in open_runs] + [handle.id for handle, _ in closed]
    assert [run.id for run in runs] == expected[::-1], "newest first, each once"
    assert len(await listed(stage, mine, limit=5)) == 5
    assert (await stage.client.count_workflows(mine)).count == 11
    counted = await stage.client.count_workflows(f"{mine} GROUP BY ExecutionStatus")
    groups = {group.group_values[0]: group.count for group in counted.groups}
    assert groups == {"Running": 4, "Completed": 7} and counted.count == 11, counted
    await asyncio.gather(*(handle.terminate() for handle in open_runs))
    counted = await stage.client.count_workflows(f"{mine} AND ExecutionStatus = 'Terminated'")
    assert counted.count == 4


async def test_wrong_queries_say_where_and_what(stage):
    for query, says in [
        ("Nothing = 1", "Nothing is not defined"),
        ("Amount = 'x'", "whole number"),
        ("ExecutionStatus = 'Runing'", "Running, Completed"),
        ("WorkflowId = ", "position 14"),
        ("Customer = 'a' ORDER BY Amount", "newest first"),
    ]:
        error = await raises(RPCError, listed(stage, query), says)
        assert error.status == RPCStatusCode.INVALID_ARGUMENT, error
        await raises(RPCError, stage.client.count_workflows(query), says)


async def test_a_start_with_a_wrong_attribute_is_refused_whole(stage):
    id = stage.id()
    unknown = TypedSearchAttributes([SearchAttributePair(SearchAttributeKey.for_keyword("Nowhere"), "x")])
    error = await raises(RPCError, stage.start(Quick.run, id=id, search_attributes=unknown), "Nowhere")
    assert error.status == RPCStatusCode.INVALID_ARGUMENT, error
    wrong = TypedSearchAttributes([SearchAttributePair(SearchAttributeKey.for_keyword("Amount"), "many")])
    error = await raises(RPCError, stage.start(Quick.run, id=id, search_attributes=wrong), "Amount")
    assert error.status == RPCStatusCode.INVALID_ARGUMENT, error
    assert not await listed(stage, f"WorkflowId = '{id}'")


async def test_an_upsert_of_an_unknown_attribute_fails_its_task_only(stage):
    name = stage.id("Late").replace("-", "")
    handle = await stage.start(Wrong.run, name)
    await stage.until(handle, "WorkflowTaskFailed")
    kinds = {name: Kind.INDEXED_VALUE_TYPE_KEYWORD}
    request = operator.AddSearchAttributesRequest(namespace=stage.client.namespace, search_attributes=kinds)
    await stage.client.operator_service.add_search_attributes(request)
    assert await handle.result() == "done"
    failed = next(e for e in await stage.check(handle) if name_of(e) == "WorkflowTaskFailed")
    assert attributes(failed).cause == WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_BAD_SEARCH_ATTRIBUTES
    assert [run.id for run in await listed(stage, f"{name} = 'x'")] == [handle.id]


async def test_attributes_are_listed_added_and_removed(stage):
    calls = stage.client.operator_service
    namespace = stage.client.namespace
    known = await calls.list_search_attributes(operator.ListSearchAttributesRequest(namespace=namespace))
    assert known.custom_attributes["Tags"] == Kind.INDEXED_VALUE_TYPE_KEYWORD_LIST
    assert known.system_attributes["WorkflowId"] == Kind.INDEXED_VALUE_TYPE_KEYWORD
    name = stage.id("Brief").replace("-", "")
    add = operator.AddSearchAttributesRequest(namespace=namespace, search_attributes={name: Kind.INDEXED_VALUE_TYPE_INT})
    await calls.add_search_attributes(add)
    add.search_attributes[name] = Kind.INDEXED_VALUE_TYPE_BOOL
    error = await raises(RPCError, calls.add_search_attributes(add))
    assert error.status == RPCStatusCode.ALREADY_EXISTS, error
    remove = operator.RemoveSearchAttributesRequest(namespace=namespace, search_attributes=[name])
    await calls.remove_search_attributes(remove)
    error = await raises(RPCError, calls.remove_search_attributes(remove))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    await raises(RPCError, listed(stage, f"{name} = 1"), "not defined")


async def test_namespaces_are_registered_changed_and_deleted(stage):
    calls = stage.client.workflow_service
    name = stage.id("ns")
    register = service.RegisterNamespaceRequest(
        namespace=name, description="a test", workflow_execution_retention_period=Duration(seconds=3600)
    )
    await calls.register_namespace(register)
    error = await raises(RPCError, calls.register_namespace(register))
    assert error.status == RPCStatusCode.ALREADY_EXISTS, error
    update = service.UpdateNamespaceRequest(
        namespace=name,
        update_info=UpdateNamespaceInfo(description="changed", data={"team": "a"}),
        config=NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=7200)),
    )
    await calls.update_namespace(update)
    described = await calls.describe_namespace(service.DescribeNamespaceRequest(namespace=name))
    assert described.namespace_info.description == "changed" and described.namespace_info.data["team"] == "a"
    assert described.config.workflow_execution_retention_ttl.seconds == 7200
    by_id = service.DescribeNamespaceRequest(id=described.namespace_info.id)
    assert (await calls.describe_namespace(by_id)).namespace_info.name == name
    names, token = [], b""
    while True:
        page = await calls.list_namespaces(service.ListNamespacesRequest(page_size=1, next_page_token=token))
        names += [it.namespace_info.name for it in page.namespaces]
        token = page.next_page_token
        if not token:
            break
    assert name in names and "default" in names, names

    # Attributes and runs are the namespace's own.
    other = await Client.connect(stage.client.service_client.config.target_host, namespace=name)
    error = await raises(RPCError, other.count_workflows("Customer = 'x'"), "not defined")
    assert (await other.count_workflows("")).count == 0

    delete = operator.DeleteNamespaceRequest(namespace=name)
    await stage.client.operator_service.delete_namespace(delete)
    error = await raises(RPCError, other.count_workflows(""))
    assert error.status == RPCStatusCode.NOT_FOUND, error
    await calls.register_namespace(register)
