"""The benches of the search: what a null search, a planted winner and an ablation stand on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core import benches, runner
from symbio_core.benches import ablation, arms, null_search, planted_winner
from symbio_core.config import MECHANISMS, Mechanism, RunConfig, changed
from symbio_core.errors import BudgetTooSmall, ConfigError
from symbio_core.gates.evidence import share_interval
from symbio_core.records import Generation
from tests.conftest import tiny
from tests.loopback import guard


def silent(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def short(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The smallest search with one rung, so that every score of a generation is of one rung."""
    root = tmp_path_factory.mktemp("benches")
    alone = {"search.rungs": 1, "without": ("fusion", "kuramoto")}
    changes = alone | {"confirm.warm_steps": 2, "budget.steps": 500}
    return changed(tiny(tiny_corpus, root), changes)


# --- null search


@pytest.fixture(scope="module")
def null(short: RunConfig) -> dict[str, Any]:
    return null_search.measure(short, 2, 1, silent)[1]


def test_a_null_search_counts_the_runs_that_claim_a_winner(null: dict[str, Any]) -> None:
    verdicts = [row["verdict"] for row in null["runs"]]
    assert [row["seed"] for row in null["runs"]] == [1, 2]
    assert set(verdicts) <= {"evolved wins", "fixed wins", "no difference"}
    claims = sum(verdict != "no difference" for verdict in verdicts)
    assert null["summary"]["false_discovery_frac"] == claims / 2
    assert null["summary"]["no_difference_frac"] == 1 - claims / 2
    assert null["summary"]["runs_without_final"] == 0
    assert f"In {claims} of 2 searches" in null["sentence"]
    finds = sum(row["found"] for row in null["runs"])
    generations = sum(row["generations"] for row in null["runs"])
    assert generations >= 2
    assert null["summary"]["generation_found_frac"] == finds / generations


def test_a_null_search_without_a_final_has_neither_claimed_nor_found_no_difference(
    short: RunConfig,
) -> None:
    diverging = {
        "optimiser.spike_factor": 1.0001,
        "budget.max_attempts": 1,
        "budget.on_exhausted": "stop",
    }
    found = null_search.measure(changed(short, diverging), 1, 1, silent)[1]
    assert [row["verdict"] for row in found["runs"]] == [None]
    assert found["summary"]["no_difference_frac"] == 0.0
    assert found["summary"]["runs_without_final"] == 1.0
    assert found["summary"]["false_discovery_frac_ci_high"] == 1.0, "nothing is known of it"
    assert "1 more ended before the final" in found["sentence"]


def test_a_null_search_goes_no_further_than_its_final(
    null: dict[str, Any], short: RunConfig
) -> None:
    for row in null["runs"]:
        run = runner.reopen(short.storage.root, row["run"])
        assert run.config.search.shuffle
        assert run.confirmation is not None
        assert run.confirmation.sentence == row["sentence"]
        assert {e["plan"]["phase"] for e in run.events if e["event"] == "planned"} == {
            "abiogenesis", "primordial", "cambrian", "oxidation",
        }  # fmt: skip
        assert row["steps"] <= run.config.budget.steps


def first_generation(root: str, run_id: str) -> Generation:
    return runner.reopen(root, run_id).generations[0]


def losses(generation: Generation) -> dict[str, float]:
    """Each function's loss on an unknown common level; the control's own is 0."""
    found = {generation.parent: 0.0}
    for member in generation.members:
        assert member.score is not None
        found[member.candidate.formula] = member.score.loss_nats.value
    return found


def test_shuffling_deals_the_same_scores_out_anew(null: dict[str, Any], short: RunConfig) -> None:
    honest = arms.search(arms.unhurried(short, 1), "honest")
    plain = losses(first_generation(short.storage.root, honest.run_id))
    dealt = losses(first_generation(short.storage.root, null["runs"][0]["run"]))
    assert plain.keys() == dealt.keys()
    # Every batch is dealt out by itself, so the leads of truly different functions melt away.
    assert np.ptp(list(dealt.values())) < np.ptp(list(plain.values()))


