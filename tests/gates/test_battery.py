"""The order of writers, what a battery leaves out (nothing), and whether its intervals hold."""

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.gates.battery import Answer, paired_quality, score_battery
from symbio_core.gates.resampling import cluster_interval, without_each
from symbio_core.records import Battery, Interval, Sample
from symbio_core.streams import generator

WRITERS = ("human", "order 5", "order 3", "shuffled", "letters", "repeated", "nothing")
"""People; a trained and an undertrained model, here chains of characters; and broken machines."""


def battery(library: SimpleNamespace, corpus: str, texts: tuple[str, ...]) -> Battery:
    answers = library.answers(texts)
    return score_battery(library.reference(corpus), answers, seed=1, confidence=0.95)


def of_qualities(values: np.ndarray) -> Battery:
    """A battery of ``values`` (prompts × temperatures), as the gates keep it."""
    samples = tuple(
        Sample(prompt=f"p{i}", text="", temperature=0.1 * j, quality=float(np.clip(value, 0, 1)))
        for (i, j), value in np.ndenumerate(values)
    )
    return Battery(
        samples=samples,
        quality=Interval(value=0.0, low=0.0, high=1.0),
        longest_verbatim=0,
        verbatim_frac=0.0,
    )


@pytest.mark.parametrize("corpus", ["plays", "prose", "code"])
def test_people_write_better_than_machines_and_machines_better_than_noise(
    library: SimpleNamespace, corpus: str
) -> None:
    found = [battery(library, corpus, library.written(corpus, w)).quality for w in WRITERS]
    people, trained, undertrained, shuffled, letters, repeated, nothing = (q.value for q in found)
    assert people > 0.7
    assert people > trained + 0.05
    assert trained > undertrained + 0.2
    assert undertrained > shuffled + 0.1
    assert shuffled > 5 * letters
    assert letters > 3 * repeated > 0.0
    assert nothing == 0.0
    for better, worse in pairwise(found[1:4]):
        assert better.low > worse.high


@pytest.mark.parametrize("corpus", ["plays", "prose", "code"])
def test_a_copying_machine_scores_below_an_undertrained_model(
    library: SimpleNamespace, corpus: str
) -> None:
    copies = battery(library, corpus, library.written(corpus, "copied"))
    poor = battery(library, corpus, library.written(corpus, "order 3"))
    people = battery(library, corpus, library.written(corpus, "human"))
    assert copies.quality.value < poor.quality.value
    assert copies.longest_verbatim > 30
    assert copies.verbatim_frac > 0.7
    assert people.verbatim_frac < 0.05


def test_sixty_times_the_same_good_answer_scores_low(library: SimpleNamespace) -> None:
    texts = library.written("plays", "human")
    different = battery(library, "plays", texts)
    best = max(different.samples, key=lambda sample: sample.quality)
    assert best.quality > 0.8
    assert battery(library, "plays", (best.text,) * 60).quality.value < 0.05


