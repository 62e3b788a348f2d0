"""A small Compute Engine on this machine, for Google's own client to talk to.

An inserted instance runs its startup script as local processes on a disk folder of its own, with a
metadata server of its own. `python -m tests.cloud.compute_server --port 9100` runs it by itself.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse
from urllib.request import Request, urlopen

from tests.cloud import secret_manager
from tests.cloud.compute_world import MACHINE_TYPES, ZONES, Fault, Rejected, Timings, World

BASE = r"/compute/v1/projects/(?P<project>[^/]+)"
ZONE = BASE + r"/zones/(?P<zone>[^/]+)"
VM = ZONE + r"/instances/(?P<name>[^/]+)"
ROUTES = [
    ("POST", ZONE + r"/instances", "insert"),
    ("GET", ZONE + r"/instances", "list"),
    ("GET", VM, "get"),
    ("DELETE", VM, "delete"),
    ("POST", VM + r"/stop", "stop"),
    ("POST", VM + r"/start", "start"),
    ("POST", VM + r"/setLabels", "setLabels"),
    ("POST", VM + r"/setMetadata", "setMetadata"),
    ("POST", VM + r"/simulateMaintenanceEvent", "simulateMaintenanceEvent"),
    ("GET", VM + r"/serialPort", "serialPort"),
    ("GET", BASE + r"/aggregated/instances", "aggregatedList"),
    ("GET", BASE + r"/aggregated/disks", "disks"),
    ("DELETE", ZONE + r"/disks/(?P<name>[^/]+)", "deleteDisk"),
    ("GET", ZONE + r"/operations", "operations"),
    ("GET", ZONE + r"/operations/(?P<name>[^/]+)", "operation"),
    ("POST", ZONE + r"/operations/(?P<name>[^/]+)/wait", "wait"),
    ("GET", ZONE + r"/machineTypes/(?P<name>[^/]+)", "machineType"),
    ("GET", BASE + r"/global/images/family/(?P<name>[^/]+)", "imageFamily"),
    ("GET", BASE + r"/regions/(?P<name>[^/]+)", "region"),
    ("GET", BASE, "project"),
    ("POST", r"/v1/projects/(?P<project>[^/:]+):testIamPermissions", "testIamPermissions"),
    ("GET", r"/v1/projects/(?P<project>[^/]+)/serviceAccounts/(?P<name>[^/]+)", "serviceAccount"),
    ("GET", r"/v1/projects/(?P<project>[^/]+)/services:batchGet", "services"),
    *secret_manager.ROUTES,
]
DEFAULT_ACCOUNT = "1-compute@developer.gserviceaccount.com"
WORDS = {
    400: ("invalid", "Invalid request"),
    401: ("required", "Login required"),
    403: ("forbidden", "Required 'compute.{method}' permission for 'projects/{project}'"),
    404: ("notFound", "The resource was not found"),
    409: ("alreadyExists", "The resource already exists"),
    412: ("conditionNotMet", "Precondition failed"),
    429: ("rateLimitExceeded", "Rate limit exceeded"),
    500: ("internalError", "Internal error"),
    503: ("backendError", "Service unavailable"),
}
PAGE = 500
"""Resources a page, where the caller asks for no other number."""
TERM = re.compile(r"([\w.\-]+)\s*(!=|=|:|\beq\b|\bne\b)\s*(\"[^\"]*\"|'[^']*'|[^\s()]+)")


class ComputeServer:
    """The server with its world: a context manager for a test, or a process of its own."""

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        env: dict[str, str] | None = None,
        timings: Timings | None = None,
    ):
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = _Http(("127.0.0.1", port), handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        (root / "disks").mkdir(parents=True, exist_ok=True)
        self.world = World(root, timings=timings or Timings(), base=self.url)
        # All services of the project answer at one address here.
        here = {"SYMBIO_GCE_ENDPOINT": self.url, "SYMBIO_SECRETS_ENDPOINT": self.url}
        self.world.env = here | (env or {})
        self.vault = secret_manager.SecretManager()
        self.permissions: set[str] | None = None
        """What the caller may do; None means everything."""
        self.accounts: set[str] | None = None
        self.services: set[str] | None = None
        self.thread = threading.Thread(
            target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        self.thread.start()

    def __enter__(self) -> ComputeServer:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.world.close()

    def fail(self, method: str, what: str | int, **rules: Any) -> Fault:
        """Let the next matching requests go wrong, and return what counts them; see `Fault`."""
        fault = Fault(method, str(what), **rules)
        with self.world.lock:
            self.world.faults.append(fault)
        return fault

    def methods_called(self) -> list[str]:
        """Return the names of the API's methods in the order they were called."""
        with self.world.lock:
            return [call["method"] for call in self.world.calls]

    def bill(self) -> list[dict[str, Any]]:
        """Return what this world charges: a row for every stretch of time that a machine ran."""
        with self.world.lock:
            return [_charged(row) for row in self.world.bill]

    # --- one method of the API each

    def account_of(self, token: str) -> str:
        """Return the account that a machine's token stands for; empty for anybody else."""
        if token != "Bearer ya29.test":
            return ""
        emails = {
            one.get("email", "default")
            for vm in self.world.vms.values()
            for one in vm.resource.get("serviceAccounts", [])
        }
        return DEFAULT_ACCOUNT if emails == {"default"} else ",".join(sorted(emails))

    def answer(self, method: str, at: dict[str, str], query: dict[str, str], body: Any) -> Any:
        if method in secret_manager.METHODS:
            account = self.account_of(at.get("token", ""))
            return self.vault.answer(method, at, query, body, account)
        world, project, zone, name = (
            self.world, at["project"], at.get("zone", ""), at.get("name", ""),
        )  # fmt: skip
        if zone and zone not in ZONES:
            raise Rejected(400, "invalid", f"Invalid value for field 'zone': '{zone}'")
        match method:
            case "insert":
                return world.insert(project, zone, body)
            case "start":
                return world.start(project, zone, name)
            case "stop" | "delete":
                return world.end(project, zone, name, method)
            case "setLabels":
                return world.set_labels(project, zone, name, body)
            case "setMetadata":
                return world.set_metadata(project, zone, name, body)
            case "simulateMaintenanceEvent":
                return world.preempt(zone, name)
            case "get":
                return world.vm(zone, name).resource
            case "list":
                found = [vm.resource for (at, _), vm in sorted(world.vms.items()) if at == zone]
                return _page([one for one in found if _passes(one, query)], query)
            case "aggregatedList":
                found = [vm.resource for _, vm in sorted(world.vms.items())]
                return _aggregated(found, "instances", query)
            case "disks":
                return _aggregated(
                    [disk for _, disk in sorted(world.disks.items())], "disks", query
                )
            case "deleteDisk":
                return world.delete_disk(project, zone, name)
            case "operations":
                own = [op for (at, _), op in world.operations.items() if at == zone]
                return _page([op for op in own if _passes(op, query)], query)
            case "operation":
                return self._operation(zone, name)
            case "wait":
                return self._waited(zone, name)
            case "serialPort":
                text = world.serial(world.vm(zone, name))
                start = int(query.get("start", 0))
                contents = text[start : start + 1_000_000].decode(errors="replace")
                end = start + len(contents.encode())
                return {"contents": contents, "start": str(start), "next": str(end)}
            case _:
                return self._catalogue(method, project, zone, name, query, body)

    def _catalogue(
        self, method: str, project: str, zone: str, name: str, query: dict[str, str], body: Any
    ) -> Any:
        match method:
            case "imageFamily":
                if "gone" in name:
                    raise Rejected(404, "notFound", f"The resource 'family/{name}' was not found")
                image = f"{name}-v20261101"
                link = f"{self.url}/compute/v1/projects/{project}/global/images/{image}"
                return {"name": image, "family": name, "selfLink": link, "diskSizeGb": "50"}
            case "machineType":
                if name not in MACHINE_TYPES:
                    raise Rejected(404, "notFound", f"The resource '{name}' was not found")
                cpus, memory, gpu, count = MACHINE_TYPES[name]
                gpus = [{"guestAcceleratorType": gpu, "guestAcceleratorCount": count}] * bool(gpu)
                return {"name": name, "guestCpus": cpus, "memoryMb": memory, "accelerators": gpus}
            case "region":
                own = [at for at in ZONES if at.startswith(f"{name}-")]
                if not own:
                    raise Rejected(404, "notFound", f"The resource 'regions/{name}' was not found")
                return {"name": name, "status": "UP", "zones": own, "quotas": self._quotas(name)}
            case "project":
                return {
                    "name": project, "id": "1", "quotas": self._quotas("global"),
                    "defaultServiceAccount": DEFAULT_ACCOUNT,
                }  # fmt: skip
            case "testIamPermissions":
                asked = body.get("permissions", [])
                mine = self.permissions
                return {"permissions": [one for one in asked if mine is None or one in mine]}
            case "serviceAccount":
                if self.accounts is not None and name not in self.accounts:
                    raise Rejected(404, "notFound", f"Service account {name} does not exist")
                return {"email": name, "disabled": False}
            case _:
                names = query.get("names", "").split(",")
                on = self.services
                states = [
                    {
                        "name": one,
                        "state": "ENABLED"
                        if on is None or one.rpartition("/")[2] in on
                        else "DISABLED",
                    }
                    for one in names
                ]
                return {"services": states}

    def _quotas(self, where: str) -> list[dict[str, Any]]:
        return [
            {"metric": metric, "limit": limit, "usage": used}
            for metric, (limit, used) in self.world.usage().get(where, {}).items()
        ]

    def _operation(self, zone: str, name: str) -> dict[str, Any]:
        if (zone, name) not in self.world.operations:
            raise Rejected(404, "notFound", f"The resource 'operations/{name}' was not found")
        return self.world.operations[zone, name]

    def _waited(self, zone: str, name: str) -> dict[str, Any]:
        operation = self._operation(zone, name)
        until = time.monotonic() + 120.0
        while operation["status"] != "DONE" and time.monotonic() < until:
            self.world.wake.wait(until - time.monotonic())
        return operation

    # --- what a test asks for

    def control(self, command: str, query: dict[str, str], body: Any) -> Any:
        world = self.world
        zone, name = query.get("zone", ""), query.get("name", "")
        match command:
            case "preempt" | "crash" | "guest_off":
                return getattr(world, command)(zone, name)
            case "faults":
                world.faults = [Fault(**rule) for rule in body]
            case "stockouts":
                world.stockouts = {(zone, bool(spot)) for zone, spot in body}
            case "quotas":
                world.quotas = body
            case "rights":
                for key, names in body.items():
                    setattr(self, key, None if names is None else set(names))
            case "config":
                world.env |= body.get("env", {})
                world.timings = dataclasses.replace(world.timings, **body.get("timings", {}))
            case "bill":
                return [_charged(row) for row in world.bill]
            case "calls":
                return world.calls
            case "instances":
                return [vm.resource for vm in world.vms.values()]
            case "operations":
                return list(world.operations.values())
            case "state":
                return {"most_alive": world.most_alive, "failures": world.failures}
            case _:
                raise Rejected(404, "notFound", f"there is no control '{command}'")
        return {}


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that are killed break their connections."""


class _Handler(BaseHTTPRequestHandler):
    owner: ComputeServer
    protocol_version = "HTTP/1.1"
    # Headers and body leave together: otherwise each answer waits 40 ms for an acknowledgement.
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.serve("GET")

    def do_POST(self) -> None:
        self.serve("POST")

    def do_PATCH(self) -> None:
        self.serve("PATCH")

    def do_DELETE(self) -> None:
        self.serve("DELETE")

    def serve(self, verb: str) -> None:
        url = urlparse(self.path)
        query = {key: ",".join(values) for key, values in parse_qs(url.query).items()}
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = json.loads(raw) if raw else {}
        if url.path.startswith("/control/"):
            command = url.path.removeprefix("/control/")
            return self.say(lambda: self.owner.control(command, query, body))
        for wanted, pattern, method in ROUTES:
            found = re.fullmatch(pattern, unquote(url.path))
            if found and wanted == verb:
                at = found.groupdict()
                if method == "accessSecret":
                    at["token"] = self.headers.get("Authorization", "")
                return self.call(method, at, query, body)
        return self.say(lambda: _reject(404, "notFound", f"no such method: {verb} {url.path}"))

    def call(self, method: str, at: dict[str, str], query: dict[str, str], body: Any) -> None:
        world = self.owner.world
        spot = body.get("scheduling", {}).get("provisioningModel") == "SPOT" if body else None
        with world.lock:
            what = self.fault(method, at.get("zone"), spot if method == "insert" else None)
            world.calls.append(
                {"method": method, **at, "query": query, "fault": what, "at": time.time()}
            )
        if what.startswith("stall:"):
            time.sleep(float(what.partition(":")[2]))
            what = ""
        if what == "reset":
            return self.hang_up()
        if what.isdigit():
            reason, text = self.words(int(what), method, at["project"])
            return self.say(lambda: _reject(int(what), reason, text))
        once = lambda: self.once(method, at, query, body)  # noqa: E731
        if what == "lost_reply":
            with world.lock, contextlib.suppress(Rejected):
                once()
            return self.hang_up()
        return self.say(once)

    def once(self, method: str, at: dict[str, str], query: dict[str, str], body: Any) -> Any:
        """Answer a repeated request with the operation that its first one started."""
        world = self.owner.world
        request_id = query.get("requestId")
        if request_id and request_id in world.requests:
            return world.operations[at["zone"], world.requests[request_id]]
        answer = self.owner.answer(method, at, query, body)
        if request_id:
            world.requests[request_id] = answer["name"]
        return answer

    def fault(self, method: str, zone: str | None, spot: bool | None) -> str:
        for fault in self.owner.world.faults:
            # An operation's error comes later, when there is an operation.
            if fault.what.isupper() or not fault.matches(method, zone, spot):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.count -= 1
            self.last = fault
            return fault.what
        return ""

    def words(self, status: int, method: str, project: str) -> tuple[str, str]:
        reason, text = WORDS.get(status, ("unknown", "Unknown error"))
        text = text.format(method=f"instances.{method}", project=project)
        return self.last.reason or reason, self.last.message or text

    def say(self, answer: Callable[[], Any]) -> None:
        try:
            with self.owner.world.lock:
                status, text = 200, json.dumps(answer())
        except Rejected as error:
            told: dict[str, Any] = {"code": error.status, "message": error.message}
            if error.reason:
                # Newer services tell no reason apart from the status.
                parts = {"message": error.message, "domain": "global", "reason": error.reason}
                told["errors"] = [parts]
            status, text = error.status, json.dumps({"error": told})
        payload = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def hang_up(self) -> None:
        """Reset the connection, as a network does that fails."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _reject(status: int, reason: str, message: str) -> Any:
    raise Rejected(status, reason, message)


