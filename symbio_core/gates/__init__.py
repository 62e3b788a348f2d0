"""From an outcome to verdicts: text quality, overfitting, plateaus. Pure."""

from symbio_core.gates.battery import Answer, paired_quality, score_battery
from symbio_core.gates.overfitting import judge_overfitting
from symbio_core.gates.plateau import judge_plateau
from symbio_core.gates.progress import judge_battery
from symbio_core.gates.quality import Reference

__all__ = [
    "Answer",
    "Reference",
    "judge_battery",
    "judge_overfitting",
    "judge_plateau",
    "paired_quality",
    "score_battery",
]
