"""Prefect's API for one run: without UI and scheduler, and it ends with whoever started it."""

from __future__ import annotations

import atexit
import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

from deployments.surroundings import PROJECT, free_port, is_healthy

START_S = 120.0
"""How long the server may take to answer (s); usually 3 to 5."""
STOP_S = 10.0
"""How long it may take to end before it is killed (s)."""


class Server:
    """A server that has been started and may not answer yet."""

    def __init__(self, child: subprocess.Popen[bytes], api_url: str, log: Path) -> None:
        self.child = child
        self.api_url = api_url
        self.log = log

    def wait(self) -> str:
        """Return the server's address once it answers.

        Raises:
            RuntimeError: it ended, or took longer than two minutes; the message names its log.
        """
        deadline = time.monotonic() + START_S
        while not is_healthy(self.api_url):
            if self.child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"Prefect's embedded server did not start; see {self.log}, or run with --plain"
                )
            time.sleep(0.05)
        return self.api_url


@cache
def start(home: Path) -> Server:
    """Start a server on a free port, once; it ends with this process, killed or not.

    It takes a few seconds until it answers, in which something else can be done.
    """
    port, log = free_port(), home / "embedded.log"
    # A session of its own: Ctrl-C in the terminal must not end it before the run has told it so.
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "deployments.server", str(port)],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Registered before Prefect is imported, so it comes after Prefect has sent its last logs.
    atexit.register(_end, child)
    return Server(child, f"http://127.0.0.1:{port}/api", log)


def _end(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    child.stdin.close()
    try:
        child.wait(STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def main() -> None:
    """Serve on the port given as argument until standard input is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app(ephemeral=True, final=True)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error")


def _end_with_parent() -> None:
    # The pipe closes when the parent ends, however it ends.
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
