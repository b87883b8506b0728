"""Charges customers, and can give the money back."""

import asyncio

from orra import CompensationResult, CompensationStatus, OrraService, RevertSource, Task
from pydantic import BaseModel, Field

from shop import KEY, URL, identity, open_shop, record


class Bill(BaseModel):
    customerId: str = Field(description="who pays")
    total: float = Field(description="how much")


class Paid(BaseModel):
    paymentId: str


async def main() -> None:
    payment = OrraService(
        name="payment",
        description="Charges a customer the total of an order",
        url=URL,
        api_key=KEY,
        persistence_file_path=identity("payment"),
        log_level="ERROR",
        revertible=True,
    )

    @payment.handler()
    async def charge(task: Task[Bill]) -> Paid:
        await asyncio.sleep(0.4)
        number = f"P-{task.input.customerId}-{task.input.total:.2f}"
        record("payment", "charged", number)
        return Paid(paymentId=number)

    @payment.revert_handler()
    async def refund(source: RevertSource[Bill, Paid]) -> CompensationResult:
        await asyncio.sleep(0.4)
        record("payment", "refunded", source.output.paymentId)
        return CompensationResult(status=CompensationStatus.COMPLETED)

    await open_shop("payment", payment)


asyncio.run(main())
