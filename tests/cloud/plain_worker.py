"""A machine's watchdog with a worker that needs no Prefect: it trains the next turn it finds.

`python -m tests.cloud.plain_worker --home FOLDER` stands where the startup script runs the watchdog
by its own name; the watchdog itself is the real one.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from deployments.surroundings import PROJECT
from deployments.vm import watchdog
from symbio_core import progress
from symbio_core.errors import SymbioError
from symbio_core.runner import reopen
from symbio_core.runner.elsewhere import sit
from symbio_core.storage.post import Post

PAUSE_S = 0.1


def python_for(folder: Path) -> str:
    """Return a command that the startup script takes for Python, and that runs this module."""
    file = folder / "python-of-the-machine"
    file.write_text(
        f"#!/bin/sh\nexport PYTHONPATH={PROJECT}:$PYTHONPATH\n"
        f'exec {sys.executable} -m tests.cloud.plain_worker "$@"\n',
        encoding="utf-8",
    )
    file.chmod(0o755)
    return str(file)


def train_next(root: str, run_id: str, done: int) -> int:
    """Train the turn that counts, unless it is the one done last; return its number."""
    run = reopen(root, run_id)
    plan = run.under_way
    turn = Post(run.store, plan).turn() if plan is not None else None
    if plan is None or turn is None or turn.number == done:
        return done
    pid_file = Path(os.environ[watchdog.PHASE_PID])
    pid_file.write_text(str(os.getpid()), encoding="ascii")
    try:
        with sit(root, run_id, plan, turn.number) as away:
            away.train(plan)
            away.write_battery(plan)
    except SymbioError as error:
        print(f"turn {turn.number}: {error}", flush=True)
    finally:
        pid_file.unlink(missing_ok=True)
    return turn.number


def main() -> None:
    """Be the worker, or else the watchdog that starts it."""
    if sys.argv[1] == "--work":
        signal.signal(signal.SIGTERM, lambda *_: progress.request_stop())
        done = 0
        while True:
            done = train_next(sys.argv[2], sys.argv[3], done)
            time.sleep(PAUSE_S)
    home = Path(sys.argv[sys.argv.index("--home") + 1])
    own = watchdog.Watchdog(home)
    words = ["-m", "tests.cloud.plain_worker", "--work", own.metadata.attribute("symbio-root")]
    watchdog.WORKER = [sys.executable, *words, own.run_id]
    own.keep()


if __name__ == "__main__":
    main()
