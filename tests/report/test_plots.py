"""What the figures show is what the journal says."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from symbio_core.report.cells import count, duration, table
from symbio_core.report.final_plot import final
from symbio_core.report.lineage import family, togetherness, tree
from symbio_core.report.plots import FIXED, functions, losses
from symbio_core.report.search_tables import hall_of_fame
from symbio_core.report.timeline import generation_points, generations, stretches


def changed(record, **changes):
    return record.model_copy(update=changes)


def named(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def test_attempts_lie_end_to_end_on_the_axis_of_steps(life):
    laid = stretches(life.attempts)
    assert laid[0].begin == 0
    assert all(a.end == b.begin for a, b in itertools.pairwise(laid))
    assert laid[-1].end == life.state.steps_spent
    assert [s.label for s in laid][2:4] == ["cambrian", "cambrian (try 2)"]


def test_generations_are_marked_where_their_steps_were_spent(life):
    primordial = stretches(life.attempts)[1]
    marks = generation_points(primordial)
    assert [g.index for g, _ in marks] == [0, 1]
    assert [p for _, p in marks] == list(primordial.attempt.outcome.points[1:3])


def test_lines_break_between_attempts(life):
    line = named(losses(life.attempts), "validation")
    assert list(line.x).count(None) == len(life.attempts)
    values = [y for y in line.y if y is not None]
    assert values == [p.val_nats for a in life.attempts for p in a.outcome.points]


def test_every_curve_has_unit_second_moment_under_the_normal():
    figure = functions("gelu(x)·relu(x)")
    assert [t.name for t in figure.data] == ["gelu(x)·relu(x)", *FIXED]
    for trace in figure.data:
        x, y = np.array(trace.x), np.array(trace.y)
        density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
        inside = float(np.sum(y * y * density) * (x[1] - x[0]))
        # The part beyond the axis is missing, so a little less than 1.
        assert 0.6 < inside < 1.001, trace.name


def test_a_winner_that_is_a_fixed_function_is_drawn_once():
    assert [t.name for t in functions("relu(x)²").data] == ["relu(x)²", "GELU", "SiLU"]


def test_children_are_joined_to_the_latest_point_of_their_parents(life):
    nodes = family(generations(life.attempts))
    child = next(n for n in nodes if n.formula == "gelu(x)·relu(x)" and n.kind == "won")
    assert {p.formula for p in child.parents} == {"relu(x)²", "gelu(x)"}
    assert all(p.x < child.x for p in child.parents)
    assert all(p in nodes for n in nodes for p in n.parents)


def test_the_line_of_the_last_winner_leads_back_to_a_founder(life):
    found = generations(life.attempts)
    line = named(tree(found), "line of the last winner")
    edges = [(a, b) for a, b in zip(line.x[0::3], line.x[1::3], strict=True)]
    assert all(parent < child for parent, child in edges)
    assert min(parent for parent, _ in edges) < 1.5
    assert max(child for _, child in edges) > 4.5


def test_one_exploded_candidate_does_not_flatten_the_tree(life):
    found = generations(life.attempts)
    shown = [y for t in tree(found).data for y in (t.y or ()) if y is not None]
    exploded = max(m.score.loss_nats.value for g in found for m in g.members)
    assert exploded == 0.41
    assert max(shown) < 0.2


def test_a_candidate_whose_loss_is_not_finite_is_left_out_of_the_tree(life):
    generation = generations(life.attempts)[0]
    member = generation.members[0]
    broken = changed(member.score.loss_nats, value=float("nan"))
    burst = changed(member, score=changed(member.score, loss_nats=broken))
    figure = tree([changed(generation, members=(burst, *generation.members[1:]))])
    shown = [n for t in figure.data if t.customdata is not None for n in t.customdata]
    assert len(shown) == len(generation.members)  # the control in, the burst one out


def test_sync_and_diversity_are_drawn_as_they_were_recorded(life):
    found = generations(life.attempts)
    figure = togetherness(found)
    spread, sync = figure.data
    assert list(spread.y) == [g.diversity for g in found]
    assert list(sync.y) == [r for g in found for r in g.sync]
    assert list(sync.x) == sorted(sync.x)


@pytest.mark.parametrize("kind", ["evolved wins", "fixed wins", "no difference"])
def test_the_final_shows_mean_interval_and_every_seed(confirmed, kind):
    confirmation = confirmed(kind)
    figure = final(confirmation)
    means, seeds = figure.data
    assert len(seeds.x) == confirmation.seeds * len(confirmation.effects)
    names = dict(zip(figure.layout.yaxis.tickvals, figure.layout.yaxis.ticktext, strict=True))
    by_name = {names[y]: x for y, x in zip(means.y, means.x, strict=True)}
    for effect in confirmation.effects:
        assert by_name[f"against {effect.against}"] == effect.loss_nats.value
    low, high = figure.layout.xaxis.range
    assert low < 0 < high
    assert all(low < e.loss_nats.low and e.loss_nats.high < high for e in confirmation.effects)


def test_the_comparison_at_equal_time_stands_beside_the_one_at_equal_steps(confirmed):
    found = confirmed("evolved wins")
    shorter = tuple(
        changed(
            e,
            loss_nats=changed(
                e.loss_nats, value=e.loss_nats.value + 0.05, high=e.loss_nats.high + 0.05
            ),
        )
        for e in found.effects
    )
    steps, timed, _ = final(changed(found, effects_seconds=shorter)).data
    assert (steps.name[:14], timed.name[:13]) == ("at equal steps", "at equal time")
    assert [b - a for a, b in zip(steps.x, timed.x, strict=True)] == pytest.approx([0.05] * 3)
    assert all(0 < b - a < 0.5 for a, b in zip(steps.y, timed.y, strict=True))
    low, high = final(changed(found, effects_seconds=shorter)).layout.xaxis.range
    assert low < 0 < max(e.loss_nats.high for e in shorter) < high


def test_a_tree_without_a_winner_draws_no_line_to_one(life):
    found = [
        changed(g, members=tuple(changed(m, fate="survived") for m in g.members), found=False)
        for g in generations(life.attempts)
    ]
    assert [t.name for t in tree(found).data].count("descent") == 1
    assert "line of the last winner" not in [t.name for t in tree(found).data]


def test_the_hall_of_fame_keeps_the_best_of_each_size_that_trained_to_the_end(life):
    text = hall_of_fame(generations(life.attempts))
    assert text.count("<tr") - 1 == len({1, 2, 3, 4, 5, 7})
    assert "0.9·gelu(x)·relu(x)" in text
    assert "relu(x)²+x²" not in text


def test_sizes_are_compared_only_where_they_met_the_same_rival(life):
    found = generations(life.attempts)
    rivals = {(g.parent, g.start) for g in found}
    assert len(rivals) > 1, "the life has one rival only and shows nothing here"
    alone = [changed(g, parent=f"rival {g.index}", members=g.members[:1]) for g in found]
    assert 'there">yes' not in hall_of_fame(alone)
    assert 'there">no' not in hall_of_fame(alone)
    assert 'there">yes' in hall_of_fame(found) or 'there">no' in hall_of_fame(found)


def test_a_cell_is_text_whatever_it_holds():
    text = table([{"a": "<i>", "b": None, "c": 0}], code=["a"], numbers=["c"])
    assert '<td class="code" data-label="a">&lt;i&gt;</td>' in text
    assert '<td data-label="b">–</td>' in text
    assert '<td class="number" data-label="c">0</td>' in text


def test_a_heading_is_text_too_and_a_line_break_in_a_cell_stays():
    text = table([{'"><i>': "one\ntwo"}])
    assert "<i>" not in text
    assert 'data-label="&quot;&gt;&lt;i&gt;">one\ntwo</td>' in text


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0.0, "0.0 s"),
        (0.014, "14 ms"),
        (0.4, "0.4 s"),
        (12.3, "12 s"),
        (90, "90 s"),
        (91, "1 min 31 s"),
        (3599.7, "1 h 0 min"),
    ],
)
def test_times_are_told_as_people_say_them(seconds, told):
    assert duration(seconds) == told


def test_thousands_are_parted():
    assert count(1234567) == "1\u2009234\u2009567"
