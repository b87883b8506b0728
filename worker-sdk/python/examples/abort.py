"""Abort: a task that finds out that going on makes no sense. Books a table, if there is one.

    ENGINE_KEY=sk-orra-… python abort.py
    orchestrion verify run "Book a table for the guests at the hour" -d guests:=4 -d hour:=20 --follow
    orchestrion verify run "Book a table for the guests at the hour" -d guests:=7 -d hour:=20 --follow

An exception says "it did not work this time": the engine tries again. An abort says "it will not work": nothing is
tried again, the orchestration ends as aborted, and what other services have done for it is undone (revert.py).
"""

import asyncio
import os

from orra import OrraService, Task
from pydantic import BaseModel, Field

SEATS = {18: 8, 20: 6}  # of the largest free table, by the hour


class Wish(BaseModel):
    guests: int = Field(description="how many guests will come")
    hour: int = Field(description="the hour, from 0 to 23")


class Booking(BaseModel):
    table: str


async def main() -> None:
    tables = OrraService(
        name="tables",
        description="Books a table for a number of guests at an hour",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
    )

    @tables.handler()
    async def book(task: Task[Wish]) -> Booking:
        wish = task.input
        if wish.guests > SEATS.get(wish.hour, 0):
            # The payload is for those who asked: `inspect`, the webhook, and every revert handler get it.
            await task.abort(
                {
                    "reason": "no table is large enough",
                    "seatsFree": SEATS.get(wish.hour, 0),
                    "otherHours": [hour for hour, seats in SEATS.items() if seats >= wish.guests],
                }
            )
            # Never reached: abort() ends the handler.
        return Booking(table=f"T{wish.hour}-{wish.guests}")

    await tables.start()
    print(f"tables is {tables.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
