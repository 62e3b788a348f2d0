"""What a run keeps while it lives: each line once, and no more saves than somebody goes back to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from symbio_core import runner
from symbio_core.config import RunConfig, changed
from symbio_core.errors import BucketUnreachable
from symbio_core.progress import Progress, subscribe
from symbio_core.runner.living import judge
from symbio_core.runner.vault import STEPS_KEPT
from symbio_core.storage.journal import Journal


def test_what_the_final_found_and_the_phase_that_held_it_are_told_at_once(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.open_run(changed(tiny_config, {"without": ["search"]}), "told")
    told: list[list[str]] = []
    append = Journal.append

    def noted(self: Journal, events: Sequence[dict[str, Any]]) -> None:
        told.append([event["event"] for event in events])
        append(self, events)

    monkeypatch.setattr(Journal, "append", noted)
    runner.live(run)
    assert ["confirmed", "trained"] in told
    assert [names for names in told if "confirmed" in names] == [["confirmed", "trained"]]


def test_a_line_whose_writing_failed_though_it_arrived_is_found_and_not_told_again(
    tiny_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runner.open_run(changed(tiny_config, {"without": ["search", "final"]}), "unsure")
    append = Journal.append
    lost = []

    def unheard(self: Journal, events: Sequence[dict[str, Any]]) -> None:
        append(self, events)
        if events[0]["event"] == "trained" and not lost:
            lost.append(True)
            self._length = None if self._length is None else self._length - 1
            raise BucketUnreachable("no reply for long")

    monkeypatch.setattr(Journal, "append", unheard)
    plan = run.plan_next()
    assert plan is not None
    with pytest.raises(BucketUnreachable):
        run.train(plan)
    # The same process tries its move again, as a task of a flow does.
    outcome = run.train(plan)
    assert outcome.line_steps > 0
    judge(run, plan)
    assert [event["event"] for event in run.events].count("trained") == 1
    assert runner.reopen(run.config.storage.root, "unsure").events == run.events


def test_a_long_phase_does_not_fill_the_disk_with_saves(tiny_config: RunConfig) -> None:
    often = {"storage.save_every": 5, "without": ["search", "final"], "budget.steps": 300}
    run = runner.open_run(changed(tiny_config, often), "often")
    folder = Path(run.config.storage.root, "runs/often/checkpoints/manifests")
    most = 0

    def count(_: Progress) -> None:
        nonlocal most
        manifests = [json.loads(path.read_bytes()) for path in folder.glob("[0-9]*.json")]
        most = max(most, sum(m["kind"] == "step" for m in manifests))

    unsubscribe = subscribe(count)
    try:
        runner.live(run)
    finally:
        unsubscribe()
    # The two that stay and the one just written, for as long as it takes to delete the oldest.
    assert 2 <= most <= STEPS_KEPT + 1
