"""Two people resume one run at the same moment: exactly one goes on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from symbio_core import runner
from symbio_core.storage import gcs
from tests.cloud.storage_server import StorageServer
from tests.loopback import guard

HOUSE = Path(__file__).parents[2]
WAIT_S = 200.0


def resume(root: str, cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*(sys.executable, "-m", "symbio_core.cli"), "resume", "one", "--plain", "--storage", root],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | guard.environment(str(HOUSE)),
    )


@pytest.fixture(params=["folder", "bucket"])
def root(
    request: pytest.FixtureRequest, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The storage root of a run that stands after its first decision."""
    folder = Path(shutil.copytree(whole, tmp_path / "root"))
    back_to_the_second_attempt(folder)
    if request.param == "folder":
        yield str(folder)
        return
    with StorageServer() as server:
        server.world.add_bucket("mine")
        for path in (path for path in folder.glob("runs/**/*") if path.is_file()):
            name = path.relative_to(folder).as_posix()
            server.world.put("mine", {"name": name}, {}, path.read_bytes())
        monkeypatch.setenv(gcs.ENDPOINT_VARIABLE, server.url)
        monkeypatch.setenv("SYMBIO_CACHE", str(tmp_path / "cache"))
        yield "gs://mine"


def test_of_two_who_resume_at_once_one_is_refused_and_the_other_goes_on(
    root: str, tmp_path: Path
) -> None:
    both = [resume(root, tmp_path), resume(root, tmp_path)]
    try:
        deadline = time.monotonic() + WAIT_S
        while all(process.poll() is None for process in both):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        refused, goes_on = sorted(both, key=lambda process: process.poll() is None)
        told = refused.communicate()[1]
        assert refused.returncode == 2, told
        assert f"is being worked on by process {goes_on.pid} on" in told
        assert "symbio resume one --take-over" in told
        assert goes_on.poll() is None
        goes_on.send_signal(signal.SIGINT)
        _, told = goes_on.communicate(timeout=WAIT_S)
        assert goes_on.returncode in (0, 130), told
    finally:
        for process in both:
            process.kill()
            process.wait()
    # Given back at its end, so nobody has to wait for it to expire.
    again = runner.reopen(root, "one")
    again.claim()
    again.release()


def back_to_the_second_attempt(root: Path) -> None:
    """Leave the journal as it was after the first decision."""
    journal = root / "runs" / "one" / "journal"
    segments = sorted(journal.iterdir())
    first = next(n for n, path in enumerate(segments) if '"decided"' in path.read_text())
    for path in segments[first + 1 :]:
        path.unlink()
    (root / "runs" / "one" / "state.json").unlink()
