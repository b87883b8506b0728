"""Brings parcels to addresses that can be reached, and stops the order at those that cannot."""

import asyncio

from orra import OrraService, Task
from pydantic import BaseModel, Field

from shop import KEY, URL, identity, open_shop, record

STOPS = ["packed", "on the road", "at the door"]


class Parcel(BaseModel):
    reservationId: str = Field(description="what is in it")
    paymentId: str = Field(description="the proof that it is paid")
    address: str = Field(description="where it goes")


class Delivered(BaseModel):
    trackingId: str
    address: str


async def main() -> None:
    delivery = OrraService(
        name="delivery",
        description="Delivers a reserved and paid order to an address",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity("delivery"),
        log_level="ERROR",
    )

    @delivery.handler()
    async def deliver(task: Task[Parcel]) -> Delivered:
        address = task.input.address
        if "Atlantis" in address:
            await task.abort({"reason": "no road leads there", "address": address})
        record("delivery", "left", task.input.reservationId)
        pause = 1.2 if "Far Island" in address else 0.3
        for number, stop in enumerate(STOPS, start=1):
            await task.push_update({"stop": stop, "percentComplete": 100 * number // len(STOPS)})
            await asyncio.sleep(pause)
        record("delivery", "delivered", task.input.reservationId)
        return Delivered(trackingId=f"T-{task.input.reservationId}", address=address)

    await open_shop("delivery", delivery)


asyncio.run(main())