def test_a_few_stock_answers_score_below_as_many_different_ones(library: SimpleNamespace) -> None:
    texts = library.written("plays", "human")
    stock = tuple(texts[i // 3 % 6] for i in range(60))
    assert battery(library, "plays", stock).quality.value < 0.1


def test_a_parrot_of_its_prompt_is_worth_nothing(library: SimpleNamespace) -> None:
    answers = library.answers(library.written("plays", "human"))
    parrots = [replace(a, prompt=f"<|user|> {a.text} <|assistant|>") for a in answers]
    found = score_battery(library.reference("plays"), parrots, seed=1, confidence=0.95)
    assert found.quality.value == 0.0


@pytest.mark.parametrize("prompt", ["My lord?", "Who goes there?", "What is it that you say?"])
def test_an_echo_is_found_whatever_the_length_of_the_prompt(
    library: SimpleNamespace, prompt: str
) -> None:
    asked = f"<|user|> {prompt} <|assistant|>"
    told = [Answer(i, asked, 0.7, prompt, None, True) for i in range(4)]
    found = score_battery(library.reference("plays"), told, seed=1, confidence=0.95)
    assert {sample.parts["copying"] for sample in found.samples} == {0.0}


def test_errors_and_empty_answers_count_zero_and_are_kept(library: SimpleNamespace) -> None:
    answers = library.answers(library.written("plays", "human"))
    half = [
        replace(a, error="out of memory", text="ignored") if a.prompt_index % 2 else a
        for a in answers
    ]
    reference = library.reference("plays")
    whole = score_battery(reference, answers, seed=1, confidence=0.95)
    found = score_battery(reference, half, seed=1, confidence=0.95)
    assert len(found.samples) == 60
    assert {s.quality for s in found.samples if s.error} == {0.0}
    assert found.quality.value == pytest.approx(whole.quality.value / 2, abs=0.1)


def test_quality_is_the_mean_of_the_samples(library: SimpleNamespace) -> None:
    for writer in WRITERS:
        found = battery(library, "plays", library.written("plays", writer))
        mean = np.mean([sample.quality for sample in found.samples])
        assert found.quality.value == pytest.approx(mean)
        assert found.quality.low <= found.quality.value <= found.quality.high


def test_chat_marks_are_no_part_of_an_answer(library: SimpleNamespace) -> None:
    texts = library.written("plays", "human")
    marked = tuple(f" {text} <|end_of_text|>" for text in texts)
    bare = battery(library, "plays", texts)
    assert battery(library, "plays", marked).quality == bare.quality
    assert all("<|" not in s.text for s in battery(library, "plays", marked).samples)


def test_half_a_character_does_no_harm(library: SimpleNamespace) -> None:
    texts = tuple(f"{text} \ud83d" for text in library.written("plays", "human"))
    found = battery(library, "plays", texts)
    assert found.quality.value > 0.5
    assert found.model_dump_json()


def test_the_same_answers_give_the_same_battery(library: SimpleNamespace) -> None:
    texts = library.written("plays", "order 5")
    assert battery(library, "plays", texts) == battery(library, "plays", texts)


def test_one_answer_and_none_are_scored_without_certainty(library: SimpleNamespace) -> None:
    reference = library.reference("plays")
    text = library.written("plays", "human")[0]
    one = score_battery(reference, [Answer(0, "p", 0.7, text, None, False)], seed=1, confidence=0.9)
    assert (one.quality.low, one.quality.high) == (0.0, 1.0)
    none = score_battery(reference, [], seed=1, confidence=0.9)
    assert none.quality.value == 0.0
    assert none.samples == ()


def test_a_battery_against_itself_differs_by_nothing(library: SimpleNamespace) -> None:
    one = battery(library, "plays", library.written("plays", "order 5"))
    same = paired_quality(one, one, seed=1, confidence=0.95)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_better_text_is_surely_better(library: SimpleNamespace) -> None:
    poor = battery(library, "plays", library.written("plays", "order 3"))
    good = battery(library, "plays", library.written("plays", "order 5"))
    assert paired_quality(poor, good, seed=1, confidence=0.99).above_zero
    assert paired_quality(good, poor, seed=1, confidence=0.99).below_zero


@given(st.permutations(range(12)))
def test_pairs_are_found_in_any_order(order: list[int]) -> None:
    rng = generator(0, "values")
    before, after = (of_qualities(rng.random((4, 3))) for _ in range(2))
    mixed = after.model_copy(update={"samples": tuple(after.samples[i] for i in order)})
    plain = paired_quality(before, after, seed=1, confidence=0.95)
    assert paired_quality(before, mixed, seed=1, confidence=0.95).value == pytest.approx(
        plain.value
    )


def test_batteries_that_share_no_prompt_say_nothing() -> None:
    one = of_qualities(np.full((4, 3), 0.2))
    renamed = tuple(s.model_copy(update={"prompt": "?" + s.prompt}) for s in one.samples)
    other = one.model_copy(update={"samples": renamed})
    unknown = paired_quality(one, other, seed=1, confidence=0.95)
    assert (unknown.low, unknown.high) == (-1.0, 1.0)


def cells(kind: str, rng: np.random.Generator, n: int) -> np.ndarray:
    """What 20 prompts × 3 temperatures may look like: even, skewed, bunched, paired."""
    if kind == "bell":
        return 0.5 + rng.normal(0.0, 0.1, (n, 1)) + rng.normal(0.0, 0.1, (n, 3))
    if kind == "mostly poor":
        return rng.beta(0.6, 5.0, (n, 1)) * rng.random((n, 3))
    if kind == "mostly good":
        return 1.0 - rng.beta(0.7, 6.0, (n, 1)) - 0.3 * (rng.random((n, 3)) < 0.1)
    if kind == "some fail":
        return rng.beta(5.0, 5.0, (n, 3)) * (rng.random((n, 1)) < 0.7)
    hard = 0.6 + rng.normal(0.0, 0.15, (n, 1))
    after, before = (np.clip(hard + rng.normal(g, 0.12, (n, 3)), 0, 1) for g in (0.03, 0.0))
    return after - before


@pytest.mark.parametrize("kind", ["bell", "mostly poor", "mostly good", "some fail", "paired"])
def test_intervals_of_95_percent_hold_the_truth_in_92_to_97_and_a_half(kind: str) -> None:
    rng, trials = generator(5, kind), 1500
    truth = float(cells(kind, rng, 300_000).mean())
    prompts = [prompt for prompt in range(20) for _ in range(3)]
    held = 0
    for trial in range(trials):
        values = cells(kind, rng, 20).ravel()
        left_out = without_each(values, np.ones(60), prompts)
        found = cluster_interval(
            float(values.mean()), left_out, seed=trial, confidence=0.95, least=-1.0
        )
        held += found.low <= truth <= found.high
    assert 0.92 <= held / trials <= 0.975


def alike(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Answers of one model, and how alike to people they are without each prompt."""
    away = rng.normal(0.8, 1.0, 20)
    others = (away.sum() - away) / 19
    return rng.beta(6.0, 3.0, 60), np.repeat(np.exp(-np.abs(others)) ** 0.5, 3)


def test_equal_models_differ_in_likeness_by_luck_and_the_interval_knows() -> None:
    rng = generator(8, "luck")
    prompts = [prompt for prompt in range(20) for _ in range(3)]
    better, naive, trials = 0, 0, 800
    for trial in range(trials):
        (own, factor), (own_2, factor_2) = alike(rng), alike(rng)
        value = float((own_2 * factor_2).mean() - (own * factor).mean())
        change = without_each(own_2, factor_2, prompts) - without_each(own, factor, prompts)
        plain = without_each(own_2 * factor_2 - own * factor, np.ones(60), prompts)
        for left_out, is_naive in ((change, False), (plain, True)):
            found = cluster_interval(value, left_out, seed=trial, confidence=0.95, least=-1.0)
            better += found.above_zero and not is_naive
            naive += found.above_zero and is_naive
    assert better / trials <= 0.05
    assert naive / trials > 0.1


def test_a_whole_battery_in_one_factor_changes_every_prompt_alike() -> None:
    prompts = [0, 0, 1, 1, 2, 2]
    own = np.array([0.2, 0.4, 0.6, 0.8, 0.5, 0.5])
    found = without_each(own, np.array([0.5, 0.5, 0.8, 0.8, 1.0, 1.0]), prompts)
    assert found == pytest.approx([0.6 * 0.5, 0.4 * 0.8, 0.5 * 1.0])


def test_repeated_cells_of_a_prompt_are_one_piece_of_evidence() -> None:
    rng = generator(9, "copies")
    values = rng.random(20)
    one = without_each(values, np.ones(20), list(range(20)))
    same = without_each(np.repeat(values, 3), np.ones(60), [i for i in range(20) for _ in range(3)])
    assert same == pytest.approx(one)


def test_prompts_are_resampled_whole() -> None:
    rng = generator(6, "clusters")
    change = np.repeat(rng.normal(0.0, 0.1, (20, 1)), 3, axis=1)
    flat = np.full((20, 3), 0.5)
    clustered = paired_quality(
        of_qualities(flat), of_qualities(flat + change), seed=1, confidence=0.95
    )
    width = clustered.high - clustered.low
    one_each = 2 * 2.093 * change[:, 0].std(ddof=1) / np.sqrt(20)
    assert width == pytest.approx(one_each, rel=0.2)
