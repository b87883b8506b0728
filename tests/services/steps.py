"""Services that do as their input says. Usage: steps.py NAME|NAME+revert ...

One process serves every name given, each on its own socket. Each logs, per execution: `started`, then one of `executed`,
`failed`, `aborted`, or `remembered` when an earlier execution of the same id had already succeeded (a careful service's own
idempotency). Reverts: `revert-started`, then `reverted`, `revert-failed` or `revert-remembered`.
"""

import asyncio
import sys
from typing import List

from orra import CompensationResult, CompensationStatus, OrraService, PartialCompensation, RevertSource, Task
from pydantic import BaseModel, Field

from common import KEY, SDK_LOG_LEVEL, URL, identity, log, remember, remembered, serve


class Step(BaseModel):
    id: str = Field(description="what this step works on; an id already done is not done again")
    value: str = ""
    after: List[str] = Field(default=[], description="outputs this step waits for")
    sleep_ms: int = 0
    fail_times: int = Field(default=0, description="how many executions fail before one succeeds")
    abort_with: str = Field(default="", description="abort, with this as the reason")
    abort_bare: bool = Field(default=False, description="abort, without a payload")
    result_bytes: int = 0
    updates: int = Field(default=0, description="how many progress updates are pushed")
    update_every_ms: int = 0
    revert_as: str = Field(default="completed", description="completed, partial, failed, expired or raise")
    revert_sleep_ms: int = 0
    revert_fail_times: int = 0


class Line(BaseModel):
    sku: str
    price: float


class Receipt(BaseModel):
    total: float
    lines: List[Line]


class Done(BaseModel):
    id: str
    value: str
    runs: int
    blob: str
    receipt: Receipt


def count(key: str) -> int:
    """How often this was asked for, in this process and the ones before it."""
    runs = (remembered(key) or 0) + 1
    remember(key, runs)
    return runs


async def execute(name: str, task: Task[Step]) -> Done:
    step = task.input
    runs = count(f"{name}-{step.id}-runs")
    log("started", name, id=step.id, run=runs)
    if done := remembered(f"{name}-{step.id}-done"):
        log("remembered", name, id=step.id)
        return Done.model_validate(done)
    for number in range(step.updates):
        await task.push_update({"step": number + 1, "of": step.updates})
        await asyncio.sleep(step.update_every_ms / 1000)
    await asyncio.sleep(step.sleep_ms / 1000)
    if step.abort_bare:
        log("aborted", name, id=step.id)
        await task.abort()
    if step.abort_with:
        log("aborted", name, id=step.id)
        await task.abort({"reason": step.abort_with})
    if runs <= step.fail_times:
        log("failed", name, id=step.id)
        raise RuntimeError(f"{step.id} does not work (run {runs})")
    done = Done(
        id=step.id,
        value=step.value,
        runs=runs,
        blob="x" * step.result_bytes,
        receipt=Receipt(total=12.5, lines=[Line(sku="pen", price=2.5), Line(sku="book", price=10)]),
    )
    remember(f"{name}-{step.id}-done", done.model_dump())
    log("executed", name, id=step.id)
    return done


async def undo(name: str, source: RevertSource[Step, Done]) -> CompensationResult:
    step = source.input
    runs = count(f"{name}-{step.id}-reverts")
    context = source.context
    log(
        "revert-started",
        name,
        id=step.id,
        run=runs,
        result_id=source.output.id,
        reason=context.reason if context else None,
        payload=context.payload if context else None,
        orchestration=context.orchestration_id if context else None,
    )
    if remembered(f"{name}-{step.id}-reverted"):
        log("revert-remembered", name, id=step.id)
        return CompensationResult(status=CompensationStatus.COMPLETED)
    await asyncio.sleep(step.revert_sleep_ms / 1000)
    if runs <= step.revert_fail_times or step.revert_as == "raise":
        log("revert-failed", name, id=step.id)
        raise RuntimeError(f"{step.id} cannot be undone (run {runs})")
    remember(f"{name}-{step.id}-reverted", True)
    log("reverted", name, id=step.id)
    status = CompensationStatus(step.revert_as)
    if status is CompensationStatus.PARTIAL:
        partial = PartialCompensation(completed=["refund"], remaining=["letter"])
        return CompensationResult(status=status, partial=partial)
    error = f"{step.id} stays as it is" if status is CompensationStatus.FAILED else None
    return CompensationResult(status=status, error=error)


def build(name: str, revertible: bool) -> OrraService:
    service = OrraService(
        name=name,
        description=f"Performs the step {name}",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity(name),
        log_level=SDK_LOG_LEVEL,
        revertible=revertible,
    )

    @service.handler()
    async def handle(task: Task[Step]) -> Done:
        return await execute(name, task)

    if revertible:

        @service.revert_handler()
        async def revert(source: RevertSource[Step, Done]) -> CompensationResult:
            return await undo(name, source)

    return service


async def main() -> None:
    services = {}
    for argument in sys.argv[1:]:
        name, _, flag = argument.partition("+")
        services[name] = build(name, flag == "revert")
    await serve(services)


asyncio.run(main())
