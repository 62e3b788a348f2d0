"""The command line as a person meets it: real processes, real exit codes, one line of error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from symbio_core.config import PHASES
from tests.loopback import guard

SMALL = [
    *("--profile", "smoke", "--plain"),
    *("--set", "data.vocab_size=300", "--set", "gates.n_prompts=4"),
    *("--set", "search.eval_batches=4"),
]


def symbio(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "symbio_core.cli", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=environment(),
    )


def environment() -> dict[str, str]:
    here = str(Path(__file__).resolve().parents[2])
    return {**os.environ, **guard.environment(here), "COLUMNS": "160"}


@pytest.fixture(scope="module")
def home(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("home")
    done = symbio("run", *SMALL, "--corpus", str(tiny_corpus), "--run-id", "one", where=where)
    assert done.returncode == 0, done.stderr
    assert "verdict" in done.stdout
    assert "report.html" in done.stdout
    for phase in PHASES:
        assert phase in done.stdout
    return where


def test_status_tells_every_phase_and_what_was_decided(home: Path) -> None:
    done = symbio("status", where=home)
    assert done.returncode == 0
    assert all(phase in done.stdout for phase in PHASES)
    assert "finished" in done.stdout


def test_runs_lists_the_run(home: Path) -> None:
    assert "one" in symbio("runs", where=home).stdout


def test_sample_writes(home: Path) -> None:
    done = symbio("sample", "one", "--prompt", "the river", "--temperature", "0.7", where=home)
    assert done.returncode == 0
    assert len(done.stdout.split()) > 3


def test_evaluate_measures_both_held_out_splits(home: Path) -> None:
    done = symbio("evaluate", "one", where=home)
    assert "validation loss (bits a byte)" in done.stdout
    assert "confirm loss (bits a byte)" in done.stdout


def test_report_is_written_anew(home: Path) -> None:
    page = home / "storage" / "runs" / "one" / "report" / "report.html"
    page.unlink()
    done = symbio("report", "one", where=home)
    assert done.returncode == 0, done.stderr
    assert page.exists()


def test_config_shows_every_setting_with_unit_and_bound(home: Path) -> None:
    done = symbio("config", "--profile", "l4", where=home)
    assert "budget.steps" in done.stdout
    assert "50000" in done.stdout
    assert "≥ 1" in done.stdout


def test_bench_lists_what_it_can_measure(home: Path) -> None:
    assert "efficacy" in symbio("bench", where=home).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--corpus", "nowhere.txt"], "nowhere.txt"),
        (["run", "--profile", "huge"], "smoke, demo, l4, h100"),
        (["run", "--set", "search.mutatoin=1"], "search.mutatoin"),
        (["run", "--set", "search.mutation=7"], "less than or equal to 1"),
        (["run", "--set", "search.mutation"], "KEY=VALUE"),
        (["run", "--budget", "5"], "--budget"),
        (["run", "--config", "none.toml"], "none.toml"),
        (["run", "--storage", "s3://bucket"], "gs://"),
        (["status", "nobody"], "nobody"),
        (["resume", "nobody"], "one"),
        (["bench", "nothing"], "efficacy"),
        (["run", "--no-such-option"], "no-such-option"),
    ],
)
def test_bad_input_ends_with_2_and_a_line_without_a_traceback(
    home: Path, arguments: list[str], words: str
) -> None:
    done = symbio(*arguments, where=home)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_an_empty_storage_says_how_to_begin(tmp_path: Path) -> None:
    assert "symbio run" in symbio("runs", where=tmp_path).stdout
    assert symbio("status", where=tmp_path).returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_with_130_and_can_be_resumed(
    tiny_corpus: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [sys.executable, "-m", "symbio_core.cli", "run", *SMALL]
    command += ["--corpus", str(tiny_corpus), "--run-id", "cut"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for line in process.stdout:
            if "primordial" in line:
                process.send_signal(number)
                break
        process.stdout.read()
        errors = process.stderr.read()
        assert process.wait(120) == 130, errors
    assert "symbio resume cut" in errors
    assert "Traceback" not in errors
    there = str(tmp_path / "storage")
    told = symbio("status", "cut", "--storage", there, where=tmp_path.parent).stdout
    assert f"symbio resume cut --storage {there}" in " ".join(told.split())
    kept = symbio("resume", "cut", "--plain", "--set", "seed=99", where=tmp_path)
    assert kept.returncode == 2
    assert "'seed'" in kept.stderr
    done = symbio("resume", "cut", "--plain", "--max-cost", "7", where=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verdict" in done.stdout
    told = symbio("status", "cut", where=tmp_path).stdout
    assert "budget.max_usd from None to 7.0" in " ".join(told.split())


def test_settings_can_come_from_a_file(tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[budget]\nsteps = 3\n", encoding="utf-8")
    options = ["--corpus", str(tiny_corpus), "--config", "mine.toml"]
    done = symbio("run", *SMALL, *options, where=tmp_path)
    assert done.returncode == 2
    assert "3 steps" in done.stderr
