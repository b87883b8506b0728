"""An agent: the same shape as a service, for work that a model does. Sorts what customers write.

    ENGINE_KEY=sk-orra-… python agent.py
    orchestrion verify run "Triage the message of a customer" -d message:"My invoice is wrong!" --follow

The model is left out so that this runs anywhere: put your call where `think` is.
"""

import asyncio
import os
from enum import Enum

from orra import OrraAgent, Task
from pydantic import BaseModel, Field


class Desk(str, Enum):
    BILLING = "billing"
    SHIPPING = "shipping"
    OTHER = "other"


class Message(BaseModel):
    message: str = Field(description="what the customer wrote")


class Triage(BaseModel):
    desk: Desk = Field(description="who should answer the message")
    urgent: bool = Field(description="whether the customer is in a hurry")


SIGNS = {Desk.BILLING: ("invoice", "refund", "charge"), Desk.SHIPPING: ("parcel", "delivery", "late")}


async def think(message: str) -> Triage:
    """Where a model would be asked. Its answer is recorded with the task: a crash of the engine does not ask twice."""
    await asyncio.sleep(0.1)
    lowered = message.lower()
    desk = next((desk for desk, signs in SIGNS.items() if any(sign in lowered for sign in signs)), Desk.OTHER)
    return Triage(desk=desk, urgent="!" in message)


async def main() -> None:
    triage = OrraAgent(
        name="triage-agent",
        description="Triages the message of a customer: which desk should answer, and how urgent it is",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
    )

    @triage.handler()
    async def sort(task: Task[Message]) -> Triage:
        return await think(task.input.message)

    await triage.start()
    print(f"triage-agent is {triage.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
