"""What Prefect's page of a phase says of changes, fusion and alarms."""

from __future__ import annotations

from symbio_core.report.cells import FIRM
from tasks.telling import page


def test_the_page_of_a_phase_tells_changes_in_words_with_their_cause(life):
    told = page(life.attempts[3]).replace(FIRM, " ")
    assert "- mutation rate × 1.5 (`mutation_scale` 1 → 1.5), because of population colla" in told
    assert "- fusion: 3 of 4 pulls to the consensus taken, members in step to r = 0.93" in told


def test_the_page_of_a_phase_without_fusion_or_alarm_speaks_of_neither(life):
    told = page(life.attempts[0])
    assert "fusion" not in told
    assert "alarm" not in told
    assert "- alarm: the gradient norm jumped at step 1080" in page(life.attempts[4])
