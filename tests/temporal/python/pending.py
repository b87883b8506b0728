"""What a description says of what is pending."""

import asyncio
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError

S = timedelta(seconds=1)
gate = asyncio.Event()


@activity.defn
async def gated() -> str:
    if activity.info().attempt == 1:
        raise ApplicationError("once")
    activity.heartbeat("here")
    await gate.wait()
    return "through"


@workflow.defn
class Waits:
    @workflow.run
    async def run(self) -> str:
        child = asyncio.ensure_future(workflow.execute_child_workflow(Idle.run, id=f"{workflow.info().workflow_id}-child"))
        result = await workflow.execute_activity(
            gated, start_to_close_timeout=30 * S, heartbeat_timeout=20 * S,
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20)),
        )
        await child
        return result


@workflow.defn
class Idle:
    @workflow.run
    async def run(self) -> None:
        await workflow.sleep(60)


WORKFLOWS = [Waits, Idle]
ACTIVITIES = [gated]


async def test_a_description_shows_what_is_pending(stage):
    handle = await stage.start(Waits.run)

    async def second_attempt():
        raw = (await handle.describe()).raw_description
        pending = raw.pending_activities
        return len(pending) == 1 and pending[0].attempt == 2 and pending[0].HasField("heartbeat_details") and raw

    raw = await stage.eventually("the second attempt", second_attempt)
    pending = raw.pending_activities[0]
    assert pending.activity_type.name == "gated"
    assert pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
    assert pending.last_failure.message == "once"
    assert pending.HasField("last_started_time") and pending.HasField("scheduled_time")
    child = raw.pending_children[0]
    assert child.workflow_id == f"{handle.id}-child" and child.workflow_type_name == "Idle" and child.initiated_id == 6
    assert raw.execution_config.task_queue.name == stage.queue
    gate.set()
    await stage.until(handle, "ActivityTaskCompleted")
    await handle.terminate()
