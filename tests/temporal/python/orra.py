"""The other wire of the engine, for tests that use both: a project, its services, its actions, over orra's HTTP.

Services are the unmodified orra-sdk in processes of their own (`tests/services`). The planning model is a server of this process.
"""

import asyncio
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import httpx

HTTP = os.environ["ENGINE_URL"]
SERVICES = Path(__file__).parents[2] / "services"


class Project:
    def __init__(self, http, id, key):
        self.http = http
        self.id = id
        self.key = key

    @classmethod
    async def add(cls):
        http = httpx.AsyncClient(base_url=HTTP, trust_env=False, timeout=60)
        added = (await http.post("/register/project", json={"name": "shop"})).json()
        http.headers["authorization"] = f"Bearer {added['apiKey']}"
        return cls(http, added["id"], added["apiKey"])

    async def call(self, method, path, body=None, status=(200, 201, 202)):
        answer = await self.http.request(method, path, json=body)
        assert answer.status_code in status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def add_service(self, name, revertible=False, takes=()):
        """Registers a service over HTTP; nobody connects for it. It takes an id, and what else is named. Its id."""
        text = {"type": "string"}
        given = {"type": "object", "properties": {"id": text, **{other: {} for other in takes}}, "required": ["id"]}
        output = {"type": "object", "properties": {"id": text}}
        service = {
            "name": name,
            "description": f"Performs {name}",
            "revertible": revertible,
            "schema": {"input": given, "output": output},
        }
        return (await self.call("POST", "/register/service", service))["id"]

    async def submit(self, tasks, timeout=None, grace=None, **members):
        """Submits a plan: pairs of a service's id and an input. The orchestration's id."""
        plan = [{"id": f"task{n}", "service": service, "input": given} for n, (service, given) in enumerate(tasks, 1)]
        plan = {"tasks": [{"id": "task0", "input": members.pop("constants", {})}, *plan]}
        body = {"action": {"type": "", "content": "follow the plan"}, "data": [], "plan": plan, **members}
        if timeout:
            body["timeout"] = timeout
        if grace:
            body["healthCheckGracePeriod"] = grace
        return (await self.call("POST", "/orchestrations", body))["id"]

    async def inspect(self, id):
        return await self.call("GET", f"/orchestrations/inspections/{id}")


class Services:
    """A process of `tests/services/steps.py`: `NAME` or `NAME+revert` each."""

    def __init__(self, folder, process):
        self.folder = folder
        self.process = process

    @classmethod
    async def start(cls, project, *names):
        folder = tempfile.TemporaryDirectory()
        given = {"ENGINE_URL": HTTP, "ENGINE_KEY": project.key, "SERVICE_HOME": folder.name}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-B", str(SERVICES / "steps.py"), *names,
            cwd=folder.name, env={**os.environ, **given}, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        services = cls(folder, process)
        while len(services.logged("registered")) < len(names):
            assert process.returncode is None, f"the services ended: {process.returncode}"
            await asyncio.sleep(0.05)
        return services

    def logged(self, event):
        path = Path(self.folder.name) / "log.jsonl"
        # The last line may be half written.
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [line for line in map(json.loads, lines) if line["event"] == event]

    def id(self, name):
        return next(line["id"] for line in self.logged("registered") if line["service"] == name)

    async def until(self, event, id):
        while id not in [line["id"] for line in self.logged(event)]:
            await asyncio.sleep(0.05)

    async def end(self):
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self.folder.cleanup()


class Model:
    """An OpenAI-compatible model: what an action is answered with stands in its text, by name."""

    def __init__(self):
        self.answers = {}

    async def serve(self, port):
        server = await asyncio.start_server(self._answer, "127.0.0.1", port)
        return server

    async def _answer(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.search(r"content-length: *(\d+)", head, re.IGNORECASE)[1])
            asked = (await reader.readexactly(length)).decode()
            answer = next((given for name, given in self.answers.items() if name in asked), None)
            if answer is None:
                await asyncio.Event().wait()  # No answer, ever.
            said = {"id": "1", "object": "chat.completion", "created": 1, "model": "fake", "choices": [
                {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(answer)}},
            ]}  # fmt: skip
            body = json.dumps(said).encode()
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
