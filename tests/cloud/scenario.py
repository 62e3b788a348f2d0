"""Lives in the cloud that are hurt by a plan drawn from a seed, and what came of each.

`python -m tests.cloud.scenario --count 20 --json FILE` runs them; the first four phases are lived
once, on this machine, and every scenario goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from symbio_core import runner
from symbio_core.config import RunConfig
from symbio_core.runner import Run
from symbio_core.storage import open_store
from symbio_core.streams import generator
from tests.cloud.compute_world import Fault
from tests.cloud.setting import CLOUD, ROOT, ZONES, Setting, calm, cloud, prefect_server
from tests.conftest import tiny, tiny_text
from tests.flows.away import difference, end, live_here_until, model_of, plainly, session
from tests.loopback import guard

RUN = "far"
PHASES = ("endosymbiosis", "homeostasis")
DRAWS = 3
"""Times that hazards are drawn for a scenario, until all that were drawn come to pass."""
LIMIT_S = 600.0
"""A scenario that takes longer has failed (s)."""


@dataclass
class Result:
    """What came of one scenario."""

    seed: int
    hazards: list[str] = field(default_factory=list)
    """What came to pass."""
    missed: list[str] = field(default_factory=list)
    """What was drawn as well and never came to pass."""
    ok: bool = False
    why: str = ""
    orphans: int = 0
    ledger_error_s: float = 0.0
    most_alive: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Lived:
    """The phases before those that are tried, lived in peace, and all six."""

    half: Run
    whole: Run


BEFORE: dict[str, Callable[[Setting], Fault]] = {
    "stockout": lambda s: s.gce.fail("insert", "ZONE_RESOURCE_POOL_EXHAUSTED", zone=ZONES[0]),
    "stockout with details": lambda s: s.gce.fail(
        "insert", "ZONE_RESOURCE_POOL_EXHAUSTED_WITH_DETAILS", count=2, zones_available=ZONES[2]
    ),
    "order without a reply": lambda s: s.gce.fail("insert", "lost_reply"),
    "deletion without a reply": lambda s: s.gce.fail("delete", "lost_reply"),
    "busy service": lambda s: s.gce.fail("*", "503", count=3, skip=2),
    "too many requests": lambda s: s.gce.fail("*", "429", count=4, skip=1),
    "broken connections": lambda s: s.gce.fail("get", "reset", count=3),
}


def _preempt(setting: Setting, _pid: int, _parent: Any) -> None:
    setting.gce.world.preempt(*setting.machine())


def _crash(setting: Setting, _pid: int, _parent: Any) -> None:
    setting.gce.world.crash(*setting.machine())


def _guest_off(setting: Setting, _pid: int, _parent: Any) -> None:
    setting.gce.world.guest_off(*setting.machine())


def _cut_off(setting: Setting, _pid: int, _parent: Any) -> None:
    setting.cut_off()


def _kill_phase(_setting: Setting, pid: int, _parent: Any) -> None:
    os.kill(pid, signal.SIGKILL)


def _hang_phase(_setting: Setting, pid: int, _parent: Any) -> None:
    os.kill(pid, signal.SIGSTOP)


def _kill_all(setting: Setting, pid: int, _parent: Any) -> None:
    for one in session(int(_leader(pid))):
        with suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)


def _kill_parent(_setting: Setting, _pid: int, parent: Any) -> None:
    end(parent)


def _leader(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3]


DURING = {
    "preempted": _preempt,
    "host crash": _crash,
    "switched off inside": _guest_off,
    "network lost": _cut_off,
    "phase killed": _kill_phase,
    "phase hangs": _hang_phase,
    "worker and phase killed": _kill_all,
    "parent killed": _kill_parent,
}


def until_all_comes(live: Callable[[int], Result]) -> Result:
    """Return what came of a scenario whose hazards all came to pass, and whether it went well.

    Where one did not, others are drawn: all may have gone well for want of it. What has failed
    stands.

    Args:
        live: lives the scenario under its nth draw.
    """
    result = live(0)
    for draw in range(1, DRAWS):
        if result.why or not result.missed:
            break
        result = live(draw)
    result.ok = not result.why and not result.missed
    return result


def run_scenario(
    seed: int, draw: int, folder: Path, settings: dict[str, str], lived: Lived
) -> Result:
    """Live the last two phases under the hazards of one of the draws of ``seed``."""
    rng = generator(seed, "cloud chaos", f"draw {draw}")
    result, began = Result(seed), time.monotonic()
    folder.mkdir(parents=True)
    before = [str(name) for name in rng.permutation(list(BEFORE))[: rng.integers(0, 3)]]
    during = [str(name) for name in rng.permutation(list(DURING))[: rng.integers(1, 3)]]
    with cloud(folder, settings) as setting:
        try:
            config = copied(lived.half)
            planted = {name: BEFORE[name](setting) for name in before}
            counts = {name: fault.count for name, fault in planted.items()}
            try:
                _live(setting, config, during, result)
            finally:
                came = [name for name in before if planted[name].count < counts[name]]
                result.hazards[:0] = came
                result.missed = [*during, *(name for name in before if name not in came)]
            _check(setting, result, lived.whole)
        except Exception as error:  # noqa: BLE001 - whatever went wrong is the result
            result.why = f"{type(error).__name__}: {error}"
            (folder / "told.log").write_text(setting.told(), encoding="utf-8")
        result.orphans = len(setting.orphans())
        result.most_alive = setting.gce.world.most_alive
    result.seconds = time.monotonic() - began
    return result


def _live(setting: Setting, config: RunConfig, during: list[str], result: Result) -> None:
    until = time.monotonic() + LIMIT_S
    hit: set[tuple[str, int]] = set()
    with ExitStack() as parents:
        parent = parents.enter_context(setting.away.parent(config, RUN))
        while True:
            code = parent.poll()
            if code is not None and code != -signal.SIGKILL:
                assert code == 0, f"the parent ended with {code}"
                return
            if code is not None:
                parent = parents.enter_context(setting.away.parent(config, RUN))
            assert time.monotonic() < until, "it did not end in time"
            for phase in PHASES:
                turn = setting.away.turns(RUN, phase)
                pid = setting.away.mid_phase(RUN, phase, turn)
                if during and pid and (phase, turn) not in hit:
                    hit.add((phase, turn))
                    DURING[during[0]](setting, pid, parent)
                    result.hazards.append(f"{during.pop(0)} in {phase}")
            time.sleep(0.05)


def _check(setting: Setting, result: Result, whole: Run) -> None:
    far = runner.reopen(ROOT, RUN)
    result.ledger_error_s = setting.ledger_error_s(RUN)
    assert far.is_finished
    left = setting.orphans()
    assert not left, f"something is left: {', '.join(left)}"
    assert setting.gce.world.most_alive == 1, "one machine at a time"
    assert result.ledger_error_s == 0.0, "the ledger is not the bill"
    assert not setting.past.wrong(), "; ".join(setting.past.wrong())
    unlike = difference(plainly(far.events), plainly(whole.events))
    assert not unlike, f"the journal differs from a calm life's at {unlike}"
    assert model_of(far) == model_of(whole), "the model differs from a calm life's"


def copied(lived: Run) -> RunConfig:
    """Copy the life so far into the bucket, as if it had been lived from there."""
    bucket, source = open_store(ROOT), lived.store.store
    for key in source.keys(f"runs/{RUN}/"):
        found = source.read(key)
        assert found is not None
        if not key.endswith("/LEASE"):
            bucket.create(key, found.data)
    return runner.reopen(ROOT, RUN).config


def live_half(folder: Path, until: str = PHASES[0]) -> Lived:
    """Live the phases before ``until`` on this machine, and all beside, for comparison."""
    corpus = folder / "corpus.txt"
    corpus.write_text(tiny_text(), encoding="utf-8")
    whole = runner.begin(calm(tiny(corpus, folder / "whole")), RUN)
    runner.live(whole)
    # Opened under the settings of the cloud, which the journal keeps, and lived here so far.
    here = {"storage.root": str(folder / "half")}
    config = calm(tiny(corpus, folder / "half"), **CLOUD | here)
    return Lived(live_here_until(config, RUN, until), whole)


def main() -> None:
    """Run scenarios one after the other and write what came of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.cloud.scenario", description=__doc__)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--first", type=int, default=1, help="seed of the first")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="keep everything there")
    asked = parser.parse_args()
    guard.keep_to_loopback()
    results: list[Result] = []
    with ExitStack() as open_things:
        folder = asked.folder or Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        lived = live_half(folder)
        settings = open_things.enter_context(prefect_server(folder))
        for seed in range(asked.first, asked.first + asked.count):
            place = folder / f"seed-{seed}"
            result = until_all_comes(
                lambda draw, seed=seed, place=place: run_scenario(
                    seed, draw, place / f"draw-{draw}", settings, lived
                )
            )
            results.append(result)
            print(_line(result), flush=True)
    asked.json.write_text(json.dumps([asdict(r) for r in results]), encoding="utf-8")


def _line(result: Result) -> str:
    what = ", ".join(result.hazards) or "nothing"
    missed = f"{', '.join(result.missed)} never came to pass"
    how = "ok" if result.ok else f"FAILED: {result.why or missed}"
    return f"seed {result.seed}: {what}: {how} ({result.seconds:.0f} s)"


if __name__ == "__main__":
    main()
