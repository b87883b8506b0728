"""Orchestrion in under a minute: an order, an order that is undone, and an order that survives kill -9.

    python demo.py path/to/orchestrion

Starts the engine and three small services (written with the PyPI package `orra-sdk`) in a temporary folder, and ends
with exit code 0 only if everything went as it says: it is a check, too. Needs the Python that `make setup` prepares;
uses nothing but the standard library itself.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from stage import Stage, Trouble, check, heading, say

ACTION = "Reserve the product, charge the customer and deliver the order to the address"


def order(product: str, quantity: int, customer: str, address: str) -> dict:
    fields = {"productId": product, "quantity": quantity, "customerId": customer, "address": address}
    return {"action": {"content": ACTION}, "data": [{"field": name, "value": value} for name, value in fields.items()]}


def first_order(stage: Stage) -> None:
    heading("1  An order, in plain words")
    say(f'"{ACTION}"', "two lamps for Ada, to Nearby Street 1", "")
    accepted = stage.submit(order("lamp", 2, "ada", "Nearby Street 1"))
    stage.show_plan(accepted)
    view = stage.follow(accepted["id"])
    check(view["status"] == "completed", "the order should have completed", view)
    result = view["results"][0]
    check(result["trackingId"] == "T-R-2-lamp", "the delivery should have been the result", view)
    say("", f"Result: {json.dumps(result)}")


def second_order(stage: Stage) -> None:
    heading("2  An order that cannot be delivered, and is undone")
    say("a desk for Bob, to Atlantis", "")
    accepted = stage.submit(order("desk", 1, "bob", "Atlantis, Deep Lane 9"))
    view = stage.follow(accepted["id"])
    check(view["status"] == "aborted", "the order should have been aborted", view)
    undone = stage.deeds("refunded", "put back")
    check(
        undone == ["payment refunded P-bob-220.00", "inventory put back R-1-desk"],
        "what was done should have been undone, the newest first",
        undone,
    )
    say("", f"Aborted by {view['abortInfo']['serviceName']}: {json.dumps(view['abortInfo']['payload'])}")
    say("Undone, the newest first:", *[f"  - {deed}" for deed in undone])


def third_order(stage: Stage) -> str:
    heading("3  An order during which the engine is killed")
    say("four chairs for Cleo, to Far Island", "")
    accepted = stage.submit(order("chair", 4, "cleo", "Far Island 7"))
    number = "R-4-chair"
    stage.follow(accepted["id"], until=lambda view: f"delivery left {number}" in stage.deeds("left"))
    stage.kill_engine()
    say("", "  >>> kill -9: the engine is gone, the parcel is on the road")
    time.sleep(0.5)
    stage.start_engine()
    say("  >>> started again on the same data", "")
    view = stage.follow(accepted["id"], again=False)
    check(view["status"] == "completed", "the order should have completed", view)
    deeds = stage.deeds("reserved", "charged", "left", "delivered")
    deeds = [deed for deed in deeds if number in deed or "cleo" in deed]
    expected = [f"inventory reserved {number}", "payment charged P-cleo-340.00", f"delivery left {number}"]
    check(deeds == [*expected, f"delivery delivered {number}"], "everything should have been done once", deeds)
    say("", "Done once each, whatever happened to the engine:", *[f"  - {deed}" for deed in deeds])
    return accepted["id"]


def look_back(stage: Stage, order_id: str) -> None:
    heading("4  What happened, from the journal")
    stage.command("inspect", order_id, "--detailed", "--updates")
    stage.command("replay", order_id)


def what_next(binary: str) -> None:
    heading("Everything went as it should. What to try next")
    say(
        "An engine of your own, data in ./.orchestrion:",
        "",
        f'  export PATH="{Path(binary).parent}:$PATH"',
        "  orchestrion dev",
        "",
        "In another terminal, from the root of the repository, a project, a key, and a service of 40 lines:",
        "",
        f'  export PATH="{Path(binary).parent}:$PATH"',
        "  orchestrion projects add my-project",
        "  export ENGINE_KEY=$(orchestrion api-keys gen my-services | grep -o 'sk-.*')",
        f"  {sys.executable} worker-sdk/python/examples/service.py &",
        "",
        "When it says that it is connected, work for it:",
        "",
        '  orchestrion verify run "Count the words of the text" -d text:"to be or not to be" --follow',
        "",
        "A model plans instead of the built-in planner when LLM_MODEL (and LLM_API_KEY, LLM_API_BASE_URL) say which.",
    )


def main() -> int:
    if len(sys.argv) != 2 or not os.access(sys.argv[1], os.X_OK):
        say("usage: demo.py path/to/orchestrion    (build it with `cargo build -p orchestrion`)")
        return 2
    binary = str(Path(sys.argv[1]).resolve())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orchestrion-demo-") as folder:
        stage = Stage(binary, Path(folder))
        try:
            stage.open()
            first_order(stage)
            second_order(stage)
            look_back(stage, third_order(stage))
        except Trouble as trouble:
            say("", f"✕ {trouble}", *stage.last_words())
            return 1
        except KeyboardInterrupt:
            say("", "stopped")
            return 130
        finally:
            stage.close()
    what_next(sys.argv[1])
    say("", f"({time.monotonic() - began:.0f} seconds)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
