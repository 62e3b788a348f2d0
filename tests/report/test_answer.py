"""The answer in words: it says effect, certainty and cost, and never more than was tested."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbio_core.records import Confirmation, Contender, Effect, Interval
from symbio_core.report.answer import headline, is_sure, own_name, relative_cost, sentence

KINDS = ["evolved wins", "fixed wins", "no difference"]


def changed(record, **changes):
    return record.model_copy(update=changes)


def timed(confirmation: Confirmation, shift: float, half: float, p_value: float) -> Confirmation:
    """The same final, with a comparison at equal time against its best fixed function."""
    nats = Interval(value=shift, low=shift - half, high=shift + half)
    effect = Effect(against="GELU", loss_nats=nats, bpb=nats, p_value=p_value)
    return changed(confirmation, effects_seconds=(effect,))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_tells_effect_certainty_and_how_far_the_test_reached(confirmed, kind):
    told = sentence(confirmed(kind))
    assert "bits a byte" in told
    assert "95% sure" in told
    assert "p = 0." in told
    assert "after 75 steps from fresh weights with 3 seeds" in told
    assert "longer training may rank them otherwise" in told
    assert "\n" not in told


def test_a_win_names_its_size_its_share_and_what_a_step_costs(confirmed):
    told = sentence(confirmed("evolved wins"))
    assert told.startswith("gelu(x)·relu(x)+0.2·x beat ReLU² by 0.0095 bits a byte, 0.5% of its")
    assert "(95% sure: 0.0048 to 0.0143; luck alone: 4 of 1000 tries, p = 0.0042)" in told
    assert "A step took 8% more time than one with ReLU²." in told


def test_a_cost_that_was_reckoned_is_not_told_as_measured(confirmed):
    found = confirmed("evolved wins")
    reckoned = tuple(c if c.name == "evolved" else changed(c, cost=0.8) for c in found.contenders)
    told = sentence(changed(found, contenders=reckoned))
    assert "A step is reckoned at 25% more time than one with ReLU²." in told
    level = tuple(changed(c, seconds_per_step=0.02) for c in found.contenders)
    told = sentence(changed(found, contenders=level))
    assert "A step took as much time as one with ReLU²." in told


def test_a_loss_says_who_beat_whom(confirmed):
    assert sentence(confirmed("fixed wins")).startswith("ReLU² beat gelu(x)·relu(x)+0.2·x by")


def test_no_difference_says_so_first_and_gives_both_ends(confirmed):
    told = sentence(confirmed("no difference"))
    assert told.startswith("No difference: keep ReLU².")
    assert "between 0.0056 bits a byte better and 0.0040 worse than ReLU²" in told
    assert "may be luck" in told


def test_an_interval_beyond_zero_is_not_sure_where_the_corrected_p_says_so(confirmed):
    found = confirmed("evolved wins")
    lucky = tuple(changed(e, p_value=0.08) for e in found.effects)
    told = sentence(changed(found, verdict="no difference", effects=lucky))
    assert "0.0048 to 0.0143 bits a byte better than ReLU², not sure once every" in told
    assert " beat " not in told


def test_a_smaller_model_in_the_final_is_never_left_out(confirmed):
    told = sentence(changed(confirmed("evolved wins"), scale=0.5))
    assert "of a model 0.5 times as deep and wide as the run's own" in told
    assert "longer training or the larger model may rank them otherwise" in told


@pytest.mark.parametrize(
    ("shift", "half", "p_value", "head", "body"),
    [
        (-0.02, 0.01, 0.003, " and at equal time.", "0.0100 to 0.0300 bits a byte better"),
        (-0.02, 0.03, 0.2, "; at equal time there is no sure difference.", "may be luck"),
        (0.02, 0.01, 0.003, "; at equal time GELU won.", "0.0100 to 0.0300 bits a byte worse"),
    ],
)  # fmt: skip
def test_a_win_at_equal_steps_is_told_with_what_equal_time_says(
    confirmed, shift, half, p_value, head, body
):
    found = timed(confirmed("evolved wins"), shift, half, p_value)
    assert headline(found).startswith("The evolved function beat ReLU² at 75 steps")
    assert headline(found).endswith(head)
    assert "At equal time, against its strongest rival" in sentence(found)
    assert body in sentence(found).split("At equal time")[1]


def test_equal_time_is_not_spoken_of_where_nobody_measured_it(confirmed):
    assert "equal time" not in sentence(confirmed("evolved wins"))
    assert headline(confirmed("evolved wins")) == "The evolved function beat ReLU² at 75 steps."


def test_a_fixed_function_that_came_out_of_the_search_is_told_by_its_name(confirmed):
    found = confirmed("evolved wins")
    own = changed(found.contenders[1], nats=found.contenders[0].nats)
    chosen = changed(
        found,
        winner=own.formula,
        contenders=(own, *found.contenders[2:]),
        effects=found.effects[1:],
        verdict="fixed wins",
    )
    assert own_name(chosen) == "ReLU²"
    assert sentence(chosen).startswith("The search itself settled on ReLU²")
    doubt = sentence(changed(chosen, verdict="no difference"))
    assert doubt.startswith("No difference: keep ReLU². The search itself settled on ReLU²")


def contender(cost: float, seconds: float) -> Contender:
    return Contender(
        name="one", formula="x²", nats=(1.0,), bpb=1.0, seconds_per_step=seconds, cost=cost
    )


def test_a_reckoned_cost_goes_before_the_times_of_the_final():
    assert relative_cost(contender(1.2, 1.0), contender(1.0, 3.0)) == pytest.approx(1.2)
    assert relative_cost(contender(1.0, 1.5), contender(1.0, 3.0)) == pytest.approx(0.5)
    assert relative_cost(contender(1.0, 1.5), contender(1.0, 0.0)) == 1.0


values = st.floats(-1.0, 1.0)


@given(values, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_only_an_interval_beyond_zero_with_a_small_p_is_sure(value, half, p_value):
    interval = Interval(value=value, low=value - half, high=value + half)
    effect = Effect(against="GELU", loss_nats=interval, bpb=interval, p_value=p_value)
    assert is_sure(effect) == ((abs(value) > half) and p_value < 0.05)
