"""Runs the tests of one file against a server: `run.py ADDRESS NAMESPACE FILE [TEST...]`.

Prints a line of JSON for each test, `{"test": ..., "error": null or text}`, and at the end `{"done": count}`.
"""

import asyncio
import importlib
import os
import sys
import time
import traceback

import harness
import reports

TEST_SECONDS_MAX = 90


async def one(name, test, stage):
    begun = time.monotonic()
    try:
        await asyncio.wait_for(test(stage), TEST_SECONDS_MAX)
        error = None
    except BaseException as raised:
        error = "".join(traceback.format_exception(raised))[-6000:]
    reports.say({"test": name, "error": error, "seconds": round(time.monotonic() - begun, 1)})


async def main(address, namespace, file, *only):
    module = importlib.import_module(file)
    tests = {name: it for name, it in vars(module).items() if name.startswith("test_") and (not only or name in only)}
    assert tests, f"{file} has no such test"
    with_worker = getattr(module, "WITH_WORKER", True)
    async with harness.stage(address, namespace, module.WORKFLOWS, module.ACTIVITIES, with_worker) as stage:
        prepare = getattr(module, "prepare", None)
        if prepare:
            await prepare(stage)
        if getattr(module, "ONE_BY_ONE", False):
            for name, test in tests.items():
                await one(name, test, stage)
        else:
            await asyncio.gather(*(one(name, test, stage) for name, test in tests.items()))
    reports.say({"done": len(tests)})


reports.keep_stdout()
try:
    asyncio.run(main(*sys.argv[1:]))
    code = 0
except BaseException:
    traceback.print_exc()
    code = 1
sys.stdout.flush()
sys.stderr.flush()
# Without the interpreter's own end: the SDK's native threads may still be about to call into it, which crashes it then.
os._exit(code)