def _page(found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
    start = int(query.get("pageToken") or 0)
    size = int(query.get("maxResults") or PAGE)
    page: dict[str, Any] = {"items": found[start : start + size]}
    if start + size < len(found):
        page["nextPageToken"] = str(start + size)
    return page


def _aggregated(found: list[dict[str, Any]], kind: str, query: dict[str, str]) -> Any:
    page = _page([one for one in found if _passes(one, query)], query)
    items: dict[str, Any] = {
        f"zones/{zone}": {"warning": {"code": "NO_RESULTS_ON_PAGE"}} for zone in ZONES
    }
    for one in page.pop("items"):
        scope = items[f"zones/{one['zone'].rpartition('/')[2]}"]
        scope.pop("warning", None)
        scope.setdefault(kind, []).append(one)
    return {"items": items, **page}


def _passes(resource: dict[str, Any], query: dict[str, str]) -> bool:
    """Say whether a resource passes the filter: terms that all have to hold."""
    for key, sign, wanted in TERM.findall(query.get("filter", "")):
        here: Any = resource
        first, _, rest = key.partition(".")
        here = resource.get(first, "")
        if rest:
            here = here.get(rest, "") if isinstance(here, dict) else ""
        wanted = wanted.strip("\"'")
        holds = str(here) == wanted or (wanted == "*" and here != "")
        if holds == (sign in ("!=", "ne")):
            return False
    return True


def _charged(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the bill with its seconds: whole ones begun, at least a minute.

    A spot machine that is taken back within its first minute costs nothing.
    """
    ended = row["ended_ms"] if row["ended_ms"] is not None else time.time_ns() // 1_000_000
    seconds = (ended - row["started_ms"]) / 1000
    billed = max(60, math.ceil(seconds))
    if row["why"] == "preempted" and row["spot"] and seconds < 60:
        billed = 0
    return {**row, "seconds": seconds, "billed_s": billed}


def control(url: str, command: str, body: Any = None, **query: str) -> Any:
    """Ask a server that runs as a process of its own: preempt, crash, faults, bill, calls …"""
    asked = "&".join(f"{key}={value}" for key, value in query.items())
    data = json.dumps(body).encode() if body is not None else b""
    request = Request(f"{url}/control/{command}?{asked}", data=data, method="POST")
    with urlopen(request, timeout=30) as reply:
        return json.load(reply)


def main() -> int:
    """Serve until the process is told to end; then every machine ends too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--root", type=Path, required=True, help="folder of the machines' disks")
    parser.add_argument("--env", action="append", default=[], help="KEY=VALUE for every machine")
    parser.add_argument("--scale", type=float, default=1.0, help="real seconds for one of Google's")
    parser.add_argument("--grace", type=float, default=3.0, help="seconds from SIGTERM to SIGKILL")
    given = parser.parse_args()
    env = dict(pair.split("=", 1) for pair in given.env)
    timings = Timings(scale=given.scale, grace_s=given.grace)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    with ComputeServer(given.root, port=given.port, env=env, timings=timings) as server:
        print(server.url, flush=True)
        over.wait()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
