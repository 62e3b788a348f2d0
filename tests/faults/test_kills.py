"""Real SIGKILLs of real runs at random and at chosen moments: each ends with the same bits."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import typer

from symbio_core import runner
from symbio_core.benches import soak
from symbio_core.cli.app import app
from symbio_core.config import RunConfig, changed
from symbio_core.errors import SymbioError
from symbio_core.runner import killing
from symbio_core.runner.killing import (
    WHOLE,
    Life,
    Proof,
    command,
    draw_moments,
    fingerprint_at,
    live_killed,
)
from symbio_core.runner.processes import (
    AIMS,
    Moment,
    Process,
    descendants,
    kill_tree,
    spawn,
)
from symbio_core.runner.verifying import Fingerprint, differences, divergence
from symbio_core.streams import generator
from tests.conftest import SAID
from tests.faults.forking import ForkServer
from tests.faults.lives import shortest

SEED = 20_240
LIVES, KILLS = 5, 30
IN_ORDER = ("start", "save", "search", "battery", "decision", "final")


@dataclass
class Kills:
    """A run left alone, and others that were not."""

    config: RunConfig
    forks: ForkServer
    whole: Life
    reference: Fingerprint
    lives: dict[str, Life] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return self.config.storage.root

    @property
    def moments(self) -> list[Moment]:
        return [moment for life in self.lives.values() for moment in life.kills]

    @property
    def torn(self) -> int:
        """Kills that left something half written."""
        return sum(life.torn for life in self.lives.values())

    def differs(self, name: str) -> list[str]:
        return differences(fingerprint_at(self.root, name), self.reference)


@pytest.fixture(scope="module")
def undisturbed(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kills]:
    root = tmp_path_factory.mktemp("kills")
    config = shortest(tiny_corpus, root)
    forks = ForkServer()
    try:
        whole = live_killed(config, WHOLE, (), launch=forks.launch)
        yield Kills(config, forks, whole, fingerprint_at(str(root), WHOLE))
    finally:
        forks.close()


@pytest.fixture(scope="module")
def kills(undisturbed: Kills) -> Kills:
    rng, found = generator(SEED, "kills"), undisturbed
    while len(found.lives) < LIVES or len(found.moments) < KILLS or not found.torn:
        name = f"killed-{len(found.lives)}"
        # One is lived by processes that start as a person's do; the others have imported already.
        is_slow = len(found.lives) == 1
        moments = draw_moments(rng, 4 if is_slow else 8, found.whole.last_s)
        if not found.lives:
            moments = [Moment(aim) for aim in IN_ORDER]
        elif len(found.lives) >= LIVES:
            moments = [Moment("save")] * 8
        launch = spawn if is_slow else found.forks.launch
        found.lives[name] = live_killed(found.config, name, moments, launch=launch)
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_runs_killed_thirty_times_end_with_the_bits_of_the_undisturbed_one(
    kills: Kills, record_property: Callable[[str, object], None]
) -> None:
    record_property(SAID, f"seed {SEED}, {len(kills.moments)} kills, {kills.torn} in mid-write")
    assert len(kills.moments) >= KILLS
    assert {name: told for name in kills.lives if (told := kills.differs(name))} == {}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_kills_met_every_activity_of_a_run(kills: Kills) -> None:
    assert {moment.aim for moment in kills.moments} == set(AIMS)
    assert kills.torn >= 1
    assert kills.lives["killed-1"].kills, "no process that started by itself was killed"


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(1200)
def test_the_whole_tree_of_processes_is_killed_and_the_run_goes_on(
    undisturbed: Kills, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    moments = [Moment("save"), Moment("battery", 0.02)]
    life = live_killed(undisturbed.config, "through-prefect", moments, launch=spawn, plain=False)
    assert len(life.kills) == 2
    assert undisturbed.differs("through-prefect") == []


@pytest.mark.slow
def test_another_seed_is_another_life_and_the_comparison_says_where(undisturbed: Kills) -> None:
    config = changed(undisturbed.config, {"seed": 2})
    live_killed(config, "another", (), launch=undisturbed.forks.launch)
    told = undisturbed.differs("another")
    assert told[0] == "event 1 (opened) config.seed: 2 and 1"
    assert any("val_bpb" in line or "val_nats" in line for line in told)
    other = fingerprint_at(undisturbed.root, "another")
    assert divergence(undisturbed.reference, undisturbed.reference, 0.01) == []
    assert divergence(other, undisturbed.reference, 1e-9)


@pytest.mark.slow
def test_one_bit_of_one_tensor_is_seen_and_named(undisturbed: Kills) -> None:
    store = runner.reopen(undisturbed.root, WHOLE).store.checkpoints
    manifest = store.manifests()[-1]
    loaded = store.load(manifest.id)
    arrays = loaded.arrays("member")
    name = max(arrays, key=lambda key: arrays[key].size)
    arrays[name].reshape(-1).view("u1")[0] ^= 1
    parts = {"member": arrays, "search": loaded.json("search")}
    before = fingerprint_at(undisturbed.root, WHOLE)
    changed_one = store.save(parts, manifest.meta, step=manifest.step, kind="flipped")
    after = fingerprint_at(undisturbed.root, WHOLE)
    store.store.delete(f"{store.home}/manifests/{changed_one.id}.json")
    twin = f"flipped at step {manifest.step}"
    flipped = Fingerprint(
        before.events,
        before.state,
        before.checkpoints | {f"end at step {manifest.step}": after.checkpoints[twin]},
        before.files,
    )
    told = differences(flipped, before)
    assert [line.partition(": ")[2].partition(":")[0] for line in told][:1] != []
    assert all(name in line for line in told)


@dataclass
class Told:
    """How a command ended, and what it said."""

    code: int
    words: str


@pytest.fixture
def verified(
    undisturbed: Kills, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Proof]], Told]:
    """Runs `symbio verify-resume` with one kill, the proof made by what is given."""

    def verify(prove: Callable[..., Proof]) -> Told:
        monkeypatch.setattr(killing, "prove", prove)
        words = command(undisturbed.config, "unnamed", plain=False)
        words = ["verify-resume", "--kills", "1", *words[1:3], *words[5:]]
        code = typer.main.get_command(app).main(words, standalone_mode=False)
        said = capsys.readouterr()
        return Told(code or 0, said.out + said.err)

    return verify


@pytest.mark.slow
def test_a_person_is_told_that_the_bits_are_the_same(
    undisturbed: Kills, verified: Callable[[Callable[..., Proof]], Told]
) -> None:
    told = verified(partial(killing.prove, launch=undisturbed.forks.launch))
    assert told.code == 0, told.words
    assert "The run was killed once and ended with the same bits" in told.words


@pytest.fixture(scope="module")
def unequal(undisturbed: Kills, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    """What is found where a killed run goes on with another seed than the undisturbed one."""

    def launch(words: Sequence[str], log: Path) -> Process:
        is_killed = any(word.startswith("killed") for word in words)
        return undisturbed.forks.launch([*words, "--set", f"seed={1 + is_killed}"], log)

    root = str(tmp_path_factory.mktemp("unequal"))
    config = changed(undisturbed.config, {"storage.root": root})
    return killing.prove(config, 1, lambda line: None, launch=launch)


@pytest.mark.slow
def test_a_person_is_told_where_bits_differ(
    unequal: Proof, verified: Callable[[Callable[..., Proof]], Told]
) -> None:
    told = verified(lambda *_: unequal)
    assert told.code == 1
    assert "killed-1: event 1 (opened) config.seed: 2 and 1" in told.words
    assert "did not end as the undisturbed one did" in told.words


@pytest.mark.slow
def test_the_soak_tells_kills_and_how_many_lives_ended_with_the_same_bits(
    undisturbed: Kills, unequal: Proof, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(soak, "prove", lambda *_, **__: unequal)
    table, data = soak.measure(undisturbed.config, 1, 1, lambda line: None)
    summary = {"kills": 1, "bit_equal_frac": 0.0, "lives": 1, "torn": unequal.torn}
    assert data["summary"] == summary
    assert list(table.columns[0].cells) == list(summary)
    assert data["kills"][-1] == [str(moment) for moment in unequal.killed[-1].kills]
    assert data["differs"][0] == "killed-1: event 1 (opened) config.seed: 2 and 1"
    equal = replace(unequal, differs=())
    monkeypatch.setattr(soak, "prove", lambda *_, **__: equal)
    _, data = soak.measure(undisturbed.config, 1, 1, lambda line: None)
    assert data["summary"] == summary | {"bit_equal_frac": 1.0}


def test_a_proof_without_a_single_kill_is_none(undisturbed: Kills) -> None:
    def at_once(words: Sequence[str], log: Path) -> Process:
        name = words[words.index("--run-id") + 1]
        home = Path(undisturbed.root) / "runs"
        if not (home / name).exists():
            shutil.copytree(home / WHOLE, home / name)
        return undisturbed.forks.launch(["--version"], log)

    with pytest.raises(SymbioError, match=r"8 runs ended before .* killed, so nothing was shown"):
        killing.prove(undisturbed.config, 1, lambda line: None, launch=at_once)


def test_a_run_that_fails_by_itself_is_told_with_its_last_words(undisturbed: Kills) -> None:
    config = changed(undisturbed.config, {"data.corpus": "/nowhere/at/all.txt"})
    with pytest.raises(SymbioError, match=r"^run 'failing' ended with 2.*is not there") as told:
        live_killed(config, "failing", (), launch=undisturbed.forks.launch)
    assert "\n" not in str(told.value)


def test_children_in_sessions_of_their_own_are_killed_too(tmp_path: Path) -> None:
    script = "setsid sleep 300 & echo $! > $0; wait"
    file = tmp_path / "pid"
    child = subprocess.Popen(["sh", "-c", script, str(file)], start_new_session=True)
    while not file.exists() or not file.read_text().strip():
        assert child.poll() is None
    grandchild = int(file.read_text())
    while grandchild not in set(descendants(child.pid)):
        assert child.poll() is None
    kill_tree(child)
    while is_alive(grandchild):
        pass


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