@pytest.mark.parametrize("mechanism", ["search", "final"])
def test_a_null_search_without_a_search_or_a_final_is_refused(
    short: RunConfig, mechanism: str
) -> None:
    with pytest.raises(ConfigError, match=f"looks at the {mechanism}"):
        null_search.measure(changed(short, {"without": (*short.without, mechanism)}), 2, 1, silent)


@given(whole=st.integers(1, 200), data=st.data())
def test_the_sentence_names_the_count_and_an_interval_that_holds_it(
    whole: int, data: st.DataObject
) -> None:
    part = data.draw(st.integers(0, whole))
    share = share_interval(part, whole, confidence=0.95)
    told = null_search.sentence(part, whole, share)
    assert told.startswith(f"In {part} of {whole} search")
    assert f"{share.low:.1%} to {share.high:.1%}" in told
    assert share.low <= part / whole <= share.high


# --- planted winner

SEEDS_OF_TRUTH = 3


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("planted")
    small = {
        "data.max_bytes": 300_000,
        "search.rungs": 1,
        "without": ("fusion", "kuramoto"),
        "search.scale": 1.0,
        "search.exploration_frac": 0.7,
        "optimiser.peak_lr": 0.006,
        "phases.primordial.rung_steps": 30,
        "confirm.warm_steps": 2,
        "budget.steps": 1500,
    }
    config = changed(tiny(Path("unused"), root), small)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planted_winner, "TRUTH_SEEDS", SEEDS_OF_TRUTH)
        return planted_winner.measure(config, 2, 1, silent)[1]


def test_the_planted_winner_is_one_and_lines_that_hold_it_are_counted(
    planted: dict[str, Any],
) -> None:
    summary = planted["summary"]
    assert summary["planted_gain_nats_ci_low"] > 0.0, "the sigmoid is truly bad"
    assert summary["found_frac"] == sum(row["found"] for row in planted["runs"]) / 2
    assert all(planted_winner.PLANTED in row["tried"] for row in planted["runs"])


def test_truth_is_measured_for_every_function_that_a_line_ever_holds(
    planted: dict[str, Any],
) -> None:
    truths = planted["truth_nats"]
    ends = {row["line"] for row in planted["runs"]} | {
        row["after_final"] for row in planted["runs"]
    }
    assert ends | {planted_winner.FIRST, planted_winner.PLANTED} <= truths.keys()
    assert all(len(values) == SEEDS_OF_TRUTH for values in truths.values())


def test_an_equal_misses_at_most_a_tenth_of_the_planted_gain() -> None:
    truths = {
        planted_winner.FIRST: [2.0, 2.2],
        planted_winner.PLANTED: [1.0, 1.2],
        "gelu(x)": [1.09, 1.29],
        "silu(x)": [1.11, 1.31],
        "x²": [0.5, 0.5],
    }
    equals = {name for name in truths if planted_winner.is_equal(truths, name)}
    assert equals == {planted_winner.PLANTED, "gelu(x)", "x²"}


def test_nothing_is_an_equal_of_a_winner_that_is_none() -> None:
    truths = {planted_winner.FIRST: [1.0], planted_winner.PLANTED: [1.5], "gelu(x)": [1.2]}
    assert not planted_winner.is_equal(truths, "gelu(x)")
    assert not planted_winner.is_equal(truths, planted_winner.FIRST)


def test_the_planted_text_follows_its_rule_nine_times_in_ten() -> None:
    seen: dict[str, dict[str, int]] = {}
    for document in planted_winner.pair_text(300).split("\n\n"):
        symbols = document.replace(" ", "")
        for at in range(2, len(symbols)):
            after = seen.setdefault(symbols[at - 2 : at], {})
            after[symbols[at]] = after.get(symbols[at], 0) + 1
    often = [after for after in seen.values() if sum(after.values()) >= 100]
    assert len(often) >= 16
    share = sum(max(a.values()) for a in often) / sum(sum(a.values()) for a in often)
    assert 0.9 <= share < 0.95  # chance alone meets the rule now and then


