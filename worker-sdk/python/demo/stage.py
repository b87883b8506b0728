"""The demo's stage: the engine and its services as processes, the HTTP API, and words on the screen."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

SERVICES = ["inventory", "payment", "delivery"]
PATIENCE_S = 30
STATUSES_AT_THE_END = {"completed", "failed", "aborted", "not_actionable", "cancelled"}
REVERTS_AT_THE_END = {"completed", "partial", "failed", "expired", "unknown"}
ICONS = {"processing": "◎", "completed": "●", "failed": "✕", "paused": "⏸", "aborted": "⊟", "partial": "◐"}
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class Trouble(Exception):
    """Something is not as it should be."""


def say(*lines: str) -> None:
    print("\n".join(lines), flush=True)


def heading(text: str) -> None:
    say("", f"{BOLD}━━━ {text} {'━' * max(3, 72 - len(text))}{PLAIN}", "")


def check(so: bool, what: str, seen) -> None:
    if not so:
        raise Trouble(f"{what}. What was seen:\n{json.dumps(seen, indent=2)}")


class Stage:
    def __init__(self, binary: str, folder: Path) -> None:
        self.binary = binary
        self.folder = folder
        self.port, self.grpc_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.key = ""
        self.engine = None
        self.services = {}
        self.told = {}
        self.http = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def open(self) -> None:
        """The engine, a project and its services, ready to work."""
        heading("Setting the stage")
        self.start_engine()
        say(f"  the engine      {self.url}")
        made = subprocess.run(
            [self.binary, "projects", "add", "shop", "--server", self.url, "--json"],
            env=self.environment(), capture_output=True, text=True,
        )
        check(made.returncode == 0, "the project should have been made", made.stderr)
        self.key = json.loads(made.stdout)["apiKey"]
        say("  a project       shop")
        python = python_with_sdk()
        here = Path(__file__).resolve().parent
        for name in SERVICES:
            log = open(self.folder / f"{name}.log", "w")
            environment = {
                **self.environment(), "ENGINE_URL": self.url, "ENGINE_KEY": self.key, "SHOP_FOLDER": str(self.folder),
            }
            self.services[name] = subprocess.Popen(
                [python, "-B", str(here / f"{name}.py")],
                env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            )
            log.close()
        for name in SERVICES:
            self.wait(f"{name} to register", lambda: any(d.startswith(f"{name} opened") for d in self.deeds("opened")))
            say(f"  a service       {name}.py")

    def start_engine(self) -> None:
        with open(self.folder / "engine.log", "a") as log:
            self.engine = subprocess.Popen(
                [
                    self.binary, "dev", "--data-dir", str(self.folder / "data"),
                    "--http-addr", f"127.0.0.1:{self.port}", "--grpc-addr", f"127.0.0.1:{self.grpc_port}",
                ],
                env=self.environment(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )
        self.wait("the engine to answer", self.is_up)

    def is_up(self) -> bool:
        if self.engine.poll() is not None:
            raise Trouble(f"the engine ended by itself with code {self.engine.returncode}")
        try:
            return self.call("GET", "/health") == {}
        except OSError:
            return False

    def kill_engine(self) -> None:
        self.engine.send_signal(signal.SIGKILL)
        self.engine.wait()

    def close(self) -> None:
        """Ends every process, however the demo ended."""
        processes = [*self.services.values(), *([self.engine] if self.engine else [])]
        for process in processes:
            if process.poll() is None:
                process.kill()
        for process in processes:
            process.wait()

    def submit(self, body: dict) -> dict:
        return self.call("POST", "/orchestrations", body)

    def call(self, method: str, path: str, body=None):
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        try:
            with self.http.open(request, timeout=PATIENCE_S) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as refusal:
            raise Trouble(f"{method} {path} was refused with {refusal.code}: {refusal.read().decode()}") from None

    def show_plan(self, accepted: dict) -> None:
        plan = accepted["plan"]
        say(f"{BOLD}The plan{PLAIN}  {DIM}$task1.total is what task1 answers as total, $task0 what came with the order{PLAIN}")
        for task in plan["tasks"]:
            inputs = ", ".join(f"{name}: {value}" for name, value in task["input"].items())
            say(f"  {task['id']}  {task['service_name']:<10} {inputs}")
        check([t["service_name"] for t in plan["tasks"]] == SERVICES, "the plan should use each service once", plan)
        say("", f"{BOLD}Progress{PLAIN}")

    def follow(self, order_id: str, until=None, again=True) -> dict:
        """Tells what happens to an order until it ends, or until something else is so."""
        if again:
            self.told = {}
        deadline = time.monotonic() + PATIENCE_S
        while True:
            view = self.call("GET", f"/orchestrations/inspections/{order_id}")
            for line in self.news(view):
                say(line)
            if until(view) if until else is_over(view):
                return view
            check(time.monotonic() < deadline, f"the order should have gone on within {PATIENCE_S} s", view)
            time.sleep(0.05)

    def news(self, view: dict) -> list:
        lines = []
        for task in view.get("tasks") or []:
            who = f"  {task['id']}  {task['serviceName']:<10} "
            events = [(e["timestamp"], e["status"], e.get("error")) for e in task.get("statusHistory") or []]
            updates = [(u["timestamp"], None, u["data"]) for u in task.get("interimResults") or []]
            reverts = [(e["timestamp"], f"revert {e['status']}", e.get("error")) for e in task.get("compensationHistory") or []]
            for kind, entries in ("status", events), ("update", updates), ("revert", reverts):
                told = self.told.get((task["id"], kind), 0)
                for at, status, more in entries[told:]:
                    # At the same time, what led to a revert comes before it, and a revert that ended before the next that begins.
                    rank = 0 if kind != "revert" else 2 if status == "revert processing" else 1
                    lines.append((at, rank, who + describe(status, more)))
                self.told[task["id"], kind] = max(told, len(entries))
        return [line for *_, line in sorted(lines, key=lambda line: line[:2])]

    def deeds(self, *events: str) -> list:
        """What the ledger says, oldest first."""
        ledger = self.folder / "ledger.jsonl"
        lines = ledger.read_text().splitlines() if ledger.exists() else []
        deeds = [json.loads(line) for line in lines if line.endswith("}")]
        return [f"{d['service']} {d['event']} {d['number']}" for d in deeds if d["event"] in events]

    def command(self, *arguments: str) -> None:
        """Runs the command line as a person would, and shows what it says."""
        say(f"{BOLD}$ orchestrion {' '.join(arguments)}{PLAIN}", "")
        done = subprocess.run([self.binary, *arguments], env=self.environment())
        say("")
        check(done.returncode == 0, f"`orchestrion {' '.join(arguments)}` should have succeeded", done.returncode)

    def wait(self, what: str, so) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not so():
            if time.monotonic() > deadline:
                raise Trouble(f"waited {PATIENCE_S} s for {what}")
            time.sleep(0.05)

    def environment(self) -> dict:
        """Of every process: nothing of this machine's own configuration, no proxy between them, no model."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLM_", "ORCHESTRION_", "EMBEDDINGS_"))}
        kept.pop("PORT", None)
        return {**kept, "HOME": str(self.folder), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}

    def last_words(self) -> list:
        """The ends of all logs, for when something went wrong."""
        lines = []
        for log in sorted(self.folder.glob("*.log")):
            text = log.read_text(errors="replace").splitlines()[-15:]
            if text:
                lines += ["", f"{log.name}, at its end:", *text]
        return lines


def is_over(view: dict) -> bool:
    if view["status"] not in STATUSES_AT_THE_END:
        return False
    undone = [task for task in view.get("tasks") or [] if task["isRevertible"] and task["status"] == "completed"]
    return view["status"] == "completed" or all(
        (task.get("compensation") or {}).get("status") in REVERTS_AT_THE_END for task in undone
    )


def describe(status, more) -> str:
    if status is None:
        return f"  {DIM}{json.dumps(more)}{PLAIN}"
    icon = ICONS.get(status.removeprefix("revert "), "·")
    return f"{icon} {status}{f' - {more}' if more else ''}"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def python_with_sdk() -> str:
    """The Python that has orra-sdk: the one `make setup` made, or this one."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = Path(os.environ.get("ORCHESTRION_VENV") or cache / "orchestrion" / "venv")
    for python in (str(venv / "bin" / "python"), sys.executable):
        try:
            found = subprocess.run([python, "-c", "import orra"], capture_output=True)
        except OSError:
            continue
        if found.returncode == 0:
            return python
    raise Trouble("no Python with orra-sdk: run `make setup`")
