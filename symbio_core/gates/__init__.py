"""From an outcome to verdicts: text quality, overfitting, plateaus. Pure."""

from symbio_core.gates.battery import Answer, paired_quality, score_battery
from symbio_core.gates.overfitting import judge_levels, judge_overfitting
from symbio_core.gates.plateau import judge_plateau, judge_rate, judge_standstill
from symbio_core.gates.progress import judge_battery
from symbio_core.gates.quality import Reference

__all__ = [
    "Answer",
    "Reference",
    "judge_battery",
    "judge_levels",
    "judge_overfitting",
    "judge_plateau",
    "judge_rate",
    "judge_standstill",
    "paired_quality",
    "score_battery",
]
