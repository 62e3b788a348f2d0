"""A phase, whose process dies before every single file operation of its saves, and goes on.

Run as a program: it prepares the corpus once and forks every process from there. Just before the
save in question the process stops, and its storage is copied. Then, operation by operation, a child
does the save and dies on the way, and another opens what is left and lives to the phase's end.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from symbio_core import progress, runner
from symbio_core.config import changed
from symbio_core.runner import Run
from symbio_core.runner.living import judge
from symbio_core.runner.verifying import Fingerprint, differences, fingerprint
from symbio_core.runner.workbench import Workbench
from tests.faults.lives import shortest
from tests.faults.operations import DIED, before_each, dying

RUN = "dying"


class Nursery:
    """Forks processes that live through one phase of one run, all in the same folder."""

    def __init__(self, corpus: Path, folder: Path) -> None:
        self.root = folder / "storage"
        self.pristine = folder / "before"
        self.result = folder / "result.json"
        steps = {"storage.save_every": 5, "gates.eval_every": 5, "storage.lease_s": 3600.0}
        self.config = changed(shortest(corpus, self.root), steps)
        self.bench = Workbench(self.config, self.root / "corpora")
        assert self.bench.reference

    def fork(self, live: Callable[[], Any]) -> Any:
        """Return what ``live`` returns in a process of its own, or None where that one died."""
        self.result.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            try:
                self.result.write_text(json.dumps(live()))
            except BaseException as error:
                self.result.write_text(json.dumps({"failed": f"{type(error).__name__}: {error}"}))
                raise
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code == DIED:
            return None
        return json.loads(self.result.read_text())

    def begin(self) -> Run:
        run = Run(RUN, self.config, runner.open_run(self.config, RUN).store)
        run.bench = self.bench
        return run

    def go_on(self, phase: str) -> dict[str, Any]:
        """Open what is there and live to the end of a phase; return its fingerprint."""
        # Nothing of the process that this one was forked from in the midst of its work.
        progress._listeners.clear()
        torch.set_grad_enabled(True)
        run = runner.reopen(str(self.root), RUN)
        run.bench = self.bench
        run.claim(take_over=True)
        live_through(run, phase)
        with run.writing():
            run._retain()  # as `finish` does, for those who died between decision and retention
        return fingerprint(run).plain

    def whole(self, phase: str) -> Fingerprint:
        found = self.fork(lambda: (self.begin(), self.go_on(phase))[1])
        shutil.rmtree(self.root / "runs")
        return told(found)

    def die_in(self, stage: str) -> list[dict[str, Any]]:
        """Return a line for each operation of the stage: its number, name and what differs."""
        reference = self.whole(phase_of(stage))
        found: list[dict[str, Any]] = []
        stopped = self.fork(lambda: self._stop_before(stage, found, reference))
        shutil.rmtree(self.root / "runs")
        assert isinstance(stopped, list), stopped
        return stopped

    def _stop_before(
        self, stage: str, found: list[dict[str, Any]], reference: Fingerprint
    ) -> list[dict[str, Any]]:
        run = self.begin()
        place, name, is_meant = WHERE[stage](run)
        original = getattr(place, name)

        def stopped(*args: Any, **kwargs: Any) -> Any:
            if not is_meant(*args, **kwargs):
                return original(*args, **kwargs)
            self._try_all(stage, lambda: original(*args, **kwargs), found, reference)
            raise _Enough

        setattr(place, name, stopped)
        try:
            live_through(run, phase_of(stage))
        except _Enough:
            return found
        raise AssertionError(f"no {stage} in the phase")

    def _try_all(
        self,
        stage: str,
        save: Callable[[], Any],
        found: list[dict[str, Any]],
        reference: Fingerprint,
    ) -> None:
        shutil.copytree(self.root / "runs", self.pristine)
        names: list[str] = []
        nursery = Nursery.__new__(Nursery)
        nursery.__dict__ |= self.__dict__ | {"result": self.result.with_name("inner.json")}

        def counted() -> list[str]:
            with before_each(names.append):
                save()
            return names

        operations = nursery.fork(counted)
        for number, name in enumerate([*operations, "none"]):
            self._put_back()

            def die(number: int = number) -> bool:
                with before_each(dying(number)):
                    save()
                return True

            survived = nursery.fork(die)
            after = told(nursery.fork(lambda: self.go_on(phase_of(stage))))
            found.append(
                {
                    "number": number,
                    "operation": name,
                    "died": survived is None,
                    "differs": differences(after, reference),
                }
            )
        self._put_back()
        shutil.rmtree(self.pristine)

    def _put_back(self) -> None:
        shutil.rmtree(self.root / "runs")
        shutil.copytree(self.pristine, self.root / "runs")


class _Enough(Exception):
    """All was tried."""


IN_SEARCH = "a save in a search"
WHERE: dict[str, Callable[[Run], tuple[Any, str, Callable[..., bool]]]] = {
    IN_SEARCH: lambda run: (run.vault, "_write_step", partial(_is_late_in_search, run)),
    "weights of the end": lambda run: (run.vault, "_put_all", lambda _: bool(run.under_way)),
    "manifest of the end": lambda run: (run.store.checkpoints, "save", _is_end),
    "a journal line": lambda run: (run, "_enter", lambda line: line["event"] == "trained"),
    "a decision": lambda run: (run, "_enter", lambda line: line["event"] == "decided"),
    "retention": lambda run: (run, "_retain", lambda: True),
}
"""What a process dies in: the object and the name of the method, and which of its calls."""


def phase_of(stage: str) -> str:
    """Return the phase that a stage is in; deaths in it are followed to that phase's end."""
    return "primordial" if stage == IN_SEARCH else "abiogenesis"


def live_through(run: Run, phase: str) -> None:
    while all(attempt.plan.phase != phase for attempt in run.attempts):
        plan = run.plan_next()
        assert plan is not None
        run.train(plan)
        if plan.phase == "primordial":
            return  # What training found is in the journal; judging it again shows nothing more.
        judge(run, plan)


def _is_late_in_search(run: Run, parts: dict[str, Any], *_: Any) -> bool:
    # Late, so that those who come next have little left to live through.
    assert run.under_way is not None
    at = parts["progress"]
    spent = at["line_steps"] + at["search_steps"]
    return bool(at["generations"]) and spent >= 0.8 * run.under_way.steps


def _is_end(*_: Any, kind: str, **__: Any) -> bool:
    return kind == "end"


def told(plain: dict[str, Any]) -> Fingerprint:
    assert "failed" not in plain, plain
    return Fingerprint(**{**plain, "events": tuple(plain["events"])})


if __name__ == "__main__":
    nursery = Nursery(Path(sys.argv[1]), Path(sys.argv[2]))
    for stage in sys.argv[3:]:
        print(json.dumps(nursery.die_in(stage)), flush=True)
