"""The processes of a machine: its startup script and whatever that started, on its own disk."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

MARK = "SYMBIO_TEST_VM"
"""Environment variable that all processes of a machine inherit, wherever they move."""


class VmProcess:
    """One boot of a machine."""

    def __init__(self, script: str, disk: Path, serial: Path, mark: str, env: dict[str, str]):
        self.mark = mark
        file = disk.parent / f"{disk.name}.startup-script"
        file.write_text(script, encoding="utf-8")
        self.env = {**env, MARK: mark}
        self.disk = disk
        self.serial = serial
        self.last_words: subprocess.Popen[bytes] | None = None
        with serial.open("ab") as out:
            self.leader = subprocess.Popen(
                ["/bin/bash", str(file)],
                cwd=disk,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def members(self) -> list[int]:
        """Return all living processes of the machine, those that left its session included."""
        self.leader.poll()
        return [pid for pid in living() if _session(pid) == self.leader.pid or self._is_mine(pid)]

    def run_shutdown_script(self, script: str) -> None:
        file = self.disk.parent / f"{self.disk.name}.shutdown-script"
        file.write_text(script, encoding="utf-8")
        with self.serial.open("ab") as out:
            self.last_words = subprocess.Popen(
                ["/bin/bash", str(file)], cwd=self.disk, env=self.env, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def signal(self, number: signal.Signals) -> None:
        for pid in self.members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """End all of it at once, and return when none lives."""
        until = time.monotonic() + 20.0
        while self.members():
            self.signal(signal.SIGKILL)
            if time.monotonic() > until:
                raise RuntimeError(f"processes {self.members()} survive SIGKILL")
            time.sleep(0.005)
        self.leader.wait()
        if self.last_words is not None:
            self.last_words.wait()

    def _is_mine(self, pid: int) -> bool:
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False
        return f"{MARK}={self.mark}".encode() in environment.split(b"\0")


def living() -> list[int]:
    """Return all processes that are not zombies: the first process here may reap none."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [pid for pid in pids if (_stat(pid) or ["Z"])[0] not in "ZX"]


def _session(pid: int) -> int | None:
    stat = _stat(pid)
    return int(stat[3]) if stat else None


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, parent, group, session …"""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
