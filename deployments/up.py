"""Prefect's server, its UI, the work pools, the deployments and a worker, all until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from deployments.surroundings import (
    PROJECT,
    is_healthy,
    remember_server,
    running_server,
    server_found_from,
    settle,
)

LOCAL_POOL = "symbio-local"
GPU_POOL = "symbio-gpu"
START_S = 120.0
"""How long the server may take to answer (s); usually 3 to 10."""
STOP_S = 20.0
"""How long a child may take to stop before it is killed (s)."""


class NotUp(Exception):
    """Something kept the server from starting; the message says what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Start everything, wait for Ctrl-C, stop everything; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.up", description=__doc__)
    parser.add_argument("--port", type=int, default=4200, help="port of the server (4200)")
    port: int = parser.parse_args(arguments).port
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        up(port, stop)
    except NotUp as error:
        print(f"symbio up: {error}", file=sys.stderr)
        return 1
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
    return 0


def up(port: int, stop: threading.Event) -> None:
    """Keep a server and a worker running until ``stop`` is set.

    Raises:
        NotUp: the port is taken, or a part did not start; the message names its log.
    """
    home = settle()
    _check_free(home, port)
    api_url = f"http://127.0.0.1:{port}/api"
    # The UI calls the address that the server believes it has.
    os.environ |= {"PREFECT_API_URL": api_url, "PREFECT_SERVER_API_PORT": str(port)}
    # A short poll: whoever presses Run should not wait ten seconds.
    os.environ |= {"PREFECT_WORKER_QUERY_SECONDS": "2", "PWD": str(PROJECT)}

    say(f"starting Prefect's server on port {port} (its files: {home})")
    with _child("server", home, ["server", "start", "--port", str(port)]) as server:
        _wait_until(lambda: is_healthy(api_url), server, stop, home / "server.log")
        if stop.is_set():
            return
        remember_server(home, api_url)
        asyncio.run(_make_pools())
        asyncio.run(_settle_lost_runs("lost with the server before"))
        say("registering the deployments of prefect.yaml")
        _deploy(home)
        with (
            server_found_from(PROJECT, api_url),
            _child("worker", home, ["worker", "start", "--pool", LOCAL_POOL]) as worker,
        ):
            say(_welcome(port))
            while not stop.wait(0.5):
                for name, child in (("server", server), ("worker", worker)):
                    if child.poll() is not None:
                        raise NotUp(f"the {name} ended by itself; see {home / name}.log")
            say("stopping; runs under way save and stop first")
        asyncio.run(_settle_lost_runs("stopped with `symbio up`"))


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


def _check_free(home: Path, port: int) -> None:
    api_url = running_server(home)
    if api_url is not None:
        raise NotUp(f"it runs already: {api_url.removesuffix('/api')}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise NotUp(f"port {port} is taken; choose another with --port") from error


@contextmanager
def _child(name: str, home: Path, words: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    # A session of its own: Ctrl-C in the terminal reaches us alone, and we stop the rest in order.
    with (home / f"{name}.log").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "prefect", *words],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        _end(child)


def _end(child: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOP_S)


def _wait_until(
    ready: Callable[[], bool], child: subprocess.Popen[bytes], stop: threading.Event, log: Path
) -> None:
    deadline = time.monotonic() + START_S
    while not ready() and not stop.wait(0.2):
        if child.poll() is not None or time.monotonic() > deadline:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
            raise NotUp(f"the server did not start; the end of {log}:\n{tail}")


async def _make_pools() -> None:
    from prefect import get_client
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    # One run at a time a pool: two that share a machine would only slow each other down.
    async with get_client() as client:
        for name in (LOCAL_POOL, GPU_POOL):
            try:
                await client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", concurrency_limit=1)
                )
            except ObjectAlreadyExists:
                await client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=1))


async def _settle_lost_runs(why: str) -> None:
    """Call runs crashed whose process is gone; else they would hold the pool's only place."""
    from prefect import get_client
    from prefect.client.schemas.filters import (
        FlowRunFilter,
        FlowRunFilterState,
        FlowRunFilterStateType,
        WorkPoolFilter,
        WorkPoolFilterName,
    )
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    under_way = [StateType.RUNNING, StateType.PENDING, StateType.CANCELLING, StateType.PAUSED]
    message = f"{why}; nothing is lost: Retry goes on where it stood"
    async with get_client() as client:
        for run in await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(
                state=FlowRunFilterState(type=FlowRunFilterStateType(any_=under_way))
            ),
            work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[LOCAL_POOL])),
        ):
            await client.set_flow_run_state(run.id, Crashed(message=message), force=True)


def _deploy(home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    (home / "deploy.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        raise NotUp(f"the deployments were refused; see {home / 'deploy.log'}")


def _welcome(port: int) -> str:
    return f"""
Prefect is up:  http://127.0.0.1:{port}

  look around   Deployments → symbio/smoke → Run → Quick run   (a whole life in under a minute)
  real run      Deployments → symbio/autonomous → Run → Custom run: the form holds every setting
  from a shell  prefect deployment run symbio/autonomous       (in {PROJECT})
  every night   Deployments → symbio/nightly: switch its schedule on
  a GPU box     prefect worker start --pool {GPU_POOL}         (there, in its own checkout)

Ctrl-C stops server and worker; a run under way is saved, and Retry goes on where it stood.
"""


if __name__ == "__main__":
    sys.exit(main())