# --- ablation


@given(without=st.sets(st.sampled_from(MECHANISMS)))
def test_a_mechanism_is_all_that_two_lives_of_a_pair_differ_in(without: set[str]) -> None:
    pairs = ablation.comparisons(sorted(without), MECHANISMS)  # type: ignore[arg-type]
    assert [pair.mechanism for pair in pairs] == list(MECHANISMS)
    for pair in pairs:
        assert set(pair.off) - set(pair.on) == {pair.mechanism}
        assert set(pair.on) <= without
        assert ("switched on here" in pair.note) == (pair.mechanism in without)
        over = ablation.NEEDS.get(pair.mechanism)
        while over is not None:
            assert over not in pair.on, "it would do nothing in either life"
            over = ablation.NEEDS.get(over)


ABLATED = {"search.rungs": 2, "budget.steps": 700, "gates.n_prompts": 4}


@pytest.fixture(scope="module")
def ablated(short: RunConfig) -> dict[str, Any]:
    config = changed(short, ABLATED | {"without": ("averaging",)})
    return ablation.measure(config, 2, 1, silent, ("search", "averaging", "dormancy"))[1]


def test_an_ablation_lives_each_setting_once_a_seed(ablated: dict[str, Any]) -> None:
    lived = [(life["seed"], tuple(life["without"])) for life in ablated["lives"]]
    assert len(lived) == len(set(lived)) == 2 * 4
    assert {off for _, off in lived} == {
        ("averaging",), ("search", "averaging"), (), ("dormancy", "averaging"),
    }  # fmt: skip
    for life in ablated["lives"]:
        assert ("search" in life["without"]) <= (life["formula"] == "gelu(x)")


def test_an_ablation_pairs_lives_by_seed(ablated: dict[str, Any]) -> None:
    bpb = {(life["seed"], tuple(life["without"])): life["val_bpb"] for life in ablated["lives"]}
    summary = ablated["summary"]
    own = [bpb[seed, ("search", "averaging")] - bpb[seed, ("averaging",)] for seed in (1, 2)]
    assert summary["delta_bpb_without_search"] == pytest.approx(np.mean(own))
    other = [bpb[seed, ("averaging",)] - bpb[seed, ()] for seed in (1, 2)]
    assert summary["delta_bpb_without_averaging"] == pytest.approx(np.mean(other))
    for name in ("search", "averaging"):
        key = f"delta_bpb_without_{name}"
        assert summary[f"{key}_ci_low"] <= summary[key] <= summary[f"{key}_ci_high"]
    # Both lives ship the lower of live and averaged weights, or the live ones alone.
    assert summary["delta_bpb_without_averaging"] >= -1e-3


@pytest.mark.parametrize("rungs", [1, 2, 3])
@pytest.mark.parametrize("mechanism", ["fusion", "kuramoto"])
def test_fusion_is_looked_at_where_there_are_rungs_to_fuse_between(
    mechanism: Mechanism, rungs: int
) -> None:
    (pair,) = ablation.comparisons(("fusion", "kuramoto"), (mechanism,), rungs)
    assert pair.rungs == max(2, rungs)
    assert ("2 rungs in both lives" in pair.note) == (rungs == 1)
    (other,) = ablation.comparisons(("fusion", "kuramoto"), ("niche",), rungs)
    assert other.rungs == rungs


def test_an_ablation_says_what_was_switched_on_instead(ablated: dict[str, Any]) -> None:
    notes = {effect["mechanism"]: effect["note"] for effect in ablated["mechanisms"]}
    assert "switched on here" in notes["averaging"]
    assert notes["search"] == ""


