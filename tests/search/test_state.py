"""What the search remembers, and the common scale of its hall."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbio_core.search import (
    SearchState,
    front,
    front_after,
    initial_state,
    levels,
    should_explore,
    tell,
)

NAMES = ["relu(x)²", "x³", "gelu(x)·silu(x)", "0.8·gelu(x)+0.2·x", "relu(x)", "silu(x)", "x²"]


def test_the_first_front_holds_the_origin_and_what_improves_on_it(scene):
    members = [
        scene.member("relu(x)²", -0.02),
        scene.member("gelu(x)·silu(x)", -0.01),
        scene.member("silu(x)", 0.01),
    ]
    state = tell(initial_state(), scene.generation("gelu(x)", members, winner="relu(x)²"))
    assert [entry.formula for entry in state.hall] == ["gelu(x)", "relu(x)²"]
    assert state.hall[0].loss_nats.value == 0.0
    assert state.hall[1].loss_nats.value == pytest.approx(-0.02, abs=1e-4)
    assert state.line == "relu(x)²"
    assert set(state.known) == {"gelu(x)", "relu(x)²", "gelu(x)·silu(x)", "silu(x)"}


def test_levels_of_later_generations_add_up_along_the_chain_of_parents(scene):
    first = scene.generation("gelu(x)", [scene.member("relu(x)²", -0.02)], winner="relu(x)²")
    second = scene.generation("relu(x)²", [scene.member("x³", -0.01)], winner="x³", index=1)
    state = tell(tell(initial_state(), first), second)
    found = levels(state)
    assert found["x³"].value == pytest.approx(-0.03, abs=1e-4)
    assert found["x³"].high - found["x³"].low > found["relu(x)²"].high - found["relu(x)²"].low


def test_a_retest_of_an_elite_corrects_the_chain(scene):
    # The first find was luck: measured against its child, the old parent is as good as it ever was.
    first = scene.generation("gelu(x)", [scene.member("relu(x)²", -0.02)], winner="relu(x)²")
    again = scene.generation("relu(x)²", [scene.member("gelu(x)", 0.0, mutation="elite")], index=1)
    state = tell(initial_state(), first)
    corrected = tell(state, again)
    assert levels(state)["relu(x)²"].value == pytest.approx(-0.02, abs=1e-3)
    assert levels(corrected)["relu(x)²"].value == pytest.approx(-0.01, abs=1e-3)


def test_a_short_look_from_fresh_weights_gives_way_to_a_warm_one(scene):
    early = scene.generation("gelu(x)", [scene.member("relu(x)²", -0.05)])
    later = scene.generation("gelu(x)", [scene.member("relu(x)²", 0.01)], index=1)
    for noise, low, high in ((0.066, 0.009, 0.011), (0.004, -0.021, -0.019)):
        state = tell(initial_state(), early.model_copy(update={"noise_nats": noise}))
        level = levels(tell(state, later))["relu(x)²"]
        assert low <= level.value <= high, noise


def test_levels_are_the_weighted_least_squares_solution(scene):
    # Five functions: too few to say what is usual, so measurements stand alone.
    rng = np.random.default_rng(0)
    names = ["gelu(x)", *NAMES[:5]]
    truth = dict(zip(names, [0.0, *rng.normal(0, 0.05, 5)], strict=True))
    state, parent, rows = initial_state(), "gelu(x)", []
    for index in range(6):
        tried = [n for n in rng.permutation(names) if n != parent][:3]
        members = []
        for name in map(str, tried):
            value = truth[name] - truth[parent] + rng.normal(0, 0.004)
            half = float(rng.choice([0.002, 0.02]))
            weight = 1 / np.hypot(half / 2.201, 0.004)
            rows.append((name, parent, value, weight))
            members.append(scene.member(name, value, half=half))
        winner = members[0].candidate.formula
        state = tell(state, scene.generation(parent, members, winner=winner, index=index))
        parent = winner
    tried = sorted({row[0] for row in rows} - {"gelu(x)"})
    design = np.zeros((len(rows), len(tried) + 1))
    for row, (name, against, _, weight) in enumerate(rows):
        for at, sign in ((name, 1), (against, -1)):
            design[row, tried.index(at) if at in tried else -1] += sign * weight
    right = [value * weight for *_, value, weight in rows]
    solved = np.linalg.lstsq(design[:, :-1], right, rcond=None)[0]
    found = levels(state)
    assert [found[name].value for name in tried] == pytest.approx(solved, abs=1e-4)


def test_the_lucky_best_of_equals_is_drawn_back_to_the_usual(scene):
    rng = np.random.default_rng(0)
    best = []
    for _ in range(50):
        values = rng.normal(0, 0.005, len(NAMES))
        members = [scene.member(n, float(v)) for n, v in zip(NAMES, values, strict=True)]
        state = tell(initial_state(), scene.generation("gelu(x)", members))
        name = NAMES[int(np.argmin(values))]
        best.append((float(values.min()), levels(state)[name].value))
    raw, drawn = np.mean(best, axis=0)
    assert raw < -0.005
    assert abs(drawn) < 0.5 * abs(raw)


def test_a_find_far_outside_the_usual_is_left_alone(scene):
    values = [0.01, 0.02, -0.01, 0.0, 0.03, -0.02, -0.15]
    members = [scene.member(n, v) for n, v in zip(NAMES, values, strict=True)]
    state = tell(initial_state(), scene.generation("gelu(x)", members))
    assert levels(state)[NAMES[-1]].value < -0.14


def test_intervals_of_levels_hold_the_truth_as_often_as_they_say(scene):
    rng = np.random.default_rng(1)
    truth = {"gelu(x)": 0.0, "relu(x)²": -0.02, "x³": -0.03, "silu(x)": 0.01}
    held = []
    for _ in range(300):
        state = initial_state()
        for index, parent in enumerate(["gelu(x)", "relu(x)²", "x³"]):
            members = [
                scene.member(n, truth[n] - truth[parent] + rng.normal(0, 0.004), half=0.0)
                for n in truth
                if n != parent
            ]
            state = tell(state, scene.generation(parent, members, index=index))
        found = levels(state)
        held += [found[n].low <= truth[n] <= found[n].high for n in truth]
    assert np.mean(held) > 0.93


def test_what_dropped_out_early_never_enters_the_hall(scene):
    members = [scene.member("x³", -0.5, rung=0, fate="dropped"), scene.member("relu(x)²", -0.01)]
    state = tell(initial_state(), scene.generation("gelu(x)", members))
    assert "x³" not in [entry.formula for entry in state.hall]
    assert "x³" in [trial.candidate.formula for trial in state.lineage]


def test_an_early_score_weighs_less_than_one_of_the_last_rung(scene):
    late = scene.generation("gelu(x)", [scene.member("relu(x)²", -0.03), scene.member("x²", 0.1)])
    early = scene.generation(
        "gelu(x)", [scene.member("relu(x)²", 0.03, rung=0), scene.member("x³", 0.1)], index=1
    )
    state = tell(tell(initial_state(), late), early)
    assert levels(state)["relu(x)²"].value < -0.02


def test_members_without_a_finite_score_are_remembered_but_have_no_level(scene):
    members = [
        scene.member("x³", None, fate="diverged"),
        scene.member("x²", float("nan")),
        scene.member("silu(x)", 0.01, half=float("inf")),
        scene.member("relu(x)²", -0.02),
    ]
    state = tell(initial_state(), scene.generation("gelu(x)", members))
    assert levels(state)["relu(x)²"].value == pytest.approx(-0.02, abs=1e-4)
    assert "x³" in state.known
    assert "x³" not in levels(state)
    assert all(np.isfinite(entry.loss_nats.value) for entry in state.hall)


@given(
    rounds=st.lists(
        st.lists(
            st.tuples(st.sampled_from(NAMES), st.floats(-0.2, 0.2), st.integers(0, 1)),
            min_size=1,
            max_size=5,
            unique_by=lambda m: m[0],
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=60, deadline=None)
def test_the_hall_is_a_front_and_the_state_survives_the_journal(scene, rounds):
    state = initial_state()
    for index, members in enumerate(rounds):
        told = [scene.member(n, v, rung=r) for n, v, r in members if n != state.line]
        if not told:
            continue
        best = min(told, key=lambda m: m.score.loss_nats.value)
        winner = best.candidate.formula if best.score.loss_nats.value < -0.05 else None
        before = {entry.formula for entry in state.hall} | {state.origin}
        moved = front_after(state, told, parent=state.line)
        state = tell(state, scene.generation(state.line, told, winner=winner, index=index))
        assert moved == bool({entry.formula for entry in state.hall} - before)
    nodes = [entry.nodes for entry in state.hall]
    values = [entry.loss_nats.value for entry in state.hall]
    assert nodes == sorted(set(nodes))
    assert values == sorted(values, reverse=True)
    assert len(set(values)) == len(values)
    level = levels(state)
    for trial in state.lineage:
        if trial.finished:
            name = trial.candidate.formula
            assert any(
                entry.nodes <= trial.candidate.nodes and entry.loss_nats.value <= level[name].value
                for entry in state.hall
            )
    assert state.hall == front(state) or not state.lineage
    assert SearchState.model_validate_json(state.model_dump_json()) == state


def test_the_front_stands_still_when_nothing_new_enters_it(scene):
    state = tell(initial_state(), scene.generation("gelu(x)", [scene.member("relu(x)²", -0.02)]))
    assert not front_after(state, [scene.member("x³", 0.05), scene.member("relu(x)²", -0.05)])
    assert front_after(state, [scene.member("silu(x)", -0.001)])


def test_patience_runs_out_after_generations_without_a_find(scene):
    state = initial_state()
    assert should_explore(state, patience=2, extra_patience=0)
    for index in range(2):
        state = tell(state, scene.generation("gelu(x)", [scene.member("x³", 0.1)], index=index))
    assert state.dry == 2
    assert not should_explore(state, patience=2)
    assert should_explore(state, patience=2, extra_patience=1)
    found = scene.generation("gelu(x)", [scene.member("x²", -0.1)], winner="x²", index=2)
    assert tell(state, found).dry == 0


def test_a_new_phase_or_attempt_begins_with_fresh_patience(scene):
    state = initial_state()
    for index in range(3):
        state = tell(state, scene.generation("gelu(x)", [scene.member("x³", 0.1)], index=index))
    assert not should_explore(state, patience=2, phase="primordial", attempt=1)
    assert should_explore(state, patience=2, phase="primordial", attempt=2)
    assert should_explore(state, patience=2, phase="cambrian", attempt=1)
    later = scene.generation("gelu(x)", [scene.member("x²", 0.1)], index=3, phase="cambrian")
    assert tell(state, later).dry == 1


def test_finds_and_plateaus_move_the_pressure(scene):
    found = scene.generation(
        "gelu(x)", [scene.member("relu(x)²", -0.05, fate="won")], winner="relu(x)²"
    )
    assert tell(initial_state(), found).pressure.convergence > 0
    none = scene.generation("gelu(x)", [scene.member("x³", 0.1)])
    assert tell(initial_state(), none).pressure.exploration > 0


def test_only_a_population_of_one_function_that_finds_nothing_is_an_alarm(scene):
    members = [scene.member(name, 0.1) for name in ("gelu(x)+0.01·x", "2·gelu(x)", "x·gelu(x)")]

    def exploration(novelty, diversity, *, winner=None):
        seen = [m.model_copy(update={"novelty": novelty}) for m in members]
        generation = scene.generation("gelu(x)", seen, winner=winner, diversity=diversity)
        return tell(initial_state(), generation).pressure.exploration

    alarmed, calm = exploration(0.01, 0.1), exploration(0.3, 0.5)
    assert alarmed > calm
    assert exploration(0.15, 0.15) == calm, "a close family of functions that differ"
    assert exploration(0.01, 0.4) == calm
    assert exploration(0.01, 0.1, winner="2·gelu(x)") < calm, "one of them is better"


def test_the_origin_is_the_parent_of_the_first_generation(scene):
    state = tell(initial_state(), scene.generation("silu(x)", [scene.member("x³", 0.1)]))
    assert state.origin == "silu(x)"
    assert state.hall[0].formula == "silu(x)"
