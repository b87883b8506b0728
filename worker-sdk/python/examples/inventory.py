"""The inventory of a shop, whole: a ledger that survives, no reservation twice, progress, aborts, and undoing.

    ENGINE_KEY=sk-orra-… python inventory.py
    orchestrion verify run "Reserve the quantity of the product for the order" \\
        -d orderId:A-1 -d productId:lamp -d quantity:=2 --follow
    orchestrion verify run "Reserve the quantity of the product for the order" \\
        -d orderId:A-2 -d productId:lamp -d quantity:=99 --follow

What is shown one by one in the other examples, in one service as it might run in earnest.
"""

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from orra import CompensationResult, CompensationStatus, OrraService, RevertSource, Task
from pydantic import BaseModel, Field

HOME = Path(os.environ.get("INVENTORY_HOME", "."))


class Wanted(BaseModel):
    orderId: str = Field(description="the order that the products are for")
    productId: str = Field(description="the product to reserve")
    quantity: int = Field(description="how many of it", ge=1)


class Reserved(BaseModel):
    reservationId: str = Field(description="the proof of the reservation")
    left: int = Field(description="how many of the product are left on the shelf")


class Shelf:
    """The stock, in SQLite: each change is one transaction, so a killed process leaves no half of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._open()) as ledger, ledger:
            ledger.execute("CREATE TABLE IF NOT EXISTS stock (product TEXT PRIMARY KEY, amount INTEGER NOT NULL)")
            ledger.execute(
                "CREATE TABLE IF NOT EXISTS reservations"
                " (id TEXT PRIMARY KEY, product TEXT NOT NULL, amount INTEGER NOT NULL, released INTEGER NOT NULL)"
            )
            ledger.execute("INSERT OR IGNORE INTO stock VALUES ('lamp', 10), ('desk', 2)")

    def _open(self) -> sqlite3.Connection:
        # Transactions are begun where they are written, and none is left open by accident.
        return sqlite3.connect(self.path, timeout=10, isolation_level="IMMEDIATE")

    def amount(self, product: str) -> int:
        with closing(self._open()) as ledger:
            row = ledger.execute("SELECT amount FROM stock WHERE product = ?", (product,)).fetchone()
            return row[0] if row else 0

    def reserve(self, reservation: str, product: str, amount: int) -> int:
        """Takes it off the shelf, once per reservation however often it is asked. What is left, or -1 if too little is there."""
        with closing(self._open()) as ledger, ledger:
            made = ledger.execute(
                "INSERT INTO reservations VALUES (?, ?, ?, 0) ON CONFLICT (id)"
                " DO UPDATE SET amount = excluded.amount, released = 0 WHERE released",
                (reservation, product, amount),
            )
            if made.rowcount == 1:  # new, or released before: an order that is made anew
                taken = ledger.execute(
                    "UPDATE stock SET amount = amount - ? WHERE product = ? AND amount >= ?", (amount, product, amount)
                )
                if taken.rowcount == 0:
                    ledger.rollback()
                    return -1
            return ledger.execute("SELECT amount FROM stock WHERE product = ?", (product,)).fetchone()[0]

    def release(self, reservation: str) -> bool:
        """Puts it back, once. False if there is no such reservation."""
        with closing(self._open()) as ledger, ledger:
            row = ledger.execute("SELECT product, amount, released FROM reservations WHERE id = ?", (reservation,)).fetchone()
            if row is None:
                return False
            product, amount, released = row
            if not released:
                ledger.execute("UPDATE reservations SET released = 1 WHERE id = ?", (reservation,))
                ledger.execute("UPDATE stock SET amount = amount + ? WHERE product = ?", (amount, product))
            return True


async def main() -> None:
    shelf = Shelf(HOME / "inventory.sqlite")
    inventory = OrraService(
        name="inventory",
        description="Reserves a quantity of a product for an order",
        url=os.environ.get("ENGINE_URL", "http://localhost:8005"),
        api_key=os.environ["ENGINE_KEY"],
        persistence_file_path=HOME / "inventory.id.json",
        revertible=True,
    )

    @inventory.handler()
    async def reserve(task: Task[Wanted]) -> Reserved:
        wanted = task.input
        # Named after the order, not at random: an attempt that is repeated after a crash makes the same reservation.
        reservation = f"R-{wanted.orderId}-{wanted.productId}"
        await task.push_update({"progress": 50, "step": "looking at the shelf"})
        left = await asyncio.to_thread(shelf.reserve, reservation, wanted.productId, wanted.quantity)
        if left < 0:
            available = await asyncio.to_thread(shelf.amount, wanted.productId)
            await task.abort({"reason": "out of stock", "available": available, "requested": wanted.quantity})
        await task.push_update({"progress": 100, "step": "reserved"})
        print(f"reserved {reservation}, {left} left", flush=True)
        return Reserved(reservationId=reservation, left=left)

    @inventory.revert_handler()
    async def put_back(source: RevertSource[Wanted, Reserved]) -> CompensationResult:
        reservation = source.output.reservationId
        known = await asyncio.to_thread(shelf.release, reservation)
        if not known:
            # Nothing that the engine could try again would help: a person has to look.
            return CompensationResult(status=CompensationStatus.FAILED, error=f"{reservation} is in no ledger")
        why = source.context.reason if source.context else "unknown"
        print(f"put back {reservation} ({why})", flush=True)
        return CompensationResult(status=CompensationStatus.COMPLETED)

    await inventory.start()
    print(f"inventory is {inventory.id}", flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