@pytest.mark.parametrize(
    ("differences", "interval", "parted", "words"),
    [
        ([0.0, 0.0], (0.0, 0.0), 0, "never came into play"),
        ([0.0, 0.0], (0.0, 0.0), 1, "nothing hung on it"),
        ([0.1], (None, None), 1, "one seed tells nothing"),
        ([0.1, 0.2], (0.05, 0.25), 2, "helps"),
        ([-0.1, -0.2], (-0.25, -0.05), 2, "harms"),
        ([-0.1, 0.2], (-0.5, 0.6), 2, "not sure"),
    ],
)
def test_a_difference_is_read_with_its_interval(
    differences: list[float], interval: tuple[float | None, float | None], parted: int, words: str
) -> None:
    assert ablation.reading(differences, *interval, parted=parted) == words


def test_a_mechanism_came_into_play_where_lives_went_different_ways(
    ablated: dict[str, Any],
) -> None:
    ways = {(life["seed"], tuple(life["without"])): life["way"] for life in ablated["lives"]}
    for effect in ablated["mechanisms"]:
        on, off = tuple(effect["on"]), tuple(effect["off"])
        assert effect["parted"] == sum(ways[seed, on] != ways[seed, off] for seed in (1, 2))
    parted = {effect["mechanism"]: effect["parted"] for effect in ablated["mechanisms"]}
    assert parted["search"] == 2, "one of the two tried functions, the other none"
    way = ways[1, ("averaging",)]
    assert any("gelu(x)" in line and "→" in line for line in way)
    assert way[-1].endswith("'s live weights"), "nothing was averaged"


def test_two_lives_of_the_same_settings_go_the_same_way(
    short: RunConfig, ablated: dict[str, Any]
) -> None:
    one = next(life for life in ablated["lives"] if not life["without"])
    config = changed(short, ABLATED | {"without": ()})
    other = ablation._live((arms.unhurried(config, 1), "gelu(x)"))
    assert one["way"] == other["way"]
    assert one["run"] != other["run"]


def test_an_ablation_where_there_is_something_to_find_begins_with_the_bad_function(
    short: RunConfig,
) -> None:
    config = changed(short, {"data.max_bytes": 300_000, "gates.n_prompts": 4})
    life = ablation._live((planted_winner.task(config), planted_winner.FIRST))
    assert runner.reopen(config.storage.root, life["run"]).config.data.corpus.endswith("pairs.txt")
    assert life["way"][0].startswith("abiogenesis 1: lr × 1")
    assert "on with sigmoid(x)" in life["way"][1]


def test_a_budget_that_one_arm_cannot_live_on_is_refused_at_once(short: RunConfig) -> None:
    enough_without_search = changed(
        short, {"without": (*short.without, "search"), "budget.steps": 190}
    )
    with pytest.raises(BudgetTooSmall):
        ablation.measure(enough_without_search, 2, 1, silent, ("search",))


# --- the command line


def symbio(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    home = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-m", "symbio_core.cli", *arguments],
        cwd=where,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=guard.environment(str(home)) | {"PATH": "", "COLUMNS": "160", "HOME": str(where)},
    )


def test_null_search_tells_a_person_in_one_sentence(tiny_corpus: Path, tmp_path: Path) -> None:
    settings = [
        "data.vocab_size=300", "gates.eval_batches=8", "search.eval_batches=4", "search.rungs=1",
        "confirm.warm_steps=2", "budget.steps=500",
    ]  # fmt: skip
    chosen = [part for setting in settings for part in ("--set", setting)]
    done = symbio(
        "null-search", "--profile", "smoke", "--corpus", str(tiny_corpus), "--seeds", "1", *chosen,
        "--without", "fusion,diversity", where=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert "of 1 search with scores dealt out at random the run claimed a winner" in last
    (name,) = runner.names(str(tmp_path / "storage" / "benches"))
    config = runner.reopen(str(tmp_path / "storage" / "benches"), name).config
    assert config.without == ("fusion", "diversity")


def test_a_mechanism_that_is_none_gives_one_clear_line(tmp_path: Path) -> None:
    done = symbio("run", "--without", "fusion,luck", where=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "without" in done.stderr
    assert "luck" in done.stderr
    assert "kuramoto" in done.stderr, "it names those that there are"


def test_the_benches_of_the_search_are_on_the_list() -> None:
    assert {"null-search", "planted-winner", "ablation"} <= benches.catalogue().keys()
