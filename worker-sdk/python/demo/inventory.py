"""Takes products from the shelf, and can put them back."""

import asyncio

from orra import CompensationResult, CompensationStatus, OrraService, RevertSource, Task
from pydantic import BaseModel, Field

from shop import KEY, URL, identity, open_shop, record

PRICES = {"lamp": 39.5, "desk": 220.0, "chair": 85.0}


class Wanted(BaseModel):
    productId: str = Field(description="the product to reserve")
    quantity: int = Field(description="how many of it")


class Reserved(BaseModel):
    reservationId: str
    total: float = Field(description="what the reserved products cost")


async def main() -> None:
    inventory = OrraService(
        name="inventory",
        description="Reserves a quantity of a product for an order",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity("inventory"),
        log_level="ERROR",
        revertible=True,
    )

    @inventory.handler()
    async def reserve(task: Task[Wanted]) -> Reserved:
        product, quantity = task.input.productId, task.input.quantity
        await asyncio.sleep(0.4)
        reservation = f"R-{quantity}-{product}"
        record("inventory", "reserved", reservation)
        return Reserved(reservationId=reservation, total=quantity * PRICES[product])

    @inventory.revert_handler()
    async def put_back(source: RevertSource[Wanted, Reserved]) -> CompensationResult:
        await asyncio.sleep(0.4)
        record("inventory", "put back", source.output.reservationId)
        return CompensationResult(status=CompensationStatus.COMPLETED)

    await open_shop("inventory", inventory)


asyncio.run(main())
