"""Real processes without the seconds of importing: a server imports once and forks each run.

A forked process is killed like any other; only its start is cheaper than that of `symbio` itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class ForkServer:
    """The side of the tests: starts runs, and asks how they ended."""

    def __init__(self) -> None:
        self.child = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forking"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )

    def launch(self, words: Sequence[str], log: Path) -> Forked:
        """Start `symbio` with these words."""
        return Forked(self, self.ask(words=list(words), log=str(log))["pid"])

    def ask(self, **request: Any) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(json.dumps(request).encode() + b"\n")
        self.child.stdin.flush()
        answer: dict[str, Any] = json.loads(self.child.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()


class Forked:
    """A run that the server has forked."""

    def __init__(self, server: ForkServer, pid: int) -> None:
        self.server = server
        self.pid = pid
        self.code: int | None = None

    def poll(self) -> int | None:
        if self.code is None:
            self.code = self.server.ask(poll=self.pid)["code"]
        return self.code


def serve() -> None:
    """Fork a run for each request, until standard input is closed."""
    import torch  # noqa: F401 - what every run needs is imported here, once

    from symbio_core import benches, cli, runner  # noqa: F401

    if "STORAGE_EMULATOR_HOST" in os.environ:
        hurry()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            answer = {"pid": fork(request["words"], request["log"])}
        print(json.dumps(answer), flush=True)


def hurry() -> None:
    """Let the runs ask our own Cloud Storage as fast as it answers."""
    import google.cloud.storage  # noqa: F401

    from symbio_core.storage import gcs
    from tests.cloud.buckets import FAST

    gcs.retry_policy = lambda: FAST
    gcs._PACER.interval_s = 0.0


def fork(words: Sequence[str], log: str) -> int:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            nothing = os.open(os.devnull, os.O_RDONLY)
            for number, target in enumerate((nothing, output, output)):
                os.dup2(target, number)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            code = live(words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid


def live(words: Sequence[str]) -> int:
    from symbio_core.cli import main

    sys.argv = ["symbio", *words]
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


if __name__ == "__main__":
    serve()
