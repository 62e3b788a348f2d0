"""Saving beside the training thread: nothing is changed by it, nothing forgotten, no error lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch

from symbio_core import runner
from symbio_core.config import changed
from symbio_core.errors import DiskTooFull
from symbio_core.records import PhasePlan, Weights
from symbio_core.runner import Run, finishing
from symbio_core.runner.exported import WEIGHTS
from symbio_core.runner.vault import Snapshot
from symbio_core.storage import FolderStore
from symbio_core.storage.canonical import tensors
from symbio_core.training import Member
from tests.conftest import tiny


@pytest.fixture(scope="module")
def opened(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, PhasePlan]:
    config = changed(tiny(tiny_corpus, tmp_path_factory.mktemp("vault")), {"storage.save_every": 5})
    run = runner.open_run(config, "saved")
    plan = run.plan_next()
    assert plan is not None
    return run, plan


@pytest.fixture
def line(opened: tuple[Run, PhasePlan]) -> Snapshot:
    start = opened[0].vault.load(opened[0].store.checkpoints.manifests()[0].id)
    return Snapshot(start.member, start.search, Snapshot.of(start.member, start.search), {"n": 1})


def train(run: Run, member: Member, steps: int) -> None:
    member.train(steps, run.bench.train_batches("line"), lambda _: 1.0)


def arrays_equal(one: Member, other: Member) -> bool:
    a, b = one.arrays(), other.arrays()
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)


@torch.no_grad()
def ruin(weights: list[torch.Tensor]) -> None:
    rng = torch.Generator().manual_seed(1)
    for weight in weights:
        weight.add_(torch.randn(weight.shape, generator=rng))


class Gate:
    """Lets no object be created until it is opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
        self.open = threading.Event()
        create = FolderStore.create

        def gated(store: FolderStore, key: str, data: bytes) -> str:
            assert self.open.wait(30.0)
            then()
            return create(store, key, data)

        monkeypatch.setattr(FolderStore, "create", gated)


def test_training_goes_on_while_a_save_is_held_up_and_changes_nothing_of_it(
    opened: tuple[Run, PhasePlan], line: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = opened
    train(run, line.member, 2)
    as_it_was = line.member.fork()
    gate = Gate(monkeypatch, lambda: None)
    with run.writing():
        run.vault.save_step(plan, line, step=2)
        train(run, line.member, 2)
        gate.open.set()
        found = run.vault.load_step(plan, pytest.fail)
    assert found is not None
    assert arrays_equal(found.member, as_it_was)
    assert not arrays_equal(line.member, as_it_was)


def test_what_goes_wrong_in_a_save_is_raised_where_training_waits_for_it(
    opened: tuple[Run, PhasePlan], line: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = opened

    def full() -> None:
        raise DiskTooFull("no space left")

    gate = Gate(monkeypatch, full)
    gate.open.set()
    train(run, line.member, 3)
    journal = list(run.events)
    with run.writing():
        run.vault.save_step(plan, line, step=3)
        with pytest.raises(DiskTooFull):
            run._note("noted", message="this comes after the save")
    assert list(run.events) == journal
    run.vault.join()  # told once


def test_a_move_ends_with_all_that_it_saved_on_disk(
    opened: tuple[Run, PhasePlan], line: Snapshot
) -> None:
    run, plan = opened
    train(run, line.member, 4)
    with run.writing():
        run.vault.save_step(plan, line, step=4)
    newest = runner.reopen(run.config.storage.root, "saved").store.checkpoints.latest()
    assert newest is not None
    assert (newest.kind, newest.step) == ("step", 4)


@pytest.mark.parametrize("trained", [0, 2])
def test_a_best_line_that_stays_is_hashed_once(
    opened: tuple[Run, PhasePlan], line: Snapshot, trained: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = opened
    hashed: list[Any] = []
    put = run.store.checkpoints._put

    def counted(content: Any) -> Any:
        if isinstance(content, dict) and "line_step" in content:
            hashed.append(content)
        return put(content)

    monkeypatch.setattr(run.store.checkpoints, "_put", counted)
    train(run, line.member, 1)
    best = Snapshot.of(line.member, line.search)
    train(run, line.member, trained)
    with run.writing():
        for step in (5, 6):
            here = Snapshot(line.member, line.search, best, {"step": step})
            run.vault.save_step(plan, here, step=step)
            run.vault.join()
            train(run, line.member, 1)
        found = run.vault.load_step(plan, pytest.fail)
    # Twice the line, and the best one beside it unless they are the same at first.
    assert len(hashed) == (2 if trained == 0 else 3)
    assert found is not None
    assert found.best is not None
    assert arrays_equal(found.best.member, best.member)


def test_a_best_line_whose_blob_was_lost_is_stored_again(
    opened: tuple[Run, PhasePlan], line: Snapshot
) -> None:
    run, plan = opened
    train(run, line.member, 6)
    best = Snapshot.of(line.member, line.search)
    train(run, line.member, 1)
    with run.writing():
        run.vault.save_step(plan, Snapshot(line.member, line.search, best, {}), step=7)
        run.vault.join()
        manifest = run.store.checkpoints.latest()
        assert manifest is not None
        run.store.checkpoints.blobs.delete(manifest.parts["best"].sha256)
        run.vault.save_step(plan, Snapshot(line.member, line.search, best, {}), step=8)
        found = run.vault.load_step(plan, pytest.fail)
    assert found is not None
    assert found.best is not None
    assert arrays_equal(found.best.member, best.member)


def test_time_that_training_stands_still_is_counted(
    opened: tuple[Run, PhasePlan], line: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plan = opened
    train(run, line.member, 5)
    before = run.vault.stalled_s
    gate = Gate(monkeypatch, lambda: None)
    held_s = 0.2
    threading.Timer(held_s, gate.open.set).start()
    with run.writing():
        run.vault.save_step(plan, line, step=9)
        run.vault.join()
    assert run.vault.stalled_s - before >= held_s / 2


@pytest.mark.parametrize("best", get_args(Weights))
def test_the_best_of_live_averaged_and_consensus_weights_is_what_is_exported(
    opened: tuple[Run, PhasePlan], line: Snapshot, best: Weights
) -> None:
    run, plan = opened
    member = line.member
    train(run, member, 20)
    good = [p.detach().clone() for p in member.model.parameters()]
    member.ema, member.shadow = [w.clone() for w in good], [w.clone() for w in good]
    sets = {"live": list(member.model.parameters()), "ema": member.ema, "shadow": member.shadow}
    for name, weights in sets.items():
        if name != best:
            ruin(weights)
    with run.writing():
        saved = run.vault.save_end(plan, member, line.search, step=20)
    assert saved.serves == best
    assert set(saved.weights_bpb) == set(sets)
    assert saved.val_bpb == saved.weights_bpb[best] == min(saved.weights_bpb.values())
    with run.writing():
        finishing.export(run, run.vault.load_model(saved.id), saved)
    exported = tensors(run.store.read_file(WEIGHTS))
    for (name, _), weight in zip(member.model.named_parameters(), good, strict=True):
        assert np.array_equal(exported[name], weight.numpy())
