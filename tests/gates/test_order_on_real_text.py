"""The battery puts writers in their order on three kinds of real text, with real trained models."""

from itertools import pairwise
from pathlib import Path

import pytest

from symbio_core.benches import battery as bench_battery
from symbio_core.benches import real_text
from symbio_core.benches.real_text import BROKEN, CORPORA, WRITERS
from symbio_core.config import RunConfig, changed
from symbio_core.errors import CorpusError
from symbio_core.gates.battery import paired_quality
from symbio_core.model import GPT
from symbio_core.profiles import smoke
from symbio_core.records import Battery
from symbio_core.runner.workbench import Workbench
from symbio_core.runner.writing import answer_all, write_battery

TRAINED, UNDERTRAINED = 360, 80
Graded = tuple[Workbench, GPT, dict[str, Battery]]


def settings(root: Path) -> RunConfig:
    """A model smaller than the smoke profile's battery needs: seconds of training a corpus."""
    changes = {
        "data.max_bytes": 1_200_000, "data.vocab_size": 512,
        "model.n_embd": 64, "model.context": 64,
        "optimiser.batch_size": 12, "optimiser.peak_lr": 4e-3,
        "gates.n_prompts": 20, "gates.new_tokens": 48, "storage.root": str(root),
    }  # fmt: skip
    return changed(smoke(), changes)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `data.corpus` is for each of the three kinds of text."""
    return real_text.write_corpora(tmp_path_factory.mktemp("texts"))


@pytest.fixture(scope="module", params=CORPORA)
def graded(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    sources: dict[str, str],
) -> Graded:
    """A corpus' workbench, its trained model, and what every writer's battery came to."""
    config = settings(tmp_path_factory.mktemp("battery"))
    bench = bench_battery.opened(config, sources[request.param], 1)
    good, poor = (bench_battery.trained(bench, n).averaged() for n in (TRAINED, UNDERTRAINED))
    return bench, good, bench_battery.ranked(bench, good, poor, 1)


@pytest.fixture
def library_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter whose library came without sources."""
    monkeypatch.setattr(real_text, "_library", lambda: tmp_path)
    return tmp_path


def test_every_writer_is_better_than_the_next(graded: Graded) -> None:
    found = graded[2]
    values = [found[writer].quality.value for writer in WRITERS]
    assert all(better > worse for better, worse in pairwise(values)), values
    assert found["human"].quality.low > found["trained"].quality.high
    assert found["trained"].quality.low > found["shuffled"].quality.high
    assert found["nothing"].quality.value == 0.0


def test_no_broken_machine_passes_for_a_trained_model(graded: Graded) -> None:
    found = graded[2]
    for writer in BROKEN:
        assert found[writer].quality.high < found["trained"].quality.low, writer


def test_a_reciting_model_is_found_out_and_people_are_not(graded: Graded) -> None:
    bench, _, found = graded
    texts = real_text.write("reciting", bench.data.splits, [""] * 60, [40] * 60, 1)
    recited = bench_battery.battery_of(bench, texts, bench.prompts)
    assert recited.longest_verbatim >= 40
    assert recited.verbatim_frac > 0.5
    for writer in ("human", "trained"):
        assert found[writer].verbatim_frac < 0.05
        assert found[writer].longest_verbatim < 40


def test_the_same_weights_are_seldom_surely_better_than_themselves(graded: Graded) -> None:
    bench, good, _ = graded
    temperatures = bench.config.gates.temperatures
    both = [
        bench_battery.battery_of(
            bench,
            [a.text for a in answer_all(bench, good, bench.prompts, temperatures, seed=seed)],
            bench.prompts,
        )
        for seed in range(12)
    ]
    pairs = [*zip(both[::2], both[1::2], strict=True), *zip(both[1::2], both[::2], strict=True)]
    found = [paired_quality(one, two, seed=1, confidence=0.95).above_zero for one, two in pairs]
    assert sum(found) <= 1


def test_a_model_whose_weights_broke_answers_nothing_and_counts_zero(graded: Graded) -> None:
    bench, good, _ = graded
    weight = good.head.weight.data
    kept = float(weight[0, 0])
    try:
        weight[0, 0] = float("nan")
        found = write_battery(bench, good)
    finally:
        weight[0, 0] = kept
    assert len(found.samples) == 60
    assert {s.error for s in found.samples} == {"the model's weights are not finite"}
    assert found.quality.value == 0.0


def test_a_missing_source_of_text_is_told_not_passed_over(library_elsewhere: Path) -> None:
    with pytest.raises(CorpusError, match=r"prose: Python's library at .* are wanted") as caught:
        real_text.write_corpora(library_elsewhere)
    assert "\n" not in str(caught.value)


def test_prompts_that_will_not_do_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    config = changed(settings(tmp_path), {"gates.prompts_file": str(file)})
    file.write_text("Who goes there?\nStay!\n", encoding="utf-8")
    with pytest.raises(CorpusError, match="holds 2 different prompts"):
        bench_battery.opened(config, "shakespeare", 1)
    file.write_text("Who?\r\nWhat?\r\n\r\nWhere?\r\nWhen?\r\n", encoding="utf-8")
    bench = bench_battery.opened(config, "shakespeare", 1)
    assert bench.prompts[0] == "<|user|> Who? <|assistant|>"
    assert len(bench.prompts) == 4


def test_people_are_not_heard_twice() -> None:
    text = [" ".join(f"word{i}" for i in range(100))]
    found = real_text.passages(text, [20, 5, 30])
    words = " ".join(found).split()
    assert [len(part.split()) for part in found] == [20, 5, 30]
    assert len(set(words)) == len(words)
    with pytest.raises(CorpusError, match=r"holds 100 words; 101 are wanted"):
        real_text.passages(text, [101])
