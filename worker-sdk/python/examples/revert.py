"""Revert: what was done is undone when a later step fails or aborts. Holds seats, and sells them.

    ENGINE_KEY=sk-orra-… python revert.py
    orchestrion verify run "Hold seats for the show and sell the ticket to the customer" \\
        -d show:Hamlet -d seats:=2 -d customer:broke --follow
    orchestrion inspect <id>

Two services in one process. The second one aborts for a customer without money, and the first one gets its seats back.
"""

import asyncio
import os

from orra import CompensationResult, CompensationStatus, OrraService, PartialCompensation, RevertSource, Task
from pydantic import BaseModel, Field

CONNECTION = {"url": os.environ.get("ENGINE_URL", "http://localhost:8005"), "api_key": os.environ["ENGINE_KEY"]}


class Show(BaseModel):
    show: str = Field(description="the show's title")
    seats: int = Field(description="how many seats are held")


class Hold(BaseModel):
    holdId: str = Field(description="the proof that seats are held")


class Sale(BaseModel):
    holdId: str = Field(description="the proof that seats are held")
    customer: str = Field(description="who buys the ticket")


class Ticket(BaseModel):
    ticket: str


async def main() -> None:
    hall = OrraService(name="hall", description="Holds seats for a show", revertible=True, **CONNECTION)
    box_office = OrraService(name="box-office", description="Sells the ticket of held seats to a customer", **CONNECTION)

    @hall.handler()
    async def hold(task: Task[Show]) -> Hold:
        print(f"held: {task.input.seats} seats for {task.input.show}", flush=True)
        return Hold(holdId=f"{task.input.show}-{task.input.seats}")

    # Gets what came in, what went out, and why it is undone. A revert may come twice (a crash in between): it must
    # do no harm then. What it answers stands in the record: completed, partial with what is left, failed. A failed
    # one is not forgotten either: `orchestrion comp-fail ls`.
    @hall.revert_handler()
    async def release(source: RevertSource[Show, Hold]) -> CompensationResult:
        why = source.context
        print(f"released: {source.output.holdId}, because it was {why.reason}: {why.payload}", flush=True)
        if source.input.show == "Premiere":
            left = PartialCompensation(completed=["seats"], remaining=["printed programmes"])
            return CompensationResult(status=CompensationStatus.PARTIAL, partial=left)
        return CompensationResult(status=CompensationStatus.COMPLETED)

    @box_office.handler()
    async def sell(task: Task[Sale]) -> Ticket:
        if task.input.customer == "broke":
            await task.abort({"reason": "the card was declined"})
        print(f"sold: {task.input.holdId} to {task.input.customer}", flush=True)
        return Ticket(ticket=f"{task.input.holdId}-{task.input.customer}")

    for name, service in {"hall": hall, "box-office": box_office}.items():
        await service.start()
        print(f"{name} is {service.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
