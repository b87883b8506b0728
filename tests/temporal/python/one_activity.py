"""A workflow with one activity, whose lost attempts come back soon: what a load runs while the server is being broken."""

from datetime import timedelta

from temporalio import activity, workflow
from temporalio.common import RetryPolicy


@activity.defn
async def do(value: str) -> str:
    return f"done {value}"


@workflow.defn
class OneActivity:
    @workflow.run
    async def run(self, value: str) -> str:
        done = await workflow.execute_activity(
            do,
            value,
            start_to_close_timeout=timedelta(seconds=2),
            retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=50), backoff_coefficient=1.0),
        )
        return f"all of: {done}"


WORKFLOWS = [OneActivity]
ACTIVITIES = [do]
