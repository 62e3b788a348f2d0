from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deployments.surroundings import PROJECT, is_healthy

OWNER = """
import sys
from deployments.server import start
from deployments.surroundings import settle
print(start(settle()).wait(), flush=True)
sys.stdin.read()
"""


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("end", ["exit", "kill"])
def test_the_embedded_server_lives_as_long_as_its_owner(tmp_path: Path, end: str) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        cwd=PROJECT,
        env=env | {"PREFECT_HOME": str(tmp_path / "a home with spaces")},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    api_url = owner.stdout.readline().strip()
    assert is_healthy(api_url)
    if end == "kill":
        owner.send_signal(signal.SIGKILL)
    owner.communicate()
    deadline = time.monotonic() + 30
    while is_healthy(api_url):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert (tmp_path / "a home with spaces" / "prefect.db").exists()
