"""A worker in a process of its own, which a test kills: `doomed.py ADDRESS NAMESPACE QUEUE FILE`. Says `ready` when it polls."""

import asyncio
import importlib
import sys
from datetime import timedelta

import harness


async def main(address, namespace, queue, file):
    module = importlib.import_module(file)
    async with harness.stage(address, namespace, module.WORKFLOWS, module.ACTIVITIES, worker=False) as stage:
        # Tests need not wait for long until the dead worker's cache is given up.
        async with stage.worker(task_queue=queue, sticky_queue_schedule_to_start_timeout=timedelta(seconds=2)):
            print("ready", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
